import attrs
import pytest

from shiftable.blob import BlobStore
from shiftable.blob.driver import BlobDriver, BucketSpec, PutOptions
from shiftable.errors import Conflict
from shiftable.memory._faults import MemoryFault
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle


class Inside:
    """Looks into the driver's own tables."""

    def __init__(self, driver: MemoryBlobDriver) -> None:
        self._driver = driver

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        self._driver.put(bucket, key, data, PutOptions())

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        entries = self._driver._buckets[bucket].history.get(key)
        return entries[-1].data if entries and not entries[-1].deleted else None

    def keys(self, bucket: str) -> list[str]:
        history = self._driver._buckets[bucket].history
        return [key for key, entries in history.items() if not entries[-1].deleted]


class TestMemory(BlobConformance):
    @pytest.fixture
    def driver(self) -> BlobDriver:
        return MemoryBlobDriver()

    @pytest.fixture
    def oracle(self, driver: MemoryBlobDriver) -> BlobOracle:
        return Inside(driver)


class TestMemoryOfSmallPages(TestMemory):
    many_keys = 120

    @pytest.fixture
    def driver(self) -> BlobDriver:
        return MemoryBlobDriver(page_size=10)


def test_older_versions_survive_when_versioning_is_switched_off() -> None:
    store = BlobStore(MemoryBlobDriver())
    spec = BucketSpec(name="shop")
    bucket = store.create(spec)
    bucket.put("key", b"before")
    store.apply(*store.diff(attrs.evolve(spec, versioning=True)))
    kept = bucket.put("key", b"kept")
    store.apply(*store.diff(spec))
    bucket.put("key", b"replaced")
    bucket.put("key", b"last")
    assert [(row.version, row.size, row.latest) for row in bucket.versions()] == [
        ("null", 4, True),
        (kept.version, 4, False),
    ]
    bucket.delete("key")
    assert not bucket.exists("key")
    assert bucket.get("key", version=kept.version) == b"kept"
    with pytest.raises(Conflict):
        store.delete("shop")


def test_a_change_that_starts_from_something_else_is_a_conflict() -> None:
    store = BlobStore(MemoryBlobDriver())
    spec = BucketSpec(name="shop")
    store.create(spec)
    changes = store.diff(attrs.evolve(spec, versioning=True))
    store.apply(*changes)
    with pytest.raises(Conflict):
        store.apply(*changes)


def test_content_that_does_not_have_its_md5_is_refused() -> None:
    driver = MemoryBlobDriver()
    BlobStore(driver).create(BucketSpec(name="shop"))
    with pytest.raises(MemoryFault, match="MD5"):
        driver.put("shop", "key", b"x", PutOptions(md5=bytes(16)))


def test_a_listing_answers_at_most_a_page() -> None:
    driver = MemoryBlobDriver(page_size=2)
    for name in "abc":
        driver.create(BucketSpec(name=name))
    first = driver.names(None, None)
    assert first.items == ("a", "b")
    assert driver.names(first.next, None).items == ("c",)
