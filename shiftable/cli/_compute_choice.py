"""``compute sizes``, ``images`` and ``sweep``: what a provider has to choose from, and what it should not have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import attrs
import click

from shiftable import registry
from shiftable.cli._compute_target import own_providers
from shiftable.cli._context import (
    Context,
    complete_providers,
    each_of,
    json_line,
    pass_context,
    say,
    say_failure,
    shown,
)
from shiftable.cli._units import read_duration
from shiftable.compute import Choice, Compute, FleetSpec
from shiftable.compute.driver import GIB, Arch
from shiftable.errors import ConfigError, ShiftableError, Unsupported
from shiftable.parallel import parallel
from shiftable.provider import Provider
from shiftable.wording import counted

__all__ = ["images", "sizes", "sweep"]

providers_ = click.argument("providers", nargs=-1, metavar="[PROVIDER]...", shell_complete=complete_providers)
lines_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, one object a line.")


@attrs.frozen
class _Offer:
    """What one provider has for a need."""

    provider: str
    choice: Choice
    warning: str | None

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        size = self.choice.size
        return {
            "provider": self.provider,
            "size": size.name,
            "cpus": size.cpus,
            "memory_gib": size.memory / GIB,
            "arch": size.arch,
            "gpus": size.gpus,
            "gpu": size.gpu,
            "hourly": self.choice.price,
            "monthly": self.choice.monthly,
            "reason": self.choice.reason,
        }

    def cells(self) -> tuple[str, ...]:
        """Return it as a row has it."""
        size = self.choice.size
        gpus = f"{size.gpus} {size.gpu or 'GPU'}" if size.gpus else ""
        extent = counted(size.cpus, "CPU"), f"{size.memory / GIB:g} GiB", gpus
        return self.provider, size.name, *extent, _monthly(self.choice.monthly), self.choice.reason


def _monthly(price: Decimal | None) -> str:
    return "" if price is None else f"{price:,.2f} USD/month"


@click.command()
@providers_
@click.option("--cpus", type=click.IntRange(min=1), help="At least so many.")
@click.option("--memory-gib", "--memory", "memory_gib", type=click.IntRange(min=1), help="At least so much.")
@click.option("--arch", type=click.Choice(["x86_64", "arm64"]), help="Of the processors; for a need x86_64, else all.")
@click.option("--gpus", type=click.IntRange(min=0), default=0, help="At least so many.")
@click.option("--gpu", help="Their kind, in the provider's words.")
@lines_option
@pass_context
def sizes(
    context: Context,
    providers: tuple[str, ...],
    cpus: int | None,
    memory_gib: int | None,
    arch: Arch | None,
    gpus: int,
    gpu: str | None,
    *,
    as_json: bool,
) -> None:
    """Compare what the providers have for a need, the cheapest first; without a need list all sizes.

    The providers that are named, else all that are configured and have machines, else all that are installed but
    memory, whose prices are made up.
    """
    needed = any((cpus, memory_gib, gpus, gpu))
    spec = FleetSpec(
        name="sizes",
        image="debian-12",
        cpus=cpus or 1,
        memory_gib=memory_gib or 1,
        arch=arch or "x86_64",
        gpus=gpus,
        gpu=gpu,
    )

    def ask(provider: str) -> list[_Offer]:
        try:
            service = context.cloud(provider).compute
        except Unsupported:  # of some hosters there are machines, of others not
            if providers:
                raise
            return []
        listed = service.features.price_list
        warning = listed.warning(datetime.now(UTC).date()) if listed else None
        if needed:
            return [_Offer(provider, service.choose(spec), warning)]
        of_arch = (size for size in service.sizes() if arch in (None, size.arch))
        every = sorted(of_arch, key=lambda size: (size.arch, size.gpus, size.cpus, size.memory, size.name))
        return [_Offer(provider, Choice(size, "", size.price), warning) for size in every]

    asked = list(parallel(ask, list(providers or _with_compute(context)), workers=8))
    found, failed = [], False
    for provider, future in asked:
        error = future.exception()
        if isinstance(error, ShiftableError | ImportError):
            say_failure(provider, error)
            failed = True
        else:
            found += future.result()
    if not (found or failed):
        whose, what = "named provider" if providers else "provider of the file", f" of {arch}" if arch else ""
        raise ConfigError(f"no {whose} has machines{what}; `shiftable providers` says which could")
    _say_offers(context, sorted(found, key=_cheapest) if needed else found, as_json=as_json)
    sys.exit(1 if failed and (providers or not found) else 0)


def _cheapest(offer: _Offer) -> tuple[bool, Decimal, str]:
    price = offer.choice.price
    return price is None, price or Decimal(0), offer.provider


def _say_offers(context: Context, found: list[_Offer], *, as_json: bool) -> None:
    if as_json:
        for offer in found:
            json_line(offer.facts())
    else:
        columns = ("provider", "size", "CPUs", "memory", "GPUs", "price", "why")
        context.table(columns, ([shown(cell) for cell in offer.cells()] for offer in found))
    for provider, warning in dict.fromkeys((offer.provider, offer.warning) for offer in found if offer.warning):
        click.echo(f"{provider}: {warning}", err=True)


def _with_compute(context: Context) -> Iterator[str]:
    """Yield the providers of the file that have machines; without a file, those that are installed."""
    app = context.app_if_any
    installed = [name for name in registry.names() if name != "memory"] or registry.names()
    for name in installed if app is None else app.config.providers or own_providers(context):
        try:
            type_ = registry.load(name) if app is None else context.cloud(name).unwrap(Provider)
        except ShiftableError:
            yield name  # asking it tells why
        else:
            if "compute" in type_.features():
                yield name


@click.command()
@providers_
@click.option("--own", is_flag=True, help="Only those that this account has made.")
@lines_option
@pass_context
def images(context: Context, providers: tuple[str, ...], *, own: bool, as_json: bool) -> None:
    """List what machines can start from: the newest image of each alias, and the account's own."""
    for provider, asking in each_of(providers or own_providers(context)):
        with asking:
            for image in context.cloud(provider).compute.images():
                if own and not image.own:
                    continue
                if as_json:
                    json_line({"provider": provider, **attrs.asdict(image)})
                else:
                    made = f"{image.created:%Y-%m-%d}" if image.created else ""
                    notes = "own" if image.own else "", "" if image.ready else "being made"
                    cells = (provider, image.name, image.arch, image.id, made, *filter(None, notes))
                    say("\t".join(map(shown, cells)).rstrip("\t"))


@click.command()
@providers_
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option(
    "--older-than", default="1h", show_default=True, metavar="TIME", callback=read_duration,
    help="Younger things may belong to a machine that is being made. 0s: all, also what has no age.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@lines_option
@pass_context
def sweep(
    context: Context,
    providers: tuple[str, ...],
    *,
    dry_run: bool,
    older_than: timedelta,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete what creations and deletions that failed left behind: addresses, disks, firewalls without a machine.

    Only what bears shiftable's label. Disks, images and snapshots that were made by name stay.
    """
    state: Literal["found", "deleted"] = "found" if dry_run else "deleted"
    for provider, asking in each_of(providers or own_providers(context)):
        with asking:
            service = context.cloud(provider).compute
            if not (providers or service.features.debris):
                continue  # failures leave nothing there, or nothing that could be found
            if not dry_run and not yes and not _agreed(service, provider, older_than):
                continue
            for each in service.debris(older_than=older_than) if dry_run else service.sweep(older_than=older_than):
                if as_json:
                    json_line({"provider": provider, "state": state, **attrs.asdict(each)})
                else:
                    say(shown(f"{provider}: {each}: {state}"))


def _agreed(service: Compute, provider: str, older_than: timedelta) -> bool:
    """Ask whether to delete what there is; ``False`` if there is nothing."""
    left = list(service.debris(older_than=older_than))
    if not left:
        return False
    if not sys.stdin.isatty():
        things = counted(len(left), "thing")
        raise ConfigError(f"to delete {things} at {provider} without a terminal, say --yes; -n lists them")
    for each in left:
        click.echo(shown(f"{provider}: {each}"), err=True)
    return click.confirm(f"delete them at {provider}?", err=True)
