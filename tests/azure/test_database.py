"""Azure Database keeps the rules for databases, at a double that keeps Azure's."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.testing.conformance.database import DatabaseConformance, Sleep, database_machine
from shiftable_azure.database import AzureDatabaseDriver
from shiftable_azure.double import AzureDouble


class AzureDatabases(DatabaseConformance):
    @pytest.fixture
    def driver(self, azure_double: AzureDouble, database_driver: AzureDatabaseDriver) -> AzureDatabaseDriver:
        azure_double.databases.on_demand = 1000
        azure_double.databases.cpus = 1_000_000
        azure_double.databases.page_size = 25
        return database_driver

    @pytest.fixture
    def sleep(self, azure_double: AzureDouble) -> Sleep:
        return azure_double.clock.advance


class TestAzureDatabases(AzureDatabases):
    """Everything is done at once."""


class TestSlowAzureDatabases(AzureDatabases):
    """Each operation takes minutes."""

    many = 30

    @pytest.fixture
    def driver(self, azure_double: AzureDouble, database_driver: AzureDatabaseDriver) -> AzureDatabaseDriver:
        azure_double.databases.delay = timedelta(minutes=2)
        azure_double.databases.on_demand = 1000
        azure_double.databases.page_size = 7
        return database_driver


def test_the_driver_does_what_the_model_does(azure_double: AzureDouble, database_driver: AzureDatabaseDriver) -> None:
    def make_driver() -> AzureDatabaseDriver:
        azure_double.reset()
        azure_double.databases.delay = timedelta(seconds=40)
        return database_driver

    quick = settings(
        max_examples=10,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    run_state_machine_as_test(database_machine(make_driver, sleep=azure_double.clock.advance), settings=quick)
