"""Images that are imported into Compute Engine: once, whatever is lost on the way; what fails leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import attrs
import pytest

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.compute import Compute, DiskImage
from shiftable.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Timeout,
    Unavailable,
)
from shiftable.testing.harness import Call, Kind
from shiftable_gcp import GcpProvider
from shiftable_gcp.double import GcpDouble

from .archives import GIB, archive
from .wire import Ask, Json, Refused, asking

pytestmark = pytest.mark.usefixtures("short_waits")

SOURCE = DiskImage(bucket="images", key="web.tar.gz", form="gce")
URL = "https://storage.googleapis.com/images/web.tar.gz"


@pytest.fixture
def bucket(provider: GcpProvider) -> Bucket:
    made = BlobStore(provider.blob()).create(BucketSpec(name="images"))
    made.put("web.tar.gz", archive(size=3 * GIB))
    return made


@pytest.fixture
def compute(provider: GcpProvider, bucket: Bucket) -> Compute:
    assert bucket.name == SOURCE.bucket
    return Compute(provider.compute(), sleep=lambda _: None)


@pytest.fixture
def elsewhere(another: GcpProvider) -> Compute:
    """Return the service as another process has it."""
    return Compute(another.compute(), sleep=lambda _: None)


@pytest.fixture
def impatient(hasty: GcpProvider) -> Compute:
    """Return the service, to somebody who gives up soon."""
    return Compute(hasty.compute(), sleep=lambda _: None)


def of(operation: str) -> Callable[[Call], bool]:
    return lambda call: call.operation == f"compute.{operation}"


def inserted(double: GcpDouble) -> int:
    return sum(
        1 for each in double.compute.operations.values() if (each.kind, "/images/" in each.target) == ("insert", True)
    )


def told(double: GcpDouble) -> Json:
    (found,) = double.compute.of("images").values()
    return found


def test_an_image_says_what_it_is_for(gcp_double: GcpDouble, compute: Compute) -> None:
    image = compute.import_image("golden", SOURCE)
    assert ("golden", "x86_64", 3, True, True) == (image.name, image.arch, image.disk_gib, image.own, image.ready)
    found = told(gcp_double)
    assert ("X86_64", URL) == (found["architecture"], found["rawDisk"]["source"])
    assert ["VIRTIO_SCSI_MULTIQUEUE", "GVNIC"] == [each["type"] for each in found["guestOsFeatures"]]
    compute.delete_image(image.id)
    compute.import_image("golden", attrs.evolve(SOURCE, firmware="uefi"))
    assert {"type": "UEFI_COMPATIBLE"} in told(gcp_double)["guestOsFeatures"]


def test_an_image_of_arm_starts_by_uefi(gcp_double: GcpDouble, compute: Compute) -> None:
    source = DiskImage(bucket="images", key="web.tar.gz", form="gce", arch="arm64")
    assert "arm64" == compute.import_image("golden", source).arch
    assert "ARM64" == told(gcp_double)["architecture"]
    assert {"type": "UEFI_COMPATIBLE"} in told(gcp_double)["guestOsFeatures"]


# lost answers, lost processes


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("polls", [0, 5])
def test_an_import_that_was_in_doubt_makes_one_image(
    gcp_double: GcpDouble, compute: Compute, kind: Kind, polls: int
) -> None:
    gcp_double.compute.polls = polls
    gcp_double.inject(kind, match=of("images.insert"), times=2)
    assert compute.import_image("golden", SOURCE).ready
    assert (["golden"], 1) == (list(gcp_double.compute.of("images")), inserted(gcp_double))


def test_an_import_whose_process_died_is_gone_on_with_by_the_next_one(
    gcp_double: GcpDouble, impatient: Compute, compute: Compute, elsewhere: Compute
) -> None:
    gcp_double.compute.polls = 30
    gcp_double.inject("drop_after", match=of("images.insert"), times=None)
    with pytest.raises(Unavailable):
        impatient.import_image("golden", SOURCE)
    with pytest.raises(Timeout, match="image 'golden' to be imported"):
        compute.import_image("golden", SOURCE, timeout=timedelta(0))
    assert elsewhere.import_image("golden", SOURCE).ready
    assert 1 == inserted(gcp_double)


def test_two_processes_at_once_make_one_image(gcp_double: GcpDouble, compute: Compute, elsewhere: Compute) -> None:
    """The second one looks before the first one has begun."""
    image = elsewhere.import_image("golden", SOURCE)
    gcp_double.inject("status", match=of("images.get"), status=404, times=2)
    assert image.id == compute.import_image("golden", SOURCE).id
    with pytest.raises(AlreadyExists, match="made of something else"):
        compute.import_image("golden", attrs.evolve(SOURCE, version="2"))
    assert 1 == inserted(gcp_double)


# what fails


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive", "not a valid image"),
        (archive()[:40], "not a valid image"),
        (archive("image.raw"), "should be named 'disk.raw'"),
        (archive(count=2), "not a valid image"),
        (archive(size=GIB + 512), "multiple of 1 GB"),
        (archive(magic=b"ustar\x0000"), "GNU and OLDGNU"),
    ],
)
@pytest.mark.parametrize("polls", [0, 3])
def test_what_is_no_disk_is_said_and_leaves_nothing(
    gcp_double: GcpDouble, compute: Compute, bucket: Bucket, content: bytes, said: str, polls: int
) -> None:
    gcp_double.compute.polls = polls
    bucket.put("web.tar.gz", content)
    with pytest.raises(InvalidArgument, match=said):
        compute.import_image("golden", SOURCE)
    assert {} == gcp_double.compute.of("images")
    bucket.put("web.tar.gz", archive())
    assert compute.import_image("golden", SOURCE).ready


@pytest.mark.parametrize("leaves", ["nothing", "image"])
def test_an_import_that_fails_says_why_once_and_is_begun_anew(
    gcp_double: GcpDouble, compute: Compute, leaves: str
) -> None:
    gcp_double.compute.polls = 3
    gcp_double.compute.fail_next("images.insert", "QUOTA_EXCEEDED", "no more of these", leaves=leaves)
    with pytest.raises(QuotaExceeded, match="no more of these"):
        compute.import_image("golden", SOURCE)
    assert {} == gcp_double.compute.of("images")
    assert compute.import_image("golden", SOURCE).ready


def test_a_failed_image_of_a_process_that_died_is_cleared_away(
    gcp_double: GcpDouble, compute: Compute, elsewhere: Compute
) -> None:
    gcp_double.compute.polls = 3
    gcp_double.compute.fail_next("images.insert", "QUOTA_EXCEEDED", "no more of these", leaves="image")
    with pytest.raises(Timeout):
        compute.import_image("golden", SOURCE, timeout=timedelta(0))
    with pytest.raises(OperationError, match="does not say why"):
        elsewhere.import_image("golden", SOURCE)
    assert {} == gcp_double.compute.of("images")
    assert elsewhere.import_image("golden", SOURCE).ready


def test_an_image_that_somebody_deletes_meanwhile_is_missing(
    gcp_double: GcpDouble, compute: Compute, elsewhere: Compute
) -> None:
    gcp_double.compute.polls = 3
    with pytest.raises(Timeout):
        compute.import_image("golden", SOURCE, timeout=timedelta(0))
    image = elsewhere.import_image("golden", SOURCE)
    elsewhere.delete_image(image.id)
    with pytest.raises(NotFound, match="somebody deleted it"):
        compute.import_image("golden", SOURCE)
    assert compute.import_image("golden", SOURCE).ready


def test_an_object_that_is_not_there_is_a_wrong_argument(gcp_double: GcpDouble, compute: Compute) -> None:
    with pytest.raises(InvalidArgument, match=r"image is to be made of: .*storage.googleapis.com/images/none.tar.gz"):
        compute.import_image("golden", attrs.evolve(SOURCE, key="none.tar.gz"))
    assert {} == gcp_double.compute.of("images")


def test_an_image_of_somebody_else_s_keeps_its_name(gcp_double: GcpDouble, compute: Compute) -> None:
    compute.import_image("golden", attrs.evolve(SOURCE, version="1"))
    with pytest.raises(AlreadyExists, match="made of something else"):
        compute.import_image("golden", attrs.evolve(SOURCE, version="2"))
    assert 1 == inserted(gcp_double)


def test_what_is_not_permitted_says_so(gcp_double: GcpDouble, compute: Compute) -> None:
    gcp_double.inject(
        "status", match=of("images.insert"), status=403, body=b'{"error": {"code": 403, "message": "no"}}'
    )
    with pytest.raises(PermissionDenied):
        compute.import_image("golden", SOURCE)
    assert {} == gcp_double.compute.of("images")


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("Golden", "web.tar.gz", "lower-case"),
        ("golden/x", "web.tar.gz", "lower-case"),
        ("g" * 64, "web.tar.gz", "at most 63"),
        ("golden", "web.tgz", r"end in \.tar\.gz"),
        ("golden", "web 1.tar.gz", "letters, digits"),
        ("golden", "a?b.tar.gz", "letters, digits"),
    ],
)
def test_names_that_google_does_not_take_are_refused_before_anything_is_sent(
    gcp_double: GcpDouble, compute: Compute, name: str, key: str, said: str
) -> None:
    before = len(gcp_double.calls)
    with pytest.raises(InvalidArgument, match=said):
        compute.import_image(name, attrs.evolve(SOURCE, key=key))
    assert before == len(gcp_double.calls)


# the double


@pytest.fixture
def ask(gcp_double: GcpDouble) -> Ask:
    return asking(f"{gcp_double.url}/compute/v1/projects/{gcp_double.project}")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"rawDisk": {"source": "images/web.tar.gz"}}, 400, "invalid"),
        ({"rawDisk": {"source": "https://storage.googleapis.com/images"}}, 400, "invalid"),
        ({"rawDisk": {"source": "https://storage.googleapis.com/images/web.raw"}}, 400, "invalid"),
        ({"rawDisk": {"source": "https://storage.googleapis.com/others/web.tar.gz"}}, 404, "notFound"),
        ({"rawDisk": {"source": URL}, "sourceDisk": "zones/europe-west3-a/disks/x"}, 400, "invalid"),
        ({"rawDisk": {"source": URL}, "labels": {"Team": "x"}}, 400, "invalid"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_the_double_refuses_what_google_refuses(ask: Ask, body: Json, status: int, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        ask("POST", "/global/images", {"name": "golden"} | body)
    assert (status, reason) == caught.value.args[:2]
