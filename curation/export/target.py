"""The interface of an export target, which writes the layout of one trainer's data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from curation.export.config import ExportConfig
from curation.export.needs import TargetNeeds
from curation.export.sample import Sample
from curation.export.unit_writer import UnitWriter
from reprise.storage import Storage

# The entry of a sample for the target's index. Plain JSON.
Record = dict[str, Any]


@dataclass(frozen=True)
class TargetHolds:
    """What a layout can store of a clip. The table in the docs shows it."""

    references: str  # for example "1", "up to 9", "any number", "none"
    masks: bool = False
    boxes: bool = False
    licenses: bool = False


@dataclass(frozen=True)
class FinishedExport:
    """The input of `ExportTarget.write_index`."""

    writer: UnitWriter  # writes the files that an export has once
    config: ExportConfig
    counts: dict[str, int]  # split -> samples
    read_records: Callable[[str], Iterator[Record]]  # split -> records in the order of the samples
    manifest: dict[str, Any]  # manifest of the dataset

    @property
    def splits(self) -> list[str]:
        """The splits that have samples."""
        return [split for split, count in self.counts.items() if count]


class ExportTarget(Protocol):
    """The layout of one trainer. It has no state, so it can be sent to workers.

    A subclass inherits a `find_obstacle` that finds none.
    """

    name: str
    title: str  # usual name of the trainer
    needs: TargetNeeds
    holds: TargetHolds

    def find_obstacle(self, row: dict[str, Any], references: int) -> str | None:
        """Return why a clip that meets `needs` still cannot be exported; None: it can.

        Args:
            row: the row without pictures.
            references: the number of its references that would be exported.
        """
        return None

    def write_samples(self, samples: Iterable[Sample], writer: UnitWriter) -> Iterator[Record]:
        """Write the files of a unit's samples and yield one record per sample, in their order."""
        ...

    def write_index(self, export: FinishedExport) -> Sequence[str]:
        """Write the files that an export has once: lists, configs, cards.

        Returns:
            The commands that start the trainer on this data, one per line, to show to the user.
        """
        ...

    def check_export(self, output: Storage) -> Iterable[str]:
        """Yield one message for each thing that the trainer's loader would refuse, drop or change."""
        ...
