"""The clips of a dataset that `reprise curate` wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from reprise.errors import RepriseError
from reprise.json_files import read_json_object
from reprise.lists.folders import MessageCallback
from reprise.parquet_rows import read_placed_rows, read_table_rows
from reprise.storage import Storage
from training.latents.config import EncodeConfig
from training.latents.sources.source import EncodeItem, PlannedItem, SubjectPicture, hash_values

# Columns that are read (docs/dataset.md). Pictures are read only for rows that are encoded.
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


def list_shards(dataset: Storage) -> list[str]:
    """List the Parquet files of a dataset: those that its manifest names, else all in `data/`.

    Other files may lie beside those that count, after a killed `reprise refilter`.
    """
    found = sorted(f"data/{name}" for name in dataset.list_names("data") if name.endswith(".parquet"))
    manifest = read_json_object(dataset, "manifest.json") or {}
    try:
        named = [shard["path"] for shard in manifest["shards"]]
    except (TypeError, KeyError):
        return found
    return named or found


@dataclass(frozen=True)
class CuratedSource:
    """A `Source`: the clips of a dataset that `reprise curate` wrote."""

    folder: Storage
    config: EncodeConfig = field(default_factory=EncodeConfig)

    @property
    def place(self) -> str:
        """Address of the dataset."""
        return self.folder.uri

    def plan_items(self, notify: MessageCallback | None = None) -> list[PlannedItem]:
        """List every row of the dataset, also rows that cannot be encoded.

        Raises:
            RepriseError: the dataset does not exist, is not finished, or has no row.
        """
        shards = list_shards(self.folder)
        if not self.folder.exists("manifest.json"):
            state = "is not finished: run `reprise curate` again" if shards else "has no manifest.json"
            raise RepriseError(f"no dataset at {self.place}: it {state}")
        planned = []
        for path in shards:
            for number, row in enumerate(read_table_rows(self.folder, path, _ROW_COLUMNS)):
                planned.append(self._plan_row(row, (path, number)))
        if not planned:
            raise RepriseError(f"the dataset at {self.place} has no row")
        return planned

    def load_items(self, places: Sequence[tuple[str, int]]) -> Iterator[EncodeItem]:
        """Read the clips at some (shard, row), with their pictures."""
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
        """Return kind, address and config hash of the dataset, for the manifest."""
        data = read_json_object(self.folder, "manifest.json") or {}
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
        """List (subject, reference) of the kept references of kept subjects, of the configured variants."""
        variants = self.config.references.variants
        return [
            (subject, reference)
            for subject in row["subjects"] or ()
            if (subject["verdict"] or {}).get("kept")
            for reference in subject["references"] or ()
            if reference["kept"] and reference["variant"] in variants
        ]


def _hash_curated_row(row: dict[str, Any], references: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    # Ids are hashes of content. Revision, seed, donor and the row's config determine a generated picture.
    reference_fields = [
        [
            s["subject_id"],
            s["category"],
            *(r[k] for k in ("reference_id", "revision", "seed", "donor_clip_id")),
        ]
        for s, r in references
    ]
    return hash_values(row["clip_id"], row["caption"], row["config_hash"], reference_fields)
