"""reprise stage: one stage alone, Parquet to Parquet, without Ray."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import click
import pyarrow as pa
import pyarrow.parquet as pq
from rich.markup import escape

from curation.config import CurationConfig, content_hash, load_config
from curation.dataset import manifest
from curation.dataset.fragments import Entry, payload_bytes
from curation.dataset.shards import plan, write_shard
from curation.errors import RepriseError
from curation.graph import CROSSPAIR, SHARD, SLICE, STAGES, build_stage
from curation.models import registry
from curation.schema import CLIPS, ClipRow, check_columns, to_table
from curation.sources import list_videos
from curation.stages.base import Stage, run
from curation.stages.crosspair import Crosspair, make_plate, plate_candidate, pool_of
from curation.stages.slice import Slice
from curation.storage import Storage
from pipelines.console import NOTHING, door, out

_BATCH = 16


@click.command()
@click.argument("name", type=click.Choice(STAGES))
@click.option(
    "--in", "source", required=True, help="slice: videos. Others: a Parquet file, or a folder of them."
)
@click.option("--out", "target", required=True, help="shard: a folder. Others: a Parquet file.")
@click.option("--config", "path", type=click.Path(), help="YAML.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@door
def main(name: str, source: str, target: str, path: str | None, overrides: tuple[str, ...]) -> None:
    """Run one stage over a table of clips and write the table that comes out.

    Example: reprise stage slice --in videos/ --out clips.parquet, then caption, match, ground, ...
    Clips that slice cuts lie in `clips/` beside its table.
    """
    config = load_config(path, overrides)
    statuses = Counter(
        _shard(config, source, target) if name == SHARD else _table(name, config, source, target)
    )
    words = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    out.print(f"{name}: {statuses.total()} rows ({words}) -> {escape(target)}", soft_wrap=True)
    if statuses.total() == 0 or set(statuses) == {"failed"}:
        sys.exit(NOTHING)


def _table(name: str, config: CurationConfig, source: str, target: str) -> list[str]:
    folder, _, file = str(Storage.at(target).uri).rpartition("/")
    if not file.endswith(".parquet"):
        raise RepriseError(f"--out {target}: name a .parquet file")
    statuses: list[str] = []

    def tables() -> Iterator[pa.Table]:
        for rows in _rows(name, config, source, Storage.at(folder)):
            for row in rows:
                row["payload_bytes"] = payload_bytes(row)
                statuses.append(row["status"])
            yield to_table(rows, CLIPS)

    Storage.at(folder).write_parquet(file, tables(), CLIPS)
    return statuses


def _rows(name: str, config: CurationConfig, source: str, folder: Storage) -> Iterator[list[ClipRow]]:
    if name == SLICE:
        stage = Slice(config, folder, content_hash(config, {}))
        for video in list_videos(source):
            for row in stage(video):
                yield [row]
        return
    clip_stage: Stage = _crosspair(config, source) if name == CROSSPAIR else build_stage(name, config)
    for rows in read(source):
        yield run(clip_stage, rows, {})


def _crosspair(config: CurationConfig, source: str) -> Crosspair:
    """Plates come from the same table: one pass to choose them, one to use them."""
    ids = [row["clip_id"] for rows in read(source) for row in rows if plate_candidate(row)]
    chosen = set(pool_of(ids, config.crosspair.pool, config.seed))
    inpainter = registry.load(config, "inpainter")
    plates = [
        make_plate(row, inpainter, config.seed)
        for rows in read(source)
        for row in rows
        if row["clip_id"] in chosen
    ]
    return Crosspair(config, plates)


def read(source: str) -> Iterator[list[ClipRow]]:
    """Rows of a Parquet file or of every Parquet file in a folder, a few at a time.

    Raises:
        RepriseError: nothing there, or no table of clips.
    """
    storage, files = parquet_files(source)
    for file in files:
        with storage.open_input(file) as stream, pq.ParquetFile(stream) as parquet:
            check_columns(parquet.schema_arrow, CLIPS, storage.join(file))
            for batch in parquet.iter_batches(_BATCH, columns=CLIPS.names):
                yield batch.to_pylist()


def parquet_files(source: str) -> tuple[Storage, list[str]]:
    whole = Storage.at(source)
    if whole.is_file():
        folder, _, file = whole.uri.rpartition("/")
        return Storage.at(folder), [file]
    files = whole.list("", ".parquet")
    if not files:
        raise RepriseError(f"{source}: no Parquet file there")
    return whole, files


def _shard(config: CurationConfig, source: str, target: str) -> list[str]:
    storage, files = parquet_files(source)
    dataset = Storage.at(target)
    entries = []
    for file in files:
        columns = [name for name in Entry.__dataclass_fields__ if name != "file"]
        for row in storage.read_table(file, columns).to_pylist():
            entries.append(Entry(**{**row, "start_frame": row["start_frame"] or 0}, file=file))
    results = []
    for shard in plan(entries, config.shard.target_mb << 20, 0.0):
        results.append(write_shard(dataset, shard, [], config, source=storage))
    revisions = registry.revisions(config)
    found = manifest.compose(config, content_hash(config, revisions), revisions, results, {})
    manifest.write(dataset, found)
    return [entry.status for entry in entries]


if __name__ == "__main__":
    main()
