"""DigitalOcean's DNS keeps the rules for zones and records, at a double that has its limits and oddities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shiftable.dns.driver import DnsDriver
from shiftable.testing.conformance.dns import DnsMachine, Observed
from shiftable_libcloud import LibcloudProvider
from shiftable_libcloud.double import DigitalOceanDouble

from .one_text import OneText


class TestDigitalOceanDns(OneText):
    @pytest.fixture
    def driver(self, provider: LibcloudProvider) -> Iterator[DnsDriver]:
        driver = provider.dns()
        yield driver
        driver.close()

    @pytest.fixture
    def oracle(self, digitalocean: DigitalOceanDouble) -> Callable[[str], Observed]:
        """Read the double's own records, as ``doctl`` would show them."""

        def look(zone: str) -> Observed:
            found: dict[tuple[str, str], tuple[int, frozenset[Any]]] = {}
            for row in digitalocean.domains.all[zone].records.values():
                owner = f"{zone}." if row["name"] == "@" else f"{row['name']}.{zone}."
                values = found.get((owner, row["type"]), (row["ttl"], frozenset()))[1]
                found[owner, row["type"]] = (row["ttl"], values | {_parsed(zone, row)})
            return found

        return look


def _parsed(zone: str, row: dict[str, Any]) -> Any:
    kind, data = row["type"], row["data"]
    if kind == "SOA":
        data = f"ns1.digitalocean.com. hostmaster.{zone}. 1 10800 3600 604800 {data}"
    elif kind == "TXT":
        data = " ".join(f'"{data[at : at + 255]}"' for at in range(0, len(data), 255))
    elif kind == "CAA":
        data = f'{row["flags"]} {row["tag"]} "{data}"'
    elif kind in {"CNAME", "MX", "NS", "SRV"}:
        host = f"{zone}." if data == "@" else "." if data == "." else f"{data}."
        numbers = {"MX": ["priority"], "SRV": ["priority", "weight", "port"]}.get(kind, [])
        data = " ".join([*(str(row[number]) for number in numbers), host])
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), data)


def test_the_driver_does_what_the_model_does(provider: LibcloudProvider, digitalocean: DigitalOceanDouble) -> None:
    class Machine(DnsMachine):
        values: ClassVar = {**DnsMachine.values, "TXT": ('"a b"', '"ab"', '"AB"')}

        def make_driver(self) -> DnsDriver:
            digitalocean.reset()
            return provider.dns()

    quick = settings(
        max_examples=15,
        stateful_step_count=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=quick)
