"""reprise stage: run one stage from Parquet to Parquet, without Ray."""

from __future__ import annotations

import sys

import click
from rich.markup import escape

from curation.config import load_config
from curation.rows.ids import CLIPS_FOLDER
from curation.rows.stage_names import SHARD, SLICE, STAGES
from curation.runner.single_stage import (
    lock_source,
    open_clip_tables,
    run_table_stage,
    slice_videos,
    write_stage_table,
    write_table_shards,
)
from curation.sources.list_videos import list_videos
from pipelines.console import EXIT_NOTHING_DONE, err, handle_errors, out
from reprise.errors import InputError
from reprise.lock import lock_folder
from reprise.storage import Storage, locate_file


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
    """Run one stage over a table of clips and write the resulting table.

    Example: reprise stage slice --in videos/ --out clips.parquet, then caption, match, ground, ...
    The stage slice writes its clips to `clips/` beside its table. MODULE:CLASS runs a stage of your own.
    """
    config = load_config(path, overrides)
    if name not in STAGES and ":" not in name:
        raise InputError(f"no stage {name}; stages are {', '.join(STAGES)}, or MODULE:CLASS")
    if name == SHARD:
        dataset = Storage.from_uri(target)
        outcome = write_table_shards(open_clip_tables(Storage.from_uri(source)), config, dataset)
        if outcome.statuses["kept"] and not dataset.exists(CLIPS_FOLDER):
            clips = escape(dataset.join_path(CLIPS_FOLDER))
            err.print(f"the clips are in another folder: copy the folder clips to {clips}")
    else:
        folder, file = locate_file(target)
        if not file.endswith(".parquet"):
            raise InputError(f"--out {target}: name a .parquet file")
        if name == SLICE:
            with lock_folder(folder, create=True):
                batches = slice_videos(list_videos(source), config, folder)
                outcome = write_stage_table(name, batches, folder, file)
        else:
            tables = open_clip_tables(Storage.from_uri(source))
            # One file is written, whole, so others may write theirs beside it.
            with lock_folder(folder, create=True, shared=True), lock_source(tables.storage, folder):
                outcome = write_stage_table(name, run_table_stage(name, tables, config), folder, file)
    for reason, count in outcome.stops.most_common():
        err.print(f"{count} {escape(reason)}", soft_wrap=True)
    statuses = outcome.statuses
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    out.print(f"{name}: {statuses.total()} rows ({counts}) -> {escape(target)}", soft_wrap=True)
    if statuses.total() == 0 or set(statuses) == {"failed"}:
        sys.exit(EXIT_NOTHING_DONE)


if __name__ == "__main__":
    main()
