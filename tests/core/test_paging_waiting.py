"""Paging ends, waiting says for what, and a server says for how long."""

import math
import time
from datetime import timedelta
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.errors import IntegrityError, Timeout
from shiftable.paging import Page, paged
from shiftable.waiting import retry_after, wait_until


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


@pytest.mark.parametrize(
    ("header", "seconds"), [("0", 0.0), ("120", 120.0), (" 7 ", 7.0), ("0.25", 0.25), ("9" * 9, 999_999_999.0)]
)
def test_seconds_to_wait_are_read(header: str, seconds: float) -> None:
    assert retry_after(header) == seconds


@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000", "EST"])
def test_a_date_to_wait_for_is_read(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # far from UTC, which a date without a zone is in all the same
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            check_a_date(zone)
        finally:
            patch.undo()
            time.tzset()


def check_a_date(zone: str) -> None:
    when = time.time() + 60 - (5 * 3600 if zone == "EST" else 0)
    header = f"{formatdate(when).rpartition(' ')[0]} {zone}"
    assert 55 < (retry_after(header) or 0) <= 60


def test_a_date_that_is_past_is_now() -> None:
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "-1",
        "+1",
        "1e3",
        "inf",
        "nan",
        "\u00b2",
        "\u0663",
        "9" * 10,
        "9" * 400,
        "1.",
        "1_0",
        "soon",
        "Fri, 31 Feb 2026 00:00:00 GMT",
    ],
)
def test_what_says_no_time_says_none(header: str | None) -> None:
    assert retry_after(header) is None


@given(
    st.text(max_size=40) | st.from_regex(r"\w{3}, \d{1,3} \w{3} \d{1,6} \d\d:\d\d:\d\d [+-]?\w{0,6}", fullmatch=True)
)
def test_nothing_that_a_server_sends_fails_or_waits_forever(header: str) -> None:
    found = retry_after(header)
    assert found is None or (found >= 0 and math.isfinite(found))
