"""What a provider of compute implements: ``ComputeDriver``, its values and its features."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Literal, TypeVar, get_args

import attrs
from attrs.validators import in_, min_len

from shiftable.checks import are_networks, is_not_negative, is_positive, label_problem
from shiftable.compute._firewall import ANYWHERE, Rule, as_declared_ports, normal
from shiftable.compute._prices import Prices, PriceSource, read_prices, write_prices
from shiftable.compute._sizes import GIB, Arch, Choice, Size, choose_size
from shiftable.errors import ConfigError, NotFound, Resource, Unsupported
from shiftable.features import Features, Limit, feature
from shiftable.paging import Page, paged
from shiftable.service import Driver, Spec

__all__ = [
    "ALIASES",
    "FLEET_LABEL",
    "FORMS",
    "GIB",
    "IMPORT_LABEL",
    "STATES",
    "Arch",
    "Choice",
    "ComputeDriver",
    "ComputeFeatures",
    "Debris",
    "Disk",
    "DiskImage",
    "DiskSnapshot",
    "Firmware",
    "FleetSpec",
    "Image",
    "ImageForm",
    "MachineInfo",
    "MachineState",
    "Placement",
    "PriceSource",
    "Prices",
    "Rule",
    "Size",
    "choose_size",
    "read_prices",
    "relabelled",
    "write_prices",
]

T = TypeVar("T")

FLEET_LABEL = "shiftable-fleet"
"""The label whose value is the name of the fleet that a machine belongs to."""

IMPORT_LABEL = "shiftable-import"
"""The label of an imported image, and of what its making needs, whose value is the token of ``import_image``."""

ALIASES = ("debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04")
"""Images that every provider knows by these names, the newest of each; other names are the provider's own."""

MachineState = Literal[
    "creating",
    "running",
    "stopping",
    "stopped",
    "starting",
    "rebooting",
    "deleting",
    "deleted",
    "failed",
    "suspended",
    "unknown",
]
Placement = Literal["spread", "close"]
Firmware = Literal["bios", "uefi"]
ImageForm = Literal["gce", "qcow2", "raw", "vhd", "vmdk"]
FORMS: tuple[ImageForm, ...] = get_args(ImageForm)
STATES: tuple[MachineState, ...] = get_args(MachineState)


def _are_ports(_: object, field: attrs.Attribute[tuple[int, ...]], value: tuple[int, ...]) -> None:
    wrong = [port for port in value if not 0 < port < 65536]
    if wrong:
        raise ValueError(f"{field.name} must be 1 to 65535, not {wrong[0]}")


_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")  # useradd(8)
_KEY = re.compile(r"([ -~]*\s)?(ssh|ecdsa|sk)-[\w.@-]+ [A-Za-z0-9+/]+={0,3}( .*)?")


def _is_user(_: object, field: attrs.Attribute[str], value: str) -> None:
    if not _USER.fullmatch(value):
        raise ValueError(
            f"{field.name} must be the name of a user of Linux (lower-case letters, digits, - and _, at most 32, "
            f"beginning with a letter), not {value!r}"
        )


def _are_keys(_: object, field: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    for number, key in enumerate(value, 1):
        if not (key.isprintable() and _KEY.fullmatch(key)):
            # the value is not shown: it may be a private key
            raise ValueError(f"{field.name}: number {number} is no public key as in authorized_keys, on one line")


@attrs.frozen(kw_only=True)
class FleetSpec(Spec):
    """``[compute.x]``: machines that are alike. A fleet is a label on its machines: without any, there is none.

    Args:
        image: ``debian-12`` or another alias, or the provider's own name or id.
        cpus: at least so many; the smallest size that has all that is asked for is taken.
        memory_gib: at least so much.
        count: how many machines.
        arch: of the processors, ``x86_64`` or ``arm64``.
        gpus: at least so many.
        gpu: their kind, in the provider's words, where it matters.
        disk_gib: of the disk that it starts from, at least.
        zone: the provider's name of the part of the region; none: the provider chooses.
        zones: several, which the machines take in turn.
        placement: ``spread`` over hardware that does not fail together, or ``close`` to each other for a fast network;
            for new machines.
        spot: cheaper machines that the provider may take away.
        public_ip: reachable from the internet.
        open_ports: TCP ports that may be connected to from the networks in ``allow_from``.
        allow_from: networks that may connect, as ``192.0.2.0/24``.
        rules: what else may be connected to: other networks for some ports, UDP, many ports.
        network: the provider's name of an existing network, for new machines; none: its default.
        identity: the provider's name of who the machine is to the provider: a role, a service account.
        user: who logs in by ssh, for new machines.
        ssh_keys: public keys of who may, as in ``authorized_keys``, for new machines.
        user_data: a file for cloud-init, for new machines. It is read when a machine is made.
        user_data_text: the same, here.
        labels: of all machines; those that are not named are left alone.
    """

    image: str
    cpus: int = attrs.field(validator=is_positive)
    memory_gib: int = attrs.field(validator=is_positive)
    count: int = attrs.field(default=1, validator=is_not_negative)
    arch: Arch = "x86_64"
    gpus: int = attrs.field(default=0, validator=is_not_negative)
    gpu: str | None = None
    disk_gib: int = attrs.field(default=20, validator=is_positive)
    zone: str | None = None
    zones: tuple[str, ...] = ()
    placement: Placement | None = attrs.field(default=None, eq=False)
    spot: bool = False
    public_ip: bool = False
    open_ports: tuple[int, ...] = attrs.field(default=(), validator=_are_ports)
    allow_from: tuple[str, ...] = attrs.field(default=ANYWHERE, validator=are_networks)
    rules: tuple[Rule, ...] = ()
    network: str | None = attrs.field(default=None, eq=False)
    identity: str | None = attrs.field(default=None, eq=False)
    user: str = attrs.field(default="shift", eq=False, validator=_is_user)
    ssh_keys: tuple[str, ...] = attrs.field(default=(), eq=False, validator=_are_keys)
    user_data: Path | None = attrs.field(default=None, eq=False)
    user_data_text: str | None = attrs.field(default=None, eq=False, repr=False)
    labels: Mapping[str, str] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        if self.user_data is not None and self.user_data_text is not None:
            raise ValueError("give either user_data or user_data_text")
        if self.zone is not None and self.zones:
            raise ValueError("give either zone or zones")
        if FLEET_LABEL in self.labels:
            raise ValueError(f"the label {FLEET_LABEL} is the fleet's own")

    @property
    def firewall(self) -> tuple[Rule, ...]:
        """All that is open, ``open_ports`` and ``rules``, in the one way in which it can be compared."""
        return normal([*(Rule(port=port, allow_from=self.allow_from) for port in self.open_ports), *self.rules])

    def read_user_data(self) -> bytes | None:
        """Return what cloud-init gets.

        Raises:
            ConfigError: the file cannot be read.
        """
        if self.user_data is None:
            return self.user_data_text.encode() if self.user_data_text is not None else None
        try:
            return self.user_data.read_bytes()
        except OSError as exc:
            raise ConfigError(
                f"cannot read the user data of fleet {self.name!r}, {self.user_data}: {exc.strerror}"
            ) from exc


@attrs.frozen(kw_only=True)
class MachineInfo:
    """What a provider tells of a machine.

    Args:
        id: the provider's own; what its other methods take.
        name: of its host, ``web-0``.
        fleet: whose it is, ``None`` for one that nobody made by shiftable.
        state: in our words.
        raw_state: in the provider's.
        size: the provider's name of it.
        memory: in bytes.
        image: as it was asked for.
        disk_gib: of the disk that it starts from.
        addresses: inside the provider's network.
        public_addresses: from the internet.
        ports: where its ports are reached, at the first address, if not at themselves: ``{22: 40022}``.
        user: who logs in by ssh.
        firewall: who may connect to it.
        network: the provider's name of its network, where that is told.
        identity: who it is to the provider, where that is told.
        disks: ids of the disks that are attached beside the first.
        labels: all that it has, but those with which the driver keeps facts of its own.
        created: aware, UTC.
    """

    id: str
    name: str
    fleet: str | None
    state: MachineState
    raw_state: str
    size: str
    cpus: int
    memory: int
    image: str
    arch: Arch = "x86_64"
    gpus: int = 0
    disk_gib: int = 0
    zone: str | None = None
    spot: bool = False
    addresses: tuple[str, ...] = ()
    public_addresses: tuple[str, ...] = ()
    ports: Mapping[int, int] = attrs.Factory(dict)
    user: str = "shift"
    firewall: tuple[Rule, ...] = attrs.field(default=(), converter=normal)
    network: str | None = None
    identity: str | None = None
    disks: tuple[str, ...] = ()
    labels: Mapping[str, str] = attrs.Factory(dict)
    created: datetime | None = None

    @property
    def user_labels(self) -> dict[str, str]:
        """The labels without the fleet's own."""
        return {name: value for name, value in self.labels.items() if name != FLEET_LABEL}


def relabelled(now: Mapping[str, str], labels: Mapping[str, str], remove: frozenset[str]) -> dict[str, str]:
    """Return labels with some given and some taken away, as ``relabel`` has it."""
    return {**{name: value for name, value in now.items() if name not in remove}, **labels}


@attrs.frozen(kw_only=True)
class Image:
    """What a machine starts from.

    Args:
        id: the provider's own.
        name: an alias, or the name that its maker gave.
        own: made by this account.
        ready: machines can be made of it; one that is being made is not.
    """

    id: str
    name: str
    arch: Arch = "x86_64"
    disk_gib: int | None = None
    own: bool = False
    ready: bool = True
    created: datetime | None = None


def _usual_firmware(image: DiskImage) -> Firmware:
    return "uefi" if image.arch == "arm64" else "bios"


@attrs.frozen(kw_only=True)
class DiskImage:
    """The image of a disk that lies in a bucket of the same provider and account, to be imported.

    Args:
        bucket: its name.
        form: ``gce`` is a tar.gz with ``disk.raw`` in it; which ones a provider takes is in ``features.imports``.
        arch: of the machines that start from it.
        firmware: that they start by; else ``bios`` on x86_64 and ``uefi`` on arm64, which has no other.
        version: what tells it from others that lay or will lie there, as ``str(bucket.stat(key).token)``.
    """

    bucket: str = attrs.field(validator=min_len(1))
    key: str = attrs.field(validator=min_len(1))
    form: ImageForm = attrs.field(validator=in_(FORMS))
    arch: Arch = attrs.field(default="x86_64", validator=in_(get_args(Arch)))
    firmware: Firmware = attrs.field(
        default=attrs.Factory(_usual_firmware, takes_self=True), validator=in_(get_args(Firmware))
    )
    version: str = ""

    def __attrs_post_init__(self) -> None:
        if (self.arch, self.firmware) == ("arm64", "bios"):
            raise ValueError("machines of arm64 start by uefi, not by bios")


@attrs.frozen(kw_only=True)
class Disk:
    """A disk that lives longer than the machine that it is attached to.

    Args:
        machine: id of the machine, ``None`` while it is attached to none.
        device: where that machine finds it, ``/dev/disk/by-id/…``, if the provider lets that be known.
        ready: it is not just being made, attached or detached.
    """

    id: str
    name: str
    size_gib: int
    zone: str | None = None
    machine: str | None = None
    device: str | None = None
    ready: bool = True


@attrs.frozen(kw_only=True)
class DiskSnapshot:
    """What was on a disk at one time.

    Args:
        size_gib: of the disk.
        ready: disks can be made of it; one that is being made is not.
    """

    id: str
    name: str
    size_gib: int
    ready: bool = True
    created: datetime | None = None


@attrs.frozen(kw_only=True)
class Debris:
    """What a creation or deletion that failed left behind: it bears our label, and no machine has it.

    Args:
        kind: in the provider's words, ``network interface``.
        fleet: for whose machines it was made, where that is known.
        created: aware, UTC; ``None`` where the provider does not tell.
    """

    id: str
    kind: str
    name: str
    fleet: str | None = None
    created: datetime | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" of fleet {self.fleet}" if self.fleet else "")


@attrs.frozen(kw_only=True)
class ComputeFeatures(Features):
    """What a compute driver can do."""

    create: bool = feature("machines are made and deleted; if not, they are claimed from an inventory")
    arches: frozenset[str] = feature("architectures")
    gpus: bool = feature("machines with GPUs")
    stop: bool = feature("a machine is stopped and started, and costs less meanwhile")
    resize: bool = feature("the size of a stopped machine can be changed")
    console: bool = feature("what the machine wrote to its console")
    disks: bool = feature("disks that are attached and detached")
    snapshots: bool = feature("an image is made of a machine")
    spot: bool = feature("cheaper machines that may be taken away")
    public_ip: bool = feature("machines that are reachable from the internet")
    open_ports: bool = feature("a firewall around the machines")
    user_data: bool = feature("data for cloud-init")
    zones: bool = feature("a choice of the part of the region")
    network: bool = feature("a choice of the network")
    identity: bool = feature("machines that are somebody to the provider")
    prices: bool = feature("prices of sizes are known")
    placements: frozenset[str] = feature("what machines can be to each other", default=frozenset())
    disk_snapshots: bool = feature("snapshots of disks, and disks made of them", default=False)
    debris: bool = feature("what failed creations left behind is found and deleted", default=False)
    relabel: bool = feature("labels of a machine that is there are changed", default=False)
    imports: frozenset[ImageForm] = feature(
        "forms of disk images in a bucket that are imported as images; experimental", default=frozenset()
    )
    ssh: bool = feature("there is a machine to log in to; if not, it is only simulated")
    max_name: Limit = feature("longest name of a fleet, characters; its machines add a number")
    max_user_data: Limit | None = feature("largest user data, bytes, with what the driver adds to it", default=None)
    max_labels: Limit | None = feature("labels of one machine, the fleet's own included", default=None)
    price_list: PriceSource | None = feature("where prices are from, and of which date", default=None)


class ComputeDriver(Driver[FleetSpec]):
    """Machines of one provider. A fleet is the value of their label ``FLEET_LABEL``.

    What takes minutes returns when it has begun; ``machine`` tells the state. A state that forbids an operation is a
    conflict. Nothing here waits, and nothing decides how many machines there should be: the portable ``Compute`` does.

    Attributes:
        claims: it makes no machines, and ``create_machine`` claims one of an inventory.
    """

    claims: ClassVar[bool] = False

    @property
    @abstractmethod
    def features(self) -> ComputeFeatures:
        """What this driver can do."""

    def check_name(self, name: str) -> str | None:
        """Say why the provider could not hold a fleet of that name; ``None`` if it can. Sends nothing."""
        return label_problem(name, self.features.max_name)

    def missing_features(self, spec: FleetSpec) -> tuple[str, ...]:
        """Say what a declaration needs and this driver does not have. Sends nothing."""
        has = self.features
        needs = (
            (has.create or self.claims, "way to make machines"),
            (spec.arch in has.arches, f"machines of {spec.arch}"),
            (has.gpus or not spec.gpus, "GPUs"),
            (has.spot or not spec.spot, "spot machines"),
            (has.public_ip or not spec.public_ip, "public addresses"),
            (has.open_ports or not spec.firewall, "firewall"),
            (has.user_data or (spec.user_data is None and spec.user_data_text is None), "user data"),
            (has.zones or (spec.zone is None and not spec.zones), "choice of zones"),
            (spec.placement in {None, *has.placements}, f"machines that are {spec.placement}"),
            (has.network or spec.network is None, "choice of networks"),
            (has.identity or spec.identity is None, "identities of machines"),
        )
        return (*(what for met, what in needs if not met), *self.missing_labels(spec.labels))

    def missing_labels(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Say what labels of a user's need and this driver does not have. Sends nothing.

        A driver overrides it where not every text can be a label.
        """
        most = self.features.max_labels
        needs = (
            (most is None or len(labels) < most.value, f"room for {len(labels):,} labels"),
            ("" not in labels, "label without a name"),
            *(
                (not self.is_own_label(name), f"room for a label {name!r}, which is one of its own")
                for name in sorted(labels)
            ),
        )
        return tuple(what for met, what in needs if not met)

    def is_own_label(self, name: str) -> bool:
        """Tell whether a label is no user's to give or to take away.

        A driver overrides it where it keeps facts of its own as labels.
        """
        return name == FLEET_LABEL

    # fleets: what machines share; most of it is told by the machines themselves

    def create(self, spec: FleetSpec) -> None:
        """Make what the machines of a fleet share (a firewall, a key), without any machine. Again: no change.

        Refuse an image that there is not, or that is not ready, before anything else: machines that are there may be
        deleted next, for those that are to be made of it.
        """

    def describe(self, name: str) -> FleetSpec:
        """Return the fleet as its machines tell, the first one where they differ."""
        found = sorted((m for m in self._all(name) if m.state != "deleting"), key=lambda machine: machine.name)
        if not found:
            raise NotFound(
                "no machine belongs to it",
                provider=self.provider,
                operation="compute.describe",
                resource=Resource("fleet", name),
            )
        first = found[0]
        return FleetSpec(
            name=name,
            image=first.image,
            cpus=first.cpus,
            memory_gib=max(1, first.memory // GIB),
            count=len(found),
            arch=first.arch,
            gpus=first.gpus,
            disk_gib=max(1, first.disk_gib),
            zone=first.zone,
            spot=first.spot,
            public_ip=bool(first.public_addresses),
            **as_declared_ports(first.firewall, ANYWHERE),
            labels=first.user_labels,
        )

    def update(self, current: FleetSpec, spec: FleetSpec) -> None:
        """Change what the machines share, ``spec.firewall``; without touching a machine."""
        raise Unsupported("no firewall", provider=self.provider)

    def destroy(self, name: str) -> None:
        """Delete what the machines of a fleet shared; there are none any more. Again: no change."""

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return the names of all fleets: one page, since every machine must be seen for it."""
        found = sorted({machine.fleet for machine in self._all(None) if machine.fleet is not None})
        return Page(tuple(found[:limit]))

    def _all(self, fleet: str | None) -> Iterator[MachineInfo]:
        return paged(lambda cursor, left: self.machines(fleet, cursor=cursor, limit=left))

    # sizes and images

    @abstractmethod
    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:
        """Return one page of the sizes that this account can have here. Kept for an hour where it takes many calls."""

    @abstractmethod
    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:
        """Return one page of images: the newest of each alias, and the account's own."""

    def choose(self, spec: FleetSpec) -> Choice:
        """Choose the size for a declaration. A driver overrides it where any size can be had, or ``native`` names one.

        Raises:
            ValueError: no size is large enough.
        """
        every = paged(lambda cursor, left: self.sizes(cursor=cursor, limit=left))
        return choose_size(spec.cpus, spec.memory_gib, spec.arch, every, gpus=spec.gpus, gpu=spec.gpu)

    # machines

    def user_data(self, spec: FleetSpec, name: str, given: bytes | None) -> bytes | None:
        """Return what cloud-init of one machine gets, for ``create_machine``; its size is checked. Sends nothing.

        A driver overrides it with ``shiftable.compute.cloud_init`` where the provider has no way of its own to make the
        user, the keys and the host name.

        Raises:
            ValueError: it cannot be what cloud-init takes.
        """
        return given

    @abstractmethod
    def create_machine(
        self, spec: FleetSpec, name: str, *, size: Size, token: str, user_data: bytes | None
    ) -> MachineInfo:
        """Begin to make one machine of a fleet, with its label, and so that its image is told as it was asked for.

        Args:
            name: of the host.
            user_data: as ``user_data`` returned it; it may hold secrets.
            token: a UUID. The same one, again, returns the machine that it made, also if the answer to the first call
                was lost; but if that machine was deleted meanwhile, it makes a new one.
        """

    @abstractmethod
    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:
        """Return one page of the machines of one fleet, or of all, in any order; without those that are gone."""

    @abstractmethod
    def machine(self, id: str) -> MachineInfo:
        """Return one machine. One that is gone is missing."""

    @abstractmethod
    def delete_machine(self, id: str) -> None:
        """Begin to delete a machine, with the disk that it starts from and its addresses; other disks stay."""

    @abstractmethod
    def reboot(self, id: str) -> None:
        """Begin to restart a running machine."""

    # optional: each goes with a field of the features

    def start(self, id: str) -> None:
        """Begin to start a stopped machine."""
        raise Unsupported("machines cannot be stopped")

    def stop(self, id: str) -> None:
        """Begin to stop a running machine, so that it costs less: on Azure, deallocate it."""
        raise Unsupported("machines cannot be stopped")

    def resize(self, id: str, size: Size) -> None:
        """Change the size of a stopped machine."""
        raise Unsupported("machines cannot be resized")

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Give labels to a machine and take others from it, in whatever state it is.

        All that are not named stay as they are, whoever changes them at the same time: what a provider can only replace
        as a whole is read, and replaced in the version that was read. So the same call, again, changes nothing. What
        was made with the machine and is deleted with it has the same labels, where it had them from the beginning.

        Args:
            labels: new ones, and others in the place of those of the same name.
            remove: names; one that the machine does not have is no error.
        """
        raise Unsupported("labels cannot be changed")

    def console(self, id: str) -> bytes:
        """Return what the machine wrote to its console, the last of it."""
        raise Unsupported("no console")

    def image(self, id: str) -> Image:
        """Return one image, by its id. A driver overrides it where one call tells."""
        return self._of_id(id, self.images, "image")

    def snapshot(self, id: str, name: str) -> Image:
        """Begin to make an image of a machine."""
        raise Unsupported("no images of machines")

    def import_image(self, name: str, source: DiskImage, *, token: str) -> Image:
        """Begin to make an image of the image of a disk, or go on: who waits calls this again until it is ready.

        Args:
            token: a UUID, of the name and the source. The same one, again, from whichever process, makes no second
                image: it returns the one that is being made, or was made. An image of that name with another token, or
                with none, exists already. What failed or was cancelled leaves nothing; it is said once, and the next
                call begins anew.
        """
        raise Unsupported("no importer of disk images")

    def delete_image(self, image: str) -> None:
        """Delete an image of the account's own, with what it consists of."""
        raise Unsupported("no images of machines")

    def disks(self, *, cursor: str | None, limit: int | None) -> Page[Disk]:
        """Return one page of the disks that live longer than their machines."""
        raise Unsupported("no disks")

    def disk(self, disk: str) -> Disk:
        """Return one disk, by its id. A driver overrides it where one call tells."""
        return self._of_id(disk, self.disks, "disk")

    def create_disk(self, name: str, size_gib: int, *, zone: str | None, snapshot: str | None) -> Disk:
        """Begin to make a disk, encrypted in a cloud: empty, or with what a snapshot holds, whose id is given."""
        raise Unsupported("no disks")

    def delete_disk(self, disk: str) -> None:
        """Delete a disk that is attached to no machine."""
        raise Unsupported("no disks")

    def attach(self, id: str, disk: str) -> None:
        """Begin to attach a disk to a machine. One that is attached to it already is no error."""
        raise Unsupported("no disks")

    def detach(self, id: str, disk: str) -> None:
        """Begin to detach a disk from a machine. One that is attached to none is no error."""
        raise Unsupported("no disks")

    def disk_snapshots(self, *, cursor: str | None, limit: int | None) -> Page[DiskSnapshot]:
        """Return one page of the account's snapshots of disks."""
        raise Unsupported("no snapshots of disks")

    def disk_snapshot(self, snapshot: str) -> DiskSnapshot:
        """Return one snapshot of a disk, by its id. A driver overrides it where one call tells."""
        return self._of_id(snapshot, self.disk_snapshots, "snapshot")

    def snapshot_disk(self, disk: str, name: str) -> DiskSnapshot:
        """Begin to make a snapshot of a disk, attached or not."""
        raise Unsupported("no snapshots of disks")

    def delete_disk_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot of a disk. Disks that were made of it stay."""
        raise Unsupported("no snapshots of disks")

    def debris(self, *, cursor: str | None, limit: int | None) -> Page[Debris]:
        """Return one page of what bears our label and belongs to no machine; what needs another thing comes before it.

        A firewall of a fleet without machines is debris; disks of ``create_disk``, images and snapshots never are.
        """
        raise Unsupported("debris is not found")

    def delete_debris(self, debris: Debris) -> None:
        """Delete one such thing. One gone is no error; one that a machine has by now is a conflict."""
        raise Unsupported("debris is not found")

    def _of_id(self, id: str, pages: Callable[..., Page[T]], kind: str) -> T:
        """Look for one thing in its listing."""
        for found in paged(lambda cursor, left: pages(cursor=cursor, limit=left)):
            if getattr(found, "id", None) == id:
                return found
        raise NotFound(
            "there is none of that id",
            provider=self.provider,
            operation=f"compute.{kind}",
            resource=Resource(kind, id),
        )
