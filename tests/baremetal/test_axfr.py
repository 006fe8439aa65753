"""The reader of messages and transfers: what dnspython reads, and what nobody should."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.dns import RecordSet
from shiftable.dns._wire import canonical_name
from shiftable.dns.driver import RecordKey
from shiftable.testing.conformance.dns import RECORDS
from shiftable_baremetal._axfr import Answer, Malformed, Transfer, applied, packed, parsed, record_sets, type_number

ZONE = (b"conf", b"test")
HEAD = struct.Struct("!6H")


def message(*rrsets: tuple[str, str, Iterable[str]]) -> bytes:
    made = dns.message.Message(7)
    made.flags = 0x8400
    for name, kind, values in rrsets:
        owner = name if name.endswith(".") else f"{name}.conf.test."
        number = dns.rdatatype.from_text(kind)
        origin = dns.name.from_text("conf.test.")
        rdatas = [
            dns.rdata.from_text(dns.rdataclass.IN, number, value, origin=origin, relativize=False) for value in values
        ]
        made.answer.append(dns.rrset.from_rdata_list(owner, 600, rdatas))
    return made.to_wire(max_size=65535)


def raw(*, answers: bytes = b"", counts: tuple[int, int, int, int] = (0, 0, 0, 0)) -> bytes:
    return HEAD.pack(7, 0x8400, *counts) + answers


def record(owner: bytes, kind: int, rdata: bytes, ttl: int = 60) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, ttl, len(rdata)) + rdata


def soa(serial: int) -> Answer:
    names = packed((b"a", b"test")) + packed((b"b", b"test"))
    return ZONE, 6, 60, names + struct.pack("!5I", serial, 1, 2, 3, 4)


def a(name: bytes, last: int, ttl: int = 60) -> Answer:
    return (name, *ZONE), 1, ttl, bytes((192, 0, 2, last))


# messages


@pytest.mark.parametrize(("name", "type", "values"), RECORDS, ids=[f"{name[:20]}-{kind}" for name, kind, _ in RECORDS])
def test_what_dnspython_writes_is_read_byte_for_byte(name: str, type: str, values: tuple[str, ...]) -> None:
    owner = "conf.test." if name == "@" else name
    before = ("first", "NS", ("ns1.before.test.", f"{'l' * 40}.before.test."))
    found = parsed(message(before, (owner, type, values)))
    (_, read) = record_sets(found.answers)
    assert read == RecordSet.of(name, type, values, ttl=600, origin="conf.test.")
    assert sorted(read.rdatas) == sorted(RecordSet.of(name, type, values, ttl=600, origin="conf.test.").rdatas)
    assert (found.id, found.rcode, found.is_answer, found.authoritative) == (7, 0, True, True)


def test_compressed_names_are_written_out() -> None:
    values = ("10 mail.conf.test.", "20 other.mail.conf.test.")
    wire = message(("mail", "MX", values))
    assert wire.count(b"\4conf\4test\0") == 1
    (read,) = record_sets(parsed(wire).answers)
    assert set(read.texts) == set(values)


def test_the_case_of_a_value_is_kept_and_that_of_an_owner_folded() -> None:
    (read,) = record_sets(parsed(message(("WwW", "CNAME", ("Target.Example.",)))).answers)
    assert read.name == "www.conf.test."
    assert read.texts == ("Target.Example.",)


ZONE_WIRE = b"\4conf\4test\0"


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"", "too early"),
        (b"\0" * 11, "too early"),
        (raw(counts=(0, 1, 0, 0)), "too early"),
        (raw(counts=(1, 0, 0, 0)), "too early"),
        (raw(answers=b"x"), "bytes follow"),
        (raw(answers=record(b"\xc0\x0c", 1, b"abcd"), counts=(0, 1, 0, 0)), "points forward, to itself"),
        (raw(answers=record(b"\xc0\x20", 1, b"abcd"), counts=(0, 1, 0, 0)), "points forward"),
        (raw(answers=record(b"\xff\xff", 1, b"abcd"), counts=(0, 1, 0, 0)), "points forward"),
        (raw(answers=record(b"\xc0\x00", 1, b"abcd"), counts=(0, 1, 0, 0)), "points forward"),
        (raw(answers=record(b"\1a\xc0\x0c", 1, b"abcd"), counts=(0, 1, 0, 0)), "points forward"),
        (raw(answers=record(b"\x41a\0", 1, b"abcd"), counts=(0, 1, 0, 0)), "unknown kind 1"),
        (raw(answers=record(b"\x80a\0", 1, b"abcd"), counts=(0, 1, 0, 0)), "unknown kind 2"),
        (raw(answers=record((b"\x3f" + b"l" * 63) * 4 + b"\0", 1, b"abcd"), counts=(0, 1, 0, 0)), "longer than 255"),
        (raw(answers=record(ZONE_WIRE, 1, b"abcd")[:-1], counts=(0, 1, 0, 0)), "within a record"),
        (raw(answers=record(ZONE_WIRE, 2, b"\3ab"), counts=(0, 1, 0, 0)), "too early"),
        (raw(answers=record(ZONE_WIRE, 2, b"\3ab") + b"c\0", counts=(0, 1, 0, 0)), "longer than its record"),
        (raw(answers=record(ZONE_WIRE, 15, b"\0"), counts=(0, 1, 0, 0)), "too early"),
        (raw(answers=record(b"\0", 250, b"x") + record(b"\0", 1, b"x"), counts=(0, 1, 0, 1)), "stand at the end"),
        (raw(answers=record(b"\0", 250, b"x") * 2, counts=(0, 0, 0, 2)), "stand at the end"),
    ],
)
def test_what_is_no_message_is_refused(wire: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parsed(wire)


def test_a_chain_of_pointers_ends_however_long_it_is() -> None:
    """Each pointer leads further back, so that a message of 64 KiB costs what it has bytes."""
    first = record(ZONE_WIRE, 16, b"\0")
    answers, at = [first], HEAD.size
    for _ in range(1000):
        answers.append(record(struct.pack("!H", 0xC000 | at), 16, b"\0"))
        at = HEAD.size + sum(map(len, answers[:-1])) if at < 0x3F00 else at
    found = parsed(raw(answers=b"".join(answers), counts=(0, len(answers), 0, 0)))
    assert {answer[0] for answer in found.answers} == {ZONE}


WHOLE = message(*(each for each in RECORDS[:40] if each[0] != "@"))


@given(st.data())
def test_whatever_arrives_is_a_message_or_malformed(data: Any) -> None:
    wire = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 6))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(wire)))
    try:
        ours = parsed(bytes(wire[:cut]))
    except Malformed:
        return
    for owner, kind, _, rdata in ours.answers:
        assert sum(map(len, owner)) + len(owner) < 255
        assert 0 <= kind < 65536
        assert len(rdata) < 70000


@given(st.lists(st.sampled_from(RECORDS[:58]), min_size=1, max_size=12, unique_by=lambda each: each[:2]))
def test_dnspython_and_this_read_the_same(chosen: list[tuple[str, str, tuple[str, ...]]]) -> None:
    wire = message(*(each for each in chosen if each[0] != "@"))
    theirs = {
        (rrset.name.to_text().lower(), dns.rdatatype.to_text(rrset.rdtype), rdata.to_wire())
        for rrset in dns.message.from_wire(wire).answer
        for rdata in rrset
    }
    ours = {(each.name, each.type, rdata) for each in record_sets(parsed(wire).answers) for rdata in each.rdatas}
    assert {(RecordSet(name=n, type=t, ttl=0, rdatas=()).name, t, r) for n, t, r in theirs} == ours


LABELS = st.lists(st.text('aZ09-_*/. \\\\"\x7fé', min_size=1, max_size=8).map(str.encode), max_size=5).map(tuple)


@given(LABELS)
def test_an_owner_is_spelt_as_a_name_that_dnspython_reads_back(labels: tuple[bytes, ...]) -> None:
    (found,) = record_sets([(labels, 1, 300, b"\xc0\0\x02\1")])

    assert dns.name.Name([*(label.lower() for label in labels), b""]) == dns.name.from_text(found.name)
    assert canonical_name(found.name) == found.name


def test_types_have_their_numbers() -> None:
    assert [type_number(name) for name in ("A", "TYPE65400", "HTTPS")] == [1, 65400, 65]
    with pytest.raises(ValueError, match="NOSUCH"):
        type_number("NOSUCH")


# whole transfers


def fed(transfer: Transfer, *messages: list[Answer]) -> Transfer:
    for each in messages:
        transfer.feed(each)
    return transfer


def test_a_transfer_ends_with_the_soa_it_began_with() -> None:
    done = fed(Transfer(ZONE), [soa(5), a(b"x", 1)], [a(b"y", 2)], [a(b"z", 3), soa(5)])
    assert done.done
    assert (done.serial, done.steps) == (5, None)
    assert [answer[0][0] for answer in done.records] == [b"conf", b"x", b"y", b"z"]


def test_a_transfer_that_has_not_ended_is_not_done() -> None:
    assert not fed(Transfer(ZONE), [soa(5), a(b"x", 1)], [a(b"y", 2)]).done


def test_one_record_in_each_message_is_a_transfer_too() -> None:
    assert fed(Transfer(ZONE), [soa(5)], [a(b"x", 1)], [soa(5)]).done


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([[a(b"x", 1)]], "begin with"),
        ([[(ZONE, 6, 60, b"short")]], "too short"),
        ([[((b"sub", *ZONE), *soa(5)[1:])]], "begin with"),
        ([[soa(5), soa(6)]], "another version"),
        ([[soa(5), soa(5), a(b"x", 1)]], "follow the end"),
        ([[soa(5), soa(5)], [a(b"x", 1)]], "follow the end"),
        ([[soa(5), ((b"x", b"other"), 1, 60, b"abcd")]], "not in the zone"),
        ([[soa(5), ((b"x.conf", b"test"), 1, 60, b"abcd")]], "not in the zone"),
        ([[soa(5), ((b"test",), 1, 60, b"abcd")]], "not in the zone"),
    ],
)
def test_what_is_no_transfer_is_refused(messages: list[list[Answer]], why: str) -> None:
    with pytest.raises(Malformed, match=why):
        fed(Transfer(ZONE), *messages)


def test_a_set_has_its_shortest_ttl() -> None:
    (found,) = record_sets([a(b"x", 1, 300), a(b"x", 2, 60), a(b"x", 3, 300)])
    assert (found.ttl, len(found.rdatas)) == (60, 3)


# incremental ones


def test_nothing_has_changed() -> None:
    done = fed(Transfer(ZONE, 5), [soa(5)])
    assert (done.done, done.steps) == (True, [])


def test_steps_are_told_from_a_whole_zone() -> None:
    done = fed(
        Transfer(ZONE, 5),
        [soa(7), soa(5), a(b"x", 1)],
        [soa(6), a(b"y", 2), soa(6)],
        [soa(7), a(b"z", 3), soa(7)],
    )
    assert done.done
    assert done.steps is not None
    assert [([r[0][0] for r in s.deleted], [r[0][0] for r in s.added]) for s in done.steps] == [
        ([b"x"], [b"y"]),
        ([], [b"z"]),
    ]


def test_a_server_may_send_the_whole_zone_instead() -> None:
    done = fed(Transfer(ZONE, 5), [soa(7)], [a(b"x", 1), soa(7)])
    assert (done.done, done.steps, len(done.records)) == (True, None, 2)


def test_an_older_version_is_refused_rather_than_waited_for() -> None:
    with pytest.raises(Malformed, match="older"):
        fed(Transfer(ZONE, 5), [soa(4)])


def test_serials_wrap() -> None:
    done = fed(Transfer(ZONE, 2**32 - 1), [soa(1), soa(2**32 - 1), soa(1), a(b"x", 1), soa(1)])
    assert done.done


def held(*answers: Answer) -> dict[RecordKey, RecordSet]:
    return {each.key: each for each in record_sets(answers)}


def steps(serial: int, *answers: Answer) -> tuple[Any, Answer]:
    done = fed(Transfer(ZONE, serial), list(answers))
    assert done.done
    return done.steps, answers[0]


def test_steps_lead_from_one_zone_to_the_next() -> None:
    before = held(soa(5), a(b"x", 1), a(b"x", 2), a(b"gone", 3), a(b"ttl", 4, 60))
    done, apex = steps(
        5,
        soa(6),
        soa(5),
        a(b"x", 1),
        a(b"gone", 3),
        a(b"ttl", 4, 60),
        soa(6),
        a(b"x", 9),
        a(b"new", 7),
        a(b"ttl", 4, 90),
        soa(6),
    )
    after = applied(done, apex, before)
    assert after == held(soa(6), a(b"x", 2), a(b"x", 9), a(b"new", 7), a(b"ttl", 4, 90))
    assert after[RecordKey("conf.test.", "SOA")].rdatas == (soa(6)[3],)
    assert before == held(soa(5), a(b"x", 1), a(b"x", 2), a(b"gone", 3), a(b"ttl", 4, 60))


@pytest.mark.parametrize(
    ("between", "why"),
    [
        ((soa(5), a(b"y", 1), soa(6)), "goes that is not there"),
        ((soa(5), a(b"x", 9), soa(6)), "goes that is not there"),
        ((soa(5), soa(6), a(b"x", 1)), "comes that is there already"),
    ],
)
def test_a_history_of_another_zone_is_noticed(between: tuple[Answer, ...], why: str) -> None:
    done, apex = steps(5, soa(6), *between, soa(6))
    with pytest.raises(Malformed, match=why):
        applied(done, apex, held(soa(5), a(b"x", 1)))
