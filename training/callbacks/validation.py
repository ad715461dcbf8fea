"""How well the model does on samples that it never trains on: losses, and videos to look at.

Losses are taken at fixed quantiles of the noise level with fixed noise, so that two numbers differ by the
model alone. Samples are few and shared by the groups of workers, so that training does not stop for long.
With an EMA it is the averaged weights that are judged: they are what is used later.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from reprise.errors import RepriseError
from training.callbacks.base import Callback
from training.callbacks.contact_sheet import Row, sheet, thumbnails
from training.callbacks.log import Log
from training.data import random_streams
from training.data.samples import Batch

if TYPE_CHECKING:
    from training.loop.state import State
    from training.models.family import Conditioning, Family
    from training.models.packing import SequenceShard
    from training.objectives import Noised, Objective


@dataclass(frozen=True)
class Example:
    """A held-out sample, and how many references it is shown with."""

    task: str
    row: int  # of the task's index
    references: int
    index: int  # stands for the global sample index in every draw


class Validation(Callback):
    """Every `validation.every` steps; what it finds goes to `log`, pictures below `samples/`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._examples: dict[str, list[Example]] = {}
        self._vae: nn.Module | None = None
        self._truth: dict[Example, Row] = {}

    def on_start(self, state: State) -> None:
        config = state.config.validation
        for name, buckets in state.sampler.held_out.items():
            rows = [(int(row), bucket.capacity) for bucket in buckets for row in bucket.rows]
            order = random_streams.permutation(len(rows), state.config.seed, "validation", name)
            self._examples[name] = [
                Example(name, row=rows[at][0], references=rows[at][1], index=index)
                for index, at in enumerate(order[: config.batches])
            ]
        if not any(self._examples.values()):
            raise RepriseError(
                "validation.every is set, but no sample is held out: raise validation.holdout, or set "
                "validation.every=null"
            )
        if config.videos:
            from training.models.components import part_config

            part_config(state.config.model.path, state.config.model.revision, "vae")  # missing: said now

    def on_step(self, state: State, metrics: Mapping[str, float]) -> None:
        every = state.config.validation.every
        if every and (state.step % every == 0 or state.step == state.config.steps):
            self.run(state)

    def run(self, state: State) -> dict[str, float]:
        """Validate now. Collective: every worker calls it at the same step."""
        began = time.perf_counter()
        with _judged(state):
            found = self._losses(state)
            if state.config.validation.videos:
                self._videos(state)
        found["validation/seconds"] = time.perf_counter() - began
        self._log.record(state.step, found)
        return found

    def _losses(self, state: State) -> dict[str, float]:
        quantiles = state.config.validation.quantiles
        world = state.world
        seed = random_streams.seed_of(state.config.seed, "validation")
        found: dict[str, float] = {}
        for name, examples in self._examples.items():
            if not examples:
                continue
            sums = torch.zeros(len(quantiles) + 1, dtype=torch.float64, device=state.device)
            for example, counts in _share(examples, world.data_rank, world.data_size):
                batch = read(state, example).to(state.device)
                for at, quantile in enumerate(quantiles):
                    context = replace(
                        state.context, objective=AtQuantile(state.context.objective, quantile), seed=seed
                    )
                    with torch.no_grad():
                        losses, _ = state.tasks[name].loss(batch, context)
                    if counts:
                        sums[at] += losses.double().sum()
                if counts:
                    sums[-1] += len(batch) / world.sequence_size
            *totals, count = world.sum(sums).tolist()
            means = [total / count for total in totals]
            found |= {f"validation/{name}/q{q:g}": mean for q, mean in zip(quantiles, means, strict=True)}
            found[f"validation/{name}"] = sum(means) / len(means)
        return found

    def _videos(self, state: State) -> None:
        world, config = state.world, state.config
        # Of every task in turn: beside pictures of subjects, videos show whether things still move.
        turns = itertools.zip_longest(*self._examples.values())
        examples = [one for turn in turns for one in turn if one is not None][: config.validation.videos]
        numbers = {example: number for number, example in enumerate(examples)}
        rows: dict[int, Row] = {}
        for example, counts in _share(examples, world.data_rank, world.data_size):
            batch = read(state, example)
            latents = generate(
                state,
                example.task,
                batch,
                random_streams.seed_of(config.seed, "validation video", example.index),
            )
            if counts and world.sequence_rank == 0:
                video = self._decoded(state, latents)[0]
                fps = state.latents[example.task].records.column("fps")[example.row]
                path = f"samples/step-{state.step:08d}/{numbers[example]:02d}.mp4"
                _write_video(state, path, video, float(fps))
                rows[numbers[example]] = replace(self._given(state, example, batch), made=thumbnails(video))
        everyone: list[dict[int, Row]] = [{} for _ in range(world.size)]
        dist.all_gather_object(everyone, rows)
        if world.is_main:
            shown = {index: row for some in everyone for index, row in some.items()}
            png = sheet([shown[index] for index in sorted(shown)])
            state.folder.root.write(f"samples/step-{state.step:08d}.png", png)

    def _given(self, state: State, example: Example, batch: Batch) -> Row:
        """What stays the same of an example's row: its caption, references, and the true video."""
        if example not in self._truth:
            record = state.latents[example.task].records[example.row]
            self._truth[example] = Row(
                caption=record.caption,
                references=[
                    thumbnails(self._decoded(state, reference)[0], 1)[0] for reference in batch.references
                ],
                made=[],
                true=thumbnails(self._decoded(state, batch.video)[0]),
            )
        return self._truth[example]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _decoded(self, state: State, latents: Tensor) -> Any:
        """(B, frames, H, W, 3) uint8."""
        from training.models.components import load_vae
        from training.models.vae import decode

        if self._vae is None:
            dtype = torch.bfloat16 if state.device.type == "cuda" else torch.float32
            self._vae = load_vae(state.config.model.path, state.config.model.revision, dtype)
            if hasattr(self._vae, "enable_tiling"):
                self._vae.enable_tiling()  # beside a model in training, memory is short
        vae = self._vae.to(state.device)
        pixels = decode(vae, latents.to(state.device)).float().cpu()
        self._vae.to("cpu")
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).numpy()


class AtQuantile:
    """An objective whose noise level is no draw."""

    def __init__(self, objective: Objective, quantile: float) -> None:
        self.name = objective.name
        self._objective, self._quantile = objective, quantile

    def level(self, generator: torch.Generator, tokens_per_frame: float) -> Tensor:
        return torch.tensor(self._objective.quantile(self._quantile, tokens_per_frame), dtype=torch.float32)

    def quantile(self, q: float, tokens_per_frame: float) -> float:
        return self._objective.quantile(q, tokens_per_frame)

    def noised(self, clean: Tensor, noise: Tensor, level: Tensor) -> Noised:
        return self._objective.noised(clean, noise, level)


def read(state: State, example: Example) -> Batch:
    """A batch of one held-out sample, with its caption, on the CPU."""
    task, latents = state.tasks[example.task], state.latents[example.task]
    record = latents.records[example.row]
    generator = random_streams.generator(state.config.seed, "validation choice", example.index)
    choice = replace(task.choose(record, example.references, generator), drop_caption=False)
    sample = latents.sample(example.index, record, choice)
    return task.collate([sample], latents.manifest.text.length)


def generate(state: State, task: str, batch: Batch, seed: int) -> Tensor:
    """Sample latents (1, C, T, h, w) under what a task conditions its batch on. Collective."""
    from training.generate.solvers import euler, guided_velocity, scheduled
    from training.schedules import sampling_sigmas

    config, context = state.config.validation, state.context
    batch = batch.to(state.device)
    noise = torch.randn(batch.video.shape, generator=torch.Generator().manual_seed(seed)).to(state.device)
    empty = next(iter(state.latents.values())).empty_text
    blank = torch.zeros_like(batch.text)
    blank[0, : len(empty)] = empty.to(blank)
    family: Any = state.family
    if context.shard is not None:
        family = _Gathered(state.family, context.shard, state.world.mesh["sequence"].get_group())
    velocity = guided_velocity(
        family,
        state.model,
        state.tasks[task].condition(batch, context),
        blank,
        context.positions,
        text=config.guidance,
        dtype=context.dtype,
    )
    if context.objective.name == "flow_matching":
        return euler(velocity, noise, sampling_sigmas(config.steps))
    from training.models.components import load_scheduler

    scheduler = load_scheduler(state.config.model.path, state.config.model.revision)
    return scheduled(
        lambda latents, timestep: velocity(latents, timestep / 1000), noise, scheduler, config.steps
    )


class _Gathered:
    """A family whose predictions are put together from the workers of a sequence group."""

    def __init__(self, family: Family, shard: SequenceShard, group: Any) -> None:
        self._family, self._shard, self._group = family, shard, group

    def predict(
        self,
        model: nn.Module,
        noisy: Tensor,
        timestep: Tensor,
        condition: Conditioning,
        positions: Any,
        **more: Any,
    ) -> Tensor:
        from training.models.family import own

        mine = self._family.predict(
            model, noisy, timestep, condition, positions, shard=self._shard, **more
        ).float()
        places = torch.arange(noisy[0].numel(), device=noisy.device, dtype=torch.int64)
        at = own(self._family, places.view(1, *noisy.shape[1:]), condition, positions, self._shard)
        whole = torch.zeros(len(noisy), noisy[0].numel(), device=noisy.device)
        whole[:, at[0].flatten()] = mine.flatten(1)
        dist.all_reduce(whole, group=self._group)
        return whole.view(noisy.shape)


@contextmanager
def _judged(state: State) -> Iterator[None]:
    """Averaged weights where there are any, no dropout; afterwards all is as it was."""
    training = state.model.training
    with state.ema.swapped() if state.ema is not None else nullcontext():
        _reshard(state.model)  # weights that were gathered before they were swapped are old
        state.model.eval()
        try:
            yield
        finally:
            state.model.train(training)
            _reshard(state.model)
    if state.device.type == "cuda":
        torch.cuda.empty_cache()


def _reshard(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _share(examples: list[Example], rank: int, ranks: int) -> Iterator[tuple[Example, bool]]:
    """The examples of one group of workers, and whether each counts.

    All groups get equally many, since all take part in gathering each other's weights; what is too many is
    computed and does not count.
    """
    for first in range(0, len(examples), ranks):
        at = first + rank
        yield examples[min(at, len(examples) - 1)], at < len(examples)


def _write_video(state: State, path: str, frames: Any, fps: float) -> None:
    from training.generate.media import write_video

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "video.mp4"
        write_video(file, frames, fps)
        state.folder.root.write(path, file.read_bytes())
