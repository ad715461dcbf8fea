"""An index of rows: what a run needs of each row without reading its pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reprise.errors import InputError
from reprise.storage import Storage

INDEX_COLUMNS = [
    "clip_id", "video_id", "source_path", "source_key", "clip_path", "start_frame", "clip_count", "status",
    "payload_bytes",
]  # fmt: skip


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


def index_tables(storage: Storage, files: Sequence[str]) -> list[RowIndex]:
    """Index every row of some clip tables.

    Raises:
        InputError: A file is not a clip table, or a clip is in two of them.
    """
    found: dict[tuple[str, str], RowIndex] = {}
    for file in files:
        for row in storage.read_table(file, INDEX_COLUMNS).to_pylist():
            entry = build_row_index(row, file)
            twin = found.setdefault((entry.source_key, entry.clip_id), entry)
            if twin is not entry:
                both = " and ".join(dict.fromkeys((twin.file, file)))
                raise InputError(f"clip {entry.clip_id} is there twice, in {both}: name one table")
    return list(found.values())
