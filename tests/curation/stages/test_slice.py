"""The slice stage: for any files in the folder, every video gives rows, and none raises an exception."""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from curation.config import CurationConfig, compute_config_hash, load_config
from curation.dataset.fragments import Fragments
from curation.rows.schema import CLIPS, ClipRow, VideoRow
from curation.rows.tables import build_table
from curation.rows.verdicts import DECODER_STALLED
from curation.runner.resume import list_pending_videos
from curation.stages import slice as slice_stage
from curation.stages.slice import Slice
from curation.video import cut, slicer
from reprise.errors import RepriseError
from reprise.settings import with_overrides
from reprise.storage import Storage
from reprise.video import open_video
from reprise.video.decode import DecodedFrame
from reprise.video.open_video import OpenVideo
from tests.faults import make_fault_corpus
from tests.videos import shots, write_video

CONFIG = load_config(overrides=["slice.min_length=1", "slice.max_length=2", "slice.sample_fps=1"])


def row_of(path: Path | str, problem: str | None = None, skip: list[str] | None = None) -> VideoRow:
    return {
        "source_path": str(path),
        "source_key": f"key of {path}",
        "size": 0,
        "caption": "a square",
        "caption_source": "sidecar",
        "license": "CC0",
        "extra": '{"k": 1}',
        "problem": problem,
        "skip_clip_ids": skip or [],
    }


def slice_video(dataset: Path, video: VideoRow, config: CurationConfig = CONFIG) -> list[ClipRow]:
    return list(Slice(config, Storage.from_uri(dataset), "hash")(video))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Five clips of 50, 35, 25, 45 and 25 frames, and a shot too short in between."""
    return write_video(tmp_path / "v.mp4", shots([50, 60, 20, 70], 96, 72))


def test_rows_fit_the_schema_and_name_files_that_are_there(tmp_path: Path, video: Path) -> None:
    rows = slice_video(tmp_path / "out", row_of(video))
    build_table(rows, CLIPS)
    assert [row["clip_index"] for row in rows] == list(range(6))
    assert [row["clip_count"] for row in rows] == [0] * 5 + [6]
    assert [row["status"] for row in rows] == ["open"] * 3 + ["rejected"] + ["open"] * 2
    for row in rows:
        assert (row["caption"], row["license"], row["extra"]) == ("a square", "CC0", '{"k": 1}')
        if row["status"] == "open":
            assert row["clip_path"] is not None
            with av.open(str(tmp_path / "out" / row["clip_path"])) as clip:
                frames = sum(1 for _ in clip.decode(video=0))
            assert frames == row["num_frames"] == (row["end_frame"] or 0) - (row["start_frame"] or 0)
            assert row["frames"]


def test_clips_leave_nothing_behind_in_the_temporary_folder(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    slice_video(tmp_path / "out", row_of(video))
    stage = Slice(CONFIG, Storage.from_uri(tmp_path / "other"), "hash")(row_of(video))
    next(stage)
    stage.close()  # type: ignore[attr-defined]  # a consumer may stop midway
    assert list(scratch.iterdir()) == []


def test_the_same_video_gives_the_same_rows_and_files(tmp_path: Path, video: Path) -> None:
    first, again = (slice_video(tmp_path / name, row_of(video)) for name in ("a", "b"))
    assert first == again
    assert files(tmp_path / "a") == files(tmp_path / "b")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.mp4")}


@pytest.mark.parametrize(
    "missing", [[0], [3], [5], [0, 5], [1, 2], [4, 5], [0, 1, 2, 3, 4]], ids=lambda each: str(each)
)
def test_after_an_interruption_only_the_missing_rows_are_made_and_they_are_the_same(
    tmp_path: Path, video: Path, missing: list[int]
) -> None:
    whole = slice_video(tmp_path / "a", row_of(video))
    fragments = Fragments(Storage.from_uri(tmp_path / "a"), "hash")
    fragments.write_rows([row for i, row in enumerate(whole) if i not in missing], {})
    (left,) = list_pending_videos(fragments.read_index().rows, [row_of(video)])
    rows = slice_video(tmp_path / "b", left)
    assert strip(rows) == strip([whole[i] for i in missing])
    assert all(content == files(tmp_path / "a")[name] for name, content in files(tmp_path / "b").items())
    assert len(files(tmp_path / "b")) == sum(row["status"] == "open" for row in rows)
    # With them the video is finished: its last row, of either run, has the number of rows.
    fragments.write_rows(rows, {})
    entries = fragments.read_index().rows
    assert list_pending_videos(entries, [row_of(video)]) == []
    assert sorted(entry.clip_count for entry in entries) == [0] * 5 + [6]


def strip(rows: list[ClipRow]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "payload_bytes"} for row in rows]


def test_a_missing_tail_that_is_done_is_not_reported_again(tmp_path: Path) -> None:
    half = write_video(tmp_path / "v.mp4", shots([50, 50, 50], 96, 72), faststart=True)
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    whole = slice_video(tmp_path / "a", row_of(half))
    assert [row["status"] for row in whole][-1] == "failed"
    skip = [row["clip_id"] for row in whole[1:]]
    assert [row["clip_id"] for row in slice_video(tmp_path / "b", row_of(half, skip=skip))] == [
        whole[0]["clip_id"]
    ]


def test_a_video_that_gave_nothing_is_not_reported_again(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"")
    (row,) = slice_video(tmp_path / "a", row_of(tmp_path / "v.mp4"))
    assert row["clip_count"] == 1
    assert slice_video(tmp_path / "a", row_of(tmp_path / "v.mp4", skip=[row["clip_id"]])) == []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, make_fault_corpus(folder)


def test_every_file_of_the_fault_corpus_ends_in_rows(
    tmp_path: Path, corpus: tuple[Path, dict[str, str]]
) -> None:
    folder, expected = corpus
    found: dict[str, str] = {}
    for name in expected:
        rows = slice_video(tmp_path / "out", row_of(folder / name), CurationConfig())
        build_table(rows, CLIPS)
        assert [row["clip_count"] for row in rows][-1] == len(rows)
        statuses = {row["status"] for row in rows}
        found[name] = "ok" if "open" in statuses else "failed" if "failed" in statuses else "rejected"
        for row in rows:
            if row["stop"]:
                assert_a_sentence(row["stop"]["reason"])
    # A missing caption and a duplicate are for other rooms to see.
    expected = {**expected, "no_caption.mp4": "ok", "zz_copy_of_plain.mp4": "ok"}
    assert found == expected


def assert_a_sentence(reason: str) -> None:
    assert re.match(r"^[a-z]+ [a-z]+", reason), reason
    assert not re.search(r"Traceback|Error|Exception|Errno|0x[0-9a-f]{6}|\n|<", reason), reason
    assert len(reason) < 150


def test_each_kind_of_unusable_file_has_its_reason(
    tmp_path: Path, corpus: tuple[Path, dict[str, str]]
) -> None:
    folder, _ = corpus
    reasons = {
        "zero_bytes.mp4": "the file is empty",
        "text.mp4": "not a readable video",
        "sound_alone.mp4": "no video stream",
        "without_index.mp4": "not a readable video",
        "damaged_midway.mp4": "damaged frames",
        "one_frame.mp4": "shot too short",
    }
    for name, words in reasons.items():
        (row,) = slice_video(tmp_path / "out", row_of(folder / name), CurationConfig())
        assert row["stop"] is not None and row["stop"]["reason"].startswith(words)
        assert row["clip_path"] is None and row["frames"] == []


def test_what_is_there_of_a_broken_download_gives_clips(
    tmp_path: Path, corpus: tuple[Path, dict[str, str]]
) -> None:
    rows = slice_video(tmp_path / "out", row_of(corpus[0] / "half_missing.mp4"), CurationConfig())
    assert [row["status"] for row in rows] == ["open", "failed"]
    stop = rows[1]["stop"]
    assert stop is not None and stop["reason"] == "the file ends early: frames that could be read"
    assert stop["value"] == rows[0]["end_frame"] and stop["threshold"] == 160


def test_a_video_with_a_known_problem_is_not_opened(tmp_path: Path) -> None:
    (row,) = slice_video(tmp_path, row_of("/nowhere.mp4", "cannot be read: permission denied"))
    assert (row["status"], row["video_id"], row["clip_count"]) == ("failed", None, 1)
    (row,) = slice_video(tmp_path, row_of("/nowhere.mp4", "duplicate of /other.mp4"))
    assert row["status"] == "rejected" and row["stop"] is not None
    assert row["stop"]["reason"] == "duplicate of /other.mp4"


def test_a_removed_file_fails_only_its_video(tmp_path: Path) -> None:
    (row,) = slice_video(tmp_path, row_of("/nowhere/v.mp4"))
    assert row["status"] == "failed" and row["stop"] is not None
    assert row["stop"]["reason"] == "no such file: /nowhere/v.mp4"


def test_a_dataset_that_cannot_be_written_ends_the_run(tmp_path: Path, video: Path) -> None:
    (tmp_path / "out").write_text("a file where the dataset should be")
    with pytest.raises(RepriseError, match="a file and a folder share a name"):
        slice_video(tmp_path / "out", row_of(video))


def test_a_full_disk_under_the_dataset_ends_the_run(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Storage, local: Path, rel: str) -> None:
        raise RepriseError("no space left on /data")

    monkeypatch.setattr(Storage, "put_file", full)
    with pytest.raises(RepriseError, match="no space left on /data"):
        slice_video(tmp_path / "out", row_of(video))


def test_a_full_temporary_folder_ends_the_run(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cut.ClipCopier, "close_file", full)
    with pytest.raises(RepriseError, match=r"no space left on .*TMPDIR"):
        slice_video(tmp_path / "out", row_of(video))


def test_no_room_for_a_download_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(uri: str) -> Iterator[Path]:
        raise RepriseError("no space left on /tmp") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(slice_stage, "fetch_file", full)
    with pytest.raises(RepriseError, match="no space left on /tmp"):
        slice_video(tmp_path / "out", row_of("s3://bucket/v.mp4"))


@pytest.mark.parametrize("broken", [ValueError("weird\nlines"), RuntimeError("odd"), MemoryError()])
def test_an_unexpected_exception_fails_only_its_video(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch, broken: Exception
) -> None:
    def fails(self: Any) -> int:
        raise broken

    monkeypatch.setattr(cut.ClipEncoder, "close_file", fails)
    config = load_config(overrides=["slice.min_length=1", "slice.cut=encode"])
    (row,) = slice_video(tmp_path / "out", row_of(video), config)
    assert row["status"] == "failed" and row["video_id"] and row["stop"] is not None
    assert row["stop"]["reason"].startswith("slicing failed (") and "\n" not in row["stop"]["reason"]


# --- a decoder that hangs -----------------------------------------------------------------------------


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Native decoding that never returns, after 100 frames of a video."""
    woken = threading.Event()
    decoding = slicer.decode_frames

    def decode(source: OpenVideo) -> Iterator[DecodedFrame]:
        for frame in decoding(source):
            if frame.index == 100 and "hangs" in Path(source.container.name).name:
                woken.wait()
            yield frame

    monkeypatch.setattr(slicer, "decode_frames", decode)
    yield
    woken.set()


def test_a_decoder_that_hangs_fails_the_rest_of_its_video_and_the_stage_continues(
    tmp_path: Path, video: Path, hanging: None
) -> None:
    config = with_overrides(CONFIG, ["slice.timeout=0.5"])
    stage = Slice(config, Storage.from_uri(tmp_path / "out"), "hash")
    stuck = video.rename(tmp_path / "hangs.mp4")
    rows = list(stage(row_of(stuck)))
    assert [row["status"] for row in rows] == ["open"] * (len(rows) - 1) + ["failed"]
    assert rows[-1]["stop"] == {"stage": "slice", "reason": DECODER_STALLED, "value": None, "threshold": 0.5}
    assert rows[-1]["clip_count"] == len(rows) == 2
    fine = stuck.rename(tmp_path / "fine.mp4")
    others = list(stage(row_of(fine)))
    assert [row["status"] for row in others] == ["open"] * 3 + ["rejected"] + ["open"] * 2
    assert others[0]["clip_id"] == rows[0]["clip_id"]


def test_a_file_that_cannot_even_be_opened_in_time_fails(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken = threading.Event()
    monkeypatch.setattr(open_video.av, "open", lambda *_, **__: woken.wait())
    (row,) = slice_video(tmp_path / "out", row_of(video), with_overrides(CONFIG, ["slice.timeout=0.1"]))
    assert row["stop"]["reason"] == DECODER_STALLED
    woken.set()


def test_how_long_is_waited_is_no_other_slicing(tmp_path: Path, video: Path) -> None:
    config = with_overrides(CONFIG, ["slice.timeout=7"])
    assert compute_config_hash(config, {}) == compute_config_hash(CONFIG, {})
    ids = [
        [row["clip_id"] for row in slice_video(tmp_path / "out", row_of(video), c)] for c in (config, CONFIG)
    ]
    assert ids[0] == ids[1]
