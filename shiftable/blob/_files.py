"""Objects as Python's binary files."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from shiftable.blob._stream import ObjectStream
from shiftable.blob._upload import Uploader
from shiftable.blob.driver import ObjectSummary

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["ObjectReader", "ObjectWriter", "save"]


class ObjectReader(io.RawIOBase):
    """A seekable file over ranged reads of one version. ``open`` puts a buffer before it."""

    def __init__(self, open_at: Callable[[int, ObjectSummary | None], ObjectStream]) -> None:
        super().__init__()
        self._open_at = open_at
        self._rest = memoryview(b"")
        self._at = 0
        self._stream: ObjectStream | None = None  # the base class closes also what could not be opened
        self._stream = opened = open_at(0, None)
        self._summary = opened.summary

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move; the next read opens the object there."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._summary.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        if base + offset != self._at:
            self._at = base + offset
            self._drop()
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer with what has come, at least one byte; 0 at the end."""
        if self.closed:
            raise ValueError("read of a closed file")
        if not self._rest and self._at < self._summary.size:
            if self._stream is None:
                self._stream = self._open_at(self._at, self._summary)
            self._rest = memoryview(next(self._stream, b""))
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._at += count
        return count

    def close(self) -> None:
        """Give the connection back."""
        self._drop()
        super().close()

    def _drop(self) -> None:
        self._rest = memoryview(b"")
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class ObjectWriter(io.BufferedIOBase):
    """A file that becomes an object when it is closed, and nothing when an exception leaves its ``with`` block."""

    def __init__(self, uploader: Uploader) -> None:
        super().__init__()
        self._uploader = uploader
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: ReadableBuffer, /) -> int:
        """Take all of the data; after a failure the file is closed and the upload dropped."""
        if self.closed:
            raise ValueError("write to a closed file")
        view = memoryview(data).cast("B")
        try:
            self._uploader.write(view)
        except BaseException:
            self.abort()
            raise
        self._at += len(view)
        return len(view)

    def close(self) -> None:
        """Make the object visible."""
        if self.closed:
            return
        try:
            with self._uploader:
                self._uploader.finish()
        finally:
            super().close()

    def abort(self) -> None:
        """Drop what was written."""
        if not self.closed:
            self._uploader.abort()
            super().close()

    def __exit__(self, cls: type[BaseException] | None, *exc_info: object) -> None:
        if cls is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        # A file that nobody closed is unfinished; the base class would close it, and so publish it.
        self.abort()


def save(stream: Iterable[bytes], path: str | Path, *, durable: bool = True, modified: float | None = None) -> None:
    """Write a stream to a file that appears whole or not at all.

    Args:
        durable: wait until the disk has it; else a power cut may leave an empty file.
        modified: when it is to say that it was changed, in seconds since 1970; now, if nothing is said.
    """
    folder = os.path.dirname(path) or "."  # noqa: PTH120  paths cost as much as the file
    part = f"{folder}/.{random.getrandbits(64):016x}.part"
    try:
        # Python's files ask the system for more than they need, which shows where objects are small and many.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            for chunk in stream:
                written = os.write(descriptor, chunk)
                while written < len(chunk):
                    written += os.write(descriptor, memoryview(chunk)[written:])
            if modified is not None:
                os.utime(descriptor, (modified, modified))
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(part, path)  # noqa: PTH105
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    if durable:
        _sync_directory(folder)


def _sync_directory(path: str) -> None:
    """Make the rename last."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
