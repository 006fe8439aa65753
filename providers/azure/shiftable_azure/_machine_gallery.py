"""Images of the resource group's own: those of the gallery, each with one version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

import attrs

from shiftable.compute.driver import Arch, Image
from shiftable_azure._arm import ArmRefusal, ArmSession, link_of
from shiftable_azure._machine_disks import image_told
from shiftable_azure._machine_ids import Ids
from shiftable_azure._machine_network import same_id
from shiftable_azure._machine_resources import GALLERIES_API, Resources, require_made
from shiftable_azure._machines import DISK_LABEL, GALLERY

__all__ = ["Gallery", "Generation", "OwnImage"]

Generation = Literal["V1", "V2"]
"""Of virtual machines: the first starts by BIOS, the second by UEFI."""

_FIRST = "1.0.0"  # and only version, of an image
_TRUSTED = {"name": "SecurityType", "value": "TrustedLaunchSupported"}


@attrs.frozen
class OwnImage:
    """What machines that are made of an image have to be like.

    Args:
        trusted: its boot loader is signed, so that machines may have trusted launch.
        disk_gib: of its disk, if that is known.
    """

    arch: Arch = "x86_64"
    generation: Generation = "V2"
    trusted: bool = False
    disk_gib: int | None = None

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> OwnImage:
        """Read an image of the gallery."""
        said, size = found.get("properties") or {}, str((found.get("tags") or {}).get(DISK_LABEL, ""))
        return cls(
            arch="arm64" if said.get("architecture") == "Arm64" else "x86_64",
            generation="V1" if said.get("hyperVGeneration") == "V1" else "V2",
            trusted=_TRUSTED in (said.get("features") or ()),
            disk_gib=int(size) if size.isdecimal() else None,
        )


@attrs.frozen
class Gallery:
    """Makes, tells and deletes images. The gallery is made with the first one, and deleted with the last."""

    _session: ArmSession
    _ids: Ids
    _resources: Resources

    def path(self, name: str) -> str:
        """Return the id of an image."""
        return f"{self._ids.gallery}/images/{quote(name, safe='')}"

    def found(self, path: str) -> Mapping[str, Any] | None:
        """Return an image, if there is one."""
        return self._resources.got(path, GALLERIES_API)

    def version(self, path: str) -> Mapping[str, Any] | None:
        """Return what it consists of, if that has been begun."""
        return self._resources.got(self.first(path), GALLERIES_API)

    def first(self, path: str) -> str:
        """Return the id of what it consists of."""
        return f"{path}/versions/{_FIRST}"

    def told(self, found: Mapping[str, Any]) -> Image:
        """Tell of an image of a listing."""
        path = self.path(str(found["name"]))
        return image_told(path, str(found["name"]), found, self.version(path))

    def image(self, id: str) -> Image:
        """Tell of an image. One that failed is an error."""
        path = self._ids.own_image(id)
        found, version = self._session.call("GET", path, GALLERIES_API).body, self.version(path)
        if version is not None:
            require_made(version, "the copy of the disk")
        return image_told(id, str(found["name"]), found, version)

    def of_machine(self, image: str) -> OwnImage | None:
        """Return what the gallery tells of the image of a machine; ``None``: it is no image of the gallery."""
        if f"/galleries/{GALLERY}/" not in image:
            return None
        path = image.partition("/versions/")[0]
        if same_id(path).rpartition("/")[0] != same_id(f"{self._ids.gallery}/images"):
            return OwnImage(trusted=True)  # of another resource group, where nobody has to be let in
        found = self.found(path)
        return OwnImage() if found is None else OwnImage.read(found)

    def begin(self, name: str, image: OwnImage, disk: str, labels: Mapping[str, str]) -> tuple[Image, str]:
        """Begin to copy a disk into an image that is not there; what Azure refuses leaves none.

        Returns the image, and where to ask how it ends, if Azure says.

        Args:
            disk: id.
            labels: of the image and of what it consists of.
        """
        location, path = self._ids.location, self.path(name)
        gallery = {"location": location, "tags": {"shiftable": "gallery"}, "properties": {}}
        self._resources.make_once(self._ids.gallery, GALLERIES_API, gallery, "the gallery")
        definition: dict[str, Any] = {
            "location": location,
            "tags": {"shiftable": "image", **labels} | ({DISK_LABEL: str(image.disk_gib)} if image.disk_gib else {}),
            "properties": {
                "osType": "Linux",
                "osState": "Generalized",  # else its machines get neither user nor keys
                "hyperVGeneration": image.generation,
                "architecture": "Arm64" if image.arch == "arm64" else "x64",
                "identifier": {"publisher": "shiftable", "offer": "machines", "sku": name},
                "features": [_TRUSTED] if image.trusted else [],
            },
        }
        self._resources.put(path, GALLERIES_API, definition, f"the image {name}")
        source = {"osDiskImage": {"source": {"id": disk}}}
        version = {"location": location, "tags": dict(labels), "properties": {"storageProfile": source}}
        try:
            answer = self._session.call("PUT", self.first(path), GALLERIES_API, body=version)
        except ArmRefusal as exc:
            if not exc.doubtful and self.version(path) is None:
                self.delete(path)
            raise
        return image_told(path, name, definition, None), link_of(answer) or ""

    def delete(self, path: str) -> None:
        """Delete an image with its versions, and the gallery with the last one. One that is gone is no error."""
        if self.found(path) is not None:
            for version in list(self._resources.items(f"{path}/versions", GALLERIES_API)):
                self._resources.delete(f"{path}/versions/{version['name']}")
            self._resources.delete(path)
        gallery = self._resources.got(self._ids.gallery, GALLERIES_API)
        ours = gallery is not None and (gallery.get("tags") or {}).get("shiftable") == "gallery"
        if ours and not list(self._resources.items(f"{self._ids.gallery}/images", GALLERIES_API)):
            self._resources.delete(self._ids.gallery)
