"""Moves the databases of one server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import attrs

from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.errors import ConfigError, MigrationError
from shiftable.migrate._database_engine import Engine, Facts, Given, Lost, Move, Rows, Verification, some
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
from shiftable.wording import counted

__all__ = ["DatabaseItem", "DatabaseMover"]

_Kind = Literal["rows", "objects", "rest"]
_Task = tuple["DatabaseItem", Step]

_THREADS = 8
_LARGE_OBJECTS = "large objects"
_NEEDS = "moving a database needs {}: pip install 'shiftable[{}]'"


@attrs.frozen(kw_only=True)
class DatabaseItem(Item):
    """The rows of a table, all large objects, or all the rest of one database.

    Args:
        kind: which of them.
        database: its name.
        rows: of which table.
        crowded: the target's database has something, and none of it is ours.
    """

    kind: _Kind
    database: str
    rows: Rows | None = None
    crowded: bool = False

    @property
    def size(self) -> int:
        """Bytes to be moved; no part of what a plan pins, since a server tidies its files by itself."""
        return self.rows.size if self.rows else 0


@attrs.define
class _Place:
    """One database on both sides."""

    source: Any
    target: Any
    here: Facts
    there: Facts | None


class DatabaseMover(Mover[DatabaseItem]):
    """Moves whole databases, each into an empty one: schema, rows in chunks, large objects, owners, grants, settings.

    All is copied as one snapshot has it. A move that was killed goes on where nothing was written to the source since;
    else it begins with the rows again. A verification adds up hashes of all rows in both servers.

    Permissions: on the source to read everything (PostgreSQL: ``pg_read_all_data``; large objects are their owners' to
    read. MySQL and MariaDB: ``SELECT``, ``SHOW VIEW``, ``TRIGGER``, ``EVENT``, and ``RELOAD`` or ``LOCK TABLES`` for
    several connections), on the target to make everything in the database; no superuser on either side.
    """

    service: ClassVar[str] = "database"
    bulk: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    confidential: ClassVar[bool] = True
    native: ClassVar[bool] = True  # and with it the declared passwords, which the file alone cannot read
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
        self._engine = _engine_of(self._spec)
        self._names: tuple[str, ...] = self._spec.databases or self._engine.always
        self._places: dict[str, _Place] | None = None
        self._items: list[DatabaseItem] | None = None
        self._moves: dict[str, Move | Exception] = {}
        self._verifications: dict[str, Verification] = {}
        self._told: list[Loss] = []
        self._findings: list[Finding] = []

    # before and around the items

    def objections(self) -> tuple[str, ...]:
        """Refuse what cannot be moved as a whole, and what would be lost and was not given up."""
        simulated = [each.provider.label for each in (self._from, self._to) if not each.features.connect]
        if simulated:
            return (f"the provider {simulated[0]} only simulates databases: there is nothing to connect to",)
        if not self._from.exists(self._spec.name):
            return (f"the source has no database server {self._spec.name}",)
        if not self._names:
            return (f"no database of {self._spec.name} is declared: name them, `databases = [...]`",)
        absent = sorted({*self._names} - {*self._databases_of(self._source)})
        if absent:
            return (f"the source's server {self._spec.name} has no database {', '.join(absent)}",)
        return tuple(self._refused())

    def _refused(self) -> Iterator[str]:
        for name, place in self._pairs.items():
            if place.there is None:
                continue
            for lost in self._losses(place):
                if lost.fatal:
                    yield f"{name}: {lost.detail}"
                elif lost.refuses and lost.facet not in self.options.degrade:
                    yield f"{name}: {lost.detail}; --degrade {lost.facet} gives that up"

    def _losses(self, place: _Place) -> Iterable[Lost]:
        return self._engine.losses(place.here, place.there) if place.there else ()

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
        side = self._side(self._target, self._to, self._engine.maintenance)
        for name in names:
            self._engine.create(side, name, self._pairs[name].here)

    def tidy(self) -> None:
        """Close all sessions. What a killed run has left half done is gone on with, and never dropped here."""
        for move in self._moves.values():
            if not isinstance(move, Exception):
                move.close()
        for verification in self._verifications.values():
            verification.close()
        self._moves.clear()
        self._verifications.clear()

    def general_losses(self) -> Iterable[Loss]:
        """Tell what is lost, what was given up, and what the target has refused to be given."""
        ours = {*self._names, *self._engine.ignored, *self._engine.always}
        beside = [name for name in self._databases_of(self._source) if name not in ours]
        if beside:
            yield Loss("databases", f"{some(beside)}: on the source, and not declared: they stay")
        for place in self._pairs.values():
            for lost in self._losses(place):
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
            size = sum(move.table(part) for part in item.rows.parts) if item.rows else 0
            return Outcome(action=Action.CREATE, target=self._written(item), size=size or item.size)
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
        for task in sorted(tasks, key=lambda task: (task[0].database, order[task[0].kind], -task[0].size, task[0].key)):
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
        tables = counted(len(wanted), "table")
        told = f"{name}: the rows of {tables} were added up in both servers, by hashes of their contents"
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
        here = self._engine.facts(source)
        if not there:  # its address is not known before it is made
            return _Place(source, source, here, None)
        target = self._side(self._target, self._to, name)
        return _Place(source, target, here, self._engine.facts(target))

    def _side(self, handle: Database, service: Databases, database: str) -> Any:  # noqa: ANN401  the engine's own
        url = handle.url(database)

        def arguments() -> Mapping[str, Any]:
            login = url.login()
            return {**url.arguments(), "user": login.user or url.user, "password": login.password.reveal()}

        name = f"{database} on {service.provider.label}"
        return self._engine.side(arguments, name, lambda: handle.password(fresh=True))

    def _databases_of(self, handle: Database) -> tuple[str, ...]:
        service = self._from if handle is self._source else self._to
        return self._engine.databases(self._side(handle, service, self._engine.maintenance))

    def _items_of(self, name: str, known: Mapping[str, Record]) -> Iterator[DatabaseItem]:
        place = self._pairs[name]
        there = place.there if place.there is not None and place.there.phase is None else None
        if there is not None and not (there.present or there.objects):
            there = None
        crowded = there is not None
        there_rows = self._engine.rows(there) if there else {}
        for label, rows in self._engine.rows(place.here).items():
            found = there_rows.get(label)
            yield self._item(
                known,
                name,
                label,
                kind="rows",
                rows=rows,
                source=Pin(token=rows.version),
                target=Pin(token=found.home) if found else None,
                crowded=crowded,
            )
        if place.here.objects and not (place.here.hidden and "large_objects" in self.options.degrade):
            yield self._item(
                known,
                name,
                _LARGE_OBJECTS,
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
            source=Pin(token=self._engine.schema(place.here)),
            target=Pin(token=self._engine.schema(there)) if there else None,
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
        if item.rows:
            return self._engine.home(side, item.rows)
        there = self._engine.facts(side)
        return str(there.objects) if item.kind == "objects" else self._engine.schema(there)

    # the work

    def _move(self, name: str) -> Move:
        """Return what moves a database, begun; what has made that fail once is not tried again in this run."""
        found = self._moves.get(name)
        if isinstance(found, Exception):
            raise MigrationError(str(found)) from found
        if found is None:
            place = self._pairs[name]
            found = self._engine.move(place.source, place.target, self._how)
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
        return Outcome(action=Action.COMPARE, target=item.target.token if item.target else None, size=item.size)

    def _verification(self, name: str) -> Verification:
        if name not in self._verifications:
            place = self._pairs[name]
            verification = self._engine.verification(place.source, place.target, self._how)
            verification.begin()
            self._verifications[name] = verification
        return self._verifications[name]

    @property
    def _how(self) -> Given:
        return Given(
            jobs=min(self.options.concurrency, _threads()),
            degrade=self.options.degrade,
            frozen=self.options.frozen,
            stopping=self.stopping,
        )


def _threads() -> int:
    import os

    return max(2, min(_THREADS, os.cpu_count() or 2))


def _label(item: DatabaseItem) -> str:
    return item.rows.label if item.rows else ""


def _engine_of(spec: DatabaseSpec) -> Engine:
    """Load what moves databases of an engine, and the client library that it needs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        if spec.engine == "postgresql":
            from shiftable.migrate._postgresql._engine import Postgresql

            return Postgresql()
        from shiftable.migrate._mysql._engine import Mysql

        return Mysql()
    except ImportError as exc:
        needs = ("psycopg", "postgresql") if spec.engine == "postgresql" else ("PyMySQL", "mysql")
        raise ConfigError(_NEEDS.format(*needs)) from exc
