"""A server that says what it is told to, and calls that are made in fibers: for tests of bulk lanes."""

from __future__ import annotations

import functools
import inspect
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import attrs

from shiftable import fibers
from shiftable.parallel import parallel

__all__ = ["InFibers", "Scripted", "Seen", "Server"]


class Server:
    """Answers in turns, whatever is asked; the last answer is that of all that follow."""

    def __init__(self, *answers: bytes, close: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Any] = []
        self.connections = 0
        self.closed = threading.Event()
        self._answers, self._close, self._tls = list(answers), close, tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' * bool(tls)}://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._greet, args=(client,), daemon=True).start()

    def _greet(self, client: socket.socket) -> None:
        with suppress(ssl.SSLError):  # whoever does not trust us says so in the handshake
            self._converse(self._tls.wrap_socket(client, server_side=True) if self._tls else client)

    def _converse(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream, suppress(OSError):
            self._answered(client, stream)
        self.closed.set()

    def _answered(self, client: socket.socket, stream: Any) -> None:
        while line := stream.readline():
            head = line + b"".join(iter(stream.readline, b"\r\n"))
            lines = head.lower().split(b"\r\n")
            length = [int(each.split(b":")[1]) for each in lines if each.startswith(b"content-length:")]
            self.seen.append(self._noted(head, stream.read(sum(length))))
            client.sendall(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])
            if self._close:
                return

    def _noted(self, head: bytes, body: bytes) -> Any:
        """Return what is kept of a request."""
        return head + b"\r\n" + body

    def stop(self) -> None:
        # who waits in accept() would wait on, and take what comes to the next socket of this number
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


@attrs.define
class Seen:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Scripted(Server):
    """A server whose requests are taken apart."""

    def _noted(self, head: bytes, body: bytes) -> Seen:
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, target, _ = first.split(" ")
        fields = (line.partition(":") for line in lines)
        return Seen(method, target, {name.lower(): value.strip() for name, _, value in fields}, body)


class InFibers:
    """Makes each call in a fiber, beside one that sleeps, and reads an iterator to its end there."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return functools.partial(self._called, found) if inspect.ismethod(found) else found

    @staticmethod
    def _called(method: Any, *args: Any, **kwargs: Any) -> Any:
        def run(what: str) -> Any:
            if what == "sleep":
                return fibers.sleep(0.001)
            found = method(*args, **kwargs)
            return iter(list(found)) if isinstance(found, Iterator) else found

        done = dict(parallel(run, ("sleep", "call"), workers=2, fibers=True))
        return done["call"].result()
