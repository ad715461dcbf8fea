"""reprise refilter: apply other thresholds to a finished dataset, without a model."""

from __future__ import annotations

import click
from rich.markup import escape

from curation.dataset.layout import REPORT_PAGE
from curation.runner.refilter import RefilterChanges, refilter_dataset
from pipelines.console import handle_errors, out
from reprise.storage import Storage


@click.command()
@click.option("--dataset", required=True, help="A finished dataset; local or s3://.")
@click.option("--dry-run", is_flag=True, help="Only print what would change.")
@click.option(
    "--references", is_flag=True, help="Also make the inpaint and redux references that are missing."
)
@click.argument("overrides", nargs=-1, metavar="filter.KEY=VALUE...")
@handle_errors
def main(dataset: str, dry_run: bool, references: bool, overrides: tuple[str, ...]) -> None:
    """Compare the stored scores with new thresholds, print what changes, and apply it.

    Example: reprise refilter --dataset O filter.sharpness_min=80 filter.face_count_min=null
    """
    storage = Storage.from_uri(dataset)
    changes, _ = refilter_dataset(storage, overrides, apply=not dry_run, references=references)
    print_changes(changes)
    if dry_run:
        out.print("nothing was written (--dry-run)")
        return
    out.print(f"report   {escape(storage.join_path(REPORT_PAGE))}", soft_wrap=True)


def print_changes(changes: RefilterChanges) -> None:
    """Print how many verdicts change, one line per reason."""
    lines = [
        f"subjects kept {changes.kept_before} -> {changes.kept_after}, "
        f"clips kept {changes.clips_before} -> {changes.clips_after}"
    ]
    lines += [f"  + {n:>5} no longer rejected by {reason}" for reason, n in changes.newly_kept.most_common()]
    lines += [f"  - {n:>5} now rejected by {reason}" for reason, n in changes.newly_rejected.most_common()]
    if not changes.has_changes:
        lines.append("  no verdict changes")
    lines += [
        f"  - {n:>5} references now rejected by {reason}" for reason, n in changes.dropped.most_common()
    ]
    if changes.regained:
        lines.append(f"  + {changes.regained:>5} references no longer rejected")
    for name, n in changes.unmeasured.most_common():
        lines.append(f"  ? {n:>5} never measured for {name}, which therefore does not reject them")
    for variant, n in changes.lacking.most_common():
        lines.append(f"  ! {n:>5} kept without a reference {variant}: make it with --references")
    for line in lines:
        out.print(escape(line), soft_wrap=True)


if __name__ == "__main__":
    main()
