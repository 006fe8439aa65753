"""Machines of hosters keep the rules for machines, at doubles that have the hosters' limits and oddities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis.stateful import run_state_machine_as_test

from shiftable.compute import Compute
from shiftable.compute.driver import ComputeDriver
from shiftable.testing.conformance.compute import ComputeConformance, Sleep, compute_machine, small_fleet
from shiftable_libcloud import LibcloudProvider
from shiftable_libcloud.double import HosterDouble

from .hostile import quickly


def at_once(_seconds: float) -> None:
    """Let time pass: the doubles count looks, not seconds."""


class Machines(ComputeConformance):
    """The conformance suite.

    Attributes:
        hoster: its name, in that of the fixture that has a provider for it.
    """

    unknown_images = ("debian-99", "99999999")

    hoster: ClassVar[str]

    @pytest.fixture
    def driver(self, request: pytest.FixtureRequest) -> Iterator[ComputeDriver]:
        driver = request.getfixturevalue(f"{self.hoster}_provider").compute()
        yield driver
        driver.close()

    @pytest.fixture
    def sleep(self) -> Sleep:
        return at_once


class TestDroplets(Machines):
    hoster: ClassVar[str] = "digitalocean"


class TestLinodes(Machines):
    hoster: ClassVar[str] = "linode"


HOSTERS = {"digitalocean": "droplets", "linode": "linodes"}


@pytest.fixture(params=list(HOSTERS))
def hoster(request: pytest.FixtureRequest) -> HosterDouble:
    double = request.getfixturevalue(request.param)
    assert isinstance(double, HosterDouble)
    return double


@pytest.fixture
def provider(request: pytest.FixtureRequest, hoster: HosterDouble) -> LibcloudProvider:
    provider = request.getfixturevalue(f"{hoster.config['hoster']}_provider")
    assert isinstance(provider, LibcloudProvider)
    return provider


def test_the_driver_does_what_the_model_does(provider: LibcloudProvider, hoster: HosterDouble) -> None:
    def make_driver() -> ComputeDriver:
        hoster.reset()
        return provider.compute()

    run_state_machine_as_test(compute_machine(make_driver, at_once), settings=quickly(12, 10))


def test_two_hundred_and_fifty_machines_are_listed_in_few_calls(
    provider: LibcloudProvider, hoster: HosterDouble
) -> None:
    compute = Compute(provider.compute(), sleep=at_once)
    fleet = compute.create(small_fleet(count=250))
    for machines in (fleet.machines, compute.machines):
        before = Counter(call.operation for call in hoster.calls)
        assert 250 == len(list(machines()))
        made = Counter(call.operation for call in hoster.calls) - before
        assert {f"{HOSTERS[hoster.config['hoster']]}.list": 2, "firewalls.list": 1} == made
