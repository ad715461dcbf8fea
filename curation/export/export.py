"""Run an export: plan it, write its units, finish the folder. The caller supplies the executor of units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from curation.dataset.manifest import read_manifest
from curation.export.folder import (
    close_folder,
    list_unfinished_units,
    open_folder,
    read_left_out,
    read_records,
    write_unit_result,
)
from curation.export.plan import ExportPlan, ExportUnit, plan_export
from curation.export.sample import SPLITS
from curation.export.target import FinishedExport
from curation.export.unit_writer import UnitWriter
from curation.export.write import ExportJob, UnitResult
from reprise.errors import InputError, RepriseError
from reprise.progress import NoProgress, Progress

# Runs units and yields each one with its result, in any order.
Executor = Callable[[ExportJob, Sequence[ExportUnit]], Iterator[tuple[ExportUnit, UnitResult]]]


@dataclass(frozen=True)
class ExportAccount:
    """The counts of exported and left-out clips of a dataset."""

    clips_in: int
    exported: dict[str, int]  # split -> clips
    left_out: dict[str, int]  # reason -> clips
    commands: tuple[str, ...]  # commands that start the trainer on the data
    was_finished: bool  # an earlier run had already written the whole export


def plan_job(job: ExportJob) -> tuple[dict[str, Any], ExportPlan]:
    """Read the manifest of the dataset and plan the export.

    Raises:
        InputError: the dataset is missing or not finished, or the target cannot use this kind of output.
    """
    manifest = read_manifest(job.dataset)
    if manifest is None or "shards" not in manifest:
        raise InputError(
            f"no finished dataset at {job.dataset.uri}: run `reprise curate` or `reprise import` first"
        )
    if job.target.needs.local and job.output.is_remote:
        raise InputError(
            f"{job.target.name} reads absolute paths, so the output must be local: give a local folder"
        )
    shards = [str(shard["path"]) for shard in manifest["shards"]]
    return manifest, plan_export(job.dataset, shards, job.target, job.config)


def export_dataset(
    job: ExportJob, execute: Executor, *, overwrite: bool = False, progress: Progress | None = None
) -> ExportAccount:
    """Export a dataset. After an interruption the same command continues and gives the same folder.

    Args:
        job: dataset, output, target and settings.
        execute: runs the units.
        overwrite: replace an export with other settings in the output.
        progress: shows the progress.

    Raises:
        InputError: there is no finished dataset, no clip can be exported, or the output holds other files.
        StorageError: the output cannot be written; a shard cannot be read.
    """
    progress = progress or NoProgress()
    manifest, plan = plan_job(job)
    if not plan.units:
        reasons = _join_reasons(dict(plan.count_reasons().most_common(5)))
        raise InputError(f"none of {plan.clips_in} clips can be exported to {job.target.name}: {reasons}")
    finished = open_folder(job.output, _build_identity(job, manifest), overwrite=overwrite)
    if finished is not None:
        return _build_account(finished, was_finished=True)
    units = list_unfinished_units(job.output, plan.units)
    total = sum(len(unit.clips) for unit in plan.units)
    progress.begin("export", total, total - sum(len(unit.clips) for unit in units))
    for unit, result in execute(job, units):
        write_unit_result(job.output, unit, result)
        progress.advance(len(unit.clips))
    progress.end()
    return _finish_export(job, manifest, plan)


def _finish_export(job: ExportJob, manifest: dict[str, Any], plan: ExportPlan) -> ExportAccount:
    left_out = [*plan.left_out, *read_left_out(job.output, plan.units)]
    exported = {split: sum(1 for _ in read_records(job.output, plan.units, split)) for split in SPLITS}
    reasons = dict(Counter(clip.reason for clip in left_out).most_common())
    if not any(exported.values()):
        raise InputError(f"no clip could be exported: {_join_reasons(reasons)}")
    if sum(exported.values()) + len(left_out) != plan.clips_in:
        raise RepriseError(
            f"the dataset has {plan.clips_in} clips, but {sum(exported.values())} were exported and "
            f"{len(left_out)} left out: please report this"
        )
    writer = UnitWriter(job.output, "", 0)
    commands = job.target.write_index(
        FinishedExport(
            writer,
            job.config,
            exported,
            lambda split: read_records(job.output, plan.units, split),
            manifest,
        )
    )
    account = {
        "clips_in": plan.clips_in,
        "exported": exported,
        "left_out": reasons,
        "commands": list(commands),
        "left_out_clips": [asdict(clip) for clip in left_out],
    }
    close_folder(job.output, plan.units, writer.files, _build_identity(job, manifest), account)
    return _build_account(account, was_finished=False)


def _build_identity(job: ExportJob, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return every input that determines the written files."""
    return {
        "target": job.target.name,
        "dataset": job.dataset.uri,
        "config_hash": manifest.get("config_hash"),
        "shards": manifest["shards"],
        "config": job.config.model_dump(mode="json", exclude={"engine": {"address", "progress"}}),
    }


def _build_account(account: dict[str, Any], *, was_finished: bool) -> ExportAccount:
    return ExportAccount(
        account["clips_in"],
        account["exported"],
        account["left_out"],
        tuple(account["commands"]),
        was_finished,
    )


def _join_reasons(reasons: dict[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in reasons.items()) or "the dataset has no rows"
