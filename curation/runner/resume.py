"""The remaining work of a run: current rows, pending videos, and reopening a finished dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.dataset.fragments import Fragments
from curation.dataset.layout import MANIFEST_FILE
from curation.dataset.row_index import RowIndex
from curation.rows.schema import CLIPS, ClipRow, VideoRow
from curation.rows.stage_names import CROSSPAIR, RETRIEVE, SHARD
from curation.rows.tables import extract_rows
from curation.rows.verdicts import RETRIED_REASONS
from curation.stages import crosspair, retrieve
from reprise.errors import StorageError
from reprise.file_records import FileDamage
from reprise.storage import Storage

_READ_THREADS = 16  # shards at a time: on S3 each needs a few requests
_ROWS_PER_FRAGMENT = 32


def select_current(entries: Iterable[RowIndex], videos: Sequence[VideoRow]) -> list[RowIndex]:
    """Select every finished row once, in dataset order, without rows of inputs that have changed since.

    An input has changed if its path is listed and its key is not. Rows of inputs that are no longer listed
    stay: a person may add to a dataset from another folder.
    """
    keys: dict[str, set[str]] = defaultdict(set)
    for video in videos:
        keys[video["source_path"]].add(video["source_key"])
    found: dict[tuple[str, str], RowIndex] = {}
    for entry in entries:
        if entry.source_path not in keys or entry.source_key in keys[entry.source_path]:
            found.setdefault((entry.source_key, entry.clip_id), entry)
    return sorted(found.values(), key=lambda entry: entry.sort_key)


def list_pending_videos(entries: Iterable[RowIndex], videos: Sequence[VideoRow]) -> list[VideoRow]:
    """List the videos that are not finished, each with the ids of its finished clips in `skip_clip_ids`.

    A video is finished if its last row, which has a `clip_count`, and as many rows are there; or if it has a
    row that says that nothing can be done with it.

    Args:
        entries: Current rows.
        videos: All videos of the run.
    """
    by_source: dict[str, list[RowIndex]] = defaultdict(list)
    for entry in entries:
        by_source[entry.source_key].append(entry)
    left: list[VideoRow] = []
    for video in videos:
        mine = by_source.get(video["source_key"], [])
        wanted = max((entry.clip_count for entry in mine), default=0)
        if wanted and (len(mine) >= wanted or any(entry.video_id is None for entry in mine)):
            continue
        left.append({**video, "skip_clip_ids": sorted(entry.clip_id for entry in mine)})
    return left


def has_work_left(dataset: Storage, manifest: dict[str, Any], videos: Sequence[VideoRow]) -> bool:
    """Return whether a finished dataset lacks a video or has a row that another run can improve."""

    def read_keys(shard: dict[str, Any]) -> tuple[set[str], set[str]]:
        table = dataset.read_table(shard["path"], ["source_key", "stop"])
        retried = pc.is_in(pc.struct_field(table["stop"], "reason"), pa.array(RETRIED_REASONS))
        return (
            set(table["source_key"].to_pylist()),
            set(table.filter(retried)["source_key"].to_pylist()),
        )

    known: set[str] = set()
    retryable: set[str] = set()
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        for all_keys, retryable_keys in pool.map(read_keys, manifest["shards"]):
            known |= all_keys
            retryable |= retryable_keys
    return any(video["source_key"] not in known or video["source_key"] in retryable for video in videos)


def reopen_dataset(
    dataset: Storage,
    manifest: dict[str, Any],
    fragments: Fragments,
    videos: Sequence[VideoRow] = (),
    damage: Sequence[FileDamage] = (),
) -> None:
    """Turn a finished dataset back into fragments, so that new videos join its rows.

    Rows whose files are damaged are left out, so that the run makes them again.

    Args:
        dataset: The dataset.
        manifest: Its manifest.
        fragments: Where the rows go.
        videos: The videos of this run.
        damage: Shards and clips that are missing or of another size.

    It may be killed at any moment: all rows are copied before the manifest is deleted.

    Raises:
        StorageError: A shard holds rows that were decided under another config than the manifest states; or
            a damaged file is of a video that is not among `videos`, so that nothing can make it again.
    """
    seconds = {
        stage: value
        for stage, value in manifest["seconds"].items()
        if stage not in (CROSSPAIR, RETRIEVE, SHARD)  # these stages run over the whole dataset again
    }
    problems = {each.path: each.problem for each in damage}
    listed = {video["source_key"] for video in videos}
    known: set[str] = set()
    for shard in manifest["shards"]:
        if shard["path"] in problems:
            continue
        with dataset.open_input(shard["path"]) as stream, pq.ParquetFile(stream) as parquet:
            for batch in parquet.iter_batches(_ROWS_PER_FRAGMENT, columns=CLIPS.names):
                rows = extract_rows(batch, CLIPS)
                _refuse_other_rows(dataset, shard["path"], rows, manifest["config_hash"])
                known |= {row["source_key"] for row in rows}
                _refuse_unlisted(dataset, rows, listed, problems)
                rows = [row for row in rows if row["clip_path"] not in problems]
                for row in rows:
                    _remove_final_references(row)
                fragments.write_rows(rows, seconds)
                seconds = {}
    lost = [shard["path"] for shard in manifest["shards"] if shard["path"] in problems]
    if lost and len(known | listed) < manifest["videos"]["in"]:
        raise StorageError(
            f"{dataset.join_path(lost[0])} is damaged ({problems[lost[0]]}), and videos whose rows it held "
            "are not in --input: name all videos of the dataset, or put the file back"
        )
    dataset.delete_file(MANIFEST_FILE)


def _refuse_unlisted(
    dataset: Storage, rows: Sequence[ClipRow], listed: Set[str], problems: Mapping[str, str]
) -> None:
    for row in rows:
        path = row["clip_path"]
        if path is not None and path in problems and row["source_key"] not in listed:
            raise StorageError(
                f"{dataset.join_path(path)} is damaged ({problems[path]}), and its video "
                f"{row['source_path']} is not in --input: add the video as it was, or put the file back"
            )


def _refuse_other_rows(dataset: Storage, path: str, rows: Sequence[ClipRow], config_hash: str) -> None:
    if any(row["config_hash"] != config_hash for row in rows):
        raise StorageError(
            f"{dataset.join_path(path)} holds rows that were decided under another config than "
            f"{MANIFEST_FILE} states: `reprise refilter --dataset {dataset.uri}` decides all rows again"
        )


def _remove_final_references(row: ClipRow) -> None:
    """Remove the references that depend on the whole dataset: they are made again at the end of the run."""
    for subject in row["subjects"]:
        subject["references"] = [
            each
            for each in subject["references"]
            if each["variant"] not in (crosspair.VARIANT, retrieve.VARIANT)
        ]
