"""``init``, ``plan``, ``apply``, ``destroy``: what is declared, and made to exist."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click

from shiftable.app import App
from shiftable.cli._context import Context, complete_addresses, json_option, pass_context
from shiftable.config import as_in_file
from shiftable.errors import ConfigError, Conflict, NotFound, ProviderError, ShiftableError, Unsupported
from shiftable.manifest import FILE_NAME, Declared, json_schema
from shiftable.service import Change
from shiftable.wording import counted

__all__ = ["apply", "destroy", "init", "plan"]

T = TypeVar("T")

TEMPLATE = """\
#:schema ./.shiftable/schema.json
# What this application needs, and where each environment gets it from. Credentials never stand here: the providers
# find them by their own chain (profiles, roles, identities), or a setting refers to them:
#     {{ env = "NAME" }}   {{ file = "path" }}   {{ secret = "app/some/key" }}

[project]
name = "{name}"
# owner = "payments"                # who answers for it

# SHIFTABLE_ENV picks one of these.
[environments.development]
provider = "local"

# [environments.production]
# provider = "frankfurt"            # change this line and the application runs elsewhere
# [environments.production.overrides]
# "secrets.app" = "local"           # one resource somewhere else

[providers.local]
type = "baremetal"                  # files below root; no server, no account
root = ".shiftable/data"

# [providers.frankfurt]
# type = "aws"                      # pip install shiftable-aws
# region = "eu-central-1"

# shiftable.load().blob("assets").put("logo.png", data)
[blob.assets]
bucket = "{name}-assets"
# versioning = true

# shiftable.load().secrets("app").get("stripe/key").reveal()
[secrets.app]
prefix = "{name}"
# env = {{ STRIPE_KEY = "stripe/key" }}   # for `shiftable run -- command`
"""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--name", help="The application's name; else the folder's.")
@pass_context
def init(context: Context, folder: Path, name: str | None) -> None:
    """Write a commented shiftable.toml."""
    path = context.file or folder / FILE_NAME
    label = _slug(name or path.resolve().parent.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(name=label))
    except FileExistsError:
        raise ConfigError(f"{path} exists already; nothing was written") from None
    except OSError:
        path.unlink(missing_ok=True)  # half of it, where the disk is full
        raise
    _write_state(path.parent)
    click.echo(f"wrote {path}; next: shiftable check, shiftable plan, shiftable apply")


def _slug(text: str) -> str:
    """Make a name that begins the names of buckets anywhere: ASCII letters, digits and single hyphens, and short."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:40].strip("-") or "app"


def _write_state(folder: Path) -> None:
    """Give editors the schema, and keep local data and journals out of git by a file that git itself does not show."""
    state = folder / ".shiftable"
    state.mkdir(exist_ok=True)
    (state / "schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    ignore = state / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


@attrs.frozen
class Pending:
    """A change, with the resource that needs it."""

    declared: Declared
    change: Change[Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        change = self.change
        return {
            "resource": self.declared.address,
            "name": change.name,
            "action": change.action,
            "destroys": change.destroys,
            "reason": change.reason,
            "monthly_cost": None if change.monthly_cost is None else str(change.monthly_cost),
            "fields": {field.name: {"from": field.before, "to": field.after} for field in change.fields},
        }


@attrs.frozen
class Failed:
    """A resource whose provider could not be asked, or did not do what it was told."""

    declared: Declared
    error: Exception

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"resource": self.declared.address, "error": str(self.error)}


@attrs.define
class Failures:
    """What failed of several resources; none of them keeps the others from their turn."""

    found: list[Failed] = attrs.Factory(list)

    def attempt(self, declared: Declared, function: Callable[[Declared], T]) -> T | None:
        """Do something for one resource; ``None`` if it failed, which is then among those found."""
        try:
            return function(declared)
        except (ShiftableError, ImportError) as exc:  # an SDK that is missing or broken
            self.found.append(Failed(declared, exc))
            return None

    def to_json(self) -> list[dict[str, Any]]:
        """Return them as JSON has them."""
        return [each.to_json() for each in self.found]

    def show(self) -> None:
        """Name each with its resource."""
        for each in self.found:
            lines = str(each.error).splitlines()
            click.echo(f"error: {each.declared.address}: {'; '.join(lines)}", err=True)

    @property
    def exit_code(self) -> int:
        """2 where the configuration is wrong, 1 where something else is, 0 without any."""
        if any(isinstance(each.error, ConfigError | ProviderError) for each in self.found):
            return 2
        return 1 if self.found else 0


def pending(app: App, declared: Declared) -> list[Pending]:
    """Ask a provider what differs from what is declared.

    Raises:
        Unsupported: something does, and the provider has not what is declared.
    """
    changes, service, spec = app.diff(declared), app.service(declared), app.spec(declared)
    missing = service.missing_features(spec) if changes else ()
    if missing:
        raise Unsupported(f"{app.provider_of(declared)} has no {', no '.join(missing)}")
    return [Pending(declared, change) for change in changes]


def chosen(app: App, addresses: tuple[str, ...]) -> tuple[Declared, ...]:
    """Return the declared resources that are named: ``blob.assets`` one, ``blob`` all of a service, none: all."""
    everything = app.declared()
    unknown = [a for a in addresses if not any(a in (d.address, d.service) for d in everything)]
    if unknown:
        known = ", ".join(declared.address for declared in everything)
        raise ConfigError(f"not declared: {', '.join(unknown)}; there is: {known}")
    return tuple(d for d in everything if not addresses or d.address in addresses or d.service in addresses)


resources = click.argument("resources", nargs=-1, metavar="[RESOURCE]...", shell_complete=complete_addresses)


@click.command()
@resources
@click.option("--exit-code", is_flag=True, help="Exit with 1 when something would change.")
@json_option
@pass_context
def plan(context: Context, resources: tuple[str, ...], exit_code: bool, as_json: bool) -> None:
    """Show what of the file does not exist, or differs, in an environment. Changes nothing."""
    app, failures = context.app, Failures()
    found: list[Pending] = []
    asked = chosen(app, resources)
    for declared in asked:
        found += failures.attempt(declared, lambda each: pending(app, each)) or ()
    if as_json:
        changes = [each.to_json() for each in found]
        context.json({"environment": app.environment, "changes": changes, "failures": failures.to_json()})
    else:
        show(context, found, asked=len(asked), complete=not failures.found)
    failures.show()
    sys.exit(failures.exit_code or (1 if found and exit_code else 0))


def show(context: Context, found: list[Pending], *, asked: int, complete: bool) -> None:
    """Show changes for people, one resource a line and one field a line below it.

    Args:
        asked: of how many resources these are all changes.
        complete: whether all of them could be asked.
    """
    app = context.app
    signs = {"create": "+", "update": "~", "delete": "-"}
    for each in found:
        change = each.change
        where = app.provider_of(each.declared)
        note = f"  destroys what it holds{_elsewhere(each)}" if change.destroys else ""
        click.echo(f"{signs[change.action]} {each.declared.address}  {change.action} {change.name!r} on {where}{note}")
        for field in change.fields:
            before = "" if change.before is None else f"{as_in_file(field.before)} → "
            click.echo(f"    {field.name}: {before}{as_in_file(field.after)}")
        for note in _notes(change):
            click.echo(f"    {note}")
    if not found and not complete:
        click.echo(f"{app.environment}: nothing to change is known; not every resource could be asked")
    elif not found:
        click.echo(f"{app.environment}: everything is as declared ({counted(asked, 'resource')})")
    else:
        skipped = sum(each.change.destroys for each in found)
        does = f"{len(found) - skipped} of them, and skips what destroys" if skipped else "it"
        click.echo(f"{app.environment}: {len(found)} to change; shiftable apply does {does}")


def _elsewhere(each: Pending) -> str:
    """Say which command does what ``apply`` does not."""
    return f"; `shiftable compute replace {each.declared.label}` does it" if each.declared.service == "compute" else ""


def _notes(change: Change[Any]) -> Iterator[str]:
    """Say of a change what its fields do not."""
    if change.reason:
        yield f"why: {change.reason}"
    if change.monthly_cost is not None and (change.monthly_cost or change.action != "update"):
        yield f"costs {change.monthly_cost:+,.2f} USD a month"


@click.command()
@resources
@json_option
@pass_context
def apply(context: Context, resources: tuple[str, ...], as_json: bool) -> None:
    """Create what is declared and does not exist, change what differs. Deletes nothing.

    A resource that fails does not keep the others from their turn; applying again goes on where this ended.
    """
    app, failures = context.app, Failures()
    results: list[dict[str, Any]] = []
    begun: list[tuple[Declared, dict[str, Any]]] = []

    try:
        for declared in chosen(app, resources):
            for each in failures.attempt(declared, lambda each: pending(app, each)) or ():
                results.append(each.to_json() | {"result": "interrupted"})
                results[-1]["result"] = _applied(app, each, failures)
                if not as_json:
                    _say(results[-1])
                if results[-1]["result"] == "done":
                    begun.append((declared, results[-1]))
        _settle(app, begun, failures)
    finally:
        if as_json:  # also when it is interrupted: what was done is told
            context.json({"environment": app.environment, "changes": results, "failures": failures.to_json()})
    if not as_json and not results and not failures.found:
        click.echo(f"{app.environment}: everything is as declared")
    failures.show()
    skipped = any(result["result"] != "done" for result in results)
    sys.exit(failures.exit_code or (1 if skipped else 0))


def _applied(app: App, each: Pending, failures: Failures) -> str:
    if each.change.destroys:
        return f"skipped: it would destroy something{_elsewhere(each)}"

    def carry_out(declared: Declared) -> bool:
        app.apply(declared, each.change)
        return True

    return "done" if failures.attempt(each.declared, carry_out) else f"failed: {failures.found[-1].error}"


def _settle(app: App, begun: list[tuple[Declared, dict[str, Any]]], failures: Failures) -> None:
    """Wait for what takes minutes, after all of it has begun."""

    def wait(declared: Declared) -> bool:
        app.service(declared).settle(app.spec(declared))
        return True

    for declared, result in begun:
        if not failures.attempt(declared, wait):
            result["result"] = f"failed: {failures.found[-1].error}"


def _say(result: dict[str, Any]) -> None:
    """Say how a change ended; why it failed comes at the end, with what else failed."""
    ended = "failed" if result["result"].startswith("failed: ") else result["result"]
    click.echo(f"{result['action']} {result['resource']} ({result['name']}): {ended}")


@click.command()
@click.argument("resources", nargs=-1, required=True, metavar="RESOURCE...", shell_complete=complete_addresses)
@click.option("--yes", multiple=True, metavar="NAME", help="Confirm by the provider's name, for scripts.")
@pass_context
def destroy(context: Context, resources: tuple[str, ...], yes: tuple[str, ...]) -> None:
    """Delete resources, each after its name was typed. A bucket that holds objects is refused."""
    app = context.app
    for declared in chosen(app, resources):
        name = app.spec(declared).name
        service = app.service(declared)
        if not service.exists(name):
            click.echo(f"{declared.address} ({name}): does not exist")
            continue
        where = f"{app.provider_of(declared)}, environment {app.environment}"
        if name not in yes:
            if not sys.stdin.isatty():
                raise ConfigError(f"to destroy {declared.address} ({where}) without a terminal, say --yes {name}")
            typed = click.prompt(
                f"{declared.address} on {where}: type {name} to destroy it", default="", show_default=False
            )
            if typed != name:
                raise click.Abort
        try:
            app.destroy(declared)
        except NotFound:
            click.echo(f"{declared.address} ({name}): does not exist")
        except Conflict as exc:
            if how := _emptying(app, declared):
                exc.message = f"{exc.message.rstrip('.')}; {how}"
            raise
        else:
            click.echo(f"{declared.address} ({name}): destroyed")


def _emptying(app: App, declared: Declared) -> str:
    """Say which command empties what is deleted only when it is empty."""
    label = declared.label
    match declared.service:
        case "blob":
            versions = "--versions " if app.blob(label).features.versioning else ""
            return f"`shiftable blob rm -r {versions}{label}:` empties it"
        case "dns":
            return f"`shiftable dns rm {label} NAME` deletes the record sets of a name"
        case "secrets":
            return f"`shiftable secrets rm {label} KEY` deletes one"
        case _:
            return ""
