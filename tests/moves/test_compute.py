"""A fleet moves by the command in every direction between the providers: differences told, machines made, all verified.

What machines there are is read past the drivers.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from shiftable.cli._main import cli

from .command import COMMAND, Answer, Move
from .sides import Side, is_ours
from .yards import COUNT, DECLARED, KEY, YARDS, Yard
from .zones import DECLARED as ZONE_DECLARED

DIRECTIONS = [f"{source}-{target}" for source, target in itertools.permutations(YARDS, 2)]
WANTED = [f"web-{number}" for number in range(COUNT)]


@pytest.fixture
def yard(side: Callable[[str], Side]) -> Iterator[Callable[[str], Yard]]:
    """Hand out a provider of machines by its name: empty, and on loopback."""
    made: list[Yard] = []

    def make(name: str) -> Yard:
        made.append(YARDS[name](side(name)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def told(answer: Answer, number: int = 0) -> dict[str, str]:
    """Return what a plan or a report tells, by facet."""
    (resource,) = answer.results[number]["resources"]
    return {loss["facet"]: loss["detail"] for loss in resource["losses"]}


def amounts(text: str) -> tuple[Decimal | None, ...]:
    """Return what a month costs on both sides, ``None`` for what is not known."""
    found = re.match(r"a month: (.*) at the source, (.*) at the target(?:, (.*) (?:more|less)|, the same)?; ", text)
    assert found, text
    return tuple(
        None if each is None or "unknown" in each else Decimal(each.removesuffix(" USD").replace(",", ""))
        for each in found.groups()
    )


def monthly(yard: Yard, size: str) -> Decimal:
    """Return what the provider's own sizes say, times machines and hours."""
    price = next((each.price for each in yard.service.sizes() if each.name == size), None)
    if price is None:  # one made to measure
        choice = yard.service.choose(yard.spec)
        assert choice.size.name == size
        price = choice.price
    assert price is not None
    return (price * COUNT * 730).quantize(Decimal("0.01"))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_fleet_moves_and_its_differences_are_told(yard: Callable[[str], Yard], folder: Path, direction: str) -> None:
    source_name, target_name = direction.split("-")
    source, target = yard(source_name), yard(target_name)
    source.fill()
    before = source.machines()
    assert WANTED == [each.name for each in before]
    move: Move[Any] = Move(source, target, folder, inside=True, declared=DECLARED)

    # what cannot be there is refused by name, and nothing is made
    if target.gives_up:
        refused = move.run("--apply")
        (resource,) = refused.results[0]["resources"]
        assert 1 == refused.code
        for facet, why in target.gives_up.items():
            assert [each for each in resource["refused"] if why in each and f"--degrade {facet}" in each], resource
        assert len(target.gives_up) == len(resource["refused"])
        assert [] == target.machines()
    degrade = [word for facet in target.gives_up for word in ("--degrade", facet)]

    planned = move.run(*degrade)
    facts = told(planned)
    assert 0 == planned.code
    assert [] == target.machines()
    assert {*target.gives_up} == {
        loss["facet"] for loss in planned.results[0]["resources"][0]["losses"] if loss["accepted"]
    }
    assert f" → {COUNT} of " in facts["size"]
    here, there, more = amounts(facts["price"])
    sizes = re.match(rf"{COUNT} of (\S+) \(.*?\) → {COUNT} of (\S+) \(", facts["size"])
    assert sizes
    assert (monthly(source, sizes[1]) if source.priced else None, source.priced) == (here, here is not None)
    assert (monthly(target, sizes[2]) if target.priced else None, target.priced) == (there, there is not None)
    if here is not None and there is not None and here != there:
        assert more == abs(here - there)
        assert ("more" if there > here else "less") in facts["price"]
    assert "does not move" in facts["contents"]

    done = move.run("--apply", *degrade)

    assert 0 == done.code, done.named()
    made = target.machines()
    assert WANTED == [each.name for each in made]
    assert all(each.running for each in made)
    assert all("payments" == each.labels["team"] for each in made)
    assert COUNT == done.results[0]["changed"]
    assert COUNT == done.results[1]["resources"][0]["verified"]["count"]
    assert before == source.machines()

    again = move.run("--apply", *degrade)
    assert (0, 0) == (again.code, again.results[0]["changed"])
    assert made == target.machines()

    # labels that change at the source arrive at the machines that are there
    source.service.fleet("web").relabel({"stage": "live", "team": "payments"})
    later = move.run("--apply", *degrade)
    assert (0, COUNT) == (later.code, later.results[0]["changed"]), later.named()
    labelled = target.machines()
    assert {"live"} == {each.labels["stage"] for each in labelled}
    assert made == [attrs.evolve(each, labels=was.labels) for each, was in zip(labelled, made, strict=True)]
    assert (0, 0) == ((last := move.run("--apply", *degrade)).code, last.results[0]["changed"])
    assert KEY not in (folder / ".shiftable/migrate.sqlite").read_bytes().decode("latin-1")


# over, and back


class Shop:
    """The application between two providers, and its commands."""

    def __init__(self, source: Yard, target: Yard, folder: Path) -> None:
        self.move: Move[Any] = Move(source, target, folder, inside=True, declared=(*DECLARED, *ZONE_DECLARED))
        self.degrade = [word for facet in target.gives_up for word in ("--degrade", facet)]

    def cutover(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        result = self.told(*arguments, "--json")
        assert code == result.exit_code, result.output
        return json.loads(result.stdout) if code == 0 else {"error": result.stderr}

    def told(self, *arguments: str) -> Result:
        route = ("--from", self.move.source.name, "--to", self.move.target.name)
        result = CliRunner().invoke(cli, ["compute", "cutover", "web", *arguments, *route], env=self.move.environ)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result


def addresses(yard: Yard) -> set[str]:
    """Return where its machines are reached from the internet."""
    return {each for machine in yard.service.fleet("web").machines() for each in machine.info().public_addresses}


def test_the_command_changes_over_and_back(yard: Callable[[str], Yard], folder: Path) -> None:
    source, target = yard("aws"), yard("gcp")
    source.fill()
    zone = source.zones.zone
    zone.set("www", "A", sorted(addresses(source)), ttl=1)
    shop = Shop(source, target, folder)

    assert "move it first" in shop.cutover("switch", "--name", "shop:www", code=1)["error"]
    assert 0 == shop.move.run("--apply", "compute.web", *shop.degrade).code
    assert "switch" == shop.cutover()["next"]
    assert "all new machines run; nobody looked whether they do their work" in shop.told("check").stdout
    shop.cutover(
        "prepare", "--run-each", f'{sys.executable} -c \'import os; open(os.environ["SHIFTABLE_MACHINE"], "w")\''
    )
    assert WANTED == sorted(path.name for path in folder.glob("web-*"))
    assert 1 == shop.cutover("switch", "--name", "shop:www")["changed"]
    assert addresses(target) == set(zone.get("www", "A").texts)
    assert all(each.running for each in source.machines())
    text = shop.told().stdout
    assert "names: www.shop.example. A" in text
    assert "next: stop; " in text
    assert WANTED == shop.cutover("stop")["stopped"]
    assert [False] * COUNT == [each.running for each in source.machines()]
    assert [True] * COUNT == [each.running for each in target.machines()]

    ids = [each.id for each in source.machines()]
    assert 1 == shop.cutover("rollback", "--new", "delete")["changed"]

    assert [True] * COUNT == [each.running for each in source.machines()]
    assert ids == [each.id for each in source.machines()]
    assert addresses(source) == set(zone.get("www", "A").texts)
    assert [] == target.machines()
    assert "" == shop.cutover("status")["next"]

    assert 0 == shop.move.run("--apply", "compute.web", *shop.degrade).code
    shop.cutover("switch", "--name", "shop:www")
    shop.cutover("stop")
    shop.cutover("finish", "--delete-old")
    assert [] == source.machines()
    assert addresses(target) == set(zone.get("www", "A").texts)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("switch", "--name", "www"), "--name www: write LABEL:NAME"),
        (("switch", "--name", "shopp:www"), "has no [dns.shopp]; did you mean shop?"),
        (("check", "--health", "https:443"), "is no check; write"),
        (("prepare", "--copy", "srv"), "is no absolute path"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_done(
    yard: Callable[[str], Yard], folder: Path, arguments: tuple[str, ...], why: str
) -> None:
    source, target = yard("aws"), yard("gcp")
    target.fill()
    assert why in Shop(source, target, folder).cutover(*arguments, code=2)["error"]


# kills


@pytest.mark.parametrize("direction", ["baremetal-azure", "aws-gcp", "gcp-aws"])
def test_a_command_that_is_killed_makes_no_machine_twice(
    yard: Callable[[str], Yard], folder: Path, direction: str
) -> None:
    source, target = (yard(name) for name in direction.split("-"))
    source.fill()
    before = source.machines()
    move: Move[Any] = Move(source, target, folder, inside=False, declared=DECLARED)
    degrade = [word for facet in target.gives_up for word in ("--degrade", facet)]
    chance = random.Random(direction)  # noqa: S311  chooses where to kill
    left, victim = [0], list[subprocess.Popen[str]]()

    def count(call: Any) -> bool:
        left[0] -= is_ours(call)
        if left[0] == 0 and victim:
            victim[0].kill()
        return False

    target.double.inject("latency", match=count, times=None)
    ends, counts = [], []
    for _ in range(4):
        victim.clear()
        with subprocess.Popen(
            [COMMAND, *move.arguments("--apply", *degrade)],
            env={**os.environ, **move.environ},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            victim.append(process)
            left[0] = chance.randrange(4, 30)
            process.communicate(timeout=300)
        ends.append(process.returncode)
        names = [each.name for each in target.machines()]
        assert len(names) == len({*names})
        counts.append(len(names))
    left[0] = 0
    last = move.run("--apply", *degrade)
    again = move.run("--apply", *degrade)

    assert -signal.SIGKILL in ends
    assert counts == sorted(counts)
    assert (0, 0, 0) == (last.code, again.code, again.results[0]["changed"])
    assert WANTED == [each.name for each in target.machines()]
    assert before == source.machines()


# what goes wrong at the target


def scarce(target: Any, cpus: int) -> None:
    """Let the account have so many CPUs."""
    match target.name:
        case "aws":
            target.double.ec2.quota = cpus
        case "gcp":
            target.double.compute.quotas |= {"CPUS": cpus}
        case "azure":
            target.double.machines.cores = cpus


def ill_fated(target: Any) -> None:
    """Let the next machine, or the second one, fail while it is made."""
    match target.name:
        case "aws":
            target.double.ec2.failing["web-1"] = "Server.InternalError: Internal error on launch"
        case "gcp":
            target.double.compute.fail_next(
                "instances.insert", "ZONE_RESOURCE_POOL_EXHAUSTED", "no more", leaves="disk"
            )
        case "azure":
            target.double.machines.fail_create("AllocationFailed")


def makes(call: Any) -> bool:
    """Tell whether a call makes a machine."""
    made = call.operation in {"RunInstances", "compute.instances.insert", "instances.insert"}
    return is_ours(call) and (made or (call.method == "PUT" and "/virtualMachines/" in call.path))


@pytest.fixture(params=["aws", "gcp", "azure"])
def going(request: pytest.FixtureRequest, yard: Callable[[str], Yard], folder: Path) -> Any:
    """Return a move to a provider, and that provider."""
    source, target = yard("baremetal"), yard(request.param)
    source.fill()
    return Shop(source, target, folder), target


def test_a_quota_that_ends_halfway_is_named_and_the_next_run_goes_on(going: Any) -> None:
    shop, target = going
    scarce(target, 4)

    short = shop.move.run("--apply", "compute.web", *shop.degrade, "--concurrency", "1")
    begun = [each.name for each in target.machines() if each.running]
    scarce(target, 100)
    for machine in list(target.service.fleet("web").machines()):
        if machine.info().state == "failed":
            machine.delete()
            machine.wait_deleted()
    last = shop.move.run("--apply", "compute.web", *shop.degrade)

    assert 1 == short.code
    assert 2 == len(begun)
    assert {"failed"} == {trouble for trouble, _ in short.named().values()}
    assert "uota" in " ".join(why for _, why in short.named().values())
    assert 0 == last.code, last.named()
    assert WANTED == [each.name for each in target.machines()]


def test_a_machine_that_fails_is_named_and_made_when_it_is_gone(going: Any) -> None:
    shop, target = going
    ill_fated(target)

    first = shop.move.run("--apply", "compute.web", *shop.degrade)
    if target.name == "aws":
        target.double.ec2.failing.clear()
    for machine in list(target.service.fleet("web").machines()):
        if machine.info().state == "failed":
            machine.delete()
            machine.wait_deleted()
    last = shop.move.run("--apply", "compute.web", *shop.degrade)

    assert 1 == first.code
    assert 1 == len(first.named())
    assert 0 == last.code, last.named()
    assert WANTED == [each.name for each in target.machines()]
    assert all(each.running for each in target.machines())


def test_answers_that_are_lost_make_no_second_machine(going: Any) -> None:
    shop, target = going
    lost = [target.double.inject(kind, match=makes, times=2) for kind in ("drop_after", "drop_before", "truncate")]

    answers = [shop.move.run("--apply", "compute.web", *shop.degrade) for _ in range(3)]

    assert all(fault.hits for fault in lost)
    assert (0, 0) == (answers[-1].code, answers[-1].results[0]["changed"])
    assert WANTED == [each.name for each in target.machines()]
