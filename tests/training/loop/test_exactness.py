"""However the work is shared, interrupted or resumed, it is the same computation."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reprise.errors import RepriseError
from tests.training import worlds
from tests.training.worlds import Stop, launch, same, tiny_config
from training.config import KaleidoTask, TrainConfig
from training.data.check import check_lengths, check_shapes
from training.data.sampler import Sampler
from training.latents.store import Latents
from training.playground.random_latents import write_latents
from training.tasks.build import build_tasks

#: Ways to compute one step, each with the changes of its config, by the number of workers.
ONE = {
    "whole": {"micro_batch": 4},
    "accumulated": {"micro_batch": 1},
    "selective": {"micro_batch": 4, "compute__checkpointing": "selective"},
    "full": {"micro_batch": 4, "compute__checkpointing": "full"},
}
LAYOUTS = {"data parallel": {"replicate": 2}, "FSDP2": {"shard": 2}, "Ulysses": {"sequence": 2}}
TWO = {
    **{name: {"micro_batch": 2, "parallel": parallel} for name, parallel in LAYOUTS.items()},
    **{
        f"{layout}, often": {"micro_batch": 1, "parallel": {layout: 2, "reduce": "micro_batch"}}
        for layout in ("replicate", "shard")
    },
    "bf16": {"micro_batch": 4, "compute__precision": "bf16"},
    "clipped": {"optimizer__clip": 0.05},
}
#: 27 tokens of video and 6 of a crop or 9 of another reference: no two workers share them evenly.
ODD = {"sizes": ((3, 6, 6),), "reference_sizes": {"crop": (4, 6)}, "subjects": (1, 2)}
Found = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def one(folder: Path) -> Found:
    """One step on one worker, in each of the ways."""
    calls = [(worlds.step_gradients, tiny_config(folder, **changes)) for changes in ONE.values()]
    return dict(zip(ONE, launch(worlds.together, 1, *calls)[0], strict=True))


@pytest.fixture(scope="module")
def single(one: Found) -> Found:
    """One step on one worker, its batch of four in one forward pass."""
    whole: Found = one["whole"]
    return whole


@pytest.fixture(scope="module")
def two(folder: Path) -> list[Found]:
    """By rank: one step in each of the ways, and two whole runs."""
    calls = [(worlds.step_gradients, tiny_config(folder, **changes)) for changes in TWO.values()]
    calls += [
        (worlds.run, tiny_config(folder, run__name="undisturbed")),
        (worlds.averages, tiny_config(folder, run__name="averaged", steps=4)),
    ]
    names = (*TWO, "undisturbed", "averaged")
    return [dict(zip(names, found, strict=True)) for found in launch(worlds.together, 2, *calls)]


def make_odd_config(folder: Path, **changes: Any) -> TrainConfig:
    """A run whose samples have odd numbers of tokens and references of their own sizes."""
    latents = folder / "odd"
    if not latents.exists():
        write_latents(latents, 8, channels=4, text_width=8, text_length=6, **ODD)
    mixture = {"crop": 3, "crosspair": 0}
    task = {"kind": "kaleido", "latents": str(latents), "batch": 4, "micro_batch": 1, "mixture": mixture}
    return tiny_config(folder, tasks=[task], **changes)


@pytest.mark.parametrize("mode", ["none", "full"])
def test_workers_share_sequences_of_any_length_and_compute_attention_once(mode: str, folder: Path) -> None:
    """The gradient is one worker's, and so is the number of times that attention is computed."""
    changes = {"compute__checkpointing": mode}
    alone = launch(worlds.count_attention, 1, make_odd_config(folder, **changes))[0]
    shared = launch(worlds.count_attention, 2, make_odd_config(folder, parallel={"sequence": 2}, **changes))
    lengths = alone["lengths"]
    assert {length % 2 for length in lengths} == {0, 1}
    # A step of 4 samples: two blocks; and again in the backward pass where activations are recomputed.
    assert len(lengths) == 4 * 2 * (2 if mode == "full" else 1)
    for found in shared:
        assert found["lengths"] == lengths
        assert found["loss"] == pytest.approx(alone["loss"], rel=1e-6)
        assert get_relative_distance(found["gradients"], alone["gradients"]) < 1e-5


@pytest.fixture(scope="module")
def undisturbed(two: list[Found]) -> Found:
    """Six steps on two workers, never interrupted."""
    run: Found = two[0]["undisturbed"]
    return run


@pytest.fixture(scope="module")
def killed(folder: Path) -> Path:
    """What a run of two workers leaves that is killed: step 5 is done, step 4 was the last that was saved."""
    config = tiny_config(folder, run__name="killed")
    assert launch(worlds.run, 2, config, Stop(5, signal.SIGKILL), dies=True) == [None, None]
    return folder / "runs" / "killed"


@pytest.fixture(scope="module")
def four(folder: Path, killed: Path) -> list[Found]:
    """By rank: one step, and the end of the killed run."""
    shutil.copytree(killed, folder / "runs" / "moved-4")
    calls = [
        (worlds.step_gradients, tiny_config(folder, parallel={"replicate": 2, "shard": 1, "sequence": 2})),
        (worlds.run, tiny_config(folder, run__name="moved-4", parallel={"replicate": 2, "shard": 2})),
    ]
    found = launch(worlds.together, 4, *calls)
    return [{"step": step, "resumed": resumed} for step, resumed in found]


def get_relative_distance(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest relative distance of a tensor from its like."""
    assert found.keys() == wanted.keys()
    return max(
        float((found[name] - tensor).norm() / tensor.norm().clamp_min(1e-12))
        for name, tensor in wanted.items()
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_workers_compute_the_gradient_of_one(layout: str, two: list[Found], single: Found) -> None:
    found = [rank[layout] for rank in two]
    for rank in found:
        assert same(rank["weights"], single["weights"])
        assert rank["loss"] == pytest.approx(single["loss"], rel=1e-6)
        assert get_relative_distance(rank["gradients"], single["gradients"]) < 1e-5
        assert rank["norm"] == pytest.approx(single["norm"], rel=1e-5)
        assert rank["tokens"] == single["tokens"]
    whole = sum(tensor.numel() for tensor in single["weights"].values())
    if layout == "data parallel":
        assert [rank["local"] for rank in found] == [whole, whole]
    else:
        assert sum(rank["local"] for rank in found) == whole  # no worker has the whole model


@pytest.mark.parametrize("layout", ["replicate", "shard"])
def test_gradients_may_be_reduced_after_each_micro_batch(
    layout: str, two: list[Found], single: Found
) -> None:
    found = two[0][f"{layout}, often"]
    assert get_relative_distance(found["gradients"], single["gradients"]) < 1e-5
    assert found["norm"] == pytest.approx(single["norm"], rel=1e-5)


def test_every_layout_at_once_computes_the_gradient_of_one(four: list[Found], single: Found) -> None:
    assert get_relative_distance(four[3]["step"]["gradients"], single["gradients"]) < 1e-5


def test_accumulated_micro_batches_are_the_big_batch(one: Found, single: Found) -> None:
    assert get_relative_distance(one["accumulated"]["gradients"], single["gradients"]) < 1e-5
    assert one["accumulated"]["loss"] == pytest.approx(single["loss"], rel=1e-6)


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_recomputed_activations_are_the_same_activations(
    checkpointing: str, one: Found, single: Found
) -> None:
    assert same(one[checkpointing]["gradients"], single["gradients"])


def test_bf16_computes_with_fp32_weights_and_gradients(two: list[Found], single: Found) -> None:
    found = two[0]["bf16"]
    assert {tensor.dtype for tensor in (*found["weights"].values(), *found["gradients"].values())} == {
        torch.float32
    }
    assert same(found["weights"], single["weights"])
    assert found["loss"] == pytest.approx(single["loss"], rel=0.02)
    assert 1e-4 < get_relative_distance(found["gradients"], single["gradients"]) < 0.5


def test_the_gradient_is_clipped_once_by_its_norm_over_all_workers(two: list[Found]) -> None:
    found = two[0]["clipped"]
    parameters = [torch.nn.Parameter(tensor) for tensor in found["gradients"].values()]
    for parameter in parameters:
        parameter.grad = parameter.detach().clone()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 0.05)
    assert found["norm"] == pytest.approx(float(norm), rel=1e-6)
    assert found["norm"] > 0.05
    wanted = {name: p.grad for name, p in zip(found["gradients"], parameters, strict=True)}
    assert get_relative_distance(found["clipped"], wanted) < 1e-6


def test_a_killed_and_resumed_run_is_the_uninterrupted_one(
    folder: Path, killed: Path, undisturbed: Found
) -> None:
    shutil.copytree(killed, folder / "runs" / "resumed")
    resumed = launch(worlds.run, 2, tiny_config(folder, run__name="resumed"))[0]
    assert len(resumed["losses"]) == 2
    assert resumed["losses"] == undisturbed["losses"][4:]
    assert resumed["samples"] == undisturbed["samples"][4:]
    for kind in ("weights", "optimizer", "ema"):
        assert same(resumed[kind], undisturbed[kind]), kind


def test_a_run_resumes_on_fewer_workers(folder: Path, killed: Path, undisturbed: Found) -> None:
    shutil.copytree(killed, folder / "runs" / "moved-1")
    is_the_end_of(launch(worlds.run, 1, tiny_config(folder, run__name="moved-1"))[0], undisturbed)


def test_a_run_resumes_on_more_workers(four: list[Found], undisturbed: Found) -> None:
    is_the_end_of(four[0]["resumed"], undisturbed)


def is_the_end_of(resumed: Found, undisturbed: Found) -> None:
    assert resumed["samples"] == undisturbed["samples"][4:]
    assert get_relative_distance(resumed["weights"], undisturbed["weights"]) < 1e-6
    assert get_relative_distance(resumed["ema"], undisturbed["ema"]) < 1e-6


def test_averaged_weights_are_the_plain_average(two: list[Found]) -> None:
    found = two[0]["averaged"]
    plain = found["weights"][0]
    for weights in found["weights"][1:]:
        plain = {name: 0.9 * plain[name] + 0.1 * tensor for name, tensor in weights.items()}
    assert get_relative_distance(found["ema"], plain) < 1e-6
    assert same(found["inside"], found["ema"]) and same(found["after"], found["weights"][-1])


def test_videos_with_fewer_tokens_than_workers_are_refused_at_once(folder: Path) -> None:
    latents = Latents(write_latents(folder / "small", 4, sizes=((1, 4, 4),)))
    task = build_tasks([KaleidoTask(latents="")])[0]
    buckets = Sampler([task], [latents.records], seed=0).buckets["kaleido"]
    check_lengths(task, buckets, (1, 2, 2), 4)
    with pytest.raises(RepriseError, match=re.escape("videos of 4 tokens (bucket 1x4x4")):
        check_lengths(task, buckets, (1, 2, 2), 8)


def test_references_of_their_own_sizes_are_refused_in_one_batch_at_once(folder: Path) -> None:
    (folder / "own").mkdir()
    sizes = {"sizes": ((3, 6, 6),), "channels": 4, "text_width": 8, "text_length": 6}
    # The crop is smaller than the others, as with references.size=own.
    uri = write_latents(folder / "own" / "latents", 4, reference_sizes={"crop": (4, 6)}, **sizes).uri
    own = {"kind": "kaleido", "latents": uri, "batch": 4}
    (error,) = launch(worlds.step_gradients, 1, tiny_config(folder, tasks=[{**own, "micro_batch": 2}]))
    assert isinstance(error, RepriseError)
    assert "tasks.0.micro_batch: 2 samples cannot be computed together" in str(error)
    assert "(bucket 3x6x6, up to 1 references: 4x6 and 6x6 latent pixels): set it to 1" in str(error)
    records = Latents(uri).records
    for mixture, micro_batch in (({"crop": 0}, 4), ({}, 1)):
        task = build_tasks([KaleidoTask(latents="", mixture=mixture)])[0]
        buckets = Sampler([task], [records], seed=0).buckets["kaleido"]
        check_shapes("", buckets, records, task.list_variants(), micro_batch)
