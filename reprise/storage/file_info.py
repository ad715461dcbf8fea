"""What a listing knows of a file."""

from __future__ import annotations

from typing import NamedTuple


class FileInfo(NamedTuple):
    """A file as a listing shows it."""

    path: str  # relative to the place that was listed
    size: int  # bytes; -1 where it could not be read
    stamp: int  # modification time, ns since 1970
    problem: str | None = None  # why it cannot be read, where the listing already shows it
