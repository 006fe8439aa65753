# ruff: noqa: S608  names are quoted, values are parameters
"""Applies changes to the target in the order of their commits, each exactly once.

The place up to which the target has everything is written in the transaction that brings it there. Whoever goes on
reads it from the target, and takes it as a fence: of two that try, one fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import attrs
import psycopg

from shiftable.errors import MigrationError
from shiftable.migrate._capture._pgoutput import (
    Begin,
    Column,
    Commit,
    Decoder,
    Delete,
    Insert,
    Relation,
    Row,
    Truncate,
    Update,
    lsn_number,
    lsn_text,
)
from shiftable.migrate._capture._pipe import Expected, Pipe
from shiftable.migrate._capture._server import Connection, Server, closing_quietly, quoted
from shiftable.migrate._capture._shield import CAPTURE, Shield, lower, raise_shield

__all__ = ["Applied", "Applier", "Moved", "Stale", "Visible"]

_ROWS = (64, 16, 4, 1)
"""Rows of one insert: so many are sent at once, and few statements have to be prepared for that."""
_PARAMETERS = 20_000
"""Of one statement; the protocol allows 65,535."""
_RUN_BYTES = 1024 * 1024
_SHOWN = 60
_BUILT_IN = 10_000
"""Types below that number have it on every server."""

_UNCHANGED, _BINARY = b"ub"

_COLUMNS = """
SELECT a.attname, a.atttypid, a.atttypmod, a.attgenerated::text, tn.nspname, t.typname,
    bn.nspname, b.typname, b.oid,
    (SELECT oprn.nspname FROM pg_opclass oc JOIN pg_am am ON am.oid = oc.opcmethod AND am.amname = 'btree'
        JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
            AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
        JOIN pg_operator opr ON opr.oid = ao.amopopr JOIN pg_namespace oprn ON oprn.oid = opr.oprnamespace
        WHERE oc.opcdefault AND oc.opcintype = b.oid),
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisvalid AND i.indpred IS NULL
        AND i.indkey[0] = a.attnum)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace tn ON tn.oid = t.typnamespace
JOIN LATERAL (
    WITH RECURSIVE base (oid, next) AS (
        SELECT t.oid, t.typbasetype UNION ALL
        SELECT n.oid, n.typbasetype FROM base JOIN pg_type n ON n.oid = base.next)
    SELECT oid FROM base WHERE next = 0) AS lowest ON true
JOIN pg_type b ON b.oid = lowest.oid JOIN pg_namespace bn ON bn.oid = b.typnamespace
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""


class Stale(Exception):
    """The target has more than was thought: a mover that was killed came to its end. Look again."""


@attrs.frozen(kw_only=True)
class Applied:
    """What one batch brought.

    Args:
        lsn: up to there the target has everything.
        at: when the last of its transactions was committed on the source.
    """

    lsn: int
    at: datetime | None = None
    transactions: int = 0
    changes: int = 0
    messages: int = 0


@attrs.frozen(kw_only=True)
class Moved:
    """Where the target is, as it says itself."""

    start: int
    lsn: int


@attrs.frozen
class Visible:
    """What a snapshot saw: transactions that are in the copy already.

    Args:
        until: behind that place there is none of them.
    """

    xmin: int
    xmax: int
    running: frozenset[int]
    until: int

    @classmethod
    def read(cls, text: str, until: int) -> Visible:
        """Read what ``txid_current_snapshot()`` returned."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(each) for each in running.split(",") if each), until)

    def has(self, begin: Begin) -> bool:
        """Tell whether the transaction is in the copy. Changes carry the low 32 bits of its number."""
        if begin.lsn >= self.until:
            return False
        number = self.xmax + _signed(begin.xid - self.xmax)
        return number < self.xmin or (number < self.xmax and number not in self.running)


def _signed(difference: int) -> int:
    low = difference & 0xFFFFFFFF
    return low - (1 << 32) if low >= 1 << 31 else low


@attrs.frozen
class _Column:
    """A column of the target beside the source's."""

    name: str
    type_oid: int
    equality: str | None
    indexed: bool


@attrs.define
class _Plan:
    """What is known of one table: its columns on both sides, and the statements that were prepared for it."""

    number: int
    relation: Relation
    columns: tuple[_Column, ...]
    may_be_gone: bool
    statements: dict[tuple[Any, ...], bytes] = attrs.field(factory=dict)
    keys: tuple[int, ...] = ()

    @property
    def table(self) -> str:
        return quoted(self.relation.schema, self.relation.name)


@attrs.define
class _Rows(Expected):
    """Rows that are inserted, updated or deleted.

    Args:
        count: how many there have to be; ``None``: that may be.
    """

    what: str
    plan: _Plan
    row: Row
    count: int | None

    def judge(self, found: int) -> None:
        if self.count is not None and found != self.count:
            raise MigrationError(
                f"{self._told}: the target has {found} such rows; somebody has written to it, or it was not copied"
                " whole: roll back, and begin again"
            )

    def failed(self, error: psycopg.Error) -> Exception:
        return _said(error, self._told)

    @property
    def _told(self) -> str:
        return f"{self.what} {_named(self.plan, self.row)} of {self.plan.relation}"


@attrs.define
class _Truncating(Expected):
    """Tables that are truncated."""

    named: str

    def failed(self, error: psycopg.Error) -> Exception:
        return _said(error, f"truncating {self.named}")


@attrs.define
class _OneRow(Expected):
    """The target's own row, if it is where it was thought to be."""

    def judge(self, found: int) -> None:
        if found != 1:
            raise Stale


@attrs.define
class _AtCommit(Expected):
    """The end of a batch, at which what was put off is checked."""

    def failed(self, error: psycopg.Error) -> Exception:
        table = f" of {error.diag.schema_name}.{error.diag.table_name}" if error.diag.table_name else ""
        return _said(error, f"committing changes{table}")


class Applier:
    """Brings changes to one target.

    Args:
        slot: the name under which the target knows where it is.
    """

    def __init__(self, target: Server, slot: str, *, visible: Visible | None = None) -> None:
        self._target = target
        self._slot = slot
        self._visible = visible
        self._connection: Connection | None = None
        self._catalogue: Connection | None = None
        self._pipe: Pipe | None = None
        self._shield = Shield(replica=True)
        self._plans: dict[int, _Plan] = {}
        self._numbers = 0
        self._run: list[Row] = []
        self._run_plan: _Plan | None = None
        self._run_bytes = 0

    # where the target is

    def prepare(self, start: int) -> None:
        """Let the target know that it has what was copied, up to a place. A second time changes nothing.

        Raises:
            MigrationError: it knows of another copy.
        """
        with self._target.session() as connection:
            try:
                connection.execute('CREATE SCHEMA IF NOT EXISTS "shiftable_migrate"')
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {CAPTURE} (slot text PRIMARY KEY, start pg_lsn NOT NULL, lsn pg_lsn"
                    " NOT NULL, undo jsonb NOT NULL DEFAULT '[]')".encode()
                )
                connection.execute(
                    f"INSERT INTO {CAPTURE} (slot, start, lsn) VALUES (%s, %s, %s)"
                    " ON CONFLICT (slot) DO NOTHING".encode(),
                    (self._slot, lsn_text(start), lsn_text(start)),
                )
            except psycopg.errors.InsufficientPrivilege as exc:
                raise MigrationError(
                    f"{self._target.label} has to keep how far it is: {exc.diag.message_primary}; GRANT CREATE ON"
                    " DATABASE to the user of the move"
                ) from exc
            moved = self.moved(connection)
        if moved is None or moved.start != start:
            raise MigrationError(
                f"{self._target.label} has changes of another copy under {self._slot}; roll back, and begin again"
            )

    def moved(self, connection: Connection) -> Moved | None:
        """Return where the target is, as it says."""
        if connection.execute("SELECT to_regclass(%s)", (CAPTURE,)).fetchone() == (None,):
            return None
        statement = f"SELECT start::text, lsn::text FROM {CAPTURE} WHERE slot = %s".encode()
        row = connection.execute(statement, (self._slot,)).fetchone()
        return Moved(start=lsn_number(row[0]), lsn=lsn_number(row[1])) if row else None

    def forget(self) -> None:
        """Put triggers, rules and foreign keys back, and remove what was kept on the target."""
        with self._target.session() as connection, connection.transaction():
            if self.moved(connection) is not None:
                lower(connection, self._slot)
                connection.execute(f"DELETE FROM {CAPTURE} WHERE slot = %s".encode(), (self._slot,))
            if connection.execute("SELECT to_regclass(%s)", (CAPTURE,)).fetchone() == (None,):
                return
            if connection.execute(f"SELECT count(*) FROM {CAPTURE}".encode()).fetchone() == (0,):
                connection.execute(f"DROP TABLE {CAPTURE}".encode())
                with contextlib.suppress(psycopg.errors.DependentObjectsStillExist), connection.transaction():
                    connection.execute('DROP SCHEMA "shiftable_migrate"')  # unless a copy keeps its marks there

    def unshield(self) -> None:
        """Put triggers, rules and foreign keys back as they were."""
        self.close()
        with self._target.session() as connection:
            lower(connection, self._slot)

    # sessions

    def open(self) -> int:
        """Open the sessions that are needed, and return where the target is."""
        self.close()
        connection = self._connection = self._target.connect("apply")
        self._catalogue = self._target.connect("catalogue")
        self._shield = raise_shield(connection, self._slot)
        moved = self.moved(self._catalogue)
        if moved is None:
            raise MigrationError(f"{self._target.label} does not know how far it is; roll back, and begin again")
        self._pipe = Pipe(connection)
        return moved.lsn

    def close(self) -> None:
        """Close the sessions; what is not committed is undone."""
        closing_quietly(self._connection)
        closing_quietly(self._catalogue)
        self._connection = self._catalogue = self._pipe = None
        self._plans.clear()
        self._run, self._run_plan, self._run_bytes = [], None, 0

    # changes

    def apply(self, messages: Iterable[bytes], *, since: int, upto: Callable[[], int] = lambda: 0) -> Applied:
        """Apply the transactions of one peek, in one of the target's.

        Args:
            since: where the target is.
            upto: returns, after the last message, the place up to which everything was in the peek, so that the target
                is there even if there was nothing.

        Raises:
            Stale: it is elsewhere.
            MigrationError: a change cannot be applied.
        """
        pipe, decoder, begun = self._open_pipe(), Decoder(), False
        lsn, at, transactions, changes, seen = since, None, 0, 0, 0
        skipping = False
        for data in messages:
            seen += 1
            message = decoder.decode(data)
            if isinstance(message, Insert | Update | Delete | Truncate):
                if skipping:
                    continue
                if not begun:
                    self._begin(pipe, since)
                    begun = True
                changes += 1
                self._change(pipe, message)
            elif isinstance(message, Begin):
                skipping = message.lsn < since or (self._visible is not None and self._visible.has(message))
            elif isinstance(message, Commit):
                lsn, at = max(lsn, message.end), message.at
                transactions += not skipping
            elif isinstance(message, Relation):
                self._described(pipe, message)
        if decoder.in_transaction:
            raise MigrationError("the source sent a transaction without its end")
        lsn = max(lsn, upto())
        self._commit(pipe, since, lsn, begun=begun)
        return Applied(lsn=lsn, at=at, transactions=transactions, changes=changes, messages=seen)

    def _open_pipe(self) -> Pipe:
        if self._pipe is None:
            raise MigrationError("the target was not opened")
        return self._pipe

    def _begin(self, pipe: Pipe, since: int) -> None:
        pipe.run(b"BEGIN ISOLATION LEVEL READ COMMITTED")
        fence = f"SELECT 1 FROM {CAPTURE} WHERE slot = $1 AND lsn = $2::pg_lsn FOR UPDATE"
        pipe.run(fence.encode(), [self._slot.encode(), lsn_text(since).encode()], expected=_OneRow(0))
        if not self._shield.replica:
            pipe.run(b"SET CONSTRAINTS ALL DEFERRED")

    def _commit(self, pipe: Pipe, since: int, lsn: int, *, begun: bool) -> None:
        if lsn == since and not begun:
            return
        self._end_run(pipe)
        update = f"UPDATE {CAPTURE} SET lsn = $3::pg_lsn WHERE slot = $1 AND lsn = $2::pg_lsn"
        values = [self._slot.encode(), lsn_text(since).encode(), lsn_text(lsn).encode()]
        pipe.run(update.encode(), values, expected=_OneRow(0))
        if begun:
            pipe.finish()  # what was not as expected must be known before, and not be committed
            pipe.run(b"COMMIT", expected=_AtCommit(0))
        pipe.finish()

    def _change(self, pipe: Pipe, message: Insert | Update | Delete | Truncate) -> None:
        if isinstance(message, Insert):
            self._insert(pipe, self._plan(message.relation), message.new)
            return
        self._end_run(pipe)
        if isinstance(message, Update):
            self._update(pipe, self._plan(message.relation), message)
        elif isinstance(message, Delete):
            self._delete(pipe, self._plan(message.relation), message)
        elif message.relations:
            tables = ", ".join(f"ONLY {self._plan(each).table}" for each in message.relations)
            named = ", ".join(str(each) for each in message.relations)
            pipe.run(f"TRUNCATE {tables}".encode(), expected=_Truncating(0, named))

    # rows

    def _insert(self, pipe: Pipe, plan: _Plan, row: Row) -> None:
        if self._run_plan is not plan or self._run_bytes > _RUN_BYTES or len(self._run) >= _ROWS[0]:
            self._end_run(pipe)
            self._run_plan = plan
        self._run.append(row)
        self._run_bytes += sum(len(value) for value in row.values if value is not None)

    def _end_run(self, pipe: Pipe) -> None:
        """Send the inserts that wait: those in a row into one table go together."""
        rows, plan = self._run, self._run_plan
        self._run, self._run_plan, self._run_bytes = [], None, 0
        at, width = 0, len(plan.columns) if plan else 0
        while plan is not None and at < len(rows):
            fits = [count for count in _ROWS if count <= len(rows) - at and count * width <= _PARAMETERS]
            count = fits[0] if fits and width else 1
            self._insert_rows(pipe, plan, rows[at : at + count])
            at += count

    def _insert_rows(self, pipe: Pipe, plan: _Plan, rows: list[Row]) -> None:
        name = plan.statements.get(("insert", len(rows)))
        if name is None:
            name = self._prepared(pipe, plan, ("insert", len(rows)), *_insert_statement(plan, len(rows)))
        values = [value for row in rows for value in row.values]
        told = "inserting" if len(rows) == 1 else f"inserting one of {len(rows)} rows, the first with"
        self._call(pipe, plan, name, values, _formats(b"".join(row.kinds for row in rows)), told, rows[0], len(rows))

    def _update(self, pipe: Pipe, plan: _Plan, message: Update) -> None:
        new, old, columns = message.new, message.old, plan.columns
        changed = tuple(at for at, kind in enumerate(new.kinds) if kind != _UNCHANGED)
        if not changed:
            return  # nothing of it could have changed
        row = old if old is not None else new
        marks = self._marks(plan, row, whole=message.whole)
        key = ("update", changed, marks, message.whole)
        name = plan.statements.get(key)
        if name is None:
            name = self._prepared(pipe, plan, key, *_update_statement(plan, changed, marks, whole=message.whole))
        named = range(len(columns)) if message.whole else plan.keys
        values = [*(new.values[at] for at in changed), *(row.values[at] for at in named)]
        kinds = bytes([*(new.kinds[at] for at in changed), *(row.kinds[at] for at in named)])
        self._call(pipe, plan, name, values, _formats(kinds), "updating", row, 1)

    def _delete(self, pipe: Pipe, plan: _Plan, message: Delete) -> None:
        row = message.old
        marks = self._marks(plan, row, whole=message.whole)
        key = ("delete", marks, message.whole)
        name = plan.statements.get(key)
        if name is None:
            name = self._prepared(pipe, plan, key, *_delete_statement(plan, marks, whole=message.whole))
        named = range(len(plan.columns)) if message.whole else plan.keys
        values, kinds = [row.values[at] for at in named], bytes(row.kinds[at] for at in named)
        self._call(pipe, plan, name, values, _formats(kinds), "deleting", row, None if plan.may_be_gone else 1)

    def _marks(self, plan: _Plan, row: Row, *, whole: bool) -> tuple[int, ...]:
        """Return the columns by which an index may help to find a row that is named by all of its columns."""
        if not whole:
            return ()
        return tuple(
            at
            for at, column in enumerate(plan.columns)
            if column.indexed and column.equality and row.values[at] is not None
        )

    def _call(
        self,
        pipe: Pipe,
        plan: _Plan,
        name: bytes,
        values: list[bytes | None],
        formats: list[int] | None,
        what: str,
        row: Row,
        count: int | None,
    ) -> None:
        pipe.call(name, values, formats, _Rows(sum(map(len, filter(None, values))), what, plan, row, count))

    # tables

    def _plan(self, relation: Relation) -> _Plan:
        return self._plans[relation.oid]

    def _described(self, pipe: Pipe, relation: Relation) -> None:
        """Compare a table with the target's, when it is first named and whenever the source has changed it."""
        known = self._plans.get(relation.oid)
        if known is not None and known.relation == relation:
            return
        self._end_run(pipe)
        whole = relation.identity == "full"
        problem = self._shield.problem(
            relation.schema,
            relation.name,
            frozenset(column.name for column in relation.columns if column.is_key),
            whole=whole,
        )
        if problem:
            raise MigrationError(problem)
        self._numbers += 1
        self._plans[relation.oid] = _Plan(
            self._numbers,
            relation,
            self._compared(relation),
            self._shield.may_be_gone(relation.schema, relation.name),
            keys=tuple(at for at, column in enumerate(relation.columns) if column.is_key),
        )

    def _compared(self, relation: Relation) -> tuple[_Column, ...]:
        if self._catalogue is None:
            raise MigrationError("the target was not opened")
        name = quoted(relation.schema, relation.name)
        rows = self._catalogue.execute(_COLUMNS, (name,)).fetchall()
        if not rows and self._catalogue.execute("SELECT to_regclass(%s)", (name,)).fetchone() == (None,):
            raise _differs(relation, "the target does not have it")
        here = {row[0]: row for row in rows}
        found = [_matched(relation, column, here) for column in relation.columns]
        wanted = {column.name for column in relation.columns}
        for name, _, _, generated, *_ in rows:
            if name not in wanted and not generated:
                raise _differs(relation, f"the target has a column {name}, the source has none")
        return tuple(found)

    def _prepared(self, pipe: Pipe, plan: _Plan, key: tuple[Any, ...], statement: str, types: list[int]) -> bytes:
        name = f"s{plan.number}_{len(plan.statements)}".encode()
        pipe.prepare(name, statement.encode(), types)
        plan.statements[key] = name
        return name


def _matched(relation: Relation, column: Column, here: dict[str, tuple[Any, ...]]) -> _Column:
    row = here.get(column.name)
    if row is None:
        raise _differs(relation, f"the source has a column {column.name}, the target has none")
    name, type_oid, modifier, generated, *types, base_oid, equality, indexed = row
    own, base = tuple(types[:2]), tuple(types[2:])
    if column.type_oid < _BUILT_IN:
        same = type_oid == column.type_oid
    else:
        same = column.type_name is not None and column.type_name in {own, base}
    if not same or modifier != column.type_modifier:
        raise _differs(relation, f"its column {name} is of another type on the target")
    if generated:
        raise _differs(relation, f"its column {name} is generated on the target alone")
    equals = equality or ("pg_catalog" if base_oid < _BUILT_IN and base_oid not in _WITHOUT_EQUALITY else None)
    return _Column(name, type_oid, equals, indexed)


_WITHOUT_EQUALITY = {114, 142, 600, 601, 602, 603, 604, 718, 628}
"""json, xml and the geometric types, of which some have ``=`` and mean something else by it."""


def _insert_statement(plan: _Plan, rows: int) -> tuple[str, list[int]]:
    if not plan.columns:
        return f"INSERT INTO {plan.table} DEFAULT VALUES", []
    width = len(plan.columns)
    names = ", ".join(quoted(column.name) for column in plan.columns)
    one = (", ".join(f"${row * width + at + 1}" for at in range(width)) for row in range(rows))
    values = "), (".join(one)
    statement = f"INSERT INTO {plan.table} ({names}) OVERRIDING SYSTEM VALUE VALUES ({values})"
    return statement, [column.type_oid for column in plan.columns] * rows


def _update_statement(
    plan: _Plan, changed: tuple[int, ...], marks: tuple[int, ...], *, whole: bool
) -> tuple[str, list[int]]:
    setting = ", ".join(f"{quoted(plan.columns[at].name)} = ${number}" for number, at in enumerate(changed, 1))
    where, types = _condition(plan, len(changed), marks, whole=whole)
    statement = f"UPDATE ONLY {plan.table} SET {setting} WHERE {where}"
    return statement, [*(plan.columns[at].type_oid for at in changed), *types]


def _delete_statement(plan: _Plan, marks: tuple[int, ...], *, whole: bool) -> tuple[str, list[int]]:
    where, types = _condition(plan, 0, marks, whole=whole)
    return f"DELETE FROM ONLY {plan.table} WHERE {where}", types


def _condition(plan: _Plan, first: int, marks: tuple[int, ...], *, whole: bool) -> tuple[str, list[int]]:
    """Write which row is meant: by its key, or one of those that look the same in every column."""
    if not whole:
        columns = [plan.columns[at] for at in plan.keys]
        terms = [
            f"{quoted(column.name)} OPERATOR({quoted(column.equality or 'pg_catalog')}.=) ${number}"
            for number, column in enumerate(columns, first + 1)
        ]
        return " AND ".join(terms), [column.type_oid for column in columns]
    terms = [
        f"{quoted(plan.columns[at].name)} OPERATOR({quoted(plan.columns[at].equality or '')}.=) ${first + at + 1}"
        for at in marks
    ]
    terms += [
        f'{quoted(column.name)}::text COLLATE "C" IS NOT DISTINCT FROM ${number}::text'
        for number, column in enumerate(plan.columns, first + 1)
    ]
    inner = " AND ".join(terms) or "true"
    where = f"ctid = (SELECT ctid FROM ONLY {plan.table} WHERE {inner} LIMIT 1)"
    return where, [column.type_oid for column in plan.columns]


def _formats(kinds: bytes) -> list[int] | None:
    return [int(kind == _BINARY) for kind in kinds] if _BINARY in kinds else None


def _named(plan: _Plan, row: Row) -> str:
    keys = plan.keys or tuple(range(len(plan.columns)))
    return ", ".join(f"{plan.columns[at].name} = {_shown(row.values[at])}" for at in keys) or "a row"


def _shown(value: bytes | None) -> str:
    if value is None:
        return "null"
    text = value[:_SHOWN].decode("utf-8", "backslashreplace")
    return repr(text) if len(value) <= _SHOWN else f"{text!r}…"


def _said(error: psycopg.Error, what: str) -> Exception:
    """Make an error of the server one that names table and key. What may do better again is left as it is."""
    if _may_do_better(error):
        return error
    return MigrationError(f"{what}: the target says: {error.diag.message_primary or 'nothing'}")


def _may_do_better(error: psycopg.Error) -> bool:
    """Tell whether the same may work in another session, or later: the session was lost, or met another."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P", "40"))


def _differs(relation: Relation, how: str) -> MigrationError:
    return MigrationError(
        f"{relation} is not the same on both sides: {how}; a schema is not to change during a move: make the same"
        " change on the target and run the same again, or roll back and begin again"
    )
