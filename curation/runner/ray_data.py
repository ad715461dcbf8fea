"""The graph on Ray Data: videos -> clips -> finished rows, streamed.

CPU operators run as tasks, so no core waits for a worker that another operator holds. GPU operators run as
actors, which load their models once.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from curation.rows.schema import VIDEOS, VideoRow
from curation.rows.stage_names import SLICE
from curation.rows.tables import build_table
from curation.runner.graph import Operator, build_operators
from curation.runner.job import CurationJob, FinishedRows
from curation.runner.ray_tasks import get_results
from curation.runner.transport import decode_finished
from curation.runner.vllm_captions import add_vllm_captions, is_vllm_captioner
from curation.runner.worker import init_worker, process_clip_block, process_video_block, slice_block

# Of rows between operators. A worker takes at least one block, so blocks are small: a long video must keep
# many workers busy, and a worker that dies must not take much work with it.
_BLOCK_BYTES = 1 << 20
_SLICE_MEMORY = 384 << 20  # bytes: frames held back, packets of the open clip, decoder buffers
_MAX_BLOCKS = 20_000
_SHARES_PER_CORE = 4  # a video larger than one share of all bytes is spread over workers
_VIDEOS_PER_TASK = 4  # at most: if a worker dies, all videos of its task are begun again
_MAX_RETRIES = 2  # of a task whose worker died; Ray Data's own default is to try for ever


def annotate_videos(
    job: CurationJob, videos: Sequence[VideoRow], *, one_clip_per_task: bool = False
) -> Generator[FinishedRows, None, None]:
    """Take videos to fragments; yield what is finished as soon as it is.

    Videos whose worker died again and again are missing from what is yielded and from the fragments.

    Args:
        job: What the workers must know.
        videos: What to work on; clips in `skip_clip_ids` are skipped.
        one_clip_per_task: Give every clip its own task, so that one that kills its worker fails no other.

    Raises:
        RepriseError: The dataset cannot be written, or another error that every video would meet.
        RuntimeError: A worker failed otherwise, which is a bug; with its traceback.
    """
    # Messages of Ray are for its developers; every failed item has its reason in its row.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Workers return exceptions as rows, so only the death of a worker is an error to Ray Data.
    context.max_errored_blocks = -1
    # A worker that cannot import this package dies like any other; this task tells the reason.
    get_results([ray.remote(init_worker).remote(job)], "starting workers")
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    graph = build_operators(job.config)[:-1]
    whole_allowed = (
        not one_clip_per_task and can_run_in_one_worker(graph) and not is_vllm_captioner(job.config)
    )
    clip_videos, whole_videos = split_by_size(videos, cores) if whole_allowed else (videos, [])
    if clip_videos:
        yield from _iter_results(
            build_clip_graph(job, graph, clip_videos, cores, one_clip_per_task=one_clip_per_task)
        )
    if whole_videos:
        yield from _iter_results(build_video_graph(job, graph, whole_videos, cores))


def can_run_in_one_worker(graph: Sequence[Operator]) -> bool:
    """Whether one worker may slice a video and run all clip stages over its clips.

    It may if no stage needs other resources or fewer workers than the rest.
    """
    first, *others = (each.resources.model_copy(update={"batch_size": 1}) for each in graph)
    return not first.num_gpus and all(each == first for each in others)


def split_by_size(videos: Sequence[VideoRow], cores: int) -> tuple[list[VideoRow], list[VideoRow]]:
    """Split videos into those whose clips are spread over workers, and those that one worker does whole.

    A video that holds more than its share of all bytes would keep one core busy after all others have
    finished. The rows of the others need not travel. Both lists start with the largest videos, so that the
    last tasks are short.
    """
    ordered = sorted(videos, key=lambda video: (-video["size"], video["source_path"], video["source_key"]))
    share = sum(max(0, video["size"]) for video in videos) / (_SHARES_PER_CORE * cores)
    return (
        [video for video in ordered if video["size"] > share],
        [video for video in ordered if video["size"] <= share],
    )


def build_clip_graph(
    job: CurationJob,
    graph: Sequence[Operator],
    videos: Sequence[VideoRow],
    cores: int,
    *,
    one_clip_per_task: bool,
) -> Any:
    """Build a graph in which clips go from the worker that cut them to any worker that is free."""
    # Full batches would put the clips of a few videos into few tasks: then every clip is a task.
    max_rows = 1 if one_clip_per_task else max(1, len(videos) // (2 * cores))
    sizes = plan_task_sizes(len(videos), cores, 1)
    ds = _build_video_dataset(videos, sizes, 1 if max_rows == 1 else _BLOCK_BYTES)
    ds = _add_operator(ds, partial(slice_block, job), graph[0], 1)
    if is_vllm_captioner(job.config):
        ds = add_vllm_captions(ds, job.config)
    for operator in graph[1:]:
        block = partial(process_clip_block, job, operator.stages, operator is graph[-1])
        ds = _add_operator(ds, block, operator, min(operator.resources.batch_size, max_rows))
    return ds


def build_video_graph(
    job: CurationJob, graph: Sequence[Operator], videos: Sequence[VideoRow], cores: int
) -> Any:
    """Build a graph of one operator: a worker takes videos from the file to their fragments."""
    names = tuple(name for operator in graph[1:] for name in operator.stages)
    batch = min(operator.resources.batch_size for operator in graph[1:])
    sizes = plan_task_sizes(len(videos), cores, _VIDEOS_PER_TASK)
    ds = _build_video_dataset(videos, sizes, 1)  # tiny blocks, so that progress is reported at once
    return _add_operator(ds, partial(process_video_block, job, names, batch), graph[0], None)


def plan_task_sizes(videos: int, cores: int, max_videos: int) -> list[int]:
    """Plan how many videos each task takes, in order (guided self-scheduling).

    A core waits 0.1 to 0.2 s between two tasks, so the first tasks take several videos. The last ones take
    one, so that all cores finish at about the same time.

    Args:
        videos: How many there are.
        cores: Cores of the cluster.
        max_videos: Videos per task at most; more if there would be more than `_MAX_BLOCKS` tasks.
    """
    max_videos = max(max_videos, -(-videos // _MAX_BLOCKS))
    sizes: list[int] = []
    while videos > 0:
        sizes.append(min(max_videos, max(1, videos // (2 * cores))))
        videos -= sizes[-1]
    return sizes


def _build_video_dataset(videos: Sequence[VideoRow], sizes: Sequence[int], block_bytes: int) -> Any:
    """A dataset of the videos in blocks of these sizes; workers make blocks of about `block_bytes` of it.

    Ray Data counts the rows of a table in tasks; blocks need none.
    """
    # A dataset copies the context when it is made, so this must be set before.
    ray.data.DataContext.get_current().target_max_block_size = block_bytes
    table = build_table(videos, VIDEOS)
    starts = accumulate(sizes, initial=0)
    return ray.data.from_blocks(
        [table.slice(start, size).combine_chunks() for start, size in zip(starts, sizes, strict=False)]
    )


def _iter_results(ds: Any) -> Generator[FinishedRows, None, None]:
    batches = ds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    # If the caller leaves early, Ray Data must stop submitting tasks before Ray is stopped.
    with contextlib.closing(iter(batches)) as found:
        for batch in found:
            yield from decode_finished(batch)


def _add_operator(ds: Any, function: Callable[[pa.Table], Any], operator: Operator, batch: int | None) -> Any:
    """Add an operator over batches of at most `batch` rows; None: over blocks as they are."""
    need = operator.resources
    common = {
        "batch_size": batch,
        "batch_format": "pyarrow",
        "zero_copy_batch": True,
        "num_cpus": need.num_cpus,
    }
    if need.num_gpus:
        actors = (
            ActorPoolStrategy(size=need.concurrency) if need.concurrency else ActorPoolStrategy(min_size=1)
        )
        return ds.map_batches(
            _BatchActor, fn_constructor_args=(function,), num_gpus=need.num_gpus, compute=actors, **common
        )
    # Ray Data fuses operators with equal needs, which would make a long video the work of one core. Slicing
    # reserves memory, so it is not fused.
    reserved = _SLICE_MEMORY if operator.stages == (SLICE,) else None
    pool = TaskPoolStrategy(size=need.concurrency)
    with warnings.catch_warnings():
        # Ray deprecates `max_retries` here and has no replacement yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        return ds.map_batches(function, compute=pool, memory=reserved, max_retries=_MAX_RETRIES, **common)


class _BatchActor:
    """An actor: keeps the process, and with it the loaded models, between batches."""

    def __init__(self, function: Callable[[pa.Table], Any]) -> None:
        self._function = function

    def __call__(self, batch: pa.Table) -> Any:
        return self._function(batch)
