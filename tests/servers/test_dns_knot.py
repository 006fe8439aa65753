"""The driver for RFC 2136 against Knot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dns.rdatatype
import dns.zone
import pytest

from shiftable.config import Credential
from shiftable.dns import Dns, RecordChange, Zone
from shiftable.errors import InvalidArgument
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.dns import RECORDS, DnsConformance, Observed
from shiftable_baremetal import Rfc2136Settings
from shiftable_baremetal.dns_rfc2136 import Rfc2136Driver, open_rfc2136


def opened(server: Any, *zones: str) -> Rfc2136Driver:
    secret = Credential.literal("dGhpcyBpcyBub3QgYSBzZWNyZXQgb2YgYW55Ym9keSE=")
    return open_rfc2136(Rfc2136Settings(server=server.address, zones=zones, key_name="tests-key", key_secret=secret))


class TestKnot(DnsConformance):
    @pytest.fixture
    def driver(self, knot: Any) -> Iterator[Rfc2136Driver]:
        made = opened(knot, self.zone_name)
        yield made
        made.close()

    @pytest.fixture
    def oracle(self, knot: Any) -> Callable[[str], Observed]:
        return knot.held

    @pytest.fixture
    def zone(self, knot: Any, driver: Rfc2136Driver) -> Iterator[Zone]:
        knot.create(self.zone_name)
        yield Dns(driver).zone(self.zone_name)
        knot.delete(self.zone_name)

    @differs("a DS stands only beside NS")
    @pytest.mark.parametrize(
        ("name", "type", "values"), RECORDS, ids=[f"{name[:20]}-{kind}" for name, kind, _ in RECORDS]
    )
    def test_a_record_set_is_kept_exactly_or_refused(
        self, zone: Zone, oracle: Callable[[str], Observed], name: str, type: str, values: tuple[str, ...]
    ) -> None:
        if type == "DS":
            before = oracle(zone.name)
            with pytest.raises(InvalidArgument, match=r"\.conf\.test\. DS: a DS stands only beside NS"):
                zone.set(name, type, values)
            assert oracle(zone.name) == before
            zone.set(name, "NS", "ns.example.net.")
        super().test_a_record_set_is_kept_exactly_or_refused(zone, oracle, name, type, values)

    @differs("a DS stands only beside NS")
    def test_an_exported_zone_loads_elsewhere(self, zone: Zone, oracle: Callable[[str], Observed]) -> None:
        records = [zone.record(*each) for each in RECORDS] + [zone.record("signed", "NS", "ns.example.net.")]
        zone.change(RecordChange(before=None, after=record) for record in records)
        loaded = dns.zone.from_text(zone.export_file(), origin=zone.origin, relativize=False)
        theirs = {
            (str(name).lower(), dns.rdatatype.to_text(rdataset.rdtype)): (rdataset.ttl, frozenset(rdataset))
            for name, rdataset in loaded.iterate_rdatasets()
        }
        assert theirs == oracle(zone.name)
