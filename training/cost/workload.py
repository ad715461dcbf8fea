"""The workload of a step: tokens of the samples of each task, and the frequency of each length."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reprise.errors import RepriseError
from training.config import TaskConfig, TrainConfig
from training.data import random_streams
from training.data.sampler import Bucket, Sampler
from training.latents.store import Latents
from training.models.family import Family
from training.models.packing import Size
from training.models.shape import TransformerShape
from training.tasks.build import build_tasks, share_replay
from training.tasks.task import Task


@dataclass(frozen=True)
class Workload:
    """The workload of one task."""

    task: str  # its name
    is_replay: bool
    lengths: tuple[tuple[int, float], ...]  # tokens of a sample, references included; share of its steps
    text: int  # tokens of its caption, padded
    video: Size  # the largest latent video, (T, h, w)
    share: float  # of all steps
    batch: int
    micro_batch: int


def with_reference_channels(config: TrainConfig, transformer: Mapping[str, Any]) -> dict[str, Any]:
    """Add channels for references to a transformer's config, where references are channels."""
    if config.positions.adds_tokens:
        return dict(transformer)
    channels = transformer.get("out_channels") or transformer.get("in_channels", 16)
    references = max((task.max_references for task in build_tasks(config.tasks)), default=0)
    return {**transformer, "in_channels": channels * (1 + references)}


def estimate_workloads(
    config: TrainConfig, family: Family, shape: TransformerShape, size: tuple[int, int, int]
) -> list[Workload]:
    """Estimate workloads without latents: videos of one size, and references as large as they are.

    Args:
        config: of the run.
        family: of the model.
        shape: of its transformer.
        size: frames, height and width of the videos, in frames and pixels.

    Raises:
        RepriseError: the model cannot take this size.
    """
    frames, height, width = size
    temporal, spatial = family.temporal_scale, family.spatial_scale
    rows, columns = spatial * shape.patch[1], spatial * shape.patch[2]
    if (frames - 1) % temporal or height % rows or width % columns:
        raise RepriseError(
            f"size {frames}x{height}x{width}: needs {temporal}n + 1 frames, a height that {rows} divides and "
            f"a width that {columns} divides"
        )
    video = (1 + (frames - 1) // temporal, height // spatial, width // spatial)
    reference = shape.count_tokens(1, *video[1:]) if config.positions.adds_tokens else 0
    configs = share_replay(config.tasks, config.replay)
    workloads = []
    for task, settings in zip(build_tasks(configs), configs, strict=True):
        target = task.get_target_size(video)
        tokens, visible = shape.count_tokens(*target), task.count_visible_tokens(reference)
        shares = task.get_count_shares(task.max_references)
        lengths = [(tokens + count * visible, share) for count, share in shares.items()]
        workloads.append(_make_workload(task, settings, configs, lengths, shape.text_tokens, target))
    return workloads


def measure_workloads(config: TrainConfig, shape: TransformerShape) -> list[Workload]:
    """Measure workloads on the latents that the tasks name; one sample of each bucket is read.

    Raises:
        RepriseError: latents are missing, not finished, or of no use to their task.
    """
    configs = share_replay(config.tasks, config.replay)
    tasks = build_tasks(configs)
    latents = [Latents(task.latents) for task in tasks]
    records = [each.records for each in latents]
    sampler = Sampler(tasks, records, seed=config.seed, holdout=config.validation.holdout)
    workloads = []
    for task, given, settings in zip(tasks, latents, configs, strict=True):
        buckets = sampler.buckets[task.name]
        total = sum(len(bucket.rows) for bucket in buckets)
        shares: dict[int, float] = defaultdict(float)
        for bucket in buckets:
            for count, share in task.get_count_shares(bucket.capacity).items():
                length = _measure_length(config, shape, task, given, bucket, count)
                shares[length] += share * len(bucket.rows) / total
        largest = max((bucket.size for bucket in buckets), key=math.prod)
        text = given.manifest.text.length
        workloads.append(_make_workload(task, settings, configs, sorted(shares.items()), text, largest))
    return workloads


def _measure_length(
    config: TrainConfig, shape: TransformerShape, task: Task, latents: Latents, bucket: Bucket, count: int
) -> int:
    """Tokens of the bucket's first sample with `count` references."""
    record = latents.records[int(bucket.rows[0])]
    generator = random_streams.make_generator(config.seed, "estimate", 0)
    choice = task.choose_references(record, count, generator)
    batch = task.collate_samples([latents.read_sample(0, record, choice)], latents.manifest.text.length)
    patch = math.prod(shape.patch)
    length = math.prod(batch.video.shape[2:]) // patch
    if config.positions.adds_tokens:
        sizes = [math.prod(reference.shape[2:]) // patch for reference in batch.references]
        length += sum(task.count_visible_tokens(size) for size in sizes)
    return length


def _make_workload(
    task: Task,
    settings: TaskConfig,
    configs: Iterable[TaskConfig],
    lengths: Iterable[tuple[int, float]],
    text: int,
    video: Size,
) -> Workload:
    share = task.weight / sum(each.weight for each in configs)
    return Workload(
        task=task.name,
        is_replay=settings.is_replay,
        lengths=tuple(lengths),
        text=text,
        video=video,
        share=share,
        batch=task.batch,
        micro_batch=task.micro_batch,
    )
