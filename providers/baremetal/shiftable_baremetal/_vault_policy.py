"""The least that a token of Vault or OpenBao must be allowed, as a policy in JSON, which both take beside HCL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shiftable.provider import Purpose, contained

__all__ = ["policy"]

_RULES: tuple[tuple[frozenset[Purpose], str, tuple[str, ...]], ...] = (
    (frozenset({"read"}), "data", ("read",)),
    (frozenset({"read", "plan"}), "metadata", ("list", "read")),
    (frozenset({"write"}), "data", ("create", "update")),
    (frozenset({"write"}), "metadata", ("delete", "patch")),
    *((frozenset[Purpose]({"write"}), area, ("update",)) for area in ("delete", "destroy", "undelete")),
)
"""For whom, which area of the engine, and what may be done there."""


def policy(prefixes: Iterable[str], purposes: Iterable[Purpose], mount: str) -> dict[str, Any]:
    """Write it, for all secrets below some prefixes."""
    wanted, found = contained(purposes), dict[str, set[str]]()
    for prefix in prefixes:
        for who, area, capabilities in _RULES:
            if who & wanted:
                found.setdefault(f"{mount}/{area}/{prefix}/*", set()).update(capabilities)
    return {"path": {path: {"capabilities": sorted(allowed)} for path, allowed in found.items()}}
