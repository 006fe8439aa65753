"""Ranges of keys that are listed side by side, and what makes one stream of them."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

import attrs

from shiftable.blob import Bucket, ObjectSummary
from shiftable.blob.driver import CommonPrefix
from shiftable.fibers import in_thread

__all__ = ["Shard", "interleaved", "listed", "split"]

T = TypeVar("T")

_WORTH = 2_000
_PROBES = 128
_DEEP = 900
"""Bytes of a prefix: what is behind it must be a key too, and no provider takes more than 1,024."""
_LAST = "\U0010ffff"
"""Sorts behind every other character, in UTF-8 too."""
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


def split(bucket: Bucket, wanted: int, prefix: str = "") -> tuple[Shard, ...]:
    """Cut the keys of a bucket into about so many ranges, by what a few requests tell; one, where it is not worth it.

    Folders are the natural cuts. Where there are too few, the characters that keys go on with are found one by one: a
    request each, as a listing can begin behind any key. Ranges are not equal in size: nothing tells sizes beforehand.
    """
    if wanted <= 1 or sum(1 for _ in bucket.list(prefix, limit=_WORTH)) < _WORTH:
        return (Shard(),)
    cuts = _folders(bucket, prefix)
    if len(cuts) < wanted:
        cuts = sorted({*cuts, *_characters(bucket, _common(cuts, prefix), wanted)})
    return _between(_thinned(cuts, wanted - 1))


def _folders(bucket: Bucket, prefix: str) -> list[str]:
    """Return where folders end, of the first level that has more than one."""
    while True:
        level = list(bucket.list_folder(prefix, limit=1_000))
        folders = [found.prefix for found in level if isinstance(found, CommonPrefix)]
        if len(level) != 1 or not folders:
            return [folder + _LAST for folder in folders]
        prefix = folders[0]


def _common(cuts: Sequence[str], prefix: str) -> str:
    """Return what to look below: the only folder, or all."""
    return cuts[0].removesuffix(_LAST) if len(cuts) == 1 else prefix


def _characters(bucket: Bucket, prefix: str, wanted: int) -> list[str]:
    """Return where keys end that go on alike: a character more at a time, until there are enough of them."""
    groups, probes = [prefix], iter(range(_PROBES))
    while len(groups) < wanted:
        finer = [longer for group in groups for longer in _longer(bucket, group, probes)]
        if not finer or next(probes, None) is None or any(len(group.encode()) > _DEEP for group in finer):
            break
        groups = finer
    return [group + _LAST for group in groups]


def _longer(bucket: Bucket, prefix: str, probes: Iterator[int]) -> Iterator[str]:
    """Yield a prefix with each character that keys have there, found by a request each."""
    after: str | None = None
    for _ in probes:
        head = next(bucket.list(prefix, start_after=after, limit=1), None)
        if head is None:
            return
        after = head.key  # the prefix itself may be a key
        if len(after) > len(prefix):
            group = after[: len(prefix) + 1]
            after = group + _LAST
            yield group


def _thinned(cuts: Sequence[str], wanted: int) -> list[str]:
    """Keep so many, evenly spread."""
    if len(cuts) <= wanted:
        return list(cuts)
    return [cuts[(place + 1) * len(cuts) // (wanted + 1)] for place in range(wanted)]


def _between(cuts: Iterable[str]) -> tuple[Shard, ...]:
    edges = [None, *cuts, None]
    return tuple(Shard(start, stop) for start, stop in itertools.pairwise(edges))


def listed(bucket: Bucket, prefixes: Sequence[str], shard: Shard) -> Iterator[ObjectSummary]:
    """List what lies below the prefixes, which are in order, and in the range."""
    for prefix in prefixes:
        if shard.stop is not None and prefix > shard.stop:
            return
        for found in bucket.list(prefix, start_after=shard.start):
            if shard.stop is not None and found.key > shard.stop:
                return
            yield found


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
