"""Proxy replay on a tiny CogVideoX, in worlds of a few processes: what the workers run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import CogVideoXDDIMScheduler

from tests.training.tiny_cogvideox import CONFIG
from tests.training.worlds import Recorder, whole
from training.config import TrainConfig
from training.loop.callback import Callback
from training.playground.random_latents import write_latents


def replay_config(folder: Path, **changes: Any) -> TrainConfig:
    """Identity and replay steps with LoRA and the subject's token; `changes` replace whole sections."""
    if not (folder / "model").exists():
        (folder / "model" / "transformer").mkdir(parents=True)
        config = {**CONFIG, "_class_name": "CogVideoXTransformer3DModel"}
        (folder / "model" / "transformer" / "config.json").write_text(json.dumps(config))
        CogVideoXDDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction").save_pretrained(
            folder / "model" / "scheduler"
        )
        facts: dict[str, Any] = {"channels": 4, "text_width": 12, "text_length": 6, "family": "cogvideox"}
        write_latents(folder / "pairs", 8, sizes=((1, 4, 8),), subjects=(1,), variants=("pair",), **facts)
        write_latents(
            folder / "videos", 8, sizes=((3, 4, 8),), subjects=(1,), variants=("frame", "frame"), **facts
        )
    settings: dict[str, Any] = {
        "seed": 1,
        "steps": 6,
        "model": {"path": str(folder / "model"), "init": "random"},
        "tasks": [
            {"kind": "identity", "latents": str(folder / "pairs"), "batch": 4, "micro_batch": 2},
            {"kind": "replay", "latents": str(folder / "videos"), "batch": 2, "micro_batch": 1},
        ],
        "replay": 0.5,
        "lora": {"rank": 2, "alpha": 1, "dropout": 0.0},
        "token": {"kind": "trained"},
        "optimizer": {"lr": 1e-2, "clip": 0.5},
        "compute": {"precision": "fp32", "checkpointing": "none"},
        "checkpoint": {"every": 3},
        "validation": {"holdout": 0.0},
        "run": {"name": "run", "output": str(folder / "runs")},
    }
    return TrainConfig.model_validate({**settings, **changes})


def lora_gradients(config: TrainConfig, task: str) -> dict[str, Any]:
    """Loss and gradients of the first step of a task, with LoRA that does something."""
    import torch

    from training.data import random_streams
    from training.loop.loop import compute_gradients
    from training.loop.world import make_world
    from training.models import sharded_weights
    from training.setup import build_state

    state = build_state(config, make_world(config.parallel))
    for name, parameter in state.model.named_parameters():
        if ".lora_B." in name:
            generator = random_streams.make_generator(0, "B", name)
            sharded_weights.fill_parameter(0.3 * torch.randn(parameter.shape, generator=generator), parameter)
    plan = next(plan for plan in map(state.sampler.plan_step, range(50)) if plan.task == task)
    sums = compute_gradients(state, plan)
    found = whole({n: p.grad for n, p in state.model.named_parameters() if p.requires_grad})
    frozen = [n for n, p in state.model.named_parameters() if not p.requires_grad and p.grad is not None]
    totals = sums.sum_over_workers(state.world, torch.zeros(()))
    return {"gradients": found, "loss": totals["loss"], "frozen": frozen}


def run(config: TrainConfig, *callbacks: Callback) -> dict[str, Any]:
    from training.loop.world import make_world
    from training.worker import train_model

    recorder = Recorder()
    state = train_model(config, make_world(config.parallel), (recorder, *callbacks))
    return {
        "weights": whole(dict(state.model.named_parameters())),
        "trained": [name for name, p in state.model.named_parameters() if p.requires_grad],
        "samples": recorder.samples,
        "losses": recorder.losses,
    }


class Kept:
    """A recorder that keeps its records."""

    def __init__(self) -> None:
        self.records: list[tuple[int, dict[str, float]]] = []

    def record_scalars(self, step: int, scalars: Any) -> None:
        self.records.append((step, dict(scalars)))


def watched(config: TrainConfig, every: int) -> dict[str, Any]:
    from training.gradient_conflict.callback import ConflictMonitor

    kept = Kept()
    return {**run(config, ConflictMonitor(kept, every)), "records": kept.records}


def projected(config: TrainConfig, size: int) -> dict[str, Any]:
    from training.gradient_conflict.callback import ProjectGradients

    return run(config, ProjectGradients(size))


def both_gradients(config: TrainConfig) -> list[dict[str, Any]]:
    """Whole gradients of the first identity and the first replay step, at the initial weights."""
    from training.loop.loop import compute_gradients
    from training.loop.world import make_world
    from training.setup import build_state

    state = build_state(config, make_world(config.parallel))
    found = []
    for task in ("identity", "replay"):
        plan = next(plan for plan in map(state.sampler.plan_step, range(50)) if plan.task == task)
        state.model.zero_grad()
        compute_gradients(state, plan)
        found.append(whole({n: p.grad for n, p in state.model.named_parameters() if p.requires_grad}))
    return found
