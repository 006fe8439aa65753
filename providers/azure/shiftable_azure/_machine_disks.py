"""Disks, snapshots and images of machines, as Azure tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shiftable.compute.driver import Disk, DiskSnapshot, Image
from shiftable_azure._flexible import moment
from shiftable_azure._machine_ids import Ids
from shiftable_azure._machine_resources import is_complete, provisioning
from shiftable_azure._machines import DISK_LABEL, identifier

__all__ = ["disk_told", "disks_of", "image_told", "snapshot_told"]


def image_told(path: str, name: str, found: Mapping[str, Any], version: Mapping[str, Any] | None) -> Image:
    disk = str((found.get("tags") or {}).get(DISK_LABEL, ""))
    return Image(
        id=path,
        name=name,
        arch="arm64" if (found.get("properties") or {}).get("architecture") == "Arm64" else "x86_64",
        disk_gib=int(disk) if disk.isdecimal() else None,
        own=True,
        ready=version is not None and is_complete(version),
        created=moment((found.get("systemData") or {}).get("createdAt")),
    )


def disk_told(ids: Ids, found: Mapping[str, Any], owner: Mapping[str, Any] | None) -> Disk:
    zones, path, machine, device = found.get("zones") or (), ids.disk(str(found["id"])), None, None
    if owner is not None:
        machine, device = identifier(str(owner["name"]), owner), _device(ids, owner, path)
    elif found.get("managedBy"):
        machine = str(found["managedBy"]).rpartition("/")[2]
    return Disk(
        id=path,
        name=str(found["name"]),
        size_gib=int(found["properties"].get("diskSizeGB") or 0),
        zone=str(zones[0]) if zones else None,
        machine=machine,
        device=device,
        ready=is_complete(found) and (owner is None or provisioning(owner) != "updating"),
    )


def _device(ids: Ids, vm: Mapping[str, Any], path: str) -> str | None:
    """Return the link that the images' rules for udev make of a disk's number."""
    storage = vm["properties"].get("storageProfile") or {}
    for each in storage.get("dataDisks") or ():
        if ids.disk(str((each.get("managedDisk") or {}).get("id"))) == path:
            nvme = storage.get("diskControllerType") == "NVMe"
            return f"/dev/disk/azure/{'data/by-lun/' if nvme else 'scsi1/lun'}{each['lun']}"
    return None


def snapshot_told(ids: Ids, found: Mapping[str, Any]) -> DiskSnapshot:
    said = found["properties"]
    return DiskSnapshot(
        id=ids.snapshot(str(found["name"])),
        name=str(found["name"]),
        size_gib=int(said.get("diskSizeGB") or 0),
        ready=is_complete(found) and float(said.get("completionPercent") or 100) >= 100,
        created=moment(said.get("timeCreated")),
    )


def disks_of(ids: Ids, vm: Mapping[str, Any]) -> tuple[str, ...]:
    attached = (vm["properties"].get("storageProfile") or {}).get("dataDisks") or ()
    return tuple(
        ids.disk(str((each.get("managedDisk") or {}).get("id") or each.get("name")))
        for each in attached
        if not each.get("toBeDetached")
    )
