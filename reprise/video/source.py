"""Open a video, say in one line why it cannot be used, and decode its frames in display order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from reprise.video.ahead import StalledError, run_with_timeout

VideoPacket: TypeAlias = "Packet[VideoStream]"

_DEFAULT_FPS = Fraction(25)  # a container without any rate; what players assume


class BadVideoError(Exception):
    """This file cannot be used; `str(error)` is the reason that goes into its row."""


@dataclass(frozen=True)
class VideoInfo:
    """What the container says. Sizes in pixels, as shown: rotation and pixel aspect applied."""

    codec: str
    pixel_format: str
    fps: Fraction
    width: int
    height: int
    rotation: int  # degrees counter-clockwise that a player turns the picture: 0, 90, 180, 270
    square_pixels: bool
    declared_packets: int  # 0 where the container does not say
    declared_s: float  # length; 0 where the container does not say

    def apply_rotation(self, rotation: int) -> VideoInfo:
        """The same video once its rotation is known, which only the first frame tells."""
        upended = rotation in (90, 270)
        width, height = (self.height, self.width) if upended else (self.width, self.height)
        return replace(self, rotation=rotation, width=width, height=height)


@dataclass
class VideoSource:
    container: av.container.InputContainer
    stream: VideoStream
    info: VideoInfo
    damage: list[tuple[int, str]]  # (frame number, what is wrong with it), filled while decoding
    packets: int = 0  # whole ones read so far
    end_reason: str | None = None  # why reading had to stop before the end of the file


@contextmanager
def open_video(path: Path, timeout_s: float = 120.0) -> Iterator[VideoSource]:
    """Open for one pass.

    Raises:
        BadVideo: empty file, no container, no video stream, a size of zero.
        Stalled: it is not open within `timeout_s`.
    """
    if path.stat().st_size == 0:
        raise BadVideoError("the file is empty")
    try:
        container = run_with_timeout(timeout_s, lambda: av.open(str(path), metadata_errors="replace"))
    except FFmpegError as error:
        raise BadVideoError(f"not a readable video ({format_ffmpeg_error(error)})") from error
    with _close_unless_stalled(container):
        streams = [s for s in container.streams.video if not _is_cover_picture(s)]
        if not streams:
            raise BadVideoError("no video stream")
        stream = streams[0]
        stream.thread_type = "AUTO"
        # Where bits are broken the decoder would paint something plausible and not tell.
        stream.codec_context.options = {"err_detect": "explode"}
        try:
            info = _read_info(stream)
        except (FFmpegError, AttributeError, ValueError) as error:
            raise BadVideoError(
                f"the video stream cannot be decoded ({format_ffmpeg_error(error)})"
            ) from error
        yield VideoSource(container, stream, info, [])


@contextmanager
def _close_unless_stalled(container: av.container.InputContainer) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(container)
        try:
            yield
        except StalledError:
            stack.pop_all()  # a thread is still decoding: freed memory would take the process down
            raise


def _is_cover_picture(stream: Any) -> bool:
    """A cover picture in an audio or video file, not moving pictures."""
    return "attached_pic" in str(stream.disposition).lower()


def _read_info(stream: VideoStream) -> VideoInfo:
    context = stream.codec_context
    if not context.width or not context.height:
        raise ValueError("no frame size")
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    fps = Fraction(rate) if rate and 0 < rate <= 1000 else _DEFAULT_FPS
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if not Fraction(1, 8) <= aspect <= 8:
        aspect = Fraction(1)
    start = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
    # An edit list may leave out samples that the header counts; the index knows which ones remain.
    indexed = len(stream.index_entries)
    return VideoInfo(
        codec=context.codec.canonical_name,
        pixel_format=str(context.pix_fmt),
        fps=fps,
        width=max(2, round(context.width * aspect)),
        height=context.height,
        rotation=0,
        square_pixels=aspect == 1,
        declared_packets=min(stream.frames, indexed) if indexed else int(stream.frames or 0),
        declared_s=max(0.0, _parse_duration(stream.metadata.get("DURATION", "")) - start),
    )


def _parse_duration(text: str) -> float:
    """Matroska's own note of a stream's length, as in 00:01:23.456000000; 0 where there is none."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text.strip())
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else 0.0


@dataclass
class DecodedFrame:
    """A frame with its number and its time since the first frame, seconds."""

    index: int
    time_s: float
    frame: VideoFrame
    packets: list[VideoPacket]  # whole ones that were read since the frame before came out


def decode_frames(source: VideoSource) -> Iterator[DecodedFrame]:
    """Frames in display order.

    A broken packet costs the frames up to the next keyframe, which refer to it: each of those that still
    comes out is noted in `source.damage`. Where the file breaks off, `source.ending` says why.
    """
    index = 0
    read: list[VideoPacket] = []
    clock = _FrameClock(float(1 / source.info.fps))
    damage: _Damage | None = None
    # Of a transport stream the flag says only that the counter jumped, as it does where segments are joined.
    lenient = source.container.format.name == "mpegts"
    for packet in _read_packets(source):
        stamp = packet.pts if packet is not None else None
        if packet is not None and packet.is_corrupt and not lenient:
            damage = _Damage("a packet is incomplete", stamp, stamp)
            continue
        if packet is not None and packet.size:
            read.append(packet)
            source.packets += 1
        try:
            frames = source.stream.decode(packet)
        except FFmpegError as error:
            # Which of the packets under way it was is not known, so it begins with the next frame.
            damage = _Damage(format_ffmpeg_error(error), None, stamp)
            source.damage.append((index, damage.message))
            continue
        for frame in frames:
            if damage and frame.key_frame and _is_after(frame.pts, damage.last):
                damage = None
            if damage and _is_after(frame.pts, damage.first):
                source.damage.append((index, damage.message))
            elif frame.is_corrupt:
                source.damage.append((index, "the decoder had to guess parts of a frame"))
            yield DecodedFrame(index, clock.read_time(frame), frame, read)
            index, read = index + 1, []


@dataclass(frozen=True)
class _Damage:
    """What is wrong with the frames from one time stamp on; a keyframe after another one ends it."""

    message: str
    first: int | None  # None: with the next frame
    last: int | None


def _is_after(pts: int | None, mark: int | None) -> bool:
    return pts is None or mark is None or pts > mark


class _FrameClock:
    """Time of frames in seconds from the first one; it always goes forward, whatever the stamps say."""

    def __init__(self, step: float) -> None:
        self._step = step
        self._first: float | None = None
        self._last: float | None = None

    def read_time(self, frame: VideoFrame) -> float:
        stamp = float(frame.time) if frame.time is not None else None
        if self._last is None:
            self._first, self._last = stamp, 0.0
            return 0.0
        guess = self._last + self._step
        time_s = guess if stamp is None or self._first is None else stamp - self._first
        self._last = time_s if time_s > self._last else guess
        return self._last


def _read_packets(source: VideoSource) -> Iterator[VideoPacket | None]:
    """Packets as the container gives them; None last where it breaks off, which flushes the decoder."""
    demuxer = source.container.demux(source.stream)
    try:
        yield from demuxer
    except FFmpegError as error:
        source.end_reason = format_ffmpeg_error(error)
        yield None


def get_rotation(frame: VideoFrame) -> int:
    """Degrees counter-clockwise by which a player turns this frame: 0, 90, 180 or 270."""
    return round(float(frame.rotation) / 90) * 90 % 360


def format_ffmpeg_error(error: BaseException) -> str:
    """FFmpeg's words without its prefixes and the path."""
    strerror = getattr(error, "strerror", None)
    return str(strerror or error).strip() or type(error).__name__
