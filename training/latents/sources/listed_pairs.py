"""Pairs of files: a CSV, JSONL, JSON or Parquet list, or a folder with references/ and targets/.

A list has the columns reference and target (paths, relative to the list) and caption. The columns subject
(its name) and same_subject (false: two different subjects) are optional. A folder has targets/NAME.png with
targets/NAME.txt, and references/NAME.png; pictures can have any format of `PICTURE_ENDINGS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reprise.errors import RepriseError
from reprise.lists.captions import choose_caption, list_sidecar_names, read_sidecar
from reprise.lists.extensions import LIST_EXTENSIONS, get_extension
from reprise.lists.folders import MessageCallback
from reprise.lists.tables import ListRow, read_list
from reprise.lists.text import clean_text
from reprise.storage import FileInfo, Storage, locate_file, resolve_relative_path
from training.latents.config import EncodeConfig
from training.latents.sources.pair import PicturePair, make_item
from training.latents.sources.source import EncodeItem, PlannedItem, hash_values

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class ListedPairs:
    """A `Source`: pairs of picture files, named by a list or found in a folder."""

    uri: str
    config: EncodeConfig = field(default_factory=EncodeConfig)

    @property
    def place(self) -> str:
        """Address of the list or the folder."""
        return Storage.from_uri(self.uri).uri

    def plan_items(self, notify: MessageCallback | None = None) -> list[PlannedItem]:
        """List every pair, also pairs that cannot be encoded.

        Raises:
            RepriseError: there is no pair, or a row of the list lacks a picture.
        """
        planned = []
        for row in self._read_rows():
            found = [self._stat_picture(row[name]) for name in ("reference", "target") if row[name]]
            stamps = [(each.size, each.stamp) for each in found if each.size >= 0]
            drop, message = self._find_refusal(row, len(stamps) < 2)
            name = hash_values(self.place, row["reference"], row["target"])
            key = hash_values(name, stamps, row["caption"], self.config.pairs.words)
            planned.append(PlannedItem(name, key, (json.dumps([row], sort_keys=True), 0), drop, message))
        if not planned:
            raise RepriseError(f"no pair at {self.place}")
        return planned

    def load_items(self, places: Sequence[tuple[str, int]]) -> Iterator[EncodeItem]:
        """Read the pairs at some places. A place holds the row of its pair as JSON."""
        for named, _ in places:
            (row,) = json.loads(named)
            pair = PicturePair(
                pair_id=hash_values(self.place, row["reference"], row["target"]),
                source_id=hash_values(self.place, row["reference"]),
                subject=row["subject"] or "subject",
                caption=row["caption"] or "",
                reference=self._read_picture(row["reference"]),
                target=self._read_picture(row["target"]),
            )
            yield make_item(pair, self.config.pairs)

    def describe_source(self) -> dict[str, Any]:
        """Return kind and address, for the manifest."""
        return {"kind": "pairs", "place": self.place}

    def _find_refusal(self, row: Mapping[str, Any], missing: bool) -> tuple[str | None, str]:
        if row["problem"]:
            return row["problem"][0], f"{row['target'] or self.place}: {row['problem'][1]}"
        if row["same_subject"] is False:
            return "different subjects", f"{row['target']}: same_subject is false"
        if missing:
            return "missing file", f"{row['reference']} or {row['target']}"
        if not row["caption"] and self.config.captions == "required":
            return "no caption", row["target"]
        return None, ""

    def _locate_picture(self, path: str) -> tuple[Storage, str]:
        """Return the storage and the name of a picture, whose path is relative to the folder or the list."""
        base = self.place if is_list(self.uri) else Storage.from_uri(self.uri).join_path("list")
        return locate_file(resolve_relative_path(base, path))

    def _stat_picture(self, path: str) -> FileInfo:
        storage, name = self._locate_picture(path)
        return storage.stat_file(name)

    def _read_picture(self, path: str) -> bytes:
        storage, name = self._locate_picture(path)
        return storage.read_bytes(name)

    def _read_rows(self) -> list[dict[str, Any]]:
        if not is_list(self.uri):
            return list(_iterate_folder(Storage.from_uri(self.uri)))
        rows = read_list(self.place)
        for column in ("reference", "target"):
            if not any(row.values.get(column) for row in rows):
                raise RepriseError(f"{self.place} has no column {column}: both columns are needed")
        return [_make_row(row) for row in rows]


def is_list(uri: str) -> bool:
    """Return True if an address has the extension of a list."""
    return get_extension(uri) in LIST_EXTENSIONS


def _make_row(row: ListRow) -> dict[str, Any]:
    values = row.values
    missing = [column for column in ("reference", "target") if not values.get(column)]
    problem = row.problem or (f"{row.position}: no {missing[0]}" if missing else None)
    return {
        "reference": str(values.get("reference") or ""),
        "target": str(values.get("target") or ""),
        "caption": clean_text(values.get("caption")),
        "subject": clean_text(values.get("subject")),
        "same_subject": _parse_flag(values.get("same_subject")),
        "problem": ("unreadable", problem) if problem else None,
    }


def _iterate_folder(folder: Storage) -> Iterator[dict[str, Any]]:
    names, target_names = folder.list_names("references"), set(folder.list_names("targets"))
    stems = {name.rpartition(".")[0]: name for name in names if name.lower().endswith(PICTURE_ENDINGS)}
    for name in sorted(target_names):
        stem = name.rpartition(".")[0]
        if name.lower().endswith(PICTURE_ENDINGS):
            caption = choose_caption(
                read_sidecar(folder.join_path(f"targets/{each}"), folder.join_path(f"targets/{name}"))
                for each in list_sidecar_names(name)
                if each in target_names
            )
            yield {
                "reference": f"references/{stems.get(stem, f'{stem}.png')}",
                "target": f"targets/{name}",
                "caption": caption.text,
                "subject": None,
                "same_subject": None,
                "problem": ("unreadable caption", caption.problem) if caption.problem else None,
            }


def _parse_flag(value: Any) -> bool | None:
    if value is None or value == "":
        return None
    return str(value).strip().lower() not in ("false", "0", "no")
