"""Blob storage on Google Cloud Storage."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Literal
from urllib.parse import quote

import attrs
from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, PreconditionFailed, from_http_response
from google.cloud.storage.batch import Batch

from shiftable import errors
from shiftable.blob.driver import (
    BlobDriver,
    BlobFeatures,
    BucketSpec,
    CommonPrefix,
    Download,
    Headers,
    Lock,
    ObjectInfo,
    ObjectSummary,
    ObjectVersion,
    Part,
    PendingUpload,
    PutOptions,
    Range,
    Retention,
    SignedURL,
    SignOptions,
    StorageClass,
    Upload,
)
from shiftable.errors import Fault, Resource, Throttled
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable.tokens import Token
from shiftable_gcp import _lifecycle, _rules
from shiftable_gcp._blob_told import (
    CRC32C,
    DEFAULT_TYPE,
    Blob,
    headers_of,
    info_of,
    is_as_written,
    place_of,
    retain,
    rules_of,
    summary_of,
    version_of,
)
from shiftable_gcp._crc32c import combined, crc32c, told
from shiftable_gcp._holds import held
from shiftable_gcp._multipart import SentPart, XmlUploads
from shiftable_gcp._session import TIMEOUT, Session, Untyped
from shiftable_gcp._signing import signing
from shiftable_gcp.errors import classify

__all__ = ["FEATURES", "GcsDriver"]

_QUOTAS = "Cloud Storage quotas and limits"
_CHUNK = 1024 * 1024
_PAGE = 1_000
_GRAIN = timedelta(milliseconds=1)
_GENERATION = re.compile(r"[1-9][0-9]{0,18}")
_SUMMARY_FIELDS = "nextPageToken,prefixes,items(name,generation,size,md5Hash,crc32c,storageClass,timeCreated)"
_VERSION_FIELDS = "nextPageToken,items(name,generation,size,timeCreated,timeDeleted)"
_STAGED = ".shiftable-"
_REOPENED = 5
_PLAIN = SignOptions()
_UNLOCKED = Lock()

FEATURES = BlobFeatures(
    title="Google Cloud Storage",
    if_absent=True,
    if_match=True,
    delete_if_match=True,
    headers=True,
    metadata=True,
    tags=False,
    versioning=True,
    copy=True,
    sign=True,
    uploads=True,
    lifecycle=True,
    lifecycle_older=True,
    lifecycle_uploads=True,
    sign_answer=True,
    sign_md5=True,
    sign_size=True,
    if_none_match=True,
    restore=True,
    object_lock=True,
    legal_hold=True,
    hold_anywhere=True,
    governance=True,
    lock_told=True,
    storage_classes=(
        StorageClass("STANDARD", "standard"),
        StorageClass("NEARLINE", "infrequent"),
        StorageClass("COLDLINE", "cold"),
        StorageClass("ARCHIVE", "archive"),
    ),
    checksums=(CRC32C,),
    md5_in_listing=True,
    any_key=True,
    max_key=Limit(1024, "Cloud Storage, object naming requirements"),
    max_object=Limit(5 * 1024**4, _QUOTAS),
    max_metadata=Limit(8 * 1024, f"{_QUOTAS}: all custom keys and values of an object"),
    part_size=Limit(5 * 1024**2, f"{_QUOTAS}: XML API multipart uploads"),
    max_part=Limit(5 * 1024**3, f"{_QUOTAS}: XML API multipart uploads"),
    max_parts=Limit(10_000, f"{_QUOTAS}: XML API multipart uploads"),
    delete_batch=Limit(100, f"{_QUOTAS}: calls in one batch request of the JSON API"),
    max_sign=Limit(7, "Cloud Storage, signed URLs: V4 signing"),
    max_retention=Limit(36_525, "Cloud Storage, Object Retention Lock: 3,155,760,000 seconds"),
)

_Write = Callable[[int | None, Untyped], Blob]


@attrs.define
class _Chunks(Iterator[bytes]):
    """The body of an answer, 1 MiB at a time; one that came whole must have the CRC32C that was told of it."""

    _response: Untyped
    _size: int
    _expected: int | None
    _altered: Callable[[], Exception]
    _at: int = attrs.field(default=0, init=False)
    _crc: int = attrs.field(default=0, init=False)

    def __next__(self) -> bytes:
        chunk: bytes = self._response.raw.read(_CHUNK, decode_content=False)
        if not chunk:
            self._response.close()
            if self._expected is not None and self._at == self._size and self._crc != self._expected:
                raise self._altered()
            raise StopIteration
        self._crc = crc32c(chunk, self._crc)
        self._at += len(chunk)
        return chunk

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()


@attrs.define(eq=False)
class GcsDriver(BlobDriver):
    """Blob storage through google-cloud-storage, with the session's credentials, endpoint and patience.

    Credentials and permissions: those of ``GcpProvider``. Buckets that it makes have uniform bucket-level access and
    enforce public access prevention.

    A token is an object's generation, and so is a version; both mean the content, which never changes under one
    generation. Every object has one, so whether it is told as a version depends on whether the bucket keeps older ones,
    which is asked once for each bucket. Cloud Storage leaves no delete markers: the newest row of a deleted object's
    history is an older version like the others.

    MD5: of objects written in one piece; those written in parts or composed have only a CRC32C. That is sent with
    everything that is written, compared by the service, and compared here with everything that is read whole.

    Parts: an upload without a condition goes straight to its key. Completing one cannot be made conditional, so with
    ``if_absent`` or ``if_match``, and where headers of HTTP could not carry the metadata, the parts become an object of
    another key, ``KEY.shiftable-…``, that is then moved onto the key, in one step and under the condition. It can be
    seen for the moment in between; ``uploads`` tells such uploads by that key.

    Locks: a retention in mode governance is ``Unlocked`` to Cloud Storage, compliance is ``Locked``, a legal hold is a
    temporary hold; an event-based hold is told as a hold too, and released. Holds need no bucket with object lock. A
    locked object may become an older version where the bucket keeps these; elsewhere its key takes no other object. Who
    lengthens, shortens or takes away needs ``storage.objects.setRetention`` and ``storage.objects.update``, with
    ``bypass`` also ``storage.objects.overrideUnlockedRetention``. With a lock, parts become an object of another key,
    as above, which is then copied inside Cloud Storage, so that the object is locked from its first moment.

    Lost answers: the SDK repeats what reads and what has a condition. When a repeated conditional write fails, the
    driver looks: what is there now and was written meanwhile, with the same content, headers and metadata, was written
    by us. A rival that writes the very same bytes in the same seconds cannot be told apart; let what serves as a lock
    name its holder. A write without a condition is never sent twice blindly either: the driver looks what is there, and
    repeats it under the condition that it still is.
    """

    session: Session
    provider: str = "gcp"
    features: BlobFeatures = attrs.field(default=FEATURES, kw_only=True)
    _keeps: dict[str, bool] = attrs.field(factory=dict, init=False, repr=False)
    _fast: GcsDriver | None = attrs.field(default=None, init=False, repr=False)

    @property
    def client(self) -> Untyped:
        """The ``google.cloud.storage.Client``, for what only Cloud Storage has."""
        return self.session.client

    def classify(self, exc: Exception) -> Fault | None:
        """Claim the exceptions of Google's libraries."""
        return classify(exc)

    @property
    def why_not_later(self) -> str:
        """Say that only a new bucket can have object lock."""
        return (
            "Cloud Storage enables object retention only while a bucket is made; declare another bucket with "
            "object_lock, and move the objects there"
        )

    def check_name(self, name: str) -> str | None:
        """Apply the bucket naming guidelines."""
        return _rules.bucket_name(name)

    def check_key(self, key: str) -> str | None:
        """Apply the object naming requirements."""
        return BlobDriver.check_key(self, key) or _rules.object_key(key)

    def check_headers(self, headers: Headers) -> str | None:
        """Refuse what readers through HTTP would see changed."""
        return _rules.headers(headers)

    def check_metadata(self, metadata: Mapping[str, str]) -> str | None:
        """Refuse what readers through HTTP headers would see changed."""
        return BlobDriver.check_metadata(self, metadata) or _rules.metadata(metadata)

    # buckets

    def create(self, spec: BucketSpec) -> None:
        """Make a bucket in the session's region, in one call, with all that it is declared to have."""
        bucket, attempts = self.client.bucket(spec.name), self.session.attempts()
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        bucket.iam_configuration.public_access_prevention = "enforced"
        bucket.versioning_enabled = spec.versioning
        if spec.lifecycle:
            bucket.lifecycle_rules = _lifecycle.native((), spec.lifecycle)
        self._keeps.pop(spec.name, None)
        project, began = self.session.require_project(), time.monotonic()
        try:
            self.client.create_bucket(
                bucket,
                project=project,
                location=self.session.region,
                enable_object_retention=spec.object_lock,
                timeout=TIMEOUT,
                retry=attempts.policy,
            )
        except GoogleAPICallError as exc:
            # The answer to our first try may have been lost.
            if not attempts.doubtful or exc.code != 409 or not self._made_since(spec, began):
                raise

    def describe(self, name: str) -> BucketSpec:
        """Return the declaration."""
        return self._spec(self._bucket(name))

    def require(self, name: str) -> None:
        """List one object, which needs no permission to read the bucket's settings."""
        next(self._listed(name, max_results=1, fields="items(name)").pages, None)

    def update(self, current: BucketSpec, spec: BucketSpec) -> None:
        """Enable or suspend versioning, set the lifecycle, close what is open, all in one call; older versions stay."""
        bucket, attempts = self._bucket(spec.name), self.session.attempts()
        if self._spec(bucket) != current:
            raise self._changed(spec.name)
        bucket.versioning_enabled = spec.versioning
        if spec.lifecycle != current.lifecycle:
            bucket.lifecycle_rules = _lifecycle.native(rules_of(bucket), spec.lifecycle)
        if current.public and not spec.public:
            bucket.iam_configuration.public_access_prevention = "enforced"
        self._keeps.pop(spec.name, None)
        try:
            bucket.patch(if_metageneration_match=bucket.metageneration, timeout=TIMEOUT, retry=attempts.policy)
        except PreconditionFailed as exc:
            if not attempts.doubtful or self.describe(spec.name) != spec:
                raise self._changed(spec.name) from exc

    def destroy(self, name: str) -> None:
        """Delete an empty bucket; older versions count as content."""
        self._keeps.pop(name, None)
        attempts = self.session.attempts()
        try:
            self.client.bucket(name).delete(timeout=TIMEOUT, retry=attempts.policy)
        except NotFound:
            if not attempts.doubtful:
                raise

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the project's buckets, of all locations."""
        listing = self.client.list_buckets(
            project=self.session.require_project(),
            max_results=min(limit or _PAGE, _PAGE),
            page_token=cursor,
            fields="nextPageToken,items(name)",
            timeout=TIMEOUT,
            retry=self.session.attempts().policy,
        )
        found = tuple(bucket.name for bucket in next(listing.pages, ()))
        return Page(found, listing.next_page_token)

    # writing

    def put(self, bucket: str, key: str, data: bytes, options: PutOptions) -> ObjectInfo:
        """Write an object in one piece; the service compares its CRC32C, and its MD5 where the options tell it."""

        def write(condition: int | None, policy: Untyped) -> Blob:
            blob = self._described(bucket, key, options)
            if options.md5 is not None:
                blob.md5_hash = base64.b64encode(options.md5).decode()
            sent = time.monotonic()
            blob.upload_from_string(
                data,
                content_type=options.headers.content_type or DEFAULT_TYPE,
                if_generation_match=condition,
                checksum="crc32c",
                timeout=TIMEOUT,
                retry=policy,
            )
            self.session.clock.observe(blob.time_created, _GRAIN, sent, time.monotonic())
            return blob

        checksum = told(crc32c(data))
        blob = self._written(
            bucket, key, self._condition(options), write, lambda found: is_as_written(found, checksum, options)
        )
        return self._info(blob)

    def upload_begin(self, bucket: str, key: str, options: PutOptions) -> Upload:
        """Begin a multipart upload, to the key itself or to one from which it is moved there."""
        self._condition(options)  # before all parts are sent in vain
        fits = _rules.fits_headers(options)
        direct = fits and not options.if_absent and options.if_match is None and options.lock == _UNLOCKED
        staged = "" if direct else _staging(key)
        content_type = (options.headers.content_type if fits else None) or DEFAULT_TYPE
        carried = (
            options if fits else PutOptions(storage_class=options.storage_class)
        )  # the rest is said before the move
        id_ = self._uploads.begin(bucket, staged or key, carried, content_type)
        return Upload(bucket=bucket, key=key, id=json.dumps([id_, staged]) if staged else id_, options=options)

    def upload_part(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:  # noqa: ARG002  the number says it
        """Send one part; its token holds the ETag, which the service wants back, and the CRC32C."""
        id_, staged = _told_apart(upload)
        sent = self._uploads.part(upload.bucket, staged or upload.key, id_, number, data)
        return Part(number=number, size=len(data), token=json.dumps([sent.etag, sent.crc32c]))

    def upload_complete(self, upload: Upload, parts: tuple[Part, ...]) -> ObjectInfo:
        """Make the object, and compare its CRC32C with that of the parts."""
        id_, staged = _told_apart(upload)
        sent = [SentPart(part.number, *json.loads(part.token)) for part in parts]
        checksum = told(combined((each.crc32c, part.size) for each, part in zip(sent, parts, strict=True)))
        key, began, attempts = staged or upload.key, time.monotonic(), self.session.attempts()
        try:
            self._uploads.complete(upload.bucket, key, id_, sent, attempts)
            blob = self._found(upload.bucket, key)
        except GoogleAPICallError as exc:
            # Completed by our first try, or of a staged one, whose key nobody else knows, perhaps before a restart.
            blob = self._look(upload.bucket, key) if _fault(exc).code == "NoSuchUpload" else None
            if blob is None or not (staged or (attempts.doubtful and self._since(blob, began))):
                raise
            if blob.crc32c != checksum:
                raise
        if blob.crc32c != checksum:
            why = "the object is not made of these parts: its CRC32C is another"
            raise self._error(errors.IntegrityError, "upload_complete", upload.bucket, upload.key, why)
        return self._info(self._moved(upload, blob) if staged else blob)

    def upload_abort(self, upload: Upload) -> None:
        """Drop the parts, and what they became where it was not moved."""
        id_, staged = _told_apart(upload)
        try:
            self._uploads.abort(upload.bucket, staged or upload.key, id_)
        except GoogleAPICallError as exc:
            if _fault(exc).code != "NoSuchUpload":
                raise
        if staged:
            self.delete(upload.bucket, staged, if_match=None, version=None)

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
        """Open an object: everything about it is asked first, then the bytes of that very generation."""
        for _ in range(_REOPENED):
            blob = self._found(bucket, key, if_match=if_match, if_none_match=if_none_match, version=version)
            info = self._info(blob, version)
            start, stop = (0, None) if range_ is None else (range_.start, range_.stop)
            end = info.size if stop is None else min(stop, info.size)
            if start >= end:
                return Download(info=info, chunks=iter(()))
            try:
                return Download(info=info, chunks=self._opened(blob, start, end, info.size))
            except NotFound as exc:
                if version is not None or _fault(exc).missing == "bucket":
                    raise
                # Replaced since we asked; now the newer one is there.
        raise self._error(errors.Conflict, "get", bucket, key, "the object is replaced faster than it can be opened")

    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        """Return everything about an object but its content."""
        return self._info(self._found(bucket, key, version=version), version)

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
        """Return one page of at most 1,000."""
        after = start_after if cursor is None else None
        # The service begins at a key, not behind it: one more is asked for, and left out.
        wanted = min((limit or _PAGE) + (1 if after is not None else 0), _PAGE)
        listing = self._listed(
            bucket,
            prefix=prefix or None,
            delimiter=delimiter,
            start_offset=start_after or None,
            page_token=cursor,
            max_results=wanted,
            fields=_SUMMARY_FIELDS,
        )
        items: list[ObjectSummary | CommonPrefix] = [
            summary_of(blob) for blob in next(listing.pages, ()) if blob.name != start_after
        ]
        rolled = [CommonPrefix(name) for name in listing.prefixes if self._reaches(bucket, name, start_after)]
        if rolled:
            items = sorted([*items, *rolled], key=place_of)
        return Page(tuple(items), listing.next_page_token)

    # deleting

    def delete(self, bucket: str, key: str, *, if_match: Token | None, version: str | None) -> None:
        """Delete an object or one version of it."""
        if version is not None:
            if _GENERATION.fullmatch(version):
                self._delete(bucket, key, generation=int(version), condition=self._generation(if_match))
            return
        if if_match is not None:
            self._delete(bucket, key, condition=self._generation(if_match), strict=True)
            return
        began = time.monotonic()
        try:
            self._delete(bucket, key, repeatable=False)
        except Exception as exc:
            if not _may_be_done(exc) or not self._deleted_since(bucket, key, began):
                raise

    def delete_many(self, bucket: str, keys: tuple[str, ...]) -> Mapping[str, Fault]:
        """Delete up to 100 objects in one call; those that it did not delete for passing reasons, one by one."""
        began = time.monotonic()
        batch = Batch(self.client)
        for key in keys:
            batch.api_request("DELETE", self.client.bucket(bucket).blob(key).path, timeout=TIMEOUT, expect_json=False)
        try:
            answers = self._sent(batch)
        except Exception as exc:
            if not _may_be_done(exc):
                raise
            return self._retried(bucket, dict.fromkeys(keys, exc), began)
        failed: dict[str, Exception] = {}
        for key, answer in zip(keys, answers, strict=True):
            failure = None if answer.status_code < 300 else from_http_response(answer)
            if failure is not None and _fault(failure).missing == "bucket":
                raise failure
            if failure is not None and _fault(failure).error is not errors.NotFound:
                failed[key] = failure
        return self._retried(bucket, failed, began)

    # optional

    def copies_from(self, other: BlobDriver) -> bool:
        """Tell whether both are at one endpoint: bucket names are global there."""
        return isinstance(other, GcsDriver) and other.session.endpoint == self.session.endpoint

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
        """Copy inside Cloud Storage, in as many steps as it takes; the source must stay in the version found first."""
        source = self._found(bucket, key, version=version)
        kept = options or PutOptions(headers=headers_of(source), metadata=source.metadata or {})
        # Without the generation that was found, unless it is asked for: one that is gone would be a missing object.
        origin = self.client.bucket(bucket).blob(key, generation=source.generation if version is not None else None)

        def write(condition: int | None, policy: Untyped) -> Blob:
            # All is said in full: whether what is not said is copied depends on what else is.
            target = self._described(to_bucket, to_key, kept)
            if options is None and source.custom_time is not None:
                target.custom_time = source.custom_time
            return _rewritten(target, origin, source.generation, kept, condition, policy)

        condition = None if options is None else self._condition(options)
        checksum = source.crc32c
        return self._info(
            self._written(to_bucket, to_key, condition, write, lambda found: is_as_written(found, checksum, kept))
        )

    def set_retention(
        self, bucket: str, key: str, retention: Retention | None, *, version: str | None, bypass: bool
    ) -> None:
        """Set it, or with nothing in it take it away."""
        blob = self._selected(bucket, key, version)
        retain(blob, retention)
        blob.patch(override_unlocked_retention=bypass, timeout=TIMEOUT, retry=self.session.attempts().policy)

    def set_hold(self, bucket: str, key: str, *, hold: bool, version: str | None) -> None:
        """Set a temporary hold, or release whatever hold there is."""
        blob = self._selected(bucket, key, version)
        blob.temporary_hold = hold
        if not hold:
            blob.event_based_hold = False
        blob.patch(timeout=TIMEOUT, retry=self.session.attempts().policy)

    def versions(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[ObjectVersion]:
        """Return the whole histories of some keys; the cursor is the next one.

        The service lists them from old to new, and cuts pages anywhere: a key's newest version may be on the next.
        """
        listing = self._listed(
            bucket,
            prefix=prefix or None,
            start_offset=cursor,
            versions=True,
            page_size=_PAGE if limit is None else max(2, min(limit + 1, _PAGE)),
            fields=_VERSION_FIELDS,
        )
        rows: list[ObjectVersion] = []
        following: str | None = None
        for page in listing.pages:
            rows += [version_of(blob) for blob in page]
            if listing.next_page_token and rows and rows[-1].key != rows[0].key:
                following = rows[-1].key
                break
        done = [row for row in rows if row.key != following]
        return Page(tuple(sorted(done, key=lambda row: (row.key.encode(), -int(row.version)))), following)

    def uploads(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[PendingUpload]:
        """Return one page of at most 1,000; the cursor holds the key and the id of the last upload."""
        page = self._uploads.list(bucket, prefix, tuple(json.loads(cursor)) if cursor else None, limit)
        last = page.items[-1] if page.items else None
        return Page(page.items, json.dumps([last.key, last.id]) if page.next and last else None)

    def sign(
        self,
        bucket: str,
        key: str,
        *,
        method: Literal["GET", "PUT", "DELETE"],
        expires: timedelta,
        content_type: str | None,
        options: SignOptions = _PLAIN,
    ) -> SignedURL:
        """Sign a URL with the service account's key, or through IAM in its name."""
        if _rules.has_dot_segments(key):
            why = "the key has a segment '.' or '..', which whoever follows the URL would resolve"
            raise self._error(errors.InvalidArgument, "sign", bucket, key, why)
        signer = signing(self.session)
        if signer is None:
            why = "these credentials cannot sign URLs: name a service account that they may sign as (sign_as)"
            raise self._error(errors.Unsupported, "sign", bucket, key, why)
        carried = {"Content-Type": content_type} if content_type is not None else {}
        if options.md5 is not None:
            carried["Content-MD5"] = base64.b64encode(options.md5).decode()
        if options.size is not None:
            carried["x-goog-content-length-range"] = f"{options.size},{options.size}"
        url = (
            self.client.bucket(bucket)
            .blob(key)
            .generate_signed_url(
                version="v4",
                credentials=signer,
                expiration=max(expires, timedelta(seconds=1)),
                method=method,
                headers=dict(carried),
                response_type=options.answer.content_type,
                response_disposition=options.answer.content_disposition,
            )
        )
        return SignedURL(url, carried)

    def lane(self) -> GcsDriver:
        """Return this driver over connections of its own that cost less."""
        if self.session.is_lane:
            return self
        if self._fast is None:
            self._fast = attrs.evolve(self, session=self.session.lane())
        return self._fast

    @property
    def gives_way(self) -> bool:
        """The bulk lane does."""
        return self.session.is_lane

    def close(self) -> None:
        """Close the session's connections."""
        if self._fast is not None:
            self._fast.close()
        self.session.close()

    # work

    @property
    def _uploads(self) -> XmlUploads:
        return XmlUploads(self.session)

    def _bucket(self, name: str) -> Untyped:
        return self.client.get_bucket(name, timeout=TIMEOUT, retry=self.session.attempts().policy)

    def _listed(self, bucket: str, **options: Untyped) -> Untyped:
        return self.client.list_blobs(bucket, timeout=TIMEOUT, retry=self.session.attempts().policy, **options)

    def _spec(self, bucket: Untyped) -> BucketSpec:
        self._keeps[bucket.name] = bool(bucket.versioning_enabled)
        return BucketSpec(
            name=bucket.name,
            versioning=self._keeps[bucket.name],
            lifecycle=tuple(_lifecycle.declared(rules_of(bucket))),
            public=bucket.iam_configuration.public_access_prevention != "enforced",
            encryption=bucket.default_kms_key_name,
            object_lock=bucket.object_retention_mode == "Enabled",
        )

    def _made_since(self, spec: BucketSpec, began: float) -> bool:
        """Tell whether a bucket that exists is the one that we have just made."""
        try:
            bucket = self._bucket(spec.name)
        except GoogleAPICallError:
            return False  # somebody else's
        return self._spec(bucket) == spec and self._since(bucket, began)

    def _found(
        self,
        bucket: str,
        key: str,
        *,
        if_match: Token | None = None,
        if_none_match: Token | None = None,
        version: str | None = None,
    ) -> Blob:
        """Return everything about an object."""
        known = if_none_match is not None and _GENERATION.fullmatch(if_none_match.value)
        blob = self._selected(bucket, key, version)
        blob.reload(
            if_generation_match=self._generation(if_match),
            if_generation_not_match=self._generation(if_none_match) if known else None,
            timeout=TIMEOUT,
            retry=self.session.attempts().policy,
        )
        return blob

    def _selected(self, bucket: str, key: str, version: str | None) -> Blob:
        """Return the SDK's handle of an object, or of one version of it. Calls nobody."""
        if version is not None and not _GENERATION.fullmatch(version):
            raise self._error(errors.NotFound, "stat", bucket, key, f"there is no version {version!r}")
        return self.client.bucket(bucket).blob(key, generation=None if version is None else int(version))

    def _look(self, bucket: str, key: str) -> Blob | None:
        """Return what is there, if anything."""
        try:
            return self._found(bucket, key)
        except NotFound as exc:
            if _fault(exc).missing == "bucket":
                raise
            return None

    def _written(
        self, bucket: str, key: str, condition: int | None, write: _Write, is_ours: Callable[[Blob], bool]
    ) -> Blob:
        """Write exactly once, also where answers are lost.

        Args:
            condition: the generation that must be there; 0 for none; ``None``: whatever is there is replaced.
            write: makes the call under a condition, with a policy for repeating it.
            is_ours: tells what this write would have made from anything else.
        """
        began = time.monotonic()
        if condition is not None:
            return self._written_over(condition, bucket, key, began, write, is_ours, always_look=False)
        try:
            return write(None, self.session.attempts(repeatable=False).policy)
        except Exception as exc:
            if not _may_be_done(exc):
                raise
            blob, failure = self._look(bucket, key), exc
        if blob is not None and self._since(blob, began):
            if is_ours(blob):
                return blob
            raise failure  # somebody wrote meanwhile: whether before us or over us nobody can tell
        generation = 0 if blob is None else blob.generation
        try:
            return self._written_over(generation, bucket, key, began, write, is_ours, always_look=True)
        except PreconditionFailed:
            raise failure from None

    def _written_over(
        self,
        generation: int,
        bucket: str,
        key: str,
        began: float,
        write: _Write,
        is_ours: Callable[[Blob], bool],
        *,
        always_look: bool,
    ) -> Blob:
        """Write over one generation; where that fails, look whether it was a lost success of ours that changed it."""
        attempts = self.session.attempts()
        try:
            return write(generation, attempts.policy)
        except PreconditionFailed:
            blob = self._look(bucket, key) if attempts.doubtful or always_look else None
            if blob is None or not self._since(blob, began) or not is_ours(blob):
                raise
            return blob

    def _since(self, resource: Untyped, began: float) -> bool:
        """Tell whether the server may have made a blob or a bucket since a moment of ours."""
        return self.session.clock.is_before(resource.time_created, began) is not True

    def _moved(self, upload: Upload, staged: Blob) -> Blob:
        """Move what an upload made onto its key, under the upload's condition; drop it if that does not hold."""
        bucket, options = self.client.bucket(upload.bucket), upload.options
        if options.lock != _UNLOCKED:
            return self._moved_locked(upload, staged)
        began, attempts = time.monotonic(), self.session.attempts()
        generation, checksum = staged.generation, staged.crc32c
        try:
            if not _rules.fits_headers(options):
                self._describe(staged, attrs.evolve(options, storage_class=None))
                staged.content_type = options.headers.content_type or DEFAULT_TYPE
                staged.patch(if_generation_match=generation, timeout=TIMEOUT, retry=self.session.attempts().policy)
            return bucket.move_blob(
                staged,
                upload.key,
                if_generation_match=self._condition(options),
                if_source_generation_match=generation,
                timeout=TIMEOUT,
                retry=attempts.policy,
            )
        except NotFound:
            # Moved by our first try; else nobody knows the name.
            blob = self._look(upload.bucket, upload.key) if attempts.doubtful else None
            if blob is None or not self._since(blob, began) or not is_as_written(blob, checksum, options):
                raise
            return blob
        except PreconditionFailed:
            self._delete(upload.bucket, staged.name, generation=generation)
            raise

    def _moved_locked(self, upload: Upload, staged: Blob) -> Blob:
        """Copy what an upload made onto its key, which locks it at once; a move takes no lock along."""
        options, generation, checksum = upload.options, staged.generation, staged.crc32c

        def write(condition: int | None, policy: Untyped) -> Blob:
            target = self._described(upload.bucket, upload.key, options)
            return _rewritten(target, staged, generation, options, condition, policy)

        condition = self._condition(options)
        try:
            made = self._written(
                upload.bucket, upload.key, condition, write, lambda found: is_as_written(found, checksum, options)
            )
        except PreconditionFailed:
            self._delete(upload.bucket, staged.name, generation=generation)
            raise
        self._delete(upload.bucket, staged.name, generation=generation)
        return made

    def _sent(self, batch: Untyped) -> Iterable[Untyped]:
        """Send a batch, which the SDK does not repeat; only a refusal for coming too fast is."""
        attempts = self.session.attempts(repeatable=False)
        answers: Iterable[Untyped] = attempts.policy(lambda: batch.finish(raise_exception=False))()
        return answers

    def _retried(self, bucket: str, failed: Mapping[str, Exception], began: float) -> dict[str, Fault]:
        """Delete one by one what a batch did not for reasons that pass; say what is left, and why."""
        left: dict[str, Fault] = {}
        for key, exc in failed.items():
            fault = _fault(exc)
            try:
                if _may_be_done(exc) and self._deleted_since(bucket, key, began):
                    continue
                if fault.error is Throttled:
                    self.delete(bucket, key, if_match=None, version=None)
                    continue
            except Exception as newer:
                if _fault(newer).missing == "bucket" or classify(newer) is None:
                    raise
                fault = _fault(newer)
            left[key] = fault
        return left

    def _deleted_since(self, bucket: str, key: str, began: float) -> bool:
        """Make sure of a delete that may or may not have been executed; ``False`` if that cannot be known."""
        found = self._look(bucket, key)
        if found is None:
            return True
        before = self.session.clock.is_before(found.time_created, began)
        if before:
            with suppress(PreconditionFailed):
                self._delete(bucket, key, condition=found.generation)
        # What was written since we began may have followed our delete, and is not what that was about.
        return before is not None

    def _delete(
        self,
        bucket: str,
        key: str,
        *,
        generation: int | None = None,
        condition: int | None = None,
        repeatable: bool = True,
        strict: bool = False,
    ) -> None:
        """Delete; a missing object is no error, unless ``strict`` says that it was to be there when we began."""
        attempts = self.session.attempts(repeatable=repeatable)
        try:
            self.client.bucket(bucket).delete_blob(
                key,
                generation=generation,
                if_generation_match=condition,
                timeout=TIMEOUT,
                retry=attempts.policy,
            )
        except NotFound as exc:
            if _fault(exc).missing == "bucket" or (strict and not attempts.doubtful):
                raise

    def _opened(self, blob: Blob, start: int, end: int, size: int) -> _Chunks:
        """Ask for bytes of one generation as they are stored: the SDK only pushes them into files."""
        transport, key, bucket = self.session.transport, quote(blob.name, safe=""), blob.bucket.name
        url = f"{self.client.api_endpoint}/download/storage/v1/b/{bucket}/o/{key}"
        whole = (start, end) == (0, size)
        headers = {"Accept-Encoding": "gzip"}  # else the service unpacks what is stored compressed
        if not whole:
            headers["Range"] = f"bytes={start}-{end - 1}"

        def once() -> Untyped:
            answer = transport.request(
                "GET", f"{url}?alt=media&generation={blob.generation}", headers=headers, stream=True, timeout=TIMEOUT
            )
            if not 200 <= answer.status_code < 300:
                with answer:
                    raise from_http_response(answer)
            return answer

        answer = self.session.attempts().policy(once)()
        if not whole and answer.status_code != 206:
            answer.close()
            why = "the server ignored the range and would have sent other bytes"
            raise self._error(errors.IntegrityError, "get", bucket, blob.name, why)
        expected = int.from_bytes(base64.b64decode(blob.crc32c), "big") if whole and blob.crc32c else None

        def altered() -> Exception:
            why = "the content does not have the CRC32C that the provider tells"
            return self._error(errors.IntegrityError, "get", bucket, blob.name, why)

        return _Chunks(answer, size, expected, altered)

    def _reaches(self, bucket: str, prefix: str, start_after: str | None) -> bool:
        """Tell whether there is a key of that prefix behind ``start_after``, which may itself have made it."""
        if start_after is None or not start_after.startswith(prefix):
            return True
        page = self.list(bucket, prefix=prefix, delimiter=None, start_after=start_after, cursor=None, limit=1)
        return bool(page.items or page.next)

    def _described(self, bucket: str, key: str, options: PutOptions) -> Blob:
        bucket_ = self.client.bucket(bucket)
        blob = held(key, bucket_) if options.hold else bucket_.blob(key)
        self._describe(blob, options)
        if options.retention is not None:
            retain(blob, options.retention)
        return blob

    def _describe(self, blob: Blob, options: PutOptions) -> None:
        """Set what is stored with an object, but its type, which the SDK wants by itself."""
        headers = options.headers
        for name in ("cache_control", "content_disposition", "content_encoding", "content_language"):
            value = getattr(headers, name)
            if value is not None:
                setattr(blob, name, value)
        if options.metadata:
            blob.metadata = dict(options.metadata)
        if options.storage_class is not None:
            blob.storage_class = options.storage_class

    def _condition(self, options: PutOptions) -> int | None:
        return 0 if options.if_absent else self._generation(options.if_match)

    def _generation(self, token: Token | None) -> int | None:
        """Return the generation that a token names. One of another provider is the version of no object here."""
        if token is None:
            return None
        if not _GENERATION.fullmatch(token.value):
            raise errors.PreconditionFailed(
                f"the object is not in the version {token.value!r}, which is no generation", provider=self.provider
            )
        return int(token.value)

    def _info(self, blob: Blob, version: str | None = None) -> ObjectInfo:
        if version is None and self._keeps_versions(blob.bucket.name):
            version = str(blob.generation)
        return info_of(blob, version)

    def _keeps_versions(self, bucket: str) -> bool:
        """Tell whether a bucket keeps older versions: an object's properties do not."""
        if bucket not in self._keeps:
            try:
                self._spec(self._bucket(bucket))
            except Forbidden:
                self._keeps[bucket] = False
        return self._keeps[bucket]

    def _changed(self, name: str) -> errors.Conflict:
        why = "the bucket is no longer what the change starts from; make a new plan"
        return errors.Conflict(why, provider=self.provider, operation="blob.update", resource=Resource("bucket", name))

    def _error(
        self, cls: type[errors.OperationError], operation: str, bucket: str, key: str, why: str
    ) -> errors.OperationError:
        resource = Resource("object", key, Resource("bucket", bucket))
        return cls(why, provider=self.provider, operation=f"blob.{operation}", resource=resource)


# keys of uploads


def _staging(key: str) -> str:
    """Return a key that nobody else has, beside the one that the object is to have in the end."""
    suffix = f"{_STAGED}{uuid.uuid4().hex}"
    return key.encode()[: FEATURES.max_key.value - len(suffix)].decode(errors="ignore") + suffix


def _told_apart(upload: Upload) -> tuple[str, str]:
    """Return the service's id of an upload, and the key from which it is moved, if it is."""
    if not upload.id.startswith("["):
        return upload.id, ""
    id_, staged = json.loads(upload.id)
    return id_, staged


def _rewritten(
    target: Blob, origin: Blob, generation: int, options: PutOptions, condition: int | None, policy: Untyped
) -> Blob:
    """Copy one generation inside the service, in as many steps as it takes."""
    target.content_type = options.headers.content_type or DEFAULT_TYPE
    token: str | None = None
    while True:
        token, _, _ = target.rewrite(
            origin,
            token=token,
            if_generation_match=condition,
            if_source_generation_match=generation,
            timeout=TIMEOUT,
            retry=policy,
        )
        if token is None:
            return target


# errors


def _fault(exc: Exception) -> Fault:
    return classify(exc) or Fault(errors.OperationError)


def _may_be_done(exc: Exception) -> bool:
    """Tell whether a call that failed may nevertheless have been executed, now or soon."""
    error = _fault(exc).error
    return error.retryable and error is not Throttled
