"""The bulk lane's calls of Cloud Storage, sent directly.

The SDK takes some 400 to 700 µs of CPU for a call, also over connections that cost little; a request that is written
and read by hand takes a quarter of that. ``WireObjects`` asks what the SDK would ask, with the same credentials,
policies and time limits, and raises the same exceptions. What it does not understand is handed on to the SDK: locks,
bodies that the SDK would send in pieces, redirects, and everything where only requests can go: through proxies, and
while a test has it mocked.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
import os
import time
import uuid
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import TypeVar
from urllib.parse import quote_plus, urlsplit

import attrs
import requests
from google.api_core.exceptions import from_http_response
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, JSONDecodeError
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from shiftable.blob.driver import Lock, PutOptions
from shiftable.http import Answer, Body, Connections
from shiftable.http_adapter import failure
from shiftable_gcp._blob_told import DEFAULT_TYPE, Resource
from shiftable_gcp._crc32c import crc32c, told
from shiftable_gcp._objects import Media, Rows, SdkObjects, media_path, object_path
from shiftable_gcp._session import TIMEOUT, Untyped

__all__ = ["WireObjects"]

T = TypeVar("T")

_AT_ONCE = 8 * 1024 * 1024
"""More than this the SDK sends in pieces."""
_RENEWALS = 2
"""As often google-auth fetches another token for one request."""
_ALWAYS = frozenset({"name", "generation", "size", "timeCreated"})
"""What is told of every object."""
_UNLOCKED = Lock()
_MOVED = frozenset({301, 302, 303, 307, 308})
_UNDONE = frozenset({307, 308})
"""Only by these a request that changes something is to be sent elsewhere; by the others it may have been executed."""


class _LeftError(Exception):
    """The SDK is to do it."""


@attrs.frozen
class _Place:
    """Where a client's service is, and what is said in every request.

    Args:
        path: what the endpoint has in front of all paths.
        lines: the headers up to the number that is each call's own.
        is_plain: whether there is no more to the endpoint.
    """

    endpoint: str
    path: str
    lines: str
    is_plain: bool

    @classmethod
    def of(cls, client: Untyped) -> _Place:
        """Ask the SDK."""
        endpoint: str = client.api_endpoint
        parts = urlsplit(endpoint)
        agent = client._connection.user_agent.strip()  # noqa: SLF001  told nowhere else
        lines = (
            f"Host: {parts.netloc}\r\nAccept-Encoding: gzip\r\nUser-Agent: {agent}\r\n"
            f"X-Goog-API-Client: {agent} gccl-invocation-id/"
        )
        is_plain = not (parts.username or parts.query or parts.fragment)
        return cls(endpoint, parts.path.rstrip("/"), lines, is_plain)


class WireObjects(SdkObjects):
    """The calls, over the lane's own connections wherever that can be."""

    @functools.cached_property
    def _place(self) -> _Place:
        return _Place.of(self._session.client)

    def look(
        self,
        bucket: str,
        key: str,
        policy: Untyped,
        *,
        generation: int | None = None,
        match: int | None = None,
        not_match: int | None = None,
    ) -> Resource:
        """Return everything about an object or one generation of it."""
        query = {
            "generation": generation,
            "projection": "noAcl",
            "ifGenerationMatch": match,
            "ifGenerationNotMatch": not_match,
        }
        with suppress(_LeftError):
            return self._asked(policy, "GET", f"/storage/v1{object_path(bucket, key)}", query, _object)
        return super().look(bucket, key, policy, generation=generation, match=match, not_match=not_match)

    def open(
        self,
        bucket: str,
        key: str,
        policy: Untyped,
        *,
        generation: int | None = None,
        match: int | None = None,
        span: tuple[int, int] | None,
    ) -> Media:
        """Ask for bytes of one generation as they are stored."""
        lines = f"Range: bytes={span[0]}-{span[1] - 1}\r\n" if span is not None else ""
        with suppress(_LeftError):
            return self._called(policy, "GET", media_path(bucket, key, generation, match), _media, lines=lines)
        return super().open(bucket, key, policy, generation=generation, match=match, span=span)

    def write(
        self, bucket: str, key: str, data: bytes, options: PutOptions, policy: Untyped, *, match: int | None
    ) -> Resource:
        """Write an object in one piece; the service compares its CRC32C, and its MD5 where the options tell it."""
        with suppress(_LeftError):
            if options.lock != _UNLOCKED or len(data) > _AT_ONCE:
                raise _LeftError
            stated = {"name": key, **_stated(options), "crc32c": told(crc32c(data))}
            if options.md5 is not None:
                stated["md5Hash"] = base64.b64encode(options.md5).decode()
            boundary = os.urandom(16).hex()
            target = (
                f"/upload/storage/v1/b/{bucket}/o?{_query({'uploadType': 'multipart', 'ifGenerationMatch': match})}"
            )
            lines = f'Content-Type: multipart/related; boundary="{boundary}"\r\n'
            body = _related(boundary, stated, options.headers.content_type or DEFAULT_TYPE, data)
            return self._called(policy, "POST", target, _object, lines=lines, body=body)
        return super().write(bucket, key, data, options, policy, match=match)

    def rewrite(
        self,
        place: tuple[str, str],
        target: tuple[str, str],
        options: PutOptions,
        policy: Untyped,
        *,
        custom_time: str | None,
        generation: int | None,
        source_match: int,
        match: int | None,
    ) -> Resource:
        """Copy inside the service, in as many steps as it takes; see ``SdkObjects``."""
        path = f"/storage/v1{object_path(*place)}/rewriteTo{object_path(*target)}"
        stated = _stated(options) | {"contentType": options.headers.content_type or DEFAULT_TYPE}
        if custom_time is not None:
            stated["customTime"] = custom_time
        query = {"sourceGeneration": generation, "ifGenerationMatch": match, "ifSourceGenerationMatch": source_match}
        with suppress(_LeftError):
            if options.lock != _UNLOCKED:
                raise _LeftError
            step = self._asked(policy, "POST", path, query, _json, stated)
            while not step["done"]:
                step = self._asked(policy, "POST", path, {**query, "rewriteToken": step["rewriteToken"]}, _json, stated)
            found: Resource = step["resource"]
            return found
        return super().rewrite(
            place,
            target,
            options,
            policy,
            custom_time=custom_time,
            generation=generation,
            source_match=source_match,
            match=match,
        )

    def delete(
        self, bucket: str, key: str, policy: Untyped, *, generation: int | None = None, match: int | None = None
    ) -> None:
        """Delete an object or one generation of it."""
        query = {"generation": generation, "ifGenerationMatch": match}
        with suppress(_LeftError):
            self._asked(policy, "DELETE", f"/storage/v1{object_path(bucket, key)}", query, _content)
            return
        super().delete(bucket, key, policy, generation=generation, match=match)

    def page(
        self,
        bucket: str,
        policy: Untyped,
        *,
        fields: str,
        size: int,
        prefix: str = "",
        delimiter: str | None = None,
        start: str | None = None,
        cursor: str | None = None,
        versions: bool = False,
    ) -> Rows:
        """Return one page of so many objects, from one key on."""
        query = {
            "projection": "noAcl",
            "prefix": prefix or None,
            "delimiter": delimiter,
            "startOffset": start or None,
            "versions": versions or None,
            "pageToken": cursor,
            "maxResults": size,
            "fields": fields,
        }
        with suppress(_LeftError):
            found = self._asked(policy, "GET", f"/storage/v1/b/{bucket}/o", query, _json)
            return Rows(found.get("items", []), found.get("prefixes", []), found.get("nextPageToken"))
        return super().page(
            bucket,
            policy,
            fields=fields,
            size=size,
            prefix=prefix,
            delimiter=delimiter,
            start=start,
            cursor=cursor,
            versions=versions,
        )

    # work

    def _asked(
        self,
        policy: Untyped,
        method: str,
        path: str,
        query: Mapping[str, object],
        read: Callable[[Answer], T],
        stated: Mapping[str, object] | None = None,
    ) -> T:
        """Make a call whose arguments are JSON."""
        body = b"" if stated is None else json.dumps(stated).encode()
        lines = "" if stated is None else "Content-Type: application/json\r\n"
        target = f"{path}?{_query({**query, 'prettyPrint': 'false'})}"
        return self._called(policy, method, target, read, lines=lines, body=body)

    def _called(
        self,
        policy: Untyped,
        method: str,
        target: str,
        read: Callable[[Answer], T],
        *,
        lines: str = "",
        body: bytes = b"",
    ) -> T:
        """Make a call under its policy."""
        transport: Untyped = self._session.transport
        place = self._place
        server: Connections | None = transport.connections(place.endpoint, TIMEOUT) if place.is_plain else None
        if server is None:
            raise _LeftError
        target = f"{place.path}{target}"
        length = f"Content-Length: {len(body)}\r\n" if method != "GET" else ""
        head = f"{method} {target} HTTP/1.1\r\n{place.lines}{uuid.uuid4()}\r\n{lines}{length}"

        def once() -> T:
            answer = _exchanged(transport, server, method, head, body)
            if answer.status in (_MOVED if method == "GET" else _UNDONE) and "location" in answer.headers:
                answer.body.close()
                raise _LeftError
            if not 200 <= answer.status < 300:
                raise _refused(method, f"{server.url}{target}", answer)
            return read(answer)

        found: T = policy(once)()
        return found


def _exchanged(transport: Untyped, server: Connections, method: str, head: str, body: bytes) -> Answer:
    """Send a request with credentials, and again with others if the service does not take them any more."""
    renewed = 0
    while True:
        carried = transport.authorization(method, server.url)
        sent = time.monotonic()
        try:
            answer = server.request(method, f"{head}{carried.lines}\r\n".encode("latin-1"), body)
        except (OSError, HTTPException) as exc:
            raise failure(exc) from exc
        transport.note(answer.headers.get("date"), sent)
        if answer.status != 401 or renewed == _RENEWALS:
            return answer
        answer.body.close()
        transport.renew(carried)
        renewed += 1


# requests


def _query(arguments: Mapping[str, object]) -> str:
    return "&".join([f"{name}={_quoted(value)}" for name, value in arguments.items() if value is not None])


def _quoted(value: object) -> str:
    return quote_plus(value) if isinstance(value, str) and not (value.isascii() and value.isalnum()) else str(value)


def _stated(options: PutOptions) -> dict[str, Untyped]:
    """Return what is stored with an object but its type, in the words of the JSON API."""
    headers = options.headers
    every = {
        "cacheControl": headers.cache_control,
        "contentDisposition": headers.content_disposition,
        "contentEncoding": headers.content_encoding,
        "contentLanguage": headers.content_language,
        "metadata": dict(options.metadata) or None,
        "storageClass": options.storage_class,
    }
    return {name: value for name, value in every.items() if value is not None}


def _related(boundary: str, stated: Mapping[str, object], type_: str, data: bytes) -> bytes:
    """Return a body that holds what is stored with an object, and its content."""
    described = f"--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{json.dumps(stated)}\r\n"
    content = f"--{boundary}\r\ncontent-type: {type_}\r\n\r\n"
    return b"".join((described.encode(), content.encode(), data, f"\r\n--{boundary}--".encode()))


# answers


def _content(answer: Answer) -> bytes:
    """Return the whole body."""
    try:
        data = answer.body.read()
    except TimeoutError as exc:
        raise requests.ConnectionError(_late(exc)) from exc
    except (OSError, HTTPException) as exc:
        raise ChunkedEncodingError(_broken(exc)) from exc
    if answer.headers.get("content-encoding") != "gzip":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as exc:
        raise ContentDecodingError(exc) from exc


def _json(answer: Answer) -> dict[str, Untyped]:
    text = _content(answer)
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise JSONDecodeError(str(exc), "", 0) from exc
    if not isinstance(found, dict):
        raise JSONDecodeError("the answer is no object of JSON", "", 0)
    return found


def _object(answer: Answer) -> Resource:
    found = _json(answer)
    if not found.keys() >= _ALWAYS:
        raise JSONDecodeError("the answer tells of no object", "", 0)
    return found


def _media(answer: Answer) -> Media:
    return Media(answer.status, functools.partial(_read, answer.body), answer.body.close)


def _read(body: Body, amount: int) -> bytes:
    try:
        return body.read(amount)
    except TimeoutError as exc:
        raise _late(exc) from exc
    except (OSError, HTTPException) as exc:
        raise _broken(exc) from exc


# errors


def _late(exc: Exception) -> ReadTimeoutError:
    return ReadTimeoutError("Cloud Storage", None, str(exc))  # type: ignore[arg-type]  # the pool, for the text


def _broken(exc: Exception) -> ProtocolError:
    return ProtocolError(f"Connection broken: {exc!r}", exc)


def _refused(method: str, url: str, answer: Answer) -> Exception:
    """Return the SDK's exception of an answer that is none of success."""
    response = requests.Response()
    response.status_code, response.url = answer.status, url
    response.headers = CaseInsensitiveDict(answer.headers)
    response._content = _content(answer)  # noqa: SLF001  it is read already
    response.request = requests.Request(method, url).prepare()
    refusal: Exception = from_http_response(response)
    return refusal
