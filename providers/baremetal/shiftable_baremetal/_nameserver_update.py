"""Dynamic updates (RFC 2136): what a message asks of a zone, as changes of record sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.update

from shiftable.dns._wire import canonical_rdata
from shiftable.dns.driver import RecordChange, RecordKey, RecordSet, is_within

__all__ = ["Refused", "changes_of"]

Rcode = dns.rcode.Rcode

_META = frozenset({"ANY", "AXFR", "IXFR", "MAILA", "MAILB", "OPT", "TKEY", "TSIG"})
_BESIDE_CNAME = frozenset({"CNAME", "KEY", "NSEC", "RRSIG"})
_SINGLE = frozenset({"CNAME", "DNAME", "SOA"})


class Refused(Exception):
    """An update is answered with an error code."""

    def __init__(self, rcode: dns.rcode.Rcode, why: str) -> None:
        super().__init__(why)
        self.rcode = rcode


@attrs.frozen
class _Item:
    """One record of the message: an addition, a deletion or a prerequisite.

    Args:
        rdata: ``None`` where the whole set, or with ``ANY`` the whole name, is meant.
        mode: ``NONE`` or ``ANY`` of RFC 2136; ``None`` for the class of the zone.
    """

    key: RecordKey
    ttl: int
    rdata: bytes | None
    mode: int | None

    @classmethod
    def of(cls, rrset: dns.rrset.RRset, origin: str) -> _Item:
        """Read what dnspython found: one record in each set."""
        kind = dns.rdatatype.to_text(rrset.rdtype)
        key = RecordSet(name=rrset.name.to_text(), type=kind, ttl=0, rdatas=()).key
        if not is_within(key.name, origin):
            raise Refused(Rcode.NOTZONE, f"{key.name} is not in the zone")
        first: Any = next(iter(rrset), None)
        return cls(key, int(rrset.ttl), None if first is None else first.to_wire(), rrset.deleting)


@attrs.define
class _Zone:
    """The record sets of the names that a message is about, as they become one record after the other."""

    origin: str
    sets: dict[RecordKey, RecordSet]

    def types(self, name: str) -> set[str]:
        """Return the types that a name has."""
        return {key.type for key in self.sets if key.name == name}

    def is_own(self, key: RecordKey) -> bool:
        """Tell whether that is the SOA or the NS of the zone itself."""
        return key.name == self.origin and key.type in {"SOA", "NS"}


def changes_of(
    message: dns.update.UpdateMessage, origin: str, records: Mapping[RecordKey, RecordSet]
) -> tuple[RecordChange, ...]:
    """Return what an update changes in a zone.

    What RFC 2136 says is to be ignored is ignored: data beside a CNAME, an older SOA, the end of the zone's own NS.

    Raises:
        Refused: a prerequisite does not hold, or the message is wrong.
    """
    conditions = [_Item.of(rrset, origin) for rrset in message.prerequisite]
    items = [_Item.of(rrset, origin) for rrset in message.update]
    names = {item.key.name for item in (*conditions, *items)}
    before = {key: record for key, record in records.items() if key.name in names}
    zone = _Zone(origin, dict(before))
    _check(conditions, zone)
    for item in items:
        _scan(item)
    for item in items:
        _take(item, zone)
    keys = sorted({*before, *zone.sets})
    return tuple(
        RecordChange(before=before.get(key), after=zone.sets.get(key))
        for key in keys
        if _differ(before.get(key), zone.sets.get(key))
    )


def _differ(before: RecordSet | None, after: RecordSet | None) -> bool:
    """Tell two record sets apart; the serial of an SOA counts here."""
    return before != after or (after is not None and after.type == "SOA" and before is not after)


# RFC 2136, 3.2: prerequisites


def _check(conditions: Iterable[_Item], zone: _Zone) -> None:
    wanted = dict[RecordKey, set[bytes]]()
    for item in conditions:
        if item.ttl:
            raise Refused(Rcode.FORMERR, "a prerequisite has a TTL")
        if item.rdata is not None:
            wanted.setdefault(item.key, set()).add(canonical_rdata(item.key.type, item.rdata))
        elif item.key.type == "ANY":
            _check_name(item, zone)
        else:
            _check_set(item, zone)
    for key, values in wanted.items():
        held = zone.sets.get(key)
        if held is None or held.canonical != values:
            raise Refused(Rcode.NXRRSET, f"{key} is not as it was")


def _check_name(item: _Item, zone: _Zone) -> None:
    exists = bool(zone.types(item.key.name))
    if item.mode == dns.rdataclass.ANY and not exists:
        raise Refused(Rcode.NXDOMAIN, f"{item.key.name} does not exist")
    if item.mode == dns.rdataclass.NONE and exists:
        raise Refused(Rcode.YXDOMAIN, f"{item.key.name} exists")


def _check_set(item: _Item, zone: _Zone) -> None:
    exists = item.key in zone.sets
    if item.mode == dns.rdataclass.ANY and not exists:
        raise Refused(Rcode.NXRRSET, f"{item.key} does not exist")
    if item.mode == dns.rdataclass.NONE and exists:
        raise Refused(Rcode.YXRRSET, f"{item.key} exists")


# RFC 2136, 3.4: updates


def _scan(item: _Item) -> None:
    """Refuse a record that no server may take, before anything is changed."""
    whole_name = item.mode == dns.rdataclass.ANY and item.key.type == "ANY"
    if item.key.type in _META and not whole_name:
        raise Refused(Rcode.FORMERR, f"{item.key} cannot be changed")
    if item.mode is not None and item.ttl:
        raise Refused(Rcode.FORMERR, "a deletion has a TTL")
    if item.mode != dns.rdataclass.ANY and item.rdata is None:
        raise Refused(Rcode.FORMERR, f"{item.key} has no value")


def _take(item: _Item, zone: _Zone) -> None:
    if item.mode is None:
        _add(item, zone)
    elif item.mode == dns.rdataclass.NONE:
        _delete_value(item, zone)
    else:
        for kind in zone.types(item.key.name) if item.key.type == "ANY" else {item.key.type}:
            key = RecordKey(item.key.name, kind)
            if not zone.is_own(key):
                zone.sets.pop(key, None)


def _add(item: _Item, zone: _Zone) -> None:
    key, rdata = item.key, item.rdata or b""
    others = zone.types(key.name) - _BESIDE_CNAME
    held = zone.sets.get(key)
    if (key.type == "CNAME" and others) or (key.type not in _BESIDE_CNAME and "CNAME" in zone.types(key.name)):
        return
    if key.type == "SOA" and (held is None or not _is_newer(rdata, held.rdatas[0])):
        return
    values = {} if held is None or key.type in _SINGLE else _by_canonical(held)
    values[canonical_rdata(key.type, rdata)] = rdata
    zone.sets[key] = RecordSet(name=key.name, type=key.type, ttl=item.ttl, rdatas=tuple(values.values()))


def _delete_value(item: _Item, zone: _Zone) -> None:
    held = zone.sets.get(item.key)
    if held is None or item.key.type == "SOA":
        return
    values = _by_canonical(held)
    values.pop(canonical_rdata(item.key.type, item.rdata or b""), None)
    if values:
        zone.sets[item.key] = attrs.evolve(held, rdatas=tuple(values.values()))
    elif not zone.is_own(item.key):
        del zone.sets[item.key]


def _by_canonical(record: RecordSet) -> dict[bytes, bytes]:
    return {canonical_rdata(record.type, rdata): rdata for rdata in record.rdatas}


def _is_newer(rdata: bytes, than: bytes) -> bool:
    serials = (int.from_bytes(each[-20:-16], "big") for each in (rdata, than))
    new, old = serials
    return 0 < (new - old) % 2**32 < 2**31  # RFC 1982, 3.2
