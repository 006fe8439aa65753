"""Sums of rows that both servers make by the same SQL, so that only sums travel."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from shiftable.migrate._mysql._side import Session, decoded, raw
from shiftable.migrate._mysql._tables import Chunk
from shiftable.migrate._mysql._words import quoted

__all__ = ["Odd", "Sum", "odd_rows", "sum_of"]

_HALF = 15  # digits of sixteen: each half of an MD5 as a number, so that the sum of them is exact
_AT_ONCE = 200_000
_SHOWN = 5


@attrs.frozen
class Sum:
    """How many rows a chunk has, and the sums of both halves of their hashes.

    Sums and not XOR: rows that are there twice must not cancel each other.
    """

    rows: int
    first: int
    second: int


@attrs.frozen
class Odd:
    """Rows of a chunk that only one side has, as far as their keys may be shown."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]


def sum_of(session: Session, name: str, chunk: Chunk) -> Sum:
    """Let a server add up a chunk, in a plain session."""
    halves = ", ".join(
        f"SUM(CAST(CONV(SUBSTRING(sum, {begin}, {_HALF}), 16, 10) AS UNSIGNED))" for begin in (1, 1 + _HALF)
    )
    rows = f"SELECT {chunk.table.row_sum} AS sum FROM {chunk.source}"
    ((count, first, second),) = raw(session, name, f"SELECT COUNT(sum), {halves} FROM ({rows}) AS summed")
    return Sum(int(count or 0), int(first or 0), int(second or 0))


def odd_rows(sides: Sequence[tuple[Session, str, Chunk]]) -> Odd | None:
    """Find the rows of one chunk that differ, by their keys; ``None``: they cannot be named."""
    table = sides[0][2].table
    shown = all(column.quote is None and column.type not in {"char", "varchar"} for column in table.key)
    if not (table.unique and shown):
        return None
    keys = f"CONCAT_WS(', ', {', '.join(quoted(column.name) for column in table.key)})"
    found = []
    for session, name, chunk in sides:
        query = f"SELECT {keys}, {table.row_sum} FROM {chunk.source} LIMIT {_AT_ONCE + 1}"
        rows = raw(session, name, query)
        if len(rows) > _AT_ONCE:
            return None
        found.append({decoded(key or b""): sum_ for key, sum_ in rows})
    here, there = found
    return Odd(
        tuple(key for key, sum_ in here.items() if there.get(key) != sum_)[:_SHOWN],
        tuple(key for key, sum_ in there.items() if here.get(key) != sum_)[:_SHOWN],
    )
