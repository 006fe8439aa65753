"""The plan as a value, its digest, and what apply does when the world moved on."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from shiftable.errors import MigrationError
from shiftable.migrate import Action, JsonEvents, Migration, Options, Plan
from shiftable.migrate._journal import Journal


def test_a_plan_survives_a_file(world: Any) -> None:
    world.source.put("ü😀", b"1", tags={"t": "1"})
    world.source_secrets.put("a", "one", labels={"x": "1"})
    world.right.chosen = {"tags": False}

    plan = world.migration(degrade={"labels"}).plan()

    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99, "digest": ""}'])
def test_what_is_no_plan_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(MigrationError, match="plan again"):
        Plan.from_json(text)


def test_a_plan_that_was_changed_by_hand_is_refused(world: Any) -> None:
    world.source.put("a", b"1")
    found = json.loads(world.migration().plan().to_json())
    found["options"]["overwrite"] = True

    with pytest.raises(MigrationError, match="not what its digest says"):
        Plan.from_json(json.dumps(found))


def test_the_digest_is_of_the_world_and_not_of_the_moment(world: Any) -> None:
    world.source.put("a", b"1")
    first = world.migration().plan().digest
    again = world.migration(concurrency=2, inspect=False).plan().digest
    world.source.put("a", b"2")
    changed = world.migration().plan().digest
    other = world.migration(overwrite=True).plan().digest

    assert first == again
    assert len({first, changed, other}) == 3


def test_a_pinned_plan_is_applied_in_its_world(world: Any) -> None:
    world.source.put("a", b"1")
    plan = Plan.from_json(world.migration().plan().to_json())

    report = world.migration().apply(plan)

    assert (report.complete, report.plan) == (True, plan.digest)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda world: world.source.put("b", b"1"), "blob.assets: 'b' is new"),
        (lambda world: world.source.put("a", b"2"), "blob.assets: 'a' changed"),
        (lambda world: world.source.delete("a"), "blob.assets: 'a' is gone"),
        (lambda world: world.target.put("a", b"theirs"), "blob.assets: 'a' changed"),
        (lambda world: world.source_secrets.put("s", "two"), "secrets.app: 's' changed"),
    ],
)
def test_apply_refuses_another_world_and_says_what_changed(world: Any, change: Any, sentence: str) -> None:
    world.source.put("a", b"1")
    world.source_secrets.put("s", "one")
    world.make_target()
    plan = world.migration().plan()
    change(world)
    world.right.writes.clear()
    world.right_hidden.writes.clear()

    with pytest.raises(MigrationError) as caught:
        world.migration().apply(plan)

    assert sentence in str(caught.value)
    assert "plan again" in str(caught.value)
    assert (world.right.writes, world.right_hidden.writes) == ([], [])
    assert world.migration().apply(world.migration().plan()).plan


def test_one_more_key_among_thousands_is_located(world: Any) -> None:
    world.left.clock = lambda: datetime(2026, 1, 1, tzinfo=UTC)  # digests decide where segments end
    for number in range(3000):
        world.source.put(f"{number:05}", b"")
    plan = world.migration("blob", inspect=False).plan()
    world.source.put("02500x", b"")

    with pytest.raises(MigrationError, match=r"something among the \d+ items up to '02\d+'") as caught:
        world.migration("blob").apply(plan)

    assert str(caught.value).count("something among") == 1


def test_a_plan_of_other_options_or_resources_is_refused(world: Any) -> None:
    world.source.put("a", b"1")
    plan = world.migration("blob").plan()

    with pytest.raises(MigrationError, match="the options are others"):
        world.migration("blob", overwrite=True).apply(plan)
    with pytest.raises(MigrationError, match=r"secrets\.app is not in the plan"):
        world.migration().apply(plan)


def test_a_pinned_plan_goes_on_after_it_was_stopped_halfway(world: Any) -> None:
    for number in range(300):
        world.source.put(f"{number:03}", b"1")
    migration = world.migration("blob", concurrency=1)
    plan = migration.plan()
    writes = iter(range(1000))

    def stop(operation: str, _key: str) -> None:
        if operation == "put" and next(writes) == 150:
            raise KeyboardInterrupt

    world.right.hook = stop
    with pytest.raises(KeyboardInterrupt):
        migration.apply(plan)
    world.right.hook = lambda *_: None
    halfway = len(world.contents(world.target))
    report = migration.apply(plan)

    assert 0 < halfway < 300
    assert report.complete
    assert world.contents(world.target) == world.contents(world.source)
    assert len(world.right.writes) == 300


def test_a_pinned_plan_goes_on_although_no_batch_was_ever_written_down(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        world.source.put(f"{number:03}", b"1")
    migration = world.migration("blob")
    plan = migration.plan()
    monkeypatch.setattr(Journal, "arrived", lambda *_: None)  # as a kill does before the batch is written
    changed = [migration.apply(plan).changed, migration.apply(plan).changed]
    monkeypatch.undo()
    changed += [migration.apply(plan).changed, migration.apply(plan).changed]

    assert changed == [20, 0, 0, 0]
    assert len(world.right.writes) == 20


def test_a_pinned_plan_tells_the_copy_how_much_there_is(world: Any) -> None:
    world.source.put("a", b"123")
    world.source.put("same", b"1")
    world.make_target().put("same", b"1")
    migration = world.migration("blob")
    watching = world.Watching()

    migration.apply(migration.plan(), watching)

    assert [(phase.items, phase.bytes) for phase in watching.begun if phase.name == "copy"] == [(2, 4)]


def test_resources_are_chosen_by_service_or_address_and_a_wrong_one_is_named(world: Any) -> None:
    assert [found.address for found in world.migration().plan().resources] == ["blob.assets", "secrets.app"]
    assert [found.address for found in world.migration("secrets").plan().resources] == ["secrets.app"]
    with pytest.raises(MigrationError, match=r"no resource 'blob\.asset' is declared; did you mean blob\.assets\?"):
        world.migration("blob.asset")


def test_what_nobody_can_move_yet_is_named_and_not_forgotten(world: Any) -> None:
    declared = world.declared()
    world.declared = lambda: (*declared, attrs.evolve(declared[0], service="queue", label="jobs"))

    assert world.migration().plan().skipped == ("queue.jobs",)
    assert world.migration().apply().skipped == ("queue.jobs",)


def test_source_and_target_must_be_two(world: Any) -> None:
    with pytest.raises(MigrationError, match="name two providers"):
        Migration(world, "local", "local")


def test_an_unknown_facet_to_degrade_is_refused_with_the_choices(world: Any) -> None:
    with pytest.raises(MigrationError, match=r"by 'tag'; did you mean tags\?$"):
        Migration(world, "frankfurt", "local", options=Options(degrade={"tag"}))
    with pytest.raises(MigrationError, match=r"by 'x'; there is: alias, cors, event_triggers, .*, versioning$"):
        Migration(world, "frankfurt", "local", options=Options(degrade={"x"}))


def test_events_are_one_json_object_a_line(world: Any) -> None:
    for number in range(130):
        world.source.put(str(number), b"1")
    world.source.put("a", b"1")
    world.make_target().put("a", b"theirs")
    stream = io.StringIO()

    world.migration("blob").apply(None, JsonEvents(stream))

    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == ["phase", "phase", "item", "report"]
    assert [event for event in events if event["event"] == "progress"][-1]["items"] == 131
    item = next(event for event in events if event["event"] == "item")
    assert (item["resource"], item["key"], item["trouble"]) == ("blob.assets", "a", "conflict")
    assert events[-1]["report"]["complete"] is False
    assert "set the environment's provider to 'frankfurt' again" in events[-1]["report"]["rollback"]


def test_an_observer_is_told_of_phases_failures_and_results(world: Any) -> None:
    world.source.put("a", b"1")
    world.make_target().put("a", b"theirs")
    watching = world.Watching()

    plan = world.migration("blob").plan(watching)
    report = world.migration("blob").apply(plan, watching)

    assert watching.phases == [("plan", "blob.assets"), ("prepare", "blob.assets"), ("copy", "blob.assets")]
    assert [named.key for named in watching.failed] == ["a", "a"]
    assert watching.done == [plan, report]
    assert plan.is_empty
    assert plan.resources[0].actions.get(Action.CREATE) is None
