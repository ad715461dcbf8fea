"""Kaleido: references in, subject-consistent video out (3.2, 5.1, A.1 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import KaleidoTask as Config
from training.config import MixtureConfig
from training.data.samples import (
    Batch,
    LatentSample,
    Reference,
    SampleChoice,
    SampleRecord,
    Subject,
    stack_samples,
)
from training.latents.store import Records
from training.tasks.denoising import denoising_loss
from training.tasks.task import LossContext, Losses

if TYPE_CHECKING:
    from training.models.family import Conditioning

PLAIN_VARIANTS = ("crop", "segment", "inpaint", "redux")  # A.1: 1 : 5 : 3 : 1
CROSSED_VARIANTS = ("crosspair", "retrieved")  # in front of another background


class Kaleido:
    """One to `max_references` subjects of a clip, each shown by one picture drawn from the mixture."""

    def __init__(self, config: Config, name: str = "kaleido") -> None:
        self.name = name
        self.latents, self.weight = config.latents, config.weight
        self.batch, self.micro_batch = config.batch, config.micro_batch
        self.config = config

    def get_capacities(self, records: Records) -> NDArray[np.int64]:
        usable = records.count_subjects(list_usable_variants(self.config.mixture))
        return np.where(usable > 0, np.minimum(usable, self.config.max_references), -1)

    def list_variants(self) -> tuple[str, ...]:
        return list_usable_variants(self.config.mixture)

    def draw_count(self, capacity: int, generator: torch.Generator) -> int:
        # Drawn for the whole step: samples with and without references have different lengths.
        dropped = float(torch.rand((), generator=generator)) < self.config.reference_dropout
        drawn = int(torch.randint(1, capacity + 1, (), generator=generator))
        return 0 if dropped else drawn

    def choose_references(self, record: SampleRecord, count: int, generator: torch.Generator) -> SampleChoice:
        mixture = self.config.mixture
        drop_caption = float(torch.rand((), generator=generator)) < self.config.caption_dropout
        variants = list_usable_variants(mixture)
        subjects = [s for s in record.subjects if any(r.variant in variants for r in s.references)]
        order = torch.randperm(len(subjects), generator=generator).tolist()
        references = tuple(draw_reference(subjects[i], mixture, generator).position for i in order[:count])
        return SampleChoice(references, drop_caption)

    def collate_samples(self, samples: Sequence[LatentSample], text_length: int) -> Batch:
        return stack_samples(samples, text_length)

    def build_conditioning(self, batch: Batch, context: LossContext) -> Conditioning:
        from training.models.family import Conditioning

        return Conditioning(batch.text, batch.references)

    def compute_loss(self, batch: Batch, context: LossContext) -> Losses:
        return denoising_loss(batch, context, self.build_conditioning(batch, context))


def list_usable_variants(mixture: MixtureConfig) -> tuple[str, ...]:
    """Variants that can be drawn at all."""
    plain = tuple(variant for variant in PLAIN_VARIANTS if getattr(mixture, variant) > 0)
    if mixture.crosspair == 0:
        return plain
    crossed = {"crosspair": 1 - mixture.retrieved, "retrieved": mixture.retrieved}
    return plain + tuple(variant for variant in CROSSED_VARIANTS if crossed[variant] > 0)


def draw_reference(subject: Subject, mixture: MixtureConfig, generator: torch.Generator) -> Reference:
    """One picture of a subject.

    Cross-paired with the probability `mixture.crosspair`, else of a variant with its weight. What a subject
    does not have is not drawn: the weights apply to the variants that it has, one without cross-pairs always
    gives a plain picture, and one with nothing else always a cross-pair. Several of one variant are equally
    likely.

    Raises:
        ValueError: the subject has no picture of a usable variant.
    """
    # Always three numbers, whatever the subject has: a draw does not move those after it.
    crossing, kind, which = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    weights = {variant: getattr(mixture, variant) for variant in PLAIN_VARIANTS}
    crossed = {"crosspair": 1 - mixture.retrieved, "retrieved": mixture.retrieved}
    plain = {v: w for v, w in weights.items() if w > 0 and _list_references(subject, v)}
    cross = (
        {v: w for v, w in crossed.items() if w > 0 and _list_references(subject, v)}
        if mixture.crosspair
        else {}
    )
    pool = cross if cross and (crossing < mixture.crosspair or not plain) else plain
    if not pool:
        raise ValueError(f"subject {subject.subject_id} has no picture that the mixture can use")
    bounds = np.cumsum(list(pool.values()))
    having = _list_references(
        subject, list(pool)[int(np.searchsorted(bounds, kind * bounds[-1], side="right"))]
    )
    return having[int(which * len(having))]


def _list_references(subject: Subject, variant: str) -> list[Reference]:
    return [reference for reference in subject.references if reference.variant == variant]
