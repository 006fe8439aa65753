"""How many items may be under way: found out while it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from shiftable.fibers import active, sleep

__all__ = ["Window"]

_FIRST = 4
_LATE = 2.0
_FORGET = 1.001
_HALF = 0.5
_LESS = 0.8
_MORE = 1.05
_FULL = 0.75
_PATIENCE = 0.1
_LATELY = 10.0


class Window:
    """Additive increase, multiplicative decrease, as in TCP.

    A round is as many items as the window is wide. It grows by all of itself after each round until something speaks
    against it for the first time, and then by one. A provider that throttles halves it, once for all items that were
    under way then. A round that is twice as slow for an item as the fastest was, and in which no more got done than in
    the one before it, takes a fifth: they wait for each other then, wherever that is.

    Args:
        most: it never becomes wider.
        clock: seconds that only grow.
    """

    def __init__(self, most: int, *, first: int = _FIRST, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._limit = float(min(first, most))
        self._clock = clock
        self._changed = threading.Condition()
        self._running = 0
        self._grows_fast = True
        self._shrunk_at = clock()
        self._throttled_at: float | None = None
        self._fastest: float | None = None
        self._rate = 0.0
        self._open_round()

    @property
    def limit(self) -> int:
        """Items that may be under way."""
        return int(self._limit)

    @property
    def running(self) -> int:
        """Items that are under way."""
        return self._running

    @property
    def throttled(self) -> bool:
        """Whether a provider asked for less lately."""
        return self._throttled_at is not None and self._clock() - self._throttled_at < _LATELY

    def enter(self) -> float:
        """Wait for a place; return when the item began."""
        while active() is not None and self._running >= int(self._limit):
            sleep(_PATIENCE)  # whoever leaves may be in this thread
        with self._changed:
            while self._running >= int(self._limit) and active() is None:
                self._changed.wait(_PATIENCE)
            self._running += 1
            return self._clock()

    def leave(self, began: float, *, cost: float = 1.0, throttled: bool = False, counts: bool = True) -> None:
        """Give a place back, and learn from how it went.

        Args:
            cost: how much longer than others such an item takes by itself.
            throttled: the provider wants less.
            counts: whether its time says anything; that of a failure does not.
        """
        with self._changed:
            self._running -= 1
            now = self._clock()
            if throttled:
                self._throttled_at = now
                self._shrink(_HALF, began, now)
            elif counts:
                self._count += 1
                self._work += cost
                self._seconds += (now - began) / cost
                if self._count >= self._limit:
                    self._close_round(now)
            # Who leaves mostly comes back at once with the next item: to wake another for every place costs more than
            # an object of 4 KiB. It is done when several are free; the last few who wait look for themselves.
            if self._running < self._limit * _FULL:
                self._changed.notify(2)

    def _open_round(self) -> None:
        self._count = 0
        self._work = 0.0
        self._seconds = 0.0
        self._round_began = self._clock()

    def _close_round(self, now: float) -> None:
        mean = self._seconds / self._count
        rate = self._work / max(now - self._round_began, 1e-9)
        # What was fast once may never come again: the measure gives way little by little.
        self._fastest = mean if self._fastest is None else min(mean, self._fastest * _FORGET)
        began, grew = self._round_began, rate > self._rate * _MORE
        self._rate = rate
        if mean > _LATE * self._fastest and not grew:
            self._shrink(_LESS, began, now)
        else:
            self._limit = min(self._limit * 2 if self._grows_fast else self._limit + 1, self._most)
        self._open_round()

    def _shrink(self, share: float, began: float, now: float) -> None:
        if began < self._shrunk_at:
            return  # it was sent before the window shrank, and says nothing of the one there is now
        self._grows_fast = False
        self._limit = max(1.0, self._limit * share)
        self._shrunk_at = now
        self._open_round()
