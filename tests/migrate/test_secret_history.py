"""Moving the versions of secrets: all of them or so many, in order, with their stages, once."""

from __future__ import annotations

import itertools
import random
import sqlite3
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from shiftable.errors import MigrationError, Timeout
from shiftable.features import Limit
from shiftable.migrate import Trouble
from shiftable.secrets import SecretStore


def move(world: Any, **options: Any) -> Any:
    return world.migration("secrets", **({"history": None} | options)).apply()


def verified(world: Any, **options: Any) -> bool:
    found: bool = world.migration("secrets", **({"history": None} | options)).verify().complete
    return found


def troubles(report: Any) -> dict[str, Trouble]:
    return {named.key: named.trouble for found in report.resources for named in found.named}


def reasons(report: Any) -> dict[str, str]:
    return {named.key: named.reason for found in report.resources for named in found.named}


def losses(report: Any) -> dict[str, int]:
    return {loss.facet: loss.count for loss in report.resources[0].losses}


def fill(store: SecretStore, key: str, values: Iterable[str | bytes]) -> list[str]:
    return [store.put(key, value).version for value in values]


def told(driver: Any, key: str) -> list[tuple[bytes, list[str]]]:
    """Return values and stages, oldest first, as the memory has them."""
    entry = driver._entries[f"shop/{key}"]
    return [(version.value.reveal_bytes(), sorted(entry.stages_of(id_))) for id_, version in entry.versions.items()]


PLAIN = [(b"one", []), (b"two", ["previous"]), (b"three", ["current"])]


def test_all_versions_arrive_oldest_first_with_their_stages(world: Any) -> None:
    fill(world.source_secrets, "a", ["one", "two", "three"])

    report = move(world)

    assert report.complete
    assert told(world.right_hidden, "a") == PLAIN
    assert losses(report) == {}
    assert verified(world)
    assert move(world).changed == 0


@pytest.mark.parametrize(("history", "expected"), [(0, 1), (1, 1), (2, 1), (3, 0), (50, 0)])
def test_so_many_of_the_newest_move_and_those_with_a_stage_always(world: Any, history: int, expected: int) -> None:
    fill(world.source_secrets, "a", ["one", "two", "three"])

    report = move(world, history=history)

    assert told(world.right_hidden, "a") == PLAIN[expected:]
    assert losses(report) == ({"history": 1} if expected else {})


def test_a_rollback_at_the_source_arrives_as_one(world: Any) -> None:
    versions = fill(world.source_secrets, "a", ["one", "two", "three"])
    world.source_secrets.promote("a", versions[0])

    assert move(world).complete

    assert told(world.right_hidden, "a") == [(b"one", ["current"]), (b"two", []), (b"three", ["previous"])]
    assert verified(world)


def test_a_rollback_after_the_move_makes_no_new_version(world: Any) -> None:
    versions = fill(world.source_secrets, "a", ["one", "two", "three"])
    move(world)
    world.source_secrets.promote("a", versions[0])
    world.right_hidden.writes.clear()

    report = move(world)

    assert report.complete
    assert report.changed == 1
    assert world.right_hidden.writes == []
    assert told(world.right_hidden, "a") == [(b"one", ["current"]), (b"two", []), (b"three", ["previous"])]


@pytest.mark.parametrize("current", range(4))
@pytest.mark.parametrize("previous", range(4))
def test_any_two_versions_can_be_current_and_previous(world: Any, current: int, previous: int) -> None:
    versions = fill(world.source_secrets, "a", ["same", "two", "same", "four"])
    world.source_secrets.promote("a", versions[previous])
    world.source_secrets.promote("a", versions[current])

    assert move(world).complete

    assert told(world.right_hidden, "a") == told(world.left_hidden, "a")
    assert move(world).changed == 0


def test_equal_values_stay_versions_of_their_own(world: Any) -> None:
    fill(world.source_secrets, "a", ["x", "x", "y", "x"])

    assert move(world).complete

    assert told(world.right_hidden, "a") == told(world.left_hidden, "a")
    assert move(world).changed == 0


def test_a_pending_version_moves_last_when_it_is_included(world: Any) -> None:
    fill(world.source_secrets, "a", ["one", "two"])
    world.source_secrets.put("a", "coming", stage="pending")
    world.source_secrets.put("a", "three")

    assert troubles(move(world)) == {"a": Trouble.REFUSED}
    assert move(world, include_pending=True).complete

    assert told(world.right_hidden, "a") == [*PLAIN, (b"coming", ["pending"])]
    assert verified(world, include_pending=True)
    assert move(world, include_pending=True).changed == 0


def test_new_versions_are_a_delta_of_those_versions(world: Any) -> None:
    fill(world.source_secrets, "a", ["one"])
    move(world)
    fill(world.source_secrets, "a", ["two", "three"])
    world.right_hidden.writes.clear()

    assert move(world).complete

    assert world.right_hidden.writes == ["shop/a", "shop/a"]
    assert told(world.right_hidden, "a") == PLAIN


def test_history_that_is_asked_for_later_is_put_behind_and_told_and_no_version_is_doubled(world: Any) -> None:
    fill(world.source_secrets, "a", ["one", "two", "three"])
    move(world, history=0)

    report = move(world)

    assert report.complete
    assert losses(report) == {"order": 1}
    assert sorted(told(world.right_hidden, "a")) == sorted(PLAIN)
    assert verified(world)
    assert move(world).changed == 0


def test_less_history_than_before_writes_nothing(world: Any) -> None:
    fill(world.source_secrets, "a", ["one", "two", "three"])
    move(world)
    world.right_hidden.writes.clear()

    assert move(world, history=0).complete

    assert world.right_hidden.writes == []


def test_versions_that_are_disabled_or_destroyed_are_told_and_left(world: Any) -> None:
    versions = fill(world.source_secrets, "a", ["zero", "one", "gone", "two", "three"])
    world.source_secrets.disable("a", versions[0])
    world.source_secrets.destroy("a", versions[2])

    report = move(world)

    assert report.complete
    assert losses(report) == {"disabled": 1}
    assert told(world.right_hidden, "a") == PLAIN


def test_a_version_that_was_disabled_on_the_target_is_written_once_more(world: Any) -> None:
    fill(world.source_secrets, "a", ["one", "two", "three"])
    move(world)
    oldest = [version.version for version in world.target_secrets.history("a")][-1]
    world.target_secrets.disable("a", oldest)

    differs = world.migration("secrets", history=None).verify()
    fill(world.source_secrets, "a", ["four"])
    report = move(world)

    assert "what differs: version" in reasons(differs)["a"]
    assert report.complete
    assert [value for value, _ in told(world.right_hidden, "a")].count(b"one") == 2
    assert verified(world)
    assert move(world).changed == 0


# what the target keeps


def test_more_versions_than_the_target_keeps_are_refused_or_given_up_by_name(world: Any) -> None:
    fill(world.source_secrets, "a", [str(number) for number in range(8)])
    world.right_hidden.chosen = {"max_versions": Limit(5, "chosen")}

    refused, accepted = move(world), move(world, degrade={"history"})

    assert reasons(refused) == {
        "a": "it has 8 versions; the target keeps 5 (chosen); accept that with degrade 'history'"
    }
    assert accepted.complete
    assert [value for value, _ in told(world.right_hidden, "a")] == [b"3", b"4", b"5", b"6", b"7"]
    assert move(world, degrade={"history"}).changed == 0


def test_versions_with_a_stage_are_never_given_up(world: Any) -> None:
    versions = fill(world.source_secrets, "a", [str(number) for number in range(8)])
    world.source_secrets.promote("a", versions[0])
    world.right_hidden.chosen = {"max_versions": Limit(3, "chosen")}

    assert move(world, degrade={"history"}).complete

    assert told(world.right_hidden, "a") == [(b"0", ["current"]), (b"6", []), (b"7", ["previous"])]


class _Pruning:
    """Keeps so many versions of the target, the oldest ones without a stage go first, as providers do."""

    def __init__(self, world: Any, most: int) -> None:
        self._driver, self._most = world.right_hidden, most
        world.right_hidden.chosen = {"max_versions": Limit(most, "chosen")}
        world.right_hidden.hook = self._prune

    def _prune(self, operation: str, name: str) -> None:
        entry = self._driver._entries.get(name)
        if operation != "stored" or entry is None:
            return
        while len(entry.versions) > self._most:
            oldest = next(id_ for id_ in entry.versions if not entry.stages_of(id_))
            del entry.versions[oldest]


def test_what_the_target_has_dropped_is_not_written_again(world: Any) -> None:
    _Pruning(world, 4)
    fill(world.source_secrets, "a", ["1", "2", "3", "4"])
    move(world)
    world.target_secrets.put("a", "4")  # somebody writes the same value again, and the oldest version goes
    fill(world.source_secrets, "b", ["x"])
    world.right_hidden.writes.clear()

    assert move(world, overwrite=True).complete
    again = move(world, overwrite=True)

    assert again.changed == 0
    assert verified(world)


def test_deltas_go_on_when_the_target_is_full(world: Any) -> None:
    _Pruning(world, 4)
    for number in range(12):
        fill(world.source_secrets, "a", [str(number)])
        assert move(world, degrade={"history"}).complete
        assert verified(world, degrade={"history"})

    assert [value for value, _ in told(world.right_hidden, "a")] == [b"8", b"9", b"10", b"11"]
    assert move(world, degrade={"history"}).changed == 0


@pytest.mark.parametrize(
    ("features", "old"), [({"max_value": Limit(4, "chosen")}, b"large"), ({"binary": False}, b"\xff\x00")]
)
def test_an_old_version_that_the_target_cannot_hold_is_refused_or_given_up_by_name(
    world: Any, features: dict[str, Any], old: bytes
) -> None:
    fill(world.source_secrets, "a", ["1", old, "3", "4"])
    world.right_hidden.chosen = features

    refused, accepted = move(world), move(world, degrade={"history"})

    assert troubles(refused) == {"a": Trouble.REFUSED}
    assert "accept that with degrade 'history'" in reasons(refused)["a"]
    assert accepted.complete
    assert [value for value, _ in told(world.right_hidden, "a")] == [b"1", b"3", b"4"]
    assert verified(world, degrade={"history"})


def test_a_target_without_history_is_told_or_refused_where_history_was_asked_for(world: Any) -> None:
    fill(world.source_secrets, "a", ["1", "2", "3"])
    world.right_hidden.chosen = {"history": False, "pending": False}

    refused, accepted = move(world), move(world, degrade={"history"})

    assert troubles(refused) == {"a": Trouble.REFUSED}
    assert accepted.complete
    assert world.target_secrets.get("a").reveal() == "3"


def test_a_target_whose_labels_change_with_versions_only_gets_the_current_one_again(world: Any) -> None:
    fill(world.source_secrets, "a", ["one", "two", "three"])
    world.right_hidden.chosen = {"update": False}
    move(world)
    world.source_secrets.update("a", labels={"team": "core"})

    assert move(world).complete

    assert world.target_secrets.get("a").labels == {"team": "core"}
    assert world.target_secrets.get("a", stage="previous").reveal() == "two"
    assert world.target_secrets.get("a").reveal() == "three"
    assert verified(world)
    assert move(world).changed == 0


def test_changed_labels_and_an_expiry_that_went_need_no_version(world: Any) -> None:
    world.source_secrets.put("a", "one", labels={"x": "1"}, expires=datetime(2031, 1, 1, tzinfo=UTC))
    move(world)
    world.source_secrets.update("a", labels={"team": "core"}, expires="never")
    world.right_hidden.writes.clear()

    assert move(world).complete

    found = world.target_secrets.get("a")
    assert (found.labels, found.expires) == ({"team": "core"}, None)
    assert world.right_hidden.writes == []


# where versions come from


def test_ids_and_dates_of_the_source_stand_in_labels_when_that_is_asked_for(world: Any) -> None:
    versions = fill(world.source_secrets, "a", ["one", "two"])
    world.source_secrets.update("a", labels={"team": "core"})
    created = world.source_secrets.get("a").created.strftime("%Y%m%dt%H%M%Sz")

    assert move(world, origin=True).complete

    found = world.target_secrets.get("a").labels
    assert found["team"] == "core"
    assert sorted(found) == ["shiftable-origin-1", "shiftable-origin-2", "team"]
    assert found["shiftable-origin-2"] == f"{versions[1]}_{created}"
    assert verified(world, origin=True)
    assert verified(world)  # who does not ask for them does not miss them


def test_origins_that_the_target_cannot_keep_are_refused_or_given_up_by_name(world: Any) -> None:
    fill(world.source_secrets, "a", ["one", "two"])
    world.right_hidden.chosen = {"max_labels": Limit(1, "chosen")}

    refused, accepted = move(world, origin=True), move(world, origin=True, degrade={"origin"})

    assert "accept that with degrade 'origin'" in reasons(refused)["a"]
    assert accepted.complete
    assert world.target_secrets.get("a").labels == {}


# labels


def test_labels_that_are_too_many_are_refused_folded_or_given_up_by_name(world: Any) -> None:
    labels = {f"name{number}": f"value {number}" for number in range(5)}
    world.source_secrets.put("a", "one", labels=labels)
    world.right_hidden.chosen = {"max_labels": Limit(3, "chosen")}

    refused = move(world)
    folded = move(world, degrade={"fold", "labels"})
    kept = dict(world.target_secrets.get("a").labels)

    assert "degrade 'labels'" in reasons(refused)["a"]
    assert "accept that with degrade 'fold'" in reasons(refused)["a"]
    assert folded.complete
    assert losses(folded) == {"fold": 1}
    assert kept == {
        "name0": "value 0",
        "name1": "value 1",
        "shiftable-labels": '{"name2":"value 2","name3":"value 3","name4":"value 4"}',
    }
    assert verified(world, degrade={"fold"})


def test_labels_that_are_given_up_are_as_few_as_possible(world: Any) -> None:
    world.source_secrets.put("a", "one", labels={f"name{number}": str(number) for number in range(5)})
    world.right_hidden.chosen = {"max_labels": Limit(3, "chosen")}

    assert move(world, degrade={"labels"}).complete

    assert world.target_secrets.get("a").labels == {"name0": "0", "name1": "1", "name2": "2"}


def test_folded_labels_are_unfolded_where_they_fit_again(world: Any) -> None:
    world.source_secrets.put("a", "one", labels={"kept": "x", "shiftable-labels": '{"Team":"core","Größe":"9"}'})
    world.source_secrets.put("b", "one", labels={"shiftable-labels": "[no labels"})

    assert move(world).complete

    assert world.target_secrets.get("a").labels == {"kept": "x", "Team": "core", "Größe": "9"}
    assert world.target_secrets.get("b").labels == {"shiftable-labels": "[no labels"}
    assert move(world).changed == 0


def test_of_equal_values_the_one_in_its_order_is_meant(world: Any) -> None:
    """A kill left the third version without a stage, as a store may whose writes are two steps."""
    fill(world.source_secrets, "a", ["x", "y", "x", "y"])
    fill(world.target_secrets, "a", ["x", "y", "x"])
    entry = world.right_hidden._entries["shop/a"]
    first, second, _ = entry.versions
    entry.stages = {"current": second, "previous": first}

    assert move(world, overwrite=True).complete

    assert told(world.right_hidden, "a") == told(world.left_hidden, "a")


# killed, lost, at once


@pytest.mark.parametrize("calls", range(1, 9))
def test_a_kill_anywhere_in_a_secret_is_gone_on_with_and_doubles_nothing(world: Any, calls: int) -> None:
    versions = fill(world.source_secrets, "a", ["1", "2", "3", "4", "5"])
    world.source_secrets.put("a", "6", stage="pending")
    world.source_secrets.promote("a", versions[1])
    left = itertools.count(1)

    def interrupt(operation: str, _name: str) -> None:
        if operation in {"put", "stored"} and next(left) == calls:
            raise KeyboardInterrupt

    world.right_hidden.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        move(world, include_pending=True)
    world.right_hidden.hook = lambda *_: None
    report = move(world, include_pending=True)

    assert report.complete
    assert told(world.right_hidden, "a") == told(world.left_hidden, "a")
    assert move(world, include_pending=True).changed == 0


@pytest.mark.parametrize("which", range(4))
def test_an_answer_that_is_lost_makes_no_second_version(world: Any, which: int) -> None:
    fill(world.source_secrets, "a", ["1", "2", "3", "4"])
    seen = itertools.count()

    def lose(operation: str, _name: str) -> None:
        if operation == "stored" and next(seen) == which:
            raise world.fault(Timeout)

    world.right_hidden.hook = lose

    assert move(world).complete

    assert told(world.right_hidden, "a") == told(world.left_hidden, "a")


@pytest.fixture
def other(world: Any, world_class: type[Any], tmp_path: Any) -> Any:
    """Somebody else with a journal of their own, between the same two sides."""
    made = world_class(tmp_path / "other")
    made.left_hidden, made.right_hidden = world.left_hidden, world.right_hidden
    return made


@pytest.mark.parametrize(("before", "second"), [(1, {}), (2, {"a": Trouble.CONFLICT}), (4, {"a": Trouble.CONFLICT})])
def test_a_mover_that_is_overtaken_by_another_doubles_nothing(
    world: Any, other: Any, before: int, second: dict[str, Trouble]
) -> None:
    """The second one runs to its end before some write of the first; what is half done is not its own."""
    versions = fill(world.source_secrets, "a", ["1", "2", "3", "4"])
    world.source_secrets.promote("a", versions[2])
    puts, reports = itertools.count(1), []

    def interfere(operation: str, _name: str) -> None:
        if operation == "put" and next(puts) == before:
            world.right_hidden.hook = lambda *_: None
            reports.append(move(other))

    world.right_hidden.hook = interfere
    first = move(world)

    assert first.complete
    assert troubles(reports[0]) == second
    assert told(world.right_hidden, "a") == told(world.left_hidden, "a")
    assert (move(world).changed, move(other).changed) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_two_movers_at_once_make_each_version_once(world: Any, other: Any, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  lets one or the other wait
    versions = fill(world.source_secrets, "a", ["1", "2", "3", "4", "5"])
    world.source_secrets.promote("a", versions[chance.randrange(5)])
    both, begun = threading.Barrier(2), threading.local()

    def meet(operation: str, _name: str) -> None:
        if operation == "put" and not getattr(begun, "yes", False):
            begun.yes = True
            both.wait(30)  # neither has written anything when both know that there is nothing
        elif chance.random() < 0.5:
            time.sleep(chance.random() / 500)

    world.right_hidden.hook = meet
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(move, (world, other)))
    world.right_hidden.hook = lambda *_: None

    # One may have seen the other between two steps; it says so, and goes on when it is run again.
    assert {trouble for report in reports for trouble in troubles(report).values()} <= {Trouble.FAILED}
    assert move(world).complete
    assert told(world.right_hidden, "a") == told(world.left_hidden, "a")
    assert (move(world).changed, move(other).changed) == (0, 0)


def test_a_stranger_between_the_versions_and_their_stages_is_not_overruled(world: Any) -> None:
    versions = fill(world.source_secrets, "a", ["1", "2", "3"])
    world.source_secrets.promote("a", versions[0])
    seen = itertools.count(1)

    def write(operation: str, _name: str) -> None:
        if operation == "stored" and next(seen) == 3:
            world.right_hidden.hook = lambda *_: None
            world.target_secrets.put("a", "theirs")

    world.right_hidden.hook = write
    first, second = move(world), move(world)

    assert troubles(first) == {"a": Trouble.FAILED}
    assert troubles(second) == {"a": Trouble.CONFLICT}
    assert world.target_secrets.get("a").reveal() == "theirs"


# plans


def test_a_plan_says_that_the_source_has_changed_since(world: Any) -> None:
    versions = fill(world.source_secrets, "a", ["1", "2", "3"])
    migration = world.migration("secrets", history=None)
    plan = migration.plan()
    world.source_secrets.disable("a", versions[0])

    with pytest.raises(MigrationError, match=r"'a' changed; plan again"):
        migration.apply(plan)

    assert world.right_hidden.writes == []


def test_a_source_that_was_made_anew_under_the_same_ids_is_another_one(world: Any) -> None:
    first = world.source_secrets.put("a", "one")
    move(world)
    entry = world.left_hidden._entries["shop/a"]
    version = entry.versions[first.version]
    entry.versions[first.version] = attrs.evolve(version, value=type(version.value)("two"), created=datetime.now(UTC))

    assert move(world).complete

    assert world.target_secrets.get("a").reveal() == "two"


def test_a_plan_is_another_with_another_history(world: Any) -> None:
    fill(world.source_secrets, "a", ["1", "2", "3"])
    plan = world.migration("secrets").plan()

    with pytest.raises(MigrationError, match="the options are others"):
        world.migration("secrets", history=None).apply(plan)


# verification


@pytest.mark.parametrize("which", range(3))
def test_verification_finds_one_changed_byte_in_any_version(world: Any, which: int) -> None:
    fill(world.source_secrets, "a", ["0" * 100, "1" * 100, "2" * 100])
    move(world)
    version = list(world.right_hidden._entries["shop/a"].versions.values())[which]
    version.value = type(version.value)(version.value.reveal()[:-1] + "x")

    report = world.migration("secrets", history=None).verify()

    assert troubles(report) == {"a": Trouble.DIFFERS}
    where = ["version", "previous", "current"][which]
    assert f"what differs: {where}" in reasons(report)["a"]


def test_the_journal_of_all_versions_holds_nothing_that_tells_equal_values(world: Any) -> None:
    """Two secrets with the same history have nothing in common in the journal but what all secrets have."""
    for key in ("a", "b", "c"):
        fill(world.source_secrets, key, ["one", "two"] if key != "c" else ["three", "four"])
    move(world)

    with sqlite3.connect(world.migration().journal_path) as db:
        rows = db.execute("SELECT source_token, target_token, source_content, sha256 FROM item").fetchall()
    db.close()

    assert len({token for row in rows for token in row[:2]}) == 6
    assert {row[2:] for row in rows} == {("", None)}
