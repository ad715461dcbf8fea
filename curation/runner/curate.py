"""A curation run from start to end: find what is left to do, do it, finish the dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curation.config import CurationConfig, compute_config_hash
from curation.dataset.damage import check_dataset, find_damaged_clips
from curation.dataset.fragments import FragmentIndex, Fragments
from curation.dataset.manifest import build_manifest, check_accounting, read_manifest, write_manifest
from curation.dataset.shards import plan_shards
from curation.models import registry
from curation.rows.ids import CLIPS_FOLDER
from curation.rows.schema import VideoRow
from curation.rows.stage_names import CROSSPAIR
from curation.runner.config_guard import refuse_other_config, write_run_config
from curation.runner.dataset_folder import (
    list_run_folders,
    publish_report,
    refuse_foreign_shards,
    remove_dataset,
    remove_stale_files,
)
from curation.runner.finish import collect_donors, make_plates, write_shards
from curation.runner.graph import build_operators
from curation.runner.job import CurationJob
from curation.runner.memory import limit_malloc_arenas
from curation.runner.plates import select_plate_rows
from curation.runner.ray_data import annotate_videos
from curation.runner.resume import has_work_left, list_pending_videos, reopen_dataset, select_current
from curation.runner.stopped_rows import build_copy_row, build_died_row, find_copies
from reprise.digest import compute_digest
from reprise.errors import InputError, StorageError
from reprise.file_records import FileDamage, describe_damage
from reprise.lock import lock_folder
from reprise.progress import NoProgress, Progress
from reprise.ray_session import ray_session
from reprise.storage import Storage

_MAX_ROUNDS = 2  # attempts at videos whose worker died; in the second one every clip is a task of its own


@dataclass(frozen=True)
class CurationOutcome:
    """What a run ended with."""

    manifest: dict[str, Any]
    resumed: int  # videos that an earlier run had finished
    nothing_to_do: bool
    damage: Sequence[FileDamage] = ()  # files that were found damaged, and were made again


def curate_videos(
    videos: Sequence[VideoRow],
    dataset: Storage,
    config: CurationConfig,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CurationOutcome:
    """Curate videos into a dataset, and go on from where an earlier run stopped.

    A finished dataset grows by the videos that are new or have changed; those that are no longer listed stay.
    Every run tries again the videos whose worker died or whose decoder hung, and makes again the clips and
    shards that are missing or have another size.

    Args:
        videos: What was listed; see `curation.sources`.
        dataset: Where the dataset is, or will be.
        config: What to do; a dataset has one config.
        overwrite: Remove what earlier runs have made, and start over.
        progress: What the run reports to.

    Raises:
        RepriseError: There are no videos; or the folder holds other tables, or with `overwrite` no dataset;
            or the dataset was made with another config, is being written by another run, cannot be written,
            does not add up, or was damaged while the run wrote it.
    """
    progress = progress or NoProgress()
    limit_malloc_arenas()
    build_operators(config)  # refuses unknown stages before anything is written
    videos = _prepare_videos(videos, dataset)
    models = registry.list_model_ids(config)
    config_hash = compute_config_hash(config, models)
    with lock_folder(dataset, create=True) as lock:
        if overwrite:
            remove_dataset(dataset)
        refuse_foreign_shards(dataset)
        manifest = read_manifest(dataset)
        refuse_other_config(dataset, manifest, config, config_hash)
        damage = check_dataset(dataset, manifest, quick=True).damage if manifest is not None else []
        if manifest is not None and not damage and not has_work_left(dataset, manifest, videos):
            if list_run_folders(dataset):  # an earlier run was stopped just before its end
                publish_report(dataset, config, progress)
            return CurationOutcome(manifest, len(videos), True)
        fragments = Fragments(dataset, config_hash)
        write_run_config(dataset, config, config_hash)
        if manifest is not None:
            reopen_dataset(dataset, manifest, fragments, videos, damage)
        engine = config.engine
        with ray_session(
            engine.address, num_cpus=engine.num_cpus, object_store_mb=engine.object_store_mb
        ) as session:
            job = CurationJob(config, dataset, config_hash, session.scratch)
            index, resumed = _annotate_pending_videos(job, fragments, videos, progress)
            index = _reject_copies(job, fragments, videos, index)
            manifest = _finish_dataset(job, index, videos, models, progress)
            lock.check_held()
            write_manifest(dataset, manifest)
        publish_report(dataset, config, progress)
        _refuse_damage(dataset, manifest)
        return CurationOutcome(manifest, resumed, False, damage)


def _refuse_damage(dataset: Storage, manifest: dict[str, Any]) -> None:
    """Check that the files are there that a run has just written.

    Raises:
        StorageError: Some are missing or of another size.
    """
    damage = check_dataset(dataset, manifest, quick=True).damage
    if damage:
        raise StorageError(
            f"files of {dataset.uri} were damaged during the run: {describe_damage(damage)}; run the same "
            "command again to make them again"
        )


def _prepare_videos(videos: Sequence[VideoRow], dataset: Storage) -> list[VideoRow]:
    """Give each video a key that says all that its rows depend on, and leave out the dataset's own clips.

    The dataset may lie in the input's folder: then the next run would curate its clips.

    Raises:
        RepriseError: No video is left.
    """
    own = dataset.join_path(f"{CLIPS_FOLDER}/*").partition("*")[0]
    found: list[VideoRow] = []
    for video in videos:
        if not video["source_path"].startswith(own):
            details = [video[name] for name in ("caption", "caption_source", "license", "extra", "problem")]
            found.append(
                {**video, "source_key": f"{video['source_key']}|{compute_digest(*details, length=8)}"}
            )
    if not found:
        raise InputError("no videos to curate")
    return found


def _annotate_pending_videos(
    job: CurationJob, fragments: Fragments, videos: Sequence[VideoRow], progress: Progress
) -> tuple[FragmentIndex, int]:
    """Bring every video to fragments.

    Returns:
        The current rows of all videos, and how many videos an earlier run had finished.
    """
    fragments.remove_retryable({video["source_key"] for video in videos})
    index = _read_sound(job, fragments, videos)
    pending = list_pending_videos(index.rows, videos)
    resumed = len(videos) - len(pending)
    progress.begin("videos", len(videos), resumed)
    kept = 0
    counted: set[str] = set()  # a video that is tried twice is reported once
    for attempt in range(_MAX_ROUNDS):
        if not pending:
            break
        with contextlib.closing(annotate_videos(job, pending, one_clip_per_task=attempt > 0)) as finished:
            for done in finished:
                kept += done.kept
                is_new = done.last and done.source_key not in counted
                if is_new:
                    counted.add(done.source_key)
                progress.advance(int(is_new), f"{kept} clips kept")
        index = _read_sound(job, fragments, videos)
        pending = list_pending_videos(index.rows, videos)
    if pending:
        died = [build_died_row(video, index.rows, job.config_hash) for video in pending]
        fragments.write_rows(died, {})
        index = _read_current(fragments, videos)
    progress.end()
    return index, resumed


def _reject_copies(
    job: CurationJob, fragments: Fragments, videos: Sequence[VideoRow], index: FragmentIndex
) -> FragmentIndex:
    """Of videos with equal content, keep the clips of one only.

    The listing finds the copies within itself, but not those of videos that came from another folder earlier.
    """
    copies = find_copies(index.rows, {video["source_key"] for video in videos})
    if not copies:
        return index
    listed = [video for video in videos if video["source_key"] in copies]
    rows = [build_copy_row(video, copies[video["source_key"]], job.config_hash) for video in listed]
    fragments.write_rows(rows, {})
    index = _read_current(fragments, videos)
    return FragmentIndex(
        [each for each in index.rows if each.source_key not in copies or each.video_id is None],
        index.seconds,
    )


def _read_current(fragments: Fragments, videos: Sequence[VideoRow]) -> FragmentIndex:
    index = fragments.read_index()
    return FragmentIndex(select_current(index.rows, videos), index.seconds)


def _read_sound(job: CurationJob, fragments: Fragments, videos: Sequence[VideoRow]) -> FragmentIndex:
    """Read the current rows; remove those whose clip is missing or of another size, so that it is cut again.

    Raises:
        StorageError: Such a clip is of a video that is not among `videos`.
    """
    rows = fragments.read_index().rows  # also the second row of a clip that is in two fragments
    damaged = find_damaged_clips(job.dataset, rows)
    gone = [each for each in rows if each.clip_path in damaged]
    if not gone:
        return _read_current(fragments, videos)
    listed = {video["source_key"] for video in videos}
    for each in gone:
        if each.source_key not in listed:
            raise StorageError(
                f"{job.dataset.join_path(str(each.clip_path))} is damaged, and its video {each.source_path} "
                "is not in --input: add the video as it was, or put the file back"
            )
    fragments.remove_rows(gone)
    return _read_current(fragments, videos)


def _finish_dataset(
    job: CurationJob,
    index: FragmentIndex,
    videos: Sequence[VideoRow],
    models: dict[str, str],
    progress: Progress,
) -> dict[str, Any]:
    """Write the shards and remove what is stale; returns the manifest.

    Raises:
        RepriseError: Rows or videos are lost, which would be a bug.
    """
    dataset, config = job.dataset, job.config
    seconds = dict(index.seconds)
    plans = plan_shards(index.rows, config.shard.target_mb << 20, config.crosspair.share)
    progress.begin("shards", len(plans))
    plates, seconds[CROSSPAIR] = make_plates(job, select_plate_rows(index.rows, config))
    donors = collect_donors(job, index.rows)
    results = []
    for result in write_shards(job, plans, plates, donors):
        results.append(result)
        for stage, value in result.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
        progress.advance()
    progress.end()
    clips = {entry.clip_path for entry in index.rows if entry.clip_path is not None}
    remove_stale_files(dataset, keep=clips | {shard.path for shard in plans})
    manifest = build_manifest(config, job.config_hash, models, results, seconds)
    sources = {entry.source_key for entry in index.rows} | {video["source_key"] for video in videos}
    check_accounting(manifest, videos_in=len(sources), rows_in=len(index.rows))
    return manifest
