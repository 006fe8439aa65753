"""Messages as bytes, without a library: usual questions are read and answered so, at many times the speed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import attrs

from shiftable_baremetal._nameserver_zone import Answer, Rrset, suffixes

__all__ = ["PAYLOAD", "SMALLEST", "Question", "question_of", "rendered", "transfer"]

PAYLOAD = 1232
"""Largest answer by UDP that is offered: it passes every network unfragmented (DNS flag day 2020)."""
SMALLEST = 512  # RFC 1035, 4.2.1: what everybody takes by UDP

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_TAIL = struct.Struct("!HH")
_OPT = struct.Struct("!BHHBBHH")
_QR, _AA, _RD = 0x8000, 0x0400, 0x0100
_DO = 0x8000
_TRANSFERS = (251, 252)
_SHORTEST = 17  # header, root, type, class
_LONGEST_LABEL, _LONGEST_NAME = 63, 255
_CHUNK = 32_768
"""Bytes of a message of a transfer, about: fewer messages are less work, and all clients take them."""


@attrs.frozen
class Question:
    """A usual query: one question of class IN, with or without EDNS.

    Args:
        name: in lower case.
        raw: the question as it came, whose case goes back.
        room: bytes that the answer may have by UDP.
        dnssec: whether the client wants signatures; ``None`` without EDNS.
    """

    id: int
    flags: int
    name: bytes
    type: int
    raw: bytes
    room: int
    dnssec: bool | None


def question_of(wire: bytes) -> Question | None:
    """Read a query; ``None`` if it is anything unusual, right or wrong."""
    if len(wire) < _SHORTEST:
        return None
    id_, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(wire)
    end = _question_end(wire)
    if flags & 0xF800 or questions != 1 or answers or authorities or end is None:
        return None
    type_, class_ = _TAIL.unpack_from(wire, end - 4)
    edns = _edns(wire, end) if additionals == 1 else (SMALLEST, None)
    usual = class_ == 1 and type_ not in _TRANSFERS and (additionals == 1 or (len(wire) == end and not additionals))
    if edns is None or not usual:
        return None
    return Question(id_, flags, wire[12 : end - 4].lower(), type_, wire[12:end], *edns)


def _question_end(wire: bytes) -> int | None:
    """Return where the question ends that follows the header; ``None`` if it is none."""
    at, size = 12, len(wire)
    while length := wire[at]:
        at += 1 + length
        if length > _LONGEST_LABEL or at + 5 > size:
            return None
    return at + 5 if at + 1 - 12 <= _LONGEST_NAME else None


def _edns(wire: bytes, at: int) -> tuple[int, bool | None] | None:
    """Read the OPT record at the end: room for the answer, and whether signatures are wanted."""
    if len(wire) < at + _OPT.size:
        return None
    root, opt, payload, rcode, version, flags, rest = _OPT.unpack_from(wire, at)
    if root or opt != 41 or rcode or version or not _options_end(wire, at + _OPT.size, rest):
        return None
    return min(max(payload, SMALLEST), PAYLOAD), bool(flags & _DO)


def _options_end(wire: bytes, at: int, length: int) -> bool:
    """Tell whether there are only options that change nothing, and nothing after them.

    A cookie is such (RFC 7873, 5.2.2: a server may ignore it).
    """
    end = at + length
    if end != len(wire):
        return False
    while at + 4 <= end:
        option, size = _TAIL.unpack_from(wire, at)
        if option != 10:
            return False
        at += 4 + size
    return at == end


def rendered(question: Question, answer: Answer, limit: int) -> bytes | None:
    """Write the answer; ``None`` if it is too long, at least without compression of what is in values."""
    places = {name: 12 + len(question.name) - len(name) for name in suffixes(question.name) if name != b"\0"}
    parts, counts = [question.raw], list[int]()
    for section in (answer.answer, answer.authority, answer.additional):
        counts.append(sum(len(rrset.rdatas) for rrset in section))
        parts += (part for rrset in section for part in _records(rrset, places))
    if question.dnssec is not None:
        counts[2] += 1
        parts.append(_OPT.pack(0, 41, PAYLOAD, 0, 0, _DO if question.dnssec else 0, 0))
    flags = _QR | (_AA if answer.authoritative else 0) | (question.flags & _RD) | answer.rcode
    wire = _HEADER.pack(question.id, flags, 1, *counts) + b"".join(parts)
    return wire if len(wire) <= limit else None


def _records(rrset: Rrset, places: dict[bytes, int]) -> Iterator[bytes]:
    place = places.get(rrset.owner)
    owner = rrset.owner if place is None else (0xC000 | place).to_bytes(2, "big")
    for rdata in rrset.rdatas:
        yield owner + _RECORD.pack(rrset.type, 1, rrset.ttl, len(rdata)) + rdata


def transfer(id_: int, question: bytes, rrsets: Iterable[Rrset]) -> Iterator[bytes]:
    """Write the messages of a zone transfer (RFC 5936); the question stands in the first."""
    parts, size, opening = list[bytes](), 0, question
    for record in (record for rrset in rrsets for record in _records(rrset, {})):
        if size + len(record) > _CHUNK and parts:
            yield _message(id_, opening, parts)
            parts, size, opening = [], 0, b""
        parts.append(record)
        size += len(record)
    yield _message(id_, opening, parts)


def _message(id_: int, question: bytes, records: list[bytes]) -> bytes:
    header = _HEADER.pack(id_, _QR | _AA, 1 if question else 0, len(records), 0, 0)
    return header + question + b"".join(records)
