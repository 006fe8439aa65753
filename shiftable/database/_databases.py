"""The portable service object of databases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import ClassVar, TypeVar

from shiftable.accounts import password
from shiftable.database._database import Database
from shiftable.database._logins import LoginBook, for_driver
from shiftable.database._rules import impossible_updates, merged
from shiftable.database.driver import (
    ArchiveProgress,
    BaseBackup,
    DatabaseDriver,
    DatabaseFeatures,
    DatabaseSpec,
    SizeChoice,
    Snapshot,
)
from shiftable.errors import Conflict, InvalidArgument, NotFound, OperationError, Resource, Unsupported
from shiftable.paging import Page, paged
from shiftable.service import Change, Service
from shiftable.waiting import Timing

__all__ = ["Databases"]

T = TypeVar("T")

_LONGEST_PAUSE = 60.0
"""Seconds between two tries to go on with an archive."""


def _ignore(_: object) -> None:
    """Hear nothing."""


def _never() -> bool:
    return False


class Databases(Service[DatabaseSpec, DatabaseDriver, Database]):
    """The database servers of one account.

    ``create`` returns when it has begun; ``wait`` on the handle when there is a server to connect to.

    >>> from shiftable.memory.database import MemoryDatabaseDriver
    >>> databases = Databases(MemoryDatabaseDriver())
    >>> spec = DatabaseSpec(name="orders", engine="postgresql", version="16", cpus=2, memory_gib=8, storage_gib=50)
    >>> databases.create(spec).wait().state
    'available'
    >>> databases.diff(spec)
    ()
    """

    service: ClassVar[str] = "database"
    resource_type: ClassVar[str] = "database"

    def __init__(
        self,
        driver: DatabaseDriver,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(driver)
        self._timing = Timing(clock, sleep)
        self._book = LoginBook(driver, self._timing)

    def close(self) -> None:
        """Give back what the driver holds, and the connections that engines keep."""
        self._book.close()
        super().close()

    @property
    def features(self) -> DatabaseFeatures:
        """What the driver can do."""
        return self._driver.features

    def database(self, name: str) -> Database:
        """Return the handle of a database server, whether or not it exists. Calls nobody.

        Raises:
            InvalidArgument: the provider cannot hold a server of that name.
        """
        self._checked("database", name)
        return self._handle(name)

    def open(self, spec: DatabaseSpec) -> Database:
        """Return the handle of a declared database server. Calls nobody."""
        self._checked("database", spec.name)
        return Database(self._driver, spec.name, declared=spec, timing=self._timing, book=self._book)

    def size(self, spec: DatabaseSpec) -> SizeChoice | None:
        """Choose the provider's size for a declaration, and say why; ``None`` where any size can be had.

        Raises:
            InvalidArgument: none is large enough.
        """
        resource = self._checked("size", spec.name)
        try:
            with self._translated("size", resource):
                return self._driver.size(spec)
        except ValueError as exc:
            if isinstance(exc, InvalidArgument):
                raise
            raise self._invalid("size", resource, str(exc)) from None

    def create(self, spec: DatabaseSpec) -> Database:
        """Begin to make a database server.

        A password that is declared as a secret which does not exist is made, stored there, and known to nobody else.
        It is stored first, so that no server has a password that nobody knows.

        Raises:
            AlreadyExists: the name is taken, perhaps by somebody else.
            InvalidArgument: the provider cannot hold such a name.
            Unsupported: the declaration needs what the provider does not have.
        """
        resource, missing = self._checked("create", spec.name), self.missing_features(spec)
        self._require(not missing, "create", resource, " and no ".join(missing))
        if spec.password is not None:
            spec.password.reveal_or_make(password)
        with self._translated("create", resource):
            self._driver.create(for_driver(spec))
        return self.open(spec)

    def snapshots(self, *, limit: int | None = None) -> Iterator[Snapshot]:
        """Iterate over the snapshots of all servers, also of those that are gone."""
        self._require(self.features.snapshots, "snapshots", Resource(self.resource_type, "*"), "snapshots")

        def fetch(cursor: str | None, left: int | None) -> Page[Snapshot]:
            with self._translated("snapshots", None):
                return self._driver.snapshots(None, cursor=cursor, limit=left)

        return paged(fetch, limit=limit)

    def delete(self, name: str, *, final_snapshot: bool | str = True) -> None:
        """Begin to delete a database server, after a last snapshot.

        Args:
            final_snapshot: its name; true names it after the server and the time, false takes none.

        Raises:
            NotFound: there is none.
            Conflict: it is protected from deletion.
            Unsupported: the provider takes no such snapshot, and one is wanted.
        """
        resource = self._checked("delete", name)
        if final_snapshot == "":
            why = "the last snapshot's name is empty; pass final_snapshot=False (--no-final-snapshot) for none"
            raise self._invalid("delete", resource, why)
        if self.describe(name).deletion_protection:
            raise Conflict(
                "it is protected from deletion; declare deletion_protection = false and apply that, or say"
                " `shiftable db delete --unprotect`, or call protect(on=False)",
                provider=self.provider,
                operation="database.delete",
                resource=resource,
            )
        if final_snapshot and not self.features.final_snapshot:
            raise Unsupported(
                "this provider takes no last snapshot that outlives the server; move the data, then pass"
                " final_snapshot=False (--no-final-snapshot)",
                provider=self.provider,
                operation="database.delete",
                resource=resource,
            )
        snapshot = f"{name}-final-{datetime.now(UTC):%Y%m%d-%H%M%S}" if final_snapshot is True else final_snapshot
        with self._translated("delete", resource):
            self._driver.delete(name, final_snapshot=snapshot or None)

    def diff(self, spec: DatabaseSpec) -> tuple[Change[DatabaseSpec], ...]:
        """Say what would have to change for the server to be as declared; nothing, if it is.

        A larger size, a newer minor version, and databases, parameters and labels that are not declared are no change.
        """
        try:
            current = self.describe(spec.name)
        except NotFound:
            return (Change(service=self.service, before=None, after=spec),)
        with self._translated("diff", self._checked("diff", spec.name)):
            wanted = merged(current, self._driver.rounded(spec))
        if current == wanted:
            return ()
        impossible = "; ".join(impossible_updates(current, wanted))
        reason = f"cannot be done in place: {impossible}" if impossible else ""
        return (Change(service=self.service, before=current, after=wanted, reason=reason),)

    def apply(self, change: Change[DatabaseSpec]) -> None:
        """Begin one change. Creating what exists meanwhile as declared is no error.

        Raises:
            Conflict: the server is no longer what the change starts from, or in a state that forbids it.
            InvalidArgument: it cannot be done while the data stays where it is; nothing was sent.
        """
        if change.before is not None and change.after is not None:
            impossible = tuple(impossible_updates(change.before, change.after))
            if impossible:
                why = f"{'; '.join(impossible)}; make a new server and move the data"
                raise self._invalid("update", self._checked("update", change.name), why)
        super().apply(change)

    # whole servers that hold the databases of a provider

    def back_up(self) -> BaseBackup:
        """Make a base backup of the server that the databases are on, and delete those that are too old.

        Raises:
            Conflict: nobody archives the server's log, without which it is of one moment only.
        """
        return self._with_archive("back_up", self._driver.back_up)

    def backups(self, *, limit: int | None = None) -> Iterator[BaseBackup]:
        """Iterate over the base backups of the server that the databases are on, the oldest first."""
        self._require(self.features.archive, "backups", self._server, f"base backups{self._driver.archive_hint}")

        def fetch(cursor: str | None, left: int | None) -> Page[BaseBackup]:
            with self._translated("backups", None):
                return self._driver.backups(cursor=cursor, limit=left)

        return paged(fetch, limit=limit)

    def delete_backup(self, name: str) -> None:
        """Delete a base backup, and what of the log only it needs.

        Raises:
            NotFound: there is none of that name.
        """
        self._with_archive("delete_backup", lambda: self._driver.delete_backup(name))

    def archive(
        self,
        *,
        every: timedelta = timedelta(seconds=10),
        over_gap: bool = False,
        on_progress: Callable[[ArchiveProgress], None] = _ignore,
        on_trouble: Callable[[OperationError], None] = _ignore,
        stopped: Callable[[], bool] = _never,
    ) -> None:
        """Archive the log of the server that the databases are on, until ``stopped``; wait out what passes.

        It may be killed at any time: the next call goes on where this one has ended; so long the server keeps its log.

        Args:
            every: what is written is stored so often: what a failure of the server costs at most.
            over_gap: where the server has deleted what is missing, begin anew. Times in the gap cannot be restored.
            on_progress: hears of each time that can be restored from then on.
            on_trouble: hears of what is waited out.

        Raises:
            Conflict: another process archives it; or there is a gap.
        """
        pause = 1.0

        def told(progress: ArchiveProgress) -> None:
            nonlocal pause
            pause = 1.0
            on_progress(progress)

        def follow() -> None:
            self._driver.archive(every=every, over_gap=over_gap, on_progress=told, stopped=stopped)

        while not stopped():
            try:
                self._with_archive("archive", follow)
            except OperationError as exc:
                if not exc.retryable:
                    raise
                on_trouble(exc)
                self._timing.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return

    def end_archive(self) -> None:
        """Have the server no longer keep its log for the archive, for good; what is stored stays."""
        self._with_archive("end_archive", self._driver.end_archive)

    @property
    def _server(self) -> Resource:
        return Resource(self.resource_type, "*")

    def _with_archive(self, operation: str, call: Callable[[], T]) -> T:
        what = f"archive of the server's log{self._driver.archive_hint}"
        self._require(self.features.archive, operation, self._server, what)
        with self._translated(operation, None):
            return call()

    def settle(self, spec: DatabaseSpec) -> None:
        """Wait until nothing is being done to the server any more.

        Some providers make users and databases one after another, a step whenever somebody looks.

        Raises:
            Conflict: it failed.
            Timeout: it took longer.
        """
        database = self.open(spec)
        database.wait("stopped" if database.info().state in {"stopping", "stopped"} else "available")

    def _handle(self, name: str) -> Database:
        return Database(self._driver, name, timing=self._timing, book=self._book)
