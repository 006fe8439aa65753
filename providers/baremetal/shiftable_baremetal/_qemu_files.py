"""Where machines lie: below ``<root>/compute``, each in its folder, and what is no machine behind a dot.

    web-0/                      a machine
        machine.json            what it is
        disk                    what differs from its image
        seed                    what cloud-init reads
        alive                   locked while its QEMU runs
        pid, monitor, console   of that QEMU
        stopping                there since it was told to stop
        copying                 there while it stands still for a snapshot
    .disks/disk-1a2b3c4d/       a disk that outlives machines: disk.json and disk
    .snapshots/snap-1a2b3c4d/   what was on one: facts.json and disk
    .images/golden/             an image of a machine: facts.json and disk
    .images/.cache/             images from elsewhere, by their checksums
    .accelerator.json           what was found out about this computer; -arm64 for machines of arm64
    .lock~web-0                 held by whoever changes that machine
    .new~web-0~xxxx             what is not complete; a rename puts it into place
    .gone~web-0~xxxx            what is being deleted

What was left behind by a process that was killed, a QEMU that runs in it included, is removed by the next one that
changes anything.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from shiftable.compute import Rule
from shiftable.compute.driver import Arch, Firmware
from shiftable.errors import AlreadyExists, Conflict, Fault, NotFound
from shiftable.postgresql import locked
from shiftable_baremetal._durable import sync, write
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._qemu_process import Process

__all__ = ["DISKS", "IMAGES", "SNAPSHOTS", "Area", "Definition", "DiskFile", "Home"]

DISKS, IMAGES, SNAPSHOTS = ".disks", ".images", ".snapshots"
"""The names under which disks, images and snapshots of disks are locked, and where they lie."""

_PATIENCE = 600  # seconds: another process may be downloading an image
_LEFT = re.compile(r"\.(?:new|gone)~(?P<name>[^~]+)~.*")


def _usual_firmware(machine: Definition) -> Firmware:
    return "uefi" if machine.arch == "arm64" else "bios"


@attrs.frozen(kw_only=True)
class Definition:
    """What a machine is, whether or not it runs."""

    id: str
    name: str
    fleet: str
    token: str
    image: str
    cpus: int
    memory: int
    disk_gib: int
    user: str
    arch: Arch = "x86_64"
    firmware: Firmware = attrs.field(default=attrs.Factory(_usual_firmware, takes_self=True))
    firewall: tuple[Rule, ...] = ()
    labels: Mapping[str, str] = attrs.Factory(dict)
    created: datetime
    kernel: str | None = None
    initrd: str | None = None
    append: str = ""

    def written(self) -> str:
        """Return it as it lies in its file."""
        told = {**attrs.asdict(self), "created": self.created.isoformat()}
        return json.dumps(told, indent=2, sort_keys=True)

    @classmethod
    def read(cls, text: str) -> Definition:
        """Return what lies in a file."""
        known: dict[str, Any] = json.loads(text)
        rules = tuple(Rule(**{**rule, "allow_from": tuple(rule["allow_from"])}) for rule in known["firewall"])
        return cls(**{**known, "firewall": rules, "created": datetime.fromisoformat(known["created"])})

    @property
    def forwarded(self) -> frozenset[tuple[str, int]]:
        """What is led to it: its port for ssh, and those that are open."""
        opened = ((rule.protocol, port) for rule in self.firewall for port in range(rule.port, rule.last + 1))
        return frozenset({("tcp", 22), *opened})


@attrs.frozen(kw_only=True)
class DiskFile:
    """A disk that outlives machines."""

    id: str
    name: str
    size_gib: int
    machine: str | None = None


@attrs.frozen
class Home:
    """The files of one machine, also before it is in its place and after."""

    folder: Path

    @property
    def process(self) -> Process:
        """Its QEMU."""
        return Process(self.folder)

    @property
    def disk(self) -> Path:
        """What differs from its image."""
        return self.folder / "disk"

    def definition(self) -> Definition | None:
        """Return what the machine is; ``None`` if it is gone."""
        try:
            return Definition.read((self.folder / "machine.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, definition: Definition) -> None:
        """Keep what the machine is."""
        write(self.folder / "machine.json", definition.written())

    def write_seed(self, data: bytes) -> None:
        """Keep what cloud-init reads: it may hold secrets."""
        write(self.folder / "seed", data)

    def mark(self, name: str, *, on: bool) -> None:
        """Set or remove one of the marks."""
        if on:
            (self.folder / name).touch(mode=0o600)
        else:
            (self.folder / name).unlink(missing_ok=True)

    def marked_since(self, name: str) -> float | None:
        """Return the time of a mark, if it is set."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).stat().st_mtime
        return None


@attrs.frozen
class Area:
    """The folder of all machines, disks and images."""

    root: Path

    @contextlib.contextmanager
    def changing(self, name: str) -> Iterator[None]:
        """Keep other threads and processes from changing something, and remove what a killed one left."""
        with self.alone(name, patience=_PATIENCE) as alone:
            if not alone:
                raise FilesError(Fault(Conflict, f"another process has been changing it for more than {_PATIENCE} s"))
            yield

    @contextlib.contextmanager
    def alone(self, name: str, *, patience: float = 0) -> Iterator[bool]:
        """Do the same unless somebody else is at it for too long; tell whether."""
        self._make()
        with locked(self._lock(name), timeout=patience) as taken:
            if taken:
                self._sweep(name)
            yield taken

    @contextlib.contextmanager
    def trying(self, name: str) -> Iterator[bool]:
        """Do the same if nobody else is at it, and remove nothing; tell whether."""
        with locked(self._lock(name), timeout=0) as taken:
            yield taken

    def names(self) -> list[str]:
        """Return the names of all machines, in order."""
        return [found for found in _listed(self.root) if (self.root / found).is_dir()]

    def home(self, name: str) -> Home:
        """Return the files of a machine, which need not exist."""
        return Home(self.root / name)

    def existing(self, id: str) -> tuple[Home, Definition]:
        """Return a machine by its id."""
        name, _, mark = id.partition(".")
        if mark and re.fullmatch(r"[a-z0-9-]+", name):
            home = self.home(name)
            definition = home.definition()
            if definition is not None and definition.id == id:
                return home, definition
        raise FilesError(Fault(NotFound, "there is no such machine"))

    @contextlib.contextmanager
    def new(self, name: str, above: str = "") -> Iterator[Path]:
        """Hand out a folder that is in its place when the block has ended well, and gone otherwise.

        Args:
            name: what is locked.
            above: what it is put into, and then the name there: ``.disks/disk-1a2b3c4d``; else the name itself.
        """
        place = self.root / (above or name)
        self._make(place.parent)
        new = Path(tempfile.mkdtemp(prefix=f".new~{name}~", dir=self.root))
        try:
            yield new
            sync(new)
            new.rename(place)
            sync(place.parent)
        except BaseException as exc:
            _discard(new)
            if isinstance(exc, OSError) and exc.errno == errno.ENOTEMPTY:
                why = f"somebody else has just made {place.name!r}"
                raise FilesError(Fault(AlreadyExists, why)) from exc
            raise

    def remove(self, name: str, place: Path) -> None:
        """Make something vanish at once, and then delete it."""
        self.drop(self.take_away(name, place))

    def take_away(self, name: str, place: Path) -> Path:
        """Make something vanish, and return where it is: what is not put back is left to the next sweep."""
        gone = Path(tempfile.mkdtemp(prefix=f".gone~{name}~", dir=self.root))
        place.rename(gone)
        sync(self.root)
        return gone

    def drop(self, gone: Path) -> None:
        """Delete what was taken away."""
        _discard(gone)

    def made_from(self, image: str) -> list[str]:
        """Return the names of the machines that were made from an image, or are just being made."""
        folders = [*map(self.root.joinpath, self.names()), *self.root.glob(".new~*")]
        known = (Home(folder).definition() for folder in folders)
        return sorted(each.name for each in known if each is not None and each.image == image)

    # disks and images

    def disks(self) -> list[DiskFile]:
        """Return all disks, in order. One that is attached to a machine that is gone is attached to none."""
        found = []
        for id_ in _listed(self.root / DISKS):
            with contextlib.suppress(FilesError):
                found.append(self.disk(id_))
        return found

    def disk(self, id: str) -> DiskFile:
        """Return a disk."""
        if re.fullmatch(r"disk-[0-9a-f]+", id):
            with contextlib.suppress(FileNotFoundError):
                known = json.loads((self.root / DISKS / id / "disk.json").read_text(encoding="utf-8"))
                disk = DiskFile(**known)
                return disk if self._lives(disk.machine) else attrs.evolve(disk, machine=None)
        raise FilesError(Fault(NotFound, f"there is no disk {id!r}"))

    def write_disk(self, disk: DiskFile, folder: Path | None = None) -> None:
        """Keep what a disk is."""
        write((folder or self.root / DISKS / disk.id) / "disk.json", json.dumps(attrs.asdict(disk), indent=2))

    def disk_path(self, id: str) -> Path:
        """Return the content of a disk."""
        return self.root / DISKS / id / "disk"

    def taken(self, kind: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Return names and facts of what was taken of machines or disks, in order."""
        found = []
        for name in _listed(self.root / kind):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found.append((name, json.loads((self.root / kind / name / "facts.json").read_text(encoding="utf-8"))))
        return found

    # what was left

    def left(self) -> list[Path]:
        """Return what killed processes left, in order."""
        found = []
        for path in sorted(self.root.glob(".*~*~*")):
            known = _LEFT.fullmatch(path.name)
            if known is not None:
                with self.trying(known["name"]) as alone:
                    found += [path] if alone else []
        return found

    def discard(self, name: str) -> bool:
        """Remove what a killed process left; tell whether nobody was at it."""
        known = _LEFT.fullmatch(name)
        if known is None or not (self.root / name).exists():
            return True
        with self.trying(known["name"]) as alone:
            if alone:
                _discard(self.root / name)
            return alone

    # below: one step each

    def _lives(self, id: str | None) -> bool:
        if id is None:
            return False
        try:
            self.existing(id)
        except FilesError:
            return False
        return True

    def _lock(self, name: str) -> Path:
        return self.root / f".lock~{name}"

    def _make(self, folder: Path | None = None) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder is not None and folder != self.root:
            folder.mkdir(mode=0o700, exist_ok=True)

    def _sweep(self, own: str) -> None:
        """Remove what killed processes left: that of others only if nobody is at it."""
        for left in self.root.glob(".*~*~*"):
            known = _LEFT.fullmatch(left.name)
            if known is None:
                continue
            if known["name"] == own:
                _discard(left)
            else:
                self.discard(left.name)


def _listed(folder: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(folder) if name[0] != ".")  # noqa: PTH208  names alone, no stat
    return []


def _discard(folder: Path) -> None:
    if Process(folder).kill():
        shutil.rmtree(folder, ignore_errors=True)  # what is left is behind a dot, and removed the next time
