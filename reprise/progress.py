"""How long work reports its progress. A command shows it; the work does not know how."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Reports phases of work one after another, each between `begin` and `end`."""

    def begin(self, task: str, total: int, done: int = 0) -> None:
        """Begin a phase of `total` items, of which an earlier run finished `done`."""

    def advance(self, by: int = 1, note: str | None = None) -> None:
        """Count `by` more items as finished; `note` is a few words on the state of the work."""

    def end(self) -> None:
        """End the phase."""


class NoProgress:
    """Reports nothing."""

    def begin(self, task: str, total: int, done: int = 0) -> None:
        """Do nothing."""

    def advance(self, by: int = 1, note: str | None = None) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""
