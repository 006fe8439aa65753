"""Lost answers, refusals, other people's machines: no second droplet, nothing open, nothing left that nobody finds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import attrs
import pytest

from shiftable.compute import Compute, FleetSpec, Rule
from shiftable.compute._rules import token_of
from shiftable.compute.driver import GIB
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
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.harness import Call, Kind
from shiftable_libcloud import LibcloudProvider, LibcloudSettings, _connection
from shiftable_libcloud.compute import DropletDriver
from shiftable_libcloud.double import DigitalOceanDouble

from .hostile import FAULT_IDS, FAULTS, LIMITED, counted, of, refusal

CANARY = "canary-in-the-user-data"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connection, "_FIRST_PAUSE", 0.001)


@pytest.fixture
def open_driver(digitalocean: DigitalOceanDouble) -> Iterator[Callable[..., DropletDriver]]:
    made = list[DropletDriver]()

    def open_it(**settings: Any) -> DropletDriver:
        driver = LibcloudProvider(LibcloudSettings(**{**digitalocean.config, **settings})).compute()
        assert isinstance(driver, DropletDriver)
        made.append(driver)
        return driver

    yield open_it
    for driver in made:
        driver.close()


@pytest.fixture
def driver(open_driver: Callable[..., DropletDriver]) -> DropletDriver:
    return open_driver()


@pytest.fixture
def compute(driver: DropletDriver) -> Compute:
    return Compute(driver, sleep=lambda _seconds: None)


def names(double: DigitalOceanDouble) -> list[str]:
    return sorted(row["name"] for row in double.machines.droplets.values())


CALLS = ["droplets.create", "droplets.list", "firewalls.create", "firewalls.list", "tags.create", "sizes.list"]


# making


@pytest.mark.parametrize(("kind", "more"), FAULTS, ids=FAULT_IDS)
@pytest.mark.parametrize("operation", CALLS)
def test_a_fault_that_passes_makes_no_second_machine_and_no_second_firewall(
    digitalocean: DigitalOceanDouble, compute: Compute, kind: Kind, more: dict[str, Any], operation: str
) -> None:
    met = [digitalocean.inject(kind, match=of(operation), **more) for _ in range(2)]
    fleet = compute.create(small_fleet(count=2))
    assert ["conf-0", "conf-1"] == [machine.name for machine in fleet.wait()]
    assert met[0].hits == 1
    assert ["conf-0", "conf-1"] == names(digitalocean)
    assert ["shiftable-conf"] == [wall["name"] for wall in digitalocean.machines.firewalls.values()]
    assert () == compute.diff(small_fleet(count=2))


@pytest.mark.parametrize(("kind", "more"), FAULTS, ids=FAULT_IDS)
@pytest.mark.parametrize("operation", ["droplets.delete", "firewalls.delete", "tags.delete"])
def test_a_fault_that_passes_leaves_nothing_of_what_is_deleted(
    digitalocean: DigitalOceanDouble, compute: Compute, kind: Kind, more: dict[str, Any], operation: str
) -> None:
    compute.create(small_fleet(count=2)).wait()
    digitalocean.inject(kind, match=of(operation), times=2, **more)
    compute.delete("conf")
    assert ({}, {}) == (digitalocean.machines.droplets, digitalocean.machines.firewalls)
    assert [] == list(compute.debris())


@pytest.mark.parametrize("at", range(5))
def test_a_creation_that_fails_halfway_leaves_nothing_that_is_not_found(
    digitalocean: DigitalOceanDouble, open_driver: Callable[..., DropletDriver], at: int
) -> None:
    """Refused for good at each write in turn: what is there afterwards is a fleet's, or debris."""
    compute = Compute(open_driver(retry_seconds=0.0), sleep=lambda _seconds: None)
    writes = list[Call]()

    def is_turn(call: Call) -> bool:
        if call.method != "GET":
            writes.append(call)
        return call.method != "GET" and len(writes) > at

    met = digitalocean.inject("status", match=is_turn, times=None, **refusal(403, "forbidden", "no"))
    spec = small_fleet(count=3)
    with pytest.raises(PermissionDenied):
        compute.create(spec)
    assert met.hits
    met.times = 0
    fleets = [fleet.name for fleet in compute.list()]
    if fleets:
        compute.delete("conf")
    compute.sweep(older_than=timedelta(0))
    assert ({}, {}) == (digitalocean.machines.droplets, digitalocean.machines.firewalls)


def test_a_creation_that_was_executed_late_is_swept_and_no_machine_of_the_fleet(
    digitalocean: DigitalOceanDouble, compute: Compute, driver: DropletDriver
) -> None:
    fleet = compute.create(small_fleet())
    (first,) = fleet.wait()
    again = dict(next(iter(digitalocean.machines.droplets.values())), id=999_999_999)
    digitalocean.machines.droplets[999_999_999] = again
    assert [first.id] == [machine.id for machine in fleet.machines()]
    assert () == compute.diff(small_fleet())
    (left,) = compute.debris()
    assert ("droplet", "conf-0", "conf") == (left.kind, left.name, left.fleet)
    assert (left,) == compute.sweep(older_than=timedelta(0))
    assert [int(first.id)] == list(digitalocean.machines.droplets)
    driver.delete_debris(left)
    with pytest.raises(Exception, match="in use") as caught:
        driver.delete_debris(attrs.evolve(left, id=first.id))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert Conflict is fault.error


def test_a_machine_of_that_name_that_is_nobodys_is_no_obstacle_and_left_alone(
    digitalocean: DigitalOceanDouble, compute: Compute
) -> None:
    compute.create(small_fleet("other")).wait()
    (row,) = digitalocean.machines.droplets.values()
    row.update(name="conf-0", tags=[])
    fleet = compute.create(small_fleet())
    (made,) = fleet.wait()
    assert str(row["id"]) != made.id
    compute.delete("conf")
    assert ["conf-0"] == names(digitalocean)


def test_another_machine_of_the_fleet_with_that_name_is_not_taken_for_ours(
    digitalocean: DigitalOceanDouble, compute: Compute, driver: DropletDriver
) -> None:
    compute.create(small_fleet()).wait()
    size = driver.choose(small_fleet()).size
    with pytest.raises(Exception) as caught:  # noqa: PT011  native
        driver.create_machine(small_fleet(), "conf-0", size=size, token=token_of("other"), user_data=None)
    fault = driver.classify(caught.value)
    assert fault is not None
    assert AlreadyExists is fault.error
    assert ["conf-0"] == names(digitalocean)


def test_machines_of_another_region_are_not_seen_and_keep_their_firewall(
    digitalocean: DigitalOceanDouble, compute: Compute
) -> None:
    compute.create(small_fleet()).wait()
    for row in digitalocean.machines.droplets.values():
        row["region"] = {"slug": "nyc3"}
    assert [] == list(compute.machines())
    assert [] == list(compute.debris())
    compute.create(small_fleet()).wait()
    compute.delete("conf")
    assert ["conf-0"] == names(digitalocean)
    assert 1 == len(digitalocean.machines.firewalls)


def test_a_creation_that_ends_in_an_error_is_failed_and_made_anew(
    digitalocean: DigitalOceanDouble, compute: Compute
) -> None:
    digitalocean.machines.erring = frozenset({"conf-0"})
    fleet = compute.create(small_fleet())
    (seen,) = fleet.machines()
    assert ("creating", "failed") == (seen.seen.state, seen.info().state)
    for row in digitalocean.machines.droplets.values():
        row["created_at"] = "2026-01-01T00:00:00Z"
    (late,) = fleet.machines()
    assert "failed" == late.seen.state
    (change,) = compute.diff(small_fleet())
    assert change.destroys
    digitalocean.inject("latency", match=lambda call: _mended(digitalocean, call), times=None)
    compute.apply(change)
    assert ["running"] == [machine.state for machine in fleet.wait()]
    assert late.id not in {machine.id for machine in fleet.machines()}


def _mended(double: DigitalOceanDouble, call: Call) -> bool:
    if call.operation == "droplets.create":
        double.machines.erring = frozenset()
    return False


def test_a_full_account_is_a_quota(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    digitalocean.machines.limit = 1
    with pytest.raises(QuotaExceeded, match="will exceed your droplet limit"):
        compute.create(small_fleet(count=2))
    assert ["conf-0"] == names(digitalocean)
    compute.delete("conf")


def test_what_comes_too_fast_for_long_is_throttled(
    digitalocean: DigitalOceanDouble, open_driver: Callable[..., DropletDriver]
) -> None:
    compute = Compute(open_driver(retry_seconds=0.0))
    digitalocean.inject("status", times=None, **LIMITED)
    with pytest.raises(Throttled):
        list(compute.machines())


def test_a_pending_event_is_a_conflict(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    pending = refusal(422, "unprocessable_entity", "Droplet already has a pending event.")
    digitalocean.inject("status", match=of("actions.create"), **pending)
    with pytest.raises(Conflict, match="pending event"):
        fleet.machine("conf-0").reboot()


def test_a_reboot_whose_answer_is_lost_is_not_sent_twice(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    digitalocean.inject("drop_after", match=of("actions.create"), times=None)
    with pytest.raises(Unavailable):
        fleet.machine("conf-0").reboot()
    assert 1 == counted(digitalocean)["actions.create"]


def test_a_droplet_that_is_off_is_stopped_and_not_rebooted(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    for row in digitalocean.machines.droplets.values():
        row["status"] = "off"
    machine = fleet.machine("conf-0")
    assert "stopped" == machine.info().state
    with pytest.raises(Conflict, match="must be running"):
        machine.reboot()
    with pytest.raises(Unsupported):
        machine.start()


@pytest.mark.parametrize("id", ["x", "", "1/../2", "¹", "-1", "999"])
def test_an_id_that_is_none_is_missing(driver: DropletDriver, id: str) -> None:
    for call in (driver.machine, driver.delete_machine, driver.reboot):
        with pytest.raises(Exception) as caught:  # noqa: PT011  native
            call(id)
        fault = driver.classify(caught.value)
        assert fault is not None
        assert NotFound is fault.error


def test_a_droplet_in_the_archive_is_gone(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    (made,) = fleet.wait()
    for row in digitalocean.machines.droplets.values():
        row["status"] = "archive"
    assert [] == list(fleet.machines())
    with pytest.raises(NotFound):
        compute.fleet("conf").machine("conf-0")
    assert made.id not in {machine.id for machine in compute.machines()}


def test_a_wrong_token_and_a_reading_one(
    digitalocean: DigitalOceanDouble, open_driver: Callable[..., DropletDriver]
) -> None:
    with pytest.raises(Unauthenticated):
        list(Compute(open_driver(token=Credential.literal("dop_v1_" + "0" * 64))).machines())
    reading = Compute(open_driver(token=Credential.literal(digitalocean.reading_token)))
    assert [] == list(reading.machines())
    with pytest.raises(PermissionDenied):
        reading.create(small_fleet())


# what is open


def test_a_new_fleet_lets_nobody_in_and_has_no_public_address(
    digitalocean: DigitalOceanDouble, compute: Compute
) -> None:
    compute.create(small_fleet()).wait()
    (wall,) = digitalocean.machines.firewalls.values()
    (row,) = digitalocean.machines.droplets.values()
    assert ([], ["shiftable-fleet:conf"]) == (wall["inbound_rules"], wall["tags"])
    assert {"shiftable-fleet:conf"} <= set(row["tags"])
    assert ["private"] == [each["type"] for each in row["networks"]["v4"]]


def test_the_firewall_is_there_before_the_machine(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    compute.create(small_fleet())
    written = [call.operation for call in digitalocean.calls if call.method != "GET"]
    assert ["tags.create", "firewalls.create", "droplets.create"] == written


def test_a_firewall_that_somebody_deleted_is_seen_and_made_again(
    digitalocean: DigitalOceanDouble, compute: Compute
) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    digitalocean.machines.firewalls.clear()
    assert ["1-65535/tcp from 0.0.0.0/0, ::/0", "1-65535/udp from 0.0.0.0/0, ::/0"] == list(
        map(str, fleet.machine("conf-0").info().firewall)
    )
    for change in compute.diff(small_fleet()):
        assert not change.destroys
        compute.apply(change)
    assert () == fleet.machine("conf-0").info().firewall
    assert 1 == len(digitalocean.machines.firewalls)


def test_a_firewall_that_an_older_fleet_left_opens_nothing_for_a_new_one(
    digitalocean: DigitalOceanDouble, compute: Compute, driver: DropletDriver
) -> None:
    driver.create(attrs.evolve(small_fleet(), open_ports=(22,)))
    (made,) = compute.create(small_fleet()).wait()
    assert () == made.firewall
    assert [[]] == [wall["inbound_rules"] for wall in digitalocean.machines.firewalls.values()]


def test_all_ports_are_told_as_all_ports(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    spec = attrs.evolve(small_fleet(), rules=(Rule(port=1, last_port=65_535, allow_from=("192.0.2.0/24",)),))
    compute.create(spec).wait()
    assert () == compute.diff(spec)


def test_a_firewall_of_another_tool_is_none_of_ours(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    theirs = {
        "id": "x",
        "name": "shiftable-theirs",
        "tags": [],
        "inbound_rules": [],
        "outbound_rules": [],
        "created_at": "2026-01-01T00:00:00Z",
    }
    digitalocean.machines.firewalls["x"] = theirs
    assert [] == list(compute.debris())
    assert () == compute.sweep(older_than=timedelta(0))
    assert theirs == digitalocean.machines.firewalls["x"]


# what is chosen


def test_the_cheapest_size_of_the_region_is_taken_that_has_the_disk(compute: Compute) -> None:
    choice = compute.choose(small_fleet())
    assert ("s-1vcpu-1gb", 1, GIB) == (choice.size.name, choice.size.cpus, choice.size.memory)
    assert Decimal("0.00893") == choice.price
    assert "s-2vcpu-4gb" == compute.choose(attrs.evolve(small_fleet(), disk_gib=70)).size.name
    sold = {size.name for size in compute.sizes()}
    assert {"s-sold-out", "s-elsewhere", "gpu-h100x1-80gb"} & sold == set()
    with pytest.raises(InvalidArgument, match="a disk of 9,000 GiB in fra1"):
        compute.choose(attrs.evolve(small_fleet(), disk_gib=9000))


def test_sizes_are_asked_for_once(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    for _ in range(3):
        compute.choose(small_fleet())
    assert 1 == counted(digitalocean)["sizes.list"]


def test_an_image_that_is_none_is_refused(compute: Compute) -> None:
    with pytest.raises(InvalidArgument, match="invalid image"):
        compute.create(attrs.evolve(small_fleet(), image="no-such-image"))


@pytest.mark.parametrize(
    "labels",
    [{"team": "Shop"}, {"Team": "shop"}, {"team": "a b"}, {"team": ""}, {"shiftable-token": "x"}, {"a:b": "c"}],
)
def test_a_label_that_can_be_no_tag_is_refused(
    digitalocean: DigitalOceanDouble, compute: Compute, labels: dict[str, str]
) -> None:
    with pytest.raises(Unsupported, match="tag for the label"):
        compute.create(attrs.evolve(small_fleet(), labels=labels))
    assert [] == names(digitalocean)


def test_everything_that_is_declared_arrives(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    spec = attrs.evolve(
        small_fleet(),
        public_ip=True,
        network="760e09ef-dc84-11e8-981e-3cfdfeaae000",
        user="ada",
        labels={"team": "shop"},
        user_data_text="#cloud-config\npackages: [nginx]\n",
    )
    (made,) = compute.create(spec).wait()
    assert () == compute.diff(spec)
    assert ("ada", "760e09ef-dc84-11e8-981e-3cfdfeaae000") == (made.user, made.network)
    assert made.public_addresses
    (data,) = digitalocean.machines.user_data.values()
    assert data is not None
    for part in ("nginx", "ada", spec.ssh_keys[0], "conf-0"):
        assert part in data


def test_compressed_user_data_is_refused_before_anything_is_made(
    digitalocean: DigitalOceanDouble, driver: DropletDriver
) -> None:
    import gzip

    with pytest.raises(ValueError, match="as text only"):
        driver.user_data(small_fleet(), "conf-0", gzip.compress(b"#!/bin/sh\n"))
    assert [] == names(digitalocean)


# secrets and settings


def test_user_data_and_the_token_are_nowhere_to_be_seen(
    digitalocean: DigitalOceanDouble, open_driver: Callable[..., DropletDriver], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    driver = open_driver(retry_seconds=0.0)
    compute, seen = Compute(driver), list[str]()
    spec = attrs.evolve(small_fleet(), user_data_text=f"#!/bin/sh\n# {CANARY}\n")
    for kind, more in FAULTS:
        digitalocean.inject(kind, match=of("droplets.create"), times=None, **more)
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
    assert digitalocean.token not in text
    assert not [call for call in digitalocean.calls if CANARY in call.path + call.query]


def test_machines_need_a_region(digitalocean: DigitalOceanDouble) -> None:
    with pytest.raises(ConfigError, match="region"):
        LibcloudProvider(LibcloudSettings(**{**digitalocean.config, "region": None})).compute()


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
