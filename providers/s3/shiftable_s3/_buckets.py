"""The settings of one bucket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shiftable.blob.driver import BucketSpec
from shiftable_s3 import cors, lifecycle
from shiftable_s3._answers import code_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = [
    "block_public_access",
    "cors_of",
    "create",
    "encryption",
    "has_locks",
    "is_closed",
    "lifecycle_of",
    "require",
    "set_cors",
    "set_lifecycle",
]

_CLOSED = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def require(client: S3Client, name: str) -> None:
    """Fail with a body that names the code, as HEAD would not."""
    client.list_objects_v2(Bucket=name, MaxKeys=1)


def create(client: S3Client, name: str, region: str, *, object_lock: bool) -> None:
    """Make a bucket in a region."""
    with_locks: dict[str, Any] = {"ObjectLockEnabledForBucket": True} if object_lock else {}
    if region != "us-east-1":
        constraint: Any = {"LocationConstraint": region}
        client.create_bucket(Bucket=name, CreateBucketConfiguration=constraint, **with_locks)
        return
    # In the oldest region alone, making one's own bucket again is answered with 200; other regions answer 409.
    try:
        client.head_bucket(Bucket=name)
    except ClientError:
        client.create_bucket(Bucket=name, **with_locks)
    else:
        message = "the bucket exists already, and you own it"
        raise ClientError({"Error": {"Code": "BucketAlreadyOwnedByYou", "Message": message}}, "CreateBucket")


def block_public_access(client: S3Client, name: str) -> None:
    """Close a bucket to everybody."""
    client.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration=dict.fromkeys(_CLOSED, True),  # type: ignore[arg-type]  # a TypedDict
    )


def is_closed(client: S3Client, name: str) -> bool:
    """Tell whether a bucket is closed to everybody."""
    try:
        answer = client.get_public_access_block(Bucket=name)
    except ClientError as exc:
        if code_of(exc) != "NoSuchPublicAccessBlockConfiguration":
            raise
        return False
    told: Mapping[str, object] = answer["PublicAccessBlockConfiguration"]
    return all(told.get(what) for what in _CLOSED)


def encryption(client: S3Client, name: str) -> str | None:
    """Return how a bucket encrypts, if it says so."""
    try:
        answer = client.get_bucket_encryption(Bucket=name)
    except ClientError as exc:
        if code_of(exc) != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        return None
    rules_: Any = answer["ServerSideEncryptionConfiguration"]["Rules"]
    defaults = (rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules_)
    return next((each["SSEAlgorithm"] for each in defaults if "SSEAlgorithm" in each), None)


def has_locks(client: S3Client, name: str) -> bool:
    """Tell whether a bucket has object lock."""
    try:
        answer = client.get_object_lock_configuration(Bucket=name)
    except ClientError as exc:
        if code_of(exc) != "ObjectLockConfigurationNotFoundError":
            raise
        return False
    return answer["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled"


def lifecycle_of(client: S3Client, name: str) -> Mapping[str, Any]:
    """Return the lifecycle configuration of a bucket, empty if it has none."""
    try:
        return client.get_bucket_lifecycle_configuration(Bucket=name)
    except ClientError as exc:
        if code_of(exc) != "NoSuchLifecycleConfiguration":
            raise
        return {}


def set_lifecycle(client: S3Client, spec: BucketSpec) -> None:
    """Set the rules that are declared, and keep all others."""
    current = lifecycle_of(client, spec.name)
    wanted: Any = lifecycle.native(current.get("Rules", ()), spec.lifecycle)
    if not wanted:
        client.delete_bucket_lifecycle(Bucket=spec.name)
        return
    name = "TransitionDefaultMinimumObjectSize"  # said again, or it falls back to its default
    kept: Any = {name: current[name]} if name in current else {}
    client.put_bucket_lifecycle_configuration(Bucket=spec.name, LifecycleConfiguration={"Rules": wanted}, **kept)


def cors_of(client: S3Client, name: str) -> list[Mapping[str, Any]]:
    """Return the CORS rules of a bucket."""
    try:
        return list(client.get_bucket_cors(Bucket=name).get("CORSRules", ()))
    except ClientError as exc:
        if code_of(exc) != "NoSuchCORSConfiguration":
            raise
        return []


def set_cors(client: S3Client, spec: BucketSpec) -> None:
    """Set the rules that are declared, and keep all others."""
    wanted: Any = cors.native(cors_of(client, spec.name), spec.cors)
    if wanted:
        client.put_bucket_cors(Bucket=spec.name, CORSConfiguration={"CORSRules": wanted})
    else:
        client.delete_bucket_cors(Bucket=spec.name)
