"""Finished rows of a run under way, and what they leave to be done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.dataset.fragments import FragmentIndex, Fragments
from curation.dataset.payload import count_payload_bytes
from curation.dataset.row_index import RowIndex
from curation.rows.schema import ClipRow, VideoRow
from curation.runner.resume import list_pending_videos, select_current
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
    made["clip_id"] = f"{number:020x}-{start:07d}-{start + 50:07d}-abcdef"
    made["start_frame"] = start
    made["end_frame"] = start + 50
    made["clip_count"] = count
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
    found = fragments.read_index()
    assert len(found.rows) == 2
    assert found.seconds == {"slice": 1.0}


def test_a_clip_in_two_fragments_is_there_once(dataset: Storage, fragments: Fragments) -> None:
    fragments.write_rows([row(0), row(1)], {})
    fragments.write_rows([row(1), row(2)], {})
    assert len(files(dataset)) == 2
    found = select_current(fragments.read_index().rows, [])
    assert [each.video_id for each in found] == [f"{number:020x}" for number in range(3)]


def test_no_rows_are_no_file(dataset: Storage, fragments: Fragments) -> None:
    fragments.write_rows([], {"slice": 1.0})
    assert files(dataset) == []


def test_an_entry_has_the_values_of_its_row(fragments: Fragments) -> None:
    made = row(3, 50, 2)
    fragments.write_rows([made], {})
    (found,) = fragments.read_index().rows
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
    assert fragments.read_index().rows[0].start_frame == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "overwritten"])
def test_a_damaged_fragment_counts_as_absent_and_its_rows_are_made_again(
    dataset: Storage, fragments: Fragments, tmp_path: Path, damage: str
) -> None:
    fragments.write_rows([row(0, count=1)], {"slice": 1.0})
    fragments.write_rows([row(1, count=1)], {"slice": 2.0})
    entries = fragments.read_index().rows
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
        found = index.read_index()
        assert [each.source_path for each in found.rows] == ["/videos/1.mp4"]
        assert found.seconds == {"slice": 2.0}
    wanted = [
        {**video("0"), "source_key": "/videos/0.mp4|1|1"},
        {**video("1"), "source_key": "/videos/1.mp4|1|1"},
    ]
    left = list_pending_videos(select_current(found.rows, wanted), wanted)  # type: ignore[arg-type]
    assert [each["source_path"] for each in left] == ["/videos/0.mp4"]


def test_temporary_files_of_a_killed_writer_are_no_fragments(fragments: Fragments, tmp_path: Path) -> None:
    fragments.write_rows([row(0)], {})
    folder = tmp_path / fragments.folder
    (folder / ".partial-0123-x").write_bytes(next(folder.glob("*.parquet")).read_bytes())
    assert len(fragments.read_index().rows) == 1


def test_a_fragment_that_was_replaced_is_read_again(fragments: Fragments) -> None:
    """The same clips of a file that was copied again have the same ids and another key."""
    fragments.write_rows([row(0)], {})
    assert fragments.read_index().rows[0].source_key == "/videos/0.mp4|1|1"
    again = row(0)
    again["source_key"] = "/videos/0.mp4|1|2"
    fragments.write_rows([again], {})
    assert fragments.read_index().rows[0].source_key == "/videos/0.mp4|1|2"


def test_another_config_has_other_fragments(dataset: Storage, fragments: Fragments) -> None:
    fragments.write_rows([row(0)], {})
    assert Fragments(dataset, "000000000000").read_index() == FragmentIndex([], {})
