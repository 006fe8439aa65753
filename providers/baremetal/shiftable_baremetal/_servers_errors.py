"""What goes wrong with a database server, its programs and the way to it, in our words."""

from __future__ import annotations

import sys

import attrs

from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    InvalidArgument,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)
from shiftable.tls import advised
from shiftable_baremetal._private_errors import classify as classify_postgresql

__all__ = ["classify", "program_fault"]

# MariaDB's numbers: its documentation, "MariaDB Error Code Reference".
_NUMBERS: dict[int, type[OperationError]] = {
    1007: AlreadyExists,  # ER_DB_CREATE_EXISTS
    1021: QuotaExceeded,  # ER_DISK_FULL
    1040: Unavailable,  # ER_CON_COUNT_ERROR
    1044: PermissionDenied,  # ER_DBACCESS_DENIED_ERROR
    1045: Unauthenticated,  # ER_ACCESS_DENIED_ERROR
    1049: Conflict,  # ER_BAD_DB_ERROR
    1053: Unavailable,  # ER_SERVER_SHUTDOWN
    1059: InvalidArgument,  # ER_TOO_LONG_IDENT
    1102: InvalidArgument,  # ER_WRONG_DB_NAME
    1114: QuotaExceeded,  # ER_RECORD_FILE_FULL
    1130: Unauthenticated,  # ER_HOST_NOT_PRIVILEGED
    1142: PermissionDenied,  # ER_TABLEACCESS_DENIED_ERROR
    1205: Conflict,  # ER_LOCK_WAIT_TIMEOUT
    1213: Conflict,  # ER_LOCK_DEADLOCK
    1226: QuotaExceeded,  # ER_USER_LIMIT_REACHED
    1227: PermissionDenied,  # ER_SPECIFIC_ACCESS_DENIED_ERROR
    1290: PermissionDenied,  # ER_OPTION_PREVENTS_STATEMENT, --read-only
    1396: AlreadyExists,  # ER_CANNOT_USER
    1470: InvalidArgument,  # ER_WRONG_STRING_LENGTH
    1698: Unauthenticated,  # ER_ACCESS_DENIED_NO_PASSWORD_ERROR
    1836: PermissionDenied,  # ER_READ_ONLY_MODE
    1927: Unavailable,  # ER_CONNECTION_KILLED
    2002: Unavailable,  # CR_CONNECTION_ERROR
    2003: Unavailable,  # CR_CONN_HOST_ERROR
    2006: Unavailable,  # CR_SERVER_GONE_ERROR
    2013: Unavailable,  # CR_SERVER_LOST
    2026: Unavailable,  # CR_SSL_CONNECTION_ERROR
}

# What PostgreSQL says to whom it does not let in; libpq tells no SQLSTATE then.
_NOT_LET_IN = ("password authentication failed", "no pg_hba.conf entry", "is not permitted to log in")
_NO_SUCH_USER = 'FATAL:  role "'
_SAID_OTHERWISE = {
    "25006": Fault(PermissionDenied, "the server is a standby, or read only: name its primary"),
    "2BP01": Fault(Conflict, "its user owns something in other databases of the server: drop or reassign it there"),
    "42939": Fault(InvalidArgument, "the server keeps such names for itself"),
    "55P03": Fault(Conflict, "another process has been changing it for long; try again later"),
}


_TLS = {"authorities": "ca_bundle", "without": "`tls = false` wants none", "with_tls": "`tls = true`"}


def classify(exc: Exception) -> Fault | None:
    """Claim the driver's own errors, those of psycopg and PyMySQL and of the operating system."""
    fault = _classify(exc)
    return fault and attrs.evolve(fault, message=advised(fault.message, **_TLS))


def _classify(exc: Exception) -> Fault | None:
    pymysql = sys.modules.get("pymysql")
    if pymysql is not None and isinstance(exc, pymysql.err.Error):
        code = exc.args[0] if exc.args and isinstance(exc.args[0], int) else 0
        return Fault(_NUMBERS.get(code, Unavailable if code == 0 else OperationError), str(exc.args[-1]), str(code))
    fault = classify_postgresql(exc)
    if fault is None or not hasattr(exc, "sqlstate"):
        return fault
    if fault.code in _SAID_OTHERWISE:
        known = _SAID_OTHERWISE[fault.code]
        return Fault(known.error, f"{fault.message}: {known.message}", fault.code)
    refused = any(words in fault.message for words in _NOT_LET_IN) or _NO_SUCH_USER in fault.message
    return Fault(Unauthenticated, fault.message, "28000") if refused and not fault.code else fault


_TEXTS: tuple[tuple[str, type[OperationError]], ...] = (
    ("No space left on device", QuotaExceeded),
    ("File too large", QuotaExceeded),
    ("ERROR 1114 ", QuotaExceeded),  # MariaDB: the table is full
    ("with error 28", QuotaExceeded),  # InnoDB
    ("permission denied", PermissionDenied),
    ("Access denied", PermissionDenied),
    ("command denied", PermissionDenied),
    ("password authentication failed", Unauthenticated),
    ("server closed the connection", Unavailable),
    ("terminating connection", Unavailable),
    ("connection to server", Unavailable),
    ("Lost connection", Unavailable),
    ("gone away", Unavailable),
    ("Can't connect", Unavailable),
)


def program_fault(program: str, said: str) -> Fault:
    """Say what a program's last words mean. Lines that quote statements are left out: they may hold what is secret."""
    kept = [line for line in said.splitlines() if "error" in line.lower()]
    words, error = next(((words, error) for words, error in _TEXTS if words in said), ("", OperationError))
    telling = [line for line in kept if words and words in line] or kept
    text = " ".join(telling[-3:])[:1000] or "it said nothing"
    return Fault(error, advised(f"{program} failed: {text}", **_TLS))
