"""Images of disks in a bucket of the same provider, which become images of machines.

Nobody imports them for us: whoever calls reads the object, in the one version that was looked at, and writes it to
where machines find it. A qcow2 file can name others, which would be the hypervisor's: it is refused before anything is
written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NoReturn

import attrs

from shiftable.blob import BlobStore, Bucket, ObjectInfo
from shiftable.blob.driver import BlobDriver
from shiftable.compute.driver import GIB, DiskImage, ImageForm
from shiftable.errors import Fault, IntegrityError, InvalidArgument, NotFound, ParentNotFound, PreconditionFailed
from shiftable_baremetal._faults import FilesError

__all__ = [
    "FORMS",
    "QCOW2_HEAD",
    "Blobs",
    "Content",
    "Origin",
    "form_of",
    "looked_at",
    "qcow2_size",
    "whole_form_of",
]

Blobs = Callable[[], BlobDriver]
"""What opens the buckets of the provider."""

FORMS: frozenset[ImageForm] = frozenset({"qcow2", "raw"})
"""What QEMU starts machines from as it is."""

QCOW2_HEAD = 104
"""Bytes that say what a qcow2 file is, by QEMU's docs/interop/qcow2.txt."""

_MAGIC = b"QFI\xfb"
_QCOW2_LEAST = 72  # bytes of the head in version 2
_CLUSTER_BITS = range(9, 22)
_LONGEST_NAME = 1023  # of another file that is read, by the same text
_PLACE, _COMPRESSED = 0x00FFFFFFFFFFFE00, 1 << 62  # in an entry of a table
_OTHERWISE = 1 << 2 | 1 << 4  # in the features: the data lie in another file, or entries are longer
_SECTOR = 512
_LARGEST = 1024 * 1024 * GIB  # half of what clusters of 64 KiB reach to; QEMU's block/qcow2.h: QCOW_MAX_L1_SIZE
_CHUNK = 1024 * 1024


@attrs.frozen
class Origin:
    """An object that holds the image of a disk.

    Args:
        info: of its one version that is read.
        disk: the size of the disk, in bytes.
    """

    _bucket: Bucket
    info: ObjectInfo
    form: ImageForm
    disk: int

    @property
    def disk_gib(self) -> int:
        """The size of the disk in whole GiB, so that nothing of it is cut off."""
        return -(-self.disk // GIB)

    @property
    def mark(self) -> str:
        """What tells the version from others, as a part of a name."""
        return hashlib.sha256(str(self.info.token).encode()).hexdigest()[:8]

    @contextlib.contextmanager
    def reading(self) -> Iterator[Content]:
        """Open the object, which has to be what it says it is when it was read to its end."""
        with self._bucket.open(self.info.key, if_match=self.info.token) as file:
            content = Content(file)
            yield content
        told = self.info.checksums.get("sha256", b"").hex() or self.info.metadata.get("sha256", "").lower()
        if told and content.at == self.info.size and content.sha256 != told:
            why = f"{self.info.key!r} is not what was uploaded: its SHA-256 is {content.sha256}, and should be {told}"
            raise FilesError(Fault(IntegrityError, why))

    def save(self, path: Path) -> None:
        """Write the image to a new file, which takes room only for what is not zero, and which nobody changes."""
        with self.reading() as content, path.open("xb") as file:
            while piece := content.read(_CHUNK):
                if piece.count(0) == len(piece):
                    file.seek(len(piece), os.SEEK_CUR)
                else:
                    file.write(piece)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o400)


@attrs.define
class Content:
    """A file that is read from its beginning, and what was read so far."""

    _file: BinaryIO
    at: int = attrs.field(default=0, init=False)
    _digest: hashlib._Hash = attrs.field(factory=hashlib.sha256, init=False, repr=False)

    @property
    def sha256(self) -> str:
        """Of what was read."""
        return self._digest.hexdigest()

    def read(self, most: int) -> bytes:
        """Return the next bytes; none at the end."""
        piece = self._file.read(most)
        self._digest.update(piece)
        self.at += len(piece)
        return piece

    def skip(self, until: int) -> None:
        """Read, for the digest alone, to a place."""
        while self.at < until and self.read(min(_CHUNK, until - self.at)):
            pass


@contextlib.contextmanager
def looked_at(blobs: Blobs, source: DiskImage) -> Iterator[Origin]:
    """Look at the object that an image is to be made of, which may then be read.

    Raises:
        FilesError: it is not there, or another by now, or holds no disk that a machine here could start from.
    """
    try:
        with BlobStore(blobs()) as store:
            bucket = store.bucket(source.bucket)
            info = bucket.stat(source.key)
            if source.version not in {"", str(info.token)}:
                _refuse(_changed(source))
            head = bucket.get(source.key, stop=QCOW2_HEAD, if_match=info.token)
            disk = _disk(source, head, info.size)
            if source.form == "qcow2":
                with bucket.open(source.key, if_match=info.token) as file:
                    _require_whole(repr(source.key), file, info.size)
            yield Origin(bucket, info, source.form, disk)
    except ParentNotFound:
        _refuse(f"there is no bucket {source.bucket!r}")
    except NotFound:
        _refuse(f"there is no object {source.key!r} in the bucket {source.bucket!r}")
    except PreconditionFailed:
        _refuse(_changed(source))


def qcow2_size(head: bytes, what: str) -> int:
    """Return how many bytes the disk in a qcow2 file has.

    Args:
        head: the first bytes of the file.

    Raises:
        FilesError: it reads another file, which would be one of the hypervisor's; it is damaged or encrypted.
    """
    head = head.ljust(QCOW2_HEAD, b"\0")
    version, backing, size, encrypted = struct.unpack(">4xIQ8xQI", head[:36])
    features = struct.unpack(">Q", head[72:80])[0] if version >= 3 else 0  # before that there are none
    _require_known(what, version)
    if backing or features & 4:  # QEMU's docs/interop/qcow2.txt: an external data file
        _refuse(f"{what} is not all of the image: it reads another file; make it one by qemu-img convert")
    if encrypted:
        _refuse(f"{what} is encrypted, and no machine could read it; make it another by qemu-img convert")
    return int(size)


def _require_known(what: str, version: int) -> None:
    if version not in {2, 3}:
        _refuse(f"{what} is qcow2 of a version that nobody knows, {version}")


def form_of(path: Path) -> ImageForm:
    """Tell qcow2 by its first bytes; nothing else is taken for what it claims to be."""
    with path.open("rb") as file:
        return "qcow2" if file.read(len(_MAGIC)) == _MAGIC else "raw"


def whole_form_of(path: Path) -> ImageForm:
    """Return the form of a file that somebody says is an image.

    Raises:
        FilesError: it is no disk, was cut off, or reads a file that is not there: no machine could start from it.
    """
    known = path.stat()
    return _whole_form_of(path, known.st_size, known.st_mtime_ns)


@lru_cache(maxsize=64)
def _whole_form_of(path: Path, size: int, changed: int) -> ImageForm:  # noqa: ARG001  a file that has changed is another
    if not size:
        _refuse(f"the image {path} is an empty file")
    form = form_of(path)
    if form == "qcow2":
        with path.open("rb") as file:
            _require_backing(path, file)
            _require_whole(f"the image {path}", file, size)
    elif size % _SECTOR:
        _refuse(f"the image {path} is neither qcow2 nor raw: no disk has {size:,} bytes")
    return form


def _require_whole(what: str, file: BinaryIO, size: int) -> None:
    """Refuse a qcow2 file of which something is not there. The layout is that of QEMU's docs/interop/qcow2.txt."""
    if _needed(what, file, size) > size:
        _refuse(f"{what} was cut off: it names places beyond its end; copy or download it again")


def _needed(what: str, file: BinaryIO, size: int) -> int:
    """Return how many bytes a qcow2 file has at least, by its tables."""
    head = _read_at(file, 0, QCOW2_HEAD)
    if len(head) < _QCOW2_LEAST:
        return _QCOW2_LEAST
    version, bits, entries, tables = struct.unpack(">4xI12xI12xIQ", head[:48])
    _require_known(what, version)
    is_otherwise = struct.unpack(">Q", head[72:80].ljust(8, b"\0"))[0] & _OTHERWISE
    if bits not in _CLUSTER_BITS:
        _refuse(f"{what} is damaged: no qcow2 file has clusters of 2^{bits} bytes")
    needed, cluster = tables + 8 * entries, 1 << bits
    if needed > size or is_otherwise:
        return int(needed)
    below = [at & _PLACE for at in _numbers(_read_at(file, tables, 8 * entries)) if at & _PLACE]
    needed = max([needed, *(at + cluster for at in below)])
    if needed > size:
        return int(needed)
    for at in below:
        needed = max([needed, *(_begin(each, bits) + 1 for each in _numbers(_read_at(file, at, cluster)) if each)])
    return int(needed)


def _begin(entry: int, bits: int) -> int:
    """Return where the data of an entry of a table begin; 0 if they are zeros, which need no place."""
    if entry & _COMPRESSED:
        return entry & ((1 << (70 - bits)) - 1)
    return 0 if entry & 1 else entry & _PLACE


def _require_backing(path: Path, file: BinaryIO) -> None:
    """Refuse an image that reads another file, unless that is there; what is no file is QEMU's affair."""
    at, length = struct.unpack(">QI", _read_at(file, 8, 12).ljust(12, b"\0"))
    named = os.fsdecode(_read_at(file, at, min(length, _LONGEST_NAME))).removeprefix("file:") if at else "json:"
    if named.startswith("json:") or "://" in named:
        return
    if not (path.parent / named).is_file():
        _refuse(
            f"the image {path} reads another file, {named!r}, which is not there; put it there, or make one file of "
            "both by qemu-img convert"
        )


def _read_at(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)


def _numbers(data: bytes) -> Iterator[int]:
    return (number for (number,) in struct.iter_unpack(">Q", data[: len(data) // 8 * 8]))


def _disk(source: DiskImage, head: bytes, size: int) -> int:
    """Return how many bytes the disk in an object has."""
    is_qcow2 = head.startswith(_MAGIC)
    if is_qcow2 is not (source.form == "qcow2"):
        begins = "begins as a qcow2 file" if is_qcow2 else "does not begin as one"
        _refuse(f"{source.key!r} is no {source.form}: it {begins}; `shiftable compute convert` writes one of any image")
    disk = qcow2_size(head, repr(source.key)) if is_qcow2 else size
    if disk == 0 or disk % _SECTOR:
        _refuse(f"{source.key!r} is no image of a disk: no disk has {disk:,} bytes")
    if disk > _LARGEST:
        most = f"at most {_LARGEST // GIB:,}"
        _refuse(f"the disk in {source.key!r} has {disk / GIB:,.0f} GiB, and one of a machine here has {most}")
    return disk


def _changed(source: DiskImage) -> str:
    return f"{source.key!r} is another object by now, or gone; import that"


def _refuse(why: str) -> NoReturn:
    raise FilesError(Fault(InvalidArgument, why))
