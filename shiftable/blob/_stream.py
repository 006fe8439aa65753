"""Read an object as it comes, over dropped connections, and believe nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from typing import Self

from shiftable.blob._task import Task
from shiftable.blob.driver import Download, ObjectInfo, ObjectSummary, Range
from shiftable.errors import IntegrityError, NotFound, OperationError, PreconditionFailed
from shiftable.tokens import Token

__all__ = ["ObjectStream"]

_ATTEMPTS = 3


class ObjectStream(Iterator[bytes]):
    """An object on its way: iterate over its bytes, in a ``with`` block.

    A connection that drops is made again from where it broke, for the same version of the object; after three in a
    row that bring nothing its error is raised. ``IntegrityError`` means that fewer or more bytes came than the
    provider promised, that the object was replaced while it was read, or that its MD5 is not the promised one.

    Attributes:
        summary: what a listing tells of the object, as it was when the stream was opened.
    """

    def __init__(
        self,
        task: Task,
        *,
        start: int,
        stop: int | None,
        if_match: Token | None,
        version: str | None,
        if_none_match: Token | None = None,
        known: ObjectSummary | None = None,
    ) -> None:
        self._task = task
        self._version = version
        self._download = (
            self._opened(start, stop, if_match, if_none_match) if known is None else self._reopened(known, start, stop)
        )
        self.summary = self._download.info
        size = self.summary.size
        self._at = min(start, size)
        self._end = max(self._at, size if stop is None else min(stop, size))
        whole = self._at == 0 and self._end == size and self.summary.md5 is not None
        self._md5 = hashlib.md5(usedforsecurity=False) if whole else None
        self._chunks = self._checked()

    @property
    def info(self) -> ObjectInfo:
        """Everything about the object, as it was when the stream was opened; asked for if only a listing told of it.

        Raises:
            PreconditionFailed: it is another one by now.
        """
        if not isinstance(self.summary, ObjectInfo):
            self.summary = self._found(self.summary.token)
        return self.summary

    def __next__(self) -> bytes:
        chunk = next(self._chunks, None)
        if chunk is not None:
            return chunk
        if self._at < self._end:
            raise ValueError("read of a stream that broke off or was closed before its end")
        raise StopIteration

    def read(self) -> bytes:
        """Return all that is left."""
        return b"".join(self)

    def close(self) -> None:
        """Give the connection back. Only needed when the stream is not read to its end; ``with`` does it."""
        self._chunks.close()
        self._download.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ObjectStream of {self._task.resource}, {self._at:,} of {self._end:,} bytes>"

    def _opened(
        self, start: int, stop: int | None, if_match: Token | None, if_none_match: Token | None = None
    ) -> Download:
        driver, bucket, key = self._task.driver, self._task.bucket, self._task.key
        range_ = Range(start, stop) if start or stop is not None else None
        condition = {} if if_none_match is None else {"if_none_match": if_none_match}
        # HTTP cannot ask for no bytes at all. And not every driver can be told what the caller has.
        look = start == stop or (condition and not driver.features.if_none_match)
        if look:
            info = self._found(if_match, if_none_match)
            if start == stop:
                return Download(info=info, chunks=iter(()))
            condition = {}
        with self._task.translated:
            download = driver.get(bucket, key, range_=range_, if_match=if_match, version=self._version, **condition)
        if condition and download.info.token == if_none_match:  # a server that does not know the condition
            download.close()
            self._task.check_token(download.info, None, if_none_match)
        return download

    def _reopened(self, known: ObjectSummary, start: int, stop: int | None) -> Download:
        """Open that version of the object."""
        if start == stop or start >= known.size:
            return Download(info=self._found(known.token), chunks=iter(()))
        range_ = Range(start, stop) if start or stop is not None else None
        with self._task.translated:
            download = self._task.driver.reopen(self._task.bucket, known, range_=range_, version=self._version)
        if download.info.token != known.token:  # a server that does not know the condition
            download.close()
            self._task.check_token(download.info, known.token)
        return download

    def _found(self, if_match: Token | None, if_none_match: Token | None = None) -> ObjectInfo:
        with self._task.translated:
            info = self._task.driver.stat(self._task.bucket, self._task.key, version=self._version)
        self._task.check_token(info, if_match, if_none_match)
        return info

    def _checked(self) -> Generator[bytes, None, None]:
        yield from self._resumed()
        if self._md5 is not None and self._md5.digest() != self.summary.md5:
            raise self._task.error(IntegrityError, "the content does not have the MD5 that the provider tells")

    def _resumed(self) -> Generator[bytes, None, None]:
        failure: OperationError | None = None
        fruitless = 0
        while fruitless < _ATTEMPTS:
            before = self._at
            try:
                if failure is not None:
                    self._reopen()
                yield from self._arriving()
                if self._at == self._end:
                    return
                failure = self._task.error(IntegrityError, f"the content ends {self._end - self._at:,} bytes too early")
            except OperationError as exc:
                if not exc.retryable:
                    raise
                failure = exc
            if self._at == self._end:
                return
            fruitless = 0 if self._at > before else fruitless + 1
        if failure is not None:
            raise failure

    def _arriving(self) -> Iterator[bytes]:
        while True:
            with self._task.translated:
                chunk = next(self._download.chunks, None)
            if chunk is None:
                return
            self._at += len(chunk)
            if self._at > self._end:
                raise self._task.error(IntegrityError, "more bytes came than the provider promised")
            if self._md5 is not None:
                self._md5.update(chunk)
            yield chunk

    def _reopen(self) -> None:
        self._download.close()
        try:
            self._download = self._reopened(self.summary, self._at, self._end)
        except (NotFound, PreconditionFailed) as exc:
            raise self._task.error(IntegrityError, "the object was replaced or deleted while it was read") from exc
