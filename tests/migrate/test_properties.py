"""Whatever lies on both sides and whatever fails: every item of the source arrives equal, or is named."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from shiftable.errors import (
    Conflict,
    InvalidArgument,
    MigrationError,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unavailable,
)
from shiftable.migrate import Trouble

ERRORS = (
    Conflict,
    InvalidArgument,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unavailable,
)
KEYS = st.sampled_from(["a", "a/b", "a/b/c", "a-b", "b", "b//c", "ü", "😀", "z" * 40])
OBJECTS = st.dictionaries(
    KEYS, st.tuples(st.binary(max_size=3), st.dictionaries(st.sampled_from("mn"), st.sampled_from("12"), max_size=1))
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["left", "right"]),
        st.sampled_from(["get", "put", "stat", "stored"]),
        KEYS,
        st.sampled_from([*ERRORS, "write", "delete"]),
    ),
    max_size=12,
)
FEATURES = st.fixed_dictionaries(
    {
        "keys_are_paths": st.booleans(),
        "metadata": st.booleans(),
        "delete_if_match": st.booleans(),
    }
)


def meddle(world: Any, events: list[Any], theirs: dict[str, bytes]) -> None:
    """Let each event happen once, the first time that its call is made."""
    left = list(events)

    def hook_of(side: str) -> Any:
        def hook(operation: str, key: str) -> None:
            for event in [event for event in left if event[:3] == (side, operation, key)]:
                left.remove(event)
                if isinstance(event[3], type):
                    raise world.fault(event[3], retry_after=0)
                happen(event[3], side, key)
                return

        return hook

    def happen(what: str, side: str, key: str) -> None:
        bucket = world.source if side == "left" else world.target
        hooks = world.left.hook, world.right.hook
        world.left.hook = world.right.hook = lambda *_: None
        try:
            if what == "write":
                bucket.put(key, b"somebody")
                if side == "right":
                    theirs[key] = b"somebody"
            else:
                bucket.delete(key)
                if side == "right":
                    theirs.pop(key, None)
        finally:
            world.left.hook, world.right.hook = hooks

    world.left.hook, world.right.hook = hook_of("left"), hook_of("right")


@settings(max_examples=60, deadline=None)
@given(source=OBJECTS, target=OBJECTS, rounds=st.lists(EVENTS, min_size=1, max_size=3), features=FEATURES)
def test_every_item_arrives_equal_or_is_named_and_nothing_of_others_is_overwritten(
    world_class: Any, source: Any, target: Any, rounds: Any, features: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = world_class(Path(folder))
        theirs = {key: data for key, (data, _) in target.items()}
        world.make_target()
        for bucket, objects in ((world.source, source), (world.target, target)):
            for key, (data, metadata) in objects.items():
                bucket.put(key, data, metadata=metadata)
        world.right.chosen = features
        for events in rounds:
            meddle(world, events, theirs)
            check(world, theirs)
        world.left.hook = world.right.hook = lambda *_: None
        check(world, theirs)
        assert world.migration("blob", concurrency=1).apply().changed == 0


def stored(driver: Any) -> dict[str, tuple[bytes, Any]]:
    """Look into the driver, past hooks and the code under test."""
    bucket = driver._buckets["shop-assets"]
    entries = {key: bucket.current(key) for key in bucket.living}
    return {key: (entry.data, entry.info.metadata) for key, entry in entries.items()}


def forget_adopted(world: Any, theirs: dict[str, bytes]) -> None:
    """Drop what equals its source: it may have been adopted, and is ours then."""
    for key, (data, _) in stored(world.left).items():
        if theirs.get(key) == data:
            del theirs[key]


def check(world: Any, theirs: dict[str, bytes]) -> None:
    forget_adopted(world, theirs)
    try:
        report = world.migration("blob", concurrency=1).apply()
    except MigrationError:
        report = None  # stopped by failures of one kind: the next round goes on
    forget_adopted(world, theirs)
    present = stored(world.right)
    assert {key: present[key][0] for key in theirs} == theirs
    if report is not None:
        named = {found.key for found in report.resources[0].named}
        assert {key for key, data in stored(world.left).items() if present.get(key) != data} <= named


SECRETS = st.sampled_from(["a", "b/c"])
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "pending", "promote", "disable", "delete", "label"]), SECRETS, st.integers(0, 3)
    ),
    max_size=6,
)
FAULTS = st.lists(
    st.tuples(
        st.sampled_from(["get", "put", "stored"]),
        SECRETS,
        st.sampled_from([Timeout, Conflict, PreconditionFailed, "stop"]),
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(
    rounds=st.lists(st.tuples(CHANGES, FAULTS), min_size=1, max_size=4),
    include_pending=st.booleans(),
    history=st.sampled_from([0, 2, None]),
)
def test_every_secret_arrives_with_its_stages_or_is_named(
    world_class: Any, rounds: Any, *, include_pending: bool, history: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = world_class(Path(folder))
        for changes, faults in rounds:
            for change in changes:
                change_secret(world.source_secrets, *change)
            world.right_hidden.hook = failing(world, list(faults))
            try:
                move_secrets(world, include_pending=include_pending, history=history)
            except (KeyboardInterrupt, MigrationError):
                continue
        world.right_hidden.hook = lambda *_: None
        report = move_secrets(world, include_pending=include_pending, history=history)
        again = move_secrets(world, include_pending=include_pending, history=history)

        named = {found.key for found in report.resources[0].named}
        left, right = stages(world.left_hidden), stages(world.right_hidden)
        assert {key for key, found in left.items() if not holds(right.get(key), found)} <= named
        assert again.changed == 0
        if history is None:
            entries = world.left_hidden._entries, world.right_hidden._entries
            assert {
                key for key in left if key not in named and lacking(*(each[f"shop/{key}"] for each in entries))
            } == set()
        # What a killed run wrote is known by the source's history; what was deleted or disabled has no value there.
        unknown = any(change[0] in {"delete", "disable"} for changes, _ in rounds for change in changes)
        allowed = {Trouble.REFUSED, Trouble.STALE} | ({Trouble.CONFLICT} if unknown else set())
        assert {found.trouble for found in report.resources[0].named} <= allowed


def holds(right: Any, left: Any) -> bool:
    """Tell whether the target has what the source has; its writes may have left a previous version behind."""
    if right is None:
        return False
    kept = {stage: value for stage, value in right[1].items() if stage in left[1] or stage != "previous"}
    return (right[0], kept) == left


def move_secrets(world: Any, **options: Any) -> Any:
    return world.migration("secrets", concurrency=1, **options).apply()


def lacking(left: Any, right: Any) -> Counter[str]:
    """Return the values of versions that can be read at the source and that the target has not so often."""
    found = [
        Counter(version.value.reveal() for version in entry.versions.values() if version.enabled)
        for entry in (left, right)
    ]
    return found[0] - found[1]


def change_secret(store: Any, what: str, key: str, number: int) -> None:
    versions = list(store.history(key)) if store.exists(key) else []
    if what == "put":
        store.put(key, f"value {number}")
    elif what == "label":
        if versions:
            store.put(key, f"value {number}", labels={"l": str(number)})
    elif what == "pending":
        if versions:
            store.put(key, f"value {number}", stage="pending")
    elif what == "delete" and versions:
        store.delete(key, recovery=None)
    elif what in {"promote", "disable"} and number < len(versions):
        version = versions[number]
        if what == "disable" and not version.stages:
            store.disable(key, version.version)
        elif what == "promote" and version.enabled:
            store.promote(key, version.version)


def failing(world: Any, faults: list[Any]) -> Any:
    def hook(operation: str, name: str) -> None:
        for fault in [fault for fault in faults if (fault[0], f"shop/{fault[1]}") == (operation, name)]:
            faults.remove(fault)
            if fault[2] == "stop":
                raise KeyboardInterrupt
            raise world.fault(fault[2], retry_after=0)

    return hook


def stages(driver: Any) -> dict[str, Any]:
    """Look into the driver, past the code under test."""
    return {
        name: (entry.labels, {stage: entry.versions[id_].value.reveal() for stage, id_ in entry.stages.items()})
        for name, entry in ((name.removeprefix("shop/"), entry) for name, entry in driver._entries.items())
    }
