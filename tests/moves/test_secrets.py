"""Secrets move between all providers with all versions, and no value is on a disk or a screen."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

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


def test_a_leak_would_be_found(folder: Path) -> None:
    secrets = hidden(3)
    (folder / "journal").write_bytes(b"\0\1" + CANARY.encode())
    values = list(all_values(secrets))
    guess = hashlib.sha256(str(values[0]).encode()).hexdigest()

    assert leaks(iter(values), folder, "nothing", guess) == [str(folder / "journal"), "what was said"]
