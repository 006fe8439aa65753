"""Changing over to new machines: health, commands, copies, names, the old side stopped; killed, repeated, and back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.compute import MachineInfo
from shiftable.dns import Dns, Policy, RecordChange, Zone, ZoneSpec
from shiftable.errors import ConfigError, InvalidArgument, MigrationError
from shiftable.memory.dns import MemoryDnsDriver
from shiftable.migrate import FleetCutover, HealthCheck, NamedRecord
from shiftable.migrate._compute_health import ailing
from shiftable.migrate._steps import StepFile

from .fleets import WEB, Fleets

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
WWW = NamedRecord("shop", "here", "www")
SPEC = attrs.evolve(WEB, count=2, public_ip=True)
CANARY = "canary-in-the-environment"


class Killed(BaseException):
    """The process ends here."""


class Names(MemoryDnsDriver):
    """The memory driver with a hook before and after each change."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.changes: list[tuple[RecordChange, ...]] = []

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        self.before()
        super().change(zone, changes)
        self.changes.append(changes)
        self.after()


class Changing:
    """A fleet that was moved, a zone whose www leads to the old side, and a clock that goes when somebody waits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / ".shiftable"
        self.fleets = Fleets(folder, SPEC)
        self.fleets.make()
        assert self.fleets.move().complete
        # the memory provider counts addresses alike in every account
        self.fleets.right.told = lambda machine: attrs.evolve(
            machine,
            public_addresses=tuple(each.replace("203.0.113.", "198.51.100.") for each in machine.public_addresses),
            addresses=tuple(f"172.16.{each[3:]}" for each in machine.addresses),
        )
        self.dns = Names()
        self.zone: Zone = Dns(self.dns).create(ZoneSpec(name="shop.example"))
        self.zone.set("www", "A", self.old, ttl=600)
        self.zone.set("mail", "A", "192.0.2.25", ttl=600)
        self.dns.changes.clear()
        self.now = START
        self.slept: list[float] = []
        self.checks: tuple[HealthCheck, ...] = ()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)

    def over(self) -> None:
        """Go the way over, but for its end."""
        self.open().switch([WWW])
        self.open().stop()

    def open(self, source: str = "old", target: str = "new") -> FleetCutover:
        """Open it anew, as another call of the command does."""
        self.folder.mkdir(exist_ok=True)
        return FleetCutover(
            self.fleets.old,
            self.fleets.new,
            SPEC,
            self.folder,
            labels=(source, target),
            zones=lambda _label, _provider: self.zone,
            checks=self.checks,
            health_timeout=0.0,
            clock=lambda: self.now,
            pause=self.sleep,
        )

    def addresses(self, machines: list[MachineInfo]) -> list[str]:
        return sorted(address for machine in machines for address in machine.public_addresses)

    @property
    def old(self) -> list[str]:
        return self.addresses(self.fleets.here())

    @property
    def new(self) -> list[str]:
        return self.addresses(self.fleets.there())

    @property
    def www(self) -> list[str]:
        return sorted(self.zone.get("www", "A").texts)

    def states(self, machines: list[MachineInfo]) -> set[str]:
        return {machine.state for machine in machines}


@pytest.fixture
def changing(tmp_path: Path) -> Changing:
    return Changing(tmp_path)


@pytest.fixture
def server() -> Iterator[Callable[[bytes], int]]:
    """Start servers that answer everybody with the same bytes; hand out their ports."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []

    def start(answer: bytes) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(0.05)
        sockets.append(listening)

        def serve() -> None:
            while not over.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection, contextlib.suppress(OSError):  # who only looks has gone
                    connection.settimeout(5)
                    if not answer.startswith(b"SSH"):
                        connection.recv(4096)
                    connection.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return int(listening.getsockname()[1])

    yield start
    over.set()
    for thread in threads:
        thread.join()
    for each in sockets:
        each.close()


def on_loopback(changing: Changing, *, broken: str = "", port: int) -> None:
    """Let the port 80 of the new machines lead to a server here; of one of them to nobody."""
    changing.fleets.right.told = lambda machine: attrs.evolve(
        machine,
        public_addresses=("127.0.0.1", f"198.51.100.{machine.name[-1]}"),
        ports={80: 1 if machine.name == broken else port},
    )


# over


def test_the_whole_way_over(changing: Changing) -> None:
    old, new = changing.old, changing.new
    move = changing.open()
    assert "switch" == move.status().next

    assert 1 == move.switch([WWW])
    assert new == changing.www
    assert 600 == changing.zone.get("www", "A").ttl
    assert {"running"} == changing.states(changing.fleets.here())
    assert ("stop", START, START + timedelta(seconds=600)) == (
        move.status().next,
        move.status().switched_at,
        move.status().keep_until,
    )

    assert ("web-0", "web-1") == changing.open().stop()
    assert 600 == sum(changing.slept)
    assert {"stopped"} == changing.states(changing.fleets.here())
    assert {"running"} == changing.states(changing.fleets.there())
    assert "finish" == changing.open().status().next

    changing.open().finish()
    changing.open().finish()
    assert {"stopped"} == changing.states(changing.fleets.here())
    assert ["192.0.2.25"] == list(changing.zone.get("mail", "A").texts)
    assert ("", START + timedelta(seconds=600)) == (changing.open().status().next, changing.open().status().finished_at)
    assert old != new


def test_old_machines_are_deleted_only_if_that_is_said_and_only_if_they_stand_still(changing: Changing) -> None:
    move = changing.open()
    move.switch([WWW])
    with pytest.raises(MigrationError, match="the old side was not stopped; stop it first"):
        move.finish(delete_old=True)
    move.stop()
    changing.fleets.old.fleet("web").machine("web-1").start()
    with pytest.raises(MigrationError, match="web-1 of the old side run again; nothing was deleted"):
        move.finish(delete_old=True)
    assert 2 == len(changing.fleets.here())
    changing.fleets.old.fleet("web").machine("web-1").stop()

    move.finish(delete_old=True)

    assert [] == changing.fleets.here()
    assert 2 == len(changing.fleets.there())
    assert changing.new == changing.www


def test_old_machines_may_be_deleted_long_after_the_end(changing: Changing) -> None:
    changing.over()
    changing.open().finish()
    ended = changing.open().status().finished_at
    assert 2 == len(changing.fleets.here())
    changing.now += timedelta(days=7)

    changing.open().finish(delete_old=True)

    assert [] == changing.fleets.here()
    assert ended == changing.open().status().finished_at


def test_there_is_a_way_back_after_the_end_while_the_old_machines_are_there(changing: Changing) -> None:
    changing.over()
    changing.open().finish()

    assert 1 == changing.open().rollback()

    assert changing.old == changing.www
    assert {"running"} == changing.states(changing.fleets.here())
    assert changing.open().status().finished_at is None
    with pytest.raises(MigrationError, match="the old side was not stopped; stop it first"):
        changing.open().finish(delete_old=True)
    assert 2 == len(changing.fleets.here())


def test_after_the_end_and_without_the_old_machines_there_is_no_way_back(changing: Changing) -> None:
    changing.over()
    changing.open().finish(delete_old=True)
    with pytest.raises(MigrationError, match="machines of the old side are gone; there is no way back"):
        changing.open().rollback()
    assert changing.new == changing.www
    assert changing.open().status().finished_at


def test_a_step_that_is_made_again_after_the_end_changes_nothing(changing: Changing) -> None:
    changing.over()
    changing.open().finish()
    before = changing.open().status()
    assert 0 == changing.open().switch([WWW])
    assert ("web-0", "web-1") == changing.open().stop()
    assert before == changing.open().status()


def test_where_machines_cannot_be_stopped_they_run_until_they_are_deleted(changing: Changing) -> None:
    changing.fleets.left.chosen |= {"stop": False}
    changing.open().switch([WWW])
    assert () == changing.open().stop()
    assert {"running"} == changing.states(changing.fleets.here())
    changing.open().finish(delete_old=True)
    assert [] == changing.fleets.here()


def test_without_names_only_health_counts_and_nothing_is_waited_for(changing: Changing) -> None:
    move = changing.open()
    assert 0 == move.switch()
    assert ("web-0", "web-1") == move.stop()
    assert [] == changing.slept
    assert changing.dns.changes == []


def test_a_second_switch_changes_nothing(changing: Changing) -> None:
    changing.open().switch([WWW])
    writes = len(changing.dns.changes)
    assert 0 == changing.open().switch([WWW])
    assert 0 == changing.open().switch()
    assert writes == len(changing.dns.changes)


def test_an_aaaa_that_nobody_answers_any_more_is_taken_away_and_comes_back(changing: Changing) -> None:
    told = changing.fleets.left.told
    changing.fleets.left.told = lambda machine: attrs.evolve(
        told(machine), public_addresses=(*machine.public_addresses, f"2001:db8::{machine.name[-1]}")
    )
    changing.zone.set("www", "AAAA", ["2001:db8::0", "2001:db8::1"], ttl=300)

    assert 2 == changing.open().switch([WWW])
    assert not changing.zone.exists("www", "AAAA")

    assert 2 == changing.open().rollback()
    assert ["2001:db8::", "2001:db8::1"] == sorted(changing.zone.get("www", "AAAA").texts)
    assert 300 == changing.zone.get("www", "AAAA").ttl


def test_a_name_that_was_not_there_is_made_and_taken_away_again(changing: Changing) -> None:
    record = NamedRecord("shop", "here", "@")
    assert 1 == changing.open().switch([record])
    assert changing.new == sorted(changing.zone.get("@", "A").texts)
    assert 1 == changing.open().rollback()
    assert not changing.zone.exists("@", "A")


# what stands in the way


def test_too_few_machines_are_no_new_side(changing: Changing) -> None:
    changing.fleets.new.fleet("web").machine("web-1").delete()
    for step in ("check", "switch"):
        with pytest.raises(MigrationError, match=r"web on new: there are 1 of 2 machines; move it first"):
            getattr(changing.open(), step)()
    changing.fleets.move()
    changing.fleets.new.fleet("web").machine("web-0").stop()
    with pytest.raises(MigrationError, match="web-0 do not run"):
        changing.open().switch([WWW])
    assert changing.old == changing.www


def test_a_machine_that_is_not_well_changes_nothing_and_the_old_side_runs_on(
    changing: Changing, server: Callable[[bytes], int]
) -> None:
    changing.checks = (HealthCheck.parse("http:80/health"),)
    on_loopback(changing, broken="web-1", port=server(b"HTTP/1.1 200 OK\r\n\r\n"))

    with pytest.raises(MigrationError, match=r"the new side of web is not well: web-1: http:80/health=200 at 127"):
        changing.open().switch([WWW])

    assert changing.old == changing.www
    assert [] == changing.dns.changes
    assert {"running"} == changing.states(changing.fleets.here())
    with pytest.raises(MigrationError, match="names do not lead to the new machines yet; switch first"):
        changing.open().stop()
    on_loopback(changing, port=server(b"HTTP/1.1 200 OK\r\n\r\n"))
    assert 1 == changing.open().switch([WWW])


def test_a_new_side_that_fell_ill_since_does_not_stop_the_old_one(
    changing: Changing, server: Callable[[bytes], int]
) -> None:
    changing.open().switch([WWW])
    changing.checks = (HealthCheck.parse("http:80/"),)
    on_loopback(changing, broken="web-0", port=server(b"HTTP/1.1 200 OK\r\n\r\n"))
    with pytest.raises(MigrationError, match="not well: web-0"):
        changing.open().stop()
    assert {"running"} == changing.states(changing.fleets.here())


def test_a_name_that_leads_elsewhere_is_left_alone_unless_that_is_said(changing: Changing) -> None:
    changing.zone.set("www", "A", [*changing.old, "192.0.2.99"])
    with pytest.raises(MigrationError, match=r"leads to 192\.0\.2\.99, which is no machine of the old side"):
        changing.open().switch([WWW])
    assert 1 == len(changing.dns.changes)  # the test's own
    assert 1 == changing.open().switch([WWW], force=True)
    assert changing.new == changing.www
    changing.open().rollback()
    assert sorted([*changing.old, "192.0.2.99"]) == changing.www


@pytest.mark.parametrize("what", ["cname", "policy"])
def test_a_name_that_is_none_of_plain_addresses_is_refused(changing: Changing, what: str) -> None:
    if what == "cname":
        changing.zone.set("alias", "CNAME", "www.shop.example.")
    else:
        record = changing.zone.record("alias", "A", changing.old, ttl=60)
        routed = attrs.evolve(record, policy=Policy(provider="memory", data=json.dumps({"weight": 1}), set_id="a"))
        changing.zone.change([RecordChange(before=None, after=routed)])
    with pytest.raises(MigrationError, match="is a CNAME, an alias or answered by rules of its provider"):
        changing.open().switch([NamedRecord("shop", "here", "alias")])


@pytest.mark.parametrize("step", ["switch", "stop", "rollback"])
def test_a_name_that_somebody_else_changed_meanwhile_is_left_alone(changing: Changing, step: str) -> None:
    changing.open().switch([WWW])
    changing.zone.set("www", "A", "192.0.2.77")
    writes = len(changing.dns.changes)
    act = {
        "switch": lambda: changing.open().switch([WWW]),
        "stop": lambda: changing.open().stop(),
        "rollback": lambda: changing.open().rollback(),
    }[step]

    with pytest.raises(MigrationError, match=r"somebody has changed www\.shop\.example\. A meanwhile: it leads to 192"):
        act()

    assert ["192.0.2.77"] == changing.www
    assert writes == len(changing.dns.changes)
    assert {"running"} == changing.states(changing.fleets.here())


def test_of_several_names_none_is_changed_if_one_cannot_be(changing: Changing) -> None:
    changing.zone.set("api", "A", "192.0.2.99")
    writes = len(changing.dns.changes)
    with pytest.raises(MigrationError, match="192"):
        changing.open().switch([WWW, NamedRecord("shop", "here", "api")])
    assert writes == len(changing.dns.changes)


def test_a_name_leads_to_no_address_of_this_computer_alone(changing: Changing) -> None:
    changing.fleets.right.told = lambda machine: attrs.evolve(machine, public_addresses=(), addresses=("127.0.0.1",))
    with pytest.raises(MigrationError, match="the new machines have no address that a name could lead to"):
        changing.open().switch([WWW])
    assert changing.old == changing.www


def test_two_at_once_are_told_apart(changing: Changing) -> None:
    move = changing.open()
    with move._file.locked(), pytest.raises(MigrationError, match="another move is using the journal"):
        changing.open().switch([WWW])


def test_another_move_may_begin_after_the_end(changing: Changing) -> None:
    changing.over()
    changing.open().finish()
    assert "switch" == changing.open("old", "third").status().next


def test_another_moves_file_is_not_taken_for_this_ones(changing: Changing) -> None:
    changing.open().switch([WWW])
    other = changing.open("old", "third")
    with pytest.raises(MigrationError, match="tells of a change over from old to new"):
        other.status()
    changing.open().rollback()
    assert "switch" == other.status().next  # that one is over
    with pytest.raises(MigrationError, match="name two providers"):
        changing.open("a", "a")


# back


@pytest.mark.parametrize("new", ["keep", "stop", "delete"])
@pytest.mark.parametrize("since", ["switch", "stop"])
def test_the_way_back(changing: Changing, since: str, new: Any) -> None:
    changing.open().switch([WWW])
    if since == "stop":
        changing.open().stop()
    changing.slept.clear()

    assert 1 == changing.open().rollback(new=new)

    assert changing.old == changing.www
    assert {"running"} == changing.states(changing.fleets.here())
    wanted = {"keep": {"running"}, "stop": {"stopped"}, "delete": set()}
    assert wanted[new] == changing.states(changing.fleets.there())
    assert (0 if new == "keep" else 600) == sum(changing.slept)
    assert ("", True) == (changing.open().status().next, changing.open().status().going_back)
    assert 0 == changing.open().rollback()


def test_what_is_given_up_before_a_name_was_changed_does_not_say_that_names_went_back(changing: Changing) -> None:
    assert 0 == changing.open().rollback()
    found = changing.open().status()
    assert ((), "", "it was given up before a name was changed") == (found.names, found.next, found.why)


def test_after_a_way_back_one_may_go_over_again(changing: Changing) -> None:
    changing.open().switch([WWW])
    changing.open().rollback(new="stop")
    assert changing.fleets.move().complete
    assert 1 == changing.open().switch([WWW])
    assert changing.new == changing.www
    changing.open().stop()
    assert {"stopped"} == changing.states(changing.fleets.here())


def test_old_machines_that_come_back_with_other_addresses_are_found_there(changing: Changing) -> None:
    """Most clouds give a public address back when a machine is stopped; then it is somebody else's."""
    before = changing.old
    changing.open().switch([WWW])
    changing.open().stop()
    changing.fleets.left.told = lambda machine: attrs.evolve(
        machine,
        public_addresses=(f"192.0.2.4{machine.name[-1]}",) if machine.state == "running" else (),
    )

    changing.open().rollback()

    assert ["192.0.2.40", "192.0.2.41"] == changing.www
    assert before != changing.www


def test_machines_that_stood_still_before_are_not_started_by_the_way_back(changing: Changing) -> None:
    changing.fleets.old.fleet("web").machine("web-1").stop()
    changing.zone.set("www", "A", changing.old[:1])
    changing.open().switch([WWW])
    assert ("web-0",) == changing.open().stop()
    changing.open().rollback()
    assert ["running", "stopped"] == [machine.state for machine in changing.fleets.here()]


def test_there_is_no_way_back_to_machines_that_are_gone(changing: Changing) -> None:
    changing.open().switch([WWW])
    changing.open().stop()
    changing.fleets.old.fleet("web").machine("web-0").delete()
    with pytest.raises(MigrationError, match="machines of the old side are gone; there is no way back"):
        changing.open().rollback()
    assert changing.new == changing.www


def test_an_old_side_that_is_not_well_keeps_the_names_where_they_are(
    changing: Changing, server: Callable[[bytes], int]
) -> None:
    changing.open().switch([WWW])
    changing.checks = (HealthCheck.parse("tcp:80"),)
    real = changing.fleets.left.told
    changing.fleets.left.told = lambda machine: attrs.evolve(
        real(machine), public_addresses=("127.0.0.1",), ports={80: 1}
    )
    with pytest.raises(MigrationError, match="the old side of web is not well"):
        changing.open().rollback()
    assert changing.new == changing.www
    with pytest.raises(MigrationError, match="it is being rolled back; run rollback to its end first"):
        changing.open().switch([WWW])
    changing.fleets.left.told = real
    assert 1 == changing.open().rollback(force=True)
    assert changing.old == changing.www


# kills


class Fuse:
    """Burns down by one at each point at which something is written, and kills."""

    def __init__(self, changing: Changing, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
        self.left = length
        for side in (changing.fleets.left, changing.fleets.right):
            side.before = side.after = lambda _operation, _name: self.burn()
        changing.dns.before = changing.dns.after = self.burn
        real = StepFile.write

        def write(file: StepFile[Any], state: Any) -> None:
            self.burn()
            real(file, state)
            self.burn()

        monkeypatch.setattr(StepFile, "write", write)

    def burn(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("way", ["over", "back"])
@pytest.mark.parametrize("length", range(1, 31))
def test_killed_anywhere_the_same_step_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, way: str
) -> None:
    changing, back = Changing(tmp_path), way == "back"
    steps: list[Callable[[FleetCutover], object]] = [
        lambda move: move.switch([WWW]),
        lambda move: move.stop(),
        lambda move: move.rollback(new="stop") if back else move.finish(),
    ]
    if back:  # the points before are those of the way over
        for step in steps[:2]:
            step(changing.open())
        steps = steps[2:]
    fuse = Fuse(changing, monkeypatch, length)
    kills = 0
    for step in steps:
        try:
            step(changing.open())
        except Killed:
            kills += 1
            step(changing.open())

    assert kills == (1 if fuse.left <= 0 else 0)
    assert kills == 0 or length < 30  # else there would be more points than are tested
    here, there = changing.states(changing.fleets.here()), changing.states(changing.fleets.there())
    assert (({"running"}, {"stopped"}) if back else ({"stopped"}, {"running"})) == (here, there)
    changing.fleets.right.before = changing.fleets.right.after = lambda _operation, _name: None
    changing.fleets.new.fleet("web").start()
    assert (changing.old if back else changing.new) == changing.www
    assert (2, 2) == (len(changing.fleets.here()), len(changing.fleets.there()))


@pytest.mark.parametrize("length", range(1, 16))
def test_killed_on_the_way_over_there_is_a_way_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    changing = Changing(tmp_path)
    fuse = Fuse(changing, monkeypatch, length)
    with contextlib.suppress(Killed):
        changing.open().switch([WWW])
        changing.open().stop()
    assert fuse.left <= 0 or length == 15  # the last one gets through
    fuse.left = 0

    changing.open().rollback(new="delete")

    assert changing.old == changing.www
    assert {"running"} == changing.states(changing.fleets.here())
    assert [] == changing.fleets.there()


# before


def program(folder: Path, text: str) -> Path:
    path = folder / "hook with blanks"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_commands_run_once_for_the_fleet_and_once_for_each_machine(changing: Changing, tmp_path: Path) -> None:
    log = tmp_path / "log"
    hook = program(
        tmp_path,
        f'echo "$1|$SHIFTABLE_FLEET|$SHIFTABLE_MACHINE|$SHIFTABLE_OLD_ADDRESS|$SHIFTABLE_NEW_ADDRESS|'
        f'$SHIFTABLE_MACHINES|$SHIFTABLE_OLD_ADDRESSES|$SHIFTABLE_NEW_ADDRESSES" >> "{log}"',
    )
    old, new = changing.old, changing.new

    for _ in range(2):
        changing.open().prepare(command=f"'{hook}' 'a; b $(c)'", each=f"'{hook}' each")

    assert [
        f"a; b $(c)|web||||web-0 web-1|{' '.join(old)}|{' '.join(new)}",
        f"each|web|web-0|{old[0]}|{new[0]}|||",
        f"each|web|web-1|{old[1]}|{new[1]}|||",
    ] == log.read_text().splitlines()
    changing.open().prepare(each=f"'{hook}' each", again=True)
    assert 5 == len(log.read_text().splitlines())


def test_a_command_that_fails_is_told_and_run_again_and_those_that_ended_well_are_not(
    changing: Changing, tmp_path: Path
) -> None:
    log, broken = tmp_path / "log", tmp_path / "broken"
    hook = program(
        tmp_path, f'echo "$SHIFTABLE_MACHINE" >> "{log}"; [ "$SHIFTABLE_MACHINE" = web-0 ] || test ! -e "{broken}"'
    )
    broken.touch()
    with pytest.raises(MigrationError, match="for web-1 ended with 1; correct that and run this again"):
        changing.open().prepare(each=f"'{hook}'")
    broken.unlink()
    changing.open().prepare(each=f"'{hook}'")
    assert ["web-0", "web-1", "web-1"] == log.read_text().splitlines()


@pytest.mark.parametrize("command", ["", "/nowhere/at/all"])
def test_a_command_that_is_not_there_is_wrong_usage(changing: Changing, command: str) -> None:
    with pytest.raises(ConfigError, match="cannot be run"):
        changing.open().prepare(command=command)


def test_paths_go_from_each_old_machine_to_the_new_one_of_its_name(
    changing: Changing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    fake = program(bin_, f'for each in "$@"; do printf "%s\\n" "$each" >> "{log}"; done; echo END >> "{log}"')
    fake.rename(bin_ / "rsync")
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    changing.fleets.left.told = lambda machine: attrs.evolve(machine, ports={22: 40_022})

    changing.open().prepare(paths=["/srv/shop data"])

    calls = [each.splitlines() for each in log.read_text().split("END\n")[:-1]]
    stage = changing.folder / "fleet-web"
    wanted = []
    for number, name in enumerate(("web-0", "web-1")):
        wanted.append([f"shift@{changing.old[number]}:/srv/shop data", f"{stage}/{name}/"])
        wanted.append([f"{stage}/{name}/./srv/shop data", f"shift@{changing.new[number]}:/"])
    assert wanted == [call[-2:] for call in calls]
    assert {("-a", "-s", "--relative", "--no-implied-dirs", "-e")} == {tuple(call[:5]) for call in calls}
    assert "--" == calls[0][6]
    assert "Port=40022" in calls[0][5]
    aliases = [re.search(r"HostKeyAlias=(shiftable-\S+)", call[5]) for call in calls]
    assert 4 == len({found[1] for found in aliases if found})  # no machine is taken for another one
    assert "Port" not in calls[1][5]
    assert 0o700 == stat.S_IMODE((stage / "web-0").stat().st_mode)
    (stage / "web-0" / "left").write_text(CANARY)
    changing.open().switch()
    changing.open().stop()
    changing.open().finish()
    assert not stage.exists()


@pytest.mark.parametrize("path", ["srv", "/srv/../etc", "-e", "/a\nb", "host:/srv", "/"])
def test_what_is_no_path_is_not_copied(changing: Changing, path: str) -> None:
    with pytest.raises(ConfigError, match="is no absolute path"):
        changing.open().prepare(paths=[path])


def test_without_rsync_that_is_said(changing: Changing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="copying paths needs rsync, here and on the machines"):
        changing.open().prepare(paths=["/srv"])


# how machines are looked at


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ssh", "ssh:22"),
        ("ssh:2222", "ssh:2222"),
        ("tcp:5432", "tcp:5432"),
        ("http", "http:80/=200"),
        ("http:8080/health?x=1", "http:8080/health?x=1=200"),
        ("http:8080/a=204", "http:8080/a=204"),
    ],
)
def test_checks_are_read_as_they_are_written(text: str, told: str) -> None:
    assert told == str(HealthCheck.parse(text))
    assert HealthCheck.parse(text) == HealthCheck.parse(told)


@pytest.mark.parametrize("text", ["", "tcp", "tcp:0", "tcp:70000", "ssh:22/x", "tcp:80=200", "https:443/", "http:80x"])
def test_what_is_no_check_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no check; write"):
        HealthCheck.parse(text)


@pytest.mark.parametrize(
    ("check", "answer", "why"),
    [
        ("http:1/", b"HTTP/1.1 200 OK\r\n\r\n", None),
        ("http:1/", b"HTTP/1.0 200\r\n", None),
        ("http:1/=301", b"HTTP/1.1 301 Moved\r\n\r\n", None),
        ("http:1/", b"HTTP/1.1 500 No\r\n\r\n", "it answers 500"),
        ("http:1/", b"SSH-2.0-x\r\n", "it does not answer as HTTP does"),
        ("http:1/", b"", "it does not answer as HTTP does"),
        ("http:1/", b"x" * 100_000, "it does not answer as HTTP does"),
        ("ssh:1", b"SSH-2.0-OpenSSH\r\n", None),
        ("ssh:1", b"SSH2 is not it\r\n", "it does not greet as ssh does"),
        ("tcp:1", b"", None),
    ],
)
def test_one_look(server: Callable[[bytes], int], check: str, answer: bytes, why: str | None) -> None:
    found = HealthCheck.parse(check).failure("127.0.0.1", 5.0, port=server(answer))
    assert (found is None) == (why is None)
    assert why is None or why in (found or "")


def test_a_port_of_this_computer_that_leads_nowhere_is_nobodys_health(
    server: Callable[[bytes], int], tmp_path: Path
) -> None:
    port = server(b"HTTP/1.1 200 OK\r\n\r\n")
    (seen,) = Fleets(tmp_path, attrs.evolve(WEB, count=1)).make().wait()
    machine = attrs.evolve(seen, public_addresses=(), addresses=("127.0.0.1",), ports={22: 1})
    check = HealthCheck.parse(f"http:{port}/")
    told = ailing([check], [machine], timeout=0)
    assert f"the port leads to no machine; open {port} in the declaration" in told[machine.name]
    assert ailing([check], [attrs.evolve(machine, ports={port: port})], timeout=0) == {}
    assert ailing([check], [attrs.evolve(machine, ports={})], timeout=0) == {}


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = HealthCheck.parse("ssh").failure("127.0.0.1", 0.05, port=silent.getsockname()[1])
    assert found is not None
    assert "timed out" in found
