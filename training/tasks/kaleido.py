"""Kaleido: references in, subject-consistent video out (sections 3.2, 5.1 and A.1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import KaleidoTask, MixtureConfig
from training.data.samples import SampleChoice, SampleRecord, SampleReference, Subject
from training.latents.store import Records
from training.tasks.denoising import DenoisingTask

PLAIN_VARIANTS = ("crop", "segment", "inpaint", "redux")  # A.1: 1 : 5 : 3 : 1
CROSSED_VARIANTS = ("crosspair", "retrieved")  # before another background: Table 4 of the paper


class Kaleido(DenoisingTask):
    """One to `max_references` subjects of a clip, each shown by one picture drawn from the mixture."""

    def __init__(self, config: KaleidoTask, name: str = "kaleido") -> None:
        """Take the mixture, the number of references and their dropout from the config."""
        super().__init__(config, name)
        self.config = config
        self.max_references = config.max_references

    def get_capacities(self, records: Records) -> NDArray[np.int64]:
        """See `Task.get_capacities`: subjects with a usable variant; without one, the task cannot use it."""
        usable = records.count_subjects(list_usable_variants(self.config.mixture))
        return np.where(usable > 0, np.minimum(usable, self.max_references), -1)

    def list_variants(self) -> tuple[str, ...]:
        """See `Task.list_variants`: those that the mixture can draw."""
        return list_usable_variants(self.config.mixture)

    def get_count_shares(self, capacity: int) -> Mapping[int, float]:
        """See `Task.get_count_shares`: 1 to `capacity` are equally likely, 0 is `reference_dropout`."""
        dropout = self.config.reference_dropout
        shares = {0: dropout} | dict.fromkeys(range(1, capacity + 1), (1.0 - dropout) / max(capacity, 1))
        return {count: share for count, share in shares.items() if share > 0}

    def draw_count(self, capacity: int, generator: torch.Generator) -> int:
        """See `Task.draw_count`: one number for all samples of a step, which have equal lengths."""
        dropped = float(torch.rand((), generator=generator)) < self.config.reference_dropout
        drawn = int(torch.randint(1, capacity + 1, (), generator=generator))
        return 0 if dropped else drawn

    def choose_references(self, record: SampleRecord, count: int, generator: torch.Generator) -> SampleChoice:
        """See `Task.choose_references`: `count` subjects in random order, one picture of each."""
        mixture = self.config.mixture
        drop_caption = self.draw_caption_dropout(generator)
        variants = list_usable_variants(mixture)
        subjects = [s for s in record.subjects if any(r.variant in variants for r in s.references)]
        order = torch.randperm(len(subjects), generator=generator).tolist()
        references = tuple(draw_reference(subjects[i], mixture, generator).position for i in order[:count])
        return SampleChoice(references, drop_caption)


def list_usable_variants(mixture: MixtureConfig) -> tuple[str, ...]:
    """List the variants that a mixture can draw."""
    plain = tuple(variant for variant in PLAIN_VARIANTS if getattr(mixture, variant) > 0)
    if mixture.crosspair == 0:
        return plain
    crossed = {"crosspair": 1 - mixture.retrieved, "retrieved": mixture.retrieved}
    return plain + tuple(variant for variant in CROSSED_VARIANTS if crossed[variant] > 0)


def draw_reference(subject: Subject, mixture: MixtureConfig, generator: torch.Generator) -> SampleReference:
    """Draw one picture of a subject.

    The picture is cross-paired with the probability `mixture.crosspair` (Table 4), else of a plain variant,
    drawn by weight (A.1). Only variants that the subject has take part: a subject without cross-pairs always
    gives a plain picture, and a subject with nothing else always a cross-pair. Several pictures of one
    variant are equally likely.

    Raises:
        ValueError: the subject has no picture of a usable variant.
    """
    # Three numbers whatever the subject has, so that later draws of the generator do not depend on it.
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


def _list_references(subject: Subject, variant: str) -> list[SampleReference]:
    return [reference for reference in subject.references if reference.variant == variant]
