"""Moves the databases of one PostgreSQL server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import attrs

from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.errors import ConfigError, MigrationError
from shiftable.migrate._movers import FACETS
from shiftable.migrate._shards import Shard
from shiftable.migrate.mover import (
    Action,
    Finding,
    Item,
    Loss,
    Mover,
    Options,
    Outcome,
    Pin,
    Record,
    Refusal,
    Step,
    Trouble,
)
from shiftable.service import Change, Service, Spec

try:
    import psycopg
except ImportError as exc:
    raise ConfigError("moving a database needs psycopg: pip install 'shiftable[postgresql]'") from exc

from shiftable.migrate._postgresql._facts import Facts, facts_of, losses
from shiftable.migrate._postgresql._move import LARGE_OBJECTS, DatabaseMove, How
from shiftable.migrate._postgresql._side import Session, Side, asking, rows
from shiftable.migrate._postgresql._tables import Table, named
from shiftable.migrate._postgresql._verification import Verification

__all__ = ["DatabaseItem", "DatabaseMover"]

_Kind = Literal["rows", "objects", "rest"]
_Task = tuple["DatabaseItem", Step]

_THREADS = 8
_ALWAYS = ("postgres",)  # the database that every server has
_SHOWN = 5
# What providers keep beside the databases of their customers.
_PROVIDERS = frozenset({"rdsadmin", "cloudsqladmin", "azure_maintenance", "azure_sys"})
_NAMES = "SELECT datname AS name FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
_GAP = (
    "only PostgreSQL is moved; {engine} needs a dump and a load of its own (mariadb-dump, or mydumper in parallel"
    " chunks), which shiftable does not drive yet"
)


@attrs.frozen(kw_only=True)
class DatabaseItem(Item):
    """The rows of a table, all large objects, or all the rest of one database.

    Args:
        kind: which of them.
        database: its name.
        tables: whose rows they are; several, where one table takes the rows of others on the target.
        bytes: as the source stores them.
        crowded: the target's database has something, and none of it is ours.
    """

    kind: _Kind
    database: str
    tables: tuple[Table, ...] = ()
    bytes: int = 0
    crowded: bool = False

    @property
    def size(self) -> int:
        """Bytes to be moved; no part of what a plan pins, since a server tidies its files by itself."""
        return self.bytes


@attrs.define
class _Place:
    """One database on both sides."""

    source: Side
    target: Side
    here: Facts
    there: Facts | None


class DatabaseMover(Mover[DatabaseItem]):
    """Moves whole databases, each into an empty one: schema, rows in chunks, large objects, owners, grants, settings.

    All is copied as one snapshot has it. A move that was killed goes on where nothing was written to the source since;
    else it begins with the rows again. A verification adds up hashes of all rows in both servers.

    Permissions: on the source to read everything (``pg_read_all_data``; large objects are their owners' to read), on
    the target to create schemas in the database; no superuser on either side.
    """

    service: ClassVar[str] = "database"
    bulk: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    confidential: ClassVar[bool] = True
    facets: ClassVar[Mapping[str, str]] = FACETS["database"]
    lanes = 1

    def __init__(
        self, source: Service[Any, Any, Any], target: Service[Any, Any, Any], spec: Spec, options: Options
    ) -> None:
        super().__init__(source, target, spec, options)
        self._from, self._to = cast("Databases", source), cast("Databases", target)
        self._spec = cast("DatabaseSpec", self.spec)
        self._source: Database = self._from.open(self._spec)
        self._target: Database = self._to.open(self._spec)
        self._names: tuple[str, ...] = self._spec.databases or _ALWAYS
        self._places: dict[str, _Place] | None = None
        self._items: list[DatabaseItem] | None = None
        self._moves: dict[str, DatabaseMove | Exception] = {}
        self._verifications: dict[str, Verification] = {}
        self._told: list[Loss] = []
        self._findings: list[Finding] = []

    # before and around the items

    def objections(self) -> tuple[str, ...]:
        """Refuse what cannot be moved as a whole, and what would be lost and was not given up."""
        if self._spec.engine != "postgresql":
            return (_GAP.format(engine=self._spec.engine),)
        simulated = [each.provider for each in (self._from, self._to) if not each.features.connect]
        if simulated:
            return (f"the provider {simulated[0]} only simulates databases: there is nothing to connect to",)
        if not self._from.exists(self._spec.name):
            return (f"the source has no database server {self._spec.name}",)
        absent = sorted({*self._names} - {*self._databases_of(self._source)})
        if absent:
            return (f"the source's server {self._spec.name} has no database {', '.join(absent)}",)
        return tuple(self._refused())

    def _refused(self) -> Iterator[str]:
        for name, place in self._pairs.items():
            if place.there is None:
                continue
            for lost in losses(place.here, place.there):
                if lost.fatal:
                    yield f"{name}: {lost.detail}"
                elif lost.refuses and lost.facet not in self.options.degrade:
                    yield f"{name}: {lost.detail}; --degrade {lost.facet} gives that up"

    def changes(self) -> tuple[Change[Any], ...]:
        """Make the server, where there is none."""
        return self._to.diff(self._spec)

    def prepare(self) -> None:
        """Make it and wait for it; and the databases, where it has none of their names.

        Raises:
            MigrationError: what was made cannot hold what would be moved.
        """
        changes = self.changes()
        for change in changes:
            self._to.apply(change)
        if changes:
            self._target.wait()
        absent = sorted({*self._names} - {*self._databases_of(self._target)})
        if absent:
            self._make(absent)
        if changes or absent:
            self._places = self._items = None
            refused = tuple(self._refused())
            if refused:
                raise MigrationError(f"database {self._spec.name}: {'; '.join(refused)}; nothing was moved")

    def _make(self, names: Sequence[str]) -> None:
        side = self._side(self._target, self._to, _ALWAYS[0])
        session = side.connect()
        try:
            for name in names:
                encoding = self._pairs[name].here.server["encoding"]
                with asking(side.name):
                    session.execute(
                        psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}").format(
                            psycopg.sql.Identifier(name), psycopg.sql.Literal(encoding)
                        )
                    )
        finally:
            session.close()

    def tidy(self) -> None:
        """Close all sessions. What a killed run has left half done is gone on with, and never dropped here."""
        for move in self._moves.values():
            if isinstance(move, DatabaseMove):
                move.close()
        for verification in self._verifications.values():
            verification.close()
        self._moves.clear()
        self._verifications.clear()

    def general_losses(self) -> Iterable[Loss]:
        """Tell what is lost, what was given up, and what the target has refused to be given."""
        beside = [
            name
            for name in self._databases_of(self._source)
            if name not in self._names and name not in _PROVIDERS and name not in _ALWAYS
        ]
        if beside:
            more = f" and {len(beside) - _SHOWN:,} more" if len(beside) > _SHOWN else ""
            yield Loss("databases", f"{', '.join(beside[:_SHOWN])}{more}: on the source, and not declared: they stay")
        for place in self._pairs.values():
            for lost in losses(place.here, place.there) if place.there else ():
                yield Loss(lost.facet, lost.detail, True if lost.refuses else None)
        yield from self._told

    # the five steps

    def inventory(self, records: Iterable[Record], shard: Shard = Shard()) -> Iterator[DatabaseItem]:  # noqa: ARG002, B008  there is one
        """Join both sides, which are asked once."""
        if self._items is None:
            known = {record.key: record for record in records}
            found = [item for name in self._names for item in self._items_of(name, known)]
            self._items = sorted(found, key=lambda item: item.key.encode())
        return iter(self._items)

    def delta(self, item: DatabaseItem) -> Step:
        """Say what is to be done: into an empty database everything is copied, any other one is compared."""
        step = super().delta(item)
        if step.action is Action.CREATE and item.crowded:
            why = "the target's database is not empty, and does not have this; move into an empty database"
            return Step(action=Action.REFUSE, reason=why, trouble=Trouble.CONFLICT)
        return attrs.evolve(step, action=Action.COMPARE) if step.action is Action.REPLACE else step

    def objection(self, item: DatabaseItem) -> str | None:  # noqa: ARG002  what there is concerns all of them
        """Refuse nothing by itself."""
        return None

    def plan(self, item: DatabaseItem, step: Step) -> Step:  # noqa: ARG002  it said everything
        """Return what ``delta`` said."""
        return step

    def copy(self, item: DatabaseItem, step: Step) -> Outcome:
        """Carry out one step; rows travel while others wait for theirs."""
        if step.action is Action.COMPARE:
            return self._adopted(item)
        move = self._move(item.database)
        if item.kind == "rows":
            size = sum(move.table(table.label) for table in item.tables)
            return Outcome(action=Action.CREATE, target=self._written(item), size=size or item.bytes)
        if item.kind == "objects":
            return Outcome(action=Action.CREATE, target=self._written(item), size=move.large_objects())
        try:
            move.finish()
            move.tidy()
        finally:
            self._told += [Loss("target", f"{item.database}: {note}") for note in move.notes]
            move.close()
        return Outcome(action=Action.CREATE, target=self._written(item))

    def verify(self, item: DatabaseItem, *, quick: bool) -> str | None:
        """Compare one item on both sides."""
        ((_, found),) = self.verify_many([item], quick=quick)
        if isinstance(found, Exception):
            raise found
        return found

    # many at once

    def gathered(self, tasks: Iterable[_Task]) -> Iterator[tuple[_Task, ...]]:
        """Yield one by one, in the order in which a database is made: large tables first, and the rest last."""
        order = {"rows": 0, "objects": 1, "rest": 2}
        for task in sorted(
            tasks, key=lambda task: (task[0].database, order[task[0].kind], -task[0].bytes, task[0].key)
        ):
            yield (task,)

    def verify_many(
        self,
        items: Sequence[DatabaseItem],
        *,
        quick: bool,  # noqa: ARG002  no server keeps a digest of its rows
    ) -> Iterator[tuple[DatabaseItem, str | Exception | None]]:
        """Let both servers add up all rows, one database after the other."""
        try:
            for name in self._names:
                yield from self._verified(name, [item for item in items if item.database == name])
        finally:
            self.tidy()

    def _verified(
        self, name: str, items: Sequence[DatabaseItem]
    ) -> Iterator[tuple[DatabaseItem, str | Exception | None]]:
        absent = Refusal("it is not on the target", Trouble.MISSING)
        if self._pairs[name].there is None:
            yield from ((item, absent) for item in items)
            return
        verification = self._verification(name)
        wanted = [item for item in items if item.kind == "rows" and item.target is not None]
        parts = verification.start(_label(item) for item in wanted)
        for item in items:
            found: str | Exception | None
            try:
                if item.kind == "rows":
                    found = verification.table(_label(item), parts[_label(item)]) if item.target else absent
                else:
                    found = verification.large_objects() if item.kind == "objects" else verification.rest()
            except MigrationError as exc:
                found = exc
            yield item, found
        told = f"{name}: the rows of {len(wanted):,} tables were added up in both servers, by hashes of their contents"
        self._findings.append(Finding("", told))

    def verified(self) -> Iterable[Finding]:
        """Tell what was compared."""
        return self._findings

    # both sides

    @property
    def _pairs(self) -> Mapping[str, _Place]:
        """Each database on both sides, asked once."""
        if self._places is None:
            present = {*self._databases_of(self._target)} if self._to.exists(self._spec.name) else {*""}
            self._places = {name: self._place(name, there=name in present) for name in self._names}
        return self._places

    def _place(self, name: str, *, there: bool) -> _Place:
        source = self._side(self._source, self._from, name)
        here = _facts(source)
        if not there:  # its address is not known before it is made
            return _Place(source, source, here, None)
        target = self._side(self._target, self._to, name)
        return _Place(source, target, here, _facts(target))

    def _side(self, handle: Database, service: Databases, database: str) -> Side:
        url = handle.url(database)

        def arguments() -> Mapping[str, Any]:
            login = url.login()
            return {**url.arguments(), "user": login.user or url.user, "password": login.password.reveal()}

        return Side(arguments, f"{database} on {service.provider}", refused=lambda: handle.password(fresh=True))

    def _databases_of(self, handle: Database) -> tuple[str, ...]:
        side = self._side(handle, self._from if handle is self._source else self._to, _ALWAYS[0])
        session = side.connect()
        try:
            return tuple(row["name"] for row in rows(session, side.name, _NAMES))
        finally:
            session.close()

    def _items_of(self, name: str, known: Mapping[str, Record]) -> Iterator[DatabaseItem]:
        place = self._pairs[name]
        there = place.there if place.there is not None and place.there.phase is None else None
        if there is not None and not (there.present or there.objects):
            there = None
        crowded = there is not None
        here_tables, there_tables = _grouped(place.here), _grouped(there) if there else {}
        for label, tables in here_tables.items():
            yield self._item(
                known,
                name,
                label,
                kind="rows",
                tables=tables,
                bytes=sum(table.size for table in tables),
                source=Pin(token=_token((*_shape(table), table.node, table.writes) for table in tables)),
                target=_pin(there_tables.get(label)),
                crowded=crowded,
            )
        if place.here.objects and not (place.here.hidden and "large_objects" in self.options.degrade):
            yield self._item(
                known,
                name,
                LARGE_OBJECTS,
                kind="objects",
                source=Pin(token=str(place.here.objects)),
                target=Pin(token=str(there.objects)) if there else None,
                crowded=crowded,
            )
        yield self._item(
            known,
            name,
            "",
            kind="rest",
            source=Pin(token=_schema_token(place.here)),
            target=Pin(token=_schema_token(there)) if there else None,
        )

    def _item(
        self,
        known: Mapping[str, Record],
        database: str,
        label: str,
        **fields: Any,  # noqa: ANN401  of the item
    ) -> DatabaseItem:
        key = f"{database}/{label}" if label else database
        return DatabaseItem(key=key, database=database, record=known.get(key), **fields)

    def _written(self, item: DatabaseItem) -> str:
        """Return the token of what the target has now."""
        side = self._pairs[item.database].target
        there = _facts(side) if item.kind == "rest" else None
        if there is not None:
            return _schema_token(there)
        session = side.connect()
        try:
            if item.kind == "objects":
                return str(
                    rows(session, side.name, "SELECT count(*) AS found FROM pg_largeobject_metadata")[0]["found"]
                )
            return _token(_node(session, side.name, table) for table in item.tables)
        finally:
            session.close()

    # the work

    def _move(self, name: str) -> DatabaseMove:
        """Return what moves a database, begun; what has made that fail once is not tried again in this run."""
        found = self._moves.get(name)
        if isinstance(found, Exception):
            raise MigrationError(str(found)) from found
        if found is None:
            place = self._pairs[name]
            found = DatabaseMove(place.source, place.target, self._how)
            try:
                found.begin()
                found.start()
            except Exception as exc:
                found.close()
                self._moves[name] = exc
                raise
            self._moves[name] = found
        return found

    def _adopted(self, item: DatabaseItem) -> Outcome:
        """Take what the target has for what was to be copied, if it is equal."""
        verification = self._verification(item.database)
        if item.kind == "rows":
            label = _label(item)
            found = verification.table(label, verification.start([label])[label])
        else:
            found = verification.large_objects() if item.kind == "objects" else verification.rest()
        if found is not None:
            why = f"the target's database is not empty, and there {found}; move into an empty database"
            raise Refusal(why, Trouble.CONFLICT)
        return Outcome(action=Action.COMPARE, target=item.target.token if item.target else None, size=item.bytes)

    def _verification(self, name: str) -> Verification:
        if name not in self._verifications:
            place = self._pairs[name]
            verification = Verification(place.source, place.target, self._how)
            verification.begin()
            self._verifications[name] = verification
        return self._verifications[name]

    @property
    def _how(self) -> How:
        return How(
            jobs=min(self.options.concurrency, _threads()),
            degrade=self.options.degrade,
            frozen=self.options.frozen,
            stopping=self.stopping,
        )


def _threads() -> int:
    import os

    return max(2, min(_THREADS, os.cpu_count() or 2))


def _facts(side: Side) -> Facts:
    session = side.connect()
    try:
        return facts_of(session, side.name)
    finally:
        session.close()


def _grouped(facts: Facts) -> Mapping[str, tuple[Table, ...]]:
    """Return tables by the one that takes their rows."""
    found: dict[str, tuple[Table, ...]] = {}
    for table in facts.tables:
        label = named(*table.into)
        found[label] = (*found.get(label, ()), table)
    return found


def _label(item: DatabaseItem) -> str:
    return named(*item.tables[0].into)


def _shape(table: Table) -> tuple[object, ...]:
    return table.label, *(column.name for column in table.columns)


def _pin(tables: tuple[Table, ...] | None) -> Pin | None:
    """Return the version of rows on the target: other files, others' rows. What is written into them is not asked."""
    return Pin(token=_token((table.label, table.node) for table in tables)) if tables else None


def _node(session: Session, name: str, table: Table) -> tuple[object, ...]:
    query = (
        "SELECT c.relfilenode::bigint AS node FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s"
    )
    return table.label, rows(session, name, query, (table.schema, table.name))[0]["node"]


def _schema_token(facts: Facts) -> str:
    return _token(_shape(table) for table in facts.tables)


def _token(parts: Iterable[object]) -> str:
    return hashlib.blake2b(repr([*parts]).encode(), digest_size=16).hexdigest()
