"""What Cloud Storage tells of buckets and objects, in our words, and locks in its SDK's."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import datetime

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
from shiftable_gcp._features import CRC32C
from shiftable_gcp._session import Untyped

__all__ = [
    "DEFAULT_TYPE",
    "Resource",
    "generation_of",
    "headers_of",
    "info_of",
    "is_as_written",
    "lock_of",
    "made",
    "place_of",
    "retain",
    "rules_of",
    "summary_of",
    "version_of",
]

DEFAULT_TYPE = "application/octet-stream"
_MODES: Mapping[RetentionMode, str] = {"governance": "Unlocked", "compliance": "Locked"}

Resource = Mapping[str, Untyped]
"""An object as the JSON API tells it."""


def rules_of(bucket: Untyped) -> Iterable[Mapping[str, Untyped]]:
    """Return all lifecycle rules of a bucket; the SDK's own property leaves out those that it does not know."""
    rules: Iterable[Mapping[str, Untyped]] = bucket._properties.get("lifecycle", {}).get("rule", ())  # noqa: SLF001
    return rules


def generation_of(told: Resource) -> int:
    """Return the number of an object's content."""
    return int(told["generation"])


def made(told: Resource) -> datetime:
    """Return when an object was written."""
    return datetime.fromisoformat(told["timeCreated"])


def summary_of(told: Resource) -> ObjectSummary:
    """Return what a listing tells of an object."""
    return ObjectSummary(**_summary(told))


def info_of(told: Resource, version: str | None) -> ObjectInfo:
    """Return everything about an object."""
    lock = lock_of(told)
    return ObjectInfo(
        **_summary(told),
        headers=headers_of(told),
        metadata=told.get("metadata", {}),
        version=version,
        retention=lock.retention,
        hold=lock.hold,
    )


def headers_of(told: Resource) -> Headers:
    """Return the HTTP headers of an object."""
    return Headers(
        content_type=told.get("contentType"),
        cache_control=told.get("cacheControl"),
        content_disposition=told.get("contentDisposition"),
        content_encoding=told.get("contentEncoding"),
        content_language=told.get("contentLanguage"),
    )


def lock_of(told: Resource) -> Lock:
    """Return how an object is locked."""
    hold = bool(told.get("temporaryHold") or told.get("eventBasedHold"))
    stated = told.get("retention")
    if not stated:
        return Lock(hold=hold)
    mode = next((mode for mode, name in _MODES.items() if name == stated.get("mode")), None)
    retention = Retention(until=datetime.fromisoformat(stated["retainUntilTime"]), mode=mode) if mode else None
    return Lock(retention=retention, hold=hold)


def retain(blob: Untyped, retention: Retention | None) -> None:
    """State a retention, or none, in what the SDK is to send."""
    stated = blob.retention
    stated.pop("retentionExpirationTime", None)  # the SDK would send what the service does not know
    stated.mode = _MODES[retention.mode] if retention is not None else None
    stated.retain_until_time = retention.until if retention is not None else None


def version_of(told: Resource) -> ObjectVersion:
    """Return a version of an object."""
    return ObjectVersion(
        key=told["name"],
        version=told["generation"],
        size=int(told["size"]),
        token=Token(told["generation"]),
        modified=made(told),
        latest="timeDeleted" not in told,
    )


def is_as_written(told: Resource, checksum: str, options: PutOptions) -> bool:
    """Tell whether an object is what a write with these options makes."""
    headers = options.headers
    if headers.content_type is None:
        headers = attrs.evolve(headers, content_type=DEFAULT_TYPE)
    found = (told.get("crc32c"), headers_of(told), told.get("metadata", {}), lock_of(told))
    return found == (checksum, headers, dict(options.metadata), options.lock)


def place_of(item: ObjectSummary | CommonPrefix) -> bytes:
    """Return where in a listing something is."""
    return (item.prefix if isinstance(item, CommonPrefix) else item.key).encode()


def _summary(told: Resource) -> dict[str, Untyped]:
    md5, checksum = told.get("md5Hash"), told.get("crc32c")
    return {
        "key": told["name"],
        "size": int(told["size"]),
        "token": Token(told["generation"]),
        "modified": made(told),
        "md5": base64.b64decode(md5) if md5 else None,
        "storage_class": told.get("storageClass"),
        "checksums": {CRC32C: base64.b64decode(checksum)} if checksum else {},
    }
