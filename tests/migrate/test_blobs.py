"""Moving objects: what is copied, adopted, refused, lost."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from shiftable.blob import BlobStore, BucketSpec, CorsRule, Headers, LifecycleRule
from shiftable.blob.driver import StorageClass
from shiftable.errors import (
    Conflict,
    IntegrityError,
    MigrationError,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unavailable,
)
from shiftable.features import Limit
from shiftable.migrate import Action, Options, Tally, Trouble
from shiftable.migrate._blobs import BlobMover
from shiftable.migrate._journal import Journal


def troubles(report: Any, address: str = "blob.assets") -> dict[str, Trouble]:
    found = next(each for each in report.resources if each.address == address)
    return {named.key: named.trouble for named in found.named}


def forget_md5(driver: Any) -> None:
    for entries in driver._buckets["shop-assets"].history.values():
        entries[-1] = attrs.evolve(entries[-1], info=attrs.evolve(entries[-1].info, md5=None))


def test_everything_arrives_with_headers_metadata_and_tags(world: Any) -> None:
    headers = Headers(content_type="image/png", cache_control="no-store", content_language="de")
    world.source.put("a//b/../c ?#%+ ü😀", b"1" * 10, headers=headers, metadata={"who": "me"}, tags={"team": "core"})
    world.source.put("empty", b"")
    world.source.put("long", b"x" * (9 * 1024 * 1024))

    report = world.migration("blob").apply()

    assert report.complete
    assert world.contents(world.target) == world.contents(world.source)
    info = world.target.stat("a//b/../c ?#%+ ü😀")
    assert (info.headers, info.metadata) == (headers, {"who": "me"})
    assert world.target.tags("a//b/../c ?#%+ ü😀") == {"team": "core"}
    assert report.resources[0].done == {Action.CREATE: Tally(3, 10 + 9 * 1024 * 1024)}


def test_the_second_run_changes_nothing_and_reads_no_object(world: Any) -> None:
    for number in range(250):
        world.source.put(f"key/{number}", str(number).encode())
    first = world.migration("blob").apply()
    world.right.writes.clear()
    world.left.hook = world.right.hook = lambda operation, key: pytest.fail(f"{operation} {key}")

    second = world.migration("blob").apply()

    assert (first.changed, second.changed) == (250, 0)
    assert second.resources[0].done == {Action.UNCHANGED: Tally(250, sum(len(str(n)) for n in range(250)))}
    assert world.right.writes == []


def test_a_plan_writes_nowhere_not_even_a_journal(world: Any) -> None:
    world.source.put("a", b"1")
    world.left.writes.clear()

    plan = world.migration().plan()

    assert (world.left.writes, world.right.writes, world.state_dir.exists()) == ([], [], False)
    assert plan.resources[0].actions == {Action.CREATE: Tally(1, 1)}
    assert plan.resources[0].changes == ("create blob shop-assets",)


def test_the_source_is_never_written_to(world: Any) -> None:
    world.source.put("a", b"1")
    world.source.put("gone soon", b"1")
    world.migration("blob", prune=True, overwrite=True).apply()
    world.source.delete("gone soon")
    world.left.writes.clear()

    world.migration("blob", prune=True, overwrite=True).apply()

    assert world.left.writes == []


def test_a_delta_copies_only_what_changed(world: Any) -> None:
    world.source.put("same", b"1")
    world.source.put("other", b"1")
    world.migration("blob").apply()
    world.source.put("other", b"2")
    world.source.put("new", b"3")
    world.right.writes.clear()

    report = world.migration("blob").apply()

    assert sorted(world.right.writes) == [("put", "new"), ("put", "other")]
    assert report.complete
    assert world.contents(world.target) == {"same": b"1", "other": b"2", "new": b"3"}


def test_an_object_of_somebody_else_is_a_conflict_and_stays(world: Any) -> None:
    world.source.put("a", b"ours")
    world.make_target().put("a", b"theirs")

    plan = world.migration("blob").plan()
    report = world.migration("blob").apply()

    assert plan.resources[0].troubles == {Trouble.CONFLICT: 1}
    assert troubles(report) == {"a": Trouble.CONFLICT}
    assert not report.complete
    assert world.target.get("a") == b"theirs"


def test_overwrite_replaces_what_differs_and_nothing_else(world: Any) -> None:
    world.source.put("a", b"ours")
    world.source.put("same", b"1")
    target = world.make_target()
    target.put("a", b"theirs")
    target.put("same", b"1")
    target.put("only theirs", b"1")
    world.right.writes.clear()

    report = world.migration("blob", overwrite=True).apply()

    assert world.right.writes == [("put", "a")]
    assert report.complete
    assert world.contents(target) == {"a": b"ours", "same": b"1", "only theirs": b"1"}


def test_an_equal_object_is_adopted_after_a_look_at_both_sides(world: Any) -> None:
    for bucket in (world.source, world.make_target()):
        bucket.put("a", b"1", metadata={"x": "1"}, tags={"t": "1"})
    world.right.writes.clear()

    first = world.migration("blob").apply()
    second = world.migration("blob").apply()

    assert first.resources[0].done == {Action.COMPARE: Tally(1, 1)}
    assert second.resources[0].done == {Action.UNCHANGED: Tally(1, 1)}
    assert world.right.writes == []


@pytest.mark.parametrize("facet", ["metadata", "tags", "content_type"])
def test_equal_content_with_other_facets_is_a_conflict_that_names_no_values(world: Any, facet: str) -> None:
    world.source.put("a", b"1", **{facet: {"x": "mine"} if facet != "content_type" else "text/plain"})
    world.make_target().put("a", b"1")

    report = world.migration("blob").apply()

    assert troubles(report) == {"a": Trouble.CONFLICT}
    assert "mine" not in report.to_json()


def test_without_an_md5_an_equal_size_is_read_before_it_is_adopted(world: Any) -> None:
    world.source.put("a", b"1")
    world.source.put("b", b"1")
    target = world.make_target()
    target.put("a", b"1")
    target.put("b", b"2")
    for driver in (world.left, world.right):
        forget_md5(driver)

    report = world.migration("blob").apply()

    assert report.resources[0].done == {Action.COMPARE: Tally(1, 1)}
    assert troubles(report) == {"b": Trouble.CONFLICT}


def test_a_writer_on_the_target_between_listing_and_copy_is_not_clobbered(world: Any) -> None:
    world.source.put("a", b"ours")
    world.make_target()

    def write_first(operation: str, key: str) -> None:
        if operation == "get":
            world.left.hook = lambda *_: None
            world.target.put(key, b"theirs")

    world.left.hook = write_first
    report = world.migration("blob").apply()

    assert troubles(report) == {"a": Trouble.CONFLICT}
    assert world.target.get("a") == b"theirs"


def test_what_we_wrote_and_somebody_changed_is_not_replaced(world: Any) -> None:
    world.source.put("a", b"1")
    world.migration("blob").apply()
    world.target.put("a", b"theirs")
    world.source.put("a", b"2")

    report = world.migration("blob").apply()

    assert troubles(report) == {"a": Trouble.CONFLICT}
    assert world.target.get("a") == b"theirs"


def test_a_writer_on_the_target_between_listing_and_replacement_is_not_clobbered(world: Any) -> None:
    world.source.put("a", b"1")
    world.migration("blob").apply()
    world.source.put("a", b"2")

    def write_first(operation: str, key: str) -> None:
        if operation == "get":
            world.left.hook = lambda *_: None
            world.target.put(key, b"theirs")

    world.left.hook = write_first
    report = world.migration("blob").apply()

    assert troubles(report) == {"a": Trouble.CONFLICT}
    assert world.target.get("a") == b"theirs"


def test_a_lost_answer_is_found_again_and_nothing_is_written_twice(world: Any) -> None:
    world.source.put("a", b"1")
    world.make_target()
    put = world.right.put

    def lost(bucket: str, key: str, data: bytes, options: Any) -> Any:
        put(bucket, key, data, options)
        world.right.put = put
        raise world.fault(Timeout)

    world.right.put = lost
    report = world.migration("blob").apply()

    assert report.complete
    assert world.right.writes == [("put", "a")]
    assert report.resources[0].done == {Action.COMPARE: Tally(1, 1)}


def test_a_source_that_changes_during_the_copy_is_read_again_and_named(world: Any) -> None:
    world.source.put("a", b"1")

    def change(operation: str, key: str) -> None:
        if operation == "get":
            world.left.hook = lambda *_: None
            world.source.put(key, b"22")

    world.left.hook = change
    report = world.migration("blob").apply()

    assert troubles(report) == {"a": Trouble.CHANGED}
    assert report.complete
    assert world.target.get("a") == b"22"
    assert world.migration("blob").apply().changed == 0


def test_a_source_that_changes_all_the_time_is_reported_and_the_next_run_goes_on(world: Any) -> None:
    world.source.put("a", b"1")

    def change(operation: str, key: str) -> None:
        if operation == "get":
            hook, world.left.hook = world.left.hook, lambda *_: None
            world.source.put(key, b"x" * len(world.left.writes))
            world.left.hook = hook

    world.left.hook = change
    first = world.migration("blob").apply()
    world.left.hook = lambda *_: None
    second = world.migration("blob").apply()

    assert troubles(first) == {"a": Trouble.FAILED}
    assert second.complete
    assert world.contents(world.target) == world.contents(world.source)


def test_a_source_that_vanishes_is_named_and_stops_nothing(world: Any) -> None:
    for key in "abc":
        world.source.put(key, b"1")

    def vanish(operation: str, key: str) -> None:
        if (operation, key) == ("get", "b"):
            world.source.delete("b")

    world.left.hook = vanish
    report = world.migration("blob").apply()

    assert troubles(report) == {"b": Trouble.VANISHED}
    assert report.complete
    assert world.contents(world.target) == {"a": b"1", "c": b"1"}


def test_what_was_moved_earlier_and_vanishes_while_it_is_read_is_still_known_as_ours(world: Any) -> None:
    world.source.put("a", b"1")
    world.migration("blob").apply()
    world.source.put("a", b"2")

    def vanish(operation: str, key: str) -> None:
        if operation == "get":
            world.left.hook = lambda *_: None
            world.source.delete(key)

    world.left.hook = vanish
    first = world.migration("blob").apply()
    second = world.migration("blob").apply()

    assert troubles(first) == {"a": Trouble.VANISHED}
    assert troubles(second) == {"a": Trouble.STALE}


def test_a_source_that_changes_while_it_is_compared_is_compared_again(world: Any) -> None:
    world.source.put("a", b"1")
    world.make_target().put("a", b"2")
    for driver in (world.left, world.right):
        forget_md5(driver)

    def change(operation: str, key: str) -> None:
        if operation == "get":
            world.left.hook = lambda *_: None
            world.source.put(key, b"2")

    world.left.hook = change
    report = world.migration("blob").apply()

    assert troubles(report) == {"a": Trouble.CHANGED}
    assert report.resources[0].done == {Action.COMPARE: Tally(1, 1)}


def test_a_killed_write_of_an_older_version_is_still_ours_after_another_kill(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.source.put("a", b"1")
    monkeypatch.setattr(Journal, "arrived", lambda *_: None)  # as a kill does before the batch is written
    world.migration("blob").apply()
    monkeypatch.undo()
    world.source.put("a", b"2")

    def interrupt(operation: str, _key: str) -> None:
        if operation == "put":
            raise KeyboardInterrupt

    world.right.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.migration("blob").apply()
    world.right.hook = lambda *_: None
    report = world.migration("blob").apply()

    assert report.complete
    assert world.contents(world.target) == {"a": b"2"}


@pytest.mark.parametrize("lists_md5", [True, False])
def test_a_killed_write_of_an_older_version_is_known_as_ours_by_its_content(
    world: Any, monkeypatch: pytest.MonkeyPatch, *, lists_md5: bool
) -> None:
    world.right.lists_md5 = lists_md5
    world.source.put("a", b"1")
    monkeypatch.setattr(Journal, "arrived", lambda *_: None)  # as a kill does before the batch is written
    world.migration("blob").apply()
    monkeypatch.undo()
    world.source.put("a", b"2")

    report = world.migration("blob").apply()

    assert report.complete
    assert world.contents(world.target) == {"a": b"2"}


@pytest.mark.parametrize("lists_md5", [True, False])
def test_a_killed_write_is_known_as_ours_although_the_next_run_was_killed_before_it_came_to_that_object(
    world: Any, monkeypatch: pytest.MonkeyPatch, *, lists_md5: bool
) -> None:
    world.right.lists_md5 = lists_md5
    world.source.put("a", b"1")
    monkeypatch.setattr(Journal, "arrived", lambda *_: None)
    world.migration("blob").apply()
    world.source.put("a", b"2")

    def die(operation: str, key: str) -> None:
        raise KeyboardInterrupt

    world.left.hook = die
    with pytest.raises(KeyboardInterrupt):
        world.migration("blob").apply()
    world.left.hook = lambda *_: None
    monkeypatch.undo()
    world.source.put("a", b"3")

    report = world.migration("blob").apply()

    assert report.complete
    assert world.contents(world.target) == {"a": b"3"}
    assert world.migration("blob").apply().changed == 0


def test_what_is_gone_from_the_source_is_named_and_deleted_only_with_prune(world: Any) -> None:
    world.source.put("a", b"1")
    world.source.put("b", b"1")
    world.migration("blob").apply()
    world.target.put("theirs", b"1")
    world.source.delete("a")
    world.source.delete("b")
    world.target.put("b", b"changed by somebody")

    told = world.migration("blob").apply()
    kept = world.contents(world.target)
    pruned = world.migration("blob", prune=True).apply()

    assert troubles(told) == {"a": Trouble.STALE}
    assert kept == {"a": b"1", "b": b"changed by somebody", "theirs": b"1"}
    assert pruned.resources[0].done[Action.DELETE].count == 1
    assert world.contents(world.target) == {"b": b"changed by somebody", "theirs": b"1"}


def test_what_is_pruned_goes_last_and_stays_if_something_failed(world: Any) -> None:
    for key in "abc":
        world.source.put(key, b"1")
    world.migration("blob").apply()
    for key in "ab":
        world.source.delete(key)
    world.source.put("new", b"1")

    def full(operation: str, key: str) -> None:
        if (operation, key) == ("put", "new"):
            raise world.fault(QuotaExceeded, "the disk is full")

    world.right.hook = full
    world.right.writes.clear()
    failed = world.migration("blob", prune=True).apply()
    untouched = list(world.right.writes)
    world.right.hook = lambda *_: None
    healed = world.migration("blob", prune=True).apply()

    assert troubles(failed) == {"new": Trouble.FAILED, "a": Trouble.STALE, "b": Trouble.STALE}
    assert {named.reason for named in failed.resources[0].named if named.trouble is Trouble.STALE} == {
        "moved earlier; its source is gone; not deleted, as 1 item could not be copied"
    }
    assert "the disk is full" in next(named for named in failed.resources[0].named if named.key == "new").reason
    assert untouched == []
    assert healed.complete
    assert healed.resources[0].done[Action.DELETE].count == 2
    assert world.right.writes[0] == ("put", "new")
    assert sorted(world.right.writes[1:]) == [("delete", "a"), ("delete", "b")]


def test_a_refused_object_keeps_nothing_from_being_pruned(world: Any) -> None:
    world.source.put("a", b"1")
    world.migration("blob").apply()
    world.source.delete("a")
    world.source.put("bad", b"1")
    world.right.keys_refused = lambda key: "it is bad" if key == "bad" else None

    report = world.migration("blob", prune=True).apply()

    assert troubles(report) == {"bad": Trouble.REFUSED}
    assert world.contents(world.target) == {}


def test_what_is_back_at_the_source_is_not_pruned(world: Any) -> None:
    world.source.put("a", b"1")
    world.migration("blob").apply()
    world.source.delete("a")

    def bring_back(operation: str, key: str) -> None:
        if operation == "stat":
            world.left.hook = lambda *_: None
            world.source.put(key, b"1")

    world.left.hook = bring_back
    first = world.migration("blob", prune=True).apply()
    second = world.migration("blob", prune=True).apply()

    assert troubles(first) == {"a": Trouble.FAILED}
    assert second.complete
    assert world.contents(world.target) == {"a": b"1"}


def test_prune_stops_before_anything_is_done_when_much_of_the_source_is_gone(world: Any) -> None:
    for number in range(30):
        world.source.put(f"{number:02}", b"1")
    world.migration("blob").apply()
    for number in range(20):
        world.source.delete(f"{number:02}")
    world.source.put("new", b"1")

    with pytest.raises(MigrationError, match="has no more 20 of 30 items that were moved"):
        world.migration("blob", prune=True).apply()
    kept = len(world.contents(world.target))
    world.migration("blob", prune=True, prune_share=0.7).apply()

    assert kept == 30
    assert world.contents(world.target) == world.contents(world.source)


def test_a_key_that_the_target_refuses_is_refused_before_anything_is_sent(world: Any) -> None:
    world.source.put("good", b"1")
    world.source.put("bad", b"1")
    world.right.keys_refused = lambda key: "it is bad" if key == "bad" else None

    plan = world.migration("blob").plan()
    report = world.migration("blob").apply()

    assert [(named.key, named.reason) for named in plan.resources[0].named] == [("bad", "it is bad")]
    assert troubles(report) == {"bad": Trouble.REFUSED}
    assert world.right.writes == [("put", "good")]


def test_a_key_that_would_be_a_file_and_a_folder_is_refused_by_a_target_of_paths(world: Any) -> None:
    keys = ["a", "a!b", "a-b/c", "a/b", "a/b/c", "b", "c/d", "c/d/e/f"]
    for key in keys:
        world.source.put(key, b"1")
    world.right.chosen = {"any_key": False, "keys_are_paths": True}

    report = world.migration("blob").apply()

    refused = {"a/b": Trouble.REFUSED, "a/b/c": Trouble.REFUSED, "c/d/e/f": Trouble.REFUSED}
    assert troubles(report) == refused
    assert set(world.contents(world.target)) == set(keys) - set(refused)


def test_a_key_below_an_object_that_only_the_target_has_is_refused_too(world: Any) -> None:
    world.source.put("a/b", b"1")
    world.right.chosen = {"any_key": False, "keys_are_paths": True}
    world.make_target().put("a", b"theirs")

    report = world.migration("blob").apply()

    assert troubles(report) == {"a/b": Trouble.REFUSED}


def test_an_object_that_is_too_large_is_refused_with_the_limit_and_its_source(world: Any) -> None:
    world.source.put("a", b"12345")
    world.right.chosen = {"max_object": Limit(4, "the manual")}

    report = world.migration("blob").apply()

    assert report.resources[0].named[0].reason == "the object has 5 bytes; the target's limit is 4 (the manual)"


@pytest.mark.parametrize(
    ("facet", "features"),
    [("tags", {"tags": False}), ("headers", {"headers": False}), ("metadata", {"metadata": False})],
)
def test_a_loss_of_data_is_refused_unless_it_is_accepted(world: Any, facet: str, features: dict[str, bool]) -> None:
    world.source.put("a", b"1", headers=Headers(content_type="text/plain"), tags={"t": "1"}, metadata={"m": "1"})
    world.right.chosen = features

    plan = world.migration("blob").plan()
    refused = world.migration("blob").apply()
    accepted = world.migration("blob", degrade={facet}).apply()

    assert [(loss.facet, loss.accepted, loss.count, loss.examples) for loss in plan.resources[0].losses] == [
        (facet, False, 1, ("a",))
    ]
    assert troubles(refused) == {"a": Trouble.REFUSED}
    assert f"degrade '{facet}'" in refused.resources[0].named[0].reason
    assert [(loss.facet, loss.accepted, loss.count) for loss in accepted.resources[0].losses] == [(facet, True, 1)]
    assert accepted.degraded == (facet,)
    assert world.target.get("a") == b"1"


def test_of_metadata_no_more_is_given_up_than_must_be(world: Any) -> None:
    world.source.put("a", b"1", metadata={"good": "1", "bad-name": "2"})
    check = world.right.check_metadata
    world.right.check_metadata = lambda metadata: (
        "bad-name is no identifier" if "bad-name" in metadata else check(metadata)
    )

    world.migration("blob", degrade={"metadata"}).apply()
    verified = world.migration("blob", degrade={"metadata"}).verify()

    assert world.target.stat("a").metadata == {"good": "1"}
    assert verified.complete


def test_headers_and_tags_that_the_target_would_change_are_refused_by_the_plan_as_by_the_move(world: Any) -> None:
    kept = {"cache_control": "no-store"}
    world.source.put("a", b"1", headers=Headers(content_type="tëxt", **kept))
    world.source.put("b", b"1", tags={"größe": "1"})
    world.right.check_headers = lambda headers: (
        "no ASCII" if headers.content_type and not headers.content_type.isascii() else None
    )
    world.right.check_tags = lambda tags: "no such tags" if "größe" in tags else None

    plan = world.migration("blob").plan()
    refused = world.migration("blob").apply()
    accepted = world.migration("blob", degrade={"headers", "tags"}).apply()

    reasons = {
        "a": "no ASCII; accept that with degrade 'headers'",
        "b": "no such tags; accept that with degrade 'tags'",
    }
    assert {named.key: named.reason for named in plan.resources[0].named} == reasons
    assert {named.key: named.reason for named in refused.resources[0].named} == reasons
    assert accepted.complete
    assert world.target.stat("a").headers == Headers(**kept)
    assert world.target.tags("b") == {}


def test_versions_and_storage_classes_are_told_and_not_refused(world: Any) -> None:
    world.left.update(world.bucket_spec, BucketSpec(name="shop-assets", versioning=True))
    for data in (b"1", b"2", b"3"):
        world.source.put("a", data)
    entries = world.left._buckets["shop-assets"].history["a"]
    entries[-1] = attrs.evolve(entries[-1], info=attrs.evolve(entries[-1].info, storage_class="GLACIER_IR"))

    report = world.migration("blob").apply()

    losses = {loss.facet: (loss.count, loss.accepted) for loss in report.resources[0].losses}
    assert losses == {"storage class": (1, None), "versions": (2, None)}
    assert report.complete


def test_a_target_without_versions_refuses_a_bucket_that_is_declared_with_them(world: Any) -> None:
    world.bucket_spec = BucketSpec(name="shop-assets", versioning=True)
    world.right.chosen = {"versioning": False}
    world.source.put("a", b"1")

    refused = world.migration("blob").apply()
    accepted = world.migration("blob", degrade={"versioning"}).apply()

    assert refused.resources[0].refused == (
        "the target has no versions of objects; accept that with degrade 'versioning'",
    )
    assert not refused.complete
    assert accepted.complete


def test_cors_rules_are_on_the_target_or_given_up_one_by_one(world: Any) -> None:
    plain, any_header = (CorsRule(origins=["*"], methods=["PUT"], headers=headers) for headers in (["x-a"], ["*"]))
    world.bucket_spec = BucketSpec(name="shop-assets", cors=(plain, any_header))
    world.source.put("a", b"1")

    world.right.chosen = {"cors_any_header": False}
    refused = world.migration("blob").apply()
    assert refused.resources[0].refused == (
        "the target has no CORS rules for any header; accept that with degrade 'cors'",
    )
    assert world.migration("blob", degrade={"cors"}).apply().complete
    assert world.right.describe("shop-assets").cors == (plain,)

    world.right.chosen = {}
    assert world.migration("blob").apply().complete
    assert world.right.describe("shop-assets").cors == (plain, any_header)

    world.right.chosen = {"cors": False, "cors_any_header": False}
    refused = world.migration("blob").apply()
    assert refused.resources[0].refused == ("the target has no CORS rules; accept that with degrade 'cors'",)


def test_a_target_without_a_lifecycle_refuses_a_bucket_that_is_declared_with_one(world: Any) -> None:
    world.bucket_spec = BucketSpec(name="shop-assets", lifecycle=(LifecycleRule(expire_days=1),))
    world.right.chosen = {"lifecycle": False}
    world.source.put("a", b"1")

    refused = world.migration("blob").apply()

    assert refused.resources[0].refused == ("the target has no lifecycle rules; declare none",)
    assert not world.right.names(None, None).items


def test_a_target_without_conditions_is_refused_or_looked_at_before_each_write(world: Any) -> None:
    world.source.put("a", b"1")
    world.source.put("b", b"1")
    world.right.chosen = {"if_absent": False, "if_match": False, "delete_if_match": False}
    world.make_target().put("b", b"theirs")

    refused = world.migration("blob").apply()
    accepted = world.migration("blob", degrade={"guards"}).apply()
    world.source.put("a", b"2")
    delta = world.migration("blob", degrade={"guards"}).apply()

    assert "degrade 'guards'" in refused.resources[0].refused[0]
    assert troubles(accepted) == {"b": Trouble.CONFLICT}
    assert delta.changed == 1
    assert world.contents(world.target) == {"a": b"2", "b": b"theirs"}


def test_a_source_without_the_bucket_is_refused_in_one_sentence(world: Any) -> None:
    world.left.destroy("shop-assets")

    report = world.migration("blob").apply()

    assert report.resources[0].refused == ("the source has no bucket 'shop-assets'",)


def test_an_object_that_arrives_damaged_does_not_stay(world: Any) -> None:
    world.source.put("a", b"1")
    world.right.damage = lambda _key, data: bytes(byte ^ 1 for byte in data)

    first = world.migration("blob").apply()
    left = world.contents(world.target)
    world.right.damage = lambda _key, data: data
    second = world.migration("blob").apply()

    assert troubles(first) == {"a": Trouble.FAILED}
    assert IntegrityError.__name__ in first.resources[0].named[0].reason
    assert left == {}
    assert second.complete


@pytest.mark.parametrize("tells_md5", [True, False])
def test_a_source_whose_content_is_damaged_leaves_nothing_on_the_target(world: Any, *, tells_md5: bool) -> None:
    world.source.put("a", b"0" * 1000)
    entries = world.left._buckets["shop-assets"].history["a"]
    entries[-1] = attrs.evolve(entries[-1], data=b"1" * 1000 if tells_md5 else b"0" * 999)
    if not tells_md5:
        forget_md5(world.left)

    report = world.migration("blob").apply()

    assert troubles(report) == {"a": Trouble.FAILED}
    assert "IntegrityError" in report.resources[0].named[0].reason
    assert world.contents(world.target) == {}


def test_what_may_pass_is_tried_again_and_what_fails_is_named(world: Any) -> None:
    for key in "abc":
        world.source.put(key, b"1")
    left = {"a": 2, "b": 100}

    def fail(operation: str, key: str) -> None:
        if operation == "put" and left.get(key, 0):
            left[key] -= 1
            raise world.fault(Throttled if key == "a" else Unavailable, retry_after=0.1)

    world.right.hook = fail
    report = world.migration("blob").apply()

    assert troubles(report) == {"b": Trouble.FAILED}
    assert (left["a"], left["b"]) == (0, 96)
    assert set(world.contents(world.target)) == {"a", "c"}


def test_an_error_that_is_a_bug_is_named_and_stops_nothing(world: Any) -> None:
    for key in "abc":
        world.source.put(key, b"1")

    def fail(operation: str, key: str) -> None:
        if (operation, key) == ("put", "b"):
            raise ZeroDivisionError("oh")

    world.right.hook = fail
    report = world.migration("blob").apply()

    assert report.resources[0].named[0].reason == "ZeroDivisionError: oh"
    assert set(world.contents(world.target)) == {"a", "c"}


def test_a_refused_permission_is_named_as_one(world: Any) -> None:
    world.source.put("a", b"1")

    def refuse(operation: str, _key: str) -> None:
        if operation == "get":
            raise world.fault(PermissionDenied, "no s3:GetObject")

    world.left.hook = refuse
    report = world.migration("blob").apply()

    assert "no s3:GetObject" in report.resources[0].named[0].reason


# verification


def test_verify_reads_both_sides_and_finds_them_equal(world: Any) -> None:
    for number in range(120):
        world.source.put(str(number), str(number).encode(), metadata={"n": str(number)})
    world.migration("blob").apply()

    report = world.migration("blob").verify()

    assert report.complete
    assert report.resources[0].verified == Tally(120, sum(len(str(number)) for number in range(120)))


@pytest.mark.parametrize("quick", [False, True])
def test_one_flipped_byte_is_found_and_named(world: Any, *, quick: bool) -> None:
    for key in "abc":
        world.source.put(key, b"0" * 1000)
    world.migration("blob").apply()
    world.target.put("b", b"0" * 999 + b"1")

    report = world.migration("blob").verify(quick=quick)

    assert troubles(report) == {"b": Trouble.DIFFERS}
    assert report.resources[0].verified.count == 2


def test_a_flipped_byte_below_a_stored_digest_is_found_by_reading(world: Any) -> None:
    world.source.put("a", b"0" * 1000)
    world.migration("blob").apply()
    entries = world.right._buckets["shop-assets"].history["a"]
    entries[-1] = attrs.evolve(entries[-1], data=b"0" * 999 + b"1")

    report = world.migration("blob").verify()

    assert not report.complete
    assert [named.key for named in report.resources[0].named] == ["a"]


def test_verify_names_what_is_missing_and_what_carries_other_facets(world: Any) -> None:
    for key in "abc":
        world.source.put(key, b"1", tags={"t": "1"})
    world.migration("blob").apply()
    world.target.delete("a")
    world.target.set_tags("b", {"t": "2"})

    report = world.migration("blob").verify()

    assert troubles(report) == {"a": Trouble.MISSING, "b": Trouble.DIFFERS}
    assert report.resources[0].named[1].reason == "tags differ: t"


def test_tags_are_asked_for_only_where_there_may_be_some(world: Any) -> None:
    world.source.put("tagged", b"1", tags={"t": "1"})
    world.source.put("plain", b"1")
    asked: list[str] = []
    tags = world.left.tags
    world.left.tags = lambda bucket, key, **more: asked.append(key) or tags(bucket, key, **more)

    world.migration("blob").apply()

    assert asked == ["tagged"]
    assert world.target.tags("tagged") == {"t": "1"}


def test_what_has_to_be_brought_back_before_it_is_read_is_refused_by_the_plan_as_by_the_move(world: Any) -> None:
    archive = attrs.evolve(world.left.features.storage_class("archive"), online=False)
    world.left.chosen = {"storage_classes": (archive,)}
    for key in ("archived", "brought back"):
        world.source.put(key, b"1", storage_class="archive")
    world.source.put("usual", b"1")

    def get(operation: str, key: str) -> None:
        if (operation, key) == ("get", "archived"):
            raise world.fault(Conflict, "not in this class")

    world.left.hook = get
    plan = world.migration("blob").plan()
    report = world.migration("blob").apply()

    reasons = {"archived": "it is in the storage class archive: bring it back first, at the source"}
    assert {named.key: named.reason for named in plan.resources[0].named} == reasons
    assert {named.key: named.reason for named in report.resources[0].named} == reasons
    assert troubles(report) == {"archived": Trouble.REFUSED}
    assert [key for _, key in world.right.writes] == ["brought back", "usual"]


def test_content_that_its_own_provider_finds_damaged_differs(world: Any) -> None:
    world.source.put("a", b"1")
    world.source.put("b", b"1")
    world.migration("blob").apply()

    def get(operation: str, key: str) -> None:
        if (operation, key) == ("get", "a"):
            raise world.fault(IntegrityError, "it was altered")

    world.right.hook = get
    assert troubles(world.migration("blob").verify()) == {"a": Trouble.DIFFERS}


def test_a_storage_class_that_stays_behind_is_told_with_its_count(world: Any) -> None:
    world.right.chosen = {"storage_classes": ()}
    for number in range(7):
        world.source.put(f"cold {number}", b"1", storage_class="cold")
    world.source.put("usual", b"1")
    world.source.put("standard", b"1", storage_class="standard")
    plan = world.migration("blob").plan()

    assert [("storage class", "cold becomes the target's default", None, 7)] == [
        (loss.facet, loss.detail, loss.accepted, loss.count) for loss in plan.resources[0].losses
    ]
    assert 5 == len(plan.resources[0].losses[0].examples)
    assert plan.complete


def test_storage_classes_are_kept_by_their_tier_and_told_where_the_name_is_another(world: Any) -> None:
    cool = StorageClass("Cool", "infrequent")
    deep = StorageClass("Deep", "archive", online=False)
    world.right.chosen = {"storage_classes": (StorageClass("Hot", "standard"), cool, deep)}
    for name in ("standard", "infrequent", "cold", "archive"):
        world.source.put(name, b"1", storage_class=name)
    written: dict[str, str | None] = {}
    put = world.right.put
    world.right.put = lambda bucket, key, data, options: (
        written.update({key: options.storage_class}),
        put(bucket, key, data, attrs.evolve(options, storage_class=None)),
    )[1]

    plan = world.migration("blob").plan()
    report = world.migration("blob").apply()

    assert report.complete
    assert written == {"standard": None, "infrequent": "Cool", "cold": "Cool", "archive": "Cool"}
    assert {(loss.detail, loss.accepted, loss.count) for loss in plan.resources[0].losses} == {
        ("infrequent becomes Cool (infrequent)", None, 1),
        ("cold becomes Cool (infrequent)", None, 1),
        ("archive becomes Cool (infrequent)", None, 1),
    }


def test_nothing_is_written_into_a_class_in_which_it_cannot_be_verified(world: Any) -> None:
    world.left.chosen = {"storage_classes": (StorageClass("deep", "archive", online=False),)}
    world.right.chosen = {"storage_classes": (StorageClass("Deep", "archive", online=False),)}
    world.source.put("a", b"1")
    entries = world.left._buckets["shop-assets"].history["a"]
    entries[-1] = attrs.evolve(entries[-1], info=attrs.evolve(entries[-1].info, storage_class="deep"))
    mover = BlobMover(BlobStore(world.left), BlobStore(world.right), world.bucket_spec, Options())

    kept, losses = mover._kept(world.source.stat("a"), {})

    assert kept.storage_class is None
    assert [loss.facet for loss in losses] == ["storage class"]


def test_a_bucket_may_have_another_name_on_the_target(world: Any) -> None:
    world.source.put("a", b"1")
    names = {"shop-assets": "shop-assets-2"}

    plan = world.migration("blob", names=names).plan()
    first = world.migration("blob", names=names).apply(plan)
    second = world.migration("blob", names=names).apply()

    assert plan.resources[0].changes == ("create blob shop-assets-2",)
    assert (first.changed, second.changed) == (1, 0)
    assert BlobStore(world.right).bucket("shop-assets-2").get("a") == b"1"
    assert not BlobStore(world.right).exists("shop-assets")
