"""A database moves from one project of Google's to another by the command, and nothing of it differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from shiftable import load
from shiftable.database import Database
from shiftable.testing.databases import PATIENCE
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
service_account = {{ env = "SHOP_KEY" }}
[providers.paris]
type = "gcp"
endpoint = "{url}"
project = "another-project"
service_account = {{ env = "SHOP_KEY" }}
[database.orders]
engine = "postgresql"
version = "16"
cpus = 2
memory_gib = 8
storage_gib = 20
deletion_protection = false
databases = ["shop"]
password = {{ env = "SHOP_PASSWORD" }}
"""

Command = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def shop(folder: Path, gcp_double: GcpDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_KEY", gcp_double.config["service_account"].reveal())
    monkeypatch.setenv("SHOP_PASSWORD", "p@ss-w0rd")
    gcp_double.sql.polls = 0
    path = folder / "shiftable.toml"
    path.write_text(FILE.format(url=gcp_double.url, project=gcp_double.project))
    return path


def run(database: Database, statement: str) -> list[tuple[object, ...]]:
    engine = database.engine(connect_timeout=PATIENCE)
    with engine.begin() as connection:
        answer = connection.exec_driver_sql(statement)
        found = [tuple(row) for row in answer] if answer.returns_rows else []
    engine.dispose()
    return found


def test_a_database_moves_between_projects_with_an_administrator_who_is_no_superuser(
    shop: Path, gcp_double: GcpDouble, shiftable: Command
) -> None:
    made = shiftable("apply")
    assert 0 == made.returncode, made.stderr
    digest = "select count(*), sum(hashtext(t::text)::bigint) from orders t"
    with load(shop) as app:
        run(app.database("orders"), "create table orders (id int generated always as identity primary key, text text)")
        run(app.database("orders"), "insert into orders (text) select md5(n::text) from generate_series(1, 5000) n")
        before = run(app.database("orders"), digest)
    moved = shiftable("migrate", "--from", "berlin", "--to", "paris", "--apply", "--frozen")
    assert 0 == moved.returncode, moved.stdout + moved.stderr
    assert {(gcp_double.project, "orders"), ("another-project", "orders")} == set(gcp_double.sql.instances)
    shop.write_text(shop.read_text().replace('provider = "berlin"', 'provider = "paris"'))
    with load(shop) as app:
        assert before == run(app.database("orders"), digest)
        assert [(5001,)] == run(app.database("orders"), "insert into orders (text) values ('x') returning id")
    assert "p@ss-w0rd" not in moved.stdout + moved.stderr
