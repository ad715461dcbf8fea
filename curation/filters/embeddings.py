"""Decide by embeddings whether pictures show the same subject, and search subjects of many videos.

All vectors are float32 from the same roles.ImageEmbedder or the same face recogniser, of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

SimilarityClass = Literal["different", "same", "copy"]

_BLOCK_ROWS = (
    2048  # rows of a block of similarities: 2048 x 2048 float32 are 16 MB, whatever the size of the index
)
# Sums of products differ slightly between block shapes. Rounding keeps equal values equal.
_DECIMALS = 5


@dataclass(frozen=True)
class SimilarityBands:
    """The cosines between which two pictures show the same subject but are not the same picture.

    The defaults are our values for DINOv2 on cut-outs. ArcFace needs lower ones: 0.4 for the same person.
    """

    same_min: float = 0.6
    copy_min: float = 0.95

    def __post_init__(self) -> None:
        if not -1 <= self.same_min <= self.copy_min:
            raise ValueError(f"same_min must lie in -1..copy_min: {self}")


def compute_similarity(left: NDArray[np.floating], right: NDArray[np.floating]) -> float:
    """Compute the cosine of two vectors, -1..1; 0 if one of them is zero."""
    product = float(
        np.dot(
            _normalize_rows(left[None])[0].astype(np.float64),
            _normalize_rows(right[None])[0].astype(np.float64),
        )
    )
    return float(np.clip(product, -1, 1))


def classify_similarity(cosine: float, bands: SimilarityBands | None = None) -> SimilarityClass:
    """Return the band of a cosine."""
    bands = bands or SimilarityBands()
    if cosine >= bands.copy_min:
        return "copy"
    return "same" if cosine >= bands.same_min else "different"


def find_near_duplicates(
    ids: Sequence[str], vectors: NDArray[np.floating], threshold: float = SimilarityBands.copy_min
) -> dict[str, str]:
    """Map each near duplicate to the kept subject that represents it. Kept subjects are not in the result.

    The search is greedy in the order of ids, so that the result depends neither on the order of subjects nor
    on the number of workers. A subject is kept unless its cosine with an earlier kept one is at least
    `threshold`. Then the nearest of those represents it. Time is O(n * kept * d), memory O(block^2).

    Args:
        ids: n distinct ids.
        vectors: (n, d) float32.
        threshold: the cosine from which two subjects are duplicates, -1..1.

    Raises:
        ValueError: ids repeat, or their number differs from that of the vectors.
    """
    _check_ids(ids, vectors)
    order = sorted(range(len(ids)), key=lambda position: ids[position])
    rows = _normalize_rows(vectors)[order]
    names = [ids[position] for position in order]
    kept: list[int] = []
    stands: dict[str, str] = {}
    for start in range(0, len(names), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        best = np.full(len(block), -np.inf)
        nearest = np.zeros(len(block), np.int64)
        for first in range(0, len(kept), _BLOCK_ROWS):
            older = kept[first : first + _BLOCK_ROWS]
            _update_nearest(best, nearest, _compute_cosines(block, rows[older]), np.array(older))
        own = _compute_cosines(block, block)
        for inside in range(len(block)):
            position = start + inside
            if best[inside] >= threshold:
                stands[names[position]] = names[nearest[inside]]
                continue
            kept.append(position)
            nearer = own[inside] > best
            best[nearer], nearest[nearer] = own[inside][nearer], position
    return stands


@dataclass(frozen=True)
class Neighbour:
    """A found subject and its cosine."""

    subject_id: str
    video_id: str
    similarity: float


class SubjectIndex:
    """Exact cosine search over subjects of many videos, in numpy.

    A search of q vectors takes O(q * n * d) multiplications in blocks and O(block^2) extra memory. A million
    subjects of 768 numbers need 3 GB for the index and about 1.5 GFLOP per query: under a second on one core.
    The search is exact, so the order of subjects does not matter.
    """

    def __init__(
        self, subject_ids: Sequence[str], video_ids: Sequence[str], vectors: NDArray[np.floating]
    ) -> None:
        """Store n subjects.

        Args:
            subject_ids: n distinct ids.
            video_ids: the source video of each subject.
            vectors: (n, d) float32.

        Raises:
            ValueError: ids repeat, or the three differ in length.
        """
        _check_ids(subject_ids, vectors)
        if len(video_ids) != len(subject_ids):
            raise ValueError(f"{len(subject_ids)} subjects, but {len(video_ids)} videos")
        order = sorted(range(len(subject_ids)), key=lambda position: subject_ids[position])
        self._ids = [subject_ids[position] for position in order]
        self._videos = [video_ids[position] for position in order]
        self._codes = {video: code for code, video in enumerate(sorted(set(video_ids)))}
        self._video_codes = np.array([self._codes[video] for video in self._videos], np.int64)
        self._rows = _normalize_rows(vectors)[order]

    def __len__(self) -> int:
        return len(self._ids)

    def find_nearest(
        self, vectors: NDArray[np.floating], video_ids: Sequence[str | None], k: int = 10
    ) -> list[list[Neighbour]]:
        """Find for each vector its k nearest subjects of *other* videos: nearest first, ties in order of ids.

        Args:
            vectors: (q, d) float32.
            video_ids: the source video of each vector, whose subjects are skipped; None: skip none.
            k: number of neighbours, at least 1.

        Raises:
            ValueError: vectors of another length than the index has, or k below 1.
        """
        if k < 1:
            raise ValueError("k must be at least 1")
        if len(video_ids) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors, but {len(video_ids)} videos")
        if len(self) == 0 or len(vectors) == 0:
            return [[] for _ in range(len(vectors))]
        queries = _normalize_rows(vectors)
        if queries.shape[1] != self._rows.shape[1]:
            raise ValueError(
                f"vectors of {queries.shape[1]} numbers, but the index has {self._rows.shape[1]}"
            )
        own = np.array([self._codes.get(video, -1) if video is not None else -1 for video in video_ids])
        found: list[list[Neighbour]] = []
        for start in range(0, len(queries), _BLOCK_ROWS):
            found.extend(
                self._search_block(queries[start : start + _BLOCK_ROWS], own[start : start + _BLOCK_ROWS], k)
            )
        return found

    def find_same_subjects(
        self,
        vectors: NDArray[np.floating],
        video_ids: Sequence[str | None],
        bands: SimilarityBands | None = None,
        k: int = 50,
    ) -> list[list[Neighbour]]:
        """Find for each vector the same subject in other videos, without copies, nearest first.

        Only the `k` nearest subjects are compared. If the index has `k` or more copies of a subject, they
        hide less similar subjects.
        """
        return [
            [each for each in neighbours if classify_similarity(each.similarity, bands) == "same"]
            for neighbours in self.find_nearest(vectors, video_ids, k)
        ]

    def _search_block(self, queries: F32, own: NDArray[np.int64], k: int) -> list[list[Neighbour]]:
        best = np.empty((len(queries), 0), np.float64)
        where = np.empty((len(queries), 0), np.int64)
        for first in range(0, len(self), _BLOCK_ROWS):
            rows = self._rows[first : first + _BLOCK_ROWS]
            cosines = _compute_cosines(queries, rows)
            cosines[self._video_codes[None, first : first + len(rows)] == own[:, None]] = -np.inf
            positions = np.broadcast_to(np.arange(first, first + len(rows)), cosines.shape)
            best = np.concatenate([best, cosines], axis=1)
            where = np.concatenate([where, positions], axis=1)
            # The sort is stable and positions ascend, so that of equal cosines the smaller id is first.
            order = np.argsort(-best, axis=1, kind="stable")[:, :k]
            best, where = np.take_along_axis(best, order, 1), np.take_along_axis(where, order, 1)
        return [
            [
                Neighbour(self._ids[position], self._videos[position], float(cosine))
                for cosine, position in zip(cosines, positions, strict=True)
                if np.isfinite(cosine)
            ]
            for cosines, positions in zip(best, where, strict=True)
        ]


def _compute_cosines(left: F32, right: F32) -> NDArray[np.float64]:
    products = (left @ right.T).astype(np.float64)
    return np.asarray(np.round(np.clip(products, -1, 1), _DECIMALS), np.float64)


def _update_nearest(
    best: NDArray[np.float64],
    nearest: NDArray[np.int64],
    cosines: NDArray[np.float64],
    positions: NDArray[np.int64],
) -> None:
    """Update (best, nearest) in place where a column of `cosines` is larger; of equals the earlier stays."""
    column = cosines.argmax(axis=1)
    value = np.take_along_axis(cosines, column[:, None], 1)[:, 0]
    better = value > best
    best[better], nearest[better] = value[better], positions[column[better]]


def _normalize_rows(vectors: NDArray[np.floating]) -> F32:
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def _check_ids(ids: Sequence[str], vectors: NDArray[np.floating]) -> None:
    if len(ids) != len(vectors):
        raise ValueError(f"{len(ids)} ids, but {len(vectors)} vectors")
    if len(set(ids)) != len(ids):
        raise ValueError("ids repeat")
