# ruff: noqa: S608  names are the test's own
"""Two real servers, a database that is moved from one to the other, and writers that do not stop."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import attrs
import psycopg
from psycopg import sql

from shiftable.migrate._capture import Online, OnlineOptions, Server
from shiftable.postgresql import Cluster, temporary_cluster

PARAMETERS = {
    "wal_level": "logical",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "max_prepared_transactions": "5",
}
LEDGER = """
CREATE TABLE ledger (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, writer int, number int, note text);
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL, note text);
INSERT INTO account SELECT id, 1000, repeat(md5(id::text), 100) FROM generate_series(1, 50) AS id;
"""
DIGEST = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM ONLY {} AS t"
TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2
"""
MOVER = Path(__file__).with_name("capturing_mover.py")
_numbers = itertools.count(1)


@attrs.define
class Moving:
    """One database on two servers.

    Args:
        user, target_user: who moves it.
    """

    source: Cluster
    target: Cluster
    name: str
    folder: Path
    user: str = "postgres"
    target_user: str = "postgres"
    password: str = ""
    copies: list[str] = attrs.field(factory=list)

    def arguments(self, cluster: Cluster) -> dict[str, Any]:
        user = self.user if cluster is self.source else self.target_user
        if user == "postgres":
            return {"host": cluster.host, "port": cluster.port, "user": user, "dbname": self.name}
        found = {"host": "127.0.0.1", "port": cluster.port, "user": user, "dbname": self.name}
        return found | {"password": self.password}

    def server(self, cluster: Cluster) -> Server:
        label = "source" if cluster is self.source else "target"
        return Server(label, lambda: self.arguments(cluster))

    def online(self, **options: Any) -> Online:
        return Online(
            self.name,
            self.server(self.source),
            self.server(self.target),
            self.folder,
            copy=self.copy,
            options=OnlineOptions(**({"pause": 0.01, "patience": 30.0} | options)),
        )

    def on(self, cluster: Cluster) -> psycopg.Connection[Any]:
        """Connect as the superuser."""
        return cluster.connect(self.name, autocommit=True)

    def run(self, *statements: str) -> None:
        """Run on the source, each statement in a transaction of its own."""
        with self.on(self.source) as connection:
            for each in statements:
                connection.execute(each.encode())

    def both(self, *statements: str) -> None:
        for cluster in (self.source, self.target):
            with self.on(cluster) as connection:
                for each in statements:
                    connection.execute(each.encode())

    def ask(self, cluster: Cluster, statement: str) -> Any:
        with self.on(cluster) as connection:
            return connection.execute(statement.encode()).fetchall()

    def copy(self, snapshot: str) -> None:
        """Copy every row in a snapshot, anew each time; both sides have the schema already."""
        self.copies.append(snapshot)
        copy_rows(lambda: self.on(self.source), lambda: self.on(self.target), snapshot)

    def digests(self, cluster: Cluster) -> dict[str, Any]:
        """Ask a server for the content of each table; what it keeps of moves is left out."""
        found = {}
        with self.on(cluster) as connection:
            for schema, name in connection.execute(TABLES).fetchall():
                if schema != "shiftable_migrate":
                    digest = sql.SQL(DIGEST).format(sql.Identifier(schema, name))
                    found[f"{schema}.{name}"] = connection.execute(digest).fetchone()
        return found

    def verify(self) -> None:
        assert self.digests(self.source) == self.digests(self.target)

    def finish(self, online: Online | None = None) -> None:
        """Go the whole way, and see that nothing is left behind."""
        online = online or self.online()
        online.start()
        if online.status().phase == "following":
            online.follow()
        online.cutover(verify=self.verify, hand_over=lambda: None)
        self.verify()
        self.assert_clean()

    def assert_clean(self) -> None:
        mine = f"WHERE database = '{self.name}'"
        assert [] == self.ask(self.source, f"SELECT slot_name FROM pg_replication_slots {mine}")
        assert [] == self.ask(self.source, "SELECT pubname FROM pg_publication")
        assert [] == self.ask(self.target, "SELECT nspname FROM pg_namespace WHERE nspname = 'shiftable_migrate'")


def copy_rows(source: Callable[[], Any], target: Callable[[], Any], snapshot: str) -> None:
    """Copy all tables in a snapshot, without triggers."""
    with source() as here, target() as there:
        here.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        here.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        there.execute("SET session_replication_role = replica")
        names = [row for row in here.execute(TABLES).fetchall() if row[0] != "shiftable_migrate"]
        if names:
            listed = sql.SQL(", ").join(sql.Identifier(*row) for row in names)
            there.execute(sql.SQL("TRUNCATE {} CASCADE").format(listed))
        for schema, name in names:
            table = sql.Identifier(schema, name)
            columns = here.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
                " AND attgenerated = '' ORDER BY attnum",
                (table.as_string(here),),
            ).fetchall()
            listed = sql.SQL(", ").join(sql.Identifier(column) for (column,) in columns)
            out = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT").format(listed, table)
            into = sql.SQL("COPY {} ({}) FROM STDIN").format(table, listed)
            if columns:
                with here.cursor().copy(out) as reading, there.cursor().copy(into) as writing:
                    for block in reading:
                        writing.write(block)


@attrs.define
class Writer:
    """Writes to the source all the time, and knows what was committed: moves money, and books each transfer."""

    connect: Callable[[], psycopg.Connection[Any]]
    number: int
    committed: set[int] = attrs.field(factory=set)
    unsure: set[int] = attrs.field(factory=set)
    refused: int = 0
    _ended: threading.Event = attrs.field(factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._write, name=f"writer {self.number}")
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        assert self._thread is not None
        self._thread.join()

    def wait_for(self, count: int) -> None:
        """Wait until so many more transactions were committed."""
        wanted = len(self.committed) + count
        until = time.monotonic() + 60
        while len(self.committed) < wanted:
            assert time.monotonic() < until, "the writer does not come on"
            time.sleep(0.005)

    def _write(self) -> None:
        numbers = itertools.count(1)
        while not self._ended.is_set():
            try:
                with self.connect() as connection:
                    connection.execute("SET synchronous_commit = on")
                    while not self._ended.is_set():
                        self._transfer(connection, next(numbers))
            except (psycopg.errors.ReadOnlySqlTransaction, psycopg.OperationalError):
                self.refused += 1
                self._ended.wait(0.02)

    def _transfer(self, connection: psycopg.Connection[Any], number: int) -> None:
        debit, credit = 1 + number % 50, 1 + (number * 7 + self.number) % 50
        self.unsure.add(number)
        with contextlib.suppress(psycopg.errors.DeadlockDetected), connection.transaction():
            connection.execute("UPDATE account SET balance = balance - 1 WHERE id = %s", (debit,))
            connection.execute("UPDATE account SET balance = balance + 1 WHERE id = %s", (credit,))
            connection.execute("INSERT INTO ledger (writer, number) VALUES (%s, %s)", (self.number, number))
            if not number % 5:
                connection.execute("DELETE FROM ledger WHERE writer = %s AND number = %s", (self.number, number - 4))
        self.committed.add(number)
        self.unsure.discard(number)


def mover(move: Moving, **more: Any) -> subprocess.Popen[str]:
    """Start a mover as a process of its own; what it says of a failure is said in between."""
    process = subprocess.Popen(
        [sys.executable, str(MOVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    given = {
        "name": move.name,
        "folder": str(move.folder),
        "source": move.arguments(move.source),
        "target": move.arguments(move.target),
        "options": {"pause": 0.01, "patience": 60.0, "stop_patience": 60.0, "may_identify": True},
    }
    assert process.stdin is not None
    process.stdin.write(json.dumps(given | more) + "\n")
    process.stdin.close()
    process.stdin = None
    return process


@contextlib.contextmanager
def two_clusters(**parameters: str) -> Iterator[tuple[Cluster, Cluster]]:
    with (
        temporary_cluster(parameters=PARAMETERS | parameters, tcp=True) as source,
        temporary_cluster(parameters=PARAMETERS, tcp=True) as target,
    ):
        yield source, target


@contextlib.contextmanager
def moving(clusters: tuple[Cluster, Cluster], folder: Path, **more: Any) -> Iterator[Moving]:
    """Make an empty database on both, and drop it again."""
    source, target = clusters
    name = f"shop{next(_numbers)}"
    for cluster in clusters:
        with cluster.connect(autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield Moving(source, target, name, folder, **more)
    finally:
        for cluster in clusters:
            with cluster.connect(autocommit=True) as connection:
                for (slot,) in connection.execute(
                    "SELECT slot_name FROM pg_replication_slots WHERE database = %s", (name,)
                ).fetchall():
                    connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
