"""What a server of the double holds when somebody connects: users and databases as RDS for PostgreSQL makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shiftable.postgresql import Cluster

__all__ = ["arrange", "parameters"]

_ROLE = "rds_superuser"
_REPLICATION = "rds_replication"


def parameters(group: Mapping[str, str]) -> dict[str, str]:
    """Return what a parameter group means for a server of ours: few parameters are of PostgreSQL alone."""
    logical = {"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20"}
    plain = {name: value for name, value in group.items() if name in {"work_mem", "log_min_duration_statement"}}
    return plain | (logical if group.get("rds.logical_replication") == "1" else {})


def arrange(cluster: Cluster, data: Mapping[str, Any], password: Callable[[], str]) -> None:
    """Make the administrator, who is no superuser and may replicate, and the first database, which is his."""
    from psycopg import sql

    admin = data["MasterUsername"]
    with cluster.connect(autocommit=True) as connection:
        for role in (_ROLE, _REPLICATION):
            if connection.execute("select from pg_roles where rolname = %s", (role,)).fetchone() is None:
                connection.execute(sql.SQL("create role {} nologin").format(sql.Identifier(role)))
                if role == _ROLE:
                    connection.execute(
                        sql.SQL("grant pg_monitor, pg_signal_backend to {}").format(sql.Identifier(role))
                    )
        found = connection.execute("select from pg_roles where rolname = %s", (admin,)).fetchone()
        verb = sql.SQL("alter role {}" if found is not None else "create role {}").format(sql.Identifier(admin))
        # On RDS the right to replicate comes with rds_superuser's rds_replication; here it is the role's own.
        rights = sql.SQL(" login createdb createrole replication password {}").format(sql.Literal(password()))
        connection.execute(verb + rights)
        grant = sql.SQL("grant {}, {} to {}").format(*map(sql.Identifier, (_ROLE, _REPLICATION, admin)))
        connection.execute(grant)
        database = data.get("DBName", "postgres")
        if connection.execute("select from pg_database where datname = %s", (database,)).fetchone() is None:
            made = sql.SQL("create database {} owner {}").format(sql.Identifier(database), sql.Identifier(admin))
            connection.execute(made)
        owner = sql.SQL("alter database {} owner to {}").format(sql.Identifier(database), sql.Identifier(admin))
        connection.execute(owner)
