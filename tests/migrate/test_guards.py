"""Targets of which only a try tells that they ignore conditions, for objects in parts."""

from __future__ import annotations

from typing import Any

import pytest

from shiftable.errors import Unsupported

LARGE = bytes(9 * 1024 * 1024)


@pytest.fixture
def moving(world: Any, world_class: Any) -> Any:
    class IgnoresConditionsInParts(type(world.left)):  # type: ignore[misc]
        def upload_begin(self, bucket: str, key: str, options: Any) -> Any:
            if options.if_absent or options.if_match is not None:
                raise world_class.fault(Unsupported, "the server ignores conditions of uploads in parts")
            return super().upload_begin(bucket, key, options)

    world.right = IgnoresConditionsInParts()
    world.source.put("small", b"x")
    world.source.put("large", LARGE, metadata={"n": "v"}, tags={"team": "a"})
    return world


def test_what_would_be_written_without_a_guard_is_refused_and_the_rest_arrives(moving: Any) -> None:
    report = moving.migration("blob").apply()
    (named,) = report.resources[0].named
    assert (named.key, report.complete) == ("large", False)
    assert "degrade 'guards'" in named.reason
    assert moving.contents(moving.target) == {"small": b"x"}


def test_with_guards_given_up_it_looks_and_then_writes(moving: Any) -> None:
    report = moving.migration("blob", degrade={"guards"}).apply()
    assert report.complete
    assert moving.contents(moving.target) == {"small": b"x", "large": LARGE}
    assert moving.target.stat("large").metadata == {"n": "v"}
    assert moving.target.tags("large") == {"team": "a"}
    moving.source.put("large", LARGE[1:])
    assert moving.migration("blob", degrade={"guards"}).apply().changed == 1
    assert moving.target.get("large") == LARGE[1:]


def test_with_guards_given_up_what_others_wrote_still_stays(moving: Any) -> None:
    moving.make_target().put("large", b"theirs")
    report = moving.migration("blob", degrade={"guards"}).apply()
    assert not report.complete
    assert moving.target.get("large") == b"theirs"
