"""reprise curate: a folder of videos -> a curated subject-to-video dataset."""

from __future__ import annotations

import sys

import click
import yaml
from rich.markup import escape

from curation.config import CurationConfig, load_config
from curation.graph import describe
from curation.run import Outcome, curate
from curation.sources import list_videos, summary as summary_of_videos
from curation.storage import Storage
from pipelines.console import NOTHING, Bar, door, err, out, summary


@click.command()
@click.option("--input", "source", required=True, help="Folder, glob, video, or CSV/JSONL/Parquet manifest; local or s3://.")
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
    config = load_config(path, overrides)
    if dry_run:
        show(config)
        return
    outcome = run(source, output, config, overwrite=overwrite)
    if outcome.manifest["clips"]["in"] == 0:
        sys.exit(NOTHING)


def run(source: str, output: str, config: CurationConfig, *, overwrite: bool = False) -> Outcome:
    """List, curate, and print what came of it."""
    videos = list_videos(source)
    err.print(escape(summary_of_videos(videos)))
    dataset = Storage.at(output)
    outcome = curate(
        videos, dataset, config, overwrite=overwrite, progress=Bar(config.engine.progress)
    )
    if outcome.nothing_to_do:
        out.print("nothing to do: the dataset is finished and has no new videos\n")
    summary(outcome.manifest)
    if outcome.manifest["clips"]["in"] == 0:
        reason = next(iter(outcome.manifest["reasons"]["video"]), "no reason recorded")
        err.print(f"[bold red]no clip was made[/] the most frequent reason: {escape(reason)}", soft_wrap=True)
    out.print(f"shards   {escape(dataset.join('data'))}", soft_wrap=True)
    out.print(f"report   {escape(dataset.join('report/index.html'))}", soft_wrap=True)
    return outcome


def show(config: CurationConfig) -> None:
    click.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip())
    click.echo("\n# graph")
    for line in describe(config):
        click.echo(f"#   {line}")


if __name__ == "__main__":
    main()
