"""Messages of DNS, as much of them as asking name servers takes: questions, and what is said to them."""

from __future__ import annotations

import struct
from functools import cache, lru_cache
from typing import NamedTuple

import attrs

from shiftable.dns.driver import labels

__all__ = [
    "NXDOMAIN",
    "Answer",
    "Question",
    "Record",
    "Reply",
    "is_reply",
    "message",
    "record_type",
    "wire_name",
    "written",
]

NXDOMAIN = 3

_RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 9: "NOTAUTH"}
_PAYLOAD = 1232  # bytes of a UDP answer that no network cuts into pieces (DNS Flag Day 2020)
_OPT = b"\0" + struct.pack("!HHIH", 41, _PAYLOAD, 0, 0)
_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_COUNTS = struct.Struct("!HHHH")
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


class Question(NamedTuple):
    """A name in wire form, lower case, and the number of a type. A tuple, as thousands are looked up by it."""

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

    @property
    def status(self) -> str:
        """``NOERROR``, ``REFUSED``."""
        return _RCODES.get(self.rcode, f"RCODE {self.rcode}")


@attrs.frozen
class Reply:
    """What a server sent to a question, not read yet.

    Args:
        by_tcp: because its answer was too long for UDP.
    """

    question: Question
    data: bytes
    by_tcp: bool = False

    @property
    def truncated(self) -> bool:
        """Whether the server had more to say."""
        return bool(self.data[2] & 0x02)

    def has_just(self, records: frozenset[bytes]) -> bool:
        """Tell, without reading it, whether it is authoritative, whole, and has these records and nothing else.

        A no says nothing: servers may write the same in other ways, and have more to say.

        Args:
            records: as ``written`` writes them.
        """
        data, at = self.data, 16 + len(self.question.name)
        end = len(data) - len(_OPT)
        if data[2] & 0xFE != 0x84 or data[3] & 0x0F or data[4:12] != _COUNTS.pack(1, len(records), 0, 1):
            return False
        if data[end : end + 3] != _OPT[:3] or data[end + 5] or data[-2:] != b"\0\0":
            return False
        found = set()
        while at < end:
            size = 12 + (data[at + 10] << 8 | data[at + 11])
            found.add(data[at : at + size])
            at += size
        return at == end and found == records

    def read(self) -> Answer | None:
        """Read it; ``None`` if it is malformed."""
        try:
            return _parsed(self.data)
        except (IndexError, ValueError, struct.error):
            return None


@lru_cache(maxsize=16_384)
def wire_name(name: str) -> bytes:
    """Return a canonical name in wire form."""
    return b"".join([b"%c%b" % (len(label), label) for label in labels(name)]).lower() + b"\0"


@cache
def record_type(type: str) -> int:
    """Return the number of a type, known by name or as ``TYPE65400``.

    Raises:
        ValueError: nobody has given it one.
    """
    if type.startswith("TYPE") and type[4:].isdecimal():
        return int(type[4:])
    import dns.rdatatype

    try:
        return int(dns.rdatatype.from_text(type))
    except dns.rdatatype.UnknownRdatatype as exc:
        raise ValueError(f"the type {type} has no number") from exc


def written(type: int, ttl: int, rdatas: tuple[bytes, ...]) -> frozenset[bytes]:
    """Write records as most servers answer them: their owner a pointer to the question, their values in full."""
    return frozenset([_ASKED + _RECORD.pack(type, 1, ttl, len(rdata)) + rdata for rdata in rdatas])


def message(number: int, flags: int, question: Question) -> bytes:
    """Write a question."""
    head = _HEADER.pack(number, flags, 1, 0, 0, 1)
    return head + question.name + question.type.to_bytes(2, "big") + b"\0\1" + _OPT


def is_reply(data: bytes, question: Question) -> bool:
    """Tell whether it is a reply to just this question: anybody may send anything."""
    name, end = question.name, 12 + len(question.name)
    if len(data) < 12 or not data[2] & 0x80:
        return False
    if data[4:6] == b"\0\0":  # an error may come without the question
        return bool(data[3] & 0x0F)
    same_name = data[12:end] == name or data[12:end].lower() == name  # a length byte is below every letter
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
