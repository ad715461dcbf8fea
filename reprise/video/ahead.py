"""Let a generator run ahead in a thread: decoding goes on while the frame before is encoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from queue import Empty, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Stalled(Exception):
    """Nothing came in time. Native code cannot be interrupted: the thread that runs it is left behind, and
    whatever it works on must not be freed."""


class _End(Generic[T]):
    """No more items, or why not."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterator[T], depth: int, timeout_s: float | None = None) -> Generator[T, None, None]:
    """The same items in the same order, at most `depth` of them made before they are asked for.

    An error of `items` comes out where it would have. When this generator is closed, the thread has ended.

    Args:
        timeout_s: how long to wait for an item, at most; None: for ever.

    Raises:
        Stalled: that was not long enough.
    """
    ready: Queue[T | _End[T]] = Queue(depth)
    unwanted = Event()

    def fill() -> None:
        error = None
        try:
            for item in items:
                ready.put(item)
                if unwanted.is_set():
                    return
        except BaseException as caught:
            error = caught
        ready.put(_End(error))

    thread = Thread(target=fill, name="reprise-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = ready.get(timeout=timeout_s)
            except Empty:
                raise Stalled from None
            if isinstance(item, _End):
                break
            yield item
        if item.error is not None:
            raise item.error
    except Stalled:
        timeout_s = 0.0  # has been waited for already
        raise
    finally:
        unwanted.set()
        since = time.monotonic()
        while thread.is_alive():
            try:
                ready.get(timeout=0.01)
            except Empty:
                if timeout_s is not None and time.monotonic() - since > timeout_s:
                    raise Stalled from None
                thread.join(0.01)


def within(timeout_s: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises.

    Raises:
        Stalled: it did neither in time, and may still be at it.
    """

    def once() -> Iterator[T]:
        yield work()

    with closing(ahead(once(), 1, timeout_s)) as results:
        return next(results)
