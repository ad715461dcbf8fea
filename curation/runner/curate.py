"""A curation run from start to end: what is left to do, do it, finish the dataset."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.config import CurationConfig, compute_config_hash
from curation.dataset import CLIPS_FOLDER, DATA, MANIFEST, WORK, manifest
from curation.dataset.fragments import Fragments, RowIndex, list_pending_videos, select_current
from curation.dataset.shards import ShardPlan, plan_shards
from curation.models import registry
from curation.report.build import write_report
from curation.rows.ids import make_stopped_video_id
from curation.rows.lifecycle import make_blank_row, stop_row
from curation.rows.schema import CLIPS, ClipRow, VideoRow
from curation.rows.tables import extract_rows
from curation.rows.verdicts import RETRIED_REASONS, WORKER_DIED
from curation.runner import memory, ray_data
from curation.runner.graph import CROSSPAIR, RETRIEVE, SHARD, build_operators
from curation.runner.ray_data import CurationJob
from curation.stages import crosspair, retrieve
from curation.stages.crosspair import choose_plate_clips
from reprise.digest import compute_digest
from reprise.errors import RepriseError
from reprise.ray_session import ray_session
from reprise.storage import Storage

_MAX_ROUNDS = 2  # times that videos whose worker died are tried; the second time each clip alone
_READ_THREADS = 16
_ROWS_PER_FRAGMENT = 32  # per fragment
# What is ours to delete in a folder that may hold other things, too.
_SHARD_PATTERN = re.compile(rf"{DATA}/clips-\d{{5,}}-of-\d{{5,}}\.parquet")
_CLIP_PATTERN = re.compile(
    rf"{CLIPS_FOLDER}/[0-9a-f]{{2}}/[0-9a-f]{{20}}-\d{{7,}}-\d{{7,}}-[0-9a-f]{{6}}\.mp4"
)


class RunProgress(Protocol):
    """What a run tells while it goes on."""

    def begin(self, task: str, total: int, done: int = 0) -> None: ...

    def advance(self, by: int = 1, note: str | None = None) -> None: ...

    def end(self) -> None: ...


class NoProgress:
    def begin(self, task: str, total: int, done: int = 0) -> None: ...

    def advance(self, by: int = 1, note: str | None = None) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True)
class CurationOutcome:
    manifest: dict[str, Any]
    resumed: int  # videos that an earlier run had finished
    nothing_to_do: bool


def curate_videos(
    videos: Sequence[VideoRow],
    dataset: Storage,
    config: CurationConfig,
    *,
    overwrite: bool = False,
    progress: RunProgress | None = None,
) -> CurationOutcome:
    """Curate `videos` into `dataset`, going on from wherever an earlier run stopped.

    A finished dataset grows by the videos that are new or have changed; those that are no longer among
    `videos` stay. Videos whose worker died, or whose decoder hung, are tried again by every run.

    Raises:
        RepriseError: no videos; the dataset was made with another config, is being written by another run,
            cannot be written, or does not add up.
    """
    progress = progress or NoProgress()
    memory.limit_malloc_arenas()
    build_operators(config)
    videos = _prepare_videos(videos, dataset)
    revisions = registry.list_model_ids(config)
    config_hash = compute_config_hash(config, revisions)
    with lock_dataset(dataset):
        if overwrite:
            _remove_dataset(dataset)
        finished = manifest.read(dataset)
        _refuse_other_config(dataset, finished, config, config_hash)
        if finished is not None and not _has_work_left(dataset, finished, videos):
            if dataset.exists(WORK):  # an earlier run was stopped just before its end
                _publish_report(dataset, config, progress)
            return CurationOutcome(finished, len(videos), True)
        fragments = Fragments(dataset, config_hash)
        dataset.write_bytes(_get_config_path(config_hash), config.model_dump_json(indent=1).encode())
        if finished is not None:
            _reopen_dataset(dataset, finished, fragments)
        engine = config.engine
        with ray_session(
            engine.address, num_cpus=engine.num_cpus, object_store_mb=engine.object_store_mb
        ) as session:
            job = CurationJob(config, dataset, config_hash, session.scratch)
            resumed = _annotate_videos(job, fragments, videos, progress)
            found = _finish_dataset(job, fragments, videos, revisions, progress)
            manifest.write(dataset, found)
        _publish_report(dataset, config, progress)
        return CurationOutcome(found, resumed, False)


def _prepare_videos(videos: Sequence[VideoRow], dataset: Storage) -> list[VideoRow]:
    """The videos with a key that says all that their rows depend on; without the dataset's own clips.

    The input may be a folder that the dataset lies in, whose clips would be curated again by the next run.

    Raises:
        RepriseError: nothing is left.
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
        raise RepriseError("no videos to curate")
    return found


@contextlib.contextmanager
def lock_dataset(dataset: Storage) -> Iterator[None]:
    """Keep a second run out of the same folder. S3 has no locks.

    Raises:
        RepriseError: another run is writing this dataset.
    """
    folder = dataset.get_local_path()
    handle = None
    if folder is not None:
        with contextlib.suppress(OSError):  # whoever writes first will say it better
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
    try:
        if handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RepriseError(f"another run is writing {dataset.uri}: wait for it or stop it") from error
            except OSError:
                pass  # a file system without locks
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _remove_dataset(dataset: Storage) -> None:
    """Remove what a run has made, and nothing else that may lie beside it."""
    # First what makes it a finished dataset: it must never claim rows that are gone.
    dataset.delete_file(MANIFEST)
    for file in dataset.list_paths(DATA):
        if _SHARD_PATTERN.fullmatch(file):
            dataset.delete_file(file)
    for file in dataset.list_paths(CLIPS_FOLDER):
        if _CLIP_PATTERN.fullmatch(file):
            dataset.delete_file(file)
    for folder in ("report", WORK):
        dataset.delete_tree(folder)


def _annotate_videos(
    job: CurationJob, fragments: Fragments, videos: Sequence[VideoRow], progress: RunProgress
) -> int:
    """Rows for all videos, as fragments; returns how many videos had theirs already."""
    fragments.remove_retryable({video["source_key"] for video in videos})
    left = list_pending_videos(select_current(fragments.read_index()[0], videos), videos)
    resumed = len(videos) - len(left)
    progress.begin("videos", len(videos), resumed)
    kept = 0
    seen: set[str] = set()
    for attempt in range(_MAX_ROUNDS):
        if not left:
            break
        with contextlib.closing(
            ray_data.annotate_videos(job, left, one_clip_per_task=attempt > 0)
        ) as finished:
            for done in finished:
                kept += done.kept
                new = done.last and done.source_key not in seen
                if new:
                    seen.add(done.source_key)
                progress.advance(int(new), f"{kept} clips kept")
        left = list_pending_videos(select_current(fragments.read_index()[0], videos), videos)
    if left:
        entries = select_current(fragments.read_index()[0], videos)
        fragments.write_rows([_build_died_row(job, video, entries) for video in left], {})
    progress.end()
    return resumed


def _build_died_row(job: CurationJob, video: VideoRow, entries: Sequence[RowIndex]) -> ClipRow:
    """The row for a video that took its worker down every time; what was finished of it stays."""
    row = make_blank_row(video, make_stopped_video_id(None, video["source_key"]))
    mine = [entry for entry in entries if entry.source_key == video["source_key"]]
    row["clip_count"], row["clip_index"] = len(mine) + 1, len(mine)
    row["config_hash"] = job.config_hash
    stop_row(row, "failed", "slice", WORKER_DIED)
    return row


def _finish_dataset(
    job: CurationJob,
    fragments: Fragments,
    videos: Sequence[VideoRow],
    revisions: dict[str, str],
    progress: RunProgress,
) -> dict[str, Any]:
    """Shards from fragments; returns the manifest.

    Raises:
        RepriseError: what comes out is not what went in. That would be a bug of ours, and a loss.
    """
    dataset, config = job.dataset, job.config
    entries = _reject_copies(job, fragments, videos)
    seconds = fragments.read_index()[1]
    plans = plan_shards(entries, config.shard.target_mb << 20, config.crosspair.share)
    progress.begin("shards", len(plans))
    with_frames = {entry.clip_id: entry for entry in entries if entry.payload_bytes > 0}
    chosen = choose_plate_clips(with_frames, config.crosspair.pool, config.seed)
    plates, seconds[CROSSPAIR] = ray_data.make_plates(
        job, [with_frames[clip_id] for clip_id in sorted(chosen)]
    )
    donors = ray_data.collect_donors(job, entries)
    results = []
    for result in ray_data.write_shards(job, plans, plates, donors):
        results.append(result)
        for stage, value in result.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
        progress.advance()
    progress.end()
    _remove_stale_files(dataset, entries, plans)
    found = manifest.build_manifest(config, job.config_hash, revisions, results, seconds)
    sources = {entry.source_key for entry in entries} | {video["source_key"] for video in videos}
    manifest.check_accounting(found, videos_in=len(sources), rows_in=len(entries))
    return found


def _reject_copies(job: CurationJob, fragments: Fragments, videos: Sequence[VideoRow]) -> list[RowIndex]:
    """The rows of the dataset. Of files with equal content, only the first one's clips are among them.

    The listing tells copies apart from each other, but not from what the dataset holds from another folder.
    """
    entries = select_current(fragments.read_index()[0], videos)
    owners: dict[str, str] = {}
    copies: dict[str, str] = {}  # source key -> path of the original
    for entry in entries:
        owner = owners.setdefault(entry.clip_id, entry.source_path)
        if owner != entry.source_path:
            copies[entry.source_key] = owner
    known = {video["source_key"]: video for video in videos}
    rows: list[ClipRow] = []
    for key in copies.keys() & known.keys():
        row = make_blank_row(known[key], make_stopped_video_id(None, known[key]["source_key"]))
        row["clip_count"], row["config_hash"] = 1, job.config_hash
        stop_row(row, "rejected", "slice", f"duplicate of {copies[key]}")
        rows.append(row)
    if not copies:
        return entries
    fragments.write_rows(rows, {})
    entries = select_current(fragments.read_index()[0], videos)
    return [each for each in entries if each.source_key not in copies or each.video_id is None]


def _remove_stale_files(dataset: Storage, entries: Sequence[RowIndex], plans: Sequence[ShardPlan]) -> None:
    """Remove shards and clips that are not of this dataset any more, and what killed writers left."""
    shards = {shard.path for shard in plans}
    clips = {entry.clip_path for entry in entries}
    for file in dataset.list_paths(DATA):
        if _SHARD_PATTERN.fullmatch(file) and file not in shards:
            dataset.delete_file(file)
    for file in dataset.list_paths(CLIPS_FOLDER):
        if _CLIP_PATTERN.fullmatch(file) and file not in clips:
            dataset.delete_file(file)
    for folder in (DATA, CLIPS_FOLDER):
        local = dataset.get_local_path(folder)
        for left in local.rglob(".partial-*") if local else ():
            left.unlink(missing_ok=True)


def _publish_report(dataset: Storage, config: CurationConfig, progress: RunProgress) -> None:
    """The report, and the end of the run's own files: while they are there, the report may be an old one."""
    progress.begin("report", 1)
    write_report(dataset, clips_per_page=config.report.clips_per_page, max_clips=config.report.max_clips)
    dataset.delete_tree(WORK)
    progress.advance()
    progress.end()


def _get_config_path(config_hash: str) -> str:
    return f"{WORK}/{config_hash}/config.json"


def _refuse_other_config(
    dataset: Storage, finished: dict[str, Any] | None, config: CurationConfig, config_hash: str
) -> None:
    """One dataset, one config: rows made under two would not be comparable.

    Raises:
        RepriseError: naming what differs and what can be done.
    """
    if finished is not None and finished.get("config_hash") != config_hash:
        raise RepriseError(_explain_other_config(dataset, finished.get("config", {}), config))
    for file in dataset.list_paths(WORK, "config.json"):
        if file != _get_config_path(config_hash):
            raise RepriseError(_explain_other_config(dataset, json.loads(dataset.read_bytes(file)), config))


def _explain_other_config(dataset: Storage, other: dict[str, Any], config: CurationConfig) -> str:
    old, new = flatten_keys(other), flatten_keys(config.model_dump(mode="json"))
    skipped = ("engine.", "report.", "shard.")
    changed = [
        f"{key}: {old.get(key)} there, {new.get(key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(skipped)
    ]
    what = "; ".join(changed[:3]) or "another version of a model or of Reprise"
    thresholds = bool(changed) and all(each.startswith("filter.") for each in changed)
    way = "use `reprise refilter` for thresholds" if thresholds else "choose another --output"
    return f"{dataset.uri} was made with another config ({what}): {way}, or start over with --overwrite"


def flatten_keys(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> dotted keys."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            found.update(flatten_keys(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _has_work_left(dataset: Storage, finished: dict[str, Any], videos: Sequence[VideoRow]) -> bool:
    """Whether a finished dataset lacks any of the videos, or may do better on one that failed."""

    def read_keys(shard: dict[str, Any]) -> tuple[set[str], set[str]]:
        table = dataset.read_table(shard["path"], ["source_key", "stop"])
        hopeful = pc.is_in(pc.struct_field(table["stop"], "reason"), pa.array(RETRIED_REASONS))
        found = (table["source_key"], table.filter(hopeful)["source_key"])
        return set(found[0].to_pylist()), set(found[1].to_pylist())

    known: set[str] = set()
    retryable: set[str] = set()
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        for all_keys, some in pool.map(read_keys, finished["shards"]):
            known |= all_keys
            retryable |= some
    return any(video["source_key"] not in known or video["source_key"] in retryable for video in videos)


def _reopen_dataset(dataset: Storage, finished: dict[str, Any], fragments: Fragments) -> None:
    """Turn a finished dataset back into fragments, so that new videos join the old ones.

    Safe to be killed anywhere: the rows are copied first, and only then the dataset stops being finished.
    """
    last = (CROSSPAIR, RETRIEVE, SHARD)
    seconds = {stage: value for stage, value in finished["seconds"].items() if stage not in last}
    for shard in finished["shards"]:
        with dataset.open_input(shard["path"]) as stream, pq.ParquetFile(stream) as parquet:
            for batch in parquet.iter_batches(_ROWS_PER_FRAGMENT, columns=CLIPS.names):
                rows = extract_rows(batch, CLIPS)
                for row in rows:
                    for subject in row["subjects"]:
                        # These depend on the whole dataset and are made again.
                        subject["references"] = [
                            each
                            for each in subject["references"]
                            if each["variant"] not in (crosspair.VARIANT, retrieve.VARIANT)
                        ]
                fragments.write_rows(rows, seconds)
                seconds = {}
    dataset.delete_file(MANIFEST)
