"""Kill a move of a fleet at every point at which something is written, and let the next run go on.

A program of its own, without threads: each run is a process that is forked from it and dies as by SIGKILL. What the
clouds hold is in files. Prints one line of JSON for each point.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from shiftable.migrate._journal import Journal

from .fleets import WEB, Fleets, Machines

COUNT = 3
SPEC = attrs.evolve(WEB, count=COUNT)


class Points:
    """Counts points, and dies at one of them."""

    def __init__(self, last: int | None) -> None:
        self.left = last

    def __call__(self, *_: Any) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def restore(machines: Machines, path: Path) -> None:
    """Let a cloud hold what is in a file."""
    if path.exists():
        entries, firewalls = pickle.loads(path.read_bytes())  # noqa: S301  our own
        machines._entries.update(entries)
        machines._firewalls.update(firewalls)
        machines._numbers = itertools.count(1 + max((each.number for each in entries.values()), default=0))


def keep(machines: Machines, path: Path) -> None:
    """Write what a cloud holds to a file, at once."""
    with machines._lock:
        part = path.with_suffix(".part")
        part.write_bytes(pickle.dumps((machines._entries, machines._firewalls)))
        part.replace(path)


def opened(folder: Path, last: int | None) -> Fleets:
    """Return both clouds as the files have them, with a point before and after each write of anything."""
    fleets = Fleets(folder, SPEC)
    for machines, name in ((fleets.left, "left"), (fleets.right, "right")):
        restore(machines, folder / name)
    points = Points(last)
    fleets.right.before = points

    def after(*_: Any) -> None:
        keep(fleets.right, folder / "right")
        points()

    fleets.right.after = after
    real = Journal._transaction

    @contextmanager
    def transaction(self: Journal) -> Iterator[None]:
        points()
        with real(self):
            yield
        points()

    if last is not None:
        Journal._transaction = transaction  # type: ignore[method-assign]
    return fleets


def forked(run: Any) -> int:
    """Run something in a process of its own; return how that ended."""
    child = os.fork()
    if not child:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    for point in itertools.count(1):
        here = folder / str(point)
        here.mkdir()
        fleets = Fleets(here, SPEC)
        fleets.make()
        keep(fleets.left, here / "left")
        keep(fleets.right, here / "right")
        end = forked(lambda here=here, point=point: opened(here, point).move(concurrency=1))
        told = here / "told"

        def finish(here: Path = here, told: Path = told) -> None:
            fleets = opened(here, None)
            at_kill = sorted(machine.name for machine in fleets.there())
            report, again, verified = fleets.move(), fleets.move(), fleets.verify()
            told.write_text(
                json.dumps(
                    {
                        "at_kill": at_kill,
                        "complete": report.complete and verified.complete,
                        "again": again.changed,
                        "made": [name for what, name in fleets.right.calls if what == "create_machine"],
                        "names": sorted(machine.name for machine in fleets.there()),
                    }
                )
            )

        last = forked(finish)
        sys.stdout.write(json.dumps({"end": end, "last": last, **json.loads(told.read_text())}) + "\n")
        if end == 0:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
