"""Choose the video stream of a container."""

from __future__ import annotations

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from reprise.video.errors import BadVideoError


def choose_stream(container: InputContainer) -> VideoStream:
    """Return the stream that a player shows: the default one, else the largest, but no cover picture.

    Raises:
        BadVideoError: there is no video stream.
    """
    streams = [stream for stream in container.streams.video if not is_cover_picture(stream)]
    if not streams:
        raise BadVideoError("no video stream")
    defaults = [stream for stream in streams if stream.disposition & Disposition.default]
    return max(defaults or streams, key=_count_pixels)  # the first of several equal ones


def is_cover_picture(stream: VideoStream) -> bool:
    """Return whether a stream is a still cover of an audio or video file."""
    return bool(stream.disposition & Disposition.attached_pic)


def _count_pixels(stream: av.VideoStream) -> int:
    context = stream.codec_context
    return context.width * context.height if context is not None else 0
