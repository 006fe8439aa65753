"""The certificates of Cloud SQL servers, kept where clients that want a file find them."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from shiftable.files import save

__all__ = ["keep"]


def keep(certificates: str, folder: Path | None = None) -> Path:
    """Write certificates to a file of our own that nobody else can change, named after what it holds.

    Args:
        folder: else one in the user's cache, or, where there is none to write to, a new one of this process.
    """
    name = f"{hashlib.sha256(certificates.encode()).hexdigest()[:32]}.pem"
    try:
        return _kept(folder or _cache(), name, certificates)
    except (OSError, RuntimeError):
        return _kept(_of_this_process(), name, certificates)


@functools.cache
def _of_this_process() -> Path:
    """Make a folder that lives as long as the process, and so as all connections."""
    folder = tempfile.mkdtemp(prefix="shiftable-ca-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _cache() -> Path:
    above = os.environ.get("XDG_CACHE_HOME")
    return (Path(above) if above else Path.home() / ".cache") / "shiftable" / "server-ca"


def _kept(folder: Path, name: str, certificates: str) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not ours alone")
    place = folder / name
    if place.is_symlink() or not place.is_file() or place.read_text(encoding="ascii", errors="replace") != certificates:
        save([certificates.encode("ascii")], place, durable=False, mode=0o600)
    return place
