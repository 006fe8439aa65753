"""``check``, ``providers``, ``schema``: configuration, providers, features, reachability."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import click

from shiftable import registry
from shiftable.app import App
from shiftable.cli._context import Context, complete_providers, json_option, pass_context
from shiftable.errors import ProviderError, ShiftableError
from shiftable.features import Features, Limit
from shiftable.manifest import Declared, json_schema
from shiftable.provider import SERVICES

__all__ = ["check", "providers", "schema"]


@attrs.frozen
class Finding:
    """What one check found."""

    subject: str
    good: bool
    text: str


@click.command()
@click.option(
    "--target",
    metavar="PROVIDER",
    shell_complete=complete_providers,
    help="Check another provider: what would be missing there?",
)
@click.option("--offline", is_flag=True, help="Do not ask the providers whether they can be reached.")
@json_option
@pass_context
def check(context: Context, target: str | None, offline: bool, as_json: bool) -> None:
    """Check the configuration, the providers and that each resource can be reached."""
    app = context.app
    if target is not None:
        app.cloud(target)  # a wrong name is one mistake, not one of each resource
    found = [Finding(str(app.config.path), True, f"environment {app.environment}")]
    found += [_checked(app, declared, target, offline=offline) for declared in app.declared()]
    good = all(finding.good for finding in found)
    if as_json:
        context.json({"good": good, "findings": [attrs.asdict(finding) for finding in found]})
    else:
        for finding in found:
            click.echo(f"{'ok   ' if finding.good else 'WRONG'} {finding.subject}: {finding.text}")
    sys.exit(0 if good else 1)


def _checked(app: App, declared: Declared, target: str | None, *, offline: bool) -> Finding:
    label = target or app.provider_of(declared)
    subject = f"{declared.address} on {label}"
    try:
        spec = app.spec(declared, label)
        service = app.service(declared, label)
        missing = service.missing_features(spec)
        if missing:
            return Finding(subject, False, f"this provider has no {', no '.join(missing)}")
        if offline:
            return Finding(subject, True, f"{spec.name}: not asked")
        there = service.exists(spec.name)
    except ShiftableError as exc:
        return Finding(subject, False, str(exc).replace("\n", "; "))
    how = "" if target else ": shiftable apply"  # which makes it at the environment's own provider
    return Finding(subject, True, f"{spec.name} exists" if there else f"{spec.name} can be made{how}")


@click.command()
@click.argument("name", required=False)
@json_option
@pass_context
def providers(context: Context, name: str | None, as_json: bool) -> None:
    """Show the installed providers, or the features of one."""
    if name is not None:
        _show_features(context, name, as_json=as_json)
        return
    rows = list(_providers())
    if as_json:
        context.json([dict(zip(("name", "distribution", "services", "problem"), row, strict=True)) for row in rows])
    else:
        shown = [(n, d, ", ".join(services) or "none yet", problem) for n, d, services, problem in rows]
        context.table(("provider", "installed", "services", "problem"), shown)
        for known, distribution in registry.KNOWN.items():
            if known not in registry.names():
                click.echo(f'{known} is not installed: pip install "{distribution}"')
    sys.exit(1 if any(row[3] for row in rows) else 0)


def _providers() -> Iterator[tuple[str, str, list[str], str]]:
    for found in registry.installed():
        try:
            has = _features(found.name)
        except ProviderError as exc:  # and no reason to hide the others
            yield found.name, found.distribution, [], str(exc)
        else:
            yield found.name, found.distribution, [service for service in SERVICES if service in has], ""


def _features(name: str) -> Mapping[str, tuple[Features, ...]]:
    """Return what a provider has, by service.

    Raises:
        ProviderError: it cannot be loaded; its SDK, or a module of its own, is missing, or wrong in any other way.
    """
    provider = registry.load(name)
    try:
        return provider.features()
    except Exception as exc:
        raise ProviderError(f"the provider {name} cannot be used: {type(exc).__name__}: {exc}") from exc


def _show_features(context: Context, name: str, *, as_json: bool) -> None:
    features = _features(name)
    if as_json:
        context.json({s: [{f: _plain(v) for f, _, v in each.rows()} for each in has] for s, has in features.items()})
        return
    for service, drivers in features.items():
        for each in drivers:
            click.echo(f"{name} {service}: {each.title}")
            rows = [(about, _shown(value)) for field, about, value in each.rows() if field != "title"]
            context.table(("feature", "has"), rows)
            click.echo()


def _plain(value: Any) -> Any:  # noqa: ANN401  any feature
    return {"value": value.value, "source": value.source} if isinstance(value, Limit) else value


def _shown(value: object) -> str:
    if isinstance(value, Limit):
        return f"{value}  ({value.source})"
    return (
        {True: "yes", False: "no", None: "no known limit"}.get(value, str(value))
        if value in (True, False, None)
        else str(value)
    )


@click.command()
@pass_context
def schema(context: Context) -> None:
    """Print the JSON Schema of shiftable.toml, for editors."""
    context.json(json_schema())
