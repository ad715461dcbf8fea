"""The same subject elsewhere (variant `retrieved`): a reference that no model made, from another clip.

Kaleido A.1 breaks the tie between a subject and its context by compositing. Where the same subject is seen in
another clip, of this video or of another one, that tie is broken already: another pose, light and place.
Two pictures are such a pair when they are alike enough to show one subject, and not so alike as to be copies.

Three steps, as the pictures of a large dataset fit no worker: `look` embeds the kept subjects of some rows,
`match` finds for each drawn subject its donor among all of them, and `Retrieve` fetches the donors' pictures.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from curation.config import CurationConfig, RetrieveConfig
from curation.filters.embeddings import SimilarityBands, SubjectIndex
from curation.imaging.cutout import composite_on_white
from curation.imaging.row_pictures import add_reference, make_subject_cutout
from curation.models.roles import ImageEmbedder
from curation.rows.ids import derive_seed
from curation.rows.references import list_kept_subjects, remove_references
from curation.rows.schema import ClipRow, SubjectRow
from curation.rows.stage_names import RETRIEVE
from curation.rows.thresholds import build_rules
from curation.rows.verdicts import decide_references

log = logging.getLogger(__name__)

VARIANT = "retrieved"
_PADDING = 0.05  # around what is embedded
_MAX_NEIGHBOURS = 50  # nearest subjects looked at; copies of the subject's own picture are among them


@dataclass(frozen=True)
class SubjectEmbedding:
    """A kept subject and what it looks like: (d,) float32 of one embedder."""

    subject_id: str
    clip_id: str
    video_id: str
    category: str
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class Donor:
    """Where the same subject is seen, and how alike the two are, -1..1."""

    subject_id: str
    clip_id: str
    similarity: float


class DonorLibrary(Protocol):
    """What `Retrieve` asks: small in memory, however large the dataset."""

    @property
    def model(self) -> str:
        """Name of the embedder that found the matches."""
        ...

    @property
    def revision(self) -> str: ...

    @property
    def sha256(self) -> str | None: ...

    def get_donor(self, subject_id: str) -> Donor | None:
        """The donor of a subject; None: it has none."""
        ...

    def load_clips(self, clip_ids: Sequence[str]) -> Iterable[ClipRow]:
        """These clips, with their frames and subjects, in any order; some may be missing."""
        ...


@dataclass(frozen=True)
class FoundDonors:
    """A `Library` over what `match` found and a function that reads rows."""

    model: str
    revision: str
    found: Mapping[str, Donor]
    fetch: Callable[[Sequence[str]], Iterable[ClipRow]]
    sha256: str | None = None

    def get_donor(self, subject_id: str) -> Donor | None:
        return self.found.get(subject_id)

    def load_clips(self, clip_ids: Sequence[str]) -> Iterable[ClipRow]:
        return self.fetch(clip_ids)


def is_drawn(config: CurationConfig, subject_id: str) -> bool:
    """Whether this subject is among the share; its id alone decides."""
    return derive_seed(config.seed, subject_id, VARIANT) / 0x80000000 < config.retrieve.share


def embed_subjects(rows: Iterable[ClipRow], embedder: ImageEmbedder) -> list[SubjectEmbedding]:
    """The kept subjects of some rows, embedded as cut-outs on white: the place must not count.

    A subject whose picture cannot be read costs itself only.
    """
    found: list[tuple[ClipRow, SubjectRow]] = []
    pictures = []
    for row in rows:
        for subject in list_kept_subjects(row):
            try:
                pictures.append(composite_on_white(make_subject_cutout(row, subject, _PADDING)[1]))
            except ValueError as error:
                log.warning("%s cannot be looked up: %s", subject["subject_id"], error)
                continue
            found.append((row, subject))
    if not found:
        return []
    vectors = embedder.embed(pictures)
    return [
        SubjectEmbedding(
            subject["subject_id"],
            row["clip_id"],
            row["video_id"] or row["clip_id"],
            subject["category"],
            vector,
        )
        for (row, subject), vector in zip(found, vectors, strict=True)
    ]


def find_donors(embeddings: Sequence[SubjectEmbedding], config: CurationConfig) -> dict[str, Donor]:
    """subject_id -> its donor, for the drawn subjects that have one: the most alike in the band.

    Of the same category and of another clip; with `same_video` off, of another video. The same subjects give
    the same answer in any order. Time O(drawn * n * d) per category.
    """
    wanted = config.retrieve
    bands = SimilarityBands(wanted.same_min, wanted.copy_min)
    categories: dict[str, list[SubjectEmbedding]] = defaultdict(list)
    for each in embeddings:
        categories[each.category].append(each)
    found: dict[str, Donor] = {}
    for group in categories.values():
        drawn = [each for each in group if is_drawn(config, each.subject_id)]
        if not drawn or len(group) < 2:
            continue
        # The index leaves out what has the same source: a clip here, or else its whole video.
        index = SubjectIndex(
            [each.subject_id for each in group],
            [_get_exclusion_key(each, wanted) for each in group],
            np.stack([each.vector for each in group]),
        )
        clips = {each.subject_id: each.clip_id for each in group}
        hits = index.find_same_subjects(
            np.stack([each.vector for each in drawn]),
            [_get_exclusion_key(each, wanted) for each in drawn],
            bands,
            _MAX_NEIGHBOURS,
        )
        for each, neighbours in zip(drawn, hits, strict=True):
            if neighbours:
                best = neighbours[0]
                found[each.subject_id] = Donor(best.subject_id, clips[best.subject_id], best.similarity)
    return found


def _get_exclusion_key(embedding: SubjectEmbedding, wanted: RetrieveConfig) -> str:
    return embedding.clip_id if wanted.same_video else embedding.video_id


class Retrieve:
    """Gives the drawn subjects one reference cut from their donor's frame, in the donor's surroundings."""

    name = RETRIEVE

    def __init__(self, config: CurationConfig, library: DonorLibrary) -> None:
        self._config = config
        self._padding = config.crop.padding
        self._rules = build_rules(config.filter)
        self._library = library

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        wanted: list[tuple[SubjectRow, Donor]] = []
        for row in rows:
            for subject in list_kept_subjects(row):
                remove_references(subject, VARIANT)
                if is_drawn(self._config, subject["subject_id"]):
                    found = self._library.get_donor(subject["subject_id"])
                    if found is not None:
                        wanted.append((subject, found))
        if not wanted:
            return
        clips = sorted({found.clip_id for _, found in wanted})
        donors = {
            donor["subject_id"]: (row, donor)
            for row in self._library.load_clips(clips)
            for donor in list_kept_subjects(row)
        }
        for subject, found in wanted:
            if found.subject_id in donors:
                self._add_donor_reference(subject, found, *donors[found.subject_id])

    def _add_donor_reference(
        self, subject: SubjectRow, found: Donor, row: ClipRow, donor: SubjectRow
    ) -> None:
        try:
            crop, _ = make_subject_cutout(row, donor, self._padding)
        except ValueError as error:
            log.warning("%s gives nothing to %s: %s", donor["subject_id"], subject["subject_id"], error)
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
