"""What connections log in with: fetched once for all threads, and again when a server refuses it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

import attrs

from shiftable.accounts import Account, account_of
from shiftable.config import Credential
from shiftable.database.driver import DatabaseDriver, DatabaseSpec
from shiftable.errors import Conflict, OperationError, Resource, Unauthenticated, translated
from shiftable.masking import Masked
from shiftable.waiting import Timing

if TYPE_CHECKING:
    import sqlalchemy

__all__ = ["Login", "LoginBook", "Logins", "for_driver"]

logger = logging.getLogger(__name__)

KEPT = timedelta(minutes=5)
"""How long a password is used before it is fetched again; one that is refused, at once."""

_ASK_AGAIN = timedelta(seconds=15)
"""How long the password before is good for while the store of secrets cannot be reached."""

_EARLY = timedelta(seconds=60)
"""A token is replaced so long before it expires: a connection takes its time."""

_PAUSES = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before each look for what has replaced a refused password.

Whoever rotates a password changes server and store one after the other, and in between neither has what the other has.
"""

_NO_NEWS = timedelta(seconds=30)
"""A password that nothing had replaced in that time is looked after once, not patiently, for so long."""


@attrs.frozen
class Login:
    """Who logs in, and with what.

    Args:
        user: ``None``: the administrator.
        expires: when it is no longer good, of a token.
    """

    user: str | None
    password: Masked
    expires: datetime | None = None


class Fetch(Protocol):
    """Gets the current login."""

    def __call__(self, *, fresh: bool) -> Login:
        """Return it; ``fresh`` says that what was returned before was refused."""


class Logins:
    """The login of one server's connections.

    Args:
        fetch: never called by two threads at once.
        pending: gets the one that is about to be current, if there is one.
        clock: tells the time of day, to which tokens expire.
    """

    def __init__(
        self,
        fetch: Fetch,
        pending: Callable[[], Login | None] = lambda: None,
        *,
        timing: Timing | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._fetch = fetch
        self._pending = pending
        self._timing = timing or Timing()
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: Login | None = None
        self._good_until = 0.0
        self._no_news: tuple[Login, float] | None = None

    def current(self, *, fresh: bool = False) -> Login:
        """Return what to log in with now.

        Args:
            fresh: fetch it, whatever is kept.
        """
        kept = self._kept
        if kept is not None and not fresh and self._is_good(kept):
            return kept
        with self._lock:
            kept = self._kept
            if kept is not None and not fresh and self._is_good(kept):
                return kept  # another thread has fetched it
            try:
                return self._keep(self._fetch(fresh=fresh))
            except OperationError as exc:
                unreachable = exc.retryable or isinstance(exc, Unauthenticated)
                if kept is None or fresh or not unreachable or self._is_expired(kept):
                    raise
                logger.warning("the login cannot be fetched (%s); the one before is used", type(exc).__name__)
                self._good_until = self._timing.clock() + _ASK_AGAIN.total_seconds()
                return kept

    def instead_of(self, refused: Login, *, patient: bool = True) -> Iterator[Login]:
        """Yield what has replaced a login that a server has refused, each once; nothing, if it is simply wrong.

        Args:
            patient: look for some seconds, as whoever rotates it may be between server and store.
        """
        tried, last = [refused], refused
        for pause in _PAUSES if patient and refused.expires is None and self._is_news(refused) else _PAUSES[:1]:
            if pause:
                self._timing.sleep(pause)
            last = self._renewed(last)
            if last not in tried:
                tried.append(last)
                yield last
        self._no_news = (refused, self._timing.clock())

    def _renewed(self, refused: Login) -> Login:
        """Fetch the login again, unless another thread has since ``refused`` was taken."""
        with self._lock:
            kept = self._kept
            if kept is not None and kept is not refused:
                return kept
            found = self._fetch(fresh=True)
            if found == refused:
                # Whoever rotates stores it as pending, changes the server, and makes it current. The server has it; so
                # what is not pending any more became current after it was fetched.
                found = self._pending() or self._fetch(fresh=True)
            return self._keep(found)

    def _keep(self, login: Login) -> Login:
        left = KEPT
        if login.expires is not None:
            left = max(login.expires - self._clock() - _EARLY, timedelta(0))
        self._kept, self._good_until = login, self._timing.clock() + left.total_seconds()
        return login

    def _is_good(self, login: Login) -> bool:
        return self._timing.clock() < self._good_until and not self._is_expired(login)

    def _is_expired(self, login: Login) -> bool:
        return login.expires is not None and login.expires <= self._clock()

    def _is_news(self, refused: Login) -> bool:
        known = self._no_news
        return known is None or known[0] != refused or self._timing.clock() - known[1] > _NO_NEWS.total_seconds()

    def __repr__(self) -> str:
        return "<Logins>"


class LoginBook:
    """The logins of all servers of a service, so that all handles of one share what is fetched; and who logs in."""

    def __init__(self, driver: DatabaseDriver, timing: Timing) -> None:
        self._driver = driver
        self._timing = timing
        self._lock = threading.Lock()
        self._logins: dict[tuple[object, ...], Logins] = {}
        self._engines: WeakSet[sqlalchemy.Engine] = WeakSet()

    def remember(self, engine: sqlalchemy.Engine) -> None:
        """Have the connections that an engine keeps closed with the service."""
        with self._lock:
            self._engines.add(engine)

    def close(self) -> None:
        """Close the connections that nobody uses; an engine that is used again opens others."""
        with self._lock:
            engines = list(self._engines)
        for engine in engines:
            engine.dispose()

    def of(self, name: str, declared: DatabaseSpec | None) -> Logins:
        """Return the logins of a server, as they are declared."""
        key: tuple[object, ...] = (name,)
        if declared is not None:
            key = (name, declared.password, declared.login, declared.user, declared.token_login)
        with self._lock:
            if key not in self._logins:
                self._logins[key] = self._made(name, declared)
            return self._logins[key]

    def _made(self, name: str, declared: DatabaseSpec | None) -> Logins:
        if declared is not None and declared.token_login:
            return self._by_token(name, declared.user)
        if declared is not None and declared.login is not None:
            return self._by_reference(name, declared.login, declared.user)
        return self._of_administrator(name, declared.password if declared else None)

    def _by_token(self, name: str, user: str | None) -> Logins:
        def fetch(*, fresh: bool) -> Login:  # noqa: ARG001  each is a new one
            with self._calling(name):
                made = self._driver.login_token(name, user)
            return Login(made.user, made.value, made.expires)

        return Logins(fetch, timing=self._timing)

    def _by_reference(self, name: str, login: Credential, user: str | None) -> Logins:
        def fetch(*, fresh: bool) -> Login:  # noqa: ARG001  nothing is kept on the way
            return _login(login.reveal(), user, name)

        def pending() -> Login | None:
            found = login.pending()
            return None if found is None else _login(found, user, name)

        return Logins(fetch, pending, timing=self._timing)

    def _of_administrator(self, name: str, given: Credential | None) -> Logins:
        password = given.mapped(lambda text: plain(text, name)) if given is not None else None

        def fetch(*, fresh: bool) -> Login:
            with self._calling(name):
                return Login(None, self._driver.password(name, password, fresh=fresh))

        def pending() -> Login | None:
            if given is not None:
                text = given.pending()
                return None if text is None else Login(None, Masked(plain(text, name)))
            with self._calling(name):
                found = self._driver.pending_password(name)
            return None if found is None else Login(None, found)

        return Logins(fetch, pending, timing=self._timing)

    def _calling(self, name: str) -> translated:
        driver, resource = self._driver, Resource("database", name)
        return translated(driver.classify, provider=driver.named, operation="database.password", resource=resource)


def for_driver(spec: DatabaseSpec) -> DatabaseSpec:
    """Return a declaration whose password is the password alone, where the secret is a document."""
    given = spec.password
    return spec if given is None else attrs.evolve(spec, password=given.mapped(lambda text: plain(text, spec.name)))


def plain(text: str, name: str) -> str:
    """Return the password of a value that may be a document with more in it.

    Args:
        name: of the server, for the error.
    """
    return _account(text, "-", name).password.reveal()


def _login(text: str, user: str | None, name: str) -> Login:
    account = _account(text, user, name)
    return Login(account.username, account.password)


def _account(text: str, user: str | None, name: str) -> Account:
    try:
        return account_of(Masked(text), user)
    except Conflict as exc:
        why = exc.message.replace("`user` is not given", "the database has no `user`")
        raise Conflict(why, operation="database.password", resource=Resource("database", name)) from None
