"""What an entry point of the group ``shiftable.providers`` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import attrs

from shiftable.errors import Unsupported
from shiftable.features import Features

if TYPE_CHECKING:
    from shiftable.blob.driver import BlobDriver
    from shiftable.compute.driver import ComputeDriver
    from shiftable.database.driver import DatabaseDriver
    from shiftable.dns.driver import DnsDriver
    from shiftable.secrets.driver import SecretsDriver

__all__ = ["DRIVER_API", "SERVICES", "Provider"]

DRIVER_API = 1
"""The version of the contract between core and providers."""

SERVICES = ("blob", "secrets", "dns", "database", "compute")

C = TypeVar("C", bound=attrs.AttrsInstance)


class Provider(Generic[C]):
    """One provider: its settings, and a driver for each service that it has.

    Loading a provider imports no SDK; its drivers do, when they are made. A subclass sets the class variables and
    overrides the methods of its services. Drivers of one provider share a session, so that they share credentials.

    Attributes:
        name: as in ``type = "aws"``.
        driver_api: the ``DRIVER_API`` that it was written for, as a literal number.
        settings_type: attrs class of ``[providers.x]``; credentials in it are ``Credential``.
        native_types: attrs classes of what only this provider knows of a resource, by service: ``[compute.web.aws]``
            becomes ``spec.native``.
    """

    name: ClassVar[str]
    driver_api: ClassVar[int]
    settings_type: ClassVar[type[Any]]
    native_types: ClassVar[Mapping[str, type[Any]]] = {}

    def __init__(self, settings: C) -> None:
        self.settings = settings

    @classmethod
    def features(cls) -> Mapping[str, tuple[Features, ...]]:
        """Say what each service's drivers can do, before any is made: ``{"blob": (FILES, S3)}``."""
        return {}

    def blob(self) -> BlobDriver:
        """Make the driver for blob storage."""
        raise self._unsupported("blob")

    def secrets(self) -> SecretsDriver:
        """Make the driver for secrets."""
        raise self._unsupported("secrets")

    def dns(self) -> DnsDriver:
        """Make the driver for DNS."""
        raise self._unsupported("dns")

    def database(self) -> DatabaseDriver:
        """Make the driver for databases."""
        raise self._unsupported("database")

    def compute(self) -> ComputeDriver:
        """Make the driver for compute."""
        raise self._unsupported("compute")

    def close(self) -> None:
        """Give back what the provider's session holds."""

    def _unsupported(self, service: str) -> Unsupported:
        has = ", ".join(self.features()) or "none yet"
        return Unsupported(f"the provider {self.name} has no {service}; it has: {has}", provider=self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
