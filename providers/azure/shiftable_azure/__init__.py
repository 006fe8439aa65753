"""Azure: its settings. No service has a driver yet."""

from __future__ import annotations

from typing import ClassVar

import attrs

from shiftable.config import Credential
from shiftable.provider import Provider

__all__ = ["AzureProvider", "AzureSettings"]

__version__ = "0.1.0"


@attrs.frozen(kw_only=True)
class AzureSettings:
    """``[providers.x]`` with ``type = "azure"``.

    Args:
        subscription: the subscription id.
        resource_group: where resources are made.
        location: ``germanywestcentral``.
        storage_account: for blobs.
        vault: for secrets, the name of a Key Vault.
        tenant: with ``client_id`` and ``client_secret``, a service principal; else the default credential chain.
    """

    subscription: str | None = None
    resource_group: str | None = None
    location: str | None = None
    storage_account: str | None = None
    vault: str | None = None
    tenant: str | None = None
    client_id: str | None = None
    client_secret: Credential | None = None


class AzureProvider(Provider[AzureSettings]):
    """Azure.

    Credentials: azure-identity's default chain (environment, workload identity, managed identity, ``az login``), or a
    service principal by ``tenant``, ``client_id`` and ``client_secret``.
    """

    name: ClassVar[str] = "azure"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[AzureSettings]] = AzureSettings
