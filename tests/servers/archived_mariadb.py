"""A MariaDB server whose log is archived: its settings, a driver for it, and what tests ask its databases."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from shiftable.config import Credential
from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.testing.conformance.database import small_spec
from shiftable_baremetal import MariadbSettings
from shiftable_baremetal.database_servers import ServerDatabaseDriver, open_server

from .mysql_pair import MariaDb

__all__ = ["OPTIONS", "PROCESS", "ask", "declared", "driver_of", "numbers", "orders_with", "second"]

PROCESS = Path(__file__).with_name("mariadb_archiver_process.py")
"""Archives or restores until it is killed."""

OPTIONS = (
    "--innodb-flush-log-at-trx-commit=1",  # else a kill takes from the data what the log has
    "--sync-binlog=1",
    "--log-bin=office-bin",
    "--server-id=7",
    "--binlog-format=ROW",
    "--log-bin-trust-function-creators",
)


def driver_of(server: MariaDb, root: Path, **options: Any) -> ServerDatabaseDriver:
    known = {"user": "admin", "password": Credential.literal(server.password), "archive_days": 7, **options}
    return open_server(MariadbSettings(host="127.0.0.1", port=server.port, tls=False, **known), root)


def declared(name: str, **options: Any) -> DatabaseSpec:
    password = {key: options.pop(key) for key in ("password",) if key in options}
    return attrs.evolve(small_spec(name, **password), **{"engine": "mariadb", "version": "10", **options})


def ask(database: Database, query: str) -> Any:
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        connection.commit()
        return row[0] if row else None


def numbers(database: Database, table: str = "t") -> list[int]:
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT n FROM {table} ORDER BY n")  # noqa: S608  ours
        return [row[0] for row in cursor.fetchall()]


def second() -> datetime:
    """Return a time that begins a second: all before was in an earlier one, all after is in it."""
    time.sleep(1 - time.time() % 1)
    now = datetime.now(UTC).replace(microsecond=0)
    time.sleep(0.05)
    return now


def orders_with(databases: Databases, *rows: int) -> Database:
    """Make a database with a table that has some rows, each of its own transaction."""
    orders = databases.create(declared("orders"))
    ask(orders, "CREATE TABLE t (n INT PRIMARY KEY)")
    for row in rows:
        ask(orders, f"INSERT INTO t VALUES ({row})")  # noqa: S608  a number
    return orders
