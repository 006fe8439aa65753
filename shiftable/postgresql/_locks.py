"""Locks on files that the system releases however a process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["is_locked", "locked", "take"]

_STEP = 0.01


def take(path: Path, *, shared: bool, timeout: float) -> int | None:
    """Take a lock and return the open descriptor that holds it; ``None`` if others hold it for too long."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + timeout
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                taken, descriptor = descriptor, -1
                return taken
            if time.monotonic() > end:
                return None
            time.sleep(_STEP)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, timeout: float) -> Iterator[bool]:
    """Hold a lock for the time of the block; false if others hold it for too long."""
    descriptor = take(path, shared=False, timeout=timeout)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Tell whether anybody holds the lock exclusively."""
    if not path.exists():
        return False
    descriptor = take(path, shared=True, timeout=0)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None
