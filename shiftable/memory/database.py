"""Databases that do not exist: states, sizes and snapshots as a provider has them, and no server."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NoReturn

import attrs

from shiftable.config import Credential
from shiftable.database.driver import (
    ENGINES,
    DatabaseDriver,
    DatabaseFeatures,
    DatabaseInfo,
    DatabaseSpec,
    DatabaseState,
    LoginToken,
    Server,
    Snapshot,
)
from shiftable.errors import AlreadyExists, Conflict, Fault, InvalidArgument, NotFound, OperationError, QuotaExceeded
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable.memory._faults import MemoryFault, classify
from shiftable.paging import Page

__all__ = ["FEATURES", "MemoryDatabaseDriver"]

FEATURES = DatabaseFeatures(
    title="this process",
    engines=frozenset(ENGINES),
    connect=False,
    stop=True,
    snapshots=True,
    final_snapshot=True,
    point_in_time=True,
    high_availability=True,
    storage_autogrow=True,
    deletion_protection=True,
    public=True,
    allow_from=True,
    parameters=True,
    labels=True,
    managed_password=True,
    set_password=True,
    token_login=True,
    optional_tls=True,
    restart=True,
    max_name=Limit(63, "chosen, as Amazon RDS"),
    max_storage=Limit(65_536, "chosen, as Amazon RDS for PostgreSQL"),
    max_backup_days=Limit(35, "chosen, as Amazon RDS"),
)

_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
_NO_ADDRESS = {"creating", "failed"}


@attrs.define
class _Entry:
    """One server. What it is doing ends at ``until``, and then it is ``then``."""

    id: str
    spec: DatabaseSpec
    state: DatabaseState
    created: datetime
    password: Masked
    until: datetime
    then: DatabaseState | None = None


@attrs.define
class _Taken:
    """One snapshot, complete at ``until``, of what the server was."""

    snapshot: Snapshot
    until: datetime


@attrs.define
class MemoryDatabaseDriver(DatabaseDriver):
    """Databases in memory: everything but a server. No credentials, no permissions, nothing survives the process.

    Args:
        features: what it shall be able to do; with less, it stands in for a lesser provider.
        clock: tells the time.
        delay: how long everything takes by that clock that takes minutes elsewhere.
        quota: servers of the account.
        failing: names of servers whose creation ends as failed.
        page_size: items of one page.
    """

    _features: DatabaseFeatures = FEATURES
    _clock: Callable[[], datetime] = attrs.field(default=lambda: datetime.now(UTC), repr=False, kw_only=True)
    _delay: timedelta = attrs.field(default=timedelta(0), kw_only=True)
    _quota: int = attrs.field(default=1000, kw_only=True)
    _failing: Collection[str] = attrs.field(default=(), kw_only=True)
    _page_size: int = attrs.field(default=100, kw_only=True)
    _entries: dict[str, _Entry] = attrs.field(factory=dict, init=False, repr=False)
    _snapshots: dict[tuple[str, str], _Taken] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False, eq=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "memory"

    @property
    def features(self) -> DatabaseFeatures:
        """What this driver can do: everything but to connect, unless it was made otherwise."""
        return self._features

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    # servers

    def create(self, spec: DatabaseSpec) -> None:
        """Begin to create a server."""
        with self._lock:
            self._add(spec)

    def describe(self, name: str) -> DatabaseSpec:
        """Return the server as a declaration would say it."""
        with self._lock:
            return self._found(name).spec

    def update(self, current: DatabaseSpec, spec: DatabaseSpec) -> None:
        """Begin to change a server."""
        with self._lock:
            entry = self._in_state(spec.name, "available", "stopped")
            if entry.spec != current:
                _fail(Conflict, "it was changed meanwhile; compare again")
            if spec.storage_gib < current.storage_gib or spec.engine != current.engine:
                _fail(InvalidArgument, "storage does not shrink, and engines do not change")
            entry.spec = spec
            self._begin(entry, "updating", entry.state)

    def delete(self, name: str, *, final_snapshot: str | None) -> None:
        """Begin to delete a server."""
        with self._lock:
            entry = self._in_state(name, "available", "stopped", "failed", "creating")
            if entry.spec.deletion_protection:
                _fail(Conflict, "it is protected from deletion")
            if final_snapshot is not None:
                self._take(entry, final_snapshot)
            self._begin(entry, "deleting", "deleted")

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the names of all servers, in order."""
        with self._lock:
            here = sorted(name for name in tuple(self._entries) if self._living(name))
            left = [name for name in here if cursor is None or name > cursor]
            shown = tuple(islice(left, self._size(limit)))
            return Page(shown, shown[-1] if len(left) > len(shown) else None)

    def info(self, name: str) -> DatabaseInfo:
        """Return the state of a server, and an address that nobody answers."""
        with self._lock:
            entry = self._found(name)
            server = Server(
                host=f"{name}.memory.invalid", port=_PORTS[entry.spec.engine], admin=entry.spec.admin, tls=True
            )
            return DatabaseInfo(
                name=name,
                state=entry.state,
                raw_state=entry.state.upper(),
                engine=entry.spec.engine,
                version=entry.spec.version,
                server=None if entry.state in _NO_ADDRESS else server,
                created=entry.created,
                id=entry.id,
                restorable_from=self._earliest(entry),
                restorable_until=self._clock() if entry.spec.backup_days else None,
            )

    def password(self, name: str, given: Credential | None, *, fresh: bool) -> Masked:  # noqa: ARG002  nothing is kept
        """Return the password that the declaration refers to now, or the one that was made."""
        with self._lock:
            made = self._found(name).password
        return Masked(given.reveal()) if given is not None else made

    def login_token(self, name: str, user: str | None) -> LoginToken:
        """Make a token that nobody takes."""
        if not self._features.token_login:
            return super().login_token(name, user)
        with self._lock:
            admin = self._found(name).spec.admin
        expires = datetime.now(UTC) + timedelta(minutes=15)  # whoever logs in has no other clock
        return LoginToken(user=user or admin, value=Masked(secrets.token_urlsafe(24)), expires=expires)

    # changing state

    def set_password(self, name: str, password: Masked | None) -> None:
        """Begin to change the administrator's password."""
        with self._lock:
            entry = self._in_state(name, "available")
            entry.password = password or Masked(secrets.token_urlsafe(24))
            self._begin(entry, "updating", "available")

    def restart(self, name: str) -> None:
        """Begin to restart an available server."""
        with self._lock:
            self._begin(self._in_state(name, "available"), "updating", "available")

    def start(self, name: str) -> None:
        """Begin to start a stopped server."""
        with self._lock:
            self._begin(self._in_state(name, "stopped"), "starting", "available")

    def stop(self, name: str) -> None:
        """Begin to stop an available server."""
        with self._lock:
            self._begin(self._in_state(name, "available"), "stopping", "stopped")

    # snapshots

    def snapshot(self, name: str, snapshot: str) -> Snapshot:
        """Begin to take a snapshot."""
        with self._lock:
            return self._take(self._in_state(name, "available", "stopped"), snapshot)

    def snapshots(self, name: str | None, *, cursor: str | None, limit: int | None) -> Page[Snapshot]:
        """Return one page of snapshots, by server and name."""
        with self._lock:
            left = [
                (f"{database}\0{snapshot}", taken)
                for (database, snapshot), taken in sorted(self._snapshots.items(), key=lambda item: item[0])
                if name in (None, database)
            ]
            left = [(mark, taken) for mark, taken in left if cursor is None or mark > cursor]
            shown = left[: self._size(limit)]
            return Page(
                tuple(self._seen(taken) for _, taken in shown), shown[-1][0] if len(left) > len(shown) else None
            )

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a snapshot."""
        with self._lock:
            self._complete(name, snapshot)
            del self._snapshots[name, snapshot]

    def restore(self, name: str, snapshot: str, spec: DatabaseSpec) -> None:
        """Begin to make a new server of a snapshot."""
        with self._lock:
            taken = self._complete(name, snapshot)
            if taken.engine != spec.engine:
                _fail(InvalidArgument, f"the snapshot is of {taken.engine}")
            if spec.storage_gib < (taken.storage_gib or 0):
                _fail(InvalidArgument, f"the snapshot needs {taken.storage_gib} GiB")
            self._add(spec)

    def restore_at(self, name: str, when: datetime, spec: DatabaseSpec) -> None:
        """Begin to make a new server as another one was."""
        with self._lock:
            entry = self._found(name)
            earliest = self._earliest(entry)
            if earliest is None:
                _fail(InvalidArgument, "there are no backups of it: backup_days is 0")
            if not earliest <= when <= self._clock():
                _fail(InvalidArgument, f"there are backups from {earliest:%Y-%m-%d %H:%M:%S} UTC until now")
            self._add(spec)

    # what they share; all under the lock

    def _earliest(self, entry: _Entry) -> datetime | None:
        """Return the earliest time that can be restored."""
        days = entry.spec.backup_days
        return max(entry.created, self._clock() - timedelta(days=days)) if days else None

    def _add(self, spec: DatabaseSpec) -> None:
        if self._living(spec.name):
            _fail(AlreadyExists, "there is such a server")
        if sum(self._living(name) is not None for name in tuple(self._entries)) >= self._quota:
            _fail(QuotaExceeded, f"the account has {self._quota:,} servers, which is the limit")
        now = self._clock()
        password = Masked(spec.password.reveal() if spec.password else secrets.token_urlsafe(24))
        entry = _Entry(f"db-{secrets.token_hex(8)}", spec, "creating", now, password, now)
        self._entries[spec.name] = entry
        self._begin(entry, "creating", "failed" if spec.name in self._failing else "available")

    def _begin(self, entry: _Entry, state: DatabaseState, then: DatabaseState) -> None:
        entry.state, entry.then, entry.until = state, then, self._clock() + self._delay

    def _living(self, name: str) -> _Entry | None:
        """Return a server in the state that it has by now."""
        entry = self._entries.get(name)
        if entry is not None and entry.then is not None and entry.until <= self._clock():
            entry.state, entry.then = entry.then, None
            if entry.state == "deleted":
                del self._entries[name]
                return None
        return entry

    def _found(self, name: str) -> _Entry:
        entry = self._living(name)
        if entry is None:
            _fail(NotFound, "there is no such server")
        return entry

    def _in_state(self, name: str, *states: DatabaseState) -> _Entry:
        entry = self._found(name)
        if entry.state not in states:
            _fail(Conflict, f"it is {entry.state}; it must be {' or '.join(states)}")
        return entry

    def _take(self, entry: _Entry, name: str) -> Snapshot:
        key = (entry.spec.name, name)
        if key in self._snapshots:
            _fail(AlreadyExists, f"there is a snapshot {name!r}")
        made = Snapshot(
            name=name,
            database=entry.spec.name,
            state="creating",
            engine=entry.spec.engine,
            version=entry.spec.version,
            created=self._clock(),
            storage_gib=entry.spec.storage_gib,
        )
        self._snapshots[key] = _Taken(made, self._clock() + self._delay)
        return self._seen(self._snapshots[key])

    def _seen(self, taken: _Taken) -> Snapshot:
        complete = taken.until <= self._clock()
        return attrs.evolve(taken.snapshot, state="available" if complete else "creating")

    def _complete(self, name: str, snapshot: str) -> Snapshot:
        taken = self._snapshots.get((name, snapshot))
        if taken is None:
            _fail(NotFound, f"there is no snapshot {snapshot!r}")
        seen = self._seen(taken)
        if seen.state != "available":
            _fail(Conflict, f"the snapshot {snapshot!r} is not complete")
        return seen

    def _size(self, limit: int | None) -> int:
        return self._page_size if limit is None else min(limit, self._page_size)


def _fail(error: type[OperationError], message: str) -> NoReturn:
    raise MemoryFault(Fault(error, message))
