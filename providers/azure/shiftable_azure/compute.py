"""The driver for Azure virtual machines."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
import requests

from shiftable.compute.driver import (
    FLEET_LABEL,
    Choice,
    ComputeDriver,
    ComputeFeatures,
    Debris,
    Disk,
    DiskSnapshot,
    FleetSpec,
    Image,
    MachineInfo,
    Rule,
    Size,
)
from shiftable.errors import Fault
from shiftable.paging import Page
from shiftable_azure import _features
from shiftable_azure._arm import ArmRefusal, ArmSession
from shiftable_azure._compute_settings import AzureComputeSettings
from shiftable_azure._flexible import moment
from shiftable_azure._machine_network import Interface, network_body, read_wall, same_id, wall_body
from shiftable_azure._machine_sizes import Offering, Sku
from shiftable_azure._machines import (
    ALIAS_IMAGES,
    CREATED_LABEL,
    DISK_LABEL,
    GALLERY,
    MACHINE_LABEL,
    TOKEN_LABEL,
    Around,
    Place,
    codes_of,
    identifier,
    machine_body,
    read_machine,
    state_of,
)
from shiftable_azure.errors import ArmFailure, classify_compute

__all__ = ["AzureComputeDriver"]

_COMPUTE = "2026-04-01"
_NETWORK = "2025-09-01"
_DISKS = "2025-01-02"
_GALLERIES = "2024-03-03"
_SKUS = "2021-07-01"
_FEATURE = "2021-07-01"

_SUBNET = "machines"
_FIRST = "1.0.0"  # and only, of an image
_HIDDEN = {"networkAccessPolicy": "DenyAll", "publicNetworkAccess": "Disabled"}
_PATIENCE = 600.0  # seconds, for what is to be complete before the next step
_PAUSE = 5.0  # seconds between two looks
_RESERVED = 200.0  # seconds: 180 of them are Azure's
_UNDER_WAY = {"creating", "updating"}
_KEPT = 3600.0  # seconds that sizes count
_LISTINGS = 16  # that are remembered between their pages
_CONSOLE = 2**20  # bytes, the last of it
_PAGE = 512  # bytes: the last page of a log is filled up with zeros
_MISSING, _TAKEN, _FORBIDDEN, _CONFLICT = 404, 412, 403, 409

_KINDS = {
    "networkInterfaces": "network interface",
    "publicIPAddresses": "public address",
    "disks": "disk",
    "networkSecurityGroups": "network security group",
    "proximityPlacementGroups": "proximity placement group",
    "availabilitySets": "availability set",
    "virtualNetworks": "virtual network",
}

_NO_KEY = (
    "Azure makes no Linux machine without a password or an ssh key, and shiftable none with a password; "
    "declare ssh_keys, the public keys of who may log in"
)


@attrs.frozen
class _Surroundings:
    """What belongs to machines and is told elsewhere, by the id of the machine or its own.

    Args:
        codes: what run-time views say; ``None``: nobody could be asked for all of them.
    """

    codes: Mapping[str, tuple[str, ...]] | None
    interfaces: Mapping[str, Interface]
    walls: Mapping[str, tuple[Rule, ...]]
    public: Mapping[str, str]


class AzureComputeDriver(ComputeDriver):
    """Virtual machines of Azure in the resource group of the settings, and what they need around them.

    A machine is one call: its interface, its public address and its first disk are made with it and deleted with it.
    Machines of all fleets share one virtual network of the location, ``shiftable-LOCATION``, unless ``network`` names
    another: a virtual network of the resource group (its subnet ``default``), ``NETWORK/SUBNET``, or the id of a
    subnet. Each fleet has a network security group, ``shiftable-FLEET``, which lets in what is declared and nothing
    else, not even from the network. Without a public address machines do not reach the internet, as on other clouds.
    ``identity`` is the id of a managed identity, or its name in the resource group.

    Where no zone is declared, machines take turns in those that their size has, so that they do not fail together;
    where the location has none, ``placement = "spread"`` makes an availability set.

    The id of a machine is its name and Azure's ``vmId``, since the name comes again. A machine that was shut down from
    inside is ``suspended``: it is paid for until it is stopped, which deallocates it. Azure makes no machine without a
    password or an ssh key, and this driver none with a password: a fleet without keys is refused.

    An image of a machine is an image of the gallery ``shiftable``: a copy of its first disk, whether or not it runs, as
    it would be after a power failure. The system is not generalised: cloud-init makes a new machine of it (host name,
    host keys, user), but users, logs and files of the first one are in it. Managed images, outside galleries, are not
    used: they cannot be made of machines with trusted launch.

    What a failed creation leaves behind is tagged: ``destroy`` deletes it, and ``debris`` tells of it. Azure keeps the
    interface of a machine that failed for three minutes: ``destroy`` waits, ``delete_debris`` is a conflict until then.

    Prices are not known: the one dated list at hand (apache-libcloud's of 2 March 2025) has no size newer than 2021's.

    Credentials: ``arm_token`` of the settings, or one of Microsoft Entra.

    Permissions: *Contributor* on the resource group, and in the subscription ``Microsoft.Compute/skus/read`` and
    ``Microsoft.Compute/virtualMachines/read``; without the latter a listing asks for each machine by itself. The single
    actions of ``Microsoft.Compute`` are ``virtualMachines/{read,write,delete}``, ``virtualMachines/{start,deallocate,
    restart,attachDetachDataDisks,retrieveBootDiagnosticsData}/action``, ``disks/{read,write,delete}``, ``snapshots/
    {read,write,delete}``, ``availabilitySets/{read,write,delete}``, ``proximityPlacementGroups/{read,write,delete}``
    and, for images, ``galleries/``, ``galleries/images/`` and ``galleries/images/versions/{read,write,delete}``; of
    ``Microsoft.Network`` ``virtualNetworks/{read,write,delete}``, ``virtualNetworks/subnets/join/action`` and, for each
    of ``networkSecurityGroups``, ``networkInterfaces`` and ``publicIPAddresses``, ``{read,write,delete,join/action}``;
    ``Microsoft.Features/providers/features/read``; and for machines with an identity
    ``Microsoft.ManagedIdentity/userAssignedIdentities/assign/action``.
    """

    def __init__(self, session: ArmSession, features: ComputeFeatures = _features.COMPUTE) -> None:
        self._session = session
        self._features = features
        self._lock = threading.Lock()
        self._offering: tuple[float, Offering] | None = None
        self._host_encryption: bool | None = None
        self._listings: OrderedDict[str, _Surroundings] = OrderedDict()

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "azure"

    @property
    def features(self) -> ComputeFeatures:
        """What this driver can do."""
        return self._features

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify_compute(exc)

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Make what machines of a fleet share, unless it is there: a network, a security group, what places them."""
        self._check_keys(spec)
        native, location = AzureComputeSettings.of(spec), self._location
        tags = {FLEET_LABEL: spec.name}
        if spec.placement == "spread" and spec.zone is not None:
            why = "in one zone, Azure spreads nothing; declare several zones, or none"
            raise ArmFailure("InvalidParameterConflict", why)
        sku = self._offered().get(self.choose(spec).size.name)
        near, apart = self._placement(spec, native, sku)
        if native.subnet is None and spec.network is None:
            made = network_body(location, {"shiftable": "network"}, _SUBNET)
            self._make_once(self._network_path, _NETWORK, made, f"the network of {location}")
        self._make_once(
            self._wall_path(spec.name),
            _NETWORK,
            wall_body(location, tags, spec.firewall),
            f"the network security group of {spec.name}",
        )
        if near == self._near_path(spec.name):
            self._make_once(near, _COMPUTE, {"location": location, "tags": tags, "properties": {}}, "its placement")
        if apart == self._apart_path(spec.name):
            domains = {"platformFaultDomainCount": 2, "platformUpdateDomainCount": 5}
            body = {"location": location, "tags": tags, "sku": {"name": "Aligned"}, "properties": domains}
            self._make_once(apart, _COMPUTE, body, "its availability set")

    def update(self, current: FleetSpec, spec: FleetSpec) -> None:
        """Change the network security group of a fleet."""
        path = self._wall_path(spec.name)
        self._owned(path, _NETWORK, {FLEET_LABEL: current.name})
        group = wall_body(self._location, {FLEET_LABEL: spec.name, CREATED_LABEL: _now()}, spec.firewall)
        self._put(path, _NETWORK, group, f"the network security group of {spec.name}")

    def destroy(self, name: str) -> None:
        """Delete what machines of a fleet have left, what they shared, and the network after the last fleet."""
        vms = list(self._virtual_machines())
        for piece in list(self._pieces(vms, name)):
            self._delete_patiently(piece.id)
        for path in (self._wall_path(name), self._near_path(name), self._apart_path(name)):
            found = self._got(path, _version_of(path))
            if found is not None and (found.get("tags") or {}).get(FLEET_LABEL) == name:
                self._delete(path)
        if self._lonely_network({_fleet_of(vm) for vm in vms} - {"", name}, frozenset()) is not None:
            try:
                self._delete(self._network_path)
            except ArmRefusal as exc:
                if _code(exc) != "InUseSubnetCannotBeDeleted":  # machines that are not ours are in it
                    raise

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:  # noqa: ARG002  one page has them all
        """Return the names of all fleets."""
        found = {_fleet_of(vm) for vm in self._virtual_machines()} - {""}
        return Page(tuple(sorted(found)[:limit]))

    # sizes and images

    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:  # noqa: ARG002  one page has them all
        """Return all sizes that the subscription can have in the location."""
        return Page(self._offered().sizes[:limit])

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:
        """Return the aliases, then one page of the gallery each."""
        if cursor is None:
            return Page(ALIAS_IMAGES[:limit], f"{self._gallery_path}/images")
        try:
            page = self._session.call("GET", cursor, _GALLERIES).body
        except ArmRefusal as exc:
            if exc.status_code != _MISSING:
                raise
            return Page(())
        return Page(tuple(map(self._image, page.get("value") or ())), page.get("nextLink"))

    def image(self, id: str) -> Image:
        """Return an alias, or an image of the gallery."""
        alias = next((image for image in ALIAS_IMAGES if image.id == id), None)
        if alias is not None:
            return alias
        found = self._session.call("GET", self._own_image(id), _GALLERIES).body
        version = self._got(f"{self._own_image(id)}/versions/{_FIRST}", _GALLERIES)
        if version is not None:
            _require_made(version, "the copy of the disk")
        return self._image_told(id, str(found["name"]), found, version)

    def choose(self, spec: FleetSpec) -> Choice:
        """Choose the smallest size that is large enough, or the one that ``vm_size`` names."""
        return self._offered().choose(spec, AzureComputeSettings.of(spec).vm_size)

    # machines

    def user_data(self, spec: FleetSpec, name: str, given: bytes | None) -> bytes | None:  # noqa: ARG002  all get the same
        """Return what the user gave: Azure makes user, keys and host name itself. Without a key it makes nothing."""
        if not spec.ssh_keys:
            raise ValueError(_NO_KEY)
        return given

    def create_machine(
        self, spec: FleetSpec, name: str, *, size: Size, token: str, user_data: bytes | None
    ) -> MachineInfo:
        """Begin to make a machine, or return the one that this token has made."""
        self._check_keys(spec)
        sku = self._offered().get(size.name)
        if sku is None:
            raise ArmFailure("SkuNotAvailable", f"the subscription has no size {size.name} here")
        native = AzureComputeSettings.of(spec)
        near, apart = self._placement(spec, native, sku)
        place = Place(
            location=self._location,
            subnet=native.subnet or self._subnet(spec.network),
            wall=self._wall_path(spec.name),
            identity=self._identity(spec.identity),
            sku=sku,
            encryption_at_host=self._encrypts_at_host(native, sku),
            zone=_zone(spec, name, sku) if near is None and apart is None else spec.zone,
            near=near,
            apart=apart,
            now=_now(),
        )
        body = machine_body(spec, name, token=token, user_data=user_data, place=place)
        path = f"{self._path('Microsoft.Compute/virtualMachines')}/{quote(name, safe='')}"
        try:
            made = self._put_machine(path, body, place)
        except ArmRefusal as exc:
            if exc.status_code not in {_TAKEN, _CONFLICT}:
                raise
            return self._made_before(path, spec.name, token, exc)
        return self._read(made, (), Around())

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:  # noqa: ARG002  Azure cuts pages as it likes
        """Return one page of machines, with what is around them: of a fleet, in three calls for the first page.

        These are the machines, their run-time views, and the security group with its interfaces; for public addresses
        one more. The pages that follow cost one each, and so do further pages of the others. Of all fleets, groups and
        interfaces are listed by themselves, which is one call more.
        """
        page = self._session.call("GET", cursor or self._path("Microsoft.Compute/virtualMachines"), _COMPUTE).body
        found = [vm for vm in page.get("value") or () if fleet in (None, _fleet_of(vm))]
        with self._lock:
            around = self._listings.pop(cursor or "", None)
        following = page.get("nextLink")
        if found and around is None:
            around = self._look_around(fleet)
        if around is None:
            return Page((), following)
        if following is not None:
            with self._lock:
                self._listings[following] = around
                while len(self._listings) > _LISTINGS:
                    self._listings.popitem(last=False)
        return Page(tuple(self._told(vm, around) for vm in found), following)

    def machine(self, id: str) -> MachineInfo:
        """Return one machine."""
        return self._info(self._found(id))

    def delete_machine(self, id: str) -> None:
        """Begin to delete a machine, and with it what was made with it."""
        vm = self._found(id)
        if self._state(vm) != "deleting":
            self._session.call("DELETE", self._machine_path(vm), _COMPUTE)

    def reboot(self, id: str) -> None:
        """Begin to restart a running machine."""
        vm = self._found(id)
        state = self._state(vm)
        if state != "running":
            raise ArmFailure("VMNotRunning", f"it is {state}; it must be running")
        self._session.call("POST", f"{self._machine_path(vm)}/restart", _COMPUTE)

    def start(self, id: str) -> None:
        """Begin to start a stopped machine."""
        self._begin(id, "start", {"starting", "running"})

    def stop(self, id: str) -> None:
        """Begin to deallocate a machine: only then it is not paid for, but for its disks."""
        self._begin(id, "deallocate", {"stopping", "stopped"})

    def resize(self, id: str, size: Size) -> None:
        """Change the size of a deallocated machine."""
        vm = self._found(id)
        state = self._state(vm)
        if state != "stopped":
            raise ArmFailure("OperationNotAllowed", f"it is {state}; it must be stopped")
        body, what = {"properties": {"hardwareProfile": {"vmSize": size.name}}}, f"the new size of {vm['name']}"
        try:
            answer = self._session.call("PATCH", self._machine_path(vm), _COMPUTE, body=body, repeat=True)
            self._session.finish(answer, _COMPUTE, what=what, timeout=_PATIENCE)
        except ArmRefusal as exc:
            found = self._settled(self._machine_path(vm), _COMPUTE, what) if exc.doubtful else vm
            if found["properties"]["hardwareProfile"]["vmSize"] != size.name:
                raise

    def console(self, id: str) -> bytes:
        """Return the last of what the machine wrote to its serial console, by a URL that Azure signs for it."""
        path = f"{self._machine_path(self._found(id))}/retrieveBootDiagnosticsData"
        said = self._session.call("POST", path, _COMPUTE, query={"sasUriExpirationTimeInMinutes": "5"}, repeat=True)
        url = str(said.body.get("serialConsoleLogBlobUri") or "")
        return self._fetched(url) if url else b""

    # images and disks

    def snapshot(self, id: str, name: str) -> Image:
        """Begin to copy the first disk of a machine into the gallery."""
        vm, location = self._found(id), self._location
        first = vm["properties"]["storageProfile"]["osDisk"]
        sku = self._offered().get(str(vm["properties"]["hardwareProfile"]["vmSize"]))
        is_arm = sku is not None and sku.size.arch == "arm64"
        path = f"{self._gallery_path}/images/{quote(name, safe='')}"
        if self._got(path, _GALLERIES) is not None:
            raise ArmFailure("GalleryImageAlreadyExists", f"the gallery {GALLERY} has an image {name!r}")
        gallery = {"location": location, "tags": {"shiftable": "gallery"}, "properties": {}}
        self._make_once(self._gallery_path, _GALLERIES, gallery, "the gallery")
        size = first.get("diskSizeGB") or (vm.get("tags") or {}).get(DISK_LABEL)
        definition: dict[str, Any] = {
            "location": location,
            "tags": {"shiftable": "image"} | ({DISK_LABEL: str(size)} if size else {}),
            "properties": {
                "osType": "Linux",
                "osState": "Generalized",  # else its machines get neither user nor keys
                "hyperVGeneration": "V2",
                "architecture": "Arm64" if is_arm else "x64",
                "identifier": {"publisher": "shiftable", "offer": "machines", "sku": name},
                "features": [] if is_arm else [{"name": "SecurityType", "value": "TrustedLaunchSupported"}],
            },
        }
        self._put(path, _GALLERIES, definition, f"the image {name}")
        source = {"osDiskImage": {"source": {"id": first["managedDisk"]["id"]}}}
        version = {"location": location, "properties": {"storageProfile": source}}
        try:
            self._session.call("PUT", f"{path}/versions/{_FIRST}", _GALLERIES, body=version)
        except ArmRefusal:
            self._delete(path)
            raise
        return self._image_told(path, name, definition, None)

    def delete_image(self, image: str) -> None:
        """Delete an image with its versions, and the gallery with the last one."""
        path = self._own_image(image)
        self._session.call("GET", path, _GALLERIES)
        for version in list(self._items(f"{path}/versions", _GALLERIES)):
            self._delete(f"{path}/versions/{version['name']}")
        self._delete(path)
        gallery = self._got(self._gallery_path, _GALLERIES)
        ours = gallery is not None and (gallery.get("tags") or {}).get("shiftable") == "gallery"
        if ours and not list(self._items(f"{self._gallery_path}/images", _GALLERIES)):
            self._delete(self._gallery_path)

    def disks(self, *, cursor: str | None, limit: int | None) -> Page[Disk]:  # noqa: ARG002  Azure cuts pages as it likes
        """Return one page of the disks that no machine starts from."""
        page = self._session.call("GET", cursor or self._path("Microsoft.Compute/disks"), _DISKS).body
        found = [each for each in page.get("value") or () if not each["properties"].get("osType")]
        attached = any(each.get("managedBy") for each in found)
        owners = {same_id(str(vm["id"])): vm for vm in self._virtual_machines()} if attached else {}
        return Page(
            tuple(self._disk(each, owners.get(same_id(str(each.get("managedBy"))))) for each in found),
            page.get("nextLink"),
        )

    def disk(self, disk: str) -> Disk:
        """Return one disk."""
        found = self._session.call("GET", self._disk_path(disk), _DISKS).body
        owner = found.get("managedBy")
        return self._disk(found, self._got(str(owner), _COMPUTE) if owner else None)

    def create_disk(self, name: str, size_gib: int, *, zone: str | None, snapshot: str | None) -> Disk:
        """Begin to make a disk, which nobody reads but the machine that it is attached to."""
        path = self._disk_path(name)
        data = {"createOption": "Empty"}
        if snapshot is not None:
            source = self._snapshot_path(snapshot)
            self._session.call("GET", source, _DISKS)
            data = {"createOption": "Copy", "sourceResourceId": source}
        if self._got(path, _DISKS) is not None:
            raise ArmFailure("DiskAlreadyExists", f"the resource group has a disk {name!r}")
        body: dict[str, Any] = {
            "location": self._location,
            "sku": {"name": AzureComputeSettings().disk_sku},
            "tags": {"shiftable": "disk"},
            "properties": {"creationData": data, "diskSizeGB": size_gib, **_HIDDEN},
        }
        if zone is not None:
            body["zones"] = [zone]
        made = self._session.call("PUT", path, _DISKS, body=body).body
        return Disk(id=path, name=name, size_gib=size_gib, zone=zone, ready=_is_complete(made))

    def delete_disk(self, disk: str) -> None:
        """Delete a disk that is attached to no machine."""
        path = self._disk_path(disk)
        self._session.call("GET", path, _DISKS)
        self._delete(path)

    def attach(self, id: str, disk: str) -> None:
        """Begin to attach a disk, which stays when the machine is deleted."""
        vm, path = self._found(id), self._disk_path(disk)
        if path not in self._disks_of(vm):
            self._session.call("GET", path, _DISKS)
            wanted = {"dataDisksToAttach": [{"diskId": path, "deleteOption": "Detach"}]}
            self._rearrange(vm, wanted, lambda now: path in self._disks_of(now))

    def detach(self, id: str, disk: str) -> None:
        """Begin to detach a disk."""
        vm, path = self._found(id), self._disk_path(disk)
        if path in self._disks_of(vm):
            self._rearrange(vm, {"dataDisksToDetach": [{"diskId": path}]}, lambda now: path not in self._disks_of(now))
            return
        owner = self._session.call("GET", path, _DISKS).body.get("managedBy")
        if owner and same_id(str(owner)) != same_id(str(vm["id"])):
            raise ArmFailure("DiskIsAttached", f"it is attached to another machine: {owner.rpartition('/')[2]}")

    def disk_snapshots(self, *, cursor: str | None, limit: int | None) -> Page[DiskSnapshot]:  # noqa: ARG002  Azure cuts pages as it likes
        """Return one page of snapshots of disks."""
        page = self._session.call("GET", cursor or self._path("Microsoft.Compute/snapshots"), _DISKS).body
        return Page(tuple(map(self._snapshot_told, page.get("value") or ())), page.get("nextLink"))

    def disk_snapshot(self, snapshot: str) -> DiskSnapshot:
        """Return one snapshot of a disk."""
        found = self._session.call("GET", self._snapshot_path(snapshot), _DISKS).body
        _require_made(found, "the snapshot")
        return self._snapshot_told(found)

    def snapshot_disk(self, disk: str, name: str) -> DiskSnapshot:
        """Begin to make a snapshot of a disk, of what differs from its last one."""
        source, path = self._disk_path(disk), self._snapshot_path(name)
        found = self._session.call("GET", source, _DISKS).body
        if self._got(path, _DISKS) is not None:
            raise ArmFailure("SnapshotAlreadyExists", f"the resource group has a snapshot {name!r}")
        data = {"createOption": "Copy", "sourceResourceId": source}
        body = {
            "location": self._location,
            "tags": {"shiftable": "snapshot"},
            "properties": {"creationData": data, "incremental": True, **_HIDDEN},
        }
        made = self._session.call("PUT", path, _DISKS, body=body).body
        size = int(found["properties"].get("diskSizeGB") or 0)
        return DiskSnapshot(id=path, name=name, size_gib=size, ready=_is_complete(made))

    def delete_disk_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot of a disk."""
        path = self._snapshot_path(snapshot)
        self._session.call("GET", path, _DISKS)
        self._delete(path)

    # debris

    def debris(self, *, cursor: str | None, limit: int | None) -> Page[Debris]:  # noqa: ARG002  one page has it all
        """Return what creations and deletions that failed have left in the resource group.

        Interfaces, public addresses and first disks without their machine, what fleets without machines shared, and
        the network after the last fleet.
        """
        vms = list(self._virtual_machines())
        living = {_fleet_of(vm) for vm in vms}
        found, gone = list(self._pieces(vms, None)), set[str]()
        for kind, own in (
            ("Microsoft.Network/networkSecurityGroups", self._wall_path),
            ("Microsoft.Compute/proximityPlacementGroups", self._near_path),
            ("Microsoft.Compute/availabilitySets", self._apart_path),
        ):
            for each in self._items(self._path(kind), _version_of(self._path(kind))):
                fleet = _fleet_of(each)
                if fleet and fleet not in living and same_id(str(each["id"])) == same_id(own(fleet)):
                    found.append(_debris(own(fleet), each))
                    gone.add(same_id(own(fleet)))
        network = self._lonely_network(living - {""}, gone)
        found += [] if network is None else [_debris(self._network_path, network)]
        return Page(tuple(found[:limit]))

    def delete_debris(self, debris: Debris) -> None:
        """Delete what was left. Azure keeps the interface of a machine that failed for three minutes."""
        self._delete(debris.id)

    # what they share: making

    def _check_keys(self, spec: FleetSpec) -> None:
        if not spec.ssh_keys:
            raise ArmFailure("InvalidParameter", _NO_KEY)

    def _make_once(self, path: str, version: str, body: Mapping[str, Any], what: str) -> None:
        """Make what a fleet needs, unless it is there; what only has its name is somebody else's."""
        found = self._owned(path, version, body["tags"])
        if found is not None and _provisioning(found) in _UNDER_WAY:
            found = self._settled(path, version, what)
        if found is None or _provisioning(found) not in {"", "succeeded"}:
            self._put(path, version, {**body, "tags": {**body["tags"], CREATED_LABEL: _now()}}, what)

    def _owned(self, path: str, version: str, tags: Mapping[str, str]) -> Mapping[str, Any] | None:
        """Return what has that id, if anything has.

        Raises:
            ArmFailure: it was not made by shiftable for this.
        """
        found = self._got(path, version)
        if found is not None and not tags.items() <= (found.get("tags") or {}).items():
            raise ArmFailure("AlreadyExists", f"somebody else made {path.rpartition('/')[2]} here; rename it, or this")
        return found

    def _put(self, path: str, version: str, body: Mapping[str, Any], what: str) -> None:
        answer = self._session.call("PUT", path, version, body=body)
        if answer.status in {201, 202} and not _is_complete(answer.body):
            self._session.finish(answer, version, what=what, timeout=_PATIENCE)
        elif _provisioning(answer.body) in _UNDER_WAY:  # a second try: the first one goes on
            self._settled(path, version, what)

    def _settled(self, path: str, version: str, what: str) -> Mapping[str, Any]:
        """Wait until nothing is being done to something, and return it."""
        deadline = self._session.clock() + _PATIENCE
        while _provisioning(found := self._session.call("GET", path, version).body) in _UNDER_WAY:
            if self._session.clock() >= deadline:
                raise ArmFailure("OperationTimedOut", f"waited {_PATIENCE:,.0f} s for {what}")
            self._session.pause(_PAUSE)
        return found

    def _placement(
        self, spec: FleetSpec, native: AzureComputeSettings, sku: Sku | None
    ) -> tuple[str | None, str | None]:
        """Return what brings machines near each other, and what keeps them apart where zones do not."""
        near, apart = native.proximity_placement_group, native.availability_set
        if spec.placement == "close" and near is None:
            near = self._near_path(spec.name)
        several = sku is not None and len(sku.zones) > 1
        if spec.placement == "spread" and apart is None and not several and spec.zone is None:
            apart = self._apart_path(spec.name)
        return near, apart

    def _put_machine(self, path: str, body: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
        """Begin to make a machine that is not there; when somebody is just changing its network, after that."""
        deadline = self._session.clock() + _PATIENCE
        while True:
            try:
                return self._session.call("PUT", path, _COMPUTE, body=body, headers={"If-None-Match": "*"}).body
            except ArmRefusal as exc:
                if _code(exc) != "ReferencedResourceNotProvisioned" or self._session.clock() >= deadline:
                    raise
            self._settled(place.wall, _NETWORK, "its network security group")
            self._session.pause(_PAUSE)

    def _made_before(self, path: str, fleet: str, token: str, exc: ArmRefusal) -> MachineInfo:
        """Return the machine that an earlier call has made.

        Raises:
            ArmFailure: it is somebody else's, or on its way out.
            ArmRefusal: there is none.
        """
        found = self._got(path, _COMPUTE, {"$expand": "instanceView"})
        if found is None:
            raise exc
        tags = found.get("tags") or {}
        if tags.get(FLEET_LABEL) != fleet or tags.get(TOKEN_LABEL) != token:
            raise ArmFailure("VirtualMachineAlreadyExists", "the resource group has another machine of that name")
        if self._state(found) == "deleting":
            why = "its predecessor is being deleted; try again when that is gone"
            raise ArmFailure("VirtualMachineIsBeingDeleted", why)
        return self._info(found)

    def _subnet(self, network: str | None) -> str:
        if network is None:
            return f"{self._network_path}/subnets/{_SUBNET}"
        if network.startswith("/"):
            return network
        name, _, subnet = network.partition("/")
        return f"{self._path('Microsoft.Network/virtualNetworks')}/{name}/subnets/{subnet or 'default'}"

    def _identity(self, identity: str | None) -> str | None:
        if identity is None or identity.startswith("/"):
            return identity
        return f"{self._path('Microsoft.ManagedIdentity/userAssignedIdentities')}/{identity}"

    def _encrypts_at_host(self, native: AzureComputeSettings, sku: Sku) -> bool:
        """Tell whether temporary disks and caches can be encrypted, which a subscription has to be registered for."""
        if native.encryption_at_host is not None:
            return native.encryption_at_host
        if not sku.encryption_at_host:
            return False
        if self._host_encryption is None:
            base = f"{self._session.subscription}/providers/Microsoft.Features/providers/Microsoft.Compute/features"
            try:
                said = self._session.call("GET", f"{base}/EncryptionAtHost", _FEATURE).body
            except ArmRefusal as exc:
                if exc.status_code not in {_MISSING, _FORBIDDEN}:
                    raise
                said = {}
            self._host_encryption = (said.get("properties") or {}).get("state") == "Registered"
        return self._host_encryption

    def _begin(self, id: str, verb: str, reached: set[str]) -> None:
        """Begin what does no more when it is begun twice. A second try that is refused may have been the first."""
        try:
            self._session.call("POST", f"{self._machine_path(self._found(id))}/{verb}", _COMPUTE, repeat=True)
        except ArmRefusal as exc:
            if not exc.doubtful or self._state(self._found(id)) not in reached:
                raise

    def _rearrange(
        self, vm: Mapping[str, Any], wanted: Mapping[str, Any], done: Callable[[Mapping[str, Any]], bool]
    ) -> None:
        """Begin to attach or detach; what is refused after a lost answer may be under way."""
        path = self._machine_path(vm)
        try:
            self._session.call("POST", f"{path}/attachDetachDataDisks", _COMPUTE, body=wanted, repeat=True)
        except ArmRefusal as exc:
            if not exc.doubtful or not done(self._session.call("GET", path, _COMPUTE).body):
                raise

    # what they share: deleting

    def _delete(self, path: str) -> None:
        version = _version_of(path)
        answer = self._session.call("DELETE", path, version)
        self._session.finish(answer, version, what=f"the end of {path.rpartition('/')[2]}", timeout=_PATIENCE)

    def _delete_patiently(self, path: str) -> None:
        """Delete what Azure may keep for a machine that failed, which it does for three minutes."""
        deadline = self._session.clock() + _RESERVED
        while True:
            try:
                return self._delete(path)
            except ArmRefusal as exc:
                if _code(exc) != "NicReservedForAnotherVm" or self._session.clock() >= deadline:
                    raise
            self._session.pause(_PAUSE)

    def _pieces(self, vms: Sequence[Mapping[str, Any]], fleet: str | None) -> Iterator[Debris]:
        """Yield interfaces, addresses and first disks that no machine has, of one fleet or of all.

        While a machine is being made, what bears its name may be for it. A first disk is none as long as a machine has
        that name: somebody may have exchanged it.
        """
        ids = {same_id(str(vm["id"])) for vm in vms}
        names = {str(vm["name"]).lower() for vm in vms}
        busy = {str(vm["name"]).lower() for vm in vms if _provisioning(vm) == "creating"}
        for kind, holder, spared in (
            ("Microsoft.Network/networkInterfaces", _machine_of, busy),
            ("Microsoft.Network/publicIPAddresses", _card_of, busy),
            ("Microsoft.Compute/disks", _owner_of, names),
        ):
            for each in self._items(self._path(kind), _version_of(self._path(kind))):
                held, tags = holder(each), each.get("tags") or {}
                if held is not None and same_id(held) in ids:
                    ids.add(same_id(str(each["id"])))  # what an interface has, its machine has
                    continue
                machine = str(tags.get(MACHINE_LABEL, "")).lower()
                if machine and machine not in spared and _fleet_of(each) and fleet in (None, _fleet_of(each)):
                    yield _debris(f"{self._path(kind)}/{quote(str(each['name']), safe='')}", each)

    def _lonely_network(self, living: AbstractSet[str], gone: AbstractSet[str]) -> Mapping[str, Any] | None:
        """Return the network of the location if it is ours and no fleet is there, but for those whose groups go."""
        if living:
            return None
        for group in self._items(self._path("Microsoft.Network/networkSecurityGroups"), _NETWORK):
            here = _plain(str(group.get("location"))) == self._location
            if here and _fleet_of(group) and same_id(str(group["id"])) not in gone:
                return None
        found = self._got(self._network_path, _NETWORK)
        return found if found is not None and (found.get("tags") or {}).get("shiftable") == "network" else None

    # what they share: reading

    def _found(self, id: str) -> Mapping[str, Any]:
        """Return a machine with its run-time view; one that has only the name of it is another."""
        name, _, vm_id = id.partition("/")
        path = f"{self._path('Microsoft.Compute/virtualMachines')}/{quote(name, safe='')}"
        found = self._session.call("GET", path, _COMPUTE, query={"$expand": "instanceView"}).body
        if vm_id and str(found["properties"].get("vmId")).lower() != vm_id.lower():
            raise ArmFailure("VirtualMachineNotFound", "it is gone; there is another machine of that name")
        return found

    def _state(self, vm: Mapping[str, Any]) -> str:
        said = vm["properties"]
        return state_of(str(said.get("provisioningState") or ""), codes_of(said.get("instanceView")))[0]

    def _info(self, vm: Mapping[str, Any]) -> MachineInfo:
        """Tell of one machine; nothing of what is around it before it is there and while it goes."""
        codes, around = codes_of(vm["properties"].get("instanceView")), Around()
        if self._state(vm) in {"creating", "deleting"}:
            return self._read(vm, codes, around)
        cards = (vm["properties"].get("networkProfile") or {}).get("networkInterfaces") or ()
        first = next((str(each["id"]) for each in cards), None)
        found = first and self._got(first, _NETWORK, {"$expand": "ipConfigurations/publicIPAddress"})
        if found:
            card = Interface.read(found)
            group = self._got(card.wall, _NETWORK) if card.wall else None
            around = Around(
                addresses=card.addresses,
                public=tuple(_expanded(found)),
                network=self._network_told(card),
                firewall=() if group is None else read_wall(group),
            )
        return self._read(vm, codes, around)

    def _told(self, vm: Mapping[str, Any], held: _Surroundings) -> MachineInfo:
        """Tell of one machine of a listing."""
        id_ = same_id(str(vm["id"]))
        if held.codes is None:
            codes = codes_of(self._got(f"{self._machine_path(vm)}/instanceView", _COMPUTE))
        else:
            codes = held.codes.get(id_, ())
        card = held.interfaces.get(id_)
        around = Around(firewall=held.walls.get(same_id(self._wall_path(_fleet_of(vm))), ()))
        if card is not None and state_of(_provisioning(vm), codes)[0] not in {"creating", "deleting"}:
            around = Around(
                addresses=card.addresses,
                public=tuple(filter(None, (held.public.get(same_id(each)) for each in card.public))),
                network=self._network_told(card),
                firewall=held.walls.get(same_id(card.wall), ()),
            )
        return self._read(vm, codes, around)

    def _read(self, vm: Mapping[str, Any], codes: tuple[str, ...], around: Around) -> MachineInfo:
        size = (vm["properties"].get("hardwareProfile") or {}).get("vmSize")
        sku = self._offered().get(str(size))
        return read_machine(vm, codes=codes, sku=sku, around=around, disks=self._disks_of(vm))

    def _look_around(self, fleet: str | None) -> _Surroundings:
        """Return what is around the machines of a fleet, or of all."""
        cards = list[Mapping[str, Any]]()
        if fleet is not None:
            one = self._got(self._wall_path(fleet), _NETWORK, {"$expand": "networkInterfaces"})
            groups = [] if one is None else [one]
            cards = [each for group in groups for each in group["properties"].get("networkInterfaces") or ()]
        else:
            groups = list(self._items(self._path("Microsoft.Network/networkSecurityGroups"), _NETWORK))
        if not cards or not all("ipConfigurations" in (each.get("properties") or {}) for each in cards):
            cards = list(self._items(self._path("Microsoft.Network/networkInterfaces"), _NETWORK))
        read = [Interface.read(each) for each in cards]
        public = dict[str, str]()
        if any(card.public for card in read):
            for each in self._items(self._path("Microsoft.Network/publicIPAddresses"), _NETWORK):
                public[same_id(str(each["id"]))] = str(each["properties"].get("ipAddress") or "")
        return _Surroundings(
            codes=self._codes(),
            interfaces={same_id(card.machine): card for card in read if card.machine},
            walls={same_id(str(group["id"])): read_wall(group) for group in groups},
            public=public,
        )

    def _codes(self) -> Mapping[str, tuple[str, ...]] | None:
        """Return what the run-time views of all machines say; ``None`` if that may not be asked."""
        path = f"{self._session.subscription}/providers/Microsoft.Compute/virtualMachines"
        try:
            found = list(self._items(path, _COMPUTE, {"statusOnly": "true"}))
        except ArmRefusal as exc:
            if exc.status_code != _FORBIDDEN:
                raise
            return None
        return {same_id(str(vm["id"])): codes_of(vm["properties"].get("instanceView")) for vm in found}

    def _virtual_machines(self) -> Iterator[Mapping[str, Any]]:
        return self._items(self._path("Microsoft.Compute/virtualMachines"), _COMPUTE)

    def _items(self, path: str, version: str, query: Mapping[str, str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Yield the items of all pages."""
        link: str | None = path
        while link is not None:
            page = self._session.call("GET", link, version, query=query).body
            yield from page.get("value") or ()
            link = page.get("nextLink")

    def _got(self, path: str, version: str, query: Mapping[str, str] | None = None) -> Mapping[str, Any] | None:
        """Return what there may be. A resource group that is missing is an error."""
        try:
            return self._session.call("GET", path, version, query=query).body
        except ArmRefusal as exc:
            if exc.status_code != _MISSING or _code(exc) in {"ResourceGroupNotFound", "SubscriptionNotFound"}:
                raise
            return None

    def _offered(self) -> Offering:
        """Return the sizes of the location; an answer counts for an hour."""
        now, kept = self._session.clock(), self._offering
        if kept is not None and now - kept[0] < _KEPT:
            return kept[1]
        location = self._location
        path = f"{self._session.subscription}/providers/Microsoft.Compute/skus"
        wanted = {"$filter": f"location eq '{location}'"}
        read = (Sku.read(found, location) for found in self._items(path, _SKUS, wanted))
        offering = Offering(location, (sku for sku in read if sku is not None))
        with self._lock:
            self._offering = (now, offering)
        return offering

    def _image(self, found: Mapping[str, Any]) -> Image:
        path = f"{self._gallery_path}/images/{quote(str(found['name']), safe='')}"
        return self._image_told(path, str(found["name"]), found, self._got(f"{path}/versions/{_FIRST}", _GALLERIES))

    def _image_told(self, path: str, name: str, found: Mapping[str, Any], version: Mapping[str, Any] | None) -> Image:
        disk = str((found.get("tags") or {}).get(DISK_LABEL, ""))
        return Image(
            id=path,
            name=name,
            arch="arm64" if (found.get("properties") or {}).get("architecture") == "Arm64" else "x86_64",
            disk_gib=int(disk) if disk.isdecimal() else None,
            own=True,
            ready=version is not None and _is_complete(version),
            created=moment((found.get("systemData") or {}).get("createdAt")),
        )

    def _own_image(self, image: str) -> str:
        """Return the id of an image of the gallery; nobody else's is deleted."""
        inside = f"{self._gallery_path}/images/"
        if not same_id(image).startswith(same_id(inside)) or "/" in image[len(inside) :]:
            raise ArmFailure("ResourceNotFound", f"the gallery {GALLERY} of the resource group has no image {image!r}")
        return image

    def _disk(self, found: Mapping[str, Any], owner: Mapping[str, Any] | None) -> Disk:
        zones, path, machine, device = found.get("zones") or (), self._disk_path(str(found["id"])), None, None
        if owner is not None:
            machine, device = identifier(str(owner["name"]), owner), self._device(owner, path)
        elif found.get("managedBy"):
            machine = str(found["managedBy"]).rpartition("/")[2]
        return Disk(
            id=path,
            name=str(found["name"]),
            size_gib=int(found["properties"].get("diskSizeGB") or 0),
            zone=str(zones[0]) if zones else None,
            machine=machine,
            device=device,
            ready=_is_complete(found) and (owner is None or _provisioning(owner) != "updating"),
        )

    def _device(self, vm: Mapping[str, Any], path: str) -> str | None:
        """Return the link that the images' rules for udev make of a disk's number."""
        storage = vm["properties"].get("storageProfile") or {}
        for each in storage.get("dataDisks") or ():
            if self._disk_path(str((each.get("managedDisk") or {}).get("id"))) == path:
                nvme = storage.get("diskControllerType") == "NVMe"
                return f"/dev/disk/azure/{'data/by-lun/' if nvme else 'scsi1/lun'}{each['lun']}"
        return None

    def _snapshot_told(self, found: Mapping[str, Any]) -> DiskSnapshot:
        said = found["properties"]
        return DiskSnapshot(
            id=self._snapshot_path(str(found["name"])),
            name=str(found["name"]),
            size_gib=int(said.get("diskSizeGB") or 0),
            ready=_is_complete(found) and float(said.get("completionPercent") or 100) >= 100,
            created=moment(said.get("timeCreated")),
        )

    def _disks_of(self, vm: Mapping[str, Any]) -> tuple[str, ...]:
        attached = (vm["properties"].get("storageProfile") or {}).get("dataDisks") or ()
        return tuple(
            self._disk_path(str((each.get("managedDisk") or {}).get("id") or each.get("name")))
            for each in attached
            if not each.get("toBeDetached")
        )

    def _fetched(self, url: str) -> bytes:
        """Fetch what a signed URL is for. It gets no token; and nobody is shown the signature."""
        if urlsplit(url).scheme != "https" and urlsplit(url).hostname != "127.0.0.1":
            raise ArmFailure("ConsoleUnavailable", "Azure names a console log that is not reached by https")
        kept = b""
        try:
            with requests.get(url, stream=True, timeout=(20, 60), auth=_nobody, allow_redirects=False) as answer:
                if answer.status_code == _MISSING:
                    return b""
                if answer.status_code != requests.codes.ok:
                    why = f"the console log is answered with {answer.status_code}"
                    raise ArmFailure("ConsoleUnavailable", why)
                for chunk in answer.iter_content(2**16):
                    kept = (kept + chunk)[-_CONSOLE - _PAGE :]
        except requests.RequestException as exc:
            why = f"the console log cannot be fetched ({type(exc).__name__})"
            raise ArmFailure("ConsoleUnavailable", why) from None
        return kept.rstrip(b"\0")[-_CONSOLE:]

    # what they share: ids

    @property
    def _location(self) -> str:
        """Where machines are, as Azure writes it in ids: settings may have its name for people."""
        return _plain(self._session.location)

    def _path(self, kind: str) -> str:
        return f"{self._session.group}/providers/{kind}"

    def _machine_path(self, vm: Mapping[str, Any]) -> str:
        return f"{self._path('Microsoft.Compute/virtualMachines')}/{quote(str(vm['name']), safe='')}"

    def _wall_path(self, fleet: str) -> str:
        return f"{self._path('Microsoft.Network/networkSecurityGroups')}/shiftable-{fleet}"

    def _near_path(self, fleet: str) -> str:
        return f"{self._path('Microsoft.Compute/proximityPlacementGroups')}/shiftable-{fleet}"

    def _apart_path(self, fleet: str) -> str:
        return f"{self._path('Microsoft.Compute/availabilitySets')}/shiftable-{fleet}"

    def _disk_path(self, disk: str) -> str:
        return self._id_of("Microsoft.Compute/disks", disk)

    def _snapshot_path(self, snapshot: str) -> str:
        return self._id_of("Microsoft.Compute/snapshots", snapshot)

    def _id_of(self, kind: str, given: str) -> str:
        """Return the id of something, which may be given by its name; the group's name as the settings have it."""
        here = self._path(kind)
        if "/" not in given:
            return f"{here}/{quote(given, safe='')}"
        is_here = same_id(given).rpartition("/")[0] == same_id(here)
        return f"{here}/{given.rpartition('/')[2]}" if is_here else given

    def _network_told(self, card: Interface) -> str | None:
        """Return the subnet of an interface, as ``network`` names it."""
        here = f"{self._path('Microsoft.Network/virtualNetworks')}/"
        if card.subnet is None or not same_id(card.subnet).startswith(same_id(here) + "/"):
            return card.subnet
        name, _, rest = card.subnet[len(here) :].partition("/")
        return f"{name}/{rest.rpartition('/')[2]}"

    @property
    def _network_path(self) -> str:
        return f"{self._path('Microsoft.Network/virtualNetworks')}/shiftable-{self._location}"

    @property
    def _gallery_path(self) -> str:
        return f"{self._path('Microsoft.Compute/galleries')}/{GALLERY}"


def _code(exc: ArmRefusal) -> str:
    return str(getattr(exc.error, "code", None) or "")


def _version_of(path: str) -> str:
    """Return the api-version of a kind of resource."""
    parts = path.partition("/providers/")[2].lower().split("/")
    if parts[0] == "microsoft.network":
        return _NETWORK
    return {"disks": _DISKS, "snapshots": _DISKS, "galleries": _GALLERIES}.get(parts[1], _COMPUTE)


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Say who asks: nobody, whatever a file on this machine has for that host."""
    return request


def _plain(location: str) -> str:
    return location.replace(" ", "").lower()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _zone(spec: FleetSpec, name: str, sku: Sku) -> str | None:
    """Return the zone of a machine: where none is declared, they take turns in those that the size is in."""
    number = name.rpartition("-")[2]
    if spec.zone is not None or not sku.zones:
        return spec.zone
    return sorted(sku.zones)[(int(number) if number.isdecimal() else 0) % len(sku.zones)]


def _fleet_of(found: Mapping[str, Any]) -> str:
    return str((found.get("tags") or {}).get(FLEET_LABEL) or "")


def _provisioning(found: Mapping[str, Any]) -> str:
    return str((found.get("properties") or {}).get("provisioningState") or "").lower()


def _is_complete(found: Mapping[str, Any]) -> bool:
    return _provisioning(found) == "succeeded"


def _require_made(found: Mapping[str, Any], what: str) -> None:
    """Refuse to wait for what has failed.

    Raises:
        ArmFailure: it has.
    """
    if _provisioning(found) == "failed":
        raise ArmFailure("InternalOperationError", f"Azure has failed to make {what}; delete it, and try again")


def _debris(path: str, found: Mapping[str, Any]) -> Debris:
    kind = path.rpartition("/")[0].rpartition("/")[2]
    return Debris(
        id=path,
        kind=_KINDS[kind],
        name=str(found["name"]),
        fleet=_fleet_of(found) or None,
        created=moment((found.get("tags") or {}).get(CREATED_LABEL)),
    )


def _machine_of(card: Mapping[str, Any]) -> str | None:
    return Interface.read(card).machine


def _card_of(address: Mapping[str, Any]) -> str | None:
    """Return the id of the interface that has an address."""
    id_ = (address["properties"].get("ipConfiguration") or {}).get("id")
    return str(id_).partition("/ipConfigurations/")[0] if id_ else None


def _owner_of(disk: Mapping[str, Any]) -> str | None:
    return str(disk["managedBy"]) if disk.get("managedBy") else None


def _expanded(interface: Mapping[str, Any]) -> Iterator[str]:
    """Yield the public addresses of an interface, whose ids were asked to be replaced by what they are for."""
    for each in interface["properties"].get("ipConfigurations") or ():
        public = (each.get("properties") or {}).get("publicIPAddress") or {}
        address = (public.get("properties") or {}).get("ipAddress")
        if address:
            yield str(address)
