"""Sums of rows that both servers make themselves, and the rows in which two sums differ.

Every row has a hash; rows are counted and hashes added in 64 heaps, by the hash. Equal heaps hold the same rows,
whatever lies where. Of heaps that differ, hashes are compared one by one, which tells the rows and where they lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from shiftable.migrate._postgresql._side import Session, rows
from shiftable.migrate._postgresql._tables import Chunk, Table, quoted

__all__ = ["Heaps", "Odd", "added", "heaps_of", "odd_rows", "row_hash"]

_HEAPS = 64
_RECORDS = 140000  # the first version with hash_record_extended
_FEW = 200_000
"""Rows of one chunk whose hashes are compared one by one; of more, only how many differ is told."""
_SHOWN = 3

Heaps = Mapping[int, tuple[int, int]]
"""By heap: how many rows, and the sum of their hashes."""


@attrs.frozen
class Odd:
    """A row that the other side does not have: its hash and where it lies."""

    hash: int
    place: str
    chunk: Chunk


def row_hash(
    table: Table, versions: tuple[int, int], encodings: tuple[str, str], *, source: Table | None = None
) -> str:
    """Return SQL that both servers understand, and whose value is the same for rows that are equal byte by byte.

    Args:
        source: the table of the source, whose columns say what is hashed; this one, if it is that.
    """
    columns = (source or table).stored
    if not columns:
        return "0::bigint"
    recode = encodings[0] != encodings[1]
    parts = []
    for column in columns:
        exact = min(versions) >= _RECORDS and column.exact
        text = f"{quoted(column.name)}::pg_catalog.text"
        if recode and (column.text or not exact):
            text = f"pg_catalog.convert_to({text}, 'UTF8')"
            parts.append(text)
        else:
            parts.append(quoted(column.name) if exact else text)
    record = f"ROW({', '.join(parts)})"
    if min(versions) >= _RECORDS:
        return f"pg_catalog.hash_record_extended({record}, 0)"
    return f"pg_catalog.hashtextextended({record}::pg_catalog.text, 0)"


def heaps_of(session: Session, name: str, chunk: Chunk, row: str) -> Heaps:
    """Ask a server for the sums of one chunk."""
    found = rows(
        session,
        name,
        f"SELECT (h & {_HEAPS - 1})::int AS heap, count(*) AS rows, sum(h::numeric) AS sum"
        f" FROM (SELECT {row} AS h FROM ONLY {chunk.table.sql} WHERE {chunk.condition}) AS r GROUP BY 1",
    )
    return {each["heap"]: (each["rows"], int(each["sum"])) for each in found}


def added(parts: Iterable[Heaps]) -> Heaps:
    """Add sums of several chunks."""
    total: dict[int, tuple[int, int]] = {}
    for part in parts:
        for heap, (count, value) in part.items():
            before = total.get(heap, (0, 0))
            total[heap] = before[0] + count, before[1] + value
    return total


def odd_rows(
    sides: tuple[tuple[Session, str, Iterable[Chunk], str], tuple[Session, str, Iterable[Chunk], str]], heaps: list[int]
) -> tuple[list[Odd], list[Odd], bool]:
    """Return rows of each side that the other does not have, and whether all of them were looked for."""
    hashes: list[Counter[int]] = []
    whole = True
    for session, name, chunks, row in sides:
        counted: Counter[int] = Counter()
        for chunk in chunks:
            found = _listed(session, name, chunk, row, heaps)
            whole = whole and len(found) < _FEW
            counted.update(each["h"] for each in found)
        hashes.append(counted)
    odd: tuple[list[Odd], list[Odd]] = ([], [])
    for into, own, other, (session, name, chunks, row) in zip(odd, hashes, reversed(hashes), sides, strict=True):
        missing = [*(own - other).elements()][:_SHOWN]
        for chunk in chunks:
            if missing:
                into += [Odd(each["h"], each["place"], chunk) for each in _placed(session, name, chunk, row, missing)]
        del into[_SHOWN:]
    return *odd, whole


def _listed(session: Session, name: str, chunk: Chunk, row: str, heaps: list[int]) -> list[dict[str, Any]]:
    return rows(
        session,
        name,
        f"SELECT h FROM (SELECT {row} AS h FROM ONLY {chunk.table.sql} WHERE {chunk.condition}) AS r"
        f" WHERE (h & {_HEAPS - 1})::int = ANY (%s) LIMIT {_FEW}",
        (heaps,),
    )


def _placed(session: Session, name: str, chunk: Chunk, row: str, missing: list[int]) -> list[dict[str, Any]]:
    return rows(
        session,
        name,
        f"SELECT h, place FROM (SELECT {row} AS h, ctid::text AS place FROM ONLY {chunk.table.sql}"
        f" WHERE {chunk.condition}) AS r WHERE h = ANY (%s) LIMIT {_SHOWN}",
        (missing,),
    )
