"""Databases: some of an existing PostgreSQL or MariaDB server, with a user of their own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import attrs

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.config import Credential
from shiftable.database.driver import (
    ArchiveProgress,
    BaseBackup,
    DatabaseDriver,
    DatabaseFeatures,
    DatabaseInfo,
    DatabaseSpec,
    DatabaseState,
    Snapshot,
    name_problem,
)
from shiftable.errors import AlreadyExists, Conflict, Fault, InvalidArgument, NotFound, Unsupported
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable_baremetal import MariadbSettings, PostgresqlSettings
from shiftable_baremetal._archive_store import ArchiveStore
from shiftable_baremetal._binlog_store import BinlogStore
from shiftable_baremetal._servers_archive import ServerArchive
from shiftable_baremetal._servers_archive_mariadb import MariadbArchive
from shiftable_baremetal._servers_archive_postgresql import PostgresqlArchive
from shiftable_baremetal._servers_engine import Access, ServerEngine, Session, fail
from shiftable_baremetal._servers_errors import classify
from shiftable_baremetal._servers_mariadb import MariadbEngine
from shiftable_baremetal._servers_mark import Found, Mark
from shiftable_baremetal._servers_postgresql import PostgresqlEngine
from shiftable_baremetal._servers_programs import dumped, loaded
from shiftable_baremetal._servers_snapshots import Snapshots
from shiftable_baremetal._servers_tunnel import Tunnel
from shiftable_baremetal.blob import FilesDriver

__all__ = ["ServerDatabaseDriver", "open_server"]

logger = logging.getLogger(__name__)

_OWN_BUCKET = "snapshots"
_HALF_DONE = {"creating": "its creation", "restoring": "its restore", "deleting": "its deletion"}


@attrs.define(eq=False)
class ServerDatabaseDriver(DatabaseDriver):
    """Databases on a server that others run: each resource has some databases, and a user of its own who owns them.

    Names belong to the server. A database or user whose name another resource has already is called after both,
    ``copy--shop``, and clients are told so; a name that somebody else has is refused. Sizes and ``backup_days`` are
    kept and nothing is done about them: the server is its owner's to size, and backups are of all of it.

    Credentials: of the server's user in the provider's settings. Permissions: PostgreSQL: CREATEDB and CREATEROLE, for
    an archive REPLICATION (and a line for ``replication`` in pg_hba.conf), no superuser is needed; MariaDB: ALL
    PRIVILEGES ON *.* WITH GRANT OPTION, for an archive, too. The bucket of snapshots is read and written.

    Args:
        engine: the server.
        snapshots: where snapshots lie.
        archive: of the whole server, if there is one.
        page_size: items of one page.
    """

    _engine: ServerEngine
    _snapshots: Snapshots
    _archive: ServerArchive[Any, Any] | None = None
    _page_size: int = attrs.field(default=100, kw_only=True)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "baremetal"

    @property
    def features(self) -> DatabaseFeatures:
        """What databases on such a server can do."""
        return self._engine.features

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    # resources

    def create(self, spec: DatabaseSpec) -> None:
        """Make a user and databases. What a killed process has begun is finished."""
        self._check(spec)
        with self._changing(spec.name) as session:
            known = session.found(spec.name).get(spec.name)
            if known is not None and known.mark.state != "creating":
                fail(AlreadyExists, "there is one of that name on the server")
            mark = self._begun(session, spec, "creating", known)
            self._complete(session, mark)

    def rounded(self, spec: DatabaseSpec) -> DatabaseSpec:
        """Return the declaration with the database that is made if none is declared."""
        return attrs.evolve(spec, databases=spec.databases or (spec.name,))

    def describe(self, name: str) -> DatabaseSpec:
        """Return the resource as a declaration would say it, by the server's catalogs."""
        with self._engine.session() as session:
            return self._described(session, _found(session, name))

    def update(self, current: DatabaseSpec, spec: DatabaseSpec) -> None:
        """Make new databases, and change parameters and what is only noted; finish what was begun."""
        self._check(spec)
        with self._changing(spec.name) as session:
            known = _found(session, spec.name)
            if self._described(session, known) != current:
                fail(Conflict, "it was changed meanwhile; compare again")
            if known.mark.state in {"restoring", "deleting"}:
                _fail_half_done(known.mark)
            if spec.storage_gib < current.storage_gib:
                fail(InvalidArgument, "storage does not shrink")
            self._check_version(session, spec)
            session.check_parameters(spec.parameters)
            mark = self._named(session, attrs.evolve(known.mark, spec=attrs.evolve(spec, admin=known.mark.spec.admin)))
            session.configure(attrs.evolve(mark, databases=_some(mark.databases, known)), known.parameters)
            self._complete(session, mark)

    def delete(self, name: str, *, final_snapshot: str | None) -> None:
        """Drop databases and user. Before a last snapshot his sessions are ended, so that nothing is written after."""
        with self._changing(name) as session:
            known = _found(session, name)
            mark = known.mark
            if mark.spec.deletion_protection:
                fail(Conflict, "it is protected from deletion")
            if final_snapshot is not None and not self._is_saved(mark):
                self._take_last(session, known, final_snapshot)
            session.write(attrs.evolve(mark, state="deleting", dropping=True))
            session.shut(mark)
            for database in mark.databases.values():
                session.drop_database(mark, database)
            session.drop_role(mark)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the names of all resources on the server, in order."""
        with self._engine.session() as session:
            left = sorted(name for name in session.found() if cursor is None or name > cursor)
        shown = tuple(islice(left, self._size(limit)))
        return Page(shown, shown[-1] if len(left) > len(shown) else None)

    def info(self, name: str) -> DatabaseInfo:
        """Return the state of a resource, and where its server is."""
        with self._engine.session() as session:
            known, version = _found(session, name), session.version
        mark = known.mark
        there = {declared: name for declared, name in mark.databases.items() if declared != name}
        there.setdefault(self._engine.default, next(iter(mark.databases.values())))
        return DatabaseInfo(
            name=name,
            state=_state(known),
            raw_state=mark.state if known.busy or mark.state == "available" else f"{mark.state}, interrupted",
            engine=self._engine.name,
            version=version,
            server=self._engine.access.server(mark.role, there),
            created=mark.created,
            id=mark.role,
        )

    def restorable(self, name: str) -> tuple[datetime, datetime] | None:
        """Return the times that the archive of the whole server has."""
        with self._engine.session() as session:
            _found(session, name)
        return self._archive.restorable() if self._archive is not None else None

    def password(self, name: str, given: Credential | None, *, fresh: bool) -> Masked:  # noqa: ARG002  nothing is kept
        """Return the declared password: the server tells nobody one."""
        if given is not None:
            return Masked(given.reveal())
        with self._engine.session() as session:
            _found(session, name)
        return fail(Conflict, "nobody keeps its password: declare the resource, with password = { secret = … }")

    def prepare(self, name: str) -> None:  # noqa: ARG002  all resources have one way
        """Open the way to the server."""
        self._engine.access.open()

    # changing

    def set_password(self, name: str, password: Masked | None) -> None:
        """Change the user's password. The server is told what proves it, and not the password."""
        if password is None:
            raise Unsupported("no passwords of its own")
        with self._changing(name) as session:
            session.set_password(_available(session, name).mark.role, password)

    # snapshots

    def snapshot(self, name: str, snapshot: str) -> Snapshot:
        """Dump the databases into the bucket. Each is as it was at one moment; writers go on."""
        with self._changing(name) as session:
            known = _available(session, name)
            self._snapshots.check_new(name, snapshot)
            return self._take(session, known, snapshot)

    def snapshots(self, name: str | None, *, cursor: str | None, limit: int | None) -> Page[Snapshot]:
        """Return one page of snapshots, by resource and name."""
        after = None if cursor is None else tuple(cursor.split("/"))
        left = [key for key in self._snapshots.keys(name) if after is None or key > after]
        shown = left[: self._size(limit)]
        found = tuple(self._snapshots.get(*key).snapshot for key in shown)
        return Page(found, "/".join(shown[-1]) if len(left) > len(shown) else None)

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a snapshot."""
        self._snapshots.remove(name, snapshot)

    def restore(self, name: str, snapshot: str, spec: DatabaseSpec) -> None:
        """Make a new resource of a snapshot, whose digests are right. One that was interrupted begins anew."""
        self._check(spec)
        taken = self._snapshots.get(name, snapshot)
        held = taken.snapshot
        if held.engine != spec.engine:
            fail(InvalidArgument, f"the snapshot is of {held.engine}")
        if spec.storage_gib < (held.storage_gib or 0):
            fail(InvalidArgument, f"the snapshot needs {held.storage_gib} GiB")
        with self._restoring(spec, held.version) as (session, known):
            self._snapshots.verify(taken)
            contents = {part.database: partial(self._snapshots.pieces, part) for part in taken.parts}
            self._fill(session, spec, known, contents, taken.role)

    def restore_at(self, name: str, when: datetime, spec: DatabaseSpec) -> None:
        """Make a new resource of one as it was: the whole server runs here at that time, and is dumped."""
        self._check(spec)
        archive = self._archived()
        with self._restoring(spec, None) as (session, known), archive.at(when) as (then, version):
            self._check_newer(session, version)
            with then.session() as past:
                was = past.found(name).get(name)
            if was is None:
                fail(NotFound, f"there was none of that name at {when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
            databases = _some(was.mark.databases, was)
            contents = {each: partial(dumped, then.dump(there, version)) for each, there in databases.items()}
            self._fill(session, spec, known, contents, was.mark.role)

    # the whole server

    def back_up(self) -> BaseBackup:
        """Make a base backup of the whole server."""
        return self._archived().back_up()

    def backups(self, *, cursor: str | None, limit: int | None) -> Page[BaseBackup]:
        """Return one page of the base backups, the oldest first."""
        left = [each for each in self._archived().backups() if cursor is None or each.name > cursor]
        shown = tuple(left[: self._size(limit)])
        return Page(shown, shown[-1].name if len(left) > len(shown) else None)

    def delete_backup(self, name: str) -> None:
        """Delete a base backup."""
        self._archived().delete(name)

    @property
    def archive_hint(self) -> str:
        """Which setting begins one."""
        return f": archive_days of [providers.{self.named.label}.{self._engine.name}] begins an archive"

    def archive(
        self,
        *,
        every: timedelta,
        over_gap: bool,
        on_progress: Callable[[ArchiveProgress], None],
        stopped: Callable[[], bool],
    ) -> None:
        """Archive the log of the whole server."""
        self._archived().run(every, on_progress, stopped, over_gap=over_gap)

    def end_archive(self) -> None:
        """Drop the slot by which PostgreSQL keeps its log; MariaDB keeps it as long as its own settings say."""
        self._archived().end()

    # what they share

    def _check(self, spec: DatabaseSpec) -> None:
        """Refuse what the server could not hold. Sends nothing."""
        if spec.engine != self._engine.name:
            fail(InvalidArgument, f"the server is {self._engine.name}, not {spec.engine}")

    def _archived(self) -> ServerArchive[Any, Any]:
        if self._archive is None:
            raise Unsupported(f"no archive of the server's log{self.archive_hint}")
        return self._archive

    @contextlib.contextmanager
    def _restoring(self, spec: DatabaseSpec, version: str | None) -> Iterator[tuple[Session, Found | None]]:
        """Be the only one who makes a new resource; hand out what a killed restore has left of it."""
        with self._changing(spec.name) as session:
            known = session.found(spec.name).get(spec.name)
            if known is not None and known.mark.state != "restoring":
                fail(AlreadyExists, "there is one of that name on the server")
            if version is not None:
                self._check_newer(session, version)
            yield session, known

    def _check_newer(self, session: Session, version: str) -> None:
        if _numbers(session.version)[0] < _numbers(version)[0]:
            fail(InvalidArgument, f"what is restored is of version {version}, the server has {session.version}")

    def _fill(
        self,
        session: Session,
        spec: DatabaseSpec,
        known: Found | None,
        contents: Mapping[str, Callable[[], Iterator[bytes]]],
        role: str,
    ) -> None:
        """Make a new resource with databases that were another user's."""
        if known is not None:
            for database in known.mark.databases.values():
                session.drop_database(known.mark, database)
        names = dict.fromkeys((*contents, *spec.databases))
        mark = self._begun(session, attrs.evolve(spec, databases=tuple(names)), "restoring", known)
        for declared, pieces in contents.items():
            database = mark.databases[declared]
            session.make_database(mark, database)
            command = self._engine.load(database, mark.role, session.version)
            loaded(command, self._engine.for_user(pieces(), role, mark.role))
        self._complete(session, mark)

    def _check_version(self, session: Session, spec: DatabaseSpec) -> None:
        if not f"{session.version}.".startswith(f"{spec.version}."):
            why = f"the server has {self._engine.name} {session.version}, and {spec.version} is declared"
            fail(InvalidArgument, f"{why}: which version it runs is its owner's to change")

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[Session]:
        """Be the only one who changes a resource."""
        with self._engine.session() as session:
            session.lock(name)
            yield session

    def _begun(self, session: Session, spec: DatabaseSpec, state: str, known: Found | None) -> Mark:
        """Note a new resource on the server, and make its user; go on with one that is noted already."""
        session.check_rights()
        self._check_version(session, spec)
        session.check_parameters(spec.parameters)
        if spec.password is None:
            fail(InvalidArgument, "nobody keeps a password: declare password = { secret = … }")
        if spec.backup_days > (self._archive.days if self._archive is not None else 0):
            why = "they are the server's owner's to make, or archive_days of the provider"
            logger.warning("no backups are kept of %s for %s days: %s", spec.name, spec.backup_days, why)
        with session.locked_names():
            if known is not None:
                mark = attrs.evolve(known.mark, spec=attrs.evolve(spec, admin=known.mark.spec.admin))
            else:
                mark = Mark(
                    name=spec.name,
                    role=_free_name(self._engine, "user", spec.admin, spec.name, *self._names(session, "role")),
                    databases={},
                    spec=spec,
                    created=datetime.now(UTC),
                    state="restoring" if state == "restoring" else "creating",
                )
            mark = self._all_named(session, mark)
            session.begin(mark, Masked(spec.password.reveal()))
        return mark

    def _named(self, session: Session, mark: Mark) -> Mark:
        """Choose names for the databases that have none, and note them before they are made."""
        with session.locked_names():
            chosen = self._all_named(session, mark)
            session.write(chosen)
        return chosen

    def _all_named(self, session: Session, mark: Mark) -> Mark:
        """Return a note with a name for each declared database."""
        databases = dict(mark.databases)
        all_names, ours = self._names(session, "database")
        for database in self.rounded(mark.spec).databases:
            if database not in databases:
                chosen = _free_name(self._engine, "database", database, mark.name, all_names, ours)
                databases[database] = chosen
                all_names, ours = all_names | {chosen}, ours | {chosen}
        return attrs.evolve(mark, databases=databases)

    def _names(self, session: Session, kind: str) -> tuple[frozenset[str], frozenset[str]]:
        """Return all names of users or databases that are taken on the server, and those that resources have."""
        marks = [found.mark for found in session.found().values()]
        taken = session.taken()
        if kind == "role":
            ours = frozenset(mark.role for mark in marks)
            return taken.roles | ours, ours
        ours = frozenset(name for mark in marks for name in mark.databases.values())
        return taken.databases | ours, ours

    def _complete(self, session: Session, mark: Mark) -> None:
        for database in mark.databases.values():
            session.make_database(mark, database)
        created = mark.created if mark.state == "available" else datetime.now(UTC)
        session.write(attrs.evolve(mark, state="available", created=created))

    def _described(self, session: Session, known: Found) -> DatabaseSpec:
        return attrs.evolve(known.spec, name=known.mark.name, version=session.version)

    def _take(self, session: Session, known: Found, name: str) -> Snapshot:
        mark = known.mark
        gone = sorted(set(mark.databases.values()) - set(known.present))
        if gone:
            fail(Conflict, f"its database {', '.join(gone)} is not there any more: apply its declaration again")
        taken = Snapshot(
            name=name,
            database=mark.name,
            state="available",
            engine=self._engine.name,
            version=session.version,
            created=datetime.now(UTC),
            storage_gib=mark.spec.storage_gib,
        )
        commands = {
            declared: partial(dumped, self._engine.dump(database, session.version))
            for declared, database in mark.databases.items()
        }
        self._snapshots.add(taken, mark.role, commands)
        return taken

    def _is_saved(self, mark: Mark) -> bool:
        """Tell whether there is nothing to save: since a snapshot that a killed delete has taken nobody was let in."""
        if mark.state in {"creating", "restoring"} or mark.dropping:
            return True
        return mark.taking is not None and (mark.name, mark.taking) in self._snapshots.keys(mark.name)

    def _take_last(self, session: Session, known: Found, name: str) -> None:
        """Take a snapshot after which nothing is written; if it fails, all is as before."""
        mark = known.mark
        self._snapshots.check_new(mark.name, name)
        session.write(attrs.evolve(mark, state="deleting", taking=name))
        try:
            session.shut(mark)
            self._take(session, known, name)
        except (Exception, KeyboardInterrupt):
            session.unshut(mark)
            session.write(attrs.evolve(mark, state="available", taking=None))
            raise

    def _size(self, limit: int | None) -> int:
        return self._page_size if limit is None else min(limit, self._page_size)


def open_server(settings: PostgresqlSettings | MariadbSettings, root: Path) -> ServerDatabaseDriver:
    """Make the driver for a server.

    Args:
        root: where snapshots lie if the settings name no bucket.
    """
    given = settings.snapshots
    place = (partial(_own_bucket, root), "") if given is None else (given.open, given.prefix)
    days, beside = settings.archive_days, root.with_name(f"{root.name}-archive")
    if isinstance(settings, MariadbSettings):
        engine = MariadbEngine(_access(settings, "mysqld.sock"), settings.programs, archived=bool(days))
        log = MariadbArchive(engine, BinlogStore(*place), beside, days) if days else None
        return ServerDatabaseDriver(engine, Snapshots(*place), log)
    server = PostgresqlEngine(_access(settings, f".s.PGSQL.{settings.port}"), settings.programs, archived=bool(days))
    archive = PostgresqlArchive(server, ArchiveStore(*place), beside, days) if days else None
    return ServerDatabaseDriver(server, Snapshots(*place), archive)


def _access(settings: PostgresqlSettings | MariadbSettings, socket: str) -> Access:
    """Return how the server is reached; over ssh, through a socket here of that name."""
    is_folder = isinstance(settings, PostgresqlSettings)  # libpq is told the folder of a socket
    tunnel = None
    if settings.ssh is not None:
        target = f"{settings.host}:{settings.port}"
        if settings.host.startswith("/"):
            target = f"{settings.host}/{socket}" if is_folder else settings.host
        tunnel = Tunnel(settings.ssh, target, socket, is_folder)
    return Access(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password,
        tls=settings.tls,
        ca=settings.ca_bundle,
        tunnel=tunnel,
    )


def _own_bucket(root: Path) -> Bucket:
    """Return the bucket of files below the root, which only this user reads."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = BlobStore(FilesDriver(root))
    with contextlib.suppress(AlreadyExists):
        if not store.exists(_OWN_BUCKET):
            store.create(BucketSpec(name=_OWN_BUCKET))
    return store.bucket(_OWN_BUCKET)


def _found(session: Session, name: str) -> Found:
    known = session.found(name).get(name)
    if known is None:
        fail(NotFound, "there is none of that name on the server")
    return known


def _available(session: Session, name: str) -> Found:
    known = _found(session, name)
    if known.mark.state != "available":
        _fail_half_done(known.mark)
    return known


def _fail_half_done(mark: Mark) -> NoReturn:
    what = "apply its declaration again" if mark.state == "creating" else "delete it"
    again = ", or restore it again" if mark.state == "restoring" else ""
    fail(Conflict, f"{_HALF_DONE[mark.state]} was interrupted: {what}{again}")


def _state(known: Found) -> DatabaseState:
    if known.mark.state == "available":
        return "available"
    if not known.busy:
        return "failed"
    return "deleting" if known.mark.state == "deleting" else "creating"


def _some(databases: Mapping[str, str], known: Found) -> dict[str, str]:
    return {declared: name for declared, name in databases.items() if name in known.present}


def _free_name(
    engine: ServerEngine, kind: str, wanted: str, resource: str, all_names: frozenset[str], ours: frozenset[str]
) -> str:
    """Choose what the server shall call a user or database: as declared, unless another resource has that name."""
    chosen = wanted if wanted not in ours else f"{resource}--{wanted}"
    if (why := name_problem(engine.name, chosen)) is not None:
        fail(InvalidArgument, why)
    if chosen in all_names:
        what = "databases" if kind == "database" else "admin"
        fail(AlreadyExists, f"the server has a {kind} {chosen!r} that was not made for this: declare other {what}")
    return chosen


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
