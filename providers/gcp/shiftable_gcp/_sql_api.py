"""What the Cloud SQL Admin API is asked, and what its errors mean."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
from google.api_core import exceptions as api_errors

from shiftable.errors import (
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    OperationError,
    QuotaExceeded,
    Unavailable,
    Unsupported,
)
from shiftable_gcp._rest import Rest
from shiftable_gcp._session import Attempts, Session
from shiftable_gcp._sql_spec import engine_of, snapshot_of
from shiftable_gcp.errors import REASONS, classify

__all__ = ["CloudSqlFault", "Json", "SqlApi", "failure", "meaning"]

_HOST = "https://sqladmin.googleapis.com"
_PAGE = 500

Json = Mapping[str, Any]
Query = Mapping[str, str | int]


class CloudSqlFault(Exception):
    """What this driver found out itself, or how an operation of Cloud SQL ended."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def failure(error: type[OperationError], message: str) -> CloudSqlFault:
    """Make an error of our own."""
    return CloudSqlFault(Fault(error, message))


def meaning(exc: Exception) -> Fault | None:
    """Say what an exception means. Cloud SQL calls ``invalid`` also what the state of an instance forbids."""
    if isinstance(exc, CloudSqlFault):
        return exc.fault
    fault = classify(exc)
    if fault is not None and fault.code == "invalid":
        said = fault.message.lower()
        if "is not running" in said or "deletion protection" in said:
            return attrs.evolve(fault, error=Conflict)
    return fault


@attrs.frozen
class SqlApi:
    """The calls of one session."""

    session: Session
    rest: Rest

    @classmethod
    def of(cls, session: Session) -> SqlApi:
        """Make them."""
        return cls(session, Rest(session, _HOST))

    @property
    def project(self) -> str:
        """The project's id."""
        return self.session.require_project()

    def path(self, *parts: str) -> str:
        """Return the path of the instances, of one, or of what is in it."""
        return "/".join((f"/v1/projects/{self.project}/instances", *parts))

    # instances

    def page(self, cursor: str | None, limit: int | None) -> Json:
        """Return one page of the instances that are no replicas."""
        query = _paging("maxResults", cursor, limit)
        found: Json = self.rest.get(self.path(), **query, filter="instanceType:CLOUD_SQL_INSTANCE")
        return found

    def instance(self, name: str) -> Json:
        """Return an instance of PostgreSQL or MySQL."""
        found: Json = self.rest.get(self.path(name))
        if engine_of(found["databaseVersion"]) is None:
            raise failure(Unsupported, f"it is {found['databaseVersion']}, and not PostgreSQL or MySQL")
        return found

    def find(self, name: str) -> Json | None:
        """Return an instance, if there is one."""
        try:
            return self.instance(name)
        except api_errors.NotFound:
            return None

    def recovery(self, name: str) -> Json:
        """Return which times of an instance can be recovered."""
        found: Json = self.rest.get(self.path(name, "getLatestRecoveryTime"))
        return found

    def databases(self, name: str) -> tuple[str, ...]:
        """Return the names of all databases of an instance that runs."""
        answer = self.rest.get(self.path(name, "databases"))
        return tuple(str(each["name"]) for each in answer.get("items", ()))

    def users(self, name: str) -> tuple[str, ...]:
        """Return the names of all users of an instance that runs."""
        answer = self.rest.get(self.path(name, "users"))
        return tuple(str(each["name"]) for each in answer.get("items", ()))

    def tiers(self) -> dict[str, int]:
        """Return the memory of Google's machine types, in bytes."""
        answer = self.rest.get(f"/v1/projects/{self.project}/tiers")
        return {str(tier["tier"]): int(tier["RAM"]) for tier in answer.get("items", ())}

    # operations

    def begin(
        self,
        verb: str,
        path: str,
        name: str,
        kind: str,
        body: Json | None = None,
        *,
        query: Query | None = None,
        attempts: Attempts | None = None,
    ) -> tuple[str, bool]:
        """Begin an operation on an instance, and return its name, and whether it may be another caller's.

        When the answer was lost, the second try meets the first, which is under way or has been carried out; so might
        be what somebody else began in the same moment.
        """
        attempts, began = attempts or self.session.attempts(), time.monotonic()
        try:
            return str(self.rest.call(verb, path, query=query, body=body, attempts=attempts)["name"]), False
        except api_errors.GoogleAPICallError:
            found = self.begun(name, kind, began) if attempts.doubtful else None
            if found is None:
                raise
            return found, True

    def begun(self, name: str, kind: str, began: float) -> str | None:
        """Return the operation of that kind that has begun since, if there is one."""
        for operation in self.operations(name):
            if self.session.clock.is_before(datetime.fromisoformat(operation["insertTime"]), began):
                return None
            if operation["operationType"] == kind:
                return str(operation["name"])
        return None

    def operations(self, name: str, *, limit: int = 20) -> Iterator[Json]:
        """Return the last operations on an instance, the newest first."""
        answer = self.rest.get(f"/v1/projects/{self.project}/operations", instance=name, maxResults=limit)
        yield from answer.get("items", ())

    def last_error(self, name: str) -> str:
        """Return how the last operation on an instance that failed ended."""
        for operation in self.operations(name):
            errors = operation.get("error", {}).get("errors") or ()
            if errors:
                return f"{errors[0].get('code', '')}: {errors[0].get('message', '')}"
        return ""

    def is_done(self, operation: str) -> bool:
        """Tell whether an operation is done.

        Raises:
            CloudSqlFault: it ended in an error.
        """
        try:
            answer = self.rest.get(f"/v1/projects/{self.project}/operations/{operation}")
        except api_errors.NotFound:
            return True  # Google forgets them in time
        if answer.get("status") != "DONE":
            return False
        errors = answer.get("error", {}).get("errors") or ()
        if errors:
            raise CloudSqlFault(_ended(str(answer.get("operationType", "")), errors[0]))
        return True

    # backups: those of the project, which outlive their instances

    @property
    def backups_path(self) -> str:
        """The path of all backups."""
        return f"/v1/projects/{self.project}/backups"

    def backups(self, name: str | None, cursor: str | None, limit: int | None) -> Json:
        """Return one page of the backups of an instance, or of all."""
        query = _paging("pageSize", cursor, limit) | ({} if name is None else {"filter": f"instance:{name}"})
        answer: Json = self.rest.get(self.backups_path, **query)
        return answer

    def backup(self, name: str, snapshot: str) -> Json | None:
        """Return the newest backup of an instance that is called so."""
        found, cursor = list[tuple[datetime, Json]](), None
        while True:
            answer = self.backups(name, cursor, None)
            for backup in answer.get("backups", ()):
                seen = snapshot_of(backup) if backup.get("instance") == name else None
                if seen is not None and seen.name == snapshot:
                    found.append((seen.created or datetime.min.replace(tzinfo=UTC), backup))
            cursor = answer.get("nextPageToken")
            if not cursor:
                return max(found, key=lambda each: each[0])[1] if found else None

    def snapshot(self, name: str, snapshot: str) -> Json:
        """Return that backup, or fail as for a missing one."""
        found = self.backup(name, snapshot)
        if found is None:
            raise failure(NotFound, f"there is no snapshot {snapshot!r}")
        return found


def _ended(kind: str, error: Json) -> Fault:
    """Say what the error means in which an operation ended."""
    code, message = str(error.get("code", "")), str(error.get("message", ""))
    known: type[OperationError] | None = REASONS.get(code)
    if known is None:
        known = next((found for word, found in _WORDS.items() if word in code.upper()), OperationError)
    if issubclass(known, Unavailable):
        known = OperationError  # it is over: nothing tries it again
    return Fault(known, f"the operation {kind} failed{': ' if message else ''}{message}", code)


_WORDS: Mapping[str, type[OperationError]] = {
    "QUOTA": QuotaExceeded,
    "EXHAUSTED": QuotaExceeded,
    "OUT_OF_RESOURCE": QuotaExceeded,
    "STOCKOUT": QuotaExceeded,
    "INVALID": InvalidArgument,
    "NETWORK": InvalidArgument,
}


def _paging(size: str, cursor: str | None, limit: int | None) -> dict[str, str | int]:
    query: dict[str, str | int] = {size: min(limit or _PAGE, _PAGE)}
    return query if cursor is None else query | {"pageToken": cursor}
