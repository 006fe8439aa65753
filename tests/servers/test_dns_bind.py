"""The driver for RFC 2136 against BIND."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shiftable.dns import RecordChange, Zone
from shiftable.errors import InvalidArgument, OperationError
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.dns import RECORDS, Observed

from .rfc2136 import Rfc2136Conformance, loaded

REFUSED: dict[str, type[OperationError]] = {
    **dict.fromkeys(("-x-", "x.*.w", r"\200\201", r"with\.dot", r"with\032space", r"\@"), InvalidArgument),
    "naptr": InvalidArgument,
    "values-500": InvalidArgument,
}


class TestBind(Rfc2136Conformance):
    @pytest.fixture
    def server(self, bind: Any) -> Any:
        return bind

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
        assert loaded(zone) == oracle(zone.name)
