"""Where private servers lie: below ``<root>/database``, each in its folder, and what is not one of them behind a dot.

    orders/                     a server
        spec.json               its declaration
        password                of its administrator; password.pending while it is changed
        last-snapshot           there once a delete has begun to take one
        stopped                 there if it shall not be started on demand
        cluster/                see shiftable.postgresql
        backups/                see _private_backups.py
    .snapshots/orders/first/    a snapshot
        snapshot.json
        data/                   a data directory, as pg_basebackup makes it
    .lock~orders                held by whoever changes something of that server
    .new~orders~xxxx            what is not complete; a rename puts it into place
    .gone~orders~xxxx           what is being deleted

What was left behind by a process that was killed is removed by the next one that changes that server.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from shiftable.database.driver import DatabaseSpec, Snapshot
from shiftable.errors import AlreadyExists, Conflict, Fault, InvalidArgument, NotFound
from shiftable.masking import Masked
from shiftable.postgresql import Binaries, Cluster, locked
from shiftable_baremetal._durable import sync, write
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._private_backups import Backups

__all__ = ["Area", "Files"]

_PATIENCE = 600  # seconds: another process may be making or copying a server
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NO_PROGRAMS = Binaries(Path(), "0")  # to stop and delete a server takes none


@attrs.frozen
class Files:
    """The files of one server, also before it is in its place."""

    folder: Path

    @property
    def cluster(self) -> Path:
        """The folder of the data and the server."""
        return self.folder / "cluster"

    @property
    def backups(self) -> Backups:
        """The backups that are made by themselves."""
        return Backups(self.folder / "backups", self.cluster / "archive")

    @property
    def in_use(self) -> bool:
        """Whether the server runs, and this process uses it already."""
        return Cluster(self.cluster, _NO_PROGRAMS, until_exit=True).in_use

    @property
    def stopped(self) -> bool:
        """Whether it shall not be started on demand."""
        return (self.folder / "stopped").exists()

    def set_stopped(self, *, on: bool) -> None:
        """Have it started on demand, or not."""
        mark = self.folder / "stopped"
        if on:
            mark.touch(mode=0o600)
        else:
            mark.unlink(missing_ok=True)

    def spec(self) -> DatabaseSpec:
        """Return the declaration; its password is not in it."""
        known = json.loads((self.folder / "spec.json").read_text())
        listed = {field: tuple(known[field]) for field in ("allow_from", "databases")}
        return DatabaseSpec(**{**known, **listed})

    def created(self) -> datetime:
        """Return when it was made."""
        return datetime.fromisoformat((self.folder / "created").read_text())

    def write_created(self, when: datetime) -> None:
        """Keep when it was made."""
        write(self.folder / "created", when.isoformat())

    def last_snapshot(self) -> str | None:
        """Return the snapshot that a delete was about to take."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "last-snapshot").read_text()
        return None

    def write_last_snapshot(self, name: str) -> None:
        """Keep which snapshot a delete is about to take."""
        write(self.folder / "last-snapshot", name)

    def write_spec(self, spec: DatabaseSpec) -> None:
        """Keep a declaration in place of the one before."""
        told = attrs.asdict(spec, filter=attrs.filters.exclude("password", "login", "native"))
        write(self.folder / "spec.json", json.dumps(told, indent=2, sort_keys=True))

    def password(self) -> Masked:
        """Return the administrator's password."""
        return Masked((self.folder / "password").read_text(encoding="utf-8"))

    def pending_password(self) -> Masked | None:
        """Return the password that the server is about to be given, or has been."""
        with contextlib.suppress(FileNotFoundError):
            return Masked((self.folder / "password.pending").read_text(encoding="utf-8"))
        return None

    def write_pending_password(self, password: Masked) -> None:
        """Keep the password that the server is about to be given."""
        write(self.folder / "password.pending", password.reveal())

    def keep_pending_password(self) -> None:
        """Make that password the current one: the server has it."""
        (self.folder / "password.pending").replace(self.folder / "password")
        sync(self.folder)

    def write_password(self, password: Masked) -> None:
        """Keep the administrator's password, readable for its owner alone."""
        write(self.folder / "password", password.reveal())


@attrs.frozen
class Area:
    """The folder of all private servers and of their snapshots."""

    root: Path

    @contextlib.contextmanager
    def changing(self, name: str) -> Iterator[None]:
        """Keep other threads and processes from changing a server, and remove what a killed one left."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self.root / f".lock~{name}", timeout=_PATIENCE) as taken:
            if not taken:
                raise FilesError(Fault(Conflict, f"another process has been changing it for more than {_PATIENCE} s"))
            for place in (self.root, self.root / ".snapshots"):
                for left in (*place.glob(f".new~{name}~*"), *place.glob(f".gone~{name}~*")):
                    _discard(left)
            yield

    def names(self) -> list[str]:
        """Return the names of all servers, in order."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(found.name for found in self.root.iterdir() if found.name[0] != ".")
        return []

    def files(self, name: str) -> Files:
        """Return the files of a server, which must exist."""
        files = Files(self.root / name)
        if not files.folder.is_dir():
            raise FilesError(Fault(NotFound, "there is no such server; `shiftable apply` makes what is declared"))
        return files

    @contextlib.contextmanager
    def new(self, name: str) -> Iterator[Files]:
        """Put what the block makes into place when it is complete, and leave nothing of it otherwise."""
        if (self.root / name).exists():
            raise FilesError(Fault(AlreadyExists, "there is such a server"))
        with _complete_or_gone(self.root, name, self.root / name) as folder:
            yield Files(folder)

    def remove(self, name: str) -> None:
        """Make a server vanish at once, and then delete it."""
        _remove(self.root, name, self.root / name)

    # snapshots

    @contextlib.contextmanager
    def new_snapshot(self, snapshot: Snapshot) -> Iterator[Path]:
        """Hand out the path for the data of a snapshot, which is there when the block has ended well."""
        if not _SNAPSHOT.fullmatch(snapshot.name):
            raise FilesError(Fault(InvalidArgument, "a snapshot's name has letters, digits, dots, - and _"))
        place = self.root / ".snapshots" / snapshot.database / snapshot.name
        if place.exists():
            raise FilesError(Fault(AlreadyExists, f"there is a snapshot {snapshot.name!r}"))
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _complete_or_gone(self.root / ".snapshots", snapshot.database, place) as folder:
            told = {**attrs.asdict(snapshot), "created": snapshot.created and snapshot.created.isoformat()}
            write(folder / "snapshot.json", json.dumps(told, indent=2, sort_keys=True))
            yield folder / "data"

    def snapshots(self, name: str | None) -> list[tuple[str, str]]:
        """Return servers and names of all complete snapshots, in order."""
        above = self.root / ".snapshots"
        with contextlib.suppress(FileNotFoundError):
            servers = sorted(above.iterdir()) if name is None else [above / name]
            found = [taken for server in servers if server.name[0] != "." for taken in server.iterdir()]
            return sorted((taken.parent.name, taken.name) for taken in found)
        return []

    def snapshot(self, name: str, snapshot: str) -> tuple[Snapshot, Path]:
        """Return a snapshot and its data."""
        folder = self.root / ".snapshots" / name / snapshot
        told = folder / "snapshot.json"
        if not _SNAPSHOT.fullmatch(snapshot) or not told.exists():
            raise FilesError(Fault(NotFound, f"there is no snapshot {snapshot!r}"))
        known: dict[str, Any] = json.loads(told.read_text())
        known["created"] = datetime.fromisoformat(known["created"])
        return Snapshot(**known), folder / "data"

    def drop_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a snapshot, if there is one."""
        if (name, snapshot) in self.snapshots(name):
            self.remove_snapshot(name, snapshot)

    def remove_snapshot(self, name: str, snapshot: str) -> None:
        """Make a snapshot vanish at once, and then delete it."""
        self.snapshot(name, snapshot)
        _remove(self.root / ".snapshots", name, self.root / ".snapshots" / name / snapshot)


@contextlib.contextmanager
def _complete_or_gone(above: Path, name: str, place: Path) -> Iterator[Path]:
    new = Path(tempfile.mkdtemp(prefix=f".new~{name}~", dir=above))
    try:
        yield new
        sync(new)
        new.rename(place)
        sync(place.parent)
    except BaseException:
        _discard(new)
        raise


def _remove(above: Path, name: str, place: Path) -> None:
    gone = Path(tempfile.mkdtemp(prefix=f".gone~{name}~", dir=above))
    place.rename(gone)
    sync(place.parent)
    _discard(gone)


def _discard(folder: Path) -> None:
    Cluster(Files(folder).cluster, _NO_PROGRAMS).remove()
    shutil.rmtree(folder, ignore_errors=True)  # what is left is behind a dot, and removed the next time
