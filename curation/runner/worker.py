"""The code of a worker process: cut videos into clips, run stages over clips, write fragments.

Nothing here knows Ray. The function of an operator takes and gives Arrow tables; it returns an exception as a
table, too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa

from curation.dataset.fragments import Fragments
from curation.rows.schema import ClipRow, VideoRow
from curation.rows.stage_names import SLICE
from curation.runner.graph import build_stage
from curation.runner.job import CurationJob
from curation.runner.memory import limit_malloc_arenas, release_free_memory
from curation.runner.transport import (
    FINISHED_SCHEMA,
    TRANSIT_SCHEMA,
    build_error_table,
    decode_transit,
    encode_finished,
    encode_transit,
    find_error,
)
from curation.stages.slice import Slice
from curation.stages.stage import Stage, run_stage
from reprise.worker_errors import encode_error

# Built once per process and kept between tasks, by what they depend on.
_cache: dict[tuple[Any, ...], Any] = {}


def get_cached(key: tuple[Any, ...], build: Callable[[], Any]) -> Any:
    """Get what this process has built for a key, or build it."""
    if key not in _cache:
        _cache[key] = build()
    return _cache[key]


def init_worker(job: CurationJob) -> None:
    """Prepare this process; every task calls it first."""
    limit_malloc_arenas()
    cv2.setNumThreads(1)  # a worker has one core; OpenCV would use all of them
    if job.scratch and Path(job.scratch).is_dir():
        tempfile.tempdir = job.scratch


def slice_block(job: CurationJob, videos: pa.Table) -> Iterator[pa.Table]:
    """Slice some videos; yield each row as a table of `TRANSIT_SCHEMA` as soon as its clip is cut."""
    try:
        init_worker(job)
        for video in videos.to_pylist():
            for row, seconds in slice_video(job, video):
                yield encode_transit([row], {SLICE: seconds})
            release_free_memory()
    except Exception as error:
        yield build_error_table(encode_error(error), TRANSIT_SCHEMA)


def process_clip_block(job: CurationJob, names: tuple[str, ...], last: bool, clips: pa.Table) -> pa.Table:
    """Run some stages over rows and, if these are the last stages, write a fragment.

    Returns:
        A table of `FINISHED_SCHEMA` after the last stages, else of `TRANSIT_SCHEMA`.
    """
    schema = FINISHED_SCHEMA if last else TRANSIT_SCHEMA
    earlier = find_error(clips)
    if earlier is not None:
        return build_error_table(earlier, schema)
    try:
        init_worker(job)
        rows, seconds = decode_transit(clips)
        rows = run_stages(job, names, rows, seconds)
        release_free_memory()
        return write_fragment(job, rows, seconds) if last else encode_transit(rows, seconds)
    except Exception as error:
        return build_error_table(encode_error(error), schema)


def process_video_block(
    job: CurationJob, names: tuple[str, ...], batch: int, videos: pa.Table
) -> Iterator[pa.Table]:
    """Slice some videos, run all stages and write fragments, at most `batch` rows at once.

    Yields:
        A table of `FINISHED_SCHEMA` per fragment.
    """
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
            release_free_memory()
    except Exception as error:
        yield build_error_table(encode_error(error), FINISHED_SCHEMA)


def slice_video(job: CurationJob, video: VideoRow) -> Iterator[tuple[ClipRow, float]]:
    """Slice one video; yield each row with the seconds that it took."""
    stage: Slice = get_cached(
        (SLICE, job.dataset, job.config_hash), lambda: Slice(job.config, job.dataset, job.config_hash)
    )
    since = time.perf_counter()
    for row in stage(video):
        yield row, time.perf_counter() - since
        since = time.perf_counter()  # the caller's time is not slicing's


def run_stages(
    job: CurationJob, names: tuple[str, ...], rows: list[ClipRow], seconds: dict[str, float]
) -> list[ClipRow]:
    """Run clip stages over rows and add the time of each to `seconds`."""
    stages: list[Stage] = get_cached(
        (names, job.config_hash), lambda: [build_stage(name, job.config) for name in names]
    )
    for stage in stages:
        rows = run_stage(stage, rows, seconds)
    return rows


def write_fragment(job: CurationJob, rows: list[ClipRow], seconds: dict[str, float]) -> pa.Table:
    """Write finished rows as a fragment; return a table of `FINISHED_SCHEMA` about them."""
    Fragments(job.dataset, job.config_hash).write_rows(rows, seconds)
    return encode_finished(rows)
