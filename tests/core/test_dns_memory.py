"""The memory driver of DNS keeps every rule for DNS drivers."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import settings

from shiftable.dns.driver import DnsDriver
from shiftable.features import Limit
from shiftable.memory.dns import FEATURES, MemoryDnsDriver
from shiftable.testing.conformance.dns import DnsConformance, DnsMachine, Observed, observed

LESSER = attrs.evolve(
    FEATURES,
    title="a lesser provider",
    types=frozenset({"A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"}),
    any_name=False,
    policy=False,
    atomic_batch=False,
    max_batch=Limit(10, "chosen"),
    max_values=Limit(100, "chosen"),
    max_rdata=Limit(4000, "chosen"),
    min_ttl=Limit(1, "chosen"),
)


class TestMemoryDns(DnsConformance):
    @pytest.fixture
    def driver(self) -> DnsDriver:
        return MemoryDnsDriver()

    @pytest.fixture
    def oracle(self, driver: DnsDriver) -> Callable[[str], Observed]:
        assert isinstance(driver, MemoryDnsDriver)
        return lambda zone: observed(list(driver._zones[zone].values()))


class TestLesserDns(DnsConformance):
    """The rules hold for a driver that can do less, too: what it cannot is refused."""

    @pytest.fixture
    def driver(self) -> DnsDriver:
        return MemoryDnsDriver(LESSER)


class MemoryMachine(DnsMachine):
    def make_driver(self) -> DnsDriver:
        return MemoryDnsDriver(page_size=3)


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
