"""The installed doubles, by the provider that they stand in for."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from shiftable import registry
from shiftable.errors import ConfigError

if TYPE_CHECKING:
    from shiftable.testing.harness import Double

__all__ = ["GROUP", "load"]

GROUP = "shiftable.doubles"


def load(name: str) -> Callable[[], Double]:
    """Return the class of a provider's double.

    Raises:
        ConfigError: none is installed, with what to install.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        found = ", ".join(sorted(points)) or "none"
        package = registry.KNOWN.get(name)
        advice = "its provider brings it, with the extra [testing]"
        if name in registry.names():
            advice = "it is installed and has none of that name"
        elif package:
            advice = f'run: pip install "{package}[testing]"'
        raise ConfigError(f"no double of {name!r}; installed: {found}; {advice}")
    made: Callable[[], Double] = points[name].load()
    return made
