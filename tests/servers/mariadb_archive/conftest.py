"""A MariaDB server whose log is archived, and a service on it that leaves no database behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shiftable.database import Databases

from ..archived_mariadb import OPTIONS, driver_of
from ..conftest import Debian
from ..mysql_pair import MariaDb, maria_db


@pytest.fixture(scope="module")
def server(debian: Debian, _somebody_else: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    with maria_db(debian, tmp_path_factory.mktemp("archived") / "office", *OPTIONS) as made:
        yield made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "servers"


@pytest.fixture
def databases(server: MariaDb, root: Path) -> Iterator[Databases]:
    service = Databases(driver_of(server, root))
    yield service
    for database in service.list():
        service.delete(database.name, final_snapshot=False)
