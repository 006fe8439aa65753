"""Reads, and locks of objects, while answers are lost, servers are busy and bodies end early."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.blob.driver import Lock, Retention
from shiftable.errors import OperationError, PermissionDenied, PreconditionFailed, Throttled, Unavailable
from shiftable.testing.harness import Call, Double

__all__ = ["BlobFaults"]

UNTIL = datetime(2100, 1, 1, tzinfo=UTC)
RETAINED = Lock(retention=Retention(until=UNTIL))
LONGER = Lock(retention=Retention(until=UNTIL + timedelta(days=1)))
Act = Callable[[Bucket], Any]
VERBS: dict[str, tuple[Lock, Act, Lock]] = {
    "retain": (Lock(), lambda bucket: bucket.retain("key", UNTIL), RETAINED),
    "retain longer": (RETAINED, lambda bucket: bucket.retain("key", UNTIL + timedelta(days=1)), LONGER),
    "take a retention away": (RETAINED, lambda bucket: bucket.retain("key", None, bypass=True), Lock()),
    "hold": (Lock(), lambda bucket: bucket.hold("key"), Lock(hold=True)),
    "release": (Lock(hold=True), lambda bucket: bucket.release("key"), Lock()),
}
READS: dict[str, Act] = {
    "stat": lambda bucket: bucket.stat("key"),
    "stat of a version": lambda bucket: bucket.stat("key", version=bucket.stat("key").version),
    "exists": lambda bucket: bucket.exists("key"),
    "get": lambda bucket: bucket.get("key"),
    "a range": lambda bucket: bucket.get("key", start=1, stop=3),
    "nothing": lambda bucket: bucket.get("empty"),
    "tags": lambda bucket: bucket.tags("key"),
    "list": lambda bucket: [*bucket.list()],
    "versions": lambda bucket: [*bucket.versions()],
    "lock": lambda bucket: bucket.lock_of("key"),
}
EVERY = pytest.mark.parametrize("verb", VERBS)


def changes(call: Call) -> bool:
    return call.method in {"DELETE", "PATCH", "POST", "PUT"}


def reads(call: Call) -> bool:
    return call.method in {"GET", "HEAD"}


class BlobFaults:
    """Rules that hold for every cloud.

    Who uses them brings the fixtures ``store``, ``double``, and ``hasty``, a store that soon gives up.
    """

    DENIAL: ClassVar[bytes] = b""
    """What the provider says to who may not."""

    @pytest.fixture
    def locked(self, store: BlobStore) -> Bucket:
        """Return a bucket with object lock."""
        versioning = store.features.lock_needs_versioning
        return store.create(BucketSpec(name="shop-locked", versioning=versioning, object_lock=True))

    def made(self, bucket: Bucket, lock: Lock) -> None:
        bucket.put("key", b"x", retain=lock.retention, hold=lock.hold)
        assert lock == bucket.lock_of("key")

    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
    def test_a_read_whose_connection_breaks_is_asked_again(
        self, locked: Bucket, double: Double, read: str, fault: Any
    ) -> None:
        if read == "tags" and not locked.features.tags:
            pytest.skip(f"{locked.features.title}: the provider has no tags, and its refusal is tested")
        locked.put("key", b"content", metadata={"n": "v"}, tags={"t": "v"} if locked.features.tags else None)
        locked.put("empty", b"")
        expected = READS[read](locked)
        fault = double.inject(fault, match=reads)
        assert (expected, 1) == (READS[read](locked), fault.hits)

    @EVERY
    @pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
    def test_a_lock_whose_answer_is_lost_is_as_it_was_asked_for(
        self, locked: Bucket, double: Double, verb: str, fault: Any
    ) -> None:
        before, act, after = VERBS[verb]
        self.made(locked, before)
        fault = double.inject(fault, match=changes)
        act(locked)
        assert (1, after) == (fault.hits, locked.lock_of("key"))

    @EVERY
    def test_a_busy_server_is_asked_again_and_in_the_end_nothing_was_done(
        self, locked: Bucket, hasty: BlobStore, double: Double, verb: str
    ) -> None:
        before, act, after = VERBS[verb]
        self.made(locked, before)
        busy = double.inject("status", match=changes, status=503, times=None)
        with pytest.raises((Throttled, Unavailable)):
            act(hasty.bucket(locked.name))
        assert busy.hits
        assert before == locked.lock_of("key")

        busy.times = busy.hits + 1
        act(locked)
        assert after == locked.lock_of("key")

    @EVERY
    def test_who_may_not_change_a_lock_is_told_so_at_once(self, locked: Bucket, double: Double, verb: str) -> None:
        before, act, _ = VERBS[verb]
        self.made(locked, before)
        denied = double.inject("status", match=changes, status=403, times=None, body=self.DENIAL)
        with pytest.raises(PermissionDenied):
            act(locked)
        assert (1, before) == (denied.hits, locked.lock_of("key"))

    @pytest.mark.parametrize("lock", [RETAINED, Lock(hold=True)], ids=["retention", "hold"])
    @pytest.mark.parametrize("kind", ["truncate", "drop_before", "drop_after", "denied", "broken"])
    def test_a_lock_that_cannot_be_read_is_never_no_lock(
        self, locked: Bucket, hasty: BlobStore, double: Double, lock: Lock, kind: Any
    ) -> None:
        self.made(locked, lock)
        status = {"denied": 403, "broken": 500}.get(kind)
        fault = double.inject("status" if status else kind, match=reads, times=None, status=status or 503)
        try:
            told = hasty.bucket(locked.name).lock_of("key")
        except OperationError:
            told = None
        assert fault.hits
        assert told in {None, lock}  # a HEAD has no body that could end early
        fault.times = fault.hits

        once = double.inject("drop_after", match=reads)
        assert (lock, 1) == (locked.lock_of("key"), once.hits)

    @pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
    def test_what_is_written_with_a_lock_is_there_once_and_locked(
        self, locked: Bucket, double: Double, fault: Any
    ) -> None:
        fault = double.inject(fault, match=changes)
        locked.put("key", b"x", retain=RETAINED.retention, if_absent=True)
        assert (1, RETAINED) == (fault.hits, locked.lock_of("key"))
        if locked.features.versioning:
            assert ["key"] == [each.key for each in locked.versions()]

    @pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
    @pytest.mark.parametrize("condition", ["if_absent", "if_match"])
    def test_a_copy_under_a_condition_whose_answer_is_lost_is_made_once(
        self, store: BlobStore, double: Double, condition: str, fault: Any
    ) -> None:
        bucket = store.create(BucketSpec(name="shop-copies", versioning=store.features.lock_needs_versioning))
        bucket.put("source", b"content", content_type="text/plain", metadata={"n": "v"})
        expected = (
            {"if_match": bucket.put("target", b"older").token} if condition == "if_match" else {"if_absent": True}
        )
        injected = double.inject(fault, match=changes)
        info = bucket.copy("source", "target", **expected)
        found = bucket.stat("target")
        assert (1, found.token, found.md5) == (injected.hits, info.token, info.md5)
        assert (b"content", "text/plain", {"n": "v"}) == (
            bucket.get("target"),
            found.headers.content_type,
            found.metadata,
        )
        with pytest.raises(PreconditionFailed):
            bucket.copy("source", "target", **expected)
