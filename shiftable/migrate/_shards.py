"""Ranges of keys that are read side by side, and what makes one stream of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

import attrs

from shiftable.fibers import in_thread

__all__ = ["Shard", "interleaved"]

T = TypeVar("T")

_BATCH = 100
_PATIENCE = 0.2


@attrs.frozen
class Shard:
    """All keys behind ``start`` up to and with ``stop``; ``None`` is the end on that side.

    Small, picklable and independent of others: shards that meet make up all keys, each once.
    """

    start: str | None = None
    stop: str | None = None

    def __contains__(self, key: str) -> bool:
        return (self.start is None or key > self.start) and (self.stop is None or key <= self.stop)


def interleaved(sources: Sequence[Callable[[], Iterable[T]]], workers: int) -> Generator[T, None, None]:
    """Read so many sources at once, each in a thread and in its own order, and yield what comes, as it comes.

    What was read ahead is bounded. Close the iterator, and the threads end.
    """
    channel: _Channel[T] = _Channel(2 * workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="shiftable-list")
    try:
        for source in sources:
            pool.submit(channel.carry, source)
        left = len(sources)
        while left:
            found = channel.take()
            if found is None:
                left -= 1
            else:
                yield from found
    finally:
        channel.close()
        pool.shutdown(cancel_futures=True)


class _Channel(Generic[T]):
    """Carries batches of items from several threads to one. ``None`` is the end of a source."""

    def __init__(self, size: int) -> None:
        self._ready: Queue[tuple[T, ...] | BaseException | None] = Queue(size)
        self._closed = threading.Event()

    def carry(self, source: Callable[[], Iterable[T]]) -> None:
        """Hand over all that a source has, or its error."""
        try:
            for batch in _batches(source()):
                if not self._offer(batch):
                    return
        except BaseException as exc:  # noqa: BLE001  it is raised where the items are taken
            self._offer(exc)
        else:
            self._offer(None)

    def take(self) -> tuple[T, ...] | None:
        """Wait for the next batch, or raise what made a source fail."""
        try:
            found = self._ready.get_nowait()
        except Empty:
            found = in_thread(self._waited)
        if isinstance(found, BaseException):
            raise found
        return found

    def _waited(self) -> tuple[T, ...] | BaseException | None:
        while not self._closed.is_set():
            with contextlib.suppress(Empty):
                return self._ready.get(timeout=_PATIENCE)
        return None

    def close(self) -> None:
        """Let those who wait give up."""
        self._closed.set()

    def _offer(self, found: tuple[T, ...] | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(found, timeout=_PATIENCE)
            except Full:
                continue
            return True
        return False


def _batches(items: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """Gather items: the first ones in small batches, so that work begins with them."""
    size, batch = 16, []
    for item in items:
        batch.append(item)
        if len(batch) >= size:
            yield tuple(batch)
            size, batch = _BATCH, []
    if batch:
        yield tuple(batch)
