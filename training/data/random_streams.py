"""All random numbers of a run, as functions of (seed, purpose, index).

There is no state: a sample's numbers depend only on its global index, not on the worker that reads it, on
earlier draws, or on interruptions of the run.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from numpy.typing import NDArray

SeedKey = int | str


def derive_stream_seed(seed: int, *keys: SeedKey) -> int:
    """Derive a 63-bit seed for one purpose, the same on every machine and in every Python process."""
    # As JSON, so that ("a", 1) and ("a1",) differ.
    encoded = json.dumps([seed, *keys]).encode()
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest()) >> 1


def make_generator(seed: int, *keys: SeedKey, device: str | torch.device = "cpu") -> torch.Generator:
    """Make a generator for one purpose: `make_generator(seed, "noise", index)`.

    Its numbers depend on the kind of device, as torch's do, and on nothing else.
    """
    return torch.Generator(device=device).manual_seed(derive_stream_seed(seed, *keys))


def draw_uniforms(count: int, seed: int, *keys: SeedKey) -> NDArray[np.float64]:
    """Draw (count,) numbers in [0, 1). A shorter draw is the beginning of a longer one."""
    # numpy guarantees that the streams of its bit generators never change; those of `Generator` may.
    raw = np.random.Philox(key=derive_stream_seed(seed, *keys)).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_permutation(count: int, seed: int, *keys: SeedKey) -> NDArray[np.int64]:
    """Draw (count,) the numbers from 0 to count - 1 in random order."""
    return np.argsort(draw_uniforms(count, seed, *keys), kind="stable").astype(np.int64)


def derive_share(name: str, purpose: str) -> float:
    """Derive a number in [0, 1) from a name, independent of the seed: for splits that stay between runs."""
    return derive_stream_seed(0, purpose, name) * 2.0**-63
