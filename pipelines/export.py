"""reprise export: a dataset in the layout that another trainer reads."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from pipelines.console import EXIT_NOTHING_DONE, ProgressBar, err, handle_errors, out, print_config

if TYPE_CHECKING:
    from curation.export.export import ExportAccount
    from curation.export.target import ExportTarget
    from reprise.storage import Storage


@click.command()
@click.option("--dataset", help="A finished dataset; local or s3://.")
@click.option("--to", "target", required=True, help="The trainer; `reprise export --to list` prints all.")
@click.option(
    "--output", help="Folder of the export; local, or s3:// where the trainer reads relative paths."
)
@click.option("--config", "path", type=click.Path(), help="YAML; `reprise config export` prints every key.")
@click.option("--where", help='Condition on clips in SQL, such as "width >= 720".')
@click.option("--where-subject", help="Condition on subjects in SQL, such as \"category = 'dog'\".")
@click.option("--validation", type=float, help="Share of source videos that are kept apart.")
@click.option("--dry-run", is_flag=True, help="Count what would go and what would stay, and stop.")
@click.option("--check", is_flag=True, help="Check an export in --output by the rules of its trainer.")
@click.option("--overwrite", is_flag=True, help="Replace an export of other settings.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@handle_errors
def main(
    dataset: str | None,
    target: str,
    output: str | None,
    path: str | None,
    where: str | None,
    where_subject: str | None,
    validation: float | None,
    dry_run: bool,
    check: bool,
    overwrite: bool,
    overrides: tuple[str, ...],
) -> None:
    """Write a dataset as another trainer reads it. Run it again to go on.

    KEY=VALUE overrides the config, for example references.per_subject=2 video.max_area=400000.
    """
    from curation.export.build import TARGETS, build_target
    from curation.export.config import ExportConfig
    from curation.export.export import export_dataset, plan_job
    from curation.export.folder import check_finished
    from curation.export.write import ExportJob
    from curation.runner.export_units import execute_units
    from reprise.errors import InputError
    from reprise.settings import load_settings
    from reprise.storage import Storage

    if target == "list":
        print_targets([build_target(name) for name in TARGETS])
        return
    chosen = build_target(target)
    if output is None:
        raise InputError("name the folder of the export: --output")
    place = Storage.from_uri(output)
    if check:
        check_finished(place, chosen.name)
        print_problems(list(chosen.check_export(place)), place)
        return
    if dataset is None:
        raise InputError("name the dataset: --dataset")
    named = {"where": where, "where_subject": where_subject, "validation": validation}
    options = (f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None)
    config = load_settings(ExportConfig, path, (*overrides, *options))
    job = ExportJob(Storage.from_uri(dataset), place, chosen, config)
    if dry_run:
        _, plan = plan_job(job)
        print_config(config)
        print_counts(plan.clips_in, plan.count_splits(), dict(plan.count_reasons().most_common()))
        if not plan.units:
            sys.exit(EXIT_NOTHING_DONE)
        return
    account = export_dataset(
        job, execute_units, overwrite=overwrite, progress=ProgressBar(config.engine.progress)
    )
    print_account(account, place)


def print_targets(targets: list[ExportTarget]) -> None:
    """Print all targets and what each can hold."""
    table = Table(box=None, pad_edge=False)
    for column in ("target", "trainer", "references", "also holds"):
        table.add_column(column)
    for target in targets:
        holds = target.holds
        kinds = {"masks": holds.masks, "boxes": holds.boxes, "licences": holds.licenses}
        table.add_row(
            target.name, target.title, holds.references, ", ".join(kind for kind, has in kinds.items() if has)
        )
    out.print(table)


def print_counts(clips_in: int, exported: dict[str, int], left_out: dict[str, int]) -> None:
    """Print how many clips go and why the others do not."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column()
    for split, count in exported.items():
        if count or split == "train":
            table.add_row(str(count), split)
    for reason, count in left_out.items():
        table.add_row(str(count), f"left out: {escape(reason)}")
    out.print(table)
    total = sum(exported.values())
    out.print(f"{clips_in} clips = {total} exported + {sum(left_out.values())} left out")


def print_account(account: ExportAccount, place: Storage) -> None:
    """Print what became of the clips, and how the trainer starts on the data."""
    if account.was_finished:
        err.print("nothing to do: this export is finished")
    print_counts(account.clips_in, account.exported, account.left_out)
    for command in account.commands:
        click.echo(f"  {command}")  # with absolute paths: the trainer runs in another folder
    out.print(f"each one    {escape(place.join_path('export.json'))}", soft_wrap=True)


def print_problems(problems: list[str], place: Storage) -> None:
    """Print what a trainer's loader would refuse, drop or change; exit with 1 where there is anything."""
    for problem in problems:
        out.print(escape(problem), soft_wrap=True)
    if problems:
        err.print(f"[bold red]{len(problems)} problems[/] in {escape(place.uri)}", soft_wrap=True)
        sys.exit(EXIT_NOTHING_DONE)
    out.print(f"no problem in {escape(place.uri)}", soft_wrap=True)


if __name__ == "__main__":
    main()
