"""Pace that the user sets: bytes and requests in a second, for all that one move does."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from shiftable.fibers import sleep
from shiftable.service import Driver, Service

if TYPE_CHECKING:
    from shiftable.blob.driver import Download

__all__ = ["Pace", "TokenBucket"]

S = TypeVar("S", bound=Service[Any, Any, Any])

_SENDS_NOTHING = frozenset({"batches", "classify", "close", "copies_from"})


class TokenBucket:
    """Lets so many units pass in a second, and after a pause at most a second's worth at once.

    Who takes more than there is goes into debt and waits until it is paid, so that what is larger than a second's worth
    passes too; those who come later queue behind. May be used from many threads.

    Args:
        clock: seconds that only grow.
    """

    def __init__(
        self, rate: float, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = sleep
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._level = rate
        self._at = clock()

    def take(self, count: float) -> None:
        """Wait until so many units may pass."""
        with self._lock:
            now = self._clock()
            self._level = min(self._rate, self._level + (now - self._at) * self._rate) - count
            self._at = now
            debt = -self._level / self._rate
        if debt > 0:
            self._sleep(debt)


class Pace:
    """What all services of one move share.

    Args:
        bandwidth: bytes of content that are read in a second, on both sides; what is read from the source goes on to
            the target at the same pace.
        requests: calls of drivers in a second, of source and target together. A client's own retries are not seen.
    """

    def __init__(
        self,
        bandwidth: float | None,
        requests: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = sleep,
    ) -> None:
        self._bandwidth = TokenBucket(bandwidth, clock=clock, sleep=sleep) if bandwidth else None
        self._requests = TokenBucket(requests, clock=clock, sleep=sleep) if requests else None

    def applied(self, service: S) -> S:
        """Return the service over a driver that keeps the limits; the same, where there are none."""
        if self._bandwidth is None and self._requests is None:
            return service
        return type(service)(_Limited(service._driver, self))  # noqa: SLF001  of the same library

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  a driver's method
        """Make one call when it may be made; what it brings comes at the pace that is allowed."""
        if self._requests is not None:
            self._requests.take(1)
        found = function(*args, **kwargs)
        return found if self._bandwidth is None else _slowed(found, self._bandwidth)


def _slowed(found: Any, bandwidth: TokenBucket) -> Any:  # noqa: ANN401  what a driver's method returns
    """Let what brings bytes bring them at the pace that is allowed."""
    from shiftable.blob.driver import Download

    return attrs.evolve(found, chunks=_paced(found, bandwidth)) if isinstance(found, Download) else found


def _paced(download: Download, bandwidth: TokenBucket) -> Iterator[bytes]:
    try:
        for chunk in download.chunks:
            bandwidth.take(len(chunk))
            yield chunk
    finally:
        download.close()


class _Limited:
    """Looks like the driver behind it, and asks before each call."""

    def __init__(self, driver: Driver[Any], pace: Pace) -> None:
        self._inner = driver
        self._pace = pace

    @property  # type: ignore[misc]  # so that it is an instance of what it stands for
    def __class__(self) -> type:
        return type(self._inner)

    def lane(self) -> _Limited:
        """Limit the bulk lane likewise."""
        lane = getattr(self._inner, "lane", None)
        return self if lane is None or lane() is self._inner else _Limited(lane(), self._pace)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the driver has
        attribute = getattr(self._inner, name)
        beside = name.startswith(("_", "check_", "missing_")) or name in _SENDS_NOTHING
        if beside or not inspect.ismethod(attribute):
            return attribute
        return lambda *args, **kwargs: self._pace.call(attribute, *args, **kwargs)
