"""Imports of disk images in the double of EC2: tasks that read S3, and images that are registered of snapshots."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from shiftable.testing.harness import Clock
from shiftable_aws import _strict_ec2_rules as rules
from shiftable_aws._strict_ec2_disks import fingerprint
from shiftable_aws._strict_ec2_state import Arguments, Asked, Data, Region, page
from shiftable_aws._strict_refused import Refused

__all__ = ["Imports"]

_FORMATS = {"RAW", "VHD", "VMDK"}
_LIMITS = (1, 1000)
_ROLE, _SERVICE = "vmimport", "vmie.amazonaws.com"  # VM Import/Export user guide, "Required service role"
_SECTOR, _GIB = 512, 1024**3


@attrs.define(eq=False)
class Imports:
    """Answers for tasks that import snapshots.

    Attributes:
        delay: how long a task takes.
        unseen: how long nobody is told of a new task.
    """

    _clock: Clock
    delay: timedelta = timedelta(0)
    unseen: timedelta = timedelta(0)

    def begin(self, region: Region, arguments: Arguments) -> Data:
        """ImportSnapshot."""
        token, what = arguments.get("ClientToken"), fingerprint(arguments)
        if token and (asked := region.asked.get(("import", token))) is not None:
            if asked.what != what:
                raise Refused("IdempotentParameterMismatch", "The request uses the same client token as another one.")
            return _told(region.imports[asked.made[0]])
        disk, role = arguments.get("DiskContainer", {}), arguments.get("RoleName", _ROLE)
        held = disk.get("UserBucket", {})
        if str(disk.get("Format", "")).upper() not in _FORMATS:
            raise Refused("InvalidParameter", f"The given disk format is not supported: {disk.get('Format')}")
        if not _may_read(role):
            text = f"The service role {role} does not exist or does not have sufficient permissions for the service to"
            raise Refused("InvalidParameter", f"{text} continue")
        bucket = _s3().buckets.get(held.get("S3Bucket"))
        if bucket is None or held.get("S3Key") not in bucket.keys:
            raise Refused("InvalidParameter", "The given S3 object does not exist or cannot be read")
        if bucket.region_name != region.name:
            raise Refused("InvalidParameter", "The given S3 object is not local to the region")
        made: Data = {
            "ImportTaskId": region.id("import-snap"),
            "Description": arguments.get("Description", ""),
            "Tags": rules.tags_for(arguments, "import-snapshot-task"),
            "SnapshotTaskDetail": {
                "Description": disk.get("Description", ""),
                "DiskImageSize": 0.0,
                "Format": str(disk["Format"]).upper(),
                "Progress": "3",
                "Status": "active",
                "StatusMessage": "pending",
                "UserBucket": {"S3Bucket": held["S3Bucket"], "S3Key": held["S3Key"]},
            },
            "seen": self._clock.now() + self.unseen,  # of this double alone; told to nobody
        }
        region.imports[made["ImportTaskId"]] = made
        if token:
            region.asked["import", token] = Asked(what, (made["ImportTaskId"],))
        region.later(self._clock.now() + self.delay, lambda: self._end(region, made))
        told = _told(made)
        region.pass_time(self._clock.now())
        return told

    def _end(self, region: Region, task: Data) -> None:
        detail = task["SnapshotTaskDetail"]
        if detail["Status"] != "active":
            return
        bucket = _s3().buckets.get(detail["UserBucket"]["S3Bucket"])
        held = bucket.keys.get(detail["UserBucket"]["S3Key"]) if bucket is not None else None
        size = _READERS[detail["Format"]](held.value) if held is not None else 0
        if size == 0:
            why = "Disk validation failed [Unsupported file format]" if held is not None else "Disk could not be read"
            detail |= {"Status": "deleted", "StatusMessage": f"ClientError: {why}"}
            return
        id_ = region.id("snap")
        region.snapshots[id_] = {
            "SnapshotId": id_,
            "VolumeId": "vol-ffffffff",
            "VolumeSize": -(-size // _GIB),
            "State": "completed",
            "StartTime": self._clock.now(),
            "OwnerId": DEFAULT_ACCOUNT_ID,
            "Description": f"Created by AWS-VMImport service for {task['ImportTaskId']}",
            "Encrypted": False,
            "Tags": [],
        }
        detail |= {"Status": "completed", "SnapshotId": id_, "DiskImageSize": float(size), "Progress": "100"}
        del detail["StatusMessage"]

    def describe(self, region: Region, arguments: Arguments) -> Data:
        """DescribeImportSnapshotTasks."""
        ids, filters = arguments.get("ImportTaskIds"), arguments.get("Filters", ())
        for given in filters:
            if given["Name"] != "task-state":
                raise Refused("InvalidParameterValue", f"The filter '{given['Name']}' is invalid")
        for id_ in ids or ():
            if id_ not in region.imports:
                raise Refused("InvalidConversionTaskId.Malformed", f"The import task {id_} does not exist")
        found = [
            _told(task)
            for id_, task in region.imports.items()
            if (ids is None or id_ in ids)
            and task["seen"] <= self._clock.now()
            and rules.fits({"task-state": [task["SnapshotTaskDetail"]["Status"]]}, (), filters)
        ]
        shown, more = page(found, arguments, _LIMITS, 1000)
        return {"ImportSnapshotTasks": shown, **more}

    def cancel(self, region: Region, arguments: Arguments) -> Data:
        """CancelImportTask."""
        task = region.imports.get(arguments.get("ImportTaskId", ""))
        if task is None or task["SnapshotTaskDetail"]["Status"] != "active":
            raise Refused("IncorrectState", "The import task is not active")
        task["SnapshotTaskDetail"] |= {"Status": "deleted", "StatusMessage": arguments.get("CancelReason", "")}
        return {"ImportTaskId": task["ImportTaskId"], "PreviousState": "active", "State": "deleting"}


def _told(task: Data) -> Data:
    """Return a task as it is told."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in task.items() if key != "seen"}


def _may_read(role: str) -> bool:
    """Tell whether there is such a role, which the service may assume."""
    roles = get_backend("iam")[DEFAULT_ACCOUNT_ID]["aws"].roles.values()
    found = next((each for each in roles if each.name == role), None)
    return found is not None and _SERVICE in json.dumps(json.loads(found.assume_role_policy_document))


def _s3() -> Any:  # noqa: ANN401  moto's backends have no types
    return get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]


def _raw(data: bytes) -> int:
    return 0 if len(data) % _SECTOR else len(data)


def _vhd(data: bytes) -> int:
    footer = data[-_SECTOR:]
    return int.from_bytes(footer[48:56], "big") if footer.startswith(b"conectix") else 0


def _vmdk(data: bytes) -> int:
    return int.from_bytes(data[12:20], "little") * _SECTOR if data.startswith(b"KDMV") else 0


_READERS: dict[str, Callable[[bytes], int]] = {"RAW": _raw, "VHD": _vhd, "VMDK": _vmdk}
