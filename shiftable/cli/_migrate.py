"""``migrate``: move what the application declares from one provider to another."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from shiftable.cli._context import Context, complete_addresses, items_text, json_option, pass_context, size_text
from shiftable.cli._progress import Bars, Lines
from shiftable.errors import ConfigError
from shiftable.migrate import MOVERS, JsonEvents, LossCount, Migration, Named, Options, Plan, Report, Tally

__all__ = ["migrate"]

SHOWN = 20
"""Items that are named on the screen; the journal has all."""


@click.command()
@click.argument("resources", nargs=-1, metavar="[RESOURCE]...", shell_complete=complete_addresses)
@click.option("--from", "source", required=True, metavar="PROVIDER", help="Label of the provider to move from.")
@click.option("--to", "target", required=True, metavar="PROVIDER", help="Label of the provider to move to.")
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
@click.option("--overwrite", is_flag=True, help="Replace what differs on the target although we did not write it.")
@click.option(
    "--degrade",
    multiple=True,
    metavar="FACET",
    help="Accept that the target cannot hold this of an item: "
    + ", ".join(sorted({facet for mover in MOVERS.values() for facet in mover.facets}))
    + ".",
)
@click.option("--prune", is_flag=True, help="Delete on the target what we wrote and whose source is gone.")
@click.option("--include-pending", is_flag=True, help="Move secrets in the middle of a rotation too.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=16, show_default=True, help="Items at once.")
@json_option
@pass_context
def migrate(
    context: Context,
    resources: tuple[str, ...],
    source: str,
    target: str,
    apply: bool,
    only_verify: bool,
    no_verify: bool,
    quick: bool,
    save_plan: Path | None,
    plan_file: Path | None,
    overwrite: bool,
    degrade: tuple[str, ...],
    prune: bool,
    include_pending: bool,
    concurrency: int,
    as_json: bool,
) -> None:
    """Move buckets and secrets from one provider to another; a plan first, --apply does it.

    Nothing is ever written to the source. Killed anywhere, the same command goes on where it stopped. With --json
    each line of standard output is one event; the last one is the plan or the report.

    \b
    Exit codes: 0 all of it is, or would be, on the target, equal
                1 something is refused, in conflict, failed or different; it is named
                2 wrong usage or configuration      130 interrupted; go on with the same command
    """  # noqa: D301  click's mark for text that keeps its lines
    if plan_file and not apply:
        raise ConfigError("--plan goes with --apply")
    if only_verify and apply:
        raise ConfigError("--verify only compares; --apply verifies by itself")
    options = Options(
        overwrite=overwrite,
        degrade=degrade,
        prune=prune,
        include_pending=include_pending,
        concurrency=concurrency,
    )
    migration = Migration(context.app, source, target, resources, options)
    if as_json:
        good = _run(migration, JsonEvents(sys.stdout), apply, only_verify, no_verify, quick, save_plan, plan_file)
    else:
        with Bars() if sys.stderr.isatty() else Lines() as observer:
            result = _run(migration, observer, apply, only_verify, no_verify, quick, save_plan, plan_file)
        _show(result, migration)
        good = result
    sys.exit(0 if all(each.complete for each in good) else 1)


def _run(
    migration: Migration,
    observer: JsonEvents | Bars | Lines,
    apply: bool,
    only_verify: bool,
    no_verify: bool,
    quick: bool,
    save_plan: Path | None,
    plan_file: Path | None,
) -> list[Plan | Report]:
    """Do what was asked for and return the results, in order."""
    if only_verify:
        return [migration.verify(observer, quick=quick)]
    if not apply:
        plan = migration.plan(observer)
        if save_plan is not None:
            _save(plan, save_plan)
        return [plan]
    pinned = _saved(plan_file) if plan_file else None
    results: list[Plan | Report] = [migration.apply(pinned, observer)]
    if not no_verify:
        results.append(migration.verify(observer, quick=quick))
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
    for found in plan.resources:
        click.echo(f"{found.address}")
        for why in found.refused:
            click.echo(f"  REFUSED as a whole: {why}")
        for change in found.changes:
            click.echo(f"  first: {change}")
        for action, tally in found.actions.items():
            click.echo(f"  {action}: {_tally(tally)}")
        _show_losses(found.losses)
        _show_named(found.named, sum(found.troubles.values()))
    _show_skipped(plan.skipped)
    if not plan.complete:
        click.echo("something would not arrive: see above; --degrade FACET accepts a loss")
    elif plan.is_empty:
        click.echo("nothing to do")
    else:
        click.echo(f"nothing was changed; --apply does it (journal: {migration.journal_path})")


def _show_report(report: Report) -> None:
    for found in report.resources:
        click.echo(f"{found.address}")
        for why in found.refused:
            click.echo(f"  REFUSED as a whole: {why}")
        for action, tally in found.done.items():
            click.echo(f"  {action}: {_tally(tally)}")
        if found.verified.count:
            click.echo(f"  verified equal: {_tally(found.verified)}")
        _show_losses(found.losses)
        _show_named(found.named, sum(found.troubles.values()))
    _show_skipped(report.skipped)


def _tally(tally: Tally) -> str:
    """Say a number of items, and their bytes where those are known: secrets tell none."""
    return items_text(tally.count) + (f", {size_text(tally.bytes)}" if tally.bytes else "")


def _show_losses(losses: Iterable[LossCount]) -> None:
    for loss in losses:
        facet, detail, accepted = loss.facet, loss.detail, loss.accepted
        word = {True: "lost, accepted", False: "WOULD BE LOST", None: "not moved"}[accepted]
        click.echo(f"  {word}: {facet}: {detail} ({items_text(loss.count)}: {', '.join(loss.examples)})")


def _show_named(named: Iterable[Named], total: int) -> None:
    shown = list(named)[:SHOWN]
    for each in shown:
        click.echo(f"  {each.trouble}: {each.key}: {each.reason}")
    if total > len(shown):
        click.echo(f"  … and {total - len(shown):,} more, all in the journal")


def _show_skipped(skipped: tuple[str, ...]) -> None:
    if skipped:
        click.echo(f"not moved, no mover yet: {', '.join(skipped)}")
