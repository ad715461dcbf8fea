"""Results of Ray tasks, with errors that a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from reprise.errors import RepriseError


def get_results(references: Sequence[Any], activity: str) -> list[Any]:
    """Wait for tasks.

    Args:
        references: Object references of the tasks.
        activity: What they do, for the message of an error.

    Raises:
        RepriseError: A task raised it, or workers died again and again.
    """
    try:
        return list(ray.get(list(references)))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, RepriseError) else None
        raise cause or error from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise RepriseError(
            f"workers died again and again while {activity}, perhaps for want of memory: run the same "
            "command again to go on"
        ) from error
