"""What the errors of hosters mean: one table of their words, one of HTTP's statuses."""

from __future__ import annotations

from collections.abc import Mapping

from libcloud.common.types import InvalidCredsError, LibcloudError

from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable_libcloud._connection import Broken, Refusal

__all__ = ["IDS", "PHRASES", "STATUSES", "HosterFault", "classify"]

IDS: Mapping[str, type[OperationError]] = {
    # DigitalOcean, API v2: the `id` of an error
    "bad_request": InvalidArgument,
    "conflict": Conflict,
    "forbidden": PermissionDenied,
    "gateway_timeout": Unavailable,
    "internal_server_error": Unavailable,
    "method_not_allowed": Unsupported,
    "not_found": NotFound,
    "precondition_failed": Conflict,
    "request_timeout": Timeout,
    "server_error": Unavailable,
    "service_unavailable": Unavailable,
    "too_many_requests": Throttled,
    "unauthorized": Unauthenticated,
    "unprocessable_entity": InvalidArgument,
}
"""By the hoster's own word, in lower case."""

PHRASES: tuple[tuple[str, type[OperationError]], ...] = (
    # DigitalOcean says `unprocessable_entity` of all of these, Linode nothing but 400, and both tell them apart in
    # English only
    ("already exists", AlreadyExists),
    ("must be unique among your", AlreadyExists),
    ("account limit reached", QuotaExceeded),
    ("linode busy", Conflict),
    ("cannot share a name", Conflict),
    ("pending event", Conflict),
    ("will exceed your", QuotaExceeded),
)
"""What a refusal with status 400, 409 or 422 says, in lower case; the first that occurs counts."""

STATUSES: Mapping[int, type[OperationError]] = {
    400: InvalidArgument,
    401: Unauthenticated,
    402: PermissionDenied,
    403: PermissionDenied,
    404: NotFound,
    405: Unsupported,
    408: Timeout,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    413: InvalidArgument,
    415: InvalidArgument,
    422: InvalidArgument,
    423: Conflict,
    429: Throttled,
    500: Unavailable,
    501: Unsupported,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
"""By the status, where there is no word: the answer of a proxy."""

_SAID = frozenset({400, 409, 422})
_PLAIN = frozenset({401, 403, 404, 429})
"""Statuses that have the last word: a 403 is never a 404."""


class HosterFault(Exception):
    """What a driver found out itself."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def classify(exc: Exception) -> Fault | None:
    """Say what an exception means; ``None`` if it is no hoster's."""
    match exc:
        case HosterFault():
            return exc.fault
        case Refusal():
            return _refused(exc)
        case Broken():
            return Fault(Timeout if exc.late else Unavailable, str(exc))
        case InvalidCredsError():
            return Fault(Unauthenticated, "the hoster does not accept the token")
        case LibcloudError():
            return Fault(OperationError, f"libcloud could not go on: {type(exc).__name__}")  # some quote the answer
    return None


def _refused(exc: Refusal) -> Fault:
    said, word = exc.message.lower(), exc.id.lower()
    error = STATUSES.get(exc.code, Unavailable if exc.code >= 500 else OperationError)
    if exc.code not in _PLAIN:
        error = IDS.get(word, error)
    if exc.code in _SAID:
        error = next((meant for phrase, meant in PHRASES if phrase in said), error)
    return Fault(error, exc.message, exc.id or str(exc.code), exc.request_id, exc.retry_after)
