"""How requests of azure-core's pipelines reach their service, and how long their policies wait."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from azure.core.exceptions import IncompleteReadError, ServiceResponseError
from azure.core.pipeline.policies import RetryPolicy
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter

from shiftable.fibers import sleep
from shiftable_azure.errors import seconds_asked

__all__ = ["Patient", "Transport"]

_LONGEST_WAIT = 60.0
_CONNECTIONS = 32


class Transport(RequestsTransport):  # type: ignore[misc]  # azure-core hands it out untyped
    """The SDK's transport; an answer that ends early is one that did not arrive.

    Args:
        endpoint: where to send everything, in place of the service: the SDK sends tokens over https alone, and with
            this it believes that it does.
        pause: what waits between two tries.
    """

    def __init__(self, endpoint: str | None, *, pause: Callable[[float], None] = sleep) -> None:
        session = requests.Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS))
        super().__init__(session=session, session_owner=True, connection_timeout=20, read_timeout=60)
        self._endpoint = urlsplit(endpoint) if endpoint else None
        self._pause = pause

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

    def sleep(self, duration: float) -> None:
        """Pause between two tries."""
        self._pause(duration)


class Patient(RetryPolicy[Any, Any]):
    """The SDK's retries with full jitter, and as long as the service asks for, within reason.

    Args:
        attempts: in all.
    """

    def __init__(self, attempts: int, *, base: float = 0.4, longest: float = 20.0) -> None:
        left = attempts - 1
        super().__init__(retry_total=left, retry_connect=left, retry_read=left, retry_status=left)
        self._base = base
        self._longest = longest

    def get_retry_after(self, response: Any) -> float | None:  # noqa: ANN401  as in azure-core
        """Return the seconds that the service asks for, within reason."""
        asked = seconds_asked(response.http_response.headers)
        return None if asked is None else min(asked, _LONGEST_WAIT)

    def get_backoff_time(self, settings: dict[str, Any]) -> float:
        """Return a random part of a limit that doubles."""
        return self.pause(len(settings["history"]))

    def pause(self, failures: int) -> float:
        """Return how long to wait after so many failures."""
        return random.uniform(0, min(self._longest, self._base * 2**failures))  # noqa: S311  a delay
