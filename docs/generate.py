"""Write the parts of the documentation that the code knows better: what each driver can do, and the file's keys.

``python docs/generate.py`` writes ``docs/reference/features.md``, ``docs/reference/prices.md`` and
``docs/reference/shiftable-toml.md`` and the table in ``README.md``; with ``--check`` it only says whether they are as
they should be.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from shiftable import registry
from shiftable.config import schema
from shiftable.features import Features, Limit
from shiftable.manifest import Environment, Project, json_schema, spec_type
from shiftable.migrate._prices import price_lists
from shiftable.provider import SERVICES
from shiftable.secrets.rotator import Rotator

ROOT = Path(__file__).parent.parent
PROVIDERS = ("aws", "gcp", "azure", "baremetal", "libcloud", "memory")
SERVICE_TITLES = {
    "blob": "Blob storage",
    "secrets": "Secrets",
    "dns": "DNS",
    "database": "Databases",
    "compute": "Compute",
}


def main() -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = 0
    for path, text in pages().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        sys.stdout.write(
            f"{path.relative_to(ROOT)} {'is stale; run: python docs/generate.py' if check else 'written'}\n"
        )
        if not check:
            path.write_text(text, encoding="utf-8")
    return stale if check else 0


def pages() -> dict[Path, str]:
    """Return what each generated page should be."""
    readme = ROOT / "README.md"
    marked = re.compile(r"(<!-- matrix -->\n).*?(<!-- /matrix -->)", re.DOTALL)
    return {
        ROOT / "docs/reference/features.md": features_page(),
        ROOT / "docs/reference/prices.md": prices_page(),
        ROOT / "docs/reference/shiftable-toml.md": toml_page(),
        readme: marked.sub(lambda match: match[1] + "\n".join(matrix()) + "\n" + match[2], readme.read_text("utf-8")),
    }


def drivers() -> Iterator[tuple[str, str, Features]]:
    """Yield (provider, service, features) of every driver there is."""
    for name in PROVIDERS:
        for service, found in registry.load(name).features().items():
            for features in found:
                yield name, service, features


def matrix() -> Iterator[str]:
    """Yield the table of providers and services."""
    yield f"| | {' | '.join(PROVIDERS)} |"
    yield f"|---|{'---|' * len(PROVIDERS)}"
    have = list(drivers())
    for service in SERVICES:
        cells = [[f.title for p, s, f in have if (p, s) == (name, service)] for name in PROVIDERS]
        yield f"| **{SERVICE_TITLES[service]}** | {' | '.join('; '.join(cell) or '-' for cell in cells)} |"


def features_page() -> str:
    """Return the support matrix, a table for each service."""
    lines = [
        "# What each driver can do",
        "",
        "Generated from the drivers' own `Features`; the conformance suite tests both directions: what says yes works,",
        "what says no refuses before anything is sent. `shiftable providers aws` prints the same.",
        "",
        *matrix(),
    ]
    have = list(drivers())
    for service in SERVICES:
        found = [(name, features) for name, s, features in have if s == service]
        if not found:
            continue
        lines += ["", f"## {SERVICE_TITLES[service]}", "", f"| | {' | '.join(f'{n}: {f.title}' for n, f in found)} |"]
        lines += [f"|---|{'---|' * len(found)}"]
        sources: list[str] = []
        for field in attrs.fields(type(found[0][1])):
            if field.name != "title":
                cells = [shown(getattr(features, field.name), sources) for _, features in found]
                lines.append(f"| {field.metadata['about']} | {' | '.join(cells)} |")
        lines += ["", *(f"{number}. {source}" for number, source in enumerate(sources, 1))]
    return "\n".join(lines) + "\n"


def prices_page() -> str:
    """Return the list prices and rates that a move's estimate is made with."""
    lines = [
        "# List prices",
        "",
        "<!-- written by docs/generate.py -->",
        "",
        "What `shiftable migrate` estimates with: published list prices, before free allowances, discounts and taxes,",
        "at the date that is given. A place that is not here is unknown to an estimate; nothing is guessed from a",
        "neighbour. Outgoing data is priced as if it left for the internet and nothing else left in that month.",
        "",
        "| provider | region | requests | date | write, list, read, delete per 1,000 | outgoing data |",
        "|---|---|---|---|---|---|",
    ]
    sources = []
    for found in price_lists().values():
        for place in found.places:
            costs = ", ".join(f"{place.per_thousand[kind]:g}" for kind in ("write", "list", "read", "delete"))
            unit = "GiB" if place.egress_unit == 2**30 else "GB"
            tiers = ", ".join(
                f"{tier.price:g}" + (f" up to {tier.up_to:,} {unit}" if tier.up_to else "") for tier in place.egress
            )
            told = f"{costs} {found.currency} | {tiers} {found.currency} per {unit}"
            lines.append(f"| {found.provider} | {place.region} | {place.tier} | {place.dated} | {told} |")
            sources += [f"- {found.provider} {place.region}: <{url.replace(' ', '%20')}>" for url in place.sources]
    lines += ["", "## Documented rates", ""]
    lines += ["| provider | writes a second | reads a second | of |", "|---|---|---|---|"]
    for found in price_lists().values():
        rates = found.rates
        lines.append(f"| {found.provider} | {rates.writes:,} | {rates.reads:,} | {rates.scope} |")
        sources.append(f"- {found.provider}, rates: <{rates.source}>")
    lines += ["", "Of secrets, as many of a driver's calls as the quotas of requests admit:", ""]
    lines += ["| provider | versions written a second | values read | histories read | of |", "|---|---|---|---|---|"]
    for found in price_lists().values():
        pace = found.secrets
        counts = " | ".join(f"{each:,g}" for each in (pace.writes, pace.reads, pace.lists))
        lines.append(f"| {found.provider} | {counts} | {pace.scope} |")
        sources.append(f"- {found.provider}, rates of secrets: <{pace.source}>")
    lines += ["", "Of zones, requests; what is counted in record sets is among the [features](features.md):", ""]
    lines += ["| provider | calls a second | of | date |", "|---|---|---|---|"]
    for found in price_lists().values():
        if found.dns is not None:
            lines.append(f"| {found.provider} | {found.dns.calls:g} | {found.dns.scope} | {found.dns.dated} |")
            sources.append(f"- {found.provider}, rates of zones: <{found.dns.source}>")
    return "\n".join([*lines, "", "## Sources", "", *dict.fromkeys(sources), ""])


def shown(value: object, sources: list[str]) -> str:
    """Return the text of one cell; a number gets a note that says where it is from."""
    if isinstance(value, Limit):
        if value.source not in sources:
            sources.append(value.source)
        return f"{value} ({sources.index(value.source) + 1})"
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, frozenset | tuple | set):
        return ", ".join(sorted(map(str, value)))
    return str(value)


def toml_page() -> str:
    """Return the reference of shiftable.toml."""
    lines = [
        "# shiftable.toml",
        "",
        "Generated from the classes that read it. `shiftable schema` prints the same as a JSON Schema for editors.",
        "The file is found in the working folder or the nearest one above it. `SHIFTABLE_ENV` picks the environment.",
        "Every mistake is told at once, with its place and line.",
        "",
        'A **credential** never stands in the file: its key takes a reference, `{ env = "NAME" }`, `{ file = "path" }`',
        'or `{ secret = "label/key" }` (a secret of this application), and is read when it is needed.',
        'Paths are relative to the file. Durations are `"90s"`, `"15m"`, `"12h"`, `"30d"`, `"4w"`.',
    ]
    lines += table("[project]", schema(Project)) + table("[environments.x]", schema(Environment))
    for provider in json_schema()["properties"]["providers"]["additionalProperties"]["oneOf"]:
        kind = provider["properties"].pop("type")["const"]
        lines += table(f'[providers.x] with type = "{kind}"', provider)
        for key, value in provider["properties"].items():
            if value.get("properties"):
                lines += table(f'[providers.x.{key}] with type = "{kind}"', value)
    for service in SERVICES:
        found = schema(spec_type(service))
        lines += table(f"[{service}.x]", found)
        for key, value in found["properties"].items():
            if value.get("items", {}).get("properties"):
                lines += table(f"[[{service}.x.{key}]]", value["items"])
    for rotator in schema(Rotator)["oneOf"]:
        kind = rotator["properties"].pop("kind")["const"]
        lines += table(f'[secrets.x.rotate] with kind = "{kind}"', rotator)
    return "\n".join(lines) + "\n"


def table(title: str, of: dict[str, Any]) -> list[str]:
    """Return one table of keys."""
    lines = ["", f"## {title}", ""]
    if not of["properties"]:
        return [*lines, "No keys."]
    lines += ["| key | takes | default | |", "|---|---|---|---|"]
    for key, value in of["properties"].items():
        default = (
            "required" if key in of.get("required", ()) else f"`{value['default']!r}`" if "default" in value else ""
        )
        about = value.get("description", "").replace("|", "\\|")
        lines.append(f"| `{key}` | {kind_of(value)} | {default} | {about} |")
    return lines


def kind_of(value: dict[str, Any]) -> str:
    """Say in a word what a key takes."""
    if "enum" in value:
        return ", ".join(f"`{choice!r}`" for choice in value["enum"])
    if "oneOf" in value:
        return "credential"
    if "anyOf" in value:
        return " or ".join(kind_of(each) for each in value["anyOf"])
    if value.get("type") == "array":
        return f"list of {kind_of(value['items'])}"
    if value.get("type") == "object":
        return "table"
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return names.get(value.get("type", ""), "value")


if __name__ == "__main__":
    sys.exit(main())
