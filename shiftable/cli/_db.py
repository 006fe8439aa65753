"""``db``: database servers, from making one to a prompt on it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, cast

import attrs
import click

from shiftable.cli._context import (
    Context,
    Group,
    complete_labels,
    complete_providers,
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
from shiftable.cli._db_archive import archive, backup, backups, delete_backup
from shiftable.cli._db_online import online
from shiftable.cli._progress import duration_text
from shiftable.cli._units import read_duration, when
from shiftable.database import ENGINES, Database, DatabaseInfo, Databases, DatabaseSpec, Engine, Snapshot
from shiftable.errors import ConfigError, Conflict, NotFound, OperationError
from shiftable.manifest import Declared
from shiftable.wording import counted

__all__ = ["db"]

_NEWS = 30.0
"""Seconds after which a wait says that it still waits."""


@attrs.frozen
class DatabaseAt:
    """A database server, as it was written: the label of ``[database.LABEL]``, or ``PROVIDER:NAME``."""

    text: str

    @property
    def parts(self) -> tuple[str, str] | None:
        """The provider and the name; ``None`` of a label."""
        provider, colon, name = self.text.partition(":")
        if not colon:
            return None
        if not provider or not name:
            raise ConfigError(f"{self.text!r} is no database; say LABEL of [database.LABEL], or PROVIDER:NAME")
        return provider, name

    def open(self, context: Context) -> Database:
        """Return its handle. Calls nobody."""
        if self.parts is None:
            return context.app.database(self.text)
        return self.service(context).database(self.parts[1])

    def service(self, context: Context) -> Databases:
        """Return the service that it belongs to."""
        if self.parts is not None:
            return context.cloud(self.parts[0]).database
        return cast("Databases", context.app.service(self._declared(context)))

    def spec(self, context: Context) -> DatabaseSpec | None:
        """Return what is declared, of a label."""
        return None if self.parts else cast("DatabaseSpec", context.app.spec(self._declared(context)))

    def provider(self, context: Context) -> str:
        """Return what the file calls the provider that it is at."""
        return self.parts[0] if self.parts else context.app.provider_of(self._declared(context))

    def _declared(self, context: Context) -> Declared:
        context.app.database(self.text)  # which says what there is, if there is no such label
        (declared,) = (each for each in context.app.declared("database") if each.label == self.text)
        return declared


class DatabaseType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """``LABEL`` or ``PROVIDER:NAME``."""

    name = "database"

    def convert(self, value: str | DatabaseAt, *_where: Any) -> DatabaseAt:  # noqa: ANN401  as click
        """Take it as it is."""
        return DatabaseAt(value) if isinstance(value, str) else value


def _read_time(_context: click.Context, _parameter: click.Parameter, text: str | None) -> datetime | None:
    return None if text is None else when(text)


database_ = click.argument("place", type=DatabaseType(), metavar="DB", shell_complete=complete_labels("database"))
lines_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, one object a line.")
wait_option = click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is done.")
timeout_option = click.option(
    "--timeout", default="60m", show_default=True, metavar="TIME", callback=read_duration, help="How long to wait."
)
cpus_option = click.option("--cpus", type=click.IntRange(min=1), help="At least so many.")
memory_option = click.option("--memory-gib", type=click.IntRange(min=1), help="At least so much.")
storage_option = click.option("--storage-gib", type=click.IntRange(min=1), help="At least so much; it never shrinks.")


@click.group(cls=Group)
def db() -> None:
    """Make, show, connect to, save, restore and delete database servers.

    DB is LABEL of [database.LABEL], or PROVIDER:NAME with the label of [providers.PROVIDER]. What takes minutes goes on
    at the provider, also when the waiting is interrupted.
    """


for _command in (archive, backup, backups, delete_backup, online):
    db.add_command(_command)

# looking


@db.command("list")
@click.argument("providers", nargs=-1, metavar="[PROVIDER]...", shell_complete=complete_providers)
@click.option("-l", "--long", is_flag=True, help="State, version, size and address too: a call more for each.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many of each provider.")
@lines_option
@pass_context
def list_(context: Context, providers: tuple[str, ...], long: bool, limit: int | None, as_json: bool) -> None:
    """List the database servers of the providers that are named; else of those that the declared ones are at."""
    for provider, asking in each_of(providers or _own_providers(context)):
        with asking:
            for found in context.cloud(provider).database.list(limit=limit):
                if as_json:
                    json_line({"provider": provider, **_info_facts(found.info())})
                elif long:
                    info = found.info()
                    address = f"{info.server.host}:{info.server.port}" if info.server else ""
                    cells = (
                        f"{provider}:{found.name}",
                        info.state,
                        info.engine,
                        info.version,
                        info.size or "",
                        address,
                    )
                    say("\t".join(cells))
                else:
                    say(f"{provider}:{found.name}")


def _own_providers(context: Context) -> tuple[str, ...]:
    app = context.app
    declared = dict.fromkeys(app.provider_of(each) for each in app.declared("database"))
    return tuple(declared) or (app.config.environments[app.environment].provider,)


@db.command()
@database_
@json_option
@pass_context
def show(context: Context, place: DatabaseAt, as_json: bool) -> None:
    """Show the state of a server, where it listens, and what it is made of."""
    found = place.open(context)
    facts = _info_facts(found.info()) | _spec_facts(place.service(context).describe(found.name))
    failed: OperationError | None = None
    try:
        if (times := found.restorable()) is not None:
            facts |= {"restorable_from": times[0], "restorable_until": times[1]}
    except OperationError as exc:  # of the bucket with the archive, without which the server is
        failed = exc
    if as_json:
        context.json(facts)
    else:
        say_facts(facts)
    if failed is not None:
        raise failed


def _info_facts(info: DatabaseInfo) -> dict[str, Any]:
    """Return what a provider tells of a server as JSON has it."""
    server = info.server
    return {
        "name": info.name,
        "state": info.state,
        "provider_state": info.raw_state,
        "engine": info.engine,
        "version": info.version,
        "size": info.size,
        "host": server.host if server else None,
        "port": server.port if server else None,
        "admin": server.admin if server else None,
        "created": info.created,
        "restart_needed": info.restart_needed,
        "restorable_from": info.restorable_from,
        "restorable_until": info.restorable_until,
    }


_SPEC_FACTS = (
    *("cpus", "memory_gib", "storage_gib", "storage_autogrow", "high_availability", "backup_days"),
    *("deletion_protection", "public", "allow_from", "tls", "token_login", "databases", "parameters", "labels"),
)


def _spec_facts(spec: DatabaseSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in _SPEC_FACTS}


@db.command()
@database_
@click.argument("name", required=False, metavar="[DATABASE]")
@click.option("--reveal", is_flag=True, help="With the password. Keep it out of logs and histories.")
@json_option
@pass_context
def url(context: Context, place: DatabaseAt, name: str | None, *, reveal: bool, as_json: bool) -> None:
    """Print the URL of a database on a server: the first one that is declared, or DATABASE."""
    found = place.open(context).url(name)
    text = found.reveal() if reveal else str(found)
    if as_json:
        facts = {"engine": found.engine, "host": found.host, "port": found.port, "user": found.user}
        context.json({"url": text, **facts, "database": found.database, "ca": found.ca})
    else:
        say(text)


@db.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@database_
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[DATABASE] [-- ARGUMENT...]")
@pass_context
def shell(context: Context, place: DatabaseAt, arguments: tuple[str, ...]) -> None:
    """Open psql or mariadb on a server. What follows -- goes to it.

    The password is in a file without a name, in memory, that only the client has: in no argument, no environment and
    nowhere on a disk. The exit code is the client's.
    """
    from shiftable.cli._db_shell import run_shell

    name, rest = _split(arguments)
    found = place.open(context)
    if not found.features.connect:
        raise ConfigError(f"{place.text} is only simulated: there is no server to connect to")
    if found.info().state == "stopped":
        why = f"it is stopped; `shiftable db start {place.text}` starts it"
        raise Conflict(why, provider=found.provider, operation="database.shell", resource=found.resource)
    sys.exit(run_shell(found.url(name), rest))


def _split(arguments: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Tell the name of a database from what is the client's."""
    if not arguments:
        return None, ()
    if arguments[0] == "--":
        return None, arguments[1:]
    if arguments[0].startswith("-"):
        return None, arguments
    return arguments[0], arguments[2:] if arguments[1:2] == ("--",) else arguments[1:]


# making


@db.command()
@database_
@click.option("--engine", type=click.Choice(ENGINES), help="Of one that is not declared.")
@click.option("--version", help="Of one that is not declared: 16, 8.4.")
@cpus_option
@memory_option
@storage_option
@click.option("--database", "databases", multiple=True, metavar="NAME", help="A database on it. Repeatable.")
@click.option("--password", "secret", metavar="LABEL/KEY", help="The secret of its password; made if it is missing.")
@wait_option
@timeout_option
@json_option
@pass_context
def create(
    context: Context,
    place: DatabaseAt,
    engine: Engine | None,
    version: str | None,
    cpus: int | None,
    memory_gib: int | None,
    storage_gib: int | None,
    databases: tuple[str, ...],
    secret: str | None,
    *,
    wait: bool,
    timeout: timedelta,
    as_json: bool,
) -> None:
    """Make a server: as [database.LABEL] declares it; or PROVIDER:NAME, by options.

    The smallest size of the provider that has what is wanted is taken. A password that is declared as a secret which
    does not exist is made, stored there and shown nowhere.
    """
    given = {
        "engine": engine,
        "version": version,
        "cpus": cpus,
        "memory_gib": memory_gib,
        "storage_gib": storage_gib,
    }
    spec = place.spec(context)
    if spec is not None:
        if databases or secret or any(value is not None for value in given.values()):
            raise ConfigError(f"[database.{place.text}] says what it is; options are for PROVIDER:NAME")
    else:
        missing = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
        if missing:
            raise ConfigError(f"{place.text} is not declared; say {', '.join(missing)}")
        assert place.parts is not None  # noqa: S101  as there is no spec
        try:
            spec = DatabaseSpec(
                name=place.parts[1],
                databases=databases,
                password=context.app.credential(secret) if secret else None,
                **cast("Any", given),
            )
        except ValueError as exc:
            raise ConfigError(str(exc)) from None
    service = place.service(context)
    choice = service.size(spec)
    if choice is not None:
        click.echo(shown(f"{choice.size}: {choice.reason}"), err=True)
    found = service.create(spec)
    _finish(context, found, "created", wait=wait, timeout=timeout, as_json=as_json)


@db.command()
@database_
@cpus_option
@memory_option
@storage_option
@wait_option
@timeout_option
@json_option
@pass_context
def resize(
    context: Context,
    place: DatabaseAt,
    cpus: int | None,
    memory_gib: int | None,
    storage_gib: int | None,
    *,
    wait: bool,
    timeout: timedelta,
    as_json: bool,
) -> None:
    """Make a server larger or smaller. Most providers restart it; storage does not shrink."""
    if cpus is memory_gib is storage_gib is None:
        raise click.UsageError("say --cpus, --memory-gib or --storage-gib")
    found = place.open(context)
    state = found.info().state
    became = found.resize(cpus=cpus, memory_gib=memory_gib, storage_gib=storage_gib)
    size = f"{counted(became.cpus, 'CPU')}, {became.memory_gib} GiB, {became.storage_gib} GiB of storage"
    stopped = state == "stopped"
    _finish(context, found, f"has {size}", wait=wait, timeout=timeout, as_json=as_json, stopped=stopped)
    spec, given = place.spec(context), {"cpus": cpus, "memory_gib": memory_gib, "storage_gib": storage_gib}
    other = [f"{name} = {value}" for name, value in given.items() if value and value != getattr(spec, name, value)]
    if other:
        what = f"write {', '.join(other)} there, too, as `shiftable apply` goes by it"
        click.echo(f"[database.{place.text}] says otherwise: {what}", err=True)


# states


@db.command()
@database_
@wait_option
@timeout_option
@json_option
@pass_context
def start(context: Context, place: DatabaseAt, *, wait: bool, timeout: timedelta, as_json: bool) -> None:
    """Start a stopped server."""
    found = place.open(context)
    found.start()
    _finish(context, found, "started", wait=wait, timeout=timeout, as_json=as_json)


@db.command()
@database_
@wait_option
@timeout_option
@json_option
@pass_context
def stop(context: Context, place: DatabaseAt, *, wait: bool, timeout: timedelta, as_json: bool) -> None:
    """Stop a server: it keeps its data and costs less. Some providers start it again after a week."""
    found = place.open(context)
    found.stop()
    _finish(context, found, "stopped", wait=wait, timeout=timeout, as_json=as_json, stopped=True)


@db.command()
@database_
@wait_option
@timeout_option
@json_option
@pass_context
def restart(context: Context, place: DatabaseAt, *, wait: bool, timeout: timedelta, as_json: bool) -> None:
    """Restart a server, so that parameters count that need it."""
    found = place.open(context)
    found.restart()
    _finish(context, found, "restarted", wait=wait, timeout=timeout, as_json=as_json)


@db.command()
@database_
@click.option("--no-final-snapshot", is_flag=True, help="Without a last snapshot: what it holds is lost.")
@click.option("--unprotect", is_flag=True, help="Also if deletion_protection is on.")
@click.option("--yes", metavar="NAME", help="Confirm by the server's name, for scripts.")
@wait_option
@timeout_option
@pass_context
def delete(
    context: Context,
    place: DatabaseAt,
    *,
    no_final_snapshot: bool,
    unprotect: bool,
    yes: str | None,
    wait: bool,
    timeout: timedelta,
) -> None:
    """Delete a server, after its name was typed and a last snapshot was taken."""
    found = place.open(context)
    state = found.info().state  # one that does not exist needs no confirmation
    what = "and all that it holds, without a snapshot" if no_final_snapshot else "after a last snapshot"
    _confirm(found, place, what, yes)
    if unprotect and place.service(context).describe(found.name).deletion_protection:
        found.protect(on=False)
        with _told(found) as told:
            found.wait("stopped" if state == "stopped" else "available", timeout=timeout, on_info=told)
    place.service(context).delete(found.name, final_snapshot=not no_final_snapshot)
    if wait:
        with _told(found) as told:
            found.wait_deleted(timeout=timeout, on_info=told)
    click.echo(f"{found.name}: {'deleted' if wait else 'being deleted'}")


def _confirm(found: Database, place: DatabaseAt, what: str, yes: str | None) -> None:
    if yes is not None:
        if yes != found.name:
            raise ConfigError(f"--yes says {yes!r}, but the server is {found.name!r}")
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"to delete {place.text} ({found.provider.label}) without a terminal, say --yes {found.name}")
    text = f"{place.text} on {found.provider.label}, {what}: type {found.name} to delete it"
    if click.prompt(text, default="", show_default=False, err=True) != found.name:
        raise click.Abort


# snapshots


@db.command()
@database_
@click.argument("name", required=False)
@wait_option
@timeout_option
@json_option
@pass_context
def snapshot(
    context: Context, place: DatabaseAt, name: str | None, *, wait: bool, timeout: timedelta, as_json: bool
) -> None:
    """Take a snapshot of a server; without NAME it is called after the server and the time."""
    found = place.open(context)
    taken = found.snapshot(name)
    if wait:
        with interruptible(f"the snapshot {taken.name} goes on; see `shiftable db snapshots {place.text}`"):
            taken = found.wait_snapshot(taken.name, timeout=timeout)
    if as_json:
        context.json(_snapshot_facts(taken))
    else:
        say(taken.name)


@db.command()
@database_
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@lines_option
@pass_context
def snapshots(context: Context, place: DatabaseAt, limit: int | None, as_json: bool) -> None:
    """List the snapshots of a server, also of one that is gone."""
    for each in place.open(context).snapshots(limit=limit):
        if as_json:
            json_line(_snapshot_facts(each))
        else:
            created = fact_text(each.created) if each.created else ""
            size = f"{each.storage_gib} GiB" if each.storage_gib is not None else ""
            say("\t".join((each.name, each.state, created, size, "automatic" if each.automatic else "")).rstrip("\t"))


def _snapshot_facts(found: Snapshot) -> dict[str, Any]:
    return attrs.asdict(found)


@db.command("delete-snapshot")
@database_
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def delete_snapshot(context: Context, place: DatabaseAt, name: str, *, yes: bool) -> None:
    """Delete a snapshot."""
    found = place.open(context)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"to delete the snapshot {name} without a terminal, say --yes")
        click.confirm(f"delete the snapshot {name} of {place.text}?", abort=True, err=True)
    found.delete_snapshot(name)
    click.echo(f"{name}: deleted")


@db.command()
@database_
@click.argument("new", metavar="NEW")
@click.option("--snapshot", "name", metavar="NAME", help="What this snapshot holds.")
@click.option("--at", metavar="TIME", callback=_read_time, help="As it was at this time: 2026-03-31T12:00Z.")
@wait_option
@timeout_option
@json_option
@pass_context
def restore(
    context: Context,
    place: DatabaseAt,
    new: str,
    *,
    name: str | None,
    at: datetime | None,
    wait: bool,
    timeout: timedelta,
    as_json: bool,
) -> None:
    """Restore a snapshot or a time into a new server, NEW, that is else as DB. DB itself is not touched.

    Of a server that is gone, a snapshot is restored as [database.LABEL] declares the server.
    """
    if (name is None) is (at is None):
        raise click.UsageError("say --snapshot NAME or --at TIME")
    found = place.open(context)
    try:
        made = found.restore(new, snapshot=name, at=at)
    except NotFound:
        spec = place.spec(context)
        if spec is None or place.service(context).exists(found.name):
            raise
        made = found.restore(attrs.evolve(spec, name=new), snapshot=name, at=at)
    _finish(context, made, "restored", wait=wait, timeout=timeout, as_json=as_json)
    click.echo(f"it is not declared, and called {place.provider(context)}:{new}", err=True)


# waiting


def _finish(
    context: Context,
    found: Database,
    done: str,
    *,
    wait: bool,
    timeout: timedelta,
    as_json: bool,
    stopped: bool = False,
) -> None:
    """Wait for a server, if that is wanted, and say what it is then."""
    if wait:
        with _told(found) as told:
            info = found.wait("stopped" if stopped else "available", timeout=timeout, on_info=told)
    else:
        info = found.info()
    if as_json:
        context.json(_info_facts(info))
    elif wait:
        click.echo(f"{found.name}: {done}")
    else:
        click.echo(f"{found.name}: {info.state}; see `shiftable db show {found.provider.label}:{found.name}`")


@contextlib.contextmanager
def _told(found: Database) -> Iterator[Callable[[DatabaseInfo], None]]:
    """Tell on standard error how a wait goes on: each new state, and now and then that it lasts."""
    began, last = time.monotonic(), [("", 0.0)]

    def told(info: DatabaseInfo) -> None:
        passed = time.monotonic() - began
        state, said = last[0]
        if info.state == state and passed - said < _NEWS:
            return
        last[0] = (info.state, passed)
        since = f" ({duration_text(passed)})" if passed >= 1 else ""
        click.echo(shown(f"{found.name}: {info.state}{since}"), err=True)

    with interruptible(
        f"{found.name}: it goes on at the provider; `shiftable db list -l {found.provider.label}` tells"
    ):
        yield told
