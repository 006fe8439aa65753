"""Uploads that have begun and are not complete: ``buckets/<bucket>/uploads/<id>/`` in the driver's own area.

    upload.json     its key, and when it began; each process that writes it holds a shared lock on this file
    data            the object, being filled part by part
    joined          more than one process wrote parts

A killed writer leaves all of that behind, and nobody sees it. The kernel, though, releases the lock with the last
descriptor: an upload that no living process holds, and that nobody wrote to for an hour, is dropped by the next write
into its bucket. The hour is for uploads on their way from one process to another, which nobody holds meanwhile.
A forked child has copies of its parent's descriptors, so that it keeps what the parent left for as long as it lives.
Over NFS 4 the server keeps the locks and releases those of a client that does not answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
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
from shiftable_baremetal._reading import digest, digest_part
from shiftable_baremetal._sidecar import modified

__all__ = ["Uploads"]


class _Md5:
    """The MD5 of an upload while its parts arrive, so that it need not be read again when it is complete.

    Parts come from several threads and only nearly in order. One thread at a time digests what lies next, from the
    page cache; the others leave theirs to it. A part that comes twice makes this worthless.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._at = 0
        self._done: list[str] = []
        self._waiting: dict[int, Part] = {}
        self._busy = False
        self._usable = True

    def add(self, fd: int, part: Part, offset: int) -> None:
        """Take a part that was written to the file, and digest what can be digested."""
        with self._lock:
            self._usable = self._usable and offset >= self._at and offset not in self._waiting
            self._waiting[offset] = part
            if self._busy or not self._usable:
                return
            self._busy = True
        try:
            while (following := self._next()) is not None:
                self._digest(fd, following)
        except BaseException:
            self._usable = False
            raise

    def of(self, parts: tuple[Part, ...]) -> str | None:
        """Return the MD5 of these parts, in hex, if it is exactly they that arrived, each once; else ``None``."""
        with self._lock:
            known = self._usable and not self._busy and [part.token for part in parts] == self._done
            return self._md5.hexdigest() if known else None

    def _next(self) -> Part | None:
        with self._lock:
            part = self._waiting.pop(self._at, None) if self._usable else None
            self._busy = part is not None
            return part

    def _digest(self, fd: int, part: Part) -> None:
        crc = digest_part(fd, self._at, part.size, self._md5)
        with self._lock:
            self._usable = self._usable and part.token == _token(self._at, crc)
            self._at += part.size
            self._done.append(part.token)


@attrs.frozen(eq=False)
class _Held:
    """An upload that this process keeps from being dropped."""

    lock: int
    process: int
    md5: _Md5


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
            self._held[str(folder)] = _Held(lock, os.getpid(), _Md5())

    def write(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:
        """Write one part to where it belongs."""
        held = self._hold(upload)
        with self._opened(upload) as staged:
            write_all(staged.fd, data, offset)
            part = Part(number=number, size=len(data), token=_token(offset, zlib.crc32(data)))
            held.md5.add(staged.fd, part, offset)
        return part

    @contextlib.contextmanager
    def finished(self, upload: Upload, parts: tuple[Part, ...]) -> Iterator[tuple[Staged, str]]:
        """Open the file, of just these parts, and tell its MD5; remove what remains if the block does not fail."""
        held = self._hold(upload)
        with self._opened(upload) as staged:
            alone = not os.path.lexists(f"{self._folder(upload)}/joined")
            md5 = held.md5.of(parts) if alone else None
            md5 = md5 or digest(staged.fd, parts)
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

    def _hold(self, upload: Upload) -> _Held:
        """Return what this process knows of an upload. Another process's, or the parent's of a fork, is joined."""
        path = str(self._folder(upload))
        with self._lock:
            held = self._held.get(path)
            if held is None or held.process != os.getpid():
                joined = self._join(upload)
                if held is not None:
                    os.close(held.lock)  # our copy of it; never unlocked, for that would unlock the parent's too
                held = self._held[path] = joined
            return held

    def _join(self, upload: Upload) -> _Held:
        folder = self._folder(upload)
        try:
            lock = os.open(folder / "upload.json", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise missing_upload(upload.id) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            (folder / "joined").touch()
        except BaseException as exc:
            os.close(lock)
            if isinstance(exc, FileNotFoundError):
                raise missing_upload(upload.id) from None
            raise
        return _Held(lock, os.getpid(), _Md5())

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


def _token(offset: int, crc: int) -> str:
    return f"{offset:x}-{crc:08x}"
