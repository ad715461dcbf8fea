"""Read the frames of a video to encode: at a constant rate, of a bucket's size, in one pass of decoding."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from reprise.video.ahead import StalledError, run_ahead
from reprise.video.cover import compute_cover
from reprise.video.decode import DecodedFrame, decode_frames
from reprise.video.errors import BadVideoError, format_ffmpeg_error
from reprise.video.geometry import render_upright
from reprise.video.info import VideoInfo
from reprise.video.open_video import OpenVideo, open_video
from reprise.video.ticks import sample_at_ticks
from training.latents.buckets import SizeBuckets, find_window_start

_TOLERANCE_S = 1e-6
_TIMEOUT_S = 120.0  # maximum time for the decoder to return a frame
_FRAMES_AHEAD = 2  # frames to decode while the one before is resized


class DroppedItemError(Exception):
    """One item cannot be encoded. It has a reason, which is counted, and a message about this item."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason, self.message = reason, message or reason


@dataclass(frozen=True)
class DecodedClip:
    """The frames of a clip, of a bucket's size and length."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) RGB
    fps: float
    first_s: float  # time of the first frame, from the first frame of the video


def read_clip(media: Path | bytes, buckets: SizeBuckets) -> DecodedClip:
    """Decode a video, and resize and crop it to its bucket.

    The frames are those nearest to the ticks of `buckets.fps`, counted from the first frame. A longer video
    gives its start or its middle. A shorter video gets the next smaller number of frames. If frames are
    missing or their shape changes, the longest stretch without such a break is used.

    Args:
        media: a file, or all of its bytes.
        buckets: sizes, lengths and rate.

    Raises:
        DroppedItemError: the video is unreadable, damaged, too short, too small or too slow, or no bucket has
            its aspect ratio.
    """
    try:
        with open_video(media, _TIMEOUT_S) as source:
            _refuse_slow_video(source.info, buckets)
            return _read_window(source, buckets)
    except StalledError as error:
        raise DroppedItemError(
            "decoder stalled", f"its decoder gave no frame for {_TIMEOUT_S:g} s"
        ) from error
    except FFmpegError as error:
        raise DroppedItemError("unreadable", format_ffmpeg_error(error)) from error
    except (BadVideoError, OSError, ValueError) as error:
        raise DroppedItemError("unreadable", str(error)) from error


def _refuse_slow_video(info: VideoInfo, buckets: SizeBuckets) -> None:
    rate = float(info.fps)
    if rate < buckets.fps * (1 - buckets.config.slow) - _TOLERANCE_S:
        raise DroppedItemError("frame rate", f"{rate:.4g} frames per second, {buckets.fps:g} are wanted")


def _read_window(source: OpenVideo, buckets: SizeBuckets) -> DecodedClip:
    wanted = buckets.frames[0]
    start = 0
    if buckets.config.window == "middle":
        length = math.floor(source.info.duration_s * buckets.fps + _TOLERANCE_S)
        start = find_window_start(max(length, wanted), wanted, "middle")
    longest: _FrameWindow | None = None
    with closing(run_ahead(decode_frames(source), _FRAMES_AHEAD, _TIMEOUT_S)) as frames:
        for _, stretch in groupby(frames, key=lambda each: each.stretch):
            window = _FrameWindow(buckets)
            for _, decoded in sample_at_ticks(((each.time_s, each) for each in stretch), buckets.fps):
                window.add_frame(decoded)
                if window.is_complete(start + wanted):
                    break
            if longest is None or window.count > longest.count:
                longest = window
            if window.is_complete(start + wanted):
                break
    if longest is None:
        reason = source.damage[0][1] if source.damage else source.end_reason or "the stream is empty"
        raise DroppedItemError("unreadable", f"no frame could be decoded ({reason})")
    return longest.build_clip(dict(source.damage))


class _FrameWindow:
    """The last frames of a stretch, resized, at most as many as the longest bucket has.

    Frames before the start of the window are kept too, because a video can end before the duration that its
    container gives.
    """

    def __init__(self, buckets: SizeBuckets) -> None:
        self._buckets = buckets
        self._scaler = VideoReformatter()
        self._kept: list[NDArray[np.uint8]] = []
        self._indices: list[int] = []  # of the kept frames in the source
        self._first = 0
        self._start_s = 0.0
        self._size: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """Number of frames that are kept."""
        return len(self._kept)

    def add_frame(self, decoded: DecodedFrame) -> None:
        if not self._kept:
            self._start_s = decoded.time_s
        self._kept.append(self._resize_frame(decoded))
        self._indices.append(decoded.index)
        if len(self._kept) > self._buckets.frames[0]:
            del self._kept[0], self._indices[0]
            self._first += 1

    def is_complete(self, end: int) -> bool:
        return self._first + len(self._kept) >= end

    def build_clip(self, damage: dict[int, str]) -> DecodedClip:
        available = len(self._kept)
        length = self._buckets.choose_length(available)
        if length is None:
            least = self._buckets.frames[-1]
            raise DroppedItemError(
                "too short",
                f"{available} frames at {self._buckets.fps:g} per second, at least {least} are needed",
            )
        at = find_window_start(available, length, self._buckets.config.window)
        used = range(self._indices[at], self._indices[at + length - 1] + 1)
        broken = [damage[index] for index in used if index in damage]
        if broken:
            raise DroppedItemError("damaged", f"{len(broken)} of its frames are damaged: {broken[0]}")
        frames = np.stack(self._kept[at : at + length])
        first_s = self._start_s + (self._first + at) / self._buckets.fps
        return DecodedClip(frames, self._buckets.fps, first_s)

    def _resize_frame(self, decoded: DecodedFrame) -> NDArray[np.uint8]:
        height, width = decoded.geometry.height, decoded.geometry.width
        if self._size is None:
            size = self._buckets.choose_size(height, width)
            if isinstance(size, str):
                raise DroppedItemError(size, f"{size}: frames of {width}x{height} fit no bucket")
            self._size = size
        (to_height, to_width), (top, left) = compute_cover(self._size, height, width)
        upright = render_upright(decoded.frame, decoded.geometry, to_width, to_height, self._scaler)
        return np.ascontiguousarray(upright[top : top + self._size[0], left : left + self._size[1]])
