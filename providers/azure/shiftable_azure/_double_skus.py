"""Some of the sizes and images that Azure has, as the double offers them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

__all__ = ["IMAGES", "IMAGE_VERSION", "SKUS", "StoredSku", "sku_json"]

IMAGES = frozenset({
    "Debian:debian-12:12-gen2", "Debian:debian-12:12-arm64", "Debian:debian-13:13-gen2", "Debian:debian-13:13-arm64",
    "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2", "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-arm64",
    "Canonical:ubuntu-24_04-lts:server", "Canonical:ubuntu-24_04-lts:server-arm64",
})  # fmt: skip
"""Of the marketplace, without their versions."""
IMAGE_VERSION = "0.20251117.2299"
"""The one that each has."""


@attrs.frozen
class StoredSku:
    """One size."""

    name: str
    family: str
    cpus: int
    memory: float
    zones: tuple[str, ...] = ("1", "2", "3")
    arm: bool = False
    gpus: int = 0
    spot: bool = True
    trusted: bool = True
    host: bool = True
    generations: str = "V1,V2"
    restricted: bool = False
    confidential: bool = False


def _all() -> Iterator[StoredSku]:
    yield StoredSku("Basic_A1", "basicAFamily", 1, 1.75, (), spot=False, trusted=False, host=False, generations="V1")
    yield StoredSku("Standard_A1_v2", "standardAv2Family", 1, 2, (), trusted=False, host=False, generations="V1")
    yield StoredSku("Standard_DS1_v2", "standardDSv2Family", 1, 3.5, ())
    yield StoredSku("Standard_B1ls", "standardBSFamily", 1, 0.5, spot=False)
    yield StoredSku("Standard_B1s", "standardBSFamily", 1, 1, spot=False)
    yield StoredSku("Standard_B1ms", "standardBSFamily", 1, 2, spot=False)
    for cpus in (2, 4, 8, 16, 32):
        yield StoredSku(f"Standard_B{cpus}als_v2", "standardBalsv2Family", cpus, cpus * 2, spot=False)
        yield StoredSku(f"Standard_B{cpus}as_v2", "standardBasv2Family", cpus, cpus * 4, spot=False)
        yield StoredSku(f"Standard_D{cpus}_v3", "standardDv3Family", cpus, cpus * 4, trusted=False)
    for cpus in (2, 4, 8, 16, 32, 64, 96):
        yield StoredSku(f"Standard_D{cpus}s_v5", "standardDSv5Family", cpus, cpus * 4)
        yield StoredSku(f"Standard_D{cpus}as_v6", "standardDasv6Family", cpus, cpus * 4, ("1", "2"))
        yield StoredSku(f"Standard_E{cpus}s_v5", "standardESv5Family", cpus, cpus * 8)
        yield StoredSku(f"Standard_F{cpus}as_v6", "standardFasv6Family", cpus, cpus * 4, ("3",))
        yield StoredSku(f"Standard_D{cpus}ps_v6", "StandardDpsv6Family", cpus, cpus * 4, arm=True, generations="V2")
    yield StoredSku("Standard_D128s_v6", "StandardDsv6Family", 128, 512, generations="V2")
    for cpus in (2, 4, 8):
        size = f"Standard_B{cpus}pls_v2"
        yield StoredSku(size, "standardBplsv2Family", cpus, cpus * 2, arm=True, generations="V2", spot=False)
    yield StoredSku("Standard_DC2as_v5", "standardDCASv5Family", 2, 8, confidential=True, generations="V2")
    yield StoredSku("Standard_NC4as_T4_v3", "Standard NCASv3_T4 Family", 4, 28, ("1",), gpus=1, host=False)
    yield StoredSku("Standard_NC64as_T4_v3", "Standard NCASv3_T4 Family", 64, 440, ("1",), gpus=4, host=False)
    yield StoredSku("Standard_M208s_v2", "standardMSv2Family", 208, 2850, restricted=True)


SKUS: tuple[StoredSku, ...] = tuple(_all())


def sku_json(sku: StoredSku, location: str, closed: bool) -> dict[str, Any]:  # noqa: FBT001  as it is stored
    """Return what ``resourceSkus`` tells of a size."""
    has = {
        "vCPUs": str(sku.cpus),
        "MemoryGB": f"{sku.memory:g}",
        "HyperVGenerations": sku.generations,
        "CpuArchitectureType": "Arm64" if sku.arm else "x64",
        "LowPriorityCapable": str(sku.spot),
        "EncryptionAtHostSupported": str(sku.host),
        "AcceleratedNetworkingEnabled": str(sku.cpus > 1),
        "PremiumIO": "True",
    }
    has |= {"GPUs": str(sku.gpus)} if sku.gpus else {}
    has |= {} if sku.trusted else {"TrustedLaunchDisabled": "True"}
    has |= {"ConfidentialComputingType": "SNP"} if sku.confidential else {}
    restrictions = [
        {"type": "Location", "values": [location], "restrictionInfo": {"locations": [location]},
         "reasonCode": "NotAvailableForSubscription"}
    ] if sku.restricted or closed else []  # fmt: skip
    return {
        "resourceType": "virtualMachines",
        "name": sku.name,
        "tier": sku.name.partition("_")[0],
        "size": sku.name.partition("_")[2],
        "family": sku.family,
        "locations": [location],
        "locationInfo": [{"location": location, "zones": list(sku.zones)}],
        "capabilities": [{"name": name, "value": value} for name, value in has.items()],
        "restrictions": restrictions,
    }
