"""Pairs of files: a CSV, JSONL or Parquet list, or a folder with references/ and targets/.

A list has the columns reference and target (paths, relative to the list) and caption; subject (what it is, in
words) and same_subject (false: two different ones) may be there. A folder has targets/NAME.png with
targets/NAME.txt and a references/NAME.png of any picture format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reprise.errors import RepriseError
from training.latents.config import EncodeConfig
from training.latents.sources.pair import Pair, item_of
from training.latents.sources.source import Item, Planned, digest, list_rows
from training.storage import Folder

ENDINGS = (".csv", ".jsonl", ".parquet")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class ListedPairs:
    uri: str
    config: EncodeConfig = field(default_factory=EncodeConfig)

    @property
    def place(self) -> str:
        return Folder.at(self.uri).uri

    def plan(self) -> list[Planned]:
        folder, rows = self._rows()
        planned = []
        for row in rows:
            sizes = [folder.stat(row["reference"]), folder.stat(row["target"])]
            stamps = [(each.size, each.stamp) for each in sizes if each]
            drop, words = self._refused(row, len(stamps) < 2)
            name = digest(self.place, row["reference"], row["target"])
            key = digest(name, stamps, row["caption"], self.config.pairs.words)
            planned.append(Planned(name, key, (json.dumps([row], sort_keys=True), 0), drop, words))
        if not planned:
            raise RepriseError(f"no pair at {self.place}")
        return planned

    def load(self, places: Sequence[tuple[str, int]]) -> Iterator[Item]:
        folder = self._folder()
        for named, _ in places:
            (row,) = json.loads(named)
            pair = Pair(
                pair_id=digest(self.place, row["reference"], row["target"]),
                source_id=digest(self.place, row["reference"]),
                subject=row["subject"] or "subject",
                caption=row["caption"] or "",
                reference=folder.read(row["reference"]),
                target=folder.read(row["target"]),
            )
            yield item_of(pair, self.config.pairs)

    def describe(self) -> dict[str, Any]:
        return {"kind": "pairs", "place": self.place}

    def _refused(self, row: Mapping[str, Any], missing: bool) -> tuple[str | None, str]:
        if row["same_subject"] is False:
            return "different subjects", f"{row['target']}: same_subject is false"
        if missing:
            return "missing file", f"{row['reference']} or {row['target']}"
        if not row["caption"] and self.config.captions == "required":
            return "no caption", row["target"]
        return None, ""

    def _folder(self) -> Folder:
        return Folder.at(self.place.rpartition("/")[0]) if self.uri.endswith(ENDINGS) else Folder.at(self.uri)

    def _rows(self) -> tuple[Folder, list[dict[str, Any]]]:
        folder = self._folder()
        if not self.uri.endswith(ENDINGS):
            return folder, list(_found(folder))
        name = self.place.rpartition("/")[2]
        rows = list_rows(folder, name)
        for column in ("reference", "target"):
            if any(not row.get(column) for row in rows):
                raise RepriseError(f"{self.place} has a row without {column}: both columns are needed")
        return folder, [
            {
                "reference": str(row["reference"]),
                "target": str(row["target"]),
                "caption": str(row.get("caption") or "") or None,
                "subject": str(row.get("subject") or "") or None,
                "same_subject": _flag(row.get("same_subject")),
            }
            for row in rows
        ]


def _found(folder: Folder) -> Iterator[dict[str, Any]]:
    names, words = folder.names("references"), set(folder.names("targets"))
    stems = {name.rpartition(".")[0]: name for name in names if name.lower().endswith(PICTURES)}
    for name in sorted(words):
        stem = name.rpartition(".")[0]
        if name.lower().endswith(PICTURES):
            text = (
                folder.read(f"targets/{stem}.txt").decode("utf-8", "replace")
                if f"{stem}.txt" in words
                else ""
            )
            yield {
                "reference": f"references/{stems.get(stem, f'{stem}.png')}",
                "target": f"targets/{name}",
                "caption": text.strip() or None,
                "subject": None,
                "same_subject": None,
            }


def _flag(value: Any) -> bool | None:
    if value is None or value == "":
        return None
    return str(value).strip().lower() not in ("false", "0", "no")
