"""The protocol of a task: what to draw of a sample, how to condition the model, where the loss applies.

A new task is a file beside this one, a section in `config.py` and a line in `build.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.config import PositionsConfig
from training.data.samples import Batch, LatentSample, LatentSize, SampleChoice, SampleRecord
from training.latents.store import Records
from training.models.family import Conditioning, Family
from training.models.packing import SequenceShard
from training.objectives import Objective

#: Losses of samples (B,), and scalars to log: detached tensors, so that nothing waits for the device.
Losses = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class LossContext:
    """The inputs of every loss; the same for all tasks of a run."""

    model: nn.Module
    family: Family
    objective: Objective
    positions: PositionsConfig
    seed: int
    dtype: torch.dtype | None = None  # of the computation; None: the model's
    shard: SequenceShard | None = None  # this rank's part of each sequence


class Task(Protocol):
    """One training task. The sampler, the loader, the loop and the estimate use only this protocol."""

    name: str  # unique in a run; part of every seed
    latents: str  # folder of its samples
    weight: float  # share of the steps, relative to the other tasks'
    batch: int  # samples per step, over all workers
    micro_batch: int  # samples per worker and forward pass
    max_references: int  # of one sample

    def get_capacities(self, records: Records) -> NDArray[np.int64]:
        """(n,) the most references that each record can give; -1: the task cannot use it.

        Samples of a step have equal sizes and equal capacities, so that they can have equal shapes.
        """

    def list_variants(self) -> tuple[str, ...]:
        """Variants of the references that `choose_references` may draw."""

    def get_count_shares(self, capacity: int) -> Mapping[int, float]:
        """Number of references -> share of the steps that have it; shares are above 0 and add up to 1.

        Args:
            capacity: of the samples, 0 to `max_references`.
        """

    def draw_count(self, capacity: int, generator: torch.Generator) -> int:
        """Draw how many references the samples of one step have: 0 to `capacity`, by `get_count_shares`."""

    def choose_references(self, record: SampleRecord, count: int, generator: torch.Generator) -> SampleChoice:
        """Choose the `count` references of one sample, and whether its caption is dropped."""

    def collate_samples(self, samples: Sequence[LatentSample], text_length: int) -> Batch:
        """Stack samples of one step into what `compute_loss` takes."""

    def build_conditioning(self, batch: Batch, context: LossContext) -> Conditioning:
        """Build what the model is conditioned on, in training and where validation samples videos."""

    def compute_loss(self, batch: Batch, context: LossContext) -> Losses:
        """Compute the loss of each sample of a batch.

        All randomness comes from `random_streams.make_generator(context.seed, purpose, index)`. With
        `context.shard` the losses are this rank's part: their sum over the sequence group is the samples'.
        """

    def get_target_size(self, video: LatentSize) -> LatentSize:
        """Latent size (T, h, w) of the task's target where clips have the latent size `video`."""

    def count_visible_tokens(self, tokens: int) -> int:
        """How many of a reference's tokens the network sees."""
