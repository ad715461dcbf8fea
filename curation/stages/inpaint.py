"""The subject with what surrounds it erased (Kaleido 3.2 (5), variant `inpaint`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from curation.config import CurationConfig
from curation.ids import seed_for
from curation.models import registry
from curation.models.roles import Inpainter
from curation.references import drop, kept, over, put, subject_cutout
from curation.schema import ClipRow

_PADDING = 0.35  # room around the subject for a background to be seen
_RING_PX = 2  # what is known of the surroundings: the outermost pixels of the crop


class Inpaint:
    """Everything but the crop's rim is painted anew, then the subject is put back untouched.

    The subject is erased too before it is put back: painting outwards from its edge would smear its colours.
    """

    name = "inpaint"

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._inpainter: Inpainter | None = None

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        if not self._config.inpaint.enabled:
            return
        if self._inpainter is None:
            self._inpainter = cast(Inpainter, registry.required(self._config, "inpainter"))
        subjects = [subject for row in rows for subject in kept(row)]
        cutouts = [subject_cutout(row, subject, _PADDING) for row in rows for subject in kept(row)]
        for subject in subjects:
            drop(subject, self.name)
        masks = []
        for crop, _ in cutouts:
            unknown = np.zeros(crop.shape[:2], bool)
            unknown[_RING_PX:-_RING_PX, _RING_PX:-_RING_PX] = True
            masks.append(unknown)
        for ordinal in range(self._config.inpaint.per_subject if subjects else 0):
            seeds = [
                seed_for(self._config.seed, subject["subject_id"], self.name, ordinal) for subject in subjects
            ]
            painted = self._inpainter.inpaint(
                [crop for crop, _ in cutouts], masks, [None] * len(subjects), seeds
            )
            for subject, (_, cut), back, seed in zip(subjects, cutouts, painted, seeds, strict=True):
                put(
                    subject,
                    self.name,
                    over(cut, back),
                    model=self._inpainter.name,
                    revision=self._inpainter.revision,
                    ordinal=ordinal,
                    seed=seed,
                )
