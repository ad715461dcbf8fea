"""Which clips give plates, of which kind, and which subject gets which of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from curation.config import CurationConfig, load_config
from curation.imaging.codec import RGB, BoolMask, decode_image
from curation.rows.schema import CLIPS, ClipRow, Reference
from curation.rows.tables import build_table
from curation.stages.crosspair import Crosspair, estimate_plate_height
from curation.stages.plates import (
    Plate,
    WholeSubject,
    can_give_plate,
    choose_background_frame,
    choose_clip_frame,
    collect_plates,
    make_plate,
)
from curation.taxonomy import Taxonomy
from tests.curation.subjects import (
    BLUE,
    GREEN,
    GREY,
    RED,
    ball_clip,
    clip_row,
    disc,
    painted,
    rectangle,
    scene,
    subject_row,
)


class Whitewash:
    """Paints white."""

    name, revision, paints_around = "whitewash", "1", False

    def inpaint(
        self,
        images: Sequence[RGB],
        masks: Sequence[BoolMask],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[RGB]:
        found = []
        for image, mask in zip(images, masks, strict=True):
            result = image.copy()
            result[mask] = 255
            found.append(result)
        return found


def config(**crosspair: float) -> CurationConfig:
    return load_config(
        None, [f"crosspair.{key}={value}" for key, value in {"share": 1.0, **crosspair}.items()]
    )


def crosspairs(row: ClipRow) -> list[Reference]:
    found = [each for subject in row["subjects"] for each in subject["references"]]
    return [each for each in found if each["variant"] == "crosspair"]


def meadow(name: str, **known: str) -> ClipRow:
    """A clip whose caption names nothing that was found: a background without painting."""
    return clip_row(name, {5: scene(GREEN)}, [], **{"caption": "A quiet meadow.", **known})


def test_a_background_has_its_subjects_painted_out() -> None:
    row = ball_clip("a")
    plate = make_plate(row, Whitewash(), 0, clip_share=0)
    assert (plate.kind, plate.frame_index, plate.clip_id) == ("background", 0, "a")
    assert (decode_image(plate.image)[disc(80, 70, 28)] > 245).all()
    assert plate.boxes[0] == pytest.approx((51 / 160, 41 / 120, 110 / 160, 100 / 120))
    assert len(plate.boxes) == 1


def test_a_clip_is_taken_as_it_is() -> None:
    plate = make_plate(ball_clip("a"), Whitewash(), 0, clip_share=1)
    assert plate.kind == "clip"
    assert decode_image(plate.image)[70, 80, 0] > 150
    assert len(plate.boxes) == 1


def test_only_subjects_that_are_kept_and_seen_whole_give_a_plate_its_scale() -> None:
    whole, cut_off = rectangle(20, 30, 40, 90), rectangle(100, 60, 130, 120)
    small = rectangle(50, 80, 60, 100)
    subjects = [
        subject_row("a", whole, phrase="a horse", category="horse", group="animal"),
        subject_row("a", cut_off, phrase="a man", category="man", group="human"),
        subject_row("a", small, phrase="a dog", category="dog", group="animal", kept=False),
    ]
    row = clip_row("a", {0: painted(scene(GREY), whole | cut_off | small, RED)}, subjects)
    plate = make_plate(row, Whitewash(), 0, clip_share=1)
    assert plate.scale == (WholeSubject("horse", "animal", 0.5),)


def test_the_largest_subject_of_known_height_gives_the_height_of_a_plate() -> None:
    seen = (
        WholeSubject("ball", "sport", 0.9),
        WholeSubject("dog", "animal", 0.1),
        WholeSubject("horse", "animal", 0.5),
    )
    taxonomy = Taxonomy.load()
    plate = Plate("a", "v", "A horse.", {"bytes": b"", "path": None}, scale=seen)
    assert estimate_plate_height(plate, taxonomy) == pytest.approx(1.7 / 0.5)
    assert estimate_plate_height(replace(plate, scale=seen[:1]), taxonomy) is None


def test_kinds_have_the_configured_share() -> None:
    rows = [ball_clip(f"clip {n}") for n in range(200)]
    made = collect_plates(rows, Whitewash(), 0, clip_share=0.25)
    assert 30 <= sum(plate.kind == "clip" for plate in made) <= 70
    assert made == collect_plates(rows, Whitewash(), 0, clip_share=0.25)


def test_an_outline_in_doubt_is_not_painted_out() -> None:
    row = ball_clip("a")
    row["subjects"][0] = subject_row("a", disc(80, 70, 30), failures=["segment_min"])
    assert choose_background_frame(row) is None
    assert make_plate(row, Whitewash(), 0, clip_share=0).kind == "clip"
    row["subjects"][0] = subject_row("a", disc(80, 70, 30), failures=["sharpness_min"])
    assert choose_background_frame(row) == 0


def test_subjects_of_two_frames_make_a_clip_at_most() -> None:
    ball, cube = disc(60, 70, 20), rectangle(90, 60, 120, 100)
    subjects = [subject_row("a", ball), subject_row("a", cube, phrase="cube", frame=9)]
    row = clip_row("a", {0: scene(GREY), 9: scene(GREY, 3)}, subjects)
    assert choose_background_frame(row) is None
    assert choose_clip_frame(row, 0) in (0, 9)
    assert {choose_clip_frame(row, seed) for seed in range(20)} == {0, 9}


def test_a_frame_that_its_subject_fills_gives_nothing() -> None:
    mask = rectangle(10, 5, 150, 115)
    row = clip_row("a", {0: painted(scene(GREY), mask, RED)}, [subject_row("a", mask)])
    assert not can_give_plate(row)
    with pytest.raises(ValueError, match="gives no plate"):
        make_plate(row, Whitewash(), 0)


@pytest.mark.parametrize("colour", [(4, 4, 4), (252, 252, 252)])
def test_a_frame_that_shows_nothing_gives_nothing(colour: tuple[int, int, int]) -> None:
    assert not can_give_plate(clip_row("a", {0: scene(colour)}, []))


def test_failed_rows_and_rows_without_a_caption_give_nothing() -> None:
    assert can_give_plate(meadow("a"))
    failed = meadow("a")
    failed["status"] = "failed"
    assert not can_give_plate(failed)
    assert not can_give_plate(meadow("a", caption="  "))


def test_an_unreadable_picture_fails_only_its_plate() -> None:
    broken = meadow("broken")
    broken["frames"][0]["image"] = {"bytes": b"nothing", "path": None}
    assert [plate.clip_id for plate in collect_plates([broken, meadow("fine")], Whitewash(), 0)] == ["fine"]


def test_the_record_has_clip_and_frame() -> None:
    row = ball_clip("a")
    pool = collect_plates([meadow("m")], Whitewash(), 0, clip_share=0)
    Crosspair(config(), pool)([row])
    (made,) = crosspairs(row)
    assert (made["donor_clip_id"], made["donor_frame_index"]) == ("m", 5)
    assert made["model"] == "reprise-composite/background"
    assert made["kept"]
    build_table([row], CLIPS)
    picture = decode_image(made["image"]).astype(int)
    assert picture.shape == (120, 160, 3)
    assert ((picture[..., 0] - picture[..., 1]) > 80).sum() > 500  # the red ball
    assert ((picture[..., 1] - picture[..., 0]) > 60).sum() > 5000  # the meadow


def test_plates_of_the_same_video_or_a_similar_caption_are_not_used() -> None:
    row = ball_clip("a", video="v", caption="A red ball on the lawn.")
    own = make_plate(meadow("own", video="v"), Whitewash(), 0)
    like = make_plate(meadow("like", caption="A red ball on a lawn."), Whitewash(), 0)
    Crosspair(config(), [own, like])([row])
    assert crosspairs(row) == []


def test_a_subject_gets_a_background_whose_painted_part_it_can_hide() -> None:
    row = ball_clip("a")

    def plate(name: str, *boxes: tuple[float, float, float, float]) -> Plate:
        bare = make_plate(meadow(name), Whitewash(), 0, clip_share=0)
        return Plate(**{**vars(bare), "boxes": boxes})

    large = [plate(f"large {n}", (0.05, 0.05, 0.9, 0.9)) for n in range(6)]
    small = plate("small", (0.4, 0.4, 0.6, 0.6))
    Crosspair(config(), [*large, small])([row])
    assert crosspairs(row)[0]["donor_clip_id"] == "small"


def test_the_same_rows_give_the_same_pictures_in_any_order() -> None:
    pool = collect_plates([meadow(f"m{n}") for n in range(5)], Whitewash(), 0)

    def run(names: list[str]) -> dict[str, bytes | None]:
        rows = [ball_clip(name) for name in names]
        for row in rows:
            Crosspair(config(), list(reversed(pool)))([row])
        return {row["clip_id"]: crosspairs(row)[0]["image"]["bytes"] for row in rows}

    assert run(["a", "b", "c"]) == run(["c", "a", "b"])


def test_making_them_again_leaves_one() -> None:
    row = ball_clip("a")
    stage = Crosspair(config(), collect_plates([meadow("m")], Whitewash(), 0))
    stage([row])
    stage([row])
    assert len(crosspairs(row)) == 1


def test_a_portrait_stays_at_the_bottom_edge_of_its_plate() -> None:
    mask = rectangle(50, 30, 110, 120)
    row = clip_row("a", {0: painted(scene(GREY), mask, BLUE)}, [subject_row("a", mask)])
    Crosspair(config(), collect_plates([meadow("m")], Whitewash(), 0))([row])
    picture = decode_image(crosspairs(row)[0]["image"]).astype(int)
    blue = (picture[..., 2] - picture[..., 1]) > 60
    assert blue[-1].sum() > 20
    assert not blue[0].any()
    assert np.flatnonzero(blue.any(axis=0))[0] > 0
