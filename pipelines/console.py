"""What the commands share: errors in one line, a progress bar, the summary of a dataset."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from reprise.errors import RepriseError, StoppedRunError
from reprise.ray_session import EXIT_STOPPED
from reprise.storage.explain import explain_error

P = ParamSpec("P")
T = TypeVar("T")

EXIT_USAGE = 2  # exit status: the input or the config is wrong
EXIT_NOTHING_DONE = 1  # exit status: the command ran, but every item failed or there was none
EXIT_INTERRUPTED = 130
_END_LIMIT_S = 20.0  # from a signal to the end of the command
_STOPPED = "finished work is kept; run the same command again to go on"

# Packages that only some commands import -> the extra that installs them.
_OPTIONAL_PACKAGES = {
    **dict.fromkeys(
        ("torch", "diffusers", "transformers", "peft", "safetensors", "matplotlib", "tensorboard", "ftfy"),
        "train",
    ),
    **dict.fromkeys(("groundingdino", "segment_anything", "open_clip", "insightface"), "pretrained"),
    "duckdb": "export",
    **dict.fromkeys(("onnx", "onnxruntime", "torchvision", "timm", "huggingface_hub"), "pretrained"),
}


class LineConsole(Console):
    """Prints paths inside the working directory relative to it, in all commands."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; see `rich.console.Console.print`."""
        super().print(
            *(shorten_paths(each) if isinstance(each, str) else each for each in objects), **options
        )


def shorten_paths(text: str) -> str:
    """Make the paths in a text relative to the working directory where they lie inside it."""
    here = str(Path.cwd())
    if here == "/":
        return text
    # Not within a longer path or an address, such as s3://bucket/home.
    return re.sub(rf"(?<![\w/.-]){re.escape(here)}/(?=[^\s/])", "", text)


out = LineConsole(highlight=False)
err = LineConsole(stderr=True, highlight=False)


def handle_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a command: print an error that the user can correct in one line, and exit with status 2.

    Such errors are a RepriseError, a missing package of an extra, and a file that cannot be read or written.
    Ctrl-C and SIGTERM print how to resume, and exit with status 130 within seconds, whatever the command
    waits for. A StoppedRunError exits with status 75. Every other exception passes through.
    """

    @functools.wraps(function)
    def run_command(*args: P.args, **kwargs: P.kwargs) -> T:
        logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
        # A scheduler stops a job with SIGTERM. It is handled like Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with _limit_time_after_signal():
                return function(*args, **kwargs)
        except StoppedRunError as error:
            err.print(f"[bold]stopped[/] {escape(str(error))}", soft_wrap=True)
            sys.exit(EXIT_STOPPED)
        except RepriseError as error:
            err.print(f"[bold red]error[/] {escape(str(error))}", soft_wrap=True)
            sys.exit(EXIT_USAGE)
        except ModuleNotFoundError as error:
            extra = _OPTIONAL_PACKAGES.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            message = f"this needs the package {error.name}: pip install 'reprise[{extra}]'"
            err.print(f"[bold red]error[/] {escape(message)}", soft_wrap=True)
            sys.exit(EXIT_USAGE)
        except BrokenPipeError:
            raise
        except OSError as error:
            if not error.filename:
                raise
            message = str(explain_error(error, str(error.filename), writing=True))
            err.print(f"[bold red]error[/] {escape(message)}", soft_wrap=True)
            sys.exit(EXIT_USAGE)
        except KeyboardInterrupt:
            err.print(f"\n[bold]stopped[/]: {_STOPPED}")
            sys.exit(EXIT_INTERRUPTED)

    return run_command


@contextlib.contextmanager
def _limit_time_after_signal() -> Iterator[None]:
    """End the process `_END_LIMIT_S` seconds after SIGINT or SIGTERM, where nothing else has ended it.

    A handler in Python does not run while the main thread waits in a library. The system writes the number of
    the signal to a file descriptor even then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    done = threading.Event()

    def wait_for_signal() -> None:
        with contextlib.suppress(OSError):  # closed
            while number := reader.recv(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    break
            else:
                return
            if not done.wait(_END_LIMIT_S):
                sys.stderr.write(f"\nstopped: {_STOPPED}\n")
                sys.stderr.flush()
                os._exit(EXIT_INTERRUPTED)

    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=wait_for_signal, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        done.set()
        writer.close()


class ProgressBar:
    """A `Progress` on stderr: a bar on a terminal, elsewhere one line for each tenth of the work."""

    def __init__(self, enabled: bool = True) -> None:
        self._progress: Progress | None = None
        self._task: Any = None
        self._name, self._total, self._done = "", 0, 0
        self._enabled = enabled

    def begin(self, task: str, total: int, done: int = 0) -> None:
        """Begin a phase of `total` items; print how many of them an earlier run finished."""
        self._name, self._total, self._done = task, total, done
        if done:
            err.print(f"{task}: {done} of {total} were finished by an earlier run")
        if not self._enabled or not err.is_terminal:
            return
        columns = [
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
        ]
        self._progress = Progress(*columns, console=err)
        self._progress.start()
        self._task = self._progress.add_task(task, total=total, completed=done, note="")

    def advance(self, by: int = 1, note: str | None = None) -> None:
        """Add `by` finished items. The note is shown beside the count."""
        before, self._done = self._count_tenths(), self._done + by
        if self._progress is not None:
            self._progress.advance(self._task, by)
            if note:
                self._progress.update(self._task, note=note)
        elif self._enabled and before < self._count_tenths():
            err.print(f"{self._name}: {self._done} of {self._total}" + (f", {note}" if note else ""))

    def _count_tenths(self) -> int:
        return self._done * 10 // max(1, self._total)

    def end(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def mute_library_bars() -> None:
    """Turn off the bars with which diffusers and transformers show that parts of a model are loaded."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def print_config(config: BaseModel) -> None:
    """Print a config with every key, as YAML that `--config` reads. Credentials in addresses are masked."""
    from reprise.storage import mask_credentials  # it imports Arrow, which starts slowly

    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    click.echo(mask_credentials(text).rstrip())


def print_summary(manifest: dict[str, Any]) -> None:
    """Print the counts of a run: per stage with every reason for a loss, and the references."""
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "unit"):
        table.add_column(column)
    for column in ("in", "out"):
        table.add_column(column, justify="right")
    table.add_column("lost to")
    for step in manifest["funnel"]:
        # A non-breaking space keeps a number and its reason on one line.
        reasons = ", ".join(f"{count}\N{NO-BREAK SPACE}{reason}" for reason, count in step["reasons"].items())
        table.add_row(step["stage"], step["unit"], str(step["in"]), str(step["out"]), escape(reasons))
    out.print(table)
    videos, subjects = manifest["videos"], manifest["subjects"]
    out.print(
        f"\n{videos['in']} videos = {videos['kept']} kept + {videos['rejected']} rejected + "
        f"{videos['failed']} failed;  {manifest['clips']['kept']} clips with {subjects['kept']} subjects kept"
    )
    references = ", ".join(f"{count} {variant}" for variant, count in manifest["references"].items())
    if references:
        out.print(f"references: {references}")
    if missing := explain_missing_crosspairs(manifest):
        out.print(missing, soft_wrap=True)


def explain_missing_crosspairs(manifest: dict[str, Any]) -> str | None:
    """Say why no kept subject has a cross-pair; None where one has, or where none was wanted."""
    kept, share = manifest["subjects"]["kept"], manifest["config"]["crosspair"]["share"]
    if not kept or not share or manifest["references"].get("crosspair"):
        return None
    if manifest["videos"]["in"] < 2:
        return "no crosspair: a subject is put into the scene of another video, and there is only one video"
    return (
        f"no crosspair: of the {kept} kept subjects none was drawn (crosspair.share={share:g}), or no other "
        "video has a usable scene whose caption names other things"
    )
