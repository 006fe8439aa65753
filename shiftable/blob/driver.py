"""What a provider of blob storage implements: ``BlobDriver``, its values and its features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import ClassVar, Literal

import attrs

from shiftable.errors import Fault, Unsupported
from shiftable.features import Features, Limit, feature
from shiftable.paging import Page
from shiftable.service import Driver, Spec
from shiftable.tokens import Token

__all__ = [
    "BlobDriver",
    "BlobFeatures",
    "BucketSpec",
    "CommonPrefix",
    "Download",
    "Headers",
    "ObjectInfo",
    "ObjectSummary",
    "ObjectVersion",
    "Part",
    "PendingUpload",
    "PutOptions",
    "Range",
    "Upload",
]


@attrs.frozen(kw_only=True)
class BucketSpec(Spec):
    """``[blob.x]``: a bucket.

    Args:
        name: ``bucket`` in the file.
        versioning: whether overwritten and deleted objects are kept as older versions.
    """

    name_key: ClassVar[str] = "bucket"

    versioning: bool = False


@attrs.frozen(kw_only=True)
class Headers:
    """The five HTTP headers that every provider stores with an object."""

    content_type: str | None = None
    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None


@attrs.frozen(kw_only=True)
class ObjectSummary:
    """What a listing tells of an object.

    Args:
        key: byte for byte as it was written.
        size: in bytes.
        token: the object's version for ``if_match``.
        modified: aware, UTC.
        md5: of the whole content, where the provider tells it; ``None`` means unknown.
        storage_class: the provider's own name for it.
    """

    key: str
    size: int
    token: Token
    modified: datetime
    md5: bytes | None = None
    storage_class: str | None = None


@attrs.frozen(kw_only=True)
class ObjectInfo(ObjectSummary):
    """Everything about an object but its content.

    Args:
        metadata: the user's own, names as the provider keeps them.
        version: its id in a bucket with versioning, else ``None``.
    """

    headers: Headers = Headers()
    metadata: Mapping[str, str] = attrs.Factory(dict)
    version: str | None = None


@attrs.frozen(kw_only=True)
class ObjectVersion:
    """One entry of an object's history, newest first.

    Args:
        deleted: a delete marker: the object was deleted here and has no content.
    """

    key: str
    version: str
    size: int
    token: Token
    modified: datetime
    latest: bool
    deleted: bool = False


@attrs.frozen
class CommonPrefix:
    """All keys that begin alike up to the delimiter, rolled up into one item: a folder."""

    prefix: str


@attrs.frozen
class Range:
    """Bytes ``start`` (included) to ``stop`` (excluded, ``None``: to the end)."""

    start: int
    stop: int | None = None


@attrs.frozen(kw_only=True)
class PutOptions:
    """How an object is written.

    Args:
        if_absent: only if there is no object of that key.
        if_match: only over the object in this version.
        md5: of the whole content, where the caller knows it; the driver has the provider check it where it can.
    """

    headers: Headers = Headers()
    metadata: Mapping[str, str] = attrs.Factory(dict)
    tags: Mapping[str, str] = attrs.Factory(dict)
    if_absent: bool = False
    if_match: Token | None = None
    md5: bytes | None = None


@attrs.frozen(kw_only=True)
class Download:
    """An object on its way: ``chunks`` are bytes of any length but zero; close it when it is not read to the end."""

    info: ObjectInfo
    chunks: Iterator[bytes]

    def close(self) -> None:
        """Give the connection back."""
        close = getattr(self.chunks, "close", None)
        if close is not None:
            close()


@attrs.frozen(kw_only=True)
class Upload:
    """A multipart upload that has begun: picklable, so that another process can go on with it.

    A store may drop an upload that nobody goes on with: files do after an hour in which no process holds it, S3 as the
    bucket's lifecycle says.
    """

    bucket: str
    key: str
    id: str
    options: PutOptions


@attrs.frozen(kw_only=True)
class PendingUpload:
    """A multipart upload that has begun and is neither complete nor aborted. Its parts take space, unseen.

    Args:
        started: aware, UTC.
    """

    key: str
    id: str
    started: datetime


@attrs.frozen(kw_only=True)
class Part:
    """A part that has arrived. ``number`` counts from 1; ``token`` is what the provider wants back at the end."""

    number: int
    size: int
    token: str


@attrs.frozen(kw_only=True)
class BlobFeatures(Features):
    """What a blob driver can do."""

    if_absent: bool = feature("create-only writes")
    if_match: bool = feature("compare-and-swap writes")
    delete_if_match: bool = feature("compare-and-swap deletes")
    headers: bool = feature("content type and the four other headers are kept")
    metadata: bool = feature("user metadata")
    tags: bool = feature("tags")
    versioning: bool = feature("versions of objects")
    copy: bool = feature("copies inside the provider, without a download")
    sign: bool = feature("presigned URLs")
    uploads: bool = feature("uploads that were begun and not completed are listed", default=False)
    md5_in_listing: bool = feature("a listing tells the MD5 of objects written in one piece")
    any_key: bool = feature("every key up to the limit, not only those that are file paths")
    max_key: Limit = feature("longest key, bytes of UTF-8")
    max_object: Limit | None = feature("largest object, bytes", default=None)
    max_metadata: Limit | None = feature("all metadata of one object, bytes of names and values", default=None)
    max_tags: Limit | None = feature("tags of one object", default=None)
    part_size: Limit = feature("smallest part of a multipart upload but the last, bytes")
    max_part: Limit | None = feature("largest part of a multipart upload, bytes", default=None)
    max_parts: Limit | None = feature("parts of one upload", default=None)
    delete_batch: Limit | None = feature("objects deleted in one call", default=None)


class BlobDriver(Driver[BucketSpec]):
    """Blob storage of one provider. The admin verbs of ``Driver`` act on buckets.

    Keys are strings; the provider gets their UTF-8 bytes unchanged. Nothing here retries, pages or validates: the
    portable ``Bucket`` does.
    """

    @property
    @abstractmethod
    def features(self) -> BlobFeatures:
        """What this driver can do."""

    def missing_features(self, spec: BucketSpec) -> tuple[str, ...]:
        """Say what a declaration needs and this driver does not have. Sends nothing."""
        return ("versioning",) if spec.versioning and not self.features.versioning else ()

    def check_key(self, key: str) -> str | None:
        """Say why the provider could not hold an object of that key; ``None`` if it can. Sends nothing."""
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            return "the key is not Unicode text"
        if not size:
            return "the key is empty"
        limit = self.features.max_key
        return f"the key has {size:,} bytes; the limit is {limit} ({limit.source})" if size > limit.value else None

    def check_metadata(self, metadata: Mapping[str, str]) -> str | None:
        """Say why the provider could not keep that metadata exactly; ``None`` if it can. Sends nothing."""
        limit = self.features.max_metadata
        size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
        if limit is not None and size > limit.value:
            return f"the metadata has {size:,} bytes; the limit is {limit} ({limit.source})"
        return None

    # writing

    @abstractmethod
    def put(self, bucket: str, key: str, data: bytes, options: PutOptions) -> ObjectInfo:
        """Write an object in one piece, replacing what is there. Atomic: readers see the old or the new one, whole."""

    @abstractmethod
    def upload_begin(self, bucket: str, key: str, options: PutOptions) -> Upload:
        """Begin to write an object in parts. Nothing is visible until ``upload_complete``."""

    @abstractmethod
    def upload_part(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:
        """Send one part; parts come in any order, from any thread, and a number sent again replaces the first.

        Args:
            number: from 1.
            offset: of the part's first byte in the object.
        """

    @abstractmethod
    def upload_complete(self, upload: Upload, parts: tuple[Part, ...]) -> ObjectInfo:
        """Make the object of the parts, which are in order. Its conditions are those of the options, checked now."""

    @abstractmethod
    def upload_abort(self, upload: Upload) -> None:
        """Drop the parts. An upload that is gone is no error."""

    # reading

    @abstractmethod
    def get(
        self, bucket: str, key: str, *, range_: Range | None, if_match: Token | None, version: str | None
    ) -> Download:
        """Open an object for reading. A range that begins at or after the end answers no bytes."""

    @abstractmethod
    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        """Return everything about an object but its content."""

    @abstractmethod
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
        """Return one page of the keys that begin with ``prefix``, in the order of their UTF-8 bytes.

        Args:
            delimiter: roll up what follows the prefix up to and including this into one ``CommonPrefix``.
            start_after: begin behind this key; it need not exist.
            cursor: where the last page ended; then ``start_after`` is already in it.
            limit: at most so many items, prefixes included; more are cut by the caller.
        """

    # deleting

    @abstractmethod
    def delete(self, bucket: str, key: str, *, if_match: Token | None, version: str | None) -> None:
        """Delete an object. A missing one is no error, unless ``if_match`` is given."""

    def delete_many(self, bucket: str, keys: tuple[str, ...]) -> Mapping[str, Fault]:
        """Delete up to ``features.delete_batch`` objects in one call; say which of them failed, and why."""
        raise Unsupported("no batch delete")

    # optional: each goes with a field of the features

    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str, options: PutOptions | None) -> ObjectInfo:
        """Copy within the provider, headers, metadata and tags as they are, or as ``options`` says."""
        raise Unsupported("no copy")

    def tags(self, bucket: str, key: str) -> Mapping[str, str]:
        """Return an object's tags."""
        raise Unsupported("no tags")

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        """Replace all tags of an object."""
        raise Unsupported("no tags")

    def versions(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[ObjectVersion]:
        """Return one page of the history of all objects of that prefix: by key, then newest first."""
        raise Unsupported("no versions")

    def uploads(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[PendingUpload]:
        """Return one page of the uploads that are neither complete nor aborted, in the order of their keys."""
        raise Unsupported("no list of uploads")

    def sign(
        self,
        bucket: str,
        key: str,
        *,
        method: Literal["GET", "PUT", "DELETE"],
        expires: timedelta,
        content_type: str | None,
    ) -> str:
        """Return a URL that lets whoever has it do one thing for a while.

        Args:
            content_type: for PUT: the header that the request must then carry.
        """
        raise Unsupported("no presigned URLs")
