"""Objects as Python's binary files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from shiftable.blob._stream import ObjectStream
from shiftable.blob._upload import Uploader
from shiftable.blob.driver import ObjectSummary

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["ObjectReader", "ObjectWriter"]


class ObjectReader(io.RawIOBase):
    """A seekable file over ranged reads of one version. ``open`` puts a buffer before it."""

    def __init__(self, open_at: Callable[[int, ObjectSummary | None], ObjectStream]) -> None:
        super().__init__()
        self._open_at = open_at
        self._rest = memoryview(b"")
        self._at = 0
        self._failed = False
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
        if base + offset != self._at or self._failed:
            self._at = base + offset
            self._drop()
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer with what has come, at least one byte; 0 at the end."""
        if self.closed:
            raise ValueError("read of a closed file")
        if self._failed:  # a buffer before us drops what it had of the read that failed
            raise ValueError("read after a read that failed: seek to where it is to go on")
        if not self._rest and self._at < self._summary.size:
            if self._stream is None:
                self._stream = self._open_at(self._at, self._summary)
            try:
                self._rest = memoryview(next(self._stream))
            except BaseException:
                self._failed = True
                raise
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
        self._failed = False
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
