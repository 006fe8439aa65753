"""The client of a storage account and what signs for it, made when they are first used."""

from __future__ import annotations

import functools
import random
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobClient, BlobServiceClient, ExponentialRetry, UserDelegationKey, generate_blob_sas
from requests.adapters import HTTPAdapter

from shiftable.errors import ConfigError, Unsupported
from shiftable.fibers import sleep
from shiftable.http import Connections
from shiftable.http_adapter import BulkSession, prepare
from shiftable_azure import AzureSettings, __version__
from shiftable_azure._identity import Identity
from shiftable_azure.errors import seconds_asked

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.pipeline.transport import HttpTransport

__all__ = ["CHUNK", "PUT", "STORAGE", "WHOLE", "Retries", "Session"]

STORAGE = "https://storage.azure.com/.default"
_SOMEWHERE = "https://account.blob.core.windows.net"
CHUNK = 1024 * 1024
WHOLE = 1 << 50  # more than any blob has: one request for all of it
PUT = 5_000 * 1024**2  # Put Blob takes no more
_CONNECTIONS = 64  # the bulk lane has up to 64 threads on one client
_SKEW = timedelta(minutes=15)
_DELEGATION = timedelta(days=7)
_TIMEOUTS = (20, 60)
_LONGEST_WAIT = 60.0
_PASSING = {"OperationTimedOut", "InternalError", "ServerBusy"}
_SIGNATURE = re.compile(r"(sig=)[^&\s'\")]+")


class Retries(ExponentialRetry):
    """The SDK's retries, with full jitter, and as long as the service asks for.

    The SDK repeats what failed with 408, 5xx or on the way, whatever the method. So the driver makes writes conditional
    before they are repeated, and recognises one that fails on its own first success.
    """

    def __init__(self, attempts: int, *, base: float = 0.4, longest: float = 20.0) -> None:
        left = attempts - 1
        super().__init__(retry_total=left, retry_connect=left, retry_read=left, retry_status=left)
        self._base = base
        self._longest = longest

    def get_backoff_time(self, settings: dict[str, Any]) -> float:
        """Return the seconds that the service asks for, or else a random part of a limit that doubles."""
        history = settings.get("history") or ()
        response = getattr(history[-1], "http_response", None) if history else None
        return self.pause(settings["count"], response.headers if response is not None else {})

    @staticmethod
    def passes(response: Any) -> bool:  # noqa: ANN401  azure-core's
        """Tell whether the SDK repeats a request after such an answer."""
        status = response.status_code
        of_source = 400 <= status < 500 and response.headers.get("x-ms-copy-source-error-code") in _PASSING
        return status == 408 or of_source or (status >= 500 and status not in {501, 505})

    def pause(self, count: int, headers: Mapping[str, str]) -> float:
        """Return the same for the retry of that number, after an answer with these headers."""
        asked = seconds_asked(headers)
        if asked is not None:
            return min(asked, _LONGEST_WAIT)
        return random.uniform(0, min(self._longest, self._base * 2**count))  # noqa: S311  a delay


class Session:
    """The client of a provider's storage account. It is thread-safe.

    Args:
        credential: in place of the settings' for Microsoft Entra, for tests and odd identities.
        transport: in place of the SDK's own, for tests.
        identity: the one of the provider.
        bulk: whether it is that of the bulk lane, over connections that cost less.
    """

    def __init__(
        self,
        settings: AzureSettings,
        *,
        credential: TokenCredential | None = None,
        transport: HttpTransport[Any, Any] | None = None,
        identity: Identity | None = None,
        bulk: bool = False,
    ) -> None:
        self._settings = settings
        self.retries = Retries(settings.max_attempts)
        self.is_lane = bulk
        self._lock = threading.RLock()
        self._identity = identity or Identity(settings, credential)
        self._transport = transport
        self._bulk: BulkSession | None = None
        self._delegation: tuple[UserDelegationKey, datetime] | None = None

    def lane(self) -> Session:
        """Return the session of the bulk lane, with the same credentials; this one, if its transport was given."""
        if self.is_lane or self._transport is not None:
            return self
        return Session(self._settings, identity=self._identity, bulk=True)

    @functools.cached_property
    def blobs(self) -> BlobServiceClient:
        """The client of the storage account's blob service; the same one each time.

        Raises:
            ConfigError: neither an account nor an endpoint is named, or a credential is malformed.
        """
        with self._lock:
            made = self.__dict__.get("blobs") or self._made()
            self.__dict__["blobs"] = made
            return made

    def connections(self, url: str) -> Connections | None:
        """Return the bulk lane's connections to a server; ``None`` if the SDK has to go there."""
        return None if self._bulk is None else self._bulk.connections(url, _TIMEOUTS)

    def signed(
        self,
        container: str,
        blob: str,
        permission: str,
        expires: timedelta,
        *,
        version: str | None = None,
        content_type: str | None = None,
        content_disposition: str | None = None,
    ) -> str:
        """Return a blob's URL with a shared access signature.

        Args:
            content_type: of the answer, in place of the blob's.
            content_disposition: the same.

        Raises:
            Unsupported: there are neither an account's key nor an identity to sign with.
        """
        until = datetime.now(UTC) + expires
        sas = generate_blob_sas(
            self.account,
            container,
            blob,
            permission=permission,
            expiry=until,
            version_id=version,
            content_type=content_type,
            content_disposition=content_disposition,
            **self._signing_key(until),
        )
        return f"{self.url(container, blob, version)}{'&' if version else '?'}{sas}"

    def source(self, container: str, blob: str, version: str | None = None) -> tuple[str, dict[str, Any]]:
        """Return the URL that a copy reads a blob from, and the arguments that authorise that."""
        if self._settings.sas_token is not None:
            token = self._settings.sas_token.reveal().lstrip("?")
            return f"{self.url(container, blob, version)}{'&' if version else '?'}{token}", {}
        if self.has_account_key:
            return self.signed(container, blob, "r", timedelta(hours=1), version=version), {}
        return self.url(container, blob, version), {
            "source_authorization": f"Bearer {self.identity.get_token(STORAGE).token}"
        }

    def readable(self, container: str, blob: str) -> str:
        """Return a URL by which a blob can be read for an hour: no token has to go with it, wherever it is copied to.

        Raises:
            Unsupported: there is nothing to sign with.
        """
        if self._settings.sas_token is not None:
            return self.source(container, blob)[0]
        return self.signed(container, blob, "r", timedelta(hours=1))

    def signed_blob(self, url: str) -> BlobClient:
        """Return the client of a blob of any account, by a URL that is signed for it. Whoever gets it closes it."""
        retries = Retries(self._settings.max_attempts)
        agent = f"shiftable/{__version__}"
        return BlobClient.from_blob_url(url, retry_policy=retries, user_agent=agent, transport=_transport())

    def url(self, container: str, blob: str, version: str | None = None) -> str:
        """Return a blob's URL, without any credential."""
        url = f"{self.blobs.url.partition('?')[0]}{quote(container)}/{quote(blob, safe='~/')}"
        return url if version is None else f"{url}?versionid={quote(version, safe='')}"

    @property
    def has_account_key(self) -> bool:
        """Whether the credential is the account's key, which may do everything."""
        return self._account_key() is not None

    @property
    def account(self) -> str:
        """The name of the storage account."""
        name = self._settings.storage_account or self.blobs.account_name
        if not name:
            raise ConfigError("azure: URLs are signed for an account; name it with storage_account")
        return name

    @property
    def identity(self) -> TokenCredential:
        """The credential of Microsoft Entra."""
        return self._identity.credential

    def close(self) -> None:
        """Close all connections. A client that is used afterwards opens new ones."""
        client = self.__dict__.pop("blobs", None)
        if client is not None:
            client.close()

    def __repr__(self) -> str:
        return f"<Session account={self._settings.storage_account!r} endpoint={self._settings.endpoint!r}>"

    def _made(self) -> BlobServiceClient:
        settings = self._settings
        options: dict[str, Any] = {
            "retry_policy": self.retries,
            "user_agent": f"shiftable/{__version__}",
            "max_single_put_size": PUT,
            "max_single_get_size": WHOLE,
            "connection_data_block_size": CHUNK,
        }
        if self.is_lane:
            self._bulk = BulkSession()
            prepare(self._bulk, self._url())
        options["transport"] = self._transport or _transport(self._bulk)
        try:
            if settings.connection_string is not None:
                return BlobServiceClient.from_connection_string(settings.connection_string.reveal(), **options)
            return BlobServiceClient(self._endpoint(), self._credential(), **options)
        except (AzureError, ValueError, TypeError) as exc:
            raise ConfigError(f"azure: the blob service cannot be addressed: {_safe(exc)}") from None

    def _url(self) -> str:
        """Return where the service is, for the proxy on the way."""
        stated = self._settings.connection_string
        return _SOMEWHERE if stated is not None else self._endpoint()

    def _endpoint(self) -> str:
        if self._settings.endpoint is not None:
            return self._settings.endpoint
        if self._settings.storage_account is None:
            raise ConfigError("azure: blob storage needs storage_account, endpoint or connection_string")
        return f"https://{self._settings.storage_account}.blob.core.windows.net"

    def _credential(self) -> AzureNamedKeyCredential | AzureSasCredential | TokenCredential:
        settings = self._settings
        if settings.account_key is not None and settings.storage_account is not None:
            return AzureNamedKeyCredential(settings.storage_account, settings.account_key.reveal())
        if settings.sas_token is not None:
            return AzureSasCredential(settings.sas_token.reveal().lstrip("?"))
        return self.identity

    def _account_key(self) -> str | None:
        """Return the account's key, also out of a connection string."""
        if self._settings.account_key is not None:
            return self._settings.account_key.reveal()
        key: str | None = getattr(self.blobs.credential, "account_key", None)
        return key

    def _signing_key(self, until: datetime) -> dict[str, Any]:
        key = self._account_key()
        if key is not None:
            return {"account_key": key}
        if not hasattr(self.blobs.credential, "get_token"):
            raise Unsupported("a shared access signature signs no URLs; an account key or an identity does")
        return {"user_delegation_key": self._delegated(until), "start": datetime.now(UTC) - _SKEW}

    def _delegated(self, until: datetime) -> UserDelegationKey:
        """Return a key that is valid long enough; one is asked for at most every few days."""
        with self._lock:
            if self._delegation is None or self._delegation[1] < until:
                now = datetime.now(UTC)
                end = now + _DELEGATION - _SKEW
                self._delegation = (self.blobs.get_user_delegation_key(now - _SKEW, end), end)
            return self._delegation[0]


class _Transport(RequestsTransport):  # type: ignore[misc]  # azure-core hands it out untyped
    """The SDK's transport, whose errors do not quote the shared access signature that goes with each URL."""

    def send(self, request: Any, **options: Any) -> Any:  # noqa: ANN401  as in azure-core
        """Send a request."""
        try:
            return super().send(request, **options)
        except AzureError as exc:
            if "sig=" not in str(exc):
                raise
            raise type(exc)(_SIGNATURE.sub(r"\1***", str(exc))) from None

    def sleep(self, duration: float) -> None:
        """Pause between two tries."""
        sleep(duration)


def _transport(session: requests.Session | None = None) -> _Transport:
    """Return a transport with connections for many threads; surplus ones are thrown away.

    Args:
        session: that of the bulk lane.
    """
    if session is None:
        session = requests.Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS))
    return _Transport(
        session=session,
        session_owner=True,
        connection_data_block_size=CHUNK,
        connection_timeout=_TIMEOUTS[0],
        read_timeout=_TIMEOUTS[1],
    )


def _safe(exc: Exception) -> str:
    """Return what is wrong with a credential, without the credential."""
    line = str(exc).partition("\n")[0]
    return line if not any(mark in line for mark in ("AccountKey", "sig=", "SharedAccessSignature")) else "malformed"
