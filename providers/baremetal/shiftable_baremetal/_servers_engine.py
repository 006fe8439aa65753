"""What PostgreSQL and MariaDB are asked for: one engine for each, and one session for each operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NoReturn

import attrs

from shiftable.config import Credential
from shiftable.database._logins import Login
from shiftable.database._url import url_of
from shiftable.database.driver import DatabaseFeatures, DatabaseInfo, Engine, Server
from shiftable.errors import Fault, OperationError, Unavailable
from shiftable.masking import Masked
from shiftable.tls import check_authorities
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._servers_errors import classify
from shiftable_baremetal._servers_mark import Found, Mark
from shiftable_baremetal._servers_programs import Command
from shiftable_baremetal._servers_tunnel import Tunnel

__all__ = ["PATIENCE", "Access", "ServerEngine", "Session", "Taken", "fail"]

PATIENCE = 60
"""Seconds to wait for another process that changes the same resource."""


def fail(error: type[OperationError], message: str) -> NoReturn:
    """Raise one of our errors."""
    raise FilesError(Fault(error, message))


@attrs.frozen(kw_only=True)
class Access:
    """How a server is reached, and who makes users and databases there.

    Args:
        host: a name, an address, or a Unix socket: PostgreSQL's folder, MariaDB's file.
        user: the one who makes users and databases.
        ca: certificates that the server's is checked against.
        tunnel: the way there, if ``host`` is as another machine sees it.
    """

    host: str
    port: int
    user: str
    password: Credential | None
    tls: bool
    ca: Path | None
    tunnel: Tunnel | None = None

    def server(self, admin: str, databases: Mapping[str, str]) -> Server:
        """Return where the server is for clients of this machine; the way there is made when it is needed."""
        host = self.tunnel.host if self.tunnel is not None else self.host
        network = not host.startswith("/")
        return Server(host=host, port=self.port, admin=admin, ca=self.ca, tls=self.tls and network, databases=databases)

    def arguments(self, engine: Engine) -> dict[str, object]:
        """Open the way to the server, and return what psycopg's or PyMySQL's ``connect`` takes, but the password."""
        self.open()
        server = self.server(self.user, {})
        if server.tls and self.ca is not None:
            check_authorities(f"{engine}.ca_bundle", self.ca)
        info = DatabaseInfo(name="", state="available", raw_state="", engine=engine, version="")
        url = url_of(info, server, "postgres" if engine == "postgresql" else "", self.user, self._login)
        return url.arguments()

    def secret(self) -> Masked:
        """Read the password, which may be empty: sockets know who comes."""
        return Masked(self.password.reveal() if self.password is not None else "")

    def open(self) -> None:
        """Open the way to the server, unless it is open."""
        if self.tunnel is not None:
            self.tunnel.open()

    @contextmanager
    def carried(self) -> Iterator[None]:
        """Say of a connection that ends at once that ssh is open, and leads to nobody.

        What another machine could not connect to is to clients here a server that closes the connection.
        """
        try:
            yield
        except Exception as exc:
            fault = classify(exc)
            if self.tunnel is None or fault is None or fault.error is not Unavailable:
                raise
            said, there = fault.message.partition("\n")[0], self.tunnel
            told = f"{said}: ssh to {there.machine} is open; does the server listen at {there.target} there?"
            raise FilesError(attrs.evolve(fault, message=told)) from exc

    def _login(self) -> Login:
        return Login(self.user, self.secret())


@attrs.frozen
class Taken:
    """Names that are taken on the server, whoever has them."""

    roles: frozenset[str]
    databases: frozenset[str]


class Session(ABC):
    """One connection to the server, as the user who makes users and databases."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The server's version, ``15.4``."""

    @abstractmethod
    def found(self, name: str | None = None) -> dict[str, Found]:
        """Return one resource, or all, by name."""

    @abstractmethod
    def taken(self) -> Taken:
        """Return all names of users and databases."""

    @abstractmethod
    def lock(self, name: str) -> None:
        """Be the only one who changes what has that name, until the session ends."""

    @abstractmethod
    def locked_names(self) -> AbstractContextManager[None]:
        """Be the only one who chooses names of users and databases, until the block ends."""

    @abstractmethod
    def check_rights(self) -> None:
        """Fail if this user may not make users and databases; say what he lacks."""

    @abstractmethod
    def check_parameters(self, parameters: Mapping[str, str]) -> None:
        """Fail if a database cannot have such parameters. Changes nothing."""

    @abstractmethod
    def write(self, mark: Mark) -> None:
        """Note what has changed of a resource whose user exists."""

    @abstractmethod
    def begin(self, mark: Mark, password: Masked) -> None:
        """Note a new resource, and make its user; of one that was begun before, go on."""

    @abstractmethod
    def set_password(self, role: str, password: Masked) -> None:
        """Change a user's password, without sending it."""

    @abstractmethod
    def make_database(self, mark: Mark, database: str) -> None:
        """Make a database of a resource, with all that belongs to it; one that is complete is left alone."""

    @abstractmethod
    def configure(self, mark: Mark, before: Mapping[str, str]) -> None:
        """Give the databases of a resource its parameters in place of those before."""

    @abstractmethod
    def shut(self, mark: Mark) -> None:
        """Let the user of a resource in no more, and end his sessions."""

    @abstractmethod
    def unshut(self, mark: Mark) -> None:
        """Let the user of a resource in again."""

    @abstractmethod
    def drop_database(self, mark: Mark, database: str) -> None:
        """Drop a database of a resource, if it is there, also while it is used."""

    @abstractmethod
    def drop_role(self, mark: Mark) -> None:
        """Drop the user of a resource, and with him the note."""


class ServerEngine(ABC):
    """One engine: how to open sessions, and the programs that write and read databases."""

    access: Access

    @property
    @abstractmethod
    def name(self) -> Engine:
        """The engine."""

    @property
    @abstractmethod
    def features(self) -> DatabaseFeatures:
        """What databases on such a server can do."""

    @property
    @abstractmethod
    def default(self) -> str:
        """The database that clients name if nobody names one."""

    @abstractmethod
    def session(self) -> AbstractContextManager[Session]:
        """Connect."""

    @abstractmethod
    def dump(self, database: str, version: str) -> Command:
        """Return the program that writes a database, of a server of that version."""

    @abstractmethod
    def load(self, database: str, role: str, version: str) -> Command:
        """Return the program that reads what ``dump`` has written, for that user."""

    def for_user(self, pieces: Iterator[bytes], old: str, new: str) -> Iterator[bytes]:  # noqa: ARG002  names nobody
        """Return a dump of one user's database for another one's."""
        return pieces
