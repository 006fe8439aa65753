"""Azure DNS that drops, throttles, truncates or refuses: nothing is half done, doubled or lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from shiftable.config import Credential
from shiftable.dns import Dns, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    IntegrityError,
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
from shiftable.testing.harness import Call
from shiftable_azure._arm import ArmSession
from shiftable_azure.dns import AzureDnsDriver, RecordFailure
from shiftable_azure.double import AzureDouble

NAME = "shop.example"
CANARY = "tok" + "en-of-a-canary"

Make = Callable[..., ArmSession]


@pytest.fixture
def zone(dns_driver: AzureDnsDriver) -> Zone:
    return Dns(dns_driver).create(ZoneSpec(name=NAME))


def is_(operation: str, place: str = "") -> Callable[[Call], bool]:
    return lambda call: call.operation == operation and call.path.endswith(place)


def held(double: AzureDouble) -> dict[tuple[str, str], dict[str, Any]]:
    """Return all that is in the zone, past the protocol."""
    return {key: dict(found.properties) for key, found in double.dns.zone(NAME).sets.items()}


def address(number: int = 1) -> dict[str, Any]:
    return {"TTL": 300, "ARecords": [{"ipv4Address": f"192.0.2.{number}"}]}


def writes(double: AzureDouble) -> list[tuple[str, str]]:
    return [(call.method, call.path.rpartition("/")[2]) for call in double.calls if call.method in {"PUT", "DELETE"}]


# answers that do not arrive


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_write_whose_answer_is_lost_has_happened_once(azure_double: AzureDouble, zone: Zone, kind: Any) -> None:
    lost = azure_double.inject(kind, match=is_("RecordSets_CreateOrUpdate"), times=1)
    zone.set("www", "A", "192.0.2.1", if_absent=True)
    assert held(azure_double)["www", "A"] == address(1)
    again = azure_double.inject(kind, match=is_("RecordSets_CreateOrUpdate"), times=1)
    found = zone.set("www", "A", "192.0.2.2", if_match=zone.get("www", "A").token)
    assert held(azure_double)["www", "A"] == address(2)
    gone = azure_double.inject(kind, match=is_("RecordSets_Delete"), times=1)
    zone.delete("www", "A", if_match=found.token)
    assert ("www", "A") not in held(azure_double)
    assert (lost.hits, again.hits) == (1, 1)
    assert gone.hits == 1


@pytest.mark.parametrize("status", [500, 503, 504])
def test_a_failing_service_is_asked_again(azure_double: AzureDouble, zone: Zone, status: int) -> None:
    failure = azure_double.inject("status", status=status, body=b"<html></html>", times=3)
    zone.set("www", "A", "192.0.2.1")
    assert zone.get("www", "A").texts == ("192.0.2.1",)
    assert failure.hits == 3


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_service_that_stays_away_is_unavailable(azure_double: AzureDouble, make_arm: Make, kind: Any) -> None:
    zone = Dns(AzureDnsDriver(make_arm(max_attempts=2))).create(ZoneSpec(name=NAME))
    azure_double.inject(kind, match=is_("RecordSets_CreateOrUpdate"), times=None)
    with pytest.raises(Unavailable, match=r"www\.shop\.example\. A"):
        zone.set("www", "A", "192.0.2.1")


def test_a_lost_write_over_what_came_since_is_not_taken_for_ones_own(azure_double: AzureDouble, zone: Zone) -> None:
    first = zone.set("www", "A", "192.0.2.1")

    def meanwhile(call: Call) -> bool:
        if call.operation != "RecordSets_CreateOrUpdate":
            return False
        azure_double.dns.put_raw(NAME, "www", "A", **address(9))
        return True

    azure_double.inject("drop_before", match=meanwhile, times=1)
    with pytest.raises(PreconditionFailed, match=r"www\.shop\.example\. A"):
        zone.set("www", "A", "192.0.2.2", if_match=first.token)
    assert held(azure_double)["www", "A"] == address(9)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_zone_is_made_and_deleted_through_a_bad_line(
    azure_double: AzureDouble, dns_driver: AzureDnsDriver, kind: Any
) -> None:
    made = azure_double.inject(kind, match=is_("Zones_CreateOrUpdate"), times=1)
    zone = Dns(dns_driver).create(ZoneSpec(name=NAME))
    with pytest.raises(AlreadyExists):
        Dns(dns_driver).create(ZoneSpec(name=NAME))
    azure_double.inject(kind, match=is_("Zones_Delete"), times=1)
    Dns(dns_driver).delete(zone.name)
    assert azure_double.dns.zones == {}
    assert made.hits == 1


def test_a_zone_with_records_is_nobodys_lost_creation(azure_double: AzureDouble, zone: Zone) -> None:
    zone.set("www", "A", "192.0.2.1")
    azure_double.inject("drop_before", match=is_("Zones_CreateOrUpdate"), times=1)
    with pytest.raises(AlreadyExists):
        Dns(zone.unwrap(AzureDnsDriver)).create(ZoneSpec(name=NAME))


# listings


def test_a_listing_waits_when_its_pages_are_throttled(azure_double: AzureDouble, zone: Zone) -> None:
    azure_double.dns.page_size = 10
    for number in range(50):
        azure_double.dns.put_raw(NAME, f"r{number:02}", "A", **address())
    waits = [("Retry-After", "30")]
    throttled = azure_double.inject(
        "status", status=429, headers=waits, times=3, match=lambda call: "skipToken" in call.query
    )
    before = azure_double.clock.now()
    assert len(list(zone.records(type="A"))) == 50
    assert throttled.hits == 3
    assert (azure_double.clock.now() - before).total_seconds() >= 90


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_page_that_does_not_arrive_is_asked_for_again(azure_double: AzureDouble, zone: Zone, kind: Any) -> None:
    azure_double.dns.page_size = 10
    for number in range(25):
        azure_double.dns.put_raw(NAME, f"r{number:02}", "A", **address())
    lost = azure_double.inject(kind, times=2, match=lambda call: "skipToken" in call.query)
    found = [record.name for record in zone.records(type="A")]
    assert found == [f"r{number:02}.{NAME}." for number in range(25)]
    assert lost.hits == 2


def test_many_lists_are_paced_and_none_is_refused(azure_double: AzureDouble, zone: Zone) -> None:
    azure_double.dns.page_size = 5
    for number in range(400):
        azure_double.dns.put_raw(NAME, f"r{number:03}", "A", **address())
    assert len(list(zone.records(type="A"))) == 400
    assert {call.status for call in azure_double.calls} == {200, 201}


@pytest.mark.parametrize("link", ["https://elsewhere.example/x?api-version=1", "http://127.0.0.1:9/x?a=1"])
def test_a_link_to_the_next_page_elsewhere_is_not_followed(azure_double: AzureDouble, zone: Zone, link: str) -> None:
    body = json.dumps({"value": [], "nextLink": link}).encode()
    azure_double.inject("status", status=200, body=body, match=is_("RecordSets_List"), times=None)
    with pytest.raises(IntegrityError, match="which is not asked"):
        list(zone.records())


def test_a_listing_that_does_not_advance_ends(azure_double: AzureDouble, zone: Zone) -> None:
    link = f"https://management.azure.com{azure_double.calls[0].path}/recordsets?api-version=2023-07-01-preview&x=1"
    body = json.dumps({"value": [], "nextLink": link}).encode()
    azure_double.inject("status", status=200, body=body, match=is_("RecordSets_List"), times=None)
    with pytest.raises(IntegrityError, match="does not advance"):
        list(zone.records())


# two writers


def test_of_two_writers_the_second_is_refused_by_azure(azure_double: AzureDouble, zone: Zone, make_arm: Make) -> None:
    zone.set("www", "A", "192.0.2.1")
    other = Dns(AzureDnsDriver(make_arm())).zone(NAME)
    mine, theirs = zone.get("www", "A"), other.get("www", "A")
    driver = zone.unwrap(AzureDnsDriver)
    other.change([RecordChange(before=theirs, after=attrs.evolve(theirs, ttl=60))])
    calls = len(azure_double.calls)
    with pytest.raises(Exception) as caught:  # noqa: PT011  native: the driver's own table names it below
        driver.change(NAME, (RecordChange(before=mine, after=attrs.evolve(mine, ttl=90)),))
    fault = driver.classify(caught.value)
    assert fault is not None
    assert fault.error is PreconditionFailed
    assert "www.shop.example. A" in fault.message
    assert azure_double.calls[calls].status == 412
    assert held(azure_double)["www", "A"]["TTL"] == 60


def test_a_set_that_holds_what_it_held_may_have_another_etag(azure_double: AzureDouble, zone: Zone) -> None:
    zone.set("www", "A", "192.0.2.1")
    mine = zone.get("www", "A")
    azure_double.dns.put_raw(NAME, "www", "A", **address(1), metadata={"seen": "yes"})
    zone.change([RecordChange(before=mine, after=attrs.evolve(mine, ttl=60))])
    assert held(azure_double)["www", "A"] == {**address(1), "TTL": 60, "metadata": {"seen": "yes"}}
    mine = zone.get("www", "A")
    azure_double.dns.put_raw(NAME, "www", "A", **{**address(1), "TTL": 60})
    zone.change([RecordChange(before=mine, after=None)])
    assert ("www", "A") not in held(azure_double)


def test_many_writers_of_one_set_each_win_once(zone: Zone, make_arm: Make) -> None:
    zone.set("count", "TXT", '"0"')
    won = list[int]()

    def count() -> None:
        driver = AzureDnsDriver(make_arm())  # not a zone: that reads back what the next writer has changed since
        for _ in range(5):
            while True:
                (found,) = driver.records(NAME, name=f"count.{NAME}.", cursor=None, limit=None).items
                number = int(found.texts[0].strip('"')) + 1
                after = zone.record("count", "TXT", f'"{number}"')
                try:
                    driver.change(NAME, (RecordChange(before=found, after=after),))
                except RecordFailure as exc:
                    fault = driver.classify(exc)
                    assert fault is not None
                    assert fault.error is PreconditionFailed
                    continue
                won.append(number)
                break

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, 21))
    assert zone.get("count", "TXT").texts == ('"20"',)


def test_a_set_that_somebody_deletes_is_not_deleted_again(azure_double: AzureDouble, zone: Zone) -> None:
    zone.set("www", "A", "192.0.2.1")
    mine = zone.get("www", "A")
    driver = zone.unwrap(AzureDnsDriver)
    zone.delete("www", "A")
    for after in (None, attrs.evolve(mine, ttl=60)):
        with pytest.raises(Exception) as caught:  # noqa: PT011  native
            driver.change(NAME, (RecordChange(before=mine, after=after),))
        fault = driver.classify(caught.value)
        assert fault is not None
        assert fault.error is PreconditionFailed
    assert ("www", "A") not in held(azure_double)


# refused: the zone is as it was, and the error names the record set


def changes_with(zone: Zone, *more: RecordChange) -> tuple[RecordChange, ...]:
    """Return creates, updates and deletes, and some more."""
    for number in range(6):
        zone.set(f"old{number}", "A", f"192.0.2.{number}")
    old = [zone.get(f"old{number}", "A") for number in range(6)]
    return (
        *(RecordChange(before=None, after=zone.record(f"new{number}", "TXT", '"x"')) for number in range(6)),
        *(RecordChange(before=record, after=attrs.evolve(record, ttl=60)) for record in old[:3]),
        *(RecordChange(before=record, after=None) for record in old[3:]),
        *more,
    )


@pytest.mark.parametrize("place", ["TXT/new0", "TXT/new5", "A/old1"])
def test_one_bad_record_among_many_leaves_the_zone_as_it_was(azure_double: AzureDouble, zone: Zone, place: str) -> None:
    azure_double.dns.put_raw(NAME, "kept", "A", **address(), metadata={"of": "somebody"})
    kept = zone.get("kept", "A")
    changes = changes_with(zone, RecordChange(before=kept, after=None))
    before = held(azure_double)
    body = b'{"code": "BadRequest", "message": "The record is invalid."}'
    azure_double.inject("status", status=400, body=body, times=1, match=is_("RecordSets_CreateOrUpdate", place))
    kind, _, name = place.partition("/")
    with pytest.raises(InvalidArgument, match=rf"{name}\.shop\.example\. {kind}: The record is invalid") as caught:
        zone.change(changes)
    assert "not taken back" not in str(caught.value)
    assert held(azure_double) == before
    zone.change(changes)
    assert len(held(azure_double)) == len(before) + 6 - 4


def test_what_cannot_be_taken_back_is_named(azure_double: AzureDouble, zone: Zone) -> None:
    changes = changes_with(zone)
    azure_double.inject(
        "status", status=409, body=b'{"error": {"code": "ScopeLocked", "message": "locked"}}', times=None,
        match=lambda call: call.method == "DELETE" and "/TXT/" in call.path,
    )  # fmt: skip
    azure_double.inject(
        "status", status=400, body=b'{"code": "BadRequest", "message": "no"}', match=is_("RecordSets_Delete", "A/old5")
    )
    with pytest.raises(InvalidArgument, match=r"old5\.shop\.example\. A: no") as caught:
        zone.change(changes)
    told = str(caught.value)
    left = {name for (name, kind) in held(azure_double) if kind == "TXT"}
    assert left
    for name in left:
        assert f"{name}.shop.example. TXT" in told.partition("not taken back: ")[2]


def test_what_somebody_changed_meanwhile_is_not_taken_back(azure_double: AzureDouble, zone: Zone) -> None:
    first, second = zone.set("a", "A", "192.0.2.1"), zone.set("a", "TXT", '"x"')

    def meanwhile(call: Call) -> bool:
        if call.method != "PUT" or not call.path.endswith("/TXT/a"):
            return False
        azure_double.dns.put_raw(NAME, "a", "A", **address(9))
        return True

    azure_double.inject("status", status=400, body=b'{"code": "BadRequest", "message": "no"}', match=meanwhile)
    with pytest.raises(InvalidArgument, match=r"a\.shop\.example\. TXT: no; not taken back: a\.shop\.example\. A"):
        zone.change(
            [
                RecordChange(before=first, after=attrs.evolve(first, ttl=60)),
                RecordChange(before=second, after=attrs.evolve(second, ttl=60)),
            ]
        )
    assert held(azure_double)["a", "A"] == address(9)


def test_a_write_that_nobody_answered_is_taken_back_with_the_others(azure_double: AzureDouble, make_arm: Make) -> None:
    zone = Dns(AzureDnsDriver(make_arm(max_attempts=2))).create(ZoneSpec(name=NAME))
    changes = changes_with(zone)
    before = held(azure_double)
    azure_double.inject("drop_after", times=2, match=is_("RecordSets_CreateOrUpdate", "A/old1"))
    with pytest.raises(Unavailable, match=r"old1\.shop\.example\. A") as caught:
        zone.change(changes)
    assert "not taken back" not in str(caught.value)
    assert held(azure_double) == before


def test_when_nobody_answers_any_more_what_is_left_is_named_at_once(azure_double: AzureDouble, make_arm: Make) -> None:
    zone = Dns(AzureDnsDriver(make_arm(max_attempts=2))).create(ZoneSpec(name=NAME))
    records = [zone.record(f"r{number:02}", "A", "192.0.2.1") for number in range(60)]
    down = threading.Event()

    def fails(call: Call) -> bool:
        if call.path.endswith("/r40"):
            down.set()
        return down.is_set()

    azure_double.inject("drop_before", times=None, match=fails)
    with pytest.raises(Unavailable, match="not taken back: ") as caught:
        zone.change(RecordChange(before=None, after=record) for record in records)
    made = {name for (name, kind) in held(azure_double) if kind == "A"}
    assert len(made) > 20
    assert {name for name in made if f"{name}.{NAME}. A" not in str(caught.value)} == set()
    last = [call.path.rpartition("/")[2] for call in azure_double.calls if call.fault == "drop_before"]
    assert len(last) < 60


def swapped(zone: Zone, old: RecordSet, kind: str, value: str) -> tuple[RecordChange, ...]:
    return (
        RecordChange(before=None, after=zone.record("www", kind, value)),
        RecordChange(before=old, after=None),
    )


def test_a_cname_goes_before_an_a_comes_and_the_other_way(azure_double: AzureDouble, zone: Zone) -> None:
    first = zone.set("www", "A", "192.0.2.1")
    start = len(writes(azure_double))
    zone.change(swapped(zone, first, "CNAME", "web.example."))
    zone.change(swapped(zone, zone.get("www", "CNAME"), "A", "192.0.2.2"))
    assert [method for method, _ in writes(azure_double)[start:]] == ["DELETE", "PUT", "DELETE", "PUT"]


def test_a_cname_that_is_refused_leaves_the_a(azure_double: AzureDouble, zone: Zone) -> None:
    azure_double.dns.put_raw(NAME, "www", "A", **address(), metadata={"of": "web"})
    before = held(azure_double)
    body = b'{"code": "BadRequest", "message": "The domain name is invalid."}'
    azure_double.inject("status", status=400, body=body, match=is_("RecordSets_CreateOrUpdate", "CNAME/www"))
    with pytest.raises(InvalidArgument, match=r"www\.shop\.example\. CNAME: The domain name is invalid"):
        zone.change(swapped(zone, zone.get("www", "A"), "CNAME", "web.example."))
    assert held(azure_double) == before


def test_a_swap_through_a_bad_line_ends_as_it_should(azure_double: AzureDouble, zone: Zone) -> None:
    first = zone.set("www", "A", "192.0.2.1")
    for kind in ("drop_before", "drop_after"):
        azure_double.inject(kind, times=2, match=lambda call: call.method in {"PUT", "DELETE"})
    zone.change(swapped(zone, first, "CNAME", "web.example."))
    assert {kind for (name, kind) in held(azure_double) if name == "www"} == {"CNAME"}


def test_a_full_zone_says_so_and_is_as_it_was(azure_double: AzureDouble, zone: Zone) -> None:
    azure_double.dns.sets = 5
    limit = zone.max_record_sets()
    assert limit is not None
    assert limit.value == 5
    records = [zone.record(f"r{number}", "A", "192.0.2.1") for number in range(6)]
    with pytest.raises(QuotaExceeded, match=r"r\d\.shop\.example\. A"):
        zone.change(RecordChange(before=None, after=record) for record in records)
    assert len(held(azure_double)) == 2


def test_a_service_that_says_yes_and_does_nothing_is_found_out(azure_double: AzureDouble, zone: Zone) -> None:
    body = json.dumps({"etag": "e", "properties": {}}).encode()
    azure_double.inject("status", status=201, body=body, match=is_("RecordSets_CreateOrUpdate"))
    with pytest.raises(IntegrityError, match=r"left as they were: create www\.shop\.example\. A"):
        zone.set("www", "A", "192.0.2.1")


# who asks, and what is there


def test_a_wrong_token_is_told_and_never_shown(make_arm: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    service = Dns(AzureDnsDriver(make_arm(arm_token=Credential.literal(CANARY))))
    with pytest.raises(Unauthenticated) as caught:
        service.zone(NAME).set("www", "A", "192.0.2.1")
    assert CANARY not in f"{caught.value!s} {caught.value.__cause__!r} {service!r} {caplog.text}"


def test_a_missing_permission_is_named(azure_double: AzureDouble, zone: Zone) -> None:
    azure_double.arm.denied.add("Microsoft.Network/dnsZones/A/write")
    with pytest.raises(PermissionDenied, match="no role that allows Microsoft.Network/dnsZones/A/write") as caught:
        zone.set("www", "A", "192.0.2.1")
    assert caught.value.code == "AuthorizationFailed"
    assert caught.value.request_id


def test_reading_needs_no_permission_to_write(azure_double: AzureDouble, zone: Zone) -> None:
    zone.set("www", "A", "192.0.2.1")
    types = ("A", "AAAA", "CNAME", "MX", "NS", "SOA", "TXT")
    azure_double.arm.denied |= {f"Microsoft.Network/dnsZones/{kind}/write" for kind in types}
    azure_double.arm.denied |= {"Microsoft.Network/dnsZones/write", "Microsoft.Network/dnsZones/delete"}
    assert zone.get("www", "A").texts == ("192.0.2.1",)
    assert zone.info().nameservers


def test_a_zone_that_vanishes_is_the_one_that_is_missing(azure_double: AzureDouble, zone: Zone) -> None:
    found = zone.set("www", "A", "192.0.2.1")
    azure_double.dns.zones.clear()
    driver = zone.unwrap(AzureDnsDriver)
    with pytest.raises(ParentNotFound):
        zone.get("www", "A")
    with pytest.raises(NotFound):
        list(zone.records())
    for change in (RecordChange(before=None, after=found), RecordChange(before=found, after=None)):
        with pytest.raises(Exception) as caught:  # noqa: PT011  native
            driver.change(NAME, (change,))
        fault = driver.classify(caught.value)
        assert fault is not None
        assert (fault.error, fault.missing) == (NotFound, "zone")


def test_a_large_zone_that_vanishes_is_missing_too(azure_double: AzureDouble, zone: Zone) -> None:
    for number in range(101):
        azure_double.dns.put_raw(NAME, f"r{number}", "A", **address())
    zone.get("r1", "A")
    azure_double.dns.zones.clear()
    for name in ("r1", r"with\.dot"):
        with pytest.raises(ParentNotFound):
            zone.get(name, "A")


@pytest.mark.parametrize("setting", ["subscription", "resource_group"])
def test_a_wrong_place_is_not_a_missing_zone(make_arm: Make, setting: str) -> None:
    zone = Dns(AzureDnsDriver(make_arm(**{setting: "of-nobody"}))).zone(NAME)
    with pytest.raises(InvalidArgument, match=f"no such {setting}"):
        zone.get("www", "A")
    nowhere = Dns(AzureDnsDriver(make_arm(**{setting: None}))).zone(NAME)
    with pytest.raises(ConfigError, match=setting):
        nowhere.get("www", "A")


def test_a_deletion_that_fails_is_told(azure_double: AzureDouble, zone: Zone) -> None:
    azure_double.arm.operations.failure = ("ScopeLocked", "The scope is locked.")
    with pytest.raises(Conflict, match=r"the deletion of the zone shop\.example: The scope is locked"):
        Dns(zone.unwrap(AzureDnsDriver)).delete(NAME)


def test_a_deletion_that_does_not_end_is_given_up(azure_double: AzureDouble, zone: Zone) -> None:
    azure_double.arm.operations.looks = 100_000
    with pytest.raises(Timeout, match="waited 600 s for the deletion"):
        Dns(zone.unwrap(AzureDnsDriver)).delete(NAME)


def test_throttling_without_end_is_told_with_what_to_wait(azure_double: AzureDouble, make_arm: Make) -> None:
    zone = Dns(AzureDnsDriver(make_arm(max_attempts=2))).create(ZoneSpec(name=NAME))
    azure_double.inject(
        "status", status=429, headers=[("Retry-After", "9")], body=b'{"code": "TooManyRequests", "message": "Slower."}',
        times=None, match=is_("RecordSets_CreateOrUpdate"),
    )  # fmt: skip
    with pytest.raises(Throttled, match=r"www\.shop\.example\. A: Slower") as caught:
        zone.set("www", "A", "192.0.2.1")
    assert (caught.value.retry_after, caught.value.code) == (9.0, "TooManyRequests")


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"code": 5}', b'{"error": "text"}', b'{"error": {}}'])
@pytest.mark.parametrize("status", [400, 403, 404, 409, 418])
def test_refusals_that_make_no_sense_are_refusals(
    azure_double: AzureDouble, zone: Zone, status: int, body: bytes
) -> None:
    azure_double.inject("status", status=status, body=body, match=is_("RecordSets_CreateOrUpdate"))
    with pytest.raises(OperationError, match=r"www\.shop\.example\. A"):
        zone.set("www", "A", "192.0.2.1")
    assert ("www", "A") not in held(azure_double)
