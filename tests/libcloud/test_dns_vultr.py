"""Vultr's DNS keeps the rules for zones and records, at a double that has its limits and oddities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from hypothesis.stateful import run_state_machine_as_test

from shiftable.dns import Dns, Zone, ZoneSpec
from shiftable.dns.driver import DnsDriver, ZoneInfo
from shiftable.errors import AlreadyExists, InvalidArgument, PermissionDenied
from shiftable.testing.conformance.dns import DnsMachine, Observed
from shiftable.testing.harness import Call, Kind
from shiftable_libcloud import LibcloudProvider
from shiftable_libcloud.dns import LibcloudDnsDriver
from shiftable_libcloud.double import VultrDouble

from .hostile import counted, inject, of, quickly, refusal
from .one_text import OneText, observed, quoted

NAME = "shop.example"
SOA = "ns1.vultr.com. dnsadm.choopa.com. 0 10800 3600 604800 3600"


@pytest.fixture
def shop(vultr_provider: LibcloudProvider) -> Iterator[Zone]:
    driver = vultr_provider.dns()
    yield Dns(driver).create(ZoneSpec(name=NAME))
    driver.close()


class TestVultrDns(OneText):
    hoster: ClassVar[str] = "vultr"

    @pytest.fixture
    def oracle(self, vultr: VultrDouble) -> Callable[[str], Observed]:
        """Read the double's own records, as ``vultr-cli`` would show them, and the SOA that is in no listing."""

        def look(zone: str) -> Observed:
            rows = vultr.domains.all[zone].records.values()
            return observed(zone, [("", "SOA", 300, SOA), *((r["name"], r["type"], r["ttl"], _text(r)) for r in rows)])

        return look


def _text(row: dict[str, Any]) -> str:
    kind, data = row["type"], str(row["data"])
    if kind == "TXT":
        return quoted(data[1:-1])
    if kind in {"MX", "SRV"}:
        data = f"{row['priority']} {data}"
    return f"{data}." if kind in {"CNAME", "MX", "NS", "SRV"} else data


def test_the_driver_does_what_the_model_does(vultr_provider: LibcloudProvider, vultr: VultrDouble) -> None:
    class Machine(DnsMachine):
        ttls: ClassVar = (120, 300, 3600, 86400)
        values: ClassVar = {**DnsMachine.values, "TXT": ('"a b"', '"ab"', '"AB"')}

        def make_driver(self) -> DnsDriver:
            vultr.reset()
            return vultr_provider.dns()

    run_state_machine_as_test(Machine, settings=quickly(15, 15))


# a new zone


def servers(double: VultrDouble) -> list[tuple[str, str]]:
    return [(row["name"], row["data"]) for row in double.domains.all[NAME].records.values() if row["type"] == "NS"]


@pytest.mark.usefixtures("shop")
def test_a_new_zone_is_given_its_name_servers(vultr: VultrDouble) -> None:
    assert [("", "ns1.vultr.com"), ("", "ns2.vultr.com")] == servers(vultr)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate"])
@pytest.mark.parametrize("operation", ["domains.create", "records.create", "records.list"])
def test_a_zone_whose_making_was_in_doubt_has_each_of_its_name_servers_once(
    vultr: VultrDouble, vultr_provider: LibcloudProvider, operation: str, kind: Kind
) -> None:
    vultr.inject(kind, match=of(operation), times=2)
    Dns(vultr_provider.dns()).create(ZoneSpec(name=NAME))
    assert [("", "ns1.vultr.com"), ("", "ns2.vultr.com")] == servers(vultr)


@pytest.mark.parametrize("at", [0, 1])
def test_a_zone_that_gets_no_name_servers_is_deleted_again(
    vultr: VultrDouble, vultr_provider: LibcloudProvider, at: int
) -> None:
    seen = list[Call]()

    def is_turn(call: Call) -> bool:
        if call.operation == "records.create":
            seen.append(call)
        return call.operation == "records.create" and len(seen) > at

    inject(vultr, "status", match=is_turn, times=None, **refusal(403, "forbidden", "no"))
    with pytest.raises(PermissionDenied):
        Dns(vultr_provider.dns()).create(ZoneSpec(name=NAME))
    assert {} == vultr.domains.all


def test_a_domain_of_that_name_is_named_whatever_vultr_says_of_it(vultr: VultrDouble, shop: Zone) -> None:
    inject(vultr, "status", match=of("domains.create"), **refusal(400, "", "no"))
    with pytest.raises(AlreadyExists, match=NAME):
        Dns(shop.unwrap(LibcloudDnsDriver)).create(ZoneSpec(name=NAME))


def test_a_name_that_vultr_does_not_take_is_no_taken_one(vultr: VultrDouble, vultr_provider: LibcloudProvider) -> None:
    inject(vultr, "status", match=of("domains.create"), **refusal(400, "", "Invalid domain name"))
    with pytest.raises(InvalidArgument, match="Invalid domain name"):
        Dns(vultr_provider.dns()).create(ZoneSpec(name=NAME))


# what Vultr holds


@pytest.mark.parametrize(
    ("name", "type", "value", "why"),
    [
        ("mail", "MX", "0 .", "as the host of a MX"),
        ("_sip._tcp", "SRV", "0 0 0 .", "as the host of a SRV"),
        ("alias", "CNAME", "localhost.", "as the host of a CNAME"),
        ("alias", "CNAME", "xn--bcher-kva.example.", "in other letters"),
        ("caa", "CAA", '0 policy "ca.example.net"', "knows the CAA tags"),
        ("caa", "CAA", '0 iodef ";"', "without blanks, semicolons"),
        ("caa", "CAA", '0 issue "ca.example.net; a=b"', "without blanks, semicolons"),
        ("txt", "TXT", r'"a\\b"', "printable ASCII"),
        ("txt", "TXT", r'"say \"hi\""', "printable ASCII"),
        ("txt", "TXT", " ".join([f'"{"x" * 255}"'] * 3 + ['"xx"']), "767 characters"),
        ("a-", "A", "192.0.2.1", "as a name"),
    ],
    ids=[
        "null-mx",
        "null-srv",
        "one-label",
        "idn",
        "caa-tag",
        "caa-iodef",
        "caa-more",
        "back",
        "quote",
        "long",
        "name",
    ],
)
def test_what_nobody_has_seen_vultr_keep_is_refused_before_it_is_sent(
    vultr: VultrDouble, shop: Zone, name: str, type: str, value: str, why: str
) -> None:
    before = len(vultr.calls)
    with pytest.raises(InvalidArgument, match=why):
        shop.set(name, type, value, ttl=300)
    assert not [call for call in vultr.calls[before:] if call.method != "GET"]


def test_a_ttl_below_what_is_known_is_refused_with_the_source(shop: Zone) -> None:
    with pytest.raises(InvalidArgument, match="the TTL is 119 s"):
        shop.set("www", "A", "192.0.2.1", ttl=119)
    assert 120 == shop.set("www", "A", "192.0.2.1", ttl=120).ttl


@pytest.mark.parametrize(
    ("name", "type", "value", "kept"),
    [
        ("_sip._tcp", "SRV", "5 2 3 sip.example.net.", ("_sip._tcp", 5, "2 3 sip.example.net")),
        ("@", "MX", "0 mx.example.net.", ("", 0, "mx.example.net")),
        ("*", "MX", "10 mx.example.net.", ("*", 10, "mx.example.net")),
        ("sub", "NS", "ns.example.net.", ("sub", -1, "ns.example.net")),
        ("sub", "CAA", '128 issue "ca.example.net"', ("sub", -1, '128 issue "ca.example.net"')),
        ("sub", "CAA", '0 issuewild ";"', ("sub", -1, '0 issuewild ";"')),
        ("sub", "TXT", '"v=spf1 -all"', ("sub", -1, '"v=spf1 -all"')),
        ("sub", "SSHFP", f"4 2 {'ab' * 32}", ("sub", -1, f"4 2 {'ab' * 32}")),
    ],
    ids=["srv", "mx-apex", "mx-wildcard", "ns", "caa", "caa-nobody", "txt", "sshfp"],
)
def test_a_record_is_told_in_vultrs_own_fields_and_comes_back(
    vultr: VultrDouble, shop: Zone, name: str, type: str, value: str, kept: tuple[Any, ...]
) -> None:
    shop.set(name, type, value, ttl=300)
    (row,) = [row for row in vultr.domains.all[NAME].records.values() if row["type"] == type and row["name"] == kept[0]]
    assert kept == (row["name"], row["priority"], row["data"])
    assert (value,) == shop.get(name, type).texts


def test_a_long_text_is_one_text(vultr: VultrDouble, shop: Zone) -> None:
    shop.set("txt", "TXT", " ".join([f'"{"x" * 255}"'] * 3 + ['"x"']), ttl=300)
    (row,) = [row for row in vultr.domains.all[NAME].records.values() if row["type"] == "TXT"]
    assert f'"{"x" * 766}"' == row["data"]


# what other tools write


@pytest.mark.parametrize(
    ("type", "data", "more", "text"),
    [
        ("CNAME", "Target.example.net", {}, "target.example.net."),
        ("CNAME", "target.example.net.", {}, "target.example.net."),
        ("CNAME", "bücher.example", {}, "xn--bcher-kva.example."),
        ("MX", "mail.example.net", {"priority": None}, "0 mail.example.net."),
        ("TXT", '"grüße"', {}, r'"gr\195\188\195\159e"'),
        ("TXT", "without quotes", {}, '"without quotes"'),
        ("TXT", '"', {}, r'"\""'),
        ("CAA", '0 issue "ca.example.net; a=b"', {}, '0 issue "ca.example.net; a=b"'),
        ("AAAA", "2001:0db8:0:0::2", {}, "2001:db8::2"),
    ],
    ids=["case", "dot", "idn", "mx", "utf8", "bare", "quote", "caa-more", "ipv6"],
)
def test_what_other_tools_wrote_is_read_as_dns_serves_it(
    vultr: VultrDouble, shop: Zone, type: str, data: str, more: dict[str, Any], text: str
) -> None:
    vultr.domains.add(NAME, "x", type, data, ttl=300, **more)
    assert shop.record("x", type, text, ttl=300) == shop.get("x", type)


@pytest.mark.parametrize("email", ["a b@example.net", "nobody", "a@b..c"])
def test_an_address_that_is_none_hides_no_record(vultr: VultrDouble, shop: Zone, email: str) -> None:
    vultr.domains.all[NAME].soa["email"] = email
    found = {record.type: record for record in shop.records()}
    assert ("ns1.vultr.com.", "ns2.vultr.com.") == found["NS"].texts
    assert found["SOA"].policy is not None


def test_the_soa_is_made_of_what_vultr_tells(vultr: VultrDouble, shop: Zone) -> None:
    vultr.domains.all[NAME].soa |= {"nsprimary": "ns.example.net", "email": "dns.admin@example.net"}
    text = r"ns.example.net. dns\.admin.example.net. 0 10800 3600 604800 3600"
    assert (text,) == shop.get("@", "SOA").texts


def test_the_ns_of_a_zone_are_those_that_are_listed(vultr: VultrDouble, shop: Zone) -> None:
    assert ZoneInfo(name=NAME, nameservers=("ns1.vultr.com.", "ns2.vultr.com."), id=NAME) == shop.info()
    shop.set("@", "NS", ["ns1.vultr.com.", "ns.example.net."], ttl=300, apex=True)
    assert ("ns.example.net.", "ns1.vultr.com.") == shop.info().nameservers
    assert [("", "ns1.vultr.com"), ("", "ns.example.net")] == servers(vultr)


# calls


def test_a_name_below_the_zone_is_read_without_the_soa(vultr: VultrDouble, shop: Zone) -> None:
    before = counted(vultr)
    list(shop.records(name="www"))
    assert {"domains.get": 1, "records.list": 1} == counted(vultr) - before


def test_a_replaced_record_keeps_its_id_and_is_told_no_type(vultr: VultrDouble, shop: Zone) -> None:
    shop.set("@", "MX", "10 mx.example.net.", ttl=300)
    before = set(vultr.domains.all[NAME].records)
    inject(vultr, "drop_after", match=of("records.update"))
    shop.set("@", "MX", "20 mx.example.org.", ttl=300)
    assert before == set(vultr.domains.all[NAME].records)
    assert ("20 mx.example.org.",) == shop.get("@", "MX").texts
