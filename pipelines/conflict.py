"""reprise conflict: plot the gradient conflict of a run."""

from __future__ import annotations

import click
from rich.markup import escape

from pipelines.console import handle_errors, out


@click.command()
@click.argument("run")
@click.option("--output", default="conflict.png", show_default=True, help="PNG to write; local or s3://.")
@handle_errors
def main(run: str, output: str) -> None:
    """Plot the cosine and the norms of the gradients of two tasks over the steps of a run.

    RUN is a folder that `reprise train` wrote with conflict.every set.
    """
    from reprise.errors import InputError
    from reprise.storage import Storage, locate_file
    from training.callbacks.metrics_file import METRICS_FILE, read_metrics
    from training.gradient_conflict.plot import plot_conflict

    folder = Storage.from_uri(run)
    if not folder.exists(METRICS_FILE):
        raise InputError(f"no {METRICS_FILE} in {folder.uri}: name the folder of a run")
    picture, name = locate_file(output)
    picture.write_bytes(name, plot_conflict(list(read_metrics(folder))))
    out.print(f"conflict    {escape(output)}", soft_wrap=True)


if __name__ == "__main__":
    main()
