"""An index of rows: what a run needs of each row without reading its pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.rows.schema import CLIPS
from curation.rows.tables import check_columns
from reprise.errors import InputError, StorageError
from reprise.storage import Storage

INDEX_COLUMNS = [
    "clip_id", "video_id", "source_path", "source_key", "clip_path", "start_frame", "clip_count", "status",
    "payload_bytes", "clip_bytes",
]  # fmt: skip

_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class RowIndex:
    """One row, by its columns of the same names, and the file that holds it."""

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
    clip_bytes: int | None = None  # null: not recorded
    can_retry: bool = False  # it failed for a reason that may not hold for another run

    @property
    def sort_key(self) -> tuple[str, str, int, str]:
        """Place in the finished dataset: by video, then time; independent of the order of work."""
        return (self.video_id or "~", self.source_path, self.start_frame, self.clip_id)


def build_row_index(row: dict[str, Any], file: str, *, can_retry: bool = False) -> RowIndex:
    """Build the index of a row from its `INDEX_COLUMNS`.

    Strings that many rows share are stored once.
    """
    for name in ("source_path", "source_key", "video_id"):
        if row[name] is not None:
            row[name] = sys.intern(row[name])
    return RowIndex(**{**row, "start_frame": row["start_frame"] or 0}, file=file, can_retry=can_retry)


def read_columns(storage: Storage, file: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Read some columns of a clip table, row by row; a column that an older version lacks is null.

    Raises:
        StorageError: the file cannot be read, or is no clip table.
    """
    try:
        with storage.open_input(file) as stream, pq.ParquetFile(stream) as parquet:
            check_columns(parquet.schema_arrow, CLIPS, storage.join_path(file))
            there = [name for name in columns if name in parquet.schema_arrow.names]
            absent = dict.fromkeys(set(columns) - set(there))
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=there):
                for row in batch.to_pylist():
                    yield {**row, **absent}
    except (pa.ArrowInvalid, OSError) as error:
        message = " ".join(str(error).split())
        raise StorageError(f"{storage.join_path(file)} is damaged or not Parquet: {message}") from error


def index_tables(storage: Storage, files: Sequence[str]) -> list[RowIndex]:
    """Index every row of some clip tables.

    Raises:
        InputError: A file is not a clip table, or a clip is in two of them.
    """
    found: dict[tuple[str, str], RowIndex] = {}
    for file in files:
        for row in read_columns(storage, file, INDEX_COLUMNS):
            entry = build_row_index(row, file)
            twin = found.setdefault((entry.source_key, entry.clip_id), entry)
            if twin is not entry:
                both = " and ".join(dict.fromkeys((twin.file, file)))
                raise InputError(f"clip {entry.clip_id} is there twice, in {both}: name one table")
    return list(found.values())
