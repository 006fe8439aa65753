"""Connections to a real server: passwords that are rotated under load, restarts, and TLS that is what it says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import attrs
import psycopg
import pymysql
import pytest
import sqlalchemy
from psycopg import sql
from psycopg_pool import ConnectionPool

from shiftable import mysql
from shiftable.config import Credential
from shiftable.database import Database, DatabaseInfo, Databases, Server
from shiftable.errors import NotFound
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver
from shiftable.memory.secrets import MemorySecretsDriver
from shiftable.postgresql import Cluster, temporary_cluster
from shiftable.rotation import PostgresqlUser, Rotation
from shiftable.secrets import Secrets, SecretStore
from shiftable.testing.conformance.database import small_spec

from ..certificates import Encrypting, certificate, serving_tls

THREADS = 4


@attrs.define
class Real(MemoryDatabaseDriver):
    """Databases whose server is a real one."""

    server: Server = attrs.field(kw_only=True)
    asked: int = attrs.field(default=0, init=False)

    def info(self, name: str) -> DatabaseInfo:
        self.asked += 1
        return attrs.evolve(MemoryDatabaseDriver.info(self, name), server=self.server)


@attrs.define
class Stored:
    """A secret of a store, as a declaration refers to it; counts how often it is read, and can be down."""

    store: SecretStore
    key: str = "db/login"
    reads: int = 0

    def credential(self, *, keeper: bool = True) -> Credential:
        return Credential.secret(f"app/{self.key}", lambda _: self.read(), self if keeper else None)

    def read(self) -> str:
        self.reads += 1
        return self.store.get(self.key).reveal()

    def pending(self, _: str) -> str | None:
        with contextlib.suppress(NotFound):
            return self.store.get(self.key, stage="pending").reveal()
        return None

    def make(self, _: str, new: Callable[[], str]) -> str:
        raise AssertionError


@pytest.fixture
def role(postgresql_cluster: Cluster) -> Iterator[str]:
    """A user who logs in with a password over TCP."""
    name = "rotated"
    with postgresql_cluster.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'first'").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def stored() -> Stored:
    store = Secrets(MemorySecretsDriver()).store("app")
    store.put("db/login", "first")
    return Stored(store)


def _database(cluster: Cluster, login: Credential, user: str, **server: Any) -> Database:
    where = Server(**{"host": "127.0.0.1", "port": cluster.port, "admin": "postgres", "tls": False, **server})
    driver = Real(attrs.evolve(FEATURES, connect=True), server=where)
    spec = attrs.evolve(small_spec("conf"), databases=("postgres",), login=login, user=user)
    return Databases(driver).create(spec)


class Work:
    """Threads that check connections out of an engine, each a new one, and count what happens."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self._engine = engine
        self._over = threading.Event()
        self.done = [0] * THREADS
        self.failures: list[Exception] = []
        self._threads = [threading.Thread(target=self._work, args=(each,)) for each in range(THREADS)]

    def _work(self, number: int) -> None:
        while not self._over.is_set():
            try:
                with self._engine.connect() as connection:
                    assert 1 == connection.execute(sqlalchemy.text("SELECT 1")).scalar()
            except sqlalchemy.exc.DBAPIError as exc:
                self.failures.append(exc)
            self.done[number] += 1

    def round(self) -> None:
        """Wait until each thread has checked out twice more."""
        wanted = [count + 2 for count in self.done]
        while any(count < least for count, least in zip(self.done, wanted, strict=True)):
            assert any(thread.is_alive() for thread in self._threads)
            self._over.wait(0.01)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.round()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._engine.dispose()


def _alter(cluster: Cluster, role: str, password: str) -> None:
    with cluster.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password)))


# a rotation


def test_rotations_under_four_busy_threads_cost_no_checkout(
    postgresql_cluster: Cluster, role: str, stored: Stored
) -> None:
    database = _database(postgresql_cluster, stored.credential(), role)
    rotator = PostgresqlUser(user=role, host="127.0.0.1", port=postgresql_cluster.port, dbname="postgres")
    seen = {stored.read()}
    with Work(database.engine(recycle=timedelta(0))) as work:
        for _ in range(5):
            Rotation(stored.store, stored.key, rotator).run(now=True, force=True)
            seen.add(stored.store.get(stored.key).reveal())
            work.round()
    assert (6, []) == (len(seen), work.failures)
    assert 6 <= stored.reads  # each password was refused once it had been replaced


def test_a_server_that_is_changed_before_its_store_costs_no_checkout_either(
    postgresql_cluster: Cluster, role: str, stored: Stored
) -> None:
    database = _database(postgresql_cluster, stored.credential(keeper=False), role)
    with Work(database.engine(recycle=timedelta(0))) as work:
        for number in range(3):
            _alter(postgresql_cluster, role, f"next-{number}")
            before = stored.reads
            while stored.reads < before + 2:  # clients have been refused and look for what has replaced it
                threading.Event().wait(0.01)
            stored.store.put(stored.key, f"next-{number}")
            work.round()
    assert [] == work.failures


def test_the_naive_client_fails_where_ours_does_not(postgresql_cluster: Cluster, role: str, stored: Stored) -> None:
    address = sqlalchemy.URL.create(
        "postgresql+psycopg", role, stored.read(), "127.0.0.1", postgresql_cluster.port, "postgres"
    )
    naive = sqlalchemy.create_engine(address, pool_size=THREADS, pool_pre_ping=True, pool_recycle=0)
    with Work(naive) as work:
        _alter(postgresql_cluster, role, "second")
        work.round()
    assert THREADS <= len(work.failures)


def test_connections_that_are_open_outlive_a_rotation(postgresql_cluster: Cluster, role: str, stored: Stored) -> None:
    engine = _database(postgresql_cluster, stored.credential(), role).engine(pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        _alter(postgresql_cluster, role, "second")
        assert 1 == connection.execute(sqlalchemy.text("SELECT 1")).scalar()
    engine.dispose()


def test_plain_connections_and_pools_of_others_take_part(
    postgresql_cluster: Cluster, role: str, stored: Stored
) -> None:
    database = _database(postgresql_cluster, stored.credential(), role)
    creator = sqlalchemy.create_engine("postgresql+psycopg://", creator=database.connect, pool_recycle=0)
    for password in ("first", "second", "third"):
        _alter(postgresql_cluster, role, password)
        stored.store.put(stored.key, password)
        with contextlib.closing(database.connect()) as connection:
            assert (role,) == connection.cursor().execute("SELECT current_user").fetchone()
        with creator.connect() as pooled:
            assert role == pooled.execute(sqlalchemy.text("SELECT current_user")).scalar()
    creator.dispose()
    assert 1 == database.unwrap(Real).asked  # where the server is, was asked for once


def test_psycopgs_own_pool_takes_part(postgresql_cluster: Cluster, role: str, stored: Stored) -> None:
    database = _database(postgresql_cluster, stored.credential(), role)

    class Shop(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **options: Any) -> Any:
            return database.connect()

    with ConnectionPool(connection_class=Shop, min_size=1, check=ConnectionPool.check_connection) as pool:
        for password in ("second", "third"):
            with pool.connection() as connection:
                assert (role,) == connection.execute("SELECT current_user").fetchone()
            _alter(postgresql_cluster, role, password)
            stored.store.put(stored.key, password)
            pool.drain()
        with pool.connection() as connection:
            assert (role,) == connection.execute("SELECT current_user").fetchone()


def test_an_address_is_asked_for_again_when_nobody_answers_there(
    postgresql_cluster: Cluster, role: str, stored: Stored
) -> None:
    database = _database(postgresql_cluster, stored.credential(), role)
    driver = database.unwrap(Real)
    right, wrong = driver.server, attrs.evolve(driver.server, port=1)
    driver.server = wrong
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match="refused"):
            database.connect()
    driver.server = right
    database.connect().close()
    assert 3 == driver.asked


# trouble


def test_a_wrong_password_is_told_in_the_servers_words_and_shows_nowhere(
    postgresql_cluster: Cluster, role: str, stored: Stored
) -> None:
    stored.store.put(stored.key, "c4n4ry")
    database = _database(postgresql_cluster, stored.credential(), role)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed") as caught:
        database.connect()
    engine = database.engine()
    with pytest.raises(sqlalchemy.exc.OperationalError, match="password authentication failed") as wrapped:
        engine.connect()
    for error in (caught.value, wrapped.value, wrapped.value.__cause__, wrapped.value.__context__):
        assert error is not None
        shown = f"{error} {error!r} {vars(error)} {getattr(error, 'pgconn', None)!r}"
        assert "c4n4ry" not in shown
    assert (
        "c4n4ry" not in f"{engine.url!r} {engine!r} {database.url()} {database.url()!r} {database.url().sqlalchemy()}"
    )


def test_a_pool_outlives_a_restart_of_the_server(role: str, stored: Stored) -> None:
    with temporary_cluster(tcp=True) as cluster:
        with cluster.connect(autocommit=True) as connection:
            connection.execute("CREATE ROLE rotated LOGIN PASSWORD 'first'")
        engine = _database(cluster, stored.credential(), role).engine(pool_size=2)
        with engine.connect() as one, engine.connect() as other:
            assert 2 == sum(each.execute(sqlalchemy.text("SELECT 1")).scalar() or 0 for each in (one, other))
        cluster.stop()
        with pytest.raises(sqlalchemy.exc.OperationalError, match="refused"):
            engine.connect()
        cluster.start()
        with engine.connect() as again:
            assert 1 == again.execute(sqlalchemy.text("SELECT 1")).scalar()
        engine.dispose()
    assert 1 == stored.reads


def test_a_server_that_never_answers_is_given_up(postgresql_cluster: Cluster, stored: Stored) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = _database(postgresql_cluster, stored.credential(), "x", port=silent.getsockname()[1])
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            database.connect(connect_timeout=timedelta(seconds=2))


def test_a_mysql_server_that_is_reached_and_never_answers_is_given_up(stored: Stored) -> None:
    soon = timedelta(seconds=1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = Server(host="127.0.0.1", port=silent.getsockname()[1], admin="x", tls=False)
        driver = Real(attrs.evolve(FEATURES, connect=True), server=where)
        spec = attrs.evolve(small_spec("conf"), engine="mysql", version="8.4", login=stored.credential(), user="x")
        database = Databases(driver).create(spec)
        with pytest.raises(pymysql.err.OperationalError, match="timed out"):
            database.connect(connect_timeout=soon)
        with pytest.raises(sqlalchemy.exc.OperationalError, match="timed out"):
            database.engine(connect_timeout=soon).connect()


@pytest.mark.parametrize(("given", "kept"), [({}, None), ({"read_timeout": 60}, 60)])
def test_a_statement_may_take_longer_than_logging_in(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, int], kept: int | None
) -> None:
    def reached(**options: Any) -> SimpleNamespace:
        return SimpleNamespace(_read_timeout=options["read_timeout"], begun_with=options["read_timeout"])

    monkeypatch.setattr(pymysql, "connect", reached)
    made: Any = mysql.connect(connect_timeout=7, **given)
    assert (kept or 7, kept) == (made.begun_with, made._read_timeout)


# TLS


def test_a_server_is_connected_to_with_tls_when_its_certificate_is_its_own(
    postgresql_cluster: Cluster, role: str, stored: Stored, tmp_path: Path
) -> None:
    ca, key = certificate(tmp_path, "db.example")
    with Encrypting(serving_tls(ca, key), postgresql_cluster.port) as front:
        database = _database(postgresql_cluster, stored.credential(), role, port=front.port, tls=True, ca=ca)
        with contextlib.closing(database.connect()) as connection:
            assert isinstance(connection, psycopg.Connection)
            assert connection.pgconn.ssl_in_use
        engine = database.engine()
        with engine.connect() as pooled:
            assert pooled.connection.driver_connection.pgconn.ssl_in_use  # type: ignore[union-attr]
        engine.dispose()


@pytest.mark.parametrize(
    ("name", "address", "trusted", "said"),
    [
        ("db.example", "127.0.0.9", True, "does not match host name"),
        ("db.example", "127.0.0.1", False, "certificate verify failed"),
    ],
)
def test_another_name_or_another_authority_ends_the_connection_before_the_password_is_sent(
    postgresql_cluster: Cluster,
    role: str,
    stored: Stored,
    tmp_path: Path,
    name: str,
    address: str,
    *,
    trusted: bool,
    said: str,
) -> None:
    ca, key = certificate(tmp_path, name, address)
    other, _ = certificate(tmp_path, "other.example")
    with Encrypting(serving_tls(ca, key), postgresql_cluster.port) as front:
        chosen = ca if trusted else other
        database = _database(postgresql_cluster, stored.credential(), role, port=front.port, tls=True, ca=chosen)
        with pytest.raises(psycopg.OperationalError, match=said):
            database.connect()
    assert 1 == stored.reads  # it is no refusal of the password


def test_a_server_without_tls_is_refused_where_tls_is_expected(
    postgresql_cluster: Cluster, role: str, stored: Stored, tmp_path: Path
) -> None:
    ca, _ = certificate(tmp_path, "db.example")
    with Encrypting(None, postgresql_cluster.port) as front:
        database = _database(postgresql_cluster, stored.credential(), role, port=front.port, tls=True, ca=ca)
        with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
            database.connect()
