"""The double's Compute Engine: which request is for what, and listings."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import attrs

from shiftable.testing.harness import Request, Response
from shiftable_gcp._calls import Call, Routes, served
from shiftable_gcp._compute_catalogue import LINK, MACHINE_TYPES, ZONES, machine_type, zone_told
from shiftable_gcp._compute_disks import Disks
from shiftable_gcp._compute_held import PAGE, Held, base_of, check_zone
from shiftable_gcp._compute_instances import Instances
from shiftable_gcp._compute_rules import check_request_id, filtered
from shiftable_gcp._compute_shared import Shared
from shiftable_gcp._compute_state import StoredOperation, absent
from shiftable_gcp._state import Refused

__all__ = ["ComputeEngine"]

_REASONS = {401: "authError", 403: "forbidden"}
_REMEMBERED = timedelta(minutes=60)  # Compute Engine API, request ids

Json = dict[str, Any]
_Handler = Callable[[Call], Json]


@attrs.define(eq=False)
class ComputeEngine(Held):
    """Answers the Compute Engine API, version 1, one request at a time.

    Attributes:
        unreachable: zones that Google cannot reach.
    """

    unreachable: set[str] = attrs.Factory(set)
    _requests: dict[str, tuple[datetime, str, StoredOperation]] = attrs.field(factory=dict, init=False)
    _routes: Routes[_Handler] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        one = "([^/]+)"
        project = f"/compute/v1/projects/{one}"
        zone, shared = f"{project}/zones/{one}", f"{project}/global"
        instance, disk = f"{zone}/instances/{one}", f"{zone}/disks/{one}"
        region = f"{project}/regions/{one}"
        act = functools.partial
        disks, beside = Disks(self), Shared(self)
        machines = Instances(self, disks)
        table: tuple[tuple[str, str, _Handler], ...] = (
            ("GET", f"{project}/zones", self._list_zones),
            ("GET", f"{project}/aggregated/{one}", self._aggregated),
            ("GET", f"{zone}/machineTypes", self._list_types),
            ("GET", f"{zone}/machineTypes/{one}", self._get_type),
            ("GET", f"{zone}/(instances|disks)", self._list),
            ("GET", f"{shared}/(images|firewalls|snapshots)", self._list),
            ("GET", f"{region}/(resourcePolicies)", self._list),
            ("GET", f"{region}/resourcePolicies/{one}", self._get),
            ("POST", f"{region}/resourcePolicies", beside.insert_policy),
            ("DELETE", f"{region}/resourcePolicies/{one}", beside.delete_policy),
            ("GET", f"{region}/operations/{one}", act(self._operation, whole=False)),
            ("POST", f"{region}/operations/{one}/wait", act(self._operation, whole=True)),
            ("GET", f"{zone}/(operations)", self._list_operations),
            ("GET", f"{shared}/(operations)", self._list_operations),
            ("GET", f"{zone}/operations/{one}", act(self._operation, whole=False)),
            ("GET", f"{shared}/operations/{one}", act(self._operation, whole=False)),
            ("POST", f"{zone}/operations/{one}/wait", act(self._operation, whole=True)),
            ("POST", f"{shared}/operations/{one}/wait", act(self._operation, whole=True)),
            ("GET", f"{shared}/images/family/{one}", disks.family),
            ("GET", f"{instance}/serialPort", machines.serial_port),
            ("GET", f"{instance}", self._get),
            ("GET", f"{disk}", self._get),
            ("GET", f"{shared}/images/{one}", self._get),
            ("GET", f"{shared}/firewalls/{one}", self._get),
            ("POST", f"{zone}/instances", machines.insert),
            ("DELETE", instance, machines.delete),
            ("POST", f"{instance}/start", machines.start),
            ("POST", f"{instance}/stop", machines.stop),
            ("POST", f"{instance}/suspend", machines.suspend),
            ("POST", f"{instance}/resume", machines.resume),
            ("POST", f"{instance}/reset", machines.reset),
            ("POST", f"{instance}/setMachineType", machines.set_type),
            ("POST", f"{instance}/setLabels", machines.set_labels),
            ("POST", f"{instance}/attachDisk", disks.attach),
            ("POST", f"{instance}/detachDisk", disks.detach),
            ("POST", f"{zone}/disks", disks.insert),
            ("DELETE", disk, disks.delete),
            ("POST", f"{disk}/setLabels", machines.set_labels),
            ("POST", f"{shared}/images", disks.insert_image),
            ("DELETE", f"{shared}/images/{one}", self._delete),
            ("GET", f"{shared}/snapshots/{one}", self._get),
            ("POST", f"{shared}/snapshots", disks.insert_snapshot),
            ("DELETE", f"{shared}/snapshots/{one}", self._delete),
            ("POST", f"{shared}/firewalls", beside.insert_firewall),
            ("PATCH", f"{shared}/firewalls/{one}", beside.patch_firewall),
            ("DELETE", f"{shared}/firewalls/{one}", self._delete),
        )
        self._routes = Routes(table)
        self.forget()

    def forget(self) -> None:
        """Delete everything, and be as the service is."""
        super().forget()
        self._requests.clear()
        self.unreachable.clear()

    def answer(self, request: Request, refused: Refused | None) -> Response:
        """Execute a request, or refuse it as whoever looked at the credentials says."""
        return served(request, self._routes, self._once, refused, _REASONS)

    def _once(self, handler: _Handler, call: Call) -> Json:
        """Execute a request, unless one with its id was executed within the hour."""
        given = call.query.get("requestId")
        check_request_id(given)
        for id_, (when, _, _) in list(self._requests.items()):
            if self.now() - when > _REMEMBERED:
                del self._requests[id_]
        place = f"{call.request.method} {call.request.path}"
        if given is not None and given in self._requests:
            _, before, operation = self._requests[given]
            if before != place:
                raise Refused(
                    400, "invalid", "", f"Invalid value for field 'requestId': '{given}'. It was used before."
                )
            return operation.told()
        told = handler(call)
        if given is not None:
            path = str(told["selfLink"]).removeprefix(LINK)
            self._requests[given] = (self.now(), place, self.operations[path])
        return told

    # listings

    def _list_zones(self, call: Call) -> Json:
        rows = [zone_told(call.names[0], zone) for zone in ZONES]
        return self._page(call, "compute#zoneList", rows, "zones")

    def _list_types(self, call: Call) -> Json:
        project, zone = call.names
        check_zone(zone)
        rows = [machine_type(project, zone, name) for name in MACHINE_TYPES]
        return self._page(call, "compute#machineTypeList", [row for row in rows if row is not None], "machineTypes")

    def _get_type(self, call: Call) -> Json:
        project, zone, name = call.names
        check_zone(zone)
        found = machine_type(project, zone, name)
        if found is None:
            raise absent(f"projects/{project}/zones/{zone}/machineTypes/{name}")
        return found

    def _list(self, call: Call) -> Json:
        base, kind = base_of(call), call.names[-1]
        if len(call.names) == 3 and kind != "resourcePolicies":
            check_zone(call.names[1])
        for path in [path for path in self.resources if path.startswith(f"{base}/{kind}/")]:
            self.look(path)
        rows = [each for path, each in sorted(self.resources.items()) if path.startswith(f"{base}/{kind}/")]
        return self._page(call, f"compute#{kind.removesuffix('s')}List", rows, kind)

    def _aggregated(self, call: Call) -> Json:
        project, kind = call.names
        if kind not in {"instances", "disks", "operations"}:
            raise Refused(501, "notImplemented", "", "not in the double")
        base = f"projects/{project}/zones/"
        for path in [path for path in self.resources if path.startswith(base) and f"/{kind}/" in path]:
            self.look(path)
        held = (
            {path: operation.told() for path, operation in self.operations.items()}
            if kind == "operations"
            else self.resources
        )
        wanted = filtered(call.query.get("filter"))
        rows = [
            (path.split("/")[3], path, each)
            for path, each in sorted(held.items())
            if path.startswith(base) and f"/{kind}/" in path and wanted(each)
        ]
        rows = [row for row in rows if row[0] not in self.unreachable]
        shown, token = self._cut(call, rows, lambda row: row[1])
        items: Json = {}
        for zone in ZONES:
            found = [each for where, _, each in shown if where == zone]
            items[f"zones/{zone}"] = {kind: found} if found else {"warning": _warning(zone, zone in self.unreachable)}
        told = {
            "kind": f"compute#{kind[:-1]}AggregatedList",
            "id": f"projects/{project}/aggregated/{kind}",
            "items": items,
            "selfLink": f"{LINK}projects/{project}/aggregated/{kind}",
        }
        if self.unreachable:
            told["unreachables"] = sorted(f"zones/{zone}" for zone in self.unreachable)
        return told | ({"nextPageToken": token} if token else {})

    def _page(self, call: Call, kind: str, rows: Iterable[Json], name: str) -> Json:
        wanted = filtered(call.query.get("filter"))
        shown, token = self._cut(call, [row for row in rows if wanted(row)], lambda row: str(row["name"]))
        base = base_of(call)
        told: Json = {"kind": kind, "id": f"{base}/{name}", "selfLink": f"{LINK}{base}/{name}"}
        told |= {"items": shown} if shown else {}
        return told | ({"nextPageToken": token} if token else {})

    def _cut(self, call: Call, rows: list[Any], mark: Callable[[Any], str]) -> tuple[list[Any], str | None]:
        """Cut one page."""
        most = int(call.query.get("maxResults", PAGE))
        if not 0 <= most <= PAGE:
            message = f"Invalid value for field 'maxResults': '{most}'. Values must be between 0 and 500."
            raise Refused(400, "invalid", "", message)
        rows.sort(key=mark)
        if call.query.get("pageToken"):
            try:
                after = json.loads(base64.urlsafe_b64decode(call.query["pageToken"]))
            except ValueError as exc:
                message = f"Invalid value for field 'pageToken': '{call.query['pageToken']}'."
                raise Refused(400, "invalid", "", message) from exc
            rows = [row for row in rows if mark(row) > after]
        count = min(most or PAGE, self.page_size)
        shown = rows[:count]
        more = len(rows) > len(shown)
        return shown, base64.urlsafe_b64encode(json.dumps(mark(shown[-1])).encode()).decode() if more else None

    # one resource

    def _get(self, call: Call) -> Json:
        path = self.path(call)
        self.look(path)
        return self.found(path)

    def _delete(self, call: Call) -> Json:
        path, _ = self.idle(call)
        return self.begin("delete", path, lambda: self.drop(path))

    # operations

    def _operation(self, call: Call, *, whole: bool) -> Json:
        path = f"{base_of(call)}/operations/{call.names[-1]}"
        if path not in self.operations:
            raise absent(path)
        operation = self.operations[path]
        operation.look(self.now())
        while whole and operation.ended is None:
            operation.look(self.now())
        return operation.told()

    def _list_operations(self, call: Call) -> Json:
        rows = [
            each.told() for path, each in self.operations.items() if path.startswith(f"{base_of(call)}/operations/")
        ]
        return self._page(call, "compute#operationList", rows, "operations")


def _warning(zone: str, unreachable: bool) -> Json:  # noqa: FBT001  a row of an answer
    if unreachable:
        return {"code": "UNREACHABLE", "message": f"The zone {zone} cannot be reached."}
    return {
        "code": "NO_RESULTS_ON_PAGE",
        "message": f"There are no results for scope 'zones/{zone}' on this page.",
        "data": [{"key": "scope", "value": f"zones/{zone}"}],
    }
