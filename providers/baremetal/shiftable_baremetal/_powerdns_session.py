"""The way to PowerDNS's HTTP API: one request, its JSON, and what its refusals mean."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter

from shiftable.config import Credential
from shiftable.errors import ConfigError
from shiftable_baremetal._powerdns_errors import ApiError, Broken, NeverSent

__all__ = ["Session", "zone_id"]

_TIMEOUT = (10.0, 120.0)  # seconds to connect, and between two bytes of an answer: SQLite writes 10,000 records in some
_ATTEMPTS = 4
_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds
_AGAIN = frozenset({429, 502, 503, 504})
_PLAIN = re.compile(r"[A-Za-z0-9._-]")


def zone_id(zone: str) -> str:
    """Return the id by which the API knows a zone: its name with a dot, other characters as ``=2F``."""
    return "".join(each if _PLAIN.fullmatch(each) else f"={ord(each):02X}" for each in f"{zone}.")


class Session:
    """Connections to one server, for all threads.

    Args:
        sleep: waits between two attempts.
    """

    def __init__(
        self,
        address: str,
        api_key: Credential,
        server_id: str,
        *,
        ca_bundle: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ConfigError(f"powerdns.address is {address!r}; write it https://ns1.example:8081")
        self._base = f"{address.rstrip('/').removesuffix('/api/v1')}/api/v1/servers/{quote(server_id, safe='')}"
        self._key = api_key
        self._sleep = sleep
        self._session = requests.Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=16))
        self._session.verify = True if ca_bundle is None else str(ca_bundle)

    def __repr__(self) -> str:
        return f"<Session {self._base}>"

    def get(self, path: str, **query: str) -> Any:  # noqa: ANN401  any JSON
        """Ask, as often as it takes.

        Raises:
            ApiError: the server refuses.
            Broken: the connection broke, each time.
        """
        for attempt in range(1, _ATTEMPTS):
            least = 0.0
            try:
                return self.send("GET", path, query=query)
            except ApiError as exc:
                if exc.status not in _AGAIN:
                    raise
                least = min(exc.retry_after or 0.0, _LONGEST_PAUSE)
            except Broken:
                pass
            self.pause(attempt, least)
        return self.send("GET", path, query=query)

    def pause(self, attempt: int, least: float = 0.0) -> None:
        """Wait before the next attempt, some time that is not the same for all who wait."""
        self._sleep(max(least, random.uniform(0, _PAUSE * 2**attempt)))  # noqa: S311  it only spreads clients

    def send(self, method: str, path: str, body: bytes | None = None, *, query: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401  any JSON
        """Send a request once, and return the JSON of the answer; ``None`` if it has none.

        Raises:
            ApiError: the server refuses.
            Broken: the connection broke; whether it was executed is not known. ``NeverSent``: it was not.
        """
        headers = {"X-API-Key": self._key.reveal(), "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        failure: Broken
        try:
            answer = self._session.request(
                *(method, f"{self._base}{path}"),
                params=query,
                data=body,
                headers=headers,
                timeout=_TIMEOUT,
                allow_redirects=False,  # the key would go along
            )
        except requests.exceptions.ConnectTimeout:
            failure = NeverSent("the server cannot be reached: no connection in time")
        except requests.exceptions.Timeout:
            failure = Broken("the server did not answer in time", timeout=True)
        except requests.exceptions.ConnectionError as exc:
            kind = NeverSent if "NewConnectionError" in repr(exc) else Broken
            failure = kind("the server cannot be reached" if kind is NeverSent else "the connection broke")
        except requests.exceptions.RequestException as exc:
            failure = Broken(f"the answer did not arrive whole ({type(exc).__name__})")
        else:
            return _decoded(answer)
        raise failure  # not from theirs, which holds the request and so the key

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _decoded(answer: requests.Response) -> Any:  # noqa: ANN401  any JSON
    status = answer.status_code
    if status >= 300:
        wait = answer.headers.get("Retry-After", "")
        raise ApiError(status, _said(answer), float(wait) if wait.isdigit() else None)
    if not answer.content:
        return None
    try:
        return json.loads(answer.content)
    except ValueError:
        pass
    raise Broken("the answer is no JSON: is this the address of PowerDNS's API?")


def _said(answer: requests.Response) -> str:
    """Return the server's words."""
    try:
        found = json.loads(answer.content)
        words = [str(found.get("error", "")), *map(str, found.get("errors", ()))]
    except (ValueError, AttributeError):
        words = [answer.text]
    return " ".join(" ".join(words).split())[:500]
