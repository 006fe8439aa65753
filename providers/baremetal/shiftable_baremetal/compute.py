"""Machines: QEMU on this computer."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args

import attrs

from shiftable.compute import cloud_init
from shiftable.compute.driver import (
    ALIASES,
    FLEET_LABEL,
    GIB,
    Arch,
    Choice,
    ComputeDriver,
    ComputeFeatures,
    Debris,
    Disk,
    DiskImage,
    DiskSnapshot,
    Firmware,
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
    PermissionDenied,
    QuotaExceeded,
    Unavailable,
)
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable_baremetal._disk_images import FORMS, Blobs, looked_at
from shiftable_baremetal._durable import write
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._faults import classify as classify_files
from shiftable_baremetal._own_machines import any_size, check_disk, disk_gib, forwarded, native, page, size, sizes
from shiftable_baremetal._partitions import HEAD, needs_uefi
from shiftable_baremetal._qemu_command import command
from shiftable_baremetal._qemu_files import DISKS, IMAGES, SNAPSHOTS, Area, Definition, DiskFile, Home
from shiftable_baremetal._qemu_images import SOURCES, SOURCES_ARM64, Base, Images, Source
from shiftable_baremetal._qemu_monitor import Monitor, MonitorError
from shiftable_baremetal._qemu_probe import Accelerator, accelerator
from shiftable_baremetal._qemu_process import ProgramError, Programs
from shiftable_baremetal._qemu_seed import seed

__all__ = ["FEATURES", "QemuComputeDriver"]

FEATURES = ComputeFeatures(
    title="QEMU",
    create=True,
    arches=frozenset({"x86_64", "arm64"}),
    gpus=False,
    stop=True,
    resize=True,
    console=True,
    disks=True,
    snapshots=True,
    spot=False,
    public_ip=False,
    open_ports=True,
    user_data=True,
    zones=False,
    network=False,
    identity=False,
    prices=False,
    disk_snapshots=True,
    debris=True,
    relabel=True,
    imports=FORMS,
    ssh=True,
    max_name=Limit(58, "a host name of Linux has 64 characters; less a number of four digits, and a reserve"),
)

_ARCHES: tuple[Arch, ...] = get_args(Arch)
_MOST_CPUS = 255  # of QEMU's machine q35 without an IOMMU
_MOST_MEMORY_GIB = 1024  # of physical addresses that every processor since 2006 has
_CONSOLE = 64 * 1024  # bytes; as EC2
_ADDRESS = "127.0.0.1"

T = TypeVar("T")

_STATES: Mapping[str, MachineState] = {
    "running": "running",
    "paused": "suspended",
    "suspended": "suspended",
    "prelaunch": "starting",
    "inmigrate": "starting",
    "shutdown": "stopping",
    "guest-panicked": "failed",
    "internal-error": "failed",
    "io-error": "failed",
    "watchdog": "failed",
}

# By what QEMU's programs and their monitor say, the first that fits; they have hardly any codes.
_SAID: tuple[tuple[str, type[OperationError]], ...] = (
    (r"No space left on device|Disk quota exceeded|File too large", QuotaExceeded),
    (r"Cannot allocate memory|cannot set up guest memory|Too many open files", QuotaExceeded),
    (r"Permission denied|Operation not permitted|Could not access KVM", PermissionDenied),
    (r"Failed to get .*lock|Is another process using|already in use|Duplicate", Conflict),
    (r"Could not set up host forwarding rule|Address already in use", Conflict),
    (r"another QEMU is still running here", Conflict),
    (r"No such file or directory|not found|Cannot find device|Failed to find", NotFound),
    (r"Invalid parameter|invalid option|Image is not in .* format|too large for|exceeds", InvalidArgument),
)


def classify(exc: Exception) -> Fault | None:
    """Claim what QEMU's programs and monitor say, the driver's own errors and those of the operating system."""
    if isinstance(exc, ProgramError | MonitorError):
        text, code = str(exc), exc.code if isinstance(exc, MonitorError) else ""
        error = next((error for said, error in _SAID if re.search(said, text)), Unavailable)
        return Fault(error, text, code)
    return classify_files(exc)


@attrs.define(eq=False)
class QemuComputeDriver(ComputeDriver):
    """A QEMU for each machine, that every process of this user finds and that outlives the one that made it.

    What a machine may reach is what this user reaches; it is reached at ports of 127.0.0.1 alone, which the system
    chooses whenever it starts: port 22, and those that are open, whatever ``allow_from`` says. Machines do not reach
    each other. A restart of the computer leaves them stopped. Nothing watches a machine: one that was told to stop and
    does not is ended by whoever looks at it ``patience`` later. A reboot is that of the button at the case.
    Disks are not encrypted: that is the business of the file system that they lie on.

    Credentials: none. Permissions: to write below ``root``, and for KVM to open ``/dev/kvm`` (the group ``kvm``).

    Args:
        root: the folder of all machines.
        programs: the folder of QEMU's programs, else those on the ``PATH``.
        accelerator: what runs them; ``auto`` finds out.
        own: images of the user, by their names.
        own_arm64: the same, for machines of arm64.
        sources: of the aliases.
        blobs: opens the buckets that images are imported from; without them there is no importer.
        patience: seconds that a machine has to stop.
        page_size: items of one page.
    """

    _root: Path
    _programs: Path | None = None
    _accelerator: Accelerator | Literal["auto"] = attrs.field(default="auto", kw_only=True)
    _own: Mapping[str, Path | Source] = attrs.field(factory=dict, kw_only=True)
    _own_arm64: Mapping[str, Path | Source] = attrs.field(factory=dict, kw_only=True)
    _sources: Mapping[str, Source] = attrs.field(default=SOURCES, kw_only=True, repr=False)
    _blobs: Blobs | None = attrs.field(default=None, kw_only=True, repr=False)
    _patience: float = attrs.field(default=90.0, kw_only=True)
    _page_size: int = attrs.field(default=100, kw_only=True)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "baremetal"

    @property
    def features(self) -> ComputeFeatures:
        """What machines of QEMU can do."""
        return FEATURES if self._blobs is not None else attrs.evolve(FEATURES, imports=frozenset())

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    def missing_features(self, spec: FleetSpec) -> tuple[str, ...]:
        """Say what a declaration needs and this computer does not have."""
        here = Programs(self._programs).missing(spec.arch)
        return super().missing_features(spec) + (() if here is None else (here,))

    # fleets

    def create(self, spec: FleetSpec) -> None:
        """Have the image here, which may take minutes the first time."""
        self._images(spec.arch).base(spec.image)

    def update(self, current: FleetSpec, spec: FleetSpec) -> None:
        """Open and close ports of the machines, while they run."""
        for name in self._area.names():
            definition = self._area.home(name).definition()
            if definition is None or definition.fleet != current.name:
                continue
            with self._area.changing(name):
                home = self._area.home(name)
                definition = home.definition()
                if definition is None or definition.fleet != current.name:
                    continue
                opened = attrs.evolve(definition, firewall=forwarded(spec))
                if home.process.runs:
                    with home.process.monitor() as monitor:
                        monitor.lead(opened.forwarded)
                home.write(opened)

    # sizes and images

    def sizes(self, *, cursor: str | None, limit: int | None) -> Page[Size]:
        """Return some of the sizes; any other can be had."""
        return self._page([*sizes(), *sizes("arm64")], cursor, limit)

    def images(self, *, cursor: str | None, limit: int | None) -> Page[Image]:
        """Return one page of the aliases, the user's images, and those of machines."""
        shared = [
            Image(id=name, name=name, arch=arch)
            for arch in _ARCHES
            for name in dict.fromkeys((*ALIASES, *self._images(arch).own))
        ]
        own = [
            Image(
                id=name,
                name=name,
                arch=facts.get("arch", "x86_64"),
                disk_gib=facts["disk_gib"],
                own=True,
                created=datetime.fromisoformat(facts["created"]),
            )
            for name, facts in self._area.taken(IMAGES)
        ]
        return self._page([*shared, *own], cursor, limit)

    def choose(self, spec: FleetSpec) -> Choice:
        """Take what is asked for."""
        return any_size(spec, _MOST_CPUS, _MOST_MEMORY_GIB)

    # machines

    def user_data(self, spec: FleetSpec, name: str, given: bytes | None) -> bytes | None:
        """Return the user, the keys and the host name, with what the user gave."""
        return cloud_init(spec, name, given)

    def create_machine(
        self, spec: FleetSpec, name: str, *, size: Size, token: str, user_data: bytes | None
    ) -> MachineInfo:
        """Make a machine and start it, or return the one that this token has made."""
        programs, declared = Programs(self._programs), native(spec)
        program, base = programs.system(spec.arch), self._images(spec.arch).base(spec.image)
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
            _fail(InvalidArgument, "a machine's name is that of a host: lower-case letters, digits and hyphens")
        with self._area.changing(name):
            known = self._area.home(name).definition()
            if known is not None:
                if (known.token, known.fleet) != (token, spec.name):
                    _fail(AlreadyExists, f"there is a machine {name!r}, of the fleet {known.fleet!r}")
                return self._seen(self._area.home(name), known)
            gib, firmware = disk_gib(spec, _virtual_size(programs, base)), _firmware(programs, spec, base)
            starting = programs.firmware(spec.arch, firmware)
            definition = Definition(
                id=f"{name}.{secrets.token_hex(4)}",
                name=name,
                fleet=spec.name,
                token=token,
                image=spec.image,
                cpus=size.cpus,
                memory=size.memory,
                disk_gib=gib,
                user=spec.user,
                arch=spec.arch,
                firmware=firmware,
                firewall=forwarded(spec),
                labels={**spec.labels, FLEET_LABEL: spec.name},
                created=_now(),
                kernel=_path(declared.kernel),
                initrd=_path(declared.initrd),
                append=declared.append,
            )
            with self._area.new(name) as folder:
                home = Home(folder)
                home.write(definition)
                backing = ("-b", str(base.path), "-F", base.format)
                programs.image("create", "-q", "-f", "qcow2", *backing, home.disk, f"{gib}G")
                home.write_seed(seed(definition.id, name, user_data or b""))
                self._launch(home, definition, program, starting)
            return self._seen(self._area.home(name), definition)

    def machines(self, fleet: str | None, *, cursor: str | None, limit: int | None) -> Page[MachineInfo]:
        """Return one page of machines, in the order of their names."""
        disks = self._area.disks()
        left = (name for name in self._area.names() if cursor is None or name > cursor)
        found = [definition for definition in map(self._definition, left) if _is_of(definition, fleet)]
        shown = [definition for definition in found[: self._count(limit)] if definition is not None]
        told = tuple(self._seen(self._area.home(each.name), each, disks) for each in shown)
        return Page(told, shown[-1].name if len(found) > len(shown) else None)

    def machine(self, id: str) -> MachineInfo:
        """Return one machine."""
        return self._seen(*self._area.existing(id))

    def delete_machine(self, id: str) -> None:
        """End a machine and delete its files."""
        with self._changing(id) as (home, definition):
            self._area.remove(definition.name, home.folder)

    def reboot(self, id: str) -> None:
        """Restart a running machine, as by its button: what it has not written to its disk is lost."""
        with self._changing(id) as (home, definition):
            self._require(home, definition, "running")
            with home.process.monitor() as monitor:
                monitor.ask("system_reset")

    def start(self, id: str) -> None:
        """Start a stopped machine, or let one go on that stands still."""
        with self._changing(id) as (home, definition):
            if self._require(home, definition, "stopped", "suspended", "failed") == "stopped":
                programs, arch = Programs(self._programs), definition.arch
                self._launch(home, definition, programs.system(arch), programs.firmware(arch, definition.firmware))
                return
            with home.process.monitor() as monitor:
                monitor.ask("cont")

    def stop(self, id: str) -> None:
        """Press the button of a running machine; one that has not stopped after a while is ended."""
        with self._changing(id) as (home, definition):
            if self._require(home, definition, "running", "suspended", "failed", "unknown") == "failed":
                home.process.kill()  # it would not notice
                return
            home.mark("stopping", on=True)
            with contextlib.suppress(MonitorError), home.process.monitor() as monitor:
                monitor.ask("cont")
                monitor.ask("system_powerdown")

    def resize(self, id: str, size: Size) -> None:
        """Change the size of a stopped machine."""
        with self._changing(id) as (home, definition):
            self._require(home, definition, "stopped")
            if size.arch != definition.arch:
                _fail(InvalidArgument, f"the machine is of {definition.arch}")
            home.write(attrs.evolve(definition, cpus=size.cpus, memory=size.memory))

    def relabel(self, id: str, *, labels: Mapping[str, str], remove: frozenset[str]) -> None:
        """Change labels of a machine, whether or not it runs."""
        with self._changing(id) as (home, definition):
            home.write(attrs.evolve(definition, labels=relabelled(definition.labels, labels, remove)))

    def console(self, id: str) -> bytes:
        """Return the last of what the machine wrote to its serial port since it was started."""
        home, _ = self._area.existing(id)
        try:
            with (home.folder / "console").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _CONSOLE))
                return file.read()
        except FileNotFoundError:
            return b""

    # images

    def snapshot(self, id: str, name: str) -> Image:
        """Make an image of a machine. One that runs stands still meanwhile, as if it had lost power."""
        self._check_new(name)
        with self._changing(id) as (home, definition), self._area.changing(IMAGES):
            state = self._require(home, definition, "running", "stopped")
            if any(known == name for known, _ in self._area.taken(IMAGES)):
                _fail(AlreadyExists, f"there is an image {name!r}")
            made = Image(
                id=name, name=name, arch=definition.arch, disk_gib=definition.disk_gib, own=True, created=_now()
            )
            facts = {
                "arch": made.arch,
                "disk_gib": made.disk_gib,
                "created": _told(made.created),
                **_said(definition.firmware),
            }
            with self._area.new(IMAGES, f"{IMAGES}/{name}") as folder, _standing_still(home, state):
                self._copy(home.disk, folder, facts)
        return made

    def import_image(self, name: str, source: DiskImage, *, token: str) -> Image:
        """Copy an object, in one call, and make it an image. Others who do the same wait for it."""
        if self._blobs is None:
            return super().import_image(name, source, token=token)
        self._check_new(name)
        copying = f"{IMAGES}.{name}"  # it may take long, and what else has to do with images goes on
        with self._area.alone(copying) as alone:
            if not alone:
                return Image(id=name, name=name, arch=source.arch, own=True, ready=False)
            known = dict(self._area.taken(IMAGES)).get(name)
            if known is None:
                with looked_at(self._blobs, source) as origin, self._area.new(copying, f"{IMAGES}/{name}") as folder:
                    origin.save(folder / "disk")
                    self._check(Base(folder / "disk", origin.form), source.key)
                    facts = {
                        "arch": source.arch,
                        "disk_gib": origin.disk_gib,
                        "created": _told(_now()),
                        "import": token,
                        **_said(source.firmware),
                    }
                    write(folder / "facts.json", json.dumps(facts, indent=2))
            elif known.get("import") != token:
                _fail(AlreadyExists, f"there is an image {name!r} of something else")
        return self.image(name)

    def delete_image(self, image: str) -> None:
        """Delete an image of a machine, unless machines were made from it: their disks hold only what differs."""
        with self._area.changing(IMAGES):
            if not any(known == image for known, _ in self._area.taken(IMAGES)):
                _fail(NotFound, f"there is no image {image!r} of a machine")
            self._require_unused(image)
            place = self._root / IMAGES / image
            gone = self._area.take_away(IMAGES, place)
            try:
                self._require_unused(image)  # by now nobody begins to make a machine from it: it is not there
            except FilesError:
                gone.rename(place)
                raise
            self._area.drop(gone)

    # disks

    def disks(self, *, cursor: str | None, limit: int | None) -> Page[Disk]:
        """Return one page of disks."""
        return self._page([_disk(each) for each in self._area.disks()], cursor, limit)

    def disk(self, disk: str) -> Disk:
        """Return one disk."""
        return _disk(self._area.disk(disk))

    def create_disk(self, name: str, size_gib: int, *, zone: str | None, snapshot: str | None) -> Disk:
        """Make a disk, which takes room only for what is written to it."""
        if zone is not None:
            _fail(InvalidArgument, "there is one place for disks, this computer; leave the zone out")
        check_disk(size_gib)
        programs, made = Programs(self._programs), DiskFile(id=_made("disk"), name=name, size_gib=size_gib)
        with self._area.changing(DISKS), self._area.new(DISKS, f"{DISKS}/{made.id}") as folder:
            self._area.write_disk(made, folder)
            if snapshot is None:
                programs.image("create", "-q", "-f", "qcow2", folder / "disk", f"{size_gib}G")
            else:
                if size_gib < self.disk_snapshot(snapshot).size_gib:
                    _fail(InvalidArgument, "it is smaller than what it is made of")
                source = self._root / SNAPSHOTS / snapshot / "disk"
                programs.image("convert", "-U", "-O", "qcow2", source, folder / "disk")
                programs.image("resize", "-q", "-f", "qcow2", folder / "disk", f"{size_gib}G")
        return _disk(made)

    def delete_disk(self, disk: str) -> None:
        """Delete a disk."""
        with self._area.changing(DISKS):
            if self._area.disk(disk).machine is not None:
                _fail(Conflict, "it is attached to a machine; detach it first")
            self._area.remove(DISKS, self._area.disk_path(disk).parent)

    def attach(self, id: str, disk: str) -> None:
        """Attach a disk, also while the machine runs."""
        with self._changing(id) as (home, definition), self._area.changing(DISKS):
            found = self._area.disk(disk)
            state = self._require(home, definition, "running", "stopped")
            if found.machine not in (None, id):
                _fail(Conflict, "it is attached to another machine")
            self._area.write_disk(attrs.evolve(found, machine=id))
            if state == "running":
                try:
                    with home.process.monitor() as monitor:
                        _plug(monitor, disk, self._area.disk_path(disk))
                except MonitorError:
                    self._area.write_disk(found)
                    raise

    def detach(self, id: str, disk: str) -> None:
        """Detach a disk, also while the machine runs."""
        with self._changing(id) as (home, definition), self._area.changing(DISKS):
            found = self._area.disk(disk)
            state = self._require(home, definition, "running", "stopped")
            if found.machine not in (None, id):
                _fail(Conflict, "it is attached to another machine")
            if state == "running":
                with home.process.monitor() as monitor:
                    _unplug(monitor, disk)
            self._area.write_disk(attrs.evolve(found, machine=None))

    def disk_snapshots(self, *, cursor: str | None, limit: int | None) -> Page[DiskSnapshot]:
        """Return one page of snapshots of disks."""
        return self._page([_disk_snapshot(*each) for each in self._area.taken(SNAPSHOTS)], cursor, limit)

    def snapshot_disk(self, disk: str, name: str) -> DiskSnapshot:
        """Make a snapshot of a disk. A machine that has it and runs stands still meanwhile."""
        user = self._area.disk(disk).machine
        with contextlib.ExitStack() as stack:
            still: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
            if user is not None:
                home, definition = stack.enter_context(self._changing(user))
                still = _standing_still(home, self._require(home, definition, "running", "stopped"))
            stack.enter_context(self._area.changing(DISKS))
            found = self._area.disk(disk)
            if found.machine != user:
                _fail(Conflict, "it is just being attached or detached")
            stack.enter_context(self._area.changing(SNAPSHOTS))
            made = DiskSnapshot(id=_made("snap"), name=name, size_gib=found.size_gib, created=_now())
            facts = {"name": name, "size_gib": made.size_gib, "created": _told(made.created)}
            with self._area.new(SNAPSHOTS, f"{SNAPSHOTS}/{made.id}") as folder, still:
                self._copy(self._area.disk_path(disk), folder, facts)
        return made

    def delete_disk_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot of a disk."""
        with self._area.changing(SNAPSHOTS):
            if not any(known == snapshot for known, _ in self._area.taken(SNAPSHOTS)):
                _fail(NotFound, f"there is no snapshot {snapshot!r}")
            self._area.remove(SNAPSHOTS, self._root / SNAPSHOTS / snapshot)

    # what is left

    def debris(self, *, cursor: str | None, limit: int | None) -> Page[Debris]:
        """Return one page of what processes that were killed left; whoever changes something removes it as well."""
        return self._page([_debris(left) for left in self._area.left()], cursor, limit)

    def delete_debris(self, debris: Debris) -> None:
        """End what runs in it, and delete it."""
        if not self._area.discard(debris.id):
            _fail(Conflict, "somebody is at it")

    # what they share

    @property
    def _area(self) -> Area:
        return Area(self._root)

    def _images(self, arch: Arch) -> Images:
        if arch == "x86_64":
            return Images(self._area, self._own, self._sources)
        return Images(self._area, self._own_arm64, SOURCES_ARM64, arch)

    def _check_new(self, name: str) -> None:
        for arch in _ARCHES:
            self._images(arch).check_new(name)

    @contextlib.contextmanager
    def _changing(self, id: str) -> Iterator[tuple[Home, Definition]]:
        """Be the only one who changes a machine, and let it go on if a process that was killed made it stand still."""
        _, definition = self._area.existing(id)
        with self._area.changing(definition.name):
            home, definition = self._area.existing(id)
            with contextlib.suppress(MonitorError):
                _go_on(home)
            yield home, definition

    def _require_unused(self, image: str) -> None:
        users = self._area.made_from(image)
        if users:
            _fail(Conflict, f"machines were made from it: {', '.join(users)}; delete them first")

    def _copy(self, disk: Path, folder: Path, facts: Mapping[str, Any]) -> None:
        """Make a whole disk of one that may hold only what differs from another."""
        Programs(self._programs).image("convert", "-U", "-O", "qcow2", disk, folder / "disk")
        write(folder / "facts.json", json.dumps(facts, indent=2))

    def _check(self, base: Base, key: str) -> None:
        """Have QEMU look at what is to be an image."""
        try:
            _virtual_size(Programs(self._programs), base)
        except ProgramError as exc:
            raise FilesError(Fault(InvalidArgument, f"{key!r} holds no disk that QEMU could read: {exc}")) from exc

    def _definition(self, name: str) -> Definition | None:
        return self._area.home(name).definition()

    def _launch(self, home: Home, definition: Definition, program: str, firmware: Path | None) -> None:
        chosen = self._accelerator
        if chosen == "auto":
            note = ".accelerator.json" if definition.arch == "x86_64" else ".accelerator-arm64.json"
            chosen = accelerator(program, self._root / note, definition.arch)
        attached = {d.id: self._area.disk_path(d.id) for d in self._area.disks() if d.machine == definition.id}
        home.process.start(command(program, firmware, definition, chosen, attached))

    def _require(self, home: Home, definition: Definition, *states: MachineState) -> MachineState:
        state = self._state(home, definition, changing=True)[0]
        if state not in states:
            _fail(Conflict, f"it is {state}; it must be {' or '.join(states)}")
        return state

    def _seen(self, home: Home, definition: Definition, disks: Sequence[DiskFile] | None = None) -> MachineInfo:
        state, raw, ports = self._state(home, definition)
        attached = (d.id for d in (self._area.disks() if disks is None else disks) if d.machine == definition.id)
        return MachineInfo(
            id=definition.id,
            name=definition.name,
            fleet=definition.fleet,
            state=state,
            raw_state=raw,
            size=size(definition.cpus, definition.memory // GIB, definition.arch).name,
            cpus=definition.cpus,
            memory=definition.memory,
            image=definition.image,
            arch=definition.arch,
            disk_gib=definition.disk_gib,
            addresses=(_ADDRESS,) if ports else (),
            ports=ports,
            user=definition.user,
            firewall=definition.firewall,
            disks=tuple(attached),
            labels=definition.labels,
            created=definition.created,
        )

    def _state(
        self, home: Home, definition: Definition, *, changing: bool = False
    ) -> tuple[MachineState, str, dict[int, int]]:
        """Return the state in our words, in QEMU's, and where ports are reached; end what should have stopped."""
        if not home.process.runs:
            return "stopped", "no process", {}
        since = home.marked_since("stopping")
        if since is not None:
            if abs(time.time() - since) < self._patience:
                return "stopping", "powered down", {}
            with contextlib.nullcontext(True) if changing else self._area.trying(definition.name) as alone:
                if alone and home.marked_since("stopping") == since:
                    home.process.kill()
            return ("stopping", "powered down", {}) if home.process.runs else ("stopped", "no process", {})
        try:
            with home.process.monitor() as monitor:
                status = monitor.status()
                forwards = monitor.forwards()
        except MonitorError as exc:
            return ("unknown", str(exc), {}) if home.process.runs else ("stopped", "no process", {})
        ports = {port: forwards[kind, port] for kind, port in sorted(forwards, reverse=True)}  # of both, that of TCP
        if status == "paused" and home.marked_since("copying") is not None:
            return "running", "paused for a snapshot", ports
        return _STATES.get(status, "unknown"), status, ports

    def _page(self, items: Sequence[T], cursor: str | None, limit: int | None) -> Page[T]:
        return page(items, cursor, self._count(limit))

    def _count(self, limit: int | None) -> int:
        return self._page_size if limit is None else min(limit, self._page_size)


def _now() -> datetime:
    return datetime.now(UTC)


def _told(when: datetime | None) -> str:
    return "" if when is None else when.isoformat()


def _made(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(4)}"


def _disk(file: DiskFile) -> Disk:
    """Say what a disk is, and under which name udev shows it inside of the machine."""
    device = None if file.machine is None else f"/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{file.id}"
    return Disk(id=file.id, name=file.name, size_gib=file.size_gib, machine=file.machine, device=device)


def _disk_snapshot(id: str, facts: Mapping[str, Any]) -> DiskSnapshot:
    created = datetime.fromisoformat(facts["created"])
    return DiskSnapshot(id=id, name=facts["name"], size_gib=facts["size_gib"], created=created)


def _debris(left: Path) -> Debris:
    definition, name = Home(left).definition(), left.name.split("~")[1]
    created = None
    with contextlib.suppress(FileNotFoundError):
        created = datetime.fromtimestamp(left.stat().st_mtime, UTC)
    fleet = None if definition is None else definition.fleet
    return Debris(id=left.name, kind="folder", name=name, fleet=fleet, created=created)


def _path(given: Path | None) -> str | None:
    return None if given is None else str(given.absolute())


def _virtual_size(programs: Programs, base: Base) -> int:
    told = programs.image("info", "--output=json", "-f", base.format, base.path)
    return int(json.loads(told)["virtual-size"])


def _firmware(programs: Programs, spec: FleetSpec, base: Base) -> Firmware:
    """Return what machines start by: on x86_64 BIOS, but where their image has nothing for it."""
    if spec.arch == "arm64":
        return "uefi"
    if native(spec).kernel is not None:
        return "bios"
    return base.firmware or ("uefi" if needs_uefi(programs.head(base.path, base.format, HEAD)) else "bios")


def _said(firmware: Firmware) -> Mapping[str, Firmware]:
    """Return the fact about an image that its disk need not tell."""
    return {"firmware": firmware} if firmware == "uefi" else {}


def _is_of(definition: Definition | None, fleet: str | None) -> bool:
    return definition is not None and fleet in (None, definition.fleet)


def _plug(monitor: Monitor, disk: str, path: Path) -> None:
    if disk not in _nodes(monitor):
        file = {"driver": "file", "filename": str(path)}
        monitor.ask("blockdev-add", {"driver": "qcow2", "node-name": disk, "file": file})
    if disk not in _devices(monitor):
        device = {"driver": "scsi-hd", "bus": "scsi.0", "drive": disk, "id": disk, "serial": disk}
        monitor.ask("device_add", device)


def _unplug(monitor: Monitor, disk: str) -> None:
    if disk in _devices(monitor):
        monitor.ask("device_del", {"id": disk})
    while disk in _nodes(monitor):  # QEMU lets go of it a moment later; the conversation has an end
        try:
            monitor.ask("blockdev-del", {"node-name": disk})
        except MonitorError as exc:
            if "in use" not in str(exc):
                raise
            time.sleep(0.01)


def _nodes(monitor: Monitor) -> set[str]:
    return {str(node.get("node-name")) for node in monitor.ask("query-named-block-nodes", {"flat": True})}


def _devices(monitor: Monitor) -> set[str]:
    return {each["name"] for each in monitor.ask("qom-list", {"path": "/machine/peripheral"})}


@contextlib.contextmanager
def _standing_still(home: Home, state: MachineState) -> Iterator[None]:
    """Have a running machine write nothing to its disk for the time of the block."""
    if state == "stopped":
        yield
        return
    home.mark("copying", on=True)
    try:
        with home.process.monitor() as monitor:
            monitor.ask("stop")
        yield
    finally:
        _go_on(home)


def _go_on(home: Home) -> None:
    if home.marked_since("copying") is not None:
        if home.process.runs:
            with home.process.monitor() as monitor:
                monitor.ask("cont")
        home.mark("copying", on=False)


def _fail(error: type[OperationError], message: str) -> NoReturn:
    raise FilesError(Fault(error, message))
