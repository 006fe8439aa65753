"""S3 as a responder plays it: objects, ranges, listings, multipart uploads, create-only, batches; there are no tags."""

from __future__ import annotations

import base64
import hashlib
import itertools
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from _responder_objects import DATE, Bucket, Object, answered, filling, stored

__all__ = ["S3"]

_HEAD = f"x-amz-request-id: BENCH\r\nDate: {DATE}\r\nServer: bench\r\n"
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_CLOSED = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_SETTINGS = {
    "location": f"<LocationConstraint {_NS}>eu-central-1</LocationConstraint>",
    "versioning": f"<VersioningConfiguration {_NS}/>",
    "lifecycle": "<Error><Code>NoSuchLifecycleConfiguration</Code><Message>none</Message></Error>",
    "cors": "<Error><Code>NoSuchCORSConfiguration</Code><Message>none</Message></Error>",
    "encryption": "<Error><Code>ServerSideEncryptionConfigurationNotFoundError</Code><Message>none</Message></Error>",
    "publicAccessBlock": f"<PublicAccessBlockConfiguration {_NS}>"
    + "".join(f"<{each}>true</{each}>" for each in _CLOSED)
    + "</PublicAccessBlockConfiguration>",
}
"""What a bucket without any of it answers to, by the word in the query."""


class S3:
    """Objects in memory, and the answers about them."""

    def __init__(self, fill: dict[str, tuple[int, int]]) -> None:
        self._buckets: dict[str, Bucket] = {}
        self._uploads: dict[str, dict[int, tuple[str, int]]] = {}
        self._count = itertools.count(1)
        for name, (count, size) in fill.items():
            for key, body in filling(count, size):
                etag = hashlib.md5(body, usedforsecurity=False).hexdigest() if body else f"{next(self._count):032x}-9"
                self._bucket(name).put(_object(key, size, etag, body))

    def _bucket(self, name: str) -> Bucket:
        return self._buckets.setdefault(name, Bucket())

    def __call__(self, method: str, target: str, headers: dict[str, str], body: bytes, size: int) -> list[bytes]:
        """Return an answer in pieces."""
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

    def _about_object(self, method: str, bucket: Bucket, key: str, headers: dict[str, str]) -> list[bytes]:
        if method == "DELETE":
            bucket.delete(key)
            return _answer(204)
        found = bucket.objects.get(key)
        if found is None:
            return _answer(404, f"{_XML}<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", method)
        head = f'{_HEAD}ETag: "{found.etag}"\r\nLast-Modified: {DATE}\r\nAccept-Ranges: bytes\r\n{found.headers}'
        return stored(method, found, head, headers.get("range"))

    def _put(self, bucket: Bucket, key: str, headers: dict[str, str], body: bytes, size: int) -> list[bytes]:
        if "if-none-match" in headers and key in bucket.objects:
            return _answer(412, f"{_XML}<Error><Code>PreconditionFailed</Code><Message>there</Message></Error>")
        if "x-amz-copy-source" in headers:
            name, _, source = unquote(headers["x-amz-copy-source"]).lstrip("/").partition("/")
            found = self._bucket(name).objects[source]
            bucket.put(_object(key, found.size, found.etag, found.body, found.headers))
            about = f"<ETag>&quot;{found.etag}&quot;</ETag><LastModified>2026-11-20T12:00:00.000Z</LastModified>"
            return _answer(200, f"{_XML}<CopyObjectResult {_NS}>{about}</CopyObjectResult>")
        body, size = _decoded(headers, body, size)
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest() if body or not size else self._etag(headers)
        kept = "".join(f"{word}: {headers[word]}\r\n" for word in headers if word.startswith("x-amz-meta-"))
        bucket.put(_object(key, size, etag, body, f"Content-Type: {headers.get('content-type', '')}\r\n{kept}"))
        return _answer(200, extra=f'ETag: "{etag}"\r\n')

    def _etag(self, headers: dict[str, str]) -> str:
        told = headers.get("content-md5")
        return base64.b64decode(told).hex() if told else f"{next(self._count):032x}"

    def _about_bucket(self, method: str, bucket: Bucket, query: dict[str, str], body: bytes) -> list[bytes]:
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
        self, method: str, bucket: Bucket, key: str, query: dict[str, str], headers: dict[str, str], size: int
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
        bucket.put(_object(key, sum(length for _, length in parts.values()), etag))
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


def _object(key: str, size: int, etag: str, body: bytes = b"", headers: str = "") -> Object:
    entry = (
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-20T12:00:00.000Z</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )
    return Object(key, size, etag, body, headers, entry)


def _listing(bucket: Bucket, query: dict[str, str]) -> str:
    after = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
    prefix, limit = query.get("prefix", ""), min(int(query.get("max-keys") or 1000), 1000)
    about = f"<Name>b</Name><Prefix>{escape(prefix)}</Prefix><MaxKeys>{limit}</MaxKeys>"
    if query.get("delimiter") == "/":
        found, folders = bucket.level(prefix)
        more = False
        about += "<Delimiter>/</Delimiter>"
    else:
        (found, more), folders = bucket.page(prefix, after, limit), []
        about += f"<KeyCount>{len(found)}</KeyCount>"
    if query.get("encoding-type") == "url":
        about += "<EncodingType>url</EncodingType>"
    about += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
    if more:
        word = "NextContinuationToken" if "list-type" in query else "NextMarker"
        about += f"<{word}>{escape(found[-1].key)}</{word}>"
    about += "".join(each.entry for each in found)
    about += "".join(f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in folders)
    return f"{_XML}<ListBucketResult {_NS}>{about}</ListBucketResult>"


def _answer(status: int, body: str = "", method: str = "GET", extra: str = "") -> list[bytes]:
    kind = "Content-Type: application/xml\r\n" if body else ""
    return answered(status, f"{_HEAD}{extra}{kind}", body, method=method)
