"""The volumes of a storage pool, whose names say what they are: a volume has no labels.

    shiftable.machine.web-0.<uuid>.disk      what differs from the image; and .seed, .console
    shiftable.base.<digest>.1a2b3c4d         an image, a kernel or a RAM disk that was uploaded
    shiftable.image.golden                   an image of a machine, or of an object, which is below it:
    shiftable.import.<token>.1a2b3c4d.golden as much of an object as was read
    shiftable.disk.1a2b3c4d.data             a disk that outlives machines
    shiftable.snapshot.1a2b3c4d.daily        what was on one
    shiftable.whole.base.<digest>.1a2b3c4d   says that what it is named after is complete, machines' excepted

A name in a pool is given once, so it is what two that make the same compete for. What no machine has, or is not
complete, is debris.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import attrs

from shiftable.compute.driver import GIB
from shiftable.errors import AlreadyExists, Conflict, Fault, IntegrityError, InvalidArgument, NotFound, OperationError
from shiftable_baremetal import _libvirt_xml as xml
from shiftable_baremetal._disk_images import QCOW2_HEAD, Origin, qcow2_size
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._libvirt_errors import NO_POOL, NO_VOLUME, classify, code_of, not_active
from shiftable_baremetal._libvirt_session import Session
from shiftable_baremetal._qemu_images import Base

__all__ = ["Item", "Volumes", "item_of", "machine_of", "virtual_size"]

_OURS, _WHOLE, _MACHINE, _BASE = "shiftable.", "shiftable.whole.", "shiftable.machine.", "shiftable.base."
_ITEM = re.compile(r"shiftable\.(disk|snapshot)\.([0-9a-f]{8})\.(.*)", re.DOTALL)
_OF_MACHINE = re.compile(r"shiftable\.machine\.([a-z0-9-]+)\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\..+")
_IMAGE, _IMPORT = "shiftable.image.", "shiftable.import."
_OF_IMPORT = re.compile(r"shiftable\.import\.(?P<token>[0-9a-f-]{36})\.[0-9a-f]{8}\.(?P<image>.+)")
_BUSY = re.compile("volume .* is still (in use|being allocated)")  # by somebody else
_INACTIVE = 1  # virConnectListAllStoragePoolsFlags
_MOMENT, _STEP = 5.0, 0.05  # seconds
_LONGEST = 255  # bytes of a file's name


@attrs.frozen
class Item:
    """A disk that outlives machines, or a snapshot of one, as its volume's name tells."""

    kind: str
    id: str
    name: str

    @property
    def volume(self) -> str:
        """The name of its volume."""
        return f"{_OURS}{self.kind}.{self.id.rpartition('-')[2]}.{quote(self.name, safe=' ')}"


def item_of(volume: str) -> Item | None:
    """Return what a volume is by its name or path; ``None`` if it is neither disk nor snapshot."""
    found = _ITEM.fullmatch(volume.rpartition("/")[2])
    if found is None:
        return None
    return Item(found[1], f"{'disk' if found[1] == 'disk' else 'snap'}-{found[2]}", unquote(found[3]))


def machine_of(volume: str) -> tuple[str, str] | None:
    """Return name and id of the machine that a volume was made for; ``None`` for other volumes."""
    found = _OF_MACHINE.fullmatch(volume)
    return None if found is None else (found[1], found[2])


@attrs.frozen
class Volumes:
    """The volumes of one pool that are ours."""

    session: Session
    pool: str
    _uploading: threading.Lock = attrs.field(factory=threading.Lock, eq=False, repr=False)

    def names(self) -> list[str]:
        """Return the names of all that are ours, in order."""
        return sorted(name for each in self._pool.listAllVolumes(0) if (name := each.name()).startswith(_OURS))

    def whole(self, kind: str) -> list[str]:
        """Return the names of those of a kind that are complete, in order."""
        names = set(self.names())
        begin = f"{_OURS}{kind}."
        return sorted(name for name in names if name.startswith(begin) and _mark_of(name) in names)

    def find(self, name: str) -> Any:  # noqa: ANN401  libvirt has no types
        """Return a volume."""
        return self._pool.storageVolLookupByName(name)

    def size(self, name: str) -> int:
        """Return how many bytes the disk in a volume has."""
        return int(self.find(name).info()[1])

    def written(self, name: str) -> float | None:
        """Return when a volume was written to the last time; ``None`` if that is not told or it is gone."""
        try:
            return xml.read_written(self.find(name).XMLDesc(0))
        except Exception as exc:
            if code_of(exc) != NO_VOLUME:
                raise
            return None

    def remove(self, name: str) -> None:
        """Delete a volume. One that is gone is no error."""
        try:
            self.find(name).delete(0)
        except Exception as exc:
            if code_of(exc) != NO_VOLUME:
                raise

    # machines

    def make(self, machine: str, id: str, part: str, size: int, **more: Any) -> str:  # noqa: ANN401  as xml.volume
        """Make a part of a machine, and return its path."""
        name = f"{_MACHINE}{machine}.{id}.{part}"
        return str(self._pool.createXML(xml.volume(name, size, **more), 0).path())

    def make_filled(self, machine: str, id: str, part: str, content: bytes) -> str:
        """Make a part of a machine that holds something, and return its path."""
        path = self.make(machine, id, part, len(content), kind="raw")
        self.session.upload(self.find(f"{_MACHINE}{machine}.{id}.{part}"), BytesIO(content), len(content))
        return path

    def console(self, machine: str, id: str, most: int) -> bytes:
        """Return the last of what a machine wrote."""
        volume = self.find(f"{_MACHINE}{machine}.{id}.console")
        return self.session.download(volume, max(0, int(volume.info()[1]) - most))

    def require_active(self) -> None:
        """Refuse to delete a machine while its volumes cannot be reached, which would stay."""
        if self.pool in {each.name() for each in self.session.connection.listAllStoragePools(_INACTIVE)}:
            raise FilesError(Fault(Conflict, f"{not_active('storage pool', self.pool)}; until then the machine stays"))

    def remove_machine(self, machine: str, id: str) -> None:
        """Delete all parts of a machine, also those that libvirt made of its console beside it."""
        with contextlib.suppress(Exception):  # while something is uploaded, a pool is not looked through
            self._pool.refresh(0)
        begin = f"{_MACHINE}{machine}.{id}."
        for name in self.names():
            if name.startswith(begin):
                self.remove(name)

    # images, disks, snapshots

    def base(self, base: Base) -> str:
        """Have a file of this computer in the pool, and return the path that it has there."""
        known = base.path.stat()
        begin = f"{_BASE}{_digest(base.path, known.st_size, known.st_mtime_ns)}."
        with self._uploading:
            for name in self.whole("base"):
                if name.startswith(begin):
                    return str(self.find(name).path())
            name = f"{begin}{secrets.token_hex(4)}"
            with self.making(name), base.path.open("rb") as content:
                volume = self._pool.createXML(xml.volume(name, known.st_size, kind="raw"), 0)
                self.session.upload(volume, content, known.st_size)
            return str(volume.path())

    def made(self, item: Item, size: int) -> Any:  # noqa: ANN401  libvirt has no types
        """Make an empty disk."""
        with self.making(item.volume):
            return self._pool.createXML(xml.volume(item.volume, size), 0)

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[None]:
        """Say that a volume is complete when the block, which makes it, has ended well; delete it otherwise.

        One that is there already is somebody else's, and stays.
        """
        mark = _mark_of(name)
        if len(mark) > _LONGEST:
            most = _LONGEST - len(_WHOLE)
            raise FilesError(Fault(InvalidArgument, f"the name is too long: a volume's has at most {most} bytes"))
        try:
            yield
        except BaseException as exc:
            fault = classify(exc) if isinstance(exc, Exception) else None
            if fault is None or fault.error is not AlreadyExists:
                self._discard(name)
            raise
        try:
            self._pool.createXML(xml.volume(mark, 1, kind="raw"), 0)
        except BaseException:
            self._discard(name)
            raise

    def make_empty(self, name: str, size: int) -> Any:  # noqa: ANN401  libvirt has no types
        """Make a volume that is filled by somebody else."""
        return self._pool.createXML(xml.volume(name, size), 0)

    def copy(self, source: Any, name: str, size: int) -> None:  # noqa: ANN401  libvirt has no types
        """Make a whole disk of one that nobody writes to, which may hold only what differs from another."""
        made = self._pool.createXMLFrom(xml.volume(name, size), source, 0)
        if int(made.info()[1]) < size:
            made.resize(size, 0)

    def drop(self, name: str) -> None:
        """Delete a complete volume, with what is below it; from its first step on it is none."""
        below = self._below(name) if name.startswith(_IMAGE) else None
        self.remove(_mark_of(name))
        self.remove(name)
        if below is not None:
            self.remove(below)

    # images that are made of objects

    def has_imported(self, image: str, token: str) -> bool:
        """Tell whether an import has made an image; say that it is complete, where whoever made it came no further.

        Raises:
            FilesError: there is an image of that name which this import has not made.
        """
        below = self._below_finished(image) or ""
        names = self.names()
        if image not in names:
            return False
        found = _OF_IMPORT.fullmatch(below)
        if found is None or found["token"] != token:
            why = f"there is an image {image.removeprefix(_IMAGE)!r} of something else, or one that is being made"
            raise FilesError(Fault(AlreadyExists, why))
        if below not in names:  # somebody swept it
            self.drop(image)
            return False
        if _mark_of(image) not in names:
            self._mark(image)
        return True

    def import_object(self, image: str, token: str, origin: Origin) -> bool:
        """Make an image of an object, or go on with what another process read of it; tell whether it is made.

        Several may write at once, the same to the same places, but libvirt may refuse all but one. What cannot be tried
        again leaves nothing.
        """
        part = f"{_IMPORT}{token}.{origin.mark}.{image.removeprefix(_IMAGE)}"
        try:
            volume = self._find_or_make(part)
            self._fill(volume, origin)
            below = volume.path(), origin.form
            self._make_once(xml.volume(image, origin.disk_gib * GIB, backing=below))
            return self.has_imported(image, token)
        except Exception as exc:
            fault = classify(exc)
            if fault is not None and _BUSY.search(fault.message):
                return False
            with contextlib.suppress(Exception):  # what stays is debris, or gone on with
                if self._below_finished(image) == part:  # another was faster, and may have deleted the object
                    self._mark(image)
                    return True
                if not (exc.retryable if isinstance(exc, OperationError) else fault and fault.error.retryable):
                    self.remove(part)
            raise

    def _fill(self, volume: Any, origin: Origin) -> None:  # noqa: ANN401  libvirt has no types
        """Write what is missing of an object, and read all of it again."""
        with origin.reading() as content:
            content.skip(self.session.length(volume))
            if content.at < origin.info.size:
                self.session.upload(volume, content, origin.info.size - content.at, offset=content.at)
        if self.session.sha256(volume, origin.info.size) != content.sha256:
            why = f"the volume {volume.name()!r} does not hold what was sent; the same again begins anew"
            raise FilesError(Fault(IntegrityError, why))

    def _below(self, name: str) -> str | None:
        """Return the name of the volume that another one differs from; ``None`` if it is whole or gone."""
        try:
            path = xml.read_backing(self.find(name).XMLDesc(0))
        except Exception as exc:
            if code_of(exc) != NO_VOLUME:
                raise
            return None
        return None if path is None else path.rpartition("/")[2]

    def _below_finished(self, image: str) -> str | None:
        """Do the same with an image that may just be made: what is below it is told a moment later."""
        end = time.monotonic() + _MOMENT
        while (below := self._below(image)) is None and time.monotonic() < end:
            names = self.names()
            if image not in names or _mark_of(image) in names:
                break
            time.sleep(_STEP)
        return below

    def _find_or_make(self, part: str) -> Any:  # noqa: ANN401  libvirt has no types
        self._make_once(xml.volume(part, 0, kind="raw"))
        return self.find(part)

    def _mark(self, name: str) -> None:
        """Say that a volume is complete."""
        self._make_once(xml.volume(_mark_of(name), 1, kind="raw"))

    def _make_once(self, order: str) -> None:
        """Make a volume, unless it is there."""
        try:
            self._pool.createXML(order, 0)
        except Exception as exc:
            fault = classify(exc)
            if fault is None or fault.error is not AlreadyExists:
                raise

    def items(self, kind: str) -> list[Item]:
        """Return all disks or snapshots, in order."""
        return [found for name in self.whole(kind) if (found := item_of(name)) is not None]

    def item(self, kind: str, id: str) -> Item:
        """Return one."""
        for found in self.items(kind):
            if found.id == id:
                return found
        raise FilesError(Fault(NotFound, f"there is no {kind} {id!r}"))

    def unfinished(self) -> list[str]:
        """Return the names of those that are not complete or whose machine is to be asked for, in order."""
        names = set(self.names())
        marks = {name for name in names if name.startswith(_WHOLE)}
        imported = {f"{_IMAGE}{found['image']}" for name in names if (found := _OF_IMPORT.fullmatch(name))}
        below = {self._below(image) for image in imported if _mark_of(image) in marks}
        return sorted(
            name
            for name in names
            if (name in marks and f"{_OURS}{name.removeprefix(_WHOLE)}" not in names)
            or (name not in marks and name not in below and _mark_of(name) not in marks)
        )

    def _discard(self, name: str) -> None:
        with contextlib.suppress(Exception):  # what stays is debris
            self.remove(name)

    @property
    def _pool(self) -> Any:  # noqa: ANN401  libvirt has no types
        try:
            return self.session.connection.storagePoolLookupByName(self.pool)
        except Exception as exc:
            if code_of(exc) != NO_POOL:
                raise
            how = f"virsh pool-define-as {self.pool} dir --target /var/lib/libvirt/images, pool-start, pool-autostart"
            why = f"the hypervisor has no storage pool {self.pool!r}: make one ({how}), or name another as `pool`"
            raise FilesError(Fault(NotFound, why)) from exc


def virtual_size(base: Base) -> int:
    """Return how many bytes the disk in a file has.

    Raises:
        FilesError: it reads another file, which would be one of the hypervisor's; it is damaged or encrypted.
    """
    if base.format == "raw":
        return base.path.stat().st_size
    with base.path.open("rb") as file:
        return qcow2_size(file.read(QCOW2_HEAD), str(base.path))


def _mark_of(name: str) -> str:
    return f"{_WHOLE}{name.removeprefix(_OURS)}"


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:  # noqa: ARG001  a file that has changed is another
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
