"""What the Compute Engine API is asked, what its operations come to, and what its errors mean."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Timeout,
    Unavailable,
    Unsupported,
)
from shiftable_gcp._rest import Rest
from shiftable_gcp._session import Session
from shiftable_gcp.errors import REASONS, classify

__all__ = ["PAGE", "ComputeApi", "ComputeFault", "Json", "ended", "failure", "is_exhausted", "last", "meaning"]

_HOST = "https://compute.googleapis.com"
_REGION = "us-central1"  # as for databases
PAGE = 500  # Compute Engine API reference, maxResults: 0 to 500
_PATIENCE = 900.0  # seconds for what takes seconds, and for an image; an operation that is lost holds up nobody longer

Json = Mapping[str, Any]


class ComputeFault(Exception):
    """What this driver found out itself, or how an operation of Compute Engine ended."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def failure(error: type[OperationError], message: str) -> ComputeFault:
    """Make an error of our own."""
    return ComputeFault(Fault(error, message))


def meaning(exc: Exception) -> Fault | None:
    """Say what an exception means."""
    fault = exc.fault if isinstance(exc, ComputeFault) else classify(exc)
    return _forbidden(fault) if fault is not None else None


def _forbidden(fault: Fault) -> Fault:
    """Tell a policy of the organisation, which Google calls a condition, from a condition of ours."""
    if fault.code in {"conditionNotMet", "CONDITION_NOT_MET"} and "Constraint constraints/" in fault.message:
        return attrs.evolve(fault, error=PermissionDenied)
    return fault


def last(url: str) -> str:
    """Return the name at the end of a resource's address."""
    return url.rpartition("/")[2]


@attrs.frozen
class ComputeApi:
    """The calls of one session."""

    session: Session
    rest: Rest

    @classmethod
    def of(cls, session: Session) -> ComputeApi:
        """Make them."""
        return cls(session, Rest(session, _HOST))

    @property
    def project(self) -> str:
        """The project's id."""
        return self.session.require_project()

    @property
    def region(self) -> str:
        """Where machines are."""
        return self.session.region or _REGION

    def path(self, *parts: str) -> str:
        """Return a path in the project."""
        return "/".join((f"/compute/v1/projects/{self.project}", *parts))

    def is_here(self, zone: str) -> bool:
        """Tell whether a zone is in this region."""
        return zone.rpartition("-")[0] == self.region

    # asking

    def get(self, *parts: str, **query: str | int) -> Json:
        """Return a resource of the project."""
        found: Json = self.rest.get(self.path(*parts), **query)
        return found

    def every(self, *parts: str, **query: str | int) -> Iterator[Json]:
        """Return what a listing holds, page after page."""
        token = ""
        while True:
            more: dict[str, str | int] = {"pageToken": token} if token else {}
            answer = self.get(*parts, maxResults=PAGE, **query, **more)
            yield from answer.get("items", ())
            token = answer.get("nextPageToken", "")
            if not token:
                return

    def aggregated(
        self, kind: str, where: str | None, cursor: str | None = None, limit: int | None = None
    ) -> tuple[list[Json], str | None]:
        """Return one page of what there is in all zones of this region.

        Google answers for the whole project, and also when it cannot reach a zone.

        Raises:
            ComputeFault: a zone of this region cannot be reached, and so nobody knows what is there.
        """
        query: dict[str, str | int] = {"maxResults": min(limit or PAGE, PAGE)}
        query |= {"filter": where} if where else {}
        query |= {"pageToken": cursor} if cursor else {}
        answer = self.get("aggregated", kind, **query)
        silent, found = {last(each) for each in answer.get("unreachables", ())}, list[Json]()
        for scope, held in answer.get("items", {}).items():
            if held.get("warning", {}).get("code") == "UNREACHABLE":
                silent.add(last(scope))
            if self.is_here(last(scope)):
                found += held.get(kind, ())
        silent = {zone for zone in silent if self.is_here(zone) or zone == self.region}
        if silent:
            raise failure(
                Unavailable, f"Google cannot reach {', '.join(sorted(silent))}; what is there is not known now"
            )
        return found, answer.get("nextPageToken") or None

    def every_aggregated(self, kind: str, where: str | None) -> Iterator[Json]:
        """Return what there is in all zones of this region, page after page."""
        cursor: str | None = None
        while True:
            found, cursor = self.aggregated(kind, where, cursor)
            yield from found
            if cursor is None:
                return

    # operations

    def begin(self, verb: str, path: str, body: Json | None = None, **query: str | int) -> Json:
        """Begin an operation; once, as all tries of this call have one id."""
        sent: dict[str, str | int] = {**query, "requestId": str(uuid.uuid4())}
        operation: Json = self.rest.call(verb, path, query=sent, body=body)
        return operation

    def settle(self, operation: Json) -> None:
        """Wait for an operation that takes seconds. Google answers when it is done, or after two minutes at most.

        Raises:
            ComputeFault: it ended in an error, or did not end.
        """
        deadline = time.monotonic() + _PATIENCE
        while operation["status"] != "DONE":
            if time.monotonic() > deadline:
                raise failure(Timeout, f"the operation {operation['name']} does not end; look again later")
            try:
                operation = self.rest.call("POST", f"{self._operation(operation)}/wait")
            except Exception as exc:
                fault = classify(exc)
                if fault is None or fault.error is not Timeout:
                    raise
        fault = ended(operation)
        if fault is not None:
            raise ComputeFault(fault)

    def current(self, operation: Json) -> Json:
        """Return an operation as it is now."""
        found: Json = self.rest.get(self._operation(operation))
        return found

    def _operation(self, operation: Json) -> str:
        for kind in ("zone", "region"):
            if kind in operation:
                return self.path(f"{kind}s", last(operation[kind]), "operations", str(operation["name"]))
        return self.path("global", "operations", str(operation["name"]))


def ended(operation: Json) -> Fault | None:
    """Say what the error means in which an operation ended; ``None`` if it ended well."""
    errors = operation.get("error", {}).get("errors") or ()
    if not errors:
        return None
    code, message = str(errors[0].get("code", "")), str(errors[0].get("message", ""))
    known: type[OperationError] | None = _CODES.get(code) or REASONS.get(code)
    if known is None:
        known = next((found for word, found in _WORDS.items() if word in code), OperationError)
    if known.retryable:
        known = OperationError  # it is over: nothing tries it again
    kind = operation.get("operationType", "")
    return Fault(known, f"the operation {kind} failed{': ' if message else ''}{message}", code)


def is_exhausted(fault: Fault) -> bool:
    """Tell whether a zone has no such machines left, whoever asks."""
    return "RESOURCE_POOL_EXHAUSTED" in fault.code


_CODES: Mapping[str, type[OperationError]] = {
    "CONDITION_NOT_MET": Conflict,
    "INVALID_FIELD_VALUE": InvalidArgument,
    "INVALID_USAGE": InvalidArgument,
    "PERMISSIONS_ERROR": PermissionDenied,
    "RESOURCE_ALREADY_EXISTS": AlreadyExists,
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE": Conflict,
    "RESOURCE_NOT_FOUND": NotFound,
    "RESOURCE_NOT_READY": Conflict,
    "UNSUPPORTED_OPERATION": Unsupported,
}
_WORDS: Mapping[str, type[OperationError]] = {
    "QUOTA": QuotaExceeded,
    "EXHAUSTED": QuotaExceeded,
    "LIMIT_EXCEEDED": QuotaExceeded,
    "STOCKOUT": QuotaExceeded,
    "PERMISSION": PermissionDenied,
    "NOT_FOUND": NotFound,
    "INVALID": InvalidArgument,
}
