"""Wait for something, with a deadline, and say for what."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import attrs

from shiftable.errors import Timeout

__all__ = ["Timing", "wait_until"]

T = TypeVar("T")


def wait_until(
    probe: Callable[[], T | None],
    *,
    what: str,
    timeout: timedelta,
    interval: timedelta = timedelta(seconds=1),
    longest: timedelta = timedelta(seconds=15),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call ``probe`` until it returns something, and return that.

    The pause begins at ``interval`` and grows by half each time, to ``longest``; the last one ends at the deadline.

    Raises:
        Timeout: names what was waited for and how long.
    """
    deadline = clock() + timeout.total_seconds()
    pause = interval.total_seconds()
    while True:
        found = probe()
        if found is not None:
            return found
        left = deadline - clock()
        if left <= 0:
            raise Timeout(f"waited {timeout} for {what}")
        sleep(min(pause, left))
        pause = min(pause * 1.5, longest.total_seconds())


@attrs.frozen
class Timing:
    """How a handle waits; tests hand in a clock of their own."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until(self, probe: Callable[[], T | None], what: str, timeout: timedelta) -> T:
        """Call ``probe`` until it returns something, and return that, as ``wait_until`` does."""
        return wait_until(probe, what=what, timeout=timeout, clock=self.clock, sleep=self.sleep)
