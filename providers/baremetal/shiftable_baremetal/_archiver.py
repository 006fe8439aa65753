"""Archives the WAL of a server in a bucket while it is written: pg_receivewal's folder, emptied into the bucket.

    FOLDER/lock                 held by the archiver, and by the pg_receivewal that it has started
    FOLDER/wal/SEGMENT          finished, and perhaps stored
    FOLDER/wal/SEGMENT.partial  being written

pg_receivewal goes on after the last finished segment of its folder. So the last one that is stored stays there, or an
empty file of its size in its place: nothing is skipped, also if the folder is lost or another machine goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import attrs

from shiftable.database.driver import ArchiveProgress
from shiftable.errors import Conflict, Unavailable
from shiftable.postgresql._locks import take
from shiftable_baremetal._archive import GapError, fail_for_gap, within
from shiftable_baremetal._archive_server import ReplicationSession
from shiftable_baremetal._archive_store import Archived, ArchiveStore, Segments
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._servers_engine import fail
from shiftable_baremetal._servers_postgresql import PostgresqlEngine
from shiftable_baremetal._servers_programs import leashed

__all__ = ["Archiver", "slot_name", "stream_name"]

_STEP = 0.2
_PATIENCE = 45  # seconds for what a killed archiver has left to end
_FINISHED = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_PARTIAL = re.compile(r"([0-9A-F]{24})\.partial")
# What a server says that does not have what comes next: ReadRecord's callers in walsender.c.
_GONE = ("has already been removed", "is not in this server's history", "is ahead of the WAL flush position")


def slot_name(archive: str) -> str:
    """Return what the slot of an archive is called, by which the server keeps its log."""
    return f"shiftable_{archive}"


def stream_name(slot: str) -> str:
    """Return what the slot beside it is called that pg_receivewal streams from."""
    return f"{slot}_stream"


@attrs.frozen
class Archiver:
    """One process that archives one server.

    Args:
        folder: on a disk of its own machine, for some segments.
    """

    _engine: PostgresqlEngine
    _store: ArchiveStore
    _folder: Path

    def run(
        self,
        every: timedelta,
        on_progress: Callable[[ArchiveProgress], None],
        stopped: Callable[[], bool],
        *,
        over_gap: bool,
    ) -> None:
        """Archive until ``stopped``; see ``DatabaseDriver.archive``."""
        with self._alone() as lock, self._engine.connection() as connection:
            server = ReplicationSession(connection)
            server.check()
            owner = self._store.claim(server.system())
            if not within(_PATIENCE, lambda: server.alone(owner.id)):
                fail(Conflict, "another process archives the server: stop it, or leave it be")
            follow = _Follow(self._engine, self._store, self._folder / "wal", server, slot_name(owner.id), lock)
            try:
                follow.run(every.total_seconds(), on_progress, stopped)
            except GapError as exc:
                if not over_gap:
                    fail_for_gap(exc)
                follow.begin_anew()
                follow.run(every.total_seconds(), on_progress, stopped)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """Be the only archiver with this folder; hand out what a child holds the lock with, too."""
        (self._folder / "wal").mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = take(self._folder / "lock", shared=False, timeout=_PATIENCE)
        if lock is None:
            fail(Conflict, f"another process archives into {self._folder}: stop it, or leave it be")
        try:
            yield lock
        finally:
            os.close(lock)


@attrs.define
class _Follow:
    """One run of pg_receivewal."""

    _engine: PostgresqlEngine
    _store: ArchiveStore
    _folder: Path
    _server: ReplicationSession
    _slot: str
    _lock: int
    _segments: Segments = attrs.field(init=False)
    _last: str = attrs.field(default="", init=False)
    _until: int = attrs.field(default=-1, init=False)

    @property
    def _stream(self) -> str:
        return stream_name(self._slot)

    def __attrs_post_init__(self) -> None:
        self._segments = Segments(self._server.segment_size())

    def run(self, every: float, on_progress: Callable[[ArchiveProgress], None], stopped: Callable[[], bool]) -> None:
        """Go on where the bucket ends."""
        self._prepare()
        if not within(_PATIENCE, lambda: self._server.renew_slot(self._stream)):
            fail(Conflict, f"another process streams from the server's slot {self._stream}: stop it, or leave it be")
        command = self._engine.receive_wal(self._server.version, self._folder, self._stream)
        due, wanted = 0.0, None
        try:
            with leashed(command, self._lock) as process:
                while process.poll() is None and not stopped():
                    self._store_finished()
                    if wanted is None and time.monotonic() >= due:
                        wanted, due = self._server.now(), time.monotonic() + every
                    if wanted is not None and self._has_stored(*wanted):
                        behind = self._server.now()[1] - wanted[1]
                        on_progress(ArchiveProgress(until=wanted[0], behind=behind, segment=self._last))
                        wanted = None
                    time.sleep(_STEP)
                ended = process.poll() is not None
        except FilesError as exc:
            if any(words in str(exc) for words in _GONE):
                raise GapError(f"the server does not have the log any more that comes after {self._last}") from exc
            raise
        if ended:
            fail(Unavailable, "pg_receivewal has ended")

    def begin_anew(self) -> None:
        """Forget where the bucket ends, and begin with what the server has."""
        last = self._stored_until()
        if last is not None:
            self._store.accept_gap(last)
        for name in (self._stream, self._slot):
            self._server.drop_slot(name)
        for left in self._folder.iterdir():
            left.unlink()

    def _stored_until(self) -> str | None:
        """Return the last segment that is stored, or the one before what a base backup needs; ``None``: nothing is."""
        if stored := self._store.segments():
            return stored[-1]
        first = min((base.segment for base in self._store.bases()), default=None)
        return None if first is None else self._segments.named(first[:8], self._segments.number(first) - 1)

    def _prepare(self) -> None:
        """Store what a killed archiver has left, and have pg_receivewal begin after the last segment that is stored."""
        state = self._server.slot(self._slot)
        if state == "lost":
            raise GapError("the server keeps no more of its log than max_slot_wal_keep_size, and that is used up")
        if state == "missing":
            self._server.make_slot(self._slot)
        last = self._stored_until()
        if last is None or last == self._store.accepted_gap():
            first = self._server.kept_from(self._slot)
            last = self._segments.named(first[:8], self._segments.number(first) - 1)
        self._last = last
        for left in list(self._folder.iterdir()):
            if _SEGMENT.fullmatch(left.name) and _is_blank(left):
                left.unlink()
            elif _PARTIAL.fullmatch(left.name) and left.stat().st_size not in {0, self._segments.size}:
                left.unlink()  # a disk was full, or a kill came early: pg_receivewal refuses it, and the server has it
        self._store_finished()
        for left in list(self._folder.iterdir()):
            if left.name[:24] <= self._last and left.name != self._last:
                left.unlink()
        self._last = self._on_this_timeline(self._last)
        place = self._folder / self._last
        if not place.exists():
            with place.open("wb") as file:
                file.truncate(self._segments.size)

    def _on_this_timeline(self, last: str) -> str:
        """Return the last segment under the name that it would have on the timeline that begins after it, if one does.

        pg_receivewal cannot go on at the very end of a timeline: it takes the server's word that this is over for an
        error ("could not send replication command", receivelog.c).
        """
        current = self._server.timeline()
        if current == last[:8]:
            return last
        before = self._engine.timelines(int(current, 16))
        following = [*(old for old, _ in before[1:]), int(current, 16)]
        for (old, end), new in zip(before, following, strict=True):
            if f"{old:08X}" == last[:8] and end == self._segments.end(last):
                return f"{new:08X}{last[8:]}"
        return last

    def _store_finished(self) -> None:
        """Store each finished segment, then let the server and the folder forget it; the last one stays here."""
        for name in sorted(each.name for each in self._folder.iterdir() if _FINISHED.fullmatch(each.name)):
            place = self._folder / name
            if not _SEGMENT.fullmatch(name):
                self._store.put(name, place)
                place.unlink()
                continue
            if name <= self._last:
                continue
            if self._segments.number(name) > self._segments.number(self._last) + 1:
                raise GapError(f"{place} does not go on where the archive ends, which is after {self._last}")
            self._store.put(name, place)
            before, self._last = self._last, name
            self._server.advance(self._slot, self._segments.end(name))
            (self._folder / before).unlink(missing_ok=True)

    def _has_stored(self, when: datetime, lsn: int) -> bool:
        """Store all until a position, if pg_receivewal is that far, and note that the time can be restored."""
        if self._server.received(self._stream) < lsn:
            return False
        number = self._segments.holding(lsn)
        if number > self._segments.number(self._last) + 1:
            return False  # one has been finished since they were stored
        if number > self._segments.number(self._last) and lsn != self._until:
            written = max(
                (found[1] for each in self._folder.iterdir() if (found := _PARTIAL.fullmatch(each.name))), default=""
            )
            if not written or self._segments.number(written) != number:
                return False  # it has been finished meanwhile
            try:
                self._store.put_partial(written, self._folder / f"{written}.partial")
            except FileNotFoundError:
                return False
        self._store.write_archived(Archived(until=when, lsn=lsn, segment=self._last))
        self._until = lsn
        return True


def _is_blank(path: Path) -> bool:
    """Tell whether a file only marks where to go on: a segment begins with a number that is not 0."""
    with path.open("rb") as file:
        return file.read(16) == bytes(16)
