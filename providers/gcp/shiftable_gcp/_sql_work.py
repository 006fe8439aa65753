"""What this process is doing to instances of Cloud SQL: one operation after another, a step whenever somebody looks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

import attrs

from shiftable.database.driver import DatabaseState
from shiftable.errors import Conflict
from shiftable_gcp._sql_api import SqlApi, failure, meaning

__all__ = ["Step", "Works"]

logger = logging.getLogger(__name__)

Step = Callable[[], str | None]
"""Begins an operation and returns its name, or finds nothing to do."""


@attrs.define(eq=False)
class _Work:
    """An operation of Google's on one instance, and the steps that follow it.

    Args:
        state: what the instance is meanwhile; ``failed`` is the end of it.
    """

    state: DatabaseState
    operation: str | None = None
    steps: list[Step] = attrs.field(factory=list)
    lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)


@attrs.define(eq=False)
class Works:
    """What is being done to each instance. It may be used from many threads."""

    _api: SqlApi
    _works: dict[str, _Work] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def begin(self, name: str, state: DatabaseState, operation: str | None, steps: Iterable[Step] = ()) -> None:
        """Note what has begun; without an operation take the first step now."""
        with self._lock:
            self._works[name] = _Work(state, operation, list(steps))
        if operation is None:
            self.progress(name)

    def forget(self, name: str) -> None:
        """Note that an instance is gone."""
        with self._lock:
            self._works.pop(name, None)

    def progress(self, name: str) -> DatabaseState | None:
        """Take the next step of what is being done to an instance, and return what it is meanwhile.

        An error ends what is being done, and is raised once. An instance that was to be created has failed then; any
        other is as it was before, or as Google left it.
        """
        with self._lock:
            work = self._works.get(name)
        if work is None:
            return None
        if work.state == "failed":
            return work.state
        with work.lock:
            try:
                if self._is_going_on(work):
                    return work.state
            except Exception as exc:
                fault = meaning(exc)
                if fault is not None and fault.code == "operationInProgress":
                    return work.state  # something of Google's came between two steps
                if fault is None or not fault.error.retryable:
                    self._end(name, work, failed=work.state == "creating")
                raise
            self._end(name, work)
        return None

    def require_idle(self, name: str, *, even_failed: bool = False) -> None:
        """Refuse what would come between the steps of something else.

        Args:
            even_failed: it is to repair what failed.
        """
        try:
            doing = self.progress(name)
        except Exception as exc:
            if meaning(exc) is None:
                raise
            logger.warning("what was last done to the database %s failed: %s", name, exc)
            doing = self.progress(name)
        if doing is not None and not (even_failed and doing == "failed"):
            raise failure(Conflict, f"it is {doing}; wait until it is available")

    def _is_going_on(self, work: _Work) -> bool:
        while True:
            if work.operation is not None:
                if not self._api.is_done(work.operation):
                    return True
                work.operation = None
            if not work.steps:
                return False
            work.operation = work.steps[0]()
            work.steps.pop(0)

    def _end(self, name: str, work: _Work, *, failed: bool = False) -> None:
        with self._lock:
            if self._works.get(name) is work:
                del self._works[name]
                if failed:
                    self._works[name] = _Work("failed")
