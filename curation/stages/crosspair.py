"""Put a subject into the scene of an unrelated video (Kaleido A.1, cross-paired samples; `crosspair`).

"Segmented subjects are composited with backgrounds or video clips from different, unrelated sources". A
subject is put only on plates of other videos whose captions name other things, so that the reference shows
nothing of the subject's own context.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from curation.config import CurationConfig
from curation.imaging.codec import decode_image, decode_mask
from curation.imaging.composite import composite_subject
from curation.imaging.lift import lift_subject
from curation.imaging.row_pictures import add_reference, get_frame_image
from curation.rows.ids import derive_seed
from curation.rows.references import list_kept_subjects, remove_references
from curation.rows.schema import ClipRow, SubjectRow
from curation.rows.stage_names import CROSSPAIR
from curation.stages.plates import Plate
from curation.taxonomy import Taxonomy
from reprise.digest import compute_digest

VARIANT = "crosspair"
_MAX_WORD_OVERLAP = (
    0.34  # Jaccard similarity of the words of two captions; from here on their clips are related
)
_MAX_COVER_RATIO = 1.2  # greatest size of a painted part that a subject can hide, relative to the subject


class Crosspair:
    """Gives `crosspair.share` of the kept subjects one reference on an unrelated plate.

    The choice of subjects, plates and places depends only on ids and the seed, not on the order of rows.
    """

    name = CROSSPAIR

    def __init__(self, config: CurationConfig, pool: Sequence[Plate]) -> None:
        self._config, self._seed = config.crosspair, config.seed
        self._taxonomy_path = config.match.taxonomy
        self._taxonomy: Taxonomy | None = None
        self._pool = pool
        self._words = {plate.clip_id: _split_words(plate.caption) for plate in pool}

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Add a cross-paired reference to each drawn subject for which there is an unrelated plate."""
        if self._taxonomy is None:
            self._taxonomy = Taxonomy.load(self._taxonomy_path)
        for row in rows:
            for subject in list_kept_subjects(row):
                remove_references(subject, VARIANT)
                if self.is_drawn(subject):
                    plate = self._choose_plate(row, subject)
                    if plate is not None:
                        self._add_composite(row, subject, plate, self._taxonomy)

    def is_drawn(self, subject: SubjectRow) -> bool:
        """Return whether this subject is in the drawn share. Only its id and the seed decide."""
        return derive_seed(self._seed, subject["subject_id"], "crosspaired") / 0x80000000 < self._config.share

    def _choose_plate(self, row: ClipRow, subject: SubjectRow) -> Plate | None:
        """Choose the plate of an unrelated clip with the smallest hash, so that a new plate changes few.

        If that plate is a background, choose the first background whose painted parts this subject can hide.
        """
        words = _split_words(row["caption"] or "")
        unrelated = [
            plate
            for plate in self._pool
            if plate.video_id != row["video_id"]
            and _measure_word_overlap(words, self._words[plate.clip_id]) < _MAX_WORD_OVERLAP
        ]
        unrelated.sort(key=lambda plate: compute_digest(self._seed, subject["subject_id"], plate.clip_id))
        if not unrelated or unrelated[0].kind == "clip":
            return unrelated[0] if unrelated else None
        usable = (
            plate
            for plate in unrelated
            if plate.kind == "background" and _can_hide_painted_parts(row, subject, plate)
        )
        return next(usable, unrelated[0])

    def _add_composite(self, row: ClipRow, subject: SubjectRow, plate: Plate, taxonomy: Taxonomy) -> None:
        assert subject["mask"] is not None
        seed = derive_seed(self._seed, subject["subject_id"], plate.clip_id)
        cut = lift_subject(
            get_frame_image(row, subject["frame_index"]), decode_mask(subject["mask"]), self._config.feather
        )
        background = plate.kind == "background"
        body = taxonomy.get_body(subject["category"], subject["group"])
        picture = composite_subject(
            cut,
            decode_image(plate.image),
            np.random.default_rng(seed),
            metres=body.height,
            plate_metres=estimate_plate_height(plate, taxonomy),
            avoid=() if background else plate.boxes,
            cover=plate.boxes if background else (),
            casts_shadow=body.stands,
        )
        add_reference(
            subject,
            VARIANT,
            picture,
            model=f"reprise-composite/{plate.kind}",
            revision="2",
            frame_index=subject["frame_index"],
            seed=seed,
            donor_clip_id=plate.clip_id,
            donor_frame_index=plate.frame_index,
        )


def estimate_plate_height(plate: Plate, taxonomy: Taxonomy) -> float | None:
    """Estimate the true height, m, that the full height of a plate spans at the distance of its subjects.

    The scale is that of the largest whole subject with a known true height. None: there is no such subject.
    """
    scales = [
        (subject.height, height / subject.height)
        for subject in plate.scale
        if (height := taxonomy.get_body(subject.category, subject.group).height) is not None
    ]
    return max(scales, key=lambda scale: scale[0])[1] if scales else None


def _can_hide_painted_parts(row: ClipRow, subject: SubjectRow, plate: Plate) -> bool:
    """Return whether the subject, at its size in its own frame, is about as large as every painted part."""
    x0, y0, x1, y1 = subject["box"] or [0.0] * 4
    wide, tall = (x1 - x0) / (row["width"] or 1), (y1 - y0) / (row["height"] or 1)
    return all(
        right - left <= _MAX_COVER_RATIO * wide and bottom - top <= _MAX_COVER_RATIO * tall
        for left, top, right, bottom in plate.boxes
    )


_STOP_WORDS = frozenset(
    "a an the of in on at and or with to is are from by for its his her their it".split()  # noqa: SIM905
)


def _split_words(caption: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", caption.lower())) - _STOP_WORDS


def _measure_word_overlap(left: frozenset[str], right: frozenset[str]) -> float:
    """Measure the Jaccard similarity of two sets of words, 0..1."""
    union = left | right
    return len(left & right) / len(union) if union else 0.0
