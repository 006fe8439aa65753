"""What DNS itself forbids, whatever the provider lets pass: half of them answer NOERROR and ignore it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from shiftable.dns.driver import SERVER_TYPES, RecordChange, RecordKey, RecordSet, is_within

__all__ = ["broken_rules", "is_already", "too_many", "unheld"]

_SMALL = 10
_SHARE = 0.3
_QUERY_TYPES = frozenset({"ANY", "AXFR", "IXFR", "MAILA", "MAILB", "NONE", "OPT", "TKEY", "TSIG"})
_NOBODYS = SERVER_TYPES | _QUERY_TYPES
_SINGLE = frozenset({"CNAME", "DNAME", "SOA"})
_BESIDE_CNAME = frozenset({"CNAME", "KEY", *SERVER_TYPES})  # RFC 2181, 10.1 and RFC 4034, 2.5
_LONGEST_RDATA = 65535  # RFC 1035, 3.2.1: its length is 16 bits

Zone = Mapping[RecordKey, RecordSet]


def too_many(touched: int, there: int, *, limit: int | None = None, share: float = _SHARE) -> str | None:
    """Say how much of a zone is replaced or deleted at most where nobody looks on; ``None`` if it is not more.

    Args:
        touched: record sets that would be replaced or deleted, of those that are there.
        limit: the most of them, instead of the share, which counts for zones with ten or more.
    """
    if limit is None and there < _SMALL:
        return None
    if touched <= (there * share if limit is None else limit):
        return None
    return f"{share:.0%}" if limit is None else f"{limit:,} record sets"


def _after(current: Zone, changes: tuple[RecordChange, ...]) -> dict[RecordKey, RecordSet]:
    """Return what those record sets are when the changes have happened."""
    result = dict(current)
    for change in changes:
        if change.after is None:
            result.pop(change.key, None)
        else:
            result[change.key] = change.after
    return result


def broken_rules(origin: str, current: Zone, changes: tuple[RecordChange, ...], *, apex: bool) -> Iterator[str]:
    """Say what is wrong with a batch of changes, all of it.

    Args:
        current: all record sets of the names that are changed.
        apex: whether the SOA and NS of the zone itself may be changed.
    """
    seen = set[RecordKey]()
    for change in changes:
        if change.key in seen:
            yield f"{change.key}: it is changed twice in one batch"
        seen.add(change.key)
        yield from (f"{change.key}: {why}" for why in _set_rules(origin, change.key, change.after, apex=apex))
    names = dict.fromkeys(change.key.name for change in changes)
    final: dict[str, list[RecordSet]] = {name: [] for name in names}
    for record in _after(current, changes).values():
        if record.name in final:
            final[record.name].append(record)
    for name, records in final.items():
        yield from (f"{name}: {why}" for why in _name_rules(records))


def is_already(before: RecordSet | None, after: RecordSet | None) -> bool:
    """Tell whether all is as wanted. What DNS forbids never is: a value that is given twice, say."""
    return before == after and (after is None or not any(_record_rules(after)))


def unheld(origin: str, record: RecordSet) -> str | None:
    """Say why no zone of that name could have such a record set; ``None`` if it could."""
    return next(_set_rules(origin, record.key, record, apex=True), None)


def _set_rules(origin: str, key: RecordKey, after: RecordSet | None, *, apex: bool) -> Iterator[str]:
    if not is_within(key.name, origin):
        yield f"the name is not in the zone {origin}"
    if key.type in _NOBODYS:
        yield f"{key.type} is not for people to write"
    if key.name == origin and key.type in {"SOA", "NS"}:
        if after is None:
            yield "a zone cannot be without it"
        elif not apex:
            yield "it belongs to the zone itself; pass apex=True (--apex) to change it"
    elif key.type == "SOA":
        yield "only the zone itself has an SOA"
    if after is not None:
        yield from _record_rules(after)


def _record_rules(record: RecordSet) -> Iterator[str]:
    if not record.rdatas and record.policy is None:
        yield "it has no value"
    if len(record.canonical) < len(record.rdatas):
        yield "a value stands in it twice"
    if record.type in _SINGLE and len(record.rdatas) > 1:
        yield f"there can be only one {record.type}"
    if max(map(len, record.rdatas), default=0) > _LONGEST_RDATA:
        yield f"a value has more than {_LONGEST_RDATA:,} bytes"


def _name_rules(records: list[RecordSet]) -> Iterator[str]:
    types = {record.type for record in records}
    if "CNAME" in types and not types <= _BESIDE_CNAME:
        others = ", ".join(sorted(types - _BESIDE_CNAME))
        yield f"a CNAME cannot stand beside other records ({others})"
    routed = {record.type for record in records if record.policy and record.policy.set_id}
    plain = {record.type for record in records if not (record.policy and record.policy.set_id)}
    for mixed in sorted(routed & plain):
        yield f"{mixed} records with and without a set id cannot stand together"
