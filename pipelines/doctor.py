"""reprise doctor: what this machine has, and which model profile it can run."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from curation.doctor import MachineSection, check_machine, list_gaps_by_profile
from pipelines.console import EXIT_NOTHING_DONE, out


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(as_json: bool) -> None:
    """Show what this machine has and which profiles it can run; exit 1 if it cannot run `classical`."""
    sections = check_machine()
    missing = [each for section in sections for each in section.missing]
    gaps = {profile: [*missing, *lacking] for profile, lacking in list_gaps_by_profile(sections).items()}
    if as_json:
        found = {section.name: section.facts for section in sections}
        profiles = {name: not lacking for name, lacking in gaps.items()}
        report = {**found, "profiles": profiles, "missing": missing, "gaps": gaps}
        click.echo(json.dumps(report, indent=1))
    else:
        print_sections(sections, missing, gaps)
    if missing:
        sys.exit(EXIT_NOTHING_DONE)


def print_sections(sections: list[MachineSection], missing: list[str], gaps: dict[str, list[str]]) -> None:
    """Print the facts, what is missing, and one line for each profile."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for section in sections:
        for row, (key, value) in enumerate(section.facts.items()):
            table.add_row("" if row else section.name, key.replace("_", " "), escape(_format_value(value)))
    out.print(table)
    out.print()
    for each in missing:
        out.print(f"[bold red]missing[/] {escape(each)}", soft_wrap=True)
    for name, lacking in gaps.items():
        runs = "[green]yes[/]" if not lacking else "[bold red]no[/]"
        reason = f", lacks {escape('; '.join(lacking))}" if lacking and not missing else ""
        out.print(f"[bold]profile[/]  {name}: {runs}{reason}", soft_wrap=True)


def _format_value(value: Any) -> str:
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format_value(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(_format_value(each) for each in value)
    return str(value)


if __name__ == "__main__":
    main()
