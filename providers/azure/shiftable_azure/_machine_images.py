"""Whether there is an image, before anything is made of it or deleted for its sake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from shiftable.compute.driver import ALIASES, Arch
from shiftable_azure._arm import ArmRefusal
from shiftable_azure._machine_resources import COMPUTE_API, Resources, version_of
from shiftable_azure._machines import image_reference
from shiftable_azure.errors import ArmFailure

__all__ = ["require_image"]

_FORBIDDEN = 403
_GALLERY = re.compile(r".+/galleries/[^/]+/images/[^/]+", re.IGNORECASE)
_ID = re.compile(r"/subscriptions/[\w-]+/resourceGroups/[\w.()-]+/providers/[\w.]+(/\w+/[\w.-]+)+", re.IGNORECASE)


def require_image(resources: Resources, location: str, image: str, arch: Arch) -> None:
    """Refuse an image that there is not, or is not ready; of what others share or may not be read Azure tells later.

    Raises:
        ArmFailure: there is none, it is not ready, or what is said is no image.
    """
    if image in ALIASES:
        return
    reference, query = image_reference(image, arch), None
    if "version" in reference:
        names = {name: quote(part, safe="") for name, part in reference.items()}
        path = (
            f"{resources.session.subscription}/providers/Microsoft.Compute/locations/{location}"
            f"/publishers/{names['publisher']}/artifacttypes/vmimage/offers/{names['offer']}/skus/{names['sku']}/versions"
        )
        version = COMPUTE_API
        if names["version"] == "latest":
            query = {"$top": "1"}
        else:
            path = f"{path}/{names['version']}"
    elif "id" in reference:
        if not _ID.fullmatch(image):
            raise ArmFailure("InvalidParameter", f"{image!r} is the id of no image")
        path, version = reference["id"], version_of(reference["id"])
    else:
        return
    try:
        found = resources.got(path, version, query)
        ready = found is None or "id" not in reference or _is_ready(resources, path, found)
    except ArmRefusal as exc:
        if exc.status_code != _FORBIDDEN:
            raise
        return
    if found is None:
        raise ArmFailure("PlatformImageNotFound", f"there is no image {image!r} in {location}")
    if not ready:
        raise ArmFailure("Conflict", f"image {image!r} is not ready; try again when it is")


def _is_ready(resources: Resources, path: str, found: Mapping[str, Any]) -> bool:
    """Tell whether machines can be made of it: of an image of a gallery, if one of its versions is there."""
    if not _GALLERY.fullmatch(path):
        return _is_made(found)
    return any(_is_made(version) for version in resources.items(f"{path}/versions", version_of(path)))


def _is_made(found: Mapping[str, Any]) -> bool:
    return found.get("properties", {}).get("provisioningState", "Succeeded") in {"Succeeded", "Updating"}
