"""SIGTERM: save a checkpoint and stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType

#: Set by SIGTERM once `install_handler` was called.
stop_requested = threading.Event()


class Preempted(Exception):
    """The run was stopped by SIGTERM and has saved a checkpoint; started again, it resumes from there."""


def install_handler() -> None:
    """Install a SIGTERM handler that requests to save and stop; call it in the main thread."""
    stop_requested.clear()
    signal.signal(signal.SIGTERM, _request_stop)


def _request_stop(number: int, frame: FrameType | None) -> None:
    stop_requested.set()
