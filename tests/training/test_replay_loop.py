"""Proxy replay in the loop: LoRA and the subject's token on CogVideoX, alike on every layout of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training import replay_worlds
from tests.training.replay_worlds import replay_config
from tests.training.test_exactness import apart
from tests.training.worlds import launch
from training.errors import RepriseError

LAYOUTS = {"data parallel": {"replicate": 2}, "FSDP2": {"shard": 2}, "Ulysses": {"sequence": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    return launch(replay_worlds.lora_gradients, 1, replay_config(folder), "replay")[0]


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Any]:
    return launch(replay_worlds.run, 1, replay_config(folder))[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_workers_compute_the_gradient_of_one(layout: str, folder: Path, alone: dict[str, Any]) -> None:
    config = replay_config(folder, parallel=LAYOUTS[layout])
    found = launch(replay_worlds.lora_gradients, 2, config, "replay")
    for rank in found:
        assert rank["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert apart(rank["gradients"], alone["gradients"]) < 1e-4
        assert not rank["frozen"]


def test_all_of_lora_and_the_token_are_trained_and_nothing_else(
    folder: Path, trained: dict[str, Any]
) -> None:
    weights = trained["weights"]
    assert {name for name in weights if ".lora_" in name or "subject_token" in name} == set(
        trained["trained"]
    )
    fresh = launch(replay_worlds.run, 1, replay_config(folder, steps=1, run=_run(folder, "one")))[0][
        "weights"
    ]
    for name, weight in weights.items():
        assert torch.equal(weight, fresh[name]) is (name not in trained["trained"]), name


def test_the_run_leaves_a_lora_file_and_the_token(folder: Path, trained: dict[str, Any]) -> None:
    written = load_file(folder / "runs" / "run" / "lora" / "pytorch_lora_weights.safetensors")
    for name, weight in written.items():
        inside = name.removeprefix("transformer.").replace(".weight", ".default.weight")
        assert torch.equal(weight, trained["weights"][inside])
    token = load_file(folder / "runs" / "run" / "lora" / "subject_token.safetensors")["weight"]
    assert torch.equal(token, trained["weights"]["patch_embed.subject_token.weight"])
    assert not (folder / "runs" / "run" / "model").exists()


def test_a_run_starts_from_a_lora_file(folder: Path, trained: dict[str, Any]) -> None:
    """The folder that a run leaves: adapters, and the token beside them."""
    lora = {"rank": 2, "alpha": 1, "dropout": 0.0, "path": str(folder / "runs" / "run" / "lora")}
    config = replay_config(
        folder, steps=1, lora=lora, optimizer={"lr": 1e-12}, run=_run(folder, "again"), parallel={"shard": 2}
    )
    weights = launch(replay_worlds.run, 2, config)[0]["weights"]
    for name, weight in trained["weights"].items():
        if ".lora_" in name or "subject_token" in name:
            torch.testing.assert_close(weights[name], weight)


def test_a_lora_file_that_does_not_fit_ends_the_run_in_one_line(
    folder: Path, trained: dict[str, Any]
) -> None:
    path = str(folder / "runs" / "run" / "lora" / "pytorch_lora_weights.safetensors")
    config = replay_config(folder, lora={"rank": 3, "path": path}, run=_run(folder, "other"))
    (error,) = launch(replay_worlds.run, 1, config)
    assert isinstance(error, RepriseError) and "rank 2, but lora.rank is 3" in str(error)


def test_a_killed_run_of_lora_goes_on_where_it_was(folder: Path, trained: dict[str, Any]) -> None:
    first = replay_config(folder, steps=3, run=_run(folder, "halves"))
    launch(replay_worlds.run, 1, first)
    second = launch(replay_worlds.run, 1, replay_config(folder, run=_run(folder, "halves")))[0]
    assert second["samples"] == trained["samples"][3:]
    for name, weight in trained["weights"].items():
        assert torch.equal(second["weights"][name], weight)


def test_dropout_and_norms_of_references_alone_run_with_recomputed_blocks(folder: Path) -> None:
    lora = {"rank": 2, "alpha": 1, "dropout": 0.2, "scope": "reference_only"}
    results = []
    for mode in ("none", "full"):
        compute = {"precision": "fp32", "checkpointing": mode}
        config = replay_config(folder, steps=2, lora=lora, compute=compute, run=_run(folder, mode))
        results.append(launch(replay_worlds.run, 1, config)[0])
    assert results[0]["losses"] == results[1]["losses"]
    for name, weight in results[0]["weights"].items():
        torch.testing.assert_close(results[1]["weights"][name], weight)


def _run(folder: Path, name: str) -> dict[str, str]:
    return {"name": name, "output": str(folder / "runs")}
