"""The way to PowerDNS's HTTP API: one request, its JSON, and what its refusals mean."""

from __future__ import annotations

import hashlib
import json
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from shiftable.config import Credential
from shiftable.http import Connections, Transport, Unreachable
from shiftable.tls import advised, check_authorities
from shiftable.waiting import retry_after
from shiftable_baremetal._addresses import address_parts, sendable
from shiftable_baremetal._failures import Broken, NeverSent
from shiftable_baremetal._powerdns_errors import ApiError

__all__ = ["Session", "zone_id"]

_CONNECT, _READ = 10.0, 120.0
"""Seconds to connect, and between two bytes of an answer: SQLite writes 10,000 records in some."""
_IDLE = 16  # connections that are kept
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
        parts = address_parts("powerdns.address", address, "https://ns1.example:8081")
        path = quote(parts.path.rstrip("/").removesuffix("/api/v1"), safe="/%")
        how = Transport(
            connect_timeout=_CONNECT,
            read_timeout=_READ,
            context=_context(ca_bundle) if parts.scheme == "https" else None,
            limit=_IDLE,
        )
        self._connections = Connections(f"{parts.scheme}://{parts.netloc}", how)
        self._host = parts.netloc
        self._base = f"{path}/api/v1/servers/{quote(server_id, safe='')}"
        self._key = api_key
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<Session {self._connections.url}{self._base}>"

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
        head = self._head(method, f"{path}?{urlencode(query)}" if query else path, body)
        failure: Broken
        try:
            answer = self._connections.request(method, head, body or b"")
            content = answer.body.read()
        except Unreachable as exc:
            failure = NeverSent(f"the server {exc}")
        except TimeoutError:
            failure = Broken("the server did not answer in time", timeout=True)
        except ssl.SSLError as exc:
            failure = Broken(advised(f"no TLS with the server: {exc}", **_TLS))
        except (OSError, HTTPException):
            failure = Broken("the connection broke")
        else:
            if answer.status >= 300:  # no redirects: the key would go along
                raise ApiError(answer.status, _said(content), retry_after(answer.headers.get("retry-after")))
            return content
        raise failure  # not from theirs, whose frames hold the request and so the key

    def _head(self, method: str, path: str, body: bytes | None) -> bytes:
        key = sendable("powerdns.api_key", self._key.reveal())
        lines = [
            f"{method} {self._base}{path} HTTP/1.1",
            f"Host: {self._host}",
            "User-Agent: shiftable",
            "Accept: application/json",
            f"X-API-Key: {key}",
        ]
        if body is not None or method != "GET":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body or b'')}"]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()


_TLS = {"authorities": "powerdns.ca_bundle", "name": "the name in `powerdns.address`"}


def _context(ca_bundle: Path | None) -> ssl.SSLContext:
    if ca_bundle is not None:
        check_authorities("powerdns.ca_bundle", ca_bundle)
    return ssl.create_default_context(cafile=ca_bundle)


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


def _said(content: bytes) -> str:
    """Return the server's words."""
    try:
        found = json.loads(content)
        words = [str(found.get("error", "")), *map(str, found.get("errors", ()))]
    except (ValueError, AttributeError):
        words = [content.decode(errors="replace")]
    return " ".join(" ".join(words).split())[:500]
