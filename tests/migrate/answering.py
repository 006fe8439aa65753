"""A name server for tests, by dnspython: it answers rightly, and wrongly as it is told. Nothing of it is ours."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from shiftable.dns import RecordSet

Sets = dict[tuple[dns.name.Name, int], dns.rrset.RRset]
Tamper = Callable[[dns.message.Message, dns.message.Message], "dns.message.Message | bytes | None"]


def rrset(record: RecordSet) -> dns.rrset.RRset:
    """Return a record set in dnspython's terms."""
    kind = dns.rdatatype.from_text(record.type)
    rdatas = [dns.rdata.from_wire(dns.rdataclass.IN, kind, wire, 0, len(wire)) for wire in record.rdatas]
    return dns.rrset.from_rdata_list(dns.name.from_text(record.name), record.ttl, rdatas)


class Answering:
    """One zone on UDP and TCP at 127.0.0.1, on a port of its own.

    Attributes:
        tamper: makes of a question and its right answer what is sent; ``None``: nothing is.
        by_tcp: whether it listens there.
        seen: how many questions came.
    """

    def __init__(self, origin: str, records: Iterable[RecordSet], *, by_tcp: bool = True) -> None:
        self.origin = dns.name.from_text(origin)
        self.sets: Sets = {}
        self._held: dict[dns.name.Name, list[dns.rrset.RRset]] = {}
        self._exists: set[dns.name.Name] = set()
        self.put(records)
        self.tamper: Tamper = lambda _, answer: answer
        self.by_tcp = by_tcp
        self.seen = 0
        self._stop = threading.Event()
        self._udp, self._tcp, self.port = _sockets()
        self._threads = [threading.Thread(target=self._serve_udp)]
        if by_tcp:
            self._threads.append(threading.Thread(target=self._serve_tcp))
        else:
            self._tcp.close()

    @property
    def address(self) -> str:
        """As ``--ask`` takes it."""
        return f"127.0.0.1@{self.port}"

    def put(self, records: Iterable[RecordSet]) -> None:
        """Hold these record sets too."""
        for record in records:
            if record.rdatas:
                found = rrset(record)
                self.sets[found.name, found.rdtype] = found
                here = [held for held in self._held.get(found.name, ()) if held.rdtype != found.rdtype]
                self._held[found.name] = [*here, found]
                self._exists.update(self._above(found.name))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    # what is right

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """Answer as RFC 1034, 4.3.2 says."""
        reply = dns.message.make_response(query)
        (question,) = query.question
        name, kind = question.name, question.rdtype
        if not name.is_subdomain(self.origin):
            reply.set_rcode(dns.rcode.REFUSED)
            return reply
        for cut in self._above(name):
            if cut != name and (found := self.sets.get((cut, dns.rdatatype.DNAME))):
                reply.flags |= dns.flags.AA
                reply.answer.append(found)
                return reply
            if cut != self.origin and (found := self.sets.get((cut, dns.rdatatype.NS))):
                if cut == name and kind == dns.rdatatype.DS:
                    break
                reply.authority.append(found)
                targets = {rdata.target for rdata in found}
                reply.additional += [held for target in targets for held in self._held.get(target, ())]
                return reply
        reply.flags |= dns.flags.AA
        here = self._held.get(name, [])
        if name not in self._exists:
            here = self._wild(name)
            if not here:
                reply.set_rcode(dns.rcode.NXDOMAIN)
        reply.answer += [held for held in here if held.rdtype in (kind, dns.rdatatype.CNAME)]
        return reply

    def _above(self, name: dns.name.Name) -> Iterator[dns.name.Name]:
        """Yield the names from the zone's own down to this one."""
        for labels in range(len(self.origin.labels), len(name.labels) + 1):
            yield dns.name.Name(name.labels[-labels:])

    def _wild(self, name: dns.name.Name) -> list[dns.rrset.RRset]:
        parent = name.parent()
        while parent not in self._exists:
            parent = parent.parent()
        star = dns.name.Name((b"*", *parent.labels))
        found = []
        for held in self._held.get(star, ()):
            copy = held.copy()
            copy.name = name
            found.append(copy)
        return found

    # speaking

    def _reply(self, data: bytes, longest: int) -> bytes | None:
        self.seen += 1
        query = dns.message.from_wire(data)
        sent = self.tamper(query, self.answer(query))
        if sent is None or isinstance(sent, bytes):
            return sent
        whole = sent.to_wire(max_size=65_535)
        if len(whole) <= longest:
            return whole
        short = dns.message.make_response(query)
        short.flags |= dns.flags.TC | dns.flags.AA
        return short.to_wire()

    def _serve_udp(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                data, peer = self._udp.recvfrom(4096)
                reply = self._reply(data, 1232)
                if reply is not None:
                    self._udp.sendto(reply, peer)

    def _serve_tcp(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                connection, _ = self._tcp.accept()
                with connection:
                    connection.settimeout(5)
                    while size := connection.recv(2):
                        reply = self._reply(connection.recv(int.from_bytes(size, "big")), 65_535)
                        if reply is None:
                            break
                        connection.sendall(len(reply).to_bytes(2, "big") + reply)


def _sockets() -> tuple[socket.socket, socket.socket, int]:
    """Bind both to one port that nobody has."""
    while True:
        udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_STREAM)
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        try:
            tcp.bind(("127.0.0.1", port))
        except OSError:
            udp.close()
            tcp.close()
            continue
        tcp.listen()
        for sock in (udp, tcp):
            sock.settimeout(0.05)
        return udp, tcp, port
