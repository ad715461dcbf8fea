"""What a stage is, and how one bad row costs that row only."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from curation.schema import ClipRow

log = logging.getLogger("reprise")


class Stage(Protocol):
    """A step over clips. Built cheaply; models are loaded at the first call and kept.

    `__call__` takes rows that are still worked on and changes them in place; it never drops or adds one.
    """

    name: str

    def __call__(self, rows: Sequence[ClipRow]) -> None: ...


def stop(
    row: ClipRow, status: str, stage: str, reason: str, value: float | None = None, threshold: float | None = None
) -> None:
    """Mark where and why a row stopped (`rejected`: judged; `failed`: could not be judged) and free its payload."""
    row["status"] = status
    row["stop"] = {"stage": stage, "reason": reason, "value": value, "threshold": threshold}
    for frame in row["frames"]:
        frame["motion"] = None


def is_live(row: ClipRow) -> bool:
    """Whether later stages still work on this row."""
    return row["status"] in ("open", "kept")


def run(stage: Stage, rows: list[ClipRow], seconds: dict[str, float]) -> list[ClipRow]:
    """Run a stage over a batch and add its time to `seconds`. Stopped rows pass through untouched.

    Where the batch fails, its rows are tried one by one, and only those that fail alone are marked `failed`.
    """
    started = time.perf_counter()
    positions = [position for position, row in enumerate(rows) if is_live(row)]
    result = list(rows)
    if positions:
        try:
            _attempt(stage, result, positions)
        except Exception:
            for position in positions:
                try:
                    _attempt(stage, result, [position])
                except Exception as error:
                    log.warning("%s: %s failed: %s", rows[position]["clip_id"], stage.name, error, exc_info=True)
                    words = f"{type(error).__name__}: {error}".split("\n")[0][:300]
                    stop(result[position], "failed", stage.name, words)
    seconds[stage.name] = seconds.get(stage.name, 0.0) + time.perf_counter() - started
    return result


def _attempt(stage: Stage, rows: list[ClipRow], positions: Sequence[int]) -> None:
    """Work on copies, so that a failure leaves no half-changed row behind. Bytes are shared, not copied."""
    copies = [copy.deepcopy(rows[position]) for position in positions]
    stage(copies)
    for position, changed in zip(positions, copies, strict=True):
        rows[position] = changed
