"""Azure's virtual machines keep the rules for machines, at a double that keeps Azure's."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine
from shiftable_azure.compute import AzureComputeDriver
from shiftable_azure.double import AzureDouble


class AzureMachines(ComputeConformance):
    @pytest.fixture
    def driver(self, azure_double: AzureDouble, compute_driver: AzureComputeDriver) -> AzureComputeDriver:
        azure_double.machines.page_size = 60
        return compute_driver

    @pytest.fixture
    def sleep(self, azure_double: AzureDouble) -> Sleep:
        return azure_double.clock.advance


class TestAzureMachines(AzureMachines):
    """Everything is done at once."""


class TestSlowAzureMachines(AzureMachines):
    """Each operation takes its time, and pages are small."""

    many = 25

    @pytest.fixture
    def driver(self, azure_double: AzureDouble, compute_driver: AzureComputeDriver) -> AzureComputeDriver:
        azure_double.machines.endings.delay = timedelta(seconds=4)
        azure_double.machines.page_size = 7
        azure_double.network.page_size = 5
        return compute_driver


def test_the_driver_does_what_the_model_does(azure_double: AzureDouble, compute_driver: AzureComputeDriver) -> None:
    def make_driver() -> AzureComputeDriver:
        azure_double.reset()
        azure_double.machines.endings.delay = timedelta(seconds=4)
        return compute_driver

    quick = settings(
        max_examples=8,
        stateful_step_count=10,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    run_state_machine_as_test(compute_machine(make_driver, sleep=azure_double.clock.advance), settings=quick)
