"""What a provider of blob storage implements: ``BlobDriver``, its values and its features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal, Protocol, Self, get_args

import attrs

from shiftable.blob._cors import CorsMethod, CorsRule, allowing, cors_rule, why_no_origin
from shiftable.errors import Fault, Unsupported
from shiftable.features import Features, Limit, feature
from shiftable.paging import Page
from shiftable.service import Driver, Spec
from shiftable.tokens import Token

__all__ = [
    "BlobDriver",
    "BlobFeatures",
    "BlobServer",
    "BucketSpec",
    "CommonPrefix",
    "CorsMethod",
    "CorsRule",
    "Download",
    "Headers",
    "LifecycleRule",
    "Lock",
    "ObjectInfo",
    "ObjectSummary",
    "ObjectVersion",
    "Part",
    "PendingUpload",
    "PutOptions",
    "Range",
    "Retention",
    "RetentionMode",
    "SignOptions",
    "SignedURL",
    "StorageClass",
    "Tier",
    "Upload",
    "allowing",
    "cors_rule",
    "merged_rules",
    "translate_class",
    "why_no_origin",
]

Tier = Literal["standard", "infrequent", "cold", "archive"]
"""How often an object is read, from always to hardly ever: what it costs to keep falls, what it costs to read rises."""


@attrs.frozen
class StorageClass:
    """One storage class of a provider.

    Args:
        name: the provider's own, ``STANDARD_IA``.
        tier: the neutral name of what it is for.
        online: an object in it can be read at once; else it has to be brought back first, which takes hours.
    """

    name: str
    tier: Tier
    online: bool = True

    def __str__(self) -> str:
        return f"{self.name} ({self.tier})" if self.name != self.tier else self.name


RetentionMode = Literal["governance", "compliance"]
"""Who may shorten a retention: whoever has a permission of its own for that, or nobody at all."""


def _whole_second(moment: datetime) -> datetime:
    """Return UTC, rounded up: Azure keeps whole seconds, and no lock may end early."""
    if moment.tzinfo is None:
        raise ValueError(f"a retention ends at a time with a zone, not {moment}; add tzinfo=UTC")
    moment = moment.astimezone(UTC)
    return moment if not moment.microsecond else moment.replace(microsecond=0) + timedelta(seconds=1)


@attrs.frozen(kw_only=True)
class Retention:
    """Until when a version of an object can be neither deleted nor replaced.

    Args:
        until: aware; kept as UTC and rounded up to a whole second.
        mode: ``compliance`` is never shortened, by nobody.
    """

    until: datetime = attrs.field(converter=_whole_second)
    mode: RetentionMode = attrs.field(default="governance", validator=attrs.validators.in_(get_args(RetentionMode)))

    def covers(self, other: Retention) -> bool:
        """Tell whether this one protects at least as well."""
        return self.until >= other.until and (self.mode == "compliance" or other.mode == "governance")

    def __str__(self) -> str:
        return f"{self.mode} until {self.until:%Y-%m-%dT%H:%M:%SZ}"


@attrs.frozen(kw_only=True)
class Lock:
    """What protects one version of an object.

    Args:
        hold: a legal hold: it has no end but its release.
    """

    retention: Retention | None = None
    hold: bool = False

    def is_active(self, now: datetime) -> bool:
        """Tell whether it still protects."""
        return self.hold or (self.retention is not None and self.retention.until > now)

    def __str__(self) -> str:
        told = [str(self.retention)] if self.retention is not None else []
        return " and ".join([*told, *["a legal hold"] * self.hold]) or "no lock"


_days = attrs.validators.optional(attrs.validators.and_(attrs.validators.instance_of(int), attrs.validators.ge(1)))


@attrs.frozen(kw_only=True)
class LifecycleRule:
    """``[[blob.x.lifecycle]]``: what the provider deletes by itself, some time after its day.

    Args:
        prefix: of the keys that it is about; empty: all.
        expire_days: objects, so many days after they were written. With versioning they become older versions.
        expire_older_days: older versions, so many days after they ceased to be the latest; for good.
        abort_uploads_days: uploads in parts that are not complete, so many days after they began.
    """

    prefix: str = ""
    expire_days: int | None = attrs.field(default=None, validator=_days)
    expire_older_days: int | None = attrs.field(default=None, validator=_days)
    abort_uploads_days: int | None = attrs.field(default=None, validator=_days)

    def __attrs_post_init__(self) -> None:
        if self.expire_days is self.expire_older_days is self.abort_uploads_days is None:
            raise ValueError("a lifecycle rule needs expire_days, expire_older_days or abort_uploads_days")


def merged_rules(rules: Iterable[LifecycleRule]) -> tuple[LifecycleRule, ...]:
    """Return one rule for each prefix, by prefix; of several days the first counts, as it does for the providers."""
    merged: dict[str, LifecycleRule] = {}
    for rule in rules:
        other = merged.get(rule.prefix, rule)
        merged[rule.prefix] = LifecycleRule(
            prefix=rule.prefix,
            expire_days=_first(rule.expire_days, other.expire_days),
            expire_older_days=_first(rule.expire_older_days, other.expire_older_days),
            abort_uploads_days=_first(rule.abort_uploads_days, other.abort_uploads_days),
        )
    return tuple(merged[prefix] for prefix in sorted(merged))


def _first(*days: int | None) -> int | None:
    return min((each for each in days if each is not None), default=None)


def _once(rules: Iterable[CorsRule]) -> tuple[CorsRule, ...]:
    """Return them in their order; a second one that is the same never counts."""
    return tuple(dict.fromkeys(rules))


@attrs.frozen(kw_only=True)
class BucketSpec(Spec):
    """``[blob.x]``: a bucket.

    Args:
        name: ``bucket`` in the file.
        versioning: whether overwritten and deleted objects are kept as older versions.
        lifecycle: what the provider deletes by itself. Rules that say more than a declaration can are left alone.
        cors: which pages' scripts may use presigned URLs. Rules that say more are left alone too, behind these.
        public: whether something may open the bucket to the public. Never declared: where it may, ``plan`` shows it and
            ``apply`` forbids it.
        encryption: how the provider encrypts what is written, in its own words. Only told.
        object_lock: whether single versions of objects can be locked against deletion. It is never switched off, and
            not everywhere on once the bucket exists.
    """

    name_key: ClassVar[str] = "bucket"

    versioning: bool = False
    lifecycle: tuple[LifecycleRule, ...] = attrs.field(default=(), converter=merged_rules)
    cors: tuple[CorsRule, ...] = attrs.field(default=(), converter=_once)
    public: bool = attrs.field(default=False, metadata={"in_file": False})
    encryption: str | None = attrs.field(default=None, eq=False, metadata={"in_file": False})
    object_lock: bool = False


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
        checksums: others of the whole content that the provider stores and tells, by name: ``crc32``, ``crc32c``,
            ``crc64nvme``, ``sha1``, ``sha256``; big-endian bytes. Those of parts, or made of them, are left out.
    """

    key: str
    size: int
    token: Token
    modified: datetime
    md5: bytes | None = None
    storage_class: str | None = None
    checksums: Mapping[str, bytes] = attrs.field(factory=dict, hash=False)


@attrs.frozen(kw_only=True)
class ObjectInfo(ObjectSummary):
    """Everything about an object but its content.

    Args:
        metadata: the user's own, names as the provider keeps them.
        version: its id in a bucket with versioning, else ``None``.
        tag_count: how many tags it has, where that is known without another call; ``None`` means unknown.
        retention: as far as it is told without another call: see ``features.lock_told``.
        hold: the same of a legal hold.
    """

    headers: Headers = Headers()
    metadata: Mapping[str, str] = attrs.Factory(dict)
    version: str | None = None
    tag_count: int | None = None
    retention: Retention | None = None
    hold: bool = False

    @property
    def lock(self) -> Lock:
        """Both of them."""
        return Lock(retention=self.retention, hold=self.hold)


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
        storage_class: the provider's own name of one of ``features.storage_classes``; ``None``: its default.
        retention: of the version that is written, from the moment that it is there.
        hold: a legal hold on it, likewise.
    """

    headers: Headers = Headers()
    metadata: Mapping[str, str] = attrs.Factory(dict)
    tags: Mapping[str, str] = attrs.Factory(dict)
    if_absent: bool = False
    if_match: Token | None = None
    md5: bytes | None = None
    storage_class: str | None = None
    retention: Retention | None = None
    hold: bool = False

    @property
    def lock(self) -> Lock:
        """Retention and hold."""
        return Lock(retention=self.retention, hold=self.hold)


class SignedURL(str):
    """A presigned URL; it is a string.

    Attributes:
        headers: what the request must carry, by name. Most requests need none.
    """

    __slots__ = ("headers",)

    headers: Mapping[str, str]

    def __new__(cls, url: str, headers: Mapping[str, str] | None = None) -> Self:
        """Make one of a URL."""
        made = super().__new__(cls, url)
        made.headers = dict(headers or {})
        return made

    def __getnewargs__(self) -> tuple[str, Mapping[str, str]]:  # type: ignore[override]  # what __new__ takes
        """Keep the headers in pickles and copies."""
        return str(self), self.headers


@attrs.frozen(kw_only=True)
class SignOptions:
    """What a presigned URL binds besides method, key and time.

    Args:
        answer: for GET: the content type and the content disposition that the answer has in place of the object's.
        md5: for PUT: of the only content that may be written.
        size: for PUT: of the content, in bytes, to the byte.
    """

    answer: Headers = Headers()
    md5: bytes | None = None
    size: int | None = None


@attrs.frozen(kw_only=True)
class Download:
    """An object on its way: ``chunks`` are bytes of any length but zero; close it when it is not read to the end.

    Args:
        info: everything about the object; of one that is reopened, what was known of it.
    """

    info: ObjectSummary
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
    sign_answer: bool = feature("presigned URLs that say the content type and disposition of the answer", default=False)
    sign_md5: bool = feature("presigned URLs for just one content, by its MD5", default=False)
    sign_size: bool = feature("presigned URLs for content of just one size", default=False)
    lifecycle: bool = feature("objects that expire by themselves", default=False)
    lifecycle_older: bool = feature("older versions that expire by themselves", default=False)
    lifecycle_uploads: bool = feature("uploads in parts that expire by themselves, when it is declared", default=False)
    cors: bool = feature("rules which pages' scripts may use presigned URLs (CORS)", default=False)
    cors_any_header: bool = feature("CORS rules for any header of requests, `*`", default=False)
    cors_apart: bool = feature("CORS rules tell headers that may be sent from those that may be read", default=False)
    serve: bool = feature("a server of its own for presigned URLs", default=False)
    if_none_match: bool = feature("a read of what has not changed brings no content, in one call", default=False)
    restore: bool = feature("older versions are copied inside the provider, and their tags read", default=False)
    tag_count: bool = feature("reading an object tells how many tags it has", default=False)
    object_lock: bool = feature("retention: versions that cannot be deleted or replaced before a time", default=False)
    legal_hold: bool = feature("legal holds", default=False)
    hold_anywhere: bool = feature("legal holds also in buckets without object lock", default=False)
    governance: bool = feature("retention that who has the permission may shorten", default=False)
    lock_needs_versioning: bool = feature("object lock needs versioning; a key takes newer versions", default=False)
    lock_later: bool = feature("object lock can be switched on for a bucket that exists", default=False)
    lock_told: bool = feature("reading an object always tells how it is locked", default=False)
    storage_classes: tuple[StorageClass, ...] = feature("storage classes", default=())
    checksums: tuple[str, ...] = feature("checksums of all content that is written, also in parts", default=())
    md5_in_listing: bool = feature("a listing tells the MD5 of objects written in one piece")
    any_key: bool = feature("every key up to the limit, not only those that are file paths")
    keys_are_paths: bool = feature("keys are file paths: an object is no folder of other objects", default=False)
    max_key: Limit = feature("longest key, bytes of UTF-8")
    max_object: Limit | None = feature("largest object, bytes", default=None)
    max_metadata: Limit | None = feature("all metadata of one object, bytes of names and values", default=None)
    max_tags: Limit | None = feature("tags of one object", default=None)
    part_size: Limit = feature("smallest part of a multipart upload but the last, bytes")
    max_part: Limit | None = feature("largest part of a multipart upload, bytes", default=None)
    max_parts: Limit | None = feature("parts of one upload", default=None)
    delete_batch: Limit | None = feature("objects deleted in one call", default=None)
    max_sign: Limit | None = feature("longest life of a presigned URL, days", default=None)
    max_retention: Limit | None = feature("longest retention, days", default=None)

    def storage_class(self, name: str) -> StorageClass | None:
        """Return the class of that name, the provider's own or a neutral one; ``None`` if there is none.

        A neutral name means the first class of that tier.
        """
        own = (each for each in self.storage_classes if each.name == name)
        return next(own, None) or next((each for each in self.storage_classes if each.tier == name), None)


def translate_class(name: str | None, source: BlobFeatures, target: BlobFeatures) -> str | None:
    """Say in which class a provider keeps what another keeps in the class of that name, its own or neutral.

    It is a class of the same tier, or where there is none of the nearest warmer one; and never one that has to be
    brought back before it is read for one that can be read at once.

    Returns:
        The target's own name; ``None``, its default, where one of both has no such classes.
    """
    found = source.storage_class(name) if name is not None else None
    if found is None:
        return None
    tiers = get_args(Tier)
    for tier in reversed(tiers[: tiers.index(found.tier) + 1]):
        for each in target.storage_classes:
            if each.tier == tier and (each.online or not found.online):
                return each.name
    return None


class BlobServer(Protocol):
    """A running server; use it in a ``with`` block.

    Attributes:
        url: where it listens.
    """

    url: str

    def close(self) -> None:
        """Stop listening."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


class BlobDriver(Driver[BucketSpec]):
    """Blob storage of one provider. The admin verbs of ``Driver`` act on buckets.

    Keys are strings; the provider gets their UTF-8 bytes unchanged. Nothing here retries, pages or validates: the
    portable ``Bucket`` does.
    """

    @property
    @abstractmethod
    def features(self) -> BlobFeatures:
        """What this driver can do."""

    @property
    def why_not_later(self) -> str:
        """Why object lock is not switched on for a bucket that exists, and what to do, without ``lock_later``."""
        return "the provider has object lock only in buckets that were made with it; move to a new one"

    def missing_features(self, spec: BucketSpec) -> tuple[str, ...]:
        """Say what a declaration needs and this driver does not have. Sends nothing."""
        needs = {
            "versioning": spec.versioning and not self.features.versioning,
            "lifecycle rules": bool(spec.lifecycle) and not self.features.lifecycle,
            "lifecycle rules for older versions": any(rule.expire_older_days for rule in spec.lifecycle)
            and self.features.lifecycle > self.features.lifecycle_older,
            "lifecycle rules for uploads": any(rule.abort_uploads_days for rule in spec.lifecycle)
            and self.features.lifecycle > self.features.lifecycle_uploads,
            "CORS rules": bool(spec.cors) and not self.features.cors,
            "CORS rules for any header": any("*" in rule.headers for rule in spec.cors)
            and self.features.cors > self.features.cors_any_header,
            "public buckets": spec.public,
            "object lock": spec.object_lock and not self.features.object_lock,
            "object lock without versioning": spec.object_lock
            and self.features.lock_needs_versioning
            and not spec.versioning,
        }
        return tuple(name for name, missing in needs.items() if missing)

    def as_kept(self, spec: BucketSpec) -> BucketSpec:
        """Return a declaration as ``describe`` tells it once it is carried out: all of it, or more. Sends nothing."""
        return spec

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

    def check_headers(self, headers: Headers) -> str | None:
        """Say why the provider could not keep those headers exactly; ``None`` if it can. Sends nothing."""
        return None

    def check_tags(self, tags: Mapping[str, str]) -> str | None:
        """Say why the provider could not keep those tags exactly; ``None`` if it can. Sends nothing."""
        limit = self.features.max_tags
        if limit is not None and len(tags) > limit.value:
            return f"there are {len(tags)} tags; the limit is {limit} ({limit.source})"
        return None

    def lane(self) -> BlobDriver:
        """Return the driver that bulk operations use: the same contract at a lower cost for each object.

        It has the same identity, is closed with this one and may be this one, as it is by default and wherever a faster
        way would leave out what somebody counts on.
        """
        return self

    @property
    def gives_way(self) -> bool:
        """Whether its calls wait through ``shiftable.fibers``, so that many of them may be under way in one thread."""
        return False

    def require(self, name: str) -> None:
        """Fail as for a missing bucket if there is none. A driver does it with less than ``describe`` where it can."""
        self.describe(name)

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
        self,
        bucket: str,
        key: str,
        *,
        range_: Range | None,
        if_match: Token | None,
        version: str | None,
        if_none_match: Token | None = None,
    ) -> Download:
        """Open an object for reading. A range that begins at or after the end answers no bytes.

        Args:
            if_none_match: fail as ``NotModified`` if this is the object's version, whatever the range. Given only where
                the features say so.
        """

    def reopen(self, bucket: str, known: ObjectSummary, *, range_: Range | None, version: str | None) -> Download:
        """Open an object for reading that a listing or an earlier call has told of; fails if it is another by now."""
        return self.get(bucket, known.key, range_=range_, if_match=known.token, version=version)

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
        """Copy within the provider, headers, metadata and tags as they are, or as ``options`` says.

        Without options the storage class is the target's default.

        Args:
            version: of the source; also onto itself. Given only where ``features.restore`` says so.
        """
        raise Unsupported("no copy")

    def copies_from(self, other: BlobDriver) -> bool:
        """Tell whether ``copy`` of this driver may reach another one's buckets by their names. Sends nothing.

        Both must mean the same bucket by the same name. Permissions are another matter: the copy tells.
        """
        return other is self and self.features.copy

    def tags(self, bucket: str, key: str, *, version: str | None = None) -> Mapping[str, str]:
        """Return an object's tags.

        Args:
            version: given only where ``features.restore`` says so.
        """
        raise Unsupported("no tags")

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        """Replace all tags of an object."""
        raise Unsupported("no tags")

    def lock_of(self, bucket: str, key: str, *, version: str | None) -> Lock:
        """Return what protects an object, or fail where it may not be known. Called only with ``object_lock``."""
        return self.stat(bucket, key, version=version).lock

    def set_retention(
        self, bucket: str, key: str, retention: Retention | None, *, version: str | None, bypass: bool
    ) -> None:
        """Set the retention of an object, or take it away.

        It may end later than before, and that is all, unless ``bypass`` says otherwise: then one in mode governance may
        also end earlier, change its mode or go. What is refused has changed nothing.
        """
        raise Unsupported("no object lock")

    def set_hold(self, bucket: str, key: str, *, hold: bool, version: str | None) -> None:
        """Set or take away an object's legal hold; again is no error."""
        raise Unsupported("no legal holds")

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
        options: SignOptions = SignOptions(),
    ) -> str:
        """Return a URL that lets whoever has it do one thing for a while.

        A ``SignedURL`` names the headers that the request must carry; of another string that is the content type.

        Args:
            content_type: for PUT: the header that the request must then carry.
            options: what else it binds. Given only where the features say so.
        """
        raise Unsupported("no presigned URLs")

    def serve(self, port: int | None = None, *, origins: Collection[str] = ()) -> BlobServer:
        """Answer presigned URLs on loopback, until the server is closed.

        Args:
            port: 0: any that is free; ``None``: the one that presigned URLs lead to.
            origins: of the pages whose scripts may use them; ``*``: of all.
        """
        raise Unsupported("no server for presigned URLs")
