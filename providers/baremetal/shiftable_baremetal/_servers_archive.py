"""Base backups and the log of a PostgreSQL server that others run: made, archived, and restored from."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from shiftable.database.driver import ArchiveProgress, BaseBackup
from shiftable.errors import ConfigError, Conflict, InvalidArgument, Unsupported
from shiftable.postgresql import Binaries, all_binaries
from shiftable_baremetal._archive_server import ReplicationSession
from shiftable_baremetal._archive_store import ArchiveStore, Base
from shiftable_baremetal._archiver import Archiver, slot_name, stream_name
from shiftable_baremetal._recovery import recovered
from shiftable_baremetal._servers_engine import Access, fail
from shiftable_baremetal._servers_postgresql import PostgresqlEngine
from shiftable_baremetal._servers_programs import dumped

__all__ = ["ServerArchive"]

_PATIENCE = 30.0  # seconds for the archive to come to a time that has just passed
_STEP = 0.5
_TOLD = "%Y-%m-%d %H:%M:%S"


@attrs.frozen
class ServerArchive:
    """The archive of one server, and what is done with it.

    Args:
        folder: on this machine, for the WAL of an archiver and for servers that are being restored.
        days: for how long any time can be restored.
    """

    _engine: PostgresqlEngine
    _store: ArchiveStore
    _folder: Path
    days: int

    def back_up(self) -> BaseBackup:
        """Make a base backup, and delete what is too old."""
        with self._engine.connection() as connection:
            server = ReplicationSession(connection)
            server.check()
            self._store.check(server.system())
            if places := server.tablespaces():
                why = f"the server has tablespaces outside its data directory ({', '.join(places)})"
                raise Unsupported(f"{why}, which a base backup in one stream cannot hold; snapshots can")
            version, size, superuser = server.version, server.segment_size(), server.superuser()

        def finish() -> dict[str, Any]:
            with self._engine.connection() as connection:
                complete = ReplicationSession(connection).now()[0].astimezone(UTC)
            known = {"version": version, "segment_size": size, "superuser": superuser}
            return {**known, "restorable_from": complete}

        base = self._store.add(dumped(self._engine.base_backup(version)), finish)
        self._store.prune(datetime.now(UTC) - timedelta(days=self.days))
        return base.backup

    def backups(self) -> list[BaseBackup]:
        """Return all base backups, the oldest first."""
        return [base.backup for base in self._store.bases()]

    def delete(self, name: str) -> None:
        """Delete a base backup."""
        self._store.remove(name)

    def run(
        self,
        every: timedelta,
        on_progress: Callable[[ArchiveProgress], None],
        stopped: Callable[[], bool],
        *,
        over_gap: bool,
    ) -> None:
        """Archive the log until ``stopped``."""
        archiver = Archiver(self._engine, self._store, self._place("archive"))
        archiver.run(every, on_progress, stopped, over_gap=over_gap)

    def end(self) -> None:
        """Have the server keep its log no longer."""
        with self._engine.connection() as connection:
            server = ReplicationSession(connection)
            server.check()
            owner = self._store.check(server.system())
            if not server.alone(owner.id):
                fail(Conflict, "a process archives it: stop that first")
            for name in (stream_name(slot_name(owner.id)), slot_name(owner.id)):
                server.drop_slot(name)

    def restorable(self) -> tuple[datetime, datetime] | None:
        """Return the earliest and the latest time that can be restored."""
        names, archived = self._store.names_of_bases(), self._store.archived()
        if not names or archived is None:
            return None
        first = self._store.base(names[0]).backup.restorable_from
        return (first, max(first, archived.until.astimezone(UTC)))

    @contextlib.contextmanager
    def at(self, when: datetime) -> Iterator[tuple[PostgresqlEngine, str]]:
        """Run the server as it was at a time, and return how it is asked, and its version."""
        base = self._base_for(when)
        programs = self._programs(base.backup.version)
        with recovered(self._store, base, when, self._place("restored"), programs) as cluster:
            access = Access(
                host=cluster.host, port=cluster.port, user=base.superuser, password=None, tls=False, ca=None
            )
            yield PostgresqlEngine(access, self._engine.programs), base.backup.version

    def _place(self, name: str) -> Path:
        """Make a folder that only this user reads."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder / name

    def _base_for(self, when: datetime) -> Base:
        """Return the last base backup that is older than a time, which the archive has reached."""
        restorable = self.restorable()
        if restorable is None:
            what = "base backup: `shiftable db backup` makes one" if self._store.owner() else "archive of its log"
            fail(InvalidArgument, f"no time can be restored: the server has no {what}")
        first, _ = restorable
        if when < first:
            fail(InvalidArgument, f"the earliest time that can be restored is {first:{_TOLD}} UTC")
        if when > datetime.now(UTC):
            fail(InvalidArgument, "that time has not come yet")
        self._wait_until(when)
        return max(
            (base for base in self._store.bases() if base.backup.restorable_from <= when),
            key=lambda base: base.backup.restorable_from,
        )

    def _wait_until(self, when: datetime) -> None:
        """Wait for an archiver that is at work to come to a time."""
        end = time.monotonic() + _PATIENCE
        while (archived := self._store.archived()) is None or archived.until < when:
            if time.monotonic() > end:
                until = f"{archived.until.astimezone(UTC):{_TOLD}} UTC" if archived else "no time"
                why = f"its log is archived until {until}, and that does not change"
                fail(InvalidArgument, f"{why}: does `shiftable db archive` run? That time can be restored meanwhile")
            time.sleep(_STEP)

    def _programs(self, version: str) -> Binaries:
        major = int(version.partition(".")[0])
        found = all_binaries(self._engine.programs)
        for each in found:
            if each.major == major:
                return each
        here = ", ".join(each.version for each in found) or "none"
        how = f"apt-get install postgresql-{major}, or pip install 'shiftable[postgresql-server]'"
        raise ConfigError(
            f"to restore a time PostgreSQL {major} runs on this machine for a while ({how}); here: {here}"
        )
