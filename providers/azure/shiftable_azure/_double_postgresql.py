"""What listens where the double's servers are: a private PostgreSQL for each, made when somebody connects."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shiftable.testing.databases import PrivateServers

if TYPE_CHECKING:
    from shiftable.postgresql import Cluster

__all__ = ["Backends", "Furnished"]

_PASSED_ON = frozenset({"log_min_duration_statement", "max_connections", "wal_level", "work_mem"})


class Furnished(Protocol):
    """What a server has to have for those who connect."""

    @property
    def admin(self) -> str:
        """The administrator."""

    @property
    def password(self) -> str:
        """The administrator's."""

    @property
    def databases(self) -> Mapping[str, object]:
        """The databases, by name."""

    @property
    def overrides(self) -> Mapping[str, str]:
        """The parameters that are not as Azure made them."""


class Backends:
    """Keeps a folder with one for each server, in which the server's Unix socket is."""

    def __init__(self) -> None:
        self.private = PrivateServers()
        self._lock = threading.Lock()
        self._folder: Path | None = None

    @property
    def folder(self) -> str:
        """Where the servers' folders are."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="az-"))
            return str(self._folder)

    def add(self, name: str, server: Furnished, data: str | None = None) -> None:
        """Listen for a server.

        Args:
            data: what it holds, as ``private.dump`` told it of another.
        """

        def arrange(cluster: Cluster) -> None:
            _furnish(cluster, server)

        def parameters() -> Mapping[str, str]:
            return {name: value for name, value in server.overrides.items() if name in _PASSED_ON}

        place, _ = self.private.open(name, arrange, parameters=parameters, data=data)
        (Path(self.folder) / name).symlink_to(place)

    def remove(self, name: str) -> None:
        """Listen no more, and take the server's data away."""
        self.private.shut(name)
        (Path(self.folder) / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Stop everything, and leave nothing behind."""
        self.private.close()
        with self._lock, contextlib.ExitStack() as stack:
            if self._folder is not None:
                stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder = None


def _furnish(cluster: Cluster, server: Furnished) -> None:
    """Give PostgreSQL the administrator and the databases."""
    from psycopg import sql

    with cluster.connect(autocommit=True) as connection:
        roles = {row[0] for row in connection.execute("select rolname from pg_roles")}
        verb = sql.SQL("alter role" if server.admin in roles else "create role")
        name, password = sql.Identifier(server.admin), sql.Literal(server.password)
        connection.execute(sql.SQL("{} {} login createdb createrole password {}").format(verb, name, password))
        held = {row[0] for row in connection.execute("select datname from pg_database")}
        for database in server.databases:
            if database not in held:
                made = sql.SQL("create database {} owner {}").format(sql.Identifier(database), name)
                connection.execute(made)
