"""One set of credentials for all services of a provider, and the connections that carry them, made when first used."""

from __future__ import annotations

import functools
import json
import math
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import attrs
import google.auth
from google.api_core.client_info import ClientInfo
from google.api_core.retry import Retry, exponential_sleep_generator, retry_target
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.oauth2 import service_account
from requests.adapters import HTTPAdapter

from shiftable.errors import ConfigError, Throttled
from shiftable.fibers import in_thread, sleep
from shiftable.http import Connections
from shiftable.http_adapter import BulkSession, prepare
from shiftable_gcp import GcpSettings, __version__
from shiftable_gcp.errors import classify, is_retryable

__all__ = ["TIMEOUT", "Attempts", "LaneTransport", "ServerClock", "Session", "Transport", "Untyped"]

Untyped = Any
"""What Google's libraries and requests hand out: none of them has types."""

TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two bytes of an answer
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_CONNECTIONS = 64  # the bulk lane has up to 64 threads; urllib3 throws surplus connections away
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 16.0  # seconds; what is waited is random up to these
_SECOND = timedelta(seconds=1)
_GRAIN = timedelta(milliseconds=1)  # of the times of objects
_DRIFT = 1e-3  # twice what a clock that is being corrected may be off: 500 parts in a million (adjtimex)
_SERVICE = "https://storage.googleapis.com"
_REFRESH_TIMEOUT = 120  # as in google-cloud-storage
_ASKED_AGAIN = 1.0  # seconds; a token is renewed minutes before it expires


class ServerClock:
    """What is known of the server's time: its distance from our monotonic clock, between two bounds.

    Every answer's ``Date`` narrows it to a second, and the creation time of what we wrote to the length of that call.
    The bounds part again as time passes, as no two clocks run alike.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._low, self._high, self._at = -math.inf, math.inf, 0.0

    def observe(self, told: datetime, grain: timedelta, sent: float, received: float) -> None:
        """Take in a time that the server told, cut to whole grains, between two moments of ours."""
        low = told.timestamp() - received
        high = told.timestamp() + grain.total_seconds() - sent
        with self._lock:
            drift = self._drift(received)
            if low > self._high + drift or high < self._low - drift:  # a clock was set
                self._low, self._high = low, high
            else:
                self._low, self._high = max(low, self._low - drift), min(high, self._high + drift)
            self._at = received

    def is_before(self, made: datetime, moment: float) -> bool | None:
        """Tell whether the server made something before a moment of ours; ``None`` if that is not known."""
        with self._lock:
            drift = self._drift(moment)
            if made.timestamp() + _GRAIN.total_seconds() < moment + self._low - drift:
                return True
            return False if made.timestamp() > moment + self._high + drift else None

    def _drift(self, moment: float) -> float:
        return _DRIFT * abs(moment - self._at)


class Transport(AuthorizedSession):
    """Connections with credentials on every request; they also note the server's time."""

    def __init__(self, credentials: Untyped, clock: ServerClock) -> None:
        super().__init__(credentials, refresh_timeout=_REFRESH_TIMEOUT)
        self._clock = clock
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def request(self, method: str, url: str, *args: Untyped, **kwargs: Untyped) -> Untyped:  # type: ignore[override]  # google-auth changed the order of requests' own
        """Send a request."""
        sent = time.monotonic()
        response = super().request(method, url, *args, **kwargs)
        self.note(response.headers.get("date"), sent)
        return response

    def note(self, date: str | None, sent: float) -> None:
        """Take in the date of an answer that has just come."""
        if date:
            self._clock.observe(_moment(date), _SECOND, sent, time.monotonic())


_moment = functools.lru_cache(8)(parsedate_to_datetime)


@attrs.frozen
class Carried:
    """The headers of credentials as they are sent, and until when they need not be asked again."""

    token: str | None = attrs.field(repr=False)
    lines: str = attrs.field(repr=False)
    until: float


class LaneTransport(Transport, BulkSession):
    """Connections of the bulk lane: google-auth's session over ours."""

    def __init__(self, credentials: Untyped, clock: ServerClock) -> None:
        super().__init__(credentials, clock)
        self._renewing = threading.Lock()
        self._carried: Carried | None = None

    def connections(self, url: str, timeout: Untyped) -> Connections | None:
        """Return the connections to a URL's server; ``None`` where only requests can go, or who stands in for it."""
        replaced = AuthorizedSession.request.__module__ != AuthorizedSession.__module__
        return None if replaced else super().connections(url, timeout)

    def authorization(self, method: str, url: str) -> Carried:
        """Return what carries the credentials; a token that has grown old is renewed in a thread."""
        carried = self._carried
        if carried is not None and carried.token is self.credentials.token and time.monotonic() < carried.until:
            return carried
        valid = self.credentials.valid
        made = self._authorized(method, url) if valid else in_thread(self._renewed, method, url)
        self._carried = made
        return made

    def renew(self, refused: Carried) -> None:
        """Fetch another token than the one that the service has refused."""
        in_thread(self._replace, refused)

    def _authorized(self, method: str, url: str) -> Carried:
        headers: dict[str, str] = {}
        self.credentials.before_request(self._ask, method, url, headers)
        token = self.credentials.token
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return Carried(token, lines, time.monotonic() + _ASKED_AGAIN)

    def _renewed(self, method: str, url: str) -> Carried:
        with self._renewing:  # whoever waited finds a token
            return self._authorized(method, url)

    def _replace(self, refused: Carried) -> None:
        with self._renewing:
            if self.credentials.token == refused.token:
                self.credentials.refresh(self._ask)

    def _ask(self, *args: Untyped, **kwargs: Untyped) -> Untyped:
        return self._auth_request(*args, **{"timeout": TIMEOUT, **kwargs})


class _Elsewhere(service_account.Credentials):
    """A service account's credentials for a stand-in: they ask nobody but the key's own ``token_uri``."""

    def _after_refresh(self, request: Untyped, method: str, url: str, headers: Untyped) -> None:
        """Leave out what google-auth does here, in a thread: ask Google where the account may be used."""


class Attempts:
    """How one call is tried again, and what is known of the tries that failed.

    Args:
        seconds: for how long new tries begin.
        repeatable: the call may be executed twice, or its condition forbids that. Any other is tried again only when
            the service says that it refused it for coming too fast.
    """

    def __init__(self, seconds: float, *, repeatable: bool) -> None:
        self._seconds = seconds
        self._repeatable = repeatable
        self.doubtful = False
        """Whether a try failed that may yet have been executed."""

    @property
    def policy(self) -> Untyped:
        """The policy for one call of the SDK."""
        return _Patient(
            predicate=is_retryable if self._repeatable else _refused,
            initial=_FIRST_WAIT,
            maximum=_LONGEST_WAIT,
            multiplier=2.0,
            timeout=self._seconds,
            on_error=self._note,
        )

    def _note(self, exc: Exception) -> None:
        self.doubtful = self.doubtful or not _refused(exc)


class _Patient(Retry):
    """The SDK's policy, whose pauses give way."""

    def __call__(self, func: Untyped, on_error: Untyped = None) -> Untyped:
        """Return the function with its tries."""

        def tried(*args: Untyped, **kwargs: Untyped) -> Untyped:
            return retry_target(
                functools.partial(func, *args, **kwargs),
                self._predicate,
                self._pauses(),
                timeout=self._timeout,
                on_error=on_error or self._on_error,
            )

        return tried

    def _pauses(self) -> Iterator[float]:
        """Sleep here, and let the SDK sleep no more."""
        for seconds in exponential_sleep_generator(self._initial, self._maximum, multiplier=self._multiplier):
            sleep(seconds)
            yield 0.0


class Session:
    """The credentials, the project and the connections of one provider. It may be used from many threads.

    Args:
        origin: whose bulk lane it is: it has its credentials, and connections of its own.
    """

    def __init__(self, settings: GcpSettings, *, origin: Session | None = None) -> None:
        self._settings = settings
        self._origin = origin
        self._lock = threading.RLock()
        self._client: Untyped = None
        self._transport: Transport | None = None
        self._project: str | None = None
        self.clock: ServerClock = origin.clock if origin else ServerClock()

    def lane(self) -> Session:
        """Return the session of the bulk lane: the same credentials over connections that cost less."""
        return Session(self._settings, origin=self)

    @property
    def is_lane(self) -> bool:
        """Whether it is one: then its calls give way while they wait."""
        return self._origin is not None

    @property
    def client(self) -> Untyped:
        """The ``google.cloud.storage.Client``; the same one each time.

        Raises:
            google.auth.exceptions.DefaultCredentialsError: there are no credentials.
            ConfigError: ``service_account`` is no service account's key.
        """
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._made()
        return self._client

    @property
    def sign_as(self) -> str | None:
        """The service account in whose name URLs are signed, if the settings say so."""
        return self._settings.sign_as

    @property
    def transport(self) -> Transport:
        """The connections, for what the SDK cannot do."""
        with self._lock:
            if self._transport is None:
                origin = self._origin
                if origin is None:
                    credentials, self._project = self._credentials()
                else:
                    credentials, self._project = origin.transport.credentials, origin._project  # noqa: SLF001  its own kind
                kind = Transport if origin is None else LaneTransport
                self._transport = kind(credentials, self.clock)
                if origin is not None:
                    prepare(self._transport, self._settings.endpoint or _SERVICE)
            return self._transport

    @property
    def endpoint(self) -> str | None:
        """Where all services are, if it is not Google."""
        return self._settings.endpoint

    @property
    def region(self) -> str | None:
        """Where resources are made, if the settings say so."""
        return self._settings.region

    def attempts(self, *, repeatable: bool = True) -> Attempts:
        """Say how one call is to be tried again."""
        return Attempts(self._settings.retry_seconds, repeatable=repeatable)

    def require_project(self) -> str:
        """Return the project.

        Raises:
            ConfigError: neither the settings nor the credentials name one.
        """
        project: str | None = self.client.project
        if not project or project == "<none>":  # what the SDK says of no project
            raise ConfigError("gcp: no project: say `project` in the provider's table, or GOOGLE_CLOUD_PROJECT")
        return project

    def close(self) -> None:
        """Close all connections. A session that is used afterwards opens new ones."""
        with self._lock:
            transport, self._transport, self._client = self._transport, None, None
        if transport is not None:
            transport.close()

    def __repr__(self) -> str:
        return f"<Session project={self._settings.project!r} region={self._settings.region!r}>"

    def _made(self) -> Untyped:
        endpoint, transport = self._settings.endpoint, self.transport
        made = storage.Client(
            project=self._settings.project or self._project,
            credentials=transport.credentials,
            _http=transport,  # the SDK's own has ten connections, and many threads share it
            client_options={"api_endpoint": endpoint} if endpoint else None,
            client_info=ClientInfo(user_agent=f"shiftable/{__version__}"),
        )
        # For traces the SDK asks in a thread of its own where each bucket is, also where nobody traces.
        made._bucket_metadata_cache = None  # noqa: SLF001  there is no other word for it but a variable of the process
        return made

    def _credentials(self) -> tuple[Untyped, str | None]:
        key = self._settings.service_account
        if key is not None:
            try:
                stated = json.loads(key.reveal())
                kind = service_account.Credentials if self._settings.endpoint is None else _Elsewhere
                made = kind.from_service_account_info(stated, scopes=_SCOPES)
            except (ValueError, TypeError, AttributeError):
                # The cause is left out: it may quote the key.
                raise ConfigError(
                    "gcp: service_account is not the JSON key of a service account; refer to the file as Google gave it"
                ) from None
            return made, made.project_id
        if self._settings.endpoint is not None:
            return AnonymousCredentials(), None
        found: tuple[Untyped, str | None] = google.auth.default(scopes=_SCOPES)
        return found


def _refused(exc: Exception) -> bool:
    """Tell whether a call was refused for coming too fast, and so was not executed."""
    fault = classify(exc)
    return fault is not None and fault.error is Throttled
