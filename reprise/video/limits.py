"""Limits on the resources of one video: pixels of a frame, bytes of a frame, decoder threads."""

from __future__ import annotations

import contextlib

import av

from reprise.video.errors import BadVideoError

MAX_FRAME_PIXELS = 8192 * 4352  # 8K with room for alignment
MAX_FRAME_BYTES = 144 << 20  # a decoder and the threads around it hold about ten frames
_FEW_THREADS_BYTES = 24 << 20  # above this, one frame per core takes too much memory


def check_frame_size(width: int, height: int, pixel_format: str | None) -> None:
    """Refuse frames that would take too much memory.

    Raises:
        BadVideoError: the frame has too many pixels or bytes.
    """
    if width * height > MAX_FRAME_PIXELS or count_frame_bytes(width, height, pixel_format) > MAX_FRAME_BYTES:
        raise BadVideoError(
            f"frames of {width}x{height} pixels are too large to decode: the limit is 8192x4352"
        )


def count_frame_bytes(width: int, height: int, pixel_format: str | None) -> int:
    """Return the bytes of one decoded frame; 4 bytes a pixel if the format is not known yet."""
    bits = 32
    if pixel_format:
        with contextlib.suppress(ValueError):
            bits = av.VideoFormat(pixel_format).padded_bits_per_pixel or bits
    return width * height * bits // 8


def choose_thread_count(width: int, height: int, pixel_format: str | None) -> int:
    """Return the number of decoder threads for frames of this size; 0: FFmpeg decides."""
    return 2 if count_frame_bytes(width, height, pixel_format) > _FEW_THREADS_BYTES else 0
