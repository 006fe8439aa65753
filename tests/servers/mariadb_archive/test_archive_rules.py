"""Databases on a MariaDB server whose log is archived keep the rules of all databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from shiftable.database import Database, Databases
from shiftable.database.driver import DatabaseDriver
from shiftable.testing.conformance import database as conformance
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.database import DatabaseConformance

from ...baremetal.archived_server import archiving
from ..archived_mariadb import OPTIONS, declared, driver_of, second
from ..conftest import Debian
from ..mysql_pair import MariaDb, maria_db


@pytest.fixture(scope="module")
def archived(
    debian: Debian, _somebody_else: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[MariaDb, Path]]:
    """Archive the log of a server that has one base backup."""
    folder = tmp_path_factory.mktemp("archived")
    with maria_db(debian, folder / "office", *OPTIONS) as server, pytest.MonkeyPatch.context() as patch:
        for name in ("PATH", "LD_LIBRARY_PATH"):
            patch.setenv(name, debian.environ[name])
        databases = Databases(driver_of(server, folder / "servers"))
        with archiving(databases):
            databases.back_up()
            yield server, folder / "servers"


@pytest.fixture(autouse=True)
def _engine_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "small_spec", declared)


class TestArchivedMariadbServer(DatabaseConformance):
    many: ClassVar[int] = 7

    @pytest.fixture
    def driver(self, archived: tuple[MariaDb, Path]) -> DatabaseDriver:
        return attrs.evolve(driver_of(*archived), page_size=3)

    @differs("the log has whole seconds: of that in which a database was made nothing is there")
    def test_a_time_is_restored_into_a_new_server(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        later, real = second(), Database.info
        monkeypatch.setattr(Database, "info", lambda self: attrs.evolve(real(self), created=later))
        super().test_a_time_is_restored_into_a_new_server(database)
