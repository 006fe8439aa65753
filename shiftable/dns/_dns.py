"""The service object of DNS."""

from __future__ import annotations

from typing import ClassVar

from shiftable.dns._zone import Zone
from shiftable.dns.driver import DnsDriver, ZoneSpec, zone_name
from shiftable.service import Service

__all__ = ["Dns"]


class Dns(Service[ZoneSpec, DnsDriver, Zone]):
    """The zones of one provider. A zone is named without a dot at the end; one that is written is forgiven."""

    service: ClassVar[str] = "dns"
    resource_type: ClassVar[str] = "zone"

    def zone(self, name: str) -> Zone:
        """Return the handle of a zone. Calls nobody."""
        return self._handle(name)

    def open(self, spec: ZoneSpec) -> Zone:
        """Return the handle of a declared zone. Calls nobody."""
        return Zone(self._driver, spec.name, ttl=spec.ttl)

    def describe(self, name: str) -> ZoneSpec:
        """Return an existing zone as a declaration would say it.

        Raises:
            NotFound: there is none.
        """
        return super().describe(zone_name(name))

    def delete(self, name: str) -> None:
        """Delete a zone.

        Raises:
            NotFound: there is none.
            Conflict: it holds more than its own SOA and NS.
        """
        super().delete(zone_name(name))

    def _handle(self, name: str) -> Zone:
        return Zone(self._driver, name)
