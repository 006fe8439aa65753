"""The socket end of a double: an HTTP/1.1 server on loopback that can also misbehave."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from io import BytesIO
from typing import Any, Literal, cast
from wsgiref.types import WSGIEnvironment

import attrs
from werkzeug.datastructures import Headers
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

__all__ = ["Answer", "Answering", "Loopback", "Response"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time at all
_BODILESS = {204, 304}


@attrs.frozen
class Response:
    """What a double answers: the status line without its protocol, headers, and the whole body."""

    status: str
    headers: Headers = attrs.field(factory=Headers, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)

    @property
    def code(self) -> int:
        """The status as a number."""
        return int(self.status[:3])


@attrs.frozen
class Answer:
    """A response and how it reaches the client: whole, only half of it, or not at all."""

    response: Response | None
    delivery: Literal["whole", "half", "reset"] = "whole"


Answering = Callable[[WSGIEnvironment, bytes], Answer]


class _Handler(WSGIRequestHandler):
    """Read a request to its end, have it answered, and deliver the answer as told.

    A client that expects ``100 Continue`` got it from ``http.server`` already: a second one would end its answer.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Loopback

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        body = self._body(environ)  # also before a fault: a client that still sends would not see the answer
        environ["shiftable.headers"] = Headers(list(self.headers.items()))  # WSGI folds and drops some
        environ["wsgi.input"] = BytesIO(body)
        environ["wsgi.input_terminated"] = True
        environ["CONTENT_LENGTH"] = str(len(body))
        self._deliver(self.server.answering(environ, body))

    def _body(self, environ: WSGIEnvironment) -> bytes:
        stream: Any = environ["wsgi.input"]
        if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            return b"".join(iter(lambda: stream.read(1 << 16), b""))
        return cast("bytes", stream.read(int(environ.get("CONTENT_LENGTH") or 0)))

    def _deliver(self, answer: Answer) -> None:
        response = answer.response
        if response is None or answer.delivery == "reset":
            self._reset()
            return
        silent = self.command == "HEAD" or response.code in _BODILESS
        body = b"" if silent else response.body
        if answer.delivery == "half":
            if not body:
                self._reset()
                return
            self.close_connection = True
        sent = body if answer.delivery == "whole" else body[: len(body) // 2]
        self.wfile.write(self._head(response, silent=silent) + sent)

    def _head(self, response: Response, *, silent: bool) -> bytes:
        headers = Headers(response.headers)
        if not silent:
            headers["Content-Length"] = str(len(response.body))
        headers.setdefault("Date", formatdate(usegmt=True))
        headers.setdefault("Connection", "close" if self.close_connection else "keep-alive")
        lines = [f"HTTP/1.1 {response.status}", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _reset(self) -> None:
        """Cut the connection so that the client gets a TCP reset; it closes as the handler ends, not earlier."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.server.cut(self.connection)
        self.close_connection = True

    def log(self, type: str, message: str, *args: object) -> None:
        """Write nothing: the double keeps its own log of calls."""


class Loopback(ThreadedWSGIServer):
    """A server on 127.0.0.1 whose ``close`` leaves neither a thread nor a socket.

    Args:
        answering: called in the connection's thread with each request.
        handler: a handler whose ``make_environ`` is used, for applications that bring their own.
    """

    def __init__(self, answering: Answering, handler: type[WSGIRequestHandler] = WSGIRequestHandler) -> None:
        self.answering = answering
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._cut: set[socket.socket] = set()
        made = type("Handler", (_Handler,) if handler is WSGIRequestHandler else (_Handler, handler), {})
        super().__init__("127.0.0.1", 0, _never, handler=made)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), name="double", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as in socketserver
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="double connection", daemon=True
        )
        with self._lock:
            self._connections[request] = thread
        thread.start()

    def cut(self, connection: socket.socket) -> None:
        """Close this connection without the farewell that would turn the reset into an orderly end."""
        with self._lock:
            self._cut.add(connection)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401  as in socketserver
        with self._lock:
            self._connections.pop(request, None)
            cut = request in self._cut
            self._cut.discard(request)
        if cut:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def close(self, timeout: float = 10.0) -> None:
        """Stop; end idle connections, wait for those that are being answered."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        deadline = time.monotonic() + timeout
        for thread in connections.values():
            thread.join(max(0.0, deadline - time.monotonic()))


def _never(_environ: WSGIEnvironment, _start_response: object) -> list[bytes]:
    raise AssertionError("the handler answers through Loopback.answering")
