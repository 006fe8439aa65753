"""Blob storage in memory: the reference model of the driver contract."""

from __future__ import annotations

import hashlib
import itertools
import threading
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import attrs

from shiftable.blob.driver import (
    BlobDriver,
    BlobFeatures,
    BucketSpec,
    CommonPrefix,
    CorsRule,
    Download,
    LifecycleRule,
    Lock,
    ObjectInfo,
    ObjectSummary,
    ObjectVersion,
    Part,
    PendingUpload,
    PutOptions,
    Range,
    Retention,
    StorageClass,
    Upload,
)
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    IntegrityError,
    InvalidArgument,
    NotFound,
    NotModified,
    PermissionDenied,
    PreconditionFailed,
)
from shiftable.features import Limit
from shiftable.memory._faults import MemoryFault, classify
from shiftable.paging import Page
from shiftable.tokens import Token

__all__ = ["FEATURES", "MemoryBlobDriver"]

_AS_S3 = "the same as Amazon S3"
_BATCH = 1_000

FEATURES = BlobFeatures(
    title="this process",
    if_absent=True,
    if_match=True,
    delete_if_match=True,
    headers=True,
    metadata=True,
    tags=True,
    versioning=True,
    copy=True,
    sign=False,
    uploads=True,
    lifecycle=True,
    lifecycle_older=True,
    lifecycle_uploads=True,
    cors=True,
    cors_any_header=True,
    cors_apart=True,
    if_none_match=True,
    restore=True,
    tag_count=True,
    object_lock=True,
    legal_hold=True,
    governance=True,
    lock_needs_versioning=True,
    lock_later=True,
    lock_told=True,
    storage_classes=(
        StorageClass("standard", "standard"),
        StorageClass("infrequent", "infrequent"),
        StorageClass("cold", "cold"),
        StorageClass("archive", "archive"),
    ),
    checksums=("crc32",),
    md5_in_listing=True,
    any_key=True,
    max_key=Limit(1024, _AS_S3),
    max_metadata=Limit(2048, _AS_S3),
    max_tags=Limit(10, _AS_S3),
    part_size=Limit(1, "parts may be of any size"),
    max_parts=Limit(10_000, _AS_S3),
    delete_batch=Limit(_BATCH, _AS_S3),
    max_retention=Limit(36_500, _AS_S3),
)

_UNVERSIONED = "null"
_CHUNK = 1024 * 1024


@attrs.frozen(kw_only=True)
class _Entry:
    """One version of an object, or the marker that it was deleted."""

    info: ObjectInfo
    data: bytes = b""
    tags: Mapping[str, str] = attrs.Factory(dict)
    deleted: bool = False

    @property
    def id(self) -> str:
        return self.info.version or _UNVERSIONED


@attrs.frozen(kw_only=True)
class _Upload:
    """The parts of an object that is not complete, by number."""

    bucket: str
    pending: PendingUpload
    parts: dict[int, bytes] = attrs.Factory(dict)


@attrs.define
class _Bucket:
    """The histories of all keys, newest last; ``living`` are the keys that have an object, in order."""

    versioning: bool = False
    lifecycle: tuple[LifecycleRule, ...] = ()
    cors: tuple[CorsRule, ...] = ()
    object_lock: bool = False
    history: dict[str, list[_Entry]] = attrs.Factory(dict)
    living: list[str] = attrs.Factory(list)

    def current(self, key: str) -> _Entry | None:
        entries = self.history.get(key)
        return entries[-1] if entries and not entries[-1].deleted else None

    def entry(self, key: str, version: str | None) -> _Entry | None:
        if version is None:
            return self.current(key)
        return next((entry for entry in self.history.get(key, ()) if entry.id == version and not entry.deleted), None)

    def append(self, key: str, entry: _Entry) -> None:
        self.rewrite(key, [*self._kept(key), entry])

    def delete(self, key: str, marker: _Entry) -> None:
        kept = self._kept(key)
        self.rewrite(key, [*kept, marker] if kept and not kept[-1].deleted else kept)

    def rewrite(self, key: str, entries: list[_Entry]) -> None:
        if entries:
            self.history[key] = entries
        else:
            self.history.pop(key, None)
        place = bisect_left(self.living, key)
        listed = self.living[place : place + 1] == [key]
        lives = bool(entries) and not entries[-1].deleted
        if lives and not listed:
            self.living.insert(place, key)
        elif listed and not lives:
            del self.living[place]

    def _kept(self, key: str) -> list[_Entry]:
        """Return what a write leaves: all versions, or without versioning those that have an id."""
        return [entry for entry in self.history.get(key, ()) if self.versioning or entry.info.version is not None]


def _utc_now() -> datetime:
    return datetime.now(UTC)


@attrs.define(eq=False)
class MemoryBlobDriver(BlobDriver):
    """Buckets in the memory of this process. No credentials, no permissions, nothing survives.

    Args:
        page_size: the most that one call of a listing answers.
    """

    page_size: int = 1_000
    clock: Callable[[], datetime] = _utc_now
    _buckets: dict[str, _Bucket] = attrs.field(factory=dict, init=False, repr=False)
    _uploads: dict[str, _Upload] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False)
    _serial: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False, repr=False)

    @property
    def provider(self) -> str:
        """``memory``."""
        return "memory"

    @property
    def features(self) -> BlobFeatures:
        """Everything but presigned URLs: memory has no address."""
        return FEATURES

    def classify(self, exc: Exception) -> Fault | None:
        """Claim this provider's own exception."""
        return classify(exc)

    # buckets

    def create(self, spec: BucketSpec) -> None:
        """Make an empty bucket."""
        with self._lock:
            if spec.name in self._buckets:
                raise MemoryFault(Fault(AlreadyExists, "there is a bucket of that name", "BucketExists"))
            self._buckets[spec.name] = _Bucket(spec.versioning, spec.lifecycle, spec.cors, spec.object_lock)

    def describe(self, name: str) -> BucketSpec:
        """Return the bucket's declaration."""
        with self._lock:
            found = self._bucket(name)
            return BucketSpec(
                name=name,
                versioning=found.versioning,
                lifecycle=found.lifecycle,
                cors=found.cors,
                object_lock=found.object_lock,
            )

    def update(self, current: BucketSpec, spec: BucketSpec) -> None:
        """Switch versioning, set lifecycle and CORS; what is stored stays until it expires. Locks are only added."""
        with self._lock:
            bucket = self._bucket(spec.name)
            if self.describe(spec.name) != current:
                raise MemoryFault(Fault(Conflict, "the bucket is no longer what the change starts from", "Changed"))
            bucket.versioning = spec.versioning
            bucket.lifecycle = spec.lifecycle
            bucket.cors = spec.cors
            bucket.object_lock = bucket.object_lock or spec.object_lock

    def destroy(self, name: str) -> None:
        """Delete an empty bucket; older versions count as content."""
        with self._lock:
            if self._bucket(name).history:
                raise MemoryFault(Fault(Conflict, "the bucket is not empty; delete its objects first", "NotEmpty"))
            del self._buckets[name]

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the buckets' names, sorted."""
        with self._lock:
            names = sorted(self._buckets)
        start = 0 if cursor is None else bisect_right(names, cursor)
        stop = start + self._most(limit)
        return Page(tuple(names[start:stop]), names[stop - 1] if stop < len(names) else None)

    # writing

    def put(self, bucket: str, key: str, data: bytes, options: PutOptions) -> ObjectInfo:
        """Write an object in one piece."""
        with self._lock:
            return self._write(bucket, key, bytes(data), options)

    def upload_begin(self, bucket: str, key: str, options: PutOptions) -> Upload:
        """Begin to write an object in parts."""
        with self._lock:
            self._bucket(bucket)
            upload = Upload(bucket=bucket, key=key, id=str(next(self._serial)), options=options)
            pending = PendingUpload(key=key, id=upload.id, started=self.clock())
            self._uploads[upload.id] = _Upload(bucket=bucket, pending=pending)
            return upload

    def upload_part(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:  # noqa: ARG002  parts are put together by number
        """Keep one part."""
        with self._lock:
            self._parts(upload)[number] = bytes(data)
        return Part(number=number, size=len(data), token=hashlib.md5(data, usedforsecurity=False).hexdigest())

    def upload_complete(self, upload: Upload, parts: tuple[Part, ...]) -> ObjectInfo:
        """Make the object of the parts; the upload stays when its conditions do not hold."""
        with self._lock:
            kept = self._parts(upload)
            try:
                data = b"".join(kept[part.number] for part in parts)
            except KeyError:
                raise MemoryFault(Fault(InvalidArgument, "a part is missing", "MissingPart")) from None
            info = self._write(upload.bucket, upload.key, data, upload.options)
            del self._uploads[upload.id]
            return info

    def upload_abort(self, upload: Upload) -> None:
        """Drop the parts."""
        with self._lock:
            self._uploads.pop(upload.id, None)

    # reading

    def get(
        self,
        bucket: str,
        key: str,
        *,
        range_: Range | None,
        if_match: Token | None,
        version: str | None,
        if_none_match: Token | None = None,
    ) -> Download:
        """Open an object for reading; what is read is this version, whatever is written meanwhile."""
        with self._lock:
            entry = self._entry(bucket, key, version)
        if if_match is not None and entry.info.token != if_match:
            raise _changed()
        if if_none_match is not None and entry.info.token == if_none_match:
            raise MemoryFault(Fault(NotModified, "the object is still in that version", "Unchanged"))
        wanted = range_ or Range(0)
        stop = len(entry.data) if wanted.stop is None else min(wanted.stop, len(entry.data))
        starts = range(wanted.start, stop, _CHUNK)
        return Download(info=entry.info, chunks=(entry.data[at : min(at + _CHUNK, stop)] for at in starts))

    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        """Return everything about an object but its content."""
        with self._lock:
            return self._entry(bucket, key, version).info

    def list(
        self,
        bucket: str,
        *,
        prefix: str,
        delimiter: str | None,
        start_after: str | None,
        cursor: str | None,
        limit: int | None,
    ) -> Page[ObjectSummary | CommonPrefix]:
        """Return one page. Strings in Python sort by code point, which is the order of their UTF-8 bytes."""
        items: list[ObjectSummary | CommonPrefix] = []
        with self._lock:
            found = self._bucket(bucket)
            place = _behind(found.living, cursor, prefix, start_after)
            while place < len(found.living) and found.living[place].startswith(prefix):
                if len(items) == self._most(limit):
                    return Page(tuple(items), _cursor(items[-1]))
                key = found.living[place]
                end = key.find(delimiter, len(prefix)) if delimiter else -1
                if delimiter and end >= 0:
                    items.append(CommonPrefix(key[: end + len(delimiter)]))
                    place = _behind(found.living, _cursor(items[-1]), prefix, None)
                else:
                    items.append(_summary(found.history[key][-1].info))
                    place += 1
        return Page(tuple(items))

    # deleting

    def delete(self, bucket: str, key: str, *, if_match: Token | None, version: str | None) -> None:
        """Delete an object, or for good one version of it."""
        with self._lock:
            found = self._bucket(bucket)
            entry = found.entry(key, version)
            if if_match is not None and (entry is None or entry.info.token != if_match):
                raise _changed()
            if version is not None:
                if entry is not None and entry.info.lock.is_active(self.clock()):
                    raise _locked(entry.info.lock)
                found.rewrite(key, [entry for entry in found.history.get(key, ()) if entry.id != version])
            elif entry is not None:
                self._require_replaceable(found, entry)
                found.delete(key, _Entry(info=self._info(found, key, b"", PutOptions()), deleted=True))

    def delete_many(self, bucket: str, keys: tuple[str, ...]) -> Mapping[str, Fault]:
        """Delete up to 1,000 objects."""
        if len(keys) > _BATCH:
            raise MemoryFault(Fault(InvalidArgument, "too many keys in one call", "BatchTooLong"))
        with self._lock:
            for key in keys:
                self.delete(bucket, key, if_match=None, version=None)
        return {}

    # optional

    def copy(
        self,
        bucket: str,
        key: str,
        to_bucket: str,
        to_key: str,
        options: PutOptions | None,
        *,
        version: str | None = None,
    ) -> ObjectInfo:
        """Write the same content elsewhere."""
        with self._lock:
            entry = self._entry(bucket, key, version)
            kept = PutOptions(headers=entry.info.headers, metadata=entry.info.metadata, tags=entry.tags)
            return self._write(to_bucket, to_key, entry.data, options or kept)

    def tags(self, bucket: str, key: str, *, version: str | None = None) -> Mapping[str, str]:
        """Return an object's tags."""
        with self._lock:
            return dict(self._entry(bucket, key, version).tags)

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        """Replace all tags; the object stays in its version."""
        with self._lock:
            entry = self._entry(bucket, key, None)
            entries = self._bucket(bucket).history[key]
            info = attrs.evolve(entry.info, tag_count=len(tags))
            entries[-1] = attrs.evolve(entry, info=info, tags=dict(tags))

    def set_retention(
        self, bucket: str, key: str, retention: Retention | None, *, version: str | None, bypass: bool
    ) -> None:
        """Lengthen, or with ``bypass`` change what is no compliance."""
        with self._lock:
            info = self._lockable(bucket, key, version)
            self._check_retention(retention)
            present = info.retention if info.lock.is_active(self.clock()) else None
            weaker = present is not None and not _is_later(present, retention)
            if present is not None and weaker and (not bypass or present.mode == "compliance"):
                raise _locked(Lock(retention=present))
            self._relock(bucket, key, attrs.evolve(info, retention=retention))

    def set_hold(self, bucket: str, key: str, *, hold: bool, version: str | None) -> None:
        """Set or release it."""
        with self._lock:
            self._relock(bucket, key, attrs.evolve(self._lockable(bucket, key, version), hold=hold))

    def versions(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[ObjectVersion]:
        """Return one page of the history; the cursor is the last key and its token."""
        with self._lock:
            history = self._bucket(bucket).history
            rows = [
                _row(entries, at) for entries in _histories(history, prefix) for at in reversed(range(len(entries)))
            ]
        start = 0 if cursor is None else bisect_right(rows, _place(cursor), key=lambda row: _place(_mark(row)))
        stop = start + self._most(limit)
        return Page(tuple(rows[start:stop]), _mark(rows[stop - 1]) if stop < len(rows) else None)

    def uploads(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[PendingUpload]:
        """Return one page: by key, then in the order in which they began."""
        with self._lock:
            self._bucket(bucket)
            begun = [upload.pending for upload in self._uploads.values() if upload.bucket == bucket]
        found = sorted((each for each in begun if each.key.startswith(prefix)), key=_turn)
        start = 0 if cursor is None else bisect_right(found, _turn_of(cursor), key=_turn)
        stop = start + self._most(limit)
        last = found[stop - 1] if stop < len(found) else None
        return Page(tuple(found[start:stop]), f"{last.id} {last.key}" if last is not None else None)

    # within the lock

    def _most(self, limit: int | None) -> int:
        return self.page_size if limit is None else min(limit, self.page_size)

    def _bucket(self, name: str) -> _Bucket:
        try:
            found = self._buckets[name]
        except KeyError:
            raise MemoryFault(Fault(NotFound, "there is no such bucket", "NoSuchBucket", missing="bucket")) from None
        for rule in found.lifecycle:
            self._expire(name, found, rule)
        return found

    def _expire(self, name: str, bucket: _Bucket, rule: LifecycleRule) -> None:
        """Delete what a rule says, before anybody looks."""
        now = self.clock()
        for key in [key for key in bucket.history if key.startswith(rule.prefix)]:
            current = bucket.current(key)
            if current is not None and _is_over(current.info.modified, rule.expire_days, now):
                bucket.delete(key, _Entry(info=self._info(bucket, key, b"", PutOptions()), deleted=True))
            entries = bucket.history.get(key, [])
            ceased = [following.info.modified for following in entries[1:]]
            pairs = zip(entries[:-1], ceased, strict=True)
            kept = [
                entry
                for entry, when in pairs
                if not _is_over(when, rule.expire_older_days, now) or entry.info.lock.is_active(now)
            ]
            bucket.rewrite(key, kept + entries[-1:])
        over = [
            upload.pending.id
            for upload in self._uploads.values()
            if upload.bucket == name
            and upload.pending.key.startswith(rule.prefix)
            and _is_over(upload.pending.started, rule.abort_uploads_days, now)
        ]
        for upload_id in over:
            del self._uploads[upload_id]

    def _entry(self, bucket: str, key: str, version: str | None) -> _Entry:
        entry = self._bucket(bucket).entry(key, version)
        if entry is None:
            what = "no such object" if version is None else "no such version of the object"
            raise MemoryFault(Fault(NotFound, f"there is {what}", "NoSuchKey", missing="object"))
        return entry

    def _lockable(self, bucket: str, key: str, version: str | None) -> ObjectInfo:
        info = self._entry(bucket, key, version).info
        self._require_lock(self._bucket(bucket))
        return info

    def _require_lock(self, bucket: _Bucket) -> None:
        if not bucket.object_lock:
            raise MemoryFault(Fault(InvalidArgument, "the bucket was made without object lock", "NoObjectLock"))

    def _require_replaceable(self, bucket: _Bucket, entry: _Entry | None) -> None:
        """Refuse to lose what is locked: without versions nothing is left of it."""
        if entry is not None and not bucket.versioning and entry.info.lock.is_active(self.clock()):
            raise _locked(entry.info.lock)

    def _check_retention(self, retention: Retention | None) -> None:
        if retention is not None and retention.until <= self.clock():
            raise MemoryFault(Fault(InvalidArgument, "the retention would end in the past", "EndsInThePast"))

    def _relock(self, bucket: str, key: str, info: ObjectInfo) -> None:
        entries = self._bucket(bucket).history[key]
        entries[:] = [attrs.evolve(each, info=info) if each.info.token == info.token else each for each in entries]

    def _parts(self, upload: Upload) -> dict[int, bytes]:
        try:
            return self._uploads[upload.id].parts
        except KeyError:
            raise MemoryFault(Fault(NotFound, "there is no such upload", "NoSuchUpload", missing="upload")) from None

    def _write(self, bucket: str, key: str, data: bytes, options: PutOptions) -> ObjectInfo:
        found = self._bucket(bucket)
        current = found.current(key)
        if options.if_absent and current is not None:
            raise MemoryFault(Fault(PreconditionFailed, "there is an object of that key", "Exists"))
        if options.if_match is not None and (current is None or current.info.token != options.if_match):
            raise _changed()
        if options.lock != Lock():
            self._require_lock(found)
            self._check_retention(options.retention)
        self._require_replaceable(found, current)
        info = self._info(found, key, data, options)
        if options.md5 not in {None, info.md5}:
            raise MemoryFault(Fault(IntegrityError, "the content does not have the MD5 that came with it", "BadDigest"))
        found.append(key, _Entry(info=info, data=data, tags=dict(options.tags)))
        return info

    def _info(self, bucket: _Bucket, key: str, data: bytes, options: PutOptions) -> ObjectInfo:
        serial = str(next(self._serial))
        return ObjectInfo(
            key=key,
            size=len(data),
            token=Token(serial),
            modified=self.clock(),
            md5=hashlib.md5(data, usedforsecurity=False).digest(),
            storage_class=options.storage_class or "standard",
            headers=options.headers,
            metadata=dict(options.metadata),
            version=serial if bucket.versioning else None,
            tag_count=len(options.tags),
            retention=options.retention,
            hold=options.hold,
            checksums={"crc32": zlib.crc32(data).to_bytes(4, "big")},
        )


def _changed() -> MemoryFault:
    return MemoryFault(Fault(PreconditionFailed, "the object is not in that version", "Changed"))


def _locked(lock: Lock) -> MemoryFault:
    return MemoryFault(Fault(PermissionDenied, f"the version is locked: {lock}", "Locked"))


def _is_later(present: Retention, retention: Retention | None) -> bool:
    """Tell whether it is the same retention with a later end, which anybody may set."""
    return retention is not None and retention.mode == present.mode and retention.until >= present.until


def _is_over(since: datetime, days: int | None, now: datetime) -> bool:
    return days is not None and now - since >= timedelta(days=days)


def _behind(keys: list[str], cursor: str | None, prefix: str, start_after: str | None) -> int:
    """Return the place of the first key of a page."""
    if cursor is None:
        first = bisect_left(keys, prefix)
        return first if start_after is None else max(first, bisect_right(keys, start_after))
    kind, last = cursor[0], cursor[1:]
    if kind == "k":
        return bisect_right(keys, last)
    return bisect_right(keys, last, key=lambda key: key[: len(last)])


def _cursor(item: ObjectSummary | CommonPrefix) -> str:
    return f"p{item.prefix}" if isinstance(item, CommonPrefix) else f"k{item.key}"


def _summary(info: ObjectInfo) -> ObjectSummary:
    return ObjectSummary(
        key=info.key,
        size=info.size,
        token=info.token,
        modified=info.modified,
        md5=info.md5,
        storage_class=info.storage_class,
        checksums=info.checksums,
    )


def _histories(history: Mapping[str, list[_Entry]], prefix: str) -> Iterator[list[_Entry]]:
    return (history[key] for key in sorted(history) if key.startswith(prefix))


def _row(entries: list[_Entry], at: int) -> ObjectVersion:
    entry = entries[at]
    return ObjectVersion(
        key=entry.info.key,
        version=entry.id,
        size=entry.info.size,
        token=entry.info.token,
        modified=entry.info.modified,
        latest=at == len(entries) - 1,
        deleted=entry.deleted,
    )


def _turn(upload: PendingUpload) -> tuple[str, int]:
    return upload.key, int(upload.id)


def _turn_of(cursor: str) -> tuple[str, int]:
    serial, _, key = cursor.partition(" ")
    return key, int(serial)


def _mark(row: ObjectVersion) -> str:
    return f"{row.token} {row.key}"


def _place(mark: str) -> tuple[str, int]:
    """Sort a history by key, then newest first: also around a version that is deleted meanwhile."""
    serial, _, key = mark.partition(" ")
    return key, -int(serial)
