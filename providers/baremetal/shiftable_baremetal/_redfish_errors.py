"""What the refusals of BMCs mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shiftable.errors import (
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

__all__ = ["Unsure", "Untrusted", "classify", "is_away", "is_unsure"]

_STATUSES: Mapping[int, tuple[type[OperationError], str]] = {
    400: (InvalidArgument, ""),
    401: (Unauthenticated, "the BMC does not know this user and password"),
    403: (PermissionDenied, "the BMC's user needs the role Operator: power, boot and virtual media"),
    404: (NotFound, "the BMC has no such resource; is `system` right?"),
    405: (Unsupported, "the BMC does not know this operation"),
    409: (Conflict, ""),
    412: (Conflict, "somebody else changed it at the BMC in that moment"),
    428: (Conflict, ""),
    429: (Throttled, "the BMC has too much to do"),
    500: (Unavailable, ""),
    501: (Unsupported, "the BMC does not know this operation"),
    502: (Unavailable, ""),
    503: (Unavailable, ""),
    504: (Unavailable, ""),
}

_CODES: tuple[tuple[str, type[OperationError], str], ...] = (
    ("SessionLimitExceeded", QuotaExceeded, "the BMC has no session left: end some, or wait until they expire"),
    ("InsufficientPrivilege", PermissionDenied, "the BMC's user needs the role Operator: power, boot, virtual media"),
    ("ServiceTemporarilyUnavailable", Unavailable, "the BMC is not ready"),
    ("ServiceInUnknownState", Unavailable, "the BMC is not ready"),
    ("ActionNotSupported", Unsupported, ""),
)
"""What some ends of message ids mean, whatever the status is (DMTF's registry ``Base``)."""


class Unsure(Broken):
    """There was no answer to a power action, which may have been executed."""


class Untrusted(Exception):
    """The BMC did not prove who it is, so nothing was sent."""


def classify(exc: Exception) -> Fault | None:
    """Say what an answer or a failed connection means."""
    from sushy import exceptions

    fault = None
    match exc:
        case Stopped():
            fault = exc.fault
        case Broken():
            fault = Fault(Timeout if exc.timeout else Unavailable, str(exc))
        case Untrusted():
            fault = Fault(PermissionDenied, str(exc))
        case exceptions.HTTPError():
            fault = _of_answer(exc)
        case exceptions.UnknownDefaultError():
            fault = Fault(Conflict, "the BMC has not exactly one system: say which with `system`")
        case exceptions.MissingActionError() | exceptions.InvalidParameterValueError():
            fault = Fault(Unsupported, "the BMC does not offer this action")
        case exceptions.SushyError():
            fault = Fault(Unavailable, f"the BMC's answer is incomplete: {exc}")
    return fault


def is_away(exc: Exception) -> bool:
    """Tell whether a BMC gives no answer now that counts, and may later."""
    fault = classify(exc)
    return fault is not None and fault.error in {Unavailable, Timeout, Throttled}


def is_unsure(exc: Exception) -> bool:
    """Tell whether a power action may have been executed although it failed."""
    from sushy import exceptions

    return isinstance(exc, Unsure) or (isinstance(exc, exceptions.HTTPError) and exc.status_code >= 500)


def _of_answer(exc: Any) -> Fault:  # noqa: ANN401  sushy has no types
    error, message = _STATUSES.get(exc.status_code, (OperationError, ""))
    codes = [str(exc.code), *(str(each.get("MessageId", "")) for each in exc.extended_info or ())]
    for end, its_error, its_message in _CODES:
        if any(code.endswith(end) for code in codes):
            error, message = its_error, its_message
    if 300 <= exc.status_code < 400:
        error, message = Conflict, "the BMC sends us elsewhere; correct its address"
    said = " ".join(str(exc.detail or "").split())[:500]
    told = f"{message} (it says: {said})" if message and said else message or said or "no reason is given"
    told = f"{told}; the BMC is {exc.address}"
    return Fault(error, told, str(exc.status_code), None, getattr(exc, "retry_after", None))
