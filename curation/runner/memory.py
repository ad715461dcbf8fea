"""Memory that a process has freed and the C library keeps: with threads and pictures, more than it uses.

Decoding makes threads, and glibc gives each a heap of its own, which pictures of different lifetimes leave
full of holes. A worker that used 160 MB was seen to hold 260 MB after twenty videos, and more after more.
Where the C library is another one, nothing is done.
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
        library.mallopt, library.malloc_trim  # noqa: B018 - asked for here, so that a lack shows here
    except (OSError, AttributeError):
        return None
    return library


@functools.cache
def limit_malloc_arenas() -> None:
    """Threads that come from now on share a few heaps."""
    if (library := _load_glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, _MAX_ARENAS)


def release_free_memory() -> None:
    """Return what is free to the system; takes some 30 ms after a video."""
    if (library := _load_glibc()) is not None:
        library.malloc_trim(0)
