"""Cloud Storage through the conformance classes, and what is its own."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from google.api_core.exceptions import BadRequest, NotFound
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.blob import BlobStore, Bucket, BucketSpec, sync
from shiftable.blob.driver import CorsRule, LifecycleRule, ObjectVersion, PutOptions
from shiftable.errors import IntegrityError, InvalidArgument, PreconditionFailed, Unsupported
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle, blob_machine
from shiftable_gcp import GcpSettings, _cors
from shiftable_gcp._crc32c import combined, crc32c, told
from shiftable_gcp._session import Session
from shiftable_gcp._state import Conditions, Stored
from shiftable_gcp.blob import GcsDriver
from shiftable_gcp.double import GcpDouble


class Inside:
    """Looks into the double's own tables."""

    def __init__(self, double: GcpDouble) -> None:
        self._state = double.state

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        with self._state.lock:
            self._state.write(bucket, Stored(name=key, data=data), Conditions())

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        found = self._state.bucket(bucket).live(key)
        return None if found is None else found.data

    def keys(self, bucket: str) -> list[str]:
        holder = self._state.bucket(bucket)
        return [name for name in holder.objects if holder.live(name) is not None]


@pytest.fixture
def driver(gcp_double: GcpDouble) -> Iterator[GcsDriver]:
    made = GcsDriver(Session(GcpSettings(**gcp_double.config)))
    yield made
    made.close()


class TestCloudStorage(BlobConformance):
    @pytest.fixture
    def driver(self, driver: GcsDriver) -> GcsDriver:
        return driver

    @pytest.fixture
    def oracle(self, gcp_double: GcpDouble) -> BlobOracle:
        return Inside(gcp_double)

    @pytest.fixture(autouse=True)
    def _time(self, gcp_double: GcpDouble) -> None:
        self._double = gcp_double

    def advance(self, by: timedelta) -> None:
        self._double.clock.advance(by)

    def test_the_machine_finds_no_difference_to_the_model(self, driver: GcsDriver) -> None:
        run_state_machine_as_test(
            blob_machine(lambda: BlobStore(driver)),
            settings=settings(max_examples=8, stateful_step_count=25, suppress_health_check=list(HealthCheck)),
        )


# what is Cloud Storage's own


class TestCloudStorageOverTheBulkLane(TestCloudStorage):
    @pytest.fixture
    def driver(self, driver: GcsDriver) -> GcsDriver:
        lane = driver.lane()
        assert lane is not driver
        assert lane.lane() is lane
        return lane


@pytest.fixture
def store(driver: GcsDriver) -> BlobStore:
    return BlobStore(driver)


@pytest.fixture
def bucket(store: BlobStore, gcp_double: GcpDouble) -> Bucket:
    made = store.create(BucketSpec(name="shop"))
    gcp_double._calls.clear()
    return made


def operations(double: GcpDouble) -> list[str]:
    return [call.operation.removeprefix("storage.") for call in double.calls if call.path != "/token"]


def test_a_new_bucket_is_closed_to_the_public_and_lies_in_the_region(bucket: Bucket, gcp_double: GcpDouble) -> None:
    found = gcp_double.state.bucket("shop")
    assert found.location == gcp_double.region.upper()
    assert found.properties["iamConfiguration"]["publicAccessPrevention"] == "enforced"
    assert found.properties["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"] is True


def test_a_bucket_with_versions_is_made_in_one_call(store: BlobStore, gcp_double: GcpDouble) -> None:
    store.create(BucketSpec(name="history", versioning=True))
    assert operations(gcp_double) == ["buckets.insert"]


def test_what_a_listing_has_told_of_is_read_by_one_request(
    bucket: Bucket, gcp_double: GcpDouble, tmp_path: Path
) -> None:
    bucket.put("key", b"content")
    (listed,) = bucket.list()
    gcp_double._calls.clear()
    assert b"content" == bucket.get(listed)
    assert b"ont" == bucket.get(listed, start=1, stop=4)
    assert ["objects.get"] * 2 == operations(gcp_double)
    with bucket.open("key") as file:
        raw: Any = file
        assert (b"c", 5, b"nt") == (raw.raw.read(1), raw.raw.seek(5), raw.raw.read(2))
    assert ["objects.get"] * 5 == operations(gcp_double)
    gcp_double._calls.clear()
    assert [None] == [step.error for step in sync(bucket, tmp_path)]
    assert ["objects.list", "objects.get"] == operations(gcp_double)


def test_what_a_listing_does_not_tell_is_asked_for_once_it_is_wanted(bucket: Bucket, gcp_double: GcpDouble) -> None:
    bucket.put("key", b"content", metadata={"a": "b"})
    (listed,) = bucket.list()
    gcp_double._calls.clear()
    with bucket.stream(listed) as stream:
        assert (b"content", listed.modified) == (stream.read(), stream.summary.modified)
        assert ["objects.get"] == operations(gcp_double)
        assert [{"a": "b"}] * 2 == [stream.info.metadata for _ in range(2)]
        assert ["objects.get"] * 2 == operations(gcp_double)
    with bucket.stream(listed) as stream:
        bucket.put("key", b"another")
        with pytest.raises(PreconditionFailed):
            _ = stream.info


def test_content_that_is_not_what_was_told_is_found_by_its_crc32c_alone(bucket: Bucket, gcp_double: GcpDouble) -> None:
    bucket.put("key", b"content")
    stored = gcp_double.state.bucket("shop").find("key", None)
    stored.md5, stored.components = None, 2  # as of an object that is made of others
    (listed,) = bucket.list()
    assert [b"content"] * 2 == [bucket.get("key"), bucket.get(listed)]
    stored.data = b"cOntent"
    for item in ("key", listed):
        with pytest.raises(IntegrityError, match="CRC32C"):
            bucket.get(item)
    assert b"cOn" == bucket.get(listed, stop=3)


def test_a_version_that_was_listed_is_read_when_it_is_no_longer_the_newest(store: BlobStore) -> None:
    bucket = store.create(BucketSpec(name="history", versioning=True))
    old = bucket.put("key", b"old")
    bucket.put("key", b"new")
    with pytest.raises(PreconditionFailed):
        bucket.get(old)
    assert b"old" == bucket.get(old, version=old.version)


@pytest.mark.parametrize(
    "name",
    [
        "ab",
        "Shop",
        "goog-shop",
        "my-google-shop",
        "1.2.3.4",
        "a..b",
        "a.-b",
        "-shop",
        "shop-",
        "x" * 64,
        "a" * 64 + ".b",
    ],
)
def test_a_bucket_name_that_google_refuses_is_refused_before_anything_is_sent(store: BlobStore, name: str) -> None:
    with pytest.raises(InvalidArgument):
        store.bucket(name)


@pytest.mark.parametrize("name", ["abc", "a_b", "a.b", "0-9", "x" * 63, ".".join(["x" * 55] * 3)])
def test_a_bucket_name_that_google_takes_is_taken(store: BlobStore, name: str) -> None:
    assert store.bucket(name).name == name


@pytest.mark.parametrize("key", [".", "..", "a\nb", "a\rb", ".well-known/acme-challenge/token"])
def test_a_key_that_google_refuses_is_refused_before_anything_is_sent(
    bucket: Bucket, gcp_double: GcpDouble, key: str
) -> None:
    with pytest.raises(InvalidArgument):
        bucket.put(key, b"x")
    assert gcp_double.calls == ()


@pytest.mark.parametrize(
    "key", ["../x", "a/../b", "./x", "a/.", "//", "/", "a//b", "?#%+ &", "\x00\x1f\x7f\ufffe", "é" * 512]
)
def test_any_other_key_goes_in_one_piece_in_parts_and_from_place_to_place(bucket: Bucket, key: str) -> None:
    bucket.put(key, b"short")
    assert bucket.get(key) == b"short"
    data = bytes(9 * 1024 * 1024)
    bucket.put(key, iter([data]))
    assert bucket.get(key) == data
    bucket.put(key, iter([data]), if_match=bucket.put(key, b"old").token)
    assert bucket.get(key) == data
    bucket.copy(key, "copied")
    bucket.copy("copied", key, if_match=bucket.stat(key).token)
    assert sorted(item.key for item in bucket.list()) == sorted(["copied", key])
    bucket.delete(key)
    assert [item.key for item in bucket.list()] == ["copied"]


def test_an_operation_costs_no_more_calls_than_it_needs(bucket: Bucket, gcp_double: GcpDouble) -> None:
    for act, expected in (
        (lambda: bucket.put("key", b"x"), ["objects.insert", "buckets.get"]),  # whether it keeps versions, once
        (lambda: bucket.put("key", b"x"), ["objects.insert"]),
        (lambda: bucket.stat("key"), ["objects.get"]),
        (lambda: bucket.get("key"), ["objects.get", "objects.get"]),  # everything about it, then the bytes
        (lambda: list(bucket.list()), ["objects.list"]),
        (lambda: bucket.copy("key", "other"), ["objects.get", "objects.rewrite"]),
        (lambda: bucket.delete("key"), ["objects.delete"]),
    ):
        gcp_double._calls.clear()
        act()
        assert operations(gcp_double) == expected


def test_a_listing_tells_md5_and_crc32c(bucket: Bucket) -> None:
    bucket.put("key", b"hello")
    (found,) = bucket.list()
    assert found.md5 == hashlib.md5(b"hello", usedforsecurity=False).digest()
    assert found.checksums == {"crc32c": bytes.fromhex("9a71bb4c")}
    assert found.storage_class == "STANDARD"


def test_an_md5_that_is_known_is_sent_and_compared(driver: GcsDriver, bucket: Bucket) -> None:
    digest = hashlib.md5(b"right", usedforsecurity=False).digest()
    driver.put("shop", "key", b"right", PutOptions(md5=digest))
    with pytest.raises(BadRequest) as caught:
        driver.put("shop", "key", b"wrong", PutOptions(md5=digest))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert fault.error is IntegrityError
    assert bucket.get("key") == b"right"


def test_a_listing_begins_behind_a_key_also_with_folders(driver: GcsDriver, bucket: Bucket) -> None:
    for key in ("a", "b/1", "b/2", "c"):
        bucket.put(key, b"")

    def listed(start_after: str) -> list[str]:
        page = driver.list("shop", prefix="", delimiter="/", start_after=start_after, cursor=None, limit=None)
        return [getattr(item, "key", None) or getattr(item, "prefix", "") for item in page.items]

    assert listed("a") == ["b/", "c"]
    assert listed("b/1") == ["b/", "c"]
    assert listed("b/2") == ["c"]
    assert listed("b/") == ["b/", "c"]
    assert listed("c") == []


@pytest.mark.parametrize("limit", [1, 2, 3, None])
def test_histories_come_newest_first_however_pages_are_cut(
    store: BlobStore, driver: GcsDriver, gcp_double: GcpDouble, limit: int | None
) -> None:
    bucket = store.create(BucketSpec(name="history", versioning=True))
    written = {
        key: [bucket.put(key, b"%d" % n).version for n in range(count)] for key, count in (("a", 4), ("b", 1), ("c", 3))
    }
    bucket.delete("c")
    gcp_double.page_size = 2
    rows: list[ObjectVersion] = []
    cursor = None
    while True:
        page = driver.versions("history", prefix="", cursor=cursor, limit=limit)
        rows += page.items
        cursor = page.next
        if cursor is None:
            break
    assert [(row.key, row.version) for row in rows] == [
        (key, version) for key, versions in written.items() for version in reversed(versions)
    ]
    assert [row.latest for row in rows] == [True, False, False, False, True, False, False, False]


def test_buckets_are_listed_in_pages(store: BlobStore, driver: GcsDriver) -> None:
    for number in range(5):
        store.create(BucketSpec(name=f"bucket-{number}"))
    first = driver.names(None, 2)
    second = driver.names(first.next, 2)
    third = driver.names(second.next, 2)
    assert first.items + second.items + third.items == tuple(f"bucket-{number}" for number in range(5))
    assert third.next is None


def test_a_storage_class_is_kept_in_one_piece_and_in_parts(driver: GcsDriver, bucket: Bucket) -> None:
    bucket.put("short", b"x", storage_class="cold")
    bucket.put("long", iter([bytes(9 * 1024 * 1024)]), storage_class="ARCHIVE")
    bucket.put("staged", iter([bytes(9 * 1024 * 1024)]), storage_class="NEARLINE", if_absent=True)
    bucket.put("described", iter([bytes(9 * 1024 * 1024)]), storage_class="COLDLINE", metadata={"Upper": "x"})
    assert {item.key: item.storage_class for item in bucket.list()} == {
        "short": "COLDLINE",
        "long": "ARCHIVE",
        "staged": "NEARLINE",
        "described": "COLDLINE",
    }


def test_a_presigned_url_says_what_it_is_good_for(bucket: Bucket, gcp_double: GcpDouble) -> None:
    bucket.put("key", b"x")
    with pytest.raises(InvalidArgument, match="7 days"):
        bucket.sign("key", expires=timedelta(days=8))
    with pytest.raises(InvalidArgument, match="segment"):
        bucket.sign("a/../b")
    url = bucket.sign("key", expires=timedelta(minutes=1))
    gcp_double.clock.advance(61)
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(url, timeout=10):  # noqa: S310  the double's
        pass
    caught.value.close()
    assert caught.value.code == 400


def test_the_crc_of_parts_is_that_of_the_whole() -> None:
    pieces = [bytes(range(n % 256)) * n for n in (0, 1, 7, 300, 1000, 0, 3)]
    assert combined((crc32c(piece), len(piece)) for piece in pieces) == crc32c(b"".join(pieces))
    assert told(crc32c(b"123456789")) == "4waSgw=="  # the check value of CRC-32/ISCSI, E3069283


def test_rules_that_say_more_than_a_declaration_are_left_alone(
    store: BlobStore, driver: GcsDriver, gcp_double: GcpDouble
) -> None:
    theirs = [
        {"action": {"type": "SetStorageClass", "storageClass": "NEARLINE"}, "condition": {"age": 30}},
        {"action": {"type": "Delete"}, "condition": {"age": 30}},  # older versions too
        {"action": {"type": "Delete"}, "condition": {"age": 9, "isLive": True, "matchesPrefix": ["a", "b"]}},
    ]
    gcp_double.state.make_bucket("shop", gcp_double.project, "US", {"lifecycle": {"rule": list(theirs)}})
    spec = store.describe("shop")
    assert (spec.lifecycle, spec.public, spec.encryption) == ((), True, None)
    wanted = BucketSpec(name="shop", lifecycle=(LifecycleRule(prefix="logs/", expire_days=9, abort_uploads_days=1),))
    (change,) = store.diff(wanted)
    store.apply(change)
    assert store.describe("shop") == wanted
    found = gcp_double.state.bucket("shop").properties
    assert found["lifecycle"]["rule"] == [
        *theirs,
        {"action": {"type": "Delete"}, "condition": {"age": 9, "isLive": True, "matchesPrefix": ["logs/"]}},
        {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1, "matchesPrefix": ["logs/"]}},
    ]
    assert found["iamConfiguration"]["publicAccessPrevention"] == "enforced"


def test_cors_rules_of_others_stay_behind_the_declared_ones(store: BlobStore, gcp_double: GcpDouble) -> None:
    theirs = [
        {"origin": ["https://a.example"], "method": ["GET", "OPTIONS"], "maxAgeSeconds": 60},
        {"origin": ["*"], "method": ["*"]},
        {"origin": ["*"], "method": ["GET"], "responseHeader": ["*"]},
    ]
    said = {"origin": ["https://b.example"], "method": ["GET"], "responseHeader": ["ETag"], "maxAgeSeconds": 0}
    properties = {"iamConfiguration": {"publicAccessPrevention": "enforced"}, "cors": [theirs[0], said, *theirs[1:]]}
    gcp_double.state.make_bucket("shop", gcp_double.project, "US", properties)
    told = CorsRule(origins=["https://b.example"], methods=["GET"], headers=["etag"], exposed=["etag"])
    assert store.describe("shop") == BucketSpec(name="shop", cors=(told,))
    ours = CorsRule(
        origins=["https://shop.example"],
        methods=["PUT"],
        headers=["Content-Type"],
        exposed=["ETag"],
        max_age=timedelta(minutes=5),
    )
    (change,) = store.diff(BucketSpec(name="shop", cors=(ours,)))
    both = attrs.evolve(ours, headers=["content-type", "etag"], exposed=["content-type", "etag"])
    assert [(field.name, field.after) for field in change.fields] == [("cors", (both,))]
    store.apply(change)
    assert gcp_double.state.bucket("shop").properties["cors"] == [
        {
            "origin": ["https://shop.example"],
            "method": ["PUT"],
            "responseHeader": ["content-type", "etag"],
            "maxAgeSeconds": 300,
        },
        *theirs,
    ]
    assert store.diff(BucketSpec(name="shop", cors=(ours,))) == ()
    store.apply(*store.diff(BucketSpec(name="shop")))
    assert gcp_double.state.bucket("shop").properties["cors"] == theirs


def test_a_cors_rule_with_something_that_is_not_known_here_is_no_rule_of_ours() -> None:
    plain = {"origin": ["*"], "method": ["GET"]}
    assert _cors.declared([plain, {**plain, "unheard": "of"}]) == (CorsRule(origins=["*"], methods=["GET"]),)


def test_a_cors_rule_for_any_header_is_refused_as_nothing_says_that_there_is_one(store: BlobStore) -> None:
    spec = BucketSpec(name="shop", cors=(CorsRule(origins=["*"], methods=["PUT"], headers=["*"], exposed=["etag"]),))
    assert store.missing_features(spec) == ("CORS rules for any header",)
    (change,) = store.diff(spec)
    with pytest.raises(Unsupported):
        store.apply(change)


def test_cors_rules_whose_answer_was_lost_are_known_again(
    store: BlobStore, driver: GcsDriver, gcp_double: GcpDouble
) -> None:
    rule = CorsRule(origins=["*"], methods=["PUT"], headers=["x-a"])
    made, changed = (BucketSpec(name="shop", cors=(each,)) for each in (rule, attrs.evolve(rule, exposed=["etag"])))
    fault = gcp_double.inject("drop_after", match=lambda call: call.operation == "storage.buckets.insert")
    store.create(made)
    assert (fault.hits, store.diff(made)) == (1, ())
    fault = gcp_double.inject("drop_after", match=lambda call: call.operation == "storage.buckets.patch")
    driver.update(store.describe("shop"), changed)
    assert (fault.hits, store.diff(changed)) == (1, ())


def test_a_bucket_with_a_key_of_the_customer_tells_it(store: BlobStore, gcp_double: GcpDouble) -> None:
    key = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    gcp_double.state.make_bucket("shop", gcp_double.project, "US", {"encryption": {"defaultKmsKeyName": key}})
    assert store.describe("shop").encryption == key


def test_buckets_of_another_account_are_copied_from_inside(
    driver: GcsDriver, gcp_double: GcpDouble, bucket: Bucket
) -> None:
    settings = GcpSettings(**{**gcp_double.config, "service_account": None})
    other = GcsDriver(Session(settings))
    bucket.put("key", b"x")
    assert other.copies_from(driver)
    assert not other.copies_from(MemoryBlobDriver())
    assert not other.copies_from(GcsDriver(Session(GcpSettings())))
    other.copy("shop", "key", "shop", "copied", None)
    assert bucket.get("copied") == b"x"
    other.close()


def test_a_bucket_is_found_without_leave_to_read_its_settings(
    driver: GcsDriver, bucket: Bucket, gcp_double: GcpDouble
) -> None:
    gcp_double.inject("status", match=lambda call: call.operation.endswith("buckets.get"), times=None, status=403)
    driver.require("shop")
    with pytest.raises(NotFound):
        driver.require("absent")


def test_an_event_based_hold_is_a_hold_until_it_is_released(bucket: Bucket, driver: GcsDriver) -> None:
    bucket.put("key", b"x")
    blob = driver.client.bucket("shop").blob("key")
    blob.event_based_hold = True
    blob.patch()
    assert bucket.stat("key").hold is True
    driver.set_hold("shop", "key", hold=False, version=None)
    assert bucket.stat("key").hold is False
