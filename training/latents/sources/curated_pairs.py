"""Pairs from a dataset that `reprise curate` wrote: two kept references of one subject."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reprise.errors import RepriseError
from reprise.lists.folders import MessageCallback
from reprise.parquet_rows import read_placed_rows, read_table_rows
from reprise.storage import Storage
from training.latents.config import EncodeConfig, PairsConfig
from training.latents.sources.curated import list_shards
from training.latents.sources.pair import PicturePair, make_item
from training.latents.sources.source import EncodeItem, PlannedItem, hash_values

_ROW_COLUMNS = (
    "clip_id",
    "video_id",
    "caption",
    "status",
    "config_hash",
    "subjects.subject_id",
    "subjects.category",
    "subjects.phrase",
    "subjects.verdict.kept",
    "subjects.references.reference_id",
    "subjects.references.variant",
    "subjects.references.kept",
    "subjects.references.prompt",
)


@dataclass(frozen=True)
class CuratedPairs:
    """A `Source`: pairs of kept references in a dataset that `reprise curate` wrote."""

    folder: Storage
    config: EncodeConfig = field(default_factory=EncodeConfig)

    @property
    def place(self) -> str:
        """Address of the dataset."""
        return self.folder.uri

    def plan_items(self, notify: MessageCallback | None = None) -> list[PlannedItem]:
        """List every pair of the dataset.

        Raises:
            RepriseError: there is no pair.
        """
        planned = []
        for file in self._list_files():
            for number, row in enumerate(read_table_rows(self.folder, file, _ROW_COLUMNS)):
                for which, (subject, reference, target) in enumerate(iterate_pairs(row, self.config.pairs)):
                    name = _make_pair_id(reference, target)
                    key = hash_values(
                        name,
                        choose_target_caption(row, subject, target),
                        row["config_hash"],
                        self.config.pairs.words,
                    )
                    planned.append(PlannedItem(name, key, (file, number * _MAX_PAIRS_PER_ROW + which)))
        if not planned:
            raise RepriseError(
                f"no pair in the dataset at {self.place}: it has no kept subject with two references, one of "
                f"which is of the variants {', '.join(self.config.pairs.targets)} (pairs.targets)"
            )
        return planned

    def load_items(self, places: Sequence[tuple[str, int]]) -> Iterator[EncodeItem]:
        """Read the pairs at some (shard, row and number of the pair)."""
        names = (*_ROW_COLUMNS, "subjects.references.image.bytes")
        for _, row, which in read_placed_rows(self.folder, names, places, per_row=_MAX_PAIRS_PER_ROW):
            subject, reference, target = list(iterate_pairs(row, self.config.pairs))[which]
            pair = PicturePair(
                pair_id=_make_pair_id(reference, target),
                source_id=row["video_id"],
                subject=subject["category"],
                caption=choose_target_caption(row, subject, target),
                reference=(reference["image"] or {}).get("bytes") or b"",
                target=(target["image"] or {}).get("bytes") or b"",
            )
            yield make_item(pair, self.config.pairs)

    def describe_source(self) -> dict[str, Any]:
        """Return kind and address, for the manifest."""
        return {"kind": "curated pairs", "place": self.place}

    def _list_files(self) -> list[str]:
        return list_shards(self.folder)


# Row and pair share one number: row * _MAX_PAIRS_PER_ROW + pair. A clip has far fewer pairs.
_MAX_PAIRS_PER_ROW = 10_000


def iterate_pairs(
    row: Mapping[str, Any], config: PairsConfig
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]:
    """Yield (subject, reference, target) of every ordered pair of kept references of one kept subject.

    The target has one of the variants that show a scene (`config.targets`). Two references of one variant, of
    different frames, are also a pair.
    """
    if row["status"] != "kept":
        return
    for subject in row["subjects"] or ():
        if not (subject["verdict"] or {}).get("kept"):
            continue
        kept = [reference for reference in subject["references"] or () if reference["kept"]]
        for target in kept:
            if target["variant"] in config.targets:
                yield from ((subject, reference, target) for reference in kept if reference is not target)


def choose_target_caption(
    row: Mapping[str, Any], subject: Mapping[str, Any], target: Mapping[str, Any]
) -> str:
    """Choose the caption of a target: the clip's for a crop, else the prompt that made it, or its subject."""
    if target["variant"] == "crop" and row["caption"]:
        return str(row["caption"])
    return str(target["prompt"] or subject["phrase"] or subject["category"])


def _make_pair_id(reference: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    return hash_values(reference["reference_id"], target["reference_id"])
