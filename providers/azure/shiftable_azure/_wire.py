"""The bulk lane of Blob Storage: the hot calls sent directly.

azure-storage-blob takes some 800 µs of CPU for a call, a request signed and sent by hand a tenth of that. ``Wire``
makes the driver's calls as ``Calls`` does: same arguments, same answers, same exceptions, same retries. So the driver
and its conformance suite are the same in both lanes, and whatever is not understood here is handed on to the SDK:
arguments that are not in the tables, values that HTTP could not carry as they are, redirects, challenges, proxies, and
everything while somebody watches the SDK or has it mocked.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import itertools
import logging
import math
import re
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException, responses
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import quote, unquote, urlsplit
from wsgiref.handlers import format_date_time
from xml.etree import ElementTree as ET

import attrs
from azure.core import MatchConditions
from azure.core import exceptions as native
from azure.core.credentials import AzureSasCredential
from azure.core.pipeline.transport import HttpRequest, HttpResponse, RequestsTransport
from azure.core.settings import settings
from azure.storage.blob import BlobClient, ContainerClient, StorageErrorCode
from requests.structures import CaseInsensitiveDict

from shiftable.blob.driver import CommonPrefix, ObjectSummary
from shiftable.fibers import in_thread, sleep
from shiftable.http import Answer, Body, Connections, ConnectTimeout, Unreachable
from shiftable.http_adapter import is_plain
from shiftable_azure._calls import Arguments, Calls, Row, moment, token
from shiftable_azure._order import Fetched, Stretch
from shiftable_azure._session import CHUNK, PUT, STORAGE, WHOLE, Retries

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import BlobServiceClient

__all__ = ["Wire"]

P = ParamSpec("P")
R = TypeVar("R")

_PLAIN = re.compile(r"[A-Za-z0-9/_~-]*")
_DOTS = re.compile(r"(?:^|/)\.\.?(?:/|$)")
_EARLY = 300.0
"""Seconds. As azure-core, we ask for a new token so long before the old one ends."""
_ASIDE = 60.0
"""Seconds for which the SDK makes all calls after a token was refused."""
_MOVED = frozenset({301, 302, 303, 307, 308})
_META = "x-ms-meta-"
_SHOWN = "x-ms-copy-source-authorization"
_SECRET = frozenset({"Authorization", _SHOWN, "x-ms-copy-source"})
"""Headers that no error has: by them others could do what we may."""
_LOG = logging.getLogger("azure.core.pipeline.policies.http_logging_policy")


class _NotOursError(Exception):
    """The SDK has to make this call."""


def _or_by_the_sdk(method: Callable[Concatenate[Wire, P], R]) -> Callable[Concatenate[Wire, P], R]:
    """Have the SDK make what a method turns out not to understand."""

    def called(self: Wire, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except _NotOursError:
            pass
        found: R = getattr(super(Wire, self), method.__name__)(*args, **kwargs)
        return found

    return functools.update_wrapper(called, method)


@attrs.define(kw_only=True)
class _Request:
    """One call.

    Args:
        place: container and blob, quoted.
        expected: the statuses of success.
        headers: without those that go with every request.
        query: quoted.
        hook: is told of each retry, and may change the headers for it.
    """

    method: str
    place: str
    expected: tuple[int, ...]
    headers: dict[str, str] = attrs.field(factory=dict)
    query: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    hook: Callable[..., object] | None = None


@attrs.define(eq=False)
class Wire(Calls):
    """The calls over connections of the session's bulk lane.

    Account, endpoint, version of the service, credentials, time limits, retries and what is stated of the client are
    the SDK's, which is asked once: it makes a request, and gives it to us in place of the network.
    """

    _known: _Service | None = attrs.field(default=None, init=False, repr=False)

    @_or_by_the_sdk
    def properties(self, bucket: str, key: str, arguments: Arguments) -> Mapping[str, str]:
        """Return the headers that tell an object's properties."""
        request = _Request(method="HEAD", place=_place(bucket, key), expected=(200,))
        _read_conditions(request, arguments)
        return self._made(BlobClient.get_blob_properties, request, _described)

    @_or_by_the_sdk
    def open(self, bucket: str, key: str, arguments: Arguments) -> tuple[Mapping[str, str], Iterator[bytes]]:
        """Return an object's headers, and its content; who does not read that to its end closes it."""
        request = _Request(method="GET", place=_place(bucket, key), expected=(200, 206))
        left = dict(arguments)
        if "offset" in left:  # without one the SDK asks for bytes from 0 on, and again without them if there are none
            start = left.pop("offset")
            request.headers["x-ms-range"] = f"bytes={start}-{start + left.pop('length', WHOLE) - 1}"
        _read_conditions(request, left)
        return self._made(BlobClient.download_blob, request, lambda answer: (_told(answer), _Content(answer.body)))

    @_or_by_the_sdk
    def put(self, bucket: str, key: str, data: bytes, arguments: Arguments) -> Mapping[str, Any]:
        """Write an object in one piece."""
        request = _Request(method="PUT", place=_place(bucket, key), expected=(201,), body=data)
        if not isinstance(data, bytes) or len(data) > PUT:
            raise _NotOursError
        left = dict(arguments)
        request.headers["x-ms-blob-type"] = "BlockBlob"
        request.headers["Content-Type"] = "application/octet-stream"
        _read_content(request, left)
        _read_conditions(request, left)
        return self._made(BlobClient.upload_blob, request, _written)

    @_or_by_the_sdk
    def put_block(self, bucket: str, key: str, block: str, data: bytes) -> None:
        """Send a block with its MD5, which the answer must tell too."""
        request = _Request(method="PUT", place=_place(bucket, key), expected=(201,), body=data)
        if not isinstance(data, bytes):
            raise _NotOursError
        digest = _base64(hashlib.md5(data, usedforsecurity=False).digest())
        request.headers |= {"Content-Type": "application/octet-stream", "Content-MD5": digest}
        request.query |= {"comp": "block", "blockid": quote(_base64(block.encode()), safe="")}

        def compared(answer: Answer) -> None:
            found = _described(answer).get("content-md5", digest)
            if found != digest:
                raise native.AzureError(f"MD5 mismatch. Expected value is '{found}', computed value is '{digest}'.")

        self._made(BlobClient.stage_block, request, compared)

    @_or_by_the_sdk
    def copy(self, bucket: str, key: str, source: str, arguments: Arguments) -> None:
        """Have the service write an object from a URL."""
        request = _Request(method="PUT", place=_place(bucket, key), expected=(201,))
        left = dict(arguments)
        _read_content(request, left)
        request.headers.pop("x-ms-blob-content-md5", None)  # the service knows it, and has no place for it here
        _read_source(request, left)
        _read_conditions(request, left)
        request.headers |= {"x-ms-blob-type": "BlockBlob", "x-ms-copy-source": source}
        self._made(BlobClient.upload_blob_from_url, request, _described)

    @_or_by_the_sdk
    def delete(self, bucket: str, key: str, arguments: Arguments) -> None:
        """Delete an object, or a version of it."""
        request = _Request(method="DELETE", place=_place(bucket, key), expected=(202,))
        _read_conditions(request, arguments)
        self._made(BlobClient.delete_blob, request, _described)

    @_or_by_the_sdk
    def page(self, bucket: str, stretch: Stretch, delimiter: str | None, size: int) -> Fetched:
        """Return one page of a listing; its entries are rows."""
        request = _Request(method="GET", place=quote(bucket, safe="/"), expected=(200,))
        start = stretch.start if stretch.start > stretch.prefix and stretch.marker is None else None
        stated = {
            "prefix": stretch.prefix or None,
            "delimiter": delimiter,
            "marker": stretch.marker,
            "maxresults": str(size),
            "startFrom": start,
        }
        request.query |= {"restype": "container", "comp": "list"}
        request.query |= {name: quote(value, safe="") for name, value in stated.items() if value is not None}
        method = ContainerClient.walk_blobs if delimiter else ContainerClient.list_blobs
        return self._made(method, request, _listed)

    # work

    def _made(self, method: Callable[..., object], request: _Request, read: Callable[[Answer], R]) -> R:
        """Send a request until there is an answer that counts."""
        if _is_watched(method) or not all(map(_fits_header, request.headers.values())):
            raise _NotOursError
        service = self._service()
        connections = self.session.connections(service.url)
        if connections is None:
            raise _NotOursError
        retries = self.session.retries
        for count in itertools.count(1):
            try:
                return _exchanged(service, connections, request, read)
            except native.DecodeError:
                raise
            except native.AzureError as exc:
                response: Any = exc.response if isinstance(exc, native.HttpResponseError) else None
                if count > retries.total_retries or (response is not None and not Retries.passes(response)):
                    raise
                if request.hook is not None:
                    request.hook(request=request, response=response, error=None if response is not None else exc)
                sleep(retries.pause(count, response.headers if response is not None else {}))
        raise AssertionError

    def _service(self) -> _Service:
        blobs = self.session.blobs  # makes the connections too, where it was closed
        if self._known is None:
            self._known = _learned(blobs)
        return self._known


# what the SDK knows


@attrs.frozen
class _Service:
    """Where requests go to and what goes with all of them.

    Args:
        path: before the container.
        signature: a shared access signature, for the end of each query.
    """

    url: str
    host: str
    path: str
    headers: Mapping[str, str]
    signature: str = attrs.field(repr=False)
    authorization: _Authorization | None


class _Seen(Exception):
    """Carries a request out of the SDK before it is sent."""

    def __init__(self, request: Any) -> None:  # noqa: ANN401  azure-core's
        super().__init__()
        self.request = request


def _learned(blobs: BlobServiceClient) -> _Service:
    def seen(request: Any) -> None:  # noqa: ANN401  azure-core's
        raise _Seen(request.http_request)

    try:
        blobs.get_blob_client("container", "blob").get_blob_properties(raw_request_hook=seen)
    except _Seen as found:
        request = found.request
    else:
        raise _NotOursError
    parts, credential = urlsplit(request.url), blobs.credential
    signature = credential.signature.lstrip("?") if isinstance(credential, AzureSasCredential) else parts.query
    if not parts.path.endswith("/container/blob") or not is_plain(parts._replace(query=signature).geturl()):
        raise _NotOursError
    named = {name: request.headers[name] for name in ("x-ms-version", "Accept", "User-Agent")}
    path = parts.path.removesuffix("container/blob")
    url = f"{parts.scheme}://{parts.netloc}"
    return _Service(url, parts.netloc, path, named, signature, _authorization(credential))


def _is_watched(method: Callable[..., object]) -> bool:
    """Tell whether somebody hears of the SDK's calls, or makes them in its place: they would hear nothing of ours."""
    replaced = not all(_is_theirs(each) for each in (method, RequestsTransport.send))
    return replaced or _is_read(_LOG) or bool(settings.tracing_enabled())


def _is_read(log: logging.Logger) -> bool:
    """Tell whether somebody wants the SDK's log of requests: that an application logs at INFO does not say so."""
    each: logging.Logger | None = log
    while each is not None and each.parent is not None:
        if each.level:
            return log.isEnabledFor(logging.INFO)
        each = each.parent
    return False


def _is_theirs(function: Callable[..., object]) -> bool:
    return str(getattr(function, "__module__", None)).startswith("azure.")


# requests


def _place(bucket: str, key: str) -> str:
    if _DOTS.search(key):  # they are resolved on the way
        raise _NotOursError
    return f"{quote(bucket, safe='/')}/{key if _PLAIN.fullmatch(key) else quote(key, safe='~/')}"


def _fits_header(value: str) -> bool:
    """Tell whether HTTP carries a header's value as it is."""
    return value.isascii() and (not value or (value.isprintable() and value == value.strip()))


_STORED = {
    "content_type": "x-ms-blob-content-type",
    "content_encoding": "x-ms-blob-content-encoding",
    "content_language": "x-ms-blob-content-language",
    "cache_control": "x-ms-blob-cache-control",
    "content_disposition": "x-ms-blob-content-disposition",
}
_CONDITIONS = {MatchConditions.IfNotModified: "If-Match", MatchConditions.IfModified: "If-None-Match"}


def _read_content(request: _Request, left: Arguments) -> None:
    """Move what is stored with an object from arguments to a request."""
    stored = left.pop("content_settings", None)
    found = {header: getattr(stored, name, None) for name, header in _STORED.items()}
    request.headers |= {header: value for header, value in found.items() if value is not None}
    if stored is not None and stored.content_md5 is not None:
        request.headers["x-ms-blob-content-md5"] = _base64(stored.content_md5)
    request.headers |= {f"{_META}{name}": value for name, value in left.pop("metadata").items()}
    if "tags" in left:
        tags = left.pop("tags").items()
        request.headers["x-ms-tags"] = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in tags
        )
    if "standard_blob_tier" in left:
        request.headers["x-ms-access-tier"] = left.pop("standard_blob_tier").value


def _read_source(request: _Request, left: Arguments) -> None:
    """Move what is said of the source of a copy from arguments to a request."""
    own, md5 = left.pop("include_source_blob_properties"), left.pop("source_content_md5")
    condition, etag = left.pop("source_match_condition"), left.pop("source_etag")
    request.headers |= {
        "x-ms-copy-source-blob-properties": "true" if own else "false",
        f"x-ms-source-{_CONDITIONS[condition].lower()}": etag,
    }
    if md5 is not None:
        request.headers["x-ms-source-content-md5"] = _base64(md5)
    if "source_authorization" in left:
        request.headers[_SHOWN] = left.pop("source_authorization")


def _read_conditions(request: _Request, arguments: Arguments) -> None:
    """Move all that is left from arguments to a request.

    Raises:
        _NotOursError: not all of it is understood.
    """
    left = dict(arguments)
    request.hook = left.pop("retry_hook", None)
    condition, etag, version = left.pop("match_condition", None), left.pop("etag", ""), left.pop("version_id", None)
    if left:
        raise _NotOursError
    if condition is MatchConditions.IfMissing:
        request.headers["If-None-Match"] = "*"
    elif condition is not None:
        request.headers[_CONDITIONS[condition]] = etag
    if version is not None:
        request.query["versionid"] = quote(version, safe="")


def _exchanged(service: _Service, connections: Connections, request: _Request, read: Callable[[Answer], R]) -> R:
    """Send a request once.

    Raises:
        AzureError: as the SDK would.
    """
    path = service.path + request.place
    headers = {**request.headers, **service.headers}
    if request.method in {"PUT", "DELETE"}:
        headers["Content-Length"] = str(len(request.body))
    headers["x-ms-date"] = _date(int(time.time()))
    headers["x-ms-client-request-id"] = str(uuid.uuid4())
    if service.authorization is not None:
        headers["Authorization"] = service.authorization.of(request.method, path, request.query, headers)
    query = "&".join([f"{name}={value}" for name, value in request.query.items()])
    query = "&".join(filter(None, (query, service.signature)))
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    target = f"{path}?{query}" if query else path
    head = f"{request.method} {target} HTTP/1.1\r\nHost: {service.host}\r\n{lines}\r\n".encode("ascii")
    try:
        answer = connections.request(request.method, head, request.body)
        if answer.status in request.expected:
            return read(answer)
        data = answer.body.read()
    except (OSError, HTTPException) as exc:
        raise _broken(exc) from exc
    if answer.status == 401 and isinstance(service.authorization, _Bearer):
        service.authorization.refused()
        raise _NotOursError
    if answer.status in _MOVED:
        raise _NotOursError
    headers = {name: value for name, value in headers.items() if name not in _SECRET}
    raise _refusal(_Response(HttpRequest(request.method, f"{service.url}{path}", headers), answer, data))


@functools.lru_cache(8)
def _date(second: int) -> str:
    return format_date_time(second)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# authorization


class _Authorization(Protocol):
    def of(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        """Return the header that authorizes a request."""


_SIGNED = (
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Type",
    "Date",
    "If-Modified-Since",
    "If-Match",
    "If-None-Match",
    "If-Unmodified-Since",
    "Range",
)


def _authorization(credential: Any) -> _Authorization | None:  # noqa: ANN401  any of the SDK's kinds
    if hasattr(credential, "account_key"):
        try:
            return _SharedKey(credential.account_name, base64.b64decode(credential.account_key))
        except ValueError:
            raise _NotOursError from None  # the SDK says what is wrong with it
    if hasattr(credential, "get_token"):
        return _Bearer(credential)
    if credential is not None and not isinstance(credential, AzureSasCredential):
        raise _NotOursError
    return None


_SORTED = str.maketrans({"-": None, "_": "!"})


@attrs.frozen
class _SharedKey:
    """Signs with the account's key.

    The service sorts headers as texts are sorted: hyphens do not count, and underscores come before digits. Names that
    differ in hyphens alone do not occur.
    """

    _account: str
    _key: bytes = attrs.field(repr=False)

    def of(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        lines = [method]
        lines += [headers.get(name, "") for name in _SIGNED]
        if headers.get("Content-Length") == "0":
            lines[3] = ""
        ours = {name.lower(): value for name, value in headers.items() if name.startswith("x-ms-")}
        lines += [f"{name}:{ours[name]}" for name in sorted(ours, key=_sort_key)]
        lines.append(f"/{self._account}{path}")
        lines += [f"{name.lower()}:{unquote(query[name])}" for name in sorted(query)]
        signed = hmac.digest(self._key, "\n".join(lines).encode(), "sha256")
        return f"SharedKey {self._account}:{_base64(signed)}"


@functools.lru_cache(1024)
def _sort_key(name: str) -> str:
    return name.translate(_SORTED)


@attrs.define
class _Bearer:
    """Shows a token of Microsoft Entra, and asks for the next one before it ends.

    Where the service wants another one, the SDK finds out more of it, and makes all calls for a while.
    """

    _credential: TokenCredential = attrs.field(repr=False)
    _shown: tuple[str, float] = attrs.field(default=("", 0.0), init=False, repr=False)
    _aside: float = attrs.field(default=-math.inf, init=False)

    def of(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:  # noqa: ARG002
        if time.monotonic() < self._aside:
            raise _NotOursError
        shown, until = self._shown
        if time.time() >= until:
            found = in_thread(self._credential.get_token, STORAGE)
            shown = f"Bearer {found.token}"
            self._shown = (shown, found.expires_on - _EARLY)
        return shown

    def refused(self) -> None:
        """Take in that the service wants another token."""
        self._shown, self._aside = ("", 0.0), time.monotonic() + _ASIDE


# answers


def _told(answer: Answer) -> Mapping[str, str]:
    """Return the headers of an answer, those of metadata with their names as they came."""
    headers = answer.headers
    if any(name.startswith(_META) for name in headers):
        headers = {name: value for name, value in headers.items() if not name.startswith(_META)}
        for line in answer.lines:
            name, _, value = line.partition(":")
            if name.lower().startswith(_META):
                headers[name] = value.strip()
    return headers


def _described(answer: Answer) -> Mapping[str, str]:
    answer.body.read()  # whatever it is, the connection is used again
    return _told(answer)


def _written(answer: Answer) -> Mapping[str, Any]:
    headers = _described(answer)
    modified, version = headers.get("last-modified"), headers.get("x-ms-version-id")
    return {"etag": headers["etag"], "last_modified": moment(modified) if modified else None, "version_id": version}


@attrs.define
class _Content(Iterator[bytes]):
    """A body whose errors are those of the SDK."""

    _body: Body

    def __next__(self) -> bytes:
        try:
            data = self._body.read(CHUNK)
        except (OSError, HTTPException) as exc:
            raise _broken(exc) from exc
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        """Drop what is left."""
        self._body.close()


# Whatever else Azure tells may stand between what is wanted. A page with an entry that is otherwise is parsed as XML.
_OTHERS = (
    r"(?:<(?!(?:Name|Last-Modified|Etag|Content-Length|Content-MD5|AccessTier|Properties)[ />])"
    r"[A-Za-z0-9-]+(?: ?/>|>[^<&]*</[A-Za-z0-9-]+>))*+"
)
_ENTRY = re.compile(
    rf"<Blob><Name>([^<&]*)</Name>{_OTHERS}<Properties>{_OTHERS}<Last-Modified>([^<&]*)</Last-Modified>{_OTHERS}"
    rf"<Etag>([^<&]*)</Etag>{_OTHERS}<Content-Length>(\d+)</Content-Length>{_OTHERS}"
    rf"(?:<Content-MD5(?: ?/>|>([^<&]*)</Content-MD5>))?{_OTHERS}(?:<AccessTier>([^<&]*)</AccessTier>)?{_OTHERS}"
    rf"</Properties>{_OTHERS}</Blob>"
)
_FIRST, _LAST = "<Blob>", "</Blob>"


def _listed(answer: Answer) -> Fetched:
    data = answer.body.read()
    try:
        text = data.decode("utf-8-sig")
        begin, end = text.find(_FIRST), text.rfind(_LAST) + len(_LAST)
        found = _ENTRY.findall(text, begin, end) if begin >= 0 and "<BlobPrefix>" not in text else []
        if len(found) == text.count(_FIRST) > 0:
            text = text[:begin] + text[end:]
        else:
            found = []
        root = _results(text)
        rows = [Row(_name(each), CommonPrefix(_name(each))) for each in root.iterfind("Blobs/BlobPrefix")]
        rows += [_row(*each) for each in found]
        rows += map(_parsed, root.iterfind("Blobs/Blob"))
        return Fetched(tuple(rows), root.findtext("NextMarker") or None)
    except (ValueError, KeyError, ET.ParseError) as exc:
        raise native.DecodeError(f"the answer is no listing: {exc}") from exc


def _root(text: str) -> ET.Element:
    """Parse XML. Entities of its own, which could expand, are refused."""
    if "<!DOCTYPE" in text:
        raise ValueError("it declares a document type, as Azure does not")
    return ET.fromstring(text)  # noqa: S314  without a document type there is nothing to expand


def _results(text: str) -> ET.Element:
    """Parse a page; what a proxy answers in Azure's place is no empty one."""
    root = _root(text)
    if root.tag != "EnumerationResults":
        raise ValueError(f"it begins with <{root.tag}>")
    return root


def _row(name: str, modified: str, etag: str, size: str, md5: str, tier: str) -> Row:
    return Row(
        name,
        ObjectSummary(
            key=name,
            size=int(size),
            token=token(etag),
            modified=_moment(modified),
            md5=base64.b64decode(md5) if md5 else None,
            storage_class=tier or None,
        ),
    )


_moment = functools.lru_cache(1024)(moment)


def _parsed(element: ET.Element) -> Row:
    about = {child.tag: child.text or "" for child in element.iterfind("Properties/*")}
    md5, tier = about.get("Content-MD5", ""), about.get("AccessTier", "")
    return _row(_name(element), about["Last-Modified"], about["Etag"], about["Content-Length"], md5, tier)


def _name(element: ET.Element) -> str:
    found = element.find("Name")
    if found is None:
        raise ValueError("an entry has no name")
    text = found.text or ""
    return unquote(text) if found.get("Encoded") == "true" else text


# errors


def _broken(exc: Exception) -> native.AzureError:
    """Return the SDK's exception of a connection that failed: what the request's kind is the first to tell is sent."""
    if isinstance(exc, ConnectTimeout):
        return native.ServiceRequestTimeoutError(exc, error=exc)
    if isinstance(exc, Unreachable | ssl.SSLError):
        return native.ServiceRequestError(exc, error=exc)
    if isinstance(exc, TimeoutError):
        return native.ServiceResponseTimeoutError(exc, error=exc)
    return native.ServiceResponseError(exc, error=exc)


class _Response(HttpResponse):
    """An answer for azure-core's exceptions."""

    def __init__(self, request: HttpRequest, answer: Answer, data: bytes) -> None:
        super().__init__(request, answer)
        self.status_code = answer.status
        self.reason = responses.get(answer.status, "")
        self.headers = CaseInsensitiveDict()
        for line in answer.lines:
            name, _, value = line.partition(":")
            self.headers[name] = value.strip()
        self.content_type = self.headers.get("Content-Type")
        self._data = data

    def body(self) -> bytes:
        """Return the body."""
        return self._data


_KINDS: Mapping[int, type[native.HttpResponseError]] = {
    401: native.ClientAuthenticationError,
    404: native.ResourceNotFoundError,
    409: native.ResourceExistsError,
}
_MEANT: Mapping[str, type[native.HttpResponseError]] = {
    "ConditionNotMet": native.ResourceModifiedError,
    "BlobOverwritten": native.ResourceModifiedError,
    "AuthenticationFailed": native.ClientAuthenticationError,
    "InvalidAuthenticationInfo": native.ClientAuthenticationError,
    "BlobNotFound": native.ResourceNotFoundError,
    "CannotVerifyCopySource": native.ResourceNotFoundError,
    "ContainerNotFound": native.ResourceNotFoundError,
    "ResourceNotFound": native.ResourceNotFoundError,
    "AccountAlreadyExists": native.ResourceExistsError,
    "AccountBeingCreated": native.ResourceExistsError,
    "BlobAlreadyExists": native.ResourceExistsError,
    "ContainerAlreadyExists": native.ResourceExistsError,
    "ContainerBeingDeleted": native.ResourceExistsError,
    "ResourceAlreadyExists": native.ResourceExistsError,
    "ResourceTypeMismatch": native.ResourceExistsError,
}


def _refusal(response: _Response) -> native.HttpResponseError:
    """Return the SDK's exception of an answer that is none of success."""
    about = _error(response.body())
    code = about.pop("code", None) or response.headers.get("x-ms-error-code")
    message = about.pop("message", None) or (None if code else response.text() or response.reason)
    exc: Any = (_KINDS.get(response.status_code) or _MEANT.get(code or "") or native.HttpResponseError)(
        message=message, response=response
    )
    exc.error_code = code
    if response.status_code not in _KINDS:
        with suppress(ValueError):
            exc.error_code = StorageErrorCode(code)
    exc.additional_info = about
    exc.message = "\n".join([exc.message, f"ErrorCode:{code}", *(f"{name}:{text}" for name, text in about.items())])
    exc.args = (exc.message,)
    refusal: native.HttpResponseError = exc
    return refusal


def _error(data: bytes) -> dict[str, str | None]:
    """Return what an error says of itself; nothing if it is not Azure's: the status says enough."""
    try:
        return {child.tag.lower(): child.text for child in _root(data.decode("utf-8-sig"))}
    except (ValueError, ET.ParseError):
        return {}
