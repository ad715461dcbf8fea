"""The subject in another pose, view and light (Kaleido 3.2 (6), variant `redux`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from curation.config import CurationConfig
from curation.ids import seed_for
from curation.models import registry
from curation.models.roles import Variator
from curation.references import drop, kept, put, subject_cutout
from curation.schema import ClipRow

_PADDING = 0.05


class Redux:
    """Cut-outs go to the variator with their phrase as the prompt; what comes back is stored as it is."""

    name = "redux"

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._variator: Variator | None = None

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        if not self._config.redux.enabled:
            return
        if self._variator is None:
            self._variator = cast(Variator, registry.required(self._config, "variator"))
        subjects = [subject for row in rows for subject in kept(row)]
        cutouts = [subject_cutout(row, subject, _PADDING)[1] for row in rows for subject in kept(row)]
        prompts = [subject["phrase"] for subject in subjects]
        for subject in subjects:
            drop(subject, self.name)
        for ordinal in range(self._config.redux.per_subject if subjects else 0):
            seeds = [
                seed_for(self._config.seed, subject["subject_id"], self.name, ordinal) for subject in subjects
            ]
            varied = self._variator.vary(cutouts, prompts, seeds)
            for subject, prompt, seed, picture in zip(subjects, prompts, seeds, varied, strict=True):
                put(
                    subject,
                    self.name,
                    picture,
                    model=self._variator.name,
                    revision=self._variator.revision,
                    ordinal=ordinal,
                    prompt=prompt,
                    seed=seed,
                )
