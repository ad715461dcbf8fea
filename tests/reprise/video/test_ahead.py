"""A generator that runs ahead gives what it would have given, and stops when nobody wants more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from reprise.video.ahead import Stalled, ahead, within


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


def test_what_does_not_come_in_time_is_given_up_and_its_thread_left_behind() -> None:
    woken = threading.Event()

    def stuck() -> Iterator[int]:
        yield 1
        woken.wait()
        yield 2

    items = ahead(stuck(), 2, timeout_s=0.05)
    assert next(items) == 1
    with pytest.raises(Stalled):
        next(items)
    with pytest.raises(Stalled):
        within(0.05, woken.wait)
    woken.set()


def test_one_that_hangs_keeps_nobody_who_wants_no_more() -> None:
    woken = threading.Event()

    def stuck() -> Iterator[int]:
        yield 1
        woken.wait()

    items = ahead(stuck(), 2, timeout_s=0.05)
    assert next(items) == 1
    with pytest.raises(Stalled):  # so that nobody frees what the thread works on
        items.close()
    woken.set()


def test_within_gives_the_result_or_the_error() -> None:
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
