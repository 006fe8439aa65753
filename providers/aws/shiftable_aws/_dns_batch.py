"""Batches of changes for Route 53: what they are made of, how big they are, in which order, and who is to blame."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Self

import attrs

from shiftable.dns.driver import RecordChange, RecordKey, RecordSet
from shiftable_aws._dns_records import is_alias, listed_values, native_name, native_record, native_values

__all__ = [
    "MAX_CHARACTERS",
    "MAX_ELEMENTS",
    "Entry",
    "TooBig",
    "blamed",
    "characters",
    "entries",
    "is_only_about",
    "split",
]

MAX_ELEMENTS = 1000  # Route 53 quotas, ChangeResourceRecordSets
MAX_CHARACTERS = 32_000  # the same

_FULL = (MAX_ELEMENTS, MAX_CHARACTERS)

Size = tuple[int, int]
"""Elements and characters."""

_NAMED = (
    re.compile(r"\[name='(?P<name>[^']+)', type='(?P<type>\w+)'(?:, set-identifier='(?P<id>[^']*)')?\]"),
    re.compile(r"RRSet of type\s+(?P<type>\w+) with DNS name (?P<name>\S+)"),
    re.compile(r"RRSet with DNS name (?P<name>[^\s,]+)(?:, type (?P<type>\w+))?(?:, SetIdentifier (?P<id>\S+))?"),
    re.compile(r"for a resource record set '(?P<type>\w+) (?P<name>[^']+)'"),
    re.compile(r"Name=(?P<name>[^,\]]+), Type=(?P<type>\w+)(?:, SetIdentifier=(?P<id>[^\]]*))?"),
)
_BEFORE_VALUES = ("encountered with", "Duplicate Resource Record:")
_TARGET = re.compile(r"alias that targets (?P<name>[^\s,]+), type (?P<type>\w+)")


class TooBig(ValueError):
    """One change alone is more than one request takes."""


@attrs.frozen
class Entry:
    """One element of a request, and the change that it is part of."""

    action: str
    native: Mapping[str, Any]
    change: RecordChange

    @property
    def values(self) -> list[str]:
        """The values that it sends."""
        return [entry["Value"] for entry in self.native.get("ResourceRecords", ())]

    @property
    def size(self) -> Size:
        """What counts: elements and characters, twice for UPSERT. An alias counts as one, so that there is a bound."""
        times = 2 if self.action == "UPSERT" else 1
        return times * len(self.values) or 1, times * sum(map(len, self.values))

    @property
    def sent(self) -> dict[str, Any]:
        """What goes over the wire."""
        return {"Action": self.action, "ResourceRecordSet": dict(self.native)}


def entries(zone: str, changes: Iterable[RecordChange]) -> list[Entry]:
    """Return what a request for these changes has in it, in the order that Route 53 asks for.

    Deletions first, those of aliases before all; then what is created, an alias after its target.

    Raises:
        TooBig: for one change that no request holds.
    """
    found = [entry for change in changes for entry in _entries_of(zone, change)]
    depths = _depths(found)
    return sorted(found, key=lambda entry: (entry.action != "DELETE", depths[id(entry)]))


def _entries_of(zone: str | None, change: RecordChange) -> list[Entry]:
    """Return one change as elements: a deletion of exactly what was, and a creation. So Route 53 decides ``before``."""
    before = [
        Entry("DELETE", native_record(record, listed_values(record)), change) for record in (change.before,) if record
    ]
    after = [
        Entry("CREATE", native_record(record, native_values(record)), change) for record in (change.after,) if record
    ]
    if before and after:
        upsert = attrs.evolve(after[0], action="UPSERT")
        if change.key.type in {"NS", "SOA"} and zone in {None, change.key.name.removesuffix(".")}:
            return [upsert]  # a zone is never without its own, not even between two changes
        if not _fits(_FULL, _sum(entry.size for entry in before + after)):
            if _fits(_FULL, upsert.size):
                return [upsert]
            raise TooBig(
                f"{change.key}: what it was and what it becomes have more than {MAX_ELEMENTS:,} values or "
                f"{MAX_CHARACTERS:,} characters, and Route 53 takes no more in one request; delete it first"
            )
    return before + after


def _depths(found: list[Entry]) -> dict[int, int]:
    """Say how many aliases stand between an element and a value; for deletions the other way round."""
    created = {_place(entry.native): entry for entry in found if entry.action != "DELETE"}

    def depth(entry: Entry, seen: frozenset[int]) -> int:
        if not is_alias(entry.native) or id(entry) in seen:
            return 0
        target = created.get((_lower(entry.native["AliasTarget"].get("DNSName", "")), entry.native["Type"]))
        return 1 + (depth(target, seen | {id(entry)}) if target is not None else 0)

    return {
        id(entry): depth(entry, frozenset()) if entry.action != "DELETE" else -int(is_alias(entry.native))
        for entry in found
    }


def _place(native: Mapping[str, Any]) -> tuple[str, str]:
    return _lower(native["Name"]), native["Type"]


def _lower(native: str) -> str:
    r"""Return a native name in one spelling, to compare it: ``\052`` and ``*`` are the same."""
    plain = re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), native)
    return f"{plain.removesuffix('.').lower()}."


def split(changes: Iterable[RecordChange]) -> Iterator[tuple[RecordChange, ...]]:
    """Split changes into requests; those of one name stay together, and targets come before their aliases."""
    parts = [_Part.of(change) for change in sorted(changes, key=lambda change: change.key)]
    depths = _depths([entry for part in parts for entry in part.entries])
    names = [list(group) for _, group in groupby(parts, key=lambda part: part.change.key.name)]
    batch, room = list[_Part](), _FULL
    for together in sorted(names, key=lambda group: max(part.rank(depths) for part in group)):
        size = _sum(part.size for part in together)
        if batch and not _fits(room, size):
            yield tuple(part.change for part in batch)
            batch, room = [], _FULL
        if _fits(_FULL, size):
            batch += together
            room = room[0] - size[0], room[1] - size[1]
        else:
            yield from _apart(together)
    if batch:
        yield tuple(part.change for part in batch)


@attrs.frozen
class _Part:
    """One change, as the elements of a request and their size."""

    change: RecordChange
    entries: tuple[Entry, ...]
    size: Size

    @classmethod
    def of(cls, change: RecordChange) -> Self:
        try:
            found = tuple(_entries_of("", change))
        except TooBig:  # alone in a request, where it is refused
            return cls(change, (), (MAX_ELEMENTS + 1, MAX_CHARACTERS + 1))
        size = _sum(entry.size for entry in found)
        if change.key.type in {"NS", "SOA"}:  # perhaps the zone's own, which is written in another way
            other = _sum(entry.size for entry in _entries_of(None, change))
            size = max(size[0], other[0]), max(size[1], other[1])
        return cls(change, found, size)

    def rank(self, depths: Mapping[int, int]) -> int:
        """Order changes as in one request: what loses aliases, what has values, what gets aliases."""
        return max((depths[id(entry)] for entry in self.entries), default=0)


def _apart(together: list[_Part]) -> Iterator[tuple[RecordChange, ...]]:
    """Split the changes of one name that no request holds: what makes room comes first."""
    batch, room = list[RecordChange](), _FULL
    for part in sorted(together, key=lambda part: part.change.after is not None):
        if batch and not _fits(room, part.size):
            yield tuple(batch)
            batch, room = [], _FULL
        batch.append(part.change)
        room = room[0] - part.size[0], room[1] - part.size[1]
    yield tuple(batch)


def _sum(sizes: Iterable[Size]) -> Size:
    found = list(sizes)
    return sum(size[0] for size in found), sum(size[1] for size in found)


def _fits(room: Size, size: Size) -> bool:
    return size[0] <= room[0] and size[1] <= room[1]


def characters(record: RecordSet) -> int:
    """Return how many characters the values of a record set have at Route 53."""
    return sum(map(len, native_values(record)))


def is_only_about(message: str, name: str) -> bool:
    """Tell whether a refusal has nothing but the deletion of one name that is not there."""
    expected = (
        rf"Tried to delete resource record set \[name='{re.escape(native_name(name))}'[^\]]*\] but it was not found"
    )
    return not re.sub(expected, "", message).strip("[], ")


def blamed(message: str, found: Iterable[Entry]) -> list[RecordKey]:
    """Return the record sets that Route 53's message is about, by name or by value."""
    named = set[tuple[str, str | None, str | None]]()
    for pattern in _NAMED:
        for match in pattern.finditer(message):
            identifier = match.groupdict().get("id")
            named.add((_lower(match["name"]), match["type"], None if identifier in {None, "null"} else identifier))
    targets = {(_lower(match["name"]), match["type"]) for match in _TARGET.finditer(message)}
    keys = dict[RecordKey, None]()
    for entry in found:
        name, kind = _place(entry.native)
        own = {(name, type_, id_) for type_ in (None, kind) for id_ in (None, entry.native.get("SetIdentifier"))}
        target = entry.native.get("AliasTarget") or {}
        if (
            own & named
            or (_lower(target.get("DNSName", "")), kind) in targets
            or any(f"{where} '{value}'" in message for value in entry.values for where in _BEFORE_VALUES)
        ):
            keys[entry.change.key] = None
    return list(keys)
