"""Providers by entry point, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from shiftable.config import did_you_mean
from shiftable.errors import ProviderError
from shiftable.provider import DRIVER_API, Provider

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["GROUP", "Registered", "installed", "load", "names"]

GROUP = "shiftable.providers"

KNOWN: Mapping[str, str] = {name: f"shiftable-{name}" for name in ("aws", "azure", "baremetal", "gcp", "libcloud")}
"""Providers of this project and the distributions that hold them, for the hint to install one."""


@attrs.frozen
class Registered:
    """An entry point that claims to be a provider; it may still be broken.

    Args:
        distribution: name and version of what was installed, ``shiftable-aws 0.1.0``.
        target: the object it names, ``shiftable_aws:AwsProvider``.
    """

    name: str
    distribution: str
    target: str


def installed() -> tuple[Registered, ...]:
    """Return everything that claims to be a provider, by name. Imports none of it."""
    found = sorted(_entry_points(), key=lambda point: (point.name, _distribution(point)))
    return tuple(Registered(point.name, _distribution(point), point.value) for point in found)


def names() -> tuple[str, ...]:
    """Return the names of the installed providers."""
    return tuple(sorted({point.name for point in _entry_points()}))


def load(name: str) -> type[Provider[Any]]:
    """Import a provider. Its SDK stays unloaded until a driver is made.

    Raises:
        ProviderError: unknown (with what is installed, and what to install), broken (with the reason as
            ``__cause__``), claimed by two distributions, or written for another driver API.
    """
    points = [point for point in _entry_points() if point.name == name]
    if not points:
        raise ProviderError(_unknown(name))
    if len({point.value for point in points}) > 1:
        claims = " and ".join(f"{_distribution(point)} ({point.value})" for point in points)
        raise ProviderError(f"two distributions claim the provider {name!r}: {claims}; uninstall one of them")
    return _loaded(points[0])


def _loaded(point: EntryPoint) -> type[Provider[Any]]:
    origin = f"the provider {point.name!r} of {_distribution(point)}"
    try:
        found = point.load()
    except Exception as exc:
        raise ProviderError(f"{origin} cannot be imported: {type(exc).__name__}: {exc}") from exc
    if not (isinstance(found, type) and issubclass(found, Provider)):
        raise ProviderError(f"{origin} names {point.value}, which is no shiftable.provider.Provider")
    version = getattr(found, "driver_api", None)
    if version != DRIVER_API:
        older = isinstance(version, int) and version < DRIVER_API
        advice = "upgrade that provider" if older or version is None else "upgrade shiftable"
        raise ProviderError(f"{origin} is made for driver API {version}, this is {DRIVER_API}; {advice}")
    return found


def _unknown(name: str) -> str:
    known = names()
    if name in KNOWN:
        return f'the provider {name!r} is not installed; run: pip install "{KNOWN[name]}"'
    hint = did_you_mean(name, {*known, *KNOWN})
    return f"unknown provider {name!r}{hint if 'did you mean' in hint else ''}; installed: {', '.join(known)}"


def _entry_points() -> Iterable[EntryPoint]:
    """Look through what is installed: a file of each distribution, and so again only where some folder has changed."""
    return _entry_points_of(tuple((folder, _changed(folder)) for folder in sys.path))


@lru_cache(maxsize=1)
def _entry_points_of(_folders: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points  # it takes as long as half of the rest, and no help needs it

    return tuple(entry_points(group=GROUP))


def _changed(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"
