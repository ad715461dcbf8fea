"""Subjects on backgrounds of other videos: the choice, the placement, and the rest of their surroundings."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest

from curation.config import load_config
from curation.imaging.codec import decode_image, encode_image
from curation.models.classical.inpainter import ClassicalInpainter
from curation.rows.lifecycle import stop_row
from curation.rows.schema import CLIPS, ClipRow
from curation.rows.tables import build_table
from curation.runner.plates import build_plate_pool
from curation.stages.crosspair import Crosspair
from curation.stages.plates import (
    Plate,
    can_give_plate,
    choose_background_frame,
    choose_plate_clips,
    collect_plates,
    make_plate,
)
from curation.stages.stage import run_stage
from reprise.storage import Storage
from tests.curation.clips import clip, disc, find_colour, kept_clip, picture, subject

SUBJECTS = 400
THINGS = [
    "dog park",
    "cat sofa",
    "boat harbour",
    "train bridge",
    "horse meadow",
    "cup kitchen",
    "robot hangar",
]


def plate(number: int, caption: str | None = None, video: int | None = None) -> Plate:
    """A tiny plate of clip `number`, which is of another video and about another thing than any subject's."""
    image = np.full((36, 64, 3), 40 + number % 160, np.uint8)
    text = caption or f"{THINGS[number % len(THINGS)]} {number}"
    return Plate(
        f"clip-{number:04d}", f"video-{video if video is not None else number}", text, encode_image(image)
    )


POOL = [plate(number) for number in range(20)]


def subjects(count: int = SUBJECTS) -> list[ClipRow]:
    """Kept clips, small ones: only ids differ."""
    row = kept_clip(0)
    rows = []
    for number in range(count):
        each = copy.deepcopy(row)
        each["clip_id"], each["video_id"] = f"{number:020x}-x", f"{number:020x}"
        each["subjects"][0]["subject_id"] = f"{each['clip_id']}-s0000000000"
        rows.append(each)
    return rows


def donors(rows: list[ClipRow]) -> dict[str, str | None]:
    """Subject -> the clip its background comes from, of those that have one."""
    return {
        each["subject_id"]: reference["donor_clip_id"]
        for row in rows
        for each in row["subjects"]
        for reference in each["references"]
        if reference["variant"] == "crosspair"
    }


@pytest.fixture(scope="module")
def paired() -> dict[str, str | None]:
    return donors(run_stage(Crosspair(load_config(), POOL), subjects(), {}))


# ---- which subject, which plate --------------------------------------------------------------------------


def test_the_share_is_the_configured_one(paired: dict[str, str | None]) -> None:
    # Four standard deviations of a binomial draw.
    assert abs(len(paired) - 0.4 * SUBJECTS) < 4 * (SUBJECTS * 0.4 * 0.6) ** 0.5


def test_the_share_can_be_all_or_none() -> None:
    assert (
        len(donors(run_stage(Crosspair(load_config(None, ["crosspair.share=1"]), POOL), subjects(20), {})))
        == 20
    )
    assert (
        donors(run_stage(Crosspair(load_config(None, ["crosspair.share=0"]), POOL), subjects(20), {})) == {}
    )


def test_a_larger_share_keeps_the_subjects_of_a_smaller_one(paired: dict[str, str | None]) -> None:
    stage = Crosspair(load_config(None, ["crosspair.share=0.6"]), POOL)
    drawn = {row["subjects"][0]["subject_id"] for row in subjects() if stage.is_drawn(row["subjects"][0])}
    assert set(paired) < drawn


def test_neither_order_nor_batches_nor_the_pools_order_matter(paired: dict[str, str | None]) -> None:
    shuffled = subjects()
    random.Random(1).shuffle(shuffled)
    stage = Crosspair(load_config(), random.Random(2).sample(POOL, len(POOL)))
    rows: list[ClipRow] = []
    for start in range(0, SUBJECTS, 7):
        rows += run_stage(stage, shuffled[start : start + 7], {})
    assert donors(rows) == paired


def test_the_same_input_gives_the_same_pictures_and_another_seed_others() -> None:
    first, second = (run_stage(Crosspair(load_config(), POOL), subjects(10), {}) for _ in range(2))
    assert first == second
    other = donors(run_stage(Crosspair(load_config(None, ["seed=1"]), POOL), subjects(100), {}))
    assert other != donors(run_stage(Crosspair(load_config(), POOL), subjects(100), {}))


def test_one_more_plate_changes_only_the_subjects_that_take_it(paired: dict[str, str | None]) -> None:
    more = donors(run_stage(Crosspair(load_config(), [*POOL, plate(500)]), subjects(), {}))
    changed = {each for each in paired if more[each] != paired[each]}
    assert all(more[each] == "clip-0500" for each in changed)
    assert 0 < len(changed) < len(paired) / 5


def test_one_more_clip_changes_at_most_one_of_the_pool() -> None:
    clips = [f"clip-{number}" for number in range(500)]
    before = set(choose_plate_clips(clips, 50, 0))
    after = set(choose_plate_clips([*clips, "clip-new"], 50, 0))
    assert len(before) == 50
    assert len(before - after) <= 1
    assert set(choose_plate_clips(reversed(clips), 50, 0)) == before
    assert choose_plate_clips(clips[:3], 50, 0) == sorted(
        clips[:3], key=lambda each: choose_plate_clips(clips, 500, 0).index(each)
    )


def test_plates_are_used_evenly(paired: dict[str, str | None]) -> None:
    used = [list(paired.values()).count(each.clip_id) for each in POOL]
    assert min(used) > 0
    assert max(used) < 4 * len(paired) / len(POOL)


def test_never_the_same_video() -> None:
    rows = subjects(30)
    for row in rows:
        row["video_id"] = "video-3"
    config = load_config(None, ["crosspair.share=1"])
    found = donors(run_stage(Crosspair(config, [plate(3), plate(30, video=3), plate(4)]), rows, {}))
    assert set(found.values()) == {"clip-0004"}
    assert donors(run_stage(Crosspair(config, [plate(3), plate(30, video=3)]), rows, {})) == {}


def test_never_a_related_caption() -> None:
    rows = subjects(30)
    config = load_config(None, ["crosspair.share=1"])
    related = [plate(1, "The red ball rolls."), plate(2, "A RED BALL, and a ball!")]
    assert donors(run_stage(Crosspair(config, related), rows, {})) == {}
    found = donors(
        run_stage(Crosspair(config, [*related, plate(3, "A red barn by the river at dawn.")]), rows, {})
    )
    assert set(found.values()) == {"clip-0003"}


def test_pairing_again_replaces_references_and_does_not_change_rejected_subjects() -> None:
    config = load_config(None, ["crosspair.share=1"])
    once = run_stage(Crosspair(config, POOL), subjects(3), {})
    once[0]["subjects"][0]["verdict"]["kept"] = False  # type: ignore[index]
    again = run_stage(Crosspair(config, POOL), once, {})
    assert again == once


# ---- plates ----------------------------------------------------------------------------------------------


def candidate(number: int = 0) -> ClipRow:
    return kept_clip(number)


def test_a_plate_has_the_subject_painted_out_and_the_rest_untouched() -> None:
    row = candidate()
    made = make_plate(row, ClassicalInpainter(), 0)
    image, before = decode_image(made.image), decode_image(row["frames"][0]["image"])
    assert find_colour(before, "red").mean() > 0.1
    assert find_colour(image, "red").mean() < 0.001
    far = ~disc(("red", 0.5, 0.5, 0.42))
    assert np.abs(image[far].astype(int) - before[far]).mean() < 3
    assert (made.clip_id, made.video_id, made.caption) == (row["clip_id"], row["video_id"], row["caption"])


def test_a_plate_is_no_larger_than_a_reference_needs_to_be() -> None:
    row = candidate()
    row["frames"][0]["image"] = encode_image(picture(size=(1920, 1080)))
    row["subjects"][0]["mask"] = None
    row["subjects"][0]["frame_index"] = None
    assert decode_image(make_plate(row, ClassicalInpainter(), 0).image).shape == (540, 960, 3)


def test_a_clip_whose_caption_names_no_subject_is_a_fine_plate() -> None:
    row = clip(caption="Waves at dusk.")
    stop_row(row, "rejected", "match", "caption names no subject")
    assert can_give_plate(row)


def test_a_subject_that_was_not_searched_for_excludes_its_frame() -> None:
    silent = clip(caption=None)
    stop_row(silent, "rejected", "caption", "no caption")
    failed = candidate()
    stop_row(failed, "failed", "segment", "out of memory")
    unsaid = clip(caption=" ")
    stop_row(unsaid, "rejected", "match", "caption names no subject")
    for row in (silent, failed, unsaid):
        assert not can_give_plate(row), row["stop"]
    unseen = clip()
    assert choose_background_frame(unseen) is None
    assert make_plate(unseen, ClassicalInpainter(), 0).kind == "clip", "in a clip it is meant to stay"


def test_subjects_found_in_different_frames_leave_no_frame_without_one() -> None:
    row = candidate()
    row["frames"] = clip(images=[picture(), picture()])["frames"]
    other = disc(("blue", 0.8, 0.5, 0.1))
    row["subjects"].append(subject(row, other, start=9, index=5))
    assert choose_background_frame(row) is None
    row["subjects"][1]["frame_index"] = 0
    assert choose_background_frame(row) == 0
    row["subjects"][1]["mask"] = None
    assert choose_background_frame(row) is None, "found, but nothing to paint over"


def test_a_frame_that_is_mostly_subject_gives_no_plate() -> None:
    row = candidate()
    row["subjects"][0]["scores"]["area_share"] = 0.5
    assert choose_background_frame(row) is None


def test_an_unreadable_picture_fails_only_its_plate() -> None:
    rows = [candidate(0), candidate(1), clip(2)]
    rows[0]["frames"][0]["image"] = {"bytes": b"no picture", "path": None}
    assert [each.clip_id for each in collect_plates(rows, ClassicalInpainter(), 0)] == [
        rows[1]["clip_id"],
        rows[2]["clip_id"],
    ]


def test_the_pool_is_made_of_a_datasets_own_files(tmp_path: object) -> None:
    storage = Storage.from_uri(str(tmp_path))
    rows = [candidate(number) for number in range(6)]
    for row in rows:
        row["payload_bytes"] = 1
    for part in range(2):
        storage.write_parquet(f"part-{part}.parquet", [build_table(rows[part::2], CLIPS)], CLIPS)
    config = load_config(None, ["crosspair.pool=4"])
    made = build_plate_pool(storage, ["part-0.parquet", "part-1.parquet"], config)
    assert sorted(each.clip_id for each in made) == sorted(
        choose_plate_clips([row["clip_id"] for row in rows], 4, 0)
    )
    assert build_plate_pool(storage, ["part-0.parquet"], load_config(None, ["crosspair.share=0"])) == []
