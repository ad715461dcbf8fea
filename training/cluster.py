"""A Ray to run on: the one that is there, the one at an address, or one of our own on this machine.

Curation has a start of its own, which needs more (scratch folders, a bounded object store, a start while
imports go on). The halves never import each other, and what they share here is too little for a third room.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from reprise.errors import RepriseError


@contextlib.contextmanager
def connect_ray(address: str | None, *, cpus: float | None = None) -> Iterator[bool]:
    """Connect to the cluster at `address` or RAY_ADDRESS, or start Ray here and stop it afterwards.

    Yields whether it was started here.

    cpus: that a Ray started here shall have, at least: workers are processes, and may outnumber the cores.

    Raises:
        RepriseError: no cluster at that address, or Ray does not start.
    """
    import ray

    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    # Ray's own words are for its developers; what is wrong with an item comes with its outcome.
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        settings["include_dashboard"] = False
        if cpus is not None:
            settings["num_cpus"] = max(os.cpu_count() or 1, int(-(-cpus // 1)))
    previous_handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, **settings)
    except Exception as error:
        ray.shutdown()
        message = next(iter(str(error).strip().splitlines()), type(error).__name__)
        where = "does not start on this machine" if address == "local" else f"does not answer at {address}"
        raise RepriseError(f"Ray {where}: {message}") from error
    try:
        if threading.current_thread() is threading.main_thread() and previous_handler is not None:
            signal.signal(signal.SIGTERM, previous_handler)  # Ray answers it with a stack trace and an abort
        yield address == "local"
    finally:
        ray.shutdown()
