"""``dns``: zones and their record sets, as people write them in zone files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from shiftable.cli._context import (
    Context,
    Group,
    complete_labels,
    complete_providers,
    each_of,
    json_line,
    json_option,
    pass_context,
    say,
    shown,
)
from shiftable.cli._dns_cutover import cutover
from shiftable.cli._serving import until_told
from shiftable.cli._units import limit
from shiftable.dns import RecordChange, RecordSet, Token, Zone
from shiftable.dns._rules import too_many
from shiftable.errors import ConfigError, NotFound
from shiftable.wording import counted

if TYPE_CHECKING:
    from shiftable.cloud import Cloud

__all__ = ["dns"]


@attrs.frozen
class ZoneAt:
    """A zone, as it was written: the label of ``[dns.LABEL]``, or ``PROVIDER:NAME``."""

    text: str

    def open(self, context: Context) -> Zone:
        """Return its handle. Calls nobody."""
        provider, colon, name = self.text.partition(":")
        if not colon:
            return context.app.dns(self.text)
        if not provider or not name:
            raise ConfigError(f"{self.text!r} is no zone; say LABEL of [dns.LABEL], or PROVIDER:NAME")
        return cloud_of(context, provider).dns.zone(name)

    def __str__(self) -> str:
        return self.text


def cloud_of(context: Context, provider: str) -> Cloud:
    """Return a provider by its label in the file or, without a file, by its type."""
    app = context.app_if_any
    return context.connected(provider) if app is None else app.cloud(provider)


class ZoneType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """``LABEL`` or ``PROVIDER:NAME``."""

    name = "zone"

    def convert(self, value: str | ZoneAt, *_where: Any) -> ZoneAt:  # noqa: ANN401  as click
        """Take it as it is."""
        return ZoneAt(value) if isinstance(value, str) else value


zone_ = click.argument("place", type=ZoneType(), metavar="ZONE", shell_complete=complete_labels("dns"))
lines_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, one object a line.")
dry_option = click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
apex_option = click.option("--apex", is_flag=True, help="The NS and SOA of the zone itself too.")
if_match_option = click.option("--if-match", metavar="TOKEN", help="Only if it is still in this version.")


@click.group(cls=Group)
def dns() -> None:
    """Show, change, compare and move zones.

    ZONE is LABEL of [dns.LABEL], or PROVIDER:NAME with the label of [providers.PROVIDER]. A name may be relative to the
    zone (www, @ for the zone itself) or end in a dot; a value is written as in a zone file.
    """


dns.add_command(cutover)


# looking


@dns.command()
@click.argument("providers", nargs=-1, metavar="[PROVIDER]...", shell_complete=complete_providers)
@click.option("-l", "--long", is_flag=True, help="Name servers too: a call more for each zone.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many of each provider.")
@lines_option
@pass_context
def zones(context: Context, providers: tuple[str, ...], long: bool, limit: int | None, as_json: bool) -> None:
    """List the zones of the providers that are named; else of those that the declared zones are at."""
    for provider, asking in each_of(providers or _own_providers(context)):
        with asking:
            for zone in cloud_of(context, provider).dns.list(limit=limit):
                servers = zone.info().nameservers if long or as_json else ()
                if as_json:
                    json_line({"provider": provider, "zone": zone.name, "nameservers": servers})
                else:
                    say("\t".join([f"{provider}:{zone.name}", *([" ".join(servers)] if long else [])]))


def _own_providers(context: Context) -> tuple[str, ...]:
    app = context.app
    declared = dict.fromkeys(app.provider_of(each) for each in app.declared("dns"))
    return tuple(declared) or (_own_provider(context),)


def _own_provider(context: Context) -> str:
    app = context.app
    return app.config.environments[app.environment].provider


@dns.command()
@zone_
@click.argument("name", required=False)
@click.option("--type", "kind", metavar="TYPE", help="Only those of this type.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@lines_option
@pass_context
def records(
    context: Context, place: ZoneAt, name: str | None, kind: str | None, limit: int | None, as_json: bool
) -> None:
    """Show the record sets of a zone, or of one NAME in it, as lines of a zone file.

    What the provider answers by rules of its own comes as a comment.
    """
    found = place.open(context).records(name=name, type=kind, limit=limit)
    for record in found:
        if as_json:
            json_line(facts(record))
        else:
            for line in lines_of(record):
                say(line)


def facts(record: RecordSet) -> dict[str, Any]:
    """Return a record set as JSON has it; ``token`` is what ``--if-match`` takes."""
    policy = {"provider": record.policy.provider, "data": record.policy.data} if record.policy else None
    return {
        "name": record.name,
        "type": record.type,
        "ttl": record.ttl,
        "values": record.texts,
        **({"set_id": record.key.set_id} if record.key.set_id else {}),
        **({"policy": policy} if policy else {}),
        "token": record.token.value,
    }


def lines_of(record: RecordSet) -> list[str]:
    """Return the lines of a zone file that say the same; routing of the provider's own as a comment."""
    head = f"{record.name} {record.ttl} IN {record.type}"
    values = [f"{head} {text}" for text in record.texts]
    if record.policy is None:
        return values
    return [f"; {line}  ({record.policy.provider}: {record.policy.data})" for line in values or [head]]


# writing


@dns.command("set")
@zone_
@click.argument("name")
@click.argument("kind", metavar="TYPE")
@click.argument("values", nargs=-1, required=True, metavar="VALUE...")
@click.option("--ttl", type=click.IntRange(min=0), help="Seconds; else as it is, or the zone's own for a new one.")
@click.option("--if-absent", is_flag=True, help="Only if there is none.")
@if_match_option
@click.option("--apex", is_flag=True, help="Allow to change the NS or SOA of the zone itself.")
@json_option
@pass_context
def set_(
    context: Context,
    place: ZoneAt,
    name: str,
    kind: str,
    values: tuple[str, ...],
    *,
    ttl: int | None,
    if_absent: bool,
    if_match: str | None,
    apex: bool,
    as_json: bool,
) -> None:
    """Make a record set hold these values and no others: set shop www A 192.0.2.1 192.0.2.2."""
    token = Token(if_match) if if_match else None
    zone = place.open(context)
    record = zone.set(name, kind, values, ttl=ttl, if_absent=if_absent, if_match=token, apex=apex)
    if as_json:
        context.json(facts(record))
    else:
        for line in lines_of(record):
            say(line)


@dns.command()
@zone_
@click.argument("name")
@click.argument("kinds", nargs=-1, metavar="[TYPE]...")
@click.option("--set-id", default="", help="Which of several with routing policies.")
@if_match_option
@dry_option
@yes_option
@pass_context
def rm(
    context: Context,
    place: ZoneAt,
    name: str,
    kinds: tuple[str, ...],
    *,
    set_id: str,
    if_match: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete the record sets of a NAME, all of them or those of the TYPEs. The SOA and NS of the zone itself stay."""
    zone = place.open(context)
    wanted = [zone.get(name, kind, set_id=set_id) for kind in kinds]
    found = wanted or [record for record in zone.records(name=name) if not _is_own(zone, record)]
    if not found:
        raise NotFound(f"{zone.origin} has no record sets of the name {name!r}")
    if if_match and (len(found) != 1 or found[0].token != Token(if_match)):
        raise ConfigError("--if-match is not the version of one record set; see `shiftable dns records --json`")
    changes = tuple(RecordChange(before=record, after=None) for record in found)
    carry_out(zone, changes, dry_run=dry_run, ask=not yes)


def _is_own(zone: Zone, record: RecordSet) -> bool:
    return record.name == zone.origin and record.type in {"NS", "SOA"}


def carry_out(zone: Zone, changes: tuple[RecordChange, ...], *, dry_run: bool, ask: bool, apex: bool = False) -> None:
    """Show changes, ask, and make them."""
    show(changes)
    if dry_run or not changes:
        return
    what = f"{_counted(len(changes))} of {zone.origin} on {zone.provider.label}"
    if ask and not sys.stdin.isatty():
        raise ConfigError(f"{what} would change; without a terminal, say --yes")
    if ask:
        click.confirm(f"change {what}?", abort=True, err=True)
    zone.change(changes, apex=apex)
    click.echo(f"{what}: changed, and read back", err=True)


def _counted(count: int) -> str:
    return counted(count, "record set")


def show(changes: Iterable[RecordChange]) -> None:
    """Show changes as lines that go and lines that come, in colour on a terminal, unless NO_COLOR is set."""
    for change in changes:
        gone, come = ([] if each is None else lines_of(each) for each in (change.before, change.after))
        for line in gone:
            if line not in come:
                _diff_line("-", line, "red")
        for line in come:
            if line not in gone:
                _diff_line("+", line, "green")


def _diff_line(sign: str, line: str, colour: str) -> None:
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        click.secho(shown(f"{sign}{line}"), fg=colour)
    else:
        say(f"{sign}{line}")


# files


@dns.command("export")
@zone_
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Replace this file when all is there.")
@click.option("--omit-policies", is_flag=True, help="Leave out what no zone file can hold: the provider's own routing.")
@pass_context
def export_(context: Context, place: ZoneAt, out: Path | None, omit_policies: bool) -> None:
    """Write a zone as a zone file that any name server loads: a record a line, sorted."""
    text = place.open(context).export_file(out, omit_policies=omit_policies)
    if out is None:
        click.echo(text, nl=False)


@dns.command("import")
@zone_
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--replace", is_flag=True, help="Delete the record sets that are not in the file.")
@click.option(
    "--change-limit",
    type=limit,
    metavar="NUMBER|SHARE%",
    help="With --yes: a file that would replace or delete more of the zone changes nothing."
    "  [default: 30% of ten or more]",
)
@apex_option
@dry_option
@yes_option
@pass_context
def import_(
    context: Context,
    place: ZoneAt,
    file: Path,
    *,
    replace: bool,
    change_limit: float | None,
    apex: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Read a zone file (- is standard input) into a zone: what differs is shown, asked about and changed.

    A file that was cut off differs much: with --yes, see --change-limit.
    """
    zone = place.open(context)
    changes = tuple(
        change for change in zone.diff(_of_file(zone, file), apex=apex) if replace or change.after is not None
    )
    ask = not yes and any(change.action != "create" for change in changes)
    if yes and not dry_run:
        _check_share(zone, changes, change_limit)
    carry_out(zone, changes, dry_run=dry_run, ask=ask, apex=apex)


@dns.command()
@zone_
@click.argument("other", metavar="ZONE|FILE")
@apex_option
@click.option("--exit-code", is_flag=True, help="Exit with 1 when something differs.")
@lines_option
@pass_context
def diff(context: Context, place: ZoneAt, other: str, *, apex: bool, exit_code: bool, as_json: bool) -> None:
    """Show what would make a zone's records those of another zone, or of a zone file (- is standard input).

    The SOA's serial, what a signing server makes itself and, without --apex, the SOA and NS of the zone count for
    nothing.
    """
    zone = place.open(context)
    changes = zone.diff(_other(context, zone, other), apex=apex)
    if as_json:
        for change in changes:
            before, after = (None if each is None else facts(each) for each in (change.before, change.after))
            json_line({"action": change.action, "before": before, "after": after})
    else:
        show(changes)
    sys.exit(1 if exit_code and changes else 0)


def _other(context: Context, zone: Zone, text: str) -> Zone | tuple[RecordSet, ...]:
    """Return another zone, or the records of a file. A file of the name of a label is written ``./shop``."""
    file = Path(text)
    app = context.app_if_any
    labels = {each.label for each in app.declared("dns")} if app is not None else {*()}
    if text not in labels and (text == "-" or "/" in text or file.is_file()):
        return _of_file(zone, file)
    if text not in labels and ":" not in text:
        raise ConfigError(f"{text!r} is neither a file nor a zone; say LABEL of [dns.LABEL], or PROVIDER:NAME")
    found = ZoneAt(text).open(context)
    if found.name != zone.name:
        raise ConfigError(f"{found.origin} is another zone than {zone.origin}; names are compared as they are")
    return found


def _check_share(zone: Zone, changes: Iterable[RecordChange], most: float | None) -> None:
    """Refuse to replace or delete much of a zone while nobody looks on."""
    touched = sum(change.before is not None for change in changes)
    if not touched:
        return
    there = sum(1 for _ in zone.records())
    limits: dict[str, Any] = {} if most is None else {"share" if isinstance(most, float) else "limit": most}
    if told := too_many(touched, there, **limits):
        raise ConfigError(
            f"{touched:,} of the {counted(there, 'record set')} of {zone.origin} on {zone.provider.label} would be"
            f" replaced or deleted, and --yes does that to at most {told}; look at the file (--dry-run), or raise that"
            " limit (--change-limit)"
        )


def _of_file(zone: Zone, file: Path) -> tuple[RecordSet, ...]:
    """Return the records of a file; ``-`` is standard input."""
    return zone.parse(sys.stdin.buffer.read() if str(file) == "-" else file)


# serving


@dns.command()
@click.argument("provider", required=False, shell_complete=complete_providers)
@click.option("--port", type=click.IntRange(0, 65535), default=8053, show_default=True, help="0: any that is free.")
@click.option("--update", is_flag=True, help="Take dynamic updates (RFC 2136) and write them.")
@lines_option
@pass_context
def serve(context: Context, provider: str | None, port: int, update: bool, as_json: bool) -> None:
    """Answer the zones of PROVIDER on loopback by UDP and TCP, until Ctrl-C or SIGTERM.

    PROVIDER has its zones in files; without one it is that of the environment. Zones are transferred (AXFR) to whoever
    on this machine asks. A file that is edited is read again. For the world, let BIND, NSD or Knot load the files.
    """
    chosen = provider or _own_provider(context)
    with until_told() as wait, cloud_of(context, chosen).dns.serve(port, update=update) as server:
        if as_json:
            json_line({"host": server.host, "port": server.port})
        else:
            say(f"the zones of {chosen} are answered at {server.host}, port {server.port}; Ctrl-C ends it")
        sys.stdout.flush()
        wait()
