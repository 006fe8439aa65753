# ruff: noqa: S608  names are quoted, values are parameters
"""The logical replication slot: what keeps the source's write-ahead log until the target has it, and must not be left.

A slot that is forgotten fills the source's disk. So its name follows from what is moved where and is written down
before the slot is made; whoever runs the same again finds it, and ``slots`` finds those that nobody knows of any more.
"""

from __future__ import annotations

import hashlib
import select
import time
from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import attrs
import psycopg
from psycopg import pq

from shiftable.errors import MigrationError
from shiftable.migrate._capture._pgoutput import lsn_number, lsn_text
from shiftable.migrate._capture._server import APPLICATION, Connection, Server, closing_quietly

__all__ = ["PREFIX", "Slot", "SlotState", "Snapshot", "drop_slot", "peek", "slot_name", "slots"]

PREFIX = "shiftable_"
_UNLIMITED = ("statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")
"""Whoever holds a snapshot is idle as long as the copy takes."""
_UNENDING = "transactions on the source do not end ({}); end them and run the same again"
_PATIENCE = 30.0
"""Seconds for a session of ours that was killed to let go of the slot."""


@attrs.frozen(kw_only=True)
class SlotState:
    """A slot as the source shows it.

    Args:
        retained: bytes of the write-ahead log that the source keeps for it.
        lost: the source has thrown away what it should have kept: ``max_slot_wal_keep_size`` was exceeded.
        pid: of the session that uses it now.
    """

    name: str
    database: str
    plugin: str
    retained: int
    confirmed: int
    lost: bool
    pid: int | None


@attrs.frozen(kw_only=True)
class Snapshot:
    """The state of the source from which the slot's changes go on.

    Args:
        name: for ``SET TRANSACTION SNAPSHOT``, while the slot's maker holds it.
        visible: ``txid_current_snapshot()`` where the server did not tie it to the slot: what was visible in it was
            copied, so it is left out of the changes. Empty where the two meet exactly.
        until: behind that place nothing is visible in it any more.
    """

    name: str
    start: int
    visible: str = ""
    until: int = 0


def slot_name(*identity: str) -> str:
    """Return the name that follows from what is moved where."""
    return PREFIX + hashlib.sha256("\0".join(identity).encode()).hexdigest()[:20]


def slots(connection: Connection) -> tuple[SlotState, ...]:
    """List the slots of this tool on the server, also those that nobody knows of any more."""
    rows = connection.execute(
        "SELECT slot_name, database, plugin, active_pid, wal_status,"
        " coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint, confirmed_flush_lsn::text"
        " FROM pg_replication_slots WHERE starts_with(slot_name, %s) ORDER BY slot_name",
        (PREFIX,),
    ).fetchall()
    return tuple(
        SlotState(
            name=name,
            database=database or "",
            plugin=plugin or "",
            retained=retained,
            confirmed=lsn_number(confirmed) if confirmed else 0,
            lost=status == "lost",
            pid=pid,
        )
        for name, database, plugin, pid, status, retained, confirmed in rows
    )


def drop_slot(connection: Connection, name: str, *, patience: float = _PATIENCE) -> bool:
    """Drop a slot of this tool, and end a session of ours that still uses it; tell whether there was one.

    Raises:
        MigrationError: somebody else uses it.
    """
    until = time.monotonic() + patience
    while True:
        found = next((each for each in slots(connection) if each.name == name), None)
        if found is None:
            return False
        try:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))
        except psycopg.errors.UndefinedObject:
            return False
        except psycopg.errors.ObjectInUse as exc:
            _let_go(connection, found)
            if time.monotonic() > until:
                raise MigrationError(
                    f"the replication slot {name} is in use by process {found.pid} of the source; it keeps"
                    f" {found.retained:,} bytes of its write-ahead log: end that process and run the same again"
                ) from exc
            time.sleep(0.1)
        else:
            return True


def _let_go(connection: Connection, found: SlotState) -> None:
    """End the session of ours that uses the slot: of a mover that was killed, or it would have locked us out."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND application_name LIKE %s",
        (found.pid, f"{APPLICATION}%"),
    )


@attrs.define
class Slot:
    """A slot, and how its changes are read over an ordinary connection.

    Args:
        binary: values as each type's own binary form, where it has one.
    """

    name: str
    publication: str
    binary: bool = False

    # making it

    def create(self, source: Server, patience: float, hold: Callable[[Connection], object]) -> Snapshot:
        """Make it, and return the state from which it goes on; a connection that keeps that state alive is held.

        A replication connection ties both together. Where none is allowed, the slot is made by a function, and a
        snapshot is taken later: when everything that ran when the slot stood has ended. Then whatever was committed
        before the slot is visible in the snapshot, even if its server was slow to say so; whatever is not visible in
        it began after the slot, so that the slot has all of it; and what both have is told by the number of the
        transaction, which stands in each change.
        """
        try:
            connection = source.connect(replication="database")
        except psycopg.OperationalError:
            return self._create_by_function(source, patience, hold)
        try:
            found = self._create_exported(connection, patience)
        except psycopg.errors.SyntaxError:  # a pooler that let us in, and knows nothing of replication
            closing_quietly(connection)
            return self._create_by_function(source, patience, hold)
        except psycopg.errors.LockNotAvailable as exc:
            closing_quietly(connection)
            raise MigrationError(_UNENDING.format("those that the slot waited for")) from exc
        except BaseException:
            closing_quietly(connection)
            raise
        hold(connection)
        return found

    def _create_exported(self, connection: Connection, patience: float) -> Snapshot:
        settings = {"lock_timeout": patience * 1000, **dict.fromkeys(_UNLIMITED, 0)}
        for name, value in settings.items():  # of which older servers lack one
            connection.pgconn.exec_(f"SET {name} = {value:.0f}".encode())
        command = f"CREATE_REPLICATION_SLOT {self.name} LOGICAL pgoutput EXPORT_SNAPSHOT"
        result = connection.pgconn.exec_(command.encode())
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(result)
        start, snapshot = result.get_value(0, 1), result.get_value(0, 2)
        if start is None or snapshot is None:
            raise MigrationError("the source made a replication slot without a snapshot")
        return Snapshot(name=snapshot.decode(), start=lsn_number(start.decode()))

    def _create_by_function(self, source: Server, patience: float, hold: Callable[[Connection], object]) -> Snapshot:
        connection = source.connect("snapshot")
        try:
            connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{patience * 1000:.0f}",))
            start = _one(
                connection, "SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput')", self.name
            )
            wait_for_others(connection, patience)
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            name = _one(connection, "SELECT pg_export_snapshot()")
            visible = _one(connection, "SELECT txid_current_snapshot()::text")
            until = _one(connection, "SELECT pg_current_wal_insert_lsn()::text")
        except psycopg.errors.LockNotAvailable as exc:
            closing_quietly(connection)
            raise MigrationError(_UNENDING.format("those that the slot waited for")) from exc
        except BaseException:
            closing_quietly(connection)
            raise
        hold(connection)
        return Snapshot(name=name, start=lsn_number(start), visible=visible, until=lsn_number(until))

    # looking at it

    def state(self, connection: Connection) -> SlotState:
        """Return how it is.

        Raises:
            MigrationError: it is gone, or what it should have kept is.
        """
        found = next((each for each in slots(connection) if each.name == self.name), None)
        if found is None:
            raise MigrationError(
                f"the replication slot {self.name} is gone from the source, and with it the changes since; roll back,"
                " and begin again"
            )
        if found.lost:
            raise MigrationError(
                f"the source has thrown away changes that the replication slot {self.name} should have kept, as"
                " max_slot_wal_keep_size was exceeded; roll back, raise it, and begin again"
            )
        return found

    # reading it

    def advance(self, connection: Connection, lsn: int) -> None:
        """Let the source forget what the target has."""
        self._unless_in_use(
            connection,
            lambda: connection.execute(
                "SELECT 1 FROM pg_replication_slots s, LATERAL pg_replication_slot_advance(s.slot_name, %s::pg_lsn)"
                " WHERE s.slot_name = %s AND s.confirmed_flush_lsn < %s::pg_lsn",
                (lsn_text(lsn), self.name, lsn_text(lsn)),
            ),
        )

    def peek(self, connection: Connection, *, upto: int, changes: int) -> Iterator[bytes]:
        """Read the messages of transactions that committed up to a place, until there are so many changes.

        A transaction comes whole, however large; it is read as it is used, so that nothing but the rows under way is in
        memory here. The server keeps it on its disk.
        """
        options = ["proto_version", "1", "publication_names", self.publication]
        if self.binary:
            options += ["binary", "true"]
        names = ", ".join(f"${at}" for at in range(4, 4 + len(options)))
        statement = f"SELECT data FROM pg_logical_slot_peek_binary_changes($1, $2::pg_lsn, $3::int, {names})"
        given = [self.name, lsn_text(upto), str(changes), *options]
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                yield from peek(connection, statement, given)
            except psycopg.errors.ObjectInUse:  # raised before the first message
                self._wait_for_it(connection, until)
            else:
                return

    def _unless_in_use(self, connection: Connection, call: Callable[[], object]) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                call()
            except psycopg.errors.ObjectInUse:
                self._wait_for_it(connection, until)
            else:
                return

    def _wait_for_it(self, connection: Connection, until: float) -> None:
        found = self.state(connection)
        if time.monotonic() > until:
            raise MigrationError(
                f"the replication slot {self.name} is in use by process {found.pid} of the source, which is none of"
                " this tool's: nobody else may read it; end that process and run the same again"
            )
        _let_go(connection, found)
        time.sleep(0.1)


def peek(connection: Connection, statement: str, given: list[str]) -> Iterator[bytes]:
    """Yield the one column of a query's rows as they come. The session is good for nothing else until the last one."""
    pgconn = connection.pgconn
    pgconn.send_query_params(statement.encode(), [each.encode() for each in given], result_format=1)
    pgconn.set_single_row_mode()
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    while True:
        while pgconn.is_busy():
            poll.poll(1000)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            return
        if result.status == pq.ExecStatus.SINGLE_TUPLE:
            value = result.get_value(0, 0)
            if value is None:
                raise MigrationError("the source sent a change that is empty")
            yield value
        elif result.status != pq.ExecStatus.TUPLES_OK:
            error = psycopg.errors.error_from_result(result)
            while pgconn.get_result() is not None:  # so that the session can be used again
                pass
            raise error


def wait_for_others(connection: Connection, patience: float) -> None:
    """Wait until every transaction that runs now has ended.

    Raises:
        MigrationError: some had not, within that many seconds; it names their processes.
    """
    until = time.monotonic() + patience
    top = _one(connection, "SELECT txid_snapshot_xmax(txid_current_snapshot())::text")
    while not _one(connection, "SELECT txid_snapshot_xmin(txid_current_snapshot()) >= %s::bigint", top):
        if time.monotonic() > until:
            rows = connection.execute(
                "SELECT pid, coalesce(usename, ''), extract(epoch FROM now() - xact_start)::int FROM pg_stat_activity"
                " WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 5"
            ).fetchall()
            named = ", ".join(
                f"process {pid} of {user or 'nobody we may see'} for {age:,} s" for pid, user, age in rows
            )
            raise MigrationError(_UNENDING.format(named or "prepared ones, perhaps: see pg_prepared_xacts"))
        time.sleep(0.005)


def _one(connection: Connection, statement: LiteralString, *given: object) -> Any:  # noqa: ANN401  what it returns
    return (connection.execute(statement, given).fetchone() or (None,))[0]
