"""Paging ends, waiting says for what."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.errors import IntegrityError, Timeout
from shiftable.paging import Page, paged
from shiftable.waiting import wait_until


@given(st.lists(st.lists(st.integers(), max_size=4), max_size=6), st.none() | st.integers(0, 20))
def test_all_items_come_in_order_up_to_the_limit(pages: list[list[int]], limit: int | None) -> None:
    def fetch(cursor: str | None, _: int | None) -> Page[int]:
        at = int(cursor or 0)
        items = tuple(pages[at]) if pages else ()
        return Page(items, str(at + 1) if at + 1 < len(pages) else None)

    flat = [item for page in pages for item in page]
    assert flat[:limit] == list(paged(fetch, limit=limit))


def test_a_limit_costs_no_more_calls_than_it_needs() -> None:
    calls: list[int | None] = []

    def fetch(cursor: str | None, left: int | None) -> Page[int]:
        calls.append(left)
        return Page(tuple(range(10)), str(int(cursor or 0) + 1))

    assert 10 == len(list(paged(fetch, limit=10)))
    assert [10] == calls
    assert 12 == len(list(paged(fetch, limit=12)))
    assert [10, 12, 2] == calls
    assert [] == list(paged(fetch, limit=0))
    assert 3 == len(calls)


def test_a_cursor_that_repeats_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(IntegrityError, match="does not advance"):
        list(paged(lambda _cursor, _left: Page((1,), "same")))


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        next(paged(lambda _cursor, _left: Page(()), limit=-1))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_waiting_ends_with_what_was_found() -> None:
    clock, answers = Clock(), iter([None, None, 0, None])
    assert 0 == wait_until(
        lambda: next(answers), what="x", timeout=timedelta(minutes=1), clock=clock, sleep=clock.sleep
    )
    assert [1.0, 1.5] == clock.pauses


def test_waiting_in_vain_says_for_what_and_ends_at_the_deadline() -> None:
    clock = Clock()
    with pytest.raises(Timeout, match="waited 0:00:20 for the database to start"):
        wait_until(
            lambda: None, what="the database to start", timeout=timedelta(seconds=20), clock=clock, sleep=clock.sleep
        )
    assert 20 == clock.now
    assert clock.pauses == sorted(clock.pauses[:-1]) + clock.pauses[-1:]


def test_the_probe_is_asked_once_more_at_the_deadline() -> None:
    clock = Clock()
    asked: list[float] = []

    def probe() -> bool | None:
        asked.append(clock.now)
        return True if clock.now >= 5 else None

    assert wait_until(probe, what="x", timeout=timedelta(seconds=5), clock=clock, sleep=clock.sleep)
    assert 5 == asked[-1]
