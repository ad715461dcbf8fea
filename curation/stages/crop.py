"""The two references that need no model: the subject in its box, and the subject alone."""

from __future__ import annotations

from collections.abc import Sequence

from curation.config import CurationConfig
from curation.imaging.codec import RGB, decode_mask
from curation.rows.references import RGBA, cutout, drop, frame_image, kept, mask_in, put, subject_cutout
from curation.rows.schema import ClipRow, ReferenceFrame, SubjectRow
from curation.rows.thresholds import rules
from curation.rows.verdicts import decide_references
from curation.stages.stage import log

_MODEL, _REVISION = "reprise-cutout", "1"


class Crop:
    """Kaleido A.1: variants `crop` and `segment` (transparent background) of every kept subject.

    A subject that was followed gives a pair for each of its reference frames. Those after the first are cut
    along the tracker's mask and carry how alike they are to the first one, which a threshold may reject.
    """

    name = "crop"

    def __init__(self, config: CurationConfig) -> None:
        self._padding = config.crop.padding
        self._rules = rules(config.filter)

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        for row in rows:
            for subject in kept(row):
                drop(subject, "crop")
                drop(subject, "segment")
                pictures = subject_cutout(row, subject, self._padding)
                self._put(subject, pictures, subject["frame_index"])
                for ordinal, frame in enumerate((subject["reference_frames"] or [])[1:], start=1):
                    self._further(row, subject, frame, ordinal)
                decide_references(subject, self._rules)

    def _further(self, row: ClipRow, subject: SubjectRow, frame: ReferenceFrame, ordinal: int) -> None:
        mask = mask_in(subject, frame["index"])
        if mask is None:
            return
        try:
            image = frame_image(row, frame["index"])
        except ValueError as error:  # one picture less
            log.warning("%s gives no further picture: %s", subject["subject_id"], error)
            return
        pictures = cutout(image, decode_mask(mask), self._padding)
        self._put(subject, pictures, frame["index"], ordinal, frame["identity"])

    @staticmethod
    def _put(
        subject: SubjectRow,
        pictures: tuple[RGB, RGBA],
        index: int | None,
        ordinal: int = 0,
        identity: float | None = None,
    ) -> None:
        for variant, picture in zip(("crop", "segment"), pictures, strict=True):
            put(
                subject,
                variant,
                picture,
                model=_MODEL,
                revision=_REVISION,
                frame_index=index,
                ordinal=ordinal,
                identity=identity,
            )
