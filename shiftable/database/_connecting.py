"""Opening a connection: what a refusal looks like, and what is tried then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from shiftable.database._logins import Login, Logins

__all__ = ["Refusal", "connected", "forget_password", "refusal"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

Refusal = Literal["certain", "likely"]

_REFUSALS = ("password authentication failed", "PAM authentication failed", "is not permitted to log in")
"""What PostgreSQL says, in English, of a password or token that is wrong, and of a user who has been retired."""

_OTHER_FAILURES = (
    "does not exist",
    "is not accepting",
    "not currently accepting connections",
    "permission denied",
    "recovery mode",
    "reserved for",
    "shutting down",
    "starting up",
    "terminating connection",
    "too many",
)
"""What it says after a password was right."""

_MYSQL_REFUSALS = frozenset(
    {
        1045,  # access denied
        1698,  # ... without a password
        1862,  # the password has expired
        3118,  # the account is locked
        4151,  # the same, of MariaDB
    }
)


def connected(connect: Callable[..., T], arguments: Mapping[str, Any], logins: Logins) -> T:
    """Connect; if the server refuses the login, with the one that has replaced it.

    Args:
        connect: takes ``arguments``, ``user`` and ``password``.
    """

    def attempt(login: Login) -> T:
        user = {} if login.user is None else {"user": login.user}
        try:
            return connect(**{**arguments, **user}, password=login.password.reveal())
        except Exception as exc:
            forget_password(exc)
            raise

    first = logins.current()
    try:
        return attempt(first)
    except Exception as exc:
        refused = refusal(exc)
        if refused is None:
            raise
        for login in logins.instead_of(first, patient=refused == "certain"):
            try:
                found = attempt(login)
            except Exception as again:
                if refusal(again) is None:
                    raise
            else:
                logger.info("the login was replaced; connected with the new one")
                return found
        raise


def refusal(exc: Exception) -> Refusal | None:
    """Tell whether a client library says that the server refuses the user or the password.

    libpq tells no SQLSTATE of a connection that failed, only the server's text in the server's language. Where it says
    nothing that is known, and a password had been asked for, it is likely.
    """
    code = exc.args[0] if exc.args else None
    if isinstance(code, int):
        return "certain" if code in _MYSQL_REFUSALS else None
    text = str(exc)
    if any(words in text for words in _REFUSALS):
        return "certain"
    asked = getattr(getattr(exc, "pgconn", None), "used_password", False)
    answered = "FATAL" in text or not text.isascii()  # the server's own words; libpq's are about the way to it
    return "likely" if asked and answered and not any(words in text for words in _OTHER_FAILURES) else None


def forget_password(exc: BaseException | None) -> None:
    """Take the password out of what psycopg's exceptions hold: all that the connection was to be made with."""
    while exc is not None:
        tried = getattr(exc, "pgconn", None)
        if tried is not None and getattr(tried, "password", None):
            try:
                tried.password, tried.info = b"", []
            except AttributeError:  # it is libpq's own, not psycopg's copy of what was in it
                tried.finish()
        exc = exc.__cause__ or exc.__context__
