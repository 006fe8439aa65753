"""Compares two databases by what both servers themselves say of them, whatever a copy believed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property, partial

from shiftable.errors import MigrationError
from shiftable.migrate._database_engine import Sides
from shiftable.migrate._postgresql._catalogue import catalogue_of, different, sequences_of
from shiftable.migrate._postgresql._digests import Heaps, Odd, added, heaps_of, odd_rows, row_hash
from shiftable.migrate._postgresql._facts import facts_of, missing_roles
from shiftable.migrate._postgresql._grants import Grant, Held, Setting, held, renamed, settings_of
from shiftable.migrate._postgresql._lanes import Pair, lanes
from shiftable.migrate._postgresql._large import batches, differing_objects, numbers_of
from shiftable.migrate._postgresql._move import LARGE_OBJECTS, How
from shiftable.migrate._postgresql._side import Session, Side, Snapshot
from shiftable.migrate._postgresql._tables import Chunk, Table, chunks_of, cut_of, named

__all__ = ["Verification", "differences"]

_SHOWN = 5
_HEAPS_SHOWN = 4  # a row that changed is in one heap here and in another there

_Parts = tuple[list[Future[Heaps]], list[Future[Heaps]]]


class Verification(Sides):
    """Reads both sides under a snapshot of each, in several sessions, and says how they differ.

    ``start`` sets everything going; ``table``, ``large_objects`` and ``rest`` wait for a part of it.
    """

    def __init__(self, source: Side, target: Side, how: How | None = None) -> None:
        super().__init__(source, target)
        self.how = how or How()

    def begin(self) -> None:
        """Take both snapshots.

        Raises:
            MigrationError: a side cannot be reached.
        """
        snapshot, self._here_session = self._stack.enter_context(Snapshot.taken(self.source))
        there, self._there_session = self._stack.enter_context(Snapshot.taken(self.target))
        self.here = facts_of(self._here_session, self.source.name)
        self.there = facts_of(self._there_session, self.target.name)
        self._lanes = self._stack.enter_context(lanes(snapshot, self.target, self.how.jobs, target_snapshot=there))

    # rows

    def tables(self) -> Sequence[str]:
        """Return the source's tables, the largest first; those whose rows go elsewhere stand under that name."""
        sizes: dict[str, int] = {}
        for table in self.here.tables:
            label = named(*table.into)
            sizes[label] = sizes.get(label, 0) + table.size
        return sorted(sizes, key=lambda label: (-sizes[label], label))

    def start(self, labels: Iterable[str]) -> Mapping[str, _Parts]:
        """Let both servers add up the rows of some tables."""
        return {label: self._parts(label) for label in labels}

    def table(self, label: str, parts: _Parts) -> str | None:
        """Wait for the sums of a table, and say how its rows differ; ``None`` if they do not."""
        ours, theirs = self._found(label)
        missing = [each.label for each in ours if not self._counterpart(each)] if not theirs else []
        if missing:
            return "the target has no such table"
        here, there = (added(future.result() for future in side) for side in parts)
        if here == there:
            return None
        counts = [sum(count for count, _ in side.values()) for side in (here, there)]
        heaps = sorted(heap for heap in here.keys() | there.keys() if here.get(heap) != there.get(heap))
        told = f"{counts[0]:,} rows here and {counts[1]:,} there" if counts[0] != counts[1] else "rows differ"
        return f"{told}: {self._located(label, heaps)}"

    def _located(self, label: str, heaps: list[int]) -> str:
        sides = (
            (self._here_session, self.source.name, self._chunks(label, 0), self._hash(label)),
            (self._there_session, self.target.name, self._chunks(label, 1), self._hash(label)),
        )
        ours, theirs, whole = odd_rows(sides, heaps[:_HEAPS_SHOWN])
        if not whole or not (ours or theirs):
            return f"in {len(heaps)} of 64 parts of them"
        return " and ".join(
            f"{side} has {_places(odd)}"
            for side, odd in (("only the source", ours), ("only the target", theirs))
            if odd
        )

    def _parts(self, label: str) -> _Parts:
        row = self._hash(label)
        here = [self._lanes.submit(partial(self._heaps, 0, chunk, row)) for chunk in self._chunks(label, 0)]
        there = [self._lanes.submit(partial(self._heaps, 1, chunk, row)) for chunk in self._chunks(label, 1)]
        return here, there

    def _heaps(self, side: int, chunk: Chunk, row: str, pair: Pair) -> Heaps:
        if self.how.stopping.is_set():
            raise MigrationError("stopped")
        name, session = ((self.source.name, pair.source), (self.target.name, pair.target))[side]
        return heaps_of(session, name, chunk, row)

    def _chunks(self, label: str, side: int) -> list[Chunk]:
        facts = (self.here, self.there)[side]
        tables = self._found(label)[side]
        block = facts.server["block"]
        return [
            chunk for each in tables for chunk in chunks_of(each, cut_of(each, facts.version, block, self.how.chunk))
        ]

    def _hash(self, label: str) -> str:
        versions = (self.here.version, self.there.version)
        encodings = (self.here.server["encoding"], self.there.server["encoding"])
        return row_hash(self._found(label)[0][0], versions, encodings)

    def _found(self, label: str) -> tuple[list[Table], list[Table]]:
        return self._grouped[label]

    @cached_property
    def _grouped(self) -> Mapping[str, tuple[list[Table], list[Table]]]:
        grouped: dict[str, tuple[list[Table], list[Table]]] = {}
        for side, facts in enumerate((self.here, self.there)):
            for table in facts.tables:
                grouped.setdefault(named(*table.into), ([], []))[side].append(table)
        return grouped

    def _counterpart(self, table: Table) -> bool:
        return any((each.schema, each.name) == (table.schema, table.name) for each in self.there.tables)

    # large objects and the rest

    def large_objects(self) -> str | None:
        """Compare all large objects by number and content; ``None`` if they are equal."""
        here, there = (
            numbers_of(session, name)
            for session, name in ((self._here_session, self.source.name), (self._there_session, self.target.name))
        )
        if here != there:
            missing, more = sorted({*here} - {*there}), sorted({*there} - {*here})
            parts = [
                f"{len(found):,} {what} ({', '.join(map(str, found[:_SHOWN]))})"
                for found, what in ((missing, "are missing"), (more, "are there and not at the source"))
                if found
            ]
            return " and ".join(parts)
        waiting = [self._lanes.submit(partial(self._objects, part)) for part in batches(here)]
        odd = [label for future in waiting for label in future.result()]
        return _several(odd, "differ") if odd else None

    def _objects(self, numbers: Sequence[int], pair: Pair) -> list[str]:
        sides = (pair.source, self.source.name), (pair.target, self.target.name)
        return [*differing_objects(*sides, numbers)]

    def rest(self) -> str | None:
        """Compare the catalogue, sequences, owners, grants and settings; ``None`` if they are equal."""
        odd = [*self._catalogue(), *self._sequences(), *self._grants(), *self._settings()]
        more = [f"and {len(odd) - _SHOWN:,} more"] if len(odd) > _SHOWN else []
        return "; ".join([*odd[:_SHOWN], *more]) or None

    def _sessions(self) -> tuple[tuple[Session, str], tuple[Session, str]]:
        return (self._here_session, self.source.name), (self._there_session, self.target.name)

    def _catalogue(self) -> Iterator[str]:
        here, there = (catalogue_of(session, name) for session, name in self._sessions())
        given_up = {"policy"} if "roles" in self.how.degrade and missing_roles(self.here, self.there) else {*""}
        given_up |= {"event trigger"} if "event_triggers" in self.how.degrade else {*""}
        yield from different(
            here, there, same_version=self.here.major == self.there.major, left_out=given_up.__contains__
        )

    def _sequences(self) -> Iterator[str]:
        here, there = ({each.label: each for each in sequences_of(*side)} for side in self._sessions())
        for label, each in here.items():
            found = there.get(label)
            if found is not None and found != each:
                yield f"sequence {label} is at {found.value} and not at {each.value}"

    def _grants(self) -> Iterator[str]:
        known = self.there.roles
        here = renamed(held(*self._sessions()[0]), self._roles)
        there = {_key(each): each for each in held(*self._sessions()[1])}
        for each in here:
            found = there.get(_key(each))
            if found is None or (each.name == "public" and each.grants == "SCHEMA" and each.owner not in known):
                continue  # what is missing is told of the catalogue
            if not each.columns and found.owner != each.owner and each.owner in known:
                yield f"{each.label} belongs to {found.owner} and not to {each.owner}"
            wanted = {*_explicit(each, known)}
            given = {*_explicit(found, known)}
            yield from (f"{each.label}: {grant} is missing" for grant in sorted(wanted - given))
            yield from (f"{each.label}: {grant} is too much" for grant in sorted(given - wanted))

    def _settings(self) -> Iterator[str]:
        here = renamed(settings_of(*self._sessions()[0]), self._roles)
        there = {*settings_of(*self._sessions()[1])}
        for each in here:
            if each not in there and (not each.role or each.role in self.there.roles):
                yield _setting(each)

    @property
    def _roles(self) -> Mapping[str, str]:
        return {self.here.server["who"]: self.there.server["who"]}


def differences(source: Side, target: Side, how: How | None = None) -> dict[str, str]:
    """Compare two whole databases in one call; return what differs and how, nothing if they are equal."""
    found: dict[str, str | None] = {}
    with Verification(source, target, how) as verification:
        verification.begin()
        parts = verification.start(verification.tables())
        for label, part in parts.items():
            found[label] = verification.table(label, part)
        found[LARGE_OBJECTS] = verification.large_objects()
        found[""] = verification.rest()
    return {label: told for label, told in found.items() if told is not None}


def _key(each: Held) -> tuple[str, str, str]:
    return each.alters, each.name, each.columns


def _explicit(each: Held, known: frozenset[str]) -> Iterator[Grant]:
    """Yield what others than the owner may do, also where nobody ever said so."""
    if each.plain and each.grants in {"ROUTINE", "TYPE", "LANGUAGE"}:
        yield Grant("", "EXECUTE" if each.grants == "ROUTINE" else "USAGE", grantable=False)
    yield from (grant for grant in each.given if not grant.role or grant.role in known)


def _places(odd: list[Odd]) -> str:
    return ", ".join(f"the row at {each.place} in {each.chunk.blocks} of {each.chunk.table.label}" for each in odd)


def _several(names: Sequence[str], what: str) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more} {what}"


def _setting(each: Setting) -> str:
    return f"setting {each.name}{f' of {each.role}' if each.role else ''} is not that of the source"
