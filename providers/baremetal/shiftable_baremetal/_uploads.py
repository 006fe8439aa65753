"""Uploads that have begun and are not complete: ``buckets/<bucket>/uploads/<id>/`` in the driver's own area.

    upload.json     its key, and when it began; each process that writes it holds a shared lock on this file
    data            the object, being filled part by part

A killed writer leaves all of that behind, and nobody sees it. The kernel, though, releases the lock with the last
descriptor: an upload that no living process holds, and that nobody wrote to for an hour, is dropped by the next write
into its bucket. The hour is for uploads on their way from one process to another, which nobody holds meanwhile.
A forked child has copies of its parent's descriptors, so that it keeps what the parent left for as long as it lives.
Over NFS 4 the server keeps the locks and releases those of a client that does not answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import attrs

from shiftable.blob.driver import Part, PendingUpload, Upload
from shiftable_baremetal._area import GRACE, Area, Staged, unlocked, write_all
from shiftable_baremetal._faults import invalid, missing_upload
from shiftable_baremetal._reading import digest
from shiftable_baremetal._sidecar import modified

__all__ = ["Uploads"]


@attrs.frozen(eq=False)
class _Held:
    """An upload that this process keeps from being dropped."""

    lock: int
    process: int


@attrs.define(eq=False)
class Uploads:
    """The uploads below one root, and which of them this process holds.

    It holds each that it began or wrote to, until that is completed or aborted here, or ``close`` is called.
    """

    _area: Area
    _held: dict[str, _Held] = attrs.field(factory=dict, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def begin(self, upload: Upload) -> None:
        """Make an empty file, and hold it."""
        folder = self._folder(upload)
        self._area.make(folder)
        lock = os.open(f"{folder}/upload.json", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            write_all(lock, json.dumps({"key": upload.key, "started": self._area.clock()}).encode(), 0)
            Path(folder, "data").touch()
        except BaseException:
            os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:
            self._held[str(folder)] = _Held(lock, os.getpid())

    def write(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:
        """Write one part to where it belongs."""
        self._hold(upload)
        with self._opened(upload) as staged:
            write_all(staged.fd, data, offset)
        return Part(number=number, size=len(data), token=f"{offset:x}-{zlib.crc32(data):08x}")

    @contextlib.contextmanager
    def finished(self, upload: Upload, parts: tuple[Part, ...]) -> Iterator[tuple[Staged, str]]:
        """Open the file, of just these parts, and tell its MD5; remove what remains if the block does not fail."""
        self._hold(upload)
        with self._opened(upload) as staged:
            md5 = digest(staged.fd, parts)
            os.ftruncate(staged.fd, sum(part.size for part in parts))
            yield staged, md5
        self._release(upload)
        shutil.rmtree(self._folder(upload), ignore_errors=True)

    def abort(self, upload: Upload) -> None:
        """Remove everything."""
        folder = self._folder(upload)
        self._release(upload)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)

    def pending(self, bucket: str, prefix: str) -> list[PendingUpload]:
        """Return those of a bucket, by key, then the oldest first."""
        found = []
        for folder in self._folders(bucket):
            # One that is being begun or removed just now has none, or an empty one.
            with contextlib.suppress(FileNotFoundError, ValueError):
                about = json.loads((folder / "upload.json").read_bytes())
                started: datetime = modified(about["started"])
                found.append(PendingUpload(key=about["key"], id=folder.name, started=started))
        named = (upload for upload in found if upload.key.startswith(prefix))
        return sorted(named, key=lambda upload: (upload.key, upload.started, upload.id))

    def sweep(self, bucket: str) -> None:
        """Drop what dead writers left in a bucket; at most once an hour there is something to do."""
        if self._area.is_due(bucket):
            for folder in self._folders(bucket):
                with contextlib.suppress(OSError):  # somebody else is at it, or it is not ours to remove
                    self._drop_dead(folder)

    def close(self) -> None:
        """Hold nothing any more. Who goes on with an upload holds it again."""
        with self._lock:
            for held in self._held.values():
                os.close(held.lock)
            self._held.clear()

    def _drop_dead(self, folder: Path) -> None:
        if self._area.age(folder) <= GRACE:
            return
        # With O_CREAT: its writer may have died before it made the lock.
        lock = os.open(folder / "upload.json", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not unlocked(lock) or any(self._area.age(path) <= GRACE for path in folder.glob("data")):
                return
            (folder / "data").unlink(missing_ok=True)  # whoever joins now waits for our lock, and then finds nothing
        finally:
            os.close(lock)
        shutil.rmtree(folder)  # only now: NFS keeps the names of files that are open

    def _hold(self, upload: Upload) -> None:
        """Keep an upload from being dropped, whoever began it: what a fork has of its parent's is not its own."""
        path = str(self._folder(upload))
        with self._lock:
            held = self._held.get(path)
            if held is not None and held.process == os.getpid():
                return
            try:
                lock = os.open(f"{path}/upload.json", os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                raise missing_upload(upload.id) from None
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._held[path] = _Held(lock, os.getpid())
            if held is not None:
                os.close(held.lock)  # our copy of it; never unlocked, for that would unlock the parent's too

    def _release(self, upload: Upload) -> None:
        with self._lock:
            held = self._held.pop(str(self._folder(upload)), None)
        if held is not None:
            os.close(held.lock)

    @contextlib.contextmanager
    def _opened(self, upload: Upload) -> Iterator[Staged]:
        path = self._folder(upload) / "data"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self._release(upload)  # somebody else completed or aborted it
            raise missing_upload(upload.id) from None
        try:
            yield Staged(path, fd)
        finally:
            os.close(fd)

    def _folder(self, upload: Upload) -> Path:
        # Of a forged one, a path may lead anywhere.
        if not upload.id.isalnum() or upload.bucket.startswith(".") or "/" in upload.bucket or not upload.bucket:
            raise invalid("this upload was not begun here")
        return Path(self._area.of(upload.bucket), "uploads", upload.id)

    def _folders(self, bucket: str) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return list(Path(self._area.of(bucket), "uploads").iterdir())
        return []
