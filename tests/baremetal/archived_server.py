"""A PostgreSQL server with a user who may replicate, a driver for it, and an archiver that runs in a thread."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from shiftable.config import BucketReference, Credential
from shiftable.database import ArchiveProgress, Database, Databases, DatabaseSpec
from shiftable.postgresql import Binaries, Cluster, all_binaries, temporary_cluster
from shiftable.testing.conformance.database import small_spec
from shiftable_baremetal import PostgresqlSettings
from shiftable_baremetal.database_servers import ServerDatabaseDriver, open_server

__all__ = [
    "BINARIES",
    "CANARY",
    "MANAGER",
    "act",
    "archiving",
    "archiving_until_killed",
    "ask",
    "driver_of",
    "now_in",
    "serving",
    "spec_of",
    "stored",
    "whole_segments",
    "within",
]

_NEEDED = ("postgres", "initdb", "pg_resetwal", "pg_restore", "pg_basebackup", "pg_receivewal")
BINARIES: Binaries = max(all_binaries(programs=_NEEDED), key=lambda it: it.major)
MANAGER = "m4n4ger's \\canary:é"
CANARY = "c4n4ry-p@ss/w:rd%é"
PATIENCE = 120
"""Seconds after which what has not happened never will."""


@contextlib.contextmanager
def serving(**parameters: str) -> Iterator[Cluster]:
    """Run a server whose manager may make roles and databases, and replicate; he is no superuser."""
    with temporary_cluster(BINARIES, tcp=True, parameters=parameters) as server:
        with server.connect(autocommit=True) as connection:
            made = connection.pgconn.encrypt_password(MANAGER.encode(), b"manager", b"scram-sha-256").decode()
            rights = "LOGIN CREATEDB CREATEROLE REPLICATION"
            connection.execute(f"CREATE ROLE manager {rights} PASSWORD '{made}'".encode())
        yield server


def driver_of(
    cluster: Cluster, root: Path, bucket: BucketReference | None = None, **options: Any
) -> ServerDatabaseDriver:
    """Return a driver as another process, or another machine with a root of its own, would have it."""
    settings = PostgresqlSettings(
        host="127.0.0.1",
        port=cluster.port,
        tls=False,
        user="manager",
        password=Credential.literal(MANAGER),
        programs=cluster.binaries.folder,
        snapshots=bucket,
        **{"archive_days": 7, **options},
    )
    return open_server(settings, root)


def spec_of(name: str, **fields: Any) -> DatabaseSpec:
    """Declare a database that the server can hold."""
    return attrs.evolve(small_spec(name, password=CANARY), **{"version": str(BINARIES.major), **fields})


def within(probe: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not probe():
        assert time.monotonic() < end, f"waited {PATIENCE} s for {what}"
        time.sleep(0.02)


def ask(database: Database, query: str) -> Any:
    """Ask a database as its user does."""
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone() if cursor.description else None
        connection.commit()
        return row[0] if row else None


def act(cluster: Cluster, statement: str, database: str = "postgres") -> Any:
    """Act as the server's superuser."""
    with cluster.connect(database, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else None


def stored(root: Path, folder: str) -> list[str]:
    """Return the names of what is stored, past the driver."""
    place = root / "snapshots" / "server" / folder
    return sorted(each.name for each in place.iterdir()) if place.is_dir() else []


def whole_segments(root: Path) -> list[str]:
    """Return the names of the segments that are stored whole."""
    return [name.removesuffix(".gz") for name in stored(root, "wal") if len(name) == len("0" * 24 + ".gz")]


def now_in(cluster: Cluster) -> datetime:
    """Return the server's time: later than all commits before, earlier than all after."""
    time.sleep(0.01)
    with cluster.connect() as connection:
        row: Any = connection.execute("SELECT clock_timestamp()").fetchone()
    time.sleep(0.01)
    return row[0].astimezone(UTC)  # type: ignore[no-any-return]  # a datetime


@contextlib.contextmanager
def archiving(databases: Databases, every: timedelta = timedelta(0), **options: Any) -> Iterator[list[ArchiveProgress]]:
    """Archive in another thread until the end of the block; hand out what it tells, of which there is something."""
    ended, told, failed = threading.Event(), [], []

    def archive() -> None:
        try:
            databases.archive(every=every, on_progress=told.append, stopped=ended.is_set, **options)
        except Exception as exc:  # noqa: BLE001  raised below, in the test's own thread
            failed.append(exc)

    thread = threading.Thread(target=archive, name="archiver")
    thread.start()
    try:
        within(lambda: bool(told or failed), "the archiver")
        if not failed:
            yield told
    finally:
        ended.set()
        thread.join()
    if failed:
        raise failed[0]


@contextlib.contextmanager
def archiving_until_killed(program: Path, orders: Mapping[str, Any], told: int) -> Iterator[None]:
    """Archive in a process of its own; the block begins when that has told so much, and ends with kill -9."""
    with subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(orders).encode() + b"\n")
            process.stdin.flush()
            for _ in range(told):
                assert process.stdout.readline()
            yield
        finally:
            process.kill()
            process.communicate()
