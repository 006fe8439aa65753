"""The rules of S3 that moto does not keep."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote_plus, unquote
from wsgiref.types import WSGIEnvironment
from xml.sax.saxutils import escape, unescape

import attrs
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from shiftable.testing.harness import Headers, Request, Response
from shiftable_aws import _strict_cors
from shiftable_aws._strict_lock import LockRefused, Locks

__all__ = ["answer"]

_ENTRY = re.compile(rb"<(Version|DeleteMarker)>.*?</\1>", re.DOTALL)
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
_VERSION_ID = re.compile(rb"<VersionId>(.*?)</VersionId>")
_BUCKETS = re.compile(rb"<Buckets>.*</Buckets>", re.DOTALL)
_BEGUN = "shiftable_begun"
_META = "x-amz-meta-"
_META_LIMIT = 2048
_EMPTY_MD5 = base64.b64encode(hashlib.md5(usedforsecurity=False).digest()).decode()
_BUCKET = re.compile(rb"<Bucket>.*?</Bucket>", re.DOTALL)


class _Refused(Exception):
    def __init__(self, status: str, code: str, message: str) -> None:
        super().__init__(message)
        self.response = _error(status, code, message)


def answer(request: Request, environ: WSGIEnvironment, forward: Callable[[], Response], now: datetime) -> Response:
    """Refuse what S3 refuses, let moto execute the rest, put its listings right. Not for several threads at once."""
    bucket, _, key = unquote(request.target.partition("?")[0]).removeprefix("/").partition("/")
    found = _s3().buckets.get(bucket)
    why = _strict_cors.objection(request)
    if why is not None:
        return _error("400 Bad Request", "InvalidRequest", why)
    if request.method != "OPTIONS":
        return _strict_cors.let(request, _executed(request, environ, forward, now, (bucket, key)), found)
    why = _strict_cors.refused(request, found)
    response = Response("200 OK", Headers({}), b"") if why is None else _error("403 Forbidden", "AccessForbidden", why)
    return _strict_cors.let(request, response, found)


def _executed(
    request: Request, environ: WSGIEnvironment, forward: Callable[[], Response], now: datetime, place: tuple[str, str]
) -> Response:
    bucket, key = place
    query = parse_qs(request.query, keep_blank_values=True)
    locks = Locks(_s3().buckets, now)
    try:
        told = locks.check(request, query, bucket, key)
    except LockRefused as exc:
        return _error(exc.status, exc.code, exc.message)
    if told is not None:
        return Response("200 OK", Headers({"Content-Type": "application/xml"} if told else {}), told)
    if "x-amz-copy-source" in request.headers:
        environ.setdefault("HTTP_CONTENT_MD5", _EMPTY_MD5)  # moto wants one of copies with a lock, too
    lock = locks.completing(bucket, query["uploadId"][0]) if request.method == "POST" and "uploadId" in query else None
    response = _answered(request, environ, forward, now, (bucket, key, query))
    if response.code == 200 and lock is not None:
        lock(key)
    elif response.code == 200 and key and request.method == "POST" and "uploads" in query:
        locks.begun(request, bucket, key)
    return response


def _answered(
    request: Request,
    environ: WSGIEnvironment,
    forward: Callable[[], Response],
    now: datetime,
    place: tuple[str, str, dict[str, list[str]]],
) -> Response:
    bucket, key, query = place
    try:
        if key and (request.method == "PUT" or "uploads" in query):
            _check_digest(request)
            _check_metadata(request)
        if "x-amz-copy-source" in request.headers and "partNumber" not in query:
            _check_source(request)
            _check_target(request, bucket, key)
        elif request.method == "POST" and "uploadId" in query and not _completed(bucket, key, query["uploadId"][0]):
            _check_target(request, bucket, key)
        elif request.method == "PUT" and "x-amz-copy-source" in request.headers:
            _check_source(request)
        elif request.method == "DELETE" and "tagging" in query and _etag(bucket, key) is None:
            raise _no_key()
    except _Refused as exc:
        return exc.response
    # moto's routes end at a line break; it reads the key from the raw target.
    environ["PATH_INFO"] = environ["PATH_INFO"].replace("\n", " ")
    if request.method == "GET" and not bucket:
        environ["QUERY_STRING"] = ""
        return _paged(forward(), query)
    response = forward()
    if "uploads" in query and response.code == 200:
        _date_uploads(bucket, now)
        return response if key else attrs.evolve(response, body=_uploads(bucket, query))
    if request.method == "GET" and not key and "versions" in query and response.code == 200:
        return attrs.evolve(response, body=_in_order(bucket, response.body))
    return response


def _check_digest(request: Request) -> None:
    stated = request.headers.get("Content-MD5")
    if stated is None:
        return
    try:
        digest = base64.b64decode(stated, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 16:
        raise _Refused("400 Bad Request", "InvalidDigest", "The Content-MD5 you specified was invalid.")
    if hashlib.md5(request.body, usedforsecurity=False).digest() != digest:
        message = "The Content-MD5 you specified did not match what we received."
        raise _Refused("400 Bad Request", "BadDigest", message)


def _check_metadata(request: Request) -> None:
    given = {name[len(_META) :]: value for name, value in request.headers.items() if name.lower().startswith(_META)}
    if sum(len(name.encode()) + len(value.encode()) for name, value in given.items()) > _META_LIMIT:
        message = "Your metadata headers exceed the maximum allowed metadata size"
        raise _Refused("400 Bad Request", "MetadataTooLarge", message)


def _check_source(request: Request) -> None:
    """Check the condition on the object that is copied."""
    expected = request.headers.get("x-amz-copy-source-if-match")
    source, _, version = unquote(request.headers["x-amz-copy-source"]).removeprefix("/").partition("?versionId=")
    etag = _etag(*source.split("/", 1)) if not version else None
    if expected is not None and etag is not None and etag != expected.strip('"'):
        raise _unmet("x-amz-copy-source-If-Match")


def _check_target(request: Request, bucket: str, key: str) -> None:
    """Check the conditions on the object that is replaced."""
    etag = _etag(bucket, key)
    if request.headers.get("If-None-Match") == "*" and etag is not None:
        raise _unmet("If-None-Match")
    expected = request.headers.get("If-Match")
    if expected is not None and etag is None:
        raise _no_key()
    if expected is not None and etag != expected.strip('"'):
        raise _unmet("If-Match")


def _no_key() -> _Refused:
    return _Refused("404 Not Found", "NoSuchKey", "The specified key does not exist.")


def _unmet(condition: str) -> _Refused:
    message = f"At least one of the pre-conditions you specified did not hold: {condition}"
    return _Refused("412 Precondition Failed", "PreconditionFailed", message)


def _etag(bucket: str, key: str) -> str | None:
    found = _s3().buckets[bucket].keys.get(key) if bucket in _s3().buckets else None
    etag: str | None = getattr(found, "etag", None)  # a delete marker has none
    return None if etag is None else etag.strip('"')


def _completed(bucket: str, key: str, upload: str) -> bool:
    """Tell whether the object is this upload's own: completing it again is answered as the first time."""
    found = _s3().buckets[bucket].keys.get(key) if bucket in _s3().buckets else None
    return getattr(getattr(found, "multipart", None), "id", None) == upload


def _in_order(bucket: str, body: bytes) -> bytes:
    """Put versions and delete markers into one order, by key, then newest first; moto writes two lists."""
    entries: list[bytes] = [found.group() for found in _ENTRY.finditer(body)]
    if not entries:
        return body
    keys = _s3().buckets[bucket].keys
    ages = {
        (name, version.version_id or "null"): -number
        for name, versions in keys.iterlists()
        for number, version in enumerate(versions)
    }

    def place(entry: bytes) -> tuple[str, int]:
        name, version = (found.group(1).decode() for found in (_KEY.search(entry), _VERSION_ID.search(entry)) if found)
        plain = unquote(unescape(name)) if b"<EncodingType>url" in body else unescape(name)
        return plain, ages.get((plain, version), 0)

    head, tail = body[: body.index(entries[0])], body[body.rindex(entries[-1]) + len(entries[-1]) :]
    ordered = sorted(entries, key=place)
    return head + b"".join(ordered) + tail


def _date_uploads(bucket: str, now: datetime) -> None:
    """Note when an upload began; moto says 2010 of all."""
    for upload in _s3().buckets[bucket].multiparts.values():
        if not hasattr(upload, _BEGUN):
            setattr(upload, _BEGUN, now)


def _uploads(bucket: str, query: dict[str, list[str]]) -> bytes:
    """List uploads as S3 does: in order, in pages, with their times; moto does none of that."""
    prefix, key_marker, id_marker = (query.get(name, [""])[0] for name in ("prefix", "key-marker", "upload-id-marker"))
    most = min(int(query.get("max-uploads", ["1000"])[0]), 1000)
    encode = quote_plus if query.get("encoding-type") == ["url"] else escape
    begun = sorted(_s3().buckets[bucket].multiparts.values(), key=lambda upload: (upload.key_name.encode(), upload.id))
    left = [upload for upload in begun if upload.key_name.startswith(prefix)]
    if key_marker:
        marker = (key_marker.encode(), id_marker or "\U0010ffff")
        left = [upload for upload in left if (upload.key_name.encode(), upload.id) > marker]
    entries = [
        f"<Upload><Key>{encode(upload.key_name)}</Key><UploadId>{upload.id}</UploadId>"
        f"<StorageClass>STANDARD</StorageClass><Initiated>{getattr(upload, _BEGUN):%Y-%m-%dT%H:%M:%S.000Z}</Initiated>"
        "</Upload>"
        for upload in left[:most]
    ]
    more = len(left) > most > 0
    last = f"<NextKeyMarker>{encode(left[most - 1].key_name)}</NextKeyMarker>" if more else ""
    last += f"<NextUploadIdMarker>{left[most - 1].id}</NextUploadIdMarker>" if more else ""
    head = f"<Bucket>{bucket}</Bucket><KeyMarker/><UploadIdMarker/><MaxUploads>{most}</MaxUploads>"
    head += "<EncodingType>url</EncodingType>" * (encode is quote_plus)
    head += f"<IsTruncated>{str(more).lower()}</IsTruncated>{last}"
    start = '<?xml version="1.0" encoding="UTF-8"?><ListMultipartUploadsResult>'
    return f"{start}{head}{''.join(entries)}</ListMultipartUploadsResult>".encode()


def _paged(response: Response, query: dict[str, list[str]]) -> Response:
    """Cut the list of buckets into pages; moto cuts it off."""
    found = _BUCKETS.search(response.body)
    if found is None or "max-buckets" not in query:
        return response
    buckets = _BUCKET.findall(found.group())
    start = int(query.get("continuation-token", ["0"])[0])
    stop = start + int(query["max-buckets"][0])
    token = f"<ContinuationToken>{stop}</ContinuationToken>".encode() if stop < len(buckets) else b""
    page = b"<Buckets>" + b"".join(buckets[start:stop]) + b"</Buckets>" + token
    return attrs.evolve(response, body=response.body.replace(found.group(), page))


def _s3() -> Any:  # noqa: ANN401  moto's backends have no types
    return get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]


def _error(status: str, code: str, message: str) -> Response:
    body = (
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message><RequestId>double-request</RequestId></Error>"
    )
    headers = Headers({"Content-Type": "application/xml", "x-amz-request-id": "double-request"})
    return Response(status, headers, f'<?xml version="1.0" encoding="UTF-8"?>{body}'.encode())
