"""reprise demo: make demo videos with known truth and curate them, or curate a folder of your videos."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.markup import escape

from curation.config import load_config
from curation.demo import render_demo
from pipelines.console import err, handle_errors, out
from pipelines.curate import run_curation


@click.command()
@click.option("--input", "source", help="Your own videos. Default: make demo videos.")
@click.option("--output", default="demo/dataset", show_default=True, help="Folder of the dataset.")
@click.option("--videos", default=12, show_default=True, help="Number of demo videos.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@handle_errors
def main(source: str | None, output: str, videos: int, overrides: tuple[str, ...]) -> None:
    """Curate demo videos, or a folder of your own videos, on this machine."""
    started = time.monotonic()
    truth: Path | None = None
    if source is None:
        folder = Path(output).parent / "videos"
        if not list(folder.glob("*.mp4")):
            err.print(f"making {videos} demo videos in {escape(str(folder))}")
            render_demo(folder, videos=videos)
        source, truth = str(folder), folder / "truth"
    run_curation(source, output, load_config(None, overrides))
    if truth is not None:
        compare = f"python -m benchmarks.truth {output} {truth}"
        out.print(f"truth    {escape(str(truth))}  (compare: {escape(compare)})", soft_wrap=True)
    out.print(f"done in {time.monotonic() - started:.0f} s; open the report in a browser")


if __name__ == "__main__":
    main()
