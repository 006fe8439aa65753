"""Time for drivers in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

__all__ = ["Clock"]


@attrs.define
class Clock:
    """Time that passes only when somebody sleeps."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def monotonic(self) -> float:
        return self.now.timestamp()
