"""Losses and videos of held-out samples, which the model never trains on.

Losses are computed at fixed quantiles of the noise level with fixed noise, so that only the model makes two
numbers differ. There are few samples, and the groups of workers share them, so that training waits briefly.
With an EMA the averaged weights are validated, since they are what is used later.
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
from training.callbacks.contact_sheet import SheetRow, draw_sheet, make_thumbnails
from training.callbacks.log import MetricsLog
from training.data import random_streams
from training.data.samples import Batch
from training.loop.callback import Callback

if TYPE_CHECKING:
    from training.loop.state import RunState
    from training.models.family import Conditioning, Family
    from training.models.packing import SequenceShard
    from training.objectives import NoisedBatch, Objective


@dataclass(frozen=True)
class HeldOutExample:
    """A held-out sample and its number of references."""

    task: str
    row: int  # of the task's index
    references: int
    index: int  # takes the place of the global sample index in every draw


class Validation(Callback):
    """Validates every `validation.every` steps: numbers go to `log`, pictures below `samples/`."""

    def __init__(self, log: MetricsLog) -> None:
        self._log = log
        self._examples: dict[str, list[HeldOutExample]] = {}
        self._vae: nn.Module | None = None
        self._truth: dict[HeldOutExample, SheetRow] = {}

    def on_start(self, state: RunState) -> None:
        """See `Callback.on_start`; choose the held-out samples.

        Raises:
            RepriseError: no sample is held out, or the VAE that videos need is missing.
        """
        config = state.config.validation
        for name, buckets in state.sampler.held_out.items():
            rows = [(int(row), bucket.capacity) for bucket in buckets for row in bucket.rows]
            order = random_streams.draw_permutation(len(rows), state.config.seed, "validation", name)
            self._examples[name] = [
                HeldOutExample(name, row=rows[at][0], references=rows[at][1], index=index)
                for index, at in enumerate(order[: config.batches])
            ]
        if not any(self._examples.values()):
            raise RepriseError(
                "validation.every is set, but no sample is held out: raise validation.holdout, or set "
                "validation.every=null"
            )
        if config.videos:
            from training.models.components import fetch_part

            # Fail now if it is missing.
            fetch_part(state.config.model.path, state.config.model.revision, "vae")

    def on_step(self, state: RunState, metrics: Mapping[str, float]) -> None:
        """See `Callback.on_step`."""
        every = state.config.validation.every
        if every and (state.step % every == 0 or state.step == state.config.steps):
            self.run(state)

    def run(self, state: RunState) -> dict[str, float]:
        """Validate now and return the numbers by name. Collective: every worker calls it at the same step."""
        began = time.perf_counter()
        with _switch_to_validation(state):
            found = self._compute_losses(state)
            if state.config.validation.videos:
                self._write_videos(state)
        found["validation/seconds"] = time.perf_counter() - began
        self._log.record_scalars(state.step, found)
        return found

    def _compute_losses(self, state: RunState) -> dict[str, float]:
        quantiles = state.config.validation.quantiles
        world = state.world
        seed = random_streams.derive_stream_seed(state.config.seed, "validation")
        found: dict[str, float] = {}
        for name, examples in self._examples.items():
            if not examples:
                continue
            sums = torch.zeros(len(quantiles) + 1, dtype=torch.float64, device=state.device)
            for example, counts in _share_examples(examples, world.data_rank, world.data_size):
                batch = read_example(state, example).move_to(state.device)
                for at, quantile in enumerate(quantiles):
                    context = replace(
                        state.context,
                        objective=FixedLevelObjective(state.context.objective, quantile),
                        seed=seed,
                    )
                    with torch.no_grad():
                        losses, _ = state.tasks[name].compute_loss(batch, context)
                    if counts:
                        sums[at] += losses.double().sum()
                if counts:
                    sums[-1] += len(batch) / world.sequence_size
            *totals, count = world.sum_values(sums).tolist()
            means = [total / count for total in totals]
            found |= {f"validation/{name}/q{q:g}": mean for q, mean in zip(quantiles, means, strict=True)}
            found[f"validation/{name}"] = sum(means) / len(means)
        return found

    def _write_videos(self, state: RunState) -> None:
        world, config = state.world, state.config
        # Of every task in turn: replay shows whether videos still move, identity shows subjects.
        turns = itertools.zip_longest(*self._examples.values())
        examples = [one for turn in turns for one in turn if one is not None][: config.validation.videos]
        numbers = {example: number for number, example in enumerate(examples)}
        rows: dict[int, SheetRow] = {}
        for example, counts in _share_examples(examples, world.data_rank, world.data_size):
            batch = read_example(state, example)
            latents = sample_latents(
                state,
                example.task,
                batch,
                random_streams.derive_stream_seed(config.seed, "validation video", example.index),
            )
            if counts and world.sequence_rank == 0:
                video = self._decode_video(state, latents)[0]
                fps = state.latents[example.task].records.get_column("fps")[example.row]
                path = f"samples/step-{state.step:08d}/{numbers[example]:02d}.mp4"
                _write_video(state, path, video, float(fps))
                rows[numbers[example]] = replace(
                    self._build_row(state, example, batch), made=make_thumbnails(video)
                )
        everyone: list[dict[int, SheetRow]] = [{} for _ in range(world.size)]
        dist.all_gather_object(everyone, rows)
        if world.is_main:
            shown = {index: row for some in everyone for index, row in some.items()}
            png = draw_sheet([shown[index] for index in sorted(shown)])
            state.folder.root.write_bytes(f"samples/step-{state.step:08d}.png", png)

    def _build_row(self, state: RunState, example: HeldOutExample, batch: Batch) -> SheetRow:
        """The constant part of an example's row: its caption, references and the true video."""
        if example not in self._truth:
            record = state.latents[example.task].records[example.row]
            self._truth[example] = SheetRow(
                caption=record.caption,
                references=[
                    make_thumbnails(self._decode_video(state, reference)[0], 1)[0]
                    for reference in batch.references
                ],
                made=[],
                true=make_thumbnails(self._decode_video(state, batch.video)[0]),
            )
        return self._truth[example]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _decode_video(self, state: RunState, latents: Tensor) -> Any:
        """(B, frames, H, W, 3) uint8."""
        from training.models.components import load_vae
        from training.models.vae import decode_latents

        if self._vae is None:
            dtype = torch.bfloat16 if state.device.type == "cuda" else torch.float32
            self._vae = load_vae(state.config.model.path, state.config.model.revision, dtype)
            if hasattr(self._vae, "enable_tiling"):
                self._vae.enable_tiling()  # the model in training leaves little memory
        vae = self._vae.to(state.device)
        pixels = decode_latents(vae, latents.to(state.device)).float().cpu()
        self._vae.to("cpu")
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).numpy()


class FixedLevelObjective:
    """An objective whose noise level is fixed instead of drawn."""

    def __init__(self, objective: Objective, quantile: float) -> None:
        self.name = objective.name
        self._objective, self._quantile = objective, quantile

    def draw_level(self, generator: torch.Generator, tokens_per_frame: float) -> Tensor:
        """See `Objective.draw_level`: the fixed level."""
        return torch.tensor(
            self._objective.get_quantile(self._quantile, tokens_per_frame), dtype=torch.float32
        )

    def get_quantile(self, q: float, tokens_per_frame: float) -> float:
        """See `Objective.get_quantile`."""
        return self._objective.get_quantile(q, tokens_per_frame)

    def add_noise(self, clean: Tensor, noise: Tensor, level: Tensor) -> NoisedBatch:
        """See `Objective.add_noise`."""
        return self._objective.add_noise(clean, noise, level)


def read_example(state: RunState, example: HeldOutExample) -> Batch:
    """Read a batch of one held-out sample, with its caption, onto the CPU."""
    task, latents = state.tasks[example.task], state.latents[example.task]
    record = latents.records[example.row]
    generator = random_streams.make_generator(state.config.seed, "validation choice", example.index)
    choice = replace(task.choose_references(record, example.references, generator), drop_caption=False)
    sample = latents.read_sample(example.index, record, choice)
    return task.collate_samples([sample], latents.manifest.text.length)


def sample_latents(state: RunState, task: str, batch: Batch, seed: int) -> Tensor:
    """Sample latents (1, C, T, h, w) under the conditioning of a task's batch. Collective."""
    from training.generate.solvers import make_guided_velocity, run_solver
    from training.models.components import load_scheduler

    config, context = state.config.validation, state.context
    batch = batch.move_to(state.device)
    noise = torch.randn(batch.video.shape, generator=torch.Generator().manual_seed(seed)).to(state.device)
    empty = next(iter(state.latents.values())).empty_text
    blank = torch.zeros_like(batch.text)
    blank[0, : len(empty)] = empty.to(blank)
    family: Any = state.family
    if context.shard is not None:
        family = _GatheringFamily(state.family, context.shard, state.world.mesh["sequence"].get_group())
    velocity = make_guided_velocity(
        family,
        state.model,
        state.tasks[task].build_conditioning(batch, context),
        blank,
        context.positions,
        text=config.guidance,
        dtype=context.dtype,
    )
    scheduler = None
    if context.objective.name == "v_prediction":
        scheduler = load_scheduler(state.config.model.path, state.config.model.revision)
    return run_solver(context.objective.name, velocity, noise, config.steps, scheduler=scheduler)


class _GatheringFamily:
    """A family whose predictions are gathered from the workers of a sequence group."""

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
        from training.models.family import take_own_part

        mine = self._family.predict(
            model, noisy, timestep, condition, positions, shard=self._shard, **more
        ).float()
        places = torch.arange(noisy[0].numel(), device=noisy.device, dtype=torch.int64)
        at = take_own_part(self._family, places.view(1, *noisy.shape[1:]), condition, positions, self._shard)
        whole = torch.zeros(len(noisy), noisy[0].numel(), device=noisy.device)
        whole[:, at[0].flatten()] = mine.flatten(1)
        dist.all_reduce(whole, group=self._group)
        return whole.view(noisy.shape)


@contextmanager
def _switch_to_validation(state: RunState) -> Iterator[None]:
    """Use averaged weights, if there are any, and no dropout; restore both afterwards."""
    training = state.model.training
    with state.ema.use_averages() if state.ema is not None else nullcontext():
        _reshard_modules(state.model)  # weights that were gathered before the swap are stale
        state.model.eval()
        try:
            yield
        finally:
            state.model.train(training)
            _reshard_modules(state.model)
    if state.device.type == "cuda":
        torch.cuda.empty_cache()


def _reshard_modules(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _share_examples(
    examples: list[HeldOutExample], rank: int, ranks: int
) -> Iterator[tuple[HeldOutExample, bool]]:
    """Yield the examples of one group of workers, and whether each counts.

    All groups get equally many, since gathering sharded weights is collective. Surplus examples are computed
    and do not count.
    """
    for first in range(0, len(examples), ranks):
        at = first + rank
        yield examples[min(at, len(examples) - 1)], at < len(examples)


def _write_video(state: RunState, path: str, frames: Any, fps: float) -> None:
    from training.generate.media import write_video

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "video.mp4"
        write_video(file, frames, fps)
        state.folder.root.write_bytes(path, file.read_bytes())
