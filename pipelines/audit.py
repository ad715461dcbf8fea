"""reprise audit: a person judges the decisions of the filters on a local page."""

from __future__ import annotations

import getpass
import os
import sys
import threading
import webbrowser

import click
from rich.markup import escape
from rich.table import Table

from curation.audit import Audit, AuditSummary, create_server, open_audit
from curation.audit.server import HOST
from curation.audit.statistics import KALEIDO_ACCURACY, AgreementRow, get_row_title
from pipelines.console import EXIT_NOTHING_DONE, err, handle_errors, out
from reprise.storage import Storage


@click.command()
@click.option("--dataset", required=True, help="A finished dataset; local or s3://.")
@click.option(
    "--n",
    type=click.IntRange(2, 100_000),
    default=200,
    show_default=True,
    help="Subjects to draw: half kept, half rejected.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the random draw.")
@click.option(
    "--judge", help="Name of the judge. Several judges can judge the same draw.  [default: the login name]"
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of the page. Default: 0, any free port."
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--summary", is_flag=True, help="Only print the figures of the judgements so far.")
@handle_errors
def main(
    dataset: str, n: int, seed: int, judge: str | None, port: int, no_browser: bool, summary: bool
) -> None:
    """Judge sampled subjects in a browser and print the accuracy of the filters, as in Kaleido A.1."""
    audit = open_audit(Storage.from_uri(dataset), n=n, seed=seed, judge=judge or _get_login_name())
    if audit.judgements.damaged:
        err.print(f"{audit.judgements.damaged} damaged lines of judgements were skipped")
    if not summary:
        _serve_page(audit, port, no_browser)
    found = audit.build_summary()
    print_figures(found)
    if summary and not found.subjects:
        sys.exit(EXIT_NOTHING_DONE)


def _serve_page(audit: Audit, port: int, no_browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    server = create_server(audit, port)
    address = f"http://{HOST}:{server.server_address[1]}/"
    items = audit.get_state()["items"]
    done = sum(item["done"] for item in items)
    out.print(f"audit    {address}", soft_wrap=True)
    out.print(f"judge    {escape(audit.judgements.judge)}, {done} of {len(items)} subjects judged")
    out.print(f"answers  {escape(audit.storage.join_path(audit.judgements.path))}", soft_wrap=True)
    out.print(
        "Ctrl-C stops the server and prints the figures. Run the same command again to go on.", soft_wrap=True
    )
    if not no_browser and _has_screen():
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        out.print()
    finally:
        server.server_close()


def print_figures(summary: AuditSummary) -> None:
    """Print the agreement with each filter, and estimates for the whole dataset."""
    out.print(f"{summary.subjects} of {summary.drawn} drawn subjects judged")
    if not summary.subjects:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("filter")
    for column in ("judged", "agreed", "accuracy", "95 % CI", "can't tell"):
        table.add_column(column, justify="right")
    sections = (("kept", summary.kept), ("rejected for", summary.rejected), ("generated", summary.generated))
    for title, rows in sections:
        if rows:
            table.add_row(f"[bold]{title}[/]")
        for row in rows:
            table.add_row(*_format_row(row))
    out.print(table)
    if any(row.name in KALEIDO_ACCURACY for row in summary.kept):
        out.print("Kaleido A.1 reports for its own data: category above 92 %, faces above 95 %")
    out.print()
    estimates = Table(box=None, pad_edge=False)
    estimates.add_column("whole dataset, weighted")
    for column in ("judged", "share", "95 % CI"):
        estimates.add_column(column, justify="right")
    for each in summary.dataset:
        if each.share is not None:
            estimates.add_row(
                each.name,
                str(each.judged),
                _format_percent(each.share),
                _format_interval(each.low, each.high),
            )
    out.print(estimates)
    if summary.uncovered:
        out.print(
            f"{summary.uncovered} subjects are not in these shares: the reasons for their rejection are not "
            "judged yet",
            soft_wrap=True,
        )
    for kappa in summary.kappas:
        value = "not defined" if kappa.kappa is None else f"{kappa.kappa:.2f}"
        who = escape(" and ".join(kappa.judges))
        out.print(f"{who} agree on {kappa.agreed} of {kappa.answers} answers, Cohen's kappa {value}")


def _format_row(row: AgreementRow) -> list[str]:
    share = "" if row.accuracy is None else _format_percent(row.accuracy)
    interval = _format_interval(*row.interval) if row.judged else ""
    unsure = str(row.unsure) if row.unsure else ""
    return [f"  {escape(get_row_title(row))}", str(row.judged), str(row.agreed), share, interval, unsure]


def _format_percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _format_interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _get_login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user database
        return "judge"


def _has_screen() -> bool:
    """Check that a browser can open a window. Without a screen, a text browser would take the terminal."""
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


if __name__ == "__main__":
    main()
