"""Proxy replay in the loop: LoRA and the subject's token on CogVideoX, alike on every layout of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reprise.errors import RepriseError
from tests.training import replay_worlds
from tests.training.loop.test_exactness import get_relative_distance
from tests.training.replay_worlds import replay_config
from tests.training.worlds import launch, together
from training.playground.random_latents import write_latents

LAYOUTS = {"data parallel": {"replicate": 2}, "FSDP2": {"shard": 2}, "Ulysses": {"sequence": 2}}
#: 27 tokens of video, 6 of the reference and 7 of the text.
ODD: dict[str, Any] = {"sizes": ((3, 6, 6),), "reference_sizes": {"frame": (4, 6)}, "subjects": (1,)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    """On one worker: the gradient of one step, and runs."""
    dropped = {"rank": 2, "alpha": 1, "dropout": 0.2, "scope": "reference_only"}
    calls: dict[str, tuple[Any, ...]] = {
        "step": (replay_worlds.lora_gradients, replay_config(folder), "replay"),
        "run": (replay_worlds.run, replay_config(folder)),
        "one": (replay_worlds.run, replay_config(folder, steps=1, run=_run(folder, "one"))),
        "half": (replay_worlds.run, replay_config(folder, steps=3, run=_run(folder, "halves"))),
    }
    for mode in ("none", "full"):
        compute = {"precision": "fp32", "checkpointing": mode}
        config = replay_config(folder, steps=2, lora=dropped, compute=compute, run=_run(folder, mode))
        calls[mode] = (replay_worlds.run, config)
    return dict(zip(calls, launch(together, 1, *calls.values())[0], strict=True))


@pytest.fixture(scope="module")
def trained(one: dict[str, Any]) -> dict[str, Any]:
    run: dict[str, Any] = one["run"]
    return run


@pytest.fixture(scope="module")
def file(folder: Path, trained: dict[str, Any]) -> str:
    """The LoRA file that the run has left."""
    return str(folder / "runs" / "run" / "lora" / "pytorch_lora_weights.safetensors")


@pytest.fixture(scope="module")
def later(folder: Path, one: dict[str, Any], file: str) -> list[Any]:
    """On one worker of another process: the rest of a run, and one from a LoRA file that does not fit."""
    other = replay_config(folder, lora={"rank": 3, "path": file}, run=_run(folder, "other"))
    halves = replay_config(folder, run=_run(folder, "halves"))
    found: list[Any] = launch(together, 1, (replay_worlds.run, halves), (replay_worlds.run, other))[0]
    return found


@pytest.fixture(scope="module")
def two(folder: Path, file: str) -> list[dict[str, Any]]:
    """By rank of two: the gradient of one step in each layout, and a run from a LoRA file."""
    calls: dict[str, tuple[Any, ...]] = {
        name: (replay_worlds.lora_gradients, replay_config(folder, parallel=parallel), "replay")
        for name, parallel in LAYOUTS.items()
    }
    lora = {"rank": 2, "alpha": 1, "dropout": 0.0, "path": str(Path(file).parent)}
    again = replay_config(
        folder, steps=1, lora=lora, optimizer={"lr": 1e-12}, run=_run(folder, "again"), parallel={"shard": 2}
    )
    calls["again"] = (replay_worlds.run, again)
    return [dict(zip(calls, found, strict=True)) for found in launch(together, 2, *calls.values())]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_workers_compute_the_gradient_of_one(
    layout: str, one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    for rank in two:
        assert rank[layout]["loss"] == pytest.approx(one["step"]["loss"], rel=1e-5)
        assert get_relative_distance(rank[layout]["gradients"], one["step"]["gradients"]) < 1e-4
        assert not rank[layout]["frozen"]


def test_only_lora_and_the_token_are_trained(one: dict[str, Any], trained: dict[str, Any]) -> None:
    weights = trained["weights"]
    assert {name for name in weights if ".lora_" in name or "subject_token" in name} == set(
        trained["trained"]
    )
    fresh = one["one"]["weights"]
    for name, weight in weights.items():
        assert torch.equal(weight, fresh[name]) is (name not in trained["trained"]), name


def test_workers_share_text_and_video_of_any_length(folder: Path) -> None:
    facts = {"channels": 4, "text_width": 12, "text_length": 7, "family": "cogvideox"}
    latents = folder / "odd"
    write_latents(latents, 4, variants=("frame", "frame"), **ODD, **facts)
    task = {"kind": "replay", "latents": str(latents), "batch": 2, "micro_batch": 1, "token_dropout": 0.0}
    config = replay_config(folder, tasks=[task])
    alone = launch(replay_worlds.lora_gradients, 1, config, "replay")[0]
    shared = launch(
        replay_worlds.lora_gradients,
        2,
        replay_config(folder, tasks=[task], parallel={"sequence": 2}),
        "replay",
    )
    for found in shared:
        assert found["loss"] == pytest.approx(alone["loss"], rel=1e-6)
        assert get_relative_distance(found["gradients"], alone["gradients"]) < 1e-5


def test_frozen_weights_in_bf16_give_the_run_of_float32(folder: Path) -> None:
    """bf16 computes with rounded weights in any case: losses and adapters are the same, bit for bit."""
    compute = {"precision": "bf16", "checkpointing": "none"}
    runs = {
        frozen: (
            replay_worlds.run,
            replay_config(
                folder,
                steps=3,
                lora={"rank": 2, "alpha": 1, "dropout": 0.0, "frozen": frozen},
                compute=compute,
                run=_run(folder, f"frozen-{frozen}"),
            ),
        )
        for frozen in ("compute", "fp32")
    }
    for found in launch(together, 2, *runs.values()):
        bf16, fp32 = found
        assert bf16["losses"] == fp32["losses"] and bf16["trained"] == fp32["trained"]
        for name, weight in bf16["weights"].items():
            trained = name in bf16["trained"]
            assert weight.dtype == (torch.float32 if trained else torch.bfloat16)
            assert torch.equal(weight, fp32["weights"][name].to(weight.dtype)), name


def test_the_run_leaves_a_lora_file_and_the_token(folder: Path, trained: dict[str, Any]) -> None:
    written = load_file(folder / "runs" / "run" / "lora" / "pytorch_lora_weights.safetensors")
    for name, weight in written.items():
        inside = name.removeprefix("transformer.").replace(".weight", ".default.weight")
        assert torch.equal(weight, trained["weights"][inside])
    token = load_file(folder / "runs" / "run" / "lora" / "subject_token.safetensors")["weight"]
    assert torch.equal(token, trained["weights"]["patch_embed.subject_token.weight"])
    assert (folder / "runs" / "run" / "lora" / "generation.json").is_file()
    assert not (folder / "runs" / "run" / "model").exists()


def test_a_run_starts_from_a_lora_file(trained: dict[str, Any], two: list[dict[str, Any]]) -> None:
    """The folder that a run leaves: adapters, and the token beside them."""
    weights = two[0]["again"]["weights"]
    for name, weight in trained["weights"].items():
        if ".lora_" in name or "subject_token" in name:
            torch.testing.assert_close(weights[name], weight)


def test_a_lora_file_that_does_not_fit_ends_the_run_in_one_line(later: list[Any]) -> None:
    assert isinstance(later[1], RepriseError) and "rank 2, but lora.rank is 3" in str(later[1])


def test_a_killed_run_of_lora_goes_on_where_it_was(trained: dict[str, Any], later: list[Any]) -> None:
    assert later[0]["samples"] == trained["samples"][3:]
    for name, weight in trained["weights"].items():
        assert torch.equal(later[0]["weights"][name], weight)


def test_dropout_and_reference_only_norms_run_with_recomputed_blocks(one: dict[str, Any]) -> None:
    assert one["none"]["losses"] == one["full"]["losses"]
    for name, weight in one["none"]["weights"].items():
        torch.testing.assert_close(one["full"]["weights"][name], weight)


def _run(folder: Path, name: str) -> dict[str, str]:
    return {"name": name, "output": str(folder / "runs")}
