"""Copies one large object in parts, and goes on where a killed run stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import attrs

from shiftable.blob import Bucket, ObjectInfo
from shiftable.blob._bulk import of_the_source
from shiftable.blob._task import Task
from shiftable.blob._upload import PART_SIZE, part_sizes
from shiftable.blob.driver import Part, PutOptions, Upload
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    ParentNotFound,
    PermissionDenied,
    PreconditionFailed,
    ShiftableError,
    Unavailable,
    Unsupported,
)
from shiftable.migrate.mover import Notes

__all__ = ["Arrived", "Parts", "Room", "tell_the_same"]

_AT_ONCE = 8
_MEMORY = _AT_ONCE * PART_SIZE
_UPLOAD = "upload"
_HOPELESS = (
    AlreadyExists,
    IntegrityError,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    Unsupported,
)
"""After these nobody can go on with an upload: it is dropped. After all others the next try or run does."""


@attrs.frozen(kw_only=True)
class Arrived:
    """A large object that has arrived.

    Args:
        sha256: of what went through; ``None`` where a part of it did so in an earlier run.
        sent: bytes that went through now.
    """

    target: ObjectInfo
    sha256: bytes | None
    sent: int


class Room:
    """Memory for so many bytes of contents, shared by all objects that are under way."""

    def __init__(self, size: int = _MEMORY) -> None:
        self._free = self._all = size
        self._changed = threading.Condition()

    def cost(self, size: int) -> int:
        """Return how much a content takes: what is larger than all of it takes all."""
        return min(size, self._all)

    @contextlib.contextmanager
    def of(self, size: int) -> Iterator[None]:
        """Wait for room, and give it back at the end."""
        cost = self.cost(size)
        self.take(cost, block=True)
        try:
            yield
        finally:
            self.give(cost)

    def take(self, cost: int, *, block: bool) -> bool:
        """Take some, or say that there is none left.

        Who holds some already must not block: two that wait for each other would wait for ever.
        """
        with self._changed:
            while self._free < cost:
                if not block:
                    return False
                self._changed.wait()
            self._free -= cost
            return True

    def give(self, cost: int) -> None:
        """Give it back."""
        with self._changed:
            self._free += cost
            self._changed.notify_all()


class Parts:
    """Moves large objects from one bucket into another: parts are read and sent side by side.

    What arrived is noted part by part. A later call goes on with the parts that are missing, if it is the same version
    of the source, is to be written in the same way, and the target still has the upload. Else it begins anew, and the
    old upload is dropped.

    Args:
        notes: where the state of uploads is kept.
        stopping: when it is set, uploads are left as they are, for the next run.
        room: for parts.
    """

    def __init__(self, source: Bucket, target: Bucket, notes: Notes, stopping: threading.Event, room: Room) -> None:
        self._source = source
        self._target = target
        self._notes = notes
        self._stopping = stopping
        self._room = room
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="shiftable-parts")
        self._kept: set[str] = set()

    def copy(self, info: ObjectInfo, options: PutOptions) -> Arrived:
        """Move the object in exactly that version.

        What the source tells of the content is compared before the target commits, where all of it goes through now;
        what the target tells is compared in any case, and an object that arrived damaged is deleted.

        Raises:
            SourceChanged: the object is not in that version any more.
            SourceVanished: it is gone.
            PreconditionFailed: the target's condition did not hold.
            IntegrityError: what arrived is not what was sent.
        """
        for last in (False, True):
            work = _Work(self._source, self._target, self._notes, info, options)
            try:
                return work.run(self._pool, self._room, self._stopping)
            except ParentNotFound:
                raise
            except _HOPELESS as exc:
                self.drop(info.key)
                if not work.is_gone(exc) or last:
                    raise
        raise AssertionError  # the last one raises

    def keep(self, key: str) -> None:
        """Remember that the next run may go on with this one's upload."""
        self._kept.add(key)

    def drop(self, key: str) -> None:
        """Abort an upload of which there are notes."""
        found = self._notes.read(key).get(_UPLOAD)
        if found is not None:
            upload = Upload(bucket=self._target.name, key=key, id=json.loads(found)["id"], options=PutOptions())
            task = _task(self._target, key)
            with task.translated:
                task.driver.upload_abort(upload)
        self._notes.clear(key)

    def tidy(self) -> None:
        """Abort what killed runs have begun and nobody goes on with."""
        for key in self._notes.keys():  # noqa: SIM118  no mapping
            if key not in self._kept:
                with contextlib.suppress(ShiftableError):  # the notes stay, and the next run tries again
                    self.drop(key)


class _Work:
    """One attempt at one object."""

    def __init__(self, source: Bucket, target: Bucket, notes: Notes, info: ObjectInfo, options: PutOptions) -> None:
        self._source = source
        self._notes = notes
        self._info = info
        self._options = options
        self._task = _task(target, info.key)
        self._target = target
        self._step = next(iter(part_sizes(target.features, info.size)))
        self._done: dict[int, Part] = {}
        self._resumed = False
        self._sent = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if info.md5 is not None else None

    def run(self, pool: ThreadPoolExecutor, room: Room, stopping: threading.Event) -> Arrived:
        upload = self._remembered() or self._begun()
        self._resumed = bool(self._done)
        self._send(upload, pool, room, stopping)
        if not self._resumed and self._md5 is not None and self._md5.digest() != self._info.md5:
            raise self._damaged("what was read does not have the MD5 that the source tells")
        with self._task.translated:
            parts = tuple(self._done[number] for number in sorted(self._done))
            written = self._task.driver.upload_complete(upload, parts)
        self._check_arrival(written)
        self._notes.clear(self._info.key)
        return Arrived(target=written, sha256=None if self._resumed else self._sha256.digest(), sent=self._sent)

    def is_gone(self, exc: Exception) -> bool:
        """Tell whether what failed was going on with an upload that the target does not have any more."""
        return self._resumed and type(exc) is NotFound

    # the upload

    @property
    def _terms(self) -> dict[str, object]:
        """What must be equal for an upload to be gone on with."""
        way = hashlib.sha256(json.dumps(_way(self._options), sort_keys=True, default=str).encode()).hexdigest()
        return {"token": self._info.token.value, "size": self._info.size, "step": self._step, "way": way}

    def _remembered(self) -> Upload | None:
        notes = self._notes.read(self._info.key)
        if _UPLOAD not in notes:
            return None
        state = json.loads(notes[_UPLOAD])
        id_ = state.pop("id")
        if state != self._terms:
            with self._task.translated:
                self._task.driver.upload_abort(self._upload(id_))
            self._notes.clear(self._info.key)
            return None
        found = (json.loads(value) for name, value in notes.items() if name != _UPLOAD)
        self._done = {number: Part(number=number, size=size, token=token) for number, size, token in found}
        return self._upload(id_)

    def _begun(self) -> Upload:
        with self._task.translated:
            upload = self._task.driver.upload_begin(self._task.bucket, self._task.key, self._options)
        self._notes.write(self._info.key, _UPLOAD, json.dumps({"id": upload.id, **self._terms}))
        return upload

    def _upload(self, id_: str) -> Upload:
        return Upload(bucket=self._task.bucket, key=self._task.key, id=id_, options=self._options)

    # its parts

    def _missing(self) -> Iterator[tuple[int, int, int]]:
        for number, start in enumerate(range(0, self._info.size, self._step), 1):
            if number not in self._done:
                yield number, start, min(start + self._step, self._info.size)

    def _send(self, upload: Upload, pool: ThreadPoolExecutor, room: Room, stopping: threading.Event) -> None:
        """Keep as many parts under way as there is room for; take them in order, as digests need them."""
        pending: deque[tuple[int, Future[bytes]]] = deque()

        def collect() -> None:
            cost, future = pending.popleft()
            try:
                self._digest(future.result())
            finally:
                room.give(cost)

        try:
            for number, start, stop in self._missing():
                cost = room.cost(stop - start)
                while not room.take(cost, block=not pending):
                    collect()
                if stopping.is_set():
                    room.give(cost)
                    raise self._task.error(Unavailable, "the move was interrupted; the next one goes on with the rest")
                pending.append((cost, pool.submit(self._part, upload, number, start, stop)))
            while pending:
                collect()
        finally:
            # A part that arrives after its upload was dropped would stay, unseen and paid for.
            wait([future for _, future in pending if not future.cancel()])
            for cost, _ in pending:
                room.give(cost)

    def _part(self, upload: Upload, number: int, start: int, stop: int) -> bytes:
        with (
            of_the_source(self._source, self._info),
            self._source.stream(self._info, start=start, stop=stop) as stream,
        ):
            data = stream.read()
        with self._task.translated:
            part = self._task.driver.upload_part(upload, number, data, start)
        self._notes.write(self._info.key, f"part {number}", json.dumps([part.number, part.size, part.token]))
        self._done[number] = part
        return data

    def _digest(self, data: bytes) -> None:
        self._sent += len(data)
        if not self._resumed:
            self._sha256.update(data)
            if self._md5 is not None:
                self._md5.update(data)

    # its end

    def _check_arrival(self, written: ObjectInfo) -> None:
        """Compare what both sides tell of the content; a damaged object does not stay."""
        if tell_the_same(self._info, written):
            return
        if self._target.features.delete_if_match:
            with contextlib.suppress(PermissionDenied, Conflict):  # locked already
                self._target.delete(written.key, if_match=written.token)
        raise self._damaged(f"{self._info.size:,} bytes were sent and something else arrived")

    def _damaged(self, why: str) -> IntegrityError:
        return self._task.error(IntegrityError, why)


def _task(bucket: Bucket, key: str) -> Task:
    return Task(bucket._driver, bucket.name, key, "blob.put")  # noqa: SLF001  of the same library


def tell_the_same(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Tell whether size and digests agree, as far as both sides tell them."""
    left, right = _told(one), _told(other)
    return one.size == other.size and all(left[name] == right[name] for name in left.keys() & right.keys())


def _told(info: ObjectInfo) -> Mapping[str, bytes]:
    return dict(info.checksums) | ({"md5": info.md5} if info.md5 is not None else {})


def _way(options: PutOptions) -> dict[str, object]:
    return attrs.asdict(
        options, value_serializer=lambda _, __, value: dict(value) if isinstance(value, Mapping) else value
    )
