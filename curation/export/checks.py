"""Check lists, videos and pictures as a loader reads them. Several targets use these checks."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from av.error import FFmpegError

from curation.export.needs import ReferenceNeeds, VideoNeeds
from curation.export.video_plan import is_same_rate, limit_seconds
from reprise.errors import StorageError
from reprise.storage import Storage, fetch_file
from reprise.video.ahead import StalledError
from reprise.video.decode import decode_frames
from reprise.video.errors import BadVideoError
from reprise.video.open_video import open_video

_TIMEOUT_S = 120.0


def read_json_lines(output: Storage, path: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file, one per line. A missing file yields nothing.

    Raises:
        StorageError: a line is not a JSON object.
    """
    if not output.is_file(path):
        return
    for number, text in enumerate(output.read_bytes(path).decode().splitlines(), start=1):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise StorageError(f"{output.join_path(path)}, line {number}: not JSON") from error
        if not isinstance(value, dict):
            raise StorageError(f"{output.join_path(path)}, line {number}: not a JSON object")
        yield value


def read_json_list(output: Storage, path: str) -> list[dict[str, Any]]:
    """Read a JSON list of objects. A missing file gives an empty list.

    Raises:
        StorageError: the file holds anything else.
    """
    if not output.is_file(path):
        return []
    try:
        values = json.loads(output.read_bytes(path))
    except ValueError as error:
        raise StorageError(f"{output.join_path(path)} is not JSON") from error
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise StorageError(f"{output.join_path(path)} is not a list of objects")
    return values


def read_csv(output: Storage, path: str, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV; nothing where there is no such file.

    Raises:
        StorageError: it lacks a column.
    """
    if not output.is_file(path):
        return
    reader = csv.DictReader(io.StringIO(output.read_bytes(path).decode(), newline=""))
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise StorageError(f"{output.join_path(path)} has no column {', '.join(missing)}")
    yield from reader


def check_captioned_folder(output: Storage, folder: str, needs: VideoNeeds) -> Iterator[str]:
    """Yield what is wrong with a folder in which `NAME.txt` is the caption of `NAME.mp4`."""
    paths = output.list_paths(folder)
    for video in (path for path in paths if path.endswith(".mp4")):
        yield from check_video(output, video, needs)
        caption = video.removesuffix(".mp4") + ".txt"
        if caption not in paths or not output.read_bytes(caption).decode().strip():
            yield f"{video}: no caption in {caption}"
    for caption in (path for path in paths if path.endswith(".txt")):
        if caption.removesuffix(".txt") + ".mp4" not in paths:
            yield f"{caption}: no video of that name"


def read_tar_samples(output: Storage, path: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, part -> bytes) for each sample of a tar file.

    WebDataset groups members by their name up to the first dot, and so does this function.

    Raises:
        StorageError: the file is damaged or is not a tar file.
    """
    key: str | None = None
    parts: dict[str, bytes] = {}
    try:
        with output.open_input(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                stem, _, part = member.name.partition(".")
                if stem != key:
                    if key is not None:
                        yield key, parts
                    key, parts = stem, {}
                file = archive.extractfile(member)
                parts[part] = file.read() if file is not None else b""
    except tarfile.TarError as error:
        raise StorageError(f"{output.join_path(path)} is not a complete tar file: {error}") from error
    if key is not None:
        yield key, parts


def check_video(output: Storage, path: Any, needs: VideoNeeds) -> Iterator[str]:
    """Yield one message per problem of a video: it is missing, cannot be decoded, or breaks the needs.

    Every frame is decoded, because a loader decodes every frame, too.
    """
    if not isinstance(path, str) or not _is_file(output, path):
        yield f"{path}: the video is missing"
        return
    try:
        with fetch_file(_resolve(output, path)) as local, open_video(local, _TIMEOUT_S) as source:
            times = [(each.time_s, each.geometry) for each in decode_frames(source)]
            damage = list(source.damage)
    except (BadVideoError, StalledError, FFmpegError, ValueError) as error:
        yield f"{path}: {error}"
        return
    if not times or damage:
        yield f"{path}: {len(damage)} of its {len(times)} frames are damaged"
        return
    count, (width, height) = len(times), (times[0][1].width, times[0][1].height)
    fps = (count - 1) / (times[-1][0] - times[0][0]) if count > 1 else needs.fps or 0.0
    if needs.fps is not None and not is_same_rate(fps, needs.fps):
        yield f"{path}: {fps:.6g} frames per second, not {needs.fps:g}"
    rule = limit_seconds(needs, needs.fps or fps)
    if rule.choose_length(count) != count:
        yield f"{path}: {count} frames; needs {rule.describe()}"
    if width % needs.multiple or height % needs.multiple:
        yield f"{path}: {width}x{height} px, not multiples of {needs.multiple}"


def check_references(
    output: Storage, sample: Any, paths: Sequence[Any], needs: ReferenceNeeds
) -> Iterator[str]:
    """Yield one message per problem of a sample's references: their number, a missing or damaged file."""
    if len(paths) < needs.minimum:
        yield f"{sample}: {len(paths)} references, needs at least {needs.minimum}"
    if needs.maximum is not None and len(paths) > needs.maximum:
        yield f"{sample}: {len(paths)} references, the trainer reads at most {needs.maximum}"
    for path in paths:
        if not isinstance(path, str) or not _is_file(output, path):
            yield f"{sample}: the reference {path} is missing"
        elif _decode_picture(output, path) is None:
            yield f"{sample}: {path} is not a picture"


def check_rgb(output: Storage, path: str) -> Iterator[str]:
    """Yield a message if a picture is not 8-bit RGB without transparency."""
    picture = _decode_picture(output, path)
    if picture is None:
        yield f"{path}: not a picture"
    elif picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        yield f"{path}: not 8-bit RGB without transparency"


def _decode_picture(output: Storage, path: str) -> Any:
    with fetch_file(_resolve(output, path)) as local:
        return cv2.imdecode(np.frombuffer(local.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)


def _is_file(output: Storage, path: str) -> bool:
    return Path(path).is_file() if Path(path).is_absolute() else output.is_file(path)


def _resolve(output: Storage, path: str) -> str:
    """Return the address of a listed file. Its path is absolute or relative to the export."""
    return path if Path(path).is_absolute() else output.join_path(path)
