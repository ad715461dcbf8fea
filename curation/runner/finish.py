"""The end of a run on Ray: plates, donors and shards, each as tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray

from curation.dataset.row_index import RowIndex
from curation.dataset.shards import ShardPlan, ShardResult
from curation.models import registry
from curation.rows.stage_names import CROSSPAIR, RETRIEVE, SHARD
from curation.runner.donors import DonorTable, build_donor_table, embed_entries
from curation.runner.graph import get_stage_resources
from curation.runner.job import CurationJob
from curation.runner.plates import make_plate_group
from curation.runner.ray_tasks import get_results
from curation.runner.shards import finish_job_shard
from curation.stages.plates import Plate

_MAX_CLIPS_PER_PLATE_TASK, _MIN_PLATE_TASKS = 16, 4
_CLIPS_PER_EMBED_TASK = 64


def make_plates(job: CurationJob, entries: Sequence[RowIndex]) -> tuple[list[Plate], float]:
    """Make the plates of these rows on the cluster; returns the seconds of work in them, too.

    Raises:
        RepriseError: The inpainter cannot be loaded, or workers died again and again.
    """
    size = max(1, min(_MAX_CLIPS_PER_PLATE_TASK, len(entries) // _MIN_PLATE_TASKS))
    task = _make_task(job, CROSSPAIR, make_plate_group)
    groups = [task.remote(job, group) for group in _split_groups(entries, size)]
    made = get_results(groups, "making backgrounds")
    plates = sorted((plate for group, _ in made for plate in group), key=lambda plate: plate.clip_id)
    return plates, sum((seconds for _, seconds in made), start=0.0)


def collect_donors(job: CurationJob, entries: Sequence[RowIndex]) -> DonorTable:
    """Find the donors of the drawn subjects, whose embeddings are made on the cluster.

    There are none if no embedder is configured.

    Raises:
        RepriseError: The embedder cannot be loaded, or workers died again and again.
    """
    kept = sorted((entry for entry in entries if entry.status == "kept"), key=lambda each: each.sort_key)
    model = registry.resolve_model_id(job.config, "embedder")
    if not kept or job.config.retrieve.share == 0 or model is None:
        return DonorTable()
    task = _make_task(job, RETRIEVE, embed_entries)
    groups = [task.remote(job, group) for group in _split_groups(kept, _CLIPS_PER_EMBED_TASK)]
    embeddings = [each for group in get_results(groups, "looking for subjects seen again") for each in group]
    return build_donor_table(embeddings, kept, model, job.config)


def write_shards(
    job: CurationJob, plans: Sequence[ShardPlan], plates: Sequence[Plate], donors: DonorTable
) -> Iterator[ShardResult]:
    """Finish the shards on the cluster, one task each; yield each result as soon as it is there.

    Raises:
        RepriseError: The dataset cannot be written, or workers died again and again.
    """
    pool = ray.put(plates)  # once for all tasks
    task = _make_task(job, SHARD, finish_job_shard)
    left = [task.remote(job, shard, pool, donors.select_shard(shard)) for shard in plans]
    while left:
        done, left = ray.wait(left, num_returns=1)
        yield from get_results(done, "writing shards")


def _make_task(job: CurationJob, stage: str, function: Any) -> Any:
    """Make a remote function that reserves what the config says for a stage."""
    need = get_stage_resources(job.config, stage)
    return ray.remote(function).options(num_cpus=need.num_cpus, num_gpus=need.num_gpus)


def _split_groups(entries: Sequence[RowIndex], size: int) -> list[tuple[RowIndex, ...]]:
    return [tuple(entries[start : start + size]) for start in range(0, len(entries), size)]
