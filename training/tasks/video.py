"""Plain text-to-video: the baseline without references, and pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import VideoTask as Config
from training.data.samples import Batch, Choice, Record, Sample, stack
from training.latents.store import Records
from training.tasks.base import Context, Losses
from training.tasks.denoising import denoising_loss

if TYPE_CHECKING:
    from training.models.family import Conditioning


class Video:
    """Every clip, with or without subjects; references stay on disk."""

    def __init__(self, config: Config, name: str = "video") -> None:
        self.name = name
        self.latents, self.weight = config.latents, config.weight
        self.batch, self.micro_batch = config.batch, config.micro_batch
        self.config = config

    def capacity(self, records: Records) -> NDArray[np.int64]:
        return np.zeros(len(records), np.int64)

    def variants(self) -> tuple[str, ...]:
        return ()

    def count(self, capacity: int, generator: torch.Generator) -> int:
        return 0

    def choose(self, record: Record, count: int, generator: torch.Generator) -> Choice:
        return Choice((), float(torch.rand((), generator=generator)) < self.config.caption_dropout)

    def collate(self, samples: Sequence[Sample], text_length: int) -> Batch:
        return stack(samples, text_length)

    def condition(self, batch: Batch, context: Context) -> Conditioning:
        from training.models.family import Conditioning

        return Conditioning(batch.text, batch.references)

    def loss(self, batch: Batch, context: Context) -> Losses:
        return denoising_loss(batch, context, self.condition(batch, context))
