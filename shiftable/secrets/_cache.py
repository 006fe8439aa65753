"""Values kept for a while, so that an application may ask as often as it likes and still sees the new ones."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import attrs

from shiftable.errors import NotFound, OperationError, Unauthenticated
from shiftable.secrets.driver import Secret, Stage

if TYPE_CHECKING:
    from shiftable.secrets._store import SecretStore

__all__ = ["Attempt", "Retrying", "SecretCache", "may_pass"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

Failures = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""Which errors say that a value was refused: classes, or a function that tells."""

_SPREAD = 0.1
"""So much of the time to live is left to chance: processes that began together do not ask together for ever."""

_LONGEST_PAUSE = 30.0
_BETWEEN_ASKS = 1.0
_NEVER: tuple[float, tuple[Secret, ...]] = (float("-inf"), ())


def may_pass(error: OperationError) -> bool:
    """Tell whether an error says nothing of the secret, but of the way to it, and may be gone the next time."""
    return error.retryable or isinstance(error, Unauthenticated)


@attrs.frozen
class _Kept:
    """A value, when it was asked for, and until when it is good."""

    secret: Secret
    read_at: float
    fresh_until: float
    stale_until: float
    ask_again: float = 0
    failures: int = 0


@attrs.define(eq=False)
class _Flight:
    """One reading that all who want the same wait for. ``began`` is its number among all readings, once it begins."""

    done: Future[Any] = attrs.field(factory=Future)
    began: int | None = None


class _Abandoned(Exception):
    """The thread that was reading was interrupted: somebody else must."""


class SecretCache:
    """The current values of a store, each kept for a time to live.

    From many threads, a value that is due is read once, by the first of them, and the others wait for it. While the
    provider cannot be reached the last value is good for longer: ``stale`` after its time to live. A secret that is
    missing, disabled or refused is no outage and raises at once.

    >>> import shiftable.memory
    >>> from shiftable.secrets import Secrets
    >>> shop = Secrets(shiftable.memory.MemoryProvider(shiftable.memory.MemorySettings()).secrets()).store("shop")
    >>> _ = shop.put("db/password", "first")
    >>> cache = shop.cached(ttl=timedelta(minutes=5))
    >>> cache.get("db/password").reveal()
    'first'
    >>> _ = shop.put("db/password", "second")
    >>> cache.get("db/password").reveal(), cache.refresh("db/password").reveal()
    ('first', 'second')

    Whoever is refused with a value asks for the next one, at once: see ``retrying``.

    In asyncio, ``await asyncio.to_thread(cache.get, key)``; ``retrying`` decorates coroutine functions too. A forked
    child keeps what there is and reads by itself.
    """

    def __init__(
        self,
        store: SecretStore,
        *,
        ttl: timedelta = timedelta(minutes=5),
        stale: timedelta = timedelta(hours=1),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        if ttl <= timedelta(0) or stale < timedelta(0):
            raise ValueError("ttl must be positive, and stale not negative")
        self._store = store
        self._ttl, self._stale = ttl.total_seconds(), stale.total_seconds()
        self._clock, self._sleep, self._now, self._chance = clock, sleep, now, chance
        self._kept: dict[tuple[str, Stage], _Kept] = {}
        self._flights: dict[tuple[str, str], _Flight] = {}
        self._asked: dict[str, tuple[float, tuple[Secret, ...]]] = {}
        self._landed: dict[tuple[str, str], _Flight] = {}
        self._begun = 0
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=functools.partial(_forked, weakref.ref(self)))

    def get(self, key: str, *, stage: Stage = "current") -> Secret:
        """Return a version of a secret, not older than the time to live unless the provider cannot be reached.

        Raises:
            OperationError: as ``SecretStore.get``; of an outage only if there is no value that is still good.
        """
        kept = self._kept.get((key, stage))
        if kept is not None and self._good(kept):
            return kept.secret
        return cast("Secret", self._once((key, stage), functools.partial(self._due, key, stage), newer=False))

    def refresh(self, key: str, *, stage: Stage = "current") -> Secret:
        """Read a version now, however long it has been kept.

        Raises:
            OperationError: as ``SecretStore.get``. In an outage the kept one stays.
        """
        read = functools.partial(self._read, key, stage)
        return cast("Secret", self._once((key, f"refreshed {stage}"), read, newer=True))

    def forget(self, key: str | None = None) -> None:
        """Keep nothing of a secret, or of all."""
        with self._lock:
            self._kept = {slot: kept for slot, kept in self._kept.items() if key not in (None, slot[0])}
            self._landed = {slot: flight for slot, flight in self._landed.items() if key not in (None, slot[0])}
            self._asked = {asked: found for asked, found in self._asked.items() if key not in (None, asked)}

    def retrying(self, key: str, *, on: Failures, pending: bool = True) -> Retrying:
        """Use a value, and if it is refused, the one that has replaced it.

        A value is refused because it was rotated since it was read. So the store is asked once more, at most once a
        second, and what is new there is tried. What is not new has really been refused: the error is raised.

        As a loop::

            for attempt in cache.retrying("db/password", on=OperationalError):
                with attempt as secret:
                    connection = connect(password=secret.reveal())

        As a decorator, also of a coroutine function, which gets the secret as its first argument::

            @cache.retrying("db/password", on=OperationalError)
            def connection(secret, database): ...

        As a block it runs once, since Python runs no block again: the error is raised, and the next one has the new
        value::

            with cache.retrying("db/password", on=OperationalError) as secret:
                connection = connect(password=secret.reveal())

        Args:
            on: the errors that say so: classes, or a function that tells. Others pass.
            pending: try a pending version too. While a password is rotated in place, there is a moment when the server
                has the new one already and the store still calls it pending.
        """
        return Retrying(self, key, on, pending=pending and self._store.features.pending)

    # reading

    def _good(self, kept: _Kept) -> bool:
        now = self._clock()
        return now < kept.fresh_until or now < min(kept.ask_again, kept.stale_until)

    def _due(self, key: str, stage: Stage) -> Secret:
        """Read a version, unless somebody has since; where that cannot be, the kept one may be good for longer."""
        kept = self._kept.get((key, stage))
        if kept is not None and self._good(kept):
            return kept.secret
        try:
            return self._read(key, stage)
        except OperationError as exc:
            if kept is None or not may_pass(exc) or self._clock() >= kept.stale_until:
                raise
            pause = min(2.0**kept.failures, self._ttl, _LONGEST_PAUSE) * (1 - self._chance() / 2)
            again = self._clock() + max(pause, exc.retry_after or 0)
            with self._lock:
                now_kept = self._kept.get((key, stage))
                if now_kept is kept:
                    self._kept[key, stage] = attrs.evolve(kept, ask_again=again, failures=kept.failures + 1)
            if now_kept is not None and now_kept is not kept:  # another thread has got through
                return now_kept.secret
            if not kept.failures:
                logger.warning("%s cannot be read (%s); its last value is used", key, type(exc).__name__)
            return kept.secret

    def _read(self, key: str, stage: Stage) -> Secret:
        began = self._clock()
        try:
            secret = self._store.get(key, stage=stage)
        except OperationError as exc:
            with self._lock:
                kept = self._kept.get((key, stage))
                if kept is not None and kept.read_at <= began and not may_pass(exc):
                    del self._kept[key, stage]
            raise
        lives = self._ttl * (1 - _SPREAD * self._chance())
        if secret.expires is not None:
            left = (secret.expires - self._now()).total_seconds()
            lives = min(lives, left) if left > 0 else lives
        with self._lock:
            before = self._kept.get((key, stage))
            if before is not None and before.read_at > began:  # by another thread, which began later and was faster
                return before.secret
            self._kept[key, stage] = _Kept(secret, began, began + lives, began + lives + self._stale)
        if before is not None and before.failures:
            logger.info("%s can be read again", key)
        return secret

    def replacement(self, key: str, tried: tuple[Secret, ...], *, pending: bool) -> Secret | None:
        """Return what may be in force instead of values that were refused."""
        refused_at = self._clock()
        kept = self._kept.get((key, "current"))
        at, known = self._asked.get(key, _NEVER)
        candidates = (*([kept.secret] if kept else []), *(known if refused_at < at + _BETWEEN_ASKS else ()))
        found = _untried(candidates, tried) or _untried(self._ask(key, pending=pending, newer=False), tried)
        # That answer is too old if somebody else had asked, before this value was refused.
        if found is None and self._asked.get(key, _NEVER)[0] < refused_at:
            found = _untried(self._ask(key, pending=pending, newer=True), tried)
        return found

    def _ask(self, key: str, *, pending: bool, newer: bool) -> tuple[Secret, ...]:
        """Read the current version and the pending one, not more often than once a second.

        The pending one is read first: if it is promoted meanwhile, it is found as the current one.
        """

        def rest() -> None:
            pause = self._asked.get(key, _NEVER)[0] + _BETWEEN_ASKS - self._clock()
            if pause > 0:
                self._sleep(pause)

        def read() -> tuple[Secret, ...]:
            at = self._clock()
            self._asked[key] = at, ()
            found = self._pending(key) if pending else ()
            candidates = (self._read(key, "current"), *found)
            self._asked[key] = at, candidates
            return candidates

        slot = key, "with what is pending" if pending else "as it is"
        return cast("tuple[Secret, ...]", self._once(slot, read, newer=newer, before=rest))

    def _pending(self, key: str) -> tuple[Secret, ...]:
        try:
            return (self._store.get(key, stage="pending"),)
        except NotFound:
            return ()
        except OperationError as exc:
            logger.warning("the pending version of %s cannot be read (%s)", key, type(exc).__name__)
            return ()

    def _once(
        self,
        slot: tuple[str, str],
        read: Callable[[], Any],
        *,
        newer: bool,
        before: Callable[[], None] = lambda: None,
    ) -> Any:  # noqa: ANN401  what it reads
        """Read, or wait for whoever is reading.

        Args:
            newer: what began to be read before this call does not do.
            before: what the one who reads does first.
        """
        with self._lock:
            arrived = self._begun
        while True:
            with self._lock:
                landed = self._landed.get(slot)
                if landed is not None and cast("int", landed.began) > arrived:  # while this thread waited for another
                    break
                flight = self._flights.get(slot)
                mine = flight is None
                if flight is None:
                    flight = self._flights[slot] = _Flight()
                does = not newer or flight.began is None or flight.began > arrived
            if mine:
                return self._fly(slot, flight, read, before)
            error = flight.done.exception()
            if does and not isinstance(error, _Abandoned):
                return flight.done.result()
        return landed.done.result()

    def _fly(self, slot: tuple[str, str], flight: _Flight, read: Callable[[], Any], before: Callable[[], None]) -> Any:  # noqa: ANN401  the same
        failure: Exception | None = _Abandoned()
        found = None
        try:
            before()
            with self._lock:
                self._begun += 1
                flight.began = self._begun
            found = read()
            failure = None
        except Exception as exc:
            failure = exc
            raise
        finally:
            with self._lock:
                self._flights.pop(slot, None)
                if flight.began is not None and not isinstance(failure, _Abandoned):
                    self._landed[slot] = flight
                if failure is None:
                    flight.done.set_result(found)
                else:
                    flight.done.set_exception(failure)
        return found

    def __repr__(self) -> str:
        return f"<SecretCache of {self._store!r}, {len(self._kept)} kept>"


def _forked(cache: weakref.ref[SecretCache]) -> None:
    """Forget, in a child, who was reading: those threads are not in it."""
    found = cache()
    if found is not None:
        found._lock = threading.Lock()  # noqa: SLF001  the class's own
        found._flights = {}  # noqa: SLF001  the same


def _untried(candidates: Iterable[Secret], tried: tuple[Secret, ...]) -> Secret | None:
    return next((each for each in candidates if all(each.value != other.value for other in tried)), None)


class Attempt:
    """One try with one value. An error that says that the value was refused stays inside if there is another one."""

    def __init__(self, retrying: Retrying, secret: Secret, tried: tuple[Secret, ...]) -> None:
        self._retrying = retrying
        self.secret = secret
        self._tried = (*tried, secret)
        self.following: Attempt | None = None

    def __enter__(self) -> Secret:
        return self.secret

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> bool:
        if exc is None:
            return False
        self.following = self.after(exc)
        return self.following is not None

    def after(self, error: BaseException) -> Attempt | None:
        """Return the next try after an error, if there is one. May read."""
        secret = self._retrying.next(error, self._tried)
        return None if secret is None else Attempt(self._retrying, secret, self._tried)


class Retrying:
    """Tries with one value after another; see ``SecretCache.retrying``."""

    def __init__(self, cache: SecretCache, key: str, on: Failures, *, pending: bool) -> None:
        self._cache = cache
        self._key = key
        self._on = on
        self._pending = pending
        self._used = threading.local()

    def __enter__(self) -> Secret:
        attempt = self.first()
        self._used.__dict__.setdefault("attempts", []).append(attempt)
        return attempt.secret

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        attempt: Attempt = self._used.attempts.pop()
        if exc is not None:
            attempt.after(exc)

    def __iter__(self) -> Iterator[Attempt]:
        attempt: Attempt | None = self.first()
        while attempt is not None:
            yield attempt
            attempt = attempt.following

    def __call__(self, function: Callable[Concatenate[Secret, P], R]) -> Callable[P, R]:
        """Return the function with its first argument given, tried again where the value is refused."""
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", self._coroutine(function))

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for attempt in self:
                with attempt as secret:
                    return function(secret, *args, **kwargs)
            raise AssertionError("an attempt swallows an error only if another one follows")

        return call

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import asyncio

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  those of the function
            attempt = await asyncio.to_thread(self.first)
            while True:
                try:
                    return await function(attempt.secret, *args, **kwargs)
                except Exception as exc:
                    following = await asyncio.to_thread(attempt.after, exc)
                    if following is None:
                        raise
                attempt = following

        return call

    def first(self) -> Attempt:
        """Return the try with the value that is kept."""
        return Attempt(self, self._cache.get(self._key), ())

    def next(self, error: BaseException, tried: tuple[Secret, ...]) -> Secret | None:
        """Return another value than those that were tried, if the error says that they were refused."""
        if not self._refused(error):
            return None
        try:
            return self._cache.replacement(self._key, tried, pending=self._pending)
        except OperationError as exc:
            logger.warning("%s was refused, and cannot be read anew (%s)", self._key, type(exc).__name__)
            return None

    def _refused(self, error: BaseException) -> bool:
        if isinstance(self._on, type | tuple):
            return isinstance(error, self._on)
        return self._on(error)
