"""A generator that runs ahead gives what it would have given, and stops when nobody wants more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from curation.video.ahead import ahead


def test_items_come_in_order() -> None:
    assert list(ahead(iter(range(100)), 3)) == list(range(100))


def test_an_error_comes_out_where_it_happened() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("third")

    found = []
    with pytest.raises(ValueError, match="third"):
        for item in ahead(broken(), 5):
            found.append(item)  # noqa: PERF402
    assert found == [1, 2]


def test_it_runs_only_so_far_ahead_and_ends_when_closed() -> None:
    made = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    items = ahead(endless(), 2)
    assert next(items) == 0
    items.close()
    assert len(made) <= 6
    assert not [thread for thread in threading.enumerate() if thread.name == "reprise-ahead"]
