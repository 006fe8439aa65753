"""An application whose databases are on a server of others: by ``shiftable.toml``, ``engine()`` and the commands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import attrs
import pytest
import sqlalchemy

from shiftable.app import load
from shiftable.config import BucketReference
from shiftable.database import Databases, DatabaseSpec
from shiftable.errors import ConfigError
from shiftable.postgresql import Cluster, all_binaries, temporary_cluster
from shiftable_baremetal import PostgresqlSettings
from shiftable_baremetal.database_servers import open_server

BINARIES = max((found for found in all_binaries() if (found.folder / "pg_restore").exists()), key=lambda it: it.major)
MANAGER = "the-manager's"

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
host = "{host}"
user = "manager"
password = {{ secret = "app/db/manager" }}
snapshots = {{ bucket = "backups", prefix = "office/" }}
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
databases = ["shop"]
parameters = {{ work_mem = "8MB" }}
password = {{ secret = "app/db/orders" }}
deletion_protection = false
[database.users]
engine = "postgresql"
version = "{version}"
cpus = 1
memory_gib = 1
storage_gib = 10
databases = ["shop"]
password = {{ secret = "app/db/users" }}
deletion_protection = false
"""

Shiftable = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with temporary_cluster(BINARIES) as server:
        with server.connect(autocommit=True) as connection:
            made = connection.pgconn.encrypt_password(MANAGER.encode(), b"manager", b"scram-sha-256").decode()
            connection.execute(f"CREATE ROLE manager LOGIN CREATEDB CREATEROLE PASSWORD '{made}'".encode())
        yield server


@pytest.fixture
def written(cluster: Cluster, folder: Path) -> Path:
    programs = cluster.binaries.folder
    text = FILE.format(host=cluster.host, programs=programs, version=cluster.binaries.major)
    (folder / "shiftable.toml").write_text(text)
    return folder


def test_an_application_uses_it_as_any_other(
    shiftable: Shiftable, written: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{cluster.binaries.folder}:{os.environ['PATH']}")

    def say(*words: str, stdin: str = "") -> str:
        answer = shiftable(*words, stdin=stdin)
        assert 0 == answer.returncode, answer.stderr
        assert MANAGER not in f"{answer.stdout}{answer.stderr}"
        return answer.stdout

    say("apply", "secrets.app", "blob.backups")
    say("secrets", "set", "app", "db/manager", stdin=MANAGER)
    say("apply")
    assert "office:orders\noffice:users\n" == say("db", "list", "office")
    with load(written) as app:
        for label in ("orders", "users"):
            engine = app.database(label).engine()
            with engine.begin() as connection:
                connection.execute(sqlalchemy.text("CREATE TABLE t AS SELECT :label AS of"), {"label": label})
            engine.dispose()
        engine = app.database("orders").engine()
        with engine.connect() as connection:
            assert "orders" == connection.execute(sqlalchemy.text("SELECT of FROM t")).scalar()
            assert "8MB" == connection.execute(sqlalchemy.text("SHOW work_mem")).scalar()
        engine.dispose()
        assert {"shop", "users--shop"} == {app.database(label).url().database for label in ("orders", "users")}
    ask = ("--", "-XAtqc")
    assert "users of users--shiftadmin\n" == say(
        "db", "shell", "users", *ask, "SELECT of || ' of ' || current_user FROM t"
    )
    assert "first\n" == say("db", "snapshot", "orders", "first")
    assert "copy: restored\n" == say("db", "restore", "orders", "copy", "--snapshot", "first")
    stored = sorted(str(path.relative_to(written / "data")) for path in (written / "data/blob").rglob("*.json"))
    assert ["blob/shop-backups/office/snapshots/orders/first.json"] == stored
    assert not (written / "unused").exists()
    say("db", "delete", "office:copy", "--yes", "copy", "--no-final-snapshot")
    for label in ("orders", "users"):
        say("db", "delete", label, "--yes", label)
    assert "" == say("db", "list", "office")
    assert 3 == len(list((written / "data/blob").rglob("snapshots/*/*.json")))


def test_a_bucket_that_is_not_declared_is_told_when_it_is_needed(written: Path) -> None:
    file = written / "shiftable.toml"
    file.write_text(file.read_text().replace('bucket = "backups"', 'bucket = "backup"'))
    with load(written) as app, pytest.raises(ConfigError, match="did you mean backups"):
        list(app.database("orders").snapshots())


def test_two_servers_for_one_provider_are_refused(written: Path) -> None:
    file = written / "shiftable.toml"
    file.write_text(file.read_text() + "\n[providers.office.mariadb]\n")
    with load(written) as app, pytest.raises(ConfigError, match="give each a provider"):
        app.database("orders")


def test_a_private_database_moves_to_it_and_another_server_takes_its_snapshot(
    shiftable: Shiftable, written: Path, cluster: Cluster
) -> None:
    def say(*words: str, stdin: str = "") -> str:
        answer = shiftable(*words, stdin=stdin)
        assert 0 == answer.returncode, answer.stdout + answer.stderr
        return answer.stdout

    say("apply", "secrets.app", "blob.backups")
    say("secrets", "set", "app", "db/manager", stdin=MANAGER)
    with load(written) as app:
        (spec, _) = (app.spec(declared) for declared in app.declared("database"))
        assert isinstance(spec, DatabaseSpec)
        here = app.cloud("here").database.create(spec)
        engine = here.engine()
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE t AS SELECT n, 'é' || n AS text FROM generate_series(1, 1000) AS n"
            )
            connection.exec_driver_sql("ALTER TABLE t ADD PRIMARY KEY (n)")
        engine.dispose()
        say("migrate", "--from", "here", "--to", "office", "database.orders", "--apply")
        there = app.database("orders").engine()
        with there.connect() as connection:
            assert (1000, "é7") == connection.exec_driver_sql(
                "SELECT count(*), min(text) FILTER (WHERE n = 7) FROM t"
            ).one()
            assert (
                "shiftadmin"
                == connection.exec_driver_sql("SELECT tableowner FROM pg_tables WHERE tablename = 't'").scalar()
            )
        there.dispose()
        app.database("orders").snapshot("moved")
        with temporary_cluster(BINARIES) as second:
            bucket = BucketReference("backups", app.blob, "office/")
            settings = PostgresqlSettings(host=second.host, snapshots=bucket, programs=BINARIES.folder)
            other = Databases(open_server(settings, written / "unused"))
            copy = other.open(spec).restore(attrs.evolve(spec, name="again"), snapshot="moved")
            with contextlib.closing(copy.connect()) as found, found.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM t")
                assert (1000,) == cursor.fetchone()
            assert "shop" == copy.url().database
        app.cloud("office").database.delete("orders", final_snapshot=False)
        app.cloud("here").database.delete("orders", final_snapshot=False)
