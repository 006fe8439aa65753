"""What listens at the addresses of the double's instances: a private PostgreSQL, started when somebody connects."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import attrs

from shiftable.errors import ShiftableError
from shiftable.postgresql import Cluster, temporary_cluster

__all__ = ["Contents", "Servers"]

logger = logging.getLogger(__name__)

_PORT = 5432
_CHUNK = 1 << 16
_FIRST_USER, _FIRST_DATABASE = "postgres", "postgres"
_ROLE = "cloudsqlsuperuser"


@attrs.frozen
class Contents:
    """What a server has to have: users with passwords, accounts with tokens, databases."""

    users: Mapping[str, str | None]
    accounts: Mapping[str, str]
    databases: Collection[str]


@attrs.define(eq=False)
class _Behind:
    """One instance: the socket that it listens on, and the server, once somebody came."""

    folder: Path
    contents: Callable[[], Contents]
    listener: socket.socket
    lock: threading.RLock = attrs.field(factory=threading.RLock)
    on: bool = True
    fill: str | None = None
    cluster: Cluster | None = None
    closing: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack)


class Servers:
    """The servers of all instances, by name.

    Each address is a folder with a Unix socket of ours, behind which PostgreSQL is started for the first who connects.
    Where there is no PostgreSQL on this machine, that one is told so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._behind: dict[str, _Behind] = {}
        self._copied: dict[str, str | None] = {}

    def open(self, name: str, contents: Callable[[], Contents], *, postgresql: bool) -> None:
        """Listen at an address.

        Args:
            contents: asked when somebody connects.
        """
        folder = Path(tempfile.mkdtemp(prefix="shiftable-sql-"))
        if not postgresql:  # nothing there: connecting fails at once
            folder.rmdir()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made = _Behind(folder, contents, listener, fill=self._copied.pop(name, None))
        with self._lock:
            self._behind[name] = made
        if postgresql:
            listener.bind(str(folder / f".s.PGSQL.{_PORT}"))
            listener.listen()
            threading.Thread(target=self._accept, args=(made,), name="double database", daemon=True).start()

    def address(self, name: str) -> str:
        """Return where an instance is."""
        return str(self._behind[name].folder)

    def switch(self, name: str, *, on: bool) -> None:
        """Stop an instance, or start it again."""
        self._behind[name].on = on

    def shut(self, name: str) -> None:
        """Delete the server of an instance."""
        with self._lock:
            behind = self._behind.pop(name, None)
        if behind is not None:
            _close(behind)

    def close(self) -> None:
        """Delete all of them."""
        with self._lock:
            every = list(self._behind.values())
            self._behind.clear()
            self._copied.clear()
        for behind in every:
            _close(behind)

    # what the API does to them

    def dump(self, name: str) -> str | None:
        """Return what a server holds, as SQL; ``None`` if nobody ever connected."""
        behind = self._behind.get(name)
        if behind is None:
            return None
        with behind.lock:
            if behind.cluster is None:
                return behind.fill
            options = ("--no-comments", "--clean", "--if-exists", "--quote-all-identifiers")
            return behind.cluster.run("pg_dumpall", *options).decode()

    def copy(self, source: str, target: str) -> None:
        """Have an instance that is still to be opened hold what another one does."""
        self._copied[target] = self.dump(source)

    def fill(self, name: str, data: str | None) -> None:
        """Have an instance hold what was dumped."""
        behind = self._behind[name]
        with behind.lock:
            behind.fill = data
            cluster, behind.cluster = behind.cluster, None
            if cluster is not None:
                behind.closing.close()

    def set_password(self, name: str, user: str, password: str | None) -> None:
        """Make a user, or change the password of one."""
        behind = self._behind[name]
        with behind.lock:
            if behind.cluster is not None:
                _make_user(behind.cluster, user, password)

    def add_database(self, name: str, database: str) -> None:
        """Make a database."""
        behind = self._behind[name]
        with behind.lock:
            if behind.cluster is not None:
                _make_database(behind.cluster, database)

    # connections

    def _accept(self, behind: _Behind) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                client, _ = behind.listener.accept()
                threading.Thread(target=_serve, args=(behind, client), name="double database", daemon=True).start()


def _serve(behind: _Behind, client: socket.socket) -> None:
    with client:
        try:
            cluster = _started(behind)
        except Exception as exc:  # noqa: BLE001  whatever it is, the client has to hear it
            with contextlib.suppress(OSError):
                _refuse(client, str(exc))
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.connect(f"{cluster.host}/.s.PGSQL.{cluster.port}")
            back = threading.Thread(target=_pump, args=(server, client), name="double database", daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _refuse(client: socket.socket, why: str) -> None:
    """Say no in PostgreSQL's words: an ErrorResponse to whatever the client begins with."""
    client.recv(_CHUNK)
    fields = b"".join(kind + text.encode() + b"\0" for kind, text in ((b"S", "FATAL"), (b"C", "57P03"), (b"M", why)))
    client.sendall(b"E" + struct.pack("!I", len(fields) + 5) + fields + b"\0")


def _started(behind: _Behind) -> Cluster:
    """Start the server of an instance, with what it has to have, unless it runs."""
    with behind.lock:
        if not behind.on:
            raise ShiftableError("the instance is stopped")
        contents = behind.contents()
        if behind.cluster is None:
            behind.cluster = _made(behind, contents)
        for account, token in contents.accounts.items():
            _make_user(behind.cluster, account, token)
        return behind.cluster


def _made(behind: _Behind, contents: Contents) -> Cluster:
    cluster = behind.closing.enter_context(temporary_cluster())
    try:
        with cluster.connect(autocommit=True) as connection:
            connection.execute(f"create role {_ROLE} createdb createrole nologin".encode())
        if behind.fill is not None:
            cluster.run("psql", "--quiet", "--no-psqlrc", "--dbname=postgres", data=behind.fill.encode())
        for user, password in contents.users.items():
            _make_user(cluster, user, password)
        for database in contents.databases:
            _make_database(cluster, database)
    except BaseException:
        behind.closing.close()
        raise
    return cluster


def _make_user(cluster: Cluster, user: str, password: str | None) -> None:
    """Make a user who is what Google's are: an administrator who is no superuser. The first one is ours, and stays."""
    if user == _FIRST_USER:
        return
    from psycopg import sql

    with cluster.connect(autocommit=True) as connection:
        found = connection.execute("select from pg_roles where rolname = %s", (user,)).fetchone()
        verb = sql.SQL("alter role {}" if found is not None else "create role {}").format(sql.Identifier(user))
        connection.execute(verb + sql.SQL(" login createdb createrole password {}").format(sql.Literal(password)))
        if found is None:
            grant = sql.SQL("grant {} to {}").format(sql.Identifier(_ROLE), sql.Identifier(user))
            connection.execute(grant)


def _make_database(cluster: Cluster, database: str) -> None:
    if database == _FIRST_DATABASE:
        return
    from psycopg import sql

    with cluster.connect(autocommit=True) as connection:
        if connection.execute("select from pg_database where datname = %s", (database,)).fetchone() is None:
            made = sql.SQL("create database {} owner {}").format(sql.Identifier(database), sql.Identifier(_ROLE))
            connection.execute(made)


def _close(behind: _Behind) -> None:
    with contextlib.suppress(OSError):
        behind.listener.shutdown(socket.SHUT_RDWR)
    behind.listener.close()
    with behind.lock:
        behind.cluster = None
        behind.closing.close()
    shutil.rmtree(behind.folder, ignore_errors=True)
