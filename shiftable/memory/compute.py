"""Machines that do not exist: states, sizes, disks and images as a provider has them, and nothing to log in to."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NoReturn, TypeVar

import attrs

from shiftable.compute.driver import (
    ALIASES,
    FLEET_LABEL,
    FORMS,
    GIB,
    Arch,
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
    PriceSource,
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
from shiftable.memory._faults import MemoryFault, classify
from shiftable.paging import Page

__all__ = ["FEATURES", "SIZES", "MemoryComputeDriver"]

FEATURES = ComputeFeatures(
    title="this process",
    create=True,
    arches=frozenset({"x86_64", "arm64"}),
    gpus=True,
    stop=True,
    resize=True,
    console=True,
    disks=True,
    snapshots=True,
    spot=True,
    public_ip=True,
    open_ports=True,
    user_data=True,
    zones=True,
    network=True,
    identity=True,
    prices=True,
    placements=frozenset({"spread", "close"}),
    disk_snapshots=True,
    debris=True,
    relabel=True,
    imports=frozenset(FORMS),
    ssh=False,
    max_name=Limit(58, "chosen, as Compute Engine with a number of four digits"),
    max_user_data=Limit(16_384, "chosen, as Amazon EC2"),
    max_labels=Limit(50, "chosen, as Amazon EC2"),
    price_list=PriceSource("chosen"),
)


def _size(arch: Arch, cpus: int, per_cpu: int) -> Size:
    prefix = "a" if arch == "arm64" else "m"
    memory = cpus * per_cpu
    price = Decimal(cpus * 3 + memory) / 100 * (1 if arch == "x86_64" else Decimal("0.8"))
    return Size(name=f"{prefix}{cpus}-{memory}", cpus=cpus, memory=memory * GIB, arch=arch, price=price)


_ARCHES: tuple[Arch, ...] = ("x86_64", "arm64")

SIZES: tuple[Size, ...] = (
    *(_size(arch, cpus, per_cpu) for arch in _ARCHES for cpus in (1, 2, 4, 8, 16, 32, 64) for per_cpu in (1, 2, 4, 8)),
    Size(name="g4-32", cpus=4, memory=32 * GIB, gpus=1, gpu="simulated", price=Decimal(1)),
)

_LIVING: tuple[MachineState, ...] = ("creating", "running", "stopping", "stopped", "starting", "rebooting", "failed")

T = TypeVar("T")


@attrs.define
class _Entry:
    """One machine. What it is doing ends at ``until``, and then it is ``then``."""

    info: MachineInfo
    number: int
    token: str
    until: datetime
    console: list[str]
    then: MachineState | None = None


@attrs.define
class MemoryComputeDriver(ComputeDriver):
    """Machines in memory. No credentials, no permissions, nothing survives the process.

    Args:
        features: what it shall be able to do; with less, it stands in for a lesser provider.
        clock: tells the time.
        delay: how long everything takes by that clock that takes minutes elsewhere.
        quota: CPUs of the account.
        failing: names of machines whose creation ends as failed, and of images whose import does.
        breaking: names of machines whose creation fails halfway, so that its disk is left.
        page_size: items of one page.
    """

    _features: ComputeFeatures = FEATURES
    _clock: Callable[[], datetime] = attrs.field(default=lambda: datetime.now(UTC), repr=False, kw_only=True)
    _delay: timedelta = attrs.field(default=timedelta(0), kw_only=True)
    _quota: int = attrs.field(default=10_000, kw_only=True)
    _failing: Collection[str] = attrs.field(default=(), kw_only=True)
    _breaking: Collection[str] = attrs.field(default=(), kw_only=True)
    _page_size: int = attrs.field(default=100, kw_only=True)
    _entries: dict[str, _Entry] = attrs.field(factory=dict, init=False, repr=False)
    _disks: dict[str, Disk] = attrs.field(factory=dict, init=False, repr=False)
    _images: dict[str, Image] = attrs.field(factory=dict, init=False, repr=False)
    _imports: dict[str, tuple[str, datetime]] = attrs.field(factory=dict, init=False, repr=False)
    _snapshots: dict[str, DiskSnapshot] = attrs.field(factory=dict, init=False, repr=False)
    _debris: dict[str, Debris] = attrs.field(factory=dict, init=False, repr=False)
    _firewalls: dict[str, FleetSpec] = attrs.field(factory=dict, init=False, repr=False)
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False, repr=False)
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False, eq=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "memory"

    @property
    def features(self) -> ComputeFeatures:
        """What this driver can do: everything but to log in, unless it was made otherwise."""
        return self._features

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Make the firewall of a fleet, unless there is one."""
        with self._lock:
            self._require_image(spec)
            self._firewalls.setdefault(spec.name, spec)

    def update(self, current: FleetSpec, spec: FleetSpec) -> None:
        """Change the firewall of a fleet."""
        with self._lock:
            self._firewalls[current.name] = spec

    def destroy(self, name: str) -> None:
        """Delete the firewall of a fleet."""
        with self._lock:
            if any(entry.info.fleet == name for entry in self._living()):
                _fail(Conflict, "the firewall is in use by machines")
            self._firewalls.pop(name, None)

    # sizes and images

    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:
        """Return one page of the sizes, in order."""
        return self._page(SIZES, cursor, limit)

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:
        """Return one page of the aliases, then the account's own."""
        with self._lock:
            aliases = [Image(id=f"{alias}-{arch}", name=alias, arch=arch) for alias in ALIASES for arch in _ARCHES]
            return self._page([*aliases, *map(self._image_now, self._images.values())], cursor, limit)

    # machines

    def create_machine(
        self, spec: FleetSpec, name: str, *, size: Size, token: str, user_data: bytes | None
    ) -> MachineInfo:
        """Begin to make a machine, or return the one that this token has made."""
        with self._lock:
            living = self._living()
            for entry in living:
                if entry.token == token and entry.info.state != "deleting":
                    return self._seen(entry)
            if any(entry.info.name == name for entry in living):
                _fail(AlreadyExists, f"there is a machine {name!r}")
            if sum(entry.info.cpus for entry in living) + size.cpus > self._quota:
                _fail(QuotaExceeded, f"the account has {self._quota:,} CPUs, which is the limit")
            self._require_image(spec)
            number = next(self._numbers)
            if name in self._breaking:
                self._leave_behind("disk", f"{name}-root", spec.name)
                _fail(Unavailable, "the provider lost the machine while it was made")
            entry = self._new(spec, name, size, token, number)
            self._entries[entry.info.id] = entry
            if user_data is not None:
                entry.console.append(f"cloud-init: {len(user_data)} bytes of user data")
            self._begin(entry, "creating", "failed" if name in self._failing else "running")
            return self._seen(entry)

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:
        """Return one page of machines, in the order in which they were made."""
        with self._lock:
            after = int(cursor or 0)
            found = [e for e in self._living() if e.number > after and fleet in (None, e.info.fleet)]
            shown = found[: self._count(limit)]
            more = len(found) > len(shown)
            return Page(tuple(self._seen(entry) for entry in shown), str(shown[-1].number) if more else None)

    def machine(self, id: str) -> MachineInfo:
        """Return one machine."""
        with self._lock:
            return self._seen(self._found(id))

    def delete_machine(self, id: str) -> None:
        """Begin to delete a machine."""
        with self._lock:
            entry = self._in_state(id, *_LIVING, "deleting")
            if entry.info.state != "deleting":
                for disk in entry.info.disks:
                    self._disks[disk] = attrs.evolve(self._disks[disk], machine=None, device=None)
                self._begin(entry, "deleting", "deleted")

    def reboot(self, id: str) -> None:
        """Begin to restart a running machine."""
        with self._lock:
            self._begin(self._in_state(id, "running"), "rebooting", "running")

    def start(self, id: str) -> None:
        """Begin to start a stopped machine."""
        with self._lock:
            self._begin(self._in_state(id, "stopped"), "starting", "running")

    def stop(self, id: str) -> None:
        """Begin to stop a running machine."""
        with self._lock:
            self._begin(self._in_state(id, "running"), "stopping", "stopped")

    def resize(self, id: str, size: Size) -> None:
        """Change the size of a stopped machine."""
        with self._lock:
            entry = self._in_state(id, "stopped")
            if size.arch != entry.info.arch:
                _fail(InvalidArgument, f"the machine is of {entry.info.arch}")
            entry.info = attrs.evolve(entry.info, size=size.name, cpus=size.cpus, memory=size.memory, gpus=size.gpus)

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Give labels to a machine and take others from it."""
        with self._lock:
            entry = self._found(id)
            entry.info = attrs.evolve(entry.info, labels=relabelled(entry.info.labels, labels, remove))

    def console(self, id: str) -> bytes:
        """Return what the machine went through."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._found(id).console).encode()

    # disks and images

    def disks(self, *, cursor: str | None, limit: int | None) -> Page[Disk]:
        """Return one page of disks."""
        with self._lock:
            return self._page(tuple(self._disks.values()), cursor, limit)

    def create_disk(self, name: str, size_gib: int, *, zone: str | None, snapshot: str | None) -> Disk:
        """Make a disk."""
        with self._lock:
            if snapshot is not None and size_gib < self._disk_snapshot(snapshot).size_gib:
                _fail(InvalidArgument, "it is smaller than what it is made of")
            disk = Disk(id=f"disk-{next(self._numbers)}", name=name, size_gib=size_gib, zone=zone)
            self._disks[disk.id] = disk
            return disk

    def delete_disk(self, disk: str) -> None:
        """Delete a disk."""
        with self._lock:
            if self._disk(disk).machine is not None:
                _fail(Conflict, "it is attached to a machine; detach it first")
            del self._disks[disk]

    def attach(self, id: str, disk: str) -> None:
        """Attach a disk."""
        with self._lock:
            entry, found = self._in_state(id, "running", "stopped"), self._disk(disk)
            if found.machine not in (None, id):
                _fail(Conflict, "it is attached to another machine")
            if found.machine is None:
                self._disks[disk] = attrs.evolve(found, machine=id, device=f"/dev/disk/by-id/{disk}")
                entry.info = attrs.evolve(entry.info, disks=(*entry.info.disks, disk))

    def detach(self, id: str, disk: str) -> None:
        """Detach a disk."""
        with self._lock:
            entry, found = self._in_state(id, "running", "stopped"), self._disk(disk)
            if found.machine not in (None, id):
                _fail(Conflict, "it is attached to another machine")
            self._disks[disk] = attrs.evolve(found, machine=None, device=None)
            entry.info = attrs.evolve(entry.info, disks=tuple(other for other in entry.info.disks if other != disk))

    def snapshot(self, id: str, name: str) -> Image:
        """Make an image of a machine."""
        with self._lock:
            info = self._in_state(id, "running", "stopped").info
            if any(image.name == name for image in self._images.values()):
                _fail(AlreadyExists, f"there is an image {name!r}")
            made = Image(
                id=f"image-{next(self._numbers)}",
                name=name,
                arch=info.arch,
                disk_gib=info.disk_gib,
                own=True,
                created=self._clock(),
            )
            self._images[made.id] = made
            return made

    def import_image(self, name: str, source: DiskImage, *, token: str) -> Image:
        """Begin to make an image, or return the one that this token makes. Nothing is read."""
        with self._lock:
            made = next((image for image in self._images.values() if image.name == name), None)
            if made is None:
                image = Image(id=f"image-{next(self._numbers)}", name=name, arch=source.arch, disk_gib=1, own=True)
                made = self._images[image.id] = attrs.evolve(image, created=self._clock())
                self._imports[made.id] = token, self._clock() + self._delay
            if self._imports.get(made.id, ("",))[0] != token:
                _fail(AlreadyExists, f"there is an image {name!r} of something else")
            now = self._image_now(made)
            if now.ready and name in self._failing:
                del self._images[made.id]
                _fail(InvalidArgument, f"{source.key!r} holds no disk that it could import")
            return now

    def delete_image(self, image: str) -> None:
        """Delete an image."""
        with self._lock:
            if self._images.pop(image, None) is None:
                _fail(NotFound, f"there is no image {image!r} of this account")

    def disk_snapshots(self, *, cursor: str | None, limit: int | None) -> Page[DiskSnapshot]:
        """Return one page of snapshots."""
        with self._lock:
            return self._page(tuple(self._snapshots.values()), cursor, limit)

    def snapshot_disk(self, disk: str, name: str) -> DiskSnapshot:
        """Make a snapshot of a disk."""
        with self._lock:
            size = self._disk(disk).size_gib
            made = DiskSnapshot(id=f"snapshot-{next(self._numbers)}", name=name, size_gib=size, created=self._clock())
            self._snapshots[made.id] = made
            return made

    def delete_disk_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot."""
        with self._lock:
            del self._snapshots[self._disk_snapshot(snapshot).id]

    # debris

    def debris(self, *, cursor: str | None, limit: int | None) -> Page[Debris]:
        """Return one page of what broken creations left, then the firewalls without machines."""
        with self._lock:
            used = {entry.info.fleet for entry in self._living()}
            walls = [
                Debris(id=f"firewall-{name}", kind="firewall", name=name, fleet=name)
                for name in self._firewalls
                if name not in used
            ]
            return self._page([*self._debris.values(), *walls], cursor, limit)

    def delete_debris(self, debris: Debris) -> None:
        """Delete what was left."""
        if debris.kind == "firewall":
            self.destroy(debris.name)
        with self._lock:
            self._debris.pop(debris.id, None)

    # what they share; all under the lock

    def _new(self, spec: FleetSpec, name: str, size: Size, token: str, number: int) -> _Entry:
        public = (f"203.0.113.{number % 254 + 1}",) if spec.public_ip else ()
        info = MachineInfo(
            id=f"machine-{number}",
            name=name,
            fleet=spec.name,
            state="creating",
            raw_state="CREATING",
            size=size.name,
            cpus=size.cpus,
            memory=size.memory,
            image=spec.image,
            arch=size.arch,
            gpus=size.gpus,
            disk_gib=spec.disk_gib,
            zone=spec.zone or "a",
            network=spec.network or "default",
            identity=spec.identity,
            spot=spec.spot,
            addresses=(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",),
            public_addresses=public,
            user=spec.user,
            labels={**spec.labels, FLEET_LABEL: spec.name},
            created=self._clock(),
        )
        return _Entry(info, number, token, self._clock(), [])

    def _begin(self, entry: _Entry, state: MachineState, then: MachineState) -> None:
        entry.info = attrs.evolve(entry.info, state=state, raw_state=state.upper())
        entry.then, entry.until = then, self._clock() + self._delay
        entry.console.append(state)

    def _living(self) -> list[_Entry]:
        """Return the machines that are not gone, each in the state that it has by now."""
        for id_, entry in tuple(self._entries.items()):
            if entry.then is None or entry.until > self._clock():
                continue
            entry.info = attrs.evolve(entry.info, state=entry.then, raw_state=entry.then.upper())
            entry.console.append(entry.then)
            entry.then = None
            if entry.info.state == "deleted":
                del self._entries[id_]
        return list(self._entries.values())

    def _found(self, id: str) -> _Entry:
        self._living()
        if id not in self._entries:
            _fail(NotFound, "there is no such machine")
        return self._entries[id]

    def _in_state(self, id: str, *states: MachineState) -> _Entry:
        entry = self._found(id)
        if entry.info.state not in states:
            _fail(Conflict, f"it is {entry.info.state}; it must be {' or '.join(states)}")
        return entry

    def _seen(self, entry: _Entry) -> MachineInfo:
        """Return what is told of a machine: its firewall is the fleet's."""
        wall = self._firewalls.get(entry.info.fleet or "")
        if wall is None:
            return entry.info
        return attrs.evolve(entry.info, firewall=wall.firewall)

    def _require_image(self, spec: FleetSpec) -> None:
        own = self._images.get(spec.image)
        if spec.image not in ALIASES and (own is None or not self._image_now(own).ready):
            _fail(InvalidArgument, f"there is no image {spec.image!r}, or none that is ready")

    def _image_now(self, image: Image) -> Image:
        """Return an image as it is by now: one that is imported takes its time."""
        _, until = self._imports.get(image.id, ("", self._clock()))
        return attrs.evolve(image, ready=until <= self._clock())

    def _leave_behind(self, kind: str, name: str, fleet: str) -> None:
        left = Debris(id=f"{kind}-{next(self._numbers)}", kind=kind, name=name, fleet=fleet, created=self._clock())
        self._debris[left.id] = left

    def _disk_snapshot(self, id: str) -> DiskSnapshot:
        if id not in self._snapshots:
            _fail(NotFound, f"there is no snapshot {id!r}")
        return self._snapshots[id]

    def _disk(self, id: str) -> Disk:
        if id not in self._disks:
            _fail(NotFound, f"there is no disk {id!r}")
        return self._disks[id]

    def _page(self, items: Sequence[T], cursor: str | None, limit: int | None) -> Page[T]:
        """Cut one page of items that keep their places."""
        start = int(cursor or 0)
        end = start + self._count(limit)
        return Page(tuple(items[start:end]), str(end) if end < len(items) else None)

    def _count(self, limit: int | None) -> int:
        return self._page_size if limit is None else min(limit, self._page_size)


def _fail(error: type[OperationError], message: str) -> NoReturn:
    raise MemoryFault(Fault(error, message))
