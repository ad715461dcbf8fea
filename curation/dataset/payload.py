"""The size of a row, `payload_bytes`, which determines how rows are split into shards."""

from __future__ import annotations

from typing import Any

from curation.rows.schema import ClipRow


def count_payload_bytes(row: ClipRow) -> int:
    """Count the bytes of the pictures in a row."""
    total = sum(
        _count_image_bytes(frame["image"]) + _count_image_bytes(frame["motion"]) for frame in row["frames"]
    )
    for subject in row["subjects"]:
        total += sum(_count_image_bytes(reference["image"]) for reference in subject["references"])
    return total


def _count_image_bytes(image: Any) -> int:
    return len(image["bytes"]) if image and image["bytes"] else 0
