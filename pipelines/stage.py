"""reprise stage: one stage alone, Parquet to Parquet, without Ray."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import click
import pyarrow as pa
import pyarrow.parquet as pq
from rich.markup import escape

from curation.config import CurationConfig, compute_config_hash, load_config
from curation.dataset.manifest import build_manifest, write_manifest
from curation.dataset.payload import count_payload_bytes
from curation.dataset.row_index import index_tables
from curation.dataset.shards import plan_shards
from curation.models import registry
from curation.rows.schema import CLIPS, ClipRow
from curation.rows.stage_names import CROSSPAIR, RETRIEVE, SHARD, SLICE, STAGES
from curation.rows.tables import build_table, check_columns, extract_rows
from curation.runner.donors import build_donor_table, open_donor_library
from curation.runner.graph import build_stage
from curation.runner.plates import build_plate_pool
from curation.runner.shards import finish_shard
from curation.sources.list_videos import list_videos
from curation.stages.crosspair import Crosspair
from curation.stages.retrieve import FoundDonors, Retrieve, embed_subjects
from curation.stages.slice import Slice
from curation.stages.stage import Stage, run_stage
from pipelines.console import EXIT_NOTHING_DONE, err, handle_errors, out
from reprise.errors import RepriseError
from reprise.storage import Storage, split_parent

_BATCH_ROWS = 16  # rows at a time, and per row group


@click.command()
@click.argument("name", metavar=f"[{'|'.join(STAGES)}|MODULE:CLASS]")
@click.option(
    "--in", "source", required=True, help="slice: videos. Others: a Parquet file, or a folder of them."
)
@click.option("--out", "target", required=True, help="shard: a folder. Others: a Parquet file.")
@click.option("--config", "path", type=click.Path(), help="YAML.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@handle_errors
def main(name: str, source: str, target: str, path: str | None, overrides: tuple[str, ...]) -> None:
    """Run one stage over a table of clips and write the table that comes out.

    Example: reprise stage slice --in videos/ --out clips.parquet, then caption, match, ground, ...
    Clips that slice cuts lie in `clips/` beside its table. MODULE:CLASS runs a stage of your own.
    """
    config = load_config(path, overrides)
    if name not in STAGES and ":" not in name:
        raise RepriseError(f"no stage {name}; stages are {', '.join(STAGES)}, or MODULE:CLASS")
    statuses = Counter(
        _write_table_shards(config, source, target)
        if name == SHARD
        else _write_stage_table(name, config, source, target)
    )
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    out.print(f"{name}: {statuses.total()} rows ({counts}) -> {escape(target)}", soft_wrap=True)
    if statuses.total() == 0 or set(statuses) == {"failed"}:
        sys.exit(EXIT_NOTHING_DONE)


def _write_stage_table(name: str, config: CurationConfig, source: str, target: str) -> list[str]:
    """Run a stage and write its table; the status of every row."""
    parent, file = split_parent(Storage.from_uri(target).uri)
    if not file.endswith(".parquet"):
        raise RepriseError(f"--out {target}: name a .parquet file")
    folder = Storage.from_uri(parent)
    statuses: list[str] = []
    stops: Counter[str] = Counter()

    def build_tables() -> Iterator[pa.Table]:
        for rows in _run_stage(name, config, source, folder):
            for row in rows:
                row["payload_bytes"] = count_payload_bytes(row)
                statuses.append(row["status"])
                if row["stop"] is not None and row["stop"]["stage"] == name:
                    stops[f"{row['status']}: {row['stop']['reason']}"] += 1
            yield build_table(rows, CLIPS)

    folder.write_parquet(file, build_tables(), CLIPS)
    for reason, count in stops.most_common(3):
        err.print(f"{count} {escape(reason)}", soft_wrap=True)
    return statuses


def _run_stage(name: str, config: CurationConfig, source: str, folder: Storage) -> Iterator[list[ClipRow]]:
    if name == SLICE:
        yield from _slice_videos(config, source, folder)
        return
    stage: Stage
    if name == CROSSPAIR:
        stage = Crosspair(config, build_plate_pool(*list_parquet_files(source), config))
    elif name == RETRIEVE:
        stage = Retrieve(config, _match_subjects(config, source))
    else:
        stage = build_stage(name, config)
    for rows in read_clip_rows(source):
        yield run_stage(stage, rows, {})


def _match_subjects(config: CurationConfig, source: str) -> FoundDonors:
    """Where the subjects of a table are seen again.

    Raises:
        RepriseError: no backend is configured for the role `embedder`.
    """
    embedder = registry.load_required_backend(config, "embedder")
    embeddings = [each for rows in read_clip_rows(source) for each in embed_subjects(rows, embedder)]
    storage, files = list_parquet_files(source)
    model = registry.get_model_id(embedder)
    donors = build_donor_table(embeddings, index_tables(storage, files), model, config)
    return open_donor_library(storage, donors)


def _slice_videos(config: CurationConfig, source: str, folder: Storage) -> Iterator[list[ClipRow]]:
    stage = Slice(config, folder, compute_config_hash(config, registry.list_model_ids(config)))
    held: list[ClipRow] = []
    for video in list_videos(source):
        for row in stage(video):
            held.append(row)
            if len(held) == _BATCH_ROWS:
                yield held
                held = []
    if held:
        yield held


def read_clip_rows(source: str) -> Iterator[list[ClipRow]]:
    """Rows of a Parquet file or of every Parquet file in a folder, a few at a time.

    Raises:
        RepriseError: nothing there, or no table of clips.
    """
    storage, files = list_parquet_files(source)
    for file in files:
        where = storage.join_path(file)
        try:
            with storage.open_input(file) as stream, pq.ParquetFile(stream) as parquet:
                check_columns(parquet.schema_arrow, CLIPS, where)
                for batch in parquet.iter_batches(_BATCH_ROWS, columns=CLIPS.names):
                    yield extract_rows(batch, CLIPS)
        except (pa.ArrowInvalid, OSError) as error:
            message = " ".join(str(error).split())
            raise RepriseError(f"{where} is damaged or not Parquet: {message}") from error


def list_parquet_files(source: str) -> tuple[Storage, list[str]]:
    """Where a table lies and its files there.

    Raises:
        RepriseError: nothing there.
    """
    whole = Storage.from_uri(source)
    if whole.is_file():
        folder, file = split_parent(whole.uri)
        return Storage.from_uri(folder), [file]
    files = whole.list_paths("", ".parquet")
    if not files:
        raise RepriseError(f"{source}: no Parquet file there")
    return whole, files


def _write_table_shards(config: CurationConfig, source: str, target: str) -> list[str]:
    """Write the shards and the manifest; the status of every row."""
    storage, files = list_parquet_files(source)
    for _ in read_clip_rows(source):
        break  # says so if it is no table of clips
    entries = index_tables(storage, files)
    statuses = [entry.status for entry in entries]
    if "open" in statuses:
        raise RepriseError(f"{statuses.count('open')} rows of {source} are open: run the stage filter first")
    dataset = Storage.from_uri(target)
    # Cross-pairs are in the rows already: nothing is added to their size.
    shards = plan_shards(entries, config.shard.target_mb << 20, 0.0)
    group = config.shard.row_group_rows
    results = [finish_shard(dataset, shard, [], group, source=storage) for shard in shards]
    revisions = registry.list_model_ids(config)
    found = build_manifest(config, compute_config_hash(config, revisions), revisions, results, {})
    write_manifest(dataset, found)
    if "kept" in statuses and not dataset.exists("clips"):
        err.print(f"the clips lie elsewhere: copy the folder clips to {escape(dataset.join_path('clips'))}")
    return statuses


if __name__ == "__main__":
    main()
