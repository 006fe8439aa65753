"""Connections to a real MariaDB: rotations under load, users who are locked, and its own words for what is wrong."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import attrs
import pymysql
import pytest
import sqlalchemy

from shiftable.config import Credential
from shiftable.database import Database, DatabaseInfo, Databases, Server
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver
from shiftable.testing.conformance.database import small_spec

from .conftest import DatabaseServer

THREADS = 4
USERS = ("conn_a", "conn_b")


@attrs.define
class Real(MemoryDatabaseDriver):
    """Databases whose server is a real one."""

    port: int = attrs.field(kw_only=True)

    def info(self, name: str) -> DatabaseInfo:
        server = Server(host="127.0.0.1", port=self.port, admin="admin", tls=False)
        return attrs.evolve(MemoryDatabaseDriver.info(self, name), server=server)


@attrs.define
class Stored:
    """A secret, and how often it was read."""

    value: str
    reads: int = 0

    def read(self, _: str) -> str:
        self.reads += 1
        return self.value

    def become(self, user: str, password: str) -> None:
        self.value = json.dumps({"username": user, "password": password})


Execute = Callable[[str], None]


@pytest.fixture
def execute(mariadb: DatabaseServer) -> Iterator[Execute]:
    """Act as the administrator, and make two users before."""
    where = {"host": "127.0.0.1", "port": mariadb.port, "user": mariadb.admin, "password": mariadb.password}
    with contextlib.closing(pymysql.connect(**where, autocommit=True)) as connection:  # type: ignore[arg-type]

        def act(statement: str) -> None:
            connection.cursor().execute(statement)

        for user in USERS:
            act(f"CREATE OR REPLACE USER {user}@'127.0.0.1' IDENTIFIED BY 'first'")
        yield act
        for user in USERS:
            act(f"DROP USER {user}@'127.0.0.1'")


@pytest.fixture
def stored(execute: Execute) -> Stored:
    """What the application reads: the login of a user who exists."""
    made = Stored("")
    made.become("conn_a", "first")
    return made


@pytest.fixture
def database(mariadb: DatabaseServer, stored: Stored) -> Database:
    driver = Real(attrs.evolve(FEATURES, connect=True), port=mariadb.port)
    login = Credential.secret("app/db", stored.read)
    spec = attrs.evolve(small_spec("conf"), engine="mariadb", version="10.11", databases=(), login=login)
    return Databases(driver).create(spec)


def _whoami(connection: Any) -> str:
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)")
        return str(cursor.fetchone()[0])


def test_rotations_under_four_busy_threads_cost_no_checkout(
    database: Database, stored: Stored, execute: Execute
) -> None:
    engine = database.engine(pool_size=THREADS, recycle=timedelta(0))
    over, done, failures = threading.Event(), [0] * THREADS, []

    def work(number: int) -> None:
        while not over.is_set():
            try:
                with engine.connect() as connection:
                    connection.execute(sqlalchemy.text("SELECT 1"))
            except sqlalchemy.exc.DBAPIError as exc:
                failures.append(exc)
            done[number] += 1

    def each_twice() -> None:
        least = [count + 2 for count in done]
        while any(count < wanted for count, wanted in zip(done, least, strict=True)):
            assert any(thread.is_alive() for thread in threads)
            over.wait(0.01)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        each_twice()
        for number in range(3):
            execute(f"ALTER USER conn_a@'127.0.0.1' IDENTIFIED BY 'next-{number}'")
            before = stored.reads
            while stored.reads < before + 2:  # clients were refused and look for what has replaced it
                over.wait(0.01)
            stored.become("conn_a", f"next-{number}")
            each_twice()
    finally:
        over.set()
        for thread in threads:
            thread.join()
        engine.dispose()
    assert [] == failures


def test_a_user_who_was_locked_is_followed_by_the_one_whose_turn_it_is(
    database: Database, stored: Stored, execute: Execute
) -> None:
    assert "conn_a" == _whoami(database.connect())
    stored.become("conn_b", "first")
    execute("ALTER USER conn_a@'127.0.0.1' ACCOUNT LOCK")
    assert "conn_b" == _whoami(database.connect())


def test_a_statement_takes_longer_than_logging_in_may(database: Database) -> None:
    soon = timedelta(seconds=1)
    with contextlib.closing(database.connect(connect_timeout=soon)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT SLEEP(1.5)")
        assert 0 == cursor.fetchone()[0]
    with database.engine(connect_timeout=soon).connect() as other:
        assert 0 == other.execute(sqlalchemy.text("SELECT SLEEP(1.5)")).scalar()


def test_what_is_no_refusal_is_told_at_once(database: Database, stored: Stored) -> None:
    with pytest.raises(pymysql.err.OperationalError) as caught:
        database.connect("no_such_database")
    assert caught.value.args[0] in {1044, 1049}, caught.value
    assert 1 == stored.reads


def test_a_wrong_password_is_told_in_the_servers_words_and_shows_nowhere(database: Database, stored: Stored) -> None:
    stored.become("conn_a", "c4n4ry")
    with pytest.raises(pymysql.err.OperationalError, match="Access denied") as caught:
        database.connect()
    assert 1045 == caught.value.args[0]
    assert "c4n4ry" not in f"{caught.value!r} {vars(caught.value)} {database.url()!r} {database.url()}"
