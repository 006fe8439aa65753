"""A mover that kills itself: a process of its own, as kill -9 takes it, before or behind the n-th call of a step."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psycopg

from shiftable.migrate._capture import Online, OnlineOptions, Server, _follow
from shiftable.migrate._capture._apply import Applier
from shiftable.migrate._capture._pipe import Pipe
from shiftable.migrate._capture._slot import Slot
from shiftable.migrate._capture._source import Source

PLACES = {
    "advance": (Slot, "advance"),
    "answers": (Pipe, "finish"),
    "create": (Slot, "create"),
    "drop": (_follow, "drop_slot"),
    "forget": (Applier, "forget"),
    "freeze": (Source, "freeze"),
    "identify": (Source, "identify"),
    "journal": (Online, "_write"),
    "prepare": (Applier, "prepare"),
    "publish": (Source, "publish"),
    "seal": (Source, "seal"),
    "sequences": (Online, "_set_sequences"),
    "settle": (Online, "_settled"),
    "unshield": (Applier, "unshield"),
}


def die(place: str, when: str, count: int) -> None:
    """Let the process be killed at a call, as if by kill -9."""
    owner, name = PLACES[place]
    real, calls = getattr(owner, name), iter(range(1, 1_000_000))

    @functools.wraps(real)
    def call(*arguments: Any, **named: Any) -> Any:
        last = next(calls) == count
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = real(*arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, call)


def main(given: dict[str, Any]) -> None:
    from capturing import copy_rows

    if "die" in given:
        die(*given["die"])
    source, target = (Server(label, lambda label=label: given[label]) for label in ("source", "target"))  # type: ignore[misc]
    supers = [lambda label=label: psycopg.connect(**given[label], autocommit=True) for label in ("source", "target")]
    online = Online(
        given["name"],
        source,
        target,
        Path(given["folder"]),
        copy=lambda snapshot: copy_rows(*supers, snapshot),  # type: ignore[arg-type]  mypy and defaults
        options=OnlineOptions(**given["options"]),
    )
    online.start()
    if online.status().phase == "following":
        online.follow()
    print("following", flush=True)  # noqa: T201  for whoever waits for it
    if given.get("follow"):
        online.follow(until=lambda _lag: False)
    cut = online.cutover(verify=lambda: None, hand_over=lambda: None)
    status = Path("/proc/self/status").read_text()  # what getrusage tells begins with what the parent had
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"stopped": cut.stopped, "peak": peak}), flush=True)  # noqa: T201  the same


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(json.loads(sys.stdin.readline()))
