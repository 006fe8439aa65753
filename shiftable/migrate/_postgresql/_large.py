"""Large objects: read and written by functions that everybody may call who may read the object."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence

from shiftable.errors import MigrationError
from shiftable.migrate._postgresql._side import Session, rows

__all__ = ["batches", "copied_objects", "differing_objects", "numbers_of"]

_BATCH = 500
_AT_ONCE = 16
_PIECE = 1024 * 1024

_SUMS = """
SELECT o.oid, md5(string_agg(encode(sha256(lo_get(o.oid, start, %(piece)s)), 'hex'), '' ORDER BY start)) AS sum
FROM unnest(%(oids)s::oid[]) AS o (oid)
CROSS JOIN LATERAL (
    SELECT lo_lseek64(fd, 0, 2) AS size, lo_close(fd) FROM lo_open(o.oid, 262144) AS f (fd)
) AS s
CROSS JOIN LATERAL generate_series(0, greatest(s.size - 1, 0), %(piece)s) AS start
GROUP BY o.oid
"""


def numbers_of(session: Session, name: str) -> list[int]:
    """Return the numbers of all large objects, in order."""
    found = rows(session, name, "SELECT oid::bigint AS oid FROM pg_largeobject_metadata ORDER BY oid")
    return [row["oid"] for row in found]


def batches(numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield as many as one transaction brings."""
    for start in range(0, len(numbers), _BATCH):
        yield tuple(numbers[start : start + _BATCH])


def copied_objects(source: Session, target: Session, numbers: Sequence[int], stopping: threading.Event) -> int:
    """Copy large objects within the target's open transaction, under the same numbers; return their bytes."""
    total = 0
    for start in range(0, len(numbers), _AT_ONCE):
        if stopping.is_set():
            raise MigrationError("stopped; run the same again: it goes on where it stopped")
        wanted = list(numbers[start : start + _AT_ONCE])
        with source.cursor(binary=True) as cursor:
            found = cursor.execute(
                "SELECT oid::bigint AS oid, lo_get(oid, 0, %s) AS data FROM unnest(%s::oid[]) AS o (oid)",
                (_PIECE, wanted),
            ).fetchall()
        with target.cursor() as cursor:
            cursor.executemany("SELECT lo_from_bytea(%s::oid, %b)", [(row["oid"], bytes(row["data"])) for row in found])
        total += sum(len(row["data"]) for row in found)
        for row in found:
            if len(row["data"]) == _PIECE:
                total += _rest(source, target, row["oid"])
    return total


def _rest(source: Session, target: Session, number: int) -> int:
    """Copy what follows the first piece."""
    for offset in itertools.count(_PIECE, _PIECE):
        with source.cursor(binary=True) as cursor:
            (row,) = cursor.execute("SELECT lo_get(%s::oid, %s, %s) AS data", (number, offset, _PIECE)).fetchall()
        if row["data"]:
            target.execute("SELECT lo_put(%s::oid, %s, %b)", (number, offset, bytes(row["data"])))
        if len(row["data"]) < _PIECE:
            return offset - _PIECE + len(row["data"])
    raise AssertionError  # the count has no end


def differing_objects(
    source: tuple[Session, str], target: tuple[Session, str], numbers: Sequence[int]
) -> Iterator[str]:
    """Compare large objects by sums that both servers make; both sessions are in a transaction."""
    values = {"oids": list(numbers), "piece": _PIECE}
    here, there = (
        {row["oid"]: row["sum"] for row in rows(session, name, _SUMS, values)} for session, name in (source, target)
    )
    yield from (f"large object {number}" for number in numbers if here.get(number) != there.get(number))
