"""The provider that forgets: everything in this process, for doctests, examples and as the reference model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import attrs

from shiftable.features import Features
from shiftable.provider import Provider

if TYPE_CHECKING:
    from shiftable.blob.driver import BlobDriver
    from shiftable.compute.driver import ComputeDriver
    from shiftable.database.driver import DatabaseDriver
    from shiftable.dns.driver import DnsDriver
    from shiftable.secrets.driver import SecretsDriver

__all__ = ["MemoryProvider", "MemorySettings"]


@attrs.frozen(kw_only=True)
class MemorySettings:
    """``type = "memory"`` takes no settings."""


class MemoryProvider(Provider[MemorySettings]):
    """All services in the memory of this process. No credentials, no permissions, nothing survives."""

    name: ClassVar[str] = "memory"
    driver_api: ClassVar[int] = 1
    settings_type: ClassVar[type[MemorySettings]] = MemorySettings

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        """Say what each service's driver can do."""
        from shiftable.memory import blob, compute, database, dns, secrets

        return {
            "blob": (blob.FEATURES,),
            "secrets": (secrets.FEATURES,),
            "dns": (dns.FEATURES,),
            "database": (database.FEATURES,),
            "compute": (compute.FEATURES,),
        }

    def blob(self) -> BlobDriver:
        """Make the driver for blob storage."""
        from shiftable.memory.blob import MemoryBlobDriver

        return MemoryBlobDriver()

    def secrets(self) -> SecretsDriver:
        """Make the driver for secrets."""
        from shiftable.memory.secrets import MemorySecretsDriver

        return MemorySecretsDriver()

    def dns(self) -> DnsDriver:
        """Make the driver for DNS."""
        from shiftable.memory.dns import MemoryDnsDriver

        return MemoryDnsDriver()

    def database(self) -> DatabaseDriver:
        """Make the driver for databases."""
        from shiftable.memory.database import MemoryDatabaseDriver

        return MemoryDatabaseDriver()

    def compute(self) -> ComputeDriver:
        """Make the driver for compute."""
        from shiftable.memory.compute import MemoryComputeDriver

        return MemoryComputeDriver()
