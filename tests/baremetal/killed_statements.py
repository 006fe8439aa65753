"""Calls on a database server that are killed before each of their statements."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shiftable.database import Databases, DatabaseSpec

__all__ = ["applied", "at_each_step"]


class Killed(BaseException):
    """The process is no more."""


@contextlib.contextmanager
def killed_before(step: int, session: type[Any]) -> Iterator[list[int]]:
    """Die before the so many-th statement, that is after the one before it; yield a list that grows with each."""
    real = session._do
    done: list[int] = []

    def do(self: Any, statement: str, *more: Any) -> None:
        done.append(len(done))
        if len(done) == step:
            raise Killed
        real(self, statement, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_do", do)
        yield done


def at_each_step(session: type[Any], act: Callable[[], object], check: Callable[[], None]) -> int:
    """Have a call be killed before each of its steps, and check what is left each time; return how many there are."""
    for step in itertools.count(1):
        with killed_before(step, session) as done:
            try:
                act()
            except Killed:
                lived = False
            else:
                lived = True
        check()
        if lived:
            break
    return len(done)


def applied(databases: Databases, spec: DatabaseSpec) -> None:
    """Do what `shiftable apply` does."""
    for change in databases.diff(spec):
        databases.apply(change)
    assert () == databases.diff(spec)
    assert "available" == databases.open(spec).info().state
