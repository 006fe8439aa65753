"""Moves that are killed at random points, while requests are lost, refused and cut off, and strangers write too."""

from __future__ import annotations

import contextlib
import queue
import random
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from shiftable.testing.harness import Call, Injection

from .command import Answer, Move, bucket
from .corpus import Scale, Thing, things
from .sides import OnDouble, Side, is_ours

PAIRS = [("gcp", "baremetal"), ("aws", "azure"), ("baremetal", "gcp"), ("azure", "aws"), ("gcp", "azure")]
"""Each has two of the moves with --full."""
RERUNS = 4

SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BUSY = "<Error><Code>ServerBusy</Code><Message>The server is busy.</Message></Error>"
LIMITED = '{"error": {"code": 429, "message": "slow", "errors": [{"reason": "rateLimitExceeded"}]}}'
THROTTLED: Mapping[str, tuple[int, str, dict[str, str]]] = {
    "aws": (503, SLOW_DOWN, {"Content-Type": "application/xml"}),
    "azure": (503, BUSY, {"Content-Type": "application/xml", "x-ms-error-code": "ServerBusy"}),
    "gcp": (429, LIMITED, {"Content-Type": "application/json"}),
}


class Killer:
    """Ends a process at a call, and lets strangers write at others."""

    def __init__(self, sides: tuple[Side, ...], stranger: Stranger) -> None:
        self._lock = threading.Lock()
        self._process: Any = None
        self._seen = self._wanted = 0
        self._stranger = stranger
        for side in sides:
            if isinstance(side, OnDouble):
                side.double.inject("latency", match=self._count, times=None)

    def aim(self, process: Any, wanted: int) -> None:
        """Say which process, and at which of the calls from now on; 0: never."""
        with self._lock:
            self._process, self._seen, self._wanted = process, 0, wanted

    def _count(self, call: Call) -> bool:
        if is_ours(call):
            with self._lock:
                self._seen += 1
                if self._seen == self._wanted:
                    self._process.kill()
                elif self._seen % 17 == 0:
                    self._stranger.poke()
        return False  # no fault: the call goes on


class Stranger:
    """Somebody else who writes to the target, from a thread, whenever it is poked.

    Attributes:
        wrote: the last content of each key that the target took.
    """

    def __init__(self, target: Side, keys: list[str], most: int) -> None:
        self._target = target
        self._keys = keys
        self._left = most
        self._pokes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.wrote: dict[str, bytes] = {}
        self._thread = threading.Thread(target=self._work)

    def poke(self) -> None:
        """Have it write, soon."""
        self._pokes.put(True)

    def _work(self) -> None:
        for number in iter(int, 1):
            if not self._pokes.get():
                return
            if self._left:
                key = self._keys[self._left % len(self._keys)]
                data = f"stranger {self._left} {number}".encode()
                with contextlib.suppress(Exception):  # there may be no bucket yet
                    self._target.overwrite(key, data)
                    self.wrote[key] = data
                    self._left -= 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pokes.put(False)
        self._thread.join()


def disturb(side: Side, chance: random.Random, share: float) -> Iterator[Injection]:
    """Let that share of shiftable's calls go wrong in each of five ways."""
    if not isinstance(side, OnDouble):
        return

    def unlucky(call: Call) -> bool:
        return is_ours(call) and call.path != "/token" and chance.random() < share

    inject = side.double.inject
    for kind in ("drop_before", "drop_after", "truncate"):
        yield inject(kind, match=unlucky, times=None)  # type: ignore[arg-type]  # one of its words
    yield inject("latency", match=unlucky, times=None, seconds=0.05)
    status, body, headers = THROTTLED[side.name]
    said = {**headers, "Retry-After": "1"}
    yield inject("status", match=unlucky, times=8, status=status, headers=said.items(), body=body.encode())


def killed(move: Move[Side], killer: Killer, chance: random.Random, wanted: Mapping[str, Thing]) -> int:
    """Begin the move, kill it at one of the calls that it must still make, and return how it ended."""
    with contextlib.suppress(Exception):  # there may be no bucket yet
        present = {*move.target.keys()}
        wanted = {key: thing for key, thing in wanted.items() if key not in present}
    large = sum(key.startswith("large/") for key in wanted)
    with move.start("--apply", "--no-verify") as process:
        killer.aim(process, chance.randrange(1, 3 + len(wanted) + 3 * large))
        process.communicate(timeout=300)
    killer.aim(None, 0)
    return process.returncode


def journalled(path: Path) -> dict[str, tuple[int, str]]:
    """Return whether each object has arrived, and in which version; nothing else may be left in the journal."""
    with contextlib.closing(sqlite3.connect(path)) as journal:
        assert journal.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert journal.execute("SELECT count(*) FROM note").fetchone() == (0,)
        rows = journal.execute("SELECT key, done, target_token FROM item").fetchall()
    return {key.decode(): (done, token) for key, done, token in rows}


def until_it_ends(move: Move[Any]) -> Answer:
    """Run the command again until nothing has failed any more, a few times at most."""
    for _ in range(RERUNS):
        with move.start("--apply", "--no-verify") as process:
            out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        answer = Answer(process.returncode, out, err)
        if answer.results and all(trouble == "conflict" for trouble, _ in answer.named().values()):
            return answer
    raise AssertionError(f"not complete after {RERUNS} runs: {answer.err} {answer.named()}")


def test_a_move_that_is_killed_anywhere_ends_equal_and_overwrites_nobody(
    side: Callable[[str], Side], folder: Path, scale: Scale, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  chooses where to kill and what fails
    source, target = (side(name) for name in PAIRS[seed % len(PAIRS)])
    wanted = things(seed, scale.plain, large=2 if scale.large else 1)
    source.fill(wanted)
    declared = bucket(versioning=target.driver.features.versioning)
    move = Move(source, target, folder, inside=False, declared=declared)
    small = [key for key in wanted if not key.startswith("large/")]
    foreign = chance.sample(small, 6)
    # Where a listing tells no digests (of files), a lost write of an older version cannot be told from a stranger's: it
    # stays as it is and is named.
    several = len(small) // 3 if source.driver.features.md5_in_listing else 0
    changing = chance.sample(sorted({*small} - {*foreign}), several)

    with Stranger(target, foreign, most=8) as stranger:
        killer = Killer((source, target), stranger)
        faults = [fault for each in (source, target) for fault in disturb(each, chance, 0.012)]
        ends = []
        for number in range(scale.kills):
            ends.append(killed(move, killer, chance, wanted))
            if number == 2:
                wanted |= {key: attrs.evolve(wanted[key], data=b"newer " + wanted[key].data) for key in changing}
                for key in changing:
                    source.put(key, wanted[key])
        until_it_ends(move)
    for fault in faults:
        fault.times = 0
    last = move.run("--apply", "--no-verify")

    assert set(ends) == {-signal.SIGKILL}
    assert any(fault.hits for fault in faults)
    assert stranger.wrote
    assert last.results[0]["changed"] == 0
    assert {key: trouble for key, (trouble, _) in last.named().items()} == dict.fromkeys(stranger.wrote, "conflict")
    found = target.read()
    assert {key: found[key].data for key in stranger.wrote} == stranger.wrote
    assert sorted(found) == sorted(wanted)
    assert [key for key in wanted if key not in stranger.wrote and found[key] != wanted[key]] == []
    assert target.pending() == []
    ours = {key: (1, target.token(key)) for key in wanted if key not in stranger.wrote}
    journal = journalled(move.journal)
    assert {key: journal.get(key) for key in ours} == ours
    often = target.versions()
    assert [key for key in ours if not 1 <= often[key] <= 1 + (key in changing)] == []
