"""What tests of a hostile Google Cloud share: providers with other settings, and others who act between two calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shiftable.testing.harness import Request, Response
from shiftable_gcp import GcpProvider, GcpSettings
from shiftable_gcp.double import GcpDouble

__all__ = ["meanwhile", "opened"]


def opened(double: GcpDouble, **settings: Any) -> GcpProvider:
    return GcpProvider(GcpSettings(**{**double.config, **settings}))


def meanwhile(double: GcpDouble, operation: str, act: Callable[[], object], *, at: int = 1) -> None:
    """Do something once, right after a call was executed and before the client hears of it; for a ``watched`` double.

    Args:
        at: the how manieth call of that kind.
    """
    seen: list[object] = []

    def look(request: Request, _: Response) -> list[str]:
        if double.identify(request)[1].endswith(operation):
            seen.append(True)
            if len(seen) == at:
                act()
        return []

    double.validators.append(look)
