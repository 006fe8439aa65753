"""What EC2 tells of machines, disks and snapshots, in our words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from shiftable.compute.driver import (
    FLEET_LABEL,
    Disk,
    DiskSnapshot,
    MachineInfo,
    MachineState,
    Rule,
    Size,
)
from shiftable_aws import _ec2_groups
from shiftable_aws._rds_groups import tags_of

__all__ = [
    "DISK",
    "GONE",
    "IMAGE",
    "NAME",
    "SOURCE",
    "STATES",
    "USER",
    "disk_of",
    "disk_snapshot_of",
    "goes",
    "holder_of",
    "info_of",
    "is_of_image",
    "is_own",
    "wall_ids",
    "with_it",
]

# What a machine is told in tags beside its labels: its name, and what EC2 does not tell of it.
NAME, IMAGE, USER, DISK = "Name", "shiftable-image", "shiftable-user", "shiftable-disk-gib"
SOURCE = "shiftable-source"

STATES: Mapping[str, MachineState] = {
    "pending": "creating",  # or starting, if it ran before
    "running": "running",  # also while it reboots
    "stopping": "stopping",
    "stopped": "stopped",
    "shutting-down": "deleting",
}
"""The states of the API reference, InstanceState. ``terminated`` is no state: such a machine is gone."""

GONE = "terminated"


def is_own(tag: str) -> bool:
    """Tell whether a tag is no label. However it is written, ``aws:`` is AWS's (user guide, "Tag restrictions")."""
    return tag == NAME or tag.lower().startswith("aws:") or (tag.startswith("shiftable-") and tag != FLEET_LABEL)


def info_of(found: Any, walls: Mapping[str, Iterable[Rule]], types: Mapping[str, Size]) -> MachineInfo:  # noqa: ANN401
    tags = tags_of(found.get("Tags"))
    size, cores = types.get(found["InstanceType"]), found.get("CpuOptions", {})
    root = found.get("RootDeviceName")
    interfaces = found.get("NetworkInterfaces", ())
    public = found.get("PublicIpAddress")
    raw = found["State"]["Name"]
    return MachineInfo(
        id=found["InstanceId"],
        name=tags.get(NAME) or found["InstanceId"],
        fleet=tags.get(FLEET_LABEL),
        state=_state(found),
        raw_state=raw,
        size=found["InstanceType"],
        cpus=size.cpus if size else cores.get("CoreCount", 0) * cores.get("ThreadsPerCore", 1),
        memory=size.memory if size else 0,
        image=tags.get(IMAGE) or found["ImageId"],
        arch="arm64" if found.get("Architecture") == "arm64" else "x86_64",
        gpus=size.gpus if size else 0,
        disk_gib=int(tags.get(DISK) or 0),
        zone=found.get("Placement", {}).get("AvailabilityZone"),
        spot=found.get("InstanceLifecycle") == "spot",
        addresses=tuple(one["PrivateIpAddress"] for one in interfaces if one.get("PrivateIpAddress")),
        public_addresses=(public,) if public else (),
        user=tags.get(USER, "shift"),
        firewall=tuple(rule for id_ in wall_ids(found) for rule in walls.get(id_, ())),
        network=found.get("SubnetId"),
        identity=found.get("IamInstanceProfile", {}).get("Arn"),
        disks=tuple(
            mapping["Ebs"]["VolumeId"]
            for mapping in found.get("BlockDeviceMappings", ())
            if mapping.get("DeviceName") != root and "Ebs" in mapping
        ),
        labels={key: value for key, value in tags.items() if not is_own(key)},
        created=_created(found),
    )


def _state(found: Any) -> MachineState:  # noqa: ANN401
    raw = found["State"]["Name"]
    if raw == "pending" and (made := _created(found)) and found["LaunchTime"].astimezone(UTC) > made:
        return "starting"
    return STATES.get(raw, "deleted" if raw == GONE else "unknown")


def _created(found: Any) -> datetime | None:  # noqa: ANN401
    """Return when the first network interface came: LaunchTime is of the last start."""
    times = [one["Attachment"]["AttachTime"] for one in found.get("NetworkInterfaces", ()) if "Attachment" in one]
    times += [found["LaunchTime"]] if "LaunchTime" in found else []
    made: datetime | None = min(times, default=None)
    return None if made is None else made.astimezone(UTC)


def with_it(found: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the ids of the disks and network interfaces that were made with a machine and go with it."""
    disks = ((mapping.get("Ebs", {}), "VolumeId") for mapping in found.get("BlockDeviceMappings", ()))
    cards = (
        ({**card, **card.get("Attachment", {})}, "NetworkInterfaceId") for card in found.get("NetworkInterfaces", ())
    )
    yield from (held[id_] for held, id_ in (*disks, *cards) if goes(held) and id_ in held)


def wall_ids(found: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the ids of the groups that tell what is open: the fleet's own, or of somebody else's machine all."""
    fleet = tags_of(found.get("Tags")).get(FLEET_LABEL)
    for group in found.get("SecurityGroups", ()):
        if fleet is None or group.get("GroupName") == _ec2_groups.group_name(fleet):
            yield group["GroupId"]


def disk_of(volume: Any) -> Disk:  # noqa: ANN401
    holder = holder_of(volume)
    by_id = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume['VolumeId'].replace('-', '')}"  # of Nitro
    return Disk(
        id=volume["VolumeId"],
        name=tags_of(volume.get("Tags")).get(NAME, ""),
        size_gib=volume["Size"],
        zone=volume["AvailabilityZone"],
        machine=holder,
        device=by_id if holder else None,
        ready=volume["State"] in {"available", "in-use"}
        and all(held.get("State") in {"attached", "detached"} for held in volume.get("Attachments", ())),
    )


def disk_snapshot_of(entry: Any) -> DiskSnapshot:  # noqa: ANN401
    started = entry.get("StartTime")
    return DiskSnapshot(
        id=entry["SnapshotId"],
        name=tags_of(entry.get("Tags")).get(NAME, ""),
        size_gib=entry["VolumeSize"],
        ready=entry["State"] == "completed",
        created=None if started is None else started.astimezone(UTC),
    )


def is_of_image(snapshot: Any) -> bool:  # noqa: ANN401
    return SOURCE in tags_of(snapshot.get("Tags")) or snapshot.get("Description", "").startswith(
        "Created by CreateImage"
    )


def holder_of(volume: Any) -> str | None:  # noqa: ANN401
    """Return the machine that a disk is attached to."""
    held = (entry for entry in volume.get("Attachments", ()) if entry.get("State") != "detached")
    return next((entry["InstanceId"] for entry in held), None)


def goes(attachment: Any) -> bool:  # noqa: ANN401
    return bool(attachment.get("DeleteOnTermination"))
