"""What a move writes down in the target itself: how far it is, and which chunks have arrived.

A chunk's mark is written by the transaction that brought its rows, so that both are there or neither is, whoever was
killed. All of it goes away when the move is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

from shiftable.errors import MigrationError
from shiftable.migrate._mysql._side import Session, asking, raw, rows
from shiftable.migrate._mysql._tables import OWN
from shiftable.migrate._mysql._words import literal

__all__ = ["Marks", "hold", "marked", "phase_of"]

_RUN, _CHUNK = f"{OWN}_run", f"{OWN}_chunk"
_PATIENCE = 60
_LANES = 64
_TEXT = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_ENGINE = "ENGINE = InnoDB ROW_FORMAT = DYNAMIC"
_MAKE = (
    f"CREATE TABLE {_CHUNK} (name VARCHAR(300) {_TEXT} PRIMARY KEY, count BIGINT, size BIGINT) {_ENGINE}",
    f"CREATE TABLE {_RUN} (id INT PRIMARY KEY, phase VARCHAR(20) {_TEXT}, facts LONGTEXT {_TEXT}) {_ENGINE}",
    f"INSERT INTO {_RUN} VALUES (1, 'schema', '{{}}')",
)
_EXISTS = f"SELECT 1 AS found FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '{_RUN}'"


@attrs.define
class Marks:
    """The marks in a target, through a session that holds the lock of the move."""

    session: Session
    name: str
    database: str

    def lock(self) -> None:
        """Make sure that nobody else moves into this database, and that all sessions of a killed move have ended.

        Raises:
            MigrationError: another move is alive.
        """
        if not self._taken(_lock(self.database, "move")):
            raise MigrationError(f"{self.name}: another move writes to it; wait until it has ended")
        for number in range(_LANES):
            lock = _lock(self.database, str(number))
            if not self._taken(lock):
                raise MigrationError(f"{self.name}: sessions of a killed move do not end; end them there")
            rows(self.session, self.name, "SELECT RELEASE_LOCK(%s) AS released", (lock,))

    def _taken(self, lock: str) -> bool:
        return bool(rows(self.session, self.name, "SELECT GET_LOCK(%s, %s) AS taken", (lock, _PATIENCE))[0]["taken"])

    @property
    def phase(self) -> str | None:
        """How far the move is: ``schema``, ``data`` or ``post``; ``None``: there are no marks."""
        return phase_of(self.session, self.name)

    @property
    def facts(self) -> dict[str, Any]:
        """What the move knew when its data phase began."""
        (row,) = rows(self.session, self.name, f"SELECT facts FROM {_RUN}")
        found: dict[str, Any] = json.loads(row["facts"])
        return found

    @property
    def chunks(self) -> frozenset[str]:
        """The chunks that have arrived."""
        return frozenset(row["name"] for row in rows(self.session, self.name, f"SELECT name FROM {_CHUNK}"))

    def forget(self, key: str) -> None:
        """Take back the mark of a chunk that has to come again."""
        rows(self.session, self.name, f"DELETE FROM {_CHUNK} WHERE name = %s", (key,))

    def make(self) -> None:
        """Begin: from now on, what else is in the database is ours."""
        self.drop()
        for statement in _MAKE:
            rows(self.session, self.name, statement)

    def enter(self, phase: str, facts: Mapping[str, Any] | None = None) -> None:
        """Write down that a phase begins."""
        told = None if facts is None else json.dumps(facts)
        rows(self.session, self.name, f"UPDATE {_RUN} SET phase = %s, facts = coalesce(%s, facts)", (phase, told))

    def drop(self) -> None:
        """Leave nothing behind; what says that all is ours goes last."""
        for name in (_CHUNK, _RUN):
            with asking(self.name), self.session.cursor() as cursor:
                cursor.execute(f"DROP TABLE IF EXISTS {name}")


def hold(session: Session, name: str, database: str, number: int) -> None:
    """Let a lane's plain session hold a lock for as long as it lives: a later run waits for its end."""
    raw(session, name, f"SELECT GET_LOCK('{_lock(database, str(number % _LANES))}', {_PATIENCE})")


def marked(session: Session, key: str, count: int, size: int) -> None:
    """Write down a chunk in a plain session's open transaction; a second time is an error."""
    session.query(f"INSERT INTO {_CHUNK} VALUES ({literal(key)}, {count}, {size})".encode())


def phase_of(session: Session, name: str) -> str | None:
    """Tell how far a move into this database is."""
    if not rows(session, name, _EXISTS):
        return None
    found = rows(session, name, f"SELECT phase FROM {_RUN}")
    return str(found[0]["phase"]) if found else None


def _lock(database: str, what: str) -> str:
    """Return the name of a lock; it may have 64 characters."""
    return f"shiftable {hashlib.blake2b(database.encode(), digest_size=8).hexdigest()} {what}"
