"""Captions beside videos and pictures: `NAME.txt` or `NAME.json` beside `NAME.mp4`."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reprise.errors import RepriseError
from reprise.lists.extensions import get_extension
from reprise.lists.text import BadTextError, clean_text, decode_text, find_bad_value, parse_json
from reprise.storage import Storage, is_remote, split_parent

CAPTION_KEYS = ("caption", "text", "description", "prompt")
_TEXT_BYTES = 1 << 16  # a caption is not longer
_JSON_BYTES = 4 << 20  # what a downloader knows of a video
_READERS = 16  # at a time, on S3


@dataclass(frozen=True)
class SidecarCaption:
    """What a caption file says."""

    text: str | None = None  # one line
    problem: str | None = None  # why the file cannot be read


def list_sidecar_names(path: str) -> tuple[str, str]:
    """Paths at which captions of a file may lie, the preferred one first."""
    stem = posixpath.splitext(path)[0]
    return f"{stem}.txt", f"{stem}.json"


def read_sidecars(paths: Iterable[tuple[str, str]]) -> dict[str, SidecarCaption]:
    """Read caption files, several at a time.

    Args:
        paths: (file, the video or picture that it belongs to), full addresses.
    """
    wanted = dict(paths)
    with ThreadPoolExecutor(_READERS) as pool:
        captions = pool.map(lambda each: read_sidecar(*each), wanted.items())
        return dict(zip(wanted, captions, strict=True))


def read_sidecar(path: str, owner: str) -> SidecarCaption:
    """Read a caption file.

    A text file is a caption as a whole, its lines joined, because some tools wrap long captions. Of a JSON
    object the first of `CAPTION_KEYS` counts.

    Args:
        path: full address of the file.
        owner: full address of what it describes. A link must stay in that file's folder, so that no file of
            the system becomes a caption.
    """
    is_json = get_extension(path) == "json"
    limit = _JSON_BYTES if is_json else _TEXT_BYTES
    try:
        data = _read_remote(path, limit) if is_remote(path) else _read_local(Path(path), Path(owner), limit)
        if len(data) > limit:
            raise BadTextError(f"larger than {limit >> 10} KiB")
        text = decode_text(data)
        caption = _find_caption(parse_json(text)) if is_json else clean_text(text)
        if bad := find_bad_value(caption):
            raise BadTextError(f"it holds {bad}")
    except (BadTextError, RepriseError) as error:
        return _refuse(path, str(error))
    except OSError as error:
        return _refuse(path, (error.strerror or str(error)).lower())
    return SidecarCaption(caption)


def choose_caption(captions: Iterable[SidecarCaption]) -> SidecarCaption:
    """Return the first caption that has text, else the first problem."""
    known = list(captions)
    of_text = next((each for each in known if each.text), None)
    return of_text or next((each for each in known if each.problem), SidecarCaption())


def _refuse(path: str, reason: str) -> SidecarCaption:
    name = posixpath.basename(path).encode(errors="backslashreplace").decode()
    return SidecarCaption(problem=f"its caption file {name} cannot be read: {reason}")


def _find_caption(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    return next((text for key in CAPTION_KEYS if (text := clean_text(value.get(key)))), None)


def _read_remote(path: str, limit: int) -> bytes:
    folder, name = split_parent(path)
    with Storage.from_uri(folder).open_input(name) as file:
        return bytes(file.read(limit + 1))


def _read_local(path: Path, owner: Path, limit: int) -> bytes:
    if path.is_symlink():
        inside = {owner.parent.resolve(), owner.resolve().parent}
        if not inside & set(path.resolve().parents):
            raise BadTextError("it is a link out of the folder")
    # Not blocking: opening a pipe would wait for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BadTextError("not a regular file")
        return file.read(limit + 1)
