"""Secrets as files that lie in memory only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from shiftable.errors import ConfigError
from shiftable.masking import Masked

__all__ = ["Folder", "Numbers"]

_PREFIX = "shiftable-run-"
_YOUNG = 60.0
_FIRST = 60
"""Scripts use small numbers themselves; a shell gives those from here to what it makes, as ``<(…)``."""

_SEALS = ("F_SEAL_WRITE", "F_SEAL_GROW", "F_SEAL_SHRINK", "F_SEAL_SEAL")


class Numbers:
    """Files without names, which a command and what it starts inherit as open ones: ``/dev/fd/7``.

    They end with the last process that has them open. Nobody can write to them, not even the command.

    Args:
        mode: as of a file; some programs read passwords only from files that are their owner's alone.
    """

    def __init__(self, values: Mapping[str, Masked], *, mode: int | None = None) -> None:
        if not hasattr(os, "memfd_create"):
            raise ConfigError("files without names need Linux; say --files-in DIR, with a folder in memory")
        self._numbers: dict[str, int] = {}
        for name, value in values.items():
            low = os.memfd_create("shiftable", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
            number = self._numbers[name] = fcntl.fcntl(low, fcntl.F_DUPFD, _FIRST)
            os.close(low)
            _write(number, value)
            if mode is not None:
                os.fchmod(number, mode)
            fcntl.fcntl(number, fcntl.F_ADD_SEALS, sum(getattr(fcntl, seal) for seal in _SEALS))
            os.lseek(number, 0, os.SEEK_SET)

    @property
    def paths(self) -> dict[str, str]:
        """Where each is."""
        return {name: f"/dev/fd/{number}" for name, number in self._numbers.items()}

    def close(self) -> None:
        """Close them in this process."""
        for number in self._numbers.values():
            os.close(number)
        self._numbers.clear()


class Folder:
    """Files in a folder of their own, mode 0700 and 0600, on a file system that is memory. It goes when it is closed.

    Folders that killed commands have left are removed too.
    """

    def __init__(self, values: Mapping[str, Masked], base: Path | None = None) -> None:
        base = base or _memory()
        if not _in_memory(base):
            raise ConfigError(f"{base} is not in memory but on a disk; say --files-in with a folder on a tmpfs")
        _sweep(base)
        try:
            self._path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
            self._held = _hold(self._path)
        except OSError as exc:
            raise ConfigError(f"cannot make a folder in {base}: {exc.strerror}") from exc
        self._names: set[str] = set()
        try:
            self.write(values)
        except BaseException:
            self.close()
            raise

    @property
    def paths(self) -> dict[str, str]:
        """Where each is."""
        return {name: str(self._path / name) for name in self._names}

    def write(self, values: Mapping[str, Masked]) -> None:
        """Write files, each of which is replaced as a whole: a reader sees the old one or the new one."""
        for name, value in values.items():
            new = self._path / f".{name}.new"
            number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                _write(number, value)
            finally:
                os.close(number)
            new.replace(self._path / name)
            self._names.add(name)

    def close(self) -> None:
        """Remove the folder. Again: no change."""
        shutil.rmtree(self._path, ignore_errors=True)
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _write(number: int, value: Masked) -> None:
    left = memoryview(value.reveal_bytes())
    while left:
        left = left[os.write(number, left) :]


def _memory() -> Path:
    """Return where this user's files in memory lie."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    for candidate in (Path(own) if own else None, Path("/dev/shm")):  # noqa: S108  a folder of one's own is made in it
        if candidate is not None and candidate.is_dir() and os.access(candidate, os.W_OK) and _in_memory(candidate):
            return candidate
    raise ConfigError("XDG_RUNTIME_DIR and /dev/shm are not in memory; say --files-in with a folder on a tmpfs")


def _in_memory(path: Path) -> bool:
    """Tell whether a folder lies on a tmpfs, as the kernel's table of mounts says."""
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    return _kind(path.resolve(), table.splitlines()) in ("tmpfs", "ramfs")


def _kind(path: Path, mounts: Iterable[str]) -> str:
    """Return the type of the file system that a path is on: the last mount on the longest part of it."""
    best, kind = -1, ""
    for line in mounts:
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), before.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind


def _sweep(base: Path) -> None:
    """Remove this user's folders that nobody holds any more. A new one may not be held yet."""
    for left in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            about = left.lstat()
            if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and about.st_mtime < time.time() - _YOUNG:
                held = _hold(left)
                try:
                    shutil.rmtree(left)
                finally:
                    os.close(held)


def _hold(folder: Path) -> int:
    """Lock a folder for as long as what is returned is open: other containers see it too, unlike process ids."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held
