"""``shiftable db online`` between two private PostgreSQL servers, each step a process of its own, under a writer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from shiftable.app import load
from shiftable.database import Database
from shiftable.postgresql import find_binaries

FILE = """
[project]
name = "shop"
[environments.production]
provider = "old"
[providers.old]
type = "baremetal"
root = "old"
[providers.new]
type = "baremetal"
root = "new"
[database.orders]
engine = "postgresql"
version = "{version}"
cpus = 1
memory_gib = 1
storage_gib = 10
databases = ["shop"]
parameters = {{ wal_level = "logical" }}
[database.second]
engine = "postgresql"
version = "{version}"
cpus = 1
memory_gib = 1
storage_gib = 10
databases = ["a", "b"]
[database.other]
engine = "mariadb"
version = "11"
cpus = 1
memory_gib = 1
storage_gib = 10
"""

Step = Callable[..., CompletedProcess[str]]


@pytest.fixture
def online(
    shiftable: Callable[..., CompletedProcess[str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Step]:
    """Return ``shiftable db online LABEL --from old --to new``."""
    binaries = find_binaries()
    monkeypatch.setenv("PATH", f"{binaries.folder}:{os.environ['PATH']}")
    (folder / "shiftable.toml").write_text(FILE.format(version=binaries.major))
    yield lambda label, *more: shiftable("db", "online", label, *more, "--from", "old", "--to", "new")
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import shiftable; [d.stop() for p in ('old', 'new') for d in shiftable.load().cloud(p).database.list()]",
        ],
        cwd=folder,
        check=False,
        capture_output=True,
    )


@pytest.fixture
def source(online: Step, folder: Path) -> Database:
    """Return the old server, which has a table."""
    database = load(folder / "shiftable.toml").cloud("old").database
    spec = load(folder / "shiftable.toml").spec(load(folder / "shiftable.toml").declared("database")[0])
    database.create(spec).wait()
    handle = database.open(spec)
    run(handle, "CREATE TABLE ledger (id int PRIMARY KEY, note text)")
    run(handle, "INSERT INTO ledger SELECT n, 'before' FROM generate_series(1, 1000) AS n")
    return handle


def run(handle: Database, query: str, *values: object) -> None:
    with contextlib.closing(handle.connect("shop")) as connection:
        connection.cursor().execute(query, values)
        connection.commit()


def answer(handle: Database, query: str) -> object:
    with contextlib.closing(handle.connect("shop")) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return cursor.fetchone()[0]


def said(done: CompletedProcess[str]) -> str:
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_a_database_moves_step_by_step_under_a_writer(online: Step, source: Database, folder: Path) -> None:
    assert "it is new" in said(online("orders"))
    assert "nothing stands in the way" in said(online("orders", "check"))
    stop, written = threading.Event(), [1000]

    def write() -> None:
        while not stop.wait(0.01):
            run(source, "INSERT INTO ledger VALUES (%s, 'meanwhile')", written[0] + 1)
            written[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert "it is following" in said(online("orders", "start"))
        brought, then = said(online("orders", "follow")).splitlines()
        assert "behind" in brought
        assert brought.endswith("had when this began, and not what was written since")
        assert then.startswith("next: follow, and cutover when the application may stand still")
        assert "cutover" in json.loads(said(online("orders", "follow", "--json")))["next"]
    finally:
        stop.set()
        writer.join()
    flag = folder / "switched"
    told = json.loads(said(online("orders", "cutover", "--json", "--run", f"touch {flag}")))
    assert told["stopped"] >= 0
    assert flag.exists()
    assert {"phase": "done", "next": "nothing"} == json.loads(said(online("orders", "--json")))
    assert "it is done; next: nothing\n" == said(online("orders", "start"))
    target = load(folder / "shiftable.toml").cloud("new").database.get("orders")
    assert written[0] == answer(target, "SELECT count(*) FROM ledger")
    assert 0 == answer(source, "SELECT count(*) FROM pg_replication_slots")
    assert "on" == answer(source, "SHOW default_transaction_read_only")
    target.stop()
    source.stop()


def test_a_move_goes_back_and_a_command_that_fails_hands_nothing_over(
    online: Step, source: Database, folder: Path
) -> None:
    said(online("orders", "start"))
    failed = online("orders", "cutover", "--run", "false")
    assert 1 == failed.returncode
    assert "false ended with 1" in failed.stderr
    assert "it is verified; next: cutover, or rollback" in said(online("orders"))
    assert "may be written as before" in said(online("orders", "rollback"))
    run(source, "INSERT INTO ledger VALUES (0, 'after')")
    assert 0 == answer(source, "SELECT count(*) FROM pg_replication_slots")
    assert "it is new" in said(online("orders"))
    source.stop()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("nowhere",), "nowhere"),
        (("second",), "choose one by --database a|b"),
        (("second", "--database", "c"), "has no database 'c'"),
        (("other",), "only PostgreSQL"),
        (("orders", "start", "--max-retained", "many"), "is no size"),
    ],
    ids=["label", "several", "database", "engine", "size"],
)
def test_wrong_usage_is_one_sentence(online: Step, arguments: tuple[str, ...], why: str) -> None:
    done = online(*arguments)
    assert 2 == done.returncode, done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
