"""The backends that need no download, on scenes whose truth the test makes itself."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from curation.imaging.codec import RGB, compute_box_iou, compute_luma
from curation.models.classical.colours import find_colour_terms
from curation.models.classical.detector import ClassicalDetector
from curation.models.classical.faces import ClassicalFaces
from curation.models.classical.inpainter import ClassicalInpainter
from curation.models.classical.matching import compute_marginals
from curation.models.classical.segmenter import ClassicalSegmenter
from curation.models.classical.variator import ClassicalVariator
from curation.models.roles import Detection, DetectionScene, Phrase
from curation.rows.thresholds import Thresholds
from curation.video.motion import measure_motion

Mask = NDArray[np.bool_]

DT_S = 0.15
HEIGHT, WIDTH = 360, 640
RED, BLUE = (205, 30, 35), (35, 60, 200)


def ground() -> RGB:
    """Gravel, 512 px repeated and mirrored to (HEIGHT + 80, WIDTH + 80), low in contrast."""
    tile = skimage.data.gravel()
    row = np.concatenate([tile, tile[:, ::-1]], axis=1)[: HEIGHT + 80, : WIDTH + 80]
    return np.repeat((row[..., None] * 0.5 + 70).astype(np.uint8), 3, axis=2)


def disc(centre: tuple[int, int], radius: int) -> Mask:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.asarray((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < radius**2)


def paint(image: RGB, mask: Mask, colour: tuple[int, int, int], seed: int = 0) -> RGB:
    """`colour` with some texture, so that movement can be seen."""
    white = np.random.default_rng(seed).normal(0, 28, mask.shape)
    noise = np.asarray(cv2.GaussianBlur(white, (0, 0), 1.2))[..., None]
    painted = image.copy()
    painted[mask] = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)[mask]
    return painted


def reduce_luma(image: RGB) -> NDArray[np.uint8]:
    size = (256, round(256 * image.shape[0] / image.shape[1]))
    return np.asarray(cv2.resize(compute_luma(image), size, interpolation=cv2.INTER_AREA), np.uint8)


def scene(before: RGB, now: RGB) -> DetectionScene:
    return DetectionScene(now, measure_motion(reduce_luma(before), reduce_luma(now), DT_S).residual)


def moving_discs(
    specs: list[tuple[tuple[int, int], int, tuple[int, int, int], int]],
) -> tuple[DetectionScene, list[Mask]]:
    """Discs (centre, radius, colour, pixels moved to the right) on gravel that stays."""
    plain = ground()[:HEIGHT, :WIDTH]
    before, now, masks = plain, plain, []
    for seed, ((x, y), radius, colour, step) in enumerate(specs):
        masks.append(disc((x, y), radius))
        now = paint(now, masks[-1], colour, seed)
        shifted = np.roll(now, -step, axis=1)
        before = np.where(disc((x - step, y), radius)[..., None], shifted, before).astype(np.uint8)
    return scene(before, now), masks


def box_of(mask: Mask) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def thing(text: str, count: int | None = 1, group: str = "sport", category: str = "ball") -> Phrase:
    return Phrase(text, category, group, count)


def select_passing(detections: list[Detection]) -> list[Detection]:
    """Those that the default thresholds would keep."""
    limits = Thresholds()
    assert limits.grounding_min is not None and limits.label_min is not None
    floor, sure = limits.grounding_min, limits.label_min
    return [each for each in detections if each.score >= floor and each.label >= sure]


# ---- motion ---------------------------------------------------------------------------------------------


def test_residual_motion_is_what_the_camera_does_not_explain() -> None:
    wide, patch = ground(), skimage.data.chelsea()[60:160, 120:240]
    before = wide[40 : 40 + HEIGHT, 40 : 40 + WIDTH].copy()
    now = wide[40 : 40 + HEIGHT, 46 : 46 + WIDTH].copy()  # the camera pans by 6 px
    before[100:200, 200:320] = patch
    now[100:200, 212:332] = patch  # moves 12 px in the frame, 18 px against the ground
    motion = measure_motion(reduce_luma(before), reduce_luma(now), DT_S)
    diagonal = np.hypot(HEIGHT, WIDTH)
    assert motion.camera == pytest.approx(6 / diagonal / DT_S, rel=0.1)
    inside = motion.residual[44:76, 90:128]
    assert np.median(inside) == pytest.approx(18 / diagonal / DT_S, rel=0.15)
    outside = motion.residual.copy()
    outside[30:90, 65:145] = 0
    assert np.percentile(outside, 99) < 0.1 * np.median(inside)


def test_nothing_moves_in_a_still_picture_or_in_the_dark() -> None:
    grey = reduce_luma(ground())
    assert measure_motion(grey, grey, DT_S).residual.max() == 0
    black = np.zeros_like(grey)
    assert measure_motion(black, black, DT_S).camera == 0


def test_motion_comes_back_in_the_size_it_was_given() -> None:
    large = compute_luma(ground())
    assert measure_motion(large, large, DT_S).residual.shape == large.shape


def test_motion_needs_time_and_equal_shapes() -> None:
    grey = reduce_luma(ground())
    with pytest.raises(ValueError, match="apart in time"):
        measure_motion(grey, grey, 0)
    with pytest.raises(ValueError, match="one shape"):
        measure_motion(grey, grey[:-1], DT_S)


# ---- phrases and regions --------------------------------------------------------------------------------


def test_colour_words_become_basic_terms() -> None:
    assert find_colour_terms("brown and white dog") == ["brown", "white"]
    assert find_colour_terms("Gray cat") == ["grey"]
    assert find_colour_terms("colored pencil") == []


def test_marginals_agree_with_counting_every_assignment() -> None:
    weights = np.random.default_rng(3).uniform(0.05, 2, (3, 4))
    absent = 0.2
    total, expected = 0.0, np.zeros((3, 4))
    for choice in itertools.product(range(-1, 4), repeat=3):
        taken = [region for region in choice if region >= 0]
        if len(set(taken)) < len(taken):
            continue
        product = np.prod([absent if r < 0 else weights[s, r] for s, r in enumerate(choice)])
        total += product
        for slot, region in enumerate(choice):
            if region >= 0:
                expected[slot, region] += product
    np.testing.assert_allclose(compute_marginals(weights, absent), expected / total)


# ---- detector -------------------------------------------------------------------------------------------


def test_colour_words_distinguish_two_balls() -> None:
    found, masks = moving_discs([((170, 180), 60, RED, 10), ((460, 170), 60, BLUE, 10)])
    phrases = [thing("blue ball"), thing("red ball")]
    kept = select_passing(ClassicalDetector().detect([found], [phrases])[0])
    assert {each.phrase for each in kept} == {0, 1}
    for each in kept:
        assert compute_box_iou(each.box, box_of(masks[1 - each.phrase])) > 0.8


def test_candidates_that_cannot_be_distinguished_get_a_low_score() -> None:
    found, _ = moving_discs([((170, 180), 60, RED, 10), ((460, 170), 60, RED, 10)])
    phrases = [
        thing("drum", group="instrument", category="drum"),
        thing("cake", group="food", category="cake"),
    ]
    detections = ClassicalDetector().detect([found], [phrases])[0]
    assert detections and not select_passing(detections)


def test_a_number_gives_the_same_number_of_boxes() -> None:
    found, masks = moving_discs([((120 + 200 * i, 180), 55, RED, 9) for i in range(3)])
    cups = thing("red cups", 3, "kitchenware", "cup")
    kept = select_passing(ClassicalDetector().detect([found], [[cups]])[0])
    assert len(kept) == 3
    for mask in masks:
        assert max(compute_box_iou(each.box, box_of(mask)) for each in kept) > 0.8


def test_an_absent_subject_is_not_found() -> None:
    plain = ground()[:HEIGHT, :WIDTH]
    dog = thing("dog", group="animal", category="dog")
    assert not select_passing(ClassicalDetector().detect([scene(plain, plain)], [[dog]])[0])
    panned = ground()[8 : 8 + HEIGHT, 8 : 8 + WIDTH]
    assert not select_passing(ClassicalDetector().detect([scene(plain, panned)], [[dog]])[0])


def test_a_ball_is_no_animal() -> None:
    found, _ = moving_discs([((300, 180), 70, RED, 10)])
    dog = thing("dog", group="animal", category="dog")
    assert not select_passing(ClassicalDetector().detect([found], [[dog]])[0])


def test_a_face_makes_a_person() -> None:
    person = Phrase("woman", "woman", "human", 1)
    dog = Phrase("dog", "dog", "animal", 1)
    image = skimage.data.astronaut()
    kept = select_passing(ClassicalDetector().detect([DetectionScene(image)], [[dog, person]])[0])
    assert [each.phrase for each in kept] == [1]
    x0, y0, x1, y1 = kept[0].box
    assert x0 < 200 and x1 > 250 and y0 < 100 and y1 > 300  # head and trunk


def test_backgrounds_and_worn_clothes_are_not_looked_for() -> None:
    found, _ = moving_discs([((300, 180), 70, RED, 10)])
    phrases = [
        thing("red sky", group="background", category="sky"),
        thing("red shirt", group="clothing", category="shirt"),
        thing("horse", group="animal", category="horse"),
    ]
    assert all(each.phrase == 2 for each in ClassicalDetector().detect([found], [phrases])[0])


def test_detection_is_deterministic() -> None:
    found, _ = moving_discs([((170, 180), 60, RED, 10), ((460, 170), 60, BLUE, 10)])
    first = ClassicalDetector().detect([found], [[thing("ball")]])
    cv2.setRNGSeed(12345)
    assert ClassicalDetector().detect([found], [[thing("ball")]]) == first


# ---- segmenter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [RED, BLUE])
def test_a_mask_follows_its_subject(colour: tuple[int, int, int]) -> None:
    mask = disc((300, 170), 90)
    mask[170:, :300] = False  # three quarters of a disc: not convex
    image = paint(ground()[:HEIGHT, :WIDTH], mask, colour)
    result = ClassicalSegmenter().segment([image], [[box_of(mask)]])[0]
    overlap = (result.masks[0] & mask).sum() / (result.masks[0] | mask).sum()
    assert overlap > 0.93
    assert result.scores[0] > 0.7


def test_a_box_on_nothing_separates_badly() -> None:
    result = ClassicalSegmenter().segment([ground()[:HEIGHT, :WIDTH]], [[[200, 100, 400, 250]]])[0]
    assert result.scores[0] < 0.3


# ---- faces ----------------------------------------------------------------------------------------------


def test_the_astronaut_has_one_face_and_looks_at_us() -> None:
    faces = ClassicalFaces().detect_faces([skimage.data.astronaut()])[0]
    assert len(faces) == 1
    assert compute_box_iou(faces[0].box, [178, 68, 268, 160]) > 0.6
    assert faces[0].score > 0.9
    assert faces[0].frontality > 0.8


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_no_face_where_there_is_none(name: str) -> None:
    assert not [
        face for face in ClassicalFaces().detect_faces([getattr(skimage.data, name)()])[0] if face.score > 0.5
    ]


# ---- inpainter ------------------------------------------------------------------------------------------


def test_inpainting_changes_nothing_outside_the_mask() -> None:
    plain = ground()[:HEIGHT, :WIDTH]
    mask = disc((300, 180), 60)
    image = paint(plain, mask, RED)
    filled = ClassicalInpainter().inpaint([image], [mask], [None], [1])[0]
    assert np.array_equal(filled[~mask], image[~mask])
    redness = filled[mask].astype(int)[:, 0] - filled[mask].astype(int)[:, 1]
    assert redness.mean() < 5  # the subject does not bleed into its own place
    again = ClassicalInpainter().inpaint([image], [mask], ["other words"], [1])[0]
    assert np.array_equal(filled, again)


def test_inpainting_nothing_or_everything_gives_the_picture_back() -> None:
    image = ground()[:HEIGHT, :WIDTH]
    for mask in (np.zeros((HEIGHT, WIDTH), bool), np.ones((HEIGHT, WIDTH), bool)):
        assert np.array_equal(ClassicalInpainter().inpaint([image], [mask], [None], [0])[0], image)


# ---- variator -------------------------------------------------------------------------------------------


def subject() -> NDArray[np.uint8]:
    """A red three-quarter disc that touches all sides of its picture, transparent elsewhere."""
    mask = disc((300, 170), 90)
    mask[170:, :300] = False
    rgba = np.dstack([paint(ground()[:HEIGHT, :WIDTH], mask, RED), mask * np.uint8(255)])
    return np.ascontiguousarray(rgba[81:260, 211:390]).astype(np.uint8)


def test_variation_depends_only_on_the_seed() -> None:
    first, second, third = ClassicalVariator().vary([subject()] * 3, [None, "words", None], [7, 7, 8])
    assert np.array_equal(first, second)
    assert first.shape != third.shape or not np.array_equal(first, third)


@pytest.mark.parametrize("seed", range(6))
def test_variation_cuts_nothing_off_and_keeps_the_colour(seed: int) -> None:
    original = subject()
    varied = ClassicalVariator().vary([original], [None], [seed])[0]
    border = np.concatenate([varied[0], varied[-1], varied[:, 0], varied[:, -1]])
    assert border[:, 3].max() == 0
    shares = (varied[..., 3] > 127).sum() / (original[..., 3] > 127).sum()
    assert 0.6 < shares < 1.4
    solid = varied[varied[..., 3] > 250][:, :3].astype(int)
    rim = varied[(varied[..., 3] > 20) & (varied[..., 3] < 200)][:, :3].astype(int)
    assert (solid[:, 0] > solid[:, 1] + 40).mean() > 0.95
    assert (rim[:, 0] > rim[:, 1] + 40).mean() > 0.9  # no dark or grey fringe
