"""Every named video gives one row, with its caption or with its problem."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.rows.schema import VIDEOS, VideoRow
from curation.rows.tables import build_table
from curation.sources import duplicates
from curation.sources.list_videos import list_videos, summarize_videos
from reprise.errors import RepriseError
from reprise.storage import Storage
from tests.s3 import S3


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "disk":
        return Storage.from_uri(tmp_path / "my videos")
    return Storage.from_uri(request.getfixturevalue("s3").uri + "/my videos")


def fill(place: Storage, files: dict[str, str]) -> None:
    for name, content in files.items():
        place.write_bytes(name, content.encode())


def names(rows: list[VideoRow], place: Storage) -> list[str]:
    return [row["source_path"].removeprefix(place.uri + "/") for row in rows]


def by_name(rows: list[VideoRow], place: Storage) -> dict[str, VideoRow]:
    return dict(zip(names(rows, place), rows, strict=True))


def test_a_folder_gives_its_videos_sorted_and_reports_ignored_files(place: Storage) -> None:
    fill(
        place,
        {
            "b.MP4": "1",
            "a/deep/er/x y.webm": "22",
            'a/it\'s "red".mov': "333",
            "红球/视频 一.mkv": "4444",
            "notes.txt": "n",
            "a/poster.jpg": "j",
            "noext": "n",
            ".hidden.mp4": "55555",
            ".cache/y.mp4": "666666",
            "__MACOSX/._b.mp4": "7777777",
        },
    )
    messages: list[str] = []
    rows = list_videos(place.uri, on_message=messages.append)
    assert names(rows, place) == ["a/deep/er/x y.webm", 'a/it\'s "red".mov', "b.MP4", "红球/视频 一.mkv"]
    assert [row["size"] for row in rows] == [2, 3, 1, 4]
    assert messages == [
        f"ignored 3 files that are no videos and no captions in {place.uri}: 1 jpg, 1 no extension, 1 txt"
    ]
    assert all(row["problem"] is None and row["skip_clip_ids"] == [] for row in rows)
    assert build_table(rows, VIDEOS).num_rows == 4
    assert summarize_videos(rows) == "4 videos, 10 B, 0 with a caption"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["1.mp4", "2.mp4"]),
        ("**/*.mp4", ["1.mp4", "2.mp4", "a/3.mp4", "a/b/4.mp4"]),
        ("a/**", ["a/3.mp4", "a/b/4.mp4", "a/b/4.webm"]),
        ("a/*/?.*", ["a/b/4.mp4", "a/b/4.webm"]),
        ("[!2].mp4", ["1.mp4"]),
        ("**/b/[3-5].mp4", ["a/b/4.mp4"]),
    ],
)
def test_a_glob_stays_within_a_name_unless_it_is_double(
    place: Storage, pattern: str, expected: list[str]
) -> None:
    paths = ["1.mp4", "2.mp4", "a/3.mp4", "a/b/4.mp4", "a/b/4.webm", "a/b/4.txt"]
    fill(place, {path: "x" * (i + 1) for i, path in enumerate(paths)})
    rows = list_videos(place.join_path(pattern))
    assert names(rows, place) == expected
    if pattern == "**/*.mp4":
        assert by_name(rows, place)["a/b/4.mp4"]["caption"] == "xxxxxx"


def test_a_folder_with_brackets_in_its_name_is_a_folder(tmp_path: Path) -> None:
    place = Storage.from_uri(tmp_path / "clips [720p]")
    fill(place, {"a.mp4": "1"})
    assert names(list_videos(place.uri), place) == ["a.mp4"]


def test_one_video_is_the_same_row_as_in_its_folder(place: Storage) -> None:
    fill(place, {"a b.mp4": "1", "a b.txt": "a red ball"})
    assert list_videos(place.join_path("a b.mp4")) == list_videos(place.uri)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ({}, "no such file or folder: .*my videos"),
        ({"a.txt": "1"}, "no video in .*my videos: looked for 3gp, avi, .*mp4.*y4m"),
    ],
)
def test_a_source_without_videos_is_named(place: Storage, make: dict[str, str], message: str) -> None:
    fill(place, make)
    with pytest.raises(RepriseError, match=message):
        list_videos(place.uri)
    with pytest.raises(RepriseError, match=r"no video matches .*mp4"):
        list_videos(place.join_path("*.mp4"))


def test_a_file_of_another_kind_is_named(place: Storage) -> None:
    fill(place, {"a.docx": "1"})
    with pytest.raises(RepriseError, match=r"neither a video .* nor a manifest"):
        list_videos(place.join_path("a.docx"))


# Captions.


def test_captions_beside_the_videos(place: Storage) -> None:
    fill(
        place,
        {
            "both.mp4": "1",
            "both.txt": "\n  a red ball\n  rolls on grass \n",
            "both.json": '{"caption": "no"}',
            "json.mp4": "22",
            "json.json": '{"fps": 3, "caption": "", "text": " a blue box "}',
            "empty.mp4": "333",
            "empty.txt": " \n",
            "broken.mp4": "4444",
            "broken.json": "{",
            "list.mp4": "55555",
            "list.json": "[1]",
            "bom.mp4": "666666",
            "bom.txt": "\ufeff红球",
            "none.mp4": "7777777",
        },
    )
    place.write_bytes("latin.mp4", b"8" * 8)
    place.write_bytes("latin.txt", "é".encode("latin-1"))
    place.write_bytes("wide.mp4", b"9" * 9)
    place.write_bytes("wide.txt", "a red ball".encode("utf-16"))
    rows = by_name(list_videos(place.uri), place)
    assert {name: row["caption"] for name, row in rows.items()} == {
        "both.mp4": "a red ball rolls on grass",
        "json.mp4": "a blue box",
        "empty.mp4": None,
        "broken.mp4": None,
        "list.mp4": None,
        "bom.mp4": "红球",
        "none.mp4": None,
        "latin.mp4": None,
        "wide.mp4": "a red ball",
    }
    assert rows["both.mp4"]["caption_source"] == "sidecar"
    assert rows["none.mp4"]["caption_source"] is None
    cannot = "its caption file {} cannot be read: "
    assert {name: row["problem"] for name, row in rows.items() if row["problem"]} == {
        "latin.mp4": cannot.format("latin.txt") + "not UTF-8 text",
        "broken.mp4": cannot.format("broken.json")
        + "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    }
    assert summarize_videos([*rows.values()]) == (
        "9 videos, 33 B, 4 with a caption; 2 cannot be used: 2 caption file that cannot be read"
    )


def test_on_s3_the_listing_shows_which_sidecars_exist(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Storage.from_uri(s3.uri)
    fill(place, {f"{i}.mp4": "x" * (i + 1) for i in range(30)} | {"7.txt": "a red ball"})
    opened: list[str] = []
    honest = Storage.open_input

    def counting(self: Storage, rel: str) -> pa.NativeFile:
        opened.append(rel)
        return honest(self, rel)

    monkeypatch.setattr(Storage, "open_input", counting)
    monkeypatch.setattr(Storage, "stat_file", None)
    rows = list_videos(place.uri)
    assert opened == ["7.txt"]
    assert by_name(rows, place)["7.mp4"]["caption"] == "a red ball"


# Manifests.

ROWS: list[dict[str, Any]] = [
    {"path": "v/b.mp4", "caption": "a red ball, rolling", "id": "B", "license": "CC0", "score": "1"},
    {"path": "v/a.mp4", "caption": "", "id": "A", "license": "", "score": "2"},
    {"path": "v/gone.mp4", "caption": "x", "id": "G", "license": "", "score": "3"},
]


def manifest(kind: str, rows: list[dict[str, Any]]) -> bytes:
    if kind == "csv":
        import io

        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode("utf-8-sig")
    if kind == "jsonl":
        return "\n".join(json.dumps(row) for row in rows).encode() + b"\n\n"
    if kind == "json":
        return json.dumps(rows, indent=1).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row | {"thumb": b"\x00\xff"} for row in rows]), sink)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_a_manifest_of_any_kind(place: Storage, kind: str) -> None:
    fill(place, {"v/a.mp4": "1", "v/a.txt": "a cube", "v/b.mp4": "22", "v/b.txt": "no", "v/other.mp4": "333"})
    place.write_bytes(f"list.{kind}", manifest(kind, ROWS))
    rows = by_name(list_videos(place.join_path(f"list.{kind}")), place)
    assert list(rows) == ["v/a.mp4", "v/b.mp4", "v/gone.mp4"]
    a, b, gone = rows.values()
    assert (a["caption"], a["caption_source"], a["license"]) == ("a cube", "sidecar", None)
    assert (b["caption"], b["caption_source"], b["license"]) == ("a red ball, rolling", "manifest", "CC0")
    assert json.loads(b["extra"] or "") == {"id": "B", "score": "1"}
    assert (gone["problem"], gone["size"]) == ("missing file", -1)
    assert (
        summarize_videos([*rows.values()])
        == "3 videos, 3 B, 3 with a caption; 1 cannot be used: 1 missing file"
    )
    folder = by_name(list_videos(place.join_path("v")), place)
    assert b["source_key"] == folder["v/b.mp4"]["source_key"]
    assert build_table(rows.values(), VIDEOS).num_rows == 3


def test_a_manifest_may_name_files_anywhere(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "near.mp4").write_bytes(b"1")
    far = s3.put("v/far.mp4", b"22")
    paths = [
        "../near.mp4",
        str(tmp_path / "near.mp4"),
        far,
        "https://host/x.mp4",
        "",
        None,
        "a\0b.mp4",
        str(tmp_path),
    ]
    lines = [json.dumps({"path": path, "n": float("nan")}) for path in paths]
    (tmp_path / "lists" / "l.jsonl").write_text("\n".join(lines))
    rows = list_videos(str(tmp_path / "lists" / "l.jsonl"))
    assert len(rows) == len(paths) == len({row["source_key"] for row in rows})
    problems = {row["source_path"]: row["problem"] for row in rows}
    assert problems[far] is None
    assert problems["https://host/x.mp4"] == "only local paths and s3:// can be read"
    assert problems[str(tmp_path)] == "not a regular file"
    assert problems[str(tmp_path / "lists" / "l.jsonl") + "#line 5"] == "no path in the manifest"
    assert sorted(
        row["problem"] or "" for row in rows if row["source_path"] == str(tmp_path / "near.mp4")
    ) == [
        "",
        f"duplicate of {tmp_path / 'near.mp4'}",
    ]
    assert all(json.loads(row["extra"] or "") == {"n": None} for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", "file,caption\na.mp4,x\n", "l.csv has no column path: found caption, file"),
        ("l.csv", "file,caption\n", "l.csv has no column path: found file, caption"),
        ("l.csv", "path,caption\n", "l.csv lists no videos"),
        ("l.csv", "", "l.csv lists no videos"),
        ("l.csv", 'path,caption\na.mp4,"x\n', r"l.csv line \d: unexpected end of data"),
        ("l.csv", "path,path\na,b\n", "l.csv line 1: a column is there twice"),
        ("l.jsonl", '{"file": "a.mp4"}\n', "l.jsonl has no column path: found file"),
        ("l.jsonl", "no\nJSON\n", "l.jsonl line 1 is not JSON"),
        ("l.json", '[{"path": 1', "l.json item 1 is not JSON"),
        ("l.json", '["a.mp4"]', "l.json item 1: expected an object"),
        ("l.json", "[]", "l.json lists no videos"),
        ("l.parquet", "PAR1", "l.parquet is damaged or not Parquet"),
    ],
)
def test_an_error_of_a_manifest_names_its_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RepriseError, match=message) as caught:
        list_videos(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("l.csv", b"path,caption\na.mp4,x\nb.mp4,one, two\nc.mp4,y\n", "line 3: 3 cells for 2 columns"),
        ("l.csv", b'path,caption\na.mp4,"line\nbreak"\nb.mp4\nc.mp4,y\n', "line 4: 1 cells for 2 columns"),
        ("l.csv", b'path,caption\na.mp4,x\nb.mp4,"open\nc.mp4,y\n', "line 3: unexpected end of data"),
        ("l.csv", b'path,caption\na.mp4,x\nb.mp4,"o"pen\nc.mp4,y\n', "line 3: ',' expected after"),
        (
            "l.csv",
            b"path,caption\na.mp4,x\nb.mp4,\xe9\nc.mp4,y\n",
            "line 3: its caption holds bytes that are not",
        ),
        ("l.jsonl", b'{"path": "a.mp4"}\n\n{"path":\n{"path": "c.mp4"}', "line 3 is not JSON"),
        ("l.jsonl", b'{"path": "a.mp4"}\n["b.mp4"]\n{"path": "c.mp4"}', "line 2: expected an object"),
        ("l.jsonl", b'{"path": "a.mp4"}\n{"path": "\xe9"}\n{"path": "c.mp4"}', "line 2: not UTF-8 text"),
        ("l.jsonl", b'{"path": "a.mp4"}\n{"n": %s}\n{"path": "c.mp4"}' % (b"9" * 5000), "line 2 is not JSON"),
        ("l.json", b'[{"path": "a.mp4"}, {"path": ]}, {"path": "c.mp4"}]', "item 2 is not JSON"),
        ("l.json", b'[{"path": "a.mp4"}, 3, {"path": "c.mp4"}]', "item 2: expected an object"),
        ("l.json", b'[{"path": "a.mp4"}, {"path": "c.mp4"}, {"pa', "item 3 is not JSON"),
        (
            "l.json",
            b'[{"path": "a.mp4"}, %s, {"path": "c.mp4"}]' % (b"[" * 100_000 + b"]" * 100_000),
            "item 2: nested too deeply",
        ),
    ],
)
def test_a_row_at_fault_loses_nothing_else(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    for number, letter in enumerate("ac"):
        (tmp_path / f"{letter}.mp4").write_bytes(b"1" * (number + 1))
    (tmp_path / name).write_bytes(content)
    rows = list_videos(str(tmp_path / name))
    assert [Path(row["source_path"]).name for row in rows if not row["problem"]] == ["a.mp4", "c.mp4"]
    (bad,) = (row for row in rows if row["problem"])
    assert (bad["problem"] or "").startswith(problem) and f"{name}#" in bad["source_path"]


# Duplicates.


def test_of_equal_videos_the_first_by_path_stays(place: Storage) -> None:
    fill(
        place,
        {"c.mp4": "same!", "a/z.mov": "same!", "d.mp4": "other", "e.mp4": "same!", "f.mp4": "", "g.mp4": ""},
    )
    rows = by_name(list_videos(place.uri), place)
    kept = place.join_path("a/z.mov")
    assert {name: row["problem"] for name, row in rows.items()} == {
        "a/z.mov": None,
        "c.mp4": f"duplicate of {kept}",
        "d.mp4": None,
        "e.mp4": f"duplicate of {kept}",
        "f.mp4": None,
        "g.mp4": None,
    }
    assert summarize_videos([*rows.values()]).endswith("2 cannot be used: 2 duplicate")


def test_only_files_of_equal_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Storage.from_uri(tmp_path)
    fill(place, {"a.mp4": "1", "b.mp4": "22", "c.mp4": "23", "d.mp4": "333"})
    read: list[str] = []
    honest = duplicates.hash_video
    monkeypatch.setattr(duplicates, "hash_video", lambda path: read.append(path.name) or honest(path))
    list_videos(place.uri)
    assert sorted(read) == ["b.mp4", "c.mp4"]


def test_on_s3_equal_tags_spare_the_download(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Storage.from_uri(s3.uri)
    fill(place, {"a.mp4": "same", "b.mp4": "same", "c.mp4": "same"})
    monkeypatch.setattr(duplicates, "hash_video", None)
    assert [row["problem"] is None for row in list_videos(place.uri)] == [True, False, False]


def test_on_s3_uploads_in_parts_are_compared_by_content(s3: S3, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(os.urandom(1 << 20) * 12)
    place = Storage.from_uri(s3.uri)
    place.put_file(large, "a.mp4")  # in parts
    s3.put("b.mp4", large.read_bytes())  # at once: another tag
    place.write_bytes("c.mp4", bytes(12 << 20))
    assert (place.get_etag("a.mp4") or "").endswith("-2")
    assert [row["problem"] for row in list_videos(place.uri)] == [None, f"duplicate of {s3.uri}/a.mp4", None]


def test_the_same_path_three_times_gives_three_rows_that_differ(tmp_path: Path) -> None:
    place = Storage.from_uri(tmp_path)
    fill(place, {"a.mp4": "1", "l.csv": "path,caption\na.mp4,first\n./a.mp4,second\nx/../a.mp4,third\n"})
    rows = list_videos(place.join_path("l.csv"))
    assert [(row["caption"], row["problem"] is None) for row in rows] == [
        ("first", True),
        ("second", False),
        ("third", False),
    ]
    assert len({row["source_key"] for row in rows}) == 3


# What a file system can do to one.


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir()
    (real / "a.mp4").write_bytes(b"1")
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(real)
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "self.mp4").symlink_to(folder / "self.mp4")
    (folder / "dangling.mp4").symlink_to(folder / "absent")
    problems = {Path(row["source_path"]).name: row["problem"] for row in list_videos(str(folder))}
    assert problems == {"a.mp4": None, "self.mp4": "missing file", "dangling.mp4": "missing file"}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.mp4")
    assert list_videos(str(tmp_path))[0]["problem"] == "not a regular file"
    assert list_videos(str(tmp_path / "*.mp4"))[0]["problem"] == "not a regular file"


def test_strange_names_come_through(tmp_path: Path) -> None:
    strange = [
        "two\nlines.mp4",
        " lead.mp4",
        "tab\t.mp4",
        "-rf.mp4",
        "a'b\"c.mp4",
        "é.mp4",
        "%2F.mp4",
        "x" * 251 + ".mp4",
    ]
    for i, name in enumerate(strange):
        (tmp_path / name).write_bytes(b"x" * (i + 1))
    rows = list_videos(str(tmp_path))
    assert sorted(Path(row["source_path"]).name for row in rows) == sorted(strange)
    assert build_table(rows, VIDEOS).num_rows == len(strange)
    assert list_videos(str(tmp_path / strange[-1]))[0]["problem"] is None


def test_a_name_that_is_not_utf8_is_accounted_for(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")).write_bytes(b"1")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    rows = list_videos(str(tmp_path))
    assert [row["problem"] for row in rows] == ["its name is not UTF-8: rename it"]
    assert build_table(rows, VIDEOS)["source_path"][0].as_py().endswith(r"\xff.mp4")


def test_what_may_not_be_read_is_accounted_for(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    for name in ("a.mp4", "b.mp4", "shut/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "a.mp4").chmod(0)
    (tmp_path / "shut").chmod(0)
    try:
        problems = {Path(row["source_path"]).name: row["problem"] for row in list_videos(str(tmp_path))}
    finally:
        (tmp_path / "shut").chmod(0o755)
    denied = "cannot be read: permission denied"
    assert problems == {"a.mp4": denied, "b.mp4": None, "shut": denied}


def test_a_store_that_cannot_be_reached_is_not_every_videos_fault(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("path\ns3://absent-bucket/a.mp4\n")
    with pytest.raises(RepriseError, match="no such bucket absent-bucket"):
        list_videos(str(tmp_path / "l.csv"))
    near = s3.put("a.mp4", b"1")
    (tmp_path / "l.csv").write_text(f"path\ns3://absent-bucket/a.mp4\n{near}\n")
    rows = list_videos(str(tmp_path / "l.csv"))
    assert [bool(row["problem"]) for row in rows] == [True, False]


def test_the_sample_videos_are_found(samples_dir: Path) -> None:
    rows = list_videos(str(samples_dir))
    assert len(rows) >= 6 and all(row["problem"] is None for row in rows)
