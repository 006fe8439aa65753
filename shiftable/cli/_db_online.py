"""``db online``: move a PostgreSQL database while it is written to, step by step."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
import click

from shiftable.cli._context import (
    Context,
    complete_labels,
    json_option,
    pass_context,
    say,
    shown,
    size_text,
    two_providers,
)
from shiftable.cli._progress import duration_text
from shiftable.cli._units import size
from shiftable.errors import ConfigError, MigrationError

if TYPE_CHECKING:
    from shiftable.app import App
    from shiftable.database import Databases, DatabaseSpec
    from shiftable.migrate.online import Lag, Online

__all__ = ["online"]

_TOLD_EACH = 1.0
_NEXT = {
    "new": "check, then start",
    "copying": "start",
    "following": "follow, and cutover when the application may stand still",
    "freezing": "cutover, or rollback",
    "drained": "cutover, or rollback",
    "verified": "cutover, or rollback",
    "handed": "cutover",
    "done": "nothing",
}


@attrs.define
class _Run:
    """One step of one move, and how it is told.

    Args:
        make: makes the target's server, where there is none.
        moves: the move itself; the servers are asked for their addresses.
        stay: follow until Ctrl-C.
        command: lets the application use the target.
        told: values for JSON.
    """

    make: Callable[[], object]
    moves: Callable[[], Online]
    stay: bool
    command: str | None
    as_json: bool
    told: dict[str, Any] = attrs.Factory(dict)
    _said: float = float("-inf")

    def say(self, text: str) -> None:
        """Tell people."""
        if not self.as_json:
            say(text)

    def check(self) -> bool:
        """Say what stands in the way, and what will stay behind."""
        found = self.moves().check()
        self.told["findings"] = [attrs.asdict(each) for each in found]
        for each in found:
            self.say(f"{'must be changed' if each.blocks else 'note'}: {each.message}")
        blocked = any(each.blocks for each in found)
        if not blocked:
            self.say("nothing stands in the way")
        return not blocked

    def start(self) -> bool:
        """Make the target, the slot and the copy."""
        move = self.moves()
        copies = move.status().phase in {"new", "copying"}
        if copies:
            self.make()
        try:
            move.start()
        except BaseException:
            if move.status().phase == "copying":
                click.echo("the source keeps what is written to it: run start again, or rollback", err=True)
            raise
        if copies:
            self.say("copied; the source keeps what is written to it since, until follow has brought it over")
        return self.status()

    def follow(self) -> bool:
        """Bring over what was written."""
        move = self.moves()
        try:
            lag = move.follow(until=(lambda _: False) if self.stay else None, tell=self._tell)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on", err=True)
            sys.exit(130)
        self.told |= {**attrs.asdict(lag), "next": _NEXT["following"]}
        self.say(
            f"{_lag_text(lag)}: the target has what the source had when this began, and not what was written since"
        )
        self.say(
            f"next: {_NEXT['following']}; each brings over what is there by then, and follow --stay goes on with it"
        )
        return True

    def cutover(self) -> bool:
        """Stop the writes, compare, hand over."""
        cut = self.moves().cutover(hand_over=self._hand_over, tell=self._tell)
        self.told |= attrs.asdict(cut)
        self.say(
            f"writes stood still for {cut.stopped:.2f} s; both sides are equal (compared in"
            f" {duration_text(cut.verified)}); the source stays read-only"
        )
        if self.command is None:
            self.say("let the application use the target now: change its environment's provider")
        return True

    def rollback(self) -> bool:
        """Undo what was done to the source."""
        self.moves().rollback()
        self.say("the source may be written as before; the copy stays on the target")
        return True

    def status(self) -> bool:
        """Say where it is."""
        phase = self.moves().status().phase
        self.told |= {"phase": phase, "next": _NEXT[phase]}
        self.say(f"it is {phase}; next: {_NEXT[phase]}")
        return True

    def _hand_over(self) -> None:
        if self.command is None:
            return
        done = subprocess.run(shlex.split(self.command), check=False)
        if done.returncode:
            raise MigrationError(
                f"{shown(self.command)} ended with {done.returncode}; correct that and run cutover again, or rollback"
            )

    def _tell(self, lag: Lag) -> None:
        now = time.monotonic()
        if not self.as_json and now - self._said >= _TOLD_EACH:
            self._said = now
            click.echo(_lag_text(lag), err=True)


def _lag_text(lag: Lag) -> str:
    return f"{size_text(lag.bytes)} behind, {lag.seconds:.1f} s; the source keeps {size_text(lag.retained)}"


_STEPS: Mapping[str, Callable[[_Run], bool]] = {
    name: getattr(_Run, name) for name in ("status", "check", "start", "follow", "cutover", "rollback")
}


def _read_size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    return None if text is None else size(text)


@click.command()
@click.argument("label", shell_complete=complete_labels("database"))
@click.argument("step", type=click.Choice(list(_STEPS)), default="status")
@two_providers("that has it.", "that shall.")
@click.option("--database", metavar="NAME", help="Which, where several are declared: each is a move of its own.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Threads of copy and comparison."
)
@click.option("--stay", is_flag=True, help="follow: go on until Ctrl-C.")
@click.option(
    "--max-retained",
    metavar="SIZE",
    callback=_read_size,
    help="More that the source keeps ends the move, and drops the slot: 20GiB.",
)
@click.option("--may-identify", is_flag=True, help="Tables without a key may get another REPLICA IDENTITY meanwhile.")
@click.option("--run", "command", metavar="COMMAND", help="cutover: this lets the application use the target.")
@json_option
@pass_context
def online(
    context: Context,
    /,
    label: str,
    step: str,
    source: str,
    target: str,
    database: str | None,
    jobs: int,
    stay: bool,
    max_retained: int | None,
    may_identify: bool,
    command: str | None,
    as_json: bool,
) -> None:
    """Move the PostgreSQL database of [database.LABEL] while it is written to.

    \b
    check     say what stands in the way, and what will stay behind
    start     make the target, a replication slot and the copy
    follow    bring over what was written since; again whenever you like
    cutover   stop the writes, bring over the rest, compare, hand over
    rollback  let the source be written again, and drop the slot
    status    say where it is and what comes next

    Every step may be interrupted and made again. From start on the source keeps its log until follow has brought it
    over: a slot that is forgotten fills its disk.

    \b
    Exit codes: 0 done     1 something stands in the way, or failed     2 wrong usage or configuration
    """  # noqa: D301  click's mark for text that keeps its lines
    spec = _spec(context.app, label)
    name = _database(spec, label, database)
    here, there = (context.app.cloud(each).database for each in (source, target))

    def moves() -> Online:
        from shiftable.migrate.online import OnlineOptions, Server, postgresql

        old = Server.of(here.open(spec), name, label=f"{label} on {source}")
        new = Server.of(there.open(spec), name, label=f"{label} on {target}")
        options = OnlineOptions(may_identify=may_identify, max_retained=max_retained)
        move_name = label if len(spec.databases) < 2 else f"{label}-{name}"
        return postgresql(move_name, old, new, Path(context.app.state_dir), jobs=jobs, options=options)

    run = _Run(lambda: _make(there, spec), moves, stay, command, as_json)
    good = _STEPS[step](run)
    if as_json:
        context.json(run.told)
    sys.exit(0 if good else 1)


def _spec(app: App, label: str) -> DatabaseSpec:
    app.database(label)  # which says what there is, if there is no such label
    (declared,) = (each for each in app.declared("database") if each.label == label)
    spec = cast("DatabaseSpec", app.spec(declared))
    if spec.engine != "postgresql":
        raise ConfigError(f"only PostgreSQL is moved while it is written to; [database.{label}] is {spec.engine}")
    return spec


def _database(spec: DatabaseSpec, label: str, chosen: str | None) -> str:
    """Return which database is moved."""
    known = spec.databases or ("postgres",)
    if chosen is None and len(known) > 1:
        raise ConfigError(f"[database.{label}] has several: choose one by --database {'|'.join(known)}")
    if chosen is not None and chosen not in known:
        raise ConfigError(f"[database.{label}] has no database {chosen!r}; it has {', '.join(known)}")
    return chosen or known[0]


def _make(service: Databases, spec: DatabaseSpec) -> None:
    """Make the target's server, where there is none, and wait for it."""
    if not service.exists(spec.name):
        service.create(spec)
    service.settle(spec)
