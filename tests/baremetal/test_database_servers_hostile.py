"""Databases on a PostgreSQL server: nothing half made stays, nothing of others is touched, and no password shows."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest

from shiftable.blob import BlobStore
from shiftable.config import BucketReference, Credential
from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable.memory.blob import MemoryBlobDriver
from shiftable.postgresql import Cluster, all_binaries, temporary_cluster
from shiftable.testing.conformance.database import small_spec
from shiftable_baremetal import PostgresqlSettings
from shiftable_baremetal._servers_postgresql import PostgresqlSession
from shiftable_baremetal._servers_programs import Command, dumped
from shiftable_baremetal.database_servers import ServerDatabaseDriver, open_server

from .killed_statements import applied, at_each_step

BINARIES = max((found for found in all_binaries() if (found.folder / "pg_restore").exists()), key=lambda it: it.major)
CANARY = "c4n4ry-p@ss/w:rd%é"
MANAGER = "m4n4ger's \\canary:é"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Run a server that logs each statement, and whose manager may make roles and databases."""
    with temporary_cluster(BINARIES, parameters={"log_statement": "all", "log_min_error_statement": "info"}) as server:
        with server.connect(autocommit=True) as connection:
            made = connection.pgconn.encrypt_password(MANAGER.encode(), b"manager", b"scram-sha-256").decode()
            connection.execute(f"CREATE ROLE manager LOGIN CREATEDB CREATEROLE PASSWORD '{made}'".encode())
        yield server


def driver_of(cluster: Cluster, root: Path, **options: Any) -> ServerDatabaseDriver:
    known = {"user": "manager", "password": Credential.literal(MANAGER), "programs": cluster.binaries.folder, **options}
    return open_server(PostgresqlSettings(host=cluster.host, **known), root)


def spec_of(name: str, **fields: Any) -> DatabaseSpec:
    return attrs.evolve(small_spec(name, password=CANARY), **{"version": str(BINARIES.major), **fields})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "servers"


@pytest.fixture
def databases(cluster: Cluster, root: Path) -> Iterator[Databases]:
    service = Databases(driver_of(cluster, root))
    yield service
    for database in service.list():
        if service.describe(database.name).deletion_protection:
            database.protect(on=False)
        service.delete(database.name, final_snapshot=False)
    assert {"manager"} == roles_of(cluster)
    assert set() == databases_of(cluster)


@pytest.fixture
def orders(databases: Databases) -> Database:
    return databases.create(spec_of("orders"))


def roles_of(cluster: Cluster) -> set[str]:
    with cluster.connect() as connection:
        query = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres'"
        return {row[0] for row in connection.execute(query)}


def databases_of(cluster: Cluster) -> set[str]:
    with cluster.connect() as connection:
        query = "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')"
        return {row[0] for row in connection.execute(query)}


def act(cluster: Cluster, statement: str) -> None:
    """Act as the server's superuser."""
    with cluster.connect(autocommit=True) as connection:
        connection.execute(statement.encode())


def ask(database: Database, query: str, name: str | None = None) -> Any:
    with contextlib.closing(database.connect(name)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone() if cursor.description else None
        connection.commit()
        return row[0] if row else None


# killed between any two steps


def test_a_create_that_is_killed_anywhere_is_finished_by_the_same_command(databases: Databases) -> None:
    spec = spec_of("orders", databases=("shop", "stock"), parameters={"work_mem": "8192"}, labels={"team": "x"})

    def check() -> None:
        applied(databases, spec)
        database = databases.open(spec)
        for name in ("shop", "stock"):
            assert "8MB" == ask(database, "SHOW work_mem", name)
            assert name == ask(database, "SELECT current_database()", name)
        databases.delete("orders", final_snapshot=False)

    assert 10 < at_each_step(PostgresqlSession, lambda: databases.create(spec), check)


def test_what_was_begun_and_is_not_wanted_any_more_is_deleted(databases: Databases, cluster: Cluster) -> None:
    def check() -> None:
        for database in databases.list():
            if database.info().state == "failed":
                assert "creating, interrupted" == database.info().raw_state
                with pytest.raises(Conflict, match="apply its declaration again"):
                    database.snapshot()
            databases.delete(database.name, final_snapshot=False)
        assert set() == databases_of(cluster)
        assert {"manager"} == roles_of(cluster)

    at_each_step(PostgresqlSession, lambda: databases.create(spec_of("orders")), check)


def test_an_update_that_is_killed_anywhere_is_finished_by_the_same_command(databases: Databases) -> None:
    before = spec_of("orders", parameters={"work_mem": "8192"})
    after = attrs.evolve(before, databases=("shop", "stock"), parameters={"work_mem": "4096", "jit": "off"})
    databases.create(before)

    def check() -> None:
        applied(databases, after)
        database = databases.open(after)
        assert ["4MB", "off"] == [ask(database, f"SHOW {name}", "stock") for name in ("work_mem", "jit")]
        assert "4MB" == ask(database, "SHOW work_mem", "shop")
        databases.delete("orders", final_snapshot=False)
        databases.create(before)

    at_each_step(PostgresqlSession, lambda: applied(databases, after), check)


def test_a_delete_that_is_killed_anywhere_has_its_last_snapshot(databases: Databases, cluster: Cluster) -> None:
    def prepare() -> Database:
        made = databases.create(spec_of("orders"))
        ask(made, "CREATE TABLE kept AS SELECT 42 AS answer")
        return made

    def check() -> None:
        if databases.exists("orders"):
            databases.delete("orders", final_snapshot="last")
        assert set() == databases_of(cluster)
        assert ["last"] == [each.name for each in gone.snapshots()]
        copy = gone.restore(spec_of("copy"), snapshot="last")
        assert 42 == ask(copy, "SELECT answer FROM kept")
        databases.delete("copy", final_snapshot=False)
        gone.delete_snapshot("last")
        prepare()

    gone = prepare()
    assert 4 < at_each_step(PostgresqlSession, lambda: databases.delete("orders", final_snapshot="last"), check)


def test_a_restore_that_is_killed_anywhere_begins_anew(databases: Databases, orders: Database) -> None:
    ask(orders, "CREATE TABLE kept AS SELECT 42 AS answer")
    orders.snapshot("first")

    def check() -> None:
        if databases.exists("copy") and databases.database("copy").info().state == "failed":
            with pytest.raises(Conflict, match="restore it again"):
                databases.database("copy").snapshot()
        with contextlib.suppress(AlreadyExists):
            orders.restore(spec_of("copy"), snapshot="first")
        copy = databases.open(spec_of("copy"))
        assert "available" == copy.info().state
        assert 42 == ask(copy, "SELECT answer FROM kept")
        databases.delete("copy", final_snapshot=False)

    assert 6 < at_each_step(PostgresqlSession, lambda: orders.restore(spec_of("copy"), snapshot="first"), check)


# servers and ways that fail


def test_a_connection_that_is_cut_under_a_statement_is_told_and_the_call_can_be_repeated(
    databases: Databases, cluster: Cluster
) -> None:
    real = PostgresqlSession.make_database

    def cut(self: PostgresqlSession, *arguments: Any) -> None:
        act(cluster, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'manager'")
        real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresqlSession, "make_database", cut)
        with pytest.raises(Unavailable):
            databases.create(spec_of("orders"))
    applied(databases, spec_of("orders"))


def test_a_server_that_ends_under_a_snapshot_leaves_none(root: Path) -> None:
    with temporary_cluster(BINARIES) as server:
        databases = Databases(driver_of(server, root, user="postgres", password=None))
        orders = databases.create(spec_of("orders"))
        ask(orders, "CREATE TABLE big AS SELECT n, md5(n::text) FROM generate_series(1, 200000) AS n")
        real = ServerDatabaseDriver._take

        def take(self: ServerDatabaseDriver, session: Any, known: Any, name: str) -> Any:
            made = self._engine.dump

            def dump(database: str, version: str) -> Command:
                server.stop(immediately=True)
                return made(database, version)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(self._engine), "dump", lambda _, *arguments: dump(*arguments))
                return real(self, session, known, name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ServerDatabaseDriver, "_take", take)
            with pytest.raises(Unavailable):
                orders.snapshot("first")
        with pytest.raises(Unavailable):
            orders.info()
        server.start()
        assert [] == list(orders.snapshots())
        assert [] == [path for path in root.rglob("parts/**/*") if path.is_file()]
        orders.snapshot("first")
        assert ["first"] == [each.name for each in orders.snapshots()]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"password": Credential.literal("wr0ng-canary")}, Unauthenticated),
        ({"user": "nobody"}, Unauthenticated),
        ({"port": 1}, Unavailable),
        ({"host": "/nonexistent"}, Unavailable),
        ({"password": Credential.env("NOT_SET")}, ConfigError),
    ],
    ids=["password", "user", "port", "folder", "reference"],
)
def test_a_server_that_lets_nobody_in_is_told_without_a_password(
    cluster: Cluster, root: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    known = {"host": cluster.host, "user": "manager", "password": Credential.literal(MANAGER), **options}
    databases = Databases(open_server(PostgresqlSettings(**known), root))
    for call in (lambda: list(databases.list()), lambda: databases.create(spec_of("orders"))):
        with pytest.raises(error) as caught:
            call()
        said = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
        assert not any(secret in said for secret in ("canary", CANARY, MANAGER))


@pytest.mark.parametrize(
    ("rights", "lacking"),
    [("CREATEROLE", "CREATEDB"), ("CREATEDB", "CREATEROLE"), ("", "CREATEDB and no CREATEROLE")],
)
def test_a_user_who_may_not_is_told_what_he_lacks(cluster: Cluster, root: Path, rights: str, lacking: str) -> None:
    act(cluster, f"CREATE ROLE lesser LOGIN {rights}")
    act(cluster, "ALTER ROLE lesser PASSWORD 'x'")
    try:
        databases = Databases(driver_of(cluster, root, user="lesser", password=Credential.literal("x")))
        with pytest.raises(PermissionDenied, match=f"'lesser' has no {lacking}: ALTER ROLE"):
            databases.create(spec_of("orders"))
        assert [] == list(databases.list())
        assert {"manager", "lesser"} == roles_of(cluster)
    finally:
        act(cluster, "DROP ROLE lesser")


# what is others'


def test_somebody_elses_database_and_role_are_refused_and_stay(databases: Databases, cluster: Cluster) -> None:
    act(cluster, "CREATE DATABASE shop")
    try:
        with pytest.raises(AlreadyExists, match="declare other databases"):
            databases.create(spec_of("orders"))
        assert not databases.exists("orders")
        assert {"manager"} == roles_of(cluster)
    finally:
        act(cluster, "DROP DATABASE shop")
    act(cluster, "CREATE ROLE shiftadmin")
    try:
        with pytest.raises(AlreadyExists, match="declare other admin"):
            databases.create(spec_of("orders"))
    finally:
        act(cluster, "DROP ROLE shiftadmin")
    assert set() == databases_of(cluster)


def test_a_database_that_was_given_to_somebody_else_is_not_dropped(
    databases: Databases, orders: Database, cluster: Cluster
) -> None:
    act(cluster, "ALTER DATABASE shop OWNER TO postgres")
    assert () == databases.describe("orders").databases
    with pytest.raises(Conflict, match="give it back"):
        databases.delete("orders", final_snapshot=False)
    assert {"shop"} == databases_of(cluster)
    act(cluster, "ALTER DATABASE shop OWNER TO shiftadmin")
    assert "deleting, interrupted" == orders.info().raw_state


def test_a_comment_that_is_none_of_ours_is_nobodys(databases: Databases, cluster: Cluster) -> None:
    for number, comment in enumerate(('{"shiftable": 1}', '{"shiftable": "x", "spec": []}', '{"shiftable": ', "x")):
        act(cluster, f"CREATE ROLE r{number}")
        act(cluster, f"COMMENT ON ROLE r{number} IS '{comment}'")
    try:
        assert [] == list(databases.list())
    finally:
        for number in range(4):
            act(cluster, f"DROP ROLE r{number}")


def test_two_resources_may_declare_the_same_names(databases: Databases, cluster: Cluster) -> None:
    first, second = databases.create(spec_of("orders")), databases.create(spec_of("users"))
    ask(first, "CREATE TABLE of_orders ()")
    assert {"shop", "users--shop"} == databases_of(cluster)
    assert "users--shop" == second.url().database == second.url("shop").database
    assert "users--shiftadmin" == ask(second, "SELECT current_user")
    assert 0 == ask(second, "SELECT count(*) FROM pg_class WHERE relname = 'of_orders'")
    assert ("shop",) == databases.describe("users").databases
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        first.connect("users--shop")
    databases.delete("orders", final_snapshot=False)
    assert "users--shop" == ask(second, "SELECT current_database()")


def test_a_user_has_no_rights_beyond_his_own_databases(databases: Databases, orders: Database) -> None:
    other = databases.create(spec_of("users", databases=("people",)))
    query = "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls FROM pg_roles"
    assert ask(other, f"{query} WHERE rolname = current_user") is False
    where = {**orders.url("people").arguments(), "password": CANARY}
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(**where)
    ask(other, "CREATE TABLE mine (x int)")  # in the schema public of his own


def test_two_creators_at_once_make_one(databases: Databases, cluster: Cluster, root: Path) -> None:
    start = threading.Barrier(4)

    def create(name: str) -> str:
        service = Databases(driver_of(cluster, root))
        start.wait()
        try:
            service.create(spec_of(name))
        except AlreadyExists:
            return "there"
        return "made"

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(create, ["orders", "orders", "users", "stock"]))
    assert ["made", "there"] == sorted(answers[:2])
    assert ["made", "made"] == answers[2:]
    assert {"orders", "stock", "users"} == {each.name for each in databases.list()}
    assert 3 == len(databases_of(cluster))
    for each in databases.list():
        assert "available" == each.info().state


AWKWARD = ['sh"op; --', "ünï💥", "x=y host='evil'", "postgres://x", "a'b\\c %s {}", "-", "é" * 31 + "x"]


@pytest.mark.parametrize("name", AWKWARD)
def test_a_name_is_kept_byte_for_byte(databases: Databases, cluster: Cluster, name: str) -> None:
    spec = spec_of("orders", databases=(name,), admin=name, parameters={"search_path": '"$user", public, "odd, one"'})
    database = databases.create(spec)
    assert {name} == databases_of(cluster)
    assert {"manager", name} == roles_of(cluster)
    assert () == databases.diff(spec)
    ask(database, "CREATE TABLE t AS SELECT 1 AS n")
    assert name == ask(database, "SELECT current_user || substr(current_database(), 1, 0)")
    database.snapshot("first")
    if len(name.encode()) < 60:
        copy = database.restore("c", snapshot="first")
        assert f"c--{name}" == ask(copy, "SELECT current_database() FROM t")
        assert () == databases.diff(attrs.evolve(spec, name="c"))
    else:
        with pytest.raises(InvalidArgument, match="66 bytes"):
            database.restore("c", snapshot="first")
    assert not databases.exists("d")
    database.delete_snapshot("first")


def test_an_administrator_without_a_name_is_refused(databases: Databases) -> None:
    with pytest.raises(InvalidArgument, match="empty"):
        databases.create(spec_of("orders", admin=""))


# passwords


def test_no_password_is_in_the_servers_log_arguments_variables_or_errors(
    databases: Databases, cluster: Cluster, root: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("pg_dump", "pg_restore"):
        script = f'#!/bin/sh\n{{ echo "$@"; env; }} >> {tmp_path}/seen\nexec {cluster.binaries.folder}/{name} "$@"\n'
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    watched = Databases(driver_of(cluster, root, programs=programs))
    made = watched.create(spec_of("orders"))
    made.set_password("4nother-" + CANARY)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        made.connect()
    made.set_password(CANARY)
    made.snapshot("first")
    made.restore("copy", snapshot="first")
    seen, log = (tmp_path / "seen").read_text(), cluster.log.read_text()
    assert "--format=custom" in seen
    assert "--single-transaction" in seen
    assert "ALTER ROLE" in log
    for secret in (CANARY, MANAGER, "c4n4ry", "m4n4ger"):
        assert secret not in seen
        assert secret not in log
    kept = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    assert b"c4n4ry" not in kept


def test_a_resource_without_a_declared_password_says_what_to_declare(databases: Databases, orders: Database) -> None:
    assert CANARY == orders.password().reveal()
    with pytest.raises(Conflict, match="declare"):
        databases.database("orders").password()
    with pytest.raises(Unsupported):
        databases.create(spec_of("users", password=None))
    with pytest.raises(Unsupported):
        orders.set_password()


def test_the_engine_logs_in_with_what_was_changed(databases: Databases) -> None:
    password = ["first"]
    spec = spec_of("orders", password=Credential.secret("app/x", lambda _: password[0]))
    database = databases.create(spec)
    engine = database.engine()
    with engine.connect() as connection:
        assert 1 == connection.exec_driver_sql("SELECT 1").scalar()
    engine.dispose()
    database.set_password("second")
    password[0] = "second"
    with engine.connect() as connection:
        assert "shiftadmin" == connection.exec_driver_sql("SELECT current_user").scalar()
    engine.dispose()


# parameters, versions and what else is declared


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("max_connections", "7", "of the whole server"),
        ("log_checkpoints", "on", "of the whole server"),
        ("log_connections", "on", "of the whole server"),
        ("no_such_thing", "1", "has no parameter no_such_thing"),
        ("work_mem", "a lot", "invalid value"),
    ],
)
def test_a_parameter_that_no_database_can_have_is_refused_before_anything_is_made(
    databases: Databases, cluster: Cluster, name: str, value: str, why: str
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        databases.create(spec_of("orders", parameters={name: value}))
    assert {"manager"} == roles_of(cluster)
    orders = databases.create(spec_of("orders"))
    (change,) = databases.diff(spec_of("orders", parameters={name: value}))
    with pytest.raises(InvalidArgument, match=why):
        databases.apply(change)
    assert "available" == orders.info().state


def test_parameters_are_what_the_catalog_says(databases: Databases, cluster: Cluster) -> None:
    spec = spec_of("orders", parameters={"work_mem": "8MB", "search_path": "a,b", "my.own": "x"})
    if BINARIES.major >= 15:
        with pytest.raises(PermissionDenied, match='GRANT SET ON PARAMETER "my"."own" TO "manager"'):
            databases.create(spec)
        act(cluster, "GRANT SET ON PARAMETER my.own TO manager")
    assert not databases.exists("orders")
    orders = databases.create(spec)
    assert () == databases.diff(spec)
    assert ["8MB", "a, b", "x"] == [ask(orders, f"SHOW {name}") for name in ("work_mem", "search_path", "my.own")]
    act(cluster, "ALTER DATABASE shop SET work_mem = '1MB'")
    assert {"parameters"} == {field.name for (change,) in [databases.diff(spec)] for field in change.fields}
    applied(databases, spec)
    assert "8MB" == ask(orders, "SHOW work_mem")


def test_another_version_than_the_servers_is_refused(databases: Databases) -> None:
    for version in ("13", str(BINARIES.major + 1), f"{BINARIES.version}.9"):
        with pytest.raises(InvalidArgument, match=r"its owner's to change"):
            databases.create(spec_of("orders", version=version))
    databases.create(spec_of("orders", version=BINARIES.version))
    (change,) = databases.diff(spec_of("orders", version=str(BINARIES.major + 1)))
    with pytest.raises(InvalidArgument, match=r"its owner's to change"):
        databases.apply(change)


def test_without_declared_databases_there_is_one_of_the_resources_name(databases: Databases) -> None:
    spec = spec_of("orders", databases=())
    orders = databases.create(spec)
    assert () == databases.diff(spec)
    assert "orders" == ask(orders, "SELECT current_database()")


def test_a_database_that_somebody_has_dropped_is_made_again(databases: Databases, cluster: Cluster) -> None:
    spec = spec_of("orders", databases=("shop", "stock"))
    databases.create(spec)
    act(cluster, "DROP DATABASE stock")
    (change,) = databases.diff(spec)
    assert ["databases"] == [field.name for field in change.fields]
    orders = databases.open(spec)
    for take in (orders.snapshot, lambda: databases.delete("orders", final_snapshot="last")):
        with pytest.raises(Conflict, match="stock is not there any more"):
            take()
    assert [] == list(orders.snapshots())
    applied(databases, spec)
    assert {"shop", "stock"} == databases_of(cluster)


def test_a_server_without_an_encoding_gives_databases_that_have_one(root: Path) -> None:
    with temporary_cluster(BINARIES) as server:
        ascii_ = "UPDATE pg_database SET encoding = pg_char_to_encoding('SQL_ASCII') WHERE datname <> 'template0'"
        act(server, ascii_)  # as initdb of Debian's makes it where no language is set
        with server.connect() as connection:
            assert "SQL_ASCII" == connection.info.parameter_status("server_encoding")
        databases = Databases(driver_of(server, root, user="postgres", password=None))
        orders = databases.create(spec_of("orders", databases=("ünï💥",)))
        ask(orders, "CREATE TABLE t AS SELECT 'é'::text AS n")
        orders.snapshot("first")
        copy = orders.restore("copy", snapshot="first")
        assert ["é", "UTF8"] == [ask(copy, query) for query in ("SELECT n FROM t", "SHOW server_encoding")]
        assert "copy--ünï💥" == copy.url().database


def test_all_resources_are_listed_by_one_query(databases: Databases) -> None:
    for number in range(5):
        databases.create(spec_of(f"many-{number}"))
    real, queries = PostgresqlSession._rows, []

    def rows(self: PostgresqlSession, query: str, *values: object) -> Any:
        queries.append(query)
        return real(self, query, *values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresqlSession, "_rows", rows)
        assert 5 == len(list(databases.list()))
        assert 1 == len(queries)
        databases.describe("many-1")
        databases.database("many-1").info()
        assert 3 == len(queries)


def test_autovacuum_does_not_keep_a_database(databases: Databases, orders: Database, cluster: Cluster) -> None:
    """Only a superuser may end it by FORCE."""
    ask(orders, "CREATE TABLE big AS SELECT n, repeat('x', 500) FROM generate_series(1, 20000) AS n")
    ask(orders, "ALTER TABLE big SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)")
    ask(orders, "DELETE FROM big")
    act(cluster, "ALTER SYSTEM SET autovacuum_naptime = '1s'")
    act(cluster, "SELECT pg_reload_conf()")
    try:
        with cluster.connect(autocommit=True) as connection:  # others are told nothing of it
            working = b"SELECT 1 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = 'shop'"
            end = time.monotonic() + 120
            while connection.execute(working).fetchone() is None:
                assert time.monotonic() < end, "no autovacuum came"
                time.sleep(0.1)
        databases.delete("orders", final_snapshot=False)
    finally:
        act(cluster, "ALTER SYSTEM RESET autovacuum_naptime")
        act(cluster, "SELECT pg_reload_conf()")
    assert not databases.exists("orders")


# snapshots


def test_a_full_disk_under_a_snapshot_leaves_none(databases: Databases, orders: Database, root: Path) -> None:
    ask(orders, "CREATE TABLE big AS SELECT md5(n::text) || md5((-n)::text) FROM generate_series(1, 100000) AS n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(QuotaExceeded):
            orders.snapshot("first")
        with pytest.raises(QuotaExceeded):
            databases.delete("orders", final_snapshot="last")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [] == list(orders.snapshots())
    assert [] == [path for path in root.rglob("parts/**/*") if path.is_file()]
    assert "available" == orders.info().state
    assert 100_000 == ask(orders, "SELECT count(*) FROM big")
    databases.delete("orders", final_snapshot="last")
    assert 100_000 == ask(orders.restore(spec_of("copy"), snapshot="last"), "SELECT count(*) FROM big")


def test_what_killed_snapshots_have_left_goes_when_it_is_old(orders: Database, root: Path) -> None:
    orders.snapshot("first")
    kept = [path for path in root.rglob("parts/orders/**/*") if path.is_file()]
    for name, age in (("killed", timedelta(days=2)), ("under-way", timedelta(hours=1))):
        folder = kept[0].parent.parent / name
        folder.mkdir()
        (folder / "0").write_bytes(b"half of")
        when = (datetime.now(UTC) - age).timestamp()
        os.utime(folder / "0", (when, when))
    os.utime(kept[0], (0, 0))  # an old snapshot is none that was killed
    orders.snapshot("second")
    found = {str(path.relative_to(kept[0].parent.parent)) for path in root.rglob("parts/orders/**/*") if path.is_file()}
    assert {"first/0", "second/0", "under-way/0"} == found
    assert ["first", "second"] == [each.name for each in orders.snapshots()]


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
def test_a_snapshot_that_is_not_what_was_stored_is_not_restored(
    databases: Databases, orders: Database, cluster: Cluster, root: Path, harm: str
) -> None:
    ask(orders, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    orders.snapshot("first")
    (part,) = [path for path in root.rglob("parts/**/*") if path.is_file()]
    content = part.read_bytes()
    part.unlink()
    if harm != "gone":
        part.write_bytes(content[:-1] if harm == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        orders.restore("copy", snapshot="first")
    assert not databases.exists("copy")
    assert {"shop"} == databases_of(cluster)


def test_what_is_committed_while_a_delete_begins_is_in_the_last_snapshot(
    databases: Databases, orders: Database
) -> None:
    ask(orders, "CREATE TABLE t (n int)")
    open_connection = orders.connect()
    real = ServerDatabaseDriver._take

    def take(self: ServerDatabaseDriver, *arguments: Any) -> Any:
        with pytest.raises(psycopg.OperationalError):
            open_connection.cursor().execute("INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            orders.connect()
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerDatabaseDriver, "_take", take)
        databases.delete("orders", final_snapshot="last")
    open_connection.close()
    assert 0 == ask(orders.restore(spec_of("copy"), snapshot="last"), "SELECT count(*) FROM t")


def test_snapshots_are_files_that_only_their_owner_reads_and_stock_tools_do(
    orders: Database, cluster: Cluster, root: Path
) -> None:
    ask(orders, "CREATE TABLE t AS SELECT 'tea' AS article")
    orders.snapshot("first")
    assert 0o700 == root.stat().st_mode & 0o777
    (part,) = [path for path in root.rglob("parts/**/*") if path.is_file()]
    assert b"CREATE TABLE public.t" in cluster.run("pg_restore", "--file=-", part)


def test_several_databases_are_restored_each_under_its_name(databases: Databases) -> None:
    orders = databases.create(spec_of("orders", databases=("shop", "stock")))
    for name in ("shop", "stock"):
        ask(orders, f"CREATE TABLE t AS SELECT '{name}' AS it", name)
    orders.snapshot("first")
    copy = orders.restore("copy", snapshot="first")
    assert ["shop", "stock"] == [ask(copy, "SELECT it FROM t", name) for name in ("shop", "stock")]
    assert "copy--shiftadmin" == ask(copy, "SELECT tableowner FROM pg_tables WHERE tablename = 't'", "stock")


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".x", "x" * 129])
def test_an_odd_name_of_a_snapshot_is_refused(orders: Database, name: str) -> None:
    if name:
        with pytest.raises(InvalidArgument):
            orders.snapshot(name)
    with pytest.raises(NotFound):
        orders.delete_snapshot(name)


def test_snapshots_lie_in_the_declared_bucket_below_their_prefix(cluster: Cluster, root: Path) -> None:
    store = BlobStore(MemoryBlobDriver())
    reference = BucketReference("backups", store.bucket, "db/")
    databases = Databases(driver_of(cluster, root, snapshots=reference))
    orders = databases.create(spec_of("orders"))
    with pytest.raises(NotFound, match="bucket 'backups' does not exist"):
        orders.snapshot("first")
    from shiftable.blob import BucketSpec

    store.create(BucketSpec(name="backups"))
    ask(orders, "CREATE TABLE t AS SELECT 42 AS n")
    orders.snapshot("first")
    keys = [each.key for each in store.bucket("backups").list()]
    assert ["db/parts/orders/first/0", "db/snapshots/orders/first.json"] == sorted(keys)
    databases.delete("orders", final_snapshot="last")
    assert ["first", "last"] == [each.name for each in orders.snapshots()]
    assert 42 == ask(orders.restore(spec_of("copy"), snapshot="first"), "SELECT n FROM t")
    databases.delete("copy", final_snapshot=False)
    for name in ("first", "last"):
        orders.delete_snapshot(name)
    assert [] == list(store.bucket("backups").list())
    assert not root.exists()


def test_a_program_that_fails_says_why_and_no_values(tmp_path: Path) -> None:
    script = tmp_path / "pg_dump"
    said = "pg_dump: error: permission denied for table t\\nDETAIL: query was: SELECT 'c4n4ry'"
    script.write_text(f'#!/bin/sh\necho output\nprintf "{said}" >&2\nexit 1\n')
    script.chmod(0o755)
    from shiftable.masking import Masked
    from shiftable_baremetal._faults import FilesError

    with pytest.raises(FilesError) as caught:
        list(dumped(Command(program=script, arguments=(), secret=Masked(CANARY))))
    assert PermissionDenied is caught.value.fault.error
    assert "permission denied for table t" in str(caught.value)
    assert "c4n4ry" not in str(caught.value)


def test_snapshots_need_the_servers_own_programs(databases: Databases, cluster: Cluster, root: Path) -> None:
    databases.create(spec_of("orders"))
    (root.parent / "empty").mkdir()
    other = Databases(driver_of(cluster, root, programs=root.parent / "empty"))
    with pytest.raises(ConfigError, match="has no PostgreSQL"):
        other.open(spec_of("orders")).snapshot("first")
    assert [] == list(other.database("orders").snapshots())
    assert os.path.isdir(root)  # noqa: PTH112


def test_native_errors_are_claimed(cluster: Cluster, root: Path) -> None:
    driver = driver_of(cluster, root)
    with pytest.raises(psycopg.Error) as caught, cluster.connect() as connection:
        connection.execute("SELECT 1 FROM pg_no_such_table")
    fault = driver.classify(caught.value)
    assert fault is not None
    assert issubclass(fault.error, OperationError)
    assert driver.classify(KeyError("x")) is None
