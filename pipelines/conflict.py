"""reprise conflict: the picture of a run's gradient conflict."""

from __future__ import annotations

import click

from pipelines.console import handle_errors, out


@click.command()
@click.argument("run")
@click.option("--output", default="conflict.png", show_default=True, help="PNG to write.")
@handle_errors
def main(run: str, output: str) -> None:
    """Plot cosine and norms of two tasks' gradients over the steps of RUN, a folder of `reprise train`.

    The run must have been trained with conflict.every set.
    """
    import json
    from pathlib import Path

    from reprise.errors import RepriseError
    from reprise.storage import Storage
    from training.gradient_conflict.plot import plot_conflict

    folder = Storage.from_uri(run)
    if not folder.exists("metrics.jsonl"):
        raise RepriseError(f"no metrics.jsonl in {folder.uri}: name the folder of a run")
    lines = folder.read_bytes("metrics.jsonl").decode("utf-8", "replace").splitlines()
    records = [json.loads(line) for line in lines if line.endswith("}")]
    Path(output).write_bytes(plot_conflict(records))
    out.print(f"conflict    {output}")


if __name__ == "__main__":
    main()
