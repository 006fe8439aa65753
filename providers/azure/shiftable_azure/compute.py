"""The driver for Azure virtual machines."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from shiftable.compute.driver import (
    ALIASES,
    FLEET_LABEL,
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
    Size,
)
from shiftable.errors import Fault
from shiftable.paging import Page
from shiftable_azure import _features
from shiftable_azure._arm import ArmRefusal, ArmSession
from shiftable_azure._compute_settings import AzureComputeSettings
from shiftable_azure._machine_console import fetched
from shiftable_azure._machine_debris import Leavings
from shiftable_azure._machine_disks import disk_told, disks_of, snapshot_told
from shiftable_azure._machine_gallery import Gallery, Generation, OwnImage
from shiftable_azure._machine_ids import SUBNET, Ids
from shiftable_azure._machine_images import require_image
from shiftable_azure._machine_imports import Imports
from shiftable_azure._machine_labels import Labels, impossible_labels
from shiftable_azure._machine_network import Interface, network_body, read_wall, same_id, wall_body
from shiftable_azure._machine_resources import (
    COMPUTE_API,
    DISKS_API,
    GALLERIES_API,
    NETWORK_API,
    PATIENCE,
    PAUSE,
    Resources,
    code_of,
    fleet_of,
    is_complete,
    provisioning,
    require_made,
    stamp,
    version_of,
)
from shiftable_azure._machine_sizes import Offering, Sku
from shiftable_azure._machine_surroundings import Surroundings, look_around
from shiftable_azure._machines import (
    ALIAS_GIB,
    ALIAS_IMAGES,
    CREATED_LABEL,
    DISK_LABEL,
    GALLERY,
    IMAGE_LABEL,
    PRIVATE_LABELS,
    TOKEN_LABEL,
    Around,
    Place,
    codes_of,
    machine_body,
    read_machine,
    state_of,
)
from shiftable_azure.errors import ArmFailure, classify_compute

if TYPE_CHECKING:
    from shiftable_azure._session import Session

__all__ = ["AzureComputeDriver"]

_SKUS = "2021-07-01"
_FEATURE = "2021-07-01"

_HIDDEN = {"networkAccessPolicy": "DenyAll", "publicNetworkAccess": "Disabled"}
_KEPT = 3600.0  # seconds that sizes count
_LISTINGS = 16  # that are remembered between their pages
_MISSING, _TAKEN, _FORBIDDEN, _CONFLICT = 404, 412, 403, 409

_NO_KEY = "Linux machine without an ssh key: declare ssh_keys, the public keys of who may log in"


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

    An image that is imported is a VHD of a fixed size in the storage account, which Azure writes to a disk, and copies
    from there. Whether its boot loader is signed, nobody knows, so that its machines have no trusted launch.

    Labels are tags of the machine and of its first disk. Azure changes all tags of a resource at once: those of a
    machine in the version that was read, so that nobody's change is lost; disks have no versions, and of two who label
    a machine in the same moment the later one counts there. Interfaces cost nothing, and have the fleet's tag alone, as
    public addresses do.

    What a failed creation leaves behind is tagged: ``destroy`` deletes it, and ``debris`` tells of it. Azure keeps the
    interface of a machine that failed for three minutes: ``destroy`` waits, ``delete_debris`` is a conflict until then.

    Prices are not known: the one dated list at hand (apache-libcloud's of 2 March 2025) has no size newer than 2021's.

    Credentials: ``arm_token`` of the settings, or one of Microsoft Entra.

    Permissions: *Contributor* on the resource group, and in the subscription ``Microsoft.Compute/skus/read`` and
    ``Microsoft.Compute/virtualMachines/read``; without the latter a listing asks for each machine by itself. The single
    actions of ``Microsoft.Compute`` are ``virtualMachines/{read,write,delete}``,
    ``virtualMachines/{start,deallocate,restart,attachDetachDataDisks,retrieveBootDiagnosticsData}/action``,
    ``disks/{read,write,delete,beginGetAccess/action,endGetAccess/action}``, ``snapshots/{read,write,delete}``,
    ``availabilitySets/{read,write,delete}``, ``proximityPlacementGroups/{read,write,delete}`` and, for images,
    ``galleries/``, ``galleries/images/`` and ``galleries/images/versions/{read,write,delete}``; of
    ``Microsoft.Network`` ``virtualNetworks/{read,write,delete}``, ``virtualNetworks/subnets/join/action`` and, for each
    of ``networkSecurityGroups``, ``networkInterfaces`` and ``publicIPAddresses``, ``{read,write,delete,join/action}``;
    ``Microsoft.Features/providers/features/read``; of both ``locations/operations/read``; for images of the
    marketplace by their four names
    ``Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read``, without which one that there is
    not is noticed later; to import images, the right to read blobs and, without the account's
    key, ``Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action``; and for machines with an
    identity ``Microsoft.ManagedIdentity/userAssignedIdentities/assign/action``.
    """

    def __init__(
        self, session: ArmSession, storage: Callable[[], Session], features: ComputeFeatures = _features.COMPUTE
    ) -> None:
        self._session = session
        self._ids = Ids(session)
        self._resources = Resources(session)
        self._labels = Labels(session, self._resources)
        self._debris = Leavings(self._ids, self._resources)
        self._gallery = Gallery(session, self._ids, self._resources)
        self._imports = Imports(session, self._ids, self._resources, self._gallery, storage)
        self._features = features
        self._lock = threading.Lock()
        self._offering: tuple[float, Offering] | None = None
        self._host_encryption: bool | None = None
        self._listings: OrderedDict[str, Surroundings] = OrderedDict()

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

    def missing_labels(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Say which labels are no tags."""
        return (*super().missing_labels(labels), *impossible_labels(labels))

    def is_own_label(self, name: str) -> bool:
        """Tell whether a tag says what Azure does not."""
        return super().is_own_label(name.lower()) or name.lower() in PRIVATE_LABELS

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Make what machines of a fleet share, unless it is there: a network, a security group, what places them."""
        self._check_keys(spec)
        native, location = AzureComputeSettings.of(spec), self._ids.location
        require_image(self._resources, location, native.image or spec.image, spec.arch)
        tags = {FLEET_LABEL: spec.name}
        if spec.placement == "spread" and spec.zone is not None:
            why = "in one zone, Azure spreads nothing; declare several zones, or none"
            raise ArmFailure("InvalidParameterConflict", why)
        sku = self._offered().get(self.choose(spec).size.name)
        near, apart = self._placement(spec, native, sku)
        if native.subnet is None and spec.network is None:
            made = network_body(location, {"shiftable": "network"}, SUBNET)
            self._resources.make_once(self._ids.network, NETWORK_API, made, f"the network of {location}")
        self._resources.make_once(
            self._ids.wall(spec.name),
            NETWORK_API,
            wall_body(location, tags, spec.firewall),
            f"the network security group of {spec.name}",
        )
        if near == self._ids.near(spec.name):
            self._resources.make_once(
                near, COMPUTE_API, {"location": location, "tags": tags, "properties": {}}, "its placement"
            )
        if apart == self._ids.apart(spec.name):
            domains = {"platformFaultDomainCount": 2, "platformUpdateDomainCount": 5}
            body = {"location": location, "tags": tags, "sku": {"name": "Aligned"}, "properties": domains}
            self._resources.make_once(apart, COMPUTE_API, body, "its availability set")

    def update(self, current: FleetSpec, spec: FleetSpec) -> None:
        """Change the network security group of a fleet."""
        path = self._ids.wall(spec.name)
        self._resources.owned(path, NETWORK_API, {FLEET_LABEL: current.name})
        group = wall_body(self._ids.location, {FLEET_LABEL: spec.name, CREATED_LABEL: stamp()}, spec.firewall)
        self._resources.put(path, NETWORK_API, group, f"the network security group of {spec.name}")

    def destroy(self, name: str) -> None:
        """Delete what machines of a fleet have left, what they shared, and the network after the last fleet."""
        vms = list(self._virtual_machines())
        for piece in list(self._debris.pieces(vms, name)):
            self._resources.delete_patiently(piece.id)
        for path in (self._ids.wall(name), self._ids.near(name), self._ids.apart(name)):
            found = self._resources.got(path, version_of(path))
            if found is not None and (found.get("tags") or {}).get(FLEET_LABEL) == name:
                self._resources.delete(path)
        if self._debris.lonely_network({fleet_of(vm) for vm in vms} - {"", name}, frozenset()) is not None:
            try:
                self._resources.delete(self._ids.network)
            except ArmRefusal as exc:
                if code_of(exc) != "InUseSubnetCannotBeDeleted":  # machines that are not ours are in it
                    raise

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:  # noqa: ARG002  one page has them all
        """Return the names of all fleets."""
        found = {fleet_of(vm) for vm in self._virtual_machines()} - {""}
        return Page(tuple(sorted(found)[:limit]))

    # sizes and images

    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:  # noqa: ARG002  one page has them all
        """Return all sizes that the subscription can have in the location."""
        return Page(self._offered().sizes[:limit])

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:
        """Return the aliases, then one page of the gallery each."""
        if cursor is None:
            return Page(ALIAS_IMAGES[:limit], f"{self._ids.gallery}/images")
        try:
            page = self._session.call("GET", cursor, GALLERIES_API).body
        except ArmRefusal as exc:
            if exc.status_code != _MISSING:
                raise
            return Page(())
        return Page(tuple(map(self._gallery.told, page.get("value") or ())), page.get("nextLink"))

    def image(self, id: str) -> Image:
        """Return an alias, or an image of the gallery."""
        alias = next((image for image in ALIAS_IMAGES if image.id == id), None)
        if alias is not None:
            return alias
        return self._gallery.image(id)

    def choose(self, spec: FleetSpec) -> Choice:
        """Choose the smallest size that is large enough, or the one that ``vm_size`` names."""
        native = AzureComputeSettings.of(spec)
        own = self._gallery.of_machine(native.image or spec.image)
        return self._offered().choose(spec, native.vm_size, "V2" if own is None else own.generation)

    def missing_features(self, spec: FleetSpec) -> tuple[str, ...]:
        """Say what a declaration needs and Azure does not have; a key is what it needs itself."""
        found = super().missing_features(spec)
        return found if spec.ssh_keys else (*found, _NO_KEY)

    # machines

    def user_data(self, spec: FleetSpec, name: str, given: bytes | None) -> bytes | None:  # noqa: ARG002  all get the same
        """Return what the user gave: Azure makes user, keys and host name itself. Without a key it makes nothing."""
        if not spec.ssh_keys:
            raise ValueError(f"Azure has no {_NO_KEY}")
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
        image = native.image or spec.image
        own = self._gallery.of_machine(image)
        place = Place(
            location=self._ids.location,
            subnet=native.subnet or self._ids.subnet(spec.network),
            wall=self._ids.wall(spec.name),
            identity=self._ids.identity(spec.identity),
            sku=sku,
            encryption_at_host=self._encrypts_at_host(native, sku),
            zone=_zone(spec, name, sku) if near is None and apart is None else spec.zone,
            near=near,
            apart=apart,
            now=stamp(),
            signed=image in ALIASES or (own is not None and own.trusted),
            image_gib=ALIAS_GIB if image in ALIASES else None if own is None else own.disk_gib,
        )
        body = machine_body(spec, name, token=token, user_data=user_data, place=place)
        path = f"{self._ids.path('Microsoft.Compute/virtualMachines')}/{quote(name, safe='')}"
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
        page = self._session.call(
            "GET", cursor or self._ids.path("Microsoft.Compute/virtualMachines"), COMPUTE_API
        ).body
        found = [vm for vm in page.get("value") or () if fleet in (None, fleet_of(vm))]
        with self._lock:
            around = self._listings.pop(cursor or "", None)
        following = page.get("nextLink")
        if found and around is None:
            around = look_around(self._ids, self._resources, fleet)
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
            self._session.call("DELETE", self._ids.machine(vm), COMPUTE_API)

    def reboot(self, id: str) -> None:
        """Begin to restart a running machine."""
        vm = self._found(id)
        state = self._state(vm)
        if state != "running":
            raise ArmFailure("VMNotRunning", f"it is {state}; it must be running")
        self._session.call("POST", f"{self._ids.machine(vm)}/restart", COMPUTE_API)

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
            answer = self._session.call("PATCH", self._ids.machine(vm), COMPUTE_API, body=body, repeat=True)
            self._session.finish(answer, COMPUTE_API, what=what, timeout=PATIENCE)
        except ArmRefusal as exc:
            found = self._resources.settled(self._ids.machine(vm), COMPUTE_API, what) if exc.doubtful else vm
            if found["properties"]["hardwareProfile"]["vmSize"] != size.name:
                raise

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Change tags of the first disk, which is billed by itself, then of the machine, and wait for it."""
        vm = self._found(id)
        if self._state(vm) == "deleting":
            raise ArmFailure("VirtualMachineIsBeingDeleted", "it is being deleted")
        first = vm["properties"]["storageProfile"].get("osDisk") or {}
        disk = str((first.get("managedDisk") or {}).get("id") or "")
        if disk and first.get("deleteOption") == "Delete" and "diffDiskSettings" not in first:  # those are no resources
            self._labels.change(disk, DISKS_API, labels, remove, f"the labels of the disk of {vm['name']}")
        self._labels.change(self._ids.machine(vm), COMPUTE_API, labels, remove, f"the labels of {vm['name']}")

    def console(self, id: str) -> bytes:
        """Return the last of what the machine wrote to its serial console, by a URL that Azure signs for it."""
        path = f"{self._ids.machine(self._found(id))}/retrieveBootDiagnosticsData"
        said = self._session.call("POST", path, COMPUTE_API, query={"sasUriExpirationTimeInMinutes": "5"}, repeat=True)
        url = str(said.body.get("serialConsoleLogBlobUri") or "")
        return fetched(url) if url else b""

    # images and disks

    def snapshot(self, id: str, name: str) -> Image:
        """Begin to copy the first disk of a machine into the gallery."""
        vm = self._found(id)
        first = vm["properties"]["storageProfile"]["osDisk"]
        if self._gallery.found(self._gallery.path(name)) is not None:
            raise ArmFailure("GalleryImageAlreadyExists", f"the gallery {GALLERY} has an image {name!r}")
        size = str(first.get("diskSizeGB") or (vm.get("tags") or {}).get(DISK_LABEL) or "")
        image = self._alike(vm, int(size) if size.isdecimal() else None)
        return self._gallery.begin(name, image, first["managedDisk"]["id"], {})[0]

    def import_image(self, name: str, source: DiskImage, *, token: str) -> Image:
        """Begin to make an image of a VHD in the storage account, or go on; one call writes for a minute at most."""
        return self._imports.go_on(name, source, token)

    def delete_image(self, image: str) -> None:
        """Delete an image with its versions, and the gallery with the last one."""
        path = self._ids.own_image(image)
        self._session.call("GET", path, GALLERIES_API)
        self._gallery.delete(path)

    def disks(self, *, cursor: str | None, limit: int | None) -> Page[Disk]:  # noqa: ARG002  Azure cuts pages as it likes
        """Return one page of the disks that no machine starts from."""
        page = self._session.call("GET", cursor or self._ids.path("Microsoft.Compute/disks"), DISKS_API).body
        found = [each for each in page.get("value") or () if not each["properties"].get("osType")]
        attached = any(each.get("managedBy") for each in found)
        owners = {same_id(str(vm["id"])): vm for vm in self._virtual_machines()} if attached else {}
        return Page(
            tuple(disk_told(self._ids, each, owners.get(same_id(str(each.get("managedBy"))))) for each in found),
            page.get("nextLink"),
        )

    def disk(self, disk: str) -> Disk:
        """Return one disk."""
        found = self._session.call("GET", self._ids.disk(disk), DISKS_API).body
        owner = found.get("managedBy")
        return disk_told(self._ids, found, self._resources.got(str(owner), COMPUTE_API) if owner else None)

    def create_disk(self, name: str, size_gib: int, *, zone: str | None, snapshot: str | None) -> Disk:
        """Begin to make a disk, which nobody reads but the machine that it is attached to."""
        path = self._ids.disk(name)
        data = {"createOption": "Empty"}
        if snapshot is not None:
            source = self._ids.snapshot(snapshot)
            self._session.call("GET", source, DISKS_API)
            data = {"createOption": "Copy", "sourceResourceId": source}
        if self._resources.got(path, DISKS_API) is not None:
            raise ArmFailure("DiskAlreadyExists", f"the resource group has a disk {name!r}")
        body: dict[str, Any] = {
            "location": self._ids.location,
            "sku": {"name": AzureComputeSettings().disk_sku},
            "tags": {"shiftable": "disk"},
            "properties": {"creationData": data, "diskSizeGB": size_gib, **_HIDDEN},
        }
        if zone is not None:
            body["zones"] = [zone]
        made = self._session.call("PUT", path, DISKS_API, body=body).body
        return Disk(id=path, name=name, size_gib=size_gib, zone=zone, ready=is_complete(made))

    def delete_disk(self, disk: str) -> None:
        """Delete a disk that is attached to no machine."""
        path = self._ids.disk(disk)
        self._session.call("GET", path, DISKS_API)
        self._resources.delete(path)

    def attach(self, id: str, disk: str) -> None:
        """Begin to attach a disk, which stays when the machine is deleted."""
        vm, path = self._found(id), self._ids.disk(disk)
        if path not in disks_of(self._ids, vm):
            self._session.call("GET", path, DISKS_API)
            wanted = {"dataDisksToAttach": [{"diskId": path, "deleteOption": "Detach"}]}
            self._rearrange(vm, wanted, lambda now: path in disks_of(self._ids, now))

    def detach(self, id: str, disk: str) -> None:
        """Begin to detach a disk."""
        vm, path = self._found(id), self._ids.disk(disk)
        if path in disks_of(self._ids, vm):
            self._rearrange(
                vm, {"dataDisksToDetach": [{"diskId": path}]}, lambda now: path not in disks_of(self._ids, now)
            )
            return
        owner = self._session.call("GET", path, DISKS_API).body.get("managedBy")
        if owner and same_id(str(owner)) != same_id(str(vm["id"])):
            raise ArmFailure("DiskIsAttached", f"it is attached to another machine: {owner.rpartition('/')[2]}")

    def disk_snapshots(self, *, cursor: str | None, limit: int | None) -> Page[DiskSnapshot]:  # noqa: ARG002  Azure cuts pages as it likes
        """Return one page of snapshots of disks."""
        page = self._session.call("GET", cursor or self._ids.path("Microsoft.Compute/snapshots"), DISKS_API).body
        return Page(tuple(map(partial(snapshot_told, self._ids), page.get("value") or ())), page.get("nextLink"))

    def disk_snapshot(self, snapshot: str) -> DiskSnapshot:
        """Return one snapshot of a disk."""
        found = self._session.call("GET", self._ids.snapshot(snapshot), DISKS_API).body
        require_made(found, "the snapshot")
        return snapshot_told(self._ids, found)

    def snapshot_disk(self, disk: str, name: str) -> DiskSnapshot:
        """Begin to make a snapshot of a disk, of what differs from its last one."""
        source, path = self._ids.disk(disk), self._ids.snapshot(name)
        found = self._session.call("GET", source, DISKS_API).body
        if self._resources.got(path, DISKS_API) is not None:
            raise ArmFailure("SnapshotAlreadyExists", f"the resource group has a snapshot {name!r}")
        data = {"createOption": "Copy", "sourceResourceId": source}
        body = {
            "location": self._ids.location,
            "tags": {"shiftable": "snapshot"},
            "properties": {"creationData": data, "incremental": True, **_HIDDEN},
        }
        made = self._session.call("PUT", path, DISKS_API, body=body).body
        size = int(found["properties"].get("diskSizeGB") or 0)
        return DiskSnapshot(id=path, name=name, size_gib=size, ready=is_complete(made))

    def delete_disk_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot of a disk."""
        path = self._ids.snapshot(snapshot)
        self._session.call("GET", path, DISKS_API)
        self._resources.delete(path)

    # debris

    def debris(self, *, cursor: str | None, limit: int | None) -> Page[Debris]:  # noqa: ARG002  one page has it all
        """Return what creations and deletions that failed have left in the resource group.

        Interfaces, public addresses and first disks without their machine, what fleets without machines shared, the
        network after the last fleet, and disks of imports that nobody went on with.
        """
        found = [*self._debris.all(list(self._virtual_machines())), *self._imports.left()]
        return Page(tuple(found[:limit]))

    def delete_debris(self, debris: Debris) -> None:
        """Delete what was left. Azure keeps the interface of a machine that failed for three minutes."""
        if not self._imports.delete(debris):
            self._resources.delete(debris.id)

    # what they share: making

    def _check_keys(self, spec: FleetSpec) -> None:
        if not spec.ssh_keys:
            raise ArmFailure("InvalidParameter", f"Azure has no {_NO_KEY}")

    def _placement(
        self, spec: FleetSpec, native: AzureComputeSettings, sku: Sku | None
    ) -> tuple[str | None, str | None]:
        """Return what brings machines near each other, and what keeps them apart where zones do not."""
        near, apart = native.proximity_placement_group, native.availability_set
        if spec.placement == "close" and near is None:
            near = self._ids.near(spec.name)
        several = sku is not None and len(sku.zones) > 1
        if spec.placement == "spread" and apart is None and not several and spec.zone is None:
            apart = self._ids.apart(spec.name)
        return near, apart

    def _alike(self, vm: Mapping[str, Any], disk_gib: int | None) -> OwnImage:
        """Return what machines of a machine's image have to be like: as that machine is."""
        told, tags = vm["properties"], vm.get("tags") or {}
        sku = self._offered().get(str(told["hardwareProfile"]["vmSize"]))
        generation: Generation = "V1" if (told.get("instanceView") or {}).get("hyperVGeneration") == "V1" else "V2"
        is_arm = sku is not None and sku.size.arch == "arm64"
        security = (told.get("securityProfile") or {}).get("securityType")
        signed = tags.get(IMAGE_LABEL) in ALIASES or security == "TrustedLaunch"
        return OwnImage(
            arch="arm64" if is_arm else "x86_64",
            generation=generation,
            trusted=signed and not is_arm and generation == "V2",
            disk_gib=disk_gib,
        )

    def _put_machine(self, path: str, body: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
        """Begin to make a machine that is not there; when somebody is just changing its network, after that."""
        deadline = self._session.clock() + PATIENCE
        while True:
            try:
                return self._session.call("PUT", path, COMPUTE_API, body=body, headers={"If-None-Match": "*"}).body
            except ArmRefusal as exc:
                if code_of(exc) != "ReferencedResourceNotProvisioned" or self._session.clock() >= deadline:
                    raise
            self._resources.settled(place.wall, NETWORK_API, "its network security group")
            self._session.pause(PAUSE)

    def _made_before(self, path: str, fleet: str, token: str, exc: ArmRefusal) -> MachineInfo:
        """Return the machine that an earlier call has made.

        Raises:
            ArmFailure: it is somebody else's, or on its way out.
            ArmRefusal: there is none.
        """
        found = self._resources.got(path, COMPUTE_API, {"$expand": "instanceView"})
        if found is None:
            raise exc
        tags = found.get("tags") or {}
        if tags.get(FLEET_LABEL) != fleet or tags.get(TOKEN_LABEL) != token:
            raise ArmFailure("VirtualMachineAlreadyExists", "the resource group has another machine of that name")
        if self._state(found) == "deleting":
            why = "its predecessor is being deleted; try again when that is gone"
            raise ArmFailure("VirtualMachineIsBeingDeleted", why)
        return self._info(found)

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
            self._session.call("POST", f"{self._ids.machine(self._found(id))}/{verb}", COMPUTE_API, repeat=True)
        except ArmRefusal as exc:
            if not exc.doubtful or self._state(self._found(id)) not in reached:
                raise

    def _rearrange(
        self, vm: Mapping[str, Any], wanted: Mapping[str, Any], done: Callable[[Mapping[str, Any]], bool]
    ) -> None:
        """Begin to attach or detach; what is refused after a lost answer may be under way."""
        path = self._ids.machine(vm)
        try:
            self._session.call("POST", f"{path}/attachDetachDataDisks", COMPUTE_API, body=wanted, repeat=True)
        except ArmRefusal as exc:
            if not exc.doubtful or not done(self._session.call("GET", path, COMPUTE_API).body):
                raise

    # what they share: reading

    def _found(self, id: str) -> Mapping[str, Any]:
        """Return a machine with its run-time view; one that has only the name of it is another."""
        name, _, vm_id = id.partition("/")
        path = f"{self._ids.path('Microsoft.Compute/virtualMachines')}/{quote(name, safe='')}"
        found = self._session.call("GET", path, COMPUTE_API, query={"$expand": "instanceView"}).body
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
        found = first and self._resources.got(first, NETWORK_API, {"$expand": "ipConfigurations/publicIPAddress"})
        if found:
            card = Interface.read(found)
            group = self._resources.got(card.wall, NETWORK_API) if card.wall else None
            around = Around(
                addresses=card.addresses,
                public=tuple(_expanded(found)),
                network=self._ids.network_of(card),
                firewall=() if group is None else read_wall(group),
            )
        return self._read(vm, codes, around)

    def _told(self, vm: Mapping[str, Any], held: Surroundings) -> MachineInfo:
        """Tell of one machine of a listing."""
        id_ = same_id(str(vm["id"]))
        if held.codes is None:
            codes = codes_of(self._resources.got(f"{self._ids.machine(vm)}/instanceView", COMPUTE_API))
        else:
            codes = held.codes.get(id_, ())
        card = held.interfaces.get(id_)
        around = Around(firewall=held.walls.get(same_id(self._ids.wall(fleet_of(vm))), ()))
        if card is not None and state_of(provisioning(vm), codes)[0] not in {"creating", "deleting"}:
            around = Around(
                addresses=card.addresses,
                public=tuple(filter(None, (held.public.get(same_id(each)) for each in card.public))),
                network=self._ids.network_of(card),
                firewall=held.walls.get(same_id(card.wall), ()),
            )
        return self._read(vm, codes, around)

    def _read(self, vm: Mapping[str, Any], codes: tuple[str, ...], around: Around) -> MachineInfo:
        size = (vm["properties"].get("hardwareProfile") or {}).get("vmSize")
        sku = self._offered().get(str(size))
        return read_machine(vm, codes=codes, sku=sku, around=around, disks=disks_of(self._ids, vm))

    def _virtual_machines(self) -> Iterator[Mapping[str, Any]]:
        return self._resources.items(self._ids.path("Microsoft.Compute/virtualMachines"), COMPUTE_API)

    def _offered(self) -> Offering:
        """Return the sizes of the location; an answer counts for an hour."""
        now, kept = self._session.clock(), self._offering
        if kept is not None and now - kept[0] < _KEPT:
            return kept[1]
        location = self._ids.location
        path = f"{self._session.subscription}/providers/Microsoft.Compute/skus"
        wanted = {"$filter": f"location eq '{location}'"}
        read = (Sku.read(found, location) for found in self._resources.items(path, _SKUS, wanted))
        offering = Offering(location, (sku for sku in read if sku is not None))
        with self._lock:
            self._offering = (now, offering)
        return offering


def _zone(spec: FleetSpec, name: str, sku: Sku) -> str | None:
    """Return the zone of a machine: where none is declared, they take turns in those that the size is in."""
    number = name.rpartition("-")[2]
    if spec.zone is not None or not sku.zones:
        return spec.zone
    return sorted(sku.zones)[(int(number) if number.isdecimal() else 0) % len(sku.zones)]


def _expanded(interface: Mapping[str, Any]) -> Iterator[str]:
    """Yield the public addresses of an interface, whose ids were asked to be replaced by what they are for."""
    for each in interface["properties"].get("ipConfigurations") or ():
        public = (each.get("properties") or {}).get("publicIPAddress") or {}
        address = (public.get("properties") or {}).get("ipAddress")
        if address:
            yield str(address)
