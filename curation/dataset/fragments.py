"""Finished rows of an unfinished run, in small Parquet files, from which a killed run resumes.

The name of a fragment is a digest of the clips in it, so a repeated task writes the same file. If a repeated
task groups its clips differently, a clip is in two fragments with equal content; one of them is used.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.dataset.layout import get_fragment_folder
from curation.dataset.payload import count_payload_bytes
from curation.dataset.row_index import INDEX_COLUMNS, RowIndex, build_row_index
from curation.rows.schema import CLIPS, ClipRow
from curation.rows.tables import build_table, extract_rows
from curation.rows.verdicts import RETRIED_REASONS
from reprise.digest import compute_digest
from reprise.storage import FileInfo, Storage

_SECONDS_KEY = b"reprise.seconds"
_READ_THREADS = 16  # files at a time: on S3 each needs a few requests


@dataclass(frozen=True)
class FragmentIndex:
    """The index of some fragments: every row, and the seconds of work per stage that made them."""

    rows: list[RowIndex]
    seconds: dict[str, float]


class Fragments:
    """The fragments of one config in one dataset."""

    def __init__(self, dataset: Storage, config_hash: str) -> None:
        self._dataset = dataset
        self.folder = get_fragment_folder(config_hash)
        self._known: dict[FileInfo, FragmentIndex] = {}  # by path, size and stamp: a file is read once

    def write_rows(self, rows: Sequence[ClipRow], seconds: dict[str, float]) -> None:
        """Store finished rows as one fragment; `seconds` per stage go into its metadata."""
        if not rows:
            return
        for row in rows:
            row["payload_bytes"] = count_payload_bytes(row)
        name = compute_digest(sorted(row["clip_id"] for row in rows))
        schema = CLIPS.with_metadata({**CLIPS.metadata, _SECONDS_KEY: json.dumps(seconds).encode()})
        table = build_table(rows, CLIPS).cast(schema)
        self._dataset.write_parquet(f"{self.folder}/{name}.parquet", [table], schema)

    def remove_retryable(self, source_keys: Set[str]) -> None:
        """Remove the rows of these sources that failed for a reason that may not hold for another run.

        It can be repeated after a kill: the rows that stay are written before their file is deleted.
        """
        self.remove_rows(
            [each for each in self.read_index().rows if each.can_retry and each.source_key in source_keys]
        )

    def remove_rows(self, entries: Sequence[RowIndex]) -> None:
        """Remove some rows. It can be repeated after a kill, as above."""
        gone = {each.clip_id for each in entries}
        for file in sorted({each.file for each in entries}):
            table = self._dataset.read_table(file)
            rows = [row for row in extract_rows(table, CLIPS) if row["clip_id"] not in gone]
            self.write_rows(rows, json.loads((table.schema.metadata or {}).get(_SECONDS_KEY, b"{}")))
            self._dataset.delete_file(file)

    def read_index(self) -> FragmentIndex:
        """List the fragments and read the new ones.

        A damaged file counts as absent, so its rows are made again.
        """
        files = [each for each in self._dataset.list_files(self.folder) if each.path.endswith(".parquet")]
        new = [each for each in files if each not in self._known]
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            self._known.update(zip(new, pool.map(lambda each: self._read_file(each.path), new), strict=True))
        rows: list[RowIndex] = []
        seconds: dict[str, float] = defaultdict(float)
        for file in files:
            rows += self._known[file].rows
            for stage, value in self._known[file].seconds.items():
                seconds[stage] += value
        return FragmentIndex(rows, dict(seconds))

    def _read_file(self, file: str) -> FragmentIndex:
        with self._dataset.open_input(file) as stream:
            try:
                with pq.ParquetFile(stream) as parquet:
                    table = parquet.read([*INDEX_COLUMNS, "stop"])
                    if "clip_bytes" not in table.column_names:  # of an older version
                        table = table.append_column("clip_bytes", pa.nulls(len(table), pa.int64()))
                    seconds = json.loads(parquet.schema_arrow.metadata.get(_SECONDS_KEY, b"{}"))
            except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, ValueError, AttributeError):
                return FragmentIndex([], {})
        reasons = pc.struct_field(table["stop"], "reason").to_pylist()
        rows = zip(table.select(INDEX_COLUMNS).to_pylist(), reasons, strict=True)
        return FragmentIndex(
            [build_row_index(row, file, can_retry=reason in RETRIED_REASONS) for row, reason in rows], seconds
        )
