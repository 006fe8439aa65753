"""Asks name servers directly: thousands of questions a second through one socket, by TCP what UDP cuts off."""

from __future__ import annotations

import contextlib
import heapq
import ipaddress
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import attrs

from shiftable.dns.driver import labels
from shiftable.errors import ConfigError

__all__ = ["NXDOMAIN", "Answer", "NameServer", "Question", "Record", "Unreachable", "ask", "record_type", "wire_name"]

NXDOMAIN = 3

_RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 9: "NOTAUTH"}
_PATIENCE = (0.4, 0.8, 1.6, 3.2)
"""Seconds until a question is sent again; after the last one it is given up."""
_FIRST, _WINDOW, _LEAST = 32, 128, 4
_REFUSALS = 3
_SOON = 0.1
_TCP_SECONDS = 10.0
_TCP_TRIES = 3
_PAYLOAD = 1232  # bytes of a UDP answer that no network cuts into pieces (DNS Flag Day 2020)
_OPT = b"\0" + struct.pack("!HHIH", 41, _PAYLOAD, 0, 0)
_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_LARGEST = 65_535
_ASKED = b"\xc0\x0c"  # a pointer to the name of the question, as which most owners are written

# Types in whose values servers may compress names (RFC 1035, 3.3; RFC 3597, 4), and how their values begin.
_COMPRESSED: dict[int, str] = {
    **dict.fromkeys((2, 3, 4, 5, 7, 8, 9, 12, 39), "n"),  # NS MD MF CNAME MB MG MR PTR DNAME
    **dict.fromkeys((14, 17), "nn"),  # MINFO RP
    **dict.fromkeys((15, 18, 21, 36), "2n"),  # MX AFSDB RT KX
    6: "nn",  # SOA
    26: "2nn",  # PX
    33: "6n",  # SRV
    35: "4sssn",  # NAPTR
}


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


@attrs.frozen
class Question:
    """A name in wire form, lower case, and the number of a type."""

    name: bytes
    type: int


@attrs.frozen
class Record:
    """One record of an answer: its owner in lower case, its value uncompressed."""

    name: bytes
    type: int
    ttl: int
    rdata: bytes


@attrs.frozen
class Answer:
    """What a server said."""

    rcode: int
    authoritative: bool
    truncated: bool
    answer: tuple[Record, ...]
    authority: tuple[Record, ...]
    additional: tuple[Record, ...]
    by_tcp: bool = False

    @property
    def status(self) -> str:
        """``NOERROR``, ``REFUSED``."""
        return _RCODES.get(self.rcode, f"RCODE {self.rcode}")


def wire_name(name: str) -> bytes:
    """Return a canonical name in wire form."""
    return b"".join(bytes((len(label),)) + label for label in labels(name)).lower() + b"\0"


@cache
def record_type(type: str) -> int:
    """Return the number of a type, known by name or as ``TYPE65400``."""
    if type.startswith("TYPE") and type[4:].isdecimal():
        return int(type[4:])
    import dns.rdatatype

    return int(dns.rdatatype.from_text(type))


def ask(
    server: NameServer,
    questions: Iterable[Question],
    *,
    recursive: bool = False,
    patience: tuple[float, ...] = _PATIENCE,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[Question, Answer | None]]:
    """Ask a server many questions and yield the answers as they come; ``None`` to what it never answers.

    Args:
        recursive: ask it to find out what it does not know.
        patience: seconds until a question is sent again.

    Raises:
        Unreachable: it answers nothing at all.
    """
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
        self._out: dict[int, _Asked] = {}
        self._timers: list[tuple[float, int]] = []
        self._window = float(_FIRST)
        self._answered = False
        self._refused = 0
        self._fault = ""

    def run(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer | None]]:
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
                yield from self._received()
                yield from self._overdue()

    def _send(self, question: Question, tries: int) -> None:
        """Send a question under a number that nobody can guess and no other question has."""
        number = secrets.randbelow(65_536)
        while number in self._out:
            number = secrets.randbelow(65_536)
        self._await(number, question, tries, self._patience[tries])
        try:
            self._sock.send(_message(number, self._flags, question))
        except BlockingIOError:
            pass  # as if it were lost on the way
        except OSError as exc:
            self._refuse(exc)

    def _await(self, number: int, question: Question, tries: int, seconds: float) -> None:
        until = self._clock() + seconds
        self._out[number] = _Asked(question, tries, until)
        heapq.heappush(self._timers, (until, number))

    def _received(self) -> Iterator[tuple[Question, Answer | None]]:
        """Yield what has come; wait for something if nothing has."""
        left = self._timers[0][0] - self._clock() if self._timers else 0.0
        select.select([self._sock], [], [], max(0.0, left))
        while True:
            try:
                data = self._sock.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError as exc:
                self._refuse(exc)
                return
            number = int.from_bytes(data[:2], "big")
            asked = self._out.get(number)
            if asked is not None and _is_reply(data, asked.question):
                del self._out[number]
                self._answered = True
                self._window = min(self._window + 1, _WINDOW)
                yield asked.question, self._read(asked.question, data)

    def _read(self, question: Question, data: bytes) -> Answer | None:
        try:
            answer = _parsed(data)
        except (IndexError, ValueError, struct.error):
            return None
        if not answer.truncated:
            return answer
        whole = self._tcp.ask(_message(secrets.randbelow(65_536), self._flags, question), question)
        return answer if whole is None else attrs.evolve(whole, by_tcp=True)

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

    def _overdue(self) -> Iterator[tuple[Question, Answer | None]]:
        """Send again what was not answered in time, or give it up."""
        late, now = [], self._clock()
        while self._timers and self._timers[0][0] <= now:
            _, number = heapq.heappop(self._timers)
            if number in self._out and self._out[number].until <= now:
                late.append(self._out.pop(number))
        if late:
            self._window = max(self._window / 2, _LEAST)
        for asked in late:
            if asked.tries + 1 < len(self._patience):
                self._send(asked.question, asked.tries + 1)
            elif not self._answered:
                raise Unreachable(f"{self._server} does not answer" + (f" ({self._fault})" if self._fault else ""))
            else:
                yield asked.question, None


class _Tcp:
    """One connection, opened when it is needed, and opened again when the server has closed it."""

    def __init__(self, address: tuple[socket.AddressFamily, str], port: int) -> None:
        self._family, self._host = address
        self._port = port
        self._sock: socket.socket | None = None

    def ask(self, message: bytes, question: Question) -> Answer | None:
        """Ask one question; ``None`` if there is no answer by TCP."""
        for _ in range(_TCP_TRIES):
            try:
                data = self._exchanged(message)
                if data[:2] == message[:2] and _is_reply(data, question):
                    return _parsed(data)
            except (OSError, EOFError, IndexError, ValueError, struct.error):
                pass
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


def _message(number: int, flags: int, question: Question) -> bytes:
    head = _HEADER.pack(number, flags, 1, 0, 0, 1)
    return head + question.name + question.type.to_bytes(2, "big") + b"\0\1" + _OPT


def _is_reply(data: bytes, question: Question) -> bool:
    """Tell whether it is a reply to just this question: anybody may send anything."""
    end = 12 + len(question.name)
    if len(data) < 12 or not data[2] & 0x80:
        return False
    if data[4:6] == b"\0\0":  # an error may come without the question
        return bool(data[3] & 0x0F)
    same_name = data[12:end].lower() == question.name  # a length byte is below every letter
    return same_name and data[end : end + 4] == question.type.to_bytes(2, "big") + b"\0\1"


def _parsed(data: bytes) -> Answer:
    """Read a message.

    Raises:
        IndexError, ValueError, struct.error: it is malformed.
    """
    _, flags, questions, *counts = _HEADER.unpack_from(data)
    at, asked = 12, _name(data, 12) if questions else b""
    for _ in range(questions):
        at = _skipped(data, at) + 4
    sections: list[tuple[Record, ...]] = []
    for count in counts:
        found = []
        for _ in range(count):
            if asked and data[at : at + 2] == _ASKED:
                name = asked
                at += 2
            else:
                name = _name(data, at)
                at = _skipped(data, at)
            kind, class_, ttl, size = _RECORD.unpack_from(data, at)
            at += 10
            if at + size > len(data):
                raise ValueError("a value ends behind the message")
            if class_ == 1:
                found.append(Record(name, kind, ttl, _value(data, at, size, kind)))
            at += size
        sections.append(tuple(found))
    answer, authority, additional = sections
    return Answer(flags & 15, bool(flags & 0x0400), bool(flags & 0x0200), answer, authority, additional)


def _skipped(data: bytes, at: int) -> int:
    """Return where a name ends that begins here."""
    while (length := data[at]) and length < 64:
        at += 1 + length
    return at + (2 if length else 1)


def _name(data: bytes, at: int) -> bytes:
    """Return a name uncompressed, in lower case."""
    return _spelt(data, at).lower()


def _spelt(data: bytes, at: int) -> bytes:
    """Return a name uncompressed; a pointer leads only backwards, so that it ends."""
    parts, least = bytearray(), at
    while length := data[at]:
        if length >= 192:
            at = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
            if at >= least:
                raise ValueError("a name points forwards")
            least = at
        elif length >= 64:
            raise ValueError("a label of a kind that there is not")
        else:
            parts += data[at : at + 1 + length]
            at += 1 + length
            if len(parts) > 254:
                raise ValueError("a name is too long")
    return bytes(parts) + b"\0"


def _value(data: bytes, at: int, size: int, kind: int) -> bytes:
    """Return a value with the names in it uncompressed."""
    layout = _COMPRESSED.get(kind)
    if layout is None:
        return data[at : at + size]
    end, found = at + size, bytearray()
    for part in layout:
        if part == "n":
            found += _spelt(data, at)
            at = _skipped(data, at)
        else:
            step = 1 + data[at] if part == "s" else int(part)
            found += data[at : at + step]
            at += step
    if at > end:
        raise ValueError("a value ends too late")
    return bytes(found) + data[at:end]
