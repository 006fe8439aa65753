"""Asks name servers directly: thousands of questions a second through one socket, by TCP what UDP cuts off."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator

import attrs

from shiftable.errors import ConfigError
from shiftable.migrate._dns_message import Answer, Question, Reply, is_reply, message

__all__ = ["NameServer", "Unreachable", "ask", "replies"]

_PATIENCE = (0.4, 0.8, 1.6, 3.2)
"""Seconds until a question is sent again; after the last one it is given up."""
_FIRST, _WINDOW, _LEAST = 32, 128, 4
_REFUSALS = 3
_SOON = 0.1
_TCP_SECONDS = 10.0
_TCP_TRIES = 3
_LARGEST = 65_535


class Unreachable(OSError):
    """A server did not answer anything."""


@attrs.frozen
class NameServer:
    """A name server, by address or name, and its port: ``192.0.2.1@5353``."""

    host: str
    port: int = 53

    @classmethod
    def parse(cls, text: str) -> NameServer:
        """Read ``192.0.2.1``, ``ns1.example.net@5353``, ``2001:db8::1@53``.

        Raises:
            ConfigError: it is none.
        """
        host, _, port = text.partition("@")
        if not host or (port and not (port.isdecimal() and 0 < int(port) < 65536)) or text.endswith("@"):
            raise ConfigError(f"{text!r} is no name server; write 192.0.2.1, ns1.example.net or 127.0.0.1@5353")
        return cls(host.removesuffix("."), int(port or 53))

    def address(self) -> tuple[socket.AddressFamily, str]:
        """Return its address, of version 4 if it has one.

        Raises:
            Unreachable: its name has none.
        """
        with contextlib.suppress(ValueError):
            literal = ipaddress.ip_address(self.host)
            return (socket.AF_INET if literal.version == 4 else socket.AF_INET6), self.host
        if self.host.rpartition(".")[2].lower() in {"invalid", "test", "example"}:  # RFC 2606: nobody has such a name
            raise Unreachable(f"there is no {self.host}")
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
        except OSError as exc:
            raise Unreachable(f"{self.host}: {exc.strerror or exc}") from exc
        family, *_, place = min(found, key=lambda each: each[0] != socket.AF_INET)
        return family, str(place[0])

    def __str__(self) -> str:
        return f"{self.host}@{self.port}"


def ask(
    server: NameServer,
    questions: Iterable[Question],
    *,
    recursive: bool = False,
    patience: tuple[float, ...] = _PATIENCE,
) -> Iterator[tuple[Question, Answer | None]]:
    """Ask a server many questions and yield the answers as they come; ``None`` to what it never answers as it should.

    Args:
        recursive: ask it to find out what it does not know.
        patience: seconds until a question is sent again.

    Raises:
        Unreachable: it answers nothing at all.
    """
    for question, reply in replies(server, questions, recursive=recursive, patience=patience):
        yield question, None if reply is None else reply.read()


def replies(
    server: NameServer,
    questions: Iterable[Question],
    *,
    recursive: bool = False,
    patience: tuple[float, ...] = _PATIENCE,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[Question, Reply | None]]:
    """Do as ``ask`` does, and leave the reading to the caller."""
    family, host = server.address()
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((host, server.port))
        except OSError as exc:
            raise Unreachable(f"{server}: {exc.strerror or exc}") from exc
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # as much as the system allows
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        asker = _Asker(sock, server, (family, host), recursive=recursive, patience=patience, clock=clock)
        yield from asker.run(questions)


@attrs.frozen
class _Asked:
    """A question that is out, how often it was sent, and when it is sent again."""

    question: Question
    tries: int
    until: float


class _Asker:
    """One conversation: a window of questions that are out, each under a number."""

    def __init__(
        self,
        sock: socket.socket,
        server: NameServer,
        address: tuple[socket.AddressFamily, str],
        *,
        recursive: bool,
        patience: tuple[float, ...],
        clock: Callable[[], float],
    ) -> None:
        self._sock = sock
        self._server = server
        self._tcp = _Tcp(address, server.port)
        self._flags = 0x0100 if recursive else 0
        self._patience = patience
        self._clock = clock
        self._numbers = _numbers()
        self._out: dict[int, _Asked] = {}
        self._due = math.inf
        self._window = float(_FIRST)
        self._answered = False
        self._refused = 0
        self._fault = ""

    def run(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply | None]]:
        """Ask them, and yield what comes."""
        waiting = iter(questions)
        more = True
        with contextlib.closing(self._tcp):
            while more or self._out:
                while more and len(self._out) < self._window:
                    question = next(waiting, None)
                    more = question is not None
                    if question is not None:
                        self._send(question, 0)
                for reply in self._received():
                    yield reply.question, self._whole(reply) if reply.truncated else reply
                if self._clock() >= self._due:
                    yield from self._overdue()

    def _send(self, question: Question, tries: int) -> None:
        """Send a question under a number that no other question has."""
        number = next(number for number in self._numbers if number not in self._out)
        self._await(number, question, tries, self._patience[tries])
        try:
            self._sock.send(message(number, self._flags, question))
        except BlockingIOError:
            pass  # as if it were lost on the way
        except OSError as exc:
            self._refuse(exc)

    def _await(self, number: int, question: Question, tries: int, seconds: float) -> None:
        until = self._clock() + seconds
        self._out[number] = _Asked(question, tries, until)
        self._due = min(self._due, until)

    def _received(self) -> list[Reply]:
        """Return what has come; wait for something if nothing has."""
        found = list[Reply]()
        select.select([self._sock], [], [], max(0.0, self._due - self._clock()) if self._out else 0.0)
        while self._out:
            try:
                data = self._sock.recv(_LARGEST)
            except BlockingIOError:
                break
            except OSError as exc:
                self._refuse(exc)
                break
            number = int.from_bytes(data[:2], "big")
            asked = self._out.get(number)
            if asked is not None and is_reply(data, asked.question):
                del self._out[number]
                self._answered = True
                found.append(Reply(asked.question, data))
        self._window = min(self._window + len(found), _WINDOW)
        return found

    def _whole(self, reply: Reply) -> Reply:
        """Ask by TCP for what was cut off; return the rest as it is if there is no more."""
        question = reply.question
        data = self._tcp.ask(message(next(self._numbers), self._flags, question), question)
        return reply if data is None else Reply(question, data, by_tcp=True)

    def _refuse(self, exc: OSError) -> None:
        """Take it that nobody listens there: do not wait long for somebody who is not there."""
        self._fault = exc.strerror or str(exc)
        if self._answered:
            return
        self._refused += 1
        if self._refused > _REFUSALS:
            raise Unreachable(f"{self._server}: {self._fault}") from exc
        for number, asked in list(self._out.items()):
            self._await(number, asked.question, asked.tries, _SOON)

    def _overdue(self) -> Iterator[tuple[Question, Reply | None]]:
        """Send again what was not answered in time, or give it up."""
        now = self._clock()
        late = [number for number, asked in self._out.items() if asked.until <= now]
        given = [self._out.pop(number) for number in late]
        self._due = min((asked.until for asked in self._out.values()), default=math.inf)
        if given:
            self._window = max(self._window / 2, _LEAST)
        for asked in given:
            if asked.tries + 1 < len(self._patience):
                self._send(asked.question, asked.tries + 1)
            elif not self._answered:
                raise Unreachable(f"{self._server} does not answer" + (f" ({self._fault})" if self._fault else ""))
            else:
                yield asked.question, None


def _numbers() -> Iterator[int]:
    """Yield numbers that nobody can guess, without end."""
    while True:
        yield from memoryview(os.urandom(512)).cast("H")


class _Tcp:
    """One connection, opened when it is needed, and opened again when the server has closed it."""

    def __init__(self, address: tuple[socket.AddressFamily, str], port: int) -> None:
        self._family, self._host = address
        self._port = port
        self._sock: socket.socket | None = None

    def ask(self, message: bytes, question: Question) -> bytes | None:
        """Ask one question; ``None`` if there is no answer by TCP."""
        for _ in range(_TCP_TRIES):
            with contextlib.suppress(OSError, EOFError):
                data = self._exchanged(message)
                if data[:2] == message[:2] and is_reply(data, question) and Reply(question, data).read():
                    return data
            self.close()
        return None

    def _exchanged(self, message: bytes) -> bytes:
        if self._sock is None:
            self._sock = socket.socket(self._family, socket.SOCK_STREAM)
            self._sock.settimeout(_TCP_SECONDS)
            self._sock.connect((self._host, self._port))
        self._sock.sendall(len(message).to_bytes(2, "big") + message)
        return self._exactly(int.from_bytes(self._exactly(2), "big"))

    def _exactly(self, size: int) -> bytes:
        assert self._sock is not None  # noqa: S101  the caller has opened it
        data = bytearray()
        while len(data) < size:
            piece = self._sock.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
