"""`metrics.jsonl`: every number of a run, one line of JSON a record. The curves are drawn from it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from reprise.storage import Storage
from training.callbacks.log import Scalars

if TYPE_CHECKING:
    from training.loop.state import RunState

METRICS_FILE = "metrics.jsonl"
# Objects on S3 cannot be appended to: the file is uploaded again, at most this often.
REMOTE_EVERY_S = 30.0


class MetricsFile:
    """Appends; a resumed run removes the records of steps that it repeats."""

    def __init__(self) -> None:
        self._folder: Storage | None = None
        self._file: IO[str] | None = None  # on a disk
        self._lines: list[str] = []  # on S3: all of them
        self._last_upload = 0.0

    def start(self, state: RunState) -> None:
        """See `MetricsWriter.start`."""
        self.open_file(state.folder.root, state.step)

    def open_file(self, folder: Storage, step: int) -> None:
        """Start after `step`; later records come from an interrupted run and are removed."""
        self._folder = folder
        self._lines = [json.dumps(record) + "\n" for record in read_metrics(folder) if record["step"] <= step]
        folder.write_bytes(METRICS_FILE, "".join(self._lines).encode())
        if not folder.is_remote:
            self._lines.clear()
            self._file = Path(folder.join_path(METRICS_FILE)).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def write(self, step: int, scalars: Scalars) -> None:
        """See `MetricsWriter.write`."""
        record: dict[str, Any] = {"step": step, "time": round(time.time(), 3)}
        for name, value in scalars.items():
            record[name] = float(f"{value:.7g}") if math.isfinite(value) else None
        line = json.dumps(record) + "\n"
        if self._file is not None:
            self._file.write(line)
            return
        self._lines.append(line)
        if time.monotonic() - self._last_upload > REMOTE_EVERY_S:
            self._upload_file()

    def close(self) -> None:
        """See `MetricsWriter.close`."""
        if self._file is not None:
            self._file.close()
        elif self._folder is not None:
            self._upload_file()

    def _upload_file(self) -> None:
        if self._folder is not None:
            self._folder.write_bytes(METRICS_FILE, "".join(self._lines).encode())
            self._last_upload = time.monotonic()


def read_metrics(folder: Storage) -> Iterator[dict[str, Any]]:
    """Yield the records of a run, in order; a line that a crash truncated is left out."""
    if not folder.exists(METRICS_FILE):
        return
    for line in folder.read_bytes(METRICS_FILE).decode("utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record
