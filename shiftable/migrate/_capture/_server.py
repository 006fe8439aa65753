"""One of the two servers: how to connect to it, and how its sessions are set so that values mean the same on both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Self, cast

import attrs
import psycopg
from psycopg import sql

from shiftable.database import Database
from shiftable.errors import MigrationError

__all__ = ["APPLICATION", "Connection", "Server", "closing_quietly", "identifier", "is_lost", "quoted"]

Connection = psycopg.Connection[tuple[Any, ...]]

APPLICATION = "shiftable online"
"""What the servers show our sessions as."""

_SETTINGS = {
    "search_path": "pg_catalog",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "default_transaction_read_only": "off",  # the source is made read-only, for all sessions but ours
    "default_transaction_isolation": "read committed",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "synchronous_commit": "on",  # the source forgets what the target has, so the target must keep it
    "row_security": "off",  # then a policy that would hide a row is an error
}
_REFUSALS = ("password authentication failed", "PAM authentication failed")
_LOST = ("08", "57P", "XX000")
"""SQLSTATE: the connection, the server's stop and start."""


@attrs.frozen
class Server:
    """A database on a server.

    Args:
        label: how messages name it.
        arguments: returns what psycopg's ``connect`` takes, the password too; called for each connection, so that a
            password that was changed or a token that has expired needs no new move.
        refused: is called when the password was refused, and before it is asked for once more.
    """

    label: str
    arguments: Callable[[], Mapping[str, Any]] = attrs.field(repr=False)
    refused: Callable[[], object] | None = attrs.field(default=None, repr=False, eq=False)

    @classmethod
    def of(cls, handle: Database, database: str, *, label: str) -> Self:
        """Return a database of a server that the application declares, which may be made before it is used."""
        address = cache(lambda: handle.url(database))

        def arguments() -> Mapping[str, Any]:
            url = address()
            login = url.login()
            return {**url.arguments(), "user": login.user or url.user, "password": login.password.reveal()}

        return cls(label, arguments, lambda: handle.password(fresh=True))

    def connect(self, purpose: str = "", **more: object) -> Connection:
        """Open a session, in autocommit mode."""
        defaults: dict[str, Any] = {
            "connect_timeout": 10,
            "keepalives_idle": 20,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,
            "client_encoding": "UTF8",
            "application_name": f"{APPLICATION} {purpose}".strip(),
        }
        found, said = self._opened(defaults, more)
        if self.refused is not None and any(words in said for words in _REFUSALS):
            self.refused()
            found, said = self._opened(defaults, more)
        if found is None:
            raise psycopg.OperationalError(said)
        try:
            if "replication" not in more:
                _set(found)
        except BaseException:
            found.close()
            raise
        return cast("Connection", found)

    def _opened(
        self, defaults: Mapping[str, Any], more: Mapping[str, Any]
    ) -> tuple[psycopg.Connection[Any] | None, str]:
        """Connect, or return why not: psycopg's own error holds the password, with all else that it was tried with."""
        try:
            return psycopg.connect(**{**defaults, **self.arguments(), **more}, autocommit=True), ""
        except psycopg.OperationalError as exc:
            return None, str(exc)

    @contextmanager
    def session(self, purpose: str = "") -> Iterator[Connection]:
        """Open a session for a while."""
        connection = self.connect(purpose)
        try:
            yield connection
        finally:
            closing_quietly(connection)

    def wait(self, patience: float) -> None:
        """Wait until it lets us in again.

        Raises:
            MigrationError: not within that many seconds.
        """
        until = time.monotonic() + patience
        while True:
            try:
                with self.session():
                    return
            except psycopg.Error as exc:
                if not is_lost(exc) or time.monotonic() > until:
                    raise MigrationError(f"{self.label} cannot be reached: {_said(exc)}; run the same again") from exc
            time.sleep(0.2)


def _set(connection: Connection) -> None:
    names, values = list(_SETTINGS), list(_SETTINGS.values())
    connection.execute(
        "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)"
        " WHERE current_setting(name, true) IS NOT NULL",  # not every version has them all
        (names, values),
    )


def is_lost(exc: BaseException) -> bool:
    """Tell whether the session or the server is gone, or is about to be, so that a new session may do better."""
    if not isinstance(exc, psycopg.Error):
        return False
    if exc.sqlstate is None:
        return isinstance(exc, psycopg.OperationalError)
    return exc.sqlstate.startswith(_LOST)


def closing_quietly(connection: Connection | None) -> None:
    """Close a session, however it is."""
    if connection is not None:
        connection.close()


def _said(exc: BaseException) -> str:
    return " ".join(str(exc).split())


def identifier(*names: str) -> sql.Identifier:
    """Quote a name, with its schema before it."""
    return sql.Identifier(*names)


def quoted(*names: str) -> str:
    """Quote a name for a statement that is written as text."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
