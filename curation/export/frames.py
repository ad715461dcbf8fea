"""One frame of a clip as a picture, and whether a clip can be opened at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from reprise.errors import InputError
from reprise.video.ahead import StalledError
from reprise.video.decode import decode_frames
from reprise.video.errors import BadVideoError, format_ffmpeg_error
from reprise.video.geometry import render_upright
from reprise.video.open_video import open_container, open_video
from reprise.video.streams import choose_stream

_BOX_HEADER = 8  # bytes: length and type


def check_clip_opens(media: Path) -> None:
    """Check that a clip is a whole video file. Nothing is decoded, so this is cheap.

    Raises:
        InputError: it is no video, or it was cut off.
    """
    size = media.stat().st_size
    boxes = list(_list_boxes(media))
    if boxes and boxes[0][0] == b"ftyp":
        end = boxes[-1][1]
        if end != size:
            raise InputError(f"the file was cut off or has grown: {size} bytes, its boxes end at {end}")
        if b"moov" not in {name for name, _ in boxes}:
            raise InputError("the file has no index (moov box)")
        return
    try:
        with open_container(media) as container:
            choose_stream(container)
    except FFmpegError as error:
        raise InputError(f"not a readable video ({format_ffmpeg_error(error)})") from error
    except BadVideoError as error:
        raise InputError(str(error)) from error


def _list_boxes(media: Path) -> Iterator[tuple[bytes, int]]:
    """Yield (type, end) of each box at the top of an MP4 (ISO 14496-12, 4.2); nothing of other files."""
    at, size = 0, media.stat().st_size
    with media.open("rb") as file:
        while at + _BOX_HEADER <= size:
            file.seek(at)
            header = file.read(2 * _BOX_HEADER)
            length = int.from_bytes(header[:4], "big")
            if length == 1:  # the length is in the next eight bytes
                length = int.from_bytes(header[8:16], "big")
            if length < _BOX_HEADER:
                return
            at += length
            yield header[4:8], at


def read_frame(media: Path, index: int) -> bytes:
    """Return a frame as PNG; the last one where the clip holds fewer frames.

    Args:
        media: the clip.
        index: number of the frame, from 0.

    Raises:
        InputError: no frame could be decoded.
    """
    last = None
    try:
        with open_video(media) as source:
            for last in decode_frames(source):
                if last.index >= index:
                    break
            if last is None:
                raise InputError("no frame could be decoded")
            shown = last.geometry
            picture = render_upright(
                last.frame, shown, shown.width, shown.height, VideoReformatter(), pixel_format="bgr24"
            )
    except (FFmpegError, BadVideoError, StalledError, ValueError) as error:
        raise InputError(f"no frame could be decoded ({format_ffmpeg_error(error)})") from error
    ok, data = cv2.imencode(".png", picture)
    if not ok:
        raise InputError("a frame cannot be encoded as PNG")
    return data.tobytes()
