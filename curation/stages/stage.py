"""The interface of a stage, and a function that runs it. An exception fails only the row that causes it."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from curation.rows.lifecycle import is_live, stop_row
from curation.rows.schema import ClipRow
from reprise.errors import RepriseError

log = logging.getLogger(__name__)


class Stage(Protocol):
    """A step of curation over rows. Construction is cheap; the first call loads models and keeps them."""

    name: str

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Change live rows in place. A stage adds and drops no row."""
        ...


def run_stage(stage: Stage, rows: list[ClipRow], seconds: dict[str, float]) -> list[ClipRow]:
    """Run a stage over a batch and add its time to `seconds`. Stopped rows stay as they are.

    If the batch fails, the stage runs on its rows one by one. Only rows that fail again are marked `failed`.

    Raises:
        RepriseError: the stage cannot work on any row, for example because a package or file is missing.
    """
    started = time.perf_counter()
    result = list(rows)
    positions = [position for position, row in enumerate(rows) if is_live(row)]
    # A batch of one row needs no second try to find the row that fails.
    if len(positions) < 2 or _try_batch(stage, result, positions) is not None:
        for position in positions:
            error = _try_batch(stage, result, [position])
            if error is not None:
                result[position] = _mark_failed(rows[position], stage.name, error)
    seconds[stage.name] = seconds.get(stage.name, 0.0) + time.perf_counter() - started
    return result


def _try_batch(stage: Stage, rows: list[ClipRow], positions: Sequence[int]) -> Exception | None:
    """Run a stage on copies, so that a failure leaves no half-changed row. Copies share their bytes."""
    copies = [copy.deepcopy(rows[position]) for position in positions]
    try:
        stage(copies)
    except RepriseError:
        raise
    except Exception as error:
        return error
    for position, changed in zip(positions, copies, strict=True):
        rows[position] = changed
    return None


def _mark_failed(row: ClipRow, stage: str, error: Exception) -> ClipRow:
    log.warning("%s: %s failed: %s", row["clip_id"], stage, error, exc_info=error)
    failed = copy.deepcopy(row)
    stop_row(failed, "failed", stage, " ".join(f"{type(error).__name__}: {error}".split())[:300])
    return failed
