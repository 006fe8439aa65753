"""Write an object of any length with little memory: one piece, or parts side by side."""

from __future__ import annotations

import io
import itertools
import logging
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Self, cast

from shiftable.blob._task import Task
from shiftable.blob.driver import BlobFeatures, ObjectInfo, Part, PutOptions, Upload
from shiftable.errors import InvalidArgument

__all__ = ["PART_SIZE", "Source", "Uploader", "chunks_of", "size_of"]

logger = logging.getLogger(__name__)

Source = bytes | bytearray | memoryview | Path | BinaryIO | Iterable[bytes]

PART_SIZE = 8 * 1024 * 1024
WORKERS = 4
_READ = 1024 * 1024


def size_of(source: Source) -> int | None:
    """Return how many bytes the source has left, ``None`` if only reading it would tell."""
    if isinstance(source, bytes | bytearray | memoryview):
        return memoryview(source).nbytes
    if isinstance(source, Path):
        found = source.stat()
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    if isinstance(source, io.BytesIO):
        return max(0, source.getbuffer().nbytes - source.tell())
    if isinstance(source, io.BufferedReader) and isinstance(source.raw, io.FileIO) and source.seekable():
        return max(0, os.fstat(source.fileno()).st_size - source.tell())
    return None


def chunks_of(source: Source) -> Iterator[bytes]:
    """Iterate over the content of a source, as it comes.

    Raises:
        TypeError: it is text.
    """
    if isinstance(cast("object", source), str):
        raise TypeError("text is no content: encode it; a file is given as a Path")
    if isinstance(source, bytes | bytearray | memoryview):
        return iter((bytes(source),))
    if isinstance(source, Path):
        return _chunks_of_path(source)
    read = getattr(source, "read", None)
    return iter(source) if read is None else iter(lambda: read(_READ), b"")


def _chunks_of_path(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(_READ), b"")


def part_sizes(features: BlobFeatures, size: int | None) -> Iterator[int]:
    """Yield the size of the first part, the second, … until the provider takes no more.

    Parts of a known size are all alike and just large enough. Of an unknown one they begin small and double eight
    times on the way, so that a stream may become 255 times longer than the memory of its parts suggests.
    """
    base = max(PART_SIZE, features.part_size.value)
    if features.max_parts is None:
        return itertools.repeat(base)
    count = features.max_parts.value
    largest = features.max_part.value if features.max_part else None
    if size is not None:
        even = -(-size // count)
        base = max(base, -(-even // _READ) * _READ)  # whole MiB: some providers want multiples of 256 KiB
        return itertools.repeat(base, count)
    step = max(1, count // 8)
    grown = (base << number // step for number in range(count))
    return (min(each, largest) for each in grown) if largest else grown


class Uploader:
    """Takes bytes and makes an object of them when it is finished; nothing is visible before.

    One thread writes. Parts are sent by a few others, which are waited for before more than they can take is read.
    Leave the ``with`` block by an exception, and the upload is dropped.
    """

    def __init__(self, task: Task, options: PutOptions, *, size: int | None = None) -> None:
        self._task = task
        self._options = options
        self._buffer = bytearray()
        self._sizes = part_sizes(task.driver.features, size)
        self._wanted = next(self._sizes)
        self._upload: Upload | None = None
        self._sent = 0
        self._numbers = itertools.count(1)
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[Future[Part]] = deque()
        self._parts: list[Part] = []

    def write(self, data: bytes | memoryview) -> None:
        """Take more bytes; waits while all workers are busy."""
        view = memoryview(data).cast("B")
        for at in range(0, len(view), _READ):
            self._buffer += view[at : at + _READ]
            self._send_full_parts()

    def finish(self) -> ObjectInfo:
        """Make the object visible."""
        driver, task = self._task.driver, self._task
        if self._upload is None:
            with task.translated:
                return driver.put(task.bucket, task.key, bytes(self._buffer), self._options)
        self._send(len(self._buffer))
        while self._pending:
            self._collect()
        with task.translated:
            info = driver.upload_complete(self._upload, tuple(self._parts))
        self._upload = None
        self._close_pool()
        return info

    def abort(self) -> None:
        """Drop what was sent. Again, or after ``finish``: nothing happens."""
        self._buffer.clear()
        # The workers end first: a part that arrives after the abort would stay, unseen and paid for.
        self._close_pool()
        upload, self._upload = self._upload, None
        if upload is None:
            return
        try:
            self._task.driver.upload_abort(upload)
        except Exception:
            # What made us give up is what the caller must see.
            logger.warning("the parts of an upload to %s could not be dropped", self._task.resource, exc_info=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, *exc_info: object) -> None:
        self.abort()

    def _send_full_parts(self) -> None:
        # Strictly more than a part: what is left at the end is never empty, and an object of one part needs no upload.
        while len(self._buffer) > self._wanted:
            self._send(self._wanted)
            size = next(self._sizes, None)
            if size is None:
                raise self._task.error(InvalidArgument, f"the content has more than {len(self._parts):,} parts")
            self._wanted = size

    def _send(self, size: int) -> None:
        if self._upload is None or self._pool is None:
            self._upload = self._begin()
            self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="shiftable-upload")
        if len(self._pending) == WORKERS:
            self._collect()
        with memoryview(self._buffer) as view:
            data = bytes(view[:size])
        del self._buffer[:size]
        self._pending.append(self._pool.submit(self._part, self._upload, next(self._numbers), data, self._sent))
        self._sent += size

    def _begin(self) -> Upload:
        with self._task.translated:
            return self._task.driver.upload_begin(self._task.bucket, self._task.key, self._options)

    def _part(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:
        with self._task.translated:
            return self._task.driver.upload_part(upload, number, data, offset)

    def _collect(self) -> None:
        self._parts.append(self._pending.popleft().result())

    def _close_pool(self) -> None:
        pool, self._pool = self._pool, None
        self._pending.clear()
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
