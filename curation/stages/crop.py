"""The two references that need no model: the subject in its box, and the subject alone."""

from __future__ import annotations

from collections.abc import Sequence

from curation.config import CurationConfig
from curation.references import kept, put, subject_cutout
from curation.schema import ClipRow


class Crop:
    """Kaleido A.1: variants `crop` and `segment` (transparent background) of every kept subject."""

    name = "crop"

    def __init__(self, config: CurationConfig) -> None:
        self._padding = config.crop.padding

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        for row in rows:
            for subject in kept(row):
                crop, segment = subject_cutout(row, subject, self._padding)
                put(subject, "crop", crop, model="reprise-cutout", revision="1")
                put(subject, "segment", segment, model="reprise-cutout", revision="1")
