"""Any other hoster, through apache-libcloud: DNS of DigitalOcean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from shiftable.config import Credential
from shiftable.features import Features
from shiftable.provider import Provider

if TYPE_CHECKING:
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
        endpoint: URL of the API, for a stand-in.
        retry_seconds: for how long a call that may be repeated is tried again.
    """

    hoster: Literal["digitalocean"]
    token: Credential | None = None
    endpoint: str | None = None
    retry_seconds: float = attrs.field(default=60.0, validator=attrs.validators.ge(0))


class LibcloudProvider(Provider[LibcloudSettings]):
    """A hoster that apache-libcloud reaches: DigitalOcean, its DNS.

    Credentials: a token of the hoster's, by reference or from its environment variable. It needs these scopes of
    DigitalOcean's, and no others: ``domain:read``, ``domain:create``, ``domain:update``, ``domain:delete``; what only
    reads needs ``domain:read`` alone.
    """

    name: ClassVar[str] = "libcloud"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[LibcloudSettings]] = LibcloudSettings

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        """Say what each service's drivers can do, hoster by hoster."""
        from shiftable_libcloud import dns

        return {"dns": tuple(dns.FEATURES.values())}

    def dns(self) -> DnsDriver:
        """Make the driver for the hoster's DNS.

        Raises:
            ConfigError: there is no token.
        """
        from shiftable_libcloud.dns import open_dns

        return open_dns(self.settings)
