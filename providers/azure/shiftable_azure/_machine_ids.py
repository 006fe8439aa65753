"""The ids of machines and of what is around them, in one resource group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import attrs

from shiftable_azure._arm import ArmSession
from shiftable_azure._machine_network import Interface, same_id
from shiftable_azure._machines import GALLERY
from shiftable_azure.errors import ArmFailure

__all__ = ["SUBNET", "Ids", "plain"]

SUBNET = "machines"
"""Of the network that is made where none is named."""


@attrs.frozen
class Ids:
    """Says how something is called in the resource group of a session, and in its location."""

    session: ArmSession

    @property
    def location(self) -> str:
        """Where machines are, as Azure writes it in ids: settings may have its name for people."""
        return plain(self.session.location)

    def path(self, kind: str) -> str:
        """Return where resources of a kind are."""
        return f"{self.session.group}/providers/{kind}"

    def machine(self, vm: Mapping[str, Any]) -> str:
        """Return where a machine is that Azure has told of."""
        return f"{self.path('Microsoft.Compute/virtualMachines')}/{quote(str(vm['name']), safe='')}"

    def wall(self, fleet: str) -> str:
        """Return what lets packets in to a fleet."""
        return f"{self.path('Microsoft.Network/networkSecurityGroups')}/shiftable-{fleet}"

    def near(self, fleet: str) -> str:
        """Return what brings machines of a fleet near each other."""
        return f"{self.path('Microsoft.Compute/proximityPlacementGroups')}/shiftable-{fleet}"

    def apart(self, fleet: str) -> str:
        """Return what keeps them apart."""
        return f"{self.path('Microsoft.Compute/availabilitySets')}/shiftable-{fleet}"

    def disk(self, disk: str) -> str:
        """Return a disk, by its name or id."""
        return self._of("Microsoft.Compute/disks", disk)

    def snapshot(self, snapshot: str) -> str:
        """Return a snapshot of a disk, by its name or id."""
        return self._of("Microsoft.Compute/snapshots", snapshot)

    def _of(self, kind: str, given: str) -> str:
        """Return the id of something, which may be given by its name; the group's name as the settings have it."""
        here = self.path(kind)
        if "/" not in given:
            return f"{here}/{quote(given, safe='')}"
        is_here = same_id(given).rpartition("/")[0] == same_id(here)
        return f"{here}/{given.rpartition('/')[2]}" if is_here else given

    @property
    def network(self) -> str:
        """Return the network of the location."""
        return f"{self.path('Microsoft.Network/virtualNetworks')}/shiftable-{self.location}"

    def subnet(self, network: str | None) -> str:
        """Return the subnet that ``network`` names."""
        if network is None:
            return f"{self.network}/subnets/{SUBNET}"
        if network.startswith("/"):
            return network
        name, _, subnet = network.partition("/")
        return f"{self.path('Microsoft.Network/virtualNetworks')}/{name}/subnets/{subnet or 'default'}"

    def network_of(self, card: Interface) -> str | None:
        """Return the subnet of an interface, as ``network`` names it."""
        here = f"{self.path('Microsoft.Network/virtualNetworks')}/"
        if card.subnet is None or not same_id(card.subnet).startswith(same_id(here) + "/"):
            return card.subnet
        name, _, rest = card.subnet[len(here) :].partition("/")
        return f"{name}/{rest.rpartition('/')[2]}"

    def identity(self, identity: str | None) -> str | None:
        """Return the managed identity that is named."""
        if identity is None or identity.startswith("/"):
            return identity
        return f"{self.path('Microsoft.ManagedIdentity/userAssignedIdentities')}/{identity}"

    @property
    def gallery(self) -> str:
        """Return where images are."""
        return f"{self.path('Microsoft.Compute/galleries')}/{GALLERY}"

    def own_image(self, image: str) -> str:
        """Return the id of an image of the gallery; nobody else's is deleted."""
        inside = f"{self.gallery}/images/"
        if not same_id(image).startswith(same_id(inside)) or "/" in image[len(inside) :]:
            raise ArmFailure("ResourceNotFound", f"the gallery {GALLERY} of the resource group has no image {image!r}")
        return image


def plain(location: str) -> str:
    return location.replace(" ", "").lower()
