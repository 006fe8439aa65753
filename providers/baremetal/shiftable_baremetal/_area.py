"""The driver's own area, ``<root>/.shiftable``: locks, what is being written, and what goes with the objects.

    signing.key                 see _signing.py
    locks/3f                    one lock for many keys
    staging/<random>            files on their way into place; whoever writes one holds a lock on it
    buckets/<bucket>/
        bucket.json             {"versioning": true}
        cors.json               which pages' scripts may use its signed URLs
        sidecars/              see _sidecar.py
        versions/              see _history.py
        uploads/<id>/          see _uploads.py

All of it lies on the file system of the objects, so that a rename puts a file into place in one step.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from shiftable_baremetal._faults import missing_bucket
from shiftable_baremetal._tree import MISSING, OWN, open_folder

__all__ = ["GRACE", "Area", "Staged", "unlocked", "write_all"]

_STRIPES = 256
GRACE = 3600 * 10**9
"""Nanoseconds for which what no living process holds is left alone."""


@attrs.frozen
class Staged:
    """A file that is not yet in its place."""

    path: Path
    fd: int


@attrs.define(eq=False)
class Area:
    """Files and locks below one root.

    Args:
        fsync: wait until the disk has it, at every step that later steps rely on.
        clock: nanoseconds since 1970.
    """

    root: Path
    fsync: bool = True
    clock: Callable[[], int] = attrs.field(default=time.time_ns, repr=False)
    own: Path = attrs.field(init=False)
    _root: str = attrs.field(init=False, repr=False)  # joining Paths would be half of what a read costs
    _text: str = attrs.field(init=False, repr=False)
    _due: dict[str, int] = attrs.field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.own = self.root / os.fsdecode(OWN)
        self._root, self._text = str(self.root), str(self.own)

    def of(self, bucket: str) -> str:
        """Return the folder of what goes with one bucket."""
        return f"{self._text}/buckets/{bucket}"

    def sync(self, fd: int) -> None:
        """Make a file, or the names in a folder, survive a power failure."""
        if self.fsync:
            os.fsync(fd)

    def sync_folder(self, path: str | Path) -> None:
        """Make the names in a folder survive a power failure."""
        if self.fsync:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def make(self, path: Path) -> Path:
        """Make a folder of ours, and those above it, durably."""
        for parent in reversed(self.make_unsynced(path)):
            self.sync_folder(parent)
        return path

    def make_unsynced(self, path: Path) -> list[Path]:
        """Make a folder of ours, and those above it; return the folders that must be synced, the deepest first."""
        if path.is_dir():
            return []
        above = self.make_unsynced(path.parent)
        path.mkdir(exist_ok=True)
        return [path.parent, *above]

    @contextlib.contextmanager
    def bucket(self, name: str) -> Iterator[int]:
        """Open a bucket's folder.

        Raises:
            FilesError: there is none.
        """
        if name.startswith(".") or "/" in name:
            raise missing_bucket(name)
        try:
            root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise missing_bucket(name) from None
        try:
            fd = open_folder(root, (os.fsencode(name),))
        except OSError as exc:
            if exc.errno in MISSING:
                raise missing_bucket(name) from None
            raise
        finally:
            os.close(root)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def locked(self, *names: str) -> Iterator[None]:
        """Keep all others, in threads and processes, from writing under these names.

        The lock belongs to the open file: it ends with this block, or with the process.
        """
        stripe = int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:4]) % _STRIPES
        path = f"{self._text}/locks/{stripe:02x}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            self.make(self.own / "locks")
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked meanwhile has a copy of the descriptor
            os.close(fd)

    @contextlib.contextmanager
    def staged(self) -> Iterator[Staged]:
        """Open a new file; it is removed at the end, unless it was renamed into its place."""
        path = Path(f"{self._text}/staging/{secrets.token_hex(16)}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o666)
        except FileNotFoundError:
            self.make(path.parent)
            fd = os.open(path, flags, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # tells _sweep that its writer lives
            if self.is_due("staging/"):
                self._sweep(path.parent)
            yield Staged(path, fd)
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    def unlink(self, folder: int, name: bytes) -> None:
        """Remove a name, durably. A missing one is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        self.sync(folder)

    def is_due(self, what: str) -> bool:
        """Tell whether this is to be looked through: at the first write, and again an hour after the last time."""
        now = self.clock()
        if now < self._due.get(what, now):
            return False
        self._due[what] = now + GRACE
        return True

    def age(self, path: Path) -> int:
        """Return for how many nanoseconds nobody wrote to a file, or changed the names in a folder."""
        return self.clock() - path.stat().st_ctime_ns

    def _sweep(self, folder: Path) -> None:
        """Remove what killed writers left: nobody holds a lock on it any more."""
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if self.age(path) > GRACE and _abandoned(path):
                    path.unlink()


def _abandoned(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return unlocked(fd)
    finally:
        os.close(fd)


def unlocked(fd: int) -> bool:
    """Tell whether nobody else has a lock on a file; then we have it until the file is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno == errno.EWOULDBLOCK:
            return False
        raise
    return True


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all bytes at an offset: one call may write less, near the end of a disk or of 2 GiB."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
