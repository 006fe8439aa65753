"""Droplets keep the rules for machines, at a double that has DigitalOcean's limits and oddities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.compute import Compute
from shiftable.compute.driver import ComputeDriver
from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine, small_fleet
from shiftable_libcloud import LibcloudProvider
from shiftable_libcloud.double import DigitalOceanDouble


def at_once(_seconds: float) -> None:
    """Let time pass: the double counts looks, not seconds."""


class TestDroplets(ComputeConformance):
    @pytest.fixture
    def driver(self, provider: LibcloudProvider) -> Iterator[ComputeDriver]:
        driver = provider.compute()
        yield driver
        driver.close()

    @pytest.fixture
    def sleep(self) -> Sleep:
        return at_once


def test_the_driver_does_what_the_model_does(provider: LibcloudProvider, digitalocean: DigitalOceanDouble) -> None:
    def make_driver() -> ComputeDriver:
        digitalocean.reset()
        return provider.compute()

    quick = settings(
        max_examples=12,
        stateful_step_count=10,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(compute_machine(make_driver, at_once), settings=quick)


def test_two_hundred_and_fifty_machines_are_listed_in_three_calls(
    provider: LibcloudProvider, digitalocean: DigitalOceanDouble
) -> None:
    compute = Compute(provider.compute(), sleep=at_once)
    fleet = compute.create(small_fleet(count=250))
    before = Counter(call.operation for call in digitalocean.calls)
    assert 250 == len(list(fleet.machines()))
    assert {"droplets.list": 2, "firewalls.list": 1} == Counter(call.operation for call in digitalocean.calls) - before
    before = Counter(call.operation for call in digitalocean.calls)
    assert 250 == len(list(compute.machines()))
    assert {"droplets.list": 2, "firewalls.list": 1} == Counter(call.operation for call in digitalocean.calls) - before
