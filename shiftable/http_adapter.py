"""The connections of ``shiftable.http`` under an SDK that speaks through requests: Google's and Azure's.

Most of the CPU that a small call of these SDKs takes is spent below them, in requests and urllib3. ``BulkAdapter``
takes the place of requests' own adapter in the session of a bulk lane, and ``BulkSession`` that of the session, whose
calls merge settings that a lane does not have. What they do not understand is handed on to requests: proxies, client
certificates, bodies that are no bytes, and everything while a test has requests replaced.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from http.client import HTTPException, responses
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import ProtocolError

from shiftable.fibers import in_thread
from shiftable.http import Answer, Connections, ConnectTimeout, Transport, Unreachable

__all__ = ["BulkAdapter", "BulkSession", "failure", "is_plain", "prepare"]

_IDLE = 256
_NEVER = 86_400.0
_TIMEOUTS = (int, float, tuple, type(None))
_PART = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})"
_URL = re.compile(rf"https?://[a-z0-9.:\[\]-]+/{_PART}*(?:\?(?:{_PART}|\?)+)?")
_ROOT = re.compile(r"[A-Za-z]+://[^/?#]*")
_LINE = re.compile(r"[!-9;-~]+: (?:[!-~\x80-\xff][\t -~\x80-\xff]*)?")


class BulkSession(requests.Session):
    """A session that spares what requests does before and after a call, where that would change nothing.

    It keeps no cookies: the services that have lanes send none.
    """

    def request(self, method: str, url: Any, *args: Any, **options: Any) -> requests.Response:  # noqa: ANN401  all that requests takes
        """Send a request and return its answer."""
        given = {name: value for name, value in options.items() if value is not None}
        redirects, stream = given.pop("allow_redirects", True), given.pop("stream", self.stream)
        how = {"stream": stream, "timeout": given.pop("timeout", None), "verify": given.pop("verify", self.verify)}
        prepared = None if args else self._prepared(method, url, **given)
        if prepared is None:
            found: requests.Response = super().request(method, url, *args, **options)
            return found
        how |= {"cert": None, "proxies": self.proxies}
        found = self.get_adapter(url).send(prepared, **how)
        if redirects and found.is_redirect:
            prepared.prepare_cookies(self.cookies)
            *_, found = self.resolve_redirects(found, prepared, **how)
        return found

    def connections(self, url: str, timeout: Any) -> Connections | None:  # noqa: ANN401  as in requests
        """Return the connections to a URL's server, for who speaks HTTP by itself; ``None`` if requests has to."""
        adapter = self.get_adapter(url)
        if not isinstance(adapter, BulkAdapter) or self.cert or _is_proxied(url, self.proxies) or _is_replaced():
            return None
        return adapter.server(url, timeout, verify=self.verify)

    def _prepared(
        self, method: str, url: str, *, data: object = None, headers: Mapping[str, Any] | None = None, **odd: object
    ) -> requests.PreparedRequest | None:
        """Return the request as requests would prepare it; ``None`` if there is more to it."""
        more = any(odd.values()) or self.auth or self.params or self.cert or self.cookies or any(self.hooks.values())
        if more or not isinstance(data, (bytes, str, type(None))) or not is_plain(url):
            return None
        merged = CaseInsensitiveDict(self.headers)
        merged.update(headers or {})
        stated = {name: value for name, value in merged.items() if value is not None}
        lines = {name: _text(value) for name, value in stated.items() if isinstance(value, (bytes, str))}
        if len(lines) < len(stated) or not all(_LINE.fullmatch(f"{name}: {value}") for name, value in lines.items()):
            return None
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = method.upper(), url, data or None
        prepared.headers = CaseInsensitiveDict(lines)
        prepared.prepare_content_length(prepared.body)
        return prepared


def is_plain(url: object) -> bool:
    """Tell whether requests and urllib3 would leave a URL as it is."""
    if not isinstance(url, str) or "/." in url or not _URL.fullmatch(url):
        return False
    return bool(requests.utils.requote_uri(url) == url)


class BulkAdapter(HTTPAdapter):
    """Sends requests and gives way while it waits. Errors and answers are those of requests."""

    def __init__(self, *, idle: int = _IDLE) -> None:
        super().__init__(pool_connections=4, pool_maxsize=64)
        self._idle = idle
        self._trusted = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self._servers: dict[tuple[Any, ...], Connections] = {}

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002  as in requests
        timeout: Any = None,  # noqa: ANN401  as in requests
        verify: bool | str = True,  # noqa: FBT001, FBT002  as in requests
        cert: Any = None,  # noqa: ANN401  as in requests
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        """Send a request and return its answer."""
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        odd = cert is not None or not isinstance(timeout, _TIMEOUTS) or _is_proxied(request.url or "", proxies)
        if not isinstance(body, bytes) or odd or _is_replaced():
            return in_thread(
                super().send, request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
            )
        server = self.server(request.url or "", timeout, verify=verify)
        try:
            answer = server.request(request.method or "GET", _head(request), body)
        except (OSError, HTTPException) as exc:
            raise failure(exc, request) from exc
        found = self._response(request, answer)
        if not stream:
            found.content  # noqa: B018  reads it
        return found

    def _response(self, request: requests.PreparedRequest, answer: Answer) -> requests.Response:
        """Return what ``build_response`` does, without looking for cookies."""
        raw, found = _raw(request, answer), requests.Response()
        found.status_code, found.reason, found.raw = raw.status, raw.reason or "", raw
        found.headers = CaseInsensitiveDict(raw.headers)
        found.encoding = requests.utils.get_encoding_from_headers(found.headers)
        found.url, found.request, found.connection = request.url or "", request, self
        return found

    def close(self) -> None:
        """Close the idle connections."""
        for server in tuple(self._servers.values()):
            server.close()
        super().close()

    def server(self, url: str, timeout: Any, *, verify: bool | str) -> Connections:  # noqa: ANN401  as in requests
        """Return the connections to a URL's server."""
        found_root, verify = _ROOT.match(url), self._trusted if verify is True else verify
        root = found_root[0] if found_root else url
        key = (root, timeout, verify)
        found = self._servers.get(key)
        if found is None:
            connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
            how = Transport(
                connect_timeout=_NEVER if connect is None else connect,
                read_timeout=_NEVER if read is None else read,
                context=_context(verify) if urlsplit(root).scheme == "https" else None,
                limit=self._idle,
            )
            found = self._servers.setdefault(key, Connections(root, how))
        return found


def failure(exc: OSError | HTTPException, request: requests.PreparedRequest | None = None) -> Exception:
    """Return what requests would raise where our connections raised something."""
    if isinstance(exc, ConnectTimeout):
        return requests.ConnectTimeout(exc, request=request)
    if isinstance(exc, ssl.SSLError):
        return requests.exceptions.SSLError(exc, request=request)
    if isinstance(exc, TimeoutError):
        return requests.ReadTimeout(exc, request=request)
    if isinstance(exc, Unreachable):
        return requests.ConnectionError(exc, request=request)
    # By this SDKs tell that the request may have been executed.
    return requests.ConnectionError(ProtocolError(str(exc), exc), request=request)


def prepare(session: requests.Session, url: str) -> None:
    """Make a session that of a bulk lane to one service.

    The environment's proxies are read now: to look for them takes a tenth of a small call. Its passwords (netrc) are
    not, as SDKs bring credentials of their own.
    """
    session.proxies = dict(requests.utils.get_environ_proxies(url))
    session.trust_env = False
    adapter = BulkAdapter()
    session.mount("https://", adapter)
    session.mount("http://", adapter)


def _head(request: requests.PreparedRequest) -> bytes:
    headers = dict(request.headers)
    headers.setdefault("Host", urlsplit(request.url or "").netloc.rpartition("@")[2])
    lines = [f"{_text(name)}: {_text(value)}\r\n" for name, value in headers.items()]
    return f"{request.method} {request.path_url} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _raw(request: requests.PreparedRequest, answer: Answer) -> HTTPResponse:
    headers = HTTPHeaderDict()
    for line in answer.lines:
        name, _, value = line.partition(":")
        if name.lower() != "transfer-encoding":  # it is undone
            headers.add(name, value.strip())
    return HTTPResponse(
        body=answer.body,  # type: ignore[arg-type]  # it reads like a file, as far as that is asked for
        headers=headers,
        status=answer.status,
        reason=responses.get(answer.status, ""),
        preload_content=False,
        decode_content=False,
        request_method=request.method,
    )


def _is_proxied(url: str, proxies: Any) -> bool:  # noqa: ANN401  as in requests
    return bool(proxies) and requests.utils.select_proxy(url, proxies) is not None


def _is_replaced() -> bool:
    """Tell whether somebody answers in the place of requests' own adapter, as libraries for tests do."""
    return HTTPAdapter.send.__module__ != HTTPAdapter.__module__


def _context(verify: bool | str) -> ssl.SSLContext:  # noqa: FBT001  as in requests
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    place = verify if isinstance(verify, str) else requests.utils.DEFAULT_CA_BUNDLE_PATH
    folder = Path(place).is_dir()
    return ssl.create_default_context(cafile=None if folder else place, capath=place if folder else None)
