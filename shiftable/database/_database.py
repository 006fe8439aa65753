"""A database server and what one does with it."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast

import attrs

from shiftable.database._rules import impossible_updates
from shiftable.database._url import DatabaseUrl, url_of
from shiftable.database.driver import (
    DatabaseDriver,
    DatabaseFeatures,
    DatabaseInfo,
    DatabaseSpec,
    DatabaseState,
    Snapshot,
)
from shiftable.errors import ConfigError, Conflict, NotFound, OperationError, Unsupported
from shiftable.masking import Masked
from shiftable.paging import Page, paged
from shiftable.service import Handle
from shiftable.waiting import Timing

if TYPE_CHECKING:
    import sqlalchemy

__all__ = ["Connection", "Database", "connected"]

logger = logging.getLogger(__name__)

_MAINTENANCE = {"postgresql": "postgres", "mysql": "", "mariadb": ""}  # the database that always exists
_MYSQL_ACCESS_DENIED = 1045

TIMEOUT = timedelta(minutes=60)

E = TypeVar("E", bound=OperationError)
T = TypeVar("T")


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
    ) -> None:
        super().__init__(driver, name)
        self._declared = declared
        self._timing = timing or Timing()

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

    # connecting

    def password(self, *, fresh: bool = False) -> Masked:
        """Return what the administrator connects with now: a password, or a token that lives for minutes.

        Args:
            fresh: ask the provider even if one that was fetched before should still be good.
        """
        given = self._declared.password if self._declared else None
        with self._translated("password", self.resource):
            return self._driver.password(self.name, given, fresh=fresh)

    def url(self, database: str | None = None) -> DatabaseUrl:
        """Return where to connect to; its text shows no password.

        Args:
            database: else the first one that is declared, else the one that always exists.

        Raises:
            Conflict: the server has no address yet.
        """
        info = self.info()
        if info.server is None:
            raise self._refusal(Conflict, "url", f"it has no address yet (it is {info.state}); wait() for it")
        declared = self._declared.databases if self._declared else ()
        chosen = database if database is not None else next(iter(declared), _MAINTENANCE[info.engine])
        return url_of(info, info.server, chosen, self.password)

    def engine(
        self, database: str | None = None, *, pool_size: int = 5, recycle: timedelta = timedelta(minutes=30)
    ) -> sqlalchemy.Engine:
        """Return an SQLAlchemy engine. It fetches the password for each new connection, so that it may be rotated.

        Args:
            database: as for ``url``.
            pool_size: connections that are kept open.
            recycle: the longest time for which one is kept.

        Raises:
            ConfigError: SQLAlchemy, or psycopg or PyMySQL, is not installed.
            Unsupported: the provider only simulates databases.
        """
        url = self._connectable("engine", database)
        address = url.sqlalchemy()
        from sqlalchemy import create_engine, event

        seconds = int(recycle.total_seconds())
        with _client_of(url):
            made = create_engine(address, pool_size=pool_size, pool_pre_ping=True, pool_recycle=seconds)

        @event.listens_for(made, "do_connect")
        def _connect(dialect: Any, _record: object, args: list[Any], arguments: dict[str, Any]) -> Any:  # noqa: ANN401
            return connected(partial(dialect.connect, *args), arguments, url.password, self._fresh_password)

        return made

    def connect(self, database: str | None = None) -> Connection:
        """Open a connection of psycopg or PyMySQL.

        Args:
            database: as for ``url``.

        Raises:
            ConfigError: psycopg or PyMySQL is not installed.
            Unsupported: the provider only simulates databases.
        """
        url = self._connectable("connect", database)
        with _client_of(url):
            client = importlib.import_module("psycopg" if url.engine == "postgresql" else "pymysql")
        return cast("Connection", connected(client.connect, url.arguments(), url.password, self._fresh_password))

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
    ) -> DatabaseInfo:
        """Wait until the server is in a state, and return what it is then.

        Raises:
            Conflict: it failed.
            NotFound: there is no such server, or it was deleted meanwhile.
            Timeout: it took longer.
        """

        def probe() -> DatabaseInfo | None:
            info = self.info()
            if info.state == "failed" != state:
                why = f"it failed (the provider says {info.raw_state!r}); look there for the cause, then delete it"
                raise self._refusal(Conflict, "wait", why)
            return info if info.state == state else None

        return self._timing.until(probe, f"{self.resource} to be {state}", timeout)

    def wait_deleted(
        self,
        *,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        """Wait until the server is gone.

        Raises:
            Timeout: it took longer.
        """

        def probe() -> bool | None:
            try:
                return self.info().state == "deleted" or None
            except NotFound:
                return True

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
        chosen = name or f"{self.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        with self._translated("snapshot", self.resource):
            return self._driver.snapshot(self.name, chosen)

    def snapshots(self, *, limit: int | None = None) -> Iterator[Snapshot]:
        """Iterate over the server's snapshots, also if it is gone."""
        self._require(self.features.snapshots, "snapshots", self.resource, "snapshots")

        def fetch(cursor: str | None, left: int | None) -> Page[Snapshot]:
            with self._translated("snapshots", self.resource):
                return self._driver.snapshots(self.name, cursor=cursor, limit=left)

        return paged(fetch, limit=limit)

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
        feature = self.features.snapshots if snapshot is not None else self.features.point_in_time
        self._require(feature, "restore", self.resource, "such restore")
        with self._translated("restore", self.resource):
            spec = attrs.evolve(self._driver.describe(self.name), name=to) if isinstance(to, str) else to
        why = "it is restored into a new server only" if spec.name == self.name else self._driver.check_name(spec.name)
        if why is not None:
            raise self._invalid("restore", self.resource, why)
        with self._translated("restore", self.resource):
            if snapshot is not None:
                self._driver.restore(self.name, snapshot, spec)
            else:
                self._driver.restore_at(self.name, cast("datetime", at), spec)
        return Database(self._driver, spec.name, declared=spec, timing=self._timing)

    # below: one step each

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

    def _fresh_password(self) -> Masked:
        return self.password(fresh=True)

    def _refusal(self, error: type[E], operation: str, why: str) -> E:
        return error(why, provider=self.provider, operation=f"database.{operation}", resource=self.resource)


@contextmanager
def _client_of(url: DatabaseUrl) -> Iterator[None]:
    """Say how to get the client library if it is missing."""
    name = "psycopg" if url.engine == "postgresql" else "pymysql"
    try:
        yield
    except ImportError as exc:
        raise ConfigError(f"connecting to {url.engine} needs {name}: pip install {name}") from exc


def connected(
    connect: Callable[..., T], arguments: Mapping[str, Any], password: Callable[[], Masked], fresh: Callable[[], Masked]
) -> T:
    """Connect; if the password was just rotated, once more with the new one."""
    first = password()
    try:
        return connect(**arguments, password=first.reveal())
    except Exception as exc:
        if not _is_wrong_password(exc):
            raise
        again = fresh()
        if again == first:
            raise
        logger.info("the password was rotated; connecting with the new one")
        return connect(**arguments, password=again.reveal())


def _is_wrong_password(exc: Exception) -> bool:
    # libpq tells no SQLSTATE of a connection that failed, only the server's text.
    code = exc.args[0] if exc.args else None
    return code == _MYSQL_ACCESS_DENIED or "password authentication failed" in str(exc)
