"""The driver for RFC 2136 against BIND."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dns.rdatatype
import dns.zone
import pytest

from shiftable.config import Credential
from shiftable.dns import Dns, RecordChange, Zone
from shiftable.errors import InvalidArgument, OperationError
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.dns import RECORDS, DnsConformance, Observed
from shiftable_baremetal import Rfc2136Settings
from shiftable_baremetal.dns_rfc2136 import Rfc2136Driver, open_rfc2136

REFUSED: dict[str, type[OperationError]] = {
    **dict.fromkeys(("-x-", "x.*.w", r"\200\201", r"with\.dot", r"with\032space", r"\@"), InvalidArgument),
    "naptr": InvalidArgument,
    "values-500": InvalidArgument,
}


def opened(server: Any, *zones: str) -> Rfc2136Driver:
    secret = Credential.literal("dGhpcyBpcyBub3QgYSBzZWNyZXQgb2YgYW55Ym9keSE=")
    return open_rfc2136(Rfc2136Settings(server=server.address, zones=zones, key_name="tests-key", key_secret=secret))


class TestBind(DnsConformance):
    @pytest.fixture
    def driver(self, bind: Any) -> Iterator[Rfc2136Driver]:
        made = opened(bind, self.zone_name)
        yield made
        made.close()

    @pytest.fixture
    def oracle(self, bind: Any) -> Callable[[str], Observed]:
        return bind.held

    @pytest.fixture
    def zone(self, bind: Any, driver: Rfc2136Driver) -> Iterator[Zone]:
        bind.create(self.zone_name)
        yield Dns(driver).zone(self.zone_name)
        bind.delete(self.zone_name)

    @differs("BIND has rules of its own: names of hosts, 100 values, expressions of NAPTR; and no DS without NS")
    @pytest.mark.parametrize(
        ("name", "type", "values"), RECORDS, ids=[f"{name[:20]}-{kind}" for name, kind, _ in RECORDS]
    )
    def test_a_record_set_is_kept_exactly_or_refused(
        self, zone: Zone, oracle: Callable[[str], Observed], name: str, type: str, values: tuple[str, ...]
    ) -> None:
        if name not in REFUSED and type != "DS":
            super().test_a_record_set_is_kept_exactly_or_refused(zone, oracle, name, type, values)
            return
        before = oracle(zone.name)
        refused = RecordChange(before=None, after=zone.record(name, type, values))
        others = [RecordChange(before=None, after=zone.record(each, "TXT", '"x"')) for each in ("a", "m", "z")]
        for batch in ([refused], [*others, refused]):
            with pytest.raises(REFUSED.get(name, InvalidArgument)) as caught:
                zone.change(batch)
            assert str(refused.key) in str(caught.value)
        assert oracle(zone.name) == before

    @differs("the set of 500 values and the others are not for BIND, and a DS is not without NS")
    def test_an_exported_zone_loads_elsewhere(self, zone: Zone, oracle: Callable[[str], Observed]) -> None:
        records = [zone.record(*each) for each in RECORDS if each[0] not in REFUSED]
        records.append(zone.record("signed", "NS", "ns.example.net."))
        zone.change(RecordChange(before=None, after=record) for record in records)
        loaded = dns.zone.from_text(zone.export_file(), origin=zone.origin, relativize=False)
        theirs = {
            (str(name).lower(), dns.rdatatype.to_text(rdataset.rdtype)): (rdataset.ttl, frozenset(rdataset))
            for name, rdataset in loaded.iterate_rdatasets()
        }
        assert theirs == oracle(zone.name)
