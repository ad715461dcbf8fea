"""Steps of the real loop on random latents: what the benchmarks of training time."""

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
from training.flops import Shape
from training.latents.store import (
    LatentInfo,
    Manifest,
    ModelInfo,
    TextInfo,
    Written,
    finish,
    write_empty,
    write_part,
)
from training.loop import loop
from training.loop.optimizer import clip
from training.loop.setup import start
from training.loop.world import make_world
from training.samples import Size
from training.storage import Folder


class Loop:
    """Steps of one task: loader, task, FSDP2, clip, AdamW.

    transformer: config of a diffusers transformer, drawn at random. task: without its latents, of which
    `references` pictures of `variant` a clip, all of one `size`, are made up in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        transformer: Mapping[str, Any],
        task: TaskConfig,
        size: Size,
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
        if Shape.of(transformer).family == "cogvideox":  # whose noise levels the scheduler says
            from diffusers import CogVideoXDDIMScheduler

            scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
            scheduler.save_pretrained(folder / "model" / "scheduler")
        write_latents(folder / "latents", Shape.of(transformer), size, references, variant)
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
        self.state = start(self.config, make_world(self.config.parallel))
        # As many references as there may be, in each step: the longest sample is what is measured.
        for each in self.state.tasks.values():
            each.count = lambda capacity, generator: capacity  # type: ignore[method-assign]
        self.steps = iter(self.state.loader.steps(0, self.config.steps))

    def step(self) -> float:
        """One step as `loop._steps` makes it; returns the seconds that it waited for data."""
        state = self.state
        following = next(self.steps)
        sums = loop.gradients(state, following.plan, following)
        norm = clip(state.model.parameters(), self.config.optimizer.clip)
        sums.over_workers(state.world, norm)
        state.optimizer.step()
        state.optimizer.zero_grad()
        return float(following.waited)


def write_latents(
    folder: Path, shape: Shape, size: Size, references: int, variant: str, clips: int = 4
) -> None:
    """A finished folder of random latents with one size, each clip with so many subjects of one picture."""
    target = Folder.at(folder)
    generator = torch.Generator().manual_seed(0)

    def made(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator).bfloat16()

    frames, height, width = size
    samples = []
    for number in range(clips):
        subjects = [
            {
                "subject_id": f"{number}-{position}",
                "category": "thing",
                "references": [
                    {
                        "reference_id": f"{number}-{position}",
                        "variant": variant,
                        "position": position,
                        "height": height,
                        "width": width,
                    }
                ],
            }
            for position in range(references)
        ]
        row = {
            "sample_id": f"clip-{number}",
            "source_id": f"video-{number}",
            "key": f"{number}",
            "frames": frames,
            "height": height,
            "width": width,
            "video_frames": 4 * frames - 3,
            "video_height": 8 * height,
            "video_width": 8 * width,
            "fps": 16.0,
            "caption": "a thing",
            "text_tokens": 32,
            "subjects": subjects,
            "left_out": [],
        }
        video = made(shape.channels_out, frames, height, width)
        pictures = [made(shape.channels_out, height, width) for _ in range(references)]
        samples.append(Written(row, video, made(32, shape.text_dim), pictures))
    rows = write_part(target, samples, "benchmark")
    write_empty(target, made(1, shape.text_dim))
    finish(
        target,
        rows,
        Manifest(
            fingerprint="benchmark",
            model=ModelInfo(path="random", family=shape.family, vae="", text_encoder=""),
            latents=LatentInfo(
                dtype="bf16",
                channels=shape.channels_out,
                temporal=4,
                spatial=8,
                normalisation="mean_std",
                posterior="mode",
            ),
            text=TextInfo(length=shape.text_tokens, width=shape.text_dim),
            encoded=clips,
            rows_in=clips,
            buckets={"x".join(map(str, size)): clips},
        ),
    )


@dataclass
class Timed:
    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def waiting(self) -> float:
        """Share of the time in which data was waited for."""
        return sum(self.waited) / sum(self.seconds)


def interleaved(
    kinds: Mapping[str, Callable[[], float]], runs: int, device: torch.device
) -> dict[str, Timed]:
    """Time some kinds of steps, one of each after the other; a step returns the seconds that it waited.

    Two are made to warm up: kernels are chosen and compiled, buffers allocated. On a CPU it is the process's
    own time that counts, not what other work takes from it.
    """
    times = {name: Timed() for name in kinds}
    now = clock(device)
    for run in range(runs + 2):
        for name, step in kinds.items():
            began = now()
            waited = step()
            if run >= 2:
                times[name].seconds.append(now() - began)
                times[name].waited.append(waited)
    return times


def clock(device: torch.device) -> Callable[[], float]:
    """What the time is once the device has done all that it was told."""

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now if device.type == "cuda" else time.process_time
