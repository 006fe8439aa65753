"""Where to connect to, with a password that does not show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import attrs

from shiftable.database._logins import Login
from shiftable.database._tls import system_certificates
from shiftable.database.driver import DatabaseInfo, Engine, Server
from shiftable.errors import ConfigError
from shiftable.masking import Masked

if TYPE_CHECKING:
    import sqlalchemy

__all__ = ["DatabaseUrl", "url_of"]

_DIALECTS: Mapping[Engine, str] = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}


@attrs.frozen(kw_only=True)
class DatabaseUrl:
    """A database's address: ``str()`` shows it without the password, ``reveal()`` with it.

    Args:
        host: a name, an address, or the folder (PostgreSQL) or path (MySQL) of a Unix socket.
        ca: file of certificates that the server's is checked against; ``None``: connect without TLS.
        check_name: whether the certificate has to bear the host's name, too.
        user: who connects, unless the login names somebody else.
        login: asked each time it is needed, since it may be a token that lives for minutes.
    """

    engine: Engine
    host: str
    port: int
    user: str
    database: str
    ca: str | None = None
    check_name: bool = True
    login: Callable[[], Login] = attrs.field(repr=False, eq=False)

    def reveal(self) -> str:
        """Return the URL with the password. Keep it out of logs."""
        login = self.login()
        return self._text(login.user or self.user, quote(login.password.reveal(), safe=""))

    def password(self) -> Masked:
        """Return the password that is good now."""
        return self.login().password

    def arguments(self) -> dict[str, Any]:
        """Return what psycopg's or PyMySQL's ``connect`` takes, all but the password."""
        if self.engine == "postgresql":
            where = {"host": self.host, "port": self.port, "dbname": self.database}
            return {**where, "user": self.user, **({} if self._is_socket else self._options)}
        where = {"unix_socket": self.host} if self._is_socket else {"host": self.host, "port": self.port}
        tls = {} if self.ca is None or self._is_socket else {"ssl": {"ca": self.ca, "check_hostname": self.check_name}}
        return {**where, "user": self.user, "database": self.database or None, **tls}

    def sqlalchemy(self) -> sqlalchemy.URL:
        """Return SQLAlchemy's URL, without the password: ``engine()`` puts it in for each new connection.

        Raises:
            ConfigError: SQLAlchemy is not installed.
        """
        try:
            from sqlalchemy import URL
        except ImportError as exc:
            raise ConfigError("this needs SQLAlchemy: pip install 'shiftable[sql]'") from exc
        return URL.create(
            _DIALECTS[self.engine],
            username=self.user,
            host=None if self._is_socket else self.host,
            port=self.port,
            database=self.database,
            query=self._options,
        )

    @property
    def _is_socket(self) -> bool:
        return self.host.startswith("/")

    @property
    def _options(self) -> dict[str, str]:
        """The rest of the connection, in the words of SQLAlchemy's dialects, which for PostgreSQL are libpq's."""
        postgresql = self.engine == "postgresql"
        if self._is_socket:
            return {"host" if postgresql else "unix_socket": self.host}
        if self.ca is None:
            return {}
        if postgresql:
            return {"sslmode": "verify-full" if self.check_name else "verify-ca", "sslrootcert": self.ca}
        return {"ssl_ca": self.ca, "ssl_check_hostname": "true" if self.check_name else "false"}

    def _text(self, who: str, password: str) -> str:
        options = f"?{urlencode(self._options)}" if self._options else ""
        host = "" if self._is_socket else f"[{self.host}]" if ":" in self.host else self.host
        user, database = quote(who, safe=""), quote(self.database, safe="")
        return f"{self.engine}://{user}:{password}@{host}:{self.port}/{database}{options}"

    def __str__(self) -> str:
        return self._text(self.user, "***")


def url_of(info: DatabaseInfo, server: Server, database: str, user: str, login: Callable[[], Login]) -> DatabaseUrl:
    """Make the URL of a database on a server; with TLS, the server's certificate and name are checked."""
    ca = None
    if server.tls:
        ca = str(server.ca) if server.ca else system_certificates(info.engine)
    return DatabaseUrl(
        engine=info.engine,
        host=server.host,
        port=server.port,
        user=user,
        database=database,
        ca=ca,
        check_name=server.check_name or server.ca is None,
        login=login,
    )
