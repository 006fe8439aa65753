"""Run a function over many items in threads: a bounded number at once, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["Lane", "parallel"]

T = TypeVar("T")
R = TypeVar("R")


class Lane(Generic[T, R]):
    """A thread pool that never holds more than ``workers`` running and as many waiting items.

    One thread feeds it and takes the results; each is an item with its future, which is done. Leaving the ``with``
    block drops what waits and lets what runs come to its end, without waiting for that after Ctrl-C.

    Results come through a queue: to wait for any of many futures costs as much as there are of them, for each item.
    """

    def __init__(self, function: Callable[[T], R], *, workers: int) -> None:
        self._function = function
        self._room = 2 * workers
        self._pool = ThreadPoolExecutor(workers)
        self._running: dict[Future[R], T] = {}
        self._done: SimpleQueue[Future[R]] = SimpleQueue()

    def put(self, item: T) -> Iterator[tuple[T, Future[R]]]:
        """Hand over an item, and yield what has finished meanwhile; wait for that while the lane is full."""
        future = self._pool.submit(self._function, item)
        self._running[future] = item
        future.add_done_callback(self._done.put)
        if len(self._running) >= self._room:
            yield self._taken(self._done.get())
        yield from self._finished()

    def finish(self) -> Iterator[tuple[T, Future[R]]]:
        """Yield everything that is still under way, as it ends."""
        while self._running:
            yield self._taken(self._done.get())

    def stop(self) -> Iterator[tuple[T, Future[R]]]:
        """Drop what has not begun, and yield the rest as it ends."""
        for future in [future for future in self._running if future.cancel()]:
            del self._running[future]
        while self._running:  # not the queue: an interrupt may have lost what was just taken from it
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            yield from map(self._taken, done)

    def _finished(self) -> Iterator[tuple[T, Future[R]]]:
        while True:
            try:
                future = self._done.get_nowait()
            except Empty:
                return
            yield self._taken(future)

    def _taken(self, future: Future[R]) -> tuple[T, Future[R]]:
        return self._running.pop(future), future

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._pool.shutdown(wait=not isinstance(exc, KeyboardInterrupt), cancel_futures=True)


def parallel(function: Callable[[T], R], items: Iterable[T], *, workers: int) -> Iterator[tuple[T, Future[R]]]:
    """Yield each item with its finished future, in the order in which they end; items are taken as there is room."""
    with Lane(function, workers=workers) as lane:
        for item in items:
            yield from lane.put(item)
        yield from lane.finish()
