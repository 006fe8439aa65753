"""What options are written as: sizes, rates, times, numbers or shares."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

__all__ = ["duration", "future", "limit", "rate", "read_duration", "size", "speed", "when"]

_UNITS: dict[str, int] = {"": 1, "b": 1} | {
    f"{letter}{rest}": base**power
    for power, letter in enumerate("kmgtp", start=1)
    for rest, base in (("ib", 1024), ("b", 1000))
}
_DURATIONS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SECONDS = {"": 1, "/s": 1, "/min": 60, "/h": 3600}


def size(text: str) -> int:
    """Read a number of bytes: ``4096``, ``10MiB`` (1024), ``500 MB`` (1000)."""
    found = re.fullmatch(r"(\d+)(\.\d+)? ?([A-Za-z]*)", text)
    unit = _UNITS.get(found[3].lower()) if found else None
    if found is None or unit is None:
        raise click.BadParameter(f"{text!r} is no size; write 4096, 10KiB, 1.5GiB (of 1024) or 10KB, 10MB (of 1000)")
    return int(found[1]) * unit + int(float(found[2] or 0) * unit)


def speed(text: str) -> int:
    """Read bytes a second: a size, and ``/s`` if one likes."""
    found = size(text.removesuffix("/s"))
    if not found:
        raise click.BadParameter("at a speed of nothing nothing moves")
    return found


def rate(text: str) -> float:
    """Read how many a second: ``100/s``, ``6000/min``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(/s|/min|/h|)", text)
    if found is None or not float(found[1]):
        raise click.BadParameter(f"{text!r} is no rate; write 100/s, 6000/min or 50000/h")
    return float(found[1]) / _SECONDS[found[2]]


def duration(text: str) -> timedelta:
    """Read a number with a unit, as durations in the file are written: ``90s``, ``15m``, ``12h``, ``1d``, ``4w``."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration such as 90s, 15m, 12h, 1d or 4w")
    return timedelta(**{_DURATIONS[found[2]]: int(found[1])})


def read_duration(_context: click.Context, _parameter: click.Parameter, text: str) -> timedelta:
    """Read the duration of an option."""
    return duration(text)


def when(text: str) -> datetime:
    """Read a date or a time of ISO 8601; without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        told = f"{text!r} is no time; write 2026-03-31, 2026-03-31T12:00 or 2026-03-31T12:00+02:00"
        raise click.BadParameter(told) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def future(text: str) -> datetime:
    """Read a time, as ``when`` does, that is still to come."""
    found = when(text)
    if found <= datetime.now(UTC):
        raise click.BadParameter(f"{text!r} has passed: it is {found.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return found


def limit(text: str) -> int | float:
    """Read a number of items, ``100``, or a share of them, ``30%``, which is a float between 0 and 1."""
    found = re.fullmatch(r"(\d+)(\.\d+)?(%?)", text)
    if found is not None and found[3] and float(text.removesuffix("%")) <= 100:
        return float(text.removesuffix("%")) / 100
    if found is not None and not found[2] and not found[3]:
        return int(text)
    raise click.BadParameter(f"{text!r} is no limit; write a number of items, or a share of them like 30%")
