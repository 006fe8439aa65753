"""The memory driver of compute keeps the rules, at once and by a clock, and fails as a provider does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.compute import Compute, FleetSpec
from shiftable.compute.driver import ComputeDriver, MachineInfo
from shiftable.errors import Conflict, Fault, NotFound, OperationError, QuotaExceeded, Timeout, Unavailable
from shiftable.memory._faults import MemoryFault
from shiftable.memory.compute import FEATURES, MemoryComputeDriver
from shiftable.paging import Page
from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine, small_fleet

from .clocks import Clock

LESSER = attrs.evolve(
    FEATURES,
    title="a lesser provider",
    arches=frozenset({"x86_64"}),
    gpus=False,
    stop=False,
    resize=False,
    console=False,
    disks=False,
    snapshots=False,
    spot=False,
    public_ip=False,
    open_ports=False,
    user_data=False,
    zones=False,
    network=False,
    identity=False,
    prices=False,
    placements=frozenset(),
    disk_snapshots=False,
    debris=False,
    relabel=False,
    imports=frozenset(),
    max_user_data=None,
)


class TestMemoryCompute(ComputeConformance):
    @pytest.fixture
    def driver(self) -> ComputeDriver:
        return MemoryComputeDriver()


class TestSlowCompute(ComputeConformance):
    """Everything takes a minute."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def driver(self, clock: Clock) -> ComputeDriver:
        return MemoryComputeDriver(clock=clock, delay=timedelta(minutes=1))

    @pytest.fixture
    def sleep(self, clock: Clock) -> Sleep:
        return clock.sleep


class TestLesserCompute(ComputeConformance):
    """The rules hold for a driver that can do less, too: what it cannot is refused."""

    @pytest.fixture
    def driver(self) -> ComputeDriver:
        return MemoryComputeDriver(LESSER)


def test_states_follow_the_clock() -> None:
    clock = Clock()
    compute = Compute(MemoryComputeDriver(clock=clock, delay=timedelta(minutes=1)))
    compute.create(small_fleet())
    (machine,) = compute.fleet("conf").machines()
    states = [machine.info().state]
    acts: tuple[Callable[[], None], ...] = (lambda: None, machine.reboot, machine.stop, machine.start, machine.delete)
    for act in acts:
        act()
        states.append(machine.info().state)
        clock.sleep(60)
        if act != machine.delete:
            states.append(machine.info().state)
    assert states == [
        *("creating", "creating", "running", "rebooting", "running"),
        *("stopping", "stopped", "starting", "running", "deleting"),
    ]
    assert not compute.exists("conf")


def test_a_machine_that_failed_ends_the_waiting() -> None:
    clock = Clock()
    driver = MemoryComputeDriver(clock=clock, delay=timedelta(minutes=1), failing={"conf-1"})
    fleet = Compute(driver, clock=clock.monotonic, sleep=clock.sleep).create(small_fleet(count=2))
    with pytest.raises(Conflict, match="'FAILED'"):
        fleet.wait()
    assert fleet.machine("conf-0").wait().state == "running"


def test_waiting_ends_at_the_deadline_of_the_whole_fleet() -> None:
    clock = Clock()
    driver = MemoryComputeDriver(clock=clock, delay=timedelta(hours=1))
    fleet = Compute(driver, clock=clock.monotonic, sleep=clock.sleep).create(small_fleet(count=3))
    begin = clock.now
    with pytest.raises(Timeout, match="for machine 'conf-0' in fleet 'conf' to be running"):
        fleet.wait(timeout=timedelta(minutes=5))
    assert clock.now - begin == timedelta(minutes=5)


def test_machines_that_are_on_their_way_are_resized_when_they_run() -> None:
    clock = Clock()
    driver = MemoryComputeDriver(clock=clock, delay=timedelta(minutes=1))
    compute = Compute(driver, clock=clock.monotonic, sleep=clock.sleep)
    compute.create(small_fleet(count=2))
    for change in compute.diff(attrs.evolve(small_fleet(count=2), cpus=2)):
        compute.apply(change)
    assert {(machine.state, machine.cpus) for machine in compute.fleet("conf").wait()} == {("running", 2)}


def test_what_a_quota_left_out_is_made_later() -> None:
    driver = MemoryComputeDriver(quota=2)
    compute, spec = Compute(driver), small_fleet(count=3)
    with pytest.raises(QuotaExceeded, match="'conf-2' in fleet 'conf'"):
        compute.create(spec)
    assert len(compute.fleet("conf").wait()) == 2
    driver._quota = 3
    (change,) = compute.diff(spec)
    compute.apply(change)
    assert [machine.name for machine in compute.fleet("conf").wait()] == ["conf-0", "conf-1", "conf-2"]


class Dropping(MemoryComputeDriver):
    """Loses the answer to every second creation, after it has happened."""

    calls = 0

    def create_machine(self, spec: FleetSpec, name: str, **more: Any) -> MachineInfo:
        made = super().create_machine(spec, name, **more)
        type(self).calls += 1
        if self.calls % 2:
            raise MemoryFault(Fault(Unavailable, "the connection broke"))
        return made


def test_lost_answers_end_in_as_many_machines_as_declared() -> None:
    compute, spec, failures = Compute(Dropping()), small_fleet(count=5), 0
    for _ in range(10):
        try:
            for change in compute.diff(spec):
                compute.apply(change)
            break
        except Unavailable:
            failures += 1
    assert failures == 3
    assert [machine.name for machine in compute.fleet("conf").wait()] == [f"conf-{number}" for number in range(5)]


def test_any_sequence_of_declarations_leaves_the_machines_that_are_declared() -> None:
    quick = settings(max_examples=30, stateful_step_count=15, deadline=None, database=None, derandomize=True)
    clock = Clock()

    def slow() -> ComputeDriver:
        return MemoryComputeDriver(clock=clock, delay=timedelta(minutes=1), page_size=2)

    run_state_machine_as_test(compute_machine(slow, clock.sleep), settings=quick)
    run_state_machine_as_test(compute_machine(lambda: MemoryComputeDriver(LESSER, page_size=2)), settings=quick)


class ListsTwo(MemoryComputeDriver):
    """A driver that breaks a rule: its listing ends after two machines."""

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Any:
        page = super().machines(fleet, cursor=cursor, limit=limit)
        return Page(page.items[:2])


def test_the_machine_finds_a_driver_that_breaks_a_rule() -> None:
    search = settings(max_examples=100, phases=[Phase.generate], deadline=None, database=None, derandomize=True)
    with pytest.raises((AssertionError, OperationError)):
        run_state_machine_as_test(compute_machine(ListsTwo), settings=search)


# debris


def test_what_a_creation_left_is_swept_when_it_is_old() -> None:
    driver = MemoryComputeDriver(breaking={"conf-1"})
    compute = Compute(driver)
    with pytest.raises(Unavailable, match="'conf-1' in fleet 'conf'"):
        compute.create(small_fleet(count=3))
    (left,) = compute.debris()
    assert str(left) == "disk conf-1-root of fleet conf"
    assert compute.sweep() == ()
    assert compute.sweep(older_than=timedelta(0)) == (left,)
    assert list(compute.debris()) == []
    assert [machine.name for machine in compute.fleet("conf").machines()] == ["conf-0"]


def test_what_has_no_age_is_swept_only_by_who_sweeps_all() -> None:
    driver = MemoryComputeDriver(quota=0)
    compute = Compute(driver)
    with pytest.raises(QuotaExceeded):
        compute.create(attrs.evolve(small_fleet(), open_ports=(22,)))
    assert [(left.kind, left.created) for left in compute.debris()] == [("firewall", None)]
    assert compute.sweep(older_than=timedelta(seconds=1)) == ()
    assert [left.name for left in compute.sweep(older_than=timedelta(0))] == ["conf"]
    assert driver._firewalls == {}


def test_a_deletion_that_was_interrupted_is_ended_by_the_next() -> None:
    driver = MemoryComputeDriver()
    compute = Compute(driver)
    compute.create(small_fleet())
    for machine in compute.fleet("conf").machines():
        machine.delete()
    assert [left.kind for left in compute.debris()] == ["firewall"]
    with pytest.raises(NotFound):
        compute.delete("conf")
    assert list(compute.debris()) == []
