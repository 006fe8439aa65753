"""Run a function over many items: a bounded number at once, in threads or fibers, results as they come."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar, cast

from shiftable.fibers import Fiber, Loop, loop

__all__ = ["Done", "Ended", "Fibers", "Lane", "Threads", "lane", "parallel"]

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_PATIENCE = 0.05
_NEVER = 1 << 62


class Done(Protocol[R_co]):
    """What became of an item: as much of a future as is of use when it is done."""

    def result(self) -> R_co:
        """Return what the function returned, or raise what it raised."""

    def exception(self) -> BaseException | None:
        """Return what it raised."""


class Ended(Generic[R]):
    """What became of an item that nobody waits for: a future has a lock, which costs as much as a small call."""

    __slots__ = ("_error", "_value")

    def __init__(self, value: R | None = None, error: BaseException | None = None) -> None:
        self._value = value
        self._error = error

    def result(self) -> R:
        """Return what the function returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return cast("R", self._value)

    def exception(self) -> BaseException | None:
        """Return what it raised."""
        return self._error


class Lane(Protocol[T, R_co]):
    """Runs a function over the items that it is handed, so many at once.

    One thread feeds it and takes the results; each is an item with what became of it. Leaving the ``with``
    block drops what waits and lets what runs come to its end, without waiting for that after Ctrl-C.
    """

    def put(self, item: T) -> Iterator[tuple[T, Done[R_co]]]:
        """Hand over an item, and yield what has finished meanwhile; wait for that while the lane is full."""

    def finished(self) -> Iterator[tuple[T, Done[R_co]]]:
        """Yield what has finished, and wait for nothing."""

    def finish(self) -> Iterator[tuple[T, Done[R_co]]]:
        """Yield everything that is still under way, as it ends."""

    def stop(self) -> Iterator[tuple[T, Done[R_co]]]:
        """Drop what has not begun, and yield the rest as it ends."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


def lane(
    function: Callable[[T], R], *, workers: int, width: Callable[[], int] | None = None, fibers: bool = False
) -> Lane[T, R]:
    """Return a lane of threads; of fibers, if that is asked for and there are any.

    Args:
        width: of a lane of fibers: so many of the workers may be running now.
        fibers: the function gives way while it waits, as ``shiftable.fibers`` tells.
    """
    found = loop() if fibers else None
    return Threads(function, workers=workers) if found is None else Fibers(function, found, width or (lambda: workers))


class Fibers(Generic[T, R]):
    """A lane in the thread that feeds it: items run in fibers, while it waits for them and in whatever they wait for.

    They stand still while the thread does something else. No lock is fought for, and nobody has to be woken. What still
    runs after Ctrl-C is ended where it waits, and cleans up.
    """

    def __init__(self, function: Callable[[T], R], loop: Loop, width: Callable[[], int]) -> None:
        self._function = function
        self._loop = loop
        self._width = width
        self._running: list[Fiber] = []
        self._done: deque[tuple[T, Done[R]]] = deque()

    def put(self, item: T) -> Iterator[tuple[T, Done[R]]]:
        """Hand over an item, and yield what has finished meanwhile; wait for that while the lane is full."""
        # Only who looks like too many is counted anew: that is a look at each.
        while len(self._running) >= self._width() and self._count() >= self._width():
            self._loop.turn()
        self._running.append(self._loop.start(self._work, item))
        return self.finished()

    def finished(self) -> Iterator[tuple[T, Done[R]]]:
        """Yield what has finished, and wait for nothing."""
        while self._done:
            yield self._done.popleft()

    def finish(self) -> Iterator[tuple[T, Done[R]]]:
        """Yield everything that is still under way, as it ends."""
        while self._count():
            self._loop.turn()
            yield from self.finished()
        yield from self.finished()

    stop = finish  # everything has begun

    def _count(self) -> int:
        self._running = [fiber for fiber in self._running if not fiber.dead]
        return len(self._running)

    def _work(self, item: T) -> None:
        try:
            done = Ended(self._function(item))
        except BaseException as exc:  # noqa: BLE001  it is raised where the result is asked for
            done = Ended(error=exc)
        self._done.append((item, done))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        try:
            while self._count() and not isinstance(exc, KeyboardInterrupt):
                self._loop.turn()
        finally:
            for fiber in self._running:  # threads would come to their end; these stand still from now on
                fiber.end()
            self._loop.rest()


class Threads(Generic[T, R]):
    """Threads that never hold more than ``workers`` running and as many waiting items.

    Who feeds is woken when a quarter of the room is free, or after 50 ms if anything is: to be woken for every item, as
    a thread pool's futures do, costs more than an object of 4 KiB.
    """

    def __init__(self, function: Callable[[T], R], *, workers: int) -> None:
        self._function = function
        self._workers = workers
        self._room = 2 * workers
        self._todo: SimpleQueue[tuple[T, Future[R]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._running: dict[Future[R], T] = {}
        self._done: deque[Future[R]] = deque()
        self._wanted = _NEVER
        self._wake = threading.Event()

    def put(self, item: T) -> Iterator[tuple[T, Done[R]]]:
        """Hand over an item, and yield what has finished meanwhile; wait for that while the lane is full."""
        future: Future[R] = Future()
        self._running[future] = item
        self._todo.put((item, future))
        if len(self._threads) < min(self._workers, len(self._running)):
            self._threads.append(threading.Thread(target=self._work, name="shiftable-lane"))
            self._threads[-1].start()
        if len(self._running) >= self._room:
            self._await()
        yield from self.finished()

    def finish(self) -> Iterator[tuple[T, Done[R]]]:
        """Yield everything that is still under way, as it ends."""
        while self._running:
            self._await()
            yield from self.finished()

    def stop(self) -> Iterator[tuple[T, Done[R]]]:
        """Drop what has not begun, and yield the rest as it ends."""
        for future in [future for future in self._running if future.cancel()]:
            del self._running[future]
        while self._running:  # not what is noted as done: an interrupt may have lost what was just taken from there
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            yield from [(self._running.pop(future), future) for future in done]

    def _await(self) -> None:
        """Wait until enough is done to be worth it, or a little for anything."""
        while not self._done:
            self._wake.clear()
            self._wanted = max(1, min(self._workers // 2, len(self._running)))
            if len(self._done) < self._wanted:
                self._wake.wait(_PATIENCE)
            self._wanted = _NEVER

    def finished(self) -> Iterator[tuple[T, Done[R]]]:
        """Yield what has finished, and wait for nothing."""
        while self._done:
            future = self._done.popleft()
            yield self._running.pop(future), future

    def _work(self) -> None:
        while (found := self._todo.get()) is not None:
            item, future = found
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._function(item))
            except BaseException as exc:  # noqa: BLE001  it is raised where the future is asked
                future.set_exception(exc)
            self._done.append(future)
            if len(self._done) >= self._wanted:
                self._wake.set()
            del item, future, found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        try:
            while True:
                self._todo.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._todo.put(None)
        if not isinstance(exc, KeyboardInterrupt):
            for thread in self._threads:
                thread.join()


def parallel(
    function: Callable[[T], R], items: Iterable[T], *, workers: int, fibers: bool = False
) -> Iterator[tuple[T, Done[R]]]:
    """Yield each item with what became of it, in the order in which they end; items are taken as there is room.

    Args:
        fibers: the function gives way while it waits, as ``shiftable.fibers`` tells; then there is one thread, this.
    """
    with lane(function, workers=workers, fibers=fibers) as running:
        for item in items:
            yield from running.put(item)
        yield from running.finish()
