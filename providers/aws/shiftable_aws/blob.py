"""Amazon S3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from shiftable.blob.driver import BlobFeatures, StorageClass
from shiftable.features import Limit
from shiftable_s3 import rules

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from shiftable_s3.driver import S3Driver

__all__ = ["FEATURES", "blob_driver"]

_LIMITS = "Amazon S3 User Guide, multipart upload limits"

FEATURES = BlobFeatures(
    title="Amazon S3",
    if_absent=True,
    if_match=True,
    delete_if_match=True,
    headers=True,
    metadata=True,
    tags=True,
    versioning=True,
    copy=True,
    sign=True,
    sign_answer=True,
    sign_md5=True,
    sign_size=True,
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
    storage_classes=(
        StorageClass("STANDARD", "standard"),
        StorageClass("INTELLIGENT_TIERING", "standard"),
        StorageClass("REDUCED_REDUNDANCY", "standard"),
        StorageClass("STANDARD_IA", "infrequent"),
        StorageClass("ONEZONE_IA", "infrequent"),
        StorageClass("GLACIER_IR", "cold"),
        StorageClass("DEEP_ARCHIVE", "archive", online=False),
        StorageClass("GLACIER", "archive", online=False),
    ),
    checksums=("crc32",),
    md5_in_listing=True,
    any_key=True,
    max_key=Limit(1024, "Amazon S3 User Guide, naming objects"),
    max_object=Limit(10_000 * 5 * 1024**3, f"{_LIMITS}: 10,000 parts of 5 GiB"),
    max_metadata=Limit(2048, "Amazon S3 User Guide, user-defined object metadata"),
    max_tags=Limit(10, "Amazon S3 User Guide, object tagging"),
    part_size=Limit(5 * 1024**2, _LIMITS),
    max_part=Limit(5 * 1024**3, _LIMITS),
    max_parts=Limit(10_000, _LIMITS),
    delete_batch=Limit(1_000, "Amazon S3 API Reference, DeleteObjects"),
    max_sign=Limit(7, "AWS, Signature Version 4 in the query: X-Amz-Expires"),
    max_retention=Limit(36_500, "Amazon S3 User Guide, Object Lock: 100 years"),
)


class _Session(Protocol):
    def client(self, service: Literal["s3"], /) -> S3Client: ...


def blob_driver(session: _Session) -> S3Driver:
    """Make the driver for S3 in the session's region, with its credentials.

    Permissions: those of ``S3Driver``. Buckets that it makes are closed to the public, as Amazon's own are since April
    2023; here it is said, so that it also holds where an organisation changed the default.
    """
    from shiftable_s3.driver import S3Driver

    client = session.client("s3")
    return S3Driver(
        client,
        "aws",
        FEATURES,
        client.meta.region_name,
        block_public_access=True,
        key_rule=rules.aws_key,
    )
