"""What an entry point of the group ``shiftable.providers`` names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, get_args

import attrs

from shiftable.errors import Unsupported
from shiftable.features import Features

if TYPE_CHECKING:
    from shiftable.blob.driver import BlobDriver
    from shiftable.compute.driver import ComputeDriver
    from shiftable.database.driver import DatabaseDriver
    from shiftable.dns.driver import DnsDriver
    from shiftable.secrets.driver import SecretsDriver
    from shiftable.service import Spec

__all__ = ["DRIVER_API", "PURPOSES", "SERVICES", "Provider", "Purpose", "contained"]

DRIVER_API = 1
"""The version of the contract between core and providers."""

SERVICES = ("blob", "secrets", "dns", "database", "compute")

Purpose = Literal["read", "write", "plan", "apply"]
"""What a login is for: to read what resources hold, or to write it too; to look at resources, or to make them too."""

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

_CONTAINED: Mapping[Purpose, Purpose] = {"write": "read", "apply": "plan"}

C = TypeVar("C", bound=attrs.AttrsInstance)


def contained(purposes: Iterable[Purpose]) -> frozenset[Purpose]:
    """Return purposes with those that they contain: who writes reads, and who applies plans."""
    named = frozenset(purposes)
    return named | {_CONTAINED[purpose] for purpose in named if purpose in _CONTAINED}


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

    def policy(self, declared: Iterable[tuple[str, Spec]], purposes: Iterable[Purpose]) -> Mapping[str, Any]:  # noqa: ARG002  for providers
        """Write the least that a login must be allowed for declared resources, as JSON that the provider takes.

        Asks nobody.

        Args:
            declared: services, and what is declared of each: ``("blob", BucketSpec(name="shop-assets"))``.
            purposes: see ``contained``.

        Raises:
            Unsupported: the provider has no such documents, or none are written for it.
        """
        why = f"for {self.name} no policy is written; what a login must be allowed stands with its drivers"
        raise Unsupported(why, provider=self.name)

    def close(self) -> None:
        """Give back what the provider's session holds."""

    def _unsupported(self, service: str) -> Unsupported:
        has = ", ".join(self.features()) or "none yet"
        return Unsupported(f"the provider {self.name} has no {service}; it has: {has}", provider=self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
