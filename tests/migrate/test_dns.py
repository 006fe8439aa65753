"""Moving zones: what arrives, what is refused and why, what is guarded; batches, kills, two runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.dns import Dns, DnsFeatures, Policy, RecordChange, RecordSet, Zone, ZoneInfo, ZoneSpec
from shiftable.errors import (
    InvalidArgument,
    MigrationError,
    PermissionDenied,
    PreconditionFailed,
    Throttled,
    Timeout,
    Unavailable,
)
from shiftable.features import Limit
from shiftable.memory.dns import MemoryDnsDriver
from shiftable.migrate import Action, Migration, Options, Plan, Trouble
from shiftable.migrate._engine import Engine
from shiftable.testing.conformance.dns import RECORDS

ZONE = "shop.example"


class Zones(MemoryDnsDriver):
    """The memory driver with a hook before each change, a log of them, and features to choose."""

    def __init__(self, **features: Any) -> None:
        super().__init__()
        self.chosen = features
        self.before: Callable[[tuple[RecordChange, ...]], None] = lambda _: None
        self.after: Callable[[tuple[RecordChange, ...]], None] = lambda _: None
        self.calls: list[tuple[RecordChange, ...]] = []
        self.reads = 0
        self.asked = 0
        self.granted: int | None = None
        self.nameservers: tuple[str, ...] = ("ns1.memory.invalid.",)
        self.provider_name = "memory"

    @property
    def provider(self) -> str:
        return self.provider_name

    @property
    def features(self) -> DnsFeatures:
        return attrs.evolve(super().features, **self.chosen)

    def info(self, zone: str) -> ZoneInfo:
        return attrs.evolve(super().info(zone), nameservers=self.nameservers)

    def max_record_sets(self, zone: str) -> Limit | None:
        self.asked += 1
        super().info(zone)
        return super().max_record_sets(zone) if self.granted is None else Limit(self.granted, "asked for")

    def records(self, zone: str, **kwargs: Any) -> Any:
        self.reads += kwargs["cursor"] is None
        return super().records(zone, **kwargs)

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        self.before(changes)
        self.calls.append(changes)
        super().change(zone, changes)
        self.after(changes)


@attrs.define
class Cloud:
    """One side: a provider's zones, and what a plan calls the provider."""

    driver: Zones
    name: str = "memory"

    def service(self, _: str) -> Dns:
        return Dns(self.driver)


@attrs.frozen
class Declared:
    service: str
    label: str
    spec: ZoneSpec


class Sides:
    """A zone on the left, what is to have it on the right, and the application between them."""

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder / ".shiftable"
        self.left, self.right = Cloud(Zones()), Cloud(Zones())
        self.left.driver.provider_name = "aws"
        self.source = Dns(self.left.driver).create(ZoneSpec(name=ZONE))

    def declared(self) -> tuple[Declared, ...]:
        return (Declared("dns", "shop", ZoneSpec(name=ZONE)),)

    def cloud(self, label: str) -> Cloud:
        return {"old": self.left, "new": self.right}[label]

    @property
    def target(self) -> Zone:
        return Dns(self.right.driver).zone(ZONE)

    def make_target(self) -> Zone:
        return Dns(self.right.driver).create(ZoneSpec(name=ZONE))

    def fill(self, count: int, ttl: int = 300) -> list[RecordSet]:
        address = "10.0.{}.{}".format
        records = [record(f"host-{each:05}", "A", address(*divmod(each, 250)), ttl) for each in range(count)]
        write(self.source, records)
        return records

    def migration(self, **options: Any) -> Migration:
        chosen = Options(**options)
        return Migration(self, "old", "new", (), chosen, engine=Engine(chosen, pause=lambda _stop, _seconds: None))

    def move(self, **options: Any) -> Any:
        return self.migration(**options).apply()

    @property
    def is_equal(self) -> bool:
        return self.source.diff(self.target) == ()


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def record(name: str, type: str, values: str | Iterable[str], ttl: int = 300, **more: Any) -> RecordSet:
    texts = (values,) if isinstance(values, str) else tuple(values)
    return RecordSet.of(name, type, texts, ttl=ttl, origin=f"{ZONE}.", **more)


def write(zone: Zone, records: Iterable[RecordSet]) -> None:
    zone.change([RecordChange(before=None, after=each) for each in records])


def routed(name: str, values: Iterable[str] = (), type: str = "A", set_id: str | None = None, **data: Any) -> RecordSet:
    policy = Policy(provider="aws", data=json.dumps(data), set_id=set_id)
    return record(name, type, values, policy=policy)


def troubles(report: Any) -> dict[str, Trouble]:
    return {named.key: named.trouble for found in report.resources for named in found.named}


def reasons(report: Any) -> dict[str, str]:
    return {named.key: named.reason for found in report.resources for named in found.named}


def losses(report: Any) -> dict[tuple[str, bool | None], int]:
    return {(loss.facet, loss.accepted): loss.count for loss in report.resources[0].losses}


def done(report: Any) -> dict[Action, int]:
    found = report.resources[0]
    tallies = found.actions if hasattr(found, "actions") else found.done
    return {action: tally.count for action, tally in tallies.items()}


# what arrives


def test_every_record_of_the_list_arrives_and_a_second_run_changes_nothing(sides: Sides) -> None:
    write(sides.source, [record(name, kind, values, 600) for name, kind, values in RECORDS])

    plan = sides.migration().plan()
    first = sides.move()
    calls = len(sides.right.driver.calls)
    second = sides.move()

    assert done(plan) == {Action.CREATE: len(RECORDS)}
    assert (first.complete, first.changed) == (True, len(RECORDS))
    assert sides.is_equal
    assert done(second) == {Action.UNCHANGED: len(RECORDS)}
    assert len(sides.right.driver.calls) == calls == 1
    assert sides.migration().verify().resources[0].verified.count == len(RECORDS)


def test_a_plan_writes_nothing_and_says_what_has_to_be_made_first(sides: Sides) -> None:
    sides.fill(3)

    plan = sides.migration().plan()

    assert plan.resources[0].changes == (f"create dns {ZONE}",)
    assert sides.right.driver.calls == []
    assert not Dns(sides.right.driver).exists(ZONE)
    assert Plan.from_json(plan.to_json()).digest == plan.digest


def test_a_saved_plan_is_carried_out_and_refused_when_a_record_has_changed(sides: Sides) -> None:
    sides.fill(5)
    plan = sides.migration().plan()
    sides.source.set("host-00002", "A", "192.0.2.9")

    with pytest.raises(MigrationError, match=r"host-00002\.shop\.example\. A' changed"):
        sides.migration().apply(plan)
    again = sides.migration().plan()

    assert sides.migration().apply(again).complete


def test_only_what_changed_is_written_again(sides: Sides) -> None:
    sides.fill(30)
    sides.move()
    sides.source.set("host-00003", "A", "192.0.2.1")
    sides.source.set("new", "TXT", '"x"')
    sides.right.driver.calls.clear()

    report = sides.move()

    assert done(report) == {Action.UNCHANGED: 29, Action.REPLACE: 1, Action.CREATE: 1}
    assert [str(change) for call in sides.right.driver.calls for change in call] == [
        "update host-00003.shop.example. A",
        "create new.shop.example. TXT",
    ]
    assert sides.is_equal


def test_both_sides_are_read_once_and_the_target_once_more_to_see_what_it_kept(sides: Sides) -> None:
    sides.fill(300)
    sides.left.driver.reads = 0

    sides.move()

    assert (sides.left.driver.reads, sides.right.driver.reads) == (1, 2)


def test_a_cname_and_an_address_change_places_in_one_call(sides: Sides) -> None:
    sides.make_target()
    write(sides.source, [record("a", "CNAME", "x.example."), record("b", "A", "192.0.2.1"), record("b", "TXT", '"t"')])
    sides.move()
    sides.source.change(
        sides.source.diff(
            [record("a", "A", "192.0.2.2"), record("a", "MX", "10 m.example."), record("b", "CNAME", "y.example.")]
        )
    )
    sides.right.driver.calls.clear()

    report = sides.move(prune=True)

    assert report.complete
    assert sides.is_equal
    assert len(sides.right.driver.calls) == 1


def test_a_cname_beside_what_the_target_keeps_is_a_conflict(sides: Sides) -> None:
    target = sides.make_target()
    target.set("www", "A", "192.0.2.1")
    sides.source.set("www", "CNAME", "x.example.")
    sides.source.set("other", "A", "192.0.2.2")

    report = sides.move()

    assert troubles(report) == {"www.shop.example. CNAME": Trouble.CONFLICT}
    assert "the target has A at that name" in reasons(report)["www.shop.example. CNAME"]
    assert target.exists("other", "A")


def test_what_a_signing_server_makes_and_the_zones_own_records_stay_and_are_told(sides: Sides) -> None:
    sides.source.set("www", "A", "192.0.2.1")
    made = RecordSet(name=f"www.{ZONE}.", type="RRSIG", ttl=300, rdatas=[b"whatever it signs"])
    sides.left.driver._zones[ZONE][made.key] = made
    before = sides.make_target().get("@", "NS")

    plan = sides.migration().plan()
    report = sides.move()

    assert report.changed == 1
    assert losses(plan) == {("apex", None): 1, ("dnssec", None): 1}
    assert sides.target.get("@", "NS") == before


def test_the_ns_of_the_zone_itself_move_only_when_that_is_asked_for(sides: Sides) -> None:
    sides.source.set("@", "NS", ["ns1.old.example.", "ns2.old.example."], apex=True)
    theirs = sides.make_target().get("@", "NS")

    left = sides.move()
    kept = sides.target.get("@", "NS")
    moved = sides.move(apex=True, overwrite=True)
    sides.right.driver.chosen = {"apex_ns": False}
    refused = sides.migration(apex=True).plan()

    assert (left.changed, kept) == (0, theirs)
    assert moved.changed == 1
    assert sides.target.get("@", "NS").texts == ("ns1.old.example.", "ns2.old.example.")
    assert done(refused) == {Action.UNCHANGED: 1}


def test_the_ns_of_a_zone_that_is_made_by_the_move_are_replaced_only_if_they_may_be(sides: Sides) -> None:
    sides.source.set("@", "NS", ["ns1.old.example."], apex=True)

    kept = sides.move(apex=True)
    moved = sides.move(apex=True, overwrite=True)

    assert troubles(kept) == {"shop.example. NS": Trouble.CONFLICT}
    assert moved.complete
    assert sides.target.get("@", "NS").texts == ("ns1.old.example.",)


def test_a_provider_that_keeps_its_own_ns_has_both(sides: Sides) -> None:
    sides.right.driver.nameservers = ("ns1.memory.invalid.", "ns2.memory.invalid.")
    sides.right.driver.chosen = {"apex_ns_kept": True}
    sides.make_target()
    sides.source.set("@", "NS", ["ns1.old.example."], apex=True)

    report = sides.move(apex=True, overwrite=True)

    assert report.complete
    names = {"ns1.memory.invalid.", "ns2.memory.invalid.", "ns1.old.example."}
    assert set(sides.target.get("@", "NS").texts) == names
    assert sides.migration(apex=True).verify().complete


def test_the_ns_of_the_zone_itself_are_refused_where_nobody_may_change_them(sides: Sides) -> None:
    sides.make_target()
    sides.source.set("@", "NS", ["ns1.old.example."], apex=True)
    sides.right.driver.chosen = {"apex_ns": False}

    report = sides.move(apex=True, overwrite=True)

    assert troubles(report) == {"shop.example. NS": Trouble.REFUSED}


# what is on the target already


def test_an_equal_record_set_is_adopted_and_another_one_is_a_conflict_that_stays(sides: Sides) -> None:
    target = sides.make_target()
    for name, value in (("same", "192.0.2.1"), ("other", "192.0.2.2"), ("ttl", "192.0.2.3")):
        sides.source.set(name, "A", value)
    target.set("same", "A", "192.0.2.1")
    target.set("other", "A", "192.0.2.99")
    target.set("ttl", "A", "192.0.2.3", ttl=5)

    plan = sides.migration().plan()
    report = sides.move()
    kept = target.get("other", "A").texts
    forced = sides.move(overwrite=True)

    wanted = {"other.shop.example. A": Trouble.CONFLICT, "ttl.shop.example. A": Trouble.CONFLICT}
    assert troubles(plan) == troubles(report) == wanted
    assert "it has 192.0.2.99 and not 192.0.2.2" in reasons(report)["other.shop.example. A"]
    assert "its TTL is 5 s and not 300 s" in reasons(report)["ttl.shop.example. A"]
    assert kept == ("192.0.2.99",)
    assert forced.complete
    assert sides.is_equal


def test_what_we_wrote_and_somebody_changed_there_is_a_conflict(sides: Sides) -> None:
    sides.fill(2)
    sides.move()
    sides.target.set("host-00000", "A", "192.0.2.1")
    sides.source.set("host-00000", "A", "192.0.2.2")

    report = sides.move()

    assert troubles(report) == {"host-00000.shop.example. A": Trouble.CONFLICT}
    assert sides.target.get("host-00000", "A").texts == ("192.0.2.1",)


def test_prune_deletes_what_we_wrote_and_nothing_else(sides: Sides) -> None:
    sides.fill(12)
    sides.move()
    sides.target.set("theirs", "A", "192.0.2.1")
    sides.target.set("host-00001", "A", "192.0.2.2")
    for number in (0, 1):
        sides.source.delete(f"host-{number:05}", "A")

    stale = sides.move()
    pruned = sides.move(prune=True)

    assert troubles(stale) == {"host-00000.shop.example. A": Trouble.STALE}
    assert done(pruned)[Action.DELETE] == 1
    assert done(pruned)[Action.FOREIGN] == 2
    assert not sides.target.exists("host-00000", "A")
    assert sides.target.exists("theirs", "A")
    assert sides.move(prune=True).changed == 0


def test_a_filter_is_refused(sides: Sides) -> None:
    from shiftable.migrate import Filter

    with pytest.raises(MigrationError, match=r"says nothing of dns\.shop"):
        sides.migration(filter=Filter(min_size=1))


# what the target cannot hold


@pytest.mark.parametrize(
    ("features", "wanted", "why"),
    [
        ({"types": frozenset({"A", "TXT"})}, ("m", "MX", "10 x.example."), "it holds no MX records"),
        ({"any_name": False}, (r"a\032b", "A", "192.0.2.1"), "it cannot hold the name"),
        ({"max_values": Limit(1, "chosen")}, ("m", "A", ["192.0.2.1", "192.0.2.2"]), "there are 2 values"),
        ({"max_rdata": Limit(10, "chosen")}, ("m", "TXT", '"longer than ten"'), "bytes in one value"),
    ],
    ids=["type", "name", "values", "size"],
)
def test_a_lesser_target_refuses_by_name_and_gets_the_rest(
    sides: Sides, features: dict[str, Any], wanted: tuple[str, str, Any], why: str
) -> None:
    sides.right.driver.chosen = features
    write(sides.source, [record(*wanted), record("good", "A", "192.0.2.9")])

    plan = sides.migration().plan()
    report = sides.move()
    verified = sides.migration().verify()

    key = str(record(*wanted).key)
    assert troubles(plan) == troubles(report) == {key: Trouble.REFUSED}
    assert why in reasons(plan)[key]
    assert not plan.complete
    assert sides.target.exists("good", "A")
    assert troubles(verified) == {key: Trouble.MISSING}


def test_a_ttl_beyond_the_limits_is_refused_or_brought_to_the_nearest(sides: Sides) -> None:
    sides.right.driver.chosen = {"min_ttl": Limit(60, "chosen"), "max_ttl": Limit(86_400, "chosen")}
    write(sides.source, [record("low", "A", "192.0.2.1", 0), record("high", "A", "192.0.2.2", 999_999)])

    refused = sides.migration().plan()
    accepted = sides.move(degrade={"ttl"})
    again = sides.move(degrade={"ttl"})
    verified = sides.migration(degrade={"ttl"}).verify()

    assert set(troubles(refused).values()) == {Trouble.REFUSED}
    assert losses(refused)[("ttl", False)] == 1
    assert losses(accepted)[("ttl", True)] == 1
    assert (sides.target.get("low", "A").ttl, sides.target.get("high", "A").ttl) == (60, 86_400)
    assert (again.changed, verified.complete) == (0, True)


def test_routing_is_refused_or_given_up_for_a_plain_set_with_all_values(sides: Sides) -> None:
    write(
        sides.source,
        [
            routed("one", ["192.0.2.1"], weight=1),
            routed("two", ["192.0.2.1", "192.0.2.2"], set_id="a", weight=1),
            routed("two", ["192.0.2.2", "192.0.2.3"], set_id="b", weight=9),
        ],
    )

    refused = sides.migration().plan()
    accepted = sides.move(degrade={"policy"})
    again = sides.move(degrade={"policy"})

    assert troubles(refused) == {
        "one.shop.example. A": Trouble.REFUSED,
        "two.shop.example. A 'a'": Trouble.REFUSED,
        "two.shop.example. A 'b'": Trouble.REFUSED,
    }
    assert "degrade 'policy'" in reasons(refused)["one.shop.example. A"]
    assert accepted.complete
    assert set(sides.target.get("two", "A").texts) == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
    assert sides.target.get("two", "A").policy is None
    assert again.changed == 0
    assert sides.migration(degrade={"policy"}).verify().complete


def test_routed_cnames_have_no_plain_set_that_holds_both(sides: Sides) -> None:
    write(
        sides.source,
        [routed("two", [f"{name}.example."], "CNAME", set_id=name, weight=1) for name in ("a", "b")],
    )

    report = sides.migration(degrade={"policy"}).plan()

    assert troubles(report) == {"two.shop.example. CNAME": Trouble.REFUSED}
    assert "there can be only one CNAME" in reasons(report)["two.shop.example. CNAME"]


def test_a_record_set_that_is_switched_off_is_never_switched_on(sides: Sides) -> None:
    write(sides.source, [routed("off", ["192.0.2.1"], records=[{"disabled": True}])])

    report = sides.migration(degrade={"policy", "alias"}).plan()

    assert "would switch it on" in reasons(report)["off.shop.example. A"]


def test_an_alias_is_refused_and_its_addresses_are_written_only_where_somebody_can_be_asked(sides: Sides) -> None:
    write(sides.source, [routed("@", target="lb.example.")])

    refused = sides.migration(degrade={"policy"}).plan()
    nobody = sides.migration(degrade={"alias"}).plan()

    assert "it is an alias of aws" in reasons(refused)["shop.example. A"]
    assert "its addresses cannot be asked for" in reasons(nobody)["shop.example. A"]


def test_the_same_provider_gets_its_own_routing(sides: Sides) -> None:
    sides.right.driver.provider_name = "aws"
    write(sides.source, [routed("two", ["192.0.2.1"], set_id="a", weight=1), routed("alias", target="lb")])

    report = sides.move()

    assert report.complete
    assert sides.is_equal


def test_a_target_that_cannot_make_zones_needs_one(sides: Sides) -> None:
    sides.fill(1)
    sides.right.driver.chosen = {"zones": False}

    report = sides.move()

    assert "make it there first" in report.resources[0].refused[0]


def test_a_source_without_the_zone_is_refused(sides: Sides) -> None:
    Dns(sides.left.driver).delete(ZONE)

    assert sides.move().resources[0].refused == (f"the source has no zone {ZONE}",)


# guards


@pytest.mark.parametrize(
    ("there", "changed", "options", "stopped"),
    [
        (9, 9, {}, False),
        (10, 3, {}, False),
        (10, 4, {}, True),
        (100, 30, {}, False),
        (100, 31, {}, True),
        (100, 31, {"change_share": 0.31}, False),
        (100, 100, {"change_share": 1.0}, False),
        (100, 31, {"change_limit": 31}, False),
        (100, 31, {"change_limit": 30}, True),
        (9, 2, {"change_limit": 1}, True),
    ],
)
def test_much_of_a_zone_is_not_replaced_without_being_allowed(
    sides: Sides, there: int, changed: int, options: dict[str, Any], *, stopped: bool
) -> None:
    sides.fill(there)
    sides.move()
    for number in range(changed):
        sides.source.set(f"host-{number:05}", "A", "192.0.2.1")
    sides.right.driver.calls.clear()

    plan = sides.migration(**options).plan()

    assert bool(plan.resources[0].refused) is stopped
    if stopped:
        with pytest.raises(MigrationError, match=f"{changed} of the {there} record sets that the target has"):
            sides.move(**options)
        assert sides.right.driver.calls == []
    else:
        assert sides.move(**options).changed == changed


def test_deletions_count_for_the_guard(sides: Sides) -> None:
    sides.fill(20)
    sides.move()
    for number in range(7):
        sides.source.delete(f"host-{number:05}", "A")

    with pytest.raises(MigrationError, match="7 of the 20"):
        sides.move(prune=True)

    assert sides.move(prune=True, change_share=0.35).changed == 7


def test_new_record_sets_do_not_count_for_the_guard(sides: Sides) -> None:
    target = sides.make_target()
    write(target, [record(f"theirs-{number}", "A", "192.0.2.1") for number in range(20)])
    sides.fill(200)

    assert sides.move().changed == 200


@pytest.mark.parametrize(
    ("there", "coming", "granted", "stopped", "asked"),
    [
        (2, 18, None, False, 0),
        (3, 18, None, True, 1),
        (3, 18, 21, False, 1),
        (3, 19, 21, True, 1),
        (20, 1, None, True, 1),
        (20, 0, None, False, 0),
    ],
)
def test_what_a_zone_has_no_room_for_is_refused_in_the_plan(
    sides: Sides, there: int, coming: int, granted: int | None, *, stopped: bool, asked: int
) -> None:
    target = sides.make_target()
    write(target, [record(f"theirs-{number}", "A", "192.0.2.1") for number in range(there - 2)])
    sides.fill(coming)
    sides.right.driver.chosen["max_record_sets"] = Limit(20, "chosen")
    sides.right.driver.granted = granted
    plan = sides.migration().plan()
    assert sides.right.driver.asked == asked
    if stopped:
        limit = f"{granted} (asked for)" if granted else "20 (chosen)"
        told = f"the target's zone would have {there + coming} record sets, and may have {limit}"
        assert plan.resources[0].refused == (told,)
        with pytest.raises(MigrationError, match="may have"):
            sides.move()
        assert len(list(target.records())) == there
    else:
        assert plan.resources[0].refused == ()
        assert sides.move().changed == coming


def test_room_is_made_by_what_is_deleted(sides: Sides) -> None:
    sides.fill(18)
    sides.right.driver.chosen["max_record_sets"] = Limit(20, "chosen")
    sides.move()
    sides.source.delete("host-00000", "A")
    sides.source.set("another", "A", "192.0.2.1")
    with pytest.raises(MigrationError, match="21 record sets, and may have 20"):
        sides.move()
    assert sides.move(prune=True).changed == 2


def test_a_zone_that_is_to_be_made_is_measured_by_the_usual_limit(sides: Sides) -> None:
    sides.fill(19)
    sides.right.driver.chosen["max_record_sets"] = Limit(20, "chosen")
    sides.right.driver.granted = 100
    (told,) = sides.migration().plan().resources[0].refused
    assert told.startswith("the target's zone would have 21 record sets, and may have 20 (chosen)")
    assert "make the zone first" in told
    sides.make_target()
    assert sides.move().changed == 19


# batches


def test_a_bad_record_set_is_named_and_the_others_go_on(sides: Sides, world_class: Any) -> None:
    sides.fill(400)
    bad = {f"host-{number:05}.shop.example." for number in (0, 57, 399)}

    def refuse(changes: tuple[RecordChange, ...]) -> None:
        if any(change.key.name in bad for change in changes):
            raise world_class.fault(InvalidArgument, "one of them is not liked")

    sides.right.driver.before = refuse
    report = sides.move()
    found = {named.key.split()[0]: named.trouble for named in report.resources[0].named}
    sides.right.driver.before = lambda _: None
    again = sides.move()

    assert found == dict.fromkeys(bad, Trouble.FAILED)
    assert "one of them is not liked" in report.resources[0].named[0].reason
    assert report.changed == 397
    assert len(sides.right.driver.calls) < 40
    assert (again.changed, again.complete) == (3, True)


def test_a_swap_that_is_refused_is_never_done_by_halves(sides: Sides, world_class: Any) -> None:
    write(sides.source, [record("a", "CNAME", "x.example."), record("b", "A", "192.0.2.1")])
    sides.move()
    sides.source.change(sides.source.diff([record("a", "A", "192.0.2.2"), record("b", "A", "192.0.2.9")]))

    def refuse(changes: tuple[RecordChange, ...]) -> None:
        if any(change.key.name.startswith("a.") for change in changes):
            raise world_class.fault(InvalidArgument)

    sides.right.driver.before = refuse
    report = sides.move(prune=True)

    assert set(troubles(report)) == {"a.shop.example. A", "a.shop.example. CNAME"}
    assert sides.target.exists("a", "CNAME")
    assert sides.target.get("b", "A").texts == ("192.0.2.9",)


@pytest.mark.parametrize("error", [Throttled, Timeout, Unavailable])
@pytest.mark.parametrize("executed", [False, True], ids=["before", "after"])
def test_a_call_whose_answer_is_lost_is_made_again_and_nothing_twice(
    sides: Sides, world_class: Any, error: Any, *, executed: bool
) -> None:
    sides.fill(2500)
    faults = iter([error("lost", provider="memory"), None, error("lost", provider="memory")])

    def fail(_: tuple[RecordChange, ...]) -> None:
        if (found := next(faults, None)) is not None:
            raise world_class.fault(type(found))

    if executed:
        sides.right.driver.after = fail
    else:
        sides.right.driver.before = fail
    report = sides.move()

    assert (report.complete, report.changed) == (True, 2500)
    assert sides.is_equal


def test_somebody_elses_change_in_the_middle_is_never_overwritten(sides: Sides) -> None:
    sides.fill(10)
    sides.make_target()
    target, hooked = sides.target, list[int]()

    def meddle(_: tuple[RecordChange, ...]) -> None:
        if not hooked:
            hooked.append(1)
            target.set("host-00004", "A", "192.0.2.77")

    sides.right.driver.before = meddle
    report = sides.move()

    assert troubles(report) == {"host-00004.shop.example. A": Trouble.FAILED}
    assert target.get("host-00004", "A").texts == ("192.0.2.77",)
    assert report.changed == 9


def test_a_provider_that_says_yes_and_keeps_something_else_is_found_out(sides: Sides) -> None:
    sides.fill(10)
    sides.make_target()
    lost = record("host-00003", "A", "10.0.0.3")

    def forget(_: tuple[RecordChange, ...]) -> None:
        sides.right.driver._zones[ZONE].pop(lost.key, None)

    sides.right.driver.after = forget
    report = sides.move()
    sides.right.driver.after = lambda _: None
    again = sides.move()

    assert troubles(report) == {str(lost.key): Trouble.FAILED}
    assert "keeps something else: it is missing" in reasons(report)[str(lost.key)]
    assert not report.complete
    assert (again.changed, again.complete) == (1, True)


def test_what_says_more_of_the_account_than_of_a_record_ends_the_call_and_is_not_bisected(
    sides: Sides, world_class: Any
) -> None:
    sides.fill(100)
    sides.make_target()
    tries: list[int] = []

    def deny(changes: tuple[RecordChange, ...]) -> None:
        tries.append(len(changes))
        raise world_class.fault(PermissionDenied)

    sides.right.driver.before = deny
    report = sides.move()

    assert tries == [100]
    assert set(troubles(report).values()) == {Trouble.FAILED}


def test_a_provider_whose_calls_are_no_whole_is_called_in_small_parts(sides: Sides) -> None:
    sides.right.driver.chosen = {"atomic_batch": False, "max_batch": None}
    sides.fill(505)

    report = sides.move(concurrency=4)

    assert report.complete
    assert sorted(map(len, sides.right.driver.calls)) == [5] + [50] * 10
    assert sides.is_equal


def test_an_interrupt_lets_the_call_under_way_end_and_the_next_run_goes_on(sides: Sides) -> None:
    sides.fill(3000)
    sides.make_target()

    class Interrupting:
        def __init__(self) -> None:
            self.seen = 0

    state = Interrupting()

    def interrupt(_: tuple[RecordChange, ...]) -> None:
        state.seen += 1
        if state.seen == 2:
            raise KeyboardInterrupt

    sides.right.driver.after = interrupt
    with pytest.raises(KeyboardInterrupt):
        sides.move(concurrency=1)  # else the third call may have begun
    written = sum(map(len, sides.right.driver.calls))
    sides.right.driver.after = lambda _: None
    report = sides.move()

    assert 0 < written < 3000
    assert report.complete
    assert sides.is_equal


def test_calls_keep_the_users_limit_of_requests(sides: Sides) -> None:
    sides.fill(20)

    assert sides.move(requests=10_000.0).complete
    assert sides.is_equal


def test_two_moves_one_after_the_other_from_two_sources_keep_apart(sides: Sides) -> None:
    sides.fill(3)
    sides.move()
    write(sides.target, [record("theirs", "A", "192.0.2.1")])

    assert sides.move().changed == 0
    assert sides.target.exists("theirs", "A")


# estimates


@pytest.mark.parametrize(
    ("provider", "sets", "seconds", "bound"),
    [
        ("azure", 10_000, 3000.0, "200 record sets a minute to new"),
        ("aws", 10_000, 2.0, "5 calls a second to new (an account)"),
        ("memory", 100, None, ""),
    ],
)
def test_the_plan_says_how_long_the_targets_documented_rates_make_it(
    sides: Sides, provider: str, sets: int, seconds: float | None, bound: str
) -> None:
    sides.right.name = provider
    if provider == "azure":
        sides.right.driver.chosen = {"writes_per_minute": Limit(200, "as Azure")}
    sides.fill(sets)

    estimate = sides.migration().plan().resources[0].estimate

    assert estimate is not None
    assert estimate.seconds == pytest.approx(seconds)
    assert estimate.bound == bound
    assert estimate.target.requests["write"] == -(-sets // 1000)


# kills


KILLED = """
import os, pickle, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import test_dns
from shiftable.dns import Dns
folder, number, where = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sides = test_dns.Sides(folder)
sides.left.driver._zones = pickle.loads((folder / "left").read_bytes())
sides.right.driver._zones = pickle.loads((folder / "right").read_bytes())
seen = 0

def stop(_):
    global seen
    seen += 1
    if seen == number:
        (folder / "right").write_bytes(pickle.dumps(sides.right.driver._zones))
        os.kill(os.getpid(), 9)

setattr(sides.right.driver, where, stop)
sides.right.driver.chosen = {{"max_batch": test_dns.Limit(400, "chosen")}}
sides.move()
(folder / "right").write_bytes(pickle.dumps(sides.right.driver._zones))
"""


def test_a_move_of_ten_thousand_records_killed_anywhere_ends_equal(sides: Sides, tmp_path: Path) -> None:
    import pickle

    sides.fill(10_000)
    sides.make_target()
    (tmp_path / "left").write_bytes(pickle.dumps(sides.left.driver._zones))
    (tmp_path / "right").write_bytes(pickle.dumps(sides.right.driver._zones))
    script = KILLED.format(here=str(Path(__file__).parent))
    ends, counts = [], []

    for number, where in ((1, "before"), (1, "after"), (7, "before"), (9, "after"), (100, "after")):
        command = [sys.executable, "-c", script, str(tmp_path), str(number), where]
        ends.append(subprocess.run(command, check=False, timeout=600).returncode)
        sides.right.driver._zones = pickle.loads((tmp_path / "right").read_bytes())  # noqa: S301  our own
        counts.append(len(sides.right.driver._zones[ZONE]) - 2)
    again = sides.move()

    assert ends == [-9, -9, -9, -9, 0]
    assert counts == [0, 400, 2800, 6400, 10_000]
    assert (again.complete, again.changed) == (True, 0)
    assert sides.is_equal


def test_a_source_that_changed_after_a_kill_is_moved_as_it_is_now(sides: Sides) -> None:
    sides.fill(10)
    sides.make_target()

    def die(_: tuple[RecordChange, ...]) -> None:
        raise SystemExit

    sides.right.driver.after = die
    with pytest.raises(SystemExit):
        sides.move()
    sides.right.driver.after = lambda _: None
    sides.source.set("host-00001", "A", "192.0.2.1")
    report = sides.move()

    assert report.complete
    assert sides.is_equal


def test_the_precondition_is_the_record_set_that_was_seen(sides: Sides) -> None:
    sides.fill(1)
    sides.make_target()
    sides.move()
    sides.source.set("host-00000", "A", "192.0.2.1")
    plan = sides.migration().plan()
    sides.target.set("host-00000", "A", "192.0.2.2")

    with pytest.raises(MigrationError, match="out of date"):
        sides.migration().apply(plan)
    assert isinstance(PreconditionFailed("x"), Exception)
