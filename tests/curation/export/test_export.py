"""An export from start to end, without Ray: what is written, what is left out, kills, foreign folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.export.build import TARGETS, build_target
from curation.export.config import ExportConfig
from curation.export.export import ExportAccount, export_dataset, plan_job
from curation.export.plan import ExportUnit
from curation.export.write import ExportJob, UnitResult, write_unit
from reprise.errors import InputError, RepriseError
from reprise.settings import with_overrides
from reprise.storage import Storage
from tests.curation.dataset.fake_dataset import Fake, write_dataset


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """Twenty rows; the clips are 6 s long, 25 frames per second."""
    root = tmp_path_factory.mktemp("export") / "dataset"
    return write_dataset(root, 20, size=(320, 192), seconds=6.0, rows_per_shard=8)


def make_job(fake: Fake, output: Path, target: str, *overrides: str) -> ExportJob:
    config = with_overrides(ExportConfig(), ["engine.unit_clips=3", *overrides])
    return ExportJob(Storage.from_uri(fake.root), Storage.from_uri(output), build_target(target), config)


def execute(job: ExportJob, units: Sequence[ExportUnit]) -> Iterator[tuple[ExportUnit, UnitResult]]:
    for unit in units:
        yield unit, write_unit(job, unit)


def export(fake: Fake, output: Path, target: str, *overrides: str) -> ExportAccount:
    return export_dataset(make_job(fake, output, target, *overrides), execute)


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_an_export_passes_the_rules_of_its_trainer(fake: Fake, tmp_path: Path, target: str) -> None:
    account = export(fake, tmp_path / "out", target, "video.preset=ultrafast")
    chosen = build_target(target)
    assert account.exported["train"] == fake.count("kept")
    assert (
        account.clips_in == len(fake.rows) == sum(account.exported.values()) + sum(account.left_out.values())
    )
    assert list(chosen.check_export(Storage.from_uri(tmp_path / "out"))) == []
    listed = set((tmp_path / "out" / "export-files.txt").read_text().splitlines())
    assert listed | {"export.json", "export-files.txt"} == set(read_files(tmp_path / "out"))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_killed_export_goes_on_to_the_same_folder(fake: Fake, tmp_path: Path, target: str) -> None:
    fast = ("video.preset=ultrafast", "validation=0.4")
    out = tmp_path / "out"

    def die_after_two(job: ExportJob, units: Sequence[ExportUnit]) -> Iterator[tuple[ExportUnit, UnitResult]]:
        yield from execute(job, units[:2])
        write_unit(job, units[2])  # written, but not noted
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_dataset(make_job(fake, out, target, *fast), die_after_two)
    assert not (out / "export.json").exists()
    export(fake, out, target, *fast)
    resumed = read_files(out)
    again = export(fake, out, target, *fast)
    assert again.was_finished and read_files(out) == resumed
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    out.rename(tmp_path / "resumed")
    export(fake, out, target, *fast)
    assert read_files(out) == resumed


def test_clips_of_one_video_are_never_in_both_splits(fake: Fake, tmp_path: Path) -> None:
    _, plan = plan_job(make_job(fake, tmp_path / "out", "webdataset", "validation=0.5"))
    videos = {
        split: {c.clip_id.rpartition("-")[0] for u in plan.units if u.split == split for c in u.clips}
        for split in ("train", "validation")
    }
    assert videos["train"] and videos["validation"] and not videos["train"] & videos["validation"]


@pytest.mark.parametrize("target", ["h3-musubi", "webdataset"])
def test_a_clip_that_is_missing_or_damaged_is_left_out(tmp_path: Path, target: str) -> None:
    root = tmp_path / "dataset"
    broken = write_dataset(root, 20, size=(320, 192), seconds=6.0, rows_per_shard=8)
    kept = [row for row in broken.rows if row["status"] == "kept"]
    (root / kept[0]["clip_path"]).unlink()
    (root / kept[1]["clip_path"]).write_bytes(b"no video at all" * 100)
    cut = root / kept[2]["clip_path"]
    cut.write_bytes(cut.read_bytes()[:-100])
    account = export(broken, tmp_path / "out", target, "video.preset=ultrafast")
    assert account.left_out["clip is missing"] == 1 and account.left_out["clip is damaged"] == 2
    assert account.exported["train"] == len(kept) - 3
    said = {
        each["clip_id"]: each
        for each in json.loads((tmp_path / "out/export.json").read_text())["left_out_clips"]
    }
    assert kept[1]["clip_path"] in said[kept[1]["clip_id"]]["message"]
    assert list(build_target(target).check_export(Storage.from_uri(tmp_path / "out"))) == []


def test_licences_that_are_excluded_never_go(fake: Fake, tmp_path: Path) -> None:
    job = make_job(fake, tmp_path / "out", "webdataset", "exclude_licenses=[CC0-1.0]")
    _, plan = plan_job(job)
    licences = {row["clip_id"]: row["license"] for row in fake.rows}
    assert {licences[clip.clip_id] for unit in plan.units for clip in unit.clips} == {"CC-BY-4.0", None}


def test_pictures_are_what_the_target_wants(fake: Fake, tmp_path: Path) -> None:
    export(fake, tmp_path / "out", "videox-fun", "references.shares={segment: 1}")
    entry = json.loads((tmp_path / "out/train.json").read_text())[0]
    picture = cv2.imread(entry["object_file_path"][0], cv2.IMREAD_UNCHANGED)
    assert picture.ndim == 3 and picture.shape[2] == 3
    assert np.array_equal(picture[0, 0], [255, 255, 255])  # white behind the cut-out


def test_clips_that_go_as_they_are_are_linked(fake: Fake, tmp_path: Path) -> None:
    export(fake, tmp_path / "out", "videox-fun")
    row = next(row for row in fake.rows if row["status"] == "kept")
    assert (tmp_path / f"out/videos/{row['clip_id']}.mp4").samefile(fake.root / row["clip_path"])


# --- bad places -----------------------------------------------------------------------------------------


def test_a_folder_with_other_files_is_refused(fake: Fake, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.txt: give an empty folder"):
        export(fake, out, "webdataset")
    with pytest.raises(InputError, match="give an empty folder"):
        export_dataset(make_job(fake, out, "webdataset"), execute, overwrite=True)
    assert (out / "thesis.txt").read_text() == "mine"


def test_other_settings_are_refused_or_replace_what_the_export_wrote(fake: Fake, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(fake, out, "webdataset", "seed=1")
    with pytest.raises(InputError, match="--overwrite"):
        export(fake, out, "webdataset", "seed=2", "engine.unit_clips=8")
    (out / "notes.txt").write_text("mine")
    export_dataset(
        make_job(fake, out, "webdataset", "seed=2", "engine.unit_clips=8"), execute, overwrite=True
    )
    assert (out / "notes.txt").read_text() == "mine"
    shards = sorted(path.name for path in out.glob("*.tar"))
    assert shards == (out / "train.txt").read_text().split()


def test_nothing_to_export_is_said(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of 20 clips can be exported to h3-musubi: .*too short"):
        export(fake, tmp_path / "out", "h3-musubi", "video.max_frames=60")
    with pytest.raises(InputError, match="no finished dataset at"):
        export(Fake(tmp_path / "nothing"), tmp_path / "out", "webdataset")
    with pytest.raises(InputError, match="did you mean webdataset"):
        build_target("webdatasets")
    assert not (tmp_path / "out").exists()


# --- checkers fail on broken exports ------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["video", "cut", "picture", "caption", "too many", "rate"])
def test_a_broken_export_does_not_pass(fake: Fake, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    export(fake, out, "h3-musubi", "video.preset=ultrafast", "references.per_subject=2")
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    first = lines[0]
    video, picture = out / first["video_path"], out / first["references"][0]["path"]
    if damage == "video":
        video.unlink()
    elif damage == "cut":
        video.write_bytes(video.read_bytes()[:-2000])
    elif damage == "picture":
        picture.write_bytes(b"no picture")
    elif damage == "caption":
        first["caption"] = ""
    elif damage == "too many":
        first["references"] *= 10
    else:
        video.unlink()
        video.write_bytes(
            (fake.root / next(r for r in fake.rows if r["clip_path"])["clip_path"]).read_bytes()
        )
    (out / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        problems = list(build_target("h3-musubi").check_export(Storage.from_uri(out)))
    except RepriseError as error:
        problems = [str(error)]
    assert problems and all("\n" not in problem for problem in problems)
