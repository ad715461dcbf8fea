"""The subject with its surroundings erased or painted anew (Kaleido 3.2 (5), variant `inpaint`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from curation.config import CurationConfig
from curation.imaging.codec import RGB, BoolMask, get_mask_box
from curation.imaging.cutout import RGBA, composite_over
from curation.imaging.row_pictures import add_reference, make_subject_cutout
from curation.models import registry
from curation.models.roles import Inpainter
from curation.rows.ids import derive_seed
from curation.rows.references import list_kept_subjects, remove_references
from curation.rows.schema import ClipRow, SubjectRow
from curation.rows.stage_names import INPAINT
from curation.rows.thresholds import build_rules
from curation.rows.verdicts import decide_references
from curation.stages.identity_check import IdentityCheck, IdentityPair

_PADDING = 0.35  # room around the subject for a background to be seen
_RING_PX = 2  # the outermost pixels of the crop, which an inpainter continues


class Inpaint:
    """Paints everything around the subject anew, then puts the subject back unchanged.

    The request depends on `roles.Inpainter.paints_around`. A generative inpainter sees the subject and paints
    around it after a prompt. Its result is compared with the subject, because it may have added a third arm.
    An inpainter that continues what it sees gets the crop's rim alone: painting outwards from the subject
    would smear its colours.
    """

    name = INPAINT

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._prompts: Sequence[str] = config.inpaint.prompts
        self._inpainter: Inpainter | None = None

    def _load_models(self) -> Inpainter:
        if self._inpainter is None:
            self._inpainter = cast(Inpainter, registry.load_required_backend(self._config, "inpainter"))
            # A user's own backend may lack the attribute.
            self._invents = bool(getattr(self._inpainter, "paints_around", False))
            self._check = IdentityCheck(self._config) if self._invents else None
            self._rules = build_rules(self._config.filter)
        return self._inpainter

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Make the `inpaint` references of every kept subject again."""
        if not self._config.inpaint.enabled:
            return
        inpainter = self._load_models()
        subjects = [subject for row in rows for subject in list_kept_subjects(row)]
        cutouts = [
            make_subject_cutout(row, subject, _PADDING) for row in rows for subject in list_kept_subjects(row)
        ]
        for subject in subjects:
            remove_references(subject, self.name)
        masks = [mask_background(cut) if self._invents else mask_inside_rim(crop) for crop, cut in cutouts]
        for ordinal in range(self._config.inpaint.per_subject if subjects else 0):
            seeds = [
                derive_seed(self._config.seed, subject["subject_id"], self.name, ordinal)
                for subject in subjects
            ]
            prompts = [
                self._choose_prompt(subject, seed) for subject, seed in zip(subjects, seeds, strict=True)
            ]
            painted = inpainter.inpaint([crop for crop, _ in cutouts], masks, prompts, seeds)
            pictures = [composite_over(cut, back) for (_, cut), back in zip(cutouts, painted, strict=True)]
            similarities = self._measure_similarities(subjects, [cut for _, cut in cutouts], pictures)
            for subject, picture, prompt, seed, (image, face) in zip(
                subjects, pictures, prompts, seeds, similarities, strict=True
            ):
                add_reference(
                    subject,
                    self.name,
                    picture,
                    model=inpainter.name,
                    revision=inpainter.revision,
                    sha256=registry.get_checkpoint_sha256(inpainter),
                    frame_index=subject["frame_index"],
                    ordinal=ordinal,
                    prompt=prompt,
                    seed=seed,
                    identity=image,
                    face_identity=face,
                )
        for subject in subjects:
            decide_references(subject, self._rules)

    def _choose_prompt(self, subject: SubjectRow, seed: int) -> str | None:
        if not self._invents or not self._prompts:
            return None
        return self._prompts[seed % len(self._prompts)].replace("{subject}", subject["phrase"])

    def _measure_similarities(
        self, subjects: Sequence[SubjectRow], cuts: Sequence[RGBA], pictures: Sequence[RGB]
    ) -> list[tuple[float | None, float | None]]:
        """Measure (picture, face) similarities in the subject's box: its surroundings are meant to differ."""
        if self._check is None:
            return [(None, None)] * len(subjects)
        pairs = []
        for subject, cut, picture in zip(subjects, cuts, pictures, strict=True):
            x0, y0, x1, y1 = (
                int(side) for side in get_mask_box(cut[..., 3] > 0) or (0, 0, *picture.shape[1::-1])
            )
            before = composite_over(cut, np.full_like(picture, 255))
            pairs.append(IdentityPair(before[y0:y1, x0:x1], picture[y0:y1, x0:x1], subject["group"]))
        return [(each.image, each.face) for each in self._check.measure_pairs(pairs)]


def mask_background(cut: RGBA) -> BoolMask:
    """Mask all but the opaque subject. Its soft edge would keep the old background."""
    return np.asarray(cut[..., 3] < 255)


def mask_inside_rim(crop: RGB) -> BoolMask:
    """Mask all but the outermost pixels."""
    unknown = np.zeros(crop.shape[:2], bool)
    unknown[_RING_PX:-_RING_PX, _RING_PX:-_RING_PX] = True
    return unknown
