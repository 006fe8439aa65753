"""The conformance of the driver for RFC 2136 against a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dns.rdatatype
import dns.zone
import pytest

from shiftable.config import Credential
from shiftable.dns import Dns, Zone
from shiftable.testing.conformance.dns import DnsConformance, Observed
from shiftable_baremetal import Rfc2136Settings
from shiftable_baremetal.dns_rfc2136 import Rfc2136Driver, open_rfc2136

__all__ = ["Rfc2136Conformance", "loaded"]

SECRET = "dGhpcyBpcyBub3QgYSBzZWNyZXQgb2YgYW55Ym9keSE="


class Rfc2136Conformance(DnsConformance):
    """A subclass has a fixture ``server``, which makes and deletes zones and tells what is in them."""

    @pytest.fixture
    def driver(self, server: Any) -> Iterator[Rfc2136Driver]:
        secret = Credential.literal(SECRET)
        settings = Rfc2136Settings(
            server=server.address, zones=(self.zone_name,), key_name="tests-key", key_secret=secret
        )
        made = open_rfc2136(settings)
        yield made
        made.close()

    @pytest.fixture
    def oracle(self, server: Any) -> Callable[[str], Observed]:
        return server.held

    @pytest.fixture
    def zone(self, server: Any, driver: Rfc2136Driver) -> Iterator[Zone]:
        server.create(self.zone_name)
        yield Dns(driver).zone(self.zone_name)
        server.delete(self.zone_name)


def loaded(zone: Zone) -> Observed:
    """Return what a zone's export is to whoever loads it."""
    found = dns.zone.from_text(zone.export_file(), origin=zone.origin, relativize=False)
    return {
        (str(name).lower(), dns.rdatatype.to_text(rdataset.rdtype)): (rdataset.ttl, frozenset(rdataset))
        for name, rdataset in found.iterate_rdatasets()
    }
