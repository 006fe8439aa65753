"""The driver for RFC 2136 against Knot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shiftable.dns import RecordChange, Zone
from shiftable.errors import InvalidArgument
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.dns import RECORDS, Observed

from .rfc2136 import Rfc2136Conformance, loaded


class TestKnot(Rfc2136Conformance):
    @pytest.fixture
    def server(self, knot: Any) -> Any:
        return knot

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
        assert loaded(zone) == oracle(zone.name)
