"""Machines and what is around them as resources of Azure: read, made once, waited for, deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from shiftable.compute.driver import FLEET_LABEL
from shiftable_azure._arm import ArmRefusal, ArmSession
from shiftable_azure._machines import CREATED_LABEL
from shiftable_azure.errors import ArmFailure

__all__ = [
    "COMPUTE_API",
    "DISKS_API",
    "GALLERIES_API",
    "NETWORK_API",
    "PATIENCE",
    "PAUSE",
    "Resources",
    "code_of",
    "fleet_of",
    "is_complete",
    "provisioning",
    "require_made",
    "stamp",
    "version_of",
]

COMPUTE_API = "2026-04-01"
NETWORK_API = "2025-09-01"
DISKS_API = "2025-01-02"
GALLERIES_API = "2024-03-03"

PATIENCE = 600.0
"""Seconds, for what is to be complete before the next step."""
PAUSE = 5.0
"""Seconds between two looks."""
_RESERVED = 200.0  # seconds: 180 of them are Azure's
_UNDER_WAY = {"creating", "updating"}
_MISSING = 404


@attrs.frozen
class Resources:
    """Reads, makes and deletes resources, one after the other."""

    session: ArmSession

    def items(self, path: str, version: str, query: Mapping[str, str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Yield the items of all pages."""
        link: str | None = path
        while link is not None:
            page = self.session.call("GET", link, version, query=query).body
            yield from page.get("value") or ()
            link = page.get("nextLink")

    def got(self, path: str, version: str, query: Mapping[str, str] | None = None) -> Mapping[str, Any] | None:
        """Return what there may be. A resource group that is missing is an error."""
        try:
            return self.session.call("GET", path, version, query=query).body
        except ArmRefusal as exc:
            if exc.status_code != _MISSING or code_of(exc) in {"ResourceGroupNotFound", "SubscriptionNotFound"}:
                raise
            return None

    def owned(self, path: str, version: str, tags: Mapping[str, str]) -> Mapping[str, Any] | None:
        """Return what has that id, if anything has.

        Raises:
            ArmFailure: it was not made by shiftable for this.
        """
        found = self.got(path, version)
        if found is not None and not tags.items() <= (found.get("tags") or {}).items():
            raise ArmFailure("AlreadyExists", f"somebody else made {path.rpartition('/')[2]} here; rename it, or this")
        return found

    def make_once(self, path: str, version: str, body: Mapping[str, Any], what: str) -> None:
        """Make what a fleet needs, unless it is there; what only has its name is somebody else's."""
        found = self.owned(path, version, body["tags"])
        if found is not None and provisioning(found) in _UNDER_WAY:
            found = self.settled(path, version, what)
        if found is None or provisioning(found) not in {"", "succeeded"}:
            self.put(path, version, {**body, "tags": {**body["tags"], CREATED_LABEL: stamp()}}, what)

    def put(self, path: str, version: str, body: Mapping[str, Any], what: str) -> None:
        """Make or change something, and wait until it is there."""
        answer = self.session.call("PUT", path, version, body=body)
        if answer.status in {201, 202} and not is_complete(answer.body):
            self.session.finish(answer, version, what=what, timeout=PATIENCE)
        elif provisioning(answer.body) in _UNDER_WAY:  # a second try: the first one goes on
            self.settled(path, version, what)

    def settled(self, path: str, version: str, what: str) -> Mapping[str, Any]:
        """Wait until nothing is being done to something, and return it."""
        deadline = self.session.clock() + PATIENCE
        while provisioning(found := self.session.call("GET", path, version).body) in _UNDER_WAY:
            if self.session.clock() >= deadline:
                raise ArmFailure("OperationTimedOut", f"waited {PATIENCE:,.0f} s for {what}")
            self.session.pause(PAUSE)
        return found

    def delete(self, path: str) -> None:
        """Delete something, and wait until it is gone."""
        version = version_of(path)
        answer = self.session.call("DELETE", path, version)
        self.session.finish(answer, version, what=f"the end of {path.rpartition('/')[2]}", timeout=PATIENCE)

    def delete_patiently(self, path: str) -> None:
        """Delete what Azure may keep for a machine that failed, which it does for three minutes."""
        deadline = self.session.clock() + _RESERVED
        while True:
            try:
                return self.delete(path)
            except ArmRefusal as exc:
                if code_of(exc) != "NicReservedForAnotherVm" or self.session.clock() >= deadline:
                    raise
            self.session.pause(PAUSE)


def code_of(exc: ArmRefusal) -> str:
    return str(getattr(exc.error, "code", None) or "")


def version_of(path: str) -> str:
    """Return the api-version of a kind of resource."""
    parts = path.partition("/providers/")[2].lower().split("/")
    if parts[0] == "microsoft.network":
        return NETWORK_API
    return {"disks": DISKS_API, "snapshots": DISKS_API, "galleries": GALLERIES_API}.get(parts[1], COMPUTE_API)


def stamp() -> str:
    """Return the time, as a tag holds it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def fleet_of(found: Mapping[str, Any]) -> str:
    return str((found.get("tags") or {}).get(FLEET_LABEL) or "")


def provisioning(found: Mapping[str, Any]) -> str:
    return str((found.get("properties") or {}).get("provisioningState") or "").lower()


def is_complete(found: Mapping[str, Any]) -> bool:
    return provisioning(found) == "succeeded"


def require_made(found: Mapping[str, Any], what: str) -> None:
    """Refuse to wait for what has failed.

    Raises:
        ArmFailure: it has.
    """
    if provisioning(found) == "failed":
        raise ArmFailure("InternalOperationError", f"Azure has failed to make {what}; delete it, and try again")
