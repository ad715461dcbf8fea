"""One lock for every folder that a command writes: a dataset, latents, a run.

    with lock_folder(folder, create=True) as lock:
        ...
        lock.check_held()  # before the step that makes a result visible

One process writes, or any number read. On a disk the lock is a `flock` of the folder, which ends with its
process. On S3 it is a lease: an object that is written with conditional requests, renewed while the process
lives, and free once it was not renewed for `lease.EXPIRY_S` seconds.
"""

from reprise.lock.folder import FolderLock, lock_folder

__all__ = ["FolderLock", "lock_folder"]
