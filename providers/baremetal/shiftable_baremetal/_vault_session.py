"""The way to a Vault or OpenBao server: address, login, renewal of the token, and what its refusals mean."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from socket import gaierror
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
import hvac
import requests
from hvac import exceptions
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from shiftable.errors import (
    ConfigError,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
    cause_of,
)
from shiftable.tls import advised, check_authorities
from shiftable.waiting import retry_after
from shiftable_baremetal import VaultSettings
from shiftable_baremetal._addresses import address_parts, sendable
from shiftable_baremetal._vault_layout import Refusal

__all__ = ["VaultSession", "classify"]

T = TypeVar("T")

Untyped = Any
"""What hvac hands out: it has no types."""

_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two bytes of an answer
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_ASK_AFTER = 60.0
"""Seconds after which a token that was given is worth a question how long it lives; a command is over by then."""

_RETRIES = Retry(
    total=4,
    allowed_methods=["GET", "LIST"],  # others only where the connection was not made, so that nothing was sent
    status_forcelist=[412, 429, 500, 502, 503, 504],  # 412: an Enterprise node that has not seen the last write yet
    backoff_factor=0.1,
    backoff_jitter=0.1,
    raise_on_status=False,
    respect_retry_after_header=False,  # an operator's quota may say hours
)

_STATUSES: Mapping[int, tuple[type[OperationError], str]] = {
    400: (InvalidArgument, ""),
    401: (Unauthenticated, ""),
    403: (PermissionDenied, ""),
    404: (NotFound, ""),
    405: (Conflict, "the server does not know this operation there; is the mount a KV engine of version 2?"),
    412: (Unavailable, "the node has not seen the last write yet"),
    413: (InvalidArgument, "the value is larger than the server takes"),
    415: (Conflict, "the server is too old for this operation: it needs Vault 1.10 or OpenBao"),
    429: (Throttled, "the server's rate limit is reached"),
    472: (Unavailable, "the node is a standby of disaster recovery, and answers nobody"),
    473: (Unavailable, "the node is a standby"),
    500: (Unavailable, ""),
    501: (Unavailable, "the server is not initialised"),
    502: (Unavailable, ""),
    503: (Unavailable, "the server is sealed or a standby"),
    504: (Unavailable, ""),
}

_TEXTS: tuple[tuple[str, type[OperationError], str], ...] = (
    ("missing client token", Unauthenticated, ""),
    ("invalid role or secret ID", Unauthenticated, ""),
    ("Upgrading from non-versioned", Unavailable, ""),
    ("Vault is sealed", Unavailable, "the server is sealed"),
    ("too large", InvalidArgument, "the value is larger than the server's storage takes"),
    ("lease count quota exceeded", QuotaExceeded, ""),
    ("no handler for route", ParentNotFound, "there is nothing mounted there: check the mount and the namespace"),
)
"""What some messages mean, whatever their status is."""


_TLS = {"authorities": "vault.ca_bundle", "name": "the name in `vault.address`"}


def classify(exc: Exception) -> Fault | None:
    """Say what a refusal, an error of hvac's or a failed connection means."""
    if isinstance(exc, Refusal):
        return exc.fault
    if isinstance(exc, exceptions.VaultError):
        return _of_answer(exc)
    return _of_connection(exc) if isinstance(exc, requests.exceptions.RequestException) else None


def _of_connection(exc: requests.exceptions.RequestException) -> Fault:
    if isinstance(exc, requests.exceptions.Timeout):
        return Fault(Timeout, "the server did not answer in time")
    if isinstance(exc, requests.exceptions.SSLError):
        said = _with_cause("no TLS with the server", exc, ssl.SSLError)
        return Fault(Unavailable, advised(said, **_TLS), type(exc).__name__)
    if isinstance(exc, requests.exceptions.ContentDecodingError):
        return Fault(Unavailable, "the answer is no JSON: is this the address of a Vault?", type(exc).__name__)
    said = _with_cause("the server cannot be reached, or the connection broke", exc, ConnectionError, gaierror)
    return Fault(Unavailable, said, type(exc).__name__)


def _with_cause(said: str, exc: Exception, *kinds: type[BaseException]) -> str:
    cause = cause_of(exc, *kinds)
    return said if cause is None else f"{said}: {getattr(cause, 'strerror', None) or cause}"


def _of_answer(exc: Untyped) -> Fault:
    status = getattr(exc, "status", 0)
    said = _said(exc)
    error, message = _STATUSES.get(status, (OperationError, ""))
    for text, its_error, its_message in _TEXTS:
        if text in said:
            error, message = its_error, its_message
    return Fault(error, message or said or "no reason is given", str(status or ""), None, getattr(exc, "wait", None))


def _said(exc: Untyped) -> str:
    """Return the server's words, without the address."""
    return " ".join(" ".join(exc.errors or [str(exc.args[0] or "")]).split())[:500]


class _Adapter(hvac.adapters.RawAdapter):  # type: ignore[misc]  # hvac has no types
    """hvac's own way to send, which keeps what classification needs and drops what would show a value."""

    def get_login_token(self, response: Untyped) -> Untyped:
        return response["auth"]["client_token"]

    def request(self, method: str, url: str, **kwargs: Untyped) -> Untyped:
        """Send, and return the answer's JSON; the server's time is in it as ``date``."""
        try:
            response = super().request(method, url, **kwargs)
        except requests.exceptions.RequestException as exc:
            exc.request = exc.response = None  # they hold the token, and the value that was sent
            raise
        if response.status_code != 200:
            return {}
        try:
            return {**response.json(), "date": response.headers.get("Date", "")}
        except (requests.exceptions.JSONDecodeError, TypeError):
            pass  # it holds the answer, and so a value: ours is raised where that one cannot hang on it
        raise requests.exceptions.ContentDecodingError(f"what came from {url} is no JSON object")

    def _raise_for_error(self, method: str, url: str, response: Untyped) -> None:
        try:
            super()._raise_for_error(method, url, response)
        except exceptions.VaultError as exc:
            exc.status = response.status_code
            exc.wait = retry_after(response.headers.get("Retry-After"))
            exc.date = response.headers.get("Date", "")
            raise


@attrs.define
class _Lease:
    """What is known of the token in use: since when, for how long, and whether it can be renewed."""

    since: float
    seconds: float | None = None
    renewable: bool = False
    asked: bool = False

    def is_old(self, now: float) -> bool:
        return self.seconds is not None and now - self.since > self.seconds * 2 / 3


def _authorities(settings: VaultSettings) -> str | None:
    """Return the file, or OpenSSL's folder, of those who are trusted; ``None``: the public ones.

    Raises:
        ConfigError: there are no certificates in it.
    """
    for setting, path in (("vault.ca_bundle", settings.ca_bundle), ("VAULT_CACERT", os.environ.get("VAULT_CACERT"))):
        if path:
            check_authorities(setting, Path(path))
            return str(path)
    folder = os.environ.get("VAULT_CAPATH")
    if folder and not Path(folder).is_dir():
        raise ConfigError(f"VAULT_CAPATH: {folder} is no folder")
    return folder or None


class VaultSession:
    """One login at one server, for all threads.

    Args:
        monotonic: tells seconds, for the life of tokens.
    """

    def __init__(self, settings: VaultSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._lease: _Lease | None = None
        address = settings.address or os.environ.get("VAULT_ADDR")
        if not address:
            raise ConfigError("vault.address is missing, and VAULT_ADDR is not set")
        setting = "vault.address" if settings.address else "VAULT_ADDR"
        address_parts(setting, address, "https://vault.example:8200")
        connections = requests.Session()
        connections.trust_env = True
        connections.hooks["response"].append(_stays_private)
        for scheme in ("https://", "http://"):
            connections.mount(scheme, HTTPAdapter(pool_maxsize=64, max_retries=_RETRIES))
        connections.verify = _authorities(settings) or True
        self.client: Untyped = hvac.Client(
            url=address,
            token="",  # else hvac would look for one that was not asked for
            namespace=settings.namespace or os.environ.get("VAULT_NAMESPACE") or None,
            session=connections,
            timeout=_TIMEOUT,
            adapter=_Adapter,
        )

    @property
    def mount(self) -> str:
        """Where the engine is mounted."""
        return self._settings.mount

    def close(self) -> None:
        """Close the connections. A token from a login ends by itself."""
        self.client.adapter.close()

    def call(self, act: Callable[[], T], rule: str) -> T:
        """Do something that needs a token; with a new one if the old one has ended.

        Args:
            rule: what a policy must say for it, for the message of a refusal: ``path "…" { capabilities = [...] }``.
        """
        used = self._ready()
        try:
            return act()
        except exceptions.Forbidden as exc:
            if not self._replaced(used):
                raise self._refused(exc, rule) from exc
        try:
            return act()  # what was refused was not executed, so doing it again is safe
        except exceptions.Forbidden as exc:
            raise self._refused(exc, rule) from exc

    # the token

    def _ready(self) -> _Lease:
        """Return the lease of a token that is good for a while."""
        now = self._monotonic()
        with self._lock:
            lease = self._lease
            if lease is None:
                return self._login()
            if self._settings.auth == "token" and not lease.asked and now - lease.since > _ASK_AFTER:
                self._ask(lease)
            if lease.is_old(now):
                return self._renewed(lease)
            return lease

    def _login(self) -> _Lease:
        now, settings, auth = self._monotonic(), self._settings, self.client.auth
        if settings.auth == "token":
            self.client.token = self._given_token()
            self._lease = _Lease(now)
            return self._lease
        where = settings.auth_mount or settings.auth
        try:
            if settings.auth == "approle":
                secret = settings.secret_id.reveal() if settings.secret_id else None
                answer = auth.approle.login(_needed(settings, "role_id"), secret, mount_point=where)
            elif settings.auth == "jwt":
                answer = auth.jwt.jwt_login(settings.role, _needed(settings, "jwt"), path=where)
            else:
                answer = auth.kubernetes.login(settings.role, self._service_account(), mount_point=where)
        except exceptions.VaultError as exc:
            fault = _of_answer(exc)
            if fault.error.retryable or fault.error is ParentNotFound:
                raise
            raise Refusal(Unauthenticated, f"the login at auth/{where} failed: {fault.message}", fault.code) from exc
        told = answer["auth"]
        self._lease = _Lease(now, float(told["lease_duration"]) or None, bool(told["renewable"]), asked=True)
        return self._lease

    def _given_token(self) -> str:
        if self._settings.token is not None:
            return sendable("vault.token", self._settings.token.reveal())
        found: str | None = hvac.utils.get_token_from_env()
        if not found:
            why = "there is no token: set VAULT_TOKEN, run `vault login`, or refer to one in the settings"
            raise Refusal(Unauthenticated, why)
        return sendable("the token of VAULT_TOKEN or ~/.vault-token", found)

    def _service_account(self) -> str:
        if self._settings.jwt is not None:
            return self._settings.jwt.reveal()
        try:
            return _SERVICE_ACCOUNT.read_text(encoding="utf-8").strip()  # anew each time: Kubernetes replaces it
        except OSError as exc:
            why = f"there is no token of a service account in {_SERVICE_ACCOUNT}; give vault.jwt"
            raise Refusal(Unauthenticated, why) from exc

    def _ask(self, lease: _Lease) -> None:
        """Learn how long a token that was given lives; one that may not ask is used until it ends."""
        lease.asked = True
        try:
            told = self.client.auth.token.lookup_self()["data"]
        except exceptions.Forbidden:
            return
        lease.since = self._monotonic()
        lease.seconds, lease.renewable = float(told["ttl"]) or None, bool(told.get("renewable"))

    def _renewed(self, lease: _Lease) -> _Lease:
        """Make the token live longer, or get another one; a token that was given and cannot is used until it ends."""
        if lease.renewable:
            try:
                told = self.client.auth.token.renew_self()["auth"]
            except (exceptions.Forbidden, exceptions.InvalidRequest):
                lease.renewable = False
            else:
                seconds = float(told["lease_duration"])
                enough = lease.seconds is not None and seconds > lease.seconds / 2
                renewed = _Lease(self._monotonic(), seconds, bool(told["renewable"]) and enough, asked=True)
                self._lease = renewed
                if enough or self._settings.auth == "token":
                    return renewed
        return lease if self._settings.auth == "token" else self._login()

    def _replaced(self, used: _Lease) -> bool:
        """Log in again, unless another thread has since, or nothing else would come of it."""
        with self._lock:
            if self._lease is not used:
                return True
            if self._settings.auth == "token":
                before = self.client.token
                self._login()  # the file or the variable may have another one by now
                return bool(self.client.token != before)
            self._login()
            return True

    def _refused(self, exc: Untyped, rule: str) -> Refusal:
        """Tell a token that is no longer good from one that is and may not."""
        if "invalid token" in _said(exc) or not self._knows_us():
            why = "the token is wrong, revoked or has expired: log in again, for example with `vault login`"
            return Refusal(Unauthenticated, why, "403")
        return Refusal(PermissionDenied, f"a policy of the token must allow it: {rule}", "403")

    def _knows_us(self) -> bool:
        if self._settings.auth != "token":
            return True  # it is from a login of just now
        try:
            self.client.auth.token.lookup_self()
        except exceptions.Forbidden:
            return False
        return True


def _stays_private(response: requests.Response, **_: Untyped) -> None:
    """Refuse to follow a standby's redirection from TLS into the clear, where the token and the value would go, too."""
    target = response.headers.get("Location", "")
    if response.is_redirect and response.url.startswith("https://") and target.startswith("http://"):
        where = urlsplit(target).netloc
        raise Refusal(Conflict, f"the server sends us to http://{where}, without TLS; correct its api_addr")


def _needed(settings: VaultSettings, name: str) -> str:
    found = getattr(settings, name)
    if found is None:
        raise ConfigError(f"vault.{name} is missing: auth = {settings.auth!r} needs it")
    return str(found.reveal())
