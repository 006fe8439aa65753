"""Azure Resource Manager: one pipeline for all its services, in JSON, with the api-versions that a driver pins."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

import attrs
from azure.core.exceptions import DecodeError, HttpResponseError
from azure.core.pipeline.policies import RequestIdPolicy, UserAgentPolicy
from azure.core.rest import HttpRequest
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.exceptions import ARMErrorFormat
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy, ARMHttpLoggingPolicy

from shiftable.errors import ConfigError
from shiftable.fibers import sleep
from shiftable_azure import AzureSettings, __version__
from shiftable_azure._identity import GivenToken, Identity
from shiftable_azure._pace import Pace
from shiftable_azure._transport import Patient, Transport
from shiftable_azure.errors import ArmFailure, seconds_asked

if TYPE_CHECKING:
    from azure.core.rest import HttpResponse

__all__ = ["ArmAnswer", "ArmRefusal", "ArmRetries", "ArmSession", "is_running", "link_of"]

_PUBLIC = "https://management.azure.com"
_PAUSE = 5.0  # seconds between two looks at an operation that does not say when to look again
_LONGEST_WAIT = 60.0
_MINUTE = 61.0  # a second more, since calls overtake each other on their way
_THROTTLED = 429


@attrs.frozen
class ArmAnswer:
    """What Resource Manager answered.

    Args:
        status: of success.
        body: the JSON, empty where there is none.
        headers: as they came.
        doubtful: it may have been executed twice: an earlier try failed in a way that says nothing of what it did.
    """

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = attrs.field(repr=False)
    doubtful: bool = False


class ArmRefusal(HttpResponseError):
    """What Resource Manager answers in place of a success.

    Args:
        doubtful: as in ``ArmAnswer``: what was refused may be a second try of what succeeded.
    """

    def __init__(self, answer: HttpResponse, *, doubtful: bool) -> None:
        super().__init__(response=answer, error_format=ARMErrorFormat)
        self.doubtful = doubtful


class ArmRetries(Patient):
    """The SDK's retries, which note when it is not known what a try has done."""

    def configure_retries(self, options: dict[str, Any]) -> dict[str, Any]:
        """Take over the list for doubts."""
        doubts = options.pop("doubts", [])
        return {**super().configure_retries(options), "doubts": doubts}

    def is_retry(self, settings: dict[str, Any], response: Any) -> bool:  # noqa: ANN401  as in azure-core
        """Tell whether an answer is reason to ask again: what it refused for good is none, whatever its headers say."""
        known = response.http_response.status_code in self._retry_on_status_codes
        return known and bool(super().is_retry(settings, response))

    def increment(self, settings: dict[str, Any], response: Any = None, error: Exception | None = None) -> bool:  # noqa: ANN401  as in azure-core
        """Count a try, and note a doubt about it: only a throttled one certainly did nothing."""
        if error is not None or response.http_response.status_code != _THROTTLED:
            settings["doubts"].append(error)
        return bool(super().increment(settings, response, error))


class ArmSession:
    """Calls Resource Manager for one subscription. It is thread-safe.

    Args:
        pause: what waits, for tests; ``clock`` tells the seconds that it counts in.
    """

    # ARMPipelineClient, not the generic client of azure-mgmt-resource: that one's models have neither ETags nor record
    # sets, its package changes its imports with major versions, and it registers resource providers unasked.

    def __init__(
        self,
        settings: AzureSettings,
        identity: Identity,
        *,
        pause: Callable[[float], None] = sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._lock = threading.Lock()
        self._client: ARMPipelineClient[HttpRequest, HttpResponse] | None = None
        self._paces: dict[str, Pace] = {}
        self.pause = pause
        self.clock = clock

    @property
    def url(self) -> str:
        """Where Resource Manager is, as its own links have it."""
        stated = self._settings.arm_endpoint
        return stated.rstrip("/") if stated and stated.startswith("https://") else _PUBLIC

    @property
    def subscription(self) -> str:
        """The id of the subscription resource.

        Raises:
            ConfigError: none is named.
        """
        return f"/subscriptions/{self._named('subscription')}"

    @property
    def group(self) -> str:
        """The id of the resource group in which resources are made.

        Raises:
            ConfigError: none is named.
        """
        return f"{self.subscription}/resourceGroups/{self._named('resource_group')}"

    @property
    def location(self) -> str:
        """Where resources are made, ``germanywestcentral``.

        Raises:
            ConfigError: none is named.
        """
        return self._named("location")

    def pace(self, name: str, per_minute: int) -> Pace:
        """Return the pace of what is counted under that name; the same one each time."""
        with self._lock:
            return self._paces.setdefault(name, Pace(per_minute, _MINUTE, clock=self.clock, pause=self.pause))

    def call(
        self,
        method: str,
        path: str,
        version: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        repeat: bool = False,
    ) -> ArmAnswer:
        """Send one request, until it is answered.

        Args:
            path: a resource id and what follows it, percent-encoded; or a link that Resource Manager gave.
            version: the api-version; a link has its own.
            repeat: a POST or PATCH that does no more when it is executed twice, so that it is sent again too when its
                answer is lost.

        Raises:
            ArmRefusal: it was refused.
            AzureError: it was not answered.
        """
        url = self._url(path)
        if not urlsplit(url).query:
            url = f"{url}?{urlencode({'api-version': version, **(query or {})})}"
        doubts = list[Exception | None]()
        request = HttpRequest(method, url, headers={"Accept": "application/json", **(headers or {})}, json=body)
        options: dict[str, Any] = {"retry_on_methods": frozenset({method})} if repeat else {}
        answer = self._pipeline().send_request(request, doubts=doubts, **options)
        if answer.status_code >= 300:
            raise ArmRefusal(answer, doubtful=bool(doubts))
        return ArmAnswer(answer.status_code, _content(answer), answer.headers, bool(doubts))

    def finish(self, answer: ArmAnswer, version: str, *, what: str, timeout: float) -> None:
        """Wait until a long-running operation has ended.

        Args:
            answer: to the request that began it.
            timeout: seconds.

        Raises:
            ArmFailure: it failed, or has not ended in time.
        """
        deadline = self.clock() + timeout
        link, running = link_of(answer), answer.status in {201, 202}
        while running and link is not None:
            if self.clock() >= deadline:
                raise ArmFailure("OperationTimedOut", f"waited {timeout:,.0f} s for {what}")
            asked = seconds_asked(answer.headers)
            self.pause(_PAUSE if asked is None else min(asked, _LONGEST_WAIT))
            answer = self.call("GET", link, version)
            link, running = link_of(answer) or link, is_running(answer, what)

    def result(self, answer: ArmAnswer, version: str, *, what: str, timeout: float) -> Mapping[str, Any]:
        """Wait until a long-running operation has ended, and return what it made: ``Location`` has it then.

        Raises:
            ArmFailure: as ``finish``.
        """
        self.finish(answer, version, what=what, timeout=timeout)
        place = answer.headers.get("Location") if answer.status in {201, 202} else None
        return answer.body if place is None else self.call("GET", place, version).body

    def close(self) -> None:
        """Close all connections. A session that is used afterwards opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def __repr__(self) -> str:
        return f"<ArmSession {self.url} subscription={self._settings.subscription!r}>"

    def _named(self, setting: str) -> str:
        found: str | None = getattr(self._settings, setting)
        if found is None:
            raise ConfigError(f"azure: this needs {setting}, where the resources are")
        return found

    def _url(self, path: str) -> str:
        """Return the URL of a path, or a link of Resource Manager's own: no other host gets the token."""
        url = urljoin(f"{self.url}/", path)
        if _origin(url) != _origin(self.url):
            raise ArmFailure("ForeignLink", f"Resource Manager refers to {urlsplit(url).netloc}, which is not asked")
        return url

    def _pipeline(self) -> ARMPipelineClient[HttpRequest, HttpResponse]:
        with self._lock:
            if self._client is None:
                self._client = self._made()
            return self._client

    def _made(self) -> ARMPipelineClient[HttpRequest, HttpResponse]:
        settings = self._settings
        token, stated = settings.arm_token, settings.arm_endpoint
        credential = self._identity.credential if token is None else GivenToken(token)
        policies = [
            RequestIdPolicy(),
            UserAgentPolicy(base_user_agent=f"shiftable/{__version__}"),
            ArmRetries(settings.max_attempts),
            ARMChallengeAuthenticationPolicy(credential, f"{self.url}/.default"),
            ARMHttpLoggingPolicy(),
        ]
        stand_in = stated if stated and stated.startswith("http://") else None
        return ARMPipelineClient(self.url, policies=policies, transport=Transport(stand_in, pause=self.pause))


def _origin(url: str) -> tuple[str, str | None, int]:
    """Return whom a URL is for: Resource Manager's own links may name the port that goes without saying."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _content(answer: HttpResponse) -> dict[str, Any]:
    """Return the JSON object of an answer; a list that stands alone, and has items, is its ``value``."""
    text = answer.text()
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise DecodeError(f"Resource Manager's answer is no JSON: {exc}") from exc
    if isinstance(found, list) and found:
        return {"value": found}
    if not isinstance(found, dict):
        raise DecodeError("Resource Manager's answer is no JSON object")
    return found


def link_of(answer: ArmAnswer) -> str | None:
    """Return where to ask for an operation: its status, which says why it failed, or else its result."""
    return answer.headers.get("Azure-AsyncOperation") or answer.headers.get("Location")


def is_running(answer: ArmAnswer, what: str) -> bool:
    """Tell whether an operation goes on.

    Raises:
        ArmFailure: it has failed.
    """
    state = answer.body.get("status")
    if state in {"Failed", "Canceled"}:
        error = answer.body.get("error") or {}
        raise ArmFailure(str(error.get("code") or state), f"{what}: {error.get('message') or state}")
    return answer.status == 202 or state not in {None, "Succeeded"}
