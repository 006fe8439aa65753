"""Where a hoster's token comes from."""

from __future__ import annotations

import os

from shiftable.config import Credential
from shiftable.errors import ConfigError
from shiftable_libcloud import LibcloudSettings

__all__ = ["token_of_account"]

_VARIABLES = {
    "digitalocean": ("DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_TOKEN"),
    "linode": ("LINODE_TOKEN",),
    "vultr": ("VULTR_API_KEY",),
}


def token_of_account(settings: LibcloudSettings) -> Credential:
    """Return the token of the settings, or of the hoster's own environment variable.

    Raises:
        ConfigError: there is none.
    """
    if settings.token is not None:
        return settings.token
    names = _VARIABLES[settings.hoster]
    found = next((name for name in names if os.environ.get(name)), None)
    if found is None:
        why = f"no token of {settings.hoster}: say `token` in the provider's table, or {names[0]}"
        raise ConfigError(f"libcloud: {why}")
    return Credential.env(found)
