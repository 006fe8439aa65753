"""Databases move between servers that talk to nobody in clear, and that prove who they are."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pymysql
import pytest
from psycopg import sql

import shiftable
from shiftable.database import Database
from shiftable.postgresql import Cluster, all_binaries, temporary_cluster

from ..certificates import certificate
from ..moves.command import COMMAND
from .conftest import Debian
from .mysql_pair import MariaDb, maria_db

pytestmark = pytest.mark.usefixtures("programs_find_their_libraries")

PASSWORD = "a manager's"
FILE = """
[project]
name = "shop"
[environments.production]
provider = "old"
[environments.production.overrides]
"secrets.app" = "here"
[providers.here]
type = "baremetal"
root = "here"
[secrets.app]
[providers.old]
type = "baremetal"
root = "old"
[providers.old.{kind}]
host = "localhost"
port = {old}
user = "manager"
password = {{ env = "MANAGER" }}
ca_bundle = "old.pem"
[providers.new]
type = "baremetal"
root = "new"
[providers.new.{kind}]
host = "localhost"
port = {new}
user = "manager"
password = {{ env = "MANAGER" }}
ca_bundle = "new.pem"
[database.orders]
engine = "{kind}"
version = "{version}"
cpus = 1
memory_gib = 1
storage_gib = 1
databases = ["orders"]
password = {{ secret = "app/orders" }}
deletion_protection = false
"""


@attrs.frozen
class Shop:
    """An application whose database is on one of two servers."""

    folder: Path

    def database(self, label: str) -> Database:
        app = shiftable.load(self.folder / "shiftable.toml")
        (declared,) = app.declared("database")
        found: Database = app.cloud(label).database.open(app.spec(declared, label))
        return found

    def ask(self, label: str, *statements: str) -> list[tuple[Any, ...]]:
        """Carry out statements; return the last one's rows."""
        with contextlib.closing(self.database(label).connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            rows = list(cursor.fetchall()) if cursor.description else []
            connection.commit()
            return rows

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *words],
            cwd=self.folder,
            env={**os.environ, "MANAGER": PASSWORD},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def refuse(self, *words: str) -> None:
        """See that nothing is done with a server that another one stands in for, on either side."""
        for side, other in (("old", "new"), ("new", "old")):
            file = self.folder / f"{side}.pem"
            own = file.read_bytes()
            shutil.copy(self.folder / f"{other}.pem", file)
            done = self.run(*words)
            file.write_bytes(own)
            assert 1 == done.returncode
            assert f"({side})" in done.stderr
            assert re.search("certificate verify failed.*; `ca_bundle` names the authorities", done.stderr)
            assert "Traceback" not in done.stderr

    def said(self, *words: str) -> str:
        done = self.run(*words)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout


def shop(folder: Path, kind: str, version: str, ports: tuple[int, int]) -> Shop:
    """Write the file, and make what it declares."""
    old, new = ports
    (folder / "shiftable.toml").write_text(FILE.format(kind=kind, version=version, old=old, new=new))
    found = Shop(folder)
    found.said("apply")
    return found


def cert(folder: Path, name: str) -> tuple[Path, Path]:
    """Make the certificate of a server, which is its own authority."""
    made, key = certificate(folder / f"of-{name}", "localhost", None)
    shutil.copy(made, folder / f"{name}.pem")
    return made, key


# PostgreSQL

RULES = "local all postgres trust\nhostssl all all all scram-sha-256\nhostssl replication all all scram-sha-256\n"


@contextlib.contextmanager
def postgresql(folder: Path, name: str) -> Iterator[Cluster]:
    """Run a server that wants TLS, and whose manager is no superuser."""
    made, key = cert(folder, name)
    with temporary_cluster(all_binaries()[0], parameters={"wal_level": "logical"}, tcp=True) as cluster:
        for path, there in ((made, "server.crt"), (key, "server.key")):
            shutil.copy(path, cluster.data / there)
            (cluster.data / there).chmod(0o600)
            cluster.owner.take(cluster.data / there)
        rules = (
            "local all postgres trust\nhostssl all all all scram-sha-256\nhostssl replication all all scram-sha-256\n"
        )
        (cluster.data / "pg_hba.conf").write_text(rules)
        with cluster.connect(autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET ssl = on")
            rights = "LOGIN CREATEDB CREATEROLE REPLICATION"
            connection.execute(sql.SQL(f"CREATE ROLE manager {rights} PASSWORD {{}}").format(sql.Literal(PASSWORD)))
            connection.execute("GRANT pg_signal_backend, pg_read_all_stats TO manager")
            connection.execute("SELECT pg_reload_conf()")
        yield cluster


@pytest.fixture
def postgresqls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("MANAGER", PASSWORD)
    with postgresql(tmp_path, "old") as old, postgresql(tmp_path, "new") as new:
        for server in (old, new):
            where: Any = {"host": "localhost", "port": server.port, "user": "manager", "password": PASSWORD}
            with pytest.raises(psycopg.OperationalError, match="no encryption"):
                psycopg.connect(**where, dbname="postgres", sslmode="disable")
        found = shop(tmp_path, "postgresql", str(old.binaries.major), (old.port, new.port))
        found.ask(
            "old",
            "CREATE TABLE goods (id serial PRIMARY KEY, name text NOT NULL)",
            "INSERT INTO goods (name) SELECT md5(n::text) FROM generate_series(1, 20000) AS s (n)",
            "CREATE INDEX ON goods (name)",
            "SELECT lo_from_bytea(7, 'abc')",
        )
        with old.connect(autocommit=True) as connection:
            connection.execute("ALTER ROLE shiftadmin WITH REPLICATION")  # what moving online asks of the owner
        yield found


SUMS = "SELECT count(*), md5(string_agg(id || name, ',' ORDER BY id)) FROM goods"
ROUTE = ("--from", "old", "--to", "new")


def test_a_postgresql_moves_when_both_prove_themselves(postgresqls: Shop) -> None:
    postgresqls.refuse("migrate", *ROUTE, "--apply")
    assert "create" in postgresqls.said("migrate", *ROUTE)
    postgresqls.said("migrate", *ROUTE, "--apply")
    assert postgresqls.ask("old", SUMS) == postgresqls.ask("new", SUMS)
    assert [(b"abc",)] == postgresqls.ask("new", "SELECT lo_get(7)")
    postgresqls.said("migrate", *ROUTE, "--verify")


def test_a_postgresql_moves_while_it_is_written_to(postgresqls: Shop) -> None:
    postgresqls.refuse("db", "online", "orders", *ROUTE, "start")
    for step in ("start", "follow", "cutover"):
        postgresqls.said("db", "online", "orders", *ROUTE, step)
        if step == "start":
            change = "UPDATE goods SET name = 'x' WHERE id = 7"
            postgresqls.ask("old", "INSERT INTO goods (name) VALUES ('later')", change)

    assert postgresqls.ask("old", SUMS) == postgresqls.ask("new", SUMS)
    assert [("x",)] == postgresqls.ask("new", "SELECT name FROM goods WHERE id = 7")


# MariaDB


@contextlib.contextmanager
def mariadb(debian: Debian, folder: Path, name: str) -> Iterator[MariaDb]:
    """Run a server that wants TLS, with a manager."""
    made, key = cert(folder, name)
    for path in (made, key):
        path.chmod(0o644)
    options = (f"--ssl-cert={made}", f"--ssl-key={key}", "--require-secure-transport")
    with maria_db(debian, folder / f"server-{name}", *options) as server:
        server.execute(
            f"CREATE USER manager@'127.0.0.1' IDENTIFIED BY \"{PASSWORD}\"",
            "GRANT ALL PRIVILEGES ON *.* TO manager@'127.0.0.1' WITH GRANT OPTION",
        )
        yield server


@pytest.fixture
def mariadbs(debian: Debian, _somebody_else: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("MANAGER", PASSWORD)
    with mariadb(debian, tmp_path, "old") as old, mariadb(debian, tmp_path, "new") as new:
        for server in (old, new):
            with pytest.raises(pymysql.err.OperationalError, match="denied|secure"):
                server.execute("SELECT 1", ssl_disabled=True)
        found = shop(tmp_path, "mariadb", "10", (old.port, new.port))
        found.ask(
            "old",
            "CREATE TABLE goods (id int AUTO_INCREMENT PRIMARY KEY, name varchar(40) NOT NULL)",
            "INSERT INTO goods (name) SELECT md5(seq) FROM seq_1_to_20000",
            "CREATE VIEW names AS SELECT name FROM goods",
        )
        yield found


ROWS = "SELECT count(*), sum(crc32(concat(id, name))) FROM goods"


def test_a_mariadb_moves_when_both_prove_themselves(mariadbs: Shop) -> None:
    mariadbs.refuse("migrate", *ROUTE, "--apply")
    assert "create" in mariadbs.said("migrate", *ROUTE)
    mariadbs.said("migrate", *ROUTE, "--apply")
    assert mariadbs.ask("old", ROWS) == mariadbs.ask("new", ROWS)
    assert [(20_000,)] == mariadbs.ask("new", "SELECT count(*) FROM names")
    mariadbs.said("migrate", *ROUTE, "--verify")
