"""Asking name servers: every record set, what no one has written, liars, droppers and silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from shiftable.dns import RecordSet
from shiftable.errors import ConfigError
from shiftable.migrate import NameServer, Trouble
from shiftable.migrate._dns_ask import Unreachable, ask
from shiftable.migrate._dns_message import Question, record_type, wire_name
from shiftable.testing.conformance.dns import RECORDS

from .answering import Answering
from .test_dns import ZONE, Sides, reasons, record, routed, sides, troubles, write

__all__ = ["sides"]

ORIGIN = f"{ZONE}."


def answering(found: Sides, **more: Any) -> Answering:
    """Serve what the target holds."""
    return Answering(ORIGIN, found.target.records(), **more)


@pytest.fixture
def served(sides: Sides) -> Iterator[tuple[Sides, Answering]]:
    """Move 50 record sets of several kinds and serve them."""
    sides.fill(40)
    write(
        sides.source,
        [
            record("*.wild", "A", "192.0.2.1"),
            record("alias", "CNAME", "Target.example.net."),
            record("sub", "NS", ["ns.sub", "ns2.example.net."]),
            record("ns.sub", "A", "192.0.2.53"),
            record("long", "TXT", " ".join([f'"{"y" * 250}"'] * 16)),
            record("moved", "DNAME", "elsewhere.example."),
            record("@", "MX", "10 mail"),
        ],
    )
    sides.move()
    with answering(sides) as server:
        yield sides, server


def verify(sides: Sides, *servers: str, **more: Any) -> Any:
    return sides.migration(ask=servers, **more).verify()


def notes(report: Any) -> str:
    return "\n".join(report.resources[0].notes)


# what is right


def test_every_record_of_the_list_is_asked_for_and_found(sides: Sides) -> None:
    records = [record(name, kind, values, 600) for name, kind, values in RECORDS]
    write(sides.source, records)
    sides.move()

    with answering(sides) as server:
        report = verify(sides, server.address)

    assert reasons(report) == {}
    assert report.resources[0].verified.count == len(records)
    assert f"asked {server.address} for {len(records):,} record sets, 3 of them by TCP" in notes(report)
    assert "NOT verified" not in notes(report)


def test_names_below_delegations_and_wildcards_and_long_answers_are_found(served: tuple[Sides, Answering]) -> None:
    sides, server = served

    report = verify(sides, server.address)

    assert (report.complete, reasons(report)) == (True, {})
    assert "1 of them by TCP" in notes(report)


def test_two_servers_are_asked_both(served: tuple[Sides, Answering]) -> None:
    sides, server = served
    with answering(sides) as other:
        report = verify(sides, server.address, other.address)

    assert report.complete
    assert min(server.seen, other.seen) >= 47


def test_all_servers_are_asked_at_once(served: tuple[Sides, Answering]) -> None:
    sides, server = served
    with answering(sides) as other:
        server.tamper = lambda _, answer: answer if other.seen else None
        other.tamper = lambda _, answer: answer if server.seen else None
        report = verify(sides, server.address, other.address)

    assert (report.complete, reasons(report)) == (True, {})


def test_the_servers_that_the_provider_tells_are_asked_where_none_are_named(served: tuple[Sides, Answering]) -> None:
    sides, server = served
    sides.right.driver.nameservers = (server.address,)

    report = verify(sides)

    assert report.complete
    assert f"asked {server.address}" in notes(report)


# liars


def lie(name: str, kind: str, change: Any) -> Any:
    """Tamper with the answer to one question."""
    wanted = dns.name.from_text(name, dns.name.from_text(ORIGIN)), dns.rdatatype.from_text(kind)

    def tamper(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message:
        (question,) = query.question
        if (question.name, question.rdtype) == wanted:
            change(answer)
        return answer

    return tamper


def another_address(answer: dns.message.Message) -> None:
    answer.answer = [dns.rrset.from_text(answer.question[0].name, 300, "IN", "A", "203.0.113.9")]


def another_ttl(answer: dns.message.Message) -> None:
    answer.answer = [held.copy() for held in answer.answer]
    answer.answer[0].ttl = 301


def nothing(answer: dns.message.Message) -> None:
    answer.answer = []


def nonexistent(answer: dns.message.Message) -> None:
    answer.answer = []
    answer.set_rcode(dns.rcode.NXDOMAIN)


def unauthoritative(answer: dns.message.Message) -> None:
    answer.flags &= ~dns.flags.AA


def one_more(answer: dns.message.Message) -> None:
    answer.answer = [dns.rrset.from_text(answer.question[0].name, 300, "IN", "A", "10.0.0.7", "203.0.113.9")]


def other_referral(answer: dns.message.Message) -> None:
    answer.authority = [dns.rrset.from_text(f"sub.{ORIGIN}", 300, "IN", "NS", "ns.evil.example.")]


def other_glue(answer: dns.message.Message) -> None:
    answer.additional = [dns.rrset.from_text(f"ns.sub.{ORIGIN}", 300, "IN", "A", "203.0.113.9")]


@pytest.mark.parametrize(
    ("name", "kind", "change", "why"),
    [
        ("host-00007", "A", another_address, "other values: 1 are missing and 1 are others"),
        ("host-00007", "A", one_more, "other values: 0 are missing and 1 are others"),
        ("host-00007", "A", another_ttl, "a TTL of 301 s, not 300 s"),
        ("host-00007", "A", nothing, "no such record set"),
        ("host-00007", "A", nonexistent, "answers NXDOMAIN"),
        ("host-00007", "A", unauthoritative, "is not authoritative"),
        ("sub", "NS", other_referral, "refers to others than sub.shop.example. does"),
        ("ns.sub", "A", other_referral, "refers to others than sub.shop.example. does"),
        ("ns.sub", "A", other_glue, "refers to others"),
    ],
    ids=["other", "more", "ttl", "nodata", "nxdomain", "lame", "referral", "below", "glue"],
)
def test_a_server_that_lies_about_one_record_set_is_found_out(
    served: tuple[Sides, Answering], name: str, kind: str, change: Any, why: str
) -> None:
    sides, server = served
    server.tamper = lie(name, kind, change)

    report = verify(sides, server.address)

    key = f"{name}.shop.example. {kind}"
    assert troubles(report) == {key: Trouble.DIFFERS}
    assert why in reasons(report)[key]
    assert server.address in reasons(report)[key]


def test_a_server_that_has_names_that_nobody_wrote_is_found_out(served: tuple[Sides, Answering]) -> None:
    sides, server = served
    server.put([record("*", "TXT", '"parked"')])

    report = verify(sides, server.address)

    assert troubles(report) == {"a name that does not exist": Trouble.DIFFERS}
    assert "not NXDOMAIN" in reasons(report)["a name that does not exist"]


def test_a_wildcard_that_is_only_a_name_is_found_out(served: tuple[Sides, Answering]) -> None:
    sides, server = served
    star = dns.name.from_text(f"*.wild.{ORIGIN}")

    def literally(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message:
        name = query.question[0].name
        if name.parent() == star.parent() and name != star:
            nonexistent(answer)
        return answer

    server.tamper = literally
    report = verify(sides, server.address)

    assert troubles(report) == {"a name below *.wild.shop.example.": Trouble.DIFFERS}
    assert "answers NXDOMAIN" in reasons(report)["a name below *.wild.shop.example."]


def test_an_answer_that_is_right_a_moment_later_is_right(served: tuple[Sides, Answering]) -> None:
    sides, server = served
    left = [2]

    def late(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message:
        if query.question[0].name == dns.name.from_text(f"host-00003.{ORIGIN}") and left[0]:
            left[0] -= 1
            nonexistent(answer)
        return answer

    server.tamper = late

    assert verify(sides, server.address).complete


# losing and lacking


def test_a_server_that_drops_packets_is_asked_again(served: tuple[Sides, Answering]) -> None:
    sides, server = served
    seen: dict[Any, int] = {}

    def drop(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message | None:
        (question,) = query.question
        place = question.name, question.rdtype
        seen[place] = seen.get(place, 0) + 1
        return answer if seen[place] > 1 or len(seen) % 3 else None

    server.tamper = drop
    report = verify(sides, server.address)

    assert (report.complete, reasons(report)) == (True, {})
    assert max(seen.values()) > 1


def test_what_is_never_answered_is_named(served: tuple[Sides, Answering]) -> None:
    _, server = served
    silent = dns.name.from_text(f"host-00001.{ORIGIN}")
    server.tamper = lambda query, answer: None if query.question[0].name == silent else answer

    found = dict(
        ask(
            NameServer.parse(server.address),
            [Question(wire_name(f"host-0000{number}.{ORIGIN}"), 1) for number in range(3)],
            patience=(0.1, 0.1),
        )
    )

    assert [answer is None for _, answer in sorted(found.items(), key=lambda each: each[0].name)] == [
        False,
        True,
        False,
    ]


def test_a_reply_to_something_else_or_that_is_no_message_is_not_taken(served: tuple[Sides, Answering]) -> None:
    sides, server = served
    seen: set[Any] = set()

    def confuse(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message | bytes:
        (question,) = query.question
        if question.name in seen or len(seen) > 3:
            return answer
        seen.add(question.name)
        wire = bytearray(answer.to_wire())
        if len(seen) % 2:
            wire[13] ^= 1  # another name, under the right number
            return bytes(wire)
        return bytes(wire[:5])

    server.tamper = confuse

    assert verify(sides, server.address).complete


@pytest.mark.parametrize("cut", [13, 40, 60])
def test_a_message_that_ends_too_early_is_no_answer(served: tuple[Sides, Answering], cut: int) -> None:
    _, server = served

    def shorten(query: dns.message.Message, answer: dns.message.Message) -> dns.message.Message | bytes:
        if query.question[0].name == dns.name.from_text(f"host-00005.{ORIGIN}"):
            return answer.to_wire()[:cut]
        return answer

    server.tamper = shorten
    ((_, answer),) = ask(
        NameServer.parse(server.address), [Question(wire_name(f"host-00006.{ORIGIN}"), 1)], patience=(0.2, 0.2)
    )
    questions = [Question(wire_name(f"host-0000{number}.{ORIGIN}"), 1) for number in (5, 6)]
    found = dict(ask(NameServer.parse(server.address), questions, patience=(0.2, 0.2)))

    assert answer is not None
    assert found[questions[0]] is None
    assert found[questions[1]] == answer


def test_an_answer_that_is_cut_off_and_cannot_be_had_by_tcp_is_no_proof(sides: Sides) -> None:
    write(sides.source, [record("long", "TXT", " ".join([f'"{"y" * 250}"'] * 16))])
    sides.move()

    with answering(sides, by_tcp=False) as server:
        report = verify(sides, server.address)

    assert troubles(report) == {"long.shop.example. TXT": Trouble.DIFFERS}
    assert "gives no whole one by TCP" in reasons(report)["long.shop.example. TXT"]


def test_a_type_that_has_no_number_cannot_be_asked_for_and_hides_no_other(sides: Sides) -> None:
    sides.right.driver.chosen = {"types": frozenset({"A", "CNAME", "MX", "TXT"})}
    sides.fill(3)
    odd = RecordSet(name=f"odd.{ORIGIN}", type="NOBODYS", ttl=300, rdatas=[b"bytes"])
    write(sides.source, [odd])
    sides.move()

    with answering(sides) as server:
        report = verify(sides, server.address)

    assert {str(odd.key): Trouble.MISSING} == troubles(report)
    assert f"asked {server.address} for 3 record sets" in notes(report)


def test_a_record_set_that_the_target_lists_differently_is_told_at_once(sides: Sides) -> None:
    """Name servers may be behind, and are asked again; what the provider says itself does not change by waiting."""
    sides.fill(3)
    sides.move()
    with answering(sides) as server:
        sides.target.set("host-00001", "A", "203.0.113.200")
        migration = sides.migration(ask=(server.address,))
        waited: list[float] = []
        migration._engine.pause = lambda _, seconds: waited.append(seconds)
        report = migration.verify()

    assert {f"host-00001.{ORIGIN} A": Trouble.DIFFERS} == troubles(report)
    assert [] == waited


def test_where_nobody_can_be_asked_the_report_says_that_it_was_not_verified(sides: Sides) -> None:
    sides.fill(3)
    sides.move()

    report = verify(sides)

    assert report.complete
    assert "NOT verified by queries: no name server could be asked (there is no ns1.memory.invalid)" in notes(report)


def test_where_nobody_is_to_be_asked_the_report_says_that_too(sides: Sides) -> None:
    sides.fill(3)
    sides.move()

    assert "NOT verified by queries: nobody was to be asked" in notes(sides.migration(ask=None).verify())
    assert "NOT verified by queries: --quick" in notes(sides.migration().verify(quick=True))


def test_a_server_that_was_named_and_does_not_answer_fails_the_verification(served: tuple[Sides, Answering]) -> None:
    sides, server = served
    with answering(sides) as gone:
        pass

    report = verify(sides, server.address, gone.address)

    assert troubles(report) == {gone.address: Trouble.FAILED}
    assert report.resources[0].verified.count == 47


def test_one_of_the_providers_servers_that_does_not_answer_fails_the_verification(
    served: tuple[Sides, Answering],
) -> None:
    sides, server = served
    sides.right.driver.nameservers = ("ns1.memory.invalid.", server.address)

    assert troubles(verify(sides)) == {"name server": Trouble.FAILED}


def test_a_server_that_does_not_know_the_zone_is_found_out(served: tuple[Sides, Answering]) -> None:
    sides, _ = served
    with Answering("other.example.", []) as stranger:
        report = verify(sides, stranger.address)

    assert "answers REFUSED" in reasons(report)["host-00001.shop.example. A"]
    assert report.resources[0].verified.count == 0


def test_what_is_answered_by_rules_is_not_asked_for_and_that_is_told(sides: Sides) -> None:
    sides.right.driver.provider_name = "aws"
    write(sides.source, [routed("two", ["192.0.2.1"], set_id="a", weight=1), record("plain", "A", "192.0.2.2")])
    sides.move()

    with answering(sides) as server:
        report = verify(sides, server.address)

    assert report.complete
    assert "1 record sets were not asked for: they are answered by rules" in notes(report)


def test_an_alias_that_is_given_up_becomes_the_addresses_that_the_source_answers(sides: Sides) -> None:
    write(sides.source, [routed("@", target="lb.example."), routed("six", type="AAAA", target="lb.example.")])
    held = [record("@", "A", ["192.0.2.1", "192.0.2.2"], 60), record("six", "AAAA", "2001:db8::1", 20)]
    with Answering(ORIGIN, held) as old:
        options = {"degrade": {"alias"}, "ask_source": (old.address,)}
        report = sides.move(**options)
        again = sides.move(**options)
        verified = sides.migration(**options).verify()
        old.put([record("@", "A", "192.0.2.3", 60)])
        later = sides.move(**options)

    assert (report.complete, again.changed, verified.complete, later.changed) == (True, 0, True, 1)
    assert sides.target.get("@", "A") == record("@", "A", "192.0.2.3", 60)
    assert sides.target.get("six", "AAAA") == record("six", "AAAA", "2001:db8::1", 20)


# the ways to name a server


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("192.0.2.1", NameServer("192.0.2.1", 53)),
        ("ns1.example.net.@5353", NameServer("ns1.example.net", 5353)),
        ("2001:db8::1@5353", NameServer("2001:db8::1", 5353)),
    ],
)
def test_servers_are_named_by_address_or_name_and_port(text: str, wanted: NameServer) -> None:
    assert NameServer.parse(text) == wanted


@pytest.mark.parametrize("text", ["", "@53", "a@", "a@x", "a@0", "a@70000"])
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no name server"):
        NameServer.parse(text)


def test_reserved_names_are_asked_of_nobody() -> None:
    with pytest.raises(Unreachable, match=r"there is no ns\.some\.test"):
        NameServer.parse("ns.some.test").address()


def test_types_have_their_numbers() -> None:
    assert [record_type(kind) for kind in ("A", "HTTPS", "TYPE65400", "TYPE1")] == [1, 65, 65400, 1]


def test_thousands_of_questions_are_answered_through_one_socket(sides: Sides) -> None:
    sides.fill(3000)
    sides.move()

    with answering(sides) as server:
        report = verify(sides, server.address)

    assert report.resources[0].verified.count == 3000
