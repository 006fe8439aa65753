import pytest

from shiftable.blob.driver import BlobDriver, BucketSpec
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle


class Inside:
    """Looks into the driver's own tables."""

    def __init__(self, driver: MemoryBlobDriver) -> None:
        self._driver = driver

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        from shiftable.blob.driver import PutOptions

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


def test_a_listing_answers_at_most_a_page() -> None:
    driver = MemoryBlobDriver(page_size=2)
    for name in "abc":
        driver.create(BucketSpec(name=name))
    first = driver.names(None, None)
    assert first.items == ("a", "b")
    assert driver.names(first.next, None).items == ("c",)
