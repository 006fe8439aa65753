"""Any other hoster, through apache-libcloud: DNS and machines of DigitalOcean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from shiftable.config import Credential
from shiftable.features import Features
from shiftable.provider import Provider

if TYPE_CHECKING:
    from shiftable.compute.driver import ComputeDriver
    from shiftable.dns.driver import DnsDriver

__all__ = ["LibcloudProvider", "LibcloudSettings"]

__version__ = "0.1.0"


@attrs.frozen(kw_only=True)
class LibcloudSettings:
    """``type = "libcloud"``: one account at one hoster.

    Args:
        hoster: whose API is spoken.
        token: the account's API token; else the hoster's own environment variable, at DigitalOcean
            ``DIGITALOCEAN_ACCESS_TOKEN`` or ``DIGITALOCEAN_TOKEN``.
        region: where machines are made, ``fra1``.
        endpoint: URL of the API, for a stand-in.
        retry_seconds: for how long a call that may be repeated is tried again.
    """

    hoster: Literal["digitalocean"]
    token: Credential | None = None
    region: str | None = None
    endpoint: str | None = None
    retry_seconds: float = attrs.field(default=60.0, validator=attrs.validators.ge(0))


class LibcloudProvider(Provider[LibcloudSettings]):
    """A hoster that apache-libcloud reaches: DigitalOcean, its DNS and its machines.

    Credentials: a token of the hoster's, by reference or from its environment variable. It needs these scopes of
    DigitalOcean's, and no others:

    * dns: ``domain:read``, ``domain:create``, ``domain:update``, ``domain:delete``.
    * compute: ``droplet:read``, ``droplet:create``, ``droplet:update``, ``droplet:delete``, ``firewall:read``,
      ``firewall:create``, ``firewall:update``, ``firewall:delete``, ``tag:read``, ``tag:create``, ``tag:delete``,
      ``actions:read``, ``image:read``, ``regions:read``, ``sizes:read`` and, with a ``network``, ``vpc:read``.

    What only reads needs only ``read`` of these.
    """

    name: ClassVar[str] = "libcloud"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[LibcloudSettings]] = LibcloudSettings

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        """Say what each service's drivers can do, hoster by hoster."""
        from shiftable_libcloud import compute, dns

        return {"compute": tuple(compute.FEATURES.values()), "dns": tuple(dns.FEATURES.values())}

    def dns(self) -> DnsDriver:
        """Make the driver for the hoster's DNS.

        Raises:
            ConfigError: there is no token.
        """
        from shiftable_libcloud.dns import open_dns

        return open_dns(self.settings)

    def compute(self) -> ComputeDriver:
        """Make the driver for the hoster's machines.

        Raises:
            ConfigError: there is no token, or no region.
        """
        from shiftable_libcloud.compute import open_compute

        return open_compute(self.settings)
