"""The rules of S3's object lock that moto does not keep.

moto keeps locks and refuses to delete locked versions. It does not answer when it is asked for a lock, takes any change
of one, forgets the locks of uploads in parts, and knows no other time than its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

import attrs

from shiftable.testing.harness import Request

__all__ = ["LockRefused", "Locks"]

_MODE, _UNTIL, _HOLD = (
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
)
_PENDING = "shiftable_lock"
_NO_LOCK = "Bucket is missing Object Lock Configuration"
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class LockRefused(Exception):
    """What S3 answers instead."""

    def __init__(self, status: str, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@attrs.frozen
class Locks:
    """Checks one request, and executes what moto has not.

    Args:
        buckets: moto's, by name.
    """

    buckets: Mapping[str, Any]
    now: datetime

    def check(self, request: Request, query: Mapping[str, list[str]], bucket: str, key: str) -> bytes | None:
        """Refuse what S3 refuses; return the body of an answer that moto does not give."""
        found = self.buckets.get(bucket)
        if found is None:
            return None
        if not key:
            self._check_bucket(request, query, found)
            return None
        if "retention" in query or "legal-hold" in query:
            return self._of_object(request, query, found, key)
        writes = request.method == "PUT" and "partNumber" not in query and not {"tagging", "acl"} & query.keys()
        if writes or (request.method == "POST" and "uploads" in query):
            self._check_written(request, found)
        if request.method == "DELETE" and "versionId" in query and found.object_lock_enabled:
            self._check_deleted(request, found, key, query["versionId"][0])
        return None

    def begun(self, request: Request, bucket: str, key: str) -> None:
        """Keep the lock that an upload in parts was begun with."""
        lock = {name: request.headers[name] for name in (_MODE, _UNTIL, _HOLD) if name in request.headers}
        for upload in self.buckets[bucket].multiparts.values():
            if upload.key_name == key and not hasattr(upload, _PENDING):
                setattr(upload, _PENDING, lock)

    def completing(self, bucket: str, upload: str) -> Callable[[str], None]:
        """Return what locks the object when the upload is complete."""
        found = self.buckets.get(bucket)
        lock = getattr(found.multiparts.get(upload), _PENDING, {}) if found is not None else {}

        def complete(key: str) -> None:
            made = found.keys.get(key) if found is not None and lock else None
            if made is not None:
                made.lock_mode, made.lock_until = lock.get(_MODE), lock.get(_UNTIL)
                made.lock_legal_status = lock.get(_HOLD)

        return complete

    def _check_bucket(self, request: Request, query: Mapping[str, list[str]], bucket: Any) -> None:  # noqa: ANN401  moto's
        if request.method != "PUT":
            return
        if "versioning" in query and bucket.object_lock_enabled and b"Suspended" in request.body:
            message = (
                "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
            )
            raise LockRefused("409 Conflict", "InvalidBucketState", message)
        if "object-lock" in query and not bucket.is_versioned:
            message = "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"
            raise LockRefused("409 Conflict", "InvalidBucketState", message)

    def _check_written(self, request: Request, bucket: Any) -> None:  # noqa: ANN401  moto's
        mode, until, hold = (request.headers.get(name) for name in (_MODE, _UNTIL, _HOLD))
        if mode is None and until is None and hold is None:
            return
        if hold not in {None, "ON", "OFF"}:
            raise _invalid("Legal Hold must be either of 'ON' or 'OFF'")
        if (mode is None) != (until is None):
            raise _invalid(f"{_UNTIL} and {_MODE} must both be supplied")
        self._check_period(mode, until)
        if not bucket.object_lock_enabled:
            raise LockRefused("400 Bad Request", "InvalidRequest", _NO_LOCK)

    def _check_period(self, mode: str | None, until: str | None) -> None:
        if mode not in {None, "GOVERNANCE", "COMPLIANCE"}:
            raise _invalid("Unknown wormMode directive.")
        if until is not None and _moment(until) <= self.now:
            raise _invalid("The retain until date must be in the future!")

    def _check_deleted(self, request: Request, bucket: Any, key: str, version: str) -> None:  # noqa: ANN401  moto's
        found = _version(bucket, key, version)
        if found is None:
            return
        bypass = request.headers.get("x-amz-bypass-governance-retention", "").lower() == "true"
        active = found.lock_until is not None and _moment(found.lock_until) > self.now
        if found.lock_legal_status == "ON" or (active and not (bypass and found.lock_mode == "GOVERNANCE")):
            raise _denied()
        found.lock_mode = None  # it is over by the double's clock, which moto does not know

    def _of_object(
        self,
        request: Request,
        query: Mapping[str, list[str]],
        bucket: Any,  # noqa: ANN401  moto's
        key: str,
    ) -> bytes:
        version = query.get("versionId", [None])[0]
        if not bucket.object_lock_enabled:
            raise LockRefused("400 Bad Request", "InvalidRequest", _NO_LOCK)
        found = _version(bucket, key, version)
        if found is None:
            code = "NoSuchKey" if version is None else "NoSuchVersion"
            raise LockRefused("404 Not Found", code, "The specified object does not exist.")
        if request.method == "PUT":
            change = self._retain if "retention" in query else self._hold
            change(request, found)
            return b""
        if "retention" in query and found.lock_mode and found.lock_until:
            told = f"<Mode>{found.lock_mode}</Mode><RetainUntilDate>{found.lock_until}</RetainUntilDate>"
            return _document("Retention", told)
        if "legal-hold" in query and found.lock_legal_status:
            return _document("LegalHold", f"<Status>{found.lock_legal_status}</Status>")
        message = "The specified object does not have a ObjectLock configuration"
        raise LockRefused("404 Not Found", "NoSuchObjectLockConfiguration", message)

    def _retain(self, request: Request, found: Any) -> None:  # noqa: ANN401  moto's
        sent = ET.fromstring(request.body)  # noqa: S314  from the client under test
        mode, until = (sent.findtext(f"{_NAMESPACE}{name}") for name in ("Mode", "RetainUntilDate"))
        if (mode is None) != (until is None):
            raise LockRefused("400 Bad Request", "MalformedXML", "The XML you provided was not well-formed")
        self._check_period(mode, until)
        bypass = request.headers.get("x-amz-bypass-governance-retention", "").lower() == "true"
        if found.lock_mode and found.lock_until and _moment(found.lock_until) > self.now:
            later = until is not None and mode == found.lock_mode and _moment(until) >= _moment(found.lock_until)
            if not later and (not bypass or found.lock_mode == "COMPLIANCE"):
                raise _denied()
        found.lock_mode, found.lock_until = mode, until

    def _hold(self, request: Request, found: Any) -> None:  # noqa: ANN401  moto's
        status = ET.fromstring(request.body).findtext(f"{_NAMESPACE}Status")  # noqa: S314  from the client under test
        if status not in {"ON", "OFF"}:
            raise LockRefused("400 Bad Request", "MalformedXML", "The XML you provided was not well-formed")
        found.lock_legal_status = status


def _version(bucket: Any, key: str, version: str | None) -> Any:  # noqa: ANN401  moto's
    """Return moto's object in that version, ``None`` if there is none or it is a delete marker."""
    candidates = bucket.keys.getlist(key) or [] if key in bucket.keys else []
    if version is None:
        candidates = candidates[-1:]
    return next(
        (
            each
            for each in candidates
            if hasattr(each, "lock_mode") and (version is None or str(each.version_id) == version)
        ),
        None,
    )


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise _invalid("The retain until date must be provided in ISO 8601 format") from None


def _invalid(message: str) -> LockRefused:
    return LockRefused("400 Bad Request", "InvalidArgument", message)


def _denied() -> LockRefused:
    message = "Access Denied because object protected by object lock."
    return LockRefused("403 Forbidden", "AccessDenied", message)


def _document(name: str, content: str) -> bytes:
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f'{head}<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{content}</{name}>'.encode()
