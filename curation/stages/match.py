"""Find candidate subjects in captions by the taxonomy (Kaleido 3.2 (2))."""

from __future__ import annotations

from collections.abc import Sequence

from curation.config import CurationConfig
from curation.rows.groups import BACKGROUND
from curation.rows.ids import make_subject_id
from curation.rows.lifecycle import make_new_subject, stop_row
from curation.rows.schema import ClipRow, SubjectRow
from curation.rows.stage_names import MATCH
from curation.taxonomy import Mention, Taxonomy


class Match:
    """Makes one candidate per thing that the caption names, in text order."""

    name = MATCH

    def __init__(self, config: CurationConfig) -> None:
        self._config = config.match
        self._taxonomy: Taxonomy | None = None

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Find the candidate subjects of every caption; reject rows whose caption names none."""
        if self._taxonomy is None:
            self._taxonomy = Taxonomy.load(self._config.taxonomy)
        for row in rows:
            mentions = [
                each for each in self._taxonomy.find_mentions(row["caption"] or "") if self._is_wanted(each)
            ]
            row["subjects"] = [
                build_candidate(row, mention) for mention in mentions[: self._config.max_subjects]
            ]
            if not row["subjects"]:
                stop_row(row, "rejected", self.name, "caption names no subject")

    def _is_wanted(self, mention: Mention) -> bool:
        if self._config.groups is None:
            return mention.group != BACKGROUND  # a place describes the scene and has no box
        return mention.group in self._config.groups


def build_candidate(row: ClipRow, mention: Mention) -> SubjectRow:
    """Build the subject of a mention. Fields that need a picture stay null."""
    return make_new_subject(
        make_subject_id(row["clip_id"], mention.phrase, mention.start, 0),
        category=mention.category,
        group=mention.group,
        name=mention.name,
        phrase=mention.phrase,
        count=mention.count,
    )
