"""Exports read by the trainers' own loaders, each in an environment of its own: `make test-exports`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from curation.export.build import build_target
from curation.export.config import ExportConfig
from curation.export.export import export_dataset
from curation.export.write import ExportJob
from reprise.settings import with_overrides
from reprise.storage import Storage
from tests.curation.dataset.fake_dataset import Fake, write_dataset
from tests.curation.export.test_export import execute

LOADERS = Path(__file__).with_name("loaders")
ENVIRONMENTS = Path(os.environ.get("REPRISE_LOADERS", ""))


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    root = tmp_path_factory.mktemp("loaders") / "dataset"
    return write_dataset(root, 20, size=(320, 192), seconds=6.0, rows_per_shard=20)


def read_back(loader: str, target: str, fake: Fake, folder: Path) -> list[dict[str, Any]]:
    """Export, and read the export in the environment of a loader; skip where that is not installed."""
    python = ENVIRONMENTS / loader / "bin" / "python"
    if not os.environ.get("REPRISE_LOADERS") or not python.exists():
        pytest.skip(f"no environment of {loader}: make test-exports LOADERS={loader}")
    config = with_overrides(
        ExportConfig(),
        ["engine.unit_clips=4", "references.per_subject=2", "video.preset=ultrafast", "validation=0.3"],
    )
    job = ExportJob(Storage.from_uri(fake.root), Storage.from_uri(folder), build_target(target), config)
    account = export_dataset(job, execute)
    done = subprocess.run(
        [str(python), str(LOADERS / f"read_{loader}.py"), str(folder)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == account.exported["train"] > 0
    captions = {row["caption"] for row in fake.rows if row["status"] == "kept"}
    assert all(each["caption"] in captions for each in found)
    return found


@pytest.mark.parametrize(("loader", "target"), [("webdataset", "webdataset"), ("energon", "energon")])
def test_shards_hold_a_video_its_references_and_its_facts(
    loader: str, target: str, fake: Fake, tmp_path: Path
) -> None:
    found = read_back(loader, target, fake, tmp_path / "out")
    assert all({"mp4", "json", "ref1.jpg", "ref2.jpg"} <= set(each["parts"]) for each in found)
    assert len({each["key"] for each in found}) == len(found)


def test_diffsynth_reads_frames_and_reference_pictures(fake: Fake, tmp_path: Path) -> None:
    found = read_back("diffsynth", "h3-diffsynth", fake, tmp_path / "out")
    assert {each["frames"] for each in found} == {141}
    assert {tuple(each["size"]) for each in found} == {(320, 192)}
    assert all(each["references"] for each in found)
