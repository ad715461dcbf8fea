"""However the work is shared, interrupted or resumed, it is the same computation."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training import worlds
from tests.training.latents_folder import write_latents
from tests.training.worlds import Stop, launch, same, tiny_config
from training.config import KaleidoTask
from training.errors import RepriseError
from training.latents.store import Latents
from training.loop.lengths import check_lengths
from training.sampler import Sampler
from training.tasks.build import build_tasks

LAYOUTS = {"data parallel": {"replicate": 2}, "FSDP2": {"shard": 2}, "Ulysses": {"sequence": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    """One step on one worker, its batch of four in one forward pass."""
    return launch(worlds.step_gradients, 1, tiny_config(folder, micro_batch=4))[0]


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Any]:
    """Six steps on two workers, never interrupted."""
    return launch(worlds.run, 2, tiny_config(folder, run__name="undisturbed"))[0]


def apart(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest relative distance of a tensor from its like."""
    assert found.keys() == wanted.keys()
    return max(
        float((found[name] - tensor).norm() / tensor.norm().clamp_min(1e-12))
        for name, tensor in wanted.items()
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_workers_compute_the_gradient_of_one(layout: str, folder: Path, alone: dict[str, Any]) -> None:
    found = launch(worlds.step_gradients, 2, tiny_config(folder, micro_batch=2, parallel=LAYOUTS[layout]))
    for rank in found:
        assert same(rank["weights"], alone["weights"])
        assert rank["loss"] == pytest.approx(alone["loss"], rel=1e-6)
        assert apart(rank["gradients"], alone["gradients"]) < 1e-5
        assert rank["norm"] == pytest.approx(alone["norm"], rel=1e-5)
        assert rank["tokens"] == alone["tokens"]
    whole = sum(tensor.numel() for tensor in alone["weights"].values())
    if layout == "data parallel":
        assert [rank["local"] for rank in found] == [whole, whole]
    else:
        assert sum(rank["local"] for rank in found) == whole  # no worker holds the model


@pytest.mark.parametrize("layout", ["replicate", "shard"])
def test_gradients_may_be_reduced_after_each_micro_batch(
    layout: str, folder: Path, alone: dict[str, Any]
) -> None:
    parallel = {layout: 2, "reduce": "micro_batch"}
    found = launch(worlds.step_gradients, 2, tiny_config(folder, micro_batch=1, parallel=parallel))
    assert apart(found[0]["gradients"], alone["gradients"]) < 1e-5


def test_every_layout_at_once_computes_the_gradient_of_one(folder: Path, alone: dict[str, Any]) -> None:
    parallel = {"replicate": 2, "shard": 1, "sequence": 2}
    found = launch(worlds.step_gradients, 4, tiny_config(folder, parallel=parallel))
    assert apart(found[3]["gradients"], alone["gradients"]) < 1e-5


def test_accumulated_micro_batches_are_the_big_batch(folder: Path, alone: dict[str, Any]) -> None:
    found = launch(worlds.step_gradients, 1, tiny_config(folder, micro_batch=1))[0]
    assert apart(found["gradients"], alone["gradients"]) < 1e-5
    assert found["loss"] == pytest.approx(alone["loss"], rel=1e-6)


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_recomputed_activations_are_the_same_activations(
    checkpointing: str, folder: Path, alone: dict[str, Any]
) -> None:
    config = tiny_config(folder, micro_batch=4, compute__checkpointing=checkpointing)
    assert same(launch(worlds.step_gradients, 1, config)[0]["gradients"], alone["gradients"])


def test_bf16_computes_with_fp32_weights_and_gradients(folder: Path, alone: dict[str, Any]) -> None:
    config = tiny_config(folder, micro_batch=4, compute__precision="bf16")
    found = launch(worlds.step_gradients, 2, config)[0]
    assert {tensor.dtype for tensor in (*found["weights"].values(), *found["gradients"].values())} == {
        torch.float32
    }
    assert same(found["weights"], alone["weights"])
    assert found["loss"] == pytest.approx(alone["loss"], rel=0.02)
    assert 1e-4 < apart(found["gradients"], alone["gradients"]) < 0.5


def test_the_gradient_is_clipped_once_by_its_norm_over_all_workers(
    folder: Path, alone: dict[str, Any]
) -> None:
    found = launch(worlds.step_gradients, 2, tiny_config(folder, optimizer__clip=0.05))[0]
    parameters = [torch.nn.Parameter(tensor) for tensor in found["gradients"].values()]
    for parameter in parameters:
        parameter.grad = parameter.detach().clone()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 0.05)
    assert found["norm"] == pytest.approx(float(norm), rel=1e-6)
    assert found["norm"] > 0.05
    wanted = {name: p.grad for name, p in zip(found["gradients"], parameters, strict=True)}
    assert apart(found["clipped"], wanted) < 1e-6


def test_a_killed_and_resumed_run_is_the_uninterrupted_one(folder: Path, undisturbed: dict[str, Any]) -> None:
    config = tiny_config(folder, run__name="killed")
    # Step 5 is done, step 4 was the last that was saved.
    assert launch(worlds.run, 2, config, Stop(5, signal.SIGKILL), dies=True) == [None, None]
    resumed = launch(worlds.run, 2, config)[0]
    assert len(resumed["losses"]) == 2
    assert resumed["losses"] == undisturbed["losses"][4:]
    assert resumed["samples"] == undisturbed["samples"][4:]
    for kind in ("weights", "optimizer", "ema"):
        assert same(resumed[kind], undisturbed[kind]), kind


@pytest.mark.parametrize("workers", [1, 4])
def test_a_run_resumes_on_another_number_of_workers(
    workers: int, folder: Path, undisturbed: dict[str, Any]
) -> None:
    config = tiny_config(folder, run__name=f"moved-{workers}")
    launch(worlds.run, 2, config, Stop(3, signal.SIGKILL), dies=True)
    parallel = {"replicate": 2, "shard": 2} if workers == 4 else {}
    resumed = launch(
        worlds.run, workers, tiny_config(folder, run__name=f"moved-{workers}", parallel=parallel)
    )[0]
    assert resumed["samples"] == undisturbed["samples"][2:]
    assert apart(resumed["weights"], undisturbed["weights"]) < 1e-6
    assert apart(resumed["ema"], undisturbed["ema"]) < 1e-6


def test_averaged_weights_are_the_plain_average(folder: Path) -> None:
    found = launch(worlds.averages, 2, tiny_config(folder, run__name="averaged"))[0]
    plain = found["weights"][0]
    for weights in found["weights"][1:]:
        plain = {name: 0.9 * plain[name] + 0.1 * tensor for name, tensor in weights.items()}
    assert apart(found["ema"], plain) < 1e-6
    assert same(found["inside"], found["ema"]) and same(found["after"], found["weights"][-1])


def test_samples_that_a_sequence_group_cannot_share_are_refused_at_once(folder: Path) -> None:
    latents = Latents(write_latents(folder / "odd", 4, sizes=((3, 6, 6),), subjects=(1, 2)))
    task = build_tasks([KaleidoTask(latents="", max_references=2)])[0]
    buckets = Sampler([task], [latents.records], seed=0).buckets["kaleido"]
    # 27 tokens of video and 9 of each reference: 36 with one, 45 with two.
    for workers, fewest, refused in [
        (9, 0, None),
        (3, 1, None),
        (4, 1, "45 tokens (bucket 3x6x6, up to 2 references; 2 references)"),
        (4, 0, "27 tokens (bucket 3x6x6, up to 1 references; 0 references)"),
    ]:
        with pytest.raises(RepriseError, match=re.escape(refused)) if refused else nullcontext():
            check_lengths("kaleido", buckets, latents.records, (1, 2, 2), workers, fewest=fewest)
