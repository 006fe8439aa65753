"""Numbers in sentences for people."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """Say so many of something whose plural ends in s.

    >>> counted(1, "machine"), counted(1204, "record set")
    ('1 machine', '1,204 record sets')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
