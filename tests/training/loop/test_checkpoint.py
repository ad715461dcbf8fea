"""The checkpoints that a run writes, and how a run resumes from them."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from click.testing import CliRunner

from pipelines.verify import main as verify
from reprise.errors import RepriseError
from reprise.storage import Storage
from tests.s3 import S3
from tests.training import worlds
from tests.training.worlds import Poison, Stop, launch, same, tiny_config
from training.config import CheckpointConfig, OptimizerConfig
from training.loop import checkpoint
from training.loop.checkpoint import list_changed_keys
from training.loop.optimizer import compute_learning_rate
from training.loop.preemption import Preempted
from training.loop.run_folder import RunFolder
from training.models.generation_defaults import GenerationDefaults, read_defaults
from training.playground.random_latents import write_latents


def folder_of(root: Path) -> RunFolder:
    return RunFolder(Storage.from_uri(root / "runs" / "run"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """Three runs of two workers that nothing befalls: below `trained`, `drained` and `counted`."""
    root = tmp_path_factory.mktemp("done")
    calls = [
        (worlds.run, tiny_config(root / "trained")),
        (worlds.drained, tiny_config(root / "drained", checkpoint={"every": 4})),
        (worlds.counted, tiny_config(root / "counted", steps=2, optimizer__schedule="constant")),
    ]
    found = launch(worlds.together, 2, *calls)
    assert [each[2] for each in found] == [0, 0]
    return root, found[1]


def test_a_checkpoint_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert launch(worlds.dies_while_saving, 2, config, 4, dies=True) == [None, None]
    left = {path.name for path in (tmp_path / "runs/run/checkpoints").iterdir()}
    assert left == {"step-00000002", "step-00000004.partial"}
    resumed = launch(worlds.run, 2, config)[0]
    assert len(resumed["losses"]) == 4
    assert folder_of(tmp_path).list_complete_steps() == [4, 6]
    left = {path.name for path in (tmp_path / "runs/run/checkpoints").iterdir()}
    assert left == {"step-00000004", "step-00000006"}


def test_without_its_marker_a_checkpoint_does_not_count(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for step in (1, 2, 3):
        folder.root.write_bytes(f"{folder.get_checkpoint_path(step)}/complete.json", b"{}")
    folder.root.delete_file(f"{folder.get_checkpoint_path(3)}/complete.json")
    assert folder.list_complete_steps() == [1, 2]
    folder.clear_partial()
    assert folder.root.list_folders("checkpoints") == ["step-00000001", "step-00000002"]


def test_the_newest_and_every_so_many_steps_are_kept(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for step in range(10, 100, 10):
        folder.root.write_bytes(f"{folder.get_checkpoint_path(step)}/complete.json", b"{}")
    folder.remove_old_checkpoints(CheckpointConfig(keep=2, keep_every=30))
    assert folder.list_complete_steps() == [30, 60, 80, 90]


def test_a_damaged_checkpoint_and_a_changed_config_are_one_clear_line(tmp_path: Path) -> None:
    config, other = (tiny_config(tmp_path, steps=2, optimizer__clip=clip) for clip in (0.5, 9.0))
    _, changed = launch(worlds.together, 1, (worlds.run, config), (worlds.run, other))[0]
    assert isinstance(changed, RepriseError)
    assert "optimizer.clip=0.5, the config has 9.0: put it back" in str(changed)
    (data,) = (tmp_path / "runs/run/checkpoints/step-00000002").glob("*.distcp")
    data.write_bytes(data.read_bytes()[:1000])
    (damaged,) = launch(worlds.run, 1, tiny_config(tmp_path, steps=2))
    assert isinstance(damaged, RepriseError) and "step-00000002 cannot be read" in str(damaged)


def test_only_settings_of_place_and_speed_may_change(tmp_path: Path) -> None:
    before = tiny_config(tmp_path).model_dump(mode="json")
    now = tiny_config(
        tmp_path, micro_batch=2, parallel={"sequence": 2}, compute__checkpointing="full", run__workers=2
    ).model_dump(mode="json")
    assert list_changed_keys(before, now) == []
    now = tiny_config(tmp_path, batch=8, optimizer__lr=0.5, seed=4, steps=7).model_dump(mode="json")
    assert [key for key, _, _ in list_changed_keys(before, now)] == [
        "optimizer.lr",
        "seed",
        "steps",
        "tasks.0.batch",
    ]
    constant = [tiny_config(tmp_path, steps=n, optimizer__schedule="constant") for n in (6, 9)]
    assert list_changed_keys(*(config.model_dump(mode="json") for config in constant)) == []


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_sample(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    found = launch(worlds.run, 2, config, Poison(step=3, place=2))
    for error in found:
        assert isinstance(error, RepriseError)
        assert "\n" not in str(error)
        assert "step 3: the loss of clip-000" in str(error) and "(index 14) is not finite" in str(error)
        assert "the last good checkpoint is step 2" in str(error)
    assert folder_of(tmp_path).list_complete_steps() == [2]
    resumed = launch(worlds.run, 2, config)[0]  # without the poison it goes on from there
    assert len(resumed["losses"]) == 4 and all(map(math.isfinite, resumed["losses"]))


def test_a_notice_to_one_worker_saves_on_all_and_ends(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, checkpoint={"every": 100})
    for error in launch(worlds.run, 2, config, Stop(1, signal.SIGTERM, rank=1)):
        assert isinstance(error, Preempted) and "step 2 is saved" in str(error)
    assert folder_of(tmp_path).list_complete_steps() == [2]
    assert len(launch(worlds.run, 1, config)[0]["losses"]) == 4


def test_while_machines_drain_training_goes_on_after_one_more_checkpoint(
    done: tuple[Path, list[Any]],
) -> None:
    found = done[1][1]
    assert len(found["losses"]) == 6
    assert [path[-1] for path in found["checkpoints"]] == ["1", "4", "6"]


def test_callbacks_keep_their_state_on_any_number_of_workers(done: tuple[Path, list[Any]]) -> None:
    config = tiny_config(done[0] / "counted", steps=3, optimizer__schedule="constant")
    assert launch(worlds.counted, 1, config) == [2]


def test_every_file_of_a_run_can_be_verified(tmp_path: Path, done: tuple[Path, list[Any]]) -> None:
    run = tmp_path / "run"
    shutil.copytree(done[0] / "trained" / "runs" / "run", run, symlinks=True)

    def verify_run(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(verify, [str(run), *options])
        return result.exit_code, result.output

    assert verify_run()[0] == 0
    victims = [
        next((run / "checkpoints").glob("step-*/__1_*.distcp")),
        run / "model/transformer/diffusion_pytorch_model.safetensors",
    ]
    for victim in victims:
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    assert verify_run("--quick")[0] == 0
    code, text = verify_run()
    assert code == 1
    for victim in victims:
        assert f"damaged  {victim.relative_to(run)}: its content has changed" in text
    victims[0].unlink()
    assert f"damaged  {victims[0].relative_to(run)}: missing" in verify_run("--quick")[1]


def test_the_finished_model_loads_with_diffusers_and_trains_on(
    tmp_path: Path, done: tuple[Path, list[Any]]
) -> None:
    from diffusers import WanTransformer3DModel

    trained = done[1][0]
    model = done[0] / "trained" / "runs" / "run" / "model"
    loaded = WanTransformer3DModel.from_pretrained(model / "transformer")
    assert same(dict(loaded.state_dict()), trained["ema"])
    # Half of the samples are videos of this size, the others pictures; steps and guidance are validation's.
    assert read_defaults(model) == GenerationDefaults(
        height=32, width=32, frames=5, fps=16.0, steps=50, guidance=6.0
    )
    second = tiny_config(tmp_path, model={"path": str(model), "init": "pretrained"})
    for found in launch(worlds.step_gradients, 2, second):
        assert same(found["weights"], trained["ema"])

    (model / "transformer/diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    (error,) = launch(worlds.step_gradients, 1, second)
    assert isinstance(error, RepriseError) and str(error).startswith("cannot read")


def test_a_large_model_is_exported_in_several_files(tmp_path: Path) -> None:
    (found,) = launch(worlds.exported, 1, tiny_config(tmp_path), tmp_path / "E", 20_000)
    assert json.loads((tmp_path / "E/config.json").read_text())["_class_name"] == "WanTransformer3DModel"
    index = json.loads((tmp_path / "E/diffusion_pytorch_model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    from diffusers import WanTransformer3DModel

    assert same(dict(WanTransformer3DModel.from_pretrained(tmp_path / "E").state_dict()), found)


def test_a_run_on_s3_resumes_from_s3(tmp_path: Path, s3: S3) -> None:
    config = tiny_config(tmp_path, run={"name": "run", "output": f"s3://{s3.bucket}/runs"}, steps=4)
    launch(worlds.run, 1, config, Stop(3, signal.SIGKILL), dies=True)
    resumed = launch(worlds.run, 2, config)[0]
    assert len(resumed["losses"]) == 2
    folder = RunFolder.from_config(config.run)
    assert folder.list_complete_steps() == [2, 4]
    assert folder.root.exists("model/transformer/diffusion_pytorch_model.safetensors")


def test_each_tensor_is_read_from_an_object_store_in_one_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    class Counted:
        def __init__(self, folder: Storage, rel: str) -> None:
            self.file, self.rel = open_(folder, rel), rel

        def __enter__(self) -> Counted:
            return self

        def __exit__(self, *raised: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            if name in ("read", "readinto") and self.rel.endswith(".distcp"):
                reads.append(self.rel)
            return getattr(self.file, name)

    open_ = Storage.open_input
    monkeypatch.setattr(Storage, "open_input", lambda folder, rel: Counted(folder, rel))
    wanted = {f"weight {n}": torch.randn(3, 5 + n) for n in range(4)}
    found = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    (tmp_path / "step").mkdir()
    writer, reader = dcp.FileSystemWriter("", sync_files=False), dcp.FileSystemReader("")
    for each in (writer, reader):
        each.fs, each.path = checkpoint._ObjectFileSystem(Storage.from_uri(tmp_path)), "step"
    with checkpoint._silence_warnings():
        dcp.save(wanted, storage_writer=writer, no_dist=True)
        dcp.load(found, storage_reader=reader, no_dist=True)
    assert same(found, wanted)
    assert len(reads) == 4


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "cosine_restarts"])
def test_learning_rates(schedule: str) -> None:
    config = OptimizerConfig.model_validate({"lr": 1.0, "warmup": 4, "schedule": schedule, "cycles": 2})
    rates = [compute_learning_rate(config, step, 12) for step in range(12)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and rates[4] == 1.0
    halfway = {"constant": 1.0, "linear": 0.5, "cosine": 0.5, "cosine_restarts": 1.0}
    assert rates[8] == pytest.approx(halfway[schedule])
    parameter = torch.nn.Parameter(torch.zeros(1))
    if schedule == "cosine":  # as torch has it
        theirs = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([parameter], lr=1.0), T_max=8)
        for rate in rates[4:]:
            assert rate == pytest.approx(theirs.get_last_lr()[0])
            theirs.optimizer.step()
            theirs.step()


def test_an_output_that_workers_do_not_share_is_refused_at_the_start(tmp_path: Path) -> None:
    for error in launch(worlds.run_on_own_disks, 2, tiny_config(tmp_path), tmp_path):
        assert isinstance(error, RepriseError)
        assert "run.output: worker 1 on" in str(error) and "\n" not in str(error)
    assert not list(tmp_path.glob("disk-*/run/*"))


def test_a_damaged_sample_stays_skipped_after_a_resume(tmp_path: Path) -> None:
    """The order of samples is the same though the file was mended between the two halves."""
    latents = tmp_path / "own"
    write_latents(latents, 4, sizes=((1, 4, 4),), channels=4, text_width=8, text_length=6, per_part=1)
    shard = sorted((latents / "data").glob("*.safetensors"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    changes = {
        "tasks": [{"kind": "kaleido", "latents": str(latents), "batch": 4, "micro_batch": 1}],
        "steps": 4,
        "data": {"bad_samples": "skip"},
        "optimizer": {"lr": 1e-2},
    }
    first = launch(worlds.run, 2, tiny_config(tmp_path, **changes))[0]
    facts = [tmp_path / f"runs/run/checkpoints/step-0000000{step}/complete.json" for step in (2, 4)]
    (name, reason), *others = json.loads(facts[0].read_text())["bad_samples"].items()
    assert name.startswith(f"{shard.name}/clip-") and shard.name in reason and not others
    facts[1].unlink()
    shard.write_bytes(whole)
    resumed = launch(worlds.run, 1, tiny_config(tmp_path, **changes))[0]
    assert resumed["losses"] == pytest.approx(first["losses"][2:], rel=1e-5)
    fresh = launch(
        worlds.run, 1, tiny_config(tmp_path, **changes, run={"name": "new", "output": str(tmp_path)})
    )
    assert fresh[0]["losses"][2:] != pytest.approx(first["losses"][2:], rel=1e-4)
