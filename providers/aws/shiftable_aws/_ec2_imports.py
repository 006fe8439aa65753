"""Images that are imported into EC2: a snapshot is imported by a task, then an image is registered of it.

EC2 gives the tags of a task to no snapshot, and has no token for an image. So the task has the token in a tag, the
snapshot gets it when the task is done, and the image is found by its name, which is there once.
"""

from __future__ import annotations

import itertools
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from botocore.exceptions import ClientError

from shiftable.compute.driver import IMPORT_LABEL, Debris, DiskImage, Image, ImageForm
from shiftable.errors import AlreadyExists, InvalidArgument
from shiftable_aws._ec2_images import ami
from shiftable_aws._ec2_told import NAME, SOURCE
from shiftable_aws._errors import classify_compute
from shiftable_aws._rds_groups import code_of, failure, tags_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

__all__ = ["DEBRIS", "FORMATS", "Imports", "left"]

DEBRIS = "imported snapshot"
FORMATS: Mapping[ImageForm, str] = {"raw": "RAW", "vhd": "VHD", "vmdk": "VMDK"}
_NAME_RULE = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}")  # API reference, RegisterImage: Name
_ENDED = {"deleting", "deleted"}  # what failed and what was cancelled are the same state
_DEVICE = "/dev/xvda"
_BOOT_MODES = {"bios": "legacy-bios", "uefi": "uefi"}
_FINAL = (AlreadyExists, InvalidArgument)


@attrs.define(eq=False)
class Imports:
    """What this process waits for, so that it says once how that ended."""

    _watched: dict[str, str] = attrs.field(factory=dict, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def go_on(self, client: EC2Client, name: str, source: DiskImage, token: str) -> Image:
        """Take the step that is due, and return the image as it is then."""
        if not _NAME_RULE.fullmatch(name):
            text = "names of images are 3 to 128 letters, digits, spaces and ()[]./-'@_"
            raise failure("InvalidAMIName.Malformed", text)
        made = _named(client, name, token)
        if made is not None:
            self._watch(token, None)
            return made
        tasks = [task for task in _tasks(client) if tags_of(task.get("Tags")).get(IMPORT_LABEL) == token]
        watched = self._watched.get(token)
        done = {_detail(task).get("SnapshotId", ""): task for task in tasks if _status(task) == "completed"}
        for snapshot in _there(client, done.keys() - {""}):
            self._watch(token, None)
            return _registered(client, name, source, token, snapshot)
        going = next((task for task in tasks if _status(task) not in {"completed", *_ENDED}), None)
        if going is None:
            over = next((task for task in tasks if task["ImportTaskId"] == watched), None)
            if over is not None:
                self._watch(token, None)
                raise failure("InvalidParameterValue", _why(over, source))
            going = _begun(client, name, source, token, len(tasks))
        self._watch(token, str(going["ImportTaskId"]))
        return Image(id=str(going["ImportTaskId"]), name=name, arch=source.arch, own=True, ready=False)

    def _watch(self, token: str, task: str | None) -> None:
        with self._lock:
            self._watched.pop(token, None)
            if task is not None:
                self._watched[token] = task


def left(client: EC2Client) -> Iterator[Debris]:
    """Yield the snapshots of imports of which nobody registered an image."""
    tasks = [task for task in _tasks(client) if IMPORT_LABEL in tags_of(task.get("Tags"))]
    done = {_detail(task).get("SnapshotId", ""): task for task in tasks if _status(task) == "completed"}
    found = _there(client, done.keys() - {""})
    used = _used(client) if found else set()
    for id_, snapshot in found.items():
        if id_ not in used:
            name = tags_of(done[id_].get("Tags")).get(NAME, id_)
            yield Debris(id=id_, kind=DEBRIS, name=name, created=snapshot.get("StartTime"))


def _used(client: EC2Client) -> set[str]:
    """Return the snapshots of the account's images."""
    pages = client.get_paginator("describe_images").paginate(Owners=["self"])
    disks = (disk for page in pages for image in page["Images"] for disk in image.get("BlockDeviceMappings", ()))
    return {str(disk.get("Ebs", {}).get("SnapshotId")) for disk in disks}


def _named(client: EC2Client, name: str, token: str) -> Image | None:
    """Return the image of that name, if this token has made it."""
    filters: Any = [{"Name": "name", "Values": [name]}]
    for entry in client.describe_images(Owners=["self"], Filters=filters)["Images"]:
        if tags_of(entry.get("Tags")).get(IMPORT_LABEL) != token:
            text = f"there is an image {name!r} that was made of something else, {entry['ImageId']}"
            raise failure("InvalidAMIName.Duplicate", text)
        return ami(entry).image
    return None


def _tasks(client: EC2Client) -> Iterator[Any]:
    """Yield all tasks that EC2 still tells of; there is no filter for tags."""
    for page in client.get_paginator("describe_import_snapshot_tasks").paginate():
        yield from page["ImportSnapshotTasks"]


def _detail(task: Any) -> Any:  # noqa: ANN401
    return task.get("SnapshotTaskDetail", {})


def _status(task: Any) -> str:  # noqa: ANN401
    return str(_detail(task).get("Status", "active"))


def _why(task: Any, source: DiskImage) -> str:  # noqa: ANN401
    status, message = _status(task), _detail(task).get("StatusMessage")
    if status == "completed":
        return f"somebody deleted the snapshot of the import of {source.key!r} before an image was made of it"
    return f"the import of {source.key!r} ended as {status}: {message or 'somebody cancelled it'}"


def _there(client: EC2Client, ids: set[str]) -> dict[str, Any]:
    """Return the snapshots that are there, of those."""
    if not ids:
        return {}
    filters: Any = [{"Name": "snapshot-id", "Values": sorted(ids)}]
    pages = client.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters)
    return {str(snapshot["SnapshotId"]): snapshot for page in pages for snapshot in page["Snapshots"]}


def _begun(client: EC2Client, name: str, source: DiskImage, token: str, ended: int) -> Any:  # noqa: ANN401
    """Begin a task; each attempt has a token of its own, as EC2 answers one that failed with what failed."""
    tags: Any = [{"Key": NAME, "Value": name}, {"Key": IMPORT_LABEL, "Value": token}]
    disk: Any = {
        "Format": FORMATS[source.form],
        "UserBucket": {"S3Bucket": source.bucket, "S3Key": source.key},
        "Description": name,
    }
    for attempt in itertools.count(ended):
        task: Any = client.import_snapshot(
            ClientToken=str(uuid.uuid5(uuid.UUID(token), str(attempt))),
            Description=name,
            DiskContainer=disk,
            TagSpecifications=[{"ResourceType": "import-snapshot-task", "Tags": tags}],
        )
        if _status(task) not in {"completed", *_ENDED}:
            return task
    raise AssertionError  # pragma: no cover  the count has no end


def _registered(client: EC2Client, name: str, source: DiskImage, token: str, snapshot: str) -> Image:
    """Register an image of a snapshot. What EC2 makes no image of is deleted."""
    tags: Any = [{"Key": NAME, "Value": name}, {"Key": SOURCE, "Value": source.key[:256]}]
    tags.append({"Key": IMPORT_LABEL, "Value": token})
    client.create_tags(Resources=[snapshot], Tags=tags)
    how: Any = {"Architecture": source.arch, "BootMode": _BOOT_MODES[source.firmware]}
    ebs: Any = {"SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": True}
    try:
        made = client.register_image(
            Name=name,
            RootDeviceName=_DEVICE,
            BlockDeviceMappings=[{"DeviceName": _DEVICE, "Ebs": ebs}],
            VirtualizationType="hvm",
            EnaSupport=True,
            TagSpecifications=[{"ResourceType": "image", "Tags": tags}],
            **how,
        )
    except ClientError as exc:
        found = _named(client, name, token) if code_of(exc) == "InvalidAMIName.Duplicate" else None
        if found is not None:  # the first attempt did it
            return found
        fault = classify_compute(exc)
        if fault is not None and issubclass(fault.error, _FINAL):
            client.delete_snapshot(SnapshotId=snapshot)
        raise
    return Image(id=made["ImageId"], name=name, arch=source.arch, own=True, ready=False)
