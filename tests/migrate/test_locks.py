"""Moving objects that are locked: what is kept, what is a loss, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.blob import BlobStore, Bucket, BucketSpec, Lock, Retention
from shiftable.errors import PermissionDenied
from shiftable.migrate import Action, Tally, Trouble

MIB = 1024 * 1024
SPEC = BucketSpec(name="shop-assets", versioning=True, object_lock=True)


def ends(minutes: int = 60, mode: Any = "governance") -> Retention:
    return Retention(until=datetime.now(UTC) + timedelta(minutes=minutes), mode=mode)


@pytest.fixture
def locked(world: Any) -> Any:
    """Return the two clouds with object lock declared, and on at the source."""
    store = BlobStore(world.left)
    store.delete(SPEC.name)
    store.create(SPEC)
    world.bucket_spec = SPEC
    return world


def locks(bucket: Bucket) -> dict[str, Lock]:
    return {item.key: bucket.stat(item.key).lock for item in bucket.list()}


def troubles(report: Any) -> dict[str, tuple[Trouble, str]]:
    return {named.key: (named.trouble, named.reason) for named in report.resources[0].named}


def test_locks_arrive_with_the_objects_whatever_their_size(locked: Any) -> None:
    soft, hard = ends(), ends(600, "compliance")
    locked.source.put("soft", b"1", retain=soft)
    locked.source.put("hard", b"22", retain=hard, hold=True)
    locked.source.put("held", b"333", hold=True)
    locked.source.put("free", b"4444")
    locked.source.put("long", b"x" * (9 * MIB), retain=hard, hold=True)
    seen: list[tuple[str, Lock]] = []
    put, complete = locked.right.put, locked.right.upload_complete

    def noted(info: Any) -> Any:
        seen.append((info.key, info.lock))
        return info

    locked.right.put = lambda *args: noted(put(*args))
    locked.right.upload_complete = lambda *args: noted(complete(*args))

    report = locked.migration("blob").apply()

    assert report.complete
    expected = {
        "soft": Lock(retention=soft),
        "hard": Lock(retention=hard, hold=True),
        "held": Lock(hold=True),
        "free": Lock(),
        "long": Lock(retention=hard, hold=True),
    }
    assert dict(seen) == expected
    assert locks(locked.target) == expected
    assert BlobStore(locked.right).describe(SPEC.name) == SPEC
    assert locked.migration("blob").verify().complete


def test_a_retention_that_is_over_stays_behind_and_is_no_loss(locked: Any) -> None:
    locked.source.put("key", b"x", retain=ends(10))
    locked.left.clock = lambda: datetime.now(UTC) + timedelta(days=1)
    over = datetime.now(UTC) - timedelta(hours=1)
    entries = locked.left._buckets[SPEC.name].history["key"]
    entries[:] = [attrs.evolve(each, info=attrs.evolve(each.info, retention=Retention(until=over))) for each in entries]

    report = locked.migration("blob").apply()

    assert report.complete
    assert report.resources[0].losses == ()
    assert locks(locked.target) == {"key": Lock()}


@pytest.mark.parametrize("lacks", ["the provider", "the bucket"])
def test_a_target_without_locks_refuses_unless_the_loss_is_accepted(locked: Any, lacks: str) -> None:
    locked.source.put("key", b"x", retain=ends(), hold=True)
    locked.source.put("free", b"x")
    if lacks == "the provider":
        locked.right.chosen |= {"object_lock": False, "legal_hold": False, "governance": False}
        report = locked.migration("blob").apply()
        assert report.resources[0].refused == ("the target has no object lock; accept that with degrade 'lock'",)
    locked.bucket_spec = attrs.evolve(SPEC, object_lock=False)

    refused = locked.migration("blob").apply()

    assert not refused.complete
    trouble, reason = troubles(refused)["key"]
    assert trouble is Trouble.REFUSED
    assert "retention (governance until" in reason
    assert "legal hold" in reason
    assert "degrade 'lock'" in reason
    assert locks(locked.target) == {"free": Lock()}

    accepted = locked.migration("blob", degrade={"lock"}).apply()

    assert accepted.complete
    assert locks(locked.target) == {"free": Lock(), "key": Lock()}
    assert [loss for loss in accepted.resources[0].losses if loss.facet == "lock"]


def test_declared_locks_are_given_up_only_by_name(locked: Any) -> None:
    locked.right.chosen |= {"object_lock": False, "legal_hold": False, "governance": False}
    locked.source.put("key", b"x", retain=ends())

    report = locked.migration("blob", degrade={"lock"}).apply()

    assert report.complete
    assert not BlobStore(locked.right).describe(SPEC.name).object_lock
    assert locked.target.get("key") == b"x"


def test_a_target_that_cannot_get_locks_any_more_is_refused_with_what_to_do(locked: Any) -> None:
    locked.right.chosen |= {"lock_later": False}
    BlobStore(locked.right).create(attrs.evolve(SPEC, object_lock=False))
    locked.source.put("key", b"x")

    (why,) = locked.migration("blob").apply().resources[0].refused

    assert "object lock only in buckets that were made with it" in why


def test_a_newer_version_comes_on_top_of_a_locked_one(locked: Any) -> None:
    locked.source.put("key", b"old", retain=ends())
    locked.migration("blob").apply()
    first = locked.target.stat("key")
    locked.source.put("key", b"new")

    report = locked.migration("blob").apply()

    assert report.complete
    assert locked.target.get("key") == b"new"
    assert locked.target.stat("key", version=first.version).lock == first.lock


@pytest.mark.parametrize("when", ["seen by the plan", "found at the write"])
def test_a_locked_object_that_would_have_to_be_replaced_is_a_clear_refusal(locked: Any, when: str) -> None:
    for driver in (locked.left, locked.right):
        driver.chosen |= {"lock_needs_versioning": False}
    locked.bucket_spec = attrs.evolve(SPEC, versioning=False)
    target = BlobStore(locked.right).create(locked.bucket_spec)
    locked.source.put("other", b"2")
    if when == "seen by the plan":
        locked.source.put("key", b"ours")
        target.put("key", b"theirs", hold=True)
    else:
        locked.source.put("key", b"old", hold=True)
        locked.migration("blob").apply()
        locked.source.put("key", b"new")

    report = locked.migration("blob", overwrite=True).apply()

    trouble, reason = troubles(report)["key"]
    assert trouble is Trouble.CONFLICT
    assert "the target's object is locked, a legal hold" in reason
    assert target.get("other") == b"2"
    assert target.get("key") in {b"theirs", b"old"}


def test_prune_of_a_locked_object_is_a_refusal_and_the_rest_goes_on(locked: Any) -> None:
    for driver in (locked.left, locked.right):
        driver.chosen |= {"lock_needs_versioning": False}
    locked.bucket_spec = attrs.evolve(SPEC, versioning=False)
    for key in ("a", "b", "c"):
        locked.source.put(key, b"x", hold=key == "b")
    locked.migration("blob").apply()
    for key in ("a", "b", "c"):
        locked.source.delete(key)
    locked.source.put("d", b"x")

    report = locked.migration("blob", prune=True).apply()

    assert troubles(report)["b"][0] is Trouble.STALE
    assert "the target's object is locked, a legal hold" in troubles(report)["b"][1]
    assert sorted(locks(locked.target)) == ["b", "d"]


def test_an_equal_object_is_locked_as_its_source_is(locked: Any) -> None:
    retention = ends(600)
    locked.source.put("key", b"x", retain=retention, hold=True)
    target = BlobStore(locked.right).create(SPEC)
    target.put("key", b"x", retain=ends(10))
    locked.right.writes.clear()

    report = locked.migration("blob").apply()

    assert report.resources[0].done == {Action.COMPARE: Tally(1, 1)}
    assert locked.right.writes == []
    assert locks(target) == {"key": Lock(retention=retention, hold=True)}


def test_an_equal_object_that_is_locked_longer_stays_as_it_is(locked: Any) -> None:
    locked.source.put("key", b"x", retain=ends(10))
    target = BlobStore(locked.right).create(SPEC)
    longer = target.put("key", b"x", retain=ends(600, "compliance"), hold=True).lock

    assert locked.migration("blob").apply().complete
    assert locks(target) == {"key": longer}


def test_an_equal_object_whose_lock_cannot_be_changed_is_a_conflict(locked: Any) -> None:
    locked.source.put("key", b"x", retain=ends(10, "compliance"))
    target = BlobStore(locked.right).create(SPEC)
    target.put("key", b"x", retain=ends(5, "governance"))

    report = locked.migration("blob").apply()

    trouble, reason = troubles(report)["key"]
    assert trouble is Trouble.CONFLICT
    assert "cannot be locked as its source is" in reason


def test_verification_finds_a_lock_that_is_weaker(locked: Any) -> None:
    for key in ("shorter", "released", "stronger"):
        locked.source.put(key, b"x", retain=ends(600), hold=key == "released")
    locked.migration("blob").apply()
    locked.target.retain("shorter", ends(10).until, bypass=True)
    locked.target.release("released")
    locked.target.hold("stronger")

    report = locked.migration("blob").verify()

    found = troubles(report)
    assert {key: trouble for key, (trouble, _) in found.items()} == {
        "shorter": Trouble.DIFFERS,
        "released": Trouble.DIFFERS,
    }
    assert "the lock differs" in found["shorter"][1]


class TestASourceThatTellsLocksOnlyToWhomMayReadThem:
    @pytest.fixture
    def silent(self, locked: Any) -> Any:
        """Return the world with a source like S3, to credentials that may ask for locks but are told of none."""
        locked.left.chosen |= {"lock_told": False}
        told = locked.left.stat

        def stat(bucket: str, key: str, *, version: str | None) -> Any:
            return attrs.evolve(told(bucket, key, version=version), retention=None, hold=False)

        locked.asked = []

        def lock_of(bucket: str, key: str, *, version: str | None) -> Lock:
            locked.asked.append(key)
            return told(bucket, key, version=version).lock  # type: ignore[no-any-return]  # the world is untyped

        locked.left.stat, locked.left.lock_of = stat, lock_of
        return locked

    def test_the_first_object_is_asked_for_by_itself(self, silent: Any) -> None:
        silent.source.put("key", b"x", retain=ends(), hold=True)
        assert silent.migration("blob").apply().complete
        assert silent.target.stat("key").hold
        assert silent.asked

    def test_a_bucket_without_object_lock_is_not_asked(self, world: Any) -> None:
        world.left.chosen |= {"lock_told": False}
        world.left.lock_of = lambda *_args, **_options: pytest.fail("asked")
        world.source.put("key", b"x")
        assert world.migration("blob").apply().complete

    def test_a_lock_that_may_not_be_read_is_a_refusal_unless_accepted(self, silent: Any) -> None:
        def refused(*_args: Any, **_options: Any) -> Lock:
            raise silent.fault(PermissionDenied, "no")

        silent.left.lock_of = refused
        silent.source.put("key", b"x", retain=ends())

        report = silent.migration("blob").apply()

        assert "may not be read" in troubles(report)["key"][1]
        assert silent.migration("blob", degrade={"lock"}).apply().complete


def test_copy_many_takes_locks_along(locked: Any, tmp_path: Path) -> None:
    from shiftable.blob._bulk import Copied, copy_many

    retention = ends()
    locked.source.put("key", b"x", retain=retention, hold=True)
    target = BlobStore(locked.right).create(SPEC)

    (copied,) = copy_many(locked.source, target, ["key"])

    assert isinstance(copied, Copied)
    assert locks(target) == {"key": Lock(retention=retention, hold=True)}
