"""What is encoded: the clips of a curated dataset, or plain videos with captions. Image pairs fit in, too.

A source first says what it has (`plan`, on the driver, without pictures or videos), then gives the items that
are asked for (`load`, on a worker). Both see the same rows, so what is finished need not be looked at again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from reprise.errors import RepriseError
from reprise.storage import Storage, locate_file, resolve_relative_path
from training.latents.config import EncodeConfig

VIDEO_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
_LIST_ENDINGS = (".csv", ".jsonl", ".parquet")
_PATH_COLUMNS = ("path", "video", "file_name", "file_path", "video_path")
_CAPTION_COLUMNS = ("caption", "text", "prompt")


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One row of the source, before anything of it was opened."""

    sample_id: str
    key: str  # hash of all that decides its latents
    place: tuple[str, int] = ("", 0)  # (file, row): where `load` finds it
    drop: str | None = None  # reason, where it cannot be encoded
    message: str = ""  # about this one


@dataclass(frozen=True, slots=True)
class SubjectPicture:
    """A picture of a subject, as encoded bytes."""

    subject_id: str
    category: str
    reference_id: str
    variant: str
    data: bytes


@dataclass(frozen=True, slots=True)
class EncodeItem:
    """One sample to encode."""

    sample_id: str
    source_id: str
    caption: str
    media: Path | tuple[Storage, str] | bytes  # a file here, one below a folder, or what is in one
    pictures: tuple[SubjectPicture, ...] = ()
    still: bool = False  # the media is a picture, not a video


class Source(Protocol):
    """Holds addresses and settings alone, so that it travels to workers."""

    @property
    def place(self) -> str:
        """Its address."""

    def plan_items(self) -> list[PlannedItem]:
        """Every row, also those that cannot be encoded.

        Raises:
            RepriseError: there is nothing, or it is not what it should be.
        """

    def load_items(self, places: Sequence[tuple[str, int]]) -> Iterator[EncodeItem]:
        """The items at some places, in their order."""

    def describe_source(self) -> dict[str, Any]:
        """For the manifest."""


# What is read of a curated dataset (docs/dataset.md); pictures only where a row is encoded.
_ROW_COLUMNS = (
    "clip_id",
    "video_id",
    "clip_path",
    "caption",
    "status",
    "stop.stage",
    "stop.reason",
    "config_hash",
    "subjects.subject_id",
    "subjects.category",
    "subjects.verdict.kept",
    "subjects.references.reference_id",
    "subjects.references.variant",
    "subjects.references.kept",
    "subjects.references.revision",
    "subjects.references.seed",
    "subjects.references.donor_clip_id",
)
_ITEM_COLUMNS = (*_ROW_COLUMNS, "subjects.references.image.bytes")


@dataclass(frozen=True)
class CuratedSource:
    """A dataset that `reprise curate` wrote."""

    folder: Storage
    config: EncodeConfig = field(default_factory=EncodeConfig)

    @property
    def place(self) -> str:
        return self.folder.uri

    def plan_items(self) -> list[PlannedItem]:
        shards = [name for name in self.folder.list_names("data") if name.endswith(".parquet")]
        if not self.folder.exists("manifest.json"):
            state = "is not finished: run `reprise curate` again" if shards else "has no manifest.json"
            raise RepriseError(f"no dataset at {self.place}: it {state}")
        planned = []
        for name in shards:
            for number, row in enumerate(read_table_rows(self.folder, f"data/{name}", _ROW_COLUMNS)):
                planned.append(self._plan_row(row, (f"data/{name}", number)))
        if not planned:
            raise RepriseError(f"the dataset at {self.place} has no row")
        return planned

    def load_items(self, places: Sequence[tuple[str, int]]) -> Iterator[EncodeItem]:
        for _, row, _ in read_placed_rows(self.folder, _ITEM_COLUMNS, places):
            yield EncodeItem(
                sample_id=row["clip_id"],
                source_id=row["video_id"],
                caption=row["caption"] or "",
                media=(self.folder, row["clip_path"]),
                pictures=tuple(
                    SubjectPicture(
                        subject["subject_id"],
                        subject["category"],
                        reference["reference_id"],
                        reference["variant"],
                        (reference["image"] or {}).get("bytes") or b"",
                    )
                    for subject, reference in self._list_references(row)
                ),
            )

    def describe_source(self) -> dict[str, Any]:
        data = json.loads(self.folder.read_bytes("manifest.json"))
        return {"kind": "curated", "place": self.place, "config_hash": data.get("config_hash")}

    def _plan_row(self, row: dict[str, Any], place: tuple[str, int]) -> PlannedItem:
        references = self._list_references(row)
        drop, message = None, ""
        if row["status"] != "kept":
            stop = row["stop"] or {}
            drop = f"not kept: {row['status']}"
            message = ": ".join(part for part in (stop.get("stage"), stop.get("reason")) if part)
        elif not row["clip_path"]:
            drop = "no clip"
        elif not row["caption"] and self.config.captions == "required":
            drop = "no caption"
        elif not references and self.config.references.required:
            drop = "no usable reference"
        return PlannedItem(row["clip_id"], _hash_curated_row(row, references), place, drop, message)

    def _list_references(self, row: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """(subject, reference) of what may be shown: kept, and of a variant that is asked for."""
        variants = self.config.references.variants
        return [
            (subject, reference)
            for subject in row["subjects"] or ()
            if (subject["verdict"] or {}).get("kept")
            for reference in subject["references"] or ()
            if reference["kept"] and reference["variant"] in variants
        ]


def _hash_curated_row(row: dict[str, Any], references: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    # Ids are hashes of content; what made a picture is in its revision, seed and donor and the row's config.
    reference_fields = [
        [
            s["subject_id"],
            s["category"],
            *(r[k] for k in ("reference_id", "revision", "seed", "donor_clip_id")),
        ]
        for s, r in references
    ]
    return hash_values(row["clip_id"], row["caption"], row["config_hash"], reference_fields)


@dataclass(frozen=True)
class VideoSource:
    """A folder of videos with captions beside them (NAME.txt, NAME.json), or a CSV, JSONL or Parquet list.

    A list has a column `path` (or video, file_name, file_path, video_path), relative to the list's folder,
    and one named `caption` (or text, prompt).
    """

    uri: str
    config: EncodeConfig = field(default_factory=EncodeConfig)

    @property
    def place(self) -> str:
        return Storage.from_uri(self.uri).uri

    def plan_items(self) -> list[PlannedItem]:
        rows = self._scan_list() if self.uri.endswith(_LIST_ENDINGS) else self._scan_folder()
        planned, known_paths = [], set()
        for path, caption, size, stamp in rows:
            drop = None
            if path in known_paths:
                drop = "listed twice"
            elif size < 0:
                drop = "missing file"
            elif not caption and self.config.captions == "required":
                drop = "no caption"
            known_paths.add(path)
            # The caption rides in the place: reading sidecars a second time would be slow on S3.
            place = (json.dumps([path, caption or ""]), 0)
            planned.append(
                PlannedItem(hash_values(path), hash_values(path, size, stamp, caption), place, drop, path)
            )
        if not planned:
            raise RepriseError(
                f"no video at {self.place}: it needs files {', '.join(VIDEO_ENDINGS)} or a list"
            )
        return planned

    def load_items(self, places: Sequence[tuple[str, int]]) -> Iterator[EncodeItem]:
        for named, _ in places:
            path, caption = json.loads(named)
            folder, name = locate_file(path)
            media = (folder, name) if folder.is_remote else Path(path)
            yield EncodeItem(hash_values(path), hash_values(path), caption, media)

    def describe_source(self) -> dict[str, Any]:
        return {"kind": "videos", "place": self.place}

    def _scan_folder(self) -> Iterator[tuple[str, str | None, int, int]]:
        folder = Storage.from_uri(self.uri)
        if not folder.exists():
            raise RepriseError(f"no such folder or list: {folder.uri}")
        files = {file.path: file for file in folder.list_files()}
        for path, file in sorted(files.items()):
            if path.lower().endswith(VIDEO_ENDINGS):
                stem = path.rsplit(".", 1)[0]
                yield folder.join_path(path), _read_sidecar(folder, stem, files), file.size, file.stamp

    def _scan_list(self) -> Iterator[tuple[str, str | None, int, int]]:
        rows = read_list(*locate_file(self.uri))
        if rows and not any(key in rows[0] for key in _PATH_COLUMNS):
            raise RepriseError(f"{self.place} has no column {_PATH_COLUMNS[0]}; it has {', '.join(rows[0])}")
        for row in rows:
            path = next((str(row[key]) for key in _PATH_COLUMNS if row.get(key)), None)
            if path is None:
                raise RepriseError(
                    f"{self.place} has a row without a path: name the column {_PATH_COLUMNS[0]}"
                )
            caption = next((str(row[key]) for key in _CAPTION_COLUMNS if row.get(key)), None)
            if "://" not in path:
                path = resolve_relative_path(self.place, path)
            parent, file_name = locate_file(path)
            found = parent.stat_file(file_name)
            yield path, caption, found.size, found.stamp


def _read_sidecar(folder: Storage, stem: str, files: Iterable[str]) -> str | None:
    if f"{stem}.txt" in files:
        return folder.read_bytes(f"{stem}.txt").decode("utf-8", "replace").strip() or None
    if f"{stem}.json" in files:
        try:
            data = json.loads(folder.read_bytes(f"{stem}.json"))
        except ValueError:
            return None
        if isinstance(data, dict):
            return next((str(data[key]) for key in _CAPTION_COLUMNS if data.get(key)), None)
    return None


def read_list(folder: Storage, name: str) -> list[dict[str, Any]]:
    """Rows of a CSV, JSONL or Parquet list.

    Raises:
        RepriseError: it is not there, or is none.
    """
    where = folder.join_path(name)
    if not folder.exists(name):
        raise RepriseError(f"no such list: {where}")
    data = folder.read_bytes(name)
    try:
        if name.endswith(".parquet"):
            table = pq.read_table(pa.BufferReader(data))
            rows: list[dict[str, Any]] = table.to_pylist()
        elif name.endswith(".jsonl"):
            rows = [json.loads(line) for line in data.decode("utf-8-sig").splitlines() if line.strip()]
        else:
            rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    except (ValueError, pa.ArrowException, csv.Error) as error:
        raise RepriseError(f"{where} cannot be read: {' '.join(str(error).split())}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise RepriseError(f"{where} cannot be read: must hold one object per line")
    return rows


def read_placed_rows(
    folder: Storage, names: Sequence[str], places: Sequence[tuple[str, int]], *, per_row: int = 1
) -> Iterator[tuple[str, dict[str, Any], int]]:
    """(file, row, item of the row) for each place, file by file; each row is read once.

    Place (file, number) is item number % per_row of row number // per_row.
    """
    for file in dict.fromkeys(file for file, _ in places):
        wanted = [number for other, number in places if other == file]
        rows = sorted({number // per_row for number in wanted})
        held = dict(zip(rows, read_table_rows(folder, file, names, rows), strict=True))
        for number in wanted:
            yield file, held[number // per_row], number % per_row


def read_table_rows(
    folder: Storage, rel: str, names: Sequence[str], numbers: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, all or some by number, with some columns; nested ones have dotted names."""
    where = folder.join_path(rel)
    try:
        with folder.open_input(rel) as opened:
            file = pq.ParquetFile(opened)
            paths = {
                _strip_list_levels(file.schema.column(n).path): file.schema.column(n).path
                for n in range(len(file.schema))
            }
            missing = [name for name in names if name not in paths]
            if missing:
                raise RepriseError(f"{where} has no column {', '.join(missing)}: is it a Reprise clip table?")
            columns = [paths[name] for name in names]
            start = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                inside = range(count) if numbers is None else [n - start for n in numbers]
                wanted = [n for n in inside if 0 <= n < count]
                start += count
                if wanted:
                    table = file.read_row_group(group, columns=columns)
                    yield from table.take(pa.array(wanted)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RepriseError(f"{where} cannot be read: {' '.join(str(error).split())}") from error


def _strip_list_levels(path: str) -> str:
    """A Parquet path without the names of list levels."""
    return re.sub(r"\.list\.(element|item|array)(?=\.|$)", "", path)


def hash_values(*values: Any) -> str:
    """A short hash of plain values, the same everywhere."""
    return hashlib.blake2b(json.dumps(values, ensure_ascii=False).encode(), digest_size=10).hexdigest()
