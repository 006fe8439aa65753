"""The portable service object of secrets."""

from __future__ import annotations

from typing import ClassVar

from shiftable.secrets._store import SecretStore
from shiftable.secrets.driver import SecretsDriver, SecretsSpec
from shiftable.service import Service

__all__ = ["Secrets"]


class Secrets(Service[SecretsSpec, SecretsDriver, SecretStore]):
    """All secrets of one account. What is created, listed and deleted here are prefixes.

    >>> import shiftable.memory
    >>> secrets = Secrets(shiftable.memory.MemoryProvider(shiftable.memory.MemorySettings()).secrets())
    >>> secrets.store("shop")
    <SecretStore 'shop' on memory>
    """

    service: ClassVar[str] = "secrets"
    resource_type: ClassVar[str] = "prefix"

    def store(self, prefix: str) -> SecretStore:
        """Return the secrets below a prefix; below the empty one are all. Calls nobody.

        Raises:
            InvalidArgument: the provider cannot hold names that begin so.
        """
        self._checked("store", prefix)
        return self._handle(prefix)

    def exists(self, name: str) -> bool:
        """Tell whether there is such a prefix: where none needs making, whether its secrets can be listed.

        A refused permission is an error, not a no.
        """
        if not super().exists(name):
            return False
        next(self._handle(name).list(limit=1), None)
        return True

    def open(self, spec: SecretsSpec) -> SecretStore:
        """Return the secrets of a declared prefix. Calls nobody."""
        return self.store(spec.name)

    def _handle(self, name: str) -> SecretStore:
        return SecretStore(self._driver, name)
