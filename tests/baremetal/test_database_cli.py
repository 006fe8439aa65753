"""``shiftable db`` on a private PostgreSQL, each command in a process of its own: the server runs when it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from shiftable.postgresql import find_binaries

FILE = """
[project]
name = "shop"
[environments.production]
provider = "local"
[providers.local]
type = "baremetal"
root = "data"
[secrets.app]
prefix = "shop"
[database.orders]
engine = "postgresql"
version = "{version}"
cpus = 1
memory_gib = 1
storage_gib = 10
databases = ["shop"]
password = {{ secret = "app/db/orders" }}
deletion_protection = false
"""


def test_a_server_is_made_asked_saved_restored_and_deleted(
    shiftable: Callable[..., CompletedProcess[str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binaries = find_binaries()
    monkeypatch.setenv("PATH", f"{binaries.folder}:{os.environ['PATH']}")
    (folder / "shiftable.toml").write_text(FILE.format(version=binaries.major))

    def say(*words: str, stdin: str = "") -> str:
        answer = shiftable(*words, stdin=stdin)
        assert 0 == answer.returncode, answer.stderr
        return answer.stdout

    say("apply", "secrets")
    assert "orders: created\n" == say("db", "create", "orders")
    password = say("secrets", "get", "app", "db/orders", "--reveal").strip()
    assert 40 == len(password)
    ask = ("--", "-XAtqc")
    assert "shiftadmin@shop\n" == say("db", "shell", "orders", *ask, "SELECT current_user || '@' || current_database()")
    say("db", "shell", "orders", *ask, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    assert "first\n" == say("db", "snapshot", "orders", "first")
    say("db", "shell", "orders", "--", "-XAtq", stdin="DROP TABLE t;")
    assert "copy: restored\n" == say("db", "restore", "orders", "copy", "--snapshot", "first")
    assert "1000\n" == say("db", "shell", "local:copy", "shop", "-XAtqc", "SELECT count(*) FROM t")
    assert "orders: deleted\n" == say("db", "delete", "orders", "--yes", "orders", "--no-final-snapshot")
    assert "copy: deleted\n" == say("db", "delete", "local:copy", "--yes", "copy", "--no-final-snapshot")
    assert "" == say("db", "list", "local")
