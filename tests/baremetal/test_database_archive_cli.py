"""The commands that archive a server, back it up, and restore a time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from shiftable.app import load
from shiftable.postgresql import Cluster

from .archived_server import BINARIES, MANAGER, now_in, serving

FILE = """
[project]
name = "shop"
[environments.production]
provider = "office"
[environments.production.overrides]
"blob.backups" = "here"
"secrets.app" = "here"
[providers.here]
type = "baremetal"
root = "data"
[providers.office]
type = "baremetal"
root = "unused"
[providers.office.postgresql]
host = "127.0.0.1"
port = {port}
tls = false
user = "manager"
password = {{ secret = "app/db/manager" }}
snapshots = {{ bucket = "backups", prefix = "office/" }}
archive_days = 7
programs = "{programs}"
[secrets.app]
prefix = "shop"
[blob.backups]
bucket = "shop-backups"
[database.orders]
engine = "postgresql"
version = "{version}"
cpus = 1
memory_gib = 1
storage_gib = 10
password = {{ secret = "app/db/orders" }}
deletion_protection = false
"""

Shiftable = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serving() as server:
        yield server


@pytest.fixture
def written(cluster: Cluster, folder: Path) -> Path:
    text = FILE.format(port=cluster.port, programs=cluster.binaries.folder, version=BINARIES.major)
    (folder / "shiftable.toml").write_text(text)
    return folder


def test_a_database_is_archived_backed_up_and_restored_to_a_time(
    shiftable: Shiftable, written: Path, cluster: Cluster
) -> None:
    def say(*words: str, stdin: str = "", code: int = 0) -> str:
        answer = shiftable(*words, stdin=stdin)
        assert code == answer.returncode, answer.stderr
        assert MANAGER not in f"{answer.stdout}{answer.stderr}"
        return answer.stdout if code == 0 else answer.stderr

    say("apply", "secrets.app", "blob.backups")
    say("secrets", "set", "app", "db/manager", stdin=MANAGER)
    say("apply")
    assert "start `shiftable db archive` first" in say("db", "backup", "office", code=1)
    program = Path(sys.executable).parent / "shiftable"
    command = [program, "db", "archive", "office", "--every", "1s", "--json"]
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    archiver = subprocess.Popen(command, cwd=written, stdin=nothing, stdout=pipe, stderr=pipe)
    try:
        assert archiver.stdout is not None
        first = json.loads(archiver.stdout.readline())
        assert {"provider", "until", "behind", "segment"} == set(first)
        name = say("db", "backup", "office").strip()
        with load(written) as app:
            engine = app.database("orders").engine()
            with engine.begin() as connection:
                connection.exec_driver_sql("CREATE TABLE t AS SELECT 1 AS a")
            when = now_in(cluster).isoformat()
            with engine.begin() as connection:
                connection.exec_driver_sql("DROP TABLE t")
            engine.dispose()
        assert "copy: restored\n" == say("db", "restore", "orders", "copy", "--at", when)
        assert [(1,)] == rows(cluster, "SELECT a FROM t", "copy--orders")
        listed = say("db", "backups", "office")
        assert listed.startswith(f"{name}\t20")
        assert name == json.loads(say("db", "backups", "office", "--json"))["name"]
        assert "restorable_from" in say("db", "show", "orders")
        archiver.send_signal(signal.SIGINT)
        _, said = archiver.communicate(timeout=120)
        assert 130 == archiver.returncode, said
        assert b"this goes on where it was" in said
    finally:
        archiver.kill()
        archiver.communicate()
    assert "say --yes" in say("db", "delete-backup", "office", name, code=2)
    assert f"{name}: deleted\n" == say("db", "delete-backup", "office", name, "--yes")
    assert "" == say("db", "backups", "office")
    assert "office: the server keeps its log no longer\n" == say("db", "archive", "office", "--end")
    assert [] == rows(cluster, "SELECT slot_name FROM pg_replication_slots")


def rows(cluster: Cluster, query: str, database: str = "postgres") -> list[tuple[object, ...]]:
    with cluster.connect(database) as connection:
        return connection.execute(query.encode()).fetchall()


def test_a_provider_without_an_archive_says_how_one_begins(shiftable: Shiftable, written: Path) -> None:
    file = written / "shiftable.toml"
    file.write_text(file.read_text().replace("archive_days = 7\n", ""))
    hint = ": archive_days of [providers.office.postgresql] begins an archive"
    at = "2026-01-01T00:00:00Z"
    for *command, lacks in (
        ("archive", "office", "archive of the server's log"),
        ("archive", "office", "--end", "archive of the server's log"),
        ("backup", "office", "archive of the server's log"),
        ("backups", "office", "base backups"),
        ("restore", "orders", "copy", "--at", at, "restore to a time"),
    ):
        answer = shiftable("db", *command)
        assert (1, True) == (answer.returncode, f"this provider has no {lacks}{hint}" in answer.stderr), answer.stderr
    answer = shiftable("db", "archive", "here")
    assert "has no archive of the server's log: backup_days of a database keeps what" in answer.stderr


def test_a_server_is_shown_though_its_archive_has_not_begun_or_cannot_be_reached(
    shiftable: Shiftable, written: Path
) -> None:
    shiftable("apply", "secrets.app", "blob.backups")
    shiftable("secrets", "put", "app", "db/manager", stdin=MANAGER)
    assert 0 == shiftable("apply").returncode
    answer = shiftable("db", "restore", "orders", "copy", "--at", "2026-01-01T00:00:00Z")
    assert (1, True) == (answer.returncode, "its log: `shiftable db archive` begins one" in answer.stderr)
    (written / "data/blob/shop-backups").rename(written / "away")
    for words in ((), ("--json",)):
        shown = shiftable("db", "show", "orders", *words)
        assert (1, True) == (shown.returncode, "bucket 'shop-backups' does not exist" in shown.stderr)
        assert "available" in shown.stdout
