"""Open a video, say in one line why it cannot be used, and decode its frames in display order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_DEFAULT_FPS = Fraction(25)  # a container without any rate; what players assume


class BadVideo(Exception):
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
    declared_frames: int  # 0 where the container does not say


@dataclass
class Source:
    container: av.container.InputContainer
    stream: VideoStream
    info: VideoInfo
    damage: list[tuple[int, str]]  # (frame number, FFmpeg's words), filled while decoding


@contextmanager
def open_video(path: Path) -> Iterator[Source]:
    """Open for one pass.

    Raises:
        BadVideo: empty file, no container, no video stream, a size of zero.
    """
    if path.stat().st_size == 0:
        raise BadVideo("the file is empty")
    try:
        container = av.open(str(path), metadata_errors="replace")
    except FFmpegError as error:
        raise BadVideo(f"not a readable video ({_message(error)})") from error
    with container:
        streams = [s for s in container.streams.video if not _is_picture(s)]
        if not streams:
            raise BadVideo("no video stream")
        stream = streams[0]
        stream.thread_type = "AUTO"
        try:
            info = _inspect(stream)
        except (FFmpegError, AttributeError, ValueError) as error:
            raise BadVideo(f"the video stream cannot be decoded ({_message(error)})") from error
        yield Source(container, stream, info, [])


def _is_picture(stream: Any) -> bool:
    """A cover picture in an audio or video file, not moving pictures."""
    return "attached_pic" in str(stream.disposition).lower()


def _inspect(stream: VideoStream) -> VideoInfo:
    context = stream.codec_context
    if not context.width or not context.height:
        raise ValueError("no frame size")
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    fps = Fraction(rate) if rate and 0 < rate <= 1000 else _DEFAULT_FPS
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if not Fraction(1, 8) <= aspect <= 8:
        aspect = Fraction(1)
    return VideoInfo(
        codec=context.name,
        pixel_format=str(context.pix_fmt),
        fps=fps,
        width=max(2, round(context.width * aspect)),
        height=context.height,
        rotation=0,  # known from the first frame only
        square_pixels=aspect == 1,
        declared_frames=int(stream.frames or 0),
    )


@dataclass
class Decoded:
    """A frame with its number and its time since the first frame, seconds."""

    index: int
    time_s: float
    frame: VideoFrame


def decode(source: Source, packets: Any) -> Iterator[Decoded]:
    """Frames in display order; every packet goes to `packets.append` before its frames come out.

    A broken packet is noted in `source.damage` and skipped, so that one flipped bit does not cost the file.
    """
    index, first, previous = 0, None, -1.0
    step = float(1 / source.info.fps)
    demuxer = source.container.demux(source.stream)
    while True:
        try:
            packet = next(demuxer)
        except StopIteration:
            return
        except FFmpegError as error:
            source.damage.append((index, _message(error)))
            return
        packets.append(packet)
        try:
            frames = packet.decode()
        except FFmpegError as error:
            source.damage.append((index, _message(error)))
            continue
        for frame in frames:
            stamp = float(frame.time) if frame.time is not None else None
            if first is None:
                first = stamp
            time_s = previous + step if stamp is None or first is None else stamp - first
            if time_s <= previous:  # broken stamps must not make time run backwards
                time_s = previous + step
            time_s = max(time_s, 0.0)
            previous = time_s
            if frame.is_corrupt:
                source.damage.append((index, "the decoder had to guess parts of a frame"))
            yield Decoded(index, time_s, frame)
            index += 1


def rotation_of(frame: VideoFrame) -> int:
    """Degrees counter-clockwise by which a player turns this frame: 0, 90, 180 or 270."""
    return round(float(frame.rotation) / 90) * 90 % 360


def upright(frame: VideoFrame, width: int, height: int, rotation: int, format: str) -> VideoFrame:
    """The frame as a player shows it, scaled to (width, height) px, in a pixel format.

    The clock of the frame is kept.
    """
    turned = rotation in (90, 270)
    scaled = frame.reformat(
        width=height if turned else width,
        height=width if turned else height,
        format="rgb24" if rotation else format,
        interpolation="AREA" if frame.width > 1.5 * width else "BICUBIC",
    )
    if not rotation:
        return scaled
    turned_array = np.ascontiguousarray(np.rot90(scaled.to_ndarray(), k=rotation // 90))
    result = VideoFrame.from_ndarray(turned_array, format="rgb24").reformat(format=format)
    result.pts, result.time_base = frame.pts, frame.time_base
    return result


def _message(error: BaseException) -> str:
    """FFmpeg's words without its prefixes and the path."""
    strerror = getattr(error, "strerror", None)
    return str(strerror or error).strip() or type(error).__name__
