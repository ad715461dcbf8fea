"""Identity injection (proxy replay 3.4): a picture of a subject in, another one of it, captioned, out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import IdentityTask as Config
from training.data.samples import Batch, LatentSample, SampleChoice, SampleRecord, stack_samples
from training.latents.store import Records
from training.tasks.denoising import denoising_loss
from training.tasks.task import LossContext, Losses

if TYPE_CHECKING:
    from training.models.family import Conditioning

PAIR_VARIANT = "pair"  # variant of the picture that a pair gives as its reference


class IdentityInjection:
    """Each sample is a target of one frame with one reference; see `reprise encode --pairs`."""

    def __init__(self, config: Config, name: str = "identity") -> None:
        self.name = name
        self.latents, self.weight = config.latents, config.weight
        self.batch, self.micro_batch = config.batch, config.micro_batch
        self.config = config

    def get_capacities(self, records: Records) -> NDArray[np.int64]:
        usable = (records.count_subjects((PAIR_VARIANT,)) > 0) & (records.sizes[:, 0] == 1)
        return np.where(usable, 1, -1)

    def list_variants(self) -> tuple[str, ...]:
        return (PAIR_VARIANT,)

    def draw_count(self, capacity: int, generator: torch.Generator) -> int:
        dropped = float(torch.rand((), generator=generator)) < self.config.reference_dropout
        return 0 if dropped else capacity

    def choose_references(self, record: SampleRecord, count: int, generator: torch.Generator) -> SampleChoice:
        drop_caption = float(torch.rand((), generator=generator)) < self.config.caption_dropout
        pairs = [r.position for s in record.subjects for r in s.references if r.variant == PAIR_VARIANT]
        which = int(torch.randint(len(pairs), (), generator=generator))
        return SampleChoice((pairs[which],) if count else (), drop_caption)

    def collate_samples(self, samples: Sequence[LatentSample], text_length: int) -> Batch:
        return stack_samples(samples, text_length)

    def build_conditioning(self, batch: Batch, context: LossContext) -> Conditioning:
        from training.models.family import Conditioning

        return Conditioning(batch.text, batch.references, marked=bool(batch.references))

    def compute_loss(self, batch: Batch, context: LossContext) -> Losses:
        return denoising_loss(batch, context, self.build_conditioning(batch, context))
