"""Questions and replies as bytes, as dnspython writes and reads them."""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.migrate._dns_message import Question, Reply, is_reply, message, wire_name, written
from shiftable.testing.conformance.dns import RECORDS

OWNER = "host.shop.example."
VALUES = {
    "A": ("192.0.2.1", "192.0.2.2", "198.51.100.7"),
    "AAAA": ("2001:db8::1", "2001:db8::2", "::ffff:192.0.2.1"),
    "TXT": ('"one"', '"two" "chunks"', f'"{"x" * 255}"'),
    "CAA": ('0 issue "ca.example"', '128 iodef "mailto:a@b.example"', '0 issue ";"'),
}
SETS = st.sampled_from(sorted(VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(st.sampled_from(VALUES[kind]), min_size=1, unique=True))
)
TTLS = st.integers(0, 2**31 - 1)


def rrset(kind: str, values: list[str], ttl: int = 300, owner: str = OWNER) -> dns.rrset.RRset:
    origin = dns.name.from_text("shop.example.")
    number = dns.rdatatype.from_text(kind)
    rdatas = [dns.rdata.from_text(dns.rdataclass.IN, number, each, origin=origin, relativize=False) for each in values]
    return dns.rrset.from_rdata_list(dns.name.from_text(owner, origin), ttl, rdatas)


def wires(found: dns.rrset.RRset) -> tuple[bytes, ...]:
    return tuple(each.to_wire() for each in found)


def question(found: dns.rrset.RRset) -> Question:
    return Question(wire_name(found.name.to_text().lower()), int(found.rdtype))


def answered(*answer: dns.rrset.RRset, flags: dns.flags.Flag = dns.flags.AA) -> bytes:
    """Answer a question of ours, as a server that uses dnspython does."""
    query = dns.message.from_wire(message(7, 0, question(answer[0])))
    made = dns.message.make_response(query)
    made.flags |= flags
    made.answer = list(answer)
    return made.to_wire(max_size=65_535)


def test_a_question_is_what_dnspython_reads() -> None:
    found = dns.message.from_wire(message(4711, 0x0100, Question(wire_name(r"a\.b.shop.example."), 16)))

    assert (4711, dns.flags.RD, 0, 1232) == (found.id, found.flags, found.edns, found.payload)
    assert [r"a\.b.shop.example. IN TXT"] == [each.to_text() for each in found.question]


@given(SETS, TTLS)
def test_the_usual_answer_is_recognized_in_whatever_order_its_values_come(
    made: tuple[str, list[str]], ttl: int
) -> None:
    kind, values = made
    found = rrset(kind, values, ttl)
    reply = Reply(question(found), answered(rrset(kind, values[::-1], ttl)))

    assert reply.has_just(written(found.rdtype, ttl, wires(found)))


@given(SETS, st.data())
def test_what_is_taken_for_the_usual_answer_is_that_for_dnspython_too(
    made: tuple[str, list[str]], data: st.DataObject
) -> None:
    found = rrset(*made)
    wire = bytearray(answered(found))
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    asked, end = question(found), data.draw(st.sampled_from([len(wire), len(wire) - 1, len(wire) - 11]))
    reply = Reply(asked, bytes(wire[:end]))

    if is_reply(reply.data, asked) and reply.has_just(written(asked.type, 300, wires(found))):
        read = dns.message.from_wire(reply.data)
        assert dns.rcode.NOERROR == read.rcode()
        assert dns.flags.AA == read.flags & (dns.flags.AA | dns.flags.TC)
        assert [(found.name, 300, sorted(wires(found)))] == [
            (each.name, each.ttl, sorted(wires(each))) for each in read.answer
        ]
        assert [] == read.authority


@pytest.mark.parametrize(
    "wire",
    [
        answered(rrset("A", ["192.0.2.1"])),
        answered(rrset("A", ["192.0.2.1", "192.0.2.2", "192.0.2.3"])),
        answered(rrset("A", ["192.0.2.1", "192.0.2.3"])),
        answered(rrset("A", ["192.0.2.1", "192.0.2.2"], ttl=301)),
        answered(rrset("A", ["192.0.2.1", "192.0.2.2"]), rrset("TXT", ['"more"'])),
        answered(rrset("A", ["192.0.2.1", "192.0.2.2"]), flags=dns.flags.Flag(0)),
        answered(rrset("A", ["192.0.2.1", "192.0.2.2"]), flags=dns.flags.AA | dns.flags.TC),
        answered(rrset("A", ["192.0.2.1", "192.0.2.2"])) + b"\0",
        answered(rrset("A", ["192.0.2.1", "192.0.2.2"]))[:-1],
    ],
    ids=["fewer", "more", "others", "ttl", "type", "not authoritative", "truncated", "longer", "shorter"],
)
def test_any_other_answer_has_to_be_read(wire: bytes) -> None:
    found = rrset("A", ["192.0.2.1", "192.0.2.2"])
    assert not Reply(question(found), wire).has_just(written(1, 300, wires(found)))


def test_an_answer_with_one_value_twice_is_not_taken_for_one_with_two() -> None:
    found = rrset("A", ["192.0.2.1", "192.0.2.2"])
    wire = answered(found)
    twice = wire.replace(bytes((192, 0, 2, 2)), bytes((192, 0, 2, 1)))
    assert not Reply(question(found), twice).has_just(written(1, 300, wires(found)))


@pytest.mark.parametrize(("name", "kind", "values"), RECORDS, ids=[f"{name} {kind}" for name, kind, _ in RECORDS])
def test_answers_of_every_type_are_read_as_dnspython_reads_them(name: str, kind: str, values: tuple[str, ...]) -> None:
    owner = OWNER if name == "@" else f"{name}.shop.example."
    found = rrset(kind, list(values), owner=owner)
    read = Reply(question(found), answered(found)).read()

    assert read is not None
    assert {(found.name.to_digestable(), int(found.rdtype), 300, wire) for wire in wires(found)} == {
        (each.name, each.type, each.ttl, each.rdata) for each in read.answer
    }


@given(st.binary(max_size=80))
def test_whatever_arrives_is_an_answer_or_none(data: bytes) -> None:
    asked = Question(wire_name(OWNER), 1)
    head = message(7, 0, asked)[: 16 + len(asked.name)]
    Reply(asked, head[:2] + b"\x84\0" + head[4:6] + b"\0\1\0\1\0\1" + head[12:] + data).read()
