"""Where servers are while times are restored: folders that are gone afterwards, also if a restore was killed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from shiftable.errors import QuotaExceeded
from shiftable.postgresql import locked
from shiftable.postgresql._locks import take
from shiftable_baremetal._servers_engine import fail

__all__ = ["check_room", "own_place", "watched_room"]

_PATIENCE = 60  # seconds for another restore to have made its folder
_LOOK = 0.5  # seconds
_LEAST = 64 * 1024 * 1024  # bytes that a disk has left when what fills it is ended


def check_room(folder: Path, needed: int) -> None:
    """Make a folder, and fail unless its disk has so many bytes left."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        fail(QuotaExceeded, f"{folder} has {free / 2**30:.1f} GiB left, and {needed / 2**30:.1f} GiB are needed")


@contextlib.contextmanager
def own_place(folder: Path, discard: Callable[[Path], None]) -> Iterator[Path]:
    """Make a folder for the time of the block, and delete what killed restores have left."""
    with locked(folder / "lock", timeout=_PATIENCE):
        for left in folder.glob("at-*"):
            with locked(left / "held", timeout=0) as free:
                if free:
                    discard(left)
        place = Path(tempfile.mkdtemp(prefix="at-", dir=folder))
        held = take(place / "held", shared=False, timeout=0)
    try:
        yield place
    finally:
        discard(place)
        if held is not None:
            os.close(held)


@contextlib.contextmanager
def watched_room(folder: Path) -> Iterator[list[Callable[[], None]]]:
    """End what fills a disk before that is full, as servers wait for room then; tell that in place of what follows.

    Hands out a list for what ends it, which is called again and again then.

    Raises:
        FilesError: it was ended.
    """
    done, full, ends = threading.Event(), threading.Event(), list[Callable[[], None]]()

    def watch() -> None:
        while not done.wait(_LOOK):
            if shutil.disk_usage(folder).free < _LEAST:
                full.set()
                for end in ends:
                    end()

    thread = threading.Thread(target=watch, name="watched-room", daemon=True)
    thread.start()
    try:
        yield ends
    except Exception as exc:
        if full.is_set() or (isinstance(exc, OSError) and exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}):
            fail(QuotaExceeded, f"the disk of {folder.parent} became full: make room there, and restore again")
        raise
    finally:
        done.set()
        thread.join()
