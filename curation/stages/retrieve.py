"""Take a reference of the subject from another clip (variant `retrieved`), without a generative model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from curation.config import CurationConfig
from curation.imaging.row_pictures import add_reference, make_subject_cutout
from curation.rows.references import list_kept_subjects, remove_references
from curation.rows.schema import ClipRow, SubjectRow
from curation.rows.stage_names import RETRIEVE
from curation.rows.thresholds import build_rules
from curation.rows.verdicts import decide_references
from curation.stages.donors import Donor, is_drawn

log = logging.getLogger(__name__)

VARIANT = "retrieved"


class DonorLibrary(Protocol):
    """The source of donors for `Retrieve`. It does not hold the pictures of the dataset in memory."""

    @property
    def model(self) -> str:
        """The name of the embedder that found the donors."""
        ...

    @property
    def revision(self) -> str:
        """The revision of that embedder."""
        ...

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of its checkpoint; None: it has no checkpoint."""
        ...

    def get_donor(self, subject_id: str) -> Donor | None:
        """Return the donor of a subject; None: it has none."""
        ...

    def load_clips(self, clip_ids: Sequence[str]) -> Iterable[ClipRow]:
        """Load clips with their frames and subjects, in any order; some may be missing."""
        ...


@dataclass(frozen=True)
class FoundDonors:
    """A `DonorLibrary` from the result of `donors.find_donors` and a function that reads rows."""

    model: str
    revision: str
    found: Mapping[str, Donor]
    fetch: Callable[[Sequence[str]], Iterable[ClipRow]]
    sha256: str | None = None

    def get_donor(self, subject_id: str) -> Donor | None:
        """Return the donor of a subject; None: it has none."""
        return self.found.get(subject_id)

    def load_clips(self, clip_ids: Sequence[str]) -> Iterable[ClipRow]:
        """Load clips by the function that reads rows."""
        return self.fetch(clip_ids)


class Retrieve:
    """Adds to each drawn subject one crop of its donor's frame, with the donor's surroundings."""

    name = RETRIEVE

    def __init__(self, config: CurationConfig, library: DonorLibrary) -> None:
        self._config = config
        self._padding = config.crop.padding
        self._rules = build_rules(config.filter)
        self._library = library

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Add a reference from the donor's clip to each drawn subject that has a donor."""
        pairs: list[tuple[SubjectRow, Donor]] = []
        for row in rows:
            for subject in list_kept_subjects(row):
                remove_references(subject, VARIANT)
                if is_drawn(self._config, subject["subject_id"]):
                    found = self._library.get_donor(subject["subject_id"])
                    if found is not None:
                        pairs.append((subject, found))
        if not pairs:
            return
        clips = sorted({found.clip_id for _, found in pairs})
        donors = {
            donor["subject_id"]: (row, donor)
            for row in self._library.load_clips(clips)
            for donor in list_kept_subjects(row)
        }
        for subject, found in pairs:
            if found.subject_id in donors:
                self._add_donor_reference(subject, found, *donors[found.subject_id])

    def _add_donor_reference(
        self, subject: SubjectRow, found: Donor, row: ClipRow, donor: SubjectRow
    ) -> None:
        try:
            crop, _ = make_subject_cutout(row, donor, self._padding)
        except ValueError as error:
            log.warning(
                "donor %s gives no reference to %s: %s", donor["subject_id"], subject["subject_id"], error
            )
            return
        add_reference(
            subject,
            VARIANT,
            crop,
            model=self._library.model,
            revision=self._library.revision,
            sha256=self._library.sha256,
            donor_clip_id=found.clip_id,
            donor_frame_index=donor["frame_index"],
            identity=found.similarity,
        )
        decide_references(subject, self._rules)
