"""A move of a database that is killed before the so many-th call of a step, as by kill -9: a process of its own."""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["ON_WITH", "ran"]

ON_WITH = "a killed move went on where it had stopped"
"""What the next run notes."""

HOMES = {
    "mysql": (("_move", None), ("_marks", "Marks"), ("_move", "DatabaseMove")),
    "postgresql": (("_move", None), ("_marks", "Marks"), ("_move", "DatabaseMove"), ("_tools", "Archive")),
}
"""Where an engine has steps: modules and classes in them."""


def ran(
    engine: str, sides: Iterable[Mapping[str, Any]], stages: Iterable[str], after: int, **how: Any
) -> subprocess.CompletedProcess[str]:
    """Move in another process; it prints its notes as JSON if it lives so long.

    Args:
        sides: what the client library's ``connect`` takes, source and target.
        stages: names of the steps before which it dies, when they have been called so many times ``after``; whoever
            is given none lives.
        how: it is moved.
    """
    orders = json.dumps({"engine": engine, "sides": [*sides], "stages": [*stages], "after": after, "how": how})
    command = [sys.executable, __file__, orders]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def main(orders: Mapping[str, Any]) -> None:
    """Do as ordered, and die."""
    package = f"shiftable.migrate._{orders['engine']}"
    move, side = (importlib.import_module(f"{package}.{name}") for name in ("_move", "_side"))
    left = [orders["after"]]

    def deadly(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    modules = [(importlib.import_module(f"{package}.{module}"), name) for module, name in HOMES[orders["engine"]]]
    homes = [getattr(module, name) if name else module for module, name in modules]
    for stage in orders["stages"]:
        home = next(each for each in homes if hasattr(each, stage))
        setattr(home, stage, deadly(getattr(home, stage)))
    sides = zip(orders["sides"], ("source", "target"), strict=True)
    source, target = (side.Side(lambda each=each: each, name) for each, name in sides)
    sys.stdout.write(json.dumps(move.moved(source, target, move.How(**orders["how"])).notes))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
