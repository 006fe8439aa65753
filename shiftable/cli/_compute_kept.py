"""What a command of ``compute`` is about that a provider keeps apart from machines: a disk, a snapshot, an image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import attrs
import click

from shiftable.cli._context import Context, confirm_name
from shiftable.cli._units import read_duration
from shiftable.compute import Compute
from shiftable.compute.driver import Disk, DiskSnapshot, Image
from shiftable.errors import AlreadyExists, ConfigError, NotFound, OperationError, Resource

__all__ = ["Kept", "kept", "refuse_taken", "waiting", "yes_option"]

K = TypeVar("K", Disk, DiskSnapshot, Image)
E = TypeVar("E", bound=OperationError)


@attrs.frozen
class Kept:
    """What a provider keeps apart from machines, as it was written: ``PROVIDER:NAME`` or ``PROVIDER:ID``.

    Args:
        kind: ``disk``, ``disk snapshot`` or ``image``.
    """

    kind: str
    provider: str
    name: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.name}"

    def service(self, context: Context) -> Compute:
        """Return the service that it belongs to. Calls nobody."""
        return context.cloud(self.provider).compute

    def find(self, service: Compute, every: Iterable[K]) -> K:
        """Look for it in a listing: an id is one thing's alone, a name may be that of several.

        Raises:
            NotFound: nothing of that name or id.
            ConfigError: several of that name.
        """
        named: list[K] = []
        for each in every:
            if each.id == self.name:
                return each
            if each.name == self.name:
                named.append(each)
        if len(named) > 1:
            ids = ", ".join(each.id for each in named)
            raise ConfigError(f"{self} is the name of {len(named)} of them; say which by its id: {ids}")
        if not named:
            raise self.refusal(NotFound, service, "find", "there is none of that name or id")
        return named[0]

    def confirmed(self, found: Disk | DiskSnapshot | Image, yes: str | None) -> str:
        """Have its name typed before it is lost, and return that name; of what has none it is the id."""
        name = found.name or found.id
        confirm_name(f"the {self.kind} {name} on {self.provider} and all that is on it", name, yes)
        return name

    def refusal(self, error: type[E], service: Compute, operation: str, why: str) -> E:
        """Return an error about it, to be raised."""
        resource = Resource(self.kind, self.name)
        return error(why, provider=service.provider, operation=f"compute.{operation}", resource=resource)


class KeptType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """``PROVIDER:NAME`` or ``PROVIDER:ID``."""

    def __init__(self, kind: str) -> None:
        self.name = kind

    def convert(self, value: str | Kept, *where: Any) -> Kept:  # noqa: ANN401  as click
        """Tell the provider from the rest."""
        if isinstance(value, Kept):
            return value
        provider, colon, name = value.partition(":")
        if not (provider and colon and name):
            self.fail(f"{value!r} is no {self.name}; say PROVIDER:NAME or PROVIDER:ID", *where)
        return Kept(self.name, provider, name)


def kept(kind: str, metavar: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the argument ``which`` of a command, which names one such thing."""
    return click.argument("which", type=KeptType(kind), metavar=metavar)


def refuse_taken(which: Kept, service: Compute, operation: str, every: Iterable[K]) -> None:
    """Refuse a name that is taken: also where a provider allows it twice, this command tells things apart by it."""
    for each in every:
        if each.name == which.name:
            state = "" if each.ready else ", being made or deleted"
            raise which.refusal(AlreadyExists, service, operation, f"there is one of that name, {each.id}{state}")


def waiting(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option that says how long to wait."""
    return click.option(
        "--timeout",
        default=default,
        show_default=True,
        metavar="TIME",
        callback=read_duration,
        help="How long to wait.",
    )


yes_option = click.option("--yes", metavar="NAME", help="Confirm by its name, for scripts.")
