"""What IAM sees of the calls of a client: actions and resources, by AWS's Service Authorization Reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import attrs

__all__ = ["SEEN", "Call"]

_ACCOUNT = "eu-central-1:123456789012"
_WRITES = {"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "CopyObject"}
_WITH_WRITES = {
    "Tagging": "PutObjectTagging",
    "ObjectLockMode": "PutObjectRetention",
    "ObjectLockLegalHoldStatus": "PutObjectLegalHold",
}
_OF_S3 = {
    "DeleteBucketCors": "PutBucketCORS",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "GetBucketCors": "GetBucketCORS",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjectsV2": "ListBucket",
    "PutBucketCors": "PutBucketCORS",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutObjectLockConfiguration": "PutBucketObjectLockConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}
_OF_VERSIONS = {
    "DeleteObject": "DeleteObjectVersion",
    "GetObject": "GetObjectVersion",
    "GetObjectTagging": "GetObjectVersionTagging",
}


@attrs.frozen
class Call:
    """One call, as IAM sees it; ``resource`` is told where one of its own is known before it is made."""

    action: str
    resource: str | None = None


def _of_s3(name: str, given: Mapping[str, Any]) -> Iterator[Call]:
    bucket = f"arn:aws:s3:::{given.get('Bucket')}"
    key = f"{bucket}/{given['Key']}" if "Key" in given else bucket
    if name == "DeleteObjects":
        for each in given["Delete"]["Objects"]:
            yield from _of_s3("DeleteObject", {"Bucket": given["Bucket"], **each})
        return
    action = "PutObject" if name in _WRITES else _OF_S3.get(name, name)
    yield Call(f"s3:{_OF_VERSIONS[action] if given.get('VersionId') and action in _OF_VERSIONS else action}", key)
    if name in _WRITES:
        yield from (Call(f"s3:{more}", key) for argument, more in _WITH_WRITES.items() if given.get(argument))
    if given.get("ObjectLockEnabledForBucket"):
        yield Call("s3:PutBucketObjectLockConfiguration", bucket)
        yield Call("s3:PutBucketVersioning", bucket)
    if "CopySource" in given:
        source, _, version = given["CopySource"].partition("?versionId=")
        yield Call("s3:GetObjectVersion" if version else "s3:GetObject", f"arn:aws:s3:::{unquote(source)}")


def _of_secrets(name: str, given: Mapping[str, Any]) -> Iterator[Call]:
    secret = given.get("SecretId") or given.get("Name")
    arn = f"arn:aws:secretsmanager:{_ACCOUNT}:secret:{secret}-AbCdEf" if secret else "*"
    yield Call(f"secretsmanager:{name}", arn)


def _of_zones(name: str, given: Mapping[str, Any]) -> Iterator[Call]:
    kind, number = ("change", None) if name == "GetChange" else ("hostedzone", given.get("HostedZoneId"))
    number = number or given.get("Id")
    yield Call(f"route53:{name}", f"arn:aws:route53:::{kind}/{number}" if number else "*")


def _of_servers(name: str, given: Mapping[str, Any]) -> Iterator[Call]:
    server = None if name.startswith("Describe") else given.get("DBInstanceIdentifier")
    yield Call(f"rds:{name}", server and f"arn:aws:rds:{_ACCOUNT}:db:{server}")


def _of_machines(name: str, _given: Mapping[str, Any]) -> Iterator[Call]:
    yield Call(f"ec2:{name}")


SEEN: Mapping[str, Callable[[str, Mapping[str, Any]], Iterator[Call]]] = {
    "s3": _of_s3,
    "secretsmanager": _of_secrets,
    "route53": _of_zones,
    "rds": _of_servers,
    "ec2": _of_machines,
}
"""Readers of calls, by the service's name in the SDK."""
