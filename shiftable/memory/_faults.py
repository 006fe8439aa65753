"""The memory provider's native exception."""

from __future__ import annotations

from shiftable.errors import Fault

__all__ = ["MemoryFault", "classify"]


class MemoryFault(Exception):
    """What the memory drivers raise in place of an SDK's error; ``fault`` says what it means."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault

    def __str__(self) -> str:
        return self.fault.message or self.fault.error.__name__


def classify(exc: Exception) -> Fault | None:
    """Say what a native exception of the memory drivers means."""
    return exc.fault if isinstance(exc, MemoryFault) else None
