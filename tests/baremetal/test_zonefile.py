"""The driver of zone files: the rules for all drivers, and what files alone can suffer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dns.rdatatype
import dns.zone
import pytest

from shiftable.dns import Dns
from shiftable.testing.conformance.dns import DnsConformance, Observed
from shiftable_baremetal.dns import ZoneFilesDriver


def look(root: Path, zone: str, file: str | None = None) -> Observed:
    """Read a zone file with dnspython: nothing of the code under test."""
    text = (root / (file or f"{zone}.zone")).read_text()
    loaded = dns.zone.from_text(text, origin=f"{zone}.", relativize=False)
    return {
        (str(name).lower(), dns.rdatatype.to_text(rdataset.rdtype)): (rdataset.ttl, frozenset(rdataset))
        for name, rdataset in loaded.iterate_rdatasets()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "dns"


@pytest.fixture
def service(root: Path) -> Dns:
    return Dns(ZoneFilesDriver(root, fsync=False))


class TestZoneFilesConformance(DnsConformance):
    @pytest.fixture
    def driver(self, root: Path) -> ZoneFilesDriver:
        return ZoneFilesDriver(root, fsync=False)

    @pytest.fixture
    def oracle(self, root: Path) -> Callable[[str], Observed]:
        return lambda zone: look(root, zone)
