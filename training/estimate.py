"""What a run will need, before it starts: tokens and FLOPs per step, bytes per GPU, the least that fits.

Parameters, gradients, optimizer and EMA are counted; activations are followed (activations.py). What
`torch.compile` saves is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from training import activations, flops
from training.config import KaleidoTask, TrainConfig
from training.errors import RepriseError
from training.flops import Checkpointing, Shape

GIB = 1 << 30
# What a process holds besides tensors (CUDA context, NCCL, cuBLAS), and what the allocator cannot use; ours.
CONTEXT = int(1.5 * GIB)
FRAGMENTATION = 0.05
MODES: tuple[Checkpointing, ...] = ("none", "selective", "full")


@dataclass(frozen=True)
class Clip:
    """A size that occurs: latents of a video and of its references."""

    video: tuple[int, int, int]  # (T, h, w), latents
    reference: tuple[int, int]  # (h, w), latents; the largest
    references: tuple[int, ...] = (0,)  # how many a step may have, each as likely as the others
    share: float = 1.0  # of the task's steps


@dataclass(frozen=True)
class Work:
    """What one task asks of a step."""

    task: str
    clips: tuple[Clip, ...]
    share: float  # of all steps
    batch: int
    micro_batch: int

    def lengths(self, shape: Shape, *, concatenated: bool = True) -> Iterator[tuple[int, float]]:
        """Tokens of a sample, references included, and the share of this task's steps that have so many."""
        for clip in self.clips:
            each = shape.tokens(1, *clip.reference) if concatenated else 0
            for count in clip.references:
                yield shape.tokens(*clip.video) + count * each, clip.share / len(clip.references)


@dataclass(frozen=True)
class Layout:
    """How the workers share the work, and what they recompute."""

    replicate: int
    shard: int
    sequence: int
    checkpointing: Checkpointing
    micro_batch: int

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
            f"parallel.sequence={self.sequence} compute.checkpointing={self.checkpointing} "
            f"micro_batch={self.micro_batch}"
        )


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU."""

    parameters: int  # float32, this worker's shard
    gradients: int  # float32
    optimizer: int  # two moments, float32
    ema: int
    gathered: int  # whole weights and gradients of what is computed just now
    activations: int  # peak, of one micro-batch
    context: int = CONTEXT

    @property
    def total(self) -> int:
        tensors = (
            self.parameters + self.gradients + self.optimizer + self.ema + self.gathered + self.activations
        )
        return int(tensors * (1 + FRAGMENTATION)) + self.context


@dataclass(frozen=True)
class Weights:
    """Numbers of parameters."""

    total: int
    block: int  # of one block
    rest: int  # outside the blocks

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Weights:
        """Counted on the real class, built without memory."""
        one, two = (activations.parameters(config, layers) for layers in (1, 2))
        block = two - one
        layers = Shape.of(config).layers
        return cls(total=one + (layers - 1) * block, block=block, rest=one - block)


class Estimate:
    """What `config` needs when its transformer has the config `transformer` and its tasks do `works`."""

    def __init__(self, config: TrainConfig, transformer: Mapping[str, Any], works: Iterable[Work]) -> None:
        self.config = config
        self.works = tuple(works)
        self.concatenated = config.positions.scheme != "channel_concat"
        if not self.concatenated:
            most = max((max(clip.references) for work in self.works for clip in work.clips), default=0)
            channels = transformer.get("out_channels") or transformer.get("in_channels", 16)
            transformer = {**transformer, "in_channels": channels * (1 + most)}
        self.transformer = dict(transformer)
        self.shape = Shape.of(self.transformer)

    @cached_property
    def weights(self) -> Weights:
        return Weights.of(self.transformer)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest sample: what memory is needed for."""
        return max(length for work in self.works for length, _ in self._lengths(work))

    def tokens(self, work: Work) -> float:
        """Mean per step, over all workers."""
        return work.batch * sum(length * share for length, share in self._lengths(work))

    def flops(self, work: Work) -> float:
        """Mean per step, over all workers: forward and backward."""
        return work.batch * sum(
            flops.training(self.shape, length) * share for length, share in self._lengths(work)
        )

    def recomputed(self, work: Work) -> float:
        """Mean per step, over all workers: what checkpointing adds."""
        mode = self.config.compute.checkpointing
        return work.batch * sum(
            flops.recomputed(self.shape, length, mode) * share for length, share in self._lengths(work)
        )

    def layout(self) -> Layout:
        """Of the config.

        Raises:
            RepriseError: it does not add up to the workers.
        """
        parallel, workers = self.config.parallel, self.config.run.workers
        fixed = parallel.replicate * parallel.sequence
        shard = workers // fixed if parallel.shard == -1 else parallel.shard
        if shard < 1 or fixed * shard != workers:
            wanted = "what is left" if parallel.shard == -1 else str(parallel.shard)
            raise RepriseError(
                f"parallel: replicate {parallel.replicate} x shard {wanted} x sequence {parallel.sequence} "
                f"does not make run.workers={workers}: change one of them"
            )
        micro = max(work.micro_batch for work in self.works)
        return Layout(parallel.replicate, shard, parallel.sequence, self.config.compute.checkpointing, micro)

    def problem(self, layout: Layout) -> str | None:
        """Why a layout cannot run whatever memory there is; None where it can."""
        if self.shape.heads % layout.sequence:
            return (
                f"{self.shape.heads} attention heads cannot be shared by parallel.sequence={layout.sequence}"
            )
        for work in self.works:
            for length, _ in self._lengths(work):
                if length % layout.sequence:
                    return (
                        f"{work.task}: {length} tokens do not divide into parallel.sequence={layout.sequence}"
                    )
            if work.batch % layout.groups:
                return f"{work.task}: batch {work.batch} does not divide into {layout.groups} data workers"
        return None

    def memory(self, layout: Layout) -> Memory:
        """Bytes per GPU under a layout."""
        count, ways = self.weights, layout.shard * layout.sequence
        whole = math.ceil(count.total / ways)
        compute = 2 if self.config.compute.precision == "bf16" else 4
        # FSDP holds what lies outside the blocks, the block at work and the next one, each as it is computed
        # with (all of them where nothing is sharded); and the gradients of a block twice, as computed and in
        # float32, while they are being reduced.
        held = count.rest + 2 * count.block if ways > 1 else count.total
        accumulates = any(work.batch > layout.groups * layout.micro_batch for work in self.works)
        return Memory(
            parameters=4 * whole,
            # Over several micro-batches each worker adds up the whole gradient, and reduces it once.
            gradients=4 * (count.total if accumulates else whole),
            optimizer=8 * whole,
            ema=4 * whole if self.config.optimizer.ema else 0,
            gathered=compute * held + (compute + 4) * count.block,
            activations=self.activations(layout),
        )

    def activations(self, layout: Layout) -> int:
        """Peak bytes of one micro-batch of the longest sample, forward and backward."""
        local = math.ceil(self.longest / layout.sequence)
        few, more = (
            activations.traced(
                self.transformer,
                local,
                layout.micro_batch,
                layout.checkpointing,
                self.config.compute.precision,
                layers=layers,
            )
            for layers in (2, 4)  # an even number: "selective" is about pairs
        )
        return few.peak + (more.peak - few.peak) * (self.shape.layers - 2) // 2

    def smallest(self, gpu_bytes: int, *, most: int = 1024) -> Layout | None:
        """The layout with the fewest GPUs that fits; of those with equally many, the fastest we know.

        It is the one that shares no sample, then the one that recomputes least, with micro-batches as large
        as they were, if possible.
        """
        micros = sorted({max(work.micro_batch for work in self.works), 1}, reverse=True)
        workers = 1
        while workers <= most:
            for micro in micros:
                for sequence in (2**power for power in range(int(math.log2(min(workers, 64))) + 1)):
                    least = Layout(1, workers // sequence, sequence, "full", micro)
                    if self.problem(least) is not None or self.memory(least).total > gpu_bytes:
                        continue
                    layouts = (replace(least, checkpointing=mode) for mode in MODES)
                    return next(layout for layout in layouts if self.memory(layout).total <= gpu_bytes)
            workers *= 2
        return None

    def check(self, gpu_bytes: int | None) -> None:
        """Refuse what cannot run.

        Raises:
            RepriseError: the layout does not add up, or does not fit; it names the smallest that does.
        """
        layout = self.layout()
        if problem := self.problem(layout):
            raise RepriseError(f"{problem}: change run.workers, the parallel section or the task")
        if gpu_bytes is None or (needed := self.memory(layout).total) <= gpu_bytes:
            return
        fitting = self.smallest(gpu_bytes)
        mend = f"the smallest layout that fits: {fitting}" if fitting else "no layout of up to 1024 GPUs fits"
        raise RepriseError(f"needs {readable(needed)} on each GPU, which has {readable(gpu_bytes)}; {mend}")

    def _lengths(self, work: Work) -> Iterator[tuple[int, float]]:
        return work.lengths(self.shape, concatenated=self.concatenated)


# ---- what the tasks ask for ------------------------------------------------------------------------------


def works_of_size(config: TrainConfig, frames: int, height: int, width: int) -> list[Work]:
    """For latents that are not there yet: videos of one size, references as large as they are.

    Args:
        frames, height, width: of the videos, in frames and pixels: 4n + 1 frames, sides that 16 divides.
    """
    if (frames - 1) % 4 or height % 16 or width % 16:
        raise RepriseError(f"size {frames}x{height}x{width}: needs 4n + 1 frames and sides that 16 divides")
    clip = Clip((1 + (frames - 1) // 4, height // 8, width // 8), (height // 8, width // 8))
    return [
        _work(config, index, [replace(clip, references=_counts(config, index))])
        for index in range(len(config.tasks))
    ]


def _work(config: TrainConfig, index: int, clips: Iterable[Clip]) -> Work:
    task = config.tasks[index]
    kinds = [each.kind for each in config.tasks]
    name = task.kind if kinds.count(task.kind) == 1 else f"{task.kind}.{index}"
    total = sum(each.weight for each in config.tasks)
    return Work(name, tuple(clips), task.weight / total, task.batch, task.micro_batch)


def _counts(config: TrainConfig, index: int) -> tuple[int, ...]:
    task = config.tasks[index]
    return tuple(range(1, task.max_references + 1)) if isinstance(task, KaleidoTask) else (0,)


def readable(count: float) -> str:
    """Bytes in GiB or MiB."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"
