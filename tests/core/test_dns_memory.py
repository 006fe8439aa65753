"""The memory driver of DNS keeps every rule for DNS drivers."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.dns.driver import DnsDriver, RecordSet
from shiftable.errors import OperationError
from shiftable.features import Limit
from shiftable.memory.dns import FEATURES, MemoryDnsDriver
from shiftable.paging import Page
from shiftable.testing.conformance.dns import DnsConformance, Observed, dns_machine, observed

LESSER = attrs.evolve(
    FEATURES,
    title="a lesser provider",
    types=frozenset({"A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"}),
    any_name=False,
    policy=False,
    apex_ns=False,
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


def test_any_sequence_of_writes_leaves_the_zone_as_a_dictionary_says() -> None:
    quick = settings(max_examples=50, stateful_step_count=25, deadline=None, database=None, derandomize=True)
    run_state_machine_as_test(dns_machine(lambda: MemoryDnsDriver(page_size=3)), settings=quick)


class TtlIsForgotten(MemoryDnsDriver):
    """A driver that breaks a rule: its listing of the whole zone tells a TTL of its own."""

    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        page = super().records(zone, name=name, cursor=cursor, limit=limit)
        if name is not None:
            return page
        return Page(tuple(attrs.evolve(record, ttl=60) for record in page.items), page.next)


def test_the_machine_finds_a_driver_that_breaks_a_rule() -> None:
    search = settings(max_examples=100, phases=[Phase.generate], deadline=None, database=None, derandomize=True)
    with pytest.raises((AssertionError, OperationError)):
        run_state_machine_as_test(dns_machine(TtlIsForgotten), settings=search)
