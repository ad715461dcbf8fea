"""What a task is: what to draw of a sample, how to condition the model, where the loss applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.config import PositionsConfig
from training.data.samples import Batch, LatentSample, SampleChoice, SampleRecord
from training.latents.store import Records

if TYPE_CHECKING:
    from training.models.family import Conditioning, Family
    from training.models.packing import SequenceShard
    from training.objectives import Objective

#: Per-sample losses (B,), and scalars to log (each a detached tensor: nothing waits for the device).
Losses = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class LossContext:
    """What losses are computed with; the same for every task of a run."""

    model: nn.Module
    family: Family
    objective: Objective
    positions: PositionsConfig
    seed: int
    dtype: torch.dtype | None = None  # of the computation; null: the model's
    shard: SequenceShard | None = None  # this rank's part of each sequence


class Task(Protocol):
    """A task says what a step is made of. The sampler, the loader and the loop know nothing else of it."""

    name: str  # of its own in a run: part of every seed
    latents: str  # folder of its samples
    weight: float  # share of the steps, relative to the other tasks'
    batch: int  # samples per step, over all workers
    micro_batch: int  # samples per worker and forward pass

    def get_capacities(self, records: Records) -> NDArray[np.int64]:
        """(n,) the most references that each record can give; -1: the task cannot use it.

        Samples of a step have equal sizes and equal capacities, so that they can have equal shapes.
        """

    def list_variants(self) -> tuple[str, ...]:
        """Of the references that `choose` may draw."""

    def draw_count(self, capacity: int, generator: torch.Generator) -> int:
        """How many references the samples of one step have, 0 to `capacity`."""

    def choose_references(self, record: SampleRecord, count: int, generator: torch.Generator) -> SampleChoice:
        """Which `count` references one sample has, and whether its caption is dropped."""

    def collate_samples(self, samples: Sequence[LatentSample], text_length: int) -> Batch:
        """Samples of one step -> what `loss` wants."""

    def build_conditioning(self, batch: Batch, context: LossContext) -> Conditioning:
        """What the model is conditioned on, in training and when validation samples videos."""

    def compute_loss(self, batch: Batch, context: LossContext) -> Losses:
        """Losses of a batch. All its randomness is `draws.generator(context.seed, purpose, index)`.

        With `context.shard` they are this rank's share: summed over the sequence group they are the samples'.
        """
