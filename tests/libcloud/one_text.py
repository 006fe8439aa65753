"""The rules of DNS as hosters keep them that have one text in a TXT, and no chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest

from shiftable.dns import Zone
from shiftable.dns.driver import DnsDriver
from shiftable.errors import InvalidArgument
from shiftable.testing.conformance import differs
from shiftable.testing.conformance.dns import DnsConformance, Observed

__all__ = ["OneText", "hosted", "observed", "quoted"]


def observed(zone: str, rows: Iterable[tuple[str, str, int, str]]) -> Observed:
    """Return what a zone holds: of owner (empty or ``@`` for the zone itself), type, TTL and text of each record."""
    found: dict[tuple[str, str], tuple[int, frozenset[Any]]] = {}
    for name, kind, ttl, text in rows:
        owner = f"{zone}." if name in {"", "@"} else f"{name}.{zone}."
        value = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), text)
        found[owner, kind] = (ttl, found.get((owner, kind), (ttl, frozenset()))[1] | {value})
    return found


def quoted(text: str) -> str:
    """Write a text as name servers do, in chunks."""
    return " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255))


def hosted(row: dict[str, Any], kind: str, host: str) -> str:
    """Write a value that ends in a host, with the numbers that stand beside it."""
    numbers = {"MX": ["priority"], "SRV": ["priority", "weight", "port"]}.get(kind, [])
    return " ".join([*(str(row[number]) for number in numbers), host])


class OneText(DnsConformance):
    """The conformance suite, with what such a hoster does otherwise.

    Attributes:
        hoster: its name, in that of the fixture that has a provider for it.
    """

    hoster: ClassVar[str]

    @pytest.fixture
    def driver(self, request: pytest.FixtureRequest) -> Iterator[DnsDriver]:
        driver = request.getfixturevalue(f"{self.hoster}_provider").dns()
        yield driver
        driver.close()

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
