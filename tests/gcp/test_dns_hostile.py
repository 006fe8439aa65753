"""Lost answers, other writers, other tools, limits: a zone is as it was or as it was to be, and nobody is told else."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.dns import Dns, Policy, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable.testing.harness import Call, Kind
from shiftable_gcp import GcpProvider
from shiftable_gcp import dns as cloud_dns
from shiftable_gcp._dns_records import data_of, policy_fields, read, told
from shiftable_gcp.dns import CloudDnsDriver
from shiftable_gcp.double import GcpDouble

from .hostile import opened
from .wire import Json, Outsider

GEO = {"geo": {"items": [{"location": "europe-west3", "rrdatas": ["192.0.2.1"]}]}}
WRR = {"wrr": {"items": [{"weight": 0.25, "rrdatas": ["192.0.2.1"]}, {"weight": 3, "rrdatas": ["192.0.2.2"]}]}}
FAILOVER = {
    "healthCheck": "https://www.googleapis.com/compute/v1/projects/p/global/healthChecks/h",
    "primaryBackup": {
        "primaryTargets": {"externalEndpoints": ["192.0.2.1"]},
        "backupGeoTargets": {"items": [{"location": "us-east1", "rrdatas": ["192.0.2.2"]}]},
        "trickleTraffic": 0.1,
    },
}


@pytest.fixture(autouse=True)
def _short_waits(short_waits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_dns, "_SOON", timedelta(milliseconds=1))


@pytest.fixture
def driver(provider: GcpProvider) -> CloudDnsDriver:
    return CloudDnsDriver(provider.session)


@pytest.fixture
def zone(driver: CloudDnsDriver) -> Zone:
    return Dns(driver).create(ZoneSpec(name="shop.example"))


@pytest.fixture
def impatient(hasty: GcpProvider, zone: Zone) -> Zone:
    """Return the zone, to somebody who gives up soon."""
    return Dns(hasty.dns()).get(zone.name)


class Foreign(Outsider):
    def __init__(self, double: GcpDouble) -> None:
        super().__init__(double.dns, f"/dns/v1/projects/{double.project}/managedZones")

    def create(self, id_: str, name: str, **facts: Any) -> None:
        self.ask("POST", "", {"name": id_, "dnsName": name, "description": "x", **facts})

    def change(self, *additions: Json, deletions: tuple[Json, ...] = (), zone: str = "shop-example") -> None:
        self.ask("POST", f"/{zone}/changes", {"additions": list(additions), "deletions": list(deletions)})


@pytest.fixture
def foreign(gcp_double: GcpDouble) -> Foreign:
    return Foreign(gcp_double)


def rrset(name: str, kind: str, *rrdatas: str, ttl: int = 300, **more: Any) -> Json:
    owner = f"{name}.shop.example." if name else "shop.example."
    return {"name": owner, "type": kind, "ttl": ttl, **({"rrdatas": list(rrdatas)} if rrdatas else {}), **more}


def stored(double: GcpDouble, id_: str = "shop-example") -> dict[tuple[str, str], tuple[str, ...]]:
    """Return what a zone really holds beside its own two sets."""
    sets = double.dns.zones[double.project, id_].sets.values()
    return {each.key: each.rrdatas for each in sets if each.type not in {"NS", "SOA"}}


def of(operation: str) -> Callable[[Call], bool]:
    return lambda call: call.operation == f"dns.{operation}"


def to_dns(call: Call) -> bool:
    return call.service == "dns"


def calls_of(double: GcpDouble) -> list[str]:
    return [call.operation.removeprefix("dns.") for call in double.calls if call.service == "dns"]


def error(code: int, status: str, reason: str) -> Json:
    body = {"error": {"code": code, "message": "said", "status": status, "errors": [{"reason": reason}]}}
    return {"status": code, "body": json.dumps(body).encode()}


def adding(*records: RecordSet) -> tuple[RecordChange, ...]:
    return tuple(RecordChange(before=None, after=record) for record in records)


# faults on the way

FAULTS: list[tuple[Kind, Json]] = [
    ("drop_before", {}),
    ("drop_after", {}),
    ("truncate", {}),
    ("status", {"status": 429, "headers": [("Retry-After", "0")]}),
    ("status", {"status": 503, "headers": [("Retry-After", "0")]}),
    ("status", {"status": 500}),
    ("status", error(403, "PERMISSION_DENIED", "rateLimitExceeded")),
    ("status", error(429, "RESOURCE_EXHAUSTED", "rateLimitExceeded")),
    ("status", error(503, "UNAVAILABLE", "backendError")),
]
FAULT_IDS = ["before", "after", "truncated", "429", "503", "500", "403-rate", "429-rate", "backend"]


@pytest.mark.parametrize(("kind", "more"), FAULTS, ids=FAULT_IDS)
@pytest.mark.parametrize("operation", ["resourceRecordSets.list", "changes.create", "changes.get", "managedZones.list"])
def test_a_fault_that_passes_is_not_noticed(
    gcp_double: GcpDouble, zone: Zone, driver: CloudDnsDriver, kind: Kind, more: Json, operation: str
) -> None:
    zone.set("www", "A", "192.0.2.1")
    driver._ids.clear()
    met = [gcp_double.inject(kind, match=of(operation), **more) for _ in range(2)]
    zone.set("www", "A", "192.0.2.2")
    assert [1, 1] == [each.hits for each in met]
    assert {("www.shop.example.", "A"): ("192.0.2.2",)} == stored(gcp_double)


@pytest.mark.parametrize(("kind", "more"), FAULTS, ids=FAULT_IDS)
def test_a_fault_that_stays_is_told_as_what_it_is(
    gcp_double: GcpDouble, impatient: Zone, kind: Kind, more: Json
) -> None:
    gcp_double.inject(kind, match=to_dns, times=None, **more)
    with pytest.raises(Throttled if "rate" in str(more) or more.get("status") == 429 else Unavailable):
        list(impatient.records())


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_zone_whose_making_was_in_doubt_is_made_once(
    gcp_double: GcpDouble, driver: CloudDnsDriver, kind: Kind
) -> None:
    gcp_double.inject(kind, match=of("managedZones.create"), times=3)
    zone = Dns(driver).create(ZoneSpec(name="shop.example"))
    assert ["shop-example"] == [id_ for _, id_ in gcp_double.dns.zones]
    assert "shop-example" == zone.info().id


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_zone_whose_deletion_was_in_doubt_is_gone(
    gcp_double: GcpDouble, zone: Zone, driver: CloudDnsDriver, kind: Kind
) -> None:
    gcp_double.inject(kind, match=of("managedZones.delete"), times=2)
    Dns(driver).delete(zone.name)
    assert {} == gcp_double.dns.zones
    with pytest.raises(NotFound):
        Dns(driver).delete(zone.name)


def test_a_zone_that_somebody_else_made_meanwhile_is_not_taken_for_ours(
    gcp_double: GcpDouble, driver: CloudDnsDriver, foreign: Foreign
) -> None:
    made = list[bool]()

    def meanwhile(call: Call) -> bool:
        if call.operation != "dns.managedZones.create" or made:
            return False
        made.append(True)
        foreign.create("shop-example", "shop.example.")
        return True

    gcp_double.inject("drop_before", match=meanwhile)
    with pytest.raises(AlreadyExists):
        Dns(driver).create(ZoneSpec(name="shop.example"))


def test_who_may_not_read_operations_is_told_that_a_zone_in_doubt_exists(
    gcp_double: GcpDouble, driver: CloudDnsDriver
) -> None:
    gcp_double.inject("drop_after", match=of("managedZones.create"))
    denied = error(403, "PERMISSION_DENIED", "forbidden")
    gcp_double.inject("status", match=of("managedZoneOperations.get"), **denied)
    with pytest.raises(AlreadyExists):
        Dns(driver).create(ZoneSpec(name="shop.example"))


# a change whose answer was lost


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("action", ["create", "update", "delete"])
def test_a_change_in_doubt_happens_once(gcp_double: GcpDouble, zone: Zone, kind: Kind, action: str) -> None:
    if action != "create":
        zone.set("www", "A", "192.0.2.1")
    before = len(gcp_double.dns.zones[gcp_double.project, "shop-example"].changes)
    gcp_double.inject(kind, match=of("changes.create"), times=2)
    if action == "delete":
        zone.delete("www", "A")
    else:
        zone.set("www", "A", "192.0.2.2", if_absent=action == "create")
    expected = {} if action == "delete" else {("www.shop.example.", "A"): ("192.0.2.2",)}
    assert expected == stored(gcp_double)
    assert before + 1 == len(gcp_double.dns.zones[gcp_double.project, "shop-example"].changes)


def test_a_change_in_doubt_is_found_even_if_others_wrote_since(
    gcp_double: GcpDouble, zone: Zone, driver: CloudDnsDriver, foreign: Foreign
) -> None:
    first = zone.set("www", "A", "192.0.2.1")
    calls = list[int]()

    def second_try(call: Call) -> bool:
        """Before the second try another writer changes it, and much else besides."""
        if call.operation == "dns.changes.create":
            calls.append(1)
            if len(calls) == 1:  # of those that no fault has met
                foreign.change(rrset("www", "A", "192.0.2.3"), deletions=(rrset("www", "A", "192.0.2.2"),))
                for number in range(150):
                    foreign.change(rrset(f"x{number}", "A", "192.0.2.1"))
        return False

    gcp_double.inject("drop_after", match=of("changes.create"))
    gcp_double.inject("latency", match=second_try)
    gcp_double.page_size = 40
    driver.change(zone.name, (RecordChange(before=first, after=zone.record("www", "A", "192.0.2.2")),))
    assert ("192.0.2.3",) == stored(gcp_double)["www.shop.example.", "A"]
    assert 2 == calls_of(gcp_double).count("changes.create") - 1
    assert "changes.list" in calls_of(gcp_double)


def test_a_like_change_of_long_ago_is_not_taken_for_the_one_in_doubt(
    gcp_double: GcpDouble, zone: Zone, driver: CloudDnsDriver, foreign: Foreign
) -> None:
    one, two, three = (rrset("www", "A", f"192.0.2.{number}") for number in (1, 2, 3))
    foreign.change(one)
    first = zone.get("www", "A")
    foreign.change(two, deletions=(one,))  # the very change that is to be made now, but yesterday
    foreign.change(three, deletions=(two,))
    gcp_double.clock.advance(timedelta(days=1))
    assert zone.exists("www", "A")  # the server's time is known
    gcp_double.inject("drop_before", match=of("changes.create"))
    with pytest.raises(Exception) as caught:  # noqa: PT011  native
        driver.change(zone.name, (RecordChange(before=first, after=zone.record("www", "A", "192.0.2.2")),))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert PreconditionFailed is fault.error
    assert ("192.0.2.3",) == stored(gcp_double)["www.shop.example.", "A"]


def test_a_change_that_is_refused_at_once_is_looked_for_nowhere(gcp_double: GcpDouble, zone: Zone) -> None:
    zone.set("www", "A", "192.0.2.1")
    with pytest.raises(PreconditionFailed):
        zone.set("www", "A", "192.0.2.2", if_absent=True)
    assert "changes.list" not in calls_of(gcp_double)


# waiting


@pytest.mark.parametrize("polls", [0, 1, 7])
def test_a_change_is_waited_for(gcp_double: GcpDouble, zone: Zone, polls: int) -> None:
    gcp_double.dns.polls = polls
    zone.set("www", "A", "192.0.2.1")
    assert polls == calls_of(gcp_double).count("changes.get")


def test_a_change_that_is_never_done_is_waited_for_only_so_long(gcp_double: GcpDouble, zone: Zone) -> None:
    provider = opened(gcp_double)
    gcp_double.dns.polls = 10**9
    driver = CloudDnsDriver(provider.session, patience=timedelta(milliseconds=20))
    with pytest.raises(Timeout, match=r"the change 1; Google has taken it") as caught:
        Dns(driver).get(zone.name).set("www", "A", "192.0.2.1")
    assert "zone 'shop.example'" in str(caught.value)
    assert {("www.shop.example.", "A"): ("192.0.2.1",)} == stored(gcp_double)
    provider.close()


# who asks


def test_wrong_credentials_are_told_as_such_and_never_shown(
    gcp_double: GcpDouble, zone: Zone, driver: CloudDnsDriver, caplog: pytest.LogCaptureFixture
) -> None:
    canary = "ya29." + "canary" * 5
    driver.session.transport.credentials.token = canary
    refused = json.dumps({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}).encode()
    gcp_double.inject("status", match=lambda call: call.path == "/token", times=None, status=400, body=refused)
    with caplog.at_level(logging.DEBUG), pytest.raises(Unauthenticated) as caught:
        zone.set("www", "A", "192.0.2.1")
    assert canary not in f"{caught.value!r}{caught.value}{caught.value.__cause__!r}{driver!r}{caplog.text}"
    assert {} == stored(gcp_double)


@pytest.mark.parametrize(
    ("code", "status", "reason", "expected"),
    [
        (403, "PERMISSION_DENIED", "forbidden", PermissionDenied),
        (403, "PERMISSION_DENIED", "accessNotConfigured", PermissionDenied),
        (403, "PERMISSION_DENIED", "inactiveBillingState", PermissionDenied),
        (403, "PERMISSION_DENIED", "quotaExceeded", QuotaExceeded),
        (400, "INVALID_ARGUMENT", "invalid", InvalidArgument),
    ],
)
def test_a_refusal_is_told_as_what_it_is_and_not_tried_again(
    gcp_double: GcpDouble, zone: Zone, code: int, status: str, reason: str, expected: type[OperationError]
) -> None:
    zone.set("www", "A", "192.0.2.1")
    for operation in ("changes.create", "resourceRecordSets.list", "managedZones.list"):
        seen = calls_of(gcp_double).count(operation)
        gcp_double.inject("status", match=of(operation), **error(code, status, reason))
        with pytest.raises(expected) as caught:
            zone.info() if operation == "managedZones.list" else zone.set("www", "A", "192.0.2.2")
        assert reason == caught.value.code
        assert seen + 1 == calls_of(gcp_double).count(operation)


def test_only_public_zones_are_seen(gcp_double: GcpDouble, driver: CloudDnsDriver, foreign: Foreign) -> None:
    foreign.create("inside", "shop.example.", visibility="private")
    service = Dns(driver)
    assert not service.exists("shop.example")
    assert [] == list(service.list())
    assert "shop-example" == service.create(ZoneSpec(name="shop.example")).info().id
    assert ["shop.example"] == [zone.name for zone in service.list()]
    service.delete("shop.example")
    assert ["inside"] == [id_ for _, id_ in gcp_double.dns.zones]


# zones of others


def test_a_zone_that_others_made_under_any_id_is_found(
    gcp_double: GcpDouble, driver: CloudDnsDriver, foreign: Foreign
) -> None:
    foreign.create("prod-zone-7", "shop.example.")
    foreign.create("other", "other.example.")
    service = Dns(driver)
    zone = service.get("shop.example")
    zone.set("www", "A", "192.0.2.1")
    assert {("www.shop.example.", "A"): ("192.0.2.1",)} == stored(gcp_double, "prod-zone-7")
    assert "prod-zone-7" == zone.info().id
    with pytest.raises(AlreadyExists, match="prod-zone-7"):
        service.create(ZoneSpec(name="shop.example"))
    zone.delete("www", "A")
    service.delete("shop.example")
    assert ["other"] == [id_ for _, id_ in gcp_double.dns.zones]


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("shop.example", "shop-example"),
        ("a-b.example", "a-b-example"),
        ("xn--bcher-kva.example", "xn-bcher-kva-example-970ca6b7"),
        ("2.0.192.in-addr.arpa", "zone-2-0-192-in-addr-arpa-68b630a4"),
        ("_x.example", "x-example-a4c29854"),
        (f"{'l' * 59}.example", f"{'l' * 54}-6afda4c3"),
    ],
)
def test_an_id_is_made_of_the_name_as_readable_as_can_be(driver: CloudDnsDriver, name: str, id_: str) -> None:
    assert id_ == Dns(driver).create(ZoneSpec(name=name)).info().id


def test_an_id_that_another_zone_has_is_not_taken(
    gcp_double: GcpDouble, driver: CloudDnsDriver, foreign: Foreign
) -> None:
    foreign.create("shop-example", "somebody.example.")
    zone = Dns(driver).create(ZoneSpec(name="shop.example"))
    zone.set("www", "A", "192.0.2.1")
    (other,) = (id_ for _, id_ in gcp_double.dns.zones if id_ != "shop-example")
    assert other.startswith("shop-example-")
    assert {("www.shop.example.", "A"): ("192.0.2.1",)} == stored(gcp_double, other)
    assert {} == stored(gcp_double, "shop-example")
    assert ("192.0.2.1",) == Dns(driver).get("shop.example").get("www", "A").texts


def test_names_that_would_have_one_id_have_two(gcp_double: GcpDouble, driver: CloudDnsDriver) -> None:
    service = Dns(driver)
    service.create(ZoneSpec(name="a-b.example")).set("x", "A", "192.0.2.1")
    service.create(ZoneSpec(name="a.b.example")).set("y", "A", "192.0.2.2")
    assert ["y.a.b.example."] == [record.name for record in service.get("a.b.example").records(type="A")]
    assert 2 == len(gcp_double.dns.zones)


def test_several_public_zones_of_one_name_are_named_and_nothing_is_guessed(
    gcp_double: GcpDouble, driver: CloudDnsDriver, foreign: Foreign
) -> None:
    foreign.create("one", "shop.example.")
    foreign.create("two", "shop.example.")
    with pytest.raises(Conflict, match=r"'one', 'two'"):
        Dns(driver).zone("shop.example").set("www", "A", "192.0.2.1")
    with pytest.raises(Conflict, match=r"'one', 'two'"):
        Dns(driver).delete("shop.example")
    assert [{}, {}] == [stored(gcp_double, id_) for id_ in ("one", "two")]
    foreign.create("shop-example", "shop.example.")  # this one is ours
    Dns(driver).zone("shop.example").set("www", "A", "192.0.2.1")
    assert {("www.shop.example.", "A"): ("192.0.2.1",)} == stored(gcp_double)


def test_150_zones_are_found_page_by_page(gcp_double: GcpDouble, driver: CloudDnsDriver, foreign: Foreign) -> None:
    for number in range(150):
        foreign.create(f"z{number}", f"z{number}.test.")
        foreign.create(f"p{number}", f"p{number}.test.", visibility="private")
    gcp_double.page_size = 7
    assert {f"z{number}.test" for number in range(150)} == {zone.name for zone in Dns(driver).list()}
    assert "z149" == Dns(driver).get("z149.test").info().id


def test_a_zone_that_vanished_is_missing(gcp_double: GcpDouble, zone: Zone) -> None:
    record = zone.set("www", "A", "192.0.2.1")
    gcp_double.dns.zones.clear()
    with pytest.raises(NotFound, match=r"shop\.example"):
        list(zone.records())
    for call in (
        lambda: zone.get("www", "A"),
        lambda: zone.set("www", "A", "192.0.2.2"),
        lambda: zone.delete("www", "A"),
        lambda: zone.change([RecordChange(before=record, after=None)]),
    ):
        with pytest.raises((ParentNotFound, NotFound)):
            call()


def test_a_zone_that_vanishes_between_reading_and_writing_is_missing(
    gcp_double: GcpDouble, zone: Zone, driver: CloudDnsDriver
) -> None:
    list(zone.records())
    change = adding(zone.record("www", "A", "192.0.2.1"))
    gcp_double.dns.zones.clear()
    with pytest.raises(Exception) as caught:  # noqa: PT011  native
        driver.change(zone.name, change)
    fault = driver.classify(caught.value)
    assert fault is not None
    assert (NotFound, "zone") == (fault.error, fault.missing)


def test_a_zone_that_is_made_anew_under_another_id_is_found_again(
    gcp_double: GcpDouble, zone: Zone, foreign: Foreign
) -> None:
    zone.set("www", "A", "192.0.2.1")
    gcp_double.dns.zones.clear()
    foreign.create("new", "shop.example.")
    zone.set("www", "A", "192.0.2.2")
    assert {("www.shop.example.", "A"): ("192.0.2.2",)} == stored(gcp_double, "new")


def test_records_of_a_zone_that_took_over_the_id_are_never_shown(
    gcp_double: GcpDouble, zone: Zone, driver: CloudDnsDriver, foreign: Foreign
) -> None:
    zone.set("www", "A", "192.0.2.1")
    gcp_double.dns.zones.clear()
    foreign.create("shop-example", "somebody.example.")
    with pytest.raises(NotFound, match=r"shop\.example"):
        list(zone.records())
    with pytest.raises(NotFound):
        Dns(driver).delete(zone.name)
    foreign.create("new", "shop.example.")
    assert {"shop.example."} == {record.name for record in zone.records()}
    assert 2 == len(gcp_double.dns.zones)


# two writers


def test_writers_without_a_condition_all_get_through(gcp_double: GcpDouble, zone: Zone) -> None:
    start = threading.Barrier(4)

    def write(number: int) -> None:
        start.wait()
        zone.set(f"r{number}", "A", f"192.0.2.{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert 4 == len(stored(gcp_double))


def test_a_writer_who_was_overtaken_without_a_condition_tries_again(
    gcp_double: GcpDouble, zone: Zone, foreign: Foreign
) -> None:
    zone.set("www", "A", "192.0.2.1")
    overtaken = list[bool]()

    def overtake(call: Call) -> bool:
        if call.operation == "dns.changes.create" and not overtaken:
            overtaken.append(True)
            foreign.change(rrset("www", "A", "192.0.2.9"), deletions=(rrset("www", "A", "192.0.2.1"),))
        return False

    gcp_double.inject("latency", match=overtake)
    zone.set("www", "A", "192.0.2.2")
    assert overtaken
    assert {("www.shop.example.", "A"): ("192.0.2.2",)} == stored(gcp_double)


@pytest.mark.parametrize("indexes", ["by-name", "by-index"])
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("changed", "192.0.2.1", "192.0.2.2"),
        ("changed", "192.0.2.1", None),
        ("deleted", "192.0.2.1", "192.0.2.2"),
        ("deleted", "192.0.2.1", None),
        ("made", None, "192.0.2.1"),
    ],
)
def test_one_who_was_overtaken_is_told_of_which_record_set(
    gcp_double: GcpDouble,
    zone: Zone,
    driver: CloudDnsDriver,
    foreign: Foreign,
    indexes: str,
    name: str,
    before: str | None,
    after: str | None,
) -> None:
    foreign.change(rrset("changed", "A", "192.0.2.7"), rrset("made", "A", "192.0.2.7"))
    gcp_double.dns.indexes = indexes == "by-index"
    others = [zone.record(f"r{number}", "A", "192.0.2.1") for number in range(3)]
    old, new = (None if value is None else zone.record(name, "A", value) for value in (before, after))
    held = stored(gcp_double)
    with pytest.raises(Exception) as caught:  # noqa: PT011  native
        driver.change(zone.name, (*adding(*others), RecordChange(before=old, after=new)))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert PreconditionFailed is fault.error
    assert fault.message.startswith(f"{name}.shop.example. A: ")
    assert held == stored(gcp_double)


# one bad record among many


@pytest.mark.parametrize("indexes", ["by-name", "by-index"])
def test_one_bad_record_among_500_is_named_and_nothing_happens(
    gcp_double: GcpDouble, zone: Zone, driver: CloudDnsDriver, indexes: str
) -> None:
    gcp_double.dns.indexes = indexes == "by-index"
    records = [zone.record(f"r{number}", "A", "192.0.2.1") for number in range(500)]
    records[321] = zone.record("x.*.w", "A", "192.0.2.1")
    with pytest.raises(InvalidArgument, match=r"x\.\*\.w\.shop\.example\. A"):
        zone.change(adding(*records))
    with pytest.raises(Exception) as caught:  # noqa: PT011  native: past the checks that send nothing
        driver.change(zone.name, adding(*records))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert InvalidArgument is fault.error
    assert fault.message.startswith("x.*.w.shop.example. A: Invalid value for 'entity.change.additions")
    assert {} == stored(gcp_double)


def test_a_cname_beside_what_somebody_else_wrote_is_a_conflict_and_named(
    gcp_double: GcpDouble, zone: Zone, driver: CloudDnsDriver, foreign: Foreign
) -> None:
    foreign.change(rrset("www", "A", "192.0.2.1"))
    with pytest.raises(Exception) as caught:  # noqa: PT011  native
        driver.change(zone.name, adding(zone.record("www", "CNAME", "a.example.")))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert (Conflict, "cnameResourceRecordSetConflict") == (fault.error, fault.code)
    assert fault.message.startswith("www.shop.example. CNAME: ")
    assert {("www.shop.example.", "A"): ("192.0.2.1",)} == stored(gcp_double)


# limits


def test_who_may_not_see_the_quota_has_the_usual_limit(gcp_double: GcpDouble, zone: Zone) -> None:
    gcp_double.dns.quota["rrsetsPerManagedZone"] = 4
    denied = error(403, "PERMISSION_DENIED", "forbidden")
    met = gcp_double.inject("status", match=lambda call: call.operation == "dns.projects.get", **denied)
    assert zone.max_record_sets() == zone.features.max_record_sets
    assert met.hits == 1
    with pytest.raises(NotFound):
        Dns(zone.unwrap(CloudDnsDriver)).zone("missing.example").max_record_sets()


def test_a_zone_that_is_full_says_so(gcp_double: GcpDouble, zone: Zone) -> None:
    gcp_double.dns.quota["rrsetsPerManagedZone"] = 4
    limit = zone.max_record_sets()
    assert limit is not None
    assert limit.value == 4
    zone.change(adding(*(zone.record(f"r{number}", "A", "192.0.2.1") for number in range(2))))
    with pytest.raises(QuotaExceeded, match="rrsetsPerManagedZone") as caught:
        zone.change(adding(*(zone.record(f"s{number}", "A", "192.0.2.1") for number in range(2))))
    assert 2 == len(stored(gcp_double))
    cause = caught.value.__cause__  # there is no record set to name, so it is Google's own, and no cause of itself
    assert cause is not None
    assert (cause.__cause__, 403) == (None, getattr(cause, "code", 0))


@pytest.mark.parametrize(
    ("name", "kind", "values", "why"),
    [
        ("x", "A", [f"10.0.0.{number}" for number in range(101)], "there are 101 values; the limit is 100"),
        ("x", "NS", [f"ns{number}.example." for number in range(9)], "9 name servers; the limit is 8"),
        ("*", "NS", ["ns.example."], "wildcard"),
        ("x", "TXT", [f'"{number:04}{"x" * 251}" ' * 4 for number in range(100)], "bytes of values"),
        ("x", "LOC", ["52 22 23.000 N 4 53 32.000 E -2.00m"], "holds no LOC"),
        ("x", "ALIAS", [], "holds no ALIAS|no value"),
        (r"with\.dot", "A", ["192.0.2.1"], "cannot hold the name"),
        ("0/25", "NS", ["ns.example."], "cannot hold the name"),
    ],
)
def test_what_is_beyond_a_limit_is_refused_before_it_is_sent(
    gcp_double: GcpDouble, zone: Zone, name: str, kind: str, values: list[str], why: str
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        zone.set(name, kind, values)
    assert "changes.create" not in calls_of(gcp_double)


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("x", "A", [f"10.0.0.{number}" for number in range(100)]),
        ("x", "NS", [f"ns{number}.example." for number in range(8)]),
        ("x", "TXT", [f'"{number:02}{"x" * 250}" ' * 3 for number in range(100)]),
        ("x", "A", ["192.0.2.1"]),
        ("l" * 63, "A", ["192.0.2.1"]),
    ],
)
def test_what_is_at_a_limit_is_held(zone: Zone, name: str, kind: str, values: list[str]) -> None:
    record = zone.set(name, kind, values, ttl=0)
    assert record == zone.get(name, kind)


@pytest.mark.parametrize(("count", "calls"), [(999, 1), (1000, 1), (1001, 2), (2000, 2), (2001, 3)])
def test_a_change_has_as_many_record_sets_as_it_may(gcp_double: GcpDouble, zone: Zone, count: int, calls: int) -> None:
    old = [zone.record(f"r{number}", "A", "192.0.2.1") for number in range(count)]
    new = [zone.record(f"r{number}", "A", "192.0.2.2") for number in range(count)]
    zone.change(adding(*old))
    assert calls == calls_of(gcp_double).count("changes.create")
    zone.change(RecordChange(before=a, after=b) for a, b in zip(old, new, strict=True))  # a deletion and an addition
    assert 2 * calls == calls_of(gcp_double).count("changes.create")
    assert {("192.0.2.2",)} == set(stored(gcp_double).values())


@pytest.mark.parametrize(("last", "calls"), [(250, 1), (251, 2)])
def test_a_change_has_as_many_bytes_as_it_may(gcp_double: GcpDouble, zone: Zone, last: int, calls: int) -> None:
    texts = [f'"{"x" * 248}"'] * 399 + [f'"{"y" * (last - 2)}"']
    zone.change(adding(*(zone.record(f"t{number}", "TXT", text) for number, text in enumerate(texts))))
    assert calls == calls_of(gcp_double).count("changes.create")
    assert 400 == len(stored(gcp_double))


@pytest.mark.parametrize("length", [60, 120, 245])
def test_bytes_of_what_is_deleted_count_too(gcp_double: GcpDouble, zone: Zone, length: int) -> None:
    old = [zone.record(f"t{number}", "TXT", f'"{"x" * length}"') for number in range(700)]
    new = [zone.record(f"t{number}", "TXT", f'"{"y" * length}"') for number in range(700)]
    zone.change(adding(*old))
    zone.change(RecordChange(before=a, after=b) for a, b in zip(old, new, strict=True))
    assert {(f'"{"y" * length}"',)} == set(stored(gcp_double).values())


def test_the_changes_of_one_name_stay_in_one_batch(zone: Zone, driver: CloudDnsDriver) -> None:
    changes = list[RecordChange]()
    for number in range(1500):
        old, new = zone.record(f"r{number}", "A", "192.0.2.1"), zone.record(f"r{number}", "CNAME", "a.example.")
        changes += [RecordChange(before=None, after=new), RecordChange(before=old, after=None)]
    batches = list(driver.batches(tuple(changes)))
    assert [2000, 1000] == [len(batch) for batch in batches]
    names = [{change.key.name for change in batch} for batch in batches]
    assert set() == names[0] & names[1]


def test_1000_record_sets_are_read_page_by_page(gcp_double: GcpDouble, zone: Zone) -> None:
    zone.change(adding(*(zone.record(f"r{number}", "A", "192.0.2.1") for number in range(1000))))
    gcp_double.page_size = 99
    assert 1002 == len({record.key for record in zone.records()})


# what other tools write


@pytest.mark.parametrize("policy", [GEO, WRR, FAILOVER], ids=["geo", "wrr", "failover"])
def test_a_routing_policy_is_read_and_written_back_byte_for_byte(
    gcp_double: GcpDouble, zone: Zone, foreign: Foreign, policy: Json
) -> None:
    foreign.change(rrset("www", "A", routingPolicy=policy))
    found = zone.get("www", "A")
    assert found.policy is not None
    assert ("gcp", {"routingPolicy": policy}) == (found.policy.provider, json.loads(found.policy.data))
    zone.delete("www", "A")
    zone.change(adding(found))
    again = zone.get("www", "A")
    assert again.policy is not None
    assert found.policy.data.encode() == again.policy.data.encode()
    assert found == again
    zone.change([RecordChange(before=again, after=attrs.evolve(again, ttl=7))])
    assert 7 == zone.get("www", "A").ttl
    zone.set("www", "A", "192.0.2.5")
    assert (("192.0.2.5",), None) == (zone.get("www", "A").texts, zone.get("www", "A").policy)


def test_an_alias_is_kept_as_a_policy(gcp_double: GcpDouble, zone: Zone, foreign: Foreign) -> None:
    foreign.change(rrset("", "ALIAS", "target.example.net."))
    found = zone.get("@", "ALIAS")
    assert found.policy == Policy(provider="gcp", data='{"rrdatas":["target.example.net."]}')
    zone.delete("@", "ALIAS")
    assert {} == stored(gcp_double)
    zone.change(adding(found))
    assert {("shop.example.", "ALIAS"): ("target.example.net.",)} == stored(gcp_double)
    with pytest.raises(InvalidArgument, match="own name"):
        zone.change(adding(attrs.evolve(found, name="www.shop.example.")))


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        ("A", "{", "none of Cloud DNS"),
        ("A", "[]", "JSON object"),
        ("A", "{}", "JSON object"),
        ("A", '{"weight":1}', "JSON object"),
        ("A", '{"rrdatas":["192.0.2.1"]}', "is a routingPolicy"),
        ("A", json.dumps({"routingPolicy": WRR}), "write the policy as"),
        ("LOC", data_of({"routingPolicy": WRR}), "holds no LOC|none of"),
        ("ALIAS", data_of({"routingPolicy": WRR}), "ALIAS"),
    ],
)
def test_a_policy_that_cloud_dns_has_not_is_refused(zone: Zone, kind: str, data: str, why: str) -> None:
    record = RecordSet(name="x.shop.example.", type=kind, ttl=1, rdatas=(), policy=Policy(provider="gcp", data=data))
    with pytest.raises(InvalidArgument, match=why):
        zone.change(adding(record))


def test_a_set_with_a_policy_has_the_values_of_the_policy_and_no_set_id(gcp_double: GcpDouble, zone: Zone) -> None:
    data = data_of({"routingPolicy": WRR})
    right = attrs.evolve(zone.record("x", "A", ["192.0.2.2", "192.0.2.1"]), policy=Policy(provider="gcp", data=data))
    for wrong, why in (
        (attrs.evolve(right, rdatas=()), r"are 192\.0\.2\.1, 192\.0\.2\.2;"),
        (attrs.evolve(right, rdatas=right.rdatas[:1]), r"are 192\.0\.2\.1, 192\.0\.2\.2;"),
        (attrs.evolve(right, policy=Policy(provider="gcp", data=data, set_id="one")), "no set id"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            zone.change(adding(wrong))
    zone.change(adding(right))
    assert right == zone.get("x", "A")


@pytest.mark.parametrize(
    ("kind", "policy", "texts"),
    [
        ("A", FAILOVER, ("192.0.2.2", "192.0.2.1")),
        ("A", {"wrr": {"items": [{"weight": 1, "rrdatas": ["192.0.2.1"]}] * 2}}, ("192.0.2.1",)),
        (
            "CNAME",
            {"wrr": {"items": [{"weight": 1, "rrdatas": ["A.test."]}, {"weight": 1, "rrdatas": ["b.test."]}]}},
            (),
        ),
        (
            "CNAME",
            {"wrr": {"items": [{"weight": 1, "rrdatas": ["A.test."]}, {"weight": 0, "rrdatas": ["a.test."]}]}},
            ("a.test.",),
        ),
        ("A", {"wrr": {"items": [{"weight": 1, "rrdatas": ["no address"]}]}}, ()),
        ("A", {"wrr": {"items": []}}, ()),
    ],
    ids=["failover", "twice", "two-names", "one-name", "nonsense", "none"],
)
def test_the_values_of_a_policy_are_all_it_may_answer_with(kind: str, policy: Json, texts: tuple[str, ...]) -> None:
    record = read({"name": "x.shop.example.", "type": kind, "ttl": 5, "routingPolicy": policy})
    assert texts == record.texts
    assert policy == told(record)["routingPolicy"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_a_policy_has_one_spelling(value: Any) -> None:
    data = data_of({"routingPolicy": {"x": value}})
    assert data == data_of(json.loads(data))
    assert data == data_of(policy_fields(data))


def test_what_only_answers_have_is_no_part_of_a_policy() -> None:
    sent = {
        "kind": "dns#resourceRecordSet",
        "name": "www.shop.example.",
        "type": "A",
        "ttl": 5,
        "routingPolicy": {
            "kind": "dns#rRSetRoutingPolicy",
            "wrr": {
                "kind": "dns#rRSetRoutingPolicyWrrPolicy",
                "items": [{"kind": "x", "weight": 1.0, "rrdatas": ["192.0.2.1"], "signatureRrdatas": ["sig"]}],
            },
        },
    }
    record = read(sent)
    assert record.policy is not None
    assert '{"routingPolicy":{"wrr":{"items":[{"rrdatas":["192.0.2.1"],"weight":1}]}}}' == record.policy.data
    assert {"wrr": {"items": [{"rrdatas": ["192.0.2.1"], "weight": 1}]}} == told(record)["routingPolicy"]


@pytest.mark.parametrize(
    ("kind", "texts"),
    [("NEW1", ["x"]), ("NEW", ["y"]), ("A", ["no address"]), ("HTTPS", ["1 . new=x"])],
)
def test_a_record_that_nobody_understands_is_listed_and_written_back_as_it_is(kind: str, texts: list[str]) -> None:
    sent = {"name": "x.shop.example.", "type": kind, "ttl": 5, "rrdatas": texts}
    record = read(sent)
    again = read(told(record))
    assert sent == told(record)
    assert (record, ()) == (again, record.rdatas)
    assert record.policy is not None
    assert "gcp" == record.policy.provider


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("WWW.Shop.example.", "www.shop.example."),
        ("no-dot.example", "no-dot.example."),
        ("ü.example.", r"\195\188.example."),
        (r"back\\slash\9.example.", None),
        (r"\042.example.", "*.example."),
    ],
)
def test_no_name_stops_a_listing(name: str, owner: str | None) -> None:
    record = read({"name": name, "type": "A", "ttl": 5, "rrdatas": ["192.0.2.1"]})
    assert ("192.0.2.1",) == record.texts
    assert owner in {None, record.name}


ODD = [
    ("HTTPS", ("1 . alpn=h2,h3 port=8443",)),
    ("CNAME", ("Target.Example.NET.",)),
    ("AAAA", ("2001:DB8:0:0::1", "2001:0db8::0002")),
    ("CAA", ("0 issue ca.example.net",)),
    ("IPSECKEY", ("10 1 2 192.0.2.38 AQNR U3mG",)),
    ("TLSA", (f"3 1 1 {'AB' * 16} {'ab' * 16}",)),
    ("TXT", ('"b"', '"a"')),
    ("A", ("192.0.2.2", "192.0.2.1")),
]


@pytest.mark.parametrize(("kind", "texts"), ODD, ids=[kind for kind, _ in ODD])
def test_a_deletion_repeats_what_others_wrote_by_the_letter(
    gcp_double: GcpDouble, zone: Zone, foreign: Foreign, kind: str, texts: tuple[str, ...]
) -> None:
    foreign.change(rrset("x", kind, *texts))
    gcp_double.dns.literal = True
    found = zone.get("x", kind)
    zone.change([RecordChange(before=found, after=attrs.evolve(found, ttl=7))])
    zone.delete("x", kind)
    assert {} == stored(gcp_double)


@pytest.mark.parametrize(
    "revision", [None, "", "etag", "[x", "null", "{}", "[1]", '["192.0.2.9"]', '["no address"]', "[]"]
)
def test_a_deletion_says_what_was_before_whatever_the_mark_of_the_record_says(
    gcp_double: GcpDouble, zone: Zone, driver: CloudDnsDriver, revision: str | None
) -> None:
    found = zone.set("x", "A", "192.0.2.1")
    driver.change(zone.name, (RecordChange(before=attrs.evolve(found, revision=revision), after=None),))
    assert {} == stored(gcp_double)
    zone.set("x", "A", "192.0.2.9")
    with pytest.raises(Exception) as caught:  # noqa: PT011  native
        driver.change(zone.name, (RecordChange(before=attrs.evolve(found, revision=revision), after=None),))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert PreconditionFailed is fault.error
    assert next(iter(driver.batches((RecordChange(before=attrs.evolve(found, revision=revision), after=None),))))


# what it costs


def test_a_write_costs_a_look_before_and_after_the_change_and_the_wait(gcp_double: GcpDouble, zone: Zone) -> None:
    seen = len(calls_of(gcp_double))
    zone.set("www", "A", "192.0.2.1")
    assert ["resourceRecordSets.list", "changes.create", "changes.get", "resourceRecordSets.list"] == calls_of(
        gcp_double
    )[seen:]


def test_a_driver_that_has_not_seen_a_zone_asks_for_it_once(gcp_double: GcpDouble, zone: Zone) -> None:
    provider = opened(gcp_double)
    seen = len(calls_of(gcp_double))
    known = Dns(provider.dns()).zone(zone.name)
    for _ in range(3):
        assert not known.exists("www", "A")
    assert ["managedZones.list", *["resourceRecordSets.list"] * 3] == calls_of(gcp_double)[seen:]
    provider.close()
