"""What the double's Compute Engine has for everybody: zones, machine types, images, types of disks and of GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["ARMS", "DISK_TYPES", "LINK", "MACHINE_TYPES", "ZONES", "custom_type", "images", "machine_type", "zone_told"]

Json = dict[str, Any]

LINK = "https://www.googleapis.com/compute/v1/"

_REGIONS = {"europe-west1": "bcd", "europe-west3": "abc", "europe-west10": "abc", "us-central1": "abcf"}
ZONES = tuple(f"{region}-{letter}" for region, letters in _REGIONS.items() for letter in letters)
DISK_TYPES = {"pd-standard": 10, "pd-balanced": 10, "pd-ssd": 10, "hyperdisk-balanced": 4}
"""With the least size of each, in GiB."""

ARMS = ("t2a-", "c4a-")
_GIB = 1024


def _all() -> Iterator[tuple[str, int, int, tuple[str, int] | None]]:
    """Yield name, CPUs, MiB and GPUs as Google's lists of machine types tell them."""
    yield from (("f1-micro", 1, 614, None), ("g1-small", 1, 1740, None))
    yield from (("e2-micro", 2, 1024, None), ("e2-small", 2, 2048, None), ("e2-medium", 2, 4096, None))
    for family, kind, per_cpu, steps in (
        ("e2", "standard", 4096, (2, 4, 8, 16, 32)),
        ("e2", "highmem", 8192, (2, 4, 8, 16)),
        ("e2", "highcpu", 1024, (2, 4, 8, 16, 32)),
        ("n1", "standard", 3840, (1, 2, 4, 8, 16, 32, 64, 96)),
        ("n2", "standard", 4096, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)),
        ("n2", "highmem", 8192, (2, 4, 8, 16, 32, 48, 64, 80, 96)),
        ("n2d", "standard", 4096, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224)),
        ("c2", "standard", 4096, (4, 8, 16, 30, 60)),
        ("t2a", "standard", 4096, (1, 2, 4, 8, 16, 32, 48)),
        ("n4", "standard", 4096, (2, 4, 8)),
    ):
        for cpus in steps:
            yield f"{family}-{kind}-{cpus}", cpus, cpus * per_cpu, None
    yield "g2-standard-4", 4, 16 * _GIB, ("nvidia-l4", 1)
    yield "g2-standard-24", 24, 96 * _GIB, ("nvidia-l4", 2)
    yield "a2-highgpu-1g", 12, 85 * _GIB, ("nvidia-tesla-a100", 1)
    yield "n1-megamem-96", 96, 1_468_006, None  # it is called m1-megamem-96 now


MACHINE_TYPES: dict[str, tuple[int, int, tuple[str, int] | None]] = {name: row for name, *row in _all()}  # type: ignore[misc]  # of three

_CUSTOM = re.compile(r"(e2|n2|n2d|n4)-custom-(\d+)-(\d+)")


def custom_type(name: str) -> tuple[int, int] | None:
    """Return CPUs and MiB of a machine type made to measure, if it may be so."""
    found = _CUSTOM.fullmatch(name)
    if found is None:
        return None
    cpus, mib = int(found[2]), int(found[3])
    most = 32 if found[1] == "e2" else 128
    if cpus % 2 or not 2 <= cpus <= most or mib % 256 or not cpus * 512 <= mib <= cpus * 8192:
        return None
    return cpus, mib


def machine_type(project: str, zone: str, name: str) -> Json | None:
    """Return a machine type as the API tells it."""
    custom = custom_type(name)
    if custom is None and name not in MACHINE_TYPES:
        return None
    cpus, mib, cards = (*custom, None) if custom else MACHINE_TYPES[name]
    told: Json = {
        "kind": "compute#machineType",
        "id": str(1_000_000 + cpus),
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "name": name,
        "description": f"{cpus} vCPUs",
        "guestCpus": cpus,
        "memoryMb": mib,
        "imageSpaceGb": 0,
        "maximumPersistentDisks": 128,
        "maximumPersistentDisksSizeGb": "263168",
        "zone": zone,
        "selfLink": f"{LINK}projects/{project}/zones/{zone}/machineTypes/{name}",
        "isSharedCpu": name in {"f1-micro", "g1-small", "e2-micro", "e2-small", "e2-medium"},
        "architecture": "ARM64" if name.startswith(ARMS) else "X86_64",
    }
    if cards:
        told["accelerators"] = [{"guestAcceleratorType": cards[0], "guestAcceleratorCount": cards[1]}]
    if name == "n1-megamem-96":
        told["deprecated"] = {"state": "DEPRECATED", "replacement": "m1-megamem-96"}
    return told


def zone_told(project: str, zone: str) -> Json:
    """Return a zone as the API tells it."""
    region = zone.rpartition("-")[0]
    return {
        "kind": "compute#zone",
        "id": str(2000 + ZONES.index(zone)),
        "name": zone,
        "description": zone,
        "status": "UP",
        "region": f"{LINK}projects/{project}/regions/{region}",
        "selfLink": f"{LINK}projects/{project}/zones/{zone}",
    }


def images() -> Iterator[tuple[str, str, Json]]:
    """Yield the public images: project, family, and the newest image as the API tells it."""
    for project, family, name, arch, size in (
        ("debian-cloud", "debian-12", "debian-12-bookworm-v20261110", "X86_64", "10"),
        ("debian-cloud", "debian-12-arm64", "debian-12-bookworm-arm64-v20261110", "ARM64", "10"),
        ("debian-cloud", "debian-13", "debian-13-trixie-v20261110", "X86_64", "10"),
        ("debian-cloud", "debian-13-arm64", "debian-13-trixie-arm64-v20261110", "ARM64", "10"),
        ("ubuntu-os-cloud", "ubuntu-2204-lts", "ubuntu-2204-jammy-v20261112", "X86_64", "10"),
        ("ubuntu-os-cloud", "ubuntu-2204-lts-arm64", "ubuntu-2204-jammy-arm64-v20261112", "ARM64", "10"),
        ("ubuntu-os-cloud", "ubuntu-2404-lts-amd64", "ubuntu-2404-noble-amd64-v20261112", "X86_64", "10"),
        ("ubuntu-os-cloud", "ubuntu-2404-lts-arm64", "ubuntu-2404-noble-arm64-v20261112", "ARM64", "10"),
    ):
        yield (
            project,
            family,
            {
                "kind": "compute#image",
                "id": str(abs(hash_of(name))),
                "creationTimestamp": "2026-11-12T01:02:03.000-08:00",
                "name": name,
                "family": family,
                "status": "READY",
                "architecture": arch,
                "diskSizeGb": size,
                "archiveSizeBytes": "1000000000",
                "sourceType": "RAW",
                "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}],
                "licenses": [f"{LINK}projects/{project}/global/licenses/{name.rpartition('-v')[0]}"],
                "selfLink": f"{LINK}projects/{project}/global/images/{name}",
            },
        )


def hash_of(name: str) -> int:
    """Return a number that is the same in every process."""
    return int.from_bytes(name.encode()[:7], "big") + sum(name.encode())
