"""The graph on Ray Data: videos -> clips -> finished rows, streamed; then the shards.

CPU operators run as tasks, which share whatever cores there are: nothing waits for a worker that another
operator holds. GPU operators run as actors, which load their models once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from curation.config import CurationConfig
from curation.dataset.fragments import Fragments, RowIndex
from curation.dataset.shards import ShardPlan, ShardResult, read_rows, write_shard
from curation.models import registry
from curation.rows.schema import TRANSIT, VIDEOS, ClipRow, VideoRow
from curation.rows.tables import build_table
from curation.runner import memory
from curation.runner.graph import (
    CROSSPAIR,
    RETRIEVE,
    SHARD,
    SLICE,
    Operator,
    build_operators,
    build_stage,
    get_stage_resources,
)
from curation.stages.crosspair import Crosspair, Plate, can_give_plate, make_plate
from curation.stages.retrieve import (
    Donor,
    FoundDonors,
    Retrieve,
    SubjectEmbedding,
    embed_subjects,
    find_donors,
)
from curation.stages.slice import Slice
from curation.stages.stage import Stage, run_stage
from reprise.errors import RepriseError
from reprise.storage import Storage

log = logging.getLogger(__name__)

# Of rows between operators. A block is the least that a worker takes, so blocks are small: a long video must
# keep many workers busy, and a worker that dies must not take much with it.
_BLOCK_BYTES = 1 << 20
_SLICE_MEMORY = 384 << 20  # frames held back, packets of the open clip, decoder buffers
_MAX_BLOCKS = 20_000
_SHARES_PER_CORE = 4  # per core: a video larger than one share of all bytes is spread over workers
_VIDEOS_PER_TASK = (
    4  # videos that one task takes, at most: for a worker that dies, all of them are begun again
)
_CLIPS_PER_EMBED_TASK = 64  # clips whose subjects one task embeds
_MAX_RETRIES = 2  # of a task whose worker died; Ray Data's own default is to try for ever
# A row, the seconds spent on it, and instead of a row the reason to give the run up.
_TRANSIT_SCHEMA = TRANSIT.append(pa.field("error", pa.string()))
_FINISHED_SCHEMA = pa.schema(
    [("source_key", pa.string()), ("kept", pa.int64()), ("last", pa.bool_()), ("error", pa.string())]
)


@dataclass(frozen=True)
class CurationJob:
    """What every worker of a run must know; small, and the same for all of them."""

    config: CurationConfig
    dataset: Storage
    config_hash: str
    scratch: str | None = None  # where workers put temporary files; None: wherever the machine does


@dataclass(frozen=True)
class FinishedRows:
    """Rows of a video that are in a fragment now."""

    source_key: str
    kept: int  # how many clips among them
    last: bool  # whether the last row of the video is


def annotate_videos(
    job: CurationJob, videos: Sequence[VideoRow], *, one_clip_per_task: bool = False
) -> Generator[FinishedRows, None, None]:
    """Videos -> fragments; yields what is finished, as it is.

    Videos whose worker died again and again are missing from what is yielded and from the fragments.

    Args:
        apart: every clip in a task of its own, so that one that kills its worker takes no other along.

    Raises:
        RepriseError: the dataset cannot be written, or whatever else no other video would fare better with.
        RuntimeError: with a worker's traceback; that is a bug.
    """
    # Ray's own words are for its developers; every failed item says why in its row.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Only the death of a worker is an error to Ray Data: whatever a worker can say comes as a row.
    context.max_errored_blocks = -1
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    check = ray.remote(_check_imports).remote()
    graph = build_operators(job.config)[:-1]
    whole_allowed = not one_clip_per_task and can_run_in_one_worker(graph) and not _is_vllm_captioner(job)
    clip_videos, whole_videos = split_by_size(videos, cores) if whole_allowed else (videos, [])
    if clip_videos:
        yield from _iter_results(
            build_clip_graph(job, graph, clip_videos, cores, one_clip_per_task=one_clip_per_task)
        )
    if whole_videos:
        yield from _iter_results(build_video_graph(job, graph, whole_videos, cores))
    # A task whose modules are missing on a machine looks like a dead worker. This task's error names them.
    _get_results([check], "starting workers")


def _check_imports() -> None:
    """Do nothing. To unpickle this function, a worker imports this module and all that it needs."""


def can_run_in_one_worker(graph: Sequence[Operator]) -> bool:
    """Whether one worker may cut a video and do all the rest with its clips, too: no stage needs another's
    resources, or fewer workers."""
    first, *others = (each.resources.model_copy(update={"batch_size": 1}) for each in graph)
    return not first.num_gpus and all(each == first for each in others)


def _is_vllm_captioner(job: CurationJob) -> bool:
    return registry.get_backend_name(job.config, "captioner") == registry.VLLM


def split_by_size(videos: Sequence[VideoRow], cores: int) -> tuple[list[VideoRow], list[VideoRow]]:
    """The videos whose clips should be spread over workers, and those that one worker does as a whole.

    A video that holds more than its share would keep one core busy while all others have finished. Of the
    others, no row has to travel. Both with the largest first, so that what comes last is short.
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
    """A graph in which clips go from the worker that cut them to whoever is free."""
    # A few videos must not end up in as few tasks as would fill the batches: then every clip is a task.
    max_rows = 1 if one_clip_per_task else max(1, len(videos) // (2 * cores))
    ds = _build_video_dataset(
        videos, plan_task_sizes(len(videos), cores, 1), 1 if max_rows == 1 else _BLOCK_BYTES
    )
    ds = _add_operator(ds, partial(_slice_block, job), graph[0], 1)
    if _is_vllm_captioner(job):
        ds = _add_vllm_captions(ds, job)
    for operator in graph[1:]:
        block = partial(_process_clip_block, job, operator.stages, operator is graph[-1])
        ds = _add_operator(ds, block, operator, min(operator.resources.batch_size, max_rows))
    return ds


def build_video_graph(
    job: CurationJob, graph: Sequence[Operator], videos: Sequence[VideoRow], cores: int
) -> Any:
    """A graph of one operator: a worker takes some videos and leaves nothing to do of them."""
    names = tuple(name for operator in graph[1:] for name in operator.stages)
    batch = min(operator.resources.batch_size for operator in graph[1:])
    ds = _build_video_dataset(
        videos, plan_task_sizes(len(videos), cores, _VIDEOS_PER_TASK), 1
    )  # what is finished is told at once
    return _add_operator(ds, partial(_process_video_block, job, names, batch), graph[0], None)


def plan_task_sizes(videos: int, cores: int, max_videos: int) -> list[int]:
    """How many videos each task takes, in order, at most `most` if there are not too many: guided
    self-scheduling.

    Between two tasks a core waits for a tenth of a second or two, so that the first ones take several videos;
    the last ones take one, so that all cores finish at about the same time.
    """
    max_videos = max(max_videos, -(-videos // _MAX_BLOCKS))
    sizes: list[int] = []
    while videos > 0:
        sizes.append(min(max_videos, max(1, videos // (2 * cores))))
        videos -= sizes[-1]
    return sizes


def _build_video_dataset(videos: Sequence[VideoRow], sizes: Sequence[int], block_bytes: int) -> Any:
    """A dataset of the videos in blocks of these sizes, of which workers make blocks of about `block_bytes`.

    Blocks that are there already need no task to count their rows, as tables would.
    """
    # Now or never: a dataset takes a copy of the context with it.
    ray.data.DataContext.get_current().target_max_block_size = block_bytes
    table = build_table(videos, VIDEOS)
    starts = accumulate(sizes, initial=0)
    return ray.data.from_blocks(
        [table.slice(start, size).combine_chunks() for start, size in zip(starts, sizes, strict=False)]
    )


def _iter_results(ds: Any) -> Generator[FinishedRows, None, None]:
    batches = ds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    # Whoever leaves early must not leave Ray Data submitting tasks to a Ray that is being stopped.
    with contextlib.closing(iter(batches)) as found:
        for batch in found:
            for row in batch.to_pylist():
                if row["error"]:
                    raise decode_error(row["error"])
                yield FinishedRows(row["source_key"], row["kept"], row["last"])


def _add_operator(ds: Any, function: Callable[[pa.Table], Any], operator: Operator, batch: int | None) -> Any:
    """An operator over batches of so many rows; None: over blocks as they are."""
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
    # Reserving memory also keeps Ray Data from fusing slicing with what follows, which it does to operators
    # with equal needs, and which would make a long video the work of one core.
    reserved = _SLICE_MEMORY if operator.stages == (SLICE,) else None
    pool = TaskPoolStrategy(size=need.concurrency)
    with warnings.catch_warnings():
        # Ray deprecates `max_retries` here and has nothing in its place yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        return ds.map_batches(function, compute=pool, memory=reserved, max_retries=_MAX_RETRIES, **common)


def _add_vllm_captions(ds: Any, job: CurationJob) -> Any:
    """Captions by vLLM, an engine that schedules its own batches and workers, through Ray Data LLM.

    A row travels as one Arrow file beside its question and comes back with the answer.

    Raises:
        RepriseError: vLLM is not installed, or its checkpoint is not here.
    """
    captioner = registry.load_required_backend(job.config, "captioner")
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    processor = build_processor(
        vLLMEngineProcessorConfig(**captioner.build_engine_config()),
        preprocess=partial(build_request, captioner),
        postprocess=parse_response,
    )
    wrapped = ds.map_batches(pack_rows, batch_size=1, batch_format="pyarrow", zero_copy_batch=True)
    apply = partial(apply_caption, captioner, registry.get_model_id(captioner))
    return processor(wrapped).map_batches(apply, batch_size=1, batch_format="pyarrow")


def pack_rows(clips: pa.Table) -> pa.Table:
    """Transit rows -> one column of Arrow files, one row each."""
    files = []
    for position in range(clips.num_rows):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, clips.schema) as writer:
            writer.write_table(clips.slice(position, 1))
        files.append(sink.getvalue().to_pybytes())
    return pa.table({"row": pa.array(files, pa.binary())})


def unpack_row(file: bytes) -> pa.Table:
    with pa.ipc.open_stream(file) as reader:
        return reader.read_all()


def build_request(captioner: Any, wrapped: dict[str, Any]) -> dict[str, Any]:
    """The question about a wrapped row, beside it."""
    (row,) = unpack_row(wrapped["row"]).to_pylist()
    return {"row": wrapped["row"], **captioner.build_chat_request(row)}


def parse_response(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "row": found["row"],
        "message": found["generated_text"],
        "tokens": int(found["num_generated_tokens"]),
    }


def apply_caption(captioner: Any, source: str, answers: pa.Table) -> pa.Table:
    """Answers -> transit rows."""
    done = []
    for answer in answers.to_pylist():
        whole = unpack_row(answer["row"])
        (row,) = whole.to_pylist()
        if row["error"] is None:
            problem = answer.get("__inference_error__") or None
            captioner.store_caption(row, answer.get("message"), answer.get("tokens") or 0, source, problem)
        done.append(build_table([row], whole.schema))
    return pa.concat_tables(done)


class _BatchActor:
    """An actor: keeps the process, and with it the loaded models, between batches."""

    def __init__(self, function: Callable[[pa.Table], Any]) -> None:
        self._function = function

    def __call__(self, batch: pa.Table) -> Any:
        return self._function(batch)


# Built once per process and kept between tasks. Keyed by what the stages depend on.
_cache: dict[tuple[Any, ...], Any] = {}


def get_cached(key: tuple[Any, ...], build: Callable[[], Any]) -> Any:
    if key not in _cache:
        _cache[key] = build()
    return _cache[key]


def init_worker(job: CurationJob) -> None:
    """What a worker does before its first row."""
    memory.limit_malloc_arenas()
    cv2.setNumThreads(1)  # the engine gives each worker one core; OpenCV would take all of them
    if job.scratch and Path(job.scratch).is_dir():
        tempfile.tempdir = job.scratch


def _slice_block(job: CurationJob, videos: pa.Table) -> Iterator[pa.Table]:
    """The rows of some videos, one at a time."""
    try:
        init_worker(job)
        for video in videos.to_pylist():
            for row, seconds in slice_video(job, video):
                yield encode_transit([row], {SLICE: seconds})
            memory.release_free_memory()
    except Exception as error:
        yield encode_error(error, _TRANSIT_SCHEMA)


def _process_clip_block(job: CurationJob, names: tuple[str, ...], last: bool, clips: pa.Table) -> pa.Table:
    """Rows through some stages and, if those were the last, into a fragment."""
    failed = clips.filter(pc.is_valid(clips["error"]))
    if failed.num_rows:
        return _build_error_table(failed["error"][0].as_py(), _FINISHED_SCHEMA if last else _TRANSIT_SCHEMA)
    try:
        init_worker(job)
        rows, seconds = decode_transit(clips)
        rows = run_stages(job, names, rows, seconds)
        memory.release_free_memory()
        return write_fragment(job, rows, seconds) if last else encode_transit(rows, seconds)
    except Exception as error:
        return encode_error(error, _FINISHED_SCHEMA if last else _TRANSIT_SCHEMA)


def _process_video_block(
    job: CurationJob, names: tuple[str, ...], batch: int, videos: pa.Table
) -> Iterator[pa.Table]:
    """Some videos from the file to their fragments, at most `batch` rows at once."""
    try:
        init_worker(job)
        for video in videos.to_pylist():
            held: list[ClipRow] = []
            seconds: dict[str, float] = {}
            for row, spent in slice_video(job, video):
                held.append(row)
                seconds[SLICE] = seconds.get(SLICE, 0.0) + spent
                if len(held) == batch or row["clip_count"] > 0:
                    held = run_stages(job, names, held, seconds)
                    yield write_fragment(job, held, seconds)
                    held, seconds = [], {}
            if held:
                yield write_fragment(job, run_stages(job, names, held, seconds), seconds)
            memory.release_free_memory()
    except Exception as error:
        yield encode_error(error, _FINISHED_SCHEMA)


def slice_video(job: CurationJob, video: VideoRow) -> Iterator[tuple[ClipRow, float]]:
    """The rows of a video, and the seconds that each took."""
    stage: Slice = get_cached(
        (SLICE, job.dataset, job.config_hash), lambda: Slice(job.config, job.dataset, job.config_hash)
    )
    since = time.perf_counter()
    for row in stage(video):
        yield row, time.perf_counter() - since
        since = time.perf_counter()  # the time that the reader took is not slicing's


def run_stages(
    job: CurationJob, names: tuple[str, ...], rows: list[ClipRow], seconds: dict[str, float]
) -> list[ClipRow]:
    stages: list[Stage] = get_cached(
        (names, job.config_hash), lambda: [build_stage(name, job.config) for name in names]
    )
    for stage in stages:
        rows = run_stage(stage, rows, seconds)
    return rows


def write_fragment(job: CurationJob, rows: list[ClipRow], seconds: dict[str, float]) -> pa.Table:
    """Writes a fragment; what is left to say of its rows."""
    Fragments(job.dataset, job.config_hash).write_rows(rows, seconds)
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        done = found.setdefault(
            row["source_key"], {"source_key": row["source_key"], "kept": 0, "last": False}
        )
        done["kept"] += row["status"] == "kept"
        done["last"] |= row["clip_count"] > 0
    return pa.Table.from_pylist(list(found.values()), schema=_FINISHED_SCHEMA)


def encode_error(error: Exception, schema: pa.Schema) -> pa.Table:
    """An error as a row: Ray would wrap it in pages of its own, and count it as a death."""
    plain = isinstance(error, RepriseError)
    return _build_error_table(json.dumps([plain, str(error) if plain else traceback.format_exc()]), schema)


def _build_error_table(message: str, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{"error": message}], schema=schema)


def decode_error(message: str) -> Exception:
    plain, text = json.loads(message)
    return RepriseError(text) if plain else RuntimeError(f"in a worker:\n{text}")


def encode_transit(rows: Sequence[ClipRow], seconds: dict[str, float]) -> pa.Table:
    """Rows and the seconds spent on them, which ride with the first row."""
    spent = [json.dumps(seconds)] + [None] * (len(rows) - 1)
    return build_table(
        [{**row, "seconds": each} for row, each in zip(rows, spent, strict=False)], _TRANSIT_SCHEMA
    )


def decode_transit(table: pa.Table) -> tuple[list[ClipRow], dict[str, float]]:
    rows = table.drop_columns(["error"]).to_pylist()
    total: dict[str, float] = {}
    for row in rows:
        for stage, value in json.loads(row.pop("seconds", None) or "{}").items():
            total[stage] = total.get(stage, 0.0) + value
    return rows, total


def make_plates(job: CurationJob, entries: Sequence[RowIndex]) -> tuple[list[Plate], float]:
    """The pool of backgrounds, made on the cluster, and the seconds of work that went into it."""
    if not entries or job.config.crosspair.share == 0:
        return [], 0.0
    chunk = max(1, min(16, len(entries) // 4))
    groups = [tuple(entries[start : start + chunk]) for start in range(0, len(entries), chunk)]
    need = get_stage_resources(job.config, CROSSPAIR)
    remote = ray.remote(_make_plate_group).options(num_cpus=need.num_cpus, num_gpus=need.num_gpus)
    made = _get_results([remote.remote(job, group) for group in groups], "making backgrounds")
    plates = sorted((plate for group, _ in made for plate in group), key=lambda plate: plate.clip_id)
    return plates, sum(seconds for _, seconds in made)


def _make_plate_group(job: CurationJob, entries: tuple[RowIndex, ...]) -> tuple[list[Plate], float]:
    init_worker(job)
    started = time.perf_counter()
    inpainter = get_cached(
        ("inpainter", job.config_hash), lambda: registry.load_required_backend(job.config, "inpainter")
    )
    plates = []
    for rows in read_rows(job.dataset, entries, 1):
        for row in filter(can_give_plate, rows):
            try:
                plate = make_plate(row, inpainter, job.config.seed, job.config.crosspair.clips)
                plates.append(_share_plate_image(plate))
            except RepriseError:
                raise
            except Exception as error:  # one background less
                log.warning("%s: no background: %s", row["clip_id"], error, exc_info=True)
    memory.release_free_memory()
    return plates, time.perf_counter() - started


def _share_plate_image(plate: Plate) -> Plate:
    """The plate with its picture as an Arrow buffer: a pool of them lies in shared memory once, for all that
    hold it, where bytes would be copied into each process."""
    data: Any = pa.py_buffer(plate.image["bytes"] or b"")
    return replace(plate, image={"bytes": data, "path": None})


@dataclass(frozen=True)
class DonorTable:
    """Where drawn subjects are seen again; what a shard's task must know of it is small."""

    model: str = ""  # `registry.identity` of the embedder that found them
    found: dict[str, dict[str, Donor]] = field(default_factory=dict)  # clip -> subject -> its donor
    entries: dict[str, RowIndex] = field(default_factory=dict)  # clip of a donor -> its row

    def select_shard(self, shard: ShardPlan) -> DonorTable:
        """What concerns the rows of one shard."""
        clips = [entry.clip_id for entry in shard.entries if entry.clip_id in self.found]
        found = {clip: self.found[clip] for clip in clips}
        wanted = sorted({each.clip_id for mine in found.values() for each in mine.values()})
        return DonorTable(self.model, found, {clip: self.entries[clip] for clip in wanted})


def collect_donors(job: CurationJob, entries: Sequence[RowIndex]) -> DonorTable:
    """Donors of the drawn subjects; none without an embedder. Subjects are embedded on the cluster.

    Raises:
        RepriseError: the embedder cannot be loaded, or workers died again and again.
    """
    kept = sorted((entry for entry in entries if entry.status == "kept"), key=lambda each: each.sort_key)
    model = registry.resolve_model_id(job.config, "embedder")
    if not kept or job.config.retrieve.share == 0 or model is None:
        return DonorTable()
    groups = [
        tuple(kept[start : start + _CLIPS_PER_EMBED_TASK])
        for start in range(0, len(kept), _CLIPS_PER_EMBED_TASK)
    ]
    need = get_stage_resources(job.config, RETRIEVE)
    remote = ray.remote(_embed_entries).options(num_cpus=need.num_cpus, num_gpus=need.num_gpus)
    results = _get_results([remote.remote(job, group) for group in groups], "looking for subjects seen again")
    embeddings = [each for group in results for each in group]
    clips = {each.subject_id: each.clip_id for each in embeddings}
    found: dict[str, dict[str, Donor]] = {}
    for subject, donor in find_donors(embeddings, job.config).items():
        found.setdefault(clips[subject], {})[subject] = donor
    return DonorTable(model, found, {entry.clip_id: entry for entry in kept})


def _embed_entries(job: CurationJob, entries: tuple[RowIndex, ...]) -> list[SubjectEmbedding]:
    init_worker(job)
    embedder = get_cached(
        ("embedder", job.config_hash), lambda: registry.load_required_backend(job.config, "embedder")
    )
    return [each for rows in read_rows(job.dataset, entries, 8) for each in embed_subjects(rows, embedder)]


def write_shards(
    job: CurationJob, plans: Sequence[ShardPlan], plates: list[Plate], donors: DonorTable | None = None
) -> Iterator[ShardResult]:
    """Cross-pairs, pictures from other clips and shards; one task per shard, yielded as they finish."""
    pool = ray.put(plates)
    remote = ray.remote(_finish_shard).options(num_cpus=get_stage_resources(job.config, SHARD).num_cpus)
    left = [remote.remote(job, shard, pool, (donors or DonorTable()).select_shard(shard)) for shard in plans]
    while left:
        done, left = ray.wait(left, num_returns=1)
        yield from _get_results(done, "writing shards")


def _finish_shard(job: CurationJob, shard: ShardPlan, plates: list[Plate], donors: DonorTable) -> ShardResult:
    init_worker(job)
    stages: list[Stage] = [Crosspair(job.config, plates)]
    if donors.found:
        stages.append(Retrieve(job.config, _build_library(job, donors)))
    result = write_shard(job.dataset, shard, stages, job.config)
    memory.release_free_memory()
    return result


def _build_library(job: CurationJob, donors: DonorTable) -> FoundDonors:
    def load_clips(clip_ids: Sequence[str]) -> Iterator[ClipRow]:
        wanted = sorted((donors.entries[each] for each in clip_ids), key=lambda each: each.sort_key)
        for rows in read_rows(job.dataset, wanted, 8):
            yield from rows

    name, revision, sha256 = registry.split_model_id(donors.model)
    found = {subject: donor for mine in donors.found.values() for subject, donor in mine.items()}
    return FoundDonors(name, revision, found, load_clips, sha256)


def _get_results(references: list[Any], activity: str) -> list[Any]:
    """Results of tasks.

    Raises:
        RepriseError: that of a worker as itself; or workers died again and again.
    """
    try:
        return list(ray.get(references))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, RepriseError) else None
        raise cause or error from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise RepriseError(
            f"workers died again and again while {activity}, perhaps for want of memory: run the same "
            "command again to go on"
        ) from error
