# ruff: noqa: S608  names are quoted, values are parameters
"""The source: what it must allow, what has to be published, and how its writers are stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, LiteralString

import attrs
import psycopg
from psycopg import sql

from shiftable.errors import MigrationError
from shiftable.migrate._capture._pgoutput import lsn_number
from shiftable.migrate._capture._server import APPLICATION, Connection, Server, identifier, quoted

__all__ = ["Finding", "Kept", "Place", "Sequence", "Source", "Table", "is_publishable"]

_OLDEST = 130_000
"""PostgreSQL 13: the first whose publications take partitioned tables, and whose slots tell that they were lost."""
_PAGE, _PAGE_HEADER = 8192, 40
"""Bytes: where a page has just ended, the next record is to come behind the next one's header."""
_LOOKS = 3
"""At the sessions, without finding one: what has just read its settings shows itself a moment later."""
_PAUSES = (0.5, 1.0, 2.0)
_SESSIONS = """
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (coalesce(backend_type, 'client backend') = 'client backend' AND coalesce(backend_start <= %(since)s, true)
        OR backend_xid IS NOT NULL)
    AND coalesce(application_name, '') NOT LIKE %(ours)s
"""
_READ_ONLY = "default_transaction_read_only"
_OURS = "shiftable_migrate"

_PROVIDERS = {
    "rds.extensions": ("rds.logical_replication = 1 in the parameter group", "GRANT rds_replication TO {}"),
    "cloudsql.logical_decoding": ("the flag cloudsql.logical_decoding = on", "ALTER USER {} WITH REPLICATION"),
    "azure.extensions": ("the server parameter wal_level = logical", "ALTER ROLE {} WITH REPLICATION"),
}
"""A setting by which a provider's server is known; how logical decoding is turned on there; who may use it."""
_ANYWHERE = ("wal_level = logical", "ALTER ROLE {} WITH REPLICATION")

_SENT = """NOT EXISTS (SELECT FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attnum = ANY (i.indkey::int2[])
            AND g.attgenerated <> '')"""
"""A key can name rows: generated columns are not sent with changes."""
_TABLES = f"""
SELECT n.nspname, c.relname, c.relkind, c.relreplident, c.relpersistence, c.relispartition,
    pg_has_role(c.relowner, 'USAGE'),
    CASE c.relreplident
        WHEN 'f' THEN true
        WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate
            AND {_SENT})
        WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND {_SENT})
        ELSE false END,
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident) AND NOT {_SENT}),
    (SELECT ci.relname FROM pg_index i JOIN pg_class ci ON ci.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND i.indisreplident),
    (SELECT min(ci.relname) FROM pg_index i JOIN pg_class ci ON ci.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
        AND i.indpred IS NULL AND i.indexprs IS NULL AND {_SENT}
        AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[])
            AND NOT a.attnotnull)),
    (SELECT md5(coalesce(string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
            a.attgenerated), ', ' ORDER BY a.attnum), '')) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
    AND n.nspname NOT IN ('information_schema', %s)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
        AND d.deptype = 'e')
ORDER BY 1, 2
"""


@attrs.frozen(kw_only=True)
class Finding:
    """Something about the source that matters.

    Args:
        blocks: nothing can begin before it is changed; else something is lost or done that one should know.
    """

    message: str
    blocks: bool


@attrs.frozen(kw_only=True)
class Table:
    """A table of the source.

    Args:
        identity: how deleted and updated rows are named: ``d`` by the primary key, ``i`` by an index, ``f`` by all
            columns, ``n`` not at all.
        has_identity: they can be named that way.
        is_generated: a column of its key is generated.
        index: the index that names them now; ``unique`` one that could.
        columns: a digest of names and types.
    """

    schema: str
    name: str
    kind: str
    identity: str
    persistence: str
    is_partition: bool
    owned: bool
    has_identity: bool
    is_generated: bool
    index: str | None
    unique: str | None
    columns: str

    @property
    def kept(self) -> Kept:
        """Its replica identity."""
        return Kept(schema=self.schema, table=self.name, identity=self.identity, index=self.index or "")

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@attrs.frozen(kw_only=True)
class Kept:
    """A replica identity that the source had before."""

    schema: str
    table: str
    identity: str
    index: str = ""


@attrs.frozen(kw_only=True)
class Place:
    """Where the source's write-ahead log is.

    Args:
        written: the end of what is on its disk, so can be read.
        inserted: the end of all; what was committed lazily (``synchronous_commit = off``) is on the disk soon.
    """

    written: int
    inserted: int
    at: datetime


@attrs.frozen(kw_only=True)
class Sequence:
    """Where a sequence is."""

    schema: str
    name: str
    value: int
    called: bool


def is_publishable(table: Table) -> bool:
    """Tell whether a publication has to name it: partitions come with their table, and unlogged ones are not logged."""
    return table.persistence == "p" and not table.is_partition


@attrs.define
class Source:
    """The database that is moved."""

    server: Server
    publication: str

    # what it must allow

    def check(self, connection: Connection, *, may_identify: bool) -> Iterator[Finding]:
        """Find all that stands in the way, and all that will not come along, one sentence each.

        Args:
            may_identify: tables without a key may be given another replica identity for the time of the move.
        """
        level, slots, used, version, standby, user, database, kept, mine = _row(
            connection,
            "SELECT current_setting('wal_level'), current_setting('max_replication_slots')::int,"
            " (SELECT count(*) FROM pg_replication_slots), current_setting('server_version_num')::int,"
            " pg_is_in_recovery(), current_user, current_database(), current_setting('max_slot_wal_keep_size', true),"
            " EXISTS (SELECT FROM pg_publication WHERE pubname = %s)",
            self.publication,
        )
        how, grant = self._provider(connection)
        label = self.server.label
        if version < _OLDEST:
            yield _blocking(f"{label} is PostgreSQL {version // 10_000}; changes can be followed from 13 on")
        if standby:
            yield _blocking(f"{label} is a standby; the move has to read from its primary")
        if level != "logical":
            yield _blocking(f"{label} has wal_level {level}: set {how}, and restart it")
        if used >= slots and not mine:
            yield _blocking(f"{label} has all its {slots} replication slots in use: raise max_replication_slots")
        if not self._may_replicate(connection):
            yield _blocking(f"{user} may not use replication slots on {label}: {grant.format(quoted(user))}")
        if not mine and not _value(connection, "SELECT has_database_privilege(current_database(), 'CREATE')"):
            yield _blocking(
                f"{user} may not make a publication: GRANT CREATE ON DATABASE {quoted(database)} TO {quoted(user)}"
            )
        if kept in {None, "-1"}:
            yield _telling(
                f"{label} sets no max_slot_wal_keep_size: while the move does not run, its write-ahead log grows"
                " without end"
            )
        yield from self._check_tables(connection, user, may_identify=may_identify)
        yield from self._check_rest(connection)

    def _check_tables(self, connection: Connection, user: str, *, may_identify: bool) -> Iterator[Finding]:
        for table in self.tables(connection):
            if table.persistence == "u":
                yield _telling(f"{table} is unlogged: what is written to it after the copy stays behind")
                continue
            if not table.owned:
                yield _blocking(f"{user} does not own {table}, so cannot publish it: grant its owner to {user}")
            if table.kind == "r" and not table.has_identity:
                way = f"its unique index {table.unique}" if table.unique else "all of its columns"
                what = "a key with a generated column, which is not sent" if table.is_generated else "no key"
                if may_identify:
                    yield _telling(f"{table} has {what}: until the move ends its rows are named by {way}")
                else:
                    yield _blocking(
                        f"{table} has {what}, so updates and deletions of it could not be followed"
                        f"{'' if table.is_generated else ', and the source would refuse them'}: give it"
                        f" {'another' if table.is_generated else 'a primary key'}, or allow (--may-identify) that its"
                        f" rows are named by {way} until the move ends"
                    )

    def _check_rest(self, connection: Connection) -> Iterator[Finding]:
        (large,) = _row(connection, "SELECT count(*) FROM (SELECT FROM pg_largeobject_metadata LIMIT 1) found")
        if large:
            yield _telling("there are large objects: what is written to them after the copy stays behind")
        (prepared,) = _row(connection, "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()")
        if prepared:
            yield _telling(f"{prepared} prepared transactions are open: they have to end before the copy can begin")
        rows = connection.execute(
            "SELECT coalesce(r.rolname, '') FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole"
            " WHERE EXISTS (SELECT FROM unnest(s.setconfig) AS c WHERE c LIKE %s) AND setdatabase IN"
            " (0, (SELECT oid FROM pg_database WHERE datname = current_database()))",
            (f"{_READ_ONLY}=off%",),
        ).fetchall()
        for (role,) in rows:
            yield _telling(f"role {role} sets {_READ_ONLY} itself: the stop of writes does not bind it")

    def _provider(self, connection: Connection) -> tuple[str, str]:
        for setting, found in _PROVIDERS.items():
            if _value(connection, "SELECT current_setting(%s, true)", setting) is not None:
                return found
        return _ANYWHERE

    def _may_replicate(self, connection: Connection) -> bool:
        found: bool = _value(
            connection,
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolreplication))"
            " OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'MEMBER'))",
        )
        return found

    # what is published

    def tables(self, connection: Connection) -> tuple[Table, ...]:
        """List the tables that are the application's."""
        names = [field.name for field in attrs.fields(Table)]
        rows = connection.execute(_TABLES, (_OURS,)).fetchall()
        return tuple(Table(**dict(zip(names, row, strict=True))) for row in rows)

    def shape(self, connection: Connection) -> dict[str, str]:
        """Return a digest of each table's columns, by which it is noticed that one came, went or changed."""
        return {str(table): table.columns for table in self.tables(connection) if table.persistence == "p"}

    def unidentified(self, connection: Connection) -> tuple[Kept, ...]:
        """List the replica identities that have to be changed, as they are."""
        return tuple(
            table.kept
            for table in self.tables(connection)
            if table.kind == "r" and table.persistence == "p" and not table.has_identity
        )

    def identify(self, connection: Connection, kept: Iterable[Kept]) -> None:
        """Let the rows of tables without a key be named: by a unique index, or by all columns."""
        tables = {(table.schema, table.name): table for table in self.tables(connection)}
        for each in kept:
            table = tables.get((each.schema, each.table))
            if table is not None and not table.has_identity:
                self._identity(connection, each, "i" if table.unique else "f", table.unique or "")

    def forget_identities(self, connection: Connection, kept: Iterable[Kept]) -> None:
        """Put replica identities back as they were."""
        here = {table.kept for table in self.tables(connection)}
        names = {(each.schema, each.table) for each in here}
        for each in kept:
            if (each.schema, each.table) in names and each not in here:
                self._identity(connection, each, each.identity, each.index)

    def _identity(self, connection: Connection, kept: Kept, identity: str, index: str) -> None:
        words = {"d": "DEFAULT", "n": "NOTHING", "f": "FULL", "i": f"USING INDEX {quoted(index)}"}
        table = quoted(kept.schema, kept.table)
        _impatiently(connection, f"ALTER TABLE ONLY {table} REPLICA IDENTITY {words[identity]}")

    def publish(self, connection: Connection) -> None:
        """Make the publication, of every table by its name: one of all tables takes a superuser."""
        tables = [table for table in self.tables(connection) if is_publishable(table)]
        if not tables:
            raise MigrationError(f"{self.server.label} has no table that could be followed")
        self.unpublish(connection)
        named = ", ".join(f"ONLY {quoted(table.schema, table.name)}" for table in tables)
        _impatiently(connection, f"CREATE PUBLICATION {quoted(self.publication)} FOR TABLE {named}")

    def unpublish(self, connection: Connection) -> None:
        """Drop the publication, if there is one."""
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(identifier(self.publication)))

    # where it is

    def place(self, connection: Connection) -> Place:
        """Return where its write-ahead log is."""
        flushed, inserted, at = _row(
            connection,
            "SELECT pg_current_wal_flush_lsn()::text, pg_current_wal_insert_lsn()::text, clock_timestamp()",
        )
        written, inserted = lsn_number(flushed), lsn_number(inserted)
        header = written % _PAGE == 0 and inserted - written <= _PAGE_HEADER
        return Place(written=written, inserted=written if header else inserted, at=at)

    def sequences(self, connection: Connection) -> tuple[Sequence, ...]:
        """Return where all sequences are."""
        names = connection.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'"
            " AND n.nspname NOT IN ('information_schema', %s) AND NOT EXISTS (SELECT FROM pg_depend d"
            " WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2",
            (_OURS,),
        ).fetchall()
        if not names:
            return ()
        each = (
            f"SELECT {at} AS at, last_value, is_called FROM {quoted(schema, name)}"
            for at, (schema, name) in enumerate(names)
        )
        found = connection.execute(" UNION ALL ".join(each).encode()).fetchall()
        return tuple(
            Sequence(schema=names[at][0], name=names[at][1], value=value, called=called)
            for at, value, called in sorted(found)
        )

    # stopping its writers

    def read_only_before(self, connection: Connection) -> str:
        """Return what the database itself says of read-only transactions, empty if nothing."""
        rows = connection.execute(
            "SELECT c FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS c"
            " WHERE d.datname = current_database() AND s.setrole = 0 AND c LIKE %s",
            (f"{_READ_ONLY}=%",),
        ).fetchall()
        return str(rows[0][0]).partition("=")[2] if rows else ""

    def may_freeze(self, connection: Connection) -> Iterator[Finding]:
        """Find what stands in the way of stopping the writers."""
        label = self.server.label
        owned, signals, sees = _row(
            connection,
            "SELECT pg_has_role(datdba, 'USAGE'), pg_has_role('pg_signal_backend', 'USAGE'),"
            " pg_has_role('pg_read_all_stats', 'USAGE') FROM pg_database WHERE datname = current_database()",
        )
        if not owned:
            yield _blocking(
                f"the user does not own the database on {label}, so cannot make it read-only: grant its owner's role"
            )
        if not signals:
            yield _telling(f"only the user's own sessions on {label} can be ended: grant pg_signal_backend")
        if not sees:
            yield _telling(f"the user cannot see who still writes on {label}: grant pg_read_all_stats")

    def freeze(self, connection: Connection, *, patience: float) -> None:
        """Make new sessions read-only, and end those that there are, until nobody writes any more.

        It binds all that do not ask for the opposite: a session may still turn ``default_transaction_read_only`` off,
        and so may the settings of a role. So nobody relies on it: what is written nevertheless is found afterwards.

        Raises:
            MigrationError: somebody still writes after that many seconds.
        """
        (prepared,) = _row(connection, "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()")
        if prepared:
            raise MigrationError(
                f"{prepared} prepared transactions are open on {self.server.label}: commit them or roll them back"
            )
        self._set_read_only(connection, "on")
        since = _value(connection, "SELECT clock_timestamp()")
        until, looks = time.monotonic() + patience, 0
        while looks < _LOOKS:
            looks = 0 if self._end_sessions(connection, since) else looks + 1
            if time.monotonic() > until:
                raise MigrationError(
                    f"sessions on {self.server.label} do not end ({self._sessions(connection, since)}); end them and"
                    " run the same again"
                )
            time.sleep(0.005)

    def thaw(self, connection: Connection, before: str) -> None:
        """Let it be written again, if it was before."""
        self._set_read_only(connection, before)

    def seal(self, connection: Connection) -> int:
        """Return a place behind everything that was committed; what was committed lazily is on the disk then."""
        connection.execute("SELECT pg_logical_emit_message(true, 'shiftable', '')")
        return self.place(connection).written

    def _set_read_only(self, connection: Connection, value: str) -> None:
        database = quoted(_value(connection, "SELECT current_database()"))
        change = f"SET {_READ_ONLY} = {quoted(value)}" if value else f"RESET {_READ_ONLY}"
        connection.execute(f"ALTER DATABASE {database} {change}".encode())

    def _end_sessions(self, connection: Connection, since: datetime) -> bool:
        """End all sessions that began before a time, when the setting did not bind them; tell whether there were any.

        Of sessions of others, whoever may not see more sees only that they are there.
        """
        rows = connection.execute(f"SELECT pid {_SESSIONS}".encode(), _writers(since)).fetchall()
        for (pid,) in rows:
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):  # it is named when patience ends
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        return bool(rows)

    def _sessions(self, connection: Connection, since: datetime) -> str:
        statement = f"SELECT pid, coalesce(usename, backend_type) {_SESSIONS} ORDER BY pid LIMIT 5".encode()
        rows = connection.execute(statement, _writers(since)).fetchall()
        return ", ".join(f"process {pid} of {user}" for pid, user in rows)


def _writers(since: datetime) -> dict[str, Any]:
    return {"since": since, "ours": f"{APPLICATION}%"}


def _impatiently(connection: Connection, statement: str) -> None:
    """Change a table, but do not let the application queue behind us where another holds it.

    Raises:
        MigrationError: it was held, several times.
    """
    for pause in (*_PAUSES, None):
        try:
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '2s'")
                connection.execute(statement.encode())
        except psycopg.errors.LockNotAvailable as exc:
            if pause is None:
                raise MigrationError(
                    f"a table is locked for long ({exc.diag.message_primary}); end that transaction and run the same"
                    " again"
                ) from exc
            time.sleep(pause)
        else:
            return


def _row(connection: Connection, statement: LiteralString, *given: object) -> tuple[Any, ...]:
    found = connection.execute(statement, given).fetchone()
    return found or ()


def _value(connection: Connection, statement: LiteralString, *given: object) -> Any:  # noqa: ANN401  what it returns
    return _row(connection, statement, *given)[0]


def _blocking(message: str) -> Finding:
    return Finding(message=message, blocks=True)


def _telling(message: str) -> Finding:
    return Finding(message=message, blocks=False)
