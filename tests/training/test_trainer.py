"""Lost workers and notices to go, on Ray itself: the run ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from reprise.errors import RepriseError, WorkersLostError
from reprise.ray_session import ray_session
from tests.training import worlds
from tests.training.worlds import flaky_storage, launch, make_failing_callbacks, tiny_config
from training import trainer
from training.loop.run_folder import RunFolder
from training.trainer import run_training


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_session("local", min_cpus=2):
        yield


@pytest.mark.ray
@pytest.mark.timeout(900)  # workers are started three times; a minute where nothing else runs
def test_a_run_outlives_a_notice_and_a_killed_worker(tmp_path: Path, cluster: None) -> None:
    common = {"checkpoint": {"every": 4, "keep": 9}, "steps": 6}
    undisturbed = launch(worlds.run, 2, tiny_config(tmp_path, **common))[0]
    # One failure without progress is allowed; there are two, with a checkpoint between them.
    run = {"name": "ray", "output": str(tmp_path / "runs"), "workers": 2, "max_failures": 1}

    result = run_training(
        tiny_config(tmp_path, **common, run=run), partial(make_failing_callbacks, tmp_path, 2, 5)
    )

    # Every fourth step is saved, and an early one because of the notice; the fifth was lost.
    starts = [int(line) for line in (tmp_path / "starts").read_text().split()]
    assert starts[0] == 0 and starts[1] in (2, 3) and starts[2] == 4
    assert result.steps == 6 and result.metrics["loss"] == undisturbed["losses"][-1]
    found = load_file(Path(result.model) / "transformer" / "diffusion_pytorch_model.safetensors")
    assert worlds.same(found, undisturbed["ema"])


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_store_that_does_not_respond_is_tried_again(tmp_path: Path, cluster: None) -> None:
    run = {"name": "ray", "output": str(tmp_path / "runs")}
    config = tiny_config(tmp_path, checkpoint={"every": 2}, steps=4, run=run)
    assert run_training(config, partial(flaky_storage, tmp_path, 3)).steps == 4
    assert (tmp_path / "flaked").exists()


def test_a_run_folder_that_cannot_be_made_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    config = tiny_config(tmp_path, run={"output": str(tmp_path / "runs")})
    with pytest.raises(RepriseError, match=r"runs/.*a file and a folder share a name"):
        run_training(config)


def test_failures_without_a_new_checkpoint_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.train import TrainingFailedError

    steps = iter([0, 0, 2, 2, 2, 4])  # the newest checkpoint at the start and after each attempt
    attempts: list[int] = []

    class LostWorker:
        def fit(self) -> None:
            attempts.append(1)
            raise TrainingFailedError("a worker died")

    monkeypatch.setattr(trainer, "_make_trainer", lambda *_: LostWorker())
    monkeypatch.setattr(trainer, "_get_worker_gpus", lambda _: 0.0)
    monkeypatch.setattr(trainer, "_check_resources", lambda *_: None)
    monkeypatch.setattr(trainer, "_get_last_step", lambda _: next(steps))
    run = {"name": "ray", "output": str(tmp_path / "runs"), "max_failures": 2}
    config = tiny_config(tmp_path, run=run)
    with pytest.raises(WorkersLostError, match=r"failed 3 times without a new checkpoint.*: a worker died"):
        trainer._run_trainer(config, lambda _: [], RunFolder.from_config(config.run), True)
    assert len(attempts) == 4


@pytest.mark.ray
def test_an_error_that_a_restart_cannot_correct_is_one_line(tmp_path: Path, cluster: None) -> None:
    config = tiny_config(tmp_path, run={"name": "ray", "output": str(tmp_path / "runs"), "max_failures": 5})
    (tmp_path / "latents" / "index.parquet").write_bytes(b"no parquet")
    with pytest.raises(RepriseError, match=r"index\.parquet is not Parquet"):
        run_training(config, partial(make_failing_callbacks, tmp_path, 0, 0))
    assert not (tmp_path / "starts").exists()
