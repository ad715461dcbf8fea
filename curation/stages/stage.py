"""What a stage is, and how it runs on rows: an exception fails only the row that causes it."""

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
    """A step over clips. Building one is cheap; models are loaded at the first call and kept."""

    name: str

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Change live rows in place; no row is added or dropped."""
        ...


def run_stage(stage: Stage, rows: list[ClipRow], seconds: dict[str, float]) -> list[ClipRow]:
    """Run a stage over a batch and add its time to `seconds`. Stopped rows stay as they are.

    If the batch fails, its rows are tried one by one, and only those that fail alone are marked `failed`.

    Raises:
        RepriseError: the config works for no row: a package or a file that a backend needs is missing.
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
    """Work on copies, so that a failure leaves no half-changed row behind. Bytes are shared, not copied."""
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
