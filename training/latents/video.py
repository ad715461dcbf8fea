"""A video file -> the frames that are encoded: at a steady rate, of a bucket's size, in one decode."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from training.latents.buckets import SizeBuckets, compute_cover, find_window_start

_TOLERANCE_S = 1e-6  # s


class UnusableItemError(Exception):
    """Why one item cannot be encoded: a reason to count, and words about this one."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason, self.message = reason, message or reason


@dataclass(frozen=True)
class DecodedClip:
    """Frames as the VAE takes them, but for the scale."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) RGB
    fps: float
    first_s: float  # of the first frame, from the video's first


def read_clip(source: Path | bytes, buckets: SizeBuckets) -> DecodedClip:
    """Decode a video and bring it to its bucket.

    Frames are taken where they are nearest to the ticks of `buckets.fps`, counted from the first frame. Of a
    longer video the start or the middle is taken; a shorter one goes to the next smaller number of frames.

    Raises:
        Unusable: unreadable, too short, too small, too slow, or of an aspect ratio that no bucket has.
    """
    try:
        file: Any = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        with av.open(file, mode="r") as container:
            if not container.streams.video:
                raise UnusableItemError("unreadable", "it has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or 0)
            if rate and rate < buckets.fps * (1 - buckets.config.slow) - _TOLERANCE_S:
                raise UnusableItemError(
                    "frame rate", f"{rate:.4g} frames per second, {buckets.fps:g} are wanted"
                )
            wanted = buckets.frames[0]
            start = 0
            if buckets.config.window == "middle":
                length = math.floor(_get_duration(container, stream) * buckets.fps + _TOLERANCE_S)
                start = find_window_start(max(length, wanted), wanted, "middle")
            frames = _FrameWindow(buckets)
            for _, frame in sample_at_ticks(_decode_frames(container, stream), buckets.fps):
                frames.add_frame(frame)
                if frames.is_complete(start + wanted):
                    break
    except av.FFmpegError as error:
        raise UnusableItemError("unreadable", str(error.strerror or error)) from error
    except (OSError, ValueError) as error:
        raise UnusableItemError("unreadable", str(error)) from error
    return frames.build_clip()


class _FrameWindow:
    """The newest frames, resized: as many as the longest bucket has.

    They are kept before the window begins, too: a video may end earlier than its container says.
    """

    def __init__(self, buckets: SizeBuckets) -> None:
        self._buckets = buckets
        self._scaler = VideoReformatter()
        self._kept: list[NDArray[np.uint8]] = []
        self._first = 0
        self._size: tuple[int, int] | None = None

    def add_frame(self, frame: VideoFrame) -> None:
        self._kept.append(self._convert_frame(frame))
        if len(self._kept) > self._buckets.frames[0]:
            del self._kept[0]
            self._first += 1

    def is_complete(self, end: int) -> bool:
        return self._first + len(self._kept) >= end

    def build_clip(self) -> DecodedClip:
        available = len(self._kept)
        length = self._buckets.choose_length(available)
        if length is None:
            least = self._buckets.frames[-1]
            raise UnusableItemError(
                "too short",
                f"{available} frames at {self._buckets.fps:g} per second, at least {least} are needed",
            )
        at = find_window_start(available, length, self._buckets.config.window)
        frames = np.stack(self._kept[at : at + length])
        return DecodedClip(frames, self._buckets.fps, (self._first + at) / self._buckets.fps)

    def _convert_frame(self, frame: VideoFrame) -> NDArray[np.uint8]:
        turns = round(float(frame.rotation) / 90) % 4  # counter-clockwise, as players turn it
        height, width = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
        if self._size is None:
            size = self._buckets.choose_size(height, width)
            if isinstance(size, str):
                raise UnusableItemError(size, f"{size}: frames of {width}x{height} fit no bucket")
            self._size = size
        resized, (top, left) = compute_cover(self._size, height, width)
        to_height, to_width = resized[::-1] if turns % 2 else resized
        shrinks = frame.width > 1.5 * to_width
        rgb = self._scaler.reformat(
            frame, to_width, to_height, "rgb24", interpolation="AREA" if shrinks else "BICUBIC"
        ).to_ndarray()
        upright = np.rot90(rgb, turns) if turns else rgb
        return np.ascontiguousarray(upright[top : top + self._size[0], left : left + self._size[1]])


def sample_at_ticks(
    frames: Iterator[tuple[float, VideoFrame]], fps: float
) -> Iterator[tuple[int, VideoFrame]]:
    """For each tick k = 0, 1, ... the frame nearest to k / fps, until the last frame.

    frames: (seconds from the first, frame), in order. Of two equally near the later one is taken.
    """
    tick = 0
    last: tuple[float, VideoFrame] | None = None
    for now in frames:
        if last is not None:
            middle = (last[0] + now[0]) / 2
            while tick / fps < middle - _TOLERANCE_S:
                yield tick, last[1]
                tick += 1
        last = now
    if last is not None:
        while tick / fps <= last[0] + _TOLERANCE_S:
            yield tick, last[1]
            tick += 1


def _decode_frames(container: InputContainer, stream: av.VideoStream) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their times from the first one, in seconds; always going forward."""
    step = 1 / float(stream.average_rate or 25)
    first, last = None, -math.inf
    for frame in container.decode(stream):
        time = float(frame.time) if frame.time is not None else None
        if first is None:
            first = time or 0.0
        seconds = -math.inf if time is None else time - first
        last = seconds if seconds > last else max(last + step, 0.0)
        yield last, frame


def _get_duration(container: InputContainer, stream: av.VideoStream) -> float:
    """As the container says, in seconds; 0 where it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0
