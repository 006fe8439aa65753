"""What the double's locations offer, as Azure tells it: some sizes of each tier, storage, parameters of the engines."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from shiftable_azure._flexible import POSTGRESQL, Flavour

__all__ = ["configurations_of", "offer_of"]

_SIZES = {  # name: CPUs, MiB for each
    "Burstable": {"Standard_B1ms": (1, 2048), "Standard_B2s": (2, 2048), "Standard_B2ms": (2, 4096)},
    "GeneralPurpose": {
        "Standard_D2ds_v5": (2, 4096), "Standard_D2s_v3": (2, 4096), "Standard_D4ds_v5": (4, 4096),
        "Standard_D8ds_v5": (8, 4096), "Standard_D16ds_v5": (16, 4096),
    },
    "MemoryOptimized": {"Standard_E2ds_v5": (2, 8192), "Standard_E4ds_v5": (4, 8192), "Standard_E8ds_v5": (8, 8192)},
}  # fmt: skip
_STEPS = (32, 64, 128, 256, 512, 1024, 2048, 4095, 4096, 8192, 16384, 32767)
_SAME_ZONE = frozenset({"Standard_E8ds_v5"})  # sizes that are in one zone only


def offer_of(flavour: Flavour, *, restricted: bool = False, closed: Collection[str] = ()) -> dict[str, Any]:
    """Return the answer to the question what a location offers."""
    tiers = {} if restricted else _SIZES
    if flavour is POSTGRESQL:
        disks = [{"name": "ManagedDisk", "supportedStorageMb": [{"storageSizeMb": step * 1024} for step in _STEPS]}]
        editions = [
            {
                "name": tier,
                "supportedStorageEditions": disks,
                "supportedServerSkus": [
                    {
                        "name": name,
                        "vCores": cpus,
                        "supportedMemoryPerVcoreMb": per_cpu,
                        "status": "Disabled" if name in closed else "Available",
                        "supportedZones": ["1", "2", "3"],
                        "supportedHaMode": _modes(tier, name),
                    }
                    for name, (cpus, per_cpu) in sizes.items()
                ],
            }
            for tier, sizes in tiers.items()
        ]
        return {"value": [{"name": "FlexibleServerCapabilities", "supportedServerEditions": editions}]}
    stores = [{"name": "Premium", "minStorageSize": 20 * 1024, "maxStorageSize": 16384 * 1024}]
    editions = [
        {
            "name": tier,
            "supportedStorageEditions": stores,
            "supportedSkus": [
                {
                    "name": name,
                    "vCores": cpus,
                    "supportedMemoryPerVCoreMB": per_cpu,
                    "supportedZones": ["1", "2", "3"],
                    "supportedHAMode": _modes(tier, name),
                }
                for name, (cpus, per_cpu) in sizes.items()
            ],
        }
        for tier, sizes in tiers.items()
    ]
    return {"name": "default", "properties": {"supportedFlexibleServerEditions": editions}}


def _modes(tier: str, name: str) -> list[str]:
    if tier == "Burstable":
        return []
    return ["SameZone"] if name in _SAME_ZONE else ["SameZone", "ZoneRedundant"]


def configurations_of(flavour: Flavour) -> dict[str, dict[str, Any]]:
    """Return some parameters as a new server has them."""
    on_off = "(?i)on|off"
    if flavour is POSTGRESQL:
        rows = [
            ("azure.extensions", "", True, False, r"[\w,]*", "Set"),
            ("data_directory", "/datadrive/pg", False, True, ".*", "String"),
            ("log_min_duration_statement", "-1", True, False, r"-1|\d+", "Integer"),
            ("max_connections", "859", False, False, r"[1-9]\d{1,4}", "Integer"),
            ("require_secure_transport", "on", True, False, on_off, "Boolean"),
            ("wal_level", "replica", False, False, "replica|logical", "Enumeration"),
            ("work_mem", "4096", True, False, r"\d+", "Integer"),
        ]
    else:
        rows = [
            ("event_scheduler", "OFF", True, False, on_off, "Enumeration"),
            ("innodb_buffer_pool_size", "2147483648", False, False, r"\d+", "Integer"),
            ("max_connections", "341", True, False, r"\d+", "Integer"),
            ("require_secure_transport", "ON", True, False, on_off, "Enumeration"),
        ]
    return {
        name: {
            "value": value,
            "default": value,
            "dynamic": dynamic,
            "read_only": read_only,
            "allowed": allowed,
            "type": kind,
            "source": "system-default",
            "pending": False,
        }
        for name, value, dynamic, read_only, allowed, kind in rows
    }
