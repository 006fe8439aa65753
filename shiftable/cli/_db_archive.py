"""``db archive`` and ``db backup``: a whole server that holds databases, so that any time of them can be restored."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import attrs
import click

from shiftable.cli._context import (
    Context,
    complete_providers,
    fact_text,
    json_line,
    json_option,
    pass_context,
    say,
    shown,
    size_text,
)
from shiftable.cli._units import read_duration
from shiftable.database import ArchiveProgress, BaseBackup
from shiftable.errors import ConfigError, OperationError

__all__ = ["archive", "backup", "backups", "delete_backup"]

provider_ = click.argument("provider", metavar="PROVIDER", shell_complete=complete_providers)


@click.command()
@provider_
@click.option(
    "--every",
    default="10s",
    show_default=True,
    metavar="TIME",
    callback=read_duration,
    help="Store what is written so often: what a failure of the server costs at most.",
)
@click.option("--over-gap", is_flag=True, help="Where the server has deleted what is missing, begin anew.")
@click.option("--end", is_flag=True, help="Have the server keep its log no longer, for good, and end.")
@click.option("--json", "as_json", is_flag=True, help="Tell each time that can be restored as JSON, one object a line.")
@pass_context
def archive(context: Context, provider: str, *, every: timedelta, over_gap: bool, end: bool, as_json: bool) -> None:
    """Store the log of the server that the databases of PROVIDER are on, until interrupted.

    With a base backup (`shiftable db backup`) any time since can be restored by `shiftable db restore --at`. Run it as
    a service: it may be killed at any time and goes on where it was; meanwhile the server keeps its log. One whose log
    is to be archived no longer is told so with --end, else it keeps all of it until its disk is full.
    """
    databases = context.cloud(provider).database
    if end:
        databases.end_archive()
        click.echo(f"{provider}: the server keeps its log no longer")
        return
    last: list[str] = [""]

    def on_progress(progress: ArchiveProgress) -> None:
        if as_json:
            json_line({"provider": provider, **attrs.asdict(progress)})
        elif progress.segment != last[0]:
            last[0] = progress.segment
            behind = f", {size_text(progress.behind)} behind" if progress.behind else ""
            until = fact_text(progress.until)
            click.echo(shown(f"{provider}: {until} can be restored ({progress.segment}{behind})"), err=True)

    def on_trouble(error: OperationError) -> None:
        click.echo(shown(f"{provider}: {error}; trying again"), err=True)

    try:
        databases.archive(every=every, over_gap=over_gap, on_progress=on_progress, on_trouble=on_trouble)
    except KeyboardInterrupt:
        click.echo(f"{provider}: interrupted; this goes on where it was, if the server keeps its log", err=True)
        sys.exit(130)


@click.command()
@provider_
@json_option
@pass_context
def backup(context: Context, provider: str, as_json: bool) -> None:
    """Make a base backup of the server that the databases of PROVIDER are on, and delete those that are too old.

    Times after it are restored by `shiftable db restore --at`, one database at a time. How long they can be is
    `archive_days` of the provider.
    """
    made = context.cloud(provider).database.back_up()
    if as_json:
        context.json(_facts(made))
    else:
        say(made.name)


@click.command()
@provider_
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, one object a line.")
@pass_context
def backups(context: Context, provider: str, limit: int | None, as_json: bool) -> None:
    """List the base backups of the server that the databases of PROVIDER are on, the oldest first."""
    for each in context.cloud(provider).database.backups(limit=limit):
        if as_json:
            json_line(_facts(each))
        else:
            say("\t".join((each.name, fact_text(each.restorable_from), each.version, size_text(each.size))))


@click.command("delete-backup")
@provider_
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def delete_backup(context: Context, provider: str, name: str, *, yes: bool) -> None:
    """Delete a base backup, and what of the log only it needs: those times can be restored no longer."""
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"to delete the base backup {name} without a terminal, say --yes")
        click.confirm(f"delete the base backup {name} of {provider}?", abort=True, err=True)
    context.cloud(provider).database.delete_backup(name)
    click.echo(f"{name}: deleted")


def _facts(found: BaseBackup) -> dict[str, Any]:
    return attrs.asdict(found)
