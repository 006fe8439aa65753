"""What listens where a double says that a database server is: a private PostgreSQL, started for who connects first."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import attrs

from shiftable.errors import ShiftableError
from shiftable.postgresql import Cluster, temporary_cluster

__all__ = ["PATIENCE", "PrivateServers"]

PATIENCE = timedelta(minutes=2)
"""How long the first connection may take: a server is started for it, perhaps beside many others."""

logger = logging.getLogger(__name__)

_PORT = 5432
_CHUNK = 1 << 16
_NAME = "server of a double"


@attrs.define(eq=False)
class _Behind:
    """One server: the socket that it listens on, and PostgreSQL, once somebody came."""

    folder: Path
    listener: socket.socket
    arrange: Callable[[Cluster], None]
    parameters: Callable[[], Mapping[str, str]]
    data: str | None
    on: bool = True
    cluster: Cluster | None = None
    lock: threading.RLock = attrs.field(factory=threading.RLock)
    closing: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack)


class PrivateServers:
    """The servers of a double, by name. From any thread.

    The address of one is a folder with a Unix socket of ours. PostgreSQL is started behind it for the first who
    connects; where there is none on this machine, that one is told so, in PostgreSQL's own words.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._behind: dict[str, _Behind] = {}

    def open(
        self,
        name: str,
        arrange: Callable[[Cluster], None],
        *,
        parameters: Callable[[], Mapping[str, str]] = dict,
        data: str | None = None,
    ) -> tuple[str, int]:
        """Listen, and return the host and the port where.

        Args:
            arrange: makes the users and the databases, once there is a server; and again at ``rearrange``.
            parameters: of the server, asked for at each start.
            data: what ``dump`` returned of the one that it is restored from.
        """
        folder = Path(tempfile.mkdtemp(prefix="shiftable-db-"))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(folder / f".s.PGSQL.{_PORT}"))
        listener.listen()
        made = _Behind(folder, listener, arrange, parameters, data)
        with self._lock:
            self._behind[name] = made
        threading.Thread(target=_accept, args=(made,), name=_NAME, daemon=True).start()
        return str(folder), _PORT

    def switch(self, name: str, *, on: bool) -> None:
        """Stop a server, or let it start again; a restart is both. Its data stay."""
        behind = self._behind.get(name)
        if behind is not None:
            with behind.lock:
                behind.on = on
                if not on and behind.cluster is not None:
                    behind.cluster.stop()

    def rearrange(self, name: str) -> None:
        """Arrange a server anew if it runs: a password is another one now, say."""
        behind = self._behind.get(name)
        if behind is not None:
            with behind.lock:
                if behind.cluster is not None and behind.cluster.running:
                    behind.arrange(behind.cluster)

    def dump(self, name: str) -> str | None:
        """Return what a server holds, as SQL; ``None`` if nobody ever connected."""
        behind = self._behind.get(name)
        if behind is None:
            return None
        with behind.lock:
            if behind.cluster is None:
                return behind.data
            behind.cluster.start()
            return behind.cluster.run("pg_dumpall", "--quote-all-identifiers").decode()

    def shut(self, name: str) -> None:
        """Delete a server. Again: no change."""
        with self._lock:
            behind = self._behind.pop(name, None)
        if behind is not None:
            _close(behind)

    def close(self) -> None:
        """Delete all of them. They may be opened again."""
        with self._lock:
            every = list(self._behind.values())
            self._behind.clear()
        for behind in every:
            _close(behind)


def _accept(behind: _Behind) -> None:
    with contextlib.suppress(OSError):  # it was closed
        while True:
            client, _ = behind.listener.accept()
            threading.Thread(target=_serve, args=(behind, client), name=_NAME, daemon=True).start()


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
            back = threading.Thread(target=_pump, args=(server, client), name=_NAME, daemon=True)
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
    """Say no as PostgreSQL does: an ErrorResponse to whatever the client begins with."""
    client.recv(_CHUNK)
    parts = ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", "57P03"), (b"M", why))
    fields = b"".join(kind + text.encode() + b"\0" for kind, text in parts) + b"\0"
    client.sendall(b"E" + struct.pack("!I", len(fields) + 4) + fields)


def _started(behind: _Behind) -> Cluster:
    """Start PostgreSQL, with what it has to hold, unless it runs."""
    with behind.lock:
        if not behind.on:
            raise ShiftableError("the server is stopped")
        if behind.cluster is None:
            behind.cluster = _made(behind)
        elif not behind.cluster.running:
            behind.cluster.parameters = dict(behind.parameters())
            behind.cluster.start()
            behind.arrange(behind.cluster)
        return behind.cluster


def _made(behind: _Behind) -> Cluster:
    cluster = behind.closing.enter_context(temporary_cluster(parameters=behind.parameters()))
    try:
        if behind.data is not None:
            cluster.run("psql", "--quiet", "--no-psqlrc", "--dbname=postgres", data=behind.data.encode())
        behind.arrange(cluster)
    except BaseException:
        behind.closing.close()
        raise
    return cluster


def _close(behind: _Behind) -> None:
    with contextlib.suppress(OSError):
        behind.listener.shutdown(socket.SHUT_RDWR)
    behind.listener.close()
    with behind.lock:
        behind.on, behind.cluster = False, None
        behind.closing.close()
    shutil.rmtree(behind.folder, ignore_errors=True)
