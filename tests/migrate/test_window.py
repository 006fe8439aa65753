"""How many items are under way at once adapts itself; the clock is the test's."""

from __future__ import annotations

import threading
from typing import Any

from shiftable.errors import Throttled
from shiftable.migrate import Options
from shiftable.migrate._engine import Engine
from shiftable.migrate._window import Window


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def rounds(window: Window, clock: Clock, count: int, seconds: Any, **leave: Any) -> list[int]:
    """Let rounds of items pass, of which each takes so long at that width; return the widths after each."""
    widths = []
    for _ in range(count):
        width = window.limit
        began = [window.enter() for _ in range(width)]
        clock.now += seconds(width)
        for each in began:
            window.leave(each, **leave)
        widths.append(window.limit)
    return widths


def test_it_begins_narrow_and_doubles_while_nothing_speaks_against_it() -> None:
    clock = Clock()

    assert rounds(Window(100, clock=clock), clock, 6, lambda _: 0.02) == [8, 16, 32, 64, 100, 100]


def test_it_is_never_wider_than_the_limit_nor_narrower_than_one() -> None:
    clock = Clock()
    window = Window(2, clock=clock)

    assert rounds(window, clock, 3, lambda _: 0.02) == [2, 2, 2]
    assert rounds(window, clock, 3, lambda _: 0.02, throttled=True) == [1, 1, 1]


def test_throttling_halves_it_once_for_all_that_were_under_way_and_then_it_grows_by_one() -> None:
    clock = Clock()
    window = Window(100, clock=clock)
    rounds(window, clock, 3, lambda _: 0.02)

    assert rounds(window, clock, 1, lambda _: 0.02, throttled=True) == [16]
    assert rounds(window, clock, 3, lambda _: 0.02) == [17, 18, 19]
    assert rounds(window, clock, 2, lambda _: 0.02, throttled=True) == [9, 4]


def test_it_stays_where_more_at_once_gets_no_more_done() -> None:
    clock = Clock()
    window = Window(256, clock=clock)

    # A server that answers 1,000 in a second at most, and each after 20 ms at least: 20 are enough.
    widths = rounds(window, clock, 200, lambda width: max(0.02, width / 1000))

    assert max(widths[20:]) <= 64
    assert min(widths[20:]) >= 16


def test_large_items_are_measured_by_what_they_are() -> None:
    clock = Clock()
    window = Window(64, clock=clock)
    rounds(window, clock, 2, lambda _: 0.02)

    assert rounds(window, clock, 2, lambda _: 2.0, cost=100.0) == [32, 64]


def test_failures_say_nothing_of_the_pace() -> None:
    clock = Clock()
    window = Window(64, clock=clock)

    assert rounds(window, clock, 5, lambda _: 0.02, counts=False) == [4, 4, 4, 4, 4]


def test_who_waits_goes_on_when_it_grows() -> None:
    window = Window(4, first=1, clock=Clock())  # which stands: how long a busy machine takes says nothing
    entered = threading.Semaphore(0)

    def work() -> None:
        began = window.enter()
        entered.release()
        window.leave(began)

    began = window.enter()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    window.leave(began)

    assert all(entered.acquire(timeout=30) for _ in threads)
    for thread in threads:
        thread.join(30)
    assert window.limit == 4


def test_the_engine_narrows_its_window_when_it_is_throttled() -> None:
    engine = Engine(Options(concurrency=64), pause=lambda _stop, _seconds: None)
    lock, answers = threading.Lock(), iter([*[False] * 200, True, *[False] * 1000])
    seen: list[int] = []

    def run(item: int) -> int:
        with lock:
            throttled = next(answers)
        if throttled:
            raise Throttled("slow down")
        seen.append(engine.window.limit)
        return item

    engine.drive(
        range(300), run, begun=lambda _: None, ended=lambda _item, _result: None, failed=lambda item, _: item / 0
    )

    assert len(seen) == 300
    assert min(seen[-20:]) < 64
    assert max(seen) <= 64
