"""Names and rdata as bytes, against dnspython."""

from __future__ import annotations

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.dns import RecordChange, RecordSet
from shiftable.dns._wire import absolute, canonical_name, canonical_rdata, is_within, labels
from shiftable.testing.conformance.dns import RECORDS

LABELS = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6).map(tuple)


@given(LABELS)
def test_a_name_means_the_same_as_in_dnspython(parts: tuple[bytes, ...]) -> None:
    theirs = dns.name.Name([*parts, b""])
    assert labels(theirs.to_text()) == parts
    assert dns.name.from_text(canonical_name(theirs.to_text())) == theirs
    assert canonical_name(canonical_name(theirs.to_text())) == canonical_name(theirs.to_text())
    assert canonical_name(theirs.to_text()) == theirs.canonicalize().to_text()


@given(LABELS, LABELS)
def test_being_within_a_zone_is_decided_by_labels(parts: tuple[bytes, ...], origin: tuple[bytes, ...]) -> None:
    zone, other = dns.name.Name([*origin, b""]), dns.name.Name([*parts, b""])
    within = dns.name.Name([*parts[:1], *origin, b""])
    for name in (zone, other, within):
        found = is_within(canonical_name(name.to_text()), canonical_name(zone.to_text()))
        assert found == name.is_subdomain(zone)


def test_a_dot_in_a_label_is_no_border() -> None:
    assert not is_within(r"evil\.shop.example.", "shop.example.")
    assert is_within(r"evil\.x.shop.example.", "shop.example.")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("www", "www.z.test."), ("WWW.", "www."), ("@", "z.test."), (r"\@", r"\@.z.test."), (r"a\.", r"a\..z.test.")],
)
def test_relative_names_are_completed(name: str, expected: str) -> None:
    assert absolute(name, "z.test.") == expected


@pytest.mark.parametrize("name", ["a", "", "..", "a..b.", ".a.", "\\25.", "\\256.", "ü.", "x" * 64 + ".", "a." * 128])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_name(name)


@pytest.mark.parametrize(("type", "value"), [(kind, value) for _, kind, values in RECORDS for value in values[:3]])
def test_only_the_case_of_embedded_names_is_folded(type: str, value: str) -> None:
    number = dns.rdatatype.from_text(type)
    parsed = dns.rdata.from_text(dns.rdataclass.IN, number, value)
    wire = parsed.to_wire() or b""
    folded = canonical_rdata(type, wire)
    assert dns.rdata.from_wire(dns.rdataclass.IN, number, folded, 0, len(folded)) == parsed
    if type not in {"SVCB", "HTTPS"}:  # which DNSSEC does not fold, and a resolver does
        assert folded == parsed.to_digestable()


def test_malformed_rdata_is_equal_only_to_itself() -> None:
    assert canonical_rdata("MX", b"\0\12\7EX") == b"\0\12\7EX"
    assert canonical_rdata("SRV", b"") == b""


def test_record_sets_are_equal_when_a_resolver_could_not_tell() -> None:
    one = RecordSet.of("WWW.z.test.", "mx", ["10 A.z.test.", "20 b.z.test."], ttl=60)
    same = RecordSet.of("www", "TYPE15", ["20 B", "10 a"], ttl=60, origin="z.test.")
    assert one == same
    assert hash(one) == hash(same)
    assert one.token == same.token
    assert one.token != RecordSet.of("www", "MX", ["20 b", "10 a"], ttl=61, origin="z.test.").token
    assert one.texts == ("10 A.z.test.", "20 b.z.test.")


def test_an_unknown_type_passes_through_as_bytes() -> None:
    record = RecordSet(name="a.test.", type="type65400", ttl=1, rdatas=(b"\1\2",))
    assert (record.type, record.texts) == ("TYPE65400", (r"\# 2 0102",))
    assert RecordSet.of("a.test.", "A", [r"\# 4 c0000201"], ttl=1).texts == ("192.0.2.1",)
    assert RecordSet(name="a.test.", type="A", ttl=1, rdatas=(b"\1",)).texts == (r"\# 1 01",)


def test_a_change_stays_with_its_record_set() -> None:
    one, other = (RecordSet.of(name, "A", ["192.0.2.1"], ttl=1) for name in ("a.", "b."))
    with pytest.raises(ValueError, match="cannot become"):
        RecordChange(before=one, after=other)
    with pytest.raises(ValueError, match="before or after"):
        RecordChange(before=None, after=None)
