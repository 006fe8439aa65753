"""The data plane of bulk moves: one object, or many, from any bucket into any other, checked on the way.

Nothing here knows a journal. Whoever offers a faster lane replaces ``copy_object`` and keeps its promises.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from operator import call
from types import TracebackType
from typing import TYPE_CHECKING

import attrs

from shiftable.blob._upload import PART_SIZE
from shiftable.blob.driver import Headers, Lock, ObjectInfo, Retention
from shiftable.errors import (
    Conflict,
    IntegrityError,
    NotFound,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
)
from shiftable.fibers import in_thread
from shiftable.parallel import parallel
from shiftable.tokens import Token

if TYPE_CHECKING:
    from shiftable.blob._bucket import Bucket

__all__ = [
    "Copied",
    "CopyFailed",
    "Facets",
    "SourceChanged",
    "SourceVanished",
    "copy_many",
    "copy_object",
    "digest_object",
    "of_the_source",
    "read_tags",
]


class SourceChanged(PreconditionFailed):
    """The object that is read is no longer in the version that was asked for."""


class SourceVanished(NotFound):
    """The object that is read is gone."""


@attrs.frozen(kw_only=True)
class Facets:
    """What an object carries beside its content; ``storage_class`` by the target's name, ``None`` for its default."""

    headers: Headers = attrs.Factory(Headers)
    metadata: Mapping[str, str] = attrs.Factory(dict)
    tags: Mapping[str, str] = attrs.Factory(dict)
    storage_class: str | None = None
    retention: Retention | None = None
    hold: bool = False

    @property
    def lock(self) -> Lock:
        """Retention and hold."""
        return Lock(retention=self.retention, hold=self.hold)


@attrs.frozen(kw_only=True)
class Copied:
    """An object that has arrived.

    Args:
        source: as it was read.
        target: as it was written.
        sha256: of the bytes that went through.
    """

    key: str
    source: ObjectInfo
    target: ObjectInfo
    sha256: bytes

    @property
    def token(self) -> Token:
        """The version that was written."""
        return self.target.token

    @property
    def size(self) -> int:
        """Bytes that went through."""
        return self.source.size


@attrs.frozen
class CopyFailed:
    """An object that has not arrived, and why."""

    key: str
    error: OperationError


def _as_it_is(info: ObjectInfo, tags: Mapping[str, str]) -> Facets:
    lock = info.lock if info.lock.is_active(datetime.now(UTC)) else Lock()
    return Facets(headers=info.headers, metadata=info.metadata, tags=tags, retention=lock.retention, hold=lock.hold)


def copy_object(
    source: Bucket,
    target: Bucket,
    key: str,
    *,
    to_key: str | None = None,
    token: Token | None = None,
    fit: Callable[[ObjectInfo, Mapping[str, str]], Facets] = _as_it_is,
    if_absent: bool = False,
    if_match: Token | None = None,
) -> Copied:
    """Stream one object through this process, with headers, metadata, tags and lock, at a memory of a few parts.

    The stream compares size and MD5 with what the source tells before the target commits, so that a bad read leaves
    nothing behind; what the target tells is compared afterwards, and an object that arrived damaged is deleted.

    Args:
        token: the version to read; ``None`` reads the newest and holds on to it.
        fit: called with the source's object and its tags; says what the target is to keep, or raises.
        if_absent: only if the target has no such key.
        if_match: only over the target's object in this version.

    Raises:
        SourceChanged: the source's object is not in the version ``token``, or changed while it was read.
        SourceVanished: it is gone.
        PreconditionFailed: the target's condition did not hold.
        IntegrityError: what arrived is not what was sent.
    """
    with of_the_source(source, None):
        stream = source.stream(key, if_match=token)
    with stream:
        reader = _Reader(source, stream.info, stream)
        with of_the_source(source, reader.info):
            tags = read_tags(source, reader.info)
        facets = fit(reader.info, tags)
        # A small one is read first: what fails then is the source, and the target has it in one piece.
        small = reader.info.size <= PART_SIZE
        try:
            written = (call if small else in_thread)(
                target.put,
                to_key or key,
                b"".join(reader) if small else iter(reader),
                headers=facets.headers,
                metadata=facets.metadata,
                tags=facets.tags or None,
                storage_class=facets.storage_class,
                retain=facets.retention,
                hold=facets.hold,
                if_absent=if_absent,
                if_match=if_match,
                size=reader.info.size,
            )
        except Exception:
            if reader.failure is not None:
                raise reader.failure from None
            raise
        _check_arrival(target, written, reader)
        return Copied(key=key, source=reader.info, target=written, sha256=reader.sha256.digest())


def read_tags(bucket: Bucket, info: ObjectInfo) -> Mapping[str, str]:
    """Return an object's tags, with a call only where it may have some."""
    return bucket.tags(info.key) if bucket.features.tags and info.tag_count != 0 else {}


def digest_object(bucket: Bucket, key: str) -> tuple[ObjectInfo, bytes]:
    """Read an object to its end; return what it is and the SHA-256 of its content."""
    digest = hashlib.sha256()
    with bucket.stream(key) as stream:
        for chunk in stream:
            digest.update(chunk)
        return stream.info, digest.digest()


def copy_many(
    source: Bucket,
    target: Bucket,
    keys: Iterable[str],
    *,
    concurrency: int = 16,
    if_absent: bool = False,
) -> Iterator[Copied | CopyFailed]:
    """Copy many objects, so many at once, and yield what became of each as it ends. Keys are taken as there is room."""
    here, there = source.lane(), target.lane()

    def one(key: str) -> Copied:
        return copy_object(here, there, key, if_absent=if_absent)

    cooperative = here.gives_way and there.gives_way
    for key, future in parallel(one, keys, workers=concurrency, fibers=cooperative):
        error = future.exception()
        if error is None:
            yield future.result()
        elif isinstance(error, OperationError):
            yield CopyFailed(key, error)
        else:
            raise error


class _Reader:
    """The source's side of a copy: counts, digests, and remembers whether it was the source that failed."""

    def __init__(self, source: Bucket, info: ObjectInfo, chunks: Iterable[bytes]) -> None:
        self._source = source
        self._chunks = chunks
        self.info = info
        self.size = 0
        self.sha256 = hashlib.sha256()
        # The stream digests once already what the source tells the MD5 of, and raises if it is another.
        self._md5 = None if info.md5 else hashlib.md5(usedforsecurity=False)
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            with of_the_source(self._source, self.info):
                for chunk in self._chunks:
                    self.size += len(chunk)
                    self.sha256.update(chunk)
                    if self._md5 is not None:
                        self._md5.update(chunk)
                    yield chunk
        except Exception as exc:
            self.failure = exc
            raise

    @property
    def md5(self) -> bytes | None:
        """The MD5 of what went through."""
        return self.info.md5 if self._md5 is None else self._md5.digest()


class of_the_source:  # noqa: N801  reads as what it is about: `with of_the_source(...)`
    """Tell the source's failed conditions from the target's."""

    __slots__ = ("_info", "_source")

    def __init__(self, source: Bucket, info: ObjectInfo | None) -> None:
        self._source = source
        self._info = info

    def __enter__(self) -> None:
        pass

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if exc is None or isinstance(exc, ParentNotFound):
            return
        if isinstance(exc, NotFound):
            raise _renamed(exc, SourceVanished) from exc
        if isinstance(exc, PreconditionFailed):
            raise _renamed(exc, SourceChanged) from exc
        if isinstance(exc, IntegrityError) and self._info is not None and _changed(self._source, self._info):
            raise _renamed(exc, SourceChanged) from exc


def _changed(source: Bucket, info: ObjectInfo) -> bool:
    try:
        return source.stat(info.key).token != info.token
    except NotFound:
        return True


def _renamed(exc: OperationError, cls: type[OperationError]) -> OperationError:
    return cls(exc.message, provider=exc.provider, operation=exc.operation, resource=exc.resource, code=exc.code)


def _check_arrival(target: Bucket, written: ObjectInfo, reader: _Reader) -> None:
    """Compare what the target tells with what was sent; a damaged object does not stay."""
    if written.size == reader.size and written.md5 in {None, reader.md5}:
        return
    if target.features.delete_if_match:
        with contextlib.suppress(PermissionDenied, Conflict):  # locked already
            target.delete(written.key, if_match=written.token)
    raise IntegrityError(
        f"{reader.size:,} bytes were sent and something else arrived",
        provider=target.provider,
        operation="blob.put",
        resource=target.resource,
    )
