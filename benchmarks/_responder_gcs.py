"""Cloud Storage as a responder plays it: objects of its JSON API, written in one piece, and listings."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import google_crc32c
from _responder_objects import DATE, Bucket, Object, answered, filling, stored

__all__ = ["Gcs"]

_HEAD = f"Date: {DATE}\r\nServer: bench\r\n"
_TIME = "2026-11-20T12:00:00.000Z"
_CLOSED = {"publicAccessPrevention": "enforced", "uniformBucketLevelAccess": {"enabled": True}}


class Gcs:
    """Objects in memory, and the answers about them."""

    def __init__(self, fill: dict[str, tuple[int, int]]) -> None:
        self._buckets: dict[str, Bucket] = {}
        self._count = itertools.count(1_763_640_000_000_000)
        self._host = ""
        for name, (count, size) in fill.items():
            for key, body in filling(count, size):
                self._put(name, {"name": key}, body, size)

    def __call__(self, method: str, target: str, headers: dict[str, str], body: bytes, size: int) -> list[bytes]:
        """Return an answer in pieces."""
        path, _, text = target.partition("?")
        query = {word: values[0] for word, values in parse_qs(text, keep_blank_values=True).items()} if text else {}
        self._host = headers.get("host", "")
        first, _, rest = path.partition("/storage/v1/b/")
        name, inside, key = rest.partition("/o")
        if first == "/upload" and method == "POST":
            return self._uploaded(name, query, headers, body, size)
        if not inside:
            return _answer(200, json.dumps({"name": name, "id": name, "iamConfiguration": _CLOSED}))
        bucket = self._buckets.setdefault(name, Bucket())
        if not key:
            return _answer(200, self._listing(name, query))
        found = bucket.objects.get(unquote(key[1:]))
        if found is None:
            return _refused(404, "notFound")
        return self._about_object(method, name, found, headers, media=query.get("alt") == "media")

    def _about_object(
        self, method: str, name: str, found: Object, headers: dict[str, str], *, media: bool
    ) -> list[bytes]:
        bucket = self._buckets[name]
        if method == "DELETE":
            bucket.delete(found.key)
            return _answer(204)
        if media:
            return stored(method, found, f"{_HEAD}{found.headers}", headers.get("range"))
        return _answer(200, self._about(name, found))

    def _uploaded(
        self, name: str, query: dict[str, str], headers: dict[str, str], body: bytes, size: int
    ) -> list[bytes]:
        about, media = _related(headers["content-type"], body)
        about.setdefault("name", query.get("name"))
        there = about["name"] in self._buckets.setdefault(name, Bucket()).objects
        if there and query.get("ifGenerationMatch") == "0":
            return _refused(412, "conditionNotMet")
        made = self._put(name, about, media, len(media) if body else size)
        return _answer(200, self._about(name, made))

    def _put(self, name: str, about: dict[str, Any], body: bytes, size: int) -> Object:
        generation = str(next(self._count))
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        crc32c = base64.b64encode(google_crc32c.value(body).to_bytes(4, "big")).decode()
        kind = about.get("contentType", "application/octet-stream")
        told = about | {
            "kind": "storage#object",
            "id": f"{name}/{about['name']}/{generation}",
            "bucket": name,
            "generation": generation,
            "metageneration": "1",
            "contentType": kind,
            "storageClass": "STANDARD",
            "size": str(size),
            "md5Hash": md5,
            "crc32c": crc32c,
            "etag": generation,
            "timeCreated": _TIME,
            "updated": _TIME,
        }
        headers = (
            f"Content-Type: {kind}\r\nETag: {generation}\r\nLast-Modified: {DATE}\r\n"
            f"X-Goog-Generation: {generation}\r\nX-Goog-Metageneration: 1\r\nX-Goog-Hash: crc32c={crc32c},md5={md5}\r\n"
            "X-Goog-Storage-Class: STANDARD\r\n"
        )
        made = Object(about["name"], size, generation, body, headers, json.dumps(told)[:-1])
        self._buckets.setdefault(name, Bucket()).put(made)
        return made

    def _about(self, name: str, found: Object) -> str:
        """Return an object's resource; rclone reads objects where this says."""
        place = f"{self._host}/download/storage/v1/b/{name}/o/{quote(found.key, safe='')}"
        return f'{found.entry}, "mediaLink": "http://{place}?generation={found.etag}&alt=media"}}'

    def _listing(self, name: str, query: dict[str, str]) -> str:
        bucket, prefix = self._buckets[name], query.get("prefix", "")
        limit, after = min(int(query.get("maxResults") or 1000), 1000), query.get("pageToken", "")
        more, folders = False, list[str]()
        if query.get("delimiter") == "/":
            found, folders = bucket.level(prefix)
        else:
            found, more = bucket.page(prefix, after, limit, query.get("startOffset", ""))
        rest = {"prefixes": folders} if folders else {}
        about = json.dumps({"kind": "storage#objects", **rest, **({"nextPageToken": found[-1].key} if more else {})})
        return f'{about[:-1]}, "items": [{",".join(self._about(name, each) for each in found)}]}}'


def _related(kind: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Take apart what an object is and its content."""
    boundary = b"--" + kind.partition("boundary=")[2].strip('"; ').encode()
    _, first, second, *_ = body.split(boundary, 3)
    about: dict[str, Any] = json.loads(first.partition(b"\r\n\r\n")[2])
    typed, _, media = second.partition(b"\r\n\r\n")
    named = typed.lower().partition(b"content-type:")[2].strip().decode()
    return {"contentType": named or "application/octet-stream"} | about, media[:-2]


def _refused(status: int, reason: str) -> list[bytes]:
    about = {"code": status, "message": reason, "errors": [{"reason": reason, "message": reason}]}
    return _answer(status, json.dumps({"error": about}))


def _answer(status: int, body: str = "") -> list[bytes]:
    kind = "Content-Type: application/json; charset=UTF-8\r\n" if body else ""
    return answered(status, f"{_HEAD}{kind}", body)
