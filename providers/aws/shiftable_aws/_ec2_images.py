"""What machines of EC2 start from: the newest image of each alias, an image's id, or the name of one's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from shiftable.compute.driver import Arch, Image
from shiftable_aws._rds_groups import failure

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

__all__ = ["ALIASES", "Ami", "Images", "Source"]

_KEPT = 3600.0  # seconds
_PAGE = 1000  # EC2 API reference, DescribeImages


@attrs.frozen
class Source:
    """Who publishes an alias, and how his images are called, with ``*`` for the moment.

    Args:
        owner: an AWS account.
        names: by architecture.
    """

    owner: str
    names: Mapping[Arch, str]


_DEBIAN = "136693071363"  # https://wiki.debian.org/Cloud/AmazonEC2Image
_CANONICAL = "099720109477"  # https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/


def _debian(release: str) -> Source:
    return Source(_DEBIAN, {"x86_64": f"debian-{release}-amd64-*", "arm64": f"debian-{release}-arm64-*"})


def _ubuntu(release: str, name: str, disk: str) -> Source:
    start = f"ubuntu/images/hvm-{disk}/ubuntu-{name}-{release}"
    return Source(_CANONICAL, {"x86_64": f"{start}-amd64-server-*", "arm64": f"{start}-arm64-server-*"})


ALIASES: Mapping[str, Source] = {
    "debian-12": _debian("12"),
    "debian-13": _debian("13"),
    "ubuntu-22.04": _ubuntu("22.04", "jammy", "ssd"),
    "ubuntu-24.04": _ubuntu("24.04", "noble", "ssd-gp3"),
}


@attrs.frozen
class Ami:
    """An image, and what a machine made from it has to be told.

    Args:
        device: name of the disk that it starts from.
    """

    image: Image
    device: str


@attrs.define(eq=False)
class Images:
    """The images of one region. The newest of each alias are asked for again each hour."""

    _clock: Callable[[], float]
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _newest: tuple[float, dict[tuple[str, str], Ami]] | None = attrs.field(default=None, init=False, repr=False)
    _by_id: dict[str, Ami] = attrs.field(factory=dict, init=False, repr=False)

    def aliases(self, client: EC2Client) -> tuple[Image, ...]:
        """Return the newest image of each alias and architecture."""
        return tuple(ami.image for ami in self._aliases(client).values())

    def find(self, client: EC2Client, name: str, arch: Arch) -> Ami:
        """Return an image by its alias, its id, or the name that this account gave it."""
        if name in ALIASES:
            found = self._aliases(client).get((name, arch))
        elif name.startswith("ami-"):
            found = self._one(client, name)
        else:
            own = (ami(entry) for entry in _pages(client, ["self"], [name]))
            found = next((made for made in own if made.image.arch == arch), None)
        if found is None:
            aliases = ", ".join(ALIASES)
            text = (
                f"there is no image {name!r} of {arch} here; it must be {aliases}, an id (ami-…) or a name of one's own"
            )
            raise failure("InvalidAMIID.NotFound", text)
        return found

    def _one(self, client: EC2Client, id_: str) -> Ami | None:
        with self._lock:
            if id_ not in self._by_id:
                filters: Any = [{"Name": "image-id", "Values": [id_]}]
                found = client.describe_images(Filters=filters, IncludeDeprecated=True)["Images"]
                if not found:
                    return None
                if found[0].get("State") != "available":  # still being made: it is not yet what it will be
                    return ami(found[0])
                self._by_id[id_] = ami(found[0])
            return self._by_id[id_]

    def _aliases(self, client: EC2Client) -> dict[tuple[str, str], Ami]:
        with self._lock:
            now = self._clock()
            if self._newest is None or now - self._newest[0] > _KEPT:
                owners = sorted({source.owner for source in ALIASES.values()})
                patterns = [pattern for source in ALIASES.values() for pattern in source.names.values()]
                found = list(_pages(client, owners, patterns))
                self._newest = now, dict(_newest(found))
            return self._newest[1]


def ami(entry: Any, alias: str | None = None) -> Ami:  # noqa: ANN401  one of the stubs' types
    """Read an image of DescribeImages."""
    device = entry.get("RootDeviceName", "")
    disks = (disk.get("Ebs", {}) for disk in entry.get("BlockDeviceMappings", ()) if disk.get("DeviceName") == device)
    created = entry.get("CreationDate")
    image = Image(
        id=entry["ImageId"],
        name=alias or entry.get("Name", ""),
        arch="arm64" if entry.get("Architecture") == "arm64" else "x86_64",
        disk_gib=next((disk.get("VolumeSize") for disk in disks), None),
        own=alias is None and not entry.get("Public", False),
        ready=entry.get("State", "available") == "available",
        created=datetime.fromisoformat(created) if created else None,
    )
    return Ami(image, device)


def _pages(client: EC2Client, owners: list[str], names: list[str]) -> Iterator[Any]:
    filters: Any = [{"Name": "name", "Values": names}, {"Name": "state", "Values": ["available", "pending"]}]
    pages = client.get_paginator("describe_images").paginate(
        Owners=owners, Filters=filters, PaginationConfig={"PageSize": _PAGE}
    )
    for page in pages:
        yield from page["Images"]


def _newest(entries: Iterable[Any]) -> Iterator[tuple[tuple[str, str], Ami]]:
    found = sorted(entries, key=lambda entry: entry["CreationDate"])
    for alias, source in ALIASES.items():
        for arch, pattern in source.names.items():
            start = pattern.removesuffix("*")
            fitting = [e for e in found if e["OwnerId"] == source.owner and e["Name"].startswith(start)]
            if fitting:
                yield (alias, arch), ami(fitting[-1], alias)
