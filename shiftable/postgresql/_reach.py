"""Programs that another user may run: root's own, below a folder that is closed to others, are copied out of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from shiftable.postgresql._binaries import Binaries
from shiftable.postgresql._owner import Owner
from shiftable.postgresql._template import ClusterError

__all__ = ["within_reach"]

_CACHE = Path("/var/cache/shiftable/postgresql")
_PARTS = ("bin", "lib", "share")


def within_reach(binaries: Binaries, owner: Owner) -> Binaries:
    """Return the programs, or a copy of them that the owner of a server may run.

    Raises:
        ClusterError: they cannot be copied, since they are part of a system.
    """
    if owner.uid is None or _reaches(binaries.folder / "postgres"):
        return binaries
    prefix = binaries.folder.parent
    if binaries.folder.name != "bin" or not any(prefix.glob("share/**/postgres.bki")):
        why = f"{binaries.folder} is closed to the user {owner.uid}, who runs root's servers"
        raise ClusterError(f"{why}: open it (chmod o+x), or install PostgreSQL elsewhere")
    found = (binaries.folder / "postgres").stat()
    mark = hashlib.sha256(f"{binaries.folder} {found.st_size} {found.st_mtime_ns}".encode()).hexdigest()[:16]
    copied = _CACHE / f"{binaries.version}-{mark}"
    if not copied.is_dir():
        _copy(prefix, copied)
    return Binaries(copied / "package" / "install" / "bin", binaries.version)


def _reaches(program: Path) -> bool:
    """Tell whether everybody may run a program: read it, and pass all folders above it."""
    wanted = stat.S_IROTH | stat.S_IXOTH
    if program.stat().st_mode & wanted != wanted:
        return False
    return all(above.stat().st_mode & stat.S_IXOTH for above in Path(os.path.realpath(program)).parents)


def _copy(prefix: Path, to: Path) -> None:
    """Copy an installation, and the libraries that a wheel keeps beside its package; they are found relatively."""
    to.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    package = prefix.parent
    with tempfile.TemporaryDirectory(dir=to.parent, prefix="new-") as name:
        new = Path(name) / "new"
        for part in _PARTS:
            if (prefix / part).is_dir():
                shutil.copytree(prefix / part, new / "package" / "install" / part, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, new / libraries.name, symlinks=True)
        for here, _, files in os.walk(new):
            Path(here).chmod(0o755)
            for file in files:
                if not Path(here, file).is_symlink():
                    Path(here, file).chmod(0o755)
        try:
            new.rename(to)
        except OSError:
            if not to.is_dir():  # another process was faster
                raise
