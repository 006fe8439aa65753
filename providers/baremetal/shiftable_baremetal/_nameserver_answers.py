"""What a name server answers to a message: by bytes where it is a usual question, else by dnspython."""

from __future__ import annotations

import base64
import binascii
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import cast

import attrs
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TSIG
import dns.rrset
import dns.tsig
import dns.update

from shiftable.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, PreconditionFailed
from shiftable_baremetal._nameserver_source import Source, State, View
from shiftable_baremetal._nameserver_update import Refused, changes_of
from shiftable_baremetal._nameserver_wire import PAYLOAD, SMALLEST, question_of, rendered, transfer
from shiftable_baremetal._nameserver_zone import Answer, Rrset, ZoneIndex, suffixes, wire_of

__all__ = ["Responder", "TsigKey"]

logger = logging.getLogger(__name__)

Rcode = dns.rcode.Rcode
Type = dns.rdatatype.RdataType

_LARGEST = 65_535
_KEPT = 20_000
"""Finished answers that are kept: 20 MB at most."""
_ATTEMPTS = 5  # of an update, while others write the same zone
_WRONG = (dns.exception.DNSException, ValueError, NotImplementedError, IndexError)
"""What dnspython raises for rubbish."""


@attrs.frozen
class TsigKey:
    """A key that messages are signed with (RFC 8945).

    Args:
        name: as both sides call it.
        secret: in base64.
        algorithm: ``hmac-sha256``, ``hmac-sha512``, …

    Raises:
        ValueError: the secret is no base64, or the algorithm is not known. The message does not say the secret.
    """

    name: str
    secret: str = attrs.field(repr=False)
    algorithm: str = "hmac-sha256"
    _key: dns.tsig.Key = attrs.field(init=False, repr=False, eq=False)

    @_key.default
    def _parse(self) -> dns.tsig.Key:
        try:
            key = dns.tsig.Key(self.name, base64.b64decode(self.secret, validate=True), self.algorithm)
            dns.tsig.get_context(key)  # type: ignore[no-untyped-call]  # dnspython's own
        except (binascii.Error, ValueError):
            raise ValueError(f"the secret of the TSIG key {self.name!r} is not base64") from None
        except (NotImplementedError, dns.exception.DNSException):
            raise ValueError(f"the TSIG algorithm {self.algorithm!r} is not known; hmac-sha256 is") from None
        return key

    @property
    def native(self) -> dns.tsig.Key:
        """The key as dnspython has it."""
        return self._key


@attrs.frozen(eq=False, slots=False)
class _Served:
    """One state of a zone."""

    zone: str
    state: State

    @cached_property
    def index(self) -> ZoneIndex:
        """The zone for questions; updates alone need none."""
        return ZoneIndex.of(f"{self.zone}.", self.state.records.values())


@attrs.define(eq=False)
class _Kept:
    """A finished answer, without its id, and what it was made from."""

    served: _Served
    zones: frozenset[str]
    tail: bytes


class _Failed(Exception):
    """A zone cannot be read now and never was."""


@attrs.define(eq=False)
class Responder:
    """Answers messages. May be used from many threads.

    Args:
        source: the zones.
        keys: with any, transfers and updates must be signed with one of them.
        update: whether updates are taken.
    """

    _source: Source
    _keys: Iterable[TsigKey] = attrs.field(repr=False)
    _update: bool = attrs.field(kw_only=True)
    _ring: dict[dns.name.Name, dns.tsig.Key] = attrs.field(init=False, repr=False)
    _served: dict[str, _Served] = attrs.field(factory=dict, init=False, repr=False)
    _origins: tuple[frozenset[str], dict[bytes, str]] = attrs.field(default=(frozenset(), {}), init=False, repr=False)
    _ready: dict[bytes, _Kept] = attrs.field(factory=dict, init=False, repr=False)
    _told: dict[str, str] = attrs.field(factory=dict, init=False, repr=False)

    @_ring.default
    def _make_ring(self) -> dict[dns.name.Name, dns.tsig.Key]:
        return {key.native.name: key.native for key in self._keys}

    # the two ways in

    def datagrams(self, wires: Sequence[bytes]) -> list[bytes | None]:
        """Answer what came by UDP until now; ``None``: not at all."""
        view = View(self._source)
        return [self.datagram(wire, view) for wire in wires]

    def datagram(self, wire: bytes, view: View | None = None) -> bytes | None:
        """Answer one message that came by UDP before the view was made; ``None``: not at all."""
        view = view or View(self._source)
        try:
            kept = self._ready.get(wire[2:])
            if kept is not None and view.zones is kept.zones and self._holds(kept, view):
                return wire[:2] + kept.tail
            answer = self._quick(wire, view, stream=False)
            return answer if answer is not None else next(self._thorough(wire, view, stream=False), None)
        except Exception:
            logger.exception("a query could not be answered")
            return _bare(wire, Rcode.SERVFAIL)

    def stream(self, wire: bytes) -> Iterator[bytes]:
        """Answer what came by TCP, with as many messages as it takes."""
        view = View(self._source)
        try:
            answer = self._quick(wire, view, stream=True)
            yield from (answer,) if answer is not None else self._thorough(wire, view, stream=True)
        except Exception:
            logger.exception("a query could not be answered")
            yield from _all(_bare(wire, Rcode.SERVFAIL))

    # by bytes

    def _holds(self, kept: _Kept, view: View) -> bool:
        """Tell whether an answer is still right."""
        try:
            return view.state(kept.served.zone) is kept.served.state
        except Exception:  # noqa: BLE001  the slower way says what is wrong
            return False

    def _quick(self, wire: bytes, view: View, *, stream: bool) -> bytes | None:
        question = question_of(wire)
        if question is None:
            return None
        try:
            served = self._find(question.name, question.type, view)
        except _Failed:
            return None
        if served is None:
            return None
        limit = _LARGEST if stream else question.room
        answer = rendered(question, served.index.resolve(question.name, question.type), limit)
        if answer is not None and not stream and served.zone not in self._told:
            if len(self._ready) >= _KEPT:
                self._ready.clear()
            self._ready[wire[2:]] = _Kept(served, view.zones, answer[2:])
        return answer

    # zones

    def _find(self, name: bytes, type: int, view: View) -> _Served | None:
        """Return the zone that a name is in: the longest that is served. A DS is asked of the zone above (RFC 4035)."""
        zones = view.zones
        if zones is not self._origins[0]:
            self._origins = (zones, {wire_of(f"{zone}."): zone for zone in zones})
        origins = self._origins[1]
        found = [origins[above] for above in suffixes(name) if above in origins]
        if type == Type.DS and len(found) > 1 and wire_of(f"{found[0]}.") == name:
            found = found[1:]
        return self._serve(found[0], view) if found else None

    def _serve(self, zone: str, view: View) -> _Served | None:
        known = self._served.get(zone)
        try:
            state = view.state(zone)
        except Exception as exc:
            fault = self._source.fault(exc)
            if fault is None:
                raise
            if fault.error is NotFound:
                self._served.pop(zone, None)
                return None
            if self._told.get(zone) != fault.message:
                self._told[zone] = fault.message
                logger.warning(
                    "the zone %s cannot be read%s: %s", zone, "; the last state stays" if known else "", fault.message
                )
            if known is None:
                raise _Failed(zone) from exc
            return known
        self._told.pop(zone, None)
        if known is None or known.state is not state:
            known = self._served[zone] = _Served(zone, state)
        return known

    # by dnspython

    def _thorough(self, wire: bytes, view: View, *, stream: bool) -> Iterator[bytes]:
        if len(wire) < 12 or wire[2] & 0x80:
            return
        opcode = wire[2] >> 3 & 15
        if opcode not in (dns.opcode.QUERY, dns.opcode.UPDATE):
            yield from _all(_bare(wire, Rcode.NOTIMP))
            return
        try:
            message = dns.message.from_wire(wire, keyring=self._ring)
        except (dns.message.UnknownTSIGKey, dns.tsig.BadKey, dns.tsig.BadAlgorithm):
            yield from _all(self._unsigned(wire, Rcode.BADKEY))
        except dns.tsig.BadTime:
            yield from _all(self._unsigned(wire, Rcode.BADTIME))
        except (dns.tsig.BadSignature, dns.tsig.PeerError):
            yield from _all(self._unsigned(wire, Rcode.BADSIG))
        except _WRONG:
            yield from _all(_bare(wire, Rcode.FORMERR))
        else:
            yield from self._reply(message, view, stream=stream)

    def _reply(self, message: dns.message.Message, view: View, *, stream: bool) -> Iterator[bytes]:
        if message.edns > 0:
            yield _written(_blank(message, Rcode.BADVERS), _LARGEST)
        elif isinstance(message, dns.update.UpdateMessage):
            yield _written(_blank(message, self._updated(message, view)), _LARGEST)
        elif len(message.question) != 1 or message.answer:
            yield _written(_blank(message, Rcode.FORMERR), _LARGEST)
        elif message.question[0].rdtype in (Type.AXFR, Type.IXFR):
            yield from self._transferred(message, view, stream=stream)
        else:
            yield self._answered(message, view, stream=stream)

    def _answered(self, message: dns.message.Message, view: View, *, stream: bool) -> bytes:
        (question,) = message.question
        limit = _LARGEST if stream else min(max(message.payload, SMALLEST), PAYLOAD) if message.edns >= 0 else SMALLEST
        name = _lower(question.name)
        try:
            served = self._find(name, question.rdtype, view) if question.rdclass == dns.rdataclass.IN else None
        except _Failed:
            return _written(_blank(message, Rcode.SERVFAIL), limit)
        if served is None:
            return _written(_blank(message, Rcode.REFUSED), limit)
        return _filled(message, served.index.resolve(name, question.rdtype), limit)

    # transfers

    def _transferred(self, message: dns.message.Message, view: View, *, stream: bool) -> Iterator[bytes]:
        (question,) = message.question
        try:
            served = self._find(_lower(question.name), Type.SOA, view)
        except _Failed:
            yield _written(_blank(message, Rcode.SERVFAIL), _LARGEST)
            return
        if served is None or served.index.origin != _lower(question.name):
            yield _written(_blank(message, Rcode.NOTAUTH), _LARGEST)
        elif self._ring and not message.had_tsig:
            yield _written(_blank(message, Rcode.REFUSED), _LARGEST)
        elif stream and not _is_current(message, served.index):
            plain = transfer(message.id, _question_wire(question), served.index.everything())
            yield from _signed(message, plain)
        elif question.rdtype == Type.IXFR:
            yield _filled(message, Answer(Rcode.NOERROR, True, (served.index.soa,)), SMALLEST)
        else:
            yield _written(_blank(message, Rcode.FORMERR), _LARGEST)

    # updates

    def _updated(self, message: dns.update.UpdateMessage, view: View) -> dns.rcode.Rcode:
        """Carry out an update and return how it went."""
        if not message.zone:
            return Rcode.FORMERR
        name, class_ = message.zone[0].name, message.zone[0].rdclass
        if not self._update or (self._ring and not message.had_tsig):
            return Rcode.REFUSED
        try:
            served = self._find(_lower(name), Type.SOA, view)
            if served is None or wire_of(f"{served.zone}.") != _lower(name) or class_ != dns.rdataclass.IN:
                return Rcode.NOTAUTH
            return self._written(message, served.zone)
        except Refused as exc:
            logger.info("an update of %s is refused: %s", name, exc)
            return exc.rcode
        except _Failed:
            return Rcode.SERVFAIL

    def _written(self, message: dns.update.UpdateMessage, zone: str) -> dns.rcode.Rcode:
        for _ in range(_ATTEMPTS):
            served = self._serve(zone, View(self._source))
            if served is None:
                return Rcode.NOTAUTH
            changes = changes_of(message, f"{zone}.", served.state.records)
            unfit = self._source.unfit(zone, changes)
            if unfit is not None:
                raise Refused(Rcode.REFUSED, unfit)
            if not changes:
                return Rcode.NOERROR
            try:
                self._source.write(zone, changes)
            except Exception as exc:
                fault = self._source.fault(exc)
                if fault is None:
                    raise
                if fault.error in (PreconditionFailed, Conflict):
                    continue
                logger.warning("an update of %s failed: %s", zone, fault.message)
                return Rcode.REFUSED if fault.error in (InvalidArgument, PermissionDenied) else Rcode.SERVFAIL
            else:
                return Rcode.NOERROR
        return Rcode.SERVFAIL

    # signatures

    def _unsigned(self, wire: bytes, error: dns.rcode.Rcode) -> bytes | None:
        """Say that a signature is no good: RFC 8945, 5.2. Only that of a wrong time is answered signed."""
        try:
            message = dns.message.from_wire(wire, keyring=False)
        except _WRONG:
            return _bare(wire, Rcode.FORMERR)
        response = _blank(message, Rcode.NOTAUTH)
        signature = cast("dns.rrset.RRset", message.tsig)
        theirs = cast("dns.rdtypes.ANY.TSIG.TSIG", signature[0])
        if error == Rcode.BADTIME:
            key, now = self._ring[signature.name], int(time.time()).to_bytes(6, "big")
            response.use_tsig(key, key.name, 300, None, int(error), now, key.algorithm)
            response.request_mac = theirs.mac
        else:
            ours = theirs.replace(mac=b"", error=int(error), other=b"", original_id=message.id)
            response.additional.append(dns.rrset.from_rdata(signature.name, 0, ours))
        return _written(response, _LARGEST)


def _all(answer: bytes | None) -> tuple[bytes, ...]:
    return () if answer is None else (answer,)


def _bare(wire: bytes, rcode: dns.rcode.Rcode) -> bytes | None:
    """Answer with nothing but a code what could not be read; ``None`` to what is no query."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    return wire[:2] + bytes([0x80 | wire[2] & 0x79, rcode]) + bytes(8)


def _lower(name: dns.name.Name) -> bytes:
    return _wire(name).lower()


def _wire(name: dns.name.Name) -> bytes:
    return cast("bytes", name.to_wire())


def _blank(message: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    """Return an answer without records."""
    response = dns.message.make_response(message, our_payload=PAYLOAD, pad=0)
    if message.edns >= 0:
        response.use_edns(0, message.ednsflags & dns.flags.DO, PAYLOAD, PAYLOAD)
    response.set_rcode(rcode)
    return response


def _written(response: dns.message.Message, limit: int) -> bytes:
    return response.to_wire(max_size=limit)


def _filled(message: dns.message.Message, answer: Answer, limit: int) -> bytes:
    """Write an answer; one that has no room becomes the advice to ask by TCP."""
    response = _blank(message, Rcode(answer.rcode))
    if answer.authoritative:
        response.flags |= dns.flags.AA
    for section, rrsets in (
        (response.answer, answer.answer),
        (response.authority, answer.authority),
        (response.additional, answer.additional),
    ):
        section += [_native(rrset) for rrset in rrsets]
    try:
        return _written(response, limit)
    except dns.exception.TooBig:
        for section in (response.answer, response.authority, response.additional):
            section.clear()
        response.flags |= dns.flags.TC
        if limit == _LARGEST:
            response.flags &= ~(dns.flags.TC | dns.flags.AA)
            response.set_rcode(Rcode.SERVFAIL)
        return _written(response, limit)


def _native(rrset: Rrset) -> dns.rrset.RRset:
    owner, _ = dns.name.from_wire(rrset.owner, 0)
    rdatas = [_rdata(rrset.type, rdata) for rdata in rrset.rdatas]
    return dns.rrset.from_rdata_list(owner, rrset.ttl, rdatas)


def _rdata(type: int, wire: bytes) -> dns.rdata.Rdata:
    try:
        return dns.rdata.from_wire(dns.rdataclass.IN, Type(type), wire, 0, len(wire))
    except _WRONG:
        return dns.rdata.GenericRdata(dns.rdataclass.IN, Type(type), wire)


def _question_wire(question: dns.rrset.RRset) -> bytes:
    return _wire(question.name) + int(question.rdtype).to_bytes(2, "big") + int(question.rdclass).to_bytes(2, "big")


def _is_current(message: dns.message.Message, index: ZoneIndex) -> bool:
    """Tell whether an IXFR asks from the serial on that the zone has: then it has nothing to get."""
    if message.question[0].rdtype != Type.IXFR:
        return False
    theirs = [rdata.serial for rrset in message.authority if rrset.rdtype == Type.SOA for rdata in rrset]
    ours = int.from_bytes(index.soa.rdatas[0][-20:-16], "big")
    return any((ours - serial) % 2**32 not in range(1, 2**31) for serial in theirs)  # RFC 1982, 3.2


def _signed(message: dns.message.Message, plain: Iterator[bytes]) -> Iterator[bytes]:
    """Sign the messages of a transfer, each with those before it (RFC 8945, 5.3.1)."""
    if not message.had_tsig:
        yield from plain
        return
    key = cast("dns.tsig.Key", message.keyring)
    blank = dns.rdtypes.ANY.TSIG.TSIG(  # type: ignore[no-untyped-call]  # dnspython's own
        dns.rdataclass.ANY, Type.TSIG, key.algorithm, 0, 300, b"", message.id, 0, b""
    )
    owner, context, mac = _wire(key.name), None, message.mac
    for wire in plain:
        signature, context = dns.tsig.sign(  # type: ignore[no-untyped-call]  # dnspython's own
            wire, key, blank, int(time.time()), mac, context, True
        )
        value = cast("bytes", signature.to_wire())
        count = (int.from_bytes(wire[10:12], "big") + 1).to_bytes(2, "big")
        header = int(Type.TSIG).to_bytes(2, "big") + b"\0\xff\0\0\0\0" + len(value).to_bytes(2, "big")
        yield wire[:10] + count + wire[12:] + owner + header + value
