"""What the double's Compute Engine holds: resources by their paths, and operations that take looks."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs

from shiftable_gcp._compute_catalogue import LINK
from shiftable_gcp._state import Refused

__all__ = [
    "Failure",
    "StoredOperation",
    "absent",
    "exists",
    "fingerprint",
    "in_use",
    "invalid",
    "not_ready",
    "told_time",
    "version_of",
]

Json = dict[str, Any]


@attrs.frozen
class Failure:
    """How an operation is to end.

    Args:
        leaves: what a creation leaves behind: ``nothing``, the ``disk``, or the ``machine``, stopped.
    """

    code: str
    message: str
    status: int = 400
    leaves: str = "nothing"


@attrs.define
class StoredOperation:
    """What is being done to a resource, and how many looks at it are left until it is done.

    Args:
        scope: ``zones/europe-west3-a`` or ``global``.
        target: the resource's path.
        effect: what it comes to; may say that it failed.
        undo: what happens instead.
    """

    project: str
    number: int
    kind: str
    scope: str
    target: str
    target_id: str
    started: datetime
    looks: int
    effect: Callable[[], Failure | None] = attrs.field(repr=False)
    undo: Callable[[Failure], None] = attrs.field(repr=False)
    failure: Failure | None = None
    ended: datetime | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return f"operation-{self.number}"

    @property
    def path(self) -> str:
        """Where it is."""
        return f"projects/{self.project}/{self.scope}/operations/{self.name}"

    def look(self, now: datetime) -> None:
        """Let the time of one look pass."""
        if self.ended is not None:
            return
        if self.looks > 0:
            self.looks -= 1
            return
        self.ended = now
        self.failure = self.failure or self.effect()
        if self.failure is not None:
            self.undo(self.failure)

    def told(self) -> Json:
        """Return it as the API tells it."""
        told: Json = {
            "kind": "compute#operation",
            "id": str(self.number),
            "name": self.name,
            "operationType": self.kind,
            "targetLink": LINK + self.target,
            "targetId": self.target_id,
            "status": "DONE" if self.ended else "RUNNING",
            "user": f"double@{self.project}.iam.gserviceaccount.com",
            "progress": 100 if self.ended else 0,
            "insertTime": told_time(self.started),
            "startTime": told_time(self.started),
            "selfLink": LINK + self.path,
        }
        if self.scope != "global":
            told[self.scope.partition("s/")[0]] = f"{LINK}projects/{self.project}/{self.scope}"
        if self.ended is not None:
            told["endTime"] = told_time(self.ended)
            if self.failure is not None:
                error = {"code": self.failure.code, "message": self.failure.message}
                told["error"] = {"errors": [error]}
                told["httpErrorStatusCode"] = self.failure.status
                told["httpErrorMessage"] = {403: "FORBIDDEN", 503: "SERVICE UNAVAILABLE"}.get(
                    self.failure.status, "BAD REQUEST"
                )
        return told


def told_time(moment: datetime) -> str:
    """Write a time as the API does."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def version_of(text: str) -> str:
    """Return a number that stands for a text."""
    return str(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))


def fingerprint(value: Any) -> str:  # noqa: ANN401  any JSON
    """Return the version of a part of a resource."""
    return base64.b64encode(version_of(json.dumps(value, sort_keys=True)).encode()[:8]).decode()


def invalid(field: str, value: object, why: str) -> Refused:
    """Refuse the value of a field."""
    return Refused(400, "invalid", "", f"Invalid value for field 'resource.{field}': '{value}'. {why}")


def absent(path: str) -> Refused:
    """Refuse what does not exist."""
    return Refused(404, "notFound", "", f"The resource '{path}' was not found")


def exists(path: str) -> Refused:
    """Refuse what exists already."""
    return Refused(409, "alreadyExists", "", f"The resource '{path}' already exists")


def not_ready(path: str) -> Refused:
    """Refuse what the state of a resource forbids."""
    return Refused(400, "resourceNotReady", "", f"The resource '{path}' is not ready")


def in_use(path: str, by: str) -> Refused:
    """Refuse what would pull a resource from under another."""
    message = f"The resource '{path}' is already being used by '{by}'"
    return Refused(400, "resourceInUseByAnotherResource", "", message)
