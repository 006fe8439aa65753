"""Databases on a PostgreSQL server whose log is archived keep the rules of all databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from shiftable.database import Databases, DatabaseSpec
from shiftable.database.driver import DatabaseDriver
from shiftable.postgresql import Cluster
from shiftable.testing.conformance import database as conformance
from shiftable.testing.conformance.database import DatabaseConformance, small_spec

from .archived_server import BINARIES, archiving, driver_of, serving


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    """Archive the log of a server that has one base backup."""
    root = tmp_path_factory.mktemp("archive") / "servers"
    with serving() as cluster:
        databases = Databases(driver_of(cluster, root))
        with archiving(databases):
            databases.back_up()
            yield cluster, root
        databases.end_archive()
        with cluster.connect() as connection:
            assert [] == connection.execute("SELECT slot_name FROM pg_replication_slots").fetchall()


def spec_of(name: str, **options: str) -> DatabaseSpec:
    return attrs.evolve(small_spec(name, **options), version=str(BINARIES.major))


@pytest.fixture(autouse=True)
def _version_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "small_spec", spec_of)


class TestArchivedServer(DatabaseConformance):
    many: ClassVar[int] = 7  # each has a database of 7 MB

    @pytest.fixture
    def driver(self, archived: tuple[Cluster, Path]) -> DatabaseDriver:
        return attrs.evolve(driver_of(*archived), page_size=3)
