"""`reprise export` as a person runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from tests.curation.dataset.fake_dataset import Fake, write_dataset


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    return write_dataset(tmp_path_factory.mktemp("command") / "dataset", 20, size=(320, 192), seconds=2.0)


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["export", *words])


def test_a_dry_run_counts_and_writes_nothing(fake: Fake, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("--dataset", str(fake.root), "--to", "webdataset", "--output", str(out), "--dry-run")
    assert done.exit_code == 0 and not out.exists()
    assert f"20 clips = {fake.count('kept')} exported + {20 - fake.count('kept')} left out" in done.output


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--to", "webdatset"], "did you mean webdataset?"),
        (["--to", "webdataset", "--where", "widht > 2"], "widht"),
        (["--to", "webdataset", "video.fsp=24"], "video.fps"),
        (["--to", "h3-musubi"], "too short"),
        (["--to", "videox-fun", "--output", "s3://bucket/x"], "absolute paths"),
        (["--to", "webdataset", "--check"], "no finished export"),
        (["--to", "webdataset", "--validation", "2"], "validation"),
    ],
)
def test_bad_input_is_one_line(fake: Fake, tmp_path: Path, words: list[str], reason: str) -> None:
    words = words if "--output" in words else [*words, "--output", str(tmp_path / "out")]
    done = run("--dataset", str(fake.root), *words)
    assert done.exit_code == 2
    assert reason in done.output and len(done.output.splitlines()) == 1


@pytest.mark.ray
def test_workers_write_what_one_process_writes(fake: Fake, tmp_path: Path) -> None:
    arguments = ["--dataset", str(fake.root), "--to", "webdataset", "video.max_frames=30"]
    for name, size in (("many", 4), ("one", 64)):
        done = run(*arguments, "--output", str(tmp_path / name), f"engine.unit_clips={size}")
        assert done.exit_code == 0, done.output
    many = sorted((tmp_path / "many").glob("*.tar"))
    assert len(many) == -(-fake.count("kept") // 4)
    keys = [path.read_bytes()[:512].split(b"\0")[0] for path in many]
    assert keys == sorted(keys)
    assert run("--to", "webdataset", "--output", str(tmp_path / "many"), "--check").exit_code == 0
