"""Databases on a PostgreSQL server that others run keep the rules of all databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.config import Credential
from shiftable.database import DatabaseSpec
from shiftable.database.driver import DatabaseDriver
from shiftable.postgresql import Cluster, all_binaries, temporary_cluster
from shiftable.testing.conformance import database as conformance
from shiftable.testing.conformance.database import DatabaseConformance, database_machine, small_spec
from shiftable_baremetal import PostgresqlSettings
from shiftable_baremetal.database_servers import ServerDatabaseDriver, open_server

BINARIES = max((found for found in all_binaries() if (found.folder / "pg_restore").exists()), key=lambda it: it.major)
MANAGER = "the manager's pässwörd:\\"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Run a server whose manager may make roles and databases, and is no superuser."""
    with temporary_cluster(BINARIES) as server:
        with server.connect(autocommit=True) as connection:
            made = connection.pgconn.encrypt_password(MANAGER.encode(), b"manager", b"scram-sha-256").decode()
            connection.execute(f"CREATE ROLE manager LOGIN CREATEDB CREATEROLE PASSWORD '{made}'".encode())
        yield server


def driver_of(cluster: Cluster, root: Path) -> ServerDatabaseDriver:
    known = PostgresqlSettings(
        host=cluster.host,
        user="manager",
        password=Credential.literal(MANAGER),
        programs=cluster.binaries.folder,
    )
    return attrs.evolve(open_server(known, root), page_size=3)


def spec_of(name: str, **options: str) -> DatabaseSpec:
    return attrs.evolve(small_spec(name, **options), version=str(BINARIES.major))


@pytest.fixture(autouse=True)
def _version_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "small_spec", spec_of)


@pytest.fixture(autouse=True)
def _all_is_gone_afterwards(cluster: Cluster) -> Iterator[None]:
    yield
    with cluster.connect() as connection:
        databases = "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')"
        assert [] == connection.execute(databases).fetchall()
        roles = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname NOT IN ('postgres', 'manager')"
        assert [] == connection.execute(roles).fetchall()


class TestPostgresqlServer(DatabaseConformance):
    many: ClassVar[int] = 7  # each has a database of 7 MB

    @pytest.fixture
    def driver(self, cluster: Cluster, tmp_path: Path) -> DatabaseDriver:
        return driver_of(cluster, tmp_path / "servers")


def test_any_sequence_of_calls_leaves_the_server_as_a_plain_dictionary_says(cluster: Cluster, tmp_path: Path) -> None:
    machine = database_machine(lambda: driver_of(cluster, tmp_path / "servers"))
    phases = (Phase.explicit, Phase.generate)
    run_state_machine_as_test(machine, settings=settings(max_examples=6, stateful_step_count=10, phases=phases))
