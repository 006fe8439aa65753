"""Moving fleets: what is planned, told and refused; what arrives, whatever fails; what is found afterwards."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.compute import ALIASES, FLEET_LABEL, Choice, Compute, FleetSpec, MachineInfo, Rule, Size
from shiftable.errors import AlreadyExists, Fault, MigrationError, QuotaExceeded, Unavailable
from shiftable.features import Limit
from shiftable.memory._faults import MemoryFault
from shiftable.migrate import FACETS, Action, Plan, Trouble
from shiftable.paging import Page

from .fleets import KEY, WEB, Fleets

CANARY = "canary-of-user-data"


@pytest.fixture
def fleets(tmp_path: Path) -> Fleets:
    found = Fleets(tmp_path)
    found.make()
    return found


def with_spec(folder: Path, **more: Any) -> Fleets:
    """Return the two sides with another declaration, made at the source."""
    found = Fleets(folder, attrs.evolve(WEB, **more))
    found.make()
    return found


def losses(result: Any) -> dict[str, str]:
    """Return what is told by facet; of several the texts one below the other."""
    told: dict[str, str] = {}
    for loss in result.resources[0].losses:
        told[loss.facet] = "\n".join([*told.get(loss.facet, "").splitlines(), loss.detail])
    return told


def accepted(result: Any) -> set[str]:
    return {loss.facet for loss in result.resources[0].losses if loss.accepted}


def refused(result: Any) -> tuple[str, ...]:
    found: tuple[str, ...] = result.resources[0].refused
    return found


def reasons(result: Any) -> dict[str, tuple[Trouble, str]]:
    return {named.key: (named.trouble, named.reason) for named in result.resources[0].named}


def done(result: Any) -> dict[Action, int]:
    found = result.resources[0]
    tallies = found.actions if hasattr(found, "actions") else found.done
    return {action: tally.count for action, tally in tallies.items()}


def names(machines: list[MachineInfo]) -> list[str]:
    return [machine.name for machine in machines]


# what arrives


def test_the_same_machines_are_made_and_the_source_is_left_as_it_is(fleets: Fleets) -> None:
    before, writes = fleets.here(), list(fleets.left.calls)

    report = fleets.move()

    assert report.complete
    assert {Action.CREATE: 3} == done(report)
    there = fleets.there()
    assert ["web-0", "web-1", "web-2"] == names(there)
    assert {"running"} == {machine.state for machine in there}
    assert {("debian-12", 2, 4 * 2**30)} == {(each.image, each.cpus, each.memory) for each in there}
    assert before == fleets.here()
    assert writes == fleets.left.calls


def test_a_second_run_does_nothing(fleets: Fleets) -> None:
    fleets.move()
    calls = list(fleets.right.calls)

    report = fleets.move()

    assert (True, 0) == (report.complete, report.changed)
    assert {Action.UNCHANGED: 3} == done(report)
    assert calls == fleets.right.calls


def test_a_plan_changes_nothing_and_is_the_same_again(fleets: Fleets) -> None:
    calls = list(fleets.right.calls), list(fleets.left.calls)

    first, second = fleets.plan(), fleets.plan()

    assert first.complete
    assert first.to_json() == second.to_json()
    assert {Action.CREATE: 3} == done(first)
    assert ('create compute web (image: "debian-12", cpus: 2, memory_gib: 4, count: 3)',) == first.resources[0].changes
    assert calls == (fleets.right.calls, fleets.left.calls)


def test_a_saved_plan_is_carried_out_and_refused_when_the_world_is_another(fleets: Fleets) -> None:
    plan = Plan.from_json(fleets.plan().to_json())
    machine = fleets.old.fleet("web").machine("web-1")
    fleets.old.fleet("web").attach("web-1", fleets.old.create_disk("data", 100).id)

    with pytest.raises(MigrationError, match="out of date, nothing was moved: compute.web: 'web-1' changed"):
        fleets.migration().apply(plan)

    fleets.old.fleet("web").detach("web-1", machine.info().disks[0])
    assert [] == fleets.there()
    assert fleets.migration().apply(plan).complete
    assert fleets.migration().apply(plan).complete  # what it wrote itself is no change of the world


def test_a_plan_is_for_its_sizes_and_prices(fleets: Fleets) -> None:
    plan, real = fleets.plan(), fleets.right.sizes

    def dearer(**page: Any) -> Any:
        found = real(**page)
        items = (attrs.evolve(each, price=(each.price or Decimal(0)) + Decimal("0.01")) for each in found.items)
        return attrs.evolve(found, items=tuple(items))

    fleets.right.sizes = dearer  # type: ignore[method-assign]
    with pytest.raises(MigrationError, match="out of date, nothing was moved"):
        fleets.migration().apply(plan)
    assert [] == fleets.there()
    assert fleets.move().complete
    fleets.right.sizes = real  # type: ignore[method-assign]
    assert (True, 0) == (fleets.move().complete, fleets.move().changed)


def test_machines_keep_their_names_and_new_ones_get_the_lowest_that_are_free(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path, count=4)
    fleets.old.fleet("web").machine("web-1").delete()
    fleets.old.fleet("web").machine("web-0").delete()

    assert fleets.move(change_limit=4).complete

    assert ["web-0", "web-1", "web-2", "web-3"] == names(fleets.there())

    other = Fleets(tmp_path / "other", attrs.evolve(WEB, count=2))
    other.make(attrs.evolve(WEB, count=4))
    other.old.fleet("web").machine("web-0").delete()
    assert other.move().complete
    assert ["web-1", "web-2"] == names(other.there())


def test_user_data_and_keys_are_the_declared_ones_and_no_plan_or_journal_has_them(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path, user_data_text=f"#cloud-config\npassword: {CANARY}\n", count=1)
    plan = fleets.plan()
    report = fleets.move()

    assert report.complete
    assert CANARY in (fleets.right.user_data_of["web-0"] or b"").decode()
    assert CANARY not in plan.to_json() + report.to_json() + repr(plan)
    for path in fleets.state_dir.iterdir():
        assert CANARY.encode() not in path.read_bytes(), path
    assert "new machines get the 44 bytes that are declared" in losses(plan)["user_data"]


def test_user_data_of_a_file_makes_the_same_plan_wherever_the_file_lies(tmp_path: Path) -> None:
    plans = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "init.yaml").write_text("#cloud-config\n")
        plans.append(with_spec(folder, user_data=folder / "init.yaml", count=1).plan().resources[0].spec)
    assert plans[0] == plans[1]
    assert str(tmp_path) not in plans[0]


def test_what_is_told_for_the_target_alone_counts_there(fleets: Fleets) -> None:
    wanted = attrs.evolve(WEB, labels={"from": "target"})
    fleets.spec = lambda _declared, label: {"new": wanted, "old": WEB}[label]  # type: ignore[attr-defined]

    assert fleets.move().complete

    assert {"target"} == {machine.labels["from"] for machine in fleets.there()}


# what a plan tells


def test_sizes_and_prices_of_both_sides_are_told_with_their_lists(fleets: Fleets) -> None:
    sizes = {size.name: size for size in fleets.old.sizes()}
    real = fleets.right.sizes

    def dearer(**page: Any) -> Any:
        found = real(**page)
        return attrs.evolve(
            found, items=tuple(attrs.evolve(each, price=(each.price or Decimal(0)) * 2) for each in found.items)
        )

    fleets.right.sizes = dearer  # type: ignore[method-assign]
    month = sizes["m2-4"].price or Decimal(0)

    told = losses(fleets.plan())

    assert told["size"].startswith("3 of m2-4 (2 CPUs, 4 GiB) → 3 of m2-4 (2 CPUs, 4 GiB): the cheapest of ")
    here, there = 3 * 730 * month, 6 * 730 * month
    assert (
        f"a month: {here:,.2f} USD at the source, {there:,.2f} USD at the target, {here:,.2f} USD more; machines alone,"
        " without disks and traffic (source: chosen; target: chosen)"
    ) == told["price"]


def test_a_machine_made_to_measure_is_in_no_list_and_has_a_price(fleets: Fleets) -> None:
    real = fleets.left.sizes
    fleets.left.sizes = lambda **page: attrs.evolve(  # type: ignore[method-assign]
        real(**page), items=tuple(each for each in real(**page).items if each.name != "m2-4")
    )
    fleets.left.choose = lambda _: Choice(Size(name="m2-4", cpus=2, memory=4 * 2**30), "made to measure", Decimal(1))  # type: ignore[method-assign]
    assert losses(fleets.plan())["price"].startswith("a month: 2,190.00 USD at the source, 219.00 USD at the target")


def test_of_spot_machines_the_list_is_not_the_price(tmp_path: Path) -> None:
    assert "spot machines cost less than these" in losses(with_spec(tmp_path, spot=True).plan())["price"]


def test_a_price_that_is_not_known_is_never_nothing(fleets: Fleets) -> None:
    fleets.left.chosen |= {"prices": False, "price_list": None}
    told = losses(fleets.plan())
    assert told["price"].startswith("a month: an unknown price at the source, 219.00 USD at the target; machines alone")
    assert told["price"].endswith("(target: chosen)")


def test_what_the_source_has_become_is_told_and_what_is_declared_moves(tmp_path: Path) -> None:
    fleets = Fleets(tmp_path, attrs.evolve(WEB, count=1))
    fleets.make(attrs.evolve(WEB, image="debian-13", disk_gib=50, open_ports=(22,), cpus=8, memory_gib=16, count=2))

    plan = fleets.plan()
    fleets.move()

    told = losses(plan)
    assert "the source has 2 machines, and 1 are declared" in told["drift"]
    assert "the source's image is debian-13, and the target's will be debian-12" in told["drift"]
    assert "the source's disks have 50 GiB, and 20 are declared" in told["drift"]
    assert "lets in 22/tcp from 0.0.0.0/0, ::/0, which is not declared" in told["drift"]
    assert "that is less than the source has" in told["size"]
    (there,) = fleets.there()
    assert ("debian-12", 2, 20, ()) == (there.image, there.cpus, there.disk_gib, there.firewall)


def test_disks_addresses_and_contents_stay_and_that_is_said(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path, public_ip=True, ssh_keys=())
    address = fleets.here()[0].public_addresses[0]
    for name, size in (("logs", 100), ("data", 2000)):
        fleets.old.fleet("web").attach("web-1", fleets.old.create_disk(name, size).id)

    told = losses(fleets.plan())

    assert [
        "web-1 has logs, 100 GiB: it is not made at the target, and its content does not move",
        "web-1 has data, 2000 GiB: it is not made at the target, and its content does not move",
    ] == told["disks"].splitlines()
    assert f"web-0 {address}" in told["addresses"]
    assert "does not move" in told["contents"]
    assert "nobody will be able to log in" in told["ssh_keys"]


def test_fleets_that_nobody_declares_are_told_as_a_declaration_would_say_them(fleets: Fleets) -> None:
    fleets.make(FleetSpec(name="api", image="ubuntu-24.04", cpus=4, memory_gib=8, count=2))

    assert (
        "api (2 machines of ubuntu-24.04, 4 CPUs, 8 GiB): on the source, and not declared: it stays; [compute.api]"
        " would move it"
    ) == losses(fleets.plan())["fleets"]


def test_a_label_that_somebody_has_misused_is_told_and_hinders_nobody(fleets: Fleets) -> None:
    fleets.make(FleetSpec(name="api", image="debian-12", cpus=1, memory_gib=1))
    fleets.left.told = lambda machine: attrs.evolve(machine, fleet="Not a fleet") if machine.fleet == "api" else machine
    told = losses(fleets.plan())["fleets"]
    assert "Not a fleet: on the source, and of a name that no fleet could have: it stays" == told


def test_a_zone_is_the_sources_and_is_dropped_or_mapped(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path, zone="eu-central-1a")

    assert "eu-central-1a: a name of the source's; the target chooses" in losses(fleets.plan())["zone"]
    assert fleets.move(equivalents={"eu-central-1a": "b"}).complete
    assert {"b"} == {machine.zone for machine in fleets.there()}


def test_zones_that_machines_take_in_turn_are_mapped_each(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path, zones=("x", "y"))
    assert 2 == len(losses(fleets.plan())["zone"].splitlines())
    assert fleets.move(equivalents={"x": "b", "y": "c"}).complete
    assert ["b", "c", "b"] == [machine.zone for machine in fleets.there()]
    assert fleets.verify(equivalents={"x": "b", "y": "c"}).complete


# what is refused, and given up by name


@pytest.mark.parametrize(
    ("facet", "feature", "declared", "after"),
    [
        ("firewall", "open_ports", {"open_ports": (22, 443), "allow_from": ("192.0.2.0/24",)}, {"firewall": ()}),
        ("firewall", "open_ports", {"rules": (Rule(port=53, protocol="udp"),)}, {"firewall": ()}),
        ("spot", "spot", {"spot": True}, {"spot": False}),
        ("placement", "placements", {"placement": "spread"}, {}),
        ("public_ip", "public_ip", {"public_ip": True}, {"public_addresses": ()}),
        ("user_data", "user_data", {"user_data_text": "#!/bin/sh\n"}, {}),
        ("network", "network", {"network": "vpc-1"}, {}),
        ("identity", "identity", {"identity": "role-of-web"}, {}),
    ],
)
@pytest.mark.parametrize("side", ["names", "lacks"])
def test_what_the_target_cannot_do_is_refused_unless_it_is_given_up_by_name(
    tmp_path: Path, facet: str, feature: str, declared: dict[str, Any], after: dict[str, Any], side: str
) -> None:
    if side == "names" and facet not in {"network", "identity"}:
        side = "lacks"
    fleets = with_spec(tmp_path, **declared)
    if side == "lacks":
        fleets.right.chosen |= {feature: frozenset() if feature == "placements" else False}

    plan = fleets.plan()

    assert not plan.complete
    (why,) = refused(plan)
    assert f"--degrade {facet}" in why
    assert facet in FACETS["compute"]
    assert not fleets.move().complete
    assert [] == fleets.there()

    report = fleets.move(degrade={facet})

    assert report.complete, report
    assert facet in accepted(report)
    for name, value in after.items():
        assert {value} == {getattr(machine, name) for machine in fleets.there()}
    assert fleets.verify(degrade={facet}).complete


def test_what_is_not_a_loss_of_one_side_is_not_asked_for(tmp_path: Path) -> None:
    fleets = Fleets(tmp_path)
    fleets.make()
    fleets.right.chosen |= dict.fromkeys(
        ("open_ports", "spot", "public_ip", "user_data", "network", "identity", "gpus", "zones", "disks"), False
    )
    plan = fleets.plan()
    assert plan.complete
    assert accepted(plan) == set()
    assert fleets.move().complete


def test_an_image_of_the_sources_own_is_refused_with_what_to_do_or_replaced(tmp_path: Path) -> None:
    fleets = Fleets(tmp_path)
    fleets.make(attrs.evolve(WEB, count=1))
    golden = fleets.old.fleet("web").machine("web-0").snapshot("shop-golden").id
    fleets.old.delete("web")
    fleets.declaration = attrs.evolve(WEB, image=golden, count=2)
    fleets.make()

    (why,) = refused(fleets.plan())
    report = fleets.move(equivalents={golden: "debian-12"})

    assert "known to memory alone" in why
    assert f"--map {golden}=debian-12" in why
    assert report.complete
    assert {"debian-12"} == {machine.image for machine in fleets.there()}
    assert "debian-12 takes its place" in losses(report)["image"]
    assert fleets.verify(equivalents={golden: "debian-12"}).complete


def test_a_plan_is_for_its_names(fleets: Fleets) -> None:
    plan = fleets.plan(equivalents={"debian-12": "debian-13"})
    with pytest.raises(MigrationError, match="out of date"):
        fleets.migration().apply(plan)
    assert fleets.migration(equivalents={"debian-12": "debian-13"}).apply(plan).complete
    assert {"debian-13"} == {machine.image for machine in fleets.there()}


def test_an_alias_that_the_target_has_not_is_refused(fleets: Fleets) -> None:
    fleets.right.images = lambda **_: Page(())  # type: ignore[method-assign]
    (why,) = refused(fleets.plan())
    assert "the target has no image debian-12 for x86_64" in why
    assert "debian-12" in ALIASES


@pytest.mark.parametrize(
    ("declared", "features", "why"),
    [
        ({"arch": "arm64"}, {"arches": frozenset({"x86_64"})}, "the target has no machines of arm64"),
        ({"gpus": 1, "cpus": 1, "memory_gib": 1}, {"gpus": False}, "the target has no GPUs"),
        ({}, {"create": False}, "the target has no way to make machines"),
        ({}, {"max_name": Limit(2, "chosen")}, "the name has 3 characters; the limit is 2"),
        ({"user_data_text": "x" * 5000}, {"max_user_data": Limit(4096, "chosen")}, "the limit is 4,096"),
    ],
)
def test_what_nothing_can_mend_is_refused(
    tmp_path: Path, declared: dict[str, Any], features: dict[str, Any], why: str
) -> None:
    fleets = with_spec(tmp_path, **declared)
    fleets.right.chosen |= features
    everything = {*FACETS["compute"]}
    assert any(why in each for each in refused(fleets.plan(degrade=everything)))
    assert not fleets.move(degrade=everything).complete
    assert [] == fleets.there()


def test_a_size_that_the_target_does_not_sell_is_refused(fleets: Fleets) -> None:
    real = fleets.right.sizes
    fleets.right.sizes = lambda **page: attrs.evolve(  # type: ignore[method-assign]
        real(**page), items=tuple(each for each in real(**page).items if each.cpus < 2)
    )
    (why,) = refused(fleets.plan())
    assert "no size has 2 CPUs, 4 GiB of x86_64; the largest is m1-8" in why


def test_labels_are_judged_one_by_one_and_given_up_by_name(tmp_path: Path) -> None:
    labels = {"team": "payments", "Cost Center": "4711", "z1": "1", "z2": "2", "z3": "3"}
    fleets = with_spec(tmp_path, labels=labels)
    fleets.right.bad_labels = frozenset({"Cost Center"})
    fleets.right.chosen |= {"max_labels": Limit(4, "chosen")}

    found = refused(fleets.plan())
    report = fleets.move(degrade={"labels"})

    assert ["the label Cost Center", "the label z3"] == [why.partition(":")[0] for why in found]
    assert report.complete
    assert {"team": "payments", "z1": "1", "z2": "2", FLEET_LABEL: "web"} == fleets.there()[0].labels
    assert fleets.verify(degrade={"labels"}).complete


# labels that change at the source


def labels(machines: list[MachineInfo]) -> list[dict[str, str]]:
    return [machine.user_labels for machine in machines]


def test_labels_that_nobody_declared_come_along_with_each_machine(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path, labels={"team": "payments"})
    fleets.old.fleet("web").machine("web-1").relabel({"note": "x", "team": "other"})

    told = losses(fleets.plan())

    assert "note: not declared, and on the source's machines: they come along" == told["labels"]
    assert "the source's machines do not have the declared labels team; the target's will" in told["drift"]
    assert fleets.move().complete
    declared = {"team": "payments"}
    assert [declared, {**declared, "note": "x"}, declared] == labels(fleets.there())
    assert fleets.verify().complete


def test_labels_that_change_later_arrive_with_the_next_run_on_the_same_machines(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path, labels={"team": "payments"})
    assert fleets.move().complete
    before = [machine.id for machine in fleets.there()]
    fleets.old.fleet("web").relabel({"stage": "live"})
    fleets.old.fleet("web").machine("web-2").relabel({"note": "y"})
    assert {"web-0", "web-1", "web-2"} == {*reasons(fleets.verify())}

    plan = fleets.plan()
    report = fleets.move()

    assert {Action.REPLACE: 3} == done(plan) == done(report)
    assert (True, before) == (report.complete, [machine.id for machine in fleets.there()])
    both = {"team": "payments", "stage": "live"}
    assert [both, both, {**both, "note": "y"}] == labels(fleets.there())
    again = fleets.move()
    assert ({Action.UNCHANGED: 3}, True) == (done(again), fleets.verify().complete)


def test_declared_labels_that_change_arrive_with_the_next_run(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path, labels={"team": "payments", "stage": "test"})
    assert fleets.move().complete
    fleets.declaration = attrs.evolve(fleets.declaration, labels={"team": "data"})

    report = fleets.move()

    assert {Action.REPLACE: 3} == done(report)
    assert report.complete
    assert [{"team": "data", "stage": "test"}] * 3 == labels(fleets.there())


def test_labels_are_changed_once_though_the_first_run_broke_off(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path)
    assert fleets.move().complete
    fleets.old.fleet("web").relabel({"stage": "live"})
    real = fleets.right.relabel

    def broken(id: str, **given: Any) -> None:
        real(id, **given)
        if id == fleets.there()[1].id:
            raise MemoryFault(Fault(Unavailable, "the answer was lost"))

    fleets.right.relabel = broken  # type: ignore[method-assign]
    report = fleets.move()
    assert (False, {"web-1"}) == (report.complete, {*reasons(report)})
    fleets.right.relabel = real  # type: ignore[method-assign]
    assert fleets.move().complete
    assert [{"stage": "live"}] * 3 == labels(fleets.there())
    assert fleets.verify().complete


def test_a_stopped_machine_of_ours_is_labelled_and_started(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path)
    assert fleets.move().complete
    fleets.new.fleet("web").stop()
    fleets.old.fleet("web").relabel({"stage": "live"})
    assert fleets.move().complete
    assert [("running", {"stage": "live"})] * 3 == [(each.state, each.user_labels) for each in fleets.there()]


def test_labels_of_somebody_elses_machine_are_not_changed(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path, labels={"team": "payments"})
    fleets.new.create(attrs.evolve(fleets.declaration, labels={"team": "theirs"})).wait()
    report = fleets.move()
    assert {(Trouble.CONFLICT, "the target's machine: labels are others: team")} == {*reasons(report).values()}
    assert [{"team": "theirs"}] * 3 == labels(fleets.there())


def test_a_target_that_changes_no_labels_says_so(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path)
    fleets.right.chosen |= {"relabel": False}
    assert fleets.move().complete
    fleets.old.fleet("web").machine("web-0").relabel({"stage": "live"})
    report = fleets.move()
    assert {"web-0": (Trouble.CONFLICT, "the target's machine: labels are others: stage")} == reasons(report)
    assert [{}] * 3 == labels(fleets.there())


def test_labels_beside_that_the_target_cannot_keep_are_refused_or_given_up_by_name(tmp_path: Path) -> None:
    fleets = with_spec(tmp_path, labels={"team": "payments"})
    fleets.right.bad_labels = frozenset({"Cost Center"})
    fleets.right.chosen |= {"max_labels": Limit(3, "chosen")}
    fleets.old.fleet("web").relabel({"Cost Center": "4711", "z1": "1", "z2": "2"})

    found = refused(fleets.plan())
    report = fleets.move(degrade={"labels"})

    assert ["the label Cost Center", "the label z2"] == [why.partition(":")[0] for why in found]
    assert all(why.endswith("; --degrade labels gives it up") for why in found)
    assert report.complete
    assert [{"team": "payments", "z1": "1"}] * 3 == labels(fleets.there())
    assert fleets.verify(degrade={"labels"}).complete


def test_user_data_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    fleets = Fleets(tmp_path)
    fleets.make()
    fleets.declaration = attrs.evolve(WEB, user_data=tmp_path / "gone.yaml")
    (why,) = refused(fleets.plan())
    assert "cannot read the user data of fleet 'web'" in why


def test_an_empty_source_is_refused_and_a_fleet_of_none_is_moved_already(tmp_path: Path) -> None:
    empty = Fleets(tmp_path)
    assert ("the source has no machine of the fleet web; shiftable apply makes what is new",) == refused(empty.plan())

    none = Fleets(tmp_path / "none", attrs.evolve(WEB, count=0))
    plan = none.plan()
    assert plan.complete
    assert plan.is_empty
    assert none.move().complete
    assert none.verify().complete
    assert [] == none.right.calls


def test_one_account_under_two_names_is_refused(fleets: Fleets) -> None:
    fleets.new = Compute(fleets.left)
    assert any("they are one account in one region" in why for why in refused(fleets.plan()))


def test_more_machines_than_the_source_has_are_guarded_by_number(tmp_path: Path) -> None:
    fleets = Fleets(tmp_path, attrs.evolve(WEB, count=30))
    fleets.make(attrs.evolve(WEB, count=3))

    plan = fleets.plan()
    assert "30 machines would be made, and a move makes at most as many as the source has, 3" in refused(plan)[0]
    with pytest.raises(MigrationError, match=r"--change-limit.*nothing was done to it"):
        fleets.move()
    with pytest.raises(MigrationError, match="at most 29;"):
        fleets.move(change_limit=29)
    assert [] == fleets.there()
    assert fleets.move(change_limit=30).complete
    assert 30 == len(fleets.there())


def test_250_machines_are_planned_in_few_calls_and_told_in_few_lines(tmp_path: Path) -> None:
    fleets = Fleets(tmp_path, attrs.evolve(WEB, count=250))
    fleets.make()
    fleets.left.listings = fleets.right.listings = 0

    plan = fleets.plan()

    assert {Action.CREATE: 250} == done(plan)
    assert fleets.left.listings <= 6  # three pages of the fleet, three for the names of all fleets
    assert fleets.right.listings == 1
    assert len(plan.resources[0].losses) < 10
    assert fleets.move().complete
    assert 250 == len({machine.name for machine in fleets.there()}) == len(fleets.there())
    assert fleets.verify().complete


# what is there already


def test_machines_that_are_there_and_fit_are_adopted(fleets: Fleets) -> None:
    fleets.new.create(attrs.evolve(WEB, count=2))
    calls = len(fleets.right.calls)

    report = fleets.move()

    assert report.complete
    assert {Action.COMPARE: 2, Action.CREATE: 1} == done(report)
    assert [("create", "web"), ("create_machine", "web-2")] == fleets.right.calls[calls:]


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ({"image": "debian-13"}, "its image is debian-13, and not debian-12"),
        ({"cpus": 1}, "it has 1 CPUs, and not 2"),
        ({"disk_gib": 10}, "it has 10 GiB of disk, and not 20"),
        ({"spot": True}, "its spot is True"),
        ({"open_ports": (22,)}, "its firewall lets in 22/tcp from 0.0.0.0/0, ::/0, and not nobody"),
        ({"public_ip": True}, "it has a public address, which is not wanted"),
    ],
)
def test_machines_that_do_not_fit_are_conflicts_and_stay(fleets: Fleets, there: dict[str, Any], why: str) -> None:
    fleets.new.create(attrs.evolve(WEB, **there))
    calls = list(fleets.right.calls)

    plan, report = fleets.plan(), fleets.move()

    for result in (plan, report):
        assert not result.complete
        assert {"web-0", "web-1", "web-2"} == {*reasons(result)}
        trouble, reason = reasons(result)["web-1"]
        assert trouble is Trouble.CONFLICT
        assert why in reason
    assert calls == fleets.right.calls
    assert why in reasons(fleets.verify())["web-0"][1]


def test_a_stopped_machine_is_started_if_it_is_ours_and_left_alone_if_not(fleets: Fleets) -> None:
    fleets.new.create(attrs.evolve(WEB, count=1))
    fleets.new.fleet("web").stop()
    assert "it is stopped, and not ours; start it" in reasons(fleets.move())["web-0"][1]

    fleets.new.fleet("web").start()
    assert fleets.move().complete
    fleets.new.fleet("web").stop()
    assert fleets.move().complete
    assert {"running"} == {machine.state for machine in fleets.there()}


def test_machines_of_others_in_the_fleet_are_left_alone_and_found_by_verification(fleets: Fleets) -> None:
    fleets.new.create(attrs.evolve(WEB, count=5))

    report, verified = fleets.move(), fleets.verify()

    assert {Action.COMPARE: 3, Action.FOREIGN: 2} == done(report)
    assert 5 == len(fleets.there())
    assert (Trouble.DIFFERS, "the target has 5 machines of the fleet, and 3 are wanted") == reasons(verified)["web"]


def test_fewer_declared_machines_are_stale_and_deleted_only_if_that_is_said(fleets: Fleets) -> None:
    fleets.move()
    fleets.declaration = attrs.evolve(WEB, count=2)

    assert {Action.UNCHANGED: 2, Action.STALE: 1} == done(fleets.move())
    assert 3 == len(fleets.there())
    report = fleets.move(prune=True)

    assert {Action.UNCHANGED: 2, Action.DELETE: 1} == done(report)
    assert ["web-0", "web-1"] == names(fleets.there())
    assert 3 == len(fleets.here())


def test_a_machine_too_many_is_deleted_last_and_stays_if_another_could_not_be_made(fleets: Fleets) -> None:
    fleets.move()
    fleets.declaration = attrs.evolve(WEB, count=2)
    gone = next(machine for machine in fleets.there() if machine.name == "web-1")
    fleets.right.delete_machine(gone.id)

    def no_room(operation: str, _name: str) -> None:
        if operation == "create_machine":
            raise MemoryFault(Fault(QuotaExceeded, "no room"))

    fleets.right.before = no_room
    failed = fleets.move(prune=True)
    left = names(fleets.there())
    fleets.right.before = lambda *_: None
    fleets.right.calls.clear()
    healed = fleets.move(prune=True)

    assert Trouble.FAILED == reasons(failed)["web-1"][0]
    assert "not deleted, as 1 item could not be copied" in reasons(failed)["web-2"][1]
    assert ["web-0", "web-2"] == left
    assert healed.complete
    assert ["create_machine", "delete_machine"] == [operation for operation, _ in fleets.right.calls][-2:]
    assert ["web-0", "web-1"] == names(fleets.there())


def test_two_machines_of_one_name_are_a_conflict(fleets: Fleets) -> None:
    fleets.new.create(attrs.evolve(WEB, count=2))
    fleets.right.told = lambda machine: attrs.evolve(machine, name="web-0")
    assert (Trouble.CONFLICT, "the target has several machines of that name; delete those that are too many") == (
        reasons(fleets.move())["web-0"]
    )


# what goes wrong


def fault(error: Any, message: str = "as the test says") -> MemoryFault:
    return MemoryFault(Fault(error, message))


def test_a_quota_halfway_names_the_rest_and_the_next_run_goes_on(tmp_path: Path) -> None:
    fleets = Fleets(tmp_path, attrs.evolve(WEB, count=5), quota=6)
    fleets.make()

    report = fleets.move(concurrency=1)

    assert not report.complete
    assert 3 == len(fleets.there())
    assert 2 == len(reasons(report))
    assert all("which is the limit" in why for _, why in reasons(report).values())
    fleets.right._quota = 100
    again = fleets.move()
    assert again.complete
    assert 2 == again.changed
    assert ["web-0", "web-1", "web-2", "web-3", "web-4"] == names(fleets.there())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["create", "create_machine"])
def test_a_dropped_answer_never_makes_a_second_machine(fleets: Fleets, operation: str, when: str) -> None:
    drops = iter(range(2))

    def drop(called: str, name: str) -> None:
        if called == operation and name in {"web", "web-1"} and next(drops, None) is not None:
            raise fault(Unavailable, "the connection was closed")

    setattr(fleets.right, when, drop)
    reports = [attempt for attempt in range(4) if _survived(fleets)]

    assert reports
    assert ["web-0", "web-1", "web-2"] == names(fleets.there())
    assert fleets.verify().complete


def _survived(fleets: Fleets) -> bool:
    try:
        return bool(fleets.move().complete)
    except Unavailable:  # before the first machine
        return False


def test_a_machine_that_fails_is_named_and_never_made_twice(tmp_path: Path) -> None:
    fleets = Fleets(tmp_path, failing={"web-1"})
    fleets.make()

    first, second = fleets.move(), fleets.move()

    assert (Trouble.FAILED, "Conflict") == (reasons(first)["web-1"][0], reasons(first)["web-1"][1].partition(":")[0])
    assert "it failed ('FAILED'); look at its console, delete it" in reasons(first)["web-1"][1]
    assert "it is failed (FAILED); look at its console" in reasons(second)["web-1"][1]
    assert 3 == len(fleets.there())
    assert not fleets.verify().complete

    fleets.right._failing = ()
    fleets.new.fleet("web").machine("web-1").delete()
    assert fleets.move().complete
    assert ["web-0", "web-1", "web-2"] == names(fleets.there())


def test_machines_that_take_their_time_are_waited_for(tmp_path: Path) -> None:
    now = [datetime(2026, 3, 1, tzinfo=UTC)]
    fleets = Fleets(tmp_path, clock=lambda: now[0], delay=timedelta(seconds=90))
    fleets.make()

    def tick() -> None:
        now[0] += timedelta(seconds=10)

    fleets.paused = tick
    assert fleets.move().complete
    assert fleets.pauses >= 9
    assert {"running"} == {machine.state for machine in fleets.there()}


def test_machines_that_never_run_are_named_in_the_end_and_waited_for_by_the_next_run(tmp_path: Path) -> None:
    now = [datetime(2026, 3, 1, tzinfo=UTC)]
    fleets = Fleets(tmp_path, clock=lambda: now[0], delay=timedelta(days=1))
    fleets.make()

    report = fleets.move()

    assert {"web-0", "web-1", "web-2"} == {*reasons(report)}
    assert "waited 0:15:00 for it to run; run this again" in reasons(report)["web-0"][1]
    now[0] += timedelta(days=2)
    again = fleets.move()
    assert (True, 0) == (again.complete, again.changed)
    assert 3 == len(fleets.there())


def test_a_name_that_somebody_else_has_is_named(fleets: Fleets) -> None:
    def taken(operation: str, name: str) -> None:
        if (operation, name) == ("create_machine", "web-1"):
            raise fault(AlreadyExists, "there is a machine 'web-1'")

    fleets.right.before = taken
    report = fleets.move()
    assert reasons(report)["web-1"][1].startswith("AlreadyExists: ")
    assert ["web-0", "web-2"] == names(fleets.there())


def test_many_failures_of_one_kind_end_the_move(tmp_path: Path) -> None:
    fleets = Fleets(tmp_path, attrs.evolve(WEB, count=30), quota=0)
    fleets.make()
    with pytest.raises(MigrationError, match="10 failures in a row of the kind QuotaExceeded"):
        fleets.move()
    assert QuotaExceeded.__name__ in str(QuotaExceeded)


def test_a_machine_that_vanishes_is_named_and_made_by_the_next_run(fleets: Fleets) -> None:
    def gone(operation: str, name: str) -> None:
        if (operation, name) == ("create_machine", "web-2"):
            for machine in fleets.there():
                if machine.name == "web-2":
                    fleets.right.after = lambda _operation, _name: None
                    fleets.right.delete_machine(machine.id)

    fleets.right.after = gone
    report = fleets.move()
    assert "there is no such machine" in reasons(report)["web-2"][1]
    assert fleets.move().complete
    assert ["web-0", "web-1", "web-2"] == names(fleets.there())


def test_two_movers_at_once_make_each_machine_once(tmp_path: Path) -> None:
    """Two machines, each with its own journal: both hand over the token that a machine always has."""
    one = Fleets(tmp_path / "one", attrs.evolve(WEB, count=20))
    one.make()
    two = Fleets(tmp_path / "two", attrs.evolve(WEB, count=20))
    two.old, two.new = one.old, one.new
    results: list[Any] = []
    threads = [threading.Thread(target=lambda each=each: results.append(each.move())) for each in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 2 == len(results)
    assert 20 == len(one.there()) == len({machine.name for machine in one.there()})
    assert all(fleets.move().complete for fleets in (one, two))
    assert [0, 0] == [fleets.move().changed for fleets in (one, two)]


# verification


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"state": "stopped", "raw_state": "STOPPED"}, "it is stopped"),
        ({"cpus": 1}, "it has 1 CPUs, and not 2"),
        ({"size": "m1-1"}, "its size m1-1 is smaller than what is wanted"),
        ({"image": "ubuntu-24.04"}, "its image is ubuntu-24.04"),
        ({"firewall": (Rule(port=22),)}, "its firewall lets in 22/tcp"),
        ({"labels": {}}, "labels are others: team"),
    ],
)
def test_verification_finds_what_is_not_as_it_should_be(tmp_path: Path, told: dict[str, Any], why: str) -> None:
    fleets = with_spec(tmp_path, labels={"team": "payments"})
    assert fleets.move().complete
    assert fleets.verify().complete
    fleets.right.told = lambda machine: attrs.evolve(machine, **told) if machine.name == "web-1" else machine

    found = fleets.verify()

    assert {"web-1"} == {*reasons(found)}
    assert reasons(found)["web-1"][0] is Trouble.DIFFERS
    assert why in reasons(found)["web-1"][1]


def test_verification_finds_what_is_missing_whatever_the_journal_says(fleets: Fleets) -> None:
    fleets.move()
    fleets.new.fleet("web").machine("web-1").delete()
    assert {"web-1": (Trouble.MISSING, "it is not on the target")} == reasons(fleets.verify())


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A server that greets as ssh does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        over = threading.Event()

        def greet() -> None:
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.sendall(b"SSH-2.0-test\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        yield server
        over.set()
        thread.join()


def test_verification_looks_at_the_machines_from_outside(fleets: Fleets, listening: socket.socket) -> None:
    fleets.move()
    fleets.right.told = lambda machine: attrs.evolve(
        machine,
        addresses=("127.0.0.1",),
        ports={22: listening.getsockname()[1]} if machine.name != "web-2" else {22: 1},
    )

    found = fleets.verify(health=("ssh",), health_timeout=0.0)

    assert {"web-2"} == {*reasons(found)}
    assert "ssh:22 at 127.0.0.1: Connection refused" in reasons(found)["web-2"][1]
    assert "looked at 3 machines from here: ssh:22" in found.resources[0].notes
    assert "NOT looked at from outside" in fleets.verify().resources[0].notes[0]


def test_a_plan_tells_no_ssh_key_as_lost(tmp_path: Path) -> None:
    assert "ssh_keys" not in losses(with_spec(tmp_path, ssh_keys=(KEY,)).plan())


# kills


def test_a_move_that_is_killed_anywhere_goes_on_and_makes_no_machine_twice(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "migrate.killing_fleets", str(tmp_path)]
    tests = Path(__file__).parent.parent
    found = subprocess.run(call, cwd=tests, capture_output=True, text=True, check=False, timeout=600)
    assert found.returncode == 0, found.stderr
    lines = [json.loads(line) for line in found.stdout.splitlines()]

    wanted = ["web-0", "web-1", "web-2"]
    assert [0] == [line["end"] for line in lines[-1:]]
    assert {-signal.SIGKILL} == {line["end"] for line in lines[:-1]}
    assert len(lines) > 12
    assert {0, 1, 2, 3} == {len(line["at_kill"]) for line in lines}
    for line in lines:
        assert (0, True, 0, wanted) == (line["last"], line["complete"], line["again"], line["names"])
        assert sorted(line["made"] + line["at_kill"]) == wanted


def test_a_listing_that_lags_behind_is_no_loss(fleets: Fleets) -> None:
    real = fleets.right.machines
    fleets.right.machines = lambda *args, **page: attrs.evolve(real(*args, **page), items=())  # type: ignore[method-assign]
    report = fleets.move()
    fleets.right.machines = real  # type: ignore[method-assign]
    assert report.complete
    assert ["web-0", "web-1", "web-2"] == names(fleets.there())


def test_why_a_machine_could_not_be_made_is_its_own_affair(fleets: Fleets) -> None:
    """Some providers accept a creation and tell once, to whoever asks for that machine, why nothing came of it."""
    listed, told = fleets.right.machines, fleets.right.machine

    def machines(*args: Any, **page: Any) -> Page[MachineInfo]:
        found = listed(*args, **page)
        return attrs.evolve(found, items=tuple(each for each in found.items if each.name != "web-1"))

    def machine(id: str) -> MachineInfo:
        found = told(id)
        if found.name == "web-1":
            fleets.right.machines, fleets.right.machine = listed, told  # type: ignore[method-assign]
            fleets.right.delete_machine(id)
            raise fault(QuotaExceeded, "there are no more here")
        return found

    fleets.right.machines, fleets.right.machine = machines, machine  # type: ignore[method-assign]
    report = fleets.move()
    assert set(reasons(report)) == {"web-1"}
    assert (Trouble.FAILED, True) == (reasons(report)["web-1"][0], "no more here" in reasons(report)["web-1"][1])
    assert fleets.move().complete
    assert ["web-0", "web-1", "web-2"] == names(fleets.there())
