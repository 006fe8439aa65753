"""A small disk, what fills it, and what makes it larger."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["MIB", "left", "resized", "small_disk"]

MIB = 1024 * 1024


@contextlib.contextmanager
def small_disk(place: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a disk in memory until the end of the block."""
    place.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0755", "tmpfs", place)
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root, where it may mount, has another disk; files that may not grow are tested without one")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def resized(disk: Path, mebibytes: int) -> None:
    """Make a disk larger, or smaller."""
    subprocess.run(["mount", "-o", f"remount,size={mebibytes}m", disk], check=True)


@contextlib.contextmanager
def left(disk: Path, mebibytes: int) -> Iterator[None]:
    """Leave so much of a disk until the end of the block."""
    status, ballast = os.statvfs(disk), disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - mebibytes * MIB)
    try:
        yield
    finally:
        ballast.unlink()
