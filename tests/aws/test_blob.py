import hashlib
import io
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import boto3
import botocore.parsers
import botocore.session
import botocore.utils
import pytest
import urllib3
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from moto import mock_aws

import shiftable
from shiftable.blob import BlobStore, Bucket, BucketSpec, CorsRule, Headers, LifecycleRule
from shiftable.blob.driver import PutOptions
from shiftable.config import Credential
from shiftable.errors import (
    AlreadyExists,
    IntegrityError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    Throttled,
    Unavailable,
)
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle, blob_machine
from shiftable.testing.harness import Call, Request, Response
from shiftable_aws import AwsSettings
from shiftable_aws._session import Session
from shiftable_aws.blob import blob_driver
from shiftable_aws.double import AwsDouble
from shiftable_s3 import clients, cors, lifecycle, rules
from shiftable_s3.driver import S3Driver

MIB = 1024 * 1024
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
NO_UPLOAD = b"<Error><Code>NoSuchUpload</Code><Message>The specified upload does not exist.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Inside:
    """Looks into moto's own tables."""

    def __init__(self, double: AwsDouble) -> None:
        self._s3: Any = double.backend("s3", "aws")

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        self._s3.put_object(bucket, key, data)

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        found = self._s3.get_object(bucket, key)
        return None if found is None else found.value

    def keys(self, bucket: str) -> list[str]:
        return [key for key in self._s3.buckets[bucket].keys if self._s3.get_object(bucket, key) is not None]


@pytest.fixture(params=["sdk", "lane"])
def driver(aws_double: AwsDouble, request: pytest.FixtureRequest) -> Iterator[S3Driver]:
    made = blob_driver(Session(AwsSettings(**aws_double.config)))
    if request.param == "lane":
        assert made.lane() is not made
        yield made.lane()
    else:
        yield made
    made.close()


class TestAmazonS3(BlobConformance):
    @pytest.fixture
    def driver(self, driver: S3Driver) -> S3Driver:
        return driver

    @pytest.fixture
    def oracle(self, aws_double: AwsDouble) -> BlobOracle:
        return Inside(aws_double)

    @pytest.fixture(autouse=True)
    def _time(self, aws_double: AwsDouble) -> None:
        self._double = aws_double

    def advance(self, by: timedelta) -> None:
        self._double.clock.advance(by)

    def test_the_machine_finds_no_difference_to_the_model(self, driver: S3Driver) -> None:
        run_state_machine_as_test(
            blob_machine(lambda: BlobStore(driver)),
            settings=settings(max_examples=8, stateful_step_count=25, suppress_health_check=list(HealthCheck)),
        )


@pytest.fixture
def store(driver: S3Driver) -> BlobStore:
    return BlobStore(driver)


@pytest.fixture
def bucket(store: BlobStore) -> Bucket:
    return store.create(BucketSpec(name="shop"))


def to(method: str, query: str = "") -> Callable[[Call], bool]:
    return lambda call: call.method == method and query in call.query


def trace(double: AwsDouble) -> list[tuple[str, int | None, str | None]]:
    return [(call.method, call.status, call.fault) for call in double.calls]


@pytest.fixture
def fresh_log(aws_double: AwsDouble, bucket: Bucket) -> AwsDouble:
    """Return the double with nothing in its log but what the test does, though the bucket stands."""
    aws_double._calls.clear()
    return aws_double


# faults


def test_throttled_calls_are_tried_again_by_the_sdk(bucket: Bucket, fresh_log: AwsDouble) -> None:
    fresh_log.inject("status", match=to("PUT"), times=2, status=503, body=SLOW_DOWN)
    bucket.put("key", b"x")
    assert trace(fresh_log) == [("PUT", 503, "status"), ("PUT", 503, "status"), ("PUT", 200, None)]


def test_throttling_that_does_not_end_is_throttled(bucket: Bucket, aws_double: AwsDouble) -> None:
    aws_double.inject("status", match=to("PUT"), times=None, status=503, body=SLOW_DOWN)
    with pytest.raises(Throttled) as caught:
        bucket.put("key", b"x")
    assert caught.value.retryable
    assert caught.value.code == "SlowDown"


def test_a_connection_that_never_answers_is_unavailable(bucket: Bucket, aws_double: AwsDouble) -> None:
    aws_double.inject("drop_before", match=to("GET"), times=None)
    with pytest.raises(Unavailable):
        bucket.get("key")


@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
def test_a_create_only_put_whose_answer_is_lost_succeeds_once(bucket: Bucket, fresh_log: AwsDouble, fault: Any) -> None:
    fresh_log.inject(fault, match=to("PUT"))
    info = bucket.put("lock", b"mine", metadata={"holder": "a"}, content_type="text/plain", if_absent=True)
    assert bucket.get("lock") == b"mine"
    assert bucket.tags("lock") == {}  # from now on it is known what it means that no number is told
    found = bucket.stat("lock")
    assert abs(info.modified - found.modified) <= timedelta(seconds=1)  # an answer to PUT has the time of the answer
    assert attrs.evolve(info, modified=found.modified) == found
    with pytest.raises(PreconditionFailed):
        bucket.put("lock", b"mine", metadata={"holder": "a"}, content_type="text/plain", if_absent=True)


def test_a_lost_answer_to_compare_and_swap_is_found_out(bucket: Bucket, aws_double: AwsDouble) -> None:
    first = bucket.put("key", b"1")
    aws_double.inject("drop_after", match=to("PUT"))
    second = bucket.put("key", b"2", if_match=first.token)
    assert second.token == bucket.stat("key").token
    assert bucket.get("key") == b"2"


@pytest.mark.parametrize(
    "theirs",
    [
        {"Body": b"theirs"},
        {"Body": b"mine", "Metadata": {"holder": "b"}},
        {"Body": b"mine", "Metadata": {"holder": "a"}, "ContentType": "text/html"},
    ],
)
def test_another_writers_object_is_not_taken_for_ours_after_a_lost_request(
    bucket: Bucket, driver: S3Driver, aws_double: AwsDouble, theirs: Any
) -> None:
    driver.client.put_object(Bucket=bucket.name, Key="lock", **theirs)
    aws_double.inject("drop_before", match=to("PUT"))
    with pytest.raises(PreconditionFailed):
        bucket.put("lock", b"mine", metadata={"holder": "a"}, if_absent=True)


def test_an_older_object_with_the_same_content_is_not_taken_for_ours(bucket: Bucket, aws_double: AwsDouble) -> None:
    bucket.put("lock", b"mine")
    aws_double.backend("s3", "aws").buckets["shop"].keys["lock"].last_modified -= timedelta(seconds=30)
    aws_double.inject("drop_before", match=to("PUT"))
    with pytest.raises(PreconditionFailed):
        bucket.put("lock", b"mine", if_absent=True)


def test_a_multipart_upload_whose_completion_is_lost_succeeds(bucket: Bucket, aws_double: AwsDouble) -> None:
    data = bytes(range(256)) * 4096 * 9
    aws_double.inject("drop_after", match=to("POST", "uploadId"))
    aws_double.inject("status", match=to("POST", "uploadId"), status=404, body=NO_UPLOAD)
    info = bucket.put("long", data, if_absent=True)
    assert bucket.tags("long") == {}  # from now on it is known what it means that no number is told
    assert info == bucket.stat("long")
    assert bucket.get("long") == data


def test_a_completion_that_is_refused_is_not_taken_for_a_success(bucket: Bucket, aws_double: AwsDouble) -> None:
    bucket.put("long", b"theirs")
    aws_double.inject("drop_before", match=to("POST", "uploadId"))
    with pytest.raises(PreconditionFailed):
        bucket.put("long", bytes(9 * MIB), if_absent=True)
    assert bucket.get("long") == b"theirs"
    assert not aws_double.backend("s3", "aws").buckets["shop"].multiparts


def test_another_writers_object_of_the_same_parts_is_not_taken_for_ours(bucket: Bucket, aws_double: AwsDouble) -> None:
    bucket.put("long", bytes(9 * MIB), metadata={"holder": "b"})
    aws_double.inject("drop_before", match=to("POST", "uploadId"))
    with pytest.raises(PreconditionFailed):
        bucket.put("long", bytes(9 * MIB), metadata={"holder": "a"}, if_absent=True)
    assert bucket.stat("long").metadata == {"holder": "b"}


@pytest.mark.parametrize(
    "told", [{"md5": b"1" * 16}, {"md5": None, "checksums": {"crc32": b"1234"}}, {"md5": None, "checksums": {}}]
)
def test_a_copy_is_not_taken_for_ours_by_what_it_does_not_hold(
    bucket: Bucket, driver: S3Driver, aws_double: AwsDouble, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    source = attrs.evolve(bucket.put("source", b"content"), **told)
    found = driver.stat
    monkeypatch.setattr(
        S3Driver, "stat", lambda _, *where, version: source if where[1] == "source" else found(*where, version=version)
    )
    aws_double.inject("drop_after", match=to("PUT"))
    with pytest.raises(PreconditionFailed):
        bucket.copy("source", "target", if_absent=True)


def test_a_delete_whose_answer_is_lost_succeeds(bucket: Bucket, aws_double: AwsDouble) -> None:
    info = bucket.put("key", b"x")
    aws_double.inject("drop_after", match=to("DELETE"))
    bucket.delete("key", if_match=info.token)
    assert not bucket.exists("key")


def test_a_truncated_download_goes_on_where_it_broke(bucket: Bucket, fresh_log: AwsDouble) -> None:
    data = bytes(range(256)) * 4096 * 6
    fresh_log.inject("truncate", match=to("GET"))
    bucket.put("key", data)
    assert bucket.get("key") == data
    assert [call.status for call in fresh_log.calls if call.method == "GET"] == [200, 206]


def test_an_altered_object_is_an_integrity_error(bucket: Bucket, aws_double: AwsDouble) -> None:
    bucket.put("key", b"what was written")
    aws_double.backend("s3", "aws").buckets["shop"].keys["key"].value = b"what was altered"
    with pytest.raises(IntegrityError):
        bucket.get("key")


def test_content_that_is_not_what_its_md5_says_is_refused(
    driver: S3Driver, bucket: Bucket, aws_double: AwsDouble
) -> None:
    digest = hashlib.md5(b"right", usedforsecurity=False).digest()
    driver.put("shop", "key", b"right", PutOptions(md5=digest))
    with pytest.raises(ClientError) as caught:
        driver.put("shop", "key", b"wrong", PutOptions(md5=digest))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert fault.error is IntegrityError
    assert bucket.get("key") == b"right"


def test_a_slow_answer_is_waited_for(bucket: Bucket, aws_double: AwsDouble) -> None:
    injection = aws_double.inject("latency", seconds=0.2)
    bucket.put("key", b"x")
    assert injection.hits == 1


def test_the_in_process_mock_of_moto_still_works() -> None:
    with mock_aws():
        keys = {"access_key": Credential.literal("AKIA0"), "secret_key": Credential.literal("x")}
        driver = blob_driver(Session(AwsSettings(region="eu-central-1", **keys)))
        bucket = BlobStore(driver).create(BucketSpec(name="mocked"))
        bucket.put("a/key", b"content", metadata={"n": "v"})
        native = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="AKIA0", aws_secret_access_key="x")
        assert native.get_object(Bucket="mocked", Key="a/key")["Body"].read() == b"content"
        assert [item.key for item in bucket.list()] == ["a/key"]


# what is S3's own


def test_a_head_that_finds_nothing_costs_one_more_call_and_one_that_finds_costs_none(
    bucket: Bucket, fresh_log: AwsDouble
) -> None:
    bucket.put("key", b"x")
    fresh_log._calls.clear()
    assert bucket.exists("key")
    assert [call.method for call in fresh_log.calls] == ["HEAD"]
    assert not bucket.exists("absent")
    assert [call.method for call in fresh_log.calls] == ["HEAD", "HEAD", "GET"]


def test_an_etag_under_a_kms_key_is_no_md5(bucket: Bucket, driver: S3Driver) -> None:
    driver.client.put_object(Bucket="shop", Key="key", Body=b"x", ServerSideEncryption="aws:kms")
    assert bucket.stat("key").md5 is None
    assert bucket.get("key") == b"x"


def test_a_new_bucket_is_closed_to_the_public(bucket: Bucket, aws_double: AwsDouble) -> None:
    block = aws_double.backend("s3", "aws").buckets[bucket.name].public_access_block
    assert block.block_public_acls
    assert block.ignore_public_acls
    assert block.block_public_policy
    assert block.restrict_public_buckets


def test_whether_there_is_a_bucket_takes_one_call(store: BlobStore, fresh_log: AwsDouble) -> None:
    assert store.exists("shop")
    assert store.get("shop").name == "shop"
    assert [(call.method, call.query) for call in fresh_log.calls] == [("GET", "versioning")] * 2
    assert not store.exists("absent")


def test_a_bucket_that_was_opened_is_told_and_closed_again(store: BlobStore, bucket: Bucket, driver: S3Driver) -> None:
    spec = BucketSpec(name="shop")
    partly: Any = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": False}
    for opened in (
        lambda: driver.client.delete_public_access_block(Bucket="shop"),
        lambda: driver.client.put_public_access_block(Bucket="shop", PublicAccessBlockConfiguration=partly),
    ):
        assert store.diff(spec) == ()
        opened()
        (change,) = store.diff(spec)
        assert [(field.name, field.before, field.after) for field in change.fields] == [("public", True, False)]
        store.apply(change)
        assert all(driver.client.get_public_access_block(Bucket="shop")["PublicAccessBlockConfiguration"].values())


def test_rules_that_no_declaration_can_say_are_left_alone(store: BlobStore, bucket: Bucket, driver: S3Driver) -> None:
    theirs: Any = [
        {
            "ID": "to glacier",
            "Status": "Enabled",
            "Filter": {"Prefix": "old/"},
            "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}],
        },
        {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 1}},
        {"ID": "tagged", "Status": "Enabled", "Filter": {"Tag": {"Key": "a", "Value": "b"}}, "Expiration": {"Days": 1}},
    ]
    driver.client.put_bucket_lifecycle_configuration(Bucket="shop", LifecycleConfiguration={"Rules": theirs})
    assert store.describe("shop") == BucketSpec(name="shop")
    for wanted in ((LifecycleRule(prefix="logs/", expire_days=3),), ()):
        spec = BucketSpec(name="shop", lifecycle=wanted)
        store.apply(*store.diff(spec))
        assert store.describe("shop") == spec
        found = driver.client.get_bucket_lifecycle_configuration(Bucket="shop")["Rules"]
        assert [rule.get("ID") for rule in found] == [
            "to glacier", "off", "tagged", *(["shiftable logs/"] if wanted else [])
        ]  # fmt: skip


def test_a_rule_that_says_more_than_a_declaration_is_no_rule_of_ours() -> None:
    plain: dict[str, Any] = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "a/"}}
    ours = {**plain, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    assert lifecycle.declared([ours]) == (LifecycleRule(prefix="a/", expire_older_days=1),)
    for theirs in (
        {**plain, "NoncurrentVersionExpiration": {"NoncurrentDays": 1, "NewerNoncurrentVersions": 3}},
        {**plain, "Expiration": {"Date": datetime(2026, 1, 1, tzinfo=UTC)}},
        {**plain, "Expiration": {"ExpiredObjectDeleteMarker": True}},
        {**ours, "NoncurrentVersionTransitions": [{"NoncurrentDays": 1, "StorageClass": "GLACIER"}]},
        {**ours, "Filter": {"And": {"Prefix": "a/", "ObjectSizeGreaterThan": 1}}},
        plain,
    ):
        assert lifecycle.declared([theirs]) == ()
        assert lifecycle.native([ours, theirs], []) == [theirs]


def test_cors_rules_of_others_stay_behind_the_declared_ones(store: BlobStore, bucket: Bucket, driver: S3Driver) -> None:
    theirs: Any = [
        {"ID": "wild", "AllowedOrigins": ["https://*.example"], "AllowedMethods": ["GET"]},
        {"AllowedOrigins": ["https://a.example"], "AllowedMethods": ["GET"], "AllowedHeaders": ["x-amz-*"]},
    ]
    expressible: Any = {"ID": "said", "AllowedOrigins": ["https://b.example"], "AllowedMethods": ["PUT", "GET"]}
    rules: Any = {"CORSRules": [theirs[0], expressible, theirs[1]]}
    driver.client.put_bucket_cors(Bucket="shop", CORSConfiguration=rules)
    assert store.describe("shop").cors == (CorsRule(origins=["https://b.example"], methods=["GET", "PUT"]),)
    ours = CorsRule(origins=["*"], methods=["PUT"], headers=["*"], exposed=["ETag"], max_age=timedelta(hours=1))
    spec = BucketSpec(name="shop", cors=(ours,))
    store.apply(*store.diff(spec))
    assert driver.client.get_bucket_cors(Bucket="shop")["CORSRules"] == [
        {
            "AllowedOrigins": ["*"],
            "AllowedMethods": ["PUT"],
            "AllowedHeaders": ["*"],
            "ExposeHeaders": ["etag"],
            "MaxAgeSeconds": 3600,
        },
        *theirs,
    ]
    store.apply(*store.diff(BucketSpec(name="shop")))
    assert driver.client.get_bucket_cors(Bucket="shop")["CORSRules"] == theirs


def test_a_bucket_without_cors_rules_has_no_configuration_of_them(
    store: BlobStore, bucket: Bucket, driver: S3Driver
) -> None:
    spec = BucketSpec(name="shop", cors=(CorsRule(origins=["*"], methods=["GET"]),))
    store.apply(*store.diff(spec))
    store.apply(*store.diff(BucketSpec(name="shop")))
    with pytest.raises(ClientError, match="NoSuchCORSConfiguration"):
        driver.client.get_bucket_cors(Bucket="shop")


def test_a_cors_rule_that_says_more_than_a_declaration_is_no_rule_of_ours() -> None:
    plain = {"AllowedOrigins": ["https://a.example"], "AllowedMethods": ["GET"]}
    assert cors.declared([plain]) == (CorsRule(origins=["https://a.example"], methods=["GET"]),)
    for more in (
        {"AllowedOrigins": ["https://A.example"]},  # no browser tells it like that, so it is not the declared one
        {"AllowedOrigins": ["*", "https://a.example"]},
        {"AllowedMethods": []},
        {"AllowedHeaders": ["x-*"]},
        {"MaxAgeSeconds": 0},
        {"Unheard": "of"},
    ):
        theirs = {**plain, **more}
        assert cors.declared([theirs]) == ()
        assert cors.native([theirs, plain], []) == [theirs]


@pytest.mark.parametrize("more", [{"ExposeHeaders": ["*"]}, {"AllowedHeaders": ["*-*"]}, {"AllowedOrigins": ["*://*"]}])
def test_the_double_refuses_cors_rules_that_s3_refuses(bucket: Bucket, driver: S3Driver, more: dict[str, Any]) -> None:
    rule: Any = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"], **more}
    with pytest.raises(ClientError, match="wildcard"):
        driver.client.put_bucket_cors(Bucket="shop", CORSConfiguration={"CORSRules": [rule]})


def test_cors_rules_that_may_not_be_read_are_an_error(store: BlobStore, bucket: Bucket, aws_double: AwsDouble) -> None:
    aws_double.inject("status", match=to("GET", "cors"), status=403, body=DENIED)
    with pytest.raises(PermissionDenied):
        store.describe("shop")


def test_rules_in_the_old_form_are_read(store: BlobStore, bucket: Bucket, driver: S3Driver) -> None:
    old: Any = {"Rules": [{"ID": "old", "Status": "Enabled", "Prefix": "a/", "Expiration": {"Days": 5}}]}
    driver.client.put_bucket_lifecycle_configuration(Bucket="shop", LifecycleConfiguration=old)
    assert store.describe("shop").lifecycle == (LifecycleRule(prefix="a/", expire_days=5),)


@pytest.mark.parametrize("what", ["lifecycle", "cors", "publicAccessBlock", "encryption"])
def test_a_refusal_whose_reason_is_cut_off_is_asked_for_again(
    store: BlobStore, bucket: Bucket, driver: S3Driver, fresh_log: AwsDouble, what: str
) -> None:
    driver.client.delete_public_access_block(Bucket=bucket.name)  # else that answer is no refusal
    wanted = store.describe(bucket.name)
    fault = fresh_log.inject("truncate", match=lambda call: call.query == what)
    assert wanted == store.describe(bucket.name)
    assert fault.hits == 1
    fault.times = None
    with pytest.raises(Unavailable):
        store.describe(bucket.name)


def test_the_default_encryption_is_told_and_no_drift(store: BlobStore, bucket: Bucket, driver: S3Driver) -> None:
    rule: Any = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]}
    driver.client.put_bucket_encryption(Bucket="shop", ServerSideEncryptionConfiguration=rule)
    assert store.describe("shop").encryption == "aws:kms"
    assert store.diff(BucketSpec(name="shop")) == ()


def test_a_bucket_that_cannot_be_made_as_declared_is_not_made(store: BlobStore, aws_double: AwsDouble) -> None:
    aws_double.inject("status", match=to("PUT", "versioning"), status=403, body=DENIED)
    with pytest.raises(PermissionDenied):
        store.create(BucketSpec(name="half-made", versioning=True))
    assert not store.exists("half-made")


def test_the_oldest_region_too_says_that_a_bucket_exists(aws_double: AwsDouble) -> None:
    store = BlobStore(blob_driver(Session(AwsSettings(**{**aws_double.config, "region": "us-east-1"}))))
    store.create(BucketSpec(name="in-virginia"))
    with pytest.raises(AlreadyExists):
        store.create(BucketSpec(name="in-virginia"))
    assert aws_double.backend("s3", "aws").buckets["in-virginia"].region_name == "us-east-1"


def test_a_bucket_is_made_in_the_region_of_the_settings(bucket: Bucket, aws_double: AwsDouble) -> None:
    assert aws_double.backend("s3", "aws").buckets[bucket.name].region_name == "eu-central-1"


def test_buckets_are_listed_in_pages(store: BlobStore, driver: S3Driver) -> None:
    for number in range(5):
        store.create(BucketSpec(name=f"bucket-{number}"))
    first = driver.names(None, 2)
    second = driver.names(first.next, 2)
    third = driver.names(second.next, 2)
    assert first.items + second.items + third.items == tuple(f"bucket-{number}" for number in range(5))
    assert third.next is None


def test_a_large_object_is_copied_in_parts_with_all_that_belongs_to_it(
    bucket: Bucket, driver: S3Driver, fresh_log: AwsDouble
) -> None:
    data = bytes(range(256)) * 4096 * 11
    headers = Headers(content_type="text/plain", cache_control="no-store")
    bucket.put("source", data, headers=headers, metadata={"n": "v"}, tags={"team": "a b"})
    driver.copy_limit, driver.copy_part = 5 * MIB, 5 * MIB
    info = bucket.copy("source", "target")
    assert info == bucket.stat("target")
    assert bucket.get("target") == data
    assert (info.headers, info.metadata) == (headers, {"n": "v"})
    assert bucket.tags("target") == {"team": "a b"}
    assert info.token.value.endswith('-3"')


def test_a_copy_in_parts_that_fails_leaves_no_parts(bucket: Bucket, driver: S3Driver, aws_double: AwsDouble) -> None:
    bucket.put("source", bytes(11 * MIB))
    driver.copy_limit, driver.copy_part = 5 * MIB, 5 * MIB
    aws_double.inject("status", match=to("PUT", "partNumber=2"), times=None, status=403, body=DENIED)
    with pytest.raises(PermissionDenied):
        bucket.copy("source", "target")
    assert not aws_double.backend("s3", "aws").buckets["shop"].multiparts


def test_a_source_that_changes_while_it_is_copied_is_not_copied(bucket: Bucket, aws_double: AwsDouble) -> None:
    bucket.put("source", b"before")
    head = aws_double.inject("latency", match=to("HEAD"))
    aws_double.validators.append(
        lambda request, _: [] if request.method != "HEAD" else _overwritten(aws_double, "shop", "source")
    )
    try:
        with pytest.raises(PreconditionFailed):
            bucket.copy("source", "target")
    finally:
        aws_double.validators.pop()
    assert head.hits == 1


def _overwritten(double: AwsDouble, bucket: str, key: str) -> list[str]:
    double.backend("s3", "aws").put_object(bucket, key, b"after")
    return []


def test_versions_and_delete_markers_come_in_one_order_over_pages(store: BlobStore, driver: S3Driver) -> None:
    bucket = store.create(BucketSpec(name="history", versioning=True))
    for number in range(2):
        bucket.put("a", b"%d" % number)
        bucket.delete("a")
    bucket.put("a", b"last")
    bucket.put("b", b"")
    expected = [("a", False), ("a", True), ("a", False), ("a", True), ("a", False), ("b", False)]
    assert [(row.key, row.deleted) for row in bucket.versions()] == expected
    rows, cursor = [], None
    while True:
        page = driver.versions("history", prefix="", cursor=cursor, limit=1)
        rows += page.items
        cursor = page.next
        if cursor is None:
            break
    assert [(row.key, row.deleted) for row in rows] == expected
    assert [row.latest for row in rows] == [True, False, False, False, False, True]


def test_a_delete_marker_read_by_its_version_is_no_object(store: BlobStore) -> None:
    bucket = store.create(BucketSpec(name="history", versioning=True))
    bucket.put("a", b"x")
    bucket.delete("a")
    marker = next(bucket.versions())
    assert marker.deleted
    for read in (bucket.get, bucket.stat):
        with pytest.raises(NotFound):
            read("a", version=marker.version)


def test_parts_carry_checksums_that_completion_names(bucket: Bucket, aws_double: AwsDouble) -> None:
    seen: list[Request] = []

    def note(request: Request, _response: Response) -> list[str]:
        seen.append(request)
        return []

    aws_double.validators.append(note)
    try:
        bucket.put("long", bytes(9 * MIB))
    finally:
        aws_double.validators.pop()
    begin, *parts, complete = [request for request in seen if request.method in {"POST", "PUT"}]
    assert begin.headers["x-amz-checksum-algorithm"] == "CRC32"
    assert {begin.headers["x-amz-checksum-type"], complete.headers["x-amz-checksum-type"]} == {"FULL_OBJECT"}
    sent = {part.headers["x-amz-checksum-crc32"] for part in parts}
    assert all(f"<ChecksumCRC32>{checksum}</ChecksumCRC32>".encode() in complete.body for checksum in sent)


def test_presigned_urls_are_of_version_4_and_valid_for_a_week_at_most(bucket: Bucket) -> None:
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(bucket.sign("key", expires=timedelta(days=7))).query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["604800"]
    with pytest.raises(InvalidArgument, match="7 days"):
        bucket.sign("key", expires=timedelta(days=7, seconds=1))


# clients


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T12:00:00.000Z",
        "2026-11-20T12:00:00Z",
        "2026-11-20T13:00:00+01:00",
        "20261120T120000Z",
        "Fri, 20 Nov 2026 12:00:00 GMT",
        "1795176000",
        1795176000.0,
    ],
)
def test_times_are_read_as_botocore_reads_them(text: Any) -> None:
    session = botocore.session.Session()
    clients.fast_timestamps(session)
    parser = session.get_component("response_parser_factory").create_parser("rest-xml")._timestamp_parser
    assert parser(text) == datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert parser(text) == botocore.utils.parse_timestamp(text)


def test_a_text_that_is_no_time_is_refused_as_botocore_refuses_it() -> None:
    session = botocore.session.Session()
    clients.fast_timestamps(session)
    parser = session.get_component("response_parser_factory").create_parser("rest-xml")._timestamp_parser
    with pytest.raises(ValueError, match="Invalid timestamp"):
        parser("2026-yesterday")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "https://127.0.0.1:1"])
@pytest.mark.parametrize("size", [0, 4096, MIB, MIB + 1])
def test_small_objects_are_sent_without_asking_first(endpoint: str, size: int) -> None:
    keys = {"access_key": Credential.literal("AKIA0"), "secret_key": Credential.literal("x")}
    driver = blob_driver(Session(AwsSettings(region="eu-central-1", endpoint=endpoint, **keys)))
    sent: list[Any] = []

    def answer(request: Any, **_: object) -> AWSResponse:
        sent.append(request.headers)
        return AWSResponse(endpoint, 200, {"ETag": '"x"'}, urllib3.HTTPResponse(io.BytesIO(), preload_content=False))

    driver.client.meta.events.register("before-send.s3.PutObject", answer)
    driver.put("shop", "key", bytes(size), PutOptions())
    assert ["Expect" in headers for headers in sent] == [size > MIB]


def test_only_the_given_session_reads_times_anew() -> None:
    clients.fast_timestamps(boto3.Session(region_name="eu-central-1"))
    other = botocore.session.Session().get_component("response_parser_factory").create_parser("rest-xml")
    assert other._timestamp_parser is botocore.parsers.DEFAULT_TIMESTAMP_PARSER


# rules


RESERVED = ("xn--abc", "sthree-x", "amzn-s3-demo-x", "abc-s3alias", "abc--ol-s3", "abc.mrap", "abc--x-s3")
MALFORMED = ("ab", "x" * 64, "Upper", "under_score", "-x-", "x.-", ".abc", "a..b", "192.168.0.1", "a b", "name\n")


@pytest.mark.parametrize("name", [*RESERVED, *MALFORMED])
def test_names_that_amazon_refuses_are_refused(driver: S3Driver, name: str) -> None:
    assert driver.check_name(name) is not None


@pytest.mark.parametrize("name", ["abc", "x" * 63, "a.b", "0-9", "a--b", "1.2.3.4.5"])
def test_names_that_amazon_takes_are_taken(driver: S3Driver, name: str) -> None:
    assert driver.check_name(name) is None


@pytest.mark.parametrize("key", ["..", "../x", "a/../../b", "soap", "a\x00", "\x1f", "\ufffe", "é" * 513, ""])
def test_keys_that_amazon_cannot_hold_are_refused(driver: S3Driver, key: str) -> None:
    assert driver.check_key(key) is not None


@pytest.mark.parametrize("key", [".", "a/../b", "a/..", "//..", "x/soap", "Icon\r", "a\nb", "\x7f", "é" * 512])
def test_keys_that_amazon_holds_are_taken(driver: S3Driver, key: str) -> None:
    assert driver.check_key(key) is None


@pytest.mark.parametrize("key", [".", "..", "a/../b", "a/.", "./a"])
def test_keys_that_a_proxy_may_resolve_are_refused_for_other_servers(key: str) -> None:
    assert rules.server_key(key) is not None


def test_asking_for_the_features_loads_no_sdk() -> None:
    code = "import sys; from shiftable_aws.blob import FEATURES; sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_provider_hands_out_this_driver(aws_double: AwsDouble) -> None:
    with shiftable.connect("aws", **aws_double.config) as cloud:
        bucket = cloud.blob.create(BucketSpec(name="shop"))
        bucket.put("key", b"x")
        assert bucket.unwrap(S3Driver).client.get_object(Bucket="shop", Key="key")["Body"].read() == b"x"
