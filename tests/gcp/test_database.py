"""Cloud SQL keeps the rules for databases, at a double that keeps Google's."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.database.driver import DatabaseDriver
from shiftable.testing.conformance.database import DatabaseConformance, Sleep, database_machine
from shiftable_gcp import GcpProvider
from shiftable_gcp.double import GcpDouble


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def _no_time(_seconds: float) -> None:
    """Let no time pass: operations are done after so many looks at them."""


class TestCloudSql(DatabaseConformance):
    @pytest.fixture
    def driver(self, provider: GcpProvider) -> DatabaseDriver:
        return provider.database()

    @pytest.fixture
    def sleep(self) -> Sleep:
        return _no_time


class TestCloudSqlWhenItTakesLong(TestCloudSql):
    many = 5

    @pytest.fixture(autouse=True)
    def _slow(self, gcp_double: GcpDouble) -> None:
        gcp_double.sql.polls = 9


def test_the_driver_does_what_the_model_does(provider: GcpProvider, gcp_double: GcpDouble) -> None:
    def make_driver() -> DatabaseDriver:
        gcp_double.reset()
        gcp_double.sql.name_delay = timedelta(0)  # the machine has three names, and takes them again and again
        return provider.database()

    run_state_machine_as_test(database_machine(make_driver, _no_time), settings=settings.get_profile("machine"))
