"""Driving items: retried, bounded, stopped, drained."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from shiftable.errors import (
    InvalidArgument,
    MigrationError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Unavailable,
)
from shiftable.migrate import Options
from shiftable.migrate._engine import Engine
from shiftable.parallel import Threads, parallel


def drive(engine: Engine, items: Any, function: Any) -> tuple[list[Any], list[Any]]:
    done: list[Any] = []
    failed: list[Any] = []
    engine.drive(
        items,
        function,
        begun=lambda _: None,
        ended=lambda item, result: done.append((item, result)),
        failed=lambda item, error: failed.append((item, error)),
    )
    return done, failed


def engine(**options: Any) -> tuple[Engine, list[float]]:
    pauses: list[float] = []
    return Engine(Options(**options), pause=lambda _stop, seconds: pauses.append(seconds)), pauses


def test_every_item_is_run_once() -> None:
    done, failed = drive(engine()[0], range(500), lambda number: number * 2)

    assert sorted(done) == [(number, number * 2) for number in range(500)]
    assert failed == []


def test_a_retry_waits_as_long_as_the_provider_asks_and_at_most_a_minute() -> None:
    answers = iter([Throttled("slow down", retry_after=7.5), Throttled("slow down", retry_after=4000.0)])
    found, pauses = engine()

    def run(_item: int) -> str:
        error = next(answers, None)
        if error:
            raise error
        return "done"

    assert drive(found, [1], run) == ([(1, "done")], [])
    assert pauses == [7.5, 60.0]


def test_what_will_not_pass_is_not_tried_again() -> None:
    calls: list[int] = []
    found, pauses = engine()

    def run(item: int) -> None:
        calls.append(item)
        raise InvalidArgument("never")

    _, failed = drive(found, [1], run)

    assert (calls, pauses, len(failed)) == ([1], [], 1)


@pytest.mark.parametrize("kind", [PermissionDenied, QuotaExceeded, Unavailable])
def test_failures_of_one_kind_in_a_row_stop_everything_with_one_error(kind: Any) -> None:
    found, _ = engine(abort_after=5, concurrency=1)

    def run(_item: int) -> None:
        raise kind("as always")

    with pytest.raises(
        MigrationError, match=f"5 failures in a row of the kind {kind.__name__}; the last was: as always"
    ):
        drive(found, range(1000), run)


def test_failures_of_items_do_not_stop_the_others() -> None:
    found, _ = engine(abort_after=5, concurrency=1)

    def run(item: int) -> None:
        raise NotFound("gone") if item % 2 else PermissionDenied("no")

    _, failed = drive(found, range(100), run)

    assert len(failed) == 100


def test_items_are_taken_as_there_is_room() -> None:
    taken: list[int] = []
    gate = threading.Event()

    def items() -> Any:
        for number in range(100):
            taken.append(number)
            yield number

    lane: Threads[int, bool] = Threads(lambda _: gate.wait(30), workers=2)
    with lane:
        source = items()
        for _ in range(3):
            list(lane.put(next(source)))
        assert taken == [0, 1, 2]
        gate.set()
        assert len([*lane.finish()]) == 3


def test_parallel_never_runs_more_than_its_workers() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def run(_item: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    assert len(list(parallel(run, range(300), workers=3))) == 300
    assert most <= 3


def test_an_interrupt_waits_for_what_runs_and_drops_the_rest() -> None:
    found, _ = engine(concurrency=4)
    others, interrupted = threading.Semaphore(0), threading.Event()
    started: list[int] = []
    done: list[int] = []

    def run(item: int) -> None:
        started.append(item)
        if item == 0:
            [others.acquire(timeout=30) for _ in range(3)]
        else:
            others.release()
            interrupted.wait(30)

    def ended(item: int, _result: None) -> None:
        done.append(item)
        if item == 0:
            interrupted.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found.drive(
            range(64),
            run,
            begun=lambda _: None,
            ended=ended,
            failed=lambda item, error: pytest.fail(f"{item} {error}"),
        )

    assert sorted(done) == sorted(started)
    assert 4 <= len(done) < 64


def test_an_interrupted_move_leaves_a_journal_that_goes_on(world: Any) -> None:
    for number in range(200):
        world.source.put(f"{number:03}", b"1")
    writes = iter(range(1000))

    class Interrupting(world.Watching):  # type: ignore[name-defined, misc]  # the fixture's class
        def on_progress(self, progress: Any) -> None:
            if progress.items >= 64:
                raise KeyboardInterrupt

    world.right.hook = lambda *_: next(writes)
    with pytest.raises(KeyboardInterrupt):
        world.migration("blob").apply(None, Interrupting())
    arrived = len(world.contents(world.target))
    report = world.migration("blob").apply()

    assert 64 <= arrived < 200
    assert report.complete
    assert len(world.right.writes) == 200
    assert world.migration("blob").apply().changed == 0
