"""Compute: fleets of machines."""

from shiftable.compute._cloud_init import cloud_init
from shiftable.compute._compute import Compute
from shiftable.compute._fleet import Fleet
from shiftable.compute._machine import Machine
from shiftable.compute._sizes import Arch, Choice, Size, choose_size
from shiftable.compute._ssh import Completed
from shiftable.compute.driver import (
    ALIASES,
    FLEET_LABEL,
    STATES,
    ComputeFeatures,
    Debris,
    Disk,
    DiskImage,
    DiskSnapshot,
    FleetSpec,
    Image,
    MachineInfo,
    MachineState,
    PriceSource,
    Rule,
)

__all__ = [
    "ALIASES",
    "FLEET_LABEL",
    "STATES",
    "Arch",
    "Choice",
    "Completed",
    "Compute",
    "ComputeFeatures",
    "Debris",
    "Disk",
    "DiskImage",
    "DiskSnapshot",
    "Fleet",
    "FleetSpec",
    "Image",
    "Machine",
    "MachineInfo",
    "MachineState",
    "PriceSource",
    "Rule",
    "Size",
    "choose_size",
    "cloud_init",
]
