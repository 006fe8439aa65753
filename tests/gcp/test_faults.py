"""Lost answers, throttling, truncation: no write is lost, none is done twice, and a lost success is recognised."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import attrs
import pytest

from shiftable.blob import BlobStore, Bucket, BucketSpec, Headers
from shiftable.blob.driver import PutOptions
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    IntegrityError,
    NotFound,
    OperationError,
    PreconditionFailed,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from shiftable.testing.harness import Call, Kind, Request, Response
from shiftable.tokens import Token
from shiftable_gcp import GcpSettings
from shiftable_gcp._json_api import rendered
from shiftable_gcp._session import Session
from shiftable_gcp._state import Conditions, Refused, Stored
from shiftable_gcp.blob import GcsDriver
from shiftable_gcp.double import GcpDouble

from .hostile import meanwhile

pytestmark = pytest.mark.usefixtures("short_waits")

MIB = 1024 * 1024
LONG = bytes(range(256)) * 4096 * 9
SLOW = json.dumps({"error": {"code": 429, "message": "slow", "errors": [{"reason": "rateLimitExceeded"}]}}).encode()
BROKEN = json.dumps({"error": {"code": 503, "message": "broken", "errors": [{"reason": "backendError"}]}}).encode()


@pytest.fixture(params=["the SDK's lane", "the bulk lane"])
def driver(gcp_double: GcpDouble, request: pytest.FixtureRequest) -> Iterator[GcsDriver]:
    made = GcsDriver(Session(GcpSettings(**gcp_double.config)))
    yield made.lane() if request.param == "the bulk lane" else made
    made.close()


@pytest.fixture
def store(driver: GcsDriver) -> BlobStore:
    return BlobStore(driver)


@pytest.fixture
def bucket(store: BlobStore, driver: GcsDriver, gcp_double: GcpDouble) -> Bucket:
    """Return a bucket that keeps every generation, so that a test can count what was executed."""
    made = store.create(BucketSpec(name="shop", versioning=True))
    made.put("there", b"before", content_type="text/plain", metadata={"n": "v"})
    grow_old(driver, made, "there")
    gcp_double._calls.clear()
    return made


def grow_old(driver: GcsDriver, bucket: Bucket, key: str) -> None:
    """Wait until an object is known to be made before now: what is as young as a call is long may be anybody's."""
    made = driver.client.bucket(bucket.name).get_blob(key).time_created
    while not driver.session.clock.is_before(made, time.monotonic()):
        time.sleep(0.001)


def calls(operation: str, method: str = "", query: str = "") -> Callable[[Call], bool]:
    return lambda call: call.operation.endswith(operation) and method in call.method and query in call.query


def writes(double: GcpDouble, key: str) -> int:
    """Count the generations that were ever made of a key: the bucket keeps them all."""
    return len(double.state.bucket("shop").objects.get(key, ()))


@attrs.frozen
class Write:
    """One way to write, and where the fault strikes.

    Args:
        key: that is written.
        executed: how many generations of it exist in the end.
    """

    name: str
    act: Callable[[Bucket], object]
    where: Callable[[Call], bool]
    key: str
    executed: int
    left: bytes | None


def there(bucket: Bucket) -> Token:
    return bucket.stat("there").token


WRITES = (
    Write("put", lambda b: b.put("new", b"x"), calls("objects.insert"), "new", 1, b"x"),
    Write("put over", lambda b: b.put("there", b"x"), calls("objects.insert"), "there", 2, b"x"),
    Write("create", lambda b: b.put("new", b"x", if_absent=True), calls("objects.insert"), "new", 1, b"x"),
    Write("swap", lambda b: b.put("there", b"x", if_match=there(b)), calls("objects.insert"), "there", 2, b"x"),
    Write("begin", lambda b: b.put("new", iter([LONG])), calls("xml", "POST", "uploads"), "new", 1, LONG),
    Write("part", lambda b: b.put("new", iter([LONG])), calls("xml", "PUT", "partNumber=1"), "new", 1, LONG),
    Write("complete", lambda b: b.put("new", iter([LONG])), calls("xml", "POST", "uploadId"), "new", 1, LONG),
    Write(
        "complete staged",
        lambda b: b.put("new", iter([LONG]), if_absent=True),
        calls("xml", "POST", "uploadId"),
        "new",
        1,
        LONG,
    ),
    Write("move", lambda b: b.put("new", iter([LONG]), if_absent=True), calls("objects.move"), "new", 1, LONG),
    Write(
        "move over",
        lambda b: b.put("there", iter([LONG]), if_match=there(b)),
        calls("objects.move"),
        "there",
        2,
        LONG,
    ),
    Write(
        "describe staged",
        lambda b: b.put("new", iter([LONG]), metadata={"Upper": "é"}),
        calls("objects.patch"),
        "new",
        1,
        LONG,
    ),
    Write("copy", lambda b: b.copy("there", "new"), calls("objects.rewrite"), "new", 1, b"before"),
    Write("copy once", lambda b: b.copy("there", "new", if_absent=True), calls("objects.rewrite"), "new", 1, b"before"),
    Write("delete", lambda b: b.delete("there"), calls("objects.delete"), "there", 1, None),
    Write("delete that", lambda b: b.delete("there", if_match=there(b)), calls("objects.delete"), "there", 1, None),
)
FAULTS: tuple[tuple[Kind, dict[str, Any]], ...] = (
    ("drop_before", {}),
    ("drop_after", {}),
    ("status", {"status": 503, "body": BROKEN}),
    ("status", {"status": 429, "body": SLOW}),
    ("status", {"status": 502, "body": b"<html>a proxy's page</html>"}),
    ("truncate", {}),
)


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.name)
@pytest.mark.parametrize(("kind", "options"), FAULTS, ids=lambda value: str(value)[:20])
def test_a_write_is_executed_once_whatever_happens_to_its_answer(
    bucket: Bucket, gcp_double: GcpDouble, write: Write, kind: Kind, options: dict[str, Any]
) -> None:
    injection = gcp_double.inject(kind, match=write.where, **options)
    result = write.act(bucket)
    assert injection.hits == 1
    assert writes(gcp_double, write.key) == write.executed
    if write.left is None:
        assert not bucket.exists(write.key)
    else:
        assert bucket.get(write.key) == write.left
        assert result == bucket.stat(write.key)
    assert [item.key for item in bucket.list() if item.key not in {"there", "new"}] == []
    abandoned = 1 if (write.name, kind) in {("begin", "drop_after"), ("begin", "truncate")} else 0
    assert len(gcp_double.state.bucket("shop").uploads) == abandoned


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.name)
def test_a_service_that_never_answers_is_unavailable_and_nothing_is_left(
    bucket: Bucket, gcp_double: GcpDouble, store: BlobStore, driver: GcsDriver, write: Write
) -> None:
    driver.session = Session(GcpSettings(**{**gcp_double.config, "retry_seconds": 0.05}))
    gcp_double.inject("drop_before", match=write.where, times=None)
    with pytest.raises(Unavailable):
        write.act(bucket)
    assert bucket.get("there") == b"before"
    if write.name != "describe staged":
        assert [item.key for item in bucket.list()] == ["there"]
    driver.session.close()


def test_throttling_that_does_not_end_is_throttled_and_not_executed(
    bucket: Bucket, gcp_double: GcpDouble, driver: GcsDriver
) -> None:
    driver.session = Session(GcpSettings(**{**gcp_double.config, "retry_seconds": 0.05}))
    headers = [("Retry-After", "7")]
    gcp_double.inject("status", match=calls("objects.insert"), times=None, status=429, body=SLOW, headers=headers)
    with pytest.raises(Throttled) as caught:
        bucket.put("new", b"x")
    assert caught.value.retryable
    assert (caught.value.code, caught.value.retry_after) == ("rateLimitExceeded", 7.0)
    assert writes(gcp_double, "new") == 0
    driver.session.close()


@pytest.fixture
def patient(driver: GcsDriver, gcp_double: GcpDouble) -> Iterator[None]:
    """Have the driver wait as long as it takes."""
    patient = Session(GcpSettings(**{**gcp_double.config, "retry_seconds": 120}))
    driver.session = patient.lane() if driver.gives_way else patient
    yield
    driver.session.close()


def test_one_write_a_second_to_one_object_is_waited_for(bucket: Bucket, gcp_double: GcpDouble, patient: None) -> None:
    gcp_double.limit_writes()
    bucket.put("new", b"1")
    bucket.put("other", b"1")
    assert gcp_double.calls[-1].status == 200
    bucket.put("new", b"2")
    assert 429 in [call.status for call in gcp_double.calls]
    assert bucket.get("new") == b"2"
    assert writes(gcp_double, "new") == 2


def raw(double: GcpDouble, key: str, data: bytes, **more: Any) -> Stored:
    """Write as somebody else would."""
    with double.state.lock:
        return double.state.write("shop", Stored(name=key, data=data, **more), Conditions())


@pytest.mark.parametrize("theirs", [b"theirs", b"mine"])
def test_another_writers_object_is_not_taken_for_ours_after_a_lost_request(
    bucket: Bucket, gcp_double: GcpDouble, theirs: bytes
) -> None:
    raw(gcp_double, "lock", theirs, fields={"contentType": "text/plain"}, metadata={"holder": "b"})
    gcp_double.inject("drop_before", match=calls("objects.insert"))
    with pytest.raises(PreconditionFailed):
        bucket.put("lock", b"mine", content_type="text/plain", metadata={"holder": "a"}, if_absent=True)
    assert bucket.get("lock") == theirs


def test_an_older_object_with_the_same_content_is_not_taken_for_ours(bucket: Bucket, gcp_double: GcpDouble) -> None:
    raw(gcp_double, "lock", b"mine", fields={"contentType": "application/octet-stream"})
    gcp_double.clock.advance(30)
    gcp_double.inject("drop_before", match=calls("objects.insert"))
    with pytest.raises(PreconditionFailed):
        bucket.put("lock", b"mine", if_absent=True)
    assert writes(gcp_double, "lock") == 1


def test_the_clocks_may_differ(bucket: Bucket, gcp_double: GcpDouble) -> None:
    gcp_double.clock.advance(timedelta(hours=-5))
    bucket.stat("there")
    gcp_double.inject("drop_after", match=calls("objects.insert"))
    info = bucket.put("lock", b"mine", if_absent=True)
    assert info == bucket.stat("lock")
    assert writes(gcp_double, "lock") == 1


def test_a_rival_that_overwrites_us_before_we_hear_is_not_overwritten(bucket: Bucket, watched: GcpDouble) -> None:
    meanwhile(watched, "objects.insert", lambda: raw(watched, "key", b"theirs"))
    watched.inject("drop_after", match=calls("objects.insert"))
    with pytest.raises(Unavailable):
        bucket.put("key", b"mine")
    assert bucket.get("key") == b"theirs"
    assert writes(watched, "key") == 2


def test_a_rival_that_comes_between_our_look_and_our_second_try_is_not_overwritten(
    bucket: Bucket, watched: GcpDouble
) -> None:
    watched.inject("drop_before", match=calls("objects.insert"))
    meanwhile(watched, "objects.get", lambda: raw(watched, "key", b"theirs"))
    with pytest.raises(Unavailable):
        bucket.put("key", b"mine")
    assert bucket.get("key") == b"theirs"
    assert writes(watched, "key") == 1


def test_a_delete_does_not_delete_what_came_after_it(bucket: Bucket, watched: GcpDouble) -> None:
    def rival() -> None:
        time.sleep(0.1)  # else nobody could tell that it came later
        raw(watched, "there", b"newer")

    meanwhile(watched, "objects.delete", rival)
    watched.inject("drop_after", match=calls("objects.delete"))
    bucket.delete("there")
    assert bucket.get("there") == b"newer"


def test_a_delete_that_was_lost_on_the_way_is_sent_again_for_that_generation(
    bucket: Bucket, gcp_double: GcpDouble
) -> None:
    gcp_double.clock.advance(60)
    gcp_double.inject("drop_before", match=calls("objects.delete"))
    bucket.delete("there")
    assert not bucket.exists("there")
    assert ["ifGenerationMatch" in call.query for call in gcp_double.calls if call.method == "DELETE"] == [False, True]


def test_a_condition_that_fails_after_all_parts_leaves_nothing(bucket: Bucket, gcp_double: GcpDouble) -> None:
    with pytest.raises(PreconditionFailed):
        bucket.put("there", iter([LONG]), if_absent=True)
    assert bucket.get("there") == b"before"
    assert sorted(gcp_double.state.bucket("shop").objects) == ["there"]
    assert not gcp_double.state.bucket("shop").uploads


def test_nothing_is_seen_under_the_key_before_an_upload_is_complete(
    bucket: Bucket, driver: GcsDriver, watched: GcpDouble
) -> None:
    seen: list[bool] = []
    meanwhile(watched, "xml", lambda: seen.append(watched.state.bucket("shop").live("new") is not None))
    bucket.put("new", iter([LONG]), if_absent=True)
    assert seen == [False]
    assert bucket.get("new") == LONG


def test_an_upload_that_was_killed_between_its_two_steps_goes_on(
    bucket: Bucket, driver: GcsDriver, gcp_double: GcpDouble
) -> None:
    upload = driver.upload_begin("shop", "new", PutOptions(if_absent=True))
    parts = (driver.upload_part(upload, 1, LONG, 0),)
    driver.session = Session(GcpSettings(**{**gcp_double.config, "retry_seconds": 0.05}))
    injection = gcp_double.inject("drop_before", match=calls("objects.move"), times=None)
    with pytest.raises(OSError, match="Connection|Remote"):
        raise OSError(str(_raised(lambda: driver.upload_complete(upload, parts))))
    injection.times = 0
    info = driver.upload_complete(upload, parts)
    assert info == bucket.stat("new")
    assert [item.key for item in bucket.list()] == ["new", "there"]
    driver.session.close()


def _raised(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011  a native one, whichever
        call()
    return caught.value


def test_an_upload_that_is_given_up_between_its_two_steps_leaves_nothing(
    bucket: Bucket, driver: GcsDriver, gcp_double: GcpDouble
) -> None:
    upload = driver.upload_begin("shop", "new", PutOptions(if_absent=True))
    parts = (driver.upload_part(upload, 1, LONG, 0),)
    injection = gcp_double.inject("status", match=calls("objects.move"), times=None, status=403)
    _raised(lambda: driver.upload_complete(upload, parts))
    injection.times = 0
    assert len(list(bucket.list())) == 2
    driver.upload_abort(upload)
    assert [item.key for item in bucket.list()] == ["there"]
    assert sorted(gcp_double.state.bucket("shop").objects) == ["there"]
    driver.upload_abort(upload)


def test_metadata_that_no_header_carries_is_kept_on_long_objects(bucket: Bucket) -> None:
    metadata = {"Upper": "x", "n": "日本語", "empty": ""}
    headers = Headers(content_type="text/plain", content_disposition='attachment; filename="ü"')
    info = bucket.put("new", iter([LONG]), metadata=metadata, headers=headers)
    assert (info.metadata, info.headers) == (metadata, headers)
    assert bucket.stat("new") == info
    assert [item.key for item in bucket.list()] == ["new", "there"]


def test_a_part_that_is_altered_on_the_way_is_refused(bucket: Bucket, driver: GcsDriver, monkeypatch: Any) -> None:
    upload = driver.upload_begin("shop", "new", PutOptions())
    monkeypatch.setattr("shiftable_gcp._multipart.crc32c", lambda _: 7)
    caught = _raised(lambda: driver.upload_part(upload, 1, LONG, 0))
    fault = driver.classify(caught)
    assert fault is not None
    assert fault.error is IntegrityError
    driver.upload_abort(upload)


def test_an_object_that_is_not_made_of_its_parts_is_noticed(bucket: Bucket, driver: GcsDriver) -> None:
    upload = driver.upload_begin("shop", "new", PutOptions())
    part = driver.upload_part(upload, 1, LONG, 0)
    etag, _ = json.loads(part.token)
    with pytest.raises(IntegrityError, match="CRC32C"):
        driver.upload_complete(upload, (attrs.evolve(part, token=json.dumps([etag, 7])),))


# many at once


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate", "status"])
def test_a_batch_whose_answer_is_lost_is_finished_one_by_one(
    bucket: Bucket, driver: GcsDriver, gcp_double: GcpDouble, kind: Kind
) -> None:
    keys = [f"d/{number} é" for number in range(7)]
    for key in keys:
        bucket.put(key, b"x")
    grow_old(driver, bucket, keys[-1])
    gcp_double._calls.clear()
    gcp_double.inject(kind, match=calls("batch"), status=503, body=BROKEN)
    assert bucket.delete_many([*keys, "absent"]) == {}
    assert [item.key for item in bucket.list()] == ["there"]
    assert len([call for call in gcp_double.calls if call.operation == "batch"]) == 1


def test_a_batch_costs_one_call_for_a_hundred(bucket: Bucket, gcp_double: GcpDouble) -> None:
    for number in range(101):
        raw(gcp_double, f"d/{number}", b"x")
    assert bucket.delete_many([f"d/{number}" for number in range(101)]) == {}
    assert [call.operation for call in gcp_double.calls if call.path != "/token"] == ["batch", "batch"]


def test_what_a_batch_was_too_fast_for_is_deleted_a_little_later(
    bucket: Bucket, gcp_double: GcpDouble, patient: None
) -> None:
    gcp_double.limit_writes()
    bucket.put("fresh", b"x")
    assert bucket.delete_many(["fresh", "there"]) == {}
    assert list(bucket.list()) == []


def test_a_batch_does_not_delete_what_came_after_it(bucket: Bucket, watched: GcpDouble) -> None:
    def rival() -> None:
        time.sleep(0.1)  # else nobody could tell that it came later
        raw(watched, "there", b"newer")

    watched.validators.append(lambda request, _: [rival()] * 0 if request.path.startswith("/batch/") else [])
    watched.inject("drop_after", match=calls("batch"))
    assert bucket.delete_many(["there"]) == {}
    assert bucket.get("there") == b"newer"


def test_each_key_of_a_batch_has_an_error_of_its_own(
    bucket: Bucket, gcp_double: GcpDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = gcp_double._json.answer

    def answer(request: Request) -> Response | None:
        if request.method == "DELETE" and request.path.endswith("held"):
            return rendered(Refused(403, "objectUnderActiveHold", "AccessDenied", "Object is under active hold."))
        return inner(request)

    raw(gcp_double, "held", b"x")
    monkeypatch.setattr(type(gcp_double._json), "answer", lambda _, request: answer(request))
    failed = bucket.delete_many(["held", "there"])
    assert {key: (type(error), error.code) for key, error in failed.items()} == {
        "held": (Conflict, "objectUnderActiveHold")
    }
    assert [item.key for item in bucket.list()] == ["held"]


# reading


def test_a_truncated_download_goes_on_where_it_broke(bucket: Bucket, gcp_double: GcpDouble) -> None:
    bucket.put("new", iter([LONG]))
    gcp_double._calls.clear()
    gcp_double.inject("truncate", match=calls("objects.get", query="alt=media"))
    assert bucket.get("new") == LONG
    assert [call.status for call in gcp_double.calls if "alt=media" in call.query] == [200, 206]


@pytest.mark.parametrize("size", [10, 9 * MIB])
def test_an_altered_object_is_an_integrity_error(bucket: Bucket, gcp_double: GcpDouble, size: int) -> None:
    bucket.put("new", iter([bytes(size)]))
    found = gcp_double.state.bucket("shop").live("new")
    assert found is not None
    found.data = b"\x01" + found.data[1:]
    with pytest.raises(IntegrityError, match="CRC32C|MD5"):
        bucket.get("new")


def test_an_object_that_is_replaced_while_it_is_opened_is_read_whole(store: BlobStore, watched: GcpDouble) -> None:
    store.create(BucketSpec(name="plain")).put("key", b"old content")

    def replaced() -> None:
        with watched.state.lock:
            watched.state.write("plain", Stored(name="key", data=b"new"), Conditions())

    meanwhile(watched, "objects.get", replaced)
    assert store.bucket("plain").get("key") == b"new"


def test_a_listing_page_that_breaks_is_asked_for_again(bucket: Bucket, gcp_double: GcpDouble) -> None:
    for number in range(7):
        raw(gcp_double, f"k/{number}", b"")
    gcp_double.page_size = 2
    for kind in ("drop_before", "drop_after", "truncate"):
        gcp_double.inject(kind, match=calls("objects.list"))  # type: ignore[arg-type]  # each is a Kind
    assert [item.key for item in bucket.list("k/")] == [f"k/{number}" for number in range(7)]


# copies


def test_a_large_copy_takes_as_many_calls_as_it_needs(bucket: Bucket, gcp_double: GcpDouble) -> None:
    bucket.put("long", iter([LONG]), content_type="text/x", metadata={"n": "v"})
    gcp_double.rewrite_bytes = 2 * MIB
    info = bucket.copy("long", "new")
    assert info == bucket.stat("new")
    assert (bucket.get("new"), info.headers.content_type, info.metadata) == (LONG, "text/x", {"n": "v"})
    assert len([call for call in gcp_double.calls if call.operation.endswith("rewrite")]) == 5
    assert writes(gcp_double, "new") == 1


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
@pytest.mark.parametrize("if_absent", [False, True])
def test_a_large_copy_survives_a_lost_answer_at_every_step(
    bucket: Bucket, gcp_double: GcpDouble, kind: Kind, *, if_absent: bool
) -> None:
    bucket.put("long", iter([LONG]))
    for step in range(3):
        gcp_double.rewrite_bytes = 4 * MIB
        seen = iter(range(100))
        gcp_double.inject(kind, match=lambda call, n=seen, s=step: call.operation.endswith("rewrite") and next(n) == s)
        bucket.copy("long", f"new{step}", if_absent=if_absent)
        assert bucket.get(f"new{step}") == LONG
        assert writes(gcp_double, f"new{step}") == 1


def test_a_source_that_changes_while_it_is_copied_is_not_copied(bucket: Bucket, watched: GcpDouble) -> None:
    bucket.put("long", iter([LONG]))
    watched.rewrite_bytes = 4 * MIB
    meanwhile(watched, "objects.rewrite", lambda: raw(watched, "long", b"after"))
    with pytest.raises((PreconditionFailed, Conflict)):
        bucket.copy("long", "new")
    assert not bucket.exists("new")


def test_an_older_version_is_copied_though_a_newer_one_is_there(bucket: Bucket, driver: GcsDriver) -> None:
    old = bucket.stat("there").version
    bucket.put("there", b"newer")
    driver.copy("shop", "there", "shop", "there", None, version=old)
    assert bucket.get("there") == b"before"
    assert bucket.stat("there").metadata == {"n": "v"}


# buckets


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_buckets_are_made_changed_and_deleted_once(store: BlobStore, gcp_double: GcpDouble, kind: Kind) -> None:
    for operation in ("buckets.insert", "buckets.patch", "buckets.delete"):
        gcp_double.inject(kind, match=calls(operation))
    store.create(BucketSpec(name="made"))
    (change,) = store.diff(BucketSpec(name="made", versioning=True))
    store.apply(change)
    assert store.describe("made").versioning
    store.delete("made")
    assert not store.exists("made")
    assert len([call for call in gcp_double.calls if call.fault == kind]) == 3


def test_a_bucket_that_was_there_before_is_not_taken_for_ours(store: BlobStore, gcp_double: GcpDouble) -> None:
    store.create(BucketSpec(name="made"))
    gcp_double.clock.advance(30)
    gcp_double.inject("drop_before", match=calls("buckets.insert"))
    with pytest.raises(AlreadyExists):
        store.create(BucketSpec(name="made"))


def test_a_bucket_of_somebody_else_is_taken(store: BlobStore, gcp_double: GcpDouble) -> None:
    gcp_double.state.make_bucket("theirs", "another-project", "US", {})
    with pytest.raises(AlreadyExists, match="not available"):
        store.create(BucketSpec(name="theirs"))
    gcp_double.inject("drop_before", match=calls("buckets.insert"))
    gcp_double.inject("status", match=calls("buckets.get"), status=403)
    with pytest.raises(AlreadyExists):
        store.create(BucketSpec(name="theirs"))


def test_a_bucket_that_changes_meanwhile_is_not_changed(store: BlobStore, watched: GcpDouble) -> None:
    store.create(BucketSpec(name="made"))
    (change,) = store.diff(BucketSpec(name="made", versioning=True))

    def touched() -> None:
        watched.state.bucket("made").metageneration += 1

    meanwhile(watched, "buckets.get", touched, at=1)
    meanwhile(watched, "buckets.get", touched, at=2)  # the store looks first, then the driver
    with pytest.raises(Conflict):
        store.apply(change)
    assert not store.describe("made").versioning


# credentials


def test_a_token_that_is_not_good_is_unauthenticated(bucket: Bucket, driver: GcsDriver, gcp_double: GcpDouble) -> None:
    gcp_double._account._tokens.clear()
    gcp_double.inject("status", match=lambda call: call.path == "/token", times=None, status=400, body=b"{}")
    for use in (lambda: bucket.stat("there"), lambda: bucket.put("new", b"x"), lambda: bucket.delete("there")):
        with pytest.raises(Unauthenticated):
            use()


def test_a_token_that_expired_early_is_renewed(bucket: Bucket, gcp_double: GcpDouble) -> None:
    gcp_double._account._tokens.clear()
    assert bucket.get("there") == b"before"
    assert [call.status for call in gcp_double.calls if call.path != "/token"][:2] == [401, 200]


def test_a_token_of_another_provider_is_no_version(bucket: Bucket, gcp_double: GcpDouble) -> None:
    for value in ('"etag"', "0", "-1", "9" * 40):
        for use in (
            lambda token: bucket.put("there", b"x", if_match=token),
            lambda token: bucket.put("there", iter([LONG]), if_match=token),
            lambda token: bucket.get("there", if_match=token),
            lambda token: bucket.delete("there", if_match=token),
            lambda token: bucket.copy("there", "new", if_match=token),
        ):
            with pytest.raises(PreconditionFailed):
                use(Token(value))
    assert writes(gcp_double, "there") == 1


def test_a_version_of_another_provider_does_not_exist(bucket: Bucket) -> None:
    with pytest.raises(NotFound) as caught:
        bucket.get("there", version="null")
    assert type(caught.value) is NotFound
    bucket.delete("there", version="null")
    assert bucket.exists("there")


def test_a_refused_permission_is_no_missing_object(bucket: Bucket, gcp_double: GcpDouble) -> None:
    denied = json.dumps({"error": {"code": 403, "message": "no", "errors": [{"reason": "forbidden"}]}}).encode()
    for use in (
        lambda: bucket.exists("there"),
        lambda: bucket.get("there"),
        lambda: bucket.put("new", b""),
        lambda: list(bucket.list()),
        lambda: bucket.delete("there"),
    ):
        gcp_double.inject("status", status=403, body=denied)
        with pytest.raises(OperationError) as caught:
            use()
        assert type(caught.value).__name__ == "PermissionDenied"


def test_without_leave_to_see_the_bucket_an_object_tells_no_version(gcp_double: GcpDouble, bucket: Bucket) -> None:
    other = GcsDriver(Session(GcpSettings(**gcp_double.config)))
    gcp_double.inject("status", match=calls("buckets.get"), status=403)
    assert other.stat("shop", "there", version=None).version is None
    assert other.stat("shop", "there", version=bucket.stat("there").version).version is not None
    other.close()
