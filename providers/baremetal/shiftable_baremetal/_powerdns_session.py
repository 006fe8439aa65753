"""The way to PowerDNS's HTTP API: one request, its JSON, and what its refusals mean."""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from shiftable.config import Credential
from shiftable.errors import ConfigError
from shiftable_baremetal._failures import Broken, NeverSent
from shiftable_baremetal._powerdns_errors import ApiError

__all__ = ["Session", "zone_id"]

_TIMEOUT = urllib3.Timeout(connect=10.0, read=120.0)
"""Seconds to connect, and between two bytes of an answer: SQLite writes 10,000 records in some."""
_ATTEMPTS = 4
_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds
_AGAIN = frozenset({429, 502, 503, 504})
_PLAIN = re.compile(r"[A-Za-z0-9._-]")


def zone_id(zone: str) -> str:
    """Return the id by which the API knows a zone: its name with a dot, other characters as ``=2F``."""
    return "".join(each if _PLAIN.fullmatch(each) else f"={ord(each):02X}" for each in f"{zone}.")


class Session:
    """Connections to one server, for all threads; straight, by no proxy.

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
        trusted = None if ca_bundle is None else str(ca_bundle)
        self._pool = urllib3.PoolManager(maxsize=16, retries=False, timeout=_TIMEOUT, ca_certs=trusted)

    def __repr__(self) -> str:
        return f"<Session {self._base}>"

    def get(self, path: str, **query: str) -> Any:  # noqa: ANN401  any JSON
        """Ask, as often as it takes, and return the JSON of the answer.

        Raises:
            ApiError: the server refuses.
            Broken: the connection broke, each time.
        """
        return _decoded(self._asked(path, query))

    def get_new(self, path: str, known: bytes | None) -> tuple[bytes, Any]:
        """Ask as ``get`` does, and return the answer's digest too; no JSON where that is the one that is known."""
        content = self._asked(path, {})
        digest = hashlib.sha256(content).digest()
        return digest, None if digest == known else _decoded(content)

    def pause(self, attempt: int, least: float = 0.0) -> None:
        """Wait before the next attempt, some time that is not the same for all who wait."""
        self._sleep(max(least, random.uniform(0, _PAUSE * 2**attempt)))  # noqa: S311  it only spreads clients

    def send(self, method: str, path: str, body: bytes | None = None, *, query: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401  any JSON
        """Send a request once, and return the JSON of the answer; ``None`` if it has none.

        Raises:
            ApiError: the server refuses.
            Broken: the connection broke; whether it was executed is not known. ``NeverSent``: it was not.
        """
        return _decoded(self._sent(method, path, body, query))

    def _asked(self, path: str, query: Mapping[str, str]) -> bytes:
        for attempt in range(1, _ATTEMPTS):
            least = 0.0
            try:
                return self._sent("GET", path, None, query)
            except ApiError as exc:
                if exc.status not in _AGAIN:
                    raise
                least = min(exc.retry_after or 0.0, _LONGEST_PAUSE)
            except Broken:
                pass
            self.pause(attempt, least)
        return self._sent("GET", path, None, query)

    def _sent(self, method: str, path: str, body: bytes | None, query: Mapping[str, str] | None) -> bytes:
        headers = {"X-API-Key": self._key.reveal(), "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        url = f"{self._base}{path}?{urlencode(query)}" if query else f"{self._base}{path}"
        failure: Broken
        try:
            # No redirects: the key would go along.
            answer = self._pool.request(method, url, body=body, headers=headers, redirect=False)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
            failure = NeverSent("the server cannot be reached")
        except urllib3.exceptions.TimeoutError:
            failure = Broken("the server did not answer in time", timeout=True)
        except urllib3.exceptions.SSLError as exc:
            failure = Broken(f"no TLS with the server: {exc}")
        except urllib3.exceptions.ProtocolError:
            failure = Broken("the connection broke")
        except urllib3.exceptions.HTTPError as exc:
            failure = Broken(f"the answer did not arrive whole ({type(exc).__name__})")
        else:
            return _content(answer)
        raise failure  # not from theirs, which holds the request and so the key

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def _decoded(content: bytes) -> Any:  # noqa: ANN401  any JSON
    """Return the JSON of an answer; ``None`` if it has none.

    Raises:
        Broken: it is something else.
    """
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError:
        pass
    raise Broken("the answer is no JSON: is this the address of PowerDNS's API?")


def _content(answer: urllib3.BaseHTTPResponse) -> bytes:
    if answer.status >= 300:
        wait = answer.headers.get("Retry-After", "")
        raise ApiError(answer.status, _said(answer), float(wait) if wait.isdigit() else None)
    return answer.data


def _said(answer: urllib3.BaseHTTPResponse) -> str:
    """Return the server's words."""
    try:
        found = json.loads(answer.data)
        words = [str(found.get("error", "")), *map(str, found.get("errors", ()))]
    except (ValueError, AttributeError):
        words = [answer.data.decode(errors="replace")]
    return " ".join(" ".join(words).split())[:500]
