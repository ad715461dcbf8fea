"""reprise report: build a dataset's report again."""

from __future__ import annotations

import click
from rich.markup import escape

from curation.report import write_report
from pipelines.console import handle_errors, out
from reprise.lock import lock_folder
from reprise.storage import Storage


@click.command()
@click.option("--dataset", required=True, help="Folder or s3:// prefix that a curation run wrote.")
@click.option("--clips-per-page", type=click.IntRange(1, 200), default=24, show_default=True)
@click.option(
    "--max-clips",
    type=click.IntRange(0),
    default=5000,
    show_default=True,
    help="Clips in the gallery, drawn evenly; 0 shows all. Charts always count every row.",
)
@handle_errors
def report(dataset: str, clips_per_page: int, max_clips: int) -> None:
    """Build DATASET/report/index.html again. The page opens from disk, without a server."""
    storage = Storage.from_uri(dataset)
    with lock_folder(storage):
        page = write_report(storage, clips_per_page=clips_per_page, max_clips=max_clips or None)
    out.print(f"report   {escape(page)}", soft_wrap=True)


if __name__ == "__main__":
    report()
