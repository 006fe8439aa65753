"""Messages of DNS as bytes, and zone transfers made of them (RFC 5936, RFC 1995), read without an object per record.

What comes from a server is not trusted: a message that ends early, or whose names point forward, outside or in a
circle, is refused as ``Malformed``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

import attrs

from shiftable.dns.driver import RecordKey, RecordSet, absolute, canonical_rdata

__all__ = [
    "Answer",
    "Labels",
    "Malformed",
    "Parsed",
    "Step",
    "Transfer",
    "applied",
    "packed",
    "parsed",
    "record_sets",
    "type_number",
    "type_of",
]

Labels = tuple[bytes, ...]

Answer = tuple[Labels, int, int, bytes]
"""Owner, type, TTL and uncompressed rdata of one record."""

_SOA, _TSIG = 6, 250
_POINTER = 0xC0
_LONGEST_NAME = 255  # RFC 1035, 2.3.4
_RECORD = struct.Struct("!HHIH")
_HEAD = struct.Struct("!6H")

# Where names may be compressed in rdata: those of RFC 1035, and the few that RFC 3597, 4 wants understood.
_NAMES: Mapping[int, tuple[int | str, ...]] = {
    **dict.fromkeys((2, 3, 4, 5, 7, 8, 9, 12, 30, 39), ("n",)),  # NS MD MF CNAME MB MG MR PTR NXT DNAME
    **dict.fromkeys((6, 14, 17), ("n", "n")),  # SOA MINFO RP
    **dict.fromkeys((15, 18, 21, 36), (2, "n")),  # MX AFSDB RT KX
    **dict.fromkeys((24, 46), (18, "n")),  # SIG RRSIG
    26: (2, "n", "n"),  # PX
    33: (6, "n"),  # SRV
    35: (4, "s", "s", "s", "n"),  # NAPTR
}

_PLAIN = re.compile(rb"[a-z0-9_*/.-]+")


class Malformed(Exception):
    """What a server sent is no message of DNS, or no transfer of the zone that was asked for."""


@attrs.frozen
class Parsed:
    """One message.

    Args:
        tsig: where its signature begins, and the record itself.
    """

    id: int
    flags: int
    answers: tuple[Answer, ...] = attrs.field(repr=False)
    tsig: tuple[int, Answer] | None = attrs.field(repr=False)

    @property
    def rcode(self) -> int:
        """What the server says of the request."""
        return self.flags & 15

    @property
    def is_answer(self) -> bool:
        """Whether it is one, and no request."""
        return bool(self.flags & 0x8000)

    @property
    def authoritative(self) -> bool:
        """Whether the server has the zone itself."""
        return bool(self.flags & 0x0400)


def parsed(wire: bytes) -> Parsed:
    """Read one message.

    Raises:
        Malformed: it is none.
    """
    known: dict[int, Labels] = {}
    try:
        number, flags, questions, *counts = _HEAD.unpack_from(wire)
        at = _HEAD.size
        for _ in range(questions):
            _, at = _name(wire, at, known)
            at += 4
        answers, at = _section(wire, at, counts[0], known)
        _, at = _section(wire, at, counts[1], known)
        more, at = _section(wire, at, max(0, counts[2] - 1), known)
        if counts[2]:
            last, end = _section(wire, at, 1, known)
            tsig = (at, last[0]) if last[0][1] == _TSIG else None
            at = end
        else:
            tsig = None
    except (IndexError, struct.error) as exc:
        raise Malformed("the message ends too early") from exc
    if at != len(wire):
        raise Malformed(f"{len(wire) - at:,} bytes follow the message")
    if any(record[1] == _TSIG for record in (*answers, *more)):
        raise Malformed("a signature does not stand at the end")
    return Parsed(number, flags, tuple(answers), tsig)


def _section(wire: bytes, at: int, count: int, known: dict[int, Labels]) -> tuple[list[Answer], int]:
    """Read so many records."""
    found: list[Answer] = []
    unpack, size = _RECORD.unpack_from, len(wire)
    for _ in range(count):
        owner, at = _name(wire, at, known)
        kind, _, ttl, length = unpack(wire, at)
        at += 10
        end = at + length
        if end > size:
            raise Malformed("the message ends within a record")
        layout = _NAMES.get(kind)
        found.append((owner, kind, ttl, wire[at:end] if layout is None else _rdata(wire, at, end, layout, known)))
        at = end
    return found, at


def _rdata(wire: bytes, at: int, end: int, layout: tuple[int | str, ...], known: dict[int, Labels]) -> bytes:
    """Return an rdata with its names in full. An empty one stands in prerequisites and updates."""
    if at == end:
        return b""
    parts = []
    for part in layout:
        start = at
        if part == "n":
            labels, at = _name(wire, at, known)
            parts.append(packed(labels))
            continue
        at += part if isinstance(part, int) else 1 + wire[at]
        parts.append(wire[start:at])
    if at > end:
        raise Malformed("a name is longer than its record")
    parts.append(wire[at:end])
    return b"".join(parts)


def packed(labels: Labels) -> bytes:
    """Return a name in wire form."""
    return b"".join([b"%c%b" % (len(label), label) for label in labels]) + b"\0"


def _name(wire: bytes, at: int, known: dict[int, Labels]) -> tuple[Labels, int]:
    """Read a name; return it and where it ends. A pointer leads to a name that was read before, or further back."""
    start, before = at, at
    labels: list[bytes] = []
    places: list[int] = []
    after = -1
    while True:
        length = wire[at]
        if 0 < length < 64:
            places.append(at)
            labels.append(wire[at + 1 : at + 1 + length])
            at += 1 + length
            continue
        tail: Labels = ()
        if length == 0:
            at += 1
        elif length >= _POINTER:
            target = (length & 63) << 8 | wire[at + 1]
            at += 2
            if not _HEAD.size <= target < before:
                raise Malformed("a name points forward, to itself or out of the message")
            found = known.get(target)
            if found is None:
                after = at if after < 0 else after
                at = before = target
                continue
            tail = found
        else:
            raise Malformed(f"a name has a label of the unknown kind {length >> 6}")
        break
    name = (*labels, *tail)
    if labels:
        if sum(map(len, name)) + len(name) >= _LONGEST_NAME:
            raise Malformed(f"a name is longer than {_LONGEST_NAME} bytes")
        for index, place in enumerate(places):
            known[place] = name[index:]
    known.setdefault(start, name)
    return name, at if after < 0 else after


# transfers


@attrs.frozen
class Step:
    """One step of an incremental transfer: what goes, then what comes."""

    deleted: list[Answer] = attrs.field(factory=list)
    added: list[Answer] = attrs.field(factory=list)


class Transfer:
    """Takes the messages of one transfer, in order.

    Args:
        zone: that was asked for.
        serial: of the version that the client has; ``None`` if it wants all.

    Attributes:
        done: whether it is complete.
        soa: of the version that the server has.
        steps: what leads from the client's version to the server's; ``None``: ``records`` has everything.
        records: of the whole zone, the SOA once.
    """

    def __init__(self, zone: Labels, serial: int | None = None) -> None:
        self.done = False
        self.soa: Answer | None = None
        self.steps: list[Step] | None = None
        self.records: list[Answer] = []
        self._zone = tuple(label.lower() for label in zone)
        self._serial = serial
        self._adds = False
        self._owners: set[Labels] = set()

    @property
    def serial(self) -> int:
        """The server's version."""
        if self.soa is None:
            raise Malformed("the transfer has no SOA")
        return _serial(self.soa)

    def feed(self, answers: Iterable[Answer]) -> None:
        """Take the records of the next message.

        Raises:
            Malformed: they are no transfer of this zone.
        """
        for record in answers:
            if self.done:
                raise Malformed("records follow the end of the transfer")
            self._check_owner(record[0])
            self._take(record)
        if self._serial is None or self.steps is not None or len(self.records) != 1:
            return
        if self.serial == self._serial:
            self.steps, self.done = [], True  # nothing has changed (RFC 1995, 2)
        elif (self._serial - self.serial) % 2**32 < 2**31:
            raise Malformed("the server has an older version of the zone than it had before")

    def _check_owner(self, owner: Labels) -> None:
        if owner in self._owners:
            return
        inner = owner[len(owner) - len(self._zone) :] if len(owner) >= len(self._zone) else None
        if inner is None or tuple(label.lower() for label in inner) != self._zone:
            raise Malformed("a record is not in the zone that was asked for")
        self._owners.add(owner)

    def _take(self, record: Answer) -> None:
        is_soa = record[1] == _SOA
        if is_soa and len(record[3]) < 22:
            raise Malformed("an SOA is too short")
        if self.soa is None:
            if not is_soa or len(record[0]) != len(self._zone):
                raise Malformed("the transfer does not begin with the zone's SOA")
            self.soa = record
            self.records.append(record)
        elif is_soa:
            self._take_soa(record)
        elif self.steps is None:
            self.records.append(record)
        else:
            step = self.steps[-1]
            (step.added if self._adds else step.deleted).append(record)

    def _take_soa(self, record: Answer) -> None:
        """End the transfer; of an incremental one, end what goes or what comes, if it is not the last."""
        if self.steps is None and len(self.records) == 1 and _serial(record) == self._serial != self.serial:
            self.steps = [Step()]
        elif self.steps is not None and not self._adds:
            self._adds = True
        elif _serial(record) == self.serial:
            self.done = True
        elif self.steps is None:
            raise Malformed("the transfer ends in another version than it began with")
        else:
            self.steps.append(Step())
            self._adds = False


def _serial(soa: Answer) -> int:
    return int.from_bytes(soa[3][-20:-16], "big")


# record sets


class _Texts(dict[Labels, str]):
    def __missing__(self, name: Labels) -> str:
        text = self[name] = _text(name)
        return text


def _text(name: Labels) -> str:
    """Return a name in its one spelling."""
    joined = b".".join(name).lower()
    if _PLAIN.fullmatch(joined) and joined.count(b".") == len(name) - 1:  # no dot within a label
        return joined.decode() + "."
    return absolute("".join([_escaped(label) for label in name]) or ".", ".")


def _escaped(label: bytes) -> str:
    return "".join([f"\\{byte:03d}" for byte in label]) + "."


def record_sets(answers: Iterable[Answer]) -> Iterator[RecordSet]:
    """Gather records into sets, in the order in which the first of each came.

    Servers hold one TTL for a set; of signatures, which have that of what they sign, it is the shortest.
    """
    spelt = _Texts()
    found: dict[tuple[str, int], tuple[list[int], list[bytes]]] = {}
    for owner, number, ttl, rdata in answers:
        place = spelt[owner], number
        known = found.get(place)
        if known is None:
            found[place] = [ttl], [rdata]
        else:
            known[0].append(ttl)
            known[1].append(rdata)
    for (name, number), (ttls, rdatas) in found.items():
        yield RecordSet(name=name, type=type_of(number), ttl=min(ttls), rdatas=rdatas)


@lru_cache
def type_of(number: int) -> str:
    """Return the name of a type."""
    from dns import rdatatype

    return str(rdatatype.to_text(rdatatype.RdataType.make(number)))


def type_number(name: str) -> int:
    """Return the number of a type.

    Raises:
        ValueError: dnspython has none.
    """
    import dns.exception
    from dns import rdatatype

    try:
        return int(rdatatype.from_text(name))
    except dns.exception.DNSException as exc:
        raise ValueError(f"the type {name} has no number") from exc


def applied(steps: Iterable[Step], soa: Answer, held: Mapping[RecordKey, RecordSet]) -> dict[RecordKey, RecordSet]:
    """Return what an incremental transfer makes of a zone.

    Raises:
        Malformed: what is to go is not there: it is another zone's history.
    """
    spelt = _Texts()
    result = dict(held)
    for step in steps:
        gone: dict[RecordKey, set[bytes]] = {}
        for owner, number, _, rdata in step.deleted:
            kind = type_of(number)
            gone.setdefault(RecordKey(spelt[owner], kind), set()).add(canonical_rdata(kind, rdata))
        for key, rdatas in gone.items():
            before = result.get(key)
            if before is None or not rdatas <= before.canonical:
                raise Malformed("a record goes that is not there")
            kept = [rdata for rdata in before.rdatas if canonical_rdata(key.type, rdata) not in rdatas]
            result[key] = attrs.evolve(before, rdatas=kept)
        for record in record_sets(step.added):
            before = result.get(record.key)
            after = attrs.evolve(record, rdatas=(*(before.rdatas if before else ()), *record.rdatas))
            if len(after.canonical) < len(after.rdatas):
                raise Malformed("a record comes that is there already")
            result[record.key] = after
    (apex,) = record_sets([soa])
    result[apex.key] = apex
    return {key: record for key, record in result.items() if record.rdatas}
