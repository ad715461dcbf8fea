"""What a source of items to encode is.

A source first lists its items (`plan_items`, on the driver, without pictures or videos), then gives those
that are asked for (`load_items`, on a worker). Both see the same rows: finished ones are not read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reprise.storage import Storage


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One row of the source, before anything of it was opened."""

    sample_id: str
    key: str  # hash of all that decides its latents
    place: tuple[str, int] = ("", 0)  # (file, row): where `load_items` finds it
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


def hash_values(*values: Any) -> str:
    """A short hash of plain values, the same everywhere."""
    return hashlib.blake2b(json.dumps(values, ensure_ascii=False).encode(), digest_size=10).hexdigest()
