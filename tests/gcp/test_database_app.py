"""An application has its database in Cloud SQL by configuration only, and the real command works there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import requests

from shiftable import App, load
from shiftable.errors import ConfigError
from shiftable.testing.databases import PATIENCE
from shiftable_gcp import GcpDatabaseSettings
from shiftable_gcp.double import GcpDouble

FILE = """
[project]
name = "shop"
[environments.development]
provider = "berlin"
[providers.berlin]
type = "gcp"
endpoint = "{url}"
project = "{project}"
region = "europe-west10"
service_account = {{ env = "SHOP_KEY" }}
[secrets.app]
prefix = "shop"
[database.orders]
engine = "postgresql"
version = "16"
cpus = 2
memory_gib = 8
storage_gib = 20
deletion_protection = false
databases = ["shop"]
labels = {{ team = "shop" }}
password = {{ secret = "app/orders-admin" }}
[database.orders.gcp]
zone = "europe-west10-a"
"""

Command = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def shop(folder: Path, gcp_double: GcpDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_KEY", gcp_double.config["service_account"].reveal())
    path = folder / "shiftable.toml"
    path.write_text(FILE.format(url=gcp_double.url, project=gcp_double.project))
    return path


def test_an_application_has_its_database_there_by_configuration_only(shop: Path, gcp_double: GcpDouble) -> None:
    gcp_double.sql.polls = 0
    with load(shop) as app:
        (declared,) = app.declared("database")
        spec: Any = app.spec(declared)
        assert GcpDatabaseSettings(zone="europe-west10-a") == spec.native
        (change,) = app.diff(declared)
        assert "create" == change.action
        app.apply(declared, change)
        orders = app.database("orders")
        orders.wait()
        assert () == app.diff(declared)
        engine = orders.engine(connect_timeout=PATIENCE)
        with engine.begin() as connection:
            connection.exec_driver_sql("create table orders (id int primary key)")
            found = connection.exec_driver_sql("select current_user, current_database()").all()
        engine.dispose()
        assert [("shiftadmin", "shop")] == found
        made = app.secrets("app").get("orders-admin").reveal()
    held = gcp_double.sql.instances[gcp_double.project, "orders"]
    assert made == held.users["shiftadmin"]["password"]  # it was made, and kept where the declaration says
    assert ("europe-west10", {"zone": "europe-west10-a"}) == (held.region, held.settings["locationPreference"])


def test_an_application_at_the_double_has_its_database_at_once_and_whole(
    shop: Path, shiftable_app: Callable[..., App]
) -> None:
    with contextlib.closing(shiftable_app("gcp").database("orders").connect(connect_timeout=PATIENCE)) as connection:
        cursor = connection.cursor()
        cursor.execute("select current_user, current_database()")
        assert ("shiftadmin", "shop") == cursor.fetchone()


def test_what_only_google_knows_is_checked_with_the_file(shop: Path) -> None:
    shop.write_text(shop.read_text().replace('zone = "europe', 'zoned = "europe'))
    with pytest.raises(ConfigError, match="zoned"), load(shop) as app:
        app.spec(app.declared("database")[0])


def test_the_command_returns_when_the_server_is_whole_and_tells_no_password(
    shop: Path, gcp_double: GcpDouble, shiftable: Command
) -> None:
    gcp_double.sql.polls = 0
    done = shiftable("apply")
    assert 0 == done.returncode, done.stderr
    held = gcp_double.sql.instances[gcp_double.project, "orders"]
    assert {"postgres", "shop"} == held.databases
    password = held.users["shiftadmin"]["password"]
    again = shiftable("apply", "--json")
    assert (0, []) == (again.returncode, json.loads(again.stdout)["changes"])
    said = f"{done.stdout}{done.stderr}{again.stdout}{again.stderr}{shop.read_text()}"
    journal = shop.parent / ".shiftable"
    said += "".join(path.read_text(errors="replace") for path in journal.rglob("*") if path.is_file())
    assert password not in said


def test_the_command_tells_why_a_server_could_not_be_made(
    shop: Path, gcp_double: GcpDouble, shiftable: Command
) -> None:
    gcp_double.sql.polls = 0
    gcp_double.sql.fail_next("CREATE", "QUOTA_EXCEEDED", "no more CPUs in europe-west10")
    failed = shiftable("apply")
    assert failed.returncode
    assert "no more CPUs in europe-west10" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_what_a_killed_command_began_the_next_one_finishes(
    shop: Path, gcp_double: GcpDouble, shiftable: Command
) -> None:
    gcp_double.sql.polls = 10**9  # so that nothing of it ends
    command = [str(Path(sys.executable).parent / "shiftable"), "apply"]
    with subprocess.Popen(command, cwd=shop.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as begun:
        while not any(call.operation == "sql.operations.get" for call in gcp_double.calls):
            assert begun.poll() is None
        begun.kill()
    held = gcp_double.sql.instances[gcp_double.project, "orders"]
    assert ("PENDING_CREATE", {"postgres"}) == (held.state, held.databases)
    gcp_double.sql.polls = 0
    for operation in held.operations:
        operation.polls = 0
    while held.state != "RUNNABLE":  # Google goes on meanwhile
        requests.get(f"{gcp_double.url}/v1/projects/{gcp_double.project}/instances/orders", timeout=10)
    done = shiftable("apply")
    assert 0 == done.returncode, done.stderr
    assert {"postgres", "shop"} == held.databases
    with load(shop) as app:
        assert app.secrets("app").get("orders-admin").reveal() == held.users["shiftadmin"]["password"]
        assert () == app.diff(app.declared("database")[0])


def test_the_commands_for_databases_work_there(shop: Path, gcp_double: GcpDouble, shiftable: Command) -> None:
    gcp_double.sql.polls = 0

    def answer(*arguments: str) -> str:
        done = shiftable(*arguments)
        assert 0 == done.returncode, (arguments, done.stderr)
        return done.stdout

    answer("db", "create", "orders")
    assert "orders" in answer("db", "list", "--long")
    assert "***@" in answer("db", "url", "orders")
    answer("db", "snapshot", "orders", "first")
    answer("db", "restore", "orders", "copy", "--snapshot", "first")
    assert [(gcp_double.project, name) for name in ("orders", "copy")] == list(gcp_double.sql.instances)
    answer("db", "resize", "orders", "--cpus", "4", "--memory-gib", "16")
    assert "db-custom-4-16384" == gcp_double.sql.instances[gcp_double.project, "orders"].settings["tier"]
    answer("db", "stop", "orders")
    answer("db", "delete", "orders", "--yes", "orders")
    assert [(gcp_double.project, "copy")] == list(gcp_double.sql.instances)
    kinds = sorted(backup.kind for backup in gcp_double.sql.backups.values())
    assert ["FINAL", "ON_DEMAND"] == kinds
