"""Blob storage on Google Cloud Storage."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal

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
    Upload,
)
from shiftable.errors import Fault, Throttled
from shiftable.paging import Page
from shiftable.tokens import Token
from shiftable_gcp import _cors, _features, _lifecycle, _rules
from shiftable_gcp._blob_told import (
    DEFAULT_TYPE,
    Resource,
    generation_of,
    headers_of,
    info_of,
    is_as_written,
    made,
    place_of,
    retain,
    rules_of,
    summary_of,
    version_of,
)
from shiftable_gcp._crc32c import combined, crc32c, told
from shiftable_gcp._multipart import SentPart, XmlUploads
from shiftable_gcp._objects import Media, Rows, SdkObjects, describe, resource_of
from shiftable_gcp._session import TIMEOUT, Session, Untyped
from shiftable_gcp._signing import signing
from shiftable_gcp._wire import WireObjects
from shiftable_gcp.errors import classify

__all__ = ["GcsDriver"]

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

_Write = Callable[[int | None, Untyped], Resource]


@attrs.define
class _Chunks(Iterator[bytes]):
    """The body of an answer, 1 MiB at a time; one that came whole must have the CRC32C that was told of it."""

    _media: Media
    _size: int
    _expected: int | None
    _altered: Callable[[], Exception]
    _at: int = attrs.field(default=0, init=False)
    _crc: int = attrs.field(default=0, init=False)

    def __next__(self) -> bytes:
        chunk = self._media.read(_CHUNK)
        if not chunk:
            self._media.close()
            if self._expected is not None and self._at == self._size and self._crc != self._expected:
                raise self._altered()
            raise StopIteration
        self._crc = crc32c(chunk, self._crc)
        self._at += len(chunk)
        return chunk

    def close(self) -> None:
        """Give the connection back."""
        self._media.close()


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
    features: BlobFeatures = attrs.field(default=_features.BLOB, kw_only=True)
    _keeps: dict[str, bool] = attrs.field(factory=dict, init=False, repr=False)
    _fast: GcsDriver | None = attrs.field(default=None, init=False, repr=False)
    _objects: SdkObjects = attrs.field(init=False, repr=False)

    @_objects.default
    def _objects_of_session(self) -> SdkObjects:
        return WireObjects(self.session) if self.session.is_lane else SdkObjects(self.session)

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

    def as_kept(self, spec: BucketSpec) -> BucketSpec:
        """Say in CORS rules that what may be sent may be read, and the other way round."""
        return attrs.evolve(spec, cors=_cors.kept(spec.cors))

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
        if spec.cors:
            bucket.cors = _cors.native((), spec.cors)
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
        self._page(name, size=1, fields="items(name)")

    def update(self, current: BucketSpec, spec: BucketSpec) -> None:
        """Switch versioning, set lifecycle and CORS, close what is open, all in one call; older versions stay."""
        bucket, attempts = self._bucket(spec.name), self.session.attempts()
        if self._spec(bucket) != current:
            raise self._changed(spec.name)
        bucket.versioning_enabled = spec.versioning
        if spec.lifecycle != current.lifecycle:
            bucket.lifecycle_rules = _lifecycle.native(rules_of(bucket), spec.lifecycle)
        if self.as_kept(spec).cors != current.cors:
            bucket.cors = _cors.native(bucket.cors, spec.cors)
        if current.public and not spec.public:
            bucket.iam_configuration.public_access_prevention = "enforced"
        self._keeps.pop(spec.name, None)
        try:
            bucket.patch(if_metageneration_match=bucket.metageneration, timeout=TIMEOUT, retry=attempts.policy)
        except PreconditionFailed as exc:
            if not attempts.doubtful or self.describe(spec.name) != self.as_kept(spec):
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

        def write(condition: int | None, policy: Untyped) -> Resource:
            sent = time.monotonic()
            written = self._objects.write(bucket, key, data, options, policy, match=condition)
            self.session.clock.observe(made(written), _GRAIN, sent, time.monotonic())
            return written

        def is_ours(found: Resource) -> bool:
            return is_as_written(found, told(crc32c(data)), options)

        return self._info(bucket, self._written(bucket, key, self._condition(options), write, is_ours))

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
            found = self._found(upload.bucket, key)
        except GoogleAPICallError as exc:
            # Completed by our first try, or of a staged one, whose key nobody else knows, perhaps before a restart.
            there = self._look(upload.bucket, key) if _fault(exc).code == "NoSuchUpload" else None
            if there is None or not (staged or (attempts.doubtful and self._since(made(there), began))):
                raise
            if there.get("crc32c") != checksum:
                raise
            found = there
        if found.get("crc32c") != checksum:
            why = "the object is not made of these parts: its CRC32C is another"
            raise self._error(errors.IntegrityError, "upload_complete", upload.bucket, upload.key, why)
        return self._info(upload.bucket, self._moved(upload, found) if staged else found)

    def upload_abort(self, upload: Upload) -> None:
        """Drop the parts, and what they became where it was not moved."""
        id_, staged = _told_apart(upload)
        try:
            self._uploads.abort(upload.bucket, staged or upload.key, id_)
        except GoogleAPICallError as exc:
            if _fault(exc).code != "NoSuchUpload":
                raise
        there = self._look(upload.bucket, staged) if staged else None
        if there is not None:  # by its generation: where versions are kept, it would stay as an older one
            self._delete(upload.bucket, staged, generation=generation_of(there))

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
            found = self._found(bucket, key, if_match=if_match, if_none_match=if_none_match, version=version)
            info = self._info(bucket, found, version)
            try:
                return self._opened(bucket, info, range_, generation=generation_of(found))
            except NotFound as exc:
                if version is not None or _fault(exc).missing == "bucket":
                    raise
                # Replaced since we asked; now the newer one is there.
        raise self._error(errors.Conflict, "get", bucket, key, "the object is replaced faster than it can be opened")

    def reopen(self, bucket: str, known: ObjectSummary, *, range_: Range | None, version: str | None) -> Download:
        """Open an object without another question about it."""
        if version is not None:
            return self._opened(bucket, known, range_, generation=self._version(bucket, known.key, version))
        return self._opened(bucket, known, range_, match=self._generation(known.token))

    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        """Return everything about an object but its content."""
        return self._info(bucket, self._found(bucket, key, version=version), version)

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
        page = self._page(
            bucket,
            prefix=prefix,
            delimiter=delimiter,
            start=start_after,
            cursor=cursor,
            size=wanted,
            fields=_SUMMARY_FIELDS,
        )
        items: list[ObjectSummary | CommonPrefix] = [
            summary_of(found) for found in page.items if found["name"] != start_after
        ]
        rolled = [CommonPrefix(name) for name in page.prefixes if self._reaches(bucket, name, start_after)]
        if rolled:
            items = sorted([*items, *rolled], key=place_of)
        return Page(tuple(items), page.next)

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
        kept = options or PutOptions(headers=headers_of(source), metadata=source.get("metadata", {}))
        generation, checksum = generation_of(source), source["crc32c"]

        def write(condition: int | None, policy: Untyped) -> Resource:
            return self._objects.rewrite(
                (bucket, key),
                (to_bucket, to_key),
                kept,
                policy,
                custom_time=source.get("customTime") if options is None else None,
                # Only where it is asked for: one that was found, and is gone, would be a missing object.
                generation=generation if version is not None else None,
                source_match=generation,
                match=condition,
            )

        condition = None if options is None else self._condition(options)
        return self._info(
            to_bucket,
            self._written(to_bucket, to_key, condition, write, lambda found: is_as_written(found, checksum, kept)),
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
        size = _PAGE if limit is None else max(2, min(limit + 1, _PAGE))
        rows: list[ObjectVersion] = []
        following: str | None = None
        start, more = cursor, None
        while True:
            page = self._page(
                bucket, prefix=prefix, start=start, cursor=more, size=size, versions=True, fields=_VERSION_FIELDS
            )
            rows += [version_of(found) for found in page.items]
            more = page.next
            if more is None:
                break
            if rows and rows[-1].key != rows[0].key:
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

    def _page(self, bucket: str, **options: Untyped) -> Rows:
        return self._objects.page(bucket, self.session.attempts().policy, **options)

    def _spec(self, bucket: Untyped) -> BucketSpec:
        self._keeps[bucket.name] = bool(bucket.versioning_enabled)
        return BucketSpec(
            name=bucket.name,
            versioning=self._keeps[bucket.name],
            lifecycle=tuple(_lifecycle.declared(rules_of(bucket))),
            cors=_cors.declared(bucket.cors),
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
        return self._spec(bucket) == self.as_kept(spec) and self._since(bucket.time_created, began)

    def _found(
        self,
        bucket: str,
        key: str,
        *,
        if_match: Token | None = None,
        if_none_match: Token | None = None,
        version: str | None = None,
    ) -> Resource:
        """Return everything about an object."""
        known = if_none_match is not None and _GENERATION.fullmatch(if_none_match.value)
        return self._objects.look(
            bucket,
            key,
            self.session.attempts().policy,
            generation=self._version(bucket, key, version),
            match=self._generation(if_match),
            not_match=self._generation(if_none_match) if known else None,
        )

    def _selected(self, bucket: str, key: str, version: str | None) -> Untyped:
        """Return the SDK's handle of an object, or of one version of it. Calls nobody."""
        return self.client.bucket(bucket).blob(key, generation=self._version(bucket, key, version))

    def _version(self, bucket: str, key: str, version: str | None) -> int | None:
        """Return the generation that a version is."""
        if version is None:
            return None
        if not _GENERATION.fullmatch(version):
            raise self._error(errors.NotFound, "stat", bucket, key, f"there is no version {version!r}")
        return int(version)

    def _look(self, bucket: str, key: str) -> Resource | None:
        """Return what is there, if anything."""
        try:
            return self._found(bucket, key)
        except NotFound as exc:
            if _fault(exc).missing == "bucket":
                raise
            return None

    def _written(
        self, bucket: str, key: str, condition: int | None, write: _Write, is_ours: Callable[[Resource], bool]
    ) -> Resource:
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
            found, failure = self._look(bucket, key), exc
        if found is not None and self._since(made(found), began):
            if is_ours(found):
                return found
            raise failure  # somebody wrote meanwhile: whether before us or over us nobody can tell
        generation = 0 if found is None else generation_of(found)
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
        is_ours: Callable[[Resource], bool],
        *,
        always_look: bool,
    ) -> Resource:
        """Write over one generation; where that fails, look whether it was a lost success of ours that changed it."""
        attempts = self.session.attempts()
        try:
            return write(generation, attempts.policy)
        except PreconditionFailed:
            found = self._look(bucket, key) if attempts.doubtful or always_look else None
            if found is None or not self._since(made(found), began) or not is_ours(found):
                raise
            return found

    def _since(self, moment: datetime, began: float) -> bool:
        """Tell whether what the server made at a moment of its own may be newer than a moment of ours."""
        return self.session.clock.is_before(moment, began) is not True

    def _moved(self, upload: Upload, staged: Resource) -> Resource:
        """Move what an upload made onto its key, under the upload's condition; drop it if that does not hold."""
        bucket, options = self.client.bucket(upload.bucket), upload.options
        if options.lock != _UNLOCKED:
            return self._moved_locked(upload, staged)
        began, attempts = time.monotonic(), self.session.attempts()
        generation, checksum = generation_of(staged), staged["crc32c"]
        handle = bucket.blob(staged["name"], generation=generation)
        try:
            if not _rules.fits_headers(options):
                describe(handle, attrs.evolve(options, storage_class=None))
                handle.content_type = options.headers.content_type or DEFAULT_TYPE
                handle.patch(if_generation_match=generation, timeout=TIMEOUT, retry=self.session.attempts().policy)
            moved = bucket.move_blob(
                handle,
                upload.key,
                if_generation_match=self._condition(options),
                if_source_generation_match=generation,
                timeout=TIMEOUT,
                retry=attempts.policy,
            )
            return resource_of(moved)
        except NotFound:
            # Moved by our first try; else nobody knows the name.
            found = self._look(upload.bucket, upload.key) if attempts.doubtful else None
            if found is None or not self._since(made(found), began) or not is_as_written(found, checksum, options):
                raise
            return found
        except PreconditionFailed:
            self._delete(upload.bucket, staged["name"], generation=generation)
            raise

    def _moved_locked(self, upload: Upload, staged: Resource) -> Resource:
        """Copy what an upload made onto its key, which locks it at once; a move takes no lock along."""
        options, generation, checksum = upload.options, generation_of(staged), staged["crc32c"]

        def write(condition: int | None, policy: Untyped) -> Resource:
            return self._objects.rewrite(
                (upload.bucket, staged["name"]),
                (upload.bucket, upload.key),
                options,
                policy,
                custom_time=None,
                generation=generation,
                source_match=generation,
                match=condition,
            )

        condition = self._condition(options)
        try:
            moved = self._written(
                upload.bucket, upload.key, condition, write, lambda found: is_as_written(found, checksum, options)
            )
        except PreconditionFailed:
            self._delete(upload.bucket, staged["name"], generation=generation)
            raise
        self._delete(upload.bucket, staged["name"], generation=generation)
        return moved

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
        before = self.session.clock.is_before(made(found), began)
        if before:
            with suppress(PreconditionFailed):
                self._delete(bucket, key, condition=generation_of(found))
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
            self._objects.delete(bucket, key, attempts.policy, generation=generation, match=condition)
        except NotFound as exc:
            if _fault(exc).missing == "bucket" or (strict and not attempts.doubtful):
                raise

    def _opened(
        self,
        bucket: str,
        known: ObjectSummary,
        range_: Range | None,
        *,
        generation: int | None = None,
        match: int | None = None,
    ) -> Download:
        """Open what is known, for some of its bytes."""
        key, size, checksum = known.key, known.size, known.checksums.get("crc32c")
        start, stop = (0, None) if range_ is None else (range_.start, range_.stop)
        end = size if stop is None else min(stop, size)
        if start >= end:
            return Download(info=known, chunks=iter(()))
        span = None if (start, end) == (0, size) else (start, end)
        policy = self.session.attempts().policy
        media = self._objects.open(bucket, key, policy, generation=generation, match=match, span=span)
        if span is not None and media.status != 206:
            media.close()
            why = "the server ignored the range and would have sent other bytes"
            raise self._error(errors.IntegrityError, "get", bucket, key, why)
        expected = int.from_bytes(checksum, "big") if span is None and checksum else None

        def altered() -> Exception:
            why = "the content does not have the CRC32C that the provider tells"
            return self._error(errors.IntegrityError, "get", bucket, key, why)

        return Download(info=known, chunks=_Chunks(media, size, expected, altered))

    def _reaches(self, bucket: str, prefix: str, start_after: str | None) -> bool:
        """Tell whether there is a key of that prefix behind ``start_after``, which may itself have made it."""
        if start_after is None or not start_after.startswith(prefix):
            return True
        page = self.list(bucket, prefix=prefix, delimiter=None, start_after=start_after, cursor=None, limit=1)
        return bool(page.items or page.next)

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

    def _info(self, bucket: str, found: Resource, version: str | None = None) -> ObjectInfo:
        if version is None and self._keeps_versions(bucket):
            version = found["generation"]
        return info_of(found, version)

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
        return errors.Conflict(
            why, provider=self.provider, operation="blob.update", resource=errors.Resource("bucket", name)
        )

    def _error(
        self, cls: type[errors.OperationError], operation: str, bucket: str, key: str, why: str
    ) -> errors.OperationError:
        resource = errors.Resource("object", key, errors.Resource("bucket", bucket))
        return cls(why, provider=self.provider, operation=f"blob.{operation}", resource=resource)


# keys of uploads


def _staging(key: str) -> str:
    """Return a key that nobody else has, beside the one that the object is to have in the end."""
    suffix = f"{_STAGED}{uuid.uuid4().hex}"
    return key.encode()[: _features.BLOB.max_key.value - len(suffix)].decode(errors="ignore") + suffix


def _told_apart(upload: Upload) -> tuple[str, str]:
    """Return the service's id of an upload, and the key from which it is moved, if it is."""
    if not upload.id.startswith("["):
        return upload.id, ""
    id_, staged = json.loads(upload.id)
    return id_, staged


# errors


def _fault(exc: Exception) -> Fault:
    return classify(exc) or Fault(errors.OperationError)


def _may_be_done(exc: Exception) -> bool:
    """Tell whether a call that failed may nevertheless have been executed, now or soon."""
    error = _fault(exc).error
    return error.retryable and error is not Throttled
