"""The rows of one chunk, from the source's text into the target's ``INSERT``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import attrs
from pymysql.cursors import SSCursor

from shiftable.errors import MigrationError
from shiftable.migrate._mysql._side import Session, asking, encoded, warnings_of
from shiftable.migrate._mysql._tables import Chunk, Table

__all__ = ["Ends", "copied", "escaped"]

_STATEMENT = 1024 * 1024
_ROOM = 4096  # what a statement has beside its rows, and the packet around it
_COMMIT = 64 * 1024 * 1024
_LARGE = 4 * _STATEMENT
_TRUNCATED = 1265


@attrs.frozen
class Ends:
    """Both ends of a copy, by name, and how long a statement the target takes.

    Args:
        large: held by the one thread that has a large row in its hands, which are several copies of it.
    """

    source: str
    target: str
    packet: int
    large: AbstractContextManager[bool] = attrs.field(factory=threading.RLock, eq=False, repr=False)


def copied(
    source: Session, target: Session, chunk: Chunk, ends: Ends, stopping: threading.Event, *, commits: bool = False
) -> tuple[int, int]:
    """Send the rows of a chunk; return how many they are, and their bytes as they travelled.

    Args:
        commits: let the target commit now and then: the whole table begins anew after a kill.

    Raises:
        MigrationError: a side refused; the target changed a value.
    """
    table = chunk.table
    head = encoded(f"INSERT INTO {table.sql} ({table.names}) VALUES ")
    most = min(_STATEMENT, ends.packet - len(head) - _ROOM)
    count, size, pending = 0, 0, 0
    for batch in _batches(_texts(source, chunk, ends), most):
        if stopping.is_set():
            raise MigrationError("stopped; run the same again: it goes on where it stopped")
        length, rows = sum(map(len, batch)), len(batch)
        if length + len(head) + rows >= ends.packet:
            raise MigrationError(
                f"{ends.target}: a row of {table.name} takes {length:,} bytes, and max_allowed_packet there is"
                f" {ends.packet:,}; raise it and run the same again"
            )
        with ends.large if length > _LARGE else nullcontext():
            _inserted(target, head, batch, table, ends.target)
        count, size, pending = count + rows, size + length, pending + length
        if commits and pending > _COMMIT:
            with asking(ends.target):
                target.commit()
                target.begin()
            pending = 0
    return count, size


def _texts(source: Session, chunk: Chunk, ends: Ends) -> Iterator[bytes]:
    """Yield rows as ``INSERT`` takes them; those that are too long for a text of the source last."""
    table, long = chunk.table, False
    with asking(ends.source), source.cursor(SSCursor) as cursor:
        cursor.execute(cast("str", encoded(f"SELECT {table.row} FROM {chunk.source}")))
        while (row := cursor.fetchone()) is not None:
            if row[0] is None:
                long = True
            else:
                yield row[0]
    if long:
        with ends.large:
            yield from _long_texts(source, chunk, ends.source)


def _long_texts(source: Session, chunk: Chunk, name: str) -> Iterator[bytes]:
    table = chunk.table
    columns = ", ".join(column.apart for column in table.stored)
    with asking(name), source.cursor(SSCursor) as cursor:
        cursor.execute(cast("str", encoded(f"SELECT {columns} FROM {chunk.source} AND {table.row} IS NULL")))
        while (row := cursor.fetchone()) is not None:
            values = [*reversed(row)]
            del row
            cursor._result.rows = None  # type: ignore[attr-defined]  # noqa: SLF001  it would keep the row
            yield _joined(values, [column.quote for column in table.stored])


def _joined(values: list[bytes | None], quotes: list[bytes | None]) -> bytes:
    """Make one text of values, the last one first, and let go of each: they may be large."""
    parts = [b"("]
    for quote in quotes:
        if len(parts) > 1:
            parts.append(b",")
        if values[-1] is None:
            parts.append(b"NULL")
            values.pop()
        elif quote is None:
            parts.append(values.pop() or b"")
        else:
            parts += [quote, b"'", escaped(values.pop() or b""), b"'"]
    parts.append(b")")
    return b"".join(parts)


def escaped(value: bytes) -> bytes:
    """Return bytes as they stand between quotes, for a server that is told nothing of their character set."""
    doubled = value.replace(b"\\", b"\\\\")
    del value
    return doubled.replace(b"'", b"\\'")


def _batches(texts: Iterator[bytes], most: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for text in texts:
        if batch and size + len(text) + 1 > most:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text) + 1
        del text  # it may be large
        if size > most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _inserted(target: Session, head: bytes, batch: list[bytes], table: Table, name: str) -> None:
    wanted = len(batch)
    batch[0] = head + batch[0]
    statement = b",".join(batch) if wanted > 1 else batch[0]
    batch.clear()
    with asking(f"{name}: {table.name}"):
        arrived = target.query(cast("str", memoryview(statement)))  # whose pieces are no copies
        warned = warnings_of(target)
    for code, text in warned:
        named = next((each for each in table.stored if b"'" + each.name.encode() + b"'" in text), None)
        if code != _TRUNCATED or named is None or named.type != "enum":
            what = f"a value of {named.name}" if named else "a value"
            raise MigrationError(f"{name}: {table.name}: the target would change {what} [{code}]")
    if arrived != wanted:
        raise MigrationError(f"{name}: {table.name}: {wanted:,} rows were sent and {arrived:,} arrived")
