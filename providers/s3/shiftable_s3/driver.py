"""Blob storage over the S3 protocol, for Amazon and for whoever speaks it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote, unquote_plus, urlencode

import attrs
from botocore.exceptions import ClientError, SSLError
from botocore.parsers import ResponseParserError

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
from shiftable.errors import Conflict, Fault, IntegrityError, OperationError, Resource, Unsupported
from shiftable.paging import Page
from shiftable.tls import advised
from shiftable.tokens import Token
from shiftable_s3 import _buckets, cors, lifecycle, rules
from shiftable_s3._answers import (
    DEFAULT_TYPE,
    PLAIN_MD5,
    as_written,
    checksums_of,
    code_of,
    date_of,
    history,
    info_of,
    is_marker,
    keep_order,
    kept,
    may_be_own,
    md5_of,
    moment_of,
    no_version,
    part_token,
    place_of,
    retention_of,
    retried,
    status_of,
    summary_of,
    utc,
    version_of,
)
from shiftable_s3._conditions import Learned, objection, selection
from shiftable_s3.clients import at_once, only_s3, reasons_again
from shiftable_s3.errors import classify
from shiftable_s3.wire import fast_client, fits, is_fast

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["S3Driver"]

_PLAIN = SignOptions()
_CHUNK = 1024 * 1024
_PAGE = 1_000
_AMAZON = re.compile(r"//([^/]+\.)?amazonaws\.com(\.cn)?(/|$)")
_COPY_LIMIT = 5 * 1024**3
_COPY_PART = 512 * 1024**2
_COPY_WORKERS = 8
_NO_LISTING = "the answer is no listing: does a proxy answer in the server's place?"
_SIGNED = {"GET": "get_object", "PUT": "put_object", "DELETE": "delete_object"}
_SIGNED_HEADERS = {
    "ContentType": "Content-Type",
    "ContentMD5": "Content-MD5",
    "ContentLength": "Content-Length",
}

# What is optional in a call, by name; the client's stubs cannot type a dict that is filled step by step.
_Arguments = dict[str, Any]


class _Readable(Protocol):
    def read(self, amt: int) -> bytes: ...
    def close(self) -> None: ...


@attrs.define
class _Chunks(Iterator[bytes]):
    """The body of an answer, 1 MiB at a time; unlike a generator's, its ``close`` works before the first chunk too."""

    _body: _Readable

    def __next__(self) -> bytes:
        chunk = self._body.read(_CHUNK)
        if not chunk:
            self._body.close()
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Give the connection back."""
        self._body.close()


@attrs.define(eq=False)
class S3Driver(BlobDriver):
    """Blob storage over an S3 client, whose credentials, retries and endpoint are whatever it was made with.

    Permissions: ``s3:ListBucket``, ``s3:GetObject``, ``s3:PutObject``, ``s3:DeleteObject``,
    ``s3:AbortMultipartUpload``, ``s3:ListBucketMultipartUploads``; for tags ``s3:GetObjectTagging``,
    ``s3:PutObjectTagging``, ``s3:DeleteObjectTagging``; for versions ``s3:ListBucketVersions``,
    ``s3:GetObjectVersion``, ``s3:GetObjectVersionTagging``, ``s3:DeleteObjectVersion``; for buckets
    ``s3:CreateBucket``, ``s3:DeleteBucket``,
    ``s3:ListAllMyBuckets``, ``s3:GetBucketVersioning``, ``s3:PutBucketVersioning``, ``s3:GetLifecycleConfiguration``,
    ``s3:PutLifecycleConfiguration``, ``s3:GetBucketCORS``, ``s3:PutBucketCORS``; with ``block_public_access`` also
    ``s3:GetBucketPublicAccessBlock``, ``s3:PutBucketPublicAccessBlock`` and ``s3:GetEncryptionConfiguration``;
    for object lock ``s3:GetBucketObjectLockConfiguration``, ``s3:PutBucketObjectLockConfiguration``,
    ``s3:GetObjectRetention``, ``s3:PutObjectRetention``, ``s3:GetObjectLegalHold``, ``s3:PutObjectLegalHold`` and for
    ``bypass`` ``s3:BypassGovernanceRetention``. Without ``s3:ListBucket`` S3 answers 403,
    not 404, for a missing key.

    MD5: the ETag of an object written in one piece, unless it is encrypted with a KMS key or the customer's own: then
    the ETag is something else that looks alike. ``stat``, ``get`` and ``put`` see the encryption and answer ``None``; a
    listing does not tell it. Where KMS keys are in use, ask ``stat`` before believing a listing's MD5 that differs.

    Checksums: the SDK sends a CRC32 of all content, and Amazon keeps and tells it, also of what went in parts. To tell
    it of an object that is encrypted with a KMS key, S3 wants ``kms:Decrypt`` of that key.

    Tags: answers count an object's tags, unless there are none or the credentials may not read them. That nothing is
    told means none only in a bucket where a count was told before, or tags were read: let the permission to read tags
    be one of the bucket, not of some of its keys.

    Locks: reading an object tells them to whoever has the permissions to read them, and nothing to others. A locked
    version refuses its deletion like one that the credentials may not delete. In a bucket with a default retention what
    is written is locked without being told so: ``put`` does not know it, ``stat`` does.

    Conditions: when an answer is lost, the SDK sends the request again and a conditional write then fails on its own
    first success. The driver looks: what is there now and was written meanwhile, with the same content, headers and
    metadata, was written by us. A rival that writes the very same bytes in the same seconds cannot be told apart; let
    what serves as a lock name its holder.

    Args:
        client: made with ``clients.AWS_CONFIG`` or ``clients.SERVER_CONFIG``.
        region: where buckets are made.
        block_public_access: refuse public policies and ACLs on buckets that are made here.
        key_rule: says why a key that is otherwise fine cannot be held.
        compatible: the server is not Amazon's, and what others were seen to do otherwise is not taken on trust. Before
            the first write under a condition, find out with an object of our own whether the server obeys; some
            ignore what they do not know, and would overwrite. Look at the object after a copy. Set the tags of an
            object in parts when it is complete; for a moment it then has none.
        authorities: the setting that names whom TLS trusts.
        copy_limit: what is larger, in bytes, is copied in parts.
        copy_part: size of these parts; larger where 10,000 of them do not suffice.
    """

    client: S3Client
    provider: str
    features: BlobFeatures
    region: str
    block_public_access: bool = attrs.field(default=False, kw_only=True)
    key_rule: Callable[[str], str | None] = attrs.field(default=rules.server_key, kw_only=True)
    compatible: bool = attrs.field(default=False, kw_only=True)
    authorities: str = attrs.field(default="AWS_CA_BUNDLE", kw_only=True)
    copy_limit: int = attrs.field(default=_COPY_LIMIT, kw_only=True)
    copy_part: int = attrs.field(default=_COPY_PART, kw_only=True)
    _learned: Learned = attrs.field(factory=Learned, kw_only=True, repr=False)
    _fast: S3Driver | None = attrs.field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        at_once(self.client)
        reasons_again(self.client)
        only_s3(self.client)
        self.client.meta.events.register(
            "before-parse.s3.ListObjectVersions", keep_order, unique_id="shiftable-version-order"
        )

    def classify(self, exc: Exception) -> Fault | None:
        """Claim botocore's exceptions."""
        fault = classify(exc)
        if fault is None or not isinstance(exc, SSLError):
            return fault
        return attrs.evolve(fault, message=advised(fault.message, authorities=self.authorities, name="the endpoint"))

    def check_name(self, name: str) -> str | None:
        """Apply the rules for general purpose buckets."""
        return rules.bucket_name(name)

    def check_key(self, key: str) -> str | None:
        """Refuse what XML or the path of a URL could change."""
        return BlobDriver.check_key(self, key) or self.key_rule(key)

    def check_metadata(self, metadata: Mapping[str, str]) -> str | None:
        """Refuse what HTTP headers would change."""
        rule = rules.server_metadata if self.compatible else rules.metadata
        return BlobDriver.check_metadata(self, metadata) or rule(metadata)

    def check_headers(self, headers: Headers) -> str | None:
        """Refuse what is not ASCII, and blanks that HTTP drops."""
        return rules.headers(headers)

    def check_tags(self, tags: Mapping[str, str]) -> str | None:
        """Refuse the characters and lengths that tags do not have at Amazon, or at servers that are like it."""
        return BlobDriver.check_tags(self, tags) or (rules.server_tags if self.compatible else rules.tags)(tags)

    # buckets

    def create(self, spec: BucketSpec) -> None:
        """Make a bucket in the region, without public access; a bucket that is half made is deleted again."""
        _buckets.create(self.client, spec.name, self.region, object_lock=spec.object_lock)
        try:
            if self.block_public_access:
                _buckets.block_public_access(self.client, spec.name)
            if spec.versioning and not spec.object_lock:  # with it come versions
                self._set_versioning(spec.name, enabled=True)
            if spec.lifecycle:
                _buckets.set_lifecycle(self.client, spec)
            if spec.cors:
                _buckets.set_cors(self.client, spec)
        except Exception:
            with suppress(ClientError):
                self.client.delete_bucket(Bucket=spec.name)
            raise

    def describe(self, name: str) -> BucketSpec:
        """Return the declaration; a bucket with suspended versioning has none."""
        if not self.features.versioning:
            _buckets.require(self.client, name)
        versioning = self.client.get_bucket_versioning(Bucket=name).get("Status") if self.features.versioning else None
        found = _buckets.lifecycle_of(self.client, name) if self.features.lifecycle else {}
        return BucketSpec(
            name=name,
            versioning=versioning == "Enabled",
            lifecycle=lifecycle.declared(found.get("Rules", ())),
            cors=cors.declared(_buckets.cors_of(self.client, name)) if self.features.cors else (),
            public=self.block_public_access and not _buckets.is_closed(self.client, name),
            encryption=_buckets.encryption(self.client, name) if self.block_public_access else None,
            object_lock=self.features.object_lock and _buckets.has_locks(self.client, name),
        )

    def require(self, name: str) -> None:
        """Make one call, which needs no permission to read settings but that of versioning."""
        if self.features.versioning:
            self.client.get_bucket_versioning(Bucket=name)
        else:
            _buckets.require(self.client, name)

    def update(self, current: BucketSpec, spec: BucketSpec) -> None:
        """Enable or suspend versioning; older versions stay. Set lifecycle and CORS, and close what is open."""
        if self.describe(spec.name) != current:
            why = "the bucket is no longer what the change starts from; make a new plan"
            raise Conflict(why, provider=self.provider, operation="blob.update", resource=Resource("bucket", spec.name))
        if spec.versioning != current.versioning:
            self._set_versioning(spec.name, enabled=spec.versioning)
        if spec.object_lock and not current.object_lock:
            configuration: Any = {"ObjectLockEnabled": "Enabled"}
            self.client.put_object_lock_configuration(Bucket=spec.name, ObjectLockConfiguration=configuration)
        if spec.lifecycle != current.lifecycle:
            _buckets.set_lifecycle(self.client, spec)
        if spec.cors != current.cors:
            _buckets.set_cors(self.client, spec)
        if current.public and not spec.public:
            _buckets.block_public_access(self.client, spec.name)

    def destroy(self, name: str) -> None:
        """Delete an empty bucket; older versions and delete markers count as content."""
        self.client.delete_bucket(Bucket=name)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the account's buckets, of all regions."""
        # Without MaxBuckets an account with more than 10,000 buckets gets an error instead of pages.
        arguments: _Arguments = {"MaxBuckets": min(limit or _PAGE, _PAGE)}
        if cursor is not None:
            arguments["ContinuationToken"] = cursor
        answer = self.client.list_buckets(**arguments)
        return Page(tuple(bucket["Name"] for bucket in answer.get("Buckets", ())), answer.get("ContinuationToken"))

    # writing

    def put(self, bucket: str, key: str, data: bytes, options: PutOptions) -> ObjectInfo:
        """Write an object in one piece, 5 GiB at most."""
        arguments = _content(options) | self._conditions(bucket, options)
        if options.md5 is not None:
            arguments["ContentMD5"] = base64.b64encode(options.md5).decode()
        began = time.monotonic()
        try:
            answer = self.client.put_object(Bucket=bucket, Key=key, Body=data, **arguments)
        except ClientError as exc:
            if not may_be_own(exc):
                raise
            digest = hashlib.md5(data, usedforsecurity=False).digest()
            info = self._found_own(bucket, key, options, moment_of(exc.response, began), lambda it: it.md5 == digest)
            if info is None:
                raise
            return info
        # The answer does not tell when: its own date is within a second of what a listing will tell.
        return ObjectInfo(
            key=key,
            size=len(data),
            token=Token(answer["ETag"]),
            modified=date_of(answer),
            md5=md5_of(answer["ETag"], answer),
            storage_class=options.storage_class or "STANDARD",
            headers=kept(options.headers),
            metadata=options.metadata,
            version=version_of(answer),
            tag_count=len(options.tags),
            checksums=checksums_of(answer),
            retention=options.retention,
            hold=options.hold,
        )

    def upload_begin(self, bucket: str, key: str, options: PutOptions) -> Upload:
        """Begin a multipart upload."""
        self._conditions(bucket, options, parts=True)  # before all parts are sent in vain
        # Ceph 16 loses tags that are given here, and answers 200 without a body when it is asked for them.
        arguments = _content(attrs.evolve(options, tags={}) if self.compatible else options)
        if self._sends_checksums:
            # The SDK sends a CRC32 with each part, and S3 refuses one that was not announced here. Of the two types
            # only that of the full object lets a download be verified.
            arguments |= {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
        answer = self.client.create_multipart_upload(Bucket=bucket, Key=key, **arguments)
        return Upload(bucket=bucket, key=key, id=answer["UploadId"], options=options)

    def upload_part(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:
        """Send one part; its token holds the ETag and the checksums, which S3 wants back at the end."""
        answer = self.client.upload_part(
            Bucket=upload.bucket, Key=upload.key, UploadId=upload.id, PartNumber=number, Body=data
        )
        return Part(number=number, size=len(data), token=part_token(answer))

    def upload_complete(self, upload: Upload, parts: tuple[Part, ...]) -> ObjectInfo:
        """Make the object; S3 dates it back to when the upload began."""
        pieces = [{"PartNumber": part.number, **json.loads(part.token)} for part in parts]
        arguments = self._conditions(upload.bucket, upload.options, parts=True)
        if self._sends_checksums:
            arguments["ChecksumType"] = "FULL_OBJECT"
        try:
            answer = self.client.complete_multipart_upload(
                Bucket=upload.bucket,
                Key=upload.key,
                UploadId=upload.id,
                MultipartUpload={"Parts": pieces},  # type: ignore[typeddict-item]  # from a token, so untyped
                **arguments,
            )
            version = version_of(answer)
        except ClientError as exc:
            if not (may_be_own(exc) and self._is_own_upload(upload, pieces)):
                raise
            version = None
        if self.compatible and upload.options.tags:
            self.set_tags(upload.bucket, upload.key, upload.options.tags)
        info = self.stat(upload.bucket, upload.key, version=version)
        return as_written(info, upload.options)

    def upload_abort(self, upload: Upload) -> None:
        """Drop the parts."""
        try:
            self.client.abort_multipart_upload(Bucket=upload.bucket, Key=upload.key, UploadId=upload.id)
        except ClientError as exc:
            if code_of(exc) != "NoSuchUpload":
                raise

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
        """Open an object; its body is read 1 MiB at a time."""
        arguments = selection(if_match, version)
        if if_none_match is not None:
            arguments["IfNoneMatch"] = if_none_match.value
        if range_ is not None:
            if range_.stop is not None and range_.stop <= range_.start:
                return self._nothing(bucket, key, arguments)
            arguments["Range"] = f"bytes={range_.start}-{'' if range_.stop is None else range_.stop - 1}"
        try:
            answer = self.client.get_object(Bucket=bucket, Key=key, **arguments)
        except ClientError as exc:
            if is_marker(exc, version):
                raise no_version(exc) from exc
            if range_ is None or code_of(exc) != "InvalidRange":
                raise
            del arguments["Range"]
            return self._nothing(bucket, key, arguments)
        content: str | None = answer.get("ContentRange")
        if range_ is not None and content is None:
            answer["Body"].close()
            raise self._damaged("get", bucket, key, "the server ignored the range and would have sent other bytes")
        size = self._size("get", bucket, key, answer) if content is None else int(content.rpartition("/")[2])
        info = info_of(key, size, answer, self._tag_count(bucket, "GET", answer))
        return Download(info=info, chunks=_Chunks(answer["Body"]))

    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        """Return an object's properties; a second call tells a missing bucket from a missing key, as HEAD does not."""
        return self._head(bucket, key, selection(None, version))

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
        """Return one page of at most 1,000. The SDK has keys URL-encoded, so that XML cannot change them."""
        arguments: _Arguments = {"Prefix": prefix} if prefix else {}
        if delimiter:
            arguments["Delimiter"] = delimiter
        if cursor is not None:
            arguments["ContinuationToken"] = cursor
        elif start_after is not None:
            arguments["StartAfter"] = start_after
        if limit is not None and limit < _PAGE:
            arguments["MaxKeys"] = limit
        answer = self.client.list_objects_v2(Bucket=bucket, **arguments)
        if "IsTruncated" not in answer:
            raise self._no_listing("list", bucket, _NO_LISTING)
        items: list[ObjectSummary | CommonPrefix] = [summary_of(entry) for entry in answer.get("Contents", ())]
        rolled = [CommonPrefix(entry["Prefix"]) for entry in answer.get("CommonPrefixes", ())]
        if rolled:
            items = sorted([*items, *rolled], key=place_of)
        following = answer.get("NextContinuationToken")
        if answer.get("IsTruncated") and not following:
            why = "there are more keys, and the server does not say where: it may not know ListObjectsV2"
            raise self._no_listing("list", bucket, why)
        return Page(tuple(items), following)

    # deleting

    def delete(self, bucket: str, key: str, *, if_match: Token | None, version: str | None) -> None:
        """Delete an object or one version of it."""
        try:
            self.client.delete_object(Bucket=bucket, Key=key, **selection(if_match, version))
        except ClientError as exc:
            # Sent again after a lost answer: what the first one was to delete is gone.
            gone = retried(exc) and code_of(exc) in {"NoSuchKey", "404"}
            if not gone:
                raise

    def delete_many(self, bucket: str, keys: tuple[str, ...]) -> Mapping[str, Fault]:
        """Delete up to 1,000 objects."""
        answer = self.client.delete_objects(
            Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
        )
        return {error["Key"]: self._fault(error) for error in answer.get("Errors", ())}

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
        """Copy inside S3, in parts above 5 GiB; the source must stay in the version that was found first."""
        if self.compatible and options is not None and (options.if_absent or options.if_match):
            # Even servers that know conditions of writes ignore them on copies, which Amazon has only since 2025.
            raise Unsupported("no copies under a condition inside a server that may ignore it", provider=self.provider)
        source = self.stat(bucket, key, version=version)
        if source.size > self.copy_limit:
            return self._copy_parts(bucket, source, to_bucket, to_key, options, version)
        arguments = {} if options is None else _content(options) | self._conditions(to_bucket, options)
        if options is not None:
            arguments |= {"MetadataDirective": "REPLACE", "TaggingDirective": "REPLACE"}
        began = time.monotonic()
        try:
            answer = self.client.copy_object(
                Bucket=to_bucket,
                Key=to_key,
                CopySource=_source(bucket, key, version),
                CopySourceIfMatch=source.token.value,
                **arguments,
            )
        except ClientError as exc:
            if options is None or not may_be_own(exc):
                raise
            since = moment_of(exc.response, began)
            info = self._found_own(to_bucket, to_key, options, since, lambda it: _holds_the_same(it, source))
            if info is None:
                raise
            return info
        if self.compatible:
            if options is not None and options.tags:  # Ceph 16 loses them here, too
                self.set_tags(to_bucket, to_key, options.tags)
            # It also looks for CopySourceIfMatch under another name, and tells the ETag without quotes.
            return self.stat(to_bucket, to_key, version=version_of(answer))
        result = answer["CopyObjectResult"]
        return attrs.evolve(
            source,
            key=to_key,
            token=Token(result["ETag"]),
            modified=utc(result["LastModified"]),
            md5=md5_of(result["ETag"], answer),
            storage_class="STANDARD" if options is None else options.storage_class or "STANDARD",
            headers=source.headers if options is None else kept(options.headers),
            metadata=source.metadata if options is None else options.metadata,
            version=version_of(answer),
            tag_count=source.tag_count if options is None else len(options.tags),
            checksums=checksums_of(result),
            retention=options.retention if options is not None else None,
            hold=options is not None and options.hold,
        )

    def copies_from(self, other: BlobDriver) -> bool:
        """Tell whether both are Amazon's, in one partition, or at one endpoint: bucket names are global there."""
        if not isinstance(other, S3Driver) or self.compatible or other.compatible:
            return False
        here, there = (driver.client.meta for driver in (self, other))
        return here.endpoint_url == there.endpoint_url or (
            here.partition == there.partition
            and all(_AMAZON.search(meta.endpoint_url) is not None for meta in (here, there))
        )

    def tags(self, bucket: str, key: str, *, version: str | None = None) -> Mapping[str, str]:
        """Return an object's tags."""
        answer = self.client.get_object_tagging(Bucket=bucket, Key=key, **selection(None, version))
        if not self.compatible:  # other servers may never count
            self._learned.counted.update([(bucket, "GET"), (bucket, "HEAD")])
        return {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", ())}

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        """Replace all tags of an object."""
        if not tags:
            self.client.delete_object_tagging(Bucket=bucket, Key=key)
            return
        pairs = [{"Key": name, "Value": value} for name, value in tags.items()]
        self.client.put_object_tagging(Bucket=bucket, Key=key, Tagging={"TagSet": pairs})  # type: ignore[typeddict-item]  # a list of dicts

    def lock_of(self, bucket: str, key: str, *, version: str | None) -> Lock:
        """Ask for both, by two calls that fail where the credentials may not read them."""
        selected = selection(None, version)
        found = self._lock_told(lambda: self.client.get_object_retention(Bucket=bucket, Key=key, **selected))
        told = found.get("Retention", {})
        held = self._lock_told(lambda: self.client.get_object_legal_hold(Bucket=bucket, Key=key, **selected))
        return Lock(
            retention=retention_of(told.get("Mode"), told.get("RetainUntilDate")),
            hold=held.get("LegalHold", {}).get("Status") == "ON",
        )

    def set_retention(
        self, bucket: str, key: str, retention: Retention | None, *, version: str | None, bypass: bool
    ) -> None:
        """Set it, or with an empty one take it away."""
        self._require_locks()
        wanted: Any = {}
        if retention is not None:
            wanted = {"Mode": retention.mode.upper(), "RetainUntilDate": retention.until}
        arguments = selection(None, version) | ({"BypassGovernanceRetention": True} if bypass else {})
        self.client.put_object_retention(Bucket=bucket, Key=key, Retention=wanted, **arguments)

    def set_hold(self, bucket: str, key: str, *, hold: bool, version: str | None) -> None:
        """Set it on or off."""
        self._require_locks()
        wanted: Any = {"Status": "ON" if hold else "OFF"}
        self.client.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold=wanted, **selection(None, version))

    def versions(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[ObjectVersion]:
        """Return one page of versions and delete markers; the cursor holds S3's two markers."""
        arguments: _Arguments = {"Prefix": prefix} if prefix else {}
        if cursor is not None:
            arguments["KeyMarker"], arguments["VersionIdMarker"] = json.loads(cursor)
        if limit is not None and limit < _PAGE:
            arguments["MaxKeys"] = limit
        answer = self.client.list_object_versions(Bucket=bucket, **arguments)
        if "IsTruncated" not in answer:
            raise self._no_listing("versions", bucket, _NO_LISTING)
        more = answer["IsTruncated"]
        if more and not answer.keys() >= {"NextKeyMarker", "NextVersionIdMarker"}:
            raise self._no_listing("versions", bucket, "there are more versions, and the server does not say where")
        following = json.dumps([answer["NextKeyMarker"], answer["NextVersionIdMarker"]]) if more else None
        # Amazon's order, which is kept: sorting is stable. Other servers write all versions before all delete markers.
        entries = sorted(history(answer), key=lambda entry: entry.modified, reverse=True)
        return Page(tuple(sorted(entries, key=lambda entry: (entry.key, not entry.latest))), following)

    def uploads(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[PendingUpload]:
        """Return one page of at most 1,000; the cursor holds S3's two markers."""
        # URL-encoded, so that XML cannot change keys. The SDK asks for that, and decodes it, in other listings only.
        arguments: _Arguments = {"EncodingType": "url"} | ({"Prefix": prefix} if prefix else {})
        if cursor is not None:
            arguments["KeyMarker"], arguments["UploadIdMarker"] = json.loads(cursor)
        if limit is not None and limit < _PAGE:
            arguments["MaxUploads"] = limit
        answer = self.client.list_multipart_uploads(Bucket=bucket, **arguments)
        if "IsTruncated" not in answer:
            raise self._no_listing("uploads", bucket, _NO_LISTING)
        encoded = answer.get("EncodingType") == "url" or self._encodes_untold(bucket, arguments, answer)
        plain = unquote_plus if encoded else str
        found = tuple(
            PendingUpload(key=plain(entry["Key"]), id=entry["UploadId"], started=utc(entry["Initiated"]))
            for entry in answer.get("Uploads", ())
        )
        if not answer["IsTruncated"]:
            return Page(found)
        # The markers are the last upload's; Ceph encodes the one and not the other.
        markers = (found[-1].key, found[-1].id) if found else (answer["NextKeyMarker"], answer["NextUploadIdMarker"])
        return Page(found, json.dumps(markers))

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
        """Sign a URL; it ends sooner with the credentials if these are temporary."""
        answer = options.answer
        parameters = {
            "Bucket": bucket,
            "Key": key,
            "ContentType": content_type,
            "ContentMD5": base64.b64encode(options.md5).decode() if options.md5 is not None else None,
            "ContentLength": options.size,
            "ResponseContentType": answer.content_type,
            "ResponseContentDisposition": answer.content_disposition,
        }
        told = {name: value for name, value in parameters.items() if value is not None}
        seconds = max(1, int(expires.total_seconds()))
        url = self.client.generate_presigned_url(_SIGNED[method], Params=told, ExpiresIn=seconds)
        bound = {_SIGNED_HEADERS[name]: str(value) for name, value in told.items() if name in _SIGNED_HEADERS}
        return SignedURL(url, bound)

    def lane(self) -> S3Driver:
        """Return this driver over a client that sends the hot operations directly, if it understands this one."""
        if is_fast(self.client) or not fits(self.client):
            return self
        if self._fast is None:
            self._fast = attrs.evolve(self, client=fast_client(self.client))
        return self._fast

    @property
    def gives_way(self) -> bool:
        """The bulk lane does."""
        return is_fast(self.client)

    def close(self) -> None:
        """Close the client's connections."""
        if self._fast is not None:
            self._fast.close()
        self.client.close()

    # work

    @property
    def _sends_checksums(self) -> bool:
        # botocore gives its Config such attributes at run time; the stubs do not know them.
        return bool(getattr(self.client.meta.config, "request_checksum_calculation", "") == "when_supported")

    def _encodes_untold(self, bucket: str, arguments: _Arguments, answer: Mapping[str, Any]) -> bool:
        """Tell whether keys came URL-encoded though the answer does not say so, as Ceph 16's do, from a second look."""
        keys = {entry["UploadId"]: entry["Key"] for entry in answer.get("Uploads", ())}
        if not any("%" in key for key in keys.values()):
            return False
        unasked = {name: value for name, value in arguments.items() if name != "EncodingType"}
        try:
            again = self.client.list_multipart_uploads(Bucket=bucket, **unasked)
        except ResponseParserError:  # a key that XML cannot hold, so the first answer was encoded
            return True
        return any(keys.get(entry["UploadId"], entry["Key"]) != entry["Key"] for entry in again.get("Uploads", ()))

    def _require_locks(self) -> None:
        if not self.features.object_lock:
            raise Unsupported("no object lock that this server is known to keep", provider=self.provider)

    def _lock_told(self, ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return an answer about a lock; an object that has none, or a bucket that has none, is a refusal to S3."""
        try:
            return ask()
        except ClientError as exc:
            if code_of(exc) not in {"NoSuchObjectLockConfiguration", "InvalidRequest"}:
                raise
            return {}

    def _set_versioning(self, name: str, *, enabled: bool) -> None:
        self._learned.obeyed -= {known for known in self._learned.obeyed if known[0] == name}
        self.client.put_bucket_versioning(
            Bucket=name, VersioningConfiguration={"Status": "Enabled" if enabled else "Suspended"}
        )

    def _conditions(self, bucket: str, options: PutOptions, *, parts: bool = False) -> _Arguments:
        """Return the condition of a write, and refuse it where the server is found to ignore it."""
        if options.if_absent:
            name, value = "IfNoneMatch", "*"
        elif options.if_match is not None:
            name, value = "IfMatch", options.if_match.value
        else:
            return {}
        # Once for each bucket: Ceph 16 obeys in plain buckets, and not in those with versions.
        if self.compatible and (bucket, name, parts) not in self._learned.obeyed:
            why = objection(self.client, self._learned, bucket, name, parts=parts)
            if why is not None:
                raise Unsupported(why, provider=self.provider, resource=Resource("bucket", bucket))
            self._learned.obeyed.add((bucket, name, parts))
        return {name: value.strip('"') if self._learned.bare_etags else value}

    def _head(self, bucket: str, key: str, arguments: _Arguments) -> ObjectInfo:
        if self._sends_checksums:
            arguments = arguments | {"ChecksumMode": "ENABLED"}
        try:
            answer = self.client.head_object(Bucket=bucket, Key=key, **arguments)
        except ClientError as exc:
            if status_of(exc.response) == 404:
                _buckets.require(self.client, bucket)
            if is_marker(exc, arguments.get("VersionId")):
                raise no_version(exc) from exc
            raise
        size = self._size("stat", bucket, key, answer)
        return info_of(key, size, answer, self._tag_count(bucket, "HEAD", answer))

    def _size(self, operation: str, bucket: str, key: str, answer: Mapping[str, Any]) -> int:
        """Return the size of an object, which a proxy that changes what comes may leave out."""
        size: int | None = answer.get("ContentLength")
        if size is None:
            if "Body" in answer:
                answer["Body"].close()
            raise self._damaged(operation, bucket, key, "its size is not told: does a proxy change what comes?")
        return size

    def _no_listing(self, operation: str, bucket: str, why: str) -> IntegrityError:
        where = Resource("bucket", bucket)
        return IntegrityError(why, provider=self.provider, operation=f"blob.{operation}", resource=where)

    def _damaged(self, operation: str, bucket: str, key: str, why: str) -> IntegrityError:
        resource = Resource("object", key, Resource("bucket", bucket))
        return IntegrityError(why, provider=self.provider, operation=f"blob.{operation}", resource=resource)

    def _tag_count(self, bucket: str, method: str, answer: Mapping[str, Any]) -> int | None:
        """Return how many tags an answer tells of; none only where that is known to mean something."""
        told: int | None = answer.get("TagCount")
        if told is not None:
            self._learned.counted.add((bucket, method))
        return 0 if told is None and (bucket, method) in self._learned.counted else told

    def _nothing(self, bucket: str, key: str, arguments: _Arguments) -> Download:
        return Download(info=self._head(bucket, key, arguments), chunks=iter(()))

    def _found_own(
        self, bucket: str, key: str, options: PutOptions, began: datetime, holds_ours: Callable[[ObjectInfo], bool]
    ) -> ObjectInfo | None:
        """Return what is there if it is what we have just written."""
        try:
            info = self.stat(bucket, key, version=None)
        except ClientError:
            return None
        if not holds_ours(info) or info.modified < began or not _is_described(info, options):
            return None
        return as_written(info, options)

    def _is_own_upload(self, upload: Upload, pieces: Iterable[Mapping[str, Any]]) -> bool:
        """Tell whether what is there has the ETag that our parts make, and is described as they are."""
        found = [PLAIN_MD5.fullmatch(piece["ETag"]) for piece in pieces]
        digests = b"".join(bytes.fromhex(match.group(1)) for match in found if match is not None)
        expected = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(found)}"
        try:
            info = self.stat(upload.bucket, upload.key, version=None)
        except ClientError:
            return False
        return info.token.value.strip('"') == expected and _is_described(info, upload.options)

    def _copy_parts(
        self,
        bucket: str,
        source: ObjectInfo,
        to_bucket: str,
        to_key: str,
        options: PutOptions | None,
        version: str | None,
    ) -> ObjectInfo:
        if options is None:
            tagged = self.features.tags and source.tag_count != 0
            tags = self.tags(bucket, source.key, version=version) if tagged else {}
            options = PutOptions(headers=source.headers, metadata=source.metadata, tags=tags)
        upload = self.upload_begin(to_bucket, to_key, options)
        step = max(self.copy_part, -(-source.size // 10_000))

        def part(start: int) -> Part:
            stop = min(start + step, source.size)
            answer = self.client.upload_part_copy(
                Bucket=to_bucket,
                Key=to_key,
                UploadId=upload.id,
                PartNumber=start // step + 1,
                CopySource=_source(bucket, source.key, version),
                CopySourceIfMatch=source.token.value,
                CopySourceRange=f"bytes={start}-{stop - 1}",
            )
            return Part(number=start // step + 1, size=stop - start, token=part_token(answer["CopyPartResult"]))

        try:
            with ThreadPoolExecutor(_COPY_WORKERS, thread_name_prefix="shiftable-copy") as pool:
                parts = tuple(pool.map(part, range(0, source.size, step)))
            if self.compatible:
                self._require_unchanged(bucket, source, version)
            return self.upload_complete(upload, parts)
        except BaseException:
            self.upload_abort(upload)
            raise

    def _require_unchanged(self, bucket: str, source: ObjectInfo, version: str | None) -> None:
        """Fail if the source was written meanwhile: the server may have ignored CopySourceIfMatch."""
        if self.stat(bucket, source.key, version=version).token != source.token:
            why = "the source was changed during the copy; copy it again"
            resource = Resource("object", source.key, Resource("bucket", bucket))
            raise Conflict(why, provider=self.provider, operation="blob.copy", resource=resource)

    def _fault(self, error: Mapping[str, Any]) -> Fault:
        code, message = error.get("Code", ""), error.get("Message", "")
        native = ClientError({"Error": {"Code": code, "Message": message}}, "DeleteObjects")
        return self.classify(native) or Fault(OperationError, message, code)


# what is there, and what was written


def _is_described(info: ObjectInfo, options: PutOptions) -> bool:
    """Tell whether an object has the headers and the metadata of a write."""
    return (info.headers, info.metadata) == (kept(options.headers), options.metadata)


def _holds_the_same(info: ObjectInfo, source: ObjectInfo) -> bool:
    """Tell whether two objects have one content; without a digest of both nobody knows."""
    if info.md5 is not None and source.md5 is not None:
        return info.md5 == source.md5
    told = info.checksums.keys() & source.checksums.keys()
    return bool(told) and all(info.checksums[name] == source.checksums[name] for name in told)


# arguments of calls


def _content(options: PutOptions) -> _Arguments:
    """Return what is stored with an object. The type is always said, so that it does not depend on the server."""
    headers = options.headers
    arguments: _Arguments = {"ContentType": headers.content_type or DEFAULT_TYPE}
    if headers.cache_control is not None:
        arguments["CacheControl"] = headers.cache_control
    if headers.content_disposition is not None:
        arguments["ContentDisposition"] = headers.content_disposition
    if headers.content_encoding is not None:
        arguments["ContentEncoding"] = headers.content_encoding
    if headers.content_language is not None:
        arguments["ContentLanguage"] = headers.content_language
    if options.metadata:
        arguments["Metadata"] = options.metadata
    if options.tags:
        arguments["Tagging"] = urlencode(options.tags, quote_via=quote)  # a blank as %20: Ceph keeps a + as it is
    if options.storage_class is not None:
        arguments["StorageClass"] = options.storage_class
    if options.retention is not None:
        arguments["ObjectLockMode"] = options.retention.mode.upper()
        arguments["ObjectLockRetainUntilDate"] = f"{options.retention.until:%Y-%m-%dT%H:%M:%SZ}"
    if options.hold:
        arguments["ObjectLockLegalHoldStatus"] = "ON"
    return arguments


def _source(bucket: str, key: str, version: str | None) -> Any:  # noqa: ANN401  argument of calls
    return {"Bucket": bucket, "Key": key} | ({} if version is None else {"VersionId": version})
