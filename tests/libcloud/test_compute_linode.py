"""What is Linode's own of machines: unique names, a firewall from the first moment, the internet kept out, tags."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
import pytest

from shiftable.compute import Compute, Rule
from shiftable.compute._rules import token_of
from shiftable.compute.driver import GIB, FleetSpec
from shiftable.errors import AlreadyExists, Conflict, InvalidArgument, OperationError, Unsupported
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.harness import Call, Kind
from shiftable_libcloud._compute_linode import LinodeDriver
from shiftable_libcloud.double import LinodeDouble

from .hostile import counted, names, of

OPEN = ["1-65535/tcp from 0.0.0.0/0, ::/0", "1-65535/udp from 0.0.0.0/0, ::/0"]


@pytest.fixture
def driver(linode: LinodeDouble, open_service: Callable[..., Any]) -> LinodeDriver:
    driver = open_service("compute", linode)
    assert isinstance(driver, LinodeDriver)
    return driver


@pytest.fixture
def compute(driver: LinodeDriver) -> Compute:
    return Compute(driver, sleep=lambda _seconds: None)


def error_of(driver: LinodeDriver, call: Callable[[], object]) -> type[OperationError]:
    with pytest.raises(Exception) as caught:  # noqa: PT011  native
        call()
    fault = driver.classify(caught.value)
    assert fault is not None
    return fault.error


# names are unique


@pytest.mark.parametrize(
    "tags", [[], ["shiftable-fleet:conf"], ["shiftable-fleet:other"]], ids=["none", "ours", "other"]
)
def test_a_machine_of_that_name_that_another_made_is_in_the_way_and_left_alone(
    linode: LinodeDouble, compute: Compute, tags: list[str]
) -> None:
    compute.create(small_fleet("other")).wait()
    (row,) = linode.machines.linodes.values()
    before = row | {"label": "conf-0", "tags": tags, "region": "us-east"}
    row.update(before)
    with pytest.raises(AlreadyExists, match="'conf-0' in us-east, which another creation made"):
        compute.create(small_fleet())
    assert {row["id"]: before} == linode.machines.linodes


@pytest.mark.parametrize("kind", ["drop_after", "truncate"])
def test_a_creation_whose_answer_is_lost_is_found_by_its_name_and_not_sent_again(
    linode: LinodeDouble, compute: Compute, kind: Kind
) -> None:
    linode.inject(kind, match=of("linodes.create"))
    compute.create(small_fleet()).wait()
    assert (1, ["conf-0"]) == (counted(linode)["linodes.create"], names(linode))


def test_a_creation_that_is_executed_late_is_the_machine_that_was_asked_for(
    linode: LinodeDouble, compute: Compute
) -> None:
    """The first look finds nothing, as the lost creation is executed only then: the second creation is refused."""
    linode.inject("drop_before", match=of("linodes.create"))
    made = list[dict[str, Any]]()

    def arrives(call: Call) -> bool:
        """Execute the first creation, which met the fault above, as the second one comes."""
        if call.operation == "linodes.create" and not made:
            wall = next(iter(linode.machines.firewalls))
            tags = ["shiftable-fleet:conf", f"shiftable-token:{token_of('conf-0').replace('-', '')}"]
            body = {
                "label": "conf-0",
                "region": "eu-central",
                "type": "g6-nanode-1",
                "image": "linode/debian12",
                "root_pass": "Canary-password",
                "tags": [*tags, "shiftable-image:debian-12", "shiftable-inside:yes"],
                "firewall_id": wall,
                "private_ip": True,
            }
            made.append(linode.machines.made(body))
        return False

    linode.inject("latency", match=arrives, times=None)
    (machine,) = compute.create(small_fleet()).wait()
    assert [str(row["id"]) for row in made] == [machine.id]
    assert (2, ["conf-0"]) == (counted(linode)["linodes.create"], names(linode))


def test_a_machine_that_is_still_being_deleted_is_not_taken_for_a_new_one(
    linode: LinodeDouble, compute: Compute, driver: LinodeDriver
) -> None:
    compute.create(small_fleet()).wait()
    for row in linode.machines.linodes.values():
        row["status"] = "deleting"
    linode.machines._looks.update(dict.fromkeys(linode.machines.linodes, 5))
    size, token = driver.choose(small_fleet()).size, token_of("conf-0")
    assert Conflict is error_of(
        driver, lambda: driver.create_machine(small_fleet(), "conf-0", size=size, token=token, user_data=None)
    )


def test_machines_of_another_region_are_not_seen_and_keep_their_firewall(
    linode: LinodeDouble, compute: Compute, driver: LinodeDriver
) -> None:
    compute.create(small_fleet()).wait()
    for row in linode.machines.linodes.values():
        row["region"] = "us-east"
    assert [] == list(compute.machines())
    assert [] == list(compute.debris())
    assert Conflict is error_of(driver, lambda: driver.destroy("conf"))
    assert 1 == len(linode.machines.firewalls)


# creations that fail, states


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("offline", "stopped"),
        ("shutting_down", "stopping"),
        ("billing_suspension", "suspended"),
        ("migrating", "unknown"),
        ("booting", "starting"),
    ],
)
def test_a_state_is_told_in_our_words_and_forbids_a_reboot(
    linode: LinodeDouble, compute: Compute, status: str, state: str
) -> None:
    fleet = compute.create(small_fleet())
    (made,) = fleet.wait()
    linode.machines._looks[int(made.id)] = 100
    for row in linode.machines.linodes.values():
        row["status"] = status
    machine = fleet.machine("conf-0")
    assert (state, status) == (machine.info().state, machine.info().raw_state)
    with pytest.raises(Conflict, match="must be running"):
        machine.reboot()


def test_a_linode_that_is_busy_is_a_conflict(linode: LinodeDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    busy = b'{"errors": [{"reason": "Linode busy."}]}'
    linode.inject("status", match=of("linodes.reboot"), status=400, body=busy)
    with pytest.raises(Conflict, match="Linode busy"):
        fleet.machine("conf-0").reboot()


# what is open


def is_let_in(double: LinodeDouble, source: str, port: int) -> bool:
    """Say what Linode would do with a packet of TCP: the first rule that fits counts, then the policy."""
    (wall,) = double.machines.firewalls.values()
    for rule in wall["rules"]["inbound"]:
        networks = [each for found in rule["addresses"].values() for each in found]
        first, _, last = rule["ports"].partition("-")
        inside = any(ip_address(source) in ip_network(each) for each in networks)
        if rule["protocol"] == "TCP" and inside and int(first) <= port <= int(last or first):
            return bool(rule["action"] == "ACCEPT")
    return bool(wall["rules"]["inbound_policy"] == "ACCEPT")


@pytest.mark.parametrize(
    ("public_ip", "source", "is_in"),
    [
        (False, "198.51.100.7", False),
        (False, "2001:db8::7", False),
        (False, "192.168.127.255", False),
        (False, "192.168.128.1", True),
        (False, "192.168.255.254", True),
        (True, "198.51.100.7", True),
        (True, "2001:db8::7", True),
        (True, "192.168.128.1", True),
    ],
)
def test_a_fleet_without_public_addresses_lets_in_nobody_from_the_internet(
    linode: LinodeDouble,
    compute: Compute,
    public_ip: bool,  # noqa: FBT001  pytest's
    source: str,
    is_in: bool,  # noqa: FBT001  the same
) -> None:
    spec = attrs.evolve(small_fleet(), public_ip=public_ip, open_ports=(443,))
    (machine,) = compute.create(spec).wait()
    assert (is_in, False) == (is_let_in(linode, source, 443), is_let_in(linode, source, 22))
    assert public_ip is bool(machine.public_addresses)
    assert ["443/tcp from 0.0.0.0/0, ::/0"] == list(map(str, machine.firewall))
    assert all(ip_address(each) in ip_network("192.168.128.0/17") for each in machine.addresses)
    assert () == compute.diff(spec)


def test_a_fleet_that_gets_public_addresses_is_made_anew_and_let_in(linode: LinodeDouble, compute: Compute) -> None:
    spec = attrs.evolve(small_fleet(count=2), open_ports=(443,))
    compute.create(spec).wait()
    assert not is_let_in(linode, "198.51.100.7", 443)
    public = attrs.evolve(spec, public_ip=True)
    (change,) = compute.diff(public)
    assert change.destroys
    compute.apply(change)
    assert all(machine.public_addresses for machine in compute.fleet("conf").wait())
    assert is_let_in(linode, "198.51.100.7", 443)
    assert () == compute.diff(public)


def test_the_firewall_is_around_a_machine_from_the_beginning(linode: LinodeDouble, compute: Compute) -> None:
    compute.create(small_fleet())
    written = [call.operation for call in linode.calls if call.method != "GET"]
    assert ["firewalls.create", "linodes.create"] == written
    (wall,), (row,) = linode.machines.firewalls.values(), linode.machines.linodes.values()
    assert ("fleet-conf", ["shiftable-fleet:conf"], [row["id"]]) == (
        wall["label"],
        wall["tags"],
        [each["id"] for each in wall["entities"]],
    )


def _disable(wall: dict[str, Any]) -> None:
    wall["status"] = "disabled"


def _let_all_in(wall: dict[str, Any]) -> None:
    wall["rules"]["inbound_policy"] = "ACCEPT"


def _without_guards(wall: dict[str, Any]) -> None:
    wall["rules"]["inbound"] = []


def _detach(wall: dict[str, Any]) -> None:
    wall["entities"] = []


@pytest.mark.parametrize("harm", [_disable, _let_all_in, _without_guards, _detach])
def test_a_firewall_that_somebody_opened_is_seen_and_mended(
    linode: LinodeDouble, compute: Compute, harm: Callable[[dict[str, Any]], None]
) -> None:
    spec = attrs.evolve(small_fleet(count=2), open_ports=(443,))
    fleet = compute.create(spec)
    fleet.wait()
    (wall,) = linode.machines.firewalls.values()
    harm(wall)
    assert OPEN == list(map(str, fleet.machine("conf-1").info().firewall))
    for change in compute.diff(spec):
        assert not change.destroys
        compute.apply(change)
    assert [["443/tcp from 0.0.0.0/0, ::/0"]] * 2 == [list(map(str, each.firewall)) for each in fleet.info()]
    assert () == compute.diff(spec)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_machine_that_is_put_behind_its_firewall_again_is_put_there_once(
    linode: LinodeDouble, compute: Compute, kind: Kind
) -> None:
    spec = small_fleet(count=2)
    compute.create(spec).wait()
    linode.machines.firewalls.clear()
    linode.inject(kind, match=of("firewalls.attach"))
    for change in compute.diff(spec):
        compute.apply(change)
    (wall,) = linode.machines.firewalls.values()
    assert sorted(linode.machines.linodes) == sorted(each["id"] for each in wall["entities"])


def test_a_firewall_of_another_tool_is_none_of_ours(linode: LinodeDouble, compute: Compute) -> None:
    rules = {"inbound": [], "outbound": [], "inbound_policy": "DROP", "outbound_policy": "ACCEPT"}
    theirs = {"id": 7, "label": "fleet-theirs", "tags": [], "rules": rules, "status": "enabled", "entities": []}
    linode.machines.firewalls[7] = theirs | {"created": "2026-01-01T00:00:00"}
    assert [] == list(compute.debris())
    assert () == compute.sweep(older_than=timedelta(0))
    assert [7] == list(linode.machines.firewalls)


def test_more_rules_than_a_firewall_has_room_for_are_refused(linode: LinodeDouble, compute: Compute) -> None:
    held = attrs.evolve(small_fleet(), open_ports=tuple(range(1000, 1023)))
    with pytest.raises(Unsupported, match="room for 24 rules"):
        compute.create(attrs.evolve(held, open_ports=tuple(range(1000, 1024))))
    assert [] == [call for call in linode.calls if call.method != "GET"]
    compute.create(held).wait()
    assert () == compute.diff(held)


def test_ports_as_other_tools_write_them_are_read(linode: LinodeDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    (wall,) = linode.machines.firewalls.values()
    rule = {"action": "ACCEPT", "protocol": "TCP", "ports": "22, 8000-8100", "addresses": {"ipv4": ["192.0.2.0/24"]}}
    wall["rules"]["inbound"] += [rule, rule | {"protocol": "ICMP"}, rule | {"addresses": {"ipv4": None}}]
    found = list(map(str, fleet.machine("conf-0").info().firewall))
    assert ["22/tcp from 192.0.2.0/24", "8000-8100/tcp from 192.0.2.0/24"] == found


# what is chosen and sent


def test_the_cheapest_size_of_the_region_is_taken_that_has_the_disk(compute: Compute) -> None:
    choice = compute.choose(small_fleet())
    assert ("g6-nanode-1", 1, GIB, Decimal("0.0075")) == (
        choice.size.name,
        choice.size.cpus,
        choice.size.memory,
        choice.price,
    )
    assert "g6-standard-2" == compute.choose(attrs.evolve(small_fleet(), disk_gib=60)).size.name
    sold = {size.name: size for size in compute.sizes()}
    assert {"g7-premium-2", "g1-gpu-rtx6000-1"} & sold.keys() == set()
    assert Decimal("0.5") == sold["g6-dedicated-16"].price
    with pytest.raises(InvalidArgument, match="a disk of 9,000 GiB in eu-central"):
        compute.choose(attrs.evolve(small_fleet(), disk_gib=9000))


def test_everything_that_is_declared_arrives(linode: LinodeDouble, compute: Compute) -> None:
    spec = attrs.evolve(
        small_fleet(),
        user="ada",
        labels={"team": "shop"},
        user_data_text="#cloud-config\npackages: [nginx]\n",
        rules=(Rule(port=53, protocol="udp"),),
    )
    (made,) = compute.create(spec).wait()
    assert () == compute.diff(spec)
    assert ("ada", {"team": "shop"}, "debian-12") == (made.user, made.user_labels, made.image)
    (data,), (row,) = linode.machines.user_data.values(), linode.machines.linodes.values()
    assert data is not None
    for part in (b"nginx", b"ada", spec.ssh_keys[0].encode(), b"conf-0"):
        assert part in data
    assert ("enabled", "legacy_config") == (row["disk_encryption"], row["interface_generation"])


def test_compressed_user_data_arrives_too(linode: LinodeDouble, driver: LinodeDriver) -> None:
    import gzip

    data = driver.user_data(small_fleet(), "conf-0", gzip.compress(b"#!/bin/sh\n"))
    driver.create_machine(
        small_fleet(), "conf-0", size=driver.choose(small_fleet()).size, token=token_of("conf-0"), user_data=data
    )
    assert [data] == list(linode.machines.user_data.values())


def test_roots_password_is_another_each_time_and_is_kept_nowhere(
    linode: LinodeDouble, compute: Compute, driver: LinodeDriver
) -> None:
    compute.create(small_fleet(count=2)).wait()
    first, second = linode.machines.passwords.values()
    assert first != second
    assert 60 < len(first) < 128
    kept = repr([driver, compute, *(vars(api.connection) for api in driver._pool._idle)])
    assert first not in kept
    assert second not in kept


def test_a_network_is_refused_as_cloud_init_would_get_nothing_there(compute: Compute) -> None:
    with pytest.raises(Unsupported, match="networks"):
        compute.create(attrs.evolve(small_fleet(), network="123"))


def test_an_image_by_linodes_own_name_is_told_so(compute: Compute) -> None:
    spec = attrs.evolve(small_fleet(), image="linode/fedora42")
    (made,) = compute.create(spec).wait()
    assert "linode/fedora42" == made.image
    assert () == compute.diff(spec)


# labels


def test_a_tag_has_fifty_characters(linode: LinodeDouble, compute: Compute) -> None:
    held = attrs.evolve(small_fleet(), labels={"k" * 20: "v" * 29})
    with pytest.raises(Unsupported, match="tag for the label"):
        compute.create(attrs.evolve(held, labels={"k" * 20: "v" * 30}))
    (made,) = compute.create(held).wait()
    assert held.labels == made.user_labels
    assert all(len(tag) <= 50 for row in linode.machines.linodes.values() for tag in row["tags"])


def test_tags_of_other_tools_are_kept_and_are_no_labels(linode: LinodeDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    (row,) = linode.machines.linodes.values()
    row["tags"].append("backup-me")
    machine = fleet.machine("conf-0")
    machine.relabel({"team": "shop"})
    assert {"team": "shop"} == machine.info().user_labels
    assert {"backup-me", "team:shop", "shiftable-fleet:conf"} <= set(row["tags"])


def test_tags_that_somebody_else_writes_at_the_same_moment_are_written_again(
    linode: LinodeDouble, compute: Compute
) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    (row,) = linode.machines.linodes.values()
    turns = list[int]()

    def takes_back(call: Call) -> bool:
        """Have another writer replace all tags, as it read them before, right after ours."""
        if call.operation == "linodes.get" and "team:shop" in row["tags"] and not turns:
            turns.append(1)
            row["tags"] = [tag for tag in row["tags"] if tag != "team:shop"]
        return False

    linode.inject("latency", match=takes_back, times=None)
    fleet.machine("conf-0").relabel({"team": "shop"})
    assert turns
    assert "team:shop" in row["tags"]


def test_tags_that_others_write_all_the_time_are_a_conflict(linode: LinodeDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet())
    fleet.wait()
    (row,) = linode.machines.linodes.values()

    def takes_back(call: Call) -> bool:
        if call.operation == "linodes.get":
            row["tags"] = [tag for tag in row["tags"] if tag != "team:shop"]
        return False

    linode.inject("latency", match=takes_back, times=None)
    with pytest.raises(Conflict, match="all the time"):
        fleet.machine("conf-0").relabel({"team": "shop"})


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("operation", ["linodes.get", "linodes.update"])
def test_a_label_is_changed_whatever_answer_is_lost(
    linode: LinodeDouble, compute: Compute, operation: str, kind: Kind
) -> None:
    fleet = compute.create(attrs.evolve(small_fleet(), labels={"team": "shop", "stage": "test"}))
    fleet.wait()
    machine = fleet.machine("conf-0")
    linode.inject(kind, match=of(operation))
    machine.relabel({"team": "data"}, remove=["stage"])
    assert {"team": "data"} == machine.info().user_labels


def test_a_fleet_is_told_back_as_it_was_declared(compute: Compute) -> None:
    compute.create(attrs.evolve(small_fleet(), open_ports=(443,), labels={"team": "shop"})).wait()
    told = compute.describe("conf")
    assert isinstance(told, FleetSpec)
    assert (False, (443,), {"team": "shop"}) == (told.public_ip, told.open_ports, told.labels)
