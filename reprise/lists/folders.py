"""Videos of a folder, of a pattern, or one file by its name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from reprise.errors import RepriseError
from reprise.lists.captions import list_sidecar_names
from reprise.lists.extensions import VIDEO_EXTENSIONS, format_extensions, get_extension
from reprise.lists.video_files import VideoFile, describe_file
from reprise.storage import FileInfo, Storage, is_remote, split_options, split_parent

MessageCallback = Callable[[str], None]

_PATTERN = re.compile(r"[*?[]")


def is_pattern(uri: str) -> bool:
    """Tell whether an address holds `*`, `?` or `[`."""
    return bool(_PATTERN.search(split_options(uri)[0]))


def list_folder(place: Storage, notify: MessageCallback) -> list[VideoFile]:
    """Videos of a folder and all below it. Hidden files and folders, and `__MACOSX`, are ignored.

    Raises:
        RepriseError: it cannot be listed, or holds no video.
    """
    entries = place.list_files()
    if entries and not entries[0].path:
        raise RepriseError(f"{place.uri} {entries[0].problem}")
    found, ignored = _select_videos(place, entries, lambda path: True)
    _report_ignored(ignored, place.uri, notify)
    if not found:
        raise RepriseError(f"no video in {place.uri}: looked for {format_extensions()}")
    return found


def list_pattern(uri: str, notify: MessageCallback) -> list[VideoFile]:
    """Videos that match a pattern: `*`, `?` and `[...]` within one name, `**` across folders.

    Raises:
        RepriseError: no video matches, or the pattern cannot be used.
    """
    path, options = split_options(Storage.from_uri(uri).uri)
    steps = path.split("/")
    first = next(i for i, step in enumerate(steps) if _PATTERN.search(step))
    if is_remote(path) and first < 3:  # s3: / (nothing) / bucket / ...
        raise RepriseError(f"{uri}: a pattern in the name of a bucket is not supported")
    place = Storage.from_uri(("/".join(steps[:first]) or "/") + options)
    pattern = "/".join(steps[first:])
    depth = None if "**" in pattern else pattern.count("/") + 1
    matches = _compile_pattern(pattern)
    found, ignored = _select_videos(
        place, place.list_files(depth=depth), lambda name: bool(matches.fullmatch(name))
    )
    _report_ignored(ignored, place.uri, notify)
    if not found:
        raise RepriseError(f"no video matches {uri}: looked for {format_extensions()}")
    return found


def describe_video(uri: str) -> VideoFile:
    """A single video: named outright, so its own requests are few."""
    path = Storage.from_uri(uri).uri
    folder, name = split_parent(path)
    place = Storage.from_uri(folder)
    names = [each for each in list_sidecar_names(name) if place.stat_file(each).size >= 0]
    return describe_file(path, place.stat_file(name), tuple(place.join_path(each) for each in names))


def _select_videos(
    place: Storage, entries: list[FileInfo], is_wanted: Callable[[str], bool]
) -> tuple[list[VideoFile], Counter[str]]:
    """Videos of a listing, with the sidecars that it shows; and the number of other files by extension."""
    present = {entry.path for entry in entries}
    found: list[VideoFile] = []
    used: set[str] = set()
    others: list[str] = []
    for entry in entries:
        if any(part.startswith(".") or part == "__MACOSX" for part in entry.path.split("/")):
            continue
        if not is_wanted(entry.path):
            continue
        # A folder that cannot be listed may hold videos: it is accounted for like one.
        is_closed_folder = entry.size < 0 and (entry.problem or "").startswith("cannot be read")
        if get_extension(entry.path) not in VIDEO_EXTENSIONS and not is_closed_folder:
            others.append(entry.path)
            continue
        beside = [name for name in list_sidecar_names(entry.path) if name in present]
        used.update(beside)
        address = place.join_path(entry.path) if entry.path else place.uri
        found.append(describe_file(address, entry, tuple(place.join_path(name) for name in beside)))
    ignored = Counter(get_extension(path) or "no extension" for path in others if path not in used)
    return found, ignored


def _report_ignored(ignored: Counter[str], where: str, notify: MessageCallback) -> None:
    if ignored:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(ignored.items()))
        notify(f"ignored {ignored.total():,} files that are no videos and no captions in {where}: {kinds}")


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern as an expression over relative paths with forward slashes."""
    steps = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL):
        if token in steps:
            parts.append(steps[token])
        elif len(token) > 1:
            inside = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
            parts.append(f"[{'^' + inside[1:] if inside.startswith('!') else inside}]")
        else:
            parts.append(re.escape(token))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise RepriseError(f"{pattern} is not a pattern: {error}") from error
