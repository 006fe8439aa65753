"""Wait for something, with a deadline, and say for what; and for as long as a server asks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import TypeVar

import attrs

from shiftable.errors import Timeout

__all__ = ["Timing", "retry_after", "wait_until"]

T = TypeVar("T")

_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


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


def retry_after(header: str | None) -> float | None:
    """Read a ``Retry-After`` (RFC 9110, 10.2.3), which has seconds or a date.

    Returns:
        Seconds from now; ``None`` if there is no such header, or nothing that can be read in it.
    """
    text = (header or "").strip()
    if not text or _SECONDS.fullmatch(text):
        return float(text) if text else None
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, aware.timestamp() - time.time())
