"""What is measured of a subject, against pictures made to have it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from curation.filters.category import measure_category
from curation.filters.faces import measure_faces, select_own_faces
from curation.filters.geometry import measure_area_share, measure_border_share, measure_overlaps
from curation.filters.quality import SHARPNESS_SIDE, measure_brightness, measure_sharpness
from curation.imaging.codec import RGB, BoolMask
from curation.models.roles import Face

WIDTH, HEIGHT = 1280, 720


def box_mask(x0: int, y0: int, x1: int, y1: int, width: int = 100, height: int = 100) -> BoolMask:
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def place_photo(photo: RGB, side: int) -> tuple[RGB, BoolMask]:
    """A photograph, `side` px large, in the middle of an empty frame."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    shown = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
    top, left = (HEIGHT - side) // 2, (WIDTH - side) // 2
    frame[top : top + side, left : left + side] = shown
    return frame, box_mask(left, top, left + side, top + side, WIDTH, HEIGHT)


PHOTOS = {"astronaut": skimage.data.astronaut(), "cat": skimage.data.cat()[:300, 75:375]}


@pytest.mark.parametrize("name", PHOTOS)
def test_sharpness_does_not_depend_on_how_large_the_photograph_appears(name: str) -> None:
    photo = cv2.resize(PHOTOS[name], (700, 700), interpolation=cv2.INTER_CUBIC)
    measured = [measure_sharpness(*place_photo(photo, side)) for side in (160, 200, 256, 300, 384, 512, 700)]
    assert max(measured) / min(measured) < 1.25, measured
    tiny = measure_sharpness(*place_photo(photo, 100))
    assert 0.6 < tiny / max(measured) < 1, "what is too small has lost detail for good"


@pytest.mark.parametrize("name", PHOTOS)
def test_nor_does_it_once_the_photograph_is_blurred(name: str) -> None:
    photo = cv2.resize(PHOTOS[name], (700, 700), interpolation=cv2.INTER_CUBIC)
    for blur in (0.004, 0.008, 0.016):
        measured = []
        for side in (160, 320, 640):
            image, mask = place_photo(photo, side)
            measured.append(measure_sharpness(cv2.GaussianBlur(image, (0, 0), blur * side), mask))
        assert max(measured) / min(measured) < 1.25, (blur, measured)


def test_blur_lowers_sharpness_monotonically() -> None:
    photo = PHOTOS["astronaut"]
    for side in (160, 512):
        measured = [measure_sharpness(*place_photo(photo, side))]
        for sigma in (0.5, 1, 2, 4, 8):
            image, mask = place_photo(photo, side)
            measured.append(measure_sharpness(cv2.GaussianBlur(image, (0, 0), sigma * side / 256), mask))
        assert measured == sorted(measured, reverse=True)
        assert measured[0] > 40 > measured[-2], "the default threshold is between sharp and blurred"


def test_sharpness_is_that_of_the_subject_and_not_of_what_is_around_it() -> None:
    image, mask = place_photo(cv2.GaussianBlur(PHOTOS["astronaut"], (0, 0), 6), 400)
    before = measure_sharpness(image, mask)
    noisy = image.copy()
    noisy[~mask] = np.random.default_rng(0).integers(0, 256, (int((~mask).sum()), 3))
    assert measure_sharpness(noisy, mask) == pytest.approx(before, rel=0.05), (
        "nor of the edge between the two"
    )


def test_tiny_and_empty_masks_have_a_sharpness() -> None:
    image, _ = place_photo(PHOTOS["cat"], 300)
    assert measure_sharpness(image, box_mask(600, 300, 603, 303, WIDTH, HEIGHT)) >= 0
    assert measure_sharpness(image, np.zeros((HEIGHT, WIDTH), bool)) == 0
    assert SHARPNESS_SIDE == 256, "thresholds are tuned to it"


def test_brightness_is_that_of_the_mask_and_not_of_the_frame() -> None:
    image = np.full((100, 100, 3), 255, np.uint8)
    mask = box_mask(10, 10, 30, 30)
    image[mask] = 50
    assert measure_brightness(image, mask) == (50, 0)
    assert measure_brightness(image, ~mask) == (255, 1), "and all of it is clipped"
    assert measure_brightness(image, np.zeros_like(mask)) == (0, 1)


def test_clipped_pixels_are_those_without_detail_at_either_end() -> None:
    image = np.full((10, 10, 3), 128, np.uint8)
    image[:2], image[2:5] = 0, 255
    assert measure_brightness(image, np.ones((10, 10), bool))[1] == 0.5


def test_shares_of_area_and_border() -> None:
    mask = box_mask(0, 0, 50, 100)
    assert measure_area_share(mask) == 0.5
    assert measure_border_share(mask) == pytest.approx(0.5)
    assert measure_border_share(box_mask(1, 1, 99, 99)) == 0
    assert measure_border_share(np.ones((100, 100), bool)) == 1
    assert measure_border_share(box_mask(40, 90, 60, 100)) == pytest.approx(20 / 396)


def test_of_two_that_overlap_the_larger_stays() -> None:
    large, small = box_mask(0, 0, 50, 50), box_mask(0, 0, 50, 40)
    for masks in ([large, small], [small, large]):
        found = dict(
            zip(
                ("large", "small") if masks[0] is large else ("small", "large"),
                measure_overlaps(masks),
                strict=True,
            )
        )
        assert found["large"] == (0, 0)
        assert found["small"] == (0.8, 1.0)


def test_of_two_equals_the_earlier_stays() -> None:
    mask = box_mask(0, 0, 50, 50)
    assert measure_overlaps([mask, mask.copy()]) == [(0, 0), (1, 1)]


def test_containment_shows_a_part_that_iou_does_not() -> None:
    whole, wheel = box_mask(0, 0, 80, 80), box_mask(10, 60, 30, 80)
    iou, contained = measure_overlaps([whole, wheel])[1]
    assert iou < 0.1
    assert contained == 1


def test_neighbours_and_empty_masks_do_not_overlap() -> None:
    masks = [box_mask(0, 0, 50, 50), box_mask(50, 0, 100, 40), np.zeros((100, 100), bool)]
    assert measure_overlaps(masks) == [(0, 0)] * 3
    assert measure_overlaps([]) == []


def test_category_is_its_own_probability_and_the_lead_over_the_best_other() -> None:
    probabilities = np.array([0.5, 0.3, 0.2], np.float32)
    scores = measure_category(probabilities, ["cat", "dog", "cup"], "dog")
    assert scores == pytest.approx({"clip_category": 0.3, "clip_margin": -0.2})
    assert measure_category(np.ones(1, np.float32), ["cat"], "cat") == {"clip_category": 1, "clip_margin": 1}
    with pytest.raises(ValueError, match="not in list"):
        measure_category(probabilities, ["cat", "dog", "cup"], "car")


def test_the_largest_face_speaks_for_the_subject() -> None:
    small, large = Face([0, 0, 10, 10], 0.99, 0.1), Face([20, 20, 40, 60], 0.6, 0.8)
    scores = measure_faces([small, large], 100, 80)
    assert scores == pytest.approx(
        {"face_count": 2, "face_share": 0.1, "face_score": 0.6, "face_frontality": 0.8}
    )
    assert measure_faces([], 100, 80) == {"face_count": 0}


def test_a_pattern_that_is_hardly_a_face_is_none_beside_a_sure_one() -> None:
    face, badge = Face([20, 20, 40, 40], 1.0, 0.9), Face([10, 60, 60, 110], 0.58, 1.0)
    assert measure_faces([face, badge], 100, 120) == measure_faces([face], 100, 120)
    assert measure_faces([badge], 100, 120)["face_count"] == 1, "the only one speaks for itself"
    assert measure_faces([face, Face([60, 20, 80, 40], 0.8, 0.9)], 100, 120)["face_count"] == 2


def test_a_face_beside_the_subject_does_not_count() -> None:
    mask = box_mask(0, 0, 50, 100)
    own, other, edge = (Face([x, 10, x + 20, 30], 0.9, 0.9) for x in (20, 70, 40))
    assert select_own_faces([own, other, edge], mask) == [own, edge]
