"""What Amazon EC2 has and what it refuses: images, types, tags, disks.

Numbers and texts are those of the API reference and the user guide; the images are some of those of 2026-11.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

from shiftable_aws._strict_refused import Refused

__all__ = [
    "IMAGES",
    "check_arch",
    "check_ebs",
    "check_id",
    "check_tags",
    "fits",
    "is_offered",
    "kind_of",
    "offered",
    "tags_for",
    "told_type",
    "user_data",
]

Arguments = Mapping[str, Any]
Data = dict[str, Any]

_MAX_USER_DATA = 16_384
_MAX_TAGS = 50
_MAX_VALUES = 200

# What is told of a type; the rest would only make the answers longer.
_TOLD = (
    *("InstanceType", "CurrentGeneration", "SupportedUsageClasses", "BareMetal", "Hypervisor", "ProcessorInfo"),
    *("VCpuInfo", "MemoryInfo", "GpuInfo", "BurstablePerformanceSupported", "PlacementGroupInfo"),
)


def _image(number: int, owner: str, name: str, arch: str, day: str, device: str, gib: int) -> Data:
    root = {"SnapshotId": f"snap-{number:017x}", "VolumeSize": gib, "VolumeType": "gp3", "DeleteOnTermination": True}
    return {
        "ImageId": f"ami-{number:017x}",
        "OwnerId": owner,
        "Name": name,
        "Architecture": arch,
        "CreationDate": f"{day}T00:00:00.000Z",
        "State": "available",
        "Public": True,
        "RootDeviceName": device,
        "RootDeviceType": "ebs",
        "VirtualizationType": "hvm",
        "Hypervisor": "xen",
        "BlockDeviceMappings": [{"DeviceName": device, "Ebs": {**root, "Encrypted": False}}],
        "Tags": [],
    }


def _published() -> Iterator[tuple[str, str, str, str, str, int]]:
    debian, ubuntu, stranger = "136693071363", "099720109477", "999999999999"
    arches = (("amd64", "x86_64"), ("arm64", "arm64"))
    for release, days in (("12", ("2026-09-01", "2026-11-02")), ("13", ("2026-10-05", "2026-11-09"))):
        for short, arch in arches:
            for day in days:
                number = day.replace("-", "")
                yield debian, f"debian-{release}-{short}-{number}-2300", arch, day, "/dev/xvda", 8
            yield debian, f"debian-{release}-backports-{short}-20261115-2310", arch, "2026-11-15", "/dev/xvda", 8
            yield stranger, f"debian-{release}-{short}-20261120-2310", arch, "2026-11-20", "/dev/xvda", 8
    for disk, name, release in (("ssd", "jammy", "22.04"), ("ssd-gp3", "noble", "24.04")):
        for short, arch in arches:
            for day in ("2026-10-01", "2026-11-01"):
                full = f"ubuntu/images/hvm-{disk}/ubuntu-{name}-{release}-{short}-server-{day.replace('-', '')}"
                yield ubuntu, full, arch, day, "/dev/sda1", 8


IMAGES: Mapping[str, Data] = {
    image["ImageId"]: image
    for image in (_image(0xA0000 + number, *fields) for number, fields in enumerate(_published()))
}
"""Images of the publishers of the aliases, with older ones, and a stranger's that are called alike."""


# types


def offered(region: str) -> frozenset[str]:
    """Return the names of the types of a region."""
    return frozenset(entry["InstanceType"] for entry in INSTANCE_TYPE_OFFERINGS["region"].get(region, ()))


def is_offered(region: str, zone: str, name: str) -> bool:
    """Tell whether a zone has a type."""
    entries = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, ())
    return any(entry["InstanceType"] == name and entry["Location"] == zone for entry in entries)


def kind_of(region: str, name: str) -> Data:
    """Return what is known of a type."""
    if name not in INSTANCE_TYPES:
        raise Refused("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    if name not in offered(region):
        raise Refused("Unsupported", "The requested configuration is currently not supported. Please check the docs.")
    found: Data = INSTANCE_TYPES[name]
    return found


def told_type(name: str) -> Data:
    """Return what DescribeInstanceTypes tells of a type."""
    held = INSTANCE_TYPES[name]
    return {key: held[key] for key in _TOLD if key in held}


def check_arch(kind: Data, arch: str) -> None:
    """Refuse a type for an image of another architecture."""
    supported = kind["ProcessorInfo"]["SupportedArchitectures"]
    if arch not in supported:
        text = (
            f"The architecture '{','.join(supported)}' of the specified instance type does not match the architecture"
        )
        raise Refused("InvalidParameterValue", f"{text} '{arch}' of the specified AMI.")


def check_virtualization(kind: Data, image: Data) -> None:
    """Refuse an image that cannot start on a type: all of today's need what only HVM has, most of them ENA."""
    if image.get("VirtualizationType", "hvm") != "hvm":
        text = f"The instance type '{kind['InstanceType']}' does not support the virtualization type of the AMI"
        raise Refused("InvalidParameterCombination", text)
    if kind.get("NetworkInfo", {}).get("EnaSupport") == "required" and not image.get("EnaSupport", True):
        text = f"Enhanced networking with the Elastic Network Adapter (ENA) is required for '{kind['InstanceType']}'"
        raise Refused("InvalidParameterCombination", text)


# what is asked for


def check_id(prefix: str, id_: str) -> None:
    """Refuse what is no id of that kind."""
    if not re.fullmatch(rf"{prefix}-[0-9a-f]{{8}}([0-9a-f]{{9}})?", id_):
        kinds = {"i": "InvalidInstanceID.Malformed", "vol": "InvalidParameterValue", "ami": "InvalidAMIID.Malformed"}
        raise Refused(kinds.get(prefix, "InvalidParameterValue"), f'Invalid id: "{id_}" (expecting "{prefix}-...")')


def user_data(text: str) -> bytes:
    """Return what cloud-init gets."""
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Refused("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from None
    if len(found) > _MAX_USER_DATA:
        raise Refused("InvalidParameterValue", f"User data is limited to {_MAX_USER_DATA} bytes")
    return found


def tags_for(arguments: Arguments, kind: str) -> list[Data]:
    """Return the tags that something is made with."""
    found: list[Data] = []
    for given in arguments.get("TagSpecifications", ()):
        check_tags(given.get("Tags", []))
        if given["ResourceType"] == kind:
            found += given.get("Tags", [])
    return [{"Key": tag["Key"], "Value": tag.get("Value", "")} for tag in found]


def check_tags(tags: list[Data]) -> None:
    """Refuse tags that EC2 does not take."""
    keys = [tag["Key"] for tag in tags]
    if len(set(keys)) < len(keys):
        raise Refused("InvalidParameterValue", "Duplicate tag key specified.")
    if len(keys) > _MAX_TAGS:
        raise Refused("TagLimitExceeded", f"You have reached the maximum number of tags on the resource, {_MAX_TAGS}.")
    if any(key.lower().startswith("aws:") for key in keys):
        raise Refused("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
    if any(not 1 <= len(tag["Key"]) <= 128 or len(tag.get("Value", "")) > 256 for tag in tags):
        raise Refused("InvalidParameterValue", "Tag key or value exceeds the maximum length.")


def check_ebs(ebs: Data, least: int) -> None:
    """Refuse a disk that is too small, or has what its type does not have."""
    size, kind = ebs.get("VolumeSize", least), ebs.get("VolumeType", "gp2")
    if size < least:
        text = f"Volume of size {size}GB is smaller than snapshot, expect size >= {least}GB"
        raise Refused("InvalidBlockDeviceMapping", text)
    if kind not in {"gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"}:
        raise Refused("InvalidParameterValue", f"Invalid value '{kind}' for VolumeType.")
    if kind in {"io1", "io2"} and "Iops" not in ebs:
        raise Refused("MissingParameter", f"The parameter iops must be specified for {kind} volumes.")
    if kind == "gp2" and "Iops" in ebs:
        raise Refused("InvalidParameterCombination", "The parameter iops is not supported for gp2 volumes.")
    if kind != "gp3" and "Throughput" in ebs:
        raise Refused("InvalidParameterCombination", f"The parameter throughput is not supported for {kind} volumes.")
    if "KmsKeyId" in ebs and not ebs.get("Encrypted"):
        raise Refused(
            "InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set."
        )


# filters


def fits(values: Mapping[str, Iterable[str]], tags: Iterable[Data], filters: Iterable[Data]) -> bool:
    """Tell whether something passes filters.

    Args:
        values: what it has, by the names of the filters that there are for it.
    """
    held = {tag["Key"]: tag["Value"] for tag in tags}
    for given in filters:
        name = given["Name"]
        if name == "tag-key":
            has: Iterable[str] = held
        elif name.startswith("tag:"):
            has = [held[name[4:]]] if name[4:] in held else []
        elif name in values:
            has = values[name]
        else:
            raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")
        wanted = given.get("Values", [])
        if len(wanted) > _MAX_VALUES:
            text = f"The maximum number of filter values specified on a single call is {_MAX_VALUES}"
            raise Refused("FilterLimitExceeded", text)
        if not any(fnmatchcase(value, pattern) for value in has for pattern in wanted):
            return False
    return True
