"""Bytes and requests in a second are limited; the clock is the test's."""

from __future__ import annotations

from typing import Any

import pytest

from shiftable.blob import BlobStore, BucketSpec
from shiftable.blob.driver import BlobDriver
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.migrate import Migration, Options
from shiftable.migrate._engine import Engine
from shiftable.migrate._limits import Pace, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_second_s_worth_passes_at_once_and_the_rest_at_the_rate(clock: Clock) -> None:
    bucket = TokenBucket(100, clock=clock, sleep=clock.sleep)

    for _ in range(10):
        bucket.take(50)

    assert clock.now == pytest.approx(4.0)  # 500 units, of which 100 were there


def test_what_is_larger_than_a_second_s_worth_waits_and_passes(clock: Clock) -> None:
    bucket = TokenBucket(100, clock=clock, sleep=clock.sleep)

    bucket.take(1000)

    assert clock.now == pytest.approx(9.0)


def test_a_pause_saves_no_more_than_a_second_s_worth(clock: Clock) -> None:
    bucket = TokenBucket(100, clock=clock, sleep=clock.sleep)
    clock.now += 3600

    bucket.take(300)

    assert clock.now == pytest.approx(3602.0)


def test_each_call_of_a_driver_is_a_request_and_checks_are_none(clock: Clock) -> None:
    store = BlobStore(MemoryBlobDriver(page_size=10))
    bucket = Pace(None, 10, clock=clock, sleep=clock.sleep).applied(store).create(BucketSpec(name="shop"))
    for number in range(40):
        assert bucket.check_key(str(number)) is None
        bucket.put(str(number), b"1")

    assert len(list(bucket.list())) == 40
    # 1 create, 40 puts and 4 pages; what create asks before it is counted too.
    assert clock.now == pytest.approx((45 - 10) / 10, abs=0.2)


def test_content_comes_at_the_pace_that_is_allowed(clock: Clock) -> None:
    store = BlobStore(MemoryBlobDriver())
    store.create(BucketSpec(name="shop")).put("a", b"x" * 1000)
    bucket = Pace(100, None, clock=clock, sleep=clock.sleep).applied(store).bucket("shop")

    assert bucket.get("a") == b"x" * 1000
    assert clock.now == pytest.approx(9.0)


def test_the_bulk_lane_is_limited_as_well(clock: Clock) -> None:
    store = BlobStore(MemoryBlobDriver())
    store.create(BucketSpec(name="shop"))
    limited = Pace(None, 1, clock=clock, sleep=clock.sleep).applied(store)

    for number in range(5):
        limited.lane().bucket("shop").put(str(number), b"")

    assert clock.now == pytest.approx(4.0)
    assert isinstance(limited.bucket("shop").unwrap(BlobDriver), MemoryBlobDriver)  # type: ignore[type-abstract]


def test_without_limits_nothing_stands_between() -> None:
    store = BlobStore(MemoryBlobDriver())

    assert Pace(None, None).applied(store) is store


def test_a_move_keeps_both_limits_and_says_nothing_else(world: Any, clock: Clock) -> None:
    for number in range(20):
        world.source.put(str(number), b"x" * 100)
    world.source.put("large", b"x" * 9 * 1024 * 1024)
    options = Options(bandwidth=1024 * 1024, requests=10, concurrency=1)
    pace = Pace(options.bandwidth, options.requests, clock=clock, sleep=clock.sleep)

    report = Migration(world, "frankfurt", "local", ("blob",), options, engine=Engine(options), pace=pace).apply()

    assert report.complete
    assert world.contents(world.target) == world.contents(world.source)
    assert clock.now >= 8.0


@pytest.mark.parametrize("options", [{"bandwidth": 0}, {"requests": -1}])
def test_a_limit_of_nothing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Options(**options)  # type: ignore[arg-type]  # the parameters
