"""Folders below a root: safe walking, and listing in the order of the keys' UTF-8 bytes.

Every path is walked one segment at a time, each relative to the open folder before it and with ``O_NOFOLLOW``: no
symbolic link, planted before or meanwhile, leads out of the root, and no path is too long to be walked.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence

from shiftable_baremetal._faults import blocked

__all__ = [
    "MISSING",
    "NAME_MAX",
    "OWN",
    "Walk",
    "files_and_folders",
    "folders_twice",
    "found_folder",
    "make_folder",
    "open_file",
    "open_folder",
    "past",
    "prune",
    "prune_below",
    "regular",
    "segments",
]

logger = logging.getLogger(__name__)

NAME_MAX = 255
"""Bytes of one name in a folder, on every file system in use; ``NAME_MAX`` of POSIX."""

OWN = b".shiftable"
"""How the names of our own files begin; no segment of a key may."""

MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What opening answers where there is nothing of ours: no such name, or a file or a link in a folder's place."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: opening a pipe must not wait


def segments(key: bytes) -> tuple[bytes, ...]:
    """Split a key, or a prefix that ends with ``/``."""
    return tuple(part for part in key.split(b"/") if part)


def open_folder(top: int, path: Sequence[bytes]) -> int:
    """Open a folder below an open one.

    Raises:
        OSError: one of ``MISSING``, if any segment is not a real folder.
    """
    here = os.dup(top) if not path else os.open(path[0], _FOLDER, dir_fd=top)
    for name in path[1:]:
        try:
            below = os.open(name, _FOLDER, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


@contextlib.contextmanager
def found_folder(top: int, path: Sequence[bytes]) -> Iterator[int | None]:
    """Open a folder below an open one while the block runs; ``None`` if there is none."""
    try:
        found = open_folder(top, path)
    except OSError as exc:
        if exc.errno not in MISSING:
            raise
        yield None
        return
    try:
        yield found
    finally:
        os.close(found)


def make_folder(top: int, path: Sequence[bytes], *, sync: Callable[[int], None]) -> int:
    """Open a folder below an open one; make what is missing of it, durably.

    Raises:
        FilesError: an object, or a link, stands where a folder is needed.
        FileNotFoundError: somebody removed a folder meanwhile; try again.
    """
    here = os.dup(top)
    for depth, name in enumerate(path):
        try:
            below = _open_or_make(here, name, sync)
        except OSError as exc:
            if exc.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise _in_the_way(here, path, depth) from exc
            raise
        finally:
            os.close(here)
        here = below
    return here


def _open_or_make(folder: int, name: bytes, sync: Callable[[int], None]) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        sync(folder)
        return os.open(name, _FOLDER, dir_fd=folder)


def _in_the_way(folder: int, path: Sequence[bytes], depth: int) -> Exception:
    taken = b"/".join(path[: depth + 1]).decode()
    if stat.S_ISREG(os.stat(path[depth], dir_fd=folder, follow_symlinks=False).st_mode):
        return blocked(f"{taken!r} is an object: beside it there can be no {taken + '/…'!r}")
    return blocked(f"{taken!r} is neither a file nor a folder; links are not followed: remove it")


def open_file(folder: int, name: bytes) -> int | None:
    """Open a regular file for reading; ``None`` if there is none: links, pipes and devices are none."""
    try:
        found = os.open(name, _FILE, dir_fd=folder)
    except OSError as exc:
        if exc.errno in MISSING or exc.errno == errno.ENXIO:  # ENXIO: a socket
            return None
        raise
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        return None
    return found


def regular(folder: int, name: bytes) -> os.stat_result | None:
    """Look at a regular file; ``None`` if there is none."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def prune(top: int, path: Sequence[bytes]) -> None:
    """Remove a folder and those above it, up to ``top``, as far as they are empty."""
    for depth in range(len(path), 0, -1):
        try:
            parent = open_folder(top, path[: depth - 1])
        except OSError as exc:
            if exc.errno in MISSING:
                continue
            raise
        try:
            os.rmdir(path[depth - 1], dir_fd=parent)
        except FileNotFoundError:
            continue
        except OSError:
            return  # not empty, or not ours to remove: a folder that stays is no object
        finally:
            os.close(parent)


def prune_below(folder: int) -> bool:
    """Remove all empty folders below; say whether nothing is left."""
    empty = True
    with os.scandir(folder) as found:
        entries = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in entries:
        empty = is_folder and _removed(folder, name) and empty
    return empty


def _removed(folder: int, name: bytes) -> bool:
    try:
        below = open_folder(folder, (name,))
        try:
            empty = prune_below(below)
        finally:
            os.close(below)
        if empty:
            os.rmdir(name, dir_fd=folder)
    except OSError as exc:
        return exc.errno == errno.ENOENT
    return empty


Scan = Callable[[Iterable["os.DirEntry[str]"]], Iterator[bytes]]


def files_and_folders(entries: Iterable[os.DirEntry[str]]) -> Iterator[bytes]:
    """Yield the names of regular files, and those of folders with a ``/`` behind, as they sort among keys."""
    for entry in entries:
        if entry.is_file(follow_symlinks=False):
            yield os.fsencode(entry.name)
        elif entry.is_dir(follow_symlinks=False):
            yield os.fsencode(entry.name) + b"/"


def folders_twice(entries: Iterable[os.DirEntry[str]]) -> Iterator[bytes]:
    """Yield each folder as a key and as a folder of keys: in the history's tree it may be both."""
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield os.fsencode(entry.name)
            yield os.fsencode(entry.name) + b"/"


class Walk:
    """Iterate over the keys of a tree in the order of their bytes.

    Each folder is read once, when it is reached; memory is bounded by the largest folder and its parents. Two file
    descriptors are open at any depth. Folders that vanish meanwhile are passed over; unreadable ones are errors.

    Args:
        top: the open folder of the tree; the walk keeps its own copy.
        prefix: only keys that begin with it; the walk begins in its folder.
        after: only keys behind it.
        deep: yield what is in folders; otherwise the folders, with a ``/`` behind.
    """

    def __init__(
        self, top: int, *, prefix: bytes = b"", after: bytes = b"", deep: bool = True, scan: Scan = files_and_folders
    ) -> None:
        self._top = os.dup(top)
        self._here = -1
        self._base = b""
        self._after = after
        self._deep = deep
        self._scan = scan
        self._warned = False
        self._keys = self._walk(prefix)

    def __iter__(self) -> Iterator[bytes]:
        return self._keys

    def stat(self, key: bytes) -> os.stat_result | None:
        """Look at the file of the key that was just yielded; ``None`` if it is gone."""
        return regular(self._here, key[len(self._base) :])

    def holds(self, folder: bytes) -> bool:
        """Tell whether there is any key, still to be visited, in a folder that was just yielded."""
        below = Walk(self._top, prefix=folder, after=self._after, scan=self._scan)
        with contextlib.closing(below):
            return any(below.stat(key) is not None for key in below)

    def close(self) -> None:
        """Give back the descriptors."""
        top, self._top = self._top, -1
        if top >= 0:
            os.close(top)
        self._leave()

    def __del__(self) -> None:
        self.close()

    def _walk(self, prefix: bytes) -> Iterator[bytes]:
        base = prefix[: prefix.rfind(b"/") + 1]
        path = base.split(b"/")[:-1]
        if any(part in {b"", b".", b".."} or part.startswith(OWN) or len(part) > NAME_MAX for part in path):
            return  # no key can begin like this
        stack = [(base, self._names(base, prefix))] if self._enter(base) else []
        while stack:
            base, names = stack[-1]
            if not names:
                stack.pop()
                continue
            key = base + names.pop()
            if self._deep and key.endswith(b"/"):
                if self._enter(key):
                    stack.append((key, self._names(key, b"")))
            elif self._enter(base):
                yield key
            else:
                stack.pop()

    def _enter(self, base: bytes) -> bool:
        """Open a folder of the tree, from where the walk is if that is its parent; say whether it still exists."""
        if self._here >= 0 and base == self._base:
            return True
        below = self._here >= 0 and base.rfind(b"/", 0, -1) + 1 == len(self._base) and base.startswith(self._base)
        try:
            if below:
                found = open_folder(self._here, (base[len(self._base) : -1],))
            else:
                found = open_folder(self._top, segments(base))
        except OSError as exc:
            if exc.errno in MISSING:
                return False
            raise
        self._leave()
        self._here, self._base = found, base
        return True

    def _leave(self) -> None:
        here, self._here = self._here, -1
        if here >= 0:
            os.close(here)

    def _names(self, base: bytes, prefix: bytes) -> list[bytes]:
        """Read the folder that the walk is in: what it has still to visit, last first."""
        with os.scandir(self._here) as entries:
            names = [name for name in self._scan(entries) if self._wanted(base + name, prefix) and self._text(name)]
        names.sort(reverse=True)
        return names

    def _wanted(self, key: bytes, prefix: bytes) -> bool:
        if not key.startswith(prefix) or key.startswith(OWN, key.rfind(b"/", 0, -1) + 1):
            return False
        if key > self._after:
            return True
        # a folder before `after` may hold keys behind it, unless all of the folder was passed: see `past`
        return key.endswith(b"/") and self._after.startswith(key) and self._after != past(key)

    def _text(self, name: bytes) -> bool:
        try:
            name.decode()
        except UnicodeDecodeError:
            if not self._warned:
                logger.warning("files whose names are not UTF-8 are no objects and are not listed, such as %r", name)
            self._warned = True
            return False
        return True


def past(prefix: bytes) -> bytes:
    """Return what sorts directly behind all keys that begin with ``prefix``: 0xFF occurs in no UTF-8."""
    return prefix + b"\xff"
