"""Rows from one server's COPY into the other's, in large pieces, without looking at them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psycopg
from psycopg import pq

from shiftable.errors import MigrationError
from shiftable.migrate._postgresql._side import Session
from shiftable.migrate._postgresql._tables import Chunk, quoted

__all__ = ["copied"]

_PIECE = 256 * 1024
_WHY = b"the other side failed"


class _Failed(MigrationError):
    """One side ended the copy."""


def copied(
    source: Session, target: Session, chunk: Chunk, *, binary: bool, freeze: bool, stopping: threading.Event
) -> tuple[int, int]:
    """Copy the rows of a chunk within the target's open transaction; return how many they are, and their bytes.

    A row is in memory as a whole, as libpq has it; of others there is never more than a piece.

    Args:
        freeze: the table was emptied in this very transaction.
        stopping: ends it with an error, when it is set.
    """
    table = chunk.table
    names = ", ".join(quoted(column.name) for column in table.stored)
    options = "FORMAT binary" if binary else "FORMAT text"
    listed = f" ({names})" if names else ""
    if chunk.alone and names:
        read = f"COPY {table.sql}{listed} TO STDOUT ({options})"
    else:
        read = f"COPY (SELECT {names} FROM ONLY {table.sql} WHERE {chunk.condition}) TO STDOUT ({options})"
    write = f"COPY {quoted(*table.into)}{listed} FROM STDIN ({options}{', FREEZE true' if freeze else ''})"
    with _blocking(target) as into, _blocking(source) as out:
        _started(into, write, pq.ExecStatus.COPY_IN, table.label, "target")
        try:
            _started(out, read, pq.ExecStatus.COPY_OUT, table.label, "source")
            size = _pumped(out, into, stopping)
            _ended(out, table.label, "source")
        except BaseException as exc:
            _abandoned(into, exc, table.label)
            raise
        into.put_copy_end()
        return _ended(into, table.label, "target"), size


def _pumped(out: pq.abc.PGconn, into: pq.abc.PGconn, stopping: threading.Event) -> int:
    buffer, total = bytearray(), 0
    while True:
        size, data = out.get_copy_data(0)
        if size < 0:
            break
        total += size
        if size >= _PIECE:  # a row that is larger than a piece is not copied once more
            if buffer:
                into.put_copy_data(buffer)
                buffer = bytearray()
            for start in range(0, size, _PIECE):
                into.put_copy_data(data[start : start + _PIECE])
            continue
        buffer += data
        if len(buffer) >= _PIECE:
            into.put_copy_data(buffer)
            buffer = bytearray()
            if stopping.is_set():
                raise MigrationError("stopped; run the same again: it goes on where it stopped")
    if buffer:
        into.put_copy_data(buffer)
    return total


def _started(connection: pq.abc.PGconn, command: str, status: pq.ExecStatus, label: str, side: str) -> None:
    found = connection.exec_(command.encode())
    if found.status != status:
        raise _Failed(f"{label}: the {side} refused COPY: {_error(found)}")


def _ended(connection: pq.abc.PGconn, label: str, side: str) -> int:
    """Read how a copy ended, to its end: what is left unread would be told of what comes next."""
    count, why = 0, None
    while (found := connection.get_result()) is not None:
        if found.status == pq.ExecStatus.COMMAND_OK:
            count = found.command_tuples or 0
        else:
            why = why or _error(found)
    if why is not None:
        raise _Failed(f"{label}: the {side} ended COPY: {why}")
    return count


def _abandoned(into: pq.abc.PGconn, exc: BaseException, label: str) -> None:
    """Take back what was sent; if the target had ended it before, say what it had said."""
    with contextlib.suppress(psycopg.Error):
        into.put_copy_end(_WHY)
    told = None
    with contextlib.suppress(psycopg.Error):
        while (found := into.get_result()) is not None:
            told = told or _error(found)
    if isinstance(exc, psycopg.Error) and told and _WHY.decode() not in told:
        raise _Failed(f"{label}: the target ended COPY: {told}") from exc
    if isinstance(exc, psycopg.Error):
        raise _Failed(f"{label}: the connection was lost: {str(exc).strip()}") from exc


def _error(result: pq.abc.PGresult) -> str:
    primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
    code = result.error_field(pq.DiagnosticField.SQLSTATE)
    if primary is None:
        return result.error_message.decode(errors="replace").strip() or pq.ExecStatus(result.status).name
    return f"{primary.decode(errors='replace')} [{(code or b'').decode()}]"


@contextlib.contextmanager
def _blocking(session: Session) -> Iterator[pq.abc.PGconn]:
    """Let libpq itself wait, which costs least."""
    connection = session.pgconn
    connection.nonblocking = 0
    try:
        yield connection
    finally:
        if connection.status == pq.ConnStatus.OK:
            connection.nonblocking = 1
