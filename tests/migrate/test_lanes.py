"""Threads of a move that each keep sessions: what ends leaves none open."""

from __future__ import annotations

import threading

import attrs
import pytest

from shiftable.errors import MigrationError
from shiftable.migrate._database_engine import Lanes


@attrs.define(eq=False)
class Lane:
    """A lane that notes what becomes of it."""

    is_good: bool = True
    cancelled: threading.Event = attrs.Factory(threading.Event)

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        self.is_good = False


def test_a_lane_that_is_opened_while_all_are_closed_is_closed_too_and_runs_nothing() -> None:
    made, opening, go_on, ran = list[Lane](), threading.Event(), threading.Event(), list[Lane]()

    def opened() -> Lane:
        opening.set()
        assert go_on.wait(60)
        made.append(Lane())
        return made[-1]

    lanes = Lanes(opened, 1)
    future = lanes.submit(ran.append)
    assert opening.wait(60)
    closing = threading.Thread(target=lanes.close)
    closing.start()
    while not lanes._closing:
        pass
    go_on.set()
    closing.join()
    with pytest.raises(MigrationError, match="has ended"):
        future.result(0)
    assert [False] == [lane.is_good for lane in made]
    assert not ran


def test_what_runs_is_ended_and_what_waits_is_dropped() -> None:
    made = [Lane(), Lane()]
    given = iter(made)
    running = threading.Barrier(3)

    def run(lane: Lane) -> None:
        running.wait(60)
        assert lane.cancelled.wait(60)

    with Lanes(lambda: next(given), 2) as lanes:
        under_way = [lanes.submit(run) for _ in range(2)]
        waiting = lanes.submit(run)
        running.wait(60)
    assert [None, None] == [each.exception(0) for each in under_way]
    assert waiting.cancelled()
    assert [False, False] == [lane.is_good for lane in made]
