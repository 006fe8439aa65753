"""``dns cutover``: change a zone's name servers, step by step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

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
from shiftable.dns import ZoneSpec
from shiftable.dns.driver import zone_name
from shiftable.errors import ConfigError
from shiftable.migrate import Cutover, Delegation, NameServer, Parent

__all__ = ["cutover"]

_SHOWN = 50


@attrs.define
class _Run:
    """One step of one cutover, and how it is told.

    Args:
        ttl: what TTLs are lowered to, in seconds.
        timeout: of polling, in seconds.
        told: lines for people, or values for JSON.
    """

    cutover: Cutover
    ttl: int
    timeout: float | None
    interval: float
    force: bool
    as_json: bool
    told: dict[str, Any] = attrs.Factory(dict)

    def say(self, text: str) -> None:
        """Tell people."""
        if not self.as_json:
            say(text)

    def status(self) -> bool:
        """Say where it is."""
        found = self.cutover.status()
        self.told |= attrs.asdict(found)
        self.say(f"{found.zone}: {found.lowered:,} TTLs are lowered")
        for what, at in (
            ("lowered", found.lowered_at),
            ("old TTLs are known until", found.wait_until),
            (f"the parent gives the {'old' if found.going_back else 'new'} name servers since", found.switched_at),
            ("the old side is asked until", found.keep_until),
            ("TTLs restored", found.restored_at),
        ):
            if at is not None:
                self.say(f"  {what}: {_time(at)}")
        self.say(f"next: {found.next or 'nothing'}; {found.why}")
        return True

    def lower(self) -> bool:
        """Lower the TTLs of the old side."""
        count = self.cutover.lower(self.ttl)
        self.told["lowered"] = count
        self.say(f"{count:,} record sets of the old side have a TTL of at most {self.ttl:,} s now")
        return self.status()

    def wait(self) -> bool:
        """Wait until nobody knows an old TTL."""
        self.cutover.wait(self._clock())
        self.say("nobody knows an old TTL any more")
        return self.status()

    def parent(self) -> bool:
        """Print the change that the parent's operator is to make."""
        self._show(self.cutover.delegation())
        return True

    def poll(self) -> bool:
        """Ask the parent's servers until they give what they shall."""
        done = self.cutover.poll(timeout=self.timeout, interval=self.interval, tell=self._heard)
        self.told["switched"] = done
        self.say("all of the parent's servers give it" if done else "not all of the parent's servers give it yet")
        return done

    def drift(self) -> bool:
        """Compare both sides."""
        found = self.cutover.drift()
        self.told |= {"changes": [str(change) for change in found.changes], "beside": found.beside}
        for change in found.changes[:_SHOWN]:
            self.say(f"  {change}: the new side has it otherwise")
        if len(found.changes) > _SHOWN:
            self.say(f"  … and {len(found.changes) - _SHOWN:,} more")
        if found.beside:
            self.say(f"  not compared, answered by rules: {', '.join(found.beside[:_SHOWN])}")
        self.say("both sides are equal" if not found.changes else "move the zone again, or look at both sides")
        return not found.changes

    def restore(self) -> bool:
        """Put the TTLs right on both sides."""
        count = self.cutover.restore(force=self.force)
        self.told["restored"] = count
        self.say(f"{count:,} record sets have the TTL again that they had")
        return self.status()

    def rollback(self) -> bool:
        """Go back to the old side."""
        delegation = self.cutover.rollback()
        self.say("the old side has its TTLs again")
        if delegation is not None:
            self._show(delegation)
        return True

    def _show(self, found: Delegation) -> None:
        self.told |= {"before": sorted(found.before), "after": sorted(found.after), "lines": found.lines}
        if found.is_made:
            self.say("the parent gives these name servers already")
            return
        self.say("change this at the parent (mostly at your registrar), then poll:")
        for line in found.lines:
            self.say(f"  {line}")

    def _heard(self, parents: tuple[Parent, ...]) -> None:
        self.told["parents"] = [
            {"server": str(each.server), "nameservers": sorted(each.nameservers), "error": each.error}
            for each in parents
        ]
        for each in parents:
            self.say(f"  {each.server}: {each.error or ' '.join(sorted(each.nameservers)) or 'no delegation'}")

    def _clock(self) -> Callable[[timedelta], None]:
        def tell(left: timedelta) -> None:
            if not self.as_json:
                click.echo(f"{duration_text(left.total_seconds())} left", err=True)

        return tell


_STEPS: Mapping[str, Callable[[_Run], bool]] = {
    name: getattr(_Run, name) for name in ("status", "lower", "wait", "parent", "poll", "drift", "restore", "rollback")
}


@click.command()
@click.argument("zone", shell_complete=complete_labels("dns"))
@click.argument("step", type=click.Choice(list(_STEPS)), default="status", metavar="[STEP]")
@two_providers("that answers now.", "that shall.")
@click.option("--ttl", type=duration, default="5m", show_default=True, help="lower: to this.")
@click.option(
    "--ask-parent",
    "parents",
    multiple=True,
    metavar="SERVER[@PORT]",
    help="Name servers of the zone above; they are looked for if none is named.",
)
@click.option("--timeout", type=duration, help="poll: give up after this.")
@click.option("--interval", type=duration, default="30s", show_default=True, help="poll: ask again after this.")
@click.option("--force", is_flag=True, help="restore: also while resolvers may ask the old side.")
@json_option
@pass_context
def cutover(
    context: Context,
    /,
    zone: str,
    step: str,
    source: str,
    target: str,
    ttl: timedelta,
    parents: tuple[str, ...],
    timeout: timedelta | None,
    interval: timedelta,
    force: bool,
    as_json: bool,
) -> None:
    """Let other name servers answer for ZONE, which was moved before. ZONE is LABEL of [dns.LABEL], or a zone's name.

    \b
    lower     lower the TTLs of the old side; what they were is written down
    wait      wait until nobody knows the old TTLs any more
    parent    print the change of NS to be made at the parent; refused while that has a DS
    poll      ask the parent's servers until all give the new name servers
    drift     compare both sides
    restore   give both sides the old TTLs, when nobody asks the old side any more
    rollback  give the old side its TTLs, and print the change back
    status    say where it is and what comes next

    Every step may be interrupted and made again. Of the old side nothing but TTLs is changed.

    \b
    Exit codes: 0 done, or equal     1 not yet, different, or refused     2 wrong usage or configuration
    """  # noqa: D301  click's mark for text that keeps its lines
    name = _zone(context, zone)
    old, new = (context.app.cloud(label).dns.zone(name) for label in (source, target))
    servers = [NameServer.parse(text) for text in parents]
    run = _Run(
        Cutover(old, new, context.app.state_dir, labels=(source, target), parents=servers or None),
        ttl=int(ttl.total_seconds()),
        timeout=None if timeout is None else timeout.total_seconds(),
        interval=interval.total_seconds(),
        force=force,
        as_json=as_json,
    )
    good = _STEPS[step](run)
    if as_json:
        context.json(run.told)
    sys.exit(0 if good else 1)


def _zone(context: Context, text: str) -> str:
    """Return the name of a zone, which may be given by its label."""
    for declared in context.app.declared("dns"):
        if text == declared.label:
            return cast("ZoneSpec", context.app.spec(declared)).name
    if "." not in text:
        raise ConfigError(f"{text!r} is neither the label of a zone in the file nor a zone's name")
    return zone_name(text)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
