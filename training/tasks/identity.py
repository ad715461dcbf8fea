"""Identity injection (proxy replay 3.4): a picture of a subject in, another captioned picture of it out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import IdentityTask
from training.data.samples import PAIR_VARIANT, Batch, LatentSize, SampleChoice, SampleRecord
from training.latents.store import Records
from training.models.family import Conditioning
from training.tasks.denoising import SingleReferenceTask
from training.tasks.task import LossContext


class IdentityInjection(SingleReferenceTask):
    """Each sample is a target of one frame with one reference; see `reprise encode --pairs`."""

    def __init__(self, config: IdentityTask, name: str = "identity") -> None:
        """Take the task's config."""
        super().__init__(config, name)

    def get_capacities(self, records: Records) -> NDArray[np.int64]:
        """See `Task.get_capacities`: 1 for a single frame with a pair, -1 for everything else."""
        usable = (records.count_subjects((PAIR_VARIANT,)) > 0) & (records.sizes[:, 0] == 1)
        return np.where(usable, 1, -1)

    def list_variants(self) -> tuple[str, ...]:
        """See `Task.list_variants`."""
        return (PAIR_VARIANT,)

    def choose_references(self, record: SampleRecord, count: int, generator: torch.Generator) -> SampleChoice:
        """See `Task.choose_references`: one pair of the sample, all equally likely."""
        drop_caption = self.draw_caption_dropout(generator)
        pairs = [r.position for s in record.subjects for r in s.references if r.variant == PAIR_VARIANT]
        which = int(torch.randint(len(pairs), (), generator=generator))
        return SampleChoice((pairs[which],) if count else (), drop_caption)

    def build_conditioning(self, batch: Batch, context: LossContext) -> Conditioning:
        """See `Task.build_conditioning`: the text of a sample with a reference gets the token (A.4.1)."""
        return Conditioning(batch.text, batch.references, marked=bool(batch.references))

    def get_target_size(self, video: LatentSize) -> LatentSize:
        """See `Task.get_target_size`: one frame."""
        return (1, *video[1:])
