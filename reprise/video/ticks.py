"""Sample frames at a constant rate, independent of the rate of the source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

TOLERANCE_S = 1e-6


def sample_at_ticks(frames: Iterable[tuple[float, Item]], fps: float) -> Iterator[tuple[int, Item]]:
    """Yield (k, frame) for each tick k = 0, 1, ...: the frame nearest to k / fps seconds after the first one.

    Args:
        frames: (seconds, frame), in order. The later of two equally near frames is used.
        fps: ticks per second.
    """
    tick, start_s = 0, 0.0
    last: tuple[float, Item] | None = None
    for now in frames:
        if last is None:
            start_s = now[0]
        else:
            middle = (last[0] + now[0]) / 2
            while start_s + tick / fps < middle - TOLERANCE_S:
                yield tick, last[1]
                tick += 1
        last = now
    if last is not None:
        while start_s + tick / fps <= last[0] + TOLERANCE_S:
            yield tick, last[1]
            tick += 1
