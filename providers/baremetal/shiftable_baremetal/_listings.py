"""Listings that wait for their next page."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol, TypeVar

import attrs

__all__ = ["Listing", "Listings"]

_MOST = 16
_LONGEST = 60.0

T = TypeVar("T")


class _Closable(Protocol):
    def close(self) -> None: ...


@attrs.define(eq=False)
class Listing:
    """What is left of a listing; ``cursor`` is where its next page begins, ``None`` after the last one."""

    items: Iterator[Any]
    source: _Closable
    cursor: str | None = None
    since: float = attrs.Factory(time.monotonic)


@attrs.define(eq=False)
class Listings:
    """The few listings that were read last, so that the next page need not find its place again.

    Whoever asks with a cursor gets the listing that stopped there, once; whoever asks with it again begins behind it.
    An old listing is dropped: it knows only the names that were there when it read their folder.
    """

    _waiting: dict[Hashable, Listing] = attrs.Factory(dict)
    _lock: threading.Lock = attrs.Factory(threading.Lock)

    @contextlib.contextmanager
    def going_on(
        self, about: Hashable, cursor: str | None, begin: Callable[[], tuple[Iterator[T], _Closable]]
    ) -> Iterator[Listing]:
        """Give the listing that stopped at the cursor, or begin one; keep it if it is given a new cursor."""
        with self._lock:
            listing = self._waiting.pop((about, cursor), None)
        if listing is not None and time.monotonic() - listing.since > _LONGEST:
            listing.source.close()
            listing = None
        if listing is None:
            listing = Listing(*begin())
        listing.cursor = None
        try:
            yield listing
        except BaseException:
            listing.source.close()
            raise
        self._wait(about, listing)

    def close(self) -> None:
        """Drop them all."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for listing in waiting.values():
            listing.source.close()

    def _wait(self, about: Hashable, listing: Listing) -> None:
        """Keep a listing for its next page; close it if it has none."""
        if listing.cursor is None:
            listing.source.close()
            return
        listing.since = time.monotonic()
        dropped = []
        with self._lock:
            replaced = self._waiting.pop((about, listing.cursor), None)
            dropped += [replaced] if replaced is not None else []
            self._waiting[about, listing.cursor] = listing
            while len(self._waiting) > _MOST:
                dropped.append(self._waiting.pop(next(iter(self._waiting))))
        for old in dropped:
            old.source.close()
