"""The instance types of EC2 in one region: what they have, asked of EC2 and kept; what they cost, from the table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs

from shiftable.compute.driver import Arch, Size
from shiftable_aws._ec2_prices import FAMILIES, prices

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

__all__ = ["Types"]

_KEPT = 3600.0  # seconds
_PAGE = 100  # EC2 API reference, DescribeInstanceTypes

# Nitro alone: the others differ in console, disks and metadata, and cost more.
_FILTERS: Any = [
    {"Name": "instance-type", "Values": [f"{family}.*" for family in FAMILIES]},
    {"Name": "bare-metal", "Values": ["false"]},
    {"Name": "supported-usage-class", "Values": ["on-demand"]},
]


@attrs.define(eq=False)
class Types:
    """What the types of a region are. What a type has never changes; which there are is asked for again each hour."""

    _clock: Callable[[], float]
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _known: dict[str, Size] = attrs.field(factory=dict, init=False, repr=False)
    _traits: dict[str, frozenset[str]] = attrs.field(factory=dict, init=False, repr=False)
    _offered: tuple[float, tuple[Size, ...]] | None = attrs.field(default=None, init=False, repr=False)
    _zones: dict[str, tuple[float, frozenset[str]]] = attrs.field(factory=dict, init=False, repr=False)

    def offered(self, client: EC2Client) -> tuple[Size, ...]:
        """Return the types of the table's families that there are here and whose price is known, in order.

        Where the table has no prices of the region, all of these families, without prices.
        """
        with self._lock:
            now = self._clock()
            if self._offered is None or now - self._offered[0] > _KEPT:
                pages = client.get_paginator("describe_instance_types").paginate(
                    Filters=_FILTERS, PaginationConfig={"PageSize": _PAGE}
                )
                found = [size for page in pages for size in self._keep(page["InstanceTypes"], client)]
                priced = client.meta.region_name in prices().regions
                here = [size for size in found if size.price is not None or not priced]
                self._offered = now, tuple(sorted(here, key=lambda size: size.name))
            return self._offered[1]

    def known(self, client: EC2Client, names: Iterable[str]) -> dict[str, Size]:
        """Return what types have, whichever they are; one that EC2 no longer knows is left out."""
        with self._lock:
            wanted = sorted(set(names))
            unknown = [name for name in wanted if name not in self._known]
            for start in range(0, len(unknown), _PAGE):
                # A filter, unlike a list of names, is no error where EC2 does not know one of them.
                filters: Any = [{"Name": "instance-type", "Values": unknown[start : start + _PAGE]}]
                self._keep(client.describe_instance_types(Filters=filters)["InstanceTypes"], client)
            return {name: self._known[name] for name in wanted if name in self._known}

    def can(self, name: str, trait: str) -> bool:
        """Tell whether a known type is sold as ``spot``, or fits into a placement group of a strategy."""
        return trait in self._traits.get(name, ())

    def of_zone(self, client: EC2Client, zone: str) -> frozenset[str]:
        """Return the names of the types that there are in one zone."""
        with self._lock:
            now, held = self._clock(), self._zones.get(zone)
            if held is None or now - held[0] > _KEPT:
                pages = client.get_paginator("describe_instance_type_offerings").paginate(
                    LocationType="availability-zone",
                    Filters=[{"Name": "location", "Values": [zone]}],
                    PaginationConfig={"PageSize": 1000},
                )
                names = (entry["InstanceType"] for page in pages for entry in page["InstanceTypeOfferings"])
                held = self._zones[zone] = now, frozenset(names)
            return held[1]

    def _keep(self, entries: Iterable[Any], client: EC2Client) -> list[Size]:
        table, region = prices(), client.meta.region_name
        kept = []
        for entry in entries:
            arch = _arch(entry["ProcessorInfo"]["SupportedArchitectures"])
            if arch is None:
                continue
            name = entry["InstanceType"]
            gpus = entry.get("GpuInfo", {}).get("Gpus", [])
            size = Size(
                name=name,
                cpus=entry["VCpuInfo"]["DefaultVCpus"],
                memory=entry["MemoryInfo"]["SizeInMiB"] * 2**20,
                arch=arch,
                gpus=sum(gpu.get("Count", 0) for gpu in gpus),
                gpu=gpus[0].get("Name") if gpus else None,
                price=table.of(region, name),
            )
            strategies = entry.get("PlacementGroupInfo", {}).get("SupportedStrategies", ())
            self._traits[name] = frozenset([*entry.get("SupportedUsageClasses", ()), *strategies])
            self._known[name] = size
            kept.append(size)
        return kept


def _arch(supported: Iterable[str]) -> Arch | None:
    arches: dict[str, Arch] = {"x86_64": "x86_64", "arm64": "arm64"}
    return next((arches[name] for name in supported if name in arches), None)
