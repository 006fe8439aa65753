"""See when a secret has changed."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from shiftable.errors import Conflict, NotFound, OperationError, PermissionDenied
from shiftable.secrets._cache import may_pass
from shiftable.secrets.driver import Secret, Stage

if TYPE_CHECKING:
    from shiftable.secrets._store import SecretStore

__all__ = ["SecretWatch"]

logger = logging.getLogger(__name__)

_SPREAD = 0.2
_LONGEST_PAUSE = 300.0


class SecretWatch:
    """An iterator over the values that secrets have, beginning with the present ones; it ends when it is stopped.

    ::

        with store.watch("db/password", every=timedelta(seconds=30)) as changes:
            for secret in changes:
                reconnect(secret)

    or, from a thread of its own, ``store.watch("db/password").start(reconnect)``.

    The secrets are read every so often, give or take a fifth: no provider tells all readers of a change. The first
    reading raises what it meets. Later ones outlast everything: while the provider cannot be reached they become
    rarer, up to one in five minutes, and a secret that was deleted may come back. Not a change are new labels, and a
    pending version. A value that was there only between two readings is not seen.
    """

    def __init__(
        self,
        store: SecretStore,
        keys: Iterable[str],
        *,
        every: timedelta = timedelta(seconds=30),
        stage: Stage = "current",
        since: Iterable[Secret] = (),
        wait: Callable[[float], bool] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._keys = tuple(dict.fromkeys(keys))
        self._stage: Stage = stage
        self._every = every.total_seconds()
        if not self._keys or self._every <= 0:
            raise ValueError("a watch needs a key, and a time between two readings that is positive")
        self._known: dict[str, Secret] = {secret.name: secret for secret in since}
        self._begun = set(self._keys) <= set(self._known)
        self._changed: deque[Secret] = deque()
        self._lost: dict[str, str] = {}
        self._failures, self._retry_after = 0, 0.0
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._chance = chance
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[Secret]:
        return self

    def __next__(self) -> Secret:
        while not self._stopped.is_set():
            if self._changed:
                return self._changed.popleft()
            if self._begun and (self._wait(self._pause()) or self._stopped.is_set()):
                break
            self._look()
        raise StopIteration

    def start(self, callback: Callable[[Secret], object]) -> Self:
        """Call back with each value, from a thread of its own, and return at once.

        The present values are read before it returns, so that an error of theirs is raised here. An error of the
        callback is logged, without what it says, and ends nothing.
        """
        if self._thread is not None:
            raise RuntimeError("the watch was started before; make another one")
        if not self._begun:
            self._look()
        self._thread = threading.Thread(target=self._run, args=(callback,), name="shiftable-watch", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End it, from any thread. It ends even in the middle of a pause. Again: no change."""
        self._stopped.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, callback: Callable[[Secret], object]) -> None:
        for secret in self:
            try:
                callback(secret)
            except Exception as exc:  # noqa: BLE001  whatever it is, the next change must be told too
                logger.error("the callback for %s failed with %s", secret.name, type(exc).__name__)  # noqa: TRY400  its text may hold the value

    def _pause(self) -> float:
        """Return how long to wait: a multiple of ``every`` while something cannot be read."""
        longest = max(_LONGEST_PAUSE, self._every)
        pause = min(self._every * 2.0 ** min(self._failures, 30), longest) * (1 + _SPREAD * (2 * self._chance() - 1))
        return max(pause, self._retry_after)

    def _look(self) -> None:
        """Read all secrets and note those that have changed."""
        failed, self._retry_after = False, 0.0
        for key in self._keys:
            try:
                found = self._store.get(key, stage=self._stage)
            except OperationError as exc:
                if not self._begun:
                    raise
                self._lose(key, exc)
                failed = failed or may_pass(exc)
                self._retry_after = max(self._retry_after, exc.retry_after or 0)
                continue
            if self._lost.pop(key, None) is not None:
                logger.info("%s can be read again", key)
            before = self._known.get(key)
            if before is None or before.version != found.version or before.value != found.value:
                self._changed.append(found)
            self._known[key] = found
        self._begun = True
        self._failures = self._failures + 1 if failed else 0

    def _lose(self, key: str, error: OperationError) -> None:
        """Say once that a secret cannot be read, and why."""
        what = type(error).__name__
        if self._lost.get(key) != what:
            known = isinstance(error, NotFound | Conflict | PermissionDenied)
            logger.warning("%s cannot be read (%s)", key, error.message if known else what)
        self._lost[key] = what

    def __repr__(self) -> str:
        return f"<SecretWatch of {', '.join(self._keys)} in {self._store!r}>"
