"""The rules of DNS as hosters keep them that have one text in a TXT, and no chunks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shiftable.dns import Zone
from shiftable.errors import InvalidArgument
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.dns import DnsConformance, Observed

__all__ = ["OneText"]


class OneText(DnsConformance):
    """The conformance suite, with what such a hoster does otherwise."""

    @differs("the hoster keeps a TXT as one text")
    def test_the_chunks_of_a_txt_are_kept(self, zone: Zone) -> None:
        with pytest.raises(InvalidArgument, match="as one text"):
            zone.set("txt", "TXT", '"foo" "bar"')
        zone.set("txt", "TXT", f'"{"x" * 255}" "bar"')
        assert zone.get("txt", "TXT").texts == (f'"{"x" * 255}" "bar"',)

    @differs("the hoster loses backslashes, or may, so that TXT of the zone file are others")
    def test_an_exported_zone_is_imported_again(self, zone: Zone, oracle: Callable[[str], Observed]) -> None:
        zone.set("www", "A", ["192.0.2.1", "192.0.2.2"])
        zone.set("t", "TXT", '"v=spf1 -all; x"')
        text, before = zone.export_file(), oracle(zone.name)
        zone.change(zone.diff([]))
        assert ["create", "create"] == [change.action for change in zone.import_file(text)]
        assert before == oracle(zone.name)
        assert () == zone.import_file(text)
