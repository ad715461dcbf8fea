"""Generate the subject in another pose, view and light (Kaleido 3.2 (6), variant `redux`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from curation.config import CurationConfig
from curation.imaging.cutout import composite_on_white
from curation.imaging.row_pictures import add_reference, make_subject_cutout
from curation.models import registry
from curation.models.roles import Variator
from curation.rows.ids import derive_seed
from curation.rows.references import list_kept_subjects, remove_references
from curation.rows.schema import ClipRow
from curation.rows.stage_names import REDUX
from curation.rows.thresholds import build_rules
from curation.rows.verdicts import decide_references
from curation.stages.identity_check import IdentityCheck, IdentityPair

_PADDING = 0.05


class Redux:
    """Gives cut-outs to the variator, with their phrases as prompts, and stores its unchanged pictures.

    The backends of `embedder` and, for humans, `faces` compare each picture with its cut-out. A picture that
    differs too much stays in the row with its scores and is not kept, because other thresholds may keep it.
    """

    name = REDUX

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._variator: Variator | None = None

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Replace the `redux` references of every kept subject by new ones."""
        if not self._config.redux.enabled:
            return
        if self._variator is None:
            self._variator = cast(Variator, registry.load_required_backend(self._config, "variator"))
            self._check = IdentityCheck(self._config)
            self._rules = build_rules(self._config.filter)
        subjects = [subject for row in rows for subject in list_kept_subjects(row)]
        cutouts = [
            make_subject_cutout(row, subject, _PADDING)[1]
            for row in rows
            for subject in list_kept_subjects(row)
        ]
        prompts = [subject["phrase"] for subject in subjects]
        for subject in subjects:
            remove_references(subject, self.name)
        for ordinal in range(self._config.redux.per_subject if subjects else 0):
            seeds = [
                derive_seed(self._config.seed, subject["subject_id"], self.name, ordinal)
                for subject in subjects
            ]
            varied = self._variator.vary(cutouts, prompts, seeds)
            similarities = self._check.measure_pairs(
                [
                    IdentityPair(composite_on_white(cut), composite_on_white(picture), subject["group"])
                    for subject, cut, picture in zip(subjects, cutouts, varied, strict=True)
                ]
            )
            for subject, prompt, seed, picture, similarity in zip(
                subjects, prompts, seeds, varied, similarities, strict=True
            ):
                add_reference(
                    subject,
                    self.name,
                    picture,
                    model=self._variator.name,
                    revision=self._variator.revision,
                    sha256=registry.get_checkpoint_sha256(self._variator),
                    frame_index=subject["frame_index"],
                    ordinal=ordinal,
                    prompt=prompt,
                    seed=seed,
                    identity=similarity.image,
                    face_identity=similarity.face,
                )
        for subject in subjects:
            decide_references(subject, self._rules)
