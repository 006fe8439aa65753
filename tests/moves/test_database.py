"""Databases move between two private servers, by the command: planned, moved, verified, and killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import shiftable
from shiftable.database import Database
from shiftable.postgresql import all_binaries

from .command import COMMAND

VERSION = max(found.major for found in all_binaries())
TOML = f"""
[project]
name = "shop"
[environments.development]
provider = "here"
[providers.here]
type = "baremetal"
root = "here"
[providers.there]
type = "baremetal"
root = "there"
[database.orders]
engine = "postgresql"
version = "{VERSION}"
cpus = 1
memory_gib = 1
storage_gib = 1
databases = ["orders", "stock"]
deletion_protection = false
"""
ROUTE = ("migrate", "--from", "here", "--to", "there")
APPLY = (*ROUTE, "--apply")
PATIENCE = 120


class Shop:
    """An application whose database is on one of two private servers of this machine."""

    def __init__(self, folder: Path) -> None:
        (folder / "shiftable.toml").write_text(TOML)
        self.folder = folder
        self.app = shiftable.load(folder / "shiftable.toml")
        (declared,) = self.app.declared("database")
        self.spec: Any = declared.spec

    def service(self, label: str) -> Any:
        return self.app.cloud(label).database

    def database(self, label: str) -> Database:
        found: Database = self.service(label).open(self.spec)
        return found

    def ask(self, label: str, *statements: str, database: str = "orders") -> list[tuple[Any, ...]]:
        """Carry out statements; return the last one's rows."""
        with psycopg.connect(**arguments(self.database(label), database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [COMMAND, *ROUTE, *options]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=300)


def arguments(database: Database, name: str) -> dict[str, Any]:
    url = database.url(name)
    return {**url.arguments(), "password": url.password().reveal()}


@pytest.fixture
def shop(folder: Path) -> Iterator[Shop]:
    found = Shop(folder)
    found.service("here").create(found.spec)
    yield found
    for label in ("here", "there"):
        for each in found.service(label).list():
            found.service(label).delete(each.name, final_snapshot=False)


ROWS = (
    "CREATE TABLE goods (id serial PRIMARY KEY, name text NOT NULL, at timestamptz DEFAULT now())",
    "INSERT INTO goods (name) SELECT md5(n::text) FROM generate_series(1, 20000) AS s (n)",
    "CREATE INDEX ON goods (name)",
    "SELECT lo_from_bytea(7, 'abc')",
)
SUMS = "SELECT count(*), md5(string_agg(id || name || at, ',' ORDER BY id)) FROM goods"


def test_the_command_makes_the_server_moves_everything_and_verifies(shop: Shop) -> None:
    shop.ask("here", *ROWS)
    shop.ask("here", "CREATE TABLE boxes (id int)", "INSERT INTO boxes VALUES (1), (2)", database="stock")

    planned = shop.run()
    assert 0 == planned.returncode, planned.stderr
    assert not list(shop.service("there").list())
    done = shop.run("--apply")
    assert 0 == done.returncode, done.stdout + done.stderr
    assert shop.ask("here", SUMS) == shop.ask("there", SUMS)
    assert [(1,), (2,)] == shop.ask("there", "SELECT id FROM boxes ORDER BY 1", database="stock")
    assert [(b"abc",)] == shop.ask("there", "SELECT lo_get(7)")
    assert 0 == shop.run("--verify").returncode

    shop.ask("there", "UPDATE goods SET name = 'x' || substr(name, 2) WHERE id = 777")
    found = shop.run("--verify")
    assert 1 == found.returncode
    assert "orders/public.goods" in found.stdout
    assert "only the source has the row at" in " ".join(found.stdout.split())


def test_a_command_that_is_killed_is_made_again(shop: Shop) -> None:
    shop.ask("here", *ROWS)
    shop.ask("here", *(f"CREATE TABLE t{n} AS TABLE goods" for n in range(40)))
    shop.service("there").create(shop.spec)
    shop.database("there").wait()
    killed = 0
    for marks in (1, 20):
        with subprocess.Popen(
            [COMMAND, *APPLY], cwd=shop.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as moving:
            if until(shop, marks, moving):
                os.kill(moving.pid, signal.SIGKILL)
                killed += 1
            moving.communicate(timeout=PATIENCE)

    assert 0 == shop.run("--apply").returncode
    assert killed >= 1
    for table in ("goods", "t0", "t39"):
        sums = SUMS.replace("goods", table)
        assert shop.ask("here", sums) == shop.ask("there", sums)
    assert 0 == shop.run("--verify").returncode


def until(shop: Shop, marks: int, moving: subprocess.Popen[bytes]) -> bool:
    """Wait until so many chunks have arrived; tell whether the move still went on then."""
    end = time.monotonic() + PATIENCE
    with psycopg.connect(**arguments(shop.database("there"), "orders"), autocommit=True) as watching:
        while moving.poll() is None:
            assert time.monotonic() < end
            made = watching.execute("SELECT to_regclass('shiftable_migrate.chunk') IS NOT NULL").fetchone()
            if made == (True,):
                try:
                    found = watching.execute("SELECT count(*) FROM shiftable_migrate.chunk").fetchone()
                except psycopg.errors.UndefinedTable:
                    continue
                if found is not None and found[0] >= marks:
                    return True
    return False
