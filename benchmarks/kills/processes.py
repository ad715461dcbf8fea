"""A command as a process tree that can be killed anywhere: its driver, one of its workers, or its raylet."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.machine import list_process_family

VICTIMS = ("driver", "worker", "raylet")
_POLL_S = 0.02


class CommandRun:
    """A command that runs in its own process group, with its output in a log file."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [*command],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self._seen: set[int] = set()

    def is_running(self) -> bool:
        """Return whether the driver still runs."""
        return self._process.poll() is None

    def wait_until(self, seconds: float) -> bool:
        """Wait `seconds`, or until the driver ends; return whether it still runs."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.is_running():
            self._list_descendants()
            time.sleep(_POLL_S)
        return self.is_running()

    def wait_for_end(self, limit_s: float) -> int | None:
        """Return the exit status; None: the driver still runs after `limit_s` seconds."""
        return None if self.wait_until(limit_s) else self._process.returncode

    def kill_victim(self, victim: str, draw: random.Random) -> bool:
        """Send SIGKILL to one of `VICTIMS`; return False if there is no such process now."""
        if victim == "driver":
            self._list_descendants()
            self._process.kill()
            self._process.wait()
            return True
        prefix = b"ray::" if victim == "worker" else b"/raylet"
        found = [pid for pid in self._list_descendants() if _is_process(pid, prefix)]
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(draw.choice(sorted(found)), signal.SIGKILL)
        return True

    def end_tree(self, grace_s: float = 5) -> None:
        """End the driver and all remaining processes that it started."""
        if self.is_running():
            self._list_descendants()
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and any(map(_is_ray, self._seen)):
            time.sleep(_POLL_S)
        for pid in filter(_is_ray, self._seen):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _list_descendants(self) -> set[int]:
        found = set(list_process_family(self._process.pid)) - {self._process.pid}
        self._seen |= found
        return found


def _read_command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _is_ray(pid: int) -> bool:
    """Return whether the process is one of Ray's, and not a new one with the same id."""
    return b"ray" in _read_command_line(pid)


def _is_process(pid: int, mark: bytes) -> bool:
    line = _read_command_line(pid)
    return line.startswith(mark) or mark in line.partition(b"\0")[0]
