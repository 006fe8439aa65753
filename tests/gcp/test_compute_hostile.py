"""Lost answers, other callers, zones that have no more, quotas, debris: a machine is there once, or we say why not."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import attrs
import pytest

from shiftable.compute import Compute, FleetSpec, Rule, Size
from shiftable.compute._rules import token_of
from shiftable.compute.driver import GIB
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    Throttled,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.harness import Call, Kind
from shiftable_gcp import GcpComputeSettings, GcpProvider
from shiftable_gcp.compute import GceDriver
from shiftable_gcp.double import GcpDouble

from .hostile import opened
from .wire import Json, Outsider

pytestmark = pytest.mark.usefixtures("short_waits")

CANARY = "c4n4ry-in-user-data"


@pytest.fixture
def driver(provider: GcpProvider) -> GceDriver:
    return GceDriver(provider.session)


@pytest.fixture
def compute(driver: GceDriver) -> Compute:
    return Compute(driver, sleep=lambda _: None)


@pytest.fixture
def elsewhere(another: GcpProvider) -> Compute:
    """Return the service as another process has it."""
    return Compute(another.compute(), sleep=lambda _: None)


@pytest.fixture
def impatient(hasty: GcpProvider) -> Compute:
    """Return the service, to somebody who gives up soon."""
    return Compute(hasty.compute(), sleep=lambda _: None)


@pytest.fixture
def foreign(gcp_double: GcpDouble) -> Outsider:
    return Outsider(gcp_double.compute, f"/compute/v1/projects/{gcp_double.project}")


def of(operation: str) -> Callable[[Call], bool]:
    return lambda call: call.operation == f"compute.{operation}"


def calls_of(double: GcpDouble) -> list[str]:
    return [call.operation.removeprefix("compute.") for call in double.calls if call.service == "compute"]


def error(status: int, reason: str, message: str = "no", **headers: str) -> dict[str, Any]:
    detail = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    return {"status": status, "body": json.dumps({"error": detail}).encode(), "headers": tuple(headers.items())}


def machine_body(name: str, **more: Any) -> Json:
    disk = {"boot": True, "initializeParams": {"sourceImage": "projects/debian-cloud/global/images/family/debian-12"}}
    base = {"name": name, "machineType": "zones/europe-west3-a/machineTypes/e2-small", "disks": [disk]}
    return base | {"networkInterfaces": [{"network": "global/networks/default"}]} | more


def everything(double: GcpDouble) -> list[str]:
    return sorted([*double.compute.of("instances"), *double.compute.of("disks"), *double.compute.of("firewalls")])


# lost answers


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("polls", [0, 3])
def test_a_machine_whose_creation_was_in_doubt_is_made_once(
    gcp_double: GcpDouble, compute: Compute, kind: Kind, polls: int
) -> None:
    gcp_double.compute.polls = polls
    gcp_double.inject(kind, match=of("instances.insert"), times=2)
    assert ["web-0"] == [machine.name for machine in compute.create(small_fleet("web")).wait()]
    assert ["europe-west3-a/web-0"] == list(gcp_double.compute.of("instances"))
    made = [each for each in gcp_double.compute.operations.values() if "/instances/" in each.target]
    assert ["insert"] == [operation.kind for operation in made]


def test_a_machine_whose_maker_gave_up_is_found_by_the_next_one(
    gcp_double: GcpDouble, impatient: Compute, elsewhere: Compute
) -> None:
    gcp_double.inject("drop_after", match=of("instances.insert"), times=None)
    with pytest.raises(Unavailable):
        impatient.create(small_fleet("web"))
    assert () == elsewhere.diff(small_fleet("web"))
    assert ["web-0"] == [machine.name for machine in elsewhere.open(small_fleet("web")).wait()]


@pytest.mark.parametrize("zone", [None, "europe-west3-b"])
def test_the_same_token_finds_its_machine_from_another_process(
    gcp_double: GcpDouble, driver: GceDriver, zone: str | None
) -> None:
    spec = attrs.evolve(small_fleet("web"), zone=zone)
    size, token = driver.choose(spec).size, token_of("web-0")
    made = driver.create_machine(spec, "web-0", size=size, token=token, user_data=None)
    other = opened(gcp_double)
    again = other.compute().create_machine(spec, "web-0", size=size, token=token, user_data=None)
    other.close()
    assert (made.id, made.name) == (again.id, again.name)
    assert 1 == len(gcp_double.compute.of("instances"))


def test_in_another_zone_the_same_token_makes_no_second_machine(gcp_double: GcpDouble, driver: GceDriver) -> None:
    spec = small_fleet("web")
    size, token = driver.choose(spec).size, token_of("web-0")
    there = attrs.evolve(spec, zone="europe-west3-c")
    made = driver.create_machine(there, "web-0", size=size, token=token, user_data=None)
    again = driver.create_machine(spec, "web-0", size=size, token=token, user_data=None)
    assert made.id == again.id
    assert ["europe-west3-c/web-0"] == list(gcp_double.compute.of("instances"))


@pytest.mark.parametrize("labels", [{}, {"shiftable-fleet": "other"}, {"shiftable-fleet": "web"}])
def test_a_name_that_somebody_else_has_is_taken(
    gcp_double: GcpDouble, compute: Compute, driver: GceDriver, foreign: Outsider, labels: dict[str, str]
) -> None:
    foreign.ask("POST", "/zones/europe-west3-a/instances", machine_body("web-0", labels=labels))
    with pytest.raises(AlreadyExists, match="already exists"):
        driver_create(compute, driver)
    assert ["europe-west3-a/web-0"] == list(gcp_double.compute.of("instances"))
    assert labels == gcp_double.compute.of("instances")["europe-west3-a/web-0"].get("labels", {})


def test_many_at_once_with_one_token_make_one_machine(gcp_double: GcpDouble, driver: GceDriver) -> None:
    spec = small_fleet("web")
    size, token = driver.choose(spec).size, token_of("web-0")

    def make(_number: int) -> str:
        return driver.create_machine(spec, "web-0", size=size, token=token, user_data=None).id

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(make, range(8)))
    (held,) = gcp_double.compute.of("instances").values()
    assert {f"europe-west3-a/{held['id']}"} == made


def test_a_machine_that_is_being_deleted_is_not_the_one_that_is_to_be_made(
    gcp_double: GcpDouble, compute: Compute, driver: GceDriver
) -> None:
    compute.create(small_fleet("web")).wait()
    gcp_double.compute.polls = 10**6
    compute.fleet("web").machine("web-0").delete()
    with pytest.raises(AlreadyExists):
        driver_create(compute, driver)


def driver_create(compute: Compute, driver: GceDriver) -> None:
    spec = small_fleet("web")
    with compute._translated("create", None):  # as the portable class calls a driver
        driver.create_machine(spec, "web-0", size=driver.choose(spec).size, token=token_of("web-0"), user_data=None)


def test_somebody_else_s_disk_of_that_name_is_left_alone(
    gcp_double: GcpDouble, compute: Compute, foreign: Outsider
) -> None:
    foreign.ask("POST", "/zones/europe-west3-a/disks", {"name": "web-0", "sizeGb": "10"})
    with pytest.raises(AlreadyExists, match="disks/web-0"):
        compute.create(small_fleet("web"))
    assert ["europe-west3-a/web-0"] == everything(gcp_double)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("polls", [0, 3])
def test_a_machine_whose_deletion_was_in_doubt_is_gone(
    gcp_double: GcpDouble, compute: Compute, kind: Kind, polls: int
) -> None:
    compute.create(small_fleet("web")).wait()
    gcp_double.compute.polls = polls
    gcp_double.inject(kind, match=of("instances.delete"), times=2)
    compute.delete("web")
    assert [] == everything(gcp_double)
    kinds = [each.kind for each in gcp_double.compute.operations.values() if "/instances/" in each.target]
    assert 1 == kinds.count("delete")


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize(
    ("operation", "act"),
    [
        ("instances.stop", lambda machine: (machine.stop(), machine.wait("stopped"))),
        ("instances.reset", lambda machine: (machine.reboot(), machine.wait())),
        ("instances.attachDisk", lambda machine: machine.attach("europe-west3-a/data")),
        ("images.insert", lambda machine: machine.snapshot("golden")),
    ],
    ids=["stop", "reset", "attach", "snapshot"],
)
def test_what_was_in_doubt_happens_once(
    gcp_double: GcpDouble, compute: Compute, kind: Kind, operation: str, act: Callable[[Any], object]
) -> None:
    compute.create_disk("data", 10, zone="europe-west3-a")
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    before = len(gcp_double.compute.operations)
    gcp_double.inject(kind, match=of(operation), times=2)
    act(fleet.machine("web-0"))
    assert before + 1 == len(gcp_double.compute.operations)


# labels that change


def labels_of(double: GcpDouble) -> list[dict[str, str]]:
    """Return the labels of all machines, then of all disks, without the fleet's."""
    held = [*double.compute.of("instances").values(), *double.compute.of("disks").values()]
    return [{key: value for key, value in each["labels"].items() if key != "shiftable-fleet"} for each in held]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("operation", ["instances.setLabels", "disks.setLabels", "zoneOperations.wait"])
def test_labels_whose_change_was_in_doubt_are_changed_once(
    gcp_double: GcpDouble, compute: Compute, kind: Kind, operation: str
) -> None:
    fleet = compute.create(attrs.evolve(small_fleet("web"), labels={"stage": "test"}))
    fleet.wait()
    before = len(gcp_double.compute.operations)
    gcp_double.inject(kind, match=of(operation), times=2)
    fleet.machine("web-0").relabel({"team": "data"}, remove=["stage"])
    assert [{"team": "data"}] * 2 == labels_of(gcp_double)
    assert before + 2 == len(gcp_double.compute.operations)
    fleet.machine("web-0").relabel({"team": "data"}, remove=["stage"])
    assert before + 2 == len(gcp_double.compute.operations)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("operation", ["instances.setLabels", "disks.setLabels"])
def test_labels_of_somebody_who_gave_up_are_changed_by_the_next_call(
    gcp_double: GcpDouble, compute: Compute, impatient: Compute, kind: Kind, operation: str
) -> None:
    compute.create(attrs.evolve(small_fleet("web"), labels={"stage": "test"})).wait()
    fault = gcp_double.inject(kind, match=of(operation), times=None)
    with pytest.raises(Unavailable):
        impatient.fleet("web").machine("web-0").relabel({"team": "data"}, remove=["stage"])
    fault.times = 0
    impatient.fleet("web").machine("web-0").relabel({"team": "data"}, remove=["stage"])
    assert [{"team": "data"}] * 2 == labels_of(gcp_double)


def meddler(gcp_double: GcpDouble, kind: str, times: int) -> list[int]:
    """Have somebody else change labels right before each of so many calls that do; return the list of these."""
    done: list[int] = []

    def meddle(call: Call) -> bool:
        if of(f"{kind}.setLabels")(call) and len(done) < times:
            (found,) = gcp_double.compute.of(kind).values()
            found["labels"] = {**found["labels"], f"theirs-{len(done)}": "x"}
            found["labelFingerprint"] = f"dGhlaXJz{len(done)}"
            done.append(1)
        return False

    gcp_double.inject("status", match=meddle)
    return done


@pytest.mark.parametrize("kind", ["instances", "disks"])
def test_labels_that_others_change_at_the_same_time_are_not_lost(
    gcp_double: GcpDouble, compute: Compute, kind: str
) -> None:
    fleet = compute.create(attrs.evolve(small_fleet("web"), labels={"stage": "test"}))
    fleet.wait()
    done = meddler(gcp_double, kind, times=3)
    fleet.machine("web-0").relabel({"team": "data"}, remove=["stage"])
    theirs = {f"theirs-{number}": "x" for number in range(3)}
    assert 3 == len(done)
    expected = [{"team": "data"}, {"team": "data", **theirs}]
    assert expected == sorted(labels_of(gcp_double), key=len)


def test_whoever_is_always_too_late_is_told_so(
    gcp_double: GcpDouble, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shiftable_gcp.compute._WRITES", 3)
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    done = meddler(gcp_double, "disks", times=1000)
    with pytest.raises(PreconditionFailed, match="fingerprint"):
        fleet.machine("web-0").relabel({"team": "data"})
    assert 3 == len(done)
    assert {} == fleet.machine("web-0").info().user_labels


def test_labels_wait_for_what_is_being_done_to_a_machine(gcp_double: GcpDouble, compute: Compute) -> None:
    gcp_double.compute.polls = 9
    (machine,) = compute.create(small_fleet("web")).machines()
    assert "creating" == machine.seen.state
    machine.relabel({"team": "data"})
    assert [{"team": "data"}] * 2 == labels_of(gcp_double)
    assert {"team": "data"} == machine.wait().user_labels


@pytest.mark.parametrize(
    ("code", "error_type"),
    [("PERMISSIONS_ERROR", PermissionDenied), ("QUOTA_EXCEEDED", QuotaExceeded), ("INTERNAL_ERROR", OperationError)],
)
def test_a_change_of_labels_that_ends_in_an_error_says_why(
    gcp_double: GcpDouble, compute: Compute, code: str, error_type: type[OperationError]
) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    gcp_double.compute.fail_next("instances.setLabels", code, "no")
    with pytest.raises(error_type, match="setLabels failed"):
        fleet.machine("web-0").relabel({"team": "data"})
    assert {} == fleet.machine("web-0").info().user_labels


def test_an_operation_that_found_other_labels_is_begun_again(gcp_double: GcpDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    gcp_double.compute.fail_next("instances.setLabels", "CONDITION_NOT_MET", "Labels fingerprint is stale")
    fleet.machine("web-0").relabel({"team": "data"})
    assert [{"team": "data"}] * 2 == labels_of(gcp_double)


@pytest.mark.parametrize(
    ("status", "reason", "error_type"),
    [
        (403, "forbidden", PermissionDenied),
        (401, "authError", Unauthenticated),
        (429, "rateLimitExceeded", Throttled),
        (503, "backendError", Unavailable),
        (412, "conditionNotMet", PermissionDenied),
    ],
)
def test_a_refusal_of_labels_is_told_as_what_it_is(
    gcp_double: GcpDouble,
    compute: Compute,
    impatient: Compute,
    status: int,
    reason: str,
    error_type: type[OperationError],
) -> None:
    compute.create(small_fleet("web")).wait()
    said = "Constraint constraints/custom.labels violated"
    gcp_double.inject("status", match=of("instances.setLabels"), times=None, **error(status, reason, said))
    with pytest.raises(error_type):
        impatient.fleet("web").machine("web-0").relabel({"team": "data"})


def test_a_machine_that_vanishes_while_it_is_labelled_is_missing(gcp_double: GcpDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    machine = fleet.machine("web-0")

    def vanish(call: Call) -> bool:
        if of("disks.setLabels")(call):
            gcp_double.compute.drop(next(path for path in gcp_double.compute.resources if "/instances/" in path))
        return False

    gcp_double.inject("status", match=vanish)
    with pytest.raises(NotFound):
        machine.relabel({"team": "data"})
    with pytest.raises(NotFound):
        machine.relabel({"team": "data"})


def test_a_disk_of_a_whole_region_keeps_its_labels(gcp_double: GcpDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    (instance,) = gcp_double.compute.of("instances").values()
    source = instance["disks"][0]["source"]
    instance["disks"][0]["source"] = source.replace("zones/europe-west3-a", "regions/europe-west3")
    fleet.machine("web-0").relabel({"team": "data"})
    assert [{"team": "data"}, {}] == labels_of(gcp_double)
    instance["disks"][0]["source"] = source


def test_a_disk_that_outlives_its_machine_keeps_its_own_labels(gcp_double: GcpDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    disk = compute.create_disk("data", 10, zone="europe-west3-a")
    fleet.attach("web-0", disk.id)
    fleet.machine("web-0").relabel({"team": "data"})
    assert {} == gcp_double.compute.of("disks")["europe-west3-a/data"]["labels"]
    assert [disk.id] == [each.id for each in compute.disks()]


def test_throttling_and_trouble_are_waited_for(gcp_double: GcpDouble, compute: Compute) -> None:
    gcp_double.inject("status", match=of("instances.insert"), **error(503, "backendError"))
    gcp_double.inject("status", match=of("instances.insert"), **error(429, "rateLimitExceeded"))
    gcp_double.inject("status", match=of("instances.aggregatedList"), **error(503, "backendError"))
    assert 1 == len(compute.create(small_fleet("web")).wait())


def test_a_retry_after_is_told(gcp_double: GcpDouble, impatient: Compute) -> None:
    refusal = error(429, "rateLimitExceeded", **{"Retry-After": "7"})
    gcp_double.inject("status", match=of("instances.aggregatedList"), times=None, **refusal)
    with pytest.raises(Throttled) as caught:
        list(impatient.machines())
    assert 7 == caught.value.retry_after


# creations that fail

FAILURES = [
    ("QUOTA_EXCEEDED", "Quota 'CPUS' exceeded.", QuotaExceeded),
    ("ZONE_RESOURCE_POOL_EXHAUSTED", "The zone has no more.", QuotaExceeded),
    ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "The zone has no more.", QuotaExceeded),
    ("INVALID_USAGE", "This cannot be.", InvalidArgument),
    ("PERMISSIONS_ERROR", "You may not.", PermissionDenied),
    ("RESOURCE_NOT_FOUND", "There is none.", NotFound),
    ("INTERNAL_ERROR", "Broken.", OperationError),
    ("SOMETHING_NEW", "Nobody knows.", OperationError),
]


@pytest.mark.parametrize("leaves", ["nothing", "disk", "machine"])
@pytest.mark.parametrize(("code", "said", "kind"), FAILURES)
def test_a_creation_that_fails_says_why_and_leaves_nothing(
    gcp_double: GcpDouble, compute: Compute, code: str, said: str, kind: type[OperationError], leaves: str
) -> None:
    gcp_double.compute.fail_next("instances.insert", code, said, leaves=leaves)
    fleet = compute.create(small_fleet("web"))
    with pytest.raises(kind, match=said) as caught:
        fleet.wait()
    assert (kind, code) == (type(caught.value), caught.value.code)
    assert not caught.value.retryable
    assert [] == everything(gcp_double)
    (change,) = compute.diff(small_fleet("web"))
    compute.apply(change)
    assert ["web-0"] == [machine.name for machine in fleet.wait()]


@pytest.mark.parametrize("leaves", ["nothing", "disk", "machine"])
@pytest.mark.parametrize("polls", [0, 2])
def test_what_a_process_that_died_left_the_next_one_clears(
    gcp_double: GcpDouble, compute: Compute, elsewhere: Compute, leaves: str, polls: int
) -> None:
    gcp_double.compute.polls = polls
    gcp_double.compute.fail_next("instances.insert", "INTERNAL_ERROR", "broken", leaves=leaves)
    spec = attrs.evolve(small_fleet("web"), open_ports=(443,))
    compute.create(spec)
    for _ in range(polls + 1):  # Google goes on meanwhile
        list(elsewhere.machines())
    if leaves == "machine":
        elsewhere.delete("web")
    else:
        assert {"disk": 1, "nothing": 0}[leaves] == len(gcp_double.compute.of("disks"))
        swept = elsewhere.sweep(older_than=timedelta(0))
        assert {"disk": {"disk", "firewall"}, "nothing": {"firewall"}}[leaves] == {each.kind for each in swept}
        assert {"web"} == {each.fleet for each in swept}
    assert [] == everything(gcp_double)


def test_a_disk_that_was_left_is_in_nobody_s_way(gcp_double: GcpDouble, compute: Compute, elsewhere: Compute) -> None:
    gcp_double.compute.fail_next("instances.insert", "INTERNAL_ERROR", "broken", leaves="disk")
    compute.create(small_fleet("web"))
    list(elsewhere.machines())
    list(elsewhere.machines())
    assert ["europe-west3-a/web-0"] == everything(gcp_double)
    assert ["web-0"] == [machine.name for machine in elsewhere.create(small_fleet("web")).wait()]


def test_a_fleet_is_deleted_with_the_disks_of_machines_that_were_never_made(
    gcp_double: GcpDouble, compute: Compute, elsewhere: Compute
) -> None:
    compute.create(small_fleet("web")).wait()
    gcp_double.compute.fail_next("instances.insert", "INTERNAL_ERROR", "broken", leaves="disk")
    for change in compute.diff(small_fleet("web", count=2)):
        compute.apply(change)
    list(elsewhere.machines())
    list(elsewhere.machines())
    assert ["europe-west3-a/web-0", "europe-west3-a/web-1"] == sorted(gcp_double.compute.of("disks"))
    elsewhere.delete("web")
    assert [] == everything(gcp_double)


def test_a_machine_that_failed_is_listed_as_failed_until_it_is_said_why(
    gcp_double: GcpDouble, compute: Compute, elsewhere: Compute
) -> None:
    gcp_double.compute.fail_next("instances.insert", "QUOTA_EXCEEDED", "no more CPUs")
    fleet = compute.create(small_fleet("web"))
    states = [[machine.seen.state for machine in fleet.machines()] for _ in range(3)]
    assert [["creating"], ["failed"], ["failed"]] == states
    assert [] == list(elsewhere.fleet("web").machines())
    (machine,) = fleet.machines()
    assert "no more CPUs" in machine.seen.raw_state
    with pytest.raises(QuotaExceeded, match="no more CPUs"):
        machine.info()
    assert [] == list(fleet.machines())


def test_a_failed_machine_can_be_deleted_without_a_look(gcp_double: GcpDouble, compute: Compute) -> None:
    gcp_double.compute.fail_next("instances.insert", "QUOTA_EXCEEDED", "no more CPUs", leaves="disk")
    fleet = compute.create(small_fleet("web"))
    assert ["creating", "failed"] == [next(iter(fleet.machines())).seen.state for _ in range(2)]
    compute.delete("web")
    assert ([], []) == (list(fleet.machines()), everything(gcp_double))


def test_a_quota_ends_a_creation(gcp_double: GcpDouble, compute: Compute) -> None:
    gcp_double.compute.quotas["CPUS"] = 4
    fleet = compute.create(small_fleet("web", count=3))
    with pytest.raises(QuotaExceeded, match=r"Limit: 4\.0 in region europe-west3"):
        fleet.wait()
    assert 2 == len(fleet.wait())


def test_a_quota_that_is_told_when_a_replacement_is_made_costs_one_machine(
    gcp_double: GcpDouble, compute: Compute
) -> None:
    kept = compute.create(small_fleet("web", count=2)).wait()[1]
    spec = attrs.evolve(small_fleet("web", count=2), image="ubuntu-24.04")
    gcp_double.compute.quotas["CPUS"] = 2
    for why in ("'web-0'.*Limit.*the old web-0 is deleted, and web-1 is as before", "'web-0'.*Limit"):
        with pytest.raises(QuotaExceeded, match=why):
            _apply(compute, spec)
        assert [kept.id] == [each.id for each in compute.fleet("web").info() if each.state != "failed"]
    gcp_double.compute.quotas["CPUS"] = 24
    _apply(compute, spec)
    assert ["ubuntu-24.04"] * 2 == [each.image for each in compute.fleet("web").wait()]


def _apply(compute: Compute, spec: FleetSpec) -> None:
    for change in compute.diff(spec):
        compute.apply(change)


def test_a_zone_without_machines_gives_way_to_the_next(gcp_double: GcpDouble, compute: Compute) -> None:
    gcp_double.compute.exhausted.add("europe-west3-a")
    spec = small_fleet("web")
    fleet = compute.create(spec)
    with pytest.raises(QuotaExceeded, match="europe-west3-a has no more of e2-micro.*europe-west3-b, europe-west3-c"):
        fleet.wait()
    for change in compute.diff(spec):
        compute.apply(change)
    assert ["europe-west3-b"] == [machine.zone for machine in fleet.wait()]
    gcp_double.compute.exhausted.add("europe-west3-b")
    more = small_fleet("web", count=2)
    for change in compute.diff(more):
        compute.apply(change)
    with pytest.raises(QuotaExceeded, match="europe-west3-b has no more"):
        fleet.wait()
    for change in compute.diff(more):
        compute.apply(change)
    assert ["europe-west3-b", "europe-west3-c"] == [machine.zone for machine in fleet.wait()]
    assert () == compute.diff(more)


def test_a_declared_zone_is_kept_to(gcp_double: GcpDouble, compute: Compute) -> None:
    gcp_double.compute.exhausted.add(("europe-west3-b", "e2-micro"))
    spec = attrs.evolve(small_fleet("web"), zone="europe-west3-b")
    for _ in range(2):
        fleet = compute.create(spec)
        with pytest.raises(QuotaExceeded, match="another zone: europe-west3-a, europe-west3-c"):
            fleet.wait()
    assert [] == everything(gcp_double)


def test_a_zone_of_another_region_is_refused(compute: Compute) -> None:
    with pytest.raises(InvalidArgument, match="europe-west3 has no zone 'us-central1-a'; it has europe-west3-a"):
        compute.create(attrs.evolve(small_fleet("web"), zone="us-central1-a"))


def test_a_region_without_zones_is_refused(gcp_double: GcpDouble) -> None:
    provider = opened(gcp_double, region="EU")
    with pytest.raises(InvalidArgument, match="no zones in the region 'EU'"):
        Compute(provider.compute()).create(small_fleet("web"))
    provider.close()


def test_a_machine_that_cannot_be_started_again_says_why(gcp_double: GcpDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    fleet.stop()
    fleet.wait("stopped")
    gcp_double.compute.exhausted.add("europe-west3-a")
    fleet.start()
    with pytest.raises(QuotaExceeded, match="apply again later"):
        fleet.wait()
    assert "stopped" == fleet.machine("web-0").info().state
    gcp_double.compute.exhausted.clear()
    fleet.start()
    assert ["running"] == [machine.state for machine in fleet.wait()]


def test_a_machine_that_somebody_suspended_is_resumed(compute: Compute, foreign: Outsider) -> None:
    fleet = compute.create(small_fleet("web"))
    (before,) = fleet.wait()
    foreign.ask("POST", "/zones/europe-west3-a/instances/web-0/suspend")
    machine = fleet.machine("web-0")
    assert "suspended" == machine.wait("suspended").state
    fleet.start()
    assert [(before.id, "running")] == [(seen.id, seen.state) for seen in fleet.wait()]


def test_a_deletion_that_fails_says_why(gcp_double: GcpDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    gcp_double.compute.fail_next("instances.delete", "INTERNAL_ERROR", "broken")
    with pytest.raises(OperationError, match="broken"):
        compute.delete("web")
    assert ["running"] == [machine.state for machine in fleet.wait()]
    compute.delete("web")
    assert [] == everything(gcp_double)


@pytest.mark.parametrize("kind", ["images", "snapshots"])
def test_an_image_or_a_snapshot_that_fails_says_why(gcp_double: GcpDouble, compute: Compute, kind: str) -> None:
    gcp_double.compute.polls = 2
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    disk = compute.create_disk("data", 10, zone="europe-west3-a")
    gcp_double.compute.fail_next(f"{kind}.insert", "QUOTA_EXCEEDED", "no more of these")
    with pytest.raises(QuotaExceeded, match="no more of these"):
        fleet.machine("web-0").snapshot("x") if kind == "images" else compute.snapshot_disk(disk.id, "x")
    assert [] == [image.name for image in compute.images() if image.own]
    assert [] == list(compute.disk_snapshots())


def test_a_disk_that_cannot_be_made_says_why(gcp_double: GcpDouble, compute: Compute) -> None:
    gcp_double.compute.fail_next("disks.insert", "QUOTA_EXCEEDED", "no more of these")
    with pytest.raises(QuotaExceeded, match="no more of these"):
        compute.create_disk("data", 10)
    assert [] == everything(gcp_double)


# states


def test_a_machine_can_be_deleted_while_it_is_made(gcp_double: GcpDouble, compute: Compute, elsewhere: Compute) -> None:
    gcp_double.compute.polls = 50
    compute.create(small_fleet("web"))
    elsewhere.delete("web")
    assert [] == everything(gcp_double)


def test_what_another_process_does_shows_in_the_state(
    gcp_double: GcpDouble, compute: Compute, elsewhere: Compute
) -> None:
    fleet, seen = compute.create(small_fleet("web")), elsewhere.fleet("web")
    fleet.wait()
    gcp_double.compute.polls = 10
    fleet.stop()
    assert ["stopping"] == [machine.seen.state for machine in seen.machines()]
    fleet.wait("stopped")
    fleet.start()
    assert ["starting"] == [machine.seen.state for machine in seen.machines()]
    fleet.wait()
    fleet.machine("web-0").delete()
    assert ["deleting"] == [machine.seen.state for machine in seen.machines()]
    assert ["deleting"] == [machine.seen.state for machine in fleet.machines()]


def test_a_stopped_machine_is_terminated_to_google_and_not_to_us(gcp_double: GcpDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    fleet.stop()
    (info,) = fleet.wait("stopped")
    assert ("stopped", "TERMINATED") == (info.state, info.raw_state)
    assert "TERMINATED" == gcp_double.compute.of("instances")["europe-west3-a/web-0"]["status"]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("DEPROVISIONING", "deleting"),
        ("PENDING_STOP", "stopping"),
        ("REPAIRING", "starting"),
        ("SUSPENDED", "suspended"),
        ("SUSPENDING", "stopping"),
        ("STOPPED", "stopped"),
    ],
)
def test_every_state_of_google_s_has_a_name(
    gcp_double: GcpDouble, compute: Compute, elsewhere: Compute, status: str, state: str
) -> None:
    compute.create(small_fleet("web")).wait()
    gcp_double.compute.of("instances")["europe-west3-a/web-0"]["status"] = status
    assert [(state, status)] == [(m.seen.state, m.seen.raw_state) for m in elsewhere.machines()]


def test_a_machine_that_took_the_name_of_another_is_not_the_other(compute: Compute, elsewhere: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    old = fleet.machine("web-0")
    elsewhere.delete("web")
    elsewhere.create(small_fleet("web")).wait()
    with pytest.raises(NotFound):
        old.reboot()
    old.delete()
    assert ["running"] == [machine.state for machine in elsewhere.fleet("web").wait()]


@pytest.mark.parametrize(
    "id_", ["", "web-0", "europe-west3-a/", "europe-west3-a/../x", "a/b/c", "europe-west3-a/web?x=1"]
)
def test_what_is_no_id_is_missing_and_is_not_sent(gcp_double: GcpDouble, driver: GceDriver, id_: str) -> None:
    before = len(gcp_double.calls)
    compute = Compute(driver)
    for call in (driver.machine, driver.delete_machine, driver.disk, driver.delete_disk, driver.image, driver.start):
        with pytest.raises(NotFound), compute._translated("get", None):  # as the portable class calls a driver
            call(id_)
    assert before == len(gcp_double.calls)


# listing


def test_250_machines_are_listed_in_three_calls(gcp_double: GcpDouble, compute: Compute, elsewhere: Compute) -> None:
    compute.create(small_fleet("web", count=250)).wait()
    before = len(calls_of(gcp_double))
    assert 250 == len(list(elsewhere.fleet("web").machines()))
    asked = calls_of(gcp_double)[before:]
    assert ["instances.aggregatedList", "firewalls.list", "machineTypes.get"] == asked
    assert 250 == len(list(elsewhere.fleet("web").machines()))
    assert ["instances.aggregatedList", "firewalls.list"] == calls_of(gcp_double)[before + 3 :]


def test_machines_of_other_regions_are_not_ours(gcp_double: GcpDouble, compute: Compute) -> None:
    iowa = opened(gcp_double, region="us-central1")
    there = Compute(iowa.compute(), sleep=lambda _: None)
    there.create(small_fleet("web")).wait()
    assert [] == list(compute.machines())
    compute.create(small_fleet("web")).wait()
    assert ["us-central1-a"] == [machine.seen.zone for machine in there.machines()]
    iowa.close()


def test_a_zone_that_cannot_be_reached_is_not_taken_for_an_empty_one(gcp_double: GcpDouble, compute: Compute) -> None:
    compute.create(small_fleet("web")).wait()
    gcp_double.compute.unreachable.add("europe-west3-a")
    for call in (lambda: list(compute.machines()), lambda: compute.diff(small_fleet("web")), compute.sweep):
        with pytest.raises(Unavailable, match="europe-west3-a"):
            call()
    gcp_double.compute.unreachable.clear()
    gcp_double.compute.unreachable.add("us-central1-a")
    assert () == compute.diff(small_fleet("web"))


def test_machines_that_nobody_made_by_shiftable_are_listed_without_a_fleet(compute: Compute, foreign: Outsider) -> None:
    foreign.ask("POST", "/zones/europe-west3-a/instances", machine_body("theirs"))
    list(compute.machines())
    list(compute.machines())
    (machine,) = compute.machines()
    info = machine.info()
    assert (None, "running", "e2-small", "debian-12-bookworm", ()) == (
        info.fleet,
        info.state,
        info.size,
        info.image,
        info.firewall,
    )
    assert [] == list(compute.list())


# what a machine is made of


def stored(double: GcpDouble, name: str = "europe-west3-a/web-0") -> Json:
    return double.compute.of("instances")[name]


def metadata(double: GcpDouble) -> dict[str, str]:
    return {each["key"]: each["value"] for each in stored(double)["metadata"]["items"]}


def test_a_machine_is_secure_unless_something_else_is_declared(gcp_double: GcpDouble, compute: Compute) -> None:
    compute.create(small_fleet("web")).wait()
    made = stored(gcp_double)
    assert "serviceAccounts" not in made
    assert "accessConfigs" not in made["networkInterfaces"][0]
    assert {"enableSecureBoot": True, "enableVtpm": True, "enableIntegrityMonitoring": True} == made[
        "shieldedInstanceConfig"
    ]
    assert ("TRUE", "FALSE") == (
        metadata(gcp_double)["block-project-ssh-keys"],
        metadata(gcp_double)["serial-port-enable"],
    )
    assert {} == gcp_double.compute.of("firewalls")
    assert [True] == [disk["autoDelete"] for disk in made["disks"]]
    assert (
        {"shiftable-fleet": "web"} == made["labels"] == gcp_double.compute.of("disks")["europe-west3-a/web-0"]["labels"]
    )


def test_everything_that_is_declared_is_there(gcp_double: GcpDouble, compute: Compute, foreign: Outsider) -> None:
    made = foreign.ask("POST", "/regions/europe-west3/resourcePolicies", {"name": "near"})
    foreign.ask("POST", f"/regions/europe-west3/operations/{made['name']}/wait")
    gcp_double.compute.networks = frozenset({"default", "shop"})
    native = GcpComputeSettings(
        machine_type="n2-standard-2",
        subnetwork="shop-frankfurt",
        scopes=("https://www.googleapis.com/auth/devstorage.read_only",),
        disk_type="pd-ssd",
        disk_kms_key="projects/p/locations/europe-west3/keyRings/r/cryptoKeys/k",
        secure_boot=False,
        integrity_monitoring=False,
        on_preemption="delete",
        resource_policies=("near",),
    )
    spec = attrs.evolve(
        small_fleet("web"),
        native=native,
        disk_gib=30,
        spot=True,
        public_ip=True,
        network="shop",
        identity="app@p.iam.gserviceaccount.com",
        user="anna",
        labels={"team": "shop"},
        zone="europe-west3-c",
    )
    (info,) = compute.create(spec).wait()
    made = stored(gcp_double, "europe-west3-c/web-0")
    disk = gcp_double.compute.of("disks")["europe-west3-c/web-0"]
    assert ("n2-standard-2", 2, 8 * GIB, 30, True, "anna", "shop", "app@p.iam.gserviceaccount.com") == (
        info.size,
        info.cpus,
        info.memory,
        info.disk_gib,
        info.spot,
        info.user,
        info.network,
        info.identity,
    )
    assert 1 == len(info.public_addresses)
    assert {
        "provisioningModel": "SPOT",
        "instanceTerminationAction": "DELETE",
        "automaticRestart": False,
        "onHostMaintenance": "TERMINATE",
    } == made["scheduling"]
    assert made["networkInterfaces"][0]["subnetwork"] == "regions/europe-west3/subnetworks/shop-frankfurt"
    assert [{"email": "app@p.iam.gserviceaccount.com", "scopes": list(native.scopes)}] == made["serviceAccounts"]
    assert ["near"] == [
        policy.rpartition("/regions/europe-west3/resourcePolicies/")[2] for policy in made["resourcePolicies"]
    ]
    assert disk["type"].endswith("/pd-ssd")
    assert not made["shieldedInstanceConfig"]["enableSecureBoot"]
    assert () == compute.diff(spec)


def test_the_user_and_the_keys_come_by_metadata(gcp_double: GcpDouble, compute: Compute) -> None:
    spec = attrs.evolve(small_fleet("web"), user="anna")
    (info,) = compute.create(spec).wait()
    assert "anna" == info.user
    assert f"anna:{spec.ssh_keys[0]}" == metadata(gcp_double)["ssh-keys"]
    assert "FALSE" == metadata(gcp_double)["enable-oslogin"]


@pytest.mark.parametrize("image", ["debian-12", "ubuntu-24.04"])
def test_user_data_reaches_cloud_init_also_where_the_image_has_none(
    gcp_double: GcpDouble, compute: Compute, image: str
) -> None:
    spec = attrs.evolve(small_fleet("web"), image=image, user_data_text="#!/bin/sh\ntouch /done\n")
    compute.create(spec).wait()
    held = metadata(gcp_double)
    assert "#!/bin/sh\ntouch /done\n" == held["user-data"]
    assert ("startup-script" in held) is (image == "debian-12")
    assert "user-data-encoding" not in held


def test_user_data_that_is_no_text_is_encoded(gcp_double: GcpDouble, driver: GceDriver) -> None:
    spec = small_fleet("web")
    size = driver.choose(spec).size
    driver.create_machine(spec, "web-0", size=size, token=token_of("web-0"), user_data=b"\x1f\x8b\xff")
    assert ("base64", "H4v/") == (metadata(gcp_double)["user-data-encoding"], metadata(gcp_double)["user-data"])


def test_user_data_is_told_to_nobody(
    gcp_double: GcpDouble, driver: GceDriver, compute: Compute, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gcp_double.inject("status", match=of("instances.insert"), **error(400, "invalid", "no"))
    spec = attrs.evolve(small_fleet("web"), user_data_text=f"#!/bin/sh\necho {CANARY}\n")
    with pytest.raises(InvalidArgument) as caught:
        compute.create(spec)
    (info,) = compute.create(spec).wait()
    seen = [repr(caught.value), str(caught.value), caplog.text, repr(gcp_double.calls), repr(driver), repr(info)]
    chain: BaseException | None = caught.value
    while chain is not None:
        trace = chain.__traceback__
        while trace is not None:
            local = trace.tb_frame.f_locals
            seen += [repr(value) for value in local.values() if isinstance(value, Exception)]
            trace = trace.tb_next
        seen.append(
            repr(
                getattr(getattr(chain, "response", None), "request", None).__dict__
                if hasattr(chain, "response")
                else ""
            )
        )
        chain = chain.__cause__
    assert not re.search(CANARY, "".join(seen))


def test_a_machine_type_may_be_added_gpus_to(gcp_double: GcpDouble, compute: Compute) -> None:
    spec = attrs.evolve(
        small_fleet("web"), native=GcpComputeSettings(machine_type="n1-standard-4"), gpus=2, gpu="nvidia-tesla-t4"
    )
    (info,) = compute.create(spec).wait()
    assert (2, "n1-standard-4") == (info.gpus, info.size)
    made = stored(gcp_double)
    assert "TERMINATE" == made["scheduling"]["onHostMaintenance"]
    assert not made["shieldedInstanceConfig"]["enableSecureBoot"]
    assert () == compute.diff(spec)
    with pytest.raises(Unsupported, match="without their kind"):
        compute.create(attrs.evolve(spec, name="other", gpu=None))


def test_gpus_choose_a_machine_type_that_has_them(gcp_double: GcpDouble, compute: Compute) -> None:
    spec = attrs.evolve(small_fleet("web"), gpus=1, gpu="nvidia-l4")
    (info,) = compute.create(spec).wait()
    assert ("g2-standard-4", 1) == (info.size, info.gpus)
    assert "TERMINATE" == stored(gcp_double)["scheduling"]["onHostMaintenance"]
    assert () == compute.diff(spec)


def test_machines_of_arm_get_images_of_arm(gcp_double: GcpDouble, compute: Compute) -> None:
    (info,) = compute.create(attrs.evolve(small_fleet("web"), arch="arm64")).wait()
    assert ("t2a-standard-1", "arm64", "debian-12") == (info.size, info.arch, info.image)
    assert "arm64" in gcp_double.compute.of("disks")["europe-west3-a/web-0"]["sourceImage"]


@pytest.mark.parametrize(
    ("native", "said"),
    [
        (GcpComputeSettings(machine_type="n9-standard-2"), "no machine type 'n9-standard-2'"),
        (GcpComputeSettings(machine_type="t2a-standard-2"), "arm64"),
        (GcpComputeSettings(machine_type="g2-standard-4"), "declare gpus = 1"),
    ],
)
def test_a_machine_type_that_cannot_be_is_refused(compute: Compute, native: GcpComputeSettings, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        compute.create(attrs.evolve(small_fleet("web"), native=native))


def test_an_image_that_there_is_not_is_a_wrong_argument(gcp_double: GcpDouble, compute: Compute) -> None:
    with pytest.raises(InvalidArgument, match="global/images/windows-95"):
        compute.create(attrs.evolve(small_fleet("web"), image="windows-95"))
    assert [] == everything(gcp_double)


def test_an_image_that_is_gone_meanwhile_replaces_no_machine(compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    (machine,) = fleet.wait()
    image = fleet.machine("web-0").snapshot("golden")
    compute.create(attrs.evolve(small_fleet("other"), image="golden")).wait()  # it was asked for, and is known
    compute.delete_image(image.id)
    (change,) = compute.diff(attrs.evolve(small_fleet("web"), image="golden"))
    with pytest.raises(InvalidArgument, match="golden"):
        compute.apply(change)
    assert fleet.info() == (machine,)


def test_a_disk_is_as_large_as_its_image_needs(gcp_double: GcpDouble, compute: Compute) -> None:
    fleet = compute.create(attrs.evolve(small_fleet("large"), disk_gib=50))
    fleet.wait()
    image = fleet.machine("large-0").snapshot("golden")
    spec = attrs.evolve(small_fleet("web"), image=image.id, disk_gib=20)
    assert [50] == [machine.disk_gib for machine in compute.create(spec).wait()]
    assert "50" == gcp_double.compute.of("disks")["europe-west3-a/web-0"]["sizeGb"]
    assert () == compute.diff(spec)


@pytest.mark.parametrize(
    "image",
    [
        "projects/debian-cloud/global/images/family/debian-13",
        "https://www.googleapis.com/compute/v1/projects/debian-cloud/global/images/debian-13-trixie-v20261110",
    ],
)
def test_images_are_told_as_they_were_asked_for(compute: Compute, image: str) -> None:
    spec = attrs.evolve(small_fleet("web"), image=image)
    assert [image] == [machine.image for machine in compute.create(spec).wait()]
    assert () == compute.diff(spec)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"Team": "shop"}, "Team"),
        ({"team": "Shop"}, "Shop"),
        ({"1team": "shop"}, "1team"),
        ({"team": "x" * 64}, "63"),
        ({f"l{number}": "x" for number in range(64)}, "64 labels"),
    ],
)
def test_labels_that_google_does_not_take_are_refused_before_anything_is_sent(
    gcp_double: GcpDouble, compute: Compute, labels: dict[str, str], said: str
) -> None:
    with pytest.raises(Unsupported, match=said):
        compute.create(attrs.evolve(small_fleet("web"), labels=labels))
    assert () == gcp_double.calls


def test_63_labels_and_ours_are_taken(compute: Compute) -> None:
    labels = {f"l{number}": "x" for number in range(63)}
    (info,) = compute.create(attrs.evolve(small_fleet("web"), labels=labels)).wait()
    assert 64 == len(info.labels)


def test_the_longest_name_is_one_that_google_takes(gcp_double: GcpDouble, compute: Compute) -> None:
    name = "w" * 44
    compute.create(attrs.evolve(small_fleet(name), open_ports=(443,))).wait()
    assert 63 == max(len(each) for each in gcp_double.compute.of("firewalls"))
    with pytest.raises(InvalidArgument, match="44"):
        compute.fleet(name + "w")


# the firewall


def walls(double: GcpDouble) -> list[tuple[list[str], list[Json]]]:
    return sorted((each["sourceRanges"], each["allowed"]) for each in double.compute.of("firewalls").values())


def test_networks_of_both_versions_take_two_rules(gcp_double: GcpDouble, compute: Compute) -> None:
    spec = attrs.evolve(small_fleet("web"), open_ports=(22, 443))
    (info,) = compute.create(spec).wait()
    tcp = [{"IPProtocol": "tcp", "ports": ["22", "443"]}]
    assert [(["0.0.0.0/0"], tcp), (["::/0"], tcp)] == walls(gcp_double)
    assert spec.firewall == info.firewall
    assert {("shiftable-web",)} == {tuple(each["targetTags"]) for each in gcp_double.compute.of("firewalls").values()}
    assert ["shiftable-web"] == stored(gcp_double)["tags"]["items"]


def test_older_rules_of_a_fleet_do_not_stay_open(gcp_double: GcpDouble, compute: Compute) -> None:
    wide = attrs.evolve(small_fleet("web"), open_ports=(1, 2), rules=(Rule(port=53, protocol="udp"),))
    gcp_double.inject("status", match=of("instances.insert"), **error(403, "forbidden"))
    with pytest.raises(PermissionDenied):
        compute.create(wide)
    narrow = attrs.evolve(small_fleet("web"), open_ports=(443,), allow_from=("192.0.2.0/24",))
    (info,) = compute.create(narrow).wait()
    assert narrow.firewall == info.firewall
    assert [(["192.0.2.0/24"], [{"IPProtocol": "tcp", "ports": ["443"]}])] == walls(gcp_double)


@pytest.mark.parametrize("broken", ["insert", "patch", "delete"])
def test_an_update_that_came_halfway_shows_and_goes_on(gcp_double: GcpDouble, compute: Compute, broken: str) -> None:
    both = attrs.evolve(small_fleet("web"), open_ports=(443,))
    fleet = compute.create(both)
    fleet.wait()
    wanted = attrs.evolve(
        small_fleet("web"),
        open_ports=(22, 443),
        allow_from=("0.0.0.0/0",),
        rules=(Rule(port=80, allow_from=("10.0.0.0/8",)),),
    )
    (change,) = compute.diff(wanted)
    gcp_double.compute.fail_next(f"firewalls.{broken}", "INTERNAL_ERROR", "broken")
    with pytest.raises(OperationError, match="broken"):
        compute.apply(change)
    for again in compute.diff(wanted):
        compute.apply(again)
    (info,) = fleet.wait()
    assert wanted.firewall == info.firewall
    assert 2 == len(walls(gcp_double))


def test_a_rule_that_somebody_else_made_is_left_alone(
    gcp_double: GcpDouble, compute: Compute, foreign: Outsider
) -> None:
    spec = attrs.evolve(small_fleet("web"), open_ports=(443,), allow_from=("0.0.0.0/0",))
    compute.create(spec).wait()
    ((name, wall),) = gcp_double.compute.of("firewalls").items()
    compute.delete("web")
    foreign.ask("POST", "/global/firewalls", {"name": name, "allowed": wall["allowed"], "description": "mine"})
    list(compute.machines())
    foreign.ask("GET", f"/global/operations/{list(gcp_double.compute.operations.values())[-1].name}")
    foreign.ask("GET", f"/global/operations/{list(gcp_double.compute.operations.values())[-1].name}")
    with pytest.raises(AlreadyExists, match="did not make"):
        compute.create(spec)
    assert () == compute.sweep(older_than=timedelta(0))
    assert ["mine"] == [each["description"] for each in gcp_double.compute.of("firewalls").values()]


def test_a_rule_that_is_switched_off_opens_nothing_and_is_switched_on(gcp_double: GcpDouble, compute: Compute) -> None:
    spec = attrs.evolve(small_fleet("web"), open_ports=(443,), allow_from=("0.0.0.0/0",))
    fleet = compute.create(spec)
    fleet.wait()
    (wall,) = gcp_double.compute.of("firewalls").values()
    wall["disabled"] = True
    assert () == fleet.machine("web-0").info().firewall
    for change in compute.diff(spec):
        compute.apply(change)
    assert spec.firewall == fleet.machine("web-0").info().firewall


def test_fleets_whose_names_begin_alike_have_their_own_rules(gcp_double: GcpDouble, compute: Compute) -> None:
    for name in ("web", "web-12345678"):
        compute.create(attrs.evolve(small_fleet(name), open_ports=(443,), allow_from=("0.0.0.0/0",))).wait()
    compute.delete("web")
    (left,) = gcp_double.compute.of("firewalls").values()
    assert ["shiftable-web-12345678"] == left["targetTags"]
    assert [443] == [rule.port for rule in compute.fleet("web-12345678").machine("web-12345678-0").info().firewall]


def test_the_rules_are_in_the_network_of_the_machines(gcp_double: GcpDouble, compute: Compute) -> None:
    gcp_double.compute.networks = frozenset({"default", "shop"})
    spec = attrs.evolve(small_fleet("web"), open_ports=(443,), network="shop")
    compute.create(spec).wait()
    networks = {each["network"].rpartition("/")[2] for each in gcp_double.compute.of("firewalls").values()}
    assert {"shop"} == networks
    with pytest.raises(Unsupported, match="subnetwork"):
        compute.create(attrs.evolve(spec, name="b", network=None, native=GcpComputeSettings(subnetwork="x")))


# placement


def policies(double: GcpDouble) -> dict[str, Json]:
    return {each["name"]: each["groupPlacementPolicy"] for each in double.compute.of("resourcePolicies").values()}


def test_machines_that_are_spread_are_of_a_family_that_can_be(gcp_double: GcpDouble, compute: Compute) -> None:
    spec = attrs.evolve(small_fleet("web", count=2), placement="spread")
    assert {"n1-standard-1"} == {machine.size for machine in compute.create(spec).wait()}
    assert {"shiftable-web-spread": {"availabilityDomainCount": 8}} == policies(gcp_double)
    assert "MIGRATE" == stored(gcp_double)["scheduling"]["onHostMaintenance"]
    assert () == compute.sweep(older_than=timedelta(0))
    compute.delete("web")
    assert {} == policies(gcp_double)


def test_machines_that_are_close_stay_where_they_are(gcp_double: GcpDouble, compute: Compute) -> None:
    spec = attrs.evolve(small_fleet("web"), placement="close")
    compute.create(spec).wait()
    assert {"shiftable-web-close": {"collocation": "COLLOCATED"}} == policies(gcp_double)
    assert "TERMINATE" == stored(gcp_double)["scheduling"]["onHostMaintenance"]
    for change in compute.diff(attrs.evolve(spec, count=2)):
        compute.apply(change)
    assert 1 == len(policies(gcp_double))
    with pytest.raises(Unsupported, match="several zones"):
        compute.create(attrs.evolve(spec, name="b", zones=("europe-west3-a", "europe-west3-b")))
    with pytest.raises(InvalidArgument, match="e2-small is of no family"):
        compute.create(attrs.evolve(spec, name="b", native=GcpComputeSettings(machine_type="e2-small")))


def test_a_policy_of_a_fleet_without_machines_is_debris(gcp_double: GcpDouble, compute: Compute) -> None:
    gcp_double.inject("status", match=of("instances.insert"), **error(403, "forbidden"))
    with pytest.raises(PermissionDenied):
        compute.create(attrs.evolve(small_fleet("web"), placement="spread"))
    (found,) = compute.sweep(older_than=timedelta(0))
    assert ("placement policy", "shiftable-web-spread", "web") == (found.kind, found.name, found.fleet)
    assert {} == policies(gcp_double)


def test_a_policy_that_somebody_else_made_is_left_alone(
    gcp_double: GcpDouble, compute: Compute, foreign: Outsider
) -> None:
    theirs = {"name": "shiftable-web-spread", "groupPlacementPolicy": {"availabilityDomainCount": 2}}
    made = foreign.ask("POST", "/regions/europe-west3/resourcePolicies", theirs)
    foreign.ask("POST", f"/regions/europe-west3/operations/{made['name']}/wait")
    with pytest.raises(AlreadyExists, match="did not make"):
        compute.create(attrs.evolve(small_fleet("web"), placement="spread"))
    assert () == compute.sweep(older_than=timedelta(0))
    assert ["shiftable-web-spread"] == list(policies(gcp_double))


# disks and consoles


def test_a_disk_of_another_zone_cannot_be_attached(compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    disk = compute.create_disk("data", 10, zone="europe-west3-b")
    with pytest.raises(InvalidArgument, match="europe-west3-b"):
        fleet.attach("web-0", disk.id)


def test_disks_tell_who_has_them_and_where(compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    made = [compute.create_disk(name, 10, zone="europe-west3-a") for name in ("a", "b")]
    attached = fleet.attach("web-0", made[1].id)
    machine = fleet.machine("web-0")
    assert (machine.id, "/dev/disk/by-id/google-b") == (attached.machine, attached.device)
    assert [("a", None), ("b", machine.id)] == sorted((disk.name, disk.machine) for disk in compute.disks())
    with pytest.raises(NotFound), compute._translated("disk", None):
        compute._driver.disk("europe-west3-a/web-0")  # what a machine starts from is no disk of ours


def test_what_somebody_else_does_to_a_disk_at_that_moment_is_a_conflict(
    gcp_double: GcpDouble, compute: Compute, foreign: Outsider
) -> None:
    fleet = compute.create(small_fleet("web", count=2))
    fleet.wait()
    disk, met = compute.create_disk("data", 10, zone="europe-west3-a"), list[bool]()

    def meanwhile(call: Call) -> bool:
        if call.operation == "compute.instances.attachDisk" and not met:
            met.append(True)
            source = f"projects/{gcp_double.project}/zones/europe-west3-a/disks/data"
            done = foreign.ask("POST", "/zones/europe-west3-a/instances/web-1/attachDisk", {"source": source})
            foreign.ask("POST", f"/zones/europe-west3-a/operations/{done['name']}/wait")
        return False

    gcp_double.inject("latency", match=meanwhile)
    with pytest.raises(Conflict, match="already being used"):
        fleet.attach("web-0", disk.id)


def test_a_long_console_is_read_to_its_end(gcp_double: GcpDouble, compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    path = f"projects/{gcp_double.project}/zones/europe-west3-a/instances/web-0"
    gcp_double.compute.page_size = 3  # 300 bytes
    text = b"".join(b"%06d\n" % number for number in range(100))
    gcp_double.compute.consoles[path] = (1000, text)
    assert {"web-0": text} == fleet.console()


def test_the_console_of_a_stopped_machine_is_a_conflict(compute: Compute) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    fleet.stop()
    fleet.wait("stopped")
    with pytest.raises(Conflict):
        fleet.console()


# who asks


def test_a_wrong_token_is_no_login(gcp_double: GcpDouble) -> None:
    provider = opened(gcp_double)
    compute = Compute(provider.compute())
    list(compute.machines())
    gcp_double._account._tokens.clear()
    provider.session.transport.credentials.token = "ya29.wrong"
    gcp_double.inject("status", match=lambda call: call.path == "/token", times=None, status=400, body=b"{}")
    with pytest.raises(Unauthenticated):
        list(compute.machines())
    provider.close()


@pytest.mark.parametrize("sent", [True, False], ids=["at once", "later"])
def test_what_an_organisation_forbids_is_not_permitted(gcp_double: GcpDouble, compute: Compute, *, sent: bool) -> None:
    message = "Constraint constraints/compute.vmExternalIpAccess violated for project 1. Add instance web-0 to it."
    if sent:
        gcp_double.inject("status", match=of("instances.insert"), **error(412, "conditionNotMet", message))
    else:
        gcp_double.compute.fail_next("instances.insert", "CONDITION_NOT_MET", message)
    with pytest.raises(PermissionDenied, match="vmExternalIpAccess"):
        compute.create(attrs.evolve(small_fleet("web"), public_ip=True)).wait()


def test_nobody_logs_in_as_root(gcp_double: GcpDouble, compute: Compute) -> None:
    with pytest.raises(Unsupported, match="root"):
        compute.create(attrs.evolve(small_fleet("web"), user="root"))
    assert () == gcp_double.calls


def test_images_that_cannot_be_shielded_are_left_as_they_are(gcp_double: GcpDouble, compute: Compute) -> None:
    path = f"projects/{gcp_double.project}/global/images/old"
    (debian,) = [each for each in gcp_double.compute.resources.values() if each.get("family") == "debian-12"]
    old = {key: value for key, value in debian.items() if key not in {"guestOsFeatures", "family"}}
    gcp_double.compute.resources[path] = old | {
        "name": "old",
        "selfLink": debian["selfLink"].rpartition("projects/")[0] + path,
    }
    spec = attrs.evolve(small_fleet("web"), image="old")
    compute.create(spec).wait()
    assert "shieldedInstanceConfig" not in stored(gcp_double)
    with pytest.raises(InvalidArgument, match="UEFI"):
        compute.create(attrs.evolve(spec, name="b", native=GcpComputeSettings(secure_boot=True)))


def test_what_is_not_permitted_says_so(gcp_double: GcpDouble, compute: Compute) -> None:
    message = "Required 'compute.instances.create' permission for 'projects/x/zones/y/instances/web-0'"
    gcp_double.inject("status", match=of("instances.insert"), **error(403, "forbidden", message))
    with pytest.raises(PermissionDenied, match=r"compute\.instances\.create"):
        compute.create(small_fleet("web"))


# sizes


def test_sizes_are_asked_for_once_an_hour(gcp_double: GcpDouble, compute: Compute) -> None:
    for _ in range(3):
        compute.choose(small_fleet("web"))
        list(compute.sizes())
    assert ["zones.list", "machineTypes.list"] == calls_of(gcp_double)


def test_after_an_hour_sizes_are_asked_for_again(
    gcp_double: GcpDouble, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(compute.sizes())
    monkeypatch.setattr("shiftable_gcp.compute._KEPT", -1.0)
    list(compute.sizes())
    assert ["zones.list", "machineTypes.list"] * 2 == calls_of(gcp_double)


def test_machine_types_that_google_gives_up_are_not_offered(compute: Compute) -> None:
    names = {size.name for size in compute.sizes()}
    assert {"e2-micro", "n2-standard-2"} <= names
    assert "n1-megamem-96" not in names


@pytest.mark.parametrize(
    ("cpus", "memory_gib", "name"),
    [
        (1, 1, "e2-micro"),
        (2, 4, "e2-medium"),
        (2, 5, "e2-custom-2-5120"),
        (2, 6, "e2-custom-2-6144"),
        (2, 8, "e2-standard-2"),
        (3, 4, "e2-highcpu-4"),
        (4, 4, "e2-highcpu-4"),
        (5, 8, "e2-custom-6-8192"),
        (6, 20, "e2-custom-6-20480"),
        (2, 16, "e2-highmem-2"),
        (2, 20, "e2-custom-4-20480"),
        (33, 64, "n2d-standard-48"),
        (64, 512, "n2-highmem-64"),
    ],
)
def test_the_cheapest_machine_type_is_chosen_or_one_made_to_measure(
    compute: Compute, cpus: int, memory_gib: int, name: str
) -> None:
    spec = FleetSpec(name="web", image="debian-12", cpus=cpus, memory_gib=memory_gib)
    choice = compute.choose(spec)
    assert name == choice.size.name
    assert choice.size.cpus >= cpus
    assert choice.size.memory >= memory_gib * GIB
    assert ("made to measure" in choice.reason) is ("custom" in name)


def test_a_machine_made_to_measure_is_told_with_its_size(compute: Compute) -> None:
    spec = attrs.evolve(small_fleet("web"), cpus=6, memory_gib=20)
    (info,) = compute.create(spec).wait()
    assert ("e2-custom-6-20480", 6, 20 * GIB) == (info.size, info.cpus, info.memory)
    assert () == compute.diff(spec)


def test_a_running_machine_is_not_resized_by_the_driver(compute: Compute, driver: GceDriver) -> None:
    fleet = compute.create(small_fleet("web"))
    fleet.wait()
    machine = fleet.machine("web-0")
    with pytest.raises(Conflict), compute._translated("resize", None):  # the portable class stops it first
        driver.resize(machine.id, Size(name="e2-medium", cpus=2, memory=4 * GIB))
