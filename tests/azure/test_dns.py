"""Azure DNS keeps the rules for DNS, at a double that keeps Azure's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.testing.conformance.dns import DnsConformance, Observed, dns_machine
from shiftable_azure._arm import ArmSession
from shiftable_azure._features import SIGNED_DNS
from shiftable_azure.dns import AzureDnsDriver
from shiftable_azure.double import AzureDouble

FIELDS = {
    "A": ("ARecords", "{ipv4Address}"),
    "AAAA": ("AAAARecords", "{ipv6Address}"),
    "CAA": ("caaRecords", '{flags} {tag} "{value}"'),
    "CNAME": ("CNAMERecord", "{cname}"),
    "DS": ("DSRecords", "{keyTag} {algorithm} {digest[algorithmType]} {digest[value]}"),
    "MX": ("MXRecords", "{preference} {exchange}"),
    "NAPTR": ("NAPTRRecords", '{order} {preference} "{flags}" "{services}" "{regexp}" {replacement}'),
    "NS": ("NSRecords", "{nsdname}"),
    "PTR": ("PTRRecords", "{ptrdname}"),
    "SOA": ("SOARecord", "{host} {email} {serialNumber} {refreshTime} {retryTime} {expireTime} {minimumTTL}"),
    "SRV": ("SRVRecords", "{priority} {weight} {port} {target}"),
    "TLSA": ("TLSARecords", "{usage} {selector} {matchingType} {certificateAssociationData}"),
}


def parsed(kind: str, value: Any) -> Any:
    """Return what dnspython makes of a value in Azure's words."""
    number = dns.rdatatype.from_text(kind)
    if kind == "TXT":
        strings = tuple(part.encode() for part in value["value"])
        return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, number, strings)
    escaped = {name: part.replace("\\", "\\\\") if isinstance(part, str) else part for name, part in value.items()}
    text = FIELDS[kind][1].format(**escaped)
    return dns.rdata.from_text(dns.rdataclass.IN, number, text, origin=dns.name.root, relativize=False)


def held(double: AzureDouble, zone: str) -> Observed:
    """Read a zone out of the double's state."""
    found: dict[tuple[str, str], tuple[int, frozenset[Any]]] = {}
    for (name, kind), stored in double.dns.zone(zone).sets.items():
        values = stored.properties["TXTRecords" if kind == "TXT" else FIELDS[kind][0]]
        owner = f"{zone}." if name == "@" else f"{name}.{zone}."
        rdatas = frozenset(parsed(kind, value) for value in (values if isinstance(values, list) else [values]))
        found[owner, kind] = (stored.properties["TTL"], rdatas)
    return found


class AzureDns(DnsConformance):
    @pytest.fixture
    def oracle(self, azure_double: AzureDouble) -> Callable[[str], Observed]:
        return lambda zone: held(azure_double, zone)


class TestAzureDns(AzureDns):
    @pytest.fixture
    def driver(self, dns_driver: AzureDnsDriver) -> AzureDnsDriver:
        return dns_driver


class TestSignedAzureDns(AzureDns):
    @pytest.fixture
    def driver(self, arm: ArmSession, azure_double: AzureDouble) -> AzureDnsDriver:
        azure_double.dns.signs = True
        return AzureDnsDriver(arm, SIGNED_DNS)


def test_the_driver_does_what_the_model_does(arm: ArmSession, azure_double: AzureDouble) -> None:
    def make_driver() -> AzureDnsDriver:
        azure_double.reset()
        return AzureDnsDriver(arm)

    quick = settings(
        max_examples=12,
        stateful_step_count=12,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(dns_machine(make_driver), settings=quick)
