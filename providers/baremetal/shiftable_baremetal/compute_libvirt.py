"""Machines: a hypervisor that libvirt drives, here or by ssh."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import attrs

from shiftable.compute import cloud_init
from shiftable.compute.driver import (
    ALIASES,
    FLEET_LABEL,
    GIB,
    Choice,
    ComputeDriver,
    ComputeFeatures,
    Debris,
    Disk,
    DiskImage,
    DiskSnapshot,
    FleetSpec,
    Image,
    MachineInfo,
    MachineState,
    Size,
    relabelled,
)
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    OperationError,
    QuotaExceeded,
    Unavailable,
)
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable.parallel import parallel
from shiftable_baremetal import _libvirt_xml as xml
from shiftable_baremetal._disk_images import FORMS, Blobs, looked_at
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._libvirt_errors import NO_DOMAIN, NO_SUPPORT, NO_VOLUME, classify, code_of
from shiftable_baremetal._libvirt_monitor import DomainMonitor
from shiftable_baremetal._libvirt_session import Session
from shiftable_baremetal._libvirt_settings import LibvirtSettings
from shiftable_baremetal._libvirt_volumes import Item, Volumes, item_of, machine_of, virtual_size
from shiftable_baremetal._libvirt_xml import Facts, Files, Kind
from shiftable_baremetal._own_machines import any_size, check_disk, disk_gib, forwarded, native, page, size, sizes
from shiftable_baremetal._qemu_files import IMAGES, Area, Definition
from shiftable_baremetal._qemu_images import SOURCES, Base, Images, Source
from shiftable_baremetal._qemu_monitor import MonitorError
from shiftable_baremetal._qemu_seed import seed

__all__ = ["FEATURES", "FEATURES_USER", "LibvirtComputeDriver", "open_libvirt"]

FEATURES = ComputeFeatures(
    title="libvirt",
    create=True,
    arches=frozenset({"x86_64"}),
    gpus=False,
    stop=True,
    resize=True,
    console=True,
    disks=True,
    snapshots=True,
    spot=False,
    public_ip=False,
    open_ports=False,
    user_data=True,
    zones=False,
    network=True,
    identity=False,
    prices=False,
    disk_snapshots=True,
    debris=True,
    relabel=True,
    imports=FORMS,
    ssh=True,
    max_name=Limit(58, "a host name of Linux has 64 characters; less a number of four digits, and a reserve"),
)

FEATURES_USER = attrs.evolve(FEATURES, title="libvirt, user networks", open_ports=True, network=False)
"""With ``network = "user"``."""

_CONSOLE = 64 * 1024  # bytes; as EC2
_ADDRESS = "127.0.0.1"
_AT_ONCE = 5  # requests that libvirt's daemon takes from one client at a time: max_client_requests
_MINUTE, _HOUR = 60.0, 3600.0
_STEP = 0.05

# of libvirt's headers, which never change; the binding need not be there to read them
_LIVE, _CONFIG = 1, 2  # virDomainModificationImpact
_INACTIVE = 2  # virDomainXMLFlags
_METADATA = 2  # an element of our own: virDomainMetadataType
_STATS = 1 | 4 | 8 | 32  # state, memory, processors, disks: virDomainStatsTypes
_NO_WAIT = 1 << 29  # say what is known, also of one that is just being changed
_REUSE = 1  # copy into a volume that is there: virDomainBackupBeginFlags
_COMPLETED = 1  # virDomainGetJobStatsFlags
_AGENT = 1  # ask whoever is inside: virDomainInterfaceAddressesSource
_OPERATION_INVALID = 55
_RUNNING, _PAUSED, _SHUTDOWN, _SHUTOFF, _ASLEEP = 1, 3, 4, 5, 7

_STATES: Mapping[int, tuple[MachineState, str]] = {
    0: ("unknown", "no state"),
    _RUNNING: ("running", "running"),
    2: ("running", "blocked"),
    _PAUSED: ("suspended", "paused"),
    _SHUTDOWN: ("stopping", "shutdown"),
    _SHUTOFF: ("stopped", "shut off"),
    6: ("failed", "crashed"),
    _ASLEEP: ("suspended", "suspended by itself"),
}
_PAUSED_BECAUSE: Mapping[int, tuple[MachineState, str]] = {
    5: ("failed", "paused: its disk fails or is full"),
    6: ("failed", "paused by its watchdog"),
    8: ("stopping", "paused: it is shutting down"),
    9: ("running", "paused for a snapshot"),
    10: ("failed", "paused: it has crashed"),
    11: ("starting", "paused: it is starting up"),
}

T = TypeVar("T")
R = TypeVar("R")


def open_libvirt(settings: LibvirtSettings, root: Path, blobs: Blobs | None = None) -> LibvirtComputeDriver:
    """Make the driver.

    Args:
        root: the folder where images are kept that were downloaded.
        blobs: opens the buckets that images are imported from.
    """
    own = {each.name: each.file or Source(each.url or "", digest=each.digest or "") for each in settings.images}
    return LibvirtComputeDriver(
        Session(settings.uri),
        root,
        pool=settings.pool,
        network=settings.network,
        accelerator=settings.accelerator,
        own=own,
        blobs=blobs,
    )


@attrs.define(eq=False)
class LibvirtComputeDriver(ComputeDriver):
    """A domain for each machine, and volumes of one storage pool for its disks: nothing is kept here but downloads.

    What a machine is lies in its domain's metadata; fleets of all who use the hypervisor are seen. What others made is
    listed and not touched. libvirt replaces metadata whichever they are by then: labels that two computers change in
    the same moment are those of the later one; a listing knows of another's within a minute. Machines are in a network
    of libvirt's, and what that lets in is the hypervisor's affair; it reaches them, and whoever it leads to them. With
    ``network = "user"`` each has a network of its own as those of QEMU alone, and its ports are led to 127.0.0.1. An
    address comes from libvirt's DHCP, or from the guest agent of the machine. A machine that was told to stop and does
    not is ended by whoever looks at it ``patience`` later. A reboot is that of the button at the case. A restart of the
    hypervisor leaves machines stopped, unless its ``virsh autostart`` or libvirt-guests says otherwise. Disks are not
    encrypted: that is the business of the pool.

    Credentials: those of libvirt's address: for ``qemu:///system`` the group ``libvirt``, for ``qemu+ssh://`` ssh's,
    which asks for nothing at a terminal. Permissions: to read and write domains and volumes; with polkit
    ``org.libvirt.unix.manage``.

    Args:
        session: the connection.
        root: the folder where images are kept that were downloaded.
        pool: of all volumes.
        network: for machines that name none; ``user``: one of each machine's own.
        accelerator: what runs machines; ``auto``: what the hypervisor says that it has.
        own: images of the user, by their names.
        sources: of the aliases.
        blobs: opens the buckets that images are imported from; without them there is no importer.
        features: what it shall be able to do; else what goes with the network.
        patience: seconds that a machine has to stop.
        page_size: items of one page.
    """

    _session: Session
    _root: Path
    _pool: str = attrs.field(default="default", kw_only=True)
    _network: str = attrs.field(default="default", kw_only=True)
    _accelerator: Literal["auto", "kvm", "tcg"] = attrs.field(default="auto", kw_only=True)
    _own: Mapping[str, Path | Source] = attrs.field(factory=dict, kw_only=True)
    _sources: Mapping[str, Source] = attrs.field(default=SOURCES, kw_only=True, repr=False)
    _blobs: Blobs | None = attrs.field(default=None, kw_only=True, repr=False)
    _features: ComputeFeatures | None = attrs.field(default=None, kw_only=True, repr=False)
    _patience: float = attrs.field(default=90.0, kw_only=True)
    _page_size: int = attrs.field(default=100, kw_only=True)
    _volumes: Volumes = attrs.field(init=False, repr=False)
    _limits: tuple[float, Kind, int] | None = attrs.field(default=None, init=False, repr=False)
    _known: dict[str, tuple[float, Facts]] = attrs.field(factory=dict, init=False, repr=False)
    _stopping: set[str] = attrs.field(factory=set, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._volumes = Volumes(self._session, self._pool)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "baremetal"

    @property
    def features(self) -> ComputeFeatures:
        """What machines of libvirt can do in these networks."""
        known = self._features or (FEATURES_USER if self._is_user else FEATURES)
        return known if self._blobs is not None else attrs.evolve(known, imports=frozenset())

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        if isinstance(exc, MonitorError):
            return Fault(Conflict, str(exc), exc.code)
        return classify(exc)

    def close(self) -> None:
        """End the connection."""
        self._session.close()

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Have the image in the pool, which may take minutes the first time."""
        self._image_path(spec.image)

    def update(self, current: FleetSpec, spec: FleetSpec) -> None:
        """Open and close ports of the machines, while they run."""
        opened = forwarded(spec)
        for domain, facts, _ in self._each(current.name):
            if facts.definition is None:
                continue
            definition = attrs.evolve(facts.definition, firewall=opened)
            if domain.isActive():
                with DomainMonitor(domain) as monitor:
                    monitor.lead(definition.forwarded)
                self._tell(domain, definition)
            self._redefine(domain, definition)

    # sizes and images

    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:
        """Return some of the sizes that the hypervisor has room for; any other can be had."""
        kind, memory_gib = self._limit()
        fitting = [each for each in sizes() if each.cpus <= kind.most_cpus and each.memory <= memory_gib * GIB]
        return page(fitting, cursor, self._count(limit))

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:
        """Return one page of the aliases, the user's images, and those of machines."""
        every: list[Image | str] = [Image(id=name, name=name) for name in dict.fromkeys((*ALIASES, *self._own))]
        every += self._volumes.whole("image") if self.features.snapshots else []
        shown = page(every, cursor, self._count(limit))
        found = _living(lambda each: self._own_image(each) if isinstance(each, str) else each, shown.items)
        return Page(found, shown.next)

    def choose(self, spec: FleetSpec) -> Choice:
        """Take what is asked for."""
        kind, memory_gib = self._limit()
        return any_size(spec, kind.most_cpus, memory_gib)

    # machines

    def user_data(self, spec: FleetSpec, name: str, given: bytes | None) -> bytes | None:
        """Return the user, the keys and the host name, with what the user gave."""
        return cloud_init(spec, name, given)

    def create_machine(
        self, spec: FleetSpec, name: str, *, size: Size, token: str, user_data: bytes | None
    ) -> MachineInfo:
        """Make a machine and start it, or return the one that this token has made.

        It runs before it is defined to stay, so that what is only half made is never taken for one that was stopped.
        """
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
            _fail(InvalidArgument, "a machine's name is that of a host: lower-case letters, digits and hyphens")
        there = self._named(name)
        if there is not None:
            return self._again(there, name, spec, token)
        base, bytes_ = self._image_path(spec.image)
        declared = native(spec)
        definition = Definition(
            id=str(uuid.uuid4()),
            name=name,
            fleet=spec.name,
            token=token,
            image=spec.image,
            cpus=size.cpus,
            memory=size.memory,
            disk_gib=disk_gib(spec, bytes_),
            user=spec.user,
            firewall=forwarded(spec) if self._is_user else (),
            labels={**spec.labels, FLEET_LABEL: spec.name},
            created=datetime.now(UTC),
            kernel=self._file(declared.kernel),
            initrd=self._file(declared.initrd),
            append=declared.append,
        )
        network = None if self._is_user else spec.network or self._network
        try:
            text = xml.domain(definition, self._limit()[0], self._files(definition, base, user_data or b""), network)
            self._session.connection.createXML(text, 0)
        except BaseException as exc:
            there = self._cleared(definition)
            if there is None or not isinstance(exc, Exception):
                raise
            return self._again(there, name, spec, token)
        self._session.connection.defineXML(text)
        return self.machine(definition.id)

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:
        """Return one page of machines, in the order of their names.

        All is told in three calls, and by one more for each machine that this driver has never seen.
        """
        count = self._count(limit)
        found = list(self._each(fleet, after=cursor or "", count=count + 1))
        leases = self._leases(facts for _, facts, _ in found[:count])
        told = tuple(self._info(domain, facts, stats, leases) for domain, facts, stats in found[:count])
        return Page(told, told[-1].name if len(found) > count else None)

    def machine(self, id: str) -> MachineInfo:
        """Return one machine."""
        domain = self._domain(id)
        facts = self._facts(domain)
        state, reason = domain.state(0)
        return self._info(domain, facts, {"state.state": state, "state.reason": reason}, self._leases([facts]))

    def delete_machine(self, id: str) -> None:
        """End a machine, and delete it with its volumes."""
        domain, definition = self._ours(id)
        self._volumes.require_active()
        stays = domain.isPersistent()
        with _unless_already(_OPERATION_INVALID, NO_DOMAIN):
            domain.destroy()
        if stays:
            with _unless_already(NO_DOMAIN):
                self._session.undefine(domain)
        self._forget(id)
        self._volumes.remove_machine(definition.name, id)

    def reboot(self, id: str) -> None:
        """Restart a running machine, as by its button: what it has not written to its disk is lost."""
        domain, _ = self._ours(id)
        self._require(domain, "running")
        self._session.reset(domain)

    def start(self, id: str) -> None:
        """Start a stopped machine, or let one go on that stands still."""
        domain, definition = self._ours(id)
        if self._require(domain, "stopped", "suspended", "failed") == "stopped":
            self._forget(id)
            domain.create()
        elif domain.state(0)[0] == _ASLEEP:
            domain.pMWakeup(0)
        elif domain.state(0)[0] == _PAUSED:
            domain.resume()
        else:
            _fail(Conflict, f"{definition.name} has crashed; stop it first")

    def stop(self, id: str) -> None:
        """Press the button of a running machine; one that has not stopped after a while is ended."""
        domain, _ = self._ours(id)
        state = self._require(domain, "running", "suspended", "failed", "unknown")
        if state == "failed":
            domain.destroy()  # it would not notice
            return
        mark = xml.stopping(time.time())
        with self._lock:
            self._stopping.add(id)
        domain.setMetadata(_METADATA, mark, "shiftable-stopping", xml.STOPPING, _LIVE)
        if state == "suspended" and domain.state(0)[0] == _PAUSED:
            domain.resume()
        with _unless_already(_OPERATION_INVALID):
            domain.shutdownFlags(0)

    def resize(self, id: str, size: Size) -> None:
        """Change the size of a stopped machine."""
        domain, definition = self._ours(id)
        self._require(domain, "stopped")
        if size.arch != definition.arch:
            _fail(InvalidArgument, f"the machine is of {definition.arch}")
        self._redefine(domain, attrs.evolve(definition, cpus=size.cpus, memory=size.memory))

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Change labels of a machine, in what it is now and in what it is when it starts the next time."""
        domain, definition = self._ours(id)
        with Area(self._root).changing(definition.name):  # other threads and processes of this user wait
            domain, definition = self._ours(id)
            told = xml.machine(attrs.evolve(definition, labels=relabelled(definition.labels, labels, remove)))
            where = (_CONFIG if domain.isPersistent() else 0) | (_LIVE if domain.isActive() else 0)
            domain.setMetadata(_METADATA, told, "shiftable", xml.MACHINE, where)
        self._forget(id)

    def console(self, id: str) -> bytes:
        """Return the last of what the machine wrote to its serial port since it was started."""
        _, definition = self._ours(id)
        return self._volumes.console(definition.name, id, _CONSOLE)

    # images

    def image(self, id: str) -> Image:
        """Return one image."""
        if f"shiftable.image.{id}" in self._volumes.whole("image"):
            return self._own_image(f"shiftable.image.{id}")
        return super().image(id)

    def snapshot(self, id: str, name: str) -> Image:
        """Make an image of a machine. What one that runs has not written to its disk is not in it."""
        self._images.check_new(name)
        domain, definition = self._ours(id)
        self._require(domain, "running", "stopped")
        volume = f"shiftable.image.{name}"
        with self._new(volume, f"there is an image {name!r}"):
            self._copy(domain, "vda", volume, definition.disk_gib * GIB)
        return self._own_image(volume)

    def import_image(self, name: str, source: DiskImage, *, token: str) -> Image:
        """Write an object into the pool through here, in one call, and make it an image.

        What a process that was killed has written is not written again. On this computer one does it at a time.
        """
        if self._blobs is None:
            return super().import_image(name, source, token=token)
        if source.firmware != "bios":
            _fail(InvalidArgument, f"machines here start by bios, not by {source.firmware}")
        self._images.check_new(name)
        volume = f"shiftable.image.{name}"
        with Area(self._root).alone(f"{IMAGES}.{name}") as alone:
            ready = alone and self._volumes.has_imported(volume, token)
            if alone and not ready:
                with looked_at(self._blobs, source) as origin:
                    ready = self._volumes.import_object(volume, token, origin)
        return self._own_image(volume) if ready else Image(id=name, name=name, own=True, ready=False)

    def delete_image(self, image: str) -> None:
        """Delete an image of which no machine was made that still is."""
        volume = f"shiftable.image.{image}"
        if volume not in self._volumes.whole("image"):
            _fail(NotFound, f"there is no image {image!r} of a machine")
        users = sorted(f.name for _, f, _ in self._each(None) if f.definition and f.definition.image == image)
        if users:
            _fail(Conflict, f"machines were made from it: {', '.join(users)}; delete them first")
        self._volumes.drop(volume)

    # disks

    def disks(self, *, cursor: str | None, limit: int | None) -> Page[Disk]:
        """Return one page of disks."""
        shown = page(self._volumes.items("disk"), cursor, self._count(limit))
        users = self._users()
        return Page(_living(lambda each: self._disk(each, users), shown.items), shown.next)

    def disk(self, disk: str) -> Disk:
        """Return one disk."""
        return self._disk(self._volumes.item("disk", disk), self._users())

    def create_disk(self, name: str, size_gib: int, *, zone: str | None, snapshot: str | None) -> Disk:
        """Make a disk, which takes room only for what is written to it."""
        if zone is not None:
            _fail(InvalidArgument, "there is one place for disks, the pool; leave the zone out")
        check_disk(size_gib)
        made = Item("disk", f"disk-{secrets.token_hex(4)}", name)
        if snapshot is None:
            self._volumes.made(made, size_gib * GIB)
            return self._disk(made, {})
        source = self._volumes.item("snapshot", snapshot)
        if size_gib * GIB < self._volumes.size(source.volume):
            _fail(InvalidArgument, "it is smaller than what it is made of")
        with self._new(made.volume, f"there is a disk {made.id!r}"):
            self._volumes.copy(self._volumes.find(source.volume), made.volume, size_gib * GIB)
        return self._disk(made, {})

    def delete_disk(self, disk: str) -> None:
        """Delete a disk."""
        if self.disk(disk).machine is not None:
            _fail(Conflict, "it is attached to a machine; detach it first")
        self._volumes.drop(self._volumes.item("disk", disk).volume)

    def attach(self, id: str, disk: str) -> None:
        """Attach a disk, also while the machine runs."""
        found = self.disk(disk)
        domain, _ = self._ours(id)
        state = self._require(domain, "running", "stopped")
        if found.machine is not None:
            if found.machine != id:
                _fail(Conflict, "it is attached to another machine")
            return
        path = self._volumes.find(self._volumes.item("disk", disk).volume).path()
        order = xml.data_disk(path, disk, self._facts(domain).disks)
        domain.attachDeviceFlags(order, _CONFIG | (_LIVE if state == "running" else 0))
        self._forget(id)

    def detach(self, id: str, disk: str) -> None:
        """Detach a disk, also while the machine runs."""
        found = self.disk(disk)
        domain, _ = self._ours(id)
        state = self._require(domain, "running", "stopped")
        if found.machine is None:
            return
        if found.machine != id:
            _fail(Conflict, "it is attached to another machine")
        device, path = self._device(domain, disk)
        domain.detachDeviceFlags(
            xml.data_disk(path, disk, (), device=device), _CONFIG | (_LIVE if state == "running" else 0)
        )
        self._forget(id)

    def disk_snapshots(self, *, cursor: str | None, limit: int | None) -> Page[DiskSnapshot]:
        """Return one page of snapshots of disks."""
        shown = page(self._volumes.items("snapshot"), cursor, self._count(limit))
        return Page(_living(self._disk_snapshot, shown.items), shown.next)

    def disk_snapshot(self, snapshot: str) -> DiskSnapshot:
        """Return one snapshot of a disk."""
        return self._disk_snapshot(self._volumes.item("snapshot", snapshot))

    def snapshot_disk(self, disk: str, name: str) -> DiskSnapshot:
        """Make a snapshot of a disk, also of one that a running machine has."""
        found, item = self.disk(disk), self._volumes.item("disk", disk)
        made = Item("snapshot", f"snap-{secrets.token_hex(4)}", name)
        with self._new(made.volume, f"there is a snapshot {made.id!r}"):
            if found.machine is None:
                self._volumes.copy(self._volumes.find(item.volume), made.volume, found.size_gib * GIB)
            else:
                domain, _ = self._ours(found.machine)
                self._copy(domain, self._device(domain, disk)[0], made.volume, found.size_gib * GIB)
        return self._disk_snapshot(made)

    def delete_disk_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot of a disk."""
        self._volumes.drop(self._volumes.item("snapshot", snapshot).volume)

    # what is left

    def debris(self, *, cursor: str | None, limit: int | None) -> Page[Debris]:
        """Return one page of volumes that are not complete, or whose machine is gone."""
        volumes = self._volumes.unfinished()
        living = {domain.UUIDString() for domain in self._session.connection.listAllDomains(0)}
        left = [name for name in volumes if (of := machine_of(name)) is None or of[1] not in living]
        shown = page(left, cursor, self._count(limit))
        return Page(tuple(self._debris(name) for name in shown.items), shown.next)

    def delete_debris(self, debris: Debris) -> None:
        """Delete such a volume."""
        of = machine_of(debris.id)
        if of is not None and self._lives(of[1]):
            _fail(Conflict, "a machine has it by now")
        if debris.id in self._volumes.unfinished():
            self._volumes.remove(debris.id)
        elif debris.id in self._volumes.names():
            _fail(Conflict, "it is complete by now")

    # what they share

    @property
    def _is_user(self) -> bool:
        return self._network == "user"

    @property
    def _images(self) -> Images:
        return Images(Area(self._root), self._own, self._sources)

    def _limit(self) -> tuple[Kind, int]:
        """Return what the hypervisor runs machines with, and its memory in GiB; kept an hour."""
        known = self._limits
        if known is None or abs(time.monotonic() - known[0]) > _HOUR:
            memory = int(self._session.connection.getInfo()[1]) // 1024
            known = self._limits = (time.monotonic(), self._session.kind(self._accelerator), memory)
        return known[1], known[2]

    def _image_path(self, image: str) -> tuple[tuple[str, str], int]:
        """Return path and format of an image in the pool, and how many bytes its disk has."""
        volume = f"shiftable.image.{image}"
        if image not in self._own and image not in self._sources and volume in self._volumes.whole("image"):
            found = self._volumes.find(volume)
            return (found.path(), "qcow2"), int(found.info()[1])
        base = self._images.base(image)
        bytes_ = virtual_size(base)
        return (self._volumes.base(base), base.format), bytes_

    def _file(self, given: Path | None) -> str | None:
        return None if given is None else self._volumes.base(Base(given.absolute(), "raw"))

    def _files(self, definition: Definition, base: tuple[str, str], user_data: bytes) -> Files:
        """Make the volumes of a machine."""
        name, id_ = definition.name, definition.id
        return Files(
            disk=self._volumes.make(name, id_, "disk", definition.disk_gib * GIB, backing=base),
            seed=self._volumes.make_filled(name, id_, "seed", seed(id_, name, user_data)),
            console=self._volumes.make(name, id_, "console", 0, kind="raw"),
            kernel=definition.kernel,
            initrd=definition.initrd,
        )

    def _cleared(self, definition: Definition) -> Any:  # noqa: ANN401  libvirt has no types
        """Return the machine of that name that there is after all; delete the volumes of one that could not be made.

        What cannot be asked for now is left to ``sweep``.
        """
        with contextlib.suppress(Exception):
            if not self._lives(definition.id):
                self._volumes.remove_machine(definition.name, definition.id)
            return self._named(definition.name)
        return None

    def _again(self, domain: Any, name: str, spec: FleetSpec, token: str) -> MachineInfo:  # noqa: ANN401  libvirt has no types
        """Return the machine that there is, if this token made it."""
        facts = self._facts(domain)
        known = facts.definition
        if known is None:
            _fail(AlreadyExists, f"the hypervisor has a machine {name!r}, which nobody made by shiftable")
        if (known.token, known.fleet) != (token, spec.name):
            _fail(AlreadyExists, f"there is a machine {name!r}, of the fleet {known.fleet!r}")
        if not domain.isPersistent():  # whoever made it came no further
            self._session.connection.defineXML(domain.XMLDesc(_INACTIVE))
        return self.machine(facts.id)

    def _domain(self, id: str) -> Any:  # noqa: ANN401  libvirt has no types
        if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", id):
            _fail(NotFound, "there is no such machine")
        return self._session.connection.lookupByUUIDString(id)

    def _named(self, name: str) -> Any:  # noqa: ANN401  libvirt has no types
        try:
            return self._session.connection.lookupByName(name)
        except Exception as exc:
            if code_of(exc) != NO_DOMAIN:
                raise
            return None

    def _lives(self, id: str) -> bool:
        try:
            self._domain(id)
        except Exception as exc:
            if code_of(exc) != NO_DOMAIN:
                raise
            return False
        return True

    def _ours(self, id: str) -> tuple[Any, Definition]:
        domain = self._domain(id)
        definition = self._facts(domain).definition
        if definition is None:
            _fail(Conflict, "nobody made this machine by shiftable, which changes only its own")
        return domain, definition

    def _facts(self, domain: Any) -> Facts:  # noqa: ANN401  libvirt has no types
        """Return what the XML of a domain tells now."""
        return xml.read_domain(domain.XMLDesc(0))

    def _each(
        self, fleet: str | None, *, after: str = "", count: int | None = None
    ) -> Iterator[tuple[Any, Facts, Any]]:
        """Yield domains in the order of their names, what they are, and what they do."""
        told = self._session.connection.getAllDomainStats(_STATS, _NO_WAIT)
        left = sorted(((domain.name(), domain, stats) for domain, stats in told), key=lambda each: each[0])
        left = [each for each in left if each[0] > after]
        with self._lock:
            living = {domain.UUIDString() for domain, _ in told}
            self._known = {id_: kept for id_, kept in self._known.items() if id_ in living}
        shown = 0
        while left and (count is None or shown < count):
            batch = len(left) if count is None else count - shown
            facts = self._many([domain for _, domain, _ in left[:batch]])
            for _, domain, stats in left[:batch]:
                found = facts.get(domain.UUIDString())
                if found is not None and fleet in (None, found.fleet):
                    shown += 1
                    yield domain, found, stats
            left = left[batch:]

    def _many(self, domains: Sequence[Any]) -> dict[str, Facts]:
        """Return what domains are, without those that vanished meanwhile."""
        now = time.monotonic()
        with self._lock:
            kept = {id_: facts for id_, (when, facts) in self._known.items() if now - when < _MINUTE}
            known = {id_: facts for id_, facts in kept.items() if id_ not in self._stopping}
        unknown = [domain for domain in domains if domain.UUIDString() not in known]
        for domain, future in parallel(self._facts, unknown, workers=_AT_ONCE):
            try:
                known[domain.UUIDString()] = future.result()
            except Exception as exc:
                if code_of(exc) != NO_DOMAIN:
                    raise
        if not self._is_user:  # there, what is open can change
            asked = {domain.UUIDString() for domain in unknown}
            with self._lock:
                self._known |= {id_: (now, facts) for id_, facts in known.items() if id_ in asked}
        return known

    def _forget(self, id: str) -> None:
        with self._lock:
            self._known.pop(id, None)
            self._stopping.discard(id)

    def _leases(self, machines: Any) -> dict[str, tuple[str, ...]]:  # noqa: ANN401  any iterable of Facts
        """Return the addresses that libvirt's networks have given to machines."""
        found: dict[str, tuple[str, ...]] = {}
        for name in sorted({name for facts in machines for name in facts.networks.values() if name}):
            with _unless_already(NO_SUPPORT, 43, _OPERATION_INVALID):  # such a network gives none
                found |= self._session.leases(self._session.connection.networkLookupByName(name))
        return found

    def _info(self, domain: Any, facts: Facts, stats: Mapping[str, Any], leases: Mapping[str, Any]) -> MachineInfo:  # noqa: ANN401  libvirt has no types
        known, state, raw = facts.definition, *self._state(domain, facts, stats)
        cpus = int(stats.get("vcpu.maximum", facts.cpus))
        memory = int(stats.get("balloon.maximum", facts.memory // 1024)) * 1024
        ports = self._ports(domain) if state == "running" and known is not None and self._is_user else {}
        addresses: tuple[str, ...] = (_ADDRESS,) if ports else ()
        if state in {"running", "stopping"} and not self._is_user:
            addresses = tuple(each for mac in facts.networks for each in leases.get(mac, ())) or self._inside(domain)
        paths = [value for key, value in stats.items() if re.fullmatch(r"block\.\d+\.path", key)]
        items = [item_of(path) for path in (paths if "block.count" in stats else facts.disks.values())]
        return MachineInfo(
            id=facts.id,
            name=facts.name,
            fleet=facts.fleet,
            state=state,
            raw_state=raw,
            size=size(cpus, memory // GIB).name,
            cpus=cpus,
            memory=memory,
            image=known.image if known else "",
            disk_gib=known.disk_gib if known else 0,
            addresses=addresses,
            ports=ports,
            user=known.user if known else "root",
            firewall=known.firewall if known else (),
            network=next((name for name in facts.networks.values() if name), None),
            disks=tuple(item.id for item in items if item is not None),
            labels=known.labels if known else {},
            created=known.created if known else None,
        )

    def _state(self, domain: Any, facts: Facts, stats: Mapping[str, Any]) -> tuple[MachineState, str]:  # noqa: ANN401  libvirt has no types
        """Return the state in our words and in libvirt's; end what should have stopped."""
        number, reason = stats.get("state.state", 0), stats.get("state.reason", 0)
        state, raw = _STATES.get(number, ("unknown", f"state {number}"))
        if number == _PAUSED:
            state, raw = _PAUSED_BECAUSE.get(reason, (state, raw))
        if state == "stopped":
            if facts.id in self._stopping:
                self._forget(facts.id)
            return state, raw
        if facts.stopping is None or facts.definition is None:
            return state, raw
        if time.time() - facts.stopping < self._patience:
            return "stopping", f"{raw}, told to stop"
        with _unless_already(_OPERATION_INVALID, NO_DOMAIN):
            domain.destroy()
        return "stopped", "ended, since it did not stop"

    def _ports(self, domain: Any) -> dict[int, int]:  # noqa: ANN401  libvirt has no types
        try:
            with DomainMonitor(domain) as monitor:
                forwards = monitor.forwards()
        except Exception as exc:
            if code_of(exc) not in {_OPERATION_INVALID, NO_DOMAIN}:  # it has just ended
                raise
            return {}
        return {port: forwards[kind, port] for kind, port in sorted(forwards, reverse=True)}  # of both, that of TCP

    def _inside(self, domain: Any) -> tuple[str, ...]:  # noqa: ANN401  libvirt has no types
        """Ask the machine itself, if it has an agent."""
        found: list[str] = []
        with _unless_already(NO_SUPPORT, _OPERATION_INVALID, NO_DOMAIN, 74, 86):
            told = domain.interfaceAddresses(_AGENT) if self._facts(domain).agent else {}
            for name, interface in sorted(told.items()):
                if name != "lo":
                    found += [each["addr"] for each in interface["addrs"] or () if not each["addr"].startswith("fe80:")]
        return tuple(sorted(found, key=lambda each: ":" in each))

    def _require(self, domain: Any, *states: MachineState) -> MachineState:  # noqa: ANN401  libvirt has no types
        number, reason = domain.state(0)
        told = {"state.state": number, "state.reason": reason}
        state = self._state(domain, self._facts(domain), told)[0]
        if state not in states:
            _fail(Conflict, f"it is {state}; it must be {' or '.join(states)}")
        return state

    def _tell(self, domain: Any, definition: Definition) -> None:  # noqa: ANN401  libvirt has no types
        """Write what a running machine is into its metadata."""
        domain.setMetadata(_METADATA, xml.machine(definition), "shiftable", xml.MACHINE, _LIVE)

    def _redefine(self, domain: Any, definition: Definition) -> None:  # noqa: ANN401  libvirt has no types
        """Write what a machine is when it starts the next time."""
        self._session.connection.defineXML(xml.changed(domain.XMLDesc(_INACTIVE), definition))
        self._forget(definition.id)

    @contextlib.contextmanager
    def _new(self, volume: str, taken: str) -> Iterator[None]:
        """Make a volume in the block, which is complete when that has ended well."""
        if volume in self._volumes.names():
            _fail(AlreadyExists, f"{taken}, or one that is being made")
        with self._volumes.making(volume):
            yield

    def _copy(self, domain: Any, device: str, volume: str, bytes_: int) -> None:  # noqa: ANN401  libvirt has no types
        """Copy a disk of a machine as it is now; of one that runs by QEMU, which alone knows what it has written."""
        facts = self._facts(domain)
        if not domain.isActive():
            source = self._session.connection.storageVolLookupByPath(facts.disks[device])
            self._volumes.copy(source, volume, bytes_)
            return
        target = self._volumes.make_empty(volume, bytes_)
        domain.backupBegin(xml.backup(device, facts.disks, target.path()), None, _REUSE)
        while domain.jobInfo()[0]:
            time.sleep(_STEP)
        told = domain.jobStats(_COMPLETED)
        if not told.get("success", True):
            why = str(told.get("errmsg") or "libvirt does not say why")
            _fail(QuotaExceeded if "No space" in why else Unavailable, f"the copy did not come to its end: {why}")

    def _device(self, domain: Any, disk: str) -> tuple[str, str]:  # noqa: ANN401  libvirt has no types
        """Return as what a machine has a disk, and its path."""
        for device, path in self._facts(domain).disks.items():
            item = item_of(path)
            if item is not None and item.id == disk:
                return device, path
        raise FilesError(Fault(Conflict, "it is just being attached or detached"))

    def _users(self) -> dict[str, str]:
        """Return who has which disk, by their ids."""
        found = {}
        for domain, stats in self._session.connection.getAllDomainStats(_STATS, _NO_WAIT):
            for key, value in stats.items():
                item = item_of(value) if re.fullmatch(r"block\.\d+\.path", key) else None
                if item is not None:
                    found[item.id] = domain.UUIDString()
        return found

    def _disk(self, item: Item, users: Mapping[str, str]) -> Disk:
        machine = users.get(item.id)
        device = None if machine is None else f"/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{item.id}"
        gib = self._volumes.size(item.volume) // GIB
        return Disk(id=item.id, name=item.name, size_gib=gib, machine=machine, device=device)

    def _disk_snapshot(self, item: Item) -> DiskSnapshot:
        gib = self._volumes.size(item.volume) // GIB
        return DiskSnapshot(id=item.id, name=item.name, size_gib=gib, created=self._written(item.volume))

    def _own_image(self, volume: str) -> Image:
        name = volume.removeprefix("shiftable.image.")
        gib = self._volumes.size(volume) // GIB
        return Image(id=name, name=name, disk_gib=gib, own=True, created=self._written(volume))

    def _debris(self, volume: str) -> Debris:
        of = machine_of(volume)
        fleet = None if of is None else of[0].rpartition("-")[0] or None
        return Debris(id=volume, kind="volume", name=volume, fleet=fleet, created=self._written(volume))

    def _written(self, volume: str) -> datetime | None:
        told = self._volumes.written(volume)
        return None if told is None else datetime.fromtimestamp(told, UTC)

    def _count(self, limit: int | None) -> int:
        return self._page_size if limit is None else min(limit, self._page_size)


def _living(tell: Callable[[T], R], items: Iterable[T]) -> tuple[R, ...]:
    """Return what is told of volumes, without those that vanished since they were listed."""
    found: list[R] = []
    for each in items:
        with _unless_already(NO_VOLUME):
            found.append(tell(each))
    return tuple(found)


@contextlib.contextmanager
def _unless_already(*codes: int) -> Iterator[None]:
    """Take no offence at libvirt's errors of these codes."""
    try:
        yield
    except Exception as exc:
        if code_of(exc) not in codes:
            raise


def _fail(error: type[OperationError], message: str) -> NoReturn:
    raise FilesError(Fault(error, message))
