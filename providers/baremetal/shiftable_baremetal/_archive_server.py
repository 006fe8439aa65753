"""What an archiver asks a PostgreSQL server: how far its log is, and to keep what is not stored yet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import attrs

from shiftable.errors import Conflict, PermissionDenied
from shiftable_baremetal._servers_engine import fail

if TYPE_CHECKING:
    import psycopg

__all__ = ["ReplicationSession"]

_CLASS = 0x73686961  # of the advisory locks of archivers, "shia"
_PAGE = 8192
_HEADERS = (24, 40)  # bytes that a page, and a segment, of WAL begin with


@attrs.frozen
class ReplicationSession:
    """One connection of a user with REPLICATION.

    An archive has two physical slots. Nobody streams from the first: its position is moved after what lies before is
    stored, so the server keeps exactly what the bucket does not have yet. The second one's is where pg_receivewal is,
    which moves it when it has the log on *its* disk, which may be lost. Every user may read that; of
    pg_stat_replication only those of pg_monitor may.
    """

    _connection: psycopg.Connection[Any]

    @property
    def version(self) -> str:
        """The server's version."""
        return str(self._connection.info.parameter_status("server_version")).partition(" ")[0]

    def check(self) -> None:
        """Fail unless the log of this server can be archived by this user."""
        query = "SELECT pg_is_in_recovery(), current_user, rolsuper OR rolreplication FROM pg_roles"
        standby, user, may = self._row(f"{query} WHERE rolname = current_user")
        if standby:
            fail(Conflict, "the server is a standby: name its primary")
        if not may:
            fail(PermissionDenied, f'the server\'s user {user!r} may not replicate: ALTER ROLE "{user}" REPLICATION')

    def system(self) -> str:
        """Return the server's identifier, which its standbys share."""
        return str(self._row("SELECT system_identifier FROM pg_control_system()")[0])

    def segment_size(self) -> int:
        """Return the bytes of a segment of WAL."""
        return int(self._row("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'")[0])

    def superuser(self) -> str:
        """Return the server's first superuser."""
        return str(self._row("SELECT rolname FROM pg_roles WHERE oid = 10")[0])

    def tablespaces(self) -> list[str]:
        """Return the tablespaces that lie outside the data directory."""
        query = "SELECT spcname FROM pg_tablespace WHERE pg_tablespace_location(oid) <> '' ORDER BY 1"
        return [row[0] for row in self._connection.execute(query.encode()).fetchall()]

    def now(self) -> tuple[datetime, int]:
        """Return the server's time, and how far it has written its log then."""
        when, lsn = self._row("SELECT clock_timestamp(), pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        past_header = int(lsn) % _PAGE
        reached = int(lsn) - (past_header if past_header in _HEADERS else 0)  # nothing is written there yet
        return when.astimezone(UTC), reached

    def alone(self, archive: str) -> bool:
        """Be the only archiver until the session ends; false if there is another one."""
        return bool(self._row("SELECT pg_try_advisory_lock(%s, %s)", _CLASS, int(archive[:7], 16))[0])

    def slot(self, name: str) -> Literal["missing", "lost", "there"]:
        """Say whether the server keeps its log."""
        query = "SELECT coalesce(wal_status, 'lost') = 'lost' FROM pg_replication_slots WHERE slot_name = %s"
        found = self._connection.execute(query.encode(), (name,)).fetchone()
        return "missing" if found is None else "lost" if found[0] else "there"

    def kept_from(self, name: str) -> str:
        """Return the first segment that the server keeps for a slot."""
        return str(
            self._row("SELECT pg_walfile_name(restart_lsn + 1) FROM pg_replication_slots WHERE slot_name = %s", name)[0]
        )

    def timeline(self) -> str:
        """Return the timeline on which the server writes, as names of segments begin."""
        return str(self._row("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[0])[:8]

    def make_slot(self, name: str) -> None:
        """Have the server keep its log from now on."""
        self._row("SELECT pg_create_physical_replication_slot(%s, true)", name)

    def renew_slot(self, name: str) -> bool:
        """Make a slot to stream from, which knows of no position yet; false if somebody streams from it."""
        query = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active"
        if self._connection.execute(query.encode(), (name,)).fetchone() is not None:
            return False
        self.drop_slot(name)
        self._row("SELECT pg_create_physical_replication_slot(%s)", name)
        return True

    def drop_slot(self, name: str) -> None:
        """Have the server keep its log no longer, if it does."""
        query = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
        self._connection.execute(query.encode(), (name,))

    def advance(self, name: str, lsn: int) -> None:
        """Have the server keep only what comes after a position."""
        query = """
            SELECT pg_replication_slot_advance(slot_name, '0/0'::pg_lsn + %s) FROM pg_replication_slots
            WHERE slot_name = %s AND restart_lsn < '0/0'::pg_lsn + %s
            """
        self._connection.execute(query.encode(), (lsn, name, lsn))

    def received(self, name: str) -> int:
        """Return how far whoever streams from a slot has what it streams on its disk."""
        query = "SELECT restart_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s AND active"
        found: Any = self._connection.execute(query.encode(), (name,)).fetchone()
        return int(found[0] or 0) if found is not None else 0

    def _row(self, query: str, *values: object) -> tuple[Any, ...]:
        row: Any = self._connection.execute(query.encode(), values or None).fetchone()
        return tuple(row)
