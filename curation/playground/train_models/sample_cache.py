"""A cache of training samples, because drawing a scene takes longer than a training step of a small model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class SampleCache(Generic[T]):
    """`size` samples by number. `draw` makes each one at its first use.

    A sample depends only on its number, not on earlier uses. So batches, which seed and step determine, are
    the same after an interruption.
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
        """Draw `count` different samples, only those whose number modulo `kinds` is `kind`."""
        found = rng.choice(self.size // kinds, count, replace=False) * kinds + kind
        return [self[int(index)] for index in found]
