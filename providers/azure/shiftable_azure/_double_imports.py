"""Disks that are made by upload: who may write to them and how long, and what is refused of what was written.

Azure states the states of such a disk, the size that it takes and that it is written as a page blob. That the footer of
a VHD is looked at when the access ends, and the code for it, is as its clients were shown; so is that nothing is made
of a disk that is still written to. That access can be granted again meanwhile, and that a disk with access is not
deleted before that was ended, are assumptions.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs
from weakref import WeakKeyDictionary

import attrs

from shiftable.testing.harness import Headers, Request, Response
from shiftable_azure._double_arm import ArmAsked, ArmRefusalAnswer, arm_json
from shiftable_azure._double_blob import BlobService
from shiftable_azure._double_network import Endings, StoredResource
from shiftable_azure._double_wire import Refusal, answer, element, refused

__all__ = ["UPLOADS", "DiskUploads"]

UPLOADS = "/md-impexp/"
"""Where disks are written to, which is no matter of Resource Manager."""

_PAGE, _MIB, _GIB = 512, 1024**2, 1024**3
_SIZES = range(20 * _MIB + _PAGE, 32 * 1024 * _GIB + _PAGE + 1)  # REST reference, Disks: CreationData.uploadSizeBytes
_MOST = 4 * _MIB  # REST reference, Put Page From URL
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_FIXED = 2


@attrs.define
class _Upload:
    """What is written to one disk, and until when it may be.

    Attributes:
        pages: where each write begins, and what was written.
        ended: somebody has ended the access, or tried to.
    """

    signature: str
    until: datetime
    pages: dict[int, bytes] = attrs.field(factory=dict)
    ended: bool = False

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the first and the last byte of what is written, in one piece where it is."""
        start = end = None
        for at, content in sorted(self.pages.items()):
            if end is not None and start is not None and at > end:
                yield start, end - 1
                start = None
            start = at if start is None else start
            end = max(end or 0, at + len(content))
        if start is not None and end is not None:
            yield start, end - 1


class DiskUploads:
    """Executes requests for the access to disks, and for the page blobs that they are then.

    Attributes:
        sparse: pages of zeros are not told to be written. Whether Azure tells them is stated nowhere.
        tells: ranges are told at all.
        page_size: the most that a listing of ranges has in one page.
    """

    def __init__(self, endings: Endings, blobs: BlobService, url: Callable[[], str]) -> None:
        self._endings = endings
        self._blobs = blobs
        self._url = url
        self._all: WeakKeyDictionary[StoredResource, _Upload] = WeakKeyDictionary()
        self._disks: dict[str, StoredResource] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what was written."""
        self._all.clear()
        self._disks.clear()
        self.sparse = False
        self.tells = True
        self.page_size = 1000

    def content(self, disk: StoredResource) -> bytes:
        """Return what was written to a disk, up to the last page; nothing, of one that was not made by upload."""
        upload = self._all.get(disk)
        pages = {} if upload is None else upload.pages
        made = bytearray(max((at + len(content) for at, content in pages.items()), default=0))
        for at, content in pages.items():
            made[at : at + len(content)] = content
        return bytes(made)

    # Resource Manager

    def size_of(self, said: Mapping[str, Any]) -> int:
        """Return how large a disk is going to be, in GiB; refuse what cannot be uploaded."""
        size = said["creationData"].get("uploadSizeBytes")
        if type(size) is not int or size not in _SIZES or "diskSizeGB" in said:
            message = f"The value '{size}' of parameter 'creationData.uploadSizeBytes' is not valid."
            raise ArmRefusalAnswer(400, "InvalidParameter", message)
        return -(-(size - _PAGE) // _GIB)

    def again(self, found: StoredResource, said: Mapping[str, Any], told: Callable[[], Any]) -> Response:
        """Answer to who makes a disk again: it stays as it is."""
        if found.properties["creationData"] != said["creationData"]:
            raise ArmRefusalAnswer(409, "PropertyChangeNotAllowed", "Changing 'creationData' is not allowed.")
        return arm_json(200, told())

    def act(self, asked: ArmAsked, disk: StoredResource) -> Response:
        """Grant or end access."""
        verb = asked.parts[2]
        if asked.method != "POST" or verb not in {"beginGetAccess", "endGetAccess"}:
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The resource type could not be found.")
        return self._granted(asked, disk) if verb == "beginGetAccess" else self._ended(asked, disk)

    def check_idle(self, disk: StoredResource) -> None:
        """Refuse to delete a disk that somebody may write to."""
        upload = self._all.get(disk)
        if disk.properties["diskState"] == "ActiveUpload" and upload is not None and not upload.ended:
            message = f"There is an active shared access signature outstanding for disk {disk.name}. Call EndGetAccess"
            raise ArmRefusalAnswer(409, "OperationNotAllowed", f"{message} on the disk before deleting the disk.")

    def unfit(self, disk: StoredResource) -> tuple[str, str] | None:
        """Return how the making of an image of a disk ends that is still uploaded."""
        uploading = disk.properties["diskState"] in {"ReadyToUpload", "ActiveUpload"}
        return ("InternalExecutionError", "An internal execution error occurred.") if uploading else None

    def _granted(self, asked: ArmAsked, disk: StoredResource) -> Response:
        said, wanted = disk.properties, asked.content
        if wanted.keys() != {"access", "durationInSeconds"} or wanted["access"] not in {"Read", "Write"}:
            raise ArmRefusalAnswer(400, "InvalidParameter", "access and durationInSeconds are required.")
        if said.get("networkAccessPolicy") == "DenyAll" or said["provisioningState"] != "Succeeded":
            raise ArmRefusalAnswer(
                409, "OperationNotAllowed", "The disk's networkAccessPolicy is DenyAll, or it is busy."
            )
        if wanted["access"] != "Write" or said["diskState"] not in {"ReadyToUpload", "ActiveUpload"}:
            message = f"Disk {disk.name} is in state {said['diskState']}, in which it has no such access."
            raise ArmRefusalAnswer(409, "OperationNotAllowed", message)
        until = self._endings.clock.now() + timedelta(seconds=wanted["durationInSeconds"])

        def ended() -> None:
            said["diskState"] = "ActiveUpload"
            upload = self._all.setdefault(disk, _Upload(secrets.token_hex(16), until))
            upload.until, upload.ended = max(upload.until, until), False
            self._disks[f"{disk.group}.{disk.name}".lower()] = disk

        def result() -> Any:  # noqa: ANN401  JSON
            place = f"{UPLOADS}{disk.group}.{disk.name}/abcd".lower()
            signed = f"sv=2018-03-28&sr=b&si=a&sig={self._all[disk].signature}"
            return {"accessSAS": f"{self._url()}{place}?{signed}"}

        return self._endings.begin(asked, "Microsoft.Compute", ended, result=result)

    def _ended(self, asked: ArmAsked, disk: StoredResource) -> Response:
        said, upload = disk.properties, self._all.get(disk)
        if said["diskState"] == "ActiveUpload" and upload is not None:
            upload.ended = True
            self._check_footer(disk, upload)

        def ended() -> None:
            if said["diskState"] == "ActiveUpload":
                said["diskState"] = "Unattached"

        return self._endings.begin(asked, "Microsoft.Compute", ended)

    def _check_footer(self, disk: StoredResource, upload: _Upload) -> None:
        size = disk.properties["creationData"]["uploadSizeBytes"]
        last = next((content for at, content in upload.pages.items() if at + len(content) == size), b"")
        footer = last[-_PAGE:].ljust(_PAGE, b"\0")
        if footer[:8] != b"conectix":
            message = (
                f"The specified cookie value in VHD footer indicates that disk '{disk.name}' is not a supported VHD."
            )
            raise ArmRefusalAnswer(400, "InvalidVhd", f"{message} Disk is expected to have cookie value 'conectix'.")
        disk_size, kind = int.from_bytes(footer[48:56], "big"), int.from_bytes(footer[60:64], "big")
        if kind != _FIXED or disk_size != size - _PAGE or disk_size % _MIB:
            raise ArmRefusalAnswer(400, "InvalidVhd", "The VHD is not of a fixed size, or its size is not whole MiB.")

    # page blobs

    def operation(self, request: Request) -> str:
        """Name the operation."""
        names = {("PUT", "page"): "PutPageFromURL", ("GET", "pagelist"): "GetPageRanges"}
        return names.get((request.method, _query(request).get("comp", "")), "")

    def execute(self, request: Request) -> Response:
        """Answer a request for the page blob of a disk; it takes few."""
        try:
            disk, upload = self._permitted(request)
            operation = self.operation(request)
            if operation == "GetPageRanges" and self.tells:
                return self._ranges(request, upload)
            if operation == "PutPageFromURL" and "x-ms-copy-source" in request.headers:
                return self._put(request, disk, upload)
        except Refusal as refusal:
            return refused(refusal)
        return refused(Refusal(403, "FeatureNotSupportedForAccount", "A managed disk does not support the operation."))

    def _permitted(self, request: Request) -> tuple[StoredResource, _Upload]:
        disk = self._disks.get(request.path.removeprefix(UPLOADS).partition("/")[0])
        upload = None if disk is None else self._all.get(disk)
        if disk is None or upload is None or disk.properties["diskState"] != "ActiveUpload" or upload.ended:
            raise Refusal(403, "AuthenticationFailed", "Server failed to authenticate the request.")
        if "Authorization" in request.headers or _query(request).get("sig") != upload.signature:
            raise Refusal(403, "AuthenticationFailed", "Server failed to authenticate the request.")
        if self._endings.clock.now() >= upload.until:
            raise Refusal(403, "AuthenticationFailed", "Signature not valid in the specified time frame.")
        return disk, upload

    def _ranges(self, request: Request, upload: _Upload) -> Response:
        kept = {at: one for at, one in upload.pages.items() if any(one)} if self.sparse else upload.pages
        found = list(attrs.evolve(upload, pages=kept).ranges())
        start = int(_query(request).get("marker") or 0)
        here = found[start : start + self.page_size]
        told = "".join(f"<PageRange>{element('Start', at)}{element('End', end)}</PageRange>" for at, end in here)
        more = str(start + len(here)) if start + len(here) < len(found) else ""
        body = f'<?xml version="1.0" encoding="utf-8"?><PageList>{told}<NextMarker>{more}</NextMarker></PageList>'
        return answer(200, {}, body.encode(), "application/xml")

    def _put(self, request: Request, disk: StoredResource, upload: _Upload) -> Response:
        headers: Headers = request.headers
        start, end = _bounds(headers.get("x-ms-range") or headers.get("Range", ""))
        first, last = _bounds(headers.get("x-ms-source-range", ""))
        size = disk.properties["creationData"]["uploadSizeBytes"]
        if end - start != last - first or start % _PAGE or (end + 1) % _PAGE or end >= size:
            raise Refusal(416, "InvalidPageRange", "The page range specified is invalid.")
        if headers.get("x-ms-page-write") != "update" or "Content-MD5" in headers or end - start >= _MOST:
            raise Refusal(
                400, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format."
            )
        content = self._blobs.source(headers).content
        if last >= len(content):
            raise Refusal(416, "InvalidRange", "The range specified is invalid for the source.")
        upload.pages[start] = content[first : last + 1]
        return answer(201, {"ETag": '"0x8DD0"', "Last-Modified": "Mon, 01 Jan 2029 00:00:00 GMT"})


def _query(request: Request) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(request.query, keep_blank_values=True).items()}


def _bounds(text: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise Refusal(400, "InvalidHeaderValue", f"{text!r} is no range")
    return int(found[1]), int(found[2])
