"""Follow a training run by the metrics file that its workers write."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

from rich.live import Live
from rich.markup import escape
from rich.text import Text

from pipelines.console import err
from reprise.errors import StorageError
from reprise.storage import Storage
from training.callbacks.console import format_line
from training.callbacks.metrics_file import read_metrics


class RunFollower:
    """Show the newest record of a run's `metrics.jsonl` on stderr: a live line, or plain lines in a log.

    Workers may run on other machines, so their output is not on this terminal. They all write to the folder
    of the run.

    Args:
        folder: the folder of the run.
        steps: the steps of the run, for the share that is done.
        every_s: seconds between two reads; 15 times as long on S3, where each read is a request.
    """

    def __init__(self, folder: Storage, steps: int, every_s: float = 1.0) -> None:
        self._folder, self._steps = folder, steps
        self._every_s = every_s * (15 if folder.is_remote else 1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll_records, daemon=True)
        self._shown: tuple[int, float] = (0, 0.0)
        self._started_s = time.monotonic()
        self._live = Live(get_renderable=self._render_line, console=err) if err.is_terminal else None
        self._line: Text | None = None  # of the newest record; None: no step is done yet

    def __enter__(self) -> RunFollower:
        records = self._read_records()
        if records:  # this run resumes an earlier one
            self._shown = (records[-1]["step"], records[-1].get("time", 0.0))
        if self._live is None:
            err.print("starting: the workers load the model and read the first batch")
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._show_new_records()
        if self._live is not None:
            self._live.stop()

    def _render_line(self) -> Text:
        if self._line is not None:
            return self._line
        seconds = int(time.monotonic() - self._started_s)
        clock = f"{seconds // 60}:{seconds % 60:02d}"
        return Text(f"starting: the workers load the model and read the first batch  {clock}")

    def _poll_records(self) -> None:
        while not self._stop.wait(self._every_s):
            self._show_new_records()

    def _show_new_records(self) -> None:
        for record in self._read_records():
            position = (record["step"], record.get("time", 0.0))
            if position[1] <= self._shown[1]:
                continue
            self._shown = position
            message = format_line(record["step"], self._steps, record)
            if self._live is None:
                err.print(escape(message), soft_wrap=True)
            elif "loss" in record or any(name.startswith("conflict/") for name in record):
                self._line = Text(message)
            else:
                self._live.console.print(escape(message), soft_wrap=True)

    def _read_records(self) -> list[dict[str, Any]]:
        try:
            return list(read_metrics(self._folder))
        except StorageError:  # the next poll may succeed
            return []
