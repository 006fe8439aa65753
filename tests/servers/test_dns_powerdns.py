"""The driver for PowerDNS against PowerDNS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shiftable.config import Credential
from shiftable.testing.conformance.dns import DnsConformance, Observed
from shiftable_baremetal import PowerdnsSettings
from shiftable_baremetal.dns_powerdns import PowerdnsDriver, open_powerdns


def opened(server: Any, **more: Any) -> PowerdnsDriver:
    settings = PowerdnsSettings(address=server.url, api_key=Credential.literal(server.api_key), **more)
    return open_powerdns(settings, ("ns1.outside.test.",))


class TestPowerdns(DnsConformance):
    @pytest.fixture
    def driver(self, powerdns: Any) -> Iterator[PowerdnsDriver]:
        made = opened(powerdns)
        yield made
        made.close()

    @pytest.fixture
    def oracle(self, powerdns: Any) -> Callable[[str], Observed]:
        return powerdns.held
