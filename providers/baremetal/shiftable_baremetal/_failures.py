"""What a driver finds out itself, beside what a server says: no answer, no connection, a state that forbids it."""

from __future__ import annotations

from shiftable.errors import Fault, OperationError

__all__ = ["Broken", "NeverSent", "Stopped", "all_of"]


def all_of(number: int, noun: str, kind: str) -> str:
    """Begin to say what all of a kind are.

    >>> all_of(1, "host", "2 CPUs"), all_of(2, "host", "2 CPUs")
    ('the only host with 2 CPUs is', 'all 2 hosts with 2 CPUs are')
    """
    return f"the only {noun} with {kind} is" if number == 1 else f"all {number:,} {noun}s with {kind} are"


class Broken(Exception):
    """There was no answer; whether the request was executed is not known."""

    def __init__(self, message: str, *, timeout: bool = False) -> None:
        super().__init__(message)
        self.timeout = timeout


class NeverSent(Broken):
    """There was no connection, so nothing was sent."""


class Stopped(Exception):
    """Something that the driver found out itself."""

    def __init__(self, error: type[OperationError], message: str, code: str = "", missing: str | None = None) -> None:
        super().__init__(message)
        self.fault = Fault(error, message, code, missing=missing)
