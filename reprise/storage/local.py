"""Files on this machine's disks: listings, atomic replacement, temporary files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import posixpath
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from reprise.digest import compute_digest
from reprise.storage.address import split_uri
from reprise.storage.explain import describe_read_error, explain_error
from reprise.storage.file_info import FileInfo

PARTIAL_PREFIX = ".partial-"


def walk_files(root: Path, depth: int | None = None) -> Iterator[FileInfo]:
    """Every file below a local folder, in no order. A folder that cannot be listed gives one entry.

    Symbolic links are followed. Each folder is entered once, so that a loop ends. An absent root has none.
    """
    seen: set[tuple[int, int]] = set()

    def walk_folder(folder: Path, inside: str, left: int | None) -> Iterator[FileInfo]:
        try:
            where = folder.stat()
            if (where.st_dev, where.st_ino) in seen:
                return
            seen.add((where.st_dev, where.st_ino))
            with os.scandir(folder) as items:
                listed = sorted(items, key=lambda item: item.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield FileInfo(inside.rstrip("/"), -1, 0, describe_read_error(error))
            return
        for item in listed:
            path = inside + item.name
            # A broken link is no folder. `stat_local_file` reports it.
            if _is_folder(item):
                if left is None or left > 1:
                    yield from walk_folder(folder / item.name, path + "/", None if left is None else left - 1)
            else:
                yield stat_local_file(folder / item.name)._replace(path=path)

    yield from walk_folder(root, "", depth)


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # e.g. a link to itself
        return False


def stat_local_file(path: Path) -> FileInfo:
    """A local file's size and stamp, or the reason why it cannot be read."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL character
        return FileInfo(str(path), -1, 0, "missing file")
    except OSError as error:
        looped = error.errno == errno.ELOOP  # a link to itself
        return FileInfo(str(path), -1, 0, "missing file" if looped else describe_read_error(error))
    if not stat.S_ISREG(found.st_mode):
        # A pipe would block the reader for ever.
        return FileInfo(str(path), -1, 0, "not a regular file")
    problem = None if os.access(path, os.R_OK) else "cannot be read: permission denied"
    return FileInfo(str(path), found.st_size, found.st_mtime_ns, problem)


@contextlib.contextmanager
def replace_file(target: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `target`. It takes the target's name on success and is removed on failure.

    Raises:
        StorageError: the file cannot be written.
    """
    # Hashed, because a long name plus a suffix may exceed what the file system allows.
    stem = f"{PARTIAL_PREFIX}{compute_digest(target.name)}-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_files(target.parent, stem)
        partial, file = _create_locked_file(target.parent, stem)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                # Renamed while it is locked, so that no other writer removes it as abandoned.
                partial.replace(target)
            _sync_folder(target.parent)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        # An error that names another file comes from the code that makes the content.
        named = Path(str(error.filename or target))
        ours = named.parent == target.parent and named.name.startswith(stem)
        if not ours and named not in (target, *target.parents):
            raise
        raise explain_error(error, str(target), writing=True) from error


@contextlib.contextmanager
def make_temporary_file(uri: str) -> Iterator[Path]:
    """The path of a temporary file with the same ending, in a new folder that is removed at the end."""
    name = posixpath.basename(split_uri(uri)[0])
    try:
        folder = tempfile.TemporaryDirectory(prefix="reprise-", ignore_cleanup_errors=True)
    except OSError as error:
        raise explain_error(error, f"{tempfile.gettempdir()}/{name}") from error
    with folder as inside:
        yield Path(inside, "file" + posixpath.splitext(name)[1])


def _create_locked_file(folder: Path, stem: str) -> tuple[Path, BinaryIO]:
    """A new file that `_remove_abandoned_files` does not remove while it is open."""
    while True:
        path = folder / f"{stem}{secrets.token_hex(4)}"
        file = path.open("xb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            return path, file
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # another writer removed it as abandoned before it was locked


def _remove_abandoned_files(folder: Path, stem: str) -> None:
    """Remove the temporary files of writers that have ended: a running writer holds a lock."""
    for path in folder.glob(f"{stem}*"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
