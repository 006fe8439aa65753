"""What a fleet needs to be as declared: which machines are wrong, too many, or not there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

import attrs

from shiftable.compute._firewall import as_declared_ports
from shiftable.compute.driver import GIB, DiskImage, FleetSpec, MachineInfo, Size

__all__ = [
    "FIREWALL",
    "LABELS",
    "MADE_ANEW",
    "SIZE",
    "as_declared",
    "failed",
    "import_token",
    "in_order",
    "machine_name",
    "missing",
    "number_of",
    "of_machine",
    "steps",
    "surplus",
    "token_of",
    "wrongly_labelled",
    "wrongly_made",
    "wrongly_sized",
]

MADE_ANEW = frozenset({"image", "arch", "gpus", "disk_gib", "zone", "zones", "spot", "public_ip"})
"""What no machine changes while it lives."""

SIZE = frozenset({"cpus", "memory_gib"})
"""What a machine changes while it is stopped, where the provider resizes it."""

FIREWALL = frozenset({"open_ports", "allow_from", "rules"})
"""What the machines share."""

LABELS = frozenset({"labels"})
"""What each machine changes while it runs."""

_NAMESPACE = uuid.UUID("7a1c5b0e-3c62-5d0f-9f0a-2b6f0a3f7d11")


def machine_name(fleet: str, number: int) -> str:
    """Return the name of a fleet's machine, counted from 0."""
    return f"{fleet}-{number}"


def token_of(name: str) -> str:
    """Return the client token with which a machine is made: always the same, so that an answer may be lost."""
    return str(uuid.uuid5(_NAMESPACE, name))


def import_token(name: str, source: DiskImage) -> str:
    """Return the token with which an image is imported: always the same for the same name and content."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps([name, *attrs.astuple(source)])))


def number_of(fleet: str, machine: str) -> int:
    """Return the number in a machine's name; one that is called otherwise comes last."""
    number = machine.removeprefix(f"{fleet}-")
    return int(number) if number.isdecimal() and number.isascii() else 2**31


def of_machine(spec: FleetSpec, number: int) -> FleetSpec:
    """Return the declaration of one machine: with its own zone, where they take turns."""
    return attrs.evolve(spec, zone=spec.zones[number % len(spec.zones)], zones=()) if spec.zones else spec


def in_order(fleet: str, machines: Sequence[MachineInfo]) -> list[MachineInfo]:
    """Sort machines by their numbers."""
    return sorted(machines, key=lambda machine: (number_of(fleet, machine.name), machine.name, machine.id))


def missing(spec: FleetSpec, living: Sequence[MachineInfo], taken: frozenset[str]) -> list[str]:
    """Return the names of the machines that are to be made: the lowest numbers that are free."""
    names = (machine_name(spec.name, number) for number in range(spec.count + len(taken)))
    return list(islice((name for name in names if name not in taken), max(0, spec.count - len(living))))


def surplus(spec: FleetSpec, machines: Sequence[MachineInfo]) -> list[MachineInfo]:
    """Return the machines that are too many: those that failed, then the highest numbers."""
    ordered = in_order(spec.name, machines)
    return sorted(ordered, key=lambda machine: machine.state == "failed")[spec.count :]


def failed(spec: FleetSpec, machines: Sequence[MachineInfo]) -> list[MachineInfo]:
    """Return the machines that failed, without those that are too many anyway."""
    gone = {machine.id for machine in surplus(spec, machines)}
    return [m for m in in_order(spec.name, machines) if m.state == "failed" and m.id not in gone]


def wrongly_made(spec: FleetSpec, machines: Sequence[MachineInfo]) -> list[MachineInfo]:
    """Return the machines that would have to be made anew to be as declared."""
    return [machine for machine in in_order(spec.name, machines) if any(_differing(spec, machine))]


def wrongly_sized(spec: FleetSpec, machines: Sequence[MachineInfo], size: Size) -> list[MachineInfo]:
    """Return the machines that are larger or smaller; another size of the same extent will do."""
    return [machine for machine in in_order(spec.name, machines) if not _has_size(machine, size)]


def wrongly_labelled(spec: FleetSpec, machines: Sequence[MachineInfo]) -> list[MachineInfo]:
    """Return the machines that lack labels or have others; those that nobody declared do not count."""
    return [machine for machine in in_order(spec.name, machines) if _labels(spec, machine) != spec.labels]


def _labels(spec: FleetSpec, machine: MachineInfo) -> dict[str, str]:
    return {name: machine.labels[name] for name in spec.labels if name in machine.labels}


def _has_size(machine: MachineInfo, size: Size) -> bool:
    return machine.size == size.name or (machine.cpus, machine.memory) == (size.cpus, size.memory)


def _differing(spec: FleetSpec, machine: MachineInfo) -> Iterator[str]:
    """Yield the fields of a declaration that no machine changes while it lives."""
    kept = {
        "image": machine.image == spec.image,
        "arch": machine.arch == spec.arch,
        "gpus": machine.gpus >= spec.gpus and bool(machine.gpus) is bool(spec.gpus),
        "disk_gib": machine.disk_gib >= spec.disk_gib,
        "zones" if spec.zones else "zone": of_machine(spec, number_of(spec.name, machine.name)).zone
        in (None, machine.zone),
        "spot": machine.spot == spec.spot,
        "public_ip": bool(machine.public_addresses) is spec.public_ip or machine.state != "running",
    }
    yield from (name for name, same in kept.items() if not same)


def as_declared(spec: FleetSpec, machines: Sequence[MachineInfo], size: Size) -> FleetSpec:
    """Return the fleet in the declaration's words: as declared, but where a machine differs, as that machine is."""
    found: dict[str, Any] = {"count": len(machines)}
    for machine in in_order(spec.name, machines):
        values = {
            "image": machine.image,
            "arch": machine.arch,
            "gpus": machine.gpus,
            "disk_gib": max(1, machine.disk_gib),
            "zone": machine.zone,
            "zones": (machine.zone or "",),
            "spot": machine.spot,
            "public_ip": bool(machine.public_addresses),
        }
        for name in _differing(spec, machine):
            found.setdefault(name, values[name])
        if not _has_size(machine, size):
            found.setdefault("cpus", machine.cpus)
            found.setdefault("memory_gib", max(1, machine.memory // GIB))
        if machine.firewall != spec.firewall and not FIREWALL & found.keys():
            found.update(as_declared_ports(machine.firewall, spec.allow_from))
        if _labels(spec, machine) != spec.labels:
            found.setdefault("labels", _labels(spec, machine))
    return attrs.evolve(spec, **found)


def steps(
    current: FleetSpec, wanted: FleetSpec, made_anew: Collection[str] = MADE_ANEW
) -> Iterator[tuple[FleetSpec, FleetSpec]]:
    """Split the way from one to the other into steps of one kind: fewer or more, made anew, resized, opened, labelled.

    More of what is wanted come before any other is deleted for it: they show that such can be made.
    """
    here = current
    if wanted.count > current.count:
        yield attrs.evolve(wanted, count=current.count), wanted
        here = attrs.evolve(current, count=wanted.count)
    groups: tuple[Collection[str], ...] = (("count",), made_anew, SIZE, FIREWALL, LABELS)
    for group in groups:
        there = attrs.evolve(here, **{name: getattr(wanted, name) for name in group})
        if there != here:
            yield here, there
        here = there
