"""Every random draw of a run, as a function of (seed, purpose, index).

Nothing keeps a state: what a sample sees depends on its global index alone, never on the worker that reads
it, on what was drawn before, or on whether the run was interrupted.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from numpy.typing import NDArray

SeedKey = int | str


def derive_seed(seed: int, *keys: SeedKey) -> int:
    """A 63-bit seed for one purpose, the same on every machine and in every Python process."""
    # As JSON, so that ("a", 1) and ("a1",) differ.
    encoded = json.dumps([seed, *keys]).encode()
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest()) >> 1


def make_generator(seed: int, *keys: SeedKey, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator for one purpose: `generator(seed, "noise", index)`.

    The numbers differ between kinds of devices, as torch's do, and between nothing else.
    """
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *keys))


def draw_uniforms(count: int, seed: int, *keys: SeedKey) -> NDArray[np.float64]:
    """(count,) numbers in [0, 1). A shorter draw is the beginning of a longer one."""
    # numpy keeps the streams of its bit generators for ever, those of `Generator` not.
    raw = np.random.Philox(key=derive_seed(seed, *keys)).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_permutation(count: int, seed: int, *keys: SeedKey) -> NDArray[np.int64]:
    """(count,) the numbers from 0 to count - 1 in random order."""
    return np.argsort(draw_uniforms(count, seed, *keys), kind="stable").astype(np.int64)


def derive_share(name: str, purpose: str) -> float:
    """A number in [0, 1) that belongs to a name whatever the seed: for splits that outlive a run."""
    return derive_seed(0, purpose, name) * 2.0**-63
