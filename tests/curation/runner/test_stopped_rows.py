"""Rows that a run itself writes."""

from __future__ import annotations

from curation.rows.verdicts import WORKER_DIED
from curation.runner.stopped_rows import build_copy_row, build_died_row, find_copies
from tests.curation.dataset.test_fragments import entry, video


def test_the_row_of_a_died_video_counts_the_rows_that_it_has() -> None:
    row = build_died_row(video("a"), [entry("a", 0), entry("a", 1), entry("b", 0)], "hash")
    assert (row["clip_index"], row["clip_count"], row["config_hash"]) == (2, 3, "hash")
    assert row["stop"] is not None
    assert (row["status"], row["stop"]["reason"]) == ("failed", WORKER_DIED)


def test_the_row_of_a_copy_names_its_original() -> None:
    row = build_copy_row(video("b"), "/videos/a.mp4", "hash")
    assert row["stop"] is not None
    assert (row["status"], row["stop"]["reason"]) == ("rejected", "duplicate of /videos/a.mp4")
    assert row["clip_count"] == 1


def test_a_copy_is_a_video_with_clips_of_an_earlier_one() -> None:
    copy = entry("b", 0, clip_id="a-0")
    rows = [entry("a", 0), entry("a", 1), copy, entry("c", 0)]
    assert find_copies(rows, {each.source_key for each in rows}) == {copy.source_key: "/videos/a.mp4"}


def test_a_video_that_is_no_longer_listed_is_never_the_copy() -> None:
    original, copy = entry("b", 0, clip_id="a-0"), entry("a", 0)
    assert find_copies([copy, original], {copy.source_key}) == {copy.source_key: "/videos/b.mp4"}
