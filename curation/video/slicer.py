"""Raw video -> clips, in one decode: every frame feeds the shot detector, the cut, the samples and the motion."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from curation.config import SliceConfig
from curation.imaging import RGB, encode
from curation.schema import Image
from curation.video.cut import CopiedCut, Cut, EncodedCut, PacketLog, may_copy
from curation.models.embedded.motion import measure_motion
from curation.video.shots import ShotDetector, small_size
from curation.video.source import BadVideo, Decoded, Source, VideoInfo, decode, open_video, rotation_of, upright

# Residual motion, in shares of the diagonal per second, that grey level 255 of a stored motion map means.
MOTION_SCALE = 0.5
_MOTION_GAP_S = 0.12  # far enough apart for slow motion to show, near enough for flow to follow fast motion
_RECENT_FRAMES = 64  # small grey pictures: enough for _MOTION_GAP_S at 240 fps
_LOOKAHEAD_BYTES = 96 << 20
_COMPLETE_SHARE = 0.9  # containers round their frame counts; below this the file was cut off


@dataclass
class Sample:
    index: int
    time_s: float
    image: Image
    motion: Image | None


@dataclass
class Span:
    """Frames [start_frame, end_frame) of the video: a clip with its file, or the reason why there is none."""

    start_frame: int
    end_frame: int
    start_s: float
    end_s: float
    file: Path | None = None
    cut: str | None = None
    samples: list[Sample] = field(default_factory=list)
    motion: float | None = None
    camera_motion: float | None = None
    status: str = "open"  # open | rejected | failed | done (an earlier run has it)
    reason: str | None = None
    value: float | None = None
    threshold: float | None = None

    @property
    def num_frames(self) -> int:
        return self.end_frame - self.start_frame


@dataclass
class _Pending:
    """A decoded frame between the shot detector, which runs ahead, and the cut."""

    index: int
    time_s: float
    pts: int | None
    frame: VideoFrame  # clip size, yuv420p
    grey: NDArray[np.uint8]


@dataclass
class _Piece:
    start: _Pending
    cut: Cut | None  # None: known to be too short
    file: Path
    span: Span
    last: int
    last_time_s: float
    next_sample: int = 0
    motions: list[float] = field(default_factory=list)
    cameras: list[float] = field(default_factory=list)


class Slicer:
    """Slices one video.

    Args:
        path: a local file.
        config: lengths in seconds, sizes in pixels.
        folder: where the mp4 files of clips are written; the caller moves them away and removes what is left.
        done: first frames of the clips that need not be written again.

    Raises (from `run`):
        BadVideo: nothing of the file can be used; the message is the reason.
    """

    def __init__(
        self, path: Path, config: SliceConfig, folder: Path, done: frozenset[int] = frozenset()
    ) -> None:
        self._path, self._config, self._folder, self._done = path, config, folder, done
        self.info: VideoInfo | None = None
        self.width = self.height = 0  # px, of the clips

    def run(self) -> Iterator[Span]:
        """Spans in time order: clips, shots that were too short, damaged stretches, a missing tail."""
        with open_video(self._path) as source:
            yield from self._run(source)

    def _run(self, source: Source) -> Iterator[Span]:
        log = PacketLog()
        pending: deque[_Pending] = deque()
        cuts: list[int] = []
        shots: ShotDetector | None = None
        lookahead = 0
        frames = 0
        self._source, self._log, self._pending, self._cuts = source, log, pending, cuts
        self._piece: _Piece | None = None
        self._recent: deque[tuple[float, NDArray[np.uint8]]] = deque(maxlen=_RECENT_FRAMES)
        for decoded in decode(source, log):
            if shots is None:
                self._prepare(source, decoded.frame)
                shots = ShotDetector(self._config, source.info.fps)
                lookahead = self._lookahead(shots.delay, source.info.fps)
            small = self._small(decoded.frame)
            for cut in shots.push(decoded.index, small):
                cuts.insert(bisect_right(cuts, cut), cut)
            pending.append(self._pend(decoded, small))
            frames += 1
            if len(pending) > lookahead:
                yield from self._consume(pending.popleft())
        if shots is None:
            words = source.damage[0][1] if source.damage else "the stream is empty"
            raise BadVideo(f"no frame could be decoded ({words})")
        for cut in shots.finish():
            cuts.insert(bisect_right(cuts, cut), cut)
        while pending:
            yield from self._consume(pending.popleft())
        yield from self._close(None)
        declared = source.info.declared_frames
        if frames < _COMPLETE_SHARE * declared:
            end = self._end_of_video
            yield Span(
                frames, declared, end, end, status="failed", reason="the file ends early: frames that could be read",
                value=float(frames), threshold=float(declared),
            )  # fmt: skip

    def _prepare(self, source: Source, frame: VideoFrame) -> None:
        """What only the first frame tells: rotation, and with it the size of the clips."""
        info = source.info
        rotation = rotation_of(frame)
        if rotation in (90, 270):
            info = replace(info, width=info.height, height=info.width)
        source.info = self.info = replace(info, rotation=rotation)
        self.width, self.height = clip_size(self.info, self._config.max_short_side)
        turned = rotation in (90, 270)
        self._small_size = small_size(*((info.height, info.width) if turned else (info.width, info.height)))
        self._copyable = self._config.cut == "auto" and may_copy(
            self.info, source.stream, self.width, self.height
        )
        self._rotation = rotation
        self._end_of_video = 0.0

    def _lookahead(self, delay: int, fps: Fraction) -> int:
        """Frames held back: the detector's delay, and if memory allows the shortest clip, so that shots too
        short to keep are known before anything of them is encoded."""
        affordable = _LOOKAHEAD_BYTES // max(1, self.width * self.height * 3 // 2)
        return max(delay, min(int(self._config.min_length * fps) + 1, affordable))

    def _small(self, frame: VideoFrame) -> NDArray[np.uint8]:
        width, height = self._small_size
        array = frame.reformat(
            width=width, height=height, format="bgr24", interpolation="FAST_BILINEAR"
        ).to_ndarray()
        return cast(NDArray[np.uint8], np.ascontiguousarray(np.rot90(array, self._rotation // 90)))

    def _pend(self, decoded: Decoded, small: NDArray[np.uint8]) -> _Pending:
        frame = decoded.frame
        fits = (frame.width, frame.height) == (self.width, self.height) and frame.format.name in (
            "yuv420p",
            "yuvj420p",
        )
        if not fits or self._rotation:
            frame = upright(frame, self.width, self.height, self._rotation, "yuv420p")
        grey = cast(NDArray[np.uint8], cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
        return _Pending(decoded.index, decoded.time_s, decoded.frame.pts, frame, grey)

    def _consume(self, at: _Pending) -> Iterator[Span]:
        cut_here = False
        while self._cuts and self._cuts[0] <= at.index:
            # A cut reported after its frames were written takes effect at the first frame still open.
            cut_here = self._cuts.pop(0) > 0 or cut_here
        piece = self._piece
        frame_s = float(1 / self._source.info.fps)
        if piece and (
            cut_here or at.time_s - piece.start.time_s > self._config.max_length - frame_s / 2
        ):
            yield from self._close(at)
            piece = None
        if piece is None:
            piece = self._piece = self._open(at)
        if piece.cut is not None:
            self._sample(piece, at)
            piece.cut.add(at.frame)
        if not isinstance(piece.cut, CopiedCut):
            self._log.forget_before(at.pts)
        piece.last = at.index
        piece.last_time_s = at.time_s
        self._recent.append((at.time_s, at.grey))

    def _open(self, at: _Pending) -> _Piece:
        self._log.forget_before(at.pts)
        file = self._folder / f"{at.index:09d}.mp4"
        span = Span(at.index, at.index, at.time_s, at.time_s)
        cut: Cut | None = None
        if not self._too_short_for_sure(at) and at.index not in self._done:
            if self._copyable and at.pts is not None and self._log.from_keyframe(at.pts) is not None:
                cut = CopiedCut(file, self._log, at.pts, self._source.stream)
            else:
                cut = EncodedCut(
                    file, self.width, self.height, self._source.info.fps, self._config.crf, self._config.preset
                )  # fmt: skip
        self._recent.clear()
        return _Piece(at, cut, file, span, at.index, at.time_s)

    def _too_short_for_sure(self, at: _Pending) -> bool:
        """Whether the next cut is already known to come before the shortest clip is full."""
        if not self._cuts:
            return False
        ahead = next((each for each in self._pending if each.index >= self._cuts[0]), None)
        return ahead is not None and ahead.time_s - at.time_s < self._config.min_length - 1e-6

    def _sample(self, piece: _Piece, at: _Pending) -> None:
        """Frames in the middle of equal steps, so that none sits on a cut."""
        due = (piece.next_sample + 0.5) / self._config.sample_fps
        if at.time_s - piece.start.time_s < due - 1e-6:
            return
        piece.next_sample += 1
        motion = self._motion(at)
        stored: Image | None = None
        if motion is not None:
            residual, camera = motion
            piece.motions.append(float(residual.mean()))
            piece.cameras.append(camera)
            grey = np.clip(residual / MOTION_SCALE * 255, 0, 255).astype(np.uint8)
            stored = encode(grey)
        picture = cast(RGB, at.frame.to_ndarray(format="rgb24"))
        piece.span.samples.append(Sample(at.index, at.time_s, encode(picture), stored))

    def _motion(self, at: _Pending) -> tuple[NDArray[np.float32], float] | None:
        """Motion around a frame, against a near frame of the same shot; None where there is none."""
        limit = self._cuts[0] if self._cuts else None
        for other in self._pending:
            if limit is not None and other.index >= limit:
                break
            if other.time_s - at.time_s >= _MOTION_GAP_S:
                # Measured on `at`'s own pixels: flow goes from it to the later frame.
                motion = measure_motion(at.grey, other.grey, other.time_s - at.time_s)
                return motion.residual, motion.camera
        for time_s, grey in reversed(self._recent):
            if at.time_s - time_s >= _MOTION_GAP_S:
                motion = measure_motion(at.grey, grey, at.time_s - time_s)
                return motion.residual, motion.camera
        return None

    def _close(self, next_frame: _Pending | None) -> Iterator[Span]:
        piece, self._piece = self._piece, None
        if piece is None:
            return
        frame_s = float(1 / self._source.info.fps)
        span = piece.span
        span.end_s = next_frame.time_s if next_frame else piece.last_time_s + frame_s
        self._end_of_video = span.end_s
        span.end_frame = piece.last + 1
        length = span.end_s - span.start_s
        short_side = min(self.width, self.height)
        broken = [words for index, words in self._source.damage if span.start_frame <= index < span.end_frame]
        if piece.start.index in self._done:
            span.status = "done"
        elif length < self._config.min_length - 1e-6:
            self._stop(piece, "rejected", "shot too short", length, self._config.min_length)
        elif short_side < self._config.min_short_side:
            self._stop(piece, "rejected", "frame too small", short_side, self._config.min_short_side)
        elif broken:
            self._stop(piece, "failed", f"damaged: {broken[0]}", len(broken), 0)
        elif piece.cut is not None:
            count = piece.cut.finish(next_frame.pts if next_frame else None)
            span.end_frame = span.start_frame + count
            span.file, span.cut = piece.file, piece.cut.how
            span.samples = [sample for sample in span.samples if sample.index < span.end_frame]
            span.motion = _mean(piece.motions)
            span.camera_motion = _mean(piece.cameras)
        yield span

    def _stop(self, piece: _Piece, status: str, reason: str, value: float, threshold: float) -> None:
        if piece.cut is not None:
            piece.cut.abandon()
        span = piece.span
        span.samples.clear()
        span.status, span.reason, span.value, span.threshold = status, reason, float(value), float(threshold)


def clip_size(info: VideoInfo, max_short_side: int) -> tuple[int, int]:
    """(width, height) px of the clips: as shown, at most `max_short_side`, even as 4:2:0 wants."""
    scale = min(1.0, max_short_side / min(info.width, info.height))
    return tuple(max(2, int(side * scale + 0.5) // 2 * 2) for side in (info.width, info.height))  # type: ignore[return-value]


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
