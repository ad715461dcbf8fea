"""Finished rows of a run under way: small Parquet files, each written whole, from which a killed run goes on.

A fragment is named after the clips it holds, so that a task which is tried again writes the same file. Where
tries overlap differently, a clip stands in two fragments with equal content and one of them is taken.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.dataset import WORK
from curation.rows.schema import CLIPS, ClipRow, VideoRow
from curation.rows.tables import build_table, extract_rows
from curation.rows.verdicts import RETRIED_REASONS
from reprise.digest import compute_digest
from reprise.storage import Storage

_SECONDS_KEY = b"reprise.seconds"
INDEX_COLUMNS = [
    "clip_id", "video_id", "source_path", "source_key", "clip_path", "start_frame", "clip_count", "status",
    "payload_bytes",
]  # fmt: skip
_READ_THREADS = 16  # footers at a time: on S3 each costs a few requests


@dataclass(frozen=True, slots=True)
class RowIndex:
    """One finished row and the file that holds it."""

    clip_id: str
    video_id: str | None
    source_path: str
    source_key: str
    clip_path: str | None
    start_frame: int
    clip_count: int
    status: str
    payload_bytes: int
    file: str
    can_retry: bool = False  # it failed for a reason that another run may not meet

    @property
    def sort_key(self) -> tuple[str, str, int, str]:
        """Place in the finished dataset: by video, then time; independent of who finished first."""
        return (self.video_id or "~", self.source_path, self.start_frame, self.clip_id)


def build_row_index(row: dict[str, Any], file: str, *, can_retry: bool = False) -> RowIndex:
    """An entry from the columns of a row. Of what many rows share, one copy is kept."""
    for name in ("source_path", "source_key", "video_id"):
        if row[name] is not None:
            row[name] = sys.intern(row[name])
    return RowIndex(**{**row, "start_frame": row["start_frame"] or 0}, file=file, can_retry=can_retry)


_FragmentContent = tuple[list[RowIndex], dict[str, float]]


class Fragments:
    """The fragments of one config in one dataset."""

    def __init__(self, dataset: Storage, config_hash: str) -> None:
        self._dataset = dataset
        self.folder = f"{WORK}/{config_hash}/rows"
        self._known: dict[Any, _FragmentContent] = {}  # by path, size and stamp: a file is read once

    def write_rows(self, rows: Sequence[ClipRow], seconds: dict[str, float]) -> None:
        """Store finished rows; `seconds` per stage go into the file's metadata."""
        if not rows:
            return
        for row in rows:
            row["payload_bytes"] = count_payload_bytes(row)
        name = compute_digest(sorted(row["clip_id"] for row in rows))
        schema = CLIPS.with_metadata({**CLIPS.metadata, _SECONDS_KEY: json.dumps(seconds).encode()})
        table = build_table(rows, CLIPS).cast(schema)
        self._dataset.write_parquet(f"{self.folder}/{name}.parquet", [table], schema)

    def remove_retryable(self, source_keys: Set[str]) -> None:
        """Remove the rows of these sources that say that it may go better another time.

        Killed midway it can be repeated: what stays is written before the file goes.
        """
        found = [each for each in self.read_index()[0] if each.can_retry and each.source_key in source_keys]
        gone = {each.clip_id for each in found}
        for file in sorted({each.file for each in found}):
            table = self._dataset.read_table(file)
            rows = [row for row in extract_rows(table, CLIPS) if row["clip_id"] not in gone]
            self.write_rows(rows, json.loads((table.schema.metadata or {}).get(_SECONDS_KEY, b"{}")))
            self._dataset.delete_file(file)

    def read_index(self) -> tuple[list[RowIndex], dict[str, float]]:
        """Every row of every fragment, by file, and the seconds that went into them per stage.

        A file that is not whole counts as absent, so its rows are made again.
        """
        files = [each for each in self._dataset.list_files(self.folder) if each.path.endswith(".parquet")]
        fresh = [each for each in files if each not in self._known]
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            self._known.update(
                zip(fresh, pool.map(lambda each: self._read_file(each.path), fresh), strict=True)
            )
        found: list[RowIndex] = []
        seconds: dict[str, float] = defaultdict(float)
        for file in files:
            entries, spent = self._known[file]
            found += entries
            for stage, value in spent.items():
                seconds[stage] += value
        return found, dict(seconds)

    def _read_file(self, file: str) -> _FragmentContent:
        with self._dataset.open_input(file) as stream:
            try:
                with pq.ParquetFile(stream) as parquet:
                    table = parquet.read([*INDEX_COLUMNS, "stop"])
                    spent = json.loads(parquet.schema_arrow.metadata.get(_SECONDS_KEY, b"{}"))
            except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, ValueError, AttributeError):
                return [], {}
        reasons = pc.struct_field(table["stop"], "reason").to_pylist()
        rows = zip(table.select(INDEX_COLUMNS).to_pylist(), reasons, strict=True)
        return [
            build_row_index(row, file, can_retry=reason in RETRIED_REASONS) for row, reason in rows
        ], spent


def count_payload_bytes(row: ClipRow) -> int:
    """Bytes of the pictures in a row."""
    total = sum(
        _count_image_bytes(frame["image"]) + _count_image_bytes(frame["motion"]) for frame in row["frames"]
    )
    for subject in row["subjects"]:
        total += sum(_count_image_bytes(reference["image"]) for reference in subject["references"])
    return total


def _count_image_bytes(image: Any) -> int:
    return len(image["bytes"]) if image and image["bytes"] else 0


def select_current(entries: Iterable[RowIndex], videos: Sequence[VideoRow]) -> list[RowIndex]:
    """Every finished row once, in dataset order, without those of inputs that have changed since.

    Those have a listed path and a key that is not listed. Rows of inputs that are no longer listed stay: one
    may add to a dataset from another folder.
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
    """The videos that are not finished, each with the clips of it that are.

    A video is finished when its last row, the one that carries `clip_count`, and as many rows are there; or
    when it has a row that says that nothing can be done with it.
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
