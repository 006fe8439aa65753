"""Databases on a real MariaDB server: the rules of all databases, and what is MariaDB's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pymysql
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.config import Credential
from shiftable.database import DatabaseSpec
from shiftable.database.driver import DatabaseDriver
from shiftable.testing.conformance import database as conformance
from shiftable.testing.conformance.database import DatabaseConformance, database_machine, small_spec
from shiftable_baremetal import MariadbSettings
from shiftable_baremetal.database_servers import ServerDatabaseDriver, open_server

from .conftest import DatabaseServer, Debian

CANARY = "c4n4ry'\"\\%s-pässwörd"


@pytest.fixture(autouse=True)
def _programs_find_their_libraries(debian: Debian, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, debian.environ[name])


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
