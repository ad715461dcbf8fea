"""Find donors: other clips that show the same subject (Kaleido A.1, without compositing).

Kaleido A.1 separates a subject from its context by compositing. A donor clip, from the same video or another
one, shows the subject in another pose, light and place without compositing. Two pictures form a pair if they
are similar enough to show one subject and different enough not to be copies.

The pictures of a large dataset do not fit in the memory of a worker, so there are two steps:
`embed_subjects` embeds the kept subjects of some rows, and `find_donors` finds each drawn subject's donor
among all of them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.config import CurationConfig, RetrieveConfig
from curation.filters.embeddings import SimilarityBands, SubjectIndex
from curation.imaging.cutout import composite_on_white
from curation.imaging.row_pictures import make_subject_cutout
from curation.models.roles import ImageEmbedder
from curation.rows.ids import derive_seed
from curation.rows.references import list_kept_subjects
from curation.rows.schema import ClipRow, SubjectRow

log = logging.getLogger(__name__)

_DRAW = "retrieved"  # part of the seed that draws subjects
_PADDING = 0.05  # around the embedded cut-out, share of the box's sides
_MAX_NEIGHBOURS = 50  # nearest subjects that are compared; some may be copies of the subject's own picture


@dataclass(frozen=True)
class SubjectEmbedding:
    """A kept subject and the vector of its picture: (d,) float32 of one embedder."""

    subject_id: str
    clip_id: str
    video_id: str
    category: str
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class Donor:
    """The same subject in another clip, and the cosine of the two pictures, -1..1."""

    subject_id: str
    clip_id: str
    similarity: float


def is_drawn(config: CurationConfig, subject_id: str) -> bool:
    """Return whether this subject is in the drawn share. Only its id and the seed decide."""
    return derive_seed(config.seed, subject_id, _DRAW) / 0x80000000 < config.retrieve.share


def embed_subjects(rows: Iterable[ClipRow], embedder: ImageEmbedder) -> list[SubjectEmbedding]:
    """Embed the kept subjects of some rows, as cut-outs on white, so that the scene has no effect.

    Subjects whose pictures cannot be read are skipped with a warning.
    """
    found: list[tuple[ClipRow, SubjectRow]] = []
    pictures = []
    for row in rows:
        for subject in list_kept_subjects(row):
            try:
                pictures.append(composite_on_white(make_subject_cutout(row, subject, _PADDING)[1]))
            except ValueError as error:
                log.warning("%s cannot be embedded: %s", subject["subject_id"], error)
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
    """Map each drawn subject to its donor, the most similar subject within the bounds, if there is one.

    A donor has the same category and comes from another clip; with `same_video` off, from another video. The
    order of the embeddings does not matter. The time is O(drawn * n * d) per category.
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
        # The index leaves out subjects of the same source: the clip, or its whole video.
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
