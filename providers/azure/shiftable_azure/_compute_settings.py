"""What only Azure knows of a machine."""

from __future__ import annotations

from typing import Literal

import attrs

from shiftable.compute.driver import FleetSpec

__all__ = ["AzureComputeSettings"]


@attrs.frozen(kw_only=True)
class AzureComputeSettings:
    """``[compute.x.azure]``: what only Azure knows of a machine.

    Args:
        vm_size: the size by Azure's name, ``Standard_D2as_v6``, in place of the smallest that is large enough.
        image: in place of the alias: ``publisher:offer:sku:version``, or the id of an image. Machines still tell the
            alias, which is what is compared.
        subnet: id of the subnet that machines are in, in place of ``network``.
        disk_sku: of the disk that a machine starts from, and of disks that are made for it.
        disk_encryption_set: id of the set whose key encrypts the disk that a machine starts from, in place of Azure's.
        security_type: ``TrustedLaunch`` (secure boot, a virtual TPM) or ``Standard``, which asks for neither; else the
            former for aliases and own images where the size has it.
        encryption_at_host: temporary disks and caches are encrypted too. Unless this says so or says no: where the size
            has it and the subscription has registered the feature ``Microsoft.Compute/EncryptionAtHost``.
        proximity_placement_group: its id, in place of the one that ``placement = "close"`` makes for the fleet.
        availability_set: its id, in place of the one that ``placement = "spread"`` makes for a fleet without zones. It
            excludes zones and spot machines.
        eviction_policy: what becomes of a spot machine that Azure takes away: it is stopped, or deleted with its disk.
        max_price: the most that a spot machine may cost, US dollars an hour; else what a usual machine costs.
    """

    vm_size: str | None = None
    image: str | None = None
    subnet: str | None = None
    disk_sku: Literal["Standard_LRS", "StandardSSD_LRS", "StandardSSD_ZRS", "Premium_LRS", "Premium_ZRS"] = (
        "StandardSSD_LRS"
    )
    disk_encryption_set: str | None = None
    security_type: Literal["TrustedLaunch", "Standard"] | None = None
    encryption_at_host: bool | None = None
    proximity_placement_group: str | None = None
    availability_set: str | None = None
    eviction_policy: Literal["Deallocate", "Delete"] = "Deallocate"
    max_price: float | None = None

    @classmethod
    def of(cls, spec: FleetSpec) -> AzureComputeSettings:
        """Return those of a declaration, or that there are none."""
        return spec.native if isinstance(spec.native, cls) else cls()
