"""Which frames of a track become references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.filters.reference_frames import Sighting, choose_frames, measure_pose_difference, rate_sightings


def make_sighting(
    frame: int, width: float = 40, height: float = 80, fill: float = 0.6, **more: object
) -> Sighting:
    box = [10.0, 10.0, 10.0 + width, 10.0 + height]
    return Sighting(frame, box, width * height * fill, **{"sharpness": 100.0, **more})


def make_direction(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def test_the_first_frame_has_no_privilege() -> None:
    entering = make_sighting(0, width=15, border=0.4)
    chosen = choose_frames([entering, make_sighting(5), make_sighting(9, sharpness=30.0)], count=1)
    assert [each.frame for each in chosen] == [5]


def test_blur_the_edge_of_the_frame_and_absence_cost_quality() -> None:
    best = make_sighting(0)
    for worse in (
        replace(best, sharpness=50.0),
        replace(best, border=0.2),
        replace(best, presence=0.5),
        replace(best, area=best.area / 2),
    ):
        first, second = rate_sightings([best, worse])
        assert first > second


def test_the_second_frame_is_another_pose_and_not_the_next_best_picture() -> None:
    sightings = [
        make_sighting(0, embedding=make_direction(0), sharpness=100.0),
        make_sighting(1, embedding=make_direction(2), sharpness=99.0),  # sharp, and the same again
        make_sighting(2, embedding=make_direction(70), sharpness=80.0),
    ]
    assert [each.frame for each in choose_frames(sightings, 3)] == [0, 2]


def test_a_bad_picture_of_another_pose_is_not_taken() -> None:
    sightings = [
        make_sighting(0, embedding=make_direction(0)),
        make_sighting(1, embedding=make_direction(90), sharpness=20.0),
    ]
    assert [each.frame for each in choose_frames(sightings, 2)] == [0]
    assert [each.frame for each in choose_frames(sightings, 2, min_quality=0.1)] == [0, 1]


def test_without_embeddings_the_shape_gives_the_pose_and_the_distance_does_not() -> None:
    near, far, side = make_sighting(0), make_sighting(1, width=20, height=40), make_sighting(2, width=60)
    assert measure_pose_difference(near, far, False) == pytest.approx(0)
    assert measure_pose_difference(near, side, False) == pytest.approx(np.log(1.5))
    assert measure_pose_difference(near, make_sighting(3, fill=0.3), False) == pytest.approx(0.5 * np.log(2))
    moved = replace(near, box=[200.0, 5.0, 240.0, 85.0])
    assert measure_pose_difference(near, moved, False) == pytest.approx(0)


def test_one_missing_embedding_switches_to_shapes_for_all() -> None:
    sightings = [
        make_sighting(0, embedding=make_direction(0)),
        make_sighting(1, embedding=make_direction(90)),
        make_sighting(2, width=60),
    ]
    assert [each.frame for each in choose_frames(sightings, 3)] == [2, 0]


def test_without_a_visible_frame_none_is_chosen() -> None:
    assert choose_frames([], 3) == []
    assert choose_frames([make_sighting(0, fill=0.0)], 3) == []
    assert choose_frames([make_sighting(0)], 0) == []
    assert [each.frame for each in choose_frames([make_sighting(4, sharpness=0.0)], 3)] == [4]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(5, 200), st.floats(5, 200), st.floats(0.1, 1), st.floats(0, 500), st.floats(0, 1)
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_sightings_does_not_matter(drawn, count, random) -> None:
    sightings = [
        make_sighting(index, width, height, fill, sharpness=sharpness, border=border)
        for index, (width, height, fill, sharpness, border) in enumerate(drawn)
    ]
    chosen = choose_frames(sightings, count)
    shuffled = list(sightings)
    random.shuffle(shuffled)
    assert choose_frames(shuffled, count) == chosen
    assert 1 <= len(chosen) <= count and len({each.frame for each in chosen}) == len(chosen)
    assert all(0 <= each.quality <= 1 + 1e-9 for each in chosen)
    assert chosen[0].quality == max(each.quality for each in chosen)
    assert all(each.difference >= 0.05 and each.quality >= 0.5 * chosen[0].quality for each in chosen[1:])
