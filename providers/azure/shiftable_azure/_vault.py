"""The client of a Key Vault: where it is, how it waits, and what it may send again."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from azure.core.credentials import AccessToken
from azure.core.exceptions import IncompleteReadError, ServiceResponseError
from azure.core.pipeline.policies import RetryPolicy
from azure.core.pipeline.transport import RequestsTransport
from azure.keyvault.secrets import SecretClient

from shiftable.errors import ConfigError
from shiftable_azure import AzureSettings, __version__
from shiftable_azure.errors import seconds_asked

if TYPE_CHECKING:
    from azure.core.pipeline.transport import HttpTransport

    from shiftable.config import Credential
    from shiftable_azure._identity import Identity

__all__ = ["GivenToken", "VaultRetries", "VaultSession", "vault_url"]

_API_VERSION = "7.4"  # all that is needed is in it, and clouds that lag behind have it
_SUFFIX = "vault.azure.net"
_REPEATABLE = frozenset({"HEAD", "GET", "DELETE", "PATCH", "POST"})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 60.0
_FOREVER = 1 << 40


class VaultRetries(RetryPolicy[Any, Any]):
    """The SDK's retries with full jitter, for all but a new version of a secret.

    A ``PUT`` that is repeated makes a second version, so it is sent again by itself only where the vault says that it
    did nothing (429); the driver looks before it repeats any other. ``PATCH`` and the recovery (``POST``) say the same
    thing twice.
    """

    def __init__(self, attempts: int, *, base: float = 0.4, longest: float = 20.0) -> None:
        left = attempts - 1
        super().__init__(retry_total=left, retry_connect=left, retry_read=left, retry_status=left)
        self._base = base
        self._longest = longest

    def configure_retries(self, options: dict[str, Any]) -> dict[str, Any]:
        """Say which methods may be repeated."""
        return {**super().configure_retries(options), "methods": _REPEATABLE}

    def is_retry(self, settings: dict[str, Any], response: Any) -> bool:  # noqa: ANN401  as in azure-core
        """Tell whether an answer is reason to ask again."""
        status = response.http_response.status_code
        if response.http_request.method == "PUT":
            return bool(status == 429)
        return status in _PASSING and bool(super().is_retry(settings, response))

    def get_retry_after(self, response: Any) -> float | None:  # noqa: ANN401  as in azure-core
        """Return the seconds that the vault asks for, within reason."""
        asked = seconds_asked(response.http_response.headers)
        return None if asked is None else min(asked, _LONGEST_WAIT)

    def get_backoff_time(self, settings: dict[str, Any]) -> float:
        """Return a random part of a limit that doubles."""
        return self.pause(len(settings["history"]))

    def pause(self, failures: int) -> float:
        """Return how long to wait after so many failures."""
        return random.uniform(0, min(self._longest, self._base * 2**failures))  # noqa: S311  a delay


class GivenToken:
    """A credential that has its token already."""

    def __init__(self, token: Credential) -> None:
        self._token = token

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:  # noqa: ANN401, ARG002  as azure-core asks
        """Return the token: how long it lives, the vault knows."""
        return AccessToken(self._token.reveal(), _FOREVER)

    def __repr__(self) -> str:
        return "<GivenToken ***>"


class _Transport(RequestsTransport):  # type: ignore[misc]  # azure-core hands it out untyped
    """The SDK's transport; an answer that ends early is one that did not arrive.

    Args:
        endpoint: where to send everything, in place of the vault.
    """

    def __init__(self, endpoint: str | None, **options: Any) -> None:  # noqa: ANN401  as in azure-core
        super().__init__(**options)
        self._endpoint = urlsplit(endpoint) if endpoint else None

    def send(self, request: Any, **options: Any) -> Any:  # noqa: ANN401  as in azure-core
        """Send a request, and leave it as it was: retries and challenges read its URL."""
        url = request.url
        if self._endpoint is not None:
            parts = urlsplit(url)
            request.headers["Host"] = parts.netloc
            request.url = urlunsplit((self._endpoint.scheme, self._endpoint.netloc, parts.path, parts.query, ""))
        try:
            return super().send(request, **options)
        except IncompleteReadError as exc:
            raise ServiceResponseError(f"the answer ends early: {exc}", error=exc) from exc
        finally:
            request.url = url


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
            transport=self._transport or _Transport(settings.vault_endpoint, connection_timeout=20, read_timeout=60),
        )
