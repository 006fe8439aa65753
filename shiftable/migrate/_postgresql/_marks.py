"""What a move writes down in the target itself: how far it is, and which chunks have arrived.

A chunk's mark is written by the transaction that brought its rows, so that both are there or neither is, whoever was
killed. All of it goes away when the move is complete.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from shiftable.errors import MigrationError
from shiftable.migrate._postgresql._side import APPLICATION, Session, asking, rows

__all__ = ["OWN_SCHEMA", "Marks", "marked", "phase_of"]

OWN_SCHEMA = "shiftable_migrate"
_LOCK = 0x53686966
_PATIENCE = 60.0
_STEP = 0.05

_MAKE = f"""
CREATE SCHEMA {OWN_SCHEMA};
CREATE TABLE {OWN_SCHEMA}.run (phase text NOT NULL, facts text NOT NULL);
CREATE TABLE {OWN_SCHEMA}.chunk (key text PRIMARY KEY, rows bigint NOT NULL, bytes bigint NOT NULL);
"""
_OTHERS = """
SELECT pid FROM pg_stat_activity
WHERE application_name = %s AND datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
"""


@attrs.define
class Marks:
    """The marks in a target, through a session that holds the lock of the move."""

    session: Session
    name: str

    def lock(self) -> None:
        """Make sure that nobody else moves into this database, and end what a killed move has left running.

        Raises:
            MigrationError: another move is alive.
        """
        until = time.monotonic() + _PATIENCE
        while not self._one("SELECT pg_try_advisory_lock(%s, 1) AS taken", _LOCK)["taken"]:
            if time.monotonic() > until:
                raise MigrationError(f"{self.name}: another move writes to it; wait until it has ended")
            time.sleep(_STEP)
        while others := rows(self.session, self.name, _OTHERS, (APPLICATION,)):
            if time.monotonic() > until:
                raise MigrationError(f"{self.name}: sessions of a killed move do not end; end them there")
            for other in others:
                rows(self.session, self.name, "SELECT pg_terminate_backend(%s)", (other["pid"],))
            time.sleep(_STEP)

    @property
    def phase(self) -> str | None:
        """How far the move is: ``schema``, ``data`` or ``post``; ``None``: there are no marks."""
        return phase_of(self.session, self.name)

    @property
    def facts(self) -> dict[str, Any]:
        """What the move knew when its data phase began."""
        found: dict[str, Any] = json.loads(self._one(f"SELECT facts FROM {OWN_SCHEMA}.run")["facts"])
        return found

    @property
    def chunks(self) -> frozenset[str]:
        """The chunks that have arrived."""
        found = rows(self.session, self.name, f"SELECT key FROM {OWN_SCHEMA}.chunk")
        return frozenset(row["key"] for row in found)

    def forget(self, keys: Iterable[str]) -> None:
        """Take back the marks of chunks that have to come again."""
        with asking(self.name):
            self.session.execute(f"DELETE FROM {OWN_SCHEMA}.chunk WHERE key = ANY (%s)", ([*keys],))

    def rows_of(self, keys: Iterable[str]) -> int:
        """Return how many rows some chunks have brought."""
        query = f"SELECT coalesce(sum(rows), 0)::bigint AS found FROM {OWN_SCHEMA}.chunk WHERE key = ANY (%s)"
        return int(self._one(query, [*keys])["found"])

    def make(self) -> None:
        """Begin: from now on, what else is in the database is ours."""
        with asking(self.name), self.session.transaction():
            self.session.execute(_MAKE)
            self.session.execute(f"INSERT INTO {OWN_SCHEMA}.run VALUES ('schema', '{{}}')")

    def enter(self, phase: str, facts: Mapping[str, Any] | None = None) -> None:
        """Write down that a phase begins."""
        told = None if facts is None else json.dumps(facts)
        with asking(self.name):
            self.session.execute(f"UPDATE {OWN_SCHEMA}.run SET phase = %s, facts = coalesce(%s, facts)", (phase, told))

    def drop(self) -> None:
        """Leave nothing behind."""
        with asking(self.name):
            self.session.execute(f"DROP SCHEMA IF EXISTS {OWN_SCHEMA} CASCADE")

    def _one(self, query: str, *values: object) -> dict[str, Any]:
        return rows(self.session, self.name, query, values)[0]


def marked(session: Session, key: str, count: int, size: int) -> None:
    """Write down a chunk in the session's open transaction; a second time is an error."""
    session.execute(f"INSERT INTO {OWN_SCHEMA}.chunk VALUES (%s, %s, %s)", (key, count, size))


def phase_of(session: Session, name: str) -> str | None:
    """Tell how far a move into this database is."""
    if not rows(session, name, "SELECT 1 WHERE to_regclass(%s) IS NOT NULL", (f"{OWN_SCHEMA}.run",)):
        return None  # the schema may hold how far changes were followed (_capture)
    found = rows(session, name, f"SELECT phase FROM {OWN_SCHEMA}.run")
    return str(found[0]["phase"]) if found else None
