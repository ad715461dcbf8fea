"""Finish a shard: run the last stages over its rows and write its file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from curation.dataset.row_index import RowIndex
from curation.dataset.shards import ShardPlan, ShardResult, read_rows, write_shard
from curation.rows.schema import ClipRow
from curation.rows.stage_names import SHARD
from curation.runner.donors import DonorTable, open_donor_library
from curation.runner.job import CurationJob
from curation.runner.memory import release_free_memory
from curation.runner.worker import init_worker
from curation.stages.crosspair import Crosspair
from curation.stages.plates import Plate
from curation.stages.retrieve import Retrieve
from curation.stages.stage import Stage, run_stage
from reprise.storage import Storage

_ROWS_PER_BATCH = 8  # of a row group, while stages work on them


def finish_shard(
    dataset: Storage,
    shard: ShardPlan,
    stages: Sequence[Stage],
    row_group_rows: int,
    *,
    source: Storage | None = None,
) -> ShardResult:
    """Run stages over the rows of a shard and write it.

    Args:
        dataset: Where the shard goes.
        shard: Its path and its rows.
        stages: The last stages.
        row_group_rows: Rows per row group.
        source: Where the rows are; None: in the dataset.
    """
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def finish_rows(entries: Sequence[RowIndex]) -> Iterator[list[ClipRow]]:
        for rows in read_rows(source or dataset, entries, _ROWS_PER_BATCH):
            for stage in stages:
                rows = run_stage(stage, rows, seconds)
            yield rows

    starts = range(0, len(shard.entries), row_group_rows)
    row_groups = (finish_rows(shard.entries[start : start + row_group_rows]) for start in starts)
    result = write_shard(dataset, shard.path, row_groups)
    # Reading and writing rows is the work of this stage; the other stages have counted their own seconds.
    seconds[SHARD] = time.perf_counter() - started - sum(seconds.values())
    return replace(result, seconds=seconds)


def finish_job_shard(
    job: CurationJob, shard: ShardPlan, plates: Sequence[Plate], donors: DonorTable
) -> ShardResult:
    """Make the cross-pairs and retrieved references of a shard in a worker, and write it."""
    init_worker(job)
    stages: list[Stage] = [Crosspair(job.config, plates)]
    if donors.found:
        stages.append(Retrieve(job.config, open_donor_library(job.dataset, donors)))
    result = finish_shard(job.dataset, shard, stages, job.config.shard.row_group_rows)
    release_free_memory()
    return result
