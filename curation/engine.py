"""The graph on Ray Data: videos -> clips -> finished rows, streamed; then the shards.

CPU operators run as tasks, which share whatever cores there are: nothing waits for a worker that another
operator holds. GPU operators run as actors, which load their models once.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from curation.config import CurationConfig
from curation.dataset.fragments import Entry, Fragments
from curation.dataset.shards import ShardPlan, ShardResult, read_rows, write_shard
from curation.errors import RepriseError
from curation.graph import CROSSPAIR, SHARD, SLICE, Operator, build_stage, operators, resources_of
from curation.models import registry
from curation.schema import TRANSIT, VIDEOS, ClipRow, VideoRow, to_table
from curation.stages.base import Stage, run
from curation.stages.crosspair import Crosspair, Plate, make_plate, plate_candidate
from curation.stages.slice import Slice
from curation.storage import Storage

_BLOCK_BYTES = 32 << 20  # of rows between operators: small, so that one long video keeps many workers busy
_SLICE_MEMORY = 384 << 20  # frames held back, packets of the open clip, decoder buffers
_MAX_BLOCKS = 20_000
_LOCAL_STORE_BYTES = 2 << 30
_TOLERATED_BLOCKS = 8  # blocks whose worker died again and again, before the run gives up


@dataclass(frozen=True)
class Job:
    """What every worker of a run must know; small, and the same for all of them."""

    config: CurationConfig
    dataset: Storage
    config_hash: str


@contextmanager
def started(config: CurationConfig) -> Iterator[None]:
    """Connect to the cluster of `engine.address` or RAY_ADDRESS, or start Ray here and stop it afterwards.

    Raises:
        RepriseError: no cluster at that address.
    """
    if ray.is_initialized():
        yield
        return
    engine = config.engine
    address = engine.address or os.environ.get("RAY_ADDRESS")
    # Ray's own words are for its developers; every failed item says why in its row.
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address and address != "local":
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=engine.num_cpus or os.cpu_count(),
                object_store_memory=_store_bytes(engine.object_store_mb),
                include_dashboard=False,
                **quiet,
            )
    except ConnectionError as error:
        raise RepriseError(f"no Ray cluster answers at {address}: {str(error).splitlines()[0]}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _store_bytes(megabytes: int | None) -> int:
    if megabytes:
        return megabytes << 20
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(_LOCAL_STORE_BYTES, int(0.3 * memory))


def annotate(job: Job, videos: Sequence[VideoRow]) -> Iterator[dict[str, Any]]:
    """Videos -> fragments. Yields, as they finish, `source_key`, `status` and `last` of each row.

    Videos whose worker died again and again are missing from what is yielded and from the fragments.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK_BYTES
    context.max_errored_blocks = max(_TOLERATED_BLOCKS, len(videos) // 50)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    table = to_table(videos, VIDEOS)
    ds = ray.data.from_arrow(table, override_num_blocks=min(len(videos), _MAX_BLOCKS))
    graph = operators(job.config)[:-1]
    ds = _attach(ds, partial(_slice_block, job), graph[0])
    for operator in graph[1:]:
        ds = _attach(ds, partial(_chain_block, job, operator.stages, operator is graph[-1]), operator)
    for batch in ds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()


def _attach(ds: Any, function: Callable[[pa.Table], Any], operator: Operator) -> Any:
    need = operator.resources
    # One block of videos at a time: the input is split into single videos, and a clip's row is heavy.
    batch = 1 if operator.stages == (SLICE,) else need.batch_size
    common = {"batch_size": batch, "batch_format": "pyarrow", "zero_copy_batch": True, "num_cpus": need.num_cpus}
    if need.num_gpus:
        pool = ActorPoolStrategy(size=need.concurrency) if need.concurrency else ActorPoolStrategy(min_size=1)
        return ds.map_batches(
            _Worker, fn_constructor_args=(function,), num_gpus=need.num_gpus, compute=pool, **common
        )
    # Reserving memory also keeps Ray Data from fusing slicing with what follows, which it does to operators
    # with equal needs, and which would make a long video the work of one core.
    memory = _SLICE_MEMORY if operator.stages == (SLICE,) else None
    return ds.map_batches(function, compute=TaskPoolStrategy(size=need.concurrency), memory=memory, **common)


class _Worker:
    """An actor: keeps the process, and with it the loaded models, between batches."""

    def __init__(self, function: Callable[[pa.Table], Any]) -> None:
        self._function = function

    def __call__(self, batch: pa.Table) -> Any:
        return self._function(batch)


# Built once per process and kept between tasks. Keyed by what the stages depend on.
_built: dict[tuple[Any, ...], Any] = {}


def _once(key: tuple[Any, ...], build: Callable[[], Any]) -> Any:
    if key not in _built:
        cv2.setNumThreads(1)  # the engine gives each worker one core; OpenCV would take all of them
        _built[key] = build()
    return _built[key]


def _slice_block(job: Job, videos: pa.Table) -> Iterator[pa.Table]:
    stage: Slice = _once(
        (SLICE, job.dataset, job.config_hash), lambda: Slice(job.config, job.dataset, job.config_hash)
    )
    for video in videos.to_pylist():
        clock = _Clock()
        for row in stage(video):
            yield to_transit([row], {SLICE: clock.lap()})


class _Clock:
    """Processor-independent seconds between laps: what a stage took, its waiting for the reader left out."""

    def __init__(self) -> None:
        self._last = os.times().elapsed

    def lap(self) -> float:
        now = os.times().elapsed
        spent, self._last = now - self._last, now
        return spent


def _chain_block(job: Job, names: tuple[str, ...], last: bool, clips: pa.Table) -> pa.Table:
    stages: list[Stage] = _once(
        (names, job.config_hash), lambda: [build_stage(name, job.config) for name in names]
    )
    rows, seconds = from_transit(clips)
    for stage in stages:
        rows = run(stage, rows, seconds)
    if not last:
        return to_transit(rows, seconds)
    Fragments(job.dataset, job.config_hash).write(rows, seconds)
    return pa.Table.from_pylist(
        [
            {"source_key": row["source_key"], "status": row["status"], "last": row["clip_count"] > 0}
            for row in rows
        ],
        schema=pa.schema([("source_key", pa.string()), ("status", pa.string()), ("last", pa.bool_())]),
    )


def to_transit(rows: Sequence[ClipRow], seconds: dict[str, float]) -> pa.Table:
    """Rows and the seconds spent on them, which ride with the first row."""
    spent = [json.dumps(seconds)] + [None] * (len(rows) - 1)
    return to_table([{**row, "seconds": each} for row, each in zip(rows, spent, strict=False)], TRANSIT)


def from_transit(table: pa.Table) -> tuple[list[ClipRow], dict[str, float]]:
    rows = table.to_pylist()
    total: dict[str, float] = {}
    for row in rows:
        for stage, value in json.loads(row.pop("seconds", None) or "{}").items():
            total[stage] = total.get(stage, 0.0) + value
    return rows, total


def make_plates(job: Job, entries: Sequence[Entry]) -> list[Plate]:
    """The pool of backgrounds, made on the cluster."""
    if not entries or job.config.crosspair.share == 0:
        return []
    chunk = max(1, min(16, len(entries) // 4 or 1))
    groups = [tuple(entries[start : start + chunk]) for start in range(0, len(entries), chunk)]
    remote = ray.remote(_plates).options(num_cpus=resources_of(job.config, CROSSPAIR).num_cpus)
    made = _gather([remote.remote(job, group) for group in groups])
    return sorted((plate for group in made for plate in group), key=lambda plate: plate.clip_id)


def _plates(job: Job, entries: tuple[Entry, ...]) -> list[Plate]:
    inpainter = _once(("inpainter", job.config_hash), lambda: registry.load(job.config, "inpainter"))
    rows = next(iter(read_rows(job.dataset, entries, len(entries))))
    return [make_plate(row, inpainter, job.config.seed) for row in rows if plate_candidate(row)]


def write_shards(job: Job, plans: Sequence[ShardPlan], plates: list[Plate]) -> Iterator[ShardResult]:
    """Cross-pairs and shards, one task per shard, yielded as they finish."""
    pool = ray.put(plates)
    remote = ray.remote(_shard).options(num_cpus=resources_of(job.config, SHARD).num_cpus)
    left = [remote.remote(job, shard, pool) for shard in plans]
    while left:
        done, left = ray.wait(left, num_returns=1)
        yield from _gather(done)


def _shard(job: Job, shard: ShardPlan, plates: list[Plate]) -> ShardResult:
    cv2.setNumThreads(1)
    return write_shard(job.dataset, shard, [Crosspair(job.config, plates)], job.config)


def _gather(references: list[Any]) -> list[Any]:
    """Results of tasks; a RepriseError of a worker comes out as itself."""
    try:
        return list(ray.get(references))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, RepriseError) else None
        raise cause or error from error


def plain_cause(error: BaseException) -> RepriseError | None:
    """The RepriseError inside an error that Ray wrapped, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RepriseError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None
