"""The S3 driver against Ceph's gateway: a server that is neither Amazon's nor a double."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import boto3
import pytest
from botocore.config import Config
from botocore.handlers import add_expect_header

import shiftable
from shiftable.blob import BlobFeatures, BlobStore, Bucket, BucketSpec
from shiftable.config import Credential
from shiftable.errors import InvalidArgument, PreconditionFailed, Unsupported
from shiftable.migrate import Migration, Options, Trouble
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.blob import AWKWARD_KEYS, ORDINARY_KEYS, BlobConformance, BlobOracle
from shiftable_baremetal.blob_s3 import open_s3
from shiftable_s3.driver import S3Driver

MIB = 1024 * 1024

BARE = Config(
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    s3={"addressing_style": "path"},
)


class Beside:
    """Writes and reads with a bare client; lists with the operator's command, which asks the object store."""

    def __init__(self, ceph: Any, client: Any) -> None:
        self._ceph = ceph
        self._client = client

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        try:
            return bytes(self._client.get_object(Bucket=bucket, Key=key)["Body"].read())
        except self._client.exceptions.NoSuchKey:
            return None

    def keys(self, bucket: str) -> list[str]:
        listed = json.loads(self._ceph.admin("bucket", "list", f"--bucket={bucket}", "--max-entries=100000"))
        return [entry["name"] for entry in listed]


@pytest.fixture(scope="module")
def bare(ceph: Any) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=ceph.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ceph.access_key,
        aws_secret_access_key=ceph.secret_key,
        config=BARE,
    )
    # The SDK asks before it sends even nothing, and the gateway answers that 40 ms later (delayed acknowledgement).
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client


@pytest.fixture
def driver(ceph: Any) -> Iterator[S3Driver]:
    made = open_s3(ceph.endpoint, Credential.literal(ceph.access_key), Credential.literal(ceph.secret_key))
    yield made
    made.close()


class TestRadosgw(BlobConformance):
    @pytest.fixture
    def driver(self, driver: S3Driver) -> S3Driver:
        return driver

    @pytest.fixture
    def oracle(self, ceph: Any, bare: Any) -> BlobOracle:
        return Beside(ceph, bare)

    @differs("Ceph 16 ignores If-None-Match when parts are put together; the driver finds out and refuses")
    def test_if_absent_writes_only_what_is_not_there(self, bucket: Bucket, features: BlobFeatures) -> None:
        bucket.put("key", b"first", if_absent=True)
        with pytest.raises(PreconditionFailed):
            bucket.put("key", b"second", if_absent=True)
        with pytest.raises(Unsupported, match="parts"):
            bucket.put("key", iter([self._parts_of(features, 2)]), if_absent=True)
        assert bucket.get("key") == b"first"
        bucket.delete("key")
        bucket.put("key", b"third", if_absent=True)
        assert bucket.get("key") == b"third"

    @differs("Ceph 16 ignores If-Match when parts are put together; the driver finds out and refuses")
    def test_if_match_writes_only_over_that_version(self, bucket: Bucket, features: BlobFeatures) -> None:
        first = bucket.put("key", b"first")
        second = bucket.put("key", b"second", if_match=first.token)
        for data, error in ((b"third", PreconditionFailed), (iter([self._parts_of(features, 2)]), Unsupported)):
            with pytest.raises(error):
                bucket.put("key", data, if_match=first.token)
        assert bucket.get("key") == b"second"
        assert bucket.stat("key").token == second.token


class TestRadosgwOverTheBulkLane(TestRadosgw):
    @pytest.fixture
    def driver(self, driver: S3Driver) -> S3Driver:
        lane = driver.lane()
        assert lane is not driver
        return lane


@pytest.fixture
def store(driver: S3Driver) -> BlobStore:
    return BlobStore(driver)


def test_conditions_are_refused_in_a_bucket_with_versions_where_ceph_ignores_them(store: BlobStore, ceph: Any) -> None:
    store.create(BucketSpec(name="without-versions")).put("key", b"1", if_absent=True)
    bucket = store.create(BucketSpec(name="with-versions", versioning=True))
    info = bucket.put("key", b"1")
    for condition in ({"if_absent": True}, {"if_match": info.token}):
        with pytest.raises(Unsupported, match="the server"):
            bucket.put("key", b"2", **condition)
    assert [row.version for row in bucket.versions()] == [info.version]
    assert ["key"] == [entry["name"] for entry in json.loads(ceph.admin("bucket", "list", "--bucket=with-versions"))]


def test_conditions_are_looked_at_again_when_a_bucket_gets_versions(store: BlobStore) -> None:
    spec = BucketSpec(name="later-versions")
    bucket = store.create(spec)
    token = bucket.put("key", b"1", if_absent=True).token
    token = bucket.put("key", b"2", if_match=token).token
    for change in store.diff(attrs.evolve(spec, versioning=True)):
        store.apply(change)
    for condition in ({"if_absent": True}, {"if_match": token}):
        with pytest.raises(Unsupported, match="the server"):
            bucket.put("key", b"3", **condition)
    assert bucket.get("key") == b"2"


def test_a_copy_that_takes_parts_is_the_source_and_keeps_its_tags(driver: S3Driver, store: BlobStore) -> None:
    bucket = store.create(BucketSpec(name="long-copies"))
    data = random.Random(1).randbytes(12 * MIB)  # noqa: S311  content, not a secret
    source = bucket.put("source", iter([data]), metadata={"n": "v"}, tags={"team": "a b"})
    in_parts = attrs.evolve(driver, copy_limit=5 * MIB, copy_part=5 * MIB)
    BlobStore(in_parts).bucket("long-copies").copy("source", "target")
    assert bucket.get("target") == data
    assert (bucket.stat("target").metadata, bucket.tags("target")) == (source.metadata, {"team": "a b"})


def test_a_name_of_metadata_that_ceph_would_change_is_refused(store: BlobStore, bare: Any) -> None:
    bucket = store.create(BucketSpec(name="underscores"))
    with pytest.raises(InvalidArgument, match="Ceph"):
        bucket.put("key", b"x", metadata={"build_id": "7"})
    bare.put_object(Bucket="underscores", Key="key", Body=b"x", Metadata={"build_id": "7"})
    assert bucket.stat("key").metadata == {"build-id": "7"}


TOML = """
[project]
name = "shop"
[environments.development]
provider = "files"
[providers.files]
type = "baremetal"
root = "files"
fsync = false
[providers.ceph]
type = "baremetal"
endpoint = "{endpoint}"
access_key = {{ env = "KEY" }}
secret_key = {{ env = "SECRET" }}
[providers.back]
type = "baremetal"
root = "back"
fsync = false
[blob.assets]
bucket = "shop-assets"
"""


@pytest.fixture
def app(folder: Path, ceph: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[shiftable.App]:
    monkeypatch.setenv("KEY", ceph.access_key)
    monkeypatch.setenv("SECRET", ceph.secret_key)
    (folder / "shiftable.toml").write_text(TOML.format(endpoint=ceph.endpoint))
    with shiftable.load(folder) as made:
        yield made


def filled(bucket: Bucket) -> dict[str, bytes]:
    """Write some hundred objects: every key that files can have, everything an object carries, and a large one."""
    chance = random.Random(3)  # noqa: S311  content, not a secret
    keys = [key for key in (*ORDINARY_KEYS, *AWKWARD_KEYS) if bucket.check_key(key) is None]
    contents = {key: chance.randbytes(number * 37) for number, key in enumerate(keys)}
    contents |= {f"2026/{number % 12:02d}/{number:04d} é+&.bin": chance.randbytes(2_000) for number in range(250)}
    contents["a large one"] = chance.randbytes(21 * MIB + 5)
    for number, (key, data) in enumerate(contents.items()):
        carried: Any = {"metadata": {"n": str(number)}, "tags": {"team": f"a b+{number}"}} if number % 3 else {}
        bucket.put(key, data, content_type="text/x-test", **carried)
    return contents


def everything(bucket: Bucket) -> dict[str, Any]:
    infos = {item.key: bucket.stat(item.key) for item in bucket.list()}
    return {key: (bucket.tags(key), info.headers, info.metadata, bucket.get(key)) for key, info in infos.items()}


def test_an_application_moves_from_files_to_ceph_and_back(app: shiftable.App, bare: Any) -> None:
    source = app.cloud("files").blob.create(BucketSpec(name="shop-assets"))
    contents = filled(source)
    held = {key: data for key, data in contents.items() if app.cloud("ceph").blob.bucket("x-y").check_key(key) is None}

    assert len(contents) > len(held) > 300

    there = Migration(app, "files", "ceph", options=Options(degrade=frozenset({"guards"})))
    report = there.apply(there.plan())
    assert {named.key for named in there.named()} == set(contents) - set(held)
    assert {named.trouble for named in there.named()} <= {Trouble.REFUSED}
    listed = [
        key for page in bare.get_paginator("list_objects").paginate(Bucket="shop-assets") for key in page["Contents"]
    ]
    assert sorted(entry["Key"] for entry in listed) == sorted(held)
    for key, data in held.items():
        assert bare.get_object(Bucket="shop-assets", Key=key)["Body"].read() == data, key
    assert there.verify().resources[0].verified.count == len(held)
    assert report.changed == len(held)
    assert there.apply().changed == 0

    back = Migration(app, "ceph", "back")
    assert back.apply(back.plan()).complete
    assert back.verify().complete
    kept = {key: found for key, found in everything(source).items() if key in held}
    assert everything(app.cloud("back").blob.bucket("shop-assets")) == kept


def test_a_large_object_is_refused_while_guards_are_wanted(app: shiftable.App, bare: Any) -> None:
    source = app.cloud("files").blob.create(BucketSpec(name="shop-assets"))
    source.put("long", bytes(9 * MIB))
    migration = Migration(app, "files", "ceph", options=Options(overwrite=True))
    assert not migration.apply().complete
    assert ["long"] == [named.key for named in migration.named() if "guards" in named.reason]
