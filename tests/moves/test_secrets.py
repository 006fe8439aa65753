"""Secrets move between all providers with all versions, and no value is on a disk or a screen."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import pytest

from .command import Move
from .corpus import Scale
from .hidden import CANARY, Hidden, hidden, leaks
from .vaults import DECLARED, VAULTS, Vault, all_values

DIRECTIONS = [*itertools.permutations(VAULTS, 2)]
REPORTS = ("--report", "move.html", "--report", "move.json")


def differences(wanted: Mapping[str, Hidden], found: Mapping[str, Hidden]) -> list[str]:
    """Return the keys of what is not the same."""
    return sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))


@pytest.mark.parametrize(("source_name", "target_name"), DIRECTIONS, ids=[f"{a}-{b}" for a, b in DIRECTIONS])
def test_all_versions_arrive_and_no_value_is_seen_on_the_way(
    vault: Callable[[str], Vault],
    folder: Path,
    scale: Scale,
    source_name: str,
    target_name: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setenv("TMPDIR", str(scratch))
    caplog.set_level(logging.DEBUG, logger="shiftable")
    source, target = vault(source_name), vault(target_name)
    secrets = hidden(scale.secrets)
    source.fill(secrets)
    assert differences(secrets, source.read()) == []
    untouched = source.writes()
    move = Move(source, target, folder, inside=scale.inside, declared=DECLARED)

    plan = move.run("--history", "all", "--save-plan", "plan.json")
    assert target.writes() == []
    applied = move.run("--history", "all", "--apply", "--plan", "plan.json", *REPORTS)

    assert (plan.code, applied.code) == (0, 0), applied.named()
    assert plan.results[0]["resources"][0]["actions"]["create"]["count"] == len(secrets)
    assert applied.results[1]["resources"][0]["verified"]["count"] == len(secrets)
    assert differences(secrets, target.read()) == []
    assert source.writes() == untouched

    written = target.writes()
    again = move.run("--history", "all", "--apply", "--no-verify")
    assert again.results[0]["changed"] == 0
    assert target.writes() == written

    victims = [key for number, key in enumerate(sorted(secrets)) if number % 7 == 0][:3]
    for version, key in enumerate(victims):
        target.tamper(key, version, f"{CANARY}-tampered")
    verified = move.run("--history", "all", "--verify")
    assert {key: trouble for key, (trouble, _) in verified.named().items()} == dict.fromkeys(victims, "differs")

    answers = [each for answer in (plan, applied, again, verified) for each in (answer.out, answer.err)]
    told = [record.getMessage() for record in caplog.records if record.name.startswith("shiftable")]
    assert leaks(all_values(secrets), *answers, *told, folder, scratch) == []


def test_a_rotation_under_way_is_refused_included_or_finished_first(
    vault: Callable[[str], Vault], folder: Path
) -> None:
    source, target = vault("baremetal"), vault("aws")
    waiting = attrs.evolve(Hidden.of(f"{CANARY}-1", f"{CANARY}-2"), pending=f"{CANARY}-3")
    secrets = {"session/key": waiting, "other": waiting}
    source.fill(secrets)
    declared = (*DECLARED, "[secrets.app.rotate]", '"session/key" = { kind = "random", every = "30d" }')
    move = Move(source, target, folder, inside=True, declared=declared)

    plan = move.run()
    assert {key: trouble for key, (trouble, _) in plan.named().items()} == dict.fromkeys(secrets, "refused")
    finished = move.run("--apply", "--finish-first")

    assert "finished the rotation of session/key" in finished.err
    assert {key: trouble for key, (trouble, _) in finished.named().items()} == {"other": "refused"}
    assert target.read()["session/key"] == Hidden.of(f"{CANARY}-2", f"{CANARY}-3")
    assert source.read()["session/key"] == Hidden.of(f"{CANARY}-1", f"{CANARY}-2", f"{CANARY}-3")
    included = move.run("--apply", "--include-pending")
    assert included.code == 0
    assert target.read()["other"] == waiting
    assert CANARY not in "".join(answer.out + answer.err for answer in (plan, finished, included))


def test_a_plan_of_hundreds_names_each_reason_once(vault: Callable[[str], Vault], folder: Path) -> None:
    source, target = vault("baremetal"), vault("azure")
    many = {f"label-{number}": "x" for number in range(20)}
    secrets = {f"labels/{number}": Hidden.of("y", "z", labels=many) for number in range(30)}
    secrets |= {f"large/{number}": Hidden.of("y" * 30_000) for number in range(40)}
    secrets |= hidden(30)
    source.fill(secrets)
    move = Move(source, target, folder, inside=True, declared=DECLARED)

    with move.start("--history", "all", json_lines=False) as process:
        out, _ = process.communicate(timeout=120)

    lines = out.splitlines()
    assert "  create: 30 items" in lines
    assert "  versions to write: 90" in lines
    (large,) = (line for line in lines if "30,000 bytes" in line)
    assert large.endswith("(40 items: large/0, large/1, large/10, large/11, large/12, …)")
    (labelled,) = (line for line in lines if line.startswith("  refused: there are 20 labels"))
    assert "accept that with degrade 'fold', which puts what is too much into shiftable-labels" in labelled
    assert any("30 versions a second to azure" in line for line in lines)
    assert max(map(len, lines)) < 400
    assert len(lines) < 15


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--finish-first",), "it goes with --apply"),
        (("--history", "some"), "is no number of versions; write 10, or all"),
        (("--history", "-1"), "is no number of versions"),
    ],
)
def test_options_that_say_nothing_are_refused(
    vault: Callable[[str], Vault], folder: Path, arguments: tuple[str, ...], why: str
) -> None:
    move = Move(vault("baremetal"), vault("aws"), folder, inside=False, declared=DECLARED)

    with move.start(*arguments) as process:
        _, err = process.communicate(timeout=120)

    assert process.returncode == 2
    assert why in err


@pytest.mark.parametrize("target_name", ["azure", "gcp", "aws", "baremetal"])
def test_what_a_target_cannot_hold_is_in_the_plan_all_at_once(
    vault: Callable[[str], Vault], folder: Path, target_name: str
) -> None:
    source, target = vault("aws" if target_name != "aws" else "gcp"), vault(target_name)
    many = {f"label-{number}": "x" for number in range(20)}
    secrets = {
        "good": Hidden.of(f"{CANARY}-1", f"{CANARY}-2"),
        "labelled": Hidden.of(f"{CANARY}-1", labels=many),
        "large": Hidden.of(CANARY * 1900),
        "old/large": Hidden.of(CANARY * 1900, "1", "2", "3"),
        "n" * 150: Hidden.of(f"{CANARY}-1"),
        "x" * 230: Hidden.of(f"{CANARY}-1"),
    }
    source.fill(secrets)
    move = Move(source, target, folder, inside=True, declared=DECLARED)
    stay = {"azure": {"large", "n" * 150, "x" * 230}, "baremetal": {"x" * 230}}.get(target_name, set())
    asked = {"labelled", "old/large"} if target_name == "azure" else set()

    strict = move.run("--history", "all")
    degrade = ("--degrade", "fold", "--degrade", "history")
    moved = move.run("--history", "all", *degrade, "--apply")

    assert set(strict.named()) == stay | asked
    assert {trouble for trouble, _ in strict.named().values()} <= {"refused"}
    assert set(moved.named()) == stay
    found = target.read()
    assert set(found) == set(secrets) - stay
    assert found["old/large"].values == (secrets["old/large"].values[1:] if asked else secrets["old/large"].values)
    labels = dict(found["labelled"].labels)
    assert labels | json.loads(labels.pop("shiftable-labels", "{}")) == many
    assert leaks(all_values(secrets), strict.out, strict.err, moved.out, moved.err, folder) == []


def test_a_leak_would_be_found(folder: Path) -> None:
    secrets = hidden(3)
    (folder / "journal").write_bytes(b"\0\1" + CANARY.encode())
    values = list(all_values(secrets))
    guess = hashlib.sha256(str(values[0]).encode()).hexdigest()

    assert leaks(iter(values), folder, "nothing", guess) == [str(folder / "journal"), "what was said"]
