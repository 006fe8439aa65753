"""Azure's virtual machines in memory: what takes long, what is refused meanwhile, and what failures leave behind."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, NoReturn

import attrs

from shiftable.testing.harness import Headers, Request, Response
from shiftable_azure._double_arm import ArmAsked, ArmRefusalAnswer, arm_json
from shiftable_azure._double_blob import BlobService
from shiftable_azure._double_imports import UPLOADS, DiskUploads
from shiftable_azure._double_network import Endings, NetworkService, StoredResource, page_of
from shiftable_azure._double_skus import IMAGE_VERSION, IMAGES, SKUS, StoredSku, sku_json
from shiftable_azure._flexible import time_text
from shiftable_azure._machine_network import same_id

__all__ = ["CONSOLE", "SIGNED", "FeatureService", "MachineService", "StoredMachine"]

CONSOLE = "/bootdiagnostics/"
"""Where the logs of consoles are, which are no matter of Resource Manager."""
SIGNED = (CONSOLE, UPLOADS)
"""What takes a signature, and no token."""

Stage = Literal["address", "interface", "disk", "machine"]
_STAGES: tuple[Stage, ...] = ("address", "interface", "disk", "machine")

_COMPUTE, _DISKS, _GALLERIES, _SKUS = "2026-04-01", "2025-01-02", "2024-03-03", "2021-07-01"
_KEPT = timedelta(seconds=180)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_DISK_NAME = re.compile(r"[A-Za-z0-9_](?:[\w.-]{0,78}\w)?", re.ASCII)
_USERS = {"admin", "administrator", "root", "user", "test", "guest", "console", "sys", "backup", "david"}
_KEY = re.compile(r"(ssh-rsa|ssh-ed25519) [A-Za-z0-9+/=]+( .*)?")
_CUSTOM_DATA = 65_535
_TAGS, _TAG_NAME, _TAG = 50, 512, 256
_VERBS = {
    "start": "Start", "deallocate": "Deallocate", "restart": "Restart", "powerOff": "PowerOff",
    "attachDetachDataDisks": "AttachDetachDataDisks", "beginGetAccess": "GrantAccess", "endGetAccess": "RevokeAccess",
    "retrieveBootDiagnosticsData": "RetrieveBootDiagnosticsData",
}  # fmt: skip
_PLACEMENTS = {"availabilitySets", "proximityPlacementGroups"}
_KNOWN = {"virtualMachines": _COMPUTE, "disks": _DISKS, "snapshots": _DISKS, "galleries": _GALLERIES, "skus": _SKUS,
          "locations": _COMPUTE, "availabilitySets": _COMPUTE, "proximityPlacementGroups": _COMPUTE}  # fmt: skip
_POWERS = {"start": ("starting", "running"), "restart": ("running", "running"),
           "deallocate": ("deallocating", "deallocated"), "powerOff": ("stopping", "stopped")}  # fmt: skip
_METHODS = {"GET": "Get", "PUT": "CreateOrUpdate", "PATCH": "Update", "DELETE": "Delete"}


@attrs.frozen
class StoredImage:
    """What machines of an image are like."""

    gib: int = 30
    generation: str = "V2"
    trusted: bool = True


@attrs.define(eq=False)
class StoredMachine:
    """One machine: ``properties`` as Azure tells them.

    Attributes:
        power: ``running``, as the code of its power state ends; empty, before it has one.
        failure: code that it has failed with.
        busy: something is being done to it.
        data: what cloud-init got.
        console: what it wrote.
        image: that it was made of.
    """

    name: str
    group: str
    location: str
    tags: dict[str, str]
    zones: list[str]
    identity: dict[str, Any] | None
    properties: dict[str, Any]
    interfaces: list[StoredResource] = attrs.field(factory=list)
    power: str = ""
    failure: str = ""
    busy: bool = False
    data: bytes = attrs.field(default=b"", repr=False)
    console: bytes = attrs.field(default=b"", repr=False)
    image: StoredImage = attrs.field(factory=StoredImage)
    etag: str = attrs.field(factory=lambda: str(uuid.uuid4()))

    def id(self, subscription: str) -> str:
        """The id; Azure writes the resource group in capitals."""
        kind = "Microsoft.Compute/virtualMachines"
        return f"/subscriptions/{subscription}/resourceGroups/{self.group.upper()}/providers/{kind}/{self.name}"


@attrs.frozen
class _Failure:
    code: str
    message: str
    after: Stage | None
    at_once: bool
    keeps: bool


class MachineService:
    """Executes requests for machines, disks, galleries and sizes, one at a time.

    In which order Azure makes what belongs to a machine, and that its first disk has the machine's tags, is stated
    nowhere, and an assumption here; so is the size of its pages. How its answers name a state is as its clients were
    shown it.

    Attributes:
        machines: by resource group and name, both in lower case.
        disks: the same.
        snapshots: the same.
        uploads: what is written to disks that are made by upload.
        placements: availability sets and proximity placement groups, by kind, resource group and name.
        definitions: images of galleries, by resource group, gallery and name, with their versions.
        page_size: the most that a listing has in one page.
        cores: the quota of the location.
        closed: sizes that the subscription does not get.
        kept: how long an interface is kept for a machine that failed.
        registered: the subscription may encrypt at the host.
        group_only: who asks has a role on the resource group, and none on the subscription.
    """

    namespace = "Microsoft.Compute"
    versions = frozenset({_COMPUTE, _DISKS, _GALLERIES, _SKUS})

    def __init__(
        self, endings: Endings, network: NetworkService, blobs: BlobService, url: Callable[[], str], token: str
    ) -> None:
        self.endings = endings
        self.uploads = DiskUploads(endings, blobs, url)
        self._network = network
        self._url = url
        self._token = token
        self.machines: dict[tuple[str, str], StoredMachine] = {}
        self.disks: dict[tuple[str, str], StoredResource] = {}
        self.snapshots: dict[tuple[str, str], StoredResource] = {}
        self.placements: dict[tuple[str, str, str], StoredResource] = {}
        self.galleries: dict[tuple[str, str], StoredResource] = {}
        self.definitions: dict[tuple[str, str, str], StoredResource] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all machines; be an ordinary subscription again."""
        self.endings.reset()
        self.uploads.reset()
        for held in (self.machines, self.disks, self.snapshots, self.placements, self.galleries, self.definitions):
            held.clear()
        self._failures: list[_Failure] = []
        self._halves: list[Stage] = []
        self.page_size = 1000
        self.cores = 10_000
        self.closed: set[str] = set()
        self.kept = _KEPT
        self.registered = False
        self.group_only = False

    def machine(self, name: str) -> StoredMachine:
        """Return the machine of that name, as it is now."""
        self.endings.settle()
        return next(machine for (_, key), machine in self.machines.items() if key == name)

    def fail_create(self, code: str, *, after: Stage | None = None, at_once: bool = False, keeps: bool = True) -> None:
        """Have the next creation fail.

        Args:
            after: what was made last before it failed.
            at_once: it is refused, and not only later.
            keeps: the machine that failed stays.
        """
        self._failures.append(_Failure(code, "it did not work out", after, at_once, keeps))

    def fail_delete(self, before: Stage) -> None:
        """Have the next deletion of a machine stop half done, before it gets to something."""
        self._halves.append(before)

    def operation(self, method: str, parts: tuple[str, ...]) -> tuple[str, str]:
        """Name an operation and the action that it takes."""
        kind = parts[0] if parts else ""
        verb = {"GET": "read", "DELETE": "delete"}.get(method, "write")
        base, name = f"{self.namespace}/{kind}", {"skus": "ResourceSkus"}.get(kind, kind[:1].upper() + kind[1:])
        if kind == "locations" and "publishers" in parts:
            below = "locations/publishers/artifacttypes/offers/skus/versions"
            return f"VirtualMachineImages_{'Get' if len(parts) % 2 == 0 else 'List'}", f"{self.namespace}/{below}/read"
        if kind == "locations":
            return "GetOperationStatus", f"{self.namespace}/locations/operations/read"
        if kind == "galleries":
            below = "/".join(parts[::2])
            name = {"galleries": "Galleries", "galleries/images": "GalleryImages"}.get(below, "GalleryImageVersions")
            return (
                f"{name}_{'List' if len(parts) % 2 else _METHODS.get(method, '')}",
                f"{self.namespace}/{below}/{verb}",
            )
        if len(parts) == 1:
            return f"{name}_List", f"{base}/read"
        if len(parts) == 3:
            told = ("InstanceView", "read") if method == "GET" else (_VERBS.get(parts[2], ""), "action")
            return f"{name}_{told[0]}", f"{base}/{parts[2]}/{told[1]}"
        return f"{name}_{_METHODS.get(method, '')}", f"{base}/{verb}"

    def execute(self, asked: ArmAsked) -> Response:
        """Answer a request."""
        self.endings.settle()
        parts = asked.parts
        if parts[0] == "locations" and len(parts) == 4:
            return self.endings.result(parts[3]) if parts[2] == "results" else self.endings.look(parts[3])
        known = _KNOWN.get(parts[0])
        if known is None:
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The resource type could not be found.")
        if asked.version != known:
            message = f"No registered resource provider found for API version '{asked.version}', but '{known}'."
            raise ArmRefusalAnswer(400, "NoRegisteredProviderFound", message)
        others = {"locations": self._market, "skus": self._skus, "galleries": self._gallery_verbs,
                  "disks": self._disk_verbs, "snapshots": self._disk_verbs,
                  **dict.fromkeys(_PLACEMENTS, self._placement_verbs)}  # fmt: skip
        if parts[0] in others:
            return others[parts[0]](asked)
        if len(parts) in {1, 3}:
            return self._list(asked) if len(parts) == 1 else self._act(asked, self._machine(asked))
        run = {"GET": self._get, "PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}.get(asked.method)
        if run is None or asked.group is None:
            raise ArmRefusalAnswer(405, "MethodNotAllowed", "The double has no such operation.")
        return run(asked)

    def signed_operation(self, request: Request) -> tuple[str, str]:
        """Name a request with a signature, and for what it is."""
        return ("console", "GetLog") if request.path.startswith(CONSOLE) else ("disk", self.uploads.operation(request))

    def execute_signed(self, request: Request) -> Response:
        """Answer a request with a signature: for a console's log, or for the content of a disk."""
        self.endings.settle()
        return self._console(request) if request.path.startswith(CONSOLE) else self.uploads.execute(request)

    def _console(self, request: Request) -> Response:
        name = request.path.removeprefix(CONSOLE)
        if "Authorization" in request.headers or f"sig={self._signature(name)}" not in request.query.split("&"):
            return Response("403 Forbidden", Headers({"x-ms-error-code": "AuthenticationFailed"}))
        found = next((one for one in self.machines.values() if one.name == name), None)
        if found is None or not found.console:
            return Response("404 The specified blob does not exist.")
        padded = found.console + b"\0" * (-len(found.console) % 512)
        return Response("200 OK", Headers({"Content-Type": "application/octet-stream"}), padded)

    def _signature(self, name: str) -> str:
        return hashlib.sha256(f"{self._token}/{name}".encode()).hexdigest()

    # machines

    def _list(self, asked: ArmAsked) -> Response:
        group = None if asked.group is None else asked.group.lower()
        here = [one for (of, _), one in self.machines.items() if group in (None, of)]
        if "$expand" in asked.query and "$filter" not in asked.query:
            raise ArmRefusalAnswer(400, "InvalidParameter", "$expand can be used with $filter only.")
        if group is None and self.group_only:
            message = "The client '0' with object id '0' does not have authorization to perform action"
            raise ArmRefusalAnswer(403, "AuthorizationFailed", f"{message} 'Microsoft.Compute/virtualMachines/read'.")
        only = asked.query.get("statusOnly") == "true"
        if only and group is not None:
            raise ArmRefusalAnswer(400, "InvalidParameter", "statusOnly is for all machines of the subscription.")
        told = self._status_only if only else self._json
        return page_of(asked, here, self.page_size, lambda one: told(asked, one))

    def _get(self, asked: ArmAsked) -> Response:
        found = self._machine(asked)
        content = self._json(asked, found)
        if asked.query.get("$expand") == "instanceView":
            content["properties"]["instanceView"] = self._view(found)
        return arm_json(200, content)

    def _put(self, asked: ArmAsked) -> Response:
        key, content = (str(asked.group).lower(), asked.parts[1].lower()), asked.content
        if asked.headers.get("If-None-Match") not in {None, "*"}:
            raise ArmRefusalAnswer(400, "InvalidParameter", "If-None-Match must be '*'.")
        if key in self.machines:
            if asked.headers.get("If-None-Match") == "*":
                raise ArmRefusalAnswer(412, "PreconditionFailed", "The resource exists already.")
            raise ArmRefusalAnswer(409, "PropertyChangeNotAllowed", "Changing property 'osProfile' is not allowed.")
        self._check(asked, content)
        failure = self._failures.pop(0) if self._failures else None
        made = self._made(asked, content)
        if failure is not None and failure.at_once:
            self._make_pieces(asked, made, content, failure.after)
            self._let_go(made)
            status = 500 if failure.code == "InternalExecutionError" else 409
            raise ArmRefusalAnswer(status, failure.code, failure.message)
        self.machines[key] = made

        def ended() -> None:
            self._make_pieces(asked, made, content, failure.after if failure else "machine")
            made.busy = False
            if failure is None:
                made.properties["provisioningState"], made.power = "Succeeded", "running"
                made.console = b"Linux version 6.1.0-cloud-amd64\ncloud-init: done\n"
                return
            made.properties["provisioningState"], made.failure = "Failed", failure.code
            if not failure.keeps:
                self._let_go(made)
                self.machines.pop(key, None)

        error = None if failure is None else (failure.code, failure.message)
        body = self._json(asked, made)  # as it is before anything is made, however soon that is
        return self.endings.begin(asked, self.namespace, ended, error=error, body=body, status=201)

    def _check(self, asked: ArmAsked, content: Mapping[str, Any]) -> None:
        """Refuse what Azure refuses at once."""
        said, size = content["properties"], content["properties"]["hardwareProfile"]["vmSize"]
        sku = _sku(size)
        if sku.name in self.closed or sku.restricted:
            message = f"The requested VM size {size} is currently not available in location '{content['location']}'."
            raise ArmRefusalAnswer(409, "SkuNotAvailable", message)
        _check_names(asked.parts[1], content.get("tags") or {}, said["osProfile"])
        self._check_place(content, sku)
        self._check_disk(str(asked.group), said["storageProfile"], sku)
        self._check_security(said.get("securityProfile") or {}, sku, said["storageProfile"]["imageReference"])
        network = said["networkProfile"]
        for each in network["networkInterfaceConfigurations"]:
            self._network.check_interface(each, api=network.get("networkApiVersion"))
        used = sum(_cpus(one) for one in self.machines.values())
        if used + sku.cpus > self.cores:
            message = (
                "Operation could not be completed as it results in exceeding approved Total Regional Cores quota. "
                f"Current Limit: {self.cores}"
            )
            raise ArmRefusalAnswer(409, "OperationNotAllowed", message)

    def _check_place(self, content: Mapping[str, Any], sku: StoredSku) -> None:
        said, zones = content["properties"], content.get("zones") or []
        if not set(zones) <= set(sku.zones) or len(zones) > 1:
            _refuse("InvalidAvailabilityZone", f"The zone(s) {zones} are not supported for {sku.name}.")
        if zones and said.get("availabilitySet"):
            _refuse("InvalidParameterConflict", "A machine in an availability set has no zone.")
        if said.get("priority") == "Spot" and (not sku.spot or said.get("availabilitySet")):
            _refuse("OperationNotAllowed", f"The VM size {sku.name} is not supported for Azure Spot.")
        for field in ("availabilitySet", "proximityPlacementGroup"):
            placed = same_id((said.get(field) or {}).get("id", ""))
            if placed and (f"{field}s", *placed.split("/")[4:9:4]) not in self.placements:
                _refuse("InvalidResourceReference", f"Resource {placed} was not found.")

    def _check_disk(self, group: str, said: Mapping[str, Any], sku: StoredSku) -> None:
        first, name = said["osDisk"], said["osDisk"]["name"]
        image = self._image_of(said["imageReference"], sku).gib
        if first.get("diskSizeGB", image) < image:
            _refuse("InvalidParameter", f"The specified disk size is smaller than the image's, {image} GB.")
        if not _DISK_NAME.fullmatch(name) or (group.lower(), name.lower()) in self.disks:
            raise ArmRefusalAnswer(409, "ConflictingUserInput", f"Disk {name} already exists, or is no name.")

    def _check_security(self, said: Mapping[str, Any], sku: StoredSku, reference: Mapping[str, str]) -> None:
        if said.get("encryptionAtHost") and not (self.registered and sku.host):
            _refuse("InvalidParameter", "The property 'securityProfile.encryptionAtHost' is not valid because the "
                    "'Microsoft.Compute/EncryptionAtHost' feature is not enabled for this subscription.")  # fmt: skip
        if said.get("uefiSettings") and said.get("securityType") != "TrustedLaunch":
            _refuse("InvalidParameter", "uefiSettings goes with a securityType.")
        if said.get("securityType") == "TrustedLaunch" and not sku.trusted:
            _refuse("InvalidParameter", f"The VM size {sku.name} is not supported for trusted launch.")
        if said.get("securityType") == "TrustedLaunch" and not self._image_of(reference, sku).trusted:
            _refuse("BadRequest", "The image does not support the security type TrustedLaunch.")

    def _image_of(self, reference: Mapping[str, str], sku: StoredSku) -> StoredImage:
        """Return what is known of an image that machines of a size start from."""
        if reference.get("id"):
            image, arm = self._of_gallery(reference["id"])
        else:
            urn = ":".join(reference.get(part, "") for part in ("publisher", "offer", "sku"))
            if urn not in IMAGES or reference.get("version") not in {"latest", IMAGE_VERSION}:
                raise ArmRefusalAnswer(404, "PlatformImageNotFound", f"The platform image '{urn}' is not available.")
            image, arm = StoredImage(), "arm64" in urn
        if arm is not sku.arm:
            _refuse("InvalidParameter", "The size and the image are of different architectures.")
        if image.generation not in sku.generations:
            message = f"The selected VM size '{sku.name}' cannot boot Hypervisor Generation '{image.generation[1:]}'."
            _refuse("BadRequest", message)
        return image

    def _of_gallery(self, id_: str) -> tuple[StoredImage, bool]:
        key = same_id(id_).split("/")
        if "/galleries/" not in id_.lower() or len(key) < 11:
            _refuse("LinkedInvalidPropertyId", f"Property id '{id_}' is invalid.")
        definition = self.definitions.get((key[4], key[-3], key[-1]))
        versions = [] if definition is None else list(self._versions(definition).values())
        made = next((one for one in versions if one.properties["provisioningState"] == "Succeeded"), None)
        if definition is None or made is None:
            raise ArmRefusalAnswer(404, "GalleryImageNotFound", f"The gallery image {id_} is not available.")
        said = definition.properties
        trusted = {"name": "SecurityType", "value": "TrustedLaunchSupported"} in said.get("features", [])
        return StoredImage(made.properties["size"], said["hyperVGeneration"], trusted), said["architecture"] == "Arm64"

    def _made(self, asked: ArmAsked, content: Mapping[str, Any]) -> StoredMachine:
        said = content["properties"]
        told = {
            name: said[name]
            for name in ("hardwareProfile", "securityProfile", "diagnosticsProfile", "priority", "evictionPolicy",
                         "billingProfile", "availabilitySet", "proximityPlacementGroup")
            if name in said
        }  # fmt: skip
        told["storageProfile"] = {
            "imageReference": {**said["storageProfile"]["imageReference"]},
            "osDisk": {**said["storageProfile"]["osDisk"], "osType": "Linux", "caching": "ReadWrite"},
            "dataDisks": [],
        }
        told["osProfile"] = {name: value for name, value in said["osProfile"].items() if name != "customData"}
        told |= {
            "networkProfile": {"networkInterfaces": []},
            "vmId": str(uuid.uuid4()),
            "timeCreated": time_text(self.endings.clock.now()),
            "provisioningState": "Creating",
        }
        return StoredMachine(
            asked.parts[1],
            str(asked.group),
            content["location"],
            dict(content.get("tags") or {}),
            list(content.get("zones") or ()),
            content.get("identity"),
            told,
            busy=True,
            data=base64.b64decode(said["osProfile"].get("customData") or ""),
            image=self._image_of(said["storageProfile"]["imageReference"], _sku(said["hardwareProfile"]["vmSize"])),
        )

    def _make_pieces(
        self, asked: ArmAsked, made: StoredMachine, content: Mapping[str, Any], last: Stage | None
    ) -> None:
        """Make what belongs to a machine, up to some point."""
        stages = _STAGES[: _STAGES.index(last) + 1] if last else ()
        said = content["properties"]["networkProfile"]["networkInterfaceConfigurations"][0]
        public = said["properties"]["ipConfigurations"][0]["properties"].get("publicIPAddressConfiguration")
        address = None
        if "address" in stages and public is not None:
            address = self._network.make_address(public, made.group, made.location)
        if "interface" in stages:
            card = self._network.make_interface(asked.subscription, said, made.group, made.location, address)
            card.properties["virtualMachine"] = {"id": made.id(asked.subscription)}
            made.interfaces.append(card)
            made.properties["networkProfile"]["networkInterfaces"] = [
                {"id": card.id(asked.subscription),
                 "properties": {"primary": True, "deleteOption": said["properties"].get("deleteOption", "Detach")}}
            ]  # fmt: skip
        if "disk" in stages:
            first = made.properties["storageProfile"]["osDisk"]
            size = first.get("diskSizeGB") or made.image.gib
            disk = StoredResource(
                "Microsoft.Compute/disks", first["name"], made.group, made.location, dict(made.tags), {}
            )
            disk.properties = {"osType": "Linux", "diskSizeGB": size, "diskState": "Attached",
                               "hyperVGeneration": made.image.generation,
                               "creationData": {"createOption": "FromImage"}, "provisioningState": "Succeeded",
                               "owner": made.id(asked.subscription)}  # fmt: skip
            disk.sku, disk.zones = {"name": first["managedDisk"]["storageAccountType"]}, list(made.zones)
            self.disks[made.group.lower(), disk.name.lower()] = disk
            first["diskSizeGB"] = size
            first["managedDisk"] = {**first["managedDisk"], "id": disk.id(asked.subscription)}

    def _let_go(self, made: StoredMachine) -> None:
        """Leave what belonged to a machine behind; its interface is kept for it for a while."""
        for card in made.interfaces:
            card.properties.pop("virtualMachine", None)
            card.kept_until = self.endings.clock.now() + self.kept
        for disk in self._owned(made):
            disk.properties["diskState"] = "Unattached"
            disk.properties.pop("owner", None)

    def _owned(self, made: StoredMachine) -> list[StoredResource]:
        owner = f"/{made.group}/".lower() + made.name.lower()
        return [
            disk
            for disk in self.disks.values()
            if disk.properties.get("owner") and _short(disk.properties["owner"]) == owner
        ]

    def _patch(self, asked: ArmAsked) -> Response:
        found = self._machine(asked)
        if asked.headers.get("If-Match") not in {None, "*", f'"{found.etag}"'}:
            raise ArmRefusalAnswer(412, "PreconditionFailed", "The etag of the resource is another by now.")
        if asked.content.keys() == {"tags"}:
            return self._retag(asked, found)
        size = ((asked.content.get("properties") or {}).get("hardwareProfile") or {}).get("vmSize")
        self._check_idle(found)
        sku = next((one for one in SKUS if one.name == size), None)
        if sku is None or sku.name in self.closed:
            raise ArmRefusalAnswer(409, "SkuNotAvailable", f"The requested size {size} is not available.")
        old = next(one for one in SKUS if one.name == found.properties["hardwareProfile"]["vmSize"])
        if sku.arm is not old.arm:
            _refuse("InvalidParameter", "The size is of another architecture.")
        if found.power != "deallocated":
            _refuse("OperationNotAllowed", "The double changes the size of deallocated machines alone.", 409)

        def ended() -> None:
            found.properties["hardwareProfile"] = {"vmSize": size}

        return self._changed(asked, found, "VirtualMachines_Update", ended, status=200)

    def _retag(self, asked: ArmAsked, found: StoredMachine) -> Response:
        """Replace all tags of a machine."""
        self._check_idle(found)
        tags = dict(asked.content["tags"])
        _check_tags(tags)

        def ended() -> None:
            found.tags = tags

        return self._changed(asked, found, "VirtualMachines_Update", ended, status=200)

    def _delete(self, asked: ArmAsked) -> Response:
        key = (str(asked.group).lower(), asked.parts[1].lower())
        found = self.machines.get(key)
        if found is None:
            return arm_json(204, None)
        if found.properties["provisioningState"] == "Deleting":
            return self.endings.begin(asked, self.namespace, lambda: None)
        half = self._halves.pop(0) if self._halves else None
        found.properties["provisioningState"] = "Deleting"

        def ended() -> None:
            if self.machines.get(key) is found:
                self._cascade(found, half)
                del self.machines[key]

        error = None if half is None else ("InternalExecutionError", "An internal execution error occurred.")
        return self.endings.begin(asked, self.namespace, ended, error=error)

    def _cascade(self, found: StoredMachine, half: Stage | None) -> None:
        """Delete what is to be deleted with a machine, and let go of the rest."""
        done = _STAGES if half is None else _STAGES[_STAGES.index(half) + 1 :]
        first = found.properties["storageProfile"]["osDisk"]
        owned, cards = self._owned(found), found.interfaces
        addresses = [
            self._network.by_id(each["properties"]["publicIPAddress"]["id"])
            for card in cards
            for each in card.properties["ipConfigurations"]
            if each["properties"].get("publicIPAddress")
        ]
        self._let_go(found)
        if half is None:
            for card in cards:
                card.kept_until = None
        for disk in owned:
            if disk.name == first["name"] and first.get("deleteOption") == "Delete" and "disk" in done:
                del self.disks[disk.group.lower(), disk.name.lower()]
        if "interface" in done:
            for card in cards:
                self._network.forget(card)
            for address in addresses:
                if address.properties["deleteOption"] == "Delete" and "address" in done:
                    self._network.forget(address)

    def _act(self, asked: ArmAsked, found: StoredMachine) -> Response:
        verb = asked.parts[2]
        if verb == "instanceView" and asked.method == "GET":
            return arm_json(200, self._view(found))
        if verb not in _VERBS or asked.method != "POST":
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The resource type could not be found.")
        if verb == "retrieveBootDiagnosticsData":
            if not found.properties["diagnosticsProfile"]["bootDiagnostics"]["enabled"]:
                raise ArmRefusalAnswer(409, "OperationNotAllowed", "Boot diagnostics is not enabled.")
            url = f"{self._url()}{CONSOLE}{found.name}?se=2030&sig={self._signature(found.name)}"
            return arm_json(200, {"serialConsoleLogBlobUri": url, "consoleScreenshotBlobUri": url})
        self._check_idle(found)
        if verb == "attachDetachDataDisks":
            return self._rearrange(asked, found)
        meanwhile, then = _POWERS[verb]
        if verb in {"restart", "powerOff"} and found.power != "running":
            message = f"Cannot {verb} a machine that is {found.power or 'not running'}."
            raise ArmRefusalAnswer(409, "OperationNotAllowed", message)
        if found.power == then and verb != "restart":
            return arm_json(200, None)
        before = found.power
        found.power = meanwhile

        def ended() -> None:
            found.power = then

        def failed() -> None:
            found.power = before

        return self._changed(asked, found, f"VirtualMachines_{_VERBS[verb]}", ended, failed)

    def _rearrange(self, asked: ArmAsked, found: StoredMachine) -> Response:
        """Attach and detach disks: the machine tells it at once, the disk only when it is done."""
        content, attached = asked.content, found.properties["storageProfile"]["dataDisks"]
        freed = list[StoredResource]()
        for each in content.get("dataDisksToDetach") or ():
            held = next((one for one in attached if same_id(one["managedDisk"]["id"]) == same_id(each["diskId"])), None)
            if held is None:
                _refuse("InvalidParameter", f"The disk {each['diskId']} is not attached.")
            attached.remove(held)
            freed.append(self._disk_of(each["diskId"]))
        for each in content.get("dataDisksToAttach") or ():
            disk = self._disk_of(each["diskId"])
            if disk.properties.get("owner"):
                message = f"Disk {disk.name} cannot be attached as it is attached to another machine already."
                raise ArmRefusalAnswer(409, "AttachDiskWhileBeingDetached", message)
            if disk.zones != found.zones or disk.properties["provisioningState"] != "Succeeded":
                _refuse("BadRequest", f"The disk {disk.name} is in another zone than the machine, or not there yet.")
            disk.properties |= {"diskState": "Attached", "owner": found.id(asked.subscription)}
            free = next(lun for lun in range(64) if lun not in {one["lun"] for one in attached})
            attached.append(
                {"lun": each.get("lun", free), "name": disk.name, "createOption": "Attach", "diskSizeGB":
                 disk.properties["diskSizeGB"], "deleteOption": each.get("deleteOption", "Detach"),
                 "managedDisk": {"id": each["diskId"].replace("resourceGroups", "resourcegroups")}}
            )  # fmt: skip

        def ended() -> None:
            for disk in freed:
                disk.properties["diskState"] = "Unattached"
                disk.properties.pop("owner", None)

        return self._changed(asked, found, "VirtualMachines_AttachDetachDataDisks", ended)

    def _changed(
        self,
        asked: ArmAsked,
        found: StoredMachine,
        name: str,
        effect: Callable[[], None],
        otherwise: Callable[[], None] = lambda: None,
        *,
        status: int = 202,
    ) -> Response:
        """Begin a change of a machine that is there."""
        error = self.endings.failures.pop(name, None)
        found.busy, found.properties["provisioningState"] = True, "Updating"

        def ended() -> None:
            if found.properties["provisioningState"] == "Deleting":
                return
            found.busy, found.etag = False, str(uuid.uuid4())
            found.properties["provisioningState"] = "Succeeded" if error is None else "Failed"
            found.failure = "" if error is None else error[0]
            (effect if error is None else otherwise)()

        body = self._json(asked, found) if status == 200 else None
        return self.endings.begin(asked, self.namespace, ended, error=error, body=body, status=202)

    def _check_idle(self, found: StoredMachine) -> None:
        if found.busy or found.properties["provisioningState"] == "Deleting":
            message = "The request failed due to conflict with a concurrent request."
            raise ArmRefusalAnswer(409, "ConcurrentUpdateError", message)

    def _machine(self, asked: ArmAsked) -> StoredMachine:
        found = self.machines.get((str(asked.group).lower(), asked.parts[1].lower()))
        if found is None:
            message = f"The Resource 'Microsoft.Compute/virtualMachines/{asked.parts[1]}' under resource group"
            raise ArmRefusalAnswer(404, "ResourceNotFound", f"{message} '{asked.group}' was not found.")
        return found

    def _view(self, found: StoredMachine) -> dict[str, Any]:
        state = found.properties["provisioningState"].lower()
        code = f"ProvisioningState/{state}" + (f"/{found.failure}" if found.failure and state == "failed" else "")
        statuses = [{"code": code, "level": "Error" if found.failure else "Info", "displayStatus": state}]
        if found.power:
            power = {"code": f"PowerState/{found.power}", "level": "Info", "displayStatus": f"VM {found.power}"}
            statuses.append(power)
        return {"hyperVGeneration": found.image.generation, "statuses": statuses}

    def _status_only(self, asked: ArmAsked, found: StoredMachine) -> dict[str, Any]:
        content = self._json(asked, found)
        told = {name: content["properties"][name] for name in ("vmId", "provisioningState")}
        kept = {name: content[name] for name in ("id", "name", "type", "location")}
        return {**kept, "properties": {**told, "instanceView": self._view(found)}}

    def _json(self, asked: ArmAsked, found: StoredMachine) -> dict[str, Any]:
        properties = dict(found.properties)
        if found.power == "deallocated":
            storage = dict(properties["storageProfile"])
            storage["osDisk"] = {name: value for name, value in storage["osDisk"].items() if name != "diskSizeGB"}
            properties["storageProfile"] = storage
        content: dict[str, Any] = {
            "id": found.id(asked.subscription),
            "name": found.name,
            "type": "Microsoft.Compute/virtualMachines",
            "location": found.location,
            "tags": found.tags,
            "etag": f'"{found.etag}"',
            "properties": properties,
        }
        if found.zones:
            content["zones"] = found.zones
        if found.identity is not None:
            content["identity"] = found.identity
        return content

    # disks

    def _disk_verbs(self, asked: ArmAsked) -> Response:
        """Answer for disks and for their snapshots, which are alike."""
        kind = asked.parts[0]
        held = self.disks if kind == "disks" else self.snapshots
        if len(asked.parts) == 1:
            group = None if asked.group is None else asked.group.lower()
            here = [one for (of, _), one in held.items() if group in (None, of)]
            return page_of(asked, here, self.page_size, lambda one: self._disk_json(asked, one))
        key = (str(asked.group).lower(), asked.parts[1].lower())
        found = held.get(key)
        if asked.method == "PUT":
            return self._put_disk(asked, held, key, found)
        if asked.method == "DELETE" and len(asked.parts) == 2 and found is None:
            return arm_json(204, None)
        if found is None:
            message = f"The Resource 'Microsoft.Compute/{kind}/{asked.parts[1]}' under resource group '{asked.group}'"
            raise ArmRefusalAnswer(404, "ResourceNotFound", f"{message} was not found.")
        if len(asked.parts) == 3:
            return self.uploads.act(asked, found)
        return self._disk_verb(asked, held, key, found)

    def _disk_verb(
        self, asked: ArmAsked, held: dict[Any, StoredResource], key: tuple[str, str], found: StoredResource
    ) -> Response:
        if asked.method == "GET":
            return arm_json(200, self._disk_json(asked, found))
        if asked.method == "PATCH" and asked.content.keys() == {"tags"}:
            tags = dict(asked.content["tags"])
            _check_tags(tags)
            return self.endings.begin(asked, self.namespace, lambda: setattr(found, "tags", tags),
                                      body=lambda: self._disk_json(asked, found))  # fmt: skip
        if found.properties.get("owner"):
            message = f"Disk {found.name} is attached to VM {found.properties['owner']}."
            raise ArmRefusalAnswer(409, "OperationNotAllowed", message)
        self.uploads.check_idle(found)
        return self._forgotten(asked, held, key, "Disks_Delete")

    def _put_disk(
        self,
        asked: ArmAsked,
        held: dict[tuple[str, str], StoredResource],
        key: tuple[str, str],
        found: StoredResource | None,
    ) -> Response:
        content, said = asked.content, dict(asked.content["properties"])
        if not _DISK_NAME.fullmatch(asked.parts[1]):
            _refuse("InvalidParameter", f"The disk name {asked.parts[1]} is invalid.")
        source = said["creationData"].get("sourceResourceId")
        if said["creationData"]["createOption"] == "Upload":
            if found is not None:
                return self.uploads.again(found, said, lambda: self._disk_json(asked, found))
            said["diskSizeGB"] = self.uploads.size_of(said)
        if source is not None:
            of = self.snapshots if "/snapshots/" in source.lower() else self.disks
            copied = of.get((same_id(source).split("/")[4], same_id(source).rpartition("/")[2]))
            if copied is None:
                raise ArmRefusalAnswer(404, "ResourceNotFound", f"The resource {source} was not found.")
            said.setdefault("diskSizeGB", copied.properties["diskSizeGB"])
            if said["diskSizeGB"] < copied.properties["diskSizeGB"]:
                _refuse("InvalidParameter", "A copy is not smaller than its source.")
        made = found or StoredResource(
            f"Microsoft.Compute/{asked.parts[0]}", asked.parts[1], str(asked.group), content["location"], {}, {}
        )
        made.tags, made.zones = dict(content.get("tags") or {}), list(content.get("zones") or ())
        made.sku = content.get("sku")
        made.properties = {**said, "diskState": "Unattached", "provisioningState": "Updating",
                           "timeCreated": time_text(self.endings.clock.now())}  # fmt: skip
        held[key] = made
        error = self.endings.failures.pop(f"{made.kind}/write", None)

        def ended() -> None:
            made.properties["provisioningState"] = "Succeeded" if error is None else "Failed"
            if said["creationData"]["createOption"] == "Upload":
                made.properties["diskState"] = "ReadyToUpload"

        return self.endings.begin(asked, self.namespace, ended, error=error, body=lambda: self._disk_json(asked, made))

    def _forgotten(self, asked: ArmAsked, held: dict[Any, Any], key: Any, name: str) -> Response:  # noqa: ANN401  its key
        error = self.endings.failures.pop(name, None)

        def ended() -> None:
            if error is None:
                held.pop(key, None)

        return self.endings.begin(asked, self.namespace, ended, error=error)

    def _disk_of(self, id_: str) -> StoredResource:
        parts = same_id(id_).split("/")
        found = self.disks.get((parts[4], parts[-1]))
        if found is None:
            raise ArmRefusalAnswer(404, "DiskNotFound", f"Disk {id_} was not found.")
        return found

    def _disk_json(self, asked: ArmAsked, found: StoredResource) -> dict[str, Any]:
        content: dict[str, Any] = {
            "id": found.id(asked.subscription),
            "name": found.name,
            "type": found.kind,
            "location": found.location,
            "tags": found.tags,
            "sku": found.sku,
            "properties": {name: value for name, value in found.properties.items() if name != "owner"},
        }
        if found.properties.get("owner"):
            content["managedBy"] = found.properties["owner"]
        if found.zones:
            content["zones"] = found.zones
        return content

    # what places machines

    def _placement_verbs(self, asked: ArmAsked) -> Response:
        kind, group = asked.parts[0], str(asked.group).lower()
        if len(asked.parts) == 1:
            here = [one for (of, owner, _), one in self.placements.items() if (of, owner) == (kind, group)]
            return page_of(asked, here, self.page_size, lambda one: self._gallery_json(asked, one))
        key = (kind, group, asked.parts[1].lower())
        field = {"availabilitySets": "availabilitySet", "proximityPlacementGroups": "proximityPlacementGroup"}[kind]
        users = [
            one
            for one in self.machines.values()
            if same_id((one.properties.get(field) or {}).get("id", "")).endswith(f"/{kind}/{key[2]}".lower())
        ]
        if asked.method == "DELETE" and users:
            raise ArmRefusalAnswer(409, "OperationNotAllowed", f"{asked.parts[1]} cannot be deleted: it has machines.")
        return self._plain_verbs(asked, self.placements, key)

    # galleries

    def _gallery_verbs(self, asked: ArmAsked) -> Response:
        parts, group = asked.parts, str(asked.group).lower()
        gallery = parts[1].lower()
        if len(parts) == 2:
            inside = any((of, owner) == (group, gallery) for of, owner, _ in self.definitions)
            if asked.method == "DELETE" and inside:
                raise ArmRefusalAnswer(409, "CannotDeleteResource", "Cannot delete resource before nested resources.")
            return self._plain_verbs(asked, self.galleries, (group, gallery))
        if (group, gallery) not in self.galleries:
            raise ArmRefusalAnswer(404, "ParentResourceNotFound", f"The gallery '{parts[1]}' was not found.")
        if len(parts) == 3:
            here = [one for (of, owner, _), one in self.definitions.items() if (of, owner) == (group, gallery)]
            return page_of(asked, here, self.page_size, lambda one: self._gallery_json(asked, one))
        key = (group, gallery, parts[3].lower())
        definition = self.definitions.get(key)
        if len(parts) == 4:
            if asked.method == "DELETE" and definition is not None and self._versions(definition):
                raise ArmRefusalAnswer(409, "CannotDeleteResource", "Cannot delete resource before nested resources.")
            return self._plain_verbs(asked, self.definitions, key)
        return self._version_verbs(asked, definition)

    def _version_verbs(self, asked: ArmAsked, definition: StoredResource | None) -> Response:
        parts = asked.parts
        if definition is None:
            raise ArmRefusalAnswer(404, "ParentResourceNotFound", "The image was not found.")
        held = self._versions(definition)
        if len(parts) == 5:
            return page_of(asked, list(held.values()), self.page_size, lambda one: self._gallery_json(asked, one))
        if asked.method != "PUT":
            return self._plain_verbs(asked, held, parts[5])
        error = self.endings.failures.pop("GalleryImageVersions_CreateOrUpdate", None)
        if error is not None:
            raise ArmRefusalAnswer(409, *error)
        source, before = (
            asked.content["properties"]["storageProfile"]["osDiskImage"]["source"]["id"],
            held.get(parts[5]),
        )
        if before is not None and before.properties["storageProfile"]["osDiskImage"]["source"]["id"] != source:
            raise ArmRefusalAnswer(409, "PropertyChangeNotAllowed", "Changing property 'osDiskImage' is not allowed.")
        disk = self._disk_of(source)
        said, wanted = disk.properties, definition.properties
        arch = said.get("supportedCapabilities", {}).get("architecture", wanted["architecture"])
        if (said.get("hyperVGeneration", "V1"), arch) != (wanted["hyperVGeneration"], wanted["architecture"]):
            _refuse("InvalidParameter", "The disk is of another generation or architecture than the image.")
        return self._plain_verbs(asked, held, parts[5], disk)

    def _versions(self, definition: StoredResource) -> dict[Any, StoredResource]:
        held: dict[Any, StoredResource] = definition.properties.setdefault("versions", {})
        return held

    def _plain_verbs(
        self,
        asked: ArmAsked,
        held: dict[Any, StoredResource],
        key: Any,  # noqa: ANN401  of ``held``
        disk: StoredResource | None = None,
    ) -> Response:
        """Make, tell and delete what has no rules of its own here; it may be a copy of a disk."""
        found, kind = held.get(key), "/".join(["Microsoft.Compute", *asked.parts[::2]])
        if asked.method == "DELETE":
            return arm_json(204, None) if found is None else self._forgotten(asked, held, key, f"{kind}/delete")
        if asked.method == "PUT":
            content = asked.content
            made = found or StoredResource(kind, asked.parts[-1], str(asked.group), content["location"], {}, {})
            made.tags, made.sku = dict(content.get("tags") or {}), content.get("sku")
            made.properties |= {**(content.get("properties") or {}), "provisioningState": "Creating"}
            held[key] = made
            error = self.endings.failures.pop(f"{kind}/write", None)
            if disk is not None:
                made.properties["size"] = disk.properties["diskSizeGB"]
                error = error or self.uploads.unfit(disk)

            def ended() -> None:
                gone = disk is not None and disk not in self.disks.values()
                made.properties["provisioningState"] = "Failed" if error is not None or gone else "Succeeded"
                if disk is not None:
                    made.properties["content"] = self.uploads.content(disk)

            return self.endings.begin(
                asked, self.namespace, ended, error=error, body=lambda: self._gallery_json(asked, made), status=201
            )
        if found is None:
            raise ArmRefusalAnswer(404, "ResourceNotFound", f"The Resource '{kind}/{asked.parts[-1]}' was not found.")
        return arm_json(200, self._gallery_json(asked, found))

    def _gallery_json(self, asked: ArmAsked, found: StoredResource) -> dict[str, Any]:
        """Return what is told; availability sets and placement groups tell no state of their making."""
        hidden = {"versions", "size", "content"} | (
            {"provisioningState"} if found.kind.rpartition("/")[2] in _PLACEMENTS else set()
        )
        path = found.kind.removeprefix("Microsoft.Compute/").split("/")
        names = [*asked.parts[1 : 2 * len(path) - 1 : 2], found.name]
        below = "/".join(f"{kind}/{name}" for kind, name in zip(path, names, strict=False))
        group = f"/subscriptions/{asked.subscription}/resourceGroups/{found.group}"
        content = {
            "id": f"{group}/providers/Microsoft.Compute/{below}",
            "name": found.name,
            "type": found.kind,
            "location": found.location,
            "tags": found.tags,
            "properties": {name: value for name, value in found.properties.items() if name not in hidden},
        }
        return content if found.sku is None else {**content, "sku": found.sku}

    def _market(self, asked: ArmAsked) -> Response:
        _, location, _, publisher, _, _, _, offer, _, sku, _, *version = asked.parts
        if f"{publisher}:{offer}:{sku}" not in IMAGES or version not in ([], [IMAGE_VERSION]):
            raise ArmRefusalAnswer(404, "NotFound", "Artifact: VMImage was not found.")
        told = {"name": IMAGE_VERSION, "location": location}
        return arm_json(200, told if version else [told])

    def _skus(self, asked: ArmAsked) -> Response:
        wanted = re.fullmatch(r"location eq '([^']+)'", asked.query.get("$filter", ""))
        if wanted is None or asked.group is not None:
            _refuse("InvalidParameter", "The double lists the sizes of one location.")
        here = [sku_json(each, wanted[1], each.name in self.closed) for each in SKUS]
        return page_of(asked, here, 25, lambda each: each)


class FeatureService:
    """Tells whether the subscription has registered a feature."""

    namespace = "Microsoft.Features"
    versions = frozenset({"2021-07-01"})

    def __init__(self, machines: MachineService) -> None:
        self._machines = machines

    def operation(self, method: str, parts: tuple[str, ...]) -> tuple[str, str]:  # noqa: ARG002  there is one
        """Name an operation and the action that it takes."""
        return "Features_Get", f"{self.namespace}/providers/features/read"

    def execute(self, asked: ArmAsked) -> Response:
        """Answer a request."""
        if asked.parts != ("providers", "Microsoft.Compute", "features", "EncryptionAtHost"):
            raise ArmRefusalAnswer(404, "FeatureNotFound", "The feature could not be found.")
        state = "Registered" if self._machines.registered else "NotRegistered"
        return arm_json(200, {"name": "Microsoft.Compute/EncryptionAtHost", "properties": {"state": state}})

    def reset(self) -> None:
        """There is nothing to forget."""


def _check_names(name: str, tags: Mapping[str, str], profile: Mapping[str, Any]) -> None:
    """Refuse names, tags, keys and data that Azure does not take."""
    linux = profile.get("linuxConfiguration") or {}
    keys = (linux.get("ssh") or {}).get("publicKeys") or ()
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(str(profile.get("computerName"))):
        _refuse("InvalidParameter", f"Linux host name {name} is invalid.")
    _check_tags(tags)
    if not keys and not profile.get("adminPassword"):
        _refuse("InvalidParameter", "Authentication using either SSH or by user name and password must be enabled.")
    if any(not _KEY.fullmatch(each["keyData"]) for each in keys):
        _refuse("InvalidParameter", "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid.")
    if profile.get("adminUsername") in _USERS:
        _refuse("InvalidParameter", "The Admin Username specified is not allowed.")
    if len(base64.b64decode(profile.get("customData") or "")) > _CUSTOM_DATA:
        _refuse("InvalidParameter", "Custom data exceeds the limit.")


def _check_tags(tags: Mapping[str, str]) -> None:
    """Refuse tags that Azure does not take."""
    if len(tags) > _TAGS or any(len(name) > _TAG_NAME or len(value) > _TAG for name, value in tags.items()):
        _refuse("InvalidTags", "There are too many tags, or one is too long.")
    if len({name.lower() for name in tags}) < len(tags):
        _refuse("DuplicateTagNames", "Tag names differ in more than upper and lower case.")
    if any(set(name) & set("<>%&\\?/") for name in tags):
        _refuse("InvalidTagNameCharacters", "A tag name has a reserved character.")


def _refuse(code: str, message: str, status: int = 400) -> NoReturn:
    raise ArmRefusalAnswer(status, code, message)


def _sku(size: str) -> StoredSku:
    found = next((one for one in SKUS if one.name.lower() == size.lower()), None)
    if found is None:
        _refuse("InvalidParameter", f"The value {size} provided for the VM size is not valid.")
    return found


def _cpus(machine: StoredMachine) -> int:
    size = machine.properties["hardwareProfile"]["vmSize"]
    return next(one.cpus for one in SKUS if one.name == size) if machine.power != "deallocated" else 0


def _short(id_: str) -> str:
    parts = same_id(id_).split("/")
    return f"/{parts[4]}/{parts[-1]}"
