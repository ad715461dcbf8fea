"""Sample the frames of a clip that later stages use, each with the motion around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from curation.imaging.codec import encode_image
from curation.rows.schema import EncodedImage
from curation.video.frames import FrameScaler
from curation.video.motion import measure_motion
from reprise.video.colour import SDR

Small = NDArray[np.uint8]  # (h, w, 3) BGR of `frames.SMALL_SIDE`

# Residual motion, in shares of the diagonal per second, of grey level 255 in a stored motion map.
MOTION_SCALE = 0.5
# s; three frames at 25 fps. Slow motion is visible over it, and flow can still follow fast motion.
MOTION_GAP_S = 0.119
_RECENT_FRAMES = 64  # small pictures: enough for MOTION_GAP_S at 240 fps


@dataclass(frozen=True)
class PendingFrame:
    """A decoded frame between the shot detector, which runs ahead, and the cut."""

    index: int
    time_s: float
    pts: int | None
    frame: VideoFrame  # clip size, 4:2:0
    small: Small
    stretch: int  # frames of another stretch have another shape, or follow a gap
    after_gap: bool = False
    interlaced: bool = False  # in the source
    transfer: str = SDR  # in the source


@dataclass(frozen=True)
class SampledFrame:
    """A sampled frame of a clip, with the motion around it."""

    index: int  # source frame number
    time_s: float
    image: EncodedImage
    motion: EncodedImage | None  # grey PNG, 255 = `MOTION_SCALE`; None: there is no second frame
    residual: float | None  # mean residual motion, share of the diagonal per second
    camera: float | None  # mean camera motion, same unit


class FrameSampler:
    """Samples a clip at a steady rate.

    A sample is taken in the middle of each step, so that none lies on a cut.
    """

    def __init__(self, start_s: float, sample_fps: float, shapes: FrameScaler) -> None:
        self._start_s, self._sample_fps, self._scaler = start_s, sample_fps, shapes
        self._recent: deque[tuple[float, Small]] = deque(maxlen=_RECENT_FRAMES)
        self.samples: list[SampledFrame] = []

    def add_frame(self, pending: PendingFrame, following: Iterable[PendingFrame]) -> None:
        """Add the clip's next frame.

        Args:
            pending: the frame.
            following: the frames of the same shot that are known to follow it.
        """
        due = (len(self.samples) + 0.5) / self._sample_fps
        if pending.time_s - self._start_s >= due - 1e-6:
            self.samples.append(self._sample_frame(pending, following))
        self._recent.append((pending.time_s, pending.small))

    def _sample_frame(self, pending: PendingFrame, following: Iterable[PendingFrame]) -> SampledFrame:
        image = encode_image(self._scaler.make_rgb(pending.frame))
        partner = self._find_partner(pending, following)
        if partner is None:
            return SampledFrame(pending.index, pending.time_s, image, None, None, None)
        time_s, small = partner
        # The residual is aligned with the second argument, so the sampled frame comes second. Motion is as
        # fast backwards.
        motion = measure_motion(_to_grey(small), _to_grey(pending.small), abs(time_s - pending.time_s))
        levels = np.clip(motion.residual * (255 / MOTION_SCALE), 0, 255).astype(np.uint8)
        residual = float(motion.residual.mean())
        return SampledFrame(
            pending.index, pending.time_s, image, encode_image(levels), residual, motion.camera
        )

    def _find_partner(
        self, pending: PendingFrame, following: Iterable[PendingFrame]
    ) -> tuple[float, Small] | None:
        """Return time and picture of a near frame of the shot: a later one or, at its end, an earlier one."""
        for each in following:
            if each.time_s - pending.time_s >= MOTION_GAP_S:
                return each.time_s, each.small
        return next(
            (each for each in reversed(self._recent) if pending.time_s - each[0] >= MOTION_GAP_S), None
        )


def _to_grey(small: Small) -> NDArray[np.uint8]:
    return cast(NDArray[np.uint8], cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
