"""One database, source or target: how to connect to it, and what its server says."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import pymysql
from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from shiftable import mysql
from shiftable.errors import MigrationError
from shiftable.migrate._database_engine import Place

__all__ = ["MODES", "Session", "Side", "asking", "cut_off", "decoded", "encoded", "raw", "rows", "said", "warnings_of"]

if TYPE_CHECKING:
    Session = Connection[Any]
else:
    Session = Connection  # which has no parameter but in the types

_PATIENCE = 30
_WAIT = 60  # seconds for a lock that others hold on a table's definition
_HOURS = 8 * 3600
# Names of tables, columns and accounts may be told; values of rows never. Errors that quote nothing else:
_NAMED = frozenset(
    {
        *(1005, 1007, 1008, 1022, 1028, 1030, 1044, 1045, 1046, 1049, 1050, 1051, 1054, 1060, 1061, 1068, 1069, 1071),
        *(1072, 1091, 1109, 1115, 1118, 1142, 1143, 1146, 1153, 1193, 1205, 1213, 1215, 1227, 1235, 1273, 1286, 1304),
        *(1305, 1356, 1359, 1370, 1410, 1412, 1419, 1442, 1449, 1478, 1492, 1503, 1506, 1698, 1822, 1826, 2003, 2013),
        *(3105, 3780, 4031, 4151),
    }
)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.|'')*'|\"[^\"]*\"|'.*$", re.DOTALL)
_REFUSED = frozenset({1045, 1698, 1862, 3118, 4151})

MODES = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES"
"""Values are taken as they are, and each that is changed is a warning."""

_SETTINGS: Mapping[str, str | int] = {
    "sql_mode": MODES,
    "time_zone": "+00:00",
    "foreign_key_checks": 0,
    "unique_checks": 1,
    "sql_quote_show_create": 1,
    "lock_wait_timeout": _WAIT,
    "innodb_lock_wait_timeout": _WAIT,
    "wait_timeout": _HOURS,
    "net_read_timeout": 3600,  # a source waits while the target writes, a target while the source reads
    "net_write_timeout": 3600,
    "tx_isolation": "REPEATABLE-READ",
}
_OF_ONE_FLAVOUR = ("max_statement_time", "max_execution_time")


@attrs.frozen
class Side(Place):
    """One database on one server, which PyMySQL connects to."""

    def connect(self, *, plain: bool = False) -> Session:
        """Open a session in autocommit whose settings are the same on both sides.

        Args:
            plain: texts go and come as the server has them, byte by byte, and values as the texts of their types.

        Raises:
            MigrationError: it cannot be reached.
        """
        with asking(self.name):
            found = self._opened(plain=plain)
            try:
                self._settle(found, plain=plain)
            except BaseException:
                found.close()
                raise
        return found

    def _opened(self, *, plain: bool) -> Session:
        more: dict[str, Any] = {"use_unicode": False, "conv": {}} if plain else {"cursorclass": DictCursor}
        for attempt in (1, 2):
            given = {"connect_timeout": _PATIENCE, "charset": "utf8mb4", "autocommit": True, **self.arguments(), **more}
            try:
                return mysql.connect(**given)
            except pymysql.err.OperationalError as exc:
                if attempt == 2 or self.refused is None or exc.args[0] not in _REFUSED:
                    raise
                self.refused()
            except RuntimeError as exc:  # a server asks for encryption that PyMySQL's extra `rsa` brings
                raise MigrationError(f"{self.name}: {exc}") from exc
        raise AssertionError  # the second attempt has returned or raised

    def _settle(self, session: Session, *, plain: bool) -> None:
        with session.cursor() as cursor:
            cursor.execute(
                "SHOW SESSION VARIABLES WHERE variable_name IN"
                " ('tx_isolation', 'transaction_isolation', 'max_statement_time', 'max_execution_time')"
            )
            known = {str(_first(row), "ascii") if plain else str(_first(row)) for row in cursor.fetchall()}
            chosen = {key: value for key, value in _SETTINGS.items() if key != "tx_isolation"}
            chosen |= {name: _SETTINGS["tx_isolation"] for name in known if name.endswith("isolation")}
            chosen |= {name: 0 for name in known if name in _OF_ONE_FLAVOUR}
            told = ", ".join(f"SESSION {name} = {_setting(value)}" for name, value in chosen.items())
            cursor.execute(f"SET {told}")
            cursor.execute("SET NAMES binary" if plain else "SET NAMES utf8mb4")
        sock = _socket(session)
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _first(row: Any) -> Any:  # noqa: ANN401  of any cursor
    return next(iter(row.values())) if isinstance(row, Mapping) else row[0]


def _setting(value: str | int) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def _socket(session: Session) -> Any:  # noqa: ANN401  no part of its public face
    return getattr(session, "_sock", None)


def cut_off(session: Session) -> None:
    """End what runs in a session, from another thread: the server takes its transaction back."""
    sock = _socket(session)
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def asking(name: str) -> Iterator[None]:
    """Say which side an error came from."""
    try:
        yield
    except pymysql.MySQLError as exc:
        raise MigrationError(f"{name}: {said(exc)}") from exc
    except OSError as exc:
        raise MigrationError(f"{name}: the connection was lost: {exc}") from exc


def said(exc: BaseException) -> str:
    """Return what a server said in one line, without values: it quotes rows."""
    if len(exc.args) < 2 or not isinstance(exc.args[0], int):
        return "the connection was lost" if exc.args in {(), (0, "")} else type(exc).__name__
    code, text = exc.args[0], str(exc.args[1])
    if code == 0:
        return "the connection was lost"
    if code == 1064:
        return f"it does not understand a statement, which a server of another kind or version wrote [{code}]"
    shown = text if code in _NAMED else _QUOTED.sub("'…'", text)
    return f"{' '.join(shown.split())} [{code}]"


def rows(session: Session, name: str, query: str, values: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """Ask one question; names of the answer are in lower case, as one flavour has them and the other not."""
    with asking(name), session.cursor() as cursor:
        cursor.execute(query, values)
        return [{key.lower(): value for key, value in row.items()} for row in cursor.fetchall()]


def raw(session: Session, name: str, query: str) -> list[tuple[bytes | None, ...]]:
    """Ask one question in a plain session."""
    with asking(name), session.cursor() as cursor:
        cursor.execute(encoded(query))
        return list(cursor.fetchall())


def warnings_of(session: Session) -> list[tuple[int, bytes]]:
    """Return what a server had to say of the last statement: codes and texts."""
    told = getattr(session, "_result", None)
    if told is None or not told.warning_count:
        return []
    found = session.show_warnings()  # type: ignore[no-untyped-call]
    return [(int(code), text if isinstance(text, bytes) else text.encode()) for _, code, text in found]


def decoded(text: bytes) -> str:
    """Return bytes as text, whatever they are: ``encoded`` makes the same bytes of it."""
    return text.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """Return the bytes that ``decoded`` has read."""
    return text.encode("utf-8", "surrogateescape")
