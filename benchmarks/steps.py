"""Steps of the real loop on random latents, which the benchmarks of training time."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.config import (
    CheckpointConfig,
    ComputeConfig,
    LoraConfig,
    ModelConfig,
    RunConfig,
    TaskConfig,
    TrainConfig,
    ValidationConfig,
)
from training.data.samples import LatentSize
from training.loop import loop
from training.loop.optimizer import clip_gradients
from training.loop.world import make_world
from training.models.build import make_family, make_shape
from training.playground.random_latents import write_latents
from training.setup import build_state


class BenchmarkLoop:
    """Steps of one task: loader, task, FSDP2, clip, AdamW.

    Args:
        folder: the model's config and random latents are written there.
        transformer: config of a diffusers transformer; its weights are random.
        task: config of the task; its latents are made here.
        size: of all clips and references, in latents.
        compute: precision, checkpointing and other settings.
        steps: most steps that can be made.
        references: number of pictures of `variant` per clip.
        variant: of the references.
        lora: config of the adapters; None: all weights are trained.
    """

    def __init__(
        self,
        folder: Path,
        transformer: Mapping[str, Any],
        task: TaskConfig,
        size: LatentSize,
        compute: ComputeConfig,
        steps: int,
        *,
        references: int = 0,
        variant: str = "segment",
        lora: LoraConfig | None = None,
    ) -> None:
        model = folder / "model" / "transformer"
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps(transformer))
        family, shape = make_family(transformer), make_shape(transformer)
        if family.objective == "v_prediction":  # its noise levels are those of the scheduler
            from diffusers import CogVideoXDDIMScheduler

            scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
            scheduler.save_pretrained(folder / "model" / "scheduler")
        write_latents(
            folder / "latents",
            clips=4,
            sizes=(size,),
            subjects=(references,),
            variants=(variant,),
            channels=shape.channels_out,
            text_width=shape.text_dim,
            text_length=shape.text_tokens,
            family=family.name,
            dtype="bf16",
        )
        self.config = TrainConfig(
            steps=steps,
            model=ModelConfig(path=str(folder / "model"), init="random"),
            tasks=(task.model_copy(update={"latents": str(folder / "latents")}),),
            compute=compute,
            lora=lora,
            checkpoint=CheckpointConfig(every=10**6),
            validation=ValidationConfig(holdout=0),
            run=RunConfig(output=str(folder)),
        )
        self.state = build_state(self.config, make_world(self.config.parallel))
        # Each step has all references, so that the longest sample is measured.
        for each in self.state.tasks.values():
            each.draw_count = lambda capacity, generator: capacity  # type: ignore[method-assign]
        self.steps = iter(self.state.loader.iterate_steps(0, self.config.steps))

    def step(self) -> float:
        """Make one step as the loop does; return the seconds that it waited for data."""
        state = self.state
        following = next(self.steps)
        sums = loop.compute_gradients(state, following.plan, following)
        norm = clip_gradients(state.model.parameters(), self.config.optimizer.clip)
        sums.sum_over_workers(state.world, norm)
        state.optimizer.step()
        state.optimizer.zero_grad()
        return float(following.wait_seconds)


@dataclass
class StepTimes:
    """Seconds of each step, and the part of them in which it waited for data."""

    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for data."""
        return sum(self.waited) / sum(self.seconds)


@dataclass(frozen=True)
class PairedRatio:
    """How much faster a step is than a baseline: of rounds, in which both were made one after the other."""

    median: float
    low: float  # first quartile
    high: float  # third quartile


def compare_pairs(baseline: StepTimes, step: StepTimes) -> PairedRatio:
    """Divide the baseline's seconds by the step's, round by round.

    Other work on the machine slows both of a round, and a round in which it slows only one moves no median.
    """
    ratios = [slow / fast for slow, fast in zip(baseline.seconds, step.seconds, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return PairedRatio(median, low, high)


def time_interleaved(
    kinds: Mapping[str, Callable[[], float]], runs: int, device: torch.device
) -> dict[str, StepTimes]:
    """Time kinds of steps, one of each a round; a step returns the seconds that it waited.

    Each round begins with another kind, so that none always runs after the same one.

    Two rounds of warm-up select and compile kernels and allocate buffers. On a CPU the time of the process
    counts, so that other work on the machine has little effect.
    """
    times = {name: StepTimes() for name in kinds}
    now = get_clock(device)
    for run in range(runs + 2):
        order = list(kinds.items())
        first = run % len(order)
        for name, step in order[first:] + order[:first]:
            began = now()
            waited = step()
            if run >= 2:
                times[name].seconds.append(now() - began)
                times[name].waited.append(waited)
    return times


def get_clock(device: torch.device) -> Callable[[], float]:
    """Return a clock that waits for the device's pending work before it reads the time (s)."""

    def read_time() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read_time if device.type == "cuda" else time.process_time
