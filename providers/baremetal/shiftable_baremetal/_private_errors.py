"""What goes wrong with a private server, in our words."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from pathlib import Path

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
    classify_os,
)
from shiftable_baremetal._faults import FilesError

__all__ = ["classify"]

# By SQLSTATE, or its first two characters: PostgreSQL's appendix A.
_STATES: dict[str, type[OperationError]] = {
    "08": Unavailable,
    "22": InvalidArgument,
    "28": Unauthenticated,
    "42": InvalidArgument,
    "53": QuotaExceeded,
    "57": Unavailable,
    "58": Unavailable,
    "42501": PermissionDenied,
    "42710": AlreadyExists,
    "42P04": AlreadyExists,
    "53300": Unavailable,
    "55006": Conflict,
    "55P02": InvalidArgument,
    "XX001": Unavailable,
    "XX002": Unavailable,
}


def classify(exc: Exception) -> Fault | None:
    """Claim the driver's own errors, PostgreSQL's and those of the operating system."""
    if isinstance(exc, FilesError):
        return exc.fault
    psycopg = sys.modules.get("psycopg")  # if nobody has loaded it, the error is not its
    if psycopg is not None and isinstance(exc, psycopg.Error):
        state = exc.sqlstate or ""
        known = _STATES.get(state) or _STATES.get(state[:2])
        return Fault(known or (OperationError if state else Unavailable), str(exc).strip(), state)
    fault = classify_os(exc)
    if fault is None or not isinstance(exc, OSError) or exc.filename is None:
        return fault
    told = _whose(Path(exc.filename)) if isinstance(exc, PermissionError) and isinstance(exc.filename, str) else ""
    return Fault(fault.error, f"{fault.message}: {exc.filename}{told}", fault.code)


def _whose(path: Path) -> str:
    """Say to whom what cannot be read or written belongs, and what to do, if it is somebody else's.

    Only what lies in one's own folder is to change its owner: above it are folders that others need, like ``/srv``.
    """
    mine = os.geteuid()
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            owner = place.stat().st_uid
            if owner == mine:
                return ""
            me, them = _user(mine), _user(owner)
            what = f"have root `chown -R {me} {place}`" if _is_of(mine, place.parent) else "declare another root"
            return f"; {place} belongs to {them}: run this as {them}, or {what}"
    return ""


def _is_of(uid: int, folder: Path) -> bool:
    try:
        return folder.stat().st_uid == uid
    except OSError:
        return False


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
