"""A decoded frame in the shapes that slicing wants: upright, small or as large as the clip, or RGB."""

from __future__ import annotations

from typing import cast

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from curation.imaging.codec import RGB
from reprise.video.geometry import DisplayGeometry, render_upright, render_upright_planes

# PySceneDetect looks at frames whose longer side is about this many pixels; its thresholds were tuned for it.
SMALL_SIDE = 256


def get_small_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) px at which shots and motion are looked at."""
    scale = max(1.0, max(width, height) / SMALL_SIDE)
    return max(8, round(width / scale)), max(8, round(height / scale))


def get_clip_size(geometry: DisplayGeometry, max_short_side: int) -> tuple[int, int]:
    """(width, height) px of the clips: as shown, at most `max_short_side`, even as 4:2:0 wants."""
    scale = min(1.0, max_short_side / min(geometry.width, geometry.height))
    width, height = (max(2, int(side * scale + 0.5) // 2 * 2) for side in (geometry.width, geometry.height))
    return width, height


class FrameScaler:
    """Makes the shapes that slicing wants of frames of one geometry; keeps its scalers, which are expensive.

    Attributes:
        width, height: of the clips as shown, px.
    """

    def __init__(self, geometry: DisplayGeometry, max_short_side: int) -> None:
        self.width, self.height = get_clip_size(geometry, max_short_side)
        self._geometry = geometry
        self._small_size = get_small_size(geometry.width, geometry.height)
        self._small_scaler, self._clip_scaler, self._rgb_scaler = (VideoReformatter() for _ in range(3))

    def make_small(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """(h, w, 3) BGR of about `SMALL_SIDE`."""
        return render_upright(
            frame,
            self._geometry,
            *self._small_size,
            self._small_scaler,
            pixel_format="bgr24",
            interpolation="FAST_BILINEAR",
        )

    def make_clip_frame(self, frame: VideoFrame) -> VideoFrame:
        """4:2:0 of (width, height) px; the frame itself where it is that already."""
        return render_upright_planes(frame, self._geometry, self.width, self.height, self._clip_scaler)

    def make_rgb(self, clip_frame: VideoFrame) -> RGB:
        """(height, width, 3) RGB of what `make_clip_frame` returned."""
        return cast(RGB, self._rgb_scaler.reformat(clip_frame, format="rgb24", threads=1).to_ndarray())
