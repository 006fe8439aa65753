"""Virtual machines: what is sent to make one, and what Azure tells of it in our words."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from shiftable.compute.driver import ALIASES, FLEET_LABEL, Arch, FleetSpec, Image, MachineInfo, MachineState, Rule
from shiftable_azure._compute_settings import AzureComputeSettings
from shiftable_azure._flexible import moment
from shiftable_azure._machine_sizes import Sku
from shiftable_azure.errors import ArmFailure

__all__ = [
    "ALIAS_GIB",
    "ALIAS_IMAGES",
    "CREATED_LABEL",
    "DISK_LABEL",
    "GALLERY",
    "IMAGE_LABEL",
    "MACHINE_LABEL",
    "PRIVATE_LABELS",
    "TOKEN_LABEL",
    "Around",
    "Place",
    "codes_of",
    "identifier",
    "image_reference",
    "machine_body",
    "read_machine",
    "state_of",
]

GALLERY = "shiftable"
"""Where images of machines are."""

TOKEN_LABEL = "shiftable-token"  # noqa: S105  the name of a tag
MACHINE_LABEL = "shiftable-machine"
IMAGE_LABEL = "shiftable-image"
DISK_LABEL = "shiftable-disk"
CREATED_LABEL = "shiftable-created"
PRIVATE_LABELS = frozenset({TOKEN_LABEL, MACHINE_LABEL, IMAGE_LABEL, DISK_LABEL, CREATED_LABEL})
"""Tags that are ours: what a machine was made with and Azure does not tell."""

_URNS: Mapping[tuple[str, Arch], str] = {
    ("debian-12", "x86_64"): "Debian:debian-12:12-gen2:latest",
    ("debian-12", "arm64"): "Debian:debian-12:12-arm64:latest",
    ("debian-13", "x86_64"): "Debian:debian-13:13-gen2:latest",
    ("debian-13", "arm64"): "Debian:debian-13:13-arm64:latest",
    ("ubuntu-22.04", "x86_64"): "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2:latest",
    ("ubuntu-22.04", "arm64"): "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-arm64:latest",
    ("ubuntu-24.04", "x86_64"): "Canonical:ubuntu-24_04-lts:server:latest",
    ("ubuntu-24.04", "arm64"): "Canonical:ubuntu-24_04-lts:server-arm64:latest",
}
ALIAS_GIB = 30
"""Of the disk of each alias; Azure makes none smaller."""
ALIAS_IMAGES: tuple[Image, ...] = tuple(
    Image(id=urn, name=alias, arch=arch, disk_gib=ALIAS_GIB) for (alias, arch), urn in _URNS.items()
)
"""What publishers have in Azure's marketplace; ``latest`` is Azure's to find out."""

_TAG = 256  # characters of a tag's value

_NETWORK_VERSION = "2022-11-01"  # with which Azure makes the interface

_POWER: Mapping[str, MachineState] = {
    "starting": "starting",
    "running": "running",
    "stopping": "stopping",
    "stopped": "suspended",  # from inside: it is still paid for
    "deallocating": "stopping",
    "deallocated": "stopped",
}
_PROVISIONING: Mapping[str, MachineState] = {"creating": "creating", "deleting": "deleting", "failed": "failed"}


@attrs.frozen
class Place:
    """Where a machine is put, and what it may be asked for there.

    Args:
        subnet: id.
        wall: id of the network security group.
        identity: id of the managed identity.
        zone: of the location; ``None``: Azure tells none.
        near: id of the proximity placement group.
        apart: id of the availability set.
        now: for the tags.
        signed: the image has a signed boot loader.
        image_gib: of the disk of the image, where that is known.
    """

    location: str
    subnet: str
    wall: str
    identity: str | None
    sku: Sku
    encryption_at_host: bool
    zone: str | None
    near: str | None
    apart: str | None
    now: str
    signed: bool = False
    image_gib: int | None = None


@attrs.frozen
class Around:
    """What belongs to a machine and is told elsewhere."""

    addresses: tuple[str, ...] = ()
    public: tuple[str, ...] = ()
    network: str | None = None
    firewall: tuple[Rule, ...] = ()


def machine_body(spec: FleetSpec, name: str, *, token: str, user_data: bytes | None, place: Place) -> dict[str, Any]:
    """Return a virtual machine whose interface, address and first disk are made, and deleted, with it.

    Nobody gets in by a password. What is left of a creation that fails is told by its tags; names of what belongs to a
    machine are new ones, since that of a predecessor may still be there.
    """
    native, own = AzureComputeSettings.of(spec), f"{name}-{uuid.uuid4().hex[:8]}"
    tags = {FLEET_LABEL: spec.name, MACHINE_LABEL: name, CREATED_LABEL: place.now}
    image = native.image or spec.image
    profile: dict[str, Any] = {"adminUsername": spec.user, "computerName": name}
    profile["linuxConfiguration"] = {
        "disablePasswordAuthentication": True,
        "ssh": {"publicKeys": [{"path": f"/home/{spec.user}/.ssh/authorized_keys", "keyData": key}
                               for key in spec.ssh_keys]},
    }  # fmt: skip
    if user_data is not None:
        profile["customData"] = base64.b64encode(user_data).decode()
    own_tags = {TOKEN_LABEL: token, DISK_LABEL: str(spec.disk_gib)}
    if len(spec.image) <= _TAG:
        own_tags[IMAGE_LABEL] = spec.image
    properties: dict[str, Any] = {
        "hardwareProfile": {"vmSize": place.sku.size.name},
        "storageProfile": {
            "imageReference": image_reference(image, spec.arch),
            "osDisk": _disk_body(spec, native, own, place),
        },
        "osProfile": profile,
        "networkProfile": {
            "networkApiVersion": _NETWORK_VERSION,
            "networkInterfaceConfigurations": [_interface_body(spec, own, tags, place)],
        },
        "securityProfile": _security_body(native, place),
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
        **_spot_body(spec, native),
    }
    for field, id_ in (("proximityPlacementGroup", place.near), ("availabilitySet", place.apart)):
        if id_ is not None:
            properties[field] = {"id": id_}
    body: dict[str, Any] = {
        "location": place.location,
        "tags": {**spec.labels, **tags, **own_tags},
        "properties": properties,
    }
    if place.zone is not None:
        body["zones"] = [place.zone]
    if place.identity is not None:
        body["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {place.identity: {}}}
    return body


def _disk_body(spec: FleetSpec, native: AzureComputeSettings, name: str, place: Place) -> dict[str, Any]:
    managed: dict[str, Any] = {"storageAccountType": native.disk_sku}
    if native.disk_encryption_set is not None:
        managed["diskEncryptionSet"] = {"id": native.disk_encryption_set}
    body: dict[str, Any] = {"name": name, "createOption": "FromImage", "deleteOption": "Delete", "managedDisk": managed}
    if place.image_gib is not None or spec.disk_gib > ALIAS_GIB:
        body["diskSizeGB"] = max(spec.disk_gib, place.image_gib or ALIAS_GIB)
    return body


def _interface_body(spec: FleetSpec, name: str, tags: Mapping[str, str], place: Place) -> dict[str, Any]:
    inside: dict[str, Any] = {"primary": True, "subnet": {"id": place.subnet}}
    if spec.public_ip:
        inside["publicIPAddressConfiguration"] = {
            "name": name,
            "sku": {"name": "Standard"},
            "tags": dict(tags),
            "properties": {"deleteOption": "Delete", "publicIPAllocationMethod": "Static"},
        }
    return {
        "name": name,
        "tags": dict(tags),
        "properties": {
            "primary": True,
            "deleteOption": "Delete",
            "enableAcceleratedNetworking": place.sku.accelerated,
            "networkSecurityGroup": {"id": place.wall},
            "ipConfigurations": [{"name": "first", "properties": inside}],
        },
    }


def _security_body(native: AzureComputeSettings, place: Place) -> dict[str, Any]:
    """Return how a machine starts. Of an image of somebody else it is not known whether it is signed."""
    trusted = (
        place.sku.trusted and place.signed if native.security_type is None else native.security_type == "TrustedLaunch"
    )
    body: dict[str, Any] = {"encryptionAtHost": place.encryption_at_host}
    if trusted:
        body |= {"securityType": "TrustedLaunch", "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True}}
    return body


def _spot_body(spec: FleetSpec, native: AzureComputeSettings) -> dict[str, Any]:
    if not spec.spot:
        return {}
    most = -1 if native.max_price is None else native.max_price
    return {"priority": "Spot", "evictionPolicy": native.eviction_policy, "billingProfile": {"maxPrice": most}}


def image_reference(image: str, arch: Arch) -> dict[str, str]:
    """Return an image as Azure has it.

    Raises:
        ArmFailure: it is neither an alias, nor ``publisher:offer:sku:version``, nor an id.
    """
    if image.startswith("/"):
        kind = image.strip("/").partition("/")[0].lower()
        fields = {"sharedgalleries": "sharedGalleryImageId", "communitygalleries": "communityGalleryImageId"}
        return {fields.get(kind, "id"): image}
    parts = _URNS.get((image, arch), image).split(":")
    if len(parts) != 4 or not all(parts):
        why = (
            f"there is no image {image!r}: name an alias ({', '.join(ALIASES)}), publisher:offer:sku:version, or an id"
        )
        raise ArmFailure("InvalidParameter", why)
    return dict(zip(("publisher", "offer", "sku", "version"), parts, strict=True))


def _image_told(reference: Mapping[str, str]) -> str:
    """Return an image by its alias, its four names, or its id."""
    for name in ("id", "sharedGalleryImageId", "communityGalleryImageId"):
        if reference.get(name):
            return reference[name]
    urn = ":".join(str(reference.get(part, "")) for part in ("publisher", "offer", "sku", "version"))
    return next((alias for (alias, _), known in _URNS.items() if known.lower() == urn.lower()), urn)


def identifier(name: str, vm: Mapping[str, Any]) -> str:
    """Return the id of a machine: its name alone would be the same for the next one of that name."""
    return f"{name}/{vm['properties'].get('vmId', '')}"


def codes_of(view: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the codes of what a machine's run-time view says."""
    return tuple(str(each.get("code")) for each in (view or {}).get("statuses") or () if each.get("code"))


def state_of(provisioning: str, codes: Iterable[str]) -> tuple[MachineState, str]:
    """Return the state of a machine in our words and in Azure's.

    A machine that failed to be changed while it ran goes on running; one that failed to be made or to be started has
    failed.
    """
    power = next((code.partition("/")[2] for code in codes if code.startswith("PowerState/")), "")
    failures = [code for code in codes if re.match(r"ProvisioningState/failed/.", code, re.IGNORECASE)]
    raw = ", ".join(
        [f"ProvisioningState/{provisioning.lower()}", *failures, *([f"PowerState/{power}"] if power else [])]
    )
    known = _PROVISIONING.get(provisioning.lower())
    if known == "failed" and power == "running" and not any("OSProvisioning" in code for code in failures):
        known = None
    if known is not None:
        return known, raw
    return _POWER.get(power, "creating" if not power and provisioning.lower() == "updating" else "unknown"), raw


def read_machine(
    vm: Mapping[str, Any],
    *,
    codes: Iterable[str],
    sku: Sku | None,
    around: Around,
    disks: tuple[str, ...],
) -> MachineInfo:
    """Tell of a machine in our words.

    Args:
        codes: of its run-time view.
        sku: of its size, ``None`` if the location no longer has that.
    """
    said, tags = vm["properties"], vm.get("tags") or {}
    storage = said.get("storageProfile") or {}
    first = storage.get("osDisk") or {}
    state, raw = state_of(str(said.get("provisioningState") or ""), codes)
    zones = vm.get("zones") or ()
    size = str((said.get("hardwareProfile") or {}).get("vmSize") or "")
    told = str(tags.get(DISK_LABEL, ""))
    return MachineInfo(
        id=identifier(str(vm["name"]), vm),
        name=str(vm["name"]),
        fleet=tags.get(FLEET_LABEL),
        state=state,
        raw_state=raw,
        size=size if sku is None else sku.size.name,
        cpus=0 if sku is None else sku.size.cpus,
        memory=0 if sku is None else sku.size.memory,
        image=tags.get(IMAGE_LABEL) or _image_told(storage.get("imageReference") or {}),
        arch="x86_64" if sku is None else sku.size.arch,
        gpus=0 if sku is None else sku.size.gpus,
        disk_gib=int(first.get("diskSizeGB") or (told if told.isdecimal() else 0)),
        zone=str(zones[0]) if zones else None,
        spot=said.get("priority") == "Spot",
        addresses=around.addresses,
        public_addresses=around.public,
        network=around.network,
        identity=next(iter((vm.get("identity") or {}).get("userAssignedIdentities") or ()), None),
        user=str((said.get("osProfile") or {}).get("adminUsername") or ""),
        firewall=around.firewall,
        disks=disks,
        labels={name: value for name, value in tags.items() if name not in PRIVATE_LABELS},
        created=moment(said.get("timeCreated")),
    )
