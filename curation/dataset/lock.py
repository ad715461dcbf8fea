"""The lock of a dataset: one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from reprise.errors import StorageError
from reprise.storage import Storage


class WriteLock(Protocol):
    """An exclusive lock. The system releases it when its process ends or is killed."""

    def acquire(self) -> bool:
        """Take the lock without waiting; False: another process has it."""
        ...

    def release(self) -> None:
        """Give the lock back."""
        ...


class FolderLock:
    """The lock of a local folder, by `flock`. On a file system without locks it always succeeds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Take the lock without waiting; False: another process has it."""
        with contextlib.suppress(OSError):  # the first read or write reports it better
            self._handle = os.open(self._folder, os.O_RDONLY)
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.release()
                return False
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class NoLock:
    """A lock that does nothing, for S3, which has no locks."""

    def acquire(self) -> bool:
        """Succeed."""
        return True

    def release(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def lock_dataset(dataset: Storage, *, create: bool = False) -> Iterator[None]:
    """Hold the lock of a dataset. Every writer of a dataset uses this.

    Args:
        dataset: What to lock.
        create: Make the folder if it does not exist; a folder that does not exist cannot be locked.

    Raises:
        StorageError: Another run is writing this dataset.
    """
    folder = dataset.get_local_path()
    if folder is not None and create:
        with contextlib.suppress(OSError):  # the first write reports it better
            folder.mkdir(parents=True, exist_ok=True)
    lock: WriteLock = NoLock() if folder is None else FolderLock(folder)
    if not lock.acquire():
        raise StorageError(f"another run is writing {dataset.uri}: wait for it or stop it")
    try:
        yield
    finally:
        lock.release()
