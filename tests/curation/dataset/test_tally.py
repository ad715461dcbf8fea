"""The accounting: nothing is lost without a word."""

from __future__ import annotations

import random

import pytest

from curation.config import load_config
from curation.dataset.manifest import build_manifest, check_accounting
from curation.dataset.shards import ShardResult
from curation.dataset.tally import Tally, tally_rows
from curation.rows.lifecycle import make_blank_row, stop_row
from curation.rows.schema import ClipRow
from reprise.errors import RepriseError
from tests.curation.dataset.test_fragments import row, video


def make_stopped_row(number: int, start: int, status: str, stage: str, reason: str) -> ClipRow:
    made = row(number, start)
    stop_row(made, status, stage, reason)
    return made


def make_kept_row(number: int, start: int) -> ClipRow:
    made = row(number, start)
    made["status"] = "kept"
    return made


def make_unread_row(name: str, status: str, reason: str) -> ClipRow:
    made = make_blank_row(video(name), f"unread-{name}")
    stop_row(made, status, "slice", reason)
    return made


ROWS = [
    make_kept_row(0, 0),
    make_stopped_row(0, 50, "rejected", "slice", "shot too short"),
    make_stopped_row(0, 100, "failed", "slice", "damaged"),
    make_stopped_row(1, 0, "rejected", "caption", "no caption"),
    make_stopped_row(1, 50, "failed", "inpaint", "RuntimeError: no"),
    make_stopped_row(2, 0, "failed", "slice", "damaged"),
    make_unread_row("a", "failed", "not a readable video"),
    make_unread_row("b", "rejected", "duplicate of /videos/0.mp4"),
]


def test_a_video_is_what_the_best_of_its_rows_is() -> None:
    videos = {key.split("|")[0]: status for key, status in tally_rows(ROWS).videos.items()}
    assert videos == {
        "/videos/0.mp4": "kept",
        "/videos/1.mp4": "rejected",
        "/videos/2.mp4": "failed",
        "/videos/a.mp4": "failed",
        "/videos/b.mp4": "rejected",
    }


def test_videos_and_clips_add_up() -> None:
    counts = tally_rows(ROWS).summarize_counts()
    assert counts["videos"] == {"in": 5, "kept": 1, "rejected": 2, "failed": 2}
    assert counts["clips"] == {"in": 6, "kept": 1, "rejected": 2, "failed": 3}


def test_every_stopped_row_is_among_the_reasons() -> None:
    reasons = tally_rows(ROWS).summarize_counts()["reasons"]
    assert reasons["video"] == {"duplicate of another video": 1, "not a readable video": 1}
    assert reasons["clip"] == {"damaged": 2, "RuntimeError: no": 1, "no caption": 1, "shot too short": 1}


def test_what_goes_into_a_step_of_the_funnel_came_out_of_the_one_before() -> None:
    funnel = [step for step in tally_rows(ROWS).summarize_counts()["funnel"] if step["unit"] == "clip"]
    assert [step["stage"] for step in funnel] == ["slice", "caption", "match", "inpaint"]
    assert [(step["in"], step["out"]) for step in funnel] == [(6, 3), (3, 2), (2, 2), (2, 1)]


def test_sums_of_tallies_are_tallies_in_any_order() -> None:
    whole = tally_rows(ROWS).summarize_counts()
    for seed in range(5):
        rows = list(ROWS)
        random.Random(seed).shuffle(rows)
        total = Tally()
        for start in range(0, len(rows), 3):
            total.merge(tally_rows(rows[start : start + 3]))
        assert total.summarize_counts() == whole


def test_a_table_that_some_stages_have_not_seen_can_be_counted() -> None:
    assert tally_rows([row(0), make_kept_row(1, 0)]).summarize_counts()["clips"]["in"] == 2


def test_nothing_is_counted_as_nothing() -> None:
    counts = Tally().summarize_counts()
    assert counts["videos"]["in"] == counts["clips"]["in"] == 0


def compose_manifest(rows: list[ClipRow]) -> dict[str, object]:
    result = ShardResult("data/clips-00000-of-00001.parquet", len(rows), 1, "", tally_rows(rows), {})
    return build_manifest(load_config(), "abcdefabcdef", {}, [result], {})


def test_a_dataset_that_adds_up_is_accepted() -> None:
    check_accounting(compose_manifest(ROWS), videos_in=5, rows_in=8)


@pytest.mark.parametrize(("videos", "rows"), [(6, 8), (5, 9), (4, 8)])
def test_a_loss_is_an_error_and_not_a_smaller_number(videos: int, rows: int) -> None:
    with pytest.raises(RepriseError, match="not complete"):
        check_accounting(compose_manifest(ROWS), videos_in=videos, rows_in=rows)
