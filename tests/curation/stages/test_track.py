"""A subject is followed through its clip, and pictures of it are taken where it is seen best."""

from __future__ import annotations

import copy
from typing import Any

import cv2
import numpy as np
import pytest

from curation.filters.geometry import measure_cut_share
from curation.imaging.codec import RGB, decode_image, decode_mask, encode_mask, get_mask_box
from curation.models import registry
from curation.models.roles import Segmentation
from curation.rows.references import find_box, find_mask
from curation.rows.schema import CLIPS, ClipRow
from curation.rows.tables import build_table
from curation.runner.graph import build_stage
from curation.stages.plates import choose_background_frame
from curation.stages.stage import run_stage
from tests.curation.clips import COLOURS, HEIGHT, HERE, WIDTH, Blob, clip, config, disc, picture

TRACKER = f"models.tracker={HERE}:ColourTracker"
BLUE: Blob = ("blue", 0.8, 0.5, 0.15)
# A red ball comes in at the left edge, grows, and leaves: whole and largest in the fourth frame.
BALLS: list[Blob] = [
    ("red", 0.0, 0.5, 0.2),
    ("red", 0.15, 0.5, 0.2),
    ("red", 0.3, 0.5, 0.25),
    ("red", 0.4, 0.5, 0.35),
    ("red", 0.5, 0.9, 0.3),
    ("red", 0.5, 1.4, 0.3),
]


def rolling(*further: Blob) -> ClipRow:
    images = [picture(ball, *further, seed=number) for number, ball in enumerate(BALLS)]
    caption = "A red ball rolls by a blue ball." if further else "A red ball rolls by."
    return clip(caption=caption, images=images)


def run_stages(row: ClipRow, settings: Any, *names: str) -> ClipRow:
    for name in names:
        (row,) = run_stage(build_stage(name, settings), [row], {})
        assert row["stop"] is None or row["stop"]["stage"] == "filter", row["stop"]
    return row


def draw_lying_bar(image: RGB) -> RGB:
    """The same scene with a horizontal red bar in place of the balls."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, (WIDTH // 2, HEIGHT // 2), (110, 40), 0, 0, 360, 1, -1)
    bar = image.copy()
    noise = np.random.default_rng(5).normal(0, 22, (int(mask.sum()), 1))
    bar[mask.astype(bool)] = np.clip(np.array(COLOURS["red"]) + noise, 0, 255).astype(np.uint8)
    return bar


def test_the_best_frame_takes_the_place_of_the_first() -> None:
    settings = config(TRACKER, "ground.frames=1")
    row = rolling()
    found = run_stages(copy.deepcopy(row), settings, "match", "ground")["subjects"][0]
    # The detector looked at one frame, in the middle; whichever it looks at, the track covers all.
    row = run_stages(row, settings, "match", "ground", "track")
    (subject,) = row["subjects"]
    assert (subject["found_index"], subject["found_box"]) == (found["frame_index"], found["box"])
    assert subject["frame_index"] == 15 and subject["found_index"] == 15
    first = run_stages(rolling(), config(TRACKER, "ground.frames=16"), "match", "ground")
    first["subjects"][0]["frame_index"] = first["subjects"][0]["found_index"] = 5
    first["subjects"][0]["found_box"] = first["subjects"][0]["box"] = get_mask_box(disc(BALLS[1]))
    (moved,) = run_stages(first, settings, "track")["subjects"]
    assert (moved["found_index"], moved["frame_index"]) == (5, 15)
    assert moved["box"] == pytest.approx(get_mask_box(disc(BALLS[3])), abs=2)
    assert moved["track"] == subject["track"], "where it was found first does not matter"


def test_a_track_has_a_position_in_every_sampled_frame() -> None:
    (subject,) = run_stages(rolling(), config(TRACKER), "match", "ground", "track")["subjects"]
    track = subject["track"]
    assert track is not None and [point["index"] for point in track] == [0, 5, 10, 15, 20, 25]
    for point, ball in zip(track, BALLS, strict=True):
        truth = disc(ball)
        if not truth.any():
            assert point["mask"] is point["box"] is None and point["presence"] < 0.5
            continue
        assert point["mask"] is not None and point["presence"] > 0.5
        mask = decode_mask(point["mask"])
        assert (mask & truth).sum() / (mask | truth).sum() > 0.9
        assert point["box"] == get_mask_box(mask)
    assert subject["scores"]["visible_share"] == pytest.approx(5 / 6)
    assert subject["made_by"] is not None and "colour-tracker@1" in subject["made_by"]


def test_what_is_measured_later_is_measured_in_the_best_frame() -> None:
    row = run_stages(rolling(), config(TRACKER, "ground.frames=1"), "match", "ground", "track", "segment")
    (subject,) = row["subjects"]
    assert subject["mask"] is not None
    assert subject["scores"]["area_share"] == pytest.approx(disc(BALLS[3]).mean(), rel=0.1)
    row = run_stages(row, config(TRACKER, "filter.sharpness_min=null"), "filter", "crop")
    assert row["status"] == "kept"
    crops = [each for each in row["subjects"][0]["references"] if each["variant"] == "crop"]
    assert crops[0]["frame_index"] == 15 and crops[0]["reference_id"].endswith("-crop0")


def poses(*overrides: str) -> ClipRow:
    """A ball that turns into a bar lying down: two poses, each in two frames."""
    ball = [picture(("red", 0.5, 0.5, 0.3), seed=number) for number in range(2)]
    images = [*ball, *(draw_lying_bar(picture(seed=number)) for number in range(2, 4))]
    settings = config(TRACKER, "filter.sharpness_min=null", "track.min_quality=0.3", *overrides)
    row = clip(images=images)
    return run_stages(row, settings, "match", "ground", "track", "segment", "filter", "crop")


def test_further_pictures_differ_in_pose_and_their_frames_are_kept() -> None:
    row = poses("track.references=4")
    (subject,) = row["subjects"]
    frames = subject["reference_frames"]
    assert frames is not None and len(frames) == 2, "two poses, not four frames"
    assert {frame["index"] >= 10 for frame in frames} == {True, False}
    assert frames[0]["difference"] == 0 < frames[1]["difference"]
    assert {frame["index"] for frame in frames} == {frame["index"] for frame in row["frames"]}
    for variant in ("crop", "segment"):
        made = [each for each in subject["references"] if each["variant"] == variant]
        assert [each["frame_index"] for each in made] == [frame["index"] for frame in frames]
        shapes = [decode_image(each["image"]).shape for each in made]
        assert len(set(shapes)) == 2
    assert build_table([row], CLIPS).num_rows == 1


def test_a_single_picture_is_the_best_one() -> None:
    row = poses("track.references=1")
    (subject,) = row["subjects"]
    assert subject["reference_frames"] is not None and len(subject["reference_frames"]) == 1
    assert sorted(each["variant"] for each in subject["references"]) == ["crop", "segment"]


def test_a_picture_that_is_too_different_from_the_first_is_rejected_with_its_similarity() -> None:
    row = poses(f"models.embedder={HERE}:ShapeEmbedder", "filter.identity_min=0.9")
    (subject,) = row["subjects"]
    frames = subject["reference_frames"]
    assert frames is not None and frames[0]["identity"] == pytest.approx(1) and frames[1]["identity"] < 0.9
    made = {each["reference_id"][-5:]: each for each in subject["references"] if each["variant"] == "crop"}
    assert made["crop0"]["kept"]
    assert (made["crop1"]["kept"], made["crop1"]["reason"]) == (False, "identity_min")
    assert made["crop1"]["identity"] == frames[1]["identity"]


def test_following_again_changes_nothing() -> None:
    settings = config(TRACKER)
    once = run_stages(rolling(BLUE), settings, "match", "ground", "track")
    assert run_stages(copy.deepcopy(once), settings, "track") == once


def test_without_a_tracker_a_subject_stays_where_it_was_found() -> None:
    grounded = run_stages(rolling(), config(), "match", "ground")
    assert run_stages(copy.deepcopy(grounded), config(), "track") == grounded
    (subject,) = grounded["subjects"]
    assert subject["track"] is None and subject["reference_frames"] is None
    off = config(TRACKER, "track.enabled=false")
    assert registry.get_model_spec(off, "tracker") is None
    tracked = run_stages(copy.deepcopy(grounded), config(TRACKER), "track")
    assert run_stages(tracked, off, "track")["subjects"][0]["track"] is None, (
        "an old track is not left behind"
    )


def test_a_subject_that_is_lost_at_once_stays_where_it_was_found() -> None:
    settings = config(f"models.tracker={HERE}:LostTracker")
    grounded = run_stages(rolling(), settings, "match", "ground")
    (before,) = copy.deepcopy(grounded["subjects"])
    (subject,) = run_stages(grounded, settings, "track", "segment")["subjects"]
    assert (subject["frame_index"], subject["box"]) == (before["frame_index"], before["box"])
    assert subject["scores"]["visible_share"] == 0 and subject["reference_frames"] is None
    assert subject["mask"] is not None


class Whole:
    """The same mask for every box: each subject is a copy of the other."""

    name, revision = "whole", "1"

    def segment(self, images: Any, boxes: Any) -> list[Segmentation]:
        return [
            Segmentation([disc(BALLS[3])] * len(image_boxes), [0.9] * len(image_boxes))
            for image_boxes in boxes
        ]


def test_overlap_counts_those_whose_best_frame_is_another() -> None:
    row = run_stages(rolling(BLUE), config(TRACKER), "match", "ground", "track")
    red, blue = row["subjects"]
    larger = encode_mask(disc(("blue", 0.4, 0.5, 0.4)))
    blue["frame_index"], blue["mask"] = 20, None
    assert blue["track"] is not None
    blue["track"][3]["mask"] = larger  # as the tracker saw it in the frame that the red one is taken from
    settings = config(TRACKER, f"models.segmenter={__name__}:Whole")
    row = run_stages(row, settings, "segment")
    red, blue = row["subjects"]
    ball, other = disc(BALLS[3]), disc(("blue", 0.4, 0.5, 0.4))
    assert red["scores"]["overlap_iou"] == pytest.approx((ball & other).sum() / (ball | other).sum())


def test_a_background_needs_one_frame_in_which_all_subjects_are_known() -> None:
    settings = config(TRACKER, "filter.sharpness_min=null")
    row = run_stages(rolling(BLUE), settings, "match", "ground", "track", "segment", "filter")
    red, blue = row["subjects"]
    assert row["status"] == "kept"
    assert red["frame_index"] is not None and blue["frame_index"] is not None
    assert find_box(blue, red["frame_index"]) is not None and find_mask(blue, red["frame_index"]) is not None
    blue["frame_index"] = 25
    assert choose_background_frame(row) == red["frame_index"]
    for subject in (red, blue):
        subject["track"] = None
    assert choose_background_frame(row) is None, "it is not known where the other one is in that frame"


def test_the_share_of_an_outline_that_the_frame_cuts() -> None:
    mask = np.zeros((20, 30), bool)
    assert measure_cut_share(mask) == 0
    mask[5:10, 5:10] = True
    assert measure_cut_share(mask) == 0
    mask[:] = False
    mask[5:10, 0:5] = True
    assert measure_cut_share(mask) == pytest.approx(5 / 16)
    assert measure_cut_share(np.ones((4, 4), bool)) == 1
