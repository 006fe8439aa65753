"""What machines start from: images of distributions, downloaded once and checked, images of the user, and snapshots.

The addresses are those at which Debian and Canonical publish cloud images, and the lists of checksums beside them
(cloud.debian.org/images/cloud, cloud-images.ubuntu.com/releases).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from shiftable.compute.driver import Arch, Firmware
from shiftable.errors import Fault, IntegrityError, InvalidArgument, Unavailable
from shiftable_baremetal._disk_images import form_of, whole_form_of
from shiftable_baremetal._durable import sync, write
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._qemu_files import IMAGES, Area

__all__ = ["SOURCES", "SOURCES_ARM64", "Base", "Images", "Source"]

logger = logging.getLogger(__name__)


@attrs.frozen
class Source:
    """Where an image is published.

    Args:
        sums: the address of the list of checksums, as ``sha512sum`` prints it; or else
        digest: the checksum itself.
    """

    url: str
    sums: str = ""
    digest: str = ""


def _debian(name: str, version: int, arch: str) -> Source:
    above = f"https://cloud.debian.org/images/cloud/{name}/latest"
    return Source(f"{above}/debian-{version}-genericcloud-{arch}.qcow2", f"{above}/SHA512SUMS")


def _ubuntu(version: str, arch: str) -> Source:
    above = f"https://cloud-images.ubuntu.com/releases/{version}/release"
    return Source(f"{above}/ubuntu-{version}-server-cloudimg-{arch}.img", f"{above}/SHA256SUMS")


def _sources(arch: str) -> Mapping[str, Source]:
    return {
        "debian-12": _debian("bookworm", 12, arch),
        "debian-13": _debian("trixie", 13, arch),
        "ubuntu-22.04": _ubuntu("22.04", arch),
        "ubuntu-24.04": _ubuntu("24.04", arch),
    }


SOURCES: Mapping[str, Source] = _sources("amd64")
"""Of each alias, for x86_64."""

SOURCES_ARM64: Mapping[str, Source] = _sources("arm64")
"""The same for arm64."""

_FRESH = 7 * 24 * 3600  # seconds until it is asked again whether there is a newer one
_TIMEOUT = 60  # seconds of silence
_AT_ONCE = 1024 * 1024
_MOST_SUMS = 1024 * 1024
_DIGESTS = {64: "sha256", 128: "sha512"}
_OWN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")


@attrs.frozen
class Base:
    """What a machine's disk begins with: a file that nobody changes any more.

    Args:
        firmware: that machines start by, where it is known.
    """

    path: Path
    format: str
    firmware: Firmware | None = None


@attrs.frozen
class Images:
    """The images of one root that machines of one architecture start from.

    Args:
        own: images of the user by their names: files, or addresses with checksums. They go before the aliases.
    """

    area: Area
    own: Mapping[str, Path | Source] = attrs.Factory(dict)
    sources: Mapping[str, Source] = SOURCES
    arch: Arch = "x86_64"

    def base(self, name: str) -> Base:
        """Return an image, downloaded if it has to be.

        Raises:
            FilesError: there is no such image; it cannot be had; it is not what its checksum says.
        """
        found = self.own.get(name) or self.sources.get(name)
        if isinstance(found, Source):
            return Base(self._downloaded(name, found), "qcow2")
        taken = self.area.root / IMAGES / name / "disk"
        if found is None and _OWN.fullmatch(name) and taken.is_file():
            facts = dict(self.area.taken(IMAGES)).get(name, {})
            arch = facts.get("arch", "x86_64")
            if arch != self.arch:
                raise FilesError(Fault(InvalidArgument, f"the image {name!r} is for {arch}, not {self.arch}"))
            return Base(taken, form_of(taken), facts.get("firmware"))
        path = found or Path(name)
        if path.is_absolute() and path.is_file():
            return Base(path, whole_form_of(path))
        if found is not None:
            raise FilesError(
                Fault(InvalidArgument, f"the image {name!r} is to be in {path}, and there is no such file")
            )
        known = ", ".join(dict.fromkeys((*self.own, *self.sources)))
        whose = "" if self.arch == "x86_64" else f" for {self.arch}"
        why = (
            f"there is no image {name!r}{whose}: it is {known}, a snapshot, or the absolute path of a qcow2 or raw file"
        )
        raise FilesError(Fault(InvalidArgument, why))

    def check_new(self, name: str) -> None:
        """Refuse a name that an image of a machine cannot have."""
        if not _OWN.fullmatch(name):
            why = "an image's name has lower-case letters, digits, dots and hyphens, at most 63"
            raise FilesError(Fault(InvalidArgument, why))
        if name in self.own or name in self.sources:
            raise FilesError(Fault(InvalidArgument, f"{name} is the name of another image already"))

    # downloads, one step each

    def _downloaded(self, name: str, source: Source) -> Path:
        cache = self.area.root / IMAGES / ".cache"
        note = cache / f"{hashlib.sha256(source.url.encode()).hexdigest()[:16]}.json"
        known = _fresh(cache, note)
        if known is not None:
            return known
        with self.area.changing(IMAGES):
            for folder in (cache.parent, cache):
                folder.mkdir(mode=0o700, exist_ok=True)
            known = _fresh(cache, note)  # another process may have been faster
            if known is not None:
                return known
            try:
                digest = (source.digest or _published(source)).lower()
            except FilesError:
                older = _noted(cache, note)
                if older is None:
                    raise
                logger.warning("whether there is a newer image %s is not known: its checksums cannot be had", name)
                return older
            path = cache / digest
            if not path.is_file():
                _download(source.url, path, digest)
            write(note, json.dumps({"url": source.url, "digest": digest, "asked": time.time()}))
            return path


def _fresh(cache: Path, note: Path) -> Path | None:
    """Return what was downloaded, if it was asked lately whether it is the newest."""
    with contextlib.suppress(FileNotFoundError):
        known: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        if abs(time.time() - known["asked"]) < _FRESH:
            return _noted(cache, note)
    return None


def _noted(cache: Path, note: Path) -> Path | None:
    with contextlib.suppress(FileNotFoundError):
        path = cache / str(json.loads(note.read_text(encoding="utf-8"))["digest"])
        return path if path.is_file() else None
    return None


def _published(source: Source) -> str:
    """Return the checksum that the distributor names."""
    with _answer(source.sums) as answer:
        listed = _read(answer, _MOST_SUMS, source.sums).decode(errors="replace")
    wanted = source.url.rpartition("/")[2]
    for line in listed.splitlines():
        digest, _, name = line.partition(" ")
        if name.lstrip(" *") == wanted and len(digest) in _DIGESTS and re.fullmatch("[0-9A-Fa-f]+", digest):
            return digest
    raise FilesError(Fault(Unavailable, f"{source.sums} names no checksum of {wanted}"))


def _download(url: str, path: Path, digest: str) -> None:
    """Download a file to its place; what is there of it already is not asked for again."""
    part = path.with_name(f"part~{digest}")
    have = part.stat().st_size if part.exists() else 0
    with _answer(url, have) as answer:
        begins = have if answer.status == http.client.PARTIAL_CONTENT else 0
        _append(answer, part, begins, url)
    if not _is(part, digest):
        part.unlink()
        why = f"{url} is not what its checksum says: it was altered, or is just being replaced; try again later"
        raise FilesError(Fault(IntegrityError, why))
    part.chmod(0o400)
    part.rename(path)
    sync(path.parent)


def _append(answer: http.client.HTTPResponse, part: Path, begins: int, url: str) -> None:
    with part.open("ab") as file:
        file.truncate(begins)
        size = answer.headers.get("Content-Length")
        left = int(size) if size is not None and size.isdecimal() else None
        while data := _chunk(answer, url):
            file.write(data)
            left = None if left is None else left - len(data)
        file.flush()
        os.fsync(file.fileno())
    if left:
        raise FilesError(Fault(Unavailable, f"{url} broke off; the same again goes on from there"))


def _chunk(answer: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return answer.read(_AT_ONCE)
    except (OSError, http.client.HTTPException) as exc:
        raise FilesError(Fault(Unavailable, f"{url} broke off; the same again goes on from there: {exc}")) from exc


def _read(answer: http.client.HTTPResponse, most: int, url: str) -> bytes:
    data = b""
    while len(data) <= most and (more := _chunk(answer, url)):
        data += more
    return data


def _answer(url: str, begin: int = 0) -> http.client.HTTPResponse:
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise FilesError(Fault(InvalidArgument, f"{url} is no https address"))
    headers = {"Range": f"bytes={begin}-"} if begin else {}
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310  https, as above
            urllib.request.Request(url, headers=headers),  # noqa: S310  https, as above
            timeout=_TIMEOUT,
        )
    except urllib.error.HTTPError as exc:
        if exc.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and begin:
            exc.close()
            return _answer(url)  # what is there is longer: another file's, or whole
        exc.close()
        raise FilesError(Fault(Unavailable, f"{url} cannot be had: it answers {exc.code}")) from None
    except (OSError, http.client.HTTPException) as exc:
        reason = getattr(exc, "reason", exc)
        raise FilesError(Fault(Unavailable, f"{url} cannot be had: {reason}")) from exc
    return answer


def _is(path: Path, digest: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _DIGESTS[len(digest)]).hexdigest() == digest
