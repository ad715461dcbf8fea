"""`reprise curate` as a person runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.dataset.layout import WORK_FOLDER
from tests.pipelines.runs import Run, curate, files, make_videos, rows
from tests.s3 import S3

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("input") / "videos", 3)


def one_line(text: str) -> str:
    """The error, if it is the only line of output about one."""
    lines = [line for line in text.splitlines() if line.startswith("error ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


# --- a dataset that grows -----------------------------------------------------------------------------


@pytest.mark.ray
def test_a_folder_that_grows_gives_what_it_would_have_given_at_once(three: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "videos", tmp_path / "dataset"
    shutil.copytree(three, source)
    first = curate(source, output)
    assert first.returncode == 0, first.stderr
    assert "ray" not in (first.stdout + first.stderr).lower(), "Ray's messages are not for a user"

    again = curate(source, output)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout

    make_videos(source, 1, first=7)
    grown = curate(source, output)
    assert grown.returncode == 0, grown.stderr
    assert "3 of 4 were finished by an earlier run" in grown.stderr
    assert curate(source, tmp_path / "fresh").returncode == 0
    assert rows(output) == rows(tmp_path / "fresh")
    assert files(output, "data") == files(tmp_path / "fresh", "data")
    assert files(output, "clips") == files(tmp_path / "fresh", "clips")

    other = curate(source, output, "seed=7")
    assert other.returncode == 2
    assert "seed: 0 there, 7 now" in one_line(other.stderr)


# --- stopping -----------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_stopping_is_quick_and_prints_how_to_resume(three: Path, tmp_path: Path, how: str) -> None:
    for attempt in range(3):  # on a busy machine the run may end before the signal reaches it
        dataset = tmp_path / f"dataset-{attempt}"
        run = Run(three, dataset, log=tmp_path / "log")
        assert run.wait(lambda run=run: run.fragments() > 0)
        since = time.monotonic()
        if how == "ctrl-c":
            run.signal(signal.SIGINT)
        else:
            run.family()
            run.process.terminate()
        if run.process.wait(30) != 0:
            break
    assert run.process.returncode == 130
    assert time.monotonic() - since < 10
    assert run.clean_up() == []
    log = run.log.read_text()
    assert "run the same command again to go on" in log
    assert "Traceback" not in log
    assert "SIGTERM" not in log
    assert run.fragments() > 0
    done = curate(three, dataset)
    assert done.returncode == 0, done.stderr
    assert len(rows(dataset)) == 12


# --- bad input ----------------------------------------------------------------------------------------


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    done = curate(tmp_path / "videos", tmp_path / "dataset")
    assert done.returncode == 2
    assert "no video in" in one_line(done.stderr)
    assert not (tmp_path / "dataset").exists()


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    done = curate(tmp_path / "nowhere", tmp_path / "dataset")
    assert done.returncode == 2
    assert "no such file or folder" in one_line(done.stderr)


@pytest.mark.ray
def test_if_no_video_can_be_read_the_reason_and_all_counts_are_printed(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.mp4").write_bytes(b"no video" * (10 + number))
    done = curate(folder, tmp_path / "dataset")
    assert done.returncode == 1
    assert "no video could be used" in done.stderr
    assert "not a readable video" in done.stderr
    manifest = json.loads((tmp_path / "dataset" / "manifest.json").read_text())
    assert manifest["videos"] == {"in": 3, "kept": 0, "rejected": 0, "failed": 3}
    assert {row["status"] for row in rows(tmp_path / "dataset")} == {"failed"}
    assert curate(folder, tmp_path / "dataset").returncode == 1


@pytest.mark.ray
def test_a_video_that_kills_its_worker_fails_only_itself(three: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "videos", tmp_path / "dataset"
    shutil.copytree(three, source)
    (source / "ball-01.txt").write_text("A cat and a ball.")
    deadly = "models.detector=tests.pipelines.backends:DeadlyDetector"
    done = curate(source, output, deadly)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["videos"] == {"in": 3, "kept": 0, "rejected": 2, "failed": 1}
    failed = [row for row in rows(output) if row["status"] == "failed"]
    assert [Path(row["source_path"]).name for row in failed] == ["ball-01.mp4"]
    assert "worker process died" in failed[0]["stop"]["reason"]
    assert len(rows(output)) == 4 + 4 + 1

    again = curate(source, output, deadly, env={"LIVELY": "1"})
    assert "2 of 3 were finished by an earlier run" in again.stderr
    assert {row["status"] for row in rows(output)} == {"rejected"}
    assert len(rows(output)) == 4 + 4 + 4


# --- bad places ---------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a small disk")
    yield disk
    # Detached at once: a worker of Ray that is still ending may hold a file open for some seconds.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.ray
def test_a_full_disk_is_one_line_and_fails_no_video(three: Path, tmp_path: Path, small_disk: Path) -> None:
    output = small_disk / "dataset"
    done = curate(three, output)
    assert done.returncode == 2, done.stderr
    assert "no space left" in one_line(done.stderr)
    assert not (output / "manifest.json").exists()

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = curate(three, output)
    assert done.returncode == 2
    assert "read-only" in one_line(done.stderr)

    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(small_disk)], check=True)
    done = curate(three, output)
    assert done.returncode == 0, done.stderr
    assert {row["status"] for row in rows(output)} <= {"kept", "rejected"}
    assert len(rows(output)) == 12


# --- S3 -----------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_from_s3_to_s3_killed_or_not(three: Path, s3: S3, tmp_path: Path) -> None:
    for path in sorted(three.iterdir())[:4]:
        s3.put(f"videos/{path.name}", path.read_bytes())
    done = curate(f"{s3.uri}/videos", f"{s3.uri}/dataset")
    assert done.returncode == 0, done.stderr
    keys = s3.keys()
    manifest = json.loads(s3.get("dataset/manifest.json"))
    assert manifest["videos"]["in"] == 2
    assert manifest["clips"]["in"] == 8
    assert sum(key.startswith("dataset/clips/") for key in keys) == 8
    assert "dataset/report/index.html" in keys
    assert not [key for key in keys if f"/{WORK_FOLDER}/" in key]
    again = curate(f"{s3.uri}/videos", f"{s3.uri}/dataset")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout

    stored = s3.keys
    run = Run(f"{s3.uri}/videos", f"{s3.uri}/killed", "engine.num_cpus=1", log=tmp_path / "log")
    assert run.wait(lambda: any("/rows/" in key for key in stored())), run.log.read_text()
    run.kill()
    assert "killed/manifest.json" not in stored()
    resumed = curate(f"{s3.uri}/videos", f"{s3.uri}/killed")
    assert resumed.returncode == 0, resumed.stderr

    def content(dataset: str) -> dict[str, bytes]:
        prefixes = (f"{dataset}/data/", f"{dataset}/clips/")
        return {key.partition("/")[2]: s3.get(key) for key in stored() if key.startswith(prefixes)}

    assert content("killed") == content("dataset")
    assert not [key for key in stored() if f"/{WORK_FOLDER}/" in key]
    other = json.loads(s3.get("killed/manifest.json"))
    for each in (manifest, other):
        del each["created_at"], each["seconds"]
    assert other == manifest
