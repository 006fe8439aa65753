"""Archives in Cloud Storage of which the double's Compute Engine makes images."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib

from shiftable_gcp._compute_state import invalid

__all__ = ["archive_named", "disk_within"]

_GIB = 1024**3
_URL = re.compile(r"https://(?:www\.)?storage\.googleapis\.com/([a-z0-9._-]+)/(.+)")
_GNU = b"ustar  \0"  # the magic of both formats that Google reads


def archive_named(link: object) -> tuple[str, str]:
    """Return the bucket and the name of the object that an image is to be made of."""
    found = _URL.fullmatch(str(link or ""))
    if found is None:
        raise invalid("rawDisk.source", link, "The URL is malformed.")
    if not found[2].endswith(".tar.gz"):
        raise invalid(
            "rawDisk.source", link, "The archive must be a gzip-compressed tarball whose name ends in .tar.gz."
        )
    return found[1], found[2]


def disk_within(archive: bytes) -> int | str:
    """Return how large the disk in an archive is, in GB; or why there is none, in Google's words."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(archive)) as unpacked:
            magic = unpacked.read(512)[257:265]
            if magic != _GNU:
                return "The tar archive format is not supported. Supported formats are: GNU and OLDGNU."
            unpacked.seek(0)
            with tarfile.open(fileobj=unpacked, mode="r|") as held:
                members = [(each.name, each.size) for each in held]
    except (OSError, EOFError, zlib.error, tarfile.TarError):
        return "The tar archive is not a valid image."
    if len(members) != 1:
        return "The tar archive is not a valid image."
    ((name, size),) = members
    if name != "disk.raw":
        return f"The file inside the tar archive was named '{name}'. It should be named 'disk.raw'."
    if size == 0 or size % _GIB:
        return "The size of the disk image must be a multiple of 1 GB."
    return size // _GIB
