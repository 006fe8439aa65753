"""What the double's Compute Engine holds of all kinds of resources, and operations that change it in time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import attrs

from shiftable_gcp._calls import Call
from shiftable_gcp._compute_catalogue import LINK, ZONES, images, machine_type
from shiftable_gcp._compute_state import Failure, StoredOperation, absent, not_ready, version_of
from shiftable_gcp._state import Refused

__all__ = ["PAGE", "Held", "base_of", "check_zone", "last", "path_of"]

PAGE = 500
_QUOTAS = {"CPUS": 10_000, "INSTANCES": 10_000, "DISKS_TOTAL_GB": 10_000_000}
_NETWORKS = frozenset({"default"})

Json = dict[str, Any]


@attrs.define(eq=False)
class Held:
    """Resources of all projects, and what is being done to them.

    Attributes:
        resources: instances, disks, images and firewall rules as the API tells them, by their paths from ``projects``.
        operations: by their paths.
        page_size: how much a page of a listing holds at most.
        polls: how often an operation is looked at before it is done; a look at its resource is one, too.
        quotas: of a region.
        exhausted: zones, or zones and machine types, of which there are no more.
        networks: VPCs of each project.
        consoles: what machines wrote, by their paths, with how much of it has been overwritten.
        read: returns an object of Cloud Storage, by its bucket and its name; ``None`` if there is none.
    """

    now: Callable[[], datetime]
    read: Callable[[str, str], bytes | None] = attrs.field(
        default=lambda _bucket, _name: None, repr=False, kw_only=True
    )
    page_size: int = PAGE
    polls: int = 1
    quotas: dict[str, int] = attrs.Factory(lambda: dict(_QUOTAS))
    exhausted: set[str | tuple[str, str]] = attrs.Factory(set)
    networks: frozenset[str] = _NETWORKS
    resources: dict[str, Json] = attrs.Factory(dict)
    operations: dict[str, StoredOperation] = attrs.Factory(dict)
    consoles: dict[str, tuple[int, bytes]] = attrs.Factory(dict)
    _failing: dict[str, Failure] = attrs.field(factory=dict, init=False)
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1_700_000_000_001), init=False)

    def forget(self) -> None:
        """Delete everything, and be as the service is."""
        for held in (self.resources, self.operations, self.consoles, self._failing):
            held.clear()
        self.exhausted.clear()
        self.page_size, self.polls, self.networks = PAGE, 1, _NETWORKS
        self.quotas = dict(_QUOTAS)
        for project, _family, image in images():
            self.resources[f"projects/{project}/global/images/{image['name']}"] = image

    def fail_next(
        self, kind: str, code: str = "INTERNAL_ERROR", message: str = "Internal error.", *, leaves: str = "nothing"
    ) -> None:
        """Have the next operation of a kind, ``instances.insert``, end in an error, and maybe leave debris."""
        self._failing[kind] = Failure(code, message, leaves=leaves)

    def of(self, kind: str) -> dict[str, Json]:
        """Return the resources of a kind, ``instances``, by zone and name, without what Google gives everybody."""
        public = {f"projects/{project}/" for project, _, _ in images()}
        found = {
            path: resource
            for path, resource in self.resources.items()
            if f"/{kind}/" in path and not path.startswith(tuple(public))
        }
        return {
            "/".join(path.split("/")[3::2]) if "/zones/" in path else path.rpartition("/")[2]: each
            for path, each in found.items()
        }

    def number(self) -> int:
        """Return a number that nothing has."""
        return next(self._numbers)

    def drop(self, path: str) -> None:
        """Delete a resource that may be gone."""
        self.resources.pop(path, None)

    def path(self, call: Call) -> str:
        """Return the path of the resource that a call is about, by its name or its number, without a verb."""
        parts = call.request.path.removeprefix("/compute/v1/").split("/")
        parts = parts[: 5 if parts[2] == "global" else 6]
        base = "/".join(parts[:-1])
        for path, resource in self.resources.items():
            if parts[-1].isdecimal() and path.startswith(f"{base}/") and resource["id"] == parts[-1]:
                return path
        return "/".join(parts)

    def found(self, path: str) -> Json:
        """Return a resource."""
        if path not in self.resources:
            raise absent(path)
        return self.resources[path]

    def idle(self, call: Call, *states: str) -> tuple[str, Json]:
        """Return a resource to which nothing is being done, in one of those states."""
        path = self.path(call)
        found = self.found(path)
        if any(self._pending(path)) or (states and found["status"] not in states):
            raise not_ready(path)
        return path, found

    def _pending(self, path: str) -> Iterator[StoredOperation]:
        return (each for each in self.operations.values() if each.target == path and each.ended is None)

    def look(self, path: str) -> None:
        """Let the time of one look pass for what is being done to a resource."""
        for operation in list(self._pending(path)):
            operation.look(self.now())
            if operation.ended is None and operation.kind in {"insert", "start"} and "/instances/" in path:
                self.resources[path]["status"] = "STAGING"

    def begin(
        self,
        kind: str,
        path: str,
        effect: Callable[[], Failure | None],
        undo: Callable[[Failure], None] = lambda _failure: None,
    ) -> Json:
        """Begin to do something to a resource, and tell of it."""
        project = path.split("/")[1]
        scope = "global" if "/global/" in path else "/".join(path.split("/")[2:4])
        number = str(self.resources.get(path, {}).get("id") or version_of(path))
        made = StoredOperation(
            project,
            self.number(),
            kind,
            scope,
            path,
            number,
            self.now(),
            self.polls,
            effect,
            undo,
            self._failing.pop(f"{path.split('/')[-2]}.{kind}", None),
        )
        self.operations[made.path] = made
        return made.told()

    def over_quota(self, zone: str) -> Failure | None:
        """Say that a region has more than its quota, if it has."""
        region = zone.rpartition("-")[0]
        used = dict.fromkeys(self.quotas, 0)
        for path, each in self.resources.items():
            if not path.split("/")[3].startswith(f"{region}-") or "/zones/" not in path:
                continue
            if "/instances/" in path and each["status"] not in {"TERMINATED", "STOPPING"}:
                _, project, _, where, *_ = path.split("/")
                kind = machine_type(project, where, last(each["machineType"]))
                used["INSTANCES"] += 1
                used["CPUS"] += kind["guestCpus"] if kind else 0
            elif "/disks/" in path:
                used["DISKS_TOTAL_GB"] += int(each["sizeGb"])
        for metric, limit in self.quotas.items():
            if used[metric] > limit:
                message = f"Quota '{metric}' exceeded.  Limit: {limit:.1f} in region {region}."
                return Failure("QUOTA_EXCEEDED", message, 403)
        return None

    def check_network(self, path: str) -> None:
        """Refuse a network that there is not."""
        if path.rpartition("/")[2] not in self.networks:
            raise absent(path)


def last(link: str) -> str:
    """Return the name at the end of a link."""
    return link.rpartition("/")[2]


def path_of(resource: Json) -> str:
    """Return where a resource is."""
    return str(resource["selfLink"]).removeprefix(LINK)


def base_of(call: Call) -> str:
    """Return where the resources of a call are: in a zone, or global."""
    path = call.request.path.removeprefix("/compute/v1/").split("/")
    return "/".join(path[:4] if len(path) > 3 and path[2] in {"zones", "regions"} else path[:3])


def check_zone(zone: str) -> None:
    """Refuse a zone that there is not."""
    if zone not in ZONES:
        message = f"Invalid value for field 'zone': '{zone}'. Unknown zone."
        raise Refused(400, "invalid", "", message)
