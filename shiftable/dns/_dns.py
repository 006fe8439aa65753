"""The portable service object of DNS."""

from __future__ import annotations

from typing import ClassVar

from shiftable.dns._zone import Zone
from shiftable.dns.driver import DnsDriver, DnsFeatures, DnsServer, ZoneSpec, zone_name
from shiftable.errors import InvalidArgument, Resource, Unsupported
from shiftable.service import Service

__all__ = ["Dns"]


class Dns(Service[ZoneSpec, DnsDriver, Zone]):
    """The zones of one account. A zone is named without a dot at the end; one that is written is forgiven.

    >>> from shiftable.memory.dns import MemoryDnsDriver
    >>> zone = Dns(MemoryDnsDriver()).create(ZoneSpec(name="shop.example"))
    >>> print(zone.set("www", "A", ["192.0.2.1"], ttl=60))
    www.shop.example. 60 IN A 192.0.2.1
    >>> print(zone.set("@", "MX", "10 mail"))
    shop.example. 300 IN MX 10 mail.shop.example.
    """

    service: ClassVar[str] = "dns"
    resource_type: ClassVar[str] = "zone"

    @property
    def features(self) -> DnsFeatures:
        """What the driver can do."""
        return self._driver.features

    def zone(self, name: str) -> Zone:
        """Return the handle of a zone, whether or not it exists. Calls nobody.

        Raises:
            InvalidArgument: the provider cannot hold a zone of that name.
        """
        self._checked("zone", zone_name(name))
        return self._handle(name)

    def open(self, spec: ZoneSpec) -> Zone:
        """Return the handle of a declared zone. Calls nobody."""
        self._checked("zone", spec.name)
        return Zone(self._driver, spec.name, ttl=spec.ttl)

    def create(self, spec: ZoneSpec) -> Zone:
        """Make a zone, with its SOA and NS.

        Raises:
            AlreadyExists: the account has it already.
            Unsupported: zones of this provider are made elsewhere.
        """
        self._require(self.features.zones, "create", self._checked("create", spec.name), "way to create a zone")
        return super().create(spec)

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
            Unsupported: zones of this provider are deleted elsewhere.
        """
        name = zone_name(name)
        self._require(self.features.zones, "delete", self._checked("delete", name), "way to delete a zone")
        super().delete(name)

    def serve(self, port: int = 0, *, update: bool = False) -> DnsServer:
        """Answer all zones on loopback, where there is no name server that does; use it in a ``with`` block.

        Whoever reaches the port may ask and transfer: this is for development and tests, not for the world.

        Args:
            port: 0: any that is free.
            update: take dynamic updates (RFC 2136) and write them.

        Raises:
            InvalidArgument: there is no such port.
            Unsupported: the provider has name servers of its own.
        """
        if not self.features.serve:
            why = "this provider has name servers of its own"
            raise Unsupported(why, provider=self.provider, operation="dns.serve")
        if not 0 <= port < 65536:
            raise InvalidArgument(f"there is no port {port}", provider=self.provider, operation="dns.serve")
        with self._translated("serve", Resource("port", str(port))):
            return self._driver.serve(port, update=update)

    def _handle(self, name: str) -> Zone:
        return Zone(self._driver, name)
