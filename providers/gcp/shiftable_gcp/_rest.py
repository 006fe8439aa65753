"""The thin layer over HTTP that services without an SDK of their own go through: the session's connections and JSON.

It raises what the SDKs raise, the exceptions of google-api-core and requests, and takes from them what a request held:
that may be the value of a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from google.api_core import exceptions as api_errors
from requests.exceptions import ContentDecodingError, RequestException

from shiftable_gcp._session import TIMEOUT, Attempts, Session, Untyped

__all__ = ["Rest"]


@attrs.frozen
class Rest:
    """One API of Google's.

    Args:
        host: where it is, unless the session has an endpoint for all.
    """

    _session: Session
    _host: str

    def get(self, path: str, **query: str | int) -> Any:  # noqa: ANN401  any JSON, also below
        """Ask; as often as it takes."""
        return self.call("GET", path, query=query)

    def call(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        attempts: Attempts | None = None,
    ) -> Any:  # noqa: ANN401
        """Send a request, and return what is answered.

        Args:
            attempts: how it is tried again; else as what may be executed twice.
        """
        attempts = attempts or self._session.attempts()
        return attempts.policy(lambda: self.once(verb, path, query=query, body=body))()

    def once(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Send a request once."""
        url = f"{self._session.endpoint or self._host}{path}"
        try:
            # `json`, not `data`: google-auth logs what it is given as data.
            response = self._session.transport.request(verb, url, params=query, json=body, timeout=TIMEOUT)
        except RequestException as exc:
            _forget(exc.request)
            raise
        _forget(response.request)
        if response.status_code >= 400:
            raise api_errors.from_http_response(response)
        return _decoded(response)


def _decoded(response: Untyped) -> Any:  # noqa: ANN401
    if response.status_code == 204:
        return {}
    try:
        return response.json()
    except ValueError:
        pass  # it quotes the answer, which may hold a value: ours is raised where that one cannot hang on it
    raise ContentDecodingError("the answer is no JSON")


def _forget(request: Untyped) -> None:
    """Take the body from a request that an exception carries on."""
    if request is not None:
        request.body = None
