"""The double's Compute Engine: instances, disks, images and firewall rules, and operations that are done in time."""

from __future__ import annotations

import base64
import copy
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import attrs

from shiftable.testing.harness import Request, Response
from shiftable_gcp._calls import Call, Routes, served
from shiftable_gcp._compute_catalogue import (
    LINK,
    MACHINE_TYPES,
    ZONES,
    images,
    machine_type,
    zone_told,
)
from shiftable_gcp._compute_rules import (
    check_disk,
    check_firewall,
    check_instance,
    check_labels,
    check_name,
    check_request_id,
    filtered,
    resolved,
)
from shiftable_gcp._compute_state import (
    Failure,
    StoredOperation,
    absent,
    exists,
    in_use,
    invalid,
    not_ready,
    told_time,
    version_of,
)
from shiftable_gcp._state import Refused

__all__ = ["ComputeEngine"]

PAGE = 500
_QUOTAS = {"CPUS": 10_000, "INSTANCES": 10_000, "DISKS_TOTAL_GB": 10_000_000}
_REASONS = {401: "authError", 403: "forbidden"}
_NETWORKS = frozenset({"default"})
_REMEMBERED = timedelta(minutes=60)  # Compute Engine API, request ids
_CONSOLE = 2**20

Json = dict[str, Any]
_Handler = Callable[[Call], Json]


@attrs.define(eq=False)
class ComputeEngine:
    """Answers the Compute Engine API, version 1, one request at a time.

    Attributes:
        resources: instances, disks, images and firewall rules as the API tells them, by their paths from ``projects``.
        operations: by their paths.
        page_size: how much a page of a listing holds at most.
        polls: how often an operation is looked at before it is done; a look at its resource is one, too.
        quotas: of a region.
        exhausted: zones, or zones and machine types, of which there are no more.
        unreachable: zones that Google cannot reach.
        networks: VPCs of each project.
        consoles: what machines wrote, by their paths, with how much of it has been overwritten.
    """

    now: Callable[[], datetime]
    page_size: int = PAGE
    polls: int = 1
    quotas: dict[str, int] = attrs.Factory(lambda: dict(_QUOTAS))
    exhausted: set[str | tuple[str, str]] = attrs.Factory(set)
    unreachable: set[str] = attrs.Factory(set)
    networks: frozenset[str] = _NETWORKS
    resources: dict[str, Json] = attrs.Factory(dict)
    operations: dict[str, StoredOperation] = attrs.Factory(dict)
    consoles: dict[str, tuple[int, bytes]] = attrs.Factory(dict)
    _failing: dict[str, Failure] = attrs.field(factory=dict, init=False)
    _requests: dict[str, tuple[datetime, str, StoredOperation]] = attrs.field(factory=dict, init=False)
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1_700_000_000_001), init=False)
    _routes: Routes[_Handler] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        one = "([^/]+)"
        project = f"/compute/v1/projects/{one}"
        zone, shared = f"{project}/zones/{one}", f"{project}/global"
        instance, disk = f"{zone}/instances/{one}", f"{zone}/disks/{one}"
        region = f"{project}/regions/{one}"
        act = functools.partial
        table: tuple[tuple[str, str, _Handler], ...] = (
            ("GET", f"{project}/zones", self._list_zones),
            ("GET", f"{project}/aggregated/{one}", self._aggregated),
            ("GET", f"{zone}/machineTypes", self._list_types),
            ("GET", f"{zone}/machineTypes/{one}", self._get_type),
            ("GET", f"{zone}/(instances|disks)", self._list),
            ("GET", f"{shared}/(images|firewalls|snapshots)", self._list),
            ("GET", f"{region}/(resourcePolicies)", self._list),
            ("GET", f"{region}/resourcePolicies/{one}", self._get),
            ("POST", f"{region}/resourcePolicies", self._insert_policy),
            ("DELETE", f"{region}/resourcePolicies/{one}", self._delete_policy),
            ("GET", f"{region}/operations/{one}", act(self._operation, whole=False)),
            ("POST", f"{region}/operations/{one}/wait", act(self._operation, whole=True)),
            ("GET", f"{zone}/(operations)", self._list_operations),
            ("GET", f"{shared}/(operations)", self._list_operations),
            ("GET", f"{zone}/operations/{one}", act(self._operation, whole=False)),
            ("GET", f"{shared}/operations/{one}", act(self._operation, whole=False)),
            ("POST", f"{zone}/operations/{one}/wait", act(self._operation, whole=True)),
            ("POST", f"{shared}/operations/{one}/wait", act(self._operation, whole=True)),
            ("GET", f"{shared}/images/family/{one}", self._family),
            ("GET", f"{instance}/serialPort", self._serial_port),
            ("GET", f"{instance}", self._get),
            ("GET", f"{disk}", self._get),
            ("GET", f"{shared}/images/{one}", self._get),
            ("GET", f"{shared}/firewalls/{one}", self._get),
            ("POST", f"{zone}/instances", self._insert_instance),
            ("DELETE", instance, self._delete_instance),
            ("POST", f"{instance}/start", self._start),
            ("POST", f"{instance}/stop", self._stop),
            ("POST", f"{instance}/suspend", self._suspend),
            ("POST", f"{instance}/resume", self._resume),
            ("POST", f"{instance}/reset", self._reset),
            ("POST", f"{instance}/setMachineType", self._set_type),
            ("POST", f"{instance}/setLabels", self._set_labels),
            ("POST", f"{instance}/attachDisk", self._attach),
            ("POST", f"{instance}/detachDisk", self._detach),
            ("POST", f"{zone}/disks", self._insert_disk),
            ("DELETE", disk, self._delete_disk),
            ("POST", f"{shared}/images", self._insert_image),
            ("DELETE", f"{shared}/images/{one}", self._delete_shared),
            ("GET", f"{shared}/snapshots/{one}", self._get),
            ("POST", f"{shared}/snapshots", self._insert_snapshot),
            ("DELETE", f"{shared}/snapshots/{one}", self._delete_shared),
            ("POST", f"{shared}/firewalls", self._insert_firewall),
            ("PATCH", f"{shared}/firewalls/{one}", self._patch_firewall),
            ("DELETE", f"{shared}/firewalls/{one}", self._delete_shared),
        )
        self._routes = Routes(table)
        self.forget()

    def forget(self) -> None:
        """Delete everything, and be as the service is."""
        for held in (self.resources, self.operations, self.consoles, self._failing, self._requests):
            held.clear()
        self.exhausted.clear()
        self.unreachable.clear()
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
        _check_zone(zone)
        rows = [machine_type(project, zone, name) for name in MACHINE_TYPES]
        return self._page(call, "compute#machineTypeList", [row for row in rows if row is not None], "machineTypes")

    def _get_type(self, call: Call) -> Json:
        project, zone, name = call.names
        _check_zone(zone)
        found = machine_type(project, zone, name)
        if found is None:
            raise absent(f"projects/{project}/zones/{zone}/machineTypes/{name}")
        return found

    def _list(self, call: Call) -> Json:
        base, kind = _base(call), call.names[-1]
        if len(call.names) == 3 and kind != "resourcePolicies":
            _check_zone(call.names[1])
        for path in [path for path in self.resources if path.startswith(f"{base}/{kind}/")]:
            self._look(path)
        rows = [each for path, each in sorted(self.resources.items()) if path.startswith(f"{base}/{kind}/")]
        return self._page(call, f"compute#{kind.removesuffix('s')}List", rows, kind)

    def _aggregated(self, call: Call) -> Json:
        project, kind = call.names
        if kind not in {"instances", "disks", "operations"}:
            raise Refused(501, "notImplemented", "", "not in the double")
        base = f"projects/{project}/zones/"
        for path in [path for path in self.resources if path.startswith(base) and f"/{kind}/" in path]:
            self._look(path)
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
        base = _base(call)
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
        path = self._path(call)
        self._look(path)
        return self._found(path)

    def _path(self, call: Call) -> str:
        """Return the path of the resource that a call is about, by its name or its number, without a verb."""
        parts = call.request.path.removeprefix("/compute/v1/").split("/")
        parts = parts[: 5 if parts[2] == "global" else 6]
        base = "/".join(parts[:-1])
        for path, resource in self.resources.items():
            if parts[-1].isdecimal() and path.startswith(f"{base}/") and resource["id"] == parts[-1]:
                return path
        return "/".join(parts)

    def _found(self, path: str) -> Json:
        if path not in self.resources:
            raise absent(path)
        return self.resources[path]

    def _idle(self, call: Call, *states: str) -> tuple[str, Json]:
        """Return a resource to which nothing is being done, in one of those states."""
        path = self._path(call)
        found = self._found(path)
        if any(self._pending(path)) or (states and found["status"] not in states):
            raise not_ready(path)
        return path, found

    def _pending(self, path: str) -> Iterator[StoredOperation]:
        return (each for each in self.operations.values() if each.target == path and each.ended is None)

    def _look(self, path: str) -> None:
        """Let the time of one look pass for what is being done to a resource."""
        for operation in list(self._pending(path)):
            operation.look(self.now())
            if operation.ended is None and operation.kind in {"insert", "start"} and "/instances/" in path:
                self.resources[path]["status"] = "STAGING"

    # operations

    def _begin(
        self,
        kind: str,
        path: str,
        effect: Callable[[], Failure | None],
        undo: Callable[[Failure], None] = lambda _failure: None,
    ) -> Json:
        project = path.split("/")[1]
        scope = "global" if "/global/" in path else "/".join(path.split("/")[2:4])
        number = str(self.resources.get(path, {}).get("id") or version_of(path))
        made = StoredOperation(
            project,
            next(self._numbers),
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

    def _operation(self, call: Call, *, whole: bool) -> Json:
        path = f"{_base(call)}/operations/{call.names[-1]}"
        if path not in self.operations:
            raise absent(path)
        operation = self.operations[path]
        operation.look(self.now())
        while whole and operation.ended is None:
            operation.look(self.now())
        return operation.told()

    def _list_operations(self, call: Call) -> Json:
        rows = [each.told() for path, each in self.operations.items() if path.startswith(f"{_base(call)}/operations/")]
        return self._page(call, "compute#operationList", rows, "operations")

    # instances

    def _insert_instance(self, call: Call) -> Json:
        (project, zone), body = call.names, copy.deepcopy(call.body)
        _check_zone(zone)
        check_instance(body)
        path = f"projects/{project}/zones/{zone}/instances/{body['name']}"
        if path in self.resources:
            raise exists(path)
        kind = self._checked_type(project, zone, body)
        cards = self._checked_cards(body, kind)
        self._check_network(project, zone, body)
        self._check_policies(project, zone, body, kind)
        disk = self._boot_disk(project, zone, body, kind)
        made = self._made(path, zone, body, kind, cards, disk)
        self.resources[path] = made
        self.resources[_path_of(disk)] = disk

        def effect() -> Failure | None:
            return self._shortage(zone, kind) or self._over_quota(zone) or self._run(made)

        def undo(failure: Failure) -> None:
            if failure.leaves == "machine":
                made["status"] = "TERMINATED"
                return
            self.resources.pop(path, None)
            if failure.leaves == "disk":
                disk.pop("users", None)
            else:
                self.resources.pop(_path_of(disk), None)

        return self._begin("insert", path, effect, undo)

    def _checked_type(self, project: str, zone: str, body: Json) -> Json:
        link = resolved(body.get("machineType"), project, "machineType")
        found = machine_type(project, zone, link.rpartition("/")[2])
        if found is None or link != f"projects/{project}/zones/{zone}/machineTypes/{found['name']}":
            raise invalid("machineType", body.get("machineType"), "The referenced resource does not exist.")
        return found

    def _checked_cards(self, body: Json, kind: Json) -> list[Json]:
        """Return the GPUs of an instance."""
        cards = [
            {"acceleratorType": card["acceleratorType"], "acceleratorCount": card["acceleratorCount"]}
            for card in body.get("guestAccelerators", ())
        ]
        if cards and not kind["name"].startswith("n1-"):
            raise invalid("guestAccelerators", cards, f"{kind['name']} takes no GPUs besides its own.")
        cards += [
            {"acceleratorType": card["guestAcceleratorType"], "acceleratorCount": card["guestAcceleratorCount"]}
            for card in kind.get("accelerators", ())
        ]
        if cards and body.get("scheduling", {}).get("onHostMaintenance") != "TERMINATE":
            why = "Instances with guest accelerators do not support live migration."
            raise Refused(400, "invalid", "", why)
        return cards

    def _check_network(self, project: str, zone: str, body: Json) -> None:
        for each in body["networkInterfaces"]:
            network = resolved(
                each.get("network") or "global/networks/default", project, "networkInterfaces[0].network"
            )
            if "network" in each or "subnetwork" not in each:
                self._check_vpc(network)
            if "subnetwork" in each:
                subnetwork = resolved(each["subnetwork"], project, "networkInterfaces[0].subnetwork")
                if f"/regions/{zone.rpartition('-')[0]}/" not in subnetwork:
                    raise invalid("networkInterfaces[0].subnetwork", subnetwork, "It is in another region.")

    def _check_vpc(self, path: str) -> None:
        if path.rpartition("/")[2] not in self.networks:
            raise absent(path)

    def _check_policies(self, project: str, zone: str, body: Json, kind: Json) -> None:
        """Refuse policies of placement that there are not, or that such a machine cannot have."""
        family = kind["name"].partition("-")[0]
        for link in body.get("resourcePolicies", ()):
            policy = self._found(resolved(link, project, "resourcePolicies"))
            if f"/regions/{zone.rpartition('-')[0]}/" not in policy["selfLink"]:
                raise invalid("resourcePolicies", link, "It is in another region.")
            group = policy.get("groupPlacementPolicy", {})
            if group and family not in {"a2", "c2", "c2d", "g2", "n1", "n2", "n2d"}:
                raise invalid("machineType", kind["name"], "It does not support placement policies.")
            if group.get("collocation") and body.get("scheduling", {}).get("onHostMaintenance") != "TERMINATE":
                why = "Instances with a compact placement policy do not support live migration."
                raise Refused(400, "invalid", "", why)

    def _boot_disk(self, project: str, zone: str, body: Json, kind: Json) -> Json:
        """Return the disk that an instance is to start from."""
        wanted = body["disks"][0].get("initializeParams", {})
        check_labels(wanted.get("labels", {}))
        image = self._image(resolved(wanted.get("sourceImage"), project, "disks[0].initializeParams.sourceImage"))
        if image["status"] != "READY":
            raise not_ready(_path_of(image))
        if "shieldedInstanceConfig" in body and {"type": "UEFI_COMPATIBLE"} not in image.get("guestOsFeatures", ()):
            why = "Shielded VM Config can only be set when using a UEFI-compatible disk."
            raise invalid("shieldedInstanceConfig", image["name"], why)
        if image.get("architecture", "X86_64") != kind["architecture"]:
            raise invalid("disks[0]", image["name"], f"It is not of the architecture of {kind['name']}.")
        size, disk_type = wanted.get("diskSizeGb", image["diskSizeGb"]), _last(wanted.get("diskType", "pd-standard"))
        check_disk(disk_type, size)
        if int(size) < int(image["diskSizeGb"]):
            least = image["diskSizeGb"]
            raise invalid(
                "disks[0].initializeParams.diskSizeGb", size, f"It cannot be smaller than the image: {least} GB."
            )
        if kind["name"].startswith("n4-") and not disk_type.startswith("hyperdisk"):
            raise invalid("disks[0]", disk_type, f"{kind['name']} supports hyperdisks only.")
        name = check_name(wanted.get("diskName", body["name"]))
        path = f"projects/{project}/zones/{zone}/disks/{name}"
        if path in self.resources:
            raise exists(path)
        return self._disk(path, str(size), disk_type) | {
            "sourceImage": image["selfLink"],
            "architecture": kind["architecture"],
            "licenses": image.get("licenses", []),
            "guestOsFeatures": image.get("guestOsFeatures", []),
            "labels": wanted.get("labels", {}),
            "users": [f"{LINK}projects/{project}/zones/{zone}/instances/{body['name']}"],
        }

    def _disk(self, path: str, size: str, kind: str) -> Json:
        _, project, _, zone, _, name = path.split("/")
        return {
            "kind": "compute#disk",
            "id": str(next(self._numbers)),
            "creationTimestamp": told_time(self.now()),
            "name": name,
            "sizeGb": size,
            "status": "READY",
            "type": f"{LINK}projects/{project}/zones/{zone}/diskTypes/{kind}",
            "zone": f"{LINK}projects/{project}/zones/{zone}",
            "selfLink": LINK + path,
        }

    def _image(self, path: str) -> Json:
        """Return an image, or the newest of a family."""
        base, _, family = path.partition("/images/family/")
        if family:
            found = [
                each
                for where, each in self.resources.items()
                if where.startswith(f"{base}/images/") and each.get("family") == family
            ]
            if not found:
                raise absent(path)
            return max(found, key=lambda each: str(each["creationTimestamp"]))
        self._look(path)
        return self._found(path)

    def _made(self, path: str, zone: str, body: Json, kind: Json, cards: list[Json], disk: Json) -> Json:
        project = path.split("/")[1]
        number = next(self._numbers)
        boot = {
            "kind": "compute#attachedDisk",
            "type": "PERSISTENT",
            "mode": "READ_WRITE",
            "source": disk["selfLink"],
            "deviceName": body["disks"][0].get("deviceName", "persistent-disk-0"),
            "index": 0,
            "boot": True,
            "autoDelete": body["disks"][0].get("autoDelete", False),
            "diskSizeGb": disk["sizeGb"],
            "architecture": kind["architecture"],
            "licenses": disk["licenses"],
            "interface": "SCSI",
        }
        network = body["networkInterfaces"][0].get("network", "global/networks/default")
        interface = {
            **body["networkInterfaces"][0],
            "kind": "compute#networkInterface",
            "name": "nic0",
            "network": LINK + resolved(network, project, "network"),
        }
        metadata = body.get("metadata", {})
        return {
            **{
                key: value
                for key, value in body.items()
                if key not in {"disks", "networkInterfaces", "guestAccelerators"}
            },
            "kind": "compute#instance",
            "id": str(number),
            "creationTimestamp": told_time(self.now()),
            "status": "PROVISIONING",
            "machineType": kind["selfLink"],
            "zone": f"{LINK}projects/{project}/zones/{zone}",
            "selfLink": LINK + path,
            "disks": [boot],
            "networkInterfaces": [interface],
            "labelFingerprint": _fingerprint(body.get("labels", {})),
            "metadata": {
                **metadata,
                "kind": "compute#metadata",
                "fingerprint": _fingerprint(metadata.get("items", [])),
            },
            "tags": {**body.get("tags", {}), "fingerprint": _fingerprint(body.get("tags", {}))},
            "deletionProtection": body.get("deletionProtection", False),
            "resourcePolicies": [LINK + resolved(each, project, "") for each in body.get("resourcePolicies", ())],
            "startRestricted": False,
            **({"guestAccelerators": cards} if cards else {}),
        }

    def _run(self, made: Json) -> Failure | None:
        made["status"] = "RUNNING"
        made["lastStartTimestamp"] = told_time(self.now())
        number = int(made["id"])
        for interface in made["networkInterfaces"]:
            interface.setdefault("networkIP", f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
            for access in interface.get("accessConfigs", ()):
                access |= {
                    "kind": "compute#accessConfig",
                    "natIP": f"203.0.113.{number % 254 + 1}",
                    "networkTier": "PREMIUM",
                }
        self.consoles.setdefault(_path_of(made), (0, b"Booting...\n"))
        return None

    def _shortage(self, zone: str, kind: Json) -> Failure | None:
        if not {zone, (zone, kind["name"])} & self.exhausted:
            return None
        project = kind["selfLink"].removeprefix(LINK).split("/")[1]
        message = (
            f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the"
            " request.  Try a different zone, or try again later."
        )
        return Failure("ZONE_RESOURCE_POOL_EXHAUSTED", message, 503)

    def _over_quota(self, zone: str) -> Failure | None:
        region = zone.rpartition("-")[0]
        used = dict.fromkeys(self.quotas, 0)
        for path, each in self.resources.items():
            if not path.split("/")[3].startswith(f"{region}-") or "/zones/" not in path:
                continue
            if "/instances/" in path and each["status"] not in {"TERMINATED", "STOPPING"}:
                _, project, _, where, *_ = path.split("/")
                kind = machine_type(project, where, _last(each["machineType"]))
                used["INSTANCES"] += 1
                used["CPUS"] += kind["guestCpus"] if kind else 0
            elif "/disks/" in path:
                used["DISKS_TOTAL_GB"] += int(each["sizeGb"])
        for metric, limit in self.quotas.items():
            if used[metric] > limit:
                message = f"Quota '{metric}' exceeded.  Limit: {limit:.1f} in region {region}."
                return Failure("QUOTA_EXCEEDED", message, 403)
        return None

    def _delete_instance(self, call: Call) -> Json:
        path, found = self._idle(call)
        if found["deletionProtection"]:
            message = "Invalid resource usage: 'Resource cannot be deleted if it's protected against deletion.'."
            raise Refused(400, "invalidUsage", "", message)
        before, found["status"] = found["status"], "STOPPING"

        def effect() -> None:
            del self.resources[path]
            self.consoles.pop(path, None)
            for each in found["disks"]:
                where = str(each["source"]).removeprefix(LINK)
                if each["autoDelete"]:
                    self.resources.pop(where, None)
                elif where in self.resources:
                    self.resources[where].pop("users", None)

        return self._begin("delete", path, effect, lambda _failure: found.update(status=before))

    def _start(self, call: Call) -> Json:
        path, found = self._idle(call, "TERMINATED", "RUNNING")
        if found["status"] == "RUNNING":
            return self._begin("start", path, lambda: None)
        found["status"] = "PROVISIONING"
        zone, kind = call.names[1], _last(found["machineType"])

        def effect() -> Failure | None:
            told = machine_type(call.names[0], zone, kind) or {}
            return self._shortage(zone, told) or self._over_quota(zone) or self._run(found)

        return self._begin("start", path, effect, lambda _failure: found.update(status="TERMINATED"))

    def _stop(self, call: Call) -> Json:
        path, found = self._idle(call, "RUNNING", "TERMINATED")
        before, found["status"] = found["status"], "STOPPING"

        def effect() -> None:
            found["status"], found["lastStopTimestamp"] = "TERMINATED", told_time(self.now())
            for interface in found["networkInterfaces"]:
                for access in interface.get("accessConfigs", ()):
                    access.pop("natIP", None)

        return self._begin("stop", path, effect, lambda _failure: found.update(status=before))

    def _suspend(self, call: Call) -> Json:
        path, found = self._idle(call, "RUNNING")
        found["status"] = "SUSPENDING"
        return self._begin("suspend", path, lambda: found.update(status="SUSPENDED"))

    def _resume(self, call: Call) -> Json:
        path, found = self._idle(call, "SUSPENDED")
        return self._begin("resume", path, lambda: self._run(found))

    def _reset(self, call: Call) -> Json:
        path, _ = self._idle(call, "RUNNING")
        start, text = self.consoles.get(path, (0, b""))
        self.consoles[path] = (start, text + b"Booting again...\n")
        return self._begin("reset", path, lambda: None)

    def _set_type(self, call: Call) -> Json:
        path, found = self._idle(call, "TERMINATED")
        kind = self._checked_type(call.names[0], call.names[1], call.body)
        if kind["architecture"] != found["disks"][0]["architecture"]:
            raise invalid("machineType", kind["name"], "It is of another architecture.")
        return self._begin("setMachineType", path, lambda: found.update(machineType=kind["selfLink"]))

    def _set_labels(self, call: Call) -> Json:
        path, found = self._idle(call)
        if call.body.get("labelFingerprint") != found["labelFingerprint"]:
            message = "Labels fingerprint either invalid or resource labels have changed"
            raise Refused(412, "conditionNotMet", "", message)
        labels = call.body.get("labels", {})
        check_labels(labels)
        return self._begin(
            "setLabels", path, lambda: found.update(labels=labels, labelFingerprint=_fingerprint(labels))
        )

    def _serial_port(self, call: Call) -> Json:
        path = self._path(call)
        found = self._found(path)
        if found["status"] not in {"RUNNING", "STAGING", "STOPPING"}:
            raise not_ready(path)
        lost, text = self.consoles.get(path, (0, b""))
        start = int(call.query.get("start", 0))
        first = max(lost, start if start >= 0 else lost + len(text) + start)
        cut = text[first - lost :][: self.page_size * 100 if self.page_size < PAGE else _CONSOLE]
        return {
            "kind": "compute#serialPortOutput",
            "contents": cut.decode(),
            "start": str(first),
            "next": str(first + len(cut)),
            "selfLink": f"{LINK}{path}/serialPort",
        }

    # disks

    def _attach(self, call: Call) -> Json:
        path, found = self._idle(call, "RUNNING", "TERMINATED")
        where = resolved(call.body.get("source"), call.names[0], "source")
        disk = self._found(where)
        if disk.get("users"):
            raise in_use(where, disk["users"][0])
        if disk["zone"] != found["zone"]:
            raise invalid("source", where, "It is in another zone.")
        device = call.body.get("deviceName", f"persistent-disk-{len(found['disks'])}")
        if any(each["deviceName"] == device for each in found["disks"]):
            raise invalid("deviceName", device, "It is already in use.")
        attached = {
            "kind": "compute#attachedDisk",
            "type": "PERSISTENT",
            "mode": call.body.get("mode", "READ_WRITE"),
            "source": LINK + where,
            "deviceName": device,
            "index": len(found["disks"]),
            "boot": False,
            "autoDelete": call.body.get("autoDelete", False),
            "diskSizeGb": disk["sizeGb"],
            "interface": "SCSI",
        }

        def effect() -> None:
            found["disks"].append(attached)
            disk["users"] = [found["selfLink"]]

        return self._begin("attachDisk", path, effect)

    def _detach(self, call: Call) -> Json:
        path, found = self._idle(call, "RUNNING", "TERMINATED")
        device = call.query.get("deviceName", "")
        attached = next((each for each in found["disks"] if each["deviceName"] == device), None)
        if attached is None:
            raise invalid("deviceName", device, "No attached disk found with that device name.")
        if attached["boot"] and found["status"] == "RUNNING":
            raise not_ready(path)

        def effect() -> None:
            found["disks"].remove(attached)
            self.resources[str(attached["source"]).removeprefix(LINK)].pop("users", None)

        return self._begin("detachDisk", path, effect)

    def _insert_disk(self, call: Call) -> Json:
        (project, zone), body = call.names, call.body
        _check_zone(zone)
        name, kind = check_name(body.get("name")), _last(body.get("type", "pd-standard"))
        check_disk(kind, body.get("sizeGb", "500"))
        check_labels(body.get("labels", {}))
        path = f"projects/{project}/zones/{zone}/disks/{name}"
        if path in self.resources:
            raise exists(path)
        if "sourceSnapshot" in body:
            where = resolved(body["sourceSnapshot"], project, "sourceSnapshot")
            snapshot = self._found(where)
            if snapshot["status"] != "READY":
                raise not_ready(where)
            if int(body.get("sizeGb") or snapshot["diskSizeGb"]) < int(snapshot["diskSizeGb"]):
                raise invalid("sizeGb", body["sizeGb"], "It cannot be smaller than the snapshot.")
        made = self._disk(path, str(body.get("sizeGb", "500")), kind) | {
            "status": "CREATING",
            "labels": body.get("labels", {}),
        }
        self.resources[path] = made

        def effect() -> Failure | None:
            made["status"] = "READY"
            return self._over_quota(zone)

        return self._begin("insert", path, effect, lambda _failure: _gone(self.resources, path))

    def _delete_disk(self, call: Call) -> Json:
        path, found = self._idle(call)
        if found.get("users"):
            raise in_use(path, found["users"][0].removeprefix(LINK))
        return self._begin("delete", path, lambda: _gone(self.resources, path))

    # images and firewall rules

    def _family(self, call: Call) -> Json:
        return self._image(f"{_base(call)}/images/family/{call.names[-1]}")

    def _insert_image(self, call: Call) -> Json:
        (project,), body = call.names, call.body
        name = check_name(body.get("name"))
        path = f"projects/{project}/global/images/{name}"
        if path in self.resources:
            raise exists(path)
        where = resolved(body.get("sourceDisk"), project, "sourceDisk")
        disk = self._found(where)
        users = [self.resources[str(user).removeprefix(LINK)] for user in disk.get("users", ())]
        if any(user["status"] == "RUNNING" for user in users) and call.query.get("forceCreate") != "true":
            raise in_use(where, users[0]["selfLink"])
        made = {
            "kind": "compute#image",
            "id": str(next(self._numbers)),
            "creationTimestamp": told_time(self.now()),
            "name": name,
            "status": "PENDING",
            "sourceType": "RAW",
            "sourceDisk": disk["selfLink"],
            "diskSizeGb": disk["sizeGb"],
            "architecture": disk.get("architecture", "X86_64"),
            "licenses": disk.get("licenses", []),
            "guestOsFeatures": disk.get("guestOsFeatures", []),
            "selfLink": LINK + path,
        }
        self.resources[path] = made
        return self._begin(
            "insert", path, lambda: made.update(status="READY"), lambda _failure: _gone(self.resources, path)
        )

    def _insert_snapshot(self, call: Call) -> Json:
        (project,), body = call.names, call.body
        path = f"projects/{project}/global/snapshots/{check_name(body.get('name'))}"
        if path in self.resources:
            raise exists(path)
        disk = self._found(resolved(body.get("sourceDisk"), project, "sourceDisk"))
        made = {
            "kind": "compute#snapshot",
            "id": str(next(self._numbers)),
            "creationTimestamp": told_time(self.now()),
            "name": body["name"],
            "status": "CREATING",
            "sourceDisk": disk["selfLink"],
            "diskSizeGb": disk["sizeGb"],
            "selfLink": LINK + path,
        }
        self.resources[path] = made
        return self._begin(
            "insert", path, lambda: made.update(status="READY"), lambda _failure: _gone(self.resources, path)
        )

    def _insert_policy(self, call: Call) -> Json:
        (project, region), body = call.names, call.body
        path = f"projects/{project}/regions/{region}/resourcePolicies/{check_name(body.get('name'))}"
        if path in self.resources:
            raise exists(path)
        group = body.get("groupPlacementPolicy", {})
        if not 1 <= group.get("availabilityDomainCount", 1) <= 8:
            raise invalid("groupPlacementPolicy.availabilityDomainCount", group, "Must be between 1 and 8.")
        if "availabilityDomainCount" in group and "collocation" in group:
            raise invalid("groupPlacementPolicy", group, "Collocation and availability domains cannot be combined.")
        made = {
            **body,
            "kind": "compute#resourcePolicy",
            "id": str(next(self._numbers)),
            "creationTimestamp": told_time(self.now()),
            "region": f"{LINK}projects/{project}/regions/{region}",
            "status": "READY",
            "selfLink": LINK + path,
        }
        return self._begin("insert", path, lambda: self.resources.update({path: made}))

    def _delete_policy(self, call: Call) -> Json:
        path, _ = self._idle(call)
        for where, each in self.resources.items():
            if LINK + path in each.get("resourcePolicies", ()):
                raise in_use(path, where)
        return self._begin("delete", path, lambda: _gone(self.resources, path))

    def _insert_firewall(self, call: Call) -> Json:
        (project,), body = call.names, call.body
        check_firewall(body)
        path = f"projects/{project}/global/firewalls/{body['name']}"
        if path in self.resources:
            raise exists(path)
        network = resolved(body.get("network", "global/networks/default"), project, "network")
        self._check_vpc(network)
        made = {
            "direction": "INGRESS",
            "priority": 1000,
            "disabled": False,
            **body,
            "kind": "compute#firewall",
            "id": str(next(self._numbers)),
            "creationTimestamp": told_time(self.now()),
            "network": LINK + network,
            "selfLink": LINK + path,
        }
        if not {"sourceRanges", "sourceTags", "sourceServiceAccounts"} & made.keys():
            made["sourceRanges"] = ["0.0.0.0/0"]
        return self._begin("insert", path, lambda: self.resources.update({path: made}))

    def _patch_firewall(self, call: Call) -> Json:
        path, found = self._idle(call)
        changed = found | call.body
        check_firewall(changed)
        if changed["name"] != found["name"]:
            raise invalid("name", changed["name"], "The name cannot be changed.")
        return self._begin("patch", path, lambda: found.update(call.body))

    def _delete_shared(self, call: Call) -> Json:
        path, _ = self._idle(call)
        return self._begin("delete", path, lambda: _gone(self.resources, path))


def _gone(resources: dict[str, Json], path: str) -> None:
    resources.pop(path, None)


def _last(link: str) -> str:
    return link.rpartition("/")[2]


def _path_of(resource: Json) -> str:
    return str(resource["selfLink"]).removeprefix(LINK)


def _base(call: Call) -> str:
    """Return where the resources of a call are: in a zone, or global."""
    path = call.request.path.removeprefix("/compute/v1/").split("/")
    return "/".join(path[:4] if len(path) > 3 and path[2] in {"zones", "regions"} else path[:3])


def _check_zone(zone: str) -> None:
    if zone not in ZONES:
        message = f"Invalid value for field 'zone': '{zone}'. Unknown zone."
        raise Refused(400, "invalid", "", message)


def _fingerprint(value: Any) -> str:  # noqa: ANN401  any JSON
    return base64.b64encode(version_of(json.dumps(value, sort_keys=True)).encode()[:8]).decode()


def _warning(zone: str, unreachable: bool) -> Json:  # noqa: FBT001  a row of an answer
    if unreachable:
        return {"code": "UNREACHABLE", "message": f"The zone {zone} cannot be reached."}
    return {
        "code": "NO_RESULTS_ON_PAGE",
        "message": f"There are no results for scope 'zones/{zone}' on this page.",
        "data": [{"key": "scope", "value": f"zones/{zone}"}],
    }
