"""DigitalOcean's DNS keeps the rules for zones and records, at a double that has its limits and oddities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis.stateful import run_state_machine_as_test

from shiftable.dns.driver import DnsDriver
from shiftable.testing.conformance.dns import DnsMachine, Observed
from shiftable_libcloud import LibcloudProvider
from shiftable_libcloud.double import DigitalOceanDouble

from .hostile import quickly
from .one_text import OneText, hosted, observed, quoted


class TestDigitalOceanDns(OneText):
    hoster: ClassVar[str] = "digitalocean"

    @pytest.fixture
    def oracle(self, digitalocean: DigitalOceanDouble) -> Callable[[str], Observed]:
        """Read the double's own records, as ``doctl`` would show them."""

        def look(zone: str) -> Observed:
            rows = digitalocean.domains.all[zone].records.values()
            return observed(zone, [(row["name"], row["type"], row["ttl"], _text(zone, row)) for row in rows])

        return look


def _text(zone: str, row: dict[str, Any]) -> str:
    kind, data = row["type"], str(row["data"])
    if kind == "SOA":
        return f"ns1.digitalocean.com. hostmaster.{zone}. 1 10800 3600 604800 {data}"
    if kind == "TXT":
        return quoted(data)
    if kind == "CAA":
        return f'{row["flags"]} {row["tag"]} "{data}"'
    if kind in {"CNAME", "MX", "NS", "SRV"}:
        return hosted(row, kind, f"{zone}." if data == "@" else "." if data == "." else f"{data}.")
    return data


def test_the_driver_does_what_the_model_does(
    digitalocean_provider: LibcloudProvider, digitalocean: DigitalOceanDouble
) -> None:
    class Machine(DnsMachine):
        values: ClassVar = {**DnsMachine.values, "TXT": ('"a b"', '"ab"', '"AB"')}

        def make_driver(self) -> DnsDriver:
            digitalocean.reset()
            return digitalocean_provider.dns()

    run_state_machine_as_test(Machine, settings=quickly(15, 15))
