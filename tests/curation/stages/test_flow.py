"""Flow of subjects and of the background, as in proxy replay A.5."""

from __future__ import annotations

from typing import Any

import pytest

from curation.filters.motion import FLOW_SIDE
from curation.models import registry
from curation.rows.schema import ClipRow
from curation.runner.graph import build_stage
from curation.stages.flow import shrink_image
from curation.stages.stage import run_stage
from tests.curation.clips import HERE, WIDTH, Blob, ColourFlow, clip, config, disc, picture, subject

FLOW = f"models.flow={HERE}:ColourFlow"
RED: Blob = ("red", 0.3, 0.5, 0.25)
BLUE: Blob = ("blue", 0.75, 0.5, 0.2)
PX = FLOW_SIDE / WIDTH  # lengths are stated for frames of `FLOW_SIDE` px


def make_moving_clip(count: int = 4, found: int = 0) -> ClipRow:
    """Both balls in every frame, known only in frame `found`; the brightness of a frame is its number."""
    images = []
    for number in range(count):
        image = picture(RED, BLUE, seed=1)
        image[:8, :8] = 60 + ColourFlow.MARK * number
        images.append(image)
    row = clip(images=images)
    row["subjects"] = [
        subject(row, disc(blob), start=start, index=5 * found) for start, blob in ((2, RED), (20, BLUE))
    ]
    return row


def measure_flow(row: ClipRow, *overrides: str) -> ClipRow:
    (done,) = run_stage(build_stage("flow", config(FLOW, *overrides)), [row], {})
    assert done["stop"] is None, done["stop"]
    return done


def flows(row: ClipRow) -> list[Any]:
    return [
        (each["scores"].get("flow_foreground"), each["scores"].get("flow_background"))
        for each in row["subjects"]
    ]


def test_flow_goes_from_the_first_frame_to_each_later_one_and_is_averaged() -> None:
    row = measure_flow(make_moving_clip())
    steps = (1 + 2 + 3) / 3
    (red, behind), (blue, also_behind) = flows(row)
    assert red == pytest.approx(5 * steps * PX, rel=0.05)
    assert blue == pytest.approx(6 * steps * PX, rel=0.05)
    # The other ball is no background, or it would be above 1 px a frame.
    assert behind == also_behind == pytest.approx(1 * steps * PX, rel=0.05)


def test_the_clip_is_measured_over_all_of_its_subjects() -> None:
    row = measure_flow(make_moving_clip())
    sizes = [disc(blob).sum() for blob in (RED, BLUE)]
    mean = (5 * sizes[0] + 6 * sizes[1]) / sum(sizes) * 2
    assert row["flow_foreground"] == pytest.approx(mean * PX, rel=0.05)
    assert row["flow_background"] == pytest.approx(2 * PX, rel=0.05)


def test_a_subject_known_only_in_the_last_frame_is_measured_backwards() -> None:
    row = measure_flow(make_moving_clip(found=3))
    assert flows(row)[0][0] == pytest.approx(5 * 2 * PX, rel=0.05)


def test_a_followed_subject_is_measured_from_where_it_is_first_seen() -> None:
    row = make_moving_clip(found=2)
    red, _ = row["subjects"]
    red["track"] = [
        {"index": 5 * n, "box": red["box"], "mask": red["mask"] if n else None, "presence": 1.0}
        for n in range(4)
    ]
    row = measure_flow(row)
    assert flows(row)[0][0] == pytest.approx(5 * (1 + 2) / 2 * PX, rel=0.05)
    assert flows(row)[1][0] == pytest.approx(6 * 1 * PX, rel=0.05), "the other one has no track"


def test_what_cannot_be_measured_is_null_and_rejects_nothing() -> None:
    single = measure_flow(make_moving_clip(count=1))
    assert flows(single) == [(None, None)] * 2 and single["flow_foreground"] is None
    nowhere = make_moving_clip()
    nowhere["subjects"] = [subject(nowhere, None)]
    assert flows(measure_flow(nowhere)) == [(None, None)]
    assert flows(measure_flow(make_moving_clip(), "flow.enabled=false")) == [(None, None)] * 2
    assert registry.get_model_spec(config(FLOW, "flow.enabled=false"), "flow") is None


def test_measuring_again_without_a_model_leaves_no_old_numbers() -> None:
    row = measure_flow(make_moving_clip())
    (again,) = run_stage(build_stage("flow", config()), [row], {})
    assert flows(again) == [(None, None)] * 2 and again["flow_background"] is None


def test_thresholds_are_off_by_default() -> None:
    def decided(*overrides: str) -> list[str | None]:
        settings = config(FLOW, "filter.sharpness_min=null", "filter.area_share_min=null", *overrides)
        row = make_moving_clip()
        for name in ("flow", "filter"):
            (row,) = run_stage(build_stage(name, settings), [row], {})
        return [each["verdict"]["reason"] for each in row["subjects"] if each["verdict"]]

    assert decided() == [None, None]
    fastest = 5.5 * 2 * PX  # between the two
    assert decided(f"filter.flow_foreground_max={fastest}") == [None, "flow_foreground_max"]
    assert decided(f"filter.flow_foreground_min={fastest}") == ["flow_foreground_min", None]
    assert decided("filter.flow_background_max=1") == ["flow_background_max"] * 2


def test_large_frames_are_measured_small_and_small_ones_as_they_are() -> None:
    assert shrink_image(picture(size=(1920, 1080))).shape == (405, FLOW_SIDE, 3)
    assert shrink_image(picture(size=(300, 1500))).shape == (FLOW_SIDE, 144, 3)
    small = picture()
    assert shrink_image(small) is small
