"""Route 53 keeps the rules for DNS, at a double that keeps Route 53's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import botocore.session
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.dns import Dns, Policy, RecordChange, RecordSet, Zone, ZoneSpec
from shiftable.dns.driver import DnsDriver
from shiftable.testing.conformance.dns import DnsConformance, Observed, dns_machine
from shiftable_aws import AwsProvider
from shiftable_aws.dns import FEATURES, Route53Driver
from shiftable_aws.double import AwsDouble

Client = Any


def zone_id(double: AwsDouble, name: str) -> str:
    (found,) = [zone.resource_id for zone in double.backend("route53", "aws").zones.values() if zone.name == f"{name}."]
    return str(found)


def held(double: AwsDouble, name: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return what the double holds, in Route 53's words."""
    return double.dns.records(zone_id(double, name))


def decimal(text: str) -> str:
    """Read Route 53's octal escapes; a backslash that is escaped stays."""
    pieces = re.split(r"(\\\\|\\[0-7]{3})", text)
    return "".join(f"\\{int(p[1:], 8):03d}" if re.fullmatch(r"\\[0-7]{3}", p) else p for p in pieces)


def look(double: AwsDouble, zone: str) -> Observed:
    found = {}
    for (name, kind, _), record in held(double, zone).items():
        number = dns.rdatatype.from_text(kind)
        values = [decimal(entry["Value"]) for entry in record.get("ResourceRecords", ())]
        owner = dns.name.from_text(decimal(name)).to_text().lower()
        parsed = frozenset(dns.rdata.from_text(dns.rdataclass.IN, number, value) for value in values)
        found[owner, kind] = (record.get("TTL", 0), parsed)
    return found


@pytest.fixture
def zone(provider: AwsProvider) -> Zone:
    return Dns(provider.dns()).create(ZoneSpec(name="shop.example"))


class TestRoute53(DnsConformance):
    @pytest.fixture
    def driver(self, provider: AwsProvider) -> DnsDriver:
        return provider.dns()

    @pytest.fixture
    def oracle(self, aws_double: AwsDouble) -> Callable[[str], Observed]:
        return lambda zone: look(aws_double, zone)


def test_the_driver_does_what_the_model_does(provider: AwsProvider, aws_double: AwsDouble) -> None:
    def make_driver() -> DnsDriver:
        aws_double.reset()
        return provider.dns()

    quick = settings(
        max_examples=15,
        stateful_step_count=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(dns_machine(make_driver), settings=quick)
