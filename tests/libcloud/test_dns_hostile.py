"""Lost answers, other writers, other tools, limits: a zone is as it was or as it was to be, and nobody is told else."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shiftable
from shiftable.config import Credential
from shiftable.dns import Dns, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.dns.driver import ZoneInfo
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidArgument,
    NotFound,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.testing.harness import Call, Kind
from shiftable_libcloud import LibcloudProvider, LibcloudSettings, _connection
from shiftable_libcloud import _dns_digitalocean as digitalocean
from shiftable_libcloud import _dns_linode as linode
from shiftable_libcloud import _dns_vultr as vultr
from shiftable_libcloud._dns_hoster import Words
from shiftable_libcloud.dns import LibcloudDnsDriver
from shiftable_libcloud.double import HosterDouble, LinodeDouble, VultrDouble

from .hostile import FAULT_IDS, FAULTS, counted, inject, of, refusal

NAME = "shop.example"
HOSTERS = ["digitalocean", "linode", "vultr"]
digitalocean_alone = pytest.mark.parametrize("hoster", ["digitalocean"], indirect=True)


@pytest.fixture
def open_driver(hoster: HosterDouble, open_service: Callable[..., Any]) -> Callable[..., LibcloudDnsDriver]:
    def open_it(**settings: Any) -> LibcloudDnsDriver:
        driver = open_service("dns", hoster, **settings)
        assert isinstance(driver, LibcloudDnsDriver)
        return driver

    return open_it


@pytest.fixture
def driver(open_driver: Callable[..., LibcloudDnsDriver]) -> LibcloudDnsDriver:
    return open_driver()


@pytest.fixture
def zone(driver: LibcloudDnsDriver) -> Zone:
    return Dns(driver).create(ZoneSpec(name=NAME))


@pytest.fixture
def impatient(open_driver: Callable[..., LibcloudDnsDriver], zone: Zone) -> Zone:
    """Return the zone, to somebody who gives up at once."""
    return Dns(open_driver(retry_seconds=0.0)).zone(zone.name)


def rows(double: HosterDouble) -> list[tuple[Any, ...]]:
    """Return what a zone really holds beside its own SOA and NS, each record as often as it is there."""
    found = double.domains.all[NAME].records.values()
    return sorted(
        (row["name"], row["type"], *(row.get(theirs, row.get(ours)) for theirs, ours in KEYS))
        for row in found
        if not (row["name"] in {"", "@"} and row["type"] in {"NS", "SOA"})
    )


def is_second_page(call: Call) -> bool:
    return "&page=2&" in f"&{call.query}&" or "cursor=" in call.query


KEYS = [("data", "target"), ("ttl", "ttl_sec")]
CALLS = ["domains.get", "records.list", "records.create", "records.update", "records.delete"]


# faults on the way


@pytest.mark.parametrize(("kind", "more"), FAULTS, ids=FAULT_IDS)
@pytest.mark.parametrize("operation", CALLS)
def test_a_fault_that_passes_is_not_noticed_and_nothing_is_there_twice(
    hoster: HosterDouble, zone: Zone, kind: Kind, more: dict[str, Any], operation: str
) -> None:
    zone.set("www", "A", ["192.0.2.1", "192.0.2.2", "192.0.2.3"], ttl=300)
    zone.set("few", "A", "192.0.2.1", ttl=300)
    met = [inject(hoster, kind, match=of(operation), **more) for _ in range(2)]
    changes = (
        RecordChange(before=zone.get("www", "A"), after=zone.record("www", "A", "192.0.2.9", ttl=300)),
        RecordChange(
            before=zone.get("few", "A"), after=zone.record("few", "A", ["192.0.2.7", "192.0.2.8", "192.0.2.6"], ttl=300)
        ),
    )
    zone.change(changes)
    assert [1, 1] == [each.hits for each in met]
    assert [("few", "A", f"192.0.2.{number}", 300) for number in (6, 7, 8)] + [("www", "A", "192.0.2.9", 300)] == rows(
        hoster
    )


@pytest.mark.parametrize(("kind", "more"), FAULTS, ids=FAULT_IDS)
def test_a_fault_that_stays_is_told_as_what_it_is(
    hoster: HosterDouble, impatient: Zone, kind: Kind, more: dict[str, Any]
) -> None:
    inject(hoster, kind, times=None, **more)
    with pytest.raises(Throttled if more.get("status") == 429 else Unavailable):
        list(impatient.records())


def test_what_comes_too_fast_says_how_long_to_wait(hoster: HosterDouble, impatient: Zone) -> None:
    limited = refusal(429, "too_many_requests", "API Rate limit exceeded.", **{"Retry-After": "17"})
    inject(hoster, "status", times=None, **limited)
    with pytest.raises(Throttled) as caught:
        list(impatient.records())
    said = ("429", None) if isinstance(hoster, LinodeDouble | VultrDouble) else ("too_many_requests", "r-9")
    assert (17.0, *said) == (
        caught.value.retry_after,
        caught.value.code,
        caught.value.request_id,
    )


def test_nobody_waits_longer_than_was_agreed(
    hoster: HosterDouble, open_driver: Callable[..., LibcloudDnsDriver], zone: Zone
) -> None:
    patient = Dns(open_driver(retry_seconds=30.0)).zone(zone.name)
    limited = refusal(429, "too_many_requests", "API Rate limit exceeded.", **{"Retry-After": "3600"})
    met = inject(hoster, "status", times=None, **limited)
    with pytest.raises(Throttled):
        list(patient.records())
    assert 1 == met.hits


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_libclouds_own_retries_stay_off(
    hoster: HosterDouble, zone: Zone, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIBCLOUD_RETRY_FAILED_HTTP_REQUESTS", "1")
    monkeypatch.setattr("libcloud.common.base.RETRY_FAILED_HTTP_REQUESTS", True)
    before = counted(hoster)["records.create"]
    inject(hoster, kind, match=of("records.create"))
    zone.set("www", "A", "192.0.2.1", ttl=300)
    assert [("www", "A", "192.0.2.1", 300)] == rows(hoster)
    assert (1 if kind != "drop_before" else 2) == counted(hoster)["records.create"] - before


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_creation_in_doubt_is_looked_for_before_it_is_sent_again(
    hoster: HosterDouble, zone: Zone, kind: Kind
) -> None:
    inject(hoster, kind, match=of("records.create"), times=2)
    zone.set("www", "A", ["192.0.2.1", "192.0.2.2"], ttl=300)
    assert [("www", "A", "192.0.2.1", 300), ("www", "A", "192.0.2.2", 300)] == rows(hoster)


def test_a_creation_that_is_executed_late_is_read_as_one_and_goes_with_the_next_change(
    hoster: HosterDouble, zone: Zone
) -> None:
    record = zone.set("www", "A", ["192.0.2.1", "192.0.2.2"], ttl=300)
    hoster.domains.add(NAME, "www", "A", "192.0.2.1", ttl=300)
    assert record == zone.get("www", "A")
    zone.set("www", "A", ["192.0.2.1", "192.0.2.3"])
    assert [("www", "A", "192.0.2.1", 300), ("www", "A", "192.0.2.3", 300)] == rows(hoster)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_zone_whose_making_was_in_doubt_is_made_once(
    hoster: HosterDouble, driver: LibcloudDnsDriver, kind: Kind
) -> None:
    inject(hoster, kind, match=of("domains.create"), times=2)
    Dns(driver).create(ZoneSpec(name=NAME))
    assert [NAME] == list(hoster.domains.all)


def test_a_zone_with_records_is_not_taken_for_the_one_whose_making_was_in_doubt(
    hoster: HosterDouble, zone: Zone, driver: LibcloudDnsDriver
) -> None:
    zone.set("www", "A", "192.0.2.1", ttl=300)
    inject(hoster, "drop_before", match=of("domains.create"))
    with pytest.raises(AlreadyExists):
        Dns(driver).create(ZoneSpec(name=NAME))
    assert [("www", "A", "192.0.2.1", 300)] == rows(hoster)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_zone_whose_deletion_was_in_doubt_is_gone(
    hoster: HosterDouble, zone: Zone, driver: LibcloudDnsDriver, kind: Kind
) -> None:
    inject(hoster, kind, match=of("domains.delete"), times=2)
    Dns(driver).delete(zone.name)
    assert {} == hoster.domains.all
    with pytest.raises(NotFound):
        Dns(driver).delete(zone.name)


def test_a_new_zone_holds_no_address_that_nobody_asked_for(hoster: HosterDouble, zone: Zone) -> None:
    assert [] == rows(hoster)
    theirs = {row["type"] for row in hoster.domains.all[zone.name].records.values()}
    listed = {"digitalocean": {"SOA", "NS"}, "linode": set[str](), "vultr": {"NS"}}
    assert listed[hoster.config["hoster"]] == theirs


def test_nobody_answers(open_driver: Callable[..., LibcloudDnsDriver], zone: Zone) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        nowhere = Dns(open_driver(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", retry_seconds=0.0))
        with pytest.raises(Unavailable, match="cannot be reached; is there a way from here"):
            list(nowhere.zone(zone.name).records())


def test_an_answer_that_does_not_come_is_a_timeout(
    hoster: HosterDouble,
    open_driver: Callable[..., LibcloudDnsDriver],
    zone: Zone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_connection.SafeConnection, "timeout", (10.0, 0.2))
    inject(hoster, "latency", seconds=600.0, times=None)
    with pytest.raises(Timeout):
        list(Dns(open_driver(retry_seconds=0.0)).zone(zone.name).records())
    hoster.reset()


# refusals


@pytest.mark.parametrize("at", range(6))
def test_a_batch_that_is_refused_on_its_way_is_taken_back(hoster: HosterDouble, zone: Zone, at: int) -> None:
    zone.set("a", "A", ["192.0.2.1", "192.0.2.2"], ttl=300)
    zone.set("b", "CNAME", "a", ttl=300)
    zone.set("c", "TXT", '"old"', ttl=300)
    before, seen = rows(hoster), list[Call]()

    def is_turn(call: Call) -> bool:
        if call.method != "GET":
            seen.append(call)
        return call.method != "GET" and len(seen) == at + 1

    met = inject(hoster, "status", match=is_turn, **refusal(422, "unprocessable_entity", "Data is not valid"))
    changes = [
        RecordChange(before=zone.get("a", "A"), after=zone.record("a", "A", ["192.0.2.8", "192.0.2.2"], ttl=3600)),
        RecordChange(before=zone.get("b", "CNAME"), after=None),
        RecordChange(before=None, after=zone.record("b", "A", "192.0.2.5", ttl=300)),
        RecordChange(before=zone.get("c", "TXT"), after=zone.record("c", "TXT", ['"new"', '"newer"'], ttl=300)),
    ]
    with pytest.raises(InvalidArgument, match="Data is not valid"):
        zone.change(changes)
    assert 1 == met.hits
    assert before == rows(hoster)


def test_what_could_not_be_taken_back_is_named(hoster: HosterDouble, impatient: Zone) -> None:
    impatient.set("a", "A", "192.0.2.1", ttl=300)

    begun = list[Call]()

    def is_later(call: Call) -> bool:
        if call.method != "GET":
            begun.append(call)
        return call.method != "GET" and len(begun) > 1

    inject(hoster, "status", match=is_later, times=None, **refusal(500, "server_error", "Unexpected"))
    changes = [
        RecordChange(before=impatient.get("a", "A"), after=impatient.record("a", "A", "192.0.2.2", ttl=300)),
        RecordChange(before=None, after=impatient.record("b", "A", "192.0.2.5", ttl=300)),
    ]
    with pytest.raises(Unavailable, match=r"b\.shop\.example\. A: .*not taken back: a\.shop\.example\. A"):
        impatient.change(changes)
    assert [("a", "A", "192.0.2.2", 300)] == rows(hoster)


def test_what_somebody_else_wrote_meanwhile_is_not_taken_back(hoster: HosterDouble, zone: Zone) -> None:
    zone.set("a", "A", "192.0.2.1", ttl=300)

    def is_second(call: Call) -> bool:
        if call.operation != "records.create":
            return False
        for row in hoster.domains.all[NAME].records.values():
            if row["name"] == "a":
                row["data" if "data" in row else "target"] = "192.0.2.77"
        return True

    inject(hoster, "status", match=is_second, **refusal(422, "unprocessable_entity", "Data is not valid"))
    changes = [
        RecordChange(before=zone.get("a", "A"), after=zone.record("a", "A", "192.0.2.2", ttl=300)),
        RecordChange(before=None, after=zone.record("b", "A", "192.0.2.5", ttl=300)),
    ]
    with pytest.raises(InvalidArgument, match="not taken back: a"):
        zone.change(changes)
    assert [("a", "A", "192.0.2.77", 300)] == rows(hoster)


def test_a_record_that_is_gone_when_it_is_written_is_a_set_that_moved(hoster: HosterDouble, zone: Zone) -> None:
    before = zone.set("a", "A", "192.0.2.1", ttl=300)

    def is_vanishing(call: Call) -> bool:
        records = hoster.domains.all[NAME].records
        if call.operation == "records.update":
            for number in [number for number, row in records.items() if row["name"] == "a"]:
                del records[number]
        return False

    inject(hoster, "latency", match=is_vanishing)
    with pytest.raises(PreconditionFailed, match="a.shop.example. A"):
        zone.set("a", "A", "192.0.2.2", if_match=before.token)


def test_a_missing_zone_is_named_by_whoever_needs_it(
    hoster: HosterDouble, zone: Zone, driver: LibcloudDnsDriver
) -> None:
    del hoster.domains.all[NAME]
    with pytest.raises(ParentNotFound, match=NAME):
        zone.get("www", "A")
    with pytest.raises(NotFound):
        Dns(driver).describe(NAME)


def test_a_wrong_token_is_unauthenticated_and_a_reading_one_may_only_read(
    hoster: HosterDouble, open_driver: Callable[..., LibcloudDnsDriver], zone: Zone
) -> None:
    with pytest.raises(Unauthenticated, match="Unable to authenticate|Invalid Token|Invalid API token"):
        Dns(open_driver(token=Credential.literal("dop_v1_" + "0" * 64))).describe(NAME)
    reading = Dns(open_driver(token=Credential.literal(hoster.reading_token)))
    assert zone.info() == reading.zone(NAME).info()
    with pytest.raises(PermissionDenied):
        reading.zone(NAME).set("www", "A", "192.0.2.1", ttl=300)
    assert [] == rows(hoster)


# paging, and others who write


def test_a_zone_that_changes_while_it_is_listed_is_listed_again(hoster: HosterDouble, zone: Zone) -> None:
    for number in range(30):
        hoster.domains.add(NAME, f"r{number:02}", "A", "192.0.2.1", ttl=300)
    hoster.page_size = 10

    def first_goes(call: Call) -> bool:
        """Delete the first record as the second page is asked for, so that one slips from it onto the first."""
        if not is_second_page(call):
            return False
        records = hoster.domains.all[NAME].records
        del records[next(number for number, row in records.items() if row["name"] == "r00")]
        return True

    met = inject(hoster, "latency", match=first_goes)
    found = {record.name for record in zone.records(type="A")}
    assert 1 == met.hits
    assert {f"r{number:02}.{NAME}." for number in range(1, 30)} == found


def test_a_zone_that_never_rests_is_a_conflict(hoster: HosterDouble, zone: Zone) -> None:
    for number in range(3):
        hoster.domains.add(NAME, f"r{number}", "A", "192.0.2.1", ttl=300)
    hoster.page_size = 2

    def grows(call: Call) -> bool:
        if is_second_page(call):
            hoster.domains.add(NAME, "r", "TXT", "x", ttl=300)
        return False

    inject(hoster, "latency", match=grows, times=None)
    with pytest.raises(Conflict, match="all the time"):
        list(zone.records())


def test_zones_that_come_and_go_while_they_are_listed_are_a_conflict(
    hoster: HosterDouble, driver: LibcloudDnsDriver
) -> None:
    service = Dns(driver)
    for number in range(5):
        service.create(ZoneSpec(name=f"z{number}.example"))
    hoster.page_size = 2
    listing = service.list()
    assert "z0.example" == next(listing).name
    service.delete("z0.example")
    with pytest.raises(Conflict, match="list them again"):
        list(listing)


def test_a_zone_of_many_records_is_read_in_as_few_calls_as_there_are_pages(hoster: HosterDouble, zone: Zone) -> None:
    for number in range(1196):
        hoster.domains.add(NAME, f"r{number}", "A", "192.0.2.1", ttl=300)
    before = counted(hoster)
    assert 1198 == len(list(zone.records()))
    needed = {"digitalocean": {"records.list": 6}, "linode": {"records.list": 3}}
    vultrs = {"records.list": 3, "domains.soa": 1}
    assert {"domains.get": 1, **needed.get(hoster.config["hoster"], vultrs)} == counted(hoster) - before


def test_a_forgotten_listing_goes_on_where_it_ended(hoster: HosterDouble, zone: Zone) -> None:
    for number in range(1100):
        hoster.domains.add(NAME, f"r{number:04}", "A", "192.0.2.1", ttl=300)
    driver = zone.unwrap(LibcloudDnsDriver)
    first = driver.records(NAME, name=None, cursor=None, limit=None)
    driver._kept.clear()
    second = driver.records(NAME, name=None, cursor=first.next, limit=None)
    assert second.next is None
    assert 1102 == len({record.key for record in (*first.items, *second.items)})


def test_many_threads_share_a_driver_and_each_reads_its_own_answer(zone: Zone) -> None:
    for number in range(16):
        zone.set(f"t{number}", "A", f"192.0.2.{number}", ttl=300)
    start = threading.Barrier(8)

    def read(number: int) -> list[str]:
        if number < 8:
            start.wait()
        return [text for _ in range(5) for text in zone.get(f"t{number}", "A").texts]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(16)))
    assert [[f"192.0.2.{number}"] * 5 for number in range(16)] == found


# what other tools write


@digitalocean_alone
@pytest.mark.parametrize(
    ("type", "data", "more", "text"),
    [
        ("CNAME", "@", {}, f"{NAME}."),
        ("CNAME", "Target.example.net", {}, "target.example.net."),
        ("MX", "mail.example.net", {"priority": 0}, "0 mail.example.net."),
        ("MX", "@", {"priority": 10}, f"10 {NAME}."),
        ("SRV", ".", {"priority": 0, "weight": 0, "port": 0}, "0 0 0 ."),
        ("SRV", "sip.example.net", {"priority": 1, "weight": 2, "port": 3}, "1 2 3 sip.example.net."),
        ("CAA", "letsencrypt.org", {"flags": 128, "tag": "issuewild"}, '128 issuewild "letsencrypt.org"'),
        ("CAA", "letsencrypt.org.", {"flags": 0, "tag": "issue"}, '0 issue "letsencrypt.org"'),
        ("TXT", 'say "hi"; x', {}, r'"say \"hi\"; x"'),
        ("TXT", "x" * 300, {}, f'"{"x" * 255}" "{"x" * 45}"'),
        ("TXT", "grüße", {}, r'"gr\195\188\195\159e"'),
        ("AAAA", "2001:0db8:0:0::2", {}, "2001:db8::2"),
    ],
    ids=["apex", "case", "mx", "mx-apex", "null-srv", "srv", "caa", "caa-dot", "quotes", "long", "utf8", "ipv6"],
)
def test_what_other_tools_wrote_is_read_as_dns_serves_it(
    hoster: HosterDouble, zone: Zone, type: str, data: str, more: dict[str, Any], text: str
) -> None:
    hoster.domains.add(NAME, "x", type, data, ttl=300, **more)
    assert zone.record("x", type, text, ttl=300) == zone.get("x", type)


@pytest.mark.parametrize(
    ("type", "data"),
    [("A", "not an address"), ("HTTPS", "1 . alpn="), ("AFSDB", None), ("REDIRECT", "https://example.net")],
    ids=["malformed", "broken", "empty", "invented"],
)
def test_a_record_that_cannot_be_understood_hides_no_other_and_is_no_plain_one(
    hoster: HosterDouble, zone: Zone, type: str, data: str | None
) -> None:
    """An AFSDB becomes an A in libcloud's own driver, which reads nothing where it does not know a type."""
    zone.set("www", "A", "192.0.2.1", ttl=300)
    hoster.domains.add(NAME, "odd", type, data, ttl=300)  # type: ignore[arg-type]  # as it may come
    found = {(record.name, record.type): record for record in zone.records()}
    assert ("192.0.2.1",) == found[f"www.{NAME}.", "A"].texts
    odd = found[f"odd.{NAME}.", type]
    assert odd.policy is not None
    assert "libcloud" == odd.policy.provider
    with pytest.raises(InvalidArgument, match=f"odd.{NAME}. {type}"):
        zone.change([RecordChange(before=odd, after=attrs.evolve(odd, ttl=3600))])


@digitalocean_alone
def test_an_afsdb_of_another_tool_is_an_afsdb(hoster: HosterDouble, zone: Zone) -> None:
    hoster.domains.add(NAME, "afs", "AFSDB", "1 afs.example.net.", ttl=300)
    (found,) = zone.records(name="afs")
    assert ("AFSDB", ("1 afs.example.net.",), None) == (found.type, found.texts, found.policy)


def test_an_odd_set_can_be_deleted(hoster: HosterDouble, zone: Zone) -> None:
    hoster.domains.add(NAME, "odd", "A", "not an address", ttl=300)
    zone.delete("odd", "A")
    assert [] == rows(hoster)


def test_different_ttls_of_one_set_are_read_as_the_shortest_and_made_one_by_the_next_change(
    hoster: HosterDouble, zone: Zone
) -> None:
    for number, ttl in enumerate((3600, 300, 7200)):
        hoster.domains.add(NAME, "www", "A", f"192.0.2.{number}", ttl=ttl)
    assert 300 == zone.get("www", "A").ttl
    zone.set("www", "A", ["192.0.2.0", "192.0.2.1"])
    assert [("www", "A", "192.0.2.0", 300), ("www", "A", "192.0.2.1", 300)] == rows(hoster)


def test_a_change_keeps_what_stays_and_its_name_is_never_without_an_answer(hoster: HosterDouble, zone: Zone) -> None:
    zone.set("www", "A", ["192.0.2.1", "192.0.2.2", "192.0.2.3"], ttl=300)
    least = list[int]()

    def look(call: Call) -> bool:
        least.append(len(rows(hoster)))
        return False

    inject(hoster, "latency", match=look, times=None)
    before = counted(hoster)
    zone.set("www", "A", ["192.0.2.3", "192.0.2.9"])
    assert {"records.update": 1, "records.delete": 1} == {
        name: count for name, count in (counted(hoster) - before).items() if name not in {"domains.get", "records.list"}
    }
    assert 2 <= min(least)


@digitalocean_alone
def test_the_ns_of_the_zone_are_told_as_they_are(hoster: HosterDouble, zone: Zone) -> None:
    servers = tuple(f"ns{number}.digitalocean.com." for number in (1, 2, 3))
    assert ZoneInfo(name=NAME, nameservers=servers, id=NAME) == zone.info()


@digitalocean_alone
def test_the_soa_is_the_one_of_the_zone_file_and_is_written_by_nobody(hoster: HosterDouble, zone: Zone) -> None:
    soa = zone.get("@", "SOA")
    assert f"ns1.digitalocean.com. hostmaster.{NAME}. 5 10800 3600 604800 1800" == soa.texts[0]
    with pytest.raises(InvalidArgument, match="SOA"):
        zone.set("@", "SOA", "a.example. b.example. 1 2 3 4 5", apex=True)


# text, there and back


@pytest.mark.parametrize("words", [digitalocean, linode, vultr], ids=HOSTERS)
@given(text=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=520))
def test_every_text_comes_back_as_it_was_sent_or_is_refused(words: Words, text: str) -> None:
    pieces = [text[at : at + 255] for at in range(0, len(text), 255)]
    wire = b"".join(bytes([len(piece)]) + piece.encode() for piece in pieces)
    record = RecordSet(name=f"x.{NAME}.", type="TXT", ttl=300, rdatas=(wire,))
    if words.record_problem(NAME, record) is None:
        fields = words.told(NAME, record, wire)
        sent = fields["target" if words is linode else "data"]
        assert sent == (f'"{text}"' if words is vultr else text)
        assert wire == words.rdata_in(NAME, fields)
    else:
        assert set('"\\') & set(text) or text.strip(" ") != text or (words is digitalocean and len(text) > 500)


# settings and secrets


@pytest.mark.parametrize(
    ("hoster", "variable"),
    [("digitalocean", "DIGITALOCEAN_ACCESS_TOKEN"), ("linode", "LINODE_TOKEN"), ("vultr", "VULTR_API_KEY")],
    indirect=["hoster"],
)
def test_without_a_token_it_says_where_to_put_one(
    hoster: HosterDouble, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=variable):
        LibcloudProvider(LibcloudSettings(**{**hoster.config, "token": None})).dns()


@pytest.mark.parametrize(
    ("hoster", "variable"),
    [("digitalocean", "DIGITALOCEAN_TOKEN"), ("linode", "LINODE_TOKEN"), ("vultr", "VULTR_API_KEY")],
    indirect=["hoster"],
)
def test_the_hosters_own_variable_is_a_token(
    hoster: HosterDouble, variable: str, open_driver: Callable[..., LibcloudDnsDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, hoster.token)
    assert [] == list(Dns(open_driver(token=None)).list())


def test_a_hoster_that_is_not_reached_is_refused_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "shiftable.toml").write_text(
        '[project]\nname = "shop"\n[environments.production]\nprovider = "x"\n'
        '[providers.x]\ntype = "libcloud"\nhoster = "nowhere"\n[dns.shop]\nzone = "shop.example"\n'
    )
    with pytest.raises(ConfigError, match="digitalocean"):
        shiftable.load(tmp_path / "shiftable.toml", environment="production").dns("shop")


def test_other_services_are_refused_and_say_what_there_is() -> None:
    provider = LibcloudProvider(LibcloudSettings(hoster="digitalocean"))
    for make in (provider.database, provider.secrets):
        with pytest.raises(Unsupported, match="it has: blob, compute, dns"):
            make()


def test_the_token_is_nowhere_to_be_seen(
    hoster: HosterDouble,
    open_driver: Callable[..., LibcloudDnsDriver],
    zone: Zone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where libcloud is told to log everything, and where a .netrc has another password for the host."""
    import libcloud

    caplog.set_level(logging.DEBUG)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login nobody password wrong\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    log = (tmp_path / "log").open("w")
    try:
        libcloud.enable_debug(log)
        driver = open_driver(retry_seconds=0.0)
        shown, seen = Dns(driver).zone(NAME), list[str]()
        shown.set("www", "A", "192.0.2.1", ttl=300)
        for kind, more in FAULTS:
            inject(hoster, kind, **more)
            with pytest.raises(OperationError) as caught:
                list(shown.records())
            exc: BaseException | None = caught.value
            chain = list[BaseException]()
            while exc is not None:
                assert exc not in chain, "an exception that is its own cause"
                chain.append(exc)
                seen += [repr(exc), str(exc), repr(vars(exc))]
                exc = exc.__cause__ or exc.__context__
        seen += [repr(driver), repr(shown), caplog.text]
    finally:
        libcloud.reset_debug()
        log.close()
    assert hoster.token not in "".join([*seen, (tmp_path / "log").read_text()])
    assert not [call for call in hoster.calls if hoster.token in call.path + call.query]
