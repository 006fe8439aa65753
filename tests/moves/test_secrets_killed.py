"""Moves of secrets that are killed at random points, while requests are lost, refused and cut off on both sides."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shiftable.testing.harness import Call, Injection

from .command import Answer, Move
from .corpus import Scale
from .hidden import CANARY, Hidden, hidden, leaks
from .sides import is_ours
from .vaults import DECLARED, Vault, VaultOnDouble, all_values

RERUNS = 6

JSON, AMZ = {"Content-Type": "application/json"}, {"Content-Type": "application/x-amz-json-1.1"}
LIMITED = '{"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}}'
SLOW: Mapping[str, tuple[int, str, dict[str, str]]] = {
    "aws": (400, '{"__type": "ThrottlingException", "message": "Rate exceeded"}', AMZ),
    "azure": (429, '{"error": {"code": "Throttled", "message": "slow"}}', JSON),
    "gcp": (429, LIMITED, JSON),
}


class Killer:
    """Ends a process at one of its calls."""

    def __init__(self, vaults: tuple[Vault, ...]) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._left = 0
        for vault in vaults:
            if isinstance(vault, VaultOnDouble):
                vault.double.inject("latency", match=self._count, times=None)

    def aim(self, process: subprocess.Popen[str] | None, wanted: int) -> None:
        """Say which process, and at which of the calls from now on."""
        with self._lock:
            self._process, self._left = process, wanted

    def _count(self, call: Call) -> bool:
        if is_ours(call):
            with self._lock:
                self._left -= 1
                if self._left == 0 and self._process is not None:
                    self._process.kill()
        return False  # no fault: the call goes on


def disturb(vault: Vault, chance: random.Random, share: float) -> Iterator[Injection]:
    """Let that share of shiftable's calls go wrong in each of five ways."""
    if not isinstance(vault, VaultOnDouble):
        return

    def unlucky(call: Call) -> bool:
        return is_ours(call) and call.path != "/token" and chance.random() < share

    for kind in ("drop_before", "drop_after", "truncate"):
        yield vault.double.inject(kind, match=unlucky, times=None)  # type: ignore[arg-type]  # one of its words
    yield vault.double.inject("latency", match=unlucky, times=None, seconds=0.05)
    status, body, headers = SLOW[vault.name]
    said = {**headers, "Retry-After": "1"}
    yield vault.double.inject("status", match=unlucky, times=8, status=status, headers=said.items(), body=body.encode())


def ended(process: subprocess.Popen[str]) -> Answer:
    out, err = process.communicate(timeout=600)
    assert "Traceback" not in err, err
    return Answer(process.returncode, out, err)


def until_it_ends(move: Move[Vault]) -> Answer:
    """Run the command again until everything is there, a few times at most."""
    answer = None
    for _ in range(RERUNS):
        with move.start("--history", "all", "--apply", "--no-verify") as process:
            answer = ended(process)
        if answer.code == 0:
            return answer
    raise AssertionError(f"not complete after {RERUNS} runs: {answer}, {answer.named() if answer else ''}")


def check_journal(path: Path) -> None:
    """See that it is whole, and that it has nothing that belongs to a value."""
    with contextlib.closing(sqlite3.connect(path)) as journal:
        assert journal.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = journal.execute("SELECT done, source_content, sha256, source_size FROM item").fetchall()
    assert {*rows} == {(1, "", None, 0)}


def test_a_move_that_is_killed_anywhere_ends_equal_and_doubles_no_version(
    vault: Callable[[str], Vault], folder: Path, scale: Scale, pair: str
) -> None:
    source_name, target_name = pair.split("-")
    chance = random.Random(pair)  # noqa: S311  chooses where to kill and what fails
    source, target = vault(source_name), vault(target_name)
    secrets = hidden(12 if scale.inside else 60, versions=4)
    source.fill(secrets)
    untouched = source.writes()
    move = Move(source, target, folder, inside=False, declared=DECLARED)

    killer = Killer((source, target))
    faults = [fault for each in (source, target) for fault in disturb(each, chance, 0.01)]
    ends, texts = [], []
    for number in range(scale.kills):
        with move.start("--history", "all", "--apply", "--no-verify", "--report", f"{number}.json") as process:
            killer.aim(process, chance.randrange(10, 12 * len(secrets)))
            texts += process.communicate(timeout=600)
        killer.aim(None, 0)
        ends.append(process.returncode)
        assert leaks(all_values(secrets), folder) == []  # the journal's WAL is still there
    last = until_it_ends(move)
    for fault in faults:
        fault.times = 0
    again = move.run("--history", "all", "--apply")

    assert {*ends} == {-signal.SIGKILL}
    assert any(fault.hits for fault in faults)
    assert again.code == 0, again.named()
    assert again.results[0]["changed"] == 0
    found = target.read()
    assert sorted(key for key in {*secrets, *found} if secrets.get(key) != found.get(key)) == []
    assert source.writes() == untouched
    check_journal(move.journal)
    assert leaks(all_values(secrets), *texts, last.out, last.err, again.out, again.err, folder) == []


def test_two_movers_at_once_make_each_version_once(vault: Callable[[str], Vault], folder: Path, scale: Scale) -> None:
    """Two machines, each with its own journal, at the same time; whoever meets the other's half says so."""
    source, target = vault("baremetal"), vault("aws")
    secrets = hidden(10 if scale.inside else 60)
    source.fill(secrets)
    moves: list[Move[Any]] = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        moves.append(Move(source, target, folder / name, inside=False, declared=DECLARED))

    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(move.start("--history", "all", "--apply", "--no-verify")) for move in moves]
        answers = [ended(process) for process in processes]
    last = [move.run("--history", "all", "--apply") for move in moves]

    troubles = {trouble for answer in answers for trouble, _ in answer.named().values()}
    assert troubles <= {"conflict", "failed"}
    assert [answer.code for answer in last] == [0, 0], [answer.named() for answer in last]
    assert [answer.results[0]["changed"] for answer in last][1] == 0
    found: Mapping[str, Hidden] = target.read()
    assert sorted(key for key in {*secrets, *found} if secrets.get(key) != found.get(key)) == []
    assert CANARY not in "".join(answer.out + answer.err for answer in [*answers, *last])
