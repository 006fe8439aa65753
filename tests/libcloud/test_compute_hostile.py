"""Lost answers, refusals, other people's machines: no second machine, nothing open, nothing left that nobody finds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest

from shiftable.compute import Compute, FleetSpec, Rule
from shiftable.compute._rules import token_of
from shiftable.config import Credential
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.parallel import parallel
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.harness import Call, Kind
from shiftable_libcloud import LibcloudProvider, LibcloudSettings, _double_droplets, _double_linodes
from shiftable_libcloud._machines import HosterCompute
from shiftable_libcloud.compute import DropletDriver
from shiftable_libcloud.double import DigitalOceanDouble, HosterDouble

from .hostile import FAULT_IDS, FAULTS, LIMITED, counted, inject, machines, names, of, refusal, walls

CANARY = "canary-in-the-user-data"
MADE = {
    "digitalocean": [
        "droplets.create",
        "droplets.list",
        "firewalls.create",
        "firewalls.list",
        "tags.create",
        "sizes.list",
    ],
    "linode": [
        "linodes.create",
        "linodes.list",
        "firewalls.create",
        "firewalls.list",
        "types.list",
        "regions.list",
        "regions.availability",
    ],
}
DELETED = {
    "digitalocean": ["droplets.delete", "firewalls.delete", "tags.delete"],
    "linode": ["linodes.delete", "firewalls.delete"],
}
WRITES = {"digitalocean": 5, "linode": 4}
REBOOT = {"digitalocean": "actions.create", "linode": "linodes.reboot"}
SIZES = {"digitalocean": "sizes.list", "linode": "types.list"}
FULL = {"digitalocean": "will exceed your droplet limit", "linode": "Account Limit reached"}
each_hoster = pytest.mark.parametrize("hoster", list(MADE), indirect=True)


def with_each(of_hoster: dict[str, list[str]]) -> pytest.MarkDecorator:
    """Run a test for each kind of call that a hoster knows."""
    pairs = [(hoster, operation) for hoster, operations in of_hoster.items() for operation in operations]
    ids = [f"{hoster}-{operation}" for hoster, operation in pairs]
    return pytest.mark.parametrize(("hoster", "operation"), pairs, indirect=["hoster"], ids=ids)


@pytest.fixture
def open_driver(hoster: HosterDouble, open_service: Callable[..., Any]) -> Callable[..., HosterCompute[Any]]:
    def open_it(**settings: Any) -> HosterCompute[Any]:
        driver = open_service("compute", hoster, **settings)
        assert isinstance(driver, HosterCompute)
        return driver

    return open_it


@pytest.fixture
def driver(open_driver: Callable[..., HosterCompute[Any]]) -> HosterCompute[Any]:
    return open_driver()


@pytest.fixture
def compute(driver: HosterCompute[Any]) -> Compute:
    return Compute(driver, sleep=lambda _seconds: None)


# making


@pytest.mark.parametrize(("kind", "more"), FAULTS, ids=FAULT_IDS)
@with_each(MADE)
def test_a_fault_that_passes_makes_no_second_machine_and_no_second_firewall(
    hoster: HosterDouble, compute: Compute, kind: Kind, more: dict[str, Any], operation: str
) -> None:
    met = [inject(hoster, kind, match=of(operation), **more) for _ in range(2)]
    fleet = compute.create(small_fleet(count=2))
    assert ["conf-0", "conf-1"] == [machine.name for machine in fleet.wait()]
    assert met[0].hits == 1
    assert ["conf-0", "conf-1"] == names(hoster)
    assert 1 == len(walls(hoster))
    assert () == compute.diff(small_fleet(count=2))


@pytest.mark.parametrize(("kind", "more"), FAULTS, ids=FAULT_IDS)
@with_each(DELETED)
def test_a_fault_that_passes_leaves_nothing_of_what_is_deleted(
    hoster: HosterDouble, compute: Compute, kind: Kind, more: dict[str, Any], operation: str
) -> None:
    compute.create(small_fleet(count=2)).wait()
    inject(hoster, kind, match=of(operation), times=2, **more)
    compute.delete("conf")
    assert ({}, {}) == (machines(hoster), walls(hoster))
    assert [] == list(compute.debris())


@pytest.mark.parametrize(
    ("hoster", "at"), [(name, at) for name, count in WRITES.items() for at in range(count)], indirect=["hoster"]
)
def test_a_creation_that_fails_halfway_leaves_nothing_that_is_not_found(
    hoster: HosterDouble, open_driver: Callable[..., HosterCompute[Any]], at: int
) -> None:
    """Refused for good at each write in turn: what is there afterwards is a fleet's, or debris."""
    compute = Compute(open_driver(retry_seconds=0.0), sleep=lambda _seconds: None)
    writes = list[Call]()

    def is_turn(call: Call) -> bool:
        if call.method != "GET":
            writes.append(call)
        return call.method != "GET" and len(writes) > at

    met = inject(hoster, "status", match=is_turn, times=None, **refusal(403, "forbidden", "no"))
    spec = small_fleet(count=3)
    with pytest.raises(PermissionDenied):
        compute.create(spec)
    assert met.hits
    met.times = 0
    fleets = [fleet.name for fleet in compute.list()]
    if fleets:
        compute.delete("conf")
    compute.sweep(older_than=timedelta(0))
    assert ({}, {}) == (machines(hoster), walls(hoster))


@each_hoster
def test_another_machine_of_the_fleet_with_that_name_is_not_taken_for_ours(
    hoster: HosterDouble, compute: Compute, driver: HosterCompute[Any]
) -> None:
    compute.create(small_fleet()).wait()
    size = driver.choose(small_fleet()).size
    with pytest.raises(Exception) as caught:  # noqa: PT011  native
        driver.create_machine(small_fleet(), "conf-0", size=size, token=token_of("other"), user_data=None)
    fault = driver.classify(caught.value)
    assert fault is not None
    assert AlreadyExists is fault.error
    assert ["conf-0"] == names(hoster)


@each_hoster
def test_a_creation_that_ends_in_an_error_is_failed_and_made_anew(hoster: HosterDouble, compute: Compute) -> None:
    account: Any = hoster
    account.machines.erring = frozenset({"conf-0"})
    fleet = compute.create(small_fleet())
    (seen,) = fleet.machines()
    assert ("creating", "failed") == (seen.seen.state, seen.info().state)
    for row in machines(hoster).values():
        row["created_at" if "created_at" in row else "created"] = "2026-01-01T00:00:00+00:00"
    (late,) = fleet.machines()
    assert "failed" == late.seen.state
    (change,) = compute.diff(small_fleet())
    assert change.destroys

    def mends(call: Call) -> bool:
        if call.operation == MADE[hoster.config["hoster"]][0]:
            account.machines.erring = frozenset()
        return False

    inject(hoster, "latency", match=mends, times=None)
    compute.apply(change)
    assert ["running"] == [machine.state for machine in fleet.wait()]
    assert late.id not in {machine.id for machine in fleet.machines()}


@each_hoster
def test_a_full_account_is_a_quota(hoster: HosterDouble, compute: Compute) -> None:
    hoster.machines.limit = 1  # type: ignore[attr-defined]  # of each double with machines
    with pytest.raises(QuotaExceeded, match=FULL[hoster.config["hoster"]]):
        compute.create(small_fleet(count=2))
    assert ["conf-0"] == names(hoster)
    compute.delete("conf")


@each_hoster
def test_what_comes_too_fast_for_long_is_throttled(
    hoster: HosterDouble, open_driver: Callable[..., HosterCompute[Any]]
) -> None:
    compute = Compute(open_driver(retry_seconds=0.0))
    inject(hoster, "status", times=None, **LIMITED)
    with pytest.raises(Throttled):
        list(compute.machines())


@each_hoster
def test_a_reboot_whose_answer_is_lost_is_not_sent_twice(hoster: HosterDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    inject(hoster, "drop_after", match=of(REBOOT[hoster.config["hoster"]]), times=None)
    with pytest.raises(Unavailable):
        fleet.machine("conf-0").reboot()
    assert 1 == counted(hoster)[REBOOT[hoster.config["hoster"]]]


@each_hoster
@pytest.mark.parametrize("id", ["x", "", "1/../2", "¹", "-1", "999"])
def test_an_id_that_is_none_is_missing(driver: HosterCompute[Any], id: str) -> None:
    for call in (driver.machine, driver.delete_machine, driver.reboot):
        with pytest.raises(Exception) as caught:  # noqa: PT011  native
            call(id)
        fault = driver.classify(caught.value)
        assert fault is not None
        assert NotFound is fault.error


@each_hoster
def test_a_wrong_token_and_a_reading_one(hoster: HosterDouble, open_driver: Callable[..., HosterCompute[Any]]) -> None:
    with pytest.raises(Unauthenticated):
        list(Compute(open_driver(token=Credential.literal("dop_v1_" + "0" * 64))).machines())
    reading = Compute(open_driver(token=Credential.literal(hoster.reading_token)))
    assert [] == list(reading.machines())
    with pytest.raises(PermissionDenied):
        reading.create(small_fleet())


# what is open


@each_hoster
def test_a_firewall_that_somebody_deleted_is_seen_and_made_again(hoster: HosterDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    hoster.machines.firewalls.clear()  # type: ignore[attr-defined]  # of each double with machines
    assert ["1-65535/tcp from 0.0.0.0/0, ::/0", "1-65535/udp from 0.0.0.0/0, ::/0"] == list(
        map(str, fleet.machine("conf-0").info().firewall)
    )
    for change in compute.diff(small_fleet()):
        assert not change.destroys
        compute.apply(change)
    assert () == fleet.machine("conf-0").info().firewall
    assert 1 == len(walls(hoster))


@each_hoster
def test_a_firewall_that_an_older_fleet_left_opens_nothing_for_a_new_one(
    hoster: HosterDouble, compute: Compute, driver: HosterCompute[Any]
) -> None:
    driver.create(attrs.evolve(small_fleet(), open_ports=(22,)))
    (made,) = compute.create(small_fleet()).wait()
    assert () == made.firewall
    assert 1 == len(walls(hoster))


@each_hoster
def test_all_ports_are_told_as_all_ports(hoster: HosterDouble, compute: Compute) -> None:
    spec = attrs.evolve(small_fleet(), rules=(Rule(port=1, last_port=65_535, allow_from=("192.0.2.0/24",)),))
    compute.create(spec).wait()
    assert () == compute.diff(spec)


# what is chosen


@each_hoster
def test_sizes_are_asked_for_once(hoster: HosterDouble, compute: Compute) -> None:
    for _ in range(3):
        compute.choose(small_fleet())
    assert 1 == counted(hoster)[SIZES[hoster.config["hoster"]]]


@each_hoster
def test_an_image_that_is_none_is_refused_before_anything_is_made(hoster: HosterDouble, compute: Compute) -> None:
    with pytest.raises(InvalidArgument, match="there is no image 'no-such-image'; `shiftable compute images` lists"):
        compute.create(attrs.evolve(small_fleet(), image="no-such-image"))
    assert [] == names(hoster) == list(compute.debris())


@each_hoster
def test_no_machine_is_deleted_for_an_image_that_is_none(hoster: HosterDouble, compute: Compute) -> None:
    compute.create(small_fleet()).wait()
    (change,) = compute.diff(attrs.evolve(small_fleet(), image="no-such-image"))
    with pytest.raises(InvalidArgument, match="there is no image 'no-such-image'"):
        compute.apply(change)
    assert ["conf-0"] == names(hoster)


@each_hoster
@pytest.mark.parametrize("state", ["NEW", "pending", "creating"])
def test_an_image_that_is_still_being_made_is_refused_before_anything_is(
    hoster: HosterDouble, compute: Compute, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    double, image = {
        "digitalocean": (_double_droplets, "fedora-42-x64"),
        "linode": (_double_linodes, "linode/fedora42"),
    }[hoster.config["hoster"]]
    told = double._image
    monkeypatch.setattr(double, "_image", lambda name: told(name) | {"status": state if name == image else "available"})
    spec = attrs.evolve(small_fleet(), image=image)
    with pytest.raises(Conflict, match=f"image '{image}' is {state.lower()}, so not ready"):
        compute.create(spec)
    assert [] == names(hoster) == list(compute.debris())
    compute.create(small_fleet()).wait()
    with pytest.raises(Conflict, match="not ready"):
        compute.apply(compute.diff(spec)[0])
    assert ["conf-0"] == names(hoster)


@each_hoster
def test_an_image_by_the_name_of_the_hoster_is_taken(hoster: HosterDouble, compute: Compute) -> None:
    image = {"digitalocean": "ubuntu-24-04-x64", "linode": "linode/ubuntu24.04"}[hoster.config["hoster"]]
    compute.create(attrs.evolve(small_fleet(), image=image)).wait()
    assert ["conf-0"] == names(hoster)


@pytest.mark.parametrize(
    ("hoster", "region", "why"),
    [
        ("digitalocean", "atlantis", "nothing is sold in a region 'atlantis'; there is: fra1, nyc3, sfo3"),
        ("linode", "atlantis", "there is no region 'atlantis'; there is: eu-central, us-east"),
        ("linode", "storage-only", "there is no region 'storage-only'; there is: eu-central, us-east"),
    ],
    indirect=["hoster"],
)
def test_a_region_that_is_none_is_told_with_those_that_there_are_and_nothing_is_made(
    hoster: HosterDouble, open_service: Callable[..., Any], region: str, why: str
) -> None:
    compute = Compute(open_service("compute", hoster, region=region))
    for act in (
        lambda: compute.choose(small_fleet()),
        lambda: list(compute.sizes()),
        lambda: compute.create(small_fleet()),
        lambda: compute.apply(compute.diff(small_fleet())[0]),
    ):
        with pytest.raises(InvalidArgument, match=why):
            act()
    assert [] == list(compute.debris())


def test_of_two_droplets_that_are_made_in_the_same_moment_the_older_stays(
    digitalocean: DigitalOceanDouble, open_service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers = [open_service("compute", digitalocean) for _ in range(2)]
    looked, met, fresh = DropletDriver._made, threading.Barrier(2, timeout=30), set(map(id, drivers))

    def look(driver: DropletDriver, *arguments: Any) -> Any:
        found = looked(driver, *arguments)
        if id(driver) in fresh:
            fresh.discard(id(driver))
            met.wait()  # both have looked before one makes it
        return found

    monkeypatch.setattr(DropletDriver, "_made", look)
    for _, future in list(parallel(lambda driver: Compute(driver).create(small_fleet()), drivers, workers=2)):
        future.result()
    assert 2 == counted(digitalocean)["droplets.create"]
    assert ["conf-0"] == names(digitalocean)
    assert [] == list(Compute(drivers[0]).debris())


@each_hoster
@pytest.mark.parametrize(
    "labels",
    [{"team": "Shop"}, {"Team": "shop"}, {"team": "a b"}, {"team": ""}, {"shiftable-token": "x"}, {"a:b": "c"}],
)
def test_a_label_that_can_be_no_tag_is_refused(hoster: HosterDouble, compute: Compute, labels: dict[str, str]) -> None:
    with pytest.raises(Unsupported, match="for the label|room for a label"):
        compute.create(attrs.evolve(small_fleet(), labels=labels))
    assert [] == names(hoster)


# secrets and settings


@each_hoster
def test_user_data_and_the_token_are_nowhere_to_be_seen(
    hoster: HosterDouble, open_driver: Callable[..., HosterCompute[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    driver = open_driver(retry_seconds=0.0)
    compute, seen = Compute(driver), list[str]()
    spec = attrs.evolve(small_fleet(), user_data_text=f"#!/bin/sh\n# {CANARY}\n")
    for kind, more in FAULTS:
        inject(hoster, kind, match=of(MADE[hoster.config["hoster"]][0]), times=None, **more)
    with pytest.raises(OperationError) as caught:
        compute.create(spec)
    exc: BaseException | None = caught.value
    while exc is not None:
        seen += [repr(exc), str(exc), repr(vars(exc))]
        exc = exc.__cause__ or exc.__context__
    kept = [repr(vars(api.connection)) for api in driver._pool._idle]
    assert kept
    text = "".join([*seen, repr(driver), repr(compute), repr(spec), caplog.text])
    assert CANARY not in "".join(kept)
    assert CANARY not in text
    assert hoster.token not in text
    assert not [call for call in hoster.calls if CANARY in call.path + call.query]


@each_hoster
def test_machines_need_a_region(hoster: HosterDouble) -> None:
    with pytest.raises(ConfigError, match="region"):
        LibcloudProvider(LibcloudSettings(**{**hoster.config, "region": None})).compute()


@each_hoster
def test_a_fleet_spec_is_told_back_as_it_was_declared(compute: Compute) -> None:
    compute.create(attrs.evolve(small_fleet(), open_ports=(443,), labels={"team": "shop"})).wait()
    told = compute.describe("conf")
    assert isinstance(told, FleetSpec)
    assert ("debian-12", 1, 1, (443,), {"team": "shop"}) == (
        told.image,
        told.cpus,
        told.memory_gib,
        told.open_ports,
        told.labels,
    )
