"""Images that are imported into EC2: once, whatever is lost on the way; what fails leaves nothing."""

from __future__ import annotations

import struct
from datetime import timedelta
from typing import Any

import attrs
import pytest
from botocore.exceptions import ClientError

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.compute import Compute, DiskImage
from shiftable.compute.driver import ImageForm
from shiftable.errors import AlreadyExists, InvalidArgument, PermissionDenied, Timeout, Unavailable
from shiftable.testing.conformance.compute import small_fleet
from shiftable_aws import AwsProvider, AwsSettings
from shiftable_aws.double import AwsDouble

from .hostile import FAULTS, calls_of, is_

DELAY = timedelta(minutes=1)  # longer than anything that a busy computer takes between two calls
SOURCE = DiskImage(bucket="images", key="web.vmdk", form="vmdk")
GIB = 1024**3
CONTENTS: dict[ImageForm, bytes] = {
    "vmdk": b"KDMV" + struct.pack("<IIQ", 3, 0, 3 * GIB // 512).ljust(508, b"\0"),
    "vhd": bytes(512) + b"conectix".ljust(48, b"\0") + struct.pack(">Q", 3 * GIB).ljust(464, b"\0"),
    "raw": bytes(2048),
}


def body_of(code: str, message: str = "said") -> bytes:
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return f"<Response><Errors>{error}</Errors><RequestID>r1</RequestID></Response>".encode()


@pytest.fixture
def bucket(provider: AwsProvider) -> Bucket:
    made = BlobStore(provider.blob()).create(BucketSpec(name="images"))
    for form, content in CONTENTS.items():
        made.put(f"web.{form}", content)
    return made


@pytest.fixture
def compute(provider: AwsProvider, aws_double: AwsDouble, bucket: Bucket, vmimport: str) -> Compute:
    assert (bucket.name, vmimport) == ("images", "vmimport")
    aws_double.ec2.delay = aws_double.ec2.disks.delay = aws_double.ec2.imports.delay = DELAY
    return Compute(provider.compute(), sleep=aws_double.clock.advance)


@pytest.fixture
def elsewhere(hasty: AwsProvider, aws_double: AwsDouble) -> Compute:
    """Return the service as another process has it, which tries once."""
    return Compute(hasty.compute(), sleep=aws_double.clock.advance)


@pytest.fixture
def ec2(provider: AwsProvider) -> Any:
    return provider.session.client("ec2")


def held(double: AwsDouble) -> tuple[int, int]:
    """Count images and snapshots."""
    return len(double.ec2.images()), len(double.ec2.snapshots())


@pytest.mark.parametrize(("form", "gib"), [("vmdk", 3), ("vhd", 3), ("raw", 1)])
def test_an_image_says_what_it_is_for(aws_double: AwsDouble, compute: Compute, form: ImageForm, gib: int) -> None:
    image = compute.import_image("golden", attrs.evolve(SOURCE, key=f"web.{form}", form=form))
    assert ("golden", "x86_64", gib, True, True) == (image.name, image.arch, image.disk_gib, image.own, image.ready)
    (made,) = aws_double.ec2.images().values()
    assert ("legacy-bios", "hvm", True, "x86_64") == tuple(
        made[key] for key in ("BootMode", "VirtualizationType", "EnaSupport", "Architecture")
    )
    assert [] == list(compute.disk_snapshots())
    assert [] == list(compute.debris())
    (machine,) = compute.create(attrs.evolve(small_fleet("twin"), image="golden")).wait()
    assert "golden" == machine.image
    compute.delete("twin")
    compute.delete_image(image.id)
    assert (0, 0) == held(aws_double)


def test_an_image_of_arm_starts_by_uefi(aws_double: AwsDouble, compute: Compute) -> None:
    source = DiskImage(bucket="images", key="web.raw", form="raw", arch="arm64")
    assert "arm64" == compute.import_image("golden", source).arch
    (made,) = aws_double.ec2.images().values()
    assert ("uefi", "arm64") == (made["BootMode"], made["Architecture"])


# lost answers, lost processes


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize(
    "operation", ["DescribeImages", "DescribeImportSnapshotTasks", "ImportSnapshot", "CreateTags", "RegisterImage"]
)
def test_an_import_whose_answers_are_lost_makes_one_image(
    aws_double: AwsDouble, compute: Compute, operation: str, kind: Any
) -> None:
    fault = aws_double.inject(kind, match=is_(operation), times=2)
    assert compute.import_image("golden", SOURCE).ready
    assert (2, (1, 1), 1) == (fault.hits, held(aws_double), len(aws_double.ec2.import_tasks()))


@pytest.mark.parametrize("operation", ["ImportSnapshot", "CreateTags", "RegisterImage"])
@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_whoever_comes_after_a_process_that_died_goes_on(
    aws_double: AwsDouble, compute: Compute, elsewhere: Compute, operation: str, kind: Any
) -> None:
    aws_double.inject(kind, match=is_(operation))
    with pytest.raises(Unavailable):
        elsewhere.import_image("golden", SOURCE)
    assert compute.import_image("golden", SOURCE).ready
    assert ((1, 1), 1) == (held(aws_double), len(aws_double.ec2.import_tasks()))


def test_a_task_of_which_ec2_does_not_tell_yet_is_not_begun_twice(aws_double: AwsDouble, compute: Compute) -> None:
    aws_double.ec2.imports.unseen = timedelta(seconds=20)
    assert compute.import_image("golden", SOURCE).ready
    assert 1 == len(aws_double.ec2.import_tasks())
    assert 1 < len(calls_of(aws_double, "ImportSnapshot"))


def test_two_processes_at_once_make_one_image(aws_double: AwsDouble, compute: Compute, elsewhere: Compute) -> None:
    for service in (compute, elsewhere, compute):
        with pytest.raises(Timeout, match="image 'golden' to be imported"):
            service.import_image("golden", SOURCE, timeout=timedelta(0))
    assert elsewhere.import_image("golden", SOURCE).id == compute.import_image("golden", SOURCE).id
    assert ((1, 1), 1) == (held(aws_double), len(aws_double.ec2.import_tasks()))


# what fails


@pytest.mark.parametrize("form", ["vmdk", "vhd", "raw"])
def test_what_is_no_disk_is_said_and_leaves_nothing(
    aws_double: AwsDouble, compute: Compute, bucket: Bucket, form: ImageForm
) -> None:
    source = attrs.evolve(SOURCE, key="odd", form=form)
    bucket.put("odd", b"no disk")
    with pytest.raises(InvalidArgument, match=r"the import of 'odd' ended as deleted: ClientError: Disk validation"):
        compute.import_image("golden", source)
    assert ((0, 0), 1) == (held(aws_double), len(aws_double.ec2.import_tasks()))
    bucket.put("odd", CONTENTS[form])
    assert compute.import_image("golden", source).ready
    assert ((1, 1), 2) == (held(aws_double), len(aws_double.ec2.import_tasks()))


def test_an_import_that_failed_in_another_process_is_begun_anew(
    aws_double: AwsDouble, compute: Compute, elsewhere: Compute, bucket: Bucket
) -> None:
    bucket.put("web.vmdk", b"no disk")
    with pytest.raises(Timeout):
        elsewhere.import_image("golden", SOURCE, timeout=timedelta(0))
    aws_double.clock.advance(DELAY)
    bucket.put("web.vmdk", CONTENTS["vmdk"])
    assert compute.import_image("golden", SOURCE).ready


def test_a_task_that_somebody_cancels_ends_the_waiting(aws_double: AwsDouble, compute: Compute, ec2: Any) -> None:
    with pytest.raises(Timeout):
        compute.import_image("golden", SOURCE, timeout=timedelta(0))
    ec2.cancel_import_task(ImportTaskId=next(iter(aws_double.ec2.import_tasks())))
    with pytest.raises(InvalidArgument, match="somebody cancelled it"):
        compute.import_image("golden", SOURCE)
    assert (0, 0) == held(aws_double)
    assert compute.import_image("golden", SOURCE).ready


def test_a_snapshot_of_which_ec2_makes_no_image_is_deleted(aws_double: AwsDouble, compute: Compute) -> None:
    aws_double.inject("status", match=is_("RegisterImage"), status=400, body=body_of("InvalidParameterValue", "no"))
    with pytest.raises(InvalidArgument, match="no"):
        compute.import_image("golden", SOURCE)
    assert (0, 0) == held(aws_double)
    assert compute.import_image("golden", SOURCE).ready


def test_a_snapshot_that_somebody_deletes_before_there_is_an_image_ends_the_waiting(
    aws_double: AwsDouble, compute: Compute
) -> None:
    with pytest.raises(Timeout):
        compute.import_image("golden", SOURCE, timeout=timedelta(0))
    aws_double.clock.advance(DELAY)
    compute.sweep(older_than=timedelta(0))
    with pytest.raises(InvalidArgument, match="somebody deleted the snapshot"):
        compute.import_image("golden", SOURCE)
    assert compute.import_image("golden", SOURCE).ready


def test_what_may_not_be_registered_stays_until_it_may_or_is_swept(aws_double: AwsDouble, compute: Compute) -> None:
    aws_double.inject(
        "status", match=is_("RegisterImage"), status=403, times=2, body=body_of("UnauthorizedOperation", "no")
    )
    for _ in range(2):
        with pytest.raises(PermissionDenied):
            compute.import_image("golden", SOURCE)
    assert ((0, 1), 1) == (held(aws_double), len(aws_double.ec2.import_tasks()))
    assert [("imported snapshot", "golden")] == [(each.kind, each.name) for each in compute.debris()]
    assert () == compute.sweep(older_than=timedelta(hours=1))
    assert compute.import_image("golden", SOURCE).ready
    assert ([], (1, 1)) == (list(compute.debris()), held(aws_double))


def test_the_snapshot_of_a_process_that_died_is_swept(
    aws_double: AwsDouble, compute: Compute, elsewhere: Compute
) -> None:
    with pytest.raises(Timeout):
        elsewhere.import_image("golden", SOURCE, timeout=timedelta(0))
    assert [] == list(compute.debris())
    aws_double.clock.advance(DELAY)
    (swept,) = compute.sweep(older_than=timedelta(0))
    assert ("imported snapshot", "golden") == (swept.kind, swept.name)
    assert (0, 0) == held(aws_double)
    assert [] == list(compute.debris())


def test_names_of_others_are_kept(aws_double: AwsDouble, compute: Compute) -> None:
    compute.import_image("golden", attrs.evolve(SOURCE, version="1"))
    with pytest.raises(AlreadyExists, match="made of something else, ami-"):
        compute.import_image("golden", attrs.evolve(SOURCE, version="2"))
    assert ((1, 1), 1) == (held(aws_double), len(aws_double.ec2.import_tasks()))


@pytest.mark.parametrize("name", ["ab", "a*b", "größe", "x" * 129])
def test_a_name_that_ec2_does_not_take_is_refused_before_an_hour_is_lost(
    aws_double: AwsDouble, compute: Compute, name: str
) -> None:
    with pytest.raises(InvalidArgument, match="names of images"):
        compute.import_image(name, SOURCE)
    assert {} == aws_double.ec2.import_tasks()


def test_an_object_that_is_not_there_is_a_wrong_argument(aws_double: AwsDouble, compute: Compute) -> None:
    with pytest.raises(InvalidArgument, match="does not exist or cannot be read"):
        compute.import_image("golden", attrs.evolve(SOURCE, key="none.vmdk"))
    assert {} == aws_double.ec2.import_tasks()


def test_without_the_role_it_says_which_one_is_missing(provider: AwsProvider, bucket: Bucket) -> None:
    assert bucket.name
    with pytest.raises(InvalidArgument, match="The service role vmimport does not exist"):
        Compute(provider.compute()).import_image("golden", SOURCE)


# the double


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.usefixtures("compute")
def test_the_double_refuses_what_ec2_refuses(aws_double: AwsDouble, ec2: Any) -> None:
    held = {"S3Bucket": "images", "S3Key": "web.raw"}
    assert "InvalidParameter" == refused(ec2.import_snapshot, DiskContainer={"Format": "QCOW2", "UserBucket": held})
    disk = {"Format": "raw", "UserBucket": held}
    assert "InvalidParameter" == refused(ec2.import_snapshot, DiskContainer=disk, RoleName="other")
    first = ec2.import_snapshot(DiskContainer=disk, ClientToken="t")
    assert first["ImportTaskId"] == ec2.import_snapshot(DiskContainer=disk, ClientToken="t")["ImportTaskId"]
    other = {"Format": "raw", "UserBucket": {**held, "S3Key": "web.vhd"}}
    assert "IdempotentParameterMismatch" == refused(ec2.import_snapshot, DiskContainer=other, ClientToken="t")
    tagged = [{"Name": "tag:x", "Values": ["y"]}]
    assert "InvalidParameterValue" == refused(ec2.describe_import_snapshot_tasks, Filters=tagged)
    aws_double.clock.advance(DELAY)
    (task,) = ec2.describe_import_snapshot_tasks()["ImportSnapshotTasks"]
    assert "IncorrectState" == refused(ec2.cancel_import_task, ImportTaskId=task["ImportTaskId"])
    snapshot = task["SnapshotTaskDetail"]["SnapshotId"]
    mapping = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}
    register = {"Name": "golden", "Architecture": "x86_64", "BlockDeviceMappings": [mapping]}
    assert "InvalidBlockDeviceMapping" == refused(ec2.register_image, **register)
    register["RootDeviceName"] = "/dev/xvda"
    assert "InvalidParameterCombination" == refused(ec2.register_image, **{**register, "Architecture": "arm64"})
    assert "InvalidAMIName.Malformed" == refused(ec2.register_image, **{**register, "Name": "größe"})
    image = ec2.register_image(**register)["ImageId"]
    assert "InvalidAMIName.Duplicate" == refused(ec2.register_image, **register)
    assert "InvalidSnapshot.InUse" == refused(ec2.delete_snapshot, SnapshotId=snapshot)
    aws_double.clock.advance(DELAY)
    machine = {"ImageId": image, "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1}
    assert "InvalidParameterCombination" == refused(ec2.run_instances, **machine)  # it is not said to be HVM


@pytest.mark.usefixtures("compute")
def test_a_bucket_of_another_region_is_refused(aws_double: AwsDouble) -> None:
    there = AwsProvider(AwsSettings(**{**aws_double.config, "region": "us-east-1"}))
    disk: Any = {"Format": "raw", "UserBucket": {"S3Bucket": "images", "S3Key": "web.raw"}}
    assert "InvalidParameter" == refused(there.session.client("ec2").import_snapshot, DiskContainer=disk)
    there.close()
