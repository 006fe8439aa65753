"""Files that hold the old content or the new one, whatever happens, and folders that are still there afterwards."""

from __future__ import annotations

import os
from pathlib import Path

from shiftable.files import save

__all__ = ["for_writing", "make_folder", "sync", "write"]


def write(path: Path, data: str | bytes) -> None:
    """Write a file, atomically and for good, which only its owner reads."""
    save([data.encode() if isinstance(data, str) else data], path, mode=0o600)


def sync(folder: Path) -> None:
    """Wait until the disk has what was put into a folder, or taken out of it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they survive a crash."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def for_writing(path: str, flags: int) -> int:
    """Open a file that all may read, and nothing that a link names: what ``open`` takes as its opener."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
