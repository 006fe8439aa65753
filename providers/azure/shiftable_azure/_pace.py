"""So many calls in so much time, and no more: a service that counts them need not refuse any."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Pace"]


class Pace:
    """Lets through at most so many calls in any window of that length. It is thread-safe.

    A bucket that fills steadily would let through nearly twice as many in the first minute.

    Args:
        window: seconds.
        clock: what they are counted in.
        pause: what waits for them.
    """

    def __init__(
        self, limit: int, window: float, *, clock: Callable[[], float], pause: Callable[[float], None]
    ) -> None:
        self._window = window
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=limit)

    def take(self) -> None:
        """Wait until it is this call's turn; those who wait keep their order."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._free(now))
            self._times.append(turn)
        if turn > now:
            self._pause(turn - now)

    def try_take(self) -> bool:
        """Take a turn if there is one now."""
        with self._lock:
            now = self._clock()
            if self._free(now) > now:
                return False
            self._times.append(now)
            return True

    def _free(self, now: float) -> float:
        """Return when the next call may go."""
        return self._times[0] + self._window if len(self._times) == self._times.maxlen else now
