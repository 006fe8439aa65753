"""The name server: what it answers, with dnspython as the judge, what it refuses, and what it survives."""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import logging
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import attrs
import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset
import dns.tsig
import dns.update
import dns.zone
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from shiftable.dns import Dns, RecordChange, Zone, ZoneSpec
from shiftable.memory.dns import MemoryDnsDriver
from shiftable.testing.conformance.dns import RECORDS
from shiftable_baremetal import nameserver
from shiftable_baremetal._nameserver_answers import Responder
from shiftable_baremetal._nameserver_source import View, source_of
from shiftable_baremetal._nameserver_wire import question_of
from shiftable_baremetal.dns import ZoneFilesDriver
from shiftable_baremetal.nameserver import Nameserver, TsigKey

SECRET = base64.b64encode(bytes(range(32))).decode()
KEY = TsigKey("tests.", SECRET)
RING = {KEY.native.name: KEY.native}
PATIENCE = 20.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "dns"


@pytest.fixture
def driver(root: Path) -> ZoneFilesDriver:
    return ZoneFilesDriver(root, fsync=False)


@pytest.fixture
def shop(driver: ZoneFilesDriver) -> Zone:
    zone = Dns(driver).create(ZoneSpec(name="shop.example"))
    zone.set("www", "A", ["192.0.2.1", "192.0.2.2"])
    return zone


@pytest.fixture
def server(shop: Zone, driver: ZoneFilesDriver) -> Iterator[Nameserver]:
    assert shop.name
    with Nameserver(driver, update=True) as server:
        yield server


@pytest.fixture
def signed(shop: Zone, driver: ZoneFilesDriver) -> Iterator[Nameserver]:
    """Serve with a key."""
    assert shop.name
    with Nameserver(driver, update=True, keys=[KEY]) as server:
        yield server


def send(server: Nameserver, message: dns.message.Message, *, tcp: bool = False) -> dns.message.Message:
    """Ask as dnspython does, which checks id, question and signature of the answer."""
    query = dns.query.tcp if tcp else dns.query.udp
    return query(message, server.host, port=server.port, timeout=PATIENCE)


def ask(server: Nameserver, name: str, kind: str, *, tcp: bool = False, **options: Any) -> dns.message.Message:
    return send(server, dns.message.make_query(name, kind, **options), tcp=tcp)


def texts(section: list[dns.rrset.RRset]) -> list[str]:
    return sorted(line for rrset in section for line in rrset.to_text().splitlines())


def code(message: dns.message.Message) -> str:
    return dns.rcode.to_text(message.rcode())


# every kind of record


@pytest.mark.parametrize(("name", "kind", "values"), RECORDS, ids=[f"{name[:20]}-{kind}" for name, kind, _ in RECORDS])
def test_every_record_set_is_served_byte_equal(
    server: Nameserver, shop: Zone, name: str, kind: str, values: tuple[str, ...]
) -> None:
    shop.set(name, kind, values, ttl=600)
    owner = shop.origin if name == "@" else f"{name}.{shop.origin}"
    question = dns.message.make_query(owner, kind, use_edns=0, payload=4096)
    message, _ = dns.query.udp_with_fallback(question, server.host, port=server.port, timeout=PATIENCE)
    number = dns.rdatatype.from_text(kind)
    (found,) = message.authority if kind == "NS" and name != "@" else message.answer
    assert found.name == dns.name.from_text(owner)
    assert found.ttl == 600
    assert {rdata.to_wire() for rdata in found} == {
        dns.rdata.from_text(dns.rdataclass.IN, number, value).to_wire() for value in values
    }


def test_a_transferred_zone_is_the_zone(server: Nameserver, shop: Zone) -> None:
    records = [shop.record(*each) for each in RECORDS]
    shop.change(RecordChange(before=None, after=record) for record in records)
    loaded = dns.zone.from_xfr(
        dns.query.xfr(server.host, shop.name, port=server.port, relativize=False, lifetime=PATIENCE), relativize=False
    )
    theirs = {
        (str(name).lower(), dns.rdatatype.to_text(rdataset.rdtype)): (rdataset.ttl, {r.to_wire() for r in rdataset})
        for name, rdataset in loaded.iterate_rdatasets()
    }
    assert theirs == {(r.name, r.type): (r.ttl, set(r.rdatas)) for r in shop.records()}


def test_a_resolver_of_dnspython_finds_what_it_looks_for(server: Nameserver, shop: Zone) -> None:
    shop.set("alias", "CNAME", "www")
    shop.set("@", "MX", ["10 mail", "20 backup"])
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [server.host], server.port
    assert sorted(r.address for r in resolver.resolve("alias.shop.example", "A")) == ["192.0.2.1", "192.0.2.2"]
    assert [r.preference for r in resolver.resolve("shop.example", "MX")] == [10, 20]
    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver.resolve("nobody.shop.example", "A")
    with pytest.raises(dns.resolver.NoAnswer):
        resolver.resolve("www.shop.example", "MX")


# what a name means: RFC 1034, 4.3.2; 2308; 4592; 6672

WILD = (
    ("*.example", "TXT", "host1"),  # RFC 4592, 2.2.1, moved below wild.test
    ("sub.*.example", "TXT", "sub"),
    ("host1.example", "A", "192.0.2.1"),
    ("_ssh._tcp.host1.example", "SRV", "0 0 22 host1.example"),
    ("_ssh._tcp.host2.example", "SRV", "0 0 22 host2.example"),
    ("subdel.example", "NS", "ns.example.net."),
)


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "answers"),
    [
        ("host3.example", "TXT", "NOERROR", 1),
        ("host3.example", "MX", "NOERROR", 0),
        ("foo.bar.example", "TXT", "NOERROR", 1),
        ("host1.example", "MX", "NOERROR", 0),
        ("sub.*.example", "MX", "NOERROR", 0),
        ("sub.*.example", "TXT", "NOERROR", 1),
        ("*.example", "TXT", "NOERROR", 1),
        ("_telnet._tcp.host1.example", "SRV", "NXDOMAIN", 0),
        ("_tcp.host1.example", "SRV", "NOERROR", 0),
        ("host.subdel.example", "A", "NOERROR", 0),
        ("ghost.*.example", "MX", "NXDOMAIN", 0),
    ],
)
def test_wildcards_are_as_in_the_example_of_the_standard(
    server: Nameserver, shop: Zone, name: str, kind: str, rcode: str, answers: int
) -> None:
    shop.change(RecordChange(before=None, after=shop.record(*each)) for each in WILD)
    message = ask(server, f"{name}.{shop.origin}", kind)
    assert (code(message), len(message.answer)) == (rcode, answers)
    referral = "subdel" in name
    assert bool(message.flags & dns.flags.AA) is not referral
    assert [dns.rdatatype.to_text(rrset.rdtype) for rrset in message.authority] == (
        ["NS"] if referral else [] if answers else ["SOA"]
    )
    if answers:
        assert message.answer[0].name == dns.name.from_text(f"{name}.{shop.origin}")


def test_a_negative_answer_has_the_soa_with_the_shorter_ttl(server: Nameserver, shop: Zone) -> None:
    for minimum, ttl in ((60, 60), (99_999, 900)):
        shop.set("@", "SOA", f"ns. root. 1 2 3 4 {minimum}", apex=True)
        for name in ("nobody", "www"):
            (soa,) = ask(server, f"{name}.{shop.origin}", "MX").authority
            assert (soa.rdtype, soa.ttl) == (dns.rdatatype.SOA, ttl)


def test_below_a_cut_there_is_a_referral_with_glue(server: Nameserver, shop: Zone) -> None:
    shop.set("child", "NS", ["ns.child", "ns.other.example."])
    shop.set("ns.child", "A", "192.0.2.53")
    shop.set("ns.child", "AAAA", "2001:db8::53")
    shop.set("child", "DS", f"60485 8 2 {'d4' * 32}")
    shop.set("child", "TXT", '"not ours to say"')
    for name, kind in (("child", "A"), ("child", "NS"), ("child", "TXT"), ("ns.child", "A"), ("a.b.child", "MX")):
        message = ask(server, f"{name}.{shop.origin}", kind)
        assert (code(message), message.flags & dns.flags.AA, message.answer) == ("NOERROR", 0, [])
        assert [dns.rdatatype.to_text(rrset.rdtype) for rrset in message.authority] == ["NS", "DS"]
        assert texts(message.additional) == [
            "ns.child.shop.example. 300 IN A 192.0.2.53",
            "ns.child.shop.example. 300 IN AAAA 2001:db8::53",
        ]
    message = ask(server, f"child.{shop.origin}", "DS")
    assert message.flags & dns.flags.AA
    assert [rrset.rdtype for rrset in message.answer] == [dns.rdatatype.DS]


def test_aliases_are_followed_within_the_zone(server: Nameserver, shop: Zone) -> None:
    shop.set("one", "CNAME", "two")
    shop.set("two", "CNAME", "www")
    shop.set("out", "CNAME", "www.example.net.")
    shop.set("lost", "CNAME", "nobody")
    shop.set("child", "NS", "ns.example.net.")
    shop.set("down", "CNAME", "www.child")
    assert [rrset.name.labels[0] for rrset in ask(server, "one.shop.example", "A").answer] == [b"one", b"two", b"www"]
    out = ask(server, "out.shop.example", "A")
    assert (code(out), texts(out.answer), out.authority) == (
        "NOERROR",
        ["out.shop.example. 300 IN CNAME www.example.net."],
        [],
    )
    lost = ask(server, "lost.shop.example", "A")
    assert (code(lost), len(lost.answer), lost.authority[0].rdtype) == ("NXDOMAIN", 1, dns.rdatatype.SOA)
    down = ask(server, "down.shop.example", "A")
    assert (code(down), len(down.answer), down.authority[0].rdtype) == ("NOERROR", 1, dns.rdatatype.NS)
    assert down.flags & dns.flags.AA
    assert [rrset.rdtype for rrset in ask(server, "one.shop.example", "CNAME").answer] == [dns.rdatatype.CNAME]


@pytest.mark.parametrize("length", [1, 2, 30])
def test_aliases_in_a_circle_or_a_long_row_come_to_an_end(server: Nameserver, shop: Zone, length: int) -> None:
    for number in range(length):
        shop.set(f"c{number}", "CNAME", f"c{(number + 1) % length}")
    message = ask(server, "c0.shop.example", "A", use_edns=0, payload=1232)
    assert code(message) == "NOERROR"
    assert len(message.answer) == min(length, 17)


def test_a_renamed_tree_answers_with_the_rule_and_an_alias(server: Nameserver, shop: Zone) -> None:
    shop.set("old", "DNAME", "new")
    shop.set("a.new", "A", "192.0.2.3")
    shop.set("away", "DNAME", f"{'.'.join(['l' * 60] * 4)}.")
    message = ask(server, "a.old.shop.example", "A")
    assert [(str(rrset.name), dns.rdatatype.to_text(rrset.rdtype)) for rrset in message.answer] == [
        ("old.shop.example.", "DNAME"),
        ("a.old.shop.example.", "CNAME"),
        ("a.new.shop.example.", "A"),
    ]
    assert code(ask(server, f"{'x' * 60}.away.shop.example", "A")) == "YXDOMAIN"
    assert len(ask(server, "old.shop.example", "DNAME").answer) == 1
    assert code(ask(server, "x.old.shop.example", "A")) == "NXDOMAIN"


def test_a_ds_is_asked_of_the_zone_above(server: Nameserver, shop: Zone, driver: ZoneFilesDriver) -> None:
    Dns(driver).create(ZoneSpec(name="child.shop.example"))
    shop.set("child", "NS", "localhost.")
    shop.set("child", "DS", f"60485 8 2 {'d4' * 32}")
    assert len(ask(server, "child.shop.example", "DS").answer) == 1
    assert texts(ask(server, "child.shop.example", "NS").answer) == ["child.shop.example. 172800 IN NS localhost."]
    assert ask(server, "child.shop.example", "NS").flags & dns.flags.AA


def test_any_answers_with_all_there_is(server: Nameserver, shop: Zone) -> None:
    shop.set("www", "TXT", '"x"')
    kinds = {dns.rdatatype.to_text(rrset.rdtype) for rrset in ask(server, "www.shop.example", "ANY", tcp=True).answer}
    assert kinds == {"A", "TXT"}


# any zone, any question: three ways to the same answer


Path_ = tuple[str, ...]
"""A name below the zone, from the top: ``("child", "ns")``."""


@attrs.frozen
class Said:
    """An answer: its code, whether it is the zone's own, and the records of two sections as text."""

    rcode: str
    own: bool
    answer: set[str]
    authority: set[str]


@attrs.frozen
class Alias:
    """What stands in the way of an answer, and where it leads; ``None``: out of the zone."""

    lines: set[str]
    to: Path_ | None


@attrs.frozen
class Small:
    """A zone of a few names, as dictionaries, searched as the words of RFC 1034, 4.3.2 say: label after label."""

    records: Mapping[Path_, Mapping[str, tuple[str, ...]]]

    def say(self, path: Path_, kind: str) -> Said:
        lines, seen = set[str](), set[Path_]()
        at: Path_ | None = path
        while at is not None and at not in seen:
            if len(seen) > 10:
                reject()  # a name that grows and grows: where that ends, every server has its own idea
            seen.add(at)
            step = self.step(at, kind)
            if isinstance(step, Said):
                return attrs.evolve(step, own=step.own or bool(lines), answer=lines | step.answer)
            lines |= step.lines
            at = step.to
        return Said("NOERROR", True, lines, set())

    def step(self, path: Path_, kind: str) -> Said | Alias:
        for depth in range(len(path) + 1):
            above, node = path[:depth], self.records.get(path[:depth], {})
            below = depth < len(path)
            if depth and "NS" in node and (below or kind != "DS"):
                return Said("NOERROR", False, set(), lines_of(above, node, "NS") | lines_of(above, node, "DS"))
            if below and "DNAME" in node:
                return self.renamed(path, depth, node["DNAME"][0])
            if below and not any(name[: depth + 1] == path[: depth + 1] for name in self.records):
                star = self.records.get((*above, "*"))
                exists = any(name[: depth + 1] == (*above, "*") for name in self.records)
                return self.here(star or {}, path, kind) if exists else Said("NXDOMAIN", True, set(), {"SOA"})
        return self.here(self.records.get(path, {}), path, kind)

    def renamed(self, path: Path_, depth: int, target: str) -> Alias:
        new = ".".join([*reversed(path[depth:]), target])
        return Alias({line_of(path[:depth], "DNAME", target), line_of(path, "CNAME", new)}, path_of(new))

    def here(self, node: Mapping[str, tuple[str, ...]], path: Path_, kind: str) -> Said | Alias:
        if "CNAME" in node and kind not in ("CNAME", "ANY"):
            return Alias(lines_of(path, node, "CNAME"), path_of(node["CNAME"][0]))
        found = {line for each in node if kind in (each, "ANY") for line in lines_of(path, node, each)}
        return Said("NOERROR", True, found, set() if found else {"SOA"})


def line_of(path: Path_, kind: str, value: str) -> str:
    return "SOA" if kind == "SOA" else f"{'.'.join([*reversed(path), 'small.test.'])} {kind} {value}".lower()


def lines_of(path: Path_, node: Mapping[str, tuple[str, ...]], kind: str) -> set[str]:
    return {line_of(path, kind, value) for value in node.get(kind, ())}


def path_of(name: str) -> Path_ | None:
    labels = tuple(reversed(name.removesuffix(".").split(".")))
    return labels[2:] if labels[:2] == ("test", "small") else None


LABELS = ("a", "b", "*")
PATHS = [(), *((x,) for x in LABELS), *itertools.product(LABELS, repeat=2), *itertools.product("ab", "ab*", "ab")]
TARGETS = ("small.test.", "a.small.test.", "b.a.small.test.", "a.b.small.test.", "out.test.")
VALUES: dict[str, tuple[str, ...]] = {
    "A": ("192.0.2.1", "192.0.2.2"),
    "TXT": ('"x"',),
    "NS": TARGETS[1:],
    "DS": (f"1 8 2 {'d4' * 32}",),
    "CNAME": TARGETS,
    "DNAME": TARGETS,
}


@st.composite
def smalls(draw: st.DrawFn) -> Small:
    records: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
    for path in draw(st.lists(st.sampled_from(PATHS[1:]), max_size=7, unique=True)):
        kinds = draw(
            st.sampled_from(
                [
                    ("A",),
                    ("TXT",),
                    ("A", "TXT"),
                    ("NS",),
                    ("NS", "DS"),
                    ("NS", "A"),
                    ("CNAME",),
                    ("DNAME",),
                    ("DNAME", "A"),
                ]
            )
        )
        if path[-1] == "*" and ({"NS", "DNAME"} & set(kinds)):
            continue  # RFC 4592, 4.2 and 4.4: nobody knows
        records[path] = {
            kind: (draw(st.sampled_from(VALUES[kind])),)
            if kind in ("CNAME", "DNAME")
            else tuple(draw(st.sets(st.sampled_from(VALUES[kind]), min_size=1)))
            for kind in kinds
        }
    records[()] = {"NS": ("out.test.",), "SOA": ("out.test. out.test. 1 2 3 4 5",)}
    return Small(records)


def driver_of(small: Small) -> MemoryDnsDriver:
    driver = MemoryDnsDriver(features=attrs.evolve(MemoryDnsDriver().features))
    zone = Dns(driver).create(ZoneSpec(name="small.test"))
    for path, kinds in small.records.items():
        for kind, values in kinds.items():
            name = ".".join(reversed(path)) or "@"
            zone.set(name, kind, values, apex=not path)
    return driver


def essence(wire: bytes) -> tuple[object, ...]:
    """Return what a message says, in dnspython's words, whatever the order and compression."""
    message = dns.message.from_wire(wire)
    return (
        message.id,
        int(message.flags),
        message.rcode(),
        [rrset.to_text() for rrset in message.question],
        (message.edns, message.ednsflags, message.payload),
        *(
            {(str(r.name).lower(), r.ttl, r.rdtype, v.to_wire().lower()) for r in s for v in r}
            for s in message.sections[1:]
        ),
    )


@given(
    smalls(),
    st.sampled_from(PATHS),
    st.sampled_from(["A", "TXT", "NS", "DS", "CNAME", "DNAME", "MX", "ANY", "SOA"]),
    st.sampled_from([{}, {"use_edns": 0}, {"use_edns": 0, "payload": 4096}, {"want_dnssec": True}]),
    st.booleans(),
)
@settings(max_examples=500, deadline=None)
def test_the_quick_way_and_the_thorough_way_answer_as_the_standard_says(
    small: Small,
    path: tuple[str, ...],
    kind: str,
    options: dict[str, Any],
    upper: bool,  # noqa: FBT001  hypothesis passes by name
) -> None:
    said = small.say(path, kind)
    source = source_of(driver_of(small), 60)
    responder = Responder(source, (), update=False)
    name = ".".join([*reversed(path), "small.test."])
    wire = dns.message.make_query(name.upper() if upper else name, kind, **options).to_wire()
    view = View(source)
    quick, (thorough,) = responder._quick(wire, view, stream=True), responder._thorough(wire, view, stream=True)
    assert quick is not None
    assert essence(quick) == essence(thorough)
    assert list(responder.stream(wire)) == [quick]
    small_quick = responder._quick(wire, view, stream=False)
    (small_thorough,) = responder._thorough(wire, view, stream=False)
    assert small_quick in (None, quick)  # it may not fit, and compressed by the other way it may
    assert dns.message.from_wire(small_thorough).flags & dns.flags.TC or essence(small_thorough) == essence(quick)
    assert [responder.datagram(wire), responder.datagram(wire)] == [small_quick or small_thorough] * 2

    message = dns.message.from_wire(quick)
    assert (code(message), bool(message.flags & dns.flags.AA)) == (said.rcode, said.own)
    assert lines_in(message.answer) == said.answer
    assert lines_in(message.authority) == said.authority


def lines_in(section: list[dns.rrset.RRset]) -> set[str]:
    """Return records as lines; the SOA, whose serial the driver counts, as such."""
    return {
        "SOA" if rrset.rdtype == dns.rdatatype.SOA else f"{rrset.name} {kind} {value.to_text()}".lower()
        for rrset in section
        for value in rrset
        for kind in [dns.rdatatype.to_text(rrset.rdtype)]
    }


# updates: RFC 2136


def update(
    server: Nameserver,
    make: Callable[[dns.update.UpdateMessage], object],
    *,
    key: TsigKey | None = None,
    zone: str = "shop.example",
    tcp: bool = True,
) -> str:
    """Send an update and return its answer's code."""
    message = dns.update.UpdateMessage(zone)
    make(message)
    if key is not None:
        message.use_tsig(key.native)
    return code(send(server, message, tcp=tcp))


def test_records_are_added_replaced_and_deleted(server: Nameserver, shop: Zone) -> None:
    assert update(server, lambda u: u.add("new", 60, "A", "192.0.2.7")) == "NOERROR"
    assert update(server, lambda u: u.add("new", 90, "A", "192.0.2.8"), tcp=False) == "NOERROR"
    assert (shop.get("new", "A").ttl, set(shop.get("new", "A").texts)) == (90, {"192.0.2.7", "192.0.2.8"})
    assert texts(ask(server, "new.shop.example", "A").answer) == [
        "new.shop.example. 90 IN A 192.0.2.7",
        "new.shop.example. 90 IN A 192.0.2.8",
    ]
    assert update(server, lambda u: u.delete("new", "A", "192.0.2.7")) == "NOERROR"
    assert shop.get("new", "A").texts == ("192.0.2.8",)
    assert update(server, lambda u: u.replace("new", 30, "A", "192.0.2.9")) == "NOERROR"
    assert (shop.get("new", "A").ttl, shop.get("new", "A").texts) == (30, ("192.0.2.9",))
    shop.set("new", "TXT", '"x"')
    assert update(server, lambda u: u.delete("new", "A")) == "NOERROR"
    assert [record.type for record in shop.records(name="new")] == ["TXT"]
    assert update(server, lambda u: u.delete("new")) == "NOERROR"
    assert list(shop.records(name="new")) == []
    assert code(ask(server, "new.shop.example", "A")) == "NXDOMAIN"


@pytest.mark.parametrize(("name", "kind", "values"), RECORDS, ids=[f"{name[:20]}-{kind}" for name, kind, _ in RECORDS])
def test_every_record_set_is_written_byte_equal(
    server: Nameserver, shop: Zone, name: str, kind: str, values: tuple[str, ...]
) -> None:
    wanted = shop.record(name, kind, values, ttl=600)
    rdatas = [dns.rdata.from_text("IN", kind, value) for value in values]
    assert (
        update(
            server,
            lambda u: u.replace(
                "shop.example." if name == "@" else f"{name}.shop.example.", dns.rdataset.from_rdata_list(600, rdatas)
            ),
        )
        == "NOERROR"
    )
    assert shop.get(name, kind) == wanted
    assert {rdata.to_wire() for rdata in rdatas} == set(shop.get(name, kind).rdatas)


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (lambda u: u.present("www"), "NOERROR"),
        (lambda u: u.present("nobody"), "NXDOMAIN"),
        (lambda u: u.absent("nobody"), "NOERROR"),
        (lambda u: u.absent("www"), "YXDOMAIN"),
        (lambda u: u.present("www", "A"), "NOERROR"),
        (lambda u: u.present("www", "TXT"), "NXRRSET"),
        (lambda u: u.absent("www", "TXT"), "NOERROR"),
        (lambda u: u.absent("WWW", "A"), "YXRRSET"),
        (lambda u: u.present("www", "A", "192.0.2.1", "192.0.2.2"), "NOERROR"),
        (lambda u: u.present("www", "A", "192.0.2.2", "192.0.2.1"), "NOERROR"),
        (lambda u: u.present("www", "A", "192.0.2.1"), "NXRRSET"),
        (lambda u: u.present("www", "A", "192.0.2.1", "192.0.2.2", "192.0.2.3"), "NXRRSET"),
        (lambda u: u.present("mail", "MX", "10 MX.shop.example."), "NOERROR"),
        (lambda u: u.present("nobody", "A", "192.0.2.1"), "NXRRSET"),
        (lambda u: u.present("www.example.org."), "NOTZONE"),
    ],
    ids=range(15),
)
def test_an_update_happens_only_if_its_prerequisites_hold(
    server: Nameserver, shop: Zone, make: Callable[[dns.update.UpdateMessage], object], answer: str
) -> None:
    shop.set("mail", "MX", "10 mx")
    before = {record.key: record for record in shop.records()}

    def both(message: dns.update.UpdateMessage) -> None:
        make(message)
        message.add("new", 60, "A", "192.0.2.7")

    assert update(server, both) == answer
    assert shop.exists("new", "A") is (answer == "NOERROR")
    shop.delete("new", "A")
    assert {record.key: record for record in shop.records()} == before


@pytest.mark.parametrize(
    "make",
    [
        lambda u: u.add("www", 60, "CNAME", "other"),
        lambda u: u.add("alias", 60, "A", "192.0.2.1"),
        lambda u: u.delete("shop.example.", "SOA"),
        lambda u: u.delete("shop.example.", "NS"),
        lambda u: u.delete("shop.example."),
        lambda u: u.delete("shop.example.", "NS", "localhost."),
        lambda u: u.add("shop.example.", 60, "SOA", "a. b. 1 1 1 1 1"),
        lambda u: u.add("www", 60, "SOA", "a. b. 9 1 1 1 1"),
        lambda u: u.delete("www", "A", "192.0.2.99"),
        lambda u: u.delete("nobody"),
        lambda u: u.add("www", 300, "A", "192.0.2.1"),
    ],
    ids=range(11),
)
def test_what_the_standard_ignores_is_answered_with_noerror_and_not_written(
    server: Nameserver, shop: Zone, root: Path, make: Callable[[dns.update.UpdateMessage], object]
) -> None:
    shop.set("alias", "CNAME", "www")
    before = (root / "shop.example.zone").read_bytes()
    assert update(server, make) == "NOERROR"
    assert (root / "shop.example.zone").read_bytes() == before


def test_a_cname_is_replaced_and_swapped_in_one_message(server: Nameserver, shop: Zone) -> None:
    shop.set("alias", "CNAME", "www")
    assert update(server, lambda u: u.add("alias", 60, "CNAME", "other")) == "NOERROR"
    assert shop.get("alias", "CNAME").texts == ("other.shop.example.",)

    def swap(message: dns.update.UpdateMessage) -> None:
        message.delete("alias")
        message.add("alias", 60, "A", "192.0.2.1")
        message.delete("www")
        message.add("www", 60, "CNAME", "alias")

    assert update(server, swap) == "NOERROR"
    assert (shop.get("alias", "A").texts, shop.get("www", "CNAME").texts) == (("192.0.2.1",), ("alias.shop.example.",))


def test_a_newer_soa_is_taken_and_its_serial_with_it(server: Nameserver, shop: Zone) -> None:
    assert update(server, lambda u: u.add("shop.example.", 60, "SOA", "a. b. 1000 1 1 1 1")) == "NOERROR"
    (soa,) = ask(server, "shop.example", "SOA").answer
    assert soa[0].to_text() == "a. b. 1000 1 1 1 1"
    assert update(server, lambda u: u.add("new", 60, "A", "192.0.2.1")) == "NOERROR"
    assert ask(server, "shop.example", "SOA").answer[0][0].serial == 1001


def test_the_servers_of_the_zone_are_replaced_in_one_message(server: Nameserver, shop: Zone) -> None:
    def replace(message: dns.update.UpdateMessage) -> None:
        message.add("shop.example.", 600, "NS", "ns1.example.net.")
        message.delete("shop.example.", "NS", "localhost.")

    assert update(server, replace) == "NOERROR"
    assert (shop.get("@", "NS").texts, shop.get("@", "NS").ttl) == (("ns1.example.net.",), 600)


@pytest.mark.parametrize(
    ("make", "zone", "answer"),
    [
        (lambda u: u.add("www.example.org.", 60, "A", "192.0.2.1"), "shop.example", "NOTZONE"),
        (lambda u: u.add("new", 60, "A", "192.0.2.1"), "other.example", "NOTAUTH"),
        (lambda u: u.add("new", 60, "A", "192.0.2.1"), "www.shop.example", "NOTAUTH"),
        (
            lambda u: u.add("new", 60, dns.rdata.GenericRdata(dns.rdataclass.IN, dns.rdatatype.ANY, b"x")),
            "shop.example",
            "FORMERR",
        ),
        (
            lambda u: u.add("new", 60, dns.rdata.GenericRdata(dns.rdataclass.IN, dns.rdatatype.AXFR, b"x")),
            "shop.example",
            "FORMERR",
        ),
        (lambda u: u.delete("new", "AXFR"), "shop.example", "FORMERR"),
    ],
    ids=range(6),
)
def test_a_wrong_update_is_refused_as_a_whole(
    server: Nameserver,
    shop: Zone,
    root: Path,
    make: Callable[[dns.update.UpdateMessage], object],
    zone: str,
    answer: str,
) -> None:
    before = (root / "shop.example.zone").read_bytes()

    def both(message: dns.update.UpdateMessage) -> None:
        message.add(f"first.{zone}.", 60, "A", "192.0.2.1")
        make(message)

    assert update(server, both, zone=zone) == answer
    assert (root / "shop.example.zone").read_bytes() == before
    assert shop.exists("www", "A")


def test_an_update_that_the_disk_refuses_changes_nothing_and_says_so(
    server: Nameserver, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = (root / "shop.example.zone").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        assert update(server, lambda u: u.add("new", 60, "A", "192.0.2.1")) == "SERVFAIL"
    assert "No space left" in caplog.text
    assert (root / "shop.example.zone").read_bytes() == before
    assert code(ask(server, "new.shop.example", "A")) == "NXDOMAIN"
    assert update(server, lambda u: u.add("new", 60, "A", "192.0.2.1")) == "NOERROR"


def test_a_server_that_takes_no_updates_refuses_them(driver: ZoneFilesDriver, shop: Zone) -> None:
    with Nameserver(driver) as server:
        assert update(server, lambda u: u.add("new", 60, "A", "192.0.2.1")) == "REFUSED"
    assert not shop.exists("new", "A")


def test_updates_of_many_clients_at_once_all_arrive(server: Nameserver, shop: Zone) -> None:
    outcomes = list[str]()

    def work(who: int) -> None:
        for number in range(10):
            name = f"n{who}-{number}"
            outcomes.append(update(server, functools.partial(add, name=name)))

    def add(message: dns.update.UpdateMessage, name: str) -> None:
        message.add(name, 60, "A", "192.0.2.1")

    threads = [threading.Thread(target=work, args=(who,)) for who in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["NOERROR"] * 50
    assert len([record for record in shop.records(type="A") if record.name.startswith("n")]) == 50


def test_of_two_updates_with_one_prerequisite_one_is_refused(server: Nameserver, shop: Zone) -> None:
    outcomes = list[str]()

    def swap(number: int) -> None:
        def both(message: dns.update.UpdateMessage) -> None:
            message.present("www", "A", "192.0.2.1", "192.0.2.2")
            message.replace("www", 60, "A", f"192.0.2.{number + 10}")

        outcomes.append(update(server, both))

    threads = [threading.Thread(target=swap, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["NOERROR"] + ["NXRRSET"] * 5


# signatures: RFC 8945


def test_a_signed_update_and_transfer_are_done_and_answered_signed(signed: Nameserver, shop: Zone) -> None:
    assert update(signed, lambda u: u.add("new", 60, "A", "192.0.2.1"), key=KEY) == "NOERROR"
    assert shop.exists("new", "A")
    shop.change(RecordChange(before=None, after=shop.record(f"n{i}", "TXT", f'"{"x" * 200}"')) for i in range(1000))
    messages = list(
        dns.query.xfr(
            signed.host,
            shop.name,
            port=signed.port,
            keyring=RING,
            keyname=KEY.native.name,
            keyalgorithm=KEY.native.algorithm,
            relativize=False,
            lifetime=PATIENCE,
        )
    )
    assert len(messages) > 3
    assert all(message.had_tsig for message in messages)
    assert len(dns.zone.from_xfr(iter(messages), relativize=False).nodes) == 1003


@pytest.mark.parametrize(
    "algorithm", ["hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-md5.sig-alg.reg.int"]
)
def test_every_algorithm_signs(driver: ZoneFilesDriver, shop: Zone, algorithm: str) -> None:
    key = TsigKey("other.", SECRET, algorithm)
    with Nameserver(driver, update=True, keys=[KEY, key]) as server:
        assert update(server, lambda u: u.add("new", 60, "A", "192.0.2.1"), key=key) == "NOERROR"
        assert update(server, lambda u: u.add("new", 60, "A", "192.0.2.2"), key=KEY) == "NOERROR"
    assert len(shop.get("new", "A").texts) == 2


def test_without_a_signature_there_is_no_update_and_no_transfer_but_any_question(
    signed: Nameserver, shop: Zone
) -> None:
    assert update(signed, lambda u: u.add("new", 60, "A", "192.0.2.1")) == "REFUSED"
    with pytest.raises(dns.query.TransferError) as caught:
        list(dns.query.xfr(signed.host, shop.name, port=signed.port, lifetime=PATIENCE))
    assert caught.value.rcode == dns.rcode.REFUSED
    assert code(ask(signed, "www.shop.example", "A")) == "NOERROR"
    assert not shop.exists("new", "A")


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (TsigKey("nobody.", SECRET), dns.tsig.PeerBadKey),
        (TsigKey("tests.", base64.b64encode(b"another key of the same length!!").decode()), dns.tsig.PeerBadSignature),
        (TsigKey("tests.", SECRET, "hmac-sha512"), dns.tsig.PeerBadKey),
    ],
    ids=["key", "secret", "algorithm"],
)
def test_a_signature_that_does_not_fit_is_told_apart(
    signed: Nameserver, shop: Zone, key: TsigKey, error: type[Exception]
) -> None:
    with pytest.raises(error):
        update(signed, lambda u: u.add("new", 60, "A", "192.0.2.1"), key=key)
    assert not shop.exists("new", "A")


def test_a_message_of_another_time_is_refused_with_our_time(
    signed: Nameserver, shop: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = dns.update.UpdateMessage("shop.example")
    message.add("new", 60, "A", "192.0.2.1")
    message.use_tsig(KEY.native)
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() - 1000)
        wire = message.to_wire()
    with socket.create_connection((signed.host, signed.port), timeout=PATIENCE) as connection:
        connection.sendall(len(wire).to_bytes(2, "big") + wire)
        answer = receive(connection)
    found = dns.message.from_wire(answer, keyring=False)
    assert found.rcode() == dns.rcode.NOTAUTH
    assert found.tsig_error == dns.rcode.BADTIME
    assert abs(int.from_bytes(cast("Any", found.tsig)[0].other, "big") - real()) < 300
    assert found.mac
    assert not shop.exists("new", "A")


def test_a_changed_message_is_refused(signed: Nameserver, shop: Zone) -> None:
    message = dns.update.UpdateMessage("shop.example")
    message.add("new", 60, "A", "192.0.2.1")
    message.use_tsig(KEY.native)
    wire = message.to_wire().replace(bytes([192, 0, 2, 1]), bytes([192, 0, 2, 66]))
    with socket.create_connection((signed.host, signed.port), timeout=PATIENCE) as connection:
        connection.sendall(len(wire).to_bytes(2, "big") + wire)
        found = dns.message.from_wire(receive(connection), keyring=False)
    assert (found.rcode(), found.tsig_error, found.mac) == (dns.rcode.NOTAUTH, dns.rcode.BADSIG, b"")
    assert not shop.exists("new", "A")


def test_a_signed_question_has_a_signed_answer(signed: Nameserver) -> None:
    message = dns.message.make_query("www.shop.example", "A")
    message.use_tsig(KEY.native)
    for tcp in (False, True):
        answer = send(signed, message, tcp=tcp)
        assert answer.had_tsig
        assert len(answer.answer[0]) == 2


@pytest.mark.parametrize(
    ("secret", "algorithm"), [("no base64!", "hmac-sha256"), ("x", "hmac-sha256"), (SECRET, "rot13")]
)
def test_a_key_that_is_none_is_refused_and_not_shown(secret: str, algorithm: str) -> None:
    with pytest.raises(ValueError, match="TSIG") as caught:
        TsigKey("tests.", secret, algorithm)
    assert secret not in str(caught.value)
    assert SECRET not in repr(KEY)
    assert caught.value.__cause__ is None


def receive(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        return stream.read(int.from_bytes(stream.read(2), "big"))


# what is no usual question


def raw(responder: Responder, wire: bytes) -> dns.message.Message | None:
    """Ask past the sockets; say what came back without checking anything but that it can be read."""
    answer = responder.datagram(wire)
    return None if answer is None else dns.message.from_wire(answer, keyring=False)


@pytest.fixture
def responder(shop: Zone, driver: ZoneFilesDriver) -> Responder:
    assert shop.name
    return Responder(source_of(driver, 0), (KEY,), update=True)


QUERY = dns.message.make_query("www.shop.example", "A", id=4711)


def changed(**fields: Any) -> bytes:
    """Return the question with other counts or flags."""
    values = list(struct.unpack("!6H", QUERY.to_wire()[:12]))
    for position, value in fields.items():
        values[int(position[1:])] = value
    return struct.pack("!6H", *values) + QUERY.to_wire()[12:]


@pytest.mark.parametrize(
    ("wire", "rcode"),
    [
        (b"", None),
        (b"x" * 11, None),
        (changed(_1=0x8100), None),
        (changed(_1=0x8500), None),
        (changed(_1=0xA800), None),
        (QUERY.to_wire()[:12], "FORMERR"),
        (QUERY.to_wire()[:-1], "FORMERR"),
        (QUERY.to_wire() + b"x", "FORMERR"),
        (changed(_2=0), "FORMERR"),
        (changed(_2=2), "FORMERR"),
        (changed(_3=1), "FORMERR"),
        (changed(_5=1), "FORMERR"),
        (changed(_1=0x2000), "NOTIMP"),
        (changed(_1=0x1000), "NOTIMP"),
        (changed(_1=0x0800), "NOTIMP"),
        (changed(_1=0x7800), "NOTIMP"),
        (changed(_1=0x2800), "FORMERR"),
        (b"\x12\x67\0\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", "FORMERR"),
        (b"\x12\x67\0\0\0\1\0\0\0\0\0\0" + b"\x3f" * 64 * 5, "FORMERR"),
        (b"\x12\x67\0\0\0\1\0\0\0\0\0\0" + b"\1a" * 130 + b"\0\0\1\0\1", "FORMERR"),
    ],
    ids=range(20),
)
def test_rubbish_is_answered_with_a_code_and_an_answer_not_at_all(
    responder: Responder, wire: bytes, rcode: str | None
) -> None:
    message = raw(responder, wire)
    assert (message is None) is (rcode is None)
    if message is not None:
        assert (code(message), message.id, bool(message.flags & dns.flags.QR)) == (rcode, 0x1267, True)
    assert [dns.message.from_wire(each).rcode() for each in responder.stream(wire)] == (
        [] if rcode is None else [dns.rcode.from_text(rcode)]
    )


@given(st.binary(max_size=100))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_survived(wire: bytes) -> None:
    survives(ANYBODY, wire)


@given(
    st.sampled_from(
        [
            QUERY.to_wire(),
            dns.message.make_query(
                "a.child.shop.example",
                "ANY",
                use_edns=0,
                payload=4096,
                options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"x" * 8)],
            ).to_wire(),
            dns.message.make_query("shop.example", "AXFR").to_wire(),
            dns.message.make_query("shop.example", "IXFR").to_wire(),
        ]
    ),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=4),
    st.none() | st.integers(0, 90),
)
@settings(max_examples=800, deadline=None)
def test_damaged_questions_are_survived(wire: bytes, damage: list[tuple[int, int]], end: int | None) -> None:
    survives(ANYBODY, damaged(wire, damage, end))


@given(st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4))
@settings(max_examples=500, deadline=None)
def test_damaged_updates_are_survived(seed: int, damage: list[tuple[int, int]]) -> None:
    chance = random.Random(seed)  # noqa: S311  no keys
    message = dns.update.UpdateMessage("shop.example", id=1)
    for _ in range(chance.randint(0, 4)):
        name = chance.choice(["www", "new", "shop.example.", "*"])
        chance.choice([message.absent, message.present, message.delete])(
            name, chance.choice(["A", "ANY", "SOA", "CNAME"])
        )
        message.add(name, 60, chance.choice(["A", "TXT"]), "192.0.2.1")
    if chance.random() < 0.3:
        message.use_tsig(KEY.native)
    survives(ANYBODY, damaged(message.to_wire(), damage, None))


def damaged(wire: bytes, damage: list[tuple[int, int]], end: int | None) -> bytes:
    changed = bytearray(wire)
    for at, value in damage:
        if at < len(changed):
            changed[at] = value
    return bytes(changed[:end])


def survives(responder: Responder, wire: bytes) -> None:
    """Ask both ways: no exception is logged, an answer has the id and is one, and an answer is not answered."""
    for answer in (responder.datagram(wire), *responder.stream(wire)):
        if answer is None:
            continue
        assert answer[:2] == wire[:2]
        assert answer[2] & 0x80
        assert not wire[2] & 0x80
        message = dns.message.from_wire(answer, keyring=False)
        assert message.rcode() != dns.rcode.SERVFAIL
        assert len(answer) <= 65_535
    raw_answer = responder.datagram(wire)
    assert raw_answer is None or len(raw_answer) <= 1232


def _anybody() -> Responder:
    driver = MemoryDnsDriver()
    zone = Dns(driver).create(ZoneSpec(name="shop.example"))
    zone.set("www", "A", "192.0.2.1")
    zone.set("child", "NS", "ns.child")
    zone.set("*", "CNAME", "www")
    return Responder(source_of(driver, 60), (), update=True)


ANYBODY = _anybody()


def test_the_question_comes_back_in_its_own_case(server: Nameserver) -> None:
    for name in ("WWW.Shop.Example.", "wWw.sHOP.example."):
        message = ask(server, name, "A")
        assert str(message.question[0].name) == name
        assert str(message.answer[0].name) == name


def test_the_wish_for_recursion_comes_back_and_none_is_offered(server: Nameserver) -> None:
    for wish in (0, dns.flags.RD):
        message = ask(server, "www.shop.example", "A", flags=wish)
        assert message.flags == dns.flags.QR | dns.flags.AA | wish


@pytest.mark.parametrize(
    ("name", "kind", "rdclass"),
    [
        ("www.example.org", "A", "IN"),
        (".", "NS", "IN"),
        ("example", "A", "IN"),
        ("notshop.example", "A", "IN"),
        ("version.bind", "TXT", "CH"),
        ("www.shop.example", "A", "CH"),
        ("www.shop.example", "A", "ANY"),
    ],
)
def test_other_zones_and_classes_are_refused(server: Nameserver, name: str, kind: str, rdclass: str) -> None:
    message = ask(server, name, kind, rdclass=rdclass)
    assert (code(message), message.flags & dns.flags.AA, message.sections[1:]) == ("REFUSED", 0, [[], [], []])


def test_a_version_of_edns_that_is_not_known_is_told(server: Nameserver) -> None:
    message = ask(server, "www.shop.example", "A", use_edns=1)
    assert (code(message), message.edns, message.answer) == ("BADVERS", 0, [])


@pytest.mark.parametrize(
    "options",
    [
        {"use_edns": 0},
        {"want_dnssec": True},
        {"use_edns": 0, "options": [dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"x" * 8)]},
        {"use_edns": 0, "options": [dns.edns.GenericOption(dns.edns.OptionType.make(65001), b"x")]},
    ],
    ids=range(4),
)
def test_edns_is_answered_with_edns(server: Nameserver, options: dict[str, Any]) -> None:
    message = ask(server, "www.shop.example", "A", **options)
    assert (message.edns, message.payload, len(message.answer[0])) == (0, 1232, 2)
    assert bool(message.ednsflags & dns.flags.DO) is bool(options.get("want_dnssec"))
    assert ask(server, "www.shop.example", "A").edns == -1


@pytest.mark.parametrize(
    ("payload", "limit"), [(None, 512), (0, 512), (512, 512), (800, 800), (1232, 1232), (4096, 1232), (65535, 1232)]
)
def test_an_answer_has_as_much_room_as_the_client_offers(
    server: Nameserver, shop: Zone, payload: int | None, limit: int
) -> None:
    options: dict[str, Any] = {} if payload is None else {"use_edns": 0, "payload": payload}
    whole = dict[int, bool]()
    for size in range(300, 1300, 20):
        chunks = " ".join([f'"{"x" * 199}"'] * (size // 200))
        shop.set("big", "TXT", f'{chunks} "{"y" * (size % 200)}"')
        query = dns.message.make_query("big.shop.example", "TXT", **options)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.sendto(query.to_wire(), (server.host, server.port))
            wire = client.recv(65_535)
        message = dns.message.from_wire(wire)
        truncated = bool(message.flags & dns.flags.TC)
        assert len(wire) <= limit
        assert truncated is (not message.answer)
        whole[size] = not truncated
        assert len(ask(server, "big.shop.example", "TXT", tcp=True).answer) == 1
    sizes = [size for size, fits in whole.items() if fits]
    assert sizes == [size for size in whole if size <= max(sizes)]
    assert limit - 100 < max(sizes) < limit


# transfers


def test_an_ixfr_is_answered_with_the_whole_zone_or_that_nothing_changed(server: Nameserver, shop: Zone) -> None:
    current = shop.get("@", "SOA").rdatas[0]
    serial = int.from_bytes(current[-20:-16], "big")
    for theirs, records in ((serial - 1, 5), (serial, 1), (serial + 1, 1)):
        query = dns.message.make_query("shop.example", "IXFR")
        soa = dns.rdata.from_wire(
            dns.rdataclass.IN,
            dns.rdatatype.SOA,
            current[:-20] + theirs.to_bytes(4, "big") + current[-16:],
            0,
            len(current),
        )
        query.authority.append(dns.rrset.from_rdata("shop.example.", 0, soa))
        with socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection:
            dns.query.send_tcp(connection, query)
            message, _ = dns.query.receive_tcp(connection, one_rr_per_rrset=True)
        assert len(message.answer) == records
        assert message.answer[0].rdtype == message.answer[-1].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize(
    ("zone", "rcode"), [("other.example", "NOTAUTH"), ("www.shop.example", "NOTAUTH"), (".", "NOTAUTH")]
)
def test_only_a_zone_is_transferred(server: Nameserver, zone: str, rcode: str) -> None:
    with pytest.raises(dns.query.TransferError) as caught:
        list(dns.query.xfr(server.host, zone, port=server.port, lifetime=PATIENCE))
    assert dns.rcode.to_text(caught.value.rcode) == rcode


def test_a_zone_is_not_transferred_by_udp(server: Nameserver) -> None:
    assert code(ask(server, "shop.example", "AXFR")) == "FORMERR"


# zones that change


def test_what_is_written_is_answered_at_once(server: Nameserver, shop: Zone, root: Path) -> None:
    path = root / "shop.example.zone"
    for number in range(100):
        shop.set("www", "A", f"192.0.2.{number}")
        assert texts(ask(server, "www.shop.example", "A").answer) == [f"www.shop.example. 300 IN A 192.0.2.{number}"]
    text = path.read_text()
    for number in range(10, 100):
        with path.open("r+") as stream:
            stream.write(text.replace("192.0.2.99", f"192.0.2.{number}"))
        assert ask(server, "www.shop.example", "A").answer[0][0].address == f"192.0.2.{number}"


def test_zones_come_and_go(server: Nameserver, driver: ZoneFilesDriver, root: Path) -> None:
    dns_ = Dns(driver)
    for number in range(30):
        name = f"z{number}.example"
        assert code(ask(server, name, "SOA")) == "REFUSED"
        zone = dns_.create(ZoneSpec(name=name))
        assert len(ask(server, name, "SOA").answer) == 1
        zone.set("www", "A", "192.0.2.1")
        assert len(ask(server, f"www.{name}", "A").answer) == 1
        (root / f"{name}.zone").unlink()
        assert code(ask(server, f"www.{name}", "A")) == "REFUSED"
    dns_.create(ZoneSpec(name="sub.shop.example"))
    assert code(ask(server, "www.sub.shop.example", "A")) == "NXDOMAIN"
    assert ask(server, "www.sub.shop.example", "A").authority[0].name == dns.name.from_text("sub.shop.example")


def test_a_broken_file_is_answered_as_it_was_and_breaks_no_other_zone(
    server: Nameserver, driver: ZoneFilesDriver, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Dns(driver).create(ZoneSpec(name="other.example"))
    assert len(ask(server, "www.shop.example", "A").answer) == 1
    path = root / "shop.example.zone"
    whole = path.read_text()
    path.write_text(f"{whole}broken 60 A 192.0.2.256\n")
    (root / "never.example.zone").write_text("broken")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert len(ask(server, "www.shop.example", "A").answer) == 1
            assert code(ask(server, "www.never.example", "A")) == "SERVFAIL"
            assert code(ask(server, "other.example", "SOA")) == "NOERROR"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "shop.example.zone: " in told[0]
    assert "line 5" in told[0]
    path.write_text(whole.replace("192.0.2.1\n", "192.0.2.9\n"))
    assert "192.0.2.9" in str(texts(ask(server, "www.shop.example", "A").answer))
    with pytest.raises(dns.query.TransferError) as caught:
        list(dns.query.xfr(server.host, "never.example", port=server.port, lifetime=PATIENCE))
    assert caught.value.rcode == dns.rcode.SERVFAIL
    assert update(server, lambda u: u.add("new", 60, "A", "192.0.2.1"), zone="never.example") == "SERVFAIL"


def test_a_folder_that_is_not_there_yet_has_no_zones(tmp_path: Path) -> None:
    with Nameserver(tmp_path / "later") as server:
        assert code(ask(server, "shop.example", "SOA")) == "REFUSED"
        Dns(ZoneFilesDriver(tmp_path / "later")).create(ZoneSpec(name="shop.example"))
        assert code(ask(server, "shop.example", "SOA")) == "NOERROR"


def test_a_zone_with_a_name_that_no_file_can_hold_is_served(server: Nameserver, driver: ZoneFilesDriver) -> None:
    Dns(driver).create(ZoneSpec(name="0/25.2.0.192.in-addr.arpa")).set("1", "PTR", "www.example.net.")
    assert len(ask(server, "1.0/25.2.0.192.in-addr.arpa", "PTR").answer) == 1


# other drivers


def test_any_driver_is_served_and_updated() -> None:
    driver = MemoryDnsDriver()
    zone = Dns(driver).create(ZoneSpec(name="shop.example"))
    zone.set("www", "A", "192.0.2.1")
    with Nameserver(driver, update=True, refresh=0) as server:
        assert len(ask(server, "www.shop.example", "A").answer) == 1
        zone.set("later", "A", "192.0.2.2")
        assert len(ask(server, "later.shop.example", "A").answer) == 1
        assert update(server, lambda u: u.add("new", 60, "A", "192.0.2.3")) == "NOERROR"
        assert zone.get("new", "A").texts == ("192.0.2.3",)
        assert len(ask(server, "new.shop.example", "A").answer) == 1
    with Nameserver(driver, update=True, refresh=3600) as server:
        assert update(server, lambda u: u.add("newer", 60, "A", "192.0.2.3")) == "NOERROR"
        assert len(ask(server, "newer.shop.example", "A").answer) == 1
        zone.set("unseen", "A", "192.0.2.4")
        assert code(ask(server, "unseen.shop.example", "A")) == "NXDOMAIN"


def test_what_a_driver_refuses_is_refused() -> None:
    features = attrs.evolve(MemoryDnsDriver().features, types=frozenset({"A", "NS", "SOA"}))
    driver = MemoryDnsDriver(features=features)
    zone = Dns(driver).create(ZoneSpec(name="shop.example"))
    with Nameserver(driver, update=True) as server:
        assert update(server, lambda u: u.add("new", 60, "TXT", "x")) == "REFUSED"
        assert update(server, lambda u: u.add("new", 60, "A", "192.0.2.1")) == "NOERROR"
    assert [record.type for record in zone.records(name="new")] == ["A"]


# sockets


def test_many_questions_on_one_connection_are_answered_in_order(server: Nameserver) -> None:
    wires = [dns.message.make_query("www.shop.example", "A", id=number).to_wire() for number in range(200)]
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection:
        connection.sendall(b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires))
        with connection.makefile("rb") as stream:
            answers = [dns.message.from_wire(stream.read(int.from_bytes(stream.read(2), "big"))) for _ in wires]
    assert [answer.id for answer in answers] == list(range(200))
    assert all(len(answer.answer[0]) == 2 for answer in answers)


def test_a_question_that_comes_byte_by_byte_is_answered(server: Nameserver) -> None:
    wire = QUERY.to_wire()
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in len(wire).to_bytes(2, "big") + wire:
            connection.sendall(bytes([byte]))
        assert dns.message.from_wire(receive(connection)).id == 4711


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\x20", b"\0\x20abc", b"\0\0", b"\xff\xff" + b"x" * 1000])
def test_a_connection_that_breaks_off_harms_nobody(server: Nameserver, sent: bytes) -> None:
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        if sent:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert code(ask(server, "www.shop.example", "A", tcp=True)) == "NOERROR"
    assert code(ask(server, "www.shop.example", "A")) == "NOERROR"


def test_udp_rubbish_in_between_harms_nobody(server: Nameserver) -> None:
    chance = random.Random(7)  # noqa: S311  no keys
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(300):
            client.sendto(chance.randbytes(chance.randint(0, 300)), (server.host, server.port))
    for _ in range(20):  # the kernel drops what finds its buffer full
        with contextlib.suppress(dns.exception.Timeout):
            answer = dns.query.udp(QUERY, server.host, port=server.port, timeout=PATIENCE / 20)
            break
    assert len(answer.answer[0]) == 2


def test_many_clients_ask_at_once(server: Nameserver) -> None:
    found = list[str]()

    def work(who: int) -> None:
        for number in range(30):
            found.extend(texts(ask(server, "www.shop.example", "A", tcp=(who + number) % 5 == 0).answer))

    threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 * 30 * 2


def test_who_comes_to_a_full_server_takes_the_place_of_who_was_silent_the_longest(
    server: Nameserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nameserver, "_MOST_CONNECTIONS", 3)
    question = len(QUERY.to_wire()).to_bytes(2, "big") + QUERY.to_wire()

    def asked(connection: socket.socket) -> int:
        connection.sendall(question)
        told = dns.message.from_wire(receive(connection)).id
        while len(server._silent) < len(server._connections):  # it is answered, and not yet silent
            time.sleep(0.001)
        return told

    with contextlib.ExitStack() as stack:
        first, second, third = (
            stack.enter_context(socket.create_connection((server.host, server.port), timeout=PATIENCE))
            for _ in range(3)
        )
        assert [asked(each) for each in (first, second, third, first)] == [4711] * 4
        second.sendall(question[:5])  # half of a question is none
        assert code(ask(server, "www.shop.example", "A", tcp=True)) == "NOERROR"
        assert second.recv(1) == b""
        assert [asked(each) for each in (first, third)] == [4711] * 2


def test_a_closed_server_leaves_no_thread_no_socket_and_no_connection(driver: ZoneFilesDriver) -> None:
    before = threading.active_count()
    server = Nameserver(driver)
    idle = [socket.create_connection((server.host, server.port), timeout=PATIENCE) for _ in range(5)]
    assert code(ask(server, "shop.example", "A", tcp=True)) == "REFUSED"
    server.close()
    server.close()
    assert threading.active_count() == before
    for connection in idle:
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        connection.close()
    with Nameserver(driver, port=server.port) as again:
        assert again.port == server.port
        with pytest.raises(OSError, match="in use"):
            Nameserver(driver, port=again.port)


def test_it_listens_on_loopback_unless_told_otherwise(server: Nameserver) -> None:
    assert server.host == "127.0.0.1"
    assert str(server.port) in repr(server)
    assert "responder" not in repr(server)


def test_it_speaks_ipv6(driver: ZoneFilesDriver, shop: Zone) -> None:
    assert shop.name
    with Nameserver(driver, host="::1") as server:
        assert code(ask(server, "www.shop.example", "A")) == "NOERROR"
        assert code(ask(server, "www.shop.example", "A", tcp=True)) == "NOERROR"


def test_usual_questions_go_the_quick_way() -> None:
    """Else the rest of this file would test the thorough way twice."""
    for options in (
        {},
        {"use_edns": 0},
        {"want_dnssec": True},
        {"use_edns": 0, "options": [dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"x" * 8)]},
    ):
        found = question_of(dns.message.make_query("www.shop.example", "A", **options).to_wire())
        assert found is not None
        assert found.name == b"\3www\4shop\7example\0"
    for message in (
        dns.message.make_query(".", "AXFR"),
        dns.message.make_query(".", "A", "CH"),
        dns.update.UpdateMessage("a."),
    ):
        assert question_of(message.to_wire()) is None
