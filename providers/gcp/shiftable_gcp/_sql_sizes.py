"""Sizes of Cloud SQL: machine types that are made to measure, and those that come in steps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from shiftable.database.driver import ServerSize

__all__ = ["CUSTOM_SOURCE", "fitting_custom", "size_of"]

CUSTOM_SOURCE = "Cloud SQL, about instance settings: cores and memory of custom machine types"
_MOST_CPUS = 96
_STEP = 256  # MiB
_LEAST = 3840  # MiB
_LEAST_EACH, _MOST_EACH = 0.9, 6.5  # GiB for each CPU
_MIB = 2**20

_CUSTOM = re.compile(r"db-custom-(\d+)-(\d+)")
_CPUS = re.compile(r"-(\d+)$")
_SHARED: Mapping[str, int] = {"db-f1-micro": 614, "db-g1-small": 1740}  # MiB; they have a part of one CPU
_STANDARD: Mapping[str, int] = {"db-n1-standard": 3840, "db-n1-highmem": 6656, "db-perf-optimized-N": 8192}  # MiB a CPU


def fitting_custom(cpus: int, memory_gib: int) -> ServerSize | None:
    """Return the smallest machine type to measure that has at least that; ``None`` if none is large enough."""
    wanted = memory_gib * 1024
    while (cpus != 1 and cpus % 2) or wanted > _MOST_EACH * 1024 * cpus:
        cpus += 1
    if cpus > _MOST_CPUS:
        return None
    least = math.ceil(_LEAST_EACH * 1024 * cpus / _STEP) * _STEP
    memory = max(wanted, least, _LEAST)
    return ServerSize(name=f"db-custom-{cpus}-{memory}", cpus=cpus, memory=memory * _MIB)


def size_of(tier: str, memory: Mapping[str, int]) -> ServerSize | None:
    """Return what a machine type has; ``None`` if that cannot be told.

    Args:
        memory: of machine types, in bytes, as ``tiers.list`` tells.
    """
    made = _CUSTOM.fullmatch(tier)
    if made:
        return ServerSize(name=tier, cpus=int(made[1]), memory=int(made[2]) * _MIB)
    if tier in _SHARED:
        return ServerSize(name=tier, cpus=1, memory=memory.get(tier, _SHARED[tier] * _MIB))
    found = _CPUS.search(tier)
    if not found:
        return None
    cpus, family = int(found[1]), tier[: found.start()]
    known = _STANDARD.get(family)
    size = memory.get(tier) or (known and known * cpus * _MIB)
    return ServerSize(name=tier, cpus=cpus, memory=size) if size else None
