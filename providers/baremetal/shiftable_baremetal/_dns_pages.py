"""Pages of a listing that the server gives in one piece."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable

import attrs

from shiftable.dns.driver import RecordSet
from shiftable.paging import Page

__all__ = ["PAGE", "Pages", "slice_of"]

PAGE = 1000
_KEPT = 8


@attrs.define
class Pages:
    """Keeps the last few listings for as long as somebody goes through them.

    A cursor names the listing and the last record set that was shown. If the listing is gone, a new one is made and
    shown from there: the order is the same.
    """

    _kept: OrderedDict[str, tuple[RecordSet, ...]] = attrs.field(factory=OrderedDict, init=False, repr=False)
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def page(self, fetch: Callable[[], Iterable[RecordSet]], cursor: str | None, limit: int | None) -> Page[RecordSet]:
        """Return one page.

        Args:
            fetch: makes a listing, in any order.
        """
        listing, _, last = (cursor or "").partition(" ")
        with self._lock:
            found = self._kept.pop(listing, None)
        if found is None:
            found = tuple(sorted(fetch(), key=_key))
            listing = str(next(self._numbers))
        start = bisect_right(found, _parsed(last), key=_key) if last else 0
        shown = found[start : start + min(PAGE, PAGE if limit is None else limit)]
        if start + len(shown) == len(found) or not shown:
            return Page(shown)
        with self._lock:
            self._kept[listing] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return Page(shown, f"{listing} {shown[-1].key.name} {shown[-1].key.type}")


def slice_of(names: Iterable[str], cursor: str | None, limit: int | None) -> Page[str]:
    """Return one page of names, in order; the cursor is the last one that was shown."""
    left = sorted(name for name in names if cursor is None or name > cursor)
    shown = tuple(left[: min(PAGE, PAGE if limit is None else limit)])
    return Page(shown, shown[-1] if shown and len(left) > len(shown) else None)


def _key(record: RecordSet) -> tuple[str, str]:
    return record.name, record.type


def _parsed(text: str) -> tuple[str, str]:
    name, _, kind = text.rpartition(" ")
    return name, kind
