"""What a disk or a store refuses, as one line for a person: what is wrong and what to do."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from reprise.errors import StorageError, TransientStorageError
from reprise.storage.address import is_remote

_TRANSIENT_ERRNOS = (
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY),
    *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.ENETUNREACH),
)
# Arrow's names for S3 errors that pass.
_TRANSIENT_CODES = re.compile(r"NETWORK_CONNECTION|THROTTL|SLOW_DOWN|UNAVAILABLE|TIMEOUT|INTERNAL_FAILURE")


@contextlib.contextmanager
def explain_errors(where: str) -> Iterator[None]:
    """Turn each OSError of the body into a StorageError about `where`."""
    try:
        yield
    except OSError as error:
        raise explain_error(error, where) from error


def explain_error(error: OSError, where: str, *, writing: bool = False) -> StorageError:
    """One line for an error at the address `where`. Its class says whether a retry may help."""
    found = re.search(r"AWS Error ([A-Z_]+)", str(error))
    code = found[1] if found else ""
    if writing and error.errno == errno.ENOENT:
        message = f"cannot write {where}: its folder cannot be made or is gone"
    else:
        message = _describe_error(error, code, where)
    transient = (
        error.errno in _TRANSIENT_ERRNOS
        or _TRANSIENT_CODES.search(code) is not None
        or re.search(r"HTTP status 5\d\d", str(error)) is not None
    )
    return TransientStorageError(message) if transient else StorageError(message)


def _describe_error(error: OSError, code: str, where: str) -> str:
    message = str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left on {_find_existing_folder(where)}: free some and run the same command again; "
            "finished work is kept"
        )
    if error.errno == errno.EROFS:
        return f"cannot write {where}: the disk is mounted read-only"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"permission denied: {where}"
    if error.errno == errno.ENOENT or code in ("RESOURCE_NOT_FOUND", "NO_SUCH_KEY"):
        return f"no such file: {where}"
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return f"{where}: {(error.strerror or message).lower()}; a file and a folder share a name"
    if code == "NO_SUCH_BUCKET":
        return f"no such bucket: {where}"
    if re.search(r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|TOKEN", code):
        return f"access denied to {where}: check the AWS credentials and the bucket's policy"
    if code == "NETWORK_CONNECTION":
        detail = message.rsplit("Details: ", 1)[-1]
        return f"cannot reach {where}: {detail}; check the address and AWS_ENDPOINT_URL"
    if "HTTP status 301" in message:
        return f"{where} is in another region: set AWS_REGION or append ?region=NAME"
    return f"{where}: {join_lines(error)}"


def describe_read_error(error: OSError) -> str:
    """What keeps a local file from being read."""
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def join_lines(error: Exception) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())


def _find_existing_folder(where: str) -> str:
    """The folder to free space in: the nearest that exists."""
    path = Path(where)
    return where if is_remote(where) else str(next((p for p in path.parents if p.exists()), path))
