"""What S3 answers, in our words: values, and why there are none."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import attrs
from botocore.exceptions import ClientError

from shiftable.blob.driver import (
    CommonPrefix,
    Headers,
    ObjectInfo,
    ObjectSummary,
    ObjectVersion,
    PutOptions,
    Retention,
    RetentionMode,
)
from shiftable.tokens import Token
from shiftable_s3.clients import moment

__all__ = [
    "DEFAULT_TYPE",
    "PLAIN_MD5",
    "as_written",
    "checksums_of",
    "code_of",
    "date_of",
    "history",
    "info_of",
    "is_marker",
    "keep_order",
    "kept",
    "may_be_own",
    "md5_of",
    "moment_of",
    "no_version",
    "part_token",
    "place_of",
    "retention_of",
    "retried",
    "status_of",
    "summary_of",
    "utc",
    "version_of",
]

DEFAULT_TYPE = "application/octet-stream"
PLAIN_MD5 = re.compile(r'"?([0-9a-f]{32})"?')

_SKEW = timedelta(seconds=2)
_CHECKSUMS = ("ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256")
_VERSION_ENTRY = re.compile(rb"<(Version|DeleteMarker)>")
_VERSION_ORDER = "ShiftableOrder"


def info_of(key: str, size: int, answer: Mapping[str, Any], tag_count: int | None) -> ObjectInfo:
    """Return everything about an object."""
    etag = answer["ETag"]
    return ObjectInfo(
        key=key,
        size=size,
        token=Token(etag),
        modified=utc(answer["LastModified"]),
        md5=md5_of(etag, answer),
        storage_class=answer.get("StorageClass", "STANDARD"),
        headers=Headers(
            content_type=answer.get("ContentType"),
            cache_control=answer.get("CacheControl"),
            content_disposition=answer.get("ContentDisposition"),
            content_encoding=answer.get("ContentEncoding"),
            content_language=answer.get("ContentLanguage"),
        ),
        metadata=answer["Metadata"],
        version=version_of(answer),
        tag_count=tag_count,
        checksums=checksums_of(answer),
        retention=retention_of(answer.get("ObjectLockMode"), answer.get("ObjectLockRetainUntilDate")),
        hold=answer.get("ObjectLockLegalHoldStatus") == "ON",
    )


def retention_of(mode: str | None, until: datetime | None) -> Retention | None:
    """Return a retention, if there is one."""
    told: Mapping[str | None, RetentionMode] = {"GOVERNANCE": "governance", "COMPLIANCE": "compliance"}
    return Retention(until=until, mode=told[mode]) if mode in told and until is not None else None


def as_written(info: ObjectInfo, options: PutOptions) -> ObjectInfo:
    """Add what the answer does not tell to whoever may only write."""
    return attrs.evolve(
        info,
        tag_count=len(options.tags),
        retention=info.retention or options.retention,
        hold=info.hold or options.hold,
    )


def summary_of(entry: Mapping[str, Any]) -> ObjectSummary:
    """Return what a listing tells of an object."""
    etag = entry["ETag"]
    return ObjectSummary(
        key=entry["Key"],
        size=entry["Size"],
        token=Token(etag),
        modified=utc(entry["LastModified"]),
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


def place_of(item: ObjectSummary | CommonPrefix) -> str:
    """Return where in a listing something is."""
    return item.prefix if isinstance(item, CommonPrefix) else item.key


@lru_cache(16)
def kept(headers: Headers) -> Headers:
    """Return headers as they are stored."""
    return headers if headers.content_type is not None else attrs.evolve(headers, content_type=DEFAULT_TYPE)


def md5_of(etag: str, answer: Mapping[str, Any]) -> bytes | None:
    """Return the MD5 of an object, where its ETag is that."""
    if answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer:
        return None
    found = PLAIN_MD5.fullmatch(etag)
    return bytes.fromhex(found.group(1)) if found else None


def checksums_of(answer: Mapping[str, Any]) -> dict[str, bytes]:
    """Return those of the whole content; one that is made of the parts' ends in their number."""
    told = {name: answer[name] for name in _CHECKSUMS if answer.get(name)}
    if answer.get("ChecksumType") == "COMPOSITE":
        return {}
    return {
        name.removeprefix("Checksum").lower(): base64.b64decode(text) for name, text in told.items() if "-" not in text
    }


def version_of(answer: Mapping[str, Any]) -> str | None:
    """Return the id; ``null`` is what S3 calls the only version of an object in a bucket without versioning."""
    version: str | None = answer.get("VersionId")
    return None if version == "null" else version


def part_token(answer: Mapping[str, Any]) -> str:
    """Return what the completion of an upload has to say of a part."""
    return json.dumps({name: answer[name] for name in ("ETag", *_CHECKSUMS) if name in answer})


def utc(moment: datetime) -> datetime:
    """Return a time in UTC."""
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def date_of(answer: Mapping[str, Any]) -> datetime:
    """Return the server's time of an answer."""
    text = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return moment(text) if text else datetime.now(UTC)


def moment_of(answer: Mapping[str, Any], began: float) -> datetime:
    """Return the server's time of the first attempt, at the latest."""
    return date_of(answer) - timedelta(seconds=time.monotonic() - began) - _SKEW


def history(answer: Mapping[str, Any]) -> Iterator[ObjectVersion]:
    """Put the two lists of an answer together again, in the order in which S3 wrote them."""
    kinds = {b"Version": iter(answer.get("Versions", ())), b"DeleteMarker": iter(answer.get("DeleteMarkers", ()))}
    for kind in answer[_VERSION_ORDER]:
        entry = next(kinds[kind])
        yield ObjectVersion(
            key=entry["Key"],
            version=entry["VersionId"],
            size=entry.get("Size", 0),
            token=Token(entry.get("ETag", entry["VersionId"])),
            modified=utc(entry["LastModified"]),
            latest=entry["IsLatest"],
            deleted=kind == b"DeleteMarker",
        )


def keep_order(response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Note how versions and delete markers alternate: the SDK makes two lists of them, and S3 tells whole seconds."""
    if response_dict["status_code"] < 300:
        customized_response_dict[_VERSION_ORDER] = _VERSION_ENTRY.findall(response_dict["body"])


def code_of(exc: ClientError) -> str:
    """Return the code of an error."""
    return exc.response.get("Error", {}).get("Code", "")


def status_of(answer: Mapping[str, Any]) -> int:
    """Return the status of an answer."""
    status: int = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def retried(exc: ClientError) -> bool:
    """Tell whether the SDK has tried several times."""
    return exc.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0


def may_be_own(exc: ClientError) -> bool:
    """Tell whether a write may have failed on its own first attempt, whose answer was lost."""
    return retried(exc) and code_of(exc) in {"PreconditionFailed", "NoSuchUpload"}


def is_marker(exc: ClientError, version: str | None) -> bool:
    """Tell whether a version that was asked for is a delete marker, which S3 answers with 405."""
    return version is not None and status_of(exc.response) == 405


def no_version(exc: ClientError) -> ClientError:
    """Say that there is no such version."""
    answer: Any = {**exc.response, "Error": {"Code": "NoSuchVersion", "Message": "this version is a delete marker"}}
    return ClientError(answer, exc.operation_name)
