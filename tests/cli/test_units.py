"""What options are written as, and how fast a move is said to be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.cli import _units
from shiftable.cli._progress import Lines, Pace, duration_text
from shiftable.migrate import Named, Phase, Progress, Trouble


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("7B", 7),
        ("10KiB", 10 * 1024),
        ("10kb", 10_000),
        ("1.5GiB", 3 * 2**29),
        ("500 MB", 500_000_000),
        ("2TiB", 2**41),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes_are_read_exactly(text: str, size: int) -> None:
    assert size == _units.size(text)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (_units.size, "10M"),
        (_units.size, "-1"),
        (_units.size, ""),
        (_units.size, "ten"),
        (_units.speed, "0"),
        (_units.rate, "0"),
        (_units.rate, "10/day"),
        (_units.when, "yesterday"),
        (_units.limit, "1.5"),
        (_units.limit, "101%"),
        (_units.limit, "-1"),
    ],
)
def test_what_may_mean_two_things_or_nothing_is_refused_with_what_to_write(read: Any, text: str) -> None:
    with pytest.raises(click.BadParameter):
        read(text)


def test_rates_speeds_limits_and_times() -> None:
    assert (100.0, 100.0, 10.0) == (_units.rate("100"), _units.rate("100/s"), _units.rate("600/min"))
    assert 10 * 2**20 == _units.speed("10MiB") == _units.speed("10MiB/s")
    assert (100, 0.3, 0) == (_units.limit("100"), _units.limit("30%"), _units.limit("0"))
    assert isinstance(_units.limit("1%"), float)
    assert datetime(2026, 3, 31, tzinfo=UTC) == _units.when("2026-03-31")
    assert datetime(2026, 3, 31, 12, tzinfo=timezone(timedelta(hours=2))) == _units.when("2026-03-31T12:00+02:00")


@given(st.integers(0, 10**15))
def test_every_number_is_a_size(number: int) -> None:
    assert number == _units.size(str(number))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(items: int | None, size: int | None) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(Phase("copy", "blob.a", items, size), clock), clock


def test_the_speed_is_that_of_the_last_half_minute() -> None:
    pace, clock = paced(None, None)
    for second in range(1, 121):
        clock.now = 100.0 + second
        done = second * 10 if second <= 60 else 600 + (second - 60) * 2
        pace.add(Progress("copy", "blob.a", done, done * 100))

    assert 2.0 == pytest.approx(pace.items)
    assert 200.0 == pytest.approx(pace.bytes)
    clock.now += 60
    assert pace.items < 1  # nothing more has come since


def test_the_time_that_is_left_is_told_only_where_the_end_is_known_and_not_at_once() -> None:
    pace, clock = paced(1000, 10_000)
    clock.now += 4
    pace.add(Progress("copy", "blob.a", 100, 1000))
    assert pace.left is None
    clock.now += 6
    pace.add(Progress("copy", "blob.a", 100, 5000))
    assert 90.0 == pytest.approx(pace.left)  # 900 items at 10/s take longer than 5,000 bytes at 500/s
    unknown, clock = paced(None, None)
    clock.now += 60
    unknown.add(Progress("copy", "blob.a", 100, 1000))
    assert unknown.left is None


def test_a_move_that_stands_still_tells_no_end() -> None:
    pace, clock = paced(1000, 10_000)
    pace.add(Progress("copy", "blob.a", 0, 0))
    clock.now += 60
    assert pace.left is None


def test_what_is_under_way_and_what_holds_it_back_is_said() -> None:
    pace, clock = paced(20, 2000)
    clock.now += 10
    progress = Progress("copy", "blob.a", 10, 1000, in_flight=7, throttled=True)
    pace.add(progress)
    assert "1/s, 100 B/s, 7 in flight, throttled, about 10 s left" == pace.text(progress)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (40, "40 s"), (100, "2 min"), (5400, "1 h 30 min"), (7980, "2 h 10 min"), (400_000, "4 days")],
)
def test_times_are_told_no_more_exactly_than_they_are_known(seconds: float, text: str) -> None:
    assert text == duration_text(seconds)


def test_lines_show_what_keys_are_made_of_and_do_not_obey_it(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock=clock)
    lines.on_phase(Phase("copy", "blob.a"))
    clock.now += 20
    lines.on_progress(Progress("copy", "blob.a", 100, 1000))
    lines.on_item_failed(Named("blob.a", "\x1b[2J\u202ekey", Trouble.FAILED, "why\x07"))
    told = capsys.readouterr().err

    assert "copying blob.a: 100 items, 1000 B (5/s, 50 B/s)" in told
    assert not {"\x1b", "\u202e", "\x07"} & set(told)
    assert "\\x1b[2J" in told
