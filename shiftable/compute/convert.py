"""Images of disks in the forms that providers import, made by ``qemu-img``.

What a provider does with them, its own importer decides: drivers, boot loaders and agents of one cloud are not those of
another. Machines move by their declarations; this is for who has an image and nothing else.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from shiftable.compute.driver import ImageForm
from shiftable.errors import ConfigError, ShiftableError
from shiftable.files import check_replaceable

__all__ = ["SUFFIXES", "Converted", "convert_image", "form_of"]

SUFFIXES: Mapping[ImageForm, str] = {
    "gce": ".tar.gz",
    "qcow2": ".qcow2",
    "raw": ".raw",
    "vhd": ".vhd",
    "vmdk": ".vmdk",
}
"""What names of files end with."""

_MIB, _GIB = 1024**2, 1024**3
# Of the disk, for those who take no other. Azure, "Prepare a Windows VHD" and "Prepare Linux": whole MiB, of a fixed
# VHD; Compute Engine, "Import boot disk images manually": whole GB.
_WHOLE: dict[ImageForm, int] = {"vhd": _MIB, "gce": _GIB}
_SECTOR = 512
_OUTPUT: dict[ImageForm, tuple[str, ...]] = {
    "qcow2": ("-O", "qcow2", "-c"),
    "raw": ("-O", "raw"),
    "vhd": ("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
    "vmdk": ("-O", "vmdk", "-o", "subformat=streamOptimized"),  # the only one that EC2 imports
}
_CHUNK = 1024 * 1024
_HOW_TO_GET = "images are converted by qemu-img: apt install qemu-utils, or dnf install qemu-img, or brew install qemu"


@attrs.frozen(kw_only=True)
class Converted:
    """An image that was made.

    Args:
        size: of the file, in bytes.
        disk: of the disk that it holds, in bytes.
        sha256: of the file.
    """

    path: Path
    form: ImageForm
    size: int
    disk: int
    sha256: str


def form_of(name: str) -> ImageForm | None:
    """Return the form that the end of a name says."""
    return next((form for form, suffix in SUFFIXES.items() if name.endswith(suffix)), None)


def convert_image(source: Path, target: Path, form: ImageForm, *, replace: bool = False) -> Converted:
    """Write the image of a disk in another form. The target is there when it is complete, or not at all.

    A disk of an odd size is made larger, to the next whole MiB for Azure and GiB for Compute Engine.

    Args:
        source: in any form that qemu-img knows by its content, in one file: what refers to others is refused.
        form: ``vhd`` of a fixed size for Azure, ``gce`` (``disk.raw`` in a tar.gz) for Compute Engine, ``vmdk`` for
            EC2, ``qcow2`` for QEMU and OpenStack, ``raw`` for EC2 too.
        replace: also if there is such a file.

    Raises:
        ConfigError: qemu-img is not on this machine; the target exists; the source is no image of a disk, or refers to
            other files.
        ShiftableError: qemu-img failed, or the disk here is full.
    """
    if not replace and target.exists():
        raise ConfigError(f"{target} exists already")
    disk = _measured(source)
    wanted = -(-disk // _WHOLE.get(form, 1)) * _WHOLE.get(form, 1)
    try:
        check_replaceable(target)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as name:
            made = _made(source, Path(name), form, wanted if wanted != disk else None)
            digest = _synced(made)
            size = made.stat().st_size
            made.chmod(0o666 & ~_umask())
            made.replace(target)
    except OSError as exc:
        raise ShiftableError(f"{target} cannot be written: {exc.strerror}") from exc
    return Converted(path=target, form=form, size=size, disk=wanted, sha256=digest)


def _measured(source: Path) -> int:
    """Return the size of the disk, of an image that stands for itself."""
    if not source.is_file():
        raise ConfigError(f"{source} is no file")
    told: dict[str, Any] = json.loads(_run("info", "--output=json", "--", str(source)))
    data = told.get("format-specific", {}).get("data", {})
    others = [told.get("full-backing-filename") or told.get("backing-filename"), data.get("data-file")]
    others += [each.get("filename") for each in data.get("extents", ())]
    odd = sorted({str(each) for each in others if each and not _is(each, source)})
    if odd:
        raise ConfigError(
            f"{source} refers to {', '.join(odd)}: an image from elsewhere could read any file so; make it one file"
        )
    if told.get("encrypted"):
        raise ConfigError(f"{source} is encrypted")
    size = int(told["virtual-size"])
    if told["format"] == "raw" and (size == 0 or size % _SECTOR):
        raise ConfigError(f"{source} is no image of a disk: it is in no known form, and no disk has {size:,} bytes")
    return size


def _made(source: Path, folder: Path, form: ImageForm, larger: int | None) -> Path:
    """Write the image into a folder, and return it."""
    made = folder / "image"
    if form != "gce" and larger is None:
        _run("convert", *_OUTPUT[form], "--", str(source), str(made), cwd=folder)
        return made
    raw = folder / "disk.raw"
    _run("convert", *_OUTPUT["raw"], "--", str(source), str(raw), cwd=folder)
    if larger is not None:
        os.truncate(raw, larger)
    if form == "gce":
        _packed(raw, made)
    else:
        _run("convert", "-f", "raw", *_OUTPUT[form], "--", str(raw), str(made), cwd=folder)
    raw.unlink()
    return made


def _packed(raw: Path, made: Path) -> None:
    """Pack a disk as Compute Engine wants it: GNU's tar, gzip; the same disk gives the same bytes."""

    def plain(about: tarfile.TarInfo) -> tarfile.TarInfo:
        about.uid = about.gid = about.mtime = 0
        about.uname = about.gname = ""
        about.mode = 0o644
        return about

    with (
        made.open("xb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        archive.add(raw, "disk.raw", filter=plain)


def _synced(made: Path) -> str:
    """Return the digest of a file that a power failure will not take."""
    digest = hashlib.sha256()
    with made.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        os.fsync(file.fileno())
    return digest.hexdigest()


def _is(name: str, source: Path) -> bool:
    with contextlib.suppress(OSError):
        return source.samefile(name)
    return False


def _run(*arguments: str, cwd: Path | None = None) -> bytes:
    program = shutil.which("qemu-img")
    if program is None:
        raise ConfigError(_HOW_TO_GET)
    command = [program, *_absolute(arguments)]
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603  QEMU's own
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise ShiftableError(f"qemu-img: {(lines or ['it failed'])[-1].removeprefix('qemu-img: ')}")
    return done.stdout


def _absolute(arguments: tuple[str, ...]) -> list[str]:
    """Make paths absolute: qemu-img takes ``nbd:x`` and ``json:{…}`` for other things than files."""
    end = arguments.index("--") + 1
    return [*arguments[:end], *(str(Path(each).absolute()) for each in arguments[end:])]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
