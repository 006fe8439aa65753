"""The storage of RDS: what each type takes, and how it grows.

Source of all numbers: Amazon RDS user guide, "Amazon RDS DB instance storage", for PostgreSQL, MySQL and MariaDB;
for growth the API reference, ModifyDBInstance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from shiftable.database.driver import DatabaseSpec
from shiftable_aws._rds_settings import RdsSettings

__all__ = ["MAX_GIB", "MIN_GIB", "STRIPED_GIB", "ceiling", "enlarged", "grown", "performance", "problems"]

MIN_GIB = 20
MAX_GIB = 65_536
_LEAST_THROUGHPUT = 500
STRIPED_GIB = 400  # from here on gp3 has four volumes, and its performance can be chosen


@attrs.frozen
class _Type:
    """What a type of storage takes.

    Args:
        ratio: most IOPS for one GiB.
    """

    least_gib: int
    iops: range = range(0)
    ratio: int = 0
    throughput: range = range(0)
    needs_iops: bool = False


_TYPES: Mapping[str, _Type] = {
    "gp2": _Type(MIN_GIB),
    "gp3": _Type(MIN_GIB, range(12_000, 64_001), 500, range(_LEAST_THROUGHPUT, 4_001)),
    "io1": _Type(100, range(1_000, 256_001), 50, needs_iops=True),
    "io2": _Type(100, range(1_000, 256_001), 1_000, needs_iops=True),
}


def problems(spec: DatabaseSpec, native: RdsSettings) -> Iterator[str]:
    """Say what RDS would refuse of a storage."""
    kind = _TYPES[native.storage_type]
    if spec.storage_gib < kind.least_gib:
        yield f"storage of the type {native.storage_type} has at least {kind.least_gib} GiB"
    yield from _iops_problems(spec, native, kind)
    if native.throughput is not None and native.throughput not in kind.throughput:
        yield "throughput of gp3 is 500 to 4,000 MiB/s" if kind.throughput else "only gp3 has a throughput"
    if spec.storage_autogrow and native.max_storage_gib is not None:
        least = grown(spec.storage_gib, spec.storage_gib + 1)
        if not least <= native.max_storage_gib <= MAX_GIB:
            yield f"max_storage_gib must be {least:,} to {MAX_GIB:,}"


def _iops_problems(spec: DatabaseSpec, native: RdsSettings, kind: _Type) -> Iterator[str]:
    chosen = native.iops is not None or native.throughput is not None
    if native.storage_type == "gp3" and chosen and spec.storage_gib < STRIPED_GIB:
        yield f"iops and throughput of gp3 can be chosen from {STRIPED_GIB} GiB on"
    if native.iops is None:
        if kind.needs_iops:
            yield f"storage of the type {native.storage_type} needs iops"
    elif not kind.iops:
        yield f"iops of {native.storage_type} cannot be chosen"
    elif native.iops not in kind.iops:
        yield f"iops of {native.storage_type} are {kind.iops.start:,} to {kind.iops.stop - 1:,}"
    elif native.iops > kind.ratio * spec.storage_gib:
        yield f"{native.storage_type} has at most {kind.ratio:,} iops for each GiB"


def performance(native: RdsSettings) -> dict[str, Any]:
    """Return the arguments for the type and its performance."""
    found = {"StorageType": native.storage_type, "Iops": native.iops, "StorageThroughput": native.throughput}
    return {name: value for name, value in found.items() if value is not None}


def enlarged(found: Mapping[str, Any], gib: int) -> dict[str, Any]:
    """Return the arguments that make the storage of a server larger; with its IOPS, where AWS wants them again."""
    kind, iops = found.get("StorageType", ""), found.get("Iops") or 0
    arguments: dict[str, Any] = {"AllocatedStorage": gib}
    if kind in {"io1", "io2"} and iops:
        arguments["Iops"] = iops
    elif kind == "gp3" and gib >= STRIPED_GIB:
        arguments["Iops"] = max(iops, _TYPES["gp3"].iops.start)
        arguments["StorageThroughput"] = max(found.get("StorageThroughput") or 0, _LEAST_THROUGHPUT)
    return arguments


def ceiling(spec: DatabaseSpec, most: int | None) -> int:
    """Return ``MaxAllocatedStorage``: how far storage grows by itself; as large as it is where it does not."""
    if not spec.storage_autogrow:
        return spec.storage_gib
    return max(most or MAX_GIB, min(grown(spec.storage_gib, spec.storage_gib + 1), MAX_GIB))


def grown(current: int, wanted: int) -> int:
    """Return what storage becomes: RDS lets it grow by at least a tenth."""
    return wanted if wanted <= current else min(max(wanted, -(-current * 11 // 10)), MAX_GIB)
