"""Virtual machines whose Azure drops, throttles, truncates, refuses or fails halfway: nothing is doubled or left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from azure.core import exceptions as native
from azure.core.pipeline.transport import HttpRequest

from shiftable.compute import Compute, Fleet, FleetSpec
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
    PreconditionFailed,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.harness import Call
from shiftable_azure.compute import AzureComputeDriver
from shiftable_azure.double import AzureDouble
from shiftable_azure.errors import COMPUTE_CODES, ArmFailure, classify_compute

Make = Callable[..., AzureComputeDriver]
CANARY = "canary" * 4
AT_ONCE = timedelta(0)


def declared(name: str = "web", **changed: Any) -> FleetSpec:
    return attrs.evolve(small_fleet(name), **changed)


@pytest.fixture
def compute(azure_double: AzureDouble, compute_driver: AzureComputeDriver) -> Compute:
    return Compute(compute_driver, sleep=azure_double.clock.advance)


@pytest.fixture
def web(compute: Compute) -> Fleet:
    fleet = compute.create(declared())
    fleet.wait()
    return fleet


def is_(*operations: str) -> Callable[[Call], bool]:
    return lambda call: call.operation in operations


def held(double: AzureDouble) -> dict[str, list[str]]:
    """Return what the resource group has, behind the protocol."""
    double.machines.endings.settle()
    machines = {"machines": [one.name for one in double.machines.machines.values()]}
    for kind in ("disks", "placements"):
        machines[kind] = [one.name for one in getattr(double.machines, kind).values()]
    kinds = ("networkInterfaces", "publicIPAddresses", "networkSecurityGroups", "virtualNetworks")
    return machines | {kind: [one.name for one in double.network.of_kind(kind)] for kind in kinds}


NOTHING: dict[str, list[str]] = {
    "machines": [],
    "disks": [],
    "placements": [],
    "networkInterfaces": [],
    "publicIPAddresses": [],
    "networkSecurityGroups": [],
    "virtualNetworks": [],
}


def labels_of(double: AzureDouble) -> list[dict[str, str]]:
    """Return the labels of all machines, then of their first disks."""
    double.machines.endings.settle()
    held = [*double.machines.machines.values(), *double.machines.disks.values()]
    return [{key: value for key, value in each.tags.items() if not key.startswith("shiftable-")} for each in held]


# answers that do not arrive


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("minutes", [0, 2])
def test_a_machine_whose_creation_is_not_heard_of_is_made_once(
    azure_double: AzureDouble, compute: Compute, kind: Any, minutes: int
) -> None:
    azure_double.machines.endings.delay = timedelta(minutes=minutes)
    lost = azure_double.inject(kind, match=is_("VirtualMachines_CreateOrUpdate"))
    fleet = compute.create(declared(public_ip=True))
    (machine,) = fleet.wait()
    assert lost.hits == 1
    assert (machine.name, machine.state, len(machine.public_addresses)) == ("web-0", "running", 1)
    assert [len(each) for each in held(azure_double).values()] == [1, 1, 0, 1, 1, 1, 1]
    compute.delete("web")
    assert held(azure_double) == NOTHING


@pytest.mark.parametrize("minutes", [0, 2])
def test_a_creation_that_is_never_heard_of_is_found_the_next_time(
    azure_double: AzureDouble, make_compute: Make, minutes: int
) -> None:
    azure_double.machines.endings.delay = timedelta(minutes=minutes)
    compute = Compute(make_compute(max_attempts=1), sleep=azure_double.clock.advance)
    azure_double.inject("drop_after", match=is_("VirtualMachines_CreateOrUpdate"))
    with pytest.raises(Unavailable):
        compute.create(declared(count=2))
    first = azure_double.machines.machine("web-0").properties["vmId"]
    for change in compute.diff(declared(count=2)):
        compute.apply(change)
    assert [machine.name for machine in compute.fleet("web").wait()] == ["web-0", "web-1"]
    assert azure_double.machines.machine("web-0").properties["vmId"] == first


def test_the_same_token_is_the_same_machine_and_another_is_somebody_elses(
    azure_double: AzureDouble, compute_driver: AzureComputeDriver, compute: Compute, web: Fleet
) -> None:
    spec, size = declared(), compute_driver.choose(declared()).size
    again = compute_driver.create_machine(spec, "web-0", size=size, token=token_of("web-0"), user_data=None)
    assert again.id == web.machine("web-0").id
    other = attrs.evolve(spec, name="other")
    compute_driver.create(other)
    for fleet, token in ((other, token_of("web-0")), (spec, "00000000-0000-4000-8000-000000000000")):
        with pytest.raises(native.AzureError) as caught:
            compute_driver.create_machine(fleet, "web-0", size=size, token=token, user_data=None)
        fault = compute_driver.classify(caught.value)
        assert fault is not None
        assert fault.error is AlreadyExists
    assert held(azure_double)["machines"] == ["web-0"]
    assert compute.fleet("web").machine("web-0").id == again.id


def test_two_who_make_the_same_fleet_at_once_make_it_once(azure_double: AzureDouble, make_compute: Make) -> None:
    azure_double.machines.endings.delay = timedelta(seconds=4)
    spec, together = declared(count=3, public_ip=True), threading.Barrier(2)

    def make(_: int) -> list[str]:
        compute = Compute(make_compute(), sleep=azure_double.clock.advance)
        together.wait(timeout=10)
        change = compute.diff(spec)[0]
        together.wait(timeout=10)
        compute.apply(change)
        return [machine.id for machine in compute.fleet("web").wait()]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(make, range(2))
    assert first == second
    found = held(azure_double)
    assert [len(found[kind]) for kind in ("machines", "disks", "networkInterfaces", "publicIPAddresses")] == [3] * 4


def test_a_network_that_is_just_being_changed_is_waited_for(azure_double: AzureDouble, compute: Compute) -> None:
    body = b'{"error": {"code": "ReferencedResourceNotProvisioned", "message": "not yet"}}'
    made = is_("VirtualMachines_CreateOrUpdate")
    busy = azure_double.inject("status", status=409, body=body, times=3, match=made)
    compute.create(declared()).wait()
    assert busy.hits == 3
    azure_double.inject("status", status=409, body=body, times=None, match=made)
    with pytest.raises(Conflict, match="not yet"):
        compute.create(declared("other"))


def test_a_name_whose_machine_is_being_deleted_is_a_conflict(
    azure_double: AzureDouble, compute_driver: AzureComputeDriver, web: Fleet
) -> None:
    azure_double.machines.endings.delay = timedelta(minutes=2)
    web.machine("web-0").delete()
    spec = declared()
    with pytest.raises(native.AzureError, match="predecessor") as caught:
        compute_driver.create_machine(
            spec, "web-0", size=compute_driver.choose(spec).size, token=token_of("web-0"), user_data=None
        )
    fault = compute_driver.classify(caught.value)
    assert fault is not None
    assert fault.error is Conflict


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("seconds", [0, 4])
def test_whatever_is_done_to_machines_comes_through_a_bad_line(
    azure_double: AzureDouble, compute: Compute, kind: Any, seconds: int
) -> None:
    azure_double.machines.endings.delay = timedelta(seconds=seconds)
    operations = (
        *("VirtualNetworks_CreateOrUpdate", "NetworkSecurityGroups_CreateOrUpdate", "VirtualMachines_List"),
        *("NetworkSecurityGroups_Get", "NetworkInterfaces_Get", "GetOperationStatus", "Disks_CreateOrUpdate"),
        *("VirtualMachines_Start", "VirtualMachines_Deallocate", "VirtualMachines_Update", "VirtualMachines_Get"),
        *("VirtualMachines_AttachDetachDataDisks", "VirtualMachines_RetrieveBootDiagnosticsData", "Disks_Delete"),
        *("Snapshots_CreateOrUpdate", "Snapshots_Delete", "GalleryImages_CreateOrUpdate", "ResourceSkus_List"),
        *("GalleryImageVersions_CreateOrUpdate", "GalleryImages_Delete", "VirtualMachines_Delete", "Galleries_Delete"),
        *("NetworkSecurityGroups_Delete", "VirtualNetworks_Delete", "NetworkInterfaces_List", "Disks_List"),
        *("Disks_Update", "Disks_Get"),
    )
    lost = {each: azure_double.inject(kind, match=is_(each)) for each in operations}
    spec = declared(public_ip=True)
    fleet = compute.create(spec)
    (machine,) = fleet.wait()
    opened = attrs.evolve(spec, open_ports=(443,), cpus=2, memory_gib=4, labels={"team": "data"})
    for change in compute.diff(opened):
        compute.apply(change)
    assert labels_of(azure_double) == [{"team": "data"}] * 2
    disk = compute.create_disk("data", 10, zone=machine.zone)
    fleet.attach("web-0", disk.id)
    snapshot = compute.snapshot_disk(disk.id, "daily")
    fleet.detach("web-0", disk.id)
    compute.delete_disk(disk.id)
    compute.delete_disk_snapshot(snapshot.id)
    assert b"Linux" in fleet.console()["web-0"]
    compute.delete_image(fleet.machine("web-0").snapshot("golden").id)
    fleet.stop()
    fleet.wait("stopped")
    fleet.start()
    fleet.wait()
    assert compute.diff(opened) == ()
    compute.delete("web")
    assert held(azure_double) == NOTHING
    unused = {"GetOperationStatus"} if not seconds else set()
    assert {name for name, each in lost.items() if not each.hits} <= unused


@pytest.mark.parametrize("status", [429, 503])
def test_azure_is_given_the_time_that_it_asks_for(azure_double: AzureDouble, compute: Compute, status: int) -> None:
    body = b'{"error": {"code": "OperationThrottled", "message": "slow down"}}'
    match = is_("VirtualMachines_CreateOrUpdate")
    refused = azure_double.inject(
        "status", status=status, headers=[("Retry-After", "40")], body=body, times=2, match=match
    )
    before = azure_double.clock.now()
    compute.create(declared()).wait()
    assert (azure_double.clock.now() - before).total_seconds() >= 80
    assert refused.hits == 2
    assert held(azure_double)["machines"] == ["web-0"]


def test_a_throttled_subscription_is_throttled_in_the_end(azure_double: AzureDouble, make_compute: Make) -> None:
    compute = Compute(make_compute(max_attempts=2))
    azure_double.arm.throttled = 100
    with pytest.raises(Throttled) as caught:
        list(compute.fleet("web").machines())
    assert caught.value.retry_after == 5


def test_a_body_that_is_no_json_is_no_answer(azure_double: AzureDouble, make_compute: Make) -> None:
    compute = Compute(make_compute(max_attempts=1))
    azure_double.inject("status", status=200, body=b"<html>proxy</html>")
    with pytest.raises(Unavailable):
        list(compute.fleet("web").machines())


# creations and deletions that fail halfway

POINTS = [None, "address", "interface", "disk"]


@pytest.mark.parametrize("after", POINTS)
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("code", ["ZonalAllocationFailed", "InternalExecutionError", "OSProvisioningTimedOut"])
def test_a_creation_that_fails_later_leaves_nothing_that_is_not_deleted(
    azure_double: AzureDouble, compute: Compute, after: Any, keeps: Any, code: str
) -> None:
    azure_double.machines.endings.delay = timedelta(seconds=30)
    azure_double.machines.fail_create(code, after=after, keeps=keeps)
    fleet = compute.create(declared(public_ip=True))
    with pytest.raises(Conflict if keeps else NotFound):
        fleet.wait()
    if keeps:
        assert code in fleet.machine("web-0").info().raw_state
        compute.delete("web")
    else:
        azure_double.clock.advance(180)
        swept = compute.sweep(older_than=AT_ONCE)
        assert [each.kind for each in swept][-2:] == ["network security group", "virtual network"]
    assert held(azure_double) == NOTHING
    assert list(compute.debris()) == []


@pytest.mark.parametrize("after", POINTS)
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AllocationFailed", Unavailable),
        ("SkuNotAvailable", Unsupported),
        ("QuotaExceeded", QuotaExceeded),
        ("NeverHeardOf", Conflict),
    ],
)
def test_a_creation_that_is_refused_leaves_nothing_that_is_not_swept(
    azure_double: AzureDouble, compute: Compute, after: Any, code: str, error: type[OperationError]
) -> None:
    azure_double.machines.fail_create(code, after=after, at_once=True)
    with pytest.raises(error) as caught:
        compute.create(declared(public_ip=True))
    assert caught.value.code == code
    kept = after in {"interface", "disk"}
    if kept:
        with pytest.raises(Conflict) as reserved:
            compute.sweep(older_than=AT_ONCE)
        assert reserved.value.code == "NicReservedForAnotherVm"
        azure_double.clock.advance(180)
    compute.sweep(older_than=AT_ONCE)
    assert held(azure_double) == NOTHING


@pytest.mark.parametrize("after", POINTS)
def test_a_fleet_goes_on_after_a_creation_that_failed_and_nothing_of_that_stays(
    azure_double: AzureDouble, compute: Compute, after: Any
) -> None:
    azure_double.machines.fail_create("AllocationFailed", after=after, at_once=True)
    with pytest.raises(Unavailable):
        compute.create(declared(public_ip=True, count=2))
    for change in compute.diff(declared(public_ip=True, count=2)):
        compute.apply(change)
    assert [machine.name for machine in compute.fleet("web").wait()] == ["web-0", "web-1"]
    compute.delete("web")
    assert held(azure_double) == NOTHING


def test_what_a_failed_predecessor_left_is_told_beside_the_machine_that_took_its_name(
    azure_double: AzureDouble, compute: Compute
) -> None:
    azure_double.machines.fail_create("AllocationFailed", after="disk", at_once=True)
    with pytest.raises(Unavailable):
        compute.create(declared(public_ip=True))
    compute.create(declared(public_ip=True)).wait()
    assert [each.kind for each in compute.debris()] == ["network interface", "public address"]
    azure_double.clock.advance(180)
    compute.sweep(older_than=AT_ONCE)
    left = held(azure_double)
    assert (len(left["networkInterfaces"]), len(left["publicIPAddresses"]), len(left["disks"])) == (1, 1, 2)
    (machine,) = compute.fleet("web").wait()
    assert len(machine.public_addresses) == 1
    compute.fleet("web").machine("web-0").delete()
    assert next(compute.debris()).kind == "disk"
    compute.sweep(older_than=AT_ONCE)
    assert held(azure_double) == NOTHING


def test_what_a_machine_gets_while_it_is_made_is_no_debris(azure_double: AzureDouble, compute: Compute) -> None:
    compute.create(declared(public_ip=True)).wait()
    machine = azure_double.machines.machine("web-0")
    machine.properties["provisioningState"] = "Creating"
    for card in machine.interfaces:
        del card.properties["virtualMachine"]
    assert list(compute.debris()) == []


@pytest.mark.parametrize("before", ["disk", "interface", "address"])
@pytest.mark.parametrize("seconds", [0, 30])
def test_a_deletion_that_stops_halfway_leaves_nothing_that_is_not_deleted(
    azure_double: AzureDouble, compute: Compute, before: Any, seconds: int
) -> None:
    compute.create(declared(public_ip=True, count=2)).wait()
    azure_double.machines.endings.delay = timedelta(seconds=seconds)
    azure_double.machines.fail_delete(before)
    azure_double.machines.kept = timedelta(0)
    compute.fleet("web").machine("web-1").delete()
    compute.fleet("web").wait()
    azure_double.clock.advance(60)
    assert [machine.name for machine in compute.fleet("web").machines()] == ["web-0"]
    left = list(compute.debris())
    assert left
    assert {each.fleet for each in left} == {"web"}
    assert all(each.name.startswith("web-1") for each in left)
    assert compute.sweep() == ()  # it is younger than an hour
    assert compute.sweep(older_than=AT_ONCE) == tuple(left)
    assert [machine.state for machine in compute.fleet("web").wait()] == ["running"]
    compute.delete("web")
    assert held(azure_double) == NOTHING


def test_nobody_elses_things_are_swept(azure_double: AzureDouble, compute: Compute, web: Fleet) -> None:
    card = azure_double.network.of_kind("networkInterfaces")[0]
    wall = azure_double.network.of_kind("networkSecurityGroups")[0]
    for kind, found, name in (("networkinterfaces", card, "nic7"), ("networksecuritygroups", wall, "their-wall")):
        copy = attrs.evolve(found, name=name, tags={"team": "x"}, properties={**found.properties})
        copy.properties.pop("virtualMachine", None)
        copy.properties.pop("networkSecurityGroup", None)
        azure_double.network.resources[kind, found.group.lower(), name] = copy
    compute.create_disk("data", 10, zone="1")
    assert compute.sweep(older_than=AT_ONCE) == ()
    compute.delete("web")
    left = held(azure_double)
    assert (left["networkInterfaces"], left["networkSecurityGroups"], left["disks"]) == (
        ["nic7"],
        ["their-wall"],
        ["data"],
    )
    assert left["virtualNetworks"] == ["shiftable-germanywestcentral"]  # somebody is in it


@pytest.mark.parametrize("operation", ["VirtualNetworks_CreateOrUpdate", "NetworkSecurityGroups_CreateOrUpdate"])
def test_what_a_fleet_shares_is_made_again_if_that_failed(
    azure_double: AzureDouble, compute: Compute, operation: str
) -> None:
    azure_double.machines.endings.failures[operation] = ("InternalServerError", "try again")
    with pytest.raises(Unavailable, match="try again"):
        compute.create(declared())
    assert held(azure_double)["machines"] == []
    compute.create(declared()).wait()
    compute.delete("web")
    assert held(azure_double) == NOTHING


def test_the_last_fleet_takes_the_network_with_it(azure_double: AzureDouble, compute: Compute, web: Fleet) -> None:
    compute.create(declared("db")).wait()
    compute.delete("web")
    assert held(azure_double)["virtualNetworks"] == ["shiftable-germanywestcentral"]
    assert [machine.state for machine in compute.fleet("db").wait()] == ["running"]
    compute.delete("db")
    assert held(azure_double) == NOTHING


def test_a_machine_that_cannot_be_started_again_has_failed_and_can_be_deleted(
    azure_double: AzureDouble, compute: Compute, web: Fleet
) -> None:
    web.stop()
    web.wait("stopped")
    azure_double.machines.endings.failures["VirtualMachines_Start"] = ("AllocationFailed", "no room")
    web.start()
    with pytest.raises(Conflict, match="AllocationFailed"):
        web.wait()
    web.start()
    assert [machine.state for machine in web.wait()] == ["running"]
    compute.delete("web")
    assert held(azure_double) == NOTHING


def test_a_machine_that_runs_goes_on_when_a_change_of_it_failed(azure_double: AzureDouble, web: Fleet) -> None:
    azure_double.machines.endings.failures["VirtualMachines_Restart"] = ("InternalExecutionError", "hm")
    web.machine("web-0").reboot()
    found = web.machine("web-0").info()
    assert (found.state, "InternalExecutionError" in found.raw_state) == ("running", True)


def test_a_copy_that_fails_later_is_not_waited_for(azure_double: AzureDouble, compute: Compute, web: Fleet) -> None:
    azure_double.machines.endings.delay = timedelta(minutes=1)
    failures = azure_double.machines.endings.failures
    failures["Microsoft.Compute/galleries/images/versions/write"] = ("InternalExecutionError", "hm")
    with pytest.raises(Unavailable, match="failed to make the copy"):
        web.machine("web-0").snapshot("golden")
    (image,) = [image for image in compute.images() if image.own]
    assert not image.ready
    compute.delete_image(image.id)
    assert web.machine("web-0").snapshot("golden").ready
    disk = compute.create_disk("data", 4, zone="1")
    failures["Microsoft.Compute/snapshots/write"] = ("InternalExecutionError", "hm")
    with pytest.raises(Unavailable, match="failed to make the snapshot"):
        compute.snapshot_disk(disk.id, "daily")
    (snapshot,) = compute.disk_snapshots()
    compute.delete_disk_snapshot(snapshot.id)
    assert compute.snapshot_disk(disk.id, "daily").ready


# quotas, refusals, who asks


# labels that change


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("operation", ["VirtualMachines_Update", "Disks_Update"])
@pytest.mark.parametrize("seconds", [0, 4])
def test_labels_whose_change_is_not_heard_of_are_changed_once(
    azure_double: AzureDouble, compute: Compute, kind: Any, operation: str, seconds: int
) -> None:
    fleet = compute.create(declared(labels={"stage": "test"}))
    fleet.wait()
    azure_double.machines.endings.delay = timedelta(seconds=seconds)
    lost = azure_double.inject(kind, match=is_(operation))
    fleet.machine("web-0").relabel({"team": "data"}, remove=["stage"])
    assert (lost.hits, labels_of(azure_double)) == (1, [{"team": "data"}] * 2)
    before = len(azure_double.calls)
    fleet.machine("web-0").relabel({"team": "data"}, remove=["stage"])
    assert not [call for call in azure_double.calls[before:] if call.method != "GET"]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("operation", ["VirtualMachines_Update", "Disks_Update"])
def test_labels_of_somebody_who_gave_up_are_changed_by_the_next_call(
    azure_double: AzureDouble, compute: Compute, make_compute: Make, kind: Any, operation: str
) -> None:
    compute.create(declared(labels={"stage": "test"})).wait()
    hasty = Compute(make_compute(max_attempts=1), sleep=azure_double.clock.advance).fleet("web").machine("web-0")
    azure_double.inject(kind, match=is_(operation))
    with pytest.raises(Unavailable):
        hasty.relabel({"team": "data"}, remove=["stage"])
    hasty.relabel({"team": "data"}, remove=["stage"])
    assert labels_of(azure_double) == [{"team": "data"}] * 2


def meddler(azure_double: AzureDouble, times: int) -> list[int]:
    """Have somebody else change tags right before each of so many calls that do; return the list of these."""
    done: list[int] = []

    def meddle(call: Call) -> bool:
        if is_("VirtualMachines_Update")(call) and len(done) < times:
            found = azure_double.machines.machine("web-0")
            found.tags, found.etag = {**found.tags, f"theirs-{len(done)}": "x"}, f"theirs-{len(done)}"
            done.append(1)
        return False

    azure_double.inject("status", match=meddle)
    return done


def test_labels_that_others_change_at_the_same_time_are_not_lost(azure_double: AzureDouble, web: Fleet) -> None:
    done = meddler(azure_double, times=3)
    web.machine("web-0").relabel({"team": "data"}, remove=["stage"])
    theirs = {f"theirs-{number}": "x" for number in range(3)}
    assert (len(done), web.machine("web-0").info().user_labels) == (3, {"team": "data", **theirs})


def test_whoever_is_always_too_late_is_told_so(
    azure_double: AzureDouble, web: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shiftable_azure._machine_labels._WRITES", 3)
    done = meddler(azure_double, times=1000)
    with pytest.raises(PreconditionFailed, match="etag"):
        web.machine("web-0").relabel({"team": "data"})
    assert len(done) == 3
    assert "team" not in web.machine("web-0").info().labels


def test_labels_wait_for_what_is_being_done_to_a_machine(azure_double: AzureDouble, web: Fleet) -> None:
    azure_double.machines.endings.delay = timedelta(seconds=30)
    machine = web.machine("web-0")
    machine.reboot()
    machine.relabel({"team": "data"})
    assert machine.wait().user_labels == {"team": "data"}


def test_a_machine_that_is_being_deleted_is_not_labelled(azure_double: AzureDouble, web: Fleet) -> None:
    azure_double.machines.endings.delay = timedelta(minutes=2)
    machine = web.machine("web-0")
    machine.delete()
    with pytest.raises(Conflict):
        machine.relabel({"team": "data"})
    machine.wait_deleted()
    with pytest.raises(NotFound):
        machine.relabel({"team": "data"})


def test_a_machine_that_vanishes_while_it_is_labelled_is_missing(azure_double: AzureDouble, web: Fleet) -> None:
    machine = web.machine("web-0")

    def vanish(call: Call) -> bool:
        if is_("Disks_Update")(call):
            azure_double.machines.machines.clear()
        return False

    azure_double.inject("status", match=vanish)
    with pytest.raises(NotFound):
        machine.relabel({"team": "data"})


def test_a_change_of_labels_that_fails_later_says_why(azure_double: AzureDouble, web: Fleet) -> None:
    azure_double.machines.endings.failures["VirtualMachines_Update"] = ("InternalExecutionError", "it broke")
    with pytest.raises(OperationError, match="it broke"):
        web.machine("web-0").relabel({"team": "data"})
    web.machine("web-0").relabel({"team": "data"})
    assert labels_of(azure_double) == [{"team": "data"}] * 2


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AuthorizationFailed", PermissionDenied),
        (403, "RequestDisallowedByPolicy", PermissionDenied),
        (401, "ExpiredAuthenticationToken", Unauthenticated),
        (429, "OperationThrottled", Throttled),
        (500, "InternalServerError", Unavailable),
        (400, "InvalidTagNameCharacters", InvalidArgument),
    ],
)
def test_a_refusal_of_labels_is_told_as_what_it_is(
    azure_double: AzureDouble, web: Fleet, make_compute: Make, status: int, code: str, error: Any
) -> None:
    hasty = Compute(make_compute(max_attempts=1), sleep=azure_double.clock.advance).fleet("web").machine("web-0")
    body = f'{{"error": {{"code": "{code}", "message": "no"}}}}'.encode()
    azure_double.inject("status", status=status, body=body, match=is_("VirtualMachines_Update"), times=None)
    with pytest.raises(error) as caught:
        hasty.relabel({"team": CANARY})
    assert CANARY not in str(caught.value)
    assert web.machine("web-0").info().user_labels == {}


def test_a_machine_whose_disk_is_no_resource_is_labelled_alone(azure_double: AzureDouble, web: Fleet) -> None:
    first = azure_double.machines.machine("web-0").properties["storageProfile"]["osDisk"]
    first["diffDiskSettings"] = {"option": "Local"}
    web.machine("web-0").relabel({"team": "data"})
    assert labels_of(azure_double) == [{"team": "data"}, {}]


def test_names_of_labels_in_upper_and_lower_case_are_one(azure_double: AzureDouble, web: Fleet) -> None:
    machine = web.machine("web-0")
    machine.relabel({"Team": "shop"})
    machine.relabel({"team": "data"})
    assert labels_of(azure_double) == [{"team": "data"}] * 2
    machine.relabel(remove=["TEAM"])
    assert labels_of(azure_double) == [{}] * 2


@pytest.mark.parametrize(
    "labels",
    [
        {"a/b": ""},
        {"k" * 513: ""},
        {"team": "v" * 257},
        {"a": "", "A": ""},
        {"Shiftable-Token": "x"},
        {"SHIFTABLE-FLEET": "x"},
    ],
    ids=["character", "name", "value", "case", "own", "fleet"],
)
def test_labels_that_are_no_tags_are_refused_before_they_are_sent(
    azure_double: AzureDouble, compute: Compute, web: Fleet, labels: dict[str, str]
) -> None:
    machine = web.machine("web-0")
    before = len(azure_double.calls)
    for call in (lambda: machine.relabel(labels), lambda: compute.create(declared("other", labels=labels))):
        with pytest.raises(Unsupported):
            call()
    assert len(azure_double.calls) == before


def test_a_disk_that_outlives_its_machine_keeps_its_own_labels(
    azure_double: AzureDouble, compute: Compute, web: Fleet
) -> None:
    disk = compute.create_disk("data", 10, zone=web.machine("web-0").info().zone)
    web.attach("web-0", disk.id)
    web.machine("web-0").relabel({"team": "data"})
    (held_disk,) = [each for each in azure_double.machines.disks.values() if each.name == "data"]
    assert "team" not in held_disk.tags
    assert [each.id for each in compute.disks()] == [disk.id]


def test_a_full_quota_is_told_and_the_rest_is_made_when_there_is_room(
    azure_double: AzureDouble, compute: Compute
) -> None:
    azure_double.machines.cores = 2
    with pytest.raises(QuotaExceeded, match="quota"):
        compute.create(declared(count=3))
    assert held(azure_double)["machines"] == ["web-0", "web-1"]
    azure_double.machines.cores = 3
    for change in compute.diff(declared(count=3)):
        compute.apply(change)
    assert len(compute.fleet("web").wait()) == 3


def test_public_addresses_have_their_quota(azure_double: AzureDouble, compute: Compute) -> None:
    azure_double.network.addresses = 1
    with pytest.raises(QuotaExceeded):
        compute.create(declared(public_ip=True, count=2))
    compute.delete("web")
    assert held(azure_double) == NOTHING


def test_a_size_that_the_subscription_no_longer_gets_is_told(
    azure_double: AzureDouble, compute_driver: AzureComputeDriver, compute: Compute
) -> None:
    size = compute_driver.choose(declared()).size
    azure_double.machines.closed.add(size.name)
    with pytest.raises(Unsupported, match="not available"):
        compute.create(declared())
    azure_double.clock.advance(3601)
    assert compute.choose(declared()).size.name != size.name
    compute.create(declared()).wait()


def test_a_wrong_token_is_no_permission_problem(make_compute: Make) -> None:
    compute = Compute(make_compute(arm_token=Credential.literal("wrong")))
    with pytest.raises(Unauthenticated):
        compute.create(declared())


@pytest.mark.parametrize(
    "action",
    [
        "Microsoft.Network/virtualNetworks/write",
        "Microsoft.Network/networkSecurityGroups/write",
        "Microsoft.Compute/virtualMachines/write",
        "Microsoft.Compute/virtualMachines/read",
        "Microsoft.Compute/skus/read",
    ],
)
def test_who_may_not_is_told_which_action_is_missing(azure_double: AzureDouble, compute: Compute, action: str) -> None:
    azure_double.arm.denied.add(action)
    with pytest.raises(PermissionDenied, match=action):
        compute.create(declared())


def test_who_may_not_see_the_subscription_asks_for_each_machine(
    azure_double: AzureDouble, compute: Compute, web: Fleet
) -> None:
    azure_double.machines.group_only = True
    assert [(machine.name, machine.seen.state) for machine in web.machines()] == [("web-0", "running")]
    assert sum(call.operation == "VirtualMachines_InstanceView" for call in azure_double.calls) == 1


def test_settings_that_name_nothing_are_told(make_compute: Make) -> None:
    for setting in ("subscription", "resource_group", "location"):
        with pytest.raises(ConfigError, match=setting):
            Compute(make_compute(**{setting: None})).create(declared())
    for setting in ("subscription", "resource_group"):
        with pytest.raises(InvalidArgument, match=setting):
            Compute(make_compute(**{setting: "wrong"})).create(declared())


def test_a_fleet_that_nobody_could_log_in_to_is_refused_before_anything_is_sent(
    azure_double: AzureDouble, compute: Compute, compute_driver: AzureComputeDriver
) -> None:
    (why,) = compute.missing_features(declared(ssh_keys=()))
    assert why.startswith("Linux machine without an ssh key: declare ssh_keys")
    assert () == compute.missing_features(declared())
    with pytest.raises(Unsupported, match="this provider has no Linux machine without an ssh key: declare ssh_keys"):
        compute.create(declared(ssh_keys=()))
    with pytest.raises(ArmFailure, match="ssh_keys"):
        compute_driver.create(declared(ssh_keys=()))
    assert azure_double.calls == ()


@pytest.mark.parametrize(
    "image",
    [
        "debian-99",
        "a:b:c",
        "Nobody:nothing:none:latest",
        "Debian:debian-12:12-gen2:0.0.1",
        "/subscriptions/x",
        "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/Microsoft.Compute/galleries/a/images/b",
    ],
)
def test_an_image_that_is_not_there_is_refused(azure_double: AzureDouble, compute: Compute, image: str) -> None:
    image = image.format_map(azure_double.config)
    with pytest.raises((InvalidArgument, NotFound)):
        compute.create(declared(image=image))
    assert held(azure_double) == NOTHING


def test_an_image_of_which_no_version_is_made_is_refused(
    azure_double: AzureDouble, compute: Compute, web: Fleet
) -> None:
    image = web.machine("web-0").snapshot("golden").id
    before = held(azure_double)
    (definition,) = azure_double.machines.definitions.values()
    (version,) = azure_double.machines._versions(definition).values()
    for state in ("Creating", "Failed", "Deleting"):
        version.properties["provisioningState"] = state
        for of in (image, f"{image}/versions/1.0.0"):
            with pytest.raises(Conflict, match="is not ready"):
                compute.create(declared("other", image=of))
    assert held(azure_double) == before


def test_an_image_whose_versions_may_not_be_listed_is_for_azure_to_refuse(
    azure_double: AzureDouble, compute: Compute, web: Fleet
) -> None:
    image = web.machine("web-0").snapshot("golden").id
    refused = azure_double.inject(
        "status",
        match=lambda call: call.operation == "GalleryImageVersions_List",
        status=403,
        body=b'{"error": {"code": "AuthorizationFailed", "message": "no"}}',
    )
    compute.create(declared("other", image=image)).wait()
    assert refused.hits == 1


def test_an_image_that_may_not_be_looked_at_is_for_azure_to_refuse(azure_double: AzureDouble, compute: Compute) -> None:
    refused = azure_double.inject(
        "status",
        match=lambda call: call.operation.startswith("VirtualMachineImages_"),
        times=2,
        status=403,
        body=b'{"error": {"code": "AuthorizationFailed", "message": "no"}}',
    )
    compute.create(declared(image="Debian:debian-12:12-gen2:latest")).wait()
    assert refused.hits == 1
    with pytest.raises(InvalidArgument, match="is not available"):
        compute.create(declared("other", image="Debian:debian-12:none:latest"))
    assert held(azure_double)["machines"] == ["web-0"]


def test_what_somebody_else_made_is_left_alone(azure_double: AzureDouble, compute: Compute, web: Fleet) -> None:
    for kind in ("networkSecurityGroups", "virtualNetworks"):
        found = azure_double.network.of_kind(kind)[0]
        tags, found.tags = found.tags, {"team": "x"}
        with pytest.raises(AlreadyExists, match="somebody else"):
            compute.apply(compute.diff(declared(count=2))[0])
        found.tags = tags
    azure_double.network.of_kind("networkSecurityGroups")[0].tags = {"team": "x"}
    opened = declared(open_ports=(22,))
    with pytest.raises(AlreadyExists, match="somebody else"):
        compute.apply(compute.diff(opened)[0])
    compute.delete("web")
    assert held(azure_double)["networkSecurityGroups"] == ["shiftable-web"]


# states and ids


def test_another_change_meanwhile_is_a_conflict(azure_double: AzureDouble, web: Fleet) -> None:
    azure_double.machines.endings.delay = timedelta(minutes=1)
    machine = web.machine("web-0")
    machine.reboot()
    with pytest.raises(Conflict):
        machine.stop()
    assert machine.wait().state == "running"
    azure_double.clock.advance(60)
    machine.stop()
    assert machine.wait("stopped").state == "stopped"


def test_only_a_stopped_machine_changes_its_size(
    compute_driver: AzureComputeDriver, web: Fleet, azure_double: AzureDouble
) -> None:
    machine = web.machine("web-0")
    size = compute_driver.choose(declared(cpus=2)).size
    with pytest.raises(ArmFailure, match="must be stopped"):
        compute_driver.resize(machine.id, size)
    assert azure_double.machines.machine("web-0").properties["hardwareProfile"]["vmSize"] == machine.seen.size


def test_a_machine_that_was_shut_down_from_inside_is_paid_for_until_it_is_stopped(
    azure_double: AzureDouble, web: Fleet
) -> None:
    azure_double.machines.machine("web-0").power = "stopped"
    machine = web.machine("web-0")
    assert machine.info().state == "suspended"
    machine.stop()
    machine.wait("stopped")
    assert azure_double.machines.machine("web-0").power == "deallocated"


def test_an_old_id_is_never_taken_for_a_new_machine_of_that_name(
    azure_double: AzureDouble, compute: Compute, web: Fleet
) -> None:
    old = web.machine("web-0")
    old.delete()
    for change in compute.diff(declared()):
        compute.apply(change)
    old.delete()
    for call in (old.info, old.reboot, old.stop, old.console):
        with pytest.raises(NotFound):
            call()
    assert [machine.state for machine in web.wait()] == ["running"]


# secrets


def test_user_data_is_nowhere_but_at_the_machine(
    azure_double: AzureDouble, compute: Compute, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    spec = declared(user_data_text=f"#cloud-config\npassword: {CANARY}\n")
    fleet = compute.create(spec)
    fleet.wait()
    assert CANARY.encode() in azure_double.machines.machine("web-0").data
    azure_double.machines.fail_create("AllocationFailed", at_once=True)
    with pytest.raises(OperationError) as caught:
        compute.create(attrs.evolve(spec, name="other"))
    told = f"{caught.value!r} {caught.value.__cause__!r} {fleet.machine('web-0').seen!r} {compute.describe('web')!r}"
    assert CANARY not in told + caplog.text + repr(azure_double.calls)
    assert azure_double.token not in told + caplog.text


def test_the_log_of_a_console_is_fetched_without_our_token_and_nobody_sees_its_signature(
    azure_double: AzureDouble, web: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="shiftable")
    assert web.console() == {"web-0": b"Linux version 6.1.0-cloud-amd64\ncloud-init: done\n"}
    signature = azure_double.machines._signature("web-0")
    faults: list[Any] = ["drop_before", "status", "truncate"]
    for kind in faults:
        azure_double.inject(kind, status=403, match=is_("GetLog"))
        with pytest.raises(Unavailable, match="console log") as caught:
            web.machine("web-0").console()
        assert signature not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert signature not in caplog.text + repr(azure_double.calls)
    azure_double.machines.machine("web-0").console = b""
    assert web.machine("web-0").console() == b""


def test_only_the_last_of_a_long_console_is_kept(azure_double: AzureDouble, web: Fleet) -> None:
    azure_double.machines.machine("web-0").console = b"x" * 2**21 + b"the end\n"
    text = web.machine("web-0").console()
    assert (len(text), text[-8:]) == (2**20, b"the end\n")


# what Azure's codes mean


def refusal(code: str, message: str = "no", status: int = 409) -> native.HttpResponseError:
    """Return an exception as the SDK makes it of an answer."""
    response: Any = SimpleNamespace(status_code=status, reason="", headers={}, request=HttpRequest("PUT", "https://x"))
    exc = native.HttpResponseError(message=message, response=response)
    stated: Any = SimpleNamespace(code=code, message=message)
    exc.error = stated
    return exc


@pytest.mark.parametrize("code", sorted(COMPUTE_CODES))
def test_a_code_means_the_same_at_once_and_later(code: str) -> None:
    refused, failed = classify_compute(refusal(code)), classify_compute(ArmFailure(code, "no"))
    assert refused is not None
    assert failed is not None
    assert (refused.error, failed.error) == (COMPUTE_CODES[code], COMPUTE_CODES[code])
    assert refused.code == code


def test_there_is_a_row_for_what_azure_is_known_to_say() -> None:
    assert len(COMPUTE_CODES) > 40


def test_a_quota_is_no_wrong_state_though_azure_has_one_code_for_both() -> None:
    full = classify_compute(refusal("OperationNotAllowed", "exceeding approved Total Regional Cores quota"))
    busy = classify_compute(refusal("OperationNotAllowed", "The machine is deallocated."))
    assert full is not None
    assert busy is not None
    assert (full.error, busy.error) == (QuotaExceeded, Conflict)


def test_an_operation_that_takes_too_long_is_a_timeout(azure_double: AzureDouble, compute: Compute) -> None:
    azure_double.machines.endings.delay = timedelta(hours=2)
    with pytest.raises(Timeout, match="network"):
        compute.create(declared())
