"""As much of HTTP/1.1 as bulk lanes need: keep-alive connections, one request, one answer, its body as a stream.

The standard library's client spends three quarters of its time on parsing headers as e-mail and on checking what it is
given. Here it only connects: addresses, TLS and proxies' tunnels are its work. All that waits does so through
``shiftable.fibers``.

What fails is an ``OSError`` or an ``http.client.HTTPException``: the ones below, where they say more.
"""

from __future__ import annotations

import http.client
import os
import re
import select
import socket
import ssl
import struct
import time
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

import attrs

from shiftable import fibers

__all__ = ["Answer", "Body", "ConnectTimeout", "Connections", "Lost", "Short", "Transport", "Unreachable"]

_HEAD = 64 * 1024
_AT_ONCE = 64 * 1024
_ALL = 1024 * 1024
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_LOST = (OSError, http.client.HTTPException, ValueError)


_process = 0
"""Counts forks: to ask for the number of the process is a call of the system."""


def _count_fork() -> None:
    global _process  # noqa: PLW0603  as it says
    _process += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class Unreachable(ConnectionError):
    """There is no connection."""


class ConnectTimeout(Unreachable, TimeoutError):
    """There is none after the time that was given for it."""


class Lost(ConnectionError):
    """The connection broke before the head of the answer had come."""


class Short(http.client.IncompleteRead):
    """The body ended before its stated length; ``actual`` and ``expected`` are numbers of bytes."""

    def __init__(self, actual: int, expected: int) -> None:
        super().__init__(b"", expected - actual)
        self.actual = actual
        self.expected_size = expected

    def __str__(self) -> str:
        return f"{self.actual:,} of {self.expected_size:,} bytes came"


class Checksum(Protocol):
    """Digests a body as it comes; ``verify`` raises if it is not the promised one."""

    def update(self, data: bytes, /) -> object: ...
    def verify(self) -> None: ...


@attrs.frozen(kw_only=True)
class Transport:
    """How connections are made.

    Args:
        context: for https.
        proxy: URL of the proxy that tunnels https.
        limit: so many idle connections are kept.
        trusted: for so many seconds of rest a connection is taken to live; later it is looked at first.
    """

    connect_timeout: float
    read_timeout: float
    context: ssl.SSLContext | None = None
    proxy: str | None = attrs.field(default=None, repr=False)  # may hold a password
    proxy_headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    keep_alive: bool = False
    limit: int = 10
    trusted: float = 0.0


@attrs.define
class Answer:
    """The head of an answer.

    Args:
        headers: their names are in lower case; values of one that comes twice are joined by a comma.
        lines: the headers as they came.
    """

    status: int
    headers: dict[str, str]
    lines: list[str]
    body: Body


class Connections:
    """The connections to one server. Each is used by one thread at a time, and never by another process."""

    def __init__(self, url: str, transport: Transport) -> None:
        parts = urlsplit(url)
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._secure = parts.scheme == "https"
        self._transport = transport
        self._idle: list[_Connection] = []
        self._process = _process
        self._open: set[_Connection] = set()  # so that none is garbage before its body is, which closes it
        weakref.finalize(self, _close, self._idle)

    def request(self, method: str, head: bytes, body: bytes, *, fresh: bool = False) -> Answer:
        """Send a request and return its answer, whose body must be read to its end or closed.

        Args:
            fresh: over a new connection.

        Raises:
            Unreachable: there was no connection, so nothing was sent. ``ssl.SSLError``: nor could it be trusted.
            TimeoutError: no answer came in time.
            Lost: the connection broke; whether the request was executed is not known.
        """
        connection = self._new() if fresh else self._taken()
        try:
            connection.send(head, body)
            return connection.answer(method, self)
        except BaseException as exc:
            connection.close()
            if isinstance(exc, _LOST) and not isinstance(exc, TimeoutError):
                raise Lost(f"the connection to {self.url} broke: {exc}") from exc
            raise

    def give(self, connection: _Connection) -> None:
        """Keep a connection for the next request."""
        if self._process == _process and len(self._idle) < self._transport.limit:
            connection.rest()
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close what is idle; what is in use is closed by being given back to others."""
        _close(self._idle)

    def _taken(self) -> _Connection:
        if self._process != _process:
            # A fork: these sockets are the parent's. Closing our copies tells its server nothing.
            self._process = _process
            self.close()
        while self._idle:
            try:
                connection = self._idle.pop()  # the one used last: the others may rest until the server closes them
            except IndexError:
                break
            if not connection.is_dead(self._transport.trusted):
                return connection
            connection.close()
        return self._new()

    def _new(self) -> _Connection:
        how = self._transport
        made: http.client.HTTPConnection
        through = urlsplit(how.proxy) if how.proxy else None
        host, port = (through.hostname or "", through.port or 80) if through else (self._host, self._port)
        if self._secure:
            made = http.client.HTTPSConnection(host, port, timeout=how.connect_timeout, context=how.context)
        else:
            made = http.client.HTTPConnection(host, port, timeout=how.connect_timeout)
        if through:
            made.set_tunnel(self._host, self._port, dict(how.proxy_headers))
        try:
            fibers.in_thread(made.connect)
        except BaseException as exc:
            made.close()
            if isinstance(exc, TimeoutError):
                raise ConnectTimeout(f"{self.url} does not answer") from exc
            if isinstance(exc, _LOST) and not isinstance(exc, ssl.SSLError):
                raise Unreachable(f"{self.url} cannot be reached: {exc}") from exc
            raise
        sock: socket.socket = made.sock
        if how.keep_alive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection = _Connection(sock, how.read_timeout, self._open)
        self._open.add(connection)
        return connection


def _close(idle: list[_Connection]) -> None:
    while idle:
        try:
            connection = idle.pop()
        except IndexError:  # another thread has it
            return
        connection.close()


class _Connection:
    """One socket: a request goes out whole before its answer is read.

    In a thread, the system counts the time limits, and Python's do not: those ask before each call whether it may be
    made, which is a second call, and a second fight for the interpreter's lock. In a fiber, and for TLS, no call waits.
    """

    def __init__(self, sock: socket.socket, timeout: float, siblings: set[_Connection]) -> None:
        self._sock = sock
        self._siblings = siblings
        self._secure = isinstance(sock, ssl.SSLSocket)
        self._timeout = timeout
        self._rest = b""
        self._asked = False  # sent without a wait: there is no answer yet
        self._used = time.monotonic()
        if self._secure:
            sock.settimeout(0)  # OpenSSL takes the system's for a reason to try again, for ever
            return
        limit = struct.pack("@ll", int(timeout), int(timeout % 1 * 1e6))
        sock.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, limit)

    def is_dead(self, trusted: float) -> bool:
        """Tell whether the server has closed the connection while it rested, or sent what nobody asked for."""
        if self._rest:
            return True
        if time.monotonic() - self._used < trusted:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, head: bytes, body: bytes) -> None:
        self._asked = True
        try:
            if len(body) <= _AT_ONCE:
                self._send(head + body)
            else:
                self._send(head)
                self._send(body)
        except (BrokenPipeError, ConnectionResetError):
            # Whoever refuses a large body may answer before it has read all of it.
            if len(body) <= _AT_ONCE:
                raise

    def _send(self, data: bytes) -> None:
        if not self._secure and fibers.active() is None:
            with _limited():
                self._sock.sendall(data)
            return
        left = memoryview(data)
        while left:
            try:
                sent = self._sock.send(left) if self._secure else self._sock.send(left, socket.MSG_DONTWAIT)
                left = left[sent:]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(writing=True)
            except ssl.SSLWantReadError:
                self._wait()

    def answer(self, method: str, home: Connections) -> Answer:
        status, headers, lines = self._head()
        while 100 <= status < 200:
            status, headers, lines = self._head()
        coding = headers.get("transfer-encoding", "").lower()
        length: int | None = None
        if method == "HEAD" or status in {204, 304}:
            length = 0
        elif not coding and "content-length" in headers:
            length = int(headers["content-length"])
        if coding not in {"", "chunked"} or (length is not None and length < 0):
            raise http.client.HTTPException("a body of unknown length")
        kept = "close" not in map(str.strip, headers.get("connection", "").lower().split(","))
        return Answer(status, headers, lines, Body(self, home if kept else None, length, chunked=coding == "chunked"))

    def _head(self) -> tuple[int, dict[str, str], list[str]]:
        """Read the status and the headers."""
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            if len(self._rest) > _HEAD or not self._fill():
                raise http.client.BadStatusLine("the answer has no head")
        text, self._rest = self._rest[:end].decode("latin-1"), self._rest[end + 4 :]
        first, *lines = text.split("\r\n")
        if not first.startswith("HTTP/1."):
            raise http.client.BadStatusLine("no status line of HTTP/1.1")
        headers = dict[str, str]()
        for line in lines:
            name, found, value = line.partition(":")
            if not found:
                raise http.client.HTTPException("a line of the head is no header")
            name = name.lower()
            value = value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if not first.startswith("HTTP/1.1"):
            headers.setdefault("connection", "close")
        return int(first[9:12]), headers, lines

    def line(self) -> bytes:
        """Read a line."""
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) > _HEAD or not self._fill():
                raise http.client.IncompleteRead(b"")
        line, self._rest = self._rest[:end].rstrip(b"\r"), self._rest[end + 1 :]
        return line

    def read(self, amt: int) -> bytes:
        """Read so many bytes; fewer only if no more come."""
        data, self._rest = self._rest[:amt], self._rest[amt:]
        missing = amt - len(data)
        if not missing:
            return data
        pieces = [data] if data else []
        while missing:
            piece = self._some(missing, whole=True)
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _fill(self) -> bool:
        data = self._some(_AT_ONCE)
        self._rest += data
        return bool(data)

    def _some(self, amt: int, *, whole: bool = False) -> bytes:
        """Receive so many bytes at most, none at the end; all of them in one call, where that can be."""
        if not self._secure and fibers.active() is None:
            self._asked = False
            with _limited():
                return self._sock.recv(amt, socket.MSG_WAITALL if whole else 0)
        if self._asked:
            self._wait()
        while True:
            try:
                return self._sock.recv(amt) if self._secure else self._sock.recv(amt, socket.MSG_DONTWAIT)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait()
            except ssl.SSLWantWriteError:
                self._wait(writing=True)

    def _wait(self, *, writing: bool = False) -> None:
        self._asked = False
        fibers.wait(self._sock, timeout=self._timeout, writing=writing)

    def rest(self) -> None:
        """Note that nobody uses it."""
        self._used = time.monotonic()

    def close(self) -> None:
        self._sock.close()
        self._siblings.discard(self)


class _limited:  # noqa: N801  reads as a verb
    """Call the system's word for a time limit by Python's name."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(exc, BlockingIOError):
            raise TimeoutError("nothing was sent or came for too long") from exc


class Body:
    """The body of an answer. Read to its end, it gives its connection back; closed before, it drops it."""

    def __init__(self, connection: _Connection, home: Connections | None, length: int | None, *, chunked: bool) -> None:
        self._connection: _Connection | None = connection
        self._home = home
        self._left = length  # None: until the connection ends, or the last chunk
        self._chunked = chunked
        self._chunk = 0  # bytes left of it
        self._read = 0
        self.checksum: Checksum | None = None
        if length == 0:
            self._finish()

    @property
    def closed(self) -> bool:
        """Whether nothing is left; as files say it."""
        return self._connection is None

    def read(self, amt: int | None = None) -> bytes:
        """Return the next bytes, so many unless it ends; all that is left without a number.

        Raises:
            Short: it ended before its stated length.
            TimeoutError: nothing came in time.
            OSError, HTTPException: it broke off.
            Exception: what ``checksum`` raises.
        """
        if self._connection is None:
            return b""
        try:
            data = self._some(amt) if amt is not None else b"".join(iter(lambda: self._some(_ALL), b""))
        except BaseException:
            self.close()
            raise
        return data

    def close(self) -> None:
        """Drop what is left."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _some(self, amt: int) -> bytes:
        if self._connection is None:
            return b""
        take = self._of_chunks if self._chunked else self._plain
        data = take(self._connection, amt)
        self._read += len(data)
        if self.checksum is not None:
            self.checksum.update(data)
        if self._left == 0 or (self._left is None and not data and amt):
            self._finish()
            if self.checksum is not None:
                self.checksum.verify()
        return data

    def _plain(self, connection: _Connection, amt: int) -> bytes:
        if self._left is None:
            self._home = None
            return connection.read(amt)
        data = connection.read(min(amt, self._left))
        self._left -= len(data)
        if not data and self._left:
            raise Short(self._read, self._read + self._left)
        return data

    def _of_chunks(self, connection: _Connection, amt: int) -> bytes:
        if self._chunk == 0:
            size = connection.line().partition(b";")[0].strip()
            if not _SIZE.fullmatch(size):
                raise http.client.HTTPException("a chunk has no size")
            self._chunk = int(size, 16)
            if self._chunk == 0:
                while connection.line():
                    pass  # trailers
                self._left = 0
                return b""
        data = connection.read(min(amt, self._chunk))
        self._chunk -= len(data)
        if not data:
            raise http.client.IncompleteRead(b"")
        if self._chunk == 0 and connection.line():
            raise http.client.HTTPException("a chunk is longer than it says")
        return data

    def _finish(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._home is not None:
            self._home.give(connection)
        elif connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
