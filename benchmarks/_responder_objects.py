"""What a responder keeps, whichever service it plays."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable, Iterable, Iterator

import attrs

__all__ = ["DATE", "KEPT", "Bucket", "Object", "Store", "answered", "content", "filling", "stored"]

KEPT = 1024 * 1024
"""Bytes. Of bodies above it the length alone is kept."""
DATE = "Fri, 20 Nov 2026 12:00:00 GMT"
_BLOCK = random.Random(0).randbytes(8 * KEPT)  # noqa: S311  makes up a content
_REASONS = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    404: "Not Found",
    409: "Conflict",
    412: "Precondition Failed",
}

Store = Callable[[str, str, dict[str, str], bytes, int], list[bytes]]
"""Answers a method, a target, headers and a body; that is empty if it is too large to keep, and its length follows."""


def content(size: int, seed: int = 0) -> bytes:
    """Return what an object is filled with."""
    return random.Random(seed).randbytes(size)  # noqa: S311  makes up a content


def filling(count: int, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield keys and contents; none of those that are too large to keep."""
    for number in range(count):
        yield f"folder-{number % 10}/object-{number:07d}", content(size, number % 61) if size <= KEPT else b""


@attrs.define
class Object:
    """An object, with its headers of an answer and its entry in a listing."""

    key: str
    size: int
    etag: str
    body: bytes = b""
    headers: str = ""
    entry: str = ""


class Bucket:
    """Objects by key."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self._order: list[str] | None = []

    def put(self, found: Object) -> None:
        """Keep an object, in the place of another."""
        if found.key not in self.objects:
            self._order = None
        self.objects[found.key] = found

    def delete(self, key: str) -> None:
        """Forget an object, if it is there."""
        if self.objects.pop(key, None) is not None:
            self._order = None

    def page(self, prefix: str, after: str, limit: int, first: str = "") -> tuple[list[Object], bool]:
        """Return the objects behind a key, from the first wanted on, and whether there are more."""
        if self._order is None:
            self._order = sorted(self.objects)
        begin = bisect.bisect_left(self._order, max(prefix, first))
        start = max(begin, bisect.bisect_right(self._order, after) if after else 0)
        keys = []
        for key in itertools.islice(self._order, start, start + limit + 1):
            if not key.startswith(prefix):
                break
            keys.append(key)
        return [self.objects[key] for key in keys[:limit]], len(keys) > limit

    def level(self, prefix: str) -> tuple[list[Object], list[str]]:
        """Return the objects of one folder and the folders in it, all at once; rclone walks by folders."""
        here = [found for key, found in sorted(self.objects.items()) if key.startswith(prefix)]
        inside = [found for found in here if "/" not in found.key[len(prefix) :]]
        deeper = (found.key[len(prefix) :] for found in here)
        return inside, sorted({f"{prefix}{key.partition('/')[0]}/" for key in deeper if "/" in key})


def answered(status: int, head: str, body: str = "", *, method: str = "GET") -> list[bytes]:
    """Return a small answer."""
    data = body.encode()
    line = f"HTTP/1.1 {status} {_REASONS[status]}\r\n{head}Content-Length: {len(data)}\r\n\r\n".encode()
    return [line + (b"" if method == "HEAD" else data)]


def stored(method: str, found: Object, head: str, wanted: str | None) -> list[bytes]:
    """Return an object, or what is asked of it, in pieces; contents that were not kept are made up."""
    start, stop, status, ranged = 0, found.size, 200, ""
    if wanted:
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else found.size, found.size)
        status, ranged = 206, f"Content-Range: bytes {start}-{stop - 1}/{found.size}\r\n"
    line = f"HTTP/1.1 {status} {_REASONS[status]}\r\n{head}{ranged}Content-Length: {stop - start}\r\n\r\n".encode()
    if method == "HEAD":
        return [line]
    if found.body:
        return [line + found.body[start:stop]]
    return [line, *_made_up(start, stop)]


def _made_up(start: int, stop: int) -> Iterable[bytes]:
    while start < stop:
        piece = memoryview(_BLOCK)[start % len(_BLOCK) :][: stop - start]
        yield piece  # type: ignore[misc]  # a transport takes both
        start += len(piece)
