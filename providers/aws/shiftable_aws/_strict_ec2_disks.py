"""The disks, snapshots and images of the double of EC2."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import attrs
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from shiftable.testing.harness import Clock
from shiftable_aws import _strict_ec2_rules as rules
from shiftable_aws._strict_ec2_state import Arguments, Asked, Data, Machine, Region, page
from shiftable_aws._strict_refused import Refused

__all__ = ["Disks"]

_OWNERS = {"self", DEFAULT_ACCOUNT_ID, *(image["OwnerId"] for image in rules.IMAGES.values())}
_LIMITS = (5, 1000)


@attrs.define(eq=False)
class Disks:
    """Answers for disks, snapshots and images.

    Attributes:
        delay: how long everything takes.
        page_size: how many entries one answer has at most.
    """

    _clock: Clock
    delay: timedelta = timedelta(0)
    page_size: int = 1000

    # disks

    def create(self, region: Region, arguments: Arguments) -> Data:
        """CreateVolume."""
        token, what = arguments.get("ClientToken"), fingerprint(arguments)
        if token and (asked := region.asked.get(("volume", token))) is not None:
            if asked.what != what:
                raise Refused("IdempotentParameterMismatch", "The request uses the same client token as another one.")
            return region.volumes[asked.made[0]]
        zone = arguments.get("AvailabilityZone", "")
        if not _has_zone(region, zone):
            raise Refused("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
        least = 1
        if "SnapshotId" in arguments:
            least = self._snapshot(region, arguments["SnapshotId"])["VolumeSize"]
        rules.check_ebs({**arguments, "VolumeSize": arguments.get("Size", least)}, least)
        tags = rules.tags_for(arguments, "volume")
        made = self.add(region, zone, {"VolumeType": "gp2", **arguments, "VolumeSize": arguments.get("Size", least)})
        made |= {"State": "creating", "Tags": tags}
        region.later(self._clock.now() + self.delay, lambda: made.update(State="available"))
        if token:
            region.asked["volume", token] = Asked(what, (made["VolumeId"],))
        told = dict(made)
        region.pass_time(self._clock.now())
        return told

    def add(self, region: Region, zone: str, ebs: Arguments) -> Data:
        """Add a disk."""
        id_ = region.id("vol")
        made: Data = {
            "VolumeId": id_,
            "Size": ebs["VolumeSize"],
            "AvailabilityZone": zone,
            "State": "available",
            "VolumeType": ebs.get("VolumeType", "gp2"),
            "Encrypted": ebs.get("Encrypted", False),
            "CreateTime": self._clock.now(),
            "Attachments": [],
            "Tags": [],
            **{key: ebs[key] for key in ("SnapshotId", "Iops", "Throughput", "KmsKeyId") if key in ebs},
        }
        region.volumes[id_] = made
        return made

    def describe(self, region: Region, arguments: Arguments) -> Data:
        """DescribeVolumes."""
        ids = arguments.get("VolumeIds")
        for id_ in ids or ():
            self.volume(region, id_)
        found = [
            volume
            for id_, volume in region.volumes.items()
            if (ids is None or id_ in ids)
            and rules.fits(_volume_values(volume), volume["Tags"], arguments.get("Filters", ()))
        ]
        shown, more = page(found, arguments, _LIMITS, self.page_size)
        return {"Volumes": shown, **more}

    def delete(self, region: Region, arguments: Arguments) -> Data:
        """DeleteVolume."""
        volume = self.volume(region, arguments["VolumeId"])
        if volume["State"] != "available":
            held = ", ".join(entry["InstanceId"] for entry in volume["Attachments"])
            code = "VolumeInUse" if held else "IncorrectState"
            raise Refused(code, f"Volume {volume['VolumeId']} is currently attached to {held or 'nothing'}")
        del region.volumes[volume["VolumeId"]]
        return {}

    def attach(self, region: Region, arguments: Arguments, machine: Machine) -> Data:
        """AttachVolume."""
        volume = self.volume(region, arguments["VolumeId"])
        id_ = volume["VolumeId"]
        if volume["State"] == "in-use":
            raise Refused("VolumeInUse", f"{id_} is already attached to an instance")
        if volume["State"] != "available":
            raise Refused("IncorrectState", f"{id_} is not 'available'.")
        if machine.state not in {"running", "stopped", "stopping"}:
            raise Refused("IncorrectState", f"Instance '{machine.id}' is not 'running'.")
        if volume["AvailabilityZone"] != machine.data["Placement"]["AvailabilityZone"]:
            raise Refused("InvalidVolume.ZoneMismatch", "The volume is not in the same availability zone as instance")
        device = arguments["Device"]
        if device in {mapping["DeviceName"] for mapping in machine.data["BlockDeviceMappings"]}:
            raise Refused("InvalidParameterValue", f"Attachment point {device} is already in use")
        held = self.hold(volume, machine, device, deleted=False)
        held["State"] = "attaching"
        region.later(self._clock.now() + self.delay, lambda: held.update(State="attached"))
        told = dict(held)
        region.pass_time(self._clock.now())
        return told

    def hold(self, volume: Data, machine: Machine, device: str, *, deleted: bool) -> Data:
        """Attach a disk to a machine."""
        now = self._clock.now()
        held: Data = {
            "VolumeId": volume["VolumeId"],
            "InstanceId": machine.id,
            "Device": device,
            "State": "attached",
            "AttachTime": now,
            "DeleteOnTermination": deleted,
        }
        volume["Attachments"], volume["State"] = [held], "in-use"
        ebs = {"VolumeId": volume["VolumeId"], "DeleteOnTermination": deleted, "AttachTime": now, "Status": "attached"}
        machine.data["BlockDeviceMappings"].append({"DeviceName": device, "Ebs": ebs})
        return held

    def detach(self, region: Region, arguments: Arguments) -> Data:
        """DetachVolume."""
        volume = self.volume(region, arguments["VolumeId"])
        held = next(iter(volume["Attachments"]), None)
        if held is None:
            raise Refused("IncorrectState", f"Volume '{volume['VolumeId']}' is in the 'available' state.")
        if arguments.get("InstanceId") not in {None, held["InstanceId"]}:
            raise Refused("InvalidAttachment.NotFound", "The volume is not attached to that instance")
        machine = region.machines[held["InstanceId"]]
        if held["Device"] == machine.data["RootDeviceName"] and machine.state != "stopped":
            raise Refused("OperationNotPermitted", f"Unable to detach root volume from instance '{machine.id}'")
        held["State"] = "detaching"
        region.later(self._clock.now() + self.delay, lambda: self.release(region, volume))
        told = dict(held)
        region.pass_time(self._clock.now())
        return told

    def release(self, region: Region, volume: Data) -> None:
        """Take a disk from the machine that has it."""
        for held in volume["Attachments"]:
            machine = region.machines.get(held["InstanceId"])
            if machine is not None:
                mappings = machine.data["BlockDeviceMappings"]
                mappings[:] = [entry for entry in mappings if entry["Ebs"]["VolumeId"] != volume["VolumeId"]]
        volume["Attachments"], volume["State"] = [], "available"

    def volume(self, region: Region, id_: str) -> Data:
        """Return a disk."""
        rules.check_id("vol", id_)
        if id_ not in region.volumes:
            raise Refused("InvalidVolume.NotFound", f"The volume '{id_}' does not exist.")
        return region.volumes[id_]

    # snapshots

    def create_snapshot(self, region: Region, arguments: Arguments) -> Data:
        """CreateSnapshot."""
        volume = self.volume(region, arguments["VolumeId"])
        if volume["State"] not in {"available", "in-use"}:
            raise Refused("IncorrectState", f"The volume is {volume['State']}")
        tags = rules.tags_for(arguments, "snapshot")
        made = self._taken(region, volume, arguments.get("Description", ""), tags)
        told = dict(made)
        region.pass_time(self._clock.now())
        return told

    def _taken(self, region: Region, volume: Data, description: str, tags: list[Data]) -> Data:
        id_ = region.id("snap")
        made: Data = {
            "SnapshotId": id_,
            "VolumeId": volume["VolumeId"],
            "VolumeSize": volume["Size"],
            "State": "pending",
            "StartTime": self._clock.now(),
            "OwnerId": DEFAULT_ACCOUNT_ID,
            "Description": description,
            "Encrypted": volume["Encrypted"],
            "Tags": tags,
        }
        region.snapshots[id_] = made
        region.later(self._clock.now() + self.delay, lambda: made.update(State="completed"))
        return made

    def describe_snapshots(self, region: Region, arguments: Arguments) -> Data:
        """DescribeSnapshots, of the account's own."""
        ids = arguments.get("SnapshotIds")
        for id_ in ids or ():
            self._snapshot(region, id_)
        found = [
            snapshot
            for id_, snapshot in region.snapshots.items()
            if (ids is None or id_ in ids)
            and rules.fits(
                {"snapshot-id": [id_], "volume-id": [snapshot["VolumeId"]], "status": [snapshot["State"]]},
                snapshot["Tags"],
                arguments.get("Filters", ()),
            )
        ]
        shown, more = page(found, arguments, _LIMITS, self.page_size)
        return {"Snapshots": shown, **more}

    def delete_snapshot(self, region: Region, arguments: Arguments) -> Data:
        """DeleteSnapshot."""
        snapshot = self._snapshot(region, arguments["SnapshotId"])
        id_ = snapshot["SnapshotId"]
        using = next((image for image in region.images.values() if id_ in _snapshots_of(image)), None)
        if using is not None:
            text = f"The snapshot {id_} is currently in use by {using['ImageId']}"
            raise Refused("InvalidSnapshot.InUse", text)
        del region.snapshots[id_]
        return {}

    def _snapshot(self, region: Region, id_: str) -> Data:
        if id_ not in region.snapshots:
            raise Refused("InvalidSnapshot.NotFound", f"The snapshot '{id_}' does not exist.")
        return region.snapshots[id_]

    # images

    def create_image(self, region: Region, arguments: Arguments, machine: Machine) -> Data:
        """CreateImage."""
        name = _free_name(region, arguments)
        if machine.state not in {"running", "stopped"}:
            raise Refused("IncorrectInstanceState", f"The instance '{machine.id}' is {machine.state}")
        id_, data = region.id("ami"), machine.data
        left_out = {each["DeviceName"] for each in arguments.get("BlockDeviceMappings", ()) if "NoDevice" in each}
        mappings = []
        for mapping in data["BlockDeviceMappings"]:
            if mapping["DeviceName"] in left_out:
                continue
            volume = region.volumes[mapping["Ebs"]["VolumeId"]]
            taken = self._taken(
                region,
                volume,
                f"Created by CreateImage({machine.id}) for {id_}",
                rules.tags_for(arguments, "snapshot"),
            )
            ebs = {"SnapshotId": taken["SnapshotId"], "VolumeSize": volume["Size"], "VolumeType": volume["VolumeType"]}
            mappings.append({"DeviceName": mapping["DeviceName"], "Ebs": {**ebs, "DeleteOnTermination": True}})
        about = {key: data[key] for key in ("Architecture", "RootDeviceName")} | {"SourceInstanceId": machine.id}
        return self._add_image(region, id_, arguments, about | {"Name": name, "BlockDeviceMappings": mappings})

    def register_image(self, region: Region, arguments: Arguments) -> Data:
        """RegisterImage, of snapshots."""
        name, root = _free_name(region, arguments), arguments.get("RootDeviceName", "/dev/sda1")
        arch, boot = arguments.get("Architecture", "i386"), arguments.get("BootMode", "legacy-bios")
        if (arch, boot) == ("arm64", "legacy-bios"):
            raise Refused("InvalidParameterCombination", "The boot mode legacy-bios is incompatible with arm64")
        mappings = []
        for mapping in arguments.get("BlockDeviceMappings", ()):
            ebs = mapping.get("Ebs", {})
            snapshot = self._snapshot(region, ebs.get("SnapshotId", ""))
            if snapshot["State"] != "completed":
                raise Refused("IncorrectState", f"The snapshot {snapshot['SnapshotId']} is {snapshot['State']}")
            rules.check_ebs(ebs, snapshot["VolumeSize"])
            told = {"VolumeType": "standard", "VolumeSize": snapshot["VolumeSize"], "DeleteOnTermination": True, **ebs}
            mappings.append({"DeviceName": mapping["DeviceName"], "Ebs": told})
        if root not in {mapping["DeviceName"] for mapping in mappings}:
            raise Refused("InvalidBlockDeviceMapping", f"The root device {root} is not in the block device mapping")
        about = {
            "Name": name,
            "Architecture": arch,
            "BootMode": boot,
            "RootDeviceName": root,
            "BlockDeviceMappings": mappings,
            "EnaSupport": arguments.get("EnaSupport", False),
            "VirtualizationType": arguments.get("VirtualizationType", "paravirtual"),
        }
        return self._add_image(region, region.id("ami"), arguments, about)

    def _add_image(self, region: Region, id_: str, arguments: Arguments, about: Data) -> Data:
        made: Data = {
            "ImageId": id_,
            "OwnerId": DEFAULT_ACCOUNT_ID,
            "CreationDate": f"{self._clock.now():%Y-%m-%dT%H:%M:%S.000Z}",
            "State": "pending",
            "Public": False,
            "RootDeviceType": "ebs",
            "Tags": rules.tags_for(arguments, "image"),
            **about,
        }
        region.images[id_] = made
        region.later(self._clock.now() + self.delay, lambda: made.update(State="available"))
        region.pass_time(self._clock.now())
        return {"ImageId": id_}

    def describe_images(self, region: Region, arguments: Arguments) -> Data | None:
        """DescribeImages; nothing, if it asks for what only moto has."""
        owners, ids, filters = arguments.get("Owners"), arguments.get("ImageIds"), arguments.get("Filters", ())
        ours = {**rules.IMAGES, **region.images}
        named = [value for given in filters if given["Name"] == "image-id" for value in given["Values"]]
        amis = get_backend("ec2")[DEFAULT_ACCOUNT_ID][region.name].amis
        if any(id_ in amis for id_ in (*(ids or ()), *named)):
            return None
        if owners is not None and not set(owners) <= _OWNERS:
            return None
        if owners is None and ids is None and not named:
            return None
        for id_ in ids or ():
            if id_ not in ours:
                raise Refused("InvalidAMIID.NotFound", f"The image id '[{id_}]' does not exist")
        found = [image for id_, image in ours.items() if (ids is None or id_ in ids) and _is_of(image, owners)]
        fitting = [image for image in found if rules.fits(_image_values(image), image["Tags"], filters)]
        shown, more = page(fitting, arguments, _LIMITS, self.page_size)
        return {"Images": shown, **more}

    def deregister(self, region: Region, arguments: Arguments) -> Data:
        """DeregisterImage."""
        id_ = arguments["ImageId"]
        if id_ not in region.images:
            raise Refused("InvalidAMIID.NotFound", f"The image id '[{id_}]' does not exist")
        del region.images[id_]
        return {}

    def image(self, region: Region, id_: str) -> Data:
        """Return an image that machines can be made of."""
        rules.check_id("ami", id_)
        found = region.images.get(id_) or rules.IMAGES.get(id_)
        if found is None:
            ami: Any = get_backend("ec2")[DEFAULT_ACCOUNT_ID][region.name].amis.get(id_)
            if ami is None:
                raise Refused("InvalidAMIID.NotFound", f"The image id '[{id_}]' does not exist")
            root = {"DeviceName": ami.root_device_name, "Ebs": {"VolumeSize": 8}}
            found = {"ImageId": id_, "Architecture": ami.architecture, "State": "available"}
            found |= {"RootDeviceName": ami.root_device_name, "BlockDeviceMappings": [root]}
        if found["State"] != "available":
            raise Refused("InvalidAMIID.Unavailable", f"The image id '[{id_}]' is not available: {found['State']}")
        return found


def fingerprint(arguments: Arguments) -> str:
    """Tell requests apart, but for their token."""
    kept = {key: value for key, value in arguments.items() if key not in {"ClientToken", "DryRun"}}
    return json.dumps(kept, sort_keys=True, default=_written)


def _written(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _free_name(region: Region, arguments: Arguments) -> str:
    """Return the name that an image is to have."""
    name = str(arguments["Name"])
    if not re.fullmatch(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}", name):
        text = "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, ( ) . - / _"
        raise Refused("InvalidAMIName.Malformed", text)
    twin = next((image["ImageId"] for image in region.images.values() if image["Name"] == name), None)
    if twin is not None:
        raise Refused("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {twin}")
    return name


def _has_zone(region: Region, zone: str) -> bool:
    return zone in get_backend("ec2")[DEFAULT_ACCOUNT_ID][region.name].subnets


def _is_of(image: Data, owners: Iterable[str] | None) -> bool:
    known = {DEFAULT_ACCOUNT_ID if owner == "self" else owner for owner in owners or ()}
    return owners is None or image["OwnerId"] in known


def _image_values(image: Data) -> dict[str, list[str]]:
    return {
        "name": [image["Name"]],
        "state": [image["State"]],
        "architecture": [image["Architecture"]],
        "image-id": [image["ImageId"]],
        "owner-id": [image["OwnerId"]],
    }


def _volume_values(volume: Data) -> dict[str, list[str]]:
    return {
        "volume-id": [volume["VolumeId"]],
        "status": [volume["State"]],
        "availability-zone": [volume["AvailabilityZone"]],
        "attachment.instance-id": [entry["InstanceId"] for entry in volume["Attachments"]],
    }


def _snapshots_of(image: Data) -> set[str]:
    return {mapping["Ebs"].get("SnapshotId", "") for mapping in image["BlockDeviceMappings"]}
