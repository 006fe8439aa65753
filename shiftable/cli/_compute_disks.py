"""``compute disk``: disks that live longer than machines, and snapshots of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

import attrs
import click

from shiftable.cli._compute_choice import lines_option, providers_
from shiftable.cli._compute_kept import Kept, kept, refuse_taken, waiting, yes_option
from shiftable.cli._compute_target import Target, machine_, own_providers
from shiftable.cli._context import (
    Context,
    Group,
    each_of,
    fact_text,
    interruptible,
    json_line,
    json_option,
    pass_context,
    say,
    shown,
)
from shiftable.compute import Compute
from shiftable.compute.driver import Disk, DiskSnapshot
from shiftable.errors import ConfigError, Conflict, NotFound

__all__ = ["disk"]

disk_ = kept("disk", "DISK")
snapshot_ = kept("disk snapshot", "SNAPSHOT")
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Stop after so many of each provider.")


@click.group(cls=Group)
def disk() -> None:
    """Make, attach, save and delete disks that live longer than machines.

    DISK and SNAPSHOT are PROVIDER:NAME with the label of [providers.PROVIDER], or PROVIDER:ID, as `list` and
    `snapshots` show them. The disk that a machine starts from is none of these: it goes with its machine.
    """


# looking


@disk.command("list")
@providers_
@limit_option
@lines_option
@pass_context
def list_(context: Context, providers: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """List the disks of the providers that are named; else of those that the declared fleets are at.

    A line has the disk's name, id, size and zone, and the machine that it is attached to.
    """
    for provider, asking in each_of(providers or own_providers(context)):
        with asking:
            service = context.cloud(provider).compute
            names = _machine_names(service)
            for each in service.disks(limit=limit):
                if as_json:
                    json_line(_facts(provider, each))
                else:
                    machine = names().get(each.machine, each.machine) if each.machine else ""
                    state = "" if each.ready else "not ready"
                    _say_row(provider, each, each.zone or "", machine, state)


def _machine_names(service: Compute) -> Callable[[], dict[str, str]]:
    """Return what asks once, when it is first needed, what the machines are called."""
    return cache(lambda: {machine.id: machine.name for machine in service.machines()})


def _say_row(provider: str, found: Disk | DiskSnapshot, *cells: str) -> None:
    row = (f"{provider}:{found.name or found.id}", found.id, f"{found.size_gib} GiB", *cells)
    say("\t".join(map(shown, row)).rstrip("\t"))  # a name of somebody else's may hold anything


def _facts(provider: str, found: Disk | DiskSnapshot) -> dict[str, Any]:
    """Return what a provider tells as JSON has it."""
    return {"provider": provider, **attrs.asdict(found)}


@disk.command()
@providers_
@limit_option
@lines_option
@pass_context
def snapshots(context: Context, providers: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """List the snapshots of disks, also of disks that are gone.

    A line has the snapshot's name and id, the size of the disk, and when it was taken.
    """
    for provider, asking in each_of(providers or own_providers(context)):
        with asking:
            for each in context.cloud(provider).compute.disk_snapshots(limit=limit):
                if as_json:
                    json_line(_facts(provider, each))
                else:
                    _say_row(provider, each, fact_text(each.created or ""), "" if each.ready else "being made")


# making and deleting


@disk.command()
@disk_
@click.option("--size-gib", "--size", "size_gib", type=click.IntRange(min=1), help="In GiB; else that of the snapshot.")
@click.option("--zone", help="That of the machine that gets it, where the provider has zones.")
@click.option("--snapshot", "source", metavar="NAME|ID", help="With what this snapshot holds; else it is empty.")
@waiting("15m")
@json_option
@pass_context
def create(
    context: Context,
    which: Kept,
    size_gib: int | None,
    zone: str | None,
    source: str | None,
    *,
    timeout: timedelta,
    as_json: bool,
) -> None:
    """Make a disk, empty or of a snapshot, and wait for it.

    An empty one has no file system yet; one of a snapshot has that of the snapshot, also where it is larger. Clouds
    encrypt it.
    """
    if size_gib is None and source is None:
        raise click.UsageError("say --size or --snapshot")
    service = which.service(context)
    refuse_taken(which, service, "create_disk", service.disks())
    snapshot = None
    if source is not None:
        snapshot = Kept("disk snapshot", which.provider, source.removeprefix(f"{which.provider}:")).find(
            service, service.disk_snapshots()
        )
        size_gib = size_gib or snapshot.size_gib
    assert size_gib is not None  # noqa: S101  as one of both was said
    with interruptible(f"{which}: it may be made all the same; `shiftable compute disk list {which.provider}` tells"):
        made = service.create_disk(
            which.name, size_gib, zone=zone, snapshot=snapshot.id if snapshot else None, timeout=timeout
        )
    _tell(context, which, made, "created", as_json=as_json)


@disk.command()
@disk_
@yes_option
@pass_context
def delete(context: Context, which: Kept, *, yes: str | None) -> None:
    """Delete a disk, after its name was typed. What is on it is lost; snapshots of it stay.

    One that is attached to a machine is refused.
    """
    service = which.service(context)
    found = which.find(service, service.disks())
    _require_free(which, service, found, "delete_disk")
    name = which.confirmed(found, yes)
    service.delete_disk(found.id)
    say(shown(f"{name}: deleted"))


def _require_free(which: Kept, service: Compute, found: Disk, operation: str) -> None:
    if found.machine is not None:
        name = _machine_names(service)().get(found.machine, found.machine)
        why = f"it is attached to {name}; unmount it there, then `shiftable compute disk detach {which}`"
        raise which.refusal(Conflict, service, operation, why)


# at machines


@disk.command()
@disk_
@machine_
@waiting("15m")
@json_option
@pass_context
def attach(context: Context, which: Kept, place: Target, *, timeout: timedelta, as_json: bool) -> None:
    """Attach a disk to a machine, and say where the machine finds it. What is on it stays as it is.

    It is not mounted there. A machine that is deleted leaves it behind.
    """
    label = place.provider(context)
    if label != which.provider:
        raise ConfigError(f"{place.text} is at {label}; a disk of {which.provider} cannot be attached there")
    service, machine = which.service(context), place.find(context).machine
    found = which.find(service, service.disks())
    if found.machine != machine.id:
        _require_free(which, service, found, "attach")
    with interruptible(f"{which}: it goes on at the provider; `shiftable compute disk list {which.provider}` tells"):
        found = machine.attach(found.id, timeout=timeout)
    where = f" as {found.device}" if found.device else ""
    _tell(context, which, found, f"attached to {machine.name}{where}", as_json=as_json)


@disk.command()
@disk_
@waiting("15m")
@json_option
@pass_context
def detach(context: Context, which: Kept, *, timeout: timedelta, as_json: bool) -> None:
    """Detach a disk from the machine that has it. What is on it stays.

    Unmount it there before: what the machine has not written yet is lost. One that is attached to none is left alone.
    """
    service = which.service(context)
    found, told = which.find(service, service.disks()), "attached to no machine"
    if found.machine is not None:
        machine = next((each for each in service.machines() if each.id == found.machine), None)
        if machine is None:
            raise which.refusal(NotFound, service, "detach", f"the machine that has it is not seen: {found.machine}")
        hint = f"{which}: it goes on at the provider; `shiftable compute disk list {which.provider}` tells"
        with interruptible(hint):
            found = machine.detach(found.id, timeout=timeout)
        told = f"detached from {machine.name}"
    _tell(context, which, found, told, as_json=as_json)


# snapshots


@disk.command()
@disk_
@click.argument("name")
@waiting("1h")
@json_option
@pass_context
def snapshot(context: Context, which: Kept, name: str, *, timeout: timedelta, as_json: bool) -> None:
    """Keep what is on a disk as the snapshot NAME, and wait until disks can be made of it.

    Of a disk that is in use it has what a machine that lost its power would find: stop what writes to it, or the
    machine, for more.
    """
    service = which.service(context)
    found = which.find(service, service.disks())
    new = Kept("disk snapshot", which.provider, name)
    refuse_taken(new, service, "snapshot_disk", service.disk_snapshots())
    hint = f"{name}: it goes on at the provider; `shiftable compute disk snapshots {which.provider}` tells"
    with interruptible(hint):
        taken = service.snapshot_disk(found.id, name, timeout=timeout)
    _tell(context, which, taken, "taken", as_json=as_json)


@disk.command("delete-snapshot")
@snapshot_
@yes_option
@pass_context
def delete_snapshot(context: Context, which: Kept, *, yes: str | None) -> None:
    """Delete a snapshot of a disk, after its name was typed. The disk, and disks that were made of it, stay."""
    service = which.service(context)
    found = which.find(service, service.disk_snapshots())
    name = which.confirmed(found, yes)
    service.delete_disk_snapshot(found.id)
    say(shown(f"{name}: deleted"))


def _tell(context: Context, which: Kept, found: Disk | DiskSnapshot, done: str, *, as_json: bool) -> None:
    if as_json:
        context.json(_facts(which.provider, found))
    else:
        say(shown(f"{found.name or found.id}: {done}"))
