"""The way to a name server over TCP: connections, questions, updates and transfers."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import attrs

from shiftable_baremetal._axfr import Labels, Malformed, Parsed, Transfer, packed, parsed
from shiftable_baremetal._rfc2136_errors import Lost, Refused
from shiftable_baremetal._rfc2136_update import question
from shiftable_baremetal._tsig import Key, Signer

__all__ = ["Session"]

T = TypeVar("T")

_CONNECT, _READ = 10.0, 60.0  # seconds, for a connection and between two messages of an answer
_ATTEMPTS = 4
_PAUSE = 0.1
_IDLE = 8
"""So many connections are kept for the next request."""

_SOA, _AXFR, _IXFR = 6, 252, 251


@attrs.define
class Session:
    """Connections to one server, for all threads.

    Args:
        clock: tells the time that signatures carry.
        sleep: waits between two attempts.
    """

    _host: str
    _port: int
    _key: Key | None = attrs.field(default=None, repr=False)
    _clock: Callable[[], float] = attrs.field(default=time.time, repr=False)
    _sleep: Callable[[float], None] = attrs.field(default=time.sleep, repr=False)
    _idle: list[socket.socket] = attrs.field(factory=list, init=False, repr=False)
    _process: int = attrs.field(factory=os.getpid, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def ask(self, name: Labels, kind: int) -> Parsed:
        """Ask one question, as often as it takes."""

        def act() -> Parsed:
            return self._exchange(lambda number: question(number, packed(name), kind))

        return self._again(act)

    def send(self, wire: Callable[[int], bytes]) -> int:
        """Send an update once; return what the server says of it.

        Raises:
            Lost: the connection broke; whether it was executed is not known.
        """
        try:
            return self._exchange(wire).rcode
        except Refused as exc:  # without a signature
            return exc.rcode

    def transfer(self, zone: Labels, soa: bytes | None = None) -> Transfer:
        """Fetch a zone, as often as it takes.

        Args:
            soa: rdata of the version that is known; then only what has changed since may come.

        Raises:
            Refused: the server refuses.
            Malformed: what it sends is no such transfer.
        """
        return self._again(lambda: self._transferred(zone, soa))

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # below: one exchange

    def _again(self, act: Callable[[], T]) -> T:
        """Repeat what changes nothing while connections break."""
        for attempt in range(1, _ATTEMPTS):
            try:
                return act()
            except (Lost, ConnectionError):
                self._sleep(random.uniform(0, _PAUSE * 2**attempt))  # noqa: S311  spreads clients
        return act()

    def _exchange(self, make: Callable[[int], bytes]) -> Parsed:
        number, signer = secrets.randbelow(1 << 16), Signer(self._key, self._clock)
        with self._connection() as connection:
            _write(connection, signer.signed(make(number)))
            wire, answer = self._read(connection, number)
            signer.check(wire, answer)
        return answer

    def _transferred(self, zone: Labels, soa: bytes | None) -> Transfer:
        number, signer = secrets.randbelow(1 << 16), Signer(self._key, self._clock)
        name = packed(zone)
        known = b"" if soa is None else name + struct.pack("!HHIH", _SOA, 1, 0, len(soa)) + soa
        serial = None if soa is None else int.from_bytes(soa[-20:-16], "big")
        result = Transfer(zone, serial)
        kind = _AXFR if soa is None else _IXFR
        with self._connection() as connection:
            _write(connection, signer.signed(question(number, name, kind, known)))
            while not result.done:
                wire, answer = self._read(connection, number)
                signer.check(wire, answer, multi=True)
                if answer.rcode:
                    raise Refused(answer.rcode)
                if not answer.answers:
                    raise Malformed("a message of the transfer is empty")
                result.feed(answer.answers)
            signer.finish()
        return result

    def _read(self, connection: socket.socket, number: int) -> tuple[bytes, Parsed]:
        wire = _read(connection)
        answer = parsed(wire)
        if not answer.is_answer or answer.id != number:
            raise Malformed("the answer is to another question")
        return wire, answer

    @contextlib.contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        """Lend a connection; it is kept if all went well, or the server only refused."""
        connection = self._taken() or self._connected()
        try:
            yield connection
        except Refused:
            self._give(connection)
            raise
        except BaseException as exc:
            connection.close()
            if isinstance(exc, OSError) and not isinstance(exc, TimeoutError | Lost):
                raise Lost(f"the connection to {self._host} broke before the answer had come") from exc
            raise
        self._give(connection)

    def _connected(self) -> socket.socket:
        connection = socket.create_connection((self._host, self._port), _CONNECT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_READ)
        return connection

    def _taken(self) -> socket.socket | None:
        """Return a connection that the server has not closed meanwhile."""
        with self._lock:
            if self._process != os.getpid():  # a fork: these are the parent's; to close our copies tells nobody
                while self._idle:
                    self._idle.pop().close()
                self._process = os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if _is_open(connection):
                    return connection
                connection.close()
        return None

    def _give(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()


def _is_open(connection: socket.socket) -> bool:
    """Tell whether nothing has come, not even the end: nobody says anything between two questions."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        connection.settimeout(_READ)
        return True
    except OSError:
        return False
    return False


def _write(connection: socket.socket, wire: bytes) -> None:
    connection.sendall(len(wire).to_bytes(2, "big") + wire)


def _read(connection: socket.socket) -> bytes:
    return _exactly(connection, int.from_bytes(_exactly(connection, 2), "big"))


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts, left = [], count
    while left:
        part = connection.recv(left)
        if not part:
            raise Lost("the server closed the connection before its answer was complete")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
