"""``migrate``: move what the application declares from one provider to another."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
import click

from shiftable.app import App
from shiftable.cli._context import (
    Context,
    complete_addresses,
    interruptible,
    items_text,
    json_option,
    pass_context,
    shown,
    size_text,
    terminable,
    two_providers,
)
from shiftable.cli._progress import Bars, Lines, duration_text
from shiftable.cli._renaming import renamed
from shiftable.cli._units import duration, limit, rate, size, speed, when
from shiftable.errors import ConfigError, InvalidArgument, MigrationError, ShiftableError
from shiftable.files import save
from shiftable.migrate import (
    FACETS,
    Document,
    Estimate,
    Filter,
    Inventory,
    JsonEvents,
    KeyList,
    LossCount,
    Migration,
    Named,
    Observer,
    Options,
    Plan,
    Recorder,
    Report,
    Rule,
    Tally,
    Workers,
)

if TYPE_CHECKING:
    from shiftable.secrets import SecretsSpec, SecretStore

__all__ = ["migrate"]

SHOWN = 20
"""Reasons for which items are named on the screen; the journal has all."""
_EXAMPLES = 5
_FACETS = sorted({facet for own in FACETS.values() for facet in own})


class _Ordered(click.Command):
    """Keeps the order in which ``--include`` and ``--exclude`` were written, across the two of them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        left = {name: iter(given.get(name) or ()) for name in ("include", "exclude")}
        rules = [(param.name, next(left[param.name])) for param in order if param.name in left]
        ctx.meta[__name__] = [(name == "include", pattern) for name, pattern in rules]
        return super().parse_args(ctx, args)


def _complete_facets(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [facet for facet in _FACETS if facet.startswith(incomplete)]


def _complete_engines(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [engine for engine in ("threads", "processes", "dask=", "ray") if engine.startswith(incomplete)]


def _versions(text: str) -> int | None:
    """Read how many versions of a secret move, ``10``, or ``all``."""
    if text != "all" and not text.isdecimal():
        raise click.BadParameter(f"{text!r} is no number of versions; write 10, or all")
    return None if text == "all" else int(text)


@attrs.frozen(kw_only=True)
class _Wish:
    """What the command is to do, beside how."""

    apply: bool
    only_verify: bool
    no_verify: bool
    quick: bool
    finish_first: bool
    save_plan: Path | None
    plan_file: Path | None
    reports: tuple[Path, ...]

    def check(self) -> None:
        """Refuse what does not go together, before anything is done."""
        if self.plan_file and not self.apply:
            raise ConfigError("--plan goes with --apply")
        if self.finish_first and (self.plan_file or not self.apply):
            raise ConfigError(
                "--finish-first changes the source; it goes with --apply and without --plan: plan afterwards"
            )
        if self.only_verify and self.apply:
            raise ConfigError("--verify only compares; --apply verifies by itself")
        for path in self.reports:
            if path.suffix not in {".json", ".html"}:
                raise ConfigError(f"--report {path}: the name ends in .json or .html, which says what is written")
            if not os.access(path.parent, os.W_OK):
                raise ConfigError(f"--report {path}: nothing can be written to {path.parent}; choose another place")


@click.command(cls=_Ordered)
@click.argument("resources", nargs=-1, metavar="[RESOURCE]...", shell_complete=complete_addresses)
@two_providers("to move from.", "to move to.")
@click.option("--apply", is_flag=True, help="Do it; without this, only the plan is shown.")
@click.option("--verify", "only_verify", is_flag=True, help="Only compare both sides, whatever was done before.")
@click.option("--no-verify", is_flag=True, help="With --apply: do not read both sides again afterwards.")
@click.option("--quick", is_flag=True, help="Verify by the digests that both sides tell, where they do, unread.")
@click.option("--save-plan", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan to a file.")
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="With --apply: do exactly this saved plan, and nothing if the world has changed since.",
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write what was done to FILE.json or FILE.html, also if it fails or is interrupted. May be given twice.",
)
@click.option(
    "--include",
    multiple=True,
    metavar="PATTERN",
    help="Objects whose keys match are moved. The first --include or --exclude that matches decides; of a key that"
    " none matches the opposite of the last one is true.",
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Objects whose keys match are left.")
@click.option("--prefix", "prefixes", multiple=True, help="Only keys that begin so; only these are listed.")
@click.option("--min-size", type=size, help="Only objects at least so large: 10MiB, 4096.")
@click.option("--max-size", type=size, help="Only objects at most so large.")
@click.option("--modified-after", type=when, help="Only objects that were modified then or later: 2026-03-31T12:00.")
@click.option("--modified-before", type=when, help="Only objects that were modified before that.")
@click.option(
    "--files-from",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE|-",
    help="Only the keys in this list: one a line, or each ended by NUL.",
)
@click.option(
    "--inventory",
    type=click.Path(dir_okay=False, exists=True),
    metavar="FILE",
    help="Take the source's objects from this file and not from its listing: manifest.json of S3 Inventory, CSV,"
    " Parquet, or a list of keys.",
)
@click.option(
    "--names",
    multiple=True,
    metavar="LABEL=BUCKET",
    help="What the bucket of [blob.LABEL] is called on the target; put it into the file when you switch.",
)
@click.option("--overwrite", is_flag=True, help="Replace what differs on the target although we did not write it.")
@click.option(
    "--degrade",
    multiple=True,
    metavar="FACET",
    shell_complete=_complete_facets,
    help=f"Accept that the target cannot hold this of an item: {', '.join(_FACETS)}.",
)
@click.option(
    "--delete", is_flag=True, help="Delete at last, unless something failed, what we wrote and the source lost."
)
@click.option(
    "--delete-limit",
    type=limit,
    metavar="NUMBER|SHARE%",
    help="With --delete: more stops the move before it begins.  [default: 30%, ten always]",
)
@click.option(
    "--change-limit",
    type=limit,
    metavar="NUMBER|SHARE%",
    help="Of a zone: replacing or deleting more of what the target has stops the move before it begins."
    "  [default: 30% of ten or more]. Of a fleet: making more machines does.  [default: as many as the source has]",
)
@click.option("--apex", is_flag=True, help="Of a zone: its own NS records move too.")
@click.option(
    "--frozen",
    is_flag=True,
    help="Of databases: nobody writes to the source, so that a killed move goes on where it stopped.",
)
@click.option(
    "--ask",
    multiple=True,
    metavar="SERVER[@PORT]",
    help="Verify zones by asking these name servers, instead of those that the target tells; none: ask nobody.",
)
@click.option(
    "--ask-source",
    multiple=True,
    metavar="SERVER[@PORT]",
    help="With --degrade alias: ask these for the addresses, instead of the source's name servers; none: ask nobody.",
)
@click.option(
    "--map",
    "equivalents",
    multiple=True,
    metavar="NAME=NAME",
    help="Of fleets: what takes the place of a name that only the source's provider knows, of an image, a zone, a"
    " network, an identity, a kind of GPU.",
)
@click.option(
    "--health",
    multiple=True,
    metavar="CHECK",
    help="Verify fleets by a look at each machine from here: ssh, ssh:2222, tcp:5432, http:8080/health=200.",
)
@click.option(
    "--health-timeout", type=duration, default="5m", show_default=True, help="Until then all machines must be well."
)
@click.option("--include-pending", is_flag=True, help="Move secrets in the middle of a rotation too.")
@click.option(
    "--finish-first",
    is_flag=True,
    help="With --apply: finish rotations that are under way at the source, where [secrets.x.rotate] says how.",
)
@click.option(
    "--history",
    type=_versions,
    default="0",
    metavar="NUMBER|all",
    help="Move so many of the newest versions of a secret.  [default: those that are current or previous]",
)
@click.option("--origin", is_flag=True, help="Labels tell the ids and dates that secrets' versions have at the source.")
@click.option("--limit-bandwidth", type=speed, metavar="SIZE", help="Bytes a second at most: 10MiB.")
@click.option("--limit-requests", type=rate, metavar="RATE", help="Requests at most, to both sides together: 100/s.")
@click.option(
    "--listers", type=click.IntRange(1, 64), default=8, show_default=True, help="Ranges of keys listed at once."
)
@click.option(
    "--concurrency", type=click.IntRange(1, 256), default=64, show_default=True, help="Items at once, at most."
)
@click.option(
    "--engine",
    default="threads",
    show_default=True,
    metavar="ENGINE",
    shell_complete=_complete_engines,
    help="What copies and verifies objects: threads, processes[=NUMBER], dask=ADDRESS, ray[=ADDRESS].",
)
@json_option
@pass_context
def migrate(
    context: Context,
    /,
    resources: tuple[str, ...],
    source: str,
    target: str,
    as_json: bool,
    **chosen: object,
) -> None:
    """Move buckets, databases, fleets, secrets and zones from one provider to another; a plan first, --apply does it.

    Nothing is ever written to the source. Killed anywhere, the same command goes on where it stopped. With --json
    each line of standard output is one event; the last one is the plan or the report.

    \b
    Exit codes: 0 all of it is, or would be, on the target, equal
                1 something is refused, in conflict, failed or different; it is named
                2 wrong usage or configuration      130 interrupted; go on with the same command
    """  # noqa: D301  click's mark for text that keeps its lines
    wish = _Wish(**cast("dict[str, Any]", {field.name: chosen[field.name] for field in attrs.fields(_Wish)}))
    wish.check()
    try:
        options = _options(chosen)
        options = attrs.evolve(options, names=renamed(context.app, source, cast("tuple[str, ...]", chosen["names"])))
    except InvalidArgument as exc:
        raise ConfigError(exc.message) from exc
    workers = Workers.parse(cast("str", chosen["engine"]))
    try:
        migration = Migration(context.app, source, target, resources, options, workers=workers)
    except MigrationError as exc:  # of what was asked for; nothing has begun
        raise ConfigError(str(exc)) from exc
    if wish.finish_first:
        _finish_rotations(context.app, source, resources)
    with (
        interruptible("the same command goes on where it stopped"),
        terminable(),
        _observer(as_json) as observer,
        _reported(wish, migration, observer) as recorder,
    ):
        results = _run(migration, recorder, wish)
    if not as_json:
        _show(results, migration)
    sys.exit(0 if all(each.complete for each in results) else 1)


def _finish_rotations(app: App, source: str, resources: tuple[str, ...]) -> None:
    """Finish what is under way at the source; what cannot be finished is told, and then refused by the move."""
    from shiftable.rotation import Rotation

    for declared in app.declared("secrets"):
        if resources and not {declared.service, declared.address} & {*resources}:
            continue
        spec = cast("SecretsSpec", app.spec(declared, source))
        store = cast("SecretStore", app.service(declared, source).open(spec))
        for key, rotator in spec.rotate.items():
            rotation = Rotation(store, key, rotator)
            try:
                if rotation.status().pending is not None:
                    rotation.run()
                    click.echo(f"{declared.address}: finished the rotation of {shown(key)}", err=True)
            except ShiftableError as exc:
                click.echo(f"{declared.address}: cannot finish the rotation of {shown(key)}: {exc}", err=True)


def _options(chosen: Mapping[str, Any]) -> Options:
    """Return the options of a move; refuse those of which one says nothing without another."""
    most, delete = chosen["delete_limit"], chosen["delete"]
    if most is not None and not delete:
        raise ConfigError("--delete-limit goes with --delete")
    limits = {} if most is None else {"prune_share" if isinstance(most, float) else "prune_limit": most}
    changes = chosen["change_limit"]
    if changes is not None:
        limits["change_share" if isinstance(changes, float) else "change_limit"] = changes
    return Options(
        overwrite=chosen["overwrite"],
        degrade=chosen["degrade"],
        prune=delete,
        include_pending=chosen["include_pending"],
        history=chosen["history"],
        origin=chosen["origin"],
        concurrency=chosen["concurrency"],
        listers=chosen["listers"],
        bandwidth=chosen["limit_bandwidth"],
        requests=chosen["limit_requests"],
        filter=_filter(chosen),
        inventory=Inventory(chosen["inventory"]) if chosen["inventory"] else None,
        apex=chosen["apex"],
        frozen=chosen["frozen"],
        ask=_asked(chosen["ask"]),
        ask_source=_asked(chosen["ask_source"]),
        equivalents=_pairs(chosen["equivalents"]),
        health=_looks(chosen["health"]),
        health_timeout=chosen["health_timeout"].total_seconds(),
        **limits,
    )


def _asked(texts: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the name servers that were named, once they can be understood; ``None``: nobody is asked."""
    if texts == ("none",):
        return None
    from shiftable.migrate import NameServer

    return tuple(str(NameServer.parse(text)) for text in texts)


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """Return what takes the place of which name."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, other = text.partition("=")
        if not (name and separator and other):
            raise ConfigError(f"--map {text}: write NAME=NAME, as ami-0abc=debian-12")
        if found.setdefault(name, other) != other:
            raise ConfigError(f"--map: {name} has two names, {found[name]} and {other}")
    return found


def _looks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return how machines are looked at, once that can be understood."""
    if not texts:
        return ()
    from shiftable.migrate import HealthCheck

    return tuple(str(HealthCheck.parse(text)) for text in texts)


def _filter(chosen: Mapping[str, Any]) -> Filter:
    rules = click.get_current_context().meta[__name__]
    return Filter(
        rules=[Rule(include, pattern) for include, pattern in rules],
        prefixes=chosen["prefixes"],
        min_size=chosen["min_size"],
        max_size=chosen["max_size"],
        modified_after=chosen["modified_after"],
        modified_before=chosen["modified_before"],
        keys=_listed(chosen["files_from"]) if chosen["files_from"] else None,
    )


def _listed(path: Path) -> KeyList:
    try:
        with click.open_file(str(path), "rb") as stream:
            return KeyList.read(stream.read())
    except OSError as exc:
        raise ConfigError(f"--files-from {path}: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise ConfigError(f"--files-from {path}: it is not UTF-8 text") from None


@contextmanager
def _observer(as_json: bool) -> Iterator[Observer]:
    if as_json:
        yield JsonEvents(sys.stdout)
        return
    with Bars() if sys.stderr.isatty() else Lines() as observer:
        yield observer


@contextmanager
def _reported(wish: _Wish, migration: Migration, observer: Observer) -> Iterator[Recorder]:
    """Write the reports that were asked for, however it ends."""
    recorder, started = Recorder(observer), datetime.now(UTC)
    failure = ""
    try:
        yield recorder
    except KeyboardInterrupt:
        failure = "interrupted"
        raise
    except Exception as exc:
        failure = str(exc) if isinstance(exc, ShiftableError) else type(exc).__name__
        raise
    finally:
        if wish.reports:
            route, times = (migration.source, migration.target), (started, datetime.now(UTC))
            document = Document.of(recorder, route=route, options=migration.options, times=times, failure=failure)
            if not _written(document, wish.reports) and not failure:
                sys.exit(1)


def _written(document: Document, paths: Iterable[Path]) -> bool:
    """Write the reports; say of each that cannot be written why, without hiding why the move ended."""
    good = True
    for path in paths:
        try:
            text = document.to_json() if path.suffix == ".json" else document.to_html()
            save([text.encode()], path)
        except OSError as exc:
            click.echo(f"error: the report {path} cannot be written: {exc.strerror or exc}", err=True)
            good = False
    return good


def _run(migration: Migration, observer: Observer, wish: _Wish) -> list[Plan | Report]:
    """Do what was asked for and return the results, in order."""
    if wish.only_verify:
        return [migration.verify(observer, quick=wish.quick)]
    if not wish.apply:
        plan = migration.plan(observer)
        if wish.save_plan is not None:
            _save(plan, wish.save_plan)
        return [plan]
    pinned = _saved(wish.plan_file) if wish.plan_file else None
    results: list[Plan | Report] = [migration.apply(pinned, observer)]
    if not wish.no_verify:
        results.append(migration.verify(observer, quick=wish.quick))
    return results


def _save(plan: Plan, path: Path) -> None:
    try:
        path.write_text(plan.to_json() + "\n", encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"the plan cannot be written to {path}: {exc.strerror}; choose another place") from exc


def _saved(path: Path) -> Plan:
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"the plan {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no saved plan: it is not text") from None
    except MigrationError as exc:
        raise ConfigError(f"{path}: {exc}") from exc


# what is shown


def _show(results: list[Plan | Report], migration: Migration) -> None:
    for result in results:
        if isinstance(result, Plan):
            _show_plan(result, migration)
        else:
            _show_report(result)
    reports = [result for result in results if isinstance(result, Report)]
    if reports:
        complete = all(report.complete for report in reports)
        seconds = sum(report.seconds for report in reports)
        verdict = "everything is there" if complete else "NOT everything is there: see above"
        click.echo(f"{migration.source} → {migration.target}: {verdict} ({seconds:.1f} s)")
    if any(report.changed for report in reports):
        click.echo(reports[0].rollback)


def _show_plan(plan: Plan, migration: Migration) -> None:
    click.echo(f"plan {plan.digest[:12]}: from {plan.source} to {plan.target}")
    if plan.options.filter.told:
        click.echo(f"only: {shown('; '.join(plan.options.filter.told))}")
    for found in plan.resources:
        click.echo(f"{found.address}")
        for why in found.refused:
            click.echo(f"  REFUSED as a whole: {why}")
        for change in found.changes:
            click.echo(f"  first: {change}")
        if not (found.refused or found.changes or found.actions):
            click.echo("  nothing is there to move")
        _show_tallies(found.actions)
        _show_losses(found.losses)
        _show_named(found.named, sum(found.troubles.values()))
        if found.estimate is not None and found.to_do.count:
            _show_writes(found.address, found.estimate)
            _show_estimate(found.estimate, plan)
    _show_skipped(plan.skipped)
    if not plan.complete:
        facets = sorted({loss.facet for each in plan.resources for loss in each.losses if loss.accepted is False})
        hint = f"; {' '.join(f'--degrade {facet}' for facet in facets)} accepts what would be lost" if facets else ""
        click.echo(f"something would not arrive: see above{hint}")
    elif plan.is_empty:
        click.echo("nothing to do")
    else:
        click.echo(f"nothing was changed; --apply does it (journal: {migration.journal_path})")


def _show_writes(address: str, estimate: Estimate) -> None:
    """Say how many calls write, where that is not the number of items."""
    named = {"dns": "calls that write", "secrets": "versions to write"}.get(address.partition(".")[0])
    if named:
        click.echo(f"  {named}: {estimate.target.requests['write']:,}")


def _show_estimate(estimate: Estimate, plan: Plan) -> None:
    """Say what a move and its verification would ask for; what has no known price is never nothing."""
    sides = ((plan.source, estimate.source), (plan.target, estimate.target))
    told = ", ".join(f"{sum(demand.requests.values()):,} to {label}" for label, demand in sides)
    click.echo(f"  requests, to move and to verify: {told}")
    leaving = ", ".join(f"{size_text(demand.egress)} from {label}" for label, demand in sides if demand.egress)
    if leaving:
        click.echo(f"  data that leaves: {leaving}")
    if estimate.seconds is not None:
        click.echo(f"  time: at least {duration_text(estimate.seconds)}, by {estimate.bound}")
    for currency, amount in estimate.total.items():
        beside = " and what is unknown" if estimate.unknown else ""
        click.echo(f"  cost, by list prices: {amount:,.2f} {currency}{beside}")
    unknown: dict[str, list[str]] = {}
    for cost in estimate.unknown:
        unknown.setdefault(cost.why, []).append(cost.what)
    for why, costs in unknown.items():
        click.echo(f"  cost of {', '.join(costs)}: unknown, {why}")
    for found in estimate.prices:
        click.echo(f"  prices: {found.provider} {found.region}, {found.tier}, of {found.dated}, {found.urls[0]}")


def _show_report(report: Report) -> None:
    for found in report.resources:
        click.echo(f"{found.address}")
        for why in found.refused:
            click.echo(f"  REFUSED as a whole: {why}")
        if not (found.refused or found.done or found.verified.count or found.named):
            click.echo("  nothing is there to move")
        _show_tallies(found.done)
        if found.verified.count:
            click.echo(f"  verified equal: {_tally(found.verified)}")
        _show_losses(found.losses)
        for note in found.notes:
            click.echo(f"  {shown(note)}")
        _show_named(found.named, sum(found.troubles.values()))
    _show_skipped(report.skipped)


def _show_tallies(tallies: Mapping[Any, Tally]) -> None:
    for action, tally in tallies.items():
        click.echo(f"  {action}: {_tally(tally)}")


def _tally(tally: Tally) -> str:
    """Say a number of items, and their bytes where those are known: secrets tell none."""
    return items_text(tally.count) + (f", {size_text(tally.bytes)}" if tally.bytes else "")


def _show_losses(losses: Iterable[LossCount]) -> None:
    for loss in losses:
        facet, detail, accepted = loss.facet, shown(loss.detail), loss.accepted
        word = {True: "lost, accepted", False: "WOULD BE LOST", None: "note"}[accepted]
        examples = ", ".join(shown(key) for key in loss.examples)
        whose = f" ({items_text(loss.count)}: {examples})" if any(loss.examples) else ""
        click.echo(f"  {word}: {facet}: {detail}{whose}")


def _show_named(named: Iterable[Named], total: int) -> None:
    """Name items and why; those with the same reason together, so that a common one does not hide the others."""
    groups: dict[tuple[str, str], list[str]] = {}
    for each in named:
        groups.setdefault((each.trouble, each.reason), []).append(each.key)
    told = 0
    for (trouble, reason), keys in list(groups.items())[:SHOWN]:
        told += len(keys)
        if len(keys) == 1:
            click.echo(f"  {trouble}: {shown(keys[0])}: {shown(reason)}")
            continue
        examples = ", ".join(shown(key) for key in sorted(keys)[:_EXAMPLES])
        more = ", …" if len(keys) > _EXAMPLES else ""
        click.echo(f"  {trouble}: {shown(reason)} ({items_text(len(keys))}: {examples}{more})")
    if total > told:
        click.echo(f"  … and {total - told:,} more, all in the journal")


def _show_skipped(skipped: tuple[str, ...]) -> None:
    if skipped:
        click.echo(f"not moved, no mover yet: {', '.join(skipped)}")
