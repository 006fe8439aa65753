"""``compute cutover``: change over to machines that a move has made, step by step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import attrs
import click

from shiftable.cli._context import (
    Context,
    complete_labels,
    json_option,
    pass_context,
    say,
    two_providers,
)
from shiftable.cli._progress import duration_text
from shiftable.cli._units import duration
from shiftable.config import did_you_mean
from shiftable.errors import ConfigError, InvalidArgument
from shiftable.wording import counted

if TYPE_CHECKING:
    from shiftable.app import App
    from shiftable.compute import FleetSpec
    from shiftable.dns import Zone
    from shiftable.manifest import Declared
    from shiftable.migrate import FleetCutover, NamedRecord

__all__ = ["cutover"]


@attrs.define
class _Run:
    """One step of one change over, and how it is told.

    Args:
        records: names that are to lead to the new machines.
        command: run once by ``prepare``; ``each`` for each machine.
        paths: copied by ``prepare``.
        new: what becomes of the new machines at a rollback.
        told: values for JSON.
    """

    cutover: FleetCutover
    records: tuple[NamedRecord, ...]
    command: str | None
    each: str | None
    paths: tuple[str, ...]
    new: Literal["keep", "stop", "delete"]
    delete_old: bool
    force: bool
    as_json: bool
    told: dict[str, Any] = attrs.Factory(dict)

    def say(self, text: str) -> None:
        """Tell people."""
        if not self.as_json:
            say(text)

    @property
    def looked(self) -> str:
        """Say whether they were looked at from here."""
        return " and are well" if self.cutover.checks else "; nobody looked whether they do their work: --health ssh"

    def status(self) -> None:
        """Say where it is."""
        found = self.cutover.status()
        self.told |= attrs.asdict(found)
        for what, at in (
            ("names lead to the new machines since", found.switched_at if not found.going_back else None),
            ("the other side is led to until", found.keep_until),
            ("the old machines are stopped since", found.stopped_at if not found.going_back else None),
            ("names lead to the old machines again since" if found.names else "given up since", found.returned_at),
        ):
            if at is not None:
                self.say(f"{what}: {at:%Y-%m-%d %H:%M:%S} UTC")
        if found.names:
            self.say(f"names: {', '.join(found.names)}")
        self.say(f"next: {found.next or 'nothing'}; {found.why}")

    def check(self) -> None:
        """Look at the new machines."""
        self.cutover.check()
        self.say(f"all new machines run{self.looked}")

    def prepare(self) -> None:
        """Copy paths and run commands."""
        self.cutover.prepare(command=self.command, each=self.each, paths=self.paths, again=self.force)
        self.status()

    def switch(self) -> None:
        """Let names lead to the new machines."""
        changed = self.cutover.switch(self.records, force=self.force)
        self.told["changed"] = changed
        self.say(f"all new machines run{self.looked}; {changed:,} record sets were changed")
        self.status()

    def stop(self) -> None:
        """Stop the old machines."""
        stopped = self.cutover.stop(force=self.force, tell=self._tell)
        self.told["stopped"] = stopped
        self.say(f"stopped: {', '.join(stopped) or 'none, as none ran'}")
        self.status()

    def finish(self) -> None:
        """End it."""
        self.cutover.finish(delete_old=self.delete_old)
        self.say("done; the old machines are " + ("deleted" if self.delete_old else "stopped, and still there"))

    def rollback(self) -> None:
        """Go back."""
        changed = self.cutover.rollback(new=self.new, force=self.force, tell=self._tell)
        self.told["changed"] = changed
        self.say(f"the old machines run; {counted(changed, 'record set')} changed back")
        self.status()

    def _tell(self, left: timedelta) -> None:
        if not self.as_json:
            click.echo(f"{duration_text(left.total_seconds())} left", err=True)


_STEPS: Mapping[str, Callable[[_Run], None]] = {
    name: getattr(_Run, name) for name in ("status", "check", "prepare", "switch", "stop", "finish", "rollback")
}


@click.command()
@click.argument("label", shell_complete=complete_labels("compute"))
@click.argument("step", type=click.Choice(list(_STEPS)), default="status")
@two_providers("that has the old machines.", "that has the new ones.")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="LABEL:NAME",
    help="switch: this name of the zone of [dns.LABEL] shall lead to the new machines: shop:www, shop:@.",
)
@click.option(
    "--health",
    multiple=True,
    metavar="CHECK",
    help="Look at each machine from here: ssh, ssh:2222, tcp:5432, http:8080/health=200.",
)
@click.option(
    "--health-timeout", type=duration, default="5m", show_default=True, help="Until then all machines must be well."
)
@click.option("--run", "command", metavar="COMMAND", help="prepare: run this once.")
@click.option("--run-each", "each", metavar="COMMAND", help="prepare: run this for each machine.")
@click.option(
    "--copy",
    "paths",
    multiple=True,
    metavar="PATH",
    help="prepare: copy this from each old machine to the new one of its name, by rsync.",
)
@click.option(
    "--new",
    type=click.Choice(["keep", "stop", "delete"]),
    default="keep",
    show_default=True,
    help="rollback: what becomes of the new machines.",
)
@click.option("--delete-old", is_flag=True, help="finish: delete the old machines.")
@click.option(
    "--force",
    is_flag=True,
    help="prepare: run commands again. switch: also names that lead elsewhere. stop: do not wait. rollback: neither"
    " wait nor look at the old machines.",
)
@json_option
@pass_context
def cutover(
    context: Context,
    /,
    label: str,
    step: str,
    source: str,
    target: str,
    names: tuple[str, ...],
    health: tuple[str, ...],
    health_timeout: timedelta,
    as_json: bool,
    **chosen: object,
) -> None:
    """Change over to the machines of [compute.LABEL] that `shiftable migrate --apply` has made.

    \b
    check     look at the new machines
    prepare   copy paths, run commands
    switch    let names lead to the new machines, if all are well
    stop      stop the old machines, when nobody is led to them any more
    finish    end it; the old machines are deleted only with --delete-old
    rollback  start the old machines, and let names lead to them again
    status    say where it is and what comes next

    Every step may be interrupted and made again. Commands get SHIFTABLE_FLEET, SHIFTABLE_MACHINE, SHIFTABLE_USER,
    SHIFTABLE_OLD_ADDRESS and SHIFTABLE_NEW_ADDRESS, or for all machines at once SHIFTABLE_MACHINES,
    SHIFTABLE_OLD_ADDRESSES and SHIFTABLE_NEW_ADDRESSES, and run without a shell.

    \b
    Exit codes: 0 done     1 a machine is not well, a name was changed by others, or failed
                2 wrong usage or configuration
    """  # noqa: D301  click's mark for text that keeps its lines
    from shiftable.migrate import FleetCutover, HealthCheck

    app, declared = context.app, _declared(context.app, label)
    try:
        checks = tuple(map(HealthCheck.parse, health))
    except InvalidArgument as exc:
        raise ConfigError(exc.message) from exc
    move = FleetCutover(
        app.cloud(source).compute,
        app.cloud(target).compute,
        cast("FleetSpec", app.spec(declared, target)),
        Path(app.state_dir),
        labels=(source, target),
        zones=lambda name, provider: _zone(app, name, provider),
        checks=checks,
        health_timeout=health_timeout.total_seconds(),
    )
    records = tuple(_record(app, text) for text in names)
    run = _Run(move, records, as_json=as_json, **cast("dict[str, Any]", chosen))
    _STEPS[step](run)
    if as_json:
        context.json(run.told)
    sys.exit(0)


def _declared(app: App, label: str) -> Declared:
    app.compute(label)  # which says what there is, if there is no such label
    (declared,) = (each for each in app.declared("compute") if each.label == label)
    return declared


def _record(app: App, text: str) -> NamedRecord:
    """Read a name as it is written, with the provider that answers for its zone now."""
    from shiftable.migrate import NamedRecord

    label, colon, name = text.partition(":")
    zones = {each.label: each for each in app.declared("dns")}
    if not (label and colon and name):
        raise ConfigError(f"--name {text}: write LABEL:NAME, as shop:www for www in the zone of [dns.shop]")
    if label not in zones:
        raise ConfigError(f"--name {text}: {app.config.path.name} has no [dns.{label}]{did_you_mean(label, zones)}")
    return NamedRecord(label=label, provider=app.provider_of(zones[label]), name=name)


def _zone(app: App, label: str, provider: str) -> Zone:
    found = next((each for each in app.declared("dns") if each.label == label), None)
    if found is None:
        raise ConfigError(f"{app.config.path.name} has no [dns.{label}] any more, whose names were switched")
    return cast("Zone", app.service(found, provider).open(app.spec(found, provider)))
