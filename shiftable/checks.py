"""What the declarations of several services are checked for."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Literal

import attrs

from shiftable.features import Limit

__all__ = ["Arch", "are_networks", "is_not_negative", "is_positive", "label_problem"]

Arch = Literal["x86_64", "arm64"]
"""What a machine's processors understand. Providers declare it too, and need not load what moves fleets for it."""


def is_positive(_: object, field: attrs.Attribute[int], value: int) -> None:
    """Refuse what is below 1."""
    if value < 1:
        raise ValueError(f"{field.name} must be at least 1, not {value}")


def is_not_negative(_: object, field: attrs.Attribute[int], value: int) -> None:
    """Refuse what is below 0."""
    if value < 0:
        raise ValueError(f"{field.name} must not be negative, not {value}")


def are_networks(_: object, field: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    """Refuse what is no IP network."""
    for network in value:
        try:
            ip_network(network)
        except ValueError as exc:
            raise ValueError(f"{field.name}: {exc}; write a network as 192.0.2.0/24") from None


def label_problem(name: str, limit: Limit) -> str | None:
    """Say why a name is none that all providers of machines and databases take; ``None`` if it is one."""
    if not name:
        return "the name is empty"
    if len(name) > limit.value:
        return f"the name has {len(name):,} characters; the limit is {limit} ({limit.source})"
    if not re.fullmatch(r"[a-z](-?[a-z0-9])*", name):
        return "the name must be lower-case letters, digits and single hyphens, and begin with a letter"
    return None
