"""Ranges of keys: together they are all keys, each once, whatever the keys are."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.errors import Unavailable
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.migrate import Action, Tally, _ranges
from shiftable.migrate._journal import Journal
from shiftable.migrate._ranges import listed, split
from shiftable.migrate._shards import Shard, interleaved

KEYS = st.lists(
    st.text(st.sampled_from("ab/0zü😀\U0010ffff"), min_size=1, max_size=6), min_size=1, max_size=60, unique=True
)


def bucket_of(keys: Any) -> Bucket:
    bucket = BlobStore(MemoryBlobDriver(page_size=7)).create(BucketSpec(name="shop"))
    for key in keys:
        bucket.put(key, b"")
    return bucket


@settings(max_examples=100, deadline=None)
@given(keys=KEYS, wanted=st.integers(1, 9), prefix=st.sampled_from(["", "a", "a/"]))
def test_shards_are_all_keys_each_once_and_in_order(keys: Any, wanted: int, prefix: str) -> None:
    bucket = bucket_of(keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ranges, "_WORTH", 2)
        shards = split(bucket, wanted, prefix)

    found = [item.key for shard in shards for item in listed(bucket, ("",), shard)]

    assert found == sorted(keys)
    assert len(shards) <= wanted
    assert all(sum(key in shard for shard in shards) == 1 for key in keys)


@settings(max_examples=50, deadline=None)
@given(keys=KEYS, prefixes=st.sampled_from([("a",), ("a", "b"), ("/", "a/", "b", "z"), ("😀",)]))
def test_prefixes_are_listed_in_every_shard_that_they_reach(keys: Any, prefixes: tuple[str, ...]) -> None:
    bucket = bucket_of(keys)
    shards = (Shard(None, "a/b"), Shard("a/b", "b0"), Shard("b0", None))

    found = [item.key for shard in shards for item in listed(bucket, prefixes, shard)]

    assert found == [key for key in sorted(keys) if key.startswith(prefixes)]


def test_folders_are_the_cuts_where_there_are_some() -> None:
    bucket = bucket_of(f"logs/{day:02}/{number}" for day in range(20) for number in range(110))

    shards = split(bucket, 4)

    sizes = [sum(1 for _ in listed(bucket, ("",), shard)) for shard in shards]
    assert len(shards) == 4
    assert sum(sizes) == 2200
    assert max(sizes) <= 770


def test_keys_without_folders_are_cut_where_they_differ() -> None:
    bucket = bucket_of(f"some/folder/{number:09}" for number in range(2200))

    shards = split(bucket, 8)

    sizes = [sum(1 for _ in listed(bucket, ("",), shard)) for shard in shards]
    assert (len(shards), sum(sizes)) == (8, 2200)
    assert max(sizes) <= 400


def test_a_small_bucket_is_one_shard_and_costs_no_more_than_its_listing() -> None:
    assert split(bucket_of(map(str, range(500))), 8) == (Shard(),)
    assert split(bucket_of([]), 8) == (Shard(),)


def test_a_shard_is_a_small_value_for_another_process() -> None:
    shard = Shard("a", "b\U0010ffff")

    assert pickle.loads(pickle.dumps(shard)) == shard  # noqa: S301  our own
    assert len(pickle.dumps(shard)) < 200


def test_sources_are_read_side_by_side_each_in_its_order() -> None:
    both = threading.Barrier(2, timeout=30)

    def source(start: int) -> Any:
        both.wait()
        yield from range(start, start + 1000)

    found = list(interleaved([lambda: source(0), lambda: source(1000)], 2))

    assert sorted(found) == list(range(2000))
    assert [number for number in found if number < 1000] == list(range(1000))


def test_what_a_source_raises_ends_all_of_them() -> None:
    def endless() -> Any:
        while True:
            yield 1

    def failing() -> Any:
        yield 1
        raise Unavailable("no listing")

    with pytest.raises(Unavailable, match="no listing"):
        list(interleaved([endless, failing], 2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shiftable-list")]


def test_a_reader_that_goes_away_ends_the_threads_and_not_much_was_read_ahead() -> None:
    read: list[int] = []

    def source() -> Any:
        for number in range(10**6):
            read.append(number)
            yield number

    items = interleaved([source], 1)
    assert next(items) == 0
    items.close()

    assert len(read) < 2000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shiftable-list")]


def test_a_move_in_shards_moves_everything_and_its_delta_only_what_changed(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ranges, "_WORTH", 100)
    for folder in range(6):
        for number in range(120):
            world.source.put(f"{folder}/{number}", str(number).encode())
    first = world.migration("blob", listers=4).apply()
    world.right.writes.clear()
    world.source.put("3/7", b"changed")
    world.source.put("9/new", b"new")
    world.source.delete("5/119")

    second = world.migration("blob", listers=4).apply()
    verified = world.migration("blob", listers=4).verify()

    assert first.resources[0].done[Action.CREATE].count == 720
    assert sorted(world.right.writes) == [("put", "3/7"), ("put", "9/new")]
    assert second.resources[0].done[Action.UNCHANGED].count == 718
    assert [named.key for named in second.resources[0].named] == ["5/119"]
    assert verified.resources[0].verified.count == 720
    assert set(world.contents(world.source)) <= set(world.contents(world.target))


def test_a_plan_that_is_pinned_is_carried_out_in_shards(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ranges, "_WORTH", 100)
    for number in range(300):
        world.source.put(f"{number % 3}/{number}", b"1")
    plan = world.migration("blob").plan()

    report = world.migration("blob").apply(plan)

    assert report.resources[0].done == {Action.CREATE: Tally(300, 300)}


def test_records_behind_a_key_are_read_through_a_connection_of_their_own(world: Any) -> None:
    for key in "abcd":
        world.source.put(key, b"1")
    world.migration("blob").apply()
    scope = "blob.assets frankfurt>local shop-assets"
    found: list[Any] = []

    with Journal.open(world.state_dir / "migrate.sqlite") as journal:
        thread = threading.Thread(
            target=lambda: found.extend(record.key for record in journal.records_behind(scope, "b"))
        )
        thread.start()
        thread.join(30)

    assert found == ["c", "d"]
