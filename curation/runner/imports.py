"""Importing what is large: a quarter of that time goes to the garbage collector, which finds nothing."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """No collections meanwhile, and none later, at the program's end neither, of what is there by then."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def preload_imports() -> None:
    """Import what most tasks need. Runs where this module can be imported."""
    with pause_garbage_collection():
        import curation.runner.ray_data  # noqa: F401
