"""Lists and captions with arbitrary values: each bad value fails its row, with its name and line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources.list_videos import list_videos
from reprise.lists.captions import read_sidecar
from reprise.lists.tables import read_list
from training.latents.config import EncodeConfig
from training.latents.sources.videos import VideoSource


def test_nested_json_fails_only_its_line(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "a.mp4").write_bytes(b"1")
    (tmp_path / "l.jsonl").write_text(
        '{"path": "a.mp4", "caption": "a dog"}\n{"path": "b.mp4", "x": ' + deep + "}\n"
    )
    rows = {row["source_path"].rpartition("/")[2]: row for row in list_videos(str(tmp_path / "l.jsonl"))}
    assert rows["a.mp4"]["problem"] is None
    assert rows["l.jsonl#line 2"]["problem"] == "line 2: nested too deeply"
    planned = VideoSource(str(tmp_path / "l.jsonl"), EncodeConfig()).plan_items()
    assert [each.drop for each in planned] == [None, "unreadable"]
    assert planned[1].message.endswith("l.jsonl#line 2: line 2: nested too deeply")


def test_half_a_surrogate_pair_fails_only_its_line(tmp_path: Path) -> None:
    lines = [json.dumps({"path": "a.mp4", "caption": "\ud800"}), json.dumps({"path": "\ud800.mp4"})]
    (tmp_path / "l.jsonl").write_text("\n".join(lines))
    problems = [row["problem"] for row in list_videos(str(tmp_path / "l.jsonl"))]
    assert problems == [
        "line 1: its caption holds half of a surrogate pair, which is no text",
        "line 2: its path holds half of a surrogate pair, which is no text",
    ]


def test_parquet_values_that_python_cannot_hold_cost_their_row(tmp_path: Path) -> None:
    far = pa.array([0, 2**40], pa.int64()).cast(pa.timestamp("s"))
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    for name, column in (("when", far), ("note", broken)):
        pq.write_table(pa.table({"path": ["a.mp4", "b.mp4"], name: column}), tmp_path / "l.parquet")
        rows = read_list(str(tmp_path / "l.parquet"))
        assert [row.problem for row in rows] == [None, f"row 2: its {name} cannot be read"]


@pytest.mark.parametrize("kind", ["fifo", "link", "large", "latin"])
def test_an_unreadable_caption_file_has_a_reason(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"1")
    sidecar = folder / "a.txt"
    (tmp_path / "secret").write_text("a secret")
    if kind == "fifo":
        os.mkfifo(sidecar)
    elif kind == "link":
        sidecar.symlink_to(tmp_path / "secret")
    else:
        sidecar.write_bytes(b"x" * 70_000 if kind == "large" else "weiß".encode("latin-1"))
    reason = {
        "fifo": "not a regular file",
        "link": "it is a link out of the folder",
        "large": "larger than 64 KiB",
        "latin": "not UTF-8 text",
    }[kind]
    (row,) = list_videos(str(folder))
    assert (row["caption"], row["problem"]) == (None, f"its caption file a.txt cannot be read: {reason}")
    (planned,) = VideoSource(str(folder), EncodeConfig()).plan_items()
    assert planned.drop == "unreadable caption" and planned.message.endswith(reason)


def test_a_link_beside_the_linked_video_is_followed(tmp_path: Path) -> None:
    store, folder = tmp_path / "blobs", tmp_path / "snapshot"
    store.mkdir()
    folder.mkdir()
    (store / "1").write_bytes(b"1")
    (store / "2").write_text("a dog")
    (folder / "a.mp4").symlink_to(store / "1")
    (folder / "a.txt").symlink_to(store / "2")
    assert read_sidecar(str(folder / "a.txt"), str(folder / "a.mp4")).text == "a dog"


def test_both_halves_read_the_same_captions(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    (tmp_path / "b.mp4").write_bytes(b"22")
    (tmp_path / "l.jsonl").write_text(
        '{"path": "a.mp4", "caption": ["A dog runs.", "A dog."]}\n{"path": "b.mp4", "caption": NaN}\n'
    )
    rows = list_videos(str(tmp_path / "l.jsonl"))
    assert [row["caption"] for row in rows] == ["A dog runs.", None]
    planned = VideoSource(str(tmp_path / "l.jsonl"), EncodeConfig()).plan_items()
    assert [json.loads(each.place[0])[1] for each in planned] == ["A dog runs.", ""]
    assert [each.drop for each in planned] == [None, "no caption"]
