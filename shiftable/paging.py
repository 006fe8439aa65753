"""One page at a time below, one iterator above."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import attrs

from shiftable.errors import IntegrityError

__all__ = ["Page", "paged"]

T = TypeVar("T")


@attrs.frozen
class Page(Generic[T]):
    """What one call of a listing answers.

    Args:
        items: may be empty although more pages follow.
        next: the driver's own cursor for the next page; ``None`` ends the listing.
    """

    items: tuple[T, ...]
    next: str | None = None


def paged(fetch: Callable[[str | None, int | None], Page[T]], *, limit: int | None = None) -> Iterator[T]:
    """Iterate over all pages; ask for no more than ``limit`` needs.

    Args:
        fetch: called with the cursor (``None`` at first) and with how many items are still wanted (``None``: any).

    Raises:
        IntegrityError: a provider that repeats its cursor, which would loop for ever.
        ValueError: a negative limit.
    """
    if limit is not None and limit < 0:
        raise ValueError(f"limit must not be negative: {limit}")
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        page = fetch(cursor, left)
        yield from page.items if left is None else page.items[:left]
        if left is not None:
            left -= len(page.items)
        if page.next is None:
            return
        if page.next == cursor:
            raise IntegrityError(f"the listing does not advance: its cursor {cursor!r} came twice")
        cursor = page.next
