"""Finished rows of a run under way, and what they leave to be done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.dataset.fragments import (
    Fragments,
    RowIndex,
    count_payload_bytes,
    list_pending_videos,
    select_current,
)
from curation.rows.schema import ClipRow, VideoRow
from reprise.storage import Storage
from tests.curation.clips import clip


def video(name: str, key: str = "1") -> VideoRow:
    return {
        "source_path": f"/videos/{name}.mp4",
        "source_key": f"/videos/{name}.mp4|{key}",
        "size": 1,
        "caption": None,
        "caption_source": None,
        "license": None,
        "extra": None,
        "problem": None,
        "skip_clip_ids": [],
    }


def entry(name: str, number: int, count: int = 0, key: str = "1", **more: Any) -> RowIndex:
    """Row `number` of a video; the last one carries `count`."""
    fields: dict[str, Any] = {
        "clip_id": f"{name}-{number}",
        "video_id": name,
        "source_path": f"/videos/{name}.mp4",
        "source_key": f"/videos/{name}.mp4|{key}",
        "clip_path": f"clips/{name}-{number}.mp4",
        "start_frame": 10 * number,
        "clip_count": count,
        "status": "kept",
        "payload_bytes": 100,
        "file": "work/f.parquet",
    }
    return RowIndex(**{**fields, **more})


def row(number: int, start: int = 0, count: int = 0) -> ClipRow:
    made = clip(number)
    made.update(
        clip_id=f"{number:020x}-{start:07d}-{start + 50:07d}-abcdef",
        start_frame=start,
        end_frame=start + 50,
        clip_count=count,
    )
    return made


@pytest.fixture
def dataset(tmp_path: Path) -> Storage:
    return Storage.from_uri(tmp_path)


@pytest.fixture
def fragments(dataset: Storage) -> Fragments:
    return Fragments(dataset, "abcdefabcdef")


def files(dataset: Storage) -> list[str]:
    return dataset.list_paths("work", ".parquet")


def test_rows_written_twice_are_one_file_whatever_their_order(dataset: Storage, fragments: Fragments) -> None:
    fragments.write_rows([row(0), row(1)], {"slice": 1.0})
    fragments.write_rows([row(1), row(0)], {"slice": 1.0})
    assert len(files(dataset)) == 1
    found, seconds = fragments.read_index()
    assert len(found) == 2
    assert seconds == {"slice": 1.0}


def test_a_clip_in_two_fragments_is_there_once(dataset: Storage, fragments: Fragments) -> None:
    fragments.write_rows([row(0), row(1)], {})
    fragments.write_rows([row(1), row(2)], {})
    assert len(files(dataset)) == 2
    found = select_current(fragments.read_index()[0], [])
    assert [each.video_id for each in found] == [f"{number:020x}" for number in range(3)]


def test_no_rows_are_no_file(dataset: Storage, fragments: Fragments) -> None:
    fragments.write_rows([], {"slice": 1.0})
    assert files(dataset) == []


def test_an_entry_says_what_its_row_says(fragments: Fragments) -> None:
    made = row(3, 50, 2)
    fragments.write_rows([made], {})
    (found,) = fragments.read_index()[0]
    for name in (
        "clip_id",
        "video_id",
        "source_path",
        "source_key",
        "clip_path",
        "start_frame",
        "clip_count",
    ):
        assert getattr(found, name) == made[name]  # type: ignore[literal-required]
    assert found.payload_bytes == count_payload_bytes(made) > 0


def test_a_row_without_frames_counts_as_the_beginning_of_its_video(fragments: Fragments) -> None:
    made = row(0)
    made["start_frame"] = None
    fragments.write_rows([made], {})
    assert fragments.read_index()[0][0].start_frame == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "overwritten"])
def test_a_damaged_fragment_counts_as_absent_and_its_rows_are_made_again(
    dataset: Storage, fragments: Fragments, tmp_path: Path, damage: str
) -> None:
    fragments.write_rows([row(0, count=1)], {"slice": 1.0})
    fragments.write_rows([row(1, count=1)], {"slice": 2.0})
    entries = fragments.read_index()[0]
    broken = tmp_path / next(each.file for each in entries if each.source_path == "/videos/0.mp4")
    data = broken.read_bytes()
    broken.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "empty": b"",
            "text": b"not Parquet at all",
            "overwritten": data[:4] + bytes(len(data) - 12) + data[-8:],
        }[damage]
    )
    for index in (fragments, Fragments(dataset, "abcdefabcdef")):
        found, seconds = index.read_index()
        assert [each.source_path for each in found] == ["/videos/1.mp4"]
        assert seconds == {"slice": 2.0}
    wanted = [
        {**video("0"), "source_key": "/videos/0.mp4|1|1"},
        {**video("1"), "source_key": "/videos/1.mp4|1|1"},
    ]
    left = list_pending_videos(select_current(found, wanted), wanted)  # type: ignore[arg-type]
    assert [each["source_path"] for each in left] == ["/videos/0.mp4"]


def test_temporary_files_of_a_killed_writer_are_no_fragments(fragments: Fragments, tmp_path: Path) -> None:
    fragments.write_rows([row(0)], {})
    folder = tmp_path / fragments.folder
    (folder / ".partial-0123-x").write_bytes(next(folder.glob("*.parquet")).read_bytes())
    assert len(fragments.read_index()[0]) == 1


def test_a_fragment_that_was_replaced_is_read_again(fragments: Fragments) -> None:
    """The same clips of a file that was copied again have the same ids and another key."""
    fragments.write_rows([row(0)], {})
    assert fragments.read_index()[0][0].source_key == "/videos/0.mp4|1|1"
    again = row(0)
    again["source_key"] = "/videos/0.mp4|1|2"
    fragments.write_rows([again], {})
    assert fragments.read_index()[0][0].source_key == "/videos/0.mp4|1|2"


def test_another_config_has_other_fragments(dataset: Storage, fragments: Fragments) -> None:
    fragments.write_rows([row(0)], {})
    assert Fragments(dataset, "000000000000").read_index() == ([], {})


# --- what is current ----------------------------------------------------------------------------------


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


def test_order_is_by_video_and_time_whoever_finished_first() -> None:
    entries = [entry(name, number) for name in "cab" for number in (2, 0, 1)]
    found = select_current(entries, [])
    assert [each.clip_id for each in found] == [f"{name}-{number}" for name in "abc" for number in range(3)]
    assert select_current(reversed(entries), []) == found


# --- what is pending ----------------------------------------------------------------------------------


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


def test_of_one_path_listed_twice_each_is_looked_at_alone() -> None:
    assert list(left_of([entry("a", 0, 1)], video("a"), video("a", "1|2"))) == ["/videos/a.mp4|1|2"]
