"""What a command of ``compute`` is about: a fleet, or one machine, as it was written."""

from __future__ import annotations

from typing import Any, cast

import attrs
import click

from shiftable.cli._context import Context, complete_labels, complete_machines
from shiftable.compute import Compute, Fleet, FleetSpec, Machine
from shiftable.errors import ConfigError, InvalidArgument, NotFound, Resource
from shiftable.manifest import Declared

__all__ = ["Found", "Target", "fleet_", "machine_", "own_providers", "target_"]


@attrs.frozen
class Found:
    """What was meant.

    Args:
        fleet: if all of its machines were meant.
        machines: those that were meant.
    """

    name: str
    service: Compute
    fleet: Fleet | None
    machines: tuple[Machine, ...]

    @property
    def machine(self) -> Machine:
        """The one machine.

        Raises:
            ConfigError: a fleet of several was meant.
        """
        if len(self.machines) != 1:
            names = ", ".join(sorted(machine.name for machine in self.machines)) or "none"
            raise ConfigError(f"{self.name} is a fleet; say which of its machines: {names}")
        return self.machines[0]


@attrs.frozen
class Target:
    """``LABEL`` of ``[compute.LABEL]``, one of its machines as ``LABEL-0``, or ``PROVIDER:NAME`` of either."""

    text: str

    @property
    def parts(self) -> tuple[str, str] | None:
        """The provider and the name; ``None`` of a label."""
        provider, colon, name = self.text.partition(":")
        if not colon:
            return None
        if not provider or not name:
            raise ConfigError(f"{self.text!r} is no fleet and no machine; say LABEL, LABEL-0 or PROVIDER:NAME")
        return provider, name

    def provider(self, context: Context) -> str:
        """Return the label of the provider that it is at. Calls nobody."""
        return self.parts[0] if self.parts else context.app.provider_of(self.declared(context))

    def service(self, context: Context) -> Compute:
        """Return the service that it belongs to. Calls nobody."""
        if self.parts is not None:
            return context.cloud(self.parts[0]).compute
        return cast("Compute", context.app.service(self.declared(context)))

    def fleet(self, context: Context) -> Fleet:
        """Return the handle of a fleet, which may have no machines. Calls nobody."""
        if self.parts is not None:
            return self.service(context).fleet(self.parts[1])
        return context.app.compute(self.text)

    def spec(self, context: Context) -> FleetSpec | None:
        """Return what is declared, of the label of a fleet."""
        if self.parts is not None:
            return None
        app = context.app
        app.compute(self.text)  # which says what there is, if there is no such label
        return cast("FleetSpec", app.spec(self.declared(context)))

    def find(self, context: Context) -> Found:
        """Ask the provider what there is.

        Raises:
            NotFound: nothing of that name.
        """
        service = self.service(context)
        if self.parts is None:
            declared, number = self._declared(context)
            fleet = context.app.compute(declared.label)
            if number is not None:
                return Found(self.text, service, None, (fleet.machine(f"{fleet.name}-{number}"),))
            machines = _living(fleet)
        else:
            name = self.parts[1]
            try:
                fleet = service.fleet(name)
                machines = _living(fleet)
            except InvalidArgument:  # so it is no fleet of ours, but somebody's machine
                return Found(self.text, service, None, (_machine(service, name),))
            if not machines:
                return Found(self.text, service, None, (_machine(service, name),))
        if not machines:
            raise _missing(service, Resource("fleet", fleet.name), "it has no machines; `shiftable apply` makes them")
        return Found(self.text, service, fleet, machines)

    def declared(self, context: Context) -> Declared:
        """Return the declared fleet.

        Raises:
            ConfigError: it is none of the file.
        """
        if self.parts is not None:
            raise ConfigError(f"{self.text} is not declared; say LABEL of [compute.LABEL]")
        return self._declared(context)[0]

    def _declared(self, context: Context) -> tuple[Declared, int | None]:
        """Return the fleet that the text names, and the number of the machine if it names one."""
        app = context.app
        fleets = app.declared("compute")
        head, _, number = self.text.rpartition("-")
        for each in fleets:
            if each.label == self.text:
                return each, None
        for each in fleets:
            if number.isascii() and number.isdecimal() and head in (each.label, app.spec(each).name):
                return each, int(number)
        app.compute(self.text)
        raise AssertionError


def _living(fleet: Fleet) -> tuple[Machine, ...]:
    return tuple(machine for machine in fleet.machines() if machine.seen.state != "deleting")


def _machine(service: Compute, name: str) -> Machine:
    """Find one machine by its host name or id: first in the fleet that its name tells, then among all."""
    fleet, dash, number = name.rpartition("-")
    if dash and number.isdecimal():
        try:
            return service.fleet(fleet).machine(name)
        except (NotFound, InvalidArgument):
            pass
    for machine in service.machines():
        if name in (machine.name, machine.id) and machine.seen.state != "deleting":
            return machine
    raise _missing(service, Resource("fleet or machine", name), "there is none")


def _missing(service: Compute, resource: Resource, why: str) -> NotFound:
    return NotFound(why, provider=service.provider, operation="compute.find", resource=resource)


def own_providers(context: Context) -> tuple[str, ...]:
    """Return the labels of the providers that the declared fleets are at, else of the environment's."""
    app = context.app
    declared = dict.fromkeys(app.provider_of(each) for each in app.declared("compute"))
    return tuple(declared) or (app.config.environments[app.environment].provider,)


class TargetType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """``LABEL``, ``LABEL-0`` or ``PROVIDER:NAME``."""

    name = "machines"

    def convert(self, value: str | Target, *_where: Any) -> Target:  # noqa: ANN401  as click
        """Take it as it is."""
        return Target(value) if isinstance(value, str) else value


fleet_ = click.argument("place", type=TargetType(), metavar="FLEET", shell_complete=complete_labels("compute"))
target_ = click.argument("place", type=TargetType(), metavar="FLEET|MACHINE", shell_complete=complete_machines)
machine_ = click.argument("place", type=TargetType(), metavar="MACHINE", shell_complete=complete_machines)
