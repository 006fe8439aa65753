"""Private PostgreSQL servers keep the rules of all databases, and lose nothing to whoever is killed."""

from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from shiftable.database.driver import DatabaseDriver
from shiftable.postgresql import all_binaries
from shiftable.testing.conformance import database as conformance
from shiftable.testing.conformance.database import DatabaseConformance, small_spec
from shiftable_baremetal.database import PrivateDatabaseDriver

VERSION = str(max(found.major for found in all_binaries()))


@pytest.fixture(autouse=True)
def _version_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the rules ask for a version that is here: PyPI's wheel has one, Debian another."""

    def spec(name: str, **options: str) -> object:
        return attrs.evolve(small_spec(name, **options), version=VERSION)

    monkeypatch.setattr(conformance, "small_spec", spec)


class TestPrivateDatabase(DatabaseConformance):
    many: ClassVar[int] = 7  # each is a server of 40 MB

    @pytest.fixture
    def driver(self, tmp_path: Path) -> DatabaseDriver:
        return PrivateDatabaseDriver(tmp_path / "database", fsync=False, page_size=3)
