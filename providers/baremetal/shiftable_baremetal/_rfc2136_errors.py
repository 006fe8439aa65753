"""What a name server's refusals mean, and what goes wrong on the way to it."""

from __future__ import annotations

from collections.abc import Mapping

from shiftable.errors import (
    Fault,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
    classify_os,
)
from shiftable_baremetal._axfr import Malformed
from shiftable_baremetal._failures import Stopped

__all__ = ["NOERROR", "BadSignature", "Lost", "Refused", "classify"]

NOERROR = 0

_CODES: Mapping[int, tuple[str, type[OperationError], str]] = {
    1: ("FORMERR", InvalidArgument, "the server does not understand the request"),
    2: ("SERVFAIL", Unavailable, "the server failed"),
    3: ("NXDOMAIN", PreconditionFailed, "a name that should exist does not"),
    4: ("NOTIMP", Unsupported, "the server does not take updates"),
    5: ("REFUSED", PermissionDenied, "the server refuses it: its configuration must allow it to this key or address"),
    6: ("YXDOMAIN", PreconditionFailed, "a name that should not exist does"),
    7: ("YXRRSET", PreconditionFailed, "a record set that should not exist does"),
    8: ("NXRRSET", PreconditionFailed, "a record set is not what it was"),
    9: ("NOTAUTH", NotFound, "the server does not have this zone, or not as its primary"),
    10: ("NOTZONE", InvalidArgument, "a name is not in the zone"),
    11: ("DSOTYPENI", Unsupported, "the server does not know this operation"),
    16: ("BADVERS", Unsupported, "the server does not know this version of EDNS"),
}
"""RFC 1035, 4.1.1 and RFC 2136, 2.2."""

_OURS: Mapping[int, tuple[str, str]] = {
    16: ("BADSIG", "the server finds our signature wrong: is it the same secret?"),
    17: ("BADKEY", "the server does not know the key of that name and algorithm"),
    18: ("BADTIME", "the server's clock and ours differ by more than five minutes"),
    22: ("BADTRUNC", "the server wants a longer signature"),
}
"""What servers say of our signature (RFC 8945, 3)."""


class Refused(Exception):
    """A server's answer that is no success.

    Args:
        rcode: its code.
    """

    def __init__(self, rcode: int) -> None:
        super().__init__(rcode)
        self.rcode = rcode

    @property
    def fault(self) -> Fault:
        """What it means."""
        name, error, message = _CODES.get(self.rcode, (f"RCODE{self.rcode}", OperationError, "the server refuses it"))
        return Fault(error, message, name, missing="zone" if error is NotFound else None)


class BadSignature(Exception):
    """A signature that one of the two does not accept.

    Args:
        code: as RFC 8945, 3 calls what is wrong with it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def by_server(cls, error: int) -> BadSignature:
        """Make that of a signature of ours."""
        return cls(*_OURS.get(error, ("TSIG", "the server refuses our signature")))


class Lost(ConnectionError):
    """The connection broke before the answer had come."""


def classify(exc: Exception) -> Fault | None:
    """Say what an answer, a signature or a failed connection means."""
    if isinstance(exc, Refused | Stopped):
        return exc.fault
    if isinstance(exc, Malformed):
        return Fault(IntegrityError, f"what the server sent is wrong: {exc}")
    if isinstance(exc, Lost):
        return Fault(Unavailable, str(exc))
    if isinstance(exc, BadSignature):
        return Fault(Unauthenticated, str(exc), exc.code)
    if isinstance(exc, TimeoutError):
        return Fault(Timeout, "the server did not answer in time")
    return classify_os(exc)
