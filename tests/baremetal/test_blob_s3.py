import base64
import hashlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from shiftable.blob import BlobStore, BucketSpec, Token
from shiftable.config import Credential
from shiftable.errors import (
    ConfigError,
    Conflict,
    IntegrityError,
    ParentNotFound,
    PreconditionFailed,
    Unsupported,
)
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle
from shiftable.testing.harness import Request, Response
from shiftable_baremetal.blob_s3 import open_s3
from shiftable_s3.driver import S3Driver

# moto's S3 behind the AWS double, taken for what it is here: an S3-compatible server.
AwsDouble = pytest.importorskip("shiftable_aws.double", reason="the server is that of shiftable-aws[testing]").AwsDouble

MIB = 1024 * 1024
CANARY = "canary-5e2f"


class Inside:
    """Looks into the server's own tables."""

    def __init__(self, double: Any) -> None:
        self._s3: Any = double.backend("s3", "aws")

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        self._s3.put_object(bucket, key, data)

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        found = self._s3.get_object(bucket, key)
        return None if found is None else found.value

    def keys(self, bucket: str) -> list[str]:
        return [key for key in self._s3.buckets[bucket].keys if self._s3.get_object(bucket, key) is not None]


@pytest.fixture
def driver(aws_double: Any) -> Iterator[S3Driver]:
    config = aws_double.config
    made = open_s3(config["endpoint"], config["access_key"], config["secret_key"], "us-east-1")
    yield made
    made.close()


class TestServer(BlobConformance):
    @pytest.fixture
    def driver(self, driver: S3Driver) -> S3Driver:
        return driver

    @pytest.fixture
    def oracle(self, aws_double: Any) -> BlobOracle:
        return Inside(aws_double)


class TestServerOverTheBulkLane(TestServer):
    @pytest.fixture
    def driver(self, driver: S3Driver) -> S3Driver:
        lane = driver.lane()
        assert lane is not driver
        return lane


@pytest.fixture
def seen(aws_double: Any) -> Iterator[list[Request]]:
    requests: list[Request] = []

    def note(request: Request, _response: Response) -> list[str]:
        requests.append(request)
        return []

    aws_double.validators.append(note)
    yield requests
    aws_double.validators.remove(note)


def test_nothing_is_sent_that_an_older_server_does_not_know(driver: S3Driver, seen: list[Request]) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    bucket.put("key", b"x")
    bucket.put("long", bytes(9 * MIB))
    assert bucket.get("long") == bytes(9 * MIB)
    assert {name for request in seen for name in request.headers.keys() if "checksum" in name.lower()} == set()  # noqa: SIM118  these headers iterate over pairs
    assert {request.headers.get("Transfer-Encoding") for request in seen} == {None}
    assert {request.headers.get("Content-Encoding") for request in seen} == {None}


def test_a_body_without_a_checksum_is_signed(driver: S3Driver, seen: list[Request]) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    bucket.put("key", b"content")
    assert seen[-1].headers["X-Amz-Content-SHA256"] == hashlib.sha256(b"content").hexdigest()


def test_a_batch_delete_carries_an_md5(driver: S3Driver, seen: list[Request]) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    assert bucket.delete_many(["a", "b"]) == {}
    (request,) = [request for request in seen if request.method == "POST"]
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    assert request.headers["Content-MD5"] == base64.b64encode(digest).decode()


def test_buckets_are_addressed_by_path(driver: S3Driver, seen: list[Request], aws_double: Any) -> None:
    BlobStore(driver).create(BucketSpec(name="shop"))
    assert {request.host for request in seen} == {aws_double.url.removeprefix("http://")}
    assert {request.path.strip("/") for request in seen} == {"shop"}


def test_a_server_that_ignores_a_range_is_found_out(driver: S3Driver, aws_double: Any) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    bucket.put("key", b"0123456789")
    headers = [
        ("ETag", '"781e5e245d69b566979b86e28d23f2c7"'),
        ("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT"),
    ]
    aws_double.inject("status", match=lambda call: call.method == "GET", status=200, headers=headers, body=b"01234")
    with pytest.raises(IntegrityError, match="range"):
        bucket.get("key", start=5)


def _forget_conditions(request: Any, **_: object) -> None:
    for name in ("If-Match", "If-None-Match"):
        del request.headers[name]


def test_a_server_that_ignores_conditions_is_found_out_before_it_overwrites(driver: S3Driver, aws_double: Any) -> None:
    store = BlobStore(driver)
    for bucket in (store.create(BucketSpec(name="plain")), store.create(BucketSpec(name="kept", versioning=True))):
        info = bucket.put("key", b"theirs")
        events = driver.client.meta.events
        events.register_first("before-sign.s3", _forget_conditions, unique_id="ignored")
        for condition in ({"if_absent": True}, {"if_match": info.token}):
            for data in (b"ours", bytes(9 * MIB)):
                with pytest.raises(Unsupported, match="ignores"):
                    bucket.put("key", data, **condition)
        events.unregister("before-sign.s3", unique_id="ignored")
        assert bucket.get("key") == b"theirs"
        assert [row.key for row in bucket.versions()] == ["key"]
        assert not aws_double.backend("s3", "aws").buckets[bucket.name].multiparts


def test_a_server_that_obeys_conditions_is_asked_once(driver: S3Driver, seen: list[Request]) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    for number in range(3):
        bucket.put(f"key-{number}", b"", if_absent=True)
    assert [item.key for item in bucket.list()] == ["key-0", "key-1", "key-2"]
    assert sum("probe" in request.path and request.method == "PUT" for request in seen) == 2


def test_a_copy_under_a_condition_is_sure_on_a_server_that_ignores_it_there(
    driver: S3Driver, seen: list[Request]
) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    bucket.put("source", b"new", metadata={"n": "v"})
    target = bucket.put("target", b"old")
    with pytest.raises(PreconditionFailed):
        bucket.copy("source", "target", if_absent=True)
    bucket.copy("source", "target", if_match=target.token)
    assert (bucket.get("target"), bucket.stat("target").metadata) == (b"new", {"n": "v"})
    assert not [request for request in seen if "x-amz-copy-source" in request.headers]


def _compare_bare_etags(request: Any, **_: object) -> None:
    """Do as Ceph 16 does: an ETag in quotes is never the stored one."""
    stated = request.headers.get("If-Match")
    if stated is not None:
        del request.headers["If-Match"]
        request.headers["If-Match"] = f'"{stated}"' if not stated.startswith('"') else '"never"'


def test_a_server_that_compares_etags_without_quotes_is_given_them_so(driver: S3Driver) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    driver.client.meta.events.register_first("before-sign.s3.PutObject", _compare_bare_etags)
    first = bucket.put("key", b"1")
    second = bucket.put("key", b"2", if_match=first.token)
    with pytest.raises(PreconditionFailed):
        bucket.put("key", b"3", if_match=first.token)
    assert bucket.stat("key").token == second.token
    assert [item.key for item in bucket.list()] == ["key"]


def _match_nothing(request: Any, **_: object) -> None:
    if "If-Match" in request.headers:
        del request.headers["If-Match"]
        request.headers["If-Match"] = '"never"'


def test_a_server_under_whose_conditions_nothing_can_be_written_is_found_out(driver: S3Driver) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    driver.client.meta.events.register_first("before-sign.s3.PutObject", _match_nothing)
    token = bucket.put("key", b"1").token
    with pytest.raises(Unsupported, match="refuses every write"):
        bucket.put("key", b"2", if_match=token)
    assert [item.key for item in bucket.list()] == ["key"]


def test_each_bucket_is_asked_and_asked_again_when_it_gets_versions(driver: S3Driver, seen: list[Request]) -> None:
    store = BlobStore(driver)
    for name in ("shop", "other"):
        seen.clear()
        bucket = store.create(BucketSpec(name=name))
        bucket.put("key", b"", if_absent=True)
        assert any("probe" in request.path for request in seen)
    (change,) = store.diff(BucketSpec(name="other", versioning=True))
    store.apply(change)
    seen.clear()
    bucket.put("key-2", b"", if_absent=True)
    assert any("probe" in request.path for request in seen)


def test_tags_of_an_object_in_parts_are_set_when_it_is_complete(driver: S3Driver, seen: list[Request]) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    bucket.put("long", bytes(9 * MIB), tags={"team": "a b"})
    assert bucket.tags("long") == {"team": "a b"}
    assert [request for request in seen if "x-amz-tagging" in request.headers] == []


def test_tags_of_an_object_in_parts_are_set_where_the_answer_is_lost(driver: S3Driver, aws_double: Any) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    gone = b"<Error><Code>NoSuchUpload</Code><Message>no</Message></Error>"
    for kind in ("drop_after", "status"):
        aws_double.inject(
            kind, match=lambda call: call.method == "POST" and "uploadId" in call.query, status=404, body=gone
        )
    bucket.put("long", bytes(9 * MIB), tags={"team": "a"})
    assert bucket.tags("long") == {"team": "a"}


def test_a_listing_that_ends_before_its_end_is_found_out(driver: S3Driver, aws_double: Any) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    about = '<Key>a</Key><LastModified>2026-11-20T12:00:00.000Z</LastModified><ETag>"0"</ETag><Size>1</Size>'
    cut = "<IsTruncated>true</IsTruncated><NextMarker>a</NextMarker>"
    older = f"<ListBucketResult>{cut}<Contents>{about}</Contents></ListBucketResult>"
    for seen in (bucket, bucket.lane()):
        aws_double.inject("status", match=lambda call: call.method == "GET", status=200, body=older.encode())
        with pytest.raises(IntegrityError, match="does not say where"):
            list(seen.list())
    for body, why in {
        f"<V>{cut}</V>": "does not say where",
        "<html><p>Log in, please</p></html>": "no listing",
    }.items():
        aws_double.inject("status", match=lambda call: call.method == "GET", status=200, body=body.encode())
        with pytest.raises(IntegrityError, match=why):
            list(bucket.versions())


def test_a_blank_in_a_tag_is_not_sent_as_a_plus(driver: S3Driver, seen: list[Request]) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    bucket.put("key", b"", tags={"team": "a b+c"})
    assert seen[-1].headers["x-amz-tagging"] == "team=a%20b%2Bc"
    assert bucket.tags("key") == {"team": "a b+c"}


def test_metadata_with_an_underscore_is_refused(driver: S3Driver) -> None:
    assert "hyphen" in (driver.check_metadata({"build_id": "7"}) or "")
    assert driver.check_metadata({"build-id": "7"}) is None


def test_a_copy_in_parts_of_what_was_changed_meanwhile_leaves_nothing(driver: S3Driver, aws_double: Any) -> None:
    bucket = BlobStore(driver).create(BucketSpec(name="shop"))
    bucket.put("source", bytes(6 * MIB))
    in_parts = attrs.evolve(driver, copy_limit=5 * MIB, copy_part=5 * MIB)
    lock, changed = threading.Lock(), threading.Event()

    def change(params: dict[str, Any], **_: object) -> None:
        params["headers"].pop("x-amz-copy-source-if-match", None)
        with lock:  # once, and before any part: moto closes what it replaces, even while it is read
            if not changed.is_set():
                Inside(aws_double).put_raw("shop", "source", b"!" * 6 * MIB)
                changed.set()

    driver.client.meta.events.register("before-call.s3.UploadPartCopy", change)
    with pytest.raises(Conflict, match="changed during the copy"):
        BlobStore(in_parts).bucket("shop").copy("source", "target")
    assert [item.key for item in bucket.list()] == ["source"]
    assert not aws_double.backend("s3", "aws").buckets["shop"].multiparts


def test_a_condition_in_a_missing_bucket_is_about_the_bucket(driver: S3Driver) -> None:
    for condition in ({"if_absent": True}, {"if_match": Token("x")}):
        with pytest.raises(ParentNotFound):
            BlobStore(driver).bucket("nowhere").put("key", b"", **condition)


@pytest.mark.parametrize("endpoint", ["", "s3.example.net", "ftp://s3.example.net", "https://", "https://host/bucket"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="endpoint"):
        open_s3(endpoint, None, None)


def test_a_password_in_the_endpoint_is_refused_and_not_shown() -> None:
    for endpoint in (f"https://user:{CANARY}@s3.example.net", f"https://user:{CANARY}@s3.example.net/x"):
        with pytest.raises(ConfigError) as caught:
            open_s3(endpoint, None, None)
        assert CANARY not in str(caught.value)


def test_half_of_the_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match="secret_key is missing"):
        open_s3("https://s3.example.net", Credential.literal("key"), None)
    with pytest.raises(ConfigError, match="access_key is missing"):
        open_s3("https://s3.example.net", None, Credential.literal("key"))


def test_without_keys_the_chain_of_the_sdk_is_asked(monkeypatch: pytest.MonkeyPatch, aws_double: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, aws_double.environ[name])
    driver = open_s3(aws_double.url, None, None)
    BlobStore(driver).create(BucketSpec(name="shop"))
    assert BlobStore(driver).exists("shop")


def test_no_key_is_shown(aws_double: Any) -> None:
    driver = open_s3(aws_double.url, Credential.literal("key"), Credential.literal(CANARY))
    assert CANARY not in repr(driver) + repr(BlobStore(driver))


def test_without_the_s3_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("shiftable_s3")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "shiftable_s3", None)
    with pytest.raises(ConfigError, match=r'pip install "shiftable-baremetal\[s3\]"'):
        open_s3("https://s3.example.net", None, None)
