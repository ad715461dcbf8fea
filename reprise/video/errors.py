"""The error of a video that cannot be used."""

from __future__ import annotations


class BadVideoError(Exception):
    """This file cannot be used. `str(error)` is the reason that is stored in its row."""


def format_ffmpeg_error(error: BaseException) -> str:
    """Return FFmpeg's message without its prefixes and the path."""
    strerror = getattr(error, "strerror", None)
    return str(strerror or error).strip() or type(error).__name__
