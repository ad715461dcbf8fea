"""Subjects200K (Tan et al. 2024, OminiControl) in its published layout: Parquet files of side-by-side pairs.

    image                record of bytes: two square panels side by side, each with a border
    collection           collection_1, collection_2 (panels of 528 px around 512), collection_3 (1024)
    quality_assessment   compositeStructure, objectConsistency, imageQuality, 0 to 5; null: not assessed
    description          item, category, description_0 (left), description_1 (right), description_valid

`objectConsistency` measures whether both panels show one subject.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from reprise.errors import RepriseError
from reprise.lists.folders import MessageCallback
from reprise.parquet_rows import read_table_rows
from reprise.storage import Storage
from training.latents.config import EncodeConfig, PairsConfig
from training.latents.sources.pair import PicturePair, make_item
from training.latents.sources.source import EncodeItem, PlannedItem, hash_values

SCORE_NAMES = ("compositeStructure", "objectConsistency", "imageQuality")
_ROW_COLUMNS = (
    *(f"quality_assessment.{name}" for name in SCORE_NAMES),
    "description.item",
    "description.description_0",
    "description.description_1",
    "description.description_valid",
)


@dataclass(frozen=True)
class Subjects200K:
    """A `Source`: the pairs of Subjects200K."""

    folder: Storage
    config: EncodeConfig = field(default_factory=EncodeConfig)

    @property
    def place(self) -> str:
        """Address of the folder."""
        return self.folder.uri

    def plan_items(self, notify: MessageCallback | None = None) -> list[PlannedItem]:
        """List every pair, also pairs that cannot be encoded.

        Raises:
            RepriseError: the Parquet files have no row, or lack a column.
        """
        planned = []
        for file in self._list_files():
            for number, row in enumerate(read_table_rows(self.folder, file, _ROW_COLUMNS)):
                drop, message = find_refusal(row, self.config.pairs)
                for side in list_target_sides(self.config.pairs):
                    name = hash_values(file.rpartition("/")[2], number, side)
                    key = hash_values(name, row["description"], self.config.pairs.words)
                    # Row and side share one number.
                    planned.append(PlannedItem(name, key, (file, 2 * number + side), drop, message))
        if not planned:
            raise RepriseError(f"no pair at {self.place}: its Parquet files have no row")
        return planned

    def load_items(self, places: Sequence[tuple[str, int]]) -> Iterator[EncodeItem]:
        """Read the pairs at some (file, 2 * row + side)."""
        for file in dict.fromkeys(file for file, _ in places):
            wanted = [number for other, number in places if other == file]
            rows = sorted({number // 2 for number in wanted})
            found = read_table_rows(self.folder, file, (*_ROW_COLUMNS, "image.bytes"), rows)
            held = dict(zip(rows, found, strict=True))
            for number in wanted:
                name = hash_values(file.rpartition("/")[2], number // 2, number % 2)
                source = hash_values(file.rpartition("/")[2], number // 2)
                yield make_item(make_pair(held[number // 2], number % 2, name, source), self.config.pairs)

    def describe_source(self) -> dict[str, Any]:
        """Return kind and address, for the manifest."""
        return {"kind": "subjects200k", "place": self.place}

    def _list_files(self) -> list[str]:
        inside = [f"data/{name}" for name in self.folder.list_names("data")]
        return sorted(name for name in (*self.folder.list_names(), *inside) if name.endswith(".parquet"))


def list_target_sides(config: PairsConfig) -> tuple[int, ...]:
    """List the panels that are targets: 0 left, 1 right. OminiControl uses both; one way, it is the right."""
    return (0, 1) if config.both_ways else (1,)


def find_refusal(row: Mapping[str, Any], config: PairsConfig) -> tuple[str | None, str]:
    """Find why a row is not used as a pair: (reason, message), or (None, "") if it is used."""
    scores, description = row["quality_assessment"] or {}, row["description"] or {}
    known = {name: scores.get(name) for name in SCORE_NAMES}
    item = description.get("item") or "a pair"
    if config.quality and any(value is None for value in known.values()):
        return "not assessed", f"{item}: no scores; pairs.quality=0 accepts it"
    if config.quality and (known["objectConsistency"] or 0) < config.quality:
        return "different subjects", f"{item}: objectConsistency {known['objectConsistency']}"
    low = next((name for name in SCORE_NAMES if config.quality and (known[name] or 0) < config.quality), None)
    if low:
        return "low quality", f"{item}: {low} {known[low]}"
    if description.get("description_valid") is False:
        return "invalid description", f"{item}: description_valid is false"
    if not (description.get("description_0") and description.get("description_1")):
        return "no caption", f"{item}: a description is missing"
    return None, ""


def make_pair(row: Mapping[str, Any], side: int, pair_id: str, source_id: str) -> PicturePair:
    """Make the pair whose target is one panel of a row (0 left, 1 right) and whose reference is the other."""
    description, data = row["description"], (row["image"] or {}).get("bytes") or b""
    try:
        panels = [_encode_png(panel) for panel in split_panels(Image.open(io.BytesIO(data)))]
    except (OSError, ValueError):
        panels = [data, data]  # reported as unreadable when the item is prepared
    caption, subject = description[f"description_{side}"], description["item"] or "subject"
    return PicturePair(pair_id, source_id, subject, caption, reference=panels[1 - side], target=panels[side])


def split_panels(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Split a side-by-side image into its left and right picture, without their borders.

    Each picture is a square in the middle of its half. Its side is the shorter side of the half, rounded down
    to a multiple of 64 px (528 -> 512). The published loader crops the right picture 8 px further left, which
    includes a strip of the border.

    Raises:
        ValueError: the image does not hold two panels.
    """
    half, height = image.width // 2, image.height
    side = min(half, height) // 64 * 64
    if side == 0 or half > 2 * height:
        raise ValueError(f"an image of {image.width}x{height} holds no two panels side by side")
    left, top = (half - side) // 2, (height - side) // 2
    boxes = [(x, top, x + side, top + side) for x in (left, half + left)]
    return image.crop(boxes[0]).convert("RGB"), image.crop(boxes[1]).convert("RGB")


def _encode_png(image: Image.Image) -> bytes:
    memory = io.BytesIO()
    image.save(memory, "PNG", compress_level=1)
    return memory.getvalue()
