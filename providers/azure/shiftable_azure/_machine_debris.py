"""What machines leave behind when they are made or deleted in part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import quote

import attrs

from shiftable.compute.driver import Debris
from shiftable_azure._flexible import moment
from shiftable_azure._machine_ids import Ids, plain
from shiftable_azure._machine_network import Interface, same_id
from shiftable_azure._machine_resources import NETWORK_API, Resources, fleet_of, provisioning, version_of
from shiftable_azure._machines import CREATED_LABEL, MACHINE_LABEL

__all__ = ["Leavings"]

_KINDS = {
    "networkInterfaces": "network interface",
    "publicIPAddresses": "public address",
    "disks": "disk",
    "networkSecurityGroups": "network security group",
    "proximityPlacementGroups": "proximity placement group",
    "availabilitySets": "availability set",
    "virtualNetworks": "virtual network",
}


@attrs.frozen
class Leavings:
    """Finds what has no machine, or no fleet."""

    ids: Ids
    resources: Resources

    def all(self, vms: Sequence[Mapping[str, Any]]) -> list[Debris]:
        """Return all of it, given all machines."""
        living = {fleet_of(vm) for vm in vms}
        found, gone = list(self.pieces(vms, None)), set[str]()
        for kind, own in (
            ("Microsoft.Network/networkSecurityGroups", self.ids.wall),
            ("Microsoft.Compute/proximityPlacementGroups", self.ids.near),
            ("Microsoft.Compute/availabilitySets", self.ids.apart),
        ):
            for each in self.resources.items(self.ids.path(kind), version_of(self.ids.path(kind))):
                fleet = fleet_of(each)
                if fleet and fleet not in living and same_id(str(each["id"])) == same_id(own(fleet)):
                    found.append(_told(own(fleet), each))
                    gone.add(same_id(own(fleet)))
        network = self.lonely_network(living - {""}, gone)
        found += [] if network is None else [_told(self.ids.network, network)]
        return found

    def pieces(self, vms: Sequence[Mapping[str, Any]], fleet: str | None) -> Iterator[Debris]:
        """Yield interfaces, addresses and first disks that no machine has, of one fleet or of all.

        While a machine is being made, what bears its name may be for it. A first disk is none as long as a machine has
        that name: somebody may have exchanged it.
        """
        ids = {same_id(str(vm["id"])) for vm in vms}
        names = {str(vm["name"]).lower() for vm in vms}
        busy = {str(vm["name"]).lower() for vm in vms if provisioning(vm) == "creating"}
        for kind, holder, spared in (
            ("Microsoft.Network/networkInterfaces", _machine_of, busy),
            ("Microsoft.Network/publicIPAddresses", _card_of, busy),
            ("Microsoft.Compute/disks", _owner_of, names),
        ):
            for each in self.resources.items(self.ids.path(kind), version_of(self.ids.path(kind))):
                held, tags = holder(each), each.get("tags") or {}
                if held is not None and same_id(held) in ids:
                    ids.add(same_id(str(each["id"])))  # what an interface has, its machine has
                    continue
                machine = str(tags.get(MACHINE_LABEL, "")).lower()
                if machine and machine not in spared and fleet_of(each) and fleet in (None, fleet_of(each)):
                    yield _told(f"{self.ids.path(kind)}/{quote(str(each['name']), safe='')}", each)

    def lonely_network(self, living: AbstractSet[str], gone: AbstractSet[str]) -> Mapping[str, Any] | None:
        """Return the network of the location if it is ours and no fleet is there, but for those whose groups go."""
        if living:
            return None
        for group in self.resources.items(self.ids.path("Microsoft.Network/networkSecurityGroups"), NETWORK_API):
            here = plain(str(group.get("location"))) == self.ids.location
            if here and fleet_of(group) and same_id(str(group["id"])) not in gone:
                return None
        found = self.resources.got(self.ids.network, NETWORK_API)
        return found if found is not None and (found.get("tags") or {}).get("shiftable") == "network" else None


def _told(path: str, found: Mapping[str, Any]) -> Debris:
    kind = path.rpartition("/")[0].rpartition("/")[2]
    return Debris(
        id=path,
        kind=_KINDS[kind],
        name=str(found["name"]),
        fleet=fleet_of(found) or None,
        created=moment((found.get("tags") or {}).get(CREATED_LABEL)),
    )


def _machine_of(card: Mapping[str, Any]) -> str | None:
    return Interface.read(card).machine


def _card_of(address: Mapping[str, Any]) -> str | None:
    """Return the id of the interface that has an address."""
    id_ = (address["properties"].get("ipConfiguration") or {}).get("id")
    return str(id_).partition("/ipConfigurations/")[0] if id_ else None


def _owner_of(disk: Mapping[str, Any]) -> str | None:
    return str(disk["managedBy"]) if disk.get("managedBy") else None
