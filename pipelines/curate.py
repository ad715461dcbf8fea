"""reprise curate: a folder of videos -> a curated subject-to-video dataset."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click
import yaml
from rich.markup import escape

from pipelines.console import NOTHING, Bar, door, err, out, summary

if TYPE_CHECKING:
    from curation.config import CurationConfig
    from curation.runner.curate import Outcome
    from reprise.ray_session import Started


@click.command()
@click.option(
    "--input",
    "source",
    required=True,
    help="Folder, glob, video, or CSV/JSONL/Parquet manifest; local or s3://.",
)
@click.option("--output", required=True, help="Folder of the dataset; local or s3://.")
@click.option("--config", "path", type=click.Path(), help="YAML; `reprise config` prints one with every key.")
@click.option("--dry-run", is_flag=True, help="Print the resolved config and the graph, and stop.")
@click.option("--overwrite", is_flag=True, help="Remove a dataset that is already there and start over.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@door
def main(
    source: str, output: str, path: str | None, dry_run: bool, overwrite: bool, overrides: tuple[str, ...]
) -> None:
    """Curate videos into Parquet shards with a report. Run it again to go on after an interruption.

    KEY=VALUE overrides the config, for example slice.max_length=6 filter.sharpness_min=60.
    """
    from curation.config import load_config  # what is slow to import is imported where Ctrl-C is answered

    config = load_config(path, overrides)
    if dry_run:
        show(config)
        return
    outcome = run(source, output, config, overwrite=overwrite)
    if _nothing(outcome.manifest):
        sys.exit(NOTHING)


def run(source: str, output: str, config: CurationConfig, *, overwrite: bool = False) -> Outcome:
    """List, curate, and print what came of it."""
    from curation.dataset import MANIFEST
    from curation.runner.imports import importing
    from curation.sources import list_videos
    from reprise.storage import Storage

    videos = list_videos.list_videos(source, progress=lambda line: err.print(escape(line), soft_wrap=True))
    err.print(escape(list_videos.summary(videos)), soft_wrap=True)
    dataset = Storage.at(output)
    with contextlib.ExitStack() as stack:
        started: Started | None = None
        # Of a finished dataset it is not known yet whether there is anything to do.
        if not dataset.is_file(MANIFEST):
            with importing():
                from reprise.ray_session import starting

            started = stack.enter_context(starting(config))
        with importing():
            from curation.runner.curate import curate  # takes a second, which Ray takes to start, too

        bar = Bar(config.engine.progress)
        outcome = curate(videos, dataset, config, overwrite=overwrite, progress=bar, started=started)
    if outcome.nothing_to_do:
        out.print("nothing to do: the dataset is finished and has no new videos\n")
    summary(outcome.manifest)
    if _nothing(outcome.manifest):
        reasons = outcome.manifest["reasons"]
        reason = next(iter({**reasons["video"], **reasons["clip"]}), "none recorded")
        err.print(
            f"[bold red]no video could be used[/]; most frequent reason: {escape(reason)}", soft_wrap=True
        )
    out.print(f"shards   {escape(dataset.join('data'))}", soft_wrap=True)
    out.print(f"report   {escape(dataset.join('report/index.html'))}", soft_wrap=True)
    return outcome


def _nothing(manifest: dict[str, Any]) -> bool:
    return bool(manifest["clips"]["in"] == 0 or manifest["videos"]["failed"] == manifest["videos"]["in"])


def show(config: CurationConfig) -> None:
    """Print a config with every key, and the operators that it makes."""
    from curation.runner.graph import describe

    click.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip())
    click.echo("\n# graph")
    for line in describe(config):
        click.echo(f"#   {line}")


if __name__ == "__main__":
    main()
