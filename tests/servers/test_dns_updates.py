"""Updates on BIND and on Knot: keys, clocks, lines that break, other writers, and what servers ignore with a smile."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.config import Credential
from shiftable.dns import Dns, RecordChange, RecordSet, Zone
from shiftable.errors import (
    Conflict,
    InvalidArgument,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable_baremetal import Rfc2136Settings
from shiftable_baremetal._rfc2136_session import Session
from shiftable_baremetal._tsig import key_of
from shiftable_baremetal.dns_rfc2136 import Rfc2136Driver, open_rfc2136

from ..baremetal import broken_line as lines

NAME, SECRET = "tests-key", "dGhpcyBpcyBub3QgYSBzZWNyZXQgb2YgYW55Ym9keSE="
OTHER = "YW5vdGhlciBzZWNyZXQgb2Ygbm9ib2R5IGF0IGFsbCEhIQ=="
ZONE = "conf.test"


def opened(port: int, **more: Any) -> Rfc2136Driver:
    known = {"key_name": NAME, "key_secret": Credential.literal(SECRET), "zones": (ZONE,), **more}
    return open_rfc2136(Rfc2136Settings(server=f"127.0.0.1:{port}", **known))


@pytest.fixture(params=["bind", "knot"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = request.getfixturevalue(request.param)
    made.create(ZONE)
    yield made
    made.delete(ZONE)


@pytest.fixture
def driver(server: Any) -> Iterator[Rfc2136Driver]:
    made = opened(server.port)
    yield made
    made.close()


@pytest.fixture
def zone(driver: Rfc2136Driver) -> Zone:
    return Dns(driver).zone(ZONE)


def change(zone: Zone, driver: Rfc2136Driver, *pairs: tuple[RecordSet | None, RecordSet | None]) -> None:
    """Past the portable class, which would refuse most of these."""
    with zone._translated("change", zone.resource):
        driver.change(ZONE, tuple(RecordChange(before=before, after=after) for before, after in pairs))


# keys and clocks


@pytest.mark.parametrize(
    ("more", "codes"),
    [
        ({"key_secret": Credential.literal(OTHER)}, {"BADSIG"}),
        ({"key_name": "another"}, {"BADKEY"}),
        ({"key_algorithm": "hmac-sha512"}, {"BADKEY"}),
    ],
    ids=["secret", "name", "algorithm"],
)
def test_a_wrong_key_is_unauthenticated(server: Any, more: dict[str, Any], codes: set[str]) -> None:
    before = server.held(ZONE)
    driver = opened(server.port, **more)
    zone = Dns(driver).zone(ZONE)
    wanted = (None, zone.record("www", "A", "192.0.2.1"))
    for call in (lambda: list(zone.records()), lambda: change(zone, driver, wanted)):
        with pytest.raises(Unauthenticated) as caught:
            call()
        assert caught.value.code in codes
    driver.close()
    assert server.held(ZONE) == before


@pytest.mark.parametrize("off", [4000, -4000])
def test_a_clock_that_is_wrong_is_unauthenticated(server: Any, off: int) -> None:
    session = Session("127.0.0.1", server.port, key_of(NAME, SECRET, "hmac-sha256"), lambda: time.time() + off)
    driver = Rfc2136Driver(session)
    zone = Dns(driver).zone(ZONE)
    for call in (
        lambda: list(zone.records()),
        lambda: change(zone, driver, (None, zone.record("www", "A", "192.0.2.1"))),
    ):
        with pytest.raises(Unauthenticated, match="clock"):
            call()
    driver.close()


def test_without_a_key_nothing_is_transferred_or_changed(server: Any) -> None:
    before = server.held(ZONE)
    driver = open_rfc2136(Rfc2136Settings(server=server.address))
    zone = Dns(driver).zone(ZONE)
    with pytest.raises(PermissionDenied, match="allow-transfer"):
        list(zone.records())
    with pytest.raises(PermissionDenied, match=r"www\.conf\.test\. A"):
        change(zone, driver, (None, zone.record("www", "A", "192.0.2.1")))
    driver.close()
    assert server.held(ZONE) == before


# what servers ignore


def test_what_a_server_would_ignore_is_refused_by_name_and_changes_nothing(
    zone: Zone, driver: Rfc2136Driver, server: Any
) -> None:
    zone.set("alias", "CNAME", "target.example.")
    zone.set("host", "A", "192.0.2.1")
    ns = zone.set("child", "NS", "ns.example.")
    zone.set("child", "DS", f"60485 8 2 {'d4' * 32}")
    before = server.held(ZONE)
    good = zone.record("good", "A", "192.0.2.9")
    for pair, error, named in (
        ((None, zone.record("alias", "A", "192.0.2.1")), Conflict, "alias.conf.test. A"),
        ((None, zone.record("host", "CNAME", "x.example.")), Conflict, "host.conf.test. CNAME"),
        ((None, zone.record("lone", "DS", f"1 8 2 {'d4' * 32}")), InvalidArgument, "lone.conf.test. DS"),
        ((ns, None), Conflict, "child.conf.test. NS"),
    ):
        with pytest.raises(error) as caught:
            change(zone, driver, (None, good), pair)
        assert named in str(caught.value)
        assert server.held(ZONE) == before


def test_the_ns_of_the_zone_become_what_they_shall_be(zone: Zone, server: Any) -> None:
    for wanted, ttl in (
        (["ns1.a.", "ns2.a."], 600),
        (["ns2.a.", "ns3.a."], 600),
        (["ns2.a.", "ns3.a."], 60),
        (["x.a."], 9),
    ):
        zone.set("@", "NS", wanted, ttl=ttl, apex=True)
        held_ttl, values = server.held(ZONE)["conf.test.", "NS"]
        assert (held_ttl, sorted(str(value) for value in values)) == (ttl, wanted)


def test_an_soa_goes_forward_only(zone: Zone, server: Any) -> None:
    zone.set("www", "A", "192.0.2.1")
    (before,) = server.held(ZONE)["conf.test.", "SOA"][1]
    zone.set("@", "SOA", "ns1 other.example. 1 7200 900 1209600 60", ttl=90, apex=True)
    ttl, (after,) = server.held(ZONE)["conf.test.", "SOA"]
    assert (ttl, str(after.rname), after.minimum) == (90, "other.example.", 60)
    assert after.serial > before.serial


def test_a_ttl_alone_is_changed(zone: Zone, server: Any) -> None:
    first = zone.set("www", "A", ["192.0.2.1", "192.0.2.2"], ttl=600)
    zone.change([RecordChange(before=first, after=attrs.evolve(first, ttl=60))])
    assert server.held(ZONE)["www.conf.test.", "A"][0] == 60


def test_refusals_are_found_out_without_a_trace(bind: Any) -> None:
    """BIND's rules for names refuse one of two hundred; each question which it is changes nothing, nor the serial."""
    bind.create(ZONE)
    driver = opened(bind.port)
    zone = Dns(driver).zone(ZONE)
    zone.set("n7", "A", "192.0.2.77", ttl=60)
    before = bind.held(ZONE)
    changes = [RecordChange(before=None, after=zone.record(f"h{number}", "A", "192.0.2.1")) for number in range(200)]
    changes.append(RecordChange(before=None, after=zone.record("-bad-", "A", "192.0.2.1")))
    changes.append(RecordChange(before=zone.get("n7", "A"), after=zone.record("n7", "A", "192.0.2.78")))
    with pytest.raises(InvalidArgument, match=r"-bad-\.conf\.test\. A: .*check-names"):
        zone.change(changes)
    assert bind.held(ZONE) == before
    driver.close()
    bind.delete(ZONE)


def test_a_policy_of_the_server_names_what_it_does_not_let_us_write(bind: Any) -> None:
    bind.create(ZONE, policy='deny "tests-key." name locked.conf.test. ANY; grant "tests-key." zonesub ANY;')
    driver = opened(bind.port)
    zone = Dns(driver).zone(ZONE)
    before = bind.held(ZONE)
    names = [f"n{number}" for number in range(20)] + ["locked", "z"]
    with pytest.raises(PermissionDenied, match=r"locked\.conf\.test\. TXT"):
        zone.change(RecordChange(before=None, after=zone.record(name, "TXT", '"x"')) for name in names)
    assert bind.held(ZONE) == before
    driver.close()
    bind.delete(ZONE)


def test_a_secondary_is_not_written(bind: Any, tmp_path: Path) -> None:
    bind.secondary(ZONE)
    driver = opened(bind.port)
    zone = Dns(driver).zone(ZONE)
    with pytest.raises(OperationError):
        change(zone, driver, (None, zone.record("www", "A", "192.0.2.1")))
    driver.close()
    bind.delete(ZONE)


# many, and at the same time


def test_ten_thousand_record_sets_arrive_and_go(zone: Zone, server: Any) -> None:
    records = [zone.record(f"n{number}", "A", f"10.0.{number // 250}.{number % 250}") for number in range(10_000)]
    zone.change(RecordChange(before=None, after=record) for record in records)
    assert len(server.held(ZONE)) == 10_002
    assert {record.key: record for record in zone.records(type="A")} == {record.key: record for record in records}
    zone.change(zone.diff([]))
    assert set(server.held(ZONE)) == {("conf.test.", "SOA"), ("conf.test.", "NS")}


def test_a_message_is_filled_to_its_end(zone: Zone, driver: Rfc2136Driver, server: Any) -> None:
    text = " ".join(f'"{"x" * 250}"' for _ in range(4))
    records = [zone.record(f"n{number}", "TXT", text) for number in range(200)]
    assert len(list(zone.records())) == 2
    changes = tuple(RecordChange(before=None, after=record) for record in records)
    assert len(list(driver.batches(changes))) == 4
    zone.change(changes)
    assert len(server.held(ZONE)) == 202


def test_counters_of_many_writers_add_up(zone: Zone, server: Any) -> None:
    """Each counts up by compare-and-swap; whoever lost reads again."""
    zone.set("counter", "TXT", '"0"', ttl=60)
    failures = list[Exception]()

    def count() -> None:
        mine = opened(server.port)
        here = Dns(mine).zone(ZONE)
        done = 0
        try:
            while done < 10:
                found = here.get("counter", "TXT")
                number = int(found.texts[0].strip('"'))
                try:
                    here.set("counter", "TXT", f'"{number + 1}"', if_match=found.token)
                except PreconditionFailed:
                    continue
                except Conflict:
                    pass  # read back after another's write: ours happened, and was overtaken
                done += 1
        except OperationError as exc:
            failures.append(exc)
        mine.close()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert zone.get("counter", "TXT").texts == ('"40"',)


def test_what_one_name_holds_follows_every_change(zone: Zone, driver: Rfc2136Driver, server: Any) -> None:
    """The reader has the zone and asks for what changed since; the writer is somebody else."""
    assert len(list(zone.records())) == 2
    other = opened(server.port)
    theirs = Dns(other).zone(ZONE)
    for number in range(30):
        name, kind = f"n{number % 7}", ("A", "TXT")[number % 2]
        value = f"192.0.2.{number}" if kind == "A" else [f'"{number}"', '"both"']
        if number % 5 == 4:
            theirs.delete(name, kind)
        else:
            theirs.set(name, kind, value, ttl=60 + number)
        shown = {(record.name, record.type): record.ttl for record in zone.records(name=name)}
        expected = {key: ttl for key, (ttl, _) in server.held(ZONE).items() if key[0] == f"{name}.conf.test."}
        assert shown == expected
    other.close()


# lines that break, servers that end


@pytest.mark.parametrize("fault", ["before", "after", "cut"])
def test_an_update_whose_answer_is_lost_happens_once(server: Any, fault: str) -> None:
    line = lines.Line(server.port)
    driver = opened(line.port)
    zone = Dns(driver).zone(ZONE)
    old = zone.set("old", "A", "192.0.2.1")
    line.wrong = lines.once(fault, lines.is_update)
    new = zone.record("new", "A", "192.0.2.2")
    zone.change([RecordChange(before=None, after=new), RecordChange(before=old, after=None)])
    driver.close()
    line.close()
    held = server.held(ZONE)
    assert ("new.conf.test.", "A") in held
    assert ("old.conf.test.", "A") not in held


@pytest.mark.parametrize("fault", ["before", "after", "cut"])
def test_a_transfer_that_breaks_begins_again(server: Any, fault: str) -> None:
    line = lines.Line(server.port, lines.once(fault, lambda _request: True))
    driver = opened(line.port)
    assert len(list(Dns(driver).zone(ZONE).records())) == 2
    driver.close()
    line.close()


def test_a_server_that_is_killed_has_whole_messages_and_the_rest_is_done_later(
    debian: Any, servers: Any, tmp_path: Path
) -> None:
    with servers.bind(debian, tmp_path) as server:
        server.create(ZONE)
        driver = opened(server.port)
        zone = Dns(driver).zone(ZONE)
        records = [zone.record(f"n{number:05}", "A", "192.0.2.1") for number in range(20_000)]
        assert len(list(zone.records())) == 2
        batches = list(driver.batches(tuple(RecordChange(before=None, after=record) for record in records)))
        sent = list[int]()
        send = driver._session.send

        def sending(wire: Any) -> int:
            sent.append(1)
            if len(sent) == len(batches) // 2:
                server.process.send_signal(signal.SIGKILL)
            return send(wire)

        driver._session = Sending(driver._session, sending)  # type: ignore[assignment]  # looks like it
        with pytest.raises((Unavailable, Timeout)):
            zone.change(RecordChange(before=None, after=record) for record in records)
        driver.close()
    with servers.bind(debian, tmp_path) as server:
        driver = opened(server.port)
        zone = Dns(driver).zone(ZONE)
        found = {record.key for record in zone.records(type="A")}
        edges = [sum(map(len, batches[:count])) for count in range(len(batches) + 1)]
        assert len(found) in edges
        assert 0 < len(found) < len(records)
        zone.change(zone.diff([*records, *zone.records(name="@")]))
        assert {record.key for record in zone.records(type="A")} == {record.key for record in records}
        driver.close()


@attrs.define
class Sending:
    """A session that does something else in place of sending an update."""

    inner: Any
    send: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
