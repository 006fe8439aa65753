"""A whole server as it was at a time: a private cluster, made of a base backup and the WAL after it, for a while."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

import attrs

from shiftable.errors import IntegrityError
from shiftable.postgresql import Binaries, Cluster, ClusterError
from shiftable.postgresql._owner import Owner
from shiftable_baremetal._archive_store import ArchiveStore, Base, Segments
from shiftable_baremetal._recovery_places import check_room, own_place, watched_room
from shiftable_baremetal._servers_engine import fail

__all__ = ["recovered"]

_RECOVERY = 24 * 3600  # seconds, for WAL to be replayed
_STEP = 0.02
_ROOM = 1024 * 1024 * 1024  # bytes for WAL, beside the data
_NOT_REACHED = "recovery ended before configured recovery target was reached"
# The server's working directory is its data. Whoever answers lets it have the segment, or a mark that there is none.
_ASK = (
    'f="../restore/%f"; rm -f "$f.none"; : > "$f.wanted";'
    ' while [ -d ../restore ] && [ ! -e "$f" ] && [ ! -e "$f.none" ]; do sleep 0.02; done; mv "$f" "%p" 2>/dev/null'
)
_HBA = "local all all trust\n"  # only this user and root reach the socket
# Of the server's own settings none counts: they name its memory, its libraries, its certificates, and where to archive.
_SETTINGS = {
    "hba_file": "/proc/self/cwd/shiftable_hba.conf",  # the folders above its data may be closed to the server
    "restore_command": _ASK,
    "recovery_target_action": "promote",
    "hot_standby": "off",  # which would ask for parameters as large as they once were
    "archive_mode": "off",
    "autovacuum": "off",
    "max_logical_replication_workers": "0",  # else its subscriptions would take from their publishers
}


@contextlib.contextmanager
def recovered(store: ArchiveStore, base: Base, when: datetime, folder: Path, programs: Binaries) -> Iterator[Cluster]:
    """Run the server as it was at a time, until the end of the block; then nothing of it is left.

    Args:
        folder: for such servers; each has its own below.
        programs: of the backup's major version.

    Raises:
        FilesError: the disk is too small; what is stored is damaged, or has a gap.
    """
    check_room(folder, base.unpacked + _ROOM)
    with own_place(folder, _discard) as place, watched_room(place):
        cluster = Cluster(place, programs, durable=False)
        _unpack(store, base, cluster)
        with _rolled_forward(store, base, when, cluster):
            yield cluster


def _discard(place: Path) -> None:
    Cluster(place, Binaries(Path(), "0")).remove()
    shutil.rmtree(place, ignore_errors=True)


# the data directory


def _unpack(store: ArchiveStore, base: Base, cluster: Cluster) -> None:
    owner, new = cluster.owner, cluster.folder / "data-new"
    new.mkdir(mode=0o700)
    pieces, found = store.data(base), dict[str, tuple[int, str]]()
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _Reader(pieces)), mode="r|") as tar:
            for member in tar:
                if not member.isdir():
                    found[member.name] = _unpack_file(tar, member, new)
                else:
                    _inside(new, member).mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in pieces:  # to the end, where its digest is compared
            pass
    except tarfile.TarError:
        fail(IntegrityError, f"the base backup {base.backup.name} is no tar file; nothing is made of it")
    _check_files(new, found)
    for name in ("postmaster.pid", "postmaster.opts", "standby.signal", "current_logfiles"):
        (new / name).unlink(missing_ok=True)
    for name, text in {
        "postgresql.conf": "",
        "postgresql.auto.conf": "",
        "shiftable_hba.conf": _HBA,
        "pg_ident.conf": "",
        "recovery.signal": "",
    }.items():
        (new / name).write_text(text)
        (new / name).chmod(0o600)
    for path in (new, *new.rglob("*")):
        owner.take(path)
    new.rename(cluster.data)


def _unpack_file(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> tuple[int, str]:
    """Write a file, and return its size and SHA-256."""
    place, digest, size = _inside(folder, member), hashlib.sha256(), 0
    with cast("IO[bytes]", tar.extractfile(member)) as source, place.open("wb") as sink:
        place.chmod(0o600)
        while piece := source.read(1024 * 1024):
            digest.update(piece)
            size += len(piece)
            sink.write(piece)
    return size, digest.hexdigest()


def _inside(folder: Path, member: tarfile.TarInfo) -> Path:
    name = member.name
    if name.startswith("/") or ".." in Path(name).parts or not (member.isdir() or member.isreg()):
        fail(IntegrityError, f"the base backup has {name!r}, which no data directory has; nothing is made of it")
    return folder / name


def _check_files(data: Path, found: Mapping[str, tuple[int, str]]) -> None:
    """Compare each file with the server's own manifest, as pg_verifybackup does."""
    listed = json.loads((data / "backup_manifest").read_text(encoding="utf-8"))["Files"]
    for each in listed:
        name = each["Path"] if "Path" in each else os.fsdecode(bytes.fromhex(each["Encoded-Path"]))
        if found.get(name) != (each["Size"], each["Checksum"]):
            fail(IntegrityError, f"{name} in the base backup is not what the server sent; nothing is made of it")


@attrs.define
class _Reader:
    """Pieces as a file, as far as tarfile asks for one."""

    _pieces: Iterator[bytes]
    _left: bytes = b""

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end."""
        parts, missing = [self._left], size - len(self._left)
        while missing > 0 and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            missing -= len(piece)
        whole = b"".join(parts)
        self._left = whole[size:]
        return whole[:size]


# rolling forward


@contextlib.contextmanager
def _rolled_forward(store: ArchiveStore, base: Base, when: datetime, cluster: Cluster) -> Iterator[None]:
    """Have the server replay its log until that time, and then run."""
    requests = cluster.folder / "restore"
    requests.mkdir(mode=0o700)
    cluster.owner.take(requests)
    text = cluster.run("pg_controldata", "--pgdata", cluster.data).decode()
    prepared = next((line.split()[-1] for line in text.splitlines() if "max_prepared_xacts" in line), "0")
    target = {"recovery_target_time": when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")}
    settings = {**_SETTINGS, "max_prepared_transactions": prepared}
    _check_history(store)
    clerk = _Clerk(store, requests, cluster.owner, Segments(base.segment_size))
    with clerk.working():
        cluster.parameters = {**settings, **target}
        try:
            _recover(cluster)
        except ClusterError as exc:
            clerk.check_answers()
            if _NOT_REACHED not in str(exc):
                fail(IntegrityError, f"the server does not come up as it was: {_last_words(str(exc))}")
            clerk.check_reached(base)
            # All is there until that time, and nobody has committed since: its end is what there was.
            cluster.parameters = settings
            try:
                _recover(cluster)
            except ClusterError as again:
                fail(IntegrityError, f"the server does not come up as it was: {_last_words(str(again))}")
        clerk.check_answers()  # else a history that could not be read would be one that does not exist
    try:
        yield
    finally:
        cluster.stop(immediately=True)


def _check_history(store: ArchiveStore) -> None:
    """Fail if it is not told where the last timeline begins: the server would stay on the one before."""
    stored = store.names()
    last = max((name[:8] for name in stored), default="00000001")
    if last != "00000001" and f"{last}.history" not in stored:
        fail(
            IntegrityError, f"{last}.history is not in the bucket, which tells where the server's last timeline begins"
        )


def _recover(cluster: Cluster) -> None:
    try:
        cluster.start(timeout=_RECOVERY)
        cluster.wait_recovered(timeout=_RECOVERY)
    except BaseException:
        with contextlib.suppress(ClusterError):
            cluster.stop(immediately=True)
        raise


def _last_words(said: str) -> str:
    found = [line for line in said.splitlines() if "FATAL" in line or "PANIC" in line]
    return found[-1].partition("  ")[2] if found else said.splitlines()[0]


@attrs.define
class _Clerk:
    """Hands a recovering server the WAL that it asks for, so that it does not all lie on this disk."""

    _store: ArchiveStore
    _folder: Path
    _owner: Owner
    _segments: Segments
    _highest: int = attrs.field(default=-1, init=False)
    _error: BaseException | None = attrs.field(default=None, init=False)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Answer until the end of the block."""
        ended = threading.Event()

        def work() -> None:
            while not ended.is_set():
                for path in self._folder.glob("*.wanted"):
                    self._answer(path)
                ended.wait(_STEP)

        worker = threading.Thread(target=work, name="shiftable-wal", daemon=True)
        worker.start()
        try:
            yield
        finally:
            ended.set()
            worker.join()

    def check_reached(self, base: Base) -> None:
        """Fail if the server got less than there must be.

        Raises:
            FilesError: there is a gap.
        """
        stored, archived = self._store.names(), self._store.archived()
        timeline = max((name[:8] for name in stored), default="")
        numbers = [self._segments.number(name) for name in stored if name[:8] == timeline and len(name) >= 24]
        needed = max([*numbers, self._segments.holding(archived.lsn) if archived else 0])
        reached = max(self._highest, self._segments.number(base.segment) - 1)
        if reached < needed:
            missing = self._segments.named(timeline, reached + 1)
            why = f"the WAL after the base backup {base.backup.name} has a gap: segment {missing} is not in the bucket"
            fail(IntegrityError, f"{why}; times after it are restored only from a later base backup")

    def check_answers(self) -> None:
        """Fail if something could not be answered, as the bucket said."""
        if self._error is not None:
            raise self._error

    def _answer(self, path: Path) -> None:
        name = path.name.removesuffix(".wanted")
        path.unlink()
        part, found = self._folder / f"{name}.part", False
        try:
            found = self._store.fetch(name, part)
        except Exception as exc:  # noqa: BLE001  raised when the server has ended
            self._error = exc
        if not found:
            part.unlink(missing_ok=True)
            (self._folder / f"{name}.none").touch()
            return
        if len(name) == 24:
            self._highest = max(self._highest, self._segments.number(name))
        self._owner.take(part)
        part.rename(self._folder / name)
