"""What a location offers of flexible servers: sizes, steps of storage, and where a second server may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from shiftable.database.driver import GIB, DatabaseSpec, ServerSize, SizeChoice, choose_size
from shiftable_azure._database_settings import AzureDatabaseSettings
from shiftable_azure._flexible import Flavour
from shiftable_azure.errors import ArmFailure

__all__ = ["Offer", "Sku"]

_MIB_OF_GIB = 1024
_BURSTABLE = "Burstable"
_CLOSED = "Disabled"  # to the subscription, or for lack of room
_NUMBER = re.compile(r"Standard_([A-Z])[A-Z]*(\d+)")
_GIB_PER_CPU = {"B": 4, "D": 4, "E": 8}  # Azure, sizes for virtual machines


@attrs.frozen
class Sku:
    """One size.

    Args:
        tier: ``Burstable``, ``GeneralPurpose`` or ``MemoryOptimized``.
        modes: where a second server may be.
    """

    size: ServerSize
    tier: str
    modes: frozenset[str]


@attrs.frozen
class Offer:
    """All of a location.

    Args:
        steps: sizes of storage in GiB; ``None``: any from ``least`` to ``most``.
    """

    location: str
    skus: tuple[Sku, ...]
    steps: tuple[int, ...] | None
    least: int
    most: int

    @classmethod
    def read(cls, flavour: Flavour, location: str, answer: Mapping[str, Any]) -> Offer:
        """Read what Azure says of a location.

        Raises:
            ArmFailure: it offers nothing to this subscription.
        """
        if flavour.engine == "postgresql":
            locations = answer.get("value") or ()
            editions = [each for found in locations for each in found.get("supportedServerEditions") or ()]
        else:
            editions = list((answer.get("properties") or {}).get("supportedFlexibleServerEditions") or ())
        skus = tuple({sku.size.name: sku for edition in editions for sku in _skus(edition)}.values())
        if not skus:
            why = f"{location} offers no {flavour.type} to this subscription; choose another location, or ask Azure"
            raise ArmFailure("SkuNotAvailable", why)
        steps = sorted({step for edition in editions for step in _steps(edition)})
        if steps:
            return cls(location, skus, tuple(steps), steps[0], steps[-1])
        bounds = [store for edition in editions for store in edition.get("supportedStorageEditions") or ()]
        least = min(int(store["minStorageSize"]) for store in bounds) // _MIB_OF_GIB
        return cls(location, skus, None, least, max(int(store["maxStorageSize"]) for store in bounds) // _MIB_OF_GIB)

    def choose(self, spec: DatabaseSpec) -> SizeChoice:
        """Choose the smallest size that is large enough, or the one that is named.

        A burstable one has its CPUs for a while only, and no second server: it is chosen for one CPU, or by name.

        Raises:
            ArmFailure: there is none.
        """
        native = AzureDatabaseSettings.of(spec)
        source = f"offered in {self.location} now"
        if native.sku is not None:
            named = self.sku(native.sku)
            if named is None:
                raise ArmFailure("SkuNotAvailable", f"{self.location} does not offer {native.sku}")
            if _is_enough(named.size, spec):
                return SizeChoice(named.size, f"named in the declaration ({source})")
        mode = native.high_availability_mode
        fit = [
            sku.size
            for sku in self.skus
            if (sku.tier != _BURSTABLE or (spec.cpus == 1 and not spec.high_availability))
            and (not spec.high_availability or (mode in sku.modes if mode else sku.modes))
        ]
        try:
            return choose_size(spec, fit, source=source)
        except ValueError as exc:
            raise ArmFailure("InvalidSku", str(exc)) from exc

    def held(self, spec: DatabaseSpec) -> ServerSize:
        """Return the size that a server has once it is as declared: one that is named stays, if it is large enough."""
        named = AzureDatabaseSettings.of(spec).sku
        size = self.size(named) if named is not None else None
        return size if size is not None and _is_enough(size, spec) else self.choose(spec).size

    def sku(self, name: str) -> Sku | None:
        """Return a size by its name."""
        return next((sku for sku in self.skus if sku.size.name == name), None)

    def body(self, name: str) -> dict[str, str]:
        """Return a size as requests have it.

        Raises:
            ArmFailure: it is not offered.
        """
        sku = self.sku(name)
        if sku is None:
            raise ArmFailure("SkuNotAvailable", f"{self.location} does not offer {name}")
        return {"name": sku.size.name, "tier": sku.tier}

    def size(self, name: str) -> ServerSize:
        """Return a size that a server has, also if it is offered no more."""
        known = self.sku(name)
        if known is not None:
            return known.size
        found = _NUMBER.match(name)
        if found is None:
            raise ArmFailure("SkuNotAvailable", f"what the size {name} is, nobody tells; resize the server")
        cpus = int(found[2])
        return ServerSize(name=name, cpus=cpus, memory=cpus * _GIB_PER_CPU.get(found[1], 4) * GIB)

    def storage(self, gib: int) -> int:
        """Return the smallest storage that is large enough.

        Raises:
            ArmFailure: there is none.
        """
        if gib > self.most:
            raise ArmFailure("InvalidParameterValue", f"{self.location} offers storage up to {self.most:,} GiB")
        if self.steps is None:
            return max(gib, self.least)
        return next(step for step in self.steps if step >= gib)

    def mode(self, name: str, wanted: str | None) -> str:
        """Return where the second server of a size is made: in another zone, where that is offered.

        Raises:
            ArmFailure: it has none, or none there.
        """
        sku = self.sku(name)
        modes = sku.modes if sku is not None else frozenset()
        for mode in (wanted,) if wanted else ("ZoneRedundant", "SameZone"):
            if mode in modes:
                return mode
        raise ArmFailure("SkuNotAvailable", f"{self.location} has no second server{_in(wanted)} for the size {name}")


def _is_enough(size: ServerSize, spec: DatabaseSpec) -> bool:
    return size.cpus >= spec.cpus and size.memory >= spec.memory_gib * GIB


def _in(mode: str | None) -> str:
    return f" {mode}" if mode else ""


def _skus(edition: Mapping[str, Any]) -> Iterator[Sku]:
    items: Iterable[Mapping[str, Any]] = edition.get("supportedServerSkus") or edition.get("supportedSkus") or ()
    for each in items:
        if each.get("status") == _CLOSED:
            continue
        per_cpu = each.get("supportedMemoryPerVcoreMb") or each.get("supportedMemoryPerVCoreMB") or 0
        cpus = int(each["vCores"])
        modes = frozenset() if edition["name"] == _BURSTABLE else frozenset(_modes(each))
        size = ServerSize(name=str(each["name"]), cpus=cpus, memory=cpus * int(per_cpu) * 2**20)
        yield Sku(size, str(edition["name"]), modes)


def _modes(sku: Mapping[str, Any]) -> Iterable[str]:
    found: Iterable[str] = sku.get("supportedHaMode") or sku.get("supportedHAMode") or ()
    return found


def _steps(edition: Mapping[str, Any]) -> Iterator[int]:
    for store in edition.get("supportedStorageEditions") or ():
        if store.get("name") == "ManagedDisk":
            yield from (int(step["storageSizeMb"]) // _MIB_OF_GIB for step in store.get("supportedStorageMb") or ())
