"""The way to a name server over TCP: connections, signatures (TSIG, RFC 8945), and what its refusals mean."""

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
from typing import Any, TypeVar

import attrs
import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TSIG
import dns.tsig

from shiftable.errors import ConfigError
from shiftable_baremetal._axfr import Labels, Malformed, Parsed, Transfer, packed, parsed
from shiftable_baremetal._rfc2136_errors import Lost, Refused
from shiftable_baremetal._rfc2136_update import question

__all__ = ["Session", "key_of"]

T = TypeVar("T")

_CONNECT, _READ = 10.0, 60.0  # seconds, for a connection and between two messages of an answer
_ATTEMPTS = 4
_PAUSE = 0.1
_IDLE = 8
"""So many connections are kept for the next request."""

_FUDGE = 300  # seconds that two clocks may differ (RFC 8945, 10)
_UNSIGNED = 100  # messages of a transfer that may come between two signatures (RFC 8945, 5.3.1)
_SOA, _AXFR, _IXFR = 6, 252, 251


class _Signer:
    """Signs one request, and checks the messages of its answer."""

    def __init__(self, key: dns.tsig.Key | None, clock: Callable[[], float]) -> None:
        self._key = key
        self._clock = clock
        self._mac = b""
        self._context: Any = None
        self._unsigned = 0

    def signed(self, wire: bytes) -> bytes:
        """Return a message with its signature, if there is a key."""
        if self._key is None:
            return wire
        record_of: Any = dns.rdtypes.ANY.TSIG.TSIG  # dnspython's signatures have no types, nor have the two below
        template = record_of(
            *(dns.rdataclass.ANY, dns.rdatatype.TSIG, self._key.algorithm, 0, _FUDGE, b""),
            *(int.from_bytes(wire[:2], "big"), 0, b""),
        )
        sign: Any = dns.tsig.sign
        made, _ = sign(wire, self._key, template, int(self._clock()))
        self._mac = made.mac
        rdata: bytes = made.to_wire()
        owner = self._key.name.to_wire() or b""
        count = int.from_bytes(wire[10:12], "big") + 1
        record = struct.pack("!HHIH", dns.rdatatype.TSIG, dns.rdataclass.ANY, 0, len(rdata))
        return b"".join((wire[:10], count.to_bytes(2, "big"), wire[12:], owner, record, rdata))

    def check(self, wire: bytes, message: Parsed, *, multi: bool = False) -> None:
        """Check one message.

        Raises:
            dns.tsig.PeerError: the server did not accept ours.
            dns.tsig.BadSignature: its signature is wrong; and the others of this module.
            Malformed: it has none.
        """
        if self._key is None:
            return
        if message.tsig is None:
            self._unsigned += 1
            if self._context is not None and self._unsigned < _UNSIGNED:
                self._context.update(wire)
                return
            if message.rcode:  # a server that does not know us cannot sign; what it refuses is not done
                raise Refused(message.rcode)
            raise Malformed("the answer is not signed")
        self._unsigned = 0
        start, (owner, _, _, rdata) = message.tsig
        try:
            tsig = dns.rdata.from_wire(dns.rdataclass.ANY, dns.rdatatype.TSIG, rdata, 0, len(rdata))
        except dns.exception.DNSException as exc:
            raise Malformed("the signature is no signature") from exc
        validate: Any = dns.tsig.validate
        context = validate(
            *(wire, self._key, dns.name.Name((*owner, b"")), tsig, int(self._clock()), self._mac, start),
            *(self._context, multi),
        )
        if multi:
            self._context = context

    def finish(self) -> None:
        """Make sure that the last message was signed."""
        if self._key is not None and self._unsigned:
            raise Malformed("the last message of the transfer is not signed")


@attrs.define
class Session:
    """Connections to one server, for all threads.

    Args:
        clock: tells the time that signatures carry.
        sleep: waits between two attempts.
    """

    _host: str
    _port: int
    _key: dns.tsig.Key | None = attrs.field(default=None, repr=False)
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
        number, signer = secrets.randbelow(1 << 16), _Signer(self._key, self._clock)
        with self._connection() as connection:
            _write(connection, signer.signed(make(number)))
            wire, answer = self._read(connection, number)
            signer.check(wire, answer)
        return answer

    def _transferred(self, zone: Labels, soa: bytes | None) -> Transfer:
        number, signer = secrets.randbelow(1 << 16), _Signer(self._key, self._clock)
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


def key_of(name: str, secret: str, algorithm: str) -> dns.tsig.Key:
    """Make a key for signatures.

    Raises:
        ConfigError: it is none; the error does not show it.
    """
    with contextlib.suppress(dns.exception.DNSException, ValueError):  # some quote the secret
        return dns.tsig.Key(dns.name.from_text(name), secret, dns.name.from_text(algorithm))
    raise ConfigError("rfc2136.key_secret must be the base64 text that tsig-keygen prints, and key_name a DNS name")
