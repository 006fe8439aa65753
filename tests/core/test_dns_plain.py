"""The fast parsers of usual values: what they understand, they understand as dnspython does."""

from __future__ import annotations

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.dns._plain import decoded, encoded, lines
from shiftable.dns._text import read_zone
from shiftable.testing.conformance.dns import RECORDS

ORIGIN = "z.test."
TYPES = ("A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SOA", "SPF", "SRV", "TXT")

NUMBERS = (
    "0 1 10 255 256 65535 65536 01 -1 +1 0x1 1_0 1.2.3.4 1.2.3 1.2.3.04 ::1 :: 1::2 2001:DB8::A g:: ::ffff:1.2.3.4"
)
NAMES = "www www. A.b. a..b . @ * *.a _x._tcp a/b é a\\.b issue iodef ; ( ::1.2.3.4 fe80::1%lo"
STRINGS = ['"', '""', '"a b"', '"a;b"', '"\\""', '"\\097"', '"é"', f'"{"x" * 255}"', f'"{"x" * 256}"']
ODD = ["", " ", "\t", chr(0x661), "x" * 63, "x" * 64, ".".join(["y" * 63] * 4)]
PIECES = st.sampled_from([*NUMBERS.split(" "), *NAMES.split(" "), *STRINGS, *ODD])
TIMES = st.sampled_from(["0", "1", "007", "2147483648", "4294967295", "4294967296", "1h", "-1", "", chr(0x661), "1_0"])
STARTS = st.tuples(PIECES, PIECES, TIMES, TIMES, TIMES, TIMES, TIMES).map(" ".join)
TEXTS = st.one_of(
    STARTS,
    st.lists(PIECES, min_size=1, max_size=5).map(" ".join),
    st.lists(PIECES, min_size=1, max_size=4).map("".join),
)


def parsed(type: str, text: str) -> bytes | None:
    """Return what dnspython makes of a value; ``None`` for an error."""
    number, origin = dns.rdatatype.from_text(type), dns.name.from_text(ORIGIN)
    try:
        return dns.rdata.from_text(dns.rdataclass.IN, number, text, origin=origin, relativize=False).to_wire()
    except (dns.exception.DNSException, ValueError):
        return None


def printed(type: str, wire: bytes) -> str | None:
    number = dns.rdatatype.from_text(type)
    try:
        return dns.rdata.from_wire(dns.rdataclass.IN, number, wire, 0, len(wire)).to_text()
    except (dns.exception.DNSException, ValueError):
        return None


@given(st.sampled_from(TYPES), TEXTS)
def test_what_is_parsed_is_parsed_as_dnspython_does(type: str, text: str) -> None:
    found = encoded(type, text, ORIGIN)
    assert found is None or found == parsed(type, text)


WIRES = st.one_of(
    st.binary(max_size=24),
    st.lists(st.binary(max_size=20).map(lambda label: bytes([len(label)]) + label), max_size=4).map(b"".join),
    st.sampled_from([b"\1a\1B\0", b"\0", b"\0\12\1a\0", b"\0\1\0\2\0\3\1*\0", b"\0\5issuele.org", b"\200\5issue;"]),
    st.tuples(st.sampled_from([b"\0", b"\1a\0", b"\1a\1B\0", b"\2a", b"\3a.b\0", b""]), st.binary(max_size=24)).map(
        b"".join
    ),
    st.lists(st.sampled_from([b"\0", b"\1a\0", b"\2a", b"\1;\0", bytes(19), bytes(20), b"\377" * 20]), max_size=4).map(
        b"".join
    ),
    st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big")),
    st.integers(0, 2**128 - 1).map(lambda number: number.to_bytes(16, "big")),
    st.integers(0, 2**64 - 1).map(lambda number: bytes(8) + number.to_bytes(8, "big")),
)


@given(st.sampled_from(TYPES), WIRES)
def test_what_is_printed_is_printed_as_dnspython_does(type: str, wire: bytes) -> None:
    found = decoded(type, wire)
    assert found is None or found == printed(type, wire)


@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("A", "192.0.2.1"),
        ("AAAA", "2001:db8::1"),
        ("CAA", '0 issue "ca.example.net"'),
        ("CNAME", "Target.Example.net."),
        ("MX", "10 mail.example.net."),
        ("NS", "ns1.example.net."),
        ("PTR", "host.example.net."),
        ("SOA", "ns1.example.net. Hostmaster.example.net. 2026112201 7200 900 1209600 300"),
        ("SRV", "10 60 5060 sip.example.net."),
        ("TXT", '"v=spf1 -all" "" "k=rsa; p=MIGf"'),
    ],
)
def test_the_usual_values_are_understood_both_ways(type: str, value: str) -> None:
    wire = encoded(type, value, ORIGIN)
    assert wire is not None
    assert (wire, decoded(type, wire)) == (parsed(type, value), value)


@pytest.mark.parametrize(
    ("type", "text"), [("CNAME", "www"), ("MX", "10 @"), ("NS", "."), ("SRV", "0 0 0 ."), ("SOA", "@ host 1 2 3 4 5")]
)
def test_names_are_completed_with_the_origin(type: str, text: str) -> None:
    assert encoded(type, text, ORIGIN) == parsed(type, text)


@pytest.mark.parametrize(
    "text",
    [
        "www.z.test. 1 A",
        "www 1 IN A 192.0.2.1",
        "$TTL 1",
        "a\\. 1 IN A 192.0.2.1",
        " 1 IN A x",
        "z.test. 2147483648 IN A 192.0.2.1",
    ],
)
def test_other_lines_are_left_to_a_whole_parser(text: str) -> None:
    with pytest.raises(ValueError, match=r"relative|no record|no TTL"):
        list(lines(text, ORIGIN))


def test_the_longest_ttl_is_read_a_line_at_a_time() -> None:
    assert [("z.test.", 2147483647, "A", "192.0.2.1")] == list(lines("z.test. 2147483647 IN A 192.0.2.1\n", ORIGIN))


def test_every_record_a_zone_may_hold_reads_the_same_a_line_at_a_time_and_by_the_whole_parser() -> None:
    text = f"$ORIGIN {ORIGIN}\n"
    for name, kind, values in RECORDS:
        owner = ORIGIN if name == "@" else f"{name}.{ORIGIN}"
        text += "".join(f"{owner} 600 IN {kind} {value}\n" for value in values)
    plain = [(kind, ttl, values) for _, kind, ttl, values in read_zone(text, ORIGIN)]
    assert len(list(lines(text, ORIGIN))) == sum(len(values) for _, _, values in RECORDS)
    assert list(read_zone(text, ORIGIN)) == list(read_zone(f"{text}; and a comment\n", ORIGIN))
    assert len(plain) == len(RECORDS)
