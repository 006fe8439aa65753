"""The portable bucket."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, cast, get_args

import attrs

from shiftable.blob._files import ObjectReader, ObjectWriter
from shiftable.blob._stream import ObjectStream
from shiftable.blob._task import Task
from shiftable.blob._upload import PART_SIZE, Source, Uploader, chunks_of, size_of
from shiftable.blob.driver import (
    BlobDriver,
    BlobFeatures,
    CommonPrefix,
    Headers,
    Lock,
    ObjectInfo,
    ObjectSummary,
    ObjectVersion,
    PendingUpload,
    PutOptions,
    Retention,
    RetentionMode,
    SignedURL,
    SignOptions,
    Upload,
)
from shiftable.errors import (
    InvalidArgument,
    NotFound,
    OperationError,
    ParentNotFound,
    PreconditionFailed,
    Resource,
    Unsupported,
)
from shiftable.files import save_as
from shiftable.paging import Page, paged
from shiftable.service import Handle
from shiftable.tokens import Token

__all__ = ["Bucket", "Method"]

Method = Literal["GET", "PUT", "DELETE"]

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # all but the tab, which a header may hold
_DELETE_WORKERS = 16
_DELETE_BATCH = 1_000
_READ_BUFFER = 256 * 1024
_UNLOCKED = Lock()
_NO_HEADERS = Headers()


class Bucket(Handle[BlobDriver]):
    r"""A bucket of objects. Making one calls nobody; all methods may be called from many threads.

    >>> from shiftable.blob import BlobStore, BucketSpec
    >>> from shiftable.memory.blob import MemoryBlobDriver
    >>> bucket = BlobStore(MemoryBlobDriver()).create(BucketSpec(name="shop"))
    >>> info = bucket.put("hello.txt", b"Hello", content_type="text/plain", metadata={"author": "ada"})
    >>> bucket.get("hello.txt", start=1, stop=4)
    b'ell'
    >>> bucket.stat("hello.txt").headers.content_type
    'text/plain'

    A write replaces what is there, unless it is told what to expect:

    >>> newer = bucket.put("hello.txt", b"Hello again", if_match=info.token)
    >>> bucket.put("hello.txt", b"too late", if_match=info.token)
    Traceback (most recent call last):
    shiftable.errors.PreconditionFailed: blob.put on object 'hello.txt' in bucket 'shop' (memory): ...

    Listings are iterators over all pages, in the order of the keys' UTF-8 bytes:

    >>> for name in ("logs/2026/a", "logs/2026/b", "logs/readme"):
    ...     _ = bucket.put(name, b"")
    >>> [item.key for item in bucket.list("logs/", limit=2)]
    ['logs/2026/a', 'logs/2026/b']
    >>> [getattr(item, "key", None) or item.prefix for item in bucket.list_folder("logs/")]
    ['logs/2026/', 'logs/readme']

    Files are for what does not fit into memory:

    >>> with bucket.open("big", "wb") as file:
    ...     for _ in range(3):
    ...         _ = file.write(b"row\n")
    >>> with bucket.open("big") as file:
    ...     file.readlines()
    [b'row\n', b'row\n', b'row\n']

    Every method raises the errors of ``shiftable.errors``: ``NotFound`` for a missing object, ``ParentNotFound`` for a
    missing bucket, ``PermissionDenied`` for either if the provider will not tell. ``Unsupported`` and
    ``InvalidArgument`` are raised before anything is sent.
    """

    service: ClassVar[str] = "blob"
    resource_type: ClassVar[str] = "bucket"

    @property
    def features(self) -> BlobFeatures:
        """What the driver of this bucket can do."""
        return self._driver.features

    def lane(self) -> Bucket:
        """Return this bucket over the driver's bulk lane, where an object costs less; it may be this one. Calls nobody.

        ``sync`` and migrations use it by themselves. It is for many small operations, from as many threads as you like.
        """
        driver = self._driver.lane()
        return self if driver is self._driver else Bucket(driver, self.name)

    @property
    def gives_way(self) -> bool:
        """Whether its calls may be made in ``shiftable.fibers``, many at once in one thread."""
        return self._driver.gives_way

    def check_key(self, key: str) -> str | None:
        """Say why the provider could not hold an object of that key; ``None`` if it can. Sends nothing."""
        return self._driver.check_key(key)

    def refusal(self, key: str) -> InvalidArgument | None:
        """Return the error with which a write to that key would end; ``None`` if there is none. Sends nothing."""
        why = self.check_key(key)
        return None if why is None else self._invalid("put", self._object(key), why)

    def check_metadata(self, metadata: Mapping[str, str]) -> str | None:
        """Say why the provider could not keep that metadata exactly; ``None`` if it can. Sends nothing."""
        for name, value in metadata.items():
            if not name:
                return "a metadata name is empty"
            if _CONTROL.search(name) or _CONTROL.search(value):
                return f"the metadata {name!r} has a line break or another control character"
        return self._driver.check_metadata(metadata)

    def check_headers(self, headers: Headers) -> str | None:
        """Say why the provider could not keep those headers exactly; ``None`` if it can. Sends nothing."""
        for name, value in attrs.asdict(headers).items():
            if value is not None and _CONTROL.search(value):
                return f"the header {name} has a line break or another control character"
        return self._driver.check_headers(headers)

    def check_tags(self, tags: Mapping[str, str]) -> str | None:
        """Say why the provider could not keep those tags exactly; ``None`` if it can. Sends nothing."""
        return self._driver.check_tags(tags)

    # writing

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str | None = None,
        headers: Headers | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: Token | None = None,
        size: int | None = None,
        storage_class: str | None = None,
        retain: Retention | None = None,
        hold: bool = False,
    ) -> ObjectInfo:
        """Write an object, replacing what is there.

        More than 8 MiB go in parts, several at once, with memory for a few of them; readers see nothing before the end,
        and after a failure nothing is left.

        Args:
            data: bytes, a ``Path``, a binary file from where it stands, or anything that yields bytes.
            content_type: the same as in ``headers``. It is never guessed: without one the provider says
                ``application/octet-stream`` or nothing.
            if_absent: only if there is no object of that key.
            if_match: only over the object in this version.
            size: in bytes, of data that do not tell it themselves. It is a hint: the parts of a large object are then
                just as large as they must be.
            storage_class: ``standard``, ``infrequent``, ``cold`` or ``archive`` as far as the provider has them, or one
                of its classes by the provider's name: see ``features.storage_classes``. Else its default.
            retain: until when the written version can be neither deleted nor replaced. The bucket must have been made
                with ``object_lock``.
            hold: put a legal hold on it, which ends with ``release``.

        Raises:
            PreconditionFailed: ``if_absent`` or ``if_match`` does not hold.
        """
        task = self._task("put", key)
        told = size_of(data)
        size = size if told is None else told
        lock = Lock(retention=retain, hold=hold)
        options = self._options(
            task, size, content_type, headers, metadata, tags, if_absent, if_match, storage_class, lock
        )
        with _missing_is_mismatch(task, if_match):
            if isinstance(data, bytes) and len(data) <= PART_SIZE:
                with task.translated:
                    return self._driver.put(self.name, key, data, options)
            with Uploader(task, options, size=size) as uploader:
                for chunk in chunks_of(data):
                    uploader.write(chunk)
                return uploader.finish()

    def open(
        self,
        key: str,
        mode: Literal["rb", "wb"] = "rb",
        *,
        content_type: str | None = None,
        headers: Headers | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: Token | None = None,
        version: str | None = None,
        storage_class: str | None = None,
        retain: Retention | None = None,
        hold: bool = False,
    ) -> BinaryIO:
        """Open an object as a binary file.

        Reading: the file is seekable and stays with the version that was there when it was opened; only ``if_match``
        and ``version`` apply. Writing: the options are those of ``put``; the object appears when the file is closed,
        and an exception inside the ``with`` block drops it.

        Text is read through ``io.TextIOWrapper``, and written through ``codecs.getwriter("utf-8")`` inside the ``with``
        block: the wrapper would close the file whatever happens, so that half of an object appears.

        Raises:
            ValueError: another mode.
        """
        if mode not in {"rb", "wb"}:
            raise ValueError(
                f"objects are opened with 'rb' or 'wb', not {mode!r}; for text wrap what is read in io.TextIOWrapper, "
                f"and what is written in codecs.getwriter('utf-8')"
            )
        task = self._task("open", key)
        if mode == "rb":
            if content_type or headers or metadata or tags or if_absent or storage_class or retain or hold:
                raise task.error(InvalidArgument, "an object that is read takes only if_match and version")
            return self._reader(key, if_match, version)
        if version is not None:
            raise task.error(InvalidArgument, "an older version cannot be written")
        lock = Lock(retention=retain, hold=hold)
        options = self._options(
            task, None, content_type, headers, metadata, tags, if_absent, if_match, storage_class, lock
        )
        return cast("BinaryIO", ObjectWriter(Uploader(task, options)))

    def copy(
        self,
        key: str,
        to_key: str,
        *,
        to: Bucket | None = None,
        if_absent: bool = False,
        if_match: Token | None = None,
        version: str | None = None,
        storage_class: str | None = None,
        retain: Retention | None = None,
        hold: bool = False,
    ) -> ObjectInfo:
        """Copy an object with its headers, metadata and tags: inside the provider where it can, else through here.

        Args:
            to: another bucket, perhaps of another provider.
            if_absent: only if the target has no object of that key.
            if_match: only over the target's object in this version.
            version: an older one of the source; it may be copied over the object itself.
            storage_class: as for ``put``; of the target. Without it the target's default, whatever the source has.
            retain: as for ``put``; a copy is locked only as it is said here, whatever the source is.
            hold: likewise.

        Raises:
            ParentNotFound: one of the buckets does not exist; the error names it.
            Unsupported: the target cannot keep what the object has.
        """
        target = self if to is None else to
        lock = Lock(retention=retain, hold=hold)
        return self._copied("copy", key, target, to_key, version, if_absent, if_match, storage_class, lock)

    def restore(self, key: str, version: str) -> ObjectInfo:
        """Make an older version the latest again: a copy of it over the object, or in place of the deleted one.

        All versions stay, and there is one more.
        """
        return self._copied("restore", key, self, key, version, if_absent=False, if_match=None, storage_class=None)

    # reading

    def get(
        self,
        key: str | ObjectSummary,
        *,
        start: int = 0,
        stop: int | None = None,
        if_match: Token | None = None,
        version: str | None = None,
        if_none_match: Token | None = None,
    ) -> bytes:
        """Return an object's content, or bytes ``start`` (included) to ``stop`` (excluded) of it.

        A range that begins behind the end is empty; one that ends there is shorter. For large objects: ``stream``,
        ``open`` or ``download``.

        Args:
            key: or an item of a listing, or what ``stat`` told: then only that version, as with ``if_match``. Cloud
                Storage needs one request for it, and else two.
            if_match: only in this version; else ``PreconditionFailed``.
            if_none_match: only if it is no longer in this version, which the caller has; else ``NotModified``.
        """
        with self._stream("get", key, start, stop, if_match, version, if_none_match) as stream:
            return stream.read()

    def stream(
        self,
        key: str | ObjectSummary,
        *,
        start: int = 0,
        stop: int | None = None,
        if_match: Token | None = None,
        version: str | None = None,
        if_none_match: Token | None = None,
    ) -> ObjectStream:
        """Open an object for reading from its beginning to its end; use it in a ``with`` block. See ``get``."""
        return self._stream("stream", key, start, stop, if_match, version, if_none_match)

    def download(
        self,
        key: str | ObjectSummary,
        path: Path,
        *,
        if_match: Token | None = None,
        version: str | None = None,
        if_none_match: Token | None = None,
    ) -> ObjectInfo:
        """Write an object to a file, which appears whole or not at all, and replaces the one that is there.

        A device or a pipe that is there is written to.
        """
        with self._stream("download", key, 0, None, if_match, version, if_none_match) as stream:
            save_as(stream, path)
            return stream.info

    def stat(
        self,
        key: str,
        *,
        version: str | None = None,
        if_match: Token | None = None,
        if_none_match: Token | None = None,
    ) -> ObjectInfo:
        """Return everything about an object but its content.

        Args:
            if_match: only in this version; else ``PreconditionFailed``.
            if_none_match: only if it is no longer in this version; else ``NotModified``.
        """
        task = self._versioned("stat", key, version)
        _check_one_condition(task, if_match, if_none_match)
        with task.translated:
            info = self._driver.stat(self.name, key, version=version)
        task.check_token(info, if_match, if_none_match)
        return info

    def exists(self, key: str) -> bool:
        """Tell whether there is such an object.

        Raises:
            ParentNotFound: there is no such bucket.
        """
        task = self._task("exists", key)
        try:
            with task.translated:
                self._driver.stat(self.name, key, version=None)
        except ParentNotFound:
            raise
        except NotFound:
            return False
        return True

    def list(
        self, prefix: str = "", *, start_after: str | None = None, limit: int | None = None
    ) -> Iterator[ObjectSummary]:
        """Iterate over the objects whose keys begin with ``prefix``, in the order of their UTF-8 bytes.

        Args:
            start_after: begin behind this key; it need not exist.
            limit: at most so many, with no more calls than that needs.
        """
        return (item for item in self._listed(prefix, None, start_after, limit) if isinstance(item, ObjectSummary))

    def list_folder(
        self, prefix: str = "", *, delimiter: str = "/", limit: int | None = None
    ) -> Iterator[ObjectSummary | CommonPrefix]:
        """Iterate over one level: objects right below ``prefix``, and what lies deeper as one ``CommonPrefix`` each."""
        if not delimiter:
            raise self._invalid("list", self._keys(prefix), "the delimiter is empty")
        return self._listed(prefix, delimiter, None, limit)

    def versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        """Iterate over the history of all objects of that prefix: by key, then newest first."""
        resource = self._keys(prefix)
        self._require(self.features.versioning, "versions", resource, "versions of objects")

        def fetch(cursor: str | None, left: int | None) -> Page[ObjectVersion]:
            with self._translated("versions", resource):
                return self._driver.versions(self.name, prefix=prefix, cursor=cursor, limit=left)

        return paged(fetch)

    def uploads(self, prefix: str = "", *, older_than: timedelta = timedelta()) -> Iterator[PendingUpload]:
        """Iterate over the writes in parts that are under way, or were left by a writer that was killed, by key.

        Args:
            older_than: only those that began at least so long ago; nothing tells which writers still live.
        """
        resource = self._keys(prefix)
        self._require(self.features.uploads, "uploads", resource, "a list of uploads")
        if older_than < timedelta():
            raise self._invalid("uploads", resource, f"older_than must not be negative: {older_than}")
        if not _is_unicode(prefix):
            raise self._invalid("uploads", resource, "the prefix is not Unicode text")

        def fetch(cursor: str | None, left: int | None) -> Page[PendingUpload]:
            with self._translated("uploads", resource):
                return self._driver.uploads(self.name, prefix=prefix, cursor=cursor, limit=left)

        now = datetime.now(UTC)
        # The provider's clock may be ahead of ours: without an age, all are meant.
        return (upload for upload in paged(fetch) if not older_than or now - upload.started >= older_than)

    # deleting

    def delete(self, key: str, *, if_match: Token | None = None, version: str | None = None) -> None:
        """Delete an object; a missing one is no error.

        Args:
            if_match: only in this version; then a missing object is ``PreconditionFailed``.
            version: delete one version, for good. Without it a bucket with versioning keeps the object as an older one.
        """
        task = self._versioned("delete", key, version)
        if if_match is not None:
            self._require(self.features.delete_if_match, "delete", task.resource, "compare-and-swap deletes")
        with _missing_is_mismatch(task, if_match), task.translated:
            self._driver.delete(self.name, key, if_match=if_match, version=version)

    def delete_many(self, keys: Iterable[str]) -> dict[str, OperationError]:
        """Delete objects, in batches where the provider has them, and return those that failed, each with its error.

        Raises:
            ParentNotFound: there is no such bucket.
        """
        if isinstance(keys, str):
            raise TypeError("delete_many takes keys, not one key")
        failed: dict[str, OperationError] = {}
        batch = self.features.delete_batch
        remove = self._delete_one_by_one if batch is None else self._delete_batch
        remaining = iter(dict.fromkeys(keys))
        while chunk := tuple(itertools.islice(remaining, batch.value if batch else _DELETE_BATCH)):
            refused = {key: why for key in chunk if (why := self.check_key(key)) is not None}
            failed |= {key: self._invalid("delete", self._object(key), why) for key, why in refused.items()}
            valid = tuple(key for key in chunk if key not in refused)
            if valid:
                failed |= remove(valid)
        return failed

    def abort_uploads(self, prefix: str = "", *, older_than: timedelta = timedelta(days=1)) -> int:
        """Drop what killed writers left of objects in parts, which takes space and money unseen; return how many.

        Args:
            older_than: only what began so long ago. A writer that is still at it would fail at its end.
        """
        count = 0
        for pending in self.uploads(prefix, older_than=older_than):
            upload = Upload(bucket=self.name, key=pending.key, id=pending.id, options=PutOptions())
            with self._translated("abort_uploads", self._object(pending.key)):
                self._driver.upload_abort(upload)
            count += 1
        return count

    # locks

    def lock_of(self, key: str, *, version: str | None = None) -> Lock:
        """Return what protects an object, or one version of it, against deletion.

        ``stat`` tells the same in its one call where ``features.lock_told`` says so; elsewhere it leaves out what the
        credentials may not read, and this asks for it.

        Raises:
            PermissionDenied: the credentials may not read it.
        """
        task = self._versioned("lock_of", key, version)
        self._require(self.features.object_lock or self.features.legal_hold, "lock_of", task.resource, "object lock")
        with task.translated:
            return self._driver.lock_of(self.name, key, version=version)

    def retain(
        self,
        key: str,
        until: datetime | None,
        *,
        mode: RetentionMode = "governance",
        version: str | None = None,
        bypass: bool = False,
    ) -> None:
        """Lock a version of an object against deletion until a time. It can be locked longer, and that is all.

        Args:
            until: aware; ``None`` takes the retention away, with ``bypass``.
            mode: ``governance`` may be shortened by whoever has the permission, ``compliance`` by nobody.
            version: an older one; without it that which is there now.
            bypass: shorten, change or take away a retention in mode governance.

        Raises:
            PermissionDenied: it would end earlier, or in another mode; of some providers ``Conflict``.
        """
        task = self._versioned("retain", key, version)
        self._require(self.features.object_lock, "retain", task.resource, "object lock")
        if until is None and not bypass:
            raise task.error(InvalidArgument, "a retention is taken away only with bypass")
        retention = self._retention(task, until, mode)
        with task.translated:
            self._driver.set_retention(self.name, key, retention, version=version, bypass=bypass)

    def hold(self, key: str, *, version: str | None = None) -> None:
        """Put a version of an object under a legal hold: nobody deletes it before ``release``. Again is no error."""
        self._set_hold("hold", key, version)

    def release(self, key: str, *, version: str | None = None) -> None:
        """End a legal hold; a retention stays. Without a hold nothing happens."""
        self._set_hold("release", key, version)

    # tags, URLs

    def tags(self, key: str, *, version: str | None = None) -> dict[str, str]:
        """Return an object's tags.

        Args:
            version: an older one of the object.
        """
        task = self._tagged("tags", key)
        if version is not None:
            self._require(self.features.restore, "tags", task.resource, "tags of older versions")
        with task.translated:
            return dict(self._read_tags(key, version))

    def set_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """Replace all tags of an object."""
        task = self._tagged("set_tags", key)
        self._check_tags(task, tags)
        with task.translated:
            self._driver.set_tags(self.name, key, tags)

    def sign(
        self,
        key: str,
        *,
        method: Method = "GET",
        expires: timedelta = timedelta(hours=1),
        content_type: str | None = None,
        answer: Headers | None = None,
        md5: bytes | None = None,
        size: int | None = None,
    ) -> SignedURL:
        """Return a URL that lets whoever has it do one thing for a while.

        It is a string; its ``headers`` are those that the request must carry.

        Args:
            content_type: for PUT: the header that the request must then carry.
            answer: for GET: the content type and the content disposition that the answer has, whatever the object's
                own are: with ``attachment; filename="a.txt"`` browsers save it under that name.
            md5: for PUT: of the only content that may be written.
            size: for PUT: of the content, in bytes.

        Raises:
            Unsupported: the provider's URLs do not bind that; see the features ``sign_answer`` and following.
        """
        task = self._task("sign", key)
        self._require(self.features.sign, "sign", task.resource, "presigned URLs")
        if method not in get_args(Method):
            raise task.error(InvalidArgument, f"a URL is for GET, PUT or DELETE, not {method!r}")
        if expires <= timedelta():
            raise task.error(InvalidArgument, f"a URL must be valid for some time, not {expires}")
        limit = self.features.max_sign
        if limit is not None and expires > timedelta(days=limit.value):
            wanted = expires / timedelta(days=1)
            why = f"a URL is to be valid for {wanted:g} days; the limit is {limit} days ({limit.source})"
            raise task.error(InvalidArgument, why)
        if content_type is not None and (method != "PUT" or _CONTROL.search(content_type)):
            raise task.error(InvalidArgument, "content_type is one line, and only for PUT")
        options = self._sign_options(task, method, answer or _NO_HEADERS, md5, size)
        bound = {} if options == SignOptions() else {"options": options}
        with task.translated:
            url = self._driver.sign(self.name, key, method=method, expires=expires, content_type=content_type, **bound)
        if isinstance(url, SignedURL):
            return url
        return SignedURL(url, {} if content_type is None else {"Content-Type": content_type})

    # checks, before anything is sent

    def _object(self, key: str) -> Resource:
        return Resource("object", key, self.resource)

    def _keys(self, prefix: str) -> Resource:
        """Name what a listing is about. It is not the bucket itself, whose absence is then ``ParentNotFound``."""
        return Resource("keys", f"{prefix}*", self.resource)

    def _task(self, operation: str, key: str) -> Task:
        task = Task(self._driver, self.name, key, f"blob.{operation}")
        why = self._driver.check_key(key)
        if why is not None:
            raise task.error(InvalidArgument, why)
        return task

    def _versioned(self, operation: str, key: str, version: str | None) -> Task:
        task = self._task(operation, key)
        if version is not None:
            self._require(self.features.versioning, operation, task.resource, "versions of objects")
        return task

    def _tagged(self, operation: str, key: str) -> Task:
        task = self._task(operation, key)
        self._require(self.features.tags, operation, task.resource, "tags")
        return task

    def _sign_options(
        self, task: Task, method: Method, answer: Headers, md5: bytes | None, size: int | None
    ) -> SignOptions:
        for wanted, supported, what in (
            (answer != _NO_HEADERS, self.features.sign_answer, "presigned URLs that say the headers of the answer"),
            (md5 is not None, self.features.sign_md5, "presigned URLs for content of one MD5"),
            (size is not None, self.features.sign_size, "presigned URLs for content of one size"),
        ):
            self._require(supported or not wanted, "sign", task.resource, what)
        if answer != _NO_HEADERS and method != "GET":
            raise task.error(InvalidArgument, "answer is only for GET")
        if answer != Headers(content_type=answer.content_type, content_disposition=answer.content_disposition):
            raise task.error(InvalidArgument, "of an answer only content_type and content_disposition can be said")
        if (md5 is not None or size is not None) and method != "PUT":
            raise task.error(InvalidArgument, "md5 and size are only for PUT")
        if md5 is not None and len(md5) != 16:
            raise task.error(InvalidArgument, f"an MD5 has 16 bytes, not {len(md5)}")
        if size is not None and size < 0:
            raise task.error(InvalidArgument, f"the size must not be negative: {size}")
        return SignOptions(answer=_merged(task, answer, None), md5=md5, size=size)

    def _retention(self, task: Task, until: datetime | None, mode: RetentionMode) -> Retention | None:
        if until is None:
            return None
        try:
            retention = Retention(until=until, mode=mode)
        except ValueError as exc:
            raise task.error(InvalidArgument, str(exc.args[0])) from exc
        self._checked_lock(task, Lock(retention=retention))
        return retention

    def _set_hold(self, operation: Literal["hold", "release"], key: str, version: str | None) -> None:
        task = self._versioned(operation, key, version)
        self._require(self.features.legal_hold, operation, task.resource, "legal holds")
        with task.translated:
            self._driver.set_hold(self.name, key, hold=operation == "hold", version=version)

    def _check_tags(self, task: Task, tags: Mapping[str, str]) -> None:
        why = self.check_tags(tags)
        if why is not None:
            raise task.error(InvalidArgument, why)

    def _check_conditions(self, task: Task, *, if_absent: bool, if_match: Token | None) -> None:
        operation = task.operation.removeprefix("blob.")
        if if_absent and if_match is not None:
            raise task.error(InvalidArgument, "if_absent and if_match exclude each other")
        if if_absent:
            self._require(self.features.if_absent, operation, task.resource, "create-only writes (if_absent)")
        if if_match is not None:
            self._require(self.features.if_match, operation, task.resource, "compare-and-swap writes (if_match)")

    def _options(
        self,
        task: Task,
        size: int | None,
        content_type: str | None,
        headers: Headers | None,
        metadata: Mapping[str, str] | None,
        tags: Mapping[str, str] | None,
        if_absent: bool,  # noqa: FBT001  handed on
        if_match: Token | None,
        storage_class: str | None = None,
        lock: Lock = _UNLOCKED,
    ) -> PutOptions:
        operation = task.operation.removeprefix("blob.")
        merged = _merged(task, headers or _NO_HEADERS, content_type)
        self._check_conditions(task, if_absent=if_absent, if_match=if_match)
        if merged != _NO_HEADERS:
            self._require(self.features.headers, operation, task.resource, "headers of objects")
            why = self.check_headers(merged)
            if why is not None:
                raise task.error(InvalidArgument, why)
        if metadata:
            self._require(self.features.metadata, operation, task.resource, "metadata of objects")
            why = self.check_metadata(metadata)
            if why is not None:
                raise task.error(InvalidArgument, why)
        if tags:
            self._require(self.features.tags, operation, task.resource, "tags")
            self._check_tags(task, tags)
        limit = self.features.max_object
        if size is not None and limit is not None and size > limit.value:
            why = f"the object has {size:,} bytes; the limit is {limit} ({limit.source})"
            raise task.error(InvalidArgument, why)
        return PutOptions(
            headers=merged,
            metadata=dict(metadata or {}),
            tags=dict(tags or {}),
            if_absent=if_absent,
            if_match=if_match,
            storage_class=self._class_name(task, storage_class),
            **self._checked_lock(task, lock),
        )

    def _checked_lock(self, task: Task, lock: Lock) -> dict[str, Any]:
        """Refuse a lock that the provider cannot keep; return it as options of a write."""
        if lock == _UNLOCKED:
            return {}
        operation, features, retention = task.operation.removeprefix("blob."), self.features, lock.retention
        self._require(features.legal_hold or not lock.hold, operation, task.resource, "legal holds")
        if retention is not None:
            self._require(features.object_lock, operation, task.resource, "object lock")
            soft = retention.mode == "governance"
            self._require(features.governance or not soft, operation, task.resource, "retention in mode governance")
            limit = features.max_retention
            if limit is not None and retention.until - datetime.now(UTC) > timedelta(days=limit.value):
                why = f"the object is to be kept until {retention.until}; the limit is {limit} days ({limit.source})"
                raise task.error(InvalidArgument, why)
        return {"retention": retention, "hold": lock.hold}

    def _class_name(self, task: Task, name: str | None) -> str | None:
        """Return the provider's own name of a storage class."""
        if name is None:
            return None
        classes = self.features.storage_classes
        self._require(classes, task.operation.removeprefix("blob."), task.resource, "storage classes")
        found = self.features.storage_class(name)
        if found is None:
            choices = dict.fromkeys([*(each.tier for each in classes), *(each.name for each in classes)])
            raise task.error(InvalidArgument, f"there is no storage class {name!r}; choose one of {', '.join(choices)}")
        return found.name

    # work

    def _stream(
        self,
        operation: str,
        item: str | ObjectSummary,
        start: int,
        stop: int | None,
        if_match: Token | None,
        version: str | None,
        if_none_match: Token | None = None,
    ) -> ObjectStream:
        known = None if isinstance(item, str) else item
        task = self._versioned(operation, item if isinstance(item, str) else item.key, version)
        _check_one_condition(task, if_match, if_none_match)
        if known is not None and (if_match or if_none_match) is not None:
            raise task.error(InvalidArgument, "an item says its version itself: leave if_match and if_none_match out")
        if start < 0 or (stop is not None and stop < start):
            raise task.error(InvalidArgument, f"there is no range from {start} to {stop}; positions count from 0")
        return ObjectStream(
            task, start=start, stop=stop, if_match=if_match, version=version, if_none_match=if_none_match, known=known
        )

    def _reader(self, key: str, if_match: Token | None, version: str | None) -> BinaryIO:
        def open_at(start: int, opened: ObjectSummary | None) -> ObjectStream:
            return self._stream("open", opened or key, start, None, None if opened else if_match, version)

        return io.BufferedReader(ObjectReader(open_at), _READ_BUFFER)

    def _listed(
        self, prefix: str, delimiter: str | None, start_after: str | None, limit: int | None
    ) -> Iterator[ObjectSummary | CommonPrefix]:
        resource = self._keys(prefix)
        for text in (prefix, start_after or "", delimiter or ""):
            if not _is_unicode(text):
                raise self._invalid("list", resource, "the prefix, start_after or the delimiter is not Unicode text")
        if limit is not None and limit < 0:
            raise self._invalid("list", resource, f"the limit must not be negative: {limit}")

        def fetch(cursor: str | None, left: int | None) -> Page[ObjectSummary | CommonPrefix]:
            driver = self._driver if cursor is None else self._driver.lane()  # a second page is the beginning of many
            with self._translated("list", resource):
                return driver.list(
                    self.name, prefix=prefix, delimiter=delimiter, start_after=start_after, cursor=cursor, limit=left
                )

        return paged(fetch, limit=limit)

    def _delete_batch(self, keys: tuple[str, ...]) -> dict[str, OperationError]:
        with self._translated("delete_many", self._keys("")):
            faults = self._driver.delete_many(self.name, keys)
        return {key: self._translated("delete", self._object(key)).error(fault) for key, fault in faults.items()}

    def _delete_one_by_one(self, keys: tuple[str, ...]) -> dict[str, OperationError]:
        def attempt(key: str) -> OperationError | None:
            try:
                self.delete(key)
            except ParentNotFound:
                raise
            except OperationError as exc:
                return exc
            return None

        with ThreadPoolExecutor(min(_DELETE_WORKERS, len(keys)), thread_name_prefix="shiftable-delete") as pool:
            results = zip(keys, pool.map(attempt, keys), strict=True)
            return {key: failure for key, failure in results if failure is not None}

    def _copied(
        self,
        operation: str,
        key: str,
        target: Bucket,
        to_key: str,
        version: str | None,
        if_absent: bool,  # noqa: FBT001  handed on
        if_match: Token | None,
        storage_class: str | None,
        lock: Lock = _UNLOCKED,
    ) -> ObjectInfo:
        task, sink = self._versioned(operation, key, version), target._task(operation, to_key)
        target._check_conditions(sink, if_absent=if_absent, if_match=if_match)
        wanted = PutOptions(
            if_absent=if_absent,
            if_match=if_match,
            storage_class=target._class_name(sink, storage_class),
            **target._checked_lock(sink, lock),
        )
        here = target._driver is self._driver
        if here and (target.name, to_key) == (self.name, key) and version is None:
            raise task.error(InvalidArgument, "an object cannot be copied onto itself")
        if not here or not self.features.copy or (version is not None and not self.features.restore):
            return self._streamed(task, target, sink, wanted, version)
        options = self._carried(task, wanted, version) if wanted != PutOptions() else None
        source = {"version": version} if version is not None else {}
        try:
            with _missing_is_mismatch(sink, if_match), task.translated:
                return self._driver.copy(self.name, key, target.name, to_key, options, **source)
        except Unsupported:  # an object too large for one call, or a bucket elsewhere
            return self._streamed(task, target, sink, wanted, version)
        except ParentNotFound as exc:
            self.stat(key, version=version)  # says so if it is the source's bucket
            raise sink.error(ParentNotFound, f"{target.resource} does not exist") from exc

    def _carried(self, task: Task, wanted: PutOptions, version: str | None) -> PutOptions:
        """Say in full what a copy keeps, as conditions and a storage class cannot be said alone."""
        with task.translated:
            info = self._driver.stat(self.name, task.key, version=version)
        return attrs.evolve(
            wanted, headers=info.headers, metadata=info.metadata, tags=self._tags_of(task, info, version)
        )

    def _tags_of(self, task: Task, info: ObjectInfo, version: str | None) -> Mapping[str, str]:
        """Return the tags of what is copied, without a call where it is known to have none."""
        if not self.features.tags or info.tag_count == 0:
            return {}
        if version is not None:
            operation = task.operation.removeprefix("blob.")
            self._require(self.features.restore, operation, task.resource, "way to read the tags of older versions")
        with task.translated:
            return self._read_tags(task.key, version)

    def _read_tags(self, key: str, version: str | None) -> Mapping[str, str]:
        if version is None:
            return self._driver.tags(self.name, key)
        return self._driver.tags(self.name, key, version=version)

    def _streamed(self, task: Task, target: Bucket, sink: Task, wanted: PutOptions, version: str | None) -> ObjectInfo:
        if_match = wanted.if_match
        with ObjectStream(task, start=0, stop=None, if_match=None, version=version) as stream:
            info = stream.info
            tags = self._tags_of(task, info, version)
            options = target._options(
                sink,
                info.size,
                None,
                info.headers,
                info.metadata,
                tags,
                wanted.if_absent,
                if_match,
                wanted.storage_class,
                wanted.lock,
            )
            with _missing_is_mismatch(sink, if_match), Uploader(sink, options, size=info.size) as uploader:
                for chunk in stream:
                    uploader.write(chunk)
                return uploader.finish()


@contextmanager
def _missing_is_mismatch(task: Task, if_match: Token | None) -> Iterator[None]:
    """Answer alike where providers differ: a missing object is not in the version that ``if_match`` names (S3: 404)."""
    try:
        yield
    except NotFound as exc:
        if if_match is None or type(exc) is not NotFound:
            raise
        raise task.error(PreconditionFailed, "the object is not in that version: it does not exist") from exc


def _check_one_condition(task: Task, if_match: Token | None, if_none_match: Token | None) -> None:
    if if_match is not None and if_none_match is not None:
        raise task.error(InvalidArgument, "if_match and if_none_match exclude each other")


def _merged(task: Task, headers: Headers, content_type: str | None) -> Headers:
    if content_type is not None:
        if headers.content_type not in {None, content_type}:
            raise task.error(InvalidArgument, "content_type and headers.content_type differ")
        headers = attrs.evolve(headers, content_type=content_type)
    if headers == _NO_HEADERS:
        return headers
    for name, value in attrs.asdict(headers).items():
        if value is not None and _CONTROL.search(value):
            raise task.error(InvalidArgument, f"the header {name} has a line break or another control character")
    return headers


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
