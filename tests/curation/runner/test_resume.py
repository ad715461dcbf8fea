"""What is left to do of a run: rows that are current, videos that are pending."""

from __future__ import annotations

import pytest

from curation.dataset.row_index import RowIndex
from curation.rows.schema import VideoRow
from curation.runner.resume import list_pending_videos, select_current
from tests.curation.dataset.test_fragments import entry, video

# --- current rows -------------------------------------------------------------------------------------


def test_rows_of_a_changed_file_are_not_current() -> None:
    entries = [entry("a", 0, 1, key="1"), entry("b", 0, 1, key="1")]
    found = select_current(entries, [video("a", "2"), video("b", "1")])
    assert [each.source_path for each in found] == ["/videos/b.mp4"]


def test_new_rows_win_over_old_ones_with_the_same_ids() -> None:
    """A file that was only touched gives the same clips; which fragment is read first must not matter."""
    old, new = entry("a", 0, 1, key="1"), entry("a", 0, 1, key="2")
    for entries in ([old, new], [new, old]):
        assert select_current(entries, [video("a", "2")]) == [new]


def test_rows_of_files_that_are_no_longer_listed_stay() -> None:
    entries = [entry("a", 0, 1), entry("b", 0, 1)]
    assert select_current(entries, [video("b")]) == entries


def test_a_path_that_is_listed_twice_keeps_both_of_its_rows() -> None:
    twice = [video("a", "1"), video("a", "1|2")]
    entries = [entry("a", 0, 1), entry("a", 9, 1, key="1|2", video_id=None)]
    assert {each.source_key for each in select_current(entries, twice)} == {
        each["source_key"] for each in twice
    }


def test_rows_are_ordered_by_video_and_time() -> None:
    entries = [entry(name, number) for name in "cab" for number in (2, 0, 1)]
    found = select_current(entries, [])
    assert [each.clip_id for each in found] == [f"{name}-{number}" for name in "abc" for number in range(3)]
    assert select_current(reversed(entries), []) == found


# --- pending videos -----------------------------------------------------------------------------------


def left_of(entries: list[RowIndex], *videos: VideoRow) -> dict[str, list[str]]:
    return {each["source_key"]: each["skip_clip_ids"] for each in list_pending_videos(entries, videos)}


def test_without_any_row_a_video_is_pending() -> None:
    assert left_of([], video("a")) == {"/videos/a.mp4|1": []}


def test_with_all_its_rows_a_video_is_finished() -> None:
    assert left_of([entry("a", 0), entry("a", 1), entry("a", 2, 3)], video("a")) == {}


def test_without_its_last_row_a_video_is_pending_and_skips_what_is_there() -> None:
    assert left_of([entry("a", 1), entry("a", 0)], video("a")) == {"/videos/a.mp4|1": ["a-0", "a-1"]}


def test_with_its_last_row_but_a_gap_a_video_is_pending() -> None:
    assert left_of([entry("a", 0), entry("a", 2, 3)], video("a")) == {"/videos/a.mp4|1": ["a-0", "a-2"]}


@pytest.mark.parametrize("status", ["kept", "rejected", "failed"])
def test_any_verdict_is_a_finished_row(status: str) -> None:
    assert left_of([entry("a", 0, 1, status=status)], video("a")) == {}


def test_a_video_that_could_not_be_used_is_finished() -> None:
    assert left_of([entry("a", 0, 1, video_id=None, status="failed")], video("a")) == {}


def test_a_video_that_killed_its_workers_is_finished_with_what_there_is_of_it() -> None:
    died = entry("a", 9, 3, video_id=None, status="failed")
    assert left_of([entry("a", 0), entry("a", 4, 5), died], video("a")) == {}


def test_a_changed_file_is_pending_from_its_beginning() -> None:
    entries = select_current([entry("a", 0, 1, key="1")], [video("a", "2")])
    assert left_of(entries, video("a", "2")) == {"/videos/a.mp4|2": []}


def test_of_one_path_listed_twice_each_is_judged_by_its_own_rows() -> None:
    assert list(left_of([entry("a", 0, 1)], video("a"), video("a", "1|2"))) == ["/videos/a.mp4|1|2"]
