"""A curation run from start to end: what is left to do, do it, finish the dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from curation import engine
from curation.config import CurationConfig, content_hash
from curation.dataset import DATA, MANIFEST, WORK, manifest
from curation.dataset.fragments import Entry, Fragments, current, pending
from curation.dataset.shards import plan
from curation.engine import Job
from curation.errors import RepriseError
from curation.graph import operators
from curation.ids import stopped_video_id
from curation.models import registry
from curation.report.build import write_report
from curation.schema import ClipRow, VideoRow
from curation.stages.base import stop
from curation.stages.crosspair import pool_of
from curation.stages.slice import blank_row
from curation.storage import Storage

_ROUNDS = 2  # times that videos whose worker died are tried, each then in a block of its own


class Progress(Protocol):
    """What a run tells while it goes on."""

    def begin(self, task: str, total: int, done: int = 0) -> None: ...

    def advance(self, by: int = 1, note: str | None = None) -> None: ...

    def end(self) -> None: ...


class Silent:
    def begin(self, task: str, total: int, done: int = 0) -> None: ...

    def advance(self, by: int = 1, note: str | None = None) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    manifest: dict[str, Any]
    resumed: int  # videos that an earlier run had finished
    nothing_to_do: bool


def curate(
    videos: Sequence[VideoRow],
    dataset: Storage,
    config: CurationConfig,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Curate `videos` into `dataset`, going on from wherever an earlier run stopped.

    Raises:
        RepriseError: the dataset was made with another config, cannot be written, or does not add up.
    """
    progress = progress or Silent()
    operators(config)
    revisions = registry.revisions(config)
    config_hash = content_hash(config, revisions)
    job = Job(config, dataset, config_hash)
    if overwrite:
        for folder in (WORK, DATA, "clips", "report"):
            dataset.delete_tree(folder)
        dataset.delete(MANIFEST)
    finished = manifest.read(dataset)
    _refuse_other_config(dataset, finished, config, config_hash)
    fragments = Fragments(dataset, config_hash)
    if finished is not None:
        if not _new_videos(dataset, finished, videos):
            dataset.delete_tree(WORK)  # an earlier run may have been stopped just before this
            return Outcome(finished, len(videos), True)
        _reopen(dataset, finished, fragments)
    dataset.write_bytes(f"{WORK}/{config_hash}/config.json", config.model_dump_json(indent=1).encode())
    with engine.started(config):
        resumed = _annotate(job, fragments, videos, progress)
        found = _finish(job, fragments, videos, revisions, progress)
    manifest.check_accounting(found, found["videos"]["in"])
    manifest.write(dataset, found)
    dataset.delete_tree(WORK)
    progress.begin("report", 1)
    write_report(dataset, clips_per_page=config.report.clips_per_page, max_clips=config.report.max_clips)
    progress.advance()
    progress.end()
    return Outcome(found, resumed, False)


def _annotate(job: Job, fragments: Fragments, videos: Sequence[VideoRow], progress: Progress) -> int:
    entries = current(fragments.entries()[0], videos)
    left = pending(entries, videos)
    resumed = len(videos) - len(left)
    progress.begin("videos", len(videos), resumed)
    for _ in range(_ROUNDS):
        if not left:
            break
        kept = 0
        try:
            for row in engine.annotate(job, left):
                kept += row["status"] == "kept"
                progress.advance(int(row["last"]), f"{kept} clips kept")
        except Exception as error:
            plain = engine.plain_cause(error)
            if plain is None:
                raise
            raise plain from error
        entries = current(fragments.entries()[0], videos)
        left = pending(entries, videos)
    if left:
        fragments.write([_died(job, video, entries) for video in left], {})
    progress.end()
    return resumed


def _died(job: Job, video: VideoRow, entries: Sequence[Entry]) -> ClipRow:
    """The row for a video that took its worker down every time; what was finished of it stays."""
    row = blank_row(video, stopped_video_id(None, video["source_path"]))
    mine = [entry for entry in entries if entry.source_key == video["source_key"]]
    row["clip_count"], row["clip_index"] = len(mine) + 1, len(mine)
    row["config_hash"] = job.config_hash
    stop(row, "failed", "slice", f"the worker died {_ROUNDS} times on this video")
    return row


def _finish(
    job: Job, fragments: Fragments, videos: Sequence[VideoRow], revisions: dict[str, str], progress: Progress
) -> dict[str, Any]:
    entries, seconds = fragments.entries()
    entries = current(entries, videos)
    plans = plan(entries, job.config.shard.target_mb << 20, job.config.crosspair.share)
    progress.begin("shards", len(plans))
    with_frames = {entry.clip_id: entry for entry in entries if entry.payload_bytes > 0}
    chosen = pool_of(with_frames, job.config.crosspair.pool, job.config.seed)
    plates = engine.make_plates(job, [with_frames[clip_id] for clip_id in sorted(chosen)])
    for stray in set(job.dataset.list(DATA)) - {shard.path for shard in plans}:
        job.dataset.delete(stray)
    results = []
    for result in engine.write_shards(job, plans, plates):
        results.append(result)
        for stage, value in result.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
        progress.advance()
    progress.end()
    return manifest.compose(job.config, job.config_hash, revisions, results, seconds)


def _refuse_other_config(
    dataset: Storage, finished: dict[str, Any] | None, config: CurationConfig, config_hash: str
) -> None:
    """One dataset, one config: rows made under two would not be comparable.

    Raises:
        RepriseError: naming what differs and what can be done.
    """
    if finished is not None and finished.get("config_hash") != config_hash:
        raise RepriseError(_differs(dataset, finished.get("config", {}), config))
    for file in dataset.list(WORK, "config.json"):
        if f"{config_hash}/" not in file:
            other = json.loads(dataset.read_bytes(file))
            raise RepriseError(_differs(dataset, other, config))


def _differs(dataset: Storage, other: dict[str, Any], config: CurationConfig) -> str:
    old, new = flat(other), flat(config.model_dump(mode="json"))
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


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> dotted keys."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _new_videos(dataset: Storage, finished: dict[str, Any], videos: Sequence[VideoRow]) -> bool:
    known: set[str] = set()
    for shard in finished["shards"]:
        known.update(dataset.read_table(shard["path"], ["source_key"])["source_key"].to_pylist())
    return any(video["source_key"] not in known for video in videos)


def _reopen(dataset: Storage, finished: dict[str, Any], fragments: Fragments) -> None:
    """Turn a finished dataset back into fragments, so that new videos join the old ones.

    Safe to be killed anywhere: the shards are copied first, and only then the dataset stops being finished.
    """
    for shard in finished["shards"]:
        table = dataset.read_table(shard["path"])
        dataset.write_parquet(f"{fragments.folder}/{shard['path'].rsplit('/', 1)[-1]}", [table], table.schema)
    dataset.delete(MANIFEST)


