"""What is done inside a private server, as its superuser: the administrator, databases, parameters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shiftable.errors import Fault, InvalidArgument, Unavailable
from shiftable.masking import Masked
from shiftable.postgresql import Cluster, ClusterError
from shiftable_baremetal._faults import FilesError

if TYPE_CHECKING:
    import psycopg

__all__ = ["arrange", "configure", "make_databases"]

_SUPERUSER = "postgres"


def arrange(cluster: Cluster, admin: str, password: Masked) -> None:
    """Make the administrator, if need be, and set his password: the server gets its verifier, not the password.

    As in the clouds, the database ``postgres`` is his: who declares no other one works there.
    """
    from psycopg import sql

    name = sql.Identifier(admin)
    with cluster.connect(autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [admin]).fetchone():
            connection.execute(sql.SQL("CREATE ROLE {}").format(name))
            connection.execute(sql.SQL("ALTER DATABASE postgres OWNER TO {}").format(name))
        verifier = connection.pgconn.encrypt_password(password.reveal().encode(), admin.encode(), b"scram-sha-256")
        rights = sql.SQL("ALTER ROLE {} LOGIN CREATEDB CREATEROLE REPLICATION PASSWORD {}")
        connection.execute(rights.format(name, sql.Literal(verifier.decode())))
        if admin != _SUPERUSER:
            connection.execute(sql.SQL("GRANT pg_monitor, pg_signal_backend TO {} WITH ADMIN OPTION").format(name))


def make_databases(cluster: Cluster, names: Sequence[str], admin: str) -> None:
    """Make the databases that are not there, whose owner is the administrator."""
    from psycopg import sql

    if not names:
        return
    with cluster.connect(autocommit=True) as connection:
        known = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for name in names:
            if name not in known:
                parts = (sql.Identifier(name), sql.Identifier(admin))
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*parts))


def configure(cluster: Cluster, parameters: Mapping[str, str]) -> None:
    """Have a running server take parameters, and restart it if one of them needs that; or leave all as it was."""
    before = cluster.parameters
    changed = sorted(name for name in {*before, *parameters} if before.get(name) != parameters.get(name))
    if not changed:
        return
    with cluster.connect(autocommit=True) as connection:
        query = "SELECT lower(name), context FROM pg_settings WHERE lower(name) = ANY(%s)"
        contexts = dict(connection.execute(query, [[name.lower() for name in changed]]).fetchall())
    unknown = [name for name in changed if name.lower() not in contexts and "." not in name]
    if unknown:
        raise FilesError(Fault(InvalidArgument, f"PostgreSQL has no parameter {', '.join(unknown)}"))
    cluster.parameters = parameters
    try:
        if "postmaster" in contexts.values():
            cluster.stop()
            cluster.start()
        else:
            _reload(cluster, changed)
    except BaseException:
        cluster.parameters = before
        cluster.reload()
        cluster.start()
        raise


def _reload(cluster: Cluster, changed: Sequence[str]) -> None:
    with cluster.connect(autocommit=True) as connection:
        began = _loaded(connection)
        cluster.reload()
        end = time.monotonic() + 60
        while _loaded(connection) == began:
            if time.monotonic() > end:
                raise FilesError(Fault(Unavailable, "the server does not read its parameters"))
            time.sleep(0.01)
        query = "SELECT name, setting FROM pg_file_settings WHERE error IS NOT NULL AND name = ANY(%s)"
        refused = connection.execute(query, [list(changed)]).fetchall()
    if refused:
        listed = ", ".join(f"{name} = {value!r}" for name, value in refused)
        raise ClusterError(f"invalid value for parameter: {listed}")


def _loaded(connection: psycopg.Connection[Any]) -> object:
    return connection.execute("SELECT pg_conf_load_time()").fetchone()
