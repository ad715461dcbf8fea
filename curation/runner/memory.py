"""Freed memory that the C library keeps.

Decoding starts threads, and glibc gives each thread a heap of its own, which pictures of different lifetimes
fragment. A worker that used 160 MB held 260 MB after twenty videos, and more after more of them. With another
C library these functions do nothing.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

_M_ARENA_MAX = -8  # mallopt(3)
_MAX_ARENAS = 2


@functools.cache
def _load_glibc() -> Any:
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt, library.malloc_trim  # noqa: B018 - raises here if one is missing
    except (OSError, AttributeError):
        return None
    return library


@functools.cache
def limit_malloc_arenas() -> None:
    """Let threads that are started from now on share two heaps."""
    if (library := _load_glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, _MAX_ARENAS)


def release_free_memory() -> None:
    """Return free memory to the system; takes about 30 ms after a video."""
    if (library := _load_glibc()) is not None:
        library.malloc_trim(0)
