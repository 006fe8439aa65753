"""A fast stand-in for S3 in a process of its own, so that what a benchmark measures is the client.

It needs httptools, and takes uvloop where it is installed (15,000 requests a second and more on one core). It knows
objects, ranges, listings, multipart uploads, tags (there are none), create-only and batch deletes, checks no signature,
and answers each request after the latency that it is told. Of bodies above 1 MiB it keeps the length alone: downloads
of such objects are made up.

    with Responder(latency=0.02, fill={"there": (5_000, 4096)}) as url: ...
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import hashlib
import importlib.util
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

import attrs

__all__ = ["Responder", "content"]

_KEPT = 1024 * 1024
_BLOCK = random.Random(0).randbytes(8 * _KEPT)  # noqa: S311  makes up a content
_DATE = "Fri, 20 Nov 2026 12:00:00 GMT"
_HEAD = f"x-amz-request-id: BENCH\r\nDate: {_DATE}\r\nServer: bench\r\n"
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_CLOSED = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_SETTINGS = {
    "location": f"<LocationConstraint {_NS}>eu-central-1</LocationConstraint>",
    "versioning": f"<VersioningConfiguration {_NS}/>",
    "lifecycle": "<Error><Code>NoSuchLifecycleConfiguration</Code><Message>none</Message></Error>",
    "encryption": "<Error><Code>ServerSideEncryptionConfigurationNotFoundError</Code><Message>none</Message></Error>",
    "publicAccessBlock": f"<PublicAccessBlockConfiguration {_NS}>"
    + "".join(f"<{each}>true</{each}>" for each in _CLOSED)
    + "</PublicAccessBlockConfiguration>",
}
"""What a bucket without any of it answers to, by the word in the query."""
_STATUS = {200: "OK", 204: "No Content", 206: "Partial Content", 404: "Not Found", 412: "Precondition Failed"}


def content(size: int, seed: int = 0) -> bytes:
    """Return what an object is filled with."""
    return random.Random(seed).randbytes(size)  # noqa: S311  makes up a content


@contextmanager
def Responder(*, latency: float = 0.0, fill: dict[str, tuple[int, int]] | None = None) -> Iterator[str]:  # noqa: N802  reads as what it starts
    """Start a responder, tell its URL, stop it.

    Args:
        latency: of each answer, in seconds.
        fill: for each bucket, how many objects of which size are there.
    """
    command = [sys.executable, __file__, "--latency", str(latency), "--fill", json.dumps(fill or {})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101  for the type checker
        try:
            if not (port := process.stdout.readline()):
                sys.exit("the responder did not start")
            yield f"http://127.0.0.1:{int(port)}"
        finally:
            process.terminate()


# what is stored


@attrs.define
class _Object:
    key: str
    size: int
    etag: str
    body: bytes = b""
    headers: str = ""
    entry: str = ""

    def __attrs_post_init__(self) -> None:
        self.entry = (
            f"<Contents><Key>{escape(self.key)}</Key><LastModified>2026-11-20T12:00:00.000Z</LastModified>"
            f"<ETag>&quot;{self.etag}&quot;</ETag><Size>{self.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )


class _Bucket:
    def __init__(self) -> None:
        self.objects: dict[str, _Object] = {}
        self._order: list[str] | None = []

    def put(self, found: _Object) -> None:
        if found.key not in self.objects:
            self._order = None
        self.objects[found.key] = found

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            self._order = None

    def page(self, prefix: str, after: str, limit: int) -> tuple[list[_Object], bool]:
        if self._order is None:
            self._order = sorted(self.objects)
        start = max(bisect.bisect_left(self._order, prefix), bisect.bisect_right(self._order, after) if after else 0)
        keys = []
        for key in itertools.islice(self._order, start, start + limit + 1):
            if not key.startswith(prefix):
                break
            keys.append(key)
        return [self.objects[key] for key in keys[:limit]], len(keys) > limit


class Store:
    """Objects in memory, and the answers about them."""

    def __init__(self, fill: dict[str, tuple[int, int]]) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._uploads: dict[str, dict[int, tuple[str, int]]] = {}
        self._count = itertools.count(1)
        for name, (count, size) in fill.items():
            for number in range(count):
                body = content(min(size, _KEPT), number % 61)
                etag = hashlib.md5(body, usedforsecurity=False).hexdigest() if size <= _KEPT else f"{number:032x}-9"
                made = _Object(f"folder-{number % 10}/object-{number:07d}", size, etag, body if size <= _KEPT else b"")
                self._bucket(name).put(made)

    def _bucket(self, name: str) -> _Bucket:
        return self._buckets.setdefault(name, _Bucket())

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes, size: int) -> list[bytes]:
        """Return an answer in pieces.

        Args:
            body: empty if it is too large to keep; ``size`` is its length.
        """
        path, _, text = target.partition("?")
        name, _, key = unquote(path[1:]).partition("/")
        query = {word: values[0] for word, values in parse_qs(text, keep_blank_values=True).items()} if text else {}
        bucket = self._bucket(name)
        if not key:
            return self._about_bucket(method, bucket, query, body)
        if "uploads" in query or "uploadId" in query:
            return self._about_upload(method, bucket, key, query, headers, size)
        if "tagging" in query:
            return _answer(200, f"{_XML}<Tagging {_NS}><TagSet></TagSet></Tagging>")
        if method == "PUT":
            return self._put(bucket, key, headers, body, size)
        return self._about_object(method, bucket, key, headers)

    def _about_object(self, method: str, bucket: _Bucket, key: str, headers: dict[str, str]) -> list[bytes]:
        if method == "DELETE":
            bucket.delete(key)
            return _answer(204)
        found = bucket.objects.get(key)
        if found is None:
            return _answer(404, f"{_XML}<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", method)
        return _object(method, found, headers.get("range"))

    def _put(self, bucket: _Bucket, key: str, headers: dict[str, str], body: bytes, size: int) -> list[bytes]:
        if "if-none-match" in headers and key in bucket.objects:
            return _answer(412, f"{_XML}<Error><Code>PreconditionFailed</Code><Message>there</Message></Error>")
        if "x-amz-copy-source" in headers:
            name, _, source = unquote(headers["x-amz-copy-source"]).lstrip("/").partition("/")
            found = self._bucket(name).objects[source]
            bucket.put(_Object(key, found.size, found.etag, found.body, found.headers))
            about = f"<ETag>&quot;{found.etag}&quot;</ETag><LastModified>2026-11-20T12:00:00.000Z</LastModified>"
            return _answer(200, f"{_XML}<CopyObjectResult {_NS}>{about}</CopyObjectResult>")
        body, size = _decoded(headers, body, size)
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest() if body or not size else self._etag(headers)
        kept = "".join(f"{word}: {headers[word]}\r\n" for word in headers if word.startswith("x-amz-meta-"))
        bucket.put(_Object(key, size, etag, body, f"Content-Type: {headers.get('content-type', '')}\r\n{kept}"))
        return _answer(200, extra=f'ETag: "{etag}"\r\n')

    def _etag(self, headers: dict[str, str]) -> str:
        import base64

        told = headers.get("content-md5")
        return base64.b64decode(told).hex() if told else f"{next(self._count):032x}"

    def _about_bucket(self, method: str, bucket: _Bucket, query: dict[str, str], body: bytes) -> list[bytes]:
        if "delete" in query:
            for piece in body.decode().split("<Key>")[1:]:
                bucket.delete(piece.partition("</Key>")[0])
            return _answer(200, f"{_XML}<DeleteResult {_NS}></DeleteResult>")
        if method != "GET":
            return _answer(200)
        about = next((word for word in _SETTINGS if word in query), None)
        if about is not None:
            return _answer(404 if "<Error>" in _SETTINGS[about] else 200, _XML + _SETTINGS[about])
        return _answer(200, _listing(bucket, query))

    def _about_upload(
        self, method: str, bucket: _Bucket, key: str, query: dict[str, str], headers: dict[str, str], size: int
    ) -> list[bytes]:
        if "uploads" in query:
            name = f"upload-{next(self._count)}"
            self._uploads[name] = {}
            about = f"<Bucket>b</Bucket><Key>{escape(key)}</Key><UploadId>{name}</UploadId>"
            return _answer(200, f"{_XML}<InitiateMultipartUploadResult {_NS}>{about}</InitiateMultipartUploadResult>")
        parts = self._uploads.get(query["uploadId"], {})
        if method == "PUT":
            etag = self._etag(headers)
            parts[int(query["partNumber"])] = (etag, _decoded(headers, b"", size)[1])
            return _answer(200, extra=f'ETag: "{etag}"\r\n')
        self._uploads.pop(query["uploadId"], None)
        if method == "DELETE":
            return _answer(204)
        digests = b"".join(bytes.fromhex(etag) for _, (etag, _) in sorted(parts.items()))
        etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
        bucket.put(_Object(key, sum(length for _, length in parts.values()), etag))
        about = f"<Bucket>b</Bucket><Key>{escape(key)}</Key><ETag>&quot;{etag}&quot;</ETag>"
        return _answer(200, f"{_XML}<CompleteMultipartUploadResult {_NS}>{about}</CompleteMultipartUploadResult>")


def _decoded(headers: dict[str, str], body: bytes, size: int) -> tuple[bytes, int]:
    """Take off the framing of a body that is signed or checked in pieces."""
    told = headers.get("x-amz-decoded-content-length")
    if told is None:
        return body, size
    plain = b""
    while body:
        head, _, rest = body.partition(b"\r\n")
        length = int(head.partition(b";")[0] or b"0", 16)
        if not length:
            break
        plain, body = plain + rest[:length], rest[length + 2 :]
    return plain, int(told)


def _listing(bucket: _Bucket, query: dict[str, str]) -> str:
    after = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
    found, more = bucket.page(query.get("prefix", ""), after, min(int(query.get("max-keys") or 1000), 1000))
    if query.get("delimiter") == "/":
        return _folders(bucket, query.get("prefix", ""))
    following = f"<NextContinuationToken>{escape(found[-1].key)}</NextContinuationToken>" if more else ""
    following += f"<NextMarker>{escape(found[-1].key)}</NextMarker>" if more and "list-type" not in query else ""
    about = f"<Name>b</Name><Prefix></Prefix><KeyCount>{len(found)}</KeyCount><MaxKeys>1000</MaxKeys>"
    if query.get("encoding-type") == "url":
        about += "<EncodingType>url</EncodingType>"
    about += f"<IsTruncated>{str(more).lower()}</IsTruncated>{following}"
    return f"{_XML}<ListBucketResult {_NS}>{about}{''.join(each.entry for each in found)}</ListBucketResult>"


def _folders(bucket: _Bucket, prefix: str) -> str:
    """Return one level; rclone walks by folders. It must fit into one answer, as it does here."""
    here = [found for key, found in sorted(bucket.objects.items()) if key.startswith(prefix)]
    inside = [found.entry for found in here if "/" not in found.key[len(prefix) :]]
    rolled = sorted(
        {prefix + key.key[len(prefix) :].partition("/")[0] for key in here if "/" in key.key[len(prefix) :]}
    )
    folders = "".join(f"<CommonPrefixes><Prefix>{escape(each)}/</Prefix></CommonPrefixes>" for each in rolled)
    about = f"<Name>b</Name><Prefix>{escape(prefix)}</Prefix><MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter>"
    about += f"<IsTruncated>false</IsTruncated>{''.join(inside)}{folders}"
    return f"{_XML}<ListBucketResult {_NS}>{about}</ListBucketResult>"


def _answer(status: int, body: str = "", method: str = "GET", extra: str = "") -> list[bytes]:
    data = body.encode()
    kind = "Content-Type: application/xml\r\n" if data else ""
    head = f"HTTP/1.1 {status} {_STATUS[status]}\r\n{_HEAD}{extra}{kind}Content-Length: {len(data)}\r\n\r\n"
    return [head.encode() + (b"" if method == "HEAD" else data)]


def _object(method: str, found: _Object, wanted: str | None) -> list[bytes]:
    start, stop, status, ranged = 0, found.size, 200, ""
    if wanted:
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else found.size, found.size)
        status, ranged = 206, f"Content-Range: bytes {start}-{stop - 1}/{found.size}\r\n"
    head = (
        f'HTTP/1.1 {status} {_STATUS[status]}\r\n{_HEAD}ETag: "{found.etag}"\r\nLast-Modified: {_DATE}\r\n'
        f"Accept-Ranges: bytes\r\n{found.headers}{ranged}Content-Length: {stop - start}\r\n\r\n"
    ).encode()
    if method == "HEAD":
        return [head]
    if found.body:
        return [head + found.body[start:stop]]
    pieces = [head]
    while start < stop:
        piece = memoryview(_BLOCK)[start % len(_BLOCK) :][: stop - start]
        pieces.append(piece)  # type: ignore[arg-type]  # a transport takes both
        start += len(piece)
    return pieces


# HTTP


class _Conversation(asyncio.Protocol):
    """One connection; httptools calls the ``on_…`` methods."""

    def __init__(self, store: Store, latency: float) -> None:
        self._store = store
        self._latency = latency
        import httptools

        self._parser = httptools.HttpRequestParser(self)
        self._send: Callable[[list[bytes]], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._send = cast("asyncio.Transport", transport).writelines

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._target = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect") == "100-continue":
            self._send([b"HTTP/1.1 100 Continue\r\n\r\n"])

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= _KEPT:
            self._body.append(body)
        elif self._body:
            self._body.clear()

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        answer = self._store.answer(method, self._target, self._headers, b"".join(self._body), self._size)
        if self._latency:
            asyncio.get_running_loop().call_later(self._latency, self._send, answer)
        else:
            self._send(answer)


async def _serve(latency: float, fill: dict[str, tuple[int, int]]) -> None:
    store = Store(fill)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Conversation(store, latency), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--fill", type=json.loads, default={})
    arguments = parser.parse_args()
    if importlib.util.find_spec("httptools") is None:
        sys.exit("the responder needs httptools: pip install httptools")
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve(arguments.latency, arguments.fill))
    else:
        uvloop.run(_serve(arguments.latency, arguments.fill))


if __name__ == "__main__":
    main()
