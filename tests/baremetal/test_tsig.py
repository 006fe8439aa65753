"""Signatures of conversations with name servers, beside dnspython's."""

from __future__ import annotations

import time
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rrset
import dns.tsig
import pytest

from shiftable.errors import ConfigError, Unauthenticated
from shiftable_baremetal._axfr import Malformed, packed, parsed
from shiftable_baremetal._rfc2136_errors import _OURS, BadSignature, Refused, classify
from shiftable_baremetal._rfc2136_update import question
from shiftable_baremetal._tsig import Key, Signer, key_of

NAME, SECRET = "Tests-Key.example.", "dGhpcyBpcyBub3QgYSBzZWNyZXQgb2YgYW55Ym9keSE="
ALGORITHMS = ("hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")
NOW = 1_800_000_000
RECORD = dns.rrset.from_text("www.conf.test.", 60, "IN", "A", "192.0.2.1")


def theirs(algorithm: str = "hmac-sha256", secret: str = SECRET) -> dns.tsig.Key:
    return dns.tsig.Key(NAME, secret, algorithm)


def asked(signer: Signer, key: dns.tsig.Key) -> dns.message.Message:
    """Sign a question; return it as dnspython reads it, which checks the signature by the real clock."""
    wire = signer.signed(question(4_711, packed((b"conf", b"test")), 252))
    return dns.message.from_wire(wire, keyring={dns.name.from_text(NAME): key})


def answered(request: dns.message.Message, key: dns.tsig.Key, count: int = 1, every: int = 1) -> list[bytes]:
    """Answer in so many messages, of which the first, the last and every so many are signed."""
    found, context = list[bytes](), None
    for number in range(count):
        answer = dns.message.make_response(request)
        answer.answer.append(dns.rrset.from_text(f"n{number}.conf.test.", 60, "IN", "A", "192.0.2.1"))
        if number % every == 0 or number == count - 1:
            answer.use_tsig(key)
            answer.request_mac = request.mac
            found.append(answer.to_wire(multi=count > 1, tsig_ctx=context))
            context = answer.tsig_ctx
        else:
            answer.tsig = None
            found.append(answer.to_wire())
            assert context is not None
            context.update(found[-1])
    return found


def checked(signer: Signer, messages: list[bytes]) -> None:
    for wire in messages:
        signer.check(wire, parsed(wire), multi=len(messages) > 1)
    signer.finish()


@pytest.fixture
def signer() -> Signer:
    return Signer(key_of(NAME, SECRET, "hmac-sha256"), time.time)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("count", "every"), [(1, 1), (5, 1), (7, 3), (90, 99)])
def test_dnspython_takes_what_is_signed_and_signs_what_is_taken(algorithm: str, count: int, every: int) -> None:
    signer = Signer(key_of(NAME, SECRET, algorithm), time.time)
    request = asked(signer, theirs(algorithm))
    assert request.had_tsig
    checked(signer, answered(request, theirs(algorithm), count, every))


def test_the_same_bytes_as_dnspython_signs() -> None:
    wire = question(4_711, packed((b"conf", b"test")), 252)
    mine = Signer(key_of(NAME, SECRET, "hmac-sha512"), lambda: NOW).signed(wire)
    record = dns.message.from_wire(mine, keyring=False).tsig
    assert record is not None
    template: Any = record[0].replace(mac=b"", time_signed=0)
    sign: Any = dns.tsig.sign
    made, _ = sign(wire, theirs("hmac-sha512"), template, NOW)
    assert made == record[0]


@pytest.mark.parametrize(("count", "every"), [(1, 1), (3, 2), (3, 1)])
def test_no_byte_can_be_changed(count: int, every: int) -> None:
    signer = Signer(key_of(NAME, SECRET, "hmac-sha256"), time.time)
    messages = answered(asked(signer, theirs()), theirs(), count, every)
    checked(signer, messages)
    taken = list[tuple[int, int]]()
    for at, wire in enumerate(messages):
        for place in range(len(wire)):
            changed = wire[:place] + bytes([wire[place] ^ 1]) + wire[place + 1 :]
            again = Signer(key_of(NAME, SECRET, "hmac-sha256"), time.time)
            again._mac = signer._mac
            try:
                checked(again, [*messages[:at], changed, *messages[at + 1 :]])
            except (BadSignature, Malformed, Refused):
                continue
            taken.append((at, place))
    # the number of a signed message is the session's to check; a signature has one of its own, and no class or TTL
    assert {place for _, place in taken} <= {0, 1} | unsigned_places(messages)


def unsigned_places(messages: list[bytes]) -> set[int]:
    """Return where the record of a signature has bytes that nobody signs: its class and TTL."""
    found = set[int]()
    for wire in messages:
        tsig = parsed(wire).tsig
        if tsig is not None:
            begins = tsig[0] + len(packed(tsig[1][0])) + 2
            found |= set(range(begins, begins + 6))
    return found


def test_nothing_can_be_left_out_or_come_twice(signer: Signer) -> None:
    messages = answered(asked(signer, theirs()), theirs(), 6, 2)
    for at in range(5):
        for tried in ([*messages[:at], *messages[at + 1 :]], [*messages[: at + 1], *messages[at:]]):
            again = Signer(key_of(NAME, SECRET, "hmac-sha256"), time.time)
            again._mac = signer._mac
            with pytest.raises((BadSignature, Malformed)):
                checked(again, tried)


def test_the_last_message_is_signed(signer: Signer) -> None:
    messages = answered(asked(signer, theirs()), theirs(), 4, 2)
    with pytest.raises(Malformed, match="last message"):
        checked(signer, messages[:2])


def test_not_more_than_99_messages_come_unsigned(signer: Signer) -> None:
    messages = answered(asked(signer, theirs()), theirs(), 102, 200)
    with pytest.raises(Malformed, match="not signed"):
        checked(signer, messages)


def test_an_answer_to_another_request_is_refused(signer: Signer) -> None:
    other = Signer(key_of(NAME, SECRET, "hmac-sha256"), lambda: time.time() - 5)
    asked(signer, theirs())
    (wire,) = answered(asked(other, theirs()), theirs())
    with pytest.raises(BadSignature) as caught:
        signer.check(wire, parsed(wire))
    assert caught.value.code == "BADSIG"


def test_an_answer_without_a_signature_is_none(signer: Signer) -> None:
    request = asked(signer, theirs())
    answer = dns.message.make_response(request)
    answer.tsig = None
    with pytest.raises(Malformed, match="not signed"):
        signer.check(answer.to_wire(), parsed(answer.to_wire()))
    answer.set_rcode(dns.rcode.REFUSED)
    with pytest.raises(Refused):
        signer.check(answer.to_wire(), parsed(answer.to_wire()))


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (theirs(secret="YW5vdGhlciBzZWNyZXQgb2Ygbm9ib2R5IGF0IGFsbCE="), "BADSIG"),
        (theirs("hmac-sha512"), "BADKEY"),
        (dns.tsig.Key("another.", SECRET, "hmac-sha256"), "BADKEY"),
    ],
)
def test_an_answer_by_another_key_is_refused(signer: Signer, key: dns.tsig.Key, code: str) -> None:
    (wire,) = answered(asked(signer, theirs()), key)
    with pytest.raises(BadSignature) as caught:
        signer.check(wire, parsed(wire))
    assert caught.value.code == code


@pytest.mark.parametrize("off", [-301, 301, -(2**33)])
def test_an_old_answer_is_refused(off: int) -> None:
    clock = [time.time()]
    signer = Signer(key_of(NAME, SECRET, "hmac-sha256"), lambda: clock[0])
    (wire,) = answered(asked(signer, theirs()), theirs())
    clock[0] -= off + (1 if off > 0 else -1)
    with pytest.raises(BadSignature, match="clock") as caught:
        signer.check(wire, parsed(wire))
    assert caught.value.code == "BADTIME"


@pytest.mark.parametrize("error", [16, 17])
def test_a_server_that_cannot_sign_says_so_unsigned(signer: Signer, error: int) -> None:
    request = asked(signer, theirs())
    answer = dns.message.make_response(request)
    answer.set_rcode(dns.rcode.NOTAUTH)
    answer.use_tsig(theirs(), tsig_error=error)
    signed = answer.to_wire()
    tsig = parsed(signed).tsig
    assert tsig is not None
    rdata = tsig[1][3]
    at = rdata.index(b"\0\x20", 13)  # the length of a signature of SHA-256, behind the algorithm
    bare = rdata[:at] + b"\0\0" + rdata[at + 34 :]
    wire = signed[: -len(rdata) - 2] + len(bare).to_bytes(2, "big") + bare
    with pytest.raises(BadSignature) as caught:
        signer.check(wire, parsed(wire))
    assert caught.value.code == _OURS[error][0]


@pytest.mark.parametrize("error", [18, 22, 4_000])
def test_what_else_a_server_says_is_believed_if_it_is_signed(signer: Signer, error: int) -> None:
    request = asked(signer, theirs())
    answer = dns.message.make_response(request)
    answer.set_rcode(dns.rcode.NOTAUTH)
    answer.request_mac = request.mac
    answer.use_tsig(theirs(), tsig_error=error, other_data=b"\0\0later")
    wire = answer.to_wire()
    with pytest.raises(BadSignature) as caught:
        signer.check(wire, parsed(wire))
    assert caught.value.code == _OURS.get(error, ("TSIG",))[0]
    forged = wire[:-3] + b"xxx"
    with pytest.raises(BadSignature) as caught:
        signer.check(forged, parsed(forged))
    assert caught.value.code == "BADSIG"


def test_a_signature_that_ends_early_is_none(signer: Signer) -> None:
    (wire,) = answered(asked(signer, theirs()), theirs())
    tsig = parsed(wire).tsig
    assert tsig is not None
    rdata = tsig[1][3]
    for size in range(13, len(rdata)):
        cut = wire[: -len(rdata) - 2] + size.to_bytes(2, "big") + rdata[:size]
        with pytest.raises((Malformed, BadSignature)):
            signer.check(cut, parsed(cut))


def test_without_a_key_nothing_is_signed_or_checked() -> None:
    signer, wire = Signer(None, time.time), question(1, packed((b"conf", b"test")), 6)
    assert signer.signed(wire) == wire
    signer.check(wire, parsed(wire))
    signer.finish()


@pytest.mark.parametrize("secret", ["canary", "cana=ry=", "no base64 canary", "canary!!", "kanarienvögel"])
def test_what_is_no_key_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        key_of(NAME, secret, "hmac-sha256")
    assert "anar" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(ConfigError):
        key_of("a..b", SECRET, "hmac-sha256")


def test_a_key_does_not_show_its_secret() -> None:
    assert "not a secret" not in repr(key_of(NAME, SECRET, "hmac-sha256"))
    assert isinstance(key_of("relative", SECRET, "hmac-sha256"), Key)


@pytest.mark.parametrize("error", [*_OURS, 4_000])
def test_each_has_its_row(error: int) -> None:
    fault = classify(BadSignature.by_server(error))
    assert fault is not None
    assert fault.error is Unauthenticated
    assert fault.message
