"""Answers that are lost, halved or late, writers that race, credentials that fail: nothing is doubled or lost."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from azure.core.credentials import AccessToken
from azure.storage.blob import AccessPolicy, BlobServiceClient, ContentSettings

import shiftable
from shiftable.blob import BlobStore, Bucket, BucketSpec, Headers
from shiftable.blob.driver import PutOptions
from shiftable.config import Credential
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    Throttled,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.testing.harness import Call
from shiftable_azure import AzureProvider, AzureSettings, _features
from shiftable_azure._session import Retries, Session
from shiftable_azure.blob import AzureBlobDriver
from shiftable_azure.double import AzureDouble, ToLoopback

MIB = 1024 * 1024
BUSY = [("x-ms-error-code", "ServerBusy")]


@pytest.fixture(params=["the SDK's lane", "the bulk lane"])
def driver(driver: AzureBlobDriver, request: pytest.FixtureRequest) -> AzureBlobDriver:
    return driver.lane() if request.param == "the bulk lane" else driver


@pytest.fixture
def store(driver: AzureBlobDriver) -> BlobStore:
    return BlobStore(driver)


@pytest.fixture
def bucket(store: BlobStore) -> Bucket:
    made = store.create(BucketSpec(name="shop"))
    made.put("learned", b"")  # then the account's default tier is known
    return made


@pytest.fixture
def native(azure_double: AzureDouble) -> Iterator[Any]:
    with BlobServiceClient.from_connection_string(azure_double.connection_string) as client:
        yield client


def to(*operations: str) -> Callable[[Call], bool]:
    return lambda call: call.operation in operations


def tried(double: AzureDouble, operation: str) -> list[tuple[int | None, str | None]]:
    return [(call.status, call.fault) for call in double.calls if call.operation == operation]


def held(double: AzureDouble, key: str) -> bytes:
    return double.service.containers["shop"].blobs[key].content


# lost requests and lost answers, on every write

LOST = pytest.mark.parametrize("fault", ["drop_before", "drop_after"])


@LOST
def test_a_put_whose_answer_is_lost_is_sent_again(bucket: Bucket, azure_double: AzureDouble, fault: Any) -> None:
    azure_double.inject(fault, match=to("PutBlob"))
    assert bucket.put("key", b"x") == bucket.stat("key")
    assert held(azure_double, "key") == b"x"


@LOST
def test_a_create_only_put_whose_answer_is_lost_succeeds_once(
    bucket: Bucket, azure_double: AzureDouble, fault: Any
) -> None:
    azure_double.inject(fault, match=to("PutBlob"))
    mine: Any = {"metadata": {"holder": "a"}, "content_type": "text/plain", "if_absent": True}
    assert bucket.put("lock", b"mine", **mine) == bucket.stat("lock")
    with pytest.raises(PreconditionFailed):
        bucket.put("lock", b"mine", **mine)


@LOST
def test_a_lost_answer_to_compare_and_swap_is_found_out(bucket: Bucket, azure_double: AzureDouble, fault: Any) -> None:
    first = bucket.put("key", b"1")
    azure_double.inject(fault, match=to("PutBlob"))
    second = bucket.put("key", b"2", if_match=first.token)
    assert second.token == bucket.stat("key").token
    assert bucket.get("key") == b"2"


@LOST
@pytest.mark.parametrize("condition", ["if_absent", "if_match", "none"])
@pytest.mark.parametrize("operation", ["PutBlock", "PutBlockList"])
def test_an_object_in_parts_is_made_once(
    bucket: Bucket, azure_double: AzureDouble, fault: Any, condition: str, operation: str
) -> None:
    data = bytes(range(256)) * 4096 * 9
    known: Any = {"if_absent": True} if condition == "if_absent" else {}
    if condition == "if_match":
        known = {"if_match": bucket.put("long", b"before").token}
    azure_double.inject(fault, match=to(operation))
    info = bucket.put("long", data, **known)
    assert (info.token, info.size) == (bucket.stat("long").token, len(data))
    assert held(azure_double, "long") == data
    assert azure_double.service.containers["shop"].blocks == {}


@LOST
@pytest.mark.parametrize("matched", [True, False])
def test_a_delete_whose_answer_is_lost_succeeds(
    bucket: Bucket, azure_double: AzureDouble, fault: Any, *, matched: bool
) -> None:
    info = bucket.put("key", b"x")
    azure_double.inject(fault, match=to("DeleteBlob"))
    bucket.delete("key", if_match=info.token if matched else None)
    assert not bucket.exists("key")
    with pytest.raises(PreconditionFailed):
        bucket.delete("key", if_match=info.token)


@LOST
def test_a_batch_whose_answer_is_lost_is_no_failure(bucket: Bucket, azure_double: AzureDouble, fault: Any) -> None:
    for key in ("a", "b"):
        bucket.put(key, b"x")
    azure_double.inject(fault, match=to("BlobBatch"))
    assert bucket.delete_many(["a", "b", "c"]) == {}
    assert [item.key for item in bucket.list()] == ["learned"]


@LOST
@pytest.mark.parametrize("condition", ["if_absent", "if_match", "none"])
def test_a_copy_whose_answer_is_lost_succeeds(
    bucket: Bucket, azure_double: AzureDouble, fault: Any, condition: str
) -> None:
    bucket.put("source", b"content", metadata={"n": "v"}, tags={"t": "1"})
    known: Any = {"if_absent": True} if condition == "if_absent" else {}
    if condition == "if_match":
        known = {"if_match": bucket.put("target", b"before").token}
    azure_double.inject(fault, match=to("PutBlobFromURL"))
    info = bucket.copy("source", "target", **known)
    assert info == bucket.stat("target")
    assert held(azure_double, "target") == b"content"
    assert (info.metadata, bucket.tags("target")) == ({"n": "v"}, {"t": "1"})


@LOST
def test_tags_whose_answer_is_lost_are_set(bucket: Bucket, azure_double: AzureDouble, fault: Any) -> None:
    bucket.put("key", b"x")
    azure_double.inject(fault, match=to("SetBlobTags"))
    bucket.set_tags("key", {"a": "1"})
    assert bucket.tags("key") == {"a": "1"}


@LOST
def test_a_container_is_made_and_deleted_once_although_answers_are_lost(
    store: BlobStore, azure_double: AzureDouble, fault: Any
) -> None:
    for operation in ("CreateContainer", "DeleteContainer"):
        azure_double.inject(fault, match=to(operation))
    store.create(BucketSpec(name="lost"))
    with pytest.raises(AlreadyExists):
        store.create(BucketSpec(name="lost"))
    store.delete("lost")
    assert azure_double.service.containers == {}


def written_by(operation: str) -> Callable[[Bucket], Any]:
    """Return a write without a condition that ends with this operation."""
    writes: dict[str, Callable[[Bucket], Any]] = {
        "PutBlob": lambda bucket: bucket.put("key", b"mine"),
        "PutBlockList": lambda bucket: bucket.put("key", bytes(9 * MIB)),
        "PutBlobFromURL": lambda bucket: bucket.copy("source", "key"),
    }
    return writes[operation]


@pytest.mark.parametrize("operation", ["PutBlob", "PutBlockList", "PutBlobFromURL"])
def test_a_plain_write_whose_answer_is_lost_is_done_once(azure_double: AzureDouble, operation: str) -> None:
    azure_double.service.versioning = True
    with shiftable.connect("azure", **azure_double.config, blob_versioning=True) as cloud:
        bucket = cloud.blob.create(BucketSpec(name="shop", versioning=True))
        bucket.put("source", b"content")
        before = bucket.put("key", b"before")
        azure_double._calls.clear()
        azure_double.inject("drop_after", match=to(operation))
        info = written_by(operation)(bucket)
        assert tried(azure_double, operation) == [(201, "drop_after"), (409, None)]
        assert [row.version for row in bucket.versions("key")] == [info.version, before.version]


@pytest.mark.parametrize("operation", ["PutBlob", "PutBlockList", "PutBlobFromURL"])
@pytest.mark.parametrize("existed", [True, False])
def test_a_write_that_is_repeated_late_does_not_overwrite_what_came_since(
    bucket: Bucket, azure_double: AzureDouble, monkeypatch: pytest.MonkeyPatch, operation: str, *, existed: bool
) -> None:
    bucket.put("source", b"content")
    if existed:
        bucket.put("key", b"before")
    real, late = time.monotonic, [0.0]
    monkeypatch.setattr("shiftable_azure.blob.time.monotonic", lambda: real() + late[0])

    def meanwhile(call: Call) -> bool:
        if call.operation != operation or late[0]:
            return False
        late[0] = 30.0
        azure_double.clock.advance(15)
        azure_double.service.put_raw("shop", "key", b"theirs")
        azure_double.clock.advance(15)
        return True

    azure_double.inject("drop_before", match=meanwhile)
    with pytest.raises(Unavailable, match="somebody has written") as caught:
        written_by(operation)(bucket)
    assert caught.value.retryable
    assert held(azure_double, "key") == b"theirs"


def test_who_may_write_and_not_read_has_plain_writes_repeated_too(bucket: Bucket, azure_double: AzureDouble) -> None:
    known = {name: value for name, value in azure_double.config.items() if name != "account_key"}
    with shiftable.connect("azure", **known, sas_token=_sas(azure_double, "cw")) as cloud:
        azure_double.inject("drop_before", match=to("PutBlob"))
        assert cloud.blob.bucket("shop").put("key", b"x").storage_class is None
    assert held(azure_double, "key") == b"x"


def test_an_older_container_is_not_taken_for_ours_after_a_lost_request(
    store: BlobStore, azure_double: AzureDouble
) -> None:
    store.create(BucketSpec(name="theirs"))
    azure_double.service.containers["theirs"].modified -= timedelta(seconds=30)
    azure_double.inject("drop_before", match=to("CreateContainer"))
    with pytest.raises(AlreadyExists):
        store.create(BucketSpec(name="theirs"))


@pytest.mark.parametrize(
    "theirs",
    [
        {"data": b"theirs"},
        {"data": b"mine", "metadata": {"holder": "b"}},
        {"data": b"mine", "metadata": {"holder": "a"}, "content_settings": ContentSettings(content_type="text/html")},
    ],
)
def test_another_writers_object_is_not_taken_for_ours(
    bucket: Bucket, native: Any, azure_double: AzureDouble, theirs: dict[str, Any]
) -> None:
    native.get_blob_client("shop", "lock").upload_blob(**theirs)
    azure_double.inject("drop_before", match=to("PutBlob"))
    with pytest.raises(PreconditionFailed):
        bucket.put("lock", b"mine", metadata={"holder": "a"}, if_absent=True)
    assert held(azure_double, "lock") == theirs["data"]


def test_an_older_object_with_the_same_content_is_not_taken_for_ours(bucket: Bucket, azure_double: AzureDouble) -> None:
    bucket.put("lock", b"mine")
    azure_double.service.containers["shop"].blobs["lock"].modified -= timedelta(seconds=30)
    azure_double.inject("drop_before", match=to("PutBlob"))
    with pytest.raises(PreconditionFailed):
        bucket.put("lock", b"mine", if_absent=True)


def test_a_commit_that_is_refused_is_not_taken_for_a_success(bucket: Bucket, azure_double: AzureDouble) -> None:
    bucket.put("long", b"theirs")
    azure_double.inject("drop_before", match=to("PutBlockList"))
    with pytest.raises(PreconditionFailed):
        bucket.put("long", bytes(9 * MIB), if_absent=True)
    assert held(azure_double, "long") == b"theirs"


def test_of_two_uploads_to_one_key_the_first_lives_and_parts_do_not_mix(
    driver: AzureBlobDriver, bucket: Bucket, azure_double: AzureDouble
) -> None:
    first, second = (driver.upload_begin("shop", "key", PutOptions()) for _ in range(2))
    parts = {upload.id: driver.upload_part(upload, 1, upload.id.encode(), 0) for upload in (first, second)}
    driver.upload_complete(second, (parts[second.id],))
    with pytest.raises(Exception, match="block list") as caught:
        driver.upload_complete(first, (parts[first.id],))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert fault.error is Conflict
    assert held(azure_double, "key") == second.id.encode()


def test_what_an_aborted_upload_left_is_dropped_with_the_next_write(
    driver: AzureBlobDriver, bucket: Bucket, azure_double: AzureDouble
) -> None:
    upload = driver.upload_begin("shop", "key", PutOptions())
    driver.upload_part(upload, 1, b"x", 0)
    driver.upload_abort(upload)
    assert [item.key for item in bucket.list()] == ["learned"]
    assert list(azure_double.service.containers["shop"].blocks) == ["key"]
    bucket.put("key", b"in one piece")
    assert azure_double.service.containers["shop"].blocks == {}


# busy servers


def test_a_busy_server_is_asked_again_when_it_says(bucket: Bucket, azure_double: AzureDouble) -> None:
    azure_double.inject("status", match=to("PutBlob"), times=2, status=503, headers=[*BUSY, ("Retry-After", "1")])
    before, began = len(tried(azure_double, "PutBlob")), time.monotonic()
    bucket.put("key", b"x")
    assert tried(azure_double, "PutBlob")[before:] == [(503, "status"), (503, "status"), (201, None)]
    assert time.monotonic() - began >= 2


def test_a_busy_server_is_asked_as_often_as_the_settings_say(azure_double: AzureDouble) -> None:
    azure_double.inject("status", times=None, status=503, headers=[*BUSY, ("Retry-After", "0")])
    with shiftable.connect("azure", **azure_double.config, max_attempts=3) as cloud:
        with pytest.raises(Throttled) as caught:
            cloud.blob.bucket("shop").put("key", b"x")
        assert caught.value.retry_after == 0
    assert len(azure_double.calls) == 3


@pytest.mark.parametrize(("status", "tries"), [(500, 2), (502, 2), (408, 2), (400, 1), (403, 1), (409, 1), (501, 1)])
def test_only_what_may_pass_is_tried_again(bucket: Bucket, azure_double: AzureDouble, status: int, tries: int) -> None:
    azure_double.inject("status", match=to("GetBlobTags"), status=status, headers=[("Retry-After", "0")])
    bucket.put("key", b"x")
    with_error = pytest.raises(OperationError) if tries == 1 else _nothing()
    with with_error:
        bucket.tags("key")
    assert len(tried(azure_double, "GetBlobTags")) == tries


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_waits_grow_with_full_jitter_and_have_an_end() -> None:
    retries = Retries(5, base=0.4, longest=3.0)
    for count, most in ((0, 0.4), (1, 0.8), (2, 1.6), (3, 3.0), (9, 3.0)):
        waits = [retries.get_backoff_time({"count": count, "history": []}) for _ in range(200)]
        assert 0 <= min(waits) < most / 4
        assert most * 3 / 4 < max(waits) <= most


def test_a_connection_that_never_answers_is_unavailable(bucket: Bucket, azure_double: AzureDouble) -> None:
    azure_double.inject("drop_before", match=to("GetBlob"), times=None)
    with pytest.raises(Unavailable):
        bucket.get("learned")


# halved and altered answers


def test_a_truncated_download_goes_on_where_it_broke(bucket: Bucket, azure_double: AzureDouble) -> None:
    data = bytes(range(256)) * 4096 * 6
    bucket.put("key", data)
    azure_double.inject("truncate", match=to("GetBlob"), times=2)
    assert bucket.get("key") == data
    assert [call.fault for call in azure_double.calls if call.operation == "GetBlob"][-3:] == ["truncate"] * 2 + [None]


def test_a_download_is_one_request_that_is_read_as_it_is_wanted(bucket: Bucket, azure_double: AzureDouble) -> None:
    bucket.put("key", bytes(40 * MIB))
    before = len(azure_double.calls)
    with bucket.stream("key") as stream:
        first = next(stream)
    assert 0 < len(first) <= MIB
    assert len(azure_double.calls) == before + 1


@pytest.mark.parametrize("operation", ["ListBlobs", "GetBlobTags", "ListContainers"])
def test_half_an_xml_document_is_asked_for_again(bucket: Bucket, azure_double: AzureDouble, operation: str) -> None:
    azure_double.inject("truncate", match=to(operation))
    if operation == "GetBlobTags":
        assert bucket.tags("learned") == {}
    elif operation == "ListBlobs":
        assert [item.key for item in bucket.list()] == ["learned"]
    else:
        assert [found.name for found in BlobStore(bucket.unwrap(AzureBlobDriver)).list()] == ["shop"]
    assert [fault for _, fault in tried(azure_double, operation)] == ["truncate", None]


def test_an_altered_object_is_an_integrity_error(bucket: Bucket, azure_double: AzureDouble) -> None:
    bucket.put("key", b"what was written")
    azure_double.service.containers["shop"].blobs["key"].content = b"what was altered"
    with pytest.raises(IntegrityError):
        bucket.get("key")


def test_content_that_is_not_what_its_md5_says_is_refused(driver: AzureBlobDriver, bucket: Bucket) -> None:
    digest = hashlib.md5(b"right", usedforsecurity=False).digest()
    driver.put("shop", "key", b"right", PutOptions(md5=digest))
    with pytest.raises(Exception, match="MD5") as caught:
        driver.put("shop", "key", b"wrong", PutOptions(md5=digest))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert fault.error is IntegrityError
    assert bucket.get("key") == b"right"


def test_each_part_carries_its_md5(bucket: Bucket, azure_double: AzureDouble) -> None:
    seen: list[bool] = []

    def note(request: Any, _: object) -> list[str]:
        seen.extend(["Content-MD5" in request.headers] if "comp=block&" in request.target else [])
        return []

    azure_double.validators.append(note)
    try:
        bucket.put("long", bytes(17 * MIB))
    finally:
        azure_double.validators.pop()
    assert seen == [True, True, True]


def test_the_md5_of_the_whole_is_kept_if_the_writer_knows_it(driver: AzureBlobDriver, bucket: Bucket) -> None:
    digest = hashlib.md5(b"firstsecond", usedforsecurity=False).digest()
    for key, known in (("told", digest), ("untold", None)):
        upload = driver.upload_begin("shop", key, PutOptions(md5=known))
        parts = tuple(driver.upload_part(upload, number, data, 0) for number, data in ((1, b"first"), (2, b"second")))
        assert driver.upload_complete(upload, parts).md5 == known
        (listed,) = bucket.list(key)
        assert (listed.md5, bucket.stat(key).md5) == (known, known)


def test_a_version_of_an_object_that_is_gone_is_not_found(bucket: Bucket) -> None:
    token = bucket.put("key", b"content").token
    bucket.put("key", b"newer")
    with pytest.raises(PreconditionFailed):
        bucket.get("key", if_match=token)
    bucket.delete("key")
    for start in (0, 3, 100):
        with pytest.raises(NotFound):
            bucket.get("key", if_match=token, start=start)


# copies


def test_a_source_that_changes_while_it_is_copied_is_not_copied(bucket: Bucket, azure_double: AzureDouble) -> None:
    bucket.put("source", b"before")

    def overwrite(request: Any, _: object) -> list[str]:
        if request.method == "HEAD":
            azure_double.service.put_raw("shop", "source", b"after")
        return []

    azure_double.validators.append(overwrite)
    try:
        with pytest.raises(PreconditionFailed):
            bucket.copy("source", "target")
    finally:
        azure_double.validators.pop()
    assert not bucket.exists("target")


def test_a_large_object_is_copied_in_parts_with_all_that_belongs_to_it(
    driver: AzureBlobDriver, bucket: Bucket, azure_double: AzureDouble
) -> None:
    data = bytes(range(256)) * 4096 * 11
    headers = Headers(content_type="text/plain", cache_control="no-store")
    small = attrs.evolve(driver, copy_limit=4 * MIB, copy_part=3 * MIB)
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    driver.put("shop", "a b;c?d#é", data, PutOptions(headers=headers, metadata={"n": "v"}, tags={"team": "a b"}))
    info = Bucket(small, "shop").copy("a b;c?d#é", "target", if_absent=True)
    assert held(azure_double, "target") == data
    assert (info.headers, info.metadata, info.md5) == (headers, {"n": "v"}, digest)
    assert bucket.tags("target") == {"team": "a b"}
    assert len(tried(azure_double, "PutBlockFromURL")) == 4


def test_parts_of_a_source_that_changes_are_not_mixed(
    driver: AzureBlobDriver, bucket: Bucket, azure_double: AzureDouble
) -> None:
    bucket.put("source", bytes(20 * MIB))  # more parts than are under way at once

    def overwrite(request: Any, _: object) -> list[str]:
        if "comp=block&" in request.target:
            azure_double.service.put_raw("shop", "source", bytes(20 * MIB))
        return []

    azure_double.validators.append(overwrite)
    try:
        with pytest.raises(PreconditionFailed):
            Bucket(attrs.evolve(driver, copy_limit=MIB, copy_part=MIB), "shop").copy("source", "target")
    finally:
        azure_double.validators.pop()
    assert not bucket.exists("target")


# credentials


def test_a_wrong_key_is_unauthenticated_and_in_no_message(
    azure_double: AzureDouble, caplog: pytest.LogCaptureFixture
) -> None:
    canary = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnk="
    caplog.set_level(logging.DEBUG)
    with shiftable.connect("azure", **{**azure_double.config, "account_key": Credential.literal(canary)}) as cloud:
        bucket = cloud.blob.bucket("shop")
        for use in (lambda: bucket.put("key", b"x"), lambda: bucket.stat("key"), lambda: list(bucket.list())):
            with pytest.raises(Unauthenticated) as caught:
                use()
            shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(bucket)
            assert canary not in shown
        url = bucket.sign("key")
    assert canary not in caplog.text
    assert canary not in url


def test_a_key_that_is_no_base64_is_told_without_it(azure_double: AzureDouble) -> None:
    canary = "canary!canary"
    with shiftable.connect("azure", **{**azure_double.config, "account_key": Credential.literal(canary)}) as cloud:
        with pytest.raises(Unauthenticated) as caught:
            cloud.blob.bucket("shop").put("key", b"x")
        assert canary not in "".join(traceback.format_exception(caught.value))


def test_a_malformed_connection_string_is_told_without_it() -> None:
    canary = "AccountKey=canary"
    with shiftable.connect("azure", connection_string=Credential.literal(canary)) as cloud:
        with pytest.raises(ConfigError) as caught:
            cloud.blob.bucket("shop").put("key", b"x")
        assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_a_connection_string_is_enough(bucket: Bucket, azure_double: AzureDouble) -> None:
    bucket.put("key", b"x")
    with shiftable.connect("azure", connection_string=Credential.literal(azure_double.connection_string)) as cloud:
        other = cloud.blob.bucket("shop")
        assert other.get("key") == b"x"
        other.copy("key", "copied")
        assert fetched(other.sign("copied")) == (200, b"x")


def fetched(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=data, method=method, headers=named)  # noqa: S310  the double's URL
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  the same
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_signed_url_is_for_one_method_one_key_and_a_while(bucket: Bucket, azure_double: AzureDouble) -> None:
    for key in ("key", "other"):
        bucket.put(key, b"content")
    url = bucket.sign("key", expires=timedelta(minutes=5))
    assert fetched(url) == (200, b"content")
    assert fetched(url, "DELETE")[0] == 403
    assert fetched(url, "PUT", b"x", x_ms_blob_type="BlockBlob")[0] == 403
    assert fetched(url.replace("/key?", "/other?"))[0] == 403
    assert fetched(url.replace("sp=r", "sp=rw"))[0] == 403
    assert fetched(url.replace("sig=", "sig=A"))[0] == 403
    azure_double.clock.advance(timedelta(minutes=6))
    status, body = fetched(url)
    assert (status, b"AuthenticationFailed" in body) == (403, True)
    assert held(azure_double, "key") == b"content"


def test_a_signed_put_needs_the_header_that_it_names(bucket: Bucket, azure_double: AzureDouble) -> None:
    url: Any = bucket.sign("key", method="PUT", content_type="text/x")
    assert url.headers == {"x-ms-blob-type": "BlockBlob", "Content-Type": "text/x"}
    status, body = fetched(url, "PUT", b"x")
    assert (status, b"MissingRequiredHeader" in body) == (400, True)
    assert fetched(url, "PUT", b"x", **{name.replace("-", "_"): value for name, value in url.headers.items()})[0] == 201
    assert (held(azure_double, "key"), bucket.stat("key").headers.content_type) == (b"x", "text/x")


def test_urls_are_valid_for_a_week_at_most(bucket: Bucket) -> None:
    assert "sig=" in bucket.sign("key", expires=timedelta(days=7))
    with pytest.raises(InvalidArgument, match="7 days"):
        bucket.sign("key", expires=timedelta(days=7, seconds=1))


def _sas(azure_double: AzureDouble, permission: str, hours: float = 1) -> Credential:
    from azure.storage.blob import generate_container_sas

    return Credential.literal(
        generate_container_sas(
            azure_double.account,
            "shop",
            account_key=azure_double.config["account_key"].reveal(),
            permission=permission,
            expiry=datetime.now(UTC) + timedelta(hours=hours),
        )
    )


def test_a_shared_access_signature_may_do_what_it_says_and_signs_no_urls(
    bucket: Bucket, azure_double: AzureDouble
) -> None:
    bucket.put("key", b"x", tags={"a": "1"})
    known = {name: value for name, value in azure_double.config.items() if name != "account_key"}
    with shiftable.connect("azure", **known, sas_token=_sas(azure_double, "racwdlt")) as cloud:
        other = cloud.blob.bucket("shop")
        other.put("new", b"y")
        assert [item.key for item in other.list()] == ["key", "learned", "new"]
        assert other.copy("key", "copied").size == 1
        assert other.tags("copied") == {"a": "1"}
        assert other.delete_many(["new", "copied"]) == {}
        with pytest.raises(Unsupported, match="signs no URLs"):
            other.sign("key")
    with shiftable.connect("azure", **known, sas_token=_sas(azure_double, "rl")) as cloud:
        reader = cloud.blob.bucket("shop")
        assert reader.get("key") == b"x"
        for use in (lambda: reader.put("key", b"y"), lambda: reader.delete("key"), lambda: reader.tags("key")):
            with pytest.raises(PermissionDenied):
                use()
    with (
        shiftable.connect("azure", **known, sas_token=_sas(azure_double, "rl", hours=-1)) as cloud,
        pytest.raises(Unauthenticated),
    ):
        cloud.blob.bucket("shop").get("key")
    assert held(azure_double, "key") == b"x"


def test_a_signature_is_in_no_traceback_of_a_connection_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sas = Credential.literal("sv=2026-10-06&sp=r&se=2030-01-01&sr=c&sig=Y2FuYXJ5%3D")
    settings: Any = {"storage_account": "a", "endpoint": "http://127.0.0.1:1/a", "sas_token": sas, "max_attempts": 1}
    with shiftable.connect("azure", **settings) as cloud, pytest.raises(Unavailable) as caught:
        cloud.blob.bucket("shop").get("key")
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "Y2FuYXJ5" not in shown
    assert "127.0.0.1" in shown


def test_a_signature_for_new_blobs_overwrites_none(bucket: Bucket, azure_double: AzureDouble) -> None:
    bucket.put("key", b"theirs")
    known = {name: value for name, value in azure_double.config.items() if name != "account_key"}
    with shiftable.connect("azure", **known, sas_token=_sas(azure_double, "c")) as cloud:
        cloud.blob.bucket("shop").put("new", b"x")
        with pytest.raises(PermissionDenied) as caught:
            cloud.blob.bucket("shop").put("key", b"x")
        assert caught.value.code == "UnauthorizedBlobOverwrite"
    assert held(azure_double, "key") == b"theirs"


class Identity:
    """Hands out the double's token, and counts how often it is asked."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.asked: list[tuple[str, ...]] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.asked.append(scopes)
        return AccessToken(self._token, int(time.time()) + 3600)


@pytest.fixture
def as_identity(azure_double: AzureDouble) -> Iterator[tuple[Bucket, Identity]]:
    """Return a bucket in the hands of Microsoft Entra's identities, under Azure's own host name."""
    identity = Identity(azure_double.token)
    session = Session(
        AzureSettings(storage_account=azure_double.account),
        credential=identity,
        transport=ToLoopback(azure_double.url),
    )
    driver = AzureBlobDriver(session, _features.BLOB)
    yield BlobStore(driver).create(BucketSpec(name="shop")), identity
    driver.close()


def test_an_identity_does_everything_without_a_key(
    as_identity: tuple[Bucket, Identity], azure_double: AzureDouble
) -> None:
    bucket, identity = as_identity
    bucket.put("a b", b"content", tags={"t": "1"})
    assert bucket.copy("a b", "copied", if_absent=True).size == 7
    assert held(azure_double, "copied") == b"content"
    assert bucket.delete_many(["copied", "absent"]) == {}
    assert [item.key for item in bucket.list()] == ["a b"]
    assert {call.host for call in azure_double.calls} == {f"{azure_double.account}.blob.core.windows.net"}
    assert set(identity.asked) == {("https://storage.azure.com/.default",)}


def test_an_identity_signs_urls_with_a_delegated_key_that_it_asks_for_once(
    as_identity: tuple[Bucket, Identity], azure_double: AzureDouble
) -> None:
    bucket, _ = as_identity
    bucket.put("a b", b"content")
    for _ in range(3):
        url = bucket.sign("a b", expires=timedelta(days=1))
    here = url.replace(
        f"https://{azure_double.account}.blob.core.windows.net", f"{azure_double.url}/{azure_double.account}"
    )
    assert fetched(here) == (200, b"content")
    assert fetched(here.replace("sp=r", "sp=rd"))[0] == 403
    assert len(tried(azure_double, "GetUserDelegationKey")) == 1


def test_whoever_was_told_of_no_tags_does_not_know_that_there_are_none(as_identity: tuple[Bucket, Identity]) -> None:
    bucket, _ = as_identity
    assert bucket.put("none", b"x").tag_count == 0
    assert bucket.stat("none").tag_count is None
    bucket.put("some", b"x", tags={"a": "1"})
    assert bucket.stat("some").tag_count == 1
    assert bucket.stat("none").tag_count == 0


def test_a_token_that_is_not_known_is_unauthenticated(azure_double: AzureDouble) -> None:
    session = Session(
        AzureSettings(storage_account=azure_double.account),
        credential=Identity("canary-token"),
        transport=ToLoopback(azure_double.url),
    )
    with pytest.raises(Unauthenticated) as caught:
        BlobStore(AzureBlobDriver(session, _features.BLOB)).bucket("shop").put("key", b"x")
    assert "canary-token" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("known", "match"),
    [
        ({"account_key": Credential.literal("x")}, "storage_account"),
        ({"endpoint": "https://a.blob.core.windows.net?sv=1&sig=x"}, "sas_token"),
        ({"endpoint": "a.blob.core.windows.net"}, "URL"),
        (
            {"storage_account": "a", "sas_token": Credential.literal("x"), "account_key": Credential.literal("x")},
            "exclude",
        ),
        ({"endpoint": "https://x", "connection_string": Credential.literal("x")}, "takes the place"),
        ({"client_secret": Credential.literal("x")}, "tenant"),
        ({"max_attempts": 0}, "max_attempts"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(known: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AzureSettings(**known)


def test_without_an_account_it_is_said_what_is_missing() -> None:
    with shiftable.connect("azure") as cloud, pytest.raises(ConfigError, match="storage_account"):
        cloud.blob.bucket("shop").put("key", b"x")


# keys


HOSTILE = (
    "a//b",
    "//a",
    "/",
    "//",
    "a/",
    "%2e%2e/x",
    "a%2Fb",
    "?x=1&y",
    "#",
    "a b+c",
    "é\u0301",
    "~",
    "x;y=z",
    "...x/a..b",
)


@pytest.mark.parametrize("key", HOSTILE)
def test_a_key_goes_over_the_wire_as_it_is(bucket: Bucket, azure_double: AzureDouble, key: str) -> None:
    bucket.put(key, b"x", tags={"a": "1"})
    assert set(azure_double.service.containers["shop"].blobs) == {key, "learned"}
    bucket.set_tags(key, {})
    assert bucket.get(key) == b"x"
    assert bucket.copy(key, f"copy {key}").size == 1
    assert bucket.delete_many([key, f"copy {key}"]) == {}
    bucket.put(key, iter([bytes(9 * MIB)]))
    bucket.delete(key)
    assert set(azure_double.service.containers["shop"].blobs) == {"learned"}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("a\\b", "backslash"), ("a.", "dot"), ("a./b", "dot"), (".", "dot"), ("..", "dot"), ("../x", "dot"),
        ("a/../b", "dot"), ("...", "dot"), ("a\x00", r"U\+0000"), ("a\x1f", r"U\+001F"), ("a\x7f", r"U\+007F"),
        ("a\x81", r"U\+0081"), ("a\nb", r"U\+000A"), ("\uffff", r"U\+FFFF"), ("x" * 1025, "1,024"),
        ("\U0001f600" * 513, "1,024"), ("a/" * 254 + "b", "254"), ("", "empty"), ("\ud800", "Unicode"),
    ],
)  # fmt: skip
def test_a_key_that_azure_would_change_or_refuse_is_refused_before_anything_is_sent(
    bucket: Bucket, azure_double: AzureDouble, key: str, why: str
) -> None:
    before = len(azure_double.calls)
    with pytest.raises(InvalidArgument, match=why):
        bucket.put(key, b"x")
    assert len(azure_double.calls) == before


@pytest.mark.parametrize("key", ["x" * 1024, "\U0001f600" * 512, "日" * 1024, "a/" * 253 + "b", "/" * 253])
def test_keys_up_to_the_limits_are_held(bucket: Bucket, key: str) -> None:
    bucket.put(key, b"x")
    assert bucket.get(key) == b"x"
    assert key in {item.key for item in bucket.list()}


@pytest.mark.parametrize(("sent", "kept"), [("a\\b", "a/b"), ("a.", "a"), ("b./c", "b/c")])
def test_the_double_changes_what_azure_changes(bucket: Bucket, native: Any, sent: str, kept: str) -> None:
    native.get_blob_client("shop", sent).upload_blob(b"x")
    assert [item.key for item in bucket.list()] == sorted([kept, "learned"])


@pytest.mark.parametrize("name", ["ab", "x" * 64, "Upper", "under_score", "-ab", "ab-", "a--b", "a.b", "a b", "$other"])
def test_names_that_azure_refuses_are_refused(driver: AzureBlobDriver, name: str) -> None:
    assert driver.check_name(name) is not None


@pytest.mark.parametrize("name", ["abc", "x" * 63, "a-b-c", "0-9", "$web", "$root"])
def test_names_that_azure_takes_are_taken(driver: AzureBlobDriver, name: str) -> None:
    assert driver.check_name(name) is None


@pytest.mark.parametrize(
    "metadata",
    [{"a-b": "x"}, {"1a": "x"}, {"é": "x"}, {"a": "é"}, {"a": ""}, {"a": " x"}, {"a": "x  y"}, {"a": "x", "A": "y"}],
)
def test_metadata_that_azure_would_not_give_back_is_refused(driver: AzureBlobDriver, metadata: dict[str, str]) -> None:
    assert driver.check_metadata(metadata) is not None


@pytest.mark.parametrize("tags", [{"a": "é"}, {"a,b": "x"}, {"": "x"}, {"a" * 129: "x"}, {"a": "x" * 257}, {"a": "?"}])
def test_tags_that_azure_does_not_know_are_refused_before_anything_is_sent(
    bucket: Bucket, azure_double: AzureDouble, tags: dict[str, str]
) -> None:
    before = len(azure_double.calls)
    for use in (
        lambda: bucket.put("key", b"x", tags=tags),
        lambda: bucket.put("key", iter([bytes(9 * MIB)]), tags=tags),
        lambda: bucket.set_tags("key", tags),
    ):
        with pytest.raises(InvalidArgument):
            use()
    assert len(azure_double.calls) == before


def test_a_header_that_is_no_ascii_is_refused(bucket: Bucket) -> None:
    with pytest.raises(InvalidArgument, match="content_disposition"):
        bucket.put("key", b"x", headers=Headers(content_disposition='attachment; filename="é"'))


# containers


def test_a_container_that_holds_only_older_versions_is_not_deleted(azure_double: AzureDouble) -> None:
    azure_double.service.versioning = True
    with shiftable.connect("azure", **azure_double.config, blob_versioning=True) as cloud:
        bucket = cloud.blob.create(BucketSpec(name="shop", versioning=True))
        bucket.put("key", b"1")
        bucket.delete("key")
        with pytest.raises(Conflict):
            cloud.blob.delete("shop")
        (row,) = bucket.versions()
        bucket.delete("key", version=row.version)
        cloud.blob.delete("shop")


def test_a_new_container_is_closed_to_the_public(bucket: Bucket, azure_double: AzureDouble) -> None:
    bucket.put("key", b"x")
    assert fetched(f"{azure_double.url}/{azure_double.account}/shop/key")[0] == 401


def test_a_container_that_somebody_opened_is_shown_and_closed_and_keeps_its_policies(
    store: BlobStore, bucket: Bucket, native: Any, azure_double: AzureDouble
) -> None:
    policy = AccessPolicy(permission="r", expiry="2030-01-01T00:00:00Z", start="2020-01-01T00:00:00Z")
    native.get_container_client("shop").set_container_access_policy({"readers": policy}, public_access="blob")
    spec = BucketSpec(name="shop")
    assert store.describe("shop").public
    (change,) = store.diff(spec)
    assert [field.name for field in change.fields] == ["public"]
    store.apply(change)
    assert store.describe("shop") == spec
    assert store.describe("shop").encryption == "$account-encryption-key"
    found = native.get_container_client("shop").get_container_access_policy()
    assert found["public_access"] is None
    assert [(kept.id, kept.access_policy.permission) for kept in found["signed_identifiers"]] == [("readers", "r")]
    assert azure_double.service.containers["shop"].public is None


def test_an_archived_object_is_a_conflict_to_read(bucket: Bucket) -> None:
    bucket.put("key", b"x", storage_class="archive")
    assert bucket.stat("key").storage_class == "Archive"
    with pytest.raises(Conflict) as caught:
        bucket.get("key")
    assert caught.value.code == "BlobArchived"


def test_versions_of_one_object_come_together_over_pages_newest_first(azure_double: AzureDouble) -> None:
    azure_double.service.versioning, azure_double.service.page_size = True, 2
    with shiftable.connect("azure", **azure_double.config, blob_versioning=True) as cloud:
        bucket = cloud.blob.create(BucketSpec(name="shop", versioning=True))
        for number in range(5):
            for key in ("a", "a/b", "\uff5e", "\U0001f600"):
                bucket.put(key, b"%d" % number)
        bucket.delete("a/b")
        rows = list(bucket.versions())
        assert [row.key for row in rows] == ["a"] * 5 + ["a/b"] * 5 + ["\uff5e"] * 5 + ["\U0001f600"] * 5
        read = [bucket.get(row.key, version=row.version) for row in rows]
        assert read == [b"4", b"3", b"2", b"1", b"0"] * 4
        assert [row.latest for row in rows if row.key == "a"] == [True, False, False, False, False]
        assert not any(row.latest for row in rows if row.key == "a/b")


# the provider


def test_asking_for_the_features_loads_no_sdk() -> None:
    code = (
        "import sys; from shiftable_azure import AzureProvider, AzureSettings;"
        "AzureProvider.features(); AzureProvider(AzureSettings());"
        "sys.exit(any(name.partition('.')[0] in {'azure', 'requests', 'msal'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_provider_hands_out_this_driver_and_the_sdks_client(azure_double: AzureDouble) -> None:
    with shiftable.connect("azure", **azure_double.config) as cloud:
        bucket = cloud.blob.create(BucketSpec(name="shop"))
        bucket.put("key", b"x")
        client = bucket.unwrap(AzureBlobDriver).session.blobs
        assert client.get_blob_client("shop", "key").download_blob().readall() == b"x"
        assert cloud.unwrap(AzureProvider).session.blobs is client


def test_the_session_shows_no_credential(azure_double: AzureDouble) -> None:
    provider = AzureProvider(AzureSettings(**azure_double.config))
    key = azure_double.config["account_key"].reveal()
    assert provider.session.blobs.account_name == azure_double.account
    for shown in (repr(provider), repr(provider.session), repr(provider.blob()), repr(provider.settings)):
        assert key not in shown
    provider.close()


def test_a_missing_version_is_not_found(azure_double: AzureDouble) -> None:
    azure_double.service.versioning = True
    with shiftable.connect("azure", **azure_double.config, blob_versioning=True) as cloud:
        bucket = cloud.blob.create(BucketSpec(name="shop", versioning=True))
        bucket.put("key", b"x")
        with pytest.raises(NotFound):
            bucket.get("key", version="2020-01-01T00:00:00.0000000Z")
