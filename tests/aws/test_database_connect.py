"""Servers of the double that one connects to: a private PostgreSQL behind what RDS says of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import text

import shiftable
from shiftable.config import Credential
from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.errors import ConfigError
from shiftable.testing.databases import PATIENCE, PrivateServers
from shiftable_aws import AwsProvider
from shiftable_aws.double import AwsDouble

SPEC = DatabaseSpec(
    name="orders",
    engine="postgresql",
    version="16",
    cpus=2,
    memory_gib=8,
    storage_gib=20,
    deletion_protection=False,
    databases=("shop",),
)


@contextlib.contextmanager
def connected(database: Database) -> Iterator[sqlalchemy.Connection]:
    engine = database.engine(connect_timeout=PATIENCE)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def ask(database: Database, query: str) -> Any:
    with contextlib.closing(database.connect(connect_timeout=PATIENCE)) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return cursor.fetchone()


@pytest.fixture
def databases(provider: AwsProvider, aws_double: AwsDouble) -> Databases:
    return Databases(provider.database(), sleep=aws_double.clock.advance)


@pytest.fixture
def database(databases: Databases) -> Database:
    made = databases.create(SPEC)
    made.wait()
    return made


def test_an_engine_works_with_the_password_that_aws_keeps(database: Database) -> None:
    with connected(database) as connection:
        found = connection.execute(
            text("select current_user, current_database(), rolsuper from pg_roles where rolname = current_user")
        ).one()
    assert tuple(found) == ("shiftadmin", "shop", False)


def test_a_rotation_by_aws_costs_no_failed_connection(database: Database, aws_double: AwsDouble) -> None:
    engine = database.engine(connect_timeout=PATIENCE)
    with engine.connect() as connection:
        connection.execute(text("create table t as select 1 as a"))
        connection.commit()
    for number in range(3):
        aws_double.rds.rotate("orders", f"rotated-{number}-of-three")
        engine.dispose()
        with engine.connect() as connection:
            assert connection.execute(text("select a from t")).scalar() == 1
    engine.dispose()


def test_what_a_server_holds_is_restored_with_it(database: Database) -> None:
    with connected(database) as connection:
        connection.execute(text("create table kept (a integer)"))
        connection.execute(text("insert into kept select generate_series(1, 1000)"))
        connection.commit()
    database.snapshot("before")
    database.wait()
    with connected(database) as connection:
        connection.execute(text("drop table kept"))
        connection.commit()
    copy = database.restore(attrs.evolve(SPEC, name="copy"), snapshot="before")
    copy.wait()
    with connected(copy) as connection:
        assert connection.execute(text("select count(*) from kept")).scalar() == 1000
    assert copy.password() != database.password()


def test_a_declared_password_is_set_on_what_is_restored(databases: Databases, database: Database) -> None:
    with connected(database):
        pass
    database.snapshot("before")
    database.wait()
    spec = attrs.evolve(SPEC, name="copy", password=Credential.literal("a-declared-one!"))
    copy = database.restore(spec, snapshot="before")
    copy.wait()
    assert ask(copy, "select current_user") == ("shiftadmin",)
    assert databases.describe("copy").storage_autogrow


def test_logical_replication_counts_after_a_restart(databases: Databases, database: Database) -> None:
    assert ask(database, "show wal_level") == ("replica",)
    wanted = attrs.evolve(SPEC, parameters={"rds.logical_replication": "1"})
    (change,) = databases.diff(wanted)
    databases.apply(change)
    assert database.wait().restart_needed
    database.restart()
    assert not database.wait().restart_needed
    assert databases.diff(wanted) == ()
    assert ask(database, "show wal_level") == ("logical",)


def test_a_stopped_server_refuses_and_its_data_stay(database: Database) -> None:
    with connected(database) as connection:
        connection.execute(text("create table kept as select 7 as a"))
        connection.commit()
    database.stop()
    database.wait("stopped")
    with pytest.raises(psycopg.OperationalError, match="the server is stopped"):
        database.connect(connect_timeout=PATIENCE)
    database.start()
    database.wait()
    with connected(database) as connection:
        assert connection.execute(text("select a from kept")).scalar() == 7


def test_a_changed_password_is_the_servers(databases: Databases, database: Database) -> None:
    assert ask(database, "select 1") == (1,)
    database.set_password("another-one-2!")
    database.wait()
    declared = databases.open(attrs.evolve(SPEC, password=Credential.literal("another-one-2!")))
    assert ask(declared, "select 1") == (1,)


def test_nothing_of_a_server_is_left_when_it_is_deleted(databases: Databases, database: Database) -> None:
    info = database.info()
    assert info.server is not None
    assert ask(database, "select 1") == (1,)
    assert Path(info.server.host).is_dir()
    databases.delete("orders", final_snapshot=False)
    database.wait_deleted(timeout=timedelta(minutes=5))
    assert not Path(info.server.host).exists()


def test_who_connects_without_any_postgresql_is_told_so() -> None:
    def none_found() -> dict[str, str]:
        raise ConfigError("no PostgreSQL is found on this machine")

    servers = PrivateServers()
    host, port = servers.open("x", lambda _: None, parameters=none_found)
    with pytest.raises(psycopg.OperationalError, match="no PostgreSQL is found on this machine"):
        psycopg.connect(host=host, port=port, user="x", dbname="x", password="x")
    servers.close()
    assert not Path(host).exists()


def test_an_application_has_its_database_and_its_password_where_it_says(
    aws_double: AwsDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in aws_double.environ.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "shiftable.toml").write_text(
        '[project]\nname = "x"\n[environments.d]\nprovider = "a"\n'
        f'[providers.a]\ntype = "aws"\nregion = "eu-central-1"\nendpoint = "{aws_double.url}"\n'
        '[secrets.app]\nprefix = "x"\n'
        '[database.orders]\nengine = "postgresql"\nversion = "16"\ncpus = 2\nmemory_gib = 8\nstorage_gib = 20\n'
        'databases = ["shop"]\npassword = { secret = "app/db" }\ndeletion_protection = false\n'
        '[database.visits]\nengine = "mysql"\nversion = "8.4"\ncpus = 1\nmemory_gib = 1\nstorage_gib = 20\n'
        'password = { secret = "app/visits" }\ndeletion_protection = false\n'
    )
    with shiftable.load(tmp_path / "shiftable.toml", environment="d") as app:
        for declared in app.declared("database"):
            (change,) = app.diff(declared)
            app.apply(declared, change)
            assert app.diff(declared) == ()
        database = app.database("orders")
        assert ask(database, "select current_user || ' ' || current_database()") == ("shiftadmin shop",)
        assert database.password().reveal() == app.secrets("app").get("db").reveal()
        assert aws_double.rds.password("visits") == app.secrets("app").get("visits").reveal()
        for declared in app.declared("database"):
            app.destroy(declared)
    assert aws_double.rds.servers() == ()
