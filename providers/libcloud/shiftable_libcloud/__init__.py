"""Any other hoster: DNS of DigitalOcean, Linode and Vultr and machines through apache-libcloud, object storage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import urlsplit

import attrs

from shiftable.config import Credential
from shiftable.errors import Unsupported
from shiftable.features import Features
from shiftable.provider import Provider

if TYPE_CHECKING:
    from shiftable.blob.driver import BlobDriver
    from shiftable.compute.driver import ComputeDriver
    from shiftable.dns.driver import DnsDriver

__all__ = ["LibcloudProvider", "LibcloudSettings"]

__version__ = "0.1.0"


def _is_address(_: object, field: attrs.Attribute[str | None], value: str | None) -> None:
    """Refuse what is no address of a server; a credential in it is not shown."""
    if value is None:
        return
    parts = urlsplit(value)
    if parts.username is not None:
        raise ValueError(f"{field.name}: a credential stands in the URL; give it in a setting of its own")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"{field.name}: {value!r} is no address of a server, such as https://api.example.net")


@attrs.frozen(kw_only=True)
class LibcloudSettings:
    """``type = "libcloud"``: one account at one hoster.

    Args:
        hoster: whose API is spoken.
        token: the account's API token; else the hoster's own environment variable, at DigitalOcean
            ``DIGITALOCEAN_ACCESS_TOKEN`` or ``DIGITALOCEAN_TOKEN``, at Linode ``LINODE_TOKEN``, at Vultr
            ``VULTR_API_KEY``.
        region: where machines are made and buckets are, ``fra1``.
        access_key: of the object storage, not a secret itself.
        secret_key: the secret that belongs to it.
        endpoint: URL of the API, for a stand-in.
        storage_endpoint: URL of the object storage, if not the hoster's own in that region.
        retry_seconds: for how long a call that may be repeated is tried again.
    """

    hoster: Literal["digitalocean", "linode", "ovh", "vultr"]
    token: Credential | None = None
    region: str | None = None
    access_key: Credential | None = None
    secret_key: Credential | None = None
    endpoint: str | None = attrs.field(default=None, validator=_is_address)
    storage_endpoint: str | None = attrs.field(default=None, validator=_is_address)
    retry_seconds: float = attrs.field(default=60.0, validator=attrs.validators.ge(0))


class LibcloudProvider(Provider[LibcloudSettings]):
    """DNS of DigitalOcean, Linode and Vultr and machines, through apache-libcloud; object storage of hosters.

    Credentials: a token of the hoster's, by reference or from its environment variable. It needs these scopes of
    DigitalOcean's, and no others:

    * dns: ``domain:read``, ``domain:create``, ``domain:update``, ``domain:delete``.
    * compute: ``droplet:read``, ``droplet:create``, ``droplet:update``, ``droplet:delete``, ``firewall:read``,
      ``firewall:create``, ``firewall:update``, ``firewall:delete``, ``tag:read``, ``tag:create``, ``tag:delete``,
      ``actions:read``, ``image:read``, ``regions:read``, ``sizes:read`` and, with a ``network``, ``vpc:read``.

    What only reads needs only ``read`` of these. A token of Linode's needs ``domains:read_write`` for dns, and for
    compute ``linodes:read_write``, ``firewall:read_write``, ``events:read_only`` and ``images:read_only``, of a user
    who is not restricted, as others change no tags; to read, ``read_only`` of each. Vultr's keys have no scopes: let it
    be that of a user who may manage DNS alone, and allow the addresses that it is used from. Object storage has keys of
    its own, see ``open_blob``.
    """

    name: ClassVar[str] = "libcloud"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[LibcloudSettings]] = LibcloudSettings

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        """Say what each service's drivers can do, hoster by hoster."""
        from shiftable_libcloud import blob, compute, dns

        return {
            "blob": tuple(blob.FEATURES.values()),
            "compute": tuple(compute.FEATURES.values()),
            "dns": tuple(dns.FEATURES.values()),
        }

    def blob(self) -> BlobDriver:
        """Make the driver for the hoster's object storage.

        Raises:
            ConfigError: the settings do not say enough, or shiftable-s3 is not installed.
        """
        from shiftable_libcloud.blob import open_blob

        return open_blob(self.settings)

    def dns(self) -> DnsDriver:
        """Make the driver for the hoster's DNS.

        Raises:
            ConfigError: there is no token.
            Unsupported: the hoster's DNS is not spoken yet.
        """
        from shiftable_libcloud.dns import FEATURES, open_dns

        self._require("DNS", FEATURES)

        return open_dns(self.settings)

    def compute(self) -> ComputeDriver:
        """Make the driver for the hoster's machines.

        Raises:
            ConfigError: there is no token, or no region.
            Unsupported: the hoster's machines are not spoken of yet.
        """
        from shiftable_libcloud.compute import FEATURES, open_compute

        self._require("machines", FEATURES)

        return open_compute(self.settings)

    def _require(self, what: str, known: Collection[str]) -> None:
        """Refuse a service of a hoster before anything is sent."""
        if self.settings.hoster not in known:
            names = ", ".join(sorted(known))
            raise Unsupported(
                f"shiftable has no {what} of {self.settings.hoster} yet, only of {names}", provider=self.name
            )
