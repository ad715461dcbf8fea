"""Videos that a list names, each with its caption, its license and what else the list says."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from reprise.errors import RepriseError
from reprise.lists.captions import list_sidecar_names
from reprise.lists.folders import MessageCallback
from reprise.lists.tables import ListRow, list_columns, read_csv_header, read_list
from reprise.lists.text import clean_text, make_json_safe, quote_names
from reprise.lists.video_files import VideoFile, describe_file
from reprise.storage import (
    FileInfo,
    Storage,
    is_remote,
    resolve_relative_path,
    split_parent,
    stat_local_file,
)

# The first name that a list has counts; the others are those of well-known data sets.
PATH_COLUMNS = ("path", "video", "file_name", "file_path", "video_path")
CAPTION_COLUMNS = ("caption", "text", "prompt")
_LISTERS = 16  # folders at a time, on S3


def list_manifest(uri: str, notify: MessageCallback) -> list[VideoFile]:
    """Videos of a list with a column `path`, relative to the list's folder, and maybe `caption`, `license`.

    Raises:
        RepriseError: it is no list, it names no video, or a store cannot be reached.
    """
    rows = read_list(uri)
    columns = list_columns(rows) or read_csv_header(uri)
    path_column = find_column(columns, PATH_COLUMNS)
    caption_column = find_column(columns, CAPTION_COLUMNS) or CAPTION_COLUMNS[0]
    if columns and not path_column and not any(row.problem for row in rows):
        raise RepriseError(f"{uri} has no column path: found {quote_names(columns)}")
    if not rows:
        raise RepriseError(f"{uri} lists no videos")
    files = [_parse_row(uri, row, path_column or PATH_COLUMNS[0], caption_column) for row in rows]
    notify(f"{len(files):,} rows in {uri}")
    found = look_up_files([each.path for each in files if not each.problem])
    return [each if each.problem else _merge(each, found[each.path]) for each in files]


def find_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first of some names that is a column."""
    return next((name for name in names if name in columns), None)


def _merge(listed: VideoFile, found: VideoFile) -> VideoFile:
    return replace(
        found,
        caption=listed.caption,
        caption_source=listed.caption_source,
        license=listed.license,
        extra=listed.extra,
    )


def _parse_row(uri: str, row: ListRow, path_column: str, caption_column: str) -> VideoFile:
    used = (path_column, caption_column, "license")
    extra = {key: make_json_safe(value) for key, value in row.values.items() if key not in used}
    caption = clean_text(row.values.get(caption_column))
    file = VideoFile(
        f"{uri}#{row.position}",
        problem=row.problem,
        caption=caption,
        caption_source="manifest" if caption else None,
        license=clean_text(row.values.get("license")),
        extra=json.dumps(extra, ensure_ascii=False, default=str) if extra else None,
    )
    path = row.values.get(path_column)
    if row.problem:
        return file
    if not isinstance(path, str) or not path.strip():
        return replace(file, problem="no path in the manifest")
    if path.startswith("file://") or not re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        local = Storage.from_uri(path).uri if path.startswith("file://") else path
        return replace(file, path=resolve_relative_path(uri, local))
    if is_remote(path):
        return replace(file, path=path)
    return replace(file, path=path, problem="only local paths and s3:// can be read")


def look_up_files(paths: Sequence[str]) -> dict[str, VideoFile]:
    """Size, stamp and sidecars of every address; on S3 by listing each folder once.

    Raises:
        RepriseError: all addresses lie in a store that cannot be reached.
    """
    found = {path: _look_up_local(path) for path in paths if not is_remote(path)}
    folders: dict[str, dict[str, str]] = defaultdict(dict)  # folder -> name in it -> address
    for path in paths:
        if is_remote(path):
            folder, name = split_parent(path)
            folders[folder][name] = path
    with ThreadPoolExecutor(_LISTERS) as pool:
        listings = dict(zip(folders, pool.map(_list_remote_folder, folders), strict=True))
    errors = [listing for listing in listings.values() if isinstance(listing, RepriseError)]
    if errors and len(errors) == len(listings) and not found:
        raise errors[0]  # the store is at fault, not one video
    for folder, names in folders.items():
        listing = listings[folder]
        for name, path in names.items():
            if isinstance(listing, RepriseError):
                found[path] = VideoFile(path, problem=f"cannot be read: {listing}")
                continue
            info = listing.get(name, FileInfo(name, -1, 0, "missing file"))
            beside = [each for each in list_sidecar_names(name) if each in listing]
            place = Storage.from_uri(folder)
            found[path] = describe_file(path, info, tuple(place.join_path(each) for each in beside))
    return found


def _look_up_local(path: str) -> VideoFile:
    beside = [
        name for name in list_sidecar_names(path) if stat_local_file(Path(name)).problem != "missing file"
    ]
    return describe_file(path, stat_local_file(Path(path)), tuple(beside))


def _list_remote_folder(folder: str) -> dict[str, FileInfo] | RepriseError:
    try:
        return {entry.path: entry for entry in Storage.from_uri(folder).list_files(depth=1)}
    except RepriseError as error:
        return error
