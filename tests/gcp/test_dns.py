"""Cloud DNS keeps the rules for zones and records, at a double that keeps Google's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.dns.driver import DnsDriver
from shiftable.testing.conformance.dns import DnsConformance, Observed, dns_machine
from shiftable_gcp import GcpProvider
from shiftable_gcp import dns as cloud_dns
from shiftable_gcp.double import GcpDouble


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_dns, "_SOON", cloud_dns._SOON / 1000)


class TestCloudDns(DnsConformance):
    @pytest.fixture
    def driver(self, provider: GcpProvider) -> DnsDriver:
        return provider.dns()

    @pytest.fixture
    def oracle(self, gcp_double: GcpDouble) -> Callable[[str], Observed]:
        """Read the double's own objects, as ``gcloud`` would show them."""

        def look(zone: str) -> Observed:
            (found,) = (each for each in gcp_double.dns.zones.values() if each.dns_name == f"{zone}.")
            return {each.key: (each.ttl, frozenset(_parsed(each.type, each.rrdatas))) for each in found.sets.values()}

        return look


def _parsed(kind: str, texts: tuple[str, ...]) -> list[Any]:
    number = dns.rdatatype.from_text(kind)
    return [dns.rdata.from_text(dns.rdataclass.IN, number, text) for text in texts]


def test_the_driver_does_what_the_model_does(provider: GcpProvider, gcp_double: GcpDouble) -> None:
    def make_driver() -> DnsDriver:
        gcp_double.reset()
        return provider.dns()

    run_state_machine_as_test(dns_machine(make_driver), settings=settings.get_profile("machine"))
