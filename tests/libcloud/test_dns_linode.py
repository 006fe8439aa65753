"""Linode's DNS keeps the rules for zones and records, at a double that has its limits and oddities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from hypothesis.stateful import run_state_machine_as_test

from shiftable.dns import Dns, Zone, ZoneSpec
from shiftable.dns.driver import DnsDriver, ZoneInfo
from shiftable.errors import AlreadyExists, InvalidArgument, Unsupported
from shiftable.testing.conformance.dns import DnsMachine, Observed
from shiftable.testing.harness import Call, Kind
from shiftable_libcloud import LibcloudProvider
from shiftable_libcloud._dns_linode import SERVERS, TTLS
from shiftable_libcloud.dns import LibcloudDnsDriver
from shiftable_libcloud.double import LinodeDouble

from .hostile import counted, of, quickly
from .one_text import OneText, hosted, observed, quoted

NAME = "shop.example"


@pytest.fixture
def shop(linode_provider: LibcloudProvider) -> Iterator[Zone]:
    driver = linode_provider.dns()
    yield Dns(driver).create(ZoneSpec(name=NAME))
    driver.close()


class TestLinodeDns(OneText):
    hoster: ClassVar[str] = "linode"
    ttl: ClassVar[int] = 3600
    other_ttl: ClassVar[int] = 7200

    @pytest.fixture
    def oracle(self, linode: LinodeDouble) -> Callable[[str], Observed]:
        """Read the double's own records, as ``linode-cli`` would show them, and those that are in no listing."""

        def look(zone: str) -> Observed:
            soa = ("", "SOA", 86400, f"ns1.linode.com. hostmaster.{zone}. 0 14400 14400 1209600 86400")
            ours = [("", "NS", 86400, f"{server}.") for server in SERVERS]
            rows = linode.domains.all[zone].records.values()
            return observed(zone, [soa, *ours, *((r["name"], r["type"], r["ttl_sec"], _text(r)) for r in rows)])

        return look


def _text(row: dict[str, Any]) -> str:
    kind, target = row["type"], str(row["target"])
    if kind == "TXT":
        return quoted(target)
    if kind == "CAA":
        return f'0 {row["tag"]} "{target}"'
    return hosted(row, kind, f"{target}.") if kind in {"CNAME", "MX", "NS", "SRV"} else target


def test_the_driver_does_what_the_model_does(linode_provider: LibcloudProvider, linode: LinodeDouble) -> None:
    class Machine(DnsMachine):
        ttls: ClassVar = (300, 3600, 86400, 2419200)
        values: ClassVar = {**DnsMachine.values, "TXT": ('"a b"', '"ab"', '"AB"')}

        def make_driver(self) -> DnsDriver:
            linode.reset()
            return linode_provider.dns()

        def _forbidden(self, name: str, type: str, chosen: set[int]) -> bool:
            """Say so of mail for a name with an underscore too, which Linode does not take."""
            return (type, name) == ("MX", "_x._tcp") or super()._forbidden(name, type, chosen)

    run_state_machine_as_test(Machine, settings=quickly(15, 15))


# what Linode holds


@pytest.mark.parametrize("ttl", [301, 3599, 86401])
def test_a_ttl_that_linode_would_round_is_refused_with_the_source(linode: LinodeDouble, shop: Zone, ttl: int) -> None:
    with pytest.raises(InvalidArgument, match="Linode rounds what is none of 300, 3600.*ttl_sec"):
        shop.set("www", "A", "192.0.2.1", ttl=ttl)
    assert {} == linode.domains.all[NAME].records


@pytest.mark.parametrize("ttl", TTLS)
def test_every_ttl_that_is_held_comes_back(linode: LinodeDouble, shop: Zone, ttl: int) -> None:
    assert ttl == shop.set("www", "A", "192.0.2.1", ttl=ttl).ttl
    assert [ttl] == [row["ttl_sec"] for row in linode.domains.all[NAME].records.values()]


@pytest.mark.parametrize(
    ("name", "type", "value", "why"),
    [
        ("n" * 60 + "." + "n" * 40, "A", "192.0.2.1", "101 characters"),
        ("a-", "A", "192.0.2.1", "as the name"),
        ("*", "NS", "ns.example.net.", "wildcard"),
        ("1mail", "MX", "10 mx.example.net.", "as the name of a MX"),
        ("mail", "MX", "10 1mx.example.net.", "as the host of a MX"),
        ("mail", "MX", "256 mx.example.net.", "255 at most"),
        ("mail", "MX", "0 .", "without a host"),
        ("@", "SRV", "1 2 3 sip.example.net.", "_service._tcp"),
        ("_sip._tls", "SRV", "1 2 3 sip.example.net.", "_service._tcp"),
        ("_sip._tcp", "SRV", "256 2 3 sip.example.net.", "255 at most"),
        ("_sip._tcp", "SRV", "1 2 3 sip.", "as the host of a SRV"),
        ("alias", "CNAME", "localhost.", "as the host of a CNAME"),
        ("caa", "CAA", '128 issue "ca.example.net"', "drops the flags"),
        ("caa", "CAA", '0 issue "mailto:a@example.net"', "takes a domain"),
        ("caa", "CAA", '0 policy "ca.example.net"', "knows the CAA tags"),
        ("txt", "TXT", r'"a\\b"', "printable ASCII"),
    ],
)
def test_what_linode_would_refuse_or_alter_is_refused_before_it_is_sent(
    linode: LinodeDouble, shop: Zone, name: str, type: str, value: str, why: str
) -> None:
    before = len(linode.calls)
    with pytest.raises(InvalidArgument, match=why):
        shop.set(name, type, value, ttl=300)
    assert not [call for call in linode.calls[before:] if call.method != "GET"]
    assert {} == linode.domains.all[NAME].records


@pytest.mark.parametrize(
    ("name", "type", "value", "kept"),
    [
        ("_sip._tcp", "SRV", "0 2 3 sip.example.net.", ("_sip._tcp", "_sip", "_tcp", "sip.example.net")),
        (
            "_sip._udp.deep.er",
            "SRV",
            "1 2 3 sip.example.net.",
            ("_sip._udp.deep.er", "_sip", "_udp.deep.er", "sip.example.net"),
        ),
        ("@", "MX", "10 mx.example.net.", ("", None, None, "mx.example.net")),
        ("*", "MX", "10 mx.example.net.", ("*", None, None, "mx.example.net")),
        ("sub", "CAA", '0 iodef "mailto:a@example.net"', ("sub", None, None, "mailto:a@example.net")),
        ("sub", "NS", "ns.example.net.", ("sub", None, None, "ns.example.net")),
    ],
    ids=["srv", "srv-below", "apex", "wildcard", "caa", "ns"],
)
def test_a_record_is_told_in_linodes_own_fields_and_comes_back(
    linode: LinodeDouble, shop: Zone, name: str, type: str, value: str, kept: tuple[str | None, ...]
) -> None:
    shop.set(name, type, value, ttl=300)
    (row,) = linode.domains.all[NAME].records.values()
    assert kept == (row["name"], row["service"], row["protocol"], row["target"])
    assert (value,) == shop.get(name, type).texts


def test_a_text_of_linodes_length_is_one_text(linode: LinodeDouble, shop: Zone) -> None:
    shop.set("txt", "TXT", " ".join(f'"{letter * 255}"' for letter in "abcdefgh") + ' "i"', ttl=300)
    (row,) = linode.domains.all[NAME].records.values()
    assert "".join(letter * 255 for letter in "abcdefgh") + "i" == row["target"]


# what other tools write


@pytest.mark.parametrize(
    ("type", "data", "more", "text"),
    [
        ("CNAME", "Target.example.net", {}, "target.example.net."),
        ("CNAME", "target.example.net.", {}, "target.example.net."),
        ("MX", "mail.example.net", {"priority": None}, "0 mail.example.net."),
        ("MX", "", {"priority": 0}, "0 ."),
        ("CAA", "letsencrypt.org", {"tag": "issuewild"}, '0 issuewild "letsencrypt.org"'),
        ("CAA", "ca.example.net; a=b", {"tag": "issue"}, '0 issue "ca.example.net; a=b"'),
        ("TXT", 'say "hi"; x', {}, r'"say \"hi\"; x"'),
        ("PTR", "host.example.net", {}, "host.example.net."),
        ("AAAA", "2001:0db8:0:0::2", {}, "2001:db8::2"),
    ],
    ids=["case", "dot", "mx", "null-mx", "caa", "caa-more", "quotes", "ptr", "ipv6"],
)
def test_what_other_tools_wrote_is_read_as_dns_serves_it(
    linode: LinodeDouble, shop: Zone, type: str, data: str, more: dict[str, Any], text: str
) -> None:
    linode.domains.add(NAME, "x", type, data, ttl=300, **more)
    assert shop.record("x", type, text, ttl=300) == shop.get("x", type)


def test_a_srv_is_named_by_its_service_where_it_has_no_name(linode: LinodeDouble, shop: Zone) -> None:
    more = {"service": "_sip", "protocol": "tcp", "priority": 1, "weight": 2, "port": 3}
    linode.domains.add(NAME, "", "SRV", "sip.example.net", ttl=300, **more)
    assert ("1 2 3 sip.example.net.",) == shop.get("_sip._tcp", "SRV").texts


def test_a_record_without_a_ttl_has_the_zones_and_is_left_alone_where_that_is_wanted(
    linode: LinodeDouble, shop: Zone
) -> None:
    linode.domains.add(NAME, "www", "A", "192.0.2.1")
    assert 86400 == shop.get("www", "A").ttl
    linode.domains.all[NAME].told["ttl_sec"] = 3600
    assert 3600 == shop.get("www", "A").ttl
    before = counted(linode)
    shop.set("www", "A", ["192.0.2.1", "192.0.2.2"])
    assert {"records.create": 1} == {
        name: count
        for name, count in (counted(linode) - before).items()
        if name.startswith("records.") and name != "records.list"
    }


def test_the_ns_of_a_zone_are_linodes_and_those_that_were_added(linode: LinodeDouble, shop: Zone) -> None:
    ours = tuple(f"ns{number}.linode.com." for number in range(1, 6))
    assert ZoneInfo(name=NAME, nameservers=ours, id=NAME) == shop.info()
    linode.domains.add(NAME, "", "NS", "ns.example.net", ttl=300)
    assert ("ns.example.net.", *ours) == shop.info().nameservers
    with pytest.raises(InvalidArgument, match="for nobody"):
        shop.set("@", "NS", ["ns.example.net."], ttl=300, apex=True)


def test_the_soa_is_made_of_the_zones_settings(linode: LinodeDouble, shop: Zone) -> None:
    linode.domains.all[NAME].told |= {"soa_email": "dns.admin@example.net", "refresh_sec": 3600, "ttl_sec": 300}
    text = r"ns1.linode.com. dns\.admin.example.net. 0 3600 14400 1209600 300"
    assert (text,) == shop.get("@", "SOA").texts


@pytest.mark.parametrize("address", ["a b@example.net", "a@b..c", "nobody"])
def test_an_address_that_is_none_hides_no_record(linode: LinodeDouble, shop: Zone, address: str) -> None:
    shop.set("www", "A", "192.0.2.1", ttl=300)
    linode.domains.all[NAME].told["soa_email"] = address
    found = {record.type: record for record in shop.records()}
    assert ("192.0.2.1",) == found["A"].texts
    assert found["SOA"].policy is not None


def test_a_copy_of_another_servers_zone_is_refused(linode: LinodeDouble, shop: Zone) -> None:
    linode.domains.all[NAME].told["type"] = "slave"
    with pytest.raises(Unsupported, match="copy of another name server"):
        shop.set("www", "A", "192.0.2.1", ttl=300)


# what gets lost


@pytest.mark.parametrize("kind", [None, "drop_after", "truncate"])
def test_a_ttl_that_a_creation_lost_is_said_again(linode: LinodeDouble, shop: Zone, kind: Kind | None) -> None:
    linode.domains.forgets_ttl = True
    if kind is not None:
        linode.inject(kind, match=of("records.create"))
    assert 300 == shop.set("www", "A", "192.0.2.1", ttl=300).ttl
    assert [("www", 300)] == [(row["name"], row["ttl_sec"]) for row in linode.domains.all[NAME].records.values()]
    assert (1, 1) == (counted(linode)["records.create"], counted(linode)["records.update"])


def test_a_creation_whose_ttl_cannot_be_said_is_taken_back(linode: LinodeDouble, shop: Zone) -> None:
    linode.domains.forgets_ttl = True
    linode.inject(
        "status", match=of("records.update"), status=400, body=b'{"errors": [{"reason": "no", "field": "ttl_sec"}]}'
    )
    with pytest.raises(InvalidArgument, match="ttl_sec: no"):
        shop.set("www", "A", "192.0.2.1", ttl=300)
    assert {} == linode.domains.all[NAME].records


def test_a_page_that_is_gone_is_no_missing_zone(linode: LinodeDouble, shop: Zone) -> None:
    for number in range(4):
        linode.domains.add(NAME, f"r{number}", "A", "192.0.2.1", ttl=300)
    linode.page_size = 2

    def shrinks(call: Call) -> bool:
        if "page=2&" not in f"{call.query}&":
            return False
        records = linode.domains.all[NAME].records
        for number in [number for number, row in records.items() if row["name"] != "r0"]:
            del records[number]
        return True

    met = linode.inject("latency", match=shrinks)
    assert [f"r0.{NAME}."] == [record.name for record in shop.records(type="A")]
    assert 1 == met.hits


def test_a_domain_of_that_name_is_named_whatever_linode_says_of_it(linode: LinodeDouble, shop: Zone) -> None:
    linode.inject("status", match=of("domains.create"), status=400, body=b'{"errors": [{"reason": "unique"}]}')
    with pytest.raises(AlreadyExists, match=NAME):
        Dns(shop.unwrap(LibcloudDnsDriver)).create(ZoneSpec(name=NAME))


def test_a_domain_of_somebody_else_exists_already(linode: LinodeDouble, shop: Zone) -> None:
    reason = b'{"errors": [{"reason": "DNS zone already exists.", "field": "domain"}]}'
    linode.inject("status", match=of("domains.create"), status=400, body=reason)
    with pytest.raises(AlreadyExists, match="domain: DNS zone already exists"):
        Dns(shop.unwrap(LibcloudDnsDriver)).create(ZoneSpec(name="other.example"))
