"""The Azure driver against Azurite: Microsoft's own emulator, which shares no line with our double."""

from __future__ import annotations

import hashlib
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.blob.driver import PutOptions
from shiftable.config import Credential
from shiftable.errors import Conflict, InvalidArgument
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle, blob_machine
from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure.blob import AzureBlobDriver

ACCOUNT = "devstoreaccount1"
# Azurite's own, the same everywhere and in its documentation.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Beside:
    """Writes, reads and lists with a bare client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        self._client.get_blob_client(bucket, key).upload_blob(data, overwrite=True)

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        try:
            return bytes(self._client.get_blob_client(bucket, key).download_blob().readall())
        except ResourceNotFoundError:
            return None

    def keys(self, bucket: str) -> list[str]:
        return list(self._client.get_container_client(bucket).list_blob_names())


@pytest.fixture(scope="module")
def bare(azurite: str) -> Iterator[Any]:
    with BlobServiceClient(azurite, {"account_name": ACCOUNT, "account_key": KEY}) as client:
        yield client


@pytest.fixture
def driver(azurite: str) -> Iterator[AzureBlobDriver]:
    key = Credential.literal(KEY)
    provider = AzureProvider(AzureSettings(storage_account=ACCOUNT, endpoint=azurite, account_key=key))
    made = provider.blob()
    assert isinstance(made, AzureBlobDriver)
    yield attrs.evolve(made, page=400)
    provider.close()


class TestAzurite(BlobConformance):
    many_keys = 1000

    @pytest.fixture
    def driver(self, driver: AzureBlobDriver) -> AzureBlobDriver:
        return driver

    @pytest.fixture
    def oracle(self, bare: Any) -> BlobOracle:
        return Beside(bare)

    def fetch(self, url: str, *, method: str = "GET", data: bytes | None = None, content_type: str = "") -> bytes:
        headers = {**getattr(url, "headers", {}), **({"Content-Type": content_type} if content_type else {})}
        request = urllib.request.Request(url, data=data, method=method, headers=headers)  # noqa: S310  Azurite's URL
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  the same
            return bytes(response.read())

    @differs("Azurite speaks an older version of the service, in which a GET does not tell the access tier")
    def test_all_ways_tell_the_same_of_an_object(self, bucket: Bucket) -> None:
        data = b"x" * 100_000
        put, stat = bucket.put("key", data), bucket.stat("key")
        with bucket.stream("key") as stream:
            assert attrs.evolve(stream.info, storage_class=stat.storage_class) == stat
        (listed,) = bucket.list()
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        for other in (put, listed, stat):
            assert (other.key, other.size, other.token, other.md5) == ("key", len(data), stat.token, digest)

    def test_the_machine_finds_no_difference_to_the_model(self, driver: AzureBlobDriver) -> None:
        run_state_machine_as_test(
            blob_machine(lambda: BlobStore(driver)),
            settings=settings(max_examples=5, stateful_step_count=20, suppress_health_check=list(HealthCheck)),
        )


class TestAzuriteOverTheBulkLane(TestAzurite):
    @pytest.fixture
    def driver(self, driver: AzureBlobDriver) -> AzureBlobDriver:
        lane = driver.lane()
        assert lane is not driver
        return lane


@pytest.fixture
def bucket(driver: AzureBlobDriver) -> Bucket:
    return BlobStore(driver).create(BucketSpec(name=f"azurite-{uuid.uuid4().hex[:12]}"))


def test_what_azure_would_store_under_another_name_is_refused(bucket: Bucket, bare: Any) -> None:
    # The emulator shares the rules of the real service for backslashes; it keeps dots, which the service drops.
    bare.get_blob_client(bucket.name, "a\\b").upload_blob(b"x")
    assert list(bare.get_container_client(bucket.name).list_blob_names()) == ["a/b"]
    for key in ("a\\b", "a.", "a./b", "..", "a/../b", "tab\t", "\x7f"):
        with pytest.raises(InvalidArgument):
            bucket.put(key, b"x")


def test_blocks_that_others_left_with_ids_of_another_length_are_in_the_way(bucket: Bucket, bare: Any) -> None:
    bare.get_blob_client(bucket.name, "key").stage_block("short", b"theirs")
    with pytest.raises(Conflict):
        bucket.put("key", iter([bytes(9 * 1024 * 1024)]))


def test_of_two_uploads_to_one_key_the_first_lives(driver: AzureBlobDriver, bucket: Bucket) -> None:
    first, second = (driver.upload_begin(bucket.name, "key", PutOptions()) for _ in range(2))
    of_first, of_second = (driver.upload_part(upload, 1, upload.id.encode(), 0) for upload in (first, second))
    driver.upload_complete(first, (of_first,))
    with pytest.raises(Exception, match="block list") as caught:
        driver.upload_complete(second, (of_second,))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert fault.error is Conflict
    assert bucket.get("key") == first.id.encode()


def test_the_md5_of_an_object_in_parts_is_kept_if_the_writer_knows_it(driver: AzureBlobDriver, bucket: Bucket) -> None:
    digest = hashlib.md5(b"firstsecond", usedforsecurity=False).digest()
    upload = driver.upload_begin(bucket.name, "key", PutOptions(md5=digest))
    parts = tuple(driver.upload_part(upload, number, data, 0) for number, data in ((1, b"first"), (2, b"second")))
    assert driver.upload_complete(upload, parts).md5 == digest
    (listed,) = bucket.list()
    assert (listed.md5, bucket.stat("key").md5, bucket.get("key")) == (digest, digest, b"firstsecond")
