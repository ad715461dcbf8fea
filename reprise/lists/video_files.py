"""A video as a folder, a pattern or a list names it, before it is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from reprise.storage import FileInfo


@dataclass(frozen=True)
class VideoFile:
    """A video that was named, or why it cannot be used."""

    path: str  # full address; of a row of a list without one, the list and the position in it
    size: int = -1  # bytes; -1: not known
    stamp: str = "0"  # modification time, ns since 1970
    problem: str | None = None
    caption: str | None = None  # one line
    caption_source: str | None = None  # manifest | sidecar
    caption_problem: str | None = None  # why there is none although there is a file for it
    license: str | None = None
    extra: str | None = None  # JSON: what else a list says
    sidecars: tuple[str, ...] = ()  # full addresses of caption files that exist


def describe_file(path: str, info: FileInfo, sidecars: tuple[str, ...] = ()) -> VideoFile:
    """A video as a listing shows it."""
    return VideoFile(path, info.size, str(info.stamp), info.problem, sidecars=sidecars)


def make_storable(file: VideoFile) -> VideoFile:
    """Spell out a name that is not UTF-8, which no table can store, and say so."""
    try:
        file.path.encode()
    except UnicodeEncodeError:
        try:
            spelled = os.fsencode(file.path).decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            spelled = file.path.encode("utf-8", "backslashreplace").decode()
        return replace(file, path=spelled, problem="its name is not UTF-8: rename it", sidecars=())
    return file
