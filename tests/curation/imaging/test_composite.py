"""Compositing: position, size and light of a subject, without a halo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.imaging.codec import RGB, BoolMask
from curation.imaging.composite import composite_subject, draw_shadow
from curation.imaging.lift import LiftedSubject, estimate_opacity, find_cut_borders, lift_subject
from curation.imaging.light import SceneLight, measure_light, relight_subject
from curation.imaging.placement import choose_height, place_subject
from tests.curation.subjects import BLUE, GREEN, GREY, RED, disc, painted, rectangle, scene

SIZE = (360, 640)


def cut_of(x0: int, y0: int, x1: int, y1: int) -> LiftedSubject:
    """A red rectangle lifted from grey."""
    mask = rectangle(x0, y0, x1, y1)
    return lift_subject(painted(scene(GREY), mask, RED), mask)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_subject_is_cut_off_where_it_runs_into_the_border() -> None:
    assert find_cut_borders(rectangle(20, 20, 60, 60)) == frozenset()
    assert find_cut_borders(rectangle(20, 40, 60, 120)) == {"bottom"}
    assert find_cut_borders(rectangle(0, 40, 60, 120)) == {"left", "bottom"}
    assert find_cut_borders(rectangle(0, 30, 160, 120)) == {"left", "right", "bottom"}
    assert find_cut_borders(rectangle(30, 0, 60, 119)) == {"top", "bottom"}  # a pixel short
    assert find_cut_borders(np.zeros((10, 10), bool)) == frozenset()


def test_a_fingertip_at_the_border_does_not_cut_a_subject_off() -> None:
    mask = rectangle(40, 20, 120, 100)
    mask[60:63, 120:160] = True
    assert find_cut_borders(mask) == frozenset()


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_subject_is_seen_whole(seed: int) -> None:
    spot = place_subject(cut_of(40, 30, 100, 90), SIZE, 0.5, random(seed))
    x0, y0, x1, y1 = spot.box
    assert 0 < x0 < x1 < SIZE[1]
    assert 0 < y0 < y1 < SIZE[0]
    assert spot.window == (0, 0, SIZE[1], SIZE[0])
    assert (x1 - x0) / (y1 - y0) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("seed", range(10))
def test_a_half_length_portrait_is_placed_at_the_bottom_edge(seed: int) -> None:
    spot = place_subject(cut_of(40, 40, 110, 120), SIZE, 0.66, random(seed))
    assert spot.box[3] == SIZE[0]
    assert spot.box[0] > 0
    assert spot.box[2] < SIZE[1]


@pytest.mark.parametrize("seed", range(10))
def test_a_subject_cut_off_at_a_corner_is_placed_in_that_corner(seed: int) -> None:
    left = place_subject(cut_of(0, 40, 70, 120), SIZE, 0.66, random(seed))
    assert (left.box[0], left.box[3]) == (0, SIZE[0])
    right = place_subject(cut_of(90, 0, 160, 80), SIZE, 0.66, random(seed))
    assert (right.box[2], right.box[1]) == (SIZE[1], 0)


@pytest.mark.parametrize("size", [(360, 640), (640, 360), (300, 300)])
def test_a_subject_across_the_whole_frame_keeps_its_frame(size: tuple[int, int]) -> None:
    cut = cut_of(0, 50, 160, 120)
    spot = place_subject(cut, size, 0.5, random())
    x0, y0, x1, y1 = spot.window
    assert 0 <= x0 < x1 <= size[1]
    assert 0 <= y0 < y1 <= size[0]
    assert (x1 - x0) / (y1 - y0) == pytest.approx(cut.aspect, rel=0.02)
    assert (spot.box[0], spot.box[2], spot.box[3]) == (0, x1 - x0, y1 - y0)


@settings(max_examples=60, deadline=None)
@example(box=(0, 0, 159, 8), size=(61, 81), height=1.0, seed=0)
@given(
    box=st.tuples(st.integers(0, 150), st.integers(0, 110), st.integers(8, 160), st.integers(8, 120)),
    size=st.tuples(st.integers(40, 500), st.integers(40, 500)),
    height=st.floats(0.01, 2),
    seed=st.integers(0, 99),
)
def test_every_placement_is_in_its_window(
    box: tuple[int, int, int, int], size: tuple[int, int], height: float, seed: int
) -> None:
    x0, y0, wide, tall = box
    cut = cut_of(x0, y0, min(160, x0 + wide), min(120, y0 + tall))
    spot = place_subject(cut, size, height, random(seed), avoid=[(0.1, 0.1, 0.4, 0.6)])
    left, top, right, bottom = spot.window
    assert 0 <= left < right <= size[1]
    assert 0 <= top < bottom <= size[0]
    assert 0 <= spot.box[0] < spot.box[2] <= right - left
    assert 0 <= spot.box[1] < spot.box[3] <= bottom - top
    for side, touches in (
        ("left", spot.box[0] == 0),
        ("top", spot.box[1] == 0),
        ("right", spot.box[2] == right - left),
        ("bottom", spot.box[3] == bottom - top),
    ):
        assert touches or side not in cut.borders


def test_the_ground_stays_about_where_it_was() -> None:
    for y1 in (70, 100):
        spot = place_subject(cut_of(50, y1 - 40, 90, y1), SIZE, 0.33, random(1))
        assert spot.box[3] / SIZE[0] == pytest.approx(y1 / 120, abs=0.08)


def test_what_should_stay_visible_is_avoided_and_what_was_painted_is_covered() -> None:
    cut = cut_of(50, 50, 90, 100)
    left, right = (0.0, 0.2, 0.45, 1.0), (0.55, 0.2, 1.0, 1.0)
    for seed in range(5):
        free = place_subject(cut, SIZE, 0.4, random(seed), avoid=[left])
        assert free.box[0] > 0.4 * SIZE[1]
        hiding = place_subject(cut, SIZE, 0.4, random(seed), cover=[(0.05, 0.5, 0.2, 0.8)])
        assert hiding.box[0] < 0.2 * SIZE[1]
        both = place_subject(cut, SIZE, 0.4, random(seed), avoid=[right], cover=[(0.3, 0.5, 0.4, 0.8)])
        assert both.box[2] < 0.62 * SIZE[1]


def test_size_follows_the_own_frame_and_bends_towards_the_truth() -> None:
    cup = cut_of(50, 40, 90, 100)  # half of its frame
    own = choose_height(cup, None, None)
    assert own == pytest.approx(0.5)
    assert choose_height(cup, 0.1, None) == own
    beside_a_house = choose_height(cup, 0.1, 10.0)
    on_a_table = choose_height(cup, 0.1, 0.2)
    assert 0.25 < beside_a_house < own
    assert on_a_table == pytest.approx(own)
    portrait = cut_of(50, 40, 90, 120)  # how much of it is not seen is not known
    assert choose_height(portrait, 1.7, 100.0) == pytest.approx(80 / 120)


def test_no_halo_of_the_old_background_remains() -> None:
    """A soft blue disc on green, put on grey: at its edge nothing is green."""
    hard = disc(80, 60, 35)
    share = cv2.GaussianBlur(hard.astype(np.float32), (0, 0), 2.0)[..., None]
    image = (scene(BLUE) * share + scene(GREEN) * (1 - share)).round().astype(np.uint8)
    generous = disc(80, 60, 38)  # the mask takes a ring of green along
    plate = scene(GREY, size=SIZE)
    made = composite_subject(lift_subject(image, generous), plate, random()).astype(int)
    greenish = made[..., 1] - np.maximum(made[..., 0], made[..., 2])
    assert greenish.max() < 12
    naive = plate[:120, :160].copy()
    naive[generous] = image[generous]
    assert (naive[..., 1].astype(int) - np.maximum(naive[..., 0], naive[..., 2])).max() > 60


def test_a_mask_is_believed_where_subject_and_background_look_alike() -> None:
    mask = disc(80, 60, 35)
    assert np.array_equal(estimate_opacity(scene(GREY), mask, 4) > 0.5, mask)
    whole = np.ones((20, 20), bool)
    assert estimate_opacity(scene(GREY, size=(20, 20)), whole, 4).min() == 1


def test_the_inside_of_a_subject_is_its_own() -> None:
    mask = disc(80, 60, 35)
    image = painted(scene(GREEN), mask, RED)
    cut = lift_subject(image, mask)
    deep = disc(80, 60, 25)[26:95, 46:115]
    assert (cut.picture[deep, 3] == 255).all()
    assert np.array_equal(cut.picture[deep, :3], image[26:95, 46:115][deep])


def test_light_is_carried_over_within_bounds() -> None:
    cut = cut_of(50, 40, 90, 100)
    lit = [relight_subject(cut.picture, cut.light, measure_light(scene((v, v, v)))) for v in (20, 128, 240)]
    means = [float(each[20:40, 10:30, :3].mean()) for each in lit]
    assert means[0] < means[1] < means[2]
    for each in lit:
        colour = each[20:40, 10:30, :3].reshape(-1, 3).mean(axis=0)
        assert colour[0] > 2 * max(colour[1], colour[2])  # red remains red
    assert all(np.array_equal(each[..., 3], cut.picture[..., 3]) for each in lit)


def test_equal_lights_change_nothing() -> None:
    cut = cut_of(50, 40, 90, 100)
    same = relight_subject(cut.picture, SceneLight((120, 128, 128), 30), SceneLight((120, 128, 128), 30))
    assert np.abs(same.astype(int) - cut.picture).max() <= 1  # through Lab and back
    nothing = np.zeros((5, 5, 4), np.uint8)
    assert relight_subject(nothing, cut.light, cut.light) is nothing


def test_a_shadow_is_at_the_foot_and_fades() -> None:
    dark = draw_shadow(np.ones((60, 40), np.float32), (100, 100, 140, 160), (200, 300))
    assert dark.shape == (200, 300)
    assert 0.1 < dark[160, 120] <= 0.4
    assert dark[160, 120] > dark[175, 120] >= 0
    assert dark[:90].max() == 0
    assert dark[:, :50].max() == 0


def test_only_a_standing_subject_has_a_shadow() -> None:
    plate = scene((200, 200, 200), size=SIZE)
    cut = cut_of(50, 40, 90, 100)
    plain = composite_subject(cut, plate, random(3))
    shaded = composite_subject(cut, plate, random(3), casts_shadow=True)
    assert shaded.astype(int).sum() < plain.astype(int).sum()
    portrait = cut_of(50, 40, 90, 120)
    assert np.array_equal(
        composite_subject(portrait, plate, random(3)),
        composite_subject(portrait, plate, random(3), casts_shadow=True),
    )


@pytest.mark.parametrize(
    "mask",
    [rectangle(50, 40, 90, 100), rectangle(0, 40, 160, 120), disc(80, 60, 2), rectangle(0, 0, 160, 120)],
)
def test_equal_seeds_give_equal_pictures(mask: BoolMask) -> None:
    cut = lift_subject(painted(scene(GREY), mask, RED), mask)

    def made(seed: int) -> RGB:
        return composite_subject(cut, scene(GREEN, size=SIZE), random(seed), casts_shadow=True)

    assert made(1).dtype == np.uint8
    assert np.array_equal(made(1), made(1))


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        lift_subject(scene(GREY), np.zeros((120, 160), bool))
