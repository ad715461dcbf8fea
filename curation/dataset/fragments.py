"""Finished rows of a run under way: small Parquet files, each written whole, from which a killed run goes on.

A fragment is named after the clips it holds, so that a task which is tried again writes the same file. Where
tries overlap differently, a clip stands in two fragments with equal content and the index takes one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.dataset import WORK
from curation.errors import RepriseError
from curation.ids import digest
from curation.schema import CLIPS, ClipRow, VideoRow, to_table
from curation.storage import Storage

_SECONDS = b"reprise.seconds"
_INDEX_COLUMNS = [
    "clip_id", "video_id", "source_path", "source_key", "start_frame", "clip_count", "status", "payload_bytes"
]  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One finished row and the file that holds it."""

    clip_id: str
    video_id: str | None
    source_path: str
    source_key: str
    start_frame: int
    clip_count: int
    status: str
    payload_bytes: int
    file: str

    @property
    def order(self) -> tuple[str, str, int, str]:
        """Place in the finished dataset: by video, then time; independent of who finished first."""
        return (self.video_id or "~", self.source_path, self.start_frame, self.clip_id)


class Fragments:
    """The fragments of one config in one dataset."""

    def __init__(self, dataset: Storage, config_hash: str) -> None:
        self._dataset = dataset
        self.folder = f"{WORK}/{config_hash}/rows"

    def write(self, rows: Sequence[ClipRow], seconds: dict[str, float]) -> None:
        """Store finished rows; `seconds` per stage go into the file's metadata."""
        if not rows:
            return
        for row in rows:
            row["payload_bytes"] = payload_bytes(row)
        name = digest(sorted(row["clip_id"] for row in rows))
        schema = CLIPS.with_metadata({**CLIPS.metadata, _SECONDS: json.dumps(seconds).encode()})
        self._dataset.write_parquet(f"{self.folder}/{name}.parquet", [to_table(rows, CLIPS).cast(schema)], schema)

    def entries(self) -> tuple[list[Entry], dict[str, float]]:
        """Every finished row once, in dataset order, and the seconds that went into them per stage."""
        found: dict[str, Entry] = {}
        seconds: dict[str, float] = defaultdict(float)
        for file in self._dataset.list(self.folder, ".parquet"):
            try:
                with self._dataset.open_input(file) as stream, pq.ParquetFile(stream) as parquet:
                    table = parquet.read(_INDEX_COLUMNS)
                    spent = json.loads(parquet.schema_arrow.metadata.get(_SECONDS, b"{}"))
            except (pa.ArrowInvalid, OSError, RepriseError, KeyError, AttributeError):
                # Not whole, so not finished: its rows are made again.
                self._dataset.delete(file)
                continue
            for stage, value in spent.items():
                seconds[stage] += value
            for row in table.to_pylist():
                entry = Entry(**{**row, "start_frame": row["start_frame"] or 0}, file=file)
                found.setdefault(entry.clip_id, entry)
        return sorted(found.values(), key=lambda entry: entry.order), dict(seconds)


def payload_bytes(row: ClipRow) -> int:
    """Bytes of the pictures in a row."""
    total = sum(_size(frame["image"]) + _size(frame["motion"]) for frame in row["frames"])
    for subject in row["subjects"]:
        total += sum(_size(reference["image"]) for reference in subject["references"])
    return total


def _size(image: Any) -> int:
    return len(image["bytes"]) if image and image["bytes"] else 0


def current(entries: Iterable[Entry], videos: Sequence[VideoRow]) -> list[Entry]:
    """Without the rows of files that have changed since: their source has the same path and another key."""
    keys = {video["source_path"]: video["source_key"] for video in videos}
    return [entry for entry in entries if keys.get(entry.source_path, entry.source_key) == entry.source_key]


def pending(entries: Iterable[Entry], videos: Sequence[VideoRow]) -> list[VideoRow]:
    """The videos that are not finished, each with the clips of it that are.

    A video is finished when its last row, the one that carries `clip_count`, and as many rows are there.
    """
    by_source: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_source[entry.source_key].append(entry)
    left: list[VideoRow] = []
    for video in videos:
        mine = by_source.get(video["source_key"], [])
        wanted = max((entry.clip_count for entry in mine), default=0)
        if not wanted or len(mine) < wanted:
            left.append({**video, "skip_clip_ids": sorted(entry.clip_id for entry in mine)})
    return left
