"""The bulk lane of S3: the SDK's client with its hot operations sent directly.

botocore takes some 800 µs of CPU for an operation, a request signed and sent by hand about 60. ``WireClient`` takes the
place of the client in ``S3Driver``: same methods, same arguments, same answers, same exceptions. So the driver, its
table of errors and its conformance suite are the same in both lanes, and whatever is not understood here is simply
handed on to the SDK: every operation that is not in the table, every argument that is not in its row, buckets in
another region, and everything while a test has the SDK mocked.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import inspect
import random
import re
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, cast
from urllib.parse import parse_qs, quote, unquote_plus, urlsplit
from xml.etree import ElementTree as ET

import attrs
import botocore
import botocore.exceptions as native
from botocore.httpsession import create_urllib3_context, get_cert_path
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies

from shiftable.errors import Throttled
from shiftable.fibers import in_thread, sleep
from shiftable.http import Answer, Body, Connections, ConnectTimeout, Short, Transport, Unreachable
from shiftable.waiting import retry_after
from shiftable_s3.clients import foreign, is_foreign, moment
from shiftable_s3.errors import CODES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["WireClient", "fast_client", "fits", "is_fast"]

_OURS = ("botocore.", "boto3.", "shiftable_", "moto.")
_BOTOCORE = Path(botocore.__file__).parent
_IDLE = 256
_TRUSTED = 1.0
"""Seconds. Nobody closes a connection so soon; if they do, the request is sent again."""
_DEADLINE = 120.0
_LONGEST_PAUSE = 20.0
_SKEW = 240.0  # S3 refuses what is 15 minutes off
_EMPTY = hashlib.sha256().hexdigest()
_UNSIGNED = "UNSIGNED-PAYLOAD"
_SAFE = "/-_.~"
_PLAIN = re.compile(r"[A-Za-z0-9/_.~-]*")

_MOVED = frozenset({"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"})
_TRANSIENT = frozenset({500, 502, 503, 504})
_PASSING = frozenset({"RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"})
_THROTTLED = frozenset({code for code, error in CODES.items() if error is Throttled})

_Fields = dict[str, Any]


# the table: what an operation is on the wire


@attrs.frozen(kw_only=True)
class _Operation:
    """One operation.

    Args:
        name: as errors of the SDK tell it.
        sdk: the client's method.
        headers: for each argument the header that carries it.
        query: the same for the query.
        fixed: what always stands in the query.
        takes: arguments that are handled by name.
    """

    name: str
    sdk: str
    method: str
    headers: Mapping[str, str] = attrs.field(factory=dict)
    query: Mapping[str, str] = attrs.field(factory=dict)
    fixed: tuple[tuple[str, str], ...] = ()
    takes: frozenset[str] = frozenset()

    @functools.cached_property
    def arguments(self) -> frozenset[str]:
        """All that it understands."""
        return frozenset({"Bucket", "Key", *self.headers, *self.query, *self.takes})


_CONTENT = {
    "ContentType": "content-type",
    "CacheControl": "cache-control",
    "ContentDisposition": "content-disposition",
    "ContentEncoding": "content-encoding",
    "ContentLanguage": "content-language",
    "Tagging": "x-amz-tagging",
    "StorageClass": "x-amz-storage-class",
    "ObjectLockMode": "x-amz-object-lock-mode",
    "ObjectLockRetainUntilDate": "x-amz-object-lock-retain-until-date",
    "ObjectLockLegalHoldStatus": "x-amz-object-lock-legal-hold",
}
_CONDITIONS = {"IfMatch": "if-match", "IfNoneMatch": "if-none-match"}
_CHECKSUMS = {
    "x-amz-checksum-crc32": "ChecksumCRC32",
    "x-amz-checksum-crc32c": "ChecksumCRC32C",
    "x-amz-checksum-crc64nvme": "ChecksumCRC64NVME",
    "x-amz-checksum-sha1": "ChecksumSHA1",
    "x-amz-checksum-sha256": "ChecksumSHA256",
}
_ANSWERED = {
    **{header: name for name, header in _CONTENT.items() if name not in {"Tagging", "ObjectLockRetainUntilDate"}},
    **_CHECKSUMS,
    "etag": "ETag",
    "content-range": "ContentRange",
    "x-amz-checksum-type": "ChecksumType",
    "x-amz-version-id": "VersionId",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-customer-algorithm": "SSECustomerAlgorithm",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
}
_META = "x-amz-meta-"

_PUT = _Operation(
    name="PutObject",
    sdk="put_object",
    method="PUT",
    headers=_CONTENT | _CONDITIONS | {"ContentMD5": "content-md5"},
    takes=frozenset({"Body", "Metadata"}),
)
_PART = _Operation(
    name="UploadPart",
    sdk="upload_part",
    method="PUT",
    headers={"ContentMD5": "content-md5"},
    query={"PartNumber": "partNumber", "UploadId": "uploadId"},
    takes=frozenset({"Body"}),
)
_COPY = _Operation(
    name="CopyObject",
    sdk="copy_object",
    method="PUT",
    headers=_CONTENT
    | _CONDITIONS
    | {
        "CopySourceIfMatch": "x-amz-copy-source-if-match",
        "MetadataDirective": "x-amz-metadata-directive",
        "TaggingDirective": "x-amz-tagging-directive",
    },
    takes=frozenset({"CopySource", "Metadata"}),
)
_READ: Mapping[str, Any] = {"headers": _CONDITIONS | {"Range": "range"}, "query": {"VersionId": "versionId"}}
_GET = _Operation(name="GetObject", sdk="get_object", method="GET", **_READ)
_HEAD = _Operation(
    name="HeadObject",
    sdk="head_object",
    method="HEAD",
    headers=_CONDITIONS | {"Range": "range", "ChecksumMode": "x-amz-checksum-mode"},
    query={"VersionId": "versionId"},
)
_DELETE = _Operation(
    name="DeleteObject",
    sdk="delete_object",
    method="DELETE",
    headers={"IfMatch": "if-match"},
    query={"VersionId": "versionId"},
)
_TAGS = _Operation(
    name="GetObjectTagging",
    sdk="get_object_tagging",
    method="GET",
    query={"VersionId": "versionId"},
    fixed=(("tagging", ""),),
)
_LIST = _Operation(
    name="ListObjectsV2",
    sdk="list_objects_v2",
    method="GET",
    query={
        "Prefix": "prefix",
        "Delimiter": "delimiter",
        "ContinuationToken": "continuation-token",
        "StartAfter": "start-after",
        "MaxKeys": "max-keys",
    },
    fixed=(("list-type", "2"), ("encoding-type", "url")),
)


# the client


def fits(client: S3Client) -> bool:
    """Tell whether everything about a client is understood here; if not, the SDK goes on alone.

    Not understood are proxies for http, client certificates, credentials and signatures of other kinds, and whoever
    listens to the client's events or has patched it: they would not be asked.
    """
    try:
        return _is_plain(client) and not _is_listened_to(client) and not _is_mocked()
    except (AttributeError, TypeError, KeyError):  # botocore's insides are not as they were
        return False


def is_fast(client: S3Client) -> bool:
    """Tell whether a client is one of ours already."""
    return isinstance(cast("object", client), WireClient)


def fast_client(client: S3Client) -> S3Client:
    """Return the client that stands in for one that fits."""
    return cast("S3Client", WireClient(client))


@attrs.define(eq=False)
class _Place:
    """Where a bucket is, and in which region requests to it are signed."""

    connections: Connections
    host: str
    path: str
    region: str


class WireClient:
    """An S3 client whose operations on objects go over the wire directly; all others are those of the SDK's client.

    Credentials, region, endpoint, addresses of buckets, TLS, time limits and the number of attempts are the client's
    own, so both lanes are one identity. Addresses are asked of the SDK once for each bucket. Bodies over https are not
    signed, as the SDK does not sign them, and carry a CRC32 where the client sends one; over http they are signed.

    What may pass is tried again as the SDK would: every operation here may be repeated, those under a condition too,
    as the driver recognises its own first success. Pauses are random up to a bound that doubles, ``Retry-After`` is
    obeyed, and no attempt begins two minutes after the first.
    """

    def __init__(self, client: S3Client) -> None:
        inner: Any = client
        config: Any = client.meta.config
        self._sdk = client
        self._credentials = inner._request_signer._credentials  # noqa: SLF001  told nowhere else
        self._transport = _transport(client)
        self._attempts = int((config.retries or {}).get("total_max_attempts", 5))
        self._user_agent = config.user_agent
        self._sends_checksums = config.request_checksum_calculation == "when_supported"
        self._asks_checksums = config.response_checksum_validation == "when_supported"
        self._signs_bodies = bool((config.s3 or {}).get("payload_signing_enabled"))
        self._signer = _Signer()
        self._places: dict[str, _Place] = {}
        self._servers: dict[str, Connections] = {}
        self._elsewhere: set[str] = set()
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the SDK's client has
        found = getattr(self._sdk, name)
        return functools.partial(in_thread, found) if inspect.ismethod(found) else found

    def close(self) -> None:
        """Close the idle connections of both clients."""
        for server in tuple(self._servers.values()):
            server.close()
        self._sdk.close()

    def __repr__(self) -> str:
        return f"<WireClient of {self._sdk.meta.endpoint_url}>"

    # operations, in the SDK's words

    def put_object(self, **arguments: Any) -> _Fields:  # noqa: ANN401  as the SDK's
        """Write an object."""
        return self._called(_PUT, arguments, _nothing)

    def upload_part(self, **arguments: Any) -> _Fields:  # noqa: ANN401  as the SDK's
        """Send a part."""
        return self._called(_PART, arguments, _nothing)

    def copy_object(self, **arguments: Any) -> _Fields:  # noqa: ANN401  as the SDK's
        """Copy an object inside S3."""
        return self._called(_COPY, arguments, _copy_result)

    def get_object(self, **arguments: Any) -> _Fields:  # noqa: ANN401  as the SDK's
        """Open an object."""
        return self._called(_GET, arguments, _opened)

    def head_object(self, **arguments: Any) -> _Fields:  # noqa: ANN401  as the SDK's
        """Look at an object."""
        return self._called(_HEAD, arguments, _nothing)

    def delete_object(self, **arguments: Any) -> _Fields:  # noqa: ANN401  as the SDK's
        """Delete an object."""
        return self._called(_DELETE, arguments, _nothing)

    def get_object_tagging(self, **arguments: Any) -> _Fields:  # noqa: ANN401  as the SDK's
        """Return an object's tags."""
        return self._called(_TAGS, arguments, _tag_set)

    def list_objects_v2(self, **arguments: Any) -> _Fields:  # noqa: ANN401  as the SDK's
        """Return one page of keys."""
        return self._called(_LIST, arguments, _listing)

    # work

    def _called(self, operation: _Operation, arguments: _Fields, read: Callable[[Answer], _Fields]) -> _Fields:
        bucket: str = arguments["Bucket"]
        if bucket in self._elsewhere or not operation.arguments.issuperset(arguments) or _is_mocked():
            return self._handed_on(operation, arguments)
        place = self._places.get(bucket) or self._place(bucket)
        headers = _headers(operation, arguments)
        if place is None or headers is None:
            return self._handed_on(operation, arguments)
        try:
            return self._exchanged(operation, place, arguments, headers, read)
        except _ElsewhereError:
            # The SDK finds out where, and sends it there.
            self._elsewhere.add(bucket)
            return self._handed_on(operation, arguments)

    def _handed_on(self, operation: _Operation, arguments: _Fields) -> _Fields:
        return cast("_Fields", in_thread(getattr(self._sdk, operation.sdk), **arguments))

    def _exchanged(
        self,
        operation: _Operation,
        place: _Place,
        arguments: _Fields,
        headers: dict[str, str],
        read: Callable[[Answer], _Fields],
    ) -> _Fields:
        body: bytes = arguments.get("Body", b"")
        path = place.path + (_quoted(arguments["Key"]) if "Key" in arguments else "")
        query = _query(operation, arguments)
        payload = self._add_payload(operation, place, headers, body)
        deadline = time.monotonic() + _DEADLINE
        skewed = closed = False
        attempt = 0
        while True:
            try:
                head = self._head(operation.method, place, path, query, headers, payload, len(body))
                with _native(place.connections.url):
                    answer = place.connections.request(operation.method, head, body, fresh=closed)
                if answer.status >= 300:
                    raise _refused(operation, answer, attempt)
                return self._read(operation, answer, read, attempt)
            except native.ClientError as exc:
                if not skewed and self._signer.corrected(exc.response):
                    skewed = True
                    continue
                failure: Exception = exc
            except (native.HTTPClientError, native.IncompleteReadError, ResponseParserError) as exc:
                failure = exc
            attempt += 1
            closed = isinstance(failure, native.ConnectionClosedError)
            pause = _pause(failure, attempt)
            if pause is None or attempt >= self._attempts or time.monotonic() + pause > deadline:
                raise failure
            sleep(pause)

    def _read(self, operation: _Operation, answer: Answer, read: Callable[[Answer], _Fields], attempt: int) -> _Fields:
        found = _described(answer)
        found["ResponseMetadata"] = _metadata(answer, attempt)
        if self._asks_checksums:
            answer.body.checksum = _checksum(answer)
        found |= read(answer)
        if is_foreign(operation.name, answer.status, found, answer.headers):
            answer.body.close()
            raise foreign(operation.name)
        return found

    def _add_payload(self, operation: _Operation, place: _Place, headers: dict[str, str], body: bytes) -> str:
        """Return what is signed for the body, and add its checksum."""
        if operation is _GET or operation is _HEAD:
            if self._asks_checksums:
                headers["x-amz-checksum-mode"] = "ENABLED"
            return _EMPTY
        if "Body" not in operation.takes:
            return _EMPTY
        if self._sends_checksums and "content-md5" not in headers:
            headers["x-amz-sdk-checksum-algorithm"] = "CRC32"
            headers["x-amz-checksum-crc32"] = _base64(zlib.crc32(body).to_bytes(4, "big"))
        if place.connections.url.startswith("https:") and not self._signs_bodies and self._sends_checksums:
            return _UNSIGNED
        return hashlib.sha256(body).hexdigest()

    def _head(
        self, method: str, place: _Place, path: str, query: str, headers: dict[str, str], payload: str, size: int
    ) -> bytes:
        keys = self._credentials.get_frozen_credentials()
        signed = self._signer.signed(method, place, path, query, headers, payload, keys)
        length = f"content-length: {size}\r\n" if method == "PUT" else ""
        target = f"{path}?{query}" if query else path
        return f"{method} {target} HTTP/1.1\r\nuser-agent: {self._user_agent}\r\n{length}{signed}\r\n".encode("ascii")

    def _place(self, bucket: str) -> _Place | None:
        """Ask the SDK where a bucket is and how it signs for it: a presigned URL tells both, and sends nothing."""
        url = urlsplit(self._sdk.generate_presigned_url("head_bucket", Params={"Bucket": bucket}))
        query = parse_qs(url.query)
        if query.get("X-Amz-Algorithm") != ["AWS4-HMAC-SHA256"]:
            return None
        _, _, region, service, _ = query["X-Amz-Credential"][0].rsplit("/", 4)
        if service != "s3" or "X-Amz-S3session-Token" in query:
            return None
        address = f"{url.scheme}://{url.netloc}"
        with self._lock:
            if address not in self._servers:
                self._servers[address] = Connections(address, self._transport)
            place = _Place(self._servers[address], url.netloc, f"{url.path.rstrip('/')}/", region)
            self._places[bucket] = place
        return place


# what is understood


def _proxy(client: S3Client) -> str | None:
    url = client.meta.endpoint_url
    config: Any = client.meta.config
    found: str | None = (config.proxies or get_environ_proxies(url)).get(urlsplit(url).scheme)
    return found


def _transport(client: S3Client) -> Transport:
    """Return how the client connects."""
    inner: Any = client
    config: Any = client.meta.config
    verify = inner._endpoint.http_session._verify  # noqa: SLF001  told nowhere else
    return Transport(
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        context=_context(verify) if client.meta.endpoint_url.startswith("https:") else None,
        proxy=_proxy(client),
        keep_alive=bool(config.tcp_keepalive),
        limit=max(config.max_pool_connections, _IDLE),
        trusted=_TRUSTED,
    )


def _context(verify: bool | str) -> ssl.SSLContext:  # noqa: FBT001  the SDK's own
    context: ssl.SSLContext = create_urllib3_context()
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(get_cert_path(cast("Any", verify)))
    return context


def _is_plain(client: S3Client) -> bool:
    """Tell whether calls of the client do what botocore wrote: tests and tracers replace that."""
    inner: Any = client
    config: Any = client.meta.config
    code = getattr(inner._make_api_call, "__code__", None)  # noqa: SLF001  what others replace
    credentials = inner._request_signer._credentials  # noqa: SLF001  told nowhere else
    proxy = urlsplit(_proxy(client) or "")
    tunnelled = client.meta.endpoint_url.startswith("https:") and proxy.scheme == "http" and proxy.username is None
    return (
        code is not None
        and Path(code.co_filename).parent == _BOTOCORE
        and hasattr(credentials, "get_frozen_credentials")
        and hasattr(inner._endpoint.http_session, "_verify")  # noqa: SLF001  told nowhere else
        and config.signature_version in {"s3v4", "v4"}
        and not config.client_cert
        and not config.proxies_config
        and (not proxy.netloc or tunnelled)
    )


def _is_listened_to(client: S3Client) -> bool:
    """Tell whether others than the SDK and we wait for the client's events; they would hear nothing of this lane."""
    events: Any = client.meta.events
    return any(
        not _module(handler).startswith(_OURS) or _module(handler) == "botocore.stub"
        for handler in _handlers(events._emitter._handlers._root)  # noqa: SLF001  told nowhere else
    )


def _handlers(node: Mapping[str, Any]) -> Iterator[Any]:
    for section in node["values"] or ():
        yield from section
    for child in node["children"].values():
        yield from _handlers(child)


def _module(handler: Any) -> str:  # noqa: ANN401  anything that can be called
    function = getattr(handler, "func", handler)  # of a partial
    return str(getattr(function, "__module__", None) or type(function).__module__)


def _is_mocked() -> bool:
    """Tell whether moto answers for the SDK in this process: it would not answer for us."""
    models: Any = sys.modules.get("moto.core.models")
    return models is not None and models.botocore_stubber.enabled


class _ElsewhereError(Exception):
    """The bucket is in another region."""


# requests


def _headers(operation: _Operation, arguments: _Fields) -> dict[str, str] | None:
    """Return the headers that the arguments make; ``None`` if HTTP could not carry one as it is."""
    found = {header: str(arguments[name]) for name, header in operation.headers.items() if name in arguments}
    for name, value in arguments.get("Metadata", {}).items():
        found[f"{_META}{name}"] = value
    if "CopySource" in arguments:
        source: Mapping[str, str] = arguments["CopySource"]
        if set(source) != {"Bucket", "Key"}:
            return None
        found["x-amz-copy-source"] = _quoted(f"{source['Bucket']}/{source['Key']}")
    for name, value in found.items():
        if not value.isascii() or not name.isascii() or not value.isprintable() or value != value.strip():
            return None
    return found


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_SAFE)


def _query(operation: _Operation, arguments: _Fields) -> str:
    """Return the query as it is signed: sorted and quoted."""
    pairs = [(word, str(arguments[name])) for name, word in operation.query.items() if name in arguments]
    return "&".join(f"{word}={quote(value, safe='-_.~')}" for word, value in sorted((*pairs, *operation.fixed)))


class _Keys(Protocol):
    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


class _Signer:
    """Signature Version 4, with the key of the day kept and the clock corrected where the server's differs."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._key: tuple[tuple[str, str, str], bytes] = (("", "", ""), b"")

    def signed(
        self, method: str, place: _Place, path: str, query: str, headers: Mapping[str, str], payload: str, keys: _Keys
    ) -> str:
        """Return the lines of all headers that are signed, and the one that signs them."""
        stamp = _stamp(int(time.time() + self._offset))
        every = {**headers, "host": place.host, "x-amz-content-sha256": payload, "x-amz-date": stamp}
        if keys.token:
            every["x-amz-security-token"] = keys.token
        names = sorted(every)
        lines = "".join([f"{name}:{_spaced(every[name])}\n" for name in names])
        listed = ";".join(names)
        request = f"{method}\n{path}\n{query}\n{lines}\n{listed}\n{payload}"
        scope = f"{stamp[:8]}/{place.region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(keys.secret_key, stamp[:8], place.region), text.encode(), "sha256")
        sent = "".join([f"{name}: {value}\r\n" for name, value in every.items()])
        return (
            f"{sent}authorization: AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope},"
            f"SignedHeaders={listed},Signature={signature.hex()}\r\n"
        )

    def corrected(self, answer: Mapping[str, Any]) -> bool:
        """Take over the server's time if ours is what made it refuse; tell whether that was so."""
        meta = answer["ResponseMetadata"]
        told = meta["HTTPHeaders"].get("date")
        if meta["HTTPStatusCode"] not in {400, 403} or told is None:
            return False
        off = moment(told).timestamp() - time.time()
        if abs(off - self._offset) < _SKEW:
            return False
        self._offset = off
        return True

    def _signing_key(self, secret: str, day: str, region: str) -> bytes:
        which = (secret, day, region)
        kept, key = self._key
        if kept != which:
            key = f"AWS4{secret}".encode()
            for text in (day, region, "s3", "aws4_request"):
                key = hmac.digest(key, text.encode(), "sha256")
            self._key = (which, key)
        return key


def _spaced(value: str) -> str:
    """Return a value as it is signed: spaces in a row as one."""
    return " ".join(value.split()) if "  " in value else value


@functools.lru_cache(8)
def _stamp(second: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))


# answers


def _described(answer: Answer) -> _Fields:
    """Return what the headers of an answer say, in the SDK's words."""
    found: _Fields = {}
    metadata: dict[str, str] = {}
    for name, value in answer.headers.items():
        word = _ANSWERED.get(name)
        if word is not None:
            found[word] = value
        elif name.startswith(_META):
            metadata[name[len(_META) :]] = value
    found["Metadata"] = metadata
    for header, word, convert in _CONVERTED:
        if header in answer.headers:
            found[word] = convert(answer.headers[header])
    return found


def _metadata(answer: Answer, attempt: int) -> _Fields:
    return {
        "RequestId": answer.headers.get("x-amz-request-id", ""),
        "HTTPStatusCode": answer.status,
        "HTTPHeaders": answer.headers,
        "RetryAttempts": attempt,
    }


_CONVERTED: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("last-modified", "LastModified", moment),
    ("content-length", "ContentLength", int),
    ("x-amz-tagging-count", "TagCount", int),
    ("x-amz-object-lock-retain-until-date", "ObjectLockRetainUntilDate", datetime.fromisoformat),
)


@attrs.define
class _Crc32:
    """The CRC32 that the server keeps of a whole object."""

    _promised: str
    _value: int = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def verify(self) -> None:
        found = _base64(self._value.to_bytes(4, "big"))
        if found != self._promised:
            raise native.FlexibleChecksumError(
                error_msg=f"the body has the CRC32 {found}, and {self._promised} was promised"
            )


def _checksum(answer: Answer) -> _Crc32 | None:
    promised = answer.headers.get("x-amz-checksum-crc32")
    if promised is None or "-" in promised or answer.status != 200 or answer.body.closed:
        return None
    return _Crc32(promised)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _nothing(answer: Answer) -> _Fields:
    with answer.body as body, _native(""):
        body.read()  # whatever it is, the connection is used again
    return {}


def _opened(answer: Answer) -> _Fields:
    return {"Body": _Stream(answer.body)}


@attrs.define
class _Stream:
    """A body whose errors are those of the SDK."""

    _body: Body

    def read(self, amt: int | None = None) -> bytes:
        """Return the next bytes; see ``Body``."""
        with _native(""):
            return self._body.read(amt)

    def close(self) -> None:
        """Drop what is left."""
        self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _copy_result(answer: Answer) -> _Fields:
    texts = _texts(_result(_COPY, answer, _root(_text(answer)), "CopyObjectResult"))
    return {"CopyObjectResult": {**texts, "LastModified": datetime.fromisoformat(texts["LastModified"])}}


def _tag_set(answer: Answer) -> _Fields:
    root = _result(_TAGS, answer, _root(_text(answer)), "Tagging")
    return {"TagSet": [_texts(tag) for tag in root.iter("Tag")]}


def _result(operation: _Operation, answer: Answer, root: ET.Element, expected: str) -> ET.Element:
    """Return what was asked for. S3 may begin to answer with 200 before it knows; and a proxy answers what it likes."""
    if root.tag == "Error":
        answer.status = 500  # as the SDK takes it, so that it is tried again
        raise _refusal(operation, answer, _texts(root), 0)
    if root.tag != expected:
        raise ResponseParserError(f"the answer is no {expected}: it begins with <{root.tag}>")
    return root


# What Amazon writes, field by field. Of a page where one entry is otherwise, or that has folders, XML is parsed.
_ENTRY = re.compile(
    r"<Contents><Key>([^<&]*)</Key><LastModified>([^<&]*)</LastModified><ETag>&quot;([^<&]*)&quot;</ETag>"
    r"(?:<Checksum(?:Algorithm|Type)>[^<]*</Checksum(?:Algorithm|Type)>)*"
    r"<Size>(\d+)</Size>(?:<Owner>(?:<(?:ID|DisplayName)>[^<]*</(?:ID|DisplayName)>)*</Owner>)?"
    r"<StorageClass>([^<&]*)</StorageClass></Contents>"
)
_FIRST, _LAST = "<Contents>", "</Contents>"


def _listing(answer: Answer) -> _Fields:
    text = _text(answer)
    begin, end = text.find(_FIRST), text.rfind(_LAST) + len(_LAST)
    entries = _ENTRY.findall(text, begin, end) if begin >= 0 and "<CommonPrefixes>" not in text else []
    if len(entries) == text.count(_FIRST, begin, end) > 0:
        root = _root(text[:begin] + text[end:])
    else:
        root, entries = _root(text), []
    about = _texts(_result(_LIST, answer, root, "ListBucketResult"))
    plain = unquote_plus if about.get("EncodingType") == "url" else str
    contents = [
        {
            "Key": plain(key) if "%" in key or "+" in key else key,
            "LastModified": datetime.fromisoformat(modified),
            "ETag": f'"{etag}"',
            "Size": int(size),
            "StorageClass": storage_class,
        }
        for key, modified, etag, size, storage_class in entries
    ]
    contents += [_entry(_texts(element), plain) for element in root.iter("Contents")]
    found: _Fields = {"Contents": contents, "IsTruncated": about.get("IsTruncated") == "true"}
    found["CommonPrefixes"] = [{"Prefix": plain(_texts(each)["Prefix"])} for each in root.iter("CommonPrefixes")]
    if about.get("NextContinuationToken"):
        found["NextContinuationToken"] = about["NextContinuationToken"]
    return found


def _entry(texts: Mapping[str, str], plain: Callable[[str], str]) -> _Fields:
    modified = datetime.fromisoformat(texts["LastModified"])
    return {**texts, "Key": plain(texts["Key"]), "Size": int(texts["Size"]), "LastModified": modified}


# XML, without what makes it dangerous


def _text(answer: Answer) -> str:
    with answer.body as body, _native(""):
        data = body.read()
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise ResponseParserError("the answer is not the UTF-8 that S3 writes") from exc


def _root(text: str) -> ET.Element:
    """Parse XML, and take the namespaces off its tags. Entities of its own, which could expand, are refused."""
    if "<!DOCTYPE" in text:
        raise ResponseParserError("the answer declares a document type, as no S3 does; it is not read")
    try:
        root = ET.fromstring(text)  # noqa: S314  without a document type there is nothing to expand
    except ET.ParseError as exc:
        raise ResponseParserError(f"the answer is no XML: {exc}") from exc
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _texts(element: ET.Element) -> dict[str, str]:
    return {child.tag: child.text or "" for child in element}


# errors, pauses


class _native:  # noqa: N801  reads as what it makes: `with _native(url)`
    """Turn the connections' errors into the SDK's."""

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if exc is None or not isinstance(exc, OSError | HTTPException):
            return
        url = self._url
        if isinstance(exc, ConnectTimeout):
            raise native.ConnectTimeoutError(endpoint_url=url, error=exc) from exc
        if isinstance(exc, Unreachable):
            raise native.EndpointConnectionError(endpoint_url=url, error=exc) from exc
        if isinstance(exc, ssl.SSLError):
            raise native.SSLError(endpoint_url=url, error=exc) from exc
        if isinstance(exc, TimeoutError):
            raise native.ReadTimeoutError(endpoint_url=url, error=exc) from exc
        if isinstance(exc, Short):
            raise native.IncompleteReadError(actual_bytes=exc.actual, expected_bytes=exc.expected_size) from exc
        if url:
            raise native.ConnectionClosedError(endpoint_url=url) from exc
        raise native.ResponseStreamingError(error=exc) from exc


def _refused(operation: _Operation, answer: Answer, attempt: int) -> Exception:
    """Return the SDK's exception of an answer that is none of success."""
    text = _text(answer)
    about = {"Code": str(answer.status), "Message": ""}
    if "<Error" in text:
        with contextlib.suppress(ResponseParserError):  # a proxy's page: the status says enough
            about |= _texts(_root(text))
    return _refusal(operation, answer, about, attempt)


def _refusal(operation: _Operation, answer: Answer, about: Mapping[str, str], attempt: int) -> Exception:
    code, status = about.get("Code", ""), answer.status
    if status in {301, 307} or code in _MOVED or (status == 400 and "x-amz-bucket-region" in answer.headers):
        return _ElsewhereError()
    error = {"Code": code, "Message": about.get("Message", "")}
    return native.ClientError({"Error": error, "ResponseMetadata": _metadata(answer, attempt)}, operation.name)  # type: ignore[typeddict-item]  # more precise than it is


def _pause(failure: Exception, attempt: int) -> float | None:
    """Return how long to wait before the next attempt; ``None`` if there should be none."""
    answer: Mapping[str, Any] = failure.response if isinstance(failure, native.ClientError) else {}
    meta: Mapping[str, Any] = answer.get("ResponseMetadata", {})
    code: str = answer.get("Error", {}).get("Code", "")
    status: int = meta.get("HTTPStatusCode", 0)
    throttled = code in _THROTTLED or status == 429
    if answer and not throttled and status not in _TRANSIENT and code not in _PASSING:
        return None
    if isinstance(failure, native.SSLError):
        return None
    if isinstance(failure, native.ConnectionClosedError) and attempt == 1:
        return 0.0  # most often a connection that rested too long
    bound = min((1.0 if throttled else 0.05) * 2 ** (attempt - 1), _LONGEST_PAUSE)
    headers: Mapping[str, str] = meta.get("HTTPHeaders", {})
    jitter: float = random.random() * bound  # noqa: S311  no secret
    return max(jitter, retry_after(headers.get("retry-after")) or 0.0)
