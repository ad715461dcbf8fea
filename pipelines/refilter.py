"""reprise refilter: other thresholds for a finished dataset, without running a model."""

from __future__ import annotations

import click
from rich.markup import escape

from curation.refilter import Changes, refilter
from curation.report.build import write_report
from curation.storage import Storage
from pipelines.console import door, out


@click.command()
@click.option("--dataset", required=True, help="A finished dataset; local or s3://.")
@click.option("--dry-run", is_flag=True, help="Only print what would change.")
@click.option(
    "--references", is_flag=True, help="Also make the inpaint and redux references that are missing."
)
@click.argument("overrides", nargs=-1, metavar="filter.KEY=VALUE...")
@door
def main(dataset: str, dry_run: bool, references: bool, overrides: tuple[str, ...]) -> None:
    """Compare the stored numbers with new thresholds and print what changes.

    Example: reprise refilter --dataset O filter.sharpness_min=80 filter.face_count_min=null
    """
    storage = Storage.at(dataset)
    changes, config = refilter(storage, overrides, apply=not dry_run, references=references)
    show(changes)
    if dry_run:
        out.print("nothing was written (--dry-run)")
        return
    write_report(storage, clips_per_page=config.report.clips_per_page, max_clips=config.report.max_clips)
    out.print(f"report   {escape(storage.join('report/index.html'))}", soft_wrap=True)


def show(changes: Changes) -> None:
    out.print(
        f"subjects kept {changes.kept_before} -> {changes.kept_after}, "
        f"clips kept {changes.clips_before} -> {changes.clips_after}"
    )
    for reason, count in changes.newly_kept.most_common():
        out.print(f"  + {count:>5} no longer rejected by {escape(reason)}")
    for reason, count in changes.newly_rejected.most_common():
        out.print(f"  - {count:>5} now rejected by {escape(reason)}")
    if not changes.any:
        out.print("  no verdict changes")
    for name, count in changes.unmeasured.most_common():
        out.print(
            f"  ? {count:>5} were never measured for {escape(name)}, which therefore does not reject them"
        )
    for variant, count in changes.without.most_common():
        out.print(f"  ! {count:>5} kept subjects have no {variant} reference (make them with --references)")


if __name__ == "__main__":
    main()
