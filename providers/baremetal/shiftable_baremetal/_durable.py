"""Files that hold the old content or the new one, whatever happens, and that only their owner reads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["sync", "write"]


def write(path: Path, data: str | bytes) -> None:
    """Write a file, atomically and for good."""
    descriptor, new = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  of a descriptor
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(descriptor)
        Path(new).replace(path)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Wait until the disk has what was put into a folder, or taken out of it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
