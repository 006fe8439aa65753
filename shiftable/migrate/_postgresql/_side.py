"""One database, source or target: how to connect to it, and what its programs need to know."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import psycopg
from psycopg.rows import dict_row

from shiftable.errors import MigrationError
from shiftable.migrate._database_engine import Place

__all__ = ["APPLICATION", "Session", "Side", "Snapshot", "asking", "rows", "said"]

Session = psycopg.Connection[dict[str, Any]]

APPLICATION = "shiftable migrate"
"""The name of our sessions, by which a later run finds those that a killed one has left behind."""

_SESSION = {
    "search_path": "",  # names are whole, or those of pg_catalog
    "client_encoding": "UTF8",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmloption": "content",
    "row_security": "off",  # an error in place of rows that are left out
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "synchronize_seqscans": "off",
}
_PATIENCE = 30
_ALIVE = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 6}
_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "gssencmode": "PGGSSENCMODE",
    "channel_binding": "PGCHANNELBINDING",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
_SYSTEM_ROOTS = 16  # the first libpq that knows sslrootcert=system


@attrs.frozen
class Side(Place):
    """One database on one server, which psycopg connects to."""

    def connect(self, settings: Mapping[str, str] | None = None) -> Session:
        """Open a session in autocommit whose settings are the same on both sides.

        Raises:
            MigrationError: it cannot be reached.
        """
        with asking(self.name):
            found = self._opened()
            try:
                chosen = {**_SESSION, **(settings or {})}
                found.execute(
                    f"SELECT {', '.join('set_config(%s, %s, false)' for _ in chosen)}",
                    [part for pair in chosen.items() for part in pair],
                )
            except BaseException:
                found.close()
                raise
        found.prepare_threshold = None  # poolers between us and the server know no prepared statements
        return found

    def _opened(self) -> Session:
        for attempt in (1, 2):
            given = {"connect_timeout": _PATIENCE, **_ALIVE, **self.arguments(), "application_name": APPLICATION}
            try:
                return psycopg.connect(**given, autocommit=True, row_factory=dict_row)
            except psycopg.OperationalError as exc:  # libpq tells no SQLSTATE of a connection that failed
                if attempt == 2 or self.refused is None or "password authentication failed" not in str(exc):
                    raise
                self.refused()
        raise AssertionError  # the second attempt has returned or raised

    def environment(self, major: int, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a program of PostgreSQL. A password stands here only, never among arguments.

        Args:
            major: the version of the program.
            settings: of its sessions.
        """
        given = dict(self.arguments())
        if given.get("sslrootcert") == "system" and major < _SYSTEM_ROOTS:
            paths = ssl.get_default_verify_paths()
            given["sslrootcert"] = paths.cafile or paths.openssl_cafile
        own = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        told = {_VARIABLES[key]: str(value) for key, value in given.items() if key in _VARIABLES and value is not None}
        options = [told.get("PGOPTIONS", "")] + [f"-c {key}={value}" for key, value in (settings or {}).items()]
        told |= {"PGOPTIONS": " ".join(options).strip(), "PGAPPNAME": APPLICATION, "PGCLIENTENCODING": "UTF8"}
        return {**own, "LC_ALL": "C", **told}


@attrs.define
class Snapshot:
    """What a database held at one moment: all sessions that begin under its name see the same.

    It lives as long as the session that exported it; one that somebody else exported is used and left alone.
    """

    side: Side
    name: str

    @classmethod
    @contextlib.contextmanager
    def taken(cls, side: Side, name: str | None = None) -> Iterator[tuple[Snapshot, Session]]:
        """Export a snapshot, or use one; yield it, and a session that sees it."""
        with contextlib.closing(side.connect()) as session:
            if name is not None:
                found = cls(side, name)
                found.begin(session)
            else:
                with asking(side.name):
                    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    (row,) = session.execute("SELECT pg_export_snapshot() AS name").fetchall()
                found = cls(side, row["name"])
            yield found, session

    def begin(self, session: Session) -> None:
        """Let a session see the snapshot, until its transaction ends."""
        with asking(self.side.name):
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            session.execute(psycopg.sql.SQL("SET TRANSACTION SNAPSHOT {}").format(psycopg.sql.Literal(self.name)))


@contextlib.contextmanager
def asking(name: str) -> Iterator[None]:
    """Say which side an error came from."""
    try:
        yield
    except psycopg.Error as exc:
        raise MigrationError(f"{name}: {said(exc)}") from exc


def said(exc: psycopg.Error) -> str:
    """Return what a server said in one line, without values: its DETAIL and CONTEXT may hold rows."""
    if exc.diag.message_primary:
        where = [exc.diag.schema_name, exc.diag.table_name]
        at = f" ({'.'.join(part for part in where if part)})" if exc.diag.table_name else ""
        return f"{exc.diag.message_primary}{at} [{exc.diag.sqlstate}]"
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return "; ".join(lines) or type(exc).__name__


def rows(
    session: Session, name: str, query: str, values: Sequence[Any] | Mapping[str, Any] = ()
) -> list[dict[str, Any]]:
    """Ask one question."""
    with asking(name):
        return session.execute(query, values or None).fetchall()
