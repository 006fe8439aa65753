"""Images that are imported into Azure: once, whatever is lost on the way; what fails leaves nothing."""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from azure.core.credentials import AccessToken
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.compute import Compute, DiskImage
from shiftable.compute._rules import import_token
from shiftable.config import Credential
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.harness import Call, Kind, Request, Response
from shiftable_azure import AzureComputeSettings, AzureProvider, AzureSettings, _machine_imports
from shiftable_azure._arm import ArmRefusal, ArmSession
from shiftable_azure._session import Session
from shiftable_azure.compute import AzureComputeDriver
from shiftable_azure.double import AzureDouble, ToLoopback

from .disks import MIB, SIZE, footer, vhd

Make = Callable[..., AzureComputeDriver]
SOURCE = DiskImage(bucket="images", key="web.vhd", form="vhd")
WRITES = 6  # of that blob
NOW = timedelta(0)
VERSION = "Microsoft.Compute/galleries/images/versions/write"


@pytest.fixture
def bucket(azure_double: AzureDouble, provider: AzureProvider) -> Bucket:
    made = BlobStore(provider.blob()).create(BucketSpec(name="images"))
    azure_double.service.put_raw("images", "web.vhd", vhd())
    return made


@pytest.fixture
def service(azure_double: AzureDouble, make_compute: Make, bucket: Bucket) -> Callable[..., Compute]:
    """Return what makes the service as another process has it."""
    assert bucket.name == SOURCE.bucket
    return lambda **changed: Compute(make_compute(**changed), sleep=azure_double.clock.advance)


@pytest.fixture
def compute(service: Callable[..., Compute]) -> Compute:
    return service()


@pytest.fixture
def hasty(service: Callable[..., Compute]) -> Compute:
    """Return the service of a process that tries everything once."""
    return service(max_attempts=1)


@pytest.fixture
def write_by_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each step write once."""
    monkeypatch.setattr(_machine_imports, "_STEP", 0.0)


def is_(*operations: str) -> Callable[[Call], bool]:
    return lambda call: call.operation in operations


def held(double: AzureDouble) -> tuple[int, int, int, int]:
    """Count galleries, images, versions and disks, behind the protocol."""
    machines = double.machines
    machines.endings.settle()
    versions = sum(len(one.properties.get("versions", {})) for one in machines.definitions.values())
    return len(machines.galleries), len(machines.definitions), versions, len(machines.disks)


NOTHING, IMPORTED, A_DISK = (0, 0, 0, 0), (1, 1, 1, 0), (0, 0, 0, 1)


def told(double: AzureDouble) -> Any:
    """Return an image, behind the protocol."""
    (found,) = double.machines.definitions.values()
    return found


def content(double: AzureDouble) -> bytes:
    """Return what is in an image, as if it were uploaded."""
    (version,) = told(double).properties["versions"].values()
    assert "Succeeded" == version.properties["provisioningState"]
    found: bytes = version.properties["content"]
    return found


def counted(double: AzureDouble, since: int = 0) -> Counter[str]:
    return Counter(call.operation for call in double.calls[since:])


def begun(service: Compute, source: DiskImage = SOURCE) -> None:
    """Take two steps of an import, and give up."""
    with pytest.raises(Timeout, match="image 'golden' to be imported"):
        service.import_image("golden", source, timeout=NOW)


@pytest.fixture
def ask(compute_driver: AzureComputeDriver) -> Callable[..., Any]:
    """Return what asks for a disk of that name."""
    arm = compute_driver._session

    def asking(method: str, place: str, body: Any = None) -> Any:
        path = f"{arm.group}/providers/Microsoft.Compute/disks/{place}"
        answer = arm.call(method, path, "2025-01-02", body=body)
        return arm.result(answer, "2025-01-02", what="it", timeout=60.0) if method == "POST" else answer.body

    return asking


def refused(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ArmRefusal) as caught:
        call(*arguments)
    return str(getattr(caught.value.error, "code", ""))


def until_copied(azure_double: AzureDouble, compute: Compute) -> None:
    """Take steps until Azure copies the disk to the gallery."""
    azure_double.machines.endings.delay = timedelta(seconds=40)
    while not counted(azure_double)["GalleryImageVersions_CreateOrUpdate"]:
        begun(compute)
        azure_double.clock.advance(5)


def test_an_image_says_what_it_is_for(azure_double: AzureDouble, compute: Compute) -> None:
    image = compute.import_image("golden", SOURCE)
    assert ("golden", "x86_64", 1, True, True) == (image.name, image.arch, image.disk_gib, image.own, image.ready)
    said = told(azure_double).properties
    assert ("V1", "x64", []) == (said["hyperVGeneration"], said["architecture"], said["features"])
    assert (vhd(), IMPORTED) == (content(azure_double), held(azure_double))
    assert ([], []) == (list(compute.debris()), list(compute.disks()))
    compute.delete_image(image.id)
    assert NOTHING == held(azure_double)


@pytest.mark.parametrize(("arch", "capable"), [("x86_64", None), ("arm64", {"architecture": "Arm64"})])
def test_an_image_that_starts_by_uefi_is_of_the_second_generation(
    azure_double: AzureDouble, compute: Compute, arch: Any, capable: Any
) -> None:
    source = attrs.evolve(SOURCE, arch=arch, firmware="uefi")
    begun(compute, source)
    (disk,) = azure_double.machines.disks.values()
    assert ("V2", capable) == (disk.properties["hyperVGeneration"], disk.properties.get("supportedCapabilities"))
    image = compute.import_image("golden", source)
    assert (arch, "V2") == (image.arch, told(azure_double).properties["hyperVGeneration"])
    (machine,) = compute.create(attrs.evolve(small_fleet("twin"), image=image.id, arch=arch)).wait()
    assert (image.id, arch) == (machine.image, machine.arch)


def test_machines_of_an_imported_image_are_such_as_can_start_from_it(
    azure_double: AzureDouble, compute: Compute
) -> None:
    """By BIOS there is neither trusted launch nor a size of the second generation alone."""
    azure_double.service.put_raw("images", "large.vhd", vhd(3 * 1024 * MIB // 64))
    image = compute.import_image("golden", attrs.evolve(SOURCE, key="large.vhd"))
    compute.create(attrs.evolve(small_fleet("twin"), image=image.id, disk_gib=21)).wait()
    made = azure_double.machines.machine("twin-0")
    assert "securityType" not in made.properties["securityProfile"]
    assert 21 == made.properties["storageProfile"]["osDisk"]["diskSizeGB"]
    large = attrs.evolve(small_fleet("large"), cpus=128, memory_gib=300)
    assert "Standard_D128s_v6" == compute.choose(large).size.name
    with pytest.raises(InvalidArgument):
        compute.choose(attrs.evolve(large, image=image.id))
    with pytest.raises(InvalidArgument, match="cannot boot Hypervisor Generation '1'"):
        compute.create(attrs.evolve(large, image=image.id, native=AzureComputeSettings(vm_size="Standard_D128s_v6")))


def test_an_image_of_such_a_machine_is_like_it(azure_double: AzureDouble, compute: Compute) -> None:
    image = compute.import_image("golden", SOURCE)
    compute.create(attrs.evolve(small_fleet("twin"), image=image.id)).wait()
    copy = compute.fleet("twin").machine("twin-0").snapshot("copy")
    said = azure_double.machines.definitions["shiftable-double", "shiftable", "copy"].properties
    assert ("V1", []) == (said["hyperVGeneration"], said["features"])
    (machine,) = compute.create(attrs.evolve(small_fleet("third"), image=copy.id)).wait()
    assert copy.id == machine.image


def test_what_it_takes(azure_double: AzureDouble, compute: Compute) -> None:
    before = len(azure_double.calls)
    compute.import_image("golden", SOURCE)
    calls = counted(azure_double, before)
    once = ("Disks_CreateOrUpdate", "Disks_GrantAccess", "Disks_RevokeAccess", "GalleryImages_CreateOrUpdate")
    once += ("GalleryImageVersions_CreateOrUpdate", "Disks_Delete")
    assert {1} == {calls[each] for each in once}
    assert (WRITES, 0) == (calls["PutPageFromURL"], calls["GetPageRanges"])


# lost answers, lost processes

OPERATIONS = (
    "GetBlob", "Disks_Get", "Disks_CreateOrUpdate", "Disks_GrantAccess", "PutPageFromURL", "Disks_RevokeAccess",
    "Galleries_CreateOrUpdate", "GalleryImages_Get", "GalleryImages_CreateOrUpdate", "GalleryImageVersions_Get",
    "GalleryImageVersions_CreateOrUpdate", "Disks_Delete", "GetOperationStatus",
)  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("kind", "seconds"), [("drop_before", 0), ("drop_after", 40), ("truncate", 0)])
def test_an_import_whose_answers_are_lost_makes_one_image(
    azure_double: AzureDouble, compute: Compute, operation: str, kind: Kind, seconds: int
) -> None:
    azure_double.machines.endings.delay = timedelta(seconds=seconds)
    fault = azure_double.inject(kind, match=is_(operation), times=2)
    assert compute.import_image("golden", SOURCE).ready
    assert (2, IMPORTED, vhd()) == (fault.hits, held(azure_double), content(azure_double))


class Nth:
    """Matches one call, counted from when it was made, until it is told to stop."""

    def __init__(self, number: int) -> None:
        self.left: int | None = number

    def __call__(self, _: Call) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left == -1


@pytest.mark.parametrize(("kind", "seconds", "stride"), [("drop_before", 10, 4), ("drop_after", 0, 1)])
def test_whoever_comes_after_a_process_that_died_goes_on(
    azure_double: AzureDouble, service: Callable[..., Compute], kind: Kind, seconds: int, stride: int
) -> None:
    """It dies at each call in turn, or at some of many."""
    azure_double.machines.endings.delay = timedelta(seconds=seconds)
    elsewhere, died = service(), 0
    while True:
        match = Nth(died)
        fault = azure_double.inject(kind, match=match)
        try:
            image = service(max_attempts=1).import_image("golden", SOURCE)
        except (Unavailable, Timeout):
            match.left = None
            died += stride
            image = service().import_image("golden", SOURCE)
        match.left = None
        assert (True, IMPORTED, vhd()) == (image.ready, held(azure_double), content(azure_double))
        elsewhere.delete_image(image.id)
        assert NOTHING == held(azure_double)
        azure_double.clock.reset()  # signatures of the storage account are of this time
        if not fault.hits:
            break
    assert died > 25


def test_a_disk_that_is_just_being_made_is_waited_for(
    azure_double: AzureDouble, hasty: Compute, compute: Compute
) -> None:
    azure_double.machines.endings.delay = timedelta(seconds=40)
    azure_double.inject("drop_after", match=is_("Disks_CreateOrUpdate"))
    with pytest.raises(Unavailable):
        hasty.import_image("golden", SOURCE)
    assert compute.import_image("golden", SOURCE).ready
    assert (IMPORTED, 1) == (held(azure_double), counted(azure_double)["Disks_CreateOrUpdate"])


@pytest.mark.usefixtures("write_by_write")
def test_what_is_written_is_not_written_again(azure_double: AzureDouble, service: Callable[..., Compute]) -> None:
    azure_double.machines.uploads.page_size = 1
    for written in (1, 3, 5):
        begun(service())
        assert written == counted(azure_double)["PutPageFromURL"]
    assert service().import_image("golden", SOURCE).ready
    assert (WRITES, vhd()) == (counted(azure_double)["PutPageFromURL"], content(azure_double))


@pytest.mark.usefixtures("write_by_write")
@pytest.mark.parametrize(("field", "value"), [("sparse", True), ("tells", False)])
def test_what_azure_does_not_tell_is_written_again(
    azure_double: AzureDouble, service: Callable[..., Compute], field: str, value: Any
) -> None:
    setattr(azure_double.machines.uploads, field, value)
    for _ in range(2):
        begun(service())
    assert service().import_image("golden", SOURCE).ready
    assert vhd() == content(azure_double)
    assert counted(azure_double)["PutPageFromURL"] > WRITES


def test_two_processes_at_once_make_one_image(
    azure_double: AzureDouble, service: Callable[..., Compute], write_by_write: None
) -> None:
    assert write_by_write is None
    first, second = service(), service()
    for each in (first, second, first, second):
        begun(each)
    assert second.import_image("golden", SOURCE).id == first.import_image("golden", SOURCE).id
    assert (IMPORTED, vhd()) == (held(azure_double), content(azure_double))


def test_threads_of_one_process_make_one_image(azure_double: AzureDouble, compute: Compute) -> None:
    azure_double.inject("latency", match=is_("PutPageFromURL"), seconds=0.05, times=None)
    begun(compute)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: compute.import_image("golden", SOURCE), range(4)))
    assert 1 == len({image.id for image in found})
    assert (IMPORTED, vhd(), WRITES) == (
        held(azure_double),
        content(azure_double),
        counted(azure_double)["PutPageFromURL"],
    )


def test_each_step_writes_for_a_while(azure_double: AzureDouble, compute: Compute) -> None:
    compute.unwrap(AzureComputeDriver)._session.clock = itertools.count(0.0, 20.0).__next__
    begun(compute)
    assert 3 == counted(azure_double)["PutPageFromURL"]


def test_throttling_is_waited_for(azure_double: AzureDouble, compute: Compute) -> None:
    headers = [("Retry-After", "0")]
    body = b"<?xml version='1.0'?><Error><Code>ServerBusy</Code><Message>busy</Message></Error>"
    busy = [*headers, ("x-ms-error-code", "ServerBusy")]
    azure_double.inject("status", match=is_("PutPageFromURL"), status=503, headers=busy, body=body, times=2)
    azure_double.inject("status", match=is_("Disks_GrantAccess"), status=429, headers=headers, times=2)
    azure_double.inject("status", match=is_("GalleryImageVersions_CreateOrUpdate"), status=429, headers=headers)
    assert compute.import_image("golden", SOURCE).ready
    assert IMPORTED == held(azure_double)


@pytest.mark.usefixtures("write_by_write")
def test_a_signature_that_is_over_is_asked_for_again(
    azure_double: AzureDouble, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_machine_imports, "_ACCESS", 600)
    begun(compute)
    azure_double.clock.advance(601)
    assert compute.import_image("golden", SOURCE).ready
    assert (2, vhd()) == (counted(azure_double)["Disks_GrantAccess"], content(azure_double))
    assert WRITES + 1 == counted(azure_double)["PutPageFromURL"]  # one was refused


def test_a_new_signature_that_is_refused_is_an_error(azure_double: AzureDouble, compute: Compute) -> None:
    headers = [("x-ms-error-code", "AuthenticationFailed")]
    azure_double.inject("status", match=is_("PutPageFromURL"), status=403, headers=headers)
    with pytest.raises(Unauthenticated):
        compute.import_image("golden", SOURCE)
    assert compute.import_image("golden", SOURCE).ready


# the source


@pytest.mark.usefixtures("write_by_write")
@pytest.mark.parametrize("change", ["another", "gone"])
def test_an_object_that_changes_meanwhile_is_said_and_leaves_nothing(
    azure_double: AzureDouble, compute: Compute, bucket: Bucket, change: str
) -> None:
    begun(compute)
    begun(compute)
    if change == "gone":
        bucket.delete("web.vhd")
    else:
        azure_double.service.put_raw("images", "web.vhd", vhd(mark=b"news"))
    with pytest.raises(PreconditionFailed, match="'web.vhd' is another object by now, or gone"):
        compute.import_image("golden", SOURCE)
    assert NOTHING == held(azure_double)
    azure_double.service.put_raw("images", "web.vhd", vhd(mark=b"news"))
    assert compute.import_image("golden", SOURCE).ready
    assert vhd(mark=b"news") == content(azure_double)


def test_an_object_is_imported_in_the_version_that_is_named(
    azure_double: AzureDouble, compute: Compute, bucket: Bucket
) -> None:
    old = attrs.evolve(SOURCE, version=str(bucket.stat("web.vhd").token))
    azure_double.service.put_raw("images", "web.vhd", vhd(mark=b"news"))
    with pytest.raises(PreconditionFailed, match="another object by now"):
        compute.import_image("golden", old)
    assert NOTHING == held(azure_double)
    assert compute.import_image("golden", attrs.evolve(old, version=str(bucket.stat("web.vhd").token))).ready


@pytest.mark.parametrize(("place", "key"), [("images", "none.vhd"), ("none", "web.vhd")])
def test_an_object_that_is_not_there_is_a_wrong_argument(
    azure_double: AzureDouble, compute: Compute, place: str, key: str
) -> None:
    with pytest.raises(InvalidArgument, match=f"there is no blob '{key}' in the container '{place}'"):
        compute.import_image("golden", attrs.evolve(SOURCE, bucket=place, key=key))
    assert NOTHING == held(azure_double)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "is no VHD"),
        (b"short", "is no VHD"),
        (bytes(SIZE), "is no VHD"),
        (bytes(SIZE) + footer(cookie=b"cxsparse"), "is no VHD"),
        (bytes(SIZE) + footer(kind=3), "none of a fixed size"),
        (bytes(SIZE - MIB) + footer(), "cut off, or there is more in it: its footer tells of 22,020,096 bytes"),
        (bytes(SIZE + 512) + footer(SIZE + 512), "whole MiB"),
        (bytes(19 * MIB) + footer(19 * MIB), "of 20 MiB to 32 TiB"),
    ],
)
def test_what_is_no_disk_is_said_before_anything_is_made(
    azure_double: AzureDouble, compute: Compute, given: bytes, said: str
) -> None:
    azure_double.service.put_raw("images", "odd.vhd", given)
    with pytest.raises(InvalidArgument, match=f"'odd.vhd' .*{said}.*; `shiftable compute convert` writes"):
        compute.import_image("golden", attrs.evolve(SOURCE, key="odd.vhd"))
    assert (NOTHING, 0) == (held(azure_double), counted(azure_double)["Disks_CreateOrUpdate"])


def test_what_azure_takes_for_no_disk_in_the_end_leaves_nothing(azure_double: AzureDouble, compute: Compute) -> None:
    body = b'{"error": {"code": "InvalidVhd", "message": "not a supported VHD"}}'
    azure_double.inject("status", match=is_("Disks_RevokeAccess"), status=400, body=body)
    with pytest.raises(InvalidArgument, match="not a supported VHD"):
        compute.import_image("golden", SOURCE)
    assert NOTHING == held(azure_double)
    assert compute.import_image("golden", SOURCE).ready


# who asks


def test_a_wrong_key_of_the_storage_account_is_said_and_leaves_nothing(
    azure_double: AzureDouble, service: Callable[..., Compute]
) -> None:
    with pytest.raises(Unauthenticated):
        service(account_key=Credential.literal("d3Jvbmc=")).import_image("golden", SOURCE)
    assert NOTHING == held(azure_double)


@pytest.mark.parametrize("action", ["disks/write", "disks/beginGetAccess/action", "galleries/images/versions/write"])
def test_what_is_not_permitted_is_gone_on_with_when_it_is(
    azure_double: AzureDouble, compute: Compute, action: str
) -> None:
    azure_double.arm.denied.add(f"Microsoft.Compute/{action}")
    for _ in range(2):
        with pytest.raises(PermissionDenied, match=action):
            compute.import_image("golden", SOURCE)
    assert held(azure_double) == (NOTHING if action == "disks/write" else A_DISK)
    azure_double.arm.denied.clear()
    assert compute.import_image("golden", SOURCE).ready
    assert (IMPORTED, WRITES) == (held(azure_double), counted(azure_double)["PutPageFromURL"])


class Entra:
    """Hands out the double's token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken(self._token, int(time.time()) + 3600)


@pytest.mark.usefixtures("bucket")
def test_no_token_of_an_identity_goes_to_the_account_of_a_disk(
    azure_double: AzureDouble, arm: ArmSession, request: pytest.FixtureRequest
) -> None:
    settings = AzureSettings(storage_account=azure_double.account)
    loopback = ToLoopback(azure_double.url)
    storage = Session(settings, credential=Entra(azure_double.token), transport=loopback)
    request.addfinalizer(storage.close)
    sent = list[str]()

    def look(asked: Request, _: Response) -> Iterable[str]:
        if asked.path.startswith("/md-impexp/"):
            sent.append(str(asked.headers))
        return ()

    azure_double.validators.append(look)
    request.addfinalizer(lambda: azure_double.validators.remove(look))
    compute = Compute(AzureComputeDriver(arm, lambda: storage), sleep=azure_double.clock.advance)
    assert compute.import_image("golden", SOURCE).ready
    assert (vhd(), WRITES) == (content(azure_double), len(sent))
    assert azure_double.token not in "".join(sent)
    assert all(re.search(r"[?&]sp=r[&\s]", each) for each in sent)  # nor a signature that permits more than to read


@pytest.mark.usefixtures("bucket")
def test_a_shared_access_signature_of_the_account_will_do(
    azure_double: AzureDouble, service: Callable[..., Compute]
) -> None:
    settings = azure_double.config
    signed = generate_account_sas(
        azure_double.account,
        settings["account_key"].reveal(),
        ResourceTypes(object=True, container=True),
        AccountSasPermissions(read=True),
        datetime.now(UTC) + timedelta(hours=1),
    )
    compute = service(account_key=None, sas_token=Credential.literal(signed))
    assert compute.import_image("golden", SOURCE).ready
    assert vhd() == content(azure_double)


@pytest.mark.usefixtures("write_by_write")
def test_signatures_are_in_no_error_and_in_no_log(
    azure_double: AzureDouble, hasty: Compute, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    begun(hasty)
    for kind in ("drop_before", "truncate"):
        azure_double.inject(kind, match=is_("PutPageFromURL"))
    said = list[str]()
    for _ in range(2):
        with pytest.raises(OperationError) as caught:
            hasty.import_image("golden", SOURCE)
        said += [str(caught.value), repr(caught.value.__cause__)]
    driver = hasty.unwrap(AzureComputeDriver)
    (work,) = driver._imports._works.values()
    assert work.url is not None
    signature = work.url.partition("sig=")[2]
    assert signature
    logged = [each.getMessage() for each in caplog.records if not each.name.startswith("urllib3")]
    assert not any(signature in each for each in (*said, repr(work), repr(driver._imports), *logged))


# names, and what others do


@pytest.mark.parametrize("name", ["", "-golden", "golden-", "gol den", "größe", "a/b", "x" * 81])
def test_a_name_that_azure_does_not_take_is_refused_before_anything_is_sent(
    azure_double: AzureDouble, compute: Compute, name: str
) -> None:
    before = len(azure_double.calls)
    with pytest.raises(InvalidArgument, match="names of images"):
        compute.import_image(name, SOURCE)
    assert before == len(azure_double.calls)


def test_an_image_of_somebody_else_s_keeps_its_name(
    azure_double: AzureDouble, compute: Compute, bucket: Bucket
) -> None:
    compute.import_image("golden", SOURCE)
    with pytest.raises(AlreadyExists, match="made of something else"):
        compute.import_image("golden", attrs.evolve(SOURCE, version=str(bucket.stat("web.vhd").token)))
    assert IMPORTED == held(azure_double)


def test_two_imports_of_one_name_give_nobody_the_other_s_image(
    azure_double: AzureDouble, service: Callable[..., Compute]
) -> None:
    """Both look before there is one, and the second one's image is written over the first one's."""
    azure_double.service.put_raw("images", "other.vhd", vhd(mark=b"news"))
    one, other = service(), service()
    until_copied(azure_double, one)
    azure_double.machines.endings.delay = NOW  # whoever deletes the disk by mistake does it at once
    theirs = attrs.evolve(SOURCE, key="other.vhd")
    told(azure_double).tags["shiftable-import"] = import_token("golden", theirs)
    for each, source in ((one, SOURCE), (other, theirs)):
        with pytest.raises(AlreadyExists):
            each.import_image("golden", source)
    azure_double.clock.advance(60)
    azure_double.machines.endings.settle()
    assert vhd() == content(azure_double)


@pytest.mark.usefixtures("write_by_write")
def test_two_imports_of_one_name_have_disks_of_their_own(
    azure_double: AzureDouble, service: Callable[..., Compute]
) -> None:
    azure_double.service.put_raw("images", "other.vhd", vhd(mark=b"news"))
    slow = service()
    begun(slow)
    assert service().import_image("golden", attrs.evolve(SOURCE, key="other.vhd")).ready
    assert vhd(mark=b"news") == content(azure_double)
    with pytest.raises(AlreadyExists):
        slow.import_image("golden", SOURCE)
    assert IMPORTED == held(azure_double)


@pytest.mark.usefixtures("write_by_write")
def test_who_ends_the_access_early_has_no_disk(
    azure_double: AzureDouble, compute: Compute, ask: Callable[..., Any]
) -> None:
    """The footer is written last, so that nobody takes for complete what is not."""
    begun(compute)
    (disk,) = azure_double.machines.disks.values()
    assert "InvalidVhd" == refused(ask, "POST", f"{disk.name}/endGetAccess")
    assert compute.import_image("golden", SOURCE).ready
    assert vhd() == content(azure_double)


def test_what_is_written_in_part_is_written_again() -> None:
    size, chunk = 10 * MIB + 512, 4 * MIB
    left = _machine_imports._left
    assert [0, chunk, 2 * chunk] == list(left([], size))
    assert [0, 2 * chunk] == list(left([(512, 2 * chunk - 1), (2 * chunk, size - 2)], size))
    assert [chunk] == list(left([(0, chunk + 511), (2 * chunk - 512, size - 1)], size))
    assert [] == list(left([(0, size - 1)], size))


@pytest.mark.usefixtures("write_by_write")
def test_a_disk_that_somebody_deletes_ends_the_waiting(azure_double: AzureDouble, compute: Compute) -> None:
    begun(compute)
    begun(compute)
    compute.sweep(older_than=NOW)
    assert NOTHING == held(azure_double)
    with pytest.raises(NotFound, match="somebody deleted it"):
        compute.import_image("golden", SOURCE)
    assert compute.import_image("golden", SOURCE).ready


def test_an_image_that_somebody_deletes_meanwhile_is_missing(
    azure_double: AzureDouble, compute: Compute, service: Callable[..., Compute]
) -> None:
    until_copied(azure_double, compute)
    (image,) = (each for each in compute.images() if each.own)
    assert not image.ready
    service().delete_image(image.id)
    with pytest.raises(NotFound, match="somebody deleted it"):
        compute.import_image("golden", SOURCE)
    assert NOTHING == held(azure_double)
    assert compute.import_image("golden", SOURCE).ready


# what fails in the gallery


def test_an_image_that_fails_says_why_once_and_is_begun_anew(azure_double: AzureDouble, compute: Compute) -> None:
    azure_double.machines.endings.failures[VERSION] = "InvalidParameter", "the disk is odd"
    with pytest.raises(InvalidArgument, match="the image of 'web.vhd': the disk is odd"):
        compute.import_image("golden", SOURCE)
    assert NOTHING == held(azure_double)
    assert compute.import_image("golden", SOURCE).ready


def test_an_image_that_failed_in_another_process_is_cleared_away(
    azure_double: AzureDouble, compute: Compute, service: Callable[..., Compute]
) -> None:
    azure_double.machines.endings.failures[VERSION] = "InvalidParameter", "the disk is odd"
    until_copied(azure_double, service())
    with pytest.raises(InvalidArgument, match="does not say why"):
        compute.import_image("golden", SOURCE)
    assert NOTHING == held(azure_double)
    assert compute.import_image("golden", SOURCE).ready


@pytest.mark.parametrize(
    ("code", "error", "left"), [("InvalidParameter", InvalidArgument, NOTHING), ("Conflict", Conflict, A_DISK)]
)
def test_what_azure_makes_no_image_of_is_deleted(
    azure_double: AzureDouble, compute: Compute, code: str, error: type[OperationError], left: tuple[int, ...]
) -> None:
    azure_double.machines.endings.failures["GalleryImageVersions_CreateOrUpdate"] = code, "no"
    with pytest.raises(error):
        compute.import_image("golden", SOURCE)
    assert left == held(azure_double)
    assert compute.import_image("golden", SOURCE).ready
    assert IMPORTED == held(azure_double)


def test_a_disk_that_azure_cannot_make_is_said_and_leaves_nothing(azure_double: AzureDouble, compute: Compute) -> None:
    azure_double.machines.endings.failures["Microsoft.Compute/disks/write"] = "InternalExecutionError", "no"
    with pytest.raises(Unavailable):
        compute.import_image("golden", SOURCE)
    with pytest.raises(Unavailable, match="could not make a disk"):
        compute.import_image("golden", SOURCE)
    assert NOTHING == held(azure_double)
    assert compute.import_image("golden", SOURCE).ready


# what is left


@pytest.mark.usefixtures("write_by_write")
def test_the_disk_of_a_process_that_died_is_swept(
    azure_double: AzureDouble, compute: Compute, service: Callable[..., Compute]
) -> None:
    for _ in range(2):
        begun(service())
    assert A_DISK == held(azure_double)
    assert () == compute.sweep()
    (swept,) = compute.sweep(older_than=NOW)
    assert ("imported disk", "golden") == (swept.kind, swept.name)
    assert swept.created is not None
    assert (NOTHING, []) == (held(azure_double), list(compute.debris()))


def test_nothing_is_swept_of_an_image_that_is_just_copied(
    azure_double: AzureDouble, compute: Compute, service: Callable[..., Compute]
) -> None:
    until_copied(azure_double, compute)
    assert [] == list(service().debris())
    assert compute.import_image("golden", SOURCE).ready


def test_an_image_without_a_version_is_swept(
    azure_double: AzureDouble, hasty: Compute, service: Callable[..., Compute]
) -> None:
    azure_double.inject("drop_before", match=is_("GalleryImageVersions_CreateOrUpdate"))
    with pytest.raises(Unavailable):
        hasty.import_image("golden", SOURCE)
    assert (1, 1, 0, 1) == held(azure_double)
    swept = service().sweep(older_than=NOW)
    assert ["imported image", "imported disk"] == [each.kind for each in swept]
    assert NOTHING == held(azure_double)


# the double


def upload(size: Any = SIZE + 512, **more: Any) -> dict[str, Any]:
    data = {"createOption": "Upload", "uploadSizeBytes": size}
    return {"location": "x", "properties": {"osType": "Linux", "creationData": data, **more}}


@pytest.mark.usefixtures("bucket")
def test_the_double_refuses_what_azure_refuses(azure_double: AzureDouble, ask: Callable[..., Any]) -> None:
    for size, more in ((None, {}), ("1", {}), (20 * MIB, {}), (2**46, {}), (SIZE + 512, {"diskSizeGB": 1})):
        assert "InvalidParameter" == refused(ask, "PUT", "x", upload(size, **more))
    write = {"access": "Write", "durationInSeconds": 60}
    ask("PUT", "hidden", upload(networkAccessPolicy="DenyAll"))
    assert "OperationNotAllowed" == refused(ask, "POST", "hidden/beginGetAccess", write)
    ask("PUT", "x", upload())
    assert "ReadyToUpload" == ask("GET", "x")["properties"]["diskState"]
    assert "InvalidParameter" == refused(ask, "POST", "x/beginGetAccess", {"access": "Write"})
    assert "OperationNotAllowed" == refused(ask, "POST", "x/beginGetAccess", {**write, "access": "Read"})
    assert "PropertyChangeNotAllowed" == refused(ask, "PUT", "x", upload(SIZE + MIB + 512))
    url = ask("POST", "x/beginGetAccess", write)["accessSAS"]
    assert "ActiveUpload" == ask("GET", "x")["properties"]["diskState"]
    assert "OperationNotAllowed" == refused(ask, "DELETE", "x")
    assert "InvalidVhd" == refused(ask, "POST", "x/endGetAccess")
    assert "ActiveUpload" == ask("GET", "x")["properties"]["diskState"]
    assert "sig=" in url
    ask("DELETE", "x")
    ask("PUT", "empty", {"location": "x", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1}})
    assert "OperationNotAllowed" == refused(ask, "POST", "empty/beginGetAccess", write)
    assert {"hidden", "empty"} == {one.name for one in azure_double.machines.disks.values()}


def test_a_url_without_https_gets_no_content(azure_double: AzureDouble, compute: Compute) -> None:
    body = b'{"accessSAS": "http://md-impexp.example/x/abcd?sig=x"}'
    azure_double.inject("status", match=is_("Disks_GrantAccess"), status=200, body=body)
    with pytest.raises(IntegrityError, match="not reached by https"):
        compute.import_image("golden", SOURCE)
