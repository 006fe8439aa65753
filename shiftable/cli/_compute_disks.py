"""``compute disk``: disks that live longer than machines, and snapshots of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import attrs
import click

from shiftable.cli._compute_choice import lines_option, providers_
from shiftable.cli._compute_target import Target, machine_, own_providers
from shiftable.cli._context import (
    Context,
    confirm_name,
    fact_text,
    interruptible,
    json_line,
    json_option,
    pass_context,
    say,
    shown,
)
from shiftable.cli._units import read_duration
from shiftable.compute import Compute
from shiftable.compute.driver import Disk, DiskSnapshot, Image
from shiftable.errors import AlreadyExists, ConfigError, Conflict, NotFound, OperationError, Resource

__all__ = ["Kept", "disk", "kept", "refuse_taken"]

K = TypeVar("K", Disk, DiskSnapshot, Image)
E = TypeVar("E", bound=OperationError)


@attrs.frozen
class Kept:
    """What a provider keeps apart from machines, as it was written: ``PROVIDER:NAME`` or ``PROVIDER:ID``.

    Args:
        kind: ``disk``, ``disk snapshot`` or ``image``.
    """

    kind: str
    provider: str
    name: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.name}"

    def service(self, context: Context) -> Compute:
        """Return the service that it belongs to. Calls nobody."""
        return context.cloud(self.provider).compute

    def find(self, service: Compute, every: Iterable[K]) -> K:
        """Look for it in a listing: an id is one thing's alone, a name may be that of several.

        Raises:
            NotFound: nothing of that name or id.
            ConfigError: several of that name.
        """
        named: list[K] = []
        for each in every:
            if each.id == self.name:
                return each
            if each.name == self.name:
                named.append(each)
        if len(named) > 1:
            ids = ", ".join(each.id for each in named)
            raise ConfigError(f"{self} is the name of {len(named)} of them; say which by its id: {ids}")
        if not named:
            raise self.refusal(NotFound, service, "find", "there is none of that name or id")
        return named[0]

    def confirmed(self, found: Disk | DiskSnapshot | Image, yes: str | None) -> str:
        """Have its name typed before it is lost, and return that name; of what has none it is the id."""
        name = found.name or found.id
        confirm_name(f"the {self.kind} {name} on {self.provider} and all that is on it", name, yes)
        return name

    def refusal(self, error: type[E], service: Compute, operation: str, why: str) -> E:
        """Return an error about it, to be raised."""
        resource = Resource(self.kind, self.name)
        return error(why, provider=service.provider, operation=f"compute.{operation}", resource=resource)


class KeptType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """``PROVIDER:NAME`` or ``PROVIDER:ID``."""

    def __init__(self, kind: str) -> None:
        self.name = kind

    def convert(self, value: str | Kept, *where: Any) -> Kept:  # noqa: ANN401  as click
        """Tell the provider from the rest."""
        if isinstance(value, Kept):
            return value
        provider, colon, name = value.partition(":")
        if not (provider and colon and name):
            self.fail(f"{value!r} is no {self.name}; say PROVIDER:NAME or PROVIDER:ID", *where)
        return Kept(self.name, provider, name)


def kept(kind: str, metavar: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the argument ``which`` of a command, which names one such thing."""
    return click.argument("which", type=KeptType(kind), metavar=metavar)


def refuse_taken(which: Kept, service: Compute, operation: str, every: Iterable[K]) -> None:
    """Refuse a name that is taken: also where a provider allows it twice, this command tells things apart by it."""
    for each in every:
        if each.name == which.name:
            state = "" if each.ready else ", being made or deleted"
            raise which.refusal(AlreadyExists, service, operation, f"there is one of that name, {each.id}{state}")


def _waiting(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--timeout",
        default=default,
        show_default=True,
        metavar="TIME",
        callback=read_duration,
        help="How long to wait.",
    )


disk_ = kept("disk", "DISK")
snapshot_ = kept("disk snapshot", "SNAPSHOT")
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Stop after so many of each provider.")
yes_option = click.option("--yes", metavar="NAME", help="Confirm by its name, for scripts.")


@click.group()
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
    for provider in providers or own_providers(context):
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
    for provider in providers or own_providers(context):
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
@_waiting("15m")
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
@_waiting("15m")
@json_option
@pass_context
def attach(context: Context, which: Kept, place: Target, *, timeout: timedelta, as_json: bool) -> None:
    """Attach a disk to a machine, and say where the machine finds it. What is on it stays as it is.

    It is not mounted there. A machine that is deleted leaves it behind.
    """
    label = place.parts[0] if place.parts else context.app.provider_of(place.declared(context))
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
@_waiting("15m")
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
@_waiting("1h")
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
