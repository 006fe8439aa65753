"""What the double of Cloud Storage holds: buckets, objects and their generations, and the rules for changing them."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from shiftable_gcp._crc32c import crc32c, told

__all__ = ["BUCKET_GONE", "Bucket", "Conditions", "Protection", "Refused", "Session", "State", "Stored", "Upload"]

_BUCKET_NAME = re.compile(
    r"(?!goog)(?!.*google)(?!\d+\.\d+\.\d+\.\d+$)(?!.*(\.\.|\.-|-\.))[a-z0-9][a-z0-9_.-]{1,61}[a-z0-9]"
)
_METADATA_LIMIT = 8 * 1024
_RETENTION_LIMIT = timedelta(seconds=3_155_760_000)
_UNMET = "At least one of the pre-conditions you specified did not hold."
BUCKET_GONE = "The specified bucket does not exist."


class Refused(Exception):
    """What the service answers instead: a status, the JSON API's reason, the XML API's code, and words."""

    def __init__(self, status: int, reason: str, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.code = code
        self.message = message


def invalid(message: str, code: str = "InvalidArgument") -> Refused:
    """Refuse what can never be right."""
    return Refused(400, "invalid", code, message)


@attrs.frozen(kw_only=True)
class Conditions:
    """The preconditions of a request on one object."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None

    def require(self, found: Stored | None, *, reading: bool = False) -> None:
        """Refuse unless they hold of what is there; 0 stands for nothing."""
        generation = found.generation if found else 0
        metageneration = found.metageneration if found else None
        if self.generation not in {None, generation} or self.metageneration not in {None, metageneration}:
            raise Refused(412, "conditionNotMet", "PreconditionFailed", _UNMET)
        if generation == self.not_generation or (
            self.not_metageneration is not None and metageneration == self.not_metageneration
        ):
            raise Refused(304 if reading else 412, "conditionNotMet", "PreconditionFailed", _UNMET)


@attrs.frozen(kw_only=True)
class Protection:
    """What keeps one generation from being deleted or replaced."""

    mode: str | None = None
    until: datetime | None = None
    temporary: bool = False
    event_based: bool = False

    @classmethod
    def stated(cls, body: Mapping[str, Any], before: Protection | None = None) -> Protection:
        """Read a resource; what it does not say is as it was."""
        found = before or cls()
        if "retention" in body:
            retention = body["retention"] or {}
            mode, until = retention.get("mode"), retention.get("retainUntilTime")
            if mode not in {None, "Unlocked", "Locked"} or (mode is None) != (until is None):
                raise invalid("A retention has a mode, Unlocked or Locked, and a retainUntilTime.")
            found = attrs.evolve(found, mode=mode, until=datetime.fromisoformat(until) if until else None)
        temporary = bool(body.get("temporaryHold", found.temporary))
        return attrs.evolve(found, temporary=temporary, event_based=bool(body.get("eventBasedHold", found.event_based)))

    def require_change(self, wanted: Protection, *, override: bool, now: datetime) -> None:
        """Refuse a retention that is weaker, or of another mode, unless it is unlocked and that is overridden."""
        if self.until is None or self.until <= now or (self.mode, self.until) == (wanted.mode, wanted.until):
            return
        later = wanted.until is not None and wanted.mode == self.mode and wanted.until >= self.until
        if not later and (self.mode == "Locked" or not override):
            message = "The retention of this object cannot be reduced, removed, or changed in its mode."
            raise Refused(403, "forbidden", "AccessDenied", message)

    def require_over(self, place: str, now: datetime) -> None:
        """Refuse to delete or replace what is protected."""
        if self.temporary or self.event_based:
            kind = "Temporary" if self.temporary else "Event-Based"
            message = f"Object '{place}' is under active {kind} hold and cannot be deleted or overwritten."
            raise Refused(403, "objectUnderActiveHold", "AccessDenied", message)
        if self.until is not None and self.until > now:
            message = (
                f"Object '{place}' is subject to bucket's retention policy or object retention and cannot be deleted "
                f"or overwritten until {self.until.isoformat()}"
            )
            raise Refused(403, "retentionPolicyNotMet", "AccessDenied", message)


@attrs.define(kw_only=True)
class Stored:
    """One generation of an object.

    Attributes:
        fields: ``contentType`` and the like, as the JSON API names them.
        components: of an object made of others or of parts; such a one has no MD5.
    """

    name: str
    data: bytes = attrs.field(repr=False)
    generation: int = 0
    metageneration: int = 1
    created: datetime = attrs.field(default=None)
    updated: datetime = attrs.field(default=None)
    deleted: datetime | None = None
    fields: dict[str, str] = attrs.Factory(dict)
    metadata: dict[str, str] = attrs.Factory(dict)
    components: int | None = None
    crc32c: str = ""
    md5: str | None = None
    protection: Protection = Protection()

    def __attrs_post_init__(self) -> None:
        self.crc32c = self.crc32c or told(crc32c(self.data))
        if self.components is None and self.md5 is None:
            self.md5 = base64.b64encode(hashlib.md5(self.data, usedforsecurity=False).digest()).decode()

    @property
    def etag(self) -> str:
        """The JSON API's."""
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()


@attrs.define(kw_only=True)
class Upload:
    """An XML multipart upload that is not complete."""

    id: str
    name: str
    started: datetime
    fields: dict[str, str]
    metadata: dict[str, str]
    parts: dict[int, bytes] = attrs.Factory(dict)


@attrs.define(kw_only=True)
class Session:
    """A resumable upload; ``done`` is the object that it made."""

    bucket: str
    draft: Stored
    conditions: Conditions
    hashes: Mapping[str, str]
    received: bytearray = attrs.Factory(bytearray)
    done: Stored | None = None


@attrs.define(kw_only=True)
class Bucket:
    """A bucket; ``objects`` holds the generations of each name, the oldest first, of which the last may be live."""

    name: str
    project: str
    location: str
    created: datetime
    updated: datetime
    properties: dict[str, Any]
    metageneration: int = 1
    objects: dict[str, list[Stored]] = attrs.Factory(dict)
    uploads: dict[str, Upload] = attrs.Factory(dict)
    _order: list[str] | None = None

    @property
    def versioning(self) -> bool:
        """Whether older generations are kept."""
        return bool(self.properties.get("versioning", {}).get("enabled"))

    def live(self, name: str) -> Stored | None:
        """Return the object of that name."""
        found = self.objects.get(name)
        return found[-1] if found and found[-1].deleted is None else None

    def find(self, name: str, generation: int | None) -> Stored:
        """Return an object, or one generation of it."""
        found = self.live(name)
        if generation is not None:
            found = next((each for each in self.objects.get(name, ()) if each.generation == generation), None)
        if found is None:
            raise Refused(404, "notFound", "NoSuchKey", f"No such object: {self.name}/{name}")
        return found

    def names(self) -> list[str]:
        """Return all names in the order of their UTF-8 bytes."""
        if self._order is None:
            self._order = sorted(self.objects, key=str.encode)
        return self._order

    def retire(self, name: str, now: datetime) -> None:
        """Take the live object away: into history, or for good."""
        if self.versioning:
            self.objects[name][-1].deleted = now
        else:
            self.remove(name, self.objects[name][-1].generation)

    def remove(self, name: str, generation: int) -> None:
        """Delete one generation for good."""
        left = [each for each in self.objects[name] if each.generation != generation]
        if left:
            self.objects[name] = left
        else:
            del self.objects[name]
            self._order = None

    def add(self, stored: Stored) -> None:
        """Make an object the live one."""
        if stored.name not in self.objects:
            self._order = None
        self.objects.setdefault(stored.name, []).append(stored)


class State:
    """All buckets, under one lock, which whoever answers a request holds.

    Attributes:
        writes_limited: whether a second write to one object within a second is refused, as Cloud Storage does.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.lock = threading.RLock()
        self.now = now
        self.forget()

    def forget(self) -> None:
        """Empty everything."""
        self.buckets: dict[str, Bucket] = {}
        self.sessions: dict[str, Session] = {}
        self.rewrites: dict[str, tuple[Any, ...]] = {}
        self.writes_limited = False
        self._last_writes: dict[tuple[str, str], datetime] = {}
        self._generation = 0

    def bucket(self, name: str) -> Bucket:
        """Return a bucket."""
        if name not in self.buckets:
            raise Refused(404, "notFound", "NoSuchBucket", BUCKET_GONE)
        return self.buckets[name]

    def read(self, bucket: str, name: str) -> bytes | None:
        """Return what an object holds, as other services of Google read it; ``None`` if there is none."""
        held = self.buckets.get(bucket)
        found = held.live(name) if held is not None else None
        return found.data if found is not None else None

    def make_bucket(self, name: str, project: str, location: str, properties: dict[str, Any]) -> Bucket:
        """Make a bucket."""
        if not _BUCKET_NAME.fullmatch(name):
            raise invalid(f"Invalid bucket name: '{name}'", "InvalidBucketName")
        if name in self.buckets:
            own = self.buckets[name].project == project
            message = (
                "Your previous request to create the named bucket succeeded and you already own it."
                if own
                else "The requested bucket name is not available. The bucket namespace is shared by all users of the "
                "system. Please select a different name and try again."
            )
            raise Refused(409, "conflict", "BucketAlreadyOwnedByYou" if own else "BucketAlreadyExists", message)
        now = self.now()
        made = Bucket(
            name=name, project=project, location=location.upper(), created=now, updated=now, properties=properties
        )
        self.buckets[name] = made
        return made

    def drop_bucket(self, name: str) -> None:
        """Delete an empty bucket."""
        if self.bucket(name).objects:
            raise Refused(409, "conflict", "BucketNotEmpty", "The bucket you tried to delete is not empty.")
        del self.buckets[name]

    def write(self, bucket: str, draft: Stored, conditions: Conditions) -> Stored:
        """Make a draft the live object of its name."""
        holder = self.bucket(bucket)
        self.require_writable(draft)
        live = holder.live(draft.name)
        conditions.require(live)
        self.require_protectable(holder, Protection(), draft.protection)
        if live is not None and not holder.versioning:
            live.protection.require_over(f"{bucket}/{draft.name}", self.now())
        self.count_write(bucket, draft.name)
        if live is not None:
            holder.retire(draft.name, self.now())
        now = self.now()
        draft.generation, draft.created, draft.updated = self._next_generation(), now, now
        holder.add(draft)
        return draft

    def delete(self, bucket: str, name: str, generation: int | None, conditions: Conditions) -> None:
        """Delete the live object, or one generation for good."""
        holder = self.bucket(bucket)
        found = holder.find(name, generation)
        conditions.require(found)
        if generation is not None or not holder.versioning:
            found.protection.require_over(f"{bucket}/{name}", self.now())
        self.count_write(bucket, name)
        if generation is None:
            holder.retire(name, self.now())
        else:
            holder.remove(name, generation)

    def require_protectable(self, holder: Bucket, before: Protection, wanted: Protection) -> None:
        """Refuse a retention in a bucket that has none, and one that ends in the past."""
        if wanted.until is None or wanted.until == before.until:
            return
        if holder.properties.get("objectRetention", {}).get("mode") != "Enabled":
            raise invalid("Object retention is not enabled on this bucket.")
        if wanted.until <= self.now():
            raise invalid("The retainUntilTime of an object must be in the future.")
        if wanted.until > self.now() + _RETENTION_LIMIT:
            raise invalid("The retainUntilTime of an object must be within 100 years.")

    def require_writable(self, draft: Stored) -> None:
        """Refuse names and metadata that the service refuses."""
        name = draft.name
        if not 1 <= len(name.encode()) <= 1024 or name in {".", ".."} or "\r" in name or "\n" in name:
            raise invalid(f"Invalid object name: '{name}'", "InvalidArgument")
        if name.startswith(".well-known/acme-challenge/"):
            raise invalid(f"Disallowed object name: '{name}'", "InvalidArgument")
        size = sum(len(key.encode()) + len(value.encode()) for key, value in draft.metadata.items())
        if size > _METADATA_LIMIT:
            raise invalid("The metadata for the object is too large.", "MetadataTooLarge")

    def count_write(self, bucket: str, name: str) -> None:
        """Refuse a write that comes within a second of the last one, if that is asked for."""
        now, last = self.now(), self._last_writes.get((bucket, name))
        if self.writes_limited and last is not None and now - last < timedelta(seconds=1):
            message = (
                f"The object {bucket}/{name} exceeded the rate limit for object mutation operations "
                "(create, update, and delete). Please reduce your request rate."
            )
            raise Refused(429, "rateLimitExceeded", "SlowDown", message)
        self._last_writes[bucket, name] = now

    def begin_upload(self, bucket: str, draft: Stored) -> Upload:
        """Begin an XML multipart upload."""
        holder = self.bucket(bucket)
        self.require_writable(draft)
        upload = Upload(
            id=f"ABPnz{uuid.uuid4().hex}",
            name=draft.name,
            started=self.now(),
            fields=draft.fields,
            metadata=draft.metadata,
        )
        holder.uploads[upload.id] = upload
        return upload

    def upload(self, bucket: str, name: str, id_: str) -> Upload:
        """Return an XML multipart upload that is not complete."""
        found = self.bucket(bucket).uploads.get(id_)
        if found is None or found.name != name:
            raise Refused(404, "notFound", "NoSuchUpload", "The specified upload does not exist.")
        return found

    def complete_upload(self, bucket: str, upload: Upload, listed: Iterable[tuple[int, str]]) -> Stored:
        """Make the object of the parts that are listed."""
        numbers = []
        pieces = []
        for number, etag in listed:
            data = upload.parts.get(number)
            if data is None or part_etag(data).strip('"') != etag.strip('"'):
                raise Refused(400, "invalid", "InvalidPart", "One or more of the specified parts could not be found.")
            numbers.append(number)
            pieces.append(data)
        if not numbers or numbers != sorted(set(numbers)):
            raise Refused(400, "invalid", "InvalidPartOrder", "The list of parts was not in ascending order.")
        if any(len(data) < 5 * 1024**2 for data in pieces[:-1]):
            message = "Your proposed upload is smaller than the minimum allowed object size."
            raise Refused(400, "invalid", "EntityTooSmall", message)
        draft = Stored(
            name=upload.name,
            data=b"".join(pieces),
            fields=upload.fields,
            metadata=upload.metadata,
            components=len(pieces),
        )
        made = self.write(bucket, draft, Conditions())
        del self.bucket(bucket).uploads[upload.id]
        return made

    def _next_generation(self) -> int:
        """Return microseconds, as the service does, but never the same twice."""
        self._generation = max(self._generation + 1, int(self.now().timestamp() * 1_000_000))
        return self._generation


def part_etag(data: bytes) -> str:
    """Return the ETag of a part."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
