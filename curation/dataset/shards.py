"""Shards: plan which rows go into which file, read rows by their index, and write a shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from curation.dataset.layout import WORK_FOLDER, get_shard_path
from curation.dataset.payload import count_payload_bytes
from curation.dataset.row_index import RowIndex
from curation.dataset.tally import Tally
from curation.rows.schema import CLIPS, ClipRow
from curation.rows.tables import build_table, check_columns, extract_rows
from reprise.digest import FileHasher
from reprise.errors import RepriseError, StorageError
from reprise.storage import Storage

# Size of a cross-pair in a kept clip. The size of the row was counted before the cross-pair was made.
_CROSSPAIR_BYTES = 150_000
_MIN_SHARD_BYTES, _MIN_SHARDS = 8 << 20, 16


@dataclass(frozen=True)
class ShardPlan:
    """One shard: its path and, in order, the rows that go into it."""

    path: str
    entries: tuple[RowIndex, ...]


@dataclass(frozen=True)
class ShardResult:
    """A shard that was written, with its counts."""

    path: str
    rows: int
    bytes: int
    blake2b: str  # see `reprise.file_records`
    tally: Tally
    seconds: dict[str, float] = field(default_factory=dict)  # per stage that ran over its rows


def plan_shards(entries: Sequence[RowIndex], target_bytes: int, crosspair_share: float) -> list[ShardPlan]:
    """Split the rows, in dataset order, into shards of about `target_bytes`.

    A small dataset gets smaller shards, so that several workers can write it: at least `_MIN_SHARDS`, each of
    at least `_MIN_SHARD_BYTES`. The plan depends only on the rows, so it is the same on any machine.
    """
    sizes = [
        entry.payload_bytes + (crosspair_share * _CROSSPAIR_BYTES if entry.status == "kept" else 0)
        for entry in entries
    ]
    target = min(target_bytes, max(_MIN_SHARD_BYTES, sum(sizes) / _MIN_SHARDS))
    groups: list[list[RowIndex]] = [[]]
    filled = 0.0
    for entry, size in sorted(zip(entries, sizes, strict=True), key=lambda each: each[0].sort_key):
        if filled >= target:
            groups.append([])
            filled = 0.0
        groups[-1].append(entry)
        filled += size
    return [
        ShardPlan(get_shard_path(number, len(groups)), tuple(group))
        for number, group in enumerate(groups)
        if group
    ]


def read_rows(dataset: Storage, entries: Sequence[RowIndex], batch: int) -> Iterator[list[ClipRow]]:
    """Read the rows of these entries in their order, at most `batch` at once.

    Raises:
        StorageError: A file cannot be read. A damaged fragment is removed, so that the same command makes its
            rows again.
    """
    cache: dict[str, pa.Table] = {}
    for start in range(0, len(entries), batch):
        wanted = entries[start : start + batch]
        files: dict[str, list[str]] = defaultdict(list)
        for entry in wanted:
            files[entry.file].append(entry.clip_id)
        rows: dict[str, ClipRow] = {}
        for file, clip_ids in files.items():
            if file not in cache:
                cache[file] = _read_table(dataset, file)
            found = cache[file].filter(pc.field("clip_id").isin(clip_ids))
            rows.update({row["clip_id"]: row for row in extract_rows(found, CLIPS)})
        # The rows of a video are in few files and next to each other, so older files are not needed again.
        cache = {file: table for file, table in cache.items() if file in files}
        yield [rows[entry.clip_id] for entry in wanted]


def _read_table(dataset: Storage, file: str) -> pa.Table:
    try:
        table = dataset.read_table(file)
    except RepriseError as error:
        damaged = isinstance(error.__cause__, pa.ArrowInvalid) or not dataset.is_remote
        if not damaged or not file.startswith(f"{WORK_FOLDER}/") or not dataset.is_file(file):
            raise
        dataset.delete_file(file)
        raise StorageError(f"{error}; it is removed: run the same command again to make its rows") from error
    check_columns(table.schema, CLIPS, dataset.join_path(file))
    return table


def write_shard(
    dataset: Storage, path: str, row_groups: Iterable[Iterable[Sequence[ClipRow]]]
) -> ShardResult:
    """Write a shard and count its rows.

    Args:
        dataset: Where the shard goes.
        path: Its path there.
        row_groups: Each becomes one row group; its rows come in batches. As Python objects rows take several
            times the memory that they take in a table, so only one batch is held at once.
    """
    tally = Tally()

    def build_row_group(batches: Iterable[Sequence[ClipRow]]) -> pa.Table:
        parts = []
        for rows in batches:
            for row in rows:
                row["payload_bytes"] = count_payload_bytes(row)
                tally.add_row(row)
            parts.append(build_table(rows, CLIPS))
        return pa.concat_tables(parts)

    hasher = FileHasher()
    rows = dataset.write_parquet(path, map(build_row_group, row_groups), CLIPS, hasher=hasher)
    return ShardResult(path, rows, hasher.bytes, hasher.get_digest(), tally)
