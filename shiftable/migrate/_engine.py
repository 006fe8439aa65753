"""Drives a mover's items through threads: bounded, retried, drained when it has to end early."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import attrs

from shiftable.errors import (
    MigrationError,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable.fibers import in_thread, sleep
from shiftable.migrate._window import Window
from shiftable.migrate.mover import Options
from shiftable.parallel import Done, Lane, lane

__all__ = ["Away", "Engine"]

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_BATCH = 64
_USUAL = 1024 * 1024
"""An item of so many bytes may take twice as long as an empty one."""
_SMALL = 256 * 1024
"""What is larger is worth a thread: there is more to digest, and there may be parts."""
_LONGEST_PAUSE = 60.0
_GLANCE = 0.2
_HOPELESS = (
    ParentNotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
)
"""What says more about the account, the disk or the network than about the item."""


class Away(Protocol[T, R_co]):
    """A lane whose items are run elsewhere: see ``Lane`` for what its methods do."""

    @property
    def running(self) -> int:
        """Items that are elsewhere."""

    def takes(self, item: T, /) -> bool:
        """Whether an item may leave this process."""

    def put(self, item: T) -> Iterator[tuple[T, Done[R_co]]]:
        """Hand over an item, and yield what has finished meanwhile."""

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


def _pause(stop: threading.Event, seconds: float) -> None:
    """Wait so many seconds, or until the event is set."""
    until = time.monotonic() + seconds
    while not stop.is_set() and (left := until - time.monotonic()) > 0:
        sleep(min(left, _GLANCE))


@attrs.define
class Engine:
    """Runs one function over many items, and tells how each ended in the thread that called.

    Args:
        pause: waits so many seconds, or less when the event is set.
        window: what others have learnt of how many items may be under way.
    """

    options: Options
    pause: Callable[[threading.Event, float], object] = _pause
    window: Window = attrs.field(
        default=attrs.Factory(lambda self: Window(self.options.concurrency), takes_self=True), kw_only=True
    )
    _stop: threading.Event = attrs.field(factory=threading.Event, init=False)
    _kind: type[OperationError] | None = attrs.field(default=None, init=False)
    _in_a_row: int = attrs.field(default=0, init=False)
    _away: Away[Any, Any] | None = attrs.field(default=None, init=False)

    @property
    def running(self) -> int:
        """Items that are under way."""
        return self.window.running + (self._away.running if self._away is not None else 0)

    @property
    def throttled(self) -> bool:
        """Whether a provider asked for less lately, as far as is known here."""
        return self.window.throttled

    @property
    def stopping(self) -> threading.Event:
        """Set when the drive has to end early."""
        return self._stop

    def drive(
        self,
        items: Iterable[T],
        function: Callable[[T], R],
        *,
        begun: Callable[[Sequence[T]], None],
        ended: Callable[[T, R], None],
        failed: Callable[[T, Exception], None],
        size: Callable[[T], int] = lambda _: 0,
        away: Away[T, R] | None = None,
        gives_way: bool = False,
        workers: int | None = None,
        ahead: int = _BATCH,
    ) -> None:
        """Run the function over all items; items are taken as there is room.

        Whatever ends it early, Ctrl-C too, items that run come to their end and are told of; a second Ctrl-C leaves
        them to themselves.

        Args:
            begun: called with a batch before its first item is run.
            size: bytes of an item, by which the time that it takes is judged.
            away: does the same with those items that it takes, elsewhere.
            gives_way: the function may run in ``shiftable.fibers``; it does so for small items.
            workers: items at once, at most; ``None``: as the options say.
            ahead: items of one call of ``begun``.

        Raises:
            MigrationError: too many failures of one kind in a row.
        """
        self._stop.clear()
        self._kind, self._in_a_row = None, 0
        self._away = away

        def run(item: T) -> R:
            if size(item) > _SMALL:
                return in_thread(self._attempt, function, item, size)
            return self._attempt(function, item, size)

        workers, width = workers or self.options.concurrency, lambda: self.window.limit
        running: Lane[T, R] = lane(run, workers=workers, width=width, fibers=gives_way and away is None)
        with ExitStack() as stack:
            for each in (running, away):
                if each is not None:
                    stack.enter_context(each)
            try:
                for item, future in _fed(running, away, items, begun, ahead):
                    self._tell(item, future, ended, failed)
            except BaseException:
                self._stop.set()
                for item, future in itertools.chain(running.stop(), away.stop() if away else ()):
                    if future.exception() is None:
                        ended(item, future.result())
                raise

    def _tell(
        self, item: T, future: Done[R], ended: Callable[[T, R], None], failed: Callable[[T, Exception], None]
    ) -> None:
        error = future.exception()
        if error is None:
            self._in_a_row = 0
            ended(item, future.result())
        elif isinstance(error, Exception):
            failed(item, error)
            self._count(error)
        else:
            raise error

    def _attempt(self, function: Callable[[T], R], item: T, size: Callable[[T], int]) -> R:
        """Run the function; again, where the provider's own client gave up on what may pass."""
        for attempt in itertools.count(1):
            try:
                return self._measured(function, item, 1 + size(item) / _USUAL)
            except OperationError as exc:
                if not exc.retryable or attempt >= self.options.attempts or self._stop.is_set():
                    raise
                self.pause(self._stop, _delay(exc, attempt))
        raise AssertionError  # the count has no end

    def _measured(self, function: Callable[[T], R], item: T, cost: float) -> R:
        """Run the function when there is a place for it, and let the window learn how it went."""
        began = self.window.enter()
        try:
            result = function(item)
        except BaseException as exc:
            self.window.leave(began, throttled=isinstance(exc, Throttled), counts=False)
            raise
        self.window.leave(began, cost=cost)
        return result

    def _count(self, error: Exception) -> None:
        kind = next((kind for kind in _HOPELESS if isinstance(error, kind)), None)
        if kind is None:
            self._in_a_row = 0
            return
        self._in_a_row = self._in_a_row + 1 if kind is self._kind else 1
        self._kind = kind
        if self._in_a_row >= self.options.abort_after:
            raise MigrationError(
                f"stopped after {self._in_a_row} failures in a row of the kind {kind.__name__}; the last was: {error};"
                " correct that and run the same again: it goes on where it stopped"
            ) from error


def _delay(error: OperationError, attempt: int) -> float:
    """Return what the provider asked for, else a growing pause with full jitter."""
    if error.retry_after is not None:
        return min(error.retry_after, _LONGEST_PAUSE)
    return random.uniform(0, min(2.0**attempt, _LONGEST_PAUSE))  # noqa: S311  spreads load, hides nothing


def _fed(
    lane: Lane[T, R], away: Away[T, R] | None, items: Iterable[T], begun: Callable[[Sequence[T]], None], ahead: int
) -> Iterator[tuple[T, Done[R]]]:
    """Feed one or two lanes batch by batch, and yield what ends."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, ahead)):
        begun(batch)
        for item in batch:
            yield from away.put(item) if away is not None and away.takes(item) else lane.put(item)
        if away is not None:  # what has ended in the one does not wait until the other is fed again
            yield from lane.finished()
            yield from away.finished()
    if away is not None:
        yield from away.finish()
    yield from lane.finish()
