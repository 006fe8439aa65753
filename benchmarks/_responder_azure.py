"""Azure Blob Storage as a responder plays it: block blobs in one piece or in blocks, ranges and listings."""

from __future__ import annotations

import base64
import hashlib
import itertools
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from _responder_objects import DATE, Bucket, Object, answered, filling, stored

__all__ = ["Azure"]

_HEAD = f"Date: {DATE}\r\nServer: bench\r\nx-ms-request-id: BENCH\r\nx-ms-version: 2025-05-05\r\n"
_XML = '<?xml version="1.0" encoding="utf-8"?>'


class Azure:
    """Blobs in memory, and the answers about them. The account is the first part of each path."""

    def __init__(self, fill: dict[str, tuple[int, int]]) -> None:
        self._containers: dict[str, Bucket] = {}
        self._blocks: dict[str, int] = {}
        self._count = itertools.count(0x8DE_0000_0000_0000)
        for name, (count, size) in fill.items():
            for key, body in filling(count, size):
                self._put(name, key, {}, body, size)

    def __call__(self, method: str, target: str, headers: dict[str, str], body: bytes, size: int) -> list[bytes]:
        """Return an answer in pieces."""
        path, _, text = target.partition("?")
        _, name, key = f"{unquote(path[1:])}//".split("/", 2)
        key = key[:-2]
        query = {word: values[0] for word, values in parse_qs(text, keep_blank_values=True).items()} if text else {}
        container = self._containers.setdefault(name, Bucket())
        if not key:
            return self._about_container(method, container, query)
        if "block" in query.get("comp", ""):
            return self._of_blocks(name, key, query, headers, body, size)
        if method == "PUT":
            if "if-none-match" in headers and key in container.objects:
                return _answer(409, "BlobAlreadyExists")
            return _written(self._put(name, key, headers, body, size))
        found = container.objects.get(key)
        if found is None:
            return _answer(404, "BlobNotFound", method=method)
        return self._about_blob(method, container, found, headers)

    def _about_blob(self, method: str, container: Bucket, found: Object, headers: dict[str, str]) -> list[bytes]:
        if method == "DELETE":
            container.delete(found.key)
            return _answer(202)
        wanted = headers.get("x-ms-range") or headers.get("range")
        digest = f"{'x-ms-blob-content-md5' if wanted else 'Content-MD5'}: {found.entry}\r\n"
        return stored(method, found, f"{_HEAD}{found.headers}{digest}", wanted)

    def _put(self, name: str, key: str, headers: dict[str, str], body: bytes, size: int) -> Object:
        etag = f"0x{next(self._count):X}"
        told = headers.get("x-ms-blob-content-md5") or headers.get("content-md5")
        if not told or body:
            told = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        kind = headers.get("x-ms-blob-content-type") or headers.get("content-type") or "application/octet-stream"
        kept = "".join(f"{word}: {headers[word]}\r\n" for word in headers if word.startswith("x-ms-meta-"))
        about = (
            f'Content-Type: {kind}\r\nETag: "{etag}"\r\nLast-Modified: {DATE}\r\nAccept-Ranges: bytes\r\n'
            f"x-ms-blob-type: BlockBlob\r\nx-ms-access-tier: Hot\r\nx-ms-access-tier-inferred: true\r\n"
            f"x-ms-creation-time: {DATE}\r\nx-ms-server-encrypted: true\r\n{kept}"
        )
        made = Object(key, size, etag, body, about, told)
        self._containers.setdefault(name, Bucket()).put(made)
        return made

    def _of_blocks(
        self, name: str, key: str, query: dict[str, str], headers: dict[str, str], body: bytes, size: int
    ) -> list[bytes]:
        if query["comp"] == "block":
            self._blocks[f"{name}/{key}/{query['blockid']}"] = size
            return _answer(201)
        ids = [piece.partition("<")[0] for piece in body.decode().replace("Uncommitted>", "Latest>").split("<Latest>")]
        whole = sum(self._blocks.pop(f"{name}/{key}/{each}") for each in ids[1:])
        return _written(self._put(name, key, headers, b"", whole))

    def _about_container(self, method: str, container: Bucket, query: dict[str, str]) -> list[bytes]:
        if query.get("comp") == "list":
            return answered(200, f"{_HEAD}Content-Type: application/xml\r\n", _listing(container, query))
        if method == "PUT":
            return _answer(409, "ContainerAlreadyExists")
        return answered(200, f'{_HEAD}ETag: "0x1"\r\nLast-Modified: {DATE}\r\nx-ms-lease-state: available\r\n')


def _written(made: Object) -> list[bytes]:
    about = f'ETag: "{made.etag}"\r\nLast-Modified: {DATE}\r\nContent-MD5: {made.entry}\r\n'
    return answered(201, f"{_HEAD}{about}x-ms-request-server-encrypted: true\r\n")


def _answer(status: int, code: str = "", *, method: str = "GET") -> list[bytes]:
    body = f"{_XML}<Error><Code>{code}</Code><Message>{code}</Message></Error>" if code else ""
    kind = f"x-ms-error-code: {code}\r\nContent-Type: application/xml\r\n" if code else ""
    return answered(status, f"{_HEAD}{kind}", body, method=method)


def _listing(container: Bucket, query: dict[str, str]) -> str:
    prefix, after = query.get("prefix", ""), query.get("marker", "")
    more, folders = False, list[str]()
    if query.get("delimiter") == "/":
        found, folders = container.level(prefix)
    else:
        limit = min(int(query.get("maxresults") or 5000), 5000)
        found, more = container.page(prefix, after, limit, query.get("startFrom", ""))
    entries = "".join(map(_entry, found))
    rolled = "".join(f"<BlobPrefix><Name>{escape(each)}</Name></BlobPrefix>" for each in folders)
    marker = f"<NextMarker>{escape(found[-1].key)}</NextMarker>" if more else "<NextMarker />"
    about = f'ServiceEndpoint="http://127.0.0.1/bench" ContainerName="b"><Prefix>{escape(prefix)}</Prefix>'
    return f"{_XML}<EnumerationResults {about}<Blobs>{entries}{rolled}</Blobs>{marker}</EnumerationResults>"


def _entry(found: Object) -> str:
    return (
        f"<Blob><Name>{escape(found.key)}</Name><Properties><Creation-Time>{DATE}</Creation-Time><Last-Modified>{DATE}"
        f"</Last-Modified><Etag>{found.etag}</Etag><Content-Length>{found.size}</Content-Length><Content-Type>"
        f"application/octet-stream</Content-Type><Content-Encoding /><Content-Language /><Content-CRC64 /><Content-MD5>"
        f"{found.entry}</Content-MD5><Cache-Control /><Content-Disposition /><BlobType>BlockBlob</BlobType><AccessTier>"
        f"Hot</AccessTier><AccessTierInferred>true</AccessTierInferred><LeaseStatus>unlocked</LeaseStatus><LeaseState>"
        f"available</LeaseState><ServerEncrypted>true</ServerEncrypted></Properties><OrMetadata /></Blob>"
    )
