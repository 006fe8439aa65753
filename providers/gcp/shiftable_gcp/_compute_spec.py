"""What a declaration is in the words of Compute Engine, and an instance in ours."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

from shiftable.compute._firewall import normal
from shiftable.compute.driver import (
    ALIASES,
    FLEET_LABEL,
    IMPORT_LABEL,
    Arch,
    Debris,
    Disk,
    DiskImage,
    DiskSnapshot,
    FleetSpec,
    Image,
    MachineInfo,
    MachineState,
    Rule,
    Size,
)
from shiftable.errors import InvalidArgument
from shiftable_gcp import GcpComputeSettings
from shiftable_gcp._compute_api import Json, failure, last

__all__ = [
    "FAMILIES",
    "debris_of",
    "disk_of",
    "fleet_of",
    "image_of",
    "image_path",
    "imported",
    "impossible_labels",
    "info_of",
    "instance_of",
    "is_as",
    "is_ours",
    "native_of",
    "network_path",
    "placement_name",
    "placement_of",
    "placements_named",
    "snapshot_of",
    "token_of",
    "wall_names",
    "walls_of",
]

_OWNER, _TOKEN, _IMAGE, _USER = "shiftable", "shiftable-token", "shiftable-image", "shiftable-user"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")  # Compute Engine, labels: requirements; also letters beyond ASCII
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_TERMINATE = "TERMINATE"
_IMAGE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")  # Compute Engine API reference, images: name
_ARCHIVE = re.compile(r"[A-Za-z0-9._/-]+\.tar\.gz")  # what is the same in a URL, whoever decodes it
_GUEST = ("VIRTIO_SCSI_MULTIQUEUE", "GVNIC")  # Linux has both since 5.3; without, the newest machine types start none
_DOMAINS = 8  # Compute Engine, spread placement policies: the most

FAMILIES: Mapping[tuple[str, Arch], str] = {
    ("debian-12", "x86_64"): "projects/debian-cloud/global/images/family/debian-12",
    ("debian-12", "arm64"): "projects/debian-cloud/global/images/family/debian-12-arm64",
    ("debian-13", "x86_64"): "projects/debian-cloud/global/images/family/debian-13",
    ("debian-13", "arm64"): "projects/debian-cloud/global/images/family/debian-13-arm64",
    ("ubuntu-22.04", "x86_64"): "projects/ubuntu-os-cloud/global/images/family/ubuntu-2204-lts",
    ("ubuntu-22.04", "arm64"): "projects/ubuntu-os-cloud/global/images/family/ubuntu-2204-lts-arm64",
    ("ubuntu-24.04", "x86_64"): "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64",
    ("ubuntu-24.04", "arm64"): "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-arm64",
}
"""Where the newest image of each alias is (Compute Engine, operating system details)."""

# Machines of these families take no Persistent Disk (Compute Engine, machine families: supported disk types).
_HYPERDISK = ("c4-", "c4a-", "c4d-", "n4-", "n4a-", "n4d-", "x4-", "m4-", "a4-", "a4x-", "h4d-", "g4-")

_STATES: Mapping[str, MachineState] = {
    "DEPROVISIONING": "deleting",
    "PENDING": "creating",
    "PENDING_STOP": "stopping",
    "PROVISIONING": "creating",
    "REPAIRING": "starting",  # Google restarts it elsewhere
    "RUNNING": "running",
    "STAGING": "creating",
    "STOPPED": "stopped",
    "STOPPING": "stopping",
    "SUSPENDED": "suspended",
    "SUSPENDING": "stopping",
    "TERMINATED": "stopped",  # and not gone, as the same word means on EC2
}

# Google's images of Debian come without cloud-init (Google's own agent makes users and keys there), and would ignore
# user data. So the agent's start script installs it, from Debian's mirrors, and cloud-init does the rest.
_INSTALL_CLOUD_INIT = """#!/bin/sh
# shiftable: the user data of this machine is for cloud-init, which Google's images of Debian do not have.
[ -e /var/lib/cloud/instance/boot-finished ] && exit 0
if ! command -v cloud-init >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  { apt-get -q update && apt-get -q install -y cloud-init; } || {
    echo "shiftable: cloud-init cannot be installed: this machine has no way to Debian's mirrors" >&2
    exit 1
  }
fi
cloud-init init --local && cloud-init init && cloud-init modules --mode=config && cloud-init modules --mode=final
"""


# what is declared


def native_of(spec: FleetSpec) -> GcpComputeSettings:
    """Return what the declaration says of Google only."""
    return spec.native if isinstance(spec.native, GcpComputeSettings) else GcpComputeSettings()


def impossible_labels(labels: Mapping[str, str]) -> Iterator[str]:
    """Say what is no label of Google's."""
    for key, value in labels.items():
        if not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
            yield f"labels as {key} = {value}: lower-case letters, digits, _ and - only, 63 at most"


def image_path(image: str, arch: Arch, project: str) -> str:
    """Return where an image is: an alias, a resource as Google tells it, or the name of one of the project's own."""
    family = FAMILIES.get((image, arch))
    if family is not None:
        return family
    found = re.fullmatch(r"(?:https://[^/]+/(?:compute/)?v1/)?(projects/.+)", image)
    if found:
        return found[1]
    if image.startswith(("global/", "family/")):
        return f"projects/{project}/global/images/{image.removeprefix('global/images/')}"
    return f"projects/{project}/global/images/{image}"


def network_path(network: str | None) -> str:
    """Return where a network is, given by its name or as a resource."""
    name = network or "default"
    return name if "/" in name else f"global/networks/{name}"


def instance_of(
    spec: FleetSpec, name: str, size: Size, *, token: str, user_data: bytes | None, project: str, zone: str
) -> dict[str, Any]:
    """Return the instance that is to be made."""
    native = native_of(spec)
    labels = {**spec.labels, FLEET_LABEL: spec.name}
    region = zone.rpartition("-")[0]
    kind = native.disk_type or ("hyperdisk-balanced" if size.name.startswith(_HYPERDISK) else "pd-balanced")
    disk: dict[str, Any] = {
        "boot": True,
        "autoDelete": True,
        "initializeParams": {
            "diskName": name,
            "diskSizeGb": str(spec.disk_gib),
            "diskType": f"zones/{zone}/diskTypes/{kind}",
            "sourceImage": image_path(native.image or spec.image, size.arch, project),
            "labels": labels,
        },
    }
    if native.disk_kms_key is not None:
        disk["diskEncryptionKey"] = {"kmsKeyName": native.disk_kms_key}
    interface: dict[str, Any] = {}
    if spec.network is not None or native.subnetwork is None:
        interface["network"] = network_path(spec.network)
    if native.subnetwork is not None:
        subnetwork = native.subnetwork
        interface["subnetwork"] = subnetwork if "/" in subnetwork else f"regions/{region}/subnetworks/{subnetwork}"
    if spec.public_ip:
        interface["accessConfigs"] = [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}]
    body: dict[str, Any] = {
        "name": name,
        "description": _described(spec.name),
        "machineType": f"zones/{zone}/machineTypes/{size.name}",
        "labels": labels,
        "tags": {"items": [_tag(spec.name)]},
        "disks": [disk],
        "networkInterfaces": [interface],
        "metadata": {"items": _metadata(spec, token, user_data)},
        "scheduling": _scheduling(spec, size, native),
    }
    shielded = _shielded(spec, size, native)
    if shielded is not None:
        body["shieldedInstanceConfig"] = shielded
    if spec.gpus and not size.gpus:  # of machine types that have GPUs of their own nothing is to be said
        kind = f"zones/{zone}/acceleratorTypes/{spec.gpu}"
        body["guestAccelerators"] = [{"acceleratorType": kind, "acceleratorCount": spec.gpus}]
    if spec.identity is not None:
        body["serviceAccounts"] = [{"email": spec.identity, "scopes": list(native.scopes) or [_SCOPE]}]
    policies = [*native.resource_policies, *([placement_name(spec.name, spec.placement)] if spec.placement else [])]
    if policies:
        body["resourcePolicies"] = [
            policy if "/" in policy else f"projects/{project}/regions/{region}/resourcePolicies/{policy}"
            for policy in policies
        ]
    return body


def _shielded(spec: FleetSpec, size: Size, native: GcpComputeSettings) -> dict[str, bool] | None:
    """Return what of a Shielded VM is on: all of it on images of which that is known to work, else what is declared.

    ``None``: Google's default, a virtual TPM on images that can have one. Any other image would be refused.
    """
    known = native.image is None and spec.image in ALIASES and size.arch == "x86_64"
    if not known and (native.secure_boot, native.vtpm, native.integrity_monitoring) == (None, None, None):
        return None
    unsigned = bool(size.gpus or spec.gpus)  # the drivers of GPUs
    vtpm = native.vtpm is not False
    return {
        "enableSecureBoot": known and not unsigned if native.secure_boot is None else native.secure_boot,
        "enableVtpm": vtpm,
        "enableIntegrityMonitoring": vtpm if native.integrity_monitoring is None else native.integrity_monitoring,
    }


def _scheduling(spec: FleetSpec, size: Size, native: GcpComputeSettings) -> dict[str, Any]:
    if spec.spot:
        action = native.on_preemption.upper()
        return {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": action,
            "automaticRestart": False,
            "onHostMaintenance": _TERMINATE,
        }
    fixed = spec.gpus or size.gpus or spec.placement == "close"  # no GPU moves while it runs, and nothing that is close
    host = _TERMINATE if fixed else "MIGRATE"
    return {"provisioningModel": "STANDARD", "automaticRestart": True, "onHostMaintenance": host}


def _metadata(spec: FleetSpec, token: str, user_data: bytes | None) -> list[dict[str, str]]:
    items = {
        _TOKEN: token,
        _IMAGE: spec.image,
        _USER: spec.user,
        "block-project-ssh-keys": "TRUE",
        "serial-port-enable": "FALSE",  # nobody writes to its console; it can be read all the same
    }
    if spec.ssh_keys:
        items["ssh-keys"] = "\n".join(f"{spec.user}:{key}" for key in spec.ssh_keys)
        items["enable-oslogin"] = "FALSE"  # with it the keys of metadata count for nothing
    if user_data is not None:
        try:
            items["user-data"] = user_data.decode()
        except UnicodeDecodeError:
            items["user-data"] = base64.b64encode(user_data).decode()
            items["user-data-encoding"] = "base64"
        if spec.image.startswith("debian-"):
            items["startup-script"] = _INSTALL_CLOUD_INIT
    return [{"key": key, "value": value} for key, value in items.items()]


# what the machines of a fleet share


def _tag(fleet: str) -> str:
    return f"{_OWNER}-{fleet}"


def wall_names(fleet: str) -> str:
    """Return a regular expression for the names of a fleet's firewall rules."""
    return f"{_OWNER}-{fleet}-[0-9a-f]{{8}}"


def fleet_of(shared: Json) -> str:
    """Return whose firewall rule or policy it is."""
    return str(shared["name"]).removeprefix(f"{_OWNER}-").rpartition("-")[0]


def is_ours(shared: Json) -> bool:
    """Tell whether shiftable made a firewall rule or a policy: by its description, as neither has labels."""
    return shared.get("description") == _described(fleet_of(shared))


def _described(fleet: str) -> str:
    return f"made by shiftable for the fleet {fleet}"


def walls_of(spec: FleetSpec) -> dict[str, dict[str, Any]]:
    """Return the firewall rules of a fleet, by name.

    One of Google's has one set of networks, all of IPv4 or all of IPv6, for all its ports. Its name tells the networks,
    so that one that opens other ports is changed, and one for other networks is another.
    """
    ports: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for rule in spec.firewall:
        for version in (4, 6):
            networks = tuple(each for each in rule.allow_from if ip_network(each).version == version)
            if networks:
                said = str(rule.port) if rule.last == rule.port else f"{rule.port}-{rule.last}"
                ports.setdefault(networks, {}).setdefault(rule.protocol, []).append(said)
    walls = {}
    for networks, allowed in ports.items():
        name = f"{_OWNER}-{spec.name}-{hashlib.sha256(' '.join(networks).encode()).hexdigest()[:8]}"
        walls[name] = {
            "name": name,
            "description": _described(spec.name),
            "direction": "INGRESS",
            "allowed": [{"IPProtocol": protocol, "ports": found} for protocol, found in sorted(allowed.items())],
            "sourceRanges": list(networks),
            "targetTags": [_tag(spec.name)],
        }
    return walls


def placement_name(fleet: str, placement: str) -> str:
    """Return the name of the policy by which the machines of a fleet are placed."""
    return f"{_OWNER}-{fleet}-{placement}"


def placements_named(fleet: str) -> str:
    """Return a regular expression for the names of a fleet's policies."""
    return f"{_OWNER}-{fleet}-(spread|close)"


def placement_of(fleet: str, placement: str) -> dict[str, Any]:
    """Return that policy."""
    group: dict[str, Any] = (
        {"availabilityDomainCount": _DOMAINS} if placement == "spread" else {"collocation": "COLLOCATED"}
    )
    return {
        "name": placement_name(fleet, placement),
        "description": _described(fleet),
        "groupPlacementPolicy": group,
    }


def is_as(wall: Json, wanted: Json) -> bool:
    """Tell whether a firewall rule lets in whom it should, and nobody else."""
    return (
        _rules_of([wall]) == _rules_of([wanted])
        and wall.get("targetTags") == wanted["targetTags"]
        and wall.get("direction") == wanted["direction"]
        and not wall.get("disabled")
    )


def _rules_of(walls: Iterable[Json]) -> tuple[Rule, ...]:
    """Return who may connect."""
    found = []
    for wall in walls:
        for allowed in wall.get("allowed", ()):
            protocol = str(allowed["IPProtocol"]).lower()
            if wall.get("disabled") or protocol not in {"tcp", "udp"}:
                continue
            for ports in allowed.get("ports") or ("1-65535",):
                low, _, high = str(ports).partition("-")
                found.append(
                    Rule(
                        port=max(1, int(low)),
                        last_port=int(high) if high else None,
                        protocol="tcp" if protocol == "tcp" else "udp",
                        allow_from=tuple(wall.get("sourceRanges", ())),
                    )
                )
    return normal(found)


# what Google tells


def _items(instance: Json) -> dict[str, str]:
    return {str(each["key"]): str(each.get("value", "")) for each in instance.get("metadata", {}).get("items", ())}


def token_of(instance: Json) -> str | None:
    """Return the token that an instance was made with."""
    return _items(instance).get(_TOKEN)


def info_of(instance: Json, size: Size, walls: Iterable[Json], doing: MachineState | None = None) -> MachineInfo:
    """Return a machine.

    Args:
        walls: the firewall rules of its fleet.
        doing: what is being done to it, where its state does not tell.
    """
    metadata, labels, zone = _items(instance), dict(instance.get("labels", {})), last(instance["zone"])
    boot: Json = next((disk for disk in instance.get("disks", ()) if disk.get("boot")), {})
    state = doing or _STATES.get(instance["status"], "unknown")
    if state == "creating" and instance.get("lastStopTimestamp"):
        state = "starting"
    interfaces = instance.get("networkInterfaces", ())
    return MachineInfo(
        id=f"{zone}/{instance['id']}",
        name=instance["name"],
        fleet=labels.get(FLEET_LABEL),
        state=state,
        raw_state=instance["status"],
        size=size.name,
        cpus=size.cpus,
        memory=size.memory,
        image=metadata.get(_IMAGE) or last(next(iter(boot.get("licenses", ())), "")),
        arch=size.arch,
        gpus=sum(int(card["acceleratorCount"]) for card in instance.get("guestAccelerators", ())) or size.gpus,
        disk_gib=int(boot.get("diskSizeGb", 0)),
        zone=zone,
        spot=instance.get("scheduling", {}).get("provisioningModel") == "SPOT",
        addresses=tuple(each["networkIP"] for each in interfaces if "networkIP" in each),
        public_addresses=tuple(
            access["natIP"] for each in interfaces for access in each.get("accessConfigs", ()) if "natIP" in access
        ),
        user=metadata.get(_USER, "shift"),
        firewall=_rules_of(walls),
        network=last(interfaces[0].get("network", "")) or None if interfaces else None,
        identity=next((each["email"] for each in instance.get("serviceAccounts", ())), None),
        disks=tuple(
            f"{zone}/{last(disk['source'])}"
            for disk in instance.get("disks", ())
            if not disk.get("boot") and "source" in disk
        ),
        labels=labels,
        created=_moment(instance),
    )


def disk_of(told: Json, machine: str | None) -> Disk | None:
    """Return a disk; ``None`` if it is one that a machine starts from.

    Args:
        machine: the id of the one that has it.
    """
    if "sourceImage" in told or FLEET_LABEL in told.get("labels", {}):
        return None
    zone = last(told["zone"])
    return Disk(
        id=f"{zone}/{told['name']}",
        name=told["name"],
        size_gib=int(told["sizeGb"]),
        zone=zone,
        machine=machine,
        device=f"/dev/disk/by-id/google-{told['name']}" if machine else None,
        ready=told.get("status", "READY") == "READY",
    )


def snapshot_of(told: Json) -> DiskSnapshot:
    """Return a snapshot of a disk."""
    return DiskSnapshot(
        id=told["name"],
        name=told["name"],
        size_gib=int(told["diskSizeGb"]),
        ready=told["status"] == "READY",
        created=_moment(told),
    )


def image_of(told: Json, alias: str | None = None) -> Image:
    """Return an image, one of the project's own unless it is that of an alias."""
    arch: Arch = "arm64" if told.get("architecture") == "ARM64" else "x86_64"
    found = re.search(r"projects/.+", told["selfLink"])
    return Image(
        id=found[0] if found else str(told["selfLink"]),
        name=alias or told["name"],
        arch=arch,
        disk_gib=int(told["diskSizeGb"]) if "diskSizeGb" in told else None,
        own=alias is None,
        ready=told.get("status", "READY") == "READY",
        created=_moment(told),
    )


def imported(name: str, source: DiskImage, token: str) -> dict[str, Any]:
    """Return the image that is to be made of an archive in Cloud Storage.

    Raises:
        ComputeFault: it has a name that Compute Engine does not take.
    """
    if not _ARCHIVE.fullmatch(source.key):
        why = "Compute Engine imports objects whose names are letters, digits, ., _, - and /, and end in .tar.gz"
        raise failure(InvalidArgument, f"{why}, not {source.key!r}")
    if not _IMAGE_NAME.fullmatch(name):
        raise failure(
            InvalidArgument, "names of images are lower-case letters, digits and -, at most 63, a letter first"
        )
    uefi = ["UEFI_COMPATIBLE"] if source.firmware == "uefi" else []
    return {
        "name": name,
        "architecture": source.arch.upper(),
        "rawDisk": {"source": f"https://storage.googleapis.com/{source.bucket}/{source.key}", "containerType": "TAR"},
        "guestOsFeatures": [{"type": each} for each in (*_GUEST, *uefi)],
        "labels": {IMPORT_LABEL: token},
    }


def debris_of(told: Json, kind: str) -> Debris:
    """Return what was left of a machine or a fleet: a disk, a firewall rule or a policy."""
    place = f"{last(told['zone'])}/" if "zone" in told else ""
    fleet = told.get("labels", {}).get(FLEET_LABEL) if kind == "disk" else fleet_of(told)
    return Debris(id=f"{place}{told['name']}", kind=kind, name=told["name"], fleet=fleet, created=_moment(told))


def _moment(told: Json) -> datetime | None:
    created = told.get("creationTimestamp")
    return datetime.fromisoformat(created).astimezone(UTC) if created else None
