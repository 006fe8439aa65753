"""A database server and what one does with it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast

import attrs

from shiftable import mysql
from shiftable.database._connecting import connected, refusal
from shiftable.database._logins import LoginBook, for_driver
from shiftable.database._rules import impossible_updates
from shiftable.database._url import DatabaseUrl, url_of
from shiftable.database.driver import (
    DatabaseDriver,
    DatabaseFeatures,
    DatabaseInfo,
    DatabaseSpec,
    DatabaseState,
    Snapshot,
    name_problem,
)
from shiftable.errors import AlreadyExists, ConfigError, Conflict, NotFound, OperationError, Resource, Unsupported
from shiftable.masking import Masked
from shiftable.paging import Page, paged
from shiftable.service import Handle
from shiftable.waiting import Timing

if TYPE_CHECKING:
    import sqlalchemy

__all__ = ["Connection", "Database"]

_MAINTENANCE = {"postgresql": "postgres", "mysql": "", "mariadb": ""}  # the database that always exists

TIMEOUT = timedelta(minutes=60)
CONNECT_TIMEOUT = timedelta(seconds=10)

E = TypeVar("E", bound=OperationError)
T = TypeVar("T")


def _ignore(_: DatabaseInfo) -> None:
    """Let it pass."""


class Connection(Protocol):
    """What ``connect`` returns: psycopg's or PyMySQL's connection (PEP 249)."""

    def cursor(self) -> Any:  # noqa: ANN401  of the client library
        """Open a cursor."""

    def commit(self) -> None:
        """Commit the transaction."""

    def rollback(self) -> None:
        """Roll the transaction back."""

    def close(self) -> None:
        """Close the connection."""


class Database(Handle[DatabaseDriver]):
    """One database server, by name, with the databases on it."""

    service: ClassVar[str] = "database"
    resource_type: ClassVar[str] = "database"

    def __init__(
        self,
        driver: DatabaseDriver,
        name: str,
        *,
        declared: DatabaseSpec | None = None,
        timing: Timing | None = None,
        book: LoginBook | None = None,
    ) -> None:
        super().__init__(driver, name)
        self._declared = declared
        self._timing = timing or Timing()
        self._book = book or LoginBook(driver, self._timing)
        self._addresses: dict[str | None, DatabaseUrl] = {}

    @property
    def features(self) -> DatabaseFeatures:
        """What the driver can do."""
        return self._driver.features

    def info(self) -> DatabaseInfo:
        """Return the server's state and address.

        Raises:
            NotFound: there is no such server.
        """
        with self._translated("info", self.resource):
            return self._driver.info(self.name)

    def restorable(self) -> tuple[datetime, datetime] | None:
        """Return the earliest and the latest time to which it can be restored; ``None``: none, or not told.

        Raises:
            NotFound: there is no such server.
        """
        with self._translated("restorable", self.resource):
            return self._driver.restorable(self.name)

    # connecting

    def password(self, *, fresh: bool = False) -> Masked:
        """Return what ``connect`` logs in with now: a password, or a token that lives for minutes.

        Args:
            fresh: fetch it even if one that was fetched before should still be good.
        """
        return self._book.of(self.name, self._declared).current(fresh=fresh).password

    def url(self, database: str | None = None) -> DatabaseUrl:
        """Return where to connect to; its text shows no password.

        Args:
            database: else the first one that is declared, else the one that always exists.

        Raises:
            Conflict: the server has no address yet.
            InvalidArgument: no database has such a name.
        """
        self._prepare()
        info = self.info()
        if info.server is None:
            raise self._refusal(Conflict, "url", f"it has no address yet (it is {info.state}); wait() for it")
        declared, logins = self._declared, self._book.of(self.name, self._declared)
        names = declared.databases if declared else ()
        chosen = database if database is not None else next(iter(names), _MAINTENANCE[info.engine])
        if chosen != _MAINTENANCE[info.engine] and (why := name_problem(info.engine, chosen)) is not None:
            raise self._invalid("url", self.resource, why)
        user = declared.user if declared else None
        if user is None and declared is not None and (declared.token_login or declared.login is not None):
            user = logins.current().user  # only the login says who
        there = info.server.databases.get(chosen, chosen)
        return url_of(info, info.server, there, user or info.server.admin, logins.current)

    def engine(
        self,
        database: str | None = None,
        *,
        pool_size: int = 5,
        max_overflow: int = 10,
        recycle: timedelta = timedelta(minutes=30),
        connect_timeout: timedelta = CONNECT_TIMEOUT,
    ) -> sqlalchemy.Engine:
        """Return an SQLAlchemy engine. Each new connection logs in as is right then, so passwords may be rotated.

        A connection is tried before it is handed out, and replaced if it is dead: a server may restart. Those that
        nobody uses are closed with the application, or the cloud; the engine may be used on.

        Args:
            database: as for ``url``.
            pool_size: connections that are kept open.
            max_overflow: more that are opened when those are in use.
            recycle: the longest time for which one is kept.
            connect_timeout: the longest time in which a connection is opened.

        Raises:
            ConfigError: SQLAlchemy, or psycopg or PyMySQL, is not installed.
            Unsupported: the provider only simulates databases.
        """
        url = self._connectable("engine", database)
        address = url.sqlalchemy()
        from sqlalchemy import create_engine, event

        with _client_of(url):
            made = create_engine(
                address,
                pool_size=pool_size,
                max_overflow=max_overflow,
                pool_pre_ping=True,
                pool_recycle=int(recycle.total_seconds()),
                connect_args={"connect_timeout": _whole_seconds(connect_timeout)},
            )
        logins = self._book.of(self.name, self._declared)

        @event.listens_for(made, "do_connect")
        def _connect(dialect: Any, _record: object, args: list[Any], arguments: dict[str, Any]) -> Any:  # noqa: ANN401
            opened = partial(dialect.connect, *args) if url.engine == "postgresql" else mysql.connect
            return self._opened(lambda: connected(opened, arguments, logins))

        self._book.remember(made)
        return made

    def connect(self, database: str | None = None, *, connect_timeout: timedelta = CONNECT_TIMEOUT) -> Connection:
        """Open a connection of psycopg or PyMySQL, which the caller closes.

        Where the server is, is asked for once, and again when a connection could not be opened.

        Args:
            database: as for ``url``.
            connect_timeout: the longest time in which it is opened.

        Raises:
            ConfigError: psycopg or PyMySQL is not installed.
            Conflict: it would be started on demand, and is stopped.
            Unsupported: the provider only simulates databases.
        """
        url = self._addresses.get(database)
        if url is None:
            url = self._addresses[database] = self._connectable("connect", database)
        with _client_of(url):
            client = importlib.import_module("psycopg" if url.engine == "postgresql" else "pymysql")
        opened = client.connect if url.engine == "postgresql" else mysql.connect
        arguments = {**url.arguments(), "connect_timeout": _whole_seconds(connect_timeout)}
        logins = self._book.of(self.name, self._declared)
        try:
            return cast("Connection", self._opened(lambda: connected(opened, arguments, logins)))
        except BaseException:
            self._addresses.pop(database, None)
            raise

    # changing

    def resize(
        self, *, cpus: int | None = None, memory_gib: int | None = None, storage_gib: int | None = None
    ) -> DatabaseSpec:
        """Begin to make the server larger or smaller, and return what it becomes. Most providers restart it.

        Raises:
            InvalidArgument: storage does not shrink.
            Conflict: the state of the server forbids it.
        """
        with self._translated("resize", self.resource):
            current = self._driver.describe(self.name)
        wanted = attrs.evolve(
            current,
            cpus=cpus or current.cpus,
            memory_gib=memory_gib or current.memory_gib,
            storage_gib=storage_gib or current.storage_gib,
        )
        impossible = tuple(impossible_updates(current, wanted))
        if impossible:
            raise self._invalid("resize", self.resource, "; ".join(impossible))
        return self._update("resize", current, wanted)

    def protect(self, *, on: bool) -> None:
        """Protect the server from deletion, or no longer."""
        with self._translated("protect", self.resource):
            current = self._driver.describe(self.name)
        self._update("protect", current, attrs.evolve(current, deletion_protection=on))

    def set_password(self, password: str | Masked | None = None) -> None:
        """Begin to change the administrator's password.

        Where the password is declared as a secret, let ``shiftable secrets rotate`` change both.

        Args:
            password: else the provider makes a new one and keeps it.

        Raises:
            Unsupported: it is not changed through this provider; or it does not keep one itself, and none is given.
        """
        self._require(self.features.set_password, "set_password", self.resource, "way to change a password")
        if password is None:
            self._require(self.features.managed_password, "set_password", self.resource, "passwords of its own")
        with self._translated("set_password", self.resource):
            self._driver.set_password(self.name, Masked(password) if isinstance(password, str) else password)

    def restart(self) -> None:
        """Begin to restart the server, so that parameters count that need it.

        Raises:
            Conflict: its state forbids it.
        """
        self._require(self.features.restart, "restart", self.resource, "restart")
        with self._translated("restart", self.resource):
            self._driver.restart(self.name)

    def start(self) -> None:
        """Begin to start the server. One that runs is left alone.

        Raises:
            Conflict: its state forbids it.
        """
        self._require(self.features.stop, "start", self.resource, "way to stop and start a server")
        if self.info().state not in {"available", "starting"}:
            with self._translated("start", self.resource):
                self._driver.start(self.name)

    def stop(self) -> None:
        """Begin to stop the server. One that is stopped is left alone.

        Raises:
            Conflict: its state forbids it.
        """
        self._require(self.features.stop, "stop", self.resource, "way to stop and start a server")
        if self.info().state not in {"stopped", "stopping"}:
            with self._translated("stop", self.resource):
                self._driver.stop(self.name)

    def wait(
        self,
        state: DatabaseState = "available",
        *,
        timeout: timedelta = TIMEOUT,
        on_info: Callable[[DatabaseInfo], object] = _ignore,
    ) -> DatabaseInfo:
        """Wait until the server is in a state, and return what it is then.

        Args:
            on_info: called with what the provider tells, each time it is asked.

        Raises:
            Conflict: it failed.
            NotFound: there is no such server, or it was deleted meanwhile.
            Timeout: it took longer.
        """

        def probe() -> DatabaseInfo | None:
            info = self.info()
            on_info(info)
            if info.state == "failed" != state:
                why = f"it failed (the provider says {info.raw_state!r}); look there for the cause, then delete it"
                raise self._refusal(Conflict, "wait", why)
            return info if info.state == state else None

        return self._timing.until(probe, f"{self.resource} to be {state}", timeout)

    def wait_deleted(
        self,
        *,
        timeout: timedelta = TIMEOUT,
        on_info: Callable[[DatabaseInfo], object] = _ignore,
    ) -> None:
        """Wait until the server is gone.

        Args:
            on_info: as for ``wait``.

        Raises:
            Timeout: it took longer.
        """

        def probe() -> bool | None:
            try:
                info = self.info()
            except NotFound:
                return True
            on_info(info)
            return info.state == "deleted" or None

        self._timing.until(probe, f"{self.resource} to be deleted", timeout)

    # snapshots

    def snapshot(self, name: str | None = None) -> Snapshot:
        """Begin to take a snapshot.

        Args:
            name: else the server's and the time.

        Raises:
            AlreadyExists: there is one of that name.
        """
        self._require(self.features.snapshots, "snapshot", self.resource, "snapshots")
        if name == "":
            raise self._invalid(
                "snapshot", self.resource, "the snapshot's name is empty; leave it out, and one is made"
            )
        chosen = f"{self.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}" if name is None else name
        with self._translated("snapshot", self.resource):
            return self._driver.snapshot(self.name, chosen)

    def snapshots(self, *, limit: int | None = None) -> Iterator[Snapshot]:
        """Iterate over the server's snapshots, also if it is gone."""
        self._require(self.features.snapshots, "snapshots", self.resource, "snapshots")

        def fetch(cursor: str | None, left: int | None) -> Page[Snapshot]:
            with self._translated("snapshots", self.resource):
                return self._driver.snapshots(self.name, cursor=cursor, limit=left)

        return paged(fetch, limit=limit)

    def wait_snapshot(self, name: str, *, timeout: timedelta = TIMEOUT) -> Snapshot:
        """Wait until a snapshot can be restored, and return it.

        Raises:
            Conflict: it failed.
            NotFound: there is none of that name.
            Timeout: it took longer.
        """

        def probe() -> Snapshot | None:
            found = next((each for each in self.snapshots() if each.name == name), None)
            if found is None:
                raise self._refusal(NotFound, "wait_snapshot", f"there is no snapshot {name!r}")
            if found.state == "failed":
                raise self._refusal(Conflict, "wait_snapshot", f"the snapshot {name!r} failed")
            return found if found.state == "available" else None

        return self._timing.until(probe, f"snapshot {name!r} of {self.resource} to be available", timeout)

    def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot.

        Raises:
            NotFound: there is none of that name.
        """
        self._require(self.features.snapshots, "delete_snapshot", self.resource, "snapshots")
        with self._translated("delete_snapshot", self.resource):
            self._driver.delete_snapshot(self.name, name)

    def restore(self, to: str | DatabaseSpec, *, snapshot: str | None = None, at: datetime | None = None) -> Database:
        """Begin to restore into a new server, and return its handle. This one is not touched.

        Args:
            to: name of the new server, which is else as this one; or its declaration, if this one is gone.
            snapshot: which one; or
            at: the time, aware.

        Raises:
            AlreadyExists: there is a server of the new name.
            NotFound: there is no such snapshot; or this server is gone, and only a name was given.
        """
        if (snapshot is None) is (at is None):
            raise self._invalid("restore", self.resource, "give either a snapshot or a time")
        if at is not None and at.tzinfo is None:
            raise self._invalid("restore", self.resource, "the time has no time zone")
        if snapshot is not None:
            self._require(self.features.snapshots, "restore", self.resource, "snapshots")
        else:
            what = f"restore to a time{self._driver.archive_hint}"
            self._require(self.features.point_in_time, "restore", self.resource, what)
        with self._translated("restore", self.resource):
            spec = self._like_this(self._driver.describe(self.name), to) if isinstance(to, str) else to
        why = "it is restored into a new server only" if spec.name == self.name else self._driver.check_name(spec.name)
        if why is not None:
            raise self._invalid("restore", self.resource, why)
        try:
            with self._translated("restore", self.resource):
                if snapshot is not None:
                    self._driver.restore(self.name, snapshot, for_driver(spec))
                else:
                    self._driver.restore_at(self.name, cast("datetime", at), for_driver(spec))
        except AlreadyExists as exc:
            exc.resource = Resource(self.resource_type, spec.name)  # this one exists anyway
            raise
        return Database(self._driver, spec.name, declared=spec, timing=self._timing, book=self._book)

    # below: one step each

    def _like_this(self, described: DatabaseSpec, name: str) -> DatabaseSpec:
        """Return the declaration of another server like this one, with what no provider can tell of it."""
        declared = self._declared
        if declared is None:
            return attrs.evolve(described, name=name)
        own = {field: getattr(declared, field) for field in ("native", "password", "user", "login")}
        return attrs.evolve(described, name=name, **own)

    def _prepare(self) -> DatabaseState | None:
        with self._translated("connect", self.resource):
            return self._driver.prepare(self.name)

    def _opened(self, attempt: Callable[[], T]) -> T:
        """Open a connection; once more if it failed and the server runs on demand: it was perhaps just restarting."""
        state = self._ready()
        try:
            return attempt()
        except Exception as exc:
            if state is None or refusal(exc) is not None:
                raise
        self._ready()
        return attempt()

    def _ready(self) -> DatabaseState | None:
        state = self._prepare()
        if state == "stopped":
            why = f"it is stopped; `shiftable db start {self.provider.label}:{self.name}` starts it"
            raise self._refusal(Conflict, "connect", why)
        return state

    def _update(self, operation: str, current: DatabaseSpec, wanted: DatabaseSpec) -> DatabaseSpec:
        with self._translated(operation, self.resource):
            rounded = self._driver.rounded(wanted)
            if rounded != current:
                self._driver.update(current, rounded)
        return rounded

    def _connectable(self, operation: str, database: str | None) -> DatabaseUrl:
        if not self.features.connect:
            why = "it is only simulated: there is no server to connect to; the provider baremetal runs one"
            raise self._refusal(Unsupported, operation, why)
        return self.url(database)

    def _refusal(self, error: type[E], operation: str, why: str) -> E:
        return error(why, provider=self.provider, operation=f"database.{operation}", resource=self.resource)


def _whole_seconds(time: timedelta) -> int:
    """Return a time as both client libraries take it."""
    return max(1, round(time.total_seconds()))


@contextmanager
def _client_of(url: DatabaseUrl) -> Iterator[None]:
    """Say how to get the client library if it is missing."""
    name, extra = ("psycopg", "postgresql") if url.engine == "postgresql" else ("PyMySQL", "mysql")
    try:
        yield
    except ImportError as exc:
        why = f'connecting to {url.engine} needs {name}: pip install "shiftable[{extra}]" ({exc})'
        raise ConfigError(why) from exc
