"""Machines in Google's Compute Engine."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import attrs
from google.api_core import exceptions as api_errors

from shiftable.compute.driver import (
    ALIASES,
    FLEET_LABEL,
    IMPORT_LABEL,
    Arch,
    Choice,
    ComputeDriver,
    ComputeFeatures,
    Debris,
    Disk,
    DiskImage,
    DiskSnapshot,
    FleetSpec,
    Image,
    MachineInfo,
    MachineState,
    Size,
    relabelled,
)
from shiftable.errors import AlreadyExists, Conflict, Fault, InvalidArgument, NotFound, PermissionDenied
from shiftable.paging import Page
from shiftable_gcp import _features
from shiftable_gcp._compute_api import PAGE, ComputeApi, ComputeFault, Json, ended, failure, is_exhausted, last, meaning
from shiftable_gcp._compute_sizes import best_of, can_be_placed, custom_size, size_of
from shiftable_gcp._compute_spec import (
    FAMILIES,
    debris_of,
    disk_of,
    fleet_of,
    image_of,
    image_path,
    imported,
    impossible_labels,
    info_of,
    instance_of,
    is_as,
    is_ours,
    native_of,
    network_path,
    placement_of,
    placements_named,
    snapshot_of,
    token_of,
    wall_names,
    walls_of,
)
from shiftable_gcp._compute_work import Begun, Works
from shiftable_gcp._session import Session

__all__ = ["ComputeFault", "GceDriver"]

_KEPT = 3600.0  # seconds
_ID = re.compile(r"(?P<zone>[a-z]+-[a-z0-9-]+)/(?P<name>[a-z0-9-]+)")
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_IMAGE = re.compile(r"projects/(?P<project>[a-z][a-z0-9.:-]*)/global/images/(?P<name>[a-z][a-z0-9-]*)")
_LOST = frozenset({"FAILED", "DELETING"})
_CONSOLE_PAGES = 8  # of a megabyte at most, which is all that Google keeps; more only while the machine goes on writing
_MOVING = frozenset({"PENDING", "PENDING_STOP", "PROVISIONING", "STAGING", "STOPPING", "SUSPENDING", "DEPROVISIONING"})
_WRITES = 40  # that others may do between two calls of ours
_STALE = frozenset({"conditionNotMet", "CONDITION_NOT_MET"})
_BUSY = frozenset({"resourceNotReady", "RESOURCE_NOT_READY"})
M = TypeVar("M", Image, DiskSnapshot)

_RUNS, _STOPPED = frozenset({"RUNNING"}), frozenset({"STOPPED", "TERMINATED"})
_NEVER = frozenset[str]()


@attrs.define(eq=False)
class GceDriver(ComputeDriver):
    """Compute Engine by REST: Google's client takes a second to import, and cannot be sent elsewhere.

    The id of a machine is its zone and Google's number of it, as another one may get its name. Machines are those of
    the region. Without a zone they are made in the first one, or, for ten minutes after that had no more of them, in
    the next.

    What takes minutes is an operation at Google, and one that fails, for want of quota or of machines, leaves no
    machine behind that could say so. So this process remembers what it began: the next look at such a machine says why
    there is none, and removes what is left of it. Until then it is listed as ``failed``. Another process sees no
    machine, and ``apply`` makes it.

    The disk that a machine starts from has its labels, also when they change; disks that live longer have none.
    """

    session: Session
    _api: ComputeApi = attrs.field(init=False, repr=False)
    _works: Works = attrs.field(factory=Works, init=False, repr=False)
    _known: dict[str, Size] = attrs.field(factory=dict, init=False, repr=False)
    _kept: dict[str, tuple[float, Any]] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._api = ComputeApi.of(self.session)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "gcp"

    @property
    def features(self) -> ComputeFeatures:
        """What this driver can do."""
        return _features.COMPUTE

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return meaning(exc)

    # checks: they send nothing

    def missing_features(self, spec: FleetSpec) -> tuple[str, ...]:
        """Say what a declaration needs and Compute Engine does not have."""
        missing, native = [*super().missing_features(spec)], native_of(spec)
        if spec.gpus and spec.gpu is None and native.machine_type is not None:
            missing.append(f'GPUs for {native.machine_type} without their kind (gpu = "nvidia-tesla-t4")')
        if spec.placement == "close" and len(set(spec.zones)) > 1:
            missing.append("machines that are close in several zones")
        if spec.user == "root" and spec.ssh_keys:
            missing.append("logins as root, whom Google's images do not let in")
        if spec.firewall and spec.network is None and native.subnetwork is not None:
            missing.append("firewall around a subnetwork whose network is not declared (network = …)")
        return tuple(missing)

    def missing_labels(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Say what is no label of Google's."""
        return (*super().missing_labels(labels), *impossible_labels(labels))

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Make the policy of a fleet's placement, and its firewall rules, also where older ones open more."""
        image = self._image_of(spec, spec.arch, fresh=True)
        if image is not None and not image_of(image).ready:
            raise failure(
                Conflict,
                f"image {image['name']!r} is {str(image['status']).lower()}, so not ready; try again when it is",
            )
        if spec.placement is not None:
            self._place(spec.name, spec.placement)
        self._open(spec)

    def update(self, current: FleetSpec, spec: FleetSpec) -> None:  # noqa: ARG002  the rules are looked at as they are
        """Change the firewall rules of a fleet."""
        self._open(spec)

    def destroy(self, name: str) -> None:
        """Delete what a fleet had, and the disks that machines left that were never made to their end."""
        for policy in self._placements(name):
            if is_ours(policy):
                self._delete("regions", self._api.region, "resourcePolicies", str(policy["name"]))
        for wall in self._walls(name).values():
            if is_ours(wall):
                self._delete("global", "firewalls", str(wall["name"]))
        for disk in self._api.every_aggregated("disks", f'labels.{FLEET_LABEL}="{name}"'):
            if not disk.get("users"):
                self._delete("zones", last(disk["zone"]), "disks", str(disk["name"]))

    # sizes and images

    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:  # noqa: ARG002  there is one page
        """Return the machine types of the region's first zone, without those that Google gives up."""
        return Page(tuple(self._sizes_in(self._zones()[0])[:limit]))

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:
        """Return the newest image of each alias, then the project's own."""
        if cursor is None:
            newest = self._keep("images", self._newest)
            return Page(tuple(newest[:limit]), "own:")
        query: dict[str, str | int] = {"maxResults": min(limit or PAGE, PAGE)}
        query |= {"pageToken": token} if (token := cursor.removeprefix("own:")) else {}
        answer = self._api.get("global", "images", **query)
        found = (image_of(each) for each in answer.get("items", ()) if each.get("status") not in _LOST)
        token = answer.get("nextPageToken", "")
        return Page(tuple(found), f"own:{token}" if token else None)

    def choose(self, spec: FleetSpec) -> Choice:
        """Choose the machine type: the declared one, else the cheapest; one made to measure where that is cheaper."""
        zone, native = self._zones_of(spec)[0], native_of(spec)
        if native.machine_type is None:
            return best_of(spec, self._sizes_in(zone), self._api.region)
        try:
            size = self._size(zone, native.machine_type)
        except api_errors.NotFound:
            raise ValueError(f"Google has no machine type {native.machine_type!r} in {zone}") from None
        if size.arch != spec.arch:
            raise ValueError(f"{size.name} is of {size.arch}, and {spec.arch} is declared")
        if bool(size.gpus) and not spec.gpus:
            raise ValueError(f"{size.name} has GPUs; declare gpus = {size.gpus}")
        if not can_be_placed(size.name, spec.placement):
            raise ValueError(f"{size.name} is of no family whose machines can be {spec.placement}")
        return Choice(size, "it is declared", size.price)

    # machines

    def create_machine(
        self, spec: FleetSpec, name: str, *, size: Size, token: str, user_data: bytes | None
    ) -> MachineInfo:
        """Begin to make a machine, or return the one that this token has made.

        The token stands on the machine: Google itself would take a name again only for other calls, and in another zone
        it would make a second machine.
        """
        zones = self._works.in_order(self._zones_of(spec), size.name)
        if spec.zone is None and (made := self._found(spec.name, name, token)) is not None:
            return made
        zone = zones[0]
        large = attrs.evolve(spec, disk_gib=max(spec.disk_gib, self._least_gib(spec, size)))
        body = instance_of(large, name, size, token=token, user_data=user_data, project=self._api.project, zone=zone)
        with self._lock:
            self._known[size.name] = size
        try:
            operation = self._insert(zone, body)
        except api_errors.Conflict:
            if (made := self._made(zone, name, spec.name, token)) is not None:
                return made
            if not self._clear(zone, name, spec.name):
                raise
            operation = self._insert(zone, body)
        told = {
            "id": operation.get("targetId") or self._api.get("zones", zone, "instances", name)["id"],
            "zone": zone,
            "status": "PROVISIONING",
            "creationTimestamp": operation.get("insertTime"),
        }
        body["disks"][0]["diskSizeGb"] = str(large.disk_gib)
        info = info_of(body | told, size, walls_of(spec).values())
        self._works.begin(info.id, Begun(operation=operation, state="creating", until=_RUNS, made=info))
        return info

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:
        """Return one page of the machines of one fleet, or of all, in the region."""
        number, _, token = (cursor or f"{self._works.listing()}:").partition(":")
        where = None if fleet is None else f'labels.{FLEET_LABEL}="{fleet}"'
        found, following = self._api.aggregated("instances", where, token, limit)
        for instance in found:
            begun = self._works.find(_id(instance))
            if begun is not None:
                begun.listed = int(number)
        machines = self._told(found, fleet)
        if following is None:
            machines += self._lost(fleet, int(number))
        return Page(tuple(machines), None if following is None else f"{number}:{following}")

    def machine(self, id: str) -> MachineInfo:
        """Return one machine. What this process began and failed is said once, and its debris removed."""
        zone, name = _parts(id)
        try:
            instance = self._api.get("zones", zone, "instances", name)
        except api_errors.NotFound:
            begun = self._works.find(id)
            if begun is not None and begun.made is None:
                self._works.forget(id, begun)
            elif begun is not None and self._doing(id, begun, None) is not None and begun.made is not None:
                return begun.made
            raise
        begun = self._works.find(id)
        doing = None if begun is None else self._doing(id, begun, instance)
        (info,) = self._told([instance], instance.get("labels", {}).get(FLEET_LABEL, ""), doing)
        return info

    def delete_machine(self, id: str) -> None:
        """Begin to delete a machine, with the disk that it starts from."""
        zone, name = _parts(id)
        try:
            operation = self._begin_delete(zone, name)
        except api_errors.NotFound:
            begun = self._works.find(id)
            if begun is not None and begun.made is not None and begun.made.fleet is not None:
                self._clear(zone, begun.made.name, begun.made.fleet)
            self._works.forget(id)
            raise
        self._works.begin(id, Begun(operation=operation, state="deleting", until=_NEVER))

    def reboot(self, id: str) -> None:
        """Begin to reset a running machine."""
        self._act(id, "reset", "rebooting", _NEVER)

    def start(self, id: str) -> None:
        """Begin to start a stopped machine, or to resume one that somebody suspended."""
        zone, name = _parts(id)
        suspended = self._api.get("zones", zone, "instances", name)["status"] == "SUSPENDED"
        self._act(id, "resume" if suspended else "start", "starting", _RUNS)

    def stop(self, id: str) -> None:
        """Begin to stop a running machine; then only its disks cost."""
        self._act(id, "stop", "stopping", _STOPPED)

    def resize(self, id: str, size: Size) -> None:
        """Change the machine type of a stopped machine."""
        zone, name = _parts(id)
        body = {"machineType": f"zones/{zone}/machineTypes/{size.name}"}
        self._api.settle(self._api.begin("POST", self._machine(zone, name, "setMachineType"), body))

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Change labels of the disk that a machine starts from, which is billed by itself, then of the machine."""
        zone, name = _parts(id)
        for disk in self._api.get("zones", zone, "instances", name).get("disks", ()):
            if disk.get("boot") and disk.get("autoDelete") and "/zones/" in disk.get("source", ""):
                self._relabel(zone, "disks", last(disk["source"]), labels, remove)
        self._relabel(zone, "instances", name, labels, remove)

    def console(self, id: str) -> bytes:
        """Return what the machine wrote to its first serial port: of the last megabyte, what Google still has."""
        zone, name = _parts(id)
        text, start = "", dict[str, str | int]()
        for _ in range(_CONSOLE_PAGES):
            answer = self._api.get("zones", zone, "instances", name, "serialPort", port=1, **start)
            text += answer.get("contents", "")
            if not answer.get("contents") or str(answer["next"]) == str(start.get("start", "0")):
                break
            start = {"start": str(answer["next"])}
        return text.encode()

    def image(self, id: str) -> Image:
        """Return one image. That its making failed is said once."""
        project, name = _image(id)
        try:
            return self._asked(id, image_of(self._api.rest.get(f"/compute/v1/projects/{project}/global/images/{name}")))
        except api_errors.NotFound:
            self._say(id)
            raise

    def snapshot(self, id: str, name: str) -> Image:
        """Begin to make an image of a machine, also while it runs; what it holds in memory is not in it."""
        zone, machine = _parts(id)
        instance = self._api.get("zones", zone, "instances", machine)
        boot = next((disk for disk in instance.get("disks", ()) if disk.get("boot")), None)
        if boot is None:
            raise failure(Conflict, "it has no disk that it starts from")
        body = {"name": name, "sourceDisk": f"projects/{self._api.project}/zones/{zone}/disks/{last(boot['source'])}"}
        operation = self._api.begin("POST", self._api.path("global", "images"), body, forceCreate="true")
        made = Image(
            id=f"projects/{self._api.project}/global/images/{name}",
            name=name,
            arch=self._size(zone, last(instance["machineType"])).arch,
            disk_gib=int(boot.get("diskSizeGb", 0)) or None,
            own=True,
            ready=False,
        )
        self._works.begin(made.id, Begun(operation=operation, state="creating", until=_NEVER))
        return made

    def import_image(self, name: str, source: DiskImage, *, token: str) -> Image:
        """Begin to make an image of an archive, or go on: its label says of which one, as its name is there once."""
        body = imported(name, source, token)
        id_ = f"projects/{self._api.project}/global/images/{name}"
        told = self._imported(id_, name, token)
        if told is None:
            told = self._go_on_importing(id_, body, token)
        if told is not None and told.get("status") == "FAILED":
            self._delete("global", "images", name)
            self._say(id_)
            raise failure(InvalidArgument, f"Google could not make an image of {source.key!r}, and does not say why")
        return image_of(told or body | {"selfLink": id_, "status": "PENDING"})

    def delete_image(self, image: str) -> None:
        """Delete an image of the project's own."""
        project, name = _image(image)
        if project != self._api.project:
            raise failure(InvalidArgument, f"the image is the project {project}'s")
        self._api.settle(self._api.begin("DELETE", self._api.path("global", "images", name)))

    # disks: what takes seconds is waited for, as Google tells only then whether it was possible

    def disks(self, *, cursor: str | None, limit: int | None) -> Page[Disk]:
        """Return one page of the disks in the region that no machine started from."""
        found, following = self._api.aggregated("disks", None, cursor, limit)
        machines = dict[str, str]()
        if any(each.get("users") for each in found):
            every = self._api.every_aggregated("instances", None)
            machines = {f"{last(each['zone'])}/{each['name']}": _id(each) for each in every}
        disks = (disk_of(each, machines.get(_user(each) or "")) for each in found)
        return Page(tuple(disk for disk in disks if disk is not None), following)

    def disk(self, disk: str) -> Disk:
        """Return one disk."""
        zone, name = _parts(disk, "disk")
        told = self._api.get("zones", zone, "disks", name)
        user = _user(told)
        found = disk_of(told, _id(self._api.get("zones", zone, "instances", last(user))) if user else None)
        if found is None:
            raise failure(NotFound, "it is the disk that a machine starts from")
        return found

    def create_disk(self, name: str, size_gib: int, *, zone: str | None, snapshot: str | None) -> Disk:
        """Make a disk, where no zone is given in the region's first one."""
        place = zone or self._zones()[0]
        body = {"name": name, "sizeGb": str(size_gib), "type": f"zones/{place}/diskTypes/pd-balanced"}
        if snapshot is not None:
            body["sourceSnapshot"] = f"projects/{self._api.project}/global/snapshots/{_name(snapshot)}"
        self._api.settle(self._api.begin("POST", self._api.path("zones", place, "disks"), body))
        return Disk(id=f"{place}/{name}", name=name, size_gib=size_gib, zone=place)

    def delete_disk(self, disk: str) -> None:
        """Delete a disk."""
        zone, name = _parts(disk, "disk")
        self._api.settle(self._api.begin("DELETE", self._api.path("zones", zone, "disks", name)))

    def attach(self, id: str, disk: str) -> None:
        """Attach a disk. It is found in the machine as ``/dev/disk/by-id/google-`` and its name."""
        (zone, name), (where, which) = _parts(id), _parts(disk, "disk")
        users = {last(user) for user in self._api.get("zones", where, "disks", which).get("users", ())}
        mine = self._api.get("zones", zone, "instances", name)["name"]
        if zone != where:
            raise failure(InvalidArgument, f"the disk is in {where}, and the machine in {zone}")
        if mine in users:
            return
        if users:
            raise failure(Conflict, "it is attached to another machine")
        source = f"projects/{self._api.project}/zones/{zone}/disks/{which}"
        body = {"source": source, "deviceName": which, "mode": "READ_WRITE", "autoDelete": False}
        self._api.settle(self._api.begin("POST", self._machine(zone, name, "attachDisk"), body))

    def detach(self, id: str, disk: str) -> None:
        """Detach a disk."""
        (zone, name), (where, which) = _parts(id), _parts(disk, "disk")
        instance = self._api.get("zones", zone, "instances", name)
        for held in instance.get("disks", ()):
            if zone == where and last(held.get("source", "")) == which and not held.get("boot"):
                path, device = self._machine(zone, name, "detachDisk"), str(held["deviceName"])
                self._api.settle(self._api.begin("POST", path, deviceName=device))
                return
        if self._api.get("zones", where, "disks", which).get("users"):
            raise failure(Conflict, "it is attached to another machine")

    def disk_snapshots(self, *, cursor: str | None, limit: int | None) -> Page[DiskSnapshot]:
        """Return one page of the project's snapshots."""
        query: dict[str, str | int] = {"maxResults": min(limit or PAGE, PAGE)}
        answer = self._api.get("global", "snapshots", **query, **({"pageToken": cursor} if cursor else {}))
        found = (snapshot_of(each) for each in answer.get("items", ()) if each["status"] not in _LOST)
        return Page(tuple(found), answer.get("nextPageToken") or None)

    def disk_snapshot(self, snapshot: str) -> DiskSnapshot:
        """Return one snapshot. That its making failed is said once."""
        try:
            return self._asked(snapshot, snapshot_of(self._api.get("global", "snapshots", _name(snapshot))))
        except api_errors.NotFound:
            self._say(snapshot)
            raise

    def snapshot_disk(self, disk: str, name: str) -> DiskSnapshot:
        """Begin to make a snapshot of a disk."""
        zone, which = _parts(disk, "disk")
        size = int(self._api.get("zones", zone, "disks", which)["sizeGb"])
        body = {"name": name, "sourceDisk": f"projects/{self._api.project}/zones/{zone}/disks/{which}"}
        operation = self._api.begin("POST", self._api.path("global", "snapshots"), body)
        self._works.begin(name, Begun(operation=operation, state="creating", until=_NEVER))
        return DiskSnapshot(id=name, name=name, size_gib=size, ready=False)

    def delete_disk_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot."""
        self._api.settle(self._api.begin("DELETE", self._api.path("global", "snapshots", _name(snapshot))))

    # debris

    def debris(self, *, cursor: str | None, limit: int | None) -> Page[Debris]:  # noqa: ARG002  there is one page
        """Return what fleets without machines shared, and the disks that no machine came to start from."""
        living = {
            str(each["labels"][FLEET_LABEL])
            for each in self._api.every_aggregated("instances", f"labels.{FLEET_LABEL}:*")
        }
        walls = (each for each in self._walls(None).values() if is_ours(each) and fleet_of(each) not in living)
        left = [debris_of(each, "firewall") for each in walls]
        policies = (each for each in self._placements(None) if is_ours(each) and fleet_of(each) not in living)
        left += [debris_of(each, "placement policy") for each in policies]
        disks = self._api.every_aggregated("disks", f"labels.{FLEET_LABEL}:*")
        left += [debris_of(each, "disk") for each in disks if not each.get("users")]
        return Page(tuple(left[:limit]))

    def delete_debris(self, debris: Debris) -> None:
        """Delete a disk, a firewall rule or a policy, unless it is of use by now."""
        if debris.kind == "disk":
            self._delete("zones", *_placed(debris.id))
            return
        machines, _ = self._api.aggregated("instances", f'labels.{FLEET_LABEL}="{debris.fleet}"', limit=1)
        if machines:
            raise failure(Conflict, f"the fleet {debris.fleet} has machines again")
        where = (
            ("global", "firewalls") if debris.kind == "firewall" else ("regions", self._api.region, "resourcePolicies")
        )
        self._delete(*where, _name(debris.id))

    # images that are imported

    def _imported(self, id: str, name: str, token: str) -> Json | None:
        """Return the image that a token has made."""
        try:
            told: Json = self._api.get("global", "images", name)
        except api_errors.NotFound:
            return None
        if told.get("labels", {}).get(IMPORT_LABEL) != token:
            raise failure(AlreadyExists, f"there is an image {name!r} that was made of something else")
        if told.get("status") == "READY":
            self._works.forget(id)
        return told

    def _go_on_importing(self, id: str, body: Json, token: str) -> Json | None:
        """Look after what was begun; else begin, unless another process just did, and return what that made."""
        begun = self._works.find(id)
        if begun is not None:
            if self._api.current(begun.operation).get("status") == "DONE":
                self._say(id)
                raise failure(NotFound, "somebody deleted it while it was made")
            return None
        try:
            operation = self._api.begin("POST", self._api.path("global", "images"), body)
        except api_errors.Conflict:
            return self._imported(id, body["name"], token)
        except api_errors.NotFound as exc:
            raise _unmade(exc, "image") from exc
        self._works.begin(id, Begun(operation=operation, state="creating", until=_NEVER))
        return None

    # one machine

    def _machine(self, zone: str, name: str, *verb: str) -> str:
        return self._api.path("zones", zone, "instances", name, *verb)

    def _insert(self, zone: str, body: Json) -> Json:
        try:
            return self._api.begin("POST", self._api.path("zones", zone, "instances"), body)
        except api_errors.NotFound as exc:
            raise _unmade(exc) from exc

    def _act(self, id: str, verb: str, state: MachineState, until: frozenset[str]) -> None:
        zone, name = _parts(id)
        operation = self._api.begin("POST", self._machine(zone, name, verb))
        self._works.begin(id, Begun(operation=operation, state=state, until=until))

    def _relabel(self, zone: str, kind: str, name: str, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Change labels, which Google replaces as a whole, in the version that was read; and again, if that is old."""
        for left in reversed(range(_WRITES)):
            found = self._api.get("zones", zone, kind, name)
            now: Json = found.get("labels", {})
            wanted = relabelled(now, labels, remove)
            if wanted == now:
                return
            body = {"labels": wanted, "labelFingerprint": found["labelFingerprint"]}
            try:
                path = self._api.path("zones", zone, kind, name, "setLabels")
                self._api.settle(self._api.begin("POST", path, body))
            except Exception as exc:
                fault = meaning(exc)
                code = "" if fault is None or fault.error is PermissionDenied else fault.code
                if not left or code not in _STALE | _BUSY:
                    raise
                if code in _BUSY:
                    self._wait_idle(zone, name)
            else:
                return

    def _begin_delete(self, zone: str, name: str) -> Json:
        """Begin to delete an instance, when it is through with what is being done to it: until then Google refuses."""
        path = self._machine(zone, name)
        try:
            return self._api.begin("DELETE", path)
        except api_errors.BadRequest as exc:
            fault = meaning(exc)
            if fault is None or fault.code not in _BUSY:
                raise
        self._wait_idle(zone, name)
        return self._api.begin("DELETE", path)

    def _wait_idle(self, zone: str, name: str) -> None:
        """Wait for what is being done to an instance or a disk, by its name or number; how it ends is all the same."""
        where = '(status!="DONE")'
        for operation in self._api.every("zones", zone, "operations", filter=where):
            if name in {str(operation.get("targetId")), last(str(operation.get("targetLink", "")))}:
                with contextlib.suppress(ComputeFault):
                    self._api.settle(operation)

    def _found(self, fleet: str, name: str, token: str) -> MachineInfo | None:
        """Return the machine that a token has made, in whatever zone."""
        for instance in self._api.every_aggregated("instances", f'name="{name}"'):
            made = self._if_made(instance, fleet, token)
            if made is not None:
                return made
        return None

    def _made(self, zone: str, name: str, fleet: str, token: str) -> MachineInfo | None:
        """Return the machine of that name, if this token has made it."""
        try:
            return self._if_made(self._api.get("zones", zone, "instances", name), fleet, token)
        except api_errors.NotFound:
            return None

    def _if_made(self, instance: Json, fleet: str, token: str) -> MachineInfo | None:
        if instance.get("labels", {}).get(FLEET_LABEL) != fleet or token_of(instance) != token:
            return None
        (info,) = self._told([instance], fleet)
        return None if info.state == "deleting" else info

    def _clear(self, zone: str, name: str, fleet: str) -> bool:
        """Delete what is left of a machine that was never made to its end: its disk. Tell whether there was one."""
        try:
            disk = self._api.get("zones", zone, "disks", name)
        except api_errors.NotFound:
            return False
        if disk.get("users") or disk.get("labels", {}).get(FLEET_LABEL) != fleet:
            return False
        self._delete("zones", zone, "disks", name)
        return True

    def _delete(self, *parts: str) -> None:
        """Delete what may be gone already."""
        try:
            self._api.settle(self._api.begin("DELETE", self._api.path(*parts)))
        except api_errors.NotFound:
            return

    # what was begun

    def _doing(self, id: str, begun: Begun, instance: Json | None) -> MachineState | None:
        """Say what is being done to a machine; ``None``: nothing more.

        Raises:
            ComputeFault: what was begun has failed. It is said once.
        """
        status = "" if instance is None else str(instance["status"])
        if status in begun.until:
            self._works.forget(id, begun)
            return None
        if status in _MOVING:
            return begun.state
        operation = self._api.current(begun.operation)
        if operation.get("status") != "DONE":
            return begun.state
        self._works.forget(id, begun)
        fault = ended(operation)
        if fault is None:
            return None
        raise ComputeFault(self._given_up(id, begun, fault, instance))

    def _asked(self, id: str, made: M) -> M:
        """Return what was being made, and forget it when it is complete."""
        if made.ready:
            self._works.forget(id)
        return made

    def _say(self, id: str) -> None:
        """Say why what was being made is not there, if that is known."""
        begun = self._works.find(id)
        if begun is None:
            return
        self._works.forget(id, begun)
        fault = ended(self._api.current(begun.operation))
        if fault is not None:
            raise ComputeFault(fault)

    def _given_up(self, id: str, begun: Begun, fault: Fault, instance: Json | None) -> Fault:
        """Remove what is left of what failed, and say what to do."""
        zone, number = _parts(id)
        if begun.made is not None and begun.made.fleet is not None:
            if instance is not None:
                self._delete("zones", zone, "instances", number)
            self._clear(zone, begun.made.name, begun.made.fleet)
        if not is_exhausted(fault):
            return fault
        size = begun.made.size if begun.made is not None else "machines of its type"
        if begun.made is not None:
            self._works.avoid(zone, size)
        others = ", ".join(each for each in self._zones() if each != zone)
        advice = f"{zone} has no more of {size} now; apply again later, or try another zone: {others}"
        return attrs.evolve(fault, message=f"{fault.message}; {advice}")

    def _lost(self, fleet: str | None, number: int) -> list[MachineInfo]:
        """Return the machines that are being made by this process and were not listed."""
        found = []
        for id_, begun in self._works.making(fleet).items():
            if begun.made is None or begun.listed == number:
                continue
            operation = self._api.current(begun.operation)
            fault = ended(operation)
            if operation.get("status") != "DONE":
                found.append(begun.made)
            elif fault is None:
                self._works.forget(id_, begun)  # somebody deleted it
            else:
                raw = f"{fault.code}: {fault.message}"
                found.append(attrs.evolve(begun.made, state="failed", raw_state=raw))
        return found

    # asking

    def _told(
        self, instances: Iterable[Json], fleet: str | None, known: MachineState | None = None
    ) -> list[MachineInfo]:
        """Return machines, with what their fleets' firewall rules open.

        Args:
            known: what this process is doing to them, where that was asked for already.
        """
        rows = list(instances)
        rules = dict[str, list[Json]]()
        if rows:
            for wall in self._walls(fleet).values():
                rules.setdefault(fleet_of(wall), []).append(wall)
        going = self._being_deleted(rows)
        found = []
        for each in rows:
            size = self._size(last(each["zone"]), last(each["machineType"]))
            doing = known or ("deleting" if _id(each) in going else self._seen(each))
            found.append(info_of(each, size, rules.get(each.get("labels", {}).get(FLEET_LABEL, ""), ()), doing))
        return found

    def _seen(self, instance: Json) -> MachineState | None:
        """Say what this process is doing to a machine; that it failed is for whoever looks at that machine."""
        begun = self._works.find(_id(instance))
        if begun is None:
            return None
        if instance["status"] in begun.until:
            self._works.forget(_id(instance), begun)
            return None
        if instance["status"] in _MOVING:
            return begun.state
        operation = self._api.current(begun.operation)
        if operation.get("status") != "DONE":
            return begun.state
        if ended(operation) is None:
            self._works.forget(_id(instance), begun)
        return None

    def _being_deleted(self, instances: Iterable[Json]) -> set[str]:
        """Return those that somebody deletes: Google tells them as stopping."""
        stopping = [each for each in instances if each["status"] in {"STOPPING", "DEPROVISIONING"}]
        if all(self._works.find(_id(each)) is not None for each in stopping):
            return set()
        where = '(operationType="delete") AND (status!="DONE")'
        return {f"{last(each['zone'])}/{each['targetId']}" for each in self._api.every_aggregated("operations", where)}

    def _keep(self, key: str, ask: Any, *, fresh: bool = False) -> Any:  # noqa: ANN401  what ``ask`` returns
        """Return what was asked for within the last hour, unless it must be fresh; or ask."""
        with self._lock:
            held = None if fresh else self._kept.get(key)
        if held is None or time.monotonic() - held[0] > _KEPT:
            held = (time.monotonic(), ask())
            with self._lock:
                self._kept[key] = held
        return held[1]

    def _zones(self) -> list[str]:
        """Return the zones of the region that are up."""

        def ask() -> list[str]:
            here = (each for each in self._api.every("zones") if self._api.is_here(str(each["name"])))
            return sorted(str(each["name"]) for each in here if each.get("status", "UP") == "UP")

        zones: list[str] = self._keep("zones", ask)
        if not zones:
            raise failure(InvalidArgument, f"Compute Engine has no zones in the region {self._api.region!r}")
        return zones

    def _zones_of(self, spec: FleetSpec) -> list[str]:
        """Return the zones in which a machine may be made."""
        zones = self._zones()
        if spec.zone is None:
            return zones
        if spec.zone not in zones:
            raise failure(InvalidArgument, f"{self._api.region} has no zone {spec.zone!r}; it has {', '.join(zones)}")
        return [spec.zone]

    def _sizes_in(self, zone: str) -> list[Size]:
        def ask() -> list[Size]:
            told = self._api.every("zones", zone, "machineTypes")
            found = [size_of(each, self._api.region) for each in told if "deprecated" not in each]
            with self._lock:
                self._known |= {size.name: size for size in found}
            return found

        sizes: list[Size] = self._keep(f"sizes of {zone}", ask)
        return sizes

    def _size(self, zone: str, name: str) -> Size:
        """Return the size of a machine type, which is the same in all zones."""
        size = self._known.get(name) or custom_size(name, self._api.region)
        if size is None:
            size = size_of(self._api.get("zones", zone, "machineTypes", name), self._api.region)
        with self._lock:
            self._known[name] = size
        return size

    def _least_gib(self, spec: FleetSpec, size: Size) -> int:
        """Return how large a disk must be for its image; those of the aliases are smaller than any disk of ours."""
        image = self._image_of(spec, size.arch)
        return 0 if image is None else int(image.get("diskSizeGb", 0))

    def _image_of(self, spec: FleetSpec, arch: Arch, *, fresh: bool = False) -> Json | None:
        """Return the image that machines are to be made of, unless it is an alias. One that there is not is refused."""
        image = native_of(spec).image or spec.image
        if image in ALIASES:
            return None
        place = image_path(image, arch, self._api.project)
        try:
            found: Json = self._keep(place, lambda: self._api.rest.get(f"/compute/v1/{place}"), fresh=fresh)
        except api_errors.NotFound as exc:
            raise _unmade(exc) from exc
        return found

    def _newest(self) -> list[Image]:
        found = []
        for (alias, _), place in FAMILIES.items():
            found.append(image_of(self._api.rest.get(f"/compute/v1/{place}"), alias))
        return found

    # what the machines of a fleet share

    def _placements(self, fleet: str | None) -> list[Json]:
        """Return the policies of a fleet's placement, or of all."""
        which = placements_named(".*" if fleet is None else fleet)
        return list(self._api.every("regions", self._api.region, "resourcePolicies", filter=f'name eq "{which}"'))

    def _place(self, fleet: str, placement: str) -> None:
        """Make the policy by which machines are placed, unless there is one."""
        wanted = placement_of(fleet, placement)
        for policy in self._placements(fleet):
            if policy["name"] == wanted["name"]:
                if not is_ours(policy):
                    raise failure(AlreadyExists, f"there is a policy {policy['name']!r} that shiftable did not make")
                return
        path = self._api.path("regions", self._api.region, "resourcePolicies")
        self._api.settle(self._api.begin("POST", path, wanted))

    def _walls(self, fleet: str | None) -> dict[str, Json]:
        """Return the firewall rules of a fleet, or of all, by name."""
        if fleet == "":
            return {}
        which = wall_names(".*" if fleet is None else fleet)
        return {str(wall["name"]): wall for wall in self._api.every("global", "firewalls", filter=f'name eq "{which}"')}

    def _open(self, spec: FleetSpec) -> None:
        """Make the firewall rules of a fleet as declared: first those that let in, then away with the others."""
        found, wanted = self._walls(spec.name), walls_of(spec)
        for name, wall in found.items():
            if not is_ours(wall):
                raise failure(AlreadyExists, f"there is a firewall rule {name!r} that shiftable did not make")
        network = network_path(spec.network)
        for name, wall in wanted.items():
            if name in found and last(str(found[name]["network"])) != last(network):  # of machines that are no more
                self._delete("global", "firewalls", name)
                del found[name]
            if name not in found:
                body = wall | {"network": network}
                self._api.settle(self._api.begin("POST", self._api.path("global", "firewalls"), body))
            elif not is_as(found[name], wall):
                body = wall | {"disabled": False}
                self._api.settle(self._api.begin("PATCH", self._api.path("global", "firewalls", name), body))
        for name in found.keys() - wanted.keys():
            self._delete("global", "firewalls", name)


def _unmade(exc: Exception, what: str = "machine") -> ComputeFault:
    """Say that something is missing, and not the machine or the image, which is to be made."""
    fault = meaning(exc)
    why = fault.message if fault is not None else "something that the declaration names"
    return failure(InvalidArgument, f"Google does not have what the {what} is to be made of: {why}")


def _id(instance: Json) -> str:
    return f"{last(instance['zone'])}/{instance['id']}"


def _user(disk: Json) -> str | None:
    """Return the zone and the name of the machine that has a disk."""
    users = disk.get("users")
    return f"{last(disk['zone'])}/{last(users[0])}" if users else None


def _parts(id: str, kind: str = "machine") -> tuple[str, str]:
    """Return the zone and the name that an id consists of."""
    found = _ID.fullmatch(id)
    if found is None:
        raise failure(NotFound, f"there is no {kind} {id!r}; ids are zone/name")
    return found["zone"], found["name"]


def _placed(disk: str) -> tuple[str, str, str]:
    zone, name = _parts(disk, "disk")
    return zone, "disks", name


def _name(id: str) -> str:
    """Return what is a name, and so the end of a path and no more."""
    if not _NAME.fullmatch(id):
        raise failure(NotFound, f"there is none of the id {id!r}; ids are names")
    return id


def _image(id: str) -> tuple[str, str]:
    """Return the project and the name that the id of an image consists of."""
    found = _IMAGE.fullmatch(id)
    if found is None:
        raise failure(NotFound, f"there is no image {id!r}; ids are projects/…/global/images/…")
    return found["project"], found["name"]
