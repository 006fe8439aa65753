"""Base backups and the log of a MariaDB server that others run: made, archived, and restored from."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import attrs

from shiftable.database.driver import ArchiveProgress, BaseBackup
from shiftable.errors import Conflict, IntegrityError
from shiftable_baremetal._archive import GapError, fail_for_gap
from shiftable_baremetal._binlog import Event
from shiftable_baremetal._binlog_archiver import BinlogArchiver
from shiftable_baremetal._binlog_recovery import recovered
from shiftable_baremetal._binlog_session import BinlogSession, Stream
from shiftable_baremetal._binlog_store import BinlogStore, Dump, LogEnd
from shiftable_baremetal._servers_archive import ServerArchive
from shiftable_baremetal._servers_engine import fail
from shiftable_baremetal._servers_mariadb import MariadbEngine
from shiftable_baremetal._servers_programs import dumped

__all__ = ["MariadbArchive"]

_TRIES = 3
_HEAD = 64 * 1024  # bytes in which a dump says where the log was
_BEGINS = re.compile(rb"^-- CHANGE MASTER TO MASTER_LOG_FILE='([^']*)\.(\d+)', MASTER_LOG_POS=(\d+);", re.MULTILINE)


class _TornError(Exception):
    """The dump is of more than one moment."""


def _contents(engine: MariadbEngine, head: bytearray) -> Iterator[bytes]:
    """Yield the statements of a base backup: the server's time zones, then all databases; keep how those begin."""
    yield b"USE mysql;\n"
    yield from dumped(engine.time_zones())
    for piece in dumped(engine.base_backup()):
        head += piece[: max(0, _HEAD - len(head))]
        yield piece


@attrs.frozen
class MariadbArchive(ServerArchive[MariadbEngine, BinlogStore]):
    """The archive of one MariaDB server."""

    def back_up(self) -> BaseBackup:
        """Make a base backup, and delete what is too old."""
        engine = self._checked()
        self._make_room()
        for _ in range(_TRIES):
            with contextlib.suppress(_TornError):
                head = bytearray()
                base = self._store.add(_contents(engine, head), lambda _: self._finish(bytes(head)))  # noqa: B023  in this turn
                self._prune()
                return base.backup
        why = "each time tables were made, altered or dropped meanwhile, or some without transactions written"
        return fail(Conflict, f"{why}: such a dump is of more than one moment; try again later")

    def run(
        self,
        every: timedelta,
        on_progress: Callable[[ArchiveProgress], None],
        stopped: Callable[[], bool],
        *,
        over_gap: bool,
    ) -> None:
        """Archive the log until ``stopped``."""
        BinlogArchiver(self._engine, self._store).run(every, on_progress, stopped, over_gap=over_gap)

    def end(self) -> None:
        """Do nothing, if nobody archives it: the server keeps its log for as long as its own settings say."""
        with self._engine.connection() as connection:
            server = BinlogSession(connection)
            server.check()
            if not server.alone(self._store.check(server.system()).id):
                fail(Conflict, "a process archives it: stop that first")

    @contextlib.contextmanager
    def at(self, when: datetime) -> Iterator[tuple[MariadbEngine, str]]:
        """Run the server as it was at a time, and return how it is asked, and its version."""
        base: Dump = self._base_for(when)
        with recovered(self._store, base, when, self._place("restored"), self._engine.programs) as engine:
            yield engine, base.backup.version

    def _checked(self) -> MariadbEngine:
        """Return the engine, of a server whose log is archived."""
        with self._engine.connection() as connection:
            server = BinlogSession(connection)
            server.check()
            self._store.check(server.system())
        if self._store.archived() is None:
            fail(Conflict, "its log is not archived yet: keep `shiftable db archive` running, and try again")
        return self._engine

    def _finish(self, head: bytes) -> dict[str, Any]:
        """Say what is to be noted of a dump, if it is of one moment: what was logged meanwhile tells."""
        begins, archived = _BEGINS.search(head), self._store.archived()
        if begins is None or archived is None:
            fail(IntegrityError, "what mariadb-dump wrote does not say where the server's log was; nothing is kept")
        stem, file, offset = begins[1].decode(), int(begins[2]), int(begins[3])
        stream = Stream(self._engine.connection)
        with self._engine.connection() as connection:
            server = BinlogSession(connection)
            seen = server.now()
            known = {"version": server.version, "server": server.number(), "settings": server.settings()}
        try:
            made = stream.first_event(stem, file).when
            self._check_archived(archived, stream.first_event(stem, archived.file))
            with stream.events(stem, file, offset) as events:
                if any(event.begins_transaction and not event.transactional for _, event in events):
                    raise _TornError
        except GapError as exc:
            fail_for_gap(exc)
        place = {"epoch": archived.epoch, "file": file, "offset": offset, "made": made}
        return {**known, **place, "restorable_from": seen.after}

    def _check_archived(self, archived: LogEnd, first: Event) -> None:
        """Fail unless a file of the server's log is the one that is archived, which has its name."""
        stored = self._store.first_event(archived.epoch, archived.file)
        if stored is not None and stored.origin != first.origin:
            why = "the server's log is another one than is archived, by a failover or RESET MASTER"
            fail(Conflict, f"{why}: see that `shiftable db archive` goes on with it, and try again")
