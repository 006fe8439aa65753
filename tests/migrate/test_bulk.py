"""The data plane without a journal."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from shiftable.blob._bulk import Copied, CopyFailed, Facets, SourceChanged, SourceVanished, copy_many, copy_object
from shiftable.errors import ParentNotFound, PermissionDenied, PreconditionFailed
from shiftable.tokens import Token


def test_a_copy_tells_what_was_read_and_written(world: Any) -> None:
    world.source.put("a", b"123", metadata={"m": "1"}, tags={"t": "1"})

    copied = copy_object(world.source, world.make_target(), "a", to_key="b")

    assert (copied.size, copied.sha256) == (3, hashlib.sha256(b"123").digest())
    assert copied.token == world.target.stat("b").token
    assert (world.target.get("b"), world.target.stat("b").metadata, world.target.tags("b")) == (
        b"123",
        {"m": "1"},
        {"t": "1"},
    )


def test_what_is_kept_can_be_chosen(world: Any) -> None:
    world.source.put("a", b"1", metadata={"m": "1"}, tags={"t": "1"})

    copy_object(world.source, world.make_target(), "a", fit=lambda _info, tags: Facets(tags=tags))

    assert (world.target.stat("a").metadata, world.target.tags("a")) == ({}, {"t": "1"})


def test_conditions_of_source_and_target_are_told_apart(world: Any) -> None:
    world.source.put("a", b"1")
    target = world.make_target()

    with pytest.raises(SourceChanged):
        copy_object(world.source, target, "a", token=Token("another"))
    with pytest.raises(SourceVanished):
        copy_object(world.source, target, "b")
    assert world.contents(target) == {}
    copy_object(world.source, target, "a")
    with pytest.raises(PreconditionFailed) as caught:
        copy_object(world.source, target, "a", if_absent=True)
    assert not isinstance(caught.value, SourceChanged)


def test_a_missing_bucket_is_no_vanished_object(world: Any) -> None:
    target = world.make_target()
    world.left.destroy("shop-assets")

    with pytest.raises(ParentNotFound):
        copy_object(world.source, target, "a")


def test_many_copies_yield_each_result_once_and_go_on_after_a_failure(world: Any) -> None:
    for number in range(100):
        world.source.put(str(number), str(number).encode())
    target = world.make_target()
    target.put("7", b"theirs")

    def refuse(operation: str, key: str) -> None:
        if (operation, key) == ("get", "9"):
            raise world.fault(PermissionDenied)

    world.left.hook = refuse
    keys = [*map(str, range(100)), "missing"]
    results = {result.key: result for result in copy_many(world.source, target, keys, concurrency=4, if_absent=True)}

    failed = {key: type(result.error) for key, result in results.items() if isinstance(result, CopyFailed)}
    assert failed == {"7": PreconditionFailed, "9": PermissionDenied, "missing": SourceVanished}
    assert sum(isinstance(result, Copied) for result in results.values()) == 98
    assert set(results) == set(keys)


def test_an_error_that_is_a_bug_is_raised(world: Any) -> None:
    world.source.put("a", b"1")

    def fail(_operation: str, _key: str) -> None:
        raise ZeroDivisionError

    world.left.hook = fail
    with pytest.raises(ZeroDivisionError):
        list(copy_many(world.source, world.make_target(), ["a"]))
