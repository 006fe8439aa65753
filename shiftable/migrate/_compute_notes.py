"""What a plan tells of a fleet beside its machines: sizes and prices on both sides, and what stays behind."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

import attrs

from shiftable.compute import Choice, Compute, FleetSpec, MachineInfo
from shiftable.compute.driver import GIB
from shiftable.errors import InvalidArgument, NotFound
from shiftable.migrate.mover import Loss
from shiftable.wording import counted

__all__ = ["Sides", "notes"]

_HOURS = 730  # of a month, as providers count them
_SHOWN = 5


@attrs.frozen
class Sides:
    """Both sides of one fleet.

    Args:
        machines: of the source.
        spec: what the target is to have.
        choice: its size there.
        declared: names of all fleets that the application declares.
    """

    source: Compute
    target: Compute
    machines: Sequence[MachineInfo]
    spec: FleetSpec
    choice: Choice
    declared: frozenset[str]


def notes(sides: Sides) -> Iterator[Loss]:
    """Tell them, each as a line of the plan."""
    yield Loss("size", _sizes(sides))
    yield Loss("price", _prices(sides))
    yield from (Loss("drift", text) for text in _drift(sides))
    yield from (Loss("disks", text) for text in _disks(sides))
    moved = _shown(f"{each.name} {each.public_addresses[0]}" for each in sides.machines if each.public_addresses)
    if moved:
        yield Loss("addresses", f"{moved}: addresses are the source's; the target gives others")
    data = sides.spec.read_user_data()
    told = f"the {len(data):,} bytes that are declared" if data is not None else "none, as none is declared"
    yield Loss("user_data", f"new machines get {told}; what the source's were made with is not read")
    if not sides.spec.ssh_keys and data is None:
        yield Loss("ssh_keys", "none is declared, and no user data: nobody will be able to log in")
    yield Loss("contents", "what is on the machines' disks does not move; an image, user data or a copy brings it")
    yield from (Loss("fleets", text) for text in _others(sides))


def _sizes(sides: Sides) -> str:
    kinds = Counter((each.size, each.cpus, each.memory) for each in sides.machines)
    here = ", ".join(
        f"{count} of {size} ({counted(cpus, 'CPU')}, {memory / GIB:g} GiB)"
        for (size, cpus, memory), count in sorted(kinds.items())
    )
    there = sides.choice.size
    smaller = any(each.cpus > there.cpus or each.memory > there.memory for each in sides.machines)
    less = "; that is less than the source has" if smaller else ""
    return f"{here or 'none'} → {sides.spec.count} of {there}{less}: {sides.choice.reason}"


def _prices(sides: Sides) -> str:
    """Say what the machines cost a month on both sides; what is not known is never nothing."""
    each = list(_source_prices(sides)) if sides.source.features.prices else [None]
    here = None if any(price is None for price in each) else sum((price or Decimal(0) for price in each), Decimal(0))
    price = sides.choice.price if sides.target.features.prices else None
    there = None if price is None else price * sides.spec.count
    told = f"a month: {_money(here)} at the source, {_money(there)} at the target"
    if here is not None and there is not None:
        more = (there - here) * _HOURS
        told += f", {_dollars(abs(more))} {'less' if more < 0 else 'more'}" if more else ", the same"
    if sides.spec.spot or any(machine.spot for machine in sides.machines):
        told += "; spot machines cost less than these"
    lists = [
        f"{name}: {side.features.price_list}"
        for name, side, amount in (("source", sides.source, here), ("target", sides.target, there))
        if amount is not None and side.features.price_list
    ]
    return f"{told}; machines alone, without disks and traffic" + (f" ({'; '.join(lists)})" if lists else "")


def _source_prices(sides: Sides) -> Iterator[Decimal | None]:
    """Yield what each machine of the source costs an hour; one made to measure stands in no list, but is chosen so."""
    known = {size.name: size.price for size in sides.source.sizes()}
    for machine in sides.machines:
        if machine.size not in known:
            like = FleetSpec(
                name=sides.spec.name,
                image=machine.image,
                cpus=machine.cpus,
                memory_gib=max(1, machine.memory // GIB),
                arch=machine.arch,
                gpus=machine.gpus,
                zone=machine.zone,
                spot=machine.spot,
            )
            with contextlib.suppress(InvalidArgument):
                choice = sides.source.choose(like)
                known[choice.size.name] = choice.price
        yield known.get(machine.size)


def _money(hourly: Decimal | None) -> str:
    return "an unknown price" if hourly is None else _dollars(hourly * _HOURS)


def _dollars(amount: Decimal) -> str:
    return f"{amount:,.2f} USD"


def _drift(sides: Sides) -> Iterator[str]:
    """Say where the source's machines are not what is declared; the declaration is what moves."""
    spec = sides.spec
    if len(sides.machines) != spec.count:
        yield f"the source has {counted(len(sides.machines), 'machine')}, and {spec.count:,} are declared"
    for name, wanted in (("arch", spec.arch), ("image", spec.image)):
        others = {getattr(each, name) for each in sides.machines} - {wanted}
        if others:
            yield f"the source's {name} is {_shown(sorted(others))}, and the target's will be {wanted}"
    larger = max((each.disk_gib for each in sides.machines), default=0)
    if larger > spec.disk_gib:
        yield f"the source's disks have {larger} GiB, and {spec.disk_gib} are declared"
    others = {key for each in sides.machines for key, value in spec.labels.items() if each.labels.get(key) != value}
    if others:
        yield f"the source's machines do not have the declared labels {_shown(sorted(others))}; the target's will"
    rules = {rule for each in sides.machines for rule in each.firewall} - {*spec.firewall}
    if rules:
        yield f"the source's firewall lets in {_shown(sorted(map(str, rules)))}, which is not declared"


def _disks(sides: Sides) -> Iterator[str]:
    attached = {disk: machine.name for machine in sides.machines for disk in machine.disks}
    if not attached:
        return
    known = {disk.id: disk for disk in sides.source.disks()} if sides.source.features.disks else {}
    for id_, machine in sorted(attached.items(), key=lambda each: (each[1], each[0])):
        disk = known.get(id_)
        told = f"{disk.name}, {disk.size_gib} GiB" if disk is not None else f"{id_}, of unknown size"
        yield f"{machine} has {told}: it is not made at the target, and its content does not move"


def _others(sides: Sides) -> Iterator[str]:
    """Name fleets of the source that nobody declares, as a declaration would say them."""
    beside = sorted(fleet.name for fleet in sides.source.list() if fleet.name not in sides.declared)
    for name in beside[:_SHOWN]:
        try:
            found = sides.source.describe(name)
        except NotFound:  # since the listing
            continue
        except InvalidArgument:  # others may have labelled it so
            yield f"{name}: on the source, and of a name that no fleet could have: it stays"
            continue
        many, cpus = counted(found.count, "machine"), counted(found.cpus, "CPU")
        told = f"{many} of {found.image}, {cpus}, {found.memory_gib} GiB"
        yield f"{name} ({told}): on the source, and not declared: it stays; [compute.{name}] would move it"
    if len(beside) > _SHOWN:
        yield f"and {len(beside) - _SHOWN:,} more fleets that are not declared"


def _shown(texts: Iterable[str]) -> str:
    found = list(texts)
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else "")
