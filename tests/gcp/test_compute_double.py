"""The double's Compute Engine refuses what Google refuses, in Google's words, and Google's own client can use it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import files
from typing import Any

import httplib2
import pytest
import requests
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError

from shiftable.compute import Compute
from shiftable.testing.conformance.compute import small_fleet
from shiftable.testing.harness import Response
from shiftable_gcp import GcpProvider
from shiftable_gcp._discovery import Discovery
from shiftable_gcp.double import GcpDouble

from .wire import Ask, Json, Refused, asking, violations_of

ZONE = "/zones/europe-west3-a"
DEBIAN = "projects/debian-cloud/global/images/family/debian-12"
DISK = {"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": DEBIAN}}


@pytest.fixture
def ask(gcp_double: GcpDouble) -> Ask:
    """Return a way to ask over the wire."""
    return asking(f"{gcp_double.url}/compute/v1/projects/{gcp_double.project}")


def machine(name: str = "one", **more: Any) -> Json:
    base = {"name": name, "machineType": "zones/europe-west3-a/machineTypes/e2-small", "disks": [DISK]}
    return base | {"networkInterfaces": [{"network": "global/networks/default"}]} | more


def done(ask: Ask, operation: Json) -> Json:
    scope = ZONE if "zone" in operation else "/global"
    return ask("POST", f"{scope}/operations/{operation['name']}/wait")


@pytest.fixture
def one(ask: Ask) -> str:
    """Return the path of an instance that runs."""
    done(ask, ask("POST", f"{ZONE}/instances", machine()))
    return f"{ZONE}/instances/one"


def refused(ask: Ask, *arguments: Any, **query: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        ask(*arguments, **query)
    status, reason, *_ = caught.value.args
    return status, reason


# instances


def image_of(disk: Json | None = None, **params: Any) -> Json:
    made: Json = dict(disk or DISK)
    return made | {"initializeParams": {"sourceImage": DEBIAN} | params}


ZONAL = "zones/europe-west3-a"


@pytest.mark.parametrize(
    ("body", "status", "reason", "said"),
    [
        (machine("One"), 400, "invalid", "resource.name"),
        (machine("1one"), 400, "invalid", "resource.name"),
        (machine("x" * 64), 400, "invalid", "resource.name"),
        (machine("a-"), 400, "invalid", "resource.name"),
        (machine("two", machineType="e2-small"), 400, "invalid", "malformed"),
        (machine("two", machineType=f"{ZONAL}/machineTypes/x9-small"), 400, "invalid", "does not exist"),
        (machine("two", machineType="zones/europe-west3-b/machineTypes/e2-small"), 400, "invalid", "does not exist"),
        (machine("two", machineType=f"{ZONAL}/machineTypes/e2-custom-3-4096"), 400, "invalid", "does not exist"),
        (machine("two", machineType=f"{ZONAL}/machineTypes/e2-custom-2-4097"), 400, "invalid", "does not exist"),
        (machine("two", machineType=f"{ZONAL}/machineTypes/e2-custom-2-16640"), 400, "invalid", "does not exist"),
        (machine("two", labels={"Team": "a"}), 400, "invalid", "label"),
        (machine("two", labels={"team": "A"}), 400, "invalid", "label"),
        (machine("two", labels={f"l{n}": "" for n in range(65)}), 400, "invalid", "64"),
        (machine("two", tags={"items": ["A"]}), 400, "invalid", "tags"),
        (machine("two", disks=[]), 400, "invalid", "boot disk"),
        (machine("two", disks=[image_of(diskSizeGb="9")]), 400, "invalid", "smaller"),
        (machine("two", disks=[image_of(diskSizeGb="70000")]), 400, "invalid", "65536"),
        (machine("two", disks=[image_of(diskType=f"{ZONAL}/diskTypes/x")]), 400, "invalid", "does not exist"),
        (machine("two", disks=[image_of(sourceImage="global/images/none")]), 404, "notFound", "images/none"),
        (machine("two", disks=[image_of(sourceImage=f"{DEBIAN}-arm64")]), 400, "invalid", "architecture"),
        (machine("two", disks=[image_of(sourceImage=f"{DEBIAN}x")]), 404, "notFound", "family/debian-12x"),
        (machine("two", disks=[image_of(diskName="one")]), 409, "alreadyExists", "disks/one"),
        (machine("two", networkInterfaces=[]), 400, "invalid", "network interface"),
        (machine("two", networkInterfaces=[{"network": "global/networks/x"}]), 404, "notFound", "networks/x"),
        (
            machine("two", networkInterfaces=[{"subnetwork": "regions/us-central1/subnetworks/x"}]),
            400,
            "invalid",
            "another region",
        ),
        (machine("two", metadata={"items": [{"key": "a", "value": ""}] * 2}), 400, "invalid", "Duplicate"),
        (
            machine("two", metadata={"items": [{"key": "a", "value": "x" * 262_145}]}),
            400,
            "fieldSizeTooLarge",
            "262144",
        ),
        (machine("two", metadata={"items": [{"key": "serial-port-enable", "value": "x"}]}), 400, "invalid", "boolean"),
        (machine("two", serviceAccounts=[{"email": "me@x.example"}]), 400, "invalid", "scopes"),
        (
            machine("two", scheduling={"provisioningModel": "SPOT", "onHostMaintenance": "MIGRATE"}),
            400,
            "invalid",
            "migrate",
        ),
        (machine("two", scheduling={"instanceTerminationAction": "STOP"}), 400, "invalid", "Spot"),
        (
            machine("two", machineType=f"{ZONAL}/machineTypes/g2-standard-4"),
            400,
            "invalid",
            "live migration",
        ),
        (
            machine("two", guestAccelerators=[{"acceleratorType": "zones/x/y", "acceleratorCount": 1}]),
            400,
            "invalid",
            "takes no GPUs",
        ),
        (machine("two", shieldedInstanceConfig={"enableIntegrityMonitoring": True}), 400, "invalid", "vTPM"),
        (machine("one"), 409, "alreadyExists", "instances/one"),
    ],
)
@pytest.mark.usefixtures("one")
def test_an_instance_that_cannot_be_is_refused(ask: Ask, body: Json, status: int, reason: str, said: str) -> None:
    with pytest.raises(Refused, match=said) as caught:
        ask("POST", f"{ZONE}/instances", body)
    assert (status, reason) == caught.value.args[:2]
    assert ["one"] == [each["name"] for each in ask("GET", f"{ZONE}/instances")["items"]]
    assert ["one"] == [each["name"] for each in ask("GET", f"{ZONE}/disks")["items"]]


def test_an_unknown_zone_is_refused(ask: Ask) -> None:
    for path in ("/zones/mars-a/instances", "/zones/mars-a/machineTypes"):
        assert (400, "invalid") == refused(ask, "GET", path)
    assert (400, "invalid") == refused(ask, "POST", "/zones/mars-a/disks", {"name": "x"})


def test_an_instance_comes_into_being_while_it_is_looked_at(gcp_double: GcpDouble, ask: Ask) -> None:
    gcp_double.compute.polls = 2
    operation = ask("POST", f"{ZONE}/instances", machine())
    states = [ask("GET", f"{ZONE}/instances/one")["status"] for _ in range(4)]
    assert ["STAGING", "STAGING", "RUNNING", "RUNNING"] == states
    ended = ask("GET", f"{ZONE}/operations/{operation['name']}")
    assert ("DONE", 100, "insert") == (ended["status"], ended["progress"], ended["operationType"])
    told = ask("GET", f"{ZONE}/instances/one")
    assert told["id"] == ended["targetId"]
    assert told["selfLink"] == ended["targetLink"]
    assert told["networkInterfaces"][0]["networkIP"].startswith("10.")


def test_an_instance_is_found_by_its_number(ask: Ask, one: str) -> None:
    told = ask("GET", one)
    assert told == ask("GET", f"{ZONE}/instances/{told['id']}")
    assert (404, "notFound") == refused(ask, "GET", f"{ZONE}/instances/1")
    assert (404, "notFound") == refused(ask, "GET", f"/zones/europe-west3-b/instances/{told['id']}")


def test_a_failed_operation_says_why_and_leaves_what_it_was_told_to(gcp_double: GcpDouble, ask: Ask) -> None:
    for leaves, held in (("nothing", (0, 0)), ("disk", (0, 1)), ("machine", (1, 2))):
        gcp_double.compute.fail_next("instances.insert", "INTERNAL_ERROR", "broken", leaves=leaves)
        ended = done(ask, ask("POST", f"{ZONE}/instances", machine(leaves)))
        assert {"errors": [{"code": "INTERNAL_ERROR", "message": "broken"}]} == ended["error"]
        assert 400 == ended["httpErrorStatusCode"]
        assert held == (len(gcp_double.compute.of("instances")), len(gcp_double.compute.of("disks")))
    assert "TERMINATED" == ask("GET", f"{ZONE}/instances/machine")["status"]


@pytest.mark.parametrize("exhausted", ["europe-west3-a", ("europe-west3-a", "e2-small")])
def test_an_exhausted_zone_makes_and_starts_no_machines(
    gcp_double: GcpDouble, ask: Ask, one: str, exhausted: str | tuple[str, str]
) -> None:
    done(ask, ask("POST", f"{one}/stop"))
    gcp_double.compute.exhausted.add(exhausted)
    for operation in (ask("POST", f"{ZONE}/instances", machine("two")), ask("POST", f"{one}/start")):
        ended = done(ask, operation)
        assert "ZONE_RESOURCE_POOL_EXHAUSTED" == ended["error"]["errors"][0]["code"]
        assert (503, "SERVICE UNAVAILABLE") == (ended["httpErrorStatusCode"], ended["httpErrorMessage"])
    assert ["one"] == [each["name"] for each in ask("GET", f"{ZONE}/instances")["items"]]
    assert "TERMINATED" == ask("GET", one)["status"]


def test_quotas_are_of_a_region(gcp_double: GcpDouble, ask: Ask, one: str) -> None:
    gcp_double.compute.quotas["CPUS"] = 2
    ended = done(ask, ask("POST", f"{ZONE}/instances", machine("two")))
    assert ("QUOTA_EXCEEDED", 403) == (ended["error"]["errors"][0]["code"], ended["httpErrorStatusCode"])
    there = machine("two", machineType="zones/us-central1-a/machineTypes/e2-small")
    operation = ask("POST", "/zones/us-central1-a/instances", there)
    assert "error" not in ask("POST", f"/zones/us-central1-a/operations/{operation['name']}/wait")
    done(ask, ask("POST", f"{one}/stop"))
    assert "error" not in done(ask, ask("POST", f"{ZONE}/instances", machine("two")))
    gcp_double.compute.quotas["DISKS_TOTAL_GB"] = 25
    ended = done(ask, ask("POST", f"{ZONE}/disks", {"name": "x", "sizeGb": "10"}))
    assert "DISKS_TOTAL_GB" in ended["error"]["errors"][0]["message"]
    assert (404, "notFound") == refused(ask, "GET", f"{ZONE}/disks/x")


# what the state forbids


def test_one_thing_at_a_time_is_done_to_an_instance(gcp_double: GcpDouble, ask: Ask, one: str) -> None:
    gcp_double.compute.polls = 10**6
    ask("POST", f"{one}/reset")
    for verb, path in (("POST", f"{one}/stop"), ("POST", f"{one}/reset"), ("DELETE", one)):
        assert (400, "resourceNotReady") == refused(ask, verb, path)


def test_a_stopped_instance_is_terminated(ask: Ask, one: str) -> None:
    ask("POST", f"{one}/stop")
    assert ["STOPPING", "TERMINATED"] == [ask("GET", one)["status"] for _ in range(2)]
    assert (400, "resourceNotReady") == refused(ask, "POST", f"{one}/reset")
    assert (400, "resourceNotReady") == refused(ask, "GET", f"{one}/serialPort")
    done(ask, ask("POST", f"{one}/setMachineType", {"machineType": f"{ZONAL}/machineTypes/n2-standard-2"}))
    done(ask, ask("POST", f"{one}/start"))
    told = ask("GET", one)
    assert ("RUNNING", True) == (told["status"], told["machineType"].endswith("/n2-standard-2"))
    assert "lastStopTimestamp" in told


def test_the_type_of_a_running_instance_cannot_be_changed(ask: Ask, one: str) -> None:
    body = {"machineType": f"{ZONAL}/machineTypes/n2-standard-2"}
    assert (400, "resourceNotReady") == refused(ask, "POST", f"{one}/setMachineType", body)
    done(ask, ask("POST", f"{one}/stop"))
    body = {"machineType": f"{ZONAL}/machineTypes/t2a-standard-1"}
    assert (400, "invalid") == refused(ask, "POST", f"{one}/setMachineType", body)


def test_a_protected_instance_is_not_deleted(ask: Ask) -> None:
    done(ask, ask("POST", f"{ZONE}/instances", machine(deletionProtection=True)))
    assert (400, "invalidUsage") == refused(ask, "DELETE", f"{ZONE}/instances/one")


@pytest.mark.parametrize("left", [["one"], []])
def test_a_deleted_instance_takes_its_disk_along_if_it_was_made_so(ask: Ask, left: list[str]) -> None:
    done(ask, ask("POST", f"{ZONE}/instances", machine(disks=[DISK | {"autoDelete": not left}])))
    done(ask, ask("DELETE", f"{ZONE}/instances/one"))
    assert left == [each["name"] for each in ask("GET", f"{ZONE}/disks").get("items", ())]
    assert (404, "notFound") == refused(ask, "DELETE", f"{ZONE}/instances/one")


@pytest.mark.parametrize("kind", ["instances", "disks"])
def test_labels_are_changed_with_their_fingerprint(ask: Ask, one: str, kind: str) -> None:
    one = one.replace("instances", kind)
    first = ask("GET", one)["labelFingerprint"]
    body = {"labels": {"team": "shop"}, "labelFingerprint": first}
    done(ask, ask("POST", f"{one}/setLabels", body))
    told = ask("GET", one)
    assert {"team": "shop"} == told["labels"]
    assert first != told["labelFingerprint"]
    assert (412, "conditionNotMet") == refused(ask, "POST", f"{one}/setLabels", body)
    stale = {"labels": {"Team": "x"}, "labelFingerprint": told["labelFingerprint"]}
    assert (400, "invalid") == refused(ask, "POST", f"{one}/setLabels", stale)


# request ids


def test_a_request_is_executed_once_within_the_hour(gcp_double: GcpDouble, ask: Ask) -> None:
    id_ = str(uuid.UUID(int=7))
    first = ask("POST", f"{ZONE}/instances", machine(), requestId=id_)
    done(ask, first)
    again = ask("POST", f"{ZONE}/instances", machine(), requestId=id_)
    assert (first["name"], "DONE") == (again["name"], again["status"])
    done(ask, ask("DELETE", f"{ZONE}/instances/one"))
    assert first["name"] == ask("POST", f"{ZONE}/instances", machine(), requestId=id_)["name"]
    assert [] == ask("GET", f"{ZONE}/instances").get("items", [])  # also when what it made is gone
    gcp_double.clock.advance(timedelta(minutes=61))
    assert first["name"] != ask("POST", f"{ZONE}/instances", machine(), requestId=id_)["name"]
    assert (400, "invalid") == refused(ask, "POST", f"{ZONE}/disks", {"name": "x", "sizeGb": "10"}, requestId=id_)


@pytest.mark.parametrize("id_", ["x", "00000000-0000-0000-0000-000000000000"])
def test_a_request_id_is_a_uuid(ask: Ask, id_: str) -> None:
    assert (400, "invalid") == refused(ask, "POST", f"{ZONE}/instances", machine(), requestId=id_)


# disks, images, snapshots


@pytest.fixture
def data(ask: Ask) -> str:
    """Return the path of a disk."""
    done(ask, ask("POST", f"{ZONE}/disks", {"name": "data", "sizeGb": "10", "type": f"{ZONAL}/diskTypes/pd-ssd"}))
    return f"{ZONE}/disks/data"


def test_a_disk_is_attached_to_one_instance(gcp_double: GcpDouble, ask: Ask, one: str, data: str) -> None:
    done(ask, ask("POST", f"{ZONE}/instances", machine("two")))
    body = {"source": f"projects/{gcp_double.project}{data}", "deviceName": "d"}
    done(ask, ask("POST", f"{one}/attachDisk", body))
    assert [ask("GET", one)["selfLink"]] == ask("GET", data)["users"]
    for path in (one, f"{ZONE}/instances/two"):
        assert (400, "resourceInUseByAnotherResource") == refused(ask, "POST", f"{path}/attachDisk", body)
    assert (400, "resourceInUseByAnotherResource") == refused(ask, "DELETE", data)
    assert (400, "invalid") == refused(ask, "POST", f"{one}/detachDisk", deviceName="x")
    assert (400, "resourceNotReady") == refused(ask, "POST", f"{one}/detachDisk", deviceName="persistent-disk-0")
    done(ask, ask("POST", f"{one}/detachDisk", deviceName="d"))
    assert "users" not in ask("GET", data)
    done(ask, ask("POST", f"{one}/attachDisk", body))
    done(ask, ask("DELETE", one))
    assert "users" not in ask("GET", data)
    done(ask, ask("DELETE", data))
    assert (404, "notFound") == refused(ask, "GET", data)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"name": "Data", "sizeGb": "10"}, 400, "invalid"),
        ({"name": "more", "sizeGb": "9"}, 400, "invalid"),
        ({"name": "more", "sizeGb": "10", "type": f"{ZONAL}/diskTypes/none"}, 400, "invalid"),
        ({"name": "more", "sizeGb": "10", "labels": {"A": ""}}, 400, "invalid"),
        ({"name": "more", "sizeGb": "10", "sourceSnapshot": "global/snapshots/none"}, 404, "notFound"),
        ({"name": "data", "sizeGb": "10"}, 409, "alreadyExists"),
    ],
)
@pytest.mark.usefixtures("data")
def test_a_disk_that_cannot_be_is_refused(ask: Ask, body: Json, status: int, reason: str) -> None:
    assert (status, reason) == refused(ask, "POST", f"{ZONE}/disks", body)


def test_an_image_of_a_running_instance_is_forced(gcp_double: GcpDouble, ask: Ask, one: str) -> None:
    disk = f"projects/{gcp_double.project}{ZONE}/disks/one"
    body = {"name": "golden", "sourceDisk": disk}
    assert (400, "resourceInUseByAnotherResource") == refused(ask, "POST", "/global/images", body)
    gcp_double.compute.polls = 3
    operation = ask("POST", "/global/images", body, forceCreate="true")
    assert "PENDING" == ask("GET", "/global/images/golden")["status"]
    new = machine("two", disks=[image_of(sourceImage="global/images/golden")])
    assert (400, "resourceNotReady") == refused(ask, "POST", f"{ZONE}/instances", new)
    done(ask, operation)
    assert "READY" == ask("GET", "/global/images/golden")["status"]
    ask("POST", f"{ZONE}/instances", new)
    assert (409, "alreadyExists") == refused(ask, "POST", "/global/images", body, forceCreate="true")
    assert one


def test_a_disk_is_made_of_a_snapshot_that_is_complete(gcp_double: GcpDouble, ask: Ask, data: str) -> None:
    gcp_double.compute.polls = 2
    body = {"name": "daily", "sourceDisk": f"projects/{gcp_double.project}{data}"}
    operation = ask("POST", "/global/snapshots", body)
    copy = {"name": "copy", "sizeGb": "12", "sourceSnapshot": "global/snapshots/daily"}
    assert (400, "resourceNotReady") == refused(ask, "POST", f"{ZONE}/disks", copy)
    done(ask, operation)
    ask("POST", f"{ZONE}/disks", copy)
    assert (400, "invalid") == refused(ask, "POST", f"{ZONE}/disks", copy | {"name": "small", "sizeGb": "5"})


def test_the_newest_image_of_a_family_is_told(ask: Ask, gcp_double: GcpDouble) -> None:
    debian = asking(f"{gcp_double.url}/compute/v1/projects/debian-cloud")
    assert "debian-12" == debian("GET", "/global/images/family/debian-12")["family"]
    assert (404, "notFound") == refused(ask, "GET", "/global/images/family/debian-12")


# firewall rules


def wall(name: str = "a", **more: Any) -> Json:
    return {"name": name, "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}]} | more


@pytest.mark.parametrize(
    ("body", "status", "reason", "said"),
    [
        (wall("Aa"), 400, "invalid", "name"),
        (wall(sourceRanges=["0.0.0.0/0", "::/0"]), 400, "invalid", "mix"),
        (wall(sourceRanges=["192.0.2.1/24"]), 400, "invalid", "CIDR"),
        (wall(allowed=[]), 400, "invalid", "Exactly one"),
        (wall(allowed=[{"IPProtocol": "tcp", "ports": ["0-70000"]}]), 400, "invalid", "Ports"),
        (wall(allowed=[{"IPProtocol": "tcp", "ports": ["9-8"]}]), 400, "invalid", "Ports"),
        (wall(targetTags=["A"]), 400, "invalid", "targetTags"),
        (wall(network="global/networks/none"), 404, "notFound", "none"),
        (wall("there"), 409, "alreadyExists", "there"),
    ],
)
def test_a_firewall_rule_that_cannot_be_is_refused(ask: Ask, body: Json, status: int, reason: str, said: str) -> None:
    done(ask, ask("POST", "/global/firewalls", wall("there")))
    with pytest.raises(Refused, match=said) as caught:
        ask("POST", "/global/firewalls", body)
    assert (status, reason) == caught.value.args[:2]


def test_a_firewall_rule_is_changed_and_deleted(ask: Ask) -> None:
    done(ask, ask("POST", "/global/firewalls", wall()))
    assert ["0.0.0.0/0"] == ask("GET", "/global/firewalls/a")["sourceRanges"]
    done(ask, ask("PATCH", "/global/firewalls/a", {"sourceRanges": ["10.0.0.0/8"]}))
    assert ["10.0.0.0/8"] == ask("GET", "/global/firewalls/a")["sourceRanges"]
    assert (400, "invalid") == refused(ask, "PATCH", "/global/firewalls/a", {"sourceRanges": ["10.0.0.0/8", "::/0"]})
    done(ask, ask("DELETE", "/global/firewalls/a"))
    assert (404, "notFound") == refused(ask, "GET", "/global/firewalls/a")


# policies of placement

REGION = "/regions/europe-west3"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"name": "Aa"}, 400, "invalid"),
        ({"name": "a", "groupPlacementPolicy": {"availabilityDomainCount": 9}}, 400, "invalid"),
        (
            {"name": "a", "groupPlacementPolicy": {"availabilityDomainCount": 2, "collocation": "COLLOCATED"}},
            400,
            "invalid",
        ),
        ({"name": "there"}, 409, "alreadyExists"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(ask: Ask, body: Json, status: int, reason: str) -> None:
    made = ask("POST", f"{REGION}/resourcePolicies", {"name": "there"})
    ask("POST", f"{REGION}/operations/{made['name']}/wait")
    assert (status, reason) == refused(ask, "POST", f"{REGION}/resourcePolicies", body)


def test_a_policy_places_machines_that_can_be_placed(ask: Ask) -> None:
    body = {"name": "close", "groupPlacementPolicy": {"collocation": "COLLOCATED"}}
    made = ask("POST", f"{REGION}/resourcePolicies", body)
    assert "DONE" == ask("POST", f"{REGION}/operations/{made['name']}/wait")["status"]
    policy = {"resourcePolicies": ["regions/europe-west3/resourcePolicies/close"]}
    n2 = {"machineType": f"{ZONAL}/machineTypes/n2-standard-2"}
    fixed = {"scheduling": {"onHostMaintenance": "TERMINATE"}}
    assert (400, "invalid") == refused(ask, "POST", f"{ZONE}/instances", machine(**policy, **fixed))
    assert (400, "invalid") == refused(ask, "POST", f"{ZONE}/instances", machine(**policy, **n2))
    missing = {"resourcePolicies": ["regions/europe-west3/resourcePolicies/none"]}
    assert (404, "notFound") == refused(ask, "POST", f"{ZONE}/instances", machine(**missing, **n2, **fixed))
    done(ask, ask("POST", f"{ZONE}/instances", machine(**policy, **n2, **fixed)))
    path = f"{REGION}/resourcePolicies/close"
    assert (400, "resourceInUseByAnotherResource") == refused(ask, "DELETE", path)
    done(ask, ask("DELETE", f"{ZONE}/instances/one"))
    assert "delete" == ask("DELETE", path)["operationType"]
    assert ["close"] == [each["name"] for each in ask("GET", f"{REGION}/resourcePolicies")["items"]]
    assert (404, "notFound") == refused(ask, "GET", path)


# listings


def names(ask: Ask, path: str, kind: str = "instances", **query: Any) -> list[str]:
    """Return the names in all zones, and see that each page but the last is full."""
    found, token = list[str](), None
    while True:
        more: Json = {} if token is None else {"pageToken": token}
        answer = ask("GET", path, **query, **more)
        found += [each["name"] for scope in answer["items"].values() for each in scope.get(kind, ())]
        token = answer.get("nextPageToken")
        if token is None:
            return found


def test_all_zones_are_listed_page_by_page(gcp_double: GcpDouble, ask: Ask) -> None:
    for number in range(5):
        zone = f"europe-west3-{'abc'[number % 3]}"
        kind = {"machineType": f"zones/{zone}/machineTypes/e2-small"}
        ask("POST", f"/zones/{zone}/instances", machine(f"m{number}", **kind, labels={"n": str(number % 2)}))
    wanted = {f"m{number}" for number in range(5)}
    for size in (1, 2, 4, 500):
        gcp_double.compute.page_size = size
        found = names(ask, "/aggregated/instances")
        assert (5, wanted) == (len(found), set(found))
    gcp_double.compute.page_size = 500
    assert ["m0", "m3", "m1", "m4", "m2"] == names(ask, "/aggregated/instances", maxResults=2)
    assert {"m1", "m3"} == set(names(ask, "/aggregated/instances", filter="labels.n=1"))
    empty = ask("GET", "/aggregated/instances", filter='name="none"')["items"]
    assert {"NO_RESULTS_ON_PAGE"} == {scope["warning"]["code"] for scope in empty.values()}
    gcp_double.compute.unreachable.add("europe-west3-b")
    answer = ask("GET", "/aggregated/instances")
    assert ["zones/europe-west3-b"] == answer["unreachables"]
    assert "UNREACHABLE" == answer["items"]["zones/europe-west3-b"]["warning"]["code"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("labels.team=shop", ["one"]),
        ("labels.team=other", []),
        ("labels.team:*", ["one"]),
        ("labels.none:*", []),
        ('name="one"', ["one"]),
        ("name!=one", []),
        ('(name="one") AND (labels.team=shop)', ["one"]),
        ('(name="one") (labels.team=x)', []),
        ('name eq "o.e"', ["one"]),
        ('name eq "o"', []),
        ("name ne .*x", ["one"]),
    ],
)
def test_filters(ask: Ask, text: str, found: list[str]) -> None:
    ask("POST", f"{ZONE}/instances", machine(labels={"team": "shop"}))
    assert found == names(ask, "/aggregated/instances", filter=text)


@pytest.mark.parametrize(
    "query", [{"filter": "name"}, {"filter": "name eq a AND name eq b"}, {"maxResults": 501}, {"pageToken": "?"}]
)
def test_a_listing_that_cannot_be_is_refused(ask: Ask, query: Json) -> None:
    assert (400, "invalid") == refused(ask, "GET", "/aggregated/instances", **query)


def test_machine_types_and_zones_are_told(ask: Ask) -> None:
    zones = [each["name"] for each in ask("GET", "/zones")["items"]]
    assert {"europe-west3-a", "us-central1-f"} <= set(zones)
    types = {each["name"]: each for each in ask("GET", f"{ZONE}/machineTypes")["items"]}
    assert (2, 4096, True) == tuple(types["e2-medium"][key] for key in ("guestCpus", "memoryMb", "isSharedCpu"))
    assert [{"guestAcceleratorType": "nvidia-l4", "guestAcceleratorCount": 1}] == types["g2-standard-4"]["accelerators"]
    assert "DEPRECATED" == types["n1-megamem-96"]["deprecated"]["state"]
    assert (6, 8192) == tuple(
        ask("GET", f"{ZONE}/machineTypes/e2-custom-6-8192")[key] for key in ("guestCpus", "memoryMb")
    )
    assert (404, "notFound") == refused(ask, "GET", f"{ZONE}/machineTypes/e2-custom-5-8192")


def test_operations_are_listed(ask: Ask, one: str) -> None:
    ask("POST", f"{one}/stop")
    assert ["stop"] == [
        each["operationType"] for each in ask("GET", f"{ZONE}/operations", filter='status!="DONE"')["items"]
    ]
    assert 2 == len(names(ask, "/aggregated/operations", "operations"))
    assert (404, "notFound") == refused(ask, "GET", f"{ZONE}/operations/none")


def test_the_console_is_read_from_a_position(gcp_double: GcpDouble, ask: Ask, one: str) -> None:
    path = f"projects/{gcp_double.project}{one}"
    gcp_double.compute.consoles[path] = (100, b"0123456789")
    read = [ask("GET", f"{one}/serialPort", **query) for query in ({}, {"start": 105}, {"start": 50}, {"start": -3})]
    assert ["0123456789", "56789", "0123456789", "789"] == [each["contents"] for each in read]
    assert ["100", "105", "100", "107"] == [each["start"] for each in read]
    assert {"110"} == {each["next"] for each in read}


# who asks, and what goes over the wire


def test_a_wrong_token_is_refused_everywhere(gcp_double: GcpDouble) -> None:
    root = f"{gcp_double.url}/compute/v1/projects/{gcp_double.project}"
    wrong = {"Authorization": "Bearer ya29.wrong"}
    for verb, path in (("GET", "/aggregated/instances"), ("POST", f"{ZONE}/instances"), ("GET", f"{ZONE}/disks/x")):
        answer = requests.request(verb, root + path, headers=wrong, json=None, timeout=10)
        assert (401, "authError") == (answer.status_code, answer.json()["error"]["errors"][0]["reason"])
    right = {"Authorization": f"Bearer {gcp_double.make_token()}"}
    assert 200 == requests.get(f"{root}/aggregated/instances", headers=right, timeout=10).status_code


def test_what_is_not_in_the_double_says_so(ask: Ask) -> None:
    assert (501, "notImplemented") == refused(ask, "GET", "/regions/europe-west3/addresses")
    assert (501, "notImplemented") == refused(ask, "GET", "/aggregated/addresses")


@pytest.mark.parametrize(
    ("verb", "path", "body", "said"),
    [
        ("POST", f"{ZONE}/instances", machine(machinType="x"), "machinType"),
        ("POST", f"{ZONE}/instances", machine(scheduling={"provisioningModel": "CHEAP"}), "CHEAP"),
        ("POST", f"{ZONE}/instances", machine(labels={"a": 1}), "labels"),
        ("POST", f"{ZONE}/instances?requestid=x", machine(), "requestid"),
        ("GET", "/aggregated/instances?maxResults=many", None, "maxResults"),
        ("POST", "/global/firewalls", wall(allowed=[{"IPProtocol": "tcp", "ports": [22]}]), "ports"),
    ],
)
def test_requests_that_google_s_description_does_not_allow_are_seen(
    verb: str, path: str, body: Json | None, said: str
) -> None:
    document = Discovery("compute.v1", reasons=True)
    found = violations_of(document, verb, f"/compute/v1/projects/p{path}", body)
    assert any(said in each for each in found), found


def test_answers_that_google_s_description_does_not_allow_are_seen() -> None:
    document = Discovery("compute.v1", reasons=True)
    answer = Response("200 OK", body=json.dumps({"status": "BOOTING", "machinType": "x"}).encode())
    found = violations_of(document, "GET", f"/compute/v1/projects/p{ZONE}/instances/one", None, answer)
    assert 2 == len(found), found


# other clients


@pytest.fixture
def client(gcp_double: GcpDouble) -> Iterator[Any]:
    """Return Google's own client, generated from Google's description."""
    place = files("googleapiclient.discovery_cache") / "documents" / "compute.v1.json"
    http = httplib2.Http(timeout=10)
    options = {"api_endpoint": f"{gcp_double.url}/compute/v1/"}
    yield build_from_document(json.loads(place.read_text(encoding="utf-8")), http=http, client_options=options)
    http.close()


def test_google_s_own_client_sees_what_shiftable_made_and_the_other_way_round(
    provider: GcpProvider, gcp_double: GcpDouble, client: Any
) -> None:
    compute = Compute(provider.compute(), sleep=lambda _: None)
    compute.create(small_fleet("web")).wait()
    where = {"project": gcp_double.project, "zone": "europe-west3-a"}
    told = client.instances().get(**where, instance="web-0").execute()
    assert ("RUNNING", {"shiftable-fleet": "web"}) == (told["status"], told["labels"])
    operation = client.instances().insert(**where, body=machine("theirs")).execute()
    ended = client.zoneOperations().wait(**where, operation=operation["name"]).execute()
    assert "DONE" == ended["status"]
    listed = client.instances().list(**where).execute()["items"]
    assert ["theirs", "web-0"] == [each["name"] for each in listed]
    request, seen = client.instances().aggregatedList(project=gcp_double.project, maxResults=1), list[str]()
    while request is not None:
        answer = request.execute()
        seen += [each["name"] for scope in answer["items"].values() for each in scope.get("instances", ())]
        request = client.instances().aggregatedList_next(request, answer)
    assert ["theirs", "web-0"] == seen
    assert [("theirs", None), ("web-0", "web")] == sorted((m.name, m.seen.fleet) for m in compute.machines())
    with pytest.raises(HttpError) as caught:
        client.instances().get(**where, instance="missing").execute()
    assert (404, "notFound") == (caught.value.status_code, caught.value.error_details[0]["reason"])
