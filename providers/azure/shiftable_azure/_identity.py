"""The credential of Microsoft Entra, which all services of a provider share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from azure.core.credentials import AccessToken

from shiftable.config import Credential
from shiftable_azure import AzureSettings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

__all__ = ["GivenToken", "Identity"]

_FOREVER = 1 << 40


class GivenToken:
    """A credential that has its token already."""

    def __init__(self, token: Credential) -> None:
        self._token = token

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:  # noqa: ANN401, ARG002  as azure-core asks
        """Return the token: how long it lives, the service knows."""
        return AccessToken(self._token.reveal(), _FOREVER)

    def __repr__(self) -> str:
        return "<GivenToken ***>"


class Identity:
    """Makes the settings' credential when it is first asked for; the same one each time.

    Args:
        credential: in place of the settings', for tests and odd identities.
    """

    def __init__(self, settings: AzureSettings, credential: TokenCredential | None = None) -> None:
        self._settings = settings
        self._credential = credential
        self._lock = threading.Lock()

    @property
    def credential(self) -> TokenCredential:
        """The credential."""
        with self._lock:
            if self._credential is None:
                self._credential = _made(self._settings)
            return self._credential


def _made(settings: AzureSettings) -> TokenCredential:
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    if settings.client_secret is not None and settings.tenant and settings.client_id:
        return ClientSecretCredential(settings.tenant, settings.client_id, settings.client_secret.reveal())
    if settings.client_id is not None:
        return DefaultAzureCredential(managed_identity_client_id=settings.client_id)
    return DefaultAzureCredential()
