"""Base backups and the log of a PostgreSQL server that others run: made, archived, and restored from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from shiftable.database.driver import ArchiveProgress, BaseBackup
from shiftable.errors import ConfigError, Conflict, Unsupported
from shiftable.postgresql import Binaries, all_binaries
from shiftable_baremetal._archive_server import ReplicationSession
from shiftable_baremetal._archive_store import ArchiveStore, Base, begins_with
from shiftable_baremetal._archiver import Archiver, slot_name, stream_name
from shiftable_baremetal._recovery import recovered
from shiftable_baremetal._servers_archive import ServerArchive
from shiftable_baremetal._servers_engine import Access, fail
from shiftable_baremetal._servers_postgresql import PostgresqlEngine
from shiftable_baremetal._servers_programs import dumped

__all__ = ["PostgresqlArchive"]


@attrs.frozen
class PostgresqlArchive(ServerArchive[PostgresqlEngine, ArchiveStore]):
    """The archive of one PostgreSQL server."""

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

        def finish(head: bytes) -> dict[str, Any]:
            with self._engine.connection() as connection:
                complete = ReplicationSession(connection).now()[0].astimezone(UTC)
            known = {"version": version, "segment_size": size, "superuser": superuser, "segment": begins_with(head)}
            return {**known, "restorable_from": complete}

        self._make_room()
        base = self._store.add(dumped(self._engine.base_backup(version)), finish)
        self._prune()
        return base.backup

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

    @contextlib.contextmanager
    def at(self, when: datetime) -> Iterator[tuple[PostgresqlEngine, str]]:
        """Run the server as it was at a time, and return how it is asked, and its version."""
        base: Base = self._base_for(when)
        programs = self._programs(base.backup.version)
        with recovered(self._store, base, when, self._place("restored"), programs) as cluster:
            access = Access(
                host=cluster.host, port=cluster.port, user=base.superuser, password=None, tls=False, ca=None
            )
            yield PostgresqlEngine(access, self._engine.programs), base.backup.version

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
