"""Older versions of objects, and the markers of their deletion.

The versions of the key ``a/b`` lie in the folder ``versions/a/b`` of the bucket's own area. That folder may also be
the parent of other keys: the names of our files begin as no segment of a key may.

    .shiftable-<stamp>-<version>            the content: the very file that was the object
    .shiftable-<stamp>-<version>.sidecar
    .shiftable-<stamp>-<version>.deleted    a marker: at that time, this version was deleted

The stamp says when a version ceased to be the latest; the newest has the greatest. A step that a crash cut short
leaves an entry that names the version that is still the object: readers pass over it, the next write removes it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from shiftable_baremetal._area import Area
from shiftable_baremetal._sidecar import Sidecar, Sidecars, read_sidecar, token_of
from shiftable_baremetal._tree import MISSING, Walk, folders_twice, make_folder, open_folder, prune, segments

__all__ = ["Entry", "History"]

_MARK = ".shiftable-"
_DELETED = ".deleted"
_SIDECAR = ".sidecar"


@attrs.frozen
class Entry:
    """One older version, or a delete marker.

    Args:
        stamp: nanoseconds.
        subject: the version that it holds, or that it hides.
    """

    stamp: int
    subject: str
    deleted: bool

    @property
    def version(self) -> str:
        """Its id."""
        return f"{self.stamp:x}" if self.deleted else self.subject

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{_MARK}{self.stamp:020d}-{self.subject}{_DELETED if self.deleted else ''}"

    @classmethod
    def parse(cls, name: str) -> Entry | None:
        """Read the name of a file; ``None`` if it is no entry."""
        if not name.startswith(_MARK) or name.endswith(_SIDECAR):
            return None
        stamp, _, subject = name.removeprefix(_MARK).partition("-")
        return cls(int(stamp), subject.removesuffix(_DELETED), subject.endswith(_DELETED))


@attrs.frozen
class History:
    """The older versions of one bucket. Whoever changes those of a key has locked it."""

    area: Area
    bucket: str

    @property
    def path(self) -> Path:
        """The folder of all."""
        return Path(self.area.of(self.bucket), "versions")

    def is_empty(self) -> bool:
        """Tell whether there is no older version and no marker of any object."""
        try:
            with self._top() as top:
                return _is_empty(top)
        except FileNotFoundError:
            return True

    @contextlib.contextmanager
    def _top(self, *, make: bool = False) -> Iterator[int]:
        path = self.area.make(self.path) if make else self.path
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def folder(self, key: str) -> Iterator[int | None]:
        """Open the folder of a key; ``None`` if it has no history."""
        with contextlib.ExitStack() as stack:
            found = None
            try:
                found = open_folder(stack.enter_context(self._top()), segments(key.encode()))
                stack.callback(os.close, found)
            except OSError as exc:
                if exc.errno not in MISSING:
                    raise
            yield found

    @staticmethod
    def entries(folder: int | None, current: str | None) -> list[Entry]:
        """Return what happened to a key before ``current``, newest first."""
        if folder is None:
            return []
        found = (Entry.parse(name) for name in os.listdir(folder))  # noqa: PTH208  a descriptor
        kept = [entry for entry in found if entry is not None and entry.subject != current]
        return sorted(kept, key=lambda entry: entry.stamp, reverse=True)

    @staticmethod
    def sidecar(folder: int, entry: Entry) -> Sidecar:
        """Return what goes with an older version."""
        return read_sidecar(entry.name + _SIDECAR, folder=folder) or Sidecar()

    def keep(self, key: str, folder: int, name: bytes, version: str, sidecar: str, now: int) -> None:
        """Keep the object that is in place as an older version too, before it is replaced."""
        with self._opened(key) as own:
            stamp = self._next_stamp(own, version, now)
            entry = Entry(stamp, version, deleted=False)
            with contextlib.suppress(FileNotFoundError):
                os.link(sidecar, entry.name + _SIDECAR, dst_dir_fd=own)
            os.link(name, entry.name, src_dir_fd=folder, dst_dir_fd=own, follow_symlinks=False)
            self.area.sync(own)

    def mark_deleted(self, key: str, version: str, now: int) -> None:
        """Note that a version is about to be deleted."""
        with self._opened(key) as own:
            newest = max((entry.stamp for entry in self.entries(own, None)), default=0)
            entry = Entry(max(now, newest + 1), version, deleted=True)
            os.close(os.open(entry.name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666, dir_fd=own))
            self.area.sync(own)

    def restore(self, key: str, entry: Entry, folder: int, name: bytes, sidecars: Sidecars) -> None:
        """Make an older version the object again, in place of what may be there."""
        with self._opened(key) as own, self.area.staged() as staged:
            found = os.stat(entry.name, dir_fd=own, follow_symlinks=False)
            staged.path.unlink()
            os.link(entry.name, staged.path, src_dir_fd=own, follow_symlinks=False)
            sidecars.write(key, token_of(found), self.sidecar(own, entry), own)
            os.rename(staged.path, name, dst_dir_fd=folder)
            self.area.sync(folder)
            sidecars.sweep(key, token_of(found))

    def remove(self, key: str, entries: Sequence[Entry]) -> None:
        """Remove older versions and markers for good."""
        if not entries:
            return
        with self._opened(key) as own:
            for entry in entries:
                for name in (entry.name + _SIDECAR, entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=own)
            self.area.sync(own)
        with self._top() as top:
            prune(top, segments(key.encode()))

    def keys(self, prefix: bytes, after: bytes) -> Iterator[bytes]:
        """Iterate over the keys that may have a history, in order."""
        try:
            with self._top() as top:
                walk = Walk(top, prefix=prefix, after=after, scan=folders_twice)
        except FileNotFoundError:
            return
        with contextlib.closing(walk):
            yield from walk

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        with self._top(make=True) as top:
            fd = make_folder(top, segments(key.encode()), sync=self.area.sync)
        try:
            yield fd
        finally:
            os.close(fd)

    def _next_stamp(self, own: int, version: str, now: int) -> int:
        """Return a stamp behind all others; drop what an earlier try to keep this version left."""
        entries = self.entries(own, None)
        for entry in entries:
            if entry.subject == version:
                for name in (entry.name + _SIDECAR, entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=own)
        return max([now, *(entry.stamp + 1 for entry in entries)])


def _is_empty(folder: int) -> bool:
    with os.scandir(folder) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in entries:
        if not is_folder:
            return False
        below = open_folder(folder, (os.fsencode(name),))
        try:
            if not _is_empty(below):
                return False
        finally:
            os.close(below)
    return True
