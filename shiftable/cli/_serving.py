"""What the commands that serve have in common: they run until they are told to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["until_told"]


@contextmanager
def until_told() -> Iterator[Callable[[], object]]:
    """Give what waits for Ctrl-C or SIGTERM, which end the block in order from its beginning on."""
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told.wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
