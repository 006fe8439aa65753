"""The driver for PowerDNS against PowerDNS, and the proof that the stand-in of the default tests is as strict."""

from __future__ import annotations

import signal
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shiftable.config import Credential
from shiftable.dns import Dns, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.errors import Conflict, OperationError, PreconditionFailed, Unauthenticated, Unavailable
from shiftable.testing.conformance.dns import DnsConformance, Observed
from shiftable_baremetal import PowerdnsSettings
from shiftable_baremetal.dns_powerdns import PowerdnsDriver, open_powerdns

from ..baremetal import powerdns_standin as standin


def opened(server: Any, **more: Any) -> PowerdnsDriver:
    known = {"address": server.url, "api_key": Credential.literal(server.api_key), **more}
    return open_powerdns(PowerdnsSettings(**known), ("ns1.outside.test.",))


@pytest.fixture
def driver(powerdns: Any) -> Iterator[PowerdnsDriver]:
    made = opened(powerdns)
    yield made
    made.close()


@pytest.fixture
def zone(powerdns: Any, driver: PowerdnsDriver) -> Iterator[Zone]:
    yield Dns(driver).create(ZoneSpec(name="conf.test"))
    powerdns.delete("conf.test")


class TestPowerdns(DnsConformance):
    @pytest.fixture
    def driver(self, driver: PowerdnsDriver) -> PowerdnsDriver:
        return driver

    @pytest.fixture
    def oracle(self, powerdns: Any) -> Callable[[str], Observed]:
        return powerdns.held


# the stand-in's proof


def patched(server: Any, *items: dict[str, Any]) -> tuple[int, str]:
    """Send items past the driver; return the status and what the server says."""
    try:
        server.call("PATCH", "/zones/conf.test.", {"rrsets": [{"ttl": 60, **item} for item in items]})
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()
    return 204, ""


def item(name: str, kind: str, *contents: str, change: str = "REPLACE", **more: Any) -> dict[str, Any]:
    records = [{"content": content, "disabled": False} for content in contents]
    return {"name": f"{name}.conf.test.", "type": kind, "changetype": change, "records": records, **more}


@pytest.mark.parametrize(
    ("kind", "content", "shown"), standin.CASES, ids=[f"{kind}-{content[:40]}" for kind, content, _ in standin.CASES]
)
def test_the_server_is_as_strict_as_the_stand_in(
    zone: Zone, powerdns: Any, kind: str, content: str, shown: str | None
) -> None:
    status, said = patched(powerdns, item("x", kind, content))
    assert status == (422 if shown is None else 204), said
    if shown is not None:
        found = powerdns.call("GET", "/zones/conf.test.?rrset_name=x.conf.test.")["rrsets"]
        kind = "ADDR" if kind == "TYPE65400" else kind
        expected = content if shown == "=" else shown
        assert [(each["type"], each["records"][0]["content"]) for each in found] == [(kind, expected)]


@pytest.mark.parametrize(("name", "taken"), standin.NAMES.items())
def test_the_server_takes_the_names_that_the_stand_in_takes(
    zone: Zone,
    powerdns: Any,
    name: str,
    taken: bool,  # noqa: FBT001  a table
) -> None:
    assert patched(powerdns, item(name, "A", "192.0.2.1"))[0] == (204 if taken else 422)


REFUSED: tuple[tuple[tuple[dict[str, Any], ...], str], ...] = (
    ((item("x", "A", "192.0.2.1", "192.0.2.1"),), "Duplicate record"),
    ((item("x", "A", "192.0.2.1"), item("x", "A", "192.0.2.2")), "Duplicate RRset"),
    ((item("x", "A", "192.0.2.1"), item("x", "CNAME", "y.")), "Conflicts with pre-existing RRset"),
    (({**item("x", "A", "192.0.2.1"), "name": "x.other.test."},), "Name is out of zone"),
)


@pytest.mark.parametrize(("items", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_server_and_stand_in_refuse_whole_requests_alike(
    zone: Zone, powerdns: Any, items: tuple[dict[str, Any], ...], why: str
) -> None:
    assert patched(powerdns, item("first", "A", "192.0.2.1"), *items)[0] == 422
    status, said = patched(powerdns, item("first", "A", "192.0.2.1"), *items)
    assert (status, why in said) == (422, True)
    assert powerdns.call("GET", "/zones/conf.test.?rrset_name=first.conf.test.")["rrsets"] == []
    with standin.StandIn() as copy:
        copy.zones["conf.test."], copy.serials["conf.test."] = {}, 1
        with pytest.raises(standin.Unfit, match=why):
            copy._patched("conf.test.", [{"ttl": 60, **each} for each in (item("first", "A", "192.0.2.1"), *items)])
        assert copy.zones["conf.test."] == {}


def test_server_and_stand_in_keep_comments_and_what_is_off(zone: Zone, powerdns: Any) -> None:
    comments = [{"content": "why", "account": "me", "modified_at": 7}]
    assert patched(powerdns, item("x", "A", "192.0.2.1", comments=comments))[0] == 204
    assert patched(powerdns, item("x", "A", "192.0.2.2"))[0] == 204
    (found,) = powerdns.call("GET", "/zones/conf.test.?rrset_name=x.conf.test.")["rrsets"]
    assert found["comments"] == comments
    assert patched(powerdns, item("x", "A", "192.0.2.2", comments=[]))[0] == 204
    (found,) = powerdns.call("GET", "/zones/conf.test.?rrset_name=x.conf.test.")["rrsets"]
    assert found["comments"] == []


# what only the server can show


@pytest.mark.parametrize(
    ("kind", "records"),
    [
        ("A", (("192.0.2.1", True),)),
        ("A", (("192.0.2.2", False), ("192.0.2.1", True))),
        ("ALIAS", (("target.example.", False),)),
        ("LUA", (("A \"ifportup(443, {'192.0.2.1'})\"", False),)),
    ],
)
def test_policies_go_back_as_they_were(
    zone: Zone, powerdns: Any, kind: str, records: tuple[tuple[str, bool], ...]
) -> None:
    made = item("x", kind, comments=[{"content": "why", "account": "me", "modified_at": 7}])
    made["records"] = [{"content": content, "disabled": disabled} for content, disabled in records]
    assert patched(powerdns, made) == (204, "")
    found = next(zone.records(name="x"))
    assert (found.type, found.rdatas, found.policy is not None) == (kind, (), True)
    before = powerdns.call("GET", "/zones/conf.test.?rrset_name=x.conf.test.")["rrsets"]
    zone.delete("x", kind)
    zone.change([RecordChange(before=None, after=found)])
    assert powerdns.call("GET", "/zones/conf.test.?rrset_name=x.conf.test.")["rrsets"] == before


def test_ten_thousand_record_sets_arrive(zone: Zone) -> None:
    records = [zone.record(f"n{number}", "A", f"10.0.{number // 250}.{number % 250}") for number in range(10_000)]
    zone.change(RecordChange(before=None, after=record) for record in records)
    found = {record.key: record for record in zone.records(type="A")}
    assert found == {record.key: record for record in records}
    zone.change(zone.diff([]))
    assert {record.type for record in zone.records()} == {"NS", "SOA"}


def test_one_refused_change_refuses_all_and_is_named(zone: Zone, driver: PowerdnsDriver) -> None:
    zone.set("alias", "CNAME", "target.example.")
    before = list(zone.records())
    wanted = [zone.record(name, "A", "192.0.2.1") for name in ("a", "alias", "b")]
    with pytest.raises(Conflict, match=r"alias\.conf\.test\. IN A"), zone._translated("change", zone.resource):
        driver.change("conf.test", tuple(RecordChange(before=None, after=record) for record in wanted))
    assert list(zone.records()) == before


def test_a_wrong_key_is_unauthenticated(powerdns: Any) -> None:
    driver = opened(powerdns, api_key=Credential.literal("canary-of-a-key"))
    with pytest.raises(Unauthenticated) as caught:
        list(Dns(driver).list())
    assert "canary" not in str(caught.value)
    driver.close()


def test_two_writers_lose_nothing_that_both_were_told_of(zone: Zone, powerdns: Any) -> None:
    """The API has no conditions, so both may be told yes for one name; for names of their own nothing is lost."""
    failures = list[Exception]()

    def write(who: str) -> None:
        mine = opened(powerdns)
        here = Dns(mine).zone("conf.test")
        try:
            for number in range(30):
                here.set(f"{who}{number}", "A", "192.0.2.1")
        except OperationError as exc:
            failures.append(exc)
        mine.close()

    threads = [threading.Thread(target=write, args=(who,)) for who in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(zone.records(type="A"))) == 90


def test_a_server_that_is_killed_in_a_change_leaves_all_or_nothing(powerdns_of_its_own: Callable[[], Any]) -> None:
    with powerdns_of_its_own() as server:
        driver = opened(server)
        zone = Dns(driver).create(ZoneSpec(name="conf.test"))
        records = [zone.record(f"n{number}", "A", "192.0.2.1") for number in range(5000)]
        killer = threading.Timer(0.25, server.process.send_signal, (signal.SIGKILL,))
        killer.start()
        with pytest.raises((Unavailable, PreconditionFailed)):
            fill_and_empty(zone, records)
        killer.join()
        driver.close()
    with powerdns_of_its_own() as server:
        driver = opened(server)
        zone = Dns(driver).zone("conf.test")
        found = [record for record in zone.records() if record.type == "A"]
        assert len(found) in {0, 5000}
        zone.change(zone.diff([*records, *_own(zone)]))
        assert {record.key for record in zone.records(type="A")} == {record.key for record in records}
        driver.close()


def fill_and_empty(zone: Zone, records: list[RecordSet]) -> None:
    """Write and delete for longer than any server lives here."""
    for _ in range(1000):
        zone.change(RecordChange(before=None, after=record) for record in records)
        zone.change(zone.diff([]))


def _own(zone: Zone) -> list[RecordSet]:
    return list(zone.records(name="@"))


@pytest.fixture
def powerdns_of_its_own(debian: Any, tmp_path: Path, servers: Any) -> Callable[[], Any]:
    """Make what runs a server of one's own, on the same files each time."""
    return lambda: servers.powerdns(debian, tmp_path)
