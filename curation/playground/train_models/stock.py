"""A cache of training samples: drawing a scene takes longer than a small model takes to learn from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class SampleCache(Generic[T]):
    """`size` things by number, each made by `draw` when it is first asked for.

    What a number stands for never depends on what was asked for before, so batches that are chosen by seed
    and step are the same after an interruption, too.
    """

    def __init__(self, draw: Callable[[int], T], size: int) -> None:
        self._draw, self.size = draw, size
        self._cache: dict[int, T] = {}

    def __getitem__(self, index: int) -> T:
        index %= self.size
        if index not in self._cache:
            self._cache[index] = self._draw(index)
        return self._cache[index]

    def draw_samples(self, count: int, rng: np.random.Generator, *, kind: int = 0, kinds: int = 1) -> list[T]:
        """`count` of them, different ones; of every `kinds` neighbours only number `kind`."""
        found = rng.choice(self.size // kinds, count, replace=False) * kinds + kind
        return [self[int(index)] for index in found]
