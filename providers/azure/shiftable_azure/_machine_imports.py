"""Images that are imported into the gallery: a disk is made by upload, Azure fills it from a blob, and copies it.

All that has to be known stands at Azure, so that any process goes on. The disk is named by the token; it has the blob's
ETag in a tag, which every write is bound to, and says itself what was written to it. Writes come in order, so that the
footer of the VHD is the last: Azure ends the access to a disk only when it has one, and a disk without access is
complete. The image and its version have the token in a tag.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError

from shiftable.compute.driver import GIB, IMPORT_LABEL, Debris, DiskImage, Image
from shiftable.errors import InvalidArgument
from shiftable_azure._arm import ArmRefusal, ArmSession, is_running
from shiftable_azure._flexible import moment
from shiftable_azure._machine_disks import image_told
from shiftable_azure._machine_gallery import Gallery, OwnImage
from shiftable_azure._machine_ids import Ids
from shiftable_azure._machine_resources import (
    DISKS_API,
    GALLERIES_API,
    PATIENCE,
    Resources,
    is_complete,
    provisioning,
    stamp,
)
from shiftable_azure._machine_resources import code_of as arm_code_of
from shiftable_azure._machines import CREATED_LABEL, IMAGE_LABEL
from shiftable_azure.errors import ArmFailure, classify_compute, code_of

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

    from shiftable_azure._session import Session

__all__ = ["Imports"]

SOURCE_LABEL = "shiftable-source"
"""The tag of a disk that is filled, with the ETag of what it is filled from."""

_DISK, _IMAGE = "imported disk", "imported image"
_NAME_RULE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9])?")  # naming rules: galleries/images

_MIB = 1024**2
_FOOTER = 512  # bytes, behind the disk; Microsoft, Virtual Hard Disk Image Format Specification
_COOKIE, _FIXED = b"conectix", 2
_SMALLEST, _LARGEST = 20 * _MIB, 32 * 1024 * GIB  # REST reference, Disks: CreationData.uploadSizeBytes, less the footer
_CHUNK = 4 * _MIB  # REST reference, Put Page From URL: what one call writes
_STEP = 60.0  # seconds of writing, then whoever waits looks at his watch; his pauses are up to 15
_ACCESS = 86_400  # seconds; whatever takes longer asks again
_REFUSED = {403, 404}  # a signature that is over, a disk that is gone


@attrs.define
class _Work:
    """What this process knows of an import that it has begun or goes on with.

    Attributes:
        url: for writing to the disk; signed, so a secret.
        left: where what is still to be written begins, in order.
        link: where to ask how the copying to the gallery ends; empty, if Azure did not say.
        turn: of the thread that takes a step.
    """

    url: str | None = attrs.field(default=None, repr=False)
    left: deque[int] | None = attrs.field(default=None, repr=False)
    link: str | None = None
    turn: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)


@attrs.frozen
class _Asked:
    """One import.

    Args:
        path: id of the image.
        disk: id of the disk.
    """

    name: str
    source: DiskImage
    token: str
    path: str
    disk: str

    def is_own(self, found: Mapping[str, Any]) -> bool:
        """Tell whether this import has made something."""
        return bool((found.get("tags") or {}).get(IMPORT_LABEL) == self.token)


@attrs.define(eq=False)
class Imports:
    """Takes the steps of imports, and finds what was left of them.

    Args:
        storage: returns the session of the storage account.
    """

    _session: ArmSession
    _ids: Ids
    _resources: Resources
    _gallery: Gallery
    _storage: Callable[[], Session]
    _works: dict[str, _Work] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def go_on(self, name: str, source: DiskImage, token: str) -> Image:
        """Take the step that is due, and return the image as it is then."""
        if not _NAME_RULE.fullmatch(name):
            why = "names of images are 1 to 80 letters, digits, ., _ and -, with a letter or a digit at both ends"
            raise ArmFailure("InvalidParameter", why)
        asked = _Asked(name, source, token, self._gallery.path(name), self._ids.disk(f"shiftable-{token}"))
        image = self._gallery.found(asked.path)
        version = None if image is None else self._gallery.version(asked.path)
        if not all(asked.is_own(found) for found in (version, image) if found is not None):
            if version is None or not asked.is_own(version):  # else it is being made of that disk
                self._clear(asked)
            raise ArmFailure("GalleryImageAlreadyExists", f"there is an image {name!r} that was made of something else")
        if image is not None and version is not None:
            return self._seen(asked, image, version)
        disk, work = self._resources.got(asked.disk, DISKS_API), self._works.get(token)
        if work is not None and (disk is None or work.link is not None):
            if self._gallery.version(asked.path) is None:  # nor has another thread made it meanwhile
                self._clear(asked)
                raise ArmFailure("ResourceNotFound", "somebody deleted it while it was made")
        elif disk is None:
            self._begin(asked)
        else:
            self._advance(asked, disk, work or self._watch(token))
        return Image(id=asked.path, name=name, arch=source.arch, own=True, ready=False)

    def left(self) -> Iterator[Debris]:
        """Yield images of imports that are no images, then disks of imports of which none is just being made."""
        busy = set[str]()
        for image in self._images():
            path = self._gallery.path(str(image["name"]))
            version = self._gallery.version(path)
            if version is None or provisioning(version) == "failed":
                yield _debris(_IMAGE, path, image, str(image["name"]))
            elif not is_complete(version):
                busy.add(str(image["tags"][IMPORT_LABEL]))
        for disk in self._resources.items(self._ids.path("Microsoft.Compute/disks"), DISKS_API):
            tags = disk.get("tags") or {}
            if IMPORT_LABEL in tags and tags[IMPORT_LABEL] not in busy:
                name = str(tags.get(IMAGE_LABEL) or disk["name"])
                yield _debris(_DISK, self._ids.disk(str(disk["name"])), disk, name)

    def delete(self, debris: Debris) -> bool:
        """Delete what was left of an import; ``False``: it is of something else."""
        if debris.kind == _DISK:
            self._discard(debris.id)
        elif debris.kind == _IMAGE:
            self._gallery.delete(debris.id)
        return debris.kind in {_DISK, _IMAGE}

    # the steps

    def _begin(self, asked: _Asked) -> None:
        """Make a disk for a blob that is the image of one."""
        source = asked.source
        blob = self._storage().blobs.get_blob_client(source.bucket, source.key)
        try:
            told = blob.get_blob_properties()
        except HttpResponseError as exc:
            if exc.status_code != 404:
                raise
            text = f"there is no blob {source.key!r} in the container {source.bucket!r}"
            raise ArmFailure("InvalidParameter", text) from exc
        etag, size = str(told.etag).strip('"'), int(told.size)
        if source.version not in {"", etag}:
            raise _changed(asked)
        footer = (
            b""
            if size < _FOOTER
            else blob.download_blob(
                size - _FOOTER, _FOOTER, etag=f'"{etag}"', match_condition=MatchConditions.IfNotModified
            ).readall()
        )
        why = _unfit(footer, size)
        if why is not None:
            raise ArmFailure("InvalidVhd", f"{source.key!r} {why}; `shiftable compute convert` writes what Azure takes")
        properties: dict[str, Any] = {
            "osType": "Linux",
            "hyperVGeneration": _generation(source),
            "creationData": {"createOption": "Upload", "uploadSizeBytes": size},
        }
        if source.arch == "arm64":
            properties["supportedCapabilities"] = {"architecture": "Arm64"}
        tags = {IMPORT_LABEL: asked.token, IMAGE_LABEL: asked.name, SOURCE_LABEL: etag, CREATED_LABEL: stamp()}
        body = {
            "location": self._ids.location,
            "sku": {"name": "Standard_LRS"},  # the cheapest: it is read once
            "tags": tags,
            "properties": properties,
        }
        self._resources.put(asked.disk, DISKS_API, body, f"the disk of the image {asked.name}")
        self._watch(asked.token)

    def _advance(self, asked: _Asked, disk: Mapping[str, Any], work: _Work) -> None:
        """Write to a disk, or copy it, unless another thread does."""
        state = disk["properties"].get("diskState")
        if provisioning(disk) == "failed":
            self._clear(asked)
            raise ArmFailure("InternalOperationError", f"Azure could not make a disk for {asked.source.key!r}")
        if not is_complete(disk) or not work.turn.acquire(blocking=False):
            return
        try:
            if state in {"ReadyToUpload", "ActiveUpload"}:
                self._write(asked, disk, work)
            elif state == "Unattached":
                self._copy(asked, disk, work)
        finally:
            work.turn.release()

    def _write(self, asked: _Asked, disk: Mapping[str, Any], work: _Work) -> None:
        """Have Azure write to a disk for a while, and end the access when all is written."""
        known = work.url
        work.url = known or self._granted(asked.disk)
        try:
            with self._storage().signed_blob(work.url) as blob:
                is_written = self._write_pages(asked, disk, work, blob)
        except HttpResponseError as exc:
            if _is_gone(exc):
                self._clear(asked)
                raise _changed(asked) from exc
            if known is None or exc.status_code not in _REFUSED or code_of(exc) == "CannotVerifyCopySource":
                raise
            work.url = None  # the next step asks for another signature
            return
        if is_written:
            try:
                self._end_access(asked.disk)
            except (ArmFailure, ArmRefusal) as exc:
                if _code(exc) == "InvalidVhd":
                    self._clear(asked)
                raise

    def _write_pages(self, asked: _Asked, disk: Mapping[str, Any], work: _Work, blob: BlobClient) -> bool:
        """Write what is left, in order, until it is time to stop; tell whether nothing is left.

        The URL of the source is signed: a disk is in an account of Azure's own, which gets no token of ours.
        """
        source, etag = asked.source, str((disk.get("tags") or {}).get(SOURCE_LABEL))
        size = int(disk["properties"]["creationData"]["uploadSizeBytes"])
        if work.left is None:
            is_new = disk["properties"]["diskState"] == "ReadyToUpload"
            work.left = _left(() if is_new else _written(blob), size)
        url, deadline = self._storage().readable(source.bucket, source.key), self._session.clock() + _STEP
        while work.left:
            at = work.left[0]
            blob.upload_pages_from_url(
                url,
                at,
                min(_CHUNK, size - at),
                at,
                source_etag=f'"{etag}"',
                source_match_condition=MatchConditions.IfNotModified,
            )
            work.left.popleft()
            if self._session.clock() >= deadline:
                break
        return not work.left

    def _copy(self, asked: _Asked, disk: Mapping[str, Any], work: _Work) -> None:
        """Begin to copy a disk into the gallery. What Azure makes no image of is deleted."""
        size, source = int(disk["properties"]["creationData"]["uploadSizeBytes"]), asked.source
        image = OwnImage(
            arch=source.arch, generation=_generation(source), disk_gib=-(-(size - _FOOTER) // GIB)
        )  # whether its boot loader is signed, nobody knows
        labels = {IMPORT_LABEL: asked.token, CREATED_LABEL: stamp()}
        try:
            work.link = self._gallery.begin(asked.name, image, asked.disk, labels)[1]
        except ArmRefusal as exc:
            fault = classify_compute(exc)
            if fault is not None and issubclass(fault.error, InvalidArgument) and not exc.doubtful:
                self._clear(asked)
            raise

    def _seen(self, asked: _Asked, image: Mapping[str, Any], version: Mapping[str, Any]) -> Image:
        """Tell of an image that is there or being made. One that failed is deleted."""
        if provisioning(version) == "failed":
            why = self._why(asked)
            self._gallery.delete(asked.path)
            self._clear(asked)
            raise why
        if is_complete(version):
            self._clear(asked)
        return image_told(asked.path, asked.name, image, version)

    def _why(self, asked: _Asked) -> ArmFailure:
        """Return what the copying ended with, which Azure tells to who has begun it."""
        work, what = self._works.get(asked.token), f"the image of {asked.source.key!r}"
        try:
            if work is not None and work.link:
                is_running(self._session.call("GET", work.link, GALLERIES_API), what)
        except ArmFailure as exc:
            return exc
        return ArmFailure("ImageNotSupported", f"Azure could not make {what}, and does not say why")

    # what they share

    def _watch(self, token: str) -> _Work:
        with self._lock:
            return self._works.setdefault(token, _Work())

    def _clear(self, asked: _Asked) -> None:
        """Delete the disk, and forget the import."""
        self._discard(asked.disk)
        with self._lock:
            self._works.pop(asked.token, None)

    def _granted(self, disk: str) -> str:
        """Return the URL for writing to a disk; whoever has one already keeps it."""
        body = {"access": "Write", "durationInSeconds": _ACCESS}
        answer = self._session.call("POST", f"{disk}/beginGetAccess", DISKS_API, body=body, repeat=True)
        told = self._session.result(answer, DISKS_API, what="the access to the disk", timeout=PATIENCE)
        url = str(told.get("accessSAS") or "")
        if urlsplit(url).scheme != "https" and urlsplit(url).hostname != "127.0.0.1":
            raise ArmFailure("ForeignLink", "Azure names a disk that is not reached by https")
        return url

    def _end_access(self, disk: str) -> None:
        answer = self._session.call("POST", f"{disk}/endGetAccess", DISKS_API, repeat=True)
        self._session.finish(answer, DISKS_API, what="the end of the access to the disk", timeout=PATIENCE)

    def _discard(self, path: str) -> None:
        """Delete a disk if it is there; of one that may be written to, the access has to be ended first."""
        disk = self._resources.got(path, DISKS_API)
        if disk is None:
            return
        if disk["properties"].get("diskState") == "ActiveUpload":
            try:
                self._end_access(path)
            except (ArmFailure, ArmRefusal) as exc:
                if _code(exc) != "InvalidVhd":  # it is not complete, which is known
                    raise
        self._resources.delete(path)

    def _images(self) -> Iterator[Mapping[str, Any]]:
        """Yield the images of imports, if there is a gallery."""
        if self._resources.got(self._ids.gallery, GALLERIES_API) is None:
            return
        for image in self._resources.items(f"{self._ids.gallery}/images", GALLERIES_API):
            if IMPORT_LABEL in (image.get("tags") or {}):
                yield image


def _generation(source: DiskImage) -> Any:  # noqa: ANN401  a literal
    return "V2" if source.firmware == "uefi" else "V1"


def _unfit(footer: bytes, size: int) -> str | None:
    """Say why Azure would not take an object, of whose end and size it would know hours later."""
    if not footer.startswith(_COOKIE):
        return "is no VHD: it does not end with the footer of one"
    kind, disk = int.from_bytes(footer[60:64], "big"), int.from_bytes(footer[48:56], "big")
    if kind != _FIXED:
        return "is a VHD, but none of a fixed size"
    if disk != size - _FOOTER:
        return (
            f"is cut off, or there is more in it: its footer tells of {disk:,} bytes, and {size - _FOOTER:,} are there"
        )
    if disk % _MIB or not _SMALLEST <= disk <= _LARGEST:
        return f"has {disk:,} bytes; Azure takes disks of whole MiB, of 20 MiB to 32 TiB"
    return None


def _written(blob: BlobClient) -> Sequence[tuple[int, int]]:
    """Return the first and the last byte of each part that is written. Nothing, where Azure does not tell."""
    try:
        return [(int(each.start or 0), int(each.end or 0)) for each in blob.list_page_ranges()]
    except HttpResponseError as exc:
        if code_of(exc) == "AuthenticationFailed" or (exc.status_code or 500) >= 500:
            raise
        return ()


def _left(written: Iterable[tuple[int, int]], size: int) -> deque[int]:
    """Return where what is still to be written begins."""
    done = set[int]()
    for start, end in written:
        first = -(-start // _CHUNK) * _CHUNK
        done.update(at for at in range(first, end + 1, _CHUNK) if min(at + _CHUNK, size) <= end + 1)
    return deque(at for at in range(0, size, _CHUNK) if at not in done)


def _is_gone(exc: HttpResponseError) -> bool:
    """Tell whether a copy was refused since its source is missing, or another by now."""
    code = code_of(exc)
    return code == "SourceConditionNotMet" or (code == "CannotVerifyCopySource" and exc.status_code in {404, 412})


def _changed(asked: _Asked) -> ArmFailure:
    why = f"{asked.source.key!r} is another object by now, or gone; import that"
    return ArmFailure("SourceConditionNotMet", why)


def _code(exc: AzureError) -> str:
    return arm_code_of(exc) if isinstance(exc, ArmRefusal) else str(getattr(exc, "code", ""))


def _debris(kind: str, path: str, found: Mapping[str, Any], name: str) -> Debris:
    return Debris(id=path, kind=kind, name=name, created=moment((found.get("tags") or {}).get(CREATED_LABEL)))
