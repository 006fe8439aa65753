"""As much of HTTP/1.1 as the bulk lane needs: keep-alive connections, one request, one answer, its body as a stream.

The standard library's client spends three quarters of its time on parsing headers as e-mail and on checking what it is
given. Here it only connects: addresses, TLS and proxies' tunnels are its work.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import BinaryIO, Protocol, Self, cast
from urllib.parse import urlsplit

import attrs
import botocore.exceptions as native

__all__ = ["Answer", "Body", "Connections", "Transport"]

_LINE = 64 * 1024
_HEADERS = 200
_AT_ONCE = 64 * 1024
_LOST = (OSError, http.client.HTTPException, ValueError)


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
    """

    connect_timeout: float
    read_timeout: float
    context: ssl.SSLContext | None = None
    proxy: str | None = attrs.field(default=None, repr=False)  # may hold a password
    proxy_headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    keep_alive: bool = False
    limit: int = 10


@attrs.define
class Answer:
    """The head of an answer; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
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
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def request(self, method: str, head: bytes, body: bytes, *, fresh: bool = False) -> Answer:
        """Send a request and return its answer, whose body must be read to its end or closed.

        Args:
            fresh: over a new connection.

        Raises:
            HTTPClientError: one of botocore's, by what happened.
        """
        connection = self._new() if fresh else self._taken()
        try:
            connection.send(head, body)
            return connection.answer(method, self)
        except BaseException as exc:
            connection.close()
            if isinstance(exc, TimeoutError):
                raise native.ReadTimeoutError(endpoint_url=self.url, error=exc) from exc
            if isinstance(exc, _LOST):
                raise native.ConnectionClosedError(endpoint_url=self.url) from exc
            raise

    def give(self, connection: _Connection) -> None:
        """Keep a connection for the next request."""
        if self._pid == os.getpid() and len(self._idle) < self._transport.limit:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close what is idle; what is in use is closed by being given back to others."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _taken(self) -> _Connection:
        if self._pid != os.getpid():
            # A fork: these sockets are the parent's. Closing our copies tells its server nothing.
            self._lock = threading.Lock()
            self._pid = os.getpid()
            self.close()
        while self._idle:
            try:
                connection = self._idle.pop()  # the one used last: the others may rest until the server closes them
            except IndexError:
                break
            if not connection.is_dead():
                return connection
            connection.close()
        return self._new()

    def _new(self) -> _Connection:
        how = self._transport
        made: http.client.HTTPConnection
        through = urlsplit(how.proxy) if how.proxy else None
        host, port = (through.hostname or "", through.port) if through else (self._host, self._port)
        if self._secure:
            made = http.client.HTTPSConnection(host, port, timeout=how.connect_timeout, context=how.context)
        else:
            made = http.client.HTTPConnection(host, port, timeout=how.connect_timeout)
        if through:
            made.set_tunnel(self._host, self._port, dict(how.proxy_headers))
        try:
            made.connect()
        except TimeoutError as exc:
            raise native.ConnectTimeoutError(endpoint_url=self.url, error=exc) from exc
        except ssl.SSLError as exc:
            raise native.SSLError(endpoint_url=self.url, error=exc) from exc
        except OSError as exc:
            raise native.EndpointConnectionError(endpoint_url=self.url, error=exc) from exc
        sock: socket.socket = made.sock
        sock.settimeout(how.read_timeout)
        if how.keep_alive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return _Connection(sock)


class _Connection:
    """One socket: a request goes out whole before its answer is read."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = cast("BinaryIO", sock.makefile("rb"))

    def is_dead(self) -> bool:
        """Tell whether the server has closed the idle connection, or sent what nobody asked for."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, head: bytes, body: bytes) -> None:
        try:
            if len(body) <= _AT_ONCE:
                self._sock.sendall(head + body)
            else:
                self._sock.sendall(head)
                self._sock.sendall(body)
        except (BrokenPipeError, ConnectionResetError):
            # Whoever refuses a large body may answer before it has read all of it.
            if len(body) <= _AT_ONCE:
                raise

    def answer(self, method: str, home: Connections) -> Answer:
        status, headers = self._head()
        while 100 <= status < 200:
            status, headers = self._head()
        length: int | None = None
        if method == "HEAD" or status in {204, 304}:
            length = 0
        elif headers.get("transfer-encoding", "").lower() != "chunked" and "content-length" in headers:
            length = int(headers["content-length"])
            if length < 0:
                raise http.client.HTTPException("the length of the body is negative")
        kept = headers.get("connection", "").lower() != "close"
        chunked = length is None and "transfer-encoding" in headers
        body = Body(self, home if kept else None, self._file, length, chunked=chunked)
        return Answer(status, headers, body)

    def _head(self) -> tuple[int, dict[str, str]]:
        readline = self._file.readline
        line = readline(_LINE)
        version, _, rest = line.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not line.endswith(b"\n"):
            raise http.client.BadStatusLine("no answer" if not line else "no status line of HTTP/1.1")
        status = int(rest[:3])
        headers: dict[str, str] = {}
        if version == b"HTTP/1.0":
            headers["connection"] = "close"
        for _ in range(_HEADERS):
            line = readline(_LINE)
            if line in {b"\r\n", b"\n"}:
                return status, headers
            if not line.endswith(b"\n"):
                raise http.client.IncompleteRead(line)
            name, found, value = line.decode("latin-1").partition(":")
            if not found:
                raise http.client.HTTPException("a line of the head is no header")
            name = name.lower()
            value = value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers and name != "connection" else value
        raise http.client.HTTPException(f"more than {_HEADERS} headers")

    def close(self) -> None:
        try:
            self._file.close()
        finally:
            self._sock.close()


class Body:
    """The body of an answer. Read to its end, it gives its connection back; closed before, it drops it."""

    def __init__(
        self, connection: _Connection, home: Connections | None, file: BinaryIO, length: int | None, *, chunked: bool
    ) -> None:
        self._connection: _Connection | None = connection
        self._home = home
        self._file = file
        self._left = length  # None: until the connection ends, or the last chunk
        self._chunked = chunked
        self._chunk = 0  # bytes left of it
        self._read = 0
        self.checksum: Checksum | None = None
        if length == 0:
            self._finish()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self._connection is None

    def read(self, amt: int | None = None) -> bytes:
        """Return the next bytes, so many unless it ends; all that is left without a number.

        Raises:
            IncompleteReadError: it ended before its stated length.
            ReadTimeoutError, ResponseStreamingError: it broke off.
            FlexibleChecksumError: it is not what its checksum promises.
        """
        if self._connection is None:
            return b""
        try:
            data = self._some(amt) if amt is not None else b"".join(iter(lambda: self._some(_LINE * 16), b""))
        except BaseException as exc:
            self.close()
            if isinstance(exc, TimeoutError):
                raise native.ReadTimeoutError(endpoint_url="", error=exc) from exc
            if isinstance(exc, _LOST):
                raise native.ResponseStreamingError(error=exc) from exc
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
        data = self._of_chunks(amt) if self._chunked else self._plain(amt)
        self._read += len(data)
        if self.checksum is not None:
            self.checksum.update(data)
        if self._left == 0 or (self._left is None and not data and amt):
            self._finish()
            if self.checksum is not None:
                self.checksum.verify()
        return data

    def _plain(self, amt: int) -> bytes:
        if self._left is None:
            self._home = None
            return self._file.read(amt)
        data = self._file.read(min(amt, self._left))
        self._left -= len(data)
        if not data and self._left:
            raise native.IncompleteReadError(actual_bytes=self._read, expected_bytes=self._read + self._left)
        return data

    def _of_chunks(self, amt: int) -> bytes:
        if self._chunk == 0:
            self._chunk = int(self._line().partition(b";")[0], 16)
            if self._chunk == 0:
                while self._line():
                    pass  # trailers
                self._left = 0
                return b""
        data = self._file.read(min(amt, self._chunk))
        self._chunk -= len(data)
        if not data:
            raise http.client.IncompleteRead(b"")
        if self._chunk == 0 and self._line():
            raise http.client.HTTPException("a chunk is longer than it says")
        return data

    def _line(self) -> bytes:
        line = self._file.readline(_LINE)
        if not line.endswith(b"\n"):
            raise http.client.IncompleteRead(line)
        return line.rstrip(b"\r\n")

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
