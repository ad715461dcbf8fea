"""Killed at any moment and started again, a run gives what an undisturbed one gives."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.runs import Run, curate, files, leftovers, make_videos, rows

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]


def manifest(dataset: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((dataset / "manifest.json").read_text())
    del found["created_at"], found["seconds"]
    return found


def assert_equal(found: Path, wanted: Path) -> None:
    """Every row with every column, every picture, every clip, the manifest; and nothing else left behind."""
    ids = [row["clip_id"] for row in rows(found)]
    assert len(ids) == len(set(ids))
    for mine, other in zip(rows(found), rows(wanted), strict=True):
        assert mine == other, mine["clip_id"]
    assert files(found, "data") == files(wanted, "data")
    assert files(found, "clips") == files(wanted, "clips")
    assert manifest(found) == manifest(wanted)
    assert (found / "report" / "index.html").is_file()
    assert leftovers(found) == []


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_videos(tmp_path_factory.mktemp("input") / "videos", 8)
    (folder / "broken.mp4").write_bytes(b"this is no video" * 100)
    return folder


@pytest.fixture(scope="module")
def undisturbed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "dataset"
    done = curate(videos, output)
    assert done.returncode == 0, done.stderr
    found = rows(output)
    assert {row["status"] for row in found} == {"kept", "failed"}
    made = {each["variant"] for row in found for one in row["subjects"] for each in one["references"]}
    assert made == {"crop", "segment", "inpaint", "redux", "crosspair"}
    assert len(list((output / "data").iterdir())) > 1
    return output


def test_killed_again_and_again_it_ends_like_an_undisturbed_run(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output, log = tmp_path / "dataset", tmp_path / "log"
    draw = random.Random(2026)
    killed = {"driver": 0, "worker": 0}

    def shards() -> int:
        return len(list((output / "data").glob("*"))) if (output / "data").is_dir() else 0

    def wait_for_fragments(run: Run, goal: int) -> bool:
        return run.wait(lambda: run.fragments() >= goal)

    def kill_worker(run: Run) -> None:
        assert run.wait(lambda: bool(run.workers())), log.read_text()
        for pid in draw.sample(run.workers(), 1):
            os.kill(pid, signal.SIGKILL)
            killed["worker"] += 1

    # How many workers are killed before the driver is, and when the driver is: after so many more fragments,
    # and then at random.
    for workers, fragments in ((0, 1), (1, 2), (1, 2), (1, 3)):
        run = Run(videos, output, log=log)
        goal = run.fragments() + fragments
        for _ in range(workers):
            kill_worker(run)
        assert wait_for_fragments(run, goal), log.read_text()
        time.sleep(draw.uniform(0, 0.8))
        run.kill()
        killed["driver"] += 1

    # One more worker, and then the driver while it writes shards.
    run = Run(videos, output, log=log)
    kill_worker(run)
    assert run.wait(lambda: shards() > 0), log.read_text()
    run.kill()
    killed["driver"] += 1
    assert not (output / "manifest.json").exists()

    # Between the manifest and the end.
    run = Run(videos, output, log=log)
    assert run.wait(lambda: (output / "manifest.json").exists()), log.read_text()
    run.kill()
    killed["driver"] += 1
    assert (output / "work").exists()

    last = curate(videos, output)
    assert last.returncode == 0, last.stderr
    assert killed == {"driver": 6, "worker": 4}
    assert_equal(output, undisturbed)
