"""Prepared statements in libpq's pipeline mode: sent without waiting for each answer, with little in memory."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Sequence

import attrs
import psycopg
from psycopg import pq

from shiftable.migrate._capture._server import Connection

__all__ = ["Expected", "Pipe"]

_SYNC_EACH = 200
"""Statements after which the server is asked for its answers; else it keeps them until its buffer is full."""
_WINDOW = 2_000
_WINDOW_BYTES = 8 * 1024 * 1024
_UNSENT = 256 * 1024
_GLANCE_MS = 1_000

_GOOD = {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}


@attrs.define
class Expected:
    """What an answer is for.

    Args:
        size: bytes that wait until it has come.
    """

    size: int

    def judge(self, found: int) -> None:
        """Raise if that is not the number of rows that there should be."""

    def failed(self, error: psycopg.Error) -> Exception:
        """Return what to raise for the server's error."""
        return error


class Pipe:
    """One session's pipeline. After an error the session is good for nothing, and has to be closed."""

    def __init__(self, connection: Connection) -> None:
        self._pgconn = connection.pgconn
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()
        self._waiting: deque[Expected | None] = deque()  # None: a sync
        self._bytes = self._unsent = self._since_sync = 0
        self._poll = select.poll()

    def run(self, statement: bytes, values: Sequence[bytes | None] = (), *, expected: Expected | None = None) -> None:
        """Send a statement that is used once."""
        self._pgconn.send_query_params(statement, values or None)
        self._sent(expected or Expected(0))

    def prepare(self, name: bytes, statement: bytes, types: Sequence[int]) -> None:
        """Send a statement to be prepared."""
        self._pgconn.send_prepare(name, statement, types)
        self._sent(Expected(len(statement)))

    def call(
        self, name: bytes, values: Sequence[bytes | None], formats: Sequence[int] | None, expected: Expected
    ) -> None:
        """Send the values of a prepared statement."""
        self._pgconn.send_query_prepared(name, values, formats)
        self._sent(expected)

    def finish(self) -> None:
        """Wait for all answers."""
        self._sync()
        self._flush()
        while self._waiting:
            self._receive(block=True)

    def _sent(self, expected: Expected) -> None:
        self._waiting.append(expected)
        self._bytes += expected.size
        self._unsent += expected.size
        self._since_sync += 1
        if self._since_sync >= _SYNC_EACH or self._unsent >= _UNSENT:
            self._sync()
            self._flush()
            self._receive(block=False)
            while len(self._waiting) > _WINDOW or self._bytes > _WINDOW_BYTES:
                self._receive(block=True)

    def _sync(self) -> None:
        self._pgconn.pipeline_sync()
        self._waiting.append(None)
        self._since_sync = 0

    def _flush(self) -> None:
        while self._pgconn.flush():
            self._wait(select.POLLIN | select.POLLOUT)
            self._receive(block=False)  # or both would wait for each other with full buffers
        self._unsent = 0

    def _wait(self, events: int) -> None:
        self._poll.register(self._pgconn.socket, events)
        self._poll.poll(_GLANCE_MS)

    def _receive(self, *, block: bool) -> None:
        """Take the answers that are there, or wait until there is one."""
        self._pgconn.consume_input()
        while self._waiting:
            if self._pgconn.is_busy():
                if not block:
                    return
                self._wait(select.POLLIN)
                self._pgconn.consume_input()
                continue
            result = self._pgconn.get_result()
            if result is not None and self._took(result):
                block = False

    def _took(self, result: pq.abc.PGresult) -> bool:
        """Judge an answer; tell whether it was one, and not the end of one before."""
        expected = self._waiting.popleft()
        if result.status == pq.ExecStatus.PIPELINE_SYNC:
            return True
        if expected is None:
            raise psycopg.OperationalError("the server's answers are out of step")
        self._bytes -= expected.size
        if result.status not in _GOOD:
            error = psycopg.errors.error_from_result(result)
            raise expected.failed(error) from error
        found = result.ntuples if result.status == pq.ExecStatus.TUPLES_OK else result.command_tuples
        expected.judge(found or 0)
        return True
