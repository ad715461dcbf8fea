"""Let a generator run ahead in a thread: decoding goes on while the frame before is encoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from queue import Empty, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class StalledError(Exception):
    """Nothing came in time. Native code cannot be interrupted: the thread that runs it is left behind, and
    whatever it works on must not be freed."""


class _EndOfItems(Generic[T]):
    """No more items, or why not."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def run_ahead(items: Iterator[T], depth: int, timeout_s: float | None = None) -> Generator[T, None, None]:
    """The same items in the same order, at most `depth` of them made before they are asked for.

    An error of `items` comes out where it would have. When this generator is closed, the thread has ended.

    Args:
        timeout_s: how long to wait for an item, at most; None: for ever.

    Raises:
        Stalled: that was not long enough.
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
        timeout_s = 0.0  # has been waited for already
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
    """What `work` returns or raises.

    Raises:
        Stalled: it did neither in time, and may still be at it.
    """

    def yield_result() -> Iterator[T]:
        yield work()

    with closing(run_ahead(yield_result(), 1, timeout_s)) as results:
        return next(results)
