"""Compares two databases by what both servers themselves say of them, whatever a copy believed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial

from shiftable.errors import MigrationError
from shiftable.migrate._database_engine import Lanes, Sides, some
from shiftable.migrate._mysql._digests import Odd, Sum, odd_rows, sum_of
from shiftable.migrate._mysql._facts import Facts, facts_of
from shiftable.migrate._mysql._move import How
from shiftable.migrate._mysql._schema import Schema, definers, schema_of
from shiftable.migrate._mysql._side import Side
from shiftable.migrate._mysql._snapshot import Pair, Snapshot
from shiftable.migrate._mysql._tables import Chunk, Table, chunks_of, cut_of
from shiftable.migrate._mysql._words import Statement

__all__ = ["Verification", "differences"]

_SHOWN = 5

_Parts = list[tuple[Chunk, Future[tuple[Sum, Sum]]]]


class Verification(Sides):
    """Reads both sides under a snapshot of each, in several sessions, and says how they differ.

    ``start`` sets everything going; ``table`` and ``rest`` wait for a part of it.
    """

    def __init__(self, source: Side, target: Side, how: How | None = None) -> None:
        super().__init__(source, target)
        self.how = how or How()

    def begin(self) -> None:
        """Take both snapshots.

        Raises:
            MigrationError: a side cannot be reached.
        """
        self.here, self._source = self._begun(self.source)
        self.there, self._target = self._begun(self.target)
        self._tables = {table.name: table for table in self.here.tables}
        self._counterparts = {table.name: table for table in self.there.tables}
        jobs = min(self._source.jobs, self._target.jobs)
        self._cuts = {
            table.name: cut_of(self._source.reader, self.source.name, table, self.how.chunk)
            for table in self.here.tables
            if not table.is_elsewhere
        }
        self._lanes = self._stack.enter_context(Lanes(self._opened, jobs))

    def _begun(self, side: Side) -> tuple[Facts, Snapshot]:
        with contextlib.closing(side.connect()) as asked:
            facts = facts_of(asked, side.name)
        return facts, self._stack.enter_context(Snapshot.taken(side, facts, self.how.jobs))

    def _opened(self) -> Pair:
        return Pair(self._source.take(), self._target.take())

    # rows

    def tables(self) -> list[str]:
        """Return the source's tables, the largest first."""
        own = [table for table in self.here.tables if not table.is_elsewhere]
        return [table.name for table in sorted(own, key=lambda table: (-table.size, table.name))]

    def start(self, labels: Iterable[str]) -> Mapping[str, _Parts]:
        """Let both servers add up the rows of some tables."""
        return {label: self._parts(label) for label in labels}

    def table(self, label: str, parts: _Parts, /) -> str | None:
        """Wait for the sums of a table, and say how its rows differ; ``None`` if they do not."""
        if label not in self._counterparts:
            return "the target has no such table"
        if _names(self._tables[label]) != _names(self._counterparts[label]):
            return "the target's table has other columns"
        sums = [(chunk, *future.result()) for chunk, future in parts]
        odd = [chunk for chunk, ours, theirs in sums if ours != theirs]
        if not odd:
            return None
        here, there = sum(each.rows for _, each, _ in sums), sum(each.rows for _, _, each in sums)
        told = f"{here:,} rows here and {there:,} there" if here != there else "rows differ"
        places = [self._located(chunk) for chunk in odd[:_SHOWN]]
        more = f" and {len(odd) - _SHOWN:,} chunks more" if len(odd) > _SHOWN else ""
        return f"{told}: {'; '.join(places)}{more}"

    def _located(self, chunk: Chunk) -> str:
        found = self._lanes.submit(partial(self._odd, chunk)).result()
        if found is None or not (found.ours or found.theirs):
            return f"in {chunk.place}"
        ours, theirs = {*found.ours}, {*found.theirs}
        parts = (
            ("only the source has", ours - theirs),
            ("only the target has", theirs - ours),
            ("otherwise on both sides", ours & theirs),
        )
        keys = ", ".join(column.name for column in chunk.table.key)
        told = " and ".join(f"{words} {keys} = {some(sorted(found_))}" for words, found_ in parts if found_)
        return f"{told} in {chunk.place}"

    def _odd(self, chunk: Chunk, pair: Pair) -> Odd | None:
        return odd_rows([(pair.source, self.source.name, chunk), (pair.target, self.target.name, self._theirs(chunk))])

    def _parts(self, label: str) -> _Parts:
        if label not in self._counterparts or _names(self._tables[label]) != _names(self._counterparts[label]):
            return []
        chunks = chunks_of(self._tables[label], self._cuts[label])
        return [(chunk, self._lanes.submit(partial(self._sums, chunk))) for chunk in chunks]

    def _sums(self, chunk: Chunk, pair: Pair) -> tuple[Sum, Sum]:
        if self.how.stopping.is_set():
            raise MigrationError("stopped")
        here = sum_of(pair.source, self.source.name, chunk)
        return here, sum_of(pair.target, self.target.name, self._theirs(chunk))

    def _theirs(self, chunk: Chunk) -> Chunk:
        """Return the same rows of the target: its values are written as its own columns want it."""
        return chunk.of_table(self._counterparts[chunk.table.name])

    def large_objects(self) -> str | None:
        """Return ``None``: there are no such things."""
        return None

    # the rest

    def rest(self) -> str | None:
        """Compare tables, code, sequences and grants; ``None`` if they are equal."""
        here = schema_of(self._source.control, self.source.name, self.here, whole=True)
        there = schema_of(self._target.control, self.target.name, self.there, whole=True)
        odd = [*self._schema(here, there), *self._grants()]
        more = [f"and {len(odd) - _SHOWN:,} more"] if len(odd) > _SHOWN else []
        return "; ".join([*odd[:_SHOWN], *more]) or None

    def _schema(self, here: Schema, there: Schema) -> Iterator[str]:
        exact = (self.here.flavour, self.here.version) == (self.there.flavour, self.there.version)
        missing, more, both = _joined(*({f"table {each}" for each in side.tables} for side in (here, there)))
        yield from (*missing, *more)
        for label in both:
            ours, theirs = (side.tables[label.removeprefix("table ")] for side in (here, there))
            if exact:
                yield from _compared(label, _lines(ours), _lines(theirs))
            if theirs.counter < ours.counter:
                yield f"{label} would count on from {theirs.counter:,} and not from {ours.counter:,}"
        values = {each.name: (each.value, each.rounds) for each in there.sequences}
        for each in here.sequences:
            if values.get(each.name) != (each.value, each.rounds):
                yield f"sequence {each.name} is at {values.get(each.name, ('nothing',))[0]} and not at {each.value}"
        placed = definers(self.here, self.there, self.how.degrade)
        wanted = {each.label: placed(each) for each in here.things}
        found = {each.label: placed(each) for each in there.things}
        missing, more, both = _joined(wanted, found)
        yield from (*missing, *more)
        yield from (f"{each} is not that of the source" for each in both if exact and wanted[each] != found[each])

    def _grants(self) -> Iterator[str]:
        if self.here.grants is None or self.there.grants is None:
            return
        known = self.there.accounts or frozenset()
        ours = {each for each in self.here.grants if each.account in known}
        yield from (f"{each} is missing" for each in sorted(ours - {*self.there.grants}))


def differences(source: Side, target: Side, how: How | None = None) -> dict[str, str]:
    """Compare two whole databases in one call; return what differs and how, nothing if they are equal."""
    found: dict[str, str | None] = {}
    with Verification(source, target, how) as verification:
        verification.begin()
        parts = verification.start(verification.tables())
        for label, part in parts.items():
            found[label] = verification.table(label, part)
        found[""] = verification.rest()
    return {label: told for label, told in found.items() if told is not None}


def _names(table: Table) -> list[str]:
    return [column.name for column in table.stored]


def _lines(statement: Statement) -> list[str]:
    keys = sorted(statement.keys.values())
    return [*statement.parts, *keys, *sorted(statement.foreign), statement.options]


def _joined(ours: Iterable[str], theirs: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Return what is said of things that only one side has, and those that both have."""
    here, there = {*ours}, {*theirs}
    missing = [f"{each} is missing" for each in sorted(here - there)]
    return missing, [f"{each} is there and not at the source" for each in sorted(there - here)], sorted(here & there)


def _compared(label: str, ours: list[str], theirs: list[str]) -> Iterator[str]:
    missing, more = [each for each in ours if each not in theirs], [each for each in theirs if each not in ours]
    if missing or more:
        yield f"{label} has {_short(more)} and not {_short(missing)}"
    elif ours != theirs:
        yield f"{label} has its columns or keys in another order"


def _short(parts: list[str]) -> str:
    text = ", ".join(parts) or "nothing"
    return repr(text if len(text) <= 120 else f"{text[:120]}…")
