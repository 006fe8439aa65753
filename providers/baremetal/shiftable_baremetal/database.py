"""Databases: a private PostgreSQL for each, on this machine."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import NoReturn

import attrs

from shiftable.config import Credential
from shiftable.database.driver import (
    DatabaseDriver,
    DatabaseFeatures,
    DatabaseInfo,
    DatabaseSpec,
    DatabaseState,
    Server,
    Snapshot,
)
from shiftable.errors import (
    Conflict,
    Fault,
    InvalidArgument,
    OperationError,
    QuotaExceeded,
    Unavailable,
)
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable.postgresql import Binaries, Cluster, ClusterError, all_binaries
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._private_backups import PARAMETERS
from shiftable_baremetal._private_errors import classify
from shiftable_baremetal._private_files import Area, Files
from shiftable_baremetal._private_sql import arrange, configure, make_databases

__all__ = ["FEATURES", "PrivateDatabaseDriver"]

logger = logging.getLogger(__name__)

FEATURES = DatabaseFeatures(
    title="private PostgreSQL",
    engines=frozenset({"postgresql"}),
    connect=True,
    stop=True,
    snapshots=True,
    final_snapshot=True,
    point_in_time=True,
    high_availability=False,
    storage_autogrow=True,
    deletion_protection=True,
    public=False,
    allow_from=False,
    parameters=True,
    labels=True,
    managed_password=True,
    set_password=True,
    optional_tls=True,
    restart=True,
    max_name=Limit(63, "chosen, as Amazon RDS"),
)

# What would change where the server listens, whose it is, or what its files are for: that is this driver's to say.
_OURS = {
    *("archive_cleanup_command", "archive_command", "archive_library", "archive_mode", "restore_command"),
    *("config_file", "data_directory", "hba_file", "ident_file", "external_pid_file"),
    *("listen_addresses", "port", "unix_socket_directories", "unix_socket_group", "unix_socket_permissions"),
}
_FULL = ("No space left on device", "File too large")
_REFUSED = (
    "invalid value for parameter",
    "unrecognized configuration parameter",
    "contains errors",
    "cannot be enabled when",
)


@attrs.define(eq=False)
class PrivateDatabaseDriver(DatabaseDriver):
    """One PostgreSQL for each server, which runs while a process uses it and which nobody but its owner reaches.

    It starts before the first connection, and ends with the last process that opened one. Sizes are kept and not
    enforced. The administrator is no superuser, as at other providers: he makes roles and databases and replicates; the
    superuser ``postgres`` needs no password on the socket.

    Credentials: none; the administrator's password lies in a file that only its owner reads. Permissions: to write
    below ``root``. As root the servers run as another user, who exists already: ``postgres`` or nobody.

    Args:
        root: the folder of all servers.
        programs: the folder of PostgreSQL's programs, else the first of this machine with the declared version.
        fsync: what is committed survives a power failure.
        linger: servers run until they are stopped, also if no process uses them.
        page_size: items of one page.
    """

    _root: Path
    _programs: Path | None = None
    _fsync: bool = attrs.field(default=True, kw_only=True)
    _linger: bool = attrs.field(default=False, kw_only=True)
    _page_size: int = attrs.field(default=100, kw_only=True)
    _found: tuple[Binaries, ...] | None = attrs.field(default=None, init=False, repr=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "baremetal"

    @property
    def features(self) -> DatabaseFeatures:
        """What private servers can do."""
        return FEATURES

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    def missing_features(self, spec: DatabaseSpec) -> tuple[str, ...]:
        """Say what a declaration needs and this machine does not have."""
        missing = super().missing_features(spec)
        if spec.engine == "postgresql" and self._fitting(spec.version) is None:
            here = ", ".join(found.version for found in self._binaries) or "none"
            how = f"apt-get install postgresql-{_major(spec.version)}, or pip install 'shiftable[postgresql-server]'"
            return (*missing, f"PostgreSQL {spec.version} on this machine (there is {here}; {how})")
        return missing

    # servers

    def create(self, spec: DatabaseSpec) -> None:
        """Create a server: all of it, or nothing."""
        _check(spec)
        with self._changing(spec.name), self._new(spec) as cluster:
            cluster.create()

    def describe(self, name: str) -> DatabaseSpec:
        """Return the server as a declaration would say it."""
        return self._area.files(name).spec()

    def update(self, current: DatabaseSpec, spec: DatabaseSpec) -> None:
        """Change a server. New databases are made, and parameters count at once; some of them restart it."""
        _check(spec)
        with self._changing(spec.name):
            files = self._area.files(spec.name)
            known = files.spec()
            if known != current:
                _fail(Conflict, "it was changed meanwhile; compare again")
            if spec.storage_gib < current.storage_gib or _major(spec.version) != _major(current.version):
                _fail(InvalidArgument, "storage does not shrink, and another major version takes a move of the data")
            databases = tuple(name for name in spec.databases if name not in known.databases)
            if databases or _parameters(spec) != _parameters(known):
                with self._running(files) as cluster:
                    configure(cluster, _parameters(spec))
                    make_databases(cluster, databases, known.admin)
                    if bool(spec.backup_days) != bool(known.backup_days):
                        files.backups.clear()
                    if spec.backup_days and not known.backup_days:
                        files.backups.add(cluster)
            files.write_spec(attrs.evolve(spec, admin=known.admin))

    def delete(self, name: str, *, final_snapshot: str | None) -> None:
        """Delete a server."""
        with self._changing(name):
            files = self._area.files(name)
            if files.spec().deletion_protection:
                _fail(Conflict, "it is protected from deletion")
            if final_snapshot is not None:
                if files.last_snapshot() == final_snapshot:  # a delete that was killed may have taken it: long ago
                    self._area.drop_snapshot(name, final_snapshot)
                elif (name, final_snapshot) not in self._area.snapshots(name):
                    files.write_last_snapshot(final_snapshot)
                self._take(files, final_snapshot)
            self._cluster(files).stop()
            self._area.remove(name)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the names of all servers, in order."""
        left = [name for name in self._area.names() if cursor is None or name > cursor]
        shown = tuple(islice(left, self._size(limit)))
        return Page(shown, shown[-1] if len(left) > len(shown) else None)

    def info(self, name: str) -> DatabaseInfo:
        """Return the state of a server and its socket. One that is available runs while somebody uses it."""
        files = self._area.files(name)
        spec, stopped = files.spec(), files.stopped
        binaries, cluster = self._fitting(spec.version), self._cluster(files, spec)
        running = "running" if cluster.running else "idle"
        backups = files.backups.times() if spec.backup_days else []
        return DatabaseInfo(
            name=name,
            state="stopped" if stopped else "available" if binaries else "failed",
            raw_state="stopped" if stopped else running if binaries else f"without PostgreSQL {_major(spec.version)}",
            engine=spec.engine,
            version=binaries.version if binaries else spec.version,
            server=Server(host=cluster.host, port=cluster.port, admin=spec.admin, tls=False),
            created=files.created(),
            restorable_from=backups[0] if backups else None,
            restorable_until=datetime.now(UTC) if backups else None,
        )

    def password(self, name: str, given: Credential | None, *, fresh: bool) -> Masked:  # noqa: ARG002  nothing is kept
        """Return the declared password, or the one that lies beside the server."""
        files = self._area.files(name)
        return Masked(given.reveal()) if given is not None else files.password()

    def pending_password(self, name: str) -> Masked | None:
        """Return the password whose change a killed process has left half done."""
        return self._area.files(name).pending_password()

    def prepare(self, name: str) -> DatabaseState:
        """Start an available server that does not run, and use it until this process ends."""
        files = self._area.files(name)
        if files.stopped:
            return "stopped"
        due = files.backups.due(datetime.now(UTC))
        if due or not files.in_use:
            with self._changing(name):
                self._start(self._area.files(name))
                if due:
                    self._back_up(self._area.files(name))
        return "available"

    @property
    def archive_hint(self) -> str:
        """What there is instead."""
        return ": backup_days of a database keeps what restores it to a time"

    # changing state

    def set_password(self, name: str, password: Masked | None) -> None:
        """Change the administrator's password, in the server and in its file."""
        with self._changing(name):
            files = self._area.files(name)
            files.write_pending_password(password or _made_password())
            with self._running(files) as cluster:
                _finish_password(files, cluster)

    def restart(self, name: str) -> None:
        """Restart an available server."""
        with self._changing(name):
            files = self._area.files(name)
            if files.stopped:
                _fail(Conflict, "it is stopped; it must be available")
            self._cluster(files).stop()
            self._start(files)

    def start(self, name: str) -> None:
        """Have a stopped server start on demand again."""
        with self._changing(name):
            files = self._area.files(name)
            if not files.stopped:
                _fail(Conflict, "it is available; it must be stopped")
            self._start(files)
            files.set_stopped(on=False)

    def stop(self, name: str) -> None:
        """Stop a server, also for other processes, until it is started."""
        with self._changing(name):
            files = self._area.files(name)
            if files.stopped:
                _fail(Conflict, "it is stopped; it must be available")
            files.set_stopped(on=True)
            self._cluster(files).stop()

    # snapshots

    def snapshot(self, name: str, snapshot: str) -> Snapshot:
        """Take a snapshot: a base backup, or a copy if the server does not run."""
        with self._changing(name):
            files = self._area.files(name)
            if files.last_snapshot() == snapshot:
                files.write_last_snapshot("")  # this one is the caller's, and no delete replaces it
            return self._take(files, snapshot)

    def snapshots(self, name: str | None, *, cursor: str | None, limit: int | None) -> Page[Snapshot]:
        """Return one page of snapshots, by server and name."""
        after = None if cursor is None else tuple(cursor.split("/"))
        left = [key for key in self._area.snapshots(name) if after is None or key > after]
        shown = left[: self._size(limit)]
        found = tuple(self._area.snapshot(*key)[0] for key in shown)
        return Page(found, "/".join(shown[-1]) if len(left) > len(shown) else None)

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a snapshot."""
        with self._changing(name):
            self._area.remove_snapshot(name, snapshot)

    def restore(self, name: str, snapshot: str, spec: DatabaseSpec) -> None:
        """Make a new server of a snapshot, with the administrator and the password of the new declaration."""
        _check(spec)
        taken, data = self._area.snapshot(name, snapshot)
        if (taken.engine, _major(taken.version)) != (spec.engine, _major(spec.version)):
            _fail(InvalidArgument, f"the snapshot is of {taken.engine} {_major(taken.version)}")
        if spec.storage_gib < (taken.storage_gib or 0):
            _fail(InvalidArgument, f"the snapshot needs {taken.storage_gib} GiB")
        with self._changing(spec.name), self._new(spec) as cluster:
            cluster.fill(data)
            _separate(cluster)

    def restore_at(self, name: str, when: datetime, spec: DatabaseSpec) -> None:
        """Make a new server as another one was: its last base backup before, rolled forward."""
        _check(spec)
        with self._changing(name):
            files = self._area.files(name)
            known, times = files.spec(), files.backups.times()
            if (known.engine, _major(known.version)) != (spec.engine, _major(spec.version)):
                _fail(InvalidArgument, f"the server is of {known.engine} {_major(known.version)}")
            if not known.backup_days or not times:
                _fail(InvalidArgument, "there are no backups; declare backup_days, and there will be")
            if not times[0] <= when <= datetime.now(UTC):
                _fail(InvalidArgument, f"there are backups from {times[0]:%Y-%m-%d %H:%M:%S} UTC until now")
            with self._running(files) as cluster:
                files.backups.archive_all(cluster)
            with self._changing(spec.name), self._new(spec) as new:
                files.backups.roll_forward(new, when)
                _separate(new)

    # what they share

    @property
    def _area(self) -> Area:
        return Area(self._root)

    @property
    def _binaries(self) -> tuple[Binaries, ...]:
        if self._found is None:
            self._found = all_binaries(self._programs)
        return self._found

    def _fitting(self, version: str) -> Binaries | None:
        """Return the PostgreSQL with that major version that is not older than the version says."""
        wanted = _numbers(version)
        fitting = (found for found in self._binaries if found.major == wanted[0])
        return next((found for found in fitting if _numbers(found.version) >= wanted), None)

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """Be the only one who changes a server, and tell in our words what its programs say."""
        try:
            with self._area.changing(name):
                yield
        except ClusterError as exc:
            text = str(exc)
            error = (
                QuotaExceeded
                if any(words in text for words in _FULL)
                else InvalidArgument
                if _is_refusal(text)
                else Unavailable
            )
            raise FilesError(Fault(error, text)) from exc

    def _cluster(self, files: Files, spec: DatabaseSpec | None = None) -> Cluster:
        known = spec or files.spec()
        binaries = self._fitting(known.version) or Binaries(Path(), known.version)
        return Cluster(
            files.cluster,
            binaries,
            parameters=_parameters(known),
            durable=self._fsync,
            linger=self._linger,
            until_exit=True,
        )

    @contextlib.contextmanager
    def _new(self, spec: DatabaseSpec) -> Iterator[Cluster]:
        """Make a new server of the data that the block provides, and put it into place when it is complete."""
        with self._area.new(spec.name) as files:
            made = Masked(spec.password.reveal()) if spec.password else _made_password()
            cluster = attrs.evolve(self._cluster(files, spec), until_exit=False, linger=False)
            yield cluster
            files.backups.prepare(cluster)
            with cluster:
                arrange(cluster, spec.admin, made)
                make_databases(cluster, spec.databases, spec.admin)
            if spec.backup_days:
                files.backups.add(cluster)
            files.write_password(made)
            files.write_spec(spec)
            files.write_created(datetime.now(UTC))

    @contextlib.contextmanager
    def _running(self, files: Files) -> Iterator[Cluster]:
        """Have a server run for the time of the block, also if it is stopped else."""
        if files.stopped:
            with attrs.evolve(self._cluster(files), until_exit=False, linger=False) as cluster:
                yield cluster
        else:
            yield self._start(files)

    def _start(self, files: Files) -> Cluster:
        """Have a server run, and finish the change of a password that a killed process began."""
        version = files.spec().version
        if self._fitting(version) is None:
            _fail(Unavailable, f"PostgreSQL {_major(version)} is no longer on this machine: install it again")
        cluster = self._cluster(files)
        cluster.start()
        _finish_password(files, cluster)
        return cluster

    def _back_up(self, files: Files) -> None:
        """Make a base backup and delete what is too old; a connection does not fail if that does."""
        spec, cluster = files.spec(), self._cluster(files)
        if not spec.backup_days:
            return
        try:
            files.backups.add(cluster)
            files.backups.forget_before(cluster, datetime.now(UTC) - timedelta(days=spec.backup_days))
        except (OSError, ClusterError):
            logger.warning("the daily backup of the private server %s failed", spec.name, exc_info=True)

    def _take(self, files: Files, name: str) -> Snapshot:
        spec, cluster = files.spec(), self._cluster(files)
        taken = Snapshot(
            name=name,
            database=spec.name,
            state="available",
            engine=spec.engine,
            version=cluster.binaries.version,
            created=datetime.now(UTC),
            storage_gib=spec.storage_gib,
        )
        with self._area.new_snapshot(taken) as data:
            cluster.back_up(data)
        return taken

    def _size(self, limit: int | None) -> int:
        return self._page_size if limit is None else min(limit, self._page_size)


def _check(spec: DatabaseSpec) -> None:
    ours = sorted(_OURS & {name.lower() for name in spec.parameters})
    if ours:
        _fail(InvalidArgument, f"a private server's {', '.join(ours)} cannot be declared")


def _parameters(spec: DatabaseSpec) -> dict[str, str]:
    return {**spec.parameters, **(PARAMETERS if spec.backup_days else {})}


def _separate(cluster: Cluster) -> None:
    """Make a copy a cluster of its own: it ends the recovery that it begins with, and gets an identity."""
    with attrs.evolve(cluster, parameters={}):
        pass
    cluster.become_another()


def _made_password() -> Masked:
    return Masked(secrets.token_urlsafe(24))


def _finish_password(files: Files, cluster: Cluster) -> None:
    """Change the password as was written down before: it is known whenever this is interrupted."""
    pending = files.pending_password()
    if pending is not None:
        arrange(cluster, files.spec().admin, pending)
        files.keep_pending_password()


def _is_refusal(text: str) -> bool:
    return any(words in text for words in _REFUSED)


def _major(version: str) -> int:
    return _numbers(version)[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _fail(error: type[OperationError], message: str) -> NoReturn:
    raise FilesError(Fault(error, message))
