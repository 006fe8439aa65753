"""Moving secrets: versions, stages, labels; and that no value is ever written or told."""

from __future__ import annotations

import io
import pickle
import sqlite3
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shiftable.errors import PermissionDenied, Timeout
from shiftable.features import Limit
from shiftable.migrate import Action, JsonEvents, Trouble
from shiftable.paging import Page

CANARY = "canary-7f3a9c-sk_live"


def troubles(report: Any) -> dict[str, Trouble]:
    return {named.key: named.trouble for found in report.resources for named in found.named}


def losses(report: Any) -> dict[str, int]:
    return {loss.facet: loss.count for loss in report.resources[0].losses}


def move(world: Any, **options: Any) -> Any:
    return world.migration("secrets", **options).apply()


def test_stages_labels_and_expiry_arrive(world: Any) -> None:
    expires = datetime(2031, 1, 1, tzinfo=UTC)
    world.source_secrets.put("db/password", "one", labels={"team": "core"}, expires=expires)
    world.source_secrets.put("db/password", "two")
    world.source_secrets.put("blob", b"\x00\xff")

    report = move(world)

    assert report.complete
    found = world.target_secrets.get("db/password")
    assert (found.reveal(), found.labels, found.expires) == ("two", {"team": "core"}, expires)
    assert world.target_secrets.get("db/password", stage="previous").reveal() == "one"
    assert world.target_secrets.get("blob").reveal_bytes() == b"\x00\xff"
    assert world.migration("secrets").verify().complete


def test_the_second_run_changes_nothing(world: Any) -> None:
    for number in range(30):
        world.source_secrets.put(f"key-{number}", f"value {number}")
    first = move(world)
    world.right_hidden.writes.clear()

    second = move(world)

    assert (first.changed, second.changed) == (30, 0)
    assert world.right_hidden.writes == []
    assert second.resources[0].done[Action.UNCHANGED].count == 30


def test_a_rotation_after_the_move_is_a_delta_of_one_version(world: Any) -> None:
    world.source_secrets.put("a", "one")
    move(world)
    world.source_secrets.put("a", "two")
    world.right_hidden.writes.clear()

    report = move(world)

    assert report.changed == 1
    assert world.right_hidden.writes == ["shop/a"]
    assert world.target_secrets.get("a").reveal() == "two"
    assert world.target_secrets.get("a", stage="previous").reveal() == "one"


def test_a_rollback_at_the_source_moves_too(world: Any) -> None:
    one = world.source_secrets.put("a", "one")
    world.source_secrets.put("a", "two")
    move(world)
    world.source_secrets.promote("a", one.version)

    report = move(world)

    assert report.complete
    assert world.target_secrets.get("a").reveal() == "one"
    assert world.target_secrets.get("a", stage="previous").reveal() == "two"


def test_changed_labels_move_and_leave_the_stages_right(world: Any) -> None:
    world.source_secrets.put("a", "one")
    world.source_secrets.put("a", "two")
    move(world)
    driver = world.left_hidden
    driver._entries["shop/a"].labels["team"] = "core"

    report = move(world)

    assert report.complete
    assert world.target_secrets.get("a").labels == {"team": "core"}
    assert world.migration("secrets").verify().complete


def test_a_secret_of_somebody_else_is_a_conflict_and_stays(world: Any) -> None:
    world.source_secrets.put("a", "ours")
    world.target_secrets.put("a", "theirs")

    plan = world.migration("secrets").plan()
    report = move(world)
    kept = world.target_secrets.get("a").reveal()
    forced = move(world, overwrite=True)

    assert plan.resources[0].troubles == {Trouble.CONFLICT: 1}
    assert troubles(report) == {"a": Trouble.CONFLICT}
    assert kept == "theirs"
    assert forced.complete
    assert world.target_secrets.get("a").reveal() == "ours"


def test_an_equal_secret_is_adopted(world: Any) -> None:
    world.source_secrets.put("a", "one", labels={"x": "1"})
    world.target_secrets.put("a", "one", labels={"x": "1"})
    world.right_hidden.writes.clear()

    report = move(world)

    assert report.resources[0].done[Action.COMPARE].count == 1
    assert world.right_hidden.writes == []


def test_what_we_wrote_and_somebody_rotated_there_is_a_conflict(world: Any) -> None:
    world.source_secrets.put("a", "one")
    move(world)
    world.target_secrets.put("a", "rotated there")
    world.source_secrets.put("a", "two")

    report = move(world)

    assert troubles(report) == {"a": Trouble.CONFLICT}
    assert world.target_secrets.get("a").reveal() == "rotated there"


def test_a_rotation_in_flight_is_refused_unless_the_pending_version_is_included(world: Any) -> None:
    world.source_secrets.put("a", "one")
    world.source_secrets.put("a", "two", stage="pending")

    refused = move(world)
    included = move(world, include_pending=True)

    assert troubles(refused) == {"a": Trouble.REFUSED}
    assert "rotation is in flight" in refused.resources[0].named[0].reason
    assert included.complete
    assert world.target_secrets.get("a").reveal() == "one"
    assert world.target_secrets.get("a", stage="pending").reveal() == "two"


def test_older_and_disabled_versions_are_told_and_not_refused(world: Any) -> None:
    first = world.source_secrets.put("a", "one")
    for value in ("two", "three", "four"):
        world.source_secrets.put("a", value)
    world.source_secrets.disable("a", first.version)
    world.source_secrets.put("buried", "x")
    world.source_secrets.delete("buried")

    report = move(world)

    assert report.complete
    assert losses(report) == {"deleted": 1, "disabled": 1, "history": 1}


def test_a_disabled_current_version_is_refused(world: Any) -> None:
    version = world.source_secrets.put("a", "one").version
    world.source_secrets.disable("a", version)

    assert troubles(move(world)) == {"a": Trouble.REFUSED}


@pytest.mark.parametrize(
    ("features", "facet"),
    [({"labels": False}, "labels"), ({"expiry": False}, "expires"), ({"max_labels": Limit(0, "chosen")}, "labels")],
)
def test_a_facet_that_the_target_lacks_is_refused_or_given_up(world: Any, features: dict[str, Any], facet: str) -> None:
    world.source_secrets.put("a", "one", labels={"x": "1"}, expires=datetime(2031, 1, 1, tzinfo=UTC))
    world.right_hidden.chosen = features

    refused = move(world)
    accepted = move(world, degrade={facet})

    assert troubles(refused) == {"a": Trouble.REFUSED}
    assert accepted.complete
    assert losses(accepted) == {facet: 1}
    assert world.migration("secrets", degrade={facet}).verify().complete


@pytest.mark.parametrize(
    ("features", "value"), [({"max_value": Limit(3, "chosen")}, "four"), ({"binary": False}, b"\xff\x00")]
)
def test_a_value_that_the_target_cannot_hold_is_refused_already_in_the_plan(
    world: Any, features: dict[str, Any], value: str | bytes
) -> None:
    world.source_secrets.put("a", value)
    world.right_hidden.chosen = features

    plan = world.migration("secrets").plan()

    assert plan.resources[0].troubles == {Trouble.REFUSED: 1}
    assert troubles(move(world)) == {"a": Trouble.REFUSED}
    assert world.right_hidden.writes == []


def test_bytes_that_are_text_go_to_a_target_of_text(world: Any) -> None:
    world.source_secrets.put("a", b"text after all")
    world.right_hidden.chosen = {"binary": False}

    assert move(world).complete
    assert world.target_secrets.get("a").reveal_bytes() == b"text after all"


def test_a_deleted_secret_of_that_name_on_the_target_is_a_refusal_that_says_so(world: Any) -> None:
    world.source_secrets.put("a", "one")
    world.target_secrets.put("a", "old")
    world.target_secrets.delete("a")

    report = move(world)

    assert troubles(report) == {"a": Trouble.REFUSED}
    assert "restore it there, or delete it for good" in report.resources[0].named[0].reason


def test_a_target_without_older_versions_gets_the_current_one(world: Any) -> None:
    world.source_secrets.put("a", "one")
    world.source_secrets.put("a", "two")
    world.right_hidden.chosen = {"history": False, "pending": False}

    report = move(world)
    again = move(world)

    assert report.complete
    assert losses(report) == {"history": 1}
    assert world.target_secrets.get("a").reveal() == "two"
    assert again.changed == 0


def test_a_lost_answer_between_two_versions_doubles_nothing(world: Any) -> None:
    world.source_secrets.put("a", "one")
    world.source_secrets.put("a", "two")
    lost = iter([True, True])

    def lose(operation: str, _name: str) -> None:
        if operation == "stored" and next(lost, False):
            raise world.fault(Timeout)

    world.right_hidden.hook = lose
    report = move(world)

    assert report.complete
    versions = [world.target_secrets.get("a", version=each.version) for each in world.target_secrets.history("a")]
    assert [version.reveal() for version in versions] == ["two", "one"]


def test_a_kill_between_two_versions_goes_on_with_the_second(world: Any) -> None:
    for value in ("one", "two"):
        world.source_secrets.put("a", value)
    puts = iter(range(100))

    def interrupt(operation: str, _name: str) -> None:
        if operation == "put" and next(puts) == 1:
            raise KeyboardInterrupt

    world.right_hidden.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        move(world)
    world.right_hidden.hook = lambda *_: None
    halfway = world.target_secrets.get("a").reveal()
    report = move(world)

    assert halfway == "one"
    assert report.complete
    assert [found.stages for found in world.target_secrets.history("a")] == [{"current"}, {"previous"}]
    assert world.target_secrets.get("a").reveal() == "two"


def test_a_listing_that_lags_behind_neither_doubles_nor_hides_a_secret(world: Any) -> None:
    world.source_secrets.put("a", "one")
    listing = world.right_hidden.list
    world.right_hidden.list = lambda **kwargs: Page(())

    first, verified, second = move(world), world.migration("secrets").verify(), move(world)
    world.right_hidden.list = listing
    third = move(world)

    assert (first.changed, second.changed, third.changed) == (1, 0, 0)
    assert verified.complete
    assert world.right_hidden.writes == ["shop/a"]


@pytest.mark.parametrize("moved_before", [False, True])
def test_a_writer_on_the_target_just_before_the_write_is_not_clobbered(world: Any, *, moved_before: bool) -> None:
    world.source_secrets.put("a", "one")
    if moved_before:
        move(world)
        world.source_secrets.put("a", "two")

    def write_first(operation: str, _name: str) -> None:
        if operation == "put":
            world.right_hidden.hook = lambda *_: None
            world.target_secrets.put("a", "theirs")

    world.right_hidden.hook = write_first
    first = move(world)
    second = move(world)

    assert troubles(first) == {"a": Trouble.FAILED}
    assert troubles(second) == {"a": Trouble.CONFLICT}
    assert world.target_secrets.get("a").reveal() == "theirs"


def test_a_source_that_is_rotated_during_the_copy_is_read_again(world: Any) -> None:
    world.source_secrets.put("a", "one")

    def rotate(operation: str, _name: str) -> None:
        if operation == "put":
            world.right_hidden.hook = lambda *_: None
            world.source_secrets.put("a", "two")

    world.right_hidden.hook = rotate
    report = move(world)

    assert troubles(report) == {"a": Trouble.CHANGED}
    assert report.complete
    assert world.target_secrets.get("a").reveal() == "two"
    assert move(world).changed == 0


def test_a_secret_that_vanishes_is_named(world: Any) -> None:
    world.source_secrets.put("a", "one")
    world.source_secrets.put("b", "one")

    def vanish(operation: str, name: str) -> None:
        if (operation, name) == ("get", "shop/a"):
            world.left_hidden.hook = lambda *_: None
            world.source_secrets.delete("a", recovery=None)

    world.left_hidden.hook = vanish
    report = move(world)

    assert troubles(report) == {"a": Trouble.VANISHED}
    assert [info.name for info in world.target_secrets.list()] == ["b"]


def test_what_is_gone_from_the_source_is_deleted_only_with_prune_and_can_be_restored(world: Any) -> None:
    world.source_secrets.put("a", "one")
    world.target_secrets.put("theirs", "x")
    move(world)
    world.source_secrets.delete("a", recovery=timedelta(days=7))

    told = move(world)
    kept = world.target_secrets.exists("a")
    move(world, prune=True)

    assert troubles(told) == {"a": Trouble.STALE}
    assert kept
    assert [info.name for info in world.target_secrets.list()] == ["theirs"]
    assert [info.name for info in world.target_secrets.list(deleted=True)] == ["a"]


def test_what_is_pruned_goes_last_and_stays_if_something_failed(world: Any) -> None:
    world.source_secrets.put("a", "one")
    move(world)
    world.source_secrets.delete("a", recovery=None)
    world.source_secrets.put("b", "two")

    def locked(operation: str, name: str) -> None:
        if operation == "put":
            raise world.fault(PermissionDenied)

    world.right_hidden.hook = locked
    failed = move(world, prune=True)
    kept = world.target_secrets.exists("a")
    world.right_hidden.hook = lambda *_: None
    world.right_hidden.writes.clear()
    healed = move(world, prune=True)

    assert troubles(failed) == {"a": Trouble.STALE, "b": Trouble.FAILED}
    assert kept
    assert healed.complete
    assert world.right_hidden.writes == ["shop/b", "shop/a"]
    assert [info.name for info in world.target_secrets.list()] == ["b"]


def test_verify_finds_one_changed_byte_and_a_missing_secret(world: Any) -> None:
    for key in "abc":
        world.source_secrets.put(key, "0" * 100)
    move(world)
    world.target_secrets.put("b", "0" * 99 + "1")
    world.target_secrets.delete("c")

    report = world.migration("secrets").verify()

    assert troubles(report) == {"b": Trouble.DIFFERS, "c": Trouble.MISSING}
    assert report.resources[0].verified.count == 1


def test_no_value_reaches_journal_report_plan_events_or_errors(world: Any) -> None:
    store = world.source_secrets
    store.put("good", f"{CANARY}-1")
    store.put("good", f"{CANARY}-2")
    store.put("conflict", f"{CANARY}-3")
    store.put("large", CANARY * 100)
    store.put("broken", f"{CANARY}-4")
    world.target_secrets.put("conflict", f"{CANARY}-5")
    world.right_hidden.chosen = {"max_value": Limit(1000, "chosen")}

    def fail(operation: str, name: str) -> None:
        if (operation, name) == ("put", "shop/broken"):
            raise ValueError(f"cannot store {CANARY}-4")

    world.right_hidden.hook = fail
    events = io.StringIO()
    migration = world.migration("secrets")
    plan = migration.plan(JsonEvents(events))
    report = migration.apply(plan, JsonEvents(events))
    verified = migration.verify(JsonEvents(events))

    files = b"".join(path.read_bytes() for path in world.state_dir.iterdir())
    told = [repr(plan), plan.to_json(), repr(report), report.to_json(), repr(verified), events.getvalue()]
    named = [repr(each) for each in migration.named()]
    assert {found.key for found in migration.named()} == {"broken", "conflict", "large"}
    assert [text for text in [*told, *named, files.decode("latin-1")] if CANARY in text] == []


def test_no_value_stands_in_the_error_that_stops_a_move(world: Any) -> None:
    for number in range(12):
        world.source_secrets.put(f"key-{number}", f"{CANARY}-{number}")

    def refuse(operation: str, _name: str) -> None:
        if operation == "put":
            raise world.fault(PermissionDenied, "no")

    world.right_hidden.hook = refuse
    with pytest.raises(Exception, match="10 failures in a row of the kind PermissionDenied") as caught:
        move(world)

    text = "".join(traceback.format_exception(caught.value))
    assert CANARY not in text
    assert CANARY.encode() not in pickle.dumps(str(caught.value))


def test_no_hash_of_a_value_is_kept(world: Any) -> None:
    world.source_secrets.put("a", "one")
    move(world)

    with sqlite3.connect(world.migration().journal_path) as db:
        rows = db.execute("SELECT source_content, sha256 FROM item").fetchall()
    db.close()

    assert rows == [("", None)]


def test_a_plan_counts_versions_and_tells_what_the_target_s_provider_advises(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(world.right_hidden), "provider", "aws")
    for number in range(40):
        for version in range(3):
            world.source_secrets.put(f"key-{number}", f"{CANARY} {number} {version}")

    few, every = (world.migration("secrets", history=history).plan().resources[0] for history in (0, None))

    assert [found.estimate.target.requests["write"] for found in (few, every)] == [80, 120]
    assert [loss.facet for loss in every.losses] == ["pace"]
    assert "10 minutes" in every.losses[0].detail
    assert [loss.facet for loss in few.losses] == ["history"]
