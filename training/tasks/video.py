"""Plain text-to-video: the baseline without references, and pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import VideoTask as Config
from training.data.samples import Batch, LatentSample, SampleChoice, SampleRecord, stack_samples
from training.latents.store import Records
from training.tasks.denoising import denoising_loss
from training.tasks.task import LossContext, Losses

if TYPE_CHECKING:
    from training.models.family import Conditioning


class TextToVideo:
    """Every clip, with or without subjects; references stay on disk."""

    def __init__(self, config: Config, name: str = "video") -> None:
        self.name = name
        self.latents, self.weight = config.latents, config.weight
        self.batch, self.micro_batch = config.batch, config.micro_batch
        self.config = config

    def get_capacities(self, records: Records) -> NDArray[np.int64]:
        return np.zeros(len(records), np.int64)

    def list_variants(self) -> tuple[str, ...]:
        return ()

    def draw_count(self, capacity: int, generator: torch.Generator) -> int:
        return 0

    def choose_references(self, record: SampleRecord, count: int, generator: torch.Generator) -> SampleChoice:
        return SampleChoice((), float(torch.rand((), generator=generator)) < self.config.caption_dropout)

    def collate_samples(self, samples: Sequence[LatentSample], text_length: int) -> Batch:
        return stack_samples(samples, text_length)

    def build_conditioning(self, batch: Batch, context: LossContext) -> Conditioning:
        from training.models.family import Conditioning

        return Conditioning(batch.text, batch.references)

    def compute_loss(self, batch: Batch, context: LossContext) -> Losses:
        return denoising_loss(batch, context, self.build_conditioning(batch, context))
