"""The rules for compute drivers.

Subclass ``ComputeConformance`` and override its fixtures ``driver`` and, where time can be made to pass, ``sleep``.
``compute_machine`` makes a state machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, get_args

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shiftable.compute import ALIASES, FLEET_LABEL, STATES, Compute, DiskImage, Fleet, FleetSpec, Machine, Rule
from shiftable.compute._rules import token_of
from shiftable.compute.driver import FORMS, GIB, ComputeDriver, Placement
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    QuotaExceeded,
    Unsupported,
)
from shiftable.parallel import parallel
from shiftable.service import Change
from shiftable.testing.conformance import Conformance
from shiftable.testing.wrap import Recorded, fault

__all__ = ["ComputeConformance", "ComputeMachine", "compute_machine", "small_fleet"]

Sleep = Callable[[float], None]


_KEYS = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNvbmZvcm1hbmNlLCB3aG9zZSBzZWNyZXQgbm9ib2R5 conformance",)


def small_fleet(name: str = "conf", *, count: int = 1) -> FleetSpec:
    """Return a declaration that every provider can carry out; Azure makes no machine that nobody could log in to."""
    return FleetSpec(name=name, image="debian-12", cpus=1, memory_gib=1, count=count, ssh_keys=_KEYS)


class ComputeConformance(Conformance):
    """What holds for every compute driver that makes machines.

    Attributes:
        many: machines of the test that pages; slow doubles may lower it, but not below what two pages hold.
        larger: CPUs and GiB of memory of the machine that grows; a hypervisor must have as much itself.
        unknown_images: images that there are not, in the provider's own words too.
        images_take_time: an image of a machine is not ready yet when the call that makes it returns.
    """

    many: ClassVar[int] = 250
    larger: ClassVar[tuple[int, int]] = (4, 8)
    unknown_images: ClassVar[tuple[str, ...]] = ("debian-99",)
    images_take_time: ClassVar[bool] = False

    @pytest.fixture
    def driver(self) -> ComputeDriver:
        """Return the driver under test."""
        raise TypeError("override the fixture `driver`")

    @pytest.fixture
    def sleep(self) -> Sleep:
        """Return what lets time pass for the driver under test."""
        return time.sleep

    @pytest.fixture
    def compute(self, driver: ComputeDriver, sleep: Sleep) -> Iterator[Compute]:
        """Return the service, and delete all fleets afterwards."""
        service = Compute(driver, sleep=sleep)
        yield service
        for fleet in list(service.list()):
            service.delete(fleet.name)

    @pytest.fixture
    def fleet(self, compute: Compute) -> Fleet:
        """Return a fleet of one machine that runs."""
        fleet = compute.create(small_fleet())
        fleet.wait()
        return fleet

    @pytest.fixture
    def machine(self, fleet: Fleet) -> Machine:
        """Return a machine that runs."""
        return fleet.machine("conf-0")

    @pytest.fixture
    def disk_image(self) -> DiskImage:
        """Return the image of a disk that the driver imports; override it where it must lie in a bucket."""
        return DiskImage(bucket="images", key="web.raw", form="raw")

    # making

    def test_a_new_fleet_has_as_many_machines_as_declared(self, compute: Compute) -> None:
        fleet = compute.create(small_fleet(count=3))
        assert {machine.seen.state for machine in fleet.machines()} <= {"creating", "running"}
        found = fleet.wait()
        assert [machine.name for machine in found] == ["conf-0", "conf-1", "conf-2"]
        assert {(machine.state, machine.fleet, machine.image) for machine in found} == {
            ("running", "conf", "debian-12")
        }
        assert all(machine.cpus >= 1 and machine.memory >= GIB and machine.disk_gib >= 20 for machine in found)
        assert len({machine.id for machine in found}) == 3
        assert all(machine.addresses for machine in found)
        assert not any(machine.public_addresses for machine in found)

    def test_a_fleet_is_a_label(self, compute: Compute) -> None:
        compute.create(attrs.evolve(small_fleet(), labels={"team": "shop"}))
        (machine,) = compute.fleet("conf").machines()
        assert machine.seen.labels == {"team": "shop", FLEET_LABEL: "conf"}

    def test_a_declared_fleet_is_made_and_then_nothing_differs(self, compute: Compute) -> None:
        spec = small_fleet(count=2)
        (change,) = compute.diff(spec)
        assert (change.action, change.destroys) == ("create", False)
        compute.apply(change)
        compute.open(spec).wait()
        compute.apply(change)
        assert compute.diff(spec) == ()
        assert len(list(compute.open(spec).machines())) == 2

    def test_a_fleet_of_none_needs_nothing(self, compute: Compute) -> None:
        assert compute.diff(small_fleet(count=0)) == ()

    @pytest.mark.usefixtures("fleet")
    def test_a_fleet_with_machines_is_not_created_again(self, compute: Compute) -> None:
        with pytest.raises(AlreadyExists):
            compute.create(small_fleet())
        assert len(list(compute.fleet("conf").machines())) == 1

    def test_a_lost_answer_never_makes_a_second_machine(self, compute: Compute, driver: ComputeDriver) -> None:
        spec = small_fleet(count=2)
        size = driver.choose(spec).size
        driver.create(spec)
        lost = driver.create_machine(spec, "conf-0", size=size, token=token_of("conf-0"), user_data=None)
        again = driver.create_machine(spec, "conf-0", size=size, token=token_of("conf-0"), user_data=None)
        assert again.id == lost.id
        for change in compute.diff(spec):
            compute.apply(change)
        found = compute.open(spec).wait()
        assert [machine.name for machine in found] == ["conf-0", "conf-1"]
        assert found[0].id == lost.id

    def test_a_token_makes_a_new_machine_when_its_own_is_gone(
        self, compute: Compute, fleet: Fleet, machine: Machine
    ) -> None:
        machine.delete()
        machine.wait_deleted()
        for change in compute.diff(small_fleet()):
            compute.apply(change)
        (made,) = fleet.wait()
        assert made.name == "conf-0"
        assert made.id != machine.id

    @pytest.mark.parametrize("name", ["", "Upper", "a_b", "1a", "a--b", "a-", "x" * 300])
    def test_an_impossible_name_is_refused(self, compute: Compute, name: str) -> None:
        with pytest.raises(InvalidArgument):
            compute.create(small_fleet(name))
        with pytest.raises(InvalidArgument):
            compute.fleet(name)

    def test_a_need_that_no_size_meets_is_refused_before_anything_is_made(self, compute: Compute) -> None:
        spec = attrs.evolve(small_fleet(), cpus=100_000)
        for call in (compute.create, compute.choose):
            with pytest.raises(InvalidArgument, match="100,000 CPUs"):
                call(spec)
        assert not compute.exists("conf")

    def test_what_the_provider_does_not_have_is_refused_before_it_is_sent(self, compute: Compute) -> None:
        has, plain = compute.features, small_fleet()
        needs = {
            "gpus": attrs.evolve(plain, gpus=1),
            "spot": attrs.evolve(plain, spot=True),
            "public_ip": attrs.evolve(plain, public_ip=True),
            "open_ports": attrs.evolve(plain, rules=(Rule(port=53, protocol="udp"),)),
            "user_data": attrs.evolve(plain, user_data_text="#!/bin/sh\n"),
            "zones": attrs.evolve(plain, zone="a"),
            "network": attrs.evolve(plain, network="default"),
            "identity": attrs.evolve(plain, identity="nobody"),
        }
        for feature, spec in needs.items():
            assert bool(compute.missing_features(spec)) is not getattr(has, feature), feature
            if compute.missing_features(spec):
                with pytest.raises(Unsupported):
                    compute.create(spec)
        assert bool(compute.missing_features(attrs.evolve(plain, arch="arm64"))) is ("arm64" not in has.arches)
        assert bool(compute.missing_features(attrs.evolve(plain, zones=("a", "b")))) is not has.zones
        for placement in get_args(Placement):
            spec = attrs.evolve(plain, placement=placement)
            assert bool(compute.missing_features(spec)) is (placement not in has.placements), placement
        assert not compute.exists("conf")

    def test_user_data_is_read_when_a_machine_is_made(self, compute: Compute, tmp_path: Path) -> None:
        if not compute.features.user_data:
            pytest.skip("the provider has no user data")
        spec = attrs.evolve(small_fleet(), user_data=tmp_path / "cloud-init.yaml")
        with pytest.raises(ConfigError, match=r"cloud-init\.yaml"):
            compute.create(spec)
        assert not compute.exists("conf")
        (tmp_path / "cloud-init.yaml").write_text("#cloud-config\n")
        assert len(compute.create(spec).wait()) == 1

    def test_user_data_that_is_too_large_is_refused(self, compute: Compute) -> None:
        limit = compute.features.max_user_data
        if limit is None or not compute.features.user_data:
            pytest.skip("the provider names no limit")
        spec = attrs.evolve(small_fleet(), user_data_text="#!/bin/sh\n" + "x" * limit.value)
        (lacking,) = compute.missing_features(spec)
        assert f"the limit is {limit}" in lacking
        with pytest.raises(InvalidArgument, match="user data"):
            compute.create(spec)
        assert not compute.exists("conf")

    def test_user_data_without_a_byte_is_none(self, compute: Compute, tmp_path: Path) -> None:
        if not compute.features.user_data:
            pytest.skip("the provider has no user data")
        (tmp_path / "nothing").touch()
        spec = attrs.evolve(small_fleet(), user_data=tmp_path / "nothing")
        assert compute.missing_features(spec) == ()
        assert len(compute.create(spec).wait()) == 1

    # converging

    def test_a_fleet_grows_without_touching_what_is_there(self, compute: Compute, machine: Machine) -> None:
        spec = small_fleet(count=3)
        (change,) = compute.diff(spec)
        assert (change.action, change.destroys) == ("update", False)
        compute.apply(change)
        found = compute.open(spec).wait()
        assert [m.name for m in found] == ["conf-0", "conf-1", "conf-2"]
        assert found[0].id == machine.id
        assert compute.diff(spec) == ()

    def test_a_fleet_shrinks_only_by_a_change_that_destroys(self, compute: Compute, sleep: Sleep) -> None:
        fleet = compute.create(small_fleet(count=3))
        fleet.wait()
        spec = small_fleet(count=1)
        (change,) = compute.diff(spec)
        assert change.destroys
        assert "conf-1, conf-2 are deleted" in change.reason
        with pytest.raises(Conflict, match="destroys"):
            compute.apply(attrs.evolve(change, destroys=False))
        assert len(fleet.wait()) == 3
        compute.apply(change)
        while len(list(fleet.machines())) > 1:
            sleep(1)
        assert [machine.name for machine in fleet.wait()] == ["conf-0"]
        assert compute.diff(spec) == ()

    def test_a_machine_that_somebody_deleted_comes_back(self, compute: Compute) -> None:
        spec = small_fleet(count=3)
        fleet = compute.create(spec)
        fleet.wait()
        gone = fleet.machine("conf-1")
        gone.delete()
        gone.wait_deleted()
        (change,) = compute.diff(spec)
        assert not change.destroys
        compute.apply(change)
        assert [machine.name for machine in fleet.wait()] == ["conf-0", "conf-1", "conf-2"]

    def test_another_image_makes_the_machines_anew(self, compute: Compute) -> None:
        fleet = compute.create(small_fleet(count=2))
        before = fleet.wait()
        spec = attrs.evolve(small_fleet(count=2), image="ubuntu-24.04")
        (change,) = compute.diff(spec)
        assert change.destroys
        assert "conf-0, conf-1 are made anew" in change.reason
        with pytest.raises(Conflict, match="destroys"):
            compute.apply(attrs.evolve(change, destroys=False))
        compute.apply(change)
        after = fleet.wait()
        assert [(machine.name, machine.image) for machine in after] == [
            ("conf-0", "ubuntu-24.04"),
            ("conf-1", "ubuntu-24.04"),
        ]
        assert not {machine.id for machine in before} & {machine.id for machine in after}
        assert compute.diff(spec) == ()

    def test_an_image_that_does_not_exist_replaces_no_machine(self, compute: Compute, machine: Machine) -> None:
        for image in self.unknown_images:
            spec = attrs.evolve(small_fleet(), image=image)
            (change,) = compute.diff(spec)
            with pytest.raises(OperationError) as caught:
                compute.apply(change)
            assert image in str(caught.value)
            assert machine.info().state == "running"

    def test_an_image_that_is_still_being_made_replaces_no_machine(self, compute: Compute, machine: Machine) -> None:
        if not self.images_take_time:
            pytest.skip("an image is ready when the call that makes it returns, or the provider makes none of machines")
        driver = compute.unwrap(ComputeDriver)  # type: ignore[type-abstract]  # whichever it is
        image = driver.snapshot(machine.id, "soon")
        assert not image.ready
        (change,) = compute.diff(attrs.evolve(small_fleet(), image=image.id))
        with pytest.raises(Conflict, match="not ready"):
            compute.apply(change)
        assert machine.info().state == "running"

    def test_a_machine_that_cannot_be_made_anew_is_the_only_one_that_is_gone(
        self, compute: Compute, driver: ComputeDriver, sleep: Sleep
    ) -> None:
        kept = compute.create(small_fleet(count=2)).wait()[1]
        recorded = Recorded(driver)
        recorded.on("create_machine", fault(QuotaExceeded))
        full = Compute(recorded.driver, sleep=sleep)
        spec = attrs.evolve(small_fleet(count=2), image="ubuntu-24.04")
        for why in (r"'conf-0'.*; the old conf-0 is deleted, and conf-1 is as before; `shiftable", "'conf-0'"):
            with pytest.raises(QuotaExceeded, match=why):
                full.apply(full.diff(spec)[0])
            (left,) = compute.fleet("conf").info()
            assert (left.id, left.image, left.state) == (kept.id, "debian-12", "running")
        for change in compute.diff(spec):
            compute.apply(change)
        made = compute.fleet("conf").wait()
        assert [(each.name, each.image) for each in made] == [("conf-0", "ubuntu-24.04"), ("conf-1", "ubuntu-24.04")]
        assert compute.diff(spec) == ()

    def test_larger_machines_are_the_same_machines_where_they_can_be(
        self, compute: Compute, fleet: Fleet, machine: Machine
    ) -> None:
        resizes = compute.features.resize
        cpus, memory_gib = self.larger
        spec = attrs.evolve(small_fleet(), cpus=cpus, memory_gib=memory_gib)
        if not resizes and compute.choose(spec).size.name == machine.info().size:
            pytest.skip("all machines of this provider are as large")
        (change,) = compute.diff(spec)
        assert change.destroys is not resizes
        if not resizes:
            with pytest.raises(Unsupported):
                machine.resize(cpus=cpus)
            assert "conf-0 is made anew" in change.reason
            with pytest.raises(Conflict, match="destroys"):
                compute.apply(attrs.evolve(change, destroys=False))
        compute.apply(change)
        (grown,) = fleet.wait()
        assert (grown.id == machine.id) is resizes
        assert grown.cpus >= cpus
        assert grown.memory >= memory_gib * GIB
        assert compute.diff(spec) == ()

    def test_a_fleet_takes_several_steps_at_once(self, compute: Compute) -> None:
        fleet = compute.create(small_fleet(count=3))
        fleet.wait()
        cpus, memory_gib = self.larger
        spec = attrs.evolve(small_fleet(count=2), image="ubuntu-24.04", cpus=cpus, memory_gib=memory_gib)
        for change in compute.diff(spec):
            compute.apply(change)
        assert compute.diff(spec) == ()
        assert [machine.name for machine in fleet.wait()] == ["conf-0", "conf-1"]

    def test_ports_are_opened_while_the_machines_run(self, compute: Compute, machine: Machine) -> None:
        if not compute.features.open_ports:
            pytest.skip("the provider has no firewall")
        spec = attrs.evolve(small_fleet(), open_ports=(22, 443), allow_from=("192.0.2.0/24",))
        (change,) = compute.diff(spec)
        assert not change.destroys
        compute.apply(change)
        info = machine.info()
        assert info.state == "running"
        assert [(rule.port, rule.last, rule.protocol, rule.allow_from) for rule in info.firewall] == [
            (22, 22, "tcp", ("192.0.2.0/24",)),
            (443, 443, "tcp", ("192.0.2.0/24",)),
        ]
        assert compute.diff(spec) == ()

    def test_each_port_has_its_own_networks_and_its_protocol(self, compute: Compute, machine: Machine) -> None:
        if not compute.features.open_ports:
            pytest.skip("the provider has no firewall")
        rules = (
            Rule(port=22, allow_from=("192.0.2.0/24", "2001:db8::/32")),
            Rule(port=51820, protocol="udp"),
            Rule(port=8000, last_port=8100, allow_from=("198.51.100.7/32",)),
        )
        spec = attrs.evolve(small_fleet(), open_ports=(443,), rules=rules)
        for change in compute.diff(spec):
            assert not change.destroys
            compute.apply(change)
        assert list(map(str, machine.info().firewall)) == [
            "22/tcp from 192.0.2.0/24, 2001:db8::/32",
            "443/tcp from 0.0.0.0/0, ::/0",
            "8000-8100/tcp from 198.51.100.7/32",
            "51820/udp from 0.0.0.0/0, ::/0",
        ]
        assert compute.diff(spec) == ()
        for change in compute.diff(small_fleet()):
            assert not change.destroys
            compute.apply(change)
        assert machine.info().firewall == ()

    def test_labels_of_a_machine_change_while_it_lives(self, compute: Compute) -> None:
        (machine,) = compute.create(attrs.evolve(small_fleet(), labels={"team": "shop", "stage": "test"})).machines()
        if not compute.features.relabel:
            with pytest.raises(Unsupported, match="labels"):
                machine.relabel({"team": "data"})
            assert machine.info().user_labels == {"team": "shop", "stage": "test"}
            return
        machine.wait()
        changed = {"team": "data", "cost-center": "42", FLEET_LABEL: "conf"}
        for _ in range(2):
            machine.relabel({"team": "data", "cost-center": "42"}, remove=["stage", "missing"])
            assert machine.info().labels == changed
        assert [found.seen.labels for found in compute.fleet("conf").machines()] == [changed]
        machine.relabel(remove=["cost-center", "team"])
        assert machine.info().user_labels == {}
        assert [found.name for found in compute.fleet("conf").machines()] == ["conf-0"]
        assert machine.info().state == "running"

    def test_labels_of_a_stopped_machine_change(self, machine: Machine) -> None:
        if not (machine.features.relabel and machine.features.stop):
            pytest.skip("labels do not change, or machines do not stop")
        machine.stop()
        machine.wait("stopped")
        machine.relabel({"team": "data"})
        assert (machine.info().state, machine.info().user_labels) == ("stopped", {"team": "data"})
        machine.start()
        assert machine.wait().user_labels == {"team": "data"}

    def test_labels_that_are_not_the_users_are_not_changed(self, machine: Machine) -> None:
        before = machine.info().labels
        for wrong in ({FLEET_LABEL: "other"}, {"team": "a", FLEET_LABEL: "conf"}, {"": "x"}):
            with pytest.raises(Unsupported):
                machine.relabel(wrong)
        with pytest.raises(InvalidArgument, match="shiftable's own"):
            machine.relabel(remove=[FLEET_LABEL])
        with pytest.raises(InvalidArgument, match="nothing to change"):
            machine.relabel({})
        with pytest.raises(InvalidArgument, match="at once"):
            machine.relabel({"team": "a"}, remove=["team"])
        assert machine.info().labels == before

    def test_more_labels_than_there_is_room_for_are_refused(self, machine: Machine) -> None:
        limit = machine.features.max_labels
        if limit is None or not machine.features.relabel:
            pytest.skip("the provider names no limit, or labels do not change")
        most = {f"label-{number}": "x" for number in range(limit.value - 1)}  # one is the fleet's
        machine.relabel(most)
        assert machine.info().user_labels == most
        with pytest.raises(InvalidArgument, match=f"{limit.value + 1:,} labels"):
            machine.relabel({"one": "more"})
        machine.relabel({"one": "more", "label-1": "y"}, remove=["label-0"])
        del most["label-0"]
        assert machine.info().user_labels == {**most, "one": "more", "label-1": "y"}

    def test_declared_labels_are_changed_in_place(self, compute: Compute) -> None:
        fleet = compute.create(attrs.evolve(small_fleet(count=2), labels={"team": "shop"}))
        before = fleet.wait()
        assert compute.diff(attrs.evolve(small_fleet(count=2), labels={"team": "shop"})) == ()
        spec = attrs.evolve(small_fleet(count=3), labels={"team": "data", "stage": "live"})
        changes = compute.diff(spec)
        assert not any(change.destroys for change in changes)
        if not compute.features.relabel:
            assert [{field.name for field in change.fields} for change in changes] == [{"count"}]
            return
        assert [{field.name for field in change.fields} for change in changes] == [{"count"}, {"labels"}]
        fleet.machine("conf-1").relabel({"note": "mine"})
        for change in changes:
            compute.apply(change)
        after = fleet.wait()
        assert [machine.id for machine in after][:2] == [machine.id for machine in before]
        declared = {"team": "data", "stage": "live"}
        assert [found.user_labels for found in after] == [declared, {**declared, "note": "mine"}, declared]
        assert compute.diff(spec) == ()
        assert compute.diff(attrs.evolve(spec, labels={"stage": "live"})) == ()

    def test_a_labelling_that_was_interrupted_goes_on(self, compute: Compute) -> None:
        if not compute.features.relabel:
            pytest.skip("labels do not change")
        fleet = compute.create(small_fleet(count=2))
        fleet.wait()
        spec = attrs.evolve(small_fleet(count=2), labels={"team": "data"})
        (change,) = compute.diff(spec)
        fleet.machine("conf-0").relabel(spec.labels)
        compute.apply(change)
        assert compute.diff(spec) == ()
        compute.apply(change)

    def test_writers_of_different_labels_do_not_lose_each_others(self, machine: Machine) -> None:
        if not machine.features.relabel:
            pytest.skip("labels do not change")
        names = [f"writer-{number}" for number in range(4)]

        def write(name: str) -> None:
            for turn in range(3):
                machine.relabel({name: str(turn)}, remove=[f"{name}-old"])

        for _, future in parallel(write, names, workers=len(names)):
            future.result()
        assert machine.info().user_labels == dict.fromkeys(names, "2")

    def test_nothing_is_open_unless_it_is_declared(self, machine: Machine) -> None:
        assert machine.info().firewall == ()

    @pytest.mark.usefixtures("fleet")
    def test_a_stale_change_is_a_conflict(self, compute: Compute) -> None:
        (stale,) = compute.diff(small_fleet(count=2))
        for change in compute.diff(small_fleet(count=4)):
            compute.apply(change)
        with pytest.raises(Conflict, match="compare again"):
            compute.apply(stale)
        assert len(compute.fleet("conf").wait()) == 4

    # deleting

    def test_a_fleet_is_deleted_with_all_that_was_made_for_it(self, compute: Compute) -> None:
        compute.create(small_fleet(count=3))
        compute.create(small_fleet("other")).wait()
        compute.delete("conf")
        assert not compute.exists("conf")
        assert list(compute.fleet("conf").machines()) == []
        assert [fleet.name for fleet in compute.list()] == ["other"]
        with pytest.raises(NotFound):
            compute.delete("conf")

    @pytest.mark.usefixtures("fleet")
    def test_a_change_that_destroys_all_deletes_the_fleet(self, compute: Compute) -> None:
        compute.apply(Change(service="compute", before=compute.describe("conf"), after=None, destroys=True))
        assert not compute.exists("conf")

    def test_a_missing_fleet_has_no_machines(self, compute: Compute) -> None:
        assert list(compute.fleet("missing").machines()) == []
        assert not compute.exists("missing")
        for call in (
            lambda: compute.get("missing"),
            lambda: compute.describe("missing"),
            lambda: compute.delete("missing"),
            lambda: compute.fleet("missing").machine("missing-0"),
        ):
            with pytest.raises(NotFound):
                call()

    def test_a_machine_that_is_gone_is_missing_everywhere(self, machine: Machine) -> None:
        machine.delete()
        machine.wait_deleted()
        machine.delete()
        has = machine.features
        calls: list[Callable[[], object]] = [machine.info, machine.reboot, machine.wait]
        calls += [machine.start, machine.stop] if has.stop else []
        calls += [machine.console] if has.console else []
        calls += [lambda: machine.relabel({"team": "data"}), lambda: machine.relabel(remove=["team"])] * has.relabel
        for call in calls:
            with pytest.raises(NotFound):
                call()

    # states

    def test_machines_are_stopped_and_started(self, fleet: Fleet) -> None:
        if not fleet.features.stop:
            for call in (fleet.start, fleet.stop):
                with pytest.raises(Unsupported):
                    call()
            return
        fleet.stop()
        assert {machine.state for machine in fleet.wait("stopped")} == {"stopped"}
        fleet.stop()
        assert {machine.state for machine in fleet.wait("stopped")} == {"stopped"}
        fleet.start()
        fleet.start()
        assert {machine.state for machine in fleet.wait()} == {"running"}

    def test_a_machine_reboots(self, machine: Machine) -> None:
        machine.reboot()
        assert machine.wait().id == machine.id

    def test_what_the_state_forbids_is_a_conflict(self, machine: Machine) -> None:
        if not machine.features.stop:
            pytest.skip("machines of this provider cannot be stopped")
        machine.stop()
        machine.wait("stopped")
        with pytest.raises(Conflict):
            machine.reboot()
        assert machine.info().state == "stopped"

    def test_a_stopped_machine_stays_stopped_when_it_is_resized(self, machine: Machine) -> None:
        if not machine.features.resize:
            pytest.skip("machines of this provider cannot be resized")
        machine.stop()
        machine.wait("stopped")
        resized = machine.resize(cpus=4)
        assert (resized.state, resized.cpus >= 4) == ("stopped", True)

    def test_machines_are_placed_as_declared_or_refused(self, compute: Compute) -> None:
        for placement in get_args(Placement):
            spec = attrs.evolve(small_fleet(count=2), placement=placement)
            if placement not in compute.features.placements:
                with pytest.raises(Unsupported, match=placement):
                    compute.create(spec)
                continue
            compute.create(spec).wait()
            assert compute.diff(spec) == ()
            compute.delete("conf")
        self._nothing_is_left(compute)

    def test_a_machine_is_made_in_its_zone(self, compute: Compute, machine: Machine) -> None:
        if not compute.features.zones:
            pytest.skip("the provider has no zones")
        zone = machine.info().zone
        assert zone is not None
        spec = attrs.evolve(small_fleet("zoned"), zones=(zone,))
        assert [made.zone for made in compute.create(spec).wait()] == [zone]
        assert compute.diff(spec) == ()

    def test_every_state_is_one_of_ours(self, machine: Machine) -> None:
        assert machine.info().state in STATES
        assert machine.info().raw_state

    # inside and around

    def test_the_console_is_read_or_refused(self, fleet: Fleet) -> None:
        if not fleet.features.console:
            with pytest.raises(Unsupported):
                fleet.console()
            return
        assert {name: type(text) for name, text in fleet.console().items()} == {"conf-0": bytes}

    def test_a_simulated_machine_says_so(self, fleet: Fleet, machine: Machine) -> None:
        if fleet.features.ssh:
            pytest.skip("there is a machine")
        for call in (fleet.run, machine.run):
            with pytest.raises(Unsupported, match="simulated"):
                call("true")

    def test_a_disk_outlives_its_machine(self, compute: Compute, machine: Machine) -> None:
        if not compute.features.disks:
            for call in (lambda: machine.attach("x"), lambda: compute.create_disk("data", 10), compute.disks):
                with pytest.raises(Unsupported):
                    call()
            return
        disk = compute.create_disk("data", 10, zone=machine.info().zone)
        assert (disk.machine, disk.device, disk.ready) == (None, None, True)
        attached = machine.attach(disk.id)
        assert (attached.id, attached.machine, attached.ready) == (disk.id, machine.id, True)
        assert attached.device is None or attached.device.startswith("/dev/")
        assert machine.attach(disk.id) == attached
        assert machine.info().disks == (disk.id,)
        with pytest.raises(Conflict):
            compute.delete_disk(disk.id)
        compute.delete("conf")
        left = [(found.id, found.name, found.size_gib, found.machine) for found in compute.disks()]
        assert left == [(disk.id, "data", 10, None)]
        compute.delete_disk(disk.id)
        assert list(compute.disks()) == []

    def test_a_disk_belongs_to_one_machine(self, compute: Compute) -> None:
        if not compute.features.disks:
            pytest.skip("the provider has no disks")
        fleet = compute.create(small_fleet(count=2))
        first, _ = fleet.wait()
        disk = compute.create_disk("data", 10, zone=first.zone)
        fleet.attach("conf-0", disk.id)
        with pytest.raises(Conflict):
            fleet.attach("conf-1", disk.id)
        assert fleet.detach("conf-0", disk.id).machine is None
        assert fleet.detach("conf-0", disk.id).device is None
        assert fleet.machine("conf-0").info().disks == ()
        with pytest.raises(NotFound):
            fleet.attach("conf-0", "missing")
        compute.delete_disk(disk.id)

    def test_machines_are_made_from_an_image_of_another(self, compute: Compute, machine: Machine) -> None:
        if not compute.features.snapshots:
            with pytest.raises(Unsupported):
                machine.snapshot("golden")
            return
        image = machine.snapshot("golden")
        (listed,) = [found for found in compute.images() if found.own]
        assert (listed.id, listed.name) == (image.id, "golden")
        assert image.ready
        (made,) = compute.create(attrs.evolve(small_fleet("twin"), image=image.id)).wait()
        assert made.image == image.id
        compute.delete("twin")
        compute.delete_image(image.id)
        assert not any(found.own for found in compute.images())
        with pytest.raises(NotFound):
            compute.delete_image(image.id)

    def test_an_image_has_no_other_disk_than_the_first(self, compute: Compute, machine: Machine) -> None:
        if not (compute.features.snapshots and compute.features.disks):
            pytest.skip("the provider has no disks, or no images of machines")
        disk = compute.create_disk("data", 10, zone=machine.info().zone)
        machine.attach(disk.id)
        image = machine.snapshot("golden")
        (made,) = compute.create(attrs.evolve(small_fleet("twin"), image=image.id)).wait()
        assert made.disks == ()
        assert [found.id for found in compute.disks()] == [disk.id]
        compute.delete("twin")
        compute.delete("conf")
        compute.delete_image(image.id)
        compute.delete_disk(disk.id)

    def test_machines_are_made_from_an_imported_image(self, compute: Compute, disk_image: DiskImage) -> None:
        if not compute.features.imports:
            with pytest.raises(Unsupported, match="importer"):
                compute.import_image("imported", disk_image)
            return
        image = compute.import_image("imported", disk_image)
        assert (image.name, image.arch, image.own, image.ready) == ("imported", disk_image.arch, True, True)
        assert [found.id for found in compute.images() if found.own] == [image.id]
        (made,) = compute.create(attrs.evolve(small_fleet("twin"), image=image.id)).wait()
        assert made.image == image.id
        compute.delete("twin")
        compute.delete_image(image.id)
        assert not any(found.own for found in compute.images())
        self._nothing_is_left(compute)

    def test_the_same_import_makes_one_image(self, compute: Compute, disk_image: DiskImage) -> None:
        if not compute.features.imports:
            pytest.skip("the provider imports no images")
        image = compute.import_image("imported", disk_image)
        assert compute.import_image("imported", disk_image).id == image.id
        with pytest.raises(AlreadyExists):
            compute.import_image("imported", attrs.evolve(disk_image, version="another"))
        assert [found.id for found in compute.images() if found.own] == [image.id]
        compute.delete_image(image.id)
        again = compute.import_image("imported", disk_image)
        assert again.ready
        compute.delete_image(again.id)

    def test_an_import_takes_no_name_of_another_image(
        self, compute: Compute, machine: Machine, disk_image: DiskImage
    ) -> None:
        if not (compute.features.imports and compute.features.snapshots):
            pytest.skip("the provider imports no images, or makes none of machines")
        image = machine.snapshot("golden")
        with pytest.raises(AlreadyExists):
            compute.import_image("golden", disk_image)
        assert [found.id for found in compute.images() if found.own] == [image.id]
        compute.delete_image(image.id)

    def test_a_form_that_is_not_imported_is_refused(self, compute: Compute, disk_image: DiskImage) -> None:
        for form in sorted({*FORMS} - compute.features.imports):
            with pytest.raises(Unsupported, match=form):
                compute.import_image("imported", attrs.evolve(disk_image, form=form))
        assert not any(found.own for found in compute.images())

    def test_a_snapshot_of_a_disk_makes_others(self, compute: Compute, machine: Machine) -> None:
        if not compute.features.disk_snapshots:
            for call in (
                lambda: compute.snapshot_disk("x", "daily"),
                compute.disk_snapshots,
                lambda: compute.delete_disk_snapshot("x"),
                lambda: compute.create_disk("copy", 10, snapshot="x"),
            ):
                with pytest.raises(Unsupported):
                    call()
            return
        zone = machine.info().zone
        disk = compute.create_disk("data", 10, zone=zone)
        machine.attach(disk.id)
        snapshot = compute.snapshot_disk(disk.id, "daily")
        assert (snapshot.name, snapshot.size_gib, snapshot.ready) == ("daily", 10, True)
        assert [found.id for found in compute.disk_snapshots()] == [snapshot.id]
        machine.detach(disk.id)
        compute.delete_disk(disk.id)
        copy = compute.create_disk("copy", 12, zone=zone, snapshot=snapshot.id)
        assert (copy.name, copy.size_gib) == ("copy", 12)
        machine.attach(copy.id)
        machine.detach(copy.id)
        compute.delete_disk(copy.id)
        compute.delete_disk_snapshot(snapshot.id)
        assert list(compute.disk_snapshots()) == []
        for call in (
            lambda: compute.delete_disk_snapshot(snapshot.id),
            lambda: compute.snapshot_disk(disk.id, "gone"),
            lambda: compute.create_disk("none", 12, zone=zone, snapshot=snapshot.id),
        ):
            with pytest.raises(NotFound):
                call()

    # what is left

    def test_what_is_in_use_is_no_debris(self, compute: Compute) -> None:
        if not compute.features.debris:
            for call in (compute.debris, compute.sweep):
                with pytest.raises(Unsupported):
                    call()
            return
        opened = small_fleet()
        if compute.features.open_ports:
            opened = attrs.evolve(opened, open_ports=(443,))
        (machine,) = compute.create(opened).wait()
        disk = compute.create_disk("data", 10, zone=machine.zone) if compute.features.disks else None
        assert compute.sweep(older_than=timedelta(0)) == ()
        assert [found.name for found in compute.fleet("conf").wait()] == ["conf-0"]
        assert compute.diff(opened) == ()
        compute.delete("conf")
        self._nothing_is_left(compute)
        if disk is not None:
            assert [found.id for found in compute.disks()] == [disk.id]
            compute.delete_disk(disk.id)

    def _nothing_is_left(self, compute: Compute) -> None:
        if compute.features.debris:
            assert list(compute.debris()) == []

    # listing

    def test_many_machines_are_listed_once_each(self, compute: Compute, driver: ComputeDriver) -> None:
        fleet = compute.create(small_fleet(count=self.many))
        names = [machine.name for machine in fleet.machines()]
        assert sorted(names) == sorted(f"conf-{number}" for number in range(self.many))
        assert len(list(fleet.machines(limit=3))) == 3
        assert driver.machines("conf", cursor=None, limit=None).next is not None
        assert compute.describe("conf").count == self.many

    def test_machines_of_all_fleets_are_listed_once_each(self, compute: Compute) -> None:
        for name in ("a", "b"):
            compute.create(small_fleet(name, count=2))
        found = sorted((machine.seen.fleet, machine.name) for machine in compute.machines())
        assert found == [("a", "a-0"), ("a", "a-1"), ("b", "b-0"), ("b", "b-1")]
        assert len(list(compute.machines(limit=3))) == 3
        assert [info.name for info in compute.fleet("b").info()] == ["b-0", "b-1"]

    def test_fleets_are_listed_once_each(self, compute: Compute) -> None:
        wanted = [f"fleet-{number}" for number in range(12)]
        for name in wanted:
            compute.create(small_fleet(name, count=2))
        assert sorted(fleet.name for fleet in compute.list()) == sorted(wanted)
        assert len(list(compute.list(limit=5))) == 5

    def test_every_alias_is_an_image(self, compute: Compute) -> None:
        names = {image.name for image in compute.images()}
        assert set(ALIASES) - names == set()

    def test_sizes_are_listed_once_each(self, compute: Compute) -> None:
        sizes = list(compute.sizes())
        assert len({size.name for size in sizes}) == len(sizes)
        assert {size.arch for size in sizes} >= set(compute.features.arches)
        assert not compute.features.prices or all(size.price is not None for size in sizes)


class ComputeMachine(RuleBasedStateMachine):
    """Any sequence of declarations and accidents leaves what is declared. ``compute_machine`` makes it."""

    names = st.sampled_from(["a", "b"])
    counts = st.integers(0, 4)
    cpus = st.sampled_from([1, 2, 4])
    images = st.sampled_from(["debian-12", "ubuntu-24.04"])
    labels = st.dictionaries(st.sampled_from(["team", "stage"]), st.sampled_from(["x", "y"]))

    def __init__(self) -> None:
        super().__init__()
        self.driver = self.make_driver()
        self.compute = Compute(self.driver, sleep=self.sleep)
        self.declared: dict[str, FleetSpec] = {}

    def make_driver(self) -> ComputeDriver:
        """Make the driver under test, without any machine."""
        raise TypeError("make the machine with `compute_machine`")

    def sleep(self, seconds: float) -> None:
        """Let time pass for the driver."""
        time.sleep(seconds)

    def teardown(self) -> None:
        for fleet in list(self.compute.list()):
            self.compute.delete(fleet.name)

    @rule(name=names, count=counts, cpus=cpus, image=images, labels=labels)
    def declare(self, name: str, count: int, cpus: int, image: str, labels: dict[str, str]) -> None:
        spec = attrs.evolve(small_fleet(name, count=count), image=image, cpus=cpus, memory_gib=cpus, labels=labels)
        before = {machine.id: machine.seen for machine in self.compute.fleet(name).machines()}
        changes = self.compute.diff(spec)
        for change in changes:
            self.compute.apply(change)
        self._settle(name)
        assert self.compute.diff(spec) == ()
        if not any(change.destroys for change in changes):
            assert before.keys() <= {machine.id for machine in self.compute.fleet(name).machines()}
        self.declared[name] = spec

    @rule(name=names, number=counts)
    def lose(self, name: str, number: int) -> None:
        """Delete a machine behind the back, and let it come back."""
        found = {machine.name: machine for machine in self.compute.fleet(name).machines()}
        if f"{name}-{number}" not in found:
            return
        found[f"{name}-{number}"].delete()
        self._settle(name)
        for change in self.compute.diff(self.declared[name]):
            assert not change.destroys
            self.compute.apply(change)
        self._settle(name)

    @rule(name=names)
    def switch(self, name: str) -> None:
        """Stop all and start all again."""
        if self.compute.features.stop:
            fleet = self.compute.fleet(name)
            fleet.stop()
            assert {machine.state for machine in fleet.wait("stopped")} <= {"stopped"}
            fleet.start()
            fleet.wait()

    @rule(name=names, number=counts)
    def label(self, name: str, number: int) -> None:
        """Change labels behind the back: one of nobody's, and one that is declared."""
        found = {machine.name: machine for machine in self.compute.fleet(name).machines()}
        if f"{name}-{number}" not in found or not self.compute.features.relabel:
            return
        spec = self.declared[name]
        before = found[f"{name}-{number}"].info().user_labels
        found[f"{name}-{number}"].relabel({"team": "z", "note": str(number)}, remove=["stage"])
        expected = {key: value for key, value in before.items() if key != "stage"} | {"team": "z", "note": str(number)}
        assert found[f"{name}-{number}"].info().user_labels == expected
        changes = self.compute.diff(spec)
        assert bool(changes) is bool(spec.labels)
        for change in changes:
            assert (change.destroys, {field.name for field in change.fields}) == (False, {"labels"})
            self.compute.apply(change)

    @rule(name=names)
    def delete(self, name: str) -> None:
        if not self.compute.exists(name):
            with pytest.raises(NotFound):
                self.compute.delete(name)
        else:
            self.compute.delete(name)
        self.declared.pop(name, None)

    def _settle(self, name: str) -> None:
        for machine in self.compute.fleet(name).machines():
            if machine.seen.state == "deleting":
                machine.wait_deleted()
        self.compute.fleet(name).wait()

    @invariant()
    def the_machines_are_those_that_are_declared(self) -> None:
        for name in ("a", "b"):
            machines = list(self.compute.fleet(name).machines())
            held = [(m.name, m.seen.image, m.seen.cpus) for m in machines]
            spec = self.declared.get(name)
            assert len(held) == (spec.count if spec else 0)
            if spec is not None:
                wanted = {(f"{name}-{number}", spec.image) for number in range(spec.count)}
                assert {(host, image) for host, image, _ in held} == wanted
                assert all(cpus >= spec.cpus for _, _, cpus in held)
                if self.compute.features.relabel:
                    assert all(m.seen.labels.items() >= spec.labels.items() for m in machines)


def compute_machine(make_driver: Callable[[], ComputeDriver], sleep: Sleep = time.sleep) -> type[ComputeMachine]:
    """Make the state machine for a driver; run it with ``compute_machine(make_driver).TestCase``.

    Args:
        make_driver: called for each run; the account must have no machines.
        sleep: lets time pass for the driver.
    """
    own = {"make_driver": lambda _: make_driver(), "sleep": lambda _, seconds: sleep(seconds)}
    return type("ComputeOf", (ComputeMachine,), own)
