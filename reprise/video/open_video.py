"""Open a video for one pass. An error states in one line why the video cannot be used."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from reprise.video.ahead import StalledError, run_with_timeout
from reprise.video.errors import BadVideoError, format_ffmpeg_error
from reprise.video.info import VideoInfo, read_info
from reprise.video.limits import MAX_FRAME_PIXELS, check_frame_size, choose_thread_count
from reprise.video.streams import choose_stream

VideoPacket: TypeAlias = "Packet[VideoStream]"

_HEAD_PACKETS = 240  # their time stamps give the frame rate
_HEAD_BYTES = 16 << 20
# By default most decoders conceal broken bits with plausible pixels and do not report them.
STRICT_OPTIONS = {"err_detect": "explode"}


@dataclass
class OpenVideo:
    """A video that is open for one pass."""

    media: Path | bytes  # its path, or its content
    container: InputContainer
    stream: VideoStream
    info: VideoInfo
    head: list[VideoPacket]  # packets that were read when it was opened
    damage: list[tuple[int, str]] = field(
        default_factory=list
    )  # (frame number, reason), filled while decoding
    packets: int = 0  # complete packets decoded so far
    end_reason: str | None = None  # why reading stopped before the end of the file


@contextmanager
def open_video(media: Path | bytes, timeout_s: float = 120.0) -> Iterator[OpenVideo]:
    """Open a file, or the bytes of one, for one pass.

    Raises:
        BadVideoError: the file is empty, no container, has no video stream, or a frame size of zero or above
            the limits.
        StalledError: the file did not open within `timeout_s`.
    """
    if (len(media) if isinstance(media, bytes) else media.stat().st_size) == 0:
        raise BadVideoError("the file is empty")
    try:
        container = run_with_timeout(timeout_s, lambda: open_container(media))
    except FFmpegError as error:
        raise BadVideoError(f"not a readable video ({format_ffmpeg_error(error)})") from error
    with _close_unless_stalled(container):
        stream = choose_stream(container)
        try:
            configure_decoder(stream, STRICT_OPTIONS)
            head = run_with_timeout(timeout_s, lambda: _read_head(container, stream))
            info = read_info(container, stream, head)
        except (FFmpegError, AttributeError, ValueError) as error:
            raise BadVideoError(
                f"the video stream cannot be decoded ({format_ffmpeg_error(error)})"
            ) from error
        yield OpenVideo(media, container, stream, info, head)


def open_container(media: Path | bytes) -> InputContainer:
    """Open a container. Its metadata may have any text encoding."""
    file = io.BytesIO(media) if isinstance(media, bytes) else str(media)
    return av.open(file, mode="r", metadata_errors="replace")


def configure_decoder(stream: VideoStream, options: dict[str, str], threads: int | None = None) -> None:
    """Set a decoder's options, threads and limits before its first packet.

    Args:
        stream: its decoder is configured.
        options: FFmpeg's options of the decoder.
        threads: number of decoder threads; None: `choose_thread_count` chooses it.

    Raises:
        BadVideoError: the frames are larger than the limits.
    """
    context = stream.codec_context
    check_frame_size(context.width, context.height, context.pix_fmt)
    stream.thread_type = "AUTO"
    context.thread_count = (
        choose_thread_count(context.width, context.height, context.pix_fmt) if threads is None else threads
    )
    context.options = {**options, "max_pixels": str(MAX_FRAME_PIXELS)}


@contextmanager
def _close_unless_stalled(container: InputContainer) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(container)
        try:
            yield
        except StalledError:
            stack.pop_all()  # a thread still decodes: freed memory would crash the process
            raise


def _read_head(container: InputContainer, stream: VideoStream) -> list[VideoPacket]:
    """Return the stream's first packets. A read error is ignored here: reading the rest raises it again."""
    head: list[VideoPacket] = []
    size = 0
    try:
        for packet in container.demux(stream):
            head.append(packet)
            size += packet.size
            if len(head) >= _HEAD_PACKETS or size >= _HEAD_BYTES:
                break
    except FFmpegError:
        pass
    return head
