"""What comes in: a folder, a glob, a file or a manifest -> one row per video, before any is opened.

Nothing is left out silently. A video that cannot be used, because it is missing, unreadable or there twice,
is a row that says so in `problem`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.rows.ids import hash_video
from curation.rows.schema import VideoRow
from reprise.errors import RepriseError
from reprise.storage import (
    FileInfo,
    Storage,
    fetch_file,
    is_remote,
    resolve_relative_path,
    split_options,
    split_parent,
    stat_local_file,
)

VIDEO_EXTENSIONS = frozenset(
    "mp4 m4v mov mkv webm avi gif mpg mpeg ts m2ts mts flv wmv ogv 3gp y4m".split()  # noqa: SIM905
)
MANIFEST_EXTENSIONS = frozenset({"csv", "jsonl", "json", "parquet"})
_CAPTION_KEYS = ("caption", "text", "description")
_SIDECAR_BYTES = 1 << 16  # a caption is not longer; what is larger is something else
_S3_THREADS = 16  # at a time, to S3
_GLOB = re.compile(r"[*?[]")

MessageCallback = Callable[[str], None]


@dataclass(frozen=True)
class _SourceVideo:
    """A video as it was come across."""

    path: str  # full address
    size: int = -1
    stamp: str = "0"
    problem: str | None = None
    caption: str | None = None
    license: str | None = None
    extra: str | None = None
    sidecars: tuple[str, ...] = ()  # full addresses of those that exist


def list_videos(source: str, *, on_message: MessageCallback | None = None) -> list[VideoRow]:
    """Rows of `VIDEOS` for everything that `source` names, sorted by path.

    `source` is a folder (with all below it), a glob (`clips/**/*.mp4`), one video file, or a manifest: CSV,
    JSONL, JSON or Parquet with a column `path` (relative to the manifest's folder) and optionally `caption`
    and `license`; what else it holds is carried along as JSON in `extra`. Each may be local or on S3. Hidden
    files and folders, and `__MACOSX`, are ignored in folders and globs.

    A caption is the manifest's; else the text of `NAME.txt` beside `NAME.mp4`, its lines joined, because some
    tools wrap long captions; else `caption`, `text` or `description` in `NAME.json` there.

    Files of equal size are compared by content. Of those that are the same the first in order of path stays,
    the others are rows with the problem `duplicate of PATH`.

    `progress` is told, in lines for people, what was found and what was ignored.

    Raises:
        RepriseError: no such source, no video in it, or a manifest that cannot be read as one.
    """
    notify = on_message or (lambda line: None)
    kind = _detect_source_kind(source)
    if kind == "manifest":
        found = _list_manifest(source, notify)
    elif kind == "video":
        found = [_describe_video_file(source)]
    else:
        found = _list_folder(source, notify) if kind == "folder" else _list_glob(source, notify)
    found = sorted((_make_storable(each) for each in found), key=lambda each: each.path)
    found = _mark_duplicates(found, notify)
    return _build_rows(found, notify)


def summarize_videos(rows: Iterable[VideoRow]) -> str:
    """One line for people: how many videos, how large, how many captions, and what is wrong with the rest."""
    listed = list(rows)
    size = sum(row["size"] for row in listed if not row["problem"])
    captions = sum(row["caption"] is not None for row in listed)
    count = f"{len(listed):,} video{'' if len(listed) == 1 else 's'}"
    line = f"{count}, {_format_bytes(size)}, {captions:,} with a caption"
    problems: Counter[str] = Counter(
        "duplicate" if row["problem"].startswith("duplicate of ") else row["problem"]
        for row in listed
        if row["problem"]
    )
    if problems:
        reasons = ", ".join(f"{number:,} {problem}" for problem, number in problems.most_common(4))
        if len(problems) > 4:
            reasons += " and others"
        line += f"; {problems.total():,} cannot be used: {reasons}"
    return " ".join(line.split())


def _detect_source_kind(source: str) -> str:
    """folder | glob | video | manifest"""
    place = Storage.from_uri(source)
    extension = _get_extension(split_parent(place.uri)[1])
    if place.is_file():
        if extension in MANIFEST_EXTENSIONS:
            return "manifest"
        if extension in VIDEO_EXTENSIONS:
            return "video"
        raise RepriseError(
            f"{source} is neither a video ({_format_extensions()}) nor a manifest "
            f"({', '.join(sorted(MANIFEST_EXTENSIONS))})"
        )
    if place.exists():
        return "folder"
    if _GLOB.search(split_options(place.uri)[0]):
        return "glob"
    raise RepriseError(f"no such file or folder: {place.uri}")


def _list_folder(source: str, notify: MessageCallback) -> list[_SourceVideo]:
    place = Storage.from_uri(source)
    entries = place.list_files()
    if entries and not entries[0].path:
        raise RepriseError(f"{place.uri} {entries[0].problem}")
    found, ignored = _select_videos(place, entries, lambda path: True)
    _report_ignored(ignored, place.uri, notify)
    if not found:
        raise RepriseError(f"no video in {place.uri}: looked for {_format_extensions()}")
    return found


def _list_glob(source: str, notify: MessageCallback) -> list[_SourceVideo]:
    """`*`, `?` and `[...]` within one name, `**` across folders."""
    uri, options = split_options(Storage.from_uri(source).uri)
    steps = uri.split("/")
    first = next(i for i, step in enumerate(steps) if _GLOB.search(step))
    if is_remote(uri) and first < 3:  # s3: / (nothing) / bucket / ...
        raise RepriseError(f"{source}: a pattern in the name of a bucket is not supported")
    place = Storage.from_uri(("/".join(steps[:first]) or "/") + options)
    pattern = "/".join(steps[first:])
    depth = None if "**" in pattern else pattern.count("/") + 1
    matches = _compile_glob(pattern)
    found, ignored = _select_videos(
        place, place.list_files(depth=depth), lambda p: bool(matches.fullmatch(p))
    )
    _report_ignored(ignored, place.uri, notify)
    if not found:
        raise RepriseError(f"no video matches {source}: looked for {_format_extensions()}")
    return found


def _select_videos(
    place: Storage, entries: list[FileInfo], wanted: Callable[[str], bool]
) -> tuple[list[_SourceVideo], Counter[str]]:
    """Videos of a listing, with the sidecars that it shows; and the number of other files by extension."""
    present = {entry.path for entry in entries}
    found: list[_SourceVideo] = []
    ignored: Counter[str] = Counter()
    used: set[str] = set()
    others: list[str] = []
    for entry in entries:
        if any(part.startswith(".") or part == "__MACOSX" for part in entry.path.split("/")):
            continue
        if not wanted(entry.path):
            continue
        # A folder that cannot be listed may hold videos: it is accounted for like one.
        folder = entry.size < 0 and (entry.problem or "").startswith("cannot be read")
        if _get_extension(entry.path) not in VIDEO_EXTENSIONS and not folder:
            others.append(entry.path)
            continue
        beside = [name for name in _list_sidecar_names(entry.path) if name in present]
        used.update(beside)
        found.append(
            _SourceVideo(
                _join_address(place, entry.path),
                entry.size,
                str(entry.stamp),
                entry.problem,
                sidecars=tuple(_join_address(place, name) for name in beside),
            )
        )
    for path in others:
        if path not in used:
            ignored[_get_extension(path) or "no extension"] += 1
    return found, ignored


def _describe_video_file(source: str) -> _SourceVideo:
    """A single video: named outright, so its own requests are few."""
    path = Storage.from_uri(source).uri
    folder, name = split_parent(path)
    place = Storage.from_uri(folder)
    beside = tuple(
        place.join_path(each) for each in _list_sidecar_names(name) if place.stat_file(each).size >= 0
    )
    return replace(_make_source_video(path, place.stat_file(name)), sidecars=beside)


def _list_manifest(source: str, notify: MessageCallback) -> list[_SourceVideo]:
    uri = Storage.from_uri(source).uri
    rows = _read_manifest(uri)
    if not rows:
        raise RepriseError(f"{uri} lists no videos")
    columns = sorted({column for _, row in rows for column in row})
    if "path" not in columns:
        raise RepriseError(f"{uri} has no column path: found {', '.join(columns) or 'none'}")
    found = [_parse_manifest_row(uri, where, row) for where, row in rows]
    notify(f"{len(found):,} rows in {uri}")
    looked_up = _look_up_files([each.path for each in found if not each.problem])
    merged = []
    for each in found:
        if each.problem:
            merged.append(each)
            continue
        there = looked_up[each.path]
        merged.append(replace(there, caption=each.caption, license=each.license, extra=each.extra))
    return merged


def _parse_manifest_row(uri: str, where: str, row: Mapping[str, Any]) -> _SourceVideo:
    extra = {key: _make_json_safe(row[key]) for key in row if key not in ("path", "caption", "license")}
    carried = json.dumps(extra, ensure_ascii=False, default=str) if extra else None
    caption, license_ = _clean_text(row.get("caption")), _clean_text(row.get("license"))
    path = row.get("path")
    if not isinstance(path, str) or not path.strip():
        return _SourceVideo(f"{uri}#{where}", problem="no path in the manifest", extra=carried)
    if path.startswith("file://") or not re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        full = resolve_relative_path(uri, Storage.from_uri(path).uri if path.startswith("file://") else path)
        return _SourceVideo(full, caption=caption, license=license_, extra=carried)
    if is_remote(path):
        return _SourceVideo(path, caption=caption, license=license_, extra=carried)
    return _SourceVideo(path, problem="only local paths and s3:// can be read", extra=carried)


def _look_up_files(paths: list[str]) -> dict[str, _SourceVideo]:
    """Size, stamp and sidecars of every address; on S3 by listing each folder once."""
    found: dict[str, _SourceVideo] = {}
    folders: dict[str, dict[str, str]] = defaultdict(dict)  # folder -> name in it -> address
    for path in paths:
        if is_remote(path):
            folder, name = split_parent(path)
            folders[folder][name] = path
        else:
            beside = tuple(
                name for name in _list_sidecar_names(path) if stat_local_file(Path(name)).size >= 0
            )
            found[path] = replace(_make_source_video(path, stat_local_file(Path(path))), sidecars=beside)

    def list_folder(folder: str) -> dict[str, FileInfo] | RepriseError:
        try:
            return {entry.path: entry for entry in Storage.from_uri(folder).list_files(depth=1)}
        except RepriseError as error:
            return error

    with ThreadPoolExecutor(_S3_THREADS) as pool:
        listings = dict(zip(folders, pool.map(list_folder, folders), strict=True))
    errors = [listing for listing in listings.values() if isinstance(listing, RepriseError)]
    if errors and len(errors) == len(listings) and not found:
        raise errors[0]  # not one video's trouble: the store's
    for folder, names in folders.items():
        listing = listings[folder]
        for name, path in names.items():
            if isinstance(listing, RepriseError):
                found[path] = _SourceVideo(path, problem=f"cannot be read: {listing}")
            else:
                entry = listing.get(name, FileInfo(name, -1, 0, "missing file"))
                beside = tuple(
                    Storage.from_uri(folder).join_path(n) for n in _list_sidecar_names(name) if n in listing
                )
                found[path] = replace(_make_source_video(path, entry), sidecars=beside)
    return found


def _read_manifest(uri: str) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a manifest, each with the place it stands at.

    Raises:
        RepriseError: naming the line that cannot be read.
    """
    folder, name = split_parent(uri)
    data = Storage.from_uri(folder).read_bytes(name)
    extension = _get_extension(name)
    if extension == "parquet":
        try:
            table = pq.read_table(pa.BufferReader(data))
        except pa.ArrowInvalid as error:
            raise RepriseError(f"{uri} is damaged or not Parquet: {error}") from error
        # Pictures and other bytes have no place in JSON.
        columns = [f.name for f in table.schema if not _has_bytes(f.type)]
        return [(f"row {i + 1}", row) for i, row in enumerate(table.select(columns).to_pylist())]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        broken = data[: error.start].count(b"\n") + 1
        raise RepriseError(f"{uri} line {broken}: not UTF-8 text") from error
    if extension == "csv":
        return _read_csv(uri, text)
    if extension == "json" and text.lstrip()[:1] == "[":
        try:
            items = json.loads(text)
        except ValueError as error:
            raise RepriseError(f"{uri} is not JSON: {error}") from error
        numbered: list[tuple[str, Any]] = [(f"item {i + 1}", item) for i, item in enumerate(items)]
    else:
        numbered = []
        # Not splitlines, which also takes separators that JSON allows inside a string.
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                numbered.append((f"line {number}", json.loads(line)))
            except ValueError as error:
                raise RepriseError(f"{uri} line {number} is not JSON: {error}") from error
    for where, item in numbered:
        if not isinstance(item, dict):
            raise RepriseError(f"{uri} {where}: expected an object with a key path, found {str(item)[:40]!r}")
    return numbered


def _read_csv(uri: str, text: str) -> list[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[str, dict[str, Any]]] = []
    header: list[str] | None = None
    before = csv.field_size_limit(1 << 30)
    try:
        line = 1
        for cells in reader:
            first, line = line, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header):
                    raise RepriseError(f"{uri} line {first}: a column is there twice: {', '.join(header)}")
            elif len(cells) != len(header):
                raise RepriseError(
                    f"{uri} line {first}: {len(cells)} cells for {len(header)} columns; "
                    "put a text with commas in double quotes"
                )
            else:
                rows.append((f"line {first}", dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise RepriseError(f"{uri} line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(before)
    if header is not None and not rows and "path" not in header:
        raise RepriseError(f"{uri} has no column path: found {', '.join(header)}")
    return rows


def _mark_duplicates(found: list[_SourceVideo], notify: MessageCallback) -> list[_SourceVideo]:
    """Give all but the first of equal videos their problem; `found` is sorted."""
    marked = list(found)
    by_size: dict[int, list[int]] = defaultdict(list)
    by_path: dict[str, int] = {}
    for i, each in enumerate(found):
        if each.path in by_path and not each.problem:
            marked[i] = replace(each, problem=f"duplicate of {each.path}")
            continue
        by_path.setdefault(each.path, i)
        # Empty files are all alike, and each fails with its own reason later.
        if not each.problem and each.size > 0:
            by_size[each.size].append(i)
    groups = [group for group in by_size.values() if len(group) > 1]
    if not groups:
        return marked
    notify(f"comparing {sum(map(len, groups)):,} files of equal size")
    todo = [i for group in groups for i in group]
    remote = [i for i in todo if is_remote(found[i].path)]
    with ThreadPoolExecutor(_S3_THREADS) as pool:
        tags = dict(zip(remote, pool.map(lambda i: _get_plain_etag(found[i].path), remote), strict=True))
        # Equal tags of a plain upload mean equal content. Unequal ones may differ by encryption or parts.
        keeper: dict[tuple[int, str], int] = {}
        alike = {i: i for i in todo}
        for i in remote:
            if tag := tags[i]:
                alike[i] = keeper.setdefault((found[i].size, tag), i)
        sizes = Counter(found[i].size for i in todo if alike[i] == i)
        hashed = [i for i in todo if alike[i] == i and sizes[found[i].size] > 1]
        hashes = dict(zip(hashed, pool.map(lambda i: _hash_content(found[i].path), hashed), strict=True))
    first: dict[str, int] = {}
    for i in todo:
        content, problem = hashes.get(alike[i], (f"alone {alike[i]}", None))
        if problem:
            marked[i] = replace(found[i], problem=problem)
        elif first.setdefault(content, i) != i:
            marked[i] = replace(found[i], problem=f"duplicate of {found[first[content]].path}")
    return marked


def _get_plain_etag(path: str) -> str | None:
    """The tag of an object that was uploaded in one part; None where there is none to compare."""
    try:
        tag = Storage.from_uri(path).get_etag()
    except RepriseError:
        return None  # reading it will say why
    return tag if tag and "-" not in tag else None


def _hash_content(path: str) -> tuple[str, str | None]:
    """The hash of a file's bytes, or why it cannot be read."""
    try:
        with fetch_file(path) as local:
            return hash_video(local), None
    except OSError as error:
        return "", f"cannot be read: {(error.strerror or str(error)).lower()}"
    except RepriseError as error:
        return "", f"cannot be read: {error}"


def _build_rows(found: list[_SourceVideo], notify: MessageCallback) -> list[VideoRow]:
    wanting = [each for each in found if each.caption is None and each.sidecars and not each.problem]
    if wanting:
        notify(f"reading captions beside {len(wanting):,} videos")
    paths = list(dict.fromkeys(path for each in wanting for path in each.sidecars))
    with ThreadPoolExecutor(_S3_THREADS) as pool:
        texts = dict(zip(paths, pool.map(_read_sidecar_caption, paths), strict=True))
    rows = []
    times: Counter[str] = Counter()
    for each in found:
        beside = next((text for path in each.sidecars if (text := texts.get(path))), None)
        key = f"{each.path}|{each.size}|{each.stamp}"
        times[key] += 1
        if times[key] > 1:
            # The same path twice: two rows, and "already done" must tell them apart.
            key += f"|{times[key]}"
        rows.append(
            VideoRow(
                source_path=each.path,
                source_key=key,
                size=each.size,
                caption=each.caption or beside,
                caption_source="manifest" if each.caption else "sidecar" if beside else None,
                license=each.license,
                extra=each.extra,
                problem=each.problem,
                skip_clip_ids=[],
            )
        )
    return rows


def _read_sidecar_caption(path: str) -> str | None:
    """The caption in a file beside a video; None where there is none that can be made sense of."""
    try:
        folder, name = split_parent(path)
        with Storage.from_uri(folder).open_input(name) as file:
            data = file.read(_SIDECAR_BYTES)
    except (RepriseError, OSError):
        return None
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        if _get_extension(name) == "json":
            known = json.loads(text)
            values = [_clean_text(known.get(key)) for key in _CAPTION_KEYS] if isinstance(known, dict) else []
            return next((value for value in values if value), None)
    except ValueError:  # no text, no JSON
        return None
    return _clean_text(text)


def _make_storable(found: _SourceVideo) -> _SourceVideo:
    """A name that is not UTF-8 cannot be written to a table: spell it out and say so."""
    try:
        found.path.encode()
    except UnicodeEncodeError:
        spelled = os.fsencode(found.path).decode("utf-8", "backslashreplace")
        return replace(found, path=spelled, problem="its name is not UTF-8: rename it", sidecars=())
    return found


def _make_source_video(path: str, entry: FileInfo) -> _SourceVideo:
    return _SourceVideo(path, entry.size, str(entry.stamp), entry.problem)


def _join_address(place: Storage, path: str) -> str:
    return place.join_path(path) if path else place.uri


def _list_sidecar_names(path: str) -> tuple[str, str]:
    stem = posixpath.splitext(path)[0]
    return f"{stem}.txt", f"{stem}.json"


def _get_extension(path: str) -> str:
    return posixpath.splitext(path)[1].lower().lstrip(".")


def _format_extensions() -> str:
    return ", ".join(sorted(VIDEO_EXTENSIONS))


def _report_ignored(ignored: Counter[str], where: str, notify: MessageCallback) -> None:
    if ignored:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(ignored.items()))
        notify(f"ignored {ignored.total():,} other files in {where}: {kinds}")


def _compile_glob(glob: str) -> re.Pattern[str]:
    """A glob as an expression over relative paths with forward slashes."""
    steps = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", glob, re.DOTALL):
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
        raise RepriseError(f"{glob} is not a pattern: {error}") from error


def _clean_text(value: Any) -> str | None:
    """A caption or a license as one line, or None where there is none."""
    if isinstance(value, list | tuple):
        return next((text for item in value if (text := _clean_text(item))), None)
    if value is None or isinstance(value, dict) or (isinstance(value, float) and math.isnan(value)):
        return None
    return " ".join(str(value).split()) or None


def _make_json_safe(value: Any) -> Any:
    """A value as strict JSON has it: no NaN, no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _make_json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_make_json_safe(item) for item in value]
    return value


def _has_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _has_bytes(kind.value_type)
    return any(_has_bytes(kind.field(i).type) for i in range(kind.num_fields))


def _format_bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
