"""reprise taxonomy: list the subjects that captions may name, check an edited file, try a caption."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from curation.taxonomy import Taxonomy, find_problems
from curation.taxonomy.files import SHIPPED_FILE
from pipelines.console import EXIT_NOTHING_DONE, handle_errors


@click.command()
@click.option("--file", type=click.Path(path_type=Path), help="Your own taxonomy. Default: the shipped one.")
@click.option(
    "--check", is_flag=True, help="Only check the file: one line per problem, non-zero exit if there is any."
)
@click.option("--match", "caption", metavar="CAPTION", help="Show the subjects that this caption names.")
@handle_errors
def taxonomy(file: Path | None, check: bool, caption: str | None) -> None:
    """List the groups and categories of subjects that captions are matched against."""
    if check:
        found = find_problems(file or SHIPPED_FILE)
        for problem in found:
            click.echo(problem, err=True)
        if found:
            sys.exit(EXIT_NOTHING_DONE)
    loaded = Taxonomy.load(file)
    if caption is not None:
        Console().print(_build_mentions(loaded, caption))
    elif check:
        click.echo(_format_summary(loaded))
    else:
        Console().print(_build_overview(loaded))
        click.echo(_format_summary(loaded))


def _format_summary(loaded: Taxonomy) -> str:
    names = sum(len(category.names) for category in loaded.categories.values())
    size = f"{len(loaded.groups)} groups, {len(loaded.categories)} categories, {names} names"
    return f"{size}, revision {loaded.revision}"


def _build_overview(loaded: Taxonomy) -> Table:
    table = Table("group", "categories", "names", "labels")
    for group in loaded.groups:
        members = [category for category in loaded.categories.values() if category.group == group]
        labels = ", ".join(category.name for category in members)
        table.add_row(group, str(len(members)), str(sum(len(each.names) for each in members)), escape(labels))
    return table


def _build_mentions(loaded: Taxonomy, caption: str) -> Table:
    table = Table("phrase", "category", "group", "name", "count", "span")
    for each in loaded.find_mentions(caption):
        count = "-" if each.count is None else str(each.count)
        table.add_row(
            escape(each.phrase), each.category, each.group, each.name, count, f"{each.start}:{each.end}"
        )
    return table


if __name__ == "__main__":
    taxonomy()
