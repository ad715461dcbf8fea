"""Fragments -> shards: the same rows in the same files on every run."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curation.config import CurationConfig
from curation.dataset import DATA, WORK
from curation.dataset.fragments import RowIndex, count_payload_bytes
from curation.dataset.tally import Tally
from curation.rows.schema import CLIPS, ClipRow
from curation.rows.tables import build_table, check_columns, extract_rows
from curation.stages.stage import Stage, run_stage
from reprise.errors import RepriseError
from reprise.storage import Storage

# What a cross-pair adds to a row whose size was taken before it was made, per kept clip.
_CROSSPAIR_BYTES = 150_000
_ROWS_PER_BATCH = 8  # of a row group, while stages work on them
_MIN_SHARD_BYTES, _MIN_SHARDS = 8 << 20, 16


@dataclass(frozen=True)
class ShardPlan:
    """One shard: its name and, in order, the rows that go into it."""

    path: str
    entries: tuple[RowIndex, ...]


@dataclass
class ShardResult:
    path: str
    rows: int
    bytes: int
    tally: Tally
    seconds: dict[str, float]


def plan_shards(entries: Sequence[RowIndex], target_bytes: int, crosspair_share: float) -> list[ShardPlan]:
    """Split the rows, in dataset order, into shards of about `target_bytes`.

    A dataset of few targets makes smaller shards, or one worker would write what many could: at least
    `_SMALL_BYTES`, and `_PIECES` of them. How many there are depends on the rows alone, on any machine.
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
    total = len(groups)
    return [
        ShardPlan(f"{DATA}/clips-{number:05d}-of-{total:05d}.parquet", tuple(group))
        for number, group in enumerate(groups)
        if group
    ]


def read_rows(dataset: Storage, entries: Sequence[RowIndex], batch: int) -> Iterator[list[ClipRow]]:
    """The rows of these entries, in their order, at most `batch` at once.

    Raises:
        RepriseError: a file cannot be read. A damaged one of an unfinished run is removed, so that the same
            command makes its rows again.
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
                cache[file] = _read_fragment(dataset, file)
            found = cache[file].filter(pc.field("clip_id").isin(clip_ids))
            rows.update({row["clip_id"]: row for row in extract_rows(found, CLIPS)})
        # Rows of a video lie in few fragments next to each other; older ones are not needed again.
        cache = {file: table for file, table in cache.items() if file in files}
        yield [rows[entry.clip_id] for entry in wanted]


def _read_fragment(dataset: Storage, file: str) -> pa.Table:
    try:
        table = dataset.read_table(file)
    except RepriseError as error:
        damaged = isinstance(error.__cause__, pa.ArrowInvalid) or not dataset.is_remote
        if not damaged or not file.startswith(f"{WORK}/") or not dataset.is_file(file):
            raise
        dataset.delete_file(file)
        raise RepriseError(f"{error}; it is removed: run the same command again to make its rows") from error
    check_columns(table.schema, CLIPS, dataset.join_path(file))
    return table


def write_shard(
    dataset: Storage,
    shard: ShardPlan,
    stages: Sequence[Stage],
    config: CurationConfig,
    *,
    source: Storage | None = None,
) -> ShardResult:
    """Run the last stages over a shard's rows, which lie below `source` or `dataset`, and write it whole."""
    result = ShardResult(shard.path, 0, 0, Tally(), {})
    started = time.perf_counter()

    def build_tables() -> Iterator[pa.Table]:
        size = config.shard.row_group_rows
        for start in range(0, len(shard.entries), size):
            parts = []
            # As Python objects, with what stages add to them, rows take several times what they take here.
            for rows in read_rows(source or dataset, shard.entries[start : start + size], _ROWS_PER_BATCH):
                for stage in stages:
                    rows = run_stage(stage, rows, result.seconds)
                for row in rows:
                    row["payload_bytes"] = count_payload_bytes(row)
                    result.tally.add_row(row)
                parts.append(build_table(rows, CLIPS))
            yield pa.concat_tables(parts)

    result.rows = dataset.write_parquet(shard.path, build_tables(), CLIPS)
    result.bytes = dataset.get_size(shard.path)
    # Reading and writing rows is this stage's work; what ran on the way has its own name.
    result.seconds["shard"] = time.perf_counter() - started - sum(result.seconds.values())
    return result
