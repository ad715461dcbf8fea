"""One frame of a clip as a picture, and whether a clip can be opened at all."""

from __future__ import annotations

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


def check_clip_opens(media: Path) -> None:
    """Check that a clip has a video stream. Nothing is decoded, so this is cheap.

    Raises:
        InputError: it is no video.
    """
    try:
        with open_container(media) as container:
            choose_stream(container)
    except FFmpegError as error:
        raise InputError(f"not a readable video ({format_ffmpeg_error(error)})") from error
    except BadVideoError as error:
        raise InputError(str(error)) from error


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
