"""Databases on a real MariaDB server: the rules of all databases, and what is MariaDB's own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pymysql
import pytest
import sqlalchemy
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.config import Credential
from shiftable.database import Database, Databases, DatabaseSpec
from shiftable.database.driver import DatabaseDriver
from shiftable.errors import AlreadyExists, InvalidArgument, PermissionDenied, Unauthenticated, Unavailable
from shiftable.testing.conformance import database as conformance
from shiftable.testing.conformance.database import DatabaseConformance, database_machine, small_spec
from shiftable_baremetal import MariadbSettings
from shiftable_baremetal._servers_mariadb import MariadbSession
from shiftable_baremetal.database_servers import ServerDatabaseDriver, open_server

from ..baremetal.killed_statements import applied, at_each_step
from .conftest import DatabaseServer

pytestmark = pytest.mark.usefixtures("programs_find_their_libraries")

CANARY = "c4n4ry'\"\\%s-password"


def spec_of(name: str, **options: Any) -> DatabaseSpec:
    password = {key: options.pop(key) for key in ("password",) if key in options}
    return attrs.evolve(small_spec(name, **password), **{"engine": "mariadb", "version": "10", **options})


@pytest.fixture(autouse=True)
def _engine_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "small_spec", spec_of)


def driver_of(mariadb: DatabaseServer, root: Path, **options: Any) -> ServerDatabaseDriver:
    known = {"user": mariadb.admin, "password": Credential.literal(mariadb.password), **options}
    settings = MariadbSettings(host="127.0.0.1", port=mariadb.port, tls=False, **known)
    return attrs.evolve(open_server(settings, root), page_size=3)


@contextlib.contextmanager
def manager(mariadb: DatabaseServer) -> Iterator[Any]:
    """Ask the server itself."""
    where = {"host": "127.0.0.1", "port": mariadb.port, "user": mariadb.admin, "password": mariadb.password}
    with contextlib.closing(pymysql.connect(**where, autocommit=True)) as connection:  # type: ignore[arg-type]
        yield connection.cursor()


@pytest.fixture(autouse=True)
def _nothing_is_left(mariadb: DatabaseServer) -> Iterator[None]:
    yield
    with manager(mariadb) as cursor:
        cursor.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_comment LIKE 'shiftable: %'")
        assert () == cursor.fetchall()
        cursor.execute("SELECT user FROM mysql.user WHERE user LIKE '%shiftadmin%'")
        assert () == cursor.fetchall()
        cursor.execute("DROP DATABASE IF EXISTS shiftable")


class TestMariadbServer(DatabaseConformance):
    many: ClassVar[int] = 7

    @pytest.fixture
    def driver(self, mariadb: DatabaseServer, tmp_path: Path) -> DatabaseDriver:
        return driver_of(mariadb, tmp_path / "servers")


def test_any_sequence_of_calls_leaves_the_server_as_a_plain_dictionary_says(
    mariadb: DatabaseServer, tmp_path: Path
) -> None:
    machine = database_machine(lambda: driver_of(mariadb, tmp_path / "servers"))
    phases = (Phase.explicit, Phase.generate)
    run_state_machine_as_test(machine, settings=settings(max_examples=10, stateful_step_count=12, phases=phases))


# what is MariaDB's own


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "servers"


@pytest.fixture
def databases(mariadb: DatabaseServer, root: Path) -> Iterator[Databases]:
    service = Databases(driver_of(mariadb, root))
    yield service
    for database in service.list():
        if service.describe(database.name).deletion_protection:
            database.protect(on=False)
        service.delete(database.name, final_snapshot=False)


def ask(database: Database, query: str, name: str | None = None) -> Any:
    with contextlib.closing(database.connect(name)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        connection.commit()
        return row[0] if row else None


def test_a_create_that_is_killed_anywhere_is_finished_by_the_same_command(databases: Databases) -> None:
    spec = spec_of("orders", databases=("shop", "stock"))

    def check() -> None:
        applied(databases, spec)
        for name in ("shop", "stock"):
            assert name == ask(databases.open(spec), "SELECT DATABASE()", name)
        databases.delete("orders", final_snapshot=False)

    assert 8 < at_each_step(MariadbSession, lambda: databases.create(spec), check)


def test_a_delete_that_is_killed_anywhere_has_its_last_snapshot(databases: Databases, mariadb: DatabaseServer) -> None:
    def prepare() -> Database:
        made = databases.create(spec_of("orders"))
        ask(made, "CREATE TABLE kept AS SELECT 42 AS answer")
        return made

    def check() -> None:
        if databases.exists("orders"):
            databases.delete("orders", final_snapshot="last")
        with manager(mariadb) as cursor:
            assert 0 == cursor.execute("SELECT 1 FROM mysql.user WHERE user = 'shiftadmin'")
        assert ["last"] == [each.name for each in gone.snapshots()]
        copy = gone.restore(spec_of("copy"), snapshot="last")
        assert 42 == ask(copy, "SELECT answer FROM kept")
        databases.delete("copy", final_snapshot=False)
        gone.delete_snapshot("last")
        prepare()

    gone = prepare()
    assert 5 < at_each_step(MariadbSession, lambda: databases.delete("orders", final_snapshot="last"), check)


def test_a_restore_that_is_killed_anywhere_begins_anew(databases: Databases) -> None:
    orders = databases.create(spec_of("orders"))
    ask(orders, "CREATE TABLE kept AS SELECT 42 AS answer")
    orders.snapshot("first")

    def check() -> None:
        with contextlib.suppress(AlreadyExists):
            orders.restore(spec_of("copy"), snapshot="first")
        copy = databases.open(spec_of("copy"))
        assert "available" == copy.info().state
        assert 42 == ask(copy, "SELECT answer FROM kept")
        databases.delete("copy", final_snapshot=False)

    assert 6 < at_each_step(MariadbSession, lambda: orders.restore(spec_of("copy"), snapshot="first"), check)


AWKWARD = ["sh`op; --", "ünï", "a'b\\c %s {}", "with_under%score", "a.b", "é" * 60, 'x" y']


@pytest.mark.parametrize("name", AWKWARD)
def test_a_name_is_kept_byte_for_byte(databases: Databases, mariadb: DatabaseServer, name: str) -> None:
    spec = spec_of("orders", databases=(name,), admin=name, password=CANARY)
    database = databases.create(spec)
    with manager(mariadb) as cursor:
        assert 1 == cursor.execute("SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", (name,))
        assert 1 == cursor.execute("SELECT 1 FROM mysql.user WHERE user = %s AND host = '%%'", (name,))
    ask(database, "CREATE TABLE t AS SELECT 1 AS n")
    database.snapshot("first")
    copy = database.restore("c", snapshot="first")
    assert f"c--{name}" == ask(copy, "SELECT CONCAT(DATABASE(), SUBSTR(n, 2)) FROM t")
    databases.delete("c", final_snapshot=False)
    databases.delete("orders", final_snapshot=False)


@pytest.mark.parametrize("name", ["x" * 65, "tail ", "", "a\0b", "💥"])
def test_a_name_that_the_server_would_change_is_refused(databases: Databases, name: str) -> None:
    for field in ({"databases": (name,)}, {"admin": name}):
        with pytest.raises((InvalidArgument, ValueError)):  # the latter where it is declared
            databases.create(spec_of("orders", **field))


def test_an_underscore_in_a_name_opens_no_other_database(databases: Databases) -> None:
    databases.create(spec_of("orders", databases=("shop1",)))
    other = databases.create(spec_of("users", databases=("shop_",)))
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        other.connect("shop1")


def test_objects_act_for_the_user_who_has_them_now(databases: Databases, mariadb: DatabaseServer) -> None:
    orders = databases.create(spec_of("orders"))
    for statement in (
        "CREATE TABLE t (n INT, note TEXT) ENGINE=InnoDB",
        "CREATE VIEW v AS SELECT n FROM t",
        "CREATE PROCEDURE p() SELECT COUNT(*) FROM t",
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.n = NEW.n + 1",
        "INSERT INTO t VALUES (1, 'CREATE DEFINER=`shiftadmin`@`%` \\n/*!50013 DEFINER=`shiftadmin`@`%` */')",
    ):
        ask(orders, statement)
    before = ask(orders, "SELECT note FROM t")
    orders.snapshot("first")
    copy = orders.restore("copy", snapshot="first")
    databases.delete("orders", final_snapshot=False)
    assert before == ask(copy, "SELECT note FROM t")
    assert 2 == ask(copy, "SELECT n FROM v")
    assert 1 == ask(copy, "CALL p()")
    ask(copy, "INSERT INTO t VALUES (7, '')")
    assert 8 == ask(copy, "SELECT MAX(n) FROM v")


def test_no_password_is_in_the_servers_log_or_the_snapshots(
    databases: Databases, mariadb: DatabaseServer, root: Path
) -> None:
    made = databases.create(spec_of("orders", password=CANARY))
    assert "shiftadmin@%" == ask(made, "SELECT CURRENT_USER()")
    made.set_password("4nother-" + CANARY)
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        made.connect()
    made.set_password(CANARY)
    made.snapshot("first")
    made.restore("copy", snapshot="first")
    log = mariadb.log.read_text(errors="replace")
    assert "IDENTIFIED VIA mysql_native_password USING '*" in log
    kept = log.encode() + b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    for secret in (CANARY, "c4n4ry", "4nother-"):
        assert secret.encode() not in kept


def test_a_password_that_clients_do_not_agree_on_is_refused(databases: Databases) -> None:
    with pytest.raises(InvalidArgument, match="beyond ASCII") as caught:
        databases.create(spec_of("orders", password="c4n4ry-ä"))
    assert "c4n4ry" not in str(caught.value)
    assert not databases.exists("orders")


def test_a_user_who_may_not_is_told_what_he_lacks(mariadb: DatabaseServer, root: Path) -> None:
    with manager(mariadb) as cursor:
        cursor.execute("CREATE USER lesser@'127.0.0.1' IDENTIFIED BY 'x'")
        cursor.execute("GRANT ALL PRIVILEGES ON *.* TO lesser@'127.0.0.1'")
        try:
            lesser = Databases(driver_of(mariadb, root, user="lesser", password=Credential.literal("x")))
            with pytest.raises(PermissionDenied, match="WITH GRANT OPTION"):
                lesser.create(spec_of("orders"))
            cursor.execute("REVOKE ALL PRIVILEGES ON *.* FROM lesser@'127.0.0.1'")
            cursor.execute("GRANT SELECT ON *.* TO lesser@'127.0.0.1' WITH GRANT OPTION")
            with pytest.raises(PermissionDenied, match=r"lesser@127\.0\.0\.1 has no ALTER, .*CREATE USER"):
                lesser.create(spec_of("orders"))
            wrong = Databases(driver_of(mariadb, root, user="lesser", password=Credential.literal("c4n4ry")))
            with pytest.raises(Unauthenticated) as caught:
                list(wrong.list())
            assert "c4n4ry" not in f"{caught.value!r} {caught.value.__cause__!r}"
        finally:
            cursor.execute("DROP USER lesser@'127.0.0.1'")


def test_somebody_elses_database_and_user_are_refused_and_stay(databases: Databases, mariadb: DatabaseServer) -> None:
    with manager(mariadb) as cursor:
        for make, drop, what in (
            ("CREATE DATABASE shop", "DROP DATABASE shop", "other databases"),
            ("CREATE USER shiftadmin@localhost", "DROP USER shiftadmin@localhost", "other admin"),
            ("CREATE DATABASE shiftable", "DROP DATABASE shiftable", "somebody else's"),
        ):
            cursor.execute("DROP DATABASE IF EXISTS shiftable")
            cursor.execute(make)
            try:
                with pytest.raises(AlreadyExists, match=what):
                    databases.create(spec_of("orders"))
                assert [] == list(databases.list())
            finally:
                cursor.execute(drop)


def test_two_creators_at_once_make_one(databases: Databases, mariadb: DatabaseServer, root: Path) -> None:
    start = threading.Barrier(3)

    def create(name: str) -> str:
        service = Databases(driver_of(mariadb, root))
        start.wait()
        try:
            service.create(spec_of(name))
        except AlreadyExists:
            return "there"
        return "made"

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(create, ["orders", "orders", "users"]))
    assert ["made", "there"] == sorted(answers[:2])
    assert "made" == answers[2]
    assert {"orders", "users"} == {each.name for each in databases.list()}


def test_a_connection_that_is_cut_under_a_statement_is_told_and_the_call_can_be_repeated(
    databases: Databases, mariadb: DatabaseServer
) -> None:
    real = MariadbSession.make_database

    def cut(self: MariadbSession, *arguments: Any) -> None:
        with manager(mariadb) as cursor:
            cursor.execute(f"KILL {self._connection.server_thread_id[0]}")
        real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MariadbSession, "make_database", cut)
        with pytest.raises(Unavailable):
            databases.create(spec_of("orders"))
    assert "failed" == databases.database("orders").info().state
    applied(databases, spec_of("orders"))


def test_an_engine_uses_it(databases: Databases) -> None:
    orders = databases.create(spec_of("orders"))
    engine = orders.engine()
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t AS SELECT 42 AS n"))
        assert 42 == connection.execute(sqlalchemy.text("SELECT n FROM t")).scalar()
    engine.dispose()
