"""Names in DNS that lead to machines: pointed to others, and back, each record set as it was seen and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Literal

import attrs

from shiftable.compute import MachineInfo
from shiftable.dns import RecordChange, RecordSet, Zone
from shiftable.errors import MigrationError

__all__ = ["Held", "NamedRecord", "Pointer", "aimed", "moved_back", "point"]

_TYPES: tuple[Literal["A", "AAAA"], ...] = ("A", "AAAA")


@attrs.frozen
class NamedRecord:
    """A name whose addresses are to be those of the machines.

    Args:
        label: of ``[dns.LABEL]``.
        provider: label of the provider that answers for the zone.
        name: within the zone, ``www``, or in full with a dot.
    """

    label: str
    provider: str
    name: str


@attrs.frozen(kw_only=True)
class Held:
    """What a record set holds."""

    ttl: int
    values: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Pointer:
    """A record set that leads to machines, as it is written down.

    Args:
        before: what it held when it was first seen; ``None``: there was none.
        written: all that it was to hold since, the last one last.
    """

    label: str
    provider: str
    name: str
    type: str
    before: Held | None
    written: tuple[Held | None, ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Which record set it is."""
        return self.label, self.provider, self.name, self.type

    @property
    def wanted(self) -> Held | None:
        """What it is to hold."""
        return self.written[-1]

    def to_hold(self, wanted: Held | None) -> Pointer:
        """Return it with something else to hold."""
        return self if wanted == self.wanted else attrs.evolve(self, written=(*self.written, wanted))

    def __str__(self) -> str:
        return f"{self.name} {self.type}"


Zones = Callable[[str, str], Zone]
"""Opens a zone by its label, at a provider by its label."""


def aimed(
    records: Sequence[NamedRecord],
    known: Sequence[Pointer],
    zones: Zones,
    *,
    old: frozenset[str],
    new: Sequence[MachineInfo],
    force: bool,
) -> tuple[Pointer, ...]:
    """Say what each record set is to hold, those that are known already among them. Changes nothing.

    Args:
        old: addresses of the machines that the names lead to now.
        force: also names that lead to something else.

    Raises:
        MigrationError: a name leads to something else, or is answered by rules; the new machines have no address.
    """
    pointers = {pointer.key: pointer for pointer in known}
    wanted = _addresses(new)
    if (records or known) and not any(wanted.values()):
        raise MigrationError("the new machines have no address that a name could lead to")
    for record in records:
        zone = zones(record.label, record.provider)
        name = zone.record(record.name, "A", "192.0.2.1").name
        held = {each.type: each for each in zone.records(name=name)}
        if "CNAME" in held or any(each.policy for each in held.values() if each.type in _TYPES):
            raise MigrationError(
                f"{name} is a CNAME, an alias or answered by rules of its provider; change it yourself, and leave it"
                " out here"
            )
        for kind in _TYPES:
            key = record.label, record.provider, name, kind
            if key not in pointers and (kind in held or wanted[kind]):
                pointers[key] = _seen(record, name, kind, held.get(kind), old, force=force)
    return tuple(
        each.to_hold(_held(wanted[each.type], each.before, zones(each.label, each.provider).ttl))
        for each in pointers.values()
    )


def _seen(
    record: NamedRecord, name: str, kind: str, found: RecordSet | None, old: frozenset[str], *, force: bool
) -> Pointer:
    """Write down what a record set holds before anything is changed."""
    before = _of(found)
    others = [value for value in (before.values if before else ()) if value not in {*map(_spelt, old)}]
    if others and not force:
        raise MigrationError(
            f"{name} {kind} leads to {', '.join(others)}, which is no machine of the old side; look at it, or leave it"
            " out (--force takes it over)"
        )
    return Pointer(label=record.label, provider=record.provider, name=name, type=kind, before=before, written=(before,))


def point(pointers: Iterable[Pointer], zones: Zones) -> int:
    """Let record sets hold what they are to hold, and return how many were changed.

    All are looked at before the first is changed; each is changed only if it still holds what was seen.

    Raises:
        MigrationError: somebody else has changed one.
    """
    changes: dict[tuple[str, str], list[RecordChange]] = {}
    for pointer in pointers:
        zone = zones(pointer.label, pointer.provider)
        found = next(zone.records(name=pointer.name, type=pointer.type), None)
        held = _of(found)
        if held not in (pointer.before, *pointer.written):
            now = ", ".join(held.values) if held is not None else "nothing"
            raise MigrationError(
                f"somebody has changed {pointer} meanwhile: it leads to {now}; put it right, then run this again"
            )
        if held == pointer.wanted:
            continue
        after = pointer.wanted
        record = None if after is None else zone.record(pointer.name, pointer.type, after.values, ttl=after.ttl)
        changes.setdefault((pointer.label, pointer.provider), []).append(RecordChange(before=found, after=record))
    for (label, provider), each in changes.items():
        zones(label, provider).change(each)
    return sum(map(len, changes.values()))


def moved_back(pointer: Pointer, before: Sequence[MachineInfo], now: Sequence[MachineInfo]) -> Pointer:
    """Let a record set hold what it held before, with the addresses that those machines have now.

    A machine that was stopped comes back with another public address on most clouds; the old one is somebody else's.

    Raises:
        MigrationError: a machine has no such address any more.
    """
    if pointer.before is None:
        return pointer.to_hold(None)
    values = [_now(value, pointer, before, now) for value in pointer.before.values]
    return pointer.to_hold(attrs.evolve(pointer.before, values=tuple(sorted({*values}))))


def _now(value: str, pointer: Pointer, before: Sequence[MachineInfo], now: Sequence[MachineInfo]) -> str:
    was = next((each for each in before if value in map(_spelt, (*each.public_addresses, *each.addresses))), None)
    if was is None:  # it never was one of the machines
        return value
    here = next((each for each in now if each.name == was.name), None)
    public = value in map(_spelt, was.public_addresses)
    mine = () if here is None else here.public_addresses if public else here.addresses
    fitting = [_spelt(each) for each in mine if _kind(each) == pointer.type]
    if value in fitting:
        return value
    if not fitting:
        raise MigrationError(f"{pointer} led to {was.name} at {value}, which has no such address any more")
    return fitting[0]


def _addresses(machines: Sequence[MachineInfo]) -> dict[str, tuple[str, ...]]:
    """Return where machines are reached, by type of record: from the internet, if any of them can be.

    An address of this computer alone, as QEMU's user networking has, is nothing that a name could lead to.
    """
    public = any(each.public_addresses for each in machines)
    told = {
        _spelt(each) for machine in machines for each in (machine.public_addresses if public else machine.addresses)
    }
    every = {each for each in told if not ip_address(each).is_loopback}
    return {kind: tuple(sorted(each for each in every if _kind(each) == kind)) for kind in _TYPES}


def _kind(address: str) -> str:
    return "A" if ip_address(address).version == 4 else "AAAA"


def _spelt(address: str) -> str:
    """Return an address as it is always written: IPv6 knows many ways."""
    return ip_address(address).compressed


def _held(values: tuple[str, ...], before: Held | None, ttl: int) -> Held | None:
    return Held(ttl=before.ttl if before else ttl, values=values) if values else None


def _of(record: RecordSet | None) -> Held | None:
    return None if record is None else Held(ttl=record.ttl, values=tuple(sorted(map(_spelt, record.texts))))
