"""reprise stage: one stage alone, Parquet to Parquet, without Ray."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import click
import pyarrow as pa
import pyarrow.parquet as pq
from rich.markup import escape

from curation.config import CurationConfig, content_hash, load_config
from curation.dataset import manifest
from curation.dataset.fragments import payload_bytes
from curation.dataset.shards import plan, read_rows, write_shard
from curation.models import registry
from curation.rows.schema import CLIPS, ClipRow, check_columns, to_rows, to_table
from curation.runner.graph import CROSSPAIR, RETRIEVE, SHARD, SLICE, STAGES, build_stage
from curation.sources.list_videos import list_videos
from curation.stages.crosspair import Crosspair, pool, table_entries
from curation.stages.retrieve import Matches, Retrieve, look, match
from curation.stages.slice import Slice
from curation.stages.stage import Stage, run
from pipelines.console import NOTHING, door, err, out
from reprise.errors import RepriseError
from reprise.storage import Storage, parent_and_name

_BATCH = 16  # rows at a time, and per row group


@click.command()
@click.argument("name", metavar=f"[{'|'.join(STAGES)}|MODULE:CLASS]")
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
    Clips that slice cuts lie in `clips/` beside its table. MODULE:CLASS runs a stage of your own.
    """
    config = load_config(path, overrides)
    if name not in STAGES and ":" not in name:
        raise RepriseError(f"no stage {name}; stages are {', '.join(STAGES)}, or MODULE:CLASS")
    statuses = Counter(
        _shard(config, source, target) if name == SHARD else _table(name, config, source, target)
    )
    words = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    out.print(f"{name}: {statuses.total()} rows ({words}) -> {escape(target)}", soft_wrap=True)
    if statuses.total() == 0 or set(statuses) == {"failed"}:
        sys.exit(NOTHING)


def _table(name: str, config: CurationConfig, source: str, target: str) -> list[str]:
    """Run a stage and write its table; the status of every row."""
    parent, file = parent_and_name(Storage.at(target).uri)
    if not file.endswith(".parquet"):
        raise RepriseError(f"--out {target}: name a .parquet file")
    folder = Storage.at(parent)
    statuses: list[str] = []
    stops: Counter[str] = Counter()

    def tables() -> Iterator[pa.Table]:
        for rows in _rows(name, config, source, folder):
            for row in rows:
                row["payload_bytes"] = payload_bytes(row)
                statuses.append(row["status"])
                if row["stop"] is not None and row["stop"]["stage"] == name:
                    stops[f"{row['status']}: {row['stop']['reason']}"] += 1
            yield to_table(rows, CLIPS)

    folder.write_parquet(file, tables(), CLIPS)
    for reason, count in stops.most_common(3):
        err.print(f"{count} {escape(reason)}", soft_wrap=True)
    return statuses


def _rows(name: str, config: CurationConfig, source: str, folder: Storage) -> Iterator[list[ClipRow]]:
    if name == SLICE:
        yield from _sliced(config, source, folder)
        return
    stage: Stage
    if name == CROSSPAIR:
        stage = Crosspair(config, pool(*parquet_files(source), config))
    elif name == RETRIEVE:
        stage = Retrieve(config, _library(config, source))
    else:
        stage = build_stage(name, config)
    for rows in read(source):
        yield run(stage, rows, {})


def _library(config: CurationConfig, source: str) -> Matches:
    """Where the subjects of a table are seen again.

    Raises:
        RepriseError: nobody answers the role `embedder`.
    """
    embedder = registry.required(config, "embedder")
    found = match([each for rows in read(source) for each in look(rows, embedder)], config)
    storage, files = parquet_files(source)
    entries = {entry.clip_id: entry for entry in table_entries(storage, files)}

    def fetch(clip_ids: Sequence[str]) -> Iterator[ClipRow]:
        for rows in read_rows(storage, [entries[each] for each in clip_ids], _BATCH):
            yield from rows

    return Matches(embedder.name, embedder.revision, found, fetch, registry.sha256_of(embedder))


def _sliced(config: CurationConfig, source: str, folder: Storage) -> Iterator[list[ClipRow]]:
    stage = Slice(config, folder, content_hash(config, registry.revisions(config)))
    held: list[ClipRow] = []
    for video in list_videos(source):
        for row in stage(video):
            held.append(row)
            if len(held) == _BATCH:
                yield held
                held = []
    if held:
        yield held


def read(source: str) -> Iterator[list[ClipRow]]:
    """Rows of a Parquet file or of every Parquet file in a folder, a few at a time.

    Raises:
        RepriseError: nothing there, or no table of clips.
    """
    storage, files = parquet_files(source)
    for file in files:
        where = storage.join(file)
        try:
            with storage.open_input(file) as stream, pq.ParquetFile(stream) as parquet:
                check_columns(parquet.schema_arrow, CLIPS, where)
                for batch in parquet.iter_batches(_BATCH, columns=CLIPS.names):
                    yield to_rows(batch, CLIPS)
        except (pa.ArrowInvalid, OSError) as error:
            said = " ".join(str(error).split())
            raise RepriseError(f"{where} is damaged or not Parquet: {said}") from error


def parquet_files(source: str) -> tuple[Storage, list[str]]:
    """Where a table lies and its files there.

    Raises:
        RepriseError: nothing there.
    """
    whole = Storage.at(source)
    if whole.is_file():
        folder, file = parent_and_name(whole.uri)
        return Storage.at(folder), [file]
    files = whole.list("", ".parquet")
    if not files:
        raise RepriseError(f"{source}: no Parquet file there")
    return whole, files


def _shard(config: CurationConfig, source: str, target: str) -> list[str]:
    """Write the shards and the manifest; the status of every row."""
    storage, files = parquet_files(source)
    for _ in read(source):
        break  # says so if it is no table of clips
    entries = table_entries(storage, files)
    statuses = [entry.status for entry in entries]
    if "open" in statuses:
        raise RepriseError(f"{statuses.count('open')} rows of {source} are open: run the stage filter first")
    dataset = Storage.at(target)
    # Cross-pairs are in the rows already: nothing is added to their size.
    shards = plan(entries, config.shard.target_mb << 20, 0.0)
    results = [write_shard(dataset, shard, [], config, source=storage) for shard in shards]
    revisions = registry.revisions(config)
    found = manifest.compose(config, content_hash(config, revisions), revisions, results, {})
    manifest.write(dataset, found)
    if "kept" in statuses and not dataset.exists("clips"):
        err.print(f"the clips lie elsewhere: copy the folder clips to {escape(dataset.join('clips'))}")
    return statuses


if __name__ == "__main__":
    main()
