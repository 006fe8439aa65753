"""What PowerDNS's refusals mean."""

from __future__ import annotations

from collections.abc import Mapping

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
from shiftable_baremetal._failures import Broken, Stopped

__all__ = ["ApiError", "classify"]

_STATUSES: Mapping[int, tuple[type[OperationError], str]] = {
    400: (InvalidArgument, "the server does not take the request; is powerdns.max_body its webserver-max-bodysize?"),
    401: (Unauthenticated, "the server does not know this api_key"),
    403: (PermissionDenied, "the server, or a proxy before it, does not let us in (webserver-allow-from)"),
    404: (NotFound, "the server does not have this zone"),
    405: (Unsupported, "the server does not know this operation"),
    409: (AlreadyExists, "the server has this zone already"),
    412: (Conflict, ""),
    413: (QuotaExceeded, "the request is larger than the server takes (webserver-max-bodysize)"),
    415: (InvalidArgument, ""),
    422: (InvalidArgument, ""),
    429: (Throttled, "a proxy before the server has a rate limit"),
    500: (Unavailable, ""),
    502: (Unavailable, "the proxy before the server does not reach it"),
    503: (Unavailable, ""),
    504: (Unavailable, "the proxy before the server waited too long for it"),
}

_TEXTS: tuple[tuple[str, type[OperationError]], ...] = (
    ("Could not find domain", NotFound),
    ("already exists", AlreadyExists),
    ("Conflicts with", Conflict),
    ("pre-existing RRset", Conflict),
    ("is a slave domain", Conflict),
)
"""What some messages mean, whatever their status is: older servers answer 422 to nearly everything."""


class ApiError(Exception):
    """An answer that is no success.

    Args:
        said: the server's words, which name the record set.
    """

    def __init__(self, status: int, said: str, retry_after: float | None = None) -> None:
        super().__init__(status, said)
        self.status = status
        self.said = said
        self.retry_after = retry_after


def classify(exc: Exception) -> Fault | None:
    """Say what an answer or a failed connection means."""
    if isinstance(exc, Stopped):
        return exc.fault
    if isinstance(exc, Broken):
        return Fault(Timeout if exc.timeout else Unavailable, str(exc))
    if not isinstance(exc, ApiError):
        return None
    error, message = _STATUSES.get(exc.status, (OperationError, ""))
    for text, its_error in _TEXTS:
        if text in exc.said and exc.status not in {401, 403}:
            error, message = its_error, ""
    if 300 <= exc.status < 400:
        error, message = Conflict, "the server sends us elsewhere; correct powerdns.address"
    message = message or exc.said or "no reason is given"
    return Fault(error, message, str(exc.status), None, exc.retry_after, missing="zone" if error is NotFound else None)
