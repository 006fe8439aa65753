"""Zones move between all providers: every record set arrives equal or is refused in the plan, by name."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from shiftable.dns import RecordSet
from shiftable.testing.conformance.dns import RECORDS

from .command import Move
from .corpus import Scale
from .sides import Side
from .zones import DECLARED, ORIGIN, ZONES, ServerZones, Zones

DIRECTIONS = [*itertools.permutations(ZONES, 2)]
IDS = [f"{source}-{target}" for source, target in DIRECTIONS]
OWN = {(ORIGIN, "NS"), (ORIGIN, "SOA")}
TTL = 600


def record(name: str, type: str, values: tuple[str, ...], ttl: int = TTL) -> RecordSet:
    return RecordSet.of(name, type, values, ttl=ttl, origin=ORIGIN)


def everything() -> list[RecordSet]:
    return [record(name, kind, values) for name, kind, values in RECORDS]


@pytest.fixture
def zones(side: Callable[[str], Side]) -> Iterator[Callable[[str], Zones]]:
    """Hand out a provider by its name: without the zone, and on loopback."""
    made: list[Zones] = []

    def hand(name: str) -> Zones:
        place = ZONES[name].side_name
        made.append(ZONES[name](None if place is None else side(place)))
        return made[-1]

    yield hand
    for each in made:
        each.service.close()
        if isinstance(each, ServerZones):
            each.server.close()


@contextmanager
def answering(target: Zones) -> Iterator[str]:
    with target.answering() as server:
        yield server


def moved(found: dict[Any, Any]) -> dict[Any, Any]:
    """Leave out the zone's own."""
    return {key: value for key, value in found.items() if key not in OWN}


@pytest.mark.parametrize(("source_name", "target_name"), DIRECTIONS, ids=IDS)
def test_every_record_set_arrives_equal_or_is_refused_in_the_plan_by_name(
    zones: Callable[[str], Zones], folder: Path, source_name: str, target_name: str
) -> None:
    source, target = zones(source_name), zones(target_name)
    held = {(each.name, each.type) for each in source.fill(everything())}
    before = source.read()
    assert held == set(moved(before))
    move = Move(source, target, folder, inside=True, declared=DECLARED)

    plan = move.run("--save-plan", "plan.json", "--ask", "none")
    applied = move.run("--apply", "--plan", "plan.json", "--no-verify")
    with answering(target) as server:
        verified = move.run("--verify", "--ask", server)
    again = move.run("--apply", "--no-verify")

    refused = {tuple(key.split(" ")[:2]): reason for key, (trouble, reason) in plan.named().items()}
    assert {trouble for trouble, _ in plan.named().values()} <= {"refused"}
    assert applied.named() == plan.named()
    assert again.results[0]["changed"] == 0
    found = target.read()
    wanted = {key: value for key, value in moved(before).items() if key not in refused}
    differing = {key for key in {*wanted, *moved(found)} if wanted.get(key) != found.get(key)}
    assert differing == set()
    assert source.read() == before
    assert all(reason for reason in refused.values())
    told = {key: trouble for key, (trouble, _) in verified.named().items()}
    assert told == dict.fromkeys(plan.named(), "missing"), verified.named()
    assert verified.results[0]["resources"][0]["verified"]["count"] == len(wanted)
    (note,) = verified.results[0]["resources"][0]["notes"]
    assert note.startswith(f"asked {server} for {len(wanted):,} record sets")


@pytest.mark.parametrize(("source_name", "target_name"), DIRECTIONS, ids=IDS)
def test_what_changes_at_the_source_follows_and_what_somebody_changed_there_is_told(
    zones: Callable[[str], Zones], folder: Path, source_name: str, target_name: str
) -> None:
    source, target = zones(source_name), zones(target_name)
    source.fill(record(f"host-{number}", "A", (f"192.0.2.{number}",)) for number in range(30))
    source.fill([record("swap", "CNAME", ("x.example.net.",))])
    move = Move(source, target, folder, inside=True, declared=DECLARED)
    target.fill([record("theirs", "TXT", ('"theirs"',)), record("host-3", "A", ("192.0.2.99",))])

    first = move.run("--apply", "--no-verify")
    zone = source.zone
    zone.set("host-5", "A", "192.0.2.250")
    zone.delete("host-6", "A")
    zone.change(
        zone.diff(
            [*(each for each in zone.records() if each.name != f"swap.{ORIGIN}"), record("swap", "A", ("192.0.2.77",))]
        )
    )
    second = move.run("--apply", "--delete", "--no-verify")
    third = move.run("--apply", "--delete", "--overwrite", "--ask", "none")

    assert {key: trouble for key, (trouble, _) in first.named().items()} == {f"host-3.{ORIGIN} A": "conflict"}
    assert {key: trouble for key, (trouble, _) in second.named().items()} == {f"host-3.{ORIGIN} A": "conflict"}
    assert second.results[0]["changed"] == 4
    assert third.code == 0, third.named()
    found = moved(target.read())
    assert found.pop((f"theirs.{ORIGIN}", "TXT"))[0] == TTL
    assert found == moved(source.read())


@pytest.mark.parametrize("target_name", ["baremetal", "rfc2136", "gcp"])
def test_a_server_that_answers_otherwise_than_it_was_told_is_found_out(
    zones: Callable[[str], Zones], folder: Path, target_name: str
) -> None:
    source, target, liar = (
        zones("aws"),
        zones(target_name),
        zones("baremetal" if target_name != "baremetal" else "rfc2136"),
    )
    records = [record(f"host-{number}", "A", (f"192.0.2.{number}",)) for number in range(40)]
    source.fill(records)
    liar.fill([*records[:7], record("host-7", "A", ("203.0.113.1",)), *records[8:]])
    move = Move(source, target, folder, inside=True, declared=DECLARED)
    move.run("--apply", "--no-verify")

    with answering(target) as good, answering(liar) as bad:
        right = move.run("--verify", "--ask", good)
        wrong = move.run("--verify", "--ask", good, "--ask", bad)

    assert right.code == 0, right.named()
    assert {key: trouble for key, (trouble, _) in wrong.named().items()} == {f"host-7.{ORIGIN} A": "differs"}
    assert bad in wrong.named()[f"host-7.{ORIGIN} A"][1]


def test_a_plan_for_people_says_time_calls_and_what_is_the_zones_own(
    zones: Callable[[str], Zones], folder: Path
) -> None:
    source, target = zones("baremetal"), zones("azure")
    source.fill(record(f"host-{number}", "A", ("192.0.2.1",)) for number in range(600))
    move = Move(source, target, folder, inside=False, declared=DECLARED)

    with move.start(json_lines=False) as process:
        out, err = process.communicate(timeout=120)

    lines = out.splitlines()
    assert err == "" or "Traceback" not in err
    assert "  create: 600 items" in lines
    assert "  time: at least 3 min, by 200 record sets a minute to azure" in lines
    assert any(line.startswith("  note: apex: the NS of the zone itself stay the target's own") for line in lines)
    assert any(line.startswith("  first: create dns shop.example") for line in lines)


def test_a_move_that_is_killed_anywhere_ends_equal(zones: Callable[[str], Zones], folder: Path, scale: Scale) -> None:
    chance = random.Random(5)  # noqa: S311  chooses where to kill
    source, target = zones("baremetal"), zones("rfc2136")
    assert isinstance(target, ServerZones)
    count = 10_000
    source.fill(record(f"host-{number:05}", "A", (f"10.0.{number // 250}.{number % 250}",)) for number in range(count))
    move = Move(source, target, folder, inside=False, declared=DECLARED)
    ends, counts = [], []

    for _ in range(3 if scale.inside else 12):
        wanted, where = chance.randrange(1, 4), chance.choice(["before", "after"])
        with move.start("--apply", "--no-verify") as process:
            left = [wanted]

            def kill(now: str, process: Any = process, left: list[int] = left, where: str = where) -> None:
                left[0] -= now == where
                if left[0] == 0 and now == where:
                    process.kill()

            target.backing.hook = kill
            process.communicate(timeout=600)
        ends.append(process.returncode)
        counts.append(len(moved(target.read())))
    target.backing.hook = lambda _: None
    with answering(target) as server:
        last = move.run("--apply", "--ask", server)
    again = move.run("--apply", "--no-verify")

    assert -9 in ends
    assert set(ends) <= {-9, 0}
    assert counts == sorted(counts)
    assert last.code == 0, last.named(1)
    assert again.results[0]["changed"] == 0
    assert moved(target.read()) == moved(source.read())
    with closing(sqlite3.connect(move.journal)) as journal:
        assert journal.execute("SELECT count(*), min(done) FROM item").fetchall() == [(count, 1)]
