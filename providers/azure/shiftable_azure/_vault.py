"""The client of a Key Vault: where it is, how it waits, and what it may send again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from azure.keyvault.secrets import SecretClient

from shiftable.errors import ConfigError
from shiftable_azure import AzureSettings, __version__
from shiftable_azure._identity import GivenToken, Identity
from shiftable_azure._transport import Patient, Transport

if TYPE_CHECKING:
    from azure.core.pipeline.transport import HttpTransport


__all__ = ["VaultRetries", "VaultSession", "vault_url"]

_API_VERSION = "7.4"  # all that is needed is in it, and clouds that lag behind have it
_SUFFIX = "vault.azure.net"
_REPEATABLE = frozenset({"HEAD", "GET", "DELETE", "PATCH", "POST"})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class VaultRetries(Patient):
    """The SDK's retries with full jitter, for all but a new version of a secret.

    A ``PUT`` that is repeated makes a second version, so it is sent again by itself only where the vault says that it
    did nothing (429); the driver looks before it repeats any other. ``PATCH`` and the recovery (``POST``) say the same
    thing twice.
    """

    def configure_retries(self, options: dict[str, Any]) -> dict[str, Any]:
        """Say which methods may be repeated."""
        return {**super().configure_retries(options), "methods": _REPEATABLE}

    def is_retry(self, settings: dict[str, Any], response: Any) -> bool:  # noqa: ANN401  as in azure-core
        """Tell whether an answer is reason to ask again."""
        status = response.http_response.status_code
        if response.http_request.method == "PUT":
            return bool(status == 429)
        return status in _PASSING and bool(super().is_retry(settings, response))


def vault_url(vault: str) -> str:
    """Return the URL of a vault that is named in any of the ways that the settings take."""
    host = vault.removeprefix("https://").rstrip("/")
    return f"https://{host}" if "." in host else f"https://{host}.{_SUFFIX}"


class VaultSession:
    """The client of a provider's vault. It is thread-safe.

    Args:
        transport: in place of the SDK's own, for tests.
    """

    def __init__(
        self, settings: AzureSettings, identity: Identity, transport: HttpTransport[Any, Any] | None = None
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._transport = transport
        self._lock = threading.Lock()
        self._client: SecretClient | None = None

    @property
    def client(self) -> SecretClient:
        """The client; the same one each time. It believes the vault only if that asks for tokens of its own domain.

        Raises:
            ConfigError: no vault is named.
        """
        with self._lock:
            if self._client is None:
                self._client = self._made()
            return self._client

    @property
    def attempts(self) -> int:
        """How often a call is tried in all."""
        return self._settings.max_attempts

    def close(self) -> None:
        """Close all connections. A client that is used afterwards opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def __repr__(self) -> str:
        return f"<VaultSession {self._settings.vault!r}>"

    def _made(self) -> SecretClient:
        settings = self._settings
        if settings.vault is None:
            raise ConfigError("azure: secrets need vault, the name of a Key Vault")
        token = settings.vault_token
        return SecretClient(
            vault_url(settings.vault),
            self._identity.credential if token is None else GivenToken(token),
            api_version=_API_VERSION,
            retry_policy=VaultRetries(settings.max_attempts),
            user_agent=f"shiftable/{__version__}",
            transport=self._transport or Transport(settings.vault_endpoint),
        )
