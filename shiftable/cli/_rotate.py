"""``secrets rotate``: replace what is due, or one secret now."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import attrs
import click

from shiftable.cli._context import Context, complete_labels, json_option, pass_context, shown
from shiftable.errors import ConfigError, ShiftableError
from shiftable.rotation import Rotation, Status, Step, rotations
from shiftable.wording import counted

__all__ = ["rotate"]


@click.command()
@click.argument("label", required=False, shell_complete=complete_labels("secrets"))
@click.argument("key", required=False)
@click.option("--due", is_flag=True, help="What is due, under way or to be retired; of all secrets, or of LABEL's.")
@click.option("--force", is_flag=True, help="Also while the value before is still in use: it is retired at once.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@json_option
@pass_context
def rotate(
    context: Context,
    label: str | None,
    key: str | None,
    *,
    due: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Replace secrets as [secrets.LABEL.rotate] says: create, set, test, finish, and retire the old after a while.

    LABEL and KEY name one, which is replaced now. With --due it is done for what has its time, and the same command
    again does nothing: let a timer run it. A run that was interrupted or killed is gone on with by the next one,
    wherever it runs. A secret that fails does not keep the others from their turn.
    """
    if due == (key is not None):
        raise click.UsageError("name one secret, LABEL KEY, or say --due")
    if due and force:
        raise click.UsageError("--force is for one secret that is named")
    chosen = rotations(context.app, label, key)
    results: list[_Result] = []
    try:
        for owner, rotation in chosen:
            results.append(_Result(f"{owner}/{rotation.key}", rotation.kind))
            _rotate(results[-1], rotation, now=not due, force=force, dry_run=dry_run, quiet=as_json)
    finally:
        if as_json:  # also when it is interrupted: what was done is told
            context.json([result.to_json() for result in results])
    if not as_json and not any(result.steps or result.error or result.told for result in results):
        click.echo(f"{context.app.environment}: nothing to do ({counted(len(chosen), 'rotation')})")
    sys.exit(max((result.exit_code for result in results), default=0))


@attrs.define
class _Result:
    """What became of one secret, or would."""

    address: str
    kind: str
    steps: list[Step] = attrs.Factory(list)
    status: Status | None = None
    error: Exception | None = None
    told: bool = False

    @property
    def exit_code(self) -> int:
        """2 where the configuration is wrong, 1 where something else is, or somebody has to look at it."""
        if self.error is not None:
            return 2 if isinstance(self.error, ConfigError) else 1
        status = self.status
        left = status is not None and (status.current is None or (status.held and status.retire_at is None))
        return 1 if left and not self.steps else 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        found = attrs.asdict(self.status) if self.status else {}
        about = {"secret": self.address, "kind": self.kind}
        rest = {name: value for name, value in found.items() if name not in ("key", "kind", "steps")}
        failed = {"error": str(self.error)} if self.error else {}
        return about | rest | {"steps": self.steps} | failed


def _rotate(result: _Result, rotation: Rotation, *, now: bool, force: bool, dry_run: bool, quiet: bool) -> None:
    """Rotate one secret, or say what would be done, and note how it ended."""

    def say(text: str) -> None:
        result.told = True
        if not quiet:
            click.echo(shown(f"{result.address}: {text}"))

    def did(step: Step) -> None:
        result.steps.append(step)
        say(f"{step}: done")

    try:
        before = result.status = rotation.status(now=now, force=force)
        if dry_run:
            result.steps = list(before.steps)
        for line in _plan(before) if dry_run else _reasons(before, now=now):
            say(line)
        if before.steps and not dry_run:
            result.status = rotation.run(now=now, force=force, on_step=did).after
            say(_summary(result.status))
    except (ShiftableError, ImportError) as exc:  # a package that is missing or broken
        result.error = exc
        click.echo(shown(f"error: {result.address}: {exc}"), err=True)


def _reasons(status: Status, *, now: bool) -> Iterator[str]:
    """Say why something is done, or is not."""
    if status.current is None and not status.steps:
        yield f"left as it is: {status.due}; {status.held or 'name it to make it'}"
    elif status.held:
        yield f"left as it is: {status.held}{'; --force does it now' if now else ''}"
    if status.due and status.steps:
        yield f"due: {status.due}"
    if status.pending:
        yield f"goes on with version {status.pending}, which is pending"


def _plan(status: Status) -> Iterator[str]:
    """Say what a run would do, and what is known of later ones."""
    if status.current is None and not status.steps:
        yield f"would be left as it is: {status.due}; {status.held or 'name it to make it'}"
    elif status.due:
        yield f"due: {status.due}"
    if status.held and status.current is not None:
        yield f"would be left as it is: {status.held}"
    if status.pending:
        yield f"version {status.pending} is pending"
    if status.steps:
        yield f"would {', '.join(status.steps)}"
    elif not status.due and not status.held:
        yield f"not due until {_when(status.next_due)}" if status.next_due else "due only when it is named"
    if status.retire and status.retire_at and "retire" not in status.steps:
        yield f"version {status.retire} is to be retired at {_when(status.retire_at)}"


def _summary(status: Status) -> str:
    still = f"; version {status.retire} works until {_when(status.retire_at)}, or longer" if status.retire_at else ""
    return f"version {status.current} is current{still}"


def _when(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
