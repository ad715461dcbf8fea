"""The protocol of a source of items to encode.

The driver lists the items of a source with `plan_items`, without reading pictures or videos. A worker reads
the items that it encodes with `load_items`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reprise.lists.folders import MessageCallback
from reprise.storage import Storage


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One row of a source, before its pictures and its video are read."""

    sample_id: str
    key: str  # hash of everything that determines its latents
    place: tuple[str, int] = ("", 0)  # (file, row), where `load_items` finds it
    drop: str | None = None  # the reason, if it cannot be encoded
    message: str = ""  # the reason in detail


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
    media: Path | tuple[Storage, str] | bytes  # a local file, a file of a storage, or the bytes of a file
    pictures: tuple[SubjectPicture, ...] = ()
    still: bool = False  # the media is a picture, not a video


class Source(Protocol):
    """A source of items. It holds only addresses and settings, so that it can be sent to workers."""

    @property
    def place(self) -> str:
        """Address of the source."""

    def plan_items(self, notify: MessageCallback | None = None) -> list[PlannedItem]:
        """List every row, also rows that cannot be encoded.

        Args:
            notify: is called with lines for people: what was found and what was ignored.

        Raises:
            RepriseError: the source is missing, empty, or has another format.
        """

    def load_items(self, places: Sequence[tuple[str, int]]) -> Iterator[EncodeItem]:
        """Read the items at some places, in the order of the places."""

    def describe_source(self) -> dict[str, Any]:
        """Return what the manifest records of the source."""


def hash_values(*values: Any) -> str:
    """Compute a hash of values that JSON can hold: 20 hex digits, the same on every machine."""
    return hashlib.blake2b(json.dumps(values, ensure_ascii=False).encode(), digest_size=10).hexdigest()
