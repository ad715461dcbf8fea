"""Run a generator ahead in a thread, so that decoding continues while the previous frame is encoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from queue import Empty, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class StalledError(Exception):
    """Nothing came in time.

    Native code cannot be interrupted. Its thread continues, so the memory that it uses must not be freed.
    """


class _EndOfItems(Generic[T]):
    """The end of the items, and the error that ended them, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def run_ahead(items: Iterator[T], depth: int, timeout_s: float | None = None) -> Generator[T, None, None]:
    """Yield the items of an iterator, which runs ahead in a thread.

    An error of `items` is raised at its place. When this generator is closed, the thread has ended.

    Args:
        items: what to yield, in the same order.
        depth: how many items are made before they are needed.
        timeout_s: how long to wait for an item; None: without limit.

    Raises:
        StalledError: no item came in time.
    """
    ready: Queue[T | _EndOfItems[T]] = Queue(depth)
    closed = Event()

    def fill_queue() -> None:
        error = None
        try:
            for item in items:
                ready.put(item)
                if closed.is_set():
                    return
        except BaseException as caught:
            error = caught
        ready.put(_EndOfItems(error))

    thread = Thread(target=fill_queue, name="reprise-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = ready.get(timeout=timeout_s)
            except Empty:
                raise StalledError from None
            if isinstance(item, _EndOfItems):
                break
            yield item
        if item.error is not None:
            raise item.error
    except StalledError:
        timeout_s = 0.0  # the wait is over already
        raise
    finally:
        closed.set()
        since = time.monotonic()
        while thread.is_alive():
            try:
                ready.get(timeout=0.01)
            except Empty:
                if timeout_s is not None and time.monotonic() - since > timeout_s:
                    raise StalledError from None
                thread.join(0.01)


def run_with_timeout(timeout_s: float, work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises.

    Raises:
        StalledError: it did neither in time, and may still run.
    """

    def yield_result() -> Iterator[T]:
        yield work()

    with closing(run_ahead(yield_result(), 1, timeout_s)) as results:
        return next(results)
