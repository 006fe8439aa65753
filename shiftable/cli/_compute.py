"""``compute``: fleets of machines, from making one to a prompt on it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import attrs
import click

from shiftable.cli._compute_choice import images, sizes, sweep
from shiftable.cli._compute_convert import convert
from shiftable.cli._compute_cutover import cutover
from shiftable.cli._compute_disks import disk
from shiftable.cli._compute_images import delete_image, snapshot
from shiftable.cli._compute_import import import_image
from shiftable.cli._compute_inside import console, run, ssh
from shiftable.cli._compute_made import telling_what_there_is
from shiftable.cli._compute_target import Found, Target, fleet_, own_providers, target_
from shiftable.cli._context import (
    Context,
    Group,
    complete_providers,
    confirm_name,
    each_of,
    fact_text,
    interruptible,
    json_line,
    json_option,
    pass_context,
    say,
    say_facts,
    shown,
)
from shiftable.cli._units import read_duration
from shiftable.compute import Compute, FleetSpec, MachineInfo, MachineState
from shiftable.compute.driver import GIB
from shiftable.errors import ConfigError
from shiftable.wording import counted

__all__ = ["compute"]

_MANY = 100


def _read_label(_context: click.Context, _parameter: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, sign, _ in pairs if not (name and sign)]:
        raise click.BadParameter(f"{wrong[0]!r} is no label; write NAME=VALUE")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise click.BadParameter("a label is given twice")
    return {name: value for name, _, value in pairs}


def _read_changes(
    context: click.Context, parameter: click.Parameter, texts: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Read which labels are given, NAME=VALUE, and which are taken away, NAME-."""
    taken = [text[:-1] for text in texts if "=" not in text and text.endswith("-")]
    odd = [text for text in texts if "=" not in text and not text.endswith("-")]
    if odd or "" in taken:
        what = odd[0] if odd else "-"
        raise click.BadParameter(f"{what!r} is no change of a label; write NAME=VALUE, or NAME- to take one away")
    return _read_label(context, parameter, [text for text in texts if "=" in text]), taken


def _read_wanted(
    _context: click.Context, _parameter: click.Parameter, texts: Sequence[str]
) -> tuple[tuple[str, str | None], ...]:
    """Read what labels machines shall have: a value, or whichever."""
    pairs = [text.partition("=") for text in texts]
    if not all(name for name, _, _ in pairs):
        raise click.BadParameter("a label has a name; write NAME or NAME=VALUE")
    return tuple((name, value if sign else None) for name, sign, value in pairs)


wait_option = click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is done.")
timeout_option = click.option(
    "--timeout", default="15m", show_default=True, metavar="TIME", callback=read_duration, help="How long to wait."
)
cpus_option = click.option("--cpus", type=click.IntRange(min=1), help="At least so many.")
memory_option = click.option(
    "--memory-gib", "--memory", "memory_gib", type=click.IntRange(min=1), help="At least so much."
)
lines_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, one object a line.")


@click.group(cls=Group)
def compute() -> None:
    """Make, show, reach, resize and delete fleets of machines.

    FLEET is LABEL of [compute.LABEL], or PROVIDER:NAME with the label of [providers.PROVIDER]; MACHINE is one of its
    machines, LABEL-0, or PROVIDER:NAME-0. What takes minutes goes on at the provider, also when the waiting is
    interrupted. Declared fleets are changed by `shiftable plan` and `shiftable apply`.
    """


for command in (console, convert, cutover, delete_image, disk, images, import_image, run, sizes, snapshot, ssh, sweep):
    compute.add_command(command)

# looking


@compute.command("list")
@click.argument("providers", nargs=-1, metavar="[PROVIDER]...", shell_complete=complete_providers)
@click.option("--all", "everything", is_flag=True, help="Also machines that belong to no fleet.")
@click.option(
    "--label",
    "wanted",
    multiple=True,
    callback=_read_wanted,
    metavar="NAME[=VALUE]",
    help="Only machines with this label. Repeatable: with all of them.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many machines of each provider.")
@lines_option
@pass_context
def list_(
    context: Context,
    providers: tuple[str, ...],
    *,
    everything: bool,
    wanted: tuple[tuple[str, str | None], ...],
    limit: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """List the machines of the providers that are named; else of those that the declared fleets are at."""
    for provider, asking in each_of(providers or own_providers(context)):
        with asking:
            count = 0
            for machine in context.cloud(provider).compute.machines():
                if (machine.seen.fleet is None and not everything) or not _has(machine.seen, wanted):
                    continue
                if as_json:
                    json_line({"provider": provider, **_machine_facts(machine.seen)})
                else:
                    say(_row(machine.seen, f"{provider}:{machine.name}"))
                count += 1
                if count == limit:
                    break


def _has(info: MachineInfo, wanted: Sequence[tuple[str, str | None]]) -> bool:
    labels = info.user_labels
    return all(name in labels and value in (None, labels[name]) for name, value in wanted)


def _row(info: MachineInfo, name: str) -> str:
    address = ", ".join((*info.public_addresses, *info.addresses))
    ports = fact_text(dict(sorted(info.ports.items())))
    cells = (name, info.state, info.size, info.zone or "", address, ports)
    return "\t".join(map(shown, cells)).rstrip("\t")  # a name of somebody else's may hold anything


@compute.command()
@target_
@json_option
@pass_context
def show(context: Context, place: Target, as_json: bool) -> None:
    """Show a fleet and its machines, or one machine."""
    found = place.find(context)
    if found.fleet is None:
        facts = _machine_facts(found.machine.info())
        if as_json:
            context.json(facts)
        else:
            say_facts(facts)
        return
    spec, infos = found.service.describe(found.fleet.name), found.fleet.info()
    if as_json:
        context.json({**_spec_facts(spec), "machines": [_machine_facts(info) for info in infos]})
        return
    say_facts({"provider": found.service.provider.label, **_spec_facts(spec)})
    for info in infos:
        say(_row(info, info.name))


def _machine_facts(info: MachineInfo) -> dict[str, Any]:
    """Return what a provider tells of a machine as JSON has it."""
    facts = {field.name: getattr(info, field.name) for field in attrs.fields(MachineInfo)}
    facts["memory_gib"] = facts.pop("memory") / GIB
    facts["provider_state"] = facts.pop("raw_state")
    facts["firewall"] = tuple(map(str, info.firewall))
    facts["labels"] = info.user_labels
    return facts


_SPEC_FACTS = (
    *("name", "count", "image", "cpus", "memory_gib", "arch", "gpus", "disk_gib", "zone", "spot", "public_ip"),
    *("firewall", "labels"),
)


def _spec_facts(spec: FleetSpec) -> dict[str, Any]:
    facts = {name: getattr(spec, name) for name in _SPEC_FACTS}
    return facts | {"firewall": tuple(map(str, spec.firewall))}


# making


@compute.command()
@fleet_
@click.option("--image", help="Of one that is not declared: debian-12, or the provider's name of another.")
@cpus_option
@memory_option
@click.option("--count", type=click.IntRange(min=1), help="How many machines; 1.")
@click.option("--arch", type=click.Choice(["x86_64", "arm64"]), help="Of the processors; x86_64.")
@click.option("--disk-gib", type=click.IntRange(min=1), help="Of the disk that it starts from; 20.")
@click.option("--zone", help="The provider's name of a part of the region.")
@click.option("--spot", is_flag=True, help="Cheaper machines that may be taken away.")
@click.option("--public-ip", is_flag=True, help="Reachable from the internet.")
@click.option("--open-port", "open_ports", type=int, multiple=True, metavar="PORT", help="Open it. Repeatable.")
@click.option("--allow-from", multiple=True, metavar="NETWORK", help="To whom; anybody. Repeatable.")
@click.option("--user", help="Who logs in by ssh; shift.")
@click.option(
    "--ssh-key", "keys", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True, metavar="FILE",
    help="A file with public keys of who may log in. Repeatable.",
)  # fmt: skip
@click.option("--user-data", type=click.Path(path_type=Path), metavar="FILE", help="For cloud-init.")
@click.option("--label", "labels", multiple=True, callback=_read_label, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--yes", is_flag=True, help=f"Do not ask, as it does before it makes more than {_MANY} machines.")
@wait_option
@timeout_option
@json_option
@pass_context
def create(
    context: Context,
    /, place: Target, *, keys: tuple[Path, ...], yes: bool, wait: bool, timeout: timedelta, as_json: bool,
    **given: Any,  # noqa: ANN401  fields of FleetSpec
) -> None:  # fmt: skip
    """Make a fleet: as [compute.LABEL] declares it; or PROVIDER:NAME, by options.

    The cheapest size of the provider that has what is wanted is taken. Nothing is open, and no password is set.
    """
    options = {name: value for name, value in given.items() if value not in (None, (), {}, False)}
    spec = place.spec(context)
    if spec is not None:
        if options or keys:
            raise ConfigError(f"[compute.{place.text}] says what it is; options are for PROVIDER:NAME")
    else:
        spec = _spec_of(place, options, keys)
    if not spec.count:
        raise ConfigError(f"{place.text} has count = 0: there is no machine to make")
    service = place.service(context)
    _say_choice(service, spec)
    _ask_if_many(service, spec, yes=yes)
    with telling_what_there_is(place, service, spec):
        with interruptible(f"{spec.name}: what was made stays; `shiftable compute show {place.text}` tells"):
            fleet = service.create(spec)
        found = Found(place.text, service, fleet, ())
        _finish(context, found, "created", wait=wait, timeout=timeout, as_json=as_json)


def _spec_of(place: Target, options: dict[str, Any], keys: tuple[Path, ...]) -> FleetSpec:
    missing = [f"--{name.replace('_', '-')}" for name in ("image", "cpus", "memory_gib") if name not in options]
    if missing:
        raise ConfigError(f"{place.text} is not declared; say {', '.join(missing)}")
    assert place.parts is not None  # noqa: S101  as there is no spec
    lines = [line.strip() for key in keys for line in key.read_text(encoding="utf-8", errors="replace").splitlines()]
    try:
        return FleetSpec(
            name=place.parts[1],
            ssh_keys=tuple(line for line in lines if line and not line.startswith("#")),
            **cast("Any", options),
        )
    except ValueError as exc:
        raise ConfigError(str(exc)) from None


def _say_choice(service: Compute, spec: FleetSpec) -> None:
    choice = service.choose(spec)
    cost = "" if choice.monthly is None else f", {_money(choice.monthly * spec.count)} USD a month"
    click.echo(shown(f"{spec.count} of {choice.size}{cost}: {choice.reason}"), err=True)


def _ask_if_many(service: Compute, spec: FleetSpec, *, yes: bool) -> None:
    """Go on with so many machines that the number may be mistyped only if somebody agrees."""
    if yes or spec.count <= _MANY:
        return
    what = f"{counted(spec.count, 'machine')} on {service.provider.label}"
    if not sys.stdin.isatty():
        raise ConfigError(f"to make {what} without a terminal, say --yes")
    click.confirm(f"make {what}?", abort=True, err=True)


def _money(value: Decimal) -> str:
    return f"{value:,.2f}"


@compute.command()
@target_
@cpus_option
@memory_option
@json_option
@pass_context
def resize(context: Context, place: Target, cpus: int | None, memory_gib: int | None, as_json: bool) -> None:
    """Make machines larger or smaller, one after another. Those that run are stopped for it meanwhile.

    What is declared stays declared: the next apply goes back to it.
    """
    if cpus is memory_gib is None:
        raise click.UsageError("say --cpus or --memory-gib")
    found = place.find(context)
    with interruptible(f"{found.name}: the machine may be stopped; `shiftable compute start` starts it"):
        (found.fleet or found.machine).resize(cpus=cpus, memory_gib=memory_gib)
    _tell(context, found, "resized", as_json=as_json)


@compute.command()
@target_
@click.argument("changes", nargs=-1, required=True, callback=_read_changes, metavar="NAME=VALUE|NAME-...")
@json_option
@pass_context
def label(context: Context, place: Target, changes: tuple[dict[str, str], list[str]], *, as_json: bool) -> None:
    """Give machines labels, NAME=VALUE, and take others away, NAME-. All that are not named stay.

    Machines run on meanwhile. What is declared stays declared: the next apply gives its labels back.
    """
    found = place.find(context)
    labels, taken = changes
    (found.fleet or found.machine).relabel(labels, remove=taken)
    _tell(context, found, "labelled", as_json=as_json)


# states


@compute.command()
@target_
@wait_option
@timeout_option
@json_option
@pass_context
def start(context: Context, place: Target, *, wait: bool, timeout: timedelta, as_json: bool) -> None:
    """Start stopped machines."""
    found = place.find(context)
    (found.fleet or found.machine).start()
    _finish(context, found, "started", wait=wait, timeout=timeout, as_json=as_json)


@compute.command()
@target_
@wait_option
@timeout_option
@json_option
@pass_context
def stop(context: Context, place: Target, *, wait: bool, timeout: timedelta, as_json: bool) -> None:
    """Stop machines: they keep their disks and cost less."""
    found = place.find(context)
    (found.fleet or found.machine).stop()
    _finish(context, found, "stopped", wait=wait, timeout=timeout, as_json=as_json, state="stopped")


@compute.command()
@target_
@timeout_option
@json_option
@pass_context
def reboot(context: Context, place: Target, *, timeout: timedelta, as_json: bool) -> None:
    """Restart machines; those of a fleet one after another, each when the one before runs again."""
    found = place.find(context)
    with interruptible(f"{found.name}: those that were not restarted yet are not"):
        (found.fleet or found.machine).reboot()
    _finish(context, found, "restarted", wait=True, timeout=timeout, as_json=as_json)


@compute.command()
@target_
@click.option("--yes", metavar="NAME", help="Confirm by the name of the fleet or machine, for scripts.")
@wait_option
@timeout_option
@pass_context
def delete(context: Context, place: Target, *, yes: str | None, wait: bool, timeout: timedelta) -> None:
    """Delete a fleet or one machine, after its name was typed. Disks that were attached to them stay.

    A machine of a declared fleet comes back with the next apply.
    """
    found = place.find(context)
    count = len(found.machines)
    name = found.fleet.name if found.fleet else found.machine.name
    what = f"the fleet {name} with {counted(count, 'machine')}" if found.fleet else f"the machine {name}"
    confirm_name(f"{what} on {found.service.provider.label}", name, yes)
    if not wait:
        for machine in found.machines:
            machine.delete()
        rest = "; run it again to delete what they shared" if found.fleet else ""
        click.echo(f"{name}: being deleted{rest}")
        return
    with interruptible(f"{name}: it goes on at the provider; the same command ends it"):
        if found.fleet:
            found.service.delete(name, timeout=timeout)
        else:
            found.machine.delete()
            found.machine.wait_deleted(timeout=timeout)
    click.echo(f"{name}: deleted")


@compute.command()
@fleet_
@click.option("--yes", metavar="NAME", help="Confirm by the fleet's name, for scripts.")
@pass_context
def replace(context: Context, place: Target, *, yes: str | None) -> None:
    """Make the machines of a declared fleet anew that are not as declared, one after another.

    That is what `shiftable apply` does not do, since it deletes nothing: other images, machines that failed, fewer
    machines. What is on their disks is lost. It may be interrupted; the same command goes on.
    """
    app, declared = context.app, place.declared(context)
    spec = app.spec(declared)
    changes = app.diff(declared)
    if not changes:
        click.echo(f"{spec.name}: everything is as declared")
        return
    for change in changes:
        if change.reason:
            click.echo(shown(f"{spec.name}: {change.reason}"), err=True)
    if any(change.destroys for change in changes):
        confirm_name(f"machines of {spec.name} on {app.provider_of(declared)}", spec.name, yes)
    with interruptible(f"{spec.name}: the same command goes on"):
        for change in changes:
            app.apply(declared, change)
        app.service(declared).settle(spec)
    click.echo(f"{spec.name}: as declared")


# waiting


def _finish(
    context: Context,
    found: Found,
    done: str,
    *,
    wait: bool,
    timeout: timedelta,
    as_json: bool,
    state: MachineState = "running",
) -> None:
    """Wait for machines, if that is wanted, and say what they are then."""
    if wait:
        with interruptible(f"{found.name}: it goes on at the provider; `shiftable compute show {found.name}` tells"):
            (found.fleet or found.machine).wait(state, timeout=timeout)
    _tell(context, found, done if wait else f"being {done}", as_json=as_json)


def _tell(context: Context, found: Found, done: str, *, as_json: bool) -> None:
    if not as_json:
        click.echo(f"{found.fleet.name if found.fleet else found.machine.name}: {done}")
        return
    infos = found.fleet.info() if found.fleet else (found.machine.info(),)
    context.json([_machine_facts(info) for info in infos])
