"""Fleets converge whatever goes wrong on the way: lost answers, failures, interruptions, two who apply at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.compute import Compute, FleetSpec, MachineInfo, Size
from shiftable.compute._rules import in_order, missing, number_of, surplus
from shiftable.compute.driver import GIB
from shiftable.errors import (
    Conflict,
    Fault,
    InvalidArgument,
    OperationError,
    QuotaExceeded,
    ShiftableError,
    Unavailable,
)
from shiftable.memory._faults import MemoryFault
from shiftable.memory.compute import MemoryComputeDriver
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.wrap import Call, Recorded

from .clocks import Clock

CHANGING = ("create", "update", "destroy", "create_machine", "delete_machine", "stop", "start", "resize", "relabel")


class Broken(MemoryComputeDriver):
    """Fails at the n-th call that changes something: before it happens, or after, so that the answer is lost.

    It also keeps the least number of machines that ran at any time after the first call of ``watch``.
    """

    at: int | None = None
    after = False
    error: BaseException = MemoryFault(Fault(Unavailable, "the connection broke"))
    count = 0
    made = 0
    failed = ""
    least: int | None = None

    def step(self, act: Callable[[], Any], name: str) -> Any:
        self.count += 1
        fails = self.count == self.at
        self.failed = name if fails else self.failed
        if fails and not self.after:
            raise self.error
        answer = act()
        self.made += name == "create_machine"
        if self.least is not None:
            running = sum(machine.state == "running" for machine in everything(self))
            self.least = min(self.least, running)
        if fails:
            raise self.error
        return answer


def _wrapped(name: str) -> Callable[..., Any]:
    def call(self: Broken, *args: Any, **more: Any) -> Any:
        return self.step(lambda: getattr(MemoryComputeDriver, name)(self, *args, **more), name)

    return call


for _name in CHANGING:
    setattr(Broken, _name, _wrapped(_name))


def everything(driver: MemoryComputeDriver) -> tuple[MachineInfo, ...]:
    return MemoryComputeDriver.machines(driver, None, cursor=None, limit=None).items


def breaking(*, after: bool = False, error: BaseException = Broken.error) -> Broken:
    """Return a driver that begins to fail when its ``at`` is set."""
    made = Broken()
    made.after, made.error = after, error
    return made


def converge(compute: Compute, spec: FleetSpec, *, attempts: int = 20) -> int:
    """Plan and apply until nothing is left to do; return how often that failed."""
    failures = 0
    for _ in range(attempts):
        try:
            for change in compute.diff(spec):
                compute.apply(change)
            compute.settle(spec)
        except OperationError:
            failures += 1
        if compute.diff(spec) == ():
            return failures
    raise AssertionError(f"it did not converge in {attempts} attempts")


def shape(compute: Compute, name: str = "conf") -> list[tuple[str, str, int, str]]:
    return [(info.name, info.image, info.cpus, info.state) for info in compute.fleet(name).info()]


START = small_fleet(count=3)
NEXT = {
    "create": (None, START),
    "more": (START, attrs.evolve(START, count=5)),
    "fewer": (START, attrs.evolve(START, count=1)),
    "image": (START, attrs.evolve(START, image="ubuntu-24.04")),
    "size": (START, attrs.evolve(START, cpus=2, memory_gib=2)),
    "ports": (START, attrs.evolve(START, open_ports=(443,))),
    "labels": (attrs.evolve(START, labels={"team": "shop"}), attrs.evolve(START, labels={"team": "data", "a": "b"})),
    "more-image": (START, attrs.evolve(START, count=4, image="ubuntu-24.04")),
    "all": (START, attrs.evolve(START, count=2, image="ubuntu-24.04", cpus=4, open_ports=(22,), labels={"a": "b"})),
}


def calls_of(begin: FleetSpec | None, wanted: FleetSpec) -> int:
    driver = breaking()
    compute = Compute(driver)
    if begin is not None:
        compute.create(begin)
    before = driver.count
    converge(compute, wanted)
    return driver.count - before


CASES = [
    pytest.param(begin, wanted, at, after, id=f"{kind}-{at}-{'after' if after else 'before'}")
    for kind, (begin, wanted) in NEXT.items()
    for at in range(1, calls_of(begin, wanted) + 1)
    for after in (False, True)
]


@pytest.mark.parametrize(("begin", "wanted", "at", "after"), CASES)
def test_a_call_that_fails_at_any_point_leaves_what_the_next_apply_ends(
    begin: FleetSpec | None, wanted: FleetSpec, at: int, *, after: bool
) -> None:
    driver = breaking(after=after)
    compute = Compute(driver)
    if begin is not None:
        compute.create(begin)
    driver.at = driver.count + at
    converge(compute, wanted)
    if driver.failed == "start" and not after:  # what one who applies again cannot know
        compute.fleet("conf").start()
    cpus = max(1, wanted.cpus)
    assert [(f"conf-{number}", wanted.image, cpus, "running") for number in range(wanted.count)] == shape(compute)
    assert driver.count >= at
    assert len(everything(driver)) == wanted.count
    if wanted.image == START.image:  # no machine was made twice
        assert driver.made == max(3, wanted.count)


@pytest.mark.parametrize(("begin", "wanted", "at", "after"), CASES)
def test_an_interruption_at_any_point_leaves_what_the_next_apply_ends(
    begin: FleetSpec | None, wanted: FleetSpec, at: int, *, after: bool
) -> None:
    driver = breaking(after=after, error=KeyboardInterrupt())
    compute = Compute(driver)
    if begin is not None:
        compute.create(begin)
    driver.at = driver.count + at
    with pytest.raises(KeyboardInterrupt):
        converge(compute, wanted)
    converge(compute, wanted)
    if driver.failed == "start" and not after:
        compute.fleet("conf").start()
    assert [(f"conf-{number}", wanted.image, "running") for number in range(wanted.count)] == [
        (name, image, state) for name, image, _, state in shape(compute)
    ]
    assert compute.diff(wanted) == ()


@pytest.mark.parametrize(("begin", "wanted", "at", "after"), CASES)
def test_the_change_that_failed_may_be_applied_again(
    begin: FleetSpec | None, wanted: FleetSpec, at: int, *, after: bool
) -> None:
    driver = breaking(after=after)
    compute = Compute(driver)
    if begin is not None:
        compute.create(begin)
    changes = compute.diff(wanted)
    driver.at = driver.count + at

    failures = 0
    for change in changes:
        try:
            compute.apply(change)
        except Unavailable:
            failures += 1
            compute.apply(change)
    assert failures == 1
    made = driver.made
    if driver.failed == "start" and not after:
        compute.fleet("conf").start()
    assert [f"conf-{number}" for number in range(wanted.count)] == [name for name, *_ in shape(compute)]
    assert compute.diff(wanted) == ()
    for change in changes:
        compute.apply(change)
    assert driver.made == made


def test_a_machine_that_cannot_be_labelled_hinders_no_other() -> None:
    driver = breaking()
    fleet = Compute(driver).create(START)
    driver.at = driver.count + 2
    with pytest.raises(Unavailable):
        fleet.relabel({"team": "data"})
    assert [{}, {"team": "data"}, {"team": "data"}] == sorted((each.user_labels for each in fleet.info()), key=len)
    fleet.relabel({"team": "data"})
    assert [{"team": "data"}] * 3 == [each.user_labels for each in fleet.info()]


def test_a_plan_of_labels_is_stale_when_somebody_else_has_changed_them() -> None:
    compute = Compute(MemoryComputeDriver())
    fleet = compute.create(attrs.evolve(START, labels={"team": "shop"}))
    (change,) = compute.diff(attrs.evolve(START, labels={"team": "data"}))
    fleet.relabel({"team": "theirs"})
    with pytest.raises(Conflict, match="labels; compare again"):
        compute.apply(change)
    assert [{"team": "theirs"}] * 3 == [each.user_labels for each in fleet.info()]


def test_labels_that_are_not_declared_are_nobodys_change() -> None:
    compute = Compute(MemoryComputeDriver())
    spec = attrs.evolve(START, labels={"team": "shop"})
    fleet = compute.create(spec)
    fleet.relabel({"cost-center": "7"})
    assert () == compute.diff(spec)
    (change,) = compute.diff(attrs.evolve(spec, labels={"stage": "live"}))
    assert [("labels", {}, {"stage": "live"})] == [(each.name, each.before, each.after) for each in change.fields]
    compute.apply(change)
    expected = {"team": "shop", "cost-center": "7", "stage": "live"}
    assert [expected] * 3 == [each.user_labels for each in fleet.info()]


def test_machines_are_made_anew_one_after_another() -> None:
    driver = breaking()
    compute = Compute(driver)
    compute.create(START)
    driver.least = 3
    (change,) = compute.diff(attrs.evolve(START, image="ubuntu-24.04"))
    compute.apply(change)
    assert driver.least == 2
    compute.apply(change)  # again: there is nothing left to do
    assert driver.made == 6


def test_a_rolling_change_may_be_applied_again_after_an_interruption() -> None:
    driver = breaking(after=True, error=KeyboardInterrupt())
    compute = Compute(driver)
    compute.create(START)
    (change,) = compute.diff(attrs.evolve(START, image="ubuntu-24.04"))
    driver.at = driver.count + 4  # the second machine is deleted
    with pytest.raises(KeyboardInterrupt):
        compute.apply(change)
    assert len(everything(driver)) == 2
    compute.apply(change)
    assert {image for _, image, *_ in shape(compute)} == {"ubuntu-24.04"}
    assert len(everything(driver)) == 3


ANEW = attrs.evolve(START, image="ubuntu-24.04")


def states(compute: Compute) -> dict[str, tuple[str, str]]:
    return {name: (image, state) for name, image, _, state in shape(compute)}


@pytest.mark.parametrize("again", ["the same change", "a new one"])
def test_a_replacement_that_is_refused_again_and_again_costs_no_second_machine(again: str) -> None:
    driver = MemoryComputeDriver()
    compute = Compute(driver)
    compute.create(START)
    (change,) = compute.diff(ANEW)
    driver._quota = 2
    with pytest.raises(QuotaExceeded) as caught:
        compute.apply(change)
    assert (
        "compute.create on machine 'conf-0' in fleet 'conf' (memory): the account has 2 CPUs, which is the limit; "
        "the old conf-0 is deleted, and conf-1, conf-2 are as before; "
        "`shiftable compute replace`, or apply() of each diff(), goes on with what is missing"
    ) == str(caught.value)
    for _ in range(3):
        with pytest.raises(QuotaExceeded, match="'conf-0'"):
            compute.apply(change if again == "the same change" else compute.diff(ANEW)[0])
        assert {"conf-1": ("debian-12", "running"), "conf-2": ("debian-12", "running")} == states(compute)
    driver._quota = 3
    for each in [change] if again == "the same change" else compute.diff(ANEW):
        compute.apply(each)
    assert [("ubuntu-24.04", "running")] * 3 == list(states(compute).values())


def test_a_replacement_that_fails_while_it_is_made_costs_no_second_machine() -> None:
    driver = MemoryComputeDriver()
    compute = Compute(driver)
    compute.create(START)
    driver._failing = {"conf-0"}
    (change,) = compute.diff(ANEW)
    with pytest.raises(Conflict, match=r"it failed .*; the old conf-0 is deleted, and conf-1, conf-2 are as before; "):
        compute.apply(change)
    for _ in range(2):
        repair, rest = compute.diff(ANEW)
        compute.apply(repair)
        with pytest.raises(Conflict, match="'conf-0'.* failed"):
            compute.apply(rest)
        assert ("debian-12", "running") == states(compute)["conf-1"] == states(compute)["conf-2"]
    driver._failing = ()
    assert 0 == converge(compute, ANEW)


def test_nothing_is_deleted_before_what_is_missing_runs() -> None:
    clock = Clock()
    recorded = Recorded(MemoryComputeDriver(clock=clock, delay=timedelta(minutes=1)))
    compute = Compute(recorded.driver, sleep=clock.sleep)
    compute.create(START).wait()
    living: list[dict[str, tuple[str, str]]] = []

    def look(_call: Call, proceed: Callable[[], Any]) -> Any:
        living.append(states(compute))
        return proceed()

    recorded.on("delete_machine", look)
    for change in compute.diff(attrs.evolve(ANEW, count=5)):
        compute.apply(change)
    old, new = ("debian-12", "running"), ("ubuntu-24.04", "running")
    assert [[old, old, old, new, new], [new, old, old, new, new], [new, new, old, new, new]] == [
        list(each.values()) for each in living
    ]


def test_more_machines_that_cannot_be_made_are_told_before_another_is_deleted() -> None:
    driver = MemoryComputeDriver(quota=3)
    compute = Compute(driver)
    before = compute.create(START).wait()
    changes = compute.diff(attrs.evolve(ANEW, count=4))
    with pytest.raises(QuotaExceeded, match="'conf-3'"):
        compute.apply(changes[0])
    assert before == compute.fleet("conf").info()


def test_a_failed_machine_that_cannot_be_made_anew_is_told_as_deleted() -> None:
    driver = MemoryComputeDriver(failing={"conf-1"})
    compute = Compute(driver)
    compute.apply(compute.diff(START)[0])
    driver._failing, driver._quota = (), 2
    (repair,) = compute.diff(START)
    with pytest.raises(QuotaExceeded, match="which is the limit; the old conf-1 is deleted; `shiftable compute"):
        compute.apply(repair)
    assert {"conf-0", "conf-2"} == states(compute).keys()


def test_a_machine_that_cannot_be_resized_runs_again() -> None:
    class Full(MemoryComputeDriver):
        def resize(self, id: str, size: Size) -> None:
            raise MemoryFault(Fault(QuotaExceeded, "no room for it"))

    compute = Compute(Full())
    compute.create(START)
    with pytest.raises(QuotaExceeded, match=r"compute\.resize on machine 'conf-0' in fleet 'conf'"):
        compute.apply(compute.diff(attrs.evolve(START, cpus=2))[0])
    assert {state for *_, state in shape(compute)} == {"running"}
    compute.fleet("conf").stop()
    with pytest.raises(QuotaExceeded):
        compute.fleet("conf").machine("conf-0").resize(cpus=2)
    assert {state for *_, state in shape(compute)} == {"stopped"}


# machines that failed


def test_a_machine_that_failed_is_made_anew_by_a_step_that_destroys() -> None:
    driver = MemoryComputeDriver(failing={"conf-2"})
    compute = Compute(driver)
    compute.apply(compute.diff(START)[0])
    driver._failing = ()
    kept = {info.name: info.id for info in compute.fleet("conf").info()}
    (change,) = compute.diff(START)
    assert (change.destroys, change.reason) == (True, "conf-2 failed, and is made anew")
    assert [(field.name, field.before, field.after) for field in change.fields] == [("count", 2, 3)]
    compute.apply(attrs.evolve(change, destroys=False))  # which leaves them alone
    assert {info.name: info.id for info in compute.fleet("conf").info()} == kept
    compute.apply(change)
    compute.apply(change)
    now = {info.name: info.id for info in compute.fleet("conf").wait()}
    assert now.keys() == kept.keys()
    assert {name for name in now if now[name] != kept[name]} == {"conf-2"}
    assert compute.diff(START) == ()


def test_a_machine_that_failed_stays_until_it_is_known_that_another_can_be_made() -> None:
    driver = MemoryComputeDriver(failing={"conf-2"})
    compute = Compute(driver)
    compute.apply(compute.diff(START)[0])
    before = compute.fleet("conf").info()
    repair, _ = compute.diff(attrs.evolve(START, image="debian-99"))
    with pytest.raises(InvalidArgument, match="debian-99"):
        compute.apply(repair)
    assert compute.fleet("conf").info() == before


def test_machines_that_failed_are_the_first_to_go() -> None:
    driver = MemoryComputeDriver(failing={"conf-0"})
    compute = Compute(driver)
    compute.apply(compute.diff(START)[0])
    (change,) = compute.diff(attrs.evolve(START, count=2))
    assert change.reason == "conf-0 is deleted"
    compute.apply(change)
    assert [name for name, *_ in shape(compute)] == ["conf-1", "conf-2"]


def test_a_failed_machine_does_not_keep_the_fleet_from_growing_or_changing() -> None:
    driver = MemoryComputeDriver(failing={"conf-1"})
    compute = Compute(driver)
    compute.apply(compute.diff(START)[0])
    driver._failing = ()
    wanted = attrs.evolve(START, count=5, image="ubuntu-24.04", cpus=2, memory_gib=2)
    changes = compute.diff(wanted)
    assert changes[0].reason == "conf-1 failed, and is made anew"
    for change in changes:
        compute.apply(change)
    assert shape(compute) == [(f"conf-{number}", "ubuntu-24.04", 2, "running") for number in range(5)]
    driver._failing = {"conf-5"}
    compute.apply(compute.diff(attrs.evolve(wanted, count=6))[0])
    driver._failing = ()
    grown = attrs.evolve(wanted, count=7)
    repair, more = compute.diff(grown)
    compute.apply(more)  # who does not want to destroy anything still gets the seventh
    assert [name for name, *_ in shape(compute)] == [f"conf-{number}" for number in range(7)]
    compute.apply(compute.diff(grown)[0])
    assert {state for *_, state in shape(compute)} == {"running"}
    with pytest.raises(Conflict, match="compare again"):
        compute.apply(repair)


# quotas


@pytest.mark.parametrize("quota", [0, 1, 2])
def test_a_quota_that_ends_halfway_leaves_what_it_allowed(quota: int) -> None:
    driver = MemoryComputeDriver(quota=quota)
    compute = Compute(driver)
    with pytest.raises(QuotaExceeded, match=f"'conf-{quota}' in fleet 'conf'"):
        compute.apply(compute.diff(START)[0])
    assert [info.name for info in compute.fleet("conf").info()] == [f"conf-{number}" for number in range(quota)]
    driver._quota = 3
    assert converge(compute, START) == 0
    assert len(everything(driver)) == 3


# two at once


class Slow(MemoryComputeDriver):
    """Lets others in between two calls, and keeps the largest number of machines that there ever were."""

    most = 0

    def create_machine(self, spec: FleetSpec, name: str, **more: Any) -> MachineInfo:
        made = super().create_machine(spec, name, **more)
        self.most = max(self.most, len(everything(self)))
        return made


@pytest.mark.parametrize("kind", sorted(NEXT))
def test_two_who_apply_at_once_end_with_one_fleet(kind: str) -> None:
    begin, wanted = NEXT[kind]
    driver = Slow()
    compute = Compute(driver)
    if begin is not None:
        compute.create(begin)
    changes = compute.diff(wanted)
    together, unexpected = threading.Barrier(2), list[BaseException]()

    def apply() -> None:
        together.wait()
        try:
            for change in changes:
                Compute(driver).apply(change)
        except ShiftableError:  # the other one was faster: a conflict, or a machine that is gone
            pass
        except BaseException as exc:  # noqa: BLE001  told by the test
            unexpected.append(exc)

    threads = [threading.Thread(target=apply) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unexpected == []
    converge(compute, wanted)
    assert [name for name, *_ in shape(compute)] == [f"conf-{number}" for number in range(wanted.count)]
    assert driver.most <= max(wanted.count, begin.count if begin else 0)


# how many calls


class Counting(MemoryComputeDriver):
    """Counts its listings and what is asked of single machines."""

    listings = 0
    single = 0

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Any:
        self.listings += 1
        return super().machines(fleet, cursor=cursor, limit=limit)

    def machine(self, id: str) -> MachineInfo:
        self.single += 1
        return super().machine(id)


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda compute, _: list(compute.machines()), id="machines"),
        pytest.param(lambda compute, _: list(compute.fleet("conf").machines()), id="fleet"),
        pytest.param(lambda compute, _: compute.fleet("conf").info(), id="info"),
        pytest.param(lambda compute, _: compute.fleet("conf").wait(), id="wait"),
        pytest.param(lambda compute, spec: compute.settle(spec), id="settle"),
        pytest.param(lambda compute, _: list(compute.list()), id="list"),
        pytest.param(lambda compute, _: compute.describe("conf"), id="describe"),
        pytest.param(lambda compute, spec: compute.diff(spec), id="diff"),
        pytest.param(lambda compute, _: compute.fleet("conf").machine("conf-249"), id="machine"),
    ],
)
def test_250_machines_are_seen_in_three_calls(act: Callable[[Compute, FleetSpec], object]) -> None:
    driver, spec = Counting(), small_fleet(count=250)
    compute = Compute(driver)
    compute.create(spec)
    driver.listings = driver.single = 0
    act(compute, spec)
    assert (driver.listings, driver.single) == (3, 0)


def test_a_limit_costs_no_more_calls_than_it_needs() -> None:
    driver = Counting()
    compute = Compute(driver)
    compute.create(small_fleet(count=250))
    driver.listings = 0
    assert len(list(compute.machines(limit=100))) == 100
    assert driver.listings == 1


# names


@pytest.mark.parametrize(
    "name",
    [
        *("web/../x", "web\n", "web\0", "we b", "-web", "web-", "web--a", "WEB", "wéb", "web;id", "$(id)", "web%2f"),
        *("-oProxyCommand=x", "..", "", "0web", "web_1", "w" * 59),
    ],
)
def test_a_name_that_would_break_something_is_refused_before_anything_is_sent(name: str) -> None:
    driver = breaking()
    compute = Compute(driver)
    spec = attrs.evolve(START, name=name)
    for call in (
        lambda: compute.create(spec),
        lambda: compute.fleet(name),
        lambda: compute.delete(name),
        lambda: compute.describe(name),
        lambda: compute.choose(spec),
    ):
        with pytest.raises(InvalidArgument):
            call()
    assert driver.count == 0


def named(name: str) -> MachineInfo:
    return MachineInfo(
        id=name, name=name, fleet="conf", state="running", raw_state="", size="s", cpus=1, memory=GIB, image="i"
    )


@pytest.mark.parametrize(
    "stray", ["conf-", "conf-+1", "conf-1_0", "conf-٣", "conf-²", "conf- 1", "conf", "other-1", "conf-1\n", "conf-1e3"]
)
def test_a_machine_that_is_called_otherwise_has_no_number(stray: str) -> None:
    assert number_of("conf", stray) == 2**31
    machines = [named(stray), named("conf-1"), named("conf-0")]
    assert [machine.name for machine in in_order("conf", machines)] == ["conf-0", "conf-1", stray]
    assert [machine.name for machine in surplus(small_fleet(count=2), machines)] == [stray]


@given(st.sets(st.text(max_size=4), max_size=6), st.integers(0, 6))
def test_as_many_new_names_as_are_missing_and_none_that_is_taken(endings: set[str], count: int) -> None:
    taken = {f"conf-{ending}" for ending in endings}
    spec = small_fleet(count=count)
    new = missing(spec, [named(name) for name in taken], frozenset(taken))
    assert len(set(new)) == len(new) == max(0, count - len(taken))
    assert not taken & set(new)


def test_a_stray_of_the_fleet_counts_and_is_the_first_to_go() -> None:
    driver = MemoryComputeDriver()
    compute = Compute(driver)
    compute.create(START)
    entry = driver._entries["machine-1"]
    entry.info = attrs.evolve(entry.info, name="conf-\u0660\x1b[2J")
    assert compute.diff(START) == ()
    (change,) = compute.diff(attrs.evolve(START, count=2))
    compute.apply(change)
    assert [name for name, *_ in shape(compute)] == ["conf-1", "conf-2"]


# answers that lie


def test_a_machine_that_is_listed_late_is_waited_for() -> None:
    """A listing may be older than what the machine itself tells; waiting ends all the same."""

    class Lagging(Counting):
        def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Any:
            page = super().machines(fleet, cursor=cursor, limit=limit)
            return attrs.evolve(page, items=tuple(attrs.evolve(each, state="creating") for each in page.items))

    driver = Lagging()
    compute = Compute(driver)
    compute.create(START)
    driver.listings = 0
    assert {info.state for info in compute.fleet("conf").wait()} == {"running"}
    assert driver.listings == 4


def test_a_sweep_deletes_what_is_old_alone() -> None:
    now = datetime.now(UTC)
    times: Iterator[datetime] = iter([now - timedelta(hours=5), now - timedelta(minutes=1)])
    driver = MemoryComputeDriver(breaking={"a-0", "b-0"})
    compute = Compute(driver)
    for name in ("a", "b"):
        with pytest.raises(Unavailable):
            compute.create(small_fleet(name))
    driver._debris = {id_: attrs.evolve(left, created=next(times)) for id_, left in driver._debris.items()}
    driver._firewalls.clear()
    assert [left.fleet for left in compute.debris()] == ["a", "b"]
    assert [left.fleet for left in compute.debris(limit=1)] == ["a"]
    assert [left.fleet for left in compute.sweep()] == ["a"]
    assert [left.fleet for left in compute.debris()] == ["b"]
