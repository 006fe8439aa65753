"""The driver for RFC 2136 on the name server of this package, and on servers and lines that misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import dns.tsig
import pytest

from shiftable.config import Credential
from shiftable.dns import Dns, RecordChange, Zone, ZoneSpec
from shiftable.dns.driver import DnsDriver
from shiftable.errors import (
    ConfigError,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.memory.dns import MemoryDnsDriver
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.dns import RECORDS, DnsConformance, Observed, observed
from shiftable_baremetal import BaremetalProvider, BaremetalSettings, PowerdnsSettings, Rfc2136Settings
from shiftable_baremetal._rfc2136_errors import _CODES, Lost, Refused, classify
from shiftable_baremetal._rfc2136_session import Session
from shiftable_baremetal._rfc2136_update import LARGEST, update
from shiftable_baremetal._tsig import key_of
from shiftable_baremetal.dns_rfc2136 import Rfc2136Driver, open_rfc2136
from shiftable_baremetal.nameserver import Nameserver, TsigKey

from . import broken_line as lines

NAME, SECRET = "tests-key", "dGhpcyBpcyBub3QgYSBzZWNyZXQgb2YgYW55Ym9keSE="
OTHER = "YW5vdGhlciBzZWNyZXQgb2Ygbm9ib2R5IGF0IGFsbCEhIQ=="
ZONE = "conf.test"


@pytest.fixture
def backing() -> MemoryDnsDriver:
    made = MemoryDnsDriver()
    Dns(made).create(ZoneSpec(name=ZONE))
    return made


@pytest.fixture
def server(backing: MemoryDnsDriver) -> Iterator[Nameserver]:
    with Nameserver(backing, update=True, keys=(TsigKey(NAME, SECRET),), refresh=0.0) as made:
        yield made


def settings(port: int, **more: Any) -> Rfc2136Settings:
    known = {"key_name": NAME, "key_secret": Credential.literal(SECRET), "zones": (ZONE,), **more}
    return Rfc2136Settings(server=f"127.0.0.1:{port}", **known)


@contextlib.contextmanager
def opened(port: int, **more: Any) -> Iterator[Rfc2136Driver]:
    made = open_rfc2136(settings(port, **more))
    made._session._sleep = lambda _seconds: None
    yield made
    made.close()


@pytest.fixture
def driver(server: Nameserver) -> Iterator[Rfc2136Driver]:
    with opened(server.port) as made:
        yield made


@pytest.fixture
def zone(driver: Rfc2136Driver) -> Zone:
    return Dns(driver).zone(ZONE)


def truth(backing: MemoryDnsDriver) -> set[tuple[str, str, tuple[str, ...]]]:
    """What is really there, but the zone's own."""
    records = Dns(backing).zone(ZONE).records()
    return {(r.name, r.type, tuple(sorted(r.texts))) for r in records if r.type not in {"NS", "SOA"}}


class TestNameserver(DnsConformance):
    @pytest.fixture
    def driver(self, driver: Rfc2136Driver) -> Rfc2136Driver:
        return driver

    @pytest.fixture
    def oracle(self, backing: MemoryDnsDriver) -> Callable[[str], Observed]:
        return lambda zone: observed(list(Dns(backing).zone(zone).records()))

    @pytest.fixture
    def zone(self, zone: Zone) -> Zone:
        return zone

    @differs("a DS stands only beside NS")
    @pytest.mark.parametrize(
        ("name", "type", "values"), RECORDS, ids=[f"{name[:20]}-{kind}" for name, kind, _ in RECORDS]
    )
    def test_a_record_set_is_kept_exactly_or_refused(
        self, zone: Zone, oracle: Callable[[str], Observed], name: str, type: str, values: tuple[str, ...]
    ) -> None:
        if type == "DS":
            before = oracle(zone.name)
            with pytest.raises(InvalidArgument, match="DS: a DS stands only beside NS"):
                zone.set(name, type, values)
            assert oracle(zone.name) == before
            zone.set(name, "NS", "ns.example.net.")
        super().test_a_record_set_is_kept_exactly_or_refused(zone, oracle, name, type, values)

    @differs("a DS stands only beside NS")
    def test_an_exported_zone_loads_elsewhere(self, zone: Zone) -> None:
        zone.set("signed", "NS", "ns.example.net.")
        super().test_an_exported_zone_loads_elsewhere(zone)


# settings


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("ns.example", "ns.example", 53),
        ("ns.example:5353", "ns.example", 5353),
        ("192.0.2.1:53", "192.0.2.1", 53),
        ("2001:db8::1", "2001:db8::1", 53),
        ("[2001:db8::1]", "2001:db8::1", 53),
        ("[2001:db8::1]:5353", "2001:db8::1", 5353),
    ],
)
def test_a_server_is_written_with_or_without_its_port(written: str, host: str, port: int) -> None:
    made = open_rfc2136(Rfc2136Settings(server=written))
    assert (made._session._host, made._session._port) == (host, port)


@pytest.mark.parametrize("written", ["", ":53", "ns.example:dns", "ns.example:0", "ns.example:70000"])
def test_a_server_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="rfc2136.server"):
        open_rfc2136(Rfc2136Settings(server=written))


def test_half_a_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="belong together"):
        open_rfc2136(Rfc2136Settings(server="ns.example", key_name="k"))


@pytest.mark.parametrize("secret", ["no base64 canary", "canary", "cana=ry="])
def test_a_secret_that_is_no_base64_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_rfc2136(Rfc2136Settings(server="ns.example", key_name="k", key_secret=Credential.literal(secret)))
    assert "canary" not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"


def test_two_places_for_zones_are_refused() -> None:
    powerdns = PowerdnsSettings(address="http://127.0.0.1:1", api_key=Credential.literal("x"))
    both = BaremetalSettings(rfc2136=Rfc2136Settings(server="127.0.0.1"), powerdns=powerdns)
    with pytest.raises(ConfigError, match="give one of them"):
        BaremetalProvider(both).dns()


def test_the_provider_opens_the_driver_that_is_set() -> None:
    made = BaremetalProvider(BaremetalSettings(rfc2136=Rfc2136Settings(server="127.0.0.1", zones=("Shop.Test.",))))
    driver = made.dns()
    assert isinstance(driver, Rfc2136Driver)
    assert [zone.name for zone in Dns(driver).list()] == ["shop.test"]


def test_many_zones_are_listed_in_pages() -> None:
    names = [f"z{number:04}.test" for number in range(2500)]
    driver = open_rfc2136(Rfc2136Settings(server="127.0.0.1", zones=tuple(names)))
    assert [zone.name for zone in Dns(driver).list()] == names
    assert driver.names(None, None).next is not None


def test_zones_are_made_at_the_server(driver: Rfc2136Driver) -> None:
    with pytest.raises(Unsupported):
        Dns(driver).create(ZoneSpec(name="new.test"))
    with pytest.raises(Unsupported):
        Dns(driver).delete(ZONE)


# signatures


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"key_secret": Credential.literal(OTHER)}, "BADSIG"),
        ({"key_name": "another"}, "BADKEY"),
        ({"key_algorithm": "hmac-sha512"}, "BADKEY"),
    ],
)
def test_a_wrong_key_is_unauthenticated(
    server: Nameserver, backing: MemoryDnsDriver, more: dict[str, Any], why: str
) -> None:
    with opened(server.port, **more) as driver:
        zone = Dns(driver).zone(ZONE)
        for call in (lambda: list(zone.records()), lambda: zone.set("www", "A", "192.0.2.1"), zone.info):
            with pytest.raises(Unauthenticated) as caught:
                call()
            assert caught.value.code == why
            assert SECRET not in str(caught.value)
            assert OTHER not in str(caught.value)
    assert truth(backing) == set()


def test_a_clock_that_is_wrong_is_unauthenticated(server: Nameserver) -> None:
    session = Session("127.0.0.1", server.port, key_of(NAME, SECRET, "hmac-sha256"), lambda: time.time() + 4000)
    driver = Rfc2136Driver(session)
    with pytest.raises(Unauthenticated, match="clock"):
        list(Dns(driver).zone(ZONE).records())
    driver.close()


def test_without_a_key_the_server_decides(server: Nameserver, backing: MemoryDnsDriver) -> None:
    driver = open_rfc2136(Rfc2136Settings(server=f"127.0.0.1:{server.port}"))
    zone = Dns(driver).zone(ZONE)
    assert zone.info().nameservers == ("ns1.memory.invalid.", "ns2.memory.invalid.")
    with pytest.raises(PermissionDenied, match="allow-transfer"):
        list(zone.records())
    with pytest.raises(PermissionDenied, match=r"www\.conf\.test\. A"):
        change(zone, driver, (None, zone.record("www", "A", "192.0.2.1")))
    driver.close()
    assert truth(backing) == set()


# what servers ignore


def change(zone: Zone, driver: DnsDriver, *pairs: tuple[Any, Any]) -> None:
    """Past the portable class, which would refuse most of these."""
    with zone._translated("change", zone.resource):
        driver.change(ZONE, tuple(RecordChange(before=before, after=after) for before, after in pairs))


def test_a_record_beside_a_cname_is_refused(zone: Zone, driver: Rfc2136Driver, backing: MemoryDnsDriver) -> None:
    zone.set("www", "CNAME", "target.example.")
    before = truth(backing)
    with pytest.raises(Conflict, match=r"www\.conf\.test\. A: a CNAME stands there"):
        change(zone, driver, (None, zone.record("a", "A", "192.0.2.1")), (None, zone.record("www", "A", "192.0.2.1")))
    assert truth(backing) == before


def test_a_cname_beside_a_record_is_refused(zone: Zone, driver: Rfc2136Driver, backing: MemoryDnsDriver) -> None:
    zone.set("www", "A", "192.0.2.1")
    before = truth(backing)
    with pytest.raises(Conflict, match=r"www\.conf\.test\. CNAME: a CNAME cannot stand beside A"):
        change(zone, driver, (None, zone.record("www", "CNAME", "target.example.")))
    assert truth(backing) == before


def test_the_ns_of_a_name_with_a_ds_stay(zone: Zone, driver: Rfc2136Driver, backing: MemoryDnsDriver) -> None:
    ns, ds = zone.record("child", "NS", "ns.example."), zone.record("child", "DS", f"60485 5 2 {'d4' * 32}")
    change(zone, driver, (None, ns), (None, ds))
    before = truth(backing)
    with pytest.raises(Conflict, match=r"child\.conf\.test\. NS: a DS stands beside it"):
        change(zone, driver, (ns, None))
    assert truth(backing) == before
    change(zone, driver, (ns, None), (ds, None))
    assert truth(backing) == set()


def test_an_soa_goes_forward_only(zone: Zone, backing: MemoryDnsDriver) -> None:
    text = Dns(backing).zone(ZONE).get("@", "SOA").texts[0].split()
    serial = int(text[2])
    zone.set("@", "SOA", " ".join([text[0], "other.example.", "1", *text[3:]]), apex=True)
    after = Dns(backing).zone(ZONE).get("@", "SOA").texts[0].split()
    assert after[1] == "other.example."
    assert int(after[2]) > serial


def test_a_ttl_that_another_changed_is_a_failed_precondition(
    zone: Zone, driver: Rfc2136Driver, backing: MemoryDnsDriver
) -> None:
    stale = zone.set("www", "A", "192.0.2.1", ttl=60)
    Dns(backing).zone(ZONE).set("www", "A", "192.0.2.1", ttl=90)
    with pytest.raises(PreconditionFailed, match=r"www\.conf\.test\. A"):
        change(zone, driver, (stale, None))
    assert truth(backing) == {("www.conf.test.", "A", ("192.0.2.1",))}


# batches


def test_batches_fill_messages_and_never_more(zone: Zone, driver: Rfc2136Driver) -> None:
    text = " ".join(f'"{"x" * 200}"' for _ in range(5))
    records = [zone.record(f"n{number}", "TXT", text) for number in range(300)]
    records += [zone.record(f"n{number}", "A", "192.0.2.1") for number in range(300)]
    assert len(list(zone.records())) == 2
    changes = tuple(RecordChange(before=None, after=record) for record in records)
    batches = list(driver.batches(changes))
    sizes = [update(zone.origin, batch).size for batch in batches]
    assert sorted(change.key for batch in batches for change in batch) == sorted(change.key for change in changes)
    assert max(sizes) <= LARGEST - 512
    assert min(sizes[:-1]) > LARGEST - 512 - 300 - 2000
    names = [{change.key.name for change in batch} for batch in batches]
    assert not any(one & other for index, one in enumerate(names) for other in names[index + 1 :])


def test_a_thousand_texts_arrive(zone: Zone, backing: MemoryDnsDriver) -> None:
    records = [zone.record(f"n{number}", "TXT", f'"{"x" * 100}"') for number in range(1000)]
    zone.change(RecordChange(before=None, after=record) for record in records)
    assert len(truth(backing)) == 1000


def test_a_record_set_larger_than_a_message_is_refused_before_it_is_sent(zone: Zone, backing: MemoryDnsDriver) -> None:
    values = [f'"{"x" * 250}" "{number}"' for number in range(300)]
    with pytest.raises(InvalidArgument, match=r"large\.conf\.test\. TXT: it takes .* bytes of a message"):
        zone.set("large", "TXT", values)
    assert truth(backing) == set()


# lines that break


@pytest.fixture
def line(server: Nameserver) -> Iterator[Any]:
    made = lines.Line(server.port)
    yield made
    made.close()


@pytest.mark.parametrize("fault", ["before", "after", "cut"])
def test_an_update_whose_answer_is_lost_happens_once(line: Any, backing: MemoryDnsDriver, fault: str) -> None:
    with opened(line.port) as driver:
        zone = Dns(driver).zone(ZONE)
        zone.set("old", "A", "192.0.2.1")
        line.wrong = lines.once(fault, lines.is_update)
        changes = [RecordChange(before=None, after=zone.record("www", "A", "192.0.2.2"))]
        zone.change([*changes, RecordChange(before=zone.get("old", "A"), after=None)])
    assert truth(backing) == {("www.conf.test.", "A", ("192.0.2.2",))}


def test_an_update_that_never_arrives_is_an_error(line: Any, backing: MemoryDnsDriver) -> None:
    line.wrong = lambda request: "before" if lines.is_update(request) else None
    with opened(line.port) as driver:
        zone = Dns(driver).zone(ZONE)
        with pytest.raises(Unavailable):
            zone.set("www", "A", "192.0.2.1")
    assert truth(backing) == set()


def test_an_update_that_was_lost_and_overtaken_is_a_failed_precondition(line: Any, backing: MemoryDnsDriver) -> None:
    def overtaken(request: bytes) -> str | None:
        if lines.is_update(request) and not truth(backing):
            Dns(backing).zone(ZONE).set("www", "A", "192.0.2.99")
            return "before"
        return None

    line.wrong = overtaken
    with opened(line.port) as driver:
        zone = Dns(driver).zone(ZONE)
        with pytest.raises(PreconditionFailed, match=r"www\.conf\.test\. A"):
            change(zone, driver, (None, zone.record("www", "A", "192.0.2.1")))
    assert truth(backing) == {("www.conf.test.", "A", ("192.0.2.99",))}


@pytest.mark.parametrize("fault", ["before", "after", "cut"])
def test_a_listing_goes_on_after_a_broken_line(line: Any, backing: MemoryDnsDriver, fault: str) -> None:
    Dns(backing).zone(ZONE).set("www", "A", "192.0.2.1")
    line.wrong = lines.once(fault, lambda _request: True)
    with opened(line.port) as driver:
        assert [record.name for record in Dns(driver).zone(ZONE).records(type="A")] == ["www.conf.test."]


def test_a_listing_that_always_breaks_is_an_error(line: Any) -> None:
    line.wrong = lambda _request: "cut"
    with opened(line.port) as driver, pytest.raises(Unavailable):
        list(Dns(driver).zone(ZONE).records())


def test_an_answer_that_was_altered_is_refused(line: Any, backing: MemoryDnsDriver) -> None:
    line.wrong = lambda _request: "garble"
    with opened(line.port) as driver:
        for call in (lambda zone: list(zone.records()), lambda zone: zone.info()):
            with pytest.raises((Unauthenticated, IntegrityError)):
                call(Dns(driver).zone(ZONE))
    assert truth(backing) == set()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with opened(port) as driver:
        zone = Dns(driver).zone(ZONE)
        for call in (lambda: list(zone.records()), lambda: zone.set("www", "A", "192.0.2.1"), zone.info):
            with pytest.raises(Unavailable):
                call()


def test_a_connection_that_the_server_closed_while_it_rested_is_not_used(
    server: Nameserver, backing: MemoryDnsDriver
) -> None:
    line = lines.Line(server.port, lines.once("after", lines.is_update))
    with opened(line.port) as driver:
        zone = Dns(driver).zone(ZONE)
        zone.set("a", "A", "192.0.2.1")
        zone.set("b", "A", "192.0.2.1")
    line.close()
    assert len(truth(backing)) == 2


# servers that lie


@contextlib.contextmanager
def liar(answer: Callable[[dns.message.Message], bytes]) -> Iterator[int]:
    """Serve whatever a test says."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, client.makefile("rb") as reader, contextlib.suppress(OSError):
                    while head := reader.read(2):
                        wire = reader.read(int.from_bytes(head, "big"))
                        keyring = {dns.name.from_text(NAME): dns.tsig.Key(NAME, SECRET)}
                        said = answer(dns.message.from_wire(wire, keyring=keyring))
                        client.sendall(len(said).to_bytes(2, "big") + said)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # who waits in accept() would wait on, and take what comes to the next socket of this number
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def plain(request: dns.message.Message, *records: str, rcode: int = 0, number: int | None = None) -> bytes:
    answer = dns.message.Message(request.id if number is None else number)
    answer.flags = dns.flags.QR | dns.flags.AA
    answer.set_rcode(dns.rcode.Rcode(rcode))
    for record in records:
        name, ttl, _, kind, text = record.split(" ", 4)
        answer.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, text))
    return answer.to_wire()


SOA = "conf.test. 60 IN SOA a.test. b.test. 1 2 3 4 5"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (lambda request: b"", "too early"),
        (lambda request: request.id.to_bytes(2, "big") + b"\x84\x00", "too early"),
        (lambda request: plain(request, SOA, number=request.id ^ 1), "another question"),
        (plain, "empty"),
        (lambda request: plain(request, "www.conf.test. 60 IN A 192.0.2.1"), "begin with the zone's SOA"),
        (lambda request: plain(request, SOA, "www.other.test. 60 IN A 192.0.2.1", SOA), "not in the zone"),
        (lambda request: plain(request, SOA, SOA.replace(" 1 ", " 7 ", 1)), "another version"),
        (lambda request: plain(request, SOA, "a.conf.test. 60 IN A 192.0.2.1") + b"x", "follow"),
    ],
)
def test_a_server_that_talks_nonsense_is_an_integrity_error(said: Callable[[Any], bytes], why: str) -> None:
    with liar(said) as port:
        driver = open_rfc2136(Rfc2136Settings(server=f"127.0.0.1:{port}"))
        with pytest.raises(IntegrityError, match=why):
            list(Dns(driver).zone(ZONE).records())
        driver.close()


def test_an_answer_without_a_signature_is_refused() -> None:
    with liar(lambda request: plain(request, SOA, SOA)) as port, opened(port) as driver:
        with pytest.raises(IntegrityError, match="not signed"):
            list(Dns(driver).zone(ZONE).records())
        with pytest.raises(IntegrityError, match="not signed"):
            Dns(driver).zone(ZONE).info()


def test_success_without_a_signature_is_not_believed() -> None:
    with liar(plain) as port, opened(port) as driver:
        zone = Dns(driver).zone(ZONE)
        with pytest.raises(IntegrityError, match="not signed"):
            change(zone, driver, (None, zone.record("www", "A", "192.0.2.1")))


@pytest.mark.parametrize(
    ("rcode", "error"),
    [
        (1, InvalidArgument),
        (2, Unavailable),
        (4, Unsupported),
        (5, PermissionDenied),
        (9, ParentNotFound),
        (10, InvalidArgument),
        (11, Unsupported),
    ],
)
def test_what_a_server_says_of_an_update_is_translated(rcode: int, error: type[Exception]) -> None:
    with liar(lambda request: plain(request, rcode=rcode)) as port, opened(port) as driver:
        zone = Dns(driver).zone(ZONE)
        resource = zone._resource_of(zone.record("www", "A", "192.0.2.1").key)
        with pytest.raises(error) as caught, zone._translated("set", resource):
            driver.change(ZONE, (RecordChange(before=None, after=zone.record("www", "A", "192.0.2.1")),))
        assert "www.conf.test. A" in str(caught.value)


def test_a_refusal_names_the_record_set() -> None:
    """The server takes everything but one name; what it refuses is found without changing anything."""
    taken = list[dns.message.Message]()

    def answer(request: dns.message.Message) -> bytes:
        if request.question[0].rdtype == dns.rdatatype.SOA and request.opcode() == 5:
            if b"forbidden" in request.wire:
                return plain(request, rcode=5)
            taken.append(request)
        return plain(request)

    with liar(answer) as port:
        driver = open_rfc2136(Rfc2136Settings(server=f"127.0.0.1:{port}"))
        zone = Dns(driver).zone(ZONE)
        names = [f"n{number}" for number in range(50)] + ["forbidden"] + [f"z{number}" for number in range(50)]
        with pytest.raises(PermissionDenied, match=r"forbidden\.conf\.test\. TXT"):
            change(zone, driver, *((None, zone.record(name, "TXT", '"x"')) for name in names))
        driver.close()
    assert taken
    for message in taken:
        coming = [rrset for rrset in message.sections[2] if rrset.rdclass == 1 and rrset.deleting is None]
        going = [rrset.name for rrset in message.sections[2] if rrset.deleting is not None]
        assert {rrset.name for rrset in coming} <= set(going)


# the table


@pytest.mark.parametrize("rcode", sorted(_CODES))
def test_every_code_has_its_row(rcode: int) -> None:
    fault = classify(Refused(rcode))
    assert fault is not None
    assert fault.code == _CODES[rcode][0]
    assert fault.message


def test_other_errors_of_the_line_have_their_rows() -> None:
    faults = [classify(exc) for exc in (Lost("x"), TimeoutError(), ConnectionRefusedError(), socket.gaierror(-2, "x"))]
    assert [fault and fault.error for fault in faults] == [Unavailable, Timeout, Unavailable, Unavailable]
    assert classify(KeyError("a bug")) is None
    unknown = classify(Refused(3841))
    assert unknown is not None
    assert unknown.code == "RCODE3841"


def test_a_missing_zone_is_told_from_a_refused_transfer(server: Nameserver, driver: Rfc2136Driver) -> None:
    with pytest.raises(NotFound):
        list(Dns(driver).zone("elsewhere.test").records())
    keyless = open_rfc2136(Rfc2136Settings(server=f"127.0.0.1:{server.port}"))
    with pytest.raises(NotFound):
        list(Dns(keyless).zone("elsewhere.test").records())
    with pytest.raises(PermissionDenied):
        list(Dns(keyless).zone(ZONE).records())
    keyless.close()
