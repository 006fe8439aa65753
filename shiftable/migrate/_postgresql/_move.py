"""One database, from an empty target to the last grant; killed anywhere, it goes on where that is consistent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from graphlib import TopologicalSorter
from typing import Any

import attrs

from shiftable.errors import MigrationError
from shiftable.migrate._database_engine import Given, Moving
from shiftable.migrate._postgresql._catalogue import sequences_of
from shiftable.migrate._postgresql._copying import copied
from shiftable.migrate._postgresql._facts import evidence_of, facts_of, missing_roles, unchanged
from shiftable.migrate._postgresql._grants import (
    apply_owners,
    apply_settings,
    defaults_of,
    held,
    renamed,
    settings_of,
    without_role,
)
from shiftable.migrate._postgresql._lanes import Builder, Pair, builders, lanes
from shiftable.migrate._postgresql._large import batches, copied_objects, numbers_of
from shiftable.migrate._postgresql._marks import Marks, marked
from shiftable.migrate._postgresql._side import Session, Side, Snapshot, asking, rows
from shiftable.migrate._postgresql._tables import CHUNK_BYTES, Chunk, Cut, Table, chunks_of, cut_of, quoted
from shiftable.migrate._postgresql._tools import Entry, Tools
from shiftable.migrate._postgresql._wipe import wipe

__all__ = ["LARGE_OBJECTS", "DatabaseMove", "How", "moved"]

LARGE_OBJECTS = "large objects"
_FAST = {"synchronous_commit": "off"}  # a crash loses a chunk and its mark together
_BUILD = {"synchronous_commit": "off", "maintenance_work_mem": "256MB", "statement_timeout": "0", "lock_timeout": "0"}
_LOCK_PATIENCE = 60
_AT_ONCE = 500
_WORTH = 8  # a table of less than a chunk by this gets its indexes after all rows: there is nothing to gain
_CONSTRAINT = "CONSTRAINT "
_EVENT_TRIGGER = 3466  # catalogues by the number that they have in every version
# What post-data makes and can be found again by its name; the rest of post-data may be done twice.
_MADE: Mapping[int, str] = {
    2606: "SELECT oid FROM pg_constraint",
    1259: "SELECT oid FROM pg_class WHERE relkind IN ('i', 'I')",
    2620: "SELECT oid FROM pg_trigger",
    3256: "SELECT oid FROM pg_policy",
    2618: "SELECT oid FROM pg_rewrite WHERE rulename <> '_RETURN'",
    3381: "SELECT oid FROM pg_statistic_ext",
    3466: "SELECT oid FROM pg_event_trigger",
}
_WEIGHTS = """
SELECT 1259 AS catalogue, indexrelid::bigint AS oid, pg_table_size(indrelid) AS size FROM pg_index
UNION ALL SELECT 2606, oid::bigint, pg_table_size(conrelid) FROM pg_constraint WHERE conrelid <> 0
"""
# Indexes that need the rows of their table and nothing else: an expression may call what reads other tables, whatever
# it is declared to be. What changes its table too (CLUSTER ON, REPLICA IDENTITY) is not made beside another of its own.
_ALONE = """
SELECT CASE WHEN c.oid IS NULL THEN 1259 ELSE 2606 END AS catalogue, coalesce(c.oid, i.indexrelid)::bigint AS oid,
    i.indrelid::bigint AS table
FROM pg_index AS i LEFT JOIN pg_constraint AS c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u', 'x')
WHERE i.indexprs IS NULL AND i.indpred IS NULL AND NOT i.indisclustered AND NOT i.indisreplident
    AND i.indrelid = ANY (%s)
ORDER BY pg_relation_size(i.indexrelid) DESC, i.indexrelid
"""
_MATVIEWS = """
SELECT c.oid::bigint AS oid, format('%I.%I', n.nspname, c.relname) AS name,
    c.relkind = 'm' AND c.relispopulated AS fresh,
    ARRAY(
        SELECT DISTINCT d.refobjid::bigint FROM pg_rewrite AS w
        JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        WHERE w.ev_class = c.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid
    ) AS needs
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
_PARTITIONED = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, false AS below
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind = 'p' AND NOT c.relispartition
"""


@attrs.frozen(kw_only=True)
class How(Given):
    """How a database of PostgreSQL is moved.

    Args:
        chunk: bytes of a table that travel in one transaction.
        analyze: make planner statistics at the end.
    """

    chunk: int = CHUNK_BYTES
    analyze: bool = True


class DatabaseMove(Moving):
    """Moves one database into an empty one.

    ``begin`` makes the tables, ``start`` sets the copy going, ``table`` and ``large_objects`` wait for a part of it,
    ``finish`` makes the rest and ``tidy`` takes the marks away. After a kill at any point the same is done again.

    Args:
        snapshot: exported by somebody else who keeps it until the copy is done; else one is exported here.
    """

    how: How

    def __init__(self, source: Side, target: Side, how: How | None = None, *, snapshot: str | None = None) -> None:
        super().__init__(source, target)
        self.how = how or How()
        self._given = snapshot
        self._cuts: dict[str, Cut] = {}
        self._built: list[Future[None]] = []

    # before the rows

    def begin(self) -> None:
        """Make the tables, or find how far a killed move has come.

        Raises:
            MigrationError: the target is not empty; a side cannot be reached; the schema cannot be made.
        """
        control = self._stack.enter_context(contextlib.closing(self.target.connect()))
        self._marks = Marks(control, self.target.name)
        self._marks.lock()
        self._control = control
        self._snapshot, self._session = self._stack.enter_context(Snapshot.taken(self.source, self._given))
        self._here, self._there = facts_of(self._session, self.source.name), facts_of(control, self.target.name)
        self._hold()
        self._archive = Tools.found(self._here.major, self._there.major).dump(self.source, self._snapshot.name)
        self._phase = self._marks.phase or ""
        if not self._phase:
            self._begin_anew()
        elif self._phase == "schema" or not self._goes_on():
            wipe(control, self.target.name)
            self._marks.drop()
            self._begin_anew()
        self._done = self._marks.chunks

    def _hold(self) -> None:
        """Keep others from changing or truncating the source's tables: no snapshot holds that."""
        names = [table.sql for table in self._here.tables]
        with asking(self.source.name):
            self._session.execute(f"SET LOCAL lock_timeout = '{_LOCK_PATIENCE}s'")
            for start in range(0, len(names), _AT_ONCE):
                self._session.execute(f"LOCK TABLE {', '.join(names[start : start + _AT_ONCE])} IN ACCESS SHARE MODE")

    def _begin_anew(self) -> None:
        if self._there.not_empty:
            raise MigrationError(self._there.not_empty)
        self._marks.make()
        self._archive.restore(self.target, "pre-data", without=self._left_out, settings=_FAST)
        self._cuts = self._cut()
        cuts = {label: attrs.astuple(cut) for label, cut in self._cuts.items()}
        self._marks.enter("data", {"evidence": self._evidence, "schema": self._archive.digest, "cuts": cuts})
        self._phase = "data"

    def _goes_on(self) -> bool:
        """Tell whether what a killed move has brought goes together with what there is now; else say why not."""
        before = self._marks.facts
        self._cuts = {label: Cut(*cut) for label, cut in before["cuts"].items()}
        nodes = {table.label: table.node for table in self._here.tables}
        if before["schema"] != self._archive.digest:
            self.notes.append("a killed move was begun anew: the schema is another one now")
            return False
        if self._phase == "data" and any(nodes[label] != cut.node for label, cut in self._cuts.items()):
            self.notes.append("a killed move was begun anew: tables of the source were written anew meanwhile")
            return False
        declared = self.how.frozen or self._here.server["is_read_only"]
        if self._phase == "data" and not unchanged(before["evidence"], self._evidence, declared=declared):
            self.notes.append(
                "a killed move was begun anew: its snapshot is gone, and the source has given out numbers of"
                " transactions since; where nobody writes to it, --frozen goes on where it stopped"
            )
            return False
        if not self._kept_unlogged():
            self.notes.append("a killed move was begun anew: a crash of the target has emptied its unlogged tables")
            return False
        self.notes.append("a killed move went on where it had stopped")
        return True

    def _kept_unlogged(self) -> bool:
        """See to tables that a crash empties: before there are indexes they come again, later they must be there."""
        unlogged = {table: self._keys(table) for table in self._here.tables if table.is_unlogged}
        if self._phase == "data":
            if unlogged:
                with asking(self.target.name):
                    self._control.execute(f"TRUNCATE {', '.join(quoted(*table.into) for table in unlogged)}")
            self._marks.forget(key for keys in unlogged.values() for key in keys)
            return all(table.into == (table.schema, table.name) for table in unlogged)
        return not any(
            self._marks.rows_of(keys)
            and not rows(self._control, self.target.name, f"SELECT 1 FROM {quoted(*table.into)} LIMIT 1")
            for table, keys in unlogged.items()
        )

    def _pieces(self, table: Table) -> Sequence[Chunk]:
        return chunks_of(table, self._cuts.get(table.label))

    def _cut(self) -> dict[str, Cut]:
        """Say where tables are cut."""
        version, block = self._here.version, self._here.server["block"]
        found = {table.label: cut_of(table, version, block, self.how.chunk) for table in self._here.tables}
        return {label: cut for label, cut in found.items() if cut is not None}

    def _keys(self, table: Table) -> list[str]:
        return [f"{table.label} {chunk.first}" for chunk in self._pieces(table)]

    @property
    def _evidence(self) -> dict[str, Any]:
        return evidence_of(self._session, self.source.name)

    @property
    def _left_out(self) -> frozenset[tuple[int, int]]:
        """What of the source's schema is given up."""
        found: set[tuple[int, int]] = set()
        if "roles" in self.how.degrade:
            missing = frozenset(missing_roles(self._here, self._there))
            found |= without_role(self._session, self.source.name, missing)
        if "event_triggers" in self.how.degrade:
            triggers = rows(self._session, self.source.name, "SELECT oid::bigint AS oid FROM pg_event_trigger")
            found |= {(_EVENT_TRIGGER, row["oid"]) for row in triggers}
        return frozenset(found)

    # the rows

    def start(self) -> None:
        """Set the copy of all rows and large objects going, and indexes of large tables behind them."""
        self._builders = self._stack.enter_context(builders(self.target, self.how.jobs, _BUILD))
        self._lanes = self._stack.enter_context(lanes(self._snapshot, self.target, self.how.jobs, settings=_FAST))
        if self._phase != "data":
            return
        for table in self.tables:
            pieces = zip(self._keys(table), self._pieces(table), strict=True)
            tasks = [(key, partial(self._copy, chunk)) for key, chunk in pieces]
            self._submit(table.label, tasks)
        if self.copies_objects:
            numbers = numbers_of(self._session, self.source.name)
            self._submit(
                LARGE_OBJECTS,
                [(f"{LARGE_OBJECTS} {part[0]}", partial(self._copy_objects, part)) for part in batches(numbers)],
            )
        self._build_early()

    @property
    def tables(self) -> Sequence[Table]:
        """All tables with rows of their own, first those whose indexes take longest, then the largest."""
        return sorted(self._here.tables, key=lambda table: (-table.indexes, -table.size, table.label))

    @property
    def copies_objects(self) -> bool:
        """Whether large objects are moved."""
        return not (self._here.hidden and "large_objects" in self.how.degrade)

    def large_objects(self) -> int:
        """Wait until all large objects have arrived; return their bytes."""
        return self.table(LARGE_OBJECTS)

    def _submit(self, label: str, tasks: Iterable[tuple[str, Callable[[str, Pair], tuple[int, int]]]]) -> None:
        self._futures[label] = [self._lanes.submit(partial(task, key)) for key, task in tasks if key not in self._done]

    def _copy(self, chunk: Chunk, key: str, pair: Pair) -> tuple[int, int]:
        self._check_stopping()
        target = chunk.table.into == (chunk.table.schema, chunk.table.name)
        with asking(self.target.name), pair.target.transaction():
            if chunk.alone and target:
                pair.target.execute(f"TRUNCATE ONLY {chunk.table.sql}")
            count, size = copied(
                pair.source,
                pair.target,
                chunk,
                binary=chunk.table.is_binary(self._there.version),
                freeze=chunk.alone and target,
                stopping=self.how.stopping,
            )
            marked(pair.target, key, count, size)
        return count, size

    def _copy_objects(self, numbers: Sequence[int], key: str, pair: Pair) -> tuple[int, int]:
        self._check_stopping()
        with asking(f"{LARGE_OBJECTS} of {self.source.name}"), pair.target.transaction():
            size = copied_objects(pair.source, pair.target, numbers, self.how.stopping)
            marked(pair.target, key, len(numbers), size)
        return len(numbers), size

    # beside the rows

    def _build_early(self) -> None:
        """Make indexes of large tables as soon as their rows have arrived, while those of others travel."""
        large = {
            table.oid: table
            for table in self.tables
            if table.size * _WORTH >= self.how.chunk and table.into == (table.schema, table.name)
        }
        made = self._left_out | (self._made() if self._done else frozenset())
        entries = {entry.object: entry for entry in self._archive.entries if entry.object not in made}
        wanted: dict[int, list[Entry]] = {oid: [] for oid in large}
        for row in rows(self._session, self.source.name, _ALONE, ([*large],)):
            if entry := entries.get((row["catalogue"], row["oid"])):
                wanted[row["table"]].append(entry)
        for oid, table in large.items():
            needed: list[Future[Any]] = [*self._futures[table.label]]
            if constraints := [entry for entry in wanted[oid] if entry.kind.startswith(_CONSTRAINT)]:
                needed.append(self._build(constraints, needed))  # in turn: each locks the table
            for entry in wanted[oid]:
                if entry not in constraints:
                    self._build([entry], needed)

    def _build(self, entries: Sequence[Entry], needed: Sequence[Future[Any]]) -> Future[None]:
        """Make some objects in turn, when what they need is there."""
        self._built.append(self._builders.submit(partial(self._made_of, entries, tuple(needed))))
        return self._built[-1]

    def _made_of(self, entries: Sequence[Entry], needed: Sequence[Future[Any]], builder: Builder) -> None:
        wait(needed)
        if any(each.cancelled() or each.exception() for each in needed):
            return  # told by what failed
        for entry in entries:
            self._check_stopping()
            with asking(self.target.name):
                builder.target.execute(self._archive.script(entry))

    # after the rows

    def finish(self) -> None:
        """Make indexes, constraints, sequences, materialised views, owners and grants.

        Raises:
            MigrationError: some rows have not arrived; something could not be made.
        """
        self._wait_for_all()
        self._marks.enter("post")
        self._phase = "post"
        self._set_sequences()
        for built in self._built:
            built.result()
        without = self._left_out | self._made()
        self._archive.restore(
            self.target, "post-data", jobs=self.how.jobs, without=without, weights=self._weights(), settings=_BUILD
        )
        self._refresh()
        if self.how.analyze:
            self._analyze()
        self._give()

    def _set_sequences(self) -> None:
        with contextlib.closing(self.source.connect()) as session:
            found = sequences_of(session, self.source.name)
        with asking(self.target.name), self._control.cursor() as cursor:
            cursor.executemany(
                "SELECT setval(%s::regclass, %s, %s)",
                [(quoted(each.schema, each.name), each.value, each.called) for each in found],
            )

    def _made(self) -> frozenset[tuple[int, int]]:
        """Return what of post-data a killed move has made already, by catalogue and number at the source."""
        found: set[tuple[int, int]] = set()
        for catalogue, query in _MADE.items():
            with asking(self.target.name):
                there = {row["name"] for row in self._names(self._control, self.target.name, catalogue, query)}
            here = rows(self._session, self.source.name, f"SELECT oid::bigint AS oid FROM ({query}) AS o")
            told = self._names(self._session, self.source.name, catalogue, query)
            found |= {(catalogue, row["oid"]) for row, name in zip(here, told, strict=True) if name["name"] in there}
        return frozenset(found)

    def _weights(self) -> Mapping[tuple[int, int], int]:
        """Return how large the tables of indexes and constraints are."""
        found = rows(self._session, self.source.name, _WEIGHTS)
        return {(row["catalogue"], row["oid"]): row["size"] for row in found}

    def _names(self, session: Session, name: str, catalogue: int, query: str) -> list[dict[str, Any]]:
        return rows(
            session,
            name,
            "SELECT (i).type || ' ' || (i).identity AS name FROM ("
            f" SELECT o.oid, pg_identify_object({catalogue}, o.oid, 0) AS i FROM ({query}) AS o (oid)) AS found",
        )

    def _refresh(self) -> None:
        """Fill materialised views that the source has filled, each after those that it reads."""
        found = {row["oid"]: row for row in rows(self._session, self.source.name, _MATVIEWS)}
        order = TopologicalSorter({oid: [each for each in row["needs"] if each in found] for oid, row in found.items()})
        for oid in order.static_order():
            if found[oid]["fresh"]:
                with asking(f"{self.target.name}: materialised view {found[oid]['name']}"):
                    self._control.execute(f"REFRESH MATERIALIZED VIEW {found[oid]['name']}")

    def _analyze(self) -> None:
        names = [table.sql for table in self.tables]
        names += [row["name"] for row in rows(self._session, self.source.name, _MATVIEWS) if row["fresh"]]
        waiting = [self._lanes.submit(partial(self._analyze_one, name)) for name in names]
        for future in waiting:
            future.result()
        for row in rows(self._session, self.source.name, _PARTITIONED):
            with asking(self.target.name):
                self._control.execute(f"ANALYZE {row['name']}")

    def _analyze_one(self, name: str, pair: Pair) -> None:
        with asking(self.target.name):
            pair.target.execute(f"ANALYZE {name}")

    def _give(self) -> None:
        """Apply owners, grants and settings, and note what the target refuses."""
        roles = {self._here.server["who"]: self._there.server["who"]}
        wanted = renamed(held(self._session, self.source.name), roles)
        defaults = renamed(defaults_of(self._session, self.source.name), roles)
        self.notes += apply_owners(self._control, self.target.name, wanted, defaults)
        self.notes += apply_settings(
            self._control, self.target.name, renamed(settings_of(self._session, self.source.name), roles)
        )


def moved(source: Side, target: Side, how: How | None = None, *, snapshot: str | None = None) -> DatabaseMove:
    """Move a whole database in one call; return the move with its notes, closed."""
    with DatabaseMove(source, target, how, snapshot=snapshot) as move:
        move.begin()
        move.start()
        for table in move.tables:
            move.table(table.label)
        move.large_objects()
        move.finish()
        move.tidy()
    return move
