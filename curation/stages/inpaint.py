"""Replace the surroundings of a subject by inpainting (Kaleido 3.2 (5), variant `inpaint`)."""

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

_PADDING = 0.35  # around the subject, share of the box's sides, so that a background is visible
_RING_PX = 2  # width of the crop's rim, from which an inpainter continues


class Inpaint:
    """Inpaints everything around the subject, then puts the unchanged subject back.

    The request depends on `roles.Inpainter.paints_around`. A generative inpainter gets the subject and
    paints around it from a prompt. Its result is compared with the subject, because it can change the
    subject, e.g. add a third arm. An inpainter that extends existing pixels gets only the crop's rim, because
    it would spread the subject's colours outwards.
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
        """Replace the `inpaint` references of every kept subject by new ones."""
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
        """Measure (picture, face) similarities in the subject's box, as the surroundings differ by design."""
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
    """Mask all pixels except the opaque subject. Its soft edge is masked, as it holds the old background."""
    return np.asarray(cut[..., 3] < 255)


def mask_inside_rim(crop: RGB) -> BoolMask:
    """Mask all pixels except the rim of the crop."""
    unknown = np.zeros(crop.shape[:2], bool)
    unknown[_RING_PX:-_RING_PX, _RING_PX:-_RING_PX] = True
    return unknown
