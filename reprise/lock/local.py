"""The lock of a folder on a disk: `flock`, which ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from reprise.errors import StorageError
from reprise.lock.holder import LockHolder
from reprise.storage.storage import LOCK_PREFIX

_RECORD_FILE = f"{LOCK_PREFIX}.json"


class LocalLock:
    """Locks a local folder. On a file system without locks, and on an absent folder, it always succeeds."""

    def __init__(self, folder: Path, *, shared: bool) -> None:
        self._folder, self._shared = folder, shared
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock without waiting.

        Raises:
            StorageError: another process has it.
        """
        with contextlib.suppress(OSError):  # the first read or write reports it better
            self._handle = os.open(self._folder, os.O_RDONLY)
            try:
                fcntl.flock(self._handle, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._handle)
                self._handle = None
                raise StorageError(self._explain_refusal()) from None
            if not self._shared:
                (self._folder / _RECORD_FILE).write_bytes(LockHolder.from_process().encode())

    def check_held(self) -> None:
        """Do nothing: the system keeps this lock as long as the process lives."""

    @property
    def is_lost(self) -> bool:
        """Whether another process may have the lock now: never."""
        return False

    def release(self) -> None:
        """Give the lock back."""
        if self._handle is not None:
            if not self._shared:
                with contextlib.suppress(OSError):
                    (self._folder / _RECORD_FILE).unlink()
            os.close(self._handle)
            self._handle = None

    def _explain_refusal(self) -> str:
        holder = None
        with contextlib.suppress(OSError):
            holder = LockHolder.decode((self._folder / _RECORD_FILE).read_bytes())
        if holder is None or holder.has_ended():  # a record that a killed process left
            verb = "writing" if self._shared else "using"
            return f"another run is {verb} {self._folder}: wait for it or stop it"
        return f"another run is writing {self._folder} ({holder.describe()}): wait for it or stop it"
