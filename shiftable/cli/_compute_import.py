"""``compute import-image``: images of the account's own, made by the provider's own importer."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import get_args

import attrs
import click

from shiftable.blob import ObjectInfo
from shiftable.cli._compute_kept import Kept, kept, waiting
from shiftable.cli._context import Context, interruptible, json_option, pass_context, say, shown, size_text
from shiftable.cli._places import Location, Place, PlaceType, Remote, RemoteType, complete_places
from shiftable.compute import Arch, Compute, DiskImage
from shiftable.compute.convert import SUFFIXES, convert_image, form_of
from shiftable.compute.driver import FORMS, Firmware, Image, ImageForm
from shiftable.errors import AlreadyExists, ConfigError, NotFound, OperationError, ParentNotFound, Unsupported

__all__ = ["import_image"]

_WHY = (
    "importing images is experimental: providers refuse many disks, and whether a machine starts from one depends on "
    "the drivers, the boot loader and the agents that are in it; machines move by `shiftable migrate`, as declarations"
)
_SMALLEST: tuple[ImageForm, ...] = ("gce", "vmdk", "qcow2", "vhd", "raw")  # what to upload, where there is a choice


@click.command("import-image")
@click.argument("source", type=PlaceType(), shell_complete=complete_places)
@kept("image", "IMAGE")
@click.option("--experimental", is_flag=True, help="Yes, it may not work.")
@click.option(
    "--via", type=RemoteType(), shell_complete=complete_places, metavar="LABEL:FOLDER",
    help="Where a local file is uploaded to: a bucket of the same provider.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the uploaded object in the bucket.")
@click.option("--form", type=click.Choice(FORMS), help="Of an object whose name does not say it.")
@click.option("--arch", type=click.Choice(get_args(Arch)), default="x86_64", show_default=True, help="Of the machines.")
@click.option("--firmware", type=click.Choice(get_args(Firmware)), help="That they start by; bios, on arm64 uefi.")
@waiting("2h")
@json_option
@pass_context
def import_image(
    context: Context,
    source: Place,
    which: Kept,
    *,
    experimental: bool,
    via: Remote | None,
    keep: bool,
    form: ImageForm | None,
    arch: Arch,
    firmware: Firmware | None,
    timeout: timedelta,
    as_json: bool,
) -> None:  # fmt: skip
    """Make an image of the account's own, PROVIDER:NAME, of the image of a disk. EXPERIMENTAL: say --experimental.

    SOURCE is an object in a bucket of the same provider, LABEL:KEY or s3://BUCKET/KEY, in a form that the provider
    takes: tar.gz on Compute Engine, vmdk, vhd or raw on EC2, vhd of a fixed size on Azure, qcow2 or raw on QEMU and
    libvirt. Or it is a file here: qemu-img converts it, in the folder for temporary files (TMPDIR), it is uploaded to
    --via, and the object is deleted when the image is there.

    The same command, again, goes on after whatever interrupted it, and makes no second image.
    """
    if not experimental:
        raise ConfigError(f"{_WHY}. To try it all the same, say --experimental")
    service = which.service(context)
    forms = service.features.imports
    if not forms:
        raise which.refusal(Unsupported, service, "import_image", "this provider has no importer of disk images")
    if isinstance(source, Remote):
        location = _beside(service, source.open(context))
        disk = _disk(location, form or form_of(location.key), arch, firmware, forms)
        made = _imported(service, which.name, disk, location.bucket.stat(location.key), timeout)
    else:
        if via is None or form is not None:
            how = "say --via LABEL:FOLDER, a bucket of the same provider" if via is None else "--form is for objects"
            raise ConfigError(f"{source} is a file here: {how}")
        chosen = next(each for each in _SMALLEST if each in forms)
        location = _key_for(source.path, _beside(service, via.open(context)), which.name, chosen)
        disk = _disk(location, chosen, arch, firmware, forms)
        found = _uploaded(location)
        if found is None:
            _refuse_made(service, which)
            found = _upload(source.path, location, chosen)
        with _deleted(location, found, keep=keep):
            made = _imported(service, which.name, disk, found, timeout)
    if as_json:
        context.json({"provider": which.provider, **attrs.asdict(made)})
    else:
        say(shown(f'{made.name}: imported; image = "{made.id}" makes machines of it'))


def _beside(service: Compute, location: Location) -> Location:
    """Return the location, if the importer could read it."""
    if location.bucket.provider != service.provider:
        where = f"{location} is at {location.bucket.provider.label}, and the image is to be at {service.provider.label}"
        raise ConfigError(f"{where}: importers read buckets of their own provider; `shiftable blob cp` brings it there")
    return location


def _refuse_made(service: Compute, which: Kept) -> None:
    """Refuse to upload for an image that is there."""
    for image in service.images():
        if image.own and image.name == which.name:
            raise which.refusal(AlreadyExists, service, "import_image", f"there is one of that name, {image.id}")


def _key_for(source: Path, folder: Location, name: str, form: ImageForm) -> Location:
    """Return where a file is uploaded to: always the same for the same content, so that what was uploaded is found."""
    try:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise ConfigError(f"{source} cannot be read: {exc.strerror}") from exc
    return folder.at(f"{folder.folder}{name}-{digest[:32]}{SUFFIXES[form]}")


def _uploaded(location: Location) -> ObjectInfo | None:
    """Return what an interrupted call uploaded: objects are there when they are complete, or not at all."""
    try:
        return location.bucket.stat(location.key)
    except ParentNotFound:
        raise
    except NotFound:
        return None


def _upload(source: Path, location: Location, form: ImageForm) -> ObjectInfo:
    with tempfile.TemporaryDirectory(prefix="shiftable-image-") as folder:
        click.echo(shown(f"{source}: converting to {form}"), err=True)
        made = convert_image(source, Path(folder) / f"image{SUFFIXES[form]}", form)
        click.echo(shown(f"{location}: uploading {size_text(made.size)}, sha256 {made.sha256}"), err=True)
        return location.bucket.put(location.key, made.path, metadata={"sha256": made.sha256})


@contextmanager
def _deleted(location: Location, found: ObjectInfo, *, keep: bool) -> Iterator[None]:
    """Delete an uploaded object when nobody reads it any more: the image is there, or the provider refused it."""
    try:
        yield
    except OperationError as exc:
        if exc.retryable:
            click.echo(shown(f"{location} stays, as it may still be read; the same command goes on"), err=True)
        elif not keep:
            _delete(location, found)
        raise
    if not keep:
        _delete(location, found)


def _delete(location: Location, found: ObjectInfo) -> None:
    """Delete an uploaded object; that it stays is not what the command is about."""
    try:
        location.bucket.delete(location.key, version=found.version)
    except OperationError as exc:
        click.echo(shown(f"{location} stays; delete it: {exc}"), err=True)


def _disk(
    location: Location, form: ImageForm | None, arch: Arch, firmware: Firmware | None, forms: frozenset[ImageForm]
) -> DiskImage:
    if not location.key:
        raise ConfigError(f"{location} names no object")
    if form is None:
        raise ConfigError(f"{location} does not say its form; say --form {' or --form '.join(sorted(forms))}")
    disk = DiskImage(bucket=location.bucket.name, key=location.key, form=form, arch=arch)
    try:
        return disk if firmware is None else attrs.evolve(disk, firmware=firmware)
    except ValueError as exc:
        raise ConfigError(str(exc)) from None


def _imported(service: Compute, name: str, disk: DiskImage, found: ObjectInfo, timeout: timedelta) -> Image:
    with interruptible(f"{name}: it may go on at the provider; the same command goes on with it"):
        return service.import_image(name, attrs.evolve(disk, version=str(found.token)), timeout=timeout)
