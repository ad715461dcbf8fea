"""Make the references that need no model: the subject in its box, and the subject without background."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from curation.config import CurationConfig
from curation.imaging.codec import RGB, decode_mask
from curation.imaging.cutout import RGBA, make_cutout
from curation.imaging.row_pictures import add_reference, get_frame_image, make_subject_cutout
from curation.rows.references import find_mask, list_kept_subjects, remove_references
from curation.rows.schema import ClipRow, ReferenceFrame, SubjectRow
from curation.rows.stage_names import CROP
from curation.rows.thresholds import build_rules
from curation.rows.verdicts import decide_references

log = logging.getLogger(__name__)

_MODEL, _REVISION = "reprise-cutout", "1"


class Crop:
    """Makes the variants `crop` and `segment` (transparent background) of every kept subject (Kaleido A.1).

    A tracked subject has a pair for each of its reference frames. Pairs after the first are cut out with the
    tracker's mask. They store their similarity to the first pair, and a threshold can reject them by it.
    """

    name = CROP

    def __init__(self, config: CurationConfig) -> None:
        self._padding = config.crop.padding
        self._rules = build_rules(config.filter)

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Replace both references of every kept subject by new ones."""
        for row in rows:
            for subject in list_kept_subjects(row):
                remove_references(subject, "crop")
                remove_references(subject, "segment")
                pictures = make_subject_cutout(row, subject, self._padding)
                self._add_pair(subject, pictures, subject["frame_index"])
                for ordinal, frame in enumerate((subject["reference_frames"] or [])[1:], start=1):
                    self._add_further_frame(row, subject, frame, ordinal)
                decide_references(subject, self._rules)

    def _add_further_frame(
        self, row: ClipRow, subject: SubjectRow, frame: ReferenceFrame, ordinal: int
    ) -> None:
        mask = find_mask(subject, frame["index"])
        if mask is None:
            return
        try:
            image = get_frame_image(row, frame["index"])
        except ValueError as error:
            log.warning("%s: no reference from a further frame: %s", subject["subject_id"], error)
            return
        pictures = make_cutout(image, decode_mask(mask), self._padding)
        self._add_pair(subject, pictures, frame["index"], ordinal, frame["identity"])

    @staticmethod
    def _add_pair(
        subject: SubjectRow,
        pictures: tuple[RGB, RGBA],
        index: int | None,
        ordinal: int = 0,
        identity: float | None = None,
    ) -> None:
        for variant, picture in zip(("crop", "segment"), pictures, strict=True):
            add_reference(
                subject,
                variant,
                picture,
                model=_MODEL,
                revision=_REVISION,
                frame_index=index,
                ordinal=ordinal,
                identity=identity,
            )
