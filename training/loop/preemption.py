"""Notices that this process is about to be taken away: SIGTERM, and Ray's drains of nodes."""

from __future__ import annotations

import signal
import threading
from types import FrameType

#: Set by SIGTERM once `listen` was called.
stop_requested = threading.Event()


class Preempted(Exception):
    """The run was told to go and has saved itself; started again, it goes on from there."""


def install_handler() -> None:
    """Turn SIGTERM into a request to save and stop. Works in the main thread alone, as Python has it."""
    stop_requested.clear()
    signal.signal(signal.SIGTERM, _request_stop)


def _request_stop(number: int, frame: FrameType | None) -> None:
    stop_requested.set()
