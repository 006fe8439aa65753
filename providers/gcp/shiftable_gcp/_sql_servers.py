"""What the double's instances hold: users, accounts and databases, in a private PostgreSQL once somebody connects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from shiftable.postgresql import Cluster
from shiftable.testing.databases import PrivateServers

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["Contents", "Servers"]

_OURS = "postgres"  # the first user and the first database of a private server, which stay its own
_ROLE = "cloudsqlsuperuser"


@attrs.frozen
class Contents:
    """What a server has to have.

    Args:
        users: with their passwords.
        accounts: with their tokens.
        flags: as Cloud SQL names them.
    """

    users: Mapping[str, str | None]
    accounts: Mapping[str, str]
    databases: Collection[str]
    flags: Mapping[str, str]

    @property
    def logical(self) -> bool:
        """Whether users may replicate."""
        return self.flags.get("cloudsql.logical_decoding") == "on"

    @property
    def parameters(self) -> dict[str, str]:
        """What PostgreSQL itself is told."""
        own = {name: value for name, value in self.flags.items() if "." not in name}
        return own | ({"wal_level": "logical"} if self.logical else {})


class Servers:
    """The servers of all instances, by name. Those of MySQL have an address that nobody answers."""

    def __init__(self) -> None:
        self._private = PrivateServers()
        self._addresses: dict[str, str] = {}
        self._contents: dict[str, Callable[[], Contents]] = {}
        self._copied: dict[str, str | None] = {}

    def open(self, name: str, contents: Callable[[], Contents], *, postgresql: bool) -> None:
        """Listen at an address, with what was copied for it.

        Args:
            contents: asked whenever it counts.
        """
        self._contents[name] = contents
        if postgresql:
            self._open(name, self._copied.pop(name, None))
        else:
            self._addresses[name] = str(Path("/nonexistent") / name)

    def address(self, name: str) -> str:
        """Return where an instance is."""
        return self._addresses[name]

    def switch(self, name: str, *, on: bool, restarted: bool = False) -> None:
        """Stop an instance, or start it again."""
        if restarted:
            self._private.switch(name, on=False)
        self._private.switch(name, on=on)

    def arrange(self, name: str) -> None:
        """Make the users and databases of an instance what they are to be."""
        self._private.rearrange(name)

    def copy(self, source: str, target: str) -> None:
        """Have an instance that is still to be opened hold what another one does."""
        self._copied[target] = self.dump(source)

    def dump(self, name: str) -> str | None:
        """Return what a server holds, as SQL; ``None`` if nobody ever connected."""
        return self._private.dump(name)

    def fill(self, name: str, data: str | None) -> None:
        """Have an instance hold what was dumped, and nothing else."""
        if name in self._private_names:
            self._private.shut(name)
            self._open(name, data)

    def shut(self, name: str) -> None:
        """Delete the server of an instance."""
        self._private.shut(name)
        self._addresses.pop(name, None)
        self._contents.pop(name, None)

    def close(self) -> None:
        """Delete all of them."""
        self._private.close()
        for held in (self._addresses, self._contents, self._copied):
            held.clear()

    @property
    def _private_names(self) -> set[str]:
        return {name for name, address in self._addresses.items() if not address.startswith("/nonexistent")}

    def _open(self, name: str, data: str | None) -> None:
        contents = self._contents[name]
        address, _ = self._private.open(
            name,
            lambda cluster: _arrange(cluster, contents()),
            parameters=lambda: contents().parameters,
            data=data,
        )
        self._addresses[name] = address


def _arrange(cluster: Cluster, contents: Contents) -> None:
    """Make administrators as Google's are, who are no superusers, and databases of theirs."""
    from psycopg import sql

    with cluster.connect(autocommit=True) as connection:
        _make_role(connection, _ROLE, sql.SQL("nologin createdb createrole"))
        for user, password in {**contents.users, **contents.accounts}.items():
            if user != _OURS:
                may = sql.SQL("login createdb createrole {} password {}").format(
                    sql.SQL("replication" if contents.logical else "noreplication"), sql.Literal(password)
                )
                _make_role(connection, user, may)
                connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(_ROLE), sql.Identifier(user)))
        held = {name for (name,) in connection.execute("select datname from pg_database")}
        for database in sorted({*contents.databases} - held):
            made = sql.SQL("create database {} owner {}").format(sql.Identifier(database), sql.Identifier(_ROLE))
            connection.execute(made)


def _make_role(connection: Connection[Any], name: str, may: Any) -> None:  # noqa: ANN401  psycopg's composed SQL
    from psycopg import sql

    found = connection.execute("select from pg_roles where rolname = %s", (name,)).fetchone()
    verb = sql.SQL("create role {} " if found is None else "alter role {} ").format(sql.Identifier(name))
    connection.execute(verb + may)
