"""What is left to do at a server once Azure takes it: one request after the other, each when the last has ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs
from azure.core.exceptions import AzureError

from shiftable.errors import AlreadyExists, Conflict
from shiftable_azure._arm import ArmAnswer, ArmRefusal, is_running, link_of
from shiftable_azure.errors import ArmFailure, classify_database

if TYPE_CHECKING:
    from shiftable_azure._arm import ArmSession

__all__ = ["Errand", "Errands", "Kind", "Step", "is_answer", "is_busy"]

Kind = Literal["creating", "updating", "starting", "stopping", "deleting"]

_BEGUN = frozenset({201, 202})
_MISSING, _CONFLICT, _THROTTLED, _BROKEN = 404, 409, 429, 500


@attrs.frozen
class Step:
    """One request.

    Args:
        what: it is for, in errors: ``the database shop``.
        version: the api-version.
        again: it does no more when it is sent once more, after others.
        there: it was sent before, so that it is no refusal if what it makes exists.
    """

    what: str
    method: str
    path: str
    version: str
    body: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    again: bool = attrs.field(default=True, kw_only=True)
    there: bool = attrs.field(default=False, kw_only=True)


@attrs.define(eq=False)
class Errand:
    """Requests that wait for each other. A server that is busy is asked again at the next look.

    Args:
        kind: what the server is doing meanwhile.
        plan: says the requests, once their turn has come; it may ask for what is there.
    """

    kind: Kind
    _plan: Callable[[], Iterable[Step]] | None = None
    _left: deque[Step] = attrs.field(factory=deque, init=False)
    _now: Step | None = attrs.field(default=None, init=False)
    _link: str | None = attrs.field(default=None, init=False)

    def begin(self, session: ArmSession) -> None:
        """Send the first request; a server that is busy is a refusal here.

        Unless it is busy with just that request, whose answer was lost: then it is sent once more, when it is not.
        """
        self._make_plan()
        if not self._left:
            return
        try:
            self._send(session, self._left[0])
        except ArmRefusal as exc:
            if not (self._left[0].again and exc.doubtful and is_busy(exc)):
                raise
        else:
            self._left.popleft()

    def follow(self, step: Step, answer: ArmAnswer) -> None:
        """Go on after a request that was sent already."""
        self._now, self._link = step, link_of(answer) if answer.status in _BEGUN else None

    def is_done(self, session: ArmSession) -> bool:
        """Look how far it is, send what can be sent, and tell whether all is done.

        Raises:
            ArmFailure: what an operation ended with.
        """
        while True:
            if self._is_running(session):
                return False
            self._make_plan()
            if not self._left:
                return True
            if not self._is_taken(session, self._left[0]):
                return False
            self._left.popleft()

    def _is_running(self, session: ArmSession) -> bool:
        """Tell whether what was begun last goes on."""
        if self._now is None or self._link is None:
            return False
        answer = session.call("GET", self._link, self._now.version)
        running = is_running(answer, self._now.what)
        self._link = (link_of(answer) or self._link) if running else None
        return running

    def _make_plan(self) -> None:
        if self._plan is not None:
            self._left.extend(self._plan())
            self._plan = None

    def _is_taken(self, session: ArmSession, step: Step) -> bool:
        try:
            self._send(session, step)
        except ArmRefusal as exc:
            if not is_busy(exc):
                raise
            return False
        return True

    def _send(self, session: ArmSession, step: Step) -> None:
        try:
            self.follow(step, session.call(step.method, step.path, step.version, body=step.body, repeat=True))
        except ArmRefusal as exc:
            fault = classify_database(exc)
            gone = step.method == "DELETE" and exc.status_code == _MISSING
            exists = step.there and fault is not None and fault.error is AlreadyExists
            if not (gone or exists):
                raise


@attrs.define(eq=False)
class Errands:
    """The errands of one driver, by server. Threads may share it: a server's errand is one thread's at a time."""

    _session: ArmSession
    _by_name: dict[str, Errand] = attrs.field(factory=dict, init=False)
    _turns: dict[str, threading.Lock] = attrs.field(factory=dict, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def put(self, name: str, errand: Errand) -> None:
        """Take an errand; an older one is forgotten."""
        self._by_name[name] = errand

    def drop(self, name: str) -> None:
        """Forget a server's errand."""
        self._by_name.pop(name, None)

    def look(self, name: str) -> Errand | None:
        """Go on with a server's errand, and return it while it is not done. What it ends with is raised once."""
        with self._lock:
            turn = self._turns.setdefault(name, threading.Lock())
        errand = self._by_name.get(name)
        if errand is None or not turn.acquire(blocking=False):
            return errand
        try:
            if self._by_name.get(name) is errand and not errand.is_done(self._session):
                return errand
        except AzureError as exc:
            if is_answer(exc):
                self.drop(name)
            raise
        finally:
            turn.release()
        if self._by_name.get(name) is errand:
            self.drop(name)
        return None


def is_busy(exc: ArmRefusal) -> bool:
    """Tell whether a refusal says that the server does something else now, and nothing worse."""
    fault = classify_database(exc)
    locked = fault is not None and fault.code == "ScopeLocked"
    return exc.status_code == _CONFLICT and fault is not None and fault.error is Conflict and not locked


def is_answer(exc: AzureError) -> bool:
    """Tell whether an error says that nothing will come of it, however often it is asked."""
    if isinstance(exc, ArmRefusal):
        return (exc.status_code or 0) < _BROKEN and exc.status_code != _THROTTLED
    return isinstance(exc, ArmFailure)
