"""The content of files, a piece at a time."""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Self

from shiftable.blob.driver import Part
from shiftable_baremetal._area import write_all
from shiftable_baremetal._faults import damaged, invalid

__all__ = ["Chunks", "digest", "transfer"]

_CHUNK = 1024 * 1024
_NO_KERNEL_COPY = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM})


class Chunks(Iterator[bytes]):
    """Some bytes of an open file; closes it at the end.

    Writes of shiftable never change an open file. Those of other programs may: they are noticed at the end.
    """

    def __init__(self, fd: int, found: os.stat_result, key: str, start: int, stop: int) -> None:
        self._fd = fd
        self._key = key
        self._at = start
        self._stop = stop
        self._written = found.st_mtime_ns

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._at >= self._stop or self._fd < 0:
            self._finish()
            raise StopIteration
        data = os.pread(self._fd, min(_CHUNK, self._stop - self._at), self._at)
        if not data:
            self.close()
            raise self._changed()
        self._at += len(data)
        return data

    def close(self) -> None:
        """Close the file. Again: nothing happens."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def _finish(self) -> None:
        changed = self._fd >= 0 and os.fstat(self._fd).st_mtime_ns != self._written
        self.close()
        if changed:
            raise self._changed()

    def _changed(self) -> Exception:
        return damaged(f"the file of {self._key!r} was changed by another program while it was read")


def digest(fd: int, parts: Sequence[Part]) -> str:
    """Read the parts of an upload one after the other; return the MD5 of all, in hex.

    Raises:
        FilesError: they do not lie end to end, or are not what was sent.
    """
    md5, at = hashlib.md5(usedforsecurity=False), 0
    for part in parts:
        offset, _, crc = part.token.partition("-")
        if offset != f"{at:x}":
            raise invalid(f"part {part.number} begins at byte {int(offset, 16):,}; the parts before it end at {at:,}")
        if crc != f"{_digest_part(fd, at, part.size, md5):08x}":
            raise damaged(f"part {part.number} is not what was sent with it; send it again")
        at += part.size
    return md5.hexdigest()


def _digest_part(fd: int, start: int, size: int, md5: hashlib._Hash) -> int:
    crc, stop = 0, start + size
    for at in range(start, stop, _CHUNK):
        data = os.pread(fd, min(_CHUNK, stop - at), at)
        md5.update(data)
        crc = zlib.crc32(data, crc)
    return crc


def transfer(source: int, target: int, size: int) -> None:
    """Copy a file's content, by the kernel where it can."""
    done = 0
    try:
        while done < size and (copied := os.copy_file_range(source, target, size - done, done, done)):
            done += copied
    except OSError as exc:
        if exc.errno not in _NO_KERNEL_COPY:
            raise
    while done < size and (data := os.pread(source, _CHUNK, done)):
        write_all(target, data, done)
        done += len(data)
