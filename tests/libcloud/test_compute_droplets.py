"""What is DigitalOcean's own of machines: names that are not unique, tags, sizes, states."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import attrs
import pytest

from shiftable.compute import Compute
from shiftable.compute.driver import GIB
from shiftable.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    Unsupported,
)
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.harness import Kind
from shiftable_libcloud.compute import DropletDriver
from shiftable_libcloud.double import DigitalOceanDouble

from .hostile import names, of, refusal

CANARY = "canary-in-the-user-data"


@pytest.fixture
def open_driver(digitalocean: DigitalOceanDouble, open_service: Callable[..., Any]) -> Callable[..., DropletDriver]:
    def open_it(**settings: Any) -> DropletDriver:
        driver = open_service("compute", digitalocean, **settings)
        assert isinstance(driver, DropletDriver)
        return driver

    return open_it


@pytest.fixture
def driver(open_driver: Callable[..., DropletDriver]) -> DropletDriver:
    return open_driver()


@pytest.fixture
def compute(driver: DropletDriver) -> Compute:
    return Compute(driver, sleep=lambda _seconds: None)


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


def test_a_pending_event_is_a_conflict(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    pending = refusal(422, "unprocessable_entity", "Droplet already has a pending event.")
    digitalocean.inject("status", match=of("actions.create"), **pending)
    with pytest.raises(Conflict, match="pending event"):
        fleet.machine("conf-0").reboot()


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


def test_a_droplet_in_the_archive_is_gone(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    (made,) = fleet.wait()
    for row in digitalocean.machines.droplets.values():
        row["status"] = "archive"
    assert [] == list(fleet.machines())
    with pytest.raises(NotFound):
        compute.fleet("conf").machine("conf-0")
    assert made.id not in {machine.id for machine in compute.machines()}


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


def test_the_cheapest_size_of_the_region_is_taken_that_has_the_disk(compute: Compute) -> None:
    choice = compute.choose(small_fleet())
    assert ("s-1vcpu-1gb", 1, GIB) == (choice.size.name, choice.size.cpus, choice.size.memory)
    assert Decimal("0.00893") == choice.price
    assert "s-2vcpu-4gb" == compute.choose(attrs.evolve(small_fleet(), disk_gib=70)).size.name
    sold = {size.name for size in compute.sizes()}
    assert {"s-sold-out", "s-elsewhere", "gpu-h100x1-80gb"} & sold == set()
    with pytest.raises(InvalidArgument, match="a disk of 9,000 GiB in fra1"):
        compute.choose(attrs.evolve(small_fleet(), disk_gib=9000))


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


# labels


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("operation", ["droplets.get", "tags.create", "tags.attach", "tags.detach"])
def test_a_label_is_changed_whatever_answer_is_lost(
    digitalocean: DigitalOceanDouble, compute: Compute, operation: str, kind: Kind
) -> None:
    fleet = compute.create(attrs.evolve(small_fleet(), labels={"team": "shop", "stage": "test"}))
    fleet.wait()
    machine = fleet.machine("conf-0")
    digitalocean.inject(kind, match=of(operation))
    machine.relabel({"team": "data"}, remove=["stage"])
    assert {"team": "data"} == machine.info().user_labels


def test_tags_of_other_tools_are_kept(digitalocean: DigitalOceanDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    (row,) = digitalocean.machines.droplets.values()
    row["tags"].append("backup-me")
    fleet.machine("conf-0").relabel({"team": "data"})
    fleet.machine("conf-0").relabel(remove=["team", "backup-me"])
    assert "backup-me" in row["tags"]
    assert {} == fleet.machine("conf-0").info().user_labels
