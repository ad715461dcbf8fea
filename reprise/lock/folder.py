"""Lock a folder, wherever it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from reprise.lock.lease import S3Lease
from reprise.lock.local import LocalLock
from reprise.storage import Storage


class FolderLock(Protocol):
    """A lock that a process holds."""

    def acquire(self) -> None:
        """Take the lock without waiting.

        Raises:
            StorageError: another process has it.
        """
        ...

    def check_held(self) -> None:
        """Check that no other process has the lock now.

        Raises:
            StorageError: the lock was lost.
        """
        ...

    @property
    def is_lost(self) -> bool:
        """Whether another process may have the lock now."""
        ...

    def release(self) -> None:
        """Give the lock back."""
        ...


@contextlib.contextmanager
def lock_folder(folder: Storage, *, create: bool = False, shared: bool = False) -> Iterator[FolderLock]:
    """Hold the lock of a folder. Whatever writes into it does so within.

    Args:
        folder: What to lock.
        create: Make a local folder that does not exist; a folder that does not exist cannot be locked.
        shared: Only read: others may read at the same time, and nobody may write.

    Raises:
        StorageError: Another run is writing there, or is reading what this one wants to write; the message
            names it. Or the lock was lost on the way.
    """
    local = folder.get_local_path()
    if local is not None and create:
        with contextlib.suppress(OSError):  # the first write reports it better
            local.mkdir(parents=True, exist_ok=True)
    lock: FolderLock = S3Lease(folder, shared=shared) if local is None else LocalLock(local, shared=shared)
    lock.acquire()
    try:
        yield lock
    except KeyboardInterrupt:
        lock.check_held()  # a lost lease ends the run by such an interrupt
        raise
    finally:
        lock.release()
