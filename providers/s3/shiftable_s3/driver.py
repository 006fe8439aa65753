"""Blob storage over the S3 protocol, for Amazon and for whoever speaks it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote, unquote_plus, urlencode

import attrs
from botocore.exceptions import ClientError
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
    RetentionMode,
    SignedURL,
    SignOptions,
    Upload,
)
from shiftable.errors import Conflict, Fault, IntegrityError, OperationError, Resource, Unsupported
from shiftable.paging import Page
from shiftable.tokens import Token
from shiftable_s3 import lifecycle, rules
from shiftable_s3.clients import at_once, moment, reasons_again
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
_SKEW = timedelta(seconds=2)
_SIGNED = {"GET": "get_object", "PUT": "put_object", "DELETE": "delete_object"}
_SIGNED_HEADERS = {
    "ContentType": "Content-Type",
    "ContentMD5": "Content-MD5",
    "ContentLength": "Content-Length",
}
_CLOSED = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_CHECKSUMS = ("ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256")
_PLAIN_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_VERSION_ENTRY = re.compile(rb"<(Version|DeleteMarker)>")
_VERSION_ORDER = "ShiftableOrder"
_DEFAULT_TYPE = "application/octet-stream"

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


@attrs.define
class _Learned:
    """What the driver has found out: mostly about a server that is not Amazon's.

    Attributes:
        counted: in which buckets, by GET or HEAD, that no number of tags is told means that there are none.
    """

    counted: set[tuple[str, str]] = attrs.field(factory=set)
    obeyed: set[tuple[str, str, bool]] = attrs.field(factory=set)
    bare_etags: bool = False


@attrs.define(eq=False)
class S3Driver(BlobDriver):
    """Blob storage over an S3 client, whose credentials, retries and endpoint are whatever it was made with.

    Permissions: ``s3:ListBucket``, ``s3:GetObject``, ``s3:PutObject``, ``s3:DeleteObject``,
    ``s3:AbortMultipartUpload``, ``s3:ListBucketMultipartUploads``; for tags ``s3:GetObjectTagging``,
    ``s3:PutObjectTagging``, ``s3:DeleteObjectTagging``; for versions ``s3:ListBucketVersions``,
    ``s3:GetObjectVersion``, ``s3:GetObjectVersionTagging``, ``s3:DeleteObjectVersion``; for buckets
    ``s3:CreateBucket``, ``s3:DeleteBucket``,
    ``s3:ListAllMyBuckets``, ``s3:GetBucketVersioning``, ``s3:PutBucketVersioning``, ``s3:GetLifecycleConfiguration``,
    ``s3:PutLifecycleConfiguration``; with ``block_public_access`` also ``s3:GetBucketPublicAccessBlock``,
    ``s3:PutBucketPublicAccessBlock`` and ``s3:GetEncryptionConfiguration``; for object lock
    ``s3:GetBucketObjectLockConfiguration``, ``s3:PutBucketObjectLockConfiguration``, ``s3:GetObjectRetention``,
    ``s3:PutObjectRetention``, ``s3:GetObjectLegalHold``, ``s3:PutObjectLegalHold`` and for ``bypass``
    ``s3:BypassGovernanceRetention``. Without ``s3:ListBucket`` S3 answers 403,
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
    copy_limit: int = attrs.field(default=_COPY_LIMIT, kw_only=True)
    copy_part: int = attrs.field(default=_COPY_PART, kw_only=True)
    _learned: _Learned = attrs.field(factory=_Learned, kw_only=True, repr=False)
    _fast: S3Driver | None = attrs.field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        at_once(self.client)
        reasons_again(self.client)
        self.client.meta.events.register(
            "before-parse.s3.ListObjectVersions", _keep_order, unique_id="shiftable-version-order"
        )

    def classify(self, exc: Exception) -> Fault | None:
        """Claim botocore's exceptions."""
        return classify(exc)

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
        self._create(spec.name, object_lock=spec.object_lock)
        try:
            if self.block_public_access:
                self._block_public_access(spec.name)
            if spec.versioning and not spec.object_lock:  # with it come versions
                self._set_versioning(spec.name, enabled=True)
            if spec.lifecycle:
                self._set_lifecycle(spec)
        except Exception:
            with suppress(ClientError):
                self.client.delete_bucket(Bucket=spec.name)
            raise

    def describe(self, name: str) -> BucketSpec:
        """Return the declaration; a bucket with suspended versioning has none."""
        if not self.features.versioning:
            self._require_bucket(name)
        versioning = self.client.get_bucket_versioning(Bucket=name).get("Status") if self.features.versioning else None
        found = self._lifecycle(name) if self.features.lifecycle else {}
        return BucketSpec(
            name=name,
            versioning=versioning == "Enabled",
            lifecycle=lifecycle.declared(found.get("Rules", ())),
            public=self.block_public_access and not self._is_closed(name),
            encryption=self._encryption(name) if self.block_public_access else None,
            object_lock=self.features.object_lock and self._has_locks(name),
        )

    def require(self, name: str) -> None:
        """Make one call, which needs no permission to read settings but that of versioning."""
        if self.features.versioning:
            self.client.get_bucket_versioning(Bucket=name)
        else:
            self._require_bucket(name)

    def update(self, current: BucketSpec, spec: BucketSpec) -> None:
        """Enable or suspend versioning; older versions stay. Set the lifecycle, and close what is open."""
        if self.describe(spec.name) != current:
            why = "the bucket is no longer what the change starts from; make a new plan"
            raise Conflict(why, provider=self.provider, operation="blob.update", resource=Resource("bucket", spec.name))
        if spec.versioning != current.versioning:
            self._set_versioning(spec.name, enabled=spec.versioning)
        if spec.object_lock and not current.object_lock:
            configuration: Any = {"ObjectLockEnabled": "Enabled"}
            self.client.put_object_lock_configuration(Bucket=spec.name, ObjectLockConfiguration=configuration)
        if spec.lifecycle != current.lifecycle:
            self._set_lifecycle(spec)
        if current.public and not spec.public:
            self._block_public_access(spec.name)

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
            if not _may_be_own(exc):
                raise
            info = self._found_own_put(bucket, key, data, options, _moment(exc.response, began))
            if info is None:
                raise
            return info
        # The answer does not tell when: its own date is within a second of what a listing will tell.
        return ObjectInfo(
            key=key,
            size=len(data),
            token=Token(answer["ETag"]),
            modified=_date(answer),
            md5=_md5(answer["ETag"], answer),
            storage_class=options.storage_class or "STANDARD",
            headers=_kept(options.headers),
            metadata=options.metadata,
            version=_version(answer),
            tag_count=len(options.tags),
            checksums=_checksums(answer),
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
        return Part(number=number, size=len(data), token=_part_token(answer))

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
        except ClientError as exc:
            info = self._found_own_upload(upload, pieces) if _may_be_own(exc) else None
            if info is None:
                raise
            return info
        if self.compatible and upload.options.tags:
            self.set_tags(upload.bucket, upload.key, upload.options.tags)
        info = self.stat(upload.bucket, upload.key, version=_version(answer))
        return _as_written(info, upload.options)

    def upload_abort(self, upload: Upload) -> None:
        """Drop the parts."""
        try:
            self.client.abort_multipart_upload(Bucket=upload.bucket, Key=upload.key, UploadId=upload.id)
        except ClientError as exc:
            if _code(exc) != "NoSuchUpload":
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
        arguments = _selected(if_match, version)
        if if_none_match is not None:
            arguments["IfNoneMatch"] = if_none_match.value
        if range_ is not None:
            if range_.stop is not None and range_.stop <= range_.start:
                return self._nothing(bucket, key, arguments)
            arguments["Range"] = f"bytes={range_.start}-{'' if range_.stop is None else range_.stop - 1}"
        try:
            answer = self.client.get_object(Bucket=bucket, Key=key, **arguments)
        except ClientError as exc:
            if _is_marker(exc, version):
                raise _no_version(exc) from exc
            if range_ is None or _code(exc) != "InvalidRange":
                raise
            del arguments["Range"]
            return self._nothing(bucket, key, arguments)
        content: str | None = answer.get("ContentRange")
        if range_ is not None and content is None:
            answer["Body"].close()
            raise IntegrityError(
                "the server ignored the range and would have sent other bytes",
                provider=self.provider,
                operation="blob.get",
                resource=Resource("object", key, Resource("bucket", bucket)),
            )
        size = answer["ContentLength"] if content is None else int(content.rpartition("/")[2])
        info = _info(key, size, answer, self._tag_count(bucket, "GET", answer))
        return Download(info=info, chunks=_Chunks(answer["Body"]))

    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        """Return an object's properties; a second call tells a missing bucket from a missing key, as HEAD does not."""
        return self._head(bucket, key, _selected(None, version))

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
        items: list[ObjectSummary | CommonPrefix] = [_summary(entry) for entry in answer.get("Contents", ())]
        rolled = [CommonPrefix(entry["Prefix"]) for entry in answer.get("CommonPrefixes", ())]
        if rolled:
            items = sorted([*items, *rolled], key=_place)
        return Page(tuple(items), answer.get("NextContinuationToken"))

    # deleting

    def delete(self, bucket: str, key: str, *, if_match: Token | None, version: str | None) -> None:
        """Delete an object or one version of it."""
        try:
            self.client.delete_object(Bucket=bucket, Key=key, **_selected(if_match, version))
        except ClientError as exc:
            # Sent again after a lost answer: what the first one was to delete is gone.
            gone = _retried(exc) and _code(exc) in {"NoSuchKey", "404"}
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
        answer = self.client.copy_object(
            Bucket=to_bucket,
            Key=to_key,
            CopySource=_source(bucket, key, version),
            CopySourceIfMatch=source.token.value,
            **arguments,
        )
        if self.compatible:
            if options is not None and options.tags:  # Ceph 16 loses them here, too
                self.set_tags(to_bucket, to_key, options.tags)
            # It also looks for CopySourceIfMatch under another name, and tells the ETag without quotes.
            return self.stat(to_bucket, to_key, version=_version(answer))
        result = answer["CopyObjectResult"]
        return attrs.evolve(
            source,
            key=to_key,
            token=Token(result["ETag"]),
            modified=_utc(result["LastModified"]),
            md5=_md5(result["ETag"], answer),
            storage_class="STANDARD" if options is None else options.storage_class or "STANDARD",
            headers=source.headers if options is None else _kept(options.headers),
            metadata=source.metadata if options is None else options.metadata,
            version=_version(answer),
            tag_count=source.tag_count if options is None else len(options.tags),
            checksums=_checksums(result),
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
        answer = self.client.get_object_tagging(Bucket=bucket, Key=key, **_selected(None, version))
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
        selected = _selected(None, version)
        found = self._lock_told(lambda: self.client.get_object_retention(Bucket=bucket, Key=key, **selected))
        told = found.get("Retention", {})
        held = self._lock_told(lambda: self.client.get_object_legal_hold(Bucket=bucket, Key=key, **selected))
        return Lock(
            retention=_retention(told.get("Mode"), told.get("RetainUntilDate")),
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
        arguments = _selected(None, version) | ({"BypassGovernanceRetention": True} if bypass else {})
        self.client.put_object_retention(Bucket=bucket, Key=key, Retention=wanted, **arguments)

    def set_hold(self, bucket: str, key: str, *, hold: bool, version: str | None) -> None:
        """Set it on or off."""
        self._require_locks()
        wanted: Any = {"Status": "ON" if hold else "OFF"}
        self.client.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold=wanted, **_selected(None, version))

    def versions(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[ObjectVersion]:
        """Return one page of versions and delete markers; the cursor holds S3's two markers."""
        arguments: _Arguments = {"Prefix": prefix} if prefix else {}
        if cursor is not None:
            arguments["KeyMarker"], arguments["VersionIdMarker"] = json.loads(cursor)
        if limit is not None and limit < _PAGE:
            arguments["MaxKeys"] = limit
        answer = self.client.list_object_versions(Bucket=bucket, **arguments)
        more = answer["IsTruncated"]
        following = json.dumps([answer["NextKeyMarker"], answer["NextVersionIdMarker"]]) if more else None
        # Amazon's order, which is kept: sorting is stable. Other servers write all versions before all delete markers.
        entries = sorted(_history(answer), key=lambda entry: entry.modified, reverse=True)
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
        encoded = answer.get("EncodingType") == "url" or self._encodes_untold(bucket, arguments, answer)
        plain = unquote_plus if encoded else str
        found = tuple(
            PendingUpload(key=plain(entry["Key"]), id=entry["UploadId"], started=_utc(entry["Initiated"]))
            for entry in answer.get("Uploads", ())
        )
        if not answer.get("IsTruncated"):
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

    def _has_locks(self, name: str) -> bool:
        try:
            answer = self.client.get_object_lock_configuration(Bucket=name)
        except ClientError as exc:
            if _code(exc) != "ObjectLockConfigurationNotFoundError":
                raise
            return False
        return answer["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled"

    def _lock_told(self, ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return an answer about a lock; an object that has none, or a bucket that has none, is a refusal to S3."""
        try:
            return ask()
        except ClientError as exc:
            if _code(exc) not in {"NoSuchObjectLockConfiguration", "InvalidRequest"}:
                raise
            return {}

    def _create(self, name: str, *, object_lock: bool) -> None:
        with_locks: _Arguments = {"ObjectLockEnabledForBucket": True} if object_lock else {}
        if self.region != "us-east-1":
            constraint: Any = {"LocationConstraint": self.region}
            self.client.create_bucket(Bucket=name, CreateBucketConfiguration=constraint, **with_locks)
            return
        # In the oldest region alone, making one's own bucket again is answered with 200; other regions answer 409.
        try:
            self.client.head_bucket(Bucket=name)
        except ClientError:
            self.client.create_bucket(Bucket=name, **with_locks)
        else:
            message = "the bucket exists already, and you own it"
            raise ClientError({"Error": {"Code": "BucketAlreadyOwnedByYou", "Message": message}}, "CreateBucket")

    def _block_public_access(self, name: str) -> None:
        self.client.put_public_access_block(
            Bucket=name,
            PublicAccessBlockConfiguration=dict.fromkeys(_CLOSED, True),  # type: ignore[arg-type]  # a TypedDict
        )

    def _is_closed(self, name: str) -> bool:
        try:
            answer = self.client.get_public_access_block(Bucket=name)
        except ClientError as exc:
            if _code(exc) != "NoSuchPublicAccessBlockConfiguration":
                raise
            return False
        told: Mapping[str, object] = answer["PublicAccessBlockConfiguration"]
        return all(told.get(what) for what in _CLOSED)

    def _encryption(self, name: str) -> str | None:
        try:
            answer = self.client.get_bucket_encryption(Bucket=name)
        except ClientError as exc:
            if _code(exc) != "ServerSideEncryptionConfigurationNotFoundError":
                raise
            return None
        rules_: Any = answer["ServerSideEncryptionConfiguration"]["Rules"]
        defaults = (rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules_)
        return next((each["SSEAlgorithm"] for each in defaults if "SSEAlgorithm" in each), None)

    def _lifecycle(self, name: str) -> Mapping[str, Any]:
        try:
            return self.client.get_bucket_lifecycle_configuration(Bucket=name)
        except ClientError as exc:
            if _code(exc) != "NoSuchLifecycleConfiguration":
                raise
            return {}

    def _set_lifecycle(self, spec: BucketSpec) -> None:
        current = self._lifecycle(spec.name)
        wanted: Any = lifecycle.native(current.get("Rules", ()), spec.lifecycle)
        if not wanted:
            self.client.delete_bucket_lifecycle(Bucket=spec.name)
            return
        name = "TransitionDefaultMinimumObjectSize"  # said again, or it falls back to its default
        kept: Any = {name: current[name]} if name in current else {}
        self.client.put_bucket_lifecycle_configuration(
            Bucket=spec.name, LifecycleConfiguration={"Rules": wanted}, **kept
        )

    def _set_versioning(self, name: str, *, enabled: bool) -> None:
        self._learned.obeyed -= {known for known in self._learned.obeyed if known[0] == name}
        self.client.put_bucket_versioning(
            Bucket=name, VersioningConfiguration={"Status": "Enabled" if enabled else "Suspended"}
        )

    def _require_bucket(self, name: str) -> None:
        """Fail with a body that names the code, as HEAD would not."""
        self.client.list_objects_v2(Bucket=name, MaxKeys=1)

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
            why = self._objection(bucket, name, parts=parts)
            if why is not None:
                raise Unsupported(why, provider=self.provider, resource=Resource("bucket", bucket))
            self._learned.obeyed.add((bucket, name, parts))
        return {name: value.strip('"') if self._learned.bare_etags else value}

    def _objection(self, bucket: str, name: str, *, parts: bool) -> str | None:
        """Find out why a condition cannot be relied on; learn how the server wants ETags."""
        kind = " of uploads in parts" * parts
        if not self._obeys(bucket, name, parts=parts):
            return f"the server ignores the condition {name}{kind} in this bucket and would overwrite"
        if name == "IfMatch":
            bare = self._wants_bare_etags(bucket)
            if bare is None:
                return f"the server refuses every write under the condition {name} in this bucket"
            self._learned.bare_etags = bare
        return None

    def _obeys(self, bucket: str, name: str, *, parts: bool) -> bool:
        """Find out whether a condition that does not hold stops a write; what is written for that is deleted."""
        target = _probe(bucket)
        condition: Any = {name: "*" if name == "IfNoneMatch" else f'"{"0" * 32}"'}
        written: list[Any] = []
        try:
            if name == "IfNoneMatch":
                written.append(self.client.put_object(**target))
            if parts:
                written.append(self._written_in_parts(target, condition))
            else:
                written.append(self.client.put_object(**target, **condition))
        except ClientError as exc:
            if _code(exc) == "NoSuchBucket" or _status(exc.response) not in {404, 412, 501}:
                raise
            return _status(exc.response) != 501
        finally:
            self._remove(target, written)
        return False

    def _wants_bare_etags(self, bucket: str) -> bool | None:
        """Find out how the server wants an ETag: Ceph 16 compares without the quotes that it tells it with.

        With versions Ceph 16 compares with what does not exist yet: ``None``.
        """
        target = _probe(bucket)
        written: list[Any] = [self.client.put_object(**target)]
        etag: str = written[0]["ETag"]
        try:
            for bare in (False, True):
                try:
                    written.append(self.client.put_object(**target, IfMatch=etag.strip('"') if bare else etag))
                except ClientError as exc:
                    if _status(exc.response) != 412:
                        raise
                else:
                    return bare
        finally:
            self._remove(target, written)
        return None

    def _remove(self, target: _Arguments, written: Iterable[Any]) -> None:
        for answer in written:
            self.client.delete_object(**target, **_selected(None, _version(answer)))

    def _written_in_parts(self, target: Any, condition: Any) -> Mapping[str, Any]:  # noqa: ANN401  arguments of calls
        upload = {**target, "UploadId": self.client.create_multipart_upload(**target)["UploadId"]}
        try:
            part = self.client.upload_part(**upload, PartNumber=1, Body=b"x")
            pieces: Any = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            return self.client.complete_multipart_upload(**upload, MultipartUpload=pieces, **condition)
        except ClientError:
            self.client.abort_multipart_upload(**upload)
            raise

    def _head(self, bucket: str, key: str, arguments: _Arguments) -> ObjectInfo:
        if self._sends_checksums:
            arguments = arguments | {"ChecksumMode": "ENABLED"}
        try:
            answer = self.client.head_object(Bucket=bucket, Key=key, **arguments)
        except ClientError as exc:
            if _status(exc.response) == 404:
                self._require_bucket(bucket)
            if _is_marker(exc, arguments.get("VersionId")):
                raise _no_version(exc) from exc
            raise
        return _info(key, answer["ContentLength"], answer, self._tag_count(bucket, "HEAD", answer))

    def _tag_count(self, bucket: str, method: str, answer: Mapping[str, Any]) -> int | None:
        """Return how many tags an answer tells of; none only where that is known to mean something."""
        told: int | None = answer.get("TagCount")
        if told is not None:
            self._learned.counted.add((bucket, method))
        return 0 if told is None and (bucket, method) in self._learned.counted else told

    def _nothing(self, bucket: str, key: str, arguments: _Arguments) -> Download:
        return Download(info=self._head(bucket, key, arguments), chunks=iter(()))

    def _found_own_put(
        self, bucket: str, key: str, data: bytes, options: PutOptions, began: datetime
    ) -> ObjectInfo | None:
        """Return what is there if it is what we have just written."""
        try:
            info = self.stat(bucket, key, version=None)
        except ClientError:
            return None
        same = info.md5 == hashlib.md5(data, usedforsecurity=False).digest() and info.modified >= began
        if not same or (info.headers, info.metadata) != (_kept(options.headers), options.metadata):
            return None
        return _as_written(info, options)

    def _found_own_upload(self, upload: Upload, pieces: Iterable[Mapping[str, Any]]) -> ObjectInfo | None:
        """Return what is there if its ETag is the one that our parts make."""
        found = [_PLAIN_MD5.fullmatch(piece["ETag"]) for piece in pieces]
        digests = b"".join(bytes.fromhex(match.group(1)) for match in found if match is not None)
        expected = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(found)}"
        try:
            info = self.stat(upload.bucket, upload.key, version=None)
        except ClientError:
            return None
        return info if info.token.value.strip('"') == expected else None

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
            return Part(number=start // step + 1, size=stop - start, token=_part_token(answer["CopyPartResult"]))

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


# arguments of calls


def _content(options: PutOptions) -> _Arguments:
    """Return what is stored with an object. The type is always said, so that it does not depend on the server."""
    headers = options.headers
    arguments: _Arguments = {"ContentType": headers.content_type or _DEFAULT_TYPE}
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


def _probe(bucket: str) -> _Arguments:
    return {"Bucket": bucket, "Key": f".shiftable-probe-{uuid.uuid4().hex}"}


def _source(bucket: str, key: str, version: str | None) -> Any:  # noqa: ANN401  argument of calls
    return {"Bucket": bucket, "Key": key} | ({} if version is None else {"VersionId": version})


def _selected(if_match: Token | None, version: str | None) -> _Arguments:
    arguments: _Arguments = {} if if_match is None else {"IfMatch": if_match.value}
    if version is not None:
        arguments["VersionId"] = version
    return arguments


# values out of answers


def _info(key: str, size: int, answer: Mapping[str, Any], tag_count: int | None) -> ObjectInfo:
    etag = answer["ETag"]
    return ObjectInfo(
        key=key,
        size=size,
        token=Token(etag),
        modified=_utc(answer["LastModified"]),
        md5=_md5(etag, answer),
        storage_class=answer.get("StorageClass", "STANDARD"),
        headers=Headers(
            content_type=answer.get("ContentType"),
            cache_control=answer.get("CacheControl"),
            content_disposition=answer.get("ContentDisposition"),
            content_encoding=answer.get("ContentEncoding"),
            content_language=answer.get("ContentLanguage"),
        ),
        metadata=answer["Metadata"],
        version=_version(answer),
        tag_count=tag_count,
        checksums=_checksums(answer),
        retention=_retention(answer.get("ObjectLockMode"), answer.get("ObjectLockRetainUntilDate")),
        hold=answer.get("ObjectLockLegalHoldStatus") == "ON",
    )


def _retention(mode: str | None, until: datetime | None) -> Retention | None:
    told: Mapping[str | None, RetentionMode] = {"GOVERNANCE": "governance", "COMPLIANCE": "compliance"}
    return Retention(until=until, mode=told[mode]) if mode in told and until is not None else None


def _as_written(info: ObjectInfo, options: PutOptions) -> ObjectInfo:
    """Add what the answer does not tell to whoever may only write."""
    return attrs.evolve(
        info,
        tag_count=len(options.tags),
        retention=info.retention or options.retention,
        hold=info.hold or options.hold,
    )


def _summary(entry: Mapping[str, Any]) -> ObjectSummary:
    etag = entry["ETag"]
    return ObjectSummary(
        key=entry["Key"],
        size=entry["Size"],
        token=Token(etag),
        modified=_utc(entry["LastModified"]),
        md5=_plain_md5(etag),
        storage_class=entry.get("StorageClass", "STANDARD"),
    )


def _plain_md5(etag: str) -> bytes | None:
    """Return what an ETag is the MD5 of, if it looks like one; for listings, where each key counts."""
    text = etag.strip('"')
    try:
        return bytes.fromhex(text) if len(text) == 32 else None
    except ValueError:
        return None


def _place(item: ObjectSummary | CommonPrefix) -> str:
    return item.prefix if isinstance(item, CommonPrefix) else item.key


def _kept(headers: Headers) -> Headers:
    return headers if headers.content_type is not None else attrs.evolve(headers, content_type=_DEFAULT_TYPE)


def _md5(etag: str, answer: Mapping[str, Any]) -> bytes | None:
    if answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer:
        return None
    found = _PLAIN_MD5.fullmatch(etag)
    return bytes.fromhex(found.group(1)) if found else None


def _checksums(answer: Mapping[str, Any]) -> dict[str, bytes]:
    """Return those of the whole content; one that is made of the parts' ends in their number."""
    told = {name: answer[name] for name in _CHECKSUMS if answer.get(name)}
    if answer.get("ChecksumType") == "COMPOSITE":
        return {}
    return {
        name.removeprefix("Checksum").lower(): base64.b64decode(text) for name, text in told.items() if "-" not in text
    }


def _version(answer: Mapping[str, Any]) -> str | None:
    """Return the id; ``null`` is what S3 calls the only version of an object in a bucket without versioning."""
    version: str | None = answer.get("VersionId")
    return None if version == "null" else version


def _part_token(answer: Mapping[str, Any]) -> str:
    return json.dumps({name: answer[name] for name in ("ETag", *_CHECKSUMS) if name in answer})


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _date(answer: Mapping[str, Any]) -> datetime:
    """Return the server's time of an answer."""
    text = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return moment(text) if text else datetime.now(UTC)


def _moment(answer: Mapping[str, Any], began: float) -> datetime:
    """Return the server's time of the first attempt, at the latest."""
    return _date(answer) - timedelta(seconds=time.monotonic() - began) - _SKEW


def _history(answer: Mapping[str, Any]) -> Iterator[ObjectVersion]:
    """Put the two lists of an answer together again, in the order in which S3 wrote them."""
    kinds = {b"Version": iter(answer.get("Versions", ())), b"DeleteMarker": iter(answer.get("DeleteMarkers", ()))}
    for kind in answer[_VERSION_ORDER]:
        entry = next(kinds[kind])
        yield ObjectVersion(
            key=entry["Key"],
            version=entry["VersionId"],
            size=entry.get("Size", 0),
            token=Token(entry.get("ETag", entry["VersionId"])),
            modified=_utc(entry["LastModified"]),
            latest=entry["IsLatest"],
            deleted=kind == b"DeleteMarker",
        )


def _keep_order(response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Note how versions and delete markers alternate: the SDK makes two lists of them, and S3 tells whole seconds."""
    if response_dict["status_code"] < 300:
        customized_response_dict[_VERSION_ORDER] = _VERSION_ENTRY.findall(response_dict["body"])


# errors


def _code(exc: ClientError) -> str:
    return exc.response.get("Error", {}).get("Code", "")


def _status(answer: Mapping[str, Any]) -> int:
    status: int = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def _retried(exc: ClientError) -> bool:
    return exc.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0


def _may_be_own(exc: ClientError) -> bool:
    """Tell whether a write may have failed on its own first attempt, whose answer was lost."""
    return _retried(exc) and _code(exc) in {"PreconditionFailed", "NoSuchUpload"}


def _is_marker(exc: ClientError, version: str | None) -> bool:
    """Tell whether a version that was asked for is a delete marker, which S3 answers with 405."""
    return version is not None and _status(exc.response) == 405


def _no_version(exc: ClientError) -> ClientError:
    answer: Any = {**exc.response, "Error": {"Code": "NoSuchVersion", "Message": "this version is a delete marker"}}
    return ClientError(answer, exc.operation_name)
