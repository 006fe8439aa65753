"""Copies inside one provider: nothing comes through here, and nothing is believed."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from shiftable.blob import BlobStore, BucketSpec, Headers
from shiftable.errors import PermissionDenied, Unsupported
from shiftable.migrate import Action, Tally, Trouble

LARGE = b"x" * 300_000
NAMES = {"shop-assets": "shop-elsewhere"}


@pytest.fixture
def one(world: Any) -> Any:
    """Make both sides the same provider, as two regions of one are, and fail on reads of large contents."""
    world.right = world.left
    BlobStore(world.left).create(BucketSpec(name="shop-elsewhere"))
    world.copied = []
    copy = world.left.copy

    def watched(*args: Any, **kwargs: Any) -> Any:
        world.left.hook("copy", args[1])
        info = copy(*args, **kwargs)
        world.copied.append(args[1])
        return info

    world.left.copy = watched
    world.elsewhere = BlobStore(world.left).bucket("shop-elsewhere")
    return world


def no_reads(operation: str, key: str) -> None:
    if operation == "get":
        raise AssertionError(key)


def test_large_objects_are_copied_by_the_provider_with_all_that_they_carry(one: Any) -> None:
    headers = Headers(content_type="image/png")
    one.source.put("large", LARGE, headers=headers, metadata={"m": "1"}, tags={"t": "1"})
    one.source.put("huge", LARGE * 40)
    one.left.hook = no_reads

    report = one.migration("blob", names=NAMES).apply()

    one.left.hook = lambda *_: None
    assert report.resources[0].done == {Action.CREATE: Tally(2, 41 * len(LARGE))}
    assert sorted(one.copied) == ["huge", "large"]
    assert one.contents(one.elsewhere) == one.contents(one.source)
    info = one.elsewhere.stat("large")
    assert (info.headers, info.metadata, one.elsewhere.tags("large")) == (headers, {"m": "1"}, {"t": "1"})
    assert one.migration("blob", names=NAMES).verify().complete


def test_small_objects_come_through_here_as_that_is_fewer_requests(one: Any) -> None:
    one.source.put("small", b"1")

    assert one.migration("blob", names=NAMES).apply().changed == 1
    assert one.copied == []


def test_a_large_object_of_somebody_else_stays(one: Any) -> None:
    one.source.put("large", LARGE)

    def write(operation: str, _key: str) -> None:
        if operation == "copy":
            one.left.hook = lambda *_: None
            one.elsewhere.put("large", b"theirs")

    one.left.hook = write
    report = one.migration("blob", names=NAMES).apply()

    assert [named.trouble for named in report.resources[0].named] == [Trouble.CONFLICT]
    assert one.elsewhere.get("large") == b"theirs"


def test_a_source_that_changes_under_a_copy_is_copied_again(one: Any) -> None:
    one.source.put("large", LARGE)

    def change(operation: str, key: str) -> None:
        if operation == "copy":
            one.left.hook = lambda *_: None
            one.source.put(key, LARGE[::-1] + b"2")

    one.left.hook = change
    report = one.migration("blob", names=NAMES).apply()

    assert [named.trouble for named in report.resources[0].named] == [Trouble.CHANGED]
    assert one.elsewhere.get("large") == LARGE[::-1] + b"2"


@pytest.mark.parametrize(("error", "tries"), [(Unsupported, 2), (PermissionDenied, 1)])
def test_what_the_provider_does_not_copy_comes_through_here(one: Any, error: Any, tries: int) -> None:
    one.source.put("a", LARGE)
    one.source.put("b", LARGE)
    asked: list[str] = []

    def refuse(operation: str, key: str) -> None:
        if operation == "copy":
            asked.append(key)
            raise one.fault(error)

    one.left.hook = refuse
    report = one.migration("blob", names=NAMES, concurrency=1).apply()

    assert report.complete
    assert one.contents(one.elsewhere) == {"a": LARGE, "b": LARGE}
    assert len(asked) == tries


def test_a_copy_that_is_damaged_does_not_stay(one: Any) -> None:
    one.source.put("large", LARGE)
    copy = one.left.copy

    def damaged(*args: Any) -> Any:
        return attrs.evolve(copy(*args), md5=b"0" * 16)

    one.left.copy = damaged
    report = one.migration("blob", names=NAMES).apply()

    assert [named.trouble for named in report.resources[0].named] == [Trouble.FAILED]
    assert one.contents(one.elsewhere) == {}
