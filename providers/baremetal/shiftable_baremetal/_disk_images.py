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
from pathlib import Path
from typing import BinaryIO, NoReturn

import attrs

from shiftable.blob import BlobStore, Bucket, ObjectInfo
from shiftable.blob.driver import BlobDriver
from shiftable.compute.driver import GIB, DiskImage, ImageForm
from shiftable.errors import Fault, IntegrityError, InvalidArgument, NotFound, ParentNotFound, PreconditionFailed
from shiftable_baremetal._faults import FilesError

__all__ = ["FORMS", "QCOW2_HEAD", "Blobs", "Content", "Origin", "looked_at", "qcow2_size"]

Blobs = Callable[[], BlobDriver]
"""What opens the buckets of the provider."""

FORMS: frozenset[ImageForm] = frozenset({"qcow2", "raw"})
"""What QEMU starts machines from as it is."""

QCOW2_HEAD = 104
"""Bytes that say what a qcow2 file is, by QEMU's docs/interop/qcow2.txt."""

_MAGIC = b"QFI\xfb"
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
            yield Origin(bucket, info, source.form, _disk(source, head, info.size))
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
    if version not in {2, 3}:
        _refuse(f"{what} is qcow2 of a version that nobody knows, {version}")
    if backing or features & 4:  # QEMU's docs/interop/qcow2.txt: an external data file
        _refuse(f"{what} is not all of the image: it reads another file; make it one by qemu-img convert")
    if encrypted:
        _refuse(f"{what} is encrypted, and no machine could read it; make it another by qemu-img convert")
    return int(size)


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
