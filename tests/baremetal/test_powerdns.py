"""The driver for PowerDNS on a stand-in: faults, dialect, other writers. The server itself is in ``tests/servers``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest

import shiftable
from shiftable.config import Credential
from shiftable.dns import Dns, Policy, RecordChange, RecordSet, Zone, ZoneSpec
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
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.testing.conformance.dns import RECORDS, DnsConformance, Observed
from shiftable_baremetal import PowerdnsSettings
from shiftable_baremetal._failures import Broken, NeverSent
from shiftable_baremetal._powerdns_errors import ApiError, classify
from shiftable_baremetal._powerdns_session import zone_id
from shiftable_baremetal._powerdns_text import content_of, holds_name, record_set, rrset, unfit
from shiftable_baremetal.dns_powerdns import PowerdnsDriver, open_powerdns

from ..certificates import certificate, serving_tls
from . import powerdns_standin as standin


@pytest.fixture
def server() -> Iterator[Any]:
    with standin.StandIn() as made:
        yield made


def opened(server: Any, **more: Any) -> PowerdnsDriver:
    known = {"address": server.url, "api_key": Credential.literal(standin.KEY), **more}
    made = open_powerdns(PowerdnsSettings(**known), ("ns1.outside.test.",))
    made._session._sleep = lambda _seconds: None
    return made


@pytest.fixture
def driver(server: Any) -> Iterator[PowerdnsDriver]:
    made = opened(server)
    yield made
    made.close()


@pytest.fixture
def zone(driver: PowerdnsDriver) -> Zone:
    return Dns(driver).create(ZoneSpec(name="conf.test"))


def contents(server: Any, name: str, kind: str) -> list[str]:
    found = server.zones["conf.test."].get((f"{name}.conf.test.", kind), {"records": []})
    return [each["content"] for each in found["records"]]


class TestStandIn(DnsConformance):
    @pytest.fixture
    def driver(self, driver: PowerdnsDriver) -> PowerdnsDriver:
        return driver

    @pytest.fixture
    def oracle(self, server: Any) -> Callable[[str], Observed]:
        def look(zone: str) -> Observed:
            return {
                (name, kind): (
                    item["ttl"],
                    frozenset(
                        dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), each["content"])
                        for each in item["records"]
                    ),
                )
                for (name, kind), item in server.zones[f"{zone}."].items()
            }

        return look


# dialect


def ids(cases: Iterable[tuple[str, str, str | None]]) -> list[str]:
    return [f"{kind}-{content[:40]}" for kind, content, _ in cases]


@pytest.mark.parametrize(("kind", "content", "shown"), standin.CASES, ids=ids(standin.CASES))
def test_the_stand_in_is_as_strict_as_the_server(kind: str, content: str, shown: str | None) -> None:
    if shown is None:
        with pytest.raises(standin.Unfit):
            standin.printed(kind, content)
    else:
        assert standin.printed(kind, content) == (content if shown == "=" else shown)


@pytest.mark.parametrize(("name", "taken"), standin.NAMES.items())
def test_names_are_taken_or_refused_before_anything_is_sent(name: str, taken: bool) -> None:  # noqa: FBT001  a table
    assert standin.is_name(f"{name}.conf.test.") == taken
    assert holds_name(RecordSet.of(name, "A", ["192.0.2.1"], ttl=60, origin="conf.test.").name) == taken


ACCEPTED = [(kind, content, shown) for kind, content, shown in standin.CASES if shown is not None]


@pytest.mark.parametrize(("kind", "content", "shown"), ACCEPTED, ids=ids(ACCEPTED))
def test_what_the_server_shows_is_written_back_as_it_takes_it(kind: str, content: str, shown: str) -> None:
    item = {"name": "x.conf.test.", "type": kind, "ttl": 60}
    read = record_set({**item, "records": [{"content": content if shown == "=" else shown, "disabled": False}]}, "p")
    assert read.policy is None
    (written,) = rrset(read)["records"]
    assert standin.printed(rrset(read)["type"], written["content"]) == (content if shown == "=" else shown)


@pytest.mark.parametrize(
    ("kind", "text", "content"),
    [
        ("SVCB", '1 . alpn="h2,h3" port="53" dohpath="/q{?dns}"', '1 . alpn=h2,h3 port=53 key7="/q{?dns}"'),
        ("SVCB", '1 . mandatory="alpn,dohpath" alpn="h2" dohpath="/q{?dns}"', None),
        ("HTTPS", '1 . alpn="h2" no-default-alpn ech="AAT+DQAA"', '1 . alpn=h2 no-default-alpn ech="AAT+DQAA"'),
        ("HTTPS", '1 . alpn="h2" ohttp', '1 . alpn=h2 key8=""'),
        ("HTTPS", "0 pool.example.", "0 pool.example."),
        ("LOC", "52 22 23.000 N 4 53 32.000 E -2.00m", "52 22 23.000 N 4 53 32.000 E -2.00m 1.00m 10000.00m 10.00m"),
        ("CERT", "PKIX 1 RSASHA256 mQENBFVHm5sBCACmNf8=", "1 1 8 mQENBFVHm5sBCACmNf8="),
        ("AAAA", "::ffff:192.0.2.1", "0:0:0:0:0:ffff:c000:201"),
        ("OPENPGPKEY", "QUJD" * 30, "QUJD" * 30),
        ("DS", f"1 8 4 {'ab' * 48}", f"1 8 4 {'ab' * 48}"),
        ("TLSA", f"3 0 0 {'ab' * 200}", f"3 0 0 {'ab' * 200}"),
        ("PX", "10 a.example. b.example.", r"\# 24 000a0161076578616d706c65000162076578616d706c6500"),
    ],
)
def test_values_are_written_in_the_servers_own_text(kind: str, text: str, content: str | None) -> None:
    (rdata,) = RecordSet.of("x.", kind, [text], ttl=60).rdatas
    if content is None:
        content = '1 . mandatory=alpn,key7 alpn=h2 key7="/q{?dns}"'
    assert content_of(kind, rdata) == content


@pytest.mark.parametrize("record", RECORDS, ids=[f"{name[:20]}-{kind}" for name, kind, _ in RECORDS])
def test_every_value_comes_back_from_its_text(record: tuple[str, str, tuple[str, ...]]) -> None:
    made = RecordSet.of("x.", record[1], record[2], ttl=60)
    assert record_set(rrset(made), "p") == made


@pytest.mark.parametrize("kind", ["ALIAS", "LUA", "TYPE65401", "TYPE65402"])
def test_types_that_the_server_took_for_itself_are_refused(zone: Zone, kind: str) -> None:
    assert unfit(RecordSet(name="x.", type=kind, ttl=60, rdatas=(b"x",))) is not None


@pytest.mark.parametrize("text", ["10 under_score.example.", r"10 a\.b.example.", "10 -x.example."])
def test_a_target_that_is_no_host_is_refused_before_it_is_sent(zone: Zone, server: Any, text: str) -> None:
    server.bodies.clear()
    with pytest.raises(InvalidArgument, match=r"x\.conf\.test\. MX: the target of MX"):
        zone.set("x", "MX", text)
    assert [body for body in server.bodies if body] == []


@pytest.mark.parametrize(
    ("name", "id"), [("shop.example", "shop.example."), ("0/25.test", "0=2F25.test."), ("a_b.test", "a_b.test.")]
)
def test_a_zone_has_the_id_that_the_api_gives_it(name: str, id: str) -> None:
    assert zone_id(name) == id


# what is answered by rules


def put(server: Any, name: str, kind: str, *records: tuple[str, bool], comments: Iterable[Any] = ()) -> None:
    known = [{"content": content, "disabled": disabled} for content, disabled in records]
    item = {"name": f"{name}.conf.test.", "type": kind, "ttl": 60, "records": known, "comments": list(comments)}
    server.zones["conf.test."][f"{name}.conf.test.", kind] = item
    server.serials["conf.test."] += 1


@pytest.mark.parametrize(
    ("kind", "records"),
    [
        ("A", (("192.0.2.1", True),)),
        ("A", (("192.0.2.2", False), ("192.0.2.1", True))),
        ("ALIAS", (("target.example.", False),)),
        ("LUA", (("A \"ifportup(443, {'192.0.2.1'})\"", False),)),
    ],
)
def test_what_is_off_or_answered_by_rules_comes_with_a_policy_and_goes_back_as_it_was(
    zone: Zone, server: Any, kind: str, records: tuple[tuple[str, bool], ...]
) -> None:
    put(server, "x", kind, *records, comments=[{"account": "me", "content": "why", "modified_at": 7}])
    before = json.dumps(server.zones["conf.test."]["x.conf.test.", kind]["records"], sort_keys=True)
    (found,) = zone.records(name="x")
    assert found.policy is not None
    assert (found.type, found.rdatas, found.policy.provider) == (kind, (), "baremetal")
    zone.delete("x", kind)
    assert contents(server, "x", kind) == []
    zone.change([RecordChange(before=None, after=found)])
    after = server.zones["conf.test."]["x.conf.test.", kind]
    assert sorted(map(str, after["records"])) == sorted(map(str, json.loads(before)))
    assert after["comments"] == [{"account": "me", "content": "why", "modified_at": 7}]
    assert zone.get("x", kind) == found


@pytest.mark.parametrize("data", ["", "[]", "{}", '{"records": 1}', '{"records": [{"content": "x"}]}', '{"rules": []}'])
def test_a_policy_that_is_not_its_own_is_refused(zone: Zone, data: str) -> None:
    record = RecordSet(
        name="x.conf.test.", type="LUA", ttl=60, rdatas=(), policy=Policy(provider="baremetal", data=data)
    )
    with pytest.raises(InvalidArgument, match=r"x\.conf\.test\. LUA: its policy"):
        zone.change([RecordChange(before=None, after=record)])


@pytest.mark.parametrize(("kind", "content"), [("NEWTYPE", "whatever 1"), ("A", "not an address"), ("TYPE7", "odd")])
def test_what_nobody_understands_never_breaks_a_listing(zone: Zone, server: Any, kind: str, content: str) -> None:
    put(server, "x", kind, (content, False))
    (found,) = zone.records(name="x")
    assert found.policy is not None
    assert content in found.policy.data


def test_a_name_that_is_asked_for_alone_has_what_is_off_too(zone: Zone, server: Any) -> None:
    """The server leaves it out there, and shows it in the whole zone only."""
    put(server, "x", "A", ("192.0.2.1", True))
    put(server, "y", "A", ("192.0.2.1", True), ("192.0.2.2", False))
    for _ in range(2):
        assert [record.policy is not None for name in ("x", "y") for record in zone.records(name=name)] == [True, True]
    put(server, "x", "A", ("192.0.2.1", False))
    put(server, "y", "A", ("192.0.2.1", False))
    assert [record.policy is not None for name in ("x", "y") for record in zone.records(name=name)] == [False, False]


def test_a_number_that_the_server_has_a_name_for_comes_as_a_number(zone: Zone) -> None:
    zone.set("x", "TYPE65400", r"\# 4 0a000001")
    assert [record.type for record in zone.records(name="x")] == ["TYPE65400"]


def test_comments_stay_when_a_record_set_changes(zone: Zone, server: Any) -> None:
    put(server, "x", "A", ("192.0.2.1", False), comments=[{"content": "why"}])
    zone.set("x", "A", "192.0.2.2")
    assert server.zones["conf.test."]["x.conf.test.", "A"]["comments"] == [{"content": "why"}]


# requests


def bodies(server: Any) -> list[list[dict[str, Any]]]:
    return [json.loads(body)["rrsets"] for body in server.bodies if body.startswith(b'{"rrsets"')]


def test_what_goes_stands_before_what_comes(zone: Zone, server: Any) -> None:
    old = zone.set("z", "A", "192.0.2.1")
    zone.change(
        [
            RecordChange(before=None, after=zone.record("z", "CNAME", "target.example.")),
            RecordChange(before=old, after=None),
        ]
    )
    assert [item["changetype"] for item in bodies(server)[-1]] == ["DELETE", "REPLACE"]


def test_batches_fill_requests_and_never_more(server: Any) -> None:
    server.limit = 20_000
    driver = opened(server, max_body=20_000)
    zone = Dns(driver).create(ZoneSpec(name="conf.test"))
    server.bodies.clear()
    records = [zone.record(f"n{number}", kind, value) for number in range(300) for kind, value in PAIR]
    zone.change(RecordChange(before=None, after=record) for record in records)
    sent = [body for body in server.bodies if body]
    assert max(map(len, sent)) <= 20_000
    assert min(map(len, sent[:-1])) > 20_000 - 600
    assert len(server.zones["conf.test."]) == 602
    owners = [{item["name"] for item in items} for items in bodies(server)]
    assert not any(one & other for index, one in enumerate(owners) for other in owners[index + 1 :])
    driver.close()


def test_what_was_measured_is_what_is_sent_and_nothing_else(zone: Zone, driver: PowerdnsDriver, server: Any) -> None:
    def creating(*targets: str) -> tuple[RecordChange, ...]:
        records = [zone.record(f"n{number}", "CNAME", target) for number, target in enumerate(targets)]
        return tuple(RecordChange(before=None, after=record) for record in records)

    def sent() -> list[str]:
        return [item["records"][0]["content"] for item in bodies(server)[-1]]

    first, equal = creating("Here.example.", "There.example."), creating("here.example.", "there.example.")
    assert first == equal
    (batch,) = driver.batches(first)
    assert batch == first
    driver.change("conf.test", equal)  # equal, and not the same
    assert sent() == ["here.example.", "there.example."]
    (batch,) = driver.batches(creating("x.example.", "y.example.", "z.example.")[2:])
    driver.change("conf.test", batch)
    assert sent() == ["z.example."]
    driver.change("conf.test", tuple(RecordChange(before=change.after, after=None) for change in batch))
    assert [item["changetype"] for item in bodies(server)[-1]] == ["DELETE"]


PAIR = (("A", "192.0.2.1"), ("TXT", '"größer"'))


def test_a_record_set_larger_than_a_request_is_refused_before_it_is_sent(server: Any) -> None:
    driver = opened(server, max_body=2_000)
    zone = Dns(driver).create(ZoneSpec(name="conf.test"))
    with pytest.raises(InvalidArgument, match="webserver-max-bodysize"):
        zone.set("x", "TXT", [f'"{"x" * 200}" "{number}"' for number in range(10)])
    driver.close()


def test_a_body_that_the_server_does_not_take_says_which_setting(server: Any) -> None:
    server.limit = 500
    driver = opened(server)
    zone = Dns(driver).create(ZoneSpec(name="conf.test"))
    with pytest.raises(InvalidArgument, match="max_body"):
        zone.set("x", "TXT", [f'"{"x" * 200}" "{number}"' for number in range(10)])
    driver.close()


@pytest.mark.parametrize("kind", ["NS", "SOA"])
def test_the_driver_itself_keeps_the_ns_and_soa_of_a_zone(zone: Zone, driver: PowerdnsDriver, kind: str) -> None:
    with pytest.raises(OperationError, match="cannot be without"), zone._translated("change", zone.resource):
        driver.change("conf.test", (RecordChange(before=zone.get("@", kind), after=None),))


def test_an_soa_goes_forward_only(zone: Zone) -> None:
    zone.set("@", "SOA", "ns1.outside.test. other.example. 1 2 3 4 5", apex=True)
    first = int(zone.get("@", "SOA").texts[0].split()[2])
    zone.set("@", "SOA", "ns1.outside.test. third.example. 1 2 3 4 5", apex=True)
    assert int(zone.get("@", "SOA").texts[0].split()[2]) > first


def test_one_refused_change_refuses_all_and_is_named(zone: Zone, driver: PowerdnsDriver, server: Any) -> None:
    """Past the portable class, which knows that this does not work."""
    zone.set("alias", "CNAME", "target.example.")
    before = dict(server.zones["conf.test."])
    wanted = [zone.record(name, "A", "192.0.2.1") for name in ("a", "alias", "b")]
    with pytest.raises(Conflict, match=r"alias\.conf\.test\. IN A"), zone._translated("change", zone.resource):
        driver.change("conf.test", tuple(RecordChange(before=None, after=record) for record in wanted))
    assert server.zones["conf.test."] == before


# other writers


@pytest.mark.parametrize("count", [1, 20])
def test_what_another_changed_is_a_failed_precondition(
    zone: Zone, driver: PowerdnsDriver, server: Any, count: int
) -> None:
    zone.change(RecordChange(before=None, after=zone.record(f"n{number}", "A", "192.0.2.1")) for number in range(count))
    stale = list(zone.records(type="A"))
    other = opened(server)
    Dns(other).zone("conf.test").set("n0", "A", "192.0.2.99")
    other.close()
    changes = tuple(RecordChange(before=record, after=attrs.evolve(record, ttl=7)) for record in stale)
    with pytest.raises(PreconditionFailed, match=r"n0\.conf\.test\. A"), zone._translated("change", zone.resource):
        driver.change("conf.test", changes)
    assert contents(server, "n0", "A") == ["192.0.2.99"]


def test_a_large_batch_costs_no_second_listing_where_the_serial_stands(zone: Zone, server: Any) -> None:
    wanted = [RecordChange(before=None, after=zone.record(f"n{number}", "A", "192.0.2.1")) for number in range(50)]
    first = len(server.calls)
    zone.change(wanted)
    asked = [(call.method, call.query) for call in server.calls[first:]]
    assert asked == [("GET", ""), ("GET", "rrsets=false"), ("PATCH", ""), ("GET", "")]


# what breaks


def is_patch(call: Any) -> bool:
    return bool(call.method == "PATCH")


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
@pytest.mark.parametrize("count", [1, 20])
def test_a_change_whose_answer_is_lost_happens_once(zone: Zone, server: Any, kind: Any, count: int) -> None:
    server.inject(kind, match=is_patch)
    zone.change(RecordChange(before=None, after=zone.record(f"n{number}", "A", "192.0.2.1")) for number in range(count))
    assert len(list(zone.records(type="A"))) == count
    assert len([call for call in server.calls if is_patch(call)]) == (2 if kind == "drop_before" else 1)


def test_a_change_that_never_arrives_is_an_error(zone: Zone, server: Any) -> None:
    server.inject("drop_before", match=is_patch, times=None)
    with pytest.raises(Unavailable):
        zone.set("x", "A", "192.0.2.1")
    assert contents(server, "x", "A") == []


def test_a_change_that_was_lost_and_overtaken_does_not_overwrite(
    zone: Zone, server: Any, driver: PowerdnsDriver
) -> None:
    server.inject("drop_before", match=is_patch)
    server.before = lambda request: put(server, "x", "A", ("192.0.2.99", False)) if len(patches(server)) else None
    with pytest.raises(PreconditionFailed, match=r"x\.conf\.test\. A"), zone._translated("change", zone.resource):
        driver.change("conf.test", (RecordChange(before=None, after=zone.record("x", "A", "192.0.2.1")),))
    assert contents(server, "x", "A") == ["192.0.2.99"]


def patches(server: Any) -> list[Any]:
    return [call for call in server.calls if is_patch(call)]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
def test_a_listing_goes_on_after_a_broken_line(zone: Zone, server: Any, kind: Any) -> None:
    zone.set("x", "A", "192.0.2.1")
    server.inject(kind, match=lambda call: call.method == "GET", times=2)
    assert [record.name for record in zone.records(type="A")] == ["x.conf.test."]


@pytest.mark.parametrize(
    ("status", "error"), [(429, Throttled), (502, Unavailable), (503, Unavailable), (504, Unavailable)]
)
def test_a_listing_waits_for_a_server_that_is_busy(
    zone: Zone, server: Any, status: int, error: type[Exception]
) -> None:
    waited = list[float]()
    zone.unwrap(PowerdnsDriver)._session._sleep = waited.append
    server.inject("status", status=status, headers=[("Retry-After", "3")], times=2)
    assert len(list(zone.records())) == 2
    assert waited == [3.0, 3.0]
    server.inject("status", status=status, headers=[("Retry-After", "3")], times=None)
    with pytest.raises(error) as caught:
        list(zone.records())
    assert isinstance(caught.value, OperationError)
    assert caught.value.retry_after == 3.0


def test_a_change_that_the_database_had_no_time_for_is_sent_again(zone: Zone, server: Any) -> None:
    server.inject("status", status=500, match=is_patch, body=b"Internal Server Error")
    zone.set("x", "A", "192.0.2.1")
    assert len(patches(server)) == 2
    server.inject("status", status=500, match=is_patch, body=b"Internal Server Error", times=None)
    with pytest.raises(Unavailable):
        zone.set("x", "A", "192.0.2.2")
    assert contents(server, "x", "A") == ["192.0.2.1"]


def test_a_write_to_a_busy_server_is_not_repeated(zone: Zone, server: Any) -> None:
    server.inject("status", status=503, match=is_patch, headers=[("Retry-After", "3")])
    with pytest.raises(Unavailable):
        zone.set("x", "A", "192.0.2.1")
    assert len(patches(server)) == 1


def test_a_wrong_key_is_unauthenticated_and_not_shown(server: Any) -> None:
    driver = opened(server, api_key=Credential.literal("canary-of-a-key"))
    for call in (lambda: list(Dns(driver).list()), lambda: Dns(driver).zone("conf.test").set("x", "A", "192.0.2.1")):
        with pytest.raises(Unauthenticated) as caught:
            call()
        assert "canary" not in f"{caught.value}{caught.value!r}{caught.value.__cause__!r}{vars(caught.value)}"
    assert "canary" not in repr(driver)
    driver.close()


def test_a_key_does_not_hang_on_what_breaks(zone: Zone, server: Any) -> None:
    server.inject("drop_before", times=None)
    with pytest.raises(Unavailable) as caught:
        list(zone.records())
    chain, seen = caught.value, list[str]()
    while chain is not None:
        seen.append(f"{chain!r}{vars(chain)}")
        chain = chain.__cause__ or chain.__context__
    assert standin.KEY not in "".join(seen)


def test_a_zone_that_vanishes_is_missing(zone: Zone, server: Any) -> None:
    wanted = [RecordChange(before=None, after=zone.record("x", "A", "192.0.2.1"))]
    server.zones.clear()
    with pytest.raises(NotFound):
        zone.change(wanted)
    with pytest.raises(ParentNotFound):
        zone.get("x", "A")


def test_a_zone_that_filled_meanwhile_is_not_deleted(zone: Zone, driver: PowerdnsDriver, server: Any) -> None:
    put(server, "x", "A", ("192.0.2.1", False))
    with pytest.raises(Conflict):
        Dns(driver).delete("conf.test")
    assert "conf.test." in server.zones


def test_a_server_that_sends_us_elsewhere_does_not_get_the_key_there(zone: Zone, server: Any) -> None:
    server.inject("status", status=302, headers=[("Location", f"{server.url}/elsewhere")], times=None)
    with pytest.raises(Conflict, match="powerdns.address"):
        list(zone.records())
    assert not any("elsewhere" in call.path for call in server.calls)


def test_what_is_no_api_is_said(server: Any) -> None:
    driver = opened(server)
    server.inject("status", status=200, body=b"<html>", times=None)
    with pytest.raises(Unavailable, match="address of PowerDNS's API"):
        list(Dns(driver).list())
    driver.close()


# settings


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "ns1.example:8081",
            "ftp://ns1.example",
            "http://",
            "http://ns1.example:http",
            "http://ns1.example:99999",
        ),
        *(
            "http://me:secret@ns1.example",
            "http://ns1.example/?a=1",
            "http://ns1.example\r\nX: y",
            "http://nß1.example",
        ),
        *("http://[::1", "http://ns1.example:0"),
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="powerdns.address") as caught:
        open_powerdns(PowerdnsSettings(address=address, api_key=Credential.literal("x")))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "/", "/api/v1", "/api/v1/", "/a proxy/of ours/"])
def test_an_address_may_have_a_path(path: str) -> None:
    settings = PowerdnsSettings(address=f"http://[::1]:8081{path}", api_key=Credential.literal("x"), server_id="a b")
    told = "/a%20proxy/of%20ours" if "proxy" in path else ""
    assert f"<Session http://[::1]:8081{told}/api/v1/servers/a%20b>" == repr(open_powerdns(settings)._session)


@pytest.mark.parametrize("key", ["canary\n", "canary\r\nX-More: yes", "canary\0", "canarý"])
def test_a_key_that_no_header_holds_is_refused_and_not_shown(server: Any, key: str) -> None:
    driver = opened(server, api_key=Credential.literal(key))
    with pytest.raises(ConfigError, match="powerdns.api_key") as caught:
        list(Dns(driver).list())
    assert "canar" not in str(caught.value)
    assert not server.calls


def test_a_server_must_prove_who_it_is(server: Any, tmp_path: Path) -> None:
    trusted, key = certificate(tmp_path / "tls")
    other, _ = certificate(tmp_path / "other")
    server._server.socket = serving_tls(trusted, key).wrap_socket(server._server.socket, server_side=True)
    secure = server.url.replace("http:", "https:")
    for ca_bundle in (None, other):
        driver = opened(server, address=secure, ca_bundle=ca_bundle)
        with pytest.raises(Unavailable, match="no TLS with the server.*certificate verify failed"):
            list(Dns(driver).list())
    assert not server.calls
    zone = Dns(opened(server, address=secure, ca_bundle=trusted)).create(ZoneSpec(name="conf.test"))
    assert zone.set("x", "A", "192.0.2.1")


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_bundle_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="powerdns.ca_bundle"):
        open_powerdns(PowerdnsSettings(address="https://ns1.example", api_key=Credential.literal("x"), ca_bundle=path))


def test_the_provider_opens_the_driver_that_is_set(server: Any) -> None:
    powerdns = {"address": f"{server.url}/api/v1/", "api_key": Credential.literal(standin.KEY)}
    with shiftable.connect("baremetal", powerdns=powerdns, nameservers=("ns1.example.", "ns2.example.")) as cloud:
        zone = cloud.dns.create(ZoneSpec(name="shop.test"))
        assert zone.info().nameservers == ("ns1.example.", "ns2.example.")
        assert zone.info().id == "shop.test."
        assert zone.get("@", "SOA").texts[0].startswith("ns1.example. hostmaster.shop.test. ")


# the table


@pytest.mark.parametrize(
    ("exc", "error"),
    [
        (ApiError(400, "Bad Request"), InvalidArgument),
        (ApiError(401, "Unauthorized"), Unauthenticated),
        (ApiError(403, ""), PermissionDenied),
        (ApiError(404, "Not Found"), NotFound),
        (ApiError(405, ""), Unsupported),
        (ApiError(409, "Conflict"), AlreadyExists),
        (ApiError(413, ""), QuotaExceeded),
        (ApiError(415, "odd"), InvalidArgument),
        (ApiError(422, "Record x. IN A '…': Not in expected format"), InvalidArgument),
        (ApiError(422, "Could not find domain 'x.'"), NotFound),
        (ApiError(422, "Domain 'x.' already exists"), AlreadyExists),
        (ApiError(422, "RRset x. IN A: Conflicts with pre-existing RRset"), Conflict),
        (ApiError(429, ""), Throttled),
        (ApiError(500, "Could not commit"), Unavailable),
        (ApiError(502, ""), Unavailable),
        (ApiError(503, ""), Unavailable),
        (ApiError(504, ""), Unavailable),
        (ApiError(302, ""), Conflict),
        (ApiError(418, ""), OperationError),
        (Broken("the connection broke"), Unavailable),
        (Broken("too late", timeout=True), Timeout),
        (NeverSent("no connection"), Unavailable),
    ],
)
def test_every_answer_has_its_row(exc: Exception, error: type[OperationError]) -> None:
    fault = classify(exc)
    assert fault is not None
    assert fault.error is error
    assert fault.message
    assert classify(KeyError("a bug")) is None


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with standin.StandIn() as server:
        driver = opened(server)
    zone = Dns(driver).zone("conf.test")
    for call in (lambda: list(zone.records()), lambda: zone.set("x", "A", "192.0.2.1"), zone.info):
        with pytest.raises(Unavailable, match="cannot be reached"):
            call()
    driver.close()
