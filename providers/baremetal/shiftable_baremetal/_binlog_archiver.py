"""Archives the binary log of a MariaDB server in a bucket while it is written: asks for what is new again and again.

Nothing of it lies on this machine. What is stored is told by the names of its parts, so whoever goes on, goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import attrs

from shiftable.database.driver import ArchiveProgress
from shiftable.errors import Conflict, IntegrityError, Unavailable
from shiftable.tokens import Token
from shiftable_baremetal._archive import GapError, fail_for_gap, within
from shiftable_baremetal._binlog import MAGIC, Event, Mark, Part, Place, following
from shiftable_baremetal._binlog_join import joined
from shiftable_baremetal._binlog_session import BinlogSession, Seen, Stream
from shiftable_baremetal._binlog_store import BinlogStore, LogEnd
from shiftable_baremetal._servers_engine import fail
from shiftable_baremetal._servers_mariadb import MariadbEngine

__all__ = ["BinlogArchiver"]

_STEP = 0.2
_PATIENCE = 45  # seconds for what a killed archiver has left to end, and for the server to send what it has
_ANSWER = 120  # seconds after which a server that sends nothing never will
_MANY = 1000  # marks of a part
_BEGIN = datetime.min.replace(tzinfo=UTC)
_LARGE = 16 * 1024 * 1024  # bytes of a part, as of a segment of PostgreSQL


@attrs.frozen
class BinlogArchiver:
    """One process that archives one server."""

    _engine: MariadbEngine
    _store: BinlogStore

    def run(
        self,
        every: timedelta,
        on_progress: Callable[[ArchiveProgress], None],
        stopped: Callable[[], bool],
        *,
        over_gap: bool,
    ) -> None:
        """Archive until ``stopped``; see ``DatabaseDriver.archive``."""
        with self._engine.connection(read_timeout=_ANSWER) as connection:
            server = BinlogSession(connection)
            server.check()
            owner = self._store.claim(server.system())
            if not within(_PATIENCE, lambda: server.alone(owner.id)):
                fail(Conflict, "another process archives the server: stop it, or leave it be")
            stream = Stream(lambda: self._engine.connection(read_timeout=_ANSWER))
            follow = _Follow(self._store, server, stream, stopped)
            try:
                try:
                    follow.resume()
                    follow.run(every.total_seconds(), on_progress)
                except GapError as gap:
                    follow.join(gap)
                    follow.run(every.total_seconds(), on_progress)
            except GapError as exc:
                if not over_gap:
                    fail_for_gap(exc)
                follow.begin_anew()
                follow.run(every.total_seconds(), on_progress)


@attrs.define
class _Follow:
    """Where the archive of a log is, and what comes next."""

    _store: BinlogStore
    _server: BinlogSession
    _stream: Stream
    _stopped: Callable[[], bool]
    _stem: str = attrs.field(default="", init=False)
    _part: Part = attrs.field(default=Part(1, 0, 0), init=False)  # that is being written
    _data: bytearray = attrs.field(factory=bytearray, init=False)  # of it
    _stored: Token | None = attrs.field(default=None, init=False)  # of what is in the bucket of it
    _made: tuple[int, int] | None = attrs.field(default=None, init=False)  # when its file was, and by which server
    _marks: list[Mark] = attrs.field(factory=list, init=False)
    _latest: datetime = attrs.field(default=_BEGIN, init=False)  # that the server's clock has had

    @property
    def _place(self) -> Place:
        return self._part.file, self._part.begin + len(self._data)

    def resume(self) -> None:
        """Go on where the bucket ends; what is of no finished part is asked for again."""
        seen, parts = self._server.now(), self._store.parts()
        self._stem = seen.stem
        if not parts:
            self._begin(Part(1, seen.place[0], 0))
            return
        epoch = max(part.epoch for part in parts)
        first = min(part.file for part in parts if part.epoch == epoch)
        end = Part(epoch, first, 0)
        for part, _ in following(parts, epoch, first):
            if not part.partial:
                end = Part(epoch, part.file + 1, 0) if part.last else Part(epoch, part.file, part.end)
        self._begin(end)
        self._marks = self._store.marks(f"{end.series}.json")
        if (archived := self._store.archived()) is not None and archived.epoch == epoch:
            self._mark(archived.mark)
            self._latest = archived.latest
        known = end.file if end.begin or end.file == first else end.file - 1
        before = self._store.first_event(epoch, known)
        if before is not None:
            self._check_same(known, before.origin, self._stream.first_event(self._stem, known))
            self._made = before.origin if known == end.file else None

    def begin_anew(self) -> None:
        """Forget where the bucket ends, and begin with the file that the server writes."""
        self._store.end_epoch()
        seen = self._server.now()
        self._stem = seen.stem
        self._begin(Part(self._store.next_epoch(), seen.place[0], 0))

    def join(self, gap: GapError) -> None:
        """Go on with a server that has taken over, if its log goes on from what is stored.

        Raises:
            GapError: it does not.
        """
        join = joined(self._store, self._server, self._stream, gap)
        self._store.end_epoch()
        self._store.write_join(join)
        self._stem = self._server.now().stem
        self._begin(Part(join.epoch, join.first, 0))

    def run(self, every: float, on_progress: Callable[[ArchiveProgress], None]) -> None:
        """Store what the server has written, and tell, again and again."""
        noted: Place | None = None
        while not self._stopped():
            seen = self._server.now()
            if not self._reach(seen):
                return
            self._note(seen, changed=noted != self._place)
            noted = self._place
            latest = self._server.now().place
            behind = latest[1] - (noted[1] if latest[0] == noted[0] else 0)
            name = f"{self._stem}.{noted[0]:06d}"
            on_progress(ArchiveProgress(until=seen.before, behind=max(behind, 0), segment=name))
            due = time.monotonic() + every
            while not self._stopped():
                time.sleep(_STEP)
                if time.monotonic() >= due:
                    break

    def _begin(self, part: Part) -> None:
        self._part, self._stored, self._made, self._marks = part, None, None, []
        self._data = bytearray() if part.begin else bytearray(MAGIC)

    def _reach(self, seen: Seen) -> bool:
        """Take all that the server had written then; false if this is to stop."""
        if seen.stem != self._stem or seen.place < self._place:
            why = f"the server's log ends before {self._stem}.{self._part.file:06d}, {self._place[1]}"
            raise GapError(f"{why}, which is stored: it was reset (RESET MASTER), or this is another server")
        end = time.monotonic() + _PATIENCE
        while self._place < seen.place:
            before = self._place
            with self._stream.events(self._stem, *self._place) as events:
                for number, event in events:
                    if number != self._part.file:
                        self._finish(last=True)
                    self._take(event)
                    if len(self._data) >= _LARGE:
                        self._finish(last=False)
                        if self._stopped():
                            return False
            if self._place != before:
                end = time.monotonic() + _PATIENCE
            elif time.monotonic() > end:
                fail(Unavailable, "the server does not send what it has written of its log")
            elif self._place < seen.place:
                time.sleep(_STEP)
        return True

    def _take(self, event: Event) -> None:
        file, offset = self._place
        if event.begins_file:
            if self._made is None:
                self._made = event.origin
            self._check_same(file, self._made, event)
            if offset > len(MAGIC):
                return  # it is not there, but each answer begins with it
        if not event.follows(offset):
            fail(
                IntegrityError, f"what the server sends of {self._stem}.{file:06d} does not follow {offset}; try again"
            )
        self._data += event.data

    def _check_same(self, file: int, made: tuple[int, int], event: Event) -> None:
        if event.origin != made:
            why = f"the server's log {self._stem}.{file:06d} is another one than is stored"
            raise GapError(f"{why}: it was reset (RESET MASTER), or this is another server")

    def _finish(self, *, last: bool) -> None:
        """Store a part that is finished, and begin the next one."""
        file, end = self._place
        part = attrs.evolve(self._part, end=end, last=last)
        self._store.put(part, bytes(self._data), self._stored)
        if self._marks:
            self._store.write_times(part, self._marks)
        made = self._made
        self._begin(attrs.evolve(self._part, file=file + 1, begin=0) if last else attrs.evolve(self._part, begin=end))
        self._made = None if last else made

    def _note(self, seen: Seen, *, changed: bool) -> None:
        """Store what there is, and then that a time can be restored."""
        if changed:
            self._stored = self._store.put_partial(self._part, bytes(self._data), self._stored)
        file, offset = seen.place
        if self._mark(Mark(file=file, offset=offset, first=seen.after, last=seen.before)):
            self._store.write_times(self._part, self._marks)
        if len(self._marks) >= _MANY:
            self._finish(last=False)
        self._latest = max(self._latest, seen.before)
        known = {"until": seen.before, "after": seen.after, "latest": self._latest}
        self._store.write_archived(LogEnd(**known, epoch=self._part.epoch, file=file, offset=offset))

    def _mark(self, mark: Mark) -> bool:
        """Keep what was seen; false if the log is as it was when it was looked at before, and no clock was set back."""
        if self._marks and self._marks[-1].place == mark.place and self._marks[-1].last <= mark.first:
            self._marks[-1] = attrs.evolve(self._marks[-1], last=mark.last)
            return False
        self._marks.append(mark)
        return True
