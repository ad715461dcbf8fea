"""Let a generator run ahead in a thread: decoding goes on while the frame before is encoded."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class _End(Generic[T]):
    """No more items, or why not."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The same items in the same order, at most `depth` of them made before they are asked for.

    An error of `items` comes out where it would have. When this generator is closed, the thread has ended.
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
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        while thread.is_alive():
            try:
                ready.get(timeout=0.01)
            except Empty:
                thread.join(0.01)
