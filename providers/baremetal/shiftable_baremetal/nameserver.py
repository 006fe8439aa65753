"""A small authoritative name server for development and tests. ``Nameserver`` is the whole of it.

>>> from shiftable.dns import Dns, ZoneSpec
>>> from shiftable.memory.dns import MemoryDnsDriver
>>> import dns.query, dns.message
>>> driver = MemoryDnsDriver()
>>> _ = Dns(driver).create(ZoneSpec(name="shop.example")).set("www", "A", "192.0.2.1")
>>> with Nameserver(driver) as server:
...     question = dns.message.make_query("www.shop.example", "A")
...     answer = dns.query.udp(question, server.host, port=server.port, timeout=5)
>>> print(answer.answer[0])
www.shop.example. 300 IN A 192.0.2.1
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from shiftable.dns.driver import DnsDriver
from shiftable_baremetal._nameserver_answers import Responder, TsigKey
from shiftable_baremetal._nameserver_source import source_of

__all__ = ["Nameserver", "TsigKey"]

logger = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds that a TCP connection may be idle (RFC 7766, 6.2.3: a few), or take none of what is written."""
_MOST_CONNECTIONS = 200
"""Who comes then takes the place of the one that has been silent for the longest time (RFC 7766, 6.2.3)."""
_PORTS_TRIED = 50
_MANY = 64
_BUFFER = 1 << 20
"""Bytes of questions that may wait, as far as the kernel allows: it drops what comes above."""


@attrs.define(eq=False)
class Nameserver:
    """Answers for the zones of a folder of zone files, or of any driver, by UDP and TCP, until it is closed.

    Files are read when they change, a driver after each update and ``refresh`` seconds. It transfers zones (AXFR) and,
    with ``update``, takes dynamic updates (RFC 2136) and writes them through the driver: each message happens or not.
    A zone whose file is broken is answered as it was before, and with SERVFAIL if it never was whole.

    Whoever reaches the port may ask. With keys, transfers and updates must be signed with one of them (TSIG); without,
    whoever may ask may do those too: keep it on loopback then.

    Args:
        zones: a folder of zone files, or a driver.
        host: address to listen at.
        port: 0 for one that is free.
        update: whether updates are taken.
        keys: who may transfer and update.
        refresh: seconds after which a driver other than that of files is read again.
    """

    _zones: DnsDriver | Path = attrs.field(repr=False)
    host: str = attrs.field(default="127.0.0.1", kw_only=True)
    port: int = attrs.field(default=0, kw_only=True)
    _update: bool = attrs.field(default=False, kw_only=True, repr=False)
    _keys: Iterable[TsigKey] = attrs.field(default=(), kw_only=True, repr=False)
    _refresh: float = attrs.field(default=1.0, kw_only=True, repr=False)
    _responder: Responder = attrs.field(init=False, repr=False)
    _datagrams: socket.socket = attrs.field(init=False, repr=False)
    _listener: socket.socket = attrs.field(init=False, repr=False)
    _wakers: list[socket.socket] = attrs.field(factory=list, init=False, repr=False)
    _threads: list[threading.Thread] = attrs.field(factory=list, init=False, repr=False)
    _connections: dict[socket.socket, threading.Thread] = attrs.field(factory=dict, init=False, repr=False)
    _silent: dict[socket.socket, None] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _closed: bool = attrs.field(default=False, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        source = source_of(self._zones, self._refresh)
        self._responder = Responder(source, tuple(self._keys), update=self._update)
        self._datagrams, self._listener = _bound(self.host, self.port)
        self.port = self._listener.getsockname()[1]
        for work in (self._answer_datagrams, self._accept):
            ours, theirs = socket.socketpair()
            self._wakers.append(ours)
            thread = threading.Thread(target=work, args=(theirs,), name="name server", daemon=True)
            self._threads.append(thread)
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and end all connections. Again: nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            connections = dict(self._connections)
        for waker in self._wakers:
            waker.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (*self._threads, *connections.values()):
            thread.join()
        self._datagrams.close()
        self._listener.close()

    # UDP

    def _answer_datagrams(self, wake: socket.socket) -> None:
        send = self._datagrams.sendto
        with wake, selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            selector.register(self._datagrams, selectors.EVENT_READ)
            while all(key.fileobj is not wake for key, _ in selector.select()):
                while came := self._come():
                    answers = self._responder.datagrams([wire for wire, _ in came])
                    for (_, peer), answer in zip(came, answers, strict=True):
                        if answer is not None:
                            with contextlib.suppress(OSError):  # its buffer is full, or nobody listens any more
                                send(answer, peer)

    def _come(self) -> list[tuple[bytes, Any]]:
        """Return the messages that are there, many at most, with their senders."""
        receive, found = self._datagrams.recvfrom, list[tuple[bytes, Any]]()
        with contextlib.suppress(OSError):  # no more, or a client that has gone
            while len(found) < _MANY:
                found.append(receive(65_535))
        return found

    # TCP

    def _accept(self, wake: socket.socket) -> None:
        with wake, selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while all(key.fileobj is not wake for key, _ in selector.select()):
                with contextlib.suppress(OSError):
                    connection, _ = self._listener.accept()
                    self._start(connection)

    def _start(self, connection: socket.socket) -> None:
        thread = threading.Thread(target=self._converse, args=(connection,), name="name server", daemon=True)
        with self._lock:
            if self._closed or not self._room():
                connection.close()
                return
            self._connections[connection] = thread
            self._silent[connection] = None
            thread.start()

    def _room(self) -> bool:
        """Make room for a connection, unless all others are being answered."""
        if len(self._connections) < _MOST_CONNECTIONS:
            return True
        longest = next(iter(self._silent), None)
        if longest is None:
            return False
        del self._silent[longest]
        with contextlib.suppress(OSError):  # it has gone
            longest.shutdown(socket.SHUT_RDWR)
        return True

    def _converse(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(_PATIENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
                while len(prefix := stream.read(2)) == 2:
                    wire = stream.read(int.from_bytes(prefix, "big"))
                    with self._lock:
                        self._silent.pop(connection, None)
                    for answer in self._responder.stream(wire):
                        connection.sendall(len(answer).to_bytes(2, "big") + answer)
                    with self._lock:
                        self._silent[connection] = None
        finally:
            with self._lock:
                self._silent.pop(connection, None)
                self._connections.pop(connection, None)


def _bound(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Listen by UDP and TCP at the same port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(_PORTS_TRIED):
        listener = socket.socket(family, socket.SOCK_STREAM)
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            listener.bind((host, port))
            datagrams.bind((host, listener.getsockname()[1]))
            listener.listen(128)
            listener.setblocking(False)
            datagrams.setblocking(False)
        except OSError:
            listener.close()
            datagrams.close()
            if port or attempt == _PORTS_TRIED - 1:  # else the port was free for TCP only
                raise
        else:
            return datagrams, listener
    raise AssertionError
