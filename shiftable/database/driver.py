"""What a provider of databases implements: ``DatabaseDriver``, its values and its features."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

import attrs

from shiftable.checks import are_networks, is_not_negative, is_positive, label_problem
from shiftable.config import Credential
from shiftable.errors import Unsupported
from shiftable.features import Features, Limit, feature
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable.service import Driver, Spec
from shiftable.wording import counted

__all__ = [
    "ENGINES",
    "GIB",
    "STATES",
    "ArchiveProgress",
    "BaseBackup",
    "DatabaseDriver",
    "DatabaseFeatures",
    "DatabaseInfo",
    "DatabaseSpec",
    "DatabaseState",
    "Engine",
    "LoginToken",
    "Server",
    "ServerSize",
    "SizeChoice",
    "Snapshot",
    "choose_size",
    "name_problem",
]

Engine = Literal["postgresql", "mysql", "mariadb"]
ENGINES: tuple[Engine, ...] = ("postgresql", "mysql", "mariadb")

DatabaseState = Literal[
    "creating", "available", "updating", "stopping", "stopped", "starting", "deleting", "deleted", "failed", "unknown"
]
STATES: tuple[DatabaseState, ...] = get_args(DatabaseState)

GIB = 2**30

_VERSION = re.compile(r"\d+(\.\d+)*")
_LONGEST = 63  # bytes: PostgreSQL's NAMEDATALEN - 1
_LONGEST_OF_MYSQL = 64  # characters: "Identifier Length Limits" of MySQL, "Identifier Names" of MariaDB


def _is_engine(_: object, field: attrs.Attribute[str], value: str) -> None:
    if value not in ENGINES:
        raise ValueError(f"{field.name} must be one of {', '.join(ENGINES)}, not {value!r}")


def _is_version(_: object, field: attrs.Attribute[str], value: str) -> None:
    if not _VERSION.fullmatch(value):
        raise ValueError(f"{field.name} must be numbers with dots, 16 or 8.4, not {value!r}")


def name_problem(engine: Engine, name: str) -> str | None:
    """Say why an engine would refuse the name of a database or a user, or cut it short; ``None`` if it holds it."""
    if not name or "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        return f"{name!r} is no name: it is empty, has a NUL, or is no text"
    if engine == "postgresql":
        size = len(name.encode())
        what = f"has {size} bytes; a name has at most {_LONGEST} in PostgreSQL (NAMEDATALEN)"
        return f"{name!r} {what}" if size > _LONGEST else None
    if len(name) > _LONGEST_OF_MYSQL:
        return f"{name!r} has {len(name)} characters; a name has at most {_LONGEST_OF_MYSQL} in {engine}"
    if name.endswith(" ") or any(letter > "\uffff" for letter in name):
        return f"{name!r} is no name in {engine}: it ends in a space, or has letters beyond U+FFFF"
    return None


def _is_name(spec: DatabaseSpec, field: attrs.Attribute[str], value: str) -> None:
    if value and (why := name_problem(spec.engine, value)) is not None:  # providers do not always tell it
        raise ValueError(f"{field.name}: {why}")


def _are_names(spec: DatabaseSpec, field: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    for number, name in enumerate(value):
        why = f"{name!r} stands there twice" if name in value[:number] else name_problem(spec.engine, name)
        if why is not None:
            raise ValueError(f"{field.name}: {why}")


@attrs.frozen(kw_only=True)
class DatabaseSpec(Spec):
    """``[database.x]``: a database server and the databases on it.

    A provider that has sizes in steps takes the smallest one that has at least what is declared.

    Args:
        engine: ``postgresql``, ``mysql`` or ``mariadb``.
        version: the major version, ``16``, or more of it; updates below it are the provider's.
        cpus: at least so many.
        memory_gib: at least so much.
        storage_gib: at least so much. Storage never shrinks.
        storage_autogrow: let the provider add storage before it is full.
        high_availability: a second server that takes over.
        backup_days: how long automatic backups are kept; 0 makes none.
        deletion_protection: refuse to delete it until this is false.
        public: reachable from the internet, by the networks in ``allow_from``.
        allow_from: networks that may connect, as ``192.0.2.0/24``.
        tls: whether the server refuses who comes over a network without TLS. What shiftable opens is always encrypted.
        databases: their names; those that exist beside them are left alone.
        parameters: of the engine; those that are not named are left alone.
        labels: those that are not named are left alone.
        admin: name of the administrator, who is no superuser at most providers.
        password: of the administrator, by reference. A secret that does not exist is made when the server is created.
            Without a reference the provider makes and keeps it.
        token_login: users may log in with a token of the provider, and the application does.
        user: whom the application connects as; else the administrator.
        login: what the application connects with, by reference: the user's password, or the document with user and
            password that ``shiftable secrets rotate`` keeps; else what the administrator connects with.
    """

    engine: Engine = attrs.field(validator=_is_engine)
    version: str = attrs.field(validator=_is_version)
    cpus: int = attrs.field(validator=is_positive)
    memory_gib: int = attrs.field(validator=is_positive)
    storage_gib: int = attrs.field(validator=is_positive)
    storage_autogrow: bool = True
    high_availability: bool = False
    backup_days: int = attrs.field(default=7, validator=is_not_negative)
    deletion_protection: bool = True
    public: bool = False
    allow_from: tuple[str, ...] = attrs.field(default=(), validator=are_networks)
    tls: Literal["required", "optional"] = "required"
    databases: tuple[str, ...] = attrs.field(default=(), validator=_are_names)
    parameters: Mapping[str, str] = attrs.Factory(dict)
    labels: Mapping[str, str] = attrs.Factory(dict)
    admin: str = attrs.field(default="shiftadmin", validator=_is_name, eq=False)
    password: Credential | None = attrs.field(default=None, eq=False)
    token_login: bool = False
    user: str | None = attrs.field(default=None, eq=False)
    login: Credential | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        if self.token_login and self.login is not None:
            raise ValueError("give either token_login or login: the token is what the application connects with")


@attrs.frozen(kw_only=True)
class ServerSize:
    """What a provider sells as one database server.

    Args:
        name: the provider's, ``db.m7g.large``.
        memory: in bytes.
    """

    name: str
    cpus: int
    memory: int

    def __str__(self) -> str:
        return f"{self.name} ({counted(self.cpus, 'CPU')}, {self.memory / GIB:g} GiB)"


@attrs.frozen
class SizeChoice:
    """A size, and why it is this one."""

    size: ServerSize
    reason: str


def choose_size(spec: DatabaseSpec, sizes: Iterable[ServerSize], *, source: str) -> SizeChoice:
    """Choose the smallest size that has at least what is declared: by CPUs, then memory, then name.

    Args:
        source: where the sizes are from, with its date: ``the catalogue of 2026-11-21``.

    Raises:
        ValueError: none is large enough; names the largest.
    """

    def extent(size: ServerSize) -> tuple[int, int, str]:
        return size.cpus, size.memory, size.name

    every = tuple(sizes)
    enough = [size for size in every if size.cpus >= spec.cpus and size.memory >= spec.memory_gib * GIB]
    needed = f"{counted(spec.cpus, 'CPU')} and {spec.memory_gib} GiB"
    if not enough:
        largest = max(every, key=extent, default=None)
        raise ValueError(f"no size has {needed}; the largest is {largest} ({source})")
    best = min(enough, key=extent)
    return SizeChoice(best, f"the smallest of {len(enough):,} sizes with at least {needed} ({source})")


@attrs.frozen(kw_only=True)
class Server:
    """Where a database server listens, and how to know that it is the right one.

    Args:
        host: a name, an address, or the folder of a Unix socket.
        admin: name of the administrator.
        ca: certificates that the server's is checked against; ``None``: those of the system.
        tls: whether connections are encrypted and the server's certificate is checked.
        check_name: whether the certificate has to bear the host's name; false only where ``ca`` signs for this one
            server, and so proves by itself which one it is.
        databases: what the server calls databases that it cannot call as they are declared, by the declared name: it
            may be shared, and have one of that name already.
    """

    host: str
    port: int
    admin: str
    ca: Path | None = None
    tls: bool = True
    check_name: bool = True
    databases: Mapping[str, str] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class DatabaseInfo:
    """What a provider tells of a database server beside its declaration.

    Args:
        state: in our words.
        raw_state: in the provider's.
        version: the whole one, ``16.4``.
        size: the provider's own name for it, ``db.m7g.large``.
        server: ``None`` while it has no address yet.
        created: aware, UTC.
        id: the provider's own, where it has one.
        restart_needed: a parameter counts only after a restart.
        restorable_from: the earliest time that can be restored; ``None``: none, or not told.
        restorable_until: the latest one.
    """

    name: str
    state: DatabaseState
    raw_state: str
    engine: Engine
    version: str
    size: str | None = None
    server: Server | None = None
    created: datetime | None = None
    id: str | None = None
    restart_needed: bool = False
    restorable_from: datetime | None = None
    restorable_until: datetime | None = None


@attrs.frozen(kw_only=True)
class LoginToken:
    """What a user logs in with in place of a password, for minutes.

    Args:
        user: who logs in, in the server's words.
        expires: aware; from when on no new connection is opened with it. Those that are open live on.
    """

    user: str
    value: Masked
    expires: datetime


@attrs.frozen(kw_only=True)
class Snapshot:
    """A whole database server as it was once.

    Args:
        name: what it was called when it was taken, or the provider's name of an automatic one.
        database: the server it was taken of, which may be gone.
        state: ``available`` when it can be restored.
        storage_gib: of the server then.
        automatic: taken by the provider itself.
    """

    name: str
    database: str
    state: DatabaseState
    engine: Engine
    version: str
    created: datetime | None = None
    storage_gib: int | None = None
    automatic: bool = False


@attrs.frozen(kw_only=True)
class BaseBackup:
    """All data of one server, from which, with the server's log after it, any later time is restored.

    Args:
        name: the time at which it began.
        version: of the server, ``15.4``.
        began: aware, UTC.
        restorable_from: when it was complete: the earliest time that is restored from it.
        size: in bytes, as it is stored.
    """

    name: str
    version: str
    began: datetime
    restorable_from: datetime
    size: int


@attrs.frozen(kw_only=True)
class ArchiveProgress:
    """How far the log of a server has been archived.

    Args:
        until: the latest time that can be restored; aware, UTC.
        behind: bytes of the log that the server has written since, and that are not stored yet.
        segment: the last part of the log that is stored, in the server's words.
    """

    until: datetime
    behind: int
    segment: str


@attrs.frozen(kw_only=True)
class DatabaseFeatures(Features):
    """What a database driver can do."""

    engines: frozenset[str] = feature("engines, each with a version where only some are held: postgresql 16")
    connect: bool = feature("there is a server to connect to; if not, it is only simulated")
    stop: bool = feature("a server is stopped and started, and costs less meanwhile")
    snapshots: bool = feature("snapshots on demand, restored into a new server")
    final_snapshot: bool = feature("a snapshot that outlives the server, taken when it is deleted")
    point_in_time: bool = feature("restore to any second of the last days into a new server")
    high_availability: bool = feature("a second server that takes over")
    storage_autogrow: bool = feature("storage that grows by itself")
    deletion_protection: bool = feature("the provider itself refuses to delete a protected server")
    public: bool = feature("servers that are reachable from the internet")
    allow_from: bool = feature("a list of networks that may connect")
    parameters: bool = feature("parameters of the engine")
    labels: bool = feature("labels")
    managed_password: bool = feature("the provider makes and keeps the administrator's password")
    set_password: bool = feature("the administrator's password is changed through the provider", default=False)
    token_login: bool = feature("logins by a token of the provider, without a password", default=False)
    optional_tls: bool = feature("servers that let clients connect without TLS", default=False)
    restart: bool = feature("a server is restarted, so that parameters count", default=False)
    sizes: bool = feature("sizes in steps: the smallest that is large enough is chosen, and says why", default=False)
    archive: bool = feature(
        "base backups of a whole server, and its log archived by `shiftable db archive`", default=False
    )
    max_name: Limit = feature("longest name, characters")
    min_storage: Limit | None = feature("smallest storage, GiB", default=None)
    max_storage: Limit | None = feature("largest storage, GiB", default=None)
    max_backup_days: Limit | None = feature("longest time for which automatic backups are kept, days", default=None)


class DatabaseDriver(Driver[DatabaseSpec]):
    """Database servers of one provider. The admin verbs of ``Driver`` act on servers.

    What takes minutes (``create``, ``update``, ``start``, ``stop``, ``restart``, ``delete``, ``snapshot``, ``restore``,
    ``set_password``) returns when it has begun; ``info`` tells the state. A state that forbids an operation is a
    conflict. Nothing here waits.
    """

    @property
    @abstractmethod
    def features(self) -> DatabaseFeatures:
        """What this driver can do."""

    def check_name(self, name: str) -> str | None:
        """Say why the provider could not hold a server of that name; ``None`` if it can. Sends nothing."""
        return label_problem(name, self.features.max_name)

    def missing_features(self, spec: DatabaseSpec) -> tuple[str, ...]:
        """Say what a declaration needs and this driver does not have. Sends nothing."""
        has = self.features
        needs = (
            (_has_engine(has.engines, spec.engine, spec.version), f"{spec.engine} {spec.version}"),
            (has.high_availability or not spec.high_availability, "high availability"),
            (has.public or not spec.public, "public servers"),
            (has.allow_from or not spec.allow_from, "list of networks that may connect"),
            (has.parameters or not spec.parameters, _unset(spec.parameters)),
            (has.labels or not spec.labels, "labels"),
            (has.managed_password or spec.password is not None, "passwords of its own, so password = { … } is needed"),
            (has.token_login or not spec.token_login, "logins by token"),
            (has.optional_tls or spec.tls == "required", "servers that let clients connect without TLS"),
            (_fits(spec.storage_gib, has.min_storage, has.max_storage), f"storage of {spec.storage_gib:,} GiB"),
            (_fits(spec.backup_days, None, has.max_backup_days), f"backups of {spec.backup_days:,} days"),
        )
        return tuple(what for met, what in needs if not met)

    def rounded(self, spec: DatabaseSpec) -> DatabaseSpec:
        """Return the declaration as ``describe`` would tell it once it is carried out: sizes rounded up to steps.

        May ask the provider for its sizes.
        """
        return spec

    def size(self, spec: DatabaseSpec) -> SizeChoice | None:
        """Choose the size for a declaration, where ``features.sizes``; else ``None``. May ask the provider for them.

        Raises:
            ValueError: none is large enough.
        """
        return None

    @abstractmethod
    def info(self, name: str) -> DatabaseInfo:
        """Return the state of a server and where it listens."""

    def restorable(self, name: str) -> tuple[datetime, datetime] | None:
        """Return the earliest and the latest time to which a server can be restored; ``None``: none, or not told.

        Else than ``info``, which every connection needs, it may ask whoever keeps the backups.
        """
        info = self.info(name)
        if info.restorable_from is None or info.restorable_until is None:
            return None
        return info.restorable_from, info.restorable_until

    @abstractmethod
    def password(self, name: str, given: Credential | None, *, fresh: bool) -> Masked:
        """Return the administrator's password.

        The portable class keeps it for some minutes, for all threads, and asks again when the server refuses it; so a
        driver need keep nothing.

        Args:
            given: the declared reference; where the provider keeps the password itself, that one counts.
            fresh: what was returned before was refused by the server; if it was kept, fetch it again.
        """

    def prepare(self, name: str) -> DatabaseState | None:
        """Have an available server ready for a connection, which is about to be opened: one that runs on demand starts.

        Called often, and again when a connection to a server that runs on demand could not be opened.

        Returns:
            Whether it is available or stopped, of a server that runs on demand; ``None``: it runs anyway.
        """
        return None

    def pending_password(self, name: str) -> Masked | None:
        """Return the password that is about to replace the one that the provider keeps, where it tells."""
        return None

    # changing state

    def destroy(self, name: str) -> None:
        """Delete a server without a snapshot."""
        self.delete(name, final_snapshot=None)

    @abstractmethod
    def delete(self, name: str, *, final_snapshot: str | None) -> None:
        """Begin to delete a server.

        Args:
            final_snapshot: name of the snapshot to take before; with ``features.final_snapshot`` only.
        """

    # optional: each goes with a field of the features

    def login_token(self, name: str, user: str | None) -> LoginToken:
        """Make a token to log in with.

        Args:
            user: whom to log in as; ``None``: whom the credentials of this process are.
        """
        raise Unsupported("no logins by token")

    def set_password(self, name: str, password: Masked | None) -> None:
        """Begin to change the administrator's password.

        Args:
            password: ``None``: the provider makes and keeps a new one, where it does that.
        """
        raise Unsupported("no way to change the administrator's password")

    def restart(self, name: str) -> None:
        """Begin to restart an available server."""
        raise Unsupported("no restart")

    def start(self, name: str) -> None:
        """Begin to start a stopped server."""
        raise Unsupported("servers cannot be stopped")

    def stop(self, name: str) -> None:
        """Begin to stop an available server."""
        raise Unsupported("servers cannot be stopped")

    def snapshot(self, name: str, snapshot: str) -> Snapshot:
        """Begin to take a snapshot. It fails if there is one of that name."""
        raise Unsupported("no snapshots")

    def snapshots(self, name: str | None, *, cursor: str | None, limit: int | None) -> Page[Snapshot]:
        """Return one page of the snapshots of one server, which may be gone, or of all; in any order."""
        raise Unsupported("no snapshots")

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a snapshot of a server."""
        raise Unsupported("no snapshots")

    def restore(self, name: str, snapshot: str, spec: DatabaseSpec) -> None:
        """Begin to make a new server, ``spec``, with what the snapshot of the server ``name`` holds.

        Where a provider restores in place, the driver creates the new server first. The old one is never touched.
        """
        raise Unsupported("no snapshots")

    def restore_at(self, name: str, when: datetime, spec: DatabaseSpec) -> None:
        """Begin to make a new server, ``spec``, as the server ``name`` was at that time."""
        raise Unsupported("no restore to a point in time")

    # of whole servers, on which the databases of this driver are: with features.archive

    @property
    def archive_hint(self) -> str:
        """What to do to have an archive, or instead of one, as the end of the sentence that there is none."""
        return ""

    def back_up(self) -> BaseBackup:
        """Make a base backup, and delete what no time that is to be kept needs any more. Returns when it is complete.

        A state that makes it useless, a log that nobody archives, is a conflict.
        """
        raise Unsupported("no base backups")

    def backups(self, *, cursor: str | None, limit: int | None) -> Page[BaseBackup]:
        """Return one page of the base backups that are complete, the oldest first."""
        raise Unsupported("no base backups")

    def delete_backup(self, name: str) -> None:
        """Delete a base backup, and what of the log only it needs."""
        raise Unsupported("no base backups")

    def archive(
        self,
        *,
        every: timedelta,
        over_gap: bool,
        on_progress: Callable[[ArchiveProgress], None],
        stopped: Callable[[], bool],
    ) -> None:
        """Store the log of the server while it is written, without a gap, until ``stopped``; another process goes on.

        Only one process at a time does; for another it is a conflict.

        Args:
            every: what is written is stored so often.
            over_gap: where the server has deleted what is missing, begin anew; else that is a conflict.
            on_progress: hears of each time that can be restored from then on.
            stopped: asked often.
        """
        raise Unsupported("no archive of the log")

    def end_archive(self) -> None:
        """Have the server no longer keep its log for the archive, for good; what is stored stays."""
        raise Unsupported("no archive of the log")


def _has_engine(engines: frozenset[str], engine: str, version: str) -> bool:
    held = {found.partition(" ")[2] for found in engines if found.partition(" ")[0] == engine}
    return any(not one or f"{version}.".startswith(f"{one}.") or one.startswith(f"{version}.") for one in held)


def _unset(parameters: Iterable[str]) -> str:
    named = ", ".join(sorted(parameters))
    return f"way to set parameters ({named}): set them on the server itself, and leave them out here"


def _fits(value: int, least: Limit | None, most: Limit | None) -> bool:
    return (least is None or value >= least.value) and (most is None or value <= most.value)
