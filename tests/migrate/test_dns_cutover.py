"""Cutover of a zone: each step, killed and repeated, back again; with parents that answer as they are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shiftable.dns import Dns, RecordChange, ZoneSpec
from shiftable.errors import ConfigError, MigrationError, PreconditionFailed
from shiftable.features import Limit
from shiftable.migrate import Cutover, NameServer
from shiftable.migrate._cutover import parents_of

from .answering import Answering
from .test_dns import ZONE, Sides, record, routed, write

OLD, NEW = ("ns1.memory.invalid.", "ns2.memory.invalid."), ("ns1.new.example.", "ns2.new.example.")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Crossing:
    """A zone that was moved, a clock that goes when somebody waits, and two name servers of the parent."""

    def __init__(self, folder: Path, parents: tuple[Answering, ...]) -> None:
        self.folder = folder
        self.sides = Sides(folder)
        self.sides.right.driver.nameservers = NEW
        self.now = START
        self.slept: list[float] = []
        self.parents = parents
        write(
            self.sides.source,
            [
                record("www", "A", "192.0.2.1", 3600),
                record("mail", "MX", "10 mx.example.", 86_400),
                record("quick", "A", "192.0.2.2", 60),
                routed("ruled", ["192.0.2.3"], weight=1),
            ],
        )
        assert self.sides.move(degrade={"policy"}).complete
        for parent in parents:
            parent.put([record("@", "NS", OLD, 7200)])

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)

    def cutover(self, *labels: str) -> Cutover:
        """Open it anew, as another call of the command does."""
        here, there = labels or ("old", "new")
        return Cutover(
            self.sides.source,
            self.sides.target,
            self.folder / ".shiftable",
            labels=(here, there),
            parents=[NameServer.parse(parent.address) for parent in self.parents],
            clock=lambda: self.now,
            pause=self.sleep,
        )

    def ttls(self, zone: Any = None) -> dict[str, int]:
        found = zone or self.sides.source
        return {str(each.key).replace(f".{ZONE}.", ""): each.ttl for each in found.records() if each.type != "SOA"}

    def switch(self, names: tuple[str, ...] = NEW) -> None:
        for parent in self.parents:
            parent.put([record("@", "NS", names, 7200)])


@pytest.fixture
def crossing(tmp_path: Path) -> Iterator[Crossing]:
    with Answering("example.", []) as one, Answering("example.", []) as two:
        yield Crossing(tmp_path, (one, two))


BEFORE = {"www A": 3600, "mail MX": 86_400, "quick A": 60, "ruled A": 300, f"{ZONE}. NS": 172_800}
LOW = {"www A": 300, "mail MX": 300, "quick A": 60, "ruled A": 300, f"{ZONE}. NS": 300}


def test_the_whole_way(crossing: Crossing) -> None:
    steps = []

    def step() -> str:
        steps.append(crossing.cutover().status().next)
        return steps[-1]

    assert step() == "lower"
    assert crossing.cutover().lower() == 3
    assert crossing.ttls() == LOW
    assert step() == "wait"
    left: list[timedelta] = []
    crossing.cutover().wait(left.append)
    assert crossing.now == START + timedelta(seconds=172_800)
    assert left[0] == timedelta(days=2)
    assert step() == "parent"
    change = crossing.cutover().delegation()
    assert change.lines == (
        *(f"- {ZONE}. NS {name}" for name in OLD),
        *(f"+ {ZONE}. NS {name}" for name in NEW),
    )
    assert step() == "poll"
    assert crossing.cutover().poll(timeout=60, interval=30) is False
    crossing.switch()
    assert crossing.cutover().poll() is True
    assert step() == "drift"
    assert crossing.cutover().drift().changes == ()
    assert crossing.cutover().drift().beside == ("ruled.shop.example. A",)
    with pytest.raises(MigrationError, match="resolvers may ask the old side until"):
        crossing.cutover().restore()
    crossing.now += timedelta(seconds=7201)
    assert step() == "restore"
    assert crossing.cutover().restore() == 3
    assert crossing.ttls() == BEFORE
    assert step() == ""
    assert crossing.cutover().restore() == 0


def test_nothing_of_the_old_side_but_ttls_is_ever_changed(crossing: Crossing) -> None:
    before = {(each.key, each.canonical) for each in crossing.sides.source.records() if each.type != "SOA"}

    crossing.cutover().lower()
    crossing.switch()
    crossing.cutover().poll()
    crossing.cutover().restore(force=True)
    crossing.cutover().rollback()

    after = {(each.key, each.canonical) for each in crossing.sides.source.records() if each.type != "SOA"}
    assert after == before
    assert all(
        change.before is not None and change.after is not None
        for call in crossing.sides.left.driver.calls[1:]
        for change in call
    )


def test_lowering_twice_keeps_what_the_ttls_were(crossing: Crossing) -> None:
    crossing.cutover().lower(600)
    crossing.now += timedelta(hours=1)
    crossing.cutover().lower(120)
    again = crossing.cutover().status()
    crossing.now += timedelta(hours=1)
    crossing.cutover().lower(120)

    assert crossing.cutover().status() == again
    assert again.lowered_at == START + timedelta(hours=1)
    assert max(crossing.ttls().values()) == 300  # what is answered by rules
    crossing.cutover().rollback()
    assert crossing.ttls() == BEFORE


@pytest.mark.parametrize("when", ["before", "after"])
def test_lowering_that_is_killed_is_gone_on_with(crossing: Crossing, when: str) -> None:
    driver = crossing.sides.left.driver

    def die(_: tuple[RecordChange, ...]) -> None:
        raise SystemExit

    setattr(driver, when, die)
    with pytest.raises(SystemExit):
        crossing.cutover().lower()
    setattr(driver, when, lambda _: None)

    assert crossing.cutover().status().lowered_at is None
    crossing.now += timedelta(hours=3)
    assert crossing.cutover().lower() == 3
    assert crossing.cutover().status().wait_until == START + timedelta(hours=3, seconds=172_800)
    assert crossing.ttls() == LOW
    crossing.cutover().rollback()
    assert crossing.ttls() == BEFORE


def test_a_rollback_after_a_kill_in_the_middle_of_lowering_undoes_it(crossing: Crossing) -> None:
    driver = crossing.sides.left.driver

    def die(_: tuple[RecordChange, ...]) -> None:
        raise SystemExit

    driver.after = die
    with pytest.raises(SystemExit):
        crossing.cutover().lower()
    driver.after = lambda _: None

    assert crossing.cutover().rollback() is None
    assert crossing.ttls() == BEFORE


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("then", ["again", "back"])
def test_lowering_further_that_is_killed_forgets_no_ttl(crossing: Crossing, when: str, then: str) -> None:
    crossing.cutover().lower(600)
    driver = crossing.sides.left.driver

    def die(_: tuple[RecordChange, ...]) -> None:
        raise SystemExit

    setattr(driver, when, die)
    with pytest.raises(SystemExit):
        crossing.cutover().lower(120)
    setattr(driver, when, lambda _: None)
    assert crossing.cutover().drift().changes == ()
    if then == "again":
        assert crossing.cutover().lower(120) == 3
        assert max(crossing.ttls().values()) == 300  # what is answered by rules
    assert crossing.cutover().status().lowered == 3

    crossing.cutover().rollback()

    assert crossing.ttls() == BEFORE


def test_old_ttls_that_were_not_waited_for_keep_the_old_side_asked(crossing: Crossing) -> None:
    crossing.cutover().lower()
    crossing.switch()
    crossing.now += timedelta(hours=1)

    crossing.cutover().poll()

    assert crossing.cutover().status().keep_until == START + timedelta(seconds=172_800)
    crossing.now += timedelta(seconds=7201)
    with pytest.raises(MigrationError, match="resolvers may ask the old side until"):
        crossing.cutover().restore()


def test_waiting_that_is_interrupted_goes_on_by_the_clock(crossing: Crossing) -> None:
    crossing.cutover().lower()

    def interrupt(_: timedelta) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crossing.cutover().wait(interrupt)
    crossing.now += timedelta(seconds=172_790)
    crossing.cutover().wait()

    assert crossing.slept == [10.0]


def test_there_is_nothing_to_wait_for_before_ttls_are_lowered(crossing: Crossing) -> None:
    with pytest.raises(MigrationError, match="lower the TTLs first"):
        crossing.cutover().wait()


def test_a_parent_with_a_ds_means_to_go_insecure_first(crossing: Crossing) -> None:
    signed = record("@", "DS", f"60485 5 2 {'d4' * 32}", 3600)
    crossing.parents[1].put([signed])
    crossing.cutover().lower()
    crossing.cutover().wait()

    with pytest.raises(MigrationError, match=r"go insecure first: have the DS removed, wait 3,600 s"):
        crossing.cutover().delegation()
    for held in list(crossing.parents[1].sets):
        if held[1] == 43:
            del crossing.parents[1].sets[held]
    crossing.parents[1]._held.clear()
    crossing.switch(OLD)
    with pytest.raises(MigrationError, match="resolvers may know the parent's DS until"):
        crossing.cutover().delegation()
    assert crossing.cutover().status().next == "wait"
    crossing.cutover().wait()

    assert crossing.cutover().delegation().after == frozenset(NEW)


def test_polling_waits_for_all_of_the_parents_servers(crossing: Crossing) -> None:
    rounds: list[list[bool]] = []

    def hear(parents: Any) -> None:
        rounds.append([each.nameservers == frozenset(NEW) for each in parents])
        for parent in crossing.parents[: len(rounds)]:
            parent.put([record("@", "NS", NEW, 7200)])

    assert crossing.cutover().poll(interval=10, tell=hear) is True

    assert rounds == [[False, False], [True, False], [True, True]]
    assert crossing.slept == [10, 10]


def test_a_server_of_the_parent_that_is_silent_keeps_it_from_being_done(crossing: Crossing) -> None:
    crossing.switch()
    with Answering("example.", []) as gone:
        pass
    crossing.parents = (*crossing.parents, gone)
    heard: list[Any] = []

    assert crossing.cutover().poll(timeout=0, tell=heard.append) is False
    assert [bool(each.error) for each in heard[0]] == [False, False, True]


def test_a_parent_that_nobody_can_ask_is_told(crossing: Crossing) -> None:
    crossing.parents = ()

    with pytest.raises(MigrationError, match="it has no name server; name its servers with --ask-parent"):
        crossing.cutover().delegation()


def test_drift_names_what_is_different_and_not_the_lowered_ttls(crossing: Crossing) -> None:
    crossing.cutover().lower()
    crossing.sides.source.set("www", "A", "192.0.2.99")
    crossing.sides.source.set("late", "A", "192.0.2.98")
    crossing.sides.target.delete("mail", "MX")
    crossing.sides.target.set("quick", "A", "192.0.2.2", ttl=61)

    assert [str(change) for change in crossing.cutover().drift().changes] == [
        "create late.shop.example. A",
        "create mail.shop.example. MX",
        "update quick.shop.example. A",
        "update www.shop.example. A",
    ]


def test_ttls_that_a_last_move_took_over_are_put_right_on_the_new_side_too(crossing: Crossing) -> None:
    crossing.cutover().lower()
    assert crossing.sides.move(degrade={"policy"}, change_share=1.0).changed == 2
    crossing.switch()
    crossing.cutover().poll()

    assert crossing.cutover().restore(force=True) == 5
    assert crossing.ttls() == BEFORE
    assert crossing.ttls(crossing.sides.target)["mail MX"] == 86_400


def test_a_ttl_that_somebody_set_meanwhile_stays(crossing: Crossing) -> None:
    crossing.cutover().lower()
    crossing.sides.source.set("www", "A", "192.0.2.1", ttl=900)

    crossing.cutover().rollback()

    assert crossing.ttls() == BEFORE | {"www A": 900}


def test_a_record_set_that_changes_while_ttls_are_lowered_is_not_overwritten(crossing: Crossing) -> None:
    other, done = Dns(crossing.sides.left.driver).zone(ZONE), list[int]()

    def meddle(_: tuple[RecordChange, ...]) -> None:
        if not done:
            done.append(1)
            other.set("www", "A", "192.0.2.77")

    crossing.sides.left.driver.before = meddle
    with pytest.raises(PreconditionFailed):
        crossing.cutover().lower()
    crossing.cutover().lower()

    assert other.get("www", "A").texts == ("192.0.2.77",)
    assert crossing.ttls() == LOW


def test_a_rollback_prints_the_change_back_and_is_polled(crossing: Crossing) -> None:
    crossing.cutover().lower()
    crossing.cutover().delegation()
    crossing.switch()
    crossing.cutover().poll()

    back = crossing.cutover().rollback()
    again = crossing.cutover().rollback()
    early = crossing.cutover().poll(timeout=0)
    crossing.switch(OLD)
    late = crossing.cutover().poll()

    assert back is not None
    assert back == again
    assert {line for line in back.lines if line[0] == "+"} == {f"+ {ZONE}. NS {name}" for name in OLD}
    assert (early, late) == (False, True)
    assert crossing.ttls() == BEFORE
    assert crossing.cutover().lower() == 3  # and it may begin anew


def test_a_rollback_is_over_when_the_parent_gives_the_old_name_servers(crossing: Crossing) -> None:
    crossing.cutover().lower()
    crossing.cutover().delegation()
    crossing.switch()
    crossing.cutover().poll()
    crossing.cutover().rollback()
    assert crossing.cutover().status().next == "poll"
    assert crossing.cutover().poll(timeout=0) is False
    with pytest.raises(MigrationError, match="tells of a cutover from old to new"):
        crossing.cutover("old", "elsewhere").status()

    crossing.switch(OLD)
    assert crossing.cutover().poll() is True

    found = crossing.cutover().status()
    assert (found.next, found.why) == ("", "it was rolled back, and the parent gives the old name servers")
    assert found.switched_at == crossing.now
    assert crossing.cutover("old", "elsewhere").status().next == "lower"
    assert crossing.cutover().lower() == 3


@pytest.mark.parametrize("then", ["lower", "rollback"])
def test_a_rollback_that_is_killed_forgets_no_ttl(crossing: Crossing, then: str) -> None:
    crossing.cutover().lower()
    driver = crossing.sides.left.driver

    def die(_: tuple[RecordChange, ...]) -> None:
        raise SystemExit

    driver.before = die
    with pytest.raises(SystemExit):
        crossing.cutover().rollback()
    driver.before = lambda _: None
    assert crossing.cutover().status().next == "rollback"
    if then == "lower":
        assert crossing.cutover().lower() == 3
        assert crossing.ttls() == LOW

    crossing.cutover().rollback()

    assert crossing.ttls() == BEFORE


def test_a_cutover_that_begins_anew_knows_only_its_own_ttls(crossing: Crossing) -> None:
    crossing.cutover().lower()
    crossing.cutover().rollback()
    crossing.sides.source.set("www", "A", "192.0.2.1", ttl=300)

    assert crossing.cutover().lower() == 2
    crossing.cutover().rollback()

    assert crossing.ttls() == BEFORE | {"www A": 300}


def test_a_rollback_before_the_parent_was_asked_leaves_nothing_to_do(crossing: Crossing) -> None:
    crossing.cutover().lower()
    assert crossing.cutover().rollback() is None
    found = crossing.cutover().status()
    assert (found.next, found.why) == ("", "it was rolled back, and the parent was never to change")
    with pytest.raises(MigrationError, match="the parent was never to change"):
        crossing.cutover().poll()


def test_a_parent_that_is_first_asked_after_its_change_can_be_changed_back(crossing: Crossing) -> None:
    crossing.cutover().lower()
    crossing.switch()
    assert crossing.cutover().poll() is True

    change = crossing.cutover().rollback()

    assert change is not None
    assert change.before == frozenset(NEW)
    assert change.after == frozenset(crossing.sides.source.info().nameservers)


def test_limits_of_the_old_side_are_kept_while_lowering(crossing: Crossing) -> None:
    crossing.sides.left.driver.chosen = {"min_ttl": Limit(600, "chosen"), "apex_ns": False}

    crossing.cutover().lower()

    assert crossing.ttls() == BEFORE | {"www A": 600, "mail MX": 600}


def test_glue_goes_with_name_servers_inside_of_the_zone(crossing: Crossing) -> None:
    crossing.sides.target.set("ns1", "A", "192.0.2.53")
    crossing.sides.right.driver.nameservers = (f"ns1.{ZONE}.",)

    lines = crossing.cutover().delegation().lines

    assert lines[-2:] == (f"+ {ZONE}. NS ns1.{ZONE}.", f"+ ns1.{ZONE}. 300 IN A 192.0.2.53")


def test_a_new_side_without_name_servers_is_refused(crossing: Crossing) -> None:
    crossing.sides.right.driver.nameservers = ()

    with pytest.raises(MigrationError, match="new tells no name servers"):
        crossing.cutover().delegation()


@pytest.mark.parametrize(
    ("text", "why"), [("{", "is no cutover"), ('{"format": 1}', "is no cutover"), ("other", "from old to elsewhere")]
)
def test_a_file_that_is_not_this_cutovers_is_left_as_it_is(crossing: Crossing, text: str, why: str) -> None:
    crossing.cutover().lower()
    path = crossing.cutover().path
    if text == "other":
        text = json.dumps(json.loads(path.read_text()) | {"target": "elsewhere"})
    path.write_text(text)

    for step in (crossing.cutover().status, crossing.cutover().lower, crossing.cutover().rollback):
        with pytest.raises(MigrationError, match=why):
            step()
    assert path.read_text() == text


def test_a_cutover_that_is_over_gives_way_to_another(crossing: Crossing) -> None:
    crossing.cutover().lower()
    crossing.cutover().delegation()
    for over in (False, True):  # half way there, then half way back
        with pytest.raises(MigrationError, match="tells of a cutover from old to new"):
            crossing.cutover("old", "third").status()
        if not over:
            crossing.cutover().rollback()
    crossing.cutover().lower()
    crossing.cutover().rollback()
    assert "lower" == crossing.cutover("old", "third").status().next
    assert 3 == crossing.cutover("old", "third").lower()


def test_a_cutover_that_is_done_gives_way_to_another(crossing: Crossing) -> None:
    crossing.cutover().lower()
    crossing.cutover().delegation()
    crossing.switch()
    crossing.cutover().poll()
    crossing.now += timedelta(days=3)
    crossing.cutover().restore()
    assert "" == crossing.cutover().status().next
    assert "lower" == crossing.cutover("new", "third").status().next


def test_two_at_once_are_refused(crossing: Crossing) -> None:
    failed: list[Exception] = []

    def second(_: tuple[RecordChange, ...]) -> None:
        try:
            crossing.cutover().rollback()
        except MigrationError as exc:
            failed.append(exc)

    crossing.sides.left.driver.before = second
    crossing.cutover().lower()

    assert "process" in str(failed[0])


def test_a_zone_with_a_slash_has_a_file(tmp_path: Path) -> None:
    sides = Sides(tmp_path)
    zones = [Dns(side.driver).create(ZoneSpec(name="0/25.2.0.192.in-addr.arpa")) for side in (sides.left, sides.right)]

    cutover = Cutover(*zones, tmp_path, labels=("old", "new"), parents=())
    cutover.lower()

    assert cutover.path.parent == tmp_path
    assert cutover.path.exists()


def test_a_cutover_goes_between_two_sides_of_one_zone(crossing: Crossing) -> None:
    other = Dns(crossing.sides.right.driver).create(ZoneSpec(name="other.example"))

    for target, labels in ((other, ("a", "b")), (crossing.sides.target, ("a", "a"))):
        with pytest.raises(MigrationError, match="between two providers of one zone"):
            Cutover(crossing.sides.source, target, crossing.folder, labels=labels)


def test_the_parents_servers_are_found_by_a_resolver() -> None:
    with Answering("example.", [record("ns1.dummy", "A", "192.0.2.1")]) as resolver:
        from shiftable.dns import RecordSet

        resolver.put([RecordSet.of("example.", "NS", ["b.ns.example.", "a.ns.example."], ttl=60)])
        found = parents_of("deep.shop.example", NameServer.parse(resolver.address))

    assert found == (NameServer("a.ns.example"), NameServer("b.ns.example"))


def test_a_parent_that_is_not_found_is_told() -> None:
    with Answering("example.", []) as resolver:
        pass

    with pytest.raises(MigrationError, match="cannot be found: .* name its servers with --ask-parent"):
        parents_of("shop.example", NameServer.parse(resolver.address))


# the command


@pytest.fixture
def command(crossing: Crossing, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run ``cutover`` over the two sides."""
    pytest.importorskip("click")
    from click.testing import CliRunner

    from shiftable.cli._context import Context
    from shiftable.cli._dns_cutover import cutover

    class Cloud:
        def __init__(self, driver: Any) -> None:
            self.dns = Dns(driver)

    class App:
        state_dir = crossing.folder / ".shiftable"

        def declared(self, _: str) -> tuple[Any, ...]:
            return crossing.sides.declared()

        def spec(self, declared: Any) -> Any:
            return declared.spec

        def cloud(self, label: str) -> Cloud:
            return Cloud(crossing.sides.cloud(label).driver)

    context = Context()
    monkeypatch.setattr(context, "_app", App())

    def run(*arguments: str, zone: str = "shop") -> Any:
        parents = [f"--ask-parent={parent.address}" for parent in crossing.parents]
        return CliRunner().invoke(cutover, [zone, "--from", "old", "--to", "new", *parents, *arguments], obj=context)

    return run


def test_the_command_says_where_it_is_and_what_to_change(crossing: Crossing, command: Callable[..., Any]) -> None:
    first = command()
    lowered = command("lower", "--ttl", "2m")
    parent = command("parent")
    early = command("poll", "--timeout", "0s")
    crossing.switch()
    late = command("poll")
    drift = command("drift", "--json")
    refused = command("restore")
    restored = command("restore", "--force")
    back = command("rollback")

    assert [each.exit_code for each in (first, lowered, parent, early, late, drift)] == [0, 0, 0, 1, 0, 0]
    assert "next: lower" in first.output
    assert "record sets of the old side have a TTL of at most 120 s now" in lowered.output
    assert f"  + {ZONE}. NS {NEW[0]}" in parent.output
    assert "not all of the parent's servers give it yet" in early.output
    assert json.loads(drift.output) == {"changes": [], "beside": ["ruled.shop.example. A"]}
    assert isinstance(refused.exception, MigrationError)
    assert "have the TTL again that they had" in restored.output
    assert f"  - {ZONE}. NS {NEW[0]}" in back.output
    assert crossing.ttls() == BEFORE


def test_a_zone_is_given_by_label_or_name(crossing: Crossing, command: Callable[..., Any]) -> None:
    named = command("status", "--json", zone=f"{ZONE}.")
    wrong = command("status", zone="shp")

    assert json.loads(named.output)["zone"] == ZONE
    assert isinstance(wrong.exception, ConfigError)
    assert "'shp' is neither the label of a zone in the file nor a zone's name" in str(wrong.exception)
    assert crossing.sides.left.driver.calls[1:] == []
