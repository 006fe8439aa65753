"""What is around all machines of a listing, in few calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from shiftable.compute.driver import Rule
from shiftable_azure._arm import ArmRefusal
from shiftable_azure._machine_ids import Ids
from shiftable_azure._machine_network import Interface, read_wall, same_id
from shiftable_azure._machine_resources import COMPUTE_API, NETWORK_API, Resources
from shiftable_azure._machines import codes_of

__all__ = ["Surroundings", "look_around"]

_FORBIDDEN = 403


@attrs.frozen
class Surroundings:
    """What belongs to machines and is told elsewhere, by the id of the machine or its own.

    Args:
        codes: what run-time views say; ``None``: nobody could be asked for all of them.
    """

    codes: Mapping[str, tuple[str, ...]] | None
    interfaces: Mapping[str, Interface]
    walls: Mapping[str, tuple[Rule, ...]]
    public: Mapping[str, str]


def look_around(ids: Ids, resources: Resources, fleet: str | None) -> Surroundings:
    """Return what is around the machines of a fleet, or of all."""
    cards = list[Mapping[str, Any]]()
    if fleet is not None:
        one = resources.got(ids.wall(fleet), NETWORK_API, {"$expand": "networkInterfaces"})
        groups = [] if one is None else [one]
        cards = [each for group in groups for each in group["properties"].get("networkInterfaces") or ()]
    else:
        groups = list(resources.items(ids.path("Microsoft.Network/networkSecurityGroups"), NETWORK_API))
    if not cards or not all("ipConfigurations" in (each.get("properties") or {}) for each in cards):
        cards = list(resources.items(ids.path("Microsoft.Network/networkInterfaces"), NETWORK_API))
    read = [Interface.read(each) for each in cards]
    public = dict[str, str]()
    if any(card.public for card in read):
        for each in resources.items(ids.path("Microsoft.Network/publicIPAddresses"), NETWORK_API):
            public[same_id(str(each["id"]))] = str(each["properties"].get("ipAddress") or "")
    return Surroundings(
        codes=_codes(resources),
        interfaces={same_id(card.machine): card for card in read if card.machine},
        walls={same_id(str(group["id"])): read_wall(group) for group in groups},
        public=public,
    )


def _codes(resources: Resources) -> Mapping[str, tuple[str, ...]] | None:
    """Return what the run-time views of all machines say; ``None`` if that may not be asked."""
    path = f"{resources.session.subscription}/providers/Microsoft.Compute/virtualMachines"
    try:
        found = list(resources.items(path, COMPUTE_API, {"statusOnly": "true"}))
    except ArmRefusal as exc:
        if exc.status_code != _FORBIDDEN:
            raise
        return None
    return {same_id(str(vm["id"])): codes_of(vm["properties"].get("instanceView")) for vm in found}
