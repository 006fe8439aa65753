from datetime import UTC, datetime, timedelta

import attrs
import pytest

from shiftable.blob import BlobStore, LifecycleRule
from shiftable.blob.driver import BlobDriver, BucketSpec, PutOptions
from shiftable.config import Place, structure
from shiftable.errors import ConfigError, Conflict
from shiftable.memory._faults import MemoryFault
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle
from shiftable.testing.harness import Clock as Movable


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
    def clock(self) -> Movable:
        return Movable()

    @pytest.fixture
    def driver(self, clock: Movable) -> BlobDriver:
        return MemoryBlobDriver(clock=clock.now)

    @pytest.fixture(autouse=True)
    def _time(self, clock: Movable) -> None:
        self._clock = clock

    def advance(self, by: timedelta) -> None:
        self._clock.advance(by)

    @pytest.fixture
    def oracle(self, driver: MemoryBlobDriver) -> BlobOracle:
        return Inside(driver)


class TestMemoryOfSmallPages(TestMemory):
    many_keys = 120

    @pytest.fixture
    def driver(self, clock: Movable) -> BlobDriver:
        return MemoryBlobDriver(page_size=10, clock=clock.now)


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


# lifecycle


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_objects_versions_and_uploads_expire_after_their_days() -> None:
    clock = Clock()
    driver = MemoryBlobDriver(clock=clock)
    rules = (
        LifecycleRule(prefix="logs/", expire_days=10, abort_uploads_days=2),
        LifecycleRule(expire_older_days=30),
    )
    bucket = BlobStore(driver).create(BucketSpec(name="shop", versioning=True, lifecycle=rules))
    old = bucket.put("logs/a", b"x")
    bucket.put("kept", b"first")
    bucket.put("kept", b"second")
    for key in ("logs/begun", "begun"):
        driver.upload_begin("shop", key, PutOptions())
    clock.now += timedelta(days=2)
    assert [upload.key for upload in bucket.uploads()] == ["begun"]
    clock.now += timedelta(days=8)
    assert [item.key for item in bucket.list()] == ["kept"]
    assert bucket.get("logs/a", version=old.version) == b"x"
    clock.now += timedelta(days=20)
    assert [row.size for row in bucket.versions("kept")] == [6]
    assert bucket.get("logs/a", version=old.version) == b"x"  # it is older only since it expired
    clock.now += timedelta(days=30)
    assert [(row.key, row.deleted) for row in bucket.versions()] == [("kept", False), ("logs/a", True)]


PLACE = Place("blob.x")


def test_a_lifecycle_is_read_from_the_file() -> None:
    table = {"bucket": "shop", "lifecycle": [{"prefix": "b/", "expire_days": 3}, {"abort_uploads_days": 1}]}
    assert structure(BucketSpec, table, PLACE) == BucketSpec(
        name="shop", lifecycle=(LifecycleRule(abort_uploads_days=1), LifecycleRule(prefix="b/", expire_days=3))
    )
    for wrong in ({}, {"prefix": "a"}, {"expire_days": 0}, {"expire_days": "3"}, {"expire_days": True}, {"days": 3}):
        with pytest.raises(ConfigError):
            structure(BucketSpec, {"bucket": "shop", "lifecycle": [wrong]}, PLACE)
    for told in ({"public": True}, {"encryption": "AES256"}):
        with pytest.raises(ConfigError):
            structure(BucketSpec, {"bucket": "shop", **told}, PLACE)


def test_of_two_rules_for_one_prefix_the_first_day_counts() -> None:
    spec = BucketSpec(
        name="shop",
        lifecycle=(
            LifecycleRule(expire_days=3, abort_uploads_days=9),
            LifecycleRule(expire_days=5, expire_older_days=7),
        ),
    )
    assert spec.lifecycle == (LifecycleRule(expire_days=3, expire_older_days=7, abort_uploads_days=9),)
