"""The rules for DNS drivers.

Subclass ``DnsConformance`` and override its fixtures ``driver`` and, where the provider can be asked past the driver,
``oracle``. ``dns_machine`` makes a state machine. What is right is dnspython's word, not ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import attrs
import dns.message
import dns.query
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.zone
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shiftable.dns import Dns, Policy, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.dns.driver import SERVER_TYPES, DnsDriver
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    ParentNotFound,
    PreconditionFailed,
    Unsupported,
)
from shiftable.testing.conformance import Conformance

__all__ = ["RECORDS", "DnsConformance", "DnsMachine", "Observed", "dns_machine", "observed"]

Observed = Mapping[tuple[str, str], tuple[int, frozenset[Any]]]
"""What a zone really holds: TTL and values, as dnspython compares them, by owner in lower case and type."""

_ECH = "AD/+DQA7KgAgACAAAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8ABAABAAEAC2V4YW1wbGUubmV0AAA="

RECORDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("multi", "A", ("192.0.2.1", "192.0.2.2", "192.0.2.3")),
    ("six", "AAAA", ("2001:db8::1", "2001:DB8:0:0::2")),
    ("mapped", "AAAA", ("::ffff:c000:201",)),
    ("alias", "CNAME", ("target.example.net.",)),
    ("case", "CNAME", ("Target.Example.NET.",)),
    ("*", "A", ("192.0.2.4",)),
    ("_dmarc", "TXT", ('"v=DMARC1; p=none"',)),
    ("txt-empty", "TXT", ('""',)),
    ("txt-two-chunks", "TXT", ('"foo" "bar"',)),
    ("txt-255", "TXT", (f'"{"x" * 255}"',)),
    ("txt-256", "TXT", (f'"{"x" * 255}" "x"',)),
    ("txt-odd-chunks", "TXT", (f'"a" "{"b" * 200}" "" "c"',)),
    ("txt-4000", "TXT", (" ".join([f'"{"y" * 250}"'] * 16),)),
    ("txt-quote", "TXT", (r'"say \"hello\""',)),
    ("txt-backslash", "TXT", (r'"a\\b"',)),
    ("txt-semicolon", "TXT", ('"k=rsa; p=MIGf"',)),
    ("txt-utf8", "TXT", ('"grüße"',)),
    ("txt-control", "TXT", (r'"\000\001\031"',)),
    ("txt-binary", "TXT", (r'"\254\255"',)),
    ("txt-case", "TXT", ('"abc"', '"ABC"')),
    ("spf", "SPF", ('"v=spf1 -all"',)),
    ("mail", "MX", ("10 mx1.example.net.", "20 mx2.example.net.")),
    ("nullmx", "MX", ("0 .",)),
    ("_sip._tcp", "SRV", ("10 60 5060 sip.example.net.",)),
    ("_none._tcp", "SRV", ("0 0 0 .",)),
    ("caa", "CAA", ('0 issue "ca.example.net"', '0 iodef "mailto:a@example.net"', '128 issue ";"')),
    ("ssh", "SSHFP", ("1 1 123456789abcdef67890123456789abcdef67890",)),
    ("_443._tcp", "TLSA", (f"3 1 1 {'ab' * 32}",)),
    ("svc", "SVCB", ("1 svc.example.net. alpn=h2,h3 port=8443",)),
    ("web", "HTTPS", ("1 . alpn=h2 ipv4hint=192.0.2.1",)),
    ("webalias", "HTTPS", ("0 pool.example.net.",)),
    ("webkey", "HTTPS", ('1 . key65333="ex1"',)),
    (
        "webech",
        "HTTPS",
        (f"1 . alpn=h2 ech={_ECH}",),
    ),
    ("naptr", "NAPTR", (r'100 50 "u" "E2U+sip" "!^.*$!sip:\\1@example.net!" .',)),
    ("child", "NS", ("ns1.example.net.", "ns2.example.net.")),
    ("signed", "DS", (f"60485 5 2 {'d4' * 32}",)),
    ("child", "DS", (f"60485 13 2 {'e5' * 32}",)),
    ("loc", "LOC", ("52 22 23.000 N 4 53 32.000 E -2.00m 1.00m 10000.00m 10.00m",)),
    ("loc-defaults", "LOC", ("52 22 23.000 N 4 53 32.000 E -2.00m",)),
    ("ptr", "PTR", ("host.example.net.",)),
    ("_ftp._tcp", "URI", ('10 1 "ftp://ftp.example.net/public"',)),
    ("dname", "DNAME", ("other.example.net.",)),
    ("pgp._openpgpkey", "OPENPGPKEY", ("mQENBFVHm5sBCACmNf8=",)),
    ("smime._smimecert", "SMIMEA", (f"3 0 1 {'cd' * 32}",)),
    ("cert", "CERT", ("1 0 0 mQENBFVHm5sBCACmNf8=",)),
    ("hinfo", "HINFO", ('"PC" "Linux"',)),
    ("rp", "RP", ("admin.example.net. txt.example.net.",)),
    ("unknown", "TYPE65400", (r"\# 4 0a000001",)),
    ("7", "A", ("192.0.2.7",)),
    ("-x-", "A", ("192.0.2.8",)),
    ("x.*.w", "A", ("192.0.2.9",)),
    ("deep.empty.non-terminal", "A", ("192.0.2.10",)),
    ("glue.child", "A", ("192.0.2.11",)),
    ("*.child", "A", ("192.0.2.12",)),
    ("xn--bcher-kva", "A", ("192.0.2.13",)),
    (r"\200\201", "A", ("192.0.2.14",)),
    (r"with\.dot", "A", ("192.0.2.15",)),
    (r"with\032space", "A", ("192.0.2.16",)),
    ("0/25", "NS", ("ns.example.net.",)),
    (r"\@", "A", ("192.0.2.17",)),
    ("l" * 63, "A", ("192.0.2.18",)),
    (".".join(["n" * 61] * 3 + ["m" * 50]), "A", ("192.0.2.19",)),
    ("@", "A", ("192.0.2.20",)),
    ("@", "MX", ("10 mx.example.net.",)),
    ("@", "CAA", ('0 issue "ca.example.net"',)),
    ("values-100", "A", tuple(f"198.51.100.{number}" for number in range(100))),
    ("values-500", "A", tuple(f"10.0.{number // 250}.{number % 250}" for number in range(500))),
)
"""What a zone may have to hold, half of it known to be lost or altered by some provider or tool."""


def observed(records: Iterator[RecordSet] | list[RecordSet]) -> Observed:
    """Say what record sets hold in dnspython's terms, independently of how ours are compared."""
    return {
        (record.name.lower(), record.type): (
            record.ttl,
            frozenset(
                dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.from_text(record.type), wire, 0, len(wire))
                for wire in record.rdatas
            ),
        )
        for record in records
    }


def _expected(type: str, values: tuple[str, ...]) -> frozenset[Any]:
    number = dns.rdatatype.from_text(type)
    return frozenset(dns.rdata.from_text(dns.rdataclass.IN, number, value) for value in values)


def _address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


class DnsConformance(Conformance):
    """Override ``driver``, and ``oracle`` where the provider can be asked past the driver.

    Attributes:
        ttl: one that the provider holds; ``other_ttl`` is another. Override them where it holds only a few.
    """

    zone_name: ClassVar[str] = "conf.test"
    ttl: ClassVar[int] = 600
    other_ttl: ClassVar[int] = 1234
    many_zones: ClassVar[int] = 150
    many_records: ClassVar[int] = 1000

    @pytest.fixture
    def driver(self) -> DnsDriver:
        """Make the driver under test."""
        raise TypeError("override the fixture `driver`")

    @pytest.fixture
    def oracle(self, driver: DnsDriver) -> Callable[[str], Observed]:
        """Return what tells what a zone really holds; at least past the portable class."""

        def look(zone: str) -> Observed:
            found, cursor = list[RecordSet](), None
            while True:
                page = driver.records(zone, name=None, cursor=cursor, limit=None)
                found += page.items
                if page.next is None:
                    return observed(found)
                cursor = page.next

        return look

    @pytest.fixture
    def zone(self, driver: DnsDriver) -> Iterator[Zone]:
        """Make an empty zone, and delete it with all that is in it."""
        service = Dns(driver)
        zone = service.create(ZoneSpec(name=self.zone_name))
        yield zone
        zone.change(zone.diff([]))
        service.delete(self.zone_name)

    # record sets: kept, or refused by name

    @pytest.mark.parametrize(
        ("name", "type", "values"), RECORDS, ids=[f"{name[:20]}-{kind}" for name, kind, _ in RECORDS]
    )
    def test_a_record_set_is_kept_exactly_or_refused(
        self, zone: Zone, oracle: Callable[[str], Observed], name: str, type: str, values: tuple[str, ...]
    ) -> None:
        before = oracle(zone.name)
        record = zone.record(name, type, values, ttl=self.ttl)
        if zone.check_record(record) is not None:
            with pytest.raises(InvalidArgument, match=type):
                zone.set(name, type, values, ttl=self.ttl)
            assert oracle(zone.name) == before
            return
        zone.set(name, type, values, ttl=self.ttl)
        owner = zone.origin if name == "@" else f"{name}.{zone.origin}"
        assert oracle(zone.name)[owner, type] == (self.ttl, _expected(type, values))
        assert zone.get(name, type) == record

    def test_plain_types_are_held_by_every_provider(self, zone: Zone) -> None:
        plain = {"A", "AAAA", "CNAME", "MX", "NS", "SRV", "TXT"}
        held = zone.features.types
        assert held is None or plain - held == set()

    def test_a_type_that_is_not_held_is_refused(self, zone: Zone) -> None:
        held = zone.features.types
        unheld = [record for record in RECORDS if held is not None and record[1] not in held]
        for name, kind, values in unheld:
            with pytest.raises(InvalidArgument, match=kind):
                zone.set(name, kind, values)
        assert {record.type for record in zone.records()} == {"NS", "SOA"}

    def test_the_ttl_limits_are_true(self, zone: Zone, oracle: Callable[[str], Observed]) -> None:
        has = zone.features
        for name, ttl in (("least", has.min_ttl.value), ("most", has.max_ttl.value)):
            zone.set(name, "A", "192.0.2.1", ttl=ttl)
            assert oracle(zone.name)[f"{name}.{zone.origin}", "A"][0] == ttl
        for ttl in (has.min_ttl.value - 1, has.max_ttl.value + 1):
            with pytest.raises(InvalidArgument, match="TTL"):
                zone.set("beyond", "A", "192.0.2.1", ttl=ttl)

    def test_names_are_the_same_in_upper_and_lower_case(self, zone: Zone) -> None:
        zone.set("WwW", "A", "192.0.2.1")
        zone.set("www", "A", "192.0.2.2")
        assert zone.get("WWW", "A").texts == ("192.0.2.2",)
        assert len(list(zone.records(type="A"))) == 1

    def test_a_zone_is_named_with_or_without_a_dot_in_any_case(self, zone: Zone, driver: DnsDriver) -> None:
        assert Dns(driver).get(f"{self.zone_name.upper()}.").name == zone.name

    def test_names_in_values_are_the_same_in_upper_and_lower_case(self, zone: Zone) -> None:
        zone.set("mail", "MX", "10 MX.Example.net.")
        assert zone.diff([*_own(zone), zone.record("mail", "MX", "10 mx.example.NET.")]) == ()

    def test_the_chunks_of_a_txt_are_kept(self, zone: Zone) -> None:
        zone.set("txt", "TXT", '"foo" "bar"')
        assert zone.get("txt", "TXT").texts == ('"foo" "bar"',)
        assert zone.get("txt", "TXT") != zone.record("txt", "TXT", '"foobar"')

    def test_a_foreign_policy_is_refused(self, zone: Zone) -> None:
        record = attrs.evolve(zone.record("routed", "A", "192.0.2.1"), policy=Policy(provider="nobody", data="{}"))
        with pytest.raises(InvalidArgument, match="nobody"):
            zone.change([RecordChange(before=None, after=record)])
        assert not zone.exists("routed", "A")

    # what DNS forbids

    @pytest.mark.parametrize(
        ("name", "type", "values", "why"),
        [
            ("elsewhere.example.org.", "A", ["192.0.2.1"], "not in the zone"),
            (r"evil\.conf.test.", "A", ["192.0.2.1"], "not in the zone"),
            ("twice", "A", ["192.0.2.1", "192.0.2.1"], "twice"),
            ("twice", "MX", ["10 a.example.", "10 A.EXAMPLE."], "twice"),
            ("two", "CNAME", ["a.example.", "b.example."], "only one"),
            ("none", "A", [], "no value"),
            ("@", "CNAME", ["a.example."], "CNAME cannot stand beside"),
            ("@", "NS", ["ns.example.net."], "apex=True"),
            ("low", "SOA", ["a.example. b.example. 1 2 3 4 5"], "SOA"),
            ("sig", "NSEC", ["a.example. A"], "not for people"),
            ("bad", "A", ["192.0.2.256"], "192.0.2.256"),
            ("bad", "A", ["192.0.2.01"], r"192.0.2.01"),
            ("bad", "MX", ["mail.example."], "MX"),
            ("bad", "TXT", [f'"{"x" * 256}"'], "TXT"),
            ("bad", "NOSUCH", ["x"], "NOSUCH"),
            ("a..b", "A", ["192.0.2.1"], "empty label"),
            ("l" * 64, "A", ["192.0.2.1"], "63"),
            ("bücher", "A", ["192.0.2.1"], "punycode"),
        ],
    )
    def test_what_dns_forbids_is_refused_before_it_is_sent(
        self, zone: Zone, oracle: Callable[[str], Observed], name: str, type: str, values: list[str], why: str
    ) -> None:
        before = oracle(zone.name)
        with pytest.raises(InvalidArgument, match=why):
            zone.set(name, type, values)
        assert oracle(zone.name) == before

    def test_a_cname_stands_alone(self, zone: Zone, oracle: Callable[[str], Observed]) -> None:
        zone.set("www", "A", "192.0.2.1")
        zone.set("alias", "CNAME", "www")
        before = oracle(zone.name)
        with pytest.raises(InvalidArgument, match="CNAME"):
            zone.set("www", "CNAME", "alias")
        with pytest.raises(InvalidArgument, match="CNAME"):
            zone.set("alias", "TXT", '"x"')
        assert oracle(zone.name) == before

    @pytest.mark.parametrize("type", ["NS", "SOA"])
    def test_a_zone_keeps_its_own_ns_and_soa(self, zone: Zone, oracle: Callable[[str], Observed], type: str) -> None:
        before = oracle(zone.name)
        with pytest.raises(InvalidArgument, match="cannot be without"):
            zone.delete("@", type)
        with pytest.raises(InvalidArgument, match="cannot be without"):
            zone.change([RecordChange(before=zone.get("@", type), after=None)], apex=True)
        assert oracle(zone.name) == before

    def test_the_ns_of_the_zone_are_replaced_or_refused(self, zone: Zone, oracle: Callable[[str], Observed]) -> None:
        wanted: tuple[str, ...] = ("ns1.example.net.", "ns2.example.net.")
        if not zone.features.apex_ns:
            with pytest.raises((InvalidArgument, Unsupported)):
                zone.set("@", "NS", wanted, ttl=self.ttl, apex=True)
            return
        if zone.features.apex_ns_kept:
            before = oracle(zone.name)
            with pytest.raises(InvalidArgument, match="NS"):
                zone.set("@", "NS", wanted, ttl=self.ttl, apex=True)
            assert oracle(zone.name) == before
            wanted = (*zone.get("@", "NS").texts, *wanted)
        zone.set("@", "NS", wanted, ttl=self.ttl, apex=True)
        assert oracle(zone.name)[zone.origin, "NS"] == (self.ttl, _expected("NS", wanted))

    # writing

    def test_a_set_replaces_all_values(self, zone: Zone) -> None:
        zone.set("www", "A", ["192.0.2.1", "192.0.2.2"])
        zone.set("www", "A", "192.0.2.3")
        assert zone.get("www", "A").texts == ("192.0.2.3",)

    def test_a_value_that_is_given_twice_is_refused_also_where_it_stands(self, zone: Zone) -> None:
        held = zone.set("www", "A", ["192.0.2.1", "192.0.2.2"], ttl=300)
        twice = attrs.evolve(held, rdatas=(*held.rdatas, held.rdatas[0]))
        for call in (
            lambda: zone.set("www", "A", ["192.0.2.1", "192.0.2.1", "192.0.2.2"], ttl=300),
            lambda: zone.change([RecordChange(before=zone.get("www", "A"), after=twice)]),
        ):
            with pytest.raises(InvalidArgument, match="twice"):
                call()
        assert set(zone.get("www", "A").texts) == {"192.0.2.1", "192.0.2.2"}

    def test_a_set_without_a_ttl_keeps_the_one_there_is(self, zone: Zone) -> None:
        zone.set("www", "A", "192.0.2.1", ttl=self.other_ttl)
        assert zone.set("www", "A", "192.0.2.2").ttl == self.other_ttl
        assert zone.get("www", "A").ttl == self.other_ttl

    def test_delete_is_idempotent(self, zone: Zone, oracle: Callable[[str], Observed]) -> None:
        before = oracle(zone.name)
        zone.set("www", "A", "192.0.2.1")
        zone.delete("www", "A")
        zone.delete("www", "A")
        assert oracle(zone.name).keys() == before.keys()

    def test_a_cname_and_an_a_swap_in_one_batch(self, zone: Zone) -> None:
        first, second = zone.set("www", "A", "192.0.2.1"), zone.set("alias", "CNAME", "www")
        zone.change(
            [
                RecordChange(before=None, after=zone.record("www", "CNAME", "alias")),
                RecordChange(before=None, after=zone.record("alias", "A", "192.0.2.1")),
                RecordChange(before=first, after=None),
                RecordChange(before=second, after=None),
            ]
        )
        assert zone.get("www", "CNAME").texts == (f"alias.{zone.origin}",)
        assert zone.get("alias", "A").texts == ("192.0.2.1",)
        assert not zone.exists("www", "A")

    def test_if_absent_refuses_what_exists(self, zone: Zone) -> None:
        zone.set("www", "A", "192.0.2.1", if_absent=True)
        with pytest.raises(PreconditionFailed):
            zone.set("www", "A", "192.0.2.2", if_absent=True)
        assert zone.get("www", "A").texts == ("192.0.2.1",)

    def test_if_match_refuses_another_version(self, zone: Zone) -> None:
        stale = zone.set("www", "A", "192.0.2.1").token
        fresh = zone.set("www", "A", "192.0.2.2").token
        with pytest.raises(PreconditionFailed):
            zone.set("www", "A", "192.0.2.3", if_match=stale)
        with pytest.raises(PreconditionFailed):
            zone.delete("www", "A", if_match=stale)
        assert zone.get("www", "A").texts == ("192.0.2.2",)
        zone.delete("www", "A", if_match=fresh)
        with pytest.raises(PreconditionFailed):
            zone.set("www", "A", "192.0.2.3", if_match=fresh)

    def test_a_stale_change_is_refused_by_the_driver_itself(self, zone: Zone, driver: DnsDriver) -> None:
        if not driver.features.if_match:
            pytest.skip("the provider knows no conditions")
        stale = zone.set("www", "A", "192.0.2.1")
        zone.set("www", "A", "192.0.2.2")
        for after in (None, zone.record("www", "A", "192.0.2.3")):
            with pytest.raises(Exception) as caught:  # noqa: PT011  native: the driver's own table names it below
                driver.change(zone.name, (RecordChange(before=stale, after=after),))
            fault = driver.classify(caught.value)
            assert fault is not None
            assert fault.error is PreconditionFailed
        assert zone.get("www", "A").texts == ("192.0.2.2",)

    def test_one_of_many_writers_creates(self, zone: Zone) -> None:
        if not zone.features.atomic_if_match:
            pytest.skip("the provider does not decide conditions itself")
        won, lost = list[int](), list[int]()
        start = threading.Barrier(8)

        def write(number: int) -> None:
            start.wait()
            try:
                zone.set("race", "A", f"192.0.2.{number}", if_absent=True)
                won.append(number)
            except PreconditionFailed:
                lost.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 7)
        assert zone.get("race", "A").texts == (f"192.0.2.{won[0]}",)

    def test_a_batch_with_one_refused_change_does_nothing(self, zone: Zone, oracle: Callable[[str], Observed]) -> None:
        stale = zone.set("taken", "A", "192.0.2.1")
        zone.set("taken", "A", "192.0.2.2")
        before = oracle(zone.name)
        good = [RecordChange(before=None, after=zone.record(f"n{i}", "A", _address(i))) for i in range(5)]
        with pytest.raises(PreconditionFailed, match="taken"):
            zone.change([*good, RecordChange(before=stale, after=None)])
        assert oracle(zone.name) == before

    def test_an_atomic_batch_is_refused_whole_by_the_driver(
        self, zone: Zone, driver: DnsDriver, oracle: Callable[[str], Observed]
    ) -> None:
        if not (driver.features.atomic_batch and driver.features.if_match):
            with pytest.raises(Unsupported):
                zone.change([RecordChange(before=None, after=zone.record("x", "A", "192.0.2.1"))], atomic=True)
            return
        stale = zone.set("taken", "A", "192.0.2.1")
        zone.set("taken", "A", "192.0.2.2")
        before = oracle(zone.name)
        good = tuple(RecordChange(before=None, after=zone.record(f"n{i}", "A", _address(i))) for i in range(5))
        with pytest.raises(Exception) as caught:  # noqa: PT011  native
            driver.change(zone.name, (*good, RecordChange(before=stale, after=None)))
        assert driver.classify(caught.value) is not None
        assert oracle(zone.name) == before

    def test_all_wrong_changes_of_a_batch_are_named_at_once(self, zone: Zone) -> None:
        records = [zone.record("good", "A", "192.0.2.1"), zone.record("x", "A", ["192.0.2.1"] * 2)]
        records.append(attrs.evolve(records[0], name="elsewhere.example."))
        with pytest.raises(InvalidArgument) as caught:
            zone.change([RecordChange(before=None, after=record) for record in records])
        assert f"x.{zone.origin} A" in str(caught.value)
        assert "elsewhere.example. A" in str(caught.value)
        assert not zone.exists("good", "A")

    def test_more_changes_than_one_call_takes_are_split(self, zone: Zone) -> None:
        limit = zone.features.max_batch
        count = 20 if limit is None else min(limit.value + 1, self.many_records)
        records = [zone.record(f"b{number}", "A", _address(number)) for number in range(count)]
        zone.change(RecordChange(before=None, after=record) for record in records)
        assert len(list(zone.records(type="A"))) == count

    # listing

    def test_a_long_listing_has_every_record_set_once(self, zone: Zone, driver: DnsDriver) -> None:
        names = {f"r{number:04}.{zone.origin}" for number in range(self.many_records)}
        zone.change(RecordChange(before=None, after=zone.record(name, "A", "192.0.2.1")) for name in names)
        found = [record.name for record in zone.records(type="A")]
        assert len(found) == len(names)
        assert set(found) == names
        assert driver.records(zone.name, name=None, cursor=None, limit=None).next is not None

    def test_a_limit_is_kept(self, zone: Zone) -> None:
        for number in range(5):
            zone.set(f"r{number}", "A", "192.0.2.1")
        assert [len(list(zone.records(limit=limit))) for limit in (0, 1, 3, 100)] == [0, 1, 3, 7]
        assert len(list(zone.records(type="A", limit=2))) == 2

    def test_records_of_one_name_are_listed_alone(self, zone: Zone) -> None:
        zone.set("www", "A", "192.0.2.1")
        zone.set("www", "TXT", '"x"')
        zone.set("www.www", "A", "192.0.2.1")
        zone.set("wwwx", "A", "192.0.2.1")
        assert {(record.name, record.type) for record in zone.records(name="www")} == {
            (f"www.{zone.origin}", "A"),
            (f"www.{zone.origin}", "TXT"),
        }

    # moving

    def test_an_exported_zone_loads_elsewhere(self, zone: Zone) -> None:
        records = [zone.record(name, kind, values) for name, kind, values in RECORDS]
        zone.change(RecordChange(before=None, after=record) for record in records if zone.check_record(record) is None)
        loaded = dns.zone.from_text(zone.export_file(), origin=zone.origin, relativize=False)
        theirs = {
            (str(name).lower(), dns.rdatatype.to_text(rdataset.rdtype)): (rdataset.ttl, frozenset(rdataset))
            for name, rdataset in loaded.iterate_rdatasets()
        }
        assert theirs == observed(list(zone.records()))

    def test_zones_are_served_or_that_is_refused(self, zone: Zone, driver: DnsDriver) -> None:
        zone.set("www", "A", ["192.0.2.1", "192.0.2.2"], ttl=self.ttl)
        service = Dns(driver)
        if not driver.features.serve:
            with pytest.raises(Unsupported):
                service.serve()
            with pytest.raises(Unsupported):
                driver.serve(0, update=False)
            return
        with pytest.raises(InvalidArgument, match="70000"):
            service.serve(70_000)
        with service.serve() as server:
            question = dns.message.make_query(f"www.{zone.origin}", "A")
            (found,) = dns.query.udp(question, server.host, port=server.port, timeout=30).answer
        assert (found.ttl, {data.to_text() for data in found}) == (self.ttl, {"192.0.2.1", "192.0.2.2"})

    def test_an_exported_zone_is_imported_again(self, zone: Zone, oracle: Callable[[str], Observed]) -> None:
        zone.set("www", "A", ["192.0.2.1", "192.0.2.2"])
        zone.set("t", "TXT", r'"a\\b" "\"q\""')
        text, before = zone.export_file(), oracle(zone.name)
        zone.change(zone.diff([]))
        changes = zone.import_file(text)
        assert [change.action for change in changes] == ["create", "create"]
        after = oracle(zone.name)
        assert {key: value for key, value in after.items() if key[1] != "SOA"} == {
            key: value for key, value in before.items() if key[1] != "SOA"
        }
        assert zone.import_file(text) == ()

    def test_an_import_deletes_only_when_it_replaces(self, zone: Zone) -> None:
        zone.set("old", "A", "192.0.2.1")
        zone.import_file("new 300 IN A 192.0.2.2\n")
        assert zone.exists("old", "A")
        zone.import_file("new 300 IN A 192.0.2.2\n", replace=True)
        assert [record.name for record in zone.records(type="A")] == [f"new.{zone.origin}"]

    def test_what_the_servers_make_is_never_copied(self, zone: Zone) -> None:
        theirs = [
            RecordSet(name=zone.origin, type=kind, ttl=300, rdatas=(b"\0" * 30,)) for kind in sorted(SERVER_TYPES)
        ]
        assert zone.diff([*zone.records(), *theirs]) == ()

    # zones

    def test_a_missing_zone_is_missing_everywhere(self, driver: DnsDriver) -> None:
        missing = Dns(driver).zone("missing.test")
        with pytest.raises(NotFound):
            missing.info()
        with pytest.raises(NotFound):
            list(missing.records())
        for call in (
            lambda: missing.get("www", "A"),
            lambda: missing.exists("www", "A"),
            lambda: missing.set("www", "A", "192.0.2.1"),
            lambda: missing.delete("www", "A"),
        ):
            with pytest.raises(ParentNotFound):
                call()

    def test_a_missing_record_set_is_not_a_missing_zone(self, zone: Zone) -> None:
        with pytest.raises(NotFound) as caught:
            zone.get("missing", "A")
        assert not isinstance(caught.value, ParentNotFound)
        assert not zone.exists("missing", "A")

    def test_a_zone_names_its_servers(self, zone: Zone) -> None:
        servers = zone.info().nameservers
        assert servers
        assert all(server.endswith(".") for server in servers)

    def test_zones_are_created_once_and_deleted_when_empty(self, zone: Zone, driver: DnsDriver) -> None:
        if not driver.features.zones:
            pytest.skip("zones of this provider are made elsewhere")
        service = Dns(driver)
        with pytest.raises(AlreadyExists):
            service.create(ZoneSpec(name=zone.name))
        zone.set("www", "A", "192.0.2.1")
        with pytest.raises(Conflict):
            service.delete(zone.name)
        with pytest.raises(NotFound):
            service.delete("missing.test")
        assert service.exists(zone.name)
        assert not service.exists("missing.test")

    def test_a_declared_zone_is_made_and_then_nothing_differs(self, driver: DnsDriver) -> None:
        if not driver.features.zones:
            pytest.skip("zones of this provider are made elsewhere")
        service, spec = Dns(driver), ZoneSpec(name="Declared.Test.", ttl=self.ttl)
        (change,) = service.diff(spec)
        assert change.action == "create"
        service.apply(change)
        service.apply(change)
        assert service.diff(spec) == ()
        assert service.open(spec).set("www", "A", "192.0.2.1").ttl == self.ttl
        service.open(spec).delete("www", "A")
        service.delete("declared.test")
        assert [change.action for change in service.diff(spec)] == ["create"]

    def test_many_zones_are_listed_once_each(self, driver: DnsDriver) -> None:
        if not driver.features.zones:
            pytest.skip("zones of this provider are made elsewhere")
        service = Dns(driver)
        wanted = {f"z{number}.test" for number in range(self.many_zones)}
        for name in wanted:
            service.create(ZoneSpec(name=name))
        found = [zone.name for zone in service.list()]
        assert sorted(found) == sorted(wanted)
        assert len(list(service.list(limit=7))) == 7
        for name in wanted:
            service.delete(name)

    @pytest.mark.parametrize("name", ["0/25.2.0.192.in-addr.arpa", "_tcp.conf.test", "xn--bcher-kva.test"])
    def test_an_odd_zone_is_made_or_refused(self, driver: DnsDriver, name: str) -> None:
        if not driver.features.zones:
            pytest.skip("zones of this provider are made elsewhere")
        service = Dns(driver)
        if driver.check_name(name) is not None:
            with pytest.raises(InvalidArgument):
                service.create(ZoneSpec(name=name))
            return
        zone = service.create(ZoneSpec(name=name))
        assert [found.name for found in service.list()] == [name]
        record = zone.record("1", "PTR", "host.example.net.", ttl=self.ttl)
        if zone.check_record(record) is None:
            zone.change([RecordChange(before=None, after=record)])
            assert [found.name for found in service.get(name).records(type="PTR")] == [f"1.{name}."]
            zone.delete("1", "PTR")
        service.delete(name)
        assert not service.exists(name)

    @pytest.mark.parametrize("name", ["", "a..b", "l" * 64 + ".test", "bücher.test"])
    def test_an_impossible_zone_is_refused(self, driver: DnsDriver, name: str) -> None:
        with pytest.raises(InvalidArgument):
            Dns(driver).describe(name)

    def test_features_name_their_sources(self, driver: DnsDriver) -> None:
        assert [field for field, about, _ in driver.features.rows() if not about] == []


def _own(zone: Zone) -> list[RecordSet]:
    return [record for record in zone.records() if record.name == zone.origin]


class DnsMachine(RuleBasedStateMachine):
    """Any sequence of writes leaves the zone as a plain dictionary says. ``dns_machine`` makes it for a driver."""

    names = st.sampled_from(["@", "www", "WWW", "a.b", "b", "*", "_x._tcp"])
    values: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "A": ("192.0.2.1", "192.0.2.2", "192.0.2.3"),
        "CNAME": ("www", "Target.example.", "target.EXAMPLE."),
        "MX": ("10 mail", "10 MAIL", "20 mail"),
        "TXT": ('"a" "b"', '"ab"', '"AB"'),
    }
    types = st.sampled_from(sorted(values))
    some = st.sets(st.integers(0, 2), min_size=1)
    ttls: ClassVar[tuple[int, ...]] = (60, 61, 62, 63)
    """Four that the provider holds."""
    which = st.integers(0, 3)

    def __init__(self) -> None:
        super().__init__()
        self.dns = Dns(self.make_driver())
        self.zone = self.dns.create(ZoneSpec(name="machine.test"))
        self.model: dict[tuple[str, str], tuple[int, frozenset[Any]]] = {}

    def make_driver(self) -> DnsDriver:
        """Make the driver under test, with nothing in it."""
        raise TypeError("make the machine with `dns_machine`")

    def teardown(self) -> None:
        self.zone.change(self.zone.diff([]))
        self.dns.delete("machine.test")

    def _key(self, name: str, type: str) -> tuple[str, str]:
        return (self.zone.origin if name == "@" else f"{name.lower()}.{self.zone.origin}", type)

    def _parsed(self, type: str, chosen: set[int]) -> frozenset[Any]:
        number, origin = dns.rdatatype.from_text(type), dns.name.from_text(self.zone.origin)
        return frozenset(
            dns.rdata.from_text(dns.rdataclass.IN, number, self.values[type][i], origin=origin, relativize=False)
            for i in chosen
        )

    def _forbidden(self, name: str, type: str, chosen: set[int]) -> bool:
        owner = self._key(name, type)[0]
        others = {kind for (held, kind) in self.model if held == owner and kind != type}
        beside = (type == "CNAME" and (others or name == "@")) or "CNAME" in others
        single = type == "CNAME" and len(chosen) > 1
        return bool(beside or single or len(self._parsed(type, chosen)) < len(chosen))

    @rule(name=names, type=types, chosen=some, which=which)
    def write(self, name: str, type: str, chosen: set[int], which: int) -> None:
        ttl = self.ttls[which]
        texts = [self.values[type][i] for i in sorted(chosen)]
        if self._forbidden(name, type, chosen):
            with pytest.raises(InvalidArgument):
                self.zone.set(name, type, texts, ttl=ttl)
            return
        self.zone.set(name, type, texts, ttl=ttl)
        self.model[self._key(name, type)] = (ttl, self._parsed(type, chosen))

    @rule(name=names, type=types)
    def delete(self, name: str, type: str) -> None:
        self.zone.delete(name, type)
        self.model.pop(self._key(name, type), None)

    @rule(name=names, chosen=some)
    def create(self, name: str, chosen: set[int]) -> None:
        texts = [self.values["A"][i] for i in sorted(chosen)]
        if self._key(name, "A") in self.model:
            with pytest.raises(PreconditionFailed):
                self.zone.set(name, "A", texts, ttl=self.ttls[0], if_absent=True)
        elif not self._forbidden(name, "A", chosen):
            self.zone.set(name, "A", texts, ttl=self.ttls[0], if_absent=True)
            self.model[self._key(name, "A")] = (self.ttls[0], self._parsed("A", chosen))

    @rule(name=names, type=types, which=which)
    def swap(self, name: str, type: str, which: int) -> None:
        """Change the TTL of one that exists, by compare-and-swap."""
        ttl = self.ttls[which]
        held = self.model.get(self._key(name, type))
        if held is None:
            with pytest.raises(NotFound):
                self.zone.get(name, type)
            return
        found = self.zone.get(name, type)
        self.zone.change([RecordChange(before=found, after=attrs.evolve(found, ttl=ttl))])
        self.model[self._key(name, type)] = (ttl, held[1])
        if ttl != held[0]:
            with pytest.raises(PreconditionFailed):
                self.zone.set(name, type, self.values[type][0], if_match=found.token)

    @rule()
    def reload(self) -> None:
        text = self.zone.export_file()
        self.zone.change(self.zone.diff([]))
        self.zone.import_file(text, replace=True)

    @invariant()
    def the_zone_is_as_the_model_says(self) -> None:
        held = observed([record for record in self.zone.records() if record.type not in {"NS", "SOA"}])
        assert held == self.model


def dns_machine(make_driver: Callable[[], DnsDriver]) -> type[DnsMachine]:
    """Make the state machine for a driver; run it with ``dns_machine(make_driver).TestCase``.

    Args:
        make_driver: called for each run; the driver must have no zone ``machine.test``.
    """
    return type("DnsOf", (DnsMachine,), {"make_driver": lambda _: make_driver()})
