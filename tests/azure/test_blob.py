from __future__ import annotations

import itertools
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.blob import BlobStore, Bucket, BucketSpec, CorsRule
from shiftable.blob.driver import BlobFeatures
from shiftable.errors import AlreadyExists, Conflict, Unsupported
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle, blob_machine
from shiftable_azure import AzureProvider, AzureSettings
from shiftable_azure.blob import AzureBlobDriver
from shiftable_azure.double import AzureDouble

MIB = 1024 * 1024


class Inside:
    """Looks into the double's own tables."""

    def __init__(self, double: AzureDouble) -> None:
        self._service = double.service

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        self._service.put_raw(bucket, key, data)

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        found = self._service.containers[bucket].blobs.get(key)
        return None if found is None else found.content

    def keys(self, bucket: str) -> list[str]:
        return list(self._service.containers[bucket].blobs)


class _Azure(BlobConformance):
    @pytest.fixture(autouse=True)
    def _time(self, azure_double: AzureDouble) -> None:
        self._double = azure_double

    def advance(self, by: timedelta) -> None:
        self._double.clock.advance(by)

    def make_lockable(self, store: BlobStore) -> Bucket:
        self._double.service.immutable = True  # what only the management plane does
        made = store.create(BucketSpec(name="lockable", versioning=True, object_lock=True))
        self._double.service.immutable = False
        return made

    @pytest.fixture
    def oracle(self, azure_double: AzureDouble) -> BlobOracle:
        return Inside(azure_double)

    def fetch(self, url: str, *, method: str = "GET", data: bytes | None = None, content_type: str = "") -> bytes:
        headers = {**getattr(url, "headers", {}), **({"Content-Type": content_type} if content_type else {})}
        request = urllib.request.Request(url, data=data, method=method, headers=headers)  # noqa: S310  the double's URL
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  the same
            return bytes(response.read())


class TestAzureBlob(_Azure):
    @pytest.fixture
    def driver(self, driver: AzureBlobDriver) -> AzureBlobDriver:
        return driver

    def test_the_machine_finds_no_difference_to_the_model(self, driver: AzureBlobDriver) -> None:
        run_state_machine_as_test(
            blob_machine(lambda: BlobStore(driver)),
            settings=settings(max_examples=8, stateful_step_count=25, suppress_health_check=list(HealthCheck)),
        )


class TestAzureBlobOverTheBulkLane(TestAzureBlob):
    @pytest.fixture
    def driver(self, driver: AzureBlobDriver) -> AzureBlobDriver:
        lane = driver.lane()
        assert lane is not driver
        assert lane.lane() is lane
        return lane


class TestAccountWithVersions(_Azure):
    many_keys = 400

    @pytest.fixture
    def driver(self, azure_double: AzureDouble) -> Iterator[AzureBlobDriver]:
        azure_double.service.versioning = True
        azure_double.service.page_size = 11
        provider = AzureProvider(AzureSettings(**azure_double.config, blob_versioning=True))
        made = provider.blob()
        assert isinstance(made, AzureBlobDriver)
        yield made
        provider.close()

    @pytest.fixture
    def make_bucket(self, store: BlobStore) -> Iterator[Callable[..., Bucket]]:
        numbers = itertools.count()

        def make(*, versioning: bool = True) -> Bucket:
            return store.create(BucketSpec(name=f"versioned-{next(numbers)}", versioning=True))

        yield make
        for number in range(next(numbers)):
            bucket = store.bucket(f"versioned-{number}")
            if store.exists(bucket.name):
                for row in bucket.versions():
                    bucket.delete(row.key, version=row.version)
                store.delete(bucket.name)

    @differs("an account keeps versions for all of its containers: one without is refused")
    def test_a_bucket_that_exists_is_not_created_again(self, store: BlobStore, bucket: Bucket) -> None:
        bucket.put("kept", b"x")
        with pytest.raises(AlreadyExists):
            store.create(BucketSpec(name=bucket.name, versioning=True))
        with pytest.raises(Unsupported, match="blob_versioning"):
            store.create(BucketSpec(name="without-versions"))
        assert bucket.get("kept") == b"x"
        assert not store.exists("without-versions")

    @differs("an account keeps versions for all of its containers: one without is refused")
    def test_a_declared_bucket_is_made_once_and_then_as_declared(
        self, store: BlobStore, features: BlobFeatures, make_bucket: Any
    ) -> None:
        spec = BucketSpec(name="versioned-declared", versioning=True)
        (change,) = store.diff(spec)
        store.apply(change)
        store.apply(change)
        assert store.describe(spec.name) == spec
        assert store.diff(spec) == ()
        (change,) = store.diff(attrs.evolve(spec, versioning=False))
        with pytest.raises(Unsupported, match="blob_versioning"):
            store.apply(change)

    @differs("every object has a version")
    def test_without_versioning_there_is_no_version(self, bucket: Bucket) -> None:
        assert bucket.put("key", b"x").version == bucket.stat("key").version
        assert bucket.stat("key").version is not None


class TestAccountWithVersionsOverTheBulkLane(TestAccountWithVersions):
    @pytest.fixture
    def driver(self, azure_double: AzureDouble) -> Iterator[AzureBlobDriver]:
        azure_double.service.versioning = True
        provider = AzureProvider(AzureSettings(**azure_double.config, blob_versioning=True))
        made = provider.blob()
        assert isinstance(made, AzureBlobDriver)
        assert made.lane() is not made
        yield made.lane()
        provider.close()


def test_cors_rules_are_refused_and_the_account_is_left_alone(azure_double: AzureDouble) -> None:
    spec = BucketSpec(name="shop", cors=(CorsRule(origins=["*"], methods=["GET"]),))
    provider = AzureProvider(AzureSettings(**azure_double.config))
    store = BlobStore(provider.blob())
    store.create(BucketSpec(name="shop"))
    (change,) = store.diff(spec)
    sent = len(azure_double.calls)
    with pytest.raises(Unsupported, match="the whole account's; set them there and declare none"):
        store.apply(change)
    assert len(azure_double.calls) == sent
    provider.close()


def test_object_lock_that_only_the_management_plane_gives_is_refused_with_what_to_do(azure_double: AzureDouble) -> None:
    azure_double.service.versioning = True
    provider = AzureProvider(AzureSettings(**azure_double.config, blob_versioning=True))
    store = BlobStore(provider.blob())
    with pytest.raises(Unsupported, match="az storage container-rm create --name ledger .* --enable-vlw true"):
        store.create(BucketSpec(name="ledger", versioning=True, object_lock=True))
    assert not store.exists("ledger")
    store.create(BucketSpec(name="ledger", versioning=True))
    (change,) = store.diff(BucketSpec(name="ledger", versioning=True, object_lock=True))
    assert "migrate-vlw" in change.reason
    provider.close()


def test_the_current_version_that_is_locked_stays_current_when_its_deletion_is_refused(
    azure_double: AzureDouble,
) -> None:
    azure_double.service.versioning = azure_double.service.immutable = True
    provider = AzureProvider(AzureSettings(**azure_double.config, blob_versioning=True))
    bucket = BlobStore(provider.blob()).create(BucketSpec(name="ledger", versioning=True, object_lock=True))
    info = bucket.put("key", b"x", hold=True)
    with pytest.raises(Conflict, match="legal hold"):
        bucket.delete("key", version=info.version)
    assert bucket.get("key") == b"x"
    provider.close()
