"""What a run will need, before it starts: tokens and FLOPs per step, bytes per GPU, the least that fits.

Parameters, gradients, optimizer and EMA are counted; activations, and the VAE where validation makes videos,
are followed (activations.py). What `torch.compile` saves is not in it.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from reprise.errors import RepriseError
from training.config import (
    IdentityTask,
    KaleidoTask,
    LoraConfig,
    ReplayTask,
    TaskConfig,
    TrainConfig,
    VideoTask,
    share_replay,
)
from training.cost import activations, flops, replay_cost
from training.cost.flops import Checkpointing, TransformerShape
from training.data import random_streams
from training.loop.world import compute_mesh_sizes
from training.models.packing import Size

GIB = 1 << 30
# What a process holds besides tensors (CUDA context, NCCL, cuBLAS), and what the allocator cannot use; ours.
CONTEXT_BYTES = int(1.5 * GIB)
FRAGMENTATION_SHARE = 0.05
DRAWS_PER_BUCKET = 64  # of the number of references, for each bucket
CHECKPOINTING_MODES: tuple[Checkpointing, ...] = ("none", "selective", "full")


@dataclass(frozen=True)
class Workload:
    """What one task asks of a step."""

    task: str
    kind: str  # of the task: "kaleido", "video", "identity", "replay"
    lengths: tuple[tuple[int, float], ...]  # tokens of a sample, references included; share of its steps
    text: int  # tokens of its caption, padded
    video: Size  # the largest latent video, (T, h, w)
    share: float  # of all steps
    batch: int
    micro_batch: int


@dataclass(frozen=True)
class ParallelLayout:
    """How the workers share the work, and what they recompute."""

    replicate: int
    shard: int
    sequence: int
    checkpointing: Checkpointing
    micro_batch: int  # of tasks that do not ask for less
    reduce: Literal["step", "micro_batch"] = "step"

    @property
    def workers(self) -> int:
        return self.replicate * self.shard * self.sequence

    @property
    def groups(self) -> int:
        """Groups of workers that see different samples."""
        return self.replicate * self.shard

    def __str__(self) -> str:
        return (
            f"run.workers={self.workers} parallel.replicate={self.replicate} parallel.shard={self.shard} "
            f"parallel.sequence={self.sequence} parallel.reduce={self.reduce} "
            f"compute.checkpointing={self.checkpointing} tasks.0.micro_batch={self.micro_batch}"
        )


@dataclass(frozen=True)
class GpuMemory:
    """Bytes on each GPU."""

    parameters: int  # float32, this worker's shard
    gradients: int  # float32
    optimizer: int  # two moments, float32
    ema: int
    gathered: int  # whole weights and gradients of what is computed just now
    activations: int  # peak, of one micro-batch
    decoding: int  # VAE and its work on a video of validation, when there are no gradients and activations
    context: int = CONTEXT_BYTES

    @property
    def total(self) -> int:
        always = self.parameters + self.optimizer + self.ema + self.gathered
        tensors = always + max(self.gradients + self.activations, self.decoding)
        return int(tensors * (1 + FRAGMENTATION_SHARE)) + self.context


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters."""

    total: int
    trained: int
    block: int  # of one block
    rest: int  # outside the blocks

    @classmethod
    def from_config(cls, config: Mapping[str, Any], lora: LoraConfig | None = None) -> ParameterCounts:
        """Counted on the real class, built without memory."""
        one, two = (activations.count_parameters(config, layers, lora) for layers in (1, 2))
        layers, block = TransformerShape.from_config(config).layers, two[0] - one[0]
        return cls(
            total=one[0] + (layers - 1) * block,
            trained=one[1] + (layers - 1) * (two[1] - one[1]),
            block=block,
            rest=one[0] - block,
        )


class Estimate:
    """What `config` needs when its transformer has the config `transformer` and its tasks do `works`.

    vae: its config, for the videos of validation; None: not known, and then left out.
    """

    def __init__(
        self,
        config: TrainConfig,
        transformer: Mapping[str, Any],
        workloads: Iterable[Workload],
        vae: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.vae = config, vae
        self.workloads = tuple(workloads)
        self.transformer = with_reference_channels(config, transformer)
        self.shape = TransformerShape.from_config(self.transformer)

    @cached_property
    def weights(self) -> ParameterCounts:
        return ParameterCounts.from_config(self.transformer, self.config.lora)

    @property
    def has_token_timesteps(self) -> bool:
        """References at time 0 beside a noisy video: each token has a timestep and modulation of its own."""
        return self.shape.family == "wan" and self.config.positions.reference_time == "zero"

    @cached_property
    def max_tokens(self) -> int:
        """Tokens of the longest sample: what memory is needed for."""
        return max(length for work in self.workloads for length, _ in work.lengths)

    def count_tokens(self, work: Workload) -> float:
        """Mean per step, over all workers."""
        return work.batch * sum(length * share for length, share in work.lengths)

    def count_flops(self, work: Workload) -> float:
        """Mean per step, over all workers: forward and backward."""
        frozen = self.config.lora is not None
        return work.batch * sum(
            share
            * flops.count_training(
                self.shape,
                length,
                text=work.text,
                timesteps=length if self.has_token_timesteps else 1,
                frozen=frozen,
            )
            for length, share in work.lengths
        )

    def count_recomputed_flops(self, work: Workload) -> float:
        """Mean per step, over all workers: what checkpointing adds."""
        mode = self.config.compute.checkpointing
        return work.batch * sum(
            share * flops.count_recomputed(self.shape, length, mode, text=work.text)
            for length, share in work.lengths
        )

    def get_layout(self) -> ParallelLayout:
        """Of the config.

        Raises:
            RepriseError: it does not add up to the workers.
        """
        replicate, shard, sequence = compute_mesh_sizes(self.config.parallel, self.config.run.workers)
        micro = max(work.micro_batch for work in self.workloads)
        mode = self.config.compute.checkpointing
        return ParallelLayout(replicate, shard, sequence, mode, micro, self.config.parallel.reduce)

    def find_problem(self, layout: ParallelLayout) -> str | None:
        """Why a layout cannot run whatever memory there is; None where it can."""
        if self.shape.heads % layout.sequence:
            return (
                f"{self.shape.heads} attention heads cannot be shared by parallel.sequence={layout.sequence}"
            )
        for work in self.workloads:
            for length, _ in work.lengths:
                if length % layout.sequence:
                    return (
                        f"{work.task}: {length} tokens do not divide into parallel.sequence={layout.sequence}"
                    )
            if work.batch % layout.groups:
                return f"{work.task}: batch {work.batch} does not divide into {layout.groups} data workers"
        return None

    def estimate_memory(self, layout: ParallelLayout) -> GpuMemory:
        """Bytes per GPU under a layout."""
        count, ways = self.weights, layout.shard * layout.sequence
        whole, trained = math.ceil(count.total / ways), math.ceil(count.trained / ways)
        compute = 2 if self.config.compute.precision == "bf16" else 4
        # FSDP holds what lies outside the blocks, the block at work and the next one, each as it is computed
        # with (all of them where nothing is sharded); and the gradients of a block twice, as computed and in
        # float32, while they are being reduced.
        held = count.rest + 2 * count.block if ways > 1 else count.total
        accumulates = layout.reduce == "step" and any(
            work.batch > layout.groups * layout.micro_batch for work in self.workloads
        )
        return GpuMemory(
            parameters=4 * whole,
            # Over several micro-batches each worker adds up the whole gradient, and reduces it once.
            gradients=4 * (count.trained if accumulates else trained),
            optimizer=8 * trained,
            ema=4 * trained if self.config.optimizer.ema else 0,
            gathered=compute * held + (0 if self.config.lora else (compute + 4) * count.block),
            activations=self.estimate_activations(layout),
            decoding=self.decoding_bytes,
        )

    @cached_property
    def decoding_bytes(self) -> int:
        """Bytes of the VAE and of what it makes of the largest video that validation samples."""
        validation = self.config.validation
        if self.vae is None or not validation.every or not validation.videos:
            return 0
        # In bf16, as validation has it on a GPU (callbacks/validation.py).
        videos = {work.video for work in self.workloads}
        return max(activations.measure_decoding(self.vae, video, "bf16") for video in videos)

    def estimate_activations(self, layout: ParallelLayout) -> int:
        """Peak bytes of one micro-batch, forward and backward, of the longest samples of any task."""
        batches = {
            (max(length for length, _ in work.lengths), min(work.micro_batch, layout.micro_batch), work.text)
            for work in self.workloads
        }
        # What is no longer and no more than another needs no more.
        most = {
            one
            for one in batches
            if not any(one != other and all(map(operator.le, one, other)) for other in batches)
        }
        return max(self._estimate_peak(layout, *each) for each in most)

    def _estimate_peak(self, layout: ParallelLayout, tokens: int, micro_batch: int, text: int) -> int:
        few, more = (
            activations.measure_activations(
                self.transformer,
                math.ceil(tokens / layout.sequence),
                micro_batch,
                layout.checkpointing,
                self.config.compute.precision,
                layers=layers,
                text=text,
                token_timesteps=self.has_token_timesteps,
                lora=self.config.lora,
            )
            for layers in (2, 4)
        )
        return few.peak + (more.peak - few.peak) * (self.shape.layers - 2) // 2

    def find_smallest_layout(self, gpu_bytes: int, *, max_gpus: int = 1024) -> ParallelLayout | None:
        """The layout with the fewest GPUs that fits; of those with equally many, the fastest we know.

        It is the one that shares no sample, then the one that recomputes least, with micro-batches as large
        as they were, if possible.
        """
        micros = sorted({max(work.micro_batch for work in self.workloads), 1}, reverse=True)
        reduces: tuple[Literal["step", "micro_batch"], ...] = ("step", "micro_batch")
        workers = 1
        while workers <= max_gpus:
            sequences = [2**power for power in range(int(math.log2(min(workers, 64))) + 1)]
            for micro, reduce, sequence in itertools.product(micros, reduces, sequences):
                least = ParallelLayout(1, workers // sequence, sequence, "full", micro, reduce)
                if self.find_problem(least) is not None or self.estimate_memory(least).total > gpu_bytes:
                    continue
                layouts = (replace(least, checkpointing=mode) for mode in CHECKPOINTING_MODES)
                return next(layout for layout in layouts if self.estimate_memory(layout).total <= gpu_bytes)
            workers *= 2
        return None

    def check_fit(self, gpu_bytes: int | None) -> None:
        """Refuse what cannot run.

        Raises:
            RepriseError: the layout does not add up, or does not fit; it names the smallest that does.
        """
        layout = self.get_layout()
        if problem := self.find_problem(layout):
            raise RepriseError(f"{problem}: change run.workers, the parallel section or the task")
        if gpu_bytes is None or (needed := self.estimate_memory(layout).total) <= gpu_bytes:
            return
        fitting = self.find_smallest_layout(gpu_bytes)
        hint = f"the smallest layout that fits: {fitting}" if fitting else "no layout of up to 1024 GPUs fits"
        raise RepriseError(
            f"needs {format_bytes(needed)} on each GPU, which has {format_bytes(gpu_bytes)}; {hint}"
        )


# ---- what the tasks ask for ------------------------------------------------------------------------------


def with_reference_channels(config: TrainConfig, transformer: Mapping[str, Any]) -> dict[str, Any]:
    """The transformer's config as it is trained: with channels for references, where they are channels."""
    if config.positions.scheme != "channel_concat":
        return dict(transformer)
    channels = transformer.get("out_channels") or transformer.get("in_channels", 16)
    return {
        **transformer,
        "in_channels": channels * (1 + max(map(get_max_references, config.tasks), default=0)),
    }


def get_max_references(task: TaskConfig) -> int:
    if isinstance(task, KaleidoTask):
        return task.max_references
    return 0 if isinstance(task, VideoTask) else 1


def count_visible_tokens(task: TaskConfig, reference: int) -> int:
    """Of a reference's tokens those that the network gets: replay drops its share of them."""
    return reference - round(task.token_dropout * reference) if isinstance(task, ReplayTask) else reference


def estimate_workloads(
    config: TrainConfig, shape: TransformerShape, frames: int, height: int, width: int
) -> list[Workload]:
    """For latents that are not there yet: videos of one size, references as large as they are.

    Args:
        frames, height, width: of the videos, in frames and pixels.

    Raises:
        RepriseError: a size that the model cannot take.
    """
    spatial = 16 if shape.channels_out == 48 else 8  # Wan 2.2 TI2V has another VAE
    rows, columns = spatial * shape.patch[1], spatial * shape.patch[2]
    if (frames - 1) % 4 or height % rows or width % columns:
        raise RepriseError(
            f"size {frames}x{height}x{width}: needs 4n + 1 frames, a height that {rows} divides and a width "
            f"that {columns} divides"
        )
    latent = height // spatial, width // spatial
    whole = (1 + (frames - 1) // 4, *latent)
    video, reference = shape.count_tokens(*whole), shape.count_tokens(1, *latent)
    if config.positions.scheme == "channel_concat":
        reference = 0
    workloads = []
    for name, task in zip(name_tasks(config), weight_tasks(config), strict=True):
        if isinstance(task, IdentityTask | ReplayTask):
            clip = reference if isinstance(task, IdentityTask) else video
            without = task.reference_dropout
            lengths = tuple(
                (tokens, share)
                for tokens, share in (
                    (clip, without),
                    (clip + count_visible_tokens(task, reference), 1 - without),
                )
                if share
            )
        else:
            most = get_max_references(task)
            counts = range(1, most + 1) if isinstance(task, KaleidoTask) else (most,)
            lengths = tuple((video + count * reference, 1 / len(counts)) for count in counts)
        size = (1, *latent) if isinstance(task, IdentityTask) else whole
        workloads.append(_build_workload(config, name, task, lengths, shape.text_tokens, size))
    return workloads


def measure_workloads(config: TrainConfig, shape: TransformerShape) -> list[Workload]:
    """From the latents that the tasks name: one sample of each bucket is read.

    Raises:
        RepriseError: latents that are not there, not finished, or of no use to their task.
    """
    from training.data.sampler import Sampler
    from training.latents.store import Latents
    from training.tasks.build import build_tasks

    tasks = build_tasks(weight_tasks(config))
    latents = [Latents(task.latents) for task in tasks]
    records = [each.records for each in latents]
    sampler = Sampler(tasks, records, seed=config.seed, holdout=config.validation.holdout)
    workloads = []
    for task, given, settings in zip(tasks, latents, weight_tasks(config), strict=True):
        buckets = sampler.buckets[task.name]
        total = sum(len(bucket.rows) for bucket in buckets)
        lengths: Counter[int] = Counter()
        text = given.manifest.text.length
        for bucket in buckets:
            # How many references a step has is the task's own business: it is asked, often.
            drawn = Counter(
                task.draw_count(
                    bucket.capacity, random_streams.make_generator(config.seed, "estimate", number)
                )
                for number in range(DRAWS_PER_BUCKET)
            )
            record = given.records[int(bucket.rows[0])]
            for count, times in drawn.items():
                choice = task.choose_references(
                    record, count, random_streams.make_generator(config.seed, "estimate", 0)
                )
                batch = task.collate_samples([given.read_sample(0, record, choice)], text)
                references = () if config.positions.scheme == "channel_concat" else batch.references
                sizes = [math.prod(part.shape[2:]) // math.prod(shape.patch) for part in references]
                video = math.prod(batch.video.shape[2:]) // math.prod(shape.patch)
                lengths[video + sum(count_visible_tokens(settings, size) for size in sizes)] += times * len(
                    bucket.rows
                )
        shares = tuple(
            (tokens, times / (DRAWS_PER_BUCKET * total)) for tokens, times in sorted(lengths.items())
        )
        largest = max((bucket.size for bucket in buckets), key=math.prod)
        workloads.append(_build_workload(config, task.name, settings, shares, text, largest))
    return workloads


def weight_tasks(config: TrainConfig) -> tuple[TaskConfig, ...]:
    """The tasks as a run weighs them: replay with its share of the steps."""
    return share_replay(config.tasks, config.replay)


def name_tasks(config: TrainConfig) -> list[str]:
    """Of the tasks, as a run calls them: kaleido, video, and a second of a kind video-2."""
    counts: Counter[str] = Counter()
    task_names = []
    for task in weight_tasks(config):
        counts[task.kind] += 1
        task_names.append(task.kind if counts[task.kind] == 1 else f"{task.kind}-{counts[task.kind]}")
    return task_names


def _build_workload(
    config: TrainConfig,
    name: str,
    task: TaskConfig,
    lengths: tuple[tuple[int, float], ...],
    text: int,
    video: Size,
) -> Workload:
    share = task.weight / sum(each.weight for each in weight_tasks(config))
    return Workload(name, task.kind, lengths, text, video, share, task.batch, task.micro_batch)


def describe_estimate(estimate: Estimate, gpu_bytes: int | None = None) -> list[str]:
    """Lines for a person: layout, tokens and FLOPs of each task, bytes per GPU."""
    layout, shape = estimate.get_layout(), estimate.shape
    config = estimate.config
    count = estimate.weights
    lines = [
        f"model     {count.total / 1e9:.3g} B parameters, {shape.layers} blocks of width {shape.dim}"
        + (f", {count.trained / 1e6:.3g} M of adapters trained" if config.lora else ""),
        f"layout    {layout.workers} worker(s) = replicate {layout.replicate} x shard {layout.shard} x "
        f"sequence {layout.sequence}, checkpointing {layout.checkpointing}, {config.compute.precision}",
    ]
    total = 0.0
    for work in estimate.workloads:
        lengths = [length for length, _ in work.lengths]
        span = f"{min(lengths):,}" + (f" to {max(lengths):,}" if len(lengths) > 1 else "")
        flops_step = estimate.count_flops(work)
        total += work.share * flops_step
        parts = flops.compute_part_shares(shape, max(lengths), text=work.text)
        most = sorted(parts, key=lambda part: -parts[part])[:4]
        micro = -(-work.batch // (layout.groups * work.micro_batch))
        lines += [
            f"task      {work.task}: {100 * work.share:.0f} % of the steps, {work.batch} samples a step "
            f"({micro} forward pass(es) of {work.micro_batch} on each worker)",
            f"  tokens  {span} a sample, references included; "
            f"{format_si(estimate.count_tokens(work))} a step",
            f"  FLOPs   {format_si(flops_step)} a step"
            + (
                f", {format_si(estimate.count_recomputed_flops(work))} more recomputed"
                if estimate.count_recomputed_flops(work)
                else ""
            )
            + f" ({', '.join(f'{part} {100 * parts[part]:.0f} %' for part in most)})",
        ]
    lines += replay_cost.describe_cost(replay_cost.compute_cost(estimate))
    whole = total * config.steps
    lines.append(
        f"run       {config.steps:,} steps, {format_si(whole)} FLOPs; "
        f"{_format_hours(whole / (0.4 * 989e12))} of an H100 at 40 % MFU"
    )
    memory = estimate.estimate_memory(layout)
    parts = {
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "EMA": memory.ema,
        "gathered": memory.gathered,
        "activations": memory.activations,
        "CUDA and NCCL": memory.context,
    }
    lines.append(
        f"memory    {format_bytes(memory.total)} on each GPU, "
        f"with {100 * FRAGMENTATION_SHARE:.0f} % for fragmentation"
    )
    lines += [f"  {name:<14}{format_bytes(count):>10}" for name, count in parts.items() if count]
    if memory.decoding:
        lines.append(
            f"  {'VAE':<14}{format_bytes(memory.decoding):>10}, for videos of validation, when there are no "
            "gradients and activations"
        )
    if gpu_bytes is None:
        lines.append("  no GPU here: say --gpu-memory 80GB to know whether it fits")
    elif memory.total <= gpu_bytes:
        lines.append(f"  fits into {format_bytes(gpu_bytes)}")
    return lines


def format_si(count: float) -> str:
    for size, unit in (
        (1e21, "Z"),
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g}"


def _format_hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f} GPU hours" if hours >= 10 else f"{hours:.2g} GPU hours"


def format_bytes(count: float) -> str:
    """Bytes in GiB or MiB."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"
