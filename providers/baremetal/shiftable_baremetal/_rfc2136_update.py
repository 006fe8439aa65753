"""The message of RFC 2136 that carries out a batch of changes, as bytes, and how large it becomes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import groupby

import attrs

from shiftable.dns.driver import RecordChange, RecordSet, canonical_rdata, labels
from shiftable_baremetal._axfr import packed, type_number

__all__ = ["LARGEST", "Draft", "dry", "forward", "question", "size", "update"]

LARGEST = 65_535
"""Bytes of a message over TCP (RFC 1035, 4.2.2)."""

_IN, _NONE, _ANY_CLASS = 1, 254, 255
_ANY = 255
_UPDATE = 5 << 11
_ORIGIN = 12  # where the zone's own name stands in a message: right after the head
_PLACEHOLDER = packed((b"placeholder", b"invalid"))
_HEAD = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")


@attrs.frozen
class Draft:
    """An update without its number and its signature."""

    zone: bytes
    prerequisites: tuple[bytes, ...]
    updates: tuple[bytes, ...]

    def wire(self, id: int) -> bytes:
        """Return the message, with its number."""
        head = _HEAD.pack(id, _UPDATE, 1, len(self.prerequisites), len(self.updates), 0)
        return b"".join((head, self.zone, struct.pack("!HH", 6, _IN), *self.prerequisites, *self.updates))

    @property
    def size(self) -> int:
        """Return how many bytes it has."""
        return _HEAD.size + len(self.zone) + 4 + sum(map(len, self.prerequisites)) + sum(map(len, self.updates))


def question(id: int, name: bytes, kind: int, authority: bytes = b"") -> bytes:
    """Return a plain question.

    Args:
        authority: the record that an IXFR has there.
    """
    head = _HEAD.pack(id, 0, 1, 0, 1 if authority else 0, 0)
    return b"".join((head, name, struct.pack("!HH", kind, _IN), authority))


def update(origin: str, changes: Iterable[RecordChange], soa: RecordSet | None = None) -> Draft:
    """Return the message for a batch: what must be, then what goes, then what comes.

    Servers answer NOERROR to a good part of what they ignore. So the prerequisites do not only say what was before:

    * no CNAME where another record comes, and nothing at all where a CNAME comes;
    * NS where a DS comes, and no DS where NS go: else BIND drops the DS, without a word.

    Args:
        soa: as it is now, where the SOA is to change: its serial only goes forward.
    """
    zone = packed(labels(origin))
    conditions: dict[bytes, None] = {}
    gone, new = list[bytes](), list[bytes]()
    for name, group in groupby(sorted(changes, key=lambda each: each.key), key=lambda each: each.key.name):
        together = tuple(group)
        owner = _owner(name, origin)
        for change in together:
            before = soa if soa is not None and change.key.type == "SOA" else change.before
            conditions.update(dict.fromkeys(_as_before(owner, change.key.type, before)))
            out, come = _effect(owner, change, soa, apex=name == origin)
            gone += out
            new += come
        conditions.update(dict.fromkeys(_companions(owner, together)))
    return Draft(zone, tuple(conditions), (*gone, *new))


def dry(origin: str, changes: tuple[RecordChange, ...], soa: RecordSet | None = None) -> Draft:
    """Return a message that makes the changes and takes them back, in one: the server only says what it thinks."""
    there = update(origin, changes, soa)
    back = update(origin, [RecordChange(before=change.after, after=change.before) for change in changes])
    return attrs.evolve(there, updates=(*there.updates, *back.updates))


def size(origin: str, changes: tuple[RecordChange, ...]) -> int:
    """Return how many bytes the changes of one or more names add to a message."""
    return update(origin, changes).size - (_HEAD.size + len(packed(labels(origin))) + 4)


def _owner(name: str, origin: str) -> bytes:
    """Return a name within the zone, its end a pointer to the zone's own (RFC 1035, 4.1.4)."""
    inner, outer = labels(name), labels(origin)
    own = inner[: len(inner) - len(outer)]
    return packed(own)[:-1] + struct.pack("!H", 0xC000 | _ORIGIN)


def _record(owner: bytes, kind: str | int, cls: int, ttl: int = 0, rdata: bytes = b"") -> bytes:
    number = kind if isinstance(kind, int) else type_number(kind)
    return b"".join((owner, _RECORD.pack(number, cls, ttl, len(rdata)), rdata))


def _as_before(owner: bytes, kind: str, before: RecordSet | None) -> Iterator[bytes]:
    """Demand that a record set be what it was: all of its values, or none (RFC 2136, 2.4). TTLs are not compared."""
    if before is None:
        yield _record(owner, kind, _NONE)
    else:
        yield from (_record(owner, kind, _IN, 0, rdata) for rdata in before.rdatas)


def _companions(owner: bytes, together: tuple[RecordChange, ...]) -> Iterator[bytes]:
    """Demand what must or must not stand beside what comes and what stays."""
    there = {change.key.type for change in together}
    comes = {change.key.type for change in together if change.before is None}
    goes = {change.key.type for change in together if change.after is None}
    if "CNAME" in comes and there == {"CNAME"}:
        yield _record(owner, _ANY, _NONE)
    elif comes - {"CNAME"} and "CNAME" not in there:
        yield _record(owner, "CNAME", _NONE)
    if "DS" in comes and "NS" not in there:
        yield _record(owner, "NS", _ANY_CLASS)
    if "NS" in goes and "DS" not in there:
        yield _record(owner, "DS", _NONE)


def _effect(
    owner: bytes, change: RecordChange, soa: RecordSet | None, *, apex: bool
) -> tuple[list[bytes], list[bytes]]:
    """Return what goes and what comes."""
    kind, after = change.key.type, change.after
    if kind == "SOA" and after is not None:
        return [], [_record(owner, kind, _IN, after.ttl, forward(after, soa))]
    comes = [] if after is None else [_record(owner, kind, _IN, after.ttl, rdata) for rdata in after.rdatas]
    if not (apex and kind == "NS" and after is not None and change.before is not None):
        return ([] if change.before is None else [_record(owner, kind, _ANY_CLASS)]), comes
    return [], _swapped(owner, change.before, after)


def _swapped(owner: bytes, before: RecordSet, after: RecordSet) -> list[bytes]:
    """Replace the NS of the zone itself. A server ignores that the last of them goes: the new come before the old go.

    Knot also ignores a value that is there already with another TTL. Where one stays and the TTL changes, all go while
    a placeholder stands in, which nobody sees: a message happens as a whole.
    """
    comes = [_record(owner, "NS", _IN, after.ttl, rdata) for rdata in after.rdatas]
    if before.ttl == after.ttl or not before.canonical & after.canonical:
        goes = [rdata for rdata in before.rdatas if canonical_rdata("NS", rdata) not in after.canonical]
        return [*comes, *(_record(owner, "NS", _NONE, 0, rdata) for rdata in goes)]
    out = [_record(owner, "NS", _NONE, 0, rdata) for rdata in before.rdatas]
    arrives = _record(owner, "NS", _IN, after.ttl, _PLACEHOLDER)
    return [arrives, *out, *comes, _record(owner, "NS", _NONE, 0, _PLACEHOLDER)]


def forward(after: RecordSet, soa: RecordSet | None) -> bytes:
    """Return an SOA with a serial that is ahead of the one there is (RFC 1982): servers ignore any other."""
    (rdata,) = after.rdatas
    if soa is None:
        return rdata
    now, wanted = (int.from_bytes(each[-20:-16], "big") for each in (soa.rdatas[0], rdata))
    serial = wanted if 0 < (wanted - now) % 2**32 < 2**31 else (now + 1) % 2**32
    return rdata[:-20] + serial.to_bytes(4, "big") + rdata[-16:]
