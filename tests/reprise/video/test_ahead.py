"""A generator that runs ahead yields the same values, and stops when its consumer stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from reprise.video.ahead import StalledError, run_ahead, run_with_timeout


def test_items_come_in_order() -> None:
    assert list(run_ahead(iter(range(100)), 3)) == list(range(100))


def test_an_error_comes_out_where_it_happened() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("third")

    found = []
    with pytest.raises(ValueError, match="third"):
        for item in run_ahead(broken(), 5):
            found.append(item)  # noqa: PERF402
    assert found == [1, 2]


def test_it_runs_only_so_far_ahead_and_ends_when_closed() -> None:
    made = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    items = run_ahead(endless(), 2)
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

    items = run_ahead(stuck(), 2, timeout_s=0.05)
    assert next(items) == 1
    with pytest.raises(StalledError):
        next(items)
    with pytest.raises(StalledError):
        run_with_timeout(0.05, woken.wait)
    woken.set()


def test_a_generator_that_hangs_does_not_block_a_consumer_that_stops() -> None:
    woken = threading.Event()

    def stuck() -> Iterator[int]:
        yield 1
        woken.wait()

    items = run_ahead(stuck(), 2, timeout_s=0.05)
    assert next(items) == 1
    with pytest.raises(StalledError):  # so that the buffers of the thread are not freed
        items.close()
    woken.set()


def test_within_gives_the_result_or_the_error() -> None:
    assert run_with_timeout(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        run_with_timeout(5, lambda: 1 // 0)
