"""reprise curate: a folder of videos -> a curated subject-to-video dataset."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from pipelines.console import (
    EXIT_NOTHING_DONE,
    ProgressBar,
    err,
    handle_errors,
    out,
    print_config,
    print_summary,
)

if TYPE_CHECKING:
    from curation.config import CurationConfig
    from curation.runner.curate import CurationOutcome


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
@handle_errors
def main(
    source: str, output: str, path: str | None, dry_run: bool, overwrite: bool, overrides: tuple[str, ...]
) -> None:
    """Curate videos into Parquet shards with a report. To resume after an interruption, run it again.

    KEY=VALUE overrides the config, for example slice.max_length=6 filter.sharpness_min=60.
    """
    # Imports take seconds. Inside the command, Ctrl-C during an import is handled.
    from curation.config import load_config

    config = load_config(path, overrides)
    if dry_run:
        print_dry_run(config)
        return
    outcome = run_curation(source, output, config, overwrite=overwrite)
    if _has_no_usable_video(outcome.manifest):
        sys.exit(EXIT_NOTHING_DONE)


def run_curation(
    source: str, output: str, config: CurationConfig, *, overwrite: bool = False
) -> CurationOutcome:
    """List the videos, curate them, and print the result.

    Raises:
        RepriseError: the source, the config or the dataset cannot be used.
    """
    from curation.dataset.layout import DATA_FOLDER, REPORT_PAGE
    from curation.report.advice import suggest_models
    from curation.runner.curate import curate_videos
    from curation.sources import list_videos
    from reprise.file_records import describe_damage
    from reprise.storage import Storage

    videos = list_videos.list_videos(source, on_message=lambda line: err.print(escape(line), soft_wrap=True))
    err.print(escape(list_videos.summarize_videos(videos)), soft_wrap=True)
    dataset = Storage.from_uri(output)
    bar = ProgressBar(config.engine.progress)
    outcome = curate_videos(videos, dataset, config, overwrite=overwrite, progress=bar)
    if outcome.nothing_to_do:
        out.print("nothing to do: the dataset is finished and has no new videos\n")
    if outcome.damage:
        err.print(f"files were damaged and are made again: {escape(describe_damage(outcome.damage))}")
    print_summary(outcome.manifest)
    if _has_no_usable_video(outcome.manifest):
        reasons = outcome.manifest["reasons"]
        reason = next(iter({**reasons["video"], **reasons["clip"]}), "none recorded")
        err.print(
            f"[bold red]no video could be used[/]; most frequent reason: {escape(reason)}", soft_wrap=True
        )
    advice = suggest_models(outcome.manifest, shlex.quote(source), shlex.quote(f"{output.rstrip('/')}-small"))
    if advice is not None:
        out.print(f"[bold]advice[/]   {escape(advice)}", soft_wrap=True)
    out.print(f"shards   {escape(dataset.join_path(DATA_FOLDER))}", soft_wrap=True)
    out.print(f"report   {escape(dataset.join_path(REPORT_PAGE))}", soft_wrap=True)
    return outcome


def _has_no_usable_video(manifest: dict[str, Any]) -> bool:
    return bool(manifest["clips"]["in"] == 0 or manifest["videos"]["failed"] == manifest["videos"]["in"])


def print_dry_run(config: CurationConfig) -> None:
    """Print a config with every key, the operators of its graph, and the models that it needs."""
    from curation.models.readiness import describe_models
    from curation.runner.graph import describe_graph

    print_config(config)
    click.echo("\n# graph")
    for line in describe_graph(config):
        click.echo(f"#   {line}")
    click.echo("\n# models")
    for line in describe_models(config):
        click.echo(f"#   {line}")


if __name__ == "__main__":
    main()
