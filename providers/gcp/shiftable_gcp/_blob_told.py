"""What the SDK of Cloud Storage tells of buckets and objects, in our words, and locks in its."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

import attrs

from shiftable.blob.driver import (
    CommonPrefix,
    Headers,
    Lock,
    ObjectInfo,
    ObjectSummary,
    ObjectVersion,
    PutOptions,
    Retention,
    RetentionMode,
)
from shiftable.tokens import Token
from shiftable_gcp._session import Untyped

__all__ = [
    "CRC32C",
    "DEFAULT_TYPE",
    "Blob",
    "headers_of",
    "info_of",
    "is_as_written",
    "lock_of",
    "place_of",
    "retain",
    "rules_of",
    "summary_of",
    "version_of",
]

CRC32C = "crc32c"
DEFAULT_TYPE = "application/octet-stream"
_MODES: Mapping[RetentionMode, str] = {"governance": "Unlocked", "compliance": "Locked"}

Blob = Untyped


def rules_of(bucket: Untyped) -> Iterable[Mapping[str, Untyped]]:
    """Return all lifecycle rules of a bucket; the SDK's own property leaves out those that it does not know."""
    rules: Iterable[Mapping[str, Untyped]] = bucket._properties.get("lifecycle", {}).get("rule", ())  # noqa: SLF001
    return rules


def summary_of(blob: Blob) -> ObjectSummary:
    """Return what a listing tells of an object."""
    return ObjectSummary(
        key=blob.name,
        size=blob.size,
        token=Token(str(blob.generation)),
        modified=blob.time_created,
        md5=base64.b64decode(blob.md5_hash) if blob.md5_hash else None,
        storage_class=blob.storage_class,
        checksums={CRC32C: base64.b64decode(blob.crc32c)} if blob.crc32c else {},
    )


def info_of(blob: Blob, version: str | None) -> ObjectInfo:
    """Return everything about an object."""
    summary = summary_of(blob)
    return ObjectInfo(
        key=summary.key,
        size=summary.size,
        token=summary.token,
        modified=summary.modified,
        md5=summary.md5,
        storage_class=summary.storage_class,
        checksums=summary.checksums,
        headers=headers_of(blob),
        metadata=blob.metadata or {},
        version=version,
        retention=lock_of(blob).retention,
        hold=lock_of(blob).hold,
    )


def headers_of(blob: Blob) -> Headers:
    """Return the HTTP headers of an object."""
    return Headers(
        content_type=blob.content_type,
        cache_control=blob.cache_control,
        content_disposition=blob.content_disposition,
        content_encoding=blob.content_encoding,
        content_language=blob.content_language,
    )


def lock_of(blob: Blob) -> Lock:
    """Return how an object is locked."""
    stated = blob.retention
    mode = next((mode for mode, name in _MODES.items() if name == stated.mode), None)
    retention = Retention(until=stated.retain_until_time, mode=mode) if mode is not None else None
    return Lock(retention=retention, hold=bool(blob.temporary_hold or blob.event_based_hold))


def retain(blob: Blob, retention: Retention | None) -> None:
    """State a retention, or none, in what is to be sent."""
    stated = blob.retention
    stated.pop("retentionExpirationTime", None)  # the SDK would send what the service does not know
    stated.mode = _MODES[retention.mode] if retention is not None else None
    stated.retain_until_time = retention.until if retention is not None else None


def version_of(blob: Blob) -> ObjectVersion:
    """Return a version of an object."""
    return ObjectVersion(
        key=blob.name,
        version=str(blob.generation),
        size=blob.size,
        token=Token(str(blob.generation)),
        modified=blob.time_created,
        latest=blob.time_deleted is None,
    )


def is_as_written(blob: Blob, checksum: str, options: PutOptions) -> bool:
    """Tell whether an object is what a write with these options makes."""
    headers = options.headers
    if headers.content_type is None:
        headers = attrs.evolve(headers, content_type=DEFAULT_TYPE)
    told_of = (blob.crc32c, headers_of(blob), blob.metadata or {}, lock_of(blob))
    return told_of == (checksum, headers, dict(options.metadata), options.lock)


def place_of(item: ObjectSummary | CommonPrefix) -> bytes:
    """Return where in a listing something is."""
    return (item.prefix if isinstance(item, CommonPrefix) else item.key).encode()
