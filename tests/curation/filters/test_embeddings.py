"""Same subject, copy or another; duplicates; the index across videos. Vectors are made, so truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from curation.filters import embeddings
from curation.filters.embeddings import (
    SimilarityBands,
    SubjectIndex,
    classify_similarity,
    compute_similarity,
    find_near_duplicates,
)


def make_vector(degrees: float, of: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """A vector at an angle to (1, 0, 0, 0), of any length."""
    turned = np.zeros(4, np.float32)
    turned[:2] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return turned * (1 + abs(degrees))


def subjects(count: int, seed: int = 0) -> tuple[list[str], list[str], NDArray[np.float32]]:
    """`count` subjects of 7 videos in no order, several of them alike."""
    draw = np.random.default_rng(seed)
    kinds = draw.normal(size=(max(1, count // 5), 16))
    vectors = kinds[draw.integers(len(kinds), size=count)] + 0.15 * draw.normal(size=(count, 16))
    ids = [f"s{number:04d}" for number in draw.permutation(count)]
    return ids, [f"v{number}" for number in draw.integers(7, size=count)], vectors.astype(np.float32)


def test_similarity_is_the_cosine_whatever_the_lengths() -> None:
    assert compute_similarity(make_vector(0), make_vector(60)) == pytest.approx(0.5, abs=1e-6)
    assert compute_similarity(make_vector(0), make_vector(180)) == pytest.approx(-1)
    assert compute_similarity(make_vector(0), np.zeros(4, np.float32)) == 0


def test_a_subject_is_the_same_between_the_bands() -> None:
    bands = SimilarityBands(same_min=0.5, copy_min=0.9)
    assert classify_similarity(compute_similarity(make_vector(0), make_vector(5)), bands) == "copy"
    assert classify_similarity(compute_similarity(make_vector(0), make_vector(45)), bands) == "same"
    assert classify_similarity(compute_similarity(make_vector(0), make_vector(70)), bands) == "different"
    with pytest.raises(ValueError, match="same_min"):
        SimilarityBands(same_min=0.9, copy_min=0.5)


def test_near_duplicates_stand_under_the_nearest_one_kept() -> None:
    vectors = np.stack([make_vector(0), make_vector(8), make_vector(20), make_vector(30), make_vector(90)])
    # c is within 16 degrees of b, but b was removed for a: only kept items remove others.
    found = find_near_duplicates(["a", "b", "c", "d", "e"], vectors, float(np.cos(np.radians(15))))
    assert found == {"b": "a", "d": "c"}


def test_near_duplicates_are_the_same_in_any_order_and_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, _, vectors = subjects(200)
    whole = find_near_duplicates(ids, vectors, 0.9)
    assert 50 < len(whole) < 199
    order = np.random.default_rng(1).permutation(len(ids))
    monkeypatch.setattr(embeddings, "_BLOCK_ROWS", 7)
    assert find_near_duplicates([ids[each] for each in order], vectors[order], 0.9) == whole


@settings(deadline=None, max_examples=30)
@given(count=st.integers(0, 40), seed=st.integers(0, 1000), threshold=st.floats(0.5, 0.99))
def test_kept_items_are_distinct_and_removed_ones_have_a_near_duplicate(
    count: int, seed: int, threshold: float
) -> None:
    ids, _, vectors = subjects(count, seed)
    near_duplicates = find_near_duplicates(ids, vectors, threshold)
    row = dict(zip(ids, vectors, strict=True))
    kept = [each for each in ids if each not in near_duplicates]
    grain = 2e-5
    for first, left in enumerate(kept):
        for right in kept[first + 1 :]:
            assert compute_similarity(row[left], row[right]) < threshold + grain
    for fallen, near in near_duplicates.items():
        assert near in kept and near < fallen
        assert compute_similarity(row[fallen], row[near]) >= threshold - grain


def test_the_index_finds_exactly_what_comparing_everything_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_BLOCK_ROWS", 16)
    ids, videos, vectors = subjects(150)
    found = SubjectIndex(ids, videos, vectors).find_nearest(vectors[:40], videos[:40], k=9)
    for query in range(40):
        others = [other for other in range(150) if videos[other] != videos[query]]
        ranked = sorted(
            (-round(compute_similarity(vectors[query], vectors[other]), 5), ids[other]) for other in others
        )
        assert [(each.subject_id, -each.similarity) for each in found[query]] == [
            (name, pytest.approx(cosine, abs=1e-4)) for cosine, name in ranked[:9]
        ]


def test_a_subject_is_never_found_in_its_own_video() -> None:
    ids, videos, vectors = subjects(60)
    index = SubjectIndex(ids, videos, vectors)
    for video, neighbours in zip(videos, index.find_nearest(vectors, videos, k=60), strict=True):
        assert video not in {each.video_id for each in neighbours}
        assert len(neighbours) == sum(other != video for other in videos)
    assert index.find_nearest(vectors[:1], [None], k=1)[0][0].subject_id == ids[0]


def test_the_same_subject_elsewhere_is_no_copy() -> None:
    vectors = np.stack([make_vector(0), make_vector(2), make_vector(40), make_vector(80)])
    index = SubjectIndex(["own", "copy", "same", "other"], ["v0", "v1", "v2", "v3"], vectors)
    found = index.find_same_subjects(vectors[:1], ["v0"], SimilarityBands(same_min=0.6, copy_min=0.95))
    assert [each.subject_id for each in found[0]] == ["same"]


def test_equals_come_in_the_order_of_their_ids() -> None:
    index = SubjectIndex(["c", "a", "b"], ["v1", "v2", "v3"], np.stack([make_vector(10)] * 3))
    assert [each.subject_id for each in index.find_nearest(make_vector(10)[None], [None], k=3)[0]] == [
        "a",
        "b",
        "c",
    ]


def test_an_empty_index_finds_nothing_and_bad_queries_are_refused() -> None:
    empty = np.zeros((0, 4), np.float32)
    assert SubjectIndex([], [], empty).find_nearest(make_vector(0)[None], [None]) == [[]]
    assert find_near_duplicates([], empty) == {}
    with pytest.raises(ValueError, match="repeat"):
        SubjectIndex(["a", "a"], ["v", "v"], np.stack([make_vector(0), make_vector(1)]))
    with pytest.raises(ValueError, match="2 ids, but 1"):
        find_near_duplicates(["a", "b"], make_vector(0)[None])
    with pytest.raises(ValueError, match="3 numbers"):
        SubjectIndex(["a"], ["v"], make_vector(0)[None]).find_nearest(np.ones((1, 3), np.float32), [None])
