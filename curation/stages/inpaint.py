"""The subject with what surrounds it erased (Kaleido 3.2 (5), variant `inpaint`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from curation.config import CurationConfig
from curation.ids import seed_for
from curation.models import registry
from curation.models.roles import Inpainter
from curation.references import kept, made_by, over, put, subject_cutout
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
            self._inpainter = cast(Inpainter, registry.load(self._config, "inpainter"))
        subjects = [(row, subject) for row in rows for subject in kept(row)]
        for ordinal in range(self._config.inpaint.per_subject):
            crops, cutouts, masks, seeds = [], [], [], []
            for row, subject in subjects:
                crop, cut = subject_cutout(row, subject, _PADDING)
                unknown = np.zeros(crop.shape[:2], bool)
                unknown[_RING_PX:-_RING_PX, _RING_PX:-_RING_PX] = True
                crops.append(crop)
                cutouts.append(cut)
                masks.append(unknown)
                seeds.append(seed_for(self._config.seed, subject["subject_id"], self.name, ordinal))
            painted = self._inpainter.inpaint(crops, masks, [None] * len(crops), seeds)
            for (_, subject), cut, back, seed in zip(subjects, cutouts, painted, seeds, strict=True):
                put(
                    subject, "inpaint", over(cut, back), ordinal=ordinal, seed=seed, **made_by(self._inpainter)
                )  # fmt: skip
