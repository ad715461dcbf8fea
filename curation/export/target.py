"""What an export target is: the layout of one trainer's data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from curation.export.config import ExportConfig
from curation.export.needs import TargetNeeds
from curation.export.sample import Sample
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

# What a sample leaves behind for the target's index. Plain JSON.
Record = dict[str, Any]


@dataclass(frozen=True)
class TargetHolds:
    """What a layout can hold of a clip, for the table in the docs."""

    references: str  # such as "1", "up to 9", "any number", "none"
    several_subjects: bool = True
    masks: bool = False
    boxes: bool = False
    licenses: bool = False


@dataclass(frozen=True)
class FinishedExport:
    """What the closing of an export needs to know."""

    writer: UnitWriter  # of what stands once per export
    config: ExportConfig
    counts: dict[str, int]  # split -> samples
    read_records: Callable[[str], Iterator[Record]]  # split -> records in the order of the samples
    manifest: dict[str, Any]  # of the dataset


class ExportTarget(Protocol):
    """The layout of one trainer. It holds no state, so that it travels to workers.

    A class that names it as its base inherits `find_obstacle`.
    """

    name: str
    title: str  # the trainer, as people call it
    needs: TargetNeeds
    holds: TargetHolds

    def find_obstacle(self, row: dict[str, Any], references: int) -> str | None:
        """Say why a clip cannot go, besides what `needs` says; None: it can.

        Args:
            row: the row without pictures.
            references: how many of its pictures would go.
        """
        return None

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write the files of a unit's samples and yield one record per sample, in their order."""
        ...

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write what stands once per export: lists, configs, cards.

        Returns:
            Lines for a person: the commands with which the trainer starts on this data.
        """
        ...

    def check_export(self, output: Storage) -> Iterable[str]:
        """Yield what the trainer's loader would refuse, drop or change, one line each."""
        ...
