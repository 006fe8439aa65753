"""An application whose database is in Azure by configuration only: SQL, snapshots, other passwords, tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

import shiftable
from shiftable.config import Credential
from shiftable.database import Database, DatabaseSpec
from shiftable.testing.databases import PATIENCE
from shiftable_azure import AzureProvider
from shiftable_azure.double import AzureDouble

from .projects import command, project

PASSWORD = "Ab3-" + "canary" * 3
TOML = """
[project]
name = "shop"
[environments.development]
provider = "here"
[environments.production]
provider = "there"
[providers.here]
type = "memory"
[providers.there]
type = "azure"
subscription = "{subscription}"
resource_group = "{resource_group}"
location = "{location}"
arm_endpoint = "{arm_endpoint}"
database_endpoint = "{database_endpoint}"
[database.orders]
engine = "postgresql"
version = "16"
cpus = 2
memory_gib = 8
storage_gib = 20
deletion_protection = false
databases = ["shop"]
parameters = {{ work_mem = "8192" }}
password = {{ env = "ORDERS_PASSWORD" }}
[database.orders.azure]
zone = "2"
"""


@pytest.fixture
def folder(azure_double: AzureDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project that reaches Azure with the double's managed identity: no credential is in the file."""
    text = TOML.format(**azure_double.config)
    return project(tmp_path, text, azure_double, monkeypatch, ORDERS_PASSWORD=PASSWORD)


@pytest.fixture
def orders(folder: Path, azure_double: AzureDouble) -> Iterator[Database]:
    with shiftable.load(folder, environment="production") as app:
        carry_out(app)
        database = app.database("orders")
        database.wait()
        yield database
    azure_double.databases.reset()


def carry_out(app: shiftable.App) -> None:
    """Do what makes the resources what they are declared to be."""
    for declared in app.declared():
        for change in app.diff(declared):
            app.apply(declared, change)


def rows(database: Database, query: str) -> list[tuple[object, ...]]:
    engine = database.engine(connect_timeout=PATIENCE)
    try:
        with engine.begin() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(query))]
    finally:
        engine.dispose()


def test_a_line_of_the_file_puts_the_database_into_azure(orders: Database, azure_double: AzureDouble) -> None:
    held = azure_double.databases.server("orders")
    assert orders.info().state == "available"
    assert (held.sku["name"], held.properties["availabilityZone"]) == ("Standard_D2ds_v5", "2")
    assert held.configurations["work_mem"]["value"] == "8192"
    assert "GetToken" in {call.operation for call in azure_double.calls}
    assert "canary" not in f"{azure_double.calls} {orders!r} {orders.url()}"


def test_the_engine_reaches_a_real_postgresql(orders: Database) -> None:
    found = rows(orders, "select current_user, current_database(), current_setting('work_mem')")
    assert found == [("shiftadmin", "shop", "8MB")]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**{**orders.url().arguments(), "password": "wrong"})


def test_a_snapshot_holds_what_there_was(orders: Database) -> None:
    engine = orders.engine(connect_timeout=PATIENCE)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table items as select 1 as id"))
    orders.snapshot("before")
    orders.wait()
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("insert into items values (2)"))
    engine.dispose()
    restored = orders.restore("orders-again", snapshot="before")
    restored.wait()
    assert rows(restored, "select id from items") == [(1,)]
    assert rows(orders, "select id from items order by id") == [(1,), (2,)]


def test_another_password_counts_at_the_server(orders: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(orders, "select 1") == [(1,)]
    monkeypatch.setenv("ORDERS_PASSWORD", PASSWORD + "2")
    orders.set_password(PASSWORD + "2")
    orders.wait()
    assert rows(orders, "select 2") == [(2,)]


def test_a_parameter_that_needs_a_restart_counts_after_it(folder: Path, orders: Database) -> None:
    assert rows(orders, "show wal_level") == [("replica",)]
    text = (folder / "shiftable.toml").read_text().replace('work_mem = "8192"', 'wal_level = "logical"')
    (folder / "shiftable.toml").write_text(text)
    with shiftable.load(folder, environment="production") as app:
        carry_out(app)
        database = app.database("orders")
        assert database.wait().restart_needed
        database.restart()
        assert not database.wait().restart_needed
        assert rows(database, "show wal_level") == [("logical",)]


def test_a_stopped_server_says_so_to_who_connects(orders: Database) -> None:
    orders.stop()
    orders.wait("stopped")
    with pytest.raises(psycopg.OperationalError, match="stopped"):
        orders.connect(connect_timeout=PATIENCE)
    orders.start()
    orders.wait()
    assert rows(orders, "select 1") == [(1,)]


def test_the_command_line_shows_the_database(folder: Path, orders: Database) -> None:
    def said(*arguments: str) -> str:
        done = command(folder, *arguments)
        assert done.returncode == 0, done.stderr
        assert "canary" not in done.stdout + done.stderr
        return done.stdout

    assert "orders" in said("db", "list")
    assert "postgresql://shiftadmin:***@" in said("db", "url", "orders")
    assert orders.info().state == "available"


# tokens of Microsoft Entra


def token_of(**claims: object) -> str:
    """Return a token as Entra makes them, with nobody's signature."""
    parts = ({"alg": "none"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def test_a_token_says_whose_it_is(azure_double: AzureDouble) -> None:
    for claims, user in (
        ({"upn": "anna@shop.example"}, "anna@shop.example"),
        ({"unique_name": "bert@shop.example"}, "bert@shop.example"),
        ({"oid": "0A00"}, "shop-identity"),
    ):
        cloud = shiftable.connect(
            "azure", **{**azure_double.config, "database_token": Credential.literal(token_of(**claims))}
        )
        with cloud:
            if user == "shop-identity":
                _make_with_administrator(cloud.unwrap(AzureProvider), azure_double)
            token = cloud.unwrap(AzureProvider).database().login_token("orders", None)
            assert token.user == user
            assert token.value.reveal() == token_of(**claims)


def test_a_token_is_had_from_the_same_identity_as_the_server(folder: Path, azure_double: AzureDouble) -> None:
    with shiftable.load(folder, environment="production") as app:
        driver = app.cloud("there").unwrap(AzureProvider).database()
        token = driver.login_token("orders", "shop")
    assert (token.user, token.value.reveal()) == ("shop", azure_double.token)
    assert azure_double.token not in f"{token!r}"


def _make_with_administrator(provider: AzureProvider, double: AzureDouble) -> None:
    native = type(provider).native_types["database"](entra_admin="shop-identity", entra_admin_id="0a00")
    spec = DatabaseSpec(
        name="orders", engine="postgresql", version="16", cpus=2, memory_gib=8, storage_gib=20, token_login=True,
        deletion_protection=False, password=Credential.literal(PASSWORD), native=native,
    )  # fmt: skip
    driver = provider.database()
    driver.create(spec)
    assert driver.info("orders").state == "available"
    assert double.databases.server("orders").administrators["0a00"]["properties"]["principalName"] == "shop-identity"
    assert driver.describe("orders").token_login
