"""What listens where the double's servers are: a private PostgreSQL for each, made when somebody connects."""

from __future__ import annotations

import contextlib
import selectors
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from shiftable.errors import ConfigError

if TYPE_CHECKING:
    from shiftable.postgresql import Cluster

__all__ = ["Backends", "Wanted"]

_SOCKET = ".s.PGSQL.5432"
_CHUNK = 1 << 16
_TLS, _GSS = 80877103, 80877104  # the codes of requests for encryption: PostgreSQL, message formats


@attrs.frozen
class Wanted:
    """What a server has to have for those who connect now.

    Args:
        problem: why nobody may connect.
    """

    admin: str
    password: str = attrs.field(repr=False)
    databases: tuple[str, ...]
    problem: str | None = None


@attrs.define(eq=False)
class _Backend:
    wanted: Callable[[], Wanted]
    listener: socket.socket
    turn: threading.Lock = attrs.field(factory=threading.Lock)
    cluster: Cluster | None = None


class Backends:
    """Listens on a Unix socket for each server, and hands who comes on to a PostgreSQL of its own.

    Nothing is started before somebody connects. Where there is no PostgreSQL to start, or the server does not take
    anybody now, whoever connects is told.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._backends: dict[str, _Backend] = {}
        self._selector: selectors.BaseSelector | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._thread: threading.Thread | None = None

    @property
    def folder(self) -> str:
        """Where the servers' folders are."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="az-"))
            return str(self._folder)

    def add(self, name: str, wanted: Callable[[], Wanted]) -> None:
        """Listen for a server."""
        place = Path(self.folder) / name
        place.mkdir(mode=0o700, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        (place / _SOCKET).unlink(missing_ok=True)
        listener.bind(str(place / _SOCKET))
        listener.listen(64)
        with self._lock:
            self._backends[name] = _Backend(wanted, listener)
            selector = self._running()
            selector.register(listener, selectors.EVENT_READ, name)
        self._rouse()

    def remove(self, name: str) -> None:
        """Listen no more, and take the server's data away."""
        with self._lock:
            backend = self._backends.pop(name, None)
            if backend is None:
                return
            if self._selector is not None:
                self._selector.unregister(backend.listener)
            backend.listener.close()
        self._rouse()
        with backend.turn:
            if backend.cluster is not None:
                backend.cluster.stop(immediately=True)
        shutil.rmtree(Path(self.folder) / name, ignore_errors=True)

    def close(self) -> None:
        """Stop everything, and leave nothing behind."""
        for name in tuple(self._backends):
            self.remove(name)
        with self._lock:
            thread, selector, wake, folder = self._thread, self._selector, self._wake, self._folder
            self._thread = self._selector = self._wake = self._folder = None
        if wake is not None and thread is not None and selector is not None:
            wake[1].close()
            thread.join()
            selector.close()
            wake[0].close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    # below: the thread that accepts, and one for each connection

    def _running(self) -> selectors.BaseSelector:
        """Return what listens; start it, the first time."""
        if self._selector is None:
            self._selector, self._wake = selectors.DefaultSelector(), socket.socketpair()
            self._selector.register(self._wake[0], selectors.EVENT_READ, None)
            self._thread = threading.Thread(target=self._accept, args=(self._selector,), daemon=True)
            self._thread.start()
        return self._selector

    def _rouse(self) -> None:
        with self._lock:
            if self._wake is not None:
                self._wake[1].send(b".")

    def _accept(self, selector: selectors.BaseSelector) -> None:
        while True:
            for key, _ in selector.select():
                found: socket.socket = key.fileobj  # type: ignore[assignment]  # nothing else is registered
                if key.data is None:
                    if not found.recv(_CHUNK):
                        return
                    continue
                with self._lock, contextlib.suppress(OSError):
                    backend = self._backends.get(key.data)
                    if backend is not None:
                        client, _ = found.accept()
                        threading.Thread(target=_serve, args=(self, key.data, backend, client), daemon=True).start()


def _serve(backends: Backends, name: str, backend: _Backend, client: socket.socket) -> None:
    with client, contextlib.suppress(OSError):
        try:
            wanted = backend.wanted()
            with backend.turn:
                host = _prepared(Path(backends.folder) / name, backend, wanted) if wanted.problem is None else None
            problem = wanted.problem
        except Exception as exc:  # noqa: BLE001  whoever connects must hear of it, not wait for ever
            host, problem = None, f"the double could not start PostgreSQL: {exc}"
        if host is None:
            _refuse(client, str(problem))
            return
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(f"{host}/{_SOCKET}")
            _join(client, server)


def _prepared(place: Path, backend: _Backend, wanted: Wanted) -> str:
    """Start the server's PostgreSQL if need be, give it what it has to have, and return the folder of its socket."""
    from shiftable.postgresql import Cluster

    if backend.cluster is None:
        backend.cluster = Cluster(place / "pg", durable=False)
    backend.cluster.start()
    try:
        from psycopg import sql
    except ImportError as exc:
        raise ConfigError("it needs psycopg: pip install 'shiftable[postgresql]'") from exc
    with backend.cluster.connect(autocommit=True) as connection:
        roles = {row[0] for row in connection.execute("select rolname from pg_roles")}
        verb = sql.SQL("alter role" if wanted.admin in roles else "create role")
        name, password = sql.Identifier(wanted.admin), sql.Literal(wanted.password)
        connection.execute(sql.SQL("{} {} login createdb createrole password {}").format(verb, name, password))
        held = {row[0] for row in connection.execute("select datname from pg_database")}
        for database in wanted.databases:
            if database not in held:
                connection.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(database), name))
    return backend.cluster.host


def _join(client: socket.socket, server: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, client)
        while True:
            for key, _ in selector.select():
                source: socket.socket = key.fileobj  # type: ignore[assignment]  # nothing else is registered
                data = source.recv(_CHUNK)
                if not data:
                    return
                key.data.sendall(data)


def _refuse(client: socket.socket, problem: str) -> None:
    """Tell who connects why not, as PostgreSQL does."""
    for code in _begun(client):
        if code in {_TLS, _GSS}:
            client.sendall(b"N")
            continue
        fields = b"".join(
            tag + text.encode() + b"\0" for tag, text in ((b"S", "FATAL"), (b"C", "57P03"), (b"M", problem))
        )
        client.sendall(b"E" + struct.pack("!I", len(fields) + 5) + fields + b"\0")
        return


def _begun(client: socket.socket) -> Iterator[int]:
    """Yield the codes of the messages that a client begins with."""
    stream = client.makefile("rb")
    with stream:
        while len(head := stream.read(8)) == 8:
            length, code = struct.unpack("!II", head)
            stream.read(length - 8)
            yield code
