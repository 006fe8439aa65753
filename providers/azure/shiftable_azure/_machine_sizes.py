"""Sizes of virtual machines, as a location has them for a subscription."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from shiftable.compute.driver import GIB, Arch, Choice, FleetSpec, Size, choose_size

__all__ = ["Offering", "Sku"]

_ARCHES: Mapping[str, Arch] = {"x64": "x86_64", "Arm64": "arm64"}
_CONFIDENTIAL = "ConfidentialComputingType"

_CURRENT = re.compile(r"Standard_(?:B\d+(?:ls|s|ms)|B\d+\w+_v[2-9]|[DEF]\d+[a-z]*_v(?:[5-9]|1\d))")
"""What is chosen from, where that is enough: others are older, or for special ends, and are for who names them."""


@attrs.frozen
class Sku:
    """One size, and what it can be asked for.

    Args:
        zones: in which the subscription can have it.
        generations: of images that it starts; all aliases are of the second, ``V2``.
        trusted: it has trusted launch.
        open: the subscription can have it here.
    """

    size: Size
    zones: frozenset[str] = frozenset()
    generations: frozenset[str] = frozenset({"V1", "V2"})
    spot: bool = False
    trusted: bool = False
    accelerated: bool = False
    encryption_at_host: bool = False
    open: bool = True

    @classmethod
    def read(cls, found: Mapping[str, Any], location: str) -> Sku | None:
        """Read one of ``resourceSkus``; ``None``: what is no machine that can be told in our words."""
        has = {each["name"]: str(each["value"]) for each in found.get("capabilities") or ()}
        arch = _ARCHES.get(has.get("CpuArchitectureType", "x64"))
        if found.get("resourceType") != "virtualMachines" or arch is None or _CONFIDENTIAL in has:
            return None
        try:
            cpus, memory = int(has.get("vCPUsAvailable") or has["vCPUs"]), float(has["MemoryGB"])
            gpus = int(float(has.get("GPUs", "0")))
        except (KeyError, ValueError):
            return None
        zones, is_open = _places(found, location)
        generations = frozenset(has.get("HyperVGenerations", "V1").split(","))
        size = Size(
            name=str(found["name"]),
            cpus=cpus,
            memory=int(memory * GIB),
            arch=arch,
            gpus=gpus,
            gpu=str(found.get("family") or found["name"]) if gpus else None,
        )
        return cls(
            size=size,
            zones=zones,
            generations=generations,
            spot=has.get("LowPriorityCapable") == "True",
            trusted="V2" in generations and arch == "x86_64" and has.get("TrustedLaunchDisabled") != "True",
            accelerated=has.get("AcceleratedNetworkingEnabled") == "True",
            encryption_at_host=has.get("EncryptionAtHostSupported") == "True",
            open=is_open,
        )


def _places(found: Mapping[str, Any], location: str) -> tuple[frozenset[str], bool]:
    """Return the zones in which the subscription can have a size, and whether it can have it in the location."""
    here = [each for each in found.get("locationInfo") or () if _same(each.get("location"), location)]
    zones = {zone for each in here for zone in each.get("zones") or ()}
    is_open = True
    for restriction in found.get("restrictions") or ():
        if restriction.get("type") == "Zone":
            zones -= set((restriction.get("restrictionInfo") or {}).get("zones") or ())
        elif any(_same(value, location) for value in restriction.get("values") or ()):
            is_open = False
    return frozenset(zones), is_open


def _same(place: object, location: str) -> bool:
    return str(place).replace(" ", "").lower() == location.lower()


class Offering:
    """All sizes of a location.

    Args:
        skus: by name.
    """

    def __init__(self, location: str, skus: Iterable[Sku]) -> None:
        self._location = location
        self._skus = {sku.size.name.lower(): sku for sku in skus}

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Those that the subscription can have."""
        return tuple(sku.size for sku in self._skus.values() if sku.open and "V2" in sku.generations)

    def get(self, name: str) -> Sku | None:
        """Return a size, also one that is not to be had any more: a machine may have it."""
        return self._skus.get(name.lower())

    def choose(self, spec: FleetSpec, named: str | None, generation: str = "V2") -> Choice:
        """Choose a size for a declaration; the one that it names, if it is large enough.

        Args:
            generation: of the image.

        Raises:
            ValueError: there is none.
        """
        if named is not None:
            return self._named(spec, named)
        zones = sorted({zone for sku in self._skus.values() for zone in sku.zones})
        if spec.zone not in {None, *zones}:
            raise ValueError(f"{self._location} has no zone {spec.zone!r}; it has {', '.join(zones) or 'none'}")
        fitting = [
            sku.size
            for sku in self._skus.values()
            if sku.open and generation in sku.generations
            if (sku.spot or not spec.spot) and (spec.zone is None or spec.zone in sku.zones)
        ]
        current = [size for size in fitting if size.gpus or _CURRENT.fullmatch(size.name)]
        try:
            choice = choose_size(spec.cpus, spec.memory_gib, spec.arch, current, gpus=spec.gpus, gpu=spec.gpu)
        except ValueError:
            choice = choose_size(spec.cpus, spec.memory_gib, spec.arch, fitting, gpus=spec.gpus, gpu=spec.gpu)
        return attrs.evolve(choice, reason=f"{choice.reason} in {self._location}")

    def _named(self, spec: FleetSpec, name: str) -> Choice:
        sku = self.get(name)
        if sku is None or not sku.open:
            raise ValueError(f"vm_size: the subscription has no size {name} in {self._location}")
        size = sku.size
        try:
            choose_size(spec.cpus, spec.memory_gib, spec.arch, [size], gpus=spec.gpus)
        except ValueError as exc:
            raise ValueError(f"vm_size names {size}, which is not enough: {exc}") from exc
        return Choice(size, "named by vm_size", size.price)
