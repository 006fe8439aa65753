"""One database, from an empty target to the last grant; killed anywhere, it goes on where that is consistent."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import attrs

from shiftable.errors import MigrationError
from shiftable.migrate._database_engine import Given, Lanes, Moving
from shiftable.migrate._mysql._copying import Ends, copied
from shiftable.migrate._mysql._digests import sum_of
from shiftable.migrate._mysql._facts import facts_of
from shiftable.migrate._mysql._marks import Marks, hold, marked
from shiftable.migrate._mysql._rights import apply_grants
from shiftable.migrate._mysql._schema import (
    Thing,
    defined,
    definers,
    made,
    made_in_turn,
    schema_of,
    sequences_of,
    wipe,
)
from shiftable.migrate._mysql._side import Side, asking, raw, rows
from shiftable.migrate._mysql._snapshot import Pair, Snapshot
from shiftable.migrate._mysql._tables import CHUNK_BYTES, Chunk, Cut, Table, chunks_of, cut_of
from shiftable.migrate._mysql._words import quoted

__all__ = ["DatabaseMove", "How", "moved"]

_CONSTRAINT = re.compile(r"CONSTRAINT `((?:[^`]|``)*)` ")
_INDEXES = (
    "SELECT DISTINCT index_name AS name FROM information_schema.statistics"
    " WHERE table_schema = DATABASE() AND table_name = %s"
)
_CONSTRAINTS = (
    "SELECT constraint_name AS name FROM information_schema.referential_constraints"
    " WHERE constraint_schema = DATABASE() AND table_name = %s"
)


@attrs.frozen(kw_only=True)
class How(Given):
    """How a database of MySQL or MariaDB is moved.

    Args:
        chunk: bytes of a table that travel in one transaction, about.
    """

    chunk: int = CHUNK_BYTES


class DatabaseMove(Moving):
    """Moves one database into an empty one.

    ``begin`` makes the tables, ``start`` sets the copy going, ``table`` waits for a part of it, ``finish`` makes the
    rest and ``tidy`` takes the marks away. After a kill at any point the same is done again.
    """

    how: How

    def __init__(self, source: Side, target: Side, how: How | None = None) -> None:
        super().__init__(source, target)
        self.how = how or How()
        self._cuts: dict[str, Cut] = {}
        self._numbers = itertools.count()

    # before the rows

    def begin(self) -> None:
        """Make the tables, or find how far a killed move has come.

        Raises:
            MigrationError: the target is not empty; a side cannot be reached; the schema cannot be made.
        """
        self._control = self._stack.enter_context(contextlib.closing(self.target.connect()))
        self._writer = self._stack.enter_context(contextlib.closing(self.target.connect(plain=True)))
        (row,) = rows(self._control, self.target.name, "SELECT DATABASE() AS name")
        self._database = str(row["name"])
        self._marks = Marks(self._control, self.target.name, self._database)
        self._marks.lock()
        with contextlib.closing(self.source.connect()) as asked:
            self._here = facts_of(asked, self.source.name)
        self._there = facts_of(self._control, self.target.name)
        self._snapshot = self._stack.enter_context(Snapshot.taken(self.source, self._here, self.how.jobs))
        self._ends = Ends(self.source.name, self.target.name, int(self._there.server["packet"]))
        self._schema = schema_of(self._snapshot.control, self.source.name, self._here)
        self._placed = definers(self._here, self._there, self.how.degrade)
        self._lanes: Lanes[Pair] = self._stack.enter_context(Lanes(self._opened, self._snapshot.jobs))
        self._phase = self._marks.phase or ""
        if not self._phase:
            self._begin_anew()
        elif self._phase == "schema" or not self._goes_on():
            wipe(self._control, self._writer, self.target.name)
            self._begin_anew()
        self._done = self._marks.chunks

    def _opened(self) -> Pair:
        source = self._snapshot.take()
        try:
            target = self.target.connect(plain=True)
        except BaseException:
            with contextlib.suppress(Exception):
                source.close()
            raise
        pair = Pair(source, target)
        try:
            hold(target, self.target.name, self._database, next(self._numbers))
        except BaseException:
            pair.close()
            raise
        return pair

    def _begin_anew(self) -> None:
        if not self._phase and self._there.present:
            present = ", ".join(self._there.present)
            raise MigrationError(f"{self.target.name} is not empty: {present}; move into an empty database")
        self._marks.make()
        name = self.target.name
        charset, collation = (self._here.server[key] for key in ("charset", "collation"))
        rows(
            self._control, name, f"ALTER DATABASE {quoted(self._database)} CHARACTER SET {charset} COLLATE {collation}"
        )
        for sequence in self._schema.sequences:
            defined(self._writer, f"{name}: sequence {sequence.name}", sequence.text)
        for label, statement in self._schema.tables.items():
            defined(self._writer, f"{name}: table {label}", statement.create())
        self._cuts = {
            table.name: cut_of(self._snapshot.reader, self.source.name, table, self.how.chunk)
            for table in self._here.tables
            if not table.is_elsewhere
        }
        self._marks.enter("data", {"schema": self._schema.digest, "cuts": self._cuts})
        self._phase = "data"

    def _goes_on(self) -> bool:
        """Tell whether what a killed move has brought goes together with what there is now; else say why not.

        A snapshot ends with its sessions. Unless nobody writes, both servers add up each chunk that has arrived: where
        the new snapshot holds the same rows, it need not travel again.
        """
        before = self._marks.facts
        if before["schema"] != self._schema.digest:
            self.notes.append("a killed move was begun anew: the schema is another one now")
            return False
        self._cuts = before["cuts"]
        changed = [] if self.how.frozen else self._changed()
        if changed and self._phase == "post":
            self._take_back()
        for chunk in changed:
            self._take_away(chunk)
        if changed:
            self._marks.enter("data")
            self._phase = "data"
        more = f", but for {len(changed):,} chunks that had changed at the source" if changed else ""
        self.notes.append(f"a killed move went on where it had stopped{more}")
        return True

    def _changed(self) -> list[Chunk]:
        arrived = self._marks.chunks
        chunks = [chunk for table in self.tables for chunk in self._pieces(table) if chunk.label in arrived]
        waiting = [(chunk, self._lanes.submit(partial(self._is_same, chunk))) for chunk in chunks]
        return [chunk for chunk, same in waiting if not same.result()]

    def _is_same(self, chunk: Chunk, pair: Pair) -> bool:
        self._check_stopping()
        return sum_of(pair.source, self.source.name, chunk) == sum_of(pair.target, self.target.name, chunk)

    def _take_back(self) -> None:
        """Drop what would act when rows come once more."""
        for trigger in self._schema.triggers:
            rows(self._control, self.target.name, f"DROP TRIGGER IF EXISTS {quoted(trigger.name)}")

    def _take_away(self, chunk: Chunk) -> None:
        """Delete the rows of a chunk and its mark."""
        if chunk.alone:
            self._marks.forget(chunk.label)
            return  # its table is emptied before it comes
        with asking(self.target.name):
            self._writer.begin()
            self._writer.query(f"DELETE FROM {chunk.table.sql} WHERE {chunk.where}".encode("utf-8", "surrogateescape"))
            self._writer.commit()
        self._marks.forget(chunk.label)

    def _pieces(self, table: Table) -> Sequence[Chunk]:
        return chunks_of(table, self._cuts.get(table.name))

    # the rows

    def start(self) -> None:
        """Set the copy of all rows going, the largest tables first."""
        if self._phase != "data":
            return
        for table in self.tables:
            self._futures[table.name] = [
                self._lanes.submit(partial(self._copy, chunk))
                for chunk in self._pieces(table)
                if chunk.label not in self._done
            ]

    @property
    def tables(self) -> Sequence[Table]:
        """All tables with rows of their own, the largest first."""
        own = [table for table in self._here.tables if not table.is_elsewhere]
        return sorted(own, key=lambda table: (-table.size, table.name))

    def large_objects(self) -> int:
        """Return 0: there are no such things."""
        return 0

    def _copy(self, chunk: Chunk, pair: Pair) -> tuple[int, int]:
        self._check_stopping()
        if chunk.alone:
            self._empty(chunk.table, pair)
        with asking(self.target.name):
            pair.target.begin()
        count, size = copied(pair.source, pair.target, chunk, self._ends, self.how.stopping, commits=chunk.alone)
        with asking(self.target.name):
            marked(pair.target, chunk.label, count, size)
            pair.target.commit()
        return count, size

    def _empty(self, table: Table, pair: Pair) -> None:
        """Take away what a killed run may have brought."""
        words = ("DELETE FROM", "DELETE HISTORY FROM") if table.versioned else ("TRUNCATE TABLE",)
        for word in words:
            raw(pair.target, self.target.name, f"{word} {table.sql}")

    # after the rows

    def finish(self) -> None:
        """Make indexes, foreign keys, sequences' values, routines, views, triggers, events and grants.

        Raises:
            MigrationError: some rows have not arrived; something could not be made.
        """
        self._wait_for_all()
        self._marks.enter("post")
        self._phase = "post"
        self._each(self._keys)
        self._each(self._foreign)
        self._count()
        self._set_sequences()
        self._make_things()
        self._analyze()
        self._give()

    def _each(self, function: Callable[[str, Pair], None]) -> None:
        """Do something for all tables, the largest first, as many at once as there are threads."""
        names = [table.name for table in sorted(self._here.tables, key=lambda table: -table.size)]
        waiting = [self._lanes.submit(partial(function, name)) for name in names]
        for future in waiting:
            future.result()

    def _keys(self, label: str, pair: Pair) -> None:
        """Make a table's keys, all in one go, less those that a killed run has made."""
        self._check_stopping()
        wanted = self._schema.tables[label].keys
        self._alter(label, pair, _INDEXES, wanted)

    def _foreign(self, label: str, pair: Pair) -> None:
        """Make a table's foreign keys; the source has seen to it that they hold."""
        wanted = {}
        for part in self._schema.tables[label].foreign:
            name = _CONSTRAINT.match(part)
            wanted[name[1].replace("``", "`") if name else part] = part
        self._alter(label, pair, _CONSTRAINTS, wanted)

    def _alter(self, label: str, pair: Pair, query: str, wanted: Mapping[str, str]) -> None:
        if not wanted:
            return
        with contextlib.closing(self.target.connect()) as session:
            there = {row["name"] for row in rows(session, self.target.name, query, (label,))}
        missing = [f"ADD {part}" for name, part in wanted.items() if name not in there]
        if missing:
            text = f"ALTER TABLE {quoted(label)} {', '.join(missing)}"
            defined(pair.target, f"{self.target.name}: keys of {label}", text)

    def _count(self) -> None:
        """Let tables go on counting where the source's do; building keys may have forgotten it."""
        for label, statement in self._schema.tables.items():
            if statement.counter:
                rows(
                    self._control, self.target.name, f"ALTER TABLE {quoted(label)} AUTO_INCREMENT = {statement.counter}"
                )

    def _set_sequences(self) -> None:
        with contextlib.closing(self.source.connect(plain=True)) as session:
            found = sequences_of(session, self.source.name, self._here.things["sequences"])
        for each in found:
            query = f"SELECT SETVAL({quoted(each.name)}, {each.value}, 0, {each.rounds})"
            raw(self._writer, self.target.name, query)

    def _make_things(self) -> None:
        there = schema_of(self._writer, self.target.name, facts_of(self._control, self.target.name))
        known = {each.label for each in there.things}
        name = self.target.name
        for thing in self._left(self._schema.routines, known):
            made(self._writer, name, thing)
        made_in_turn(self._writer, name, self._left(self._schema.views, known))
        for thing in self._left([*self._schema.triggers, *self._schema.events], known):
            made(self._writer, name, thing)

    def _left(self, things: Iterable[Thing], known: set[str]) -> list[Thing]:
        return [self._placed(thing) for thing in things if thing.label not in known]

    def _analyze(self) -> None:
        self._each(self._analyze_one)

    def _analyze_one(self, label: str, pair: Pair) -> None:
        raw(pair.target, self.target.name, f"ANALYZE TABLE {quoted(label)}")

    def _give(self) -> None:
        """Apply grants, and note what the target refuses."""
        known = self._there.accounts or frozenset()
        wanted = [grant for grant in self._here.grants or () if grant.account in known]
        self.notes += apply_grants(self._control, self.target.name, self._database, wanted)


def moved(source: Side, target: Side, how: How | None = None) -> DatabaseMove:
    """Move a whole database in one call; return the move with its notes, closed."""
    with DatabaseMove(source, target, how) as move:
        move.begin()
        move.start()
        for table in move.tables:
            move.table(table.name)
        move.finish()
        move.tidy()
    return move
